"""Train the small DMVAE-L of faces and attributes that ships with the package, on drawn faces of 32x32.

    python tools/train_faces.py [--steps 2000] [--work build/faces] [--save]

One face in ten has its attributes.  A run that was stopped resumes from its checkpoint.  With --save the weights replace
those of the package.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from mmvae_lite.data.digit_sets import paired_items
from mmvae_lite.data.faces import drawn_faces
from mmvae_lite.distributions import BernoulliLikelihood
from mmvae_lite.evaluation.semi_supervised import binary_scores
from mmvae_lite.models import DMVAE_L
from mmvae_lite.networks import dmvae_l_small_face_networks, kaiming_init
from mmvae_lite.pretrained import save
from mmvae_lite.training import fit, gradient_step

NAME, SEED, ITEMS, TEST, PRIVATE, EVERY = "dmvae-l-small-faces", 0, 3000, 500, 24, 4


def small_faces(n: int, seed: int) -> dict[str, Tensor]:
    """Drawn faces, halved to 32x32, and their attributes."""
    part = drawn_faces(n, seed)
    return {"image": F.avg_pool2d(part.batch["image"] / 255, 2), "attributes": part.batch["attributes"]}


def build(items: int = ITEMS) -> DMVAE_L:
    families = {"image": BernoulliLikelihood(), "attributes": BernoulliLikelihood()}
    return DMVAE_L(
        **dmvae_l_small_face_networks(PRIVATE), likelihoods=families, private_dims={"image": PRIVATE, "attributes": 0}, shared=(18, 2),
        n_data=items, weights={"attributes": 100.0}, tc_weights={"image": 3.0}, discrete_logprob="soft", unpaired=("image",),
    )  # fmt: skip


def train(steps: int, folder: Path):
    """The trained model and the history of its run, with a learning rate that falls to 0 along a cosine."""
    torch.manual_seed(SEED)
    pairs, dice, now = small_faces(ITEMS, 3), torch.Generator(), 0
    known = paired_items(torch.zeros(ITEMS, dtype=torch.long), 10, torch.Generator().manual_seed(SEED)).nonzero()[:, 0]
    model = build().apply(kaiming_init)
    epochs = math.ceil(steps / (ITEMS // 100))
    adam = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)

    def schedule(_, epoch: float) -> None:
        nonlocal now
        now = round(epoch * (ITEMS // 100))
        adam.param_groups[0]["lr"] = 1e-3 * 0.5 * (1 + math.cos(math.pi * min(1.0, epoch / epochs)))

    def step(model, batch, optimizers, generator, **rest):
        """Every fourth step sees faces with their attributes, the others faces alone."""
        if now % EVERY:
            return gradient_step(model, {"image": batch["image"]}, optimizers, generator, **rest)
        rows = known[torch.randint(len(known), (100,), generator=dice.manual_seed(now))]
        return gradient_step(model, {m: x[rows] for m, x in pairs.items()}, optimizers, generator, **rest)

    return model, fit(
        model, pairs, epochs=epochs, batch_size=100, optimizers={"model": adam}, schedule=schedule, step=step, seed=SEED, device="cpu",
        checkpoint=folder / "faces.safetensors",
    )  # fmt: skip


@torch.no_grad()
def measure(model: DMVAE_L) -> dict[str, dict[str, float]]:
    """The attributes from the picture alone, and what saying always the more frequent answer would reach."""
    test = small_faces(TEST, 5)
    scores = binary_scores(model.eval().translate({"image": test["image"]}, "attributes") > 0.5, test["attributes"] > 0.5)
    return {f"{kind} of attributes": {"value": round(v["value"], 4), "n": v["n"], "base": round(v["base"], 4)} for kind, v in scores.items()}


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--steps", type=int, default=2000)
    options.add_argument("--work", type=Path, default=Path("build/faces"))
    options.add_argument("--save", action="store_true")
    chosen = options.parse_args()
    torch.set_num_threads(1)
    chosen.work.mkdir(parents=True, exist_ok=True)
    model, history = train(chosen.steps, chosen.work)
    metrics = measure(model)
    print(metrics, f"{history.seconds:.0f} s", flush=True)
    if chosen.save:
        card = {
            "what": "DMVAE-L of drawn faces and 18 attributes: 24 private numbers of the face, 18 shared variables of two classes.",
            "network": f"DMVAE_L with networks.dmvae_l_small_face_networks({PRIVATE}), private 24 and 0, shared (18, 2); see tools/train_faces.py",
            "training": f"one face in ten has attributes, which every fourth batch shows; lambda 100, beta 3, Adam from 1e-3 to 0, batches of 100, {chosen.steps} steps",
            "data": "cartoon-faces", "items": ITEMS, "seed": SEED, "minutes": round(history.seconds / 60, 1), "device": "one CPU core", "metrics": metrics,
        }  # fmt: skip
        print(save(NAME, model, card))
