"""Data sets: what the user has, what was downloaded when asked, and what ships."""

from mmvae_lite.data.entangled import entangle, shuffle_within_classes, truncated_normal
from mmvae_lite.data.labelled_images import LabelledImages, Split, best_available, digits, fashion_mnist, load, mnist
from mmvae_lite.data.linear_gaussian import (
    LG3,
    LG3_OBSERVATION,
    LG_PVAE,
    LG_PVAE_OBSERVATION,
    LinearGaussian,
    PartitionedGaussian,
)

__all__ = [
    "LG3",
    "LG3_OBSERVATION",
    "LG_PVAE",
    "LG_PVAE_OBSERVATION",
    "LabelledImages",
    "LinearGaussian",
    "PartitionedGaussian",
    "Split",
    "best_available",
    "digits",
    "entangle",
    "fashion_mnist",
    "load",
    "mnist",
    "shuffle_within_classes",
    "truncated_normal",
]
