"""e-, me- and m-MNIST: sizes, what a pair shares, and what the test set has not seen."""

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from mmvae_lite.data import shuffle_within_classes
from mmvae_lite.data.entangled import truncated_normal
from mmvae_lite.data.entangled_sets import KINDS, entangled, generate, generators
from mmvae_lite.data.idx import write_idx
from mmvae_lite.data.labelled_images import FILES
from mmvae_lite.evaluation.classifiers import classifier, predict

SMALL = {"per_class": 300, "seed": 3}


@pytest.fixture(autouse=True)
def own_folders(tmp_path, monkeypatch):
    monkeypatch.setenv("MMVAE_DATA", str(tmp_path / "mine"))
    monkeypatch.setenv("MMVAE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "mine").mkdir()
    return tmp_path / "mine"


@pytest.fixture(scope="module")
def pairs():
    return {kind: entangled(kind=kind, **SMALL) for kind in ("e", "me")}


def pictures(part, name, label):
    """The float pictures of one class, [items, 784], as a model gets them."""
    rows = (part.classes == label).nonzero().flatten()
    return part.take(rows)[name].flatten(1), rows


def test_sizes_are_the_papers():
    e = entangled()
    assert (len(e.train), len(e.test)) == (69_300, 700)
    assert {m: (x.dtype, tuple(x.shape[1:])) for m, x in e.train.batch.items()} == {
        "digit": (torch.uint8, (1, 28, 28)), "garment": (torch.uint8, (1, 28, 28)), "label": (torch.float32, (10,))
    }  # fmt: skip
    assert (torch.cat([e.train.classes, e.test.classes]).bincount() == 7000).all()
    assert e.stand_in and "our generated set" in e.description and e.name == "e-mnist"
    z = torch.cat([e.train.facts["latent"], e.test.facts["latent"]])
    assert len(z.unique(dim=0)) == 7000 and z.norm(dim=1).max() <= 2


def test_every_latent_is_decoded_in_every_class_by_both(pairs):
    part = pairs["e"].train
    z = torch.cat([p.facts["latent"] for p in (part, pairs["e"].test)])
    assert (z.unique(dim=0, return_counts=True)[1] == 10).all()
    rows = torch.tensor([0, 17, 2500])
    for modality, decoder in generators().items():
        with torch.no_grad():
            wanted = decoder(torch.cat([part.facts["latent"][rows], F.one_hot(part.classes[rows], 10)], -1)).sigmoid()
        assert (part.take(rows)[modality] - wanted).abs().max() <= 0.5 / 255 + 1e-6
    assert torch.equal(part.batch["label"].argmax(1), part.classes)


@pytest.mark.parametrize("radius, most", [("paper", 2.0), ("code", 1.645), (0.7, 0.7)])
def test_the_radius_is_a_choice(radius, most):
    z = entangled(radius=radius, per_class=200).train.facts["latent"].norm(dim=1)
    assert 0.9 * most < z.max() <= most


def test_the_chunks_of_a_decoder_change_nothing():
    z, classes = truncated_normal(50, 2, 2.0, torch.Generator().manual_seed(0)), torch.arange(50) % 10
    decoder = generators()["garment"]
    one, many = generate(decoder, z, classes), generate(decoder, z, classes, chunk=7)
    assert (one.int() - many.int()).abs().max() <= 1  # a last bit may fall on either side of a level


def test_what_the_decoders_draw_has_the_class_asked_for(pairs):
    """Judges that learnt from real pictures alone name the class of nearly every digit and most garments."""
    for modality, name, least in (("digit", "mnist", 0.97), ("garment", "fashion-mnist", 0.8)):
        found = predict(classifier(name), pairs["e"].train.batch[modality][:2000])
        assert (found == pairs["e"].train.classes[:2000]).double().mean() > least


def agreement(part, label, k=5):
    """How often an item that is among the k nearest in digit is also among the k nearest in garment, over chance."""
    near = []
    for name in ("digit", "garment"):
        x, _ = pictures(part, name, label)
        near.append(torch.cdist(x, x).fill_diagonal_(torch.inf).topk(k, largest=False).indices)
    both = (near[0][:, :, None] == near[1][:, None, :]).any(-1).double().mean().item()
    return both / (k / len(x))


@pytest.mark.parametrize("label", [0, 3, 7])
def test_entanglement_can_be_measured(pairs, label):
    """Neighbours among the digits of a class are neighbours among its garments in e-MNIST, and by chance in me-MNIST."""
    assert agreement(pairs["e"].train, label) > 10
    assert agreement(pairs["me"].train, label) < 2.5


def test_me_has_the_very_pictures_of_e_in_both_partitions(pairs):
    for name in ("train", "test"):
        e, me = (getattr(pairs[kind], name) for kind in ("e", "me"))
        assert torch.equal(e.batch["digit"], me.batch["digit"]) and torch.equal(e.batch["garment"], me.batch["garment"])
        assert torch.equal(e.classes, me.classes) and torch.equal(e.facts["latent"], me.facts["latent"])
        partner = me.index["garment"]
        assert torch.equal(partner.sort().values, torch.arange(len(me))) and torch.equal(me.classes[partner], me.classes)
        assert torch.equal(me.facts["garment_latent"], e.facts["latent"][partner])
    assert (me.index["garment"] != torch.arange(len(me))).any()
    x, y = pairs["me"].train.take(slice(None)), pairs["e"].train.take(slice(None))
    assert not torch.equal(x["garment"], y["garment"])
    again = shuffle_within_classes(y, "garment", generator=torch.Generator().manual_seed(0))
    assert torch.equal(again["garment"].sum((1, 2, 3)).sort().values, x["garment"].sum((1, 2, 3)).sort().values)


def test_a_test_latent_is_new_only_when_asked(pairs):
    def shared(data):
        train, test = ({tuple(z) for z in part.facts["latent"].tolist()} for part in (data.train, data.test))
        return len(train & test)

    assert shared(pairs["e"]) > 0  # the paper's shuffle: the same latent in other classes
    for kind in ("e", "me"):
        data = entangled(kind=kind, disjoint=True, **SMALL)
        assert shared(data) == 0 and len(data.test) == 30 and (data.test.classes.bincount() == 3).all()
        assert len(data.train) == 2970
        if kind == "me":
            seen = {tuple(z) for z in data.train.facts["garment_latent"].tolist()}
            assert not seen & {tuple(z) for z in data.test.facts["garment_latent"].tolist()}


def test_no_pair_is_in_both_partitions(pairs):
    seen = [{(*z, c) for z, c in zip(part.facts["latent"].tolist(), part.classes.tolist())} for part in (pairs["e"].train, pairs["e"].test)]
    assert not seen[0] & seen[1] and sum(map(len, seen)) == 3000


DIGEST = """
import hashlib
from mmvae_lite.data.entangled_sets import entangled
for kind in ("e", "me"):
    part = entangled(kind=kind, per_class=20, seed=5).train.take(slice(None))
    print(hashlib.sha256(b"".join((255 * part[m]).round().byte().numpy().tobytes() for m in ("digit", "garment", "label"))).hexdigest())
"""


def test_a_seed_fixes_the_set_in_another_process_too(elsewhere):
    there = elsewhere(DIGEST).split()
    for kind, digest in zip(("e", "me"), there):
        part = entangled(kind=kind, per_class=20, seed=5).train.take(slice(None))
        here = b"".join((255 * part[m]).round().byte().numpy().tobytes() for m in ("digit", "garment", "label"))
        assert hashlib.sha256(here).hexdigest() == digest
    other = entangled(per_class=20, seed=6).train
    assert not torch.equal(other.batch["digit"], entangled(per_class=20, seed=5).train.batch["digit"])


def two_sets(folder, digits, garments):
    """Small MNIST and Fashion-MNIST whose pictures hold their row number."""
    for name, counts in (("mnist", digits), ("fashion-mnist", garments)):
        (folder / name).mkdir(parents=True)
        for files, scale in ((FILES[:2], 1), (FILES[2:], 2)):
            labels = np.repeat(np.arange(len(counts)), np.array(counts) * scale).astype(np.uint8)[::-1]
            images = np.zeros((len(labels), 28, 28), np.uint8)
            images[:, 0, 0] = np.arange(len(labels))
            write_idx(folder / name / files[0], images)
            write_idx(folder / name / files[1], labels)


def test_a_contact_sheet_is_left_to_be_looked_at(pairs):
    """For every class a row of digits and one of garments, sorted by the first latent, as build/artefacts/KIND-mnist.png."""
    image = pytest.importorskip("PIL.Image")
    folder = Path(os.environ.get("MMVAE_ARTEFACTS", Path(__file__).parent.parent / "build" / "artefacts"))
    folder.mkdir(parents=True, exist_ok=True)
    for kind, data in pairs.items():
        part, rows = data.train, []
        for label in range(10):
            items = (part.classes == label).nonzero().flatten()
            items = items[part.facts["latent"][items, 0].argsort()][:: len(items) // 20][:20]
            x = part.take(items)
            rows += [torch.cat(list(x[m][:, 0]), 1) for m in ("digit", "garment")]
        sheet = (255 * torch.cat(rows)).round().byte().numpy()
        image.fromarray(sheet).save(folder / f"{kind}-mnist.png")
        assert sheet.shape == (560, 560) and sheet.max() > 200


def test_m_puts_the_originals_side_by_side_and_drops_the_borders(own_folders):
    two_sets(own_folders, [3, 5, 2], [4, 3, 4])
    m = entangled(kind="m")
    # sorted classes: digits 0001111122, garments 00001112222: the fourth, the eighth disagree
    assert m.train.classes.tolist() == [0, 0, 0, 1, 1, 1, 2, 2]
    assert len(m.test) == 16 and not m.stand_in and m.name == "m-mnist"
    x = m.train.take(slice(None))
    assert (255 * x["digit"][:, 0, 0, 0]).round().long().tolist() == [7, 8, 9, 3, 4, 5, 0, 1]
    assert (255 * x["garment"][:, 0, 0, 0]).round().long().tolist() == [7, 8, 9, 4, 5, 6, 1, 2]
    assert torch.equal(x["label"].argmax(1), m.train.classes)


def test_m_needs_the_originals_and_says_so():
    with pytest.raises(FileNotFoundError, match="put them under mnist/"):
        entangled(kind="m")
    with pytest.raises(FileNotFoundError, match="m-mnist: nothing stands in for it"):
        entangled("stand-in", kind="m")
    with pytest.raises(FileNotFoundError, match="e-mnist: the authors publish no file"):
        entangled("real")


@pytest.mark.skipif("MMVAE_DATA" not in os.environ, reason="MMVAE_DATA names no folder")
def test_m_of_the_real_files(monkeypatch):
    monkeypatch.setenv("MMVAE_DATA", REAL)
    m = entangled(kind="m")
    assert 50_000 < len(m.train) < 60_000 and len(m.test) < 10_000


REAL = os.environ.get("MMVAE_DATA", "")


def test_bad_options_are_named(as_a_reader):
    for options, sentence in (
        ({"kind": "em"}, "unknown kind 'em', known: 'e', 'me', 'm'"),
        ({"source": "paper"}, "unknown source 'paper'"),
        ({"radius": "text"}, "unknown radius 'text'"),
    ):
        with pytest.raises(KeyError, match=sentence):
            entangled(**options)
    with pytest.raises(ValueError, match="per_class: found 0"):
        entangled(per_class=0)
    with pytest.raises(ValueError, match="radius: found -1, wanted more than 0"):
        entangled(radius=-1)
    assert set(KINDS) == {"e", "me", "m"}
