"""The file that holds the state of a training run."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mmvae_lite.parallel import generator_state
from mmvae_lite.state import History, Run, derived_seed

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

#: Number 1 had neither a precision nor a device, number 2 a sum for each term by itself.
VERSION = 3
FORMAT = "mmvae_lite checkpoint"


class BadCheckpoint(ValueError):
    """A checkpoint that cannot be read or belongs to another run."""


@contextlib.contextmanager
def claimed(path: Path) -> Iterator[None]:
    """Hold a checkpoint for one run.  Fails before the first step, not after the first hour, if it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        trial = path.with_name(path.name + ".tmp")
        trial.touch()
        trial.unlink()
        lock = path.with_name(path.name + ".lock")
        held = _locked(lock)
    except OSError as e:
        raise OSError(f"checkpoint {path.name}: its folder cannot be written ({e.strerror}); choose another path") from None
    if held is None:
        raise BlockingIOError(f"checkpoint {path.name}: another run writes it now; wait for its end or choose another path")
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)
        held.close()


def _locked(lock: Path) -> IO[bytes] | None:
    """The open file, locked until it is closed or the process ends, or None where another process has it."""
    while True:
        held = lock.open("ab")
        try:
            if fcntl is not None:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            held.close()
            return None
        except OSError:  # a file system without locks
            return held
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(held.fileno()), lock.stat()):
                return held
        held.close()  # its owner removed it at the same moment


def save(path: Path, run: Run) -> None:
    """Write the run to a new file beside the checkpoint, then put it in the checkpoint's place."""
    tensors = {f"model/{k}": v for k, v in run.model.state_dict().items()}
    groups = {}
    for name, optimizer in run.optimizers.items():
        state = optimizer.state_dict()
        groups[name] = state["param_groups"]
        for index, values in state["state"].items():
            tensors |= {f"optimizer/{name}/{index}/{k}": torch.as_tensor(v) for k, v in values.items() if v is not None}
    tensors |= {f"sums/{k}": total for k, total in enumerate(run.sums.values())}
    tensors["random/noise"], tensors["random/layers"] = run.generator.get_state(), generator_state(run.device)
    header = {
        "format": f"{FORMAT} {VERSION}",
        "device": run.device.type,
        "identity": run.identity(),
        "epoch": run.epoch,
        "step": run.step,
        "groups": groups,
        "lr": run.lrs,
        "terms": [[list(names), run.counts[names]] for names in run.sums],
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
    except BaseException:
        trial.unlink(missing_ok=True)
        raise


def read(path: Path) -> tuple[dict, dict[str, Tensor]]:
    """What a checkpoint holds."""
    try:
        with safe_open(path, "pt") as f:
            header = json.loads((f.metadata() or {}).get("run", "{}"))
            tensors = {k: f.get_tensor(k) for k in f.keys()}
    except (SafetensorError, ValueError, OSError) as e:
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
    """Bring a run to where this checkpoint is.  Raises BadCheckpoint, and leaves the model as it was."""
    try:
        _check_belongs(path, run, header, tensors)
        _restore(run, header, tensors)
    except (KeyError, TypeError, AttributeError) as e:
        raise BadCheckpoint(f"checkpoint {path.name} is broken ({e!r}); delete it to start afresh") from None


def _check_belongs(path: Path, run: Run, header: dict, tensors: dict[str, Tensor]) -> None:
    for key, wanted in run.identity().items():
        held = header["identity"].get(key, "float32")
        if held != wanted:
            raise BadCheckpoint(f"checkpoint {path.name}: its {key} is {held!r}, this run has {wanted!r}; delete it to start afresh")
    if (header["epoch"], header["step"]) > (run.epochs, 0):
        held = f"{header['epoch']} epochs and {header['step']} steps"
        raise BadCheckpoint(f"checkpoint {path.name}: it is after {held}, this run has epochs={run.epochs}; raise it, or delete it to start afresh")
    held, ours = ({k: list(v.shape) for k, v in side.items()} for side in (_under("model/", tensors), run.model.state_dict()))
    for key in (*ours, *held):
        if held.get(key) != ours.get(key):
            raise BadCheckpoint(
                f"checkpoint {path.name} belongs to another model: its {key} is {held.get(key, 'missing')}, "
                f"this one's {ours.get(key, 'missing')}; delete it to start afresh"
            )
    held, ours = ({n: [len(g["params"]) for g in groups] for n, groups in side.items()} for side in (header["groups"], _groups(run)))
    if held != ours:
        what = f"its optimisers are {sorted(held)}, this run has {sorted(ours)}" if set(held) != set(ours) else "its optimisers hold other parameters"
        raise BadCheckpoint(f"checkpoint {path.name}: {what}; delete it to start afresh")


def _groups(run: Run) -> dict[str, list[dict]]:
    return {name: optimizer.state_dict()["param_groups"] for name, optimizer in run.optimizers.items()}


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _restore(run: Run, header: dict, tensors: dict[str, Tensor]) -> None:
    run.model.load_state_dict(_under("model/", tensors))
    for name, optimizer in run.optimizers.items():
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in _under(f"optimizer/{name}/", tensors).items():
            index, _, field_name = key.partition("/")
            state.setdefault(int(index), {})[field_name] = value
        optimizer.load_state_dict({"state": state, "param_groups": header["groups"][name]})
        if header.get("lr", run.lrs)[name] != run.lrs[name]:  # the caller asks for another one now
            for group, lr in zip(optimizer.param_groups, run.lrs[name]):
                group["lr"] = lr
    run.epoch, run.step = header["epoch"], header["step"]
    sums = {k: v.to(run.device) for k, v in _under("sums/", tensors).items()}
    if "terms" in header:
        run.sums = {tuple(names): sums[str(k)] for k, (names, _) in enumerate(header["terms"])}
        run.counts = {tuple(names): count for names, count in header["terms"]}
    else:
        run.sums, run.counts = {(k,): v[None] for k, v in sums.items()}, {(k,): run.step for k in sums}
    if header.get("device", run.device.type) == run.device.type:
        run.generator.set_state(tensors["random/noise"])
        _set_layer_state(run.device, tensors["random/layers"])
    else:  # generators of another kind of device: the run goes on with other noise
        run.generator.manual_seed(derived_seed(run.seed, run.epoch, f"noise/{run.step}"))
        torch.manual_seed(derived_seed(run.seed, run.epoch, f"layers/{run.step}"))
    run.history = History(header["history"], header["seconds"], run.epoch == run.epochs)


def _set_layer_state(device: torch.device, state: Tensor) -> None:
    if device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
    else:
        torch.set_rng_state(state)
