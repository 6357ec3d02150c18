"""Build the assignments for students and grade a folder of submissions, with otter-grader on this machine.

    .venv/bin/python tools/assignments.py build
    .venv/bin/python tools/assignments.py grade SUBMISSIONS

Grading runs what students wrote, with the rights of whoever grades: it stops what takes too long and isolates nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

ROOT = Path(__file__).resolve().parent.parent
MASTERS = ROOT / "notebooks" / "assignments"
BUILT = ROOT / "build" / "assignments"
SECONDS = 300  # for one submission
NO_OTTER = "otter-grader is not installed; run make assignments, or install mmvae-lite[coursework]"


def build(master: Path, out: Path) -> Path:
    """Make OUT/student and OUT/autograder of a master in py:percent; returns the autograder's zip."""
    import jupytext
    from otter.assign import main as assign

    shutil.rmtree(out, ignore_errors=True)
    with tempfile.TemporaryDirectory() as folder:
        notebook = jupytext.read(master)
        notebook.metadata.pop("jupytext", None)
        jupytext.write(notebook, source := Path(folder, f"{master.stem}.ipynb"))
        assign(str(source), str(out), no_pdfs=True, no_run_tests=True)
    return autograder(out)


def autograder(out: Path) -> Path:
    found = sorted((out / "autograder").glob("*-autograder_*.zip"))
    if not found:
        raise SystemExit(f"{out} holds no autograder; run make assignments first")
    return found[-1]


def names() -> list[str]:
    return [master.stem for master in sorted(MASTERS.glob("*.py"))]


def points(zip_path: Path, submission: Path) -> dict[str, object]:
    """What one submission is worth, question by question, and what its tests said; runs in a process of its own."""
    import warnings

    warnings.simplefilter("ignore")  # of the packages that otter uses, about files that otter closes late
    from otter.api import grade_submission

    results = grade_submission(str(submission), str(zip_path), quiet=True)
    if results.has_catastrophic_failure():
        return {"error": f"the notebook did not run: {results.catastrophic_error}"}
    questions = {name: results.get_result(name) for name in results.test_files}
    return {
        "points": {name: file.score for name, file in questions.items()},
        "possible": {name: file.possible for name, file in questions.items()},
        "words": {name: file.summary() for name, file in questions.items() if file.score < file.possible},
    }


def graded(zip_path: Path, submission: Path, seconds: float = SECONDS) -> dict[str, object]:
    """`points` in another process, which is stopped with all that it started when the time is over."""
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder, "answer.json")
        command = [sys.executable, str(Path(__file__).resolve()), "one", str(zip_path), str(submission), str(answer)]
        with open(Path(folder, "log"), "w+") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, start_new_session=True)
            try:
                process.wait(seconds)
            except subprocess.TimeoutExpired:
                return {"error": f"it ran for more than {seconds:g} seconds and was stopped"}
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            if answer.is_file():
                return json.loads(answer.read_text(encoding="utf-8"))
            log.seek(0)
            last = next((line.strip() for line in reversed(log.read().splitlines()) if line.strip()), "it said nothing")
            return {"error": f"it could not be graded: {last}"}


def grade(zip_path: Path, folder: Path, table: Path, jobs: int = 2, seconds: float = SECONDS) -> list[dict[str, object]]:
    """Grade every notebook of a folder; writes the table and, beside it, what the tests said to each submission."""
    submissions = sorted([*folder.glob("*.ipynb"), *folder.glob("*.zip")])
    if not submissions:
        raise SystemExit(f"{folder} holds no notebook (*.ipynb) and no zip of one")
    with ThreadPoolExecutor(jobs) as pool:
        answers = list(pool.map(lambda path: graded(zip_path, path, seconds), submissions))
    possible = next((answer["possible"] for answer in answers if "possible" in answer), {})
    table.parent.mkdir(parents=True, exist_ok=True)
    feedback = table.parent / "feedback"
    shutil.rmtree(feedback, ignore_errors=True)
    feedback.mkdir()
    rows = []
    for path, answer in zip(submissions, answers, strict=True):
        found = answer.get("points", dict.fromkeys(possible, 0))
        rows.append({"submission": path.name, **found, "total": sum(found.values()), "of": sum(possible.values()), "problem": answer.get("error", "")})
        words = [answer["error"]] if "error" in answer else [f"{name}\n{text}" for name, text in answer["words"].items()]
        (feedback / f"{path.stem}.txt").write_text("\n\n".join(words or ["every test passed"]) + "\n", encoding="utf-8")
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["submission", *possible, "total", "of", "problem"])
        writer.writeheader()
        writer.writerows(rows)
    return rows


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=BUILT, help="where the assignments are built and graded (build/assignments)")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("build", help="the student version and the autograder of every assignment, under build/assignments")
    grading = commands.add_parser("grade", help="grade every notebook of a folder, and write a CSV file")
    grading.add_argument("submissions", type=Path)
    grading.add_argument("--assignment", choices=names(), default=names()[0])
    grading.add_argument("--jobs", type=int, default=2, help="submissions that run at once")
    grading.add_argument("--seconds", type=float, default=SECONDS, help="how long one submission may run")
    one = commands.add_parser("one")
    for name in ("zip", "submission", "answer"):
        one.add_argument(name, type=Path)
    options = parser.parse_args(arguments)
    if options.command == "grade" and not options.submissions.is_dir():
        raise SystemExit(f"{str(options.submissions)!r} is not a folder; name the folder of the notebooks: make grade SUBMISSIONS=...")
    if importlib.util.find_spec("otter") is None:
        raise SystemExit(NO_OTTER)

    out = options.out.resolve()
    if options.command == "build":
        for name in names():
            zip_path = build(MASTERS / f"{name}.py", out / name)
            print(f"{name}: students get {out / name / 'student'}, and {zip_path.name} grades what they hand in")
    elif options.command == "one":
        options.answer.write_text(json.dumps(points(options.zip, options.submission)), encoding="utf-8")
    else:
        table = out / options.assignment / "grades.csv"
        rows = grade(autograder(out / options.assignment), options.submissions.resolve(), table, options.jobs, options.seconds)
        for row in rows:
            print(f"{row['submission']:40} {row['total']:5g} of {row['of']:g}  {row['problem']}")
        print(f"\nthe grades: {table}\nwhat the tests said: {table.parent / 'feedback'}")


if __name__ == "__main__":
    main()
