"""Spoken digits: the Free Spoken Digit Dataset, what ships in its stead, and either of them beside written digits."""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from mmvae_lite.checks import check_name
from mmvae_lite.data.archives import Limits, read_members
from mmvae_lite.data.audio import FLOOR, log_mel, normalise, read_wav
from mmvae_lite.data.idx import BadFile
from mmvae_lite.data.labelled_images import DIGITS, MNIST, LabelledImages, Split, digits, mnist
from mmvae_lite.data.pairing import repair_each_epoch
from mmvae_lite.data.parts import MultimodalSet, Part
from mmvae_lite.data.sources import SOURCES, MissingFiles, Source, obtain

LANGUAGES = ("English", "Spanish")

# GitHub publishes no hash of the archives it makes of a tag: this is that of such an archive, which carries the commit 26eb9aaf
FSDD = (
    Source(
        "fsdd",
        "free-spoken-digit-dataset-1.0.10.tar.gz",
        "https://github.com/Jakobovski/free-spoken-digit-dataset/archive/refs/tags/v1.0.10.tar.gz",
        "35c96d9add504e5e8d28321830ac0df7",
    ),
)
FSDD_TEST_TAKES = 5
FSDD_NAME = re.compile(r"[^/]+/recordings/(\d)_([a-z]+)_(\d+)\.wav")

SHIPPED = Path(__file__).parent / "shipped" / "spoken_digits.npz"
STEP = 0.5
"""How far apart, in natural logarithms of energy, the levels are on which the shipped spectra are kept."""


def fsdd(download: bool = False) -> MultimodalSet:
    """The Free Spoken Digit Dataset (Jackson et al. 2018), English: `speech` [items, 100, 80], normalised log-mel spectra.

    Takes 0 to 4 of every digit and speaker are the test partition and 5 to 49 the training partition, as its authors ask:
    300 and 2700 recordings.  The six speakers are in both, so that its test says nothing about a new voice.
    Facts of each item: `speaker`, numbered in alphabetical order of the names, `take`, `length` in frames before
    padding or cropping to 100, and `language`, an index of `LANGUAGES`.

    Raises FileNotFoundError and DownloadError as `obtain` does, BadFile for an archive that is broken or holds something else.
    """
    (path,) = obtain(FSDD, download)
    found = []
    for name, content in read_members(path, lambda n: n.endswith(".wav"), Limits(member=2**22, total=2**28, members=20_000)):
        match = FSDD_NAME.fullmatch(name)
        if match is None:
            raise BadFile(f"{path.name}: holds {name!r}, wanted recordings/DIGIT_SPEAKER_TAKE.wav; fetch version 1.0.10")
        found.append((int(match[1]), match[2], int(match[3]), torch.from_numpy(read_wav(content, f"{path.name}, {name}"))))
    found.sort(key=lambda item: item[:3])
    take = torch.tensor([item[2] for item in found])
    test = take < FSDD_TEST_TAKES
    if not bool(test.any()) or bool(test.all()):
        raise BadFile(f"{path.name}: found {len(found)} recordings, wanted takes 0 to 4 and later ones; fetch version 1.0.10")
    spectra, length = log_mel([item[3] for item in found])
    names = sorted({item[1] for item in found})
    speaker = torch.tensor([names.index(item[1]) for item in found])
    facts = {"speaker": speaker, "take": take, "length": length, "language": torch.zeros_like(take)}
    classes = torch.tensor([item[0] for item in found])
    return _spoken("fsdd", "the Free Spoken Digit Dataset, six speakers of English", False, normalise(spectra), classes, facts, test)


def synthetic_speech() -> MultimodalSet:
    """Spoken digits of synthetic voices, English and Spanish, which ship: `speech` [items, 100, 80], normalised log-mel spectra.

    `tools/make_spoken_digits.py` made them with espeak-ng, which hardly varies what it says; the script varies pitch, speed,
    loudness, microphone, noise and the silence before.  A digit is one class in both languages.  The voices of the test
    partition, and the variants of espeak-ng that they use, are not in the training partition; every voice says every
    digit equally often, so that the classes are balanced in both.  The facts are those of `fsdd`.

    Raises BadFile where the shipped file is not the one that its card describes.
    """
    content, card = SHIPPED.read_bytes(), json.loads(SHIPPED.with_suffix(".json").read_text(encoding="utf-8"))
    if hashlib.sha256(content).hexdigest() != card["sha256 of the file"]:
        raise BadFile(f"{SHIPPED.name}: its hash is not the one on its card; install mmvae-lite again")
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        held = {name: arrays[name] for name in arrays.files}
    facts = {name: torch.from_numpy(held[name].astype(np.int64)) for name in ("speaker", "take", "length", "language")}
    classes, test = torch.from_numpy(held["digit"].astype(np.int64)), torch.from_numpy(held["test"])
    description = f"digits spoken by {len(card['voices'])} synthetic voices, English and Spanish"
    return _spoken("spoken-digits", description, True, normalise(unpack(held["spectra"])), classes, facts, test)


def _spoken(name, description, stand_in, speech, classes, facts, test) -> MultimodalSet:
    train, held_out = (Part({"speech": speech[m]}, classes[m], facts={k: v[m] for k, v in facts.items()}) for m in (~test, test))
    return MultimodalSet(name, description, stand_in, train, held_out, class_names=DIGITS)


def pack(spectra: Float[Tensor, "items frames bands"]) -> UInt8[np.ndarray, "items frames bands"]:
    """Log-mel spectra as whole levels, STEP apart from ln FLOOR up, then as differences along time and along bands modulo 256."""
    levels = ((spectra - np.log(FLOOR)) / STEP).round().clamp(0, 255).to(torch.uint8).numpy()
    return np.diff(np.diff(levels, axis=1, prepend=np.uint8(0)), axis=2, prepend=np.uint8(0))


def unpack(packed: UInt8[np.ndarray, "items frames bands"]) -> Float[Tensor, "items frames bands"]:
    """Log-mel spectra again, float32, each within STEP / 2 of what `pack` was given."""
    levels = packed.cumsum(2, dtype=np.uint8).cumsum(1, dtype=np.uint8)
    return torch.from_numpy(levels.astype(np.float32)) * STEP + float(np.log(FLOOR))


@dataclass(frozen=True)
class SpokenWritten(MultimodalSet):
    """Spoken digits, each with a written one.

    repair: for `fit(pair=...)` on the training partition: every spoken digit meets a random image of its digit from that partition.
    """

    repair: Callable[[Mapping[str, Tensor], torch.Generator], dict[str, Tensor]] | None = None


def spoken_written(source: str = "best", *, download: bool = False, seed: int = 0) -> SpokenWritten:
    """Spoken and written digits: `speech` [items, 100, 80], normalised log-mel, and `image` [rows, 1, 28, 28] of 256 levels.

    Real are the Free Spoken Digit Dataset and MNIST, both or neither; in their stead ship `synthetic_speech` and the digits
    of scikit-learn.  An item is a spoken digit; its image is drawn with replacement from those of the same digit in the
    same partition, by `seed` here and by `repair` at each epoch (Hsu and Glass 2018, section 4.1).  Facts as in `fsdd`.

    Raises KeyError for an unknown source, FileNotFoundError for `real` without the files, and as the two loaders do.
    """
    check_name("source", source, SOURCES)
    speech, written = _halves(source, download)
    generator = torch.Generator().manual_seed(seed)
    train, repair = _beside(speech.train, written.train, generator)
    test, _ = _beside(speech.test, written.test, generator)
    description = f"{speech.description}, each beside an image of {written.description}"
    return SpokenWritten("spoken-written", description, speech.stand_in, train, test, class_names=DIGITS, repair=repair)


def _halves(source: str, download: bool) -> tuple[MultimodalSet, LabelledImages]:
    if source != "stand-in":
        try:
            obtain(FSDD, download)
            obtain(MNIST, download)
        except MissingFiles:
            if source == "real":
                raise
        else:
            return fsdd(), mnist()
    return synthetic_speech(), digits()


def _beside(spoken: Part, written: Split, generator: torch.Generator) -> tuple[Part, Callable]:
    repair = repair_each_epoch({"speech": spoken.classes, "image": written.classes})
    batch = {**spoken.batch, "image": written.levels()}
    return Part(batch, spoken.classes, repair({}, generator), spoken.facts), repair
