"""Train, evaluate and record experiments, in a folder of checkpoints that may be carried to another machine."""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
import time
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


def train(run: Run, device: str = "auto", seconds: float | int = math.inf, progress: bool = True, restart: bool = False) -> Trained:
    """Train a run, going on from its checkpoint where there is one.

    Raises Unfinished when `seconds` are over first; the checkpoint holds the run, as it does after Ctrl-C.  Otherwise as
    `fit` does.
    """
    begun = time.monotonic()
    if restart:
        run.checkpoint.unlink(missing_ok=True)
    data = run.experiment.data(run.profile, run.seed)
    model = run.experiment.untrained(run.profile, data, run.seed).to(pick_device(device))
    settings = run.experiment.training(run.profile, data, run.seed)
    if settings is None:
        return Trained(model, data, History(finished=True))
    with contextlib.redirect_stdout(sys.stderr):  # standard output is for results
        history = fit(
            model, data.train, epochs=settings.epochs, batch_size=settings.batch_size, lr=settings.lr,
            optimizers=settings.optimizers(model) if settings.optimizers else None, step=settings.step, pair=settings.pair,
            corrupt=settings.corrupt, schedule=settings.schedule, accumulate=settings.accumulate, seed=run.seed, device=device,
            checkpoint=run.checkpoint, max_seconds=max(1e-3, seconds - (time.monotonic() - begun)), progress=progress,
        )  # fmt: skip
    if not history.finished:
        raise Unfinished(f"{run.title}: {len(history.epochs)} of {settings.epochs} epochs are trained, run it again to go on")
    return Trained(model, data, history)


def evaluate(run: Run, trained: Trained) -> Metrics:
    """The run's metrics.  Raises RuntimeError where they are not those that the experiment promises."""
    trained.model.eval()
    metrics = run.experiment.measure(trained.model, trained.data, run.profile, run.seed)
    wanted, found = set(run.experiment.metrics), set(metrics)
    if wanted != found:
        raise RuntimeError(f"{run.title}: measured {sorted(found - wanted) or 'nothing'} beyond its list of metrics and lacks {sorted(wanted - found) or 'none'}")
    return metrics


def reproduce(run: Run, device: str = "auto", seconds: float | int = math.inf, **options: object) -> Path:
    """Train, evaluate, and write the result file, whose path is returned.  Raises as `train` and `write_result` do."""
    trained = train(run, device, seconds, **options)
    begun = time.monotonic()
    metrics = evaluate(run, trained)
    minutes = (trained.history.seconds + time.monotonic() - begun) / 60
    size = sum(p.numel() for p in trained.model.parameters())
    metrics |= {"epochs": {"value": len(trained.history.epochs)}, "parameters": {"value": size}}
    return write_result(
        run.experiment.name, run.profile, run.seed, metrics, data=trained.data.description, stand_in=trained.data.stand_in,
        device=device_name(pick_device(device)), minutes=minutes,
    )  # fmt: skip


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
