"""Bad input, said in one sentence: which modality, what was found, what is wanted, what to do."""

from __future__ import annotations

import contextlib
import difflib
import math
from collections.abc import Collection, Iterator, Mapping
from contextvars import ContextVar

import torch
from torch import Tensor

from mmvae_lite.distributions import CategoricalLikelihood, Likelihood


_seen: ContextVar[tuple[Tensor, ...]] = ContextVar("seen", default=())


@contextlib.contextmanager
def values_seen(batch: Mapping[str, Tensor]) -> Iterator[None]:
    """While the block runs `check_batch` does not look at the values of these very tensors: they come from checked data."""
    token = _seen.set(tuple(batch.values()))
    try:
        yield
    finally:
        _seen.reset(token)


def _did_you_mean(name: str, known: Collection[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def check_name(kind: str, name: str, known: Collection[str]) -> None:
    """Raise KeyError naming the known ones unless `name` is among them."""
    if name not in known:
        listed = ", ".join(map(repr, known))
        raise KeyError(f"unknown {kind} {name!r}, known: {listed}{_did_you_mean(name, known)}")


def check_positive(name: str, value: object) -> None:
    """Raise ValueError unless `value` is a whole number of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name}: found {value!r}, wanted a whole number of at least 1")


def check_batch(
    batch: Mapping[str, Tensor],
    likelihoods: Mapping[str, Likelihood],
    event_shapes: Mapping[str, tuple[int, ...]],
    allow_empty: bool = False,
    like: Tensor | None = None,
) -> None:
    """Check the names, shapes, types, lengths and values of a batch of modalities.

    `like` is a parameter of the model, whose dtype and device the batch must have; an empty tensor asks for nothing.
    Values are looked at on the CPU only, because a look at a GPU's memory would stall it; `fit` checks a
    whole data set before it moves to a GPU.

    Raises KeyError for an unknown modality and TypeError or ValueError for the rest.
    """
    if not isinstance(batch, Mapping):
        raise TypeError(f"a batch is a dict from modality name to tensor, got {type(batch).__name__}")
    if not batch and not allow_empty:
        raise ValueError(f"the batch is empty: wanted at least one of {', '.join(map(repr, event_shapes))}")
    for name, x in batch.items():
        check_name("modality", name, event_shapes)
        _check_tensor(name, x, event_shapes[name], likelihoods[name])
        if like is not None and like.numel():
            _check_like(name, x, like)
    lengths = {name: len(x) for name, x in batch.items()}
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"{name!r} has {n}" for name, n in lengths.items())
        raise ValueError(f"modalities differ in length: {found} items; wanted the same number in each")


def check_rows(
    batch: Mapping[str, Tensor],
    likelihoods: Mapping[str, Likelihood],
    event_shapes: Mapping[str, tuple[int, ...]],
    words: Mapping[str, int],
    items: int | None = None,
) -> None:
    """Check the rows of a whole data set as `check_batch` would check its tuples, and put none of these together.

    Images may be uint8, 256 levels of [0, 1].  `words`: how many there are, for modalities whose rows are word numbers.
    `items`: the number of tuples, where rows are not the tuples themselves.  Raises as `check_batch`.
    """
    taken = {}
    for name, x in batch.items() if isinstance(batch, Mapping) else ():
        if isinstance(x, Tensor) and x.ndim:
            event = (*x.shape[1:], words[name]) if name in words else x.shape[1:]
            kind = torch.float32 if x.dtype == torch.uint8 or name in words else x.dtype
            x = torch.empty((len(x) if items is None else items, *event), dtype=kind, device="meta")
        taken[name] = x
    check_batch(taken if isinstance(batch, Mapping) else batch, likelihoods, event_shapes)
    for name, x in batch.items():
        levels = x.dtype == torch.uint8 and not isinstance(likelihoods[name], CategoricalLikelihood)
        if not levels and name not in words:  # 256 levels of [0, 1] fit every other likelihood
            check_batch({name: x.cpu()}, likelihoods, event_shapes)


def _check_tensor(name: str, x: Tensor, event: tuple[int, ...], likelihood: Likelihood) -> None:
    wanted = f"[batch, {', '.join(map(str, event))}]"
    if not isinstance(x, Tensor):
        raise TypeError(f"modality {name!r}: found {type(x).__name__}, wanted a torch tensor of shape {wanted}")
    labels = isinstance(likelihood, CategoricalLikelihood)
    if not x.is_floating_point():
        kind = "one-hot floats, see torch.nn.functional.one_hot" if labels else "floats, divide bytes by 255"
        raise TypeError(f"modality {name!r}: found dtype {x.dtype}, wanted {kind}, of shape {wanted}")
    if tuple(x.shape[1:]) != event or x.ndim != len(event) + 1:
        raise ValueError(f"modality {name!r}: found shape {list(x.shape)}, wanted {wanted}")
    if len(x) == 0:
        raise ValueError(f"modality {name!r}: found 0 items, wanted at least 1")
    if x.device.type == "cpu" and not any(x is seen for seen in _seen.get()):
        _check_values(name, x.detach(), likelihood)


def _check_like(name: str, x: Tensor, like: Tensor) -> None:
    if x.device != like.device:
        raise ValueError(f"modality {name!r}: found on {x.device}, but the model is on {like.device}; move one with .to(...)")
    if x.dtype != like.dtype and not torch.is_autocast_enabled(x.device.type):
        raise TypeError(f"modality {name!r}: found {x.dtype}, but the model computes in {like.dtype}; convert one with .to(...)")


def _check_values(name: str, x: Tensor, likelihood: Likelihood) -> None:
    low, high = (float(v) for v in torch.aminmax(x))
    if not (math.isfinite(low) and math.isfinite(high)):
        item = int((~torch.isfinite(x)).flatten(1).any(1).nonzero()[0])
        raise ValueError(f"modality {name!r}: item {item} holds NaN or infinity, wanted finite values; clean or drop it")
    lowest, highest = likelihood.support
    if low < lowest or high > highest:
        raise ValueError(
            f"modality {name!r}: found values from {low:.4g} to {high:.4g}, wanted {lowest:g} to {highest:g} "
            f"for a {type(likelihood).__name__}; rescale the data or choose another likelihood"
        )
    if isinstance(likelihood, CategoricalLikelihood):
        off = ((x.sum(-1) - 1).abs() > 1e-4).reshape(len(x), -1).any(1)
        if bool(off.any()):
            item = int(off.nonzero()[0])
            raise ValueError(f"modality {name!r}: item {item} does not sum to 1 over the classes, wanted one-hot rows")


def check_observed(
    observed: Mapping[str, Tensor], batch: Mapping[str, Tensor], length: int, known: Collection[str]
) -> None:
    """Check the masks that mark absence per item: bool, shape [batch], only for modalities that are there.

    `known` are all modalities of the model; a mask that is False everywhere may belong to one that the batch lacks.
    Raises TypeError, ValueError or KeyError.
    """
    if not isinstance(observed, Mapping):
        raise TypeError(f"observed is a dict from modality name to a bool mask of shape [{length}], got {type(observed).__name__}")
    for name, mask in observed.items():
        if not isinstance(mask, Tensor):
            raise TypeError(f"observed[{name!r}]: found {type(mask).__name__}, wanted a torch.bool tensor of shape [{length}]")
        if mask.dtype != torch.bool or tuple(mask.shape) != (length,):
            raise ValueError(
                f"observed[{name!r}]: found {mask.dtype} of shape {list(mask.shape)}, wanted torch.bool of shape [{length}]"
            )
        if name not in batch and bool(mask.any()):
            raise KeyError(f"observed marks modality {name!r} as present, but the batch does not hold it")
        check_name("modality", name, known)
