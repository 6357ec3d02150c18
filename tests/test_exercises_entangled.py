"""Wrong answers that a student may well give in the chapter on entangled data: (answer, words of the hint)."""

import math

import pytest
import torch

from mmvae_lite.exercises import check


def _permute(classes, g, skip=()):
    out = torch.arange(len(classes))
    for c in classes.unique():
        rows = (classes == c).nonzero()[:, 0]
        if int(c) not in skip:
            out[rows] = rows[torch.randperm(len(rows), generator=g)]
    return out


def _information(p, bits=False):
    c = p.sum((1, 2))
    inside = (p * (p * c[:, None, None] / (p.sum(2, keepdim=True) * p.sum(1, keepdim=True))).log()).sum().item()
    return inside, inside - (c * c.log()).sum().item()


def _paid(mean, logvar, power=2.0):
    def divergence(v):
        return 0.5 * (v.exp() + mean**2 - 1 - v).sum(-1)

    return divergence(power * logvar) - divergence(logvar)


def _turn(z, angle):
    c, s = math.cos(angle), math.sin(angle)
    return torch.stack([c * z[:, 0] - s * z[:, 1], s * z[:, 0] + c * z[:, 1]], 1)


def _share(observed, shuffled, extra=1, strict=False):
    hits = sum(s > observed if strict else s >= observed for s in shuffled)
    return (extra + hits) / (extra + len(shuffled))


WRONG = {
    "entangled-cut": [
        (lambda s: -2 * math.log(1 - s), "square of the radius"),
        (lambda s: math.sqrt(-2 * math.log(s)) if s != 0.5 else math.sqrt(2 * math.log(2)), "cuts that share off"),
        (lambda s: float(torch.special.ndtri(torch.tensor(0.5 + s / 2, dtype=torch.float64))), "right on a line"),
        (lambda s: -1.0, "positive"),
        (lambda s: 2.0, "solve for r"),
    ],
    "entangled-permute": [
        (lambda c, g: torch.randperm(len(c), generator=g), "another class"),
        (lambda c, g: torch.arange(len(c)), "the same for every generator"),
        (lambda c, g: _permute(c, g, skip=(0, 2)), "every class permuted"),
        (lambda c, g: (c[:, None] == c[None]).float().multinomial(1, generator=g)[:, 0], "no permutation"),
        (lambda c, g: _permute(c, None), "draw from it alone"),
    ],
    "entangled-p-value": [
        (lambda o, s: _share(o, s, extra=0), "claims too much"),
        (lambda o, s: _share(o, s, strict=True), "a tie"),
        (lambda o, s: 1 - _share(o, s), "one minus"),
        (lambda o, s: float(sum(v >= o for v in s)), ""),
    ],
    "entangled-information": [
        (lambda p: tuple(v / math.log(2) for v in _information(p)), "bits"),
        (lambda p: (_information(p)[1], _information(p)[1]), "contains the class"),
        (lambda p: (_information(p)[0], _information(p)[0]), "lacks what the class"),
        (lambda p: (0.0, 0.0), "is not right"),
        (lambda p: _information(p)[0], "two numbers"),
    ],
    "entangled-variance-bug": [
        (lambda m, v: -_paid(m, v), "sign is turned"),
        (lambda m, v: 0.5 * ((2 * v).exp() + m**2 - 1 - 2 * v).sum(-1), "what is booked"),
        (lambda m, v: _paid(m, v, 0.5), "not of exp(logvar / 2)"),
        (lambda m, v: _paid(m, v) / 2, "not right"),
    ],
    "entangled-rotation": [
        (lambda z, a: _turn(z, -a), "other way round"),
        (lambda z, a: 2 * _turn(z, a), "lengths change"),
        (lambda z, a: z.flip(1), "goes to"),
    ],
}


@pytest.mark.parametrize(("name", "answer", "words"), [(name, a, w) for name, cases in WRONG.items() for a, w in cases])
def test_a_wrong_answer_gets_its_hint(name, answer, words):
    torch.manual_seed(0)
    verdict = check(name, answer)
    assert not verdict.passed
    assert words in verdict.message


def test_other_ways_to_be_right_pass():
    assert check("entangled-cut", lambda s: torch.tensor(-2 * math.log(1 - s), dtype=torch.float64).sqrt()).passed
    assert check("entangled-permute", _permute).passed
    assert check("entangled-p-value", _share).passed
    assert check("entangled-information", _information).passed
    assert check("entangled-variance-bug", _paid).passed
    assert check("entangled-rotation", _turn).passed
