"""Photograph every page of a built book: .venv/bin/python tools/screenshots.py [--book FOLDER]

Phone (390 x 844) and desktop (1280 x 900), light and dark, whole pages, into build/screenshots.  The
README's picture, book/_static/screenshot.png, is made by --readme from the page and place named below.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import browser

ROOT = Path(__file__).resolve().parent.parent
SIZES = {"phone": (390, 844), "desktop": (1280, 900)}
THEMES = ("light", "dark")
README_PAGE = "book/intro.html"
NOT_PAGES = ("genindex", "search", "index")
WAIT = """() => !document.querySelector(".math") || new Promise(done => {
  const look = () => window.MathJax?.startup?.promise ? MathJax.startup.promise.then(() => done(true)) : setTimeout(look, 50);
  look();
})"""


def pages(book: Path) -> list[Path]:
    found = sorted(p for p in book.rglob("*.html") if "_static" not in p.parts and "_sources" not in p.parts)
    return [p for p in found if p.stem not in NOT_PAGES]


def open_page(context, page: Path):
    tab = context.new_page()
    tab.goto(page.as_uri())
    tab.evaluate(WAIT)
    # Figures and explorers load when they come into view, so walk down the page once.
    tab.evaluate("async () => { for (let y = 0; y < document.body.scrollHeight; y += 500) { scrollTo(0, y); await new Promise(r => setTimeout(r, 60)); } scrollTo(0, 0); }")
    tab.wait_for_timeout(400)
    return tab


def new_context(chromium, size: str, theme: str):
    width, height = SIZES[size]
    phone = size == "phone"
    return chromium.new_context(
        viewport={"width": width, "height": height}, color_scheme=theme, has_touch=phone,
        is_mobile=phone, device_scale_factor=2 if phone else 1, reduced_motion="reduce",
    )


def main() -> None:
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--book", type=Path, default=Path(os.environ.get("MMVAE_BOOK") or ROOT / "_build" / "html"))
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "screenshots")
    parser.add_argument("--only", default="", help="only pages whose path holds this text")
    parser.add_argument("--readme", action="store_true", help="only the picture of README.md")
    arguments = parser.parse_args()
    book = arguments.book.resolve()
    if not (book / "index.html").exists():
        raise SystemExit(f"{book} holds no book; run make book first, or name one with --book")
    path, why = browser.ensure()
    if not path:
        raise SystemExit(why)
    arguments.out.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=list(browser.ARGUMENTS))
        if arguments.readme:
            tab = open_page(new_context(chromium, "desktop", "light"), book / README_PAGE)
            tab.screenshot(path=ROOT / "book" / "_static" / "screenshot.png")
            return
        for size in SIZES:
            for theme in THEMES:
                context = new_context(chromium, size, theme)
                for page in pages(book):
                    name = "-".join(page.relative_to(book).with_suffix("").parts)
                    if arguments.only not in name:
                        continue
                    tab = open_page(context, page)
                    tab.screenshot(path=arguments.out / f"{name}-{size}-{theme}.png", full_page=True)
                    tab.close()
                context.close()
        chromium.close()
    print(f"screenshots: {arguments.out}")


if __name__ == "__main__":
    main()
