"""Two modalities of two numbers each that share a class: ten Gaussians on a circle beside seven in a square."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mmvae_lite.checks import check_name
from mmvae_lite.data.idx import BadFile, read_idx
from mmvae_lite.data.labelled_images import DIGITS, MNIST
from mmvae_lite.data.parts import MultimodalSet, Part
from mmvae_lite.data.sources import obtain

SOURCES = ("best", "real", "stand-in")
COUNTS = (5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949)
"""How often each digit occurs among the training labels of MNIST."""

STD = {"w": 0.1, "x": 0.06}
TEST_SHARE = 0.01
_PLACES = {1: (0, 1 / 2), 2: (0, 1), 3: (1 / 3, 1 / 4), 4: (1 / 3, 3 / 4), **dict.fromkeys((5, 6, 7), (2 / 3, 1 / 2)), **dict.fromkeys((8, 0), (1, 1 / 4)), 9: (1, 3 / 4)}


def mixture_means() -> dict[str, Float[Tensor, "classes two"]]:
    """The centres of the ten classes before scaling, [10, 2] for `w` and for `x`.

    w: ten points on the circle from angle 0 to 2 pi, both included, so that 0 and 9 coincide.
    x: 5, 6 and 7 share a place, and so do 8 and 0.  Neither modality can tell every class; both together tell more.
    """
    angles = torch.linspace(0, 2 * math.pi, 10, dtype=torch.float64)
    places = torch.tensor([_PLACES[k] for k in range(10)], dtype=torch.float64)
    return {"w": torch.stack([angles.cos(), angles.sin()], -1), "x": places}


def mog(source: str = "best", *, download: bool = False, seed: int = 0) -> MultimodalSet:
    """The didactic set of Korthals et al. (2019): `w` and `x` [items, 2], 59 400 pairs for training and 600 for testing.

    The classes are MNIST's training labels, or, without that file, as many of each digit in random order, which makes
    the same set up to its order.  Gaussian noise of standard deviation 0.1 in `w` and 0.06 in `x`, then each coordinate from
    its least to its greatest value onto [0, 1].
    Source: the paper's didactic example with the authors' program.
    Raises KeyError for an unknown source, FileNotFoundError for `real` without the labels.
    """
    check_name("source", source, SOURCES)
    g = torch.Generator().manual_seed(seed)
    classes, origin = _classes(source, download, g)
    batch = {m: _scaled(means[classes] + STD[m] * torch.randn(len(classes), 2, generator=g, dtype=torch.float64)) for m, means in mixture_means().items()}
    order, held_out = torch.randperm(len(classes), generator=g), round(TEST_SHARE * len(classes))
    train, test = (Part({m: x[rows] for m, x in batch.items()}, classes[rows]) for rows in (order[held_out:], order[:held_out]))
    return MultimodalSet("mog", f"ten Gaussians on a circle beside seven in a square, classes {origin}", False, train, test, class_names=DIGITS)


def _classes(source: str, download: bool, g: torch.Generator) -> tuple[Int[Tensor, "items"], str]:
    if source != "stand-in":
        try:
            (path,) = obtain(MNIST[1:2], download)
        except FileNotFoundError as missing:
            if source == "real" or str(missing).startswith("MMVAE_DATA"):
                raise
        else:
            labels = torch.from_numpy(read_idx(path, ndim=1).copy()).long()
            if int(labels.max()) > 9:
                raise BadFile(f"{path.name}: found label {int(labels.max())}, wanted 0 to 9")
            return labels, "from the training labels of MNIST"
    counted = torch.arange(10).repeat_interleave(torch.tensor(COUNTS))
    return counted[torch.randperm(len(counted), generator=g)], "as many as among the training labels of MNIST"


def _scaled(x: Float[Tensor, "items two"]) -> Float[Tensor, "items two"]:
    low, high = x.amin(0), x.amax(0)
    return ((x - low) / (high - low)).float()
