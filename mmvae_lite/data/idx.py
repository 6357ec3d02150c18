"""Reading the IDX format of MNIST and Fashion-MNIST, strictly."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np

MAX_ITEMS = 2**28


class BadFile(ValueError):
    """A data file that is not what its name says."""


def read_idx(path: Path, ndim: int) -> np.ndarray:
    """Read an IDX file of unsigned bytes, gzipped or not, with `ndim` axes: 3 for images, 1 for labels.

    Returns a uint8 array of the shape in the header.  Raises FileNotFoundError, or BadFile with one sentence
    for a wrong magic number, an absurd header, a truncated or an over-long file, or broken compression.
    """
    path = Path(path)
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rb") as f:
            return _parse(f, path.name, ndim)
    except (gzip.BadGzipFile, EOFError, zlib.error) as e:
        raise BadFile(f"{path.name}: broken or partial gzip file ({e}); delete it and fetch it again") from None


def _parse(f, name: str, ndim: int) -> np.ndarray:
    header = f.read(4 + 4 * ndim)
    magic = header[:4]
    if magic != bytes([0, 0, 8, ndim]):
        raise BadFile(f"{name}: found magic bytes {magic.hex() or 'none'}, wanted {bytes([0, 0, 8, ndim]).hex()} (IDX, bytes, {ndim} axes)")
    if len(header) < 4 + 4 * ndim:
        raise BadFile(f"{name}: the file ends inside its header; delete it and fetch it again")
    shape = struct.unpack(f">{ndim}I", header[4:])
    size = math.prod(shape)
    if not 0 < size <= MAX_ITEMS:
        raise BadFile(f"{name}: the header announces shape {shape}, {size} bytes, wanted 1 to {MAX_ITEMS}")
    data = f.read(size + 1)
    if len(data) != size:
        raise BadFile(f"{name}: the header announces {size} bytes, found {'more' if len(data) > size else len(data)}; delete it and fetch it again")
    return np.frombuffer(data, np.uint8).reshape(shape)


def write_idx(path: Path, array: np.ndarray) -> None:
    """Write a uint8 array as an IDX file, gzipped if the name ends in .gz."""
    array = np.ascontiguousarray(array, np.uint8)
    header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    opener = gzip.open if Path(path).suffix == ".gz" else open
    with opener(path, "wb") as f:
        f.write(header + array.tobytes())
