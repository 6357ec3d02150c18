"""Train the chapter's three models on e-MNIST and on me-MNIST, and record what they make of it.

    python book/results/make_entangled_sweep.py

Writes book/results/entangled-<model>-<set>/lite-<seed>.json.  A file that exists is kept, so the sweep can be stopped and
continued; --force makes them anew.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from mmvae_lite.data.entangled import permuted_within_classes
from mmvae_lite.data.entangled_sets import entangled
from mmvae_lite.distributions import BernoulliLikelihood, kl
from mmvae_lite.models import JMVAE, M2VAE, TELBO
from mmvae_lite.networks import m2vae_networks
from mmvae_lite.results import write_result
from mmvae_lite.training import fit

RESULTS = Path(__file__).resolve().parent
PICTURES = ("digit", "garment")
PER_CLASS, EPOCHS, HELD_OUT = 600, 40, 100


def build(which: str) -> nn.Module:
    """The networks of the paper's table 1, two latent dimensions."""
    nets = m2vae_networks({m: (1, 28, 28) for m in PICTURES})
    settings = {"decoders": nets["decoders"], "likelihoods": dict.fromkeys(PICTURES, BernoulliLikelihood()), "latent_dim": 2}
    if which == "m2vae":
        return M2VAE(encoders=nets["encoders"], **settings, **M2VAE.PRESETS["paper"])
    settings["joint_encoder"] = nets["encoders"]["digit+garment"]
    if which == "jmvae-zero":
        return JMVAE(**settings, variant="zero", zero_prob=0.5)
    return TELBO(**settings, encoders={m: nets["encoders"][m] for m in PICTURES}, **TELBO.PRESETS["paper"])


@torch.no_grad()
def measure(model: nn.Module, pairs: dict[str, Tensor], seed: int) -> dict[str, dict[str, float]]:
    """The bound of pairs, what a digit foretells of its garment, and how far apart the two single encodings are."""
    g, both, label = torch.Generator().manual_seed(seed), {m: pairs[m] for m in PICTURES}, pairs["label"]
    n, q = len(label), model.posterior(both)["shared"]
    z = q.rsample((20,), g)
    bound = (sum(model.log_px(m, z, x) for m, x in both.items()).mean(0) - kl(q, model.prior(n))).mean()
    guess = model.translate({"digit": both["digit"]}, "garment")
    mean = label @ ((label.T @ both["garment"].flatten(1)) / label.sum(0)[:, None])
    left, whole = ((both["garment"].flatten(1) - guessed.flatten(1)).square().sum() for guessed in (guess, mean))
    one, two = (model.posterior({m: both[m]})["shared"].mean for m in PICTURES)
    other = permuted_within_classes(label.argmax(1), g)
    apart, chance = ((one - v).norm(dim=1).mean() for v in (two, two[other]))
    return {
        "bound": {"value": bound.item(), "n": n, "unit": "nats"},
        "share-predicted": {"value": (1 - left / whole).item(), "n": n},
        "distance-ratio": {"value": (apart / chance).item(), "n": n},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--force", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for seed in arguments.seeds:
        for which in ("jmvae-zero", "tvae", "m2vae"):
            for kind in ("e", "me"):
                experiment = f"entangled-{which}-{kind}"
                if (RESULTS / experiment / f"lite-{seed}.json").exists() and not arguments.force:
                    continue
                start = time.monotonic()
                data = entangled(kind=kind, per_class=PER_CLASS, seed=seed, disjoint=True)
                test = entangled(kind=kind, per_class=HELD_OUT, seed=seed + 1000).train.take(slice(None))
                torch.manual_seed(seed)
                model = build(which)
                pairs = {m: x for m, x in data.train.take(slice(None)).items() if m != "label"}
                fit(model, pairs, epochs=EPOCHS, batch_size=128, seed=seed, device="cpu", progress=False)
                metrics = measure(model.eval(), test, seed)
                write_result(
                    experiment, "lite", seed, metrics, data=f"{kind}-MNIST, our generated set", stand_in=True, device="cpu",
                    minutes=(time.monotonic() - start) / 60, folder=RESULTS,
                )  # fmt: skip
                print(experiment, seed, {k: round(m["value"], 3) for k, m in metrics.items()}, f"{time.monotonic() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
