"""Daunhawer et al. (2021): tables 1 to 3 on digits with house numbers, figure 3 on two to five noisy digits.

DMVAE beside MVAE and MMVAE on the same tuples; joint samples from the prior and from an ex-post density.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import nn

from mmvae_lite.checks import check_name
from mmvae_lite.data.digit_sets import add_noise
from mmvae_lite.data.parts import MultimodalSet
from mmvae_lite.distributions import LaplaceLikelihood
from mmvae_lite.experiments import _measures as measures
from mmvae_lite.experiments._data import paired
from mmvae_lite.experiments._experiment import Experiment, Metrics, Training, made
from mmvae_lite.models import DMVAE_D, MMVAE, MVAE
from mmvae_lite.networks import (
    GaussianEncoder,
    LaplaceEncoder,
    dense_decoder,
    dense_trunk,
    dmvae_d_networks,
    dmvae_d_paired_networks,
    normal_init,
    svhn_decoder,
    svhn_trunk,
)
from mmvae_lite.training import kl_warmup

SCALE = 0.1  # of the Laplace likelihoods
NAMES = {"mnist": "digit", "svhn": "street"}
PAIRS = (("digit", "street"), ("street", "digit"))
ITEMS = {"smoke": (400, 1200), "lite": (12_000, 2000), "paper": (None, 10_000)}
STREET_METRICS = (
    "latent_accuracy_digit", "latent_accuracy_street", "latent_accuracy_both", "coherence_joint_expost",
    *(f"coherence_{a}_to_{b}" for a, b in PAIRS), "classifier_accuracy_digit", "classifier_accuracy_street",
    "frechet_digit_expost", "frechet_street_expost", *(f"frechet_{a}_to_{b}" for a, b in PAIRS), *(f"frechet_class_{a}_to_{b}" for a, b in PAIRS),
)  # fmt: skip
PRIOR_METRICS = ("coherence_joint", "frechet_digit", "frechet_street")


def renamed(settings: Mapping[str, object], names: Mapping[str, str] = NAMES) -> dict[str, object]:
    """Settings or networks of MNIST and SVHN under the names of the modalities here."""
    new = {names.get(key, key): x for key, x in settings.items()}
    return {key: renamed(x, names) if isinstance(x, dict) else x for key, x in new.items()}


def street(profile: str, seed: int) -> MultimodalSet:
    """A million tuples of a digit and a house number; the test set by its first 10 000."""
    train, test = ITEMS[profile]
    found = paired("digits-street", **({"drawn": (1000, 1500), "times": 1} if profile == "smoke" else {}))
    return shortened_evenly(found, train, test)


def shortened_evenly(data: MultimodalSet, train: int | None, test: int | None) -> MultimodalSet:
    """The set with so many tuples of all classes, which come class by class."""
    parts = {"train": (data.train, train), "test": (data.test, test)}
    return replace(data, **{name: part.evenly(n) for name, (part, n) in parts.items() if n})


def street_networks(latent: int, head: type[nn.Module]) -> dict[str, dict[str, nn.Module]]:
    """The networks of DMVAE for one latent: `encoders` with one head, `decoders`."""
    return {
        "encoders": {"digit": head(dense_trunk([784, 400]), 400, latent), "street": head(svhn_trunk(), 2048, latent)},
        "decoders": {"digit": nn.Sequential(*dense_decoder([latent, 400, 784], (1, 28, 28)), nn.Sigmoid()), "street": svhn_decoder(latent)},
    }


def noisy_networks(modalities: list[str], latent: int, head: type[nn.Module]) -> dict[str, dict[str, nn.Module]]:
    sizes = [latent, 512, 512, 512, 784]
    return {
        "encoders": {m: head(dense_trunk([784, 512, 512]), 512, latent) for m in modalities},
        "decoders": {m: nn.Sequential(*dense_decoder(sizes, (1, 28, 28)), nn.Sigmoid()) for m in modalities},
    }


def schedule(profile: str, epochs: int, warmup: int, batch: int, lr: float | int, warm: bool, lite: int, corrupt=None, accumulate: int = 1) -> Training:
    length = {"smoke": 1, "lite": lite}.get(profile, epochs)
    warming = kl_warmup(warmup if profile == "paper" else max(1, length // 5)) if warm else None
    return Training(length, batch if profile == "paper" else 128, lr, schedule=warming, corrupt=corrupt, accumulate=accumulate if profile == "paper" else 1)


def laplace(modalities) -> dict[str, LaplaceLikelihood]:
    return {m: LaplaceLikelihood(SCALE) for m in modalities}


def single(which: str, modalities: list[str], networks, weights: Mapping[str, float], samples: int = 30) -> nn.Module:
    """The comparators of one latent of 20 numbers, with the same networks, likelihoods and weights."""
    if which == "mvae":
        return MVAE(**networks(20, GaussianEncoder), likelihoods=laplace(modalities), latent_dim=20, weights=weights).apply(normal_init)
    settings = {**MMVAE.PRESETS["code"], "samples": samples, "weights": weights}
    return MMVAE(**networks(20, LaplaceEncoder), likelihoods=laplace(modalities), **settings)


def on_street(which: str = "dmvae_d", *, preset: str = "code", epochs: int = 50) -> Experiment:
    """DMVAE or MVAE on digits with house numbers; MMVAE's row is that of its own paper."""
    check_name("preset", preset, ("code", "paper"))
    settings = renamed(DMVAE_D.PRESETS[preset])

    def model(profile: str, data: MultimodalSet) -> nn.Module:
        modalities = list(data.train.batch)
        if which == "dmvae_d":
            return DMVAE_D(**renamed(dmvae_d_networks()), likelihoods=laplace(modalities), private_dim=10, shared_dim=10, **settings).apply(normal_init)
        return single(which, modalities, street_networks, settings["weights"])

    def training(profile: str, data: MultimodalSet, seed: int) -> Training:
        return schedule(profile, epochs, 6, 1024, 1e-3, True, lite=2)

    def measure(model: nn.Module, data: MultimodalSet, profile: str, seed: int) -> Metrics:
        return street_metrics(model, data, profile, seed, prior=which != "dmvae_d")

    return Experiment(
        name=f"{which}-street", paper="dmvae_d", source="Tables 1 to 3, " + {"dmvae_d": "DMVAE", "mvae": "MVAE"}[which],
        data_name="digits-street", data=street, model=model, training=training, measure=measure,
        metrics=STREET_METRICS + (PRIOR_METRICS if which != "dmvae_d" else ()),
        deviations=("weights as in the authors' program, since the text has none", "Fréchet distances on our own small networks, and no Inception",
                    "tested on 10 000 of the 200 000 test tuples"),
    )  # fmt: skip


def street_metrics(model: nn.Module, data: MultimodalSet, profile: str, seed: int, prior: bool, sampled: bool = False) -> Metrics:
    """What tables 1 to 3 hold: probes of the shared latent, coherences, Fréchet distances, from the prior and ex post."""
    device = measures.device_of(model)
    judges = {m: measures.judge(m, data, device, profile) for m in ("digit", "street")}
    given = {"digit": ("digit",), "street": ("street",), "both": ("digit", "street")}
    metrics = measures.latent_accuracies(model, data, profile, seed, sampled, given)
    metrics |= measures.coherences(model, data, judges, seed, PAIRS)
    density = measures.ex_post(model, data, profile, seed)
    n = measures.GENERATED[profile]
    for ending, chosen in (("", None), ("_expost", density)) if prior else (("_expost", density),):
        metrics |= measures.joint(model, data, judges, profile, seed, chosen, f"coherence_joint{ending}")
        metrics |= measures.distances(measures.drawn(model, n, chosen, seed), data, "{}" + ending)
    for a, b in PAIRS:
        images = {b: measures.made(model, data, b, (a,), seed)}
        metrics |= measures.distances(images, data, f"{a}_to_{b}") | measures.distances(images, data, f"class_{a}_to_{b}", by_class=True)
    return metrics


def on_noisy(which: str, modalities: int, *, preset: str = "code_paired", lr: float | int | None = None, epochs: int = 300, samples: int = 30) -> Experiment:
    """DMVAE, MVAE or MMVAE on several noisy digits of one class, with clean targets.  samples: K of MMVAE."""
    check_name("preset", preset, ("code_paired", "paper_paired"))
    settings = DMVAE_D.PRESETS[preset]
    names = [f"x{m}" for m in range(1, modalities + 1)]

    def data(profile: str, seed: int) -> MultimodalSet:
        found = paired("noisy-digits", modalities=modalities)
        train, test = {"smoke": (400, 600), "lite": (12_000, 2000)}.get(profile, (None, None))
        return shortened_evenly(found, train, test)

    def model(profile: str, data: MultimodalSet) -> nn.Module:
        if which == "dmvae_d":
            nets = dmvae_d_paired_networks(names)
            return DMVAE_D(**nets, likelihoods=laplace(names), private_dim=10, shared_dim=10, **settings).apply(normal_init)
        return single(which, names, lambda latent, head: noisy_networks(names, latent, head), {}, samples if profile == "paper" else 3)

    def training(profile: str, data: MultimodalSet, seed: int) -> Training:
        rate = lr or (3e-3 if preset == "paper_paired" else 1e-3)
        batch = 1024 if which != "mmvae" else 128
        return schedule(profile, epochs if which != "mmvae" else 50, 51, batch, rate, which != "mmvae", lite=3, corrupt=add_noise())

    def measure(model: nn.Module, data: MultimodalSet, profile: str, seed: int) -> Metrics:
        judges = {m: measures.judge(m, data, measures.device_of(model), profile) for m in names}
        seen = measures.Noisy(model)
        metrics = measures.leave_one_out(seen, data, judges, seed)
        images = {m: measures.made(seen, data, m, [x for x in names if x != m], seed) for m in names}
        return metrics | measures.mean_class_distance(images, data, "frechet_class_leave_one_out")

    return Experiment(
        name=f"{which}-noisy-{modalities}", paper="dmvae_d", source=f"Figure 3, M = {modalities}, " + which.upper().replace("_D", ""),
        data_name="noisy-digits", data=data, model=model, training=training, measure=measure,
        metrics=("coherence_leave_one_out", "classifier_accuracy", "frechet_class_leave_one_out"),
        deviations=("the weights of the authors' program (beta 10, step 1e-3) and not those of the text (100, 3e-3)" if preset == "code_paired" else "the text's weights",
                    *(("batches of 128 for 50 epochs, with as many steps as the others have or more",) if which == "mmvae" else ()),
                    *(("its likelihoods and networks are those of DMVAE; its terms have equal weights",) if which != "dmvae_d" else ()),
                    "Fréchet distances on our own small network"),
    )  # fmt: skip


EXPERIMENTS = [
    *(made(on_street, which=which) for which in ("dmvae_d", "mvae")),
    *(made(on_noisy, which=which, modalities=m) for m in (2, 3, 4, 5) for which in ("dmvae_d", "mvae", "mmvae")),
]
