"""k-means, for the clusters that `evaluation.clustering` scores and for the start of `ExPostDensity.fit`."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mmvae_lite.checks import check_positive

POINTS = 10_000  # that are compared with the centres of every restart at once


@dataclass(frozen=True)
class Clusters:
    """What k-means found: centres [clusters, dim] in float64, the nearest one of each item [items], and the sum of squared
    distances to them."""

    centres: Float[Tensor, "clusters dim"]
    assignment: Int[Tensor, "items"]
    inertia: float


@torch.no_grad()
def kmeans(
    x: Float[Tensor, "items dim"], clusters: int = 10, restarts: int = 10, max_iter: int = 300, seed: int = 0
) -> Clusters:
    """The best of several runs of Lloyd's algorithm, each from a greedy k-means++ start, all at once, in float64.

    Each further centre of a start is, of 2 + log(clusters) points drawn by their squared distance to the centres so far, the
    one that lowers the sum of these distances most (Arthur and Vassilvitskii 2007, section 6).  A cluster that loses all
    its items takes the item farthest from its centre.  Runs until no item changes its cluster, or for `max_iter` rounds.
    Deterministic: the draws come from the seed on the CPU, whatever the device of x.

    Raises ValueError for another shape, values that are not finite, or fewer distinct items than clusters.
    """
    check_positive("clusters", clusters)
    check_positive("restarts", restarts)
    check_positive("max_iter", max_iter)
    if x.ndim != 2 or not len(x):
        raise ValueError(f"kmeans: found shape {list(x.shape)}, wanted [items, dim] with at least 1 item")
    x = x.detach().double()
    if not bool(torch.isfinite(x).all()):
        raise ValueError("kmeans: the latents hold NaN or infinity, wanted finite values; train the model first")
    if len(x) < clusters or len(x.unique(dim=0)) < clusters:
        raise ValueError(f"kmeans: found {len(x.unique(dim=0))} distinct items, wanted at least {clusters}, one for each cluster")
    generator = torch.Generator().manual_seed(seed)
    centres = torch.stack([_start(x, clusters, generator) for _ in range(restarts)])
    assignment = torch.full((restarts, len(x)), -1, device=x.device)
    active = torch.arange(restarts, device=x.device)
    for _ in range(max_iter):
        found, gaps = _nearest(x, centres[active])
        moved = (found != assignment[active]).any(1)
        assignment[active] = found
        active, found, gaps = active[moved], found[moved], gaps[moved]
        if not len(active):
            break
        centres[active] = _means(x, found, gaps, clusters)
    inertia = torch.stack([(x - c[a]).square().sum() for c, a in zip(centres, assignment)])
    best = int(inertia.argmin())
    return Clusters(centres[best], assignment[best], float(inertia[best]))


def _squares(x: Float[Tensor, "items dim"], centres: Float[Tensor, "*lead dim"]) -> Float[Tensor, "*lead items"]:
    flat = centres.reshape(-1, centres.shape[-1])
    gaps = x.square().sum(1) - 2 * flat @ x.T + flat.square().sum(1)[:, None]
    return gaps.clamp_min(0).reshape(*centres.shape[:-1], len(x))


def _start(x: Float[Tensor, "items dim"], clusters: int, generator: torch.Generator) -> Float[Tensor, "clusters dim"]:
    trials = 2 + int(math.log(clusters))
    chosen = [int(torch.randint(len(x), (), generator=generator))]
    nearest = _squares(x, x[chosen])[0]
    for _ in range(clusters - 1):
        reached = nearest.cumsum(0)
        draws = torch.rand(trials, generator=generator, dtype=torch.float64).to(x.device) * reached[-1]
        candidates = torch.searchsorted(reached, draws, right=True).clamp_max(len(x) - 1)
        closer = torch.minimum(nearest, _squares(x, x[candidates]))
        best = int(closer.sum(1).argmin())
        chosen.append(int(candidates[best]))
        nearest = closer[best]
    return x[chosen]


def _nearest(x: Tensor, centres: Float[Tensor, "restarts clusters dim"]) -> tuple[Tensor, Tensor]:
    """The nearest centre of each item and its squared distance, [restarts, items] each."""
    parts = [_squares(points, centres).min(1) for points in x.split(POINTS)]
    return torch.cat([p.indices for p in parts], 1), torch.cat([p.values for p in parts], 1)


def _means(x: Tensor, assignment: Tensor, gaps: Tensor, clusters: int) -> Float[Tensor, "restarts clusters dim"]:
    """The mean of each cluster; an empty one is moved to the item that is farthest from its centre."""
    sizes = torch.stack([torch.bincount(a, minlength=clusters) for a in assignment])
    for run, k in (sizes == 0).nonzero().tolist():
        crowded = sizes[run][assignment[run]] > 1
        far = int(torch.where(crowded, gaps[run], -1).argmax())
        sizes[run, assignment[run, far]] -= 1
        sizes[run, k] += 1
        assignment[run, far], gaps[run, far] = k, 0
    sums = torch.zeros(len(assignment), clusters, x.shape[1], dtype=x.dtype, device=x.device)
    for start in range(0, len(x), POINTS):
        rows = slice(start, start + POINTS)
        members = torch.nn.functional.one_hot(assignment[:, rows], clusters).to(x.dtype)
        sums += members.mT @ x[rows]
    return sums / sizes[..., None]
