"""Trainings that one process and several must do alike.  Under a launcher, this file writes how they end there:

accelerate launch --multi_gpu --num_processes 2 -m tests.parallel_cases FOLDER
"""

import json
import os
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from mmvae_lite.data.parts import Part
from mmvae_lite.information import Discriminator
from mmvae_lite.models import DMVAE_D, DMVAE_L, JMVAE, M2VAE, MMVAE, MVAE, PVAE, TELBO, VAE
from mmvae_lite.networks import LaplaceEncoder, PartitionedEncoder, SplitEncoder, dense_decoder, dense_trunk
from mmvae_lite.training import fit, kl_warmup
from tests import kinds

PAIR = ("image", "label")
THREE = ("image", "label", "speech")
S, C, H = 3, 2, 16


def batch(names, n=37):
    return kinds.items(names, n, torch.float32)


def split_parts(names, shared=C, hidden=H):
    width = shared if isinstance(shared, int) else shared[0] * shared[1]
    encoders = {m: SplitEncoder(dense_trunk([kinds.size(m), hidden]), hidden, S, shared) for m in names}
    decoders = {m: dense_decoder([S + width, hidden, kinds.size(m)], kinds.KINDS[m][0]) for m in names}
    return encoders, decoders, {m: kinds.KINDS[m][1] for m in names}


def encoders(names):
    return {m: kinds.encoder((m,)) for m in names}


def mvae():
    some = {"label": torch.arange(37) % 3 > 0, "speech": torch.arange(37) % 4 > 1}
    return MVAE(encoders(THREE), **kinds.parts(THREE)), batch(THREE), {"observed": some, "schedule": kl_warmup(2)}


def dmvae_d():
    discriminators = {m: Discriminator(S, C, (12,), (16,)) for m in PAIR}
    contrast = {"critic": "cosine", "symmetric": True, "same_view": True}
    model = DMVAE_D(*split_parts(PAIR), S, C, gamma=5.0, deltas=2.0, discriminators=discriminators, contrast=contrast)
    return model, batch(PAIR), {"observed": {"label": torch.arange(37) % 5 > 0}}


def dmvae_d_halves():
    discriminators = {m: Discriminator(S, C, (12,), (16,)) for m in PAIR}
    return DMVAE_D(*split_parts(PAIR), S, C, halves=True, pool="prior", discriminators=discriminators), batch(PAIR), {}


def dmvae_l():
    model = DMVAE_L(*split_parts(PAIR, (1, 3)), dict.fromkeys(PAIR, S), (1, 3), 37)
    return model, batch(PAIR), {"observed": {"image": torch.arange(37) % 4 > 0, "label": torch.arange(37) % 4 != 1}}


def pvae():
    trunks = [{m: dense_trunk([kinds.size(m), H]) for m in PAIR} for _ in range(2)]
    r = {m: SplitEncoder(trunk, H, S, C) for m, trunk in trunks[1].items()}
    _, decoders, likelihoods = split_parts(PAIR)
    return PVAE(PartitionedEncoder(trunks[0], 2 * H, S, C), r, decoders, likelihoods, S, C), batch(PAIR), {}


def mmvae():
    laplace = {m: LaplaceEncoder(dense_trunk([kinds.size(m), H]), H, kinds.LATENT) for m in PAIR}
    return MMVAE(laplace, **kinds.parts(PAIR), samples=4, estimator="dreg", chunk=7), batch(PAIR), {}


def jmvae():
    return JMVAE(kinds.encoder(THREE), **kinds.parts(THREE), variant="zero", zero_prob=0.5), batch(THREE), {}


def m2vae():
    named = {"+".join(s): kinds.encoder(s) for s in (("image",), ("label",), PAIR)}
    return M2VAE(named, **kinds.parts(PAIR)), batch(PAIR), {}


def telbo():
    return TELBO(kinds.encoder(PAIR), encoders(PAIR), **kinds.parts(PAIR)), batch(PAIR), {}


def vae():
    decoder = kinds.parts(("image",))["decoders"]["image"]
    return VAE(kinds.encoder(("image",)), decoder, kinds.KINDS["image"][1], kinds.LATENT), batch(("image",)), {}


def layers_that_mix_items():
    """Dropout in an encoder, batch statistics in a decoder: both run on the whole batch everywhere."""
    parts, coders = kinds.parts(PAIR), encoders(PAIR)
    coders["image"].trunk.append(nn.Dropout(0.4))
    parts["decoders"]["image"].insert(0, nn.BatchNorm1d(kinds.LATENT))
    return MVAE(coders, **parts), batch(PAIR), {}


def everything():
    """Rows by tuples, levels, new pairs, noise, frozen parts, pieces, an optimiser each, a lower precision."""
    model = MVAE(encoders(PAIR), **kinds.parts(PAIR))
    written_out = batch(PAIR, 10)
    rows = {"image": (written_out["image"] * 255).byte(), "label": written_out["label"]}
    part = Part(rows, index={m: torch.arange(37) % 10 for m in PAIR})
    parameters = {m: [*model.encoders[m].parameters(), *model.decoders[m].parameters()] for m in PAIR}
    return model, part, {
        "optimizers": {"image": torch.optim.Adam(parameters["image"]), "label": torch.optim.SGD(parameters["label"], 0.01, 0.9)},
        "pair": lambda index, g: {"image": index["image"], "label": torch.randint(10, (37,), generator=g)},
        "corrupt": lambda x, g: {**x, "image": (x["image"] + 0.1 * torch.rand(x["image"].shape, generator=g)).clamp(0, 1)},
        "frozen": lambda epoch: [model.decoders] if epoch == 1 else (),
        "accumulate": 3,
        "precision": "tf32",
    }


CASES = {f.__name__: f for f in (mvae, dmvae_d, dmvae_d_halves, dmvae_l, pvae, mmvae, jmvae, m2vae, telbo, vae, layers_that_mix_items, everything)}


def trained(name, start=0, **more):
    """How a case ends: its parameters, and the loss of each epoch.  Batches are of 11, 11, 11 and 4 items."""
    torch.manual_seed(start)
    model, data, options = CASES[name]()
    defaults = {"epochs": 3, "batch_size": 11, "lr": 3e-3, "seed": 2, "device": "cpu", "progress": False}
    history = fit(model, data, **defaults | options | more)
    means = [[epoch.get(k, 0.0) for k in sorted(history.epochs[0])] for epoch in history.epochs]
    return dict(model.state_dict()) | {"history": torch.tensor(means, dtype=torch.float64)}


class Noisy(nn.Module):
    """An encoder that draws by itself."""

    def __init__(self):
        super().__init__()
        self.inner = kinds.encoder(("image",))

    def forward(self, x):
        return self.inner(x + torch.randn(x.shape))


def refused(model, data):
    """The sentence with which training stops, and whether the model's networks are as before."""
    try:
        fit(model, data, epochs=1, batch_size=8, device="cpu", progress=False)
    except (RuntimeError, ValueError) as e:
        return str(e), all("forward" not in m.__dict__ for m in model.modules())


def main(folder):
    rank, folder = int(os.environ["RANK"]), Path(folder)
    for name in CASES:
        # other initial weights in each process: those of the first one count
        save_file({k: v.contiguous().clone() for k, v in trained(name, start=rank).items()}, folder / f"{name}-{rank}.safetensors")
    trained("mvae", start=rank, checkpoint=folder / "stopped.safetensors", max_seconds=1e-9, progress=True)
    data = batch(PAIR)
    notes = {
        "draws": refused(MVAE({"image": Noisy(), **encoders(("label",))}, **kinds.parts(PAIR)), data),
        "differs": refused(MVAE(encoders(PAIR), **kinds.parts(PAIR)), batch(PAIR, 20 + rank)),
        "other data": refused(MVAE(encoders(PAIR), **kinds.parts(PAIR)), {**data, "image": data["image"] * (1 - 0.5 * rank)}),
    }
    (folder / f"notes-{rank}.json").write_text(json.dumps(notes))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1])
