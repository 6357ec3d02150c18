"""What the measurements share: a model at rest, tuples in chunks on its device, and the posteriors of a whole partition."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mmvae_lite.checks import check_name, check_positive
from mmvae_lite.data.parts import Part
from mmvae_lite.distributions import Concrete, Laplace, Normal
from mmvae_lite.experts import Mixture
from mmvae_lite.models._common import parameter_like

Posterior = Normal | Laplace | Concrete | Mixture
Corrupt = Callable[[Mapping[str, Tensor], torch.Generator], Mapping[str, Tensor]]


@contextlib.contextmanager
def at_rest(model: object) -> Iterator[Tensor]:
    """Evaluation mode without gradients while the block runs; gives a tensor with the model's dtype and device.

    Afterwards every part is in the mode that it had, so that a part which is kept at rest in training stays so.
    """
    modes = {part: part.training for part in model.modules()} if isinstance(model, nn.Module) else {}
    for part in modes:
        part.training = False
    try:
        with torch.no_grad():
            yield parameter_like(model) if modes else torch.empty(0)
    finally:
        for part, mode in modes.items():
            part.training = mode


def in_chunks(data: Part, names: Collection[str], chunk: int, like: Tensor) -> Iterator[tuple[slice, dict[str, Tensor]]]:
    """The tuples' modalities `names`, at most `chunk` of them at a time, with the dtype and device of `like`."""
    check_positive("chunk", chunk)
    for name in names:
        check_name("modality", name, data.batch)
    batch, index, words = ({m: held[m] for m in names if m in held} for held in (data.batch, data.index, data.words))
    chosen = Part(batch, None, index, words=words)
    for start in range(0, len(chosen), chunk):
        rows = slice(start, min(start + chunk, len(chosen)))
        yield rows, {m: x.to(like) for m, x in chosen.take(rows).items()}


def classes_of(data: Part, what: str) -> Int[Tensor, "items"]:
    """The classes of a partition.  Raises ValueError where it has none."""
    if data.classes is None or not len(data.classes):
        raise ValueError(f"{what}: the data hold no classes, wanted one for each tuple; give a Part with classes")
    return data.classes


def generator_for(seed: int, purpose: str, like: Tensor) -> torch.Generator:
    """A generator on the tensor's device; its draws have nothing to do with those of a data set made from the same seed."""
    digest = hashlib.sha256(f"evaluation/{seed}/{purpose}".encode()).digest()
    return torch.Generator(like.device).manual_seed(int.from_bytes(digest[:7], "big"))


def posteriors(
    model: nn.Module, data: Part, given: Sequence[str], latent: str = "shared", chunk: int = 1000, corrupt: Corrupt | None = None, seed: int = 0
) -> Posterior:
    """q(latent | x_given) of every tuple, as one density [items, latent] on the model's device.

    latent: `shared` or `private/<modality>`.  corrupt: as in `fit`, what the model sees of a batch, with draws by `seed`.
    Raises KeyError for an unknown modality or latent.
    """
    found: list[Posterior] = []
    with at_rest(model) as like:
        generator = generator_for(seed, f"posterior of {'+'.join(given)}", like)
        for _, batch in in_chunks(data, given, chunk, like):
            q = model.posterior(corrupt(batch, generator) if corrupt else batch)
            check_name("latent", latent, q)
            found.append(q[latent])
    return joined(found)


def priors(model: nn.Module, n: int) -> dict[str, Any]:
    """p(z) of each latent for n items: `shared` and, where the model has styles, `private/<modality>`.

    DMVAE-D's shared latent has the density that was fitted to it; raises as its `log_likelihood` does where there is none.
    """
    if hasattr(model, "density"):
        return {"shared": model._fitted("log_likelihood"), **{f"private/{m}": model.private_prior(m, n) for m in model.modalities}}
    found = model.priors(n) if hasattr(model, "priors") else model.prior(n)
    return found if isinstance(found, dict) else {"shared": found}


def joined(parts: Sequence[Posterior]) -> Posterior:
    """One density of the items of several."""
    first = parts[0]
    if isinstance(first, Mixture):
        return Mixture(tuple(joined([p.experts[k] for p in parts]) for k in range(len(first.experts))))
    names = [f.name for f in dataclasses.fields(first) if isinstance(getattr(first, f.name), Tensor)]
    return dataclasses.replace(first, **{name: torch.cat([getattr(p, name) for p in parts]) for name in names})


def rows_of(q: Posterior, rows: Tensor | slice) -> Posterior:
    """The density of some of the items."""
    if isinstance(q, Mixture):
        return Mixture(tuple(rows_of(expert, rows) for expert in q.experts))
    names = [f.name for f in dataclasses.fields(q) if isinstance(getattr(q, f.name), Tensor)]
    return dataclasses.replace(q, **{name: getattr(q, name)[rows] for name in names})


def latents(q: Posterior, sample: bool, generator: torch.Generator | None = None) -> Float[Tensor, "items latent"]:
    """A draw from q for each item, or its mean; of a categorical latent the probabilities, all variables in one row."""
    if isinstance(q, Concrete):
        return (q.rsample(generator=generator) if sample else q.probs).flatten(1)
    if isinstance(q, Mixture):
        return q.draw(generator) if sample else q.mean
    return q.rsample(generator=generator) if sample else q.mean
