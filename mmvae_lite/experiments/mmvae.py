"""Shi et al. (2019): tables 1 to 3 on digits with house numbers, table 4 on birds with captions.

MMVAE, its twin with a product of experts in place of the mixture, and the same networks on one modality alone.
"""

from __future__ import annotations

import torch
from torch import nn

from mmvae_lite.checks import check_name
from mmvae_lite.data.parts import MultimodalSet
from mmvae_lite.distributions import CategoricalLikelihood, LaplaceLikelihood
from mmvae_lite.evaluation import likelihood
from mmvae_lite.experiments import _measures as measures
from mmvae_lite.experiments._data import paired
from mmvae_lite.experiments._experiment import Experiment, Metrics, Training, generator, made, only
from mmvae_lite.experiments.dmvae_d import NAMES, PRIOR_METRICS, STREET_METRICS, renamed, street, street_metrics
from mmvae_lite.models import MMVAE, MVAE
from mmvae_lite.networks import (
    GaussianEncoder,
    LaplaceEncoder,
    mmvae_cub_networks,
    mmvae_networks,
    stride_two_convolutions,
    stride_two_deconvolutions,
)

SCALE = 0.75  # of the Laplace likelihoods; the authors' correction of their first 0.1, see the model's presets
SCALE_BIRDS = 0.01
LIKELIHOODS = ("joint", *(f"{m}_by_{seen}" for m in NAMES.values() for seen in (*NAMES.values(), "all")))


def amsgrad(model: nn.Module) -> dict[str, torch.optim.Optimizer]:
    return {"model": torch.optim.Adam(model.parameters(), lr=1e-3, amsgrad=True)}


def on_street(product: bool = False, *, preset: str = "code", samples: int = 30, epochs: int = 30, scale: float | int = SCALE) -> Experiment:
    """MMVAE, or MVAE in its place.  samples: K; scale: of the likelihoods."""
    check_name("preset", preset, MMVAE.PRESETS)
    settings = renamed(MMVAE.PRESETS[preset])

    def model(profile: str, data: MultimodalSet) -> nn.Module:
        likelihoods = {m: LaplaceLikelihood(scale) for m in NAMES.values()}
        if product:
            nets = renamed(mmvae_networks(settings["latent_dim"], GaussianEncoder))
            return MVAE(**nets, likelihoods=likelihoods, latent_dim=settings["latent_dim"], weights=settings.get("weights"))
        nets = renamed(mmvae_networks(settings["latent_dim"]))
        return MMVAE(**nets, likelihoods=likelihoods, **{**settings, "samples": samples if profile == "paper" else 3})

    def training(profile: str, data: MultimodalSet, seed: int) -> Training:
        return Training({"smoke": 1, "lite": 1}.get(profile, epochs), 128, optimizers=amsgrad)

    def measure(model: nn.Module, data: MultimodalSet, profile: str, seed: int) -> Metrics:
        found = street_metrics(model, data, profile, seed, prior=True, sampled=True) | measures.dimension_kls(model, data)
        return found | likelihoods_of(model, data, profile, seed)

    return Experiment(
        name="mmvae_product-street" if product else "mmvae-street", paper="mmvae",
        source="Tables 1 to 3, " + ("its twin, a product of experts" if product else "MMVAE"), data_name="digits-street",
        data=street, model=model, training=training, measure=measure,
        metrics=STREET_METRICS + PRIOR_METRICS + ("kl_digit", "kl_street", "kl_digit_street") + tuple(f"log_likelihood_{name}" for name in LIKELIHOODS),
        deviations=("the estimator and the weights of the authors' program", "likelihoods without weights, each a marginal by the proposal that its name says",
                    "Fréchet distances on our own small networks"),
    )  # fmt: skip


def likelihoods_of(model: nn.Module, data: MultimodalSet, profile: str, seed: int) -> Metrics:
    """Table 3: importance-sampled log-likelihoods in nats, log p(x) and log p(x_m) by three proposals."""
    n, samples = {"smoke": (20, 10), "lite": (50, 50), "paper": (1000, 1000)}[profile]
    part = data.test.evenly(n)
    batch = {m: x.to(measures.device_of(model)) for m, x in part.take(slice(None)).items()}
    rows = likelihood.table(model, batch, samples=samples, chunk=min(samples, 100), generator=generator(seed, model))
    found = {}
    for name, row in rows.items():
        if name != "joint, weighted":
            key = name.replace(", proposal ", "_by_")
            found[f"log_likelihood_{key}"] = {"value": row["mean"], **{k: row[k] for k in ("n", "se", "ess", "poor")}, "unit": "nats"}
    return found


def alone(modality: str, *, epochs: int = 30) -> Experiment:
    """The networks of MMVAE on one modality: a VAE with Laplace densities, of which K = 1 is the bound."""

    def data(profile: str, seed: int) -> MultimodalSet:
        return only(street(profile, seed), (modality,))

    def model(profile: str, data: MultimodalSet) -> MMVAE:
        nets = renamed(mmvae_networks())
        return MMVAE({modality: nets["encoders"][modality]}, {modality: nets["decoders"][modality]}, {modality: LaplaceLikelihood(SCALE)}, 20, samples=1)

    def training(profile: str, data: MultimodalSet, seed: int) -> Training:
        return Training({"smoke": 1, "lite": 1}.get(profile, epochs), 128, optimizers=amsgrad)

    def measure(model: nn.Module, data: MultimodalSet, profile: str, seed: int) -> Metrics:
        return measures.latent_accuracies(model, data, profile, seed, True, {modality: (modality,)})

    return Experiment(
        name=f"vae_{modality}-street", paper="mmvae", source=f"Table 1, single VAE of the {modality}", data_name="digits-street",
        data=data, model=model, training=training, measure=measure, metrics=(f"latent_accuracy_{modality}",),
    )  # fmt: skip


def bird_networks(data: MultimodalSet, latent: int, normal: bool) -> dict[str, dict[str, nn.Module]]:
    """The paper's networks for captions, and for images those of features, or convolutions where they are pictures."""
    positions, words = data.train.batch["caption"].shape[1], data.train.words["caption"]
    nets = mmvae_cub_networks(latent, words, positions, laplace=not normal)
    if data.train.batch["image"].ndim == 4:
        head = GaussianEncoder if normal else LaplaceEncoder
        trunk = nn.Sequential(*stride_two_convolutions([3, 32, 64, 128, 256]), nn.Flatten())
        start = [nn.Unflatten(1, (latent, 1, 1)), nn.ConvTranspose2d(latent, 256, 4), nn.ReLU()]
        nets["encoders"]["image"] = head(trunk, 256 * 16, latent)
        nets["decoders"]["image"] = nn.Sequential(*start, *stride_two_deconvolutions([256, 128, 64, 32, 3]), nn.Sigmoid())
    return nets


def on_birds(product: bool = False, *, samples: int = 50, epochs: int = 50, scale: float | int = SCALE_BIRDS, image: float | int | None = None) -> Experiment:
    """MMVAE on birds, or MVAE in its place.  image: the weight of the image, 32 over its size unless given."""

    def data(profile: str, seed: int) -> MultimodalSet:
        return measures.thinned(paired("birds"), {"smoke": (300, 100), "lite": (2000, 400)}.get(profile, (None, None)))

    def model(profile: str, data: MultimodalSet) -> nn.Module:
        nets = bird_networks(data, 64, normal=True)
        size = data.train.batch["image"][0].numel()
        settings = {"likelihoods": {"image": LaplaceLikelihood(scale), "caption": CategoricalLikelihood()}, "latent_dim": 64,
                    "weights": {"image": 32 / size if image is None else image}}  # fmt: skip
        if product:
            return MVAE(**nets, **settings)
        return MMVAE(**nets, **settings, samples=samples if profile == "paper" else 2, estimator="stl", prior="normal")

    def training(profile: str, data: MultimodalSet, seed: int) -> Training:
        return Training({"smoke": 1, "lite": 1}.get(profile, epochs), 64, optimizers=amsgrad)

    def measure(model: nn.Module, data: MultimodalSet, profile: str, seed: int) -> Metrics:
        return measures.correlations(model, data, profile, seed)

    return Experiment(
        name="mmvae_product-birds" if product else "mmvae-birds", paper="mmvae", source="Table 4, " + ("its twin, a product of experts" if product else "MMVAE"),
        data_name="birds", data=data, model=model, training=training, measure=measure,
        metrics=("cca_joint", "cca_image_to_caption", "cca_caption_to_image", "cca_truth"),
        deviations=("where photographs are missing, drawn birds with made-up captions, and convolutions in place of a ResNet's features",
                    "normal posteriors and 64 dimensions as in the authors' program; the text has Laplace and 128"),
    )  # fmt: skip


EXPERIMENTS = [
    made(on_street),
    made(on_street, product=True),
    *(made(alone, modality=m) for m in NAMES.values()),
    made(on_birds),
    made(on_birds, product=True),
]
