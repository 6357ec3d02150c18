"""The first page and the line below a chapter's title: every chapter is there, with what it says and measured of itself."""

import json
import re
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "book" / "_ext"))

import landing as page  # noqa: E402


def test_every_chapter_says_what_it_needs_and_how_long_it_takes():
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    wanted = [c["file"] for part in toc["parts"] for c in part["chapters"] if c["file"].startswith("notebooks/")]
    found = page.chapters(ROOT)
    assert [c.page for c in found] == wanted
    for chapter in found:
        assert chapter.title != chapter.page and chapter.needs.endswith("."), chapter
        assert 5 <= chapter.reading <= 120 and "](" not in chapter.needs, chapter


def notebook(folder, text, name="a", **metadata):
    folder.mkdir(parents=True, exist_ok=True)
    cells = [{"cell_type": "markdown", "source": text, "metadata": {}}, {"cell_type": "code", "source": "word " * 9000, "metadata": {}}]
    (folder / f"{name}.ipynb").write_text(json.dumps({"cells": cells, "metadata": metadata}))


def test_reading_is_counted_from_words_and_formulas(tmp_path):
    notebook(tmp_path / "notebooks", "# Title\n\nYou need *pens*, [paper](paper.ipynb) and $K > 1$.\n\n" + "word " * 1500 + "$$\nx = aaa + bbb\n$$\n" * 20)
    found = page.describe(tmp_path, "Part", "notebooks/a")
    assert (found.title, found.needs, found.reading, found.seconds) == ("Title", "*pens*, paper and $K > 1$.", 20, None)
    assert (page.hours(45), page.hours(170)) == ("45 min", "2 h 50 min")
    assert page.math(found.needs).startswith("<em>pens</em>, paper and <span") and "K &gt; 1" in page.math(found.needs)
    notebook(tmp_path / "notebooks", "# Title\n\nNothing is said here.")
    assert page.describe(tmp_path, "", "notebooks/a").needs == ""


def test_times_are_those_of_the_lite_run(tmp_path):
    notebook(tmp_path / "notebooks", "# Title")
    (tmp_path / "benchmarks" / "results").mkdir(parents=True)
    (tmp_path / "benchmarks" / "results" / "book.json").write_text(json.dumps({"seconds": {"a": 12.5}}))
    run = tmp_path / "executed"
    assert page.run_time(tmp_path, "notebooks/a", run) == 12.5
    notebook(run, "", papermill={"parameters": {"profile": "smoke"}, "duration": 2.0})
    assert page.run_time(tmp_path, "notebooks/a", run) == 12.5
    notebook(run, "", papermill={"parameters": {"profile": "lite"}, "duration": 33.0})
    assert page.run_time(tmp_path, "notebooks/a", run) == 33.0
    assert page.run_time(tmp_path, "notebooks/b", run) is None
    assert (page.lasting(None), page.lasting(33.4), page.lasting(150.0)) == ("–", "33 s", "2.5 min")


@pytest.mark.parametrize("uri, wanted", [("../notebooks/mvae", "../_sources/notebooks/mvae.ipynb"), ("notebooks/mvae", "_sources/notebooks/mvae.ipynb")])
def test_the_notebook_is_where_the_theme_puts_it(uri, wanted):
    assert page.sources(uri) == wanted


def test_a_chapter_s_words_are_escaped():
    html = page.buttons(page.Chapter("notebooks/a", "", "Less < more", "", 5, None), "a.ipynb")
    assert "Less &lt; more" in html and not re.search(r"Less < more", html)
