"""Wrong answers that a student may well give in the first chapter: (answer, words of the hint)."""

import math

import pytest
import torch

from mmvae_lite.exercises import check

CRITERIA = {"a": "joint", "b": "cross", "c": "factorisation", "d": "synergy", "e": "cross", "f": "factorisation"}


def _posterior(weights, variances, x, prior=1.0, blank=False, sign=1.0):
    T, eta = prior, 0.0
    for w, s2, value in zip(weights, variances, x):
        if value is None and blank:
            value = 0.0
        if value is not None:
            T, eta = T + w**2 / s2, eta + (abs(w) if sign < 0 else w) * value / s2
    return eta / T if T else 0.0, 1 / T if T else 0.0


def _gap(mean, var):
    ratio = 8 * var
    return 0.5 * (ratio - 1 - math.log(ratio) + 8 * (mean - 0.625) ** 2)


def _turned(mean, var):
    ratio = 1 / (8 * var)
    return 0.5 * (ratio - 1 - math.log(ratio) + (mean - 0.625) ** 2 / var)


def _elbo(mean, var):
    return -3.7624627801739634 - _gap(mean, var)


def _signal(c):
    return torch.stack([c[0, 1] * c[0, 2] / c[1, 2], c[0, 1] * c[1, 2] / c[0, 2], c[0, 2] * c[1, 2] / c[0, 1]])


def _told(shared, private, variances, invert=True):
    h = torch.tensor([[shared[0], private[0], 0.0], [shared[1], 0.0, private[1]]], dtype=torch.float64)
    precision, told = torch.eye(3, dtype=torch.float64), []
    for m in range(2):
        precision = precision + torch.outer(h[m], h[m]) / variances[m]
        told.append(-0.5 * torch.linalg.inv(precision)[1, 1].log() if invert else 0.5 * precision[1, 1].log())
    return told


def _lamp(*world):
    alone, both = _told(*world)
    return both - alone


WRONG = {
    "world-criteria": [
        (lambda: CRITERIA | {"a": "cross"}, "nothing is given"),
        (lambda: CRITERIA | {"e": "joint"}, "one modality is given"),
        (lambda: CRITERIA | {"d": "cross"}, "modelled better"),
        (lambda: CRITERIA | {"f": "synergy"}, "part of the latents"),
        (lambda: CRITERIA | {"f": "independence"}, "wanted one of"),
        (lambda: {"a": "joint"}, "keys"),
    ],
    "world-posterior": [
        (lambda w, s2, x: _posterior(w, s2, x, blank=True), "missing one brings no precision"),
        (lambda w, s2, x: (_posterior(w, s2, x)[0], 1 / _posterior(w, s2, x)[1]), "this is the precision"),
        (lambda w, s2, x: _posterior(w, s2, x, prior=0.0), "prior is missing"),
        (lambda w, s2, x: (_posterior(w, s2, x)[0], _posterior(w, s2, x)[1] ** 0.5), "standard deviation"),
        (lambda w, s2, x: _posterior(w, s2, x, sign=-1.0), "falling sense"),
        (lambda w, s2, x: (_posterior(w, s2, x)[0] / _posterior(w, s2, x)[1], _posterior(w, s2, x)[1]), "not divided"),
        (lambda w, s2, x: (0.0, sum(s2)), "add the precisions"),
        (lambda w, s2, x: _posterior(w, s2, x)[0], "pair"),
        (lambda w, s2, x: _posterior(w, s2, [v + 0.0 for v in x]), "TypeError"),
    ],
    "world-gap": [
        (lambda m, v: -_gap(m, v), "never negative"),
        (lambda m, v: 2 * _gap(m, v), "twice"),
        (_turned, "average is over q"),
        (_elbo, "this is the ELBO"),
        (lambda m, v: 4 * (m - 0.625) ** 2, "part for the variance"),
        (lambda m, v: _gap(m, v) + 1, "posterior itself"),
    ],
    "world-signal": [
        (lambda c: c.diagonal(), "with its noise"),
        (lambda c: c.diagonal() - _signal(c), "this is the noise"),
        (lambda c: _signal(c).sqrt(), "their squares"),
        (lambda c: _signal(c).flip(0).roll(1), "wrong order"),
        (lambda c: torch.stack([c[0, 1], c[0, 2], c[1, 2]]).abs(), "must cancel"),
        (lambda c: _signal(c)[:2], "shape"),
    ],
    "world-units": [
        (lambda a: (math.log(a), 0.0, 0.0), "sign"),
        (lambda a: (0.0, 0.0, 0.0), "per unit"),
        (lambda a: (-2 * math.log(a), 0.0, 0.0), "twice"),
        (lambda a: (-math.log(a), 0.5 * math.log(a), 0.0), "information changes"),
        (lambda a: (-math.log(a), 0.0, -math.log(a)), "gap changes"),
        (lambda a: (1 - a, 0.0, 0.0), "not right"),
        (lambda a: -math.log(a), "three changes"),
    ],
    "world-lamp": [
        (lambda *world: _told(*world)[1], "both tell together"),
        (lambda *world: _told(*world)[0], "alone"),
        (lambda *world: -_lamp(*world), "sign"),
        (lambda *world: 0.0, "known already"),
        (lambda *world: 2 * _lamp(*world), "half a logarithm"),
        (lambda *world: _lamp(*world) + 0.1, "invert the precision"),
    ],
}

MISTAKES = [pytest.param(name, *wrong, id=f"{name}-{i}") for name, some in WRONG.items() for i, wrong in enumerate(some)]


@pytest.mark.parametrize("name, answer, words", MISTAKES)
def test_a_plausible_mistake_gets_a_hint_that_fits(name, answer, words):
    verdict = check(name, answer)
    assert not verdict.passed
    assert words in verdict.message


def test_other_ways_to_be_right_pass():
    assert check("world-criteria", lambda: dict(reversed(CRITERIA.items()))).passed
    assert check("world-posterior", lambda *a: torch.tensor(_posterior(*a), dtype=torch.float64)).passed
    assert check("world-gap", lambda m, v: torch.tensor(-3.7624627801739634 - _elbo(m, v), dtype=torch.float64)).passed
    assert check("world-signal", lambda c: c[[0, 0, 2], [1, 1, 0]] * c[[0, 1, 1], [2, 2, 2]] / c[[1, 0, 0], [2, 2, 1]]).passed
    assert check("world-units", lambda a: [math.log(1 / a), 0, 0]).passed
    assert check("world-lamp", _lamp).passed
