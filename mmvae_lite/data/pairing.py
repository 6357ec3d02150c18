"""Which items make a tuple: random partners of the same class, by row number, so that no image is held twice."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from jaxtyping import Int
from torch import Tensor

from mmvae_lite.checks import check_positive

Classes = Mapping[str, Int[Tensor, "..."]]
Rows = dict[str, Int[Tensor, "tuples"]]


def pair_by_class(classes: Classes, limit: int = 10_000, times: int = 1, generator: torch.Generator | None = None) -> Rows:
    """Tuples of the same class, one row number for each modality: modality -> [tuples].

    classes: modality -> the class of each of its items [items]; the numbers of items may differ.
    limit: how many items of a class are used at most.  times: how often each item that is used occurs.

    Of each class the first n items of every modality are used, n being the number of items that the modality with the
    fewest has, at most `limit`; `times` times over, independent random permutations of them are set side by side.  Tuples
    come class by class.  This is the rule of Shi et al. (2019) for MNIST and SVHN, where times is 20, for any number of
    modalities.  Pair each partition for itself, and nothing leaks.

    Raises ValueError where no class occurs in every modality.
    """
    check_positive("limit", limit)
    check_positive("times", times)
    _check_classes(classes)
    rows: dict[str, list[Tensor]] = {name: [] for name in classes}
    for label in _common(classes):
        held = {name: (found == label).nonzero()[:, 0] for name, found in classes.items()}
        n = min(limit, *(len(r) for r in held.values()))
        for _ in range(times):
            for name, r in held.items():
                rows[name].append(r[:n][torch.randperm(n, generator=generator)])
    return {name: torch.cat(parts) for name, parts in rows.items()}


def repair_each_epoch(classes: Classes) -> Callable[[Mapping[str, Tensor], torch.Generator], Rows]:
    """A function for `fit(pair=...)`: at each epoch every item meets new random partners of its class.

    classes: modality -> the class of each row [rows] of its tensor.  Items are the rows of the first modality, or the rows
    that the data's index names for it; every other modality is drawn afresh, with replacement, from all its rows of that
    class.  So Hsu and Glass (2018) pair each spoken digit with a written one.

    The function takes an index, modality -> [items] (or an empty one), and returns a new one; no data are copied.
    Raises ValueError where a modality has no item of a class that the first one has.
    """
    _check_classes(classes)
    first, *others = classes
    width = 1 + max(int(found.max()) for found in classes.values())
    counts = {name: classes[name].bincount(minlength=width) for name in others}
    for name in others:
        lacking = ((counts[name] == 0) & (classes[first].bincount(minlength=width) > 0)).nonzero()[:, 0].tolist()
        if lacking:
            raise ValueError(f"classes: {name!r} has no item of class {lacking[0]}, which {first!r} has; wanted a partner for every item")
    by_class = {name: classes[name].argsort(stable=True) for name in others}
    starts = {name: counts[name].cumsum(0) - counts[name] for name in others}

    def pair(index: Mapping[str, Tensor], generator: torch.Generator) -> Rows:
        rows = index[first] if first in index else torch.arange(len(classes[first]), device=generator.device)
        label = classes[first].to(rows.device)[rows]
        drawn = {first: rows}
        for name in others:
            share = torch.rand(len(rows), generator=generator, device=rows.device, dtype=torch.float64)
            n, start, order = (held[name].to(rows.device) for held in (counts, starts, by_class))
            drawn[name] = order[start[label] + (share * n[label]).long()]
        return drawn

    return pair


def _check_classes(classes: Classes) -> None:
    if not classes:
        raise ValueError("classes: found no modality, wanted one or more, modality -> class of each item")
    for name, found in classes.items():
        if not len(found):
            raise ValueError(f"classes of {name!r}: found no items, wanted at least one")


def _common(classes: Classes) -> list[int]:
    """The classes that occur in every modality, in order."""
    shared = sorted(set.intersection(*(set(found.tolist()) for found in classes.values())))
    if not shared:
        found = "; ".join(f"{name!r} has {sorted(set(c.tolist()))[:10]}" for name, c in classes.items())
        raise ValueError(f"classes: no class occurs in every modality: {found}; wanted at least one in common")
    return shared
