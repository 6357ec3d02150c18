"""MVAE: a product of experts with a prior expert, trained on sub-sampled ELBOs (Wu and Goodman 2018)."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mmvae_lite.checks import check_batch, check_name, check_positive
from mmvae_lite.distributions import Likelihood, Normal, kl
from mmvae_lite.experts import masked, product_with_prior
from mmvae_lite.models._common import (
    add_mean,
    all_weights,
    check_same_modalities,
    check_target,
    decode_flat,
    event_shapes,
    evidence,
    parameter_like,
    presence,
    reparameterised,
    shared_latent,
    traversal,
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

    def _check(self, batch: Mapping[str, Tensor], allow_empty: bool = False) -> None:
        check_batch(batch, self.likelihoods, self.event_shapes, allow_empty, parameter_like(self))

    def prior(self, n: int) -> Normal:
        """p(z) = N(0, I) of shape [n, latent]."""
        return Normal.standard(n, self.latent_dim, like=parameter_like(self))

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

    def decode(self, latents: Mapping[str, Float[Tensor, "*lead latent"]]) -> dict[str, Tensor]:
        """The mean of p(x_m | z) for every modality, [*lead, *event]."""
        z = shared_latent(latents, self.latent_dim)
        return {m: self.likelihoods[m].mean(decode_flat(d, z)) for m, d in self.decoders.items()}

    def log_px(self, name: str, z: Float[Tensor, "*lead batch latent"], x: Float[Tensor, "batch *event"]) -> Float[Tensor, "*lead batch"]:
        """log p(x_m | z) of one modality, unweighted."""
        return self.likelihoods[name].log_prob(decode_flat(self.decoders[name], z), x)

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
            for row, values in zip(rows, log_px):
                add_mean(terms, f"{'+'.join(subsets[row])}/recon/{m}", values, there[m])
        anyone = torch.stack(list(present.values())).any(0)
        for row, subset in enumerate(subsets):
            add_mean(terms, f"{'+'.join(subset)}/kl", divergence[row], anyone[row])
        return {"loss": -sum(self._weight(name) * value for name, value in terms.items()), **terms}

    def _weight(self, term: str) -> float:
        return -self.beta if term.endswith("/kl") else self.weights[term.rpartition("/")[2]]

    def sample(self, n: int, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Means of p(x_m | z) at n joint draws z ~ p(z), each [n, *event]."""
        check_positive("n", n)
        return self.decode({"shared": self.prior(n).rsample(generator=generator)})

    def translate(
        self,
        batch: Mapping[str, Tensor],
        to: str,
        sample: bool = False,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "batch *event"]:
        """The mean of p(x_to | z) with z the mean of q(z | x_S), or a draw from it."""
        check_name("modality", to, self.modalities)
        q = self.posterior(batch)["shared"]
        params = self.decoders[to](reparameterised(q, sample, generator))
        return self.likelihoods[to].mean(params)

    def swap(self, content: Mapping[str, Tensor], style: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Raises NotImplementedError: MVAE has one shared latent and no private style."""
        raise NotImplementedError("MVAE has one shared latent and no private style; use PVAE, DMVAE-D or DMVAE-L")

    def traverse(
        self, latents: Mapping[str, Float[Tensor, "latent"]], dim: int, values: Float[Tensor, "steps"]
    ) -> dict[str, Tensor]:
        """Decode one latent with coordinate `dim` set to each of `values`: [steps, *event] for each modality."""
        return self.decode({"shared": traversal(shared_latent(latents, self.latent_dim), dim, values)})

    def log_likelihood(
        self,
        batch: Mapping[str, Tensor],
        samples: int = 1000,
        chunk: int = 100,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "batch"]:
        """An importance-sampled lower bound of log p(x_S) per item, in nats, with q(z | x_S) as proposal."""
        self._check(batch)
        return evidence(self.posterior(batch)["shared"], self.log_px, batch, samples, chunk, generator)
