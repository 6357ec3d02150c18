"""Two processes under accelerate's launcher end where one does, for every model, and stop in one sentence where they cannot."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from mmvae_lite import processes
from mmvae_lite.distributions import Concrete, Normal
from mmvae_lite.parallel import by_items, networks_run
from mmvae_lite.processes import Shares
from tests.parallel_cases import CASES, trained

ROOT = Path(__file__).resolve().parent.parent


def relative(one, two):
    """The largest distance of two tensors of the same name, relative to their length."""
    return max(float((one[k] - two[k]).double().norm() / one[k].double().norm().clamp_min(1e-9)) for k in one)


@pytest.fixture(scope="module")
def launched(tmp_path_factory):
    pytest.importorskip("accelerate")
    folder = tmp_path_factory.mktemp("two")
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--main_process_port", "0"]
    quiet = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([*launch, "-m", "tests.parallel_cases", str(folder)], cwd=ROOT, env=quiet, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-4000:]
    return folder, done.stdout


@pytest.mark.parametrize("name", CASES)
def test_two_processes_end_where_one_does(launched, name):
    one, (first, second) = trained(name), (load_file(launched[0] / f"{name}-{rank}.safetensors") for rank in (0, 1))
    assert all(torch.equal(first[k], second[k]) for k in first)
    assert relative(one, first) < 1e-5
    assert relative(trained(name, start=1), first) > 1e-3, "another start ends elsewhere"


def test_the_first_process_alone_prints_and_saves_and_one_process_can_go_on(launched):
    folder, out = launched
    assert out.count("epoch 1/3") == 2, "one bar, written after its step and at the end"
    assert not list(folder.glob("*.tmp"))
    resumed = trained("mvae", start=5, checkpoint=folder / "stopped.safetensors")
    assert relative(trained("mvae"), resumed) < 1e-5


def test_what_processes_cannot_share_is_refused_by_all(launched):
    notes = [json.loads((launched[0] / f"notes-{rank}.json").read_text()) for rank in (0, 1)]
    for note in notes:
        assert "Noisy draws random numbers in its forward pass" in note["draws"][0] and "train in one process" in note["draws"][0]
        assert "process 1 has items 21 and process 0 has 20" in note["differs"][0]
        assert "process 1 has data" in note["other data"][0]
        assert all(clean for _, clean in note.values()), "the networks are left as they were"


def test_accelerate_that_starts_one_process_for_several_is_noticed(monkeypatch):
    for name, value in {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500", "ACCELERATE_USE_CPU": "True"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match="started one.*--multi_gpu"):
        processes.joined(torch.device("cpu"))
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert processes.joined(torch.device("cpu")) == (0, 1)


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_shares_cover_the_items_once(count):
    for n in range(count, 12):
        bounds = Shares(count=count).bounds(n)
        sizes = [b - a for a, b in zip(bounds, bounds[1:])]
        assert bounds[0] == 0 and bounds[-1] == n and len(sizes) == count
        assert max(sizes) - min(sizes) <= 1


class Two(nn.Module):
    """An encoder with a dict of densities, inside which another one runs."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(3, 4)
        self.calls = []

    def forward(self, x, y):
        self.calls.append(len(x))
        h = self.inner(x) + y
        return {"a": Normal(h, 0.1 * h), "b": Concrete(h, 0.5)}


class Holder(nn.Module):
    def __init__(self, network):
        super().__init__()
        self.encoder = network


def test_pieces_give_the_same_values_and_gradients():
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(7, 3, generator=g), torch.randn(7, 4, generator=g)
    network = Two()
    ends = []
    for chunks in (1, 3, 50):
        network.zero_grad()
        network.calls.clear()
        with networks_run(Holder(network), torch.device("cpu"), chunks=chunks):
            found = network(x, y)
            z = torch.stack([found["a"].mean, found["b"].logits])  # [2, 7, 4]
            score = by_items(network.inner, lambda z, y: (network.inner(z[..., :3]) * y).sum(-1), z, y)
            (score.square().sum() + found["a"].logvar.sum()).backward()
        assert found["b"].temperature == 0.5 and score.shape == (2, 7)
        assert sum(network.calls) == 7 * (1 if chunks == 1 else 2), "each piece once more for the gradient"
        assert max(network.calls) == {1: 7, 3: 3, 50: 1}[chunks]
        ends.append([score.detach(), network.inner.weight.grad.clone()])
    for other in ends[1:]:
        assert all(torch.allclose(a, b, rtol=1e-5, atol=1e-5) for a, b in zip(ends[0], other))
    assert "forward" not in network.__dict__
