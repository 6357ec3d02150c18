"""Sets made of digits: pairs share their class, partitions share nothing, and labels come by the batch or by the item."""

import os
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.io import savemat

from mmvae_lite.data import PAIRED, digits
from mmvae_lite.data.digit_sets import FRACTIONS, _side_by_side, add_noise, batch_size, image_label, noisy_digits, paired_batches, paired_items
from mmvae_lite.data.idx import write_idx
from mmvae_lite.data.labelled_images import MNIST, Split
from mmvae_lite.data.pairing import repair_each_epoch
from mmvae_lite.data.parts import Part
from mmvae_lite.data.svhn import SVHN
from mmvae_lite.distributions import BernoulliLikelihood, CategoricalLikelihood, NormalLikelihood
from mmvae_lite.models import DMVAE_L, MVAE
from mmvae_lite.networks import dense_decoder, dense_encoder, dmvae_l_networks
from mmvae_lite.training import fit
from tests.test_pairing import COUNTS, classes_of

REAL = os.environ.get("MMVAE_DATA")
NAMES = ("digits-street", "noisy-digits", "image-label")
SMALL = {"digits-street": {"times": 2, "drawn": (500, 200)}}


@pytest.fixture(autouse=True)
def own_folders(tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    monkeypatch.setenv("MMVAE_DATA", str(tmp_path / "mine"))
    monkeypatch.setenv("MMVAE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "mine"


def parts(found):
    return {"train": found.train, "test": found.test} | ({} if found.validation is None else {"validation": found.validation})


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def make_model():
    torch.manual_seed(0)
    nets = dmvae_l_networks(private_dim=2, hidden=32)
    likelihoods = {"image": BernoulliLikelihood(), "label": CategoricalLikelihood()}
    return DMVAE_L(**nets, likelihoods=likelihoods, private_dims={"image": 2, "label": 0}, shared=(1, 10), n_data=400)


def pictures(part, modality):
    """The pictures that the tuples of a partition use."""
    rows = part.index.get(modality, torch.arange(len(part))).unique()
    return {x.numpy().tobytes() for x in part.batch[modality][rows]}


@pytest.mark.parametrize("name", NAMES)
def test_partitions_share_no_picture_and_modalities_share_the_class(name):
    found = PAIRED[name](**SMALL.get(name, {}))
    assert found.stand_in and found.class_names == tuple("0123456789")
    for modality in [m for m in found.train.batch if m != "label"]:
        held = [pictures(part, modality) for part in parts(found).values()]
        assert sum(map(len, held)) == len(set.union(*held)) > 300
    splits = digits().train, digits().test
    known = {x.numpy().tobytes(): int(c) for split in splits for x, c in zip((split.images * 255).round().byte(), split.classes)}
    for part in parts(found).values():
        first = next(iter(part.batch))
        rows = part.index.get(first, torch.arange(len(part)))
        assert [known[x.numpy().tobytes()] for x in part.batch[first][rows[:300]]] == part.classes[:300].tolist()
        taken = part.take(slice(0, 7))
        assert all(0 <= x.min() and x.max() <= 1 and x.dtype == torch.float32 and len(x) == 7 for x in taken.values())


def test_house_numbers_show_the_digit_that_they_stand_beside():
    from mmvae_lite.data.street_numbers import street_numbers

    found = PAIRED["digits-street"](**SMALL["digits-street"], seed=5)
    for part, (n, partition) in ((found.train, (500, "train")), (found.test, (200, "test"))):
        images, classes = street_numbers(n, partition, 5)
        assert torch.equal(part.batch["street"], images) and torch.equal(classes[part.index["street"]], part.classes)
        seen = part.index["street"].bincount(minlength=n)
        assert bool((seen == 2).all()), "every house number has its partners"
    other = PAIRED["digits-street"](**SMALL["digits-street"], seed=6)
    assert not torch.equal(found.train.batch["street"], other.train.batch["street"])
    assert not torch.equal(found.train.index["digit"][:100], other.train.index["digit"][:100])


def write_mnist(folder, n=(60, 40)):
    folder.mkdir()
    for count, (images, labels) in zip(n, (MNIST[:2], MNIST[2:])):
        write_idx(folder / images.name, np.random.default_rng(count).integers(0, 256, (count, 28, 28), dtype=np.uint8))
        write_idx(folder / labels.name, (np.arange(count) % 10).astype(np.uint8))


def write_svhn(folder, n):
    folder.mkdir(exist_ok=True)
    for source, count in zip(SVHN, n):
        images = np.random.default_rng(count).integers(0, 256, (32, 32, 3, count), dtype=np.uint8)
        savemat(folder / source.name, {"X": images, "y": (np.arange(count) % 10 + 1)[:, None].astype(np.uint8)})


def test_real_files_are_used_where_they_are(own_folders):
    with pytest.raises(FileNotFoundError, match="missing train-images"):
        PAIRED["digits-street"]("real")
    write_mnist(own_folders / "mnist")
    with pytest.raises(FileNotFoundError, match="missing train_32x32.mat"):
        PAIRED["digits-street"]("real")
    half = PAIRED["digits-street"](drawn=(100, 50))
    assert half.name == "mnist-street-numbers" and half.stand_in
    assert half.train.index["street"].bincount().tolist() == [20] * 100, "six written digits of a class serve all of its house numbers"
    write_svhn(own_folders / "svhn", (45, 30))
    found = PAIRED["digits-street"]("real", times=3)
    assert found.name == "mnist-svhn" and not found.stand_in
    assert len(found.train) == 3 * 45 and len(found.test) == 3 * 30, "all of SVHN is used where MNIST has more of every class"
    write_svhn(own_folders / "svhn", (95, 30))
    found = PAIRED["digits-street"]("real", times=3)
    assert len(found.train) == 3 * 60, "no written digit stands for two where both sets are real, so that the totals are the paper's"
    assert set(found.train.index["digit"].bincount().tolist()) == {3}
    assert not torch.equal(PAIRED["digits-street"]("real", times=3, seed=1).train.index["digit"], found.train.index["digit"])
    assert PAIRED["digits-street"]("stand-in", **SMALL["digits-street"]).name == "digits-street-numbers"
    assert not PAIRED["image-label"]("real").stand_in and not PAIRED["noisy-digits"]("best").stand_in
    assert PAIRED["image-label"]("stand-in").stand_in and PAIRED["image-label"](images="fashion-mnist").stand_in
    counts = {name: len(part) for name, part in parts(image_label("real")).items()}
    assert counts == {"train": 50, "test": 40, "validation": 10}


@pytest.mark.parametrize(("split", "tuples"), [("train", 1_121_360), ("test", 200_000)])
def test_the_papers_totals_with_the_published_counts(as_a_reader, split, tuples):
    written, street = (classes_of(COUNTS[split][name]) for name in ("mnist", "svhn"))
    both = Split(torch.zeros(len(written), 1, 1, 1), written), Part({"street": torch.zeros(len(street), 1)}, street)
    assert len(_side_by_side(*both, 20, seeded(), False)) == tuples


def test_a_broken_folder_is_no_reason_for_a_stand_in(own_folders, monkeypatch):
    monkeypatch.setenv("MMVAE_DATA", str(own_folders / "nowhere"))
    for name in NAMES:
        with pytest.raises(FileNotFoundError, match="which is no folder"):
            PAIRED[name]()


def test_without_scikit_learn_it_says_what_to_do(own_folders, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ImportError, match="pip install scikit-learn, or put MNIST into the folder"):
        image_label()
    write_mnist(own_folders / "mnist")
    assert image_label().name == "mnist-label", "real files need nothing else"


@pytest.mark.parametrize("modalities", [2, 5])
def test_noisy_digits_are_permutations_that_share_their_memory(modalities):
    found = noisy_digits(modalities=modalities)
    for part in (found.train, found.test):
        assert list(part.batch) == [f"x{m}" for m in range(1, modalities + 1)]
        assert all(torch.equal(rows.sort().values, torch.arange(len(part))) for rows in part.index.values())
        assert len({x.data_ptr() for x in part.batch.values()}) == 1
        assert len({tuple(rows.tolist()) for rows in part.index.values()}) == modalities
    again = noisy_digits(modalities=modalities)
    assert all(torch.equal(rows, again.train.index[m]) for m, rows in found.train.index.items())
    assert not torch.equal(noisy_digits(modalities=modalities, seed=1).train.index["x1"], found.train.index["x1"])


def test_noise_is_standard_fresh_and_leaves_its_input():
    batch = {"x1": torch.rand(50, 1, 28, 28), "x2": torch.rand(50, 1, 28, 28)}
    before, g = {m: x.clone() for m, x in batch.items()}, seeded()
    first, second = (add_noise()(batch, g) for _ in range(2))
    assert all(torch.equal(batch[m], before[m]) for m in batch)
    assert torch.equal(add_noise()(batch, seeded())["x2"], first["x2"]), "the generator gives the noise"
    noise = torch.stack([first[m] - batch[m] for m in batch] + [second[m] - batch[m] for m in batch]).flatten(1)
    assert noise.mean(1).abs().max() < 0.02 and (noise.std(1) - 1).abs().max() < 0.02
    assert (torch.corrcoef(noise) - torch.eye(4)).abs().max() < 0.03
    assert (add_noise(0.5)(batch, seeded())["x1"] - batch["x1"]).std().item() == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("fraction", FRACTIONS)
def test_so_many_labels_as_the_paper_uses(fraction):
    """50 000 images: a share of 0.1% is one batch of 50, 0.2% one of 100, and so on."""
    mask, size = paired_batches(50_000, fraction, generator=seeded(1)), batch_size(fraction)
    assert int(mask.sum()) == round(50_000 * fraction / 100) and size in (50, 100)
    assert bool((mask.reshape(-1, size).float().mean(1) % 1 == 0).all()), "a batch is paired or it is not"


def test_the_programs_own_draw_gives_as_many_on_average():
    counts = torch.stack([paired_batches(50_000, 1, generator=seeded(s), exact=False).sum() // 100 for s in range(400)]).double()
    assert counts.mean().item() == pytest.approx(5, abs=0.4) and counts.var().item() == pytest.approx(5 * 0.99, rel=0.3)
    assert not torch.equal(paired_batches(500, 50, 10, seeded(1)), paired_batches(500, 50, 10, seeded(2)))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(1, 300), st.integers(1, 40), st.sampled_from([0.1, 3, 25, 50, 100]), st.integers(0, 5))
def test_a_batch_is_paired_whole_whatever_its_size(items, size, fraction, seed):
    mask = paired_batches(items, fraction, size, seeded(seed))
    assert bool(mask.any()) and len(mask) == items
    assert all(bool(batch.all()) or not bool(batch.any()) for batch in mask.split(size))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=200).map(torch.tensor), st.sampled_from([0.1, 2, 10, 60, 100]), st.booleans())
def test_labels_by_the_item(classes, fraction, balanced):
    mask = paired_items(classes, fraction, seeded(), balanced)
    assert int(mask.sum()) == max(1, round(len(classes) * fraction / 100))
    if balanced:
        held, there = classes[mask].bincount(minlength=10), classes.bincount(minlength=10)
        assert all(h == t or h >= held.max() - 1 for h, t in zip(held, there))


def test_fit_takes_the_mask_of_paired_items_and_the_noise():
    found = image_label(images="digits").train.first(200)
    mask = paired_items(found.classes, 20, seeded(), balanced=True)
    history = fit(make_model(), found, epochs=2, batch_size=40, observed={"label": mask}, device="cpu", progress=False)
    assert len(history["loss"]) == 2 and "label/recon/label" in history.epochs[0]


def test_fit_meets_new_partners_each_epoch_through_new_noise():
    found = noisy_digits(modalities=2)
    pair, seen = repair_each_epoch({m: digits().train.classes for m in found.train.batch}), {"rows": [], "inputs": []}

    def repaired(index, generator):
        seen["rows"].append(pair(index, generator))
        return seen["rows"][-1]

    def corrupt(batch, generator):
        seen["inputs"].append((batch, add_noise()(batch, generator)))
        return seen["inputs"][-1][1]

    torch.manual_seed(0)
    nets = {m: (dense_encoder([784, 16], 4), dense_decoder([4, 16, 784], (1, 28, 28))) for m in found.train.batch}
    encoders, decoders = ({m: both[i] for m, both in nets.items()} for i in (0, 1))
    model = MVAE(encoders, decoders, dict.fromkeys(nets, NormalLikelihood()), latent_dim=4)
    fit(model, found.train, epochs=2, batch_size=500, pair=repaired, corrupt=corrupt, device="cpu", progress=False)
    first, second = seen["rows"]
    assert torch.equal(first["x1"], second["x1"]) and (first["x2"] == second["x2"]).double().mean() < 0.1
    assert all(clean["x1"].min() == 0 and noisy["x1"].min() < -2 for clean, noisy in seen["inputs"])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: PAIRED["image-label"]("none"), KeyError, "unknown source 'none', known: 'best', 'real', 'stand-in'"),
        (lambda: image_label(images="mnits"), KeyError, "did you mean 'mnist'"),
        (lambda: noisy_digits(modalities=1), ValueError, "modalities: found 1, wanted 2 or more"),
        (lambda: paired_batches(100, 0), ValueError, "fraction: found 0, wanted per cent"),
        (lambda: paired_batches(100, 101), ValueError, "fraction: found 101"),
    ],
)
def test_what_makes_no_sense_is_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.skipif(not REAL, reason="MMVAE_DATA names no folder of real data")
def test_the_papers_sizes_with_the_real_mnist(monkeypatch):
    monkeypatch.setenv("MMVAE_DATA", REAL)
    found = image_label("real")
    assert [len(part) for part in parts(found).values()] == [50_000, 10_000, 10_000]
    noisy = noisy_digits("real", modalities=5)
    assert (len(noisy.train), len(noisy.test), noisy.stand_in) == (60_000, 10_000, False)
