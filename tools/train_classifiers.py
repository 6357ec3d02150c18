"""Train the classifiers that ship, and write their weights and cards: python tools/train_classifiers.py NAME ... [--folder FOLDER]"""

from __future__ import annotations

import argparse
import hashlib
import time

import torch

from mmvae_lite import data
from mmvae_lite.data.faces import faces
from mmvae_lite.data.spoken_digits import fsdd, synthetic_speech
from mmvae_lite.data.street_numbers import street_numbers
from mmvae_lite.evaluation import classifiers
from mmvae_lite.evaluation.semi_supervised import binary_scores
from mmvae_lite.pretrained import save

SETTINGS = {
    "mnist": {"epochs": 4},
    "digits": {"epochs": 60, "shift": 1},
    "fashion-mnist": {"epochs": 8},
    "street-numbers": {"epochs": 12},
    "fsdd": {"epochs": 40, "shift": 8},
    "spoken-digits": {"epochs": 40, "shift": (8, 3)},
    "cartoon-faces": {"epochs": 6},
}
STREETS = 20_000, 5_000
FACES = 6_000, 2_000


def partitions(name: str):
    """Training items and classes, then test items and classes."""
    if name in ("mnist", "fashion-mnist", "digits"):
        held = data.load(name)
        return held.train.images, held.train.classes, held.test.images, held.test.classes
    if name == "street-numbers":
        (x, y), (test_x, test_y) = (street_numbers(n, p) for n, p in zip(STREETS, ("train", "test")))
        return x, y, test_x, test_y
    if name == "cartoon-faces":
        drawn = faces("stand-in", train=FACES[0], validation=1, test=FACES[1])
        return *(t for part in (drawn.train, drawn.test) for t in (part.batch["image"], part.batch["attributes"])),
    held = {"fsdd": fsdd, "spoken-digits": synthetic_speech}[name]()
    return held.train.batch["speech"], held.train.classes, held.test.batch["speech"], held.test.classes


def measured(network, x, y) -> dict[str, dict[str, float]]:
    """The accuracy on test items; of attributes also F1, and what the same answer to all would score."""
    if y.ndim == 2:
        scores = binary_scores(classifiers.predict_attributes(network, x), y)
        return {name: {k: round(v, 6) for k, v in entry.items()} for name, entry in scores.items()}
    return {"accuracy": {"value": round(classifiers.accuracy(network, x, y), 6), "n": len(y)}}


def train(name: str, folder: str | None, seed: int = 0) -> None:
    kind, outputs = classifiers.SHIPPED[name]
    x, y, test_x, test_y = partitions(name)
    begun = time.monotonic()
    network = classifiers.train_classifier(kind, x, y, outputs=outputs, seed=seed, progress=True, **SETTINGS[name])
    minutes = (time.monotonic() - begun) / 60
    network.half().float()  # what ships is what is measured
    metrics = measured(network, test_x, test_y)
    card = {
        "what": f"a classifier of {name}, the judge of what a model generates",
        "network": f"mmvae_lite.evaluation.classifiers.{classifiers.NETWORKS[kind].__name__}({outputs})",
        "data": name,
        "items": len(y),
        "seed": seed,
        "minutes": round(minutes, 2),
        "device": f"cpu, {torch.get_num_threads()} thread(s)",
        "settings": SETTINGS[name],
        "sha256 of the test items": hashlib.sha256(test_x.contiguous().numpy().tobytes()).hexdigest(),
        "metrics": metrics,
    }
    path = save(f"classifier-{name}", network, card, folder)
    print(f"{name}: {metrics}, {minutes:.2f} min, {path.with_suffix('.safetensors').stat().st_size} bytes")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="+", choices=list(SETTINGS))
    parser.add_argument("--folder")
    given = parser.parse_args()
    for name in given.names:
        train(name, given.folder)
