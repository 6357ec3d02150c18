"""One training loop for every model: resident data, progress, checkpoints, exact resume.

The data set lives on the device as whole tensors; a step takes the rows of its tuples.  Everything random is drawn from
generators whose state is in the checkpoint or follows from (seed, epoch), so a run that was killed and resumed
on a CPU ends with the same bits as one that was not.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from mmvae_lite.checks import check_batch, check_name, check_observed, check_positive
from mmvae_lite.data.parts import Part
from mmvae_lite.distributions import CategoricalLikelihood

Batch = Mapping[str, Tensor]
Optimizers = dict[str, torch.optim.Optimizer]
Step = Callable[..., dict[str, Tensor]]

FORMAT = "mmvae_lite checkpoint 1"
CHECK_EVERY_ON_GPU = 50


class NonFiniteLoss(FloatingPointError):
    """A term of the loss became NaN or infinite."""


class BadCheckpoint(ValueError):
    """A checkpoint that cannot be read or belongs to another run."""


@dataclass
class History:
    """What a run recorded: the mean of every term for each epoch, and the seconds it took."""

    epochs: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0

    def __getitem__(self, term: str) -> list[float]:
        """One value per epoch; NaN where the term did not occur."""
        known = sorted({name for epoch in self.epochs for name in epoch})
        check_name("term", term, known)
        return [epoch.get(term, math.nan) for epoch in self.epochs]


def pick_device(device: str = "auto") -> torch.device:
    """`auto` is the GPU where there is one, else the CPU.  Raises ValueError for a GPU that is not there."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    chosen = torch.device(device)
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device {device!r} was asked for, but torch finds no GPU; use device='cpu' or 'auto'")
    return chosen


def kl_warmup(epochs: int | float, beta: float = 1.0) -> Callable[[nn.Module, float], None]:
    """A schedule that raises `model.beta` linearly from 0 to `beta` over so many epochs, step by step.

    Raises ValueError for a model that has no `beta`.
    """

    def schedule(model: nn.Module, epoch: int | float) -> None:
        if not hasattr(model, "beta"):
            raise ValueError(f"{type(model).__name__} has no weight beta on its KL that could warm up; leave the schedule out")
        model.beta = beta * min(1.0, epoch / epochs) if epochs > 0 else beta

    return schedule


def gradient_step(
    model: nn.Module, batch: Batch, optimizers: Optimizers, generator: torch.Generator, **loss_args: object
) -> dict[str, Tensor]:
    """The default step: one backward pass of `model.loss`, one step of every optimiser; returns the terms."""
    terms = model.loss(batch, generator=generator, **loss_args)
    for optimizer in optimizers.values():
        optimizer.zero_grad(set_to_none=True)
    terms["loss"].backward()
    for optimizer in optimizers.values():
        optimizer.step()
    return terms


def fit(
    model: nn.Module,
    data: Batch | Part,
    *,
    epochs: int,
    batch_size: int = 100,
    lr: int | float = 1e-3,
    optimizers: Optimizers | None = None,
    step: Step | None = None,
    observed: Batch | None = None,
    pair: Callable[..., Batch] | None = None,
    corrupt: Callable[[Batch, torch.Generator], Batch] | None = None,
    frozen: Callable[[int], Iterable[nn.Module]] | None = None,
    schedule: Callable[[nn.Module, float], None] | None = None,
    seed: int = 0,
    device: str = "auto",
    checkpoint: str | os.PathLike | None = None,
    checkpoint_seconds: int | float = 60.0,
    progress: bool = True,
) -> History:
    """Train a model on a data set that fits on the device.

    data: modality name -> [items, ...], or a `Part`, whose tuples name rows; images of type uint8 count as 256 levels of
        [0, 1].  A step takes its own rows, so that nothing but the rows themselves is ever held.
    observed: modality name -> bool [items], for items that lack one.
    optimizers, step: optimisers by name, and the function that decides which of them steps when, so that an adversary
        can have its own.  By default the model's `optimizers(lr)` and `step` if it has them, else Adam and `gradient_step`.
    pair: called at the start of each epoch, for new tuples.  With a `Part` it gets that and a generator of the CPU, and
        returns rows, modality name -> [items], of as many tuples; with a dict it gets and returns the data on the device.
    corrupt: called at each step, returns the model's inputs; the clean batch stays the target (fresh noise).
    frozen: epoch number -> modules that do not learn in that epoch.
    schedule: called before each step with the model and the epoch as a fraction, for example `kl_warmup(10)`.
    checkpoint: a file; the run is saved there every `checkpoint_seconds`, at the end and on Ctrl-C, and resumed from
        it when it exists.

    Returns the history.  Raises one clear error before the first step for bad data or settings, NonFiniteLoss
    naming the term if the loss stops being finite (the last checkpoint stays good), BadCheckpoint for a
    checkpoint that is broken or of another run.
    """
    run = _prepare(model, data, observed, epochs, batch_size, lr, optimizers, seed, device)
    path = Path(checkpoint) if checkpoint is not None else None
    with torch.random.fork_rng(devices=[run.device] if run.device.type == "cuda" else []):
        torch.manual_seed(_seed(seed, 0, "layers"))
        if path is not None:
            _claim(path)
            if path.exists():
                _load(path, run)
        try:
            _run_epochs(run, step or getattr(model, "step", gradient_step), pair, corrupt, frozen, schedule, path, checkpoint_seconds, progress)
        except KeyboardInterrupt:
            if path is not None:
                _save(path, run)
                print(f"\nstopped in epoch {run.epoch + 1} of {epochs}; {path.name} holds the run, call again to resume")
            raise
    model.eval()
    return run.history


@dataclass
class _Run:
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
    epoch: int = 0
    step: int = 0
    sums: dict[str, Tensor] = field(default_factory=dict)
    history: History = field(default_factory=History)

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
        return {"seed": self.seed, "batch_size": self.batch_size, "items": self.items, "modalities": sorted(self.part.batch)}


def _prepare(model, data, observed, epochs, batch_size, lr, optimizers, seed, device) -> _Run:
    check_positive("epochs", epochs)
    check_positive("batch_size", batch_size)
    if not lr > 0 or not math.isfinite(lr):
        raise ValueError(f"lr: found {lr!r}, wanted a finite number above 0")
    _check_data(model, data)
    part = data if isinstance(data, Part) else Part(data)
    check_observed({} if observed is None else observed, part.batch, len(part), model.event_shapes)
    where = pick_device(device)
    model.to(where).train()
    return _Run(
        model=model,
        data=data,
        part=_moved(part, where),
        observed={name: x.to(where) for name, x in (observed or {}).items()},
        optimizers=optimizers or _default_optimizers(model, lr),
        generator=torch.Generator(where).manual_seed(_seed(seed, 0, "noise")),
        device=where,
        epochs=epochs,
        batch_size=batch_size,
        seed=seed,
    )


def _check_data(model: nn.Module, data: Batch | Part) -> None:
    """As `check_batch`, but no tuple is put together and levels stay levels: each tensor is looked at once."""
    likelihoods = getattr(model, "likelihoods", None) or {model.modality: model.likelihood}
    part = data if isinstance(data, Part) else None
    batch = data if part is None else part.batch
    shapes = dict(batch) if isinstance(batch, Mapping) else batch
    for name, x in batch.items() if isinstance(batch, Mapping) else ():
        if isinstance(x, Tensor):
            length = len(x) if part is None or x.ndim == 0 else len(part)
            kind = torch.float32 if x.dtype == torch.uint8 else x.dtype
            shapes[name] = torch.empty((length, *x.shape[1:]), dtype=kind, device="meta")
    check_batch(shapes, likelihoods, model.event_shapes)
    for name, x in batch.items():
        levels = x.dtype == torch.uint8 and not isinstance(likelihoods[name], CategoricalLikelihood)
        if not levels:  # 256 levels of [0, 1] fit every other likelihood
            check_batch({name: x.cpu()}, likelihoods, model.event_shapes)


def _moved(part: Part, device: torch.device) -> Part:
    """The rows and the tuples of a partition on the device; what else is known of them stays behind."""
    return Part({m: x.to(device) for m, x in part.batch.items()}, index={m: rows.to(device) for m, rows in part.index.items()})


def _default_optimizers(model: nn.Module, lr: float) -> Optimizers:
    if hasattr(model, "optimizers"):
        return model.optimizers(lr)
    return {"model": torch.optim.Adam(model.parameters(), lr=lr, fused=True)}


def _seed(seed: int, epoch: int, stream: str) -> int:
    """A seed for one purpose in one epoch, so that data order needs no state."""
    digest = hashlib.sha256(f"{seed}/{epoch}/{stream}".encode()).digest()
    return int.from_bytes(digest[:7], "big")


def _run_epochs(run, step, pair, corrupt, frozen, schedule, path, checkpoint_seconds, progress) -> None:
    bar, saved, begun = _Progress(run, progress), time.monotonic(), time.monotonic() - run.history.seconds
    while run.epoch < run.epochs:
        for _ in _epoch_steps(run, step, pair, corrupt, frozen, schedule):
            run.history.seconds = time.monotonic() - begun
            bar.update()
            if path is not None and time.monotonic() - saved >= checkpoint_seconds:
                _save(path, run)
                saved = time.monotonic()
    bar.close()
    if path is not None:
        _save(path, run)


def _epoch_steps(run, step, pair, corrupt, frozen, schedule) -> Iterator[None]:
    """The steps of one epoch, from `run.step` on; yields after each, with the run in a state that can be saved."""
    part = run.part if pair is None else _paired(run, pair)
    shuffle = torch.Generator().manual_seed(_seed(run.seed, run.epoch, "order"))
    order = torch.randperm(run.items, generator=shuffle).to(run.device)
    with _frozen(frozen(run.epoch) if frozen else ()):
        while run.step < run.steps:
            if schedule is not None:
                schedule(run.model, run.epoch + run.step / run.steps)
            rows = run.rows(order)
            target = part.take(rows)
            loss_args: dict[str, object] = {}
            if run.observed:
                loss_args["observed"] = {name: mask[rows] for name, mask in run.observed.items()}
            batch = target
            if corrupt is not None:
                batch, loss_args["target"] = corrupt(target, run.generator), target
            terms = step(run.model, batch, run.optimizers, run.generator, **loss_args)
            _record(run, terms)
            run.step += 1
            if run.step == run.steps:
                _close_epoch(run)
                yield
                return
            yield


def _paired(run: _Run, pair: Callable[..., Batch]) -> Part:
    """The tuples of this epoch."""
    whole = isinstance(run.data, Part)
    generator = torch.Generator("cpu" if whole else run.device).manual_seed(_seed(run.seed, run.epoch, "pair"))
    if whole:
        rows = {m: i.to(run.device) for m, i in pair(run.data, generator).items()}
        part = Part(run.part.batch, index={**run.part.index, **rows})
    else:
        part = Part(pair(run.part.batch, generator))
    if len(part) != run.items:
        raise ValueError(f"pair: found {len(part)} tuples in epoch {run.epoch + 1}, wanted {run.items} as at the start")
    return part


def _record(run: _Run, terms: Mapping[str, Tensor]) -> None:
    for name, value in terms.items():
        run.sums[name] = run.sums.get(name, 0) + value.detach().double()
    if run.device.type == "cpu" or run.step % CHECK_EVERY_ON_GPU == 0 or run.step + 1 == run.steps:
        _check_finite(run, terms)


def _check_finite(run: _Run, terms: Mapping[str, Tensor]) -> None:
    if bool(torch.isfinite(terms["loss"])):
        return
    named = [n for n, v in terms.items() if n != "loss" and not bool(torch.isfinite(v))] or ["loss"]
    raise NonFiniteLoss(
        f"epoch {run.epoch + 1}, step {run.step + 1}: {', '.join(named)} became {float(terms[named[0]].detach())}; "
        "the last checkpoint is good, lower lr or the term's weight and resume from it"
    )


def _close_epoch(run: _Run) -> None:
    run.history.epochs.append({name: float(total) / run.steps for name, total in run.sums.items()})
    run.epoch, run.step, run.sums = run.epoch + 1, 0, {}


@contextlib.contextmanager
def _frozen(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Switch gradients off for the modules' parameters while the block runs."""
    held = [p for module in modules for p in module.parameters() if p.requires_grad]
    for p in held:
        p.requires_grad_(False)
        p.grad = None  # a stale gradient would still move the parameter
    try:
        yield
    finally:
        for p in held:
            p.requires_grad_(True)


class _Progress:
    """One line that says where the run is, what the loss is and how long it still takes."""

    def __init__(self, run: _Run, shown: bool) -> None:
        self.run, self.shown, self.next = run, shown, 0.0
        self.pause = 0.1 if sys.stdout.isatty() else 1.0
        self.start, self.done = time.monotonic(), run.epoch * run.steps + run.step

    def update(self) -> None:
        if self.shown and time.monotonic() >= self.next:
            self.next = time.monotonic() + self.pause
            self._write()

    def close(self) -> None:
        if self.shown:
            self._write()
            print(flush=True)

    def _write(self) -> None:
        run, total = self.run, self.run.epochs * self.run.steps
        done = run.epoch * run.steps + run.step
        rate = (time.monotonic() - self.start) / max(1, done - self.done)
        filled = 24 * done // total
        left = f"{_clock(rate * (total - done))} left" if done < total else f"took {_clock(run.history.seconds)}"
        line = f"epoch {min(run.epoch + 1, run.epochs)}/{run.epochs} {'█' * filled}{'░' * (24 - filled)} loss {self._loss():.2f}, {left}"
        print(f"\r{line:<90}", end="", flush=True)

    def _loss(self) -> float:
        if self.run.sums:
            return float(self.run.sums["loss"]) / self.run.step
        return self.run.history.epochs[-1]["loss"] if self.run.history.epochs else math.nan


def _clock(seconds: float) -> str:
    seconds = round(seconds)
    return f"{seconds} s" if seconds < 100 else f"{seconds // 60} min {seconds % 60} s"


def _claim(path: Path) -> None:
    """Fail before the first step, not after the first hour, if the checkpoint cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        trial = path.with_name(path.name + ".tmp")
        trial.touch()
        trial.unlink()
    except OSError as e:
        raise OSError(f"checkpoint {path.name}: its folder cannot be written ({e.strerror}); choose another path") from None


def _save(path: Path, run: _Run) -> None:
    """Write the run to a new file beside the checkpoint, then put it in the checkpoint's place."""
    tensors = {f"model/{k}": v for k, v in run.model.state_dict().items()}
    groups = {}
    for name, optimizer in run.optimizers.items():
        state = optimizer.state_dict()
        groups[name] = state["param_groups"]
        for index, values in state["state"].items():
            tensors |= {f"optimizer/{name}/{index}/{k}": torch.as_tensor(v) for k, v in values.items() if v is not None}
    tensors |= {f"sums/{k}": v for k, v in run.sums.items()}
    tensors["random/noise"], tensors["random/layers"] = run.generator.get_state(), _layer_state(run.device)
    header = {
        "format": FORMAT,
        "identity": run.identity(),
        "epoch": run.epoch,
        "step": run.step,
        "groups": groups,
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


def _load(path: Path, run: _Run) -> None:
    try:
        with safe_open(path, "pt") as f:
            header = json.loads((f.metadata() or {}).get("run", "{}"))
            tensors = {k: f.get_tensor(k) for k in f.keys()}
    except (SafetensorError, ValueError) as e:
        raise BadCheckpoint(f"checkpoint {path.name} is broken ({e}); delete it to start afresh") from None
    if header.get("format") != FORMAT:
        raise BadCheckpoint(f"checkpoint {path.name}: found format {header.get('format')!r}, wanted {FORMAT!r}; delete it to start afresh")
    for key, wanted in run.identity().items():
        if header["identity"][key] != wanted:
            raise BadCheckpoint(f"checkpoint {path.name}: its {key} is {header['identity'][key]!r}, this run has {wanted!r}; delete it to start afresh")
    if set(header["groups"]) != set(run.optimizers):
        raise BadCheckpoint(f"checkpoint {path.name}: its optimisers are {sorted(header['groups'])}, this run has {sorted(run.optimizers)}; delete it to start afresh")
    _restore(path, run, header, tensors)


def _restore(path: Path, run: _Run, header: dict, tensors: dict[str, Tensor]) -> None:
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
    run.sums = {k.removeprefix("sums/"): v.to(run.device) for k, v in tensors.items() if k.startswith("sums/")}
    run.generator.set_state(tensors["random/noise"])
    _set_layer_state(run.device, tensors["random/layers"])
    run.epoch, run.step = header["epoch"], header["step"]
    run.history = History(header["history"], header["seconds"])


def _layer_state(device: torch.device) -> Tensor:
    """The state of torch's own generator, which layers such as dropout draw from."""
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def _set_layer_state(device: torch.device, state: Tensor) -> None:
    if device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
    else:
        torch.set_rng_state(state)
