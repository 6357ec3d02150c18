"""A multimodal data set in memory: tensors of its modalities, and which of their rows make one tuple.

A tuple is a row number for each modality, so that an image with twenty partners is held once, not twenty times.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn import functional as F

from mmvae_lite.checks import check_name


def as_float(x: Tensor) -> Tensor:
    """Images kept as 256 levels (uint8) become numbers in [0, 1]; everything else stays as it is."""
    return x.float() / 255 if x.dtype == torch.uint8 else x


@dataclass(frozen=True)
class Part:
    """One partition of a data set.

    batch: modality -> [rows, *event]; images may be uint8, 256 levels of [0, 1].
    classes: the class of each tuple [items], or None where there are none.
    index: modality -> row of each tuple [items], for the modalities whose rows are not the tuples themselves.
    facts: what else is known of the tuples, each [items, ...], such as the speaker or the latent that made them.
    words: modality -> number of words, for those whose rows are kept as word numbers and taken as one-hot, [..., words].

    Raises ValueError where the numbers of items disagree or an index points outside its rows.
    """

    batch: Mapping[str, Tensor]
    classes: Int[Tensor, "items"] | None = None
    index: Mapping[str, Int[Tensor, "items"]] = field(default_factory=dict)
    facts: Mapping[str, Tensor] = field(default_factory=dict)
    words: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in (*self.index, *self.words):
            check_name("modality", name, self.batch)
        sizes = {name: len(self.index.get(name, x)) for name, x in self.batch.items()}
        sizes |= {name: len(x) for name, x in self.facts.items()}
        if self.classes is not None:
            sizes["classes"] = len(self.classes)
        if len(set(sizes.values())) != 1:
            raise ValueError(f"a partition needs as many items of everything: found {sizes}")
        for name, rows in self.index.items():
            if len(rows) and not 0 <= int(rows.min()) <= int(rows.max()) < len(self.batch[name]):
                raise ValueError(f"index of {name!r}: found rows {int(rows.min())} to {int(rows.max())}, wanted 0 to {len(self.batch[name]) - 1}")
        for name, number in self.words.items():
            x = self.batch[name]
            if x.numel() and not 0 <= int(x.min()) <= int(x.max()) < number:
                raise ValueError(f"words of {name!r}: found numbers {int(x.min())} to {int(x.max())}, wanted 0 to {number - 1}")

    def __len__(self) -> int:
        name, x = next(iter(self.batch.items()))
        return len(self.index.get(name, x))

    def take(self, rows: Int[Tensor, "taken"] | slice) -> dict[str, Tensor]:
        """The batch of these tuples: modality -> [taken, *event], images in [0, 1], words one-hot."""
        taken = {m: x[self.index[m][rows]] if m in self.index else x[rows] for m, x in self.batch.items()}
        return {m: F.one_hot(x.long(), self.words[m]).float() if m in self.words else as_float(x) for m, x in taken.items()}

    def first(self, n: int) -> "Part":
        """The first n tuples, or all of them if there are fewer."""
        return self._only(slice(n))

    def evenly(self, n: int) -> "Part":
        """n tuples spread evenly over all, or all of them if there are fewer: tuples may come class by class."""
        return self._only(torch.linspace(0, len(self) - 1, min(n, len(self)), dtype=torch.float64).long())

    def _only(self, rows: Int[Tensor, "taken"] | slice) -> "Part":
        """The partition of these tuples; rows that tuples name by number are kept."""
        return Part(
            {m: x if m in self.index else x[rows] for m, x in self.batch.items()},
            None if self.classes is None else self.classes[rows],
            {m: index[rows] for m, index in self.index.items()},
            {name: x[rows] for name, x in self.facts.items()},
            self.words,
        )


@dataclass(frozen=True)
class MultimodalSet:
    """A data set with its partitions, which share no item.

    name: how it is called in results; description: one sentence for captions; stand_in: True when it stands in for a
    set that the papers use; validation: held out of the training items for choosing weights, where there is one;
    words: those of captions, by number.
    """

    name: str
    description: str
    stand_in: bool
    train: Part
    test: Part
    validation: Part | None = None
    class_names: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
