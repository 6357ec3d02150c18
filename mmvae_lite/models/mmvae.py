"""MMVAE: a mixture of experts, trained on an importance-weighted bound (Shi et al. 2019)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mmvae_lite.bounds import BOUNDS, ESTIMATORS, moe_bound, moe_linear_time, moe_naive
from mmvae_lite.checks import check_name, check_positive
from mmvae_lite.distributions import Laplace, Likelihood, Normal, kl
from mmvae_lite.experts import Mixture
from mmvae_lite.models import _one_latent as one_latent
from mmvae_lite.models._common import (
    add_mean,
    all_weights,
    check_same_modalities,
    check_target,
    event_shapes,
    importance_log_likelihood,
    parameter_like,
    presence,
    score,
)  # fmt: skip

Latent = Normal | Laplace


class MMVAE(nn.Module):
    """p(z) prod_m p(x_m | z) with q(z | x_S) = 1/|S| sum_{m in S} q_m(z | x_m).

    encoders: modality name -> module from [batch, *event] to a `Laplace` or `Normal` [batch, latent], the
        *posterior* of the modality.
    decoders: modality name -> module from [batch, latent] to the parameters of its likelihood, [batch, *event].
    samples: K, the draws from each expert.
    bound: `loose`, the average of the experts' bounds (equation 3), is what the paper trains; `tight` pools all draws (appendix A);
        `naive` averages the experts' ELBOs; `linear` does so with M decoder passes instead of M^2 (appendix B).
    estimator: the gradient of the loose and tight bounds, see `moe_bound`.
    prior: `laplace`, whose scales sum to the number of dimensions, or `normal`; centred at 0, with scale 1 at first
        and learnt if `learn_prior`.
    weights: lambda_m of each modality's log p(x_m | z), 1 by default; with others the value is no bound of log p(x).
    chunk: at most so many latents pass through a decoder at once; the backward pass computes them again.  Same
        value, same gradient, less memory, more time.

    Source: Shi et al. (2019), section 3.  Raises ValueError or KeyError where names or options do not agree.
    """

    # For MNIST with SVHN.  LaplaceLikelihood(0.75) for both: the paper's tables 1 and 2 agree with it, table 3 only with
    # a scale near 0.1.  Adam with AMSGrad.  The text has no K and no weights: K is the code's.  The code asks for DReG
    # too, but hooks a copy of the samples, and what remains is `stl`.
    PRESETS = {
        "paper": {"latent_dim": 20, "samples": 30, "bound": "loose", "estimator": "dreg"},
        "code": {"latent_dim": 20, "samples": 30, "bound": "loose", "estimator": "stl", "weights": {"mnist": 3 * 32**2 / 28**2, "svhn": 1.0}},
    }

    def __init__(
        self,
        encoders: Mapping[str, nn.Module],
        decoders: Mapping[str, nn.Module],
        likelihoods: Mapping[str, Likelihood],
        latent_dim: int,
        samples: int = 30,
        bound: str = "loose",
        estimator: str = "iwae",
        prior: str = "laplace",
        learn_prior: bool = True,
        weights: Mapping[str, float] | None = None,
        chunk: int | None = None,
    ) -> None:
        super().__init__()
        for name, value in (("latent_dim", latent_dim), ("samples", samples), ("chunk", 1 if chunk is None else chunk)):
            check_positive(name, value)
        check_same_modalities(encoders, decoders=decoders, likelihoods=likelihoods)
        for name, value, known in (("bound", bound, (*BOUNDS, "naive", "linear")), ("estimator", estimator, ESTIMATORS), ("prior", prior, ("laplace", "normal"))):
            check_name(name, value, known)
        if bound not in BOUNDS and estimator != "iwae":
            raise ValueError(f"estimator {estimator!r} is for the bounds 'loose' and 'tight', found bound {bound!r}; leave it at 'iwae'")
        self.encoders, self.decoders = nn.ModuleDict(encoders), nn.ModuleDict(decoders)
        self.likelihoods, self.latent_dim = dict(likelihoods), latent_dim
        self.samples, self.bound, self.estimator, self.chunk = samples, bound, estimator, chunk
        self.weights = all_weights(tuple(encoders), weights)
        self.prior_family = prior
        self.prior_scale = nn.Parameter(parameter_like(self.decoders).new_zeros(latent_dim), requires_grad=learn_prior)
        self.event_shapes = event_shapes(decoders, latent_dim)

    @property
    def modalities(self) -> tuple[str, ...]:
        return tuple(self.encoders)

    _check, decode = one_latent.check, one_latent.decode
    sample, swap, traverse = one_latent.sample, one_latent.swap, one_latent.traverse

    def prior(self, n: int) -> Latent:
        """p(z), centred at 0, of shape [n, latent]; `prior_scale` holds the scale's logits, or log-variances for a Normal."""
        scale = self.prior_scale.expand(n, -1)
        if self.prior_family == "normal":
            return Normal(torch.zeros_like(scale), scale)
        return Laplace.from_logits(torch.zeros_like(scale), scale, eps=0.0)

    def experts(self, batch: Mapping[str, Float[Tensor, "batch ..."]]) -> dict[str, Latent]:
        """q_m(z | x_m) of every modality in the batch, each [batch, latent]."""
        self._check(batch)
        return {name: self.encoders[name](x) for name, x in batch.items()}

    def posterior(self, batch: Mapping[str, Float[Tensor, "batch ..."]]) -> dict[str, Latent | Mixture]:
        """The mixture of the experts of whatever modalities are there, under the key `shared`; of one, its expert."""
        experts = tuple(self.experts(batch).values())
        return {"shared": experts[0] if len(experts) == 1 else Mixture(experts)}

    def log_px(self, name: str, z: Float[Tensor, "*lead batch latent"], x: Float[Tensor, "batch *event"]) -> Float[Tensor, "*lead batch"]:
        """log p(x_m | z) of one modality, unweighted."""
        return score(self.decoders[name], self.likelihoods[name], z, x, self.chunk)

    def loss(
        self,
        batch: Mapping[str, Float[Tensor, "batch ..."]],
        target: Mapping[str, Float[Tensor, "batch ..."]] | None = None,
        observed: Mapping[str, Bool[Tensor, "batch"]] | None = None,
        generator: torch.Generator | None = None,
    ) -> dict[str, Float[Tensor, ""]]:
        """The negative bound, mean over the items; its value does not depend on the estimator of its gradient.

        `target` holds what is to be reconstructed, the input itself by default.  `observed` marks items that lack
        a modality; an item's mixture is over the experts it has, and so is its likelihood.  Returns the total under
        `loss` and the unweighted terms `<expert>/recon/<modality>`, the mean of log p(x_modality | z) over draws from the
        expert, and `<expert>/kl`, its divergence from the prior.
        """
        if target is not None:
            self._check(target)
            check_target(target, batch)
        experts, target, there = self.experts(batch), target or batch, presence(batch, observed, self.modalities)
        names, present = list(there), torch.stack(list(there.values()))
        anyone = present.any(0)
        # an item that has nothing is computed as if it had everything, and is left out of the mean
        present = present | ~anyone
        chosen, prior = [experts[m] for m in names], self.prior(present.shape[1])
        z = Mixture(tuple(chosen)).rsample((self.samples,), generator)
        divergence = torch.stack([_divergence(q, prior, part) for q, part in zip(chosen, z)])

        scores: dict[str, Tensor] = {}  # log p(x_m | z) at the draws of every expert, or of its own

        def log_px(z: Tensor) -> Tensor:
            scores.update({m: self.log_px(m, z, target[m]) for m in names})
            return sum(self.weights[m] * torch.where(present[row], scores[m], 0.0) for row, m in enumerate(names))

        def own_log_px(z: Tensor) -> Tensor:
            scores.update({m: self.log_px(m, part, target[m])[None] for m, part in zip(names, z)})
            return torch.cat([self.weights[m] * scores[m] for m in names])

        if self.bound == "linear":
            bound = moe_linear_time(chosen, z, own_log_px, divergence, present)
        elif self.bound == "naive":
            bound = moe_naive(log_px(z), divergence, present)
        else:
            bound = moe_bound(chosen, z, lambda z: log_px(z) + prior.log_prob(z), self.bound, self.estimator, present)

        terms: dict[str, Tensor] = {}
        add_mean(terms, "loss", -bound, anyone)
        for row, expert in enumerate(names):
            for m in [expert] if self.bound == "linear" else names:
                draws = scores[m][0 if self.bound == "linear" else row]
                add_mean(terms, f"{expert}/recon/{m}", draws.mean(0), there[expert] & there[m])
            add_mean(terms, f"{expert}/kl", divergence[row], there[expert])
        return terms

    def translate(
        self, batch: Mapping[str, Tensor], to: str, sample: bool = False, generator: torch.Generator | None = None
    ) -> Float[Tensor, "batch *event"]:
        """The mean of p(x_to | z) with z the mean of q(z | x_S), or a draw from it."""
        check_name("modality", to, self.modalities)
        q = Mixture(tuple(self.experts(batch).values()))
        return self.likelihoods[to].mean(self.decoders[to](q.draw(generator) if sample else q.mean))

    def log_likelihood(
        self,
        batch: Mapping[str, Tensor],
        samples: int = 1000,
        chunk: int = 100,
        generator: torch.Generator | None = None,
        target: Mapping[str, Tensor] | None = None,
    ) -> Float[Tensor, "batch"]:
        """The tight bound of log p(x_S) per item, unweighted, in nats, with `samples` draws from each expert.

        `target` is what is scored, the batch itself by default.  A target of one modality under different batches gives
        estimates of the same marginal log p(x_m) by different proposals, not conditional likelihoods.
        """
        q, target = Mixture(tuple(self.experts(batch).values())), batch if target is None else target
        self._check(target)
        check_target(target, dict.fromkeys(target, q.mean))

        def log_px(z: Tensor) -> Tensor:
            return sum(self.log_px(m, z, x) for m, x in target.items())

        return importance_log_likelihood(q, self.prior(len(q.mean)), log_px, samples, chunk, generator)


def _divergence(q: Latent, p: Latent, z: Float[Tensor, "samples batch latent"]) -> Float[Tensor, "batch"]:
    """KL(q || p): closed where the families agree, else by the draws."""
    return kl(q, p) if type(q) is type(p) else (q.log_prob(z) - p.log_prob(z)).mean(0)
