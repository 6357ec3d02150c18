"""Do pairs share more than their class?  A shuffle test without a model (after Korthals et al. 2019, who compare models instead)."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from mmvae_lite.checks import check_positive
from mmvae_lite.data.parts import as_float


def distance_correlation_by_class(
    a: Shaped[Tensor, "items ..."], b: Shaped[Tensor, "items ..."], classes: Int[Tensor, "items"], orders: dict[int, Tensor] | None = None
) -> Float[Tensor, "*shuffles"]:
    """The correlation of all distances between items in a with those in b, within each class, averaged over the classes.

    orders: class -> permutations of its items [shuffles, n], under which b is looked at; as it is unless given.
    """
    total, groups = 0.0, classes.unique().tolist()
    for c in groups:
        rows = (classes == c).nonzero()[:, 0]
        A, B = (_centred(as_float(x[rows]).flatten(1)) for x in (a, b))
        if orders is not None:
            order = orders[c]
            B = B[order[:, :, None], order[:, None, :]]
        total = total + (A * B).sum((-2, -1)) / len(groups)
    return total


def _centred(x: Float[Tensor, "n width"]) -> Float[Tensor, "n n"]:
    """Distances between rows without their mean, of length one as a whole; the diagonal is left out."""
    distance = torch.cdist(x, x)
    off = ~torch.eye(len(x), dtype=torch.bool, device=x.device)
    distance = (distance - distance[off].mean()) * off
    return distance / distance.norm().clamp_min(1e-12)


@torch.no_grad()
def shuffle_test(
    a: Shaped[Tensor, "items ..."],
    b: Shaped[Tensor, "items ..."],
    classes: Int[Tensor, "items"],
    shuffles: int = 199,
    generator: torch.Generator | None = None,
) -> dict[str, float]:
    """Whether pairs share more than their class: `value`, the statistic as it is, `p`, and `n`, the pairs.

    Equation `eq-shuffle-p` of the book: b is permuted within the classes so many times, and p is the share of orders, the
    observed one among them, whose `distance_correlation_by_class` is at least as large.  Where a and b are independent given
    the class, p is at most k / (shuffles + 1) with at most that probability.  Items may be uint8; memory grows with
    shuffles times the square of a class.

    Raises ValueError for unequal lengths, or a class with fewer than three pairs.
    """
    check_positive("shuffles", shuffles)
    if not len(a) == len(b) == len(classes):
        raise ValueError(f"shuffle_test: found {len(a)}, {len(b)} and {len(classes)} items, wanted the same number")
    names, counts = classes.unique(return_counts=True)
    if not len(names) or int(counts.min()) < 3:
        raise ValueError(f"shuffle_test: found a class with {int(counts.min()) if len(names) else 0} pairs, wanted at least 3 of each")
    orders = {
        c: torch.rand(shuffles, n, generator=generator, device=generator.device if generator is not None else None).argsort(1)
        for c, n in zip(names.tolist(), counts.tolist())
    }
    value = distance_correlation_by_class(a, b, classes)
    shuffled = distance_correlation_by_class(a, b, classes, orders)
    hits = int((shuffled >= value).sum())
    return {"value": float(value), "p": (1 + hits) / (1 + shuffles), "n": len(classes)}
