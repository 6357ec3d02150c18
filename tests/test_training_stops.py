"""What ends a run before its end, what two runs do to one file, and what a checkpoint must never hold."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from mmvae_lite.checkpoint import claimed
from mmvae_lite.models import MVAE
from mmvae_lite.training import BadCheckpoint, NonFiniteLoss, fit, gradient_step, kl_warmup
from tests import kinds
from tests.parallel_cases import PAIR, batch, encoders, trained

ROOT = Path(__file__).resolve().parent.parent
PLAIN = {"batch_size": 11, "device": "cpu", "progress": False}


def small(seed=0):
    torch.manual_seed(seed)
    return MVAE(encoders(PAIR), **kinds.parts(PAIR))


def signalled(number, at):
    """A schedule that sends the process a signal before its step `at`."""
    steps = iter(range(1000))
    return lambda model, epoch: os.kill(os.getpid(), number) if next(steps) == at else None


def state(model):
    return {k: v.clone() for k, v in model.state_dict().items()}


def same(one, two):
    return one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)


def test_a_termination_saves_and_ends_with_the_status_of_one(tmp_path, capsys):
    straight, model, path = small(), small(), tmp_path / "run.safetensors"
    fit(straight, batch(PAIR), epochs=3, **PLAIN)
    with pytest.raises(SystemExit) as ended:
        fit(model, batch(PAIR), epochs=3, schedule=signalled(signal.SIGTERM, 5), checkpoint=path, **PLAIN)
    assert ended.value.code == 143 and "stopped in epoch 2 of 3" in capsys.readouterr().out
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL and not model.training
    with safe_open(path, "pt") as f:
        header = json.loads(f.metadata()["run"])
    assert (header["epoch"], header["step"]) == (1, 2), "after the step that it came in"
    resumed = small(9)
    fit(resumed, batch(PAIR), epochs=3, checkpoint=path, **PLAIN)
    assert same(state(straight), state(resumed))


def test_a_program_that_handles_terminations_goes_on_to():
    caught = []
    before = signal.signal(signal.SIGTERM, lambda *a: caught.append(a))
    try:
        fit(small(), batch(PAIR), epochs=1, schedule=signalled(signal.SIGTERM, 1), **PLAIN)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert len(caught) == 1


@pytest.mark.parametrize(("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_a_second_signal_does_not_wait_for_the_step(tmp_path, number, error):
    path, seen = tmp_path / "run.safetensors", []

    def twice(model, *args, **more):
        seen.append(model)
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), number)
        seen.append("not reached")

    with pytest.raises(error):
        fit(small(), batch(PAIR), epochs=1, step=twice, checkpoint=path, **PLAIN)
    assert len(seen) == 1 and list(tmp_path.iterdir()) == [], "a step that is half done is not saved"


def test_a_stop_leaves_frozen_parts_and_modes_as_they_were(tmp_path):
    model = small()
    with pytest.raises(KeyboardInterrupt):
        fit(model, batch(PAIR), epochs=1, frozen=lambda epoch: [model.decoders], schedule=signalled(signal.SIGINT, 1), **PLAIN)
    assert all(p.requires_grad for p in model.parameters()) and not model.training
    assert all("forward" not in m.__dict__ for m in model.modules())


HOLDER = """
import sys
from pathlib import Path
from mmvae_lite.checkpoint import claimed
with claimed(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_two_runs_cannot_write_one_checkpoint_and_a_killed_one_holds_nothing(tmp_path):
    path = tmp_path / "run.safetensors"
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT)
    assert holder.stdout.readline() == b"held\n"
    with pytest.raises(BlockingIOError, match="run.safetensors: another run writes it now; wait"):
        fit(small(), batch(PAIR), epochs=1, checkpoint=path, **PLAIN)
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    holder.stdin.close(), holder.stdout.close()
    path.with_name("run.safetensors.tmp").write_bytes(b"half a checkpoint, of a run that was killed")
    assert fit(small(), batch(PAIR), epochs=1, checkpoint=path, **PLAIN).finished
    assert [p.name for p in tmp_path.iterdir()] == ["run.safetensors"]
    with claimed(path), pytest.raises(BlockingIOError), claimed(path):
        pass
    assert [p.name for p in tmp_path.iterdir()] == ["run.safetensors"]


def overflowing(at):
    """A step whose loss is finite and whose gradient is not."""
    steps = iter(range(1000))

    def step(model, *args, **more):
        hook = next(model.parameters()).register_hook(lambda g: g * float("inf")) if next(steps) == at else None
        terms = gradient_step(model, *args, **more)
        if hook:
            hook.remove()
        return terms

    return step


@pytest.mark.parametrize("at", [5, 7])  # in an epoch, and the last step of all
def test_weights_that_overflowed_are_never_saved(tmp_path, at):
    path = tmp_path / "run.safetensors"
    with pytest.raises(NonFiniteLoss, match="the parameter .* became NaN or infinite by its gradient"):
        fit(small(), batch(PAIR), epochs=2, step=overflowing(at), checkpoint=path, checkpoint_seconds=0, **PLAIN)
    model = small()
    fit(model, batch(PAIR), epochs=2, checkpoint=path, max_seconds=1e-9, **PLAIN)
    assert all(bool(torch.isfinite(p).all()) for p in model.parameters())
    with pytest.raises(NonFiniteLoss, match="the parameter"):
        fit(small(), batch(PAIR), epochs=2, step=overflowing(7), **PLAIN)


def test_ctrl_c_does_not_save_a_loss_that_exploded(tmp_path, monkeypatch):
    """With looks far apart, as on a GPU, nobody has seen it yet."""
    import mmvae_lite.training as training

    monkeypatch.setattr(training, "_due", lambda run: False)
    path = tmp_path / "run.safetensors"

    def explode_and_press(model, batch, optimizers, generator, **more):
        os.kill(os.getpid(), signal.SIGINT)
        return {"loss": torch.tensor(float("nan")), "a/kl": torch.tensor(float("inf")), "b/kl": torch.tensor(1.0)}

    with pytest.raises(NonFiniteLoss, match="epoch 1, step 1: a/kl became inf"):
        fit(small(), batch(PAIR), epochs=1, step=explode_and_press, checkpoint=path, **PLAIN)
    assert list(tmp_path.iterdir()) == []


def test_a_longer_run_is_not_taken_for_a_shorter_one(tmp_path):
    path, model = tmp_path / "run.safetensors", small()
    fit(model, batch(PAIR), epochs=2, checkpoint=path, **PLAIN)
    before, other = path.read_bytes(), small(3)
    start = state(other)
    with pytest.raises(BadCheckpoint, match="it is after 2 epochs and 0 steps, this run has epochs=1; raise it"):
        fit(other, batch(PAIR), epochs=1, checkpoint=path, **PLAIN)
    assert same(start, state(other)) and path.read_bytes() == before
    assert fit(other, batch(PAIR), epochs=3, checkpoint=path, **PLAIN).finished


def test_a_finished_run_has_the_weights_of_its_schedule(tmp_path):
    path, betas = tmp_path / "run.safetensors", []
    for seed in (0, 1):
        model = small(seed)
        fit(model, batch(PAIR), epochs=2, schedule=kl_warmup(4, beta=8.0), checkpoint=path, **PLAIN)
        betas.append(model.beta)
    assert betas == [3.5, 3.5]


def test_a_checkpoint_of_another_model_changes_nothing(tmp_path):
    path, model = tmp_path / "run.safetensors", small()
    fit(small(1), batch(PAIR), epochs=1, checkpoint=path, **PLAIN)
    model.decoders["label"] = nn.Sequential(*model.decoders["label"], nn.Linear(*[kinds.size("label")] * 2))
    start = state(model)
    with pytest.raises(BadCheckpoint, match=r"belongs to another model: its decoders.label.*missing, this one's \[\d+"):
        fit(model, batch(PAIR), epochs=1, checkpoint=path, **PLAIN)
    assert same(start, state(model))


@pytest.mark.parametrize("key", ["identity", "groups", "epoch", "history"])
def test_a_checkpoint_that_lacks_a_part_is_broken(tmp_path, key):
    path = tmp_path / "run.safetensors"
    fit(small(), batch(PAIR), epochs=1, checkpoint=path, **PLAIN)
    with safe_open(path, "pt") as f:
        header, tensors = json.loads(f.metadata()["run"]), {k: f.get_tensor(k) for k in f.keys()}
    header.pop(key)
    save_file(tensors, path, {"run": json.dumps(header)})
    with pytest.raises(BadCheckpoint, match=f"run.safetensors is broken.*{key}.*delete it"):
        fit(small(), batch(PAIR), epochs=1, checkpoint=path, **PLAIN)


def test_a_folder_in_the_place_of_a_checkpoint_is_refused(tmp_path):
    (tmp_path / "run.safetensors").mkdir()
    with pytest.raises(BadCheckpoint, match="run.safetensors is broken"):
        fit(small(), batch(PAIR), epochs=1, checkpoint=tmp_path / "run.safetensors", **PLAIN)


def test_optimisers_of_other_parameters_are_refused(tmp_path):
    path, model = tmp_path / "run.safetensors", small()
    fit(small(), batch(PAIR), epochs=1, checkpoint=path, **PLAIN)
    with pytest.raises(BadCheckpoint, match="its optimisers hold other parameters"):
        fit(model, batch(PAIR), epochs=2, checkpoint=path, optimizers={"model": torch.optim.Adam(model.decoders.parameters())}, **PLAIN)


@pytest.mark.parametrize("limited", [False, True])
def test_a_term_is_averaged_over_the_steps_that_have_it(tmp_path, limited):
    """Also when the run is stopped after every step and resumed."""

    def new_step():
        def step(model, batch, optimizers, generator, **more):
            k = int(model.now)
            wide = torch.tensor(1.0 if k else 2.0**24)  # a sum that float32 cannot hold
            return {"loss": torch.tensor(1.0 + k), "wide": wide} | ({"rare": torch.tensor(10.0 * k)} if k in (1, 2) else {})

        return step

    def schedule(model, epoch):
        model.now = round(epoch * 4)

    more = {"checkpoint": tmp_path / "run.safetensors", "max_seconds": 1e-9} if limited else {}
    history = None
    while history is None or not history.finished:
        history = fit(small(), batch(PAIR), epochs=1, step=new_step(), schedule=schedule, **PLAIN, **more)
    assert history.epochs == [{"loss": 2.5, "wide": (2**24 + 3) / 4, "rare": 15.0}]


def test_values_are_looked_at_once_unless_they_are_new(as_a_reader, monkeypatch):
    import mmvae_lite.checks as checks

    looks, look = [], checks._check_values
    monkeypatch.setattr(checks, "_check_values", lambda name, x, likelihood: (looks.append(name), look(name, x, likelihood)))
    model, data = small(), batch(PAIR)
    fit(model, data, epochs=2, **PLAIN)
    assert sorted(looks) == sorted(PAIR), "the whole data set, before the first step"
    model.loss({m: x[:5] for m, x in data.items()})
    assert len(looks) == 4, "outside of training each call"
    bad = {**data, "image": data["image"] * float("nan")}
    with pytest.raises(ValueError, match="'image': item 0 holds NaN"):
        fit(model, data, epochs=1, corrupt=lambda x, g: {**x, "image": x["image"] * float("nan")}, **PLAIN)
    with pytest.raises(ValueError, match="'image': item 0 holds NaN"):
        fit(model, data, epochs=1, pair=lambda x, g: bad, **PLAIN)
    with pytest.raises(ValueError, match="'image': item 0 holds NaN"):
        model.loss(bad)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"checkpoint_seconds": -1}, "checkpoint_seconds: found -1, wanted 0 or more"),
        ({"checkpoint_seconds": float("nan")}, "checkpoint_seconds: found nan"),
        ({"max_seconds": float("nan")}, "max_seconds: found nan, wanted more than 0"),
        ({"lr": float("inf")}, "lr: found inf"),
    ],
)
def test_bad_numbers_are_refused(change, sentence):
    with pytest.raises(ValueError, match=sentence):
        fit(small(), batch(PAIR), epochs=1, **PLAIN | change)


def test_a_full_disk_or_a_stop_while_saving_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    import mmvae_lite.checkpoint as checkpoint

    path = tmp_path / "run.safetensors"
    fit(small(), batch(PAIR), epochs=1, checkpoint=path, **PLAIN)
    before = path.read_bytes()

    def stopped(tensors, filename, metadata):
        Path(filename).write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "save_file", stopped)
    with pytest.raises(KeyboardInterrupt):
        fit(small(), batch(PAIR), epochs=2, checkpoint=path, **PLAIN)
    assert [p.name for p in tmp_path.iterdir()] == ["run.safetensors"] and path.read_bytes() == before


def test_the_step_of_every_model_of_several_groups_resumes(tmp_path):
    """DMVAE-L without labels in some steps has other terms in them; killed between any two steps it ends alike."""
    path = tmp_path / "run.safetensors"
    straight = trained("dmvae_l", epochs=1)
    for start in range(4):
        resumed = trained("dmvae_l", start=start, epochs=1, checkpoint=path, **({"max_seconds": 1e-9} if start < 3 else {})) if start else None
        if start == 0:
            trained("dmvae_l", epochs=1, checkpoint=path, max_seconds=1e-9)
    assert same(straight, resumed)


def test_a_signal_after_the_last_step_is_not_lost(tmp_path, monkeypatch):
    import mmvae_lite.checkpoint as checkpoint

    path, save = tmp_path / "run.safetensors", checkpoint.save_file

    def press_and_save(*args):
        os.kill(os.getpid(), signal.SIGINT)
        save(*args)

    monkeypatch.setattr(checkpoint, "save_file", press_and_save)
    with pytest.raises(KeyboardInterrupt):
        fit(small(), batch(PAIR), epochs=1, checkpoint=path, **PLAIN)
    monkeypatch.setattr(checkpoint, "save_file", save)
    assert fit(small(), batch(PAIR), epochs=1, checkpoint=path, max_seconds=1e-9, **PLAIN).finished
