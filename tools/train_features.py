"""Train the networks whose features our Fréchet distances use.

    python tools/train_features.py grey|colour [--epochs 5] [--steps 1000] [--save]

`grey` needs MNIST and Fashion-MNIST in the folder that MMVAE_DATA names; `colour` learns from pictures that the package draws.
With --save the network replaces that of the package.
"""

from __future__ import annotations

import argparse
import math
import time

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmvae_lite.data import fashion_mnist, mnist
from mmvae_lite.data.drawn_birds import ATTRIBUTES, JITTER, draw, sample, species
from mmvae_lite.data.faces import drawn_faces
from mmvae_lite.data.parts import as_float
from mmvae_lite.data.street_numbers import street_numbers
from mmvae_lite.evaluation.frechet import colour_features, grey_features
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


def colour_items(part: str, n: tuple[int, int, int]) -> list[tuple[Tensor, Tensor]]:
    """House numbers with their digit, faces with 18 attributes, birds with their attributes' values one-hot."""
    streets = street_numbers(n[0], part, seed=SEED)
    drawn = drawn_faces(n[1], seed=SEED + (part == "test"))
    kinds, g = species(150, SEED), torch.Generator().manual_seed(SEED + (part == "test"))
    values = sample(kinds[torch.arange(n[2]) % 150], g)
    pictures = draw(values, torch.rand(n[2], JITTER, generator=g))
    hot = torch.cat([F.one_hot(values[:, i], len(names)) for i, names in enumerate(ATTRIBUTES.values())], 1).float()
    return [(streets[0], streets[1]), (drawn.batch["image"], drawn.batch["attributes"].float()), (pictures, hot)]


HEADS = (slice(0, 10), slice(10, 28), slice(28, None))


def colour_loss(k: int, out: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy of a house number; of attributes the sum over them, weighed to be of its size."""
    out = out[:, HEADS[k]]
    return F.cross_entropy(out, y) if k == 0 else F.binary_cross_entropy_with_logits(out, y, reduction="none").sum(1).mean() * (0.3 if k == 1 else 0.1)


@torch.no_grad()
def colour_scores(network: nn.Module, sets: list[tuple[Tensor, Tensor]]) -> dict[str, dict[str, float]]:
    network.eval()
    outs = [torch.cat([network(as_float(part)) for part in x.split(250)])[:, head] for (x, _), head in zip(sets, HEADS)]
    (_, y), (_, faces), (_, birds) = sets
    right, start = [], 0
    for names in ATTRIBUTES.values():
        columns = slice(start, start := start + len(names))
        right.append(outs[2][:, columns].argmax(1) == birds[:, columns].argmax(1))
    values = {
        "accuracy of house numbers": (outs[0].argmax(1) == y),
        "accuracy of an attribute of a face": ((outs[1] > 0) == faces.bool()).double().mean(1),
        "accuracy of an attribute of a bird": torch.stack(right, 1).double().mean(1),
    }
    return {name: {"value": round(v.double().mean().item(), 4), "n": len(v)} for name, v in values.items()}


def colour(steps: int, lr: float = 4e-3, sizes: tuple[int, int, int] = (96, 32, 32)) -> tuple[str, nn.Module, dict]:
    torch.manual_seed(SEED)
    g, network, n = torch.Generator().manual_seed(SEED), colour_features(), (20_000, 8_000, 6_000)
    sets, begun, total = colour_items("train", n), time.monotonic(), 0.0
    adam = torch.optim.Adam(network.parameters(), lr=lr, fused=True)
    for step in range(steps):
        adam.param_groups[0]["lr"] = lr * 0.5 * (1 + math.cos(math.pi * step / steps))
        adam.zero_grad()
        for k, (x, y) in enumerate(sets):
            rows = torch.randint(len(x), (sizes[k],), generator=g)
            value = colour_loss(k, network(shifted(as_float(x[rows]), g)), y[rows])
            value.backward()
            total += float(value.detach())
        adam.step()
        if step % 100 == 99:
            print(f"step {step + 1}/{steps} loss {total / 100:.4f} {time.monotonic() - begun:.0f} s", flush=True)
            total = 0.0
    return "colour-features", network, {
        "what": "A small network of drawn pictures, whose features are those of our Fréchet distance for 64x64 colour: it tells attributes of faces and of birds; its first head, house numbers, learnt nothing.",
        "network": "mmvae_lite.evaluation.frechet.colour_features()",
        "training": f"three heads at once, Adam from 4e-3 to 0 along a cosine, {steps} steps of {sizes} pictures moved by up to 2 pixels; tools/train_features.py",
        "data": "drawn street numbers, faces and birds",
        "items": sum(n),
        "seed": SEED,
        "minutes": round((time.monotonic() - begun) / 60, 1),
        "device": "one CPU core",
        "metrics": colour_scores(network, colour_items("test", (2000, 1000, 1000))),
    }  # fmt: skip


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("which", choices=("grey", "colour"))
    options.add_argument("--epochs", type=int, default=5, help="of grey")
    options.add_argument("--steps", type=int, default=1000, help="of colour")
    options.add_argument("--save", action="store_true")
    given = options.parse_args()
    name, network, card = grey(given.epochs) if given.which == "grey" else colour(given.steps)
    print(card["metrics"])
    if given.save:
        print(save(name, network, card))
