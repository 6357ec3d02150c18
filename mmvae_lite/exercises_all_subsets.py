"""Exercises of the chapter on all subsets."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

from mmvae_lite.data.linear_gaussian import LG3, LG3_OBSERVATION, LinearGaussian
from mmvae_lite.distributions import Normal, kl
from mmvae_lite.exercises import NotYet, _expect, _near, _number, exercise
from mmvae_lite.models.m2vae import omega

PAIR = LinearGaussian(LG3.weights[:2], LG3.variances[:2])
MELON = {m: LG3_OBSERVATION[m] for m in (0, 1)}


@exercise("subsets-weights")
def _(answer: Callable[[int], Sequence[Fraction]]) -> None:
    for M in (2, 3, 4, 6):
        found, given = answer(M), f"for M = {M}"
        _expect(isinstance(found, (tuple, list, Tensor)) and len(found) == M, f"{given} return a list of {M} weights, one for each size")
        weights = [_number(float(v), f"{given}, size {s}") for s, v in enumerate(found, 1)]
        wanted = [float(omega(s, M)) for s in range(1, M + 1)]
        if all(_near(a, b, 1e-9) for a, b in zip(weights, wanted)):
            continue
        shared = [w * math.comb(M, s) for s, w in enumerate(wanted, 1)]
        reach = [w * s for s, w in enumerate(wanted, 1)]
        _expect(not _all_near(weights, wanted[::-1]) or wanted == wanted[::-1], f"{given} the order is turned round; the single senses come first")
        _expect(not _all_near(weights, shared), f"{given} these are the weights of all sets of a size together; the weight of one set is wanted")
        _expect(not _all_near(weights, reach), f"{given} this is how often L(S) enters the total; J(S) stands inside it behind one more factor")
        _expect(not _near(weights[-1], 1.0, 1e-9) or M == 1, f"{given} even the full set has a factor, 1 / |S|")
        raise NotYet(f"{given} the weights are {', '.join(f'{w:.4g}' for w in weights)}; count the sets with one sense more, each of which hands down a share")


def _all_near(a: Sequence[float], b: Sequence[float]) -> bool:
    return all(_near(x, y, 1e-9) for x, y in zip(a, b))


@exercise("subsets-masses")
def _(answer: Callable[[int], Sequence[float]]) -> None:
    for M in (1, 2, 3, 5):
        found, given = answer(M), f"for M = {M}"
        _expect(isinstance(found, (tuple, list, Tensor)) and len(found) == 4, "return four numbers: decodings, mutual divergences, prior weight, mutual weight")
        numbers = [_number(float(v), what) for v, what in zip(found, ("decodings", "mutual divergences", "prior weight", "mutual weight"))]
        decodings = M * 2 ** (M - 1)
        _expect(M == 1 or numbers[0] != 2**M - 1, f"{given} this counts the sets; each decodes all of its members")
        _expect(numbers[0] == decodings, f"{given} the number of decodings is not right; fix a sense, the others are in or out")
        _expect(numbers[1] != decodings, f"{given} a single sense has no mutual divergence, since nothing is left when it is taken out")
        _expect(numbers[1] == decodings - M, f"{given} the number of mutual divergences is not right; there are |S| of them for each set of two or more")
        harmonic = sum(1 / s for s in range(1, M + 1))
        _expect(M == 1 or not _near(numbers[2], 1.0, 1e-9), f"{given} this is the prior's weight without the divergences of two senses and more")
        _expect(_near(numbers[2], harmonic, 1e-6), f"{given} the weight of the prior's divergences is not right; all sets of size s together have 1 / s")
        _expect(not _near(numbers[3], float(M), 1e-9), f"{given} the single sets have no mutual divergence; their share must go")
        _expect(_near(numbers[3], M - 1.0, 1e-6), f"{given} the weight of the mutual divergences is not right; each set of two or more brings |S| times its weight")


@exercise("subsets-shapley")
def _(answer: Callable[[Mapping[frozenset, float], int], Sequence[float]]) -> None:
    other = LinearGaussian(weights=(0.5, -3.0, 1.0, 0.7), variances=(0.2, 2.0, 1.0, 0.4))
    readings = {m: torch.tensor([value], dtype=torch.float64) for m, value in enumerate((1.0, -0.3, 2.0, 0.1))}
    for world, x in ((LG3, LG3_OBSERVATION), (other, readings)):
        M = len(x)
        v = _evidences(world, x)
        wanted = [sum(float(omega(len(S), M)) * (v[S] - v[S - {m}]) for S in v if m in S) for m in range(M)]
        found, given = answer(dict(v), M), f"for {M} senses"
        _expect(isinstance(found, (tuple, list, Tensor)) and len(found) == M, f"{given} return a list of {M} shares")
        shares = [_number(float(s), f"{given}, the share of sense {m}") for m, s in enumerate(found)]
        if _all_close(shares, wanted):
            continue
        full = frozenset(range(M))
        _expect(not _all_close(shares, [v[frozenset({m})] for m in range(M)]), f"{given} this is what each sense brings when it comes first; average over all places")
        _expect(not _all_close(shares, [v[full] - v[full - {m}] for m in range(M)]), f"{given} this is what each sense brings when it comes last; average over all places")
        _expect(not _all_close(shares, [v[full] / M] * M), f"{given} equal shares are not fair ones: the senses differ in what they bring")
        uniform = [sum(v[S] - v[S - {m}] for S in v if m in S) / 2 ** (M - 1) for m in range(M)]
        _expect(not _all_close(shares, uniform), f"{given} all sets count alike here; by orders of arrival small and large sets count more than middling ones")
        _expect(_near(sum(shares), v[full], 1e-6), f"{given} the shares add up to {sum(shares):.4g}, and they should add up to the log-evidence of everything")
        raise NotYet(f"{given} the shares add up as they should, but they are not the means over all orders of arrival")


def _evidences(world: LinearGaussian, x: Mapping[int, Tensor]) -> dict[frozenset, float]:
    sets = [s for size in range(len(x) + 1) for s in itertools.combinations(x, size)]
    return {frozenset(s): float(world.log_prob({m: x[m] for m in s})) if s else 0.0 for s in sets}


def _all_close(a: Sequence[float], b: Sequence[float]) -> bool:
    return all(_near(x, y, 1e-6) for x, y in zip(a, b))


@exercise("subsets-gap")
def _(answer: Callable[[Sequence[float], Sequence[float]], float]) -> None:
    for w, s2 in (((1.0, 2.0, -1.0), (1.0, 1.0, 0.5)), ((1.0, 2.0), (1.0, 1.0)), ((0.5, 3.0, 0.0, 1.0), (2.0, 1.0, 1.0, 0.1))):
        world, M, given = LinearGaussian(w, s2), len(w), f"for w = {w}, s^2 = {s2}"
        sets = [s for size in range(1, M + 1) for s in itertools.combinations(range(M), size)]
        each = {s: float(omega(len(s), M)) * world.information(s) for s in sets}
        wanted = sum(value for s, value in each.items() if len(s) > 1)
        found = _number(answer(list(w), list(s2)), f"{given}, the price")
        if _near(found, wanted, 1e-6):
            continue
        _expect(not _near(found, -wanted, 1e-6), f"{given} the sign is turned round; how far *below* is asked for")
        _expect(not _near(found, sum(each.values()), 1e-6), f"{given} the single senses are charged too; their divergence belongs to their ELBO and loses nothing")
        _expect(not _near(found, 2 * wanted, 1e-6), f"{given} this is twice too much; an information has half a logarithm")
        _expect(not _near(found, sum(world.information(s) for s in sets if len(s) > 1), 1e-6), f"{given} the weights of the lattice are missing")
        _expect(not _near(found, world.information(range(M)) / M, 1e-6) or M == 2, f"{given} only the full set is charged; the sets in between are charged too")
        raise NotYet(f"{given} the price {found:.4g} is not right; weight times information, for every set of two or more")


@exercise("subsets-excess")
def _(answer: Callable[[], Any]) -> None:
    found = answer()
    _expect(isinstance(found, Sequence) and len(found) == 3, "return three pairs (mean, variance), for q_1, q_2 and q_12")
    _expect(all(isinstance(pair, Sequence) and len(pair) == 2 for pair in found), "every belief is a pair (mean, variance)")
    numbers = [[_number(v, f"{what} of {name}") for v, what in zip(pair, ("the mean", "the variance"))] for pair, name in zip(found, ("q_1", "q_2", "q_12"))]
    _expect(all(var > 0 for _, var in numbers), "a variance is positive")
    q = [Normal(torch.tensor([[mean]]).double(), torch.tensor([[math.log(var)]]).double()) for mean, var in numbers]
    prior, truth = Normal.standard(1, 1, like=q[0].mean), float(PAIR.log_prob(MELON))
    mutual = kl(q[2], q[0]) + kl(q[2], q[1])
    top = PAIR.elbo(MELON, q[2]) + kl(q[2], prior) - mutual
    excess = float(0.5 * (sum(PAIR.elbo({m: MELON[m]}, q[m]) for m in (0, 1)) + top)) - truth
    exact = all(_near(a, b, 1e-3) for pair, right in zip(numbers, ((0.5, 0.5), (0.6, 0.2), (2 / 3, 1 / 6))) for a, b in zip(pair, right))
    _expect(not exact, "these are the exact beliefs; with them the objective is log p(x), and not more")
    _expect(excess > 0, f"the objective is {-excess:.3g} nats below log p(x); move less far from the exact beliefs, and the single ones towards the joint one")
    _expect(excess >= 0.05, f"the objective exceeds log p(x) by {excess:.3g} nats; a twentieth is wanted, go on")
