"""TELBO, the triple-ELBO VAE: the decoders learn from the joint posterior alone (Vedantam et al. 2017)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.func import functional_call

from mmvae_lite.checks import check_positive
from mmvae_lite.distributions import Likelihood, Normal, kl
from mmvae_lite.models import _one_latent as one_latent
from mmvae_lite.models._common import (
    add_mean,
    all_weights,
    check_same_modalities,
    check_target,
    encode,
    event_shapes,
    presence,
    subset_name,
)  # fmt: skip
from mmvae_lite.parallel import by_items


class TELBO(nn.Module):
    """p(z) prod_m p(x_m | z) with a joint encoder q(z | x_1 .. x_M) and one encoder q_m(z | x_m) for each modality.

    joint_encoder: maps a dict of all modalities (of one modality: its tensor) to a `Normal` [batch, latent].
    encoders: modality name -> module from [batch, *event] to a `Normal` [batch, latent].
    decoders: modality name -> module from [batch, latent] to the parameters of its likelihood, [batch, *event].
    weights: lambda_m of log p(x_m | z) under the joint posterior, 1 by default.
    unimodal_weights: gamma_m of log p(x_m | z) under q_m, 1 by default.
    predict_both: every unimodal bracket reconstructs all modalities, as the authors' program can; gamma_m then
        belongs to what is reconstructed.

    Raises ValueError or KeyError where names do not agree.
    """

    # Korthals et al. (2019), whose tVAE we read as this model, define neither it nor its weights.  Vedantam's program sweeps a label's lambda over
    # 1, 10, 50 and its gamma over 50, 100, with images at 1; this is one point of that sweep.
    PRESETS = {"paper": {}, "code": {"weights": {"label": 10.0}, "unimodal_weights": {"label": 50.0}}}

    def __init__(
        self,
        joint_encoder: nn.Module,
        encoders: Mapping[str, nn.Module],
        decoders: Mapping[str, nn.Module],
        likelihoods: Mapping[str, Likelihood],
        latent_dim: int,
        weights: Mapping[str, float] | None = None,
        unimodal_weights: Mapping[str, float] | None = None,
        beta: float = 1.0,
        predict_both: bool = False,
    ) -> None:
        super().__init__()
        check_positive("latent_dim", latent_dim)
        check_same_modalities(encoders, decoders=decoders, likelihoods=likelihoods)
        self.joint_encoder, self.encoders, self.decoders = joint_encoder, nn.ModuleDict(encoders), nn.ModuleDict(decoders)
        self.likelihoods, self.latent_dim = dict(likelihoods), latent_dim
        self.weights, self.unimodal_weights = (all_weights(self.modalities, w) for w in (weights, unimodal_weights))
        self.beta, self.predict_both = beta, predict_both
        self.event_shapes = event_shapes(decoders, latent_dim)

    @property
    def modalities(self) -> tuple[str, ...]:
        return tuple(self.encoders)

    _check, prior, decode, log_px = one_latent.check, one_latent.prior, one_latent.decode, one_latent.log_px
    sample, translate = one_latent.sample, one_latent.translate
    swap, traverse, log_likelihood = one_latent.swap, one_latent.traverse, one_latent.log_likelihood

    def posterior(self, batch: Mapping[str, Float[Tensor, "batch ..."]], n: int = 1) -> dict[str, Normal]:
        """q(z | x) of all modalities or q_m(z | x_m) of one, [batch, latent], under the key `shared`.

        An empty batch gives the prior, [n, latent].  Raises NotImplementedError for subsets in between.
        """
        self._check(batch, allow_empty=True)
        if not batch:
            return {"shared": self.prior(n)}
        if len(batch) == len(self.encoders):
            return {"shared": encode(self.joint_encoder, self.modalities, batch)}
        if len(batch) == 1:
            return {"shared": self.encoders[next(iter(batch))](next(iter(batch.values())))}
        raise NotImplementedError(
            f"TELBO has no encoder for {subset_name(batch, self.modalities)!r}; give all modalities or one, or use MVAE or M2VAE"
        )

    def log_px_frozen(self, name: str, z: Float[Tensor, "batch latent"], x: Float[Tensor, "batch *event"]) -> Float[Tensor, "batch"]:
        """log p(x_m | z) with the decoder held fixed: the gradient flows to z and not to theta_m."""
        decoder = self.decoders[name]
        fixed = {key: p.detach() for key, p in decoder.named_parameters()}
        fixed |= {key: b.clone() for key, b in decoder.named_buffers()}  # running statistics stay the joint posterior's
        return by_items(decoder, lambda z, x: self.likelihoods[name].log_prob(functional_call(decoder, fixed, (z,)), x), z, x)

    def loss(
        self,
        batch: Mapping[str, Float[Tensor, "batch ..."]],
        target: Mapping[str, Float[Tensor, "batch ..."]] | None = None,
        observed: Mapping[str, Bool[Tensor, "batch"]] | None = None,
        generator: torch.Generator | None = None,
    ) -> dict[str, Float[Tensor, ""]]:
        """The negative of the joint ELBO plus the unimodal ones, each with one sample of z.

        Equation `eq-telbo` of the book (Vedantam et al. 2017):
        E_q[sum_m lambda_m log p(x_m | z)] - KL(q || p) + sum_m (gamma_m E_{q_m}[log p(x_m | z)] - KL(q_m || p)), where
        the decoders of the unimodal brackets are held fixed, so that a vague q_m does not blur them.

        `target` holds what is to be reconstructed, the input itself by default.  `observed` marks items that lack a
        modality: the joint bracket is a mean over the complete items, left out where there is none, the others over the
        items that have theirs.
        Returns the total under `loss` and the unweighted terms `joint/recon/<modality>`, `joint/kl`,
        `<modality>/recon/<modality>` and `<modality>/kl`.
        """
        self._check(batch)
        if target is not None:
            self._check(target)
            check_target(target, batch)
        target, there = target or batch, presence(batch, observed, self.modalities)
        target = {m: target[m] for m in self.modalities if m in there}
        prior, terms, bound = self.prior(len(next(iter(batch.values())))), {}, 0.0
        complete = torch.stack(list(there.values())).all(0)
        if len(there) == len(self.encoders) and bool(complete.any()):
            q = encode(self.joint_encoder, self.modalities, batch)
            z = q.rsample(generator=generator)
            for m, x in target.items():
                add_mean(terms, f"joint/recon/{m}", self.log_px(m, z, x), complete)
                bound = bound + self.weights[m] * terms[f"joint/recon/{m}"]
            add_mean(terms, "joint/kl", kl(q, prior), complete)
            bound = bound - self.beta * terms["joint/kl"]
        for m in target:
            q = self.encoders[m](batch[m])
            z = q.rsample(generator=generator)
            for name in target if self.predict_both else (m,):
                add_mean(terms, f"{m}/recon/{name}", self.log_px_frozen(name, z, target[name]), there[m] & there[name])
                bound = bound + self.unimodal_weights[name] * terms.get(f"{m}/recon/{name}", 0.0)
            add_mean(terms, f"{m}/kl", kl(q, prior), there[m])
            bound = bound - self.beta * terms[f"{m}/kl"]
        return {"loss": -bound, **terms}

    def two_stages(self, joint_epochs: int) -> Callable[[int], list[nn.Module]]:
        """The equivalent schedule for `fit`'s `frozen`: the joint model first, then the unimodal encoders alone."""

        def frozen(epoch: int) -> list[nn.Module]:
            return [self.encoders] if epoch < joint_epochs else [self.joint_encoder, self.decoders]

        return frozen
