"""Checks of the exercises in the first chapter, on a world that can be solved."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from mmvae_lite.data.linear_gaussian import LG3, LG3_OBSERVATION, LinearGaussian, PartitionedGaussian
from mmvae_lite.distributions import Normal
from mmvae_lite.exercises import _expect, _near, _number, _same, _tensor, NotYet, exercise

CRITERIA = {"a": "joint", "b": "cross", "c": "factorisation", "d": "synergy", "e": "cross", "f": "factorisation"}
QUESTIONS = {
    "joint": "nothing is given there, and two generated things are compared",
    "cross": "one modality is given there, and another one is judged",
    "factorisation": "it is about what a part of the latents holds, and what it does not hold",
    "synergy": "it asks whether one modality is modelled better because of the other",
}


@exercise("world-criteria")
def _(answer: Callable[[], Mapping[str, str]]) -> None:
    found = answer()
    _expect(isinstance(found, Mapping) and set(found) == set(CRITERIA), "return a dict with the keys a, b, c, d, e and f")
    for letter, said in found.items():
        _expect(said in QUESTIONS, f"{letter}: found {said!r}, wanted one of {', '.join(QUESTIONS)}")
    wrong = [letter for letter in CRITERIA if found[letter] != CRITERIA[letter]]
    _expect(not wrong, f"{wrong and wrong[0]}: look again; {wrong and QUESTIONS[CRITERIA[wrong[0]]]}")


@exercise("world-posterior")
def _(answer: Callable[[Sequence[float], Sequence[float], Sequence[float | None]], Sequence[float]]) -> None:
    readings = [float(value) for value in LG3_OBSERVATION.values()]
    other = LinearGaussian(weights=(0.5, -3.0), variances=(0.2, 2.0))
    cases = [
        (LG3, readings, "all three senses of LG3"),
        (LG3, [readings[0], None, readings[2]], "LG3 without smell"),
        (other, [None, 1.0], "one sense of another world"),
        (other, [None, None], "nothing observed"),
    ]
    for world, x, given in cases:
        seen = {m: torch.tensor([value], dtype=torch.float64) for m, value in enumerate(x) if value is not None}
        exact = world.posterior(seen)
        found = answer(list(world.weights), list(world.variances), x)
        _expect(isinstance(found, (tuple, list, Tensor)) and len(found) == 2, f"given {given}: return the pair (mean, variance)")
        mean, var = (_number(v, f"given {given}, the {what}") for v, what in zip(found, ("mean", "variance")))
        _check_posterior(mean, var, exact, world, x, given)


def _check_posterior(mean: float, var: float, exact: Normal, world: LinearGaussian, x: Sequence[float | None], given: str) -> None:
    wanted, T = float(exact.var), float(exact.precision)
    if _near(var, wanted, 1e-6):
        _expect(not _near(mean, float(exact.mean) * T, 1e-6) or float(exact.mean) == 0, f"given {given} the mean is not divided by the precision")
        _expect(_near(mean, float(exact.mean), 1e-6), f"given {given} the variance is right, the mean is not; which sign has a falling sense?")
        return
    everything = 1 + sum(w**2 / s2 for w, s2 in zip(world.weights, world.variances))
    _expect(None not in x or not _near(var, 1 / everything, 1e-6), f"given {given} the belief is as sharp as with all senses; a missing one brings no precision")
    _expect(not _near(var, T, 1e-6), f"given {given} this is the precision; the variance is wanted")
    _expect(T == 1 or not _near(var, 1 / (T - 1), 1e-6), f"given {given} the prior is missing; it brings a precision of its own")
    _expect(not _near(var, math.sqrt(wanted), 1e-6), f"given {given} this is the standard deviation; the variance is wanted")
    raise NotYet(f"given {given} the variance {var:.4g} is not right; add the precisions: the prior's, and signal over noise for each sense that is there")


@exercise("world-gap")
def _(answer: Callable[[float, float], float]) -> None:
    exact = LG3.posterior(LG3_OBSERVATION)
    for mean, var in ((0.625, 0.125), (0.4, 0.3), (0.625, 0.5), (0.0, 0.125), (1.0, 0.01)):
        q = Normal(torch.tensor([[mean]], dtype=torch.float64), torch.tensor([[math.log(var)]], dtype=torch.float64))
        wanted = float(LG3.log_prob(LG3_OBSERVATION) - LG3.elbo(LG3_OBSERVATION, q))
        found, given = _number(answer(mean, var), f"the gap of N({mean}, {var})"), f"for N({mean}, {var})"
        if _near(found, wanted, 1e-5):
            continue
        ratio, squares = float(exact.var) / var, (mean - float(exact.mean)) ** 2
        turned = 0.5 * (ratio - 1 - math.log(ratio) + squares / var)
        _expect(not _near(found, -wanted, 1e-5), f"{given} the sign is turned round; a gap is never negative")
        _expect(not _near(found, 2 * wanted, 1e-5), f"{given} this is twice the gap; a Gaussian's logarithm has a half in front")
        _expect(not _near(found, turned, 1e-5), f"{given} this is the divergence of the posterior from q; the average is over q")
        _expect(not _near(found, float(LG3.elbo(LG3_OBSERVATION, q)), 1e-5), f"{given} this is the ELBO; the gap is what is missing to the evidence")
        _expect(wanted > 1e-9, f"{given} the gap is {found:.4g}; is this not the posterior itself?")
        raise NotYet(f"{given} the gap {found:.4g} is not right; there is a part for the variance and a part for the mean")


@exercise("world-signal")
def _(answer: Callable[[Tensor], Tensor]) -> None:
    for weights, noise in (((1.0, 2.0, -1.0), (1.0, 1.0, 0.5)), ((0.3, -1.5, 2.5), (2.0, 0.1, 1.0)), ((-1.0, -1.0, -1.0), (0.5, 0.5, 0.5))):
        w = torch.tensor(weights, dtype=torch.float64)
        covariance = torch.outer(w, w) + torch.diag(torch.tensor(noise, dtype=torch.float64))
        found, given = _tensor(answer(covariance), (3,), "the signal variances"), f"for weights {weights} and noise {noise}"
        if _same(found, w**2):
            continue
        _expect(not _same(found, covariance.diagonal()), f"{given} this is the whole variance of each sense, with its noise")
        _expect(not _same(found, torch.tensor(noise)), f"{given} this is the noise; the signal is asked for")
        _expect(not _same(found, w.abs()), f"{given} these are the weights; their squares are asked for")
        _expect(not _same(found.sort().values, (w**2).sort().values), f"{given} the numbers are right, in the wrong order; which entries hold sense 1?")
        raise NotYet(f"{given} the signal variances are not right; which two entries share a weight, and which one must cancel?")


@exercise("world-units")
def _(answer: Callable[[float], Sequence[float]]) -> None:
    for a in (1000.0, 0.5, 1.0):
        found = answer(a)
        _expect(isinstance(found, (tuple, list, Tensor)) and len(found) == 3, "return three changes: of log p(x), of I(z; x), of the gap")
        evidence, information, gap = (_number(v, f"for a = {a:g}, the change of the {what}") for v, what in zip(found, ("log evidence", "information", "gap")))
        given, wanted = f"for a = {a:g}", -math.log(a)
        _expect(_near(information, 0.0, 1e-9), f"{given} the information changes; does the melon know in which units you write?")
        _expect(_near(gap, 0.0, 1e-9), f"{given} the gap changes; what does the posterior of z depend on?")
        if _near(evidence, wanted, 1e-6):
            continue
        _expect(not _near(evidence, -wanted, 1e-6), f"{given} the sign is turned round; larger numbers spread a density thinner")
        _expect(not _near(evidence, 0.0, 1e-9), f"{given} the log evidence does change; a density is per unit")
        _expect(not _near(evidence, 2 * wanted, 1e-6), f"{given} this is twice too much; only one of the senses is rescaled, and it has one dimension")
        raise NotYet(f"{given} the change of the log evidence is {evidence:.4g}, which is not right")


@exercise("world-lamp")
def _(answer: Callable[[Sequence[float], Sequence[float], Sequence[float]], float]) -> None:
    worlds = (((1.0, 2.0), (1.0, -1.0), (0.5, 0.25)), ((0.7, -1.0), (2.0, 0.5), (1.0, 0.1)), ((0.0, 1.0), (1.0, 1.0), (1.0, 1.0)))
    for shared, private, variances in worlds:
        world = PartitionedGaussian(shared, private, variances)
        alone, both = world.information(1, (0,)), world.information(1, (0, 1))
        given = f"for a = {shared}, b = {private}, s^2 = {variances}"
        found = _number(answer(list(shared), list(private), list(variances)), f"{given}, what the second sense adds")
        if _near(found, both - alone, 1e-6):
            continue
        _expect(not _near(found, both, 1e-6), f"{given} this is what both tell together; the second was to come on top of the first")
        _expect(not _near(found, alone, 1e-6), f"{given} this is what the first sense tells alone")
        _expect(not _near(found, alone - both, 1e-6), f"{given} the sign is turned round; to know more cannot hurt on average")
        _expect(not _near(found, 0.0, 1e-9), f"{given} the second sense tells nothing by itself, but the first is known already")
        _expect(not _near(found, 2 * (both - alone), 1e-6), f"{given} this is twice too much; an entropy has half a logarithm of the variance")
        conditional = world.precision((0, 1))[1, 1].log() - world.precision((0,))[1, 1].log()
        _expect(
            not _near(found, 0.5 * float(conditional), 1e-6),
            f"{given} the diagonal of the precision says how sure one is when the other latents are known; invert first",
        )
        raise NotYet(f"{given} {found:.4g} is not right; invert the precision matrix with one sense and with two, and compare the variance of z^1")
