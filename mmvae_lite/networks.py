"""Encoders and decoders.  Decoders are plain `nn.Sequential`, so that a page can run them as they are."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mmvae_lite.distributions import Concrete, Normal

LOGVAR_RANGE = (-10.0, 10.0)


def mlp(sizes: Sequence[int], activation: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    """Linear layers of the given sizes with the activation between them, none after the last.

    `mlp([784, 512, 20])` maps [batch, 784] to [batch, 20].  Raises ValueError for fewer than two sizes.
    """
    if len(sizes) < 2:
        raise ValueError(f"an MLP needs at least 2 sizes, got {list(sizes)}")
    layers: list[nn.Module] = []
    for fan_in, fan_out in zip(sizes, sizes[1:]):
        layers += [nn.Linear(fan_in, fan_out), activation()]
    return nn.Sequential(*layers[:-1])


def gaussian(params: Float[Tensor, "batch two_latent"], softplus: bool = False) -> Normal:
    """A head's output [batch, 2 latent] read as means and log-variances, or as means and softplus variances.

    The log-variance is clamped to [-10, 10], so that a precision neither overflows nor vanishes.
    """
    mean, spread = params.chunk(2, dim=-1)
    if softplus:
        spread = nn.functional.softplus(spread.clamp_min(2 * LOGVAR_RANGE[0])).log()  # so that no variance rounds to 0
    return Normal(mean, spread.clamp(*LOGVAR_RANGE))


class GaussianEncoder(nn.Module):
    """A trunk of features followed by one linear head for mean and variance, as in `gaussian`.

    `forward` maps [batch, *event] to a `Normal` of shape [batch, latent].
    """

    def __init__(self, trunk: nn.Module, features: int, latent_dim: int, softplus: bool = False) -> None:
        super().__init__()
        self.trunk, self.softplus = trunk, softplus
        self.head = nn.Linear(features, 2 * latent_dim)

    def forward(self, x: Float[Tensor, "batch *event"]) -> Normal:
        return gaussian(self.head(self.trunk(x)), self.softplus)


class JointEncoder(nn.Module):
    """One trunk for each modality, their features concatenated and merged, and one head as in `gaussian`.

    `forward` maps a dict of all the trunks' modalities, each [batch, *event], to a `Normal` of shape [batch, latent].
    `merge` maps the concatenated features to `features` of them.
    """

    def __init__(
        self, trunks: Mapping[str, nn.Module], merge: nn.Module, features: int, latent_dim: int, softplus: bool = False
    ) -> None:
        super().__init__()
        self.trunks, self.merge, self.softplus = nn.ModuleDict(trunks), merge, softplus
        self.head = nn.Linear(features, 2 * latent_dim)

    def forward(self, batch: Mapping[str, Float[Tensor, "batch ..."]]) -> Normal:
        features = torch.cat([trunk(batch[m]) for m, trunk in self.trunks.items()], -1)
        return gaussian(self.head(self.merge(features)), self.softplus)


def image_encoder(latent_dim: int, hidden: Sequence[int] = (512, 512), pixels: int = 784) -> GaussianEncoder:
    """The MVAE image encoder: [batch, 1, 28, 28] -> hidden layers with Swish -> Normal (Wu and Goodman 2018)."""
    trunk = nn.Sequential(nn.Flatten(), mlp([pixels, *hidden], nn.SiLU), nn.SiLU())
    return GaussianEncoder(trunk, hidden[-1], latent_dim)


def image_decoder(
    latent_dim: int, hidden: Sequence[int] = (512, 512, 512), shape: tuple[int, ...] = (1, 28, 28)
) -> nn.Sequential:
    """The MVAE image decoder: [batch, latent] -> logits [batch, *shape] (Wu and Goodman 2018)."""
    pixels = 1
    for side in shape:
        pixels *= side
    return nn.Sequential(*mlp([latent_dim, *hidden, pixels], nn.SiLU), nn.Unflatten(1, shape))


def label_encoder(latent_dim: int, classes: int = 10, hidden: Sequence[int] = (512, 512)) -> GaussianEncoder:
    """The MVAE label encoder: one-hot [batch, classes] -> embedding -> hidden layers -> Normal.

    A linear layer without bias on a one-hot label is an embedding of the class.
    """
    embedding = nn.Linear(classes, hidden[0], bias=False)
    rest = [layer for a, b in zip(hidden, hidden[1:]) for layer in (nn.Linear(a, b), nn.SiLU())]
    return GaussianEncoder(nn.Sequential(embedding, nn.SiLU(), *rest), hidden[-1], latent_dim)


def label_decoder(latent_dim: int, classes: int = 10, hidden: Sequence[int] = (512, 512, 512)) -> nn.Sequential:
    """The MVAE label decoder: [batch, latent] -> logits [batch, classes] (Wu and Goodman 2018)."""
    return mlp([latent_dim, *hidden, classes], nn.SiLU)


def dense_trunk(sizes: Sequence[int], activation: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    """Flatten, then linear layers of the given sizes, each followed by the activation."""
    return nn.Sequential(nn.Flatten(), mlp(sizes, activation), activation())


def dense_encoder(sizes: Sequence[int], latent_dim: int, softplus: bool = False) -> GaussianEncoder:
    """[batch, *event] -> ReLU layers -> Normal [batch, latent]; `sizes` starts with the number of inputs."""
    return GaussianEncoder(dense_trunk(sizes), sizes[-1], latent_dim, softplus)


def dense_joint_encoder(
    sizes: Mapping[str, Sequence[int]], merged: int, latent_dim: int, softplus: bool = False
) -> JointEncoder:
    """ReLU layers for each modality, concatenated, one ReLU layer of `merged` units, Normal [batch, latent]."""
    width = sum(s[-1] for s in sizes.values())
    return JointEncoder(
        {m: dense_trunk(s) for m, s in sizes.items()}, nn.Sequential(nn.Linear(width, merged), nn.ReLU()), merged, latent_dim, softplus
    )


def dense_decoder(sizes: Sequence[int], shape: Sequence[int]) -> nn.Sequential:
    """[batch, latent] -> ReLU layers -> [batch, *shape]; `sizes` starts with the latent, ends with the outputs."""
    return nn.Sequential(*mlp(sizes), *([nn.Unflatten(1, tuple(shape))] if len(shape) > 1 else []))


def jmvae_networks(latent_dim: int = 64, hidden: int = 512, classes: int = 10) -> dict[str, nn.Module | dict[str, nn.Module]]:
    """The networks of JMVAE on MNIST images with labels: `joint_encoder`, `encoders`, `decoders`.

    Sizes as in the authors' program (Suzuki et al. 2016): one layer for each modality, concatenated, one more, a head
    with a softplus variance; decoders of two layers.  A unimodal encoder is the same without the concatenation.
    """
    inputs = {"image": 784, "label": classes}
    shapes = {"image": (1, 28, 28), "label": (classes,)}
    return {
        "joint_encoder": dense_joint_encoder({m: [d, hidden] for m, d in inputs.items()}, hidden, latent_dim, softplus=True),
        "encoders": {m: dense_encoder([d, hidden, hidden], latent_dim, softplus=True) for m, d in inputs.items()},
        "decoders": {m: dense_decoder([latent_dim, hidden, hidden, d], shapes[m]) for m, d in inputs.items()},
    }


def m2vae_networks(
    shapes: Mapping[str, Sequence[int]], hidden: Sequence[int] = (128, 64), merged: int = 64, latent_dim: int = 2
) -> dict[str, dict[str, nn.Module]]:
    """The networks of Korthals et al. (2019), table 1: `encoders` of every subset and `decoders` of every modality.

    The defaults are those of e-MNIST, for images of 784 pixels; `hidden=(128,)` with events of 2 numbers are those of
    the mixture of Gaussians.  The table's 786 inputs are 784, and its tanh decoders are ReLU layers before logits.
    Its JMVAE uses the encoder of all modalities, its triple-ELBO model also those of one.
    """
    sizes = {m: [nn.Flatten()(torch.empty(1, *shape)).shape[1], *hidden] for m, shape in shapes.items()}
    subsets = [s for r in range(1, len(sizes) + 1) for s in itertools.combinations(sizes, r)]
    return {
        "encoders": {
            "+".join(s): dense_encoder(sizes[s[0]], latent_dim)
            if len(s) == 1
            else dense_joint_encoder({m: sizes[m] for m in s}, merged, latent_dim)
            for s in subsets
        },
        "decoders": {m: dense_decoder([latent_dim, *reversed(sizes[m])], shapes[m]) for m in sizes},
    }


class SplitEncoder(nn.Module):
    """A trunk of features followed by one head for the private and one for the shared latent.

    `forward` maps [batch, *event] to {"private": Normal [batch, private], "shared": ..}, without `private` where
    `private_dim` is 0.  `shared` is a number of dimensions and gives a `Normal`, or a pair (variables, classes) and
    gives a `Concrete` with logits [batch, variables, classes].
    """

    def __init__(
        self,
        trunk: nn.Module,
        features: int,
        private_dim: int,
        shared: int | tuple[int, int],
        temperature: float = 0.66,
    ) -> None:
        super().__init__()
        self.trunk, self.temperature = trunk, temperature
        self.categories = shared if isinstance(shared, tuple) else None
        self.private = nn.Linear(features, 2 * private_dim) if private_dim else None
        self.shared = nn.Linear(features, shared[0] * shared[1] if self.categories else 2 * shared)

    def forward(self, x: Float[Tensor, "batch *event"]) -> dict[str, Normal | Concrete]:
        features = self.trunk(x)
        shared = self.shared(features)
        codes = {"shared": Concrete(shared.unflatten(-1, self.categories), self.temperature) if self.categories else gaussian(shared)}
        return codes if self.private is None else {"private": gaussian(self.private(features)), **codes}


def normal_init(module: nn.Module, std: float = 0.05) -> None:
    """Weights N(0, std^2) and biases 0 in linear and convolutional layers, in place.

    For `module.apply(normal_init)`.  Transposed convolutions keep their own start, as in the code of Daunhawer et al.
    """
    if isinstance(module, (nn.Linear, nn.Conv2d)):
        nn.init.normal_(module.weight, std=std)
        nn.init.zeros_(module.bias)


def stride_two_convolutions(channels: Sequence[int]) -> list[nn.Module]:
    """Convolutions of 4x4 with stride 2 and padding 1, each followed by a ReLU; every one halves the side."""
    pairs = zip(channels, channels[1:])
    return [layer for a, b in pairs for layer in (nn.Conv2d(a, b, 4, 2, 1), nn.ReLU())]


def stride_two_deconvolutions(channels: Sequence[int]) -> list[nn.Module]:
    """Transposed convolutions of 4x4 with stride 2 and padding 1, a ReLU between them; every one doubles the side."""
    layers = [layer for a, b in zip(channels, channels[1:]) for layer in (nn.ConvTranspose2d(a, b, 4, 2, 1), nn.ReLU())]
    return layers[:-1]


def dmvae_d_networks(private_dim: int = 10, shared_dim: int = 10) -> dict[str, dict[str, nn.Module]]:
    """`encoders` and `decoders` of DMVAE-D for MNIST [1, 28, 28] and SVHN [3, 32, 32] (code of Daunhawer et al. 2021).

    Decoders give the means of Laplace likelihoods: MNIST's through a sigmoid, SVHN's as they come.
    """
    latent = private_dim + shared_dim
    svhn = nn.Sequential(*stride_two_convolutions([3, 32, 64, 128]), nn.Flatten())
    return {
        "encoders": {
            "mnist": SplitEncoder(dense_trunk([784, 400]), 400, private_dim, shared_dim),
            "svhn": SplitEncoder(svhn, 2048, private_dim, shared_dim),
        },
        "decoders": {
            "mnist": nn.Sequential(*dense_decoder([latent, 400, 784], (1, 28, 28)), nn.Sigmoid()),
            "svhn": nn.Sequential(
                nn.Unflatten(1, (latent, 1, 1)),
                nn.ConvTranspose2d(latent, 128, 4),
                nn.ReLU(),
                *stride_two_deconvolutions([128, 64, 32, 3]),
            ),
        },
    }


def dmvae_d_paired_networks(
    modalities: Sequence[str], private_dim: int = 10, shared_dim: int = 10, hidden: int = 512
) -> dict[str, dict[str, nn.Module]]:
    """`encoders` and `decoders` of DMVAE-D for tuples of MNIST images (code of Daunhawer et al. 2021)."""
    sizes = [private_dim + shared_dim, hidden, hidden, hidden, 784]
    return {
        "encoders": {m: SplitEncoder(dense_trunk([784, hidden, hidden]), hidden, private_dim, shared_dim) for m in modalities},
        "decoders": {m: nn.Sequential(*dense_decoder(sizes, (1, 28, 28)), nn.Sigmoid()) for m in modalities},
    }
