"""The built book as a reader gets it: from a folder and from a server, phone and desktop, light and dark."""

import base64
import hashlib
import json
import re
from collections import defaultdict
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

import numpy as np
import pytest

from mmvae_lite import explore

from .helpers import PAINTED, ROOM, THIN, FirstLoad, Watch, book_folder, drive_every_control, pixels_move, violations_of_a_large_page, wake
from .test_explorer_kinds import LEAST

pytestmark = pytest.mark.browser
NOT_PAGES = ("_static", "_sources")
DESKTOP = {"width": 1280, "height": 900}
PHONE = {"width": 390, "height": 844, "touch": True}
#: Every page is opened once each way: (scheme, size, dark). Colours do not depend on the width, nor errors on colours.
VISITS = {"file-desktop-light": ("file", DESKTOP, False), "http-phone-dark": ("http", PHONE, True)}

MATH_DONE = """async () => {
  if (!document.querySelector(".math")) return true;
  if (!window.MathJax?.startup?.promise) return false;
  await MathJax.startup.promise;
  return document.querySelector("mjx-container") !== null;
}"""
TOO_WIDE = """() => {
  const wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  if (wide <= 0) return [];
  const inside = node => { // a box that scrolls by itself does not widen the page
    for (let box = node.parentElement; box && box !== document.body; box = box.parentElement)
      if (getComputedStyle(box).overflowX !== "visible") return true;
    return false;
  };
  return [...document.querySelectorAll("body *")]
    .filter(node => node.getBoundingClientRect().right > innerWidth + 1 && !inside(node))
    .map(node => node.outerHTML.slice(0, 120)).slice(0, 5).concat(`${wide} px too wide`);
}"""
ENGINE = """([spec, weights, z]) => {
  const bytes = Uint8Array.from(atob(weights), c => c.charCodeAt(0));
  const values = mmvaeExplore.unpackWeights(new DataView(bytes.buffer), spec.values);
  return Object.fromEntries(Object.entries(spec.decoders).map(
    ([name, layers]) => [name, z.map(one => Array.from(mmvaeExplore.decode(layers, values, one)))]));
}"""


class _Html(HTMLParser):
    """Links, ids and explorers of a page, without a browser."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.ids: set[str] = set()
        self.explorers: list[dict] = []
        self.has_math = self.redirects = self._in_spec = False
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        named = {key: value or "" for key, value in attributes}
        self.ids |= {named[key] for key in ("id", "name") if key in named and (key == "id" or tag == "a")}
        self.links += [named[key] for key in ("href", "src", "data-src") if named.get(key)]
        self.has_math |= "math" in named.get("class", "").split()
        self.redirects |= tag == "meta" and named.get("http-equiv", "").lower() == "refresh"
        if tag in explore.TAGS:
            self.explorers.append({"tag": tag, "weights": named.get("data-weights"), "src": named.get("data-src")})
        self._in_spec = named.get("class") == "explorer-spec"

    def handle_data(self, data):
        if self._in_spec:
            self.explorers[-1]["spec"] = json.loads(data)
            self._in_spec = False


_read: dict[Path, _Html] = {}


def read(path: Path) -> _Html:
    if path not in _read:
        _read[path] = _Html(path.read_text(encoding="utf-8"))
    return _read[path]


def all_pages(folder: Path) -> list[str]:
    found = (path.relative_to(folder) for path in sorted(folder.rglob("*.html")))
    return [path.as_posix() for path in found if path.parts[0] not in NOT_PAGES]


def is_copied(folder: Path, page: str, pages: list[str]) -> bool:
    """A page of source code that differs from others by its lines alone; the first one and the largest are visited for all."""
    sources = [other for other in pages if other.startswith("source/")]
    return page in sources and page not in (sources[0], max(sources, key=lambda name: (folder / name).stat().st_size))


def pytest_generate_tests(metafunc):
    """One test a page, so that a failure names it; without a book, one test that says so."""
    folder = book_folder()
    pages = [page for page in all_pages(folder) if not read(folder / page).redirects] if folder else []
    if "page_with_explorer" in metafunc.fixturenames:
        having = [page for page in pages if read(folder / page).explorers]
        metafunc.parametrize("page_with_explorer", having or [None])
    if "page_path" in metafunc.fixturenames:
        metafunc.parametrize("page_path", [page for page in pages if not is_copied(folder, page, pages)] or [None])


@pytest.fixture
def visit(new_page, book, book_urls):
    def go(path, scheme, size, dark):
        page = new_page(fresh=scheme == "http", **size, dark=dark)
        page.watch, page.load = Watch(page, book_urls[scheme]), FirstLoad(page, book_urls[scheme])
        page.goto(book_urls[scheme] + path)
        page.wait_for_function(MATH_DONE)
        return page

    return go


def first_of_its_folder(book, page_path) -> bool:
    """One page of each template: the prose pages, the chapters, the sources."""
    folder = Path(page_path).parts[0]
    return page_path == next(page for page in all_pages(book) if page.startswith(folder) and not read(book / page).redirects)


@pytest.mark.parametrize("how", VISITS)
def test_page(visit, book, page_path, how, latency):
    """One visit: weight, formulas, width, accessibility, every explorer and each of its controls, no error in all that time."""
    scheme, size, dark = VISITS[how]
    for attempt in range(3):  # another program may take the processor for a moment
        if attempt:
            page.close()
        page = visit(page_path, scheme, size, dark)
        page.load.measure()
        if page.load.painted < PAINTED:
            break
    assert page_path.startswith("source/") or page.load.faults(page_path) == []
    if read(book / page_path).has_math:
        assert page.locator("mjx-container").count() > 0, "no formula is typeset"
        assert page.locator("mjx-merror, [data-mml-node=merror]").count() == 0, "a formula does not parse"
    explorers = wake(page)
    assert len(explorers) == len(read(book / page_path).explorers)
    assert page.evaluate(TOO_WIDE) == []
    page.evaluate("scrollTo(0, 0)")
    assert page.evaluate("document.documentElement.dataset.theme") == ("dark" if dark else "light")
    # Source pages colour code as the chapters do.
    excluded = ("mjx-container",) + ((".highlight pre",) if page_path.startswith("source/") else ())
    rules = ROOM if size is PHONE and not first_of_its_folder(book, page_path) else ()
    assert not (found := violations_of_a_large_page(page, excluded, rules)), "\n".join(found)
    for number, explorer in enumerate(explorers):
        tag = explorer.evaluate("e => e.localName")
        pixels_move(page, explorer, size.get("touch", False))
        assert drive_every_control(page, explorer) >= LEAST.get(tag, 6)
        latency(f"{Path(page_path).stem} {tag} {number + 1}, {how}", explorer)
    page.watch.check()


def test_pages_that_are_not_visited_load_what_a_visited_one_loads(book):
    pages = [page for page in all_pages(book) if page.startswith("source/")]
    loaded = {page: {link.split("/")[-1] for link in read(book / page).links if re.search(r"\.(js|css)(\?|$)", link)} for page in pages}
    copied = [page for page in pages if is_copied(book, page, pages)]
    assert len(pages) - len(copied) == 2 and all(loaded[page] == loaded[pages[0]] for page in copied)
    assert not any(read(book / page).explorers or read(book / page).has_math for page in copied)


#: What a page must not have, each with a word by which it is known again.
PLANT = """() => {
  const words = [...document.querySelectorAll(".highlight pre span")].filter(word => word.textContent.trim().length > 2 && !word.children.length && word.checkVisibility());
  words.at(-1).style.color = "#999";
  words.at(-1).dataset.planted = "one-word";
  document.head.insertAdjacentHTML("beforeend", "<style>.highlight .k { color: #aaa !important }</style>");
  const main = document.querySelector("main");
  main.insertAdjacentHTML("beforeend", `<p style="color: #999" data-planted="paragraph">pale words</p>
    <input type="text" data-planted="input"><button data-planted="button"></button><img src="data:," data-planted="image">`);
}"""
PLANTED = {'"one-word"': "color-contrast", 'class="k"': "color-contrast", '"paragraph"': "color-contrast", '"input"': "label",
           '"button"': "button-name", '"image"': "image-alt"}  # fmt: skip


def test_planted_faults_are_found(visit, book):
    """Also where they hide among thousands of words of code."""
    chapters = [name for name in all_pages(book) if name.startswith("notebooks/")]
    page = visit(min(chapters, key=lambda name: (book / name).stat().st_size), "file", DESKTOP, False)
    page.evaluate(PLANT)
    for rules in ((), ROOM):  # the second time the page is small already
        found = violations_of_a_large_page(page, ("mjx-container",), rules)
        for fault, rule in PLANTED.items():
            seen = any(line.startswith(rule) and fault in line for line in found)
            assert seen is (not rules or rule == "color-contrast"), f"{fault}: {found}"


def test_little_is_left_of_the_words_of_code(visit, book):
    chapters = [name for name in all_pages(book) if name.startswith("notebooks/")]
    page = visit(min(chapters, key=lambda name: (book / name).stat().st_size), "http", PHONE, True)
    text = page.locator("main").inner_text()
    words = page.locator("pre span").count()
    assert page.evaluate(THIN) > 500 and page.locator("pre span").count() < 0.1 * words
    assert len(page.locator("main").inner_text()) > 0.5 * len(text), "what a reader reads is still there"


@pytest.fixture(scope="module")
def engine(book, book_urls, context):
    """A page of the book that has loaded the engine; every page loads the same one."""
    having = [page for page in all_pages(book) if read(book / page).explorers]
    page = context().new_page()
    page.goto(book_urls["file"] + min(having, key=lambda name: (book / name).stat().st_size))
    page.wait_for_function("() => globalThis.mmvaeExplore")
    yield page
    page.close()


def test_shipped_decoders(request, book, page_with_explorer):
    """The page's engine equals numpy on the page's own layers and weights, whose hash is right."""
    if page_with_explorer is None:
        pytest.fail("the book holds no explorer")
    rng = np.random.default_rng(0)
    for explorer in read(book / page_with_explorer).explorers:
        if explorer["weights"] is None:
            assert "decoders" not in explorer["spec"].get("spec", {}), f"{explorer['tag']} has decoders and no weights"
            continue
        script = (book / page_with_explorer).parent / explorer["src"]
        assert script.stat().st_size <= 4 * 2**20, f"{script.name} is larger than 4 MiB"
        key, text = re.search(r'\["([^"]+)"\]\s*=\s*"([^"]+)"', script.read_text(encoding="utf-8")).groups()
        weights, spec = base64.b64decode(text), explorer["spec"]["spec"]
        assert key == explorer["weights"]
        assert hashlib.sha256(weights).hexdigest() == spec["sha256"]
        starts = explorer["spec"]["options"].get("starts")
        places = [explorer["spec"]["z"], *starts.values()] if starts else []
        for name, layers in spec["decoders"].items():
            width = len(places[0]) if places else spec["inputs"][name]
            words = layers[0] if layers[0]["op"] == "embed" else None
            z = rng.integers(words["vocabulary"], size=(4, words["positions"])) if words else np.vstack([*places, rng.normal(size=(4, width))])
            shown = request.getfixturevalue("engine").evaluate(ENGINE, [{**spec, "decoders": {name: layers}}, text, z.tolist()])
            wanted = explore.reference_decode(spec, weights, name, z).reshape(len(z), -1)
            worst = np.abs(np.array(shown[name]) - wanted).max() / np.abs(wanted).max()
            assert worst <= 1e-3, f"{name}: the page differs from numpy by {worst:.1e}"


def test_every_internal_link_resolves(book):
    dead = defaultdict(list)
    for name in all_pages(book):
        for link in read(book / name).links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target, anchor = urldefrag(link)
            path = (book / name).parent / unquote(urlsplit(target).path) if target else book / name
            path = (path / "index.html" if path.is_dir() else path).resolve()
            if not path.exists():
                dead[name].append(link)
            elif anchor and path.suffix == ".html" and unquote(anchor) not in read(path).ids:
                dead[name].append(link)
    assert not dead, dict(dead)
