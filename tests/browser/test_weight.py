"""How heavy a page is, how soon it shows itself, and how still it stands; that nothing is lost with what was taken out."""

import re

import pytest

from .helpers import book_folder
from .test_book import all_pages, read

LIMIT = 1_500_000  # bytes of a first load, without plotly and the weights of explorers
PAINTED = 1500  # ms until the largest thing is painted
SHIFT = 0.1
SIZES = {"desktop": {"width": 1280, "height": 900}, "phone": {"width": 390, "height": 844, "touch": True}}
WATCH = """
window.paints = [];
window.shifts = 0;
new PerformanceObserver(list => { for (const entry of list.getEntries()) window.paints.push(entry.startTime); })
  .observe({ type: "largest-contentful-paint", buffered: true });
new PerformanceObserver(list => { for (const entry of list.getEntries()) if (!entry.hadRecentInput) window.shifts += entry.value; })
  .observe({ type: "layout-shift", buffered: true });
"""
#: Every formula is there and typeset.
TYPESET = "() => [...document.querySelectorAll('.math')].every(node => node.querySelector('mjx-container') || node.closest('mjx-container'))"
#: What has the class of an icon, is shown, and would show nothing or ask for a font.
BARE_ICONS = """() => [...document.querySelectorAll('[class*="fa-"]')]
  .filter(icon => getComputedStyle(icon).display !== "none" && /(^| )fa[srb]?(-| |$)/.test(icon.className))
  .filter(icon => !/url\\(/.test(getComputedStyle(icon).maskImage) || getComputedStyle(icon, "::before").content !== "none")
  .map(icon => icon.outerHTML)"""
BARE_BOXES = """() => [...document.querySelectorAll(".admonition > .admonition-title")]
  .filter(title => title.offsetParent && getComputedStyle(title, "::after").content !== "none"
    && !/url\\(/.test(getComputedStyle(title, "::after").maskImage) && getComputedStyle(title, "::after").width !== "0px")
  .map(title => title.textContent)"""


def pytest_generate_tests(metafunc):
    if "path" in metafunc.fixturenames:
        folder = book_folder()
        pages = [page for page in all_pages(folder) if not read(folder / page).redirects and not page.startswith("source/")] if folder else []
        metafunc.parametrize("path", pages or [None])


@pytest.fixture
def load(new_page, book_urls):
    def go(path, size, dark=False):
        page = new_page(fresh=True, **SIZES[size], dark=dark)
        page.add_init_script(WATCH)
        replies = []
        page.on("response", lambda reply: replies.append(reply))
        page.goto(book_urls["http"] + path)
        page.wait_for_function(TYPESET)
        page.wait_for_timeout(300)
        page.weights = {reply.url.removeprefix(book_urls["http"]).partition("?")[0]: len(reply.body()) for reply in replies if reply.ok}
        return page

    return go


def light(weights):
    return {name: size for name, size in weights.items() if "plotly" not in name and "/explorers/" not in name}


@pytest.mark.parametrize("size", SIZES)
def test_a_page_is_light_soon_there_and_stands_still(load, book, path, size):
    for attempt in range(3):  # another program may take the processor for a moment
        page = load(path, size, dark=attempt == 1)
        weights = light(page.weights)
        heaviest = sorted(weights.items(), key=lambda entry: -entry[1])[:5]
        assert sum(weights.values()) <= LIMIT, heaviest
        assert not [name for name in weights if re.search(r"fontawesome|webfonts|searchindex", name)] or path == "search.html"
        assert page.evaluate(BARE_ICONS) == [] and page.evaluate(BARE_BOXES) == []
        assert page.evaluate("window.shifts") < SHIFT
        if page.evaluate("Math.max(0, ...window.paints)") < PAINTED:
            return
    assert page.evaluate("Math.max(0, ...window.paints)") < PAINTED


def test_a_heavy_page_is_found(load, book, new_page, book_urls):
    """What the limits would not let through: a megabyte more, a font of icons, a thing that comes late."""
    page = load("book/notation.html", "desktop")
    page.evaluate("""async () => {
      document.body.insertAdjacentHTML("beforeend", '<i class="fa-solid fa-skull" style="display: block">x</i>');
      document.querySelector("main").insertAdjacentHTML("afterbegin", '<div style="height: 700px">late</div>');
      await new Promise(done => requestAnimationFrame(() => setTimeout(done, 300)));
    }""")
    assert len(page.evaluate(BARE_ICONS)) == 1
    assert page.evaluate("window.shifts") > SHIFT
    assert sum(light({**page.weights, "_static/more.js": LIMIT}).values()) > LIMIT


@pytest.mark.parametrize("scheme", ["file", "http"])
def test_formulas_come_packed_and_also_where_nothing_can_be_unpacked(new_page, book, book_urls, scheme):
    path = next(page for page in all_pages(book) if page.startswith("notebooks/") and read(book / page).has_math)
    for old in (False, True):
        page = new_page()
        asked = []
        page.on("request", lambda request: asked.append(request.url))
        if old:
            page.add_init_script("delete window.DecompressionStream")
        page.goto(book_urls[scheme] + path)
        page.wait_for_function(TYPESET)
        assert page.locator("mjx-container").count() > 10
        assert page.locator("mjx-assistive-mml").count() > 10, "a screen reader has no formulas"
        assert any("tex-chtml" in url for url in asked) is old


def test_the_search_finds_a_page(new_page, book, book_urls):
    page = new_page()
    page.goto(book_urls["http"] + "book/notation.html")
    page.keyboard.press("Control+k")
    page.keyboard.type("precision")
    page.keyboard.press("Enter")
    page.wait_for_selector("#search-results li a")
    assert "search.html" in page.url


def test_a_chapter_can_be_taken_along(new_page, book, book_urls):
    page = new_page()
    page.goto(book_urls["http"] + "book/intro.html")
    rows = page.locator(".chapter-table tr:not(.part, .sum)")
    assert rows.count() > 3
    with page.expect_download() as download:
        page.locator(".chapter-table a.take-button").first.click()
    assert download.value.suggested_filename.endswith(".ipynb")
    panel = page.locator(".take-panel").first
    assert not panel.is_visible()
    page.locator(".chapter-table button.take-button").first.click()
    assert panel.is_visible() and "make lab" in panel.inner_text()
    assert panel.locator("a").get_attribute("href").startswith("http://localhost:8888/lab/tree/")
    page.keyboard.press("Escape")
    assert not panel.is_visible()
