"""Combining one density per modality into one density of the shared latent.

Three products of Gaussian experts that look alike and differ, and the mixture.  With precisions
T_m = 1 / v_m and eta_m = T_m mu_m every product is a sum of natural parameters; the three forms
differ only in how often the prior is counted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mmvae_lite.distributions import Concrete, Laplace, Normal


class ImproperProduct(ValueError):
    """A quotient of Gaussians whose precision is not positive, so that it is no density."""


def _natural(experts: Sequence[Normal]) -> tuple[Tensor, Tensor]:
    """Stack the experts' natural parameters (T, eta), each [experts, *batch, latent]."""
    if not experts:
        raise ValueError("a product of experts needs at least 1 expert, got 0; the prior alone is Normal.standard")
    precision = torch.stack([e.precision for e in experts])
    return precision, precision * torch.stack([e.mean for e in experts])


def masked(expert: Normal, present: Bool[Tensor, "..."]) -> Normal:
    """The expert where `present` is True, and no opinion (precision 0) where it is False.

    `present` broadcasts against the expert's batch axes: [subsets, batch] with an expert [batch, latent]
    gives [subsets, batch, latent], so that one product serves every subset of the modalities at once.
    Precision 0 drops the expert from `product_with_prior` exactly (Wu and Goodman 2018, section 2).
    """
    logvar = torch.where(present[..., None], expert.logvar, math.inf)
    return Normal(expert.mean.expand_as(logvar), logvar)


def _standard_like(expert: Normal) -> Normal:
    return Normal.standard(*expert.mean.shape, like=expert.mean)


def product(experts: Sequence[Normal]) -> Normal:
    """The plain product of experts, prod_m N(mu_m, v_m), renormalised.

    Equation `eq-product` of the book: T = sum_m T_m, mu = sum_m T_m mu_m / T (Hinton 2002).
    Used for the shared code by Daunhawer et al. (2021).  If the experts are unimodal *posteriors* it
    counts the prior once per expert.

    Experts and result have shape [*batch, latent].  Raises ValueError for an empty list.
    """
    precision, eta = (t.sum(0) for t in _natural(experts))
    return Normal.from_precision(eta / precision, precision)


def product_with_prior(experts: Sequence[Normal], prior: Normal | None = None) -> Normal:
    """The product with a prior expert, p(z) prod_m N(mu_m, v_m), renormalised.

    Equation `eq-product-prior` of the book: T = T_0 + sum_m T_m (Wu and Goodman 2018, section 2;
    Lee and Pavlovic 2020).  Exact when expert m is the normalised *likelihood* p(x_m | z).

    Experts and result have shape [*batch, latent]; the prior defaults to N(0, I).  Raises ValueError for
    an empty list.
    """
    prior = prior or (_standard_like(experts[0]) if experts else None)
    return product([*experts, prior] if prior else [])


def quotient(experts: Sequence[Normal], prior: Normal | None = None) -> Normal:
    """The quotient form, prod_m q_m(z) / p(z)^(M - 1), renormalised.

    Equation `eq-quotient` of the book: T = sum_m T_m - (M - 1) T_0 (Daunhawer et al. 2021, equation 2).
    Exact when expert m is the unimodal posterior p(z | x_m) and the modalities are conditionally
    independent given z.

    Experts and result have shape [*batch, latent]; the prior defaults to N(0, I).  Raises
    ImproperProduct, a ValueError, where the precision is not positive in some dimension, equation `eq-proper`.
    """
    precision, eta = _natural(experts)
    prior = prior or _standard_like(experts[0])
    surplus = len(experts) - 1
    total = precision.sum(0) - surplus * prior.precision
    if not bool((total > 0).all()):
        dims = (total <= 0).reshape(-1, total.shape[-1]).any(0).nonzero().flatten().tolist()
        raise ImproperProduct(
            f"quotient of {len(experts)} experts: the precision is {float(total.min().detach()):.4g}, wanted more than 0 "
            f"(latent dimensions {dims}); the experts are vaguer than the prior that is divided out, "
            "use product_with_prior on likelihood experts instead"
        )
    return Normal.from_precision((eta.sum(0) - surplus * prior.precision * prior.mean) / total, total)


def log_normaliser(
    experts: Sequence[Normal], powers: Sequence[float] | None = None
) -> Float[Tensor, "*batch latent"]:
    """log of the integral of prod_i N(z; mu_i, 1 / T_i)^(a_i), one value per dimension.

    Equation `eq-log-normaliser` of the book, with a_i the `powers` (all 1 by default).  A prior expert
    is an expert with power +1, a divided-out prior one with power -(M - 1).  For two plain experts it is the
    log-density of their disagreement, log N(mu_1; mu_2, v_1 + v_2), equation `eq-agreement`.

    Raises ValueError when the numbers of experts and powers differ, ImproperProduct when the total
    precision is not positive.
    """
    powers = [1.0] * len(experts) if powers is None else list(powers)
    if len(powers) != len(experts):
        raise ValueError(f"log_normaliser needs one power per expert, got {len(powers)} powers for {len(experts)} experts")
    precision, eta = _natural(experts)
    a = precision.new_tensor(powers).reshape(-1, *[1] * (precision.ndim - 1))
    total, shift = (a * precision).sum(0), (a * eta).sum(0)
    if not bool((total > 0).all()):
        raise ImproperProduct(f"the total precision is {float(total.min().detach()):.4g}, wanted more than 0")
    log_peaks = 0.5 * (precision.log() - math.log(2 * math.pi)) - 0.5 * eta.square() / precision
    return 0.5 * (math.log(2 * math.pi) - total.log()) + 0.5 * shift.square() / total + (a * log_peaks).sum(0)


@dataclass(frozen=True)
class Mixture:
    """The mixture of experts q(z) = 1/M sum_m q_m(z) (Shi et al. 2019, section 3).

    Equation `eq-mixture` of the book.  Each expert has shape [*batch, latent].
    """

    experts: tuple[Normal | Laplace, ...]

    def __post_init__(self) -> None:
        if not self.experts:
            raise ValueError("a mixture of experts needs at least 1 expert, got 0")

    def rsample(
        self, samples: tuple[int, ...] = (), generator: torch.Generator | None = None
    ) -> Float[Tensor, "experts ..."]:
        """Stratified draws, `samples` from *every* expert: [experts, *samples, *batch, latent]."""
        return torch.stack([q.rsample(samples, generator) for q in self.experts])

    @property
    def mean(self) -> Float[Tensor, "*batch latent"]:
        """The average of the experts' means, which may lie where the density is low."""
        return torch.stack([q.mean for q in self.experts]).mean(0)

    def draw(self, generator: torch.Generator | None = None) -> Float[Tensor, "*batch latent"]:
        """One draw for each item: an expert, each as likely as the others, and a draw from it."""
        z = self.rsample((), generator)
        chosen = torch.rand(z.shape[:-1], dtype=z.dtype, device=z.device, generator=generator).argmax(0)
        return z.gather(0, chosen[None, ..., None].expand_as(z[:1]))[0]

    def expert_log_probs(self, z: Float[Tensor, "..."]) -> Float[Tensor, "experts ..."]:
        """log q_m(z) of every expert: [*samples, *batch, latent] -> [experts, *samples, *batch]."""
        return torch.stack([q.log_prob(z) for q in self.experts])

    def log_prob(self, z: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """log q(z) by log-sum-exp over the experts: [*samples, *batch, latent] -> [*samples, *batch].

        By equation `eq-mixture-floor` of the book it is at least the best expert's, less log M.
        """
        return self.expert_log_probs(z).logsumexp(0) - math.log(len(self.experts))

    def responsibilities(self, z: Float[Tensor, "..."]) -> Float[Tensor, "experts ..."]:
        """rho_m(z) = q_m(z) / sum_j q_j(z), which sum to 1 over the experts."""
        return self.expert_log_probs(z).softmax(0)


def concrete_product(experts: Sequence[Concrete], prior: Concrete | None = None) -> Concrete:
    """The concrete variable whose class probabilities are the product of the experts', renormalised.

    Equation `eq-concrete-product` of the book: normalised class log-probabilities add up; the prior is uniform by default
    and then adds nothing.  So the argmax of a draw follows the categorical product of experts at every temperature.  Lee and Pavlovic (2020, equation 8)
    write a product of concrete *densities*, which has no finite integral at their temperature; their code computes
    what is here.

    Experts and result have shape [*batch, classes].  Raises ValueError for an empty list or unequal temperatures.
    """
    if not experts:
        raise ValueError("a product of experts needs at least 1 expert, got 0; the prior alone is Concrete.uniform")
    members = [*experts, prior] if prior else list(experts)
    temperatures = sorted({e.temperature for e in members})
    if len(temperatures) > 1:
        raise ValueError(f"concrete_product: found temperatures {temperatures}, wanted the same in every expert")
    return Concrete(torch.stack([e.log_probs for e in members]).sum(0), temperatures[0])


def concrete_root(z: Float[Tensor, "..."], experts: int, eps: float = 1e-9) -> Float[Tensor, "..."]:
    """The root (z + eps)^(1 / experts) that Lee and Pavlovic (2020) feed to a decoder, [..., classes].

    Equation `eq-concrete-root` of the book.  They read their equation 8 as "the cube of z is concrete", with two experts and the prior.  The result leaves the
    simplex, except at its vertices.
    """
    return (z + eps) ** (1 / experts)
