"""Wrong answers that a student may well give in the chapter on contrast: (answer, words of the hint)."""

import math

import pytest
import torch

from mmvae_lite.exercises import check
from mmvae_lite.exercises_contrast import _log_ratio, _pool
from mmvae_lite.information import info_nce


def _scores(x, y, rho):
    return _log_ratio(x[:, :, None], y[:, None, :], rho)


def _estimate(x, y, rho, below=lambda f: f.logsumexp(2) - math.log(f.shape[2])):
    f = _scores(x, y, rho)
    return (f.diagonal(dim1=1, dim2=2) - below(f)).mean(1)


def _without_pair(f):
    return f.masked_fill(torch.eye(f.shape[1], dtype=torch.bool), -math.inf).logsumexp(2) - math.log(f.shape[1])


def _ceiling(K, tau, other):
    return math.log(K) - math.log1p((K - 1) * math.exp((other(K) - 1) / tau))


def _code(m, means, precisions, in_a, swap=False, rows=None, weighted=True):
    weights = precisions if weighted else torch.ones_like(precisions)
    a, b = (_pool(means, weights, part) for part in (in_a, ~in_a))
    return torch.where(in_a[m][:, None] ^ swap, a, b).detach()


def _loss(recon, kl, nce, tc, gamma, delta, signs=(-1, 1, -1, 1), outside=False):
    correlation = sum(delta.values()) * sum(tc.values()) if outside else sum(delta[m] * tc[m] for m in tc)
    return sum(s * v for s, v in zip(signs, (sum(recon.values()), sum(kl.values()), gamma * nce, correlation)))


WRONG = {
    "contrast-log-ratio": [
        (lambda x, y, r: -_log_ratio(x, y, r), "upside down"),
        (lambda x, y, r: _log_ratio(x, y, r).exp(), "ratio itself"),
        (lambda x, y, r: torch.distributions.Normal(r * x, math.sqrt(1 - r**2)).log_prob(y), "divide by p"),
        (lambda x, y, r: _log_ratio(x, y, r) + 0.5 * math.log(1 - r**2), "normaliser"),
        (lambda x, y, r: r * x * y, "off by up to"),
        (lambda x, y, r: _log_ratio(x, y, r).mean(), "shape"),
    ],
    "contrast-info-nce": [
        (lambda x, y, r: -_estimate(x, y, r), "other sign"),
        (lambda x, y, r: _estimate(x, y, r, lambda f: f.logsumexp(2)), "lacks log K"),
        (lambda x, y, r: _estimate(x, y, r, _without_pair), "leaves the pair itself out"),
        (lambda x, y, r: _estimate(x, y, r, lambda f: f.mean(2)), "exponentials"),
        (lambda x, y, r: _scores(x, y, r).diagonal(dim1=1, dim2=2).mean(1), "mean score"),
        (lambda x, y, r: _estimate(x, y, r).mean(), "shape"),
        (lambda x, y, r: _estimate(x, y, r).mean().expand(len(x)), "one value for each"),
    ],
    "contrast-ceiling": [
        (lambda K, tau: math.log(K), "no cosine reaches"),
        (lambda K, tau: 1 / tau, "any K"),
        (lambda K, tau: _ceiling(K, tau, lambda k: -1.0), "all be opposite"),
        (lambda K, tau: _ceiling(K, tau, lambda k: 0.0), "right angles"),
        (lambda K, tau: _ceiling(K, tau, lambda k: -1 / (k - 1)) - math.log(K), "log K of the average"),
        (lambda K, tau: 9.0, "above log K"),
    ],
    "contrast-split": [
        (lambda *a: _code(*a, swap=True), "NaN"),
        (lambda m, mean, T, a: _pool(mean, T, torch.ones_like(a)).detach(), "pools all"),
        (lambda m, mean, T, a: mean[m].detach(), "alone"),
        (lambda *a: _code(*a, weighted=False), "plain average"),
        (lambda m, mean, T, a: torch.where(a[m][:, None], _pool(mean, T, a), _pool(mean, T, ~a)), "detach"),
        (lambda m, mean, T, a: _pool(mean, T, a).nan_to_num().detach(), "is off"),
    ],
    "contrast-sign": [
        (lambda **t: _loss(**t, signs=(-1, 1, 1, 1)), "slip in print"),
        (lambda **t: -_loss(**t), "optimiser descends"),
        (lambda **t: _loss(**t, signs=(-1, 1, -1, -1)), "learn the code"),
        (lambda **t: _loss(**t, signs=(1, 1, -1, 1)), "less likely"),
        (lambda **t: _loss(**t, signs=(-1, -1, -1, 1)), "away from their prior"),
        (lambda **t: _loss(**t, outside=True), "inside the sum"),
        (lambda **t: 0.0, "is not the loss"),
    ],
}


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("contrast-log-ratio", _log_ratio),
        ("contrast-info-nce", _estimate),
        ("contrast-ceiling", lambda K, tau: _ceiling(K, tau, lambda k: -1 / (k - 1))),
        ("contrast-split", _code),
        ("contrast-sign", _loss),
    ],
)
def test_right_answers_pass(name, answer):
    assert check(name, answer).require()


@pytest.mark.parametrize(("n", "tau"), [(10, 1.0), (7, 0.3)])
def test_the_corners_of_a_simplex_reach_the_ceiling_of_the_check(n, tau):
    corners = torch.eye(n, dtype=torch.float64) - 1 / n
    best = info_nce(corners, corners, "cosine", tau).item()
    assert best == pytest.approx(_ceiling(n, tau, lambda k: -1 / (k - 1)), abs=1e-9)
