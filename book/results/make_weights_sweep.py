"""Train DMVAE-L on MNIST with two labels in a thousand under several weights, and record what the held-out digits say.

    MMVAE_DATA=folder python book/results/make_weights_sweep.py

Neither the weight of the label nor that of the image's total correlation is published.  Both are chosen here on the
10 000 training digits that the paper leaves out, after short runs; the test digits are not looked at.
Writes book/results/hybrid-weights-<label>-<tc>/lite-<seed>.json.  A file that exists is kept, so the sweep can be stopped
and continued; --force makes them anew.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch

from mmvae_lite.experiments import _measures as measures
from mmvae_lite.experiments.dmvae_l import dmvae_l
from mmvae_lite.results import write_result
from mmvae_lite.training import fit

RESULTS = Path(__file__).resolve().parent
LABEL, TC, EPOCHS = (100, 1000, 10_000), (1, 3, 10), 20


def accuracy(label: int, tc: int, epochs: int, seed: int):
    """The data, and the share of held-out digits that a model with these weights names."""
    experiment = dmvae_l("mnist", 0.2, timing="interleaved", label=label, beta=tc, epochs=epochs)
    data = experiment.data("paper", seed)
    if data.stand_in:
        raise SystemExit("the sweep is on MNIST, which was not found; say where it is with MMVAE_DATA")
    model, settings = experiment.untrained("paper", data, seed), experiment.training("paper", data, seed)
    fit(
        model, data.train, epochs=settings.epochs, batch_size=settings.batch_size, lr=settings.lr, step=settings.step,
        schedule=settings.schedule, seed=seed, device="cpu", progress=False,
    )  # fmt: skip
    return data, measures.label_accuracy(model.eval(), data.validation, seed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="of the paper's 500 (%(default)s)")
    parser.add_argument("--force", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for seed, label, tc in ((s, w, b) for s in arguments.seeds for w in LABEL for b in TC):
        name = f"hybrid-weights-{label}-{tc}"
        if (RESULTS / name / f"lite-{seed}.json").exists() and not arguments.force:
            continue
        start = time.monotonic()
        data, found = accuracy(label, tc, arguments.epochs, seed)
        metrics = {"accuracy-validation": found, "epochs": {"value": arguments.epochs}}
        write_result(name, "lite", seed, metrics, data=data.description, stand_in=data.stand_in, device="cpu", minutes=(time.monotonic() - start) / 60, folder=RESULTS)
        print(name, round(found["value"], 3), f"{time.monotonic() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
