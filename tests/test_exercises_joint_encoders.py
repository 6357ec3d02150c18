"""Wrong answers that a student may well give in the chapter on joint encoders: (answer, words of the hint)."""

import math

import pytest
import torch
from torch.func import functional_call

from mmvae_lite.distributions import Normal, kl
from mmvae_lite.exercises import check


def _fit(mean, var):
    return -0.5 * (math.log(2 * math.pi) + (1 - mean) ** 2 + var)


def _kl(mean, var, mean2, var2):
    return 0.5 * (var / var2 - 1 - math.log(var / var2) + (mean - mean2) ** 2 / var2)


def _conditional(mean, var):
    return _fit(mean, var) - _kl(mean, var, 0.6, 0.2)


def _zeros(w, s2):
    one, two = w[0] ** 2 / s2[0], w[1] ** 2 / s2[1]
    return w[0] / (s2[0] * (1 + one)), 1 / (1 + one + two)


def _told(w, s2):
    return [a * a / b for a, b in zip(w, s2)]


def _price(w, s2):
    told = _told(w, s2)
    return sum(0.5 * math.log((1 + sum(told)) / (1 + t)) for t in told)


def _bracket(encoder, decoder, x, noise, cut="weights", divergence=True, sign=1.0):
    q = encoder(x)
    z = q.mean + q.std * noise
    if cut == "all":
        with torch.no_grad():
            out = decoder(z)
    elif cut == "z":
        out = functional_call(decoder, {k: v.detach() for k, v in decoder.named_parameters()}, (z.detach(),))
    elif cut == "weights":
        out = functional_call(decoder, {k: v.detach() for k, v in decoder.named_parameters()}, (z,))
    else:
        out = decoder(z)
    value = -0.5 * (x - out).square().sum(-1)
    if divergence:
        value = value - kl(q, Normal.standard(*q.mean.shape, like=q.mean))
    return sign * value


def _switched_off(encoder, decoder, x, noise):
    decoder.requires_grad_(False)
    return _bracket(encoder, decoder, x, noise, cut="nothing")


def _count(M):
    return M + 1, M + 1, 2**M - 1, 2**M - 2 - M


WRONG = {
    "joint-conditional": [
        (lambda m, v: _conditional(m, v) + 0.5 * math.log(2 * math.pi), "constant"),
        (lambda m, v: _conditional(m, v) + 0.5 * v, "part for the variance"),
        (_fit, "divergence is missing"),
        (lambda m, v: _fit(m, v) - _kl(m, v, 0.0, 1.0), "place of the prior"),
        (lambda m, v: _fit(m, v) - _kl(0.6, 0.2, m, v), "average is over q"),
        (lambda m, v: -_conditional(m, v), "sign"),
        (lambda m, v: 0.0, "what the smell says"),
    ],
    "joint-zeros": [
        (lambda w, s2: (_zeros(w, s2)[0], 1 / (1 + w[0] ** 2 / s2[0])), "although nobody saw it"),
        (lambda w, s2: (_zeros(w, s2)[0], 1 / _zeros(w, s2)[1]), "this is a precision"),
        (lambda w, s2: (w[0] / s2[0] * _zeros(w, s2)[1], _zeros(w, s2)[1]), "takes the missing x_2 for zero"),
        (lambda w, s2: (_zeros(w, s2)[0], 1 / (w[0] ** 2 / s2[0] + w[1] ** 2 / s2[1])), "lacks one of three parts"),
        (lambda w, s2: (1.0, _zeros(w, s2)[1]), "what does it vote for"),
        (lambda w, s2: (1.0, 7.0), "parabola"),
        (lambda w, s2: 1.0, "pair"),
    ],
    "joint-price": [
        (lambda w, s2: -_price(w, s2), "sign"),
        (lambda w, s2: 2 * _price(w, s2), "half a logarithm"),
        (lambda w, s2: sum(0.5 * math.log(1 + t) for t in _told(w, s2)), "on top of it"),
        (lambda w, s2: 0.5 * math.log(1 + sum(_told(w, s2))), "together"),
        (lambda w, s2: _price(w, s2) / len(w), "adds their divergences"),
        (lambda w, s2: _price(w, s2) + 1, "one mutual information for each sense"),
    ],
    "joint-stop": [
        (lambda *a: _bracket(*a, cut="nothing"), "still reaches the decoder"),
        (lambda *a: _bracket(*a, cut="all"), "divergence alone"),
        (lambda *a: _bracket(*a, cut="z"), "divergence alone"),
        (lambda *a: _bracket(*a).detach(), "no gradient at all"),
        (lambda *a: _bracket(*a, sign=-1.0), "other sign"),
        (lambda *a: _bracket(*a, divergence=False), "divergence from the prior is missing"),
        (_switched_off, "switched off for good"),
        (lambda *a: _bracket(*a).mean(), "shape"),
    ],
    "joint-count": [
        (lambda M: (M, *_count(M)[1:]), "one of them, too"),
        (lambda M: (M + 1, M, *_count(M)[2:]), "leave one sense out"),
        (lambda M: (M + 1, M + 1, 2**M, 2**M - 1 - M), "empty set"),
        (lambda M: (M + 1, M + 1, 2**M - 1, 2**M - 1 - M), "neither single nor everything"),
        (lambda M: (M + 1, M + 1, M * (M + 1) // 2, 0), "in or out"),
    ],
}

MISTAKES = [pytest.param(name, *wrong, id=f"{name}-{i}") for name, some in WRONG.items() for i, wrong in enumerate(some)]


@pytest.mark.parametrize("name, answer, words", MISTAKES)
def test_a_plausible_mistake_gets_a_hint_that_fits(name, answer, words):
    verdict = check(name, answer)
    assert not verdict.passed
    assert words in verdict.message


def test_other_ways_to_be_right_pass():
    assert check("joint-conditional", lambda m, v: torch.tensor(_conditional(m, v), dtype=torch.float64)).passed
    assert check("joint-zeros", lambda w, s2: list(_zeros(w, s2))).passed
    assert check("joint-price", _price).passed
    assert check("joint-stop", _bracket).passed
    assert check("joint-count", lambda M: torch.tensor(_count(M))).passed
