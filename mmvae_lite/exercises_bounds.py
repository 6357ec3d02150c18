"""The checks of the chapter on bounds and their gradients."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from mmvae_lite.bounds import iwae, moe_loose, moe_tight
from mmvae_lite.data.linear_gaussian import LG3, LG3_OBSERVATION
from mmvae_lite.distributions import LOG_2PI, Normal
from mmvae_lite.exercises import NotYet, _expect, _near, _number, _same, _tensor, exercise
from mmvae_lite.experts import Mixture


@exercise("bounds-order")
def _(answer: Callable[[Tensor], Tensor]) -> None:
    g = torch.Generator().manual_seed(0)
    for experts, samples, shift in ((2, 3, 0.0), (4, 5, -1.0), (3, 7, 2000.0)):
        log_w = 1.5 * torch.randn(experts, samples, generator=g, dtype=torch.float64) + shift
        what = f"for {experts} experts and {samples} samples, alpha"
        found = _tensor(answer(log_w), (experts,), what)
        _expect(bool((found >= 0).all()) and _near(float(found.sum()), 1.0, 1e-6), f"{what} is no distribution: it has to be positive and add up to one")
        average = log_w.logsumexp(1)
        _expect(not _same(found, log_w.mean(1).softmax(0)), f"{what} comes from averages of the logarithms; average the weights themselves")
        _expect(not _same(found, log_w.amax(1).softmax(0)), f"{what} looks at the largest weight alone; A is a mean over all samples")
        _expect(not _same(found, (-average).softmax(0)), f"{what} is the wrong way up: an expert with a larger average has the larger share")
        gap = float(moe_tight(log_w[..., None]) - moe_loose(log_w[..., None]))
        divergence = float(-(experts * found.clamp_min(1e-300)).log().mean())
        _expect(_near(divergence, gap, 1e-8), f"{what} gives the divergence {divergence:.5g}, and tight minus loose is {gap:.5g}")


@exercise("bounds-moe-elbo")
def _(answer: Callable[[], float]) -> None:
    found = _number(answer(), "the ELBO")
    experts = [LG3.posterior({m: x}) for m, x in LG3_OBSERVATION.items()]
    elbo, naive = (_mixture_elbo(experts, own) for own in (False, True))
    if _near(found, elbo, 1e-6):
        return
    evidence = float(LG3.log_prob(LG3_OBSERVATION))
    _expect(not _near(found, -elbo, 1e-6), "the sign is turned round")
    _expect(not _near(found, naive, 1e-6), "this is the naive bound: each expert has its own density below the line, and the mixture belongs there")
    _expect(not _near(found, evidence, 1e-6), "this is the evidence itself; the logarithm comes before the expectation")
    _expect(not _near(found, 3 * elbo, 1e-6), "the three expectations are added; the mixture averages them")
    _expect(not _near(found, elbo - math.log(3), 1e-6), "the density of the mixture lacks its factor one over three")
    _expect(found < evidence, f"{found:.5g} is above the evidence, and a lower bound cannot be")
    raise NotYet(f"{found:.5g} is not the ELBO; is every expectation taken under one expert, with the probabilities of the grid?")


def _mixture_elbo(experts: list[Normal], own: bool) -> float:
    """The average over experts of E_q_m[log p(x, z) - log q(z)], where q is the mixture or, with `own`, q_m."""
    nodes = torch.linspace(-9, 9, 1501, dtype=torch.float64)
    probs = (-0.5 * nodes.square()).softmax(0)
    total = 0.0
    for q in experts:
        z = (q.mean + q.std * nodes[:, None])[:, None]
        log_joint = -0.5 * (z[:, 0, 0].square() + LOG_2PI)
        for (m, x), w, v in zip(LG3_OBSERVATION.items(), LG3.weights, LG3.variances):
            log_joint = log_joint - 0.5 * ((x - w * z[:, 0, 0]).square() / v + math.log(v) + LOG_2PI)
        log_q = (q if own else Mixture(tuple(experts))).log_prob(z)[:, 0]
        total += float((probs * (log_joint - log_q)).sum())
    return total / len(experts)


def _log_joint(z: Tensor) -> Tensor:
    return -0.5 * z[..., 0].square() - (z[..., 0] - 1.3).square()


def _toy(scale_log_q: float = 0.0, power: float = 1.0) -> tuple[Tensor, Tensor]:
    """The bound of a small Gaussian encoder, and its gradient with `power` weights and a share of the score."""
    leaf, q, noise = _encoder()
    z = q.mean + q.std * noise
    frozen = q.detach().log_prob(z)
    live = q.log_prob(z.detach())
    log_w = _log_joint(z) - frozen - scale_log_q * (live - live.detach())
    weight = log_w.detach().softmax(0)
    z.register_hook(lambda grad: grad * (weight ** (power - 1.0))[..., None])
    value = iwae(log_w)
    return value.detach(), torch.autograd.grad(value.sum(), leaf)[0]


def _encoder() -> tuple[Tensor, Normal, Tensor]:
    g = torch.Generator().manual_seed(3)
    leaf = torch.randn(6, 2, generator=g, dtype=torch.float64).requires_grad_()
    noise = torch.randn(4, 6, 1, generator=g, dtype=torch.float64)
    return leaf, Normal(leaf[:, :1], leaf[:, 1:]), noise


@exercise("bounds-hook")
def _(answer: Callable[[Normal, Tensor, Callable[[Tensor], Tensor]], Tensor]) -> None:
    leaf, q, noise = _encoder()
    value = answer(q, noise, _log_joint)
    found_value = _tensor(value, (6,), "the bound of 6 items")
    _expect(isinstance(value, Tensor) and value.requires_grad, "no gradient reaches the parameters of q; is z computed from q.mean and q.std?")
    (found,) = torch.autograd.grad(value.sum(), leaf, allow_unused=True)
    _expect(found is not None, "no gradient reaches the parameters of q; is z computed from q.mean and q.std?")
    wanted_value, wanted = _toy(power=2.0)
    _expect(not _same(found, _toy(power=1.0)[1]), "the gradient is still that of STL: no gradient passes through the tensor with the hook")
    _expect(not _same(found, _toy(1.0, 1.0)[1]), "this is the plain IWAE gradient: the parameters inside log q are live, and no hook acts")
    _expect(not _same(found, _toy(1.0, 2.0)[1]), "the hook works, but the parameters inside log q are live; detach q there")
    _expect(not _same(found, _toy(power=3.0)[1]), "the weight acts once too often; iwae brings one factor itself")
    _expect(not _same(found, -wanted), "the gradient has the other sign; the bound is wanted, not the loss")
    _expect(_same(found, wanted), "the gradient is not that of DReG; the slope of log r at z_k needs the factor of the squared weight")
    _expect(_same(found_value, wanted_value), "the gradient is right, and the value is not the bound; return log of the mean weight")


@exercise("bounds-detect")
def _(answer: Callable[[Tensor, Tensor], float]) -> None:
    g = torch.Generator().manual_seed(0)
    for n, shift in ((400, 0.0), (400, 0.5), (2500, -0.2)):
        draws = torch.tensor([1.0, 0.1, 4.0]) * torch.randn(n, 3, generator=g, dtype=torch.float64)
        exact = torch.zeros(3, dtype=torch.float64)
        draws[:, 1] += 0.1 * shift
        sd, gap = draws.std(0), draws.mean(0) - exact
        wanted = float((gap / sd).abs().max()) * math.sqrt(n)
        found = _number(answer(draws, exact), f"the z-score of {n} draws")
        if _near(found, wanted, 0.01):
            continue
        given = f"for {n} draws the z-score {found:.4g}"
        _expect(not _near(found, wanted / math.sqrt(n), 0.01), f"{given} is in standard deviations of one draw; the mean of n draws is less uncertain")
        _expect(not _near(found, wanted * math.sqrt(n), 0.01), f"{given} is too large; the error of a mean falls with the root of n, not with n")
        _expect(not _near(found, -wanted, 0.01), f"{given} has lost a sign; a bias may go either way")
        _expect(not _near(found, float(gap.abs().max()), 0.01), f"{given} is a difference; measure it in standard errors of that parameter")
        largest = (gap / sd).abs().argmax()
        _expect(not _near(found, float((gap / sd * math.sqrt(n)).abs().mean()), 0.01), f"{given} is the average over parameters; the largest is wanted")
        raise NotYet(f"{given} is not right; parameter {int(largest)} is the one furthest off, each measured by its own standard error")


@exercise("bounds-budget")
def _(answer: Callable[[float, float, int, float], float]) -> None:
    for mean, sd, K, c in ((0.1, 0.9, 5, 3.0), (-0.02, 0.4, 20, 2.0), (2.0, 1.0, 1, 5.0)):
        wanted = K * (c * sd / mean) ** 2
        found = _number(answer(mean, sd, K, c), f"the samples for mean {mean}, sd {sd}, K = {K}, c = {c:g}")
        if _near(found / wanted, 1.0, 1e-6):
            continue
        given = f"with mean {mean}, sd {sd}, K = {K} and c = {c:g}"
        _expect(K == 1 or not _near(found / wanted, 1 / K, 1e-6), f"{given} this is the number of draws; each of them takes K samples")
        _expect(not _near(found, K * c * sd / mean, 1e-6), f"{given} the root is still on: the error falls with the root of n")
        _expect(not _near(found / wanted, 1 / c, 1e-6), f"{given} c is inside the square too")
        _expect(not _near(found / wanted, 1 / c**2, 1e-6), f"{given} you ask for one standard error, not for c of them")
        _expect(found > 0, f"{given} the number of samples is not positive")
        raise NotYet(f"{given} {found:.4g} samples do not make the mean c standard errors")


@exercise("bounds-factor")
def _(answer: Callable[[Tensor, Tensor, int], Tensor]) -> None:
    g = torch.Generator().manual_seed(0)
    for experts, samples, j in ((2, 5, 0), (3, 4, 2), (1, 6, 0)):
        log_q = torch.randn(experts, samples, generator=g, dtype=torch.float64)
        log_joint = torch.randn(samples, generator=g, dtype=torch.float64)
        what = f"for {experts} experts the factor of expert {j}'s samples"
        found = _tensor(answer(log_joint, log_q, j), (samples,), what)
        rho = log_q.softmax(0)[j]
        weight = (log_joint - log_q.logsumexp(0)).softmax(0)
        own_weight = (log_joint - log_q[j]).softmax(0)
        if _same(found, weight * (1 - rho + rho * weight)):
            continue
        _expect(not _same(found, weight**2), f"{what} is the squared weight; the responsibility is missing")
        _expect(not _same(found, 1 - rho + rho * weight), f"{what} lacks the weight in front; here nothing else multiplies by it")
        _expect(not _same(found, own_weight * (1 - rho + rho * own_weight)), f"{what} has weights with expert {j}'s own density below the line; the mixture belongs there")
        other = log_q.softmax(1)[j]
        _expect(not _same(found, weight * (1 - other + other * weight)), f"{what} has responsibilities that add up to one over the samples; they do so over the experts")
        raise NotYet(f"{what} is not right; compute the responsibility and the weight first, and look at each")
