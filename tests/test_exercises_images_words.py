"""Wrong answers that a student may well give in the chapter on images and words: (answer, words of the hint)."""

import math

import pytest
import torch
from torch.nn import functional as F

from mmvae_lite.exercises import check


def _cos(a, b):
    return F.cosine_similarity(a, b, dim=1)


def _off(c):
    return (c.sum() - c.trace()) / (len(c) ** 2 - len(c))


def _caption(logits, ids, keep):
    return (logits.log_softmax(-1).gather(2, ids[..., None])[..., 0] * keep).sum(1)


def _until(ids):
    return (ids == 2).cumsum(1) - (ids == 2).long() == 0


def _exact(rho, **other):
    return {"truth": rho, "joint": 1.0, "cross": math.sqrt(rho)} | other


WRONG = {
    "words-cosine": [
        (lambda a, b, m, n: _cos(a, b), "not taken off"),
        (lambda a, b, m, n: _cos(a - a.mean(0), b - b.mean(0)), "means of their own"),
        (lambda a, b, m, n: ((a - m) * (b - n)).sum(1), "both lengths"),
        (lambda a, b, m, n: ((a - m) * (b - n)).mean(1), "both lengths instead"),
        (lambda a, b, m, n: 3 + 0 * a[:, 0], "between minus one"),
        (lambda a, b, m, n: 0.9 * _cos(a - m, b - n), "is not the cosine"),
        (lambda a, b, m, n: F.cosine_similarity(a - m, b - n, dim=0), "shape"),
    ],
    "words-shuffled": [
        (lambda c: _off(c) - c.diagonal().mean(), "sign"),
        (lambda c: c.diagonal().mean(), "right pairs alone"),
        (lambda c: _off(c), "this is the baseline"),
        (lambda c: c.diagonal().mean() - c.mean(), "right pairs too"),
        (lambda c: c.trace() - _off(c), "is not the mean"),
    ],
    "words-padding": [
        (lambda x, i: _caption(x, i, torch.ones(i.shape)), "padding is counted as if"),
        (lambda x, i: _caption(x, i, i != 0), "other way round"),
        (lambda x, i: _caption(x, i, _until(i) & (i != 2)), "the end is a word"),
        (lambda x, i: _caption(x, i, _until(i) & (i != 0)), "rare word is left out"),
        (lambda x, i: _caption(x, i, _until(i)) / _until(i).sum(1), "mean per word"),
        (lambda x, i: (x.gather(2, i[..., None])[..., 0] * _until(i)).sum(1), "no log-probabilities"),
        (lambda x, i: -_caption(x, i, _until(i)), "nothing after it"),
    ],
    "words-exact": [
        (lambda rho: _exact(rho, truth=math.sqrt(rho)), "correlation of the data"),
        (lambda rho: _exact(rho, joint=rho), "noise of the data"),
        (lambda rho: _exact(rho, joint=0.5), "multiples of one s"),
        (lambda rho: _exact(rho, cross=rho), "below the line"),
        (lambda rho: _exact(rho, cross=1.0), "posterior mean"),
        (lambda rho: _exact(rho, cross=rho**2), "covariance of a with"),
        (lambda rho: rho, "keys"),
    ],
    "words-lookup": [
        (lambda x, y: torch.cdist(x, y).argmax(1), "furthest"),
        (lambda x, y: (x @ y.T).argmax(1), "inner product"),
        (lambda x, y: F.cosine_similarity(x[:, None], y[None], dim=2).argmax(1), "cosine forgets"),
        (lambda x, y: torch.zeros(len(x), dtype=torch.long), "is nearer"),
        (lambda x, y: torch.cdist(x, y).argmin(0), "one row number"),
        (lambda x, y: torch.full((len(x),), len(y)), "outside"),
    ],
}


def test_the_exact_correlations_agree_with_draws():
    rho, g = 0.3, torch.Generator().manual_seed(0)
    s, first, second, again = torch.randn(4, 400_000, generator=g, dtype=torch.float64)
    a, b = (math.sqrt(rho) * s + math.sqrt(1 - rho) * e for e in (first, second))
    drawn = math.sqrt(rho) * (math.sqrt(rho) * a + math.sqrt(1 - rho) * again)  # the mean of b at a draw of s given a
    wanted = _exact(rho)
    assert torch.corrcoef(torch.stack([a, b]))[0, 1].item() == pytest.approx(wanted["truth"], abs=0.01)
    assert torch.corrcoef(torch.stack([a, drawn]))[0, 1].item() == pytest.approx(wanted["cross"], abs=0.01)
    assert check("words-exact", _exact).require()
