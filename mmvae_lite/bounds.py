"""Lower bounds of the log-evidence log p(x), in nats, one value per item."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mmvae_lite.checks import check_name
from mmvae_lite.distributions import Laplace, Normal


def elbo(
    log_px: Float[Tensor, "*batch"], kl: Float[Tensor, "*batch"], beta: float = 1.0
) -> Float[Tensor, "*batch"]:
    """The evidence lower bound E_q[log p(x | z)] - beta KL(q(z | x) || p(z)).

    Equation `eq-elbo` of the book (Kingma and Welling 2014, equation 3; beta as in Higgins et al. 2017).
    `log_px` is log p(x | z) at a sample z ~ q, or its expectation; both arguments have shape [*batch].
    With beta other than 1 the value is no bound of log p(x).
    """
    return log_px - beta * kl


def log_weights(
    log_px: Float[Tensor, "samples *batch"],
    log_pz: Float[Tensor, "samples *batch"],
    log_qz: Float[Tensor, "samples *batch"],
) -> Float[Tensor, "samples *batch"]:
    """The log importance weights log w = log p(x | z) + log p(z) - log q(z | x) at samples z ~ q.

    Equation `eq-importance-weight` of the book; the weights' mean is the evidence p(x).
    """
    return log_px + log_pz - log_qz


def iwae(log_w: Float[Tensor, "samples *batch"]) -> Float[Tensor, "*batch"]:
    """The importance-weighted bound log 1/K sum_k w_k over the leading axis of K samples.

    Equation `eq-iwae` of the book (Burda et al. 2016, equation 8).  K = 1 is the one-sample ELBO; in expectation
    the bound rises with K towards log p(x).
    """
    return log_w.logsumexp(0) - math.log(log_w.shape[0])


def iwae_by_quadrature(
    log_w: Float[Tensor, "experts nodes"], probs: Float[Tensor, "nodes"], samples: int
) -> Float[Tensor, ""]:
    """The expectation of the bound of `samples` draws from each expert together, without drawing any.

    Equation `eq-frullani` of the book: log y = int_0^inf (e^-t - e^-ty) dt / t takes the expectation of the logarithm of
    a mean of independent weights apart into one expectation for each expert.

    log_w: log weights on a grid under each expert; one row gives the expectation of `iwae`, several that of `moe_tight`,
        and the average over single rows that of `moe_loose`.
    probs: the probabilities of the nodes, which sum to 1, so that (w * probs).sum() is the mean weight.

    The result is differentiable.  It is as exact as the grid, which has to be fine: meant for a latent of one dimension.
    """
    scale = (log_w + probs.log()).logsumexp(-1).mean().detach()  # brings the mean of the weights to about 1
    u = torch.linspace(-35.0, 60.0, 951, dtype=log_w.dtype, device=log_w.device)  # t = e^u
    w = (log_w - scale).exp() / (len(log_w) * samples)
    laplace = torch.stack([(probs * (-u.exp()[:, None] * row).exp()).sum(-1) for row in w])
    tiny = torch.finfo(log_w.dtype).tiny
    mean = (samples * laplace.clamp_min(tiny).log()).sum(0).exp()  # E e^(-t y), y the mean of the weights
    return scale + torch.trapezoid((-u.exp()).exp() - mean, u)


def moe_loose(
    log_w: Float[Tensor, "experts samples *batch"], present: Bool[Tensor, "experts *batch"] | None = None
) -> Float[Tensor, "*batch"]:
    """The average over experts of the bound that each expert's own samples give.

    Equation `eq-moe-bounds` of the book (Shi et al. 2019, equation 3): 1/M sum_m log 1/K sum_k w_mk, where w_mk is the
    weight of the k-th sample of expert m and has the whole mixture below the line.  K = 1 is the ELBO of the mixture.
    As K grows the bound stays below log p(x), unless every expert has an equal share of the true posterior
    (`eq-moe-limit`).  Where `present` is given, an item's average is over its present experts; every item needs one.
    """
    return _expert_mean(log_w.logsumexp(1) - math.log(log_w.shape[1]), present)


def moe_tight(
    log_w: Float[Tensor, "experts samples *batch"], present: Bool[Tensor, "experts *batch"] | None = None
) -> Float[Tensor, "*batch"]:
    """The bound of all experts' samples together, log 1/(MK) sum_mk w_mk.

    Equation `eq-moe-bounds` of the book (Shi et al. 2019, appendix A); in expectation at least as high as `moe_loose`.  `present` as there.
    """
    kept = _only(log_w, present)
    return kept.flatten(0, 1).logsumexp(0) - _count(log_w, present).log() - math.log(log_w.shape[1])


def moe_naive(
    log_px: Float[Tensor, "experts samples *batch"],
    kl: Float[Tensor, "experts *batch"],
    present: Bool[Tensor, "experts *batch"] | None = None,
) -> Float[Tensor, "*batch"]:
    """The average of the experts' own ELBOs, 1/M sum_m (E_q_m[log p(x | z)] - KL(q_m || p)).

    Equation `eq-moe-naive` of the book.  `log_px` is log p(x | z), of all modalities together, at the samples of each
    expert.  The bound lies below the ELBO of the mixture, because the divergence of a mixture is at most the average
    divergence of its parts.
    """
    return _expert_mean(log_px.mean(1) - kl, present)


def moe_linear_time(
    experts: Sequence[Normal | Laplace],
    z: Float[Tensor, "experts samples *batch latent"],
    own_log_px: Callable[[Tensor], Tensor],
    kl: Float[Tensor, "experts *batch"],
    present: Bool[Tensor, "experts *batch"] | None = None,
    released_gradient: bool = False,
) -> Float[Tensor, "*batch"]:
    """`moe_naive` with each expert's samples decoded by its own decoder alone: M passes instead of M^2.

    Equation `eq-linear-time` of the book (Shi et al. 2019, appendix B): E_q_r[log p(x_d | z)] is estimated by
    E_q_d[(q_r / q_d)(z) log p(x_d | z)].
    `own_log_px` maps z to log p(x_d | z_d) of the same expert and modality d, [experts, samples, *batch].

    The importance weight counts as a number for expert d.  Its expectation does not depend on q_d, so here only
    the own term (r = d) moves the samples of d; `released_gradient` lets the cross terms move them too, as the
    authors' code does, which adds a bias to the gradient of q_d and nothing to the value.
    """
    path = z.view_as(z)
    still = z.detach()
    log_q = torch.stack([q.log_prob(still) for q in experts])  # [expert r, samples of d, ...]
    here = torch.stack([q.detach().log_prob(still[d]) for d, q in enumerate(experts)])
    log_ratio = torch.where(_own_expert(log_q), 0.0, log_q - here)
    if present is not None:
        log_ratio = torch.where(present[:, None, None], log_ratio, -math.inf)
    weight = log_ratio.exp().sum(0)
    if not released_gradient:
        _scale_gradient(path, 1 / weight.detach().clamp_min(1))
    log_px = own_log_px(path)
    return moe_naive(weight * log_px, kl, present)


def moe_bound(
    experts: Sequence[Normal | Laplace],
    z: Float[Tensor, "experts samples *batch latent"],
    log_joint: Callable[[Tensor], Tensor],
    bound: str = "loose",
    estimator: str = "iwae",
    present: Bool[Tensor, "experts *batch"] | None = None,
) -> Float[Tensor, "*batch"]:
    """A bound under the mixture 1/M sum_m q_m, with one of four gradients.  The value is the same for all four.

    z: reparameterised samples of every expert (`Mixture.rsample`).
    log_joint: maps z to log p(x, z), [experts, samples, *batch].
    bound: `loose` or `tight`.
    estimator: `iwae` differentiates the bound as it stands.  `stl` holds the parameters inside log q fixed, which is
        biased for K > 1 (Roeder et al. 2017) and is what the code of Shi et al. (2019) does in effect.  `dreg` also
        multiplies the gradient that reaches a sample by its normalised weight (Tucker et al. 2019): unbiased for one
        expert, biased for a mixture, whose samples come from q_m and not from the density in the weight.
        `dreg_mix` repairs this with the responsibilities; it is unbiased for both bounds and any number of experts.
        Equations `eq-iwae-gradient`, `eq-dreg` and `eq-dreg-mix` of the book derive them.
    present: which items have which expert; the mixture is over those, and every item needs one.

    Raises KeyError for an unknown bound or estimator.
    """
    check_name("bound", bound, BOUNDS)
    check_name("estimator", estimator, ESTIMATORS)
    path = z.view_as(z)  # the very tensor that the weights are computed from; a hook on a later copy does nothing
    used = experts if estimator == "iwae" else [q.detach() for q in experts]
    log_q = torch.stack([q.log_prob(path) for q in used])  # [expert j, samples of m, ...]
    log_w = log_joint(path) - _mixture_log_prob(log_q, present)
    value = BOUNDS[bound](log_w, present)
    if estimator in ("iwae", "stl"):
        return value
    weight = _normalised(log_w.detach(), bound, present)
    if estimator == "dreg":
        _scale_gradient(path, weight)
        return value
    rho = _responsibilities(log_q.detach(), present)
    own_rho = _own(rho)
    _scale_gradient(path, 1 - own_rho + own_rho * weight)
    return value + _mixture_correction(experts, used, z, weight, rho, bound, present)


def _mixture_correction(experts, frozen, z, weight, rho, bound, present) -> Float[Tensor, "*batch"]:
    """A term of value zero with the two gradients that `dreg` misses under a mixture.

    The responsibility of the own expert moves with the sample; and expert j keeps a score term on the samples of
    every other expert, which it cannot move.
    """
    moving_rho = _own(_responsibilities(torch.stack([q.log_prob(z) for q in frozen]), present))
    log_q = torch.stack([q.log_prob(z.detach()) for q in experts])
    score = torch.where(_own_expert(log_q), 0.0, rho * log_q).sum(0)
    if present is not None:
        weight = weight * present[:, None]
    terms = -(weight * (moving_rho + score)).sum((0, 1))
    if bound == "loose":
        terms = terms / _count(weight, present)
    return terms - terms.detach()


def _scale_gradient(z: Tensor, factor: Float[Tensor, "experts samples *batch"]) -> None:
    if z.requires_grad:
        z.register_hook(lambda grad: grad * factor[..., None])


def _count(values: Tensor, present: Tensor | None) -> Tensor:
    """How many experts each item has."""
    return values.new_tensor(float(len(values))) if present is None else present.sum(0).to(values.dtype)


def _only(values: Float[Tensor, "experts samples *batch"], present: Tensor | None) -> Tensor:
    return values if present is None else torch.where(present[:, None], values, -math.inf)


def _expert_mean(values: Float[Tensor, "experts *batch"], present: Tensor | None) -> Float[Tensor, "*batch"]:
    kept = values if present is None else torch.where(present, values, 0.0)
    return kept.sum(0) / _count(values, present)


def _mixture_log_prob(log_q: Float[Tensor, "experts strata samples *batch"], present: Tensor | None) -> Tensor:
    if present is not None:
        log_q = torch.where(present[:, None, None], log_q, -math.inf)
    return log_q.logsumexp(0) - _count(log_q, present).log()


def _responsibilities(log_q: Float[Tensor, "experts strata samples *batch"], present: Tensor | None) -> Tensor:
    return (log_q if present is None else torch.where(present[:, None, None], log_q, -math.inf)).softmax(0)


def _own_expert(log_q: Float[Tensor, "experts strata samples *batch"]) -> Tensor:
    """True where the expert is the one that drew the sample."""
    eye = torch.eye(len(log_q), dtype=torch.bool, device=log_q.device)
    return eye.reshape(*eye.shape, *[1] * (log_q.ndim - 2))


def _own(values: Float[Tensor, "experts strata samples *batch"]) -> Float[Tensor, "experts samples *batch"]:
    return torch.stack([values[m, m] for m in range(len(values))])


def _normalised(log_w: Float[Tensor, "experts samples *batch"], bound: str, present: Tensor | None) -> Tensor:
    """Each sample's weight as a share of the sum inside the logarithm that it belongs to."""
    if bound == "loose":
        return log_w.softmax(1)
    return _only(log_w, present).flatten(0, 1).softmax(0).unflatten(0, log_w.shape[:2])


BOUNDS = {"loose": moe_loose, "tight": moe_tight}
ESTIMATORS = ("iwae", "dreg", "stl", "dreg_mix")
