"""CelebA from small folders of its true format, and the refusal of everything that is not as published."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from mmvae_lite.data import celeba, faces
from mmvae_lite.data.celeba import ATTRIBUTE_LIST, ATTRIBUTES, CHOSEN, COLUMNS, IMAGES, PARTITION_LIST, read_image
from mmvae_lite.data.idx import BadFile

Image = pytest.importorskip("PIL.Image")
PARTITION = [0, 0, 2, 1, 0, 2, 0, 1, 0, 2]


def photograph(i):
    """178 by 218: red above and below the crop, inside it a grey of its own and a green edge on the left."""
    pixels = np.full((218, 178, 3), 20 * (i + 1), np.uint8)
    pixels[:, :12] = (0, 255, 0)
    pixels[:25] = pixels[193:] = (255, 0, 0)
    return Image.fromarray(pixels)


def values(i):
    return [1 if (i * 7 + c * 3) % 5 < 2 else -1 for c in range(40)]


def published(folder, n=10):
    (folder / IMAGES).mkdir(parents=True)
    names = [f"{i + 1:06}.jpg" for i in range(n)]
    for i, name in enumerate(names):
        photograph(i).save(folder / IMAGES / name, quality=95)
    rows = [f"{name} " + " ".join(f"{v:2d}" for v in values(i)) for i, name in enumerate(names)]
    (folder / ATTRIBUTE_LIST).write_text("\n".join([str(n), " ".join(COLUMNS) + " ", *rows]) + "\n")
    (folder / PARTITION_LIST).write_text("".join(f"{name} {PARTITION[i]}\n" for i, name in enumerate(names)))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("MMVAE_DATA", str(tmp_path / "mine"))
    monkeypatch.setenv("MMVAE_CACHE", str(tmp_path / "cache"))
    published(tmp_path / "mine" / "celeba")
    return tmp_path / "mine" / "celeba"


def left_behind(folder):
    cache = folder.parents[1] / "cache"
    return [path for path in cache.rglob("*") if path.is_file()]


def edit(path, old, new, count=1):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, count))


def test_the_eighteen_attributes():
    assert len(COLUMNS) == 40 and len(ATTRIBUTES) == 18
    assert " ".join(ATTRIBUTES) == (
        "Bald Bangs Black_Hair Blond_Hair Brown_Hair Bushy_Eyebrows Eyeglasses Gray_Hair Heavy_Makeup Male Mouth_Slightly_Open "
        "Mustache Pale_Skin Receding_Hairline Smiling Straight_Hair Wavy_Hair Wearing_Hat"
    )


@pytest.mark.parametrize("load", [celeba, lambda: faces("best"), lambda: faces("real")])
def test_the_official_parts(folder, load):
    found = load()
    assert (found.name, found.stand_in, found.class_names) == ("celeba", False, ATTRIBUTES)
    for code, part in enumerate((found.train, found.validation, found.test)):
        rows = [i for i, p in enumerate(PARTITION) if p == code]
        assert part.batch["image"].shape == (len(rows), 3, 64, 64) and part.batch["image"].dtype == torch.uint8
        assert part.batch["attributes"].tolist() == [[float(values(i)[c] == 1) for c in CHOSEN] for i in rows]
        middle = part.batch["image"][:, :, 20:44, 20:44].float().mean((1, 2, 3))
        assert torch.allclose(middle, torch.tensor([20.0 * (i + 1) for i in rows]), atol=2)


def test_the_crop_keeps_all_columns_and_168_rows(folder):
    image = read_image(folder / IMAGES / "000001.jpg").astype(int)
    assert image.shape == (3, 64, 64)
    assert (image[1, :, :3] - image[0, :, :3]).min() > 150  # the green edge of the photograph
    red = image[0] - image[1]
    assert red[1:-1].max() < 30 and red[[0, -1]].mean() < 60  # the red bars are cut off, but for what JPEG smears
    whole = Image.open(folder / IMAGES / "000001.jpg").convert("RGB").crop((0, 25, 178, 193))
    assert whole.size == (178, 168)
    assert np.array_equal(image.transpose(1, 2, 0), np.asarray(whole.resize((64, 64), Image.Resampling.BILINEAR)))


def test_limits(folder):
    found = celeba(train=2, test=1)
    assert [len(p) for p in (found.train, found.validation, found.test)] == [2, 2, 1]
    first = [i for i, part in enumerate(PARTITION) if part == 0][:2]
    assert found.train.batch["attributes"].tolist() == [[float(values(i)[c] == 1) for c in CHOSEN] for i in first]
    with pytest.raises(ValueError, match="test: found -1, wanted a whole number"):
        celeba(test=-1)


def test_read_once_then_from_the_cache(folder, monkeypatch):
    first = celeba()
    mine = sorted(p.relative_to(folder) for p in folder.rglob("*"))
    assert len(left_behind(folder)) == 3 and all(p.suffix == ".npz" for p in left_behind(folder))
    reads = []
    monkeypatch.setattr(sys.modules["mmvae_lite.data.celeba"], "read_image", lambda path: reads.append(path.name) or read_image(path))
    assert torch.equal(celeba().train.batch["image"], first.train.batch["image"]) and reads == []
    photograph(5).resize((178, 218)).save(folder / IMAGES / "000001.jpg", quality=60)
    assert not torch.equal(celeba().train.batch["image"], first.train.batch["image"])
    assert reads == [f"{i + 1:06}.jpg" for i, p in enumerate(PARTITION) if p == 0]
    assert sorted(p.relative_to(folder) for p in folder.rglob("*")) == mine


def test_a_photograph_that_changed_and_kept_its_size_is_read_again(folder, monkeypatch):
    celeba()
    reads = []
    monkeypatch.setattr(sys.modules["mmvae_lite.data.celeba"], "read_image", lambda path: reads.append(path.name) or read_image(path))
    os.utime(folder / IMAGES / "000001.jpg", ns=(1, 1))
    celeba()
    assert "000001.jpg" in reads


def test_photographs_are_read_in_pieces(folder, monkeypatch):
    monkeypatch.setattr(sys.modules["mmvae_lite.data.celeba"], "BLOCK", 2)
    middle = celeba().train.batch["image"][:, :, 20:44, 20:44].float().mean((1, 2, 3))
    assert torch.allclose(middle, torch.tensor([20.0 * (i + 1) for i, part in enumerate(PARTITION) if part == 0]), atol=2)


@pytest.mark.parametrize("kept", [np.zeros((3, 3, 64, 63), np.uint8), np.zeros((3, 3, 64, 64))])
def test_a_cache_of_something_else_is_read_again(folder, kept):
    first = celeba()
    for path in left_behind(folder):
        np.savez(path, images=kept)
    assert torch.equal(celeba().test.batch["image"], first.test.batch["image"]) and celeba().test.batch["image"].dtype == torch.uint8


@pytest.mark.parametrize("harm", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b"PK" + bytes(len(b))])
def test_a_broken_cache_is_read_again(folder, harm):
    first = celeba()
    for path in left_behind(folder):
        path.write_bytes(harm(path.read_bytes()))
    assert torch.equal(celeba().test.batch["image"], first.test.batch["image"])


def test_a_cache_that_cannot_be_written_costs_only_time(folder, capsys):
    (folder.parents[1] / "cache").write_text("a file where the folder should be")
    assert len(celeba().train) == 5
    assert "could not be kept" in capsys.readouterr().err


LISTS = [
    (ATTRIBUTE_LIST, "10\n", "11\n", "announces 11 images, found 10"),
    (ATTRIBUTE_LIST, "10\n", "ten\n", "wanted the number of images in its first line"),
    (ATTRIBUTE_LIST, " Young", "", "found 39 attributes in its second line; wanted the 40"),
    (ATTRIBUTE_LIST, "Bald Bangs", "Bangs Bald", "in another order in its second line"),
    (ATTRIBUTE_LIST, "000003.jpg ", "000003.jpg 1 ", "found 41 values for 000003.jpg; wanted 40"),
    (ATTRIBUTE_LIST, "000001.jpg  1", "000001.jpg  0", "for 000001.jpg; wanted 40, each 1 or -1"),
    (ATTRIBUTE_LIST, "000003.jpg", "000002.jpg", "found an image twice"),
    (ATTRIBUTE_LIST, "000003.jpg", "../../secret.jpg", r"image name '../../secret.jpg'; wanted a plain name"),
    (ATTRIBUTE_LIST, "000003.jpg", "/etc/passwd.jpg", "image name '/etc/passwd.jpg'"),
    (ATTRIBUTE_LIST, "000003.jpg", "..\\\\x.jpg", "wanted a plain name"),
    (ATTRIBUTE_LIST, "000003.jpg", "000003.png", "wanted a plain name"),
    (ATTRIBUTE_LIST, "000003.jpg", "000013.jpg", "differ in 2 images, the first 000003.jpg"),
    (ATTRIBUTE_LIST, "000003.jpg", "00000é.jpg", "found bytes that are no text"),
    (PARTITION_LIST, "000003.jpg 2", "000003.jpg 3", "found the line '000003.jpg 3'"),
    (PARTITION_LIST, "000003.jpg 2\n", "", "differ in 1 images, the first 000003.jpg"),
    (PARTITION_LIST, "000003.jpg 2", "000003.jpg", "wanted an image's name and 0, 1 or 2"),
    (PARTITION_LIST, "000003.jpg", "../000003.jpg", "wanted a plain name"),
    (PARTITION_LIST, "000003.jpg", "000002.jpg", "found 000002.jpg twice"),
]


@pytest.mark.parametrize(("name", "old", "new", "sentence"), LISTS)
def test_broken_lists_are_refused(folder, name, old, new, sentence):
    edit(folder / name, old, new)
    with pytest.raises(BadFile, match=sentence):
        faces("best")
    assert left_behind(folder) == []


def test_a_list_cut_off_or_empty_is_refused(folder):
    whole = (folder / ATTRIBUTE_LIST).read_text()
    cuts = ((whole[:-30], "values for 000010.jpg"), ("", "first line"), (whole[:-200], "announces 10 images, found 9|values for"))
    for text, sentence in cuts:
        (folder / ATTRIBUTE_LIST).write_text(text)
        with pytest.raises(BadFile, match=sentence):
            celeba()
    (folder / ATTRIBUTE_LIST).write_text(whole)
    (folder / PARTITION_LIST).write_text((folder / PARTITION_LIST).read_text().replace("jpg 1", "jpg 0"))
    with pytest.raises(BadFile, match="no image of the validation part"):
        celeba()


def test_a_part_is_missing(folder):
    (folder / PARTITION_LIST).unlink()
    with pytest.raises(FileNotFoundError, match=f"missing {PARTITION_LIST} of CelebA, which no program may download"):
        faces("best")


def wrong_size(path):
    Image.new("RGB", (218, 178)).save(path)


def huge(path):
    Image.new("L", (9000, 9000)).save(path)


def bomb(path):
    """A header of 65500 by 65500, which Pillow refuses before it says the size."""
    content = bytearray(path.read_bytes())
    at = content.index(b"\xff\xc0") + 5
    content[at : at + 4] = (65500).to_bytes(2, "big") * 2
    path.write_bytes(content)


def no_folder(path):
    for file in path.parent.iterdir():
        file.unlink()
    path.parent.rmdir()
    path.parent.write_text("the name of the folder, and no folder")


def cut(path):
    path.write_bytes(path.read_bytes()[:-700])


def not_an_image(path):
    path.write_bytes(b"<html>quota exceeded</html>")


def another_format(path):
    Image.new("RGB", (178, 218)).save(path, format="PNG")


def header_only(path):
    path.write_bytes(path.read_bytes()[:40])


@pytest.mark.parametrize(
    ("harm", "error", "sentence"),
    [
        (wrong_size, BadFile, "000008.jpg: found an image of 218x178, wanted 178x218"),
        (huge, BadFile, "000008.jpg: found an image of 9000x9000, wanted 178x218"),
        (bomb, BadFile, "000008.jpg: Image size .* Wanted 178x218"),
        (no_folder, FileNotFoundError, f"missing {IMAGES} of CelebA"),
        (cut, BadFile, "000008.jpg: a broken or partial JPEG"),
        (not_an_image, BadFile, "000008.jpg: found no JPEG"),
        (another_format, BadFile, "000008.jpg: found no JPEG"),
        (header_only, BadFile, "000008.jpg: (found no|a broken or partial) JPEG"),
        (Path.unlink, FileNotFoundError, "missing 000008.jpg of CelebA"),
    ],
)
def test_broken_photographs_are_refused(folder, harm, error, sentence):
    harm(folder / IMAGES / "000008.jpg")
    with pytest.raises(error, match=sentence):
        celeba()
    assert not [p for p in left_behind(folder) if "validation" in p.name or p.suffix != ".npz"]


def test_without_pillow(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImportError, match="needs Pillow: pip install pillow"):
        celeba()
    assert left_behind(folder) == []


@pytest.mark.skipif(not Path(os.environ.get("MMVAE_DATA") or "/nowhere", "celeba").is_dir(), reason="MMVAE_DATA holds no CelebA")
def test_celeba_itself():
    found = celeba(train=64, validation=64, test=64)
    assert 0.2 < found.train.batch["attributes"].mean() * 18 / 4 < 2
