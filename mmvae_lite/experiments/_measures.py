"""Measurements that several experiments share, in terms of `mmvae_lite.evaluation`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn

from mmvae_lite.data.parts import MultimodalSet, Part
from mmvae_lite.experiments._experiment import generator, mean_of

CHUNK = 1000
__all__ = ["batches", "label_accuracy", "replace", "with_train"]


def batches(part: Part, model: nn.Module, modalities: tuple[str, ...] | None = None) -> Iterator[dict[str, Tensor]]:
    """The tuples in their order, on the model's device, some of their modalities only if named."""
    device = next(model.parameters()).device
    for start in range(0, len(part), CHUNK):
        taken = part.take(slice(start, start + CHUNK))
        yield {m: x.to(device) for m, x in taken.items() if modalities is None or m in modalities}


@torch.no_grad()
def label_accuracy(model: nn.Module, part: Part, seed: int, image: str = "image", label: str = "label") -> dict[str, float]:
    """How often the label decoded from an image alone is right; a relaxed draw of a discrete latent, the mean of another."""
    g, hits = generator(seed, model), []
    for batch in batches(part, model):
        discrete = len(getattr(model, "sizes", ())) == 2
        options = {"sample": True, "hard": False, "generator": g} if discrete else {}
        found = model.translate({image: batch[image]}, label, **options).argmax(-1)
        hits.append(found == batch[label].argmax(-1))
    return mean_of(torch.cat(hits).cpu())


def with_train(data: MultimodalSet, rows: Tensor) -> MultimodalSet:
    """The set with some of its training tuples only."""
    part = data.train
    taken = replace(
        part,
        batch={m: x if m in part.index else x[rows] for m, x in part.batch.items()},
        classes=None if part.classes is None else part.classes[rows],
        index={m: index[rows] for m, index in part.index.items()},
        facts={name: x[rows] for name, x in part.facts.items()},
    )
    return replace(data, train=taken)
