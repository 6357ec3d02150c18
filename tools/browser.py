"""Find Chromium or Chrome, or install one: .venv/bin/python tools/browser.py [--install]

Prints the path of the browser, or one sentence that says why there is none and exits with 1.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
MAC = "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"
#: Start-up options of every test and screenshot: no sandbox (root in a container) and nothing that calls home.
ARGUMENTS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)


def find() -> str | None:
    """The path of an installed browser: MMVAE_BROWSER, one on the PATH, or playwright's own."""
    named = os.environ.get("MMVAE_BROWSER")
    if named:
        return named if Path(named).exists() else None
    for name in NAMES:
        if path := shutil.which(name):
            return path
    return MAC if Path(MAC).exists() else _playwrights_own()


def _playwrights_own() -> str | None:
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return None
    with sync_playwright() as playwright:
        path = playwright.chromium.executable_path
    return path if Path(path).exists() else None


def install() -> str:
    """Try the system's package, then playwright's download; return what went wrong, or "" when one worked."""
    reasons = []
    if shutil.which("apt-get") and hasattr(os, "geteuid") and os.geteuid() == 0:
        environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        for command in ("update", "-qq"), *(("install", "-y", "-qq", "--no-install-recommends", name) for name in NAMES[:2]):
            subprocess.run(["apt-get", *command], env=environment, capture_output=True)
            if find():
                return ""
        reasons.append("apt-get could not install chromium")
    result = subprocess.run([sys.executable, "-m", "playwright", "install", "chromium"], capture_output=True, text=True)
    if result.returncode == 0 and find():
        return ""
    said = (result.stderr or result.stdout).strip().splitlines()
    reasons.append(f"playwright could not download one ({said[-1] if said else 'no message'})")
    return "; ".join(reasons)


def ensure() -> tuple[str | None, str]:
    """The browser's path, installing one when there is none, and otherwise a sentence that says why not."""
    if path := find():
        return path, ""
    print("no Chromium or Chrome here, installing one", file=sys.stderr, flush=True)
    reason = install()
    path = find()
    return path, "" if path else f"No Chromium or Chrome was found and none could be installed: {reason}."


if __name__ == "__main__":
    found, why = ensure() if "--install" in sys.argv else (find(), "No Chromium or Chrome was found; add --install to get one.")
    print(found or why)
    raise SystemExit(0 if found else 1)
