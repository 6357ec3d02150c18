"""Wrong answers that a student may well give in the chapter on hybrid latents: (answer, words of the hint)."""

import math

import pytest
import torch
from torch.nn import functional as F

from mmvae_lite.exercises import check


def _tc(s, half=0.5, own=1.0):
    return half * (own * s.diagonal().log().sum() - s.logdet()).item()


def _blocks(sigma, private, **options):
    parts = _tc(sigma[:private, :private], **options) + _tc(sigma[private:, private:], **options)
    return _tc(sigma, **options), parts, _tc(sigma, **options) - parts


def _weights(batch, items, diagonal=None, off=None):
    w = torch.full((batch, batch), (items - 1) / (items * (batch - 1)) if off is None else off)
    return w.fill_diagonal_(1 / items if diagonal is None else diagonal).log()


def _offsets(factors, items):
    n = math.log(items)
    return n, (factors - 1) * n, -factors * n


def _vertex(q):
    return F.one_hot(q.probs.flatten(1).argmax(-1), 10).to(q.probs)


def _style(model, classes, photos, private=None, shared=None, given="label"):
    q, asked = model.posterior({"image": photos}), F.one_hot(classes, 10).to(photos)
    style = q["private/image"].mean if private is None else private(q["private/image"])
    source = model.posterior({"label": asked}) if given == "label" else q
    code = asked if given == "classes" else (shared or _vertex)(source["shared"])
    return model.decode({"shared": code, "private/image": style})["image"]


def _term(x, a, s, b, t, var=0.5, spread=1.0, kl_a=1.0, kl_b=1.0):
    log_px = -0.5 * math.log(2 * math.pi * var) - ((x - a - b) ** 2 + spread * (s + t)) / (2 * var)
    return log_px - kl_a * 0.5 * (s + a**2 - 1 - math.log(s)) - kl_b * 0.5 * (t + b**2 - 1 - math.log(t))


WRONG = {
    "hybrid-blocks": [
        (lambda s, p: _blocks(s, p, half=-0.5), "wrong sign"),
        (lambda s, p: _blocks(s, p, half=1.0), "twice too large"),
        (lambda s, p: _blocks(s, p, own=0.0), "variances of the coordinates"),
        (lambda s, p: (_tc(s), _tc(s[:p, :p]), 0.0) if p > 1 else _blocks(s, p), "each needs its own part"),
        (lambda s, p: (*_blocks(s, p)[:2], -_blocks(s, p)[2]), "mutual information has the wrong sign"),
        (lambda s, p: (*_blocks(s, p)[:2], _tc(s)) if p > 1 else _blocks(s, p), "what is left"),
        (lambda s, p: _tc(s), "three numbers"),
    ],
    "hybrid-weights": [
        (lambda b, n: _weights(b, n).exp(), "their logarithms"),
        (lambda b, n: torch.full((b, b), 1 / (n * b)).log(), "for certain"),
        (lambda b, n: torch.full((b, b), 1 / b).log(), "counts less"),
        (lambda b, n: _weights(b, n, (b - 1) / ((n - 1) * b), 1 / b), "add up to one"),
        (lambda b, n: _weights(b, n, off=1 / (b - 1)), "adds up to"),
        (lambda b, n: _weights(b, n, 1 - (n - 1) / n / 2, (n - 1) / n / 2 / (b - 1)), "own item"),
    ],
    "hybrid-offset": [
        (lambda d, n: (math.log(n), d * math.log(n), -d * math.log(n)), "too large by log N"),
        (lambda d, n: tuple(-v for v in _offsets(d, n)), "wrong sign"),
        (lambda d, n: (math.log(n), (d - 1) * math.log(n), d * math.log(n)), "DW has the wrong sign"),
        (lambda d, n: (0.0, 0.0, 0.0), "MI is not right"),
    ],
    "hybrid-count": [
        (lambda M: (M * M, M, M * (M - 1)), "joint source is missing"),
        (lambda M: (M + 1, M, M), "these are the sources"),
        (lambda M: (M * (M + 1), M * (M + 1), M * (M - 1)), "runs once"),
        (lambda M: (M * (M + 1), M, M * M), "explains itself"),
        (lambda M: (M * (M + 1), M, M), "the joint source is none"),
    ],
    "hybrid-style": [
        (lambda m, c, x: _style(m, c, x, given="classes"), "not numbered like the labels"),
        (lambda m, c, x: _style(m, c, x, shared=lambda q: q.probs.flatten(1)), "the class that leads"),
        (lambda m, c, x: _style(m, c, x, given="photo"), "comes from the photo"),
        (lambda m, c, x: _style(m, c, x, private=lambda q: torch.zeros_like(q.mean)), "the prior's mean"),
        (lambda m, c, x: _style(m, c, x, private=lambda q: q.mean.flip(0)), "other photos"),
        (lambda m, c, x: _style(m, c, x, private=lambda q: q.mean + q.std), "without a draw"),
    ],
    "hybrid-bound": [
        (lambda *v: _term(*v, spread=0.0), "variances of z and z1"),
        (lambda *v: _term(*v, kl_a=0.0), "private divergence"),
        (lambda *v: _term(*v, kl_b=0.0), "divergence of the source"),
        (lambda *v: _term(*v, kl_a=0.0, kl_b=0.0), "both divergences"),
        (lambda *v: _term(*v, var=1.0), ""),
        (lambda x, a, s, b, t: -0.5 * math.log(5 * math.pi) - x * x / 5 + 1, "above the evidence"),
    ],
}


@pytest.mark.parametrize(("name", "answer", "words"), [(name, a, w) for name, cases in WRONG.items() for a, w in cases])
def test_a_wrong_answer_gets_its_hint(name, answer, words):
    verdict = check(name, answer)
    assert not verdict.passed
    assert words in verdict.message


def test_other_ways_to_be_right_pass():
    assert check("hybrid-blocks", lambda s, p: [torch.tensor(v) for v in _blocks(s, p)]).passed
    assert check("hybrid-weights", lambda b, n: _weights(b, n).double()).passed
    assert check("hybrid-offset", _offsets).passed
    assert check("hybrid-count", lambda M: [M * (M + 1), M, M * (M - 1)]).passed
    assert check("hybrid-style", _style).passed
    assert check("hybrid-style", lambda m, c, x: m.translate({"label": F.one_hot(c, 10).to(x)}, "image", style={"image": x})).passed
    assert check("hybrid-bound", _term).passed


def test_no_choice_of_densities_exceeds_the_evidence():
    """What the last exercise asks to look for does not exist."""
    g = torch.Generator().manual_seed(0)
    for x, a, b in torch.randn(200, 3, generator=g).tolist():
        s, t = torch.rand(2, generator=g).mul(2).add(0.05).tolist()
        assert _term(x, a, s, b, t) < -0.5 * math.log(5 * math.pi) - x * x / 5
    assert _term(1.0, 0.4, 1 / 3, 0.4, 1 / 3) > _term(1.0, 0.39, 0.34, 0.4, 1 / 3)
