"""Run every test: .venv/bin/python tools/run_tests.py [pytest options]

Without options two processes share the tests.  Browser tests look at the book that MMVAE_BOOK names (a folder of HTML);
without it the smoke book is built first.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import browser
from build_book import ROOT, data_folder


def main(options: list[str]) -> int:
    environment = os.environ
    if folder := data_folder():
        environment["MMVAE_DATA"] = folder
    else:
        environment.pop("MMVAE_DATA", None)
    if named := environment.get("MMVAE_BOOK"):
        book = Path(named).resolve()
        if not (book / "index.html").exists():
            print(f"MMVAE_BOOK names {named!r}, which holds no index.html; build the book first or unset it")
            return 2
    else:
        out = ROOT / "build" / "test-book"
        command = [sys.executable, str(ROOT / "tools" / "build_book.py"), "--profile", "smoke", "--out", str(out)]
        if subprocess.call(command):
            return 1
        book = out / "_build" / "html"
    environment["MMVAE_BOOK"] = str(book)
    path, why = browser.ensure()
    if path:
        environment["MMVAE_BROWSER"] = path
    else:
        print(f"{why} The browser tests will be skipped, and fail when CI is set.", flush=True)
    return subprocess.call([sys.executable, "-m", "pytest", *(options or ["-n", "2", "--dist", "worksteal"])], cwd=ROOT)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
