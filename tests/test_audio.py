"""Log-mel spectra against an independent implementation, closed forms, and the sounds whose picture is known."""

import io
import math
import wave

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmvae_lite.data.audio import (
    BINS,
    CENTRE,
    FLOOR,
    FRAMES,
    HOP,
    N_FFT,
    RATE,
    SCALE,
    WINDOW,
    count_frames,
    denormalise,
    hz_to_mel,
    log_mel,
    mel_corners,
    mel_filters,
    mel_to_hz,
    normalise,
    power_spectra,
    read_wav,
    write_wav,
)
from mmvae_lite.data.idx import BadFile

SILENCE = math.log(FLOOR)


def sound(samples, seed=0, scale=0.1):
    return scale * torch.randn(samples, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_hand(x):
    """Log-mel with loops, a discrete Fourier transform by its definition, and mel as 2595 log10(1 + f / 700)."""
    window = [0.5 - 0.5 * math.cos(2 * math.pi * n / 200) for n in range(200)]
    transform = np.exp(-2j * np.pi * np.outer(np.arange(257), np.arange(200)) / 512)
    top = 2595 * math.log10(1 + 4000 / 700)
    corners = [700 * (10 ** (top * k / 81 / 2595) - 1) for k in range(82)]
    out = np.full((100, 80), math.log(1e-6))
    for frame in range(100):
        piece = x[80 * frame : 80 * frame + 200]
        energy = np.abs(transform[:, : len(piece)] @ (piece * window[: len(piece)])) ** 2
        for band in range(80):
            low, peak, high = corners[band : band + 3]
            total = 0.0
            for k in range(257):
                f = k * 8000 / 512
                if low < f <= peak:
                    total += energy[k] * (f - low) / (peak - low)
                elif peak < f < high:
                    total += energy[k] * (high - f) / (high - peak)
            out[frame, band] = math.log(max(total, 1e-6))
    return out


def test_log_mel_equals_an_implementation_by_hand():
    x = sound(2500) * torch.linspace(0, 1, 2500, dtype=torch.float64)
    found, length = log_mel([x])
    assert found.shape == (1, FRAMES, BINS) and length.tolist() == [32]
    np.testing.assert_allclose(found[0].numpy(), by_hand(x.numpy()), rtol=0, atol=1e-9)


def test_single_precision_is_enough():
    x = [sound(4000, seed) for seed in range(3)]
    found, _ = log_mel([a.float() for a in x])
    assert found.dtype == torch.float32
    assert (found - log_mel(x)[0]).abs().max() < 1e-3


def rank(n_fft):
    return int(torch.linalg.matrix_rank(mel_filters(n_fft=n_fft)))


def test_the_filter_bank_has_full_rank_and_a_smaller_fft_loses_bands():
    filters = mel_filters()
    assert (RATE, BINS, N_FFT) == (8000, 80, 512) and filters.shape == (257, 80)
    assert rank(N_FFT) == BINS
    spread = torch.linalg.svdvals(filters)
    assert spread[0] / spread[-1] < 10, "the way back from bands to frequencies is stable"
    assert rank(N_FFT // 2) < BINS and rank(N_FFT // 4) < rank(N_FFT // 2)
    assert bool((mel_filters(n_fft=N_FFT // 4).sum(0) == 0).any()), "some triangles then hold no frequency at all"


def test_the_pseudo_inverse_gives_bands_back():
    energy = torch.rand(5, BINS, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(energy @ torch.linalg.pinv(mel_filters()) @ mel_filters(), energy)


def test_neighbouring_triangles_add_to_one():
    corners = mel_corners()
    frequency = torch.arange(N_FFT // 2 + 1) * RATE / N_FFT
    inside = (frequency >= corners[1]) & (frequency <= corners[-2])
    assert torch.allclose(mel_filters().sum(1)[inside], torch.ones((), dtype=torch.float64))
    assert corners[0] == 0 and float(corners[-1]) == pytest.approx(RATE / 2)


@given(st.floats(0, 20_000))
def test_mel_and_back(hz):
    hz = torch.tensor(hz, dtype=torch.float64)
    assert torch.allclose(mel_to_hz(hz_to_mel(hz)), hz)


def test_a_thousand_hertz_are_a_thousand_mel():
    assert float(hz_to_mel(torch.tensor(1000.0))) == pytest.approx(1000, abs=0.1)


def test_energy_in_frequency_is_energy_in_time():
    x = sound(1234)[None]
    spectra = power_spectra(x)
    both_sides = spectra[..., 0] + spectra[..., -1] + 2 * spectra[..., 1:-1].sum(-1)
    window = torch.hann_window(WINDOW, dtype=torch.float64)
    padded = torch.nn.functional.pad(x, (0, 9000))
    frames = torch.stack([padded[:, HOP * i : HOP * i + WINDOW] * window for i in range(FRAMES)], 1)
    assert torch.allclose(both_sides / N_FFT, frames.square().sum(-1))


@pytest.mark.parametrize("band", [5, 20, 40, 60, 78])
def test_a_pure_tone_is_loudest_in_its_band(band):
    hz = float(mel_corners()[band + 1])
    tone = 0.5 * torch.sin(2 * math.pi * hz * torch.arange(4000, dtype=torch.float64) / RATE)
    found, length = log_mel([tone])
    steady = found[0, 2 : int(length) - 3]
    assert steady.argmax(-1).unique().tolist() == [band]
    # the peak of the window's transform is half its sum: energy is (0.5 * 100 / 2)^2 in the FFT bin of the tone
    assert steady[:, band].max() < math.log(25**2 * 4) and steady[:, band].min() > math.log(25**2 / 4)
    if 10 <= band <= 70:
        assert (steady[:, band, None] - steady[:, [band - 10, band + 10]] > 3).all()


def test_an_impulse_is_flat_in_frequency_and_short_in_time():
    x = torch.zeros(4000, dtype=torch.float64)
    at = 1640
    x[at] = 0.5
    found, _ = log_mel([x])
    reached = [i for i in range(FRAMES) if HOP * i < at < HOP * i + WINDOW]
    assert (found[0] > SILENCE).any(-1).nonzero()[:, 0].tolist() == reached == [19, 20]
    for i in reached:
        energy = (0.5 * (0.5 - 0.5 * math.cos(2 * math.pi * (at - HOP * i) / WINDOW))) ** 2
        assert torch.allclose(found[0, i], (energy * mel_filters().sum(0)).log())


def test_twice_as_loud_is_a_shift():
    one, two = (log_mel([scale * sound(3000)])[0] for scale in (1.0, 2.0))
    heard = one > SILENCE
    assert torch.allclose(two[heard], one[heard] + math.log(4)) and (two >= one).all()


def test_a_batch_equals_its_items_and_chunks_change_nothing():
    x = [sound(n, seed) for seed, n in enumerate((1, 150, 799, 800, 4000, 8119, 8120, 20_000))]
    spectra, length = log_mel(x)
    for chunk in (1, 3):
        assert torch.allclose(log_mel(x, chunk=chunk)[0], spectra, rtol=0, atol=1e-9)
    singles = [log_mel([a]) for a in x]
    assert torch.allclose(torch.cat([s for s, _ in singles]), spectra, rtol=0, atol=1e-9)
    assert length.tolist() == [int(n) for _, n in singles] == [1, 2, 10, 10, 50, 102, 102, 250]


def test_padding_is_silence_and_cropping_keeps_the_start():
    x = sound(30_000, scale=1.0)
    long, short = log_mel([x])[0], log_mel([x[:800]])[0]
    assert torch.allclose(long[0, :8], short[0, :8]), "frames that see the same samples"
    assert (short[0, count_frames(800) :] == SILENCE).all() and (short[0, :10] > SILENCE).all() and (long > SILENCE).all()
    assert torch.equal(log_mel([x[: HOP * (FRAMES - 1) + WINDOW]])[0], long)
    assert (log_mel([torch.zeros(500)])[0] == torch.tensor(SILENCE)).all()


def test_normalise_and_back():
    x = SILENCE + 20 * torch.rand(4, FRAMES, BINS, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(denormalise(normalise(x)), x) and torch.allclose(normalise(x), (x - CENTRE) / SCALE)


@pytest.mark.parametrize(
    ("recordings", "sentence"),
    [
        ([], "found none, wanted at least one"),
        ([torch.ones(9), torch.zeros(0)], r"recording 1: found shape \(0,\), wanted finite samples"),
        ([torch.zeros(2, 9)], r"recording 0: found shape \(2, 9\)"),
        ([torch.tensor([0.0, math.nan])], "recording 0: found NaN or infinity"),
    ],
)
def test_what_is_no_recording_is_refused(as_a_reader, recordings, sentence):
    with pytest.raises(ValueError, match=sentence):
        log_mel(recordings)


def wav(data, width=2, channels=1, rate=RATE):
    f = io.BytesIO()
    with wave.open(f, "wb") as out:
        out.setnchannels(channels)
        out.setsampwidth(width)
        out.setframerate(rate)
        out.writeframes(data)
    return f.getvalue()


@settings(max_examples=30)
@given(st.lists(st.integers(-32768, 32767), min_size=1, max_size=300))
def test_sixteen_bits_round_trip(levels):
    samples = np.array(levels) / 32768
    assert np.array_equal(read_wav(write_wav(samples), "x.wav"), samples.astype(np.float32))


def test_eight_bits_and_clipping():
    assert read_wav(wav(bytes([0, 64, 128, 255]), width=1), "x.wav").tolist() == [-1, -0.5, 0, 127 / 128]
    assert read_wav(write_wav(np.array([-3.0, 3.0])), "x.wav").tolist() == [-1, 32767 / 32768]


GOOD = wav(bytes(200))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "broken WAV file .it ends early."),
        (b"RIFF", "broken WAV file"),
        (b"nothing of the kind, and long enough to have a header", "broken WAV file"),
        (GOOD[:20], "broken WAV file"),
        (GOOD[:-1], "announces 100 samples, holds"),
        (GOOD[:40] + (2**31).to_bytes(4, "little") + GOOD[44:], "announces 1073741824 samples, holds"),
        (wav(b""), "announces 0 samples"),
        (wav(bytes(200), channels=2), "found 2 channels of 16 bits at 8000 Hz, wanted one channel"),
        (wav(bytes(300), width=3), "found 1 channels of 24 bits"),
        (wav(bytes(200), rate=44100), "found 1 channels of 16 bits at 44100 Hz, wanted .* at 8000 Hz; convert it"),
        (GOOD.replace(b"\x10\x00\x00\x00\x01\x00", b"\x10\x00\x00\x00\x03\x00"), "broken WAV file .unknown format: 3."),
    ],
)
def test_other_files_are_refused(content, sentence):
    with pytest.raises(BadFile, match=f"^x.wav: {sentence}"):
        read_wav(content, "x.wav")


def test_damaged_bytes_end_in_one_sentence_or_in_samples():
    for place in range(len(GOOD[:60])):
        for flip in (0x01, 0x80, 0xFF):
            broken = bytearray(GOOD)
            broken[place] ^= flip
            try:
                assert len(read_wav(bytes(broken), "x.wav")) <= 200
            except BadFile as e:
                assert str(e).startswith("x.wav: ")
