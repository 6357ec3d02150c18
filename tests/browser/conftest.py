"""One browser for all tests; the book that MMVAE_BOOK names; a table of latencies at the end."""

import functools
import http.server
import importlib.util
import json
import os
import statistics
import threading
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright

from .helpers import NO_BOOK, book_folder

ROOT = Path(__file__).parents[2]
LATENCIES = pytest.StashKey[dict]()


def _finder():
    spec = importlib.util.spec_from_file_location("browser_finder", ROOT / "tools" / "browser.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _missing(reason: str) -> None:
    """Under CI what is missing is a failure, on a reader's machine a skip."""
    (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)


@pytest.fixture(scope="session")
def chromium():
    finder = _finder()
    path = finder.find()
    if path is None:
        _missing("No Chromium or Chrome was found: run tools/browser.py --install or set MMVAE_BROWSER.")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(finder.ARGUMENTS))
        yield browser
        browser.close()


def _context(chromium, width=1280, height=900, dark=False, touch=False, calm=True, javascript=True):
    context = chromium.new_context(
        viewport={"width": width, "height": height},
        color_scheme="dark" if dark else "light",
        has_touch=touch,
        is_mobile=touch,
        reduced_motion="reduce" if calm else "no-preference",
        java_script_enabled=javascript,
    )
    context.set_default_timeout(20_000)
    mode = "dark" if dark else "light"
    context.add_init_script(f"try {{ localStorage.mode = localStorage.theme = '{mode}' }} catch {{}}")
    return context


@pytest.fixture(scope="session")
def context(chromium):
    """One context for each way of looking, which its pages share."""
    made = {}

    def make(**way):
        key = tuple(sorted(way.items()))
        if key not in made:
            made[key] = _context(chromium, **way)
        return made[key]

    return make


@pytest.fixture
def new_page(chromium, context):
    """Make a page: new_page(width=1280, height=900, dark=False, touch=False, calm=True); a fresh one has nothing in its cache."""
    opened = []

    def make(fresh=False, **way):
        place = _context(chromium, **way) if fresh else context(**way)
        page = place.new_page()
        opened.append(place if fresh else page)
        return page

    yield make
    for thing in opened:
        thing.close()


@pytest.fixture(scope="session")
def book():
    folder = book_folder()
    if folder is None:
        _missing(NO_BOOK)
    return folder


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture(scope="session")
def book_urls(book):
    """Where the book stands: {"file": ..., "http": ...}, each ending in a slash."""
    handler = functools.partial(_Quiet, directory=str(book))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield {"file": f"{book.as_uri()}/", "http": f"http://127.0.0.1:{server.server_address[1]}/"}
    server.shutdown()
    server.server_close()


@pytest.fixture
def latency(request):
    """latency(name, explorer) measures it in ms, printed and never asserted; kept in the folder that MMVAE_LATENCIES names."""
    table = request.config.stash.setdefault(LATENCIES, {})
    moves = 40 if os.environ.get("MMVAE_LATENCIES") else 11

    def measure(name, explorer):
        table[name] = explorer.evaluate("(explorer, moves) => mmvaeExplore.measureLatency(explorer, moves)", moves)

    return measure


def pytest_sessionfinish(session):
    """A worker of several hands its table to the process that prints."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["latencies"] = session.config.stash.get(LATENCIES, {})


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node, error):
    node.config.stash.setdefault(LATENCIES, {}).update(getattr(node, "workeroutput", {}).get("latencies", {}))


def pytest_terminal_summary(terminalreporter, config):
    table = config.stash.get(LATENCIES, {})
    if not table:
        return
    terminalreporter.section("explorer latency, medians in ms")
    terminalreporter.write_line(f"{'explorer':48} {'draw':>8} {'input to painted':>18} {'moves':>6}")
    for name, samples in table.items():
        draw, painted = (statistics.median(sample[key] for sample in samples) for key in ("draw", "painted"))
        terminalreporter.write_line(f"{name:48} {draw:8.1f} {painted:18.1f} {len(samples):6}")
    if folder := os.environ.get("MMVAE_LATENCIES"):
        Path(folder, f"latencies-{os.getpid()}.json").write_text(json.dumps(table), encoding="utf-8")
