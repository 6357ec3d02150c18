"""The first assignment: its solution is worth all points, its stub none, each plausible mistake what it should cost."""

from __future__ import annotations

import csv
import importlib.util
import inspect
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

jupytext = pytest.importorskip("jupytext")
ROOT = Path(__file__).resolve().parent.parent
MASTER = ROOT / "notebooks" / "assignments" / "experts.py"
PROGRAM = ROOT / "tools" / "assignments.py"


def questions() -> dict[str, dict]:
    """name -> {"points", "code", "tests": {name: {"hidden", "points", "source"}}}, read from the master."""
    found, at, question = {}, "", None
    for cell in jupytext.read(MASTER).cells:
        if cell.cell_type == "raw":
            first, _, rest = cell.source.partition("\n")
            at = first.removeprefix("# ").strip()
            if at == "BEGIN QUESTION":
                config = yaml.safe_load(rest)
                question = found[config["name"]] = {"points": config["points"], "tests": {}}
        elif cell.cell_type == "code" and at == "BEGIN SOLUTION":
            question["code"] = cell.source
        elif cell.cell_type == "code" and at == "BEGIN TESTS":
            _, head, body = cell.source.split('"""', 2)
            source = body.split("# END TEST CONFIG", 1)[1].strip()
            name = source.split("(")[0].removeprefix("def ")
            question["tests"][name] = {"hidden": False, **yaml.safe_load(head), "source": source}
    return found


QUESTIONS = questions()
TOTAL = sum(question["points"] for question in QUESTIONS.values())


def stub(code: str) -> str:
    """What a student gets of a solution."""
    lines, inside = [], False
    for line in code.splitlines():
        if line.strip() == "# BEGIN SOLUTION":
            lines, inside = [*lines, line.replace("# BEGIN SOLUTION", "...")], True
        elif line.strip() == "# END SOLUTION":
            inside = False
        elif line.endswith("# SOLUTION"):
            lines.append(line[: len(line) - len(line.lstrip())] + "...")
        elif not inside:
            lines.append(line)
    return "\n".join(lines)


def lost(name: str, code: str) -> set[str]:
    """The tests of a question that an answer fails."""
    answers = {"math": math, "torch": torch}
    exec(code, answers)
    failed = set()
    for test, held in QUESTIONS[name]["tests"].items():
        here: dict = {}
        exec(held["source"], here)
        try:
            here[test](**{k: answers.get(k) for k in inspect.signature(here[test]).parameters})
        except Exception:
            failed.add(test)
    return failed


#: Question, what a student may well write, and the tests that it fails.
MISTAKES = {
    "averages the variances": ("q1", """
def plain_product(means, precisions):
    variance = (1 / precisions).mean(0)
    return means.mean(0), 1 / variance
""", {"test_two_experts", "test_against_the_densities_on_a_grid"}),
    "adds the means": ("q1", """
def plain_product(means, precisions):
    return (precisions * means).sum(0), precisions.sum(0)
""", {"test_two_experts", "test_against_the_densities_on_a_grid"}),
    "takes the mean over everything": ("q1", """
def plain_product(means, precisions):
    return (precisions * means).sum() / precisions.sum(), precisions.sum()
""", {"test_against_the_densities_on_a_grid"}),
    "counts the prior once for each expert": ("q2", """
def product_with_prior(means, precisions):
    total = (precisions + 1).sum(0)
    return (precisions * means).sum(0) / total, total
""", {"test_the_prior_counts_once"}),
    "leaves the prior out of the mean": ("q2", """
def product_with_prior(means, precisions):
    return (precisions * means).sum(0) / precisions.sum(0), 1 + precisions.sum(0)
""", {"test_one_expert", "test_the_prior_counts_once"}),
    "divides by the prior once": ("q3", """
def quotient(means, precisions):
    total = precisions.sum(0) - 1
    if (total <= 0).any():
        raise ValueError("no density")
    return (precisions * means).sum(0) / total, total
""", {"test_is_the_posterior_of_a_linear_world"}),
    "keeps the prior of every report": ("q3", """
def quotient(means, precisions):
    total = precisions.sum(0)
    return (precisions * means).sum(0) / total, total
""", {"test_two_posteriors", "test_is_the_posterior_of_a_linear_world", "test_no_density_is_an_error"}),
    "does not see that there is no density": ("q3", """
def quotient(means, precisions):
    total = precisions.sum(0) - (len(precisions) - 1)
    return (precisions * means).sum(0) / total, total
""", {"test_no_density_is_an_error"}),
    "looks at the smallest total only on average": ("q3", """
def quotient(means, precisions):
    total = precisions.sum(0) - (len(precisions) - 1)
    if total.mean() <= 0:
        raise ValueError("no density")
    return (precisions * means).sum(0) / total, total
""", {"test_no_density_is_an_error"}),
    "multiplies by the mask, and NaN stays NaN": ("q4", """
def posterior(means, precisions, present):
    there = present[..., None].float()
    total = 1 + (there * precisions).sum(0)
    return (there * precisions * means).sum(0) / total, total
""", {"test_what_stands_in_a_missing_row_does_not_matter"}),
    "forgets the prior, so that nothing remains": ("q4", """
def posterior(means, precisions, present):
    precisions = torch.where(present[..., None], precisions, 0.0)
    total = precisions.sum(0)
    return (precisions * torch.where(present[..., None], means, 0.0)).sum(0) / total, total
""", {"test_one_of_two_is_missing", "test_what_stands_in_a_missing_row_does_not_matter", "test_with_nothing_the_prior_remains"}),
    "forgets the prior among those that agree": ("q5", """
def veto(share, count, precision):
    return share / (1 - share) * count * precision
""", {"test_half_the_way_against_two", "test_the_mean_lands_where_it_should"}),
    "solves for half the way": ("q5", """
def veto(share, count, precision):
    return count * precision + 1
""", {"test_the_mean_lands_where_it_should"}),
    "adds densities that are too small": ("q6", """
def mixture_log_density(z, means, precisions):
    density = (precisions / (2 * math.pi)).sqrt() * torch.exp(-0.5 * precisions * (z - means) ** 2)
    return density.mean(0).log()
""", {"test_far_from_every_mean"}),
    "forgets the number of experts": ("q6", """
def mixture_log_density(z, means, precisions):
    logs = 0.5 * (precisions.log() - math.log(2 * math.pi)) - 0.5 * precisions * (z - means) ** 2
    return logs.logsumexp(0)
""", {"test_equal_experts_are_one_expert", "test_against_the_densities", "test_far_from_every_mean"}),
    "averages the logarithms": ("q6", """
def mixture_log_density(z, means, precisions):
    logs = 0.5 * (precisions.log() - math.log(2 * math.pi)) - 0.5 * precisions * (z - means) ** 2
    return logs.mean(0)
""", {"test_against_the_densities", "test_far_from_every_mean"}),
    "averages the probabilities": ("q7", """
def class_product(logits, present):
    return logits.softmax(-1).mean(0).log()
""", {"test_two_experts_of_two_classes", "test_three_experts_with_other_constants", "test_a_veto_counts_and_a_missing_expert_has_none"}),
    "averages the logits": ("q7", """
def class_product(logits, present):
    return (torch.where(present[..., None], logits, 0.0).sum(0) / present.sum(0)[..., None].clamp_min(1)).log_softmax(-1)
""", {"test_two_experts_of_two_classes", "test_three_experts_with_other_constants"}),
    "lets a missing expert object": ("q7", """
def class_product(logits, present):
    return (logits * present[..., None]).sum(0).log_softmax(-1)
""", {"test_a_veto_counts_and_a_missing_expert_has_none"}),
    "divides the probabilities but not the noise": ("q8", """
def relaxed_draw(log_probs, temperature, gumbel):
    return (log_probs / temperature + gumbel).softmax(-1)
""", {"test_the_class_does_not_depend_on_the_temperature"}),
    "adds the noise to the probabilities": ("q8", """
def relaxed_draw(log_probs, temperature, gumbel):
    return ((log_probs.exp() + gumbel) / temperature).softmax(-1)
""", {"test_without_noise_at_temperature_one", "test_the_class_does_not_depend_on_the_temperature"}),
    "forgets the temperature": ("q8", """
def relaxed_draw(log_probs, temperature, gumbel):
    return (log_probs + gumbel).softmax(-1)
""", {"test_the_class_does_not_depend_on_the_temperature"}),
}  # fmt: skip


def test_points_add_up_and_every_question_has_tests_of_both_kinds():
    assert TOTAL == 20
    for name, question in QUESTIONS.items():
        tests = question["tests"].values()
        assert sum(test["points"] for test in tests) == question["points"], name
        assert {test["hidden"] for test in tests} == {True, False}, name


@pytest.mark.parametrize("name", QUESTIONS)
def test_a_solution_passes_and_its_stub_fails_every_test(name):
    code = QUESTIONS[name]["code"]
    assert lost(name, code) == set()
    assert lost(name, stub(code)) == set(QUESTIONS[name]["tests"])


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_fails_the_tests_that_it_should(mistake):
    name, code, wanted = MISTAKES[mistake]
    assert lost(name, code) == wanted


def test_every_question_has_a_mistake_and_every_hidden_test_is_needed():
    assert {name for name, _, _ in MISTAKES.values()} == set(QUESTIONS)
    caught = {(name, test) for name, _, tests in MISTAKES.values() for test in tests}
    assert caught == {(name, test) for name, question in QUESTIONS.items() for test in question["tests"]}


# With otter-grader -----------------------------------------------------------------------------------


def run(*arguments: object, **more) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, str(PROGRAM), *map(str, arguments)], capture_output=True, text=True, timeout=400, **more)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    if importlib.util.find_spec("otter") is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("otter-grader is not installed: tools/setup.py coursework")
    out = tmp_path_factory.mktemp("assignments")
    done = run("--out", out, "build")
    assert done.returncode == 0, done.stderr[-2000:]
    return out / "experts"


def source_of(notebook: dict) -> str:
    return "\n\n".join("".join(cell["source"]) for cell in notebook["cells"])


def test_the_student_version_holds_no_solution_and_no_hidden_test(built):
    student = built / "student"
    assert [path.name for path in student.rglob("*") if path.is_file()] == ["experts.ipynb"]
    notebook = json.loads((student / "experts.ipynb").read_text(encoding="utf-8"))
    tests = notebook["metadata"]["otter"]["tests"]
    assert list(tests) == list(QUESTIONS) and all(isinstance(test, str) and "@test_case" in test for test in tests.values())
    text = "\n\n".join([source_of(notebook), *tests.values()])
    for name, question in QUESTIONS.items():
        kept = set(stub(question["code"]).splitlines())
        solution = [line.strip() for line in question["code"].splitlines() if line not in kept and "SOLUTION" not in line]
        solution += [line.split("# SOLUTION")[0].strip() for line in question["code"].splitlines() if line.endswith("# SOLUTION")]
        assert solution and not [line for line in solution if line in text], name
        assert f'grader.check("{name}")' in text
        for test, held in question["tests"].items():
            assert (test in text) is not held["hidden"], f"{test} of {name}"
    assert "hidden=True" not in text and "BEGIN" not in text and not any(cell.get("outputs") for cell in notebook["cells"])


def handed_in(notebook: dict, answers: dict[str, str], path: Path) -> None:
    """The student version with these answers in the place of their stubs."""
    notebook = json.loads(json.dumps(notebook))
    for name, code in answers.items():
        head = next(line for line in code.strip().splitlines() if line.startswith("def ")).split("(")[0]
        (cell,) = [cell for cell in notebook["cells"] if cell["cell_type"] == "code" and "".join(cell["source"]).startswith(head)]
        cell["source"] = code.strip()
    path.write_text(json.dumps(notebook), encoding="utf-8")


def worth(answers: dict[str, str]) -> dict[str, float]:
    """The points of each question."""
    failed = {name: lost(name, code) for name, code in answers.items()}
    return {
        name: sum(test["points"] for key, test in question["tests"].items() if name in answers and key not in failed[name])
        for name, question in QUESTIONS.items()
    }


@pytest.mark.slow
def test_a_folder_is_graded_into_a_table(built, tmp_path):
    student = json.loads((built / "student" / "experts.ipynb").read_text(encoding="utf-8"))
    right = {name: question["code"] for name, question in QUESTIONS.items()}
    five = ("takes the mean over everything", "does not see that there is no density", "multiplies by the mask, and NaN stays NaN",
            "adds densities that are too small", "averages the probabilities")  # fmt: skip
    wrong = right | {name: code for name, code, _ in (MISTAKES[mistake] for mistake in five)}
    assert len(five) == sum(worth(wrong)[name] < worth(right)[name] for name in QUESTIONS)
    crash = "def product_with_prior(means, precisions):\n    raise RuntimeError('not yet')\n\nproduct_with_prior(1, 2)"
    folder = tmp_path / "handed-in"
    folder.mkdir()
    handed_in(student, right, folder / "right.ipynb")
    handed_in(student, {}, folder / "stub.ipynb")
    handed_in(student, {**wrong, "q2": crash}, folder / "wrong.ipynb")
    (folder / "torn.ipynb").write_text('{"cells": [', encoding="utf-8")
    done = run("--out", built.parent, "grade", folder)
    assert done.returncode == 0, done.stderr[-2000:]
    with (built / "grades.csv").open(encoding="utf-8") as file:
        table = {row["submission"]: row for row in csv.DictReader(file)}
    assert set(table) == {f"{name}.ipynb" for name in ("right", "stub", "wrong", "torn")}

    def points(name):
        return {question: float(table[f"{name}.ipynb"][question]) for question in QUESTIONS}

    assert points("right") == worth(right) and float(table["right.ipynb"]["total"]) == float(table["right.ipynb"]["of"]) == TOTAL
    assert set(points("stub").values()) == {0.0}
    assert points("wrong") == {**worth(wrong), "q2": 0}, "each mistake costs what it should, and what comes after a crash still counts"
    assert set(points("torn").values()) == {0.0} and table["torn.ipynb"]["problem"] and not table["wrong.ipynb"]["problem"]
    said = (built / "feedback" / "wrong.txt").read_text(encoding="utf-8")
    assert "wanted [8/17, 9/17]" in said and "q2 results" in said and "q5 results" not in said


def test_what_runs_for_ever_is_stopped_and_said(built, tmp_path):
    student = json.loads((built / "student" / "experts.ipynb").read_text(encoding="utf-8"))
    handed_in(student, {"q5": "def veto(share, count, precision):\n    return 0\n\nwhile True:\n    pass"}, tmp_path / "endless.ipynb")
    done = run("--out", built.parent, "grade", tmp_path, "--seconds", "2")
    assert done.returncode == 0 and "it ran for more than 2 seconds and was stopped" in done.stdout


def test_an_empty_folder_and_no_folder_are_said(built, tmp_path):
    for folder, words in ((tmp_path, "holds no notebook"), (tmp_path / "nowhere", "is not a folder; name the folder of the notebooks")):
        done = run("--out", built.parent, "grade", folder)
        assert done.returncode == 1 and words in done.stderr and "Traceback" not in done.stderr
