"""Speech as a picture: the logarithm of the energy in 80 mel bands, a frame every 10 ms, and the way back to that scale.

Every constant that a decoder of these pictures needs to make sound again stands here: frame i holds the samples from
i HOP on, WINDOW of them under a Hann window, padded with zeros to N_FFT.  The energies of its FFT pass through the
triangles of `mel_filters`; `log_mel` takes the natural logarithm of what exceeds FLOOR, and `normalise` shifts and scales it.
"""

from __future__ import annotations

import io
import wave
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from mmvae_lite.data.idx import BadFile

RATE = 8000
"""Samples in a second."""
BINS = 80
WINDOW = RATE * 25 // 1000
HOP = RATE * 10 // 1000
FRAMES = 100
N_FFT = 512
"""The least power of two for which the filter bank has full rank: bands at low frequency are 16.5 Hz apart, FFT bins 15.6 Hz."""
FLOOR = 1e-6
"""The least energy of a band that is told from silence; a sine of full scale has 2500, which is 94 dB above."""
CENTRE, SCALE = -10.0, 5.0
"""`normalise` subtracts and divides by these: the same for every set, so that sounds can be made without one at hand."""


def read_wav(content: bytes, name: str, rate: int = RATE) -> Float[np.ndarray, "samples"]:
    """The samples of a WAV file, PCM of 8 or 16 bits and one channel, in [-1, 1), float32.

    Raises BadFile with one sentence that begins with `name` for any other format or rate, and for a broken, partial or
    empty file.
    """
    try:
        with wave.open(io.BytesIO(content)) as f:
            found, announced = (f.getnchannels(), f.getsampwidth(), f.getframerate()), f.getnframes()
            data = f.readframes(announced)
    except (wave.Error, EOFError, RuntimeError) as e:
        raise BadFile(f"{name}: broken WAV file ({str(e) or 'it ends early'}); delete it and fetch it again") from None
    channels, width, found_rate = found
    if channels != 1 or width not in (1, 2) or found_rate != rate:
        raise BadFile(
            f"{name}: found {channels} channels of {8 * width} bits at {found_rate} Hz, wanted one channel of 8 or 16 bits at {rate} Hz; convert it"
        )
    if len(data) != announced * width or not announced:
        raise BadFile(f"{name}: announces {announced} samples, holds {len(data) // width}; delete it and fetch it again")
    if width == 1:
        return (np.frombuffer(data, np.uint8).astype(np.float32) - 128) / 128
    return np.frombuffer(data, "<i2").astype(np.float32) / 32768


def write_wav(samples: Float[np.ndarray, "samples"], rate: int = RATE) -> bytes:
    """A WAV file, PCM of 16 bits and one channel, of samples in [-1, 1]; what lies outside is clipped."""
    f = io.BytesIO()
    with wave.open(f, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(rate)
        out.writeframes(np.clip(np.rint(np.asarray(samples) * 32768), -32768, 32767).astype("<i2").tobytes())
    return f.getvalue()


def hz_to_mel(hz: Tensor) -> Tensor:
    """Mel from Hz, 1127 ln(1 + f / 700) (O'Shaughnessy 1987, as in HTK and Kaldi)."""
    return 1127 * torch.log1p(hz / 700)


def mel_to_hz(mel: Tensor) -> Tensor:
    """Hz from mel."""
    return 700 * torch.expm1(mel / 1127)


def mel_corners(bins: int = BINS, rate: int = RATE) -> Float[Tensor, "edges"]:
    """The corners of the triangles in Hz, [bins + 2], equally far apart in mel from 0 to half the rate; float64.

    Triangle k rises from corner k to its peak at corner k + 1 and falls to corner k + 2.
    """
    top = hz_to_mel(torch.tensor(rate / 2, dtype=torch.float64))
    return mel_to_hz(torch.linspace(0, float(top), bins + 2, dtype=torch.float64))


def mel_filters(bins: int = BINS, n_fft: int = N_FFT, rate: int = RATE) -> Float[Tensor, "frequencies bins"]:
    """The filter bank: triangles over FFT frequencies with a peak of 1, [n_fft / 2 + 1, bins], float64."""
    corners = mel_corners(bins, rate)
    frequency = torch.arange(n_fft // 2 + 1, dtype=torch.float64)[:, None] * rate / n_fft
    low, peak, high = corners[:-2], corners[1:-1], corners[2:]
    return torch.minimum((frequency - low) / (peak - low), (high - frequency) / (high - peak)).clamp_min(0)


def count_frames(samples: int) -> int:
    """How many frames a recording has: one starts every HOP samples as long as there is sound."""
    return -(-samples // HOP)


def power_spectra(sound: Float[Tensor, "items samples"]) -> Float[Tensor, "items frames frequencies"]:
    """The squared magnitudes of the FFT of every frame of `sound`, which is padded with silence or cropped to FRAMES frames."""
    wanted = WINDOW + (FRAMES - 1) * HOP
    sound = torch.nn.functional.pad(sound[:, :wanted], (0, max(0, wanted - sound.shape[1])))
    window = torch.hann_window(WINDOW, periodic=True, dtype=sound.dtype, device=sound.device)
    return torch.fft.rfft(sound.unfold(1, WINDOW, HOP) * window, N_FFT).abs().square()


def log_mel(recordings: Sequence[Tensor], chunk: int = 100) -> tuple[Float[Tensor, "items 100 80"], Int[Tensor, "items"]]:
    """The log-mel spectra of recordings [samples] at RATE, [items, FRAMES, BINS], and their own lengths in frames.

    Values are natural logarithms of energy, at least ln FLOOR, which is also what stands after the end of a recording.
    One longer than FRAMES is cropped at its end.  `chunk` recordings are transformed at a time.
    Raises ValueError for a recording that is empty or not finite.
    """
    if not recordings:
        raise ValueError("recordings: found none, wanted at least one")
    longest = WINDOW + (FRAMES - 1) * HOP
    filters = mel_filters().to(recordings[0].dtype)
    found = []
    for start in range(0, len(recordings), chunk):
        group = [x[:longest] for x in recordings[start : start + chunk]]
        for number, x in enumerate(group, start):
            if x.ndim != 1 or not len(x) or not bool(torch.isfinite(x).all()):
                found_here = f"shape {tuple(x.shape)}" if x.ndim != 1 or not len(x) else "NaN or infinity"
                raise ValueError(f"recording {number}: found {found_here}, wanted finite samples [samples]")
        energy = power_spectra(torch.nn.utils.rnn.pad_sequence(group, batch_first=True)) @ filters
        found.append(energy.clamp_min(FLOOR).log())
    return torch.cat(found), torch.tensor([count_frames(len(x)) for x in recordings])


def normalise(spectra: Tensor) -> Tensor:
    """Log-mel spectra on the scale on which models see them, (x - CENTRE) / SCALE."""
    return (spectra - CENTRE) / SCALE


def denormalise(spectra: Tensor) -> Tensor:
    """Natural logarithms of energy from what a model sees or makes, the inverse of `normalise`."""
    return spectra * SCALE + CENTRE
