"""Encoders and decoders.  Decoders are plain `nn.Sequential`, so that a page can run them as they are."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mmvae_lite.distributions import Concrete, Laplace, Normal

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


def svhn_trunk() -> nn.Sequential:
    """The features of SVHN that MMVAE and DMVAE-D read: [batch, 3, 32, 32] -> [batch, 2048] (code of Shi et al. 2019)."""
    return nn.Sequential(*stride_two_convolutions([3, 32, 64, 128]), nn.Flatten())


def svhn_decoder(latent_dim: int) -> nn.Sequential:
    """[batch, latent] -> a 4x4 map -> three doublings -> means [batch, 3, 32, 32], unbounded (code of Shi et al. 2019)."""
    return nn.Sequential(
        nn.Unflatten(1, (latent_dim, 1, 1)),
        nn.ConvTranspose2d(latent_dim, 128, 4),
        nn.ReLU(),
        *stride_two_deconvolutions([128, 64, 32, 3]),
    )


def dmvae_d_networks(private_dim: int = 10, shared_dim: int = 10) -> dict[str, dict[str, nn.Module]]:
    """`encoders` and `decoders` of DMVAE-D for MNIST [1, 28, 28] and SVHN [3, 32, 32] (code of Daunhawer et al. 2021).

    Decoders give the means of Laplace likelihoods: MNIST's through a sigmoid, SVHN's as they come.
    """
    latent = private_dim + shared_dim
    return {
        "encoders": {
            "mnist": SplitEncoder(dense_trunk([784, 400]), 400, private_dim, shared_dim),
            "svhn": SplitEncoder(svhn_trunk(), 2048, private_dim, shared_dim),
        },
        "decoders": {
            "mnist": nn.Sequential(*dense_decoder([latent, 400, 784], (1, 28, 28)), nn.Sigmoid()),
            "svhn": svhn_decoder(latent),
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


class LaplaceEncoder(nn.Module):
    """A trunk of features followed by one linear head for locations and the logits of scales that sum to D.

    `forward` maps [batch, *event] to a `Laplace` of shape [batch, latent] (Shi et al. 2019, section 4.1).
    """

    def __init__(self, trunk: nn.Module, features: int, latent_dim: int) -> None:
        super().__init__()
        self.trunk, self.head = trunk, nn.Linear(features, 2 * latent_dim)

    def forward(self, x: Float[Tensor, "batch *event"]) -> Laplace:
        return Laplace.from_logits(*self.head(self.trunk(x)).chunk(2, dim=-1))


class WordEmbedding(nn.Module):
    """One-hot words [batch, positions, vocabulary] -> their vectors as a picture, [batch, 1, positions, size]."""

    def __init__(self, vocabulary: int, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(vocabulary, size))

    def forward(self, words: Float[Tensor, "batch positions vocabulary"]) -> Float[Tensor, "batch 1 positions size"]:
        return (words @ self.weight)[:, None]


def mmvae_networks(latent_dim: int = 20, head: type[nn.Module] = LaplaceEncoder) -> dict[str, dict[str, nn.Module]]:
    """`encoders` and `decoders` of MMVAE for MNIST [1, 28, 28] and SVHN [3, 32, 32] (code of Shi et al. 2019).

    The code's heads of 4x4 kernels on a 4x4 map are one linear layer here.  Decoders give means in [0, 1].
    `head=GaussianEncoder` gives the experts of its comparator with a product.
    """
    return {
        "encoders": {
            "mnist": head(dense_trunk([784, 400]), 400, latent_dim),
            "svhn": head(svhn_trunk(), 2048, latent_dim),
        },
        "decoders": {
            "mnist": nn.Sequential(*dense_decoder([latent_dim, 400, 784], (1, 28, 28)), nn.Sigmoid()),
            "svhn": nn.Sequential(*svhn_decoder(latent_dim), nn.Sigmoid()),
        },
    }


def mmvae_cub_networks(
    latent_dim: int = 64, vocabulary: int = 1590, positions: int = 32, laplace: bool = True
) -> dict[str, dict[str, nn.Module]]:
    """`encoders` and `decoders` of MMVAE for bird features with captions (code of Shi et al. 2019).

    `image` is a vector of 2048 features, `caption` one-hot words [batch, positions, vocabulary].  The caption's words are
    embedded as a picture of one channel; the decoder's last layer shares its weight with the embedding.  With batch
    normalisation and without biases in the convolutions, as in the code; the heads have biases here.  The text has Laplace
    posteriors and a latent size of 128; the code's defaults are `laplace=False` and 64.

    Raises ValueError for a number of positions that is no multiple of 8.
    """
    if positions % 8:
        raise ValueError(f"positions: found {positions}, wanted a multiple of 8, since three convolutions halve the caption")
    head, rows = LaplaceEncoder if laplace else GaussianEncoder, positions // 8
    word, wide = {"kernel_size": (1, 4), "stride": (1, 2), "padding": (0, 1)}, {"kernel_size": 4, "stride": 2, "padding": 1}
    steps = [(1, 32, wide), (32, 64, wide), (64, 128, wide), (128, 128, word), (128, 128, word)]
    down, up = [], [nn.Unflatten(1, (latent_dim, 1, 1)), nn.ConvTranspose2d(latent_dim, 128, (rows, 4), bias=False)]
    for a, b, shape in steps:
        down += [nn.Conv2d(a, b, **shape, bias=False), nn.BatchNorm2d(b), nn.ReLU()]
    for a, b, shape in reversed(steps):
        up += [nn.BatchNorm2d(b), nn.ReLU(), nn.ConvTranspose2d(b, a, **shape, bias=False)]
    embedding, words = WordEmbedding(vocabulary, 128), nn.Linear(128, vocabulary)
    words.weight = embedding.weight
    return {
        "encoders": {
            "image": head(nn.Sequential(mlp([2048, 1024, 512, 256], nn.ELU), nn.ELU()), 256, latent_dim),
            "caption": head(nn.Sequential(embedding, *down, nn.Flatten()), 128 * rows * 4, latent_dim),
        },
        "decoders": {
            "image": mlp([latent_dim, 256, 512, 1024, 2048], nn.ELU),
            "caption": nn.Sequential(*up, nn.ReLU(), nn.Flatten(1, 2), words),
        },
    }


Shared = int | tuple[int, int]


def width(shared: Shared) -> int:
    """How many numbers of a shared latent a decoder reads: its dimensions, or variables times classes."""
    return shared if isinstance(shared, int) else shared[0] * shared[1]


def kaiming_init(module: nn.Module) -> None:
    """Uniform Kaiming weights and biases 0 in linear and convolutional layers, in place.

    For `module.apply(kaiming_init)`, as Lee and Pavlovic (2020) start.  Their code seeds anew before every layer, so
    that layers of one shape start alike; that is not done here.
    """
    if isinstance(module, (nn.Linear, nn.Conv2d)):
        nn.init.kaiming_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _beside_labels(
    encoder: nn.Module, decoder: nn.Module, label: str, classes: int, shared: Shared, temperature: float, hidden: int = 256
) -> dict[str, dict[str, nn.Module]]:
    """The networks of an image beside those of its labels, which have one hidden layer and no private latent."""
    return {
        "encoders": {"image": encoder, label: SplitEncoder(dense_trunk([classes, hidden]), hidden, 0, shared, temperature)},
        "decoders": {"image": decoder, label: mlp([width(shared), hidden, classes])},
    }


def dmvae_l_networks(
    private_dim: int = 10, shared: Shared = (1, 10), classes: int = 10, hidden: int = 256, temperature: float = 0.66
) -> dict[str, dict[str, nn.Module]]:
    """`encoders` and `decoders` of DMVAE-L for MNIST [1, 28, 28] with labels (Lee and Pavlovic 2020, table 3).

    Decoders give logits and read the private latent first.  The table's sigmoid after the label decoder is a softmax
    in the authors' code, and its encoder's last layer leaves out the second number of each private coordinate.
    """
    encoder = SplitEncoder(dense_trunk([784, hidden]), hidden, private_dim, shared, temperature)
    decoder = dense_decoder([private_dim + width(shared), hidden, 784], (1, 28, 28))
    return _beside_labels(encoder, decoder, "label", classes, shared, temperature)


def dmvae_l_fashion_networks(
    private_dim: int = 10,
    shared: Shared = (1, 10),
    classes: int = 10,
    temperature: float = 0.66,
    batch_norm: bool = False,
) -> dict[str, dict[str, nn.Module]]:
    """`encoders` and `decoders` of DMVAE-L for FMNIST [1, 28, 28] with labels (Lee and Pavlovic 2020, table 4).

    All kernels are 3x3; the 3x4 of the table cannot keep a map square.  `batch_norm` adds the layers that are in the
    authors' code and not in the table, and drops the biases before them.
    """

    def conv(a: int, b: int) -> nn.Conv2d:
        return nn.Conv2d(a, b, 3, padding=1, bias=not batch_norm)

    def norm(channels: int) -> list[nn.Module]:
        return [nn.BatchNorm2d(channels)] if batch_norm else []

    trunk = nn.Sequential(
        *(conv(1, 32), nn.ReLU(), *norm(32)),
        *(conv(32, 32), nn.ReLU(), *norm(32), nn.MaxPool2d(2), nn.Dropout(0.25)),
        *(conv(32, 64), nn.ReLU(), *norm(64)),
        *(conv(64, 64), nn.ReLU(), nn.MaxPool2d(2), *norm(64), nn.Dropout(0.25)),
        *(nn.Flatten(), nn.Linear(64 * 7 * 7, 512), nn.ReLU(), nn.Dropout(0.5)),
    )
    decoder = nn.Sequential(
        *(nn.Linear(private_dim + width(shared), 512), nn.ReLU()),
        *(nn.Linear(512, 64 * 7 * 7), nn.ReLU(), nn.Unflatten(1, (64, 7, 7)), nn.Upsample(scale_factor=2)),
        *(conv(64, 64), nn.ReLU(), *norm(64)),
        *(conv(64, 32), nn.ReLU(), *norm(32), nn.Upsample(scale_factor=2)),
        *(conv(32, 32), nn.ReLU(), *norm(32)),
        conv(32, 1),
    )
    return _beside_labels(SplitEncoder(trunk, 512, private_dim, shared, temperature), decoder, "label", classes, shared, temperature)


def dmvae_l_celeba_networks(
    private_dim: int = 100,
    shared: Shared = (18, 2),
    attributes: int = 18,
    temperature: float = 0.66,
    batch_norm: bool = False,
) -> dict[str, dict[str, nn.Module]]:
    """`encoders` and `decoders` of DMVAE-L for faces [3, 64, 64] with attributes (Lee and Pavlovic 2020, table 5).

    The fourth convolution has stride 1 and no padding, which the table's 5x5 map needs; its decoder column lists the
    channels that go in.  `batch_norm` as in `dmvae_l_fashion_networks`.
    """

    def norm(channels: int) -> list[nn.Module]:
        return [nn.BatchNorm2d(channels)] if batch_norm else []

    bias = not batch_norm
    trunk = nn.Sequential(
        *(nn.Conv2d(3, 32, 4, 2, 1, bias=bias), nn.ReLU()),
        *(nn.Conv2d(32, 64, 4, 2, 1, bias=bias), *norm(64), nn.ReLU()),
        *(nn.Conv2d(64, 128, 4, 2, 1, bias=bias), *norm(128), nn.ReLU()),
        *(nn.Conv2d(128, 256, 4, 1, 0, bias=bias), *norm(256), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(256 * 5 * 5, 512), nn.ReLU(), nn.Dropout(0.1)),
    )
    decoder = nn.Sequential(
        *(nn.Linear(private_dim + width(shared), 256 * 5 * 5), nn.ReLU(), nn.Unflatten(1, (256, 5, 5))),
        *(nn.ConvTranspose2d(256, 128, 4, 1, 0, bias=bias), *norm(128), nn.ReLU()),
        *(nn.ConvTranspose2d(128, 64, 4, 2, 1, bias=bias), *norm(64), nn.ReLU()),
        *(nn.ConvTranspose2d(64, 32, 4, 2, 1, bias=bias), *norm(32), nn.ReLU()),
        nn.ConvTranspose2d(32, 3, 4, 2, 1, bias=bias),
    )
    return _beside_labels(SplitEncoder(trunk, 512, private_dim, shared, temperature), decoder, "attributes", attributes, shared, temperature)


class AttributeEncoder(nn.Module):
    """One binary variable for each attribute: attributes [batch, attributes] in {0, 1} -> {"shared": Concrete [batch, attributes, 2]}."""

    def __init__(self, attributes: int, temperature: float = 0.66) -> None:
        super().__init__()
        self.scale, self.temperature = nn.Parameter(torch.full((attributes,), 2.0)), temperature

    def forward(self, x: Float[Tensor, "batch attributes"]) -> dict[str, Concrete]:
        half = self.scale.exp() * (x - 0.5)
        return {"shared": Concrete(torch.stack([-half, half], -1), self.temperature)}


class AttributeDecoder(nn.Module):
    """The logit of each attribute from its own variable: flat variables [batch, 2 attributes] -> [batch, attributes]."""

    def __init__(self, attributes: int) -> None:
        super().__init__()
        self.scale, self.bias = nn.Parameter(torch.full((attributes,), 2.0)), nn.Parameter(torch.zeros(attributes))

    def forward(self, z: Float[Tensor, "batch variables"]) -> Float[Tensor, "batch attributes"]:
        off, on = z.unflatten(-1, (-1, 2)).unbind(-1)
        return self.scale.exp() * (on - off) + self.bias


def dmvae_l_small_face_networks(private_dim: int = 24, attributes: int = 18, temperature: float = 0.66) -> dict[str, dict[str, nn.Module]]:
    """`encoders` and `decoders` of DMVAE-L for faces [3, 32, 32] with attributes, small enough for one CPU core; sizes are ours.

    Variable k of the shared latent belongs to attribute k, and class 1 says that it is there; in the paper's networks any
    code of all variables may stand for any set of attributes.
    """
    shared = (attributes, 2)
    trunk = nn.Sequential(
        *(nn.Conv2d(3, 24, 4, 2, 1), nn.ReLU(), nn.Conv2d(24, 48, 4, 2, 1), nn.ReLU(), nn.Conv2d(48, 64, 4, 2, 1), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(64 * 4 * 4, 192), nn.ReLU()),
    )
    decoder = nn.Sequential(
        *(nn.Linear(private_dim + width(shared), 192), nn.ReLU(), nn.Linear(192, 64 * 4 * 4), nn.ReLU(), nn.Unflatten(1, (64, 4, 4))),
        *(nn.ConvTranspose2d(64, 48, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(48, 24, 4, 2, 1), nn.ReLU()),
        nn.ConvTranspose2d(24, 3, 4, 2, 1),
    )
    return {
        "encoders": {"image": SplitEncoder(trunk, 192, private_dim, shared, temperature), "attributes": AttributeEncoder(attributes, temperature)},
        "decoders": {"image": decoder, "attributes": AttributeDecoder(attributes)},
    }


class ConditionalEncoder(nn.Module):
    """q(z | x, C): features of x, the class label beside them, merged, and one head as in `gaussian`.

    `forward` maps x [batch, *event] and one-hot labels [batch, classes] to a `Normal` of shape [batch, latent].
    `merge` maps the concatenated features and label to `features` of them.
    """

    def __init__(self, trunk: nn.Module, merge: nn.Module, features: int, latent_dim: int) -> None:
        super().__init__()
        self.trunk, self.merge = trunk, merge
        self.head = nn.Linear(features, 2 * latent_dim)

    def forward(self, x: Float[Tensor, "batch *event"], label: Float[Tensor, "batch classes"]) -> Normal:
        return gaussian(self.head(self.merge(torch.cat([self.trunk(x), label], -1))))


def cvae_encoder(latent_dim: int = 2, classes: int = 10) -> ConditionalEncoder:
    """The encoder of Korthals et al. (2019), table 2, for images [batch, 1, 28, 28].

    Keras' `same` padding puts the odd pixel of an even kernel at the right and at the bottom.
    """
    trunk = nn.Sequential(
        nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(1, 1, 2), nn.ReLU(),
        nn.Conv2d(1, 64, 2, stride=2), nn.ReLU(),
        nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(),
        nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(), nn.Flatten(),
    )  # fmt: skip
    return ConditionalEncoder(trunk, nn.Sequential(nn.Linear(64 * 14 * 14 + classes, 128), nn.ReLU()), 128, latent_dim)


def cvae_decoder(latent_dim: int = 2, classes: int = 10) -> nn.Sequential:
    """The decoder of Korthals et al. (2019), table 2: [batch, latent + classes] -> logits [batch, 1, 28, 28].

    The table says `reverse of encoder`; sizes as in the authors' program, where a stride of 2 without padding gives
    29 pixels a side and the last layer 28.
    """
    return nn.Sequential(
        nn.Linear(latent_dim + classes, 128), nn.ReLU(),
        nn.Linear(128, 64 * 14 * 14), nn.ReLU(), nn.Unflatten(1, (64, 14, 14)),
        nn.ConvTranspose2d(64, 64, 3, padding=1), nn.ReLU(),
        nn.ConvTranspose2d(64, 64, 3, padding=1), nn.ReLU(),
        nn.ConvTranspose2d(64, 64, 3, stride=2), nn.ReLU(),
        nn.Conv2d(64, 1, 2),
    )  # fmt: skip


class PartitionedEncoder(nn.Module):
    """One trunk for each modality, their features concatenated, and one linear head for each latent.

    `forward` maps a dict of all the trunks' modalities, each [batch, *event], to a dict of `Normal`s: `shared`, and
    `private/<modality>` for each of them (Hsu and Glass 2018, figure 8).  `features` is their number after concatenation.
    """

    def __init__(self, trunks: Mapping[str, nn.Module], features: int, private_dim: int, shared_dim: int) -> None:
        super().__init__()
        self.trunks = nn.ModuleDict(trunks)
        self.shared = nn.Linear(features, 2 * shared_dim)
        self.private = nn.ModuleDict({m: nn.Linear(features, 2 * private_dim) for m in trunks})

    def forward(self, batch: Mapping[str, Float[Tensor, "batch ..."]]) -> dict[str, Normal]:
        features = torch.cat([trunk(batch[m]) for m, trunk in self.trunks.items()], -1)
        styles = {f"private/{m}": gaussian(head(features)) for m, head in self.private.items()}
        return {"shared": gaussian(self.shared(features)), **styles}


@torch.no_grad()
def chrono_init(lstm: nn.LSTM, frames: int) -> None:
    """Forget gates that keep their cells for T frames, T drawn between 2 and `frames`, and input gates to match, in place.

    With biases near 0 a gate forgets half of its cell at every frame, and of a spoken word nothing outlives the silence
    behind it.  Equation `eq-chrono` of the book.  Source: Tallec and Ollivier (2018), their chrono initialization.
    """
    units = lstm.hidden_size
    for layer in range(lstm.num_layers):
        here, before = getattr(lstm, f"bias_ih_l{layer}"), getattr(lstm, f"bias_hh_l{layer}")
        nn.init.zeros_(here)  # torch adds the two, in the order of input, forget, cell and output gate
        nn.init.zeros_(before)
        here[units : 2 * units].uniform_(1, max(frames - 1, 2)).log_()
        here[:units] = -here[units : 2 * units]


class LastState(nn.Module):
    """A one-layer LSTM over [batch, frames, inputs]; gives its last hidden state, [batch, units].

    frames: how far back it is to remember at the start (`chrono_init`).
    """

    def __init__(self, inputs: int, units: int, frames: int = 100) -> None:
        super().__init__()
        self.lstm = nn.LSTM(inputs, units, batch_first=True)
        chrono_init(self.lstm, frames)

    def forward(self, x: Float[Tensor, "batch frames inputs"]) -> Float[Tensor, "batch units"]:
        return self.lstm(x)[1][0][-1]


class EveryFrame(nn.Module):
    """A one-layer LSTM that reads the same latent at every frame: [batch, latent] -> [batch, frames, units]."""

    def __init__(self, frames: int, latent_dim: int, units: int) -> None:
        super().__init__()
        self.frames = frames
        self.lstm = nn.LSTM(latent_dim, units, batch_first=True)
        chrono_init(self.lstm, frames)

    def forward(self, z: Float[Tensor, "batch latent"]) -> Float[Tensor, "batch frames units"]:
        return self.lstm(z[:, None].expand(-1, self.frames, -1))[0]


def speech_trunk(bins: int = 80, units: int = 512, frames: int = 100) -> LastState:
    """The pre-encoder of log-mel spectra, [batch, frames, bins] -> [batch, units] (Hsu and Glass 2018, appendix B)."""
    return LastState(bins, units, frames)


def speech_decoder(latent_dim: int, frames: int = 100, bins: int = 80, units: int = 512) -> nn.Sequential:
    """[batch, latent] -> LSTM -> one linear layer for all frames -> means [batch, frames, bins].

    The paper leaves the number of frames open although the style latent is to set the duration: here it is fixed, and
    padding is part of the data.
    """
    return nn.Sequential(EveryFrame(frames, latent_dim, units), nn.Linear(units, bins))


def pvae_image_trunk(units: int = 512, channels: Sequence[int] = (4, 8)) -> nn.Sequential:
    """The pre-encoder of images, [batch, 1, 28, 28] -> [batch, units] (Hsu and Glass 2018, appendix B; ReLU by our choice)."""
    convolutions = stride_two_convolutions([1, *channels])
    return nn.Sequential(*convolutions, nn.Flatten(), nn.Linear(49 * channels[-1], units), nn.ReLU())


def pvae_image_decoder(latent_dim: int, units: int = 512) -> nn.Sequential:
    """[batch, latent] -> two dense layers -> two transposed convolutions -> means [batch, 1, 28, 28], unbounded."""
    dense = [nn.Linear(latent_dim, units), nn.ReLU(), nn.Linear(units, 7 * 7 * 16), nn.ReLU(), nn.Unflatten(1, (16, 7, 7))]
    return nn.Sequential(*dense, *stride_two_deconvolutions([16, 8, 1]))


def pvae_networks(
    private_dim: int = 32, shared_dim: int = 32, frames: int = 100, bins: int = 80, units: int = 512
) -> dict[str, nn.Module | dict[str, nn.Module]]:
    """The networks of PVAE for speech [frames, bins] with images [1, 28, 28]: `joint_encoder`, `encoders`, `decoders`.

    Sizes of Hsu and Glass (2018), appendix B.  The two inference networks share no pre-encoder.
    """

    def trunks() -> dict[str, nn.Module]:
        return {"speech": speech_trunk(bins, units, frames), "image": pvae_image_trunk(units)}

    latent = private_dim + shared_dim
    return {
        "joint_encoder": PartitionedEncoder(trunks(), 2 * units, private_dim, shared_dim),
        "encoders": {m: SplitEncoder(trunk, units, private_dim, shared_dim) for m, trunk in trunks().items()},
        "decoders": {"speech": speech_decoder(latent, frames, bins, units), "image": pvae_image_decoder(latent, units)},
    }


def pvae_jmvae_networks(
    latent_dim: int = 96, frames: int = 100, bins: int = 80, units: int = 512
) -> dict[str, nn.Module | dict[str, nn.Module]]:
    """The JMVAE that Hsu and Glass (2018) compare with: PVAE's networks on one latent of the same size in all."""
    joint, single = ({"speech": speech_trunk(bins, units, frames), "image": pvae_image_trunk(units)} for _ in range(2))
    return {
        "joint_encoder": JointEncoder(joint, nn.Identity(), 2 * units, latent_dim),
        "encoders": {m: GaussianEncoder(trunk, units, latent_dim) for m, trunk in single.items()},
        "decoders": {"speech": speech_decoder(latent_dim, frames, bins, units), "image": pvae_image_decoder(latent_dim, units)},
    }
