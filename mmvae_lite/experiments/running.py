"""Train, evaluate and record experiments, in a folder of checkpoints that may be carried to another machine."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from mmvae_lite.checks import check_name
from mmvae_lite.data.parts import MultimodalSet
from mmvae_lite.experiments._experiment import Experiment, Metrics
from mmvae_lite.results import PROFILES, RECORDED, results_folder, write_result
from mmvae_lite.training import History, fit, pick_device

NO_TRAINING = "this experiment trains nothing before it measures"


class Unfinished(Exception):
    """A run whose time was over before it was trained; its checkpoint holds it."""


class Stopped(KeyboardInterrupt):
    """A run that was asked to stop, and did so between two steps."""


@dataclass(frozen=True)
class Run:
    """One experiment in one size with one seed: what a checkpoint and a result file belong to."""

    experiment: Experiment
    profile: str = "lite"
    seed: int = 0

    def __post_init__(self) -> None:
        check_name("profile", self.profile, PROFILES)

    @property
    def title(self) -> str:
        return f"{self.experiment.name} ({self.profile}, seed {self.seed})"

    @property
    def checkpoint(self) -> Path:
        return runs_folder() / self.experiment.name / f"{self.profile}-{self.seed}.safetensors"

    def result(self) -> Path | None:
        """The result file, where there is one: in the folder of results, or among those that the repository records."""
        name = Path(self.experiment.name, f"{self.profile}-{self.seed}.json")
        return next((folder / name for folder in (results_folder(), RECORDED) if (folder / name).is_file()), None)

    def progress(self) -> dict[str, int | float] | None:
        """`epoch`, `step` and `seconds` of the checkpoint, or None where there is none that can be read."""
        try:
            with safe_open(self.checkpoint, "pt") as f:
                header = json.loads((f.metadata() or {}).get("run", "{}"))
        except (OSError, SafetensorError, ValueError):
            return None
        return {key: header.get(key, 0) for key in ("epoch", "step", "seconds")}


def runs_folder() -> Path:
    """Where checkpoints are: the folder that MMVAE_RUNS names, else `runs` in the working folder."""
    return Path(os.environ.get("MMVAE_RUNS") or "runs")


@dataclass
class Trained:
    """A model with the data that it was trained on and the record of its training."""

    model: nn.Module
    data: MultimodalSet
    history: History


def train(
    run: Run,
    device: str = "auto",
    seconds: float | None = None,
    stop: Callable[[], bool] = lambda: False,
    progress: bool = True,
    restart: bool = False,
) -> Trained:
    """Train a run, going on from its checkpoint where there is one.

    Raises Unfinished when `seconds` are over first and Stopped once `stop` says so, between two steps; the checkpoint
    holds the run either way.  Otherwise as `fit` does.
    """
    begun = time.monotonic()
    if restart:
        run.checkpoint.unlink(missing_ok=True)
    data = run.experiment.data(run.profile, run.seed)
    model = run.experiment.untrained(run.profile, data, run.seed)
    settings = run.experiment.training(run.profile, data)
    if settings is None:
        return Trained(model.to(pick_device(device)), data, History())

    def between_steps(model: nn.Module, epoch: float) -> None:
        if stop():
            raise Stopped(run.title)
        if seconds is not None and time.monotonic() - begun >= seconds:
            raise _OutOfTime
        if settings.schedule is not None:
            settings.schedule(model, epoch)

    model.to(pick_device(device))
    try:
        with _progress_on_stderr():
            history = fit(
                model, data.train, epochs=settings.epochs, batch_size=settings.batch_size, lr=settings.lr,
                optimizers=settings.optimizers(model) if settings.optimizers else None, step=settings.step, pair=settings.pair,
                corrupt=settings.corrupt, schedule=between_steps, seed=run.seed, device=device, checkpoint=run.checkpoint,
                progress=progress,
            )  # fmt: skip
    except _OutOfTime:
        raise Unfinished(how_far(run, settings.epochs)) from None
    return Trained(model, data, history)


class _OutOfTime(KeyboardInterrupt):
    """`fit` saves a run that is interrupted."""


def how_far(run: Run, epochs: int) -> str:
    at = run.progress()
    return f"{run.title}: {at['epoch'] if at else 0} of {epochs} epochs are trained, run it again to go on"


def evaluate(run: Run, trained: Trained) -> Metrics:
    """The run's metrics.  Raises RuntimeError where they are not those that the experiment promises."""
    trained.model.eval()
    metrics = run.experiment.measure(trained.model, trained.data, run.profile, run.seed)
    if unknown := sorted(set(metrics) - set(run.experiment.metrics)):
        raise RuntimeError(f"{run.title}: measured {', '.join(unknown)}, which its list of metrics lacks; add them there")
    return metrics


def reproduce(run: Run, device: str = "auto", seconds: float | None = None, **options: object) -> Path:
    """Train, evaluate, and write the result file, whose path is returned.  Raises as `train` and `write_result` do."""
    trained = train(run, device, seconds, **options)
    begun = time.monotonic()
    metrics = evaluate(run, trained)
    minutes = (trained.history.seconds + time.monotonic() - begun) / 60
    metrics |= {"epochs": {"value": len(trained.history.epochs)}, "parameters": {"value": sum(p.numel() for p in trained.model.parameters())}}
    return write_result(
        run.experiment.name, run.profile, run.seed, metrics, data=trained.data.description, stand_in=trained.data.stand_in,
        device=device_name(next(trained.model.parameters(), torch.empty(0)).device), minutes=minutes,
    )  # fmt: skip


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


@contextlib.contextmanager
def _progress_on_stderr() -> Iterator[None]:
    """Standard output is for results."""
    with contextlib.redirect_stdout(sys.stderr):
        yield
