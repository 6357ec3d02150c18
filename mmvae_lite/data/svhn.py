"""SVHN, cropped digits of house numbers (Netzer et al. 2011): 73 257 and 26 032 pictures of 3x32x32."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from mmvae_lite.data.idx import BadFile
from mmvae_lite.data.mat import read_mat
from mmvae_lite.data.parts import Part
from mmvae_lite.data.sources import Source, obtain

URL = "http://ufldl.stanford.edu/housenumbers/"
SVHN = (
    Source("svhn", "train_32x32.mat", URL + "train_32x32.mat", "e26dedcc434d2e4c54c9b2d4a06d8373"),
    Source("svhn", "test_32x32.mat", URL + "test_32x32.mat", "eb5a983be6a315427106f1b164d9cef3"),
)
MAX_ITEMS = 100_000


def svhn(download: bool = False) -> tuple[Part, Part]:
    """The training and the test partition: `street` [items, 3, 32, 32], 256 levels, and the digits as classes.

    Raises as `obtain` and `read_svhn` do.
    """
    train, test = (read_svhn(path) for path in obtain(SVHN, download))
    return train, test


def read_svhn(path: Path) -> Part:
    """One file of the cropped digits.  Its label 10 is the digit 0.

    Raises FileNotFoundError, or BadFile with one sentence for anything that is not such a file.
    """
    path = Path(path)
    held = read_mat(path, {"X": MAX_ITEMS * 3 * 32 * 32, "y": MAX_ITEMS})
    images, labels = held["X"], held["y"].reshape(-1)
    if images.ndim != 4 or images.shape[:3] != (32, 32, 3) or images.dtype != np.uint8:
        raise BadFile(f"{path.name}: found X of shape {list(images.shape)} and {images.dtype}, wanted [32, 32, 3, items] and uint8")
    if held["y"].shape != (images.shape[3], 1):
        raise BadFile(f"{path.name}: found {images.shape[3]} images and labels of shape {list(held['y'].shape)}, wanted one label for each image")
    if not np.isin(labels, np.arange(1, 11)).all():
        raise BadFile(f"{path.name}: found labels from {labels.min()} to {labels.max()}, wanted 1 to 10")
    pictures = np.ascontiguousarray(images.transpose(3, 2, 0, 1))
    return Part({"street": torch.from_numpy(pictures)}, torch.from_numpy(labels.astype(np.int64) % 10))
