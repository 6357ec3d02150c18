"""Several processes that train one model: who they are, what they give each other, and the gradient of all of them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

#: Where launchers say them: torchrun and accelerate, then three kinds of MPI.
RANKS = ("RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK")
COUNTS = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")


def pick_device(device: str = "auto") -> torch.device:
    """`auto` is the GPU where there is one, else the CPU.  Raises ValueError for a GPU that is not there.

    A process that a launcher started takes the GPU of its own number, and the CPU if the launcher says so.
    """
    if device in ("auto", "cuda") and torch.cuda.is_available():
        on_cpu = os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes")
        if device == "cuda" or not on_cpu:
            return torch.device(f"cuda:{os.environ['LOCAL_RANK']}" if "LOCAL_RANK" in os.environ else "cuda")
    if device == "auto":
        return torch.device("cpu")
    chosen = torch.device(device)
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device {device!r} was asked for, but torch finds no GPU; use device='cpu' or 'auto'")
    return chosen


@dataclass
class Shares:
    """Which part of a batch this process computes, and in how many chunks.

    rank, count: of the processes.  chunks: how many parts of the share are computed one after the other, to be computed
    again by the backward pass.  whole: networks (by id) that compare items or draw, which every process runs on everything.
    watch: whether to look for networks that draw without being known to.
    """

    rank: int = 0
    count: int = 1
    chunks: int = 1
    whole: frozenset[int] = frozenset()
    watch: bool = False

    def bounds(self, n: int) -> list[int]:
        """Where the shares of n items begin, and the end; they differ by one item at most."""
        return [rank * n // self.count for rank in range(self.count + 1)]


class Take(torch.autograd.Function):
    """One process's share; the gradient is put together from everybody's."""

    @staticmethod
    def forward(ctx, x, shares, axis, start, stop):
        ctx.of = shares, axis, x.shape[axis]
        return x.narrow(axis, start, stop - start).clone()

    @staticmethod
    def backward(ctx, grad):
        shares, axis, n = ctx.of
        # `Gather` multiplied by the number of processes; see there
        return _all_gather(grad, shares, axis, n) / shares.count, None, None, None, None


class Gather(torch.autograd.Function):
    """Everybody's shares put together.

    Every process has the whole loss, so that its gradient for its own share is complete.  It is multiplied by the number of
    processes, because `average_gradients` then takes the mean: of shares for a network, of equal numbers for the rest.
    """

    @staticmethod
    def forward(ctx, x, shares, axis, n):
        ctx.of = shares, axis, n
        return _all_gather(x, shares, axis, n)

    @staticmethod
    def backward(ctx, grad):
        shares, axis, n = ctx.of
        start, stop = shares.bounds(n)[shares.rank : shares.rank + 2]
        return grad.narrow(axis, start, stop - start) * shares.count, None, None, None


def _all_gather(x: Tensor, shares: Shares, axis: int, n: int) -> Tensor:
    bounds = shares.bounds(n)
    sizes = [b - a for a, b in zip(bounds, bounds[1:])]
    own = x.detach().movedim(axis, 0)
    padded = own.new_zeros(max(sizes), *own.shape[1:])
    padded[: len(own)] = own
    parts = [torch.empty_like(padded) for _ in sizes]
    dist.all_gather(parts, padded)
    return torch.cat([part[:size] for part, size in zip(parts, sizes)]).movedim(0, axis)


def average_gradients(optimizer: torch.optim.Optimizer, *_: object) -> None:
    """The mean of the processes' gradients, before the optimiser's step."""
    grads = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    for dtype in dict.fromkeys(g.dtype for g in grads):  # in one order everywhere
        same = [g for g in grads if g.dtype == dtype]
        flat = torch.cat([g.reshape(-1) for g in same])
        dist.all_reduce(flat)
        flat /= dist.get_world_size()
        for g, part in zip(same, flat.split([g.numel() for g in same])):
            g.copy_(part.view_as(g))


def leads() -> bool:
    """Whether this process speaks for all that a launcher started; one that was started alone does."""
    return all(os.environ.get(name, "0") == "0" for name in RANKS)


def joined(device: torch.device) -> tuple[int, int]:
    """Rank and number of the processes that train together: those of torch.distributed, or of the launcher's environment.

    Raises ValueError where `accelerate launch --cpu` was asked for several and started one.
    """
    if not dist.is_available():
        return 0, 1
    if not dist.is_initialized() and {"MASTER_ADDR", "MASTER_PORT"} <= set(os.environ):
        rank, count = (next((int(os.environ[name]) for name in names if name in os.environ), None) for names in (RANKS, COUNTS))
        if rank is None and "ACCELERATE_USE_CPU" in os.environ:
            raise ValueError(
                "accelerate launch --cpu was asked for several processes and started one, as it does without MPI; "
                "say accelerate launch --multi_gpu, which runs on CPUs too, or torchrun --nproc-per-node"
            )
        if rank is not None and count is not None and count > 1:
            if device.index is not None:
                torch.cuda.set_device(device)  # where NCCL puts what it exchanges
            dist.init_process_group("nccl" if device.type == "cuda" else "gloo", rank=rank, world_size=count)
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def agree(values: object) -> list[Any]:
    """What every process has for `values`, by rank."""
    found: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(found, values)
    return found


def from_first(value: Any) -> Any:
    """What the first process has for `value`."""
    held = [value]
    dist.broadcast_object_list(held)
    return held[0]


def same_start(model: nn.Module) -> None:
    """Give every process the first one's parameters and buffers."""
    for t in (*model.parameters(), *model.buffers()):
        dist.broadcast(t.data, 0)


def largest(number: int, device: torch.device) -> int:
    """The largest number that any process has."""
    found = torch.tensor(number, device=device)
    dist.all_reduce(found, dist.ReduceOp.MAX)
    return int(found)
