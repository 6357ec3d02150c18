"""Exercises of the chapter on joint encoders."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from mmvae_lite.data.linear_gaussian import LG3, LG3_OBSERVATION, LinearGaussian
from mmvae_lite.distributions import Normal, kl
from mmvae_lite.exercises import NotYet, _expect, _near, _number, _same, _tensor, exercise
from mmvae_lite.networks import GaussianEncoder

PAIR = LinearGaussian(LG3.weights[:2], LG3.variances[:2])
MELON = {m: LG3_OBSERVATION[m] for m in (0, 1)}


@exercise("joint-conditional")
def _(answer: Callable[[float, float], float]) -> None:
    given_smell = PAIR.posterior({1: MELON[1]})
    for mean, var in ((2 / 3, 1 / 6), (0.6, 0.2), (0.0, 1.0), (1.2, 0.05), (0.4, 0.5)):
        q, said = Normal(torch.tensor([[mean]]).double(), torch.tensor([[math.log(var)]]).double()), f"for N({mean:.3g}, {var:.3g})"
        fit = float(PAIR.elbo({0: MELON[0]}, q) + kl(q, Normal.standard(1, 1, like=q.mean)))
        wanted, found = fit - float(kl(q, given_smell)), _number(answer(mean, var), f"the bound {said}")
        if _near(found, wanted, 1e-5):
            continue
        ratio, squares = 0.2 / var, (mean - 0.6) ** 2
        turned = 0.5 * (ratio - 1 - math.log(ratio) + squares / var)
        _expect(not _near(found, wanted + 0.5 * math.log(2 * math.pi), 1e-5), f"{said} a constant is missing; the colour is a density and integrates to one")
        _expect(not _near(found, wanted + 0.5 * var, 1e-5), f"{said} the square is taken at the mean of q alone; its average under q has a part for the variance")
        _expect(not _near(found, fit, 1e-5), f"{said} the divergence is missing")
        _expect(not _near(found, float(PAIR.elbo({0: MELON[0]}, q)), 1e-5), f"{said} this is the ELBO of the colour alone; the smell takes the place of the prior")
        _expect(not _near(found, fit - turned, 1e-5), f"{said} the divergence is turned round; the average is over q")
        _expect(not _near(found, -wanted, 1e-5), f"{said} the sign is turned round")
        raise NotYet(f"{said} the bound {found:.4g} is not right; there is a term for the colour and a divergence from what the smell says")


@exercise("joint-zeros")
def _(answer: Callable[[Sequence[float], Sequence[float]], Sequence[float]]) -> None:
    for w, s2 in (((1.0, 2.0), (1.0, 1.0)), ((0.5, -3.0), (0.2, 2.0)), ((-2.0, 0.3), (0.5, 1.0))):
        found, given = answer(list(w), list(s2)), f"for w = {w}, s^2 = {s2}"
        _expect(isinstance(found, (tuple, list, Tensor)) and len(found) == 2, "return the pair (slope, variance)")
        slope, var = (_number(v, f"{given}, the {what}") for v, what in zip(found, ("slope", "variance")))
        one, two = w[0] ** 2 / s2[0], w[1] ** 2 / s2[1]
        _expect(not _near(var, 1 / (1 + one), 1e-6), f"{given} this is the variance of p(z | x_1); what does the target x_2 add, although nobody saw it?")
        _expect(not _near(var, 1 + one + two, 1e-6), f"{given} this is a precision; the variance is wanted")
        _expect(not _near(var, 1 / (1 + two), 1e-6) and not _near(var, 1 / (one + two), 1e-6), f"{given} the precision lacks one of three parts: the prior's and one of each sense")
        _expect(_near(var, 1 / (1 + one + two), 1e-6), f"{given} the variance {var:.4g} is not right; read off the parabola in the logarithm of q*")
        wanted = w[0] / (s2[0] * (1 + one))
        _expect(not _near(slope, w[0] / (s2[0] * (1 + one + two)), 1e-6), f"{given} this slope takes the missing x_2 for zero; its mean given x_1 is not zero")
        _expect(_near(slope, wanted, 1e-6), f"{given} the variance is right, the slope is not; where is the mean of x_2 given x_1, and what does it vote for?")


@exercise("joint-price")
def _(answer: Callable[[Sequence[float], Sequence[float]], float]) -> None:
    worlds = (((1.0, 2.0), (1.0, 1.0)), ((1.0, 2.0, -1.0), (1.0, 1.0, 0.5)), ((0.5, 3.0, 0.0, 1.0), (2.0, 1.0, 1.0, 0.1)), ((1.5,), (1.0,)))
    for w, s2 in worlds:
        told, given = [a * a / b for a, b in zip(w, s2)], f"for w = {w}, s^2 = {s2}"
        everything = 1 + sum(told)
        each = [0.5 * math.log(everything / (1 + t)) for t in told]
        found, wanted = _number(answer(list(w), list(s2)), f"{given}, the price"), sum(each)
        if _near(found, wanted, 1e-6):
            continue
        _expect(not _near(found, -wanted, 1e-6), f"{given} the sign is turned round; how far *below* is asked for")
        _expect(not _near(found, 2 * wanted, 1e-6), f"{given} this is twice too much; an entropy has half a logarithm of the variance")
        _expect(not _near(found, sum(0.5 * math.log(1 + t) for t in told), 1e-6), f"{given} this is what each sense tells; asked is what the others tell on top of it")
        _expect(not _near(found, 0.5 * math.log(everything), 1e-6), f"{given} this is what all senses tell together; the prior charges that already")
        _expect(len(each) == 1 or not _near(found, wanted / len(each), 1e-6), f"{given} this is an average over the senses; the objective adds their divergences")
        _expect(len(told) < 3 or not _near(found, sum(0.5 * math.log((1 + a + b) / (1 + a)) for a, b in zip(told, told[1:] + told[:1])), 1e-6),
                f"{given} each sense is compared with one other only; the joint encoder has read all of them")
        raise NotYet(f"{given} the price {found:.4g} is not right; one mutual information for each sense, I(z; the others | this one)")


@exercise("joint-stop")
def _(answer: Callable[[nn.Module, nn.Module, Tensor, Tensor], Tensor]) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder = GaussianEncoder(nn.Sequential(nn.Linear(3, 8), nn.Tanh()), 8, 2).double()
        decoder = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 3)).double()
        x, noise = torch.randn(5, 3, dtype=torch.float64), torch.randn(5, 2, dtype=torch.float64)
    wanted, theirs = _bracket(encoder, decoder, x, noise)
    raw = answer(encoder, decoder, x, noise)
    value, wanted_value, divergence = _tensor(raw, (5,), "the bracket of 5 items"), wanted.detach(), theirs.detach()
    if not _same(value, wanted_value):
        _expect(not _same(value, -wanted_value), "this is the loss; the bracket has the other sign")
        _expect(not _same(value, wanted_value + divergence), "the divergence from the prior is missing")
        raise NotYet("the value is not right; one draw z = mean + std * noise, half the squared error summed over the data, and the divergence")
    _expect(raw.requires_grad, "no gradient at all passes; the encoder has to learn")
    given = list(decoder.parameters())
    _expect(all(p.requires_grad for p in given), "the decoder was switched off for good; it still has to learn from the joint bracket")
    found = torch.autograd.grad(raw.sum(), [*encoder.parameters(), *given], allow_unused=True, retain_graph=True)
    mine, others = found[: len(list(encoder.parameters()))], found[-len(given) :]
    _expect(all(g is None or bool((g == 0).all()) for g in others), "a gradient still reaches the decoder")
    right = torch.autograd.grad(wanted.sum(), list(encoder.parameters()), retain_graph=True)
    from_divergence = torch.autograd.grad(-theirs.sum(), list(encoder.parameters()))
    _expect(not _all_same(mine, from_divergence), "the encoder learns from the divergence alone; the path from the decoder's output back to z is cut")
    _expect(_all_same(mine, right), "the value is right and the decoder is left alone, but the encoder's gradient is not that of the bracket")


def _bracket(encoder: nn.Module, decoder: nn.Module, x: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    q = encoder(x)
    divergence = kl(q, Normal.standard(*q.mean.shape, like=q.mean))
    return -0.5 * (x - decoder(q.mean + q.std * noise)).square().sum(-1) - divergence, divergence


def _all_same(found: Sequence[Tensor | None], wanted: Sequence[Tensor]) -> bool:
    return all(_same(torch.zeros_like(w) if f is None else f, w) for f, w in zip(found, wanted))


@exercise("joint-count")
def _(answer: Callable[[int], Sequence[float]]) -> None:
    for M in (2, 3, 5, 8):
        found, given = answer(M), f"for M = {M}"
        _expect(isinstance(found, (tuple, list, Tensor)) and len(found) == 4, "return four numbers: single, all but one, every set, without an answer")
        numbers = [_number(v, f"{given}, {what}") for v, what in zip(found, ("single", "all but one", "every set", "without an answer"))]
        _expect(numbers[0] != M, f"{given} the joint encoder is one of them, too")
        _expect(numbers[0] == M + 1, f"{given} the number with single encoders is not right")
        _expect(numbers[1] == M + 1, f"{given}: how many ways are there to leave one sense out? And who reads everything?")
        _expect(numbers[2] != 2**M, f"{given} the empty set needs no encoder; its answer is the prior")
        _expect(numbers[2] == 2**M - 1, f"{given} the number for every set is not right; each sense is in or out")
        _expect(numbers[3] == 2**M - 2 - M, f"{given}: which sets are neither single nor everything?")
