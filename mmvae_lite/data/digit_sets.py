"""Sets made of digit images: with house numbers, with noisy copies of the same digit, and with labels of which few are used."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from torch.nn import functional as F

from mmvae_lite.checks import check_name, check_positive
from mmvae_lite.data.labelled_images import SETS, LabelledImages, Split, digits, load
from mmvae_lite.data.pairing import pair_by_class
from mmvae_lite.data.parts import MultimodalSet, Part
from mmvae_lite.data.sources import SOURCES, MissingFiles
from mmvae_lite.data.street_numbers import street_numbers
from mmvae_lite.data.svhn import svhn

FRACTIONS = (0.1, 0.2, 0.5, 1, 5, 10, 50, 100)
"""The shares of labelled images, in per cent, of Lee and Pavlovic (2020)."""


def digits_street(
    source: str = "best", download: bool = False, seed: int = 0, times: int = 20, drawn: tuple[int, int] = (10_000, 2_000)
) -> MultimodalSet:
    """Handwritten digits beside house numbers that show the same digit, as Shi et al. (2019) pair MNIST with SVHN.

    `digit` [1, 28, 28] and `street` [3, 32, 32], 256 levels.  source: `real` for MNIST and SVHN, `stand-in` for the digits of
    scikit-learn and drawn house numbers, `best` for what is at hand of each.  times: the tuples of each image.
    drawn: how many house numbers are drawn for training and for testing where SVHN is not at hand.  MNIST and SVHN make the
    paper's 1 121 360 and 200 000 tuples; in other company, handwritten digits that are fewer than the house numbers are used as
    often as is needed to give every house number a partner.

    Raises FileNotFoundError for missing files, KeyError for an unknown source.
    """
    written = _labelled("mnist", source, download)
    street, real = _street(source, download, seed, drawn)
    stand_in = written.stand_in or not real
    parts = [
        _side_by_side(a, b, times, torch.Generator().manual_seed(seed + 2**32 * partition), stand_in)
        for partition, (a, b) in enumerate(zip((written.train, written.test), street))
    ]
    name = f"{written.name}-{'svhn' if real else 'street-numbers'}"
    description = f"{written.description}, and {'SVHN' if real else 'drawn'} house numbers of 3x32x32"
    return MultimodalSet(name, description, stand_in, *parts, class_names=written.class_names)


def _street(source: str, download: bool, seed: int, drawn: tuple[int, int]) -> tuple[list[Part], bool]:
    """House numbers for training and testing, and whether they are SVHN's."""
    if source != "stand-in":
        try:
            return list(svhn(download)), True
        except MissingFiles:
            if source == "real":
                raise
    pictures = [street_numbers(n, partition, seed) for n, partition in zip(drawn, ("train", "test"))]
    return [Part({"street": images}, classes) for images, classes in pictures], False


def _side_by_side(written: Split, street: Part, times: int, generator: torch.Generator, repeat: bool) -> Part:
    """Tuples of a digit and a house number; with `repeat`, a digit stands for several where there are fewer of them."""
    copies = 1
    if repeat:
        of_class = (x.bincount(minlength=10) for x in (street.classes, written.classes))
        copies = max(1, *(math.ceil(a / b) for a, b in zip(*(x.tolist() for x in of_class)) if b))
    rows = pair_by_class({"digit": written.classes.repeat(copies), "street": street.classes}, times=times, generator=generator)
    rows["digit"] = rows["digit"] % len(written)
    return Part({"digit": written.levels(), "street": street.batch["street"]}, written.classes[rows["digit"]], rows)


def noisy_digits(source: str = "best", download: bool = False, seed: int = 42, modalities: int = 3) -> MultimodalSet:
    """Several handwritten digits of one class, to be seen through noise (Daunhawer et al. 2021).

    `x1` .. `xM` [1, 28, 28], 256 levels, without the noise: give `add_noise()` to `fit` as `corrupt`, and the targets stay
    clean.  Each modality is a permutation of the whole set within the classes.  modalities: 2 to 5 in the paper.

    Raises FileNotFoundError for missing files, KeyError for an unknown source, ValueError for fewer than 2 modalities.
    """
    check_positive("modalities", modalities)
    if modalities < 2:
        raise ValueError(f"modalities: found {modalities}, wanted 2 or more")
    written = _labelled("mnist", source, download)
    generator = torch.Generator().manual_seed(seed)
    names = [f"x{m}" for m in range(1, modalities + 1)]

    def part(split: Split) -> Part:
        images = split.levels()
        rows = pair_by_class(dict.fromkeys(names, split.classes), generator=generator)
        return Part(dict.fromkeys(names, images), split.classes[rows["x1"]], rows)

    description = f"{modalities} images of the same digit from {written.description}"
    train, test = part(written.train), part(written.test)
    return MultimodalSet(f"{written.name}-{modalities}", description, written.stand_in, train, test, class_names=written.class_names)


def add_noise(sd: int | float = 1.0) -> Callable[[Mapping[str, Tensor], torch.Generator], dict[str, Tensor]]:
    """A function for `fit(corrupt=...)`: fresh noise N(0, sd^2) on every modality at every visit."""

    def corrupt(batch: Mapping[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        noise = {m: torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype) for m, x in batch.items()}
        return {m: x + sd * noise[m] for m, x in batch.items()}

    return corrupt


def image_label(source: str = "best", download: bool = False, seed: int = 0, images: str = "mnist") -> MultimodalSet:
    """Images with their labels: `image` [1, 28, 28], 256 levels, and `label`, one-hot [10].

    images: `mnist`, `fashion-mnist` or `digits`, which also stands in for the others.  The first five sixths of the official
    training images train, 50 000 of 60 000 as in Lee and Pavlovic (2020); the rest are for choosing weights.  Nothing is
    random here: `seed` is taken because all sets take one.

    Raises FileNotFoundError for missing files, KeyError for an unknown source or kind of images.
    """
    found = _labelled(images, source, download)
    kept = len(found.train) * 5 // 6

    def part(split: Split, rows: slice = slice(None)) -> Part:
        label = F.one_hot(split.classes[rows], 10).float()
        return Part({"image": split.levels()[rows], "label": label}, split.classes[rows])

    return MultimodalSet(
        f"{found.name}-label", f"{found.description}, with labels", found.stand_in or found.name != images,
        part(found.train, slice(kept)), part(found.test), part(found.train, slice(kept, None)), found.class_names,
    )  # fmt: skip


def _labelled(wanted: str, source: str, download: bool) -> LabelledImages:
    check_name("source", source, SOURCES)
    check_name("kind of images", wanted, SETS)
    if source == "stand-in":
        return digits()
    try:
        return load(wanted, download)
    except MissingFiles:
        if source == "real":
            raise
        return digits()


# ---------------------------------------------------------------- few labels


def batch_size(fraction: int | float) -> int:
    """The size of the batches at this share of labelled images, in per cent: 50 where a batch of 100 would hold too many."""
    return 50 if fraction in (0.1, 0.5) else 100


def paired_batches(
    items: int, fraction: int | float, size: int | None = None, generator: torch.Generator | None = None, exact: bool = True
) -> Bool[Tensor, "items"]:
    """Which items have their label when whole mini-batches have it or not, as in the program of Lee and Pavlovic (2020).

    fraction: per cent of the batches of `size` successive items, `batch_size(fraction)` unless given.  The batches keep their
    items and their order in every epoch.  exact: so many batches, rounded, at least one; False decides for each batch by
    itself, as the program does, so that the number of labels is itself random and may be none.

    Raises ValueError for a fraction that is not above 0 and at most 100.
    """
    size = batch_size(fraction) if size is None else size
    for name, value in (("items", items), ("size", size)):
        check_positive(name, value)
    _check_fraction(fraction)
    batches = math.ceil(items / size)
    draws = torch.rand(batches, generator=generator, dtype=torch.float64)
    count = max(1, round(batches * fraction / 100))
    chosen = draws.argsort().argsort() < count if exact else draws < fraction / 100
    return chosen.repeat_interleave(size)[:items]


def paired_items(
    classes: Int[Tensor, "items"], fraction: int | float, generator: torch.Generator | None = None, balanced: bool = False
) -> Bool[Tensor, "items"]:
    """Which items have their label when each item is drawn by itself.

    balanced: as many of every class, as near as their number allows, so that few labels leave no class out.
    Raises ValueError for a fraction, in per cent, that is not above 0 and at most 100.
    """
    _check_fraction(fraction)
    count = max(1, round(len(classes) * fraction / 100))
    order = torch.randperm(len(classes), generator=generator)
    if balanced:
        # how many of its class come before an item; the first of every class, then the second of every class, ...
        place = F.one_hot(classes[order]).cumsum(0).gather(1, classes[order][:, None])[:, 0]
        order = order[place.argsort(stable=True)]
    mask = torch.zeros(len(classes), dtype=torch.bool)
    mask[order[:count]] = True
    return mask


def _check_fraction(fraction: int | float) -> None:
    if not 0 < fraction <= 100:
        raise ValueError(f"fraction: found {fraction!r}, wanted per cent, above 0 and at most 100")
