"""Every stub fails its check with a hint, every solution passes, and plausible mistakes are caught."""

import importlib
import json
import math
import re
from collections import Counter
from pathlib import Path

import pytest
import torch

from mmvae_lite import exercises
from mmvae_lite.exercises import Verdict, check

NOTEBOOKS = sorted((Path(__file__).resolve().parent.parent / "notebooks").glob("*.ipynb"))
CHECK = re.compile(r'check\("([^"]+)",\s*(\w+)\)')


def code_cells(notebook: Path, tag: str) -> list[str]:
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return ["".join(c["source"]) for c in cells if c["cell_type"] == "code" and tag in c["metadata"].get("tags", [])]


def pairs(notebook: Path) -> list[tuple[str, str, str, str]]:
    """(exercise, name of the function, stub, solution) of every exercise of a chapter."""
    stubs, solutions = code_cells(notebook, "exercise"), code_cells(notebook, "solution")
    assert len(stubs) == len(solutions), f"{notebook.name}: {len(stubs)} stubs and {len(solutions)} solutions"
    found = []
    for stub, solution in zip(stubs, solutions):
        match = CHECK.search(solution)
        assert match, f"{notebook.name}: this solution is not checked:\n{solution}"
        found.append((match[1], match[2], stub, solution))
    return found


EXERCISES = [pytest.param(nb, *pair, id=pair[0]) for nb in NOTEBOOKS for pair in pairs(nb)]


def namespace(notebook: Path) -> dict:
    """The names that the chapter's set-up cells give, without running the chapter."""
    names: dict = {"__name__": "__main__"}
    for cell in code_cells(notebook, "setup"):
        exec(compile(cell, notebook.name, "exec"), names)
    return names


@pytest.mark.parametrize("notebook, name, function, stub, solution", EXERCISES)
def test_a_stub_fails_and_its_solution_passes(notebook, name, function, stub, solution):
    names = namespace(notebook)
    exec(compile(stub, name, "exec"), names)
    verdict = check(name, names[function])
    assert not verdict.passed and verdict.message == exercises.STUB
    exec(compile(solution, name, "exec"), names)
    assert ".require()" in solution
    assert check(name, names[function]).passed


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_chapter_shows_the_check_after_the_stub_and_hides_the_solution(notebook):
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    kinds = [next((t for t in ("exercise", "solution") if t in c["metadata"].get("tags", [])), "") for c in cells]
    stubs = [i for i, kind in enumerate(kinds) if kind == "exercise"]
    for i in stubs:
        assert CHECK.search("".join(cells[i + 1]["source"])), f"{notebook.stem}: no check after cell {i}"
        assert kinds[i + 2] == "solution" and "hide-cell" in cells[i + 2]["metadata"]["tags"]
    text = "".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    assert len(stubs) >= 4
    assert text.count("```{exercise}") == len(stubs) <= text.count("} Hint")


def test_every_check_has_one_exercise_and_every_exercise_its_wrong_answers():
    assert Counter(p.values[1] for p in EXERCISES) == Counter(exercises.names())
    assert {name: len(WRONG.get(name, [])) >= 2 for name in exercises.names()} == dict.fromkeys(exercises.names(), True)


# Wrong answers that a student may well give: (answer, words of the hint).  ---------------------------

# Gaussian product of experts
THREE = {"product": (10, 1 / 2), "prior": (11, 5 / 11), "quotient": (8, 5 / 8)}


def _deviation(mean1, var1, mean2, var2):
    total = var1 + var2
    return -0.5 * (mean1 - mean2) ** 2 / total**2 - math.log(total) - 0.5 * math.log(2 * math.pi)


def _log_z(mean1, var1, mean2, var2):
    return -0.5 * ((mean1 - mean2) ** 2 / (var1 + var2) + (2 * math.pi * (var1 + var2)).log())


def _factor(means, variances, z):
    return ((z - means) ** 2 / variances).mean()


def _full(means, covariances):
    precisions = torch.linalg.inv(covariances)
    covariance = torch.linalg.inv(precisions.sum(0))
    return covariance @ torch.einsum("mij,mj->i", precisions, means), covariance


WRONG = {
    "poe-three-products": [
        (lambda: THREE | {"quotient": THREE["product"]}, "another form"),
        (lambda: {k: (1 / t, m) for k, (t, m) in THREE.items()}, "variance"),
        (lambda: THREE | {"quotient": (8, (0.5 + 0.6 + 1 / 3) / 3)}, "plain average"),
        (lambda: THREE | {"prior": (11, 0.5)}, "the mean is not"),
        (lambda: THREE | {"quotient": (9, 5 / 9)}, "not right"),
        (lambda: {k: THREE[k] for k in ("product", "prior")}, "keys"),
        (lambda: THREE | {"prior": 11}, "pair"),
        (lambda: None, "dict"),
    ],
    "poe-improper": [
        (lambda: [(0.0, 4.0)] * 3, "sharper"),
        (lambda: [(0.0, 0.5)] * 3, "is a density"),
        (lambda: [(0.0, -1.0), (0.0, 0.5), (0.0, 2.0)], "positive"),
        (lambda: [(0.0, 0.5), (0.0, 9.0)], "three pairs"),
        (lambda: [0.0, 0.5, 9.0], "pair"),
    ],
    "poe-agreement": [
        (lambda *a: _log_z(*a).exp(), "logarithm"),
        (lambda *a: -_log_z(*a), "sign"),
        (lambda *a: _log_z(*a) + 0.5 * math.log(2 * math.pi), "constant"),
        (_deviation, "standard deviation"),
        (lambda m1, v1, m2, v2: _log_z(m1, v1 * v2, m2, 0 * v2), "not log Z"),
        (lambda *a: None, "None"),
        (lambda *a: torch.zeros(2), "one number"),
    ],
    "poe-calibrate": [
        (lambda m, v, z: 1 / _factor(m, v, z), "worse"),
        (lambda m, v, z: _factor(m, v, z).sqrt(), "standard deviation"),
        (lambda m, v, z: 1.0, "still do not match"),
        (lambda m, v, z: 0.0, ""),
        (lambda m, v, z: float("nan"), "finite"),
    ],
    "poe-full-covariance": [
        (lambda m, c: (m.mean(0), _full(m, c)[1]), "plain average"),
        (lambda m, c: (_full(m, c)[0], torch.linalg.inv(_full(m, c)[1])), "precision matrix"),
        (lambda m, c: (m.mean(0), c.sum(0)), "do not add up"),
        (lambda m, c: (m.mean(0), torch.diag(1 / (1 / c.diagonal(dim1=1, dim2=2)).sum(0))), "off-diagonal"),
        (lambda m, c: (m.sum(0), _full(m, c)[1]), "the mean is not"),
        (lambda m, c: (m, c), "shape"),
        (lambda m, c: _full(m, c)[0], "pair"),
    ],
}

# Every other chapter has a file of its own, test_exercises_CHAPTER.py, with a dict WRONG.
for chapter in sorted(Path(__file__).parent.glob("test_exercises_*.py")):
    WRONG |= importlib.import_module(f"tests.{chapter.stem}").WRONG


MISTAKES = [pytest.param(name, *wrong, id=f"{name}-{i}") for name, some in WRONG.items() for i, wrong in enumerate(some)]


@pytest.mark.parametrize("name, answer, words", MISTAKES)
def test_a_plausible_mistake_gets_a_hint_that_fits(name, answer, words):
    verdict = check(name, answer)
    assert not verdict.passed
    assert words in verdict.message
    assert len(verdict.message) > 20


@pytest.mark.parametrize("name", exercises.names())
@pytest.mark.parametrize(
    "answer",
    [None, 3.0, "text", lambda *a, **k: None, lambda *a, **k: 1 / 0, lambda *a, **k: float("nan"), lambda *a, **k: [], lambda: {}],
)
def test_nonsense_is_not_yet_and_never_an_error(name, answer):
    verdict = check(name, answer)
    assert not verdict.passed and verdict.message


def test_a_verdict_says_passed_or_not_yet():
    good, bad = Verdict(True), Verdict(False, "try 2 < 3")
    assert repr(good) == "passed" and good.require() is good and bool(good)
    assert repr(bad) == "not yet: try 2 < 3" and not bad
    assert "passed" in good._repr_html_() and "not yet: try 2 &lt; 3" in bad._repr_html_()
    with pytest.raises(AssertionError, match="try 2"):
        bad.require()


def test_a_crash_is_reported_by_its_name():
    assert check("poe-agreement", lambda *a: {}["mean"]).message == "your code stopped with KeyError: 'mean'"


def test_other_ways_to_be_right_pass():
    assert check("poe-three-products", lambda: {k: torch.tensor(v) for k, v in THREE.items()}).passed
    assert check("poe-agreement", lambda m1, v1, m2, v2: torch.distributions.Normal(m1, (v1 + v2).sqrt()).log_prob(m2)).passed
    assert check("poe-calibrate", lambda m, v, z: ((z - m).abs() / v.sqrt()).median().item() ** 2 / 0.6745**2).passed


def test_an_unknown_exercise_is_an_error_of_the_notebook():
    with pytest.raises(ValueError, match="poe-agreement"):
        check("poe-agreemnt", None)


def test_a_name_is_registered_once():
    with pytest.raises(ValueError, match="two checks"):
        exercises.exercise("poe-agreement")(lambda answer: None)
