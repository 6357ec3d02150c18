"""Data sets: what the user has, what was downloaded when asked, and what ships."""

from collections.abc import Callable

from mmvae_lite.data.celeba import celeba
from mmvae_lite.data.cub import birds
from mmvae_lite.data.digit_sets import digits_street, image_label, noisy_digits
from mmvae_lite.data.entangled import entangle, shuffle_within_classes, truncated_normal
from mmvae_lite.data.entangled_sets import entangled
from mmvae_lite.data.faces import faces
from mmvae_lite.data.gaussian_mixture import mog
from mmvae_lite.data.labelled_images import LabelledImages, Split, best_available, digits, fashion_mnist, load, mnist
from mmvae_lite.data.linear_gaussian import (
    LG3,
    LG3_OBSERVATION,
    LG_PVAE,
    LG_PVAE_OBSERVATION,
    LinearGaussian,
    PartitionedGaussian,
)
from mmvae_lite.data.parts import MultimodalSet
from mmvae_lite.data.spoken_digits import fsdd, spoken_written, synthetic_speech

PAIRED: dict[str, Callable[..., MultimodalSet]] = {
    "digits-street": digits_street,
    "noisy-digits": noisy_digits,
    "image-label": image_label,
    "spoken-written": spoken_written,
    "faces": faces,
    "birds": birds,
    "entangled": entangled,
    "mog": mog,
}
"""The multimodal sets by name; each takes `source`, `download`, `seed` and options of its own."""

__all__ = [
    "LG3",
    "LG3_OBSERVATION",
    "LG_PVAE",
    "LG_PVAE_OBSERVATION",
    "LabelledImages",
    "LinearGaussian",
    "MultimodalSet",
    "PAIRED",
    "PartitionedGaussian",
    "Split",
    "best_available",
    "birds",
    "celeba",
    "digits",
    "digits_street",
    "entangle",
    "entangled",
    "faces",
    "fashion_mnist",
    "fsdd",
    "image_label",
    "load",
    "mnist",
    "mog",
    "noisy_digits",
    "shuffle_within_classes",
    "spoken_written",
    "synthetic_speech",
    "truncated_normal",
]
