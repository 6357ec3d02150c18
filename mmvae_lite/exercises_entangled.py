"""Checks of the exercises of the chapter on entangled data; see `mmvae_lite.exercises`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from mmvae_lite.distributions import Normal, kl
from mmvae_lite.exercises import NotYet, _expect, _near, _number, _same, _tensor, exercise


@exercise("entangled-cut")
def _(answer: Callable[[float], float]) -> None:
    for share in (0.5, 0.1, 0.95):
        given, found = f"to keep the share {share:g}", _number(answer(share), f"the radius to keep the share {share:g}")
        if _near(found, math.sqrt(-2 * math.log(1 - share)), 1e-4):
            continue
        _expect(found > 0, f"{given}: a radius is positive")
        _expect(not _near(found, -2 * math.log(1 - share), 1e-4), f"{given}: this is the square of the radius")
        _expect(not _near(found, math.sqrt(-2 * math.log(share)), 1e-4), f"{given}: this radius cuts that share off instead of keeping it")
        line = float(torch.special.ndtri(torch.tensor(0.5 + share / 2, dtype=torch.float64)))
        _expect(not _near(found, line, 1e-4), f"{given}: this is right on a line; in the plane more lies outside")
        raise NotYet(f"{given}: {found:.4g} is not right; solve for r what the share within r is")


@exercise("entangled-permute")
def _(answer: Callable[[Tensor, torch.Generator], Tensor]) -> None:
    classes = torch.tensor([2, 0, 1, 0, 2, 2, 0, 1, 3, 0, 2, 0] * 5)
    seen = []
    for seed in range(30):
        found = answer(classes.clone(), torch.Generator().manual_seed(seed))
        _expect(isinstance(found, Tensor) and found.shape == classes.shape and not found.is_floating_point(), f"wanted whole numbers of shape {list(classes.shape)}")
        found = found.long()
        _expect(torch.equal(found.sort().values, torch.arange(len(classes))), "this is no permutation: some item is taken twice or never")
        _expect(torch.equal(classes[found], classes), "an item was replaced by one of another class")
        seen.append(found)
    moved = torch.stack(seen)
    _expect(bool((moved != moved[0]).any()), "the order is the same for every generator; draw it from the generator")
    still = (moved == torch.arange(len(classes))).float().mean().item()
    wanted = sum(1.0 for _ in classes.unique()) / len(classes)  # one fixed item a class on average
    _expect(still < 3 * wanted, "too many items stay where they are; is every class permuted?")
    _expect(still > 0, "no item ever keeps its place; a random permutation leaves one in place on average")
    again = answer(classes.clone(), torch.Generator().manual_seed(3))
    _expect(torch.equal(again.long(), seen[3]), "the same generator gives another order; draw from it alone")


@exercise("entangled-p-value")
def _(answer: Callable[[float, Sequence[float]], float]) -> None:
    g = torch.Generator().manual_seed(0)
    draws = torch.randn(99, generator=g).tolist()
    for observed, shuffled in ((10.0, draws), (0.3, draws), (-10.0, draws), (1.0, [1.0, 1.0, 0.0])):
        hits = sum(s >= observed for s in shuffled)
        given = f"for an observed {observed:g} and {len(shuffled)} shuffles of which {hits} reach it"
        found = _number(answer(observed, list(shuffled)), f"the p-value {given}")
        if _near(found, (1 + hits) / (1 + len(shuffled)), 1e-9):
            continue
        _expect(0 <= found <= 1, f"{given}: {found:.4g} is no probability")
        _expect(not _near(found, hits / len(shuffled), 1e-9), f"{given}: the observed order is one of the orders too; a p-value of zero claims too much")
        above = sum(s > observed for s in shuffled)
        _expect(not _near(found, (1 + above) / (1 + len(shuffled)), 1e-9), f"{given}: a tie counts against you")
        _expect(not _near(found, 1 - (1 + hits) / (1 + len(shuffled)), 1e-9), f"{given}: this is one minus the p-value")
        raise NotYet(f"{given}: {found:.4g} is not right; count the orders, the observed one among them, that reach the observed value")


@exercise("entangled-information")
def _(answer: Callable[[Tensor], Sequence[float]]) -> None:
    g = torch.Generator().manual_seed(0)
    for classes, sizes in ((2, (2, 2)), (3, (2, 4)), (4, (3, 3))):
        # every picture belongs to one class: blocks on the diagonal
        within = torch.rand(classes, *sizes, generator=g, dtype=torch.float64).square() + 0.01
        prior = torch.rand(classes, generator=g, dtype=torch.float64) + 0.2
        p = within / within.sum((1, 2), keepdim=True) * (prior / prior.sum())[:, None, None]
        of_class, a, b = p.sum((1, 2)), p.sum(2, keepdim=True), p.sum(1, keepdim=True)
        inside = (p * (p * of_class[:, None, None] / (a * b)).log()).sum().item()
        entropy = -(of_class * of_class.log()).sum().item()
        given = f"for {classes} classes"
        found = answer(p.clone())
        _expect(isinstance(found, Sequence) and len(found) == 2, "return two numbers: I(a; b | C) and I(a; b)")
        conditional, total = (_number(v, f"{name}, {given}") for v, name in zip(found, ("I(a; b | C)", "I(a; b)")))
        _expect(not _near(conditional, inside / math.log(2), 1e-6), f"{given} this is in bits; nats are wanted")
        _expect(not _near(conditional, inside + entropy, 1e-6), f"{given} I(a; b | C) contains the class; what do pictures share beyond it?")
        _expect(_near(conditional, inside, 1e-6), f"{given} I(a; b | C) is not right; for every class compare the joint with the product, and average")
        _expect(not _near(total, inside, 1e-6), f"{given} I(a; b) lacks what the class itself tells")
        _expect(_near(total, inside + entropy, 1e-6), f"{given} I(a; b) is not right; each picture gives its class away")


@exercise("entangled-variance-bug")
def _(answer: Callable[[Tensor, Tensor], Tensor]) -> None:
    g = torch.Generator().manual_seed(0)
    mean, logvar = torch.randn(2, 6, 2, generator=g, dtype=torch.float64)
    found = _tensor(answer(mean.clone(), logvar.clone()), (6,), "the differences, one for each item")
    prior = Normal.standard(6, 2, like=mean)
    wanted = kl(Normal(mean, 2 * logvar), prior) - kl(Normal(mean, logvar), prior)
    if _same(found, wanted):
        return
    _expect(not _same(found, -wanted), "the sign is turned round; paid minus booked")
    _expect(not _same(found, kl(Normal(mean, 2 * logvar), prior)), "this is what is paid; take off what is booked")
    half = kl(Normal(mean, 0.5 * logvar), prior) - kl(Normal(mean, logvar), prior)
    _expect(not _same(found, half), "a standard deviation of exp(logvar) is a variance of exp(2 logvar), not of exp(logvar / 2)")
    raise NotYet("the differences are not right; write the KL of a Gaussian with variance exp(2 logvar), summed over the two numbers")


@exercise("entangled-rotation")
def _(answer: Callable[[Tensor, float], Tensor]) -> None:
    z = torch.tensor([[1.0, 0.0], [0.0, 2.0], [0.6, -0.8]], dtype=torch.float64)
    for angle in (math.pi / 2, 0.3, -1.2):
        c, s = math.cos(angle), math.sin(angle)
        found = _tensor(answer(z.clone(), angle), (3, 2), f"for the angle {angle:.3g}, the latents of the garments")
        turned = z @ torch.tensor([[c, s], [-s, c]], dtype=torch.float64)
        if _same(found, turned):
            continue
        _expect(not _same(found, z @ torch.tensor([[c, -s], [s, c]], dtype=torch.float64)), f"for the angle {angle:.3g} the latents are turned the other way round")
        _expect(_same(found.norm(dim=1), z.norm(dim=1)), f"for the angle {angle:.3g} the lengths change; then the garments would not keep their marginals")
        raise NotYet(f"for the angle {angle:.3g} the latents are not right; (1, 0) goes to (cos, sin)")
