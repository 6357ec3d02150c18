"""Equation, function and test lead to one another, in the sources and on the built pages."""

from __future__ import annotations

import ast
import functools
import html
import os
import re
import sys
from pathlib import Path

import pytest

from tests.prose import markdown_of

pytest.importorskip("sphinx")
ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "book" / "_ext"))
import equations  # noqa: E402

PAGES = sorted((ROOT / "book").glob("*.md")) + sorted((ROOT / "notebooks").glob("*.ipynb"))


#: What computes and what proves an equation; read once, since a scan parses every source file.
computing, proving = functools.cache(equations.functions), functools.cache(equations.tests)


@functools.cache
def labels_on(page: Path) -> list[str]:
    return equations.labels_in(markdown_of(page))


def defined() -> dict[str, Path]:
    return {label: page for page in PAGES for label in labels_on(page)}


def registered() -> list[str]:
    return sorted({site.label for site in computing(ROOT)})


@functools.cache
def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def book() -> Path:
    if not os.environ.get("MMVAE_BOOK"):
        pytest.skip("MMVAE_BOOK names no built book")
    return Path(os.environ["MMVAE_BOOK"])


# Sources --------------------------------------------------------------------------------------------


def test_something_is_registered():
    assert len(registered()) >= 8


def test_each_label_is_defined_once():
    labels = [label for page in PAGES for label in labels_on(page)]
    assert sorted(labels) == sorted(set(labels))


@pytest.mark.parametrize("label", registered())
def test_what_a_docstring_cites_is_in_the_book_and_proved(label):
    assert label in defined(), f"{label} is cited by a docstring and defined on no page"
    assert label in equations.by_label(proving(ROOT)), f"no test is marked with {label}"


def test_what_a_test_proves_is_in_the_book_and_computed():
    computed = equations.by_label(computing(ROOT))
    for site in proving(ROOT):
        assert site.label in defined(), f"{site.path}:{site.line} is marked with {site.label}, which no page defines"
        assert site.label in computed, f"{site.path}:{site.line} is marked with {site.label}, which no docstring cites"


def test_marks_stand_on_tests():
    for site in proving(ROOT):
        assert site.name.rpartition(".")[2].startswith("test_")


def test_every_reference_to_an_equation_has_its_equation():
    labels = set(defined())
    for page in PAGES:
        for label in re.findall(r"\{eq\}`([^`]+)`", markdown_of(page)):
            assert label in labels, f"{page.name} refers to {label}"


def test_a_broken_link_would_be_seen(tmp_path):
    (tmp_path / "mmvae_lite").mkdir()
    (tmp_path / "tests").mkdir()
    (tmp_path / "mmvae_lite" / "x.py").write_text('def f():\n    """Equation `eq-gone` of the book."""\n', encoding="utf-8")
    (tmp_path / "tests" / "test_x.py").write_text(
        'import pytest\n\n@pytest.mark.parametrize("a", [pytest.param(1, marks=pytest.mark.equation("eq-lost"))])\ndef test_f(a): ...\n',
        encoding="utf-8",
    )
    assert [s.label for s in equations.functions(tmp_path)] == ["eq-gone"]
    assert [s.label for s in equations.tests(tmp_path)] == ["eq-lost"]


@pytest.mark.parametrize(
    "text",
    ["$$\na\n$$ (eq-x)", "$$ a $$ (eq-x)", "```{math}\n:label: eq-x\na\n```", "\\begin{equation}\\label{eq-x}\na\\end{equation}"],
)
def test_labels_are_found_however_they_are_written(text):
    assert equations.labels_in("words\n\n" + text + "\n") == ["eq-x"]


def test_source_html_marks_lines_and_links_back():
    text = 'def f():\n    """Equation `eq-x` of the book, <not> `eq-xy`."""\n'
    site = equations.Site("eq-x", "mmvae_lite/m.py", "f", 1)
    page = equations.source_html(text, [site], lambda label: f"../c.html#equation-{label}")
    assert 'id="f"' in page and 'id="L2"' in page
    assert page.count('href="../c.html#equation-eq-x"') == 1 and "&lt;not&gt;" in page
    assert "".join(re.sub(r"<[^>]*>", "", html.unescape(page)).split()).startswith("deff():")


# The built book -------------------------------------------------------------------------------------


def links_of(text: str) -> list[str]:
    return [html.unescape(link) for link in re.findall(r'<a\b[^>]*?href="([^"]+)"', text)]


@functools.cache
def ids_of(page: Path) -> set[str]:
    return {html.unescape(i) for i in re.findall(r'\bid="([^"]+)"', text_of(page))}


@functools.cache
def links_on(page: Path) -> list[str]:
    return links_of(text_of(page))


def page_of(book: Path, source: Path) -> Path:
    return (book / source.relative_to(ROOT)).with_suffix(".html")


def test_each_equation_leads_to_its_functions_and_tests(book):
    places = defined()
    for site in computing(ROOT) + proving(ROOT):
        page = page_of(book, places[site.label])
        text = text_of(page)
        start = text.index(f'id="equation-{site.label}"')
        line = text[start : text.index("</p>", text.index('class="equation-links"', start))]
        target = next((link for link in links_of(line) if link.endswith(f"{site.page.removeprefix('source/')}.html#{site.anchor}")), None)
        assert target, f"{site.label} does not lead to {site.path} {site.name}"
        path, _, anchor = target.partition("#")
        assert anchor in ids_of((page.parent / path).resolve())


def test_each_function_and_test_leads_back(book):
    for site in computing(ROOT) + proving(ROOT):
        page = book / f"{site.page}.html"
        text = text_of(page)
        back = [link for link in links_on(page) if link.endswith(f"#equation-{site.label}")]
        assert back, f"{site.page} does not lead back to {site.label}"
        path, _, anchor = back[0].partition("#")
        assert anchor in ids_of((page.parent / path).resolve())
        line = next(row for row in text.split('class="source-line"') if f'data-n="{site.line}"' in row)
        words = html.unescape(re.sub(r"<[^>]*>", "", line))
        assert site.name.rpartition(".")[2] in words, f"the anchor of {site.name} is not at its line"


def test_an_equation_has_the_same_number_on_every_page(book):
    places = defined()
    for label in {site.label for site in computing(ROOT)}:
        text = text_of(page_of(book, places[label]))
        start = text.index(f'id="equation-{label}"')
        (shown,) = re.findall(r'class="eqno">(\(\d+\))', text[start : text.index("</div>", start)])
        listed = text_of(book / "book" / "equations.html")
        assert f'#equation-{label}">{shown} ' in listed, f"{label} is {shown} in its chapter"


def test_source_pages_show_the_source_that_is_there(book):
    for site in computing(ROOT):
        text = (book / f"{site.page}.html").read_text(encoding="utf-8")
        rows = re.findall(r'class="source-line">(.*?)\n</span>', text, flags=re.S)
        shown = [html.unescape(re.sub(r"<[^>]*>", "", row)) for row in rows]
        assert shown == (ROOT / site.path).read_text(encoding="utf-8").rstrip("\n").split("\n")


def test_no_link_inside_the_book_is_broken(book):
    broken = []
    for page in book.rglob("*.html"):
        if "_static" in page.parts:
            continue
        for link in links_on(page):
            path, _, anchor = link.partition("#")
            if re.match(r"[a-z]+:", link) or not link or link == "#":
                continue
            target = (page.parent / path.partition("?")[0]).resolve() if path else page.resolve()
            if not target.exists():
                broken.append(f"{page.name}: {link}")
            elif anchor and target.suffix == ".html":
                if anchor not in ids_of(target):
                    broken.append(f"{page.name}: {link}")
    assert not broken


def test_every_number_leads_to_its_row(book):
    for page in book.rglob("*.html"):
        for tag in re.findall(r'<a class="[^"]*\bnumber\b[^"]*"[^>]*>', text_of(page)):
            (link,) = re.findall(r'href="([^"]+)"', tag)
            path, _, anchor = link.partition("#")
            target = (page.parent / path).resolve() if path else page
            assert anchor in ids_of(target), link
            assert 'title="' in tag


def test_docstrings_name_their_source():
    """A public function that cites an equation also says where the formula comes from."""
    for site in computing(ROOT):
        tree = ast.parse((ROOT / site.path).read_text(encoding="utf-8"))
        node = dict(equations.definitions(tree))[site.name]
        assert "of the book" in (ast.get_docstring(node) or ""), f"{site.path} {site.name}"
