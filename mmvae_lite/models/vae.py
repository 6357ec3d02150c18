"""The variational autoencoder of one modality (Kingma and Welling 2014)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mmvae_lite.bounds import elbo
from mmvae_lite.checks import check_batch, check_name, check_positive
from mmvae_lite.distributions import Likelihood, Normal, kl
from mmvae_lite.models._common import (
    check_target,
    decode_flat,
    event_shapes,
    importance_log_likelihood,
    parameter_like,
    reparameterised,
    score,
    shared_latent,
    traversal,
)


class VAE(nn.Module):
    """p(z) p(x | z) with an amortised posterior q(z | x).

    encoder: maps [batch, *event] to a `Normal` of shape [batch, latent].
    decoder: maps [batch, latent] to the parameters of the likelihood, [batch, *event].
    modality: the name under which a batch holds x.
    beta: weight of the KL term, 1 for the bound.

    Raises ValueError for a latent_dim below 1.
    """

    # The bound itself; there is nothing in which text and program could differ.
    PRESETS = {"paper": {"beta": 1.0}, "code": {"beta": 1.0}}

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        likelihood: Likelihood,
        latent_dim: int,
        modality: str = "image",
        beta: float = 1.0,
    ) -> None:
        super().__init__()
        check_positive("latent_dim", latent_dim)
        self.encoder, self.decoder, self.likelihood = encoder, decoder, likelihood
        self.latent_dim, self.modality, self.beta = latent_dim, modality, beta
        self.event_shapes = event_shapes({modality: decoder}, latent_dim)

    def _check(self, batch: Mapping[str, Tensor], allow_empty: bool = False) -> None:
        check_batch(batch, {self.modality: self.likelihood}, self.event_shapes, allow_empty, parameter_like(self))

    def prior(self, n: int) -> Normal:
        """p(z) = N(0, I) of shape [n, latent]."""
        return Normal.standard(n, self.latent_dim, like=parameter_like(self))

    def posterior(self, batch: Mapping[str, Float[Tensor, "batch ..."]], n: int = 1) -> dict[str, Normal]:
        """q(z | x) of shape [batch, latent], under the key `shared`; an empty batch gives the prior, [n, latent]."""
        self._check(batch, allow_empty=True)
        if not batch:
            return {"shared": self.prior(n)}
        return {"shared": self.encoder(batch[self.modality])}

    def decode(self, latents: Mapping[str, Float[Tensor, "*lead latent"]]) -> dict[str, Tensor]:
        """The mean of p(x | z), [*lead, *event], under the modality's name."""
        params = decode_flat(self.decoder, shared_latent(latents, self.latent_dim, parameter_like(self)))
        return {self.modality: self.likelihood.mean(params)}

    def log_px(self, z: Float[Tensor, "*lead batch latent"], x: Float[Tensor, "batch *event"]) -> Float[Tensor, "*lead batch"]:
        """log p(x | z), summed over the event."""
        return score(self.decoder, self.likelihood, z, x)

    def loss(
        self,
        batch: Mapping[str, Float[Tensor, "batch ..."]],
        target: Mapping[str, Float[Tensor, "batch ..."]] | None = None,
        observed: Mapping[str, Tensor] | None = None,
        generator: torch.Generator | None = None,
    ) -> dict[str, Float[Tensor, ""]]:
        """The negative ELBO, equation `eq-elbo` of the book, with one sample of z; mean over the batch.

        `target` holds what is to be reconstructed, the input itself by default.  Returns the total under `loss`
        and the unweighted terms `recon/<modality>` = E_q[log p(x | z)] and `kl`.
        Raises ValueError if `observed` is given, because a VAE has nothing else to infer from.
        """
        if observed is not None:
            raise ValueError("a VAE sees one modality, so no item of it can be absent; drop those items")
        self._check(batch)
        if target is not None:
            self._check(target)
            check_target(target, batch)
        q = self.posterior(batch)["shared"]
        x = (target or batch)[self.modality]
        log_px, divergence = self.log_px(q.rsample(generator=generator), x), kl(q, self.prior(len(x)))
        bound = elbo(log_px, divergence, self.beta).mean()
        return {"loss": -bound, f"recon/{self.modality}": log_px.mean(), "kl": divergence.mean()}

    def sample(self, n: int, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Means of p(x | z) at n draws z ~ p(z), [n, *event]."""
        check_positive("n", n)
        return self.decode({"shared": self.prior(n).rsample(generator=generator)})

    def translate(
        self,
        batch: Mapping[str, Tensor],
        to: str,
        sample: bool = False,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "batch *event"]:
        """Reconstruct x from the posterior mean, or from a draw.  Raises KeyError for any other modality."""
        check_name("modality", to, [self.modality])
        q = self.posterior(batch)["shared"]
        return self.decode({"shared": reparameterised(q, sample, generator)})[to]

    def swap(self, content: Mapping[str, Tensor], style: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Raises NotImplementedError: the one latent of a VAE has no style apart from content."""
        raise NotImplementedError("a VAE has one latent and no private style; use PVAE, DMVAE-D or DMVAE-L")

    def traverse(
        self, latents: Mapping[str, Float[Tensor, "latent"]], dim: int, values: Float[Tensor, "steps"]
    ) -> dict[str, Tensor]:
        """Decode one latent with coordinate `dim` set to each of `values`: [steps, *event]."""
        return self.decode({"shared": traversal(shared_latent(latents, self.latent_dim, parameter_like(self)), dim, values)})

    def log_likelihood(
        self,
        batch: Mapping[str, Tensor],
        samples: int = 1000,
        chunk: int = 100,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "batch"]:
        """An importance-sampled lower bound of log p(x) per item, in nats (Burda et al. 2016)."""
        self._check(batch)
        q, x = self.posterior(batch)["shared"], batch[self.modality]
        return importance_log_likelihood(q, self.prior(len(x)), lambda z: self.log_px(z, x), samples, chunk, generator)
