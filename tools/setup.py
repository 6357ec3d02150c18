"""Make .venv and install the package into it with the extras named: python3 tools/setup.py book test

Needs the standard library only.  A second call with the same pyproject.toml and constraints.txt does nothing.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
STAMP = VENV / "mmvae-setup.json"
OLDEST = (3, 11)


def venv_python() -> Path:
    return VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def key() -> str:
    """What the installed packages depend on, in one hash."""
    digest = hashlib.sha256()
    for name in ("pyproject.toml", "constraints.txt"):
        digest.update((ROOT / name).read_bytes())
    digest.update(str(ROOT).encode())
    return digest.hexdigest()


def installed() -> set[str]:
    """The extras that are installed and up to date."""
    try:
        stamp = json.loads(STAMP.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return set()
    return set(stamp["extras"]) if stamp["key"] == key() and venv_python().exists() else set()


def require_python() -> None:
    """Go on with a newer Python from the PATH when this one is too old; stop with a sentence when there is none."""
    if sys.version_info[:2] >= OLDEST:
        return
    for name in ("python3.12", "python3.11", "python3.13"):
        other = shutil.which(name)
        if other and subprocess.run([other, "-c", ""], capture_output=True).returncode == 0:
            print(f"{sys.executable} is Python {sys.version.split()[0]}, going on with {other}", flush=True)
            raise SystemExit(subprocess.call([other, *sys.argv]))
    raise SystemExit(
        f"Python {OLDEST[0]}.{OLDEST[1]} or newer is needed; {sys.executable} is {sys.version.split()[0]}. "
        "Install a newer one and name it: make book PYTHON=/path/to/python3.12"
    )


def make_venv() -> None:
    if venv_python().exists():
        return
    print(f"making {VENV} with Python {sys.version.split()[0]}", flush=True)
    made = subprocess.run([sys.executable, "-m", "venv", str(VENV)], capture_output=True, text=True)
    if made.returncode:
        shutil.rmtree(VENV, ignore_errors=True)
        raise SystemExit(
            f"{made.stdout}{made.stderr}\nPython could not make a virtual environment. "
            "On Debian and Ubuntu install python3-venv first."
        )


def pip(*args: str) -> None:
    constraints = str(ROOT / "constraints.txt")
    command = [str(venv_python()), "-m", "pip", "install", "-qq", "--disable-pip-version-check", "-c", constraints, *args]
    if subprocess.call(command, cwd=ROOT):
        raise SystemExit(f"pip could not install {' '.join(args)}; its message is above. Is the network reachable?")


def main(extras: list[str]) -> None:
    require_python()
    wanted = set(extras)
    have = installed()
    if wanted <= have and STAMP.exists():
        print(f"set-up: {VENV.name} is up to date")
        return
    start = time.perf_counter()
    make_venv()
    extras = sorted(wanted | have)
    print("installing torch, which takes a minute or more", flush=True)
    pip("torch")
    print(f"installing mmvae_lite[{','.join(extras)}]", flush=True)
    pip("-e", f".[{','.join(extras)}]" if extras else ".")
    STAMP.write_text(json.dumps({"key": key(), "extras": extras}), encoding="utf-8")
    print(f"set-up: {VENV.name} is ready after {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main(sys.argv[1:])
