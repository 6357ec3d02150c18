"""Linear-Gaussian worlds in which every posterior and every evidence is known in closed form."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mmvae_lite.distributions import LOG_2PI, Normal, kl

Subset = Sequence[int]


@dataclass(frozen=True)
class LinearGaussian:
    """z ~ N(0, 1) and x_m | z ~ N(w_m z, s_m^2), with scalar z and one scalar modality per entry.

    Equation `eq-linear-gaussian` of the book.  `weights` are w_m, `variances` are s_m^2.  Everything is float64.  Given a subset of modalities,
    the posterior has precision 1 + sum_m w_m^2 / s_m^2 (Bishop 2006, section 2.3.3).
    """

    weights: tuple[float, ...]
    variances: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.weights) != len(self.variances) or not self.weights:
            raise ValueError(f"found {len(self.weights)} weights and {len(self.variances)} variances, wanted as many of each, at least 1")
        if min(self.variances) <= 0:
            raise ValueError(f"variances: found {min(self.variances)}, wanted more than 0")

    def experts(self, x: Mapping[int, Float[Tensor, "batch"]]) -> list[Normal]:
        """The likelihood experts: p(x_m | z) read as a density of z, N(x_m / w_m, s_m^2 / w_m^2), each [batch, 1]."""
        return [
            Normal(
                (x[m].double() / self.weights[m])[..., None],
                torch.full_like(x[m].double(), math.log(self.variances[m] / self.weights[m] ** 2))[..., None],
            )
            for m in sorted(x)
        ]

    def posterior(self, x: Mapping[int, Float[Tensor, "batch"]]) -> Normal:
        """The exact p(z | x_S) of shape [batch, 1], for S the keys of `x`; the prior's precision is counted once.

        Equation `eq-world-posterior` of the book (Bishop 2006, section 2.3.3).
        """
        if not x:
            return Normal.standard(1, 1, like=torch.empty(0, dtype=torch.float64))
        precision = 1 + sum(self.weights[m] ** 2 / self.variances[m] for m in x)
        eta = sum(self.weights[m] * value.double() / self.variances[m] for m, value in x.items())
        mean = (eta / precision)[..., None]
        return Normal(mean, torch.full_like(mean, -math.log(precision)))

    def log_prob(self, x: Mapping[int, Float[Tensor, "batch"]]) -> Float[Tensor, "batch"]:
        """The exact log p(x_S) = log N(x_S; 0, w w' + diag(s^2)), in nats.

        Equation `eq-world-evidence` of the book (Bishop 2006, section 2.3.3).
        """
        chosen = sorted(x)
        w = torch.tensor([self.weights[m] for m in chosen], dtype=torch.float64)
        covariance = torch.outer(w, w) + torch.diag(torch.tensor([self.variances[m] for m in chosen], dtype=torch.float64))
        values = torch.stack([x[m].double() for m in chosen], -1)
        squares = (values * torch.linalg.solve(covariance, values.T).T).sum(-1)
        return -0.5 * (squares + torch.logdet(covariance) + len(chosen) * LOG_2PI)

    def predict(self, x: Mapping[int, Float[Tensor, "batch"]], modality: int) -> Normal:
        """The exact p(x_m | x_S) of a modality that is not in S, [batch, 1]: the posterior's spread, carried over, plus the noise.

        Equation `eq-world-predictive` of the book (Bishop 2006, section 2.3.3).  Its `log_prob` at x_m is the conditional
        evidence log p(x_S, x_m) - log p(x_S).  Raises ValueError when the modality is observed already.
        """
        if modality in x:
            raise ValueError(f"modality: found {modality}, which is observed; wanted one that is not among {sorted(x)}")
        q, w = self.posterior(x), self.weights[modality]
        return Normal(w * q.mean, (w**2 * q.var + self.variances[modality]).log())

    def elbo(self, x: Mapping[int, Float[Tensor, "batch"]], q: Normal) -> Float[Tensor, "batch"]:
        """The ELBO of a Gaussian q [batch, 1] without any sampling, E_q[log p(x_S | z)] - KL(q || p(z)), in nats.

        Equation `eq-linear-elbo` of the book; it lies KL(q || p(z | x_S)) below the evidence, equation `eq-gap`
        (Kingma and Welling 2014, equation 1).
        """
        fit = torch.zeros((), dtype=torch.float64)
        for m, value in x.items():
            w, v = self.weights[m], self.variances[m]
            squares = (value.double()[..., None] - w * q.mean).square() + w**2 * q.var
            fit = fit - 0.5 * (squares / v + math.log(v) + LOG_2PI).sum(-1)
        return fit - kl(q, Normal.standard(*q.mean.shape, like=q.mean))

    def information(self, modalities: Subset) -> float:
        """I(z; x_S) = 1/2 log(1 + sum_m w_m^2 / s_m^2), what the modalities in S tell about z, in nats.

        Equation `eq-world-information` of the book (Cover and Thomas 2006, section 9.1, for one channel).
        """
        return 0.5 * math.log(1 + sum(self.weights[m] ** 2 / self.variances[m] for m in set(modalities)))

    def shared_information(self, modalities: Subset) -> float:
        """The total correlation of x_S, sum_m I(z; x_m) - I(z; x_S) >= 0, in nats; of two modalities, I(x_1; x_2).

        Equation `eq-shared-information` of the book (Watanabe 1960 for the total correlation).
        """
        return sum(self.information([m]) for m in set(modalities)) - self.information(modalities)

    def sample(self, n: int, generator: torch.Generator | None = None) -> dict[int, Float[Tensor, "batch"]]:
        """n joint draws of all modalities, one z for all of them; for LG3 equation `eq-melon` of the book."""
        z = torch.randn(n, dtype=torch.float64, generator=generator)
        noise = torch.randn(len(self.weights), n, dtype=torch.float64, generator=generator)
        return {m: w * z + math.sqrt(v) * noise[m] for m, (w, v) in enumerate(zip(self.weights, self.variances))}


LG3 = LinearGaussian(weights=(1.0, 2.0, -1.0), variances=(1.0, 1.0, 0.5))
"""The three-modality world of the book's worked examples."""

LG3_OBSERVATION = {0: torch.tensor([1.0]).double(), 1: torch.tensor([1.5]).double(), 2: torch.tensor([-0.5]).double()}
"""One observation of LG3, the one that the book's figures and exercises use."""


@dataclass(frozen=True)
class PartitionedGaussian:
    """z_s, z_1 .. z_M ~ N(0, 1) and x_m | z ~ N(a_m z_s + b_m z_m, s_m^2), all of them scalar.

    The exact case of a model with a shared and private latents; for LG_PVAE equation `eq-lamp` of the book.  `shared` are a_m, `private` are b_m, `variances`
    are s_m^2.  Everything is float64.  Latents are in the order z_s, z_1 .. z_M; a style whose modality is not among
    the observed ones keeps its prior.
    """

    shared: tuple[float, ...]
    private: tuple[float, ...]
    variances: tuple[float, ...]

    def __post_init__(self) -> None:
        if not len(self.shared) == len(self.private) == len(self.variances) or not self.shared:
            raise ValueError(
                f"found {len(self.shared)} shared and {len(self.private)} private weights and {len(self.variances)} variances, "
                "wanted as many of each, at least 1"
            )
        if min(self.variances) <= 0:
            raise ValueError(f"variances: found {min(self.variances)}, wanted more than 0")

    def _loadings(self, modalities: Subset) -> tuple[Float[Tensor, "observed latents"], Float[Tensor, "observed"]]:
        """The rows of x_S = W z + noise, and the variances of the noise."""
        shared, private, variances = (torch.tensor(t, dtype=torch.float64) for t in (self.shared, self.private, self.variances))
        w = torch.cat([shared[:, None], torch.diag(private)], 1)
        return w[list(modalities)], variances[list(modalities)]

    def precision(self, modalities: Subset) -> Float[Tensor, "latents latents"]:
        """The precision matrix of p(z | x_S), I + W' diag(1 / s^2) W (Bishop 2006, section 2.3.3)."""
        w, variances = self._loadings(modalities)
        return torch.eye(w.shape[1], dtype=torch.float64) + w.T @ (w / variances[:, None])

    def posterior(self, x: Mapping[int, Float[Tensor, "batch"]]) -> tuple[Float[Tensor, "batch latents"], Float[Tensor, "latents latents"]]:
        """The mean and the covariance of the exact p(z | x_S), for S the keys of `x`, at least one."""
        chosen = sorted(x)
        w, variances = self._loadings(chosen)
        covariance = torch.linalg.inv(self.precision(chosen))
        return torch.stack([x[m].double() for m in chosen], -1) / variances @ w @ covariance, covariance

    def information(self, latent: int, modalities: Subset) -> float:
        """I(z_i; x_S) = -1/2 log Var(z_i | x_S), what the modalities in S tell about one latent, in nats.

        Equation `eq-latent-information` of the book.  Zero for a style whose modality is not in S.
        """
        return -0.5 * math.log(float(torch.linalg.inv(self.precision(sorted(set(modalities))))[latent, latent]))

    def mean_field(self, x: Mapping[int, Float[Tensor, "batch"]]) -> Normal:
        """The factorised q with the least KL(q || p(z | x_S)): the exact mean, and 1 over the diagonal of the precision."""
        mean, _ = self.posterior(x)
        return Normal(mean, -self.precision(sorted(x)).diagonal().log().expand_as(mean))

    def mean_field_gap(self, modalities: Subset) -> float:
        """The evidence minus the best factorised ELBO: 1/2 (sum_i log L_ii - log det L) for the precision L.

        Equation `eq-mean-field-gap` of the book (Bishop 2006, section 10.1.2, for the factorised Gaussian).
        """
        precision = self.precision(modalities)
        return 0.5 * float(precision.diagonal().log().sum() - torch.logdet(precision))

    def log_prob(self, x: Mapping[int, Float[Tensor, "batch"]]) -> Float[Tensor, "batch"]:
        """The exact log p(x_S) in nats."""
        chosen = sorted(x)
        w, variances = self._loadings(chosen)
        covariance = w @ w.T + torch.diag(variances)
        values = torch.stack([x[m].double() for m in chosen], -1)
        squares = (values * torch.linalg.solve(covariance, values.T).T).sum(-1)
        return -0.5 * (squares + torch.logdet(covariance) + len(chosen) * LOG_2PI)


LG_PVAE = PartitionedGaussian(shared=(1.0, 2.0), private=(1.0, -1.0), variances=(0.5, 0.25))
"""Two modalities with one shared and two private latents: the worked example of the chapter on PVAE."""

LG_PVAE_OBSERVATION = {0: torch.tensor([1.2], dtype=torch.float64), 1: torch.tensor([-0.7], dtype=torch.float64)}
"""One observation of LG_PVAE."""
