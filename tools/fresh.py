"""Clone into an empty folder, run the README's two commands there, and time them: python3 tools/fresh.py

Writes benchmarks/results/fresh.json and the block of README.md that quotes it.  MMVAE_DATA goes through as it
is set.  What is not committed is not cloned, so the commit says what was timed.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "benchmarks" / "results" / "fresh.json"
BEGIN, END = "<!-- fresh:begin -->", "<!-- fresh:end -->"


def commands(readme: str) -> list[str]:
    """The commands under "Two commands"."""
    section = readme.split("## Two commands", 1)[1]
    return [line for line in section.split("```")[1].strip().splitlines() if line]


def block(result: dict) -> str:
    """The README's sentences about the last timed run."""
    times = " and ".join(f"`{c['command']}` took {c['minutes']:.1f} minutes" for c in result["commands"])
    data = "with MNIST in a data folder" if result["data"] else "with no data folder, on the digits that ship"
    return (
        f"In an empty clone, on a machine with {result['cores']} cores, Python {result['python']} and "
        f"torch {result['torch']}, {data}: {times}.\n"
        f"Measured at commit `{result['commit']}` by `make fresh`; set-up and downloads of packages are counted."
    )


def with_block(readme: str, result: dict) -> str:
    return re.sub(f"{BEGIN}.*?{END}", lambda _: f"{BEGIN}\n{block(result)}\n{END}", readme, flags=re.S)


def run(command: str, folder: Path, environment: dict[str, str]) -> float:
    print(f"\n$ {command}", flush=True)
    start = time.perf_counter()
    code = subprocess.call(command.split(), cwd=folder, env=environment)
    if code:
        raise SystemExit(f"{command!r} failed with exit code {code} in the fresh clone {folder}")
    return (time.perf_counter() - start) / 60


def output(*command: str, folder: Path = ROOT) -> str:
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def main() -> None:
    environment = {k: v for k, v in os.environ.items() if k not in ("MMVAE_BOOK", "MMVAE_RESULTS", "VIRTUAL_ENV", "MAKEFLAGS", "MAKELEVEL")}
    if folder := environment.get("MMVAE_DATA"):
        environment["MMVAE_DATA"] = str(Path(folder).expanduser().resolve())
    readme = ROOT / "README.md"
    clone = Path(tempfile.mkdtemp(prefix="mmvae-fresh-"), "mmvae_lite")  # it stays when a command fails, to be looked at
    subprocess.run(["git", "clone", "--quiet", "--no-hardlinks", str(ROOT), str(clone)], check=True)
    timed = [
        {"command": command, "minutes": round(run(command, clone, environment), 2)}
        for command in commands((clone / "README.md").read_text(encoding="utf-8"))
    ]
    python = clone / ".venv" / "bin" / "python"
    result = {
        "commands": timed,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": output(str(python), "-c", "import torch; print(torch.__version__)"),
        "commit": output("git", "rev-parse", "--short=10", "HEAD", folder=clone),
        "data": bool(environment.get("MMVAE_DATA")),
    }
    shutil.rmtree(clone.parent)
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    readme.write_text(with_block(readme.read_text(encoding="utf-8"), result), encoding="utf-8")
    print(f"\n{block(result)}\n\nwritten to {RESULT.relative_to(ROOT)} and README.md; commit both")


if __name__ == "__main__":
    sys.exit(main())
