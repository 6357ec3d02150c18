"""Train the MVAE chapter's lite model with several latent sizes and seeds, and record what it can do.

    python book/results/make_mvae_sweep.py                    # scikit-learn's digits
    MMVAE_DATA=... python book/results/make_mvae_sweep.py     # the first 10 000 images of MNIST

Writes book/results/mvae-<data>-latent-<size>/lite-<seed>.json.  A file that exists is kept, so the sweep can be
stopped and continued; --force makes them anew.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from torch import Tensor

from mmvae_lite.data import Split, best_available
from mmvae_lite.distributions import BernoulliLikelihood, CategoricalLikelihood
from mmvae_lite.models import MVAE
from mmvae_lite.networks import image_decoder, image_encoder, label_decoder, label_encoder
from mmvae_lite.results import write_result
from mmvae_lite.training import fit

RESULTS = Path(__file__).resolve().parent
EPOCHS = {"digits": 100, "mnist": 15}
TRAIN = 10_000
DRAWS = 100  # pictures of each class


def build(latent_dim: int) -> MVAE:
    """The chapter's lite model."""
    return MVAE(
        encoders={
            "image": image_encoder(latent_dim, hidden=(256, 256)),
            "label": label_encoder(latent_dim, hidden=(64, 64)),
        },
        decoders={
            "image": image_decoder(latent_dim, hidden=(256, 256)),
            "label": label_decoder(latent_dim, hidden=(64, 64)),
        },
        likelihoods={"image": BernoulliLikelihood(), "label": CategoricalLikelihood()},
        latent_dim=latent_dim,
        weights={"label": 10.0},
    )


def neighbours(known: Tensor, classes: Tensor, asked: Tensor, k: int = 5) -> Tensor:
    """The class of most of the k nearest known rows: [items, ...] and [n, ...] -> [n]."""
    distance = torch.cdist(asked.flatten(1), known.flatten(1))
    return classes[distance.topk(k, largest=False).indices].mode(-1).values


def share(found: Tensor, wanted: Tensor) -> dict[str, float]:
    return {"value": (found == wanted).float().mean().item(), "n": len(wanted)}


@torch.no_grad()
def measure(model: MVAE, train: Split, test: Split, seed: int) -> dict[str, dict[str, float]]:
    """What the model can do across modalities, and where its label is kept."""
    g = torch.Generator().manual_seed(seed)
    batch, prior = test.batch(), torch.Generator().manual_seed(seed)
    alone = model.posterior({"image": test.images})["shared"]
    both = model.posterior(batch)["shared"]

    def label(z: Tensor) -> Tensor:
        return model.decode({"shared": z})["label"].argmax(-1)

    # the label expert's votes: in how many dimensions it says more than the prior, and where it says most
    precision = model.experts({"label": torch.eye(10)})["label"].precision.median(0).values
    own = int(precision.argmax())
    mended = alone.mean.clone()
    mended[:, own] = both.mean[:, own]
    # in that dimension: the step from one label to the next, and how far pictures of one label scatter
    places = model.posterior({"label": torch.eye(10)})["shared"].mean[:, own].sort().values
    scatter = torch.stack([alone.mean[test.classes == c, own].std() for c in range(10)]).mean()

    asked = torch.arange(10).repeat_interleave(DRAWS)
    from_label = model.translate({"label": torch.eye(10)[asked]}, "image", sample=True, generator=g)
    free = model.sample(10 * DRAWS, prior)
    known = model.posterior({"image": train.images})["shared"].mean
    return {
        "label-from-image": share(label(alone.mean), test.classes),
        "label-from-image-draw": share(label(alone.rsample(generator=g)), test.classes),
        "label-from-both": share(label(both.mean), test.classes),
        "label-from-image-mended": share(label(mended), test.classes),
        "label-by-neighbours-in-latent": share(neighbours(known, train.classes, alone.mean), test.classes),
        "image-from-label": share(neighbours(train.images, train.classes, from_label), asked),
        "joint": share(neighbours(train.images, train.classes, free["image"]), free["label"].argmax(-1)),
        "label-dims": float((precision > 1).sum()),
        "label-precision-there": float(precision[own]),
        "image-precision-there": float(model.experts(batch)["image"].precision[:, own].median()),
        "label-step-there": float(places.diff().median()),
        "image-scatter-there": float(scatter),
        "judge-on-real-images": share(neighbours(train.images, train.classes, test.images[:2000]), test.classes[:2000]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--latents", type=int, nargs="+", default=[4, 16, 2, 8, 32])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--force", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    data = best_available("digits")
    train = data.train.first(TRAIN)
    for latent_dim in arguments.latents:
        for seed in arguments.seeds:
            experiment = f"mvae-{data.name}-latent-{latent_dim}"
            if (RESULTS / experiment / f"lite-{seed}.json").exists() and not arguments.force:
                continue
            start = time.monotonic()
            torch.manual_seed(seed)
            model = build(latent_dim)
            fit(model, train.batch(), epochs=EPOCHS[data.name], seed=seed, device="cpu", progress=False)
            metrics = measure(model, train, data.test, seed)
            path = write_result(
                experiment, "lite", seed, metrics, data=f"{data.description}, {len(train)} items", stand_in=data.stand_in,
                device="cpu", minutes=(time.monotonic() - start) / 60, folder=RESULTS,
            )
            crossed = " ".join(f"{m} {metrics[m]['value']:.3f}" for m in ("label-from-image", "image-from-label"))
            print(f"{path.relative_to(RESULTS)}: {crossed}, {time.monotonic() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
