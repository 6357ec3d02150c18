"""Entangled data: several modalities that share their class and what varies within it (Korthals et al. 2019).

One CVAE for each modality is trained on its own data; then one latent is decoded by all of them with one class, so that
a small change of the latent is a small change in every modality.  The paper's section 1.1 calls what the latent is fed to
encoder networks; p(a | z, C) is the decoder.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from mmvae_lite.checks import check_name, check_positive

RADII = {"paper": 2.0, "code": 1.645}
"""How far from the origin a latent may lie: within two standard deviations in the text, this far in the program."""


def radius_of(radius: str | float) -> float:
    """The radius behind a name of `RADII`, or the number that is given.  Raises KeyError for an unknown name."""
    if not isinstance(radius, str):
        return radius
    check_name("radius", radius, RADII)
    return RADII[radius]


def truncated_normal(
    n: int,
    dim: int,
    radius: float,
    generator: torch.Generator | None = None,
    device: torch.device | None = None,
    dtype: torch.dtype | None = None,
) -> Float[Tensor, "n dim"]:
    """n draws from N(0, I) given that their length is at most `radius`, by rejection: [n, dim].

    Equation `eq-cut` of the book is the share that is kept in the plane.

    Raises ValueError for a radius that is not positive, or that keeps less than one draw in a thousand.
    """
    check_positive("n", n)
    check_positive("dim", dim)
    if not radius > 0:
        raise ValueError(f"radius: found {radius}, wanted more than 0")
    kept = float(torch.special.gammainc(torch.tensor(dim / 2), torch.tensor(radius**2 / 2)))
    if kept < 1e-3:
        raise ValueError(f"radius: {radius:g} keeps a share of {kept:.2g} of the draws in {dim} dimensions; wanted 0.001 or more")
    found = torch.empty(0, dim, device=device, dtype=dtype)
    while len(found) < n:
        z = torch.randn(math.ceil(1.1 * n / kept) + 16, dim, generator=generator, device=device, dtype=dtype)
        found = torch.cat([found, z[z.norm(dim=-1) <= radius]])
    return found[:n]


@torch.no_grad()
def entangle(
    models: Mapping[str, nn.Module],
    per_class: int = 7000,
    radius: str | float = "paper",
    generator: torch.Generator | None = None,
    chunk: int = 1000,
) -> tuple[dict[str, Tensor], Float[Tensor, "items latent"]]:
    """Superimpose the latent spaces of several CVAEs and sample from them: a batch, and the latent of each item.

    Equation `eq-entangle` of the book.

    models: name of the new modality -> `CVAE`; they agree in latent_dim and classes.
    per_class: how many latents are drawn, once; each is decoded by every model in every class.
    radius: `paper`, `code` or a number, see `RADII`.

    The batch holds means [items, *event] under the models' names and one-hot `label` [items, classes], for per_class
    times classes items in random order.  The models decode in evaluation mode.
    Raises ValueError where the models do not agree, TypeError for one without classes, KeyError for an unknown radius.
    """
    check_positive("per_class", per_class)
    check_positive("chunk", chunk)
    for name, model in models.items():
        if not hasattr(model, "classes"):
            raise TypeError(f"models: {name!r} is a {type(model).__name__}, wanted a CVAE, which decodes a latent in every class")
    sizes = {name: (model.latent_dim, model.classes) for name, model in models.items()}
    if len(set(sizes.values())) != 1:
        found = ", ".join(f"{name!r} has {d} and {c}" for name, (d, c) in sizes.items()) or "no model"
        raise ValueError(f"models: {found}; wanted one or more with the same latent_dim and number of classes")
    if "label" in models:
        raise ValueError("models: 'label' is the name of the classes; choose another name for the modality")
    radius = radius_of(radius)
    dim, classes = next(iter(sizes.values()))
    like = next(next(iter(models.values())).parameters())
    z = truncated_normal(per_class, dim, radius, generator, like.device, like.dtype).repeat(classes, 1)
    labels = F.one_hot(torch.arange(classes, device=like.device).repeat_interleave(per_class), classes).to(like.dtype)
    order = torch.randperm(len(z), generator=generator, device=like.device)
    z, labels = z[order], labels[order]
    return {name: _decoded(model, z, labels, chunk) for name, model in models.items()} | {"label": labels}, z


def _decoded(model: nn.Module, z: Tensor, labels: Tensor, chunk: int) -> Tensor:
    training = model.training
    model.eval()
    parts = [model.decode({"shared": a, model.label: b})[model.modality] for a, b in zip(z.split(chunk), labels.split(chunk))]
    model.train(training)
    return torch.cat(parts)


def shuffle_within_classes(
    batch: Mapping[str, Tensor], modality: str, label: str = "label", generator: torch.Generator | None = None
) -> dict[str, Tensor]:
    """The batch with one modality [items, ...] permuted among the items of each class.

    The fair control for entangled data: the same items of each modality and the same classes, but nothing shared
    within a class.  Raises KeyError for a modality or label that the batch does not hold.
    """
    for name in (modality, label):
        check_name("modality", name, batch)
    x = batch[modality]
    return {**batch, modality: x[permuted_within_classes(batch[label].argmax(-1), generator)]}


def permuted_within_classes(classes: Int[Tensor, "items"], generator: torch.Generator | None = None) -> Int[Tensor, "items"]:
    """A random permutation of the items [items] that takes each to an item of its class.

    Equation `eq-shuffle` of the book.
    """
    order = torch.randperm(len(classes), generator=generator, device=classes.device)
    partner = torch.empty_like(order)
    partner[classes.argsort(stable=True)] = order[classes[order].argsort(stable=True)]
    return partner
