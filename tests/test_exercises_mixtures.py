"""Wrong answers that a student may well give in the chapter on mixtures: (answer, words of the hint)."""

import math

import pytest
import torch

from mmvae_lite.exercises import check
from mmvae_lite.exercises_mixtures import _mixture_variance


def _cost(log_q, shift=0.0):
    return log_q.amax(0) - log_q.logsumexp(0) + math.log(len(log_q)) + shift


def _scales(D, n, s, rest=None):
    rest = (D - n * s) / (D - n) if rest is None else rest
    return -n * math.log(s) - (D - n) * math.log(rest)


WRONG = {
    "mixture-variance": [
        (lambda m, v: v.mean(0), "one place"),
        (lambda m, v: m.var(0, unbiased=False), "width of its own"),
        (lambda m, v: v.mean(0) + m.var(0), "no sample of it"),
        (lambda m, v: 1 / (1 / v).sum(0), "product"),
        (lambda m, v: v.mean(0) / len(v), "comes from one expert"),
        (lambda m, v: v.mean(0) + m.square().mean(0), "square of the mean"),
        (lambda m, v: v.sum(0) + m.var(0, unbiased=False), "is not right"),
        (lambda m, v: v, "shape"),
    ],
    "mixture-floor": [
        (lambda q: -_cost(q), "other sign"),
        (lambda q: q.amax(0) - q.logsumexp(0), "factor one over"),
        (lambda q: q.amax(0) - q.mean(0), "averages logarithms"),
        (lambda q: q.amax(0), "exceeds"),
        (lambda q: 0.5 * _cost(q), "item by item"),
        (lambda q: q.amax(0).exp() - q.exp().mean(0), "cost"),
    ],
    "mixture-passes": [
        (lambda M, K: (M * K, M * K, M), "with every decoder"),
        (lambda M, K: (M * M, M * K, M), "K times"),
        (lambda M, K: (M * M * K, M * M * K, M), "own decoder alone"),
        (lambda M, K: (M * M * K, M * K, M * K), "one latent"),
        (lambda M, K: (M * M * K, M * K, 2**M), "of the product"),
        (lambda M, K: M * M * K, "three numbers"),
    ],
    "mixture-grey": [
        (lambda x: x.mean(0), "Gaussian"),
        (lambda x: x.flatten().median().expand(x.shape[1:]), "one grey"),
        (lambda x: x[(x[None] - x[:, None]).abs().flatten(2).sum((1, 2)).argmin()], "one of the targets"),
        (lambda x: x.amax(0), "total distance"),
        (lambda x: x.median(), "shape"),
    ],
    "mixture-scales": [
        (lambda D, n, s: n * (s - 1 - math.log(s)), "share what is left"),
        (lambda D, n, s: -n * math.log(s), "cost something too"),
        (lambda D, n, s: -_scales(D, n, s), "sign"),
        (lambda D, n, s: 0.0, "not positive"),
        (lambda D, n, s: _scales(D, n, s) + 1, "add the sharp"),
    ],
    "mixture-ceiling": [
        (lambda v, n: math.exp(-v / n), "two in front"),
        (lambda v, n: math.exp(v / n) / 2, "sign"),
        (lambda v, n: math.exp(-v / 100) / 2 if abs(v) > 600 else math.exp(-v / n) / 2, "ceiling at the scale"),
        (lambda v, n: -1.0, "positive"),
    ],
}


def test_the_variance_of_the_check_agrees_with_draws():
    means, variances = torch.tensor([[0.0, 1.0], [3.0, 1.0]]).double(), torch.tensor([[1.0, 0.5], [2.0, 0.1]]).double()
    wanted = variances.mean(0) + means.var(0, unbiased=False)
    torch.testing.assert_close(_mixture_variance(means, variances), wanted, rtol=0.02, atol=0)


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("mixture-variance", lambda m, v: (v + m.square()).mean(0) - m.mean(0).square()),
        ("mixture-floor", lambda q: math.log(len(q)) - (q - q.amax(0)).exp().sum(0).log()),
        ("mixture-scales", lambda D, n, s: torch.tensor(_scales(D, n, s))),
    ],
)
def test_other_ways_to_be_right_pass(name, answer):
    assert check(name, answer).require()
