"""Wrong answers that a student may well give in the chapter on measuring: (answer, words of the hint)."""

import math

import pytest
import torch

from mmvae_lite.evaluation.coherence import agreement
from mmvae_lite.evaluation.frechet import between
from mmvae_lite.exercises import check


def _share(x):
    return torch.bincount(x, minlength=5).double() / len(x)


def _true(o, a, n, slip=None):
    slip = (1 - a) / (n - 1) if slip is None else slip
    return (o - slip) / (a - slip)


def _frechet(a, u, b, v, spread=lambda u, v: (u.sqrt() - v.sqrt()).square()):
    return ((a - b).square() + spread(u, v)).sum()


def _items(p, q, c, spread=None):
    return c**2 * (p * (1 - p) + q * (1 - q) if spread is None else spread) / (p - q) ** 2


WRONG = {
    "measuring-chance": [
        (lambda p, t: 1 / 5, "one over the number"),
        (lambda p, t: (p == t).double().mean(), "coherence itself"),
        (lambda p, t: _share(t).square().sum(), "inputs twice"),
        (lambda p, t: _share(p).square().sum(), "generated classes twice"),
        (lambda p, t: _share(t).max(), "largest class"),
        (lambda p, t: 0.5, "is not"),
    ],
    "measuring-judge": [
        (lambda o, a, n: o / a, "by mistake"),
        (lambda o, a, n: o * a, "too low"),
        (lambda o, a, n: _true(o, a, n, (1 - a) / n), "all classes"),
        (lambda o, a, n: _true(o, a, n, 1 - a), "only one mistake"),
        (lambda o, a, n: o, "is not"),
    ],
    "measuring-frechet": [
        (lambda *x: _frechet(*x).sqrt(), "root too many"),
        (lambda a, u, b, v: (a - b).square().sum(), "means alone"),
        (lambda *x: _frechet(*x, lambda u, v: (u - v).square()), "differences of variances"),
        (lambda *x: _frechet(*x, lambda u, v: u + v), "cross term"),
        (lambda *x: _frechet(*x, lambda u, v: u + v - 2 * u * v), "root in the cross"),
        (lambda *x: 0.0, "is not"),
    ],
    "measuring-noise-share": [
        (lambda nats: math.exp(-nats), "how much is noise"),
        (lambda nats: min(1.0, nats), "linear"),
        (lambda nats: 3.0, "no share"),
        (lambda nats: 0.5, "is not"),
    ],
    "measuring-items": [
        (lambda p, q, c: _items(p, q, c, p * (1 - p)), "one of the two"),
        (lambda p, q, c: _items(p, q, c) / c, "outside the square"),
        (lambda p, q, c: _items(p, q, c, (math.sqrt(p * (1 - p)) + math.sqrt(q * (1 - q))) ** 2), "variances add"),
        (lambda p, q, c: _items(p, q, c) * abs(p - q), "not by its square"),
        (lambda p, q, c: -1.0, "not positive"),
        (lambda p, q, c: 1000.0, "is not"),
    ],
}


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("measuring-chance", lambda p, t: (_share(p) * _share(t)).sum()),
        ("measuring-judge", _true),
        ("measuring-frechet", _frechet),
        ("measuring-noise-share", lambda nats: 1 - math.exp(-nats)),
        ("measuring-items", _items),
    ],
)
def test_right_answers_pass(name, answer):
    assert check(name, answer).require()


def test_the_chance_of_the_check_is_that_of_the_library():
    g = torch.Generator().manual_seed(3)
    p, t = (torch.randint(5, (300,), generator=g) for _ in range(2))
    assert agreement(p, t, classes=5)["chance"] == pytest.approx(float((_share(p) * _share(t)).sum()))


def test_the_distance_of_the_check_is_that_of_the_library():
    g = torch.Generator().manual_seed(4)
    x = torch.randn(4000, 3, generator=g, dtype=torch.float64)
    basis = torch.linalg.cholesky(torch.linalg.inv(x.T.cov()))
    x = (x - x.mean(0)) @ basis  # mean 0 and covariance 1, exactly
    u, v = torch.tensor([0.5, 1.0, 2.0]).double(), torch.tensor([1.5, 1.0, 0.1]).double()
    shift = torch.tensor([0.3, -1.0, 0.0]).double()
    assert between(x * u.sqrt(), x * v.sqrt() + shift) == pytest.approx(float(_frechet(torch.zeros(3), u, shift, v)), rel=1e-6)
