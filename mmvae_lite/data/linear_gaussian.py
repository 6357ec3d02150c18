"""A linear-Gaussian world in which every posterior and every evidence is known in closed form."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from mmvae_lite.distributions import LOG_2PI, Normal

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
        """The exact p(z | x_S) of shape [batch, 1], for S the keys of `x`; the prior's precision is counted once."""
        if not x:
            return Normal.standard(1, 1, like=torch.empty(0, dtype=torch.float64))
        precision = 1 + sum(self.weights[m] ** 2 / self.variances[m] for m in x)
        eta = sum(self.weights[m] * value.double() / self.variances[m] for m, value in x.items())
        mean = (eta / precision)[..., None]
        return Normal(mean, torch.full_like(mean, -math.log(precision)))

    def log_prob(self, x: Mapping[int, Float[Tensor, "batch"]]) -> Float[Tensor, "batch"]:
        """The exact log p(x_S) = log N(x_S; 0, w w' + diag(s^2)), in nats."""
        chosen = sorted(x)
        w = torch.tensor([self.weights[m] for m in chosen], dtype=torch.float64)
        covariance = torch.outer(w, w) + torch.diag(torch.tensor([self.variances[m] for m in chosen], dtype=torch.float64))
        values = torch.stack([x[m].double() for m in chosen], -1)
        squares = (values * torch.linalg.solve(covariance, values.T).T).sum(-1)
        return -0.5 * (squares + torch.logdet(covariance) + len(chosen) * LOG_2PI)

    def sample(self, n: int, generator: torch.Generator | None = None) -> dict[int, Float[Tensor, "batch"]]:
        """n joint draws of all modalities."""
        z = torch.randn(n, dtype=torch.float64, generator=generator)
        noise = torch.randn(len(self.weights), n, dtype=torch.float64, generator=generator)
        return {m: w * z + math.sqrt(v) * noise[m] for m, (w, v) in enumerate(zip(self.weights, self.variances))}


LG3 = LinearGaussian(weights=(1.0, 2.0, -1.0), variances=(1.0, 1.0, 0.5))
"""The three-modality world of the book's worked examples."""

LG3_OBSERVATION = {0: torch.tensor([1.0]).double(), 1: torch.tensor([1.5]).double(), 2: torch.tensor([-0.5]).double()}
"""One observation of LG3, the one that the book's figures and exercises use."""
