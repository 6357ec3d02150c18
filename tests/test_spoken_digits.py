"""Spoken digits: the archive's true format on small files, the shipped set, and the pairing with written digits."""

import hashlib
import importlib.util
import io
import json
import os
import sys
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mmvae_lite.data import PAIRED, spoken_digits
from mmvae_lite.data.audio import FLOOR, denormalise, log_mel, normalise, read_wav, write_wav
from mmvae_lite.data.idx import BadFile, write_idx
from mmvae_lite.data.labelled_images import FILES
from mmvae_lite.data.spoken_digits import FSDD, LANGUAGES, SHIPPED, STEP, fsdd, pack, spoken_written, synthetic_speech, unpack

ROOT = Path(__file__).resolve().parent.parent
SPEAKERS = ("theo", "george")
TAKES = (0, 4, 5, 49)
SILENCE = float(np.log(FLOOR))


@pytest.fixture(autouse=True)
def own_folders(tmp_path, monkeypatch):
    monkeypatch.setenv("MMVAE_DATA", str(tmp_path / "mine"))
    monkeypatch.setenv("MMVAE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "mine").mkdir()
    return tmp_path / "mine"


def recording(digit, speaker, take):
    rng = np.random.default_rng([digit, SPEAKERS.index(speaker), take])
    return 0.1 * rng.standard_normal(1000 + 160 * digit + 10 * take + 8000 * (take == 4))


def recordings():
    every = [(d, s, t) for t in TAKES for s in SPEAKERS for d in range(10)]
    return {f"free-spoken-digit-dataset-1.0.10/recordings/{d}_{s}_{t}.wav": write_wav(recording(d, s, t)) for d, s, t in every}


def put_archive(folder, files):
    path = folder / FSDD[0].folder / FSDD[0].name
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def put_mnist(folder, n=(60, 30)):
    (folder / "mnist").mkdir()
    rng = np.random.default_rng(0)
    for count, names in zip(n, (FILES[:2], FILES[2:])):
        write_idx(folder / "mnist" / names[0], rng.integers(0, 256, (count, 28, 28), dtype=np.uint8))
        write_idx(folder / "mnist" / names[1], (np.arange(count) % 10).astype(np.uint8))


@pytest.fixture
def real_files(own_folders):
    put_archive(own_folders, recordings() | {"free-spoken-digit-dataset-1.0.10/README.md": b"words"})
    put_mnist(own_folders)


def test_the_archive_is_read_and_split_by_take(real_files):
    found = fsdd()
    assert (found.name, found.stand_in, len(found.train), len(found.test)) == ("fsdd", False, 40, 40)
    assert set(found.train.facts["take"].tolist()) == {5, 49} and set(found.test.facts["take"].tolist()) == {0, 4}
    for part in (found.train, found.test):
        assert part.batch["speech"].shape == (40, 100, 80) and part.batch["speech"].dtype == torch.float32
        assert part.classes.bincount().tolist() == [4] * 10
        for i in (0, 7, 39):
            digit, speaker, take = int(part.classes[i]), sorted(SPEAKERS)[part.facts["speaker"][i]], int(part.facts["take"][i])
            x = torch.from_numpy(read_wav(write_wav(recording(digit, speaker, take)), ""))
            spectra, length = log_mel([x])
            assert torch.allclose(denormalise(part.batch["speech"][i]), spectra[0], atol=1e-4)
            assert int(part.facts["length"][i]) == int(length) == -(-len(x) // 80)
    assert int(found.test.facts["length"].max()) > 100, "the length before cropping is kept"


def test_the_order_of_the_archive_does_not_matter(own_folders):
    put_archive(own_folders, recordings())
    one = fsdd()
    put_archive(own_folders, dict(reversed(recordings().items())))
    two = fsdd()
    assert torch.allclose(one.train.batch["speech"], two.train.batch["speech"])
    assert all(torch.equal(one.test.facts[k], two.test.facts[k]) for k in one.test.facts)


RECORDINGS = "free-spoken-digit-dataset-1.0.10/recordings/"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({RECORDINGS + "ten_theo_0.wav": b""}, "holds .*ten_theo_0.wav', wanted recordings/DIGIT_SPEAKER_TAKE.wav"),
        ({RECORDINGS + "1_theo_7.wav": b"no sound"}, r"1.0.10.tar.gz, .*1_theo_7.wav: broken WAV file"),
        ({RECORDINGS + "1_theo_7.wav": write_wav(np.zeros(100), rate=16000)}, "found 1 channels of 16 bits at 16000 Hz, wanted"),
        ({RECORDINGS + "1_theo_7.wav": bytes(2**22 + 1)}, "announces 4194305 bytes, wanted at most 4194304"),
        ({"../1_theo_7.wav": b"x"}, "leaves the archive's folder"),
    ],
)
def test_an_archive_with_something_else_is_refused(own_folders, changes, sentence):
    put_archive(own_folders, recordings() | changes)
    with pytest.raises(BadFile, match=sentence):
        fsdd()


@pytest.mark.parametrize("takes", [(0, 1), (5, 6), ()])
def test_an_archive_without_one_of_the_partitions_is_refused(own_folders, takes):
    put_archive(own_folders, {f"{RECORDINGS}3_theo_{t}.wav": write_wav(np.ones(500) / 2) for t in takes})
    with pytest.raises(BadFile, match=f"found {len(takes)} recordings, wanted takes 0 to 4 and later ones"):
        fsdd()


def test_a_missing_archive_says_where_it_goes():
    with pytest.raises(FileNotFoundError, match="missing free-spoken-digit-dataset-1.0.10.tar.gz: put them under fsdd/"):
        fsdd()


@pytest.fixture(scope="module")
def shipped():
    return synthetic_speech()


def test_what_ships_is_small_and_said_on_its_card(shipped):
    card = json.loads(SHIPPED.with_suffix(".json").read_text(encoding="utf-8"))
    assert SHIPPED.stat().st_size <= 4_000_000
    assert card["sha256 of the file"] == hashlib.sha256(SHIPPED.read_bytes()).hexdigest()
    assert card["items"] == {"train": len(shipped.train), "test": len(shipped.test)}
    speakers = {p: set(getattr(shipped, p).facts["speaker"].tolist()) for p in ("train", "test")}
    assert len(card["voices"]) == len(speakers["train"] | speakers["test"]) >= 20
    assert sorted(speakers["test"]) == card["held out"] and "licence" in card
    assert (shipped.name, shipped.stand_in, len(shipped.class_names)) == ("spoken-digits", True, 10)


def test_no_voice_is_in_both_partitions_nor_is_its_vocal_tract(shipped):
    voices = json.loads(SHIPPED.with_suffix(".json").read_text(encoding="utf-8"))["voices"]
    tracts = [
        {voices[s].split(",")[0].split("+")[1] for s in part.facts["speaker"].unique().tolist()} for part in (shipped.train, shipped.test)
    ]
    assert all(tracts) and not tracts[0] & tracts[1]


def test_classes_and_languages_are_balanced(shipped):
    assert LANGUAGES == ("English", "Spanish")
    for part in (shipped.train, shipped.test):
        said = Counter(zip(part.classes.tolist(), part.facts["speaker"].tolist()))
        assert len(set(said.values())) == 1 and len(said) == 10 * len(part.facts["speaker"].unique())
        assert part.facts["language"].bincount().tolist() == [len(part) / 2] * 2
        spoken = {s: part.facts["language"][part.facts["speaker"] == s].unique().tolist() for s in part.facts["speaker"].unique().tolist()}
        assert all(len(language) == 1 for language in spoken.values()), "a voice speaks one language"


def test_spectra_are_of_the_scale_that_models_see(shipped):
    for part in (shipped.train, shipped.test):
        x = part.batch["speech"]
        assert x.shape[1:] == (100, 80) and x.dtype == torch.float32
        assert abs(float(x.mean())) < 0.2 and 0.8 < float(x.std()) < 1.2
        after = torch.arange(100) >= part.facts["length"][:, None]
        assert torch.allclose(denormalise(x[after]), torch.tensor(SILENCE)), "padding is silence"
        assert (x[~after] > float(normalise(torch.tensor(SILENCE))) + 1e-3).float().mean() > 0.8
        assert 40 < float(part.facts["length"].float().mean()) < 70


def test_no_two_recordings_are_the_same(shipped):
    every = torch.cat([shipped.train.batch["speech"], shipped.test.batch["speech"]]).flatten(1)
    assert len({hashlib.sha256(x.numpy().tobytes()).digest() for x in every}) == len(every)


def nearest_mean(train, test):
    means = torch.stack([train.batch["speech"][train.classes == k].mean(0) for k in range(10)]).flatten(1)
    return float((torch.cdist(test.batch["speech"].flatten(1), means).argmin(1) == test.classes).float().mean())


def test_it_takes_more_than_a_mean_to_know_a_new_voice(shipped):
    assert 0.2 < nearest_mean(shipped.train, shipped.test) < 0.8


def test_a_small_network_knows_new_voices(shipped):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(
            *(nn.Conv2d(1, 16, 5, stride=2, padding=2), nn.BatchNorm2d(16), nn.ReLU()),
            *(nn.Conv2d(16, 32, 5, stride=2, padding=2), nn.BatchNorm2d(32), nn.ReLU()),
            *(nn.AdaptiveAvgPool2d((5, 8)), nn.Flatten(), nn.Dropout(0.4), nn.Linear(32 * 40, 10)),
        )
        net = net.to(memory_format=torch.channels_last)
        x, y = (F.avg_pool2d(part.batch["speech"][:, None], 2) for part in (shipped.train, shipped.test))
        optimizer = torch.optim.Adam(net.parameters(), 3e-3)
        for _ in range(8):
            for rows in torch.randperm(len(x)).split(32):
                later = x[rows].roll(int(torch.randint(6, ())), 2)
                loss = F.cross_entropy(net(later), shipped.train.classes[rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    net.eval()
    with torch.no_grad():
        right = net(y).argmax(1) == shipped.test.classes
    assert float(right.float().mean()) > 0.9


def test_packing_keeps_spectra_within_half_a_step():
    x = SILENCE + 22 * torch.rand(3, 100, 80, generator=torch.Generator().manual_seed(0))
    packed = pack(x)
    assert packed.dtype == np.uint8 and float((unpack(packed) - x).abs().max()) <= STEP / 2 + 1e-5
    assert np.array_equal(pack(unpack(packed)), packed)


def test_a_damaged_shipped_file_is_refused(tmp_path, monkeypatch):
    damaged = bytearray(SHIPPED.read_bytes())
    damaged[1000] ^= 1
    (tmp_path / SHIPPED.name).write_bytes(damaged)
    (tmp_path / "spoken_digits.json").write_text(SHIPPED.with_suffix(".json").read_text(encoding="utf-8"), encoding="utf-8")
    monkeypatch.setattr(spoken_digits, "SHIPPED", tmp_path / SHIPPED.name)
    with pytest.raises(BadFile, match="its hash is not the one on its card; install mmvae-lite again"):
        synthetic_speech()


def image_classes(part, written):
    """The class of each item's image, found by its pixels among those of the partition it should be from."""
    known = {x.numpy().tobytes(): int(y) for x, y in zip((written.images * 255).round().to(torch.uint8), written.classes)}
    return torch.tensor([known[x.numpy().tobytes()] for x in part.batch["image"][part.index["image"]]])


def test_real_files_make_the_real_set(real_files):
    from mmvae_lite.data import mnist

    for source in ("best", "real"):
        found = spoken_written(source)
        assert (found.name, found.stand_in, len(found.train), len(found.test)) == ("spoken-written", False, 40, 40)
    assert found.train.batch["image"].shape == (60, 1, 28, 28) and found.train.batch["image"].dtype == torch.uint8
    written = mnist()
    assert torch.equal(image_classes(found.train, written.train), found.train.classes)
    assert torch.equal(image_classes(found.test, written.test), found.test.classes)
    assert torch.equal(found.train.take(slice(0, 3))["image"], written.train.images[found.train.index["image"][:3]])


@pytest.mark.parametrize("missing", ["fsdd", "mnist"])
def test_half_of_the_files_is_none(own_folders, missing):
    put_archive(own_folders, recordings()) if missing == "mnist" else put_mnist(own_folders)
    with pytest.raises(FileNotFoundError, match="missing " + ("free-spoken" if missing == "fsdd" else "train-images")):
        spoken_written("real")
    assert spoken_written().stand_in


def test_broken_files_do_not_fall_back(own_folders):
    put_mnist(own_folders)
    put_archive(own_folders, {"x.wav": b""})
    with pytest.raises(BadFile):
        spoken_written()


def test_an_unknown_source():
    with pytest.raises(KeyError, match="unknown source 'stand-ins', known: 'best', 'real', 'stand-in'; did you mean 'stand-in'"):
        spoken_written("stand-ins")


def test_the_stand_in_pairs_by_class_within_the_partition(shipped):
    from mmvae_lite.data import digits

    found, written = PAIRED["spoken-written"](), digits()
    assert found.stand_in and "synthetic" in found.description and "scikit-learn" in found.description
    for part, source, spoken in ((found.train, written.train, shipped.train), (found.test, written.test, shipped.test)):
        assert torch.equal(part.batch["speech"], spoken.batch["speech"]) and torch.equal(part.classes, spoken.classes)
        assert torch.equal(image_classes(part, source), part.classes)
        assert set(part.facts) == {"speaker", "take", "length", "language"}
    assert not ({x.numpy().tobytes() for x in written.train.images} & {x.numpy().tobytes() for x in written.test.images})


def test_every_epoch_brings_new_images_of_the_same_digit():
    from mmvae_lite.data import digits

    found, written = spoken_written("stand-in"), digits().train
    drawn = [found.repair(found.train.index, torch.Generator().manual_seed(epoch)) for epoch in (0, 1, 0)]
    assert torch.equal(drawn[0]["image"], drawn[2]["image"]) and not torch.equal(drawn[0]["image"], drawn[1]["image"])
    for index in drawn:
        assert torch.equal(written.classes[index["image"]], found.train.classes)
        assert torch.equal(index["speech"], torch.arange(len(found.train)))
    few = found.repair(found.train.first(5).index, torch.Generator().manual_seed(0))
    assert torch.equal(few["speech"], torch.arange(5)) and torch.equal(written.classes[few["image"]], found.train.classes[:5])
    seen = torch.cat([found.repair({}, torch.Generator().manual_seed(epoch))["image"] for epoch in range(8)])
    assert len(seen.unique()) > 0.99 * len(written), "in the long run every image is used"


PRINT = """
import hashlib
from mmvae_lite.data.spoken_digits import spoken_written
found = spoken_written("stand-in", seed=1)
held = b"".join(x.numpy().tobytes() for p in (found.train, found.test) for x in (*p.batch.values(), p.index["image"]))
"""


def test_the_same_seed_gives_the_same_bits_in_another_process(elsewhere):
    here: dict = {}
    exec(PRINT, here)
    there = elsewhere(PRINT + "print(hashlib.sha256(held).hexdigest())")
    assert there.strip() == hashlib.sha256(here["held"]).hexdigest()
    other = spoken_written("stand-in", seed=0)
    assert not torch.equal(other.train.index["image"], here["found"].train.index["image"])
    assert not torch.equal(other.test.index["image"], here["found"].test.index["image"])


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("make_spoken_digits", ROOT / "tools" / "make_spoken_digits.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_tool_says_what_is_missing(tool, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["make_spoken_digits.py", "--out", str(tmp_path / "x.npz")])
    with pytest.raises(
        SystemExit, match="^espeak-ng is not installed: get it with 'apt-get install espeak-ng' or 'brew install espeak-ng'$"
    ):
        tool.main()
    assert list(tmp_path.glob("x*")) == []


def test_the_tools_voices_are_those_of_the_card(tool):
    card = json.loads(SHIPPED.with_suffix(".json").read_text(encoding="utf-8"))
    assert [v.split(",")[0] for v in card["voices"]] == [f"{accent}+{variant}" for _, accent, variant, _, _ in tool.VOICES]
    with np.load(SHIPPED) as arrays:
        assert tool.digest(dict(arrays)) == card["sha256 of the arrays"]


@pytest.mark.parametrize("hz", [200, 1500, 3000])
def test_the_tool_resamples_tones_truly(tool, hz):
    one, two = (np.sin(2 * np.pi * hz * np.arange(rate // 2) / rate) for rate in (22050, 8000))
    found = tool.resample(one, 22050)[800:4800]  # a tenth of a second of silence stands before
    assert np.abs(found[500:3500] - two[500:3500]).max() < 0.02


def test_the_tool_lets_nothing_fold_over(tool):
    high = np.sin(2 * np.pi * 5000 * np.arange(11025) / 22050)
    assert np.abs(tool.resample(high, 22050)[1000:4000]).max() < 1e-3


def test_contact_sheet(shipped):
    """Ten voices saying every digit, low bands at the bottom, as spoken_digits.png in build/artefacts or where MMVAE_ARTEFACTS says."""
    image = pytest.importorskip("PIL.Image")
    folder = Path(os.environ.get("MMVAE_ARTEFACTS", ROOT / "build" / "artefacts"))
    folder.mkdir(parents=True, exist_ok=True)
    part, rows = shipped.train, []
    voices = part.facts["speaker"].unique()
    for voice in voices[torch.linspace(0, len(voices) - 1, 10).long()]:
        said = [part.batch["speech"][(part.facts["speaker"] == voice) & (part.classes == digit)][0] for digit in range(10)]
        rows.append(torch.cat([F.pad(x.T.flip(0), (0, 4, 0, 4), value=4.0) for x in said], 1))
    levels = (torch.cat(rows) + 0.8).div(4.8).clamp(0, 1).mul(255).round().to(torch.uint8)
    image.fromarray(levels.numpy()).save(folder / "spoken_digits.png")
    assert levels.shape == (840, 1040) and len(levels.unique()) > 20


REAL = os.environ.get("MMVAE_DATA")


@pytest.mark.skipif(not REAL, reason="MMVAE_DATA names no folder of real data")
def test_the_real_recordings(monkeypatch):
    monkeypatch.setenv("MMVAE_DATA", REAL)
    found = fsdd()
    assert (len(found.train), len(found.test)) == (2700, 300)
    assert found.train.classes.bincount().tolist() == [270] * 10 and found.test.classes.bincount().tolist() == [30] * 10
    assert found.train.facts["speaker"].bincount().tolist() == [450] * 6
    x = found.train.batch["speech"]
    assert abs(float(x.mean())) < 0.2 and 0.8 < float(x.std()) < 1.2
    assert 0.2 < nearest_mean(found.train, found.test) < 0.95
