"""How networks run while a model trains: each process on its share of the items, in chunks, in bfloat16, compiled.

What is drawn and what compares items happens on the whole batch, in every process alike and from the same generator.  Only
the networks, which treat items one by one, run on shares: encoders give what they found to everybody, and so do decoders
with log p(x | z), one number an item.  A model therefore needs to know nothing of processes, and its objective is the
one of the whole batch, contrast, permutations and minibatch estimates included.  A process has the gradient of its share until
`average_gradients`, which runs as an optimiser steps; what a caller's own `step` reads before is not yet everybody's.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mmvae_lite.processes import Gather, Shares, Take

ENCODERS = ("encoder", "encoders", "joint_encoder")
NETWORKS = (*ENCODERS, "decoder", "decoders", "discriminators")
PRECISIONS = ("float32", "tf32", "bfloat16")


_shares: ContextVar[Shares | None] = ContextVar("shares", default=None)


def by_items(
    network: nn.Module, score: Callable[..., Tensor], z: Float[Tensor, "*lead batch latent"], *items: Float[Tensor, "batch ..."]
) -> Float[Tensor, "*lead batch"]:
    """score(z, *items), which `network` computes item by item, from the shares and chunks of a training step."""
    return _spread(_shares.get(), network, score, (z, *items), (-2, *[0] * len(items)), -1)


def _spread(shares: Shares | None, network: nn.Module, function: Callable, inputs: tuple, axes: tuple[int, ...], out: int) -> Any:
    """function(*inputs) where inputs hold items along `axes` and the result along `out`."""
    n = _length(inputs[0], axes[0]) if shares is not None else 0
    if shares is None or n < shares.count or id(network) in shares.whole:
        return function(*inputs)
    start, stop = shares.bounds(n)[shares.rank : shares.rank + 2]
    if shares.count > 1:
        inputs = tuple(_each(x, lambda t, a=a: Take.apply(t, shares, a, start, stop)) for x, a in zip(inputs, axes))
    result = _watched(network, function) if shares.watch else function
    found = _chunked(result, inputs, axes, out, min(shares.chunks, stop - start))
    return _each(found, lambda x: Gather.apply(x, shares, out, n)) if shares.count > 1 else found


def _chunked(function: Callable, inputs: tuple, axes: tuple[int, ...], out: int, chunks: int) -> Any:
    def alone(*inputs: Any) -> Any:
        token = _shares.set(None)  # a network inside another one is not split again
        try:
            return function(*inputs)
        finally:
            _shares.reset(token)

    if chunks < 2:
        return alone(*inputs)
    n = _length(inputs[0], axes[0])
    parts = []
    for k in range(chunks):
        start, stop = k * n // chunks, (k + 1) * n // chunks
        piece = [_each(x, partial(torch.narrow, dim=a, start=start, length=stop - start)) for x, a in zip(inputs, axes)]
        parts.append(checkpoint(alone, *piece, use_reentrant=False))
    return _joined(parts, out)


def _watched(network: nn.Module, function: Callable) -> Callable:
    def watched(*inputs: Any) -> Any:
        device = next((p.device for p in network.parameters()), torch.device("cpu"))
        before = generator_state(device)
        found = function(*inputs)
        if not torch.equal(before, generator_state(device)):
            raise RuntimeError(
                f"{type(network).__name__} draws random numbers in its forward pass, which several processes cannot share; "
                "train in one process"
            )
        return found

    return watched


def _each(x: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """The function of every tensor in a tensor, a dict or a density."""
    if isinstance(x, Tensor):
        return function(x)
    if isinstance(x, Mapping):
        return {k: _each(v, function) for k, v in x.items()}
    if dataclasses.is_dataclass(x):
        return dataclasses.replace(x, **{f.name: _each(getattr(x, f.name), function) for f in dataclasses.fields(x)})
    return x


def _joined(parts: list[Any], axis: int) -> Any:
    first = parts[0]
    if isinstance(first, Tensor):
        return torch.cat(parts, axis)
    if isinstance(first, Mapping):
        return {k: _joined([p[k] for p in parts], axis) for k in first}
    if dataclasses.is_dataclass(first):
        return dataclasses.replace(first, **{f.name: _joined([getattr(p, f.name) for p in parts], axis) for f in dataclasses.fields(first)})
    return first


def _length(x: Any, axis: int) -> int:
    return _length(next(iter(x.values())), axis) if isinstance(x, Mapping) else x.shape[axis]


def generator_state(device: torch.device) -> Tensor:
    """The state of torch's own generator, which layers such as dropout draw from."""
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


# ---- networks -----------------------------------------------------------------------------------------------------


def networks(model: nn.Module, names: tuple[str, ...] = NETWORKS) -> list[nn.Module]:
    """The networks that a model keeps under these names."""
    found: dict[int, nn.Module] = {}
    for name in names:
        held = getattr(model, name, None)
        inner = held.values() if isinstance(held, nn.ModuleDict) else [held] if isinstance(held, nn.Module) else []
        found |= {id(network): network for network in inner}
    return list(found.values())


def _compares(network: nn.Module) -> bool:
    return any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in network.modules())


def _draws(network: nn.Module) -> bool:
    recurrent = (nn.RNNBase, nn.MultiheadAttention)
    inner = list(network.modules())
    return any(isinstance(m, nn.modules.dropout._DropoutNd) and m.p > 0 or isinstance(m, recurrent) and m.dropout > 0 for m in inner)


@contextlib.contextmanager
def networks_run(
    model: nn.Module,
    device: torch.device,
    rank: int = 0,
    count: int = 1,
    chunks: int = 1,
    precision: str = "float32",
    compile: bool = False,
) -> Iterator[Shares]:
    """While the block runs, the model's networks run in shares, chunks, this precision, and compiled.

    Networks with batch statistics run on the whole batch; with several processes, so do those with dropout.
    """
    plain = precision != "bfloat16" and not compile
    every, encoders = networks(model), networks(model, ENCODERS)
    if not plain and not every:
        raise ValueError(f"{type(model).__name__} keeps no network under {', '.join(NETWORKS)}; leave precision and compile out")
    whole = frozenset(id(n) for n in every if _compares(n) or (count > 1 and _draws(n)))
    shares = Shares(rank, count, chunks, whole, watch=count > 1)
    touched = every if not plain else encoders if count * chunks > 1 else []
    before = [network.__dict__.get("forward") for network in touched]
    token = _shares.set(shares if count * chunks > 1 else None)
    tf32 = torch.get_float32_matmul_precision()
    try:
        for network in touched:
            forward = network.forward
            if compile:
                forward = torch.compile(forward)
            if precision == "bfloat16":
                forward = _in_bfloat16(forward, device.type)
            if network in encoders and count * chunks > 1:
                forward = _shared(network, forward)
            network.forward = forward
        if precision == "tf32":
            torch.set_float32_matmul_precision("high")
        yield shares
    finally:
        for network, own in zip(touched, before):
            network.__dict__.pop("forward", None)
            if own is not None:
                network.forward = own
        torch.set_float32_matmul_precision(tf32)
        _shares.reset(token)


def _shared(network: nn.Module, forward: Callable) -> Callable:
    def on_shares(*inputs: Any) -> Any:
        return _spread(_shares.get(), network, forward, inputs, (0,) * len(inputs), 0)

    return on_shares


def _in_bfloat16(forward: Callable, kind: str) -> Callable:
    def in_bfloat16(*inputs: Any) -> Any:
        with torch.autocast(kind, torch.bfloat16):
            found = forward(*inputs)
        return _each(found, lambda x: x.float() if x.dtype == torch.bfloat16 else x)

    return in_bfloat16


def check_compiler(device: torch.device) -> None:
    """Raise RuntimeError unless torch.compile has what it needs."""
    if device.type == "cuda":
        if importlib.util.find_spec("triton") is None:
            raise RuntimeError("compile=True needs triton on a GPU, which is not installed; install it or leave compile out")
    elif not any(shutil.which(c) for c in (os.environ.get("CXX") or "g++", "clang++")):
        raise RuntimeError("compile=True needs a C++ compiler, found none on the PATH; install g++ or leave compile out")
