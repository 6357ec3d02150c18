"""Runs that stop early, and the checkpoints they leave: time limits, Ctrl-C, other versions, other settings."""

import json
import os
import signal

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from mmvae_lite.training import BadCheckpoint, fit
from tests.test_training import data, make_model, same, settings, state


def rewrite(path, **changes):
    """The same checkpoint with another header."""
    with safe_open(path, "pt") as f:
        header, tensors = json.loads(f.metadata()["run"]), {k: f.get_tensor(k) for k in f.keys()}
    save_file(tensors, path, {"run": json.dumps(header | changes)})


def test_runs_of_limited_time_add_up_to_the_whole_run(tmp_path):
    straight, path = make_model(dropout=0.3), tmp_path / "run.safetensors"
    whole = fit(straight, data(), **settings(straight))
    calls, history = 0, None
    while history is None or not history.finished:
        model = make_model(dropout=0.3, seed=calls)
        history = fit(model, data(), **settings(model, checkpoint=path, max_seconds=1e-9))  # a step each
        calls += 1
    assert whole.finished and calls == 20
    assert same(state(straight), state(model)) and history.epochs == whole.epochs
    with pytest.raises(ValueError, match="max_seconds: found 0"):
        fit(model, data(), **settings(model, max_seconds=0))


def test_ctrl_c_waits_for_the_step_so_that_nothing_is_done_twice(tmp_path):
    straight, path = make_model(dropout=0.3), tmp_path / "run.safetensors"
    fit(straight, data(), **settings(straight))
    model, steps = make_model(dropout=0.3), 0

    def press(batch, g):
        nonlocal steps
        steps += 1
        if steps == 7:
            os.kill(os.getpid(), signal.SIGINT)
        return settings(model)["corrupt"](batch, g)

    with pytest.raises(KeyboardInterrupt):
        fit(model, data(), **settings(model, checkpoint=path, corrupt=press))
    assert steps == 7 and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    resumed = make_model(dropout=0.3, seed=9)
    fit(resumed, data(), **settings(resumed, checkpoint=path))
    assert same(state(straight), state(resumed))


def test_checkpoints_of_other_versions_and_settings(tmp_path):
    path, model = tmp_path / "run.safetensors", make_model()
    options = {"epochs": 1, "batch_size": 35, "device": "cpu", "progress": False, "checkpoint": path}
    fit(model, data(), **options)
    with pytest.raises(BadCheckpoint, match="its precision is 'float32', this run has 'bfloat16'"):
        fit(model, data(), **options, precision="bfloat16")
    rewrite(path, format="mmvae_lite checkpoint 4")
    with pytest.raises(BadCheckpoint, match="a newer mmvae_lite wrote it, in format 4.*update it"):
        fit(model, data(), **options)
    with safe_open(path, "pt") as f:
        identity = json.loads(f.metadata()["run"])["identity"]
    identity.pop("precision")
    rewrite(path, format="mmvae_lite checkpoint 1", identity=identity)
    other = make_model(seed=3)
    assert fit(other, data(), **options).finished and same(state(model), state(other))


def test_a_run_from_another_device_goes_on_with_new_noise(tmp_path):
    path, model, other = tmp_path / "run.safetensors", make_model(), make_model(seed=3)
    options = {"batch_size": 35, "device": "cpu", "progress": False, "checkpoint": path}
    fit(model, data(), epochs=1, **options)
    rewrite(path, device="cuda")
    fit(other, data(), epochs=1, **options)
    assert same(state(model), state(other)), "nothing was left to do"
    ends = [state(model)]
    for epochs in (2, 2):
        fit(make_model(), data(), epochs=epochs, **options | {"checkpoint": None})
        rewrite(path, device="cuda")
        again = make_model()
        fit(again, data(), epochs=2, **options)
        ends.append(state(again))
        fit(model := make_model(), data(), epochs=1, **options | {"checkpoint": tmp_path / f"{len(ends)}.safetensors"})
        path = tmp_path / f"{len(ends)}.safetensors"
        options["checkpoint"] = path
    assert same(ends[1], ends[2]), "the same new noise each time"


def test_a_lower_rate_holds_when_a_run_is_resumed(tmp_path):
    path, model = tmp_path / "run.safetensors", make_model()
    options = {"batch_size": 35, "device": "cpu", "progress": False, "checkpoint": path}
    fit(model, data(), epochs=1, lr=1e-2, **options)
    before = state(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-30)
    with pytest.raises(BadCheckpoint):
        fit(model, data(), epochs=2, optimizers={"mine": optimizer}, **options)
    fit(model, data(), epochs=2, lr=1e-30, **options)
    assert same(before, state(model))
