"""Korthals et al. (2019): the generators of entangled data, and JMVAE-Z, tVAE and M2VAE on what they generate.

e: digit and garment share class and latent; me: class alone, the fair control; m: the original pictures side by side;
mog: two modalities of two numbers, neither of which tells every class.
"""

from __future__ import annotations

import torch
from torch import nn

from mmvae_lite.data.entangled_sets import generator_cvae
from mmvae_lite.data.parts import MultimodalSet
from mmvae_lite.distributions import BernoulliLikelihood, NormalLikelihood
from mmvae_lite.experiments import _measures as measures
from mmvae_lite.experiments._data import paired
from mmvae_lite.experiments._experiment import Experiment, Metrics, Training, made, only, shortened
from mmvae_lite.models import CVAE, JMVAE, M2VAE, TELBO
from mmvae_lite.networks import cvae_decoder, cvae_encoder, m2vae_networks

PICTURES = ("digit", "garment")
KINDS = {"e": "e-MNIST", "me": "me-MNIST", "m": "m-MNIST", "mog": "mixture of Gaussians"}
MODELS = {"jmvae_zero": "JMVAE-Z", "tvae": "tVAE", "m2vae": "M2VAE"}
GENERATORS = {"digit": "mnist", "garment": "fashion-mnist"}


def load(kind: str):
    def data(profile: str, seed: int) -> MultimodalSet:
        found = paired("mog", seed=seed) if kind == "mog" else only(paired("entangled", kind=kind, seed=0), PICTURES)
        return measures.thinned(found, ({"smoke": 500, "lite": 20_000}.get(profile), {"smoke": 200, "lite": 2000}.get(profile)))

    return data


def networks(which: str, shapes: dict[str, tuple[int, ...]], hidden: tuple[int, ...]) -> dict[str, object]:
    """Those of the paper's table 1: an encoder of every subset for M2VAE, of which the others have some."""
    nets = m2vae_networks(shapes, hidden)
    if which == "m2vae":
        return nets
    names = tuple(shapes)
    alone = {m: nets["encoders"][m] for m in names}
    return {"joint_encoder": nets["encoders"]["+".join(names)], "decoders": nets["decoders"], **({"encoders": alone} if which == "tvae" else {})}


def on_pairs(
    which: str, kind: str, *, epochs: int = 100, beta: float | int | None = None, zero_prob: float | int = 0.5, alpha: float | int | None = None,
    batch_size: int | None = None,
) -> Experiment:
    """One model on one kind of pairs.  zero_prob: how often JMVAE-Z misses an input in training; alpha: of M2VAE's divergences.

    Points of a mixture lie in a unit square, where a variance of a half makes no place worth a nat: with weights of 1 every
    posterior is the prior, so both are 0.01 there, of the size that the authors' program has.
    """
    mog = kind == "mog"
    beta, alpha = ((0.01 if mog else 1.0) if weight is None else weight for weight in (beta, alpha))

    def model(profile: str, data: MultimodalSet) -> nn.Module:
        shapes = {m: tuple(x.shape[1:]) for m, x in data.train.batch.items()}
        family = NormalLikelihood(0.5**0.5) if mog else BernoulliLikelihood()  # the program's squared error has a variance of a half
        settings = {**networks(which, shapes, (128,) if mog else (128, 64)), "likelihoods": dict.fromkeys(shapes, family), "latent_dim": 2, "beta": beta}
        if which == "jmvae_zero":
            return JMVAE(**settings, variant="zero", zero_prob=zero_prob)
        if which == "tvae":
            return TELBO(**settings, **TELBO.PRESETS["paper"])
        return M2VAE(**settings, **{**M2VAE.PRESETS["paper"], "alpha": alpha})

    def training(profile: str, data: MultimodalSet, seed: int) -> Training:
        length, size = {"smoke": (1, 128), "lite": (20, 128)}.get(profile, (epochs, batch_size or 1024))
        optimizers = (lambda model: {"model": torch.optim.RMSprop(model.parameters(), lr=1e-3)}) if mog else None
        return Training(length, size, 1e-3, optimizers=optimizers, schedule=None)

    def measure(model: nn.Module, data: MultimodalSet, profile: str, seed: int) -> Metrics:
        metrics = {"elbo": measures.joint_elbo(model, data.test, seed), **measures.single_elbos(model, data.test, seed)}
        if not mog:
            judges = {m: measures.judge(m, data, measures.device_of(model), profile) for m in PICTURES}
            metrics |= measures.coherences(model, data, judges, seed)
            for a, b in (PICTURES, PICTURES[::-1]):
                metrics |= measures.distances({b: measures.made(model, data, b, (a,), seed)}, data, f"{a}_to_{b}")
        return metrics

    names = ("w", "x") if mog else PICTURES
    classes = () if mog else ("coherence_digit_to_garment", "coherence_garment_to_digit", "classifier_accuracy_digit", "classifier_accuracy_garment",
                               "frechet_digit_to_garment", "frechet_garment_to_digit")  # fmt: skip
    return Experiment(
        name=f"{which}-{kind}", paper="m2vae", source=f"Section 3, {KINDS[kind]}, {MODELS[which]}", data_name="mog" if mog else "entangled",
        data_options={} if mog else {"kind": kind}, data=load(kind), model=model, training=training, measure=measure,
        metrics=("elbo", *(f"elbo_given_{m}" for m in names), *classes),
        deviations=(f"epochs, batches and beta are not stated: 100, 1024 and {beta:g}", "samples with exp(logvar / 2), where the authors' program has exp(logvar)",
                    *(() if kind in ("m", "mog") else ("pairs from our own generators, so that no value compares with the paper's, but their difference",)),
                    *(("an input is missed half of the time in training, our reading of JMVAE-Z",) if which == "jmvae_zero" else ())),
    )  # fmt: skip


def generator_of(modality: str, *, epochs: int = 100, beta: float | int | None = None) -> Experiment:
    """The CVAE that generates one of the modalities; `lite` is the dense one whose decoder ships."""

    def data(profile: str, seed: int) -> MultimodalSet:
        found = paired("image-label", images=GENERATORS[modality])
        return shortened(found, {"smoke": 300, "lite": 10_000}.get(profile), {"smoke": 100, "lite": 2000}.get(profile))

    def model(profile: str, data: MultimodalSet) -> CVAE:
        settings = {**CVAE.PRESETS["paper"], **({} if beta is None else {"beta": beta})}
        if profile != "paper":
            return generator_cvae("image", **settings)
        return CVAE(cvae_encoder(), cvae_decoder(), BernoulliLikelihood(), 2, 10, **settings)

    def training(profile: str, data: MultimodalSet, seed: int) -> Training:
        optimizers = lambda model: {"model": torch.optim.RMSprop(model.parameters(), lr=1e-3)}
        return Training({"smoke": 1, "lite": 40}.get(profile, epochs), 128, optimizers=optimizers if profile == "paper" else None)

    def measure(model: nn.Module, data: MultimodalSet, profile: str, seed: int) -> Metrics:
        return measures.cvae_metrics(model, data, profile, seed)

    return Experiment(
        name=f"cvae-{modality}", paper="m2vae", source=f"Section 1.1, generator of the {modality}s", data_name="image-label", data_options={"images": GENERATORS[modality]},
        data=data, model=model, training=training, measure=measure, metrics=("elbo", "kl", "coherence_label_to_image", "classifier_accuracy_image"),
        deviations=("trained on the first 50 000 images", "samples with exp(logvar / 2), where the authors' program has exp(logvar)"),
    )  # fmt: skip


EXPERIMENTS = [
    *(made(on_pairs, which=which, kind=kind) for kind in KINDS for which in MODELS),
    *(made(generator_of, modality=m) for m in PICTURES),
]
