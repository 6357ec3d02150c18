"""Classifiers that judge what a model generates, and the weights of those that ship.

A judge is trained on real items of one data set and says nothing about another: `classifier` refuses the wrong one.
Any module or function from items [n, *event] to logits [n, classes] can stand in its place.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from mmvae_lite.checks import check_name, check_positive
from mmvae_lite.data.parts import MultimodalSet, Part, as_float
from mmvae_lite.models._common import parameter_like
from mmvae_lite.pretrained import load_network

Judge = Callable[[Tensor], Tensor]


def image_network(outputs: int = 10) -> nn.Sequential:
    """[batch, 1, 28, 28] -> logits: two 5x5 convolutions of 10 and 20 channels and 50 units (code of Shi et al. 2019).

    Without the dropout between the code's convolutions, which so short a training does not need.
    """
    return nn.Sequential(
        nn.Conv2d(1, 10, 5), nn.MaxPool2d(2), nn.ReLU(),
        nn.Conv2d(10, 20, 5), nn.MaxPool2d(2), nn.ReLU(),
        nn.Flatten(), nn.Linear(320, 50), nn.ReLU(), nn.Dropout(), nn.Linear(50, outputs),
    )  # fmt: skip


def _normalised(a: int, b: int, kernel: int) -> list[nn.Module]:
    return [nn.Conv2d(a, b, kernel, padding=kernel // 2, bias=False), nn.BatchNorm2d(b), nn.ReLU(), nn.MaxPool2d(2)]


def street_network(outputs: int = 10) -> nn.Sequential:
    """[batch, 3, 32, 32] -> logits: three convolutions with batch normalisation, then dropout, as in DMVAE-D's code, narrower."""
    layers = [*_normalised(3, 16, 5), *_normalised(16, 32, 3), *_normalised(32, 64, 3)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Dropout(), nn.Linear(1024, outputs))


def face_network(outputs: int = 18) -> nn.Sequential:
    """[batch, 3, 64, 64] -> logits of attributes: four convolutions with batch normalisation, then dropout."""
    layers = [*_normalised(3, 12, 5), *_normalised(12, 24, 3), *_normalised(24, 48, 3), *_normalised(48, 48, 3)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Dropout(), nn.Linear(768, outputs))


class _TimeFirst(nn.Module):
    def forward(self, x: Float[Tensor, "batch frames mels"]) -> Float[Tensor, "batch mels frames"]:
        return x.mT


def speech_network(outputs: int = 10) -> nn.Sequential:
    """[batch, 100, 80] log-mel frames -> logits: convolutions over time, each of which halves it, then dropout."""
    layers: list[nn.Module] = [_TimeFirst(), nn.BatchNorm1d(80)]
    for a, b in ((80, 40), (40, 40), (40, 40)):
        layers += [nn.Conv1d(a, b, 5, padding=2, bias=False), nn.BatchNorm1d(b), nn.ReLU(), nn.MaxPool1d(2)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool1d(4), nn.Flatten(), nn.Dropout(), nn.Linear(160, outputs))


SHAPES = {"image": (1, 28, 28), "street": (3, 32, 32), "speech": (100, 80), "face": (3, 64, 64)}
NETWORKS = {"image": image_network, "street": street_network, "speech": speech_network, "face": face_network}

#: Of the judges that ship: the data they are for, the network that reads them, and the number of its outputs.
SHIPPED = {
    "mnist": ("image", 10),
    "digits": ("image", 10),
    "fashion-mnist": ("image", 10),
    "street-numbers": ("street", 10),
    "fsdd": ("speech", 10),
    "spoken-digits": ("speech", 10),
    "cartoon-faces": ("face", 18),
}


@dataclass(frozen=True)
class Classifier:
    """A judge that knows which data it is for: `of`, the name of the set, and the card of its weights.

    Called with items [n, *event], uint8 or float, on its device, it gives logits [n, classes].
    """

    network: nn.Module
    of: str
    card: dict = field(default_factory=dict)

    def __call__(self, x: Tensor) -> Float[Tensor, "n classes"]:
        return self.network(as_float(x))

    def to(self, device: torch.device | str) -> "Classifier":
        return Classifier(self.network.to(device), self.of, self.card)


def classifier(name: str, of: str | None = None) -> Classifier:
    """The judge of a data set, with the weights that ship, in evaluation mode on the CPU.

    of: the name of the data that will be judged; ValueError in one sentence unless the judge was trained on it.
    Raises KeyError for an unknown name, BadWeights as `load_network` does.
    """
    check_name("classifier", name, SHIPPED)
    if of is not None and of != name:
        raise ValueError(f"classifier {name!r} was trained on {name!r} and would judge {of!r}; use the classifier of that set, or train one")
    kind, outputs = SHIPPED[name]
    network, card = load_network(f"classifier-{name}", lambda: NETWORKS[kind](outputs))
    return Classifier(network, name, card)


def train_classifier(
    kind: str,
    x: Tensor,
    classes: Tensor,
    *,
    outputs: int | None = None,
    epochs: int = 3,
    batch_size: int = 64,
    lr: float = 2e-3,
    shift: int | tuple[int, int] = 0,
    seed: int = 0,
    progress: bool = False,
) -> nn.Module:
    """Train a judge on items [items, *event], uint8 or float, on their device; same seed, same bits.

    kind: which of `NETWORKS`.
    classes: class numbers [items], or attributes in {0, 1} [items, attributes], each then judged by itself.
    shift: items are moved at random by up to so many rows or frames and, if images, columns; a pair says how many of each, so
        that the bands of a spectrum can be moved too.
    The step is Adam's, its length falls linearly to 0.  Returns the network in evaluation mode.

    Raises KeyError for an unknown kind, ValueError for settings or tensors that do not fit.
    """
    check_name("kind of classifier", kind, NETWORKS)
    if len(x) != len(classes) or len(x) < 2:
        raise ValueError(f"train_classifier: found {len(x)} items and {len(classes)} classes, wanted the same number, at least 2")
    attributes = classes.ndim == 2
    down, across = shift if isinstance(shift, tuple) else (shift, 0 if kind == "speech" else shift)
    outputs = outputs or (classes.shape[1] if attributes else int(classes.max()) + 1)

    def loss(network: nn.Module, rows: Tensor) -> Tensor:
        logits, y = network(_moved(as_float(x[rows]), down, across)), classes[rows]
        return F.binary_cross_entropy_with_logits(logits, y.to(logits)) if attributes else F.cross_entropy(logits, y)

    return descend(lambda: NETWORKS[kind](outputs), loss, len(x), x.device, epochs, batch_size, lr, seed, progress)


def descend(
    build: Callable[[], nn.Module],
    loss: Callable[[nn.Module, Tensor], Float[Tensor, ""]],
    items: int,
    device: torch.device,
    epochs: int,
    batch_size: int,
    lr: float,
    seed: int,
    progress: bool,
) -> nn.Module:
    """A network trained on `loss(network, rows)` by Adam, whose step falls linearly to 0; in evaluation mode.

    The start, the order of the items and whatever the loss draws from torch's own generator follow from the seed, and the
    caller's generator is left as it was.
    Raises ValueError for numbers below 1.
    """
    check_positive("epochs", epochs)
    check_positive("batch_size", batch_size)
    with torch.enable_grad(), torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        network = build().to(device).train()
        optimizer = torch.optim.Adam(network.parameters(), lr=lr)
        steps = math.ceil(items / batch_size) * epochs
        decay = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
        for epoch in range(epochs):
            for rows in torch.randperm(items).to(device).split(batch_size):
                if len(rows) < 2:
                    continue  # batch normalisation needs two items
                value = loss(network, rows)
                optimizer.zero_grad()
                value.backward()
                optimizer.step()
                decay.step()
            if progress:
                print(f"epoch {epoch + 1}/{epochs} loss {value.item():.3f}", flush=True)
    return network.eval()


def _moved(x: Tensor, down: int, across: int) -> Tensor:
    """Every item moved by a draw from torch's own generator, its border repeated."""
    for axis, most in ((x.ndim - 1, across), (x.ndim - 2, down)):
        if most:
            size = x.shape[axis]
            start = torch.randint(-most, most + 1, (len(x), 1), device=x.device)
            rows = (torch.arange(size, device=x.device) + start).clamp(0, size - 1)
            rows = rows.reshape(len(x), *[size if a == axis else 1 for a in range(1, x.ndim)])
            x = x.gather(axis, rows.expand(x.shape))
    return x


def judges_for(data: MultimodalSet) -> dict[str, Judge]:
    """The judges that ship of every modality of a paired set, by modality; a one-hot label is its own judge.

    Raises KeyError in one sentence where a modality has none, such as SVHN; `train_judge` makes one.
    """
    found: dict[str, Judge] = {}
    for m in data.train.batch:
        if m == "label":
            found[m] = nn.Identity()
            continue
        name = _judge_of(data, m)
        if name not in SHIPPED:
            raise KeyError(f"no classifier ships for {m!r} of {data.name!r}; train one with train_judge(data, {m!r})")
        found[m] = classifier(name)
    return found


def _judge_of(data: MultimodalSet, m: str) -> str | None:
    """The set that a modality of a paired set is taken from."""
    if data.name == "spoken-written":
        return {"speech": "spoken-digits", "image": "digits"}[m] if data.stand_in else {"speech": "fsdd", "image": "mnist"}[m]
    if data.name in ("e-mnist", "me-mnist", "m-mnist"):
        return {"digit": "mnist", "garment": "fashion-mnist"}.get(m)
    for written in ("fashion-mnist", "mnist", "digits"):
        if data.name.startswith(f"{written}-"):
            rest = data.name.removeprefix(f"{written}-")
            return rest if m == "street" else written if m in ("image", "digit") or rest.isdigit() else None
    return None


def train_judge(data: MultimodalSet, modality: str, **options: Any) -> Classifier:
    """A judge of one modality of a paired set, trained on its training items, each row once; its card has the test accuracy.

    options: those of `train_classifier`.  Raises KeyError for an unknown modality, ValueError for items of a shape that no
    network here reads, or without classes.
    """
    check_name("modality", modality, data.train.batch)
    x, y = _rows(data.train, modality)
    kinds = {shape: kind for kind, shape in SHAPES.items()}
    if tuple(x.shape[1:]) not in kinds:
        raise ValueError(f"train_judge: {modality!r} has items of {list(x.shape[1:])}, wanted one of {', '.join(str(list(s)) for s in kinds)}")
    network = train_classifier(kinds[tuple(x.shape[1:])], x, y, **options).requires_grad_(False)
    test_x, test_y = _rows(data.test, modality)
    found = accuracy(network, test_x, test_y)
    return Classifier(network, data.name, {"data": data.name, "metrics": {"accuracy": {"value": found, "n": len(test_y)}}})


def _rows(part: Part, m: str) -> tuple[Tensor, Int[Tensor, "rows"]]:
    """The rows of a modality that some tuple holds, and their classes."""
    if part.classes is None:
        raise ValueError(f"train_judge: the tuples of {m!r} have no classes, wanted a Part with classes")
    if m not in part.index:
        return part.batch[m], part.classes
    classes = torch.full((len(part.batch[m]),), -1, device=part.classes.device)
    classes[part.index[m]] = part.classes
    return part.batch[m][classes >= 0], classes[classes >= 0]


@torch.no_grad()
def predict(judge: Judge, x: Tensor, chunk: int = 1000) -> Int[Tensor, "items"]:
    """The class that a judge gives each item [items, *event], uint8 or float: [items], on the items' device."""
    check_positive("chunk", chunk)
    return torch.cat([_logits(judge, part).argmax(-1).to(x.device) for part in x.split(chunk)])


@torch.no_grad()
def predict_attributes(judge: Judge, x: Tensor, chunk: int = 1000) -> Int[Tensor, "items attributes"]:
    """For each item [items, *event] the attributes whose logit is above 0, as 0 and 1."""
    check_positive("chunk", chunk)
    return torch.cat([(_logits(judge, part) > 0).long().to(x.device) for part in x.split(chunk)])


def accuracy(judge: Judge, x: Tensor, classes: Int[Tensor, "items"], chunk: int = 1000) -> float:
    """The share of items [items, *event] whose class a judge finds.  Raises ValueError for unequal lengths or none."""
    if len(x) != len(classes) or not len(x):
        raise ValueError(f"accuracy: found {len(x)} items and {len(classes)} classes, wanted the same number, at least 1")
    return float((predict(judge, x, chunk) == classes).double().mean())


def _logits(judge: Judge, x: Tensor) -> Tensor:
    network = judge.network if isinstance(judge, Classifier) else judge
    x = as_float(x)
    if isinstance(network, nn.Module):
        if network.training and any(True for _ in network.children()):
            raise ValueError("a classifier judges in evaluation mode, found one in training mode; call its eval() first")
        like = parameter_like(network)
        x = x.to(like) if like.numel() else x
    return network(x)
