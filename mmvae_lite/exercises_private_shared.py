"""Checks of the exercises of the chapter on PVAE; see `mmvae_lite.exercises`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from mmvae_lite.data import PartitionedGaussian
from mmvae_lite.evaluation.clustering import purity
from mmvae_lite.exercises import NotYet, _expect, _near, _number, _same, _tensor, exercise


def _several(value: Any, names: Sequence[str], given: str) -> list[float]:
    _expect(
        isinstance(value, (tuple, list, Tensor)) and len(value) == len(names),
        f"{given}: return {len(names)} values: {', '.join(names)}",
    )
    return [_number(v, f"{given}, {name}") for v, name in zip(value, names)]


@exercise("pvae-one-sense")
def _(answer: Callable[[float, float, float, float], Sequence[float]]) -> None:
    names = ("the variance of the content", "the variance of the style", "the covariance")
    for x, a, b, s2 in ((1.2, 1.0, 1.0, 0.5), (-0.7, 2.0, -1.0, 0.25), (3.0, 0.5, 0.0, 2.0), (0.0, -1.5, 0.3, 1.0)):
        given = f"for a = {a:g}, b = {b:g}, s² = {s2:g}"
        found = _several(answer(x, a, b, s2), names, given)
        world = PartitionedGaussian((a,), (b,), (s2,))
        _, covariance = world.posterior({0: torch.tensor([x])})
        wanted = [float(covariance[0, 0]), float(covariance[1, 1]), float(covariance[0, 1])]
        if all(_near(f, w, 1e-6) for f, w in zip(found, wanted)):
            continue
        precision = world.precision([0])
        factorised = [1 / float(precision[0, 0]), 1 / float(precision[1, 1])]
        if b:
            _expect(
                not all(_near(f, w, 1e-6) for f, w in zip(found, factorised)),
                f"{given}: these are the variances of the best factorised posterior; the exact ones are entries of the inverse",
            )
        entries = [float(precision[0, 0]), float(precision[1, 1]), float(precision[0, 1])]
        _expect(not all(_near(f, w, 1e-6) for f, w in zip(found, entries)), f"{given}: this is the precision matrix; invert it")
        turned = [wanted[1], wanted[0]]
        _expect(
            _near(a, b) or not all(_near(f, w, 1e-6) for f, w in zip(found, turned)),
            f"{given}: content and style are swapped; which of them has the weight a?",
        )
        if all(_near(f, w, 1e-6) for f, w in zip(found[:2], wanted[:2])):
            hint = "has the wrong sign; if the content is more than we think, what is the style?" if _near(found[2], -wanted[2], 1e-6) else "is not right"
            raise NotYet(f"{given}: the variances are right, the covariance {hint}")
        raise NotYet(f"{given}: not right; write the precision matrix, two by two, and invert it")


@exercise("pvae-gap")
def _(answer: Callable[[Tensor], float]) -> None:
    g = torch.Generator().manual_seed(0)
    for size in (2, 3, 5):
        root = torch.randn(size, size + 1, generator=g, dtype=torch.float64)
        L = torch.eye(size, dtype=torch.float64) + root @ root.T
        given = f"for a matrix of {size} rows"
        found = _number(answer(L.clone()), f"{given}, the gap")
        rows, whole = float(L.diagonal().log().sum()), float(torch.logdet(L))
        wanted = 0.5 * (rows - whole)
        if _near(found, wanted, 1e-7):
            continue
        _expect(found > 0, f"{given}: {found:.4g} is not above zero, and a gap is; which of the two terms is larger?")
        _expect(not _near(found, rows - whole, 1e-7), f"{given}: twice too much; a Gaussian's log-density has a half in front")
        _expect(not _near(found, 0.5 * rows, 1e-7) and not _near(found, rows, 1e-7), f"{given}: the determinant is missing")
        _expect(not _near(found, 0.5 * (math.exp(rows) - math.exp(whole)), 1e-7), f"{given}: the logarithms are missing")
        C = torch.linalg.inv(L)
        marginal = 0.5 * float(C.diagonal().log().sum() - torch.logdet(C))
        _expect(
            not _near(found, marginal, 1e-7),
            f"{given}: this is the gap of the true marginals, from the covariance; the best factorised q is narrower and loses less",
        )
        raise NotYet(f"{given}: {found:.4g} is not right; put v = 1 / diagonal into the divergence")


@exercise("pvae-pupil")
def _(answer: Callable[[Tensor, Tensor], Sequence[Tensor]]) -> None:
    g = torch.Generator().manual_seed(0)
    for items, latent in ((10, 2), (4, 3)):
        mean = torch.randn(items, latent, generator=g, dtype=torch.float64)
        var = 0.1 + torch.rand(items, latent, generator=g, dtype=torch.float64)
        given = f"with {items} items"
        pair = answer(mean.clone(), var.clone())
        _expect(isinstance(pair, (tuple, list)) and len(pair) == 2, f"{given}: return a pair, mean and variance")
        found = [_tensor(value, (latent,), f"{given}, the {what}") for value, what in zip(pair, ("mean", "variance"))]
        sharp = (mean / var).sum(0) / (1 / var).sum(0)
        _expect(not _same(found[0], sharp), f"{given}: this mean weighs sharp answers more, as a product of experts does; the divergence has q first")
        _expect(_same(found[0], mean.mean(0)), f"{given}: the mean is not right; derive it with one latent and two items")
        within, between = var.mean(0), mean.var(0, correction=0)
        if _same(found[1], within + between):
            continue
        _expect(not _same(found[1], within), f"{given}: the teacher's answers differ from item to item, and the pupil must cover all of them")
        _expect(not _same(found[1], between), f"{given}: the teacher is unsure of each single answer, and that is missing")
        _expect(
            not _same(found[1], within + mean.var(0)),
            f"{given}: nearly; this divides by one less than the number of items, but nothing is estimated here",
        )
        _expect(not _same(found[1], (within + between).sqrt()), f"{given}: this is the standard deviation; the variance is wanted")
        _expect(not _same(found[1], 1 / (1 / var).mean(0)), f"{given}: precisions were averaged; the divergence with q first averages variances")
        raise NotYet(f"{given}: the mean is right, the variance is not")


@exercise("pvae-range")
def _(answer: Callable[[int, float], Sequence[float]]) -> None:
    names = ("the floor", "where all coincide", "the highest")
    for M, t in ((2, 0.5), (2, 0.2), (3, 0.5), (5, 0.7)):
        given = f"for M = {M} and t = {t:g}"
        low, alike, high = _several(answer(M, t), names, given)
        _expect(max(low, alike, high) <= 1e-9, f"{given}: a positive value; the contrast is minus a sum of losses")
        _expect(abs(high) < 1e-9, f"{given}: the highest is not right; what is a hinge worth that is shut?")
        pairs = M * (M - 1)
        _expect(
            not _near(alike, -pairs * t, 1e-9) and not _near(low, -pairs * (t + 1), 1e-9),
            f"{given}: the pairs are counted and the factor in front of the sum is forgotten",
        )
        if M > 2:
            _expect(not _near(alike, -t, 1e-9), f"{given}: this is the mean over all pairs; the paper divides by M, not by the number of pairs")
        _expect(_near(alike, -(M - 1) * t, 1e-9), f"{given}: where all means coincide both similarities are one; what is left of the hinge?")
        _expect(not _near(low, alike, 1e-9), f"{given}: it can be worse than all means in one spot; put the negative nearer than the partner")
        _expect(_near(low, -(M - 1) * (t + 1), 1e-9), f"{given}: the floor is not right; which similarities make one hinge largest?")


@exercise("pvae-asleep")
def _(answer: Callable[[float, float], float]) -> None:
    for partner, t in ((0.0, 0.5), (0.5, 0.5), (1.0, 0.5), (1.0, 0.2), (1.3, 0.5), (3.0, 0.1)):
        given = f"with the partner at {partner:g} and t = {t:g}"
        similar = math.exp(-0.5 * partner**2)
        try:
            found = float(answer(partner, t))
        except ValueError:
            raise NotYet(f"{given}: a logarithm or a root of a negative number; can this pair be satisfied at all?") from None
        if similar <= t:
            _expect(found == math.inf, f"{given}: the partner's similarity is {similar:.3g}, which is not above t; no negative can be less similar than nothing")
            continue
        found = _number(found, given)
        wanted = math.sqrt(-2 * math.log(similar - t))
        if _near(found, wanted, 1e-6):
            continue
        _expect(not _near(found, similar - t, 1e-6), f"{given}: this is the similarity to the negative; turn it into a distance")
        _expect(not _near(found, wanted**2, 1e-6), f"{given}: this is the squared distance")
        _expect(not _near(found, math.sqrt(-math.log(similar - t)), 1e-6), f"{given}: the half in the exponent of the kernel is missing")
        _expect(not _near(found, math.sqrt(-2 * math.log(t)), 1e-6) or partner == 0, f"{given}: this would be right for a partner in the same spot")
        raise NotYet(f"{given}: {found:.4g} is not right; at that distance t - k(partner) + k(negative) is zero")


@exercise("pvae-false")
def _(answer: Callable[[list[int], float], Sequence[float]]) -> None:
    for counts, t in (([5, 1], 0.5), ([160] * 10, 0.5), ([2, 2, 2], 0.3), ([10, 0, 5], 1.0)):
        given = f"for the counts {counts if len(counts) < 5 else f'{counts[0]} in each of {len(counts)} classes'}"
        share, best = _several(answer(list(counts), t), ("the share", "the best contrast"), given)
        N = sum(counts)
        wanted = sum(n * (n - 1) for n in counts) / (N * (N - 1))
        with_itself = sum(n * n for n in counts) / N**2
        _expect(not _near(share, with_itself, 1e-9), f"{given}: this counts an item as its own negative; it is always another item")
        _expect(not _near(share, 1 / len(counts), 1e-9) or _near(wanted, 1 / len(counts), 1e-9), f"{given}: classes need not be equally frequent, and nobody meets itself")
        _expect(_near(share, wanted, 1e-9), f"{given}: the share {share:.4g} is not right; count ordered pairs of different items")
        _expect(best <= 0, f"{given}: the contrast is never above zero")
        _expect(_near(best, -t * wanted, 1e-9), f"{given}: the best contrast is not right; what does one false negative cost, and with two modalities how many pairs over M?")


@exercise("pvae-purity")
def _(answer: Callable[[Tensor, Tensor], float]) -> None:
    g = torch.Generator().manual_seed(0)
    for clusters, digits, items in ((10, 10, 400), (3, 10, 50), (6, 2, 7)):
        cluster, digit = (torch.randint(k, (items,), generator=g) for k in (clusters, digits))
        cluster[cluster == 1] = 0  # clusters of different sizes, and a number that nobody has
        given = f"for {items} items"
        found = _number(answer(cluster.clone(), digit.clone()), f"{given}, the purity")
        wanted = purity(cluster, digit)
        if _near(found, wanted, 1e-6):
            continue
        _expect(not _near(found, wanted * items, 1e-6), f"{given}: this is a number of items; a share is wanted")
        each = [float(torch.bincount(digit[cluster == c]).max() / (cluster == c).sum()) for c in cluster.unique()]
        _expect(not _near(found, sum(each) / len(each), 1e-6), f"{given}: this gives every cluster the same weight; a large one holds more items")
        _expect(not _near(found, purity(digit, cluster), 1e-6), f"{given}: clusters and digits are swapped; a digit may well be spread over two clusters")
        _expect(not _near(found, float((cluster == digit).double().mean()), 1e-6), f"{given}: the number of a cluster has nothing to do with the digit")
        raise NotYet(f"{given}: {found:.4g} is not right; for each cluster, count its most frequent digit")
