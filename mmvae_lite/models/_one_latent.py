"""The verbs of a model with one latent z.

They are functions of the model, and each class takes over by name those that its paper leaves as they are:
`sample, traverse = one_latent.sample, one_latent.traverse`.  They use its `latent_dim`, `decoders`, `likelihoods`,
`event_shapes`, `modalities`, `prior` and `posterior`.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mmvae_lite.checks import check_batch, check_name, check_positive
from mmvae_lite.distributions import Normal
from mmvae_lite.models._common import decode_flat, evidence, parameter_like, reparameterised, score, shared_latent, traversal


def check(self: nn.Module, batch: Mapping[str, Tensor], allow_empty: bool = False) -> None:
    """Raise one clear error for a batch that the model cannot read, as `check_batch` does."""
    check_batch(batch, self.likelihoods, self.event_shapes, allow_empty, parameter_like(self))


def prior(self: nn.Module, n: int) -> Normal:
    """p(z) = N(0, I) of shape [n, latent]."""
    return Normal.standard(n, self.latent_dim, like=parameter_like(self))


def decode(self: nn.Module, latents: Mapping[str, Float[Tensor, "*lead latent"]]) -> dict[str, Tensor]:
    """The mean of p(x_m | z) for every modality, [*lead, *event]."""
    z = shared_latent(latents, self.latent_dim, parameter_like(self))
    return {m: self.likelihoods[m].mean(decode_flat(d, z)) for m, d in self.decoders.items()}


def log_px(
    self: nn.Module, name: str, z: Float[Tensor, "*lead batch latent"], x: Float[Tensor, "batch *event"]
) -> Float[Tensor, "*lead batch"]:
    """log p(x_m | z) of one modality, unweighted."""
    return score(self.decoders[name], self.likelihoods[name], z, x)


def sample(self: nn.Module, n: int, generator: torch.Generator | None = None) -> dict[str, Tensor]:
    """Means of p(x_m | z) at n joint draws z ~ p(z), each [n, *event]."""
    check_positive("n", n)
    return self.decode({"shared": self.prior(n).rsample(generator=generator)})


def translate(
    self: nn.Module, batch: Mapping[str, Tensor], to: str, sample: bool = False, generator: torch.Generator | None = None
) -> Float[Tensor, "batch *event"]:
    """The mean of p(x_to | z) with z the mean of q(z | x_S), or a draw from it."""
    check_name("modality", to, self.modalities)
    z = reparameterised(self.posterior(batch)["shared"], sample, generator)
    return self.likelihoods[to].mean(self.decoders[to](z))


def swap(self: nn.Module, content: Mapping[str, Tensor], style: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Raises NotImplementedError: one latent holds content and style together."""
    raise NotImplementedError(f"{type(self).__name__} has one shared latent and no private style; use PVAE, DMVAE-D or DMVAE-L")


def traverse(
    self: nn.Module, latents: Mapping[str, Float[Tensor, "latent"]], dim: int, values: Float[Tensor, "steps"]
) -> dict[str, Tensor]:
    """Decode one latent with coordinate `dim` set to each of `values`: [steps, *event] for each modality."""
    return self.decode({"shared": traversal(shared_latent(latents, self.latent_dim, parameter_like(self)), dim, values)})


def log_likelihood(
    self: nn.Module,
    batch: Mapping[str, Tensor],
    samples: int = 1000,
    chunk: int = 100,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "batch"]:
    """An importance-sampled lower bound of log p(x_S) per item, in nats, with q(z | x_S) as proposal."""
    self._check(batch)
    return evidence(self.posterior(batch)["shared"], self.log_px, batch, samples, chunk, generator)
