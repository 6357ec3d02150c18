"""Whether a latent falls into clusters, and whether these are the classes: k-means, purity and the inertia curve.

Source: Hsu and Glass (2018), table 1 and figure 3.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mmvae_lite.kmeans import kmeans


def purity(assignment: Int[Tensor, "items"], classes: Int[Tensor, "items"]) -> float:
    """sum over clusters of the number of items of its largest class, over all items; equation `eq-purity` of the book.

    Raises ValueError for unequal lengths or none.
    """
    if len(assignment) != len(classes) or not len(classes):
        raise ValueError(f"purity: found {len(assignment)} assignments of {len(classes)} items, wanted as many, at least 1")
    table = torch.zeros(int(assignment.max()) + 1, int(classes.max()) + 1, dtype=torch.int64)
    table.index_put_((assignment.cpu(), classes.cpu()), torch.ones(len(classes), dtype=torch.int64), accumulate=True)
    return float(table.max(1).values.sum()) / len(classes)


def cluster_purity(
    z: Float[Tensor, "items latent"], classes: Int[Tensor, "items"], clusters: int = 10, restarts: int = 10, seed: int = 0
) -> dict[str, float]:
    """The purity of k-means on latents, by rule the posterior means of held-out items given one modality.

    Returns `value`, `n`, `inertia`, and two controls: `random`, the purity of as many clusters of standard normal
    latents of the same shape, and `largest`, the share of the largest class, which one cluster would have.
    Source: Hsu and Glass (2018), table 1; which items, which start and how many restarts they leave open.
    """
    found = kmeans(z, clusters, restarts, seed=seed)
    noise = torch.randn(z.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    control = kmeans(noise.to(z.device), clusters, restarts, seed=seed)
    return {
        "value": purity(found.assignment, classes),
        "n": len(classes),
        "inertia": found.inertia,
        "random": purity(control.assignment, classes),
        "largest": float(torch.bincount(classes).max()) / len(classes),
    }


def inertia_curve(
    z: Float[Tensor, "items latent"], ks: Sequence[int] = tuple(range(2, 21)), restarts: int = 10, seed: int = 0
) -> dict[int, float]:
    """Number of clusters -> sum of squared distances to the nearest centre (Hsu and Glass 2018, figure 3)."""
    return {k: kmeans(z, k, restarts, seed=seed).inertia for k in ks}


def elbow(curve: Mapping[int, float]) -> int:
    """The number of clusters at which the logarithm of the curve lies farthest below the chord between its ends.

    The logarithm, because clusters that lie far apart would hide those that lie close.  Raises ValueError for fewer than
    three points.
    """
    if len(curve) < 3:
        raise ValueError(f"elbow: found {len(curve)} points, wanted at least 3")
    ks = sorted(curve)
    first, last = ks[0], ks[-1]
    logs = {k: math.log(max(v, 1e-12 * curve[first], 1e-300)) for k, v in curve.items()}

    def drop(k: int) -> float:
        return logs[first] + (logs[last] - logs[first]) * (k - first) / (last - first) - logs[k]

    return max(ks, key=drop)
