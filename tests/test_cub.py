"""The CUB folder in both layouts, made here in its true format, and everything that may be wrong with it."""

import shutil
import sys
import types

import numpy as np
import pytest
import torch
from PIL import Image

from mmvae_lite.data.captions import tokens
from mmvae_lite.data.cub import birds, cub, extract_features, read_listings
from mmvae_lite.data.idx import BadFile

CLASSES = ("001.Black_footed_Albatross", "002.Laysan_Albatross", "003.Sooty_Albatross")
TRAIN, TEST = CLASSES[:2], CLASSES[2:]


def caption(name, i, k):
    return f"this bird of {name.split('.')[1].lower()} number {i} has a {'red' if k % 2 else 'blue'} crown, and its wings are brown."


def picture(path, colour, size=(90, 60)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path, quality=95)


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("MMVAE_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("MMVAE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "data").mkdir()
    return tmp_path / "data" / "cub"


@pytest.fixture
def published(home):
    """Two images a class, as Caltech and Reed et al. publish them."""
    base, lines = home / "CUB_200_2011", {"images": [], "labels": []}
    for c, name in enumerate(CLASSES):
        for i in range(2):
            image = f"{name.split('.')[1]}_{i:04d}_{796 + i}"
            number = len(lines["images"]) + 1
            picture(base / "images" / name / f"{image}.jpg", (80 * c, 200 * i, 40))
            lines["images"].append(f"{number} {name}/{image}.jpg")
            lines["labels"].append(f"{number} {c + 1}")
            text = home / "text_c10" / name / f"{image}.txt"
            text.parent.mkdir(parents=True, exist_ok=True)
            text.write_text("".join(caption(name, i, k) + "\n" for k in range(10)))
    (base / "images.txt").write_text("\n".join(lines["images"]) + "\n")
    (base / "image_class_labels.txt").write_text("\n".join(lines["labels"]) + "\n")
    (base / "classes.txt").write_text("".join(f"{c + 1} {name}\n" for c, name in enumerate(CLASSES)))
    (home / "trainvalclasses.txt").write_text("\n".join(TRAIN) + "\n")
    (home / "testclasses.txt").write_text("\n".join(TEST) + "\n")
    return home


@pytest.fixture
def released(home):
    """The same in the layout of Shi et al."""
    for part, names, file in (("train", TRAIN, "text_trainvalclasses.txt"), ("test", TEST, "text_testclasses.txt")):
        lines = []
        for name in names:
            for i in range(2):
                picture(home / part / name / f"{name.split('.')[1]}_{i:04d}.jpg", (80 * CLASSES.index(name), 200 * i, 40))
                lines += [caption(name, i, k) for k in range(10)]
        (home / file).write_text("\n".join(lines) + "\n")
    return home


@pytest.fixture(params=["published", "released"])
def folder(request):
    return request.getfixturevalue(request.param)


def files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_both_layouts(folder):
    data = cub(complete=False)
    assert data.class_names == CLASSES and not data.stand_in
    assert len(data.train) == 40 and len(data.test) == 20
    assert data.train.batch["image"].shape == (4, 3, 64, 64) and data.train.batch["image"].dtype == torch.uint8
    assert torch.equal(data.train.index["image"], torch.arange(40) // 10)
    assert data.train.classes[::10].tolist() == [0, 0, 1, 1] and data.test.classes.unique().tolist() == [2]
    batch = data.train.take(torch.tensor([0, 15, 39]))
    assert batch["caption"].shape == (3, 32, len(data.words))
    for row, (c, i) in zip(batch["image"], [(0, 0), (0, 1), (1, 1)]):
        assert torch.allclose(row.mean((1, 2)) * 255, torch.tensor([80.0 * c, 200.0 * i, 40.0]), atol=3)


def test_captions_are_those_of_their_image(folder):
    from mmvae_lite.data.captions import Vocabulary

    data = cub(complete=False)
    words = Vocabulary(data.words)
    for part, names in ((data.train, TRAIN), (data.test, TEST)):
        for row in (0, 7, 13):
            wanted = [w if w in data.words else "<exc>" for w in tokens(caption(names[row // 20], row // 10 % 2, row % 10))]
            assert words.decode(part.batch["caption"][row : row + 1]) == [" ".join(wanted)]
    assert "sooty_albatross" not in data.words, "words of the test classes are not learnt"


def test_the_second_time_nothing_is_read(folder, monkeypatch):
    first = cub(complete=False)
    monkeypatch.setattr("mmvae_lite.data.cub._picture", lambda *a: pytest.fail("an image was read again"))
    assert torch.equal(cub(complete=False).train.batch["image"], first.train.batch["image"])


def test_a_changed_image_is_read_again(released):
    first = cub(complete=False).train.batch["image"][0].clone()
    picture(files(released / "train")[0], (255, 255, 255), (91, 60))
    assert not torch.equal(cub(complete=False).train.batch["image"][0], first)


def test_a_broken_cache_is_made_again(published, tmp_path):
    first = cub(complete=False).train.batch["image"]
    kept = files(tmp_path / "cache")
    assert len(kept) == 2 and all(path.suffix == ".npz" for path in kept)
    for path, content in zip(kept, (b"PK no archive", b"")):
        path.write_bytes(content)
    assert torch.equal(cub(complete=False).train.batch["image"], first)
    assert not list(tmp_path.rglob("*.part"))


def test_features_of_an_injected_network(published):
    seen = []

    def network(x):
        seen.append(x.shape[1:])
        return x.mean((2, 3))

    data = cub("features", complete=False, network=network)
    assert data.train.batch["image"].shape == (4, 3) and set(seen) == {(3, 224, 224)}
    wanted = (torch.tensor([0.0, 200.0, 40.0]) / 255 - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    assert torch.allclose(data.train.batch["image"][1], wanted, atol=0.05)
    paths = read_listings(complete=False)["train"].paths
    assert np.array_equal(extract_features(paths, network, chunk=3), data.train.batch["image"].numpy())


def test_features_by_torchvision(published, tmp_path, monkeypatch):
    """A tiny network in torchvision's place, with its weights in torch's folder."""

    def build():
        net = torch.nn.Sequential()
        net.pool = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
        net.fc = torch.nn.Linear(3, 4)
        return net

    fake = types.ModuleType("torchvision.models")
    fake.resnet101, fake.ResNet101_Weights = build, types.SimpleNamespace(IMAGENET1K_V1=None)
    monkeypatch.setitem(sys.modules, "torchvision", types.ModuleType("torchvision"))
    monkeypatch.setitem(sys.modules, "torchvision.models", fake)
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path / "hub"))
    with pytest.raises(FileNotFoundError, match="missing resnet101-63fe2227.pth"):
        cub("features", complete=False)
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    torch.save(build().state_dict(), tmp_path / "hub" / "checkpoints" / "resnet101-63fe2227.pth")
    first = cub("features", complete=False).train.batch["image"]
    assert first.shape == (4, 3)
    monkeypatch.delitem(sys.modules, "torchvision.models")
    assert torch.equal(cub("features", complete=False).train.batch["image"], first), "kept in the cache"


def test_without_torchvision(published, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    monkeypatch.setitem(sys.modules, "torchvision.models", None)
    with pytest.raises(ImportError, match="need torchvision, which is missing"):
        cub("features", complete=False)


def test_a_part_of_cub_is_no_cub(folder):
    with pytest.raises(BadFile, match="train: found 2 classes and 4 images, wanted 150 and 8855"):
        cub()


def test_nothing_there(home):
    with pytest.raises(FileNotFoundError, match="missing the folder cub/"):
        cub()
    home.mkdir()
    with pytest.raises(FileNotFoundError, match="missing CUB_200_2011/images.txt, .*testclasses.txt"):
        cub()


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


IMAGE = "001.Black_footed_Albatross/Black_footed_Albatross_0000_796"
SPOILT = {
    "traversal": (lambda f: edit(f / "CUB_200_2011/images.txt", IMAGE, "001.Black_footed_Albatross/../../secret"), BadFile, "wanted CLASS/IMAGE.jpg"),
    "hidden": (lambda f: edit(f / "CUB_200_2011/images.txt", IMAGE, "../Black_footed_Albatross_0000_796"), BadFile, "found the name '..'"),
    "absolute": (lambda f: edit(f / "CUB_200_2011/images.txt", IMAGE, "/etc/secret"), BadFile, "wanted CLASS/IMAGE.jpg"),
    "class in classes.txt": (lambda f: edit(f / "CUB_200_2011/classes.txt", "001.Black", "../Black"), BadFile, "which classes.txt does not list"),
    "captions missing": (lambda f: (f / f"text_c10/{IMAGE}.txt").unlink(), FileNotFoundError, "missing text_c10/001"),
    "nine captions": (lambda f: edit(f / f"text_c10/{IMAGE}.txt", caption(CLASSES[0], 0, 0) + "\n", ""), BadFile, "found [0-9] captions, wanted 10"),
    "bytes for captions": (lambda f: (f / f"text_c10/{IMAGE}.txt").write_bytes(b"\xff\xfe" * 40), BadFile, "bytes that are no text"),
    "a class in both": (lambda f: (f / "testclasses.txt").write_text("\n".join(CLASSES[1:])), BadFile, "002.* in the training and in the test"),
    "a class in neither": (lambda f: (f / "trainvalclasses.txt").write_text(CLASSES[0]), BadFile, "'002.Laysan_Albatross' is in neither"),
    "a class of another set": (lambda f: edit(f / "testclasses.txt", "003.Sooty", "009.Sooty"), BadFile, "'009.Sooty_Albatross', which classes.txt"),
    "another label": (lambda f: edit(f / "CUB_200_2011/image_class_labels.txt", "1 1\n", "1 2\n"), BadFile, "has class number 2"),
    "a label missing": (lambda f: edit(f / "CUB_200_2011/image_class_labels.txt", "6 3\n", ""), BadFile, "lists 6 images, image_class_labels.txt 5"),
    "a number missing": (lambda f: edit(f / "CUB_200_2011/images.txt", "3 002", "9 002"), BadFile, "images.txt: wanted lines of a number"),
    "an empty list": (lambda f: (f / "CUB_200_2011/images.txt").write_text(""), BadFile, "images.txt: wanted lines"),
    "an image missing": (lambda f: (f / f"CUB_200_2011/images/{IMAGE}.jpg").unlink(), FileNotFoundError, "missing the image 001"),
    "a cut image": (
        lambda f: (f / f"CUB_200_2011/images/{IMAGE}.jpg").write_bytes((f / f"CUB_200_2011/images/{IMAGE}.jpg").read_bytes()[:400]),
        BadFile,
        "broken or no JPEG",
    ),
    "no image": (lambda f: (f / f"CUB_200_2011/images/{IMAGE}.jpg").write_text("hello"), BadFile, "broken or no JPEG"),
    "an image twice": (lambda f: edit(f / "CUB_200_2011/images.txt", "0001_797.jpg\n3", "0000_796.jpg\n3"), BadFile, "found an image twice"),
}


@pytest.mark.parametrize("what", SPOILT)
def test_spoilt_folders_are_refused(published, what, tmp_path):
    spoil, error, message = SPOILT[what]
    spoil(published)
    with pytest.raises(error, match=message):
        cub(complete=False)
    assert not list((tmp_path / "cache").rglob("*train-pixels*")), "nothing half-written remains"


def test_an_image_of_another_kind_or_too_many_pixels(published, monkeypatch):
    path = published / f"CUB_200_2011/images/{IMAGE}.jpg"
    Image.new("RGB", (4, 4)).save(path, format="PNG")
    with pytest.raises(BadFile, match="broken or no JPEG"):
        cub(complete=False)
    picture(path, (0, 0, 0))
    monkeypatch.setattr("mmvae_lite.data.cub.MAX_PIXELS", 100)
    with pytest.raises(BadFile, match="found 90x60 pixels, wanted at most 100"):
        cub(complete=False)


def test_spoilt_releases_are_refused(released):
    edit(released / "text_testclasses.txt", caption(CLASSES[2], 0, 0) + "\n", "")
    with pytest.raises(BadFile, match="text_testclasses.txt: found [0-9]+ captions for 2 images"):
        cub(complete=False)
    shutil.rmtree(released / "test")
    with pytest.raises(FileNotFoundError, match="missing test under cub/"):
        cub(complete=False)


def test_a_class_in_both_partitions_of_a_release(released):
    shutil.copytree(released / "train" / CLASSES[0], released / "test" / CLASSES[0])
    with open(released / "text_testclasses.txt", "a") as f:
        f.write("a bird.\n" * 20)
    with pytest.raises(BadFile, match="001.Black_footed_Albatross is in the training and in the test"):
        cub(complete=False)


def test_unknown_kind():
    with pytest.raises(KeyError, match="unknown kind of images 'feature'.*did you mean 'features'"):
        cub("feature")


def test_the_best_birds_there_are(home, tmp_path):
    small = {"train_species": 2, "test_species": 1, "each": 2}
    assert birds(**small).name == "drawn-birds" and len(birds("stand-in", **small).train) == 40
    with pytest.raises(FileNotFoundError, match="missing the folder cub/"):
        birds("real")
    with pytest.raises(ValueError, match="features are those of photographs"):
        birds(images="features")
    with pytest.raises(KeyError, match="unknown source 'drawn'"):
        birds("drawn")


def test_photographs_come_first_and_a_broken_set_is_no_missing_one(published):
    with pytest.raises(BadFile, match="wanted 150 and 8855"):
        birds()
    assert birds("stand-in", train_species=1, test_species=1, each=1).stand_in


def test_registered():
    from mmvae_lite.data import PAIRED

    assert PAIRED["birds"] is birds
