"""Train the lite models of the chapter on contrast with two to five noisy digits and three seeds, and record their coherence.

    python book/results/make_noisy_sweep.py                    # scikit-learn's digits
    MMVAE_DATA=... python book/results/make_noisy_sweep.py     # MNIST

Writes book/results/noisy-<data>-<model>-<modalities>/lite-<seed>.json.  A file that exists is kept, so the sweep can be
stopped and continued; --force makes them anew.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

import torch
from torch import nn

from mmvae_lite.data import noisy_digits
from mmvae_lite.data.digit_sets import add_noise
from mmvae_lite.data.pairing import repair_each_epoch
from mmvae_lite.data.parts import MultimodalSet, as_float
from mmvae_lite.distributions import LaplaceLikelihood
from mmvae_lite.evaluation import conditional_coherence, joint_coherence, judges_for, leave_one_out_coherence
from mmvae_lite.ex_post import ExPostDensity
from mmvae_lite.information import Discriminator
from mmvae_lite.models import DMVAE_D, MMVAE, MVAE
from mmvae_lite.networks import GaussianEncoder, LaplaceEncoder, SplitEncoder, dense_decoder, dense_trunk
from mmvae_lite.results import write_result
from mmvae_lite.training import fit, kl_warmup

RESULTS = Path(__file__).resolve().parent
WIDTH, CODE, STYLE, STEPS, BATCH = 100, 10, 10, 720, 128
DRAWS, FITTED = 1000, 2000


def build(kind: str, names: list[str]) -> nn.Module:
    """The chapter's lite model."""
    latent = CODE + STYLE

    def trunk() -> nn.Module:
        return dense_trunk([784, WIDTH])

    rest = {
        "decoders": {m: nn.Sequential(*dense_decoder([latent, WIDTH, 784], (1, 28, 28)), nn.Sigmoid()) for m in names},
        "likelihoods": {m: LaplaceLikelihood(0.1) for m in names},
    }
    if kind == "dmvae_d":
        encoders = {m: SplitEncoder(trunk(), WIDTH, STYLE, CODE) for m in names}
        judges = {m: Discriminator(STYLE, CODE, (64,), (64,)) for m in names}
        return DMVAE_D(encoders, **rest, private_dim=STYLE, shared_dim=CODE, discriminators=judges, **DMVAE_D.PRESETS["code_paired"])
    if kind == "mvae":
        return MVAE({m: GaussianEncoder(trunk(), WIDTH, latent) for m in names}, **rest, latent_dim=latent)
    return MMVAE({m: LaplaceEncoder(trunk(), WIDTH, latent) for m in names}, **rest, latent_dim=latent, samples=1)


def train(model: nn.Module, data: MultimodalSet, seed: int) -> None:
    first = next(iter(data.train.index.values()))
    classes = torch.empty_like(data.train.classes)
    classes[first] = data.train.classes
    epochs = max(2, round(STEPS / math.ceil(len(data.train) / BATCH)))
    warmup = kl_warmup(max(1, epochs // 5)) if hasattr(model, "beta") else None
    fit(
        model, data.train, epochs=epochs, batch_size=BATCH, lr=3e-3, schedule=warmup, corrupt=add_noise(),
        pair=repair_each_epoch(dict.fromkeys(data.train.batch, classes)), seed=seed, device="cpu", progress=False,
    )  # fmt: skip


def measure(model: nn.Module, data: MultimodalSet, seed: int) -> dict[str, dict[str, float]]:
    judges, names = judges_for(data), list(data.train.batch)
    options = {"corrupt": add_noise(), "chunk": 2000, "seed": seed}
    kept = ("value", "n", "se", "chance", "spread")
    loo = leave_one_out_coherence(model, data.test, judges, **options)["mean"]
    one = conditional_coherence(model, data.test, judges, pairs=[((names[0],), names[-1])], **options)
    metrics = {
        "coherence-leave-one-out": {key: loo[key] for key in kept},
        "coherence-from-one": {key: next(iter(one.values()))[key] for key in kept},
        "judge": {"value": loo["classifier"], "n": loo["n"]},
    }
    rows = torch.randperm(len(data.train), generator=torch.Generator().manual_seed(seed))[:FITTED]
    clean = {m: as_float(x) for m, x in data.train.take(rows).items()}
    known = add_noise()(clean, torch.Generator().manual_seed(seed))
    densities = {f"expost-{k}": ExPostDensity.of(model, known, components=k, seed=seed) for k in (1, 10, 30)}
    if not isinstance(model, DMVAE_D):
        densities["prior"] = None
    for name, density in densities.items():
        found = joint_coherence(model, data.test, judges, n=DRAWS, density=density, chunk=2000, seed=seed)
        metrics[f"coherence-joint-{name}"] = {key: found[key] for key in ("value", "n", "se", "chance", "effective_classes")}
    return metrics


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--modalities", type=int, nargs="+", default=[2, 3, 4, 5])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--force", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for seed in arguments.seeds:
        for modalities in arguments.modalities:
            data = noisy_digits(modalities=modalities)
            for kind in ("dmvae_d", "mvae", "mmvae"):
                experiment = f"noisy-{data.name.rpartition('-')[0]}-{kind}-{modalities}"
                if (RESULTS / experiment / f"lite-{seed}.json").exists() and not arguments.force:
                    continue
                start = time.monotonic()
                torch.manual_seed(seed)
                model = build(kind, list(data.train.batch))
                train(model, data, seed)
                metrics = measure(model, data, seed)
                minutes = (time.monotonic() - start) / 60
                path = write_result(
                    experiment, "lite", seed, metrics, data=data.description, stand_in=data.stand_in, device="cpu", minutes=minutes, folder=RESULTS
                )
                found = " ".join(f"{name} {m['value']:.3f}" for name, m in metrics.items())
                print(f"{path.relative_to(RESULTS)}: {found}, {60 * minutes:.0f} s", flush=True)


if __name__ == "__main__":
    main()
