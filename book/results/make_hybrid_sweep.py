"""Train the DMVAE-L chapter's lite models with several numbers of labels, weights and seeds, and record what they can do.

    python book/results/make_hybrid_sweep.py

Writes book/results/hybrid-labels-<number>/lite-<seed>.json: shares of test pictures of scikit-learn's digits that are
named right by DMVAE-L, MVAE and plain classifiers that saw the same labels.  And hybrid-tc-<weight>/lite-<seed>.json:
DMVAE-L with a hundred labels and other weights of the total correlation, of the concatenated latents or of each block.
A file that exists is kept, so the sweep can be stopped and continued; --force makes them anew.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from mmvae_lite.data.digit_sets import paired_items
from mmvae_lite.data.labelled_images import digits
from mmvae_lite.distributions import BernoulliLikelihood, CategoricalLikelihood
from mmvae_lite.evaluation.semi_supervised import fit_predict
from mmvae_lite.models import DMVAE_L, MVAE
from mmvae_lite.networks import dmvae_l_networks, image_decoder, image_encoder, kaiming_init, label_decoder, label_encoder
from mmvae_lite.results import write_result

RESULTS = Path(__file__).resolve().parent
STEPS, EVERY, BATCH = 2000, 10, 100
TC_WEIGHTS = (0, 1, 3, 10, 30)


def likelihoods() -> dict[str, object]:
    return {"image": BernoulliLikelihood(), "label": CategoricalLikelihood()}


def dmvae_l(items: int, discrete: bool = True, beta: float = 10.0, blocks: bool = False) -> DMVAE_L:
    """The chapter's lite model."""
    shared = (1, 10) if discrete else 10
    model = DMVAE_L(
        **dmvae_l_networks(private_dim=10, shared=shared), likelihoods=likelihoods(), private_dims={"image": 10, "label": 0},
        shared=shared, n_data=items, weights={"label": 1e3}, tc_weights={"image": beta}, discrete_logprob="soft",
        blocks=blocks, unpaired=("image",),
    )  # fmt: skip
    return model.apply(kaiming_init)


def mvae() -> MVAE:
    """One latent of ten dimensions for both, as in the chapter on MVAE."""
    return MVAE(
        {"image": image_encoder(10, (256, 256)), "label": label_encoder(10, hidden=(64, 64))},
        {"image": image_decoder(10, (256, 256)), "label": label_decoder(10, hidden=(64, 64))},
        likelihoods(), 10, weights={"label": 10.0},
    )  # fmt: skip


def train(model: nn.Module, batch: dict[str, Tensor], labelled: Tensor, seed: int) -> nn.Module:
    """Every tenth step sees labelled pairs, the others pictures alone; with all labels, every step sees pairs."""
    g = torch.Generator().manual_seed(seed)
    known = labelled.nonzero()[:, 0]
    everything = len(known) == len(labelled)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    for step in range(STEPS):
        pairs = everything or step % EVERY == 0
        rows = known[torch.randint(len(known), (min(BATCH, len(known)),), generator=g)] if pairs else torch.randint(len(labelled), (BATCH,), generator=g)
        seen = {m: x[rows] for m, x in batch.items() if pairs or m == "image"}
        optimizer.zero_grad()
        model.loss(seen, generator=g)["loss"].backward()
        optimizer.step()
    return model.eval()


def share(found: Tensor, truth: Tensor) -> dict[str, float]:
    return {"value": (found == truth).float().mean().item(), "n": len(truth)}


def neighbours(known: Tensor, classes: Tensor, asked: Tensor, k: int = 5) -> Tensor:
    """The class of most of the k nearest known rows."""
    return classes[torch.cdist(asked.flatten(1), known.flatten(1)).topk(k, largest=False).indices].mode(-1).values


@torch.no_grad()
def measure(model: nn.Module, train, test, seed: int, name: str) -> dict[str, dict[str, float]]:
    """The label from the picture, and the class that neighbours in the private latent know."""
    relaxed = {"sample": True, "hard": False, "generator": torch.Generator().manual_seed(seed)} if len(getattr(model, "sizes", ())) == 2 else {}
    found = {f"label-{name}": share(model.translate({"image": test.images}, "label", **relaxed).argmax(-1), test.classes)}
    if isinstance(model, DMVAE_L):
        known, asked = (model.posterior({"image": x.images})["private/image"].mean for x in (train, test))
        found[f"class-in-style-{name}"] = share(neighbours(known, train.classes, asked), test.classes)
        labels = torch.eye(10).repeat_interleave(50, 0)
        g = torch.Generator().manual_seed(seed)
        drawn = model.swap({"label": labels}, sample=True, generator=g)["image"]
        found[f"picture-{name}"] = share(neighbours(train.images, train.classes, drawn), labels.argmax(-1))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", type=int, nargs="*", default=[100, 20, 50, 200, 1442])
    parser.add_argument("--tc", type=int, nargs="*", default=list(TC_WEIGHTS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--force", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    data = digits()
    pairs, items = data.train.batch(), len(data.train)

    def chosen(count: int, seed: int) -> Tensor:
        return paired_items(data.train.classes, 100 * count / items, torch.Generator().manual_seed(seed), balanced=True)

    def record(experiment: str, seed: int, run) -> None:
        if (RESULTS / experiment / f"lite-{seed}.json").exists() and not arguments.force:
            return
        start = time.monotonic()
        torch.manual_seed(seed)
        metrics = run()
        path = write_result(
            experiment, "lite", seed, metrics, data=data.description, stand_in=data.stand_in, device="cpu",
            minutes=(time.monotonic() - start) / 60, folder=RESULTS,
        )  # fmt: skip
        print(path.relative_to(RESULTS), {name: round(m["value"], 3) for name, m in metrics.items()}, f"{time.monotonic() - start:.0f} s", flush=True)

    def by_labels(count: int, seed: int) -> dict[str, dict[str, float]]:
        mask, found = chosen(count, seed), {}
        for name, build in (("dmvae", lambda: dmvae_l(items)), ("continuous", lambda: dmvae_l(items, discrete=False)), ("mvae", mvae)):
            found |= measure(train(build(), pairs, mask, seed), data.train, data.test, seed, name)
        for name, settings in {"nn": {"steps": 500}, "logreg": {}, "ae": {"steps": 1000}, "vae": {"steps": 1000}}.items():
            seen, classes, others = data.train.images[mask], data.train.classes[mask], data.train.images[~mask]
            found[f"label-{name}"] = share(fit_predict(name, seen, classes, others, data.test.images, seed=seed, **settings), data.test.classes)
        return found

    def by_weight(beta: float, blocks: bool, seed: int) -> dict[str, dict[str, float]]:
        return measure(train(dmvae_l(items, beta=beta, blocks=blocks), pairs, chosen(100, seed), seed), data.train, data.test, seed, "dmvae")

    for seed in arguments.seeds:
        for beta in arguments.tc:
            record(f"hybrid-tc-{beta}", seed, lambda: by_weight(beta, False, seed))
        if 10 in arguments.tc:
            record("hybrid-blocks-10", seed, lambda: by_weight(10, True, seed))
        for count in arguments.labels:
            record(f"hybrid-labels-{count}", seed, lambda: by_labels(count, seed))


if __name__ == "__main__":
    main()
