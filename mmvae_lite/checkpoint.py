"""The state of a training run, and the file that holds it."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from mmvae_lite.checks import check_name
from mmvae_lite.data.parts import Part
from mmvae_lite.parallel import generator_state

Batch = Mapping[str, Tensor]
Optimizers = dict[str, torch.optim.Optimizer]

#: Number 1 had neither a precision nor a device.
VERSION = 2
FORMAT = "mmvae_lite checkpoint"


class BadCheckpoint(ValueError):
    """A checkpoint that cannot be read or belongs to another run."""


@dataclass
class History:
    """What a run recorded: the mean of every term for each epoch, the seconds it took, and whether it came to its end."""

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
    sums: dict[str, Tensor] = field(default_factory=dict)
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

    def identity(self) -> dict[str, object]:
        """What must agree between a checkpoint and the run that resumes it."""
        names = sorted(self.part.batch)
        return {"seed": self.seed, "batch_size": self.batch_size, "items": self.items, "modalities": names, "precision": self.precision}


def derived_seed(seed: int, epoch: int, stream: str) -> int:
    """A seed for one purpose in one epoch, so that data order needs no state."""
    digest = hashlib.sha256(f"{seed}/{epoch}/{stream}".encode()).digest()
    return int.from_bytes(digest[:7], "big")


def claim(path: Path) -> None:
    """Fail before the first step, not after the first hour, if the checkpoint cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        trial = path.with_name(path.name + ".tmp")
        trial.touch()
        trial.unlink()
    except OSError as e:
        raise OSError(f"checkpoint {path.name}: its folder cannot be written ({e.strerror}); choose another path") from None


def save(path: Path, run: Run) -> None:
    """Write the run to a new file beside the checkpoint, then put it in the checkpoint's place."""
    tensors = {f"model/{k}": v for k, v in run.model.state_dict().items()}
    groups = {}
    for name, optimizer in run.optimizers.items():
        state = optimizer.state_dict()
        groups[name] = state["param_groups"]
        for index, values in state["state"].items():
            tensors |= {f"optimizer/{name}/{index}/{k}": torch.as_tensor(v) for k, v in values.items() if v is not None}
    tensors |= {f"sums/{k}": v for k, v in run.sums.items()}
    tensors["random/noise"], tensors["random/layers"] = run.generator.get_state(), generator_state(run.device)
    header = {
        "format": f"{FORMAT} {VERSION}",
        "device": run.device.type,
        "identity": run.identity(),
        "epoch": run.epoch,
        "step": run.step,
        "groups": groups,
        "lr": run.lrs,
        "history": run.history.epochs,
        "seconds": run.history.seconds,
    }
    trial = path.with_name(path.name + ".tmp")
    try:
        save_file({k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}, trial, {"run": json.dumps(header)})
        os.replace(trial, path)
    except (OSError, SafetensorError) as e:
        trial.unlink(missing_ok=True)
        raise OSError(f"checkpoint {path.name} could not be written ({e}); free some disk space and resume") from None


def read(path: Path) -> tuple[dict, dict[str, Tensor]]:
    """What a checkpoint holds."""
    try:
        with safe_open(path, "pt") as f:
            header = json.loads((f.metadata() or {}).get("run", "{}"))
            tensors = {k: f.get_tensor(k) for k in f.keys()}
    except (SafetensorError, ValueError) as e:
        raise BadCheckpoint(f"checkpoint {path.name} is broken ({e}); delete it to start afresh") from None
    found = str(header.get("format"))
    version = int(found.rpartition(" ")[2]) if re.fullmatch(FORMAT + r" \d+", found) else 0
    if version > VERSION:
        raise BadCheckpoint(
            f"checkpoint {path.name}: a newer mmvae_lite wrote it, in format {version}, and this one reads up to {VERSION}; update it"
        )
    if not version:
        raise BadCheckpoint(
            f"checkpoint {path.name}: found format {header.get('format')!r}, wanted '{FORMAT} {VERSION}'; delete it to start afresh"
        )
    return header, tensors


def restore(path: Path, run: Run, header: dict, tensors: dict[str, Tensor]) -> None:
    """Bring a run to where this checkpoint is.  Raises BadCheckpoint."""
    for key, wanted in run.identity().items():
        held = header["identity"].get(key, "float32")
        if held != wanted:
            raise BadCheckpoint(f"checkpoint {path.name}: its {key} is {held!r}, this run has {wanted!r}; delete it to start afresh")
    if set(header["groups"]) != set(run.optimizers):
        held, ours = sorted(header["groups"]), sorted(run.optimizers)
        raise BadCheckpoint(f"checkpoint {path.name}: its optimisers are {held}, this run has {ours}; delete it to start afresh")
    try:
        run.model.load_state_dict({k.removeprefix("model/"): v for k, v in tensors.items() if k.startswith("model/")})
    except RuntimeError as e:
        raise BadCheckpoint(f"checkpoint {path.name} belongs to another model ({str(e).splitlines()[-1].strip()})") from None
    for name, optimizer in run.optimizers.items():
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            if key.startswith(f"optimizer/{name}/"):
                index, field_name = key.removeprefix(f"optimizer/{name}/").split("/")
                state.setdefault(int(index), {})[field_name] = value
        optimizer.load_state_dict({"state": state, "param_groups": header["groups"][name]})
        if header.get("lr", run.lrs)[name] != run.lrs[name]:  # the caller asks for another one now
            for group, lr in zip(optimizer.param_groups, run.lrs[name]):
                group["lr"] = lr
    run.sums = {k.removeprefix("sums/"): v.to(run.device) for k, v in tensors.items() if k.startswith("sums/")}
    run.epoch, run.step = header["epoch"], header["step"]
    if header.get("device", run.device.type) == run.device.type:
        run.generator.set_state(tensors["random/noise"])
        _set_layer_state(run.device, tensors["random/layers"])
    else:  # generators of another kind of device: the run goes on with other noise
        run.generator.manual_seed(derived_seed(run.seed, run.epoch, f"noise/{run.step}"))
        torch.manual_seed(derived_seed(run.seed, run.epoch, f"layers/{run.step}"))
    run.history = History(header["history"], header["seconds"], run.epoch >= run.epochs)


def _set_layer_state(device: torch.device, state: Tensor) -> None:
    if device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
    else:
        torch.set_rng_state(state)
