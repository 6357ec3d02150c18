"""CUB-200-2011 (Wah et al. 2011) with ten captions an image (Reed et al. 2016), from the folders their authors publish.

Two layouts under `cub/` are understood.  As published: `CUB_200_2011/` with `images.txt`, `classes.txt`,
`image_class_labels.txt` and `images/`, beside `text_c10/CLASS/IMAGE.txt`, `trainvalclasses.txt` and `testclasses.txt`.
As Shi et al. (2019) release it: `train/CLASS/IMAGE.jpg`, `test/CLASS/IMAGE.jpg`, and `text_trainvalclasses.txt` and
`text_testclasses.txt`, whose lines follow the images in the order of their names, ten each.  The licences allow no copy
here, and no program may download the captions, so the files have to be there.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mmvae_lite.checks import check_name
from mmvae_lite.data.drawn_birds import drawn_birds
from mmvae_lite.data.captions import Vocabulary
from mmvae_lite.data.idx import BadFile
from mmvae_lite.data.parts import MultimodalSet, Part
from mmvae_lite.data.sources import cache_folder, user_folder

CAPTIONS = 10
CLASSES = {"train": 150, "test": 50}
IMAGES = {"train": 8855, "test": 2933}
SIZE, RESNET_SIZE = 64, 224
RESNET = "resnet101-63fe2227.pth"
MAX_PIXELS = 50_000_000
LISTS = {"train": "trainvalclasses.txt", "test": "testclasses.txt"}
KINDS = ("pixels", "features")
SOURCES = ("best", "real", "stand-in")

_NAME = re.compile(r"[A-Za-z0-9_][\w.\-']*")


@dataclass(frozen=True)
class Listing:
    """One partition before its images are read: their paths, their classes' names, ten captions for each."""

    paths: list[Path]
    classes: list[str]
    captions: list[list[str]]


def cub_folder() -> Path | None:
    """The folder `cub` in the user's folder or the cache, or None."""
    folders = [folder / "cub" for folder in (user_folder(), cache_folder()) if folder is not None]
    return next((folder for folder in folders if folder.is_dir()), None)


def cub(images: str = "pixels", *, complete: bool = True, network: Callable[[Tensor], Tensor] | None = None, download: bool = False) -> MultimodalSet:
    """CUB: `image` and `caption`, word numbers of [32] positions; a tuple is an image with one of its ten captions.

    images: `pixels`, [3, 64, 64] in 256 levels, or `features`, the 2048 pooled features of a ResNet-101.
    complete: False reads a part of the set; else anything but 150 and 50 classes, 8855 and 2933 images is refused.
    network: from images [n, 3, 224, 224], normalised as for ImageNet, to features [n, d], instead of torchvision's.
    download: the weights of that network may be fetched by torchvision.

    The image of tuple i is row i div 10.  What was read is kept in the cache while the names, sizes and times of the
    files stay the same, except features of a network that was given.

    Raises FileNotFoundError when something is missing, BadFile when a file is not as published, ImportError without
    Pillow or, for features, torchvision, KeyError for another kind of images.
    """
    check_name("kind of images", images, KINDS)
    listings = read_listings(complete=complete)
    vocabulary = Vocabulary.of(text for ten in listings["train"].captions for text in ten)
    names = tuple(dict.fromkeys(name for part in listings.values() for name in part.classes))
    number = {name: i for i, name in enumerate(names)}
    parts = {}
    for name, listing in listings.items():
        rows = _pixels(listing.paths, name) if images == "pixels" else _features(listing.paths, name, network, download)
        texts = [text for ten in listing.captions for text in ten]
        classes = torch.tensor([number[c] for c in listing.classes]).repeat_interleave(CAPTIONS)
        index = {"image": torch.arange(len(rows)).repeat_interleave(CAPTIONS)}
        parts[name] = Part({"image": rows, "caption": vocabulary.encode(texts)}, classes, index, words={"caption": len(vocabulary)})
    what = "photographs of birds" if images == "pixels" else "ResNet-101 features of photographs of birds"
    return MultimodalSet("cub", f"CUB, {what} with ten captions each", False, **parts, class_names=names, words=vocabulary.words)


def birds(
    source: str = "best", *, download: bool = False, seed: int = 0, images: str = "pixels", train_species: int = 150, test_species: int = 50, each: int = 40
) -> MultimodalSet:
    """Birds with captions: `image` and `caption`, word numbers; ten tuples an image, test classes never seen in training.

    source: `real`, CUB from its folder; `stand-in`, `drawn_birds`; `best`, the former where its folder is.
    images: as in `cub`; drawn birds are pixels only.  train_species, test_species, each, seed: of drawn birds.
    download: the weights that make features of photographs may be fetched; photographs and captions never are.

    Raises KeyError for another source or kind of images, FileNotFoundError for a set that is not there, ValueError for
    features of drawn birds, and as `cub` and `drawn_birds` do.
    """
    check_name("source", source, SOURCES)
    check_name("kind of images", images, KINDS)
    if source == "real" or (source == "best" and cub_folder() is not None):
        return cub(images, download=download)
    if images == "features":
        raise ValueError("images: features are those of photographs; drawn birds have images='pixels', and `mmvae_lite.evaluation.bird_features` for scores")
    return drawn_birds(train_species, test_species, each, CAPTIONS, seed)


def read_listings(folder: Path | None = None, complete: bool = True) -> dict[str, Listing]:
    """The partitions `train` and `test` of a CUB folder, whose classes have nothing in common.  Raises as `cub`."""
    folder = folder or cub_folder()
    if folder is None:
        raise FileNotFoundError(
            "missing the folder cub/ in the folder that MMVAE_DATA names: put CUB_200_2011/ from https://www.vision.caltech.edu/datasets/cub_200_2011/ "
            "and text_c10/, trainvalclasses.txt and testclasses.txt of Reed et al. (https://github.com/reedscot/cvpr2016) into it"
        )
    released = (folder / "text_trainvalclasses.txt").is_file()
    listings = _released(folder) if released else _published(folder)
    _check_apart(listings["train"].classes, listings["test"].classes)
    for name, listing in listings.items():
        found, wanted = (len(set(listing.classes)), len(listing.paths)), (CLASSES[name], IMAGES[name])
        if complete and found != wanted:
            raise BadFile(f"CUB, {name}: found {found[0]} classes and {found[1]} images, wanted {wanted[0]} and {wanted[1]}; get the missing files again")
    return listings


def _check_apart(train: Sequence[str], test: Sequence[str]) -> None:
    shared = set(train) & set(test)
    if shared:
        raise BadFile(f"class {min(shared)} is in the training and in the test partition; wanted classes with nothing in common")


def _published(folder: Path) -> dict[str, Listing]:
    base = folder / "CUB_200_2011"
    text = folder / "text_c10"
    wanted = [base / "images.txt", base / "classes.txt", base / "image_class_labels.txt", base / "images", text, *(folder / name for name in LISTS.values())]
    missing = [str(path.relative_to(folder)) for path in wanted if not path.exists()]
    if missing:
        raise FileNotFoundError(f"missing {', '.join(missing)} under cub/: get CUB_200_2011 and the captions of Reed et al. and put them there")
    classes = _table(base / "classes.txt")
    labels = _table(base / "image_class_labels.txt")
    images = _table(base / "images.txt")
    if images.keys() != labels.keys():
        raise BadFile(f"images.txt lists {len(images)} images, image_class_labels.txt {len(labels)}, not the same; get both from one place")
    split = {name: _lines(folder / file) for name, file in LISTS.items()}
    for name, listed in split.items():
        unknown = sorted(set(listed) - set(classes.values()))
        if unknown:
            raise BadFile(f"{LISTS[name]}: found class {unknown[0]!r}, which classes.txt does not list")
        if len(set(listed)) != len(listed):
            raise BadFile(f"{LISTS[name]}: found a class twice; wanted each once")
    _check_apart(split["train"], split["test"])
    left = sorted(set(classes.values()) - set(split["train"]) - set(split["test"]))
    if left:
        raise BadFile(f"class {left[0]!r} is in neither {LISTS['train']} nor {LISTS['test']}; wanted every class in one of them")
    listings = {name: Listing([], [], []) for name in LISTS}
    of_class = {c: name for name, listed in split.items() for c in listed}
    for number, path in images.items():
        where = path.split("/")
        if len(where) != 2 or not path.endswith(".jpg"):
            raise BadFile(f"images.txt: found {path!r}, wanted CLASS/IMAGE.jpg")
        for piece in where:
            _check_plain("images.txt", piece)
        if where[0] != classes.get(labels[number]):
            raise BadFile(f"images.txt: {path!r} has class number {labels[number]}, which classes.txt calls {classes.get(labels[number])!r}")
        listing = listings[of_class[where[0]]]
        listing.paths.append(base / "images" / where[0] / where[1])
        listing.classes.append(where[0])
        listing.captions.append(_ten(text / where[0] / f"{where[1].removesuffix('.jpg')}.txt"))
    if len(set(images.values())) != len(images):
        raise BadFile("images.txt: found an image twice; wanted each once")
    return listings


def _released(folder: Path) -> dict[str, Listing]:
    listings = {}
    for name, file in (("train", "text_trainvalclasses.txt"), ("test", "text_testclasses.txt")):
        for path in (folder / file, folder / name):
            if not path.exists():
                raise FileNotFoundError(f"missing {path.name} under cub/; the released layout has train/, test/ and the two lists of captions")
        paths = sorted(path for path in (folder / name).glob("*/*.jpg") if path.is_file())
        captions = _lines(folder / file)
        if len(captions) != CAPTIONS * len(paths):
            raise BadFile(f"{file}: found {len(captions)} captions for {len(paths)} images in {name}/, wanted {CAPTIONS} each")
        ten = [captions[i : i + CAPTIONS] for i in range(0, len(captions), CAPTIONS)]
        listings[name] = Listing(paths, [path.parent.name for path in paths], ten)
    return listings


def _lines(path: Path) -> list[str]:
    try:
        return [line.strip() for line in path.read_text("utf-8").splitlines() if line.strip()]
    except UnicodeDecodeError:
        raise BadFile(f"{path.name}: found bytes that are no text; get the file again") from None


def _table(path: Path) -> dict[str, str]:
    """A list of `NUMBER VALUE`, the numbers from 1 on."""
    rows = [line.split() for line in _lines(path)]
    if not rows or any(len(row) != 2 for row in rows) or [row[0] for row in rows] != [str(i + 1) for i in range(len(rows))]:
        raise BadFile(f"{path.name}: wanted lines of a number, from 1 on, and one value; get the file again")
    return dict(rows)


def _check_plain(where: str, name: str) -> None:
    """A name comes from a file that anyone may have written: it must not lead out of the folder."""
    if not _NAME.fullmatch(name) or ".." in name:
        raise BadFile(f"{where}: found the name {name!r}; wanted plain names of letters, digits and . _ -")


def _ten(path: Path) -> list[str]:
    if not path.is_file():
        raise FileNotFoundError(f"missing text_c10/{path.parent.name}/{path.name}, the captions of one image; get the captions again")
    lines = _lines(path)
    if len(lines) != CAPTIONS:
        raise BadFile(f"text_c10/{path.parent.name}/{path.name}: found {len(lines)} captions, wanted {CAPTIONS}")
    return lines


def _picture(path: Path, size: int, crop: bool) -> np.ndarray:
    """One image as [3, size, size] of uint8: squeezed to a square, or its shorter side resized and its middle cut out."""
    try:
        from PIL import Image
    except ImportError:
        raise ImportError("CUB's photographs are read by Pillow, which is missing; install it with `pip install pillow`") from None
    name = f"{path.parent.name}/{path.name}"
    if not path.is_file():
        raise FileNotFoundError(f"missing the image {name} of CUB; get CUB_200_2011 again")
    try:
        with Image.open(path, formats=("JPEG",)) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise BadFile(f"{name}: found {width}x{height} pixels, wanted at most {MAX_PIXELS}; get the image again")
            image = image.convert("RGB")
    except (OSError, ValueError, SyntaxError) as e:
        if isinstance(e, BadFile):
            raise
        raise BadFile(f"{name}: broken or no JPEG ({e}); delete it and get it again") from None
    box = None
    if crop:
        side = min(width, height)
        box = ((width - side) / 2, (height - side) / 2, (width + side) / 2, (height + side) / 2)
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR, box)).transpose(2, 0, 1).copy()


def _pixels(paths: Sequence[Path], part: str) -> Tensor:
    """[images, 3, 64, 64] of uint8."""
    return _kept(paths, f"{part}-pixels-{SIZE}", lambda: _read(paths, SIZE, False, part))


def _read(paths: Sequence[Path], size: int, crop: bool, part: str) -> np.ndarray:
    found = np.empty((len(paths), 3, size, size), np.uint8)
    for i, path in enumerate(paths):
        found[i] = _picture(path, size, crop)
        if sys.stderr.isatty() and (i % 100 == 99 or i + 1 == len(paths)):
            sys.stderr.write(f"\rCUB, {part}: {i + 1} of {len(paths)} images" + ("\n" if i + 1 == len(paths) else ""))
    return found


def _features(paths: Sequence[Path], part: str, network: Callable[[Tensor], Tensor] | None, download: bool) -> Tensor:
    if network is not None:
        return torch.from_numpy(extract_features(paths, network, part))
    return _kept(paths, f"{part}-resnet101", lambda: extract_features(paths, resnet101(download), part))


@torch.no_grad()
def extract_features(paths: Sequence[Path], network: Callable[[Tensor], Tensor], part: str = "train", chunk: int = 64) -> np.ndarray:
    """Features [images, d] of images read at 224x224 and normalised as for ImageNet, which the paper's program leaves out."""
    mean, std = (torch.tensor(v)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    found = []
    for start in range(0, len(paths), chunk):
        pixels = torch.from_numpy(_read(paths[start : start + chunk], RESNET_SIZE, True, part))
        y = network((pixels.float() / 255 - mean) / std).flatten(1)
        if y.shape[0] != len(pixels) or not bool(torch.isfinite(y).all()):
            raise ValueError(f"network: found features of shape {list(y.shape)} for {len(pixels)} images, or values that are not finite")
        found.append(y.float().cpu().numpy())
    return np.concatenate(found)


def resnet101(download: bool = False) -> Callable[[Tensor], Tensor]:
    """torchvision's ResNet-101, trained on ImageNet, without its last layer: [n, 3, 224, 224] -> [n, 2048].

    Raises ImportError without torchvision, FileNotFoundError when its weights are not there and `download` is False.
    """
    try:
        from torchvision.models import ResNet101_Weights, resnet101 as build
    except ImportError:
        raise ImportError("ResNet features need torchvision, which is missing; install it, or use images='pixels'") from None
    weights = ResNet101_Weights.IMAGENET1K_V1
    here = Path(torch.hub.get_dir(), "checkpoints", RESNET)
    if not here.is_file() and not download:
        raise FileNotFoundError(f"missing {RESNET}, the weights of the network: put it into {here.parent}, or ask for a download with download=True")
    state = torch.load(here, map_location="cpu", weights_only=True) if here.is_file() else weights.get_state_dict(progress=True, check_hash=True)
    network = build()
    network.load_state_dict(state)
    network.fc = torch.nn.Identity()
    return network.eval().requires_grad_(False)


def _kept(paths: Sequence[Path], name: str, make: Callable[[], np.ndarray]) -> Tensor:
    """An array from the cache, or made and put there; it belongs to these files as they are now."""
    stamp = hashlib.sha256()
    for path in paths:
        if not path.is_file():
            raise FileNotFoundError(f"missing the image {path.parent.name}/{path.name} of CUB; get the images again")
        known = path.stat()
        stamp.update(f"{path}/{known.st_size}/{known.st_mtime_ns}\n".encode())
    file = cache_folder() / "cub" / f"{name}-{stamp.hexdigest()[:16]}.npz"
    try:
        with np.load(file, allow_pickle=False) as kept:
            found = kept["rows"]
        if len(found) == len(paths):
            return torch.from_numpy(found)
    except FileNotFoundError:
        pass
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        file.unlink(missing_ok=True)  # broken: it is made again
    rows = make()
    file.parent.mkdir(parents=True, exist_ok=True)
    handle, partial = tempfile.mkstemp(dir=file.parent, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as f:
            np.savez(f, rows=rows)
        os.replace(partial, file)
    finally:
        Path(partial).unlink(missing_ok=True)
    return torch.from_numpy(rows)
