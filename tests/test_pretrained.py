"""Shipped weights: what comes back is what was saved, and whatever is not that is refused."""

import json
import subprocess
import sys

import pytest
import torch
from torch import nn

from mmvae_lite import pretrained
from mmvae_lite.pretrained import BadWeights, cards, load_network, load_tensors, load_weights, save, save_tensors

CARD = {"what": "a small network", "network": "network()", "data": "none", "items": 0, "seed": 3, "minutes": 0.1, "device": "cpu"}


def network(width=4, seed=3):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(3, width), nn.BatchNorm1d(width))


def test_comes_back_in_half_precision(tmp_path):
    net = network()
    net(torch.ones(5, 3))  # so that the running statistics are no round numbers
    path = save("net", net, CARD | {"metrics": {"accuracy": {"value": 0.5, "n": 10}}}, tmp_path)
    other = network(seed=4).double()
    card = load_weights("net", other, tmp_path)
    for key, x in net.state_dict().items():
        wanted = x.half().double() if x.is_floating_point() else x
        assert torch.equal(other.state_dict()[key], wanted), key
        assert other.state_dict()[key].dtype == (torch.float64 if x.is_floating_point() else x.dtype)
    assert card == json.loads(path.read_text()) == cards(tmp_path)["net"]
    assert card["values"] == 3 * 4 + 4 + 4 * 4 + 1 and card["licence"] == "CC0-1.0"
    assert card["bytes"] == (tmp_path / "net.safetensors").stat().st_size
    assert sorted(p.name for p in tmp_path.iterdir()) == ["net.json", "net.safetensors"]


def test_a_network_is_built_and_loaded_without_a_draw(tmp_path):
    save("net", network(), CARD, tmp_path)
    before = torch.get_rng_state()
    found, card = load_network("net", lambda: nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)), tmp_path)
    assert torch.equal(before, torch.get_rng_state()) and card["name"] == "net"
    assert not found[1].training and not any(p.requires_grad for p in found.parameters())
    assert torch.equal(found[0].weight, network()[0].weight.half().float()) and found[0].weight.dtype == torch.float32
    with pytest.raises(BadWeights, match="build it as the card says"):
        load_network("net", lambda: nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5)), tmp_path)


def test_same_bytes_in_another_process(tmp_path):
    save("net", network(), CARD, tmp_path / "here")
    program = (
        "import sys; from tests.test_pretrained import *\n"
        "save('net', network(), CARD, sys.argv[1])"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path / "there")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "here/net.safetensors").read_bytes() == (tmp_path / "there/net.safetensors").read_bytes()


def test_any_tensors_can_be_kept(tmp_path):
    held = {"mean": torch.randn(4, 2, dtype=torch.float64), "images": torch.arange(12, dtype=torch.uint8).reshape(4, 3).T}
    save_tensors("exhibit", held, CARD, tmp_path)
    found, card = load_tensors("exhibit", tmp_path)
    assert torch.equal(found["mean"], held["mean"].half()) and torch.equal(found["images"], held["images"])
    assert card["values"] == 20


def damaged(kind, folder):
    save("net", network(), CARD, folder)
    save("other", network(seed=9), CARD, folder)
    weights, card = folder / "net.safetensors", folder / "net.json"
    if kind == "flipped":
        held = bytearray(weights.read_bytes())
        held[-1] ^= 1
        weights.write_bytes(held)
    elif kind == "truncated":
        weights.write_bytes(weights.read_bytes()[:-2])
    elif kind == "swapped":
        weights.write_bytes((folder / "other.safetensors").read_bytes())
    elif kind == "renamed":
        (folder / "other.safetensors").replace(weights)
        (folder / "other.json").replace(card)
    elif kind == "no weights":
        weights.unlink()
    elif kind == "no card":
        card.unlink()
    elif kind == "broken card":
        card.write_text(card.read_text()[:40])
    elif kind == "card of nothing":
        card.write_text("[]")
    elif kind == "pickle":
        import hashlib

        torch.save(network().state_dict(), weights)
        entry = json.loads(card.read_text())
        card.write_text(json.dumps(entry | {"sha256": hashlib.sha256(weights.read_bytes()).hexdigest()}))


@pytest.mark.parametrize(
    "kind, message",
    [
        ("flipped", "has SHA-256"),
        ("truncated", "has SHA-256"),
        ("swapped", "has SHA-256"),
        ("renamed", "is that of 'other'"),
        ("no weights", "net.safetensors is missing"),
        ("no card", "net.json is missing"),
        ("broken card", "net.json is broken"),
        ("card of nothing", "lacks what"),
        ("pickle", "no safetensors file"),
    ],
)
def test_refuses_what_is_not_what_the_card_says(tmp_path, kind, message):
    damaged(kind, tmp_path)
    net = network(seed=5)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    with pytest.raises(BadWeights, match=message) as caught:
        load_weights("net", net, tmp_path)
    assert "\n" not in str(caught.value)
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


@pytest.mark.parametrize("net, message", [(network(5), r"0.bias is \[4\], the network's is \[5\]"), (nn.Linear(3, 4), "0.bias is .* is missing")])
def test_refuses_another_network(tmp_path, net, message):
    save("net", network(), CARD, tmp_path)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    with pytest.raises(BadWeights, match=message + r".*network\(\)"):
        load_weights("net", net, tmp_path)
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


def test_refuses_an_unknown_name(tmp_path):
    save("net", network(), CARD, tmp_path)
    with pytest.raises(KeyError, match="'nets', known: 'net'; did you mean"):
        load_weights("nets", network(), tmp_path)


def test_what_cannot_be_kept_leaves_nothing(tmp_path):
    huge, lost = network(), network()
    huge[0].weight.data[0, 0] = 1e6
    lost[0].bias.data[0] = float("nan")
    for name, net, card, message in [
        ("net", huge, CARD, "0.weight holds .* too large"),
        ("net", lost, CARD, "0.bias holds .* not finite"),
        ("Net/..", network(), CARD, "small letters"),
        ("net", network(), {k: v for k, v in CARD.items() if k != "seed"}, "lacks seed"),
        ("net", network(), CARD | {"sha256": "0"}, "gives sha256"),
        ("net", network(), CARD | {"metrics": {"accuracy": 0.9}}, "'accuracy' is 0.9, wanted"),
        ("net", network(), CARD | {"metrics": {"accuracy": {"value": float("nan"), "n": 2}}}, "finite"),
    ]:
        with pytest.raises(ValueError, match=message):
            save(name, net, card, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_the_old_weights(tmp_path, monkeypatch):
    save("net", network(), CARD, tmp_path)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pretrained.os, "chmod", full)
    with pytest.raises(OSError, match="net.safetensors could not be written .No space left"):
        save("net", network(seed=8), CARD, tmp_path)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_everything_that_ships_is_whole_and_small():
    """Each file has the hash of its card; a classifier stays below 100 KB, any other network below 4 MB."""
    for name, card in cards().items():
        tensors, _ = load_tensors(name)
        assert sum(x.numel() for x in tensors.values()) == card["values"]
        assert card["bytes"] <= (100_000 if name.startswith("classifier-") else 4_000_000), name
        assert all(x.dtype == torch.float16 or not x.is_floating_point() for x in tensors.values())
        assert all(m["n"] > 0 for m in card.get("metrics", {}).values())
