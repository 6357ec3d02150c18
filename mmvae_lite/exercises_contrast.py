"""The checks of the chapter on contrast and independence."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from mmvae_lite.exercises import NotYet, _expect, _near, _number, _same, _tensor, exercise
from mmvae_lite.information import info_nce_from_scores


def _pairs(shape: tuple[int, ...], rho: float, seed: int) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    x, noise = (torch.randn(shape, generator=g, dtype=torch.float64) for _ in range(2))
    return x, rho * x + math.sqrt(1 - rho**2) * noise


def _log_ratio(x: Tensor, y: Tensor, rho: float) -> Tensor:
    """log p(x, y) / p(x) p(y) of a bivariate Gaussian."""
    return -0.5 * math.log(1 - rho**2) - 0.5 * (rho**2 * (x**2 + y**2) - 2 * rho * x * y) / (1 - rho**2)


@exercise("contrast-log-ratio")
def _(answer: Callable[[Tensor, Tensor, float], Tensor]) -> None:
    for rho in (0.9, -0.5, 0.0):
        what = f"for a correlation of {rho:g} the log ratio"
        x, y = _pairs((400,), rho, seed=1)
        found, exact = _tensor(answer(x, y, rho), (400,), what), _log_ratio(x, y, rho)
        if _same(found, exact):
            continue
        conditional = torch.distributions.Normal(rho * x, math.sqrt(1 - rho**2)).log_prob(y)
        marginal = torch.distributions.Normal(0.0, 1.0).log_prob(x)
        _expect(not _same(found, -exact), f"{what} is upside down; the joint density stands above")
        _expect(not _same(found, exact.exp()), f"{what} is the ratio itself; take its logarithm")
        _expect(not _same(found, conditional), f"{what} is log p(y | x); divide by p(y)")
        _expect(not _same(found, conditional + marginal), f"{what} is the joint density alone; the product of the marginals belongs below")
        _expect(not _same(found, exact + 0.5 * math.log(1 - rho**2)), f"{what} lacks the normaliser, which depends on the correlation")
        raise NotYet(f"{what} is off by up to {float((found - exact).abs().max()):.3g}; is its mean over the pairs the mutual information?")


@exercise("contrast-info-nce")
def _(answer: Callable[[Tensor, Tensor, float], Tensor]) -> None:
    for batches, items, rho in ((3, 2, 0.9), (2, 8, 0.9), (4, 5, 0.3)):
        what = f"for {batches} batches of {items} pairs the estimate"
        x, y = _pairs((batches, items), rho, seed=items)
        found = _tensor(answer(x, y, rho), (batches,), what)
        scores = _log_ratio(x[:, :, None], y[:, None, :], rho)
        exact = torch.stack([info_nce_from_scores(s) for s in scores])
        if _same(found, exact):
            continue
        positive = scores.diagonal(dim1=1, dim2=2)
        others = torch.where(torch.eye(items, dtype=torch.bool), -math.inf, scores)
        _expect(not _same(found, -exact), f"{what} has the other sign")
        _expect(not _same(found, exact - math.log(items)), f"{what} lacks log K: the sum below the line is an average")
        _expect(not _same(found, positive.mean(1)), f"{what} is the mean score of the pairs; what is it compared with?")
        left_out = (positive - others.logsumexp(2)).mean(1)
        _expect(
            not any(_same(found, left_out + math.log(n)) for n in (items, items - 1) if n), f"{what} leaves the pair itself out of the average below the line; then it is no longer a bound"
        )
        _expect(not _same(found, (positive - scores.mean(2)).mean(1)), f"{what} averages the scores and not their exponentials")
        _expect(not _same(found, exact.mean().expand(batches)), f"{what} is averaged over the batches; give one value for each")
        raise NotYet(f"{what} is off by up to {float((found - exact).abs().max()):.3g}; row i has the scores of x_i with every y_j")


@exercise("contrast-ceiling")
def _(answer: Callable[[int, float], float]) -> None:
    for items, tau in ((10, 1.0), (2, 1.0), (1024, 1.0), (10, 0.1), (100, 0.5)):
        what = f"for K = {items} and temperature {tau:g} the ceiling"
        found = _number(answer(items, tau), what)
        exact = math.log(items) - math.log1p((items - 1) * math.exp(-items / ((items - 1) * tau)))
        if _near(found, exact, 1e-6):
            continue
        loose = math.log(items) - math.log1p((items - 1) * math.exp(-2 / tau))
        upright = math.log(items) - math.log1p((items - 1) * math.exp(-1 / tau))
        _expect(not _near(found, math.log(items), 1e-6), f"{what} is log K, which no cosine reaches at this temperature")
        _expect(not _near(found, 1 / tau, 1e-6), f"{what} is the bound for any K; the best for this K is a little lower")
        _expect(items == 2 or not _near(found, loose, 1e-6), f"{what} has all negatives at minus one; more than two vectors cannot all be opposite")
        _expect(not _near(found, upright, 1e-6), f"{what} has the negatives at right angles; they can do a little better than that")
        _expect(not _near(found, exact - math.log(items), 1e-6), f"{what} lacks the log K of the average")
        _expect(found < min(math.log(items), 1 / tau) + 1e-9, f"{what} is above log K or above one over the temperature")
        raise NotYet(f"{what} is not {found:.5g}; put the cosine 1 of a pair and the cosine of two corners of the simplex into the bound")


def _split(m: int) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(7 + m)
    means = torch.randn(3, 6, 2, generator=g, dtype=torch.float64)
    precisions = 0.2 + 3 * torch.rand(3, 6, 2, generator=g, dtype=torch.float64)
    in_a = torch.rand(3, 6, generator=g) < 0.5
    in_a[:, 0], in_a[:, 1] = True, False
    return means, precisions, in_a


def _pool(means: Tensor, precisions: Tensor, rows: Tensor) -> Tensor:
    weights = precisions * rows[..., None]
    return (weights * means).sum(0) / weights.sum(0)


@exercise("contrast-split")
def _(answer: Callable[[int, Tensor, Tensor, Tensor], Tensor]) -> None:
    for m in range(3):
        means, precisions, in_a = _split(m)
        given = (m, means.clone().requires_grad_(), precisions.clone(), in_a.clone())
        raw = answer(*given)
        what = f"for modality {m} the code"
        found = _tensor(raw, (6, 2), what)
        a, b = (_pool(means, precisions, rows) for rows in (in_a, ~in_a))
        right = torch.where(in_a[m][:, None], a, b)
        if _same(found, right):
            _expect(isinstance(raw, Tensor) and not raw.requires_grad, f"{what} is right, but the decoder would teach it; detach it")
            continue
        other = torch.where(in_a[m][:, None], b, a)
        everyone = _pool(means, precisions, torch.ones_like(in_a))
        plain = torch.where(in_a[m][:, None], _pool(means, torch.ones_like(means), in_a), _pool(means, torch.ones_like(means), ~in_a))
        _expect(not _same(torch.nan_to_num(found), torch.nan_to_num(other)), f"{what} comes from the half that does not hold the modality")
        _expect(not _same(found, everyone), f"{what} pools all modalities; only those of its own half take part")
        _expect(not _same(found, means[m]), f"{what} is that of its own expert alone; the others in its half take part too")
        _expect(not _same(found, plain), f"{what} is the plain average; a sharper expert has more votes")
        raise NotYet(f"{what} is off; item 0 has everybody in A and item 1 everybody in B: begin with those")


@exercise("contrast-sign")
def _(answer: Callable[..., float]) -> None:
    terms = {"recon": {"x1": -3.0, "x2": -5.0}, "kl": {"x1": 0.5, "x2": 0.25}, "nce": 1.5, "tc": {"x1": 0.125, "x2": 0.75}}
    settings = {"gamma": 2.0, "delta": {"x1": 4.0, "x2": 8.0}}
    found = _number(answer(**terms, **settings), "the loss")
    fit = sum(terms["recon"].values())
    kl = sum(terms["kl"].values())
    tc = 4 * 0.125 + 8 * 0.75
    if _near(found, -fit + kl - 3.0 + tc, 1e-9):
        return
    _expect(not _near(found, -fit + kl + 3.0 + tc, 1e-9), "with this sign descent lowers the estimate of the mutual information; this is the slip in print")
    _expect(not _near(found, -(-fit + kl - 3.0 + tc), 1e-9), "this is what is maximised; the optimiser descends")
    _expect(not _near(found, -fit + kl - 3.0 - tc, 1e-9), "with this sign the styles learn the code instead of losing it")
    _expect(not _near(found, fit + kl - 3.0 + tc, 1e-9), "with this sign descent makes the pictures less likely")
    _expect(not _near(found, -fit - kl - 3.0 + tc, 1e-9), "with this sign the styles are pushed away from their prior")
    _expect(not _near(found, -fit + kl - 3.0 + 12 * (0.125 + 0.75), 1e-9), "each modality has a delta of its own, which belongs inside the sum")
    raise NotYet(f"{found:.6g} is not the loss; check the sign and the weight of each of the four terms")
