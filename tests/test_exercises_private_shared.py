"""Wrong answers that a student may well give in the chapter on PVAE: (answer, words of the hint)."""

import math

import pytest
import torch

from mmvae_lite.exercises import check


def _precision(a, b, s2):
    w = torch.tensor([[a], [b]], dtype=torch.float64)
    return torch.eye(2, dtype=torch.float64) + w @ w.T / s2


def _inverse(x, a, b, s2):
    c = torch.linalg.inv(_precision(a, b, s2))
    return float(c[0, 0]), float(c[1, 1]), float(c[0, 1])


def _log(L):
    return L.diagonal().log().sum(), torch.logdet(L)


def _similar(partner, t):
    return math.exp(-0.5 * partner**2) - t


def _distance(partner, t):
    s = _similar(partner, t)
    return math.sqrt(-2 * math.log(s)) if s > 0 else math.inf


def _share(counts):
    return sum(n * (n - 1) for n in counts) / (sum(counts) * (sum(counts) - 1))


def _counted(cluster, digit):
    return [torch.bincount(digit[cluster == c]).max() for c in cluster.unique()]


WRONG = {
    "pvae-one-sense": [
        (lambda x, a, b, s2: (1 / (1 + a**2 / s2), 1 / (1 + b**2 / s2), 0.0), "best factorised"),
        (lambda x, a, b, s2: (*(float(v) for v in _precision(a, b, s2).diagonal()), a * b / s2), "invert it"),
        (lambda *v: tuple(_inverse(*v)[i] for i in (1, 0, 2)), "swapped"),
        (lambda *v: (*_inverse(*v)[:2], -_inverse(*v)[2]), "wrong sign"),
        (lambda *v: (*_inverse(*v)[:2], 0.0), "covariance is not right"),
        (lambda x, a, b, s2: (1.0, 1.0, 0.0), "two by two"),
        (lambda *v: _inverse(*v)[0], "return 3 values"),
    ],
    "pvae-gap": [
        (lambda L: _log(L)[0] - _log(L)[1], "half in front"),
        (lambda L: 0.5 * (_log(L)[1] - _log(L)[0]), "not above zero"),
        (lambda L: 0.5 * _log(L)[0], "determinant is missing"),
        (lambda L: 0.5 * (L.diagonal().prod() - torch.linalg.det(L)), "logarithms are missing"),
        (lambda L: 0.5 * (_log(torch.linalg.inv(L))[0] + _log(L)[1]), "true marginals"),
        (lambda L: 0.6810149, "v = 1 / diagonal"),
    ],
    "pvae-pupil": [
        (lambda m, v: ((m / v).sum(0) / (1 / v).sum(0), v.mean(0)), "product of experts"),
        (lambda m, v: (m.mean(0), v.mean(0)), "cover all of them"),
        (lambda m, v: (m.mean(0), m.var(0, correction=0)), "unsure of each"),
        (lambda m, v: (m.mean(0), v.mean(0) + m.var(0)), "one less"),
        (lambda m, v: (m.mean(0), (v.mean(0) + m.var(0, correction=0)).sqrt()), "standard deviation"),
        (lambda m, v: (m.mean(0), 1 / (1 / v).mean(0)), "precisions were averaged"),
        (lambda m, v: (m.median(0).values, v.mean(0)), "one latent and two items"),
        (lambda m, v: m.mean(0), "return a pair"),
    ],
    "pvae-range": [
        (lambda M, t: ((M - 1) * (t + 1), (M - 1) * t, 0.0), "minus a sum"),
        (lambda M, t: (-M * (M - 1) * (t + 1), -M * (M - 1) * t, 0.0), "factor in front"),
        (lambda M, t: (-(t + 1), -t, 0.0), "divides by M"),
        (lambda M, t: (-(M - 1) * t, -(M - 1) * t, 0.0), "nearer than the partner"),
        (lambda M, t: (-(M - 1) * (t + 1), -(M - 1) * t, -t), "hinge worth that is shut"),
        (lambda M, t: (-(M - 1) * (t + 2), -(M - 1) * t, 0.0), "one hinge largest"),
    ],
    "pvae-asleep": [
        (lambda p, t: math.sqrt(-2 * math.log(_similar(p, t))), "can this pair be satisfied"),
        (_similar, "similarity to the negative"),
        (lambda p, t: _distance(p, t) ** 2, "squared distance"),
        (lambda p, t: _distance(p, t) / math.sqrt(2), "half in the exponent"),
        (lambda p, t: math.sqrt(-2 * math.log(t)), "same spot"),
        (lambda p, t: _distance(p, t) if p < 1.2 else 10.0, "less similar than nothing"),
        (lambda p, t: p + 1, "is zero"),
    ],
    "pvae-false": [
        (lambda c, t: (sum(n * n for n in c) / sum(c) ** 2, -t / len(c)), "its own negative"),
        (lambda c, t: (1 / len(c), -t / len(c)), "nobody meets itself"),
        (lambda c, t: (_share(c), t * _share(c)), "never above zero"),
        (lambda c, t: (_share(c), -2 * t * _share(c)), "one false negative cost"),
        (lambda c, t: (2 * _share(c), -t * _share(c)), "ordered pairs"),
        (lambda c, t: _share(c), "return 2 values"),
    ],
    "pvae-purity": [
        (lambda c, d: sum(_counted(c, d)), "a share is wanted"),
        (lambda c, d: sum(n / (c == k).sum() for n, k in zip(_counted(c, d), c.unique())) / len(c.unique()), "same weight"),
        (lambda c, d: sum(_counted(d, c)) / len(c), "swapped"),
        (lambda c, d: (c == d).double().mean(), "nothing to do with"),
        (lambda c, d: 1.0, "most frequent"),
    ],
}

MISTAKES = [pytest.param(name, *wrong, id=f"{name}-{i}") for name, some in WRONG.items() for i, wrong in enumerate(some)]


@pytest.mark.parametrize("name, answer, words", MISTAKES)
def test_a_plausible_mistake_gets_a_hint_that_fits(name, answer, words):
    verdict = check(name, answer)
    assert not verdict.passed
    assert words in verdict.message


def test_other_ways_to_be_right_pass():
    assert check("pvae-one-sense", _inverse).passed
    assert check("pvae-gap", lambda L: torch.distributions.kl_divergence(
        torch.distributions.MultivariateNormal(torch.zeros(len(L)).double(), torch.diag(1 / L.diagonal())),
        torch.distributions.MultivariateNormal(torch.zeros(len(L)).double(), precision_matrix=L))).passed  # fmt: skip
    assert check("pvae-pupil", lambda m, v: (m.mean(0), (v + m**2).mean(0) - m.mean(0) ** 2)).passed
    assert check("pvae-asleep", _distance).passed
    assert check("pvae-false", lambda c, t: (_share(c), -t * _share(c))).passed
    assert check("pvae-purity", lambda c, d: sum(_counted(c, d)).item() / len(c)).passed
