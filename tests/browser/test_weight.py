"""That the limits of a first load would find a heavy page, and that nothing is lost with what was taken out of the pages."""

import pytest

from .helpers import LIMIT, TYPESET, FirstLoad
from .test_book import DESKTOP, all_pages, read


def test_a_heavy_page_is_found(new_page, book, book_urls):
    """What the limits would not let through: a megabyte more, a font of icons, a thing that comes late."""
    page = new_page(fresh=True, **DESKTOP)
    load = FirstLoad(page, book_urls["http"])
    page.goto(book_urls["http"] + "book/notation.html")
    load.measure()
    assert load.faults("book/notation.html") == [] and load.bytes > 100_000
    page.evaluate("""async () => {
      document.body.insertAdjacentHTML("beforeend", '<i class="fa-solid fa-skull" style="display: block">x</i>');
      document.querySelector("main").insertAdjacentHTML("afterbegin", '<div style="height: 700px">late</div>');
      await new Promise(done => requestAnimationFrame(() => setTimeout(done, 300)));
    }""")
    load.measure()
    load.weights |= {"_static/more.js": LIMIT, "_static/webfonts/icons.woff2": 10}
    found = load.faults("book/notation.html")
    assert len(found) == 4 and all(any(word in fault for fault in found) for word in ("bytes", "webfonts", "skull", "shifts"))


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
