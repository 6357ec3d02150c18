"""From the notebook that is edited to the page that is read."""

from __future__ import annotations

import base64
import copy
import hashlib
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
sys.path.insert(0, str(ROOT / "book" / "_ext"))
PARAMETERS = {"profile", "seed", "device"}


def tool(name: str):
    """A program of tools/, imported as a module."""
    spec = importlib.util.spec_from_file_location(f"tools_{name}", ROOT / "tools" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "tools"))
        spec.loader.exec_module(module)
    return module


@pytest.fixture
def executed():
    pytest.importorskip("sphinx")
    import executed_notebooks

    return executed_notebooks


# Notebooks ------------------------------------------------------------------------------------------


def test_there_are_notebooks_and_each_has_its_pair():
    assert NOTEBOOKS
    assert {p.stem for p in NOTEBOOKS} == {p.stem for p in (ROOT / "notebooks").glob("*.py")}


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda p: p.stem)
def test_pair_is_in_line(notebook):
    jupytext = pytest.importorskip("jupytext")
    from jupytext.compare import compare_notebooks

    script = jupytext.read(notebook.with_suffix(".py"))
    compare_notebooks(script, jupytext.read(notebook), fmt="py:percent", compare_outputs=False)
    assert script.metadata["kernelspec"]["name"] == "python3"


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda p: p.stem)
def test_no_output_is_committed(notebook):
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        assert not cell.get("outputs") and cell.get("execution_count") is None


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda p: p.stem)
def test_parameters_are_the_three(notebook):
    """papermill only mutters about a parameter that it does not know, so the names are tested."""
    papermill = pytest.importorskip("papermill")
    found = papermill.inspect_notebook(str(notebook))
    assert set(found) == PARAMETERS
    assert found["profile"]["default"].strip("'\"") == "lite"
    assert found["seed"]["default"] == "0" and found["device"]["default"].strip("'\"") == "cpu"


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebook_is_in_the_table_of_contents(notebook):
    assert f"notebooks/{notebook.stem}" in (ROOT / "_toc.yml").read_text(encoding="utf-8")


# Executed notebooks become pages --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\rone\rtwo\rthree", "three"),
        ("\r  1%\r100%\nend\n", "100%\nend\n"),
        ("a\r\nb\r\n", "a\nb\n"),
        ("plain\n", "plain\n"),
        ("full\r", "full"),
        ("\r", ""),
    ],
)
def test_carriage_returns_collapse(executed, text, shown):
    assert executed.collapse_returns(text) == shown


def test_a_progress_bar_in_pieces_becomes_its_last_state(executed):
    pieces = [{"output_type": "stream", "name": "stdout", "text": t} for t in ("\r1", ["\r2"], "\r3\n", "done\n")]
    other = {"output_type": "stream", "name": "stderr", "text": "x"}
    assert [o["text"] for o in executed.merge_streams([*pieces, other])] == ["3\ndone\n", "x"]


def notebook(outputs: list[dict]) -> dict:
    code = {"cell_type": "code", "metadata": {"tags": [], "papermill": {}}, "source": "x", "outputs": outputs}
    injected = {"cell_type": "code", "metadata": {"tags": ["injected-parameters"]}, "source": "profile", "outputs": []}
    return {"metadata": {"papermill": {}, "widgets": {}, "kernelspec": {"name": "python3"}}, "cells": [injected, code]}


def test_what_papermill_and_widgets_left_is_dropped(executed):
    output = {"output_type": "display_data", "data": {executed.WIDGET: {}, "text/html": "<b>"}, "metadata": {}}
    clean = executed.clean(notebook([copy.deepcopy(output)]))
    assert clean["metadata"] == {"kernelspec": {"name": "python3"}}
    (cell,) = clean["cells"]
    assert cell["metadata"] == {"tags": []} and cell["outputs"][0]["data"] == {"text/html": "<b>"}


@pytest.mark.parametrize(
    ("data", "word"),
    [
        ({"application/vnd.jupyter.widget-view+json": {}}, "dead"),
        ({"image/png": "…", "text/plain": "<Figure>"}, "alt"),
        ({"image/svg+xml": "<svg/>"}, "alt"),
        ({"text/html": '<img src="data:,">'}, "alt"),
        ({"text/html": "<svg><path/></svg>"}, "aria-label"),
        ({"application/vnd.plotly.v1+json": {"layout": {}}}, "alt"),
    ],
)
def test_an_output_that_a_reader_cannot_use_is_named(executed, data, word):
    (sentence,) = executed.problems({"output_type": "display_data", "data": data})
    assert word in sentence


@pytest.mark.parametrize(
    "data",
    [
        {"text/html": '<img alt="" src="data:,">'},
        {"text/html": '<svg aria-label="A line"><path/></svg>'},
        {"text/html": "<my-explorer></my-explorer>", "application/vnd.jupyter.widget-view+json": {}},
        {"application/vnd.plotly.v1+json": {"layout": {"meta": {"alt": "A cloud of points"}}}},
        {"text/plain": "3"},
    ],
)
def test_an_output_that_is_fine_passes(executed, data):
    assert executed.problems({"output_type": "display_data", "data": data}) == []


def explorer(content: bytes = b"weights", sha: str = "") -> str:
    sha = sha or hashlib.sha256(content).hexdigest()
    return (
        '<latent-explorer class="x"><script type="application/json" class="explorer-spec">{}</script>'
        f'<script type="text/plain" class="explorer-weights" data-name="mvae" data-sha256="{sha}">'
        f"{base64.b64encode(content).decode()}</script></latent-explorer>"
    )


def test_weights_move_to_a_script_that_the_element_names(executed):
    html, scripts = executed.extract_weights(explorer(), "../_static/")
    key = "mvae-" + hashlib.sha256(b"weights").hexdigest()[:12]
    assert list(scripts) == [f"{key}.js"]
    content = base64.b64encode(b"weights").decode()
    assert scripts[f"{key}.js"] == f'(globalThis.mmvaeWeights ??= {{}})["{key}"]="{content}";\n'
    assert "explorer-weights" not in html and "explorer-spec" in html
    assert f'<latent-explorer class="x" data-weights="{key}" data-src="../_static/explorers/{key}.js">' in html


def test_two_explorers_keep_their_own_weights(executed):
    html, scripts = executed.extract_weights(explorer(b"one") + explorer(b"two"), "_static/")
    assert len(scripts) == 2
    marks = re.findall(r'<latent-explorer class="x" data-weights="([^"]+)"', html)
    assert [f"{m}.js" for m in marks] == list(scripts)


def test_an_explorer_without_weights_is_left_alone(executed):
    text = '<expert-playground><script type="application/json" class="explorer-spec">{}</script></expert-playground>'
    assert executed.extract_weights(text, "") == (text, {})


def test_weights_that_do_not_match_their_hash_are_refused(executed):
    with pytest.raises(ValueError, match="hash"):
        executed.extract_weights(explorer(sha="0" * 64), "")


def test_weights_in_several_blocks_are_named_in_order(executed):
    block = re.search(r"<script type=.text/plain.*?</script>", explorer(b"first"))[0]
    html, scripts = executed.extract_weights(explorer(b"second").replace('<script type="text/plain"', block + '<script type="text/plain"'), "")
    keys = [f"mvae-{hashlib.sha256(part).hexdigest()[:12]}" for part in (b"first", b"second")]
    assert f'data-weights="{keys[0]} {keys[1]}" data-src="explorers/{keys[0]}.js explorers/{keys[1]}.js"' in html
    assert list(scripts) == [f"{key}.js" for key in keys]


def test_the_page_of_an_explorer_is_known_by_its_state(executed):
    assert executed._EXPLORER.search(explorer())
    assert not executed._EXPLORER.search("<div class='explorer'>")


@pytest.mark.parametrize("docname,prefix", [("index", "_static/"), ("notebooks/mvae", "../_static/"), ("a/b/c", "../../_static/")])
def test_static_files_are_reached_from_any_depth(executed, docname, prefix):
    assert executed.static_prefix(docname) == prefix


# The built book -------------------------------------------------------------------------------------


@pytest.fixture
def book() -> Path:
    if not os.environ.get("MMVAE_BOOK"):
        pytest.skip("MMVAE_BOOK names no built book")
    return Path(os.environ["MMVAE_BOOK"])


def pages(book: Path) -> list[Path]:
    return [p for p in book.rglob("*.html") if "_static" not in p.parts]


def test_built_pages_ask_no_other_host(book):
    for page in pages(book):
        text = page.read_text(encoding="utf-8")
        for tag in re.findall(r"<(?:script|img|iframe|link|source|audio|video)\b[^>]*>", text):
            if 'rel="canonical"' not in tag:
                assert not re.search(r'\b(?:src|href|srcset)="(?:https?:)?//', tag), f"{page.name}: {tag}"


def test_built_pages_load_the_explorers_only_where_one_stands(book):
    from mmvae_lite.explore import TAGS

    for page in pages(book):
        text = page.read_text(encoding="utf-8")
        stands = bool(re.search(rf"<(?:{'|'.join(TAGS)})\b", text))
        assert stands == bool(re.search(r'src="[^"]*/explore\.js', text)), page.name
        assert not re.search(r'<script[^>]*class="explorer-weights"', text), page.name
        for source in re.findall(r'<[a-z]+-[a-z]+ [^<>]*\bdata-src="([^"]+)"', text):
            assert (page.parent / source).exists(), f"{page.name}: {source}"


def test_built_pages_hold_no_trace_of_papermill(book):
    for page in pages(book):
        text = page.read_text(encoding="utf-8")
        assert "widget-view+json" not in text and "widget-state+json" not in text and "require.js" not in text
        assert "injected-parameters" not in text


def test_plotly_is_there_exactly_when_a_page_needs_it(book):
    needed = any('class="plotly-figure"' in p.read_text(encoding="utf-8") for p in pages(book))
    assert (book / "_static" / "plotly.min.js").exists() == needed


def test_download_button_gives_the_clean_notebook(book):
    for source in NOTEBOOKS:
        (served,) = (book / "_sources" / "notebooks").glob(f"{source.stem}.ipynb")
        cells = json.loads(served.read_text(encoding="utf-8"))["cells"]
        assert all(not cell.get("outputs") for cell in cells)


# Tools and README -----------------------------------------------------------------------------------


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.M))


def test_make_commands_that_the_texts_name_exist():
    for name in ("README.md", "CONTRIBUTING.md"):
        named = set(re.findall(r"\bmake ([a-z]+)\b(?=[`\s#]|$)", "\n".join(re.findall(r"`[^`]*`|```.*?```", (ROOT / name).read_text(encoding="utf-8"), flags=re.S))))
        assert named and named <= make_targets(), name


def test_programs_that_the_readme_and_the_makefile_name_exist():
    for name in ("README.md", "Makefile", ".ci/run"):
        for path in re.findall(r"\btools/\w+\.py", (ROOT / name).read_text(encoding="utf-8")):
            assert (ROOT / path).exists(), path


def test_make_help_lists_every_target():
    done = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0
    assert set(re.findall(r"^make (\w+)", done.stdout, flags=re.M)) == make_targets()


def test_fresh_runs_the_two_commands_of_the_readme():
    fresh = tool("fresh")
    assert fresh.commands((ROOT / "README.md").read_text(encoding="utf-8")) == ["make book", "make test"]


def test_readme_quotes_the_last_fresh_run():
    fresh = tool("fresh")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    quoted = readme.split(fresh.BEGIN)[1].split(fresh.END)[0].strip()
    if fresh.RESULT.exists():
        assert quoted == fresh.block(json.loads(fresh.RESULT.read_text(encoding="utf-8")))
    else:
        assert quoted == "", "README.md quotes times that no file holds"


def test_fresh_block_replaces_itself():
    fresh = tool("fresh")
    commands = [{"command": "make book", "minutes": 3.25}, {"command": "make test", "minutes": 5.0}]
    result = {"commands": commands, "cores": 2, "python": "3.11.7", "torch": "2.13.0", "commit": "abc", "data": False}
    once = fresh.with_block(f"a\n{fresh.BEGIN}\n{fresh.END}\nb", result)
    assert "`make book` took 3.2 minutes" in once and "2 cores" in once
    assert fresh.with_block(once, result) == once and once.startswith("a\n") and once.endswith("\nb")


def test_set_up_is_keyed_by_what_is_installed(tmp_path, monkeypatch):
    setup = tool("setup")
    monkeypatch.setattr(setup, "STAMP", tmp_path / "stamp.json")
    monkeypatch.setattr(setup, "venv_python", lambda: Path(sys.executable))
    assert setup.installed() == set()
    setup.STAMP.write_text(json.dumps({"key": setup.key(), "extras": ["book"]}))
    assert setup.installed() == {"book"}
    setup.STAMP.write_text(json.dumps({"key": "other", "extras": ["book"]}))
    assert setup.installed() == set()
    setup.STAMP.write_text("broken")
    assert setup.installed() == set()


def test_a_data_folder_that_is_not_there_is_said_early(monkeypatch, tmp_path):
    build = tool("build_book")
    monkeypatch.setenv("MMVAE_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(SystemExit, match="MMVAE_DATA names"):
        build.data_folder()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    monkeypatch.setenv("MMVAE_DATA", "data")
    assert build.data_folder() == str((tmp_path / "data").resolve())
    monkeypatch.delenv("MMVAE_DATA")
    assert build.data_folder() == ""


def test_a_notebook_runs_again_when_anything_that_matters_changed(tmp_path):
    build = tool("build_book")
    path = tmp_path / "n.ipynb"

    def key(source="a", parameters={"seed": 0}, library="l", data="d", outputs=()):
        cell = {"cell_type": "code", "source": source, "metadata": {}, "outputs": list(outputs), "id": os.urandom(3).hex()}
        path.write_text(json.dumps({"cells": [cell]}))
        return build.notebook_key(path, parameters, library, data)

    assert key() == key() == key(outputs=[{"x": 1}])
    changed = [key(source="b"), key(parameters={"seed": 1}), key(library="m"), key(data="")]
    assert len({key(), *changed}) == 5


def test_one_notebook_can_be_run_alone(monkeypatch):
    build = tool("build_book")
    assert build.chosen([]) == build.notebooks() and [p.stem for p in build.chosen(["mvae"])] == ["mvae"]
    with pytest.raises(SystemExit, match="no notebook is called 'nothing'; there are .*mvae"):
        build.chosen(["nothing"])


@pytest.mark.slow
def test_a_failing_cell_is_named(tmp_path, monkeypatch):
    papermill_cells = [
        {"cell_type": "code", "metadata": {"tags": ["parameters"]}, "source": "seed = 0", "outputs": [], "execution_count": None},
        {"cell_type": "code", "metadata": {}, "source": "raise ValueError('the sky fell')", "outputs": [], "execution_count": None},
    ]
    meta = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    source = tmp_path / "bad.ipynb"
    source.write_text(json.dumps({"cells": papermill_cells, "metadata": meta, "nbformat": 4, "nbformat_minor": 4}))
    program = (
        "import sys; sys.path.insert(0, 'tools'); import build_book; from pathlib import Path;"
        f"build_book.ROOT = Path({str(tmp_path)!r});"
        f"print(build_book.execute({str(source)!r}, {str(tmp_path / 'out.ipynb')!r}, {{'seed': 1}})[1])"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert "bad.ipynb failed" in done.stdout and "ValueError: the sky fell" in done.stdout and "raise ValueError" in done.stdout


def test_browser_named_by_the_reader_is_taken(monkeypatch, tmp_path):
    browser = tool("browser")
    named = tmp_path / "chromium"
    named.touch()
    monkeypatch.setenv("MMVAE_BROWSER", str(named))
    assert browser.find() == str(named)
    monkeypatch.setenv("MMVAE_BROWSER", str(tmp_path / "gone"))
    assert browser.find() is None
