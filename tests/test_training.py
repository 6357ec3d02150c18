"""The training loop: it learns, it resumes to the bit, it fails early and in one sentence."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from mmvae_lite.data.parts import Part
from mmvae_lite.distributions import BernoulliLikelihood, CategoricalLikelihood
from mmvae_lite.models import MVAE, VAE
from mmvae_lite.networks import image_decoder, image_encoder, label_decoder, label_encoder, mlp
from mmvae_lite.training import BadCheckpoint, NonFiniteLoss, fit, gradient_step, kl_warmup, pick_device


def data(n=70):
    g = torch.Generator().manual_seed(5)
    classes = torch.randint(10, (n,), generator=g)
    shapes = torch.rand(10, 1, 28, 28, generator=g).round()
    return {"image": shapes[classes] * 0.9, "label": nn.functional.one_hot(classes, 10).float()}


def make_model(dropout=0.0, seed=0):
    torch.manual_seed(seed)
    encoder = image_encoder(4, (16, 16))
    encoder.trunk.append(nn.Dropout(dropout))
    return MVAE(
        {"image": encoder, "label": label_encoder(4, hidden=(8, 8))},
        {"image": image_decoder(4, (16, 16)), "label": label_decoder(4, hidden=(8, 8))},
        {"image": BernoulliLikelihood(), "label": CategoricalLikelihood()},
        4,
    )


def roll_labels(batch, generator):
    """A stand-in for re-pairing: another random partner for every image."""
    return {**batch, "label": batch["label"][torch.randperm(len(batch["label"]), generator=generator)]}


def add_noise(batch, generator):
    noise = 0.05 * torch.rand(batch["image"].shape, generator=generator)
    return {**batch, "image": (batch["image"] + noise).clamp(0, 1)}


def alternate(epoch_modules):
    return lambda epoch: epoch_modules if epoch % 2 else ()


def settings(model, **more):
    """Everything at once that a checkpoint must carry: two optimisers, re-pairing, noise, frozen parts, warm-up."""
    encoder, rest = list(model.encoders.parameters()), list(model.decoders.parameters())
    return {
        "epochs": 4,
        "batch_size": 16,
        "optimizers": {"encoders": torch.optim.Adam(encoder, lr=1e-3), "decoders": torch.optim.SGD(rest, lr=1e-3, momentum=0.9)},
        "pair": roll_labels,
        "corrupt": add_noise,
        "frozen": alternate([model.decoders]),
        "schedule": kl_warmup(2),
        "seed": 3,
        "device": "cpu",
        "progress": False,
    } | more


def state(model):
    return {k: v.clone() for k, v in model.state_dict().items()}


def same(one, two):
    return all(torch.equal(one[k], two[k]) for k in one)


def test_the_loss_falls_and_the_history_records_it():
    history = fit(make_model(), data(), epochs=15, batch_size=16, lr=1e-2, device="cpu", progress=False)
    assert len(history["loss"]) == 15
    assert history["loss"][-1] < 0.9 * history["loss"][0]
    assert history["image+label/kl"][-1] > 0 and history.seconds > 0
    with pytest.raises(KeyError, match="did you mean 'loss'"):
        history["los"]


def test_the_same_seed_gives_the_same_bits_and_another_does_not():
    ends = []
    for seed in (1, 1, 2):
        model = make_model(dropout=0.3)
        fit(model, data(), **settings(model, seed=seed))
        ends.append(state(model))
    assert same(ends[0], ends[1]) and not same(ends[0], ends[2])


def test_training_leaves_the_global_generator_alone():
    torch.manual_seed(11)
    before = torch.get_rng_state()
    model = make_model()
    torch.set_rng_state(before)
    fit(model, data(), epochs=1, batch_size=16, device="cpu", progress=False)
    assert torch.equal(torch.get_rng_state(), before)


class Stop(Exception):
    pass


@pytest.mark.parametrize("stop_after", [1, 3, 5, 8, 14])
def test_a_stopped_run_resumes_to_the_same_bits(tmp_path, stop_after):
    straight = make_model(dropout=0.3)
    history = fit(straight, data(), **settings(straight))

    interrupted, calls = make_model(dropout=0.3), 0
    options = settings(interrupted, checkpoint=tmp_path / "run.safetensors", checkpoint_seconds=0)
    warm_up = options["schedule"]

    def stopping(model, epoch):
        nonlocal calls
        calls += 1
        if calls > stop_after:
            raise Stop
        warm_up(model, epoch)

    with pytest.raises(Stop):
        fit(interrupted, data(), **(options | {"schedule": stopping}))
    resumed = make_model(dropout=0.3, seed=99)  # other initial weights: all must come from the checkpoint
    again = fit(resumed, data(), **settings(resumed, checkpoint=tmp_path / "run.safetensors"))
    assert same(state(straight), state(resumed))
    assert again.epochs == history.epochs


WORKER = """
import sys, torch
from tests.test_training import data, make_model, settings
from mmvae_lite.training import fit
model = make_model(dropout=0.3)
print("start", flush=True)
fit(model, data(), **settings(model, epochs=60, checkpoint=sys.argv[1], checkpoint_seconds=0.02))
print("end", flush=True)
"""


def test_a_killed_run_resumes_to_the_same_bits(tmp_path):
    straight = make_model(dropout=0.3)
    fit(straight, data(), **settings(straight, epochs=60))
    path = tmp_path / "run.safetensors"
    worker = subprocess.Popen([sys.executable, "-c", WORKER, str(path)], stdout=subprocess.PIPE, cwd=Path(__file__).parents[1])
    assert worker.stdout.readline() == b"start\n"
    while not path.exists() and worker.poll() is None:
        time.sleep(0.001)
    os.kill(worker.pid, signal.SIGKILL)
    assert worker.wait() == -signal.SIGKILL
    worker.stdout.close()
    resumed = make_model(dropout=0.3, seed=99)
    fit(resumed, data(), **settings(resumed, epochs=60, checkpoint=path))
    assert same(state(straight), state(resumed))


def test_ctrl_c_saves_the_run(tmp_path, capsys):
    model, path = make_model(), tmp_path / "run.safetensors"

    def interrupt(model, epoch):
        if epoch >= 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(model, data(), epochs=3, batch_size=16, device="cpu", progress=False, schedule=interrupt, checkpoint=path)
    assert "stopped in epoch 2 of 3" in capsys.readouterr().out
    assert path.exists()
    assert len(fit(model, data(), epochs=3, batch_size=16, device="cpu", progress=False, checkpoint=path).epochs) == 3


def test_a_finished_run_is_loaded_not_repeated(tmp_path):
    path, model = tmp_path / "run.safetensors", make_model()
    one = fit(model, data(), epochs=2, batch_size=16, device="cpu", progress=False, checkpoint=path)
    other = make_model(seed=5)
    two = fit(other, data(), epochs=2, batch_size=16, device="cpu", progress=False, checkpoint=path)
    assert same(state(model), state(other)) and one.epochs == two.epochs


def test_frozen_parts_do_not_move_and_thaw_again():
    model = make_model()
    start = state(model)
    fit(model, data(), epochs=1, batch_size=16, device="cpu", progress=False, frozen=lambda epoch: [model.decoders])
    end = state(model)
    moved = {k.split(".")[0] for k in start if not torch.equal(start[k], end[k])}
    assert moved == {"encoders"}
    assert all(p.requires_grad for p in model.parameters())


def test_each_optimiser_moves_its_own_part():
    model = make_model()
    start = state(model)
    fit(model, data(), epochs=1, device="cpu", progress=False, optimizers={"decoders": torch.optim.Adam(model.decoders.parameters())})
    moved = {k.split(".")[0] for k, v in state(model).items() if not torch.equal(start[k], v)}
    assert moved == {"decoders"}


def test_a_model_can_bring_its_own_optimisers_and_step():
    class Own(MVAE):
        def optimizers(self, lr):
            return {"decoders": torch.optim.SGD(self.decoders.parameters(), lr=lr)}

        @staticmethod
        def step(model, batch, optimizers, generator, **loss_args):
            counted.append(sorted(optimizers))
            return gradient_step(model, batch, optimizers, generator, **loss_args)

    counted, model = [], make_model()
    model.__class__ = Own
    start = state(model)
    fit(model, data(), epochs=1, batch_size=35, device="cpu", progress=False)
    assert counted == [["decoders"]] * 2
    assert {k.split(".")[0] for k, v in state(model).items() if not torch.equal(start[k], v)} == {"decoders"}


def test_pairing_is_fresh_every_epoch_and_noise_every_step():
    seen = {"pair": [], "noise": []}

    def pair(batch, g):
        seen["pair"].append(torch.randint(2**31, (), generator=g).item())
        return batch

    def corrupt(batch, g):
        seen["noise"].append(torch.randint(2**31, (), generator=g).item())
        return batch

    fit(make_model(), data(), epochs=3, batch_size=16, device="cpu", progress=False, pair=pair, corrupt=corrupt)
    assert len(set(seen["pair"])) == 3 and len(set(seen["noise"])) == 15


@pytest.mark.parametrize(("items", "batch_size", "sizes"), [(70, 16, [16, 16, 16, 16, 6]), (65, 16, [16, 16, 16, 17]), (3, 1, [1, 1, 1]), (1, 16, [1]), (32, 16, [16, 16])])
def test_every_item_is_seen_once_and_none_is_left_alone(items, batch_size, sizes):
    seen = []

    def corrupt(batch, g):
        seen.append(batch["image"][:, 0, 0, 0])
        return batch

    numbered = {"image": torch.linspace(0, 1, items).view(-1, 1, 1, 1).expand(-1, 1, 28, 28)}
    fit(make_model(), numbered, epochs=1, batch_size=batch_size, device="cpu", progress=False, corrupt=corrupt)
    assert [len(part) for part in seen] == sizes
    assert torch.equal(torch.cat(seen).sort().values, torch.linspace(0, 1, items))


def test_the_clean_batch_stays_the_target():
    targets = []

    class Spy(MVAE):
        def loss(self, batch, target=None, observed=None, generator=None):
            targets.append((batch["image"], target["image"]))
            return super().loss(batch, target, observed, generator)

    model = make_model()
    model.__class__ = Spy
    clean = data()
    fit(model, clean, epochs=1, batch_size=70, device="cpu", progress=False, corrupt=add_noise)
    ((noisy, target),) = targets
    assert not torch.equal(noisy, target)
    assert target.max().item() == pytest.approx(0.9)


def test_masks_reach_the_model():
    mask = {"label": torch.arange(70) < 7}
    history = fit(make_model(), data(), epochs=1, batch_size=70, device="cpu", progress=False, observed={"image": torch.ones(70, dtype=torch.bool), **mask})
    alone = fit(make_model(), data(), epochs=1, batch_size=70, device="cpu", progress=False)
    assert history["label/kl"] != alone["label/kl"] and history["loss"] != alone["loss"]


def test_a_vae_trains_too():
    torch.manual_seed(0)
    model = VAE(image_encoder(2, (16, 16)), image_decoder(2, (16, 16)), BernoulliLikelihood(), 2)
    history = fit(model, {"image": data()["image"]}, epochs=10, batch_size=16, lr=3e-3, device="cpu", progress=False)
    assert history["loss"][-1] < history["loss"][0]


def test_the_warm_up_is_linear():
    model, betas = make_model(), []
    for epoch in (0.0, 0.5, 1.0, 2.0, 5.0):
        kl_warmup(2)(model, epoch)
        betas.append(model.beta)
    assert betas == [0, 0.25, 0.5, 1, 1]
    kl_warmup(2, beta=4.0)(model, 1.0)
    assert model.beta == 2.0
    with pytest.raises(ValueError, match="Linear has no weight beta"):
        kl_warmup(2)(nn.Linear(1, 1), 0.0)


def test_progress_says_where_the_run_is(capsys):
    fit(make_model(), data(), epochs=2, batch_size=16, device="cpu")
    out = capsys.readouterr().out
    assert "epoch 2/2" in out and "took" in out and out.endswith("\n")
    fit(make_model(), data(), epochs=1, batch_size=16, device="cpu", progress=False)
    assert capsys.readouterr().out == ""


def test_a_loss_that_explodes_names_its_term_and_keeps_the_checkpoint(tmp_path):
    model, path = make_model(), tmp_path / "run.safetensors"
    fit(model, data(), epochs=1, batch_size=16, device="cpu", progress=False, checkpoint=path)
    before = path.read_bytes()

    def poison(model, epoch):
        with torch.no_grad():
            model.decoders["label"][-1].bias.fill_(float("inf"))

    with pytest.raises(NonFiniteLoss, match="epoch 2, step 1: image\\+label/recon/label.* became.*lower lr"):
        fit(model, data(), epochs=2, batch_size=16, device="cpu", progress=False, checkpoint=path, checkpoint_seconds=0, schedule=poison)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("change", "error", "sentence"),
    [
        ({"epochs": 0}, ValueError, "epochs: found 0"),
        ({"batch_size": 2.5}, ValueError, "batch_size: found 2.5"),
        ({"lr": -1.0}, ValueError, "lr: found -1.0"),
        ({"device": "cuda"}, ValueError, "torch finds no GPU; use device='cpu'"),
        ({"data": {"image": torch.zeros(3, 1, 28, 28)[:0]}}, ValueError, "found 0 items"),
        ({"data": {"image": torch.full((3, 1, 28, 28), 255.0)}}, ValueError, "wanted 0 to 1"),
        ({"observed": {"label": torch.ones(3)}}, ValueError, r"observed\['label'\]"),
    ],
)
def test_bad_settings_fail_before_the_first_step(as_a_reader, change, error, sentence):
    if change.get("device") == "cuda" and torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    options = {"data": data(), "epochs": 1, "device": "cpu", "progress": False} | change
    with pytest.raises(error, match=sentence):
        fit(make_model(), options.pop("data"), **options)


def test_broken_and_foreign_checkpoints_are_refused(tmp_path):
    path, model = tmp_path / "run.safetensors", make_model()

    def run(batch_size=16, model=model, **more):
        return fit(model, data(), epochs=1, batch_size=batch_size, device="cpu", progress=False, checkpoint=path, **more)

    path.write_bytes(b"not a checkpoint")
    with pytest.raises(BadCheckpoint, match="run.safetensors is broken.*delete it"):
        run()
    save_file({"x": torch.zeros(1)}, path)
    with pytest.raises(BadCheckpoint, match="found format None"):
        run()
    path.unlink()
    run()
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(BadCheckpoint, match="is broken"):
        run()
    path.unlink()
    run()
    with pytest.raises(BadCheckpoint, match="its batch_size is 16, this run has 8"):
        run(batch_size=8)
    other = make_model()
    other.decoders["label"] = mlp([4, 6, 10], nn.SiLU)
    with pytest.raises(BadCheckpoint, match="belongs to another model"):
        run(model=other)
    with pytest.raises(BadCheckpoint, match=r"its optimisers are \['model'\]"):
        run(optimizers={"mine": torch.optim.Adam(model.parameters())})


def test_nothing_half_written_remains_when_the_disk_is_full(tmp_path, monkeypatch):
    import mmvae_lite.checkpoint as training

    path = tmp_path / "run.safetensors"
    fit(make_model(), data(), epochs=1, batch_size=16, device="cpu", progress=False, checkpoint=path)
    before = load_file(path)

    def full(tensors, filename, metadata):
        Path(filename).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(training, "save_file", full)
    with pytest.raises(OSError, match="could not be written.*free some disk space"):
        fit(make_model(), data(), epochs=2, batch_size=16, device="cpu", progress=False, checkpoint=path)
    assert [p.name for p in tmp_path.iterdir()] == ["run.safetensors"]
    assert same(before, load_file(path))


def test_a_checkpoint_folder_that_cannot_be_is_refused_at_once(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="its folder cannot be written"):
        fit(make_model(), data(), epochs=1, device="cpu", progress=False, checkpoint=tmp_path / "file" / "run.safetensors")


def test_auto_device_is_one_that_exists():
    assert pick_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


def test_processes_of_a_launcher_take_a_gpu_each(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    assert pick_device("auto") == pick_device("cuda") == torch.device("cuda")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert pick_device("auto") == torch.device("cuda:1") and pick_device("cuda:0") == torch.device("cuda:0")
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    assert pick_device("auto") == torch.device("cpu")


def levels_and_labels(items=70, images=20):
    """Images as 256 levels, twenty of them in seventy tuples, and the same tuples written out."""
    g = torch.Generator().manual_seed(6)
    image = torch.randint(256, (images, 1, 28, 28), generator=g, dtype=torch.uint8)
    label = nn.functional.one_hot(torch.arange(10), 10).float()
    index = {"image": torch.randint(images, (items,), generator=g), "label": torch.randint(10, (items,), generator=g)}
    part = Part({"image": image, "label": label}, index=index)
    return part, {"image": image[index["image"]].float() / 255, "label": label[index["label"]]}


def test_tuples_of_rows_train_as_the_same_tuples_written_out():
    part, written_out = levels_and_labels()
    ends = []
    for held in (part, written_out):
        model = make_model()
        history = fit(model, held, epochs=2, batch_size=16, device="cpu", progress=False)
        ends.append((state(model), history.epochs))
    assert same(ends[0][0], ends[1][0]) and ends[0][1] == ends[1][1]


class Largest(TorchDispatchMode):
    """The size in bytes of the largest tensor that was made; one on the device meta takes no memory."""

    def __init__(self):
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for x in made if isinstance(made, (list, tuple)) else [made]:
            if isinstance(x, torch.Tensor) and x.device.type != "meta":
                self.bytes = max(self.bytes, x.untyped_storage().nbytes())
        return made


def test_tuples_are_never_written_out():
    part, _ = levels_and_labels()
    tuples = 100_000  # written out, the images alone would take eighty megabytes as levels and four times as much as floats
    part = replace(part, index={m: rows.repeat(tuples // 70 + 1)[:tuples] for m, rows in part.index.items()})

    class Enough(Exception):
        pass

    def stop(model, epoch):
        if epoch > 0:
            raise Enough

    with pytest.raises(Enough), Largest() as largest:
        fit(make_model(), part, epochs=1, batch_size=16, device="cpu", progress=False, schedule=stop)
    assert 8 * tuples <= largest.bytes <= 4 * 8 * tuples, "some copies of the numbers of the rows, and no more"


def test_new_tuples_every_epoch_are_rows():
    part, _ = levels_and_labels()
    given, seen = [], []

    def pair(held, g):
        given.append(held)
        return {"image": torch.arange(70) % 20, "label": torch.randint(10, (70,), generator=g)}

    def corrupt(batch, g):
        seen.append(batch["label"].sum(0))
        return batch

    fit(make_model(), part, epochs=2, batch_size=70, device="cpu", progress=False, pair=pair, corrupt=corrupt)
    assert given == [part.index, part.index] and not torch.equal(*seen)
    with pytest.raises(ValueError, match="pair: found 3 tuples in epoch 1, wanted 70"):
        fit(make_model(), part, epochs=1, device="cpu", progress=False, pair=lambda index, g: dict.fromkeys(index, torch.arange(3)))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"label": torch.eye(10)[:, :9]}, r"'label': found shape \[70, 9\], wanted \[batch, 10\]"),
        ({"label": torch.eye(10).byte()}, "'label'.*one-hot floats"),
        ({"label": torch.full((10, 10), float("nan"))}, "'label': item 0 holds NaN"),
        ({"image": torch.full((20, 1, 28, 28), 3.0)}, "'image': found values from 3 to 3, wanted 0 to 1"),
    ],
)
def test_rows_are_checked_before_the_first_step(as_a_reader, change, sentence):
    part, _ = levels_and_labels()
    with pytest.raises((ValueError, TypeError), match=sentence):
        fit(make_model(), Part({**part.batch, **change}, index=part.index), epochs=1, device="cpu", progress=False)
