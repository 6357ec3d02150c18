"""Real formats, small files made here, and the refusal of everything broken."""

import functools
import gzip
import hashlib
import http.server
import os
import struct
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from mmvae_lite.data import best_available, digits, load
from mmvae_lite.data.idx import BadFile, read_idx, write_idx
from mmvae_lite.data.labelled_images import FILES, MNIST, Split
from mmvae_lite.data.sources import DownloadError, Source, fetch, find, obtain


def small_set(folder, n=(12, 5), size=28):
    """The four files of an MNIST-like set."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    for count, names in zip(n, (FILES[:2], FILES[2:])):
        write_idx(folder / names[0], rng.integers(0, 256, (count, size, size), dtype=np.uint8))
        write_idx(folder / names[1], (np.arange(count) % 10).astype(np.uint8))


@pytest.fixture(autouse=True)
def own_folders(tmp_path, monkeypatch):
    monkeypatch.setenv("MMVAE_DATA", str(tmp_path / "mine"))
    monkeypatch.setenv("MMVAE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "mine").mkdir()
    return tmp_path


@pytest.mark.parametrize("name", ["x-idx3-ubyte.gz", "x-idx3-ubyte"])
def test_idx_round_trip(tmp_path, name):
    array = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)
    write_idx(tmp_path / name, array)
    assert np.array_equal(read_idx(tmp_path / name, 3), array)


GOOD = struct.pack(">4I", 0x0803, 2, 3, 4) + bytes(24)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "found magic bytes none"),
        (b"\x00\x00\x09\x03" + GOOD[4:], "found magic bytes 00000903, wanted 00000803"),
        (struct.pack(">2I", 0x0801, 3) + bytes(3), "found magic bytes 00000801"),
        (GOOD[:10], "ends inside its header"),
        (GOOD[:-1], "announces 24 bytes, found 23"),
        (GOOD + b"x", "announces 24 bytes, found more"),
        (struct.pack(">4I", 0x0803, 2**31, 2**31, 2**31), "wanted 1 to"),
        (struct.pack(">4I", 0x0803, 0, 28, 28), "wanted 1 to"),
    ],
)
@pytest.mark.parametrize("packed", [True, False])
def test_bad_idx_files_are_refused(tmp_path, content, sentence, packed):
    path = tmp_path / ("x.gz" if packed else "x")
    path.write_bytes(gzip.compress(content) if packed else content)
    with pytest.raises(BadFile, match=sentence):
        read_idx(path, 3)


def test_broken_gzip_is_refused(tmp_path):
    path = tmp_path / "x.gz"
    path.write_bytes(gzip.compress(GOOD)[:-12])
    with pytest.raises(BadFile, match="broken or partial gzip"):
        read_idx(path, 3)
    damaged = bytearray(gzip.compress(GOOD))
    damaged[10] |= 0x06  # the first block of a kind that does not exist
    path.write_bytes(damaged)
    with pytest.raises(BadFile, match="broken or partial gzip"):
        read_idx(path, 3)
    path.write_bytes(b"no gzip at all")
    with pytest.raises(BadFile, match="broken or partial gzip"):
        read_idx(path, 3)


def test_mnist_from_the_users_folder(own_folders):
    small_set(own_folders / "mine" / "mnist")
    found = load("mnist")
    assert (len(found.train), len(found.test), found.name, found.stand_in) == (12, 5, "mnist", False)
    batch = found.train.batch()
    assert batch["image"].shape == (12, 1, 28, 28) and 0 <= batch["image"].min() and batch["image"].max() <= 1
    assert batch["label"].argmax(-1).tolist() == [i % 10 for i in range(12)]
    assert best_available("digits").name == "mnist"


def test_images_and_labels_must_fit(own_folders):
    folder = own_folders / "mine" / "mnist"
    small_set(folder)
    write_idx(folder / FILES[1], np.zeros(11, np.uint8))
    with pytest.raises(BadFile, match="12 images.* 11 labels"):
        load("mnist")
    write_idx(folder / FILES[1], np.full(12, 10, np.uint8))
    with pytest.raises(BadFile, match="found label 10, wanted 0 to 9"):
        best_available("digits")
    write_idx(folder / FILES[0], np.zeros((12, 20, 28), np.uint8))
    with pytest.raises(BadFile, match="found images of 20x28"):
        load("mnist")


def test_without_files_the_digits_that_ship_are_used_and_say_so():
    found = best_available("digits")
    assert found.name == "digits" and found.stand_in and "scikit-learn" in found.description


def test_digits_are_split_by_class_and_never_leak():
    found = digits()
    assert len(found.train) + len(found.test) == 1797
    shares = found.test.classes.bincount() / (found.train.classes.bincount() + found.test.classes.bincount())
    assert bool(((shares > 0.18) & (shares <= 0.2)).all())
    train = {x.numpy().tobytes() for x in found.train.images}
    assert not train & {x.numpy().tobytes() for x in found.test.images}
    assert torch.equal(digits().train.images, found.train.images)


def test_digits_are_upright_framed_and_within_bounds():
    """Made small again they are scikit-learn's, and not their mirror images."""
    from sklearn.datasets import load_digits

    found = digits()
    images = torch.cat([found.train.images, found.test.images])
    assert float(images.min()) == 0 and float(images.max()) == 1
    inside = images[..., 4:-4, 4:-4]
    assert float(images.sum()) == pytest.approx(float(inside.sum())), "the frame is empty"
    small = torch.nn.functional.interpolate(inside, size=8, mode="area")[:, 0]
    raw, target = load_digits().images / 16, load_digits().target
    known = torch.stack([torch.from_numpy(raw[target == c][0]).float() for c in range(10)])
    ours = torch.stack([small[: len(found.train)][found.train.classes == c][0] for c in range(10)])
    error = (ours - known).abs().mean()
    assert error < 0.08
    assert all(error < 0.5 * (ours - other).abs().mean() for other in (known.mT, known.flip(-1), known.flip(-2)))


def test_the_ship_set_looks_like_its_classes():
    """Nearest mean on the enlarged digits must be far above chance, or the enlargement broke them."""
    found = digits()
    means = torch.stack([found.train.images[found.train.classes == c].mean(0) for c in range(10)])
    distances = torch.cdist(found.test.images.flatten(1), means.flatten(1))
    assert (distances.argmin(1) == found.test.classes).double().mean().item() > 0.85


def test_missing_files_and_unknown_names_say_what_to_do(own_folders, monkeypatch):
    with pytest.raises(FileNotFoundError, match="missing train-images.*MMVAE_DATA.*download=True"):
        load("mnist")
    with pytest.raises(KeyError, match="did you mean 'mnist'"):
        load("mnits")
    with pytest.raises(KeyError, match="unknown kind of data"):
        best_available("dogs")
    monkeypatch.setenv("MMVAE_DATA", str(own_folders / "nowhere"))
    with pytest.raises(FileNotFoundError, match="which is no folder"):
        best_available("digits")


def test_a_split_can_be_shortened():
    split = Split(torch.zeros(5, 1, 28, 28), torch.arange(5))
    assert len(split.first(3)) == 3 and len(split.first(9)) == 5


class Server(http.server.SimpleHTTPRequestHandler):
    """Serves a folder with byte ranges; `cut` ends the first answer early, as a lost connection does."""

    cut = None
    garbage = None
    ranges: list[str | None] = []

    def do_GET(self):
        content = Path(self.directory, self.path.lstrip("/")).read_bytes()
        asked = self.headers.get("Range")
        Server.ranges.append(asked)
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        if start >= len(content):
            self.send_error(416)
            return
        if Server.garbage:
            self.wfile.write(Server.garbage)
            return
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        end, Server.cut = Server.cut, None
        self.wfile.write(content[start:end])

    def log_message(self, *args):
        pass


@pytest.fixture
def served(tmp_path):
    folder = tmp_path / "served"
    folder.mkdir()
    content = np.random.default_rng(0).bytes(300_000)
    (folder / "file.bin").write_bytes(content)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Server, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    Server.cut, Server.garbage, Server.ranges = None, None, []
    yield Source("set", "file.bin", f"http://127.0.0.1:{server.server_port}/file.bin", hashlib.md5(content).hexdigest())
    server.shutdown()
    server.server_close()


def test_a_download_is_whole_checked_and_found_again(served, own_folders):
    assert find(served) is None
    (path,) = obtain([served], download=True)
    assert path == own_folders / "cache" / "set" / "file.bin" == find(served)
    assert [p.name for p in path.parent.iterdir()] == ["file.bin"]
    assert obtain([served]) == [path] and Server.ranges == [None]


def test_a_lost_connection_resumes_where_it_stopped(served):
    Server.cut = 100_000
    with pytest.raises(DownloadError, match="ended after 100000 of 300000 bytes.*try again to resume"):
        fetch(served)
    assert find(served) is None
    assert fetch(served).stat().st_size == 300_000
    assert Server.ranges == [None, "bytes=100000-"]


def test_a_whole_but_unnamed_partial_is_checked_and_kept(served, own_folders):
    whole = (own_folders / "served" / "file.bin").read_bytes()
    partial = own_folders / "cache" / "set" / "file.bin.part"
    partial.parent.mkdir(parents=True)
    partial.write_bytes(whole)
    assert fetch(served).read_bytes() == whole


def test_a_wrong_hash_leaves_nothing_behind(served, own_folders):
    wrong = Source(served.folder, served.name, served.url, "0" * 32)
    with pytest.raises(DownloadError, match="wanted 0{32}; the file was deleted"):
        fetch(wrong)
    assert list((own_folders / "cache" / "set").iterdir()) == []


def test_a_dead_address_says_where_to_put_the_file(served):
    dead = Source(served.folder, served.name, "http://127.0.0.1:1/none", served.md5)
    with pytest.raises(DownloadError, match="could not be fetched.*put the file under set/"):
        fetch(dead)


@pytest.mark.parametrize(
    "garbage", [b"no such protocol\r\n\r\n", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nshort", b"\r\n", b""]
)
def test_an_answer_that_is_none_says_what_to_do(served, garbage):
    Server.garbage = garbage or b"HTTP/1.1 500\r\n\r\n"
    with pytest.raises(DownloadError, match=r"^file.bin: could not be fetched from \S+ \(.+\); try again to resume, or put the file under"):
        fetch(served)
    assert find(served) is None


REAL = os.environ.get("MMVAE_DATA")


@pytest.mark.skipif(not REAL, reason="MMVAE_DATA names no folder of real data")
@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_real_files(monkeypatch, name):
    monkeypatch.setenv("MMVAE_DATA", REAL)
    found = load(name)
    assert (len(found.train), len(found.test)) == (60_000, 10_000)
    assert found.train.classes.bincount().min() > 5000 and 0.1 < found.train.images.mean() < 0.4


@pytest.mark.skipif(not REAL, reason="MMVAE_DATA names no folder of real data")
def test_published_hashes_fit_the_real_test_files(monkeypatch):
    monkeypatch.setenv("MMVAE_DATA", REAL)
    for source in MNIST[1:]:
        assert hashlib.md5(find(source).read_bytes()).hexdigest() == source.md5
