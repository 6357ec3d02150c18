"""SVHN's format: small files that scipy writes, and the refusal of everything broken."""

import math
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
import torch
from scipy.io import loadmat, savemat

from mmvae_lite.data.idx import BadFile
from mmvae_lite.data.mat import read_mat
from mmvae_lite.data.svhn import SVHN, read_svhn, svhn


def content(n=13, **changes):
    rng = np.random.default_rng(0)
    held = {"X": rng.integers(0, 256, (32, 32, 3, n), dtype=np.uint8), "y": (1 + np.arange(n) % 10).astype(np.uint8)[:, None]}
    return {name: value for name, value in (held | changes).items() if value is not None}


@pytest.fixture
def written(tmp_path):
    def write(compressed=True, name="train_32x32.mat", **changes):
        savemat(tmp_path / name, content(**changes), do_compression=compressed)
        return tmp_path / name

    return write


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("labels", [np.uint8, np.float64, np.int32])
def test_images_and_digits(written, compressed, labels):
    held = content()
    part = read_svhn(written(compressed, y=held["y"].astype(labels)))
    assert part.batch["street"].shape == (13, 3, 32, 32) and part.batch["street"].dtype == torch.uint8
    assert part.classes.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1, 2, 3]
    for item, channel, row, column in ((0, 0, 0, 0), (4, 2, 7, 30), (12, 1, 31, 2)):
        assert part.batch["street"][item, channel, row, column] == held["X"][row, column, channel, item]


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i4", "f4", "f8", "i8"])
@pytest.mark.parametrize("shape", [(1, 1), (1, 3), (2, 3, 4), (5, 1)])
def test_arrays_are_those_of_scipy(tmp_path, compressed, dtype, shape):
    array = np.random.default_rng(1).integers(0, 100, shape).astype(dtype)
    savemat(tmp_path / "a.mat", {"other": np.ones(3), "a_long_name": array, "words": "text"}, do_compression=compressed)
    ours, theirs = read_mat(tmp_path / "a.mat", {"a_long_name": 100})["a_long_name"], loadmat(tmp_path / "a.mat")["a_long_name"]
    assert ours.shape == theirs.shape and np.array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"X": None}, "no variable 'X'"),
        ({"y": None}, "no variable 'y'"),
        ({"X": np.zeros((32, 32, 1, 13), np.uint8)}, r"X of shape \[32, 32, 1, 13\]"),
        ({"X": np.zeros((13, 3, 32, 32), np.uint8)}, r"wanted \[32, 32, 3, items\]"),
        ({"X": np.zeros((32, 32, 3, 13), np.int16)}, "and int16, wanted"),
        ({"X": "text"}, "'X' is of MATLAB's class 4"),
        ({"X": np.array([{}, 1], dtype=object)}, "'X' is of MATLAB's class"),
        ({"y": np.ones((12, 1), np.uint8)}, r"13 images and labels of shape \[12, 1\]"),
        ({"y": np.zeros((13, 1), np.uint8)}, "labels from 0 to 0, wanted 1 to 10"),
        ({"y": np.full((13, 1), 1.5)}, "labels from 1.5 to 1.5"),
        ({"y": np.full((13, 1), np.nan)}, "labels from nan"),
        ({"y": np.ones((13, 1)) * 1j}, "damaged"),
    ],
)
def test_what_is_no_such_file_is_refused(written, changes, sentence):
    with pytest.raises(BadFile, match=sentence):
        read_svhn(written(**changes))


@pytest.mark.parametrize("compressed", [True, False])
def test_a_cut_file_is_refused_wherever_it_ends(written, compressed):
    whole = written(compressed).read_bytes()
    path = written(compressed)
    for kept in (0, 1, 100, 127, 130, 134, 140, 200, len(whole) // 2, len(whole) - 30, len(whole) - 1):
        path.write_bytes(whole[:kept])
        with pytest.raises(BadFile, match="ends too early|found a file that starts with|no variable"):
            read_svhn(path)


def test_a_damaged_file_is_refused(written):
    path = written()
    whole = bytearray(path.read_bytes())
    for at in (160, len(whole) // 3, len(whole) // 2):
        damaged = whole.copy()
        damaged[at] ^= 0xFF
        path.write_bytes(damaged)
        with pytest.raises(BadFile):
            read_svhn(path)


def forged(shape, size, kind=9):
    """A variable X whose header says this shape and whose numbers are `size` bytes."""
    dims = struct.pack(f"<{len(shape)}i", *shape)
    body = struct.pack("<IIII", 6, 8, kind, 0) + struct.pack("<II", 5, len(dims)) + dims + bytes(-len(dims) % 8)
    body += struct.pack("<HH4s", 1, 1, b"X") + struct.pack("<II", 2, size) + bytes(size)
    return struct.pack("<II", 14, len(body)) + body


HEADER = b"MATLAB 5.0 MAT-file, forged".ljust(124) + b"\x00\x01IM"


@pytest.mark.parametrize(
    ("shape", "size", "sentence"),
    [
        ((32, 32, 3, 2**30), 64, "announces 'X' of shape .* wanted 1 to"),
        ((2**16, 2**16, 2**16, 2**16), 64, "announces 'X'"),
        ((32, 32, 3, 0), 0, "announces 'X'"),
        ((-32, -32, 3, 1), 3072, "announces 'X'"),
        ((32, 32, 3, 2), 3072, "but 3072 bytes"),
        ((32, 32, 3, 1), 50_000_000, "damaged"),
        ((32, 32, 3, 1000), 8 * 3_072_000, "damaged"),
    ],
)
def test_a_header_that_lies_is_refused_before_anything_is_unpacked(tmp_path, shape, size, sentence):
    packed = zlib.compress(forged(shape, size))
    path = tmp_path / "train_32x32.mat"
    path.write_bytes(HEADER + struct.pack("<II", 15, len(packed)) + packed)
    tracemalloc.start()
    with pytest.raises(BadFile, match=sentence):
        read_svhn(path)
    # zlib's buffer doubles while it grows
    assert tracemalloc.get_traced_memory()[1] < 2**20 + 2 * min(math.prod(shape), 3_072_000)
    tracemalloc.stop()


def test_complex_numbers_are_refused(written):
    with pytest.raises(BadFile, match="damaged"):
        read_mat(written(False, y=np.ones((13, 1)) * 2j + 1), {"y": 100})


def test_no_memory_is_taken_for_bytes_that_are_not_there(tmp_path):
    (tmp_path / "a.mat").write_bytes(HEADER + struct.pack("<II", 15, 2**30) + bytes(100))
    tracemalloc.start()
    with pytest.raises(BadFile, match="ends too early"):
        read_mat(tmp_path / "a.mat", {"X": 100})
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


@pytest.mark.parametrize("start", [b"", b"\x89HDF\r\n", b"MATLAB 7.3 MAT-file".ljust(128), HEADER[:126] + b"MI", b"PK\x03\x04" + bytes(200)])
def test_other_formats_are_refused(tmp_path, start):
    (tmp_path / "a.mat").write_bytes(start)
    with pytest.raises(BadFile, match="wanted a MATLAB 5.0 MAT-file"):
        read_svhn(tmp_path / "a.mat")


def test_the_users_folder_is_looked_in(tmp_path, monkeypatch):
    monkeypatch.setenv("MMVAE_DATA", str(tmp_path))
    monkeypatch.setenv("MMVAE_CACHE", str(tmp_path / "cache"))
    with pytest.raises(FileNotFoundError, match="missing train_32x32.mat, test_32x32.mat: put them under svhn/"):
        svhn()
    (tmp_path / "svhn").mkdir()
    for source, n in zip(SVHN, (13, 5)):
        savemat(tmp_path / "svhn" / source.name, content(n), do_compression=True)
    assert [len(part) for part in svhn()] == [13, 5]
