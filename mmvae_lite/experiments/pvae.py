"""Hsu and Glass (2018), table 1: how pure the clusters of each latent are, for spoken digits beside written ones.

PVAE with and without its contrast, a JMVAE-kl of the same networks, and a VAE of each modality by itself.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import nn

from mmvae_lite.data.parts import MultimodalSet
from mmvae_lite.distributions import NormalLikelihood
from mmvae_lite.experiments import _measures as measures
from mmvae_lite.experiments._data import paired
from mmvae_lite.experiments._experiment import Experiment, Metrics, Training, made, only, shortened
from mmvae_lite.models import JMVAE, PVAE, VAE
from mmvae_lite.networks import (
    GaussianEncoder,
    JointEncoder,
    PartitionedEncoder,
    SplitEncoder,
    pvae_image_decoder,
    pvae_image_trunk,
    pvae_jmvae_networks,
    pvae_networks,
    speech_decoder,
    speech_trunk,
)

UPDATES = 26_600  # of the paper: 17 000 spoken digits in batches of 256, 400 times
BATCH = 256
UNITS = {"smoke": 16, "lite": 128, "paper": 512}
ITEMS = {"smoke": 300, "lite": None, "paper": None}
LITE_UPDATES = 380
QUICK_UPDATES, QUICK_BATCH = 6000, 64
SQUEEZE = (0.4, 0.6, 0.7)  # of the training: begin, end of the full weight, end
MODALITIES = ("speech", "image")
COMMON = (
    "the paper's corpora are larger and closed; as many updates as it has, not as many epochs",
    "all spectrograms have 100 frames, so that silence is modelled too, and gates of the LSTMs start so that they outlast it",
)


def load(profile: str, seed: int) -> MultimodalSet:
    found = paired("spoken-written", seed=seed)
    return shortened(found, ITEMS[profile], ITEMS[profile])


def adam(lr: float | int = 1e-3):
    return lambda model: {"model": torch.optim.Adam(model.parameters(), lr=lr, betas=(0.95, 0.999))}


def squeezed(weight: float | int, epochs: float | int):
    """A schedule of `model.private_beta`: 1, in the middle of the training `weight` for a while, then down to 1 again.

    A decoder that has learnt to read the digit from the style has no reason to change its mind when the content knows it
    too.  While the style's divergence is dear, a digit that it holds too is the first thing to go.
    """
    begin, hold, end = (share * epochs for share in SQUEEZE)

    def schedule(model: nn.Module, epoch: float | int) -> None:
        left = min(1.0, max(0.0, (end - epoch) / (end - hold)))
        model.private_beta = float(weight) ** left if epoch >= begin else 1.0

    return schedule


def training(updates: int = UPDATES, batch: int = BATCH, lr: float | int = 1e-3, squeeze: float | int = 1.0):
    """A new written digit for every spoken one in each epoch; the number of updates is that of the paper, unless told."""

    def settings(profile: str, data: MultimodalSet, seed: int) -> Training:
        size = batch if profile == "paper" else 64
        steps = math.ceil(len(data.train) / size)
        epochs = {"smoke": 1, "lite": math.ceil(LITE_UPDATES / steps)}.get(profile, math.ceil(updates / steps))
        return Training(epochs, size, optimizers=adam(lr), pair=new_partners(data), schedule=squeezed(squeeze, epochs) if squeeze != 1 else None)

    return settings


def new_partners(data: MultimodalSet):
    """For `fit(pair=..)`: new written digits for the spoken digits of this set, which may hold but some of them."""
    if "image" not in data.train.batch:
        return None
    rows = data.train.index.get("speech", torch.arange(len(data.train)))

    def pair(index, generator: torch.Generator) -> dict[str, torch.Tensor]:
        drawn = data.repair({"speech": rows.to(generator.device)}, generator)
        return {m: drawn[m] for m in data.train.batch}

    return pair


def quick_networks(private_dim: int = 8, shared_dim: int = 8, units: int = 128) -> dict[str, nn.Module | dict[str, nn.Module]]:
    """Networks for PVAE that learn on one core while a page is built: `joint_encoder`, `encoders`, `decoders`; not the paper's.

    A reader of speech [100, 80] sees the mean of every two frames and two bands and has two dense layers, where the paper
    has an LSTM; the decoder of speech makes as coarse a picture, and one transposed convolution makes it fine.
    """
    latent = private_dim + shared_dim
    return {
        "joint_encoder": PartitionedEncoder(_quick_trunks(units), 2 * units, private_dim, shared_dim),
        "encoders": {m: SplitEncoder(trunk, units, private_dim, shared_dim) for m, trunk in _quick_trunks(units).items()},
        "decoders": _quick_decoders(latent, units),
    }


def quick_jmvae_networks(latent_dim: int = 24, units: int = 128) -> dict[str, nn.Module | dict[str, nn.Module]]:
    """`quick_networks` on one latent for everything, for JMVAE."""
    return {
        "joint_encoder": JointEncoder(_quick_trunks(units), nn.Identity(), 2 * units, latent_dim),
        "encoders": {m: GaussianEncoder(trunk, units, latent_dim) for m, trunk in _quick_trunks(units).items()},
        "decoders": _quick_decoders(latent_dim, units),
    }


def _quick_trunks(units: int) -> dict[str, nn.Sequential]:
    speech = nn.Sequential(nn.Unflatten(1, (1, 100)), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(50 * 40, units), nn.ReLU())
    image = nn.Sequential(nn.Flatten(), nn.Linear(28 * 28, units), nn.ReLU())
    return {m: nn.Sequential(*trunk, nn.Linear(units, units), nn.ReLU()) for m, trunk in (("speech", speech), ("image", image))}


def _quick_decoders(latent_dim: int, units: int) -> dict[str, nn.Sequential]:
    coarse = [nn.Linear(latent_dim, units), nn.ReLU(), nn.Linear(units, units), nn.ReLU(), nn.Linear(units, 50 * 40), nn.Unflatten(1, (1, 50, 40))]
    speech = nn.Sequential(*coarse, nn.ConvTranspose2d(1, 1, 4, 2, 1), nn.Flatten(), nn.Unflatten(1, (100, 80)))
    image = nn.Sequential(nn.Linear(latent_dim, units), nn.ReLU(), nn.Linear(units, 28 * 28), nn.Sigmoid(), nn.Unflatten(1, (1, 28, 28)))
    return {"speech": speech, "image": image}


def likelihoods(image_std: float | int = 1.0) -> dict[str, NormalLikelihood]:
    return {"speech": NormalLikelihood(1.0), "image": NormalLikelihood(float(image_std))}


def shape(data: MultimodalSet) -> dict[str, int]:
    frames, bins = data.train.batch["speech"].shape[1:]
    return {"frames": frames, "bins": bins}


def pvae(
    name: str = "pvae", row: str = "PVAE", *, contrast: float | int = 10.0, units: int | None = None, image_std: float | int = 1.0,
    updates: int = UPDATES, batch: int = BATCH, lr: float | int = 1e-3, squeeze: float | int = 1.0,
) -> Experiment:
    """PVAE.

    contrast: alpha_CM; units: of the LSTMs and dense layers, 512 in the paper; image_std: of the noise of the pixels;
    updates: steps in all, of so many items (`batch`) and this step size (`lr`); squeeze: what the styles'
    divergences from the prior count for a while, see `squeezed`.
    """

    def model(profile: str, data: MultimodalSet) -> PVAE:
        settings = {**PVAE.PRESETS["paper"], "alpha_cm": contrast}
        return PVAE(**pvae_networks(units=units or UNITS[profile], **shape(data)), likelihoods=likelihoods(image_std), **settings)

    metrics = tuple(f"purity_{kind}_{m}" for m in MODALITIES for kind in ("shared", "private"))
    metrics += tuple(f"{name}_{m}" for m in MODALITIES for name in ("elbow_shared", "swap_accuracy", "classifier_accuracy"))

    def measure(model: nn.Module, data: MultimodalSet, profile: str, seed: int) -> Metrics:
        judges = {m: measures.judge(m, data, measures.device_of(model), profile) for m in MODALITIES}
        found = measures.purities(model, data, seed, private=True) | measures.elbows(model, data, profile, seed)
        return found | measures.swap_accuracies(model, data, judges, seed)

    return _experiment(name, row, model, measure, metrics, training(updates, batch, lr, squeeze))


def quick(*, contrast: float | int = 10.0, coherence: float | int = 0.1, private: int = 2, image_std: float = 0.5, updates: int = QUICK_UPDATES) -> Experiment:
    """PVAE at a size that one core trains, for pages.

    contrast, coherence: alpha_CM and alpha_CH; private: numbers of a style; image_std: of the noise of the pixels.
    """

    def model(profile: str, data: MultimodalSet) -> PVAE:
        settings = {**PVAE.PRESETS["paper"], "private_dim": private, "shared_dim": 8, "alpha_cm": contrast, "alpha_ch": coherence}
        return PVAE(**quick_networks(private, 8, min(UNITS[profile], 128)), likelihoods=likelihoods(image_std), **settings)

    def schedule(profile: str, data: MultimodalSet, seed: int) -> Training:
        epochs = 1 if profile == "smoke" else math.ceil(updates / math.ceil(len(data.train) / QUICK_BATCH))
        return Training(epochs, QUICK_BATCH, optimizers=adam(3e-3), pair=new_partners(data))

    found = pvae("pvae_quick", "PVAE", contrast=contrast)
    changed = ("small networks without recurrence, small latents, a smaller noise of the pixels, fewer updates",)
    return replace(found, model=model, training=schedule, deviations=(*COMMON, *changed))


def jmvae(
    *, units: int | None = None, image_std: float | int = 1.0, updates: int = UPDATES, batch: int = BATCH, lr: float | int = 1e-3,
    alpha: float | int = 0.1,
) -> Experiment:
    """JMVAE-kl with the networks of PVAE and one latent of 96 numbers; the options are those of `pvae`."""

    def model(profile: str, data: MultimodalSet) -> JMVAE:
        return JMVAE(**pvae_jmvae_networks(units=units or UNITS[profile], **shape(data)), likelihoods=likelihoods(image_std), latent_dim=96, variant="kl", alpha=alpha)

    def measure(model: nn.Module, data: MultimodalSet, profile: str, seed: int) -> Metrics:
        return measures.purities(model, data, seed, private=False)

    return _experiment("jmvae_kl", "JMVAE-kl", model, measure, tuple(f"purity_shared_{m}" for m in MODALITIES), training(updates, batch, lr),
                       ("the weight of JMVAE's divergences is not stated; PVAE's 0.1 is taken",))  # fmt: skip


def vae(
    modality: str, *, units: int | None = None, image_std: float | int = 1.0, updates: int = UPDATES, batch: int = BATCH, lr: float | int = 1e-3,
) -> Experiment:
    """A VAE of one modality with the pre-encoder and decoder of PVAE and a latent of both its sizes together."""

    def model(profile: str, data: MultimodalSet) -> VAE:
        n = units or UNITS[profile]
        if modality == "speech":
            trunk, decoder = speech_trunk(units=n, **shape(data)), speech_decoder(64, units=n, **shape(data))
        else:
            trunk, decoder = pvae_image_trunk(n), pvae_image_decoder(64, n)
        return VAE(GaussianEncoder(trunk, n, 64), decoder, likelihoods(image_std)[modality], 64, modality, **VAE.PRESETS["paper"])

    def measure(model: nn.Module, data: MultimodalSet, profile: str, seed: int) -> Metrics:
        return measures.purities(model, data, seed, private=False)

    found = _experiment(f"vae_{modality}", f"VAE-{modality[:2]}", model, measure, (f"purity_shared_{modality}",), training(updates, batch, lr),
                        ("the size of the latent is not stated; 64, as many as PVAE has for a modality",))  # fmt: skip
    return replace(found, data=lambda profile, seed: only(load(profile, seed), (modality,)))


def _experiment(name, row, model, measure, metrics, training, deviations=()) -> Experiment:
    return Experiment(
        name=f"{name}-speech", paper="pvae", source=f"Table 1, {row}", data_name="spoken-written", data=load, model=model,
        training=training, measure=measure, metrics=metrics,
        deviations=(*COMMON, *deviations),
    )  # fmt: skip


EXPERIMENTS = [
    made(pvae),
    made(pvae, name="pvae_no_contrast", row="PVAE without the contrast", contrast=0.0),
    made(jmvae),
    made(vae, modality="speech"),
    made(vae, modality="image"),
    made(quick),
]
