"""The checks of the chapter on mixtures of experts."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from mmvae_lite.distributions import Laplace, Normal, kl
from mmvae_lite.exercises import NotYet, _expect, _near, _number, _same, _tensor, exercise
from mmvae_lite.experts import Mixture


@exercise("mixture-variance")
def _(answer: Callable[[Tensor, Tensor], Tensor]) -> None:
    g = torch.Generator().manual_seed(0)
    for experts, dims in ((2, 1), (3, 4), (1, 2)):
        means = 2 * torch.randn(experts, dims, generator=g, dtype=torch.float64)
        variances = 0.2 + torch.rand(experts, dims, generator=g, dtype=torch.float64)
        within, between = variances.mean(0), means.var(0, unbiased=False)
        what = f"the variance of a mixture of {experts}"
        found = _tensor(answer(means, variances), (dims,), what)
        if _same(found, within + between):
            continue
        _expect(not _same(found, within), f"{what} is that of experts in one place; the distance between their means counts too")
        _expect(not _same(found, between), f"{what} is that of the means alone; each expert has a width of its own")
        _expect(experts == 1 or not _same(found, within + means.var(0)), f"{what} divides by one less than the number of experts; they are the whole mixture and no sample of it")
        _expect(not _same(found, 1 / (1 / variances).sum(0)), f"{what} is the variance of their product")
        _expect(not _same(found, variances.sum(0) / experts**2), f"{what} is that of an average of independent draws; a draw of a mixture comes from one expert")
        _expect(not _same(found, within + means.square().mean(0)), f"{what} is the mean square; take off the square of the mean")
        raise NotYet(f"{what} is not right; try two experts in one place first, then two very narrow ones far apart")


@exercise("mixture-floor")
def _(answer: Callable[[Tensor], Tensor]) -> None:
    g = torch.Generator().manual_seed(1)
    for experts, items, shift in ((2, 5, 0.0), (4, 6, -3000.0), (3, 4, 500.0)):
        log_q = 3 * torch.randn(experts, items, generator=g, dtype=torch.float64) + shift
        what = f"for {experts} experts the cost"
        found = _tensor(answer(log_q), (items,), what)
        wanted = log_q.amax(0) - (log_q.logsumexp(0) - math.log(experts))
        if _same(found, wanted):
            continue
        _expect(not _same(found, -wanted), f"{what} has the other sign: the best expert less the mixture")
        _expect(not _same(found, wanted - math.log(experts)), f"{what} lacks the factor one over the number of experts inside the mixture")
        _expect(not _same(found, log_q.amax(0) - log_q.mean(0)), f"{what} averages logarithms; a mixture averages densities")
        _expect(bool((found <= math.log(experts) + 1e-6).all()), f"{what} exceeds the logarithm of their number, which it never does")
        raise NotYet(f"{what} is not the logarithm of the best density less that of the mixture, item by item")


@exercise("mixture-passes")
def _(answer: Callable[[int, int], tuple[float, float, float]]) -> None:
    for M, K in ((2, 30), (5, 1), (3, 4)):
        found = answer(M, K)
        given = f"with {M} modalities and K = {K}"
        _expect(isinstance(found, (tuple, list)) and len(found) == 3, "return three numbers: loose bound, linear-time bound, joint bound of a product")
        loose, linear, product = (_number(x, f"{given} each count") for x in found)
        _expect(loose != M * K or M == 1, f"{given} the loose bound decodes each draw with every decoder, not with one")
        _expect(loose != M * M or K == 1, f"{given} the loose bound forgets that each expert draws K times")
        _expect(loose == M * M * K, f"{given} the count of the loose bound is not right; draws times decoders")
        _expect(linear != M * M * K or M == 1, f"{given} the linear-time bound decodes a draw with its own decoder alone")
        _expect(linear == M * K, f"{given} the count of the linear-time bound is not right")
        _expect(product != M * K or K == 1, f"{given} the product has one posterior, from which one latent is drawn")
        _expect(product == M, f"{given} the count of the product is not right")


@exercise("mixture-grey")
def _(answer: Callable[[Tensor], Tensor]) -> None:
    g = torch.Generator().manual_seed(2)
    for n, shape in ((5, (1, 2, 2)), (9, (3, 2, 3)), (1, (1, 1, 1))):
        x = torch.rand(n, *shape, generator=g, dtype=torch.float64) ** 3
        what = f"the picture for {n} targets"
        found = _tensor(answer(x), shape, what)
        best = x.median(0).values
        if _same(found, best):
            continue
        _expect(not _same(found, x.mean(0)), f"{what} is the mean, the answer for a Gaussian likelihood; a Laplace density counts distances and not their squares")
        _expect(not _same(found, x.flatten().median().expand(shape)), f"{what} is one grey for all pixels; every pixel chooses for itself")
        one = (x[None] - x[:, None]).abs().flatten(2).sum((1, 2)).argmin()
        _expect(n == 1 or not _same(found, x[one]), f"{what} is one of the targets; another picture lies nearer to all of them")
        cost, least = ((x - y).abs().sum().item() for y in (found, best))
        raise NotYet(f"{what} has the total distance {cost:.4g}, and {least:.4g} is possible")


@exercise("mixture-scales")
def _(answer: Callable[[int, int, float], float]) -> None:
    for D, n, sharp in ((20, 5, 0.1), (4, 2, 0.5), (10, 9, 0.02)):
        rest = (D - n * sharp) / (D - n)
        scale = torch.tensor([[sharp] * n + [rest] * (D - n)], dtype=torch.float64)
        zero = torch.zeros(1, D, dtype=torch.float64)
        wanted = float(kl(Laplace(zero, scale), Laplace(zero, torch.ones_like(scale))))
        given = f"with {n} of {D} scales at {sharp:g}"
        found = _number(answer(D, n, sharp), f"{given} the divergence")
        if _near(found, wanted, 1e-6 * max(1.0, wanted)):
            continue
        free = n * (sharp - 1 - math.log(sharp))
        _expect(not _near(found, free, 1e-6), f"{given} the other scales stay at one in your sum; they have to share what is left of {D}")
        _expect(not _near(found, -n * math.log(sharp), 1e-6), f"{given} the wide dimensions cost something too, with the other sign")
        _expect(not _near(found, -wanted, 1e-6), f"{given} the sign is turned round; a divergence is positive")
        normal = kl(Normal(zero, (2 * scale.square()).log()), Normal(zero, torch.full_like(scale, math.log(2.0))))
        _expect(not _near(found, float(normal), 1e-6), f"{given} this is the divergence of Gaussians with these variances")
        _expect(found > 0, f"{given} the divergence is not positive")
        raise NotYet(f"{given} {found:.5g} is not the divergence; add the sharp dimensions and the wide ones")


@exercise("mixture-ceiling")
def _(answer: Callable[[float, int], float]) -> None:
    for value, numbers in ((868.76, 784), (3441.01, 3072), (-500.0, 784), (0.0, 10)):
        wanted = math.exp(-value / numbers) / 2
        given = f"for {value:g} nats of {numbers} numbers"
        found = _number(answer(value, numbers), f"{given} the widest scale")
        if _near(found / wanted, 1.0, 1e-6):
            continue
        _expect(not _near(found / wanted, 2.0, 1e-6), f"{given} the two in front of the scale is missing: the peak of a Laplace density is one over twice its scale")
        _expect(not value or not _near(found, math.exp(value / numbers) / 2, 1e-6), f"{given} the sign is turned round; a narrower density has a higher peak")
        _expect(not value or not _near(found, math.exp(-value) / 2, 1e-6), f"{given} each number has its own density; divide by how many there are")
        _expect(found > 0, f"{given} a scale is positive")
        raise NotYet(f"{given} the ceiling at the scale {found:.4g} is {-numbers * math.log(2 * found):.6g}")


def _mixture_variance(means: Tensor, variances: Tensor, draws: int = 200_000) -> Tensor:
    """What the check asks for, by draws; for its test."""
    z = Mixture(tuple(Normal(m[None], v[None].log()) for m, v in zip(means, variances))).rsample((draws,), torch.Generator().manual_seed(0))
    return z.flatten(0, 2).var(0)
