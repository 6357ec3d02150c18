"""CVAE: a variational autoencoder of one modality given its class, the generator of entangled data (Korthals et al. 2019)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mmvae_lite.bounds import elbo
from mmvae_lite.checks import check_batch, check_name, check_observed, check_positive
from mmvae_lite.distributions import CategoricalLikelihood, Likelihood, Normal, kl
from mmvae_lite.models._common import (
    check_target, decode_flat, event_shapes, evidence, parameter_like, reparameterised, score, shared_latent, traversal,
)  # fmt: skip


class CVAE(nn.Module):
    """p(z) p(x | z, C) with q(z | x, C); the prior N(0, I) is the same for every class (Sohn et al. 2015).

    So the latent holds what the class leaves open, and one z decodes in every class: that superimposes the latent
    spaces of several CVAEs, see `mmvae_lite.data.entangle`.

    encoder: maps x [batch, *event] and one-hot labels [batch, classes] to a `Normal` [batch, latent].
    decoder: maps [batch, latent + classes], the label after the latent, to the parameters of the likelihood.
    modality, label: the names under which a batch holds x and C.
    beta: weight of the KL term, 1 for the bound.

    Raises ValueError for a latent_dim or a number of classes below 1, or one name for both.
    """

    # The paper takes up the idea of beta-VAE without a value, so that both presets have that of the released program.
    PRESETS = {"paper": {"beta": 4.0}, "code": {"beta": 4.0}}

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        likelihood: Likelihood,
        latent_dim: int,
        classes: int = 10,
        modality: str = "image",
        label: str = "label",
        beta: float = 1.0,
    ) -> None:
        super().__init__()
        check_positive("latent_dim", latent_dim)
        check_positive("classes", classes)
        if modality == label:
            raise ValueError(f"modality and label are both called {label!r}; wanted two names")
        self.encoder, self.decoder, self.likelihood = encoder, decoder, likelihood
        self.latent_dim, self.classes, self.modality, self.label, self.beta = latent_dim, classes, modality, label, beta
        self.likelihoods = {modality: likelihood, label: CategoricalLikelihood()}  # the label is checked, not modelled
        self.event_shapes = event_shapes({modality: decoder}, latent_dim + classes) | {label: (classes,)}

    def _check(self, batch: Mapping[str, Tensor], allow_empty: bool = False) -> None:
        check_batch(batch, self.likelihoods, self.event_shapes, allow_empty, parameter_like(self))

    def prior(self, n: int) -> Normal:
        """p(z) = N(0, I) of shape [n, latent]."""
        return Normal.standard(n, self.latent_dim, like=parameter_like(self))

    def posterior(self, batch: Mapping[str, Float[Tensor, "batch ..."]], n: int = 1) -> dict[str, Normal]:
        """q(z | x, C) of shape [batch, latent], under the key `shared`.

        A label alone says nothing about z, so it gives the prior [batch, latent]; an empty batch the prior [n, latent].
        Raises NotImplementedError for x without its label.
        """
        self._check(batch, allow_empty=True)
        if self.modality not in batch:
            return {"shared": self.prior(len(batch[self.label]) if batch else n)}
        return {"shared": self.encoder(batch[self.modality], self._class_of(batch))}

    def _class_of(self, given: Mapping[str, Tensor]) -> Tensor:
        if self.label not in given:
            raise NotImplementedError(f"CVAE models {self.modality!r} given its class: {self.label!r} is missing, wanted one-hot rows of {self.classes}")
        return given[self.label]

    def decode(self, latents: Mapping[str, Float[Tensor, "*lead width"]]) -> dict[str, Tensor]:
        """The mean of p(x | z, C), [*lead, *event], for `shared` [*lead, latent] and the label, one-hot [*lead, classes]."""
        z = shared_latent(latents, self.latent_dim, parameter_like(self))
        return {self.modality: self.likelihood.mean(decode_flat(self.decoder, self._joined(z, self._class_of(latents))))}

    def _joined(self, z: Float[Tensor, "*lead latent"], label: Float[Tensor, "..."]) -> Float[Tensor, "*lead width"]:
        """What the decoder reads."""
        lead = z.shape[:-1]
        axes = zip(reversed(label.shape[:-1]), reversed(lead))
        if label.shape[-1:] != (self.classes,) or label.ndim > z.ndim or any(a not in (1, b) for a, b in axes):
            wanted = [*lead, self.classes]
            raise ValueError(f"{self.label!r}: found shape {list(label.shape)}, wanted one-hot rows {wanted} or one row [{self.classes}]")
        return torch.cat([z, label.to(z).expand(*lead, self.classes)], -1)

    def log_px(
        self, z: Float[Tensor, "*lead batch latent"], x: Float[Tensor, "batch *event"], label: Float[Tensor, "batch classes"]
    ) -> Float[Tensor, "*lead batch"]:
        """log p(x | z, C), summed over the event."""
        return score(self.decoder, self.likelihood, self._joined(z, label), x)

    def loss(
        self,
        batch: Mapping[str, Float[Tensor, "batch ..."]],
        target: Mapping[str, Float[Tensor, "batch ..."]] | None = None,
        observed: Mapping[str, Bool[Tensor, "batch"]] | None = None,
        generator: torch.Generator | None = None,
    ) -> dict[str, Float[Tensor, ""]]:
        """The negative of E_q[log p(x | z, C)] - beta KL(q(z | x, C) || p(z)) with one sample of z; mean over the batch.

        Equation `eq-cvae` of the book.

        `target` holds what is to be reconstructed, the input itself by default.  Returns the total under `loss` and
        the unweighted terms `recon/<modality>` and `kl`.
        Raises NotImplementedError for items that lack the modality or the label.
        """
        self._check(batch)
        if target is not None:
            self._check(target)
            check_target(target, {m: x for m, x in batch.items() if m == self.modality} or batch)
        masks = {} if observed is None else observed
        check_observed(masks, batch, len(next(iter(batch.values()))), self.event_shapes)
        if len(batch) < 2 or not all(bool(mask.all()) for mask in masks.values()):
            raise NotImplementedError(f"CVAE trains on items that have both {self.modality!r} and {self.label!r}; drop the others")
        q, x = self.posterior(batch)["shared"], (target or batch)[self.modality]
        log_px = self.log_px(q.rsample(generator=generator), x, batch[self.label])
        divergence = kl(q, self.prior(len(x)))
        bound = elbo(log_px, divergence, self.beta).mean()
        return {"loss": -bound, f"recon/{self.modality}": log_px.mean(), "kl": divergence.mean()}

    def sample(
        self, n: int, generator: torch.Generator | None = None, label: Float[Tensor, "*n classes"] | None = None
    ) -> dict[str, Tensor]:
        """Means of p(x | z, C) at n draws z ~ p(z), [n, *event], for one label [classes] or one each [n, classes].

        Raises NotImplementedError without a label, because the model has no p(C).
        """
        check_positive("n", n)
        z = self.prior(n).rsample(generator=generator)
        return self.decode({"shared": z} | ({} if label is None else {self.label: label}))

    def translate(
        self, batch: Mapping[str, Tensor], to: str, sample: bool = False, generator: torch.Generator | None = None
    ) -> Float[Tensor, "batch *event"]:
        """Reconstruct x given its class, or, from a label alone, decode the prior's mean or a draw from it."""
        check_name("modality", to, [self.modality])
        z = reparameterised(self.posterior(batch)["shared"], sample, generator)
        return self.decode({"shared": z, **{k: v for k, v in batch.items() if k == self.label}})[to]

    def swap(self, content: Mapping[str, Tensor], style: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The class of `content` with the latent mean of `style`: analogies across classes, [batch, *event]."""
        self._check(content)
        return self.decode({"shared": self.posterior(style)["shared"].mean, self.label: self._class_of(content)})

    def traverse(self, latents: Mapping[str, Tensor], dim: int, values: Float[Tensor, "steps"]) -> dict[str, Tensor]:
        """Decode one latent [latent] in one class [classes] with coordinate `dim` set to each of `values`: [steps, *event]."""
        return self.decode({**latents, "shared": traversal(shared_latent(latents, self.latent_dim, parameter_like(self)), dim, values)})

    def log_likelihood(
        self, batch: Mapping[str, Tensor], samples: int = 1000, chunk: int = 100, generator: torch.Generator | None = None
    ) -> Float[Tensor, "batch"]:
        """An importance-sampled lower bound of log p(x | C) per item, in nats.

        Raises NotImplementedError for a label alone, of which there is no model.
        """
        self._check(batch)
        if self.modality not in batch:
            raise NotImplementedError(f"CVAE has no p({self.label}); give {self.modality!r} as well")
        q, label = self.posterior(batch)["shared"], self._class_of(batch)
        x = {self.modality: batch[self.modality]}
        return evidence(q, lambda _, z, x: self.log_px(z, x, label), x, samples, chunk, generator)
