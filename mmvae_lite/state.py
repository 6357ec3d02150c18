"""The state of a training run: what it has learned, where it is, and whether it is sound."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from mmvae_lite.checks import check_name
from mmvae_lite.data.parts import Part

Batch = Mapping[str, Tensor]
Optimizers = dict[str, torch.optim.Optimizer]


class NonFiniteLoss(FloatingPointError):
    """A term of the loss became NaN or infinite."""


@dataclass
class History:
    """What a run recorded: for each epoch the mean of every term over the steps that had it, the seconds, whether it came to its end."""

    epochs: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0
    finished: bool = False

    def __getitem__(self, term: str) -> list[float]:
        """One value per epoch; NaN where the term did not occur."""
        known = sorted({name for epoch in self.epochs for name in epoch})
        check_name("term", term, known)
        return [epoch.get(term, math.nan) for epoch in self.epochs]


@dataclass
class Run:
    """The state of a run, all of which is in a checkpoint, and its settings."""

    model: nn.Module
    data: Batch | Part  # as it was given
    part: Part  # the same on the device
    observed: dict[str, Tensor]
    optimizers: Optimizers
    generator: torch.Generator
    device: torch.device
    epochs: int
    batch_size: int
    seed: int
    precision: str = "float32"
    accumulate: int = 1
    rank: int = 0
    count: int = 1
    epoch: int = 0
    step: int = 0
    between: bool = True  # no step is half done
    lrs: dict[str, list[float]] = field(init=False)  # at the start
    sums: dict[tuple[str, ...], Tensor] = field(default_factory=dict)  # of this epoch's terms, by the terms that a step had
    counts: dict[tuple[str, ...], int] = field(default_factory=dict)  # of these steps
    history: History = field(default_factory=History)

    def __post_init__(self) -> None:
        self.lrs = {name: [float(group["lr"]) for group in o.param_groups] for name, o in self.optimizers.items()}

    @property
    def items(self) -> int:
        return len(self.part)

    @property
    def steps(self) -> int:
        """Batches in an epoch; a last item that would be alone joins the batch before, since some losses compare items."""
        alone = self.items % self.batch_size == 1 and self.items > self.batch_size > 1
        return math.ceil(self.items / self.batch_size) - alone

    def rows(self, order: Tensor) -> Tensor:
        """The items of the present step, in the epoch's order."""
        start = self.step * self.batch_size
        return order[start:] if self.step + 1 == self.steps else order[start : start + self.batch_size]

    def add(self, terms: Mapping[str, Tensor]) -> None:
        """Take the terms of a step into the sums of its epoch."""
        names, values = tuple(terms), torch.stack([value.detach() for value in terms.values()]).double()
        self.sums[names] = self.sums[names] + values if names in self.sums else values
        self.counts[names] = self.counts.get(names, 0) + 1

    def means(self) -> dict[str, float]:
        """Of every term of this epoch, over the steps that had it."""
        sums: dict[str, float] = {}
        steps: dict[str, int] = {}
        for names, total in self.sums.items():
            for name, value in zip(names, total.tolist()):
                sums[name], steps[name] = sums.get(name, 0.0) + value, steps.get(name, 0) + self.counts[names]
        return {name: value / steps[name] for name, value in sums.items()}

    def identity(self) -> dict[str, object]:
        """What must agree between a checkpoint and the run that resumes it."""
        names = sorted(self.part.batch)
        return {"seed": self.seed, "batch_size": self.batch_size, "items": self.items, "modalities": names, "precision": self.precision}


def derived_seed(seed: int, epoch: int, stream: str) -> int:
    """A seed for one purpose in one epoch, so that data order needs no state."""
    digest = hashlib.sha256(f"{seed}/{epoch}/{stream}".encode()).digest()
    return int.from_bytes(digest[:7], "big")


def check_finite(run: Run) -> None:
    """Raise NonFiniteLoss if the sums of this epoch are not finite: they stay so once a term was not."""
    if all(math.isfinite(total[names.index("loss")]) for names, total in run.sums.items()):
        return
    bad = {name: value for name, value in run.means().items() if not math.isfinite(value)}
    named = [name for name in bad if name != "loss"] or ["loss"]
    raise NonFiniteLoss(
        f"epoch {run.epoch + 1}, step {run.step + (not run.between)}: {', '.join(named)} became {bad[named[0]]}; "
        "the last checkpoint is good, lower lr or the term's weight and resume from it"
    )


def check_parameters(run: Run) -> None:
    """Raise NonFiniteLoss if a gradient overflowed although its loss did not."""
    for name, p in run.model.named_parameters():
        if not bool(torch.isfinite(p).all()):
            raise NonFiniteLoss(
                f"epoch {run.epoch + 1}, before step {run.step + 1}: the parameter {name} became NaN or infinite by its gradient; "
                "the last checkpoint is good, lower lr and resume from it"
            )
