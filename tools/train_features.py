"""Train the networks whose features our Fréchet distances use.

    python tools/train_features.py grey|colour [--epochs 5] [--save]

`grey` needs MNIST and Fashion-MNIST in the folder that MMVAE_DATA names.  With --save the network replaces that of the package.
"""

from __future__ import annotations

import argparse
import math
import time

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmvae_lite.data import fashion_mnist, mnist
from mmvae_lite.evaluation.frechet import grey_features
from mmvae_lite.pretrained import save

SEED = 0


def grey_items(part: str) -> tuple[Tensor, Tensor]:
    """Digits in classes 0 to 9, garments in 10 to 19."""
    digits, garments = getattr(mnist(), part), getattr(fashion_mnist(), part)
    return torch.cat([digits.images, garments.images]), torch.cat([digits.classes, 10 + garments.classes])


def shifted(x: Tensor, g: torch.Generator) -> Tensor:
    """The batch moved by up to two pixels."""
    dy, dx = torch.randint(-2, 3, (2,), generator=g).tolist()
    return x.roll((dy, dx), (2, 3))


def train(network: nn.Module, x: Tensor, y: Tensor, epochs: int, loss=F.cross_entropy, batch: int = 256, lr: float = 2e-3) -> float:
    """Adam with a rate that falls along a cosine; returns the minutes."""
    g, begun = torch.Generator().manual_seed(SEED), time.monotonic()
    adam, steps, step = torch.optim.Adam(network.parameters(), lr=lr, fused=True), epochs * math.ceil(len(x) / batch), 0
    for epoch in range(epochs):
        total = 0.0
        for rows in torch.randperm(len(x), generator=g).split(batch):
            adam.param_groups[0]["lr"] = lr * 0.5 * (1 + math.cos(math.pi * step / steps))
            value = loss(network(shifted(x[rows], g)), y[rows])
            adam.zero_grad()
            value.backward()
            adam.step()
            total, step = total + float(value.detach()) * len(rows), step + 1
        print(f"epoch {epoch + 1}/{epochs} loss {total / len(x):.4f} {time.monotonic() - begun:.0f} s", flush=True)
    return (time.monotonic() - begun) / 60


@torch.no_grad()
def accuracy(network: nn.Module, x: Tensor, y: Tensor) -> float:
    network.eval()
    return torch.cat([network(part).argmax(1) for part in x.split(1000)]).eq(y).double().mean().item()


def grey(epochs: int) -> tuple[str, nn.Module, dict]:
    torch.manual_seed(SEED)
    network = grey_features()
    minutes = train(network, *grey_items("train"), epochs)
    return "grey-features", network, {
        "what": "A small network that tells 20 classes of digits and garments; its last but one layer are the features of our Fréchet distance.",
        "network": "mmvae_lite.evaluation.frechet.grey_features()",
        "training": f"cross-entropy, Adam from 2e-3 to 0 along a cosine, batches of 256 moved by up to 2 pixels, {epochs} epochs; tools/train_features.py",
        "data": "mnist and fashion-mnist",
        "items": 120_000,
        "seed": SEED,
        "minutes": round(minutes, 1),
        "device": "one CPU core",
        "metrics": {"accuracy": {"value": round(accuracy(network, *grey_items("test")), 4), "n": 20_000}},
    }  # fmt: skip


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("which", choices=("grey",))
    options.add_argument("--epochs", type=int, default=5)
    options.add_argument("--save", action="store_true")
    given = options.parse_args()
    name, network, card = grey(given.epochs)
    print(card["metrics"])
    if given.save:
        print(save(name, network, card))
