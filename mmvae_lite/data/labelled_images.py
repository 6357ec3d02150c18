"""Images with class labels: MNIST, Fashion-MNIST, and the digits that ship with scikit-learn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.nn import functional as F

from mmvae_lite.checks import check_name
from mmvae_lite.data.idx import BadFile, read_idx
from mmvae_lite.data.sources import MissingFiles, Source, obtain

# The files are the originals; these addresses are mirrors kept by PyTorch and by the authors of Fashion-MNIST.
MNIST_URL = "https://ossci-datasets.s3.amazonaws.com/mnist/"
FASHION_URL = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
FILES = ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz", "t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz")
MNIST_MD5 = (
    "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "d53e105ee54ea40749a09fcbcd1e9432",
    "9fb629c4189551a2d022fa330f9573f3",
    "ec29112dd5afa0611ce80d1b7f02629c",
)
FASHION_MD5 = (
    "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "25c81989df183df01b3e8a0aad5dffbe",
    "bef4ecab320f06d8554ea6380940ec79",
    "bb300cfdad3c16e7a12a480ee83cd310",
)
MNIST = tuple(Source("mnist", n, MNIST_URL + n, h) for n, h in zip(FILES, MNIST_MD5))
FASHION_MNIST = tuple(Source("fashion-mnist", n, FASHION_URL + n, h) for n, h in zip(FILES, FASHION_MD5))

DIGITS = tuple("0123456789")
GARMENTS = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")


@dataclass(frozen=True)
class Split:
    """Aligned items: `images` [items, 1, 28, 28] in [0, 1] and class numbers `classes` [items]."""

    images: Float[Tensor, "items 1 28 28"]
    classes: Int[Tensor, "items"]

    def __len__(self) -> int:
        return len(self.classes)

    def batch(self) -> dict[str, Tensor]:
        """The two modalities `image` [items, 1, 28, 28] and `label`, one-hot [items, 10]."""
        return {"image": self.images, "label": F.one_hot(self.classes, 10).to(self.images.dtype)}

    def levels(self) -> UInt8[Tensor, "items 1 28 28"]:
        """The images in 256 levels, which take a quarter of the memory."""
        return (self.images * 255).round().to(torch.uint8)

    def first(self, n: int) -> "Split":
        """The first n items, or all of them if there are fewer."""
        return Split(self.images[:n], self.classes[:n])


@dataclass(frozen=True)
class LabelledImages:
    """A data set with its official splits.

    name: how it is called in results; description: one sentence for captions;
    stand_in: True when it stands in for a set that the papers use; class_names: 10 names.
    """

    name: str
    description: str
    stand_in: bool
    train: Split
    test: Split
    class_names: tuple[str, ...]


def _idx_set(name: str, description: str, sources: tuple[Source, ...], class_names: tuple[str, ...], download: bool) -> LabelledImages:
    train_x, train_y, test_x, test_y = obtain(sources, download)
    return LabelledImages(name, description, False, _idx_split(train_x, train_y), _idx_split(test_x, test_y), class_names)


def _idx_split(images_path, labels_path) -> Split:
    images, labels = read_idx(images_path, ndim=3), read_idx(labels_path, ndim=1)
    if len(images) != len(labels):
        raise BadFile(f"{images_path.name} holds {len(images)} images, {labels_path.name} {len(labels)} labels; wanted the same number")
    if images.shape[1:] != (28, 28):
        raise BadFile(f"{images_path.name}: found images of {images.shape[1]}x{images.shape[2]}, wanted 28x28")
    if labels.max() > 9:
        raise BadFile(f"{labels_path.name}: found label {labels.max()}, wanted 0 to 9")
    return Split(torch.from_numpy(images.astype(np.float32) / 255)[:, None], torch.from_numpy(labels.astype(np.int64)))


def mnist(download: bool = False) -> LabelledImages:
    """MNIST (LeCun et al. 1998): 60 000 and 10 000 handwritten digits.  Raises as `obtain` and `read_idx` do."""
    return _idx_set("mnist", "MNIST, 28x28 handwritten digits", MNIST, DIGITS, download)


def fashion_mnist(download: bool = False) -> LabelledImages:
    """Fashion-MNIST (Xiao et al. 2017): 60 000 and 10 000 garments.  Raises as `obtain` and `read_idx` do."""
    return _idx_set("fashion-mnist", "Fashion-MNIST, 28x28 garments", FASHION_MNIST, GARMENTS, download)


def digits(download: bool = False) -> LabelledImages:
    """The handwritten digits of scikit-learn (Alpaydin and Kaynak 1998), enlarged from 8x8 to 28x28.

    They ship with scikit-learn, so there is nothing to download.  Each is enlarged to 20x20 and set in a frame
    of 4 empty pixels, as MNIST frames its digits.  A fixed fifth of every class is held out for testing.
    Raises ImportError without scikit-learn.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise ImportError(
            "the digits that stand in for MNIST come with scikit-learn: pip install scikit-learn, or put MNIST into the folder that MMVAE_DATA names"
        ) from None

    raw = load_digits()
    small = torch.from_numpy(raw.images.astype(np.float32) / 16)[:, None]
    images = F.pad(F.interpolate(small, size=20, mode="bicubic", align_corners=False).clamp(0, 1), (4, 4, 4, 4))
    classes = torch.from_numpy(raw.target.astype(np.int64))
    # the k-th item of its class goes to the test split when k is a multiple of 5
    seen = F.one_hot(classes, 10).cumsum(0).gather(1, classes[:, None])[:, 0] - 1
    held_out = seen % 5 == 4
    train, test = (Split(images[mask], classes[mask]) for mask in (~held_out, held_out))
    return LabelledImages("digits", "scikit-learn's 8x8 handwritten digits, enlarged to 28x28", True, train, test, DIGITS)


SETS: dict[str, Callable[..., LabelledImages]] = {"mnist": mnist, "fashion-mnist": fashion_mnist, "digits": digits}


def load(name: str, download: bool = False) -> LabelledImages:
    """Load a data set by name: `mnist`, `fashion-mnist` or `digits`.

    Raises KeyError for an unknown name, FileNotFoundError when files are missing and `download` is False.
    """
    check_name("data set", name, SETS)
    return SETS[name](download)


def best_available(kind: str = "digits") -> LabelledImages:
    """The best set of handwritten digits at hand, without a download: MNIST, else scikit-learn's digits.

    The result says which one it is.  A broken MNIST file raises; only a missing one falls back.
    """
    check_name("kind of data", kind, ["digits"])
    try:
        return mnist()
    except MissingFiles:
        return digits()
