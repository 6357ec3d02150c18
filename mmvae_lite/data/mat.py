"""Reading arrays from MATLAB's level 5 files, strictly: nothing is unpacked that is larger than what was asked for."""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mmvae_lite.data.idx import BadFile

MATRIX, COMPRESSED = 14, 15
STORED = {1: "i1", 2: "u1", 3: "<i2", 4: "<u2", 5: "<i4", 6: "<u4", 7: "<f4", 9: "<f8", 12: "<i8", 13: "<u8"}
NUMBERS = {6: "double", 7: "single", 8: "int8", 9: "uint8", 10: "int16", 11: "uint16", 12: "int32", 13: "uint32", 14: "int64", 15: "uint64"}
HEAD = 4096  # bytes of a variable that hold its kind, shape and name


def read_mat(path: Path, limits: Mapping[str, int]) -> dict[str, np.ndarray]:
    """The arrays of these names, in MATLAB's shapes and as they are stored; other variables are skipped.

    limits: name -> the most numbers that the array may hold.
    Raises FileNotFoundError, or BadFile with one sentence for another format, a missing name, an array that is no plain
    numbers or larger than its limit, and for a truncated or damaged file.
    """
    path = Path(path)
    found: dict[str, np.ndarray] = {}
    with open(path, "rb") as f:
        _check_header(f.read(128), path.name)
        while len(found) < len(limits) and (tag := f.read(8)):
            if len(tag) < 8:
                raise _cut(path.name)
            kind, size = struct.unpack("<II", tag)
            if kind not in (MATRIX, COMPRESSED):
                raise BadFile(f"{path.name}: found a part of type {kind}, wanted arrays (14 or 15); delete it and fetch it again")
            found |= _variable(f.read(size) if size <= path.stat().st_size else b"", size, kind == COMPRESSED, limits, path.name)
    if missing := [name for name in limits if name not in found]:
        raise BadFile(f"{path.name}: found no variable {missing[0]!r}, wanted {', '.join(limits)}")
    return found


def _cut(name: str) -> BadFile:
    return BadFile(f"{name}: the file is damaged or ends too early; delete it and fetch it again")


def _check_header(header: bytes, name: str) -> None:
    if not header.startswith(b"MATLAB 5.0 MAT-file") or header[124:128] != b"\x00\x01IM":
        raise BadFile(f"{name}: found a file that starts with {header[:19]!r}, wanted a MATLAB 5.0 MAT-file, little endian")


def _variable(packed: bytes, size: int, compressed: bool, limits: Mapping[str, int], file: str) -> dict[str, np.ndarray]:
    if len(packed) != size:
        raise _cut(file)
    try:
        name, kind, shape, start = _head(_unpacked(packed, HEAD) if compressed else packed[:HEAD], compressed)
        if name not in limits:
            return {}
        if kind not in NUMBERS:
            raise BadFile(f"{file}: {name!r} is of MATLAB's class {kind}, wanted real numbers")
        if min(shape, default=0) < 1 or math.prod(shape) > limits[name]:
            raise BadFile(f"{file}: the header announces {name!r} of shape {list(shape)}, wanted 1 to {limits[name]} numbers")
        # MATLAB stores numbers in no more bytes than their class has; one more byte tells that there is too much
        room = np.dtype(NUMBERS[kind]).itemsize * math.prod(shape)
        data = _unpacked(packed, start + 16 + room + 1, whole=True) if compressed else packed
        stored, values, _ = _element(data, start)
        if stored not in STORED or len(values) != math.prod(shape) * np.dtype(STORED[stored]).itemsize:
            raise BadFile(f"{file}: {name!r} has shape {list(shape)}, but {len(values)} bytes; delete it and fetch it again")
    except (struct.error, zlib.error, UnicodeDecodeError):
        raise _cut(file) from None
    return {name: np.frombuffer(values, STORED[stored]).reshape(shape, order="F")}


def _unpacked(packed: bytes, limit: int, whole: bool = False) -> bytes:
    stream = zlib.decompressobj()
    data = stream.decompress(packed, limit)
    if whole and not stream.eof:
        raise zlib.error("not whole")
    return data


def _head(data: bytes, tagged: bool) -> tuple[str, int, tuple[int, ...], int]:
    """Name, class and shape of a variable, and where its numbers start."""
    at = 8 if tagged else 0
    _, flags, at = _element(data, at)
    _, shape, at = _element(data, at)
    _, name, at = _element(data, at)
    (flag,) = struct.unpack_from("<I", flags)
    if flag & 0x800:
        raise struct.error("complex numbers")
    return bytes(name).decode("ascii"), flag & 0xFF, struct.unpack(f"<{len(shape) // 4}i", shape), at


def _element(data: bytes, at: int) -> tuple[int, memoryview, int]:
    """The type and the bytes of the element at a place, and where the next one starts."""
    kind, size = struct.unpack_from("<II", data, at)
    small = kind >> 16  # up to four bytes stand in the tag itself
    if small:
        return kind & 0xFFFF, memoryview(data)[at + 4 : at + 4 + min(small, 4)], at + 8
    return kind, memoryview(data)[at + 8 : at + 8 + size], at + 8 + size + -size % 8
