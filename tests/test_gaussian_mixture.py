"""The didactic set: its centres, counts and scaling, and that the classes are told by both modalities together."""

import hashlib
import math
import os

import numpy as np
import pytest
import torch

from mmvae_lite.data.gaussian_mixture import COUNTS, mixture_means, mog
from mmvae_lite.data.idx import BadFile, write_idx
from mmvae_lite.data.labelled_images import FILES

REAL = os.environ.get("MMVAE_DATA", "")


@pytest.fixture(autouse=True)
def own_folders(tmp_path, monkeypatch):
    monkeypatch.setenv("MMVAE_DATA", str(tmp_path / "mine"))
    monkeypatch.setenv("MMVAE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "mine" / "mnist").mkdir(parents=True)
    return tmp_path / "mine" / "mnist"


def whole(data):
    classes = torch.cat([data.train.classes, data.test.classes])
    return {m: torch.cat([data.train.batch[m], data.test.batch[m]]) for m in ("w", "x")}, classes


def test_the_centres_coincide_where_the_paper_lets_them():
    means = mixture_means()
    close = {m: {(i, j) for i in range(10) for j in range(i) if (x[i] - x[j]).norm() < 1e-9} for m, x in means.items()}
    assert close == {"w": {(9, 0)}, "x": {(6, 5), (7, 5), (7, 6), (8, 0)}}
    assert torch.allclose(means["w"].norm(dim=1), torch.ones(10, dtype=torch.float64))
    gaps = (means["w"][1:] - means["w"][:-1]).norm(dim=1)
    assert torch.allclose(gaps, torch.full((9,), 2 * math.sin(math.pi / 9), dtype=torch.float64))
    places = [(1, 1 / 4), (0, 1 / 2), (0, 1), (1 / 3, 1 / 4), (1 / 3, 3 / 4), *[(2 / 3, 1 / 2)] * 3, (1, 1 / 4), (1, 3 / 4)]
    assert torch.allclose(means["x"], torch.tensor(places, dtype=torch.float64))
    assert means["w"][[0, 9]].tolist() == [[1, 0], pytest.approx([1, 0])], "the circle is closed"


def test_sizes_counts_and_range():
    data = mog()
    assert (len(data.train), len(data.test), sum(COUNTS)) == (59_400, 600, 60_000)
    x, classes = whole(data)
    assert classes.bincount().tolist() == list(COUNTS)
    for values in x.values():
        assert values.dtype == torch.float32 and values.amin(0).tolist() == [0, 0] and values.amax(0).tolist() == [1, 1]
    assert not data.stand_in and "as many as" in data.description


def test_class_means_and_spread_are_the_stated_ones_up_to_the_scaling():
    """One affine map for each coordinate takes the empirical means to the stated ones, and the spread to the stated one."""
    x, classes = whole(mog())
    for m, means in mixture_means().items():
        found = torch.stack([x[m][classes == k].double().mean(0) for k in range(10)])
        for d in range(2):
            design = torch.stack([found[:, d], torch.ones(10, dtype=torch.float64)], 1)
            fit = torch.linalg.lstsq(design, means[:, d:]).solution[:, 0]
            assert (design @ fit - means[:, d]).abs().max() < 0.02
            spread = torch.stack([x[m][classes == k, d].double().std() for k in range(10)]) * fit[0]
            assert spread.tolist() == pytest.approx([{"w": 0.1, "x": 0.06}[m]] * 10, rel=0.05)


def nearest(names, train, test):
    features = {part: torch.cat([p.batch[m] for m in names], 1) for part, p in (("train", train), ("test", test))}
    means = torch.stack([features["train"][train.classes == k].mean(0) for k in range(10)])
    return (torch.cdist(features["test"], means).argmin(1) == test.classes).double().mean().item()


def test_neither_modality_tells_every_class_and_both_together_do():
    data = mog()
    w, x, both = (nearest(names, data.train, data.test) for names in (("w",), ("x",), ("w", "x")))
    assert x < 0.75 and w < 0.96 and both > 0.99


def test_the_label_file_gives_the_classes(own_folders):
    labels = np.random.default_rng(0).integers(0, 10, 500).astype(np.uint8)
    write_idx(own_folders / FILES[1], labels)
    for source in ("best", "real"):
        data = mog(source)
        assert whole(data)[1].bincount(minlength=10).tolist() == np.bincount(labels, minlength=10).tolist()
        assert len(data.test) == 5 and "from the training labels" in data.description
    assert len(mog("stand-in").train) == 59_400


def test_missing_and_broken_label_files(own_folders):
    with pytest.raises(FileNotFoundError, match="missing train-labels"):
        mog("real")
    write_idx(own_folders / FILES[1], np.array([3, 11], np.uint8))
    with pytest.raises(BadFile, match="found label 11, wanted 0 to 9"):
        mog()
    with pytest.raises(KeyError, match="unknown source 'paper'"):
        mog("paper")


@pytest.mark.skipif(not REAL, reason="MMVAE_DATA names no folder")
def test_the_stated_counts_are_those_of_mnist(monkeypatch):
    monkeypatch.setenv("MMVAE_DATA", REAL)
    assert whole(mog("real"))[1].bincount().tolist() == list(COUNTS)


def digest(data):
    return hashlib.sha256(b"".join(x.numpy().tobytes() for x in (*data.train.batch.values(), data.train.classes))).hexdigest()


def test_a_seed_fixes_the_set_in_another_process_too(elsewhere):
    program = "from tests.test_gaussian_mixture import digest, mog; print(digest(mog(seed=4)))"
    there = elsewhere(program).strip()
    assert there == digest(mog(seed=4)) != digest(mog(seed=5))


def test_no_item_is_in_both_partitions():
    data = mog()
    train, test = ({tuple(row) for row in torch.cat([p.batch["w"], p.batch["x"]], 1).tolist()} for p in (data.train, data.test))
    assert len(train) == 59_400 and not train & test
