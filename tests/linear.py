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


def assert_a_batch_is_its_singles(model, batch):
    """An exact proposal makes every weight the evidence, so neither the batch, nor the samples, nor the chunks matter."""
    whole = model.log_likelihood(batch, samples=6, chunk=4)
    items = [{name: x[i : i + 1] for name, x in batch.items()} for i in range(len(whole))]
    singles = torch.cat([model.log_likelihood(item, samples=3, chunk=3) for item in items])
    assert torch.allclose(whole, singles, atol=1e-10)


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


def lg_parts(names):
    """LG3's exact decoders and likelihoods."""
    index = [NAMES.index(name) for name in names]
    return {
        "decoders": {name: linear_decoder(LG3.weights[i]) for name, i in zip(names, index)},
        "likelihoods": {name: NormalLikelihood(math.sqrt(LG3.variances[i])) for name, i in zip(names, index)},
        "latent_dim": 1,
    }


class LinearJoint(nn.Module):
    """A dict of x_m -> the exact p(z | x_S) of LG3, whose mean is a weighted sum."""

    def __init__(self, names):
        super().__init__()
        ratios = {name: LG3.weights[NAMES.index(name)] / LG3.variances[NAMES.index(name)] for name in names}
        precision = 1 + sum(LG3.weights[NAMES.index(name)] * ratio for name, ratio in ratios.items())
        self.slopes = nn.ParameterDict({name: nn.Parameter(torch.tensor([ratio / precision], dtype=F64)) for name, ratio in ratios.items()})
        self.logvar = nn.Parameter(torch.tensor([-math.log(precision)], dtype=F64))

    def forward(self, batch):
        mean = sum(slope * batch[name] for name, slope in self.slopes.items())
        return Normal(mean, self.logvar.expand_as(mean))


def lg_posterior(names):
    """The exact posterior of LG3 for a subset as an encoder: of a tensor for one modality, of a dict for several."""
    if len(names) > 1:
        return LinearJoint(names)
    w, v = LG3.weights[NAMES.index(names[0])], LG3.variances[NAMES.index(names[0])]
    precision = 1 + w**2 / v
    return Affine(w / v / precision, 0, 1 / precision)


def two_point_noise(samples, like, generator):
    """Noise of +1 and -1 in turn along the batch: its mean over an even batch is exact for quadratic functions."""
    signs = torch.ones(like.shape[-2], 1, dtype=like.dtype)
    signs[1::2] = -1
    return signs.expand(*samples, *like.shape).clone()


def objective(monkeypatch, model, batch):
    """The expected objective of a linear-Gaussian model, without Monte-Carlo error; the batch has an even length."""
    with monkeypatch.context() as patch:
        patch.setattr("mmvae_lite.distributions._noise", two_point_noise)
        return -model.loss(batch)["loss"].item()
