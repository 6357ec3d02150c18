"""A linear-Gaussian world inside the library's own models, so that every objective can be held against the truth.

The decoders are the world's, and the encoders are its exact posteriors.  Whatever an objective then loses, it loses by
itself.  `widen` spoils the encoders on purpose.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mmvae_lite.checks import check_name
from mmvae_lite.data.linear_gaussian import LinearGaussian
from mmvae_lite.distributions import Normal, NormalLikelihood
from mmvae_lite.models.jmvae import JMVAE
from mmvae_lite.models.m2vae import M2VAE
from mmvae_lite.models.mmvae import MMVAE
from mmvae_lite.models.mvae import MVAE
from mmvae_lite.models.telbo import TELBO

KINDS = ("jmvae", "telbo", "mvae", "m2vae", "mmvae")


class LinearEncoder(nn.Module):
    """N(sum_m slope_m x_m, var): of a tensor [batch, 1] for one modality, of a dict of them for several; float64."""

    def __init__(self, slopes: Mapping[str, float], var: float) -> None:
        super().__init__()
        self.slopes = nn.ParameterDict({m: nn.Parameter(torch.tensor([slope], dtype=torch.float64)) for m, slope in slopes.items()})
        self.logvar = nn.Parameter(torch.tensor([math.log(var)], dtype=torch.float64))

    def forward(self, x: Float[Tensor, "batch 1"] | Mapping[str, Float[Tensor, "batch 1"]]) -> Normal:
        batch = {m: x for m in self.slopes} if isinstance(x, Tensor) else x
        mean = sum(slope * batch[m] for m, slope in self.slopes.items())
        return Normal(mean, self.logvar.expand_as(mean))


class LinearDecoder(nn.Module):
    """z [batch, 1] -> w z, the mean of the modality, [batch, 1]; float64."""

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([weight], dtype=torch.float64))

    def forward(self, z: Float[Tensor, "*batch 1"]) -> Float[Tensor, "*batch 1"]:
        return self.weight * z


def exact_encoder(world: LinearGaussian, names: Sequence[str], subset: Sequence[str], widen: float = 1.0) -> LinearEncoder:
    """The exact p(z | x_S) as an encoder, with `widen` times its variance.

    Equation `eq-world-posterior` of the book (Bishop 2006, section 2.3.3): slopes w_m / (s_m^2 T), variance 1 / T.
    `names` are the world's modalities in order, `subset` those in S.
    """
    ratios = {m: world.weights[names.index(m)] / world.variances[names.index(m)] for m in subset}
    precision = 1 + sum(world.weights[names.index(m)] * ratio for m, ratio in ratios.items())
    return LinearEncoder({m: ratio / precision for m, ratio in ratios.items()}, widen / precision)


def exact_model(kind: str, world: LinearGaussian, names: Sequence[str], widen: float = 1.0, **options: Any) -> nn.Module:
    """One of the library's models, with the decoders of a world and its exact posteriors as encoders.

    kind: `jmvae` (variant `kl` unless told otherwise), `telbo`, `mvae`, whose encoders are the exact *likelihood*
        experts, `m2vae`, or `mmvae`, whose prior is N(0, 1) and held fixed.
    names: a name for each modality of the world, in order.
    widen: multiplies the variance of every encoder; 1 is exact.
    options: passed on to the model.

    Batches are dicts of float64 tensors [batch, 1].  Raises KeyError for an unknown kind and ValueError where the names do not fit.
    """
    check_name("kind", kind, KINDS)
    if len(names) != len(world.weights) or len(set(names)) != len(names):
        raise ValueError(f"names: found {list(names)}, wanted {len(world.weights)} different ones, one for each modality of the world")
    names = tuple(names)
    parts: dict[str, Any] = {
        "decoders": {m: LinearDecoder(w) for m, w in zip(names, world.weights)},
        "likelihoods": {m: NormalLikelihood(math.sqrt(v)) for m, v in zip(names, world.variances)},
        "latent_dim": 1,
    }
    single = {m: exact_encoder(world, names, (m,), widen) for m in names}
    joint = exact_encoder(world, names, names, widen)
    if kind == "jmvae":
        options = {"variant": "kl"} | options
        return JMVAE(joint, **parts, encoders=single if options["variant"] == "kl" else None, **options)
    if kind == "telbo":
        return TELBO(joint, single, **parts, **options)
    if kind == "mvae":
        experts = {m: LinearEncoder({m: 1 / w}, widen * v / w**2) for m, w, v in zip(names, world.weights, world.variances)}
        return MVAE(experts, **parts, **options)
    if kind == "m2vae":
        subsets = [s for size in range(1, len(names) + 1) for s in itertools.combinations(names, size)]
        return M2VAE({"+".join(s): exact_encoder(world, names, s, widen) for s in subsets}, **parts, **options)
    return MMVAE(single, **parts, **({"prior": "normal", "learn_prior": False} | options))
