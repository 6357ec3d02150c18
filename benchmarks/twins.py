"""The same model twice: ours and the peer's, with the same networks, weights, data and batch."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import peer
import torch
from torch import Tensor, nn

from mmvae_lite.distributions import CategoricalLikelihood, Normal, NormalLikelihood
from mmvae_lite.models import CVAE, DMVAE_L, JMVAE, MMVAE, MVAE
from mmvae_lite.networks import (
    GaussianEncoder,
    JointEncoder,
    LaplaceEncoder,
    SplitEncoder,
    dense_decoder,
    dense_trunk,
    svhn_decoder,
    svhn_trunk,
)

LATENT, PRIVATE = 20, 10
DATA = ("label", "conv")
TRUNKS = {
    "image": (lambda: dense_trunk([784, 512, 512]), 512),
    "label": (lambda: dense_trunk([10, 512, 512]), 512),
    "street": (svhn_trunk, 2048),
}
DECODERS = {
    "image": lambda latent: dense_decoder([latent, 512, 784], (1, 28, 28)),
    "label": lambda latent: dense_decoder([latent, 512, 10], (10,)),
    "street": svhn_decoder,
}
LIKELIHOODS = {"image": NormalLikelihood(), "label": CategoricalLikelihood(), "street": NormalLikelihood()}
PEER_LIKELIHOODS = {"image": "normal", "label": "categorical", "street": "normal"}


@dataclass
class Twins:
    """Two models of one objective.  `ours` and `theirs` return the loss of a batch; `passes` runs the networks alone."""

    name: str
    data: str
    batch: dict[str, Tensor]
    our_model: nn.Module
    their_model: nn.Module
    ours: Callable[[], Tensor]
    theirs: Callable[[], Tensor]
    passes: Callable[[], Tensor]
    generator: torch.Generator

    def optimizers(self) -> tuple[torch.optim.Optimizer, torch.optim.Optimizer]:
        """Adam as each side uses it by itself: ours fused, the peer's trainer the default."""
        return torch.optim.Adam(self.our_model.parameters(), lr=1e-3, fused=True), torch.optim.Adam(self.their_model.parameters(), lr=1e-3)


def modalities(data: str) -> tuple[str, str]:
    return ("image", "label") if data == "label" else ("image", "street")


def batch_of(data: str, n: int, seed: int = 0) -> dict[str, Tensor]:
    """n items of noise in the shape of the data: what is timed does not depend on what is in the pictures."""
    g = torch.Generator().manual_seed(seed)
    made = {
        "image": torch.rand((n, 1, 28, 28), generator=g),
        "label": torch.eye(10)[torch.randint(10, (n,), generator=g)],
        "street": torch.rand((n, 3, 32, 32), generator=g),
    }
    return {m: made[m] for m in modalities(data)}


def twins(model: str, data: str, n: int, samples: int = 1, seed: int = 0) -> Twins:
    """Build `cvae`, `mvae`, `jmvae`, `dmvae_l` or `mmvae` on `label` or `conv` data, with n items a batch.

    `samples` is K of MMVAE.
    """
    torch.manual_seed(seed)
    names, batch, generator = modalities(data), batch_of(data, n, seed), torch.Generator().manual_seed(seed)
    build = {"cvae": _cvae, "mvae": _mvae, "jmvae": _jmvae, "dmvae_l": _dmvae_l, "mmvae": _mmvae}[model]
    ours, theirs, passes = build(names, n, samples)
    theirs.train(), ours.train()
    inputs, share = peer.dataset(batch), n if model == "mmvae" else 1  # the peer's MMVAE adds up the items

    return Twins(
        f"{model}-k{samples}" if model == "mmvae" else model, data, batch, ours, theirs,
        lambda: ours.loss(batch, generator=generator)["loss"],
        lambda: theirs(inputs, epoch=1000).loss / share,  # past the peer's warm-up, which is on by default
        lambda: passes(batch), generator,
    )  # fmt: skip


def _settings(names, latent: int) -> dict[str, object]:
    return {"n_modalities": len(names), "latent_dim": latent, "decoders_dist": {m: PEER_LIKELIHOODS[m] for m in names}}


def _parts(names, head, latent: int) -> tuple[dict, dict, dict]:
    encoders = {m: head(TRUNKS[m][0](), TRUNKS[m][1], LATENT) for m in names}
    decoders = {m: DECODERS[m](latent) for m in names}
    return encoders, decoders, {m: LIKELIHOODS[m] for m in names}


def _passes(encoders, decoders, latents: dict[str, int], joint: nn.Module | None = None, width: int = LATENT):
    """Every encoder once, every decoder on as many latents as its modality has terms in the objective."""

    def run(batch: dict[str, Tensor]) -> Tensor:
        total = sum(e.head(e.trunk(batch[m])).sum() if hasattr(e, "head") else _heads(e, batch[m]) for m, e in encoders.items())
        if joint is not None:
            total = total + joint.head(joint.merge(torch.cat([t(batch[m]) for m, t in joint.trunks.items()], -1))).sum()
        return total + sum(d(torch.zeros(latents[m], width, requires_grad=True)).sum() for m, d in decoders.items())

    return run


def _heads(encoder: SplitEncoder, x: Tensor) -> Tensor:
    features = encoder.trunk(x)
    return encoder.private(features).sum() + encoder.shared(features).sum()


class OfImageAndLabel(nn.Module):
    """q(z | x, C) from both in one row."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = GaussianEncoder(dense_trunk([784 + 10, 512, 512]), 512, LATENT)

    def forward(self, x: Tensor, label: Tensor) -> Normal:
        return self.encoder(torch.cat([x.flatten(1), label], -1))


def _cvae(names, n, samples):
    if names != ("image", "label"):
        raise ValueError(f"cvae: found {names}, wanted an image with its label")
    encoder, decoder = OfImageAndLabel(), DECODERS["image"](LATENT + 10)
    theirs = peer.peer_of(
        "CVAE", encoder=peer.ConditionalEncoder(copy.deepcopy(encoder), LATENT), decoder=peer.ConditionalDecoder(copy.deepcopy(decoder), LATENT),
        main_modality="image", conditioning_modalities=["label"], decoder_dist="normal", n_modalities=2, latent_dim=LATENT,
    )  # fmt: skip

    def passes(batch: dict[str, Tensor]) -> Tensor:
        q = encoder(batch["image"], batch["label"])
        return q.mean.sum() + q.logvar.sum() + decoder(torch.zeros(n, LATENT + 10, requires_grad=True)).sum()

    return CVAE(encoder, decoder, LIKELIHOODS["image"], LATENT), theirs, passes


def _mvae(names, n, samples):
    encoders, decoders, likelihoods = _parts(names, GaussianEncoder, LATENT)
    theirs = peer.peer_of(
        "MVAE", encoders=peer.copies(encoders, lambda e: peer.Encoder(e, LATENT)),
        decoders=peer.copies(decoders, lambda d: peer.Decoder(d, LATENT)), warmup=1, **_settings(names, LATENT),
    )  # fmt: skip
    return MVAE(encoders, decoders, likelihoods, LATENT), theirs, _passes(encoders, decoders, dict.fromkeys(names, 2 * n))


def _jmvae(names, n, samples):
    encoders, decoders, likelihoods = _parts(names, GaussianEncoder, LATENT)
    trunks, width = {m: TRUNKS[m][0]() for m in names}, sum(TRUNKS[m][1] for m in names)
    joint = JointEncoder(trunks, nn.Sequential(nn.Linear(width, 512), nn.ReLU()), 512, LATENT)
    theirs = peer.peer_of(
        "JMVAE", encoders=peer.copies(encoders, lambda e: peer.Encoder(e, LATENT)),
        decoders=peer.copies(decoders, lambda d: peer.Decoder(d, LATENT)),
        joint_encoder=peer.JointEncoder(copy.deepcopy(joint), LATENT),
        alpha=0.1, warmup=1, **_settings(names, LATENT),
    )  # fmt: skip
    ours = JMVAE(joint, decoders, likelihoods, LATENT, encoders, variant="kl", alpha=0.1)
    return ours, theirs, _passes(encoders, decoders, dict.fromkeys(names, n), joint)


def _dmvae_l(names, n, samples):
    encoders = {m: SplitEncoder(TRUNKS[m][0](), TRUNKS[m][1], PRIVATE, LATENT) for m in names}
    decoders = {m: DECODERS[m](PRIVATE + LATENT) for m in names}
    theirs = peer.peer_of(
        "DMVAE", encoders=peer.copies(encoders, lambda e: peer.SplitEncoder(e, LATENT, PRIVATE)),
        decoders=peer.copies(decoders, lambda d: peer.Decoder(Reversed(d), LATENT)),
        modalities_specific_dim=dict.fromkeys(names, PRIVATE),
        beta=float(len(names)),  # the paper counts the shared KL once for each modality
        **_settings(names, LATENT),
    )  # fmt: skip
    ours = DMVAE_L(encoders, decoders, {m: LIKELIHOODS[m] for m in names}, dict.fromkeys(names, PRIVATE), LATENT, n_data=60_000)
    return ours, theirs, _passes(encoders, decoders, dict.fromkeys(names, 3 * n), width=PRIVATE + LATENT)


class Reversed(nn.Module):
    """The peer puts the shared latent first, we the private one; the first layer's columns are exchanged once."""

    def __init__(self, decoder: nn.Sequential) -> None:
        super().__init__()
        first = next(m for m in decoder.modules() if isinstance(m, (nn.Linear, nn.ConvTranspose2d)))
        rows = torch.cat([torch.arange(PRIVATE, PRIVATE + LATENT), torch.arange(PRIVATE)])
        with torch.no_grad():
            first.weight.copy_(first.weight[:, rows] if isinstance(first, nn.Linear) else first.weight[rows])
        self.decoder = decoder

    def forward(self, z: Tensor) -> Tensor:
        return self.decoder(z)


def _mmvae(names, n, samples):
    encoders, decoders, likelihoods = _parts(names, LaplaceEncoder, LATENT)
    theirs = peer.peer_of(
        "MMVAE", encoders=peer.copies(encoders, lambda e: peer.Encoder(e, LATENT)),
        decoders=peer.copies(decoders, lambda d: peer.Decoder(d, LATENT)), K=samples, loss="iwae_looser", **_settings(names, LATENT),
    )  # fmt: skip
    ours = MMVAE(encoders, decoders, likelihoods, LATENT, samples=samples)
    return ours, theirs, _passes(encoders, decoders, dict.fromkeys(names, len(names) * samples * n))
