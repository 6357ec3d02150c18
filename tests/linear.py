"""LG3 as encoders and decoders, so that a whole model can be checked against exact answers."""

import math

import torch
from torch import nn

from mmvae_lite.data import LG3, LG3_OBSERVATION
from mmvae_lite.distributions import Normal, NormalLikelihood
from mmvae_lite.models import MVAE, VAE

F64 = torch.float64
NAMES = ("first", "second", "third")


class Affine(nn.Module):
    """x -> N(slope x + offset, var), constant variance."""

    def __init__(self, slope, offset, var):
        super().__init__()
        self.slope = nn.Parameter(torch.tensor([float(slope)], dtype=F64))
        self.offset = nn.Parameter(torch.tensor([float(offset)], dtype=F64))
        self.logvar = nn.Parameter(torch.tensor([math.log(var)], dtype=F64))

    def forward(self, x):
        mean = self.slope * x[:, :1] + self.offset
        return Normal(mean, self.logvar.expand_as(mean))


def linear_decoder(*weights):
    layer = nn.Linear(1, len(weights), bias=False, dtype=F64)
    layer.weight.data = torch.tensor(weights, dtype=F64)[:, None]
    return layer


def observation(names=NAMES, n=1):
    return {name: LG3_OBSERVATION[NAMES.index(name)].expand(n)[:, None] for name in names}


def lg_mvae(names=NAMES, **options):
    """An MVAE whose experts are LG3's exact likelihood experts, so that every posterior is exact."""
    index = [NAMES.index(name) for name in names]
    w, v = [LG3.weights[i] for i in index], [LG3.variances[i] for i in index]
    return MVAE(
        {name: Affine(1 / wm, 0, vm / wm**2) for name, wm, vm in zip(names, w, v)},
        {name: linear_decoder(wm) for name, wm in zip(names, w)},
        {name: NormalLikelihood(math.sqrt(vm)) for name, vm in zip(names, v)},
        latent_dim=1,
        **options,
    )


def lg_vae(mean, var, **options):
    """A VAE on all three modalities of LG3 at once, with the constant posterior N(mean, var)."""
    std = torch.tensor(LG3.variances, dtype=F64).sqrt()
    return VAE(Affine(0, mean, var), linear_decoder(*LG3.weights), NormalLikelihood(std), 1, modality="all", **options)


def all_three(n=1):
    return {"all": torch.stack(list(LG3_OBSERVATION.values()), -1).expand(n, 3)}
