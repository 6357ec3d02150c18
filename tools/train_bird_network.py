"""Train the network whose features judge drawn birds with captions, and save it with its card; minutes on one core.

    python tools/train_bird_network.py [--birds 12000] [--epochs 6] [--seed 0] [--device cpu] [--folder FOLDER]
"""

from __future__ import annotations

import argparse
import time

import torch

from mmvae_lite.data.drawn_birds import drawn_birds
from mmvae_lite.evaluation.bird_features import WEIGHTS, attribute_accuracy, train_bird_network, training_birds
from mmvae_lite.pretrained import save


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--birds", type=int, default=12_000, help="birds to train on, each of its own species")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", default=None, help="where to save; the package's own folder by default")
    args = parser.parse_args()
    begun = time.monotonic()
    images, attributes = training_birds(args.birds, args.seed)
    network = train_bird_network(images.to(args.device), attributes.to(args.device), epochs=args.epochs, seed=args.seed, progress=True).cpu()
    minutes = (time.monotonic() - begun) / 60
    # the weights ship in half precision: measure those
    network = network.half().float()
    data = drawn_birds(captions=1)
    held = attribute_accuracy(network, data.test.batch["image"], data.test.facts["attributes"])
    n = len(data.test)
    card = {
        "what": "A network that reads the attributes of drawn birds; its pooled features stand where those of a ResNet would, for drawn birds only.",
        "network": "mmvae_lite.evaluation.bird_features.bird_network()",
        "data": "drawn birds, each of a species of its own",
        "items": len(images),
        "epochs": args.epochs,
        "seed": args.seed,
        "minutes": round(minutes, 2),
        "device": args.device,
        "metrics": {f"accuracy of {name}": {"value": round(value, 4), "n": n} for name, value in held.items()},
    }
    print(f"{n} birds of unseen species: {held}")
    print(f"{save(WEIGHTS, network, card, args.folder)}, {minutes:.1f} minutes")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
