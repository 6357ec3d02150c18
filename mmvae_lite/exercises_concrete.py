"""Checks of the exercises of the chapter on discrete latents and the concrete product; see `mmvae_lite.exercises`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from mmvae_lite.distributions import Concrete
from mmvae_lite.exercises import NotYet, _expect, _near, _number, _same, _tensor, exercise


@exercise("concrete-podium")
def _(answer: Callable[[list[float], int, int], float]) -> None:
    for pi, first, second in (([1.0, 1.0, 1.0], 0, 1), ([4.0, 3.0, 2.0, 1.0], 0, 1), ([4.0, 3.0, 2.0, 1.0], 3, 0), ([0.2, 5.0], 1, 0)):
        total, given = sum(pi), f"for the rates {pi}, runner {first} first and {second} second"
        found = _number(answer(list(pi), first, second), f"the probability {given}")
        if _near(found, pi[first] / total * pi[second] / (total - pi[first]), 1e-9):
            continue
        _expect(0 <= found <= 1, f"{given}: {found:.4g} is no probability; must the rates sum to one?")
        _expect(not _near(found, pi[first] / total, 1e-9), f"{given}: this is the probability that {first} wins, whoever comes second")
        _expect(
            not _near(found, pi[first] * pi[second] / total**2, 1e-9),
            f"{given}: the second race has one runner less; who is still running?",
        )
        raise NotYet(f"{given}: {found:.4g} is not right; run a race, take the winner away, and run another")


@exercise("concrete-logistic")
def _(answer: Callable[[Tensor, float, float], Tensor]) -> None:
    z1 = torch.tensor([0.03, 0.3, 0.5, 0.6, 0.97], dtype=torch.float64)
    for odds, tau in ((1.0, 1.0), (4 / 3, 0.66), (0.25, 2.0), (8 / 9, 0.1)):
        given = f"for odds {odds:.3g} and temperature {tau:g}"
        found = _tensor(answer(z1.clone(), odds, tau), (5,), f"{given}, the log-density")
        logits = torch.tensor([math.log(odds), 0.0], dtype=torch.float64)
        wanted = Concrete(logits, tau).log_prob(torch.stack([z1, 1 - z1], -1))
        if _same(found, wanted):
            continue
        jacobian = -(z1.log() + (1 - z1).log())
        _expect(not _same(found, wanted.exp()), f"{given} this is the density; its logarithm is wanted")
        _expect(not _same(found, wanted - jacobian), f"{given} this is the density of the logit; the derivative of t with respect to z1 is missing")
        _expect(not _same(found, wanted - 2 * jacobian), f"{given} the derivative of t with respect to z1 is turned round")
        _expect(not _same(found, wanted - math.log(tau)), f"{given} the temperature in front is missing; it comes from the inner function")
        flipped = Concrete(-logits, tau).log_prob(torch.stack([z1, 1 - z1], -1))
        _expect(not _same(found, flipped), f"{given} the two classes are swapped; which way do the odds move the bell?")
        raise NotYet(f"{given} the log-density is not right; differentiate P(t <= s), then change from t to z1")


@exercise("concrete-straight-through")
def _(answer: Callable[[Tensor, float, Tensor], Tensor]) -> None:
    g = torch.Generator().manual_seed(0)
    for n, tau in ((3, 0.66), (10, 0.3), (2, 2.0)):
        logits = torch.randn(n, generator=g, dtype=torch.float64, requires_grad=True)
        noise = -torch.empty(500, n, dtype=torch.float64).exponential_(generator=g).log()
        weights = torch.randn(500, n, generator=g, dtype=torch.float64)
        given = f"with {n} classes"
        code = answer(logits, tau, noise)
        _expect(isinstance(code, Tensor), f"{given}, wanted a tensor of codes, found {type(code).__name__}")
        found = _tensor(code, (500, n), f"{given}, the codes")
        z = ((logits + noise) / tau).softmax(-1)
        _expect(not _same(found, z), f"{given}, these are the relaxed draws; their values should be one-hot")
        hard = torch.zeros_like(found).scatter_(-1, z.argmax(-1, keepdim=True), 1.0)
        _expect(_same(found, hard), f"{given}, the codes are not one-hot at the class that leads")
        _expect(bool(((found == 0) | (found == 1)).all()), f"{given}, some values miss zero or one by a rounding; add the zero as one term")
        _expect(code.requires_grad, f"{given}, no gradient reaches the logits; a one-hot vector alone has none")
        (slope,) = torch.autograd.grad((weights * code).sum(), logits)
        (wanted,) = torch.autograd.grad((weights * z).sum(), logits)
        _expect(not _same(slope, tau * wanted) or _same(slope, wanted), f"{given}, the gradient lacks the temperature")
        _expect(_same(slope, wanted), f"{given}, the values are right, the gradient is not that of the relaxed draw")


def _by_densities(first: Sequence[float], second: Sequence[float], tau: float) -> tuple[float, float]:
    """The mass at z_1 > 1/2 of the product of two concrete densities, on the logit axis, and without the Jacobian."""
    t = torch.linspace(-60 / (2 * tau - 1), 60 / (2 * tau - 1), 200_001, dtype=torch.float64)
    z = torch.stack([t, torch.zeros_like(t)], -1).softmax(-1)
    log_f = sum(Concrete(torch.tensor(w, dtype=t.dtype).log(), tau).log_prob(z) for w in (first, second))
    shares = ((log_f + extra * z.log().sum(-1)).softmax(0)[t > 0].sum().item() for extra in (1, 2))
    return tuple(shares)


@exercise("concrete-error")
def _(answer: Callable[[Sequence[float], Sequence[float], float], Sequence[float]]) -> None:
    for first, second, tau in (((4.0, 3.0), (2.0, 3.0), 0.66), ((4.0, 3.0), (2.0, 3.0), 2.0), ((5.0, 1.0), (2.0, 1.0), 0.7)):
        given = f"for {first}, {second} and temperature {tau:g}"
        found = answer(first, second, tau)
        _expect(isinstance(found, Sequence) and len(found) == 2, "return the pair (exact, by densities)")
        exact, relaxed = (_number(v, f"{given}, {what}") for v, what in zip(found, ("the exact probability", "the mass by densities")))
        odds = first[0] * second[0] / (first[1] * second[1])
        _expect(not _near(exact, 1 - odds / (1 + odds)) or abs(odds - 1) < 1e-9, f"{given} the exact one is that of class two")
        _expect(not _near(exact, odds**2 / (1 + odds**2)), f"{given} the exact one has squared odds; the weights are multiplied once")
        _expect(_near(exact, odds / (1 + odds), 1e-6), f"{given} the exact probability is not right; multiply class by class, then normalise")
        wanted, in_log_space = _by_densities(first, second, tau)
        if abs(relaxed - wanted) < 1e-3:
            continue
        _expect(abs(relaxed - exact) > 1e-3, f"{given} the second number repeats the exact one; integrate the product of the densities")
        _expect(abs(relaxed - in_log_space) > 1e-3, f"{given} densities of the logit were multiplied; those of z1 are wanted, each with its own 1 / (z1 z2)")
        _expect(abs(relaxed - (1 - wanted)) > 1e-3, f"{given} the mass by densities is that on the other side")
        raise NotYet(f"{given} the mass by densities is off by {abs(relaxed - wanted):.2g}; does the integral reach far enough into both tails?")


@exercise("concrete-threshold")
def _(answer: Callable[[int, int], float]) -> None:
    for experts, classes in ((2, 2), (2, 10), (1, 2), (3, 4), (1, 10)):
        given = f"for {experts} experts, the prior and {classes} classes"
        found, J = _number(answer(experts, classes), f"the threshold {given}"), experts + 1
        if _near(found, (J - 1) * (classes - 1) / J, 1e-9):
            continue
        _expect(not _near(found, (experts - 1) * (classes - 1) / experts, 1e-9), f"{given}: the prior is missing among the factors")
        _expect(not _near(found, (J - 1) / J, 1e-9), f"{given}: this is the threshold for two classes; how many shares vanish at a vertex?")
        _expect(not _near(found, (J - 1) * classes / J, 1e-9), f"{given}: at a vertex one share does not vanish")
        _expect(not _near(found, float((J - 1) * (classes - 1)), 1e-9), f"{given}: every factor helps against the divergence, not only one")
        raise NotYet(f"{given}: {found:.4g} is not right; count the powers of r near a vertex, in all factors and in the volume")


@exercise("concrete-prior-once")
def _(answer: Callable[[Tensor, Tensor], Tensor]) -> None:
    g = torch.Generator().manual_seed(0)
    for witnesses, n in ((2, 3), (1, 4), (4, 10)):
        prior = torch.rand(n, generator=g, dtype=torch.float64).add(0.1)
        prior = prior / prior.sum()
        seen = torch.rand(witnesses, n, generator=g, dtype=torch.float64).add(0.05)  # p(x_m | c)
        beliefs = (seen * prior) / (seen * prior).sum(-1, keepdim=True)
        given = f"for {witnesses} witness{'es' * (witnesses > 1)} and {n} classes"
        found = _tensor(answer(beliefs.clone(), prior.clone()), (n,), f"{given}, the probabilities")
        powers = {1: prior * seen.prod(0), witnesses: beliefs.prod(0), witnesses + 1: beliefs.prod(0) * prior, 0: seen.prod(0)}
        exact = {count: values / values.sum() for count, values in powers.items()}
        if _same(found, exact[1]):
            continue
        _expect(not _same(found / found.sum(), exact[1]), f"{given} they do not sum to one")
        _expect(not _same(found, exact[0]), f"{given} the prior is gone altogether")
        for count, values in exact.items():
            _expect(count < 2 or not _same(found, values), f"{given} the prior is counted {count} times")
        _expect(not _same(found, beliefs.mean(0)), f"{given} this is the mixture; independent witnesses multiply")
        raise NotYet(f"{given} the probabilities are not right; write Bayes' rule for all witnesses and for one, and divide")
