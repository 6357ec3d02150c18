"""Bring the pairs NAME.py and NAME.ipynb in line; the newer of the two wins: .venv/bin/python tools/sync.py"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    sources = sorted((ROOT / "notebooks").glob("*.py"))
    return max((subprocess.call([sys.executable, "-m", "jupytext", "--sync", str(s)], cwd=ROOT) for s in sources), default=0)


if __name__ == "__main__":
    raise SystemExit(main())
