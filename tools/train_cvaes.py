"""Train the two conditional autoencoders whose decoders ship with the package and make the entangled sets.

    python tools/train_cvaes.py [--epochs 60] [--work build/cvaes] [--only digit] [--save]

Needs MNIST and Fashion-MNIST in the folder that MMVAE_DATA names.  A run that was stopped resumes from its checkpoint.
With --save the decoders replace those of the package.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import torch

from mmvae_lite.data import fashion_mnist, mnist
from mmvae_lite.data.entangled import RADII, truncated_normal
from mmvae_lite.data.entangled_sets import generate, generator_cvae
from mmvae_lite.evaluation.classifiers import accuracy, classifier
from mmvae_lite.pretrained import save
from mmvae_lite.training import fit

DATA = {"digit": mnist, "garment": fashion_mnist}
SEED = 0


def train(modality: str, epochs: int, folder: Path, lr: float = 1e-3):
    """The trained model and the history of its run, with a learning rate that falls to 0 along a cosine."""
    torch.manual_seed(SEED)
    model = generator_cvae(modality)
    adam = torch.optim.Adam(model.parameters(), lr=lr, fused=True)

    def anneal(_, epoch: float) -> None:
        adam.param_groups[0]["lr"] = lr * 0.5 * (1 + math.cos(math.pi * min(1.0, epoch / epochs)))

    history = fit(
        model, batch_of(modality, "train"), epochs=epochs, batch_size=128, optimizers={"model": adam}, schedule=anneal,
        seed=SEED, device="cpu", checkpoint=folder / f"{modality}.safetensors",
    )  # fmt: skip
    return model, history


def batch_of(modality: str, part: str) -> dict[str, torch.Tensor]:
    batch = getattr(DATA[modality](), part).batch()
    return {modality: batch["image"], "label": batch["label"]}


def agreement(modality: str, decoder) -> float:
    """How often a judge that learnt from real pictures names the class that was asked for."""
    z = truncated_normal(1000, 2, RADII["paper"], torch.Generator().manual_seed(SEED)).repeat(10, 1)
    classes = torch.arange(10).repeat_interleave(1000)
    return accuracy(classifier("mnist" if modality == "digit" else "fashion-mnist"), generate(decoder.eval(), z, classes), classes)


@torch.no_grad()
def ship(modality: str, model, history, epochs: int) -> None:
    terms = model.loss(batch_of(modality, "test"), generator=torch.Generator().manual_seed(SEED))
    card = {
        "what": f"Decoder of a conditional autoencoder of {'MNIST digits' if modality == 'digit' else 'Fashion-MNIST garments'}, two latent numbers and a class; it makes e-MNIST.",
        "network": "mmvae_lite.data.entangled_sets.generator_network(): dense layers 256 and 256 with SiLU, in place of the paper's convolutions",
        "training": f"the CVAE of Korthals et al. (2019), beta 4, Adam from 1e-3 to 0 along a cosine, batches of 128, {epochs} epochs instead of 100; tools/train_cvaes.py",
        "data": "mnist" if modality == "digit" else "fashion-mnist",
        "items": 60_000,
        "seed": SEED,
        "minutes": round(history.seconds / 60, 1),
        "device": "one CPU core",
        "metrics": {
            "reconstruction in nats": {"value": round(float(terms[f"recon/{modality}"]), 2), "n": 10_000},
            "KL in nats": {"value": round(float(terms["kl"]), 2), "n": 10_000},
            "class named by a judge of real pictures": {"value": round(agreement(modality, model.decoder), 4), "n": 10_000},
        },
    }
    print(save(f"cvae-{modality}", model.decoder, card))


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--epochs", type=int, default=60)
    options.add_argument("--work", type=Path, default=Path("build/cvaes"))
    options.add_argument("--only", choices=DATA)
    options.add_argument("--save", action="store_true")
    given = options.parse_args()
    for modality in [given.only] if given.only else DATA:
        model, history = train(modality, given.epochs, given.work)
        if given.save:
            ship(modality, model, history, given.epochs)
