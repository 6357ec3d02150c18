"""CelebA (Liu et al. 2015): photographs of faces with binary attributes, from the folder in which its authors publish it.

Eighteen of the forty attributes are used, those that can be seen (Perarnau et al. 2016; Lee and Pavlovic 2020).  The
authors' licence and the place where the files lie allow no download by a program, so the files have to be there.
"""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mmvae_lite.checks import check_positive
from mmvae_lite.data.idx import BadFile
from mmvae_lite.data.parts import MultimodalSet, Part
from mmvae_lite.data.sources import cache_folder, user_folder

COLUMNS = tuple(
    """5_o_Clock_Shadow Arched_Eyebrows Attractive Bags_Under_Eyes Bald Bangs Big_Lips Big_Nose Black_Hair Blond_Hair Blurry
    Brown_Hair Bushy_Eyebrows Chubby Double_Chin Eyeglasses Goatee Gray_Hair Heavy_Makeup High_Cheekbones Male
    Mouth_Slightly_Open Mustache Narrow_Eyes No_Beard Oval_Face Pale_Skin Pointy_Nose Receding_Hairline Rosy_Cheeks Sideburns
    Smiling Straight_Hair Wavy_Hair Wearing_Earrings Wearing_Hat Wearing_Lipstick Wearing_Necklace Wearing_Necktie Young""".split()
)
"""The forty attributes in the order of the published list."""

CHOSEN = (4, 5, 8, 9, 11, 12, 15, 17, 18, 20, 21, 22, 26, 28, 31, 32, 33, 35)
ATTRIBUTES = tuple(COLUMNS[i] for i in CHOSEN)
"""The eighteen attributes that are used, in order."""

IMAGES, ATTRIBUTE_LIST, PARTITION_LIST = "img_align_celeba", "list_attr_celeba.txt", "list_eval_partition.txt"
PARTS = ("train", "validation", "test")
PHOTOGRAPH = (178, 218)
# 168 rows by 178 columns about the centre: torchvision's CenterCrop((168, 178)) in the program of Lee and Pavlovic
CROP = (0, 25, 178, 193)
SIZE = 64
BLOCK = 512


def celeba_folder() -> Path | None:
    """The folder `celeba` in the user's folder or the cache, or None."""
    folders = [folder / "celeba" for folder in (user_folder(), cache_folder()) if folder is not None]
    return next((folder for folder in folders if folder.is_dir()), None)


def celeba(train: int | None = None, validation: int | None = None, test: int | None = None) -> MultimodalSet:
    """CelebA with its official partition: `image` [items, 3, 64, 64] in 256 levels, `attributes` [items, 18] of 0 and 1.

    train, validation, test: how many of each part, the first ones; all unless given.
    A photograph of 178 by 218 is cropped to 178 columns by 168 rows about its centre and resized.  The result is kept in the
    cache, and used again while names, sizes and times of the photographs are the same.

    Raises FileNotFoundError when something is missing, BadFile when a file is not as published, ImportError without Pillow.
    """
    limits = {"train": train, "validation": validation, "test": test}
    for name, limit in limits.items():
        if limit is not None:
            check_positive(name, limit)
    folder = _whole_folder()
    names, attributes = read_attributes(folder / ATTRIBUTE_LIST)
    partition = read_partition(folder / PARTITION_LIST, names)
    parts = {}
    for code, (name, limit) in enumerate(limits.items()):
        rows = (partition == code).nonzero()[0][:limit]
        if len(rows) == 0:
            raise BadFile(f"{PARTITION_LIST}: found no image of the {name} part, which has the number {code}")
        images = _images(folder / IMAGES, [names[i] for i in rows], name)
        parts[name] = Part({"image": images, "attributes": torch.from_numpy(attributes[rows])})
    return MultimodalSet("celeba", "CelebA, photographs of faces with 18 attributes", False, **parts, class_names=ATTRIBUTES)


def _whole_folder() -> Path:
    folder = celeba_folder()
    wanted = (IMAGES, ATTRIBUTE_LIST, PARTITION_LIST)
    there = (Path.is_dir, Path.is_file, Path.is_file)
    missing = [name for name, holds in zip(wanted, there) if folder is None or not holds(folder / name)]
    if missing:
        raise FileNotFoundError(
            f"missing {', '.join(missing)} of CelebA, which no program may download: take the aligned and cropped images and the two "
            f"lists from https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html and put {IMAGES}/, {ATTRIBUTE_LIST} and {PARTITION_LIST} "
            "under celeba/ in the folder that MMVAE_DATA names"
        )
    return folder


def _lines(path: Path) -> list[list[str]]:
    try:
        return [line.split() for line in path.read_text("ascii").splitlines() if line.strip()]
    except UnicodeDecodeError:
        raise BadFile(f"{path.name}: found bytes that are no text; wanted the list as CelebA publishes it") from None


def _check_image_name(path: Path, name: str) -> None:
    """An image's name comes from a file that anyone may have written: it must not lead out of the folder."""
    if not name.endswith(".jpg") or not name[:-4].replace("_", "").replace("-", "").isalnum():
        raise BadFile(f"{path.name}: found the image name {name!r}; wanted a plain name such as 000001.jpg")


def read_attributes(path: Path) -> tuple[list[str], np.ndarray]:
    """The names of the images and their eighteen attributes [items, 18], 0 or 1, from the published list of attributes.

    Raises BadFile when the list is not as published.
    """
    lines = _lines(path)
    if len(lines) < 3 or len(lines[0]) != 1 or not lines[0][0].isdigit():
        raise BadFile(f"{path.name}: wanted the number of images in its first line, the attributes' names in its second, then the images")
    if tuple(lines[1]) != COLUMNS:
        found = f"{len(lines[1])} attributes" if len(lines[1]) != 40 else "attributes of other names or in another order"
        raise BadFile(f"{path.name}: found {found} in its second line; wanted the 40 of CelebA, {COLUMNS[0]} to {COLUMNS[-1]}")
    announced, rows = int(lines[0][0]), lines[2:]
    if announced != len(rows):
        raise BadFile(f"{path.name} announces {announced} images, found {len(rows)}; the file is cut off or changed, get it again")
    for row in rows:
        _check_image_name(path, row[0])
        if len(row) != 41 or not {"1", "-1"}.issuperset(row[1:]):
            raise BadFile(f"{path.name}: found {len(row) - 1} values for {row[0]}; wanted 40, each 1 or -1")
    names = [row[0] for row in rows]
    if len(set(names)) != len(names):
        raise BadFile(f"{path.name}: found an image twice; wanted each once")
    return names, np.array([[row[1 + i] == "1" for i in CHOSEN] for row in rows], np.float32)


def read_partition(path: Path, names: Sequence[str]) -> np.ndarray:
    """The part of each of these images [items], 0 train, 1 validation, 2 test, from the published list of parts.

    Raises BadFile when the list is not as published or names other images.
    """
    part = {}
    for row in _lines(path):
        _check_image_name(path, row[0])
        if len(row) != 2 or row[1] not in ("0", "1", "2"):
            raise BadFile(f"{path.name}: found the line {' '.join(row)[:60]!r}; wanted an image's name and 0, 1 or 2")
        if row[0] in part:
            raise BadFile(f"{path.name}: found {row[0]} twice; wanted each image once")
        part[row[0]] = int(row[1])
    odd = sorted(part.keys() ^ set(names))
    if odd:
        raise BadFile(f"{path.name} and {ATTRIBUTE_LIST} differ in {len(odd)} images, the first {odd[0]}; get both from one place")
    return np.array([part[name] for name in names])


def _images(folder: Path, names: Sequence[str], part: str) -> Tensor:
    """The images [items, 3, 64, 64] from the cache, or read and put there."""
    try:
        stats = [(name, info.st_size, info.st_mtime_ns) for name in names for info in [(folder / name).stat()]]
    except FileNotFoundError as e:
        raise FileNotFoundError(
            f"missing {Path(e.filename).name} of CelebA, which {ATTRIBUTE_LIST} names: unpack the images again into {IMAGES}/"
        ) from None
    key = hashlib.sha256(repr((CROP, SIZE, stats)).encode()).hexdigest()[:16]
    kept = cache_folder() / "celeba-64" / f"{part}-{key}.npz"
    shape = (len(names), 3, SIZE, SIZE)
    images = _from_cache(kept, shape)
    if images is None:
        images = _read_all(folder, names, part)
        _to_cache(kept, images)
    return torch.from_numpy(images)


def _from_cache(path: Path, shape: tuple[int, ...]) -> np.ndarray | None:
    """What was kept, or None; a file that is not whole is as good as none."""
    try:
        # numpy leaves a file open that it cannot read
        with open(path, "rb") as f, np.load(f, allow_pickle=False) as kept:
            images = kept["images"]
    except (OSError, ValueError, KeyError, EOFError, TypeError, AttributeError, zipfile.BadZipFile):
        return None
    return images if images.shape == shape and images.dtype == np.uint8 else None


def _to_cache(path: Path, images: np.ndarray) -> None:
    """Keep the images under their final name only when they are all written; a full disk costs the next reading, not this one."""
    partial = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False) as f:
            partial = Path(f.name)
            np.savez(f, images=images)
        os.replace(partial, path)
    except OSError as e:
        sys.stderr.write(f"the images of CelebA could not be kept in {path.parent} ({e}); they are read again next time\n")
    finally:
        if partial is not None:
            partial.unlink(missing_ok=True)


def _read_all(folder: Path, names: Sequence[str], part: str) -> np.ndarray:
    try:
        import PIL  # noqa: F401
    except ImportError:
        raise ImportError("reading the photographs of CelebA needs Pillow: pip install pillow") from None

    images = np.empty((len(names), 3, SIZE, SIZE), np.uint8)
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for start in range(0, len(names), BLOCK):
            block = names[start : start + BLOCK]
            for i, image in enumerate(pool.map(lambda name: read_image(folder / name), block)):
                images[start + i] = image
            _report(part, start + len(block), len(names))
    return images


def _report(part: str, done: int, whole: int) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"\rCelebA, {part}: {done} of {whole} photographs" + ("\n" if done == whole else ""))


def read_image(path: Path) -> np.ndarray:
    """One photograph, cropped and resized: [3, 64, 64] in 256 levels.

    Raises BadFile when it is no whole JPEG of 178 by 218; the size is looked at before anything is unpacked.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path, formats=["JPEG"]) as photograph:
            if photograph.size != PHOTOGRAPH:
                found = "x".join(map(str, photograph.size))
                raise BadFile(f"{path.name}: found an image of {found}, wanted 178x218; {IMAGES}/ holds the aligned and cropped images")
            face = photograph.convert("RGB").crop(CROP).resize((SIZE, SIZE), Image.Resampling.BILINEAR)
    except BadFile:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as e:  # where warnings are errors
        raise BadFile(f"{path.name}: {e} Wanted 178x218; {IMAGES}/ holds the aligned and cropped images") from None
    except UnidentifiedImageError:
        raise BadFile(f"{path.name}: found no JPEG; unpack the images of CelebA again") from None
    except (OSError, SyntaxError, ValueError) as e:
        raise BadFile(f"{path.name}: a broken or partial JPEG ({e}); unpack the images of CelebA again") from None
    return np.asarray(face).transpose(2, 0, 1)
