"""Run the notebooks and render the book: .venv/bin/python tools/build_book.py --profile lite

A notebook is run again only when it, its parameters, the library or the data at hand have changed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

# Two torch processes that each spin on two threads run ten times slower than on one; set before torch loads.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build"
LIBRARY_FILES = ("*.py", "*.js", "*.css", "*.json", "*.npz", "*.safetensors")


def data_folder() -> str:
    """The absolute path of MMVAE_DATA, or "" when it is not set; it is checked here, before an hour of work."""
    folder = os.environ.get("MMVAE_DATA", "")
    if not folder:
        return ""
    path = Path(folder).expanduser().resolve()
    if not path.is_dir():
        raise SystemExit(f"MMVAE_DATA names {folder!r}, which is not a folder; unset it or name the folder of your data sets")
    return str(path)


def notebooks() -> list[Path]:
    return sorted((ROOT / "notebooks").glob("*.ipynb"))


def library_digest() -> str:
    digest = hashlib.sha256()
    files = {path for pattern in LIBRARY_FILES for path in (ROOT / "mmvae_lite").rglob(pattern)}
    files |= set((ROOT / "book" / "results").rglob("*.json"))  # figures are drawn from recorded results too
    for path in sorted(files):
        digest.update(str(path.relative_to(ROOT)).encode() + path.read_bytes())
    return digest.hexdigest()


def data_digest(folder: str) -> str:
    """The names and sizes of the files in the data folder: enough to see that data came or went."""
    if not folder:
        return ""
    files = [p for p in sorted(Path(folder).rglob("*")) if p.is_file()]
    return "\n".join(f"{p.relative_to(folder)} {p.stat().st_size}" for p in files)


def notebook_key(notebook: Path, parameters: dict, library: str, data: str) -> str:
    cells = [(c["cell_type"], c["source"], c["metadata"]) for c in json.loads(notebook.read_text(encoding="utf-8"))["cells"]]
    parts = [cells, parameters, library, data, sys.version_info[:2], (ROOT / "constraints.txt").read_text(encoding="utf-8")]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def execute(notebook: str, target: str, parameters: dict) -> tuple[float, str]:
    """Run one notebook; return the seconds it took and, when it failed, why."""
    import papermill
    from papermill.exceptions import PapermillExecutionError

    start = time.perf_counter()
    problem = ""
    # What the kernel and papermill murmur goes to a file: our own lines stay readable.
    with open(Path(target).with_suffix(".log"), "w") as log:
        os.dup2(log.fileno(), 2)
    try:
        papermill.execute_notebook(
            notebook, target, parameters=parameters, cwd=str(Path(target).parent), kernel_name="python3", progress_bar=False
        )
    except PapermillExecutionError as error:
        problem = describe(notebook, target, error)
    return time.perf_counter() - start, problem


def describe(notebook: str, target: str, error) -> str:
    # papermill puts a notice in front of the cells, so its index is one too high.
    source = "\n".join(f"    {line}" for line in error.source.splitlines()[:6])
    return (
        f"{Path(notebook).relative_to(ROOT)} failed in code cell [{error.exec_count}]:\n{source}\n"
        f"  {error.ename}: {error.evalue}\n  the notebook with the whole traceback: {target}"
    )


def chosen(names: list[str]) -> list[Path]:
    """The notebooks of these names; all of them for none.  Stops for an unknown name."""
    known = {path.stem: path for path in notebooks()}
    if unknown := [name for name in names if name not in known]:
        raise SystemExit(f"no notebook is called {unknown[0]!r}; there are {', '.join(known)}")
    return [known[name] for name in names] or list(known.values())


def execute_all(profile: str, seed: int, device: str, jobs: int, force: bool, only: list[str]) -> list[tuple[str, float]]:
    folder = BUILD / "executed" / profile
    folder.mkdir(parents=True, exist_ok=True)
    parameters = {"profile": profile, "seed": seed, "device": device}
    library, data = library_digest(), data_digest(os.environ.get("MMVAE_DATA", ""))
    times: list[tuple[str, float]] = []
    waiting = {}
    wanted = chosen(only)
    for notebook in notebooks():
        key, stamp = notebook_key(notebook, parameters, library, data), folder / f"{notebook.stem}.key"
        target = folder / notebook.name
        if notebook not in wanted and stamp.exists() and target.exists():
            print(f"{notebook.stem}: as it was run last", flush=True)
        elif not force and target.exists() and stamp.exists() and stamp.read_text() == key:
            print(f"{notebook.stem}: unchanged", flush=True)
            times.append((f"{notebook.stem} (unchanged)", 0.0))
        else:
            stamp.unlink(missing_ok=True)
            waiting[notebook] = (target, stamp, key)
    problems = []
    with ProcessPoolExecutor(min(jobs, len(waiting)) or 1, mp_context=get_context("spawn")) as pool:
        running = {}
        for notebook, (target, _, _) in waiting.items():
            print(f"{notebook.stem}: running, profile {profile}", flush=True)
            running[pool.submit(execute, str(notebook), str(target), parameters)] = notebook
        for future in as_completed(running):
            notebook = running[future]
            seconds, problem = future.result()
            print(f"{notebook.stem}: {'failed' if problem else 'done'} after {seconds:.1f} s", flush=True)
            times.append((notebook.stem, seconds))
            if problem:
                problems.append(problem)
            else:
                waiting[notebook][1].write_text(waiting[notebook][2])
    if problems:
        raise SystemExit("\n\n".join(["", *problems]))
    return times


def render(out: Path, profile: str) -> Path:
    """Build the HTML with warnings fatal; return its first page."""
    environment = os.environ | {"MMVAE_EXECUTED": str(BUILD / "executed" / profile), "PYTHONWARNINGS": "ignore"}
    program = Path(sys.executable).with_name("jupyter-book")
    command = [str(program), "build", str(ROOT), "-W", "--keep-going", "--path-output", str(out)]
    log = BUILD / "jupyter-book.log"
    result = subprocess.run(command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    log.write_text(result.stdout, encoding="utf-8")
    if result.returncode:
        # Sphinx says WARNING, ERROR, "Extension error" or "Exception occurred"; jupyter-book's own traceback comes after.
        said = result.stdout.split("Traceback (most recent call last)")[0].splitlines()
        notes = [line for line in said if re.search("warning|error|exception", line, re.I)]
        raise SystemExit("\n".join(["", "the book did not build:", *(notes or said[-30:]), f"the whole log: {log}"]))
    return out / "_build" / "html" / "index.html"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--profile", choices=("smoke", "lite", "paper"), default="lite")
    parser.add_argument("--out", type=Path, default=ROOT, help="the book lands in OUT/_build/html")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--jobs", type=int, default=2, help="notebooks that run at once")
    parser.add_argument("--force", action="store_true", help="run the notebooks although they are unchanged")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="run these notebooks alone; the others stay as they were run last")
    parser.add_argument("--record", action="store_true", help="let the notebooks write their results to book/results")
    arguments = parser.parse_args()
    if folder := data_folder():
        os.environ["MMVAE_DATA"] = folder
    else:
        os.environ.pop("MMVAE_DATA", None)
    kept = ROOT / "book" / "results" if arguments.record else BUILD / "results"
    os.environ["MMVAE_RESULTS"] = str(kept)
    BUILD.mkdir(exist_ok=True)

    start = time.perf_counter()
    times = execute_all(arguments.profile, arguments.seed, arguments.device, arguments.jobs, arguments.force, arguments.only)
    executed = time.perf_counter()
    page = render(arguments.out.resolve(), arguments.profile)
    end = time.perf_counter()
    times += [("all notebooks, wall time", executed - start), ("pages", end - executed), ("total", end - start)]
    report(times, arguments.profile)
    print(f"\nthe book: {page}")


def report(times: list[tuple[str, float]], profile: str) -> None:
    width = max(len(step) for step, _ in times)
    print("\n" + "\n".join(f"{step:{width}}  {seconds:7.1f} s" for step, seconds in times))
    table = {"profile": profile, "seconds": {step: round(seconds, 2) for step, seconds in times}}
    (BUILD / "book-times.json").write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
