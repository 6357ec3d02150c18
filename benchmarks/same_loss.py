"""Before anything is timed: the same batch, weights and noise give both sides the same loss and the same gradient."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from unittest import mock

import torch
from torch import Tensor
from twins import LATENT, PRIVATE, Twins

RELATIVE = 1e-4
DRAWS, ERRORS = 200, 4


class DifferentLoss(AssertionError):
    """The two sides do not compute one objective, so that their times must not be compared."""


def our_noise(twins: Twins) -> tuple[float, list[Tensor]]:
    """Our loss, and the noise that it drew."""
    drawn: list[Tensor] = []

    def keep(draw):
        def kept(*args, **kwargs):
            drawn.append(draw(*args, **kwargs))
            return drawn[-1].clone()

        return kept

    with mock.patch.object(torch, "randn", keep(torch.randn)), mock.patch.object(torch, "rand", keep(torch.rand)):
        return twins.ours(), drawn


@contextlib.contextmanager
def noise_given(flat: Tensor) -> Iterator[None]:
    """The peer's Gaussian and Laplace draws take this noise, in order."""
    position = 0

    def take(shape) -> Tensor:
        nonlocal position
        size = torch.Size(shape).numel()
        position += size
        if position > len(flat):
            raise DifferentLoss("the peer draws more noise than we do")
        return flat[position - size : position].reshape(torch.Size(shape))

    def laplace(self, sample_shape=torch.Size()):
        u = take(self._extended_shape(torch.Size(sample_shape))) - 0.5
        return self.loc - self.scale * u.sign() * (1 - 2 * u.abs()).log()

    with (
        mock.patch("torch.distributions.normal._standard_normal", lambda shape, dtype, device: take(shape)),
        mock.patch.object(torch.distributions.Laplace, "rsample", laplace),
    ):
        yield


def as_the_peer_draws(twins: Twins, drawn: list[Tensor]) -> Tensor:
    """Our noise in the peer's order."""
    if twins.name != "dmvae_l":
        return torch.cat([x.flatten() for x in drawn])
    private = [x for x in drawn if x.shape[-1] == PRIVATE]
    shared = [x for x in drawn if x.shape[-1] == LATENT]
    return torch.cat([x.flatten() for source in shared for x in (source, *private)])


def gradient(module: torch.nn.Module, loss: Tensor) -> Tensor:
    """How long the gradients of all encoders' and decoders' parameters are together."""
    parts = torch.autograd.grad(loss, [p for name, p in module.named_parameters() if not name.startswith("prior")], allow_unused=True)
    return torch.stack([g.square().sum() for g in parts if g is not None]).sum().sqrt()


def check(twins: Twins) -> dict[str, float]:
    """Compare the losses; returns both with the relative difference.  Raises DifferentLoss where they differ.

    DMVAE-L samples its divergences and the peer takes them in closed form, so that those agree in the mean over many
    draws, within four standard errors; everything else agrees draw by draw.
    """
    ours, drawn = our_noise(twins)
    with noise_given(as_the_peer_draws(twins, drawn)):
        theirs = twins.theirs()
    if twins.name == "dmvae_l":
        return _in_the_mean(twins, theirs)
    apart = abs(float(ours - theirs)) / abs(float(theirs))
    slopes = [float(gradient(m, loss)) for m, loss in ((twins.our_model, ours), (twins.their_model, theirs))]
    steeper = abs(slopes[0] - slopes[1]) / slopes[1]
    if not max(apart, steeper) < RELATIVE:
        raise DifferentLoss(f"{twins.name} on {twins.data}: we have {float(ours):.6f}, the peer {float(theirs):.6f}, gradients {slopes}")
    return {"ours": float(ours), "theirs": float(theirs), "relative": apart, "gradient": steeper}


@torch.no_grad()
def _in_the_mean(twins: Twins, theirs: Tensor) -> dict[str, float]:
    gaps = []
    for _ in range(DRAWS):
        ours, drawn = our_noise(twins)
        with noise_given(as_the_peer_draws(twins, drawn)):
            theirs = twins.theirs()
        gaps.append(float(ours - theirs))
    gap = torch.tensor(gaps, dtype=torch.float64)
    error = float(gap.std() / len(gap) ** 0.5)
    if not abs(float(gap.mean())) < ERRORS * error:
        raise DifferentLoss(f"{twins.name} on {twins.data}: mean difference {float(gap.mean()):.5f} with standard error {error:.5f}")
    return {"ours": float(ours), "theirs": float(theirs), "relative": abs(float(gap.mean()) / float(theirs)), "standard_error": error}
