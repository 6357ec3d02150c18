"""A small network that reads the attributes of drawn birds, and its pooled features, which stand where a ResNet's would.

It has seen nothing but drawn birds, each of a species of its own and none of a species of `drawn_birds`, so that its
features say nothing about photographs, and numbers that rest on them cannot be compared with those of ResNet features.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from mmvae_lite.data.drawn_birds import ATTRIBUTES, JITTER, draw, sample, species
from mmvae_lite.data.parts import as_float
from mmvae_lite.evaluation.classifiers import descend
from mmvae_lite.pretrained import load_network

WEIGHTS = "features-drawn-birds"
NAME = "pooled features of a small network trained on drawn birds"
SIZES = tuple(len(values) for values in ATTRIBUTES.values())
FEATURES = 96


def bird_network() -> nn.Sequential:
    """[batch, 3, 64, 64] in [0, 1] -> pooled features [batch, 96], then logits of all values of all attributes."""
    layers: list[nn.Module] = []
    channels = (3, 12, 24, 48, 72, FEATURES)
    for i, (a, b) in enumerate(zip(channels, channels[1:])):
        layers += [nn.Conv2d(a, b, 5 if i == 0 else 3, padding=2 if i == 0 else 1, bias=False), nn.BatchNorm2d(b), nn.ReLU()]
        layers += [nn.MaxPool2d(2)] if i < 4 else []
    pooled = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return nn.Sequential(pooled, nn.Linear(FEATURES, sum(SIZES)))


def training_birds(number: int, seed: int = 0) -> tuple[UInt8[Tensor, "number 3 64 64"], Int[Tensor, "number attributes"]]:
    """So many birds to train on, each of a species of its own: their pictures and attributes."""
    g = torch.Generator().manual_seed(seed)
    attributes = sample(species(number, f"features/{seed}"), g)
    return draw(attributes, torch.rand(number, JITTER, generator=g)), attributes


def attribute_loss(logits: Float[Tensor, "n values"], attributes: Int[Tensor, "n attributes"]) -> Float[Tensor, ""]:
    """The mean over the attributes of the cross-entropy of each."""
    return torch.stack([F.cross_entropy(part, y) for part, y in zip(logits.split(SIZES, 1), attributes.long().unbind(1))]).mean()


@torch.no_grad()
def attribute_accuracy(network: nn.Module, images: UInt8[Tensor, "n 3 64 64"], attributes: Int[Tensor, "n attributes"]) -> dict[str, float]:
    """The share of birds whose value of each attribute the network finds, and the mean over the attributes as `mean`."""
    logits = torch.cat([network(as_float(part)) for part in images.split(500)])
    found = torch.stack([part.argmax(1) for part in logits.split(SIZES, 1)], 1)
    right = (found == attributes.to(found)).double().mean(0)
    return dict(zip(ATTRIBUTES, right.tolist())) | {"mean": float(right.mean())}


def train_bird_network(
    images: UInt8[Tensor, "n 3 64 64"], attributes: Int[Tensor, "n attributes"], *, epochs: int = 6, batch_size: int = 64,
    lr: float = 4e-3, seed: int = 0, progress: bool = False,
) -> nn.Sequential:  # fmt: skip
    """Train `bird_network` as `descend` does, same seed, same bits; in evaluation mode, on the images' device."""

    def loss(network: nn.Module, rows: Tensor) -> Tensor:
        return attribute_loss(network(as_float(images[rows])), attributes[rows])

    return descend(bird_network, loss, len(images), images.device, epochs, batch_size, lr, seed, progress)


def bird_features() -> nn.Module:
    """Drawn birds [n, 3, 64, 64] in [0, 1] -> features [n, 96], with the weights that ship, on the CPU.

    Raises BadWeights as `load_network` does.
    """
    return load_network(WEIGHTS, bird_network)[0][0]
