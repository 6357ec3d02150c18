"""Wrong answers that a student may well give in the chapter on MVAE: (answer, words of the hint)."""

import pytest
import torch

from mmvae_lite.distributions import Normal, kl
from mmvae_lite.exercises import check
from mmvae_lite.experts import product, product_with_prior


def _precision(a, b):
    return 1 + sum((t for t in (a, b) if t is not None), torch.zeros(()))


def _bounds(model, images, noise, weight=1.0, divergence=1.0, label=1.0, alone=False):
    found = []
    for c in range(10):
        y = torch.eye(10, dtype=images.dtype)[[c] * len(images)]
        q = model.posterior({"image": images} if alone else {"image": images, "label": y})["shared"]
        z = q.mean + q.std * noise[c]
        terms = model.log_px("image", z, images) + label * weight * model.log_px("label", z, y)
        found.append(terms - divergence * kl(q, model.prior(len(images))))
    return torch.stack(found, 1)


def _cost(M, k):
    drawn = k if M > 2 else 0
    return 1 + M + drawn, M, 2 * M + drawn * (M + 1) / 2


def _faulty(experts):
    prior = Normal.standard(*experts[0].mean.shape, like=experts[0].mean)
    return product([prior, *(product([prior, q]) for q in experts)])


def _per_expert(experts):
    prior = Normal.standard(*experts[0].mean.shape, like=experts[0].mean)
    return product([product([prior, q]) for q in experts])


def _weighted(weight):
    return 2 + 4 * weight, (1 + 3 * weight) / (2 + 4 * weight)


WRONG = {
    "mvae-precision": [
        (lambda a, b: sum(t for t in (a, b) if t is not None) + torch.zeros(()), "no vote"),
        (lambda a, b: 1 + _precision(a, b), "too many"),
        (lambda a, b: _precision(torch.ones(3, 4) if a is None else a, b), "too many"),
        (lambda a, b: 1 / _precision(a, b), "variance"),
        (lambda a, b: _precision(a, b) if (a, b) != (None, None) else 0.0, "before you look"),
        (lambda a, b: _precision(a, b).mean(), "shape"),
        (lambda a, b: 1 + a + b, "TypeError"),
    ],
    "mvae-label-by-bound": [
        (lambda *a: -_bounds(*a), "other sign"),
        (lambda *a: _bounds(*a, weight=10.0), "weighted"),
        (lambda *a: _bounds(*a, divergence=0.0), "divergence"),
        (lambda *a: _bounds(*a, label=0.0), "label's own term"),
        (lambda *a: _bounds(*a).T, "one row per image"),
        (lambda *a: _bounds(*a).softmax(1), "probabilities"),
        (lambda *a: _bounds(*a, alone=True), "posterior of image and label"),
    ],
    "mvae-count": [
        (lambda M, k: (1 + M + k, M, 2 * M + k * (M + 1) / 2), "leave one out"),
        (lambda M, k: (M, *_cost(M, k)[1:]), "number of bounds"),
        (lambda M, k: (_cost(M, k)[0], 2 * M, _cost(M, k)[2]), "encodings"),
        (lambda M, k: (*_cost(M, k)[:2], _cost(M, k)[0] * M), "decodings"),
        (lambda M, k: _cost(M, k)[0], "three numbers"),
    ],
    "mvae-prior-twice": [
        (_faulty, "2 times"),
        (_per_expert, "2 times"),
        (product, "gone"),
        (lambda experts: product_with_prior(experts).mean, "wanted a Normal"),
        (lambda experts: Normal(torch.zeros_like(experts[0].mean), product_with_prior(experts).logvar), "the mean is not"),
    ],
    "mvae-weight": [
        (lambda w: _weighted(1.0), "has not moved"),
        (lambda w: _weighted(w**2), "too much"),
        (lambda w: (1 + 5 * w, 4 * w / (1 + 5 * w)), "only the second"),
        (lambda w: (_weighted(w)[0], 2 / 3), "the mean is not"),
        (lambda w: _weighted(w)[0], "pair"),
    ],
}

MISTAKES = [pytest.param(name, *wrong, id=f"{name}-{i}") for name, some in WRONG.items() for i, wrong in enumerate(some)]


@pytest.mark.parametrize("name, answer, words", MISTAKES)
def test_a_plausible_mistake_gets_a_hint_that_fits(name, answer, words):
    verdict = check(name, answer)
    assert not verdict.passed
    assert words in verdict.message


def test_other_ways_to_be_right_pass():
    assert check("mvae-precision", lambda a, b: 1 + (0 if a is None else a) + (0 if b is None else b)).passed
    assert check("mvae-label-by-bound", _bounds).passed
    assert check("mvae-count", lambda M, k: torch.tensor(_cost(M, k)).tolist()).passed
    assert check("mvae-prior-twice", lambda experts: product([Normal.standard(1, 1, like=experts[0].mean), *experts])).passed
    assert check("mvae-weight", lambda w: torch.tensor(_weighted(w), dtype=torch.float64).tolist()).passed
