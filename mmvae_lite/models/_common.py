"""What every model file needs below itself: sizes, flat decoding, and importance-sampled likelihoods."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mmvae_lite.bounds import log_weights
from mmvae_lite.checks import check_positive
from mmvae_lite.distributions import Normal


def decode_flat(decoder: nn.Module, z: Float[Tensor, "*lead latent"]) -> Float[Tensor, "*lead *event"]:
    """Decode latents that have any number of leading axes in one pass of the network."""
    return decoder(z.reshape(-1, z.shape[-1])).unflatten(0, z.shape[:-1])


def parameter_like(module: nn.Module) -> Tensor:
    """A tensor with the dtype and device of the module's first parameter or buffer."""
    tensors: Iterable[Tensor] = (*module.parameters(), *module.buffers())
    return next(iter(tensors), torch.empty(0))


def event_shapes(decoders: Mapping[str, nn.Module], latent_dim: int) -> dict[str, tuple[int, ...]]:
    """The shape of one item of each modality, found by decoding a zero latent in evaluation mode."""
    shapes = {}
    for name, decoder in decoders.items():
        training = decoder.training
        decoder.eval()
        with torch.no_grad():
            shapes[name] = tuple(decoder(parameter_like(decoder).new_zeros(1, latent_dim)).shape[1:])
        decoder.train(training)
    return shapes


def reparameterised(q: Normal, sample: bool, generator: torch.Generator | None) -> Float[Tensor, "*batch latent"]:
    """A draw from q, or its mean."""
    return q.rsample(generator=generator) if sample else q.mean


def traversal(
    z: Float[Tensor, "latent"], dim: int, values: Float[Tensor, "steps"]
) -> Float[Tensor, "steps latent"]:
    """Copies of one latent in which coordinate `dim` runs through `values`.  Raises IndexError off the end."""
    if not 0 <= dim < z.shape[-1]:
        raise IndexError(f"dim: found {dim}, wanted 0 to {z.shape[-1] - 1}")
    rows = z.expand(len(values), -1).clone()
    rows[:, dim] = values
    return rows


@torch.no_grad()
def importance_log_likelihood(
    q: Normal,
    prior: Normal,
    log_px: Callable[[Tensor], Tensor],
    samples: int,
    chunk: int,
    generator: torch.Generator | None,
) -> Float[Tensor, "batch"]:
    """log 1/K sum_k p(x | z_k) p(z_k) / q(z_k | x) with z_k ~ q, in chunks of samples.

    A lower bound of log p(x) in expectation, `eq-iwae` of the book (Burda et al. 2016).
    """
    check_positive("samples", samples)
    check_positive("chunk", chunk)
    parts = []
    for start in range(0, samples, chunk):
        z = q.rsample((min(chunk, samples - start),), generator)
        parts.append(log_weights(log_px(z), prior.log_prob(z), q.log_prob(z)).logsumexp(0))
    return torch.stack(parts).logsumexp(0) - math.log(samples)
