"""JMVAE: one joint encoder, and two ways to do without a modality, `zero` and `kl` (Suzuki et al. 2016)."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mmvae_lite.checks import check_name, check_positive
from mmvae_lite.distributions import Likelihood, Normal, kl
from mmvae_lite.experts import quotient
from mmvae_lite.models import _one_latent as one_latent
from mmvae_lite.models._common import (
    add_mean,
    all_weights,
    check_same_modalities,
    check_target,
    encode,
    event_shapes,
    hide_one,
    presence,
    reparameterised,
    subset_name,
)  # fmt: skip

VARIANTS = ("joint", "zero", "kl")
EXTENSIONS = ("quotient", "leave_one_out")


class JMVAE(nn.Module):
    """p(z) prod_m p(x_m | z) with a joint encoder q(z | x_1 .. x_M).

    joint_encoder: maps a dict of all modalities (of one modality: its tensor) to a `Normal` [batch, latent].
    decoders: modality name -> module from [batch, latent] to the parameters of its likelihood, [batch, *event].
    variant: `joint` has no answer for a missing modality; `zero` feeds zeros in its place; `kl` also trains
        `encoders`, modality name -> module from [batch, *event] to a `Normal`, towards the joint encoder.
    weights: lambda_m of each modality's log p(x_m | z), 1 by default.
    alpha: weight of sum_m KL(q(z | x) || q_m(z | x_m)).  beta: weight of the KL to the prior alone, for a warm-up.
    zero_prob: how often training hides a random input of an item from the encoder; the target stays, and an item
        keeps at least one input.  0 is Suzuki's training, more our reading of JMVAE-Z, which Korthals et al. (2019) name
        without a definition and whose program keeps inputs and targets apart.
    extension: what `kl` does with 3 modalities or more, where Suzuki says nothing about subsets in between.
        `quotient` infers them from the product of the q_m with the surplus priors divided out (ours).
        `leave_one_out` replaces the q_m by encoders of all modalities but one, with keys such as `image+label`
        (Korthals et al. 2019, equations 4 and 5, whose third divergence must be from p(z | a, b)), so that subsets of
        exactly M - 1 have a posterior.

    Raises ValueError or KeyError where names or options do not agree.
    """

    # A weight of 1 for the divergences is what the derivation gives (Korthals et al. 2019, equations 2 to 5) and the
    # default of Suzuki's program, so that both presets agree; no text that we hold states another.
    PRESETS = {"paper": {"variant": "kl", "alpha": 1.0}, "code": {"variant": "kl", "alpha": 1.0}}

    def __init__(
        self,
        joint_encoder: nn.Module,
        decoders: Mapping[str, nn.Module],
        likelihoods: Mapping[str, Likelihood],
        latent_dim: int,
        encoders: Mapping[str, nn.Module] | None = None,
        variant: str = "joint",
        weights: Mapping[str, float] | None = None,
        alpha: float = 1.0,
        beta: float = 1.0,
        zero_prob: float = 0.0,
        extension: str | None = None,
    ) -> None:
        super().__init__()
        check_positive("latent_dim", latent_dim)
        check_name("variant", variant, VARIANTS)
        check_same_modalities(decoders, likelihoods=likelihoods)
        self.joint_encoder, self.decoders = joint_encoder, nn.ModuleDict(decoders)
        self.likelihoods, self.latent_dim, self.variant = dict(likelihoods), latent_dim, variant
        self.weights = all_weights(self.modalities, weights)
        self.alpha, self.beta, self.zero_prob, self.extension = alpha, beta, zero_prob, extension
        self._check_options(encoders or {})
        given = {subset_name(key.split("+"), self.modalities): e for key, e in (encoders or {}).items()}
        self.encoders = nn.ModuleDict(given)
        self.event_shapes = event_shapes(decoders, latent_dim)

    def _check_options(self, encoders: Mapping[str, nn.Module]) -> None:
        full = self.modalities
        if self.extension is not None:
            check_name("extension", self.extension, EXTENSIONS)
        if self.variant != "kl" and (encoders or self.extension):
            raise ValueError(f"encoders and extension belong to variant 'kl', found variant {self.variant!r}; leave them out")
        if not 0 <= self.zero_prob <= 1 or (self.zero_prob and self.variant != "zero"):
            raise ValueError(f"zero_prob: found {self.zero_prob} with variant {self.variant!r}, wanted 0 to 1, and 0 unless 'zero'")
        if self.variant == "kl":
            sizes = len(full) - 1 if self.extension == "leave_one_out" else 1
            wanted = {subset_name(s, full) for s in itertools.combinations(full, sizes)}
            check_same_modalities(wanted - {""}, encoders={subset_name(key.split("+"), full) for key in encoders})

    @property
    def modalities(self) -> tuple[str, ...]:
        return tuple(self.decoders)

    _check, prior, decode, log_px = one_latent.check, one_latent.prior, one_latent.decode, one_latent.log_px
    sample, swap = one_latent.sample, one_latent.swap
    traverse, log_likelihood = one_latent.traverse, one_latent.log_likelihood

    def joint(self, batch: Mapping[str, Tensor], seen: Mapping[str, Tensor] | None = None) -> Normal:
        """q(z | x_1 .. x_M), [batch, latent], with zeros for what the batch lacks or `seen` (bool [batch]) hides."""
        like, inputs = next(iter(batch.values())), {}
        for m, event in self.event_shapes.items():
            x = batch[m] if m in batch else like.new_zeros(len(like), *event)
            inputs[m] = x if seen is None or m not in seen else torch.where(seen[m].view(-1, *[1] * len(event)), x, 0)
        return encode(self.joint_encoder, self.modalities, inputs)

    def posterior(self, batch: Mapping[str, Float[Tensor, "batch ..."]], n: int = 1) -> dict[str, Normal]:
        """q(z | x_S), [batch, latent], under the key `shared`; an empty batch gives the prior, [n, latent].

        Raises NotImplementedError for a subset that the variant has no encoder for.
        """
        self._check(batch, allow_empty=True)
        if not batch:
            return {"shared": self.prior(n)}
        if len(batch) == len(self.decoders) or self.variant == "zero":
            return {"shared": self.joint(batch)}
        name = subset_name(batch, self.modalities)
        if name in self.encoders:
            return {"shared": encode(self.encoders[name], name.split("+"), batch)}
        if self.extension == "quotient":
            return {"shared": quotient([self.encoders[m](x) for m, x in batch.items()])}
        raise NotImplementedError(
            f"JMVAE-{self.variant} has no encoder for {name!r} alone; give every modality, "
            "or use variant 'zero', or 'kl' with an extension"
        )

    def loss(
        self,
        batch: Mapping[str, Float[Tensor, "batch ..."]],
        target: Mapping[str, Float[Tensor, "batch ..."]] | None = None,
        observed: Mapping[str, Bool[Tensor, "batch"]] | None = None,
        generator: torch.Generator | None = None,
    ) -> dict[str, Float[Tensor, ""]]:
        """The negative of L_JM(alpha) = L_J - alpha sum_m KL(q(z | x) || q_m(z | x_m)), with one sample of z.

        Equation `eq-jmvae` of the book (Suzuki et al. 2016), with the joint ELBO, equation `eq-joint-elbo`,
        L_J = E_q[sum_m lambda_m log p(x_m | z)] - KL(q(z | x) || p(z)).  The gradient of the divergences flows to both encoders.

        `target` holds what is to be reconstructed, the input itself by default, and may hold modalities that the
        input lacks.  `observed` marks items whose data lack a modality.  Returns the total under `loss` and the
        unweighted terms `recon/<modality>`, `kl` and, for variant `kl`, `kl/<modality>`.
        Raises NotImplementedError for incomplete items unless the variant is `zero`.
        """
        self._check(batch)
        if target is not None:
            self._check(target)
            check_target(target, batch)
        wanted = presence(target or batch, observed, self.modalities, batch)
        there = presence(batch, observed, self.modalities, target)
        target, batch = target or batch, {m: batch[m] for m in there}
        complete = len(there) == len(self.decoders) and all(bool(mask.all()) for mask in there.values())
        if self.variant != "zero" and not complete:
            raise NotImplementedError(
                f"JMVAE-{self.variant} trains on complete items, and some lack a modality; drop them or use variant 'zero'"
            )
        q = self.joint(batch, hide_one(there, self.zero_prob, generator) if self.training and self.zero_prob else there)
        z, prior, terms = q.rsample(generator=generator), self.prior(len(q.mean)), {}
        for m, mask in wanted.items():
            add_mean(terms, f"recon/{m}", self.log_px(m, z, target[m]), mask)
        add_mean(terms, "kl", kl(q, prior), torch.stack(list(wanted.values())).any(0))
        bound = sum(self.weights[m] * terms[f"recon/{m}"] for m in wanted) - self.beta * terms["kl"]
        for name, encoder in self.encoders.items():
            terms[f"kl/{name}"] = kl(q, encode(encoder, name.split("+"), batch)).mean()
            bound = bound - self.alpha * terms[f"kl/{name}"]
        return {"loss": -bound, **terms}

    def translate(
        self,
        batch: Mapping[str, Tensor],
        to: str,
        sample: bool = False,
        generator: torch.Generator | None = None,
        refine: int = 0,
    ) -> Float[Tensor, "batch *event"]:
        """The mean of p(x_to | z) with z the mean of q(z | x_S), or a draw from it.

        `refine` repeats Suzuki's refinement so often: decode what is missing, then encode it jointly with the rest.
        """
        check_name("modality", to, self.modalities)
        z = reparameterised(self.posterior(batch)["shared"], sample, generator)
        for _ in range(refine):
            z = reparameterised(self.joint({**self.decode({"shared": z}), **batch}), sample, generator)
        return self.likelihoods[to].mean(self.decoders[to](z))
