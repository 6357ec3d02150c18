"""Make mmvae_lite/data/shipped/spoken_digits.npz with espeak-ng: python tools/make_spoken_digits.py

Spoken digits of many synthetic voices, English and Spanish, as 8-bit log-mel spectra.  A voice is an accent and a
variant of espeak-ng with a pitch, a speed and a microphone of our choice; every take varies pitch, speed, loudness,
the silence before and after, and adds a little noise.  Everything follows from SEED and the version of espeak-ng,
which the card beside the file states with the hash of what it holds.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import shutil
import subprocess
import sys
import wave
from pathlib import Path

import numpy as np
import torch

from mmvae_lite.data.audio import HOP, RATE, log_mel
from mmvae_lite.data.spoken_digits import SHIPPED, STEP, pack

SEED = 20170622
TAKES = 5
WORDS = {
    "en": ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
    "es": ("cero", "uno", "dos", "tres", "cuatro", "cinco", "seis", "siete", "ocho", "nueve"),
}
# language, espeak-ng voice, its variant, pitch (0 to 99), words a minute
VOICES = (
    ("en", "en-us", "m1", 40, 165),
    ("en", "en-gb", "f1", 55, 150),
    ("en", "en-gb-scotland", "m2", 35, 160),
    ("en", "en-us", "f2", 60, 175),
    ("en", "en-gb-x-rp", "m3", 45, 140),
    ("en", "en-029", "f3", 50, 165),
    ("en", "en-us-nyc", "m4", 30, 180),
    ("en", "en-gb-x-gbclan", "Annie", 45, 155),
    ("en", "en-us", "m5", 50, 150),
    ("en", "en-gb", "f5", 40, 170),
    ("en", "en-gb-x-gbcwmd", "m6", 55, 160),
    ("en", "en-us-nyc", "linda", 50, 160),
    ("en", "en-gb", "john", 40, 150),
    ("en", "en-us", "Alicia", 55, 165),
    ("en", "en-us", "m7", 45, 155),
    ("en", "en-gb-scotland", "f4", 50, 165),
    ("en", "en-gb-x-rp", "steph", 60, 145),
    ("en", "en-029", "m8", 40, 170),
    ("en", "en-gb", "Andy", 50, 160),
    ("en", "en-us-nyc", "belinda", 45, 155),
    ("es", "es", "m1", 45, 160),
    ("es", "es-419", "f1", 50, 165),
    ("es", "es", "m3", 35, 150),
    ("es", "es-419", "m4", 40, 175),
    ("es", "es", "f2", 60, 155),
    ("es", "es-419", "f3", 45, 170),
    ("es", "es", "m6", 50, 165),
    ("es", "es-419", "f5", 55, 150),
    ("es", "es", "pablo", 45, 160),
    ("es", "es-419", "linda", 50, 165),
    ("es", "es", "marcelo", 40, 155),
    ("es", "es-419", "Alicia", 55, 160),
    ("es", "es-419", "m2", 50, 170),
    ("es", "es", "john", 45, 150),
    ("es", "es", "m7", 40, 160),
    ("es", "es-419", "f4", 55, 155),
    ("es", "es", "steph", 50, 165),
    ("es", "es-419", "m8", 45, 160),
    ("es", "es-419", "Andy", 55, 150),
    ("es", "es", "belinda", 40, 165),
)
HELD_OUT = ("m7", "f4", "Andy", "belinda")
"""Variants of espeak-ng, that is vocal tracts, of which nobody in the training partition speaks."""


def program() -> str:
    """The path of espeak-ng.  Exits with one sentence where it is missing."""
    found = shutil.which("espeak-ng")
    if found is None:
        raise SystemExit("espeak-ng is not installed: get it with 'apt-get install espeak-ng' or 'brew install espeak-ng'")
    return found


def speak(espeak: str, voice: str, pitch: int, speed: int, word: str) -> np.ndarray:
    """The sound of a word, [samples] at RATE, without the silence around it."""
    command = [espeak, "--stdout", "-v", voice, "-p", str(pitch), "-s", str(speed), word]
    said = subprocess.run(command, capture_output=True)
    if said.returncode or said.stderr or len(said.stdout) < 1000:
        raise SystemExit(f"{' '.join(command)!r} failed: {said.stderr.decode().strip() or 'it gave no sound'}")
    with wave.open(io.BytesIO(said.stdout)) as f:
        # in a pipe the header cannot know the length
        data, rate = f.readframes(len(said.stdout)), f.getframerate()
    x = resample(np.frombuffer(data, "<i2") / 32768, rate)
    loud = np.flatnonzero(np.abs(x) > 0.004 * np.abs(x).max())
    return x[loud[0] : loud[-1] + 1]


def resample(x: np.ndarray, rate: int) -> np.ndarray:
    """Band-limited resampling to RATE: the spectrum fades to 0 at RATE / 2, for a sharp cut would ring; silence keeps the ends apart."""
    pad = rate // 10
    padded = np.pad(x, (pad, pad + -len(x) % (rate // 50)))
    n = round(len(padded) * RATE / rate)
    spectrum = np.fft.rfft(padded)[: n // 2 + 1]
    beyond = np.clip((np.linspace(0, 1, len(spectrum)) - 0.85) / 0.15, 0, 1)
    return np.fft.irfft(spectrum * (0.5 + 0.5 * np.cos(np.pi * beyond)), n) * n / len(padded)


def tilt(x: np.ndarray, decibels: float) -> np.ndarray:
    """The sound through a microphone that passes the top of the band so much louder than its bottom, and less than 80 Hz."""
    spectrum = np.fft.rfft(x, 2 * len(x))
    f = np.fft.rfftfreq(2 * len(x), 1 / RATE)
    gain = 10 ** (decibels * (f / (RATE / 2) - 0.25) / 20) * f**2 / (f**2 + 80**2)
    return np.fft.irfft(spectrum * gain)[: len(x)]


def record(word: np.ndarray, decibels: float, rng: np.random.Generator) -> np.ndarray:
    """One take: silence, the word through the microphone at some loudness, silence, all under a little noise."""
    before, after = rng.integers(0, 13) * HOP, rng.integers(0, 7) * HOP
    word = np.pad(tilt(word, decibels), (before + rng.integers(HOP), after))
    level = np.exp(rng.uniform(np.log(0.01), np.log(0.1)))
    word *= level / np.sqrt(np.mean(word**2))
    noise = rng.standard_normal(len(word)) * level * 10 ** (-rng.uniform(36, 56) / 20)
    return np.clip(word + noise, -1, 1)


def make() -> dict[str, np.ndarray]:
    """All takes of all voices: `spectra`, and for each its digit, speaker, language, take, length and split."""
    espeak, rows, sounds = program(), [], []
    for speaker, (language, accent, variant, pitch, speed) in enumerate(VOICES):
        rng = np.random.default_rng([SEED, speaker])
        decibels = rng.uniform(-4, 12)
        for digit, word in enumerate(WORDS[language]):
            for take in range(TAKES):
                p = int(np.clip(pitch + rng.integers(-10, 11), 0, 99))
                s = int(speed * rng.uniform(0.85, 1.2))
                sounds.append(record(speak(espeak, f"{accent}+{variant}", p, s, word), decibels, rng))
                rows.append((digit, speaker, take))
    spectra, length = log_mel([torch.from_numpy(x) for x in sounds])
    digit, speaker, take = np.array(rows, np.uint8).T
    languages = np.array([list(WORDS).index(v[0]) for v in VOICES], np.uint8)
    held_out = np.array([v[2] in HELD_OUT for v in VOICES])
    return {
        "spectra": pack(spectra),
        "digit": digit,
        "speaker": speaker,
        "language": languages[speaker],
        "take": take,
        "length": length.numpy().astype(np.uint16),
        "test": held_out[speaker],
    }


def digest(arrays: dict[str, np.ndarray]) -> str:
    """SHA-256 of names, types, shapes and values; the compressed file may differ between versions of zlib."""
    h = hashlib.sha256()
    for name in sorted(arrays):
        h.update(f"{name} {arrays[name].dtype} {arrays[name].shape}\n".encode() + np.ascontiguousarray(arrays[name]).tobytes())
    return h.hexdigest()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=SHIPPED, help="where the npz goes; its card is written beside it")
    out = parser.parse_args().out
    version = subprocess.run([program(), "--version"], capture_output=True, text=True).stdout.split("Data at")[0].strip()
    arrays = make()
    trial = out.with_name(out.name + ".tmp.npz")
    np.savez_compressed(trial, **arrays)
    trial.replace(out)
    card = {
        "what": "spoken digits 0 to 9, English and Spanish, as log-mel spectra [items, 100 frames, 80 bands]",
        "made by": f"tools/make_spoken_digits.py, seed {SEED}, with {version}",
        "voices": [f"{a}+{v}, pitch {p}, {s} words a minute" for _, a, v, p, s in VOICES],
        "held out": sorted({int(s) for s in arrays["speaker"][arrays["test"]]}),
        "items": {"train": int((~arrays["test"]).sum()), "test": int(arrays["test"].sum())},
        "format": f"uint8 levels of {STEP} nats above ln FLOOR, differences along time and then along bands, modulo 256",
        "sha256 of the file": hashlib.sha256(out.read_bytes()).hexdigest(),
        "sha256 of the arrays": digest(arrays),
        "licence": "CC BY 4.0; the GPL of espeak-ng covers the program, not what it says",
    }
    out.with_suffix(".json").write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    print(f"{out.name}: {len(arrays['digit'])} items, {out.stat().st_size / 2**20:.2f} MiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
