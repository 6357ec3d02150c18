"""PVAE: a shared latent and one for each modality, inferred from all modalities or from one (Hsu and Glass 2018)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mmvae_lite.checks import check_batch, check_name, check_positive
from mmvae_lite.distributions import Likelihood, Normal, kl
from mmvae_lite.experts import quotient
from mmvae_lite.information import check_items, contrastive_hinge, derangement
from mmvae_lite.models import _private as split
from mmvae_lite.models._common import all_weights, check_same_modalities, check_target, parameter_like, presence, reparameterised

Batch = Mapping[str, Float[Tensor, "batch ..."]]


class PVAE(nn.Module):
    """p(z_s) prod_m p(z_m) p(x_m | z_m, z_s), with q(z_s | X) prod_m q(z_m | X) and, from one modality, r(z_m | x_m) r(z_s | x_m).

    joint_encoder: q, a module from a dict of all modalities to a dict of `Normal`s, `shared` and `private/<modality>`.
    encoders: r, modality -> module from [batch, *event] to {"private": Normal, "shared": Normal}.
    decoders: modality -> module from [batch, private + shared] to the parameters of its likelihood.
    alpha_ch, alpha_cm: weights of the coherence of q with r, and of the contrast between items; where both are 0 the encoders r
        are not run.
    margin: t of the contrast.
    weights: lambda_m of each modality's log p(x_m | z_m, z_s), 1 by default.  beta: weight of the KLs to the prior;
        private_beta: a further one of those of the private latents.
    extension: "quotient" infers z_s from some but not all of three or more modalities as the quotient of the r(z_s | x_m)
        and the prior; the paper has no posterior for them.

    Equations `eq-pvae-joint` and `eq-pvae-q` of the book.  Source: Hsu and Glass (2018), section 2.
    Raises ValueError or KeyError for settings that do not agree.
    """

    # No code was published, so that both are the paper's.  NormalLikelihood(1.0) for speech and image; Adam with betas
    # (0.95, 0.999).  Without the contrast, as in the paper's table 1: alpha_cm=0.
    _PAPER = {"private_dim": 32, "shared_dim": 32, "alpha_ch": 0.1, "alpha_cm": 10.0, "margin": 0.5}
    PRESETS = {"paper": _PAPER, "code": _PAPER}

    def __init__(
        self,
        joint_encoder: nn.Module,
        encoders: Mapping[str, nn.Module],
        decoders: Mapping[str, nn.Module],
        likelihoods: Mapping[str, Likelihood],
        private_dim: int,
        shared_dim: int,
        alpha_ch: float | int = 0.1,
        alpha_cm: float | int = 10.0,
        margin: float | int = 0.5,
        weights: Mapping[str, float] | None = None,
        beta: float | int = 1.0,
        private_beta: float | int = 1.0,
        extension: str | None = None,
    ) -> None:
        super().__init__()
        check_positive("private_dim", private_dim)
        check_positive("shared_dim", shared_dim)
        check_same_modalities(encoders, decoders=decoders, likelihoods=likelihoods)
        if extension is not None:
            check_name("extension", extension, ("quotient",))
        self.joint_encoder = joint_encoder
        self.encoders, self.decoders, self.likelihoods = nn.ModuleDict(encoders), nn.ModuleDict(decoders), dict(likelihoods)
        self.private_dims, self.shared_dim = dict.fromkeys(encoders, private_dim), shared_dim
        self.alpha_ch, self.alpha_cm, self.margin = map(float, (alpha_ch, alpha_cm, margin))
        self.beta, self.private_beta = float(beta), float(private_beta)
        self.weights, self.extension = all_weights(self.modalities, weights), extension
        self.event_shapes = split.split_event_shapes(decoders, dict.fromkeys(encoders, private_dim + shared_dim))

    @property
    def modalities(self) -> tuple[str, ...]:
        return tuple(self.encoders)

    def prior(self, name: str, n: int) -> Normal:
        """N(0, I) of the latent `shared` or `private/<modality>`, [n, latent]."""
        dim = self.shared_dim if name == "shared" else self.private_dims[name.removeprefix("private/")]
        return Normal.standard(n, dim, like=parameter_like(self))

    def priors(self, n: int) -> dict[str, Normal]:
        """The priors of all latents."""
        return {name: self.prior(name, n) for name in ("shared", *map(split.key, self.modalities))}

    def unimodal(self, batch: Batch) -> dict[str, dict[str, Normal]]:
        """r(z_m | x_m) and r(z_s | x_m) of each modality in the batch, as `private` and `shared`; equation 6, `eq-pvae-r` of the book."""
        return {m: self.encoders[m](x) for m, x in batch.items()}

    decode, log_px, translate, swap, traverse = split.decode, split.log_px, split.translate, split.swap, split.traverse

    def posterior(self, batch: Batch) -> dict[str, Normal]:
        """All latents: q(. | X) from all modalities, r(. | x_l) from one, with the prior for the other styles (equation 5).

        That the prior is their exact posterior is equation `eq-pvae-unimodal` of the book.
        Raises NotImplementedError for other subsets, unless the extension is asked for.
        """
        check_batch(batch, self.likelihoods, self.event_shapes, like=parameter_like(self))
        if len(batch) == len(self.encoders):
            return self._joint(batch)
        if len(batch) > 1 and self.extension is None:
            raise NotImplementedError(
                f"PVAE infers from one modality or from all of {', '.join(map(repr, self.modalities))}, found {sorted(batch)}; "
                "give one of them, or ask for extension='quotient'"
            )
        found = self.unimodal(batch)
        shared = [r["shared"] for r in found.values()]
        styles = {split.key(m): r["private"] for m, r in found.items()}
        return self.priors(len(shared[0].mean)) | styles | {"shared": quotient(shared)}

    def _joint(self, batch: Batch) -> dict[str, Normal]:
        """q(. | X), equation 2."""
        return self.joint_encoder({m: batch[m] for m in self.modalities})

    def loss(
        self,
        batch: Batch,
        target: Batch | None = None,
        observed: Mapping[str, Bool[Tensor, "batch"]] | None = None,
        generator: torch.Generator | None = None,
    ) -> dict[str, Float[Tensor, ""]]:
        """The negative of equation 9, mean over the batch; one draw of z_s serves all decoders.

        Equation `eq-pvae-loss` of the book, with the bound `eq-pvae-elbo` in it.
        `target` holds what is to be reconstructed, the input itself by default.  The negative example of an item is another
        item of the batch, which shares its meaning now and then.  Returns the total under `loss` and the unweighted
        terms `recon/<modality>`, `kl/<latent>`, `ch` (equation 7) and `cm` (equation 8), both at most 0.
        Raises NotImplementedError where an item lacks a modality, and ValueError for a batch of one, unless alpha_cm is 0.
        """
        self._complete(batch, observed)
        if target is not None:
            self._complete(target, None)
            check_target(target, batch)
        n, q = len(next(iter(batch.values()))), self._joint(batch)
        z = {name: d.rsample(generator=generator) for name, d in q.items()}
        terms = {f"recon/{m}": self.log_px(m, z, x).mean() for m, x in (target or batch).items()}
        terms |= {f"kl/{name}": kl(d, self.prior(name, n)).mean() for name, d in q.items()}
        if self.alpha_ch or self.alpha_cm:
            r = self.unimodal(batch)
            terms["ch"] = coherence(q, r).mean()
            if self.alpha_cm and len(r) > 1:
                check_items("PVAE's contrast", n)
                means = {m: found["shared"].mean for m, found in r.items()}
                others = derangement(n, generator, device=means[self.modalities[0]].device)
                terms["cm"] = contrastive_hinge(means, {m: mean[others] for m, mean in means.items()}, self.margin).mean()
        return {"loss": -sum(self._weight(name) * value for name, value in terms.items()), **terms}

    def _weight(self, term: str) -> float:
        if term in ("ch", "cm"):
            return self.alpha_ch if term == "ch" else self.alpha_cm
        if term.startswith("kl/"):
            return -self.beta * (self.private_beta if term.startswith("kl/private/") else 1.0)
        return self.weights[term.removeprefix("recon/")]

    def _complete(self, batch: Batch, observed: Mapping[str, Tensor] | None) -> None:
        check_batch(batch, self.likelihoods, self.event_shapes, like=parameter_like(self))
        there = presence(batch, observed, self.modalities)
        lacking = [m for m in self.modalities if m not in there or not bool(there[m].all())]
        if lacking:
            raise NotImplementedError(f"PVAE's objective needs every modality of every item, {', '.join(map(repr, lacking))} is absent; drop those items")

    def sample(self, n: int, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Means of p(x_m | z_m, z_s) at n joint draws from the priors, each [n, *event]."""
        check_positive("n", n)
        return self.decode({name: p.rsample(generator=generator) for name, p in self.priors(n).items()})

    def _latents(self, batch: Batch, sample: bool, generator: torch.Generator | None) -> dict[str, Tensor]:
        return {name: reparameterised(d, sample, generator) for name, d in self.posterior(batch).items()}

    def log_likelihood(
        self, batch: Batch, samples: int = 1000, chunk: int = 100, generator: torch.Generator | None = None
    ) -> Float[Tensor, "batch"]:
        """An importance-sampled lower bound of log p(x_S) per item, in nats, with the posterior as proposal."""
        q, n = self.posterior(batch), len(next(iter(batch.values())))
        used = {name: q[name] for name in ("shared", *map(split.key, batch))}
        log_px = lambda z: sum(self.log_px(m, z, x) for m, x in batch.items())  # noqa: E731
        return split.split_log_likelihood(used, self.priors(n), log_px, samples, chunk, generator)


def coherence(q: Mapping[str, Normal], r: Mapping[str, Mapping[str, Normal]]) -> Float[Tensor, "batch"]:
    """CH = -sum_m [KL(q(z_m | X) || r(z_m | x_m)) + KL(q(z_s | X) || r(z_s | x_m))], at most 0, [batch].

    Equation `eq-pvae-coherence` of the book: Hsu and Glass (2018), equation 7, written out for independent latents, where
    z_s counts once for each modality.
    """
    gaps = [kl(q[split.key(m)], found["private"]) + kl(q["shared"], found["shared"]) for m, found in r.items()]
    return -torch.stack(gaps).sum(0)
