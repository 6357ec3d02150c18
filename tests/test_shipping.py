"""Models that ship: what was trained comes back without data, with an exhibit of held-out items and never the items."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mmvae_lite.distributions import Concrete
from mmvae_lite.experiments import EXPERIMENTS, find
from mmvae_lite.experiments.running import Run, reproduce, train
from mmvae_lite.experiments.shipping import EXHIBIT_BYTES, blank, held_out, load_exhibit, load_pretrained, ship, shipped
from mmvae_lite.pretrained import BadWeights, cards, load_tensors

#: A discrete latent; private latents and a joint encoder; a mixture; noise on the inputs; a joint encoder alone; a CVAE.
KINDS = ("dmvae_l-mnist-1", "pvae-speech", "mmvae-street", "dmvae_d-noisy-3", "jmvae_zero-e", "cvae-digit")


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    monkeypatch.setenv("MMVAE_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("MMVAE_RESULTS", str(tmp_path / "results"))
    monkeypatch.delenv("MMVAE_DATA", raising=False)


def small(name, monkeypatch, **options):
    """A finished run of two steps, measured by one number."""
    experiment = find(name, **options)

    def data(profile, seed):
        found = experiment.data(profile, seed)
        return replace(found, train=found.train.first(2 * experiment.training(profile, found, seed).batch_size))

    run = Run(replace(experiment, data=data, measure=lambda *_: {"accuracy": {"value": 0.5, "n": 10}}, metrics=("accuracy",)), "smoke")
    reproduce(run, "cpu", progress=False)
    return run


@pytest.mark.parametrize("name", KINDS)
def test_a_model_comes_back_without_its_data(name, tmp_path, monkeypatch):
    if name == "cvae-digit":
        from mmvae_lite.data import image_label

        experiment = EXPERIMENTS[name]
        stand_in = replace(experiment, data=lambda profile, seed: image_label("stand-in"), maker=None)
        monkeypatch.setitem(EXPERIMENTS, name, stand_in)
    run = small(name, monkeypatch)
    ship(run, folder=tmp_path / "shipped", limit=10**9)
    trained = train(run, "cpu", progress=False)
    monkeypatch.setitem(EXPERIMENTS, name, replace(EXPERIMENTS[name], data=lambda *_: pytest.fail("the data were read")))
    found = load_pretrained(name, tmp_path / "shipped")
    wanted = {k: x.half().to(x.dtype) if x.is_floating_point() else x for k, x in trained.model.state_dict().items()}
    assert found.model.state_dict().keys() == wanted.keys()
    assert all(torch.equal(x, wanted[k]) for k, x in found.model.state_dict().items())
    assert not found.model.training and not any(p.requires_grad for p in found.model.parameters())
    assert found.card["metrics"]["accuracy"] == {"value": 0.5, "n": 10} and found.card["stand_in"] == trained.data.stand_in
    assert shipped(tmp_path / "shipped") == (name,)

    exhibit, part = found.exhibit, trained.data.test
    rows = held_out(part)
    assert len(exhibit) == len(rows) and (exhibit.classes is None) == (part.classes is None)
    seen = part.take(rows)
    settings = run.experiment.training("smoke", trained.data, 0)
    if settings.corrupt:
        seen = settings.corrupt(seen, torch.Generator().manual_seed(0))
    assert exhibit.given
    for given in exhibit.given:
        exact = found.model.posterior({m: seen[m] for m in given})
        kept = exhibit.posterior(*given)
        assert kept.keys() == exact.keys()
        for latent, q in exact.items():
            q = q.experts[0] if hasattr(q, "experts") else q
            assert type(kept[latent]) is type(q)
            if isinstance(q, Concrete):
                torch.testing.assert_close(kept[latent].probs, q.probs, atol=2e-3, rtol=2e-3)
                assert kept[latent].temperature == q.temperature
            else:
                torch.testing.assert_close(kept[latent].mean, q.mean, atol=2e-3, rtol=2e-3)
                torch.testing.assert_close(kept[latent].std, q.std, atol=2e-3, rtol=2e-3)
        assert found.model.decode({**exhibit.latents(*given), **({"label": seen["label"]} if name == "cvae-digit" else {})})
    assert exhibit.reconstructions
    for m, x in exhibit.reconstructions.items():
        assert len(x) >= 10 and x.shape[1:] == seen[m].shape[1:]
        assert not torch.equal(x, seen[m][: len(x)])
    assert exhibit.card["bytes"] <= EXHIBIT_BYTES
    assert all(p.name.startswith(("model-", "exhibit-")) for p in (tmp_path / "shipped").iterdir())


def test_the_reconstructions_are_those_of_the_shipped_weights(tmp_path, monkeypatch):
    run = small("mvae-mnist-10", monkeypatch)
    ship(run, folder=tmp_path, limit=10**9)
    found = load_pretrained("mvae-mnist-10", tmp_path)
    decoded = found.model.decode(found.exhibit.latents("image", "label"))
    images = found.exhibit.reconstructions["image"]
    torch.testing.assert_close(images, decoded["image"][: len(images)], atol=5e-3, rtol=0)
    assert found.exhibit.posterior().keys() == {"shared"}
    with pytest.raises(KeyError, match="unknown set of modalities 'speech', known: 'image', 'label', 'image.label'"):
        found.exhibit.posterior("speech")


def test_held_out_items_are_evenly_taken_and_the_classes_take_turns():
    part = EXPERIMENTS["mvae-mnist-10"].data("lite", 0).test
    rows = held_out(part, 5)
    assert len(rows) == len(set(rows.tolist())) == 50
    assert part.classes[rows].reshape(5, 10).equal(torch.arange(10).expand(5, 10))
    assert len(held_out(part, 10**6)) == len(part)
    assert len(held_out(replace(part, classes=None), 5)) == 50


def test_networks_that_do_not_ship_say_so(tmp_path, monkeypatch):
    run = small("pvae-speech", monkeypatch)
    ship(run, ["decoders", "encoders"], folder=tmp_path)
    found = load_pretrained("pvae-speech", tmp_path)
    speech = torch.rand(2, 100, 80)
    assert found.model.posterior({"speech": speech})["shared"].mean.shape == (2, 32)
    with pytest.raises(RuntimeError, match="its network 'joint_encoder' does not ship, train it yourself: mmvae train pvae-speech"):
        found.model.posterior({"speech": speech, "image": torch.rand(2, 1, 28, 28)})
    assert not any(k.startswith("joint_encoder") for k in load_tensors("model-pvae-speech", tmp_path)[0])
    assert found.exhibit.posterior("speech", "image")["private/speech"].mean.shape[1] == 32  # the exhibit has what the page cannot infer
    assert set(found.decoders()) == {"speech", "image"}
    ship(run, folder=tmp_path, limit=0)
    assert load_pretrained("pvae-speech", tmp_path).card["networks"] == ["decoders"]
    assert load_pretrained("pvae-speech", tmp_path).model.decode(found.exhibit.latents())["speech"].shape[1:] == (100, 80)


def test_an_option_of_the_run_is_an_option_of_the_model(tmp_path, monkeypatch):
    run = small("pvae-speech", monkeypatch, units=8, updates=10)
    ship(run, folder=tmp_path)
    found = load_pretrained("pvae-speech", tmp_path)
    assert found.card["options"] == {"units": 8, "updates": 10}
    assert found.model.state_dict().keys() and max(x.shape[-1] for x in found.model.decoders["speech"].state_dict().values()) < 100


def test_what_is_not_there_is_said_in_one_sentence(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="^pvae-speech: no weights of it ship with this version, train it yourself: mmvae train pvae-speech --profile lite$"):
        load_pretrained("pvae-speech", tmp_path)
    with pytest.raises(KeyError, match="did you mean 'pvae-speech'"):
        load_pretrained("pvae-speach", tmp_path)
    run = Run(find("mvae-mnist-10"), "smoke")
    with pytest.raises(ValueError, match="no checkpoint is found at .*; run mmvae reproduce mvae-mnist-10 --profile smoke --seed 0"):
        ship(run, folder=tmp_path)
    with pytest.raises(ValueError, match="trains no model"):
        ship(Run(find("classifiers-mnist-10"), "smoke"), folder=tmp_path)
    done = small("mvae-mnist-10", monkeypatch)
    with pytest.raises(KeyError, match="unknown network of mvae-mnist-10 'decoder', known: .*did you mean 'decoders'"):
        ship(done, ["decoder"], folder=tmp_path)
    with pytest.raises(ValueError, match="networks are encoders, wanted its decoders among them"):
        ship(done, ["encoders"], folder=tmp_path)
    for path in Path(os.environ["MMVAE_RESULTS"]).rglob("*.json"):
        path.unlink()
    with pytest.raises(ValueError, match="no result file is found"):
        ship(done, folder=tmp_path)
    assert not [p for p in tmp_path.iterdir() if p.is_file()]


def test_broken_files_are_refused(tmp_path, monkeypatch):
    ship(small("mvae-mnist-10", monkeypatch), folder=tmp_path)
    for kind, load in (("model", load_pretrained), ("exhibit", load_exhibit)):
        path = tmp_path / f"{kind}-mvae-mnist-10.safetensors"
        held = path.read_bytes()
        path.write_bytes(held[:-1])
        with pytest.raises(BadWeights, match="has SHA-256"):
            load("mvae-mnist-10", tmp_path)
        path.write_bytes(held)
    card = json.loads((tmp_path / "model-mvae-mnist-10.json").read_text())
    (tmp_path / "model-mvae-mnist-10.json").write_text(json.dumps(card | {"experiment": "pvae-speech"}))
    with pytest.raises((BadWeights, KeyError)):
        load_pretrained("mvae-mnist-10", tmp_path)


def test_a_blank_set_takes_no_memory():
    about = {"items": 10**6, "shapes": {"street": [3, 32, 32], "caption": [32]}, "words": {"caption": 1590}}
    part = blank(about).train
    assert len(part) == 10**6 and sum(x.untyped_storage().nbytes() for x in part.batch.values()) < 100
    assert part.take(slice(0, 2))["caption"].shape == (2, 32, 1590)
    birds = EXPERIMENTS["mmvae-birds"].model("lite", blank({"items": 100, "shapes": {"image": [3, 64, 64], "caption": [32]}, "words": {"caption": 50}}))
    assert birds.event_shapes == {"image": (3, 64, 64), "caption": (32, 50)}


def test_the_tool_ships_what_a_command_trained(tmp_path):
    words = ["mvae-mnist-10", "--profile", "smoke"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    for command in (["-m", "mmvae_lite", "reproduce", *words], ["tools/ship.py", *words, "--folder", str(tmp_path / "shipped")]):
        done = subprocess.run([sys.executable, *command], capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr
    assert "held-out items" in done.stdout
    assert load_pretrained("mvae-mnist-10", tmp_path / "shipped").card["profile"] == "smoke"
    done = subprocess.run([sys.executable, "tools/ship.py", "mvae-mnist-10", "--seed", "7"], capture_output=True, text=True, env=environment)
    assert done.returncode == 1 and done.stderr.startswith("mvae-mnist-10 (lite, seed 7): no checkpoint is found") and done.stderr.count("\n") == 1


def test_what_ships_loads_and_is_small():
    """Every model that ships decodes its exhibit; an exhibit takes 300 kB at most, everything together 25 MB."""
    for name in shipped():
        found = load_pretrained(name)
        assert found.exhibit.card["bytes"] <= EXHIBIT_BYTES and found.exhibit.card["of"] == f"model-{name}"
        assert found.exhibit.card["trained_with"] == found.card["trained_with"]
        for m, x in found.model.decode(found.exhibit.latents()).items() if not hasattr(found.model, "label") else ():
            assert bool(torch.isfinite(x).all()), m
    assert sum(card["bytes"] for card in cards().values()) <= 25_000_000
    assert {n.removeprefix("exhibit-") for n in cards() if n.startswith("exhibit-")} == set(shipped())
