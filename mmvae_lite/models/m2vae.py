"""M2VAE: an encoder for every subset, and a bound that walks the whole lattice of subsets (Korthals et al. 2019)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from fractions import Fraction

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mmvae_lite.checks import check_name, check_positive
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

Subset = tuple[str, ...]


def subsets(names: Sequence[str]) -> list[Subset]:
    """Every subset that is not empty, by size: 2^M - 1 of them."""
    return [s for size in range(1, len(names) + 1) for s in itertools.combinations(names, size)]


def omega(size: int, modalities: int) -> Fraction:
    """The weight of a subset of this size in the lattice of M modalities, (|S| - 1)! (M - |S|)! / M!.

    Equation `eq-omega` of the book: the paper's recursion L(S) = 1/|S| (J(S) + sum_m L(S without m)), unrolled: (M - |S|)! orders of removal lead from
    all modalities to S, and each passes on 1/k for every size k on its way.  These are Shapley's weights.  The paper's
    equation 14 gives a pair's L(S) 1/6 where the recursion, its equation 15, gives 1/3: it takes L(S) there for twice
    log p(x_S).  Raises ValueError unless 1 <= size <= modalities.
    """
    if not 1 <= size <= modalities:
        raise ValueError(f"size: found {size}, wanted 1 to {modalities}")
    return Fraction(1, size * math.comb(modalities, size))


class M2VAE(nn.Module):
    """p(z) prod_m p(x_m | z) with one encoder q(z | x_S) for every subset S of the modalities.

    encoders: `image`, `label`, `image+label` ... -> module from [batch, *event], or for several modalities from a dict
        of them, to a `Normal` [batch, latent]; 2^M - 1 of them.
    decoders: modality name -> module from [batch, latent] to the parameters of its likelihood, [batch, *event].
    weights: lambda_m of each modality's log p(x_m | z), 1 by default.
    alpha: weight of the mutual divergences KL(q(z | x_S) || q(z | x_{S without m})).
    beta_joint, beta_uni: weights of the KL to the prior for subsets of two or more, and of one; `beta` multiplies
        both, for a warm-up.
    gamma: weight of the reconstruction from one modality by itself.
    lattice: `shapley` weighs a subset by `omega`, `uniform` by 1.
    normalised: multiply the KL to the prior by D_x(S) / D_z, the values that a subset holds for each latent dimension.

    Raises ValueError or KeyError where names or options do not agree.
    """

    # The paper states no weight but those of its lattice.  The released program's first models have the same lattice
    # with alpha, beta_joint, beta_uni and gamma free; its later, general one weighs all subsets alike
    # and can normalise beta; the beta that it then takes is not known to us, so the preset leaves that off.
    PRESETS = {"paper": {"lattice": "shapley"}, "code": {"lattice": "uniform"}}

    def __init__(
        self,
        encoders: Mapping[str, nn.Module],
        decoders: Mapping[str, nn.Module],
        likelihoods: Mapping[str, Likelihood],
        latent_dim: int,
        weights: Mapping[str, float] | None = None,
        alpha: float = 1.0,
        beta: float = 1.0,
        beta_joint: float = 1.0,
        beta_uni: float = 1.0,
        gamma: float = 1.0,
        lattice: str = "shapley",
        normalised: bool = False,
    ) -> None:
        super().__init__()
        check_positive("latent_dim", latent_dim)
        check_name("lattice", lattice, ("shapley", "uniform"))
        check_same_modalities(decoders, likelihoods=likelihoods)
        self.decoders, self.likelihoods, self.latent_dim = nn.ModuleDict(decoders), dict(likelihoods), latent_dim
        named = {subset_name(key.split("+"), self.modalities): encoder for key, encoder in encoders.items()}
        check_same_modalities(["+".join(s) for s in subsets(self.modalities)], encoders=named)
        self.encoders = nn.ModuleDict(named)
        self.weights = all_weights(self.modalities, weights)
        self.alpha, self.beta, self.beta_joint, self.beta_uni = alpha, beta, beta_joint, beta_uni
        self.gamma, self.lattice, self.normalised = gamma, lattice, normalised
        self.event_shapes = event_shapes(decoders, latent_dim)

    @property
    def modalities(self) -> Subset:
        return tuple(self.decoders)

    _check, prior, decode, log_px = one_latent.check, one_latent.prior, one_latent.decode, one_latent.log_px
    sample, translate = one_latent.sample, one_latent.translate
    swap, traverse, log_likelihood = one_latent.swap, one_latent.traverse, one_latent.log_likelihood

    def posterior(self, batch: Mapping[str, Float[Tensor, "batch ..."]], n: int = 1) -> dict[str, Normal]:
        """q(z | x_S) by the encoder of exactly this subset, [batch, latent], under the key `shared`.

        An empty batch gives the prior, of shape [n, latent].
        """
        self._check(batch, allow_empty=True)
        if not batch:
            return {"shared": self.prior(n)}
        name = subset_name(batch, self.modalities)
        return {"shared": encode(self.encoders[name], name.split("+"), batch)}

    def loss(
        self,
        batch: Mapping[str, Float[Tensor, "batch ..."]],
        target: Mapping[str, Float[Tensor, "batch ..."]] | None = None,
        observed: Mapping[str, Bool[Tensor, "batch"]] | None = None,
        generator: torch.Generator | None = None,
    ) -> dict[str, Float[Tensor, ""]]:
        """The negative of L = sum_S omega(S) J(S) over all subsets, with one sample of z for each.

        J(S) = E_{q(z | x_S)}[sum_{m in S} log p(x_m | z)] - beta KL(q(z | x_S) || p(z))
        - alpha sum_{m in S} KL(q(z | x_S) || q(z | x_{S without m})), the last for two modalities or more: equations
        `eq-subset-term` and `eq-m2vae` of the book (Korthals et al. 2019, section 1.2.3).  Gradients flow to both encoders of a divergence.  L is log p(x) at exact posteriors with
        beta_joint = 0; a learnt q(z | x_{S without m}) makes it an approximation, not a bound.

        `target` holds what is to be reconstructed, the input itself by default.  `observed` marks items that lack a
        modality: such an item has the subsets of what it holds, with the weights of that smaller lattice, and a
        subset's part is a mean over the items that have it.  Returns the total under `loss` and the unweighted terms
        `<S>/recon/<modality>`, `<S>/kl` and `<S>/kl/<S without m>`, with S written `image+label`.
        """
        self._check(batch)
        if target is not None:
            self._check(target)
            check_target(target, batch)
        target, there = target or batch, presence(batch, observed, self.modalities)
        names = [m for m in self.modalities if m in there]
        has = {s: torch.stack([there[m] for m in s]).all(0) for s in subsets(names)}
        some = torch.stack(list(has.values())).any(1).tolist()
        has = {s: items for (s, items), anyone in zip(has.items(), some) if anyone}
        q = {s: encode(self.encoders["+".join(s)], s, batch) for s in has}
        every = Normal(*(torch.stack([getattr(p, part) for p in q.values()]) for part in ("mean", "logvar")))
        z, prior_kl, rows = every.rsample(generator=generator), kl(every, self.prior(every.mean.shape[1])), list(q)
        # one pass of each decoder serves all subsets that hold its modality
        members = {m: [s for s in rows if m in s] for m in names}
        log_px = {m: dict(zip(ss, self.log_px(m, z[[rows.index(s) for s in ss]], target[m]))) for m, ss in members.items()}
        weight = self._weights_by_size(torch.stack(list(there.values())).sum(0), z.dtype)

        terms: dict[str, Tensor] = {}
        parts: dict[str, Tensor] = {}
        for row, s in enumerate(rows):
            name, single = "+".join(s), len(s) == 1
            part = -self._beta(s) * prior_kl[row]
            for m in s:
                add_mean(terms, f"{name}/recon/{m}", log_px[m][s], has[s])
                part = part + (self.gamma if single else 1.0) * self.weights[m] * log_px[m][s]
            add_mean(terms, f"{name}/kl", prior_kl[row], has[s])
            for rest in itertools.combinations(s, len(s) - 1) if not single else ():
                mutual = kl(q[s], q[rest])
                add_mean(terms, f"{name}/kl/{'+'.join(rest)}", mutual, has[s])
                part = part - self.alpha * mutual
            add_mean(parts, name, weight[len(s)] * part, has[s])
        return {"loss": -sum(parts.values()), **terms}

    def _beta(self, s: Subset) -> float:
        values = sum(math.prod(self.event_shapes[m]) for m in s) / self.latent_dim if self.normalised else 1.0
        return self.beta * (self.beta_uni if len(s) == 1 else self.beta_joint) * values

    def _weights_by_size(self, held: Tensor, dtype: torch.dtype) -> Float[Tensor, "sizes batch"]:
        """Row s: the weight of a subset of s modalities for items that hold so many; 1 where it has no part."""
        shapley, sizes = self.lattice == "shapley", range(len(self.decoders) + 1)
        table = [[float(omega(s, n)) if shapley and 1 <= s <= n else 1.0 for n in sizes] for s in sizes]
        return torch.tensor(table, dtype=dtype, device=held.device)[:, held]
