"""Which latent dimensions are in use, and where two experts disagree (Shi et al. 2019, figure 5)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mmvae_lite.distributions import Concrete, Laplace, Normal, categorical_kl, kl
from mmvae_lite.evaluation._common import at_rest, priors

Density = Normal | Laplace | Concrete


def per_dimension_kl(q: Density, p: Density) -> Float[Tensor, "*batch latent"]:
    """KL(q || p) of each dimension in nats, closed also where one is a Normal and the other a Laplace density.

    For concrete variables the divergence between their class probabilities, [*batch] with one number for each variable.
    Raises TypeError for a concrete variable beside another density.
    """
    if isinstance(q, Concrete) and isinstance(p, Concrete):
        return categorical_kl(q, p)
    if isinstance(q, Concrete) or isinstance(p, Concrete):
        raise TypeError(f"found a {type(q).__name__} and a {type(p).__name__}, wanted two concrete variables or none")
    if type(q) is type(p):
        return kl(q, p, reduce=False)
    gap = q.mean - p.mean
    if isinstance(q, Normal):
        distance = q.std * math.sqrt(2 / math.pi) * (-0.5 * (gap / q.std).square()).exp() + gap * torch.erf(gap / (math.sqrt(2) * q.std))
        return (2 * p.scale).log() + distance / p.scale - 0.5 * (1 + math.log(2 * math.pi) + q.logvar)
    return 0.5 * (math.log(2 * math.pi) + p.logvar + (2 * q.scale.square() + gap.square()) * p.precision) - 1 - (2 * q.scale).log()


def symmetric_kl(a: Density, b: Density) -> Float[Tensor, "*batch latent"]:
    """The mean of KL(a || b) and KL(b || a) of each dimension, as in the code of Shi et al. (2019)."""
    return 0.5 * (per_dimension_kl(a, b) + per_dimension_kl(b, a))


def expert_divergences(model: nn.Module, batch: Mapping[str, Float[Tensor, "items ..."]]) -> dict[str, Float[Tensor, "latent"]]:
    """The divergences of figure 5 in nats, each the mean over the items for every dimension.

    `m` is KL(q(z | x_m) || p(z)) of the shared latent, inferred from x_m alone; `m | n` the symmetric divergence between two
    modalities' posteriors; `private/m` KL(q(s_m | x_m) || p(s_m)) where the model has styles.  DMVAE-D gives its c no
    prior, so that its `m` is missing.  The model computes in evaluation mode.
    Raises as the model's `posterior` does where it cannot infer from one modality.
    """
    n = len(next(iter(batch.values())))
    with at_rest(model):
        found = {m: model.posterior({m: x}) for m, x in batch.items()}
        p = {f"private/{m}": model.private_prior(m, n) for m in batch} if hasattr(model, "density") else priors(model, n)
        rows = {m: per_dimension_kl(q["shared"], p["shared"]) for m, q in found.items() if "shared" in p}
        rows |= {f"{a} | {b}": symmetric_kl(found[a]["shared"], found[b]["shared"]) for a, b in itertools.combinations(batch, 2)}
        rows |= {f"private/{m}": per_dimension_kl(q[f"private/{m}"], p[f"private/{m}"]) for m, q in found.items() if f"private/{m}" in q}
    return {name: values.reshape(n, -1).mean(0) for name, values in rows.items()}
