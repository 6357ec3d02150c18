"""One training loop for every model: resident data, progress, checkpoints, exact resume, several processes.

The data set lives on the device as whole tensors; a step takes the rows of its tuples.  Everything random is drawn from
generators whose state is in the checkpoint or follows from (seed, epoch), so a run that was killed and resumed
on a CPU ends with the same bits as one that was not.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from mmvae_lite import checkpoint as file
from mmvae_lite import parallel, processes
from mmvae_lite.checkpoint import BadCheckpoint
from mmvae_lite.checks import check_name, check_observed, check_positive, check_rows, values_seen
from mmvae_lite.data.parts import Part, as_float
from mmvae_lite.processes import pick_device
from mmvae_lite.progress import Progress, held_signals, stopped
from mmvae_lite.state import Batch, History, NonFiniteLoss, Optimizers, Run, check_finite, check_parameters, derived_seed

__all__ = ["BadCheckpoint", "History", "NonFiniteLoss", "fit", "gradient_step", "kl_warmup", "pick_device"]

Step = Callable[..., dict[str, Tensor]]

CHECK_EVERY_ON_GPU = 50
LATE = 1  # below SIGINT and SIGTERM


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


@dataclass(frozen=True)
class _Hooks:
    """What a caller adds to the steps; see `fit`."""

    step: Step
    pair: Callable[..., Batch] | None
    corrupt: Callable[[Batch, torch.Generator], Batch] | None
    frozen: Callable[[int], Iterable[nn.Module]] | None
    schedule: Callable[[nn.Module, float], None] | None


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
    precision: str = "float32",
    compile: bool = False,
    accumulate: int = 1,
    checkpoint: str | os.PathLike | None = None,
    checkpoint_seconds: int | float = 60.0,
    max_seconds: int | float = math.inf,
    progress: bool = True,
) -> History:
    """Train a model on a data set that fits on the device.

    data: modality name -> [items, ...], or a `Part`, whose tuples name rows; images of type uint8 count as 256 levels of
        [0, 1].  A step takes its own rows, so that nothing but the rows themselves is ever held.
    observed: modality name -> bool [items], for items that lack one.
    optimizers, step: optimisers by name, and the function that decides which of them steps when, so that an adversary
        can have its own.  By default the model's `optimizers(lr)` and `step` if it has them, else Adam and `gradient_step`.
    pair: called at the start of each epoch, for new tuples.  With a `Part` it gets the part's index and a generator of the
        CPU, and returns an index, modality name -> row [items], of as many tuples (`repair_each_epoch`); with a dict it
        gets the data on the device, and returns data.
    corrupt: called at each step, returns the model's inputs; the clean batch stays the target (fresh noise).
    frozen: epoch number -> modules that do not learn in that epoch.
    schedule: called before each step with the model and the epoch as a fraction, for example `kl_warmup(10)`.
    precision: `bfloat16` runs the networks in that precision (likelihoods, divergences and parameters stay in float32);
        `tf32` lets a GPU round the factors of float32 matrix products.
    compile: run the networks through torch.compile.
    accumulate: the networks see the batch in so many pieces, which the backward pass computes again: the loss and the
        gradient of the whole batch, for every objective, in less memory, for one more forward pass.
    checkpoint: a file; the run is saved there every `checkpoint_seconds`, at the end, on Ctrl-C and when a scheduler terminates
        it (SIGTERM), and resumed from it when it exists, on any device and with any number of processes.
    max_seconds: stop after the first step that ends later than this; the history then says `finished=False`.

    Started in several processes (`accelerate launch`, `torchrun`), each takes its share of every batch through the networks,
    and together they do what one does; see `mmvae_lite.parallel`.  All need the same data and arguments; the first one prints and saves.

    Returns the history.  Raises one clear error before the first step for bad data or settings, NonFiniteLoss
    naming the term if the loss stops being finite (the last checkpoint stays good), BadCheckpoint for a
    checkpoint that is broken or of another run, BlockingIOError for one that another run is writing, MemoryError where a
    step does not fit, SystemExit after a termination.
    """
    check_positive("accumulate", accumulate)
    check_name("precision", precision, parallel.PRECISIONS)
    _check_number("max_seconds", max_seconds, max_seconds > 0, "more than 0")
    _check_number("checkpoint_seconds", checkpoint_seconds, checkpoint_seconds >= 0, "0 or more")
    run = _prepare(model, data, observed, epochs, batch_size, lr, optimizers, seed, device)
    run.precision, run.accumulate = precision, accumulate
    if compile:
        parallel.check_compiler(run.device)
    path = Path(checkpoint) if checkpoint is not None else None
    hooks = _Hooks(step or getattr(model, "step", gradient_step), pair, corrupt, frozen, schedule)
    with contextlib.ExitStack() as stack:
        stack.callback(model.eval)
        stack.enter_context(torch.random.fork_rng(devices=[run.device] if run.device.type == "cuda" else []))
        torch.manual_seed(derived_seed(seed, 0, "layers"))
        _resume(path, run, stack)
        _join_processes(run, stack)
        shares = stack.enter_context(parallel.networks_run(model, run.device, run.rank, run.count, accumulate, precision, compile))
        pressed = stack.enter_context(held_signals())
        try:
            _run_steps(run, shares, hooks, path, checkpoint_seconds, max_seconds, progress, pressed)
        except (KeyboardInterrupt, SystemExit):
            if path is not None and run.between and run.rank == 0:
                _save(path, run)
                print(f"\nstopped in epoch {run.epoch + 1} of {epochs}; {path.name} holds the run, call again to resume")
            raise
    return run.history


def _check_number(name: str, found: float | int, good: bool, wanted: str) -> None:
    if not good:
        raise ValueError(f"{name}: found {found!r}, wanted {wanted}")


def _prepare(model, data, observed, epochs, batch_size, lr, optimizers, seed, device) -> Run:
    check_positive("epochs", epochs)
    check_positive("batch_size", batch_size)
    _check_number("lr", lr, 0 < lr < math.inf, "a finite number above 0")
    likelihoods = getattr(model, "likelihoods", None) or {model.modality: model.likelihood}
    if isinstance(data, Part):
        check_rows(data.batch, likelihoods, model.event_shapes, data.words, len(data))
    else:
        check_rows(data, likelihoods, model.event_shapes, {})
    part = data if isinstance(data, Part) else Part(data)
    check_observed({} if observed is None else observed, part.batch, len(part), model.event_shapes)
    where = pick_device(device)
    rank, count = processes.joined(where)
    model.to(where).train()
    return Run(
        model=model,
        data=data,
        part=_moved(part, where),
        observed={name: x.to(where) for name, x in (observed or {}).items()},
        optimizers=optimizers or _default_optimizers(model, lr),
        generator=torch.Generator(where).manual_seed(derived_seed(seed, 0, "noise")),
        device=where,
        epochs=epochs,
        batch_size=batch_size,
        seed=seed,
        rank=rank,
        count=count,
    )


def _resume(path: Path | None, run: Run, stack: contextlib.ExitStack) -> None:
    """Go to where the checkpoint is, if there is one; the first process reads it, for all."""
    found = None
    if path is not None and run.rank == 0:
        stack.enter_context(file.claimed(path))
        found = file.read(path) if path.exists() else None
    found = processes.from_first(found) if run.count > 1 else found
    if found is not None:
        file.restore(path, run, *found)


def _join_processes(run: Run, stack: contextlib.ExitStack) -> None:
    """Start all processes alike, and let each step have the gradient of all of them.  Raises ValueError if they differ."""
    if run.count == 1:
        return
    ends = {m: [float(as_float(x[row]).double().sum()) for row in (0, -1)] for m, x in run.part.batch.items()}
    found = processes.agree(run.identity() | {"epochs": run.epochs, "data": ends})
    for rank, theirs in enumerate(found):
        for key, value in theirs.items():
            if value != found[0][key]:
                raise ValueError(
                    f"process {rank} has {key} {value!r} and process 0 has {found[0][key]!r}; start all with the same data and arguments"
                )
    processes.same_start(run.model)
    for optimizer in run.optimizers.values():
        stack.callback(optimizer.register_step_pre_hook(processes.average_gradients).remove)


def _moved(part: Part, device: torch.device) -> Part:
    """The rows and the tuples of a partition on the device; what else is known of them stays behind."""
    batch, index = ({m: x.to(device) for m, x in held.items()} for held in (part.batch, part.index))
    return Part(batch, index=index, words=part.words)


def _default_optimizers(model: nn.Module, lr: float) -> Optimizers:
    if hasattr(model, "optimizers"):
        return model.optimizers(lr)
    return {"model": torch.optim.Adam(model.parameters(), lr=lr, fused=True)}


def _run_steps(run, shares, hooks, path, checkpoint_seconds, max_seconds, progress, pressed) -> None:
    path = path if run.rank == 0 else None
    bar, start = Progress(run, progress and run.rank == 0), time.monotonic()
    saved, begun, asked = start, start - run.history.seconds, 0
    if hooks.schedule is not None and run.epoch == run.epochs:  # nothing is left to do but what the last step was told
        hooks.schedule(run.model, run.epochs - 1 / run.steps)
    while run.epoch < run.epochs and not asked:
        for _ in _epoch_steps(run, hooks):
            now = time.monotonic()
            shares.watch, run.history.seconds = False, now - begun
            bar.update()
            asked = _asked_to_stop(run, pressed, now - start >= max_seconds)
            if asked:
                break
            if path is not None and now - saved >= checkpoint_seconds:
                _save(path, run)
                saved = time.monotonic()
    bar.close()
    if asked > LATE:
        raise stopped(asked)
    run.history.finished = run.epoch == run.epochs
    check_parameters(run)
    if path is not None:
        _save(path, run)


def _asked_to_stop(run: Run, pressed: list[int], late: bool) -> int:
    """The signal that asks the run to stop, LATE for its time limit, 0 for neither; the same in all processes."""
    found = max(pressed, default=LATE if late else 0)
    if run.count == 1:
        return found
    return processes.largest(found, run.device) if _due(run) else 0


def _save(path: Path, run: Run) -> None:
    check_finite(run)
    check_parameters(run)
    file.save(path, run)


def _epoch_steps(run: Run, hooks: _Hooks) -> Iterator[None]:
    """The steps of one epoch, from `run.step` on; yields after each, with the run in a state that can be saved."""
    part = run.part if hooks.pair is None else _paired(run, hooks.pair)
    shuffle = torch.Generator().manual_seed(derived_seed(run.seed, run.epoch, "order"))
    order = torch.randperm(run.items, generator=shuffle).to(run.device)
    with _frozen(hooks.frozen(run.epoch) if hooks.frozen else ()):
        while run.step < run.steps:
            if hooks.schedule is not None:
                hooks.schedule(run.model, run.epoch + run.step / run.steps)
            run.between = False
            _record(run, _one_step(run, hooks, part, run.rows(order)))
            run.step += 1
            last = run.step == run.steps
            if last:
                _close_epoch(run)
            run.between = True
            yield
            if last:
                return


def _one_step(run: Run, hooks: _Hooks, part: Part, rows: Tensor) -> dict[str, Tensor]:
    try:
        target = part.take(rows)
        loss_args: dict[str, object] = {}
        if run.observed:
            loss_args["observed"] = {name: mask[rows] for name, mask in run.observed.items()}
        batch = target
        if hooks.corrupt is not None:
            batch, loss_args["target"] = hooks.corrupt(target, run.generator), target
        with values_seen(target if part.batch is run.part.batch else {}):
            return hooks.step(run.model, batch, run.optimizers, run.generator, **loss_args)
    except RuntimeError as e:
        if not isinstance(e, torch.OutOfMemoryError) and "can't allocate memory" not in str(e):
            raise
        raise MemoryError(
            f"a step of {len(rows)} items does not fit into the memory of {run.device}; "
            f"lower batch_size, raise accumulate (it is {run.accumulate}) or take precision='bfloat16'"
        ) from None


def _paired(run: Run, pair: Callable[..., Batch]) -> Part:
    """The tuples of this epoch."""
    whole = isinstance(run.data, Part)
    generator = torch.Generator("cpu" if whole else run.device).manual_seed(derived_seed(run.seed, run.epoch, "pair"))
    if whole:
        rows = {m: i.to(run.device) for m, i in pair(run.data.index, generator).items()}
        part = Part(run.part.batch, index={**run.part.index, **rows}, words=run.part.words)
    else:
        part = Part(pair(run.part.batch, generator))
    if len(part) != run.items:
        raise ValueError(f"pair: found {len(part)} tuples in epoch {run.epoch + 1}, wanted {run.items} as at the start")
    return part


def _record(run: Run, terms: Mapping[str, Tensor]) -> None:
    run.add(terms)
    if _due(run):
        check_finite(run)


def _due(run: Run) -> bool:
    """Whether this step is looked at; each look makes a GPU wait."""
    return run.device.type == "cpu" or run.step % CHECK_EVERY_ON_GPU == 0 or run.step + 1 == run.steps


def _close_epoch(run: Run) -> None:
    run.history.epochs.append(run.means())
    run.epoch, run.step, run.sums, run.counts = run.epoch + 1, 0, {}, {}


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
