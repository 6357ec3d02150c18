"""Fréchet distances between sets of images: how far generated features are from real ones, both taken as Gaussians.

The distance of Heusel et al. (2017) is called FID when the features are those of one Inception network with its published
weights.  Those cannot be had everywhere.  Here the features are by default those of small networks that we trained and that
ship with the package; the number is then a *Fréchet distance on grey-features* (street-features, colour-features), is never called FID
and compares with nothing computed on other features.

What it sees: blur, noise, missing classes, wrong proportions.  What it does not see: copies of the training images, which score
as well as a second sample of the truth (`copied` sees them), and whatever two sets of features do beyond their first two moments.
It is biased upwards, the more the fewer images there are: compare at equal numbers, or see `extrapolated`.
Its unit is the features' own; the distance of real training images from real test images is the floor to print beside it.
"""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable, Iterable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mmvae_lite.checks import check_name, check_positive
from mmvae_lite.data.parts import as_float
from mmvae_lite.data.sources import user_folder
from mmvae_lite.evaluation.classifiers import street_network
from mmvae_lite.pretrained import load_network

Network = Callable[[Tensor], Tensor]
ENOUGH = 5
"""With fewer images than this for each feature a distance is mostly bias, and a warning says so."""

INCEPTION_FILE = "weights-inception-2015-12-05-6726825d.pth"


class Moments:
    """Mean and covariance of features that arrive in parts, in float64, without holding them.

    Updated by the pairwise formula of Chan et al. (1979), so that neither the size nor the order of the parts matters.
    """

    def __init__(self, dim: int, device: torch.device | None = None) -> None:
        self.n = 0
        self.mean = torch.zeros(dim, dtype=torch.float64, device=device)
        self._scatter = torch.zeros(dim, dim, dtype=torch.float64, device=device)

    @classmethod
    def of(cls, features: Float[Tensor, "items features"]) -> "Moments":
        moments = cls(features.shape[1], features.device)
        moments.add(features)
        return moments

    def add(self, features: Float[Tensor, "items features"]) -> None:
        """Take in some more items.  Raises ValueError where a feature is not finite."""
        if not bool(torch.isfinite(features).all()):
            raise ValueError("features: found NaN or infinity, wanted finite values; look at the images first")
        x = features.double()
        mean, n = x.mean(0), len(x)
        gap, total = mean - self.mean, self.n + n
        self._scatter += (x - mean).T @ (x - mean) + torch.outer(gap, gap) * (self.n * n / total)
        self.mean += gap * (n / total)
        self.n = total

    @property
    def covariance(self) -> Float[Tensor, "features features"]:
        """The unbiased covariance; needs two items."""
        if self.n < 2:
            raise ValueError(f"a covariance needs 2 images or more, found {self.n}")
        return self._scatter / (self.n - 1)


def distance(a: Moments, b: Moments) -> float:
    """|m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a^1/2 C_b C_a^1/2)^1/2) (Dowson and Landau 1982), in squared units of the features.

    Equation `eq-frechet` of the book.  By the eigenvalues of two symmetric matrices, so that nothing complex arises where the product is nearly singular.
    Raises ValueError for different numbers of features.
    """
    if a.mean.shape != b.mean.shape:
        raise ValueError(f"features: found {len(a.mean)} and {len(b.mean)}, wanted the same network for both")
    values, vectors = torch.linalg.eigh(a.covariance)
    root = vectors * values.clamp_min(0).sqrt() @ vectors.T
    cross = torch.linalg.eigvalsh(root @ b.covariance @ root).clamp_min(0).sqrt().sum()
    return float((a.mean - b.mean).square().sum() + a.covariance.trace() + b.covariance.trace() - 2 * cross)


def grey_features(features: int = 32, classes: int = 20) -> nn.Sequential:
    """The network of `grey-features`: [batch, 1, 28, 28] -> [batch, features] at its last but one layer, then classes."""
    layers = [layer for a, b, stride in ((1, 16, 2), (16, 32, 2), (32, 64, 1), (64, 64, 2)) for layer in (nn.Conv2d(a, b, 3, stride, 1), nn.ReLU())]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * 16, features), nn.ReLU(), nn.Linear(features, classes))


class GlobalMean(nn.Module):
    """[batch, channels, height, width] -> [batch, channels], so that pictures of any size have as many features."""

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch channels"]:
        return x.mean((2, 3))


def colour_features(features: int = 64, outputs: int = 155) -> nn.Sequential:
    """The network of `colour-features`: [batch, 3, side, side] -> [batch, features], then what it was taught to tell."""
    steps = ((3, 16, 1), (16, 32, 2), (32, 64, 2), (64, 64, 2))
    layers = [layer for a, b, stride in steps for layer in (nn.Conv2d(a, b, 3, stride, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU())]
    return nn.Sequential(*layers, GlobalMean(), nn.Linear(64, features), nn.ReLU(), nn.Linear(features, outputs))


def _to_features(network: nn.Sequential) -> nn.Sequential:
    return network[:-2]  # up to the features, before their ReLU


class BesideColours(nn.Module):
    """Averaged maps of a judge, which overlooks colour, beside the mean and deviation of each channel and the saturation."""

    def __init__(self, maps: nn.Module) -> None:
        super().__init__()
        self.maps = maps

    def forward(self, x: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch features"]:
        saturation = (x.amax(1) - x.amin(1)).mean((1, 2))
        return torch.cat([self.maps(x).mean((2, 3)), x.mean((2, 3)), x.std((2, 3)), saturation[:, None]], 1)


def _beside_colours(network: nn.Sequential) -> nn.Module:
    return BesideColours(network[:-3])


# name -> its weights, how to build the network, the part of it that gives features, and the images that it was trained on
NETWORKS: dict[str, tuple[str, Callable[[], nn.Sequential], Callable[[nn.Sequential], nn.Module], tuple[int, ...]]] = {
    "grey-features": ("grey-features", grey_features, _to_features, (1, 28, 28)),
    "street-features": ("classifier-street-numbers", street_network, _beside_colours, (3, 32, 32)),
    "colour-features": ("colour-features", colour_features, _to_features, (3, 64, 64)),
}
"""Our networks: digits and garments, house numbers (the averaged maps of the judge of them, and seven numbers of colour), drawn faces and birds."""


def measure_name(features: str) -> str:
    """What a distance on these features is to be called beside its number."""
    check_name("features", features, (*NETWORKS, "inception"))
    return "FID" if features == "inception" else f"Fréchet distance on {features}"


@functools.lru_cache(maxsize=None)
def _shipped(name: str, device: torch.device) -> nn.Module:
    weights, build, part, _ = NETWORKS[name]
    return part(load_network(weights, build)[0]).eval().to(device)


def default_features(shape: Iterable[int]) -> str:
    """The name of our network for images of this shape.  Raises ValueError where we have none."""
    for name, (*_, wanted) in NETWORKS.items():
        if tuple(shape) == wanted:
            return name
    raise ValueError(f"images: found shape {list(shape)}; our feature networks read {', '.join(str(list(n[-1])) for n in NETWORKS.values())}")


@torch.no_grad()
def extract(
    images: Tensor, features: str | Network | None = None, chunk: int = 500, download: bool = False
) -> Float[Tensor, "items features"]:
    """The features of images [items, channels, height, width], 256 levels or numbers in [0, 1]; means may stray a little.

    features: the name of one of our networks, `inception`, or any function from float images to [items, features]; None takes
        our network for images of this shape.
    `inception` needs the package torch-fidelity and its weights in the folder `inception` of the one that MMVAE_DATA names, or
    `download=True`; grey images are repeated in three channels.

    Raises ValueError for no images or those of a shape that the network does not know, ImportError or FileNotFoundError for
    `inception`.
    """
    check_positive("chunk", chunk)
    if not len(images):
        raise ValueError(f"images: found shape {list(images.shape)}, wanted at least 1 image")
    if features is None:
        features = default_features(images.shape[1:])
    if isinstance(features, str):
        check_name("features", features, (*NETWORKS, "inception"))
        if features in NETWORKS and tuple(images.shape[1:]) != NETWORKS[features][-1]:
            raise ValueError(f"images: found shape {list(images.shape[1:])}, {features} was trained on {list(NETWORKS[features][-1])}")
        network = _inception(download, images.device) if features == "inception" else _shipped(features, images.device)
        images = images if images.dtype == torch.uint8 else images.float()  # the precision of the networks
    else:
        network = features
    return torch.cat([network(as_float(part).clamp(0, 1)) for part in images.split(chunk)])


def _inception(download: bool, device: torch.device) -> Network:
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    except ImportError:
        raise ImportError("features='inception' needs torch-fidelity; install it with: pip install torch-fidelity, or leave features out to use ours") from None
    folder = user_folder()
    path = folder / "inception" / INCEPTION_FILE if folder is not None else None
    found = path is not None and path.is_file()
    if not found and not download:
        raise FileNotFoundError(f"missing {INCEPTION_FILE}: put it under inception/ in the folder that MMVAE_DATA names, or ask for a download with download=True")
    network = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], feature_extractor_weights_path=str(path) if found else None).to(device).eval()
    return lambda x: network((255 * x).round().to(torch.uint8).expand(-1, 3, -1, -1))[0].flatten(1)


def _enough(n: int, dim: int, what: str) -> None:
    """Raise or warn where images are few beside features."""
    if n <= dim:
        raise ValueError(f"{what}: found {n} images for {dim} features, wanted more than {dim}, and {ENOUGH * dim} or more for a number worth printing")
    if n < ENOUGH * dim:
        warnings.warn(f"{what}: {n} images for {dim} features make the distance mostly bias; wanted {ENOUGH * dim} or more", stacklevel=3)


def frechet(
    real: Tensor, generated: Tensor, features: str | Network | None = None, chunk: int = 500, download: bool = False
) -> float:
    """The Fréchet distance between the features of real and generated images, each [items, channels, height, width].

    With draws from a model it is the unconditional distance, with translations of the test set's other modality the
    conditional one.  `features` as in `extract`; report the value under `measure_name`, with both numbers of images.
    Raises ValueError for no more images than features, and warns for few.
    """
    return between(extract(real, features, chunk, download), extract(generated, features, chunk, download))


def between(real: Float[Tensor, "items features"], generated: Float[Tensor, "others features"]) -> float:
    """`frechet` for features that are already there."""
    for what, x in (("real", real), ("generated", generated)):
        _enough(len(x), x.shape[1], what)
    return distance(Moments.of(real), Moments.of(generated))


def class_conditional(
    real: Float[Tensor, "items features"],
    real_classes: Int[Tensor, "items"],
    generated: Float[Tensor, "others features"],
    generated_classes: Int[Tensor, "others"],
) -> dict[str, float]:
    """One distance for each class, of its generated images from its real ones, and their `mean`.

    The classes of generated images are those of what they were translated from (Daunhawer et al. 2021), so that a translation
    into the wrong class counts here and not in the distance of all.  Takes features, see `extract`.
    Raises ValueError for a class that only one side has, or with too few images, which are about a tenth of all.
    """
    names = real_classes.unique().tolist()
    if names != generated_classes.unique().tolist():
        raise ValueError(f"classes: found {names} among real images and {generated_classes.unique().tolist()} among generated, wanted the same")
    each = {str(k): between(real[real_classes == k], generated[generated_classes == k]) for k in names}
    return {**each, "mean": sum(each.values()) / len(each)}


def extrapolated(
    real: Float[Tensor, "items features"],
    generated: Float[Tensor, "others features"],
    generator: torch.Generator | None = None,
    points: int = 8,
) -> float:
    """The distance for infinitely many images: a straight line in 1/n through distances of subsets (Chong and Forsyth 2020).

    The subsets go from half of the images to all of them, the same share of both sides.  Can fall below 0 by chance.
    Raises as `between` does.
    """
    check_positive("points", points)
    if points < 2:
        raise ValueError(f"points: found {points}, wanted 2 or more, through which a line can go")
    a, b = (x[torch.randperm(len(x), generator=generator, device=x.device)] for x in (real, generated))
    shares = torch.linspace(0.5, 1, points, dtype=torch.float64)
    values = torch.tensor([between(a[: math.ceil(s * len(a))], b[: math.ceil(s * len(b))]) for s in shares.tolist()], dtype=torch.float64)
    inverse = 1 / shares
    slope = ((inverse - inverse.mean()) * (values - values.mean())).sum() / (inverse - inverse.mean()).square().sum()
    return float(values.mean() - slope * inverse.mean())


@torch.no_grad()
def copied(
    generated: Tensor, train: Tensor, test: Tensor, rarest: float = 0.01, chunk: int = 500
) -> dict[str, float]:
    """Whether generated images are copies of training images, which no Fréchet distance sees.

    For each image, the distance in pixels to the nearest training image over that to the second nearest: near 1 for a new
    image, sharp or blurred, near 0 for a copy.  `share` is the part of the generated images whose ratio is below what all but
    `rarest` of the test images have, so that honest images give about `rarest`; `threshold` is that ratio, `median` the
    generated images' median, `n` how many these are.
    Works for items of any kind, [items, *event].
    Raises ValueError for no generated image, fewer than two training images or 1 / `rarest` test images, or other shapes.
    """
    if not generated.shape[1:] == train.shape[1:] == test.shape[1:]:
        raise ValueError(f"copied: found items of {list(generated.shape[1:])}, {list(train.shape[1:])} and {list(test.shape[1:])}, wanted one shape")
    if not len(generated):
        raise ValueError("copied: found no generated image, wanted at least 1")
    if len(train) < 2 or len(test) * rarest < 1:
        raise ValueError(f"copied: found {len(train)} training and {len(test)} test images, wanted 2 and {math.ceil(1 / rarest)} or more")
    ours, theirs = (_nearest_ratio(x, train, chunk) for x in (generated, test))
    threshold = theirs.quantile(rarest)
    return {"share": float((ours < threshold).double().mean()), "threshold": float(threshold), "median": float(ours.median()), "n": len(generated)}


def _nearest_ratio(images: Tensor, train: Tensor, chunk: int) -> Float[Tensor, "items"]:
    known = as_float(train).flatten(1)
    ratios = []
    for part in images.split(chunk):
        x = as_float(part).flatten(1).to(known)
        near = (known.square().sum(1) - 2 * x @ known.T).topk(2, largest=False).indices
        one, two = (x[:, None] - known[near]).norm(dim=-1).unbind(1)
        one, two = torch.minimum(one, two), torch.maximum(one, two)
        ratios.append(torch.where(two > 0, one / two.clamp_min(torch.finfo(two.dtype).tiny), 0.0))
    return torch.cat(ratios)
