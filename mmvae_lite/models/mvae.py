"""MVAE: a product of experts with a prior expert, trained on sub-sampled ELBOs (Wu and Goodman 2018)."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mmvae_lite.checks import check_positive
from mmvae_lite.distributions import Likelihood, Normal, kl
from mmvae_lite.experts import masked, product_with_prior
from mmvae_lite.models import _one_latent as one_latent
from mmvae_lite.models._common import (
    all_weights,
    check_same_modalities,
    check_target,
    event_shapes,
    mean_over,
    presence,
)

Subset = tuple[str, ...]


def random_subsets(names: Sequence[str], k: int, generator: torch.Generator | None = None) -> list[Subset]:
    """k different subsets of 2 to M - 1 modalities: first a size, uniformly, then a subset of that size.

    Fewer than k come back when a size runs out, and none for M < 3.
    """
    left = {size: list(itertools.combinations(names, size)) for size in range(2, len(names))}
    chosen: list[Subset] = []
    for _ in range(k if left else 0):
        size = 2 + _randint(len(left), generator)
        if left[size]:
            chosen.append(left[size].pop(_randint(len(left[size]), generator)))
    return chosen


def _randint(high: int, generator: torch.Generator | None) -> int:
    device = generator.device if generator is not None else "cpu"
    return int(torch.randint(high, (), generator=generator, device=device))


class MVAE(nn.Module):
    """p(z) prod_m p(x_m | z) with q(z | x_S) proportional to p(z) prod_{m in S} q_m(z | x_m).

    encoders: modality name -> module from [batch, *event] to a `Normal` [batch, latent], the *likelihood*
        expert of the modality; the prior enters once, in the product.
    decoders: modality name -> module from [batch, latent] to the parameters of its likelihood, [batch, *event].
    weights: lambda_m of each modality's log p(x_m | z), 1 by default.
    random_subsets: how many further subsets each step draws when there are 3 modalities or more.
    subsampled: False trains on the joint ELBO alone, which leaves single experts untrained.

    Raises ValueError or KeyError where names do not agree.
    """

    # The text states no weights; those of the released program for an image with its label, whose KL warms up.
    PRESETS = {"paper": {}, "code": {"weights": {"label": 50.0}}}

    def __init__(
        self,
        encoders: Mapping[str, nn.Module],
        decoders: Mapping[str, nn.Module],
        likelihoods: Mapping[str, Likelihood],
        latent_dim: int,
        weights: Mapping[str, float] | None = None,
        random_subsets: int = 1,
        subsampled: bool = True,
        beta: float = 1.0,
    ) -> None:
        super().__init__()
        check_positive("latent_dim", latent_dim)
        check_same_modalities(encoders, decoders=decoders, likelihoods=likelihoods)
        self.encoders, self.decoders = nn.ModuleDict(encoders), nn.ModuleDict(decoders)
        self.likelihoods, self.latent_dim = dict(likelihoods), latent_dim
        self.weights = all_weights(tuple(encoders), weights)
        self.n_random, self.subsampled, self.beta = random_subsets, subsampled, beta
        self.event_shapes = event_shapes(decoders, latent_dim)

    @property
    def modalities(self) -> Subset:
        return tuple(self.encoders)

    _check, prior, decode, log_px = one_latent.check, one_latent.prior, one_latent.decode, one_latent.log_px
    sample, translate = one_latent.sample, one_latent.translate
    swap, traverse, log_likelihood = one_latent.swap, one_latent.traverse, one_latent.log_likelihood

    def experts(self, batch: Mapping[str, Float[Tensor, "batch ..."]]) -> dict[str, Normal]:
        """The likelihood expert of every modality in the batch, each [batch, latent]."""
        self._check(batch)
        return {name: self.encoders[name](x) for name, x in batch.items()}

    def posterior(self, batch: Mapping[str, Float[Tensor, "batch ..."]], n: int = 1) -> dict[str, Normal]:
        """q(z | x_S) for whatever modalities are there, [batch, latent], under the key `shared`.

        Equation `eq-mvae-posterior` of the book.  An empty batch gives the prior, of shape [n, latent].
        """
        self._check(batch, allow_empty=True)
        if not batch:
            return {"shared": self.prior(n)}
        return {"shared": product_with_prior(list(self.experts(batch).values()))}

    def subsets(self, generator: torch.Generator | None = None) -> list[Subset]:
        """The subsets of one training step: all modalities, each alone, and a few random ones."""
        full = self.modalities
        if not self.subsampled or len(full) == 1:
            return [full]
        return [full, *((m,) for m in full), *random_subsets(full, self.n_random, generator)]

    def loss(
        self,
        batch: Mapping[str, Float[Tensor, "batch ..."]],
        target: Mapping[str, Float[Tensor, "batch ..."]] | None = None,
        observed: Mapping[str, Bool[Tensor, "batch"]] | None = None,
        generator: torch.Generator | None = None,
    ) -> dict[str, Float[Tensor, ""]]:
        """The negative sum of the ELBOs of all subsets, equation `eq-mvae-loss` of the book.

        `target` holds what is to be reconstructed, the input itself by default.  `observed` marks items that lack
        a modality; one that the batch does not hold is lacking everywhere.  A subset sees, of each item, the members that are there, and
        every term is the mean over the items that have it.  Returns the total under `loss` and the unweighted
        terms `<subset>/recon/<modality>` and `<subset>/kl`, with a subset written `image+label`.
        """
        experts = self.experts(batch)
        if target is not None:
            self._check(target)
            check_target(target, batch)
        target, n = target or batch, len(next(iter(batch.values())))
        there = presence(batch, observed, self.modalities)
        subsets = self.subsets(generator)
        # present[m][s, i]: subset s holds modality m, and item i has it
        present = {m: torch.stack([there[m] & (m in s) for s in subsets]) for m in there}
        q = product_with_prior([masked(experts[m], present[m]) for m in there])
        z, divergence = q.rsample(generator=generator), kl(q, self.prior(n))

        terms: dict[str, Tensor] = {}
        for m in there:
            rows = [s for s, subset in enumerate(subsets) if m in subset]
            log_px = self.log_px(m, z[rows], target[m])
            for row, value in zip(rows, mean_over(log_px, there[m])):
                terms[f"{'+'.join(subsets[row])}/recon/{m}"] = value
        seen = [s for s, subset in enumerate(subsets) if there.keys() & set(subset)]
        anyone = torch.stack(list(present.values())).any(0)
        for row, value in zip(seen, mean_over(divergence[seen], anyone[seen])):
            terms[f"{'+'.join(subsets[row])}/kl"] = value
        return {"loss": -sum(self._weight(name) * value for name, value in terms.items()), **terms}

    def _weight(self, term: str) -> float:
        return -self.beta if term.endswith("/kl") else self.weights[term.rpartition("/")[2]]
