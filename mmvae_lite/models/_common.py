"""What every model file needs below itself: names, sizes, absence, flat decoding, importance-sampled likelihoods."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Mapping, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mmvae_lite.bounds import log_weights
from mmvae_lite.checks import check_name, check_observed, check_positive
from mmvae_lite.distributions import Laplace, Likelihood, Normal
from mmvae_lite.experts import Mixture
from mmvae_lite.parallel import by_items

AT_ONCE = 512  # latents; an array of several dozen megabytes is asked of the system anew in every step, a smaller one is used again


def decode_flat(decoder: nn.Module, z: Float[Tensor, "*lead latent"]) -> Float[Tensor, "*lead *event"]:
    """Decode latents that have any number of leading axes in one pass of the network."""
    return decoder(z.reshape(-1, z.shape[-1])).unflatten(0, z.shape[:-1])


def in_chunks(
    score: Callable[[Tensor, Tensor], Tensor],
    z: Float[Tensor, "*lead batch latent"],
    x: Float[Tensor, "batch *event"],
    chunk: int | None,
) -> Float[Tensor, "*lead batch"]:
    """log p(x | z) of every latent, with the network's activations held for at most `chunk` latents at a time.

    `score` maps latents [*rows, latent] and items [last of rows, *event] to [*rows].  The backward pass computes each
    chunk again, so that value and gradient are those of one pass over everything.  None means one pass.
    """
    rows = z.reshape(-1, z.shape[-1])
    if chunk is None or len(rows) <= chunk:
        return score(z, x)
    items = torch.arange(len(x), device=x.device).repeat(len(rows) // len(x))
    parts = [
        checkpoint(lambda z, i: score(z, x[i]), z_part, item_part, use_reentrant=False)
        for z_part, item_part in zip(rows.split(chunk), items.split(chunk))
    ]
    return torch.cat(parts).reshape(z.shape[:-1])


def _mixes_items(network: nn.Module) -> bool:
    """Whether the items of a batch share statistics."""
    return any(isinstance(m, nn.modules.batchnorm._BatchNorm) and m.training for m in network.modules())


def score(
    decoder: nn.Module, likelihood: Likelihood, z: Float[Tensor, "*lead batch latent"], x: Float[Tensor, "batch *event"], chunk: int | None = None
) -> Float[Tensor, "*lead batch"]:
    """log p(x | z) by a decoder, summed over the event; in training each process may score a share, see `by_items`.

    On a CPU many draws pass through the decoder a few at a time, with the same value and gradient.
    """

    def log_px(z: Tensor, x: Tensor) -> Tensor:
        return likelihood.log_prob(decode_flat(decoder, z), x)

    def in_parts(z: Tensor, x: Tensor) -> Tensor:
        if chunk is None and z.ndim > 2 and z.device.type == "cpu" and not _mixes_items(decoder):
            draws = z.flatten(0, -3).split(max(1, AT_ONCE // len(x)))
            return torch.cat([log_px(part, x) for part in draws]).reshape(z.shape[:-1])
        return in_chunks(log_px, z, x, chunk)

    return by_items(decoder, in_parts, z, x)


def parameter_like(module: nn.Module) -> Tensor:
    """A tensor with the dtype and device of the module's first parameter or buffer."""
    return next(itertools.chain(module.parameters(), module.buffers()), torch.empty(0))


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


def check_same_modalities(wanted: Collection[str], **parts: Collection[str]) -> None:
    """Raise ValueError naming the first part that is not given for exactly the wanted names."""
    for part, given in parts.items():
        if set(given) != set(wanted):
            raise ValueError(f"{part} are given for {sorted(given)}, wanted {sorted(wanted)}")


def check_target(target: Mapping[str, Tensor], batch: Mapping[str, Tensor]) -> None:
    """Raise KeyError naming the first modality of the batch that the target lacks, ValueError for another number of items."""
    for m, x in batch.items():
        if m not in target:
            raise KeyError(f"target lacks modality {m!r}, which the batch holds; give it, or leave target out")
        if len(target[m]) != len(x):
            raise ValueError(f"target holds {len(target[m])} items and the batch {len(x)}; wanted the same items in both")


def all_weights(modalities: Sequence[str], weights: Mapping[str, float] | None) -> dict[str, float]:
    """A weight for every modality, 1 unless given.  Raises KeyError for an unknown name."""
    for name in weights or {}:
        check_name("modality", name, modalities)
    return {name: 1.0 for name in modalities} | dict(weights or {})


def subset_name(members: Collection[str], modalities: Sequence[str]) -> str:
    """`image+label`: the members of a subset in the model's own order.  Raises KeyError for an unknown member."""
    for m in members:
        check_name("modality", m, modalities)
    return "+".join(m for m in modalities if m in members)


def encode(encoder: nn.Module, members: Sequence[str], batch: Mapping[str, Tensor]) -> Normal:
    """q(z | x_S): an encoder of one modality takes its tensor, an encoder of several a dict of theirs."""
    return encoder(batch[members[0]]) if len(members) == 1 else encoder({m: batch[m] for m in members})


def presence(
    batch: Mapping[str, Tensor],
    observed: Mapping[str, Tensor] | None,
    known: Collection[str],
    beside: Mapping[str, Tensor] | None = None,
) -> dict[str, Bool[Tensor, "batch"]]:
    """For each modality of the batch the items that have it; a modality that no item has is left out.

    `known` are all modalities of the model.  `observed` may also mark those of `beside`, the targets, when they hold
    more than the inputs.
    Raises as `check_observed` does, and ValueError where nothing at all is there.
    """
    like, observed = next(iter(batch.values())), {} if observed is None else observed
    check_observed(observed, {**batch, **(beside or {})}, len(like), known)
    everything = torch.ones(len(like), dtype=torch.bool, device=like.device)
    there = {m: observed.get(m, everything) for m in batch}
    there = {m: mask for m, mask in there.items() if m not in observed or bool(mask.any())}
    if not there:
        raise ValueError("observed marks every modality of every item as absent; wanted at least one that is there")
    return there


def hide_one(
    there: Mapping[str, Bool[Tensor, "batch"]], probability: float, generator: torch.Generator | None
) -> dict[str, Bool[Tensor, "batch"]]:
    """With this probability take one random modality from an item, as long as the item keeps another."""
    held = torch.stack(list(there.values()))
    draws = torch.rand((len(held) + 1, held.shape[1]), generator=generator, device=held.device)
    hit = (draws[0] < probability) & (held.sum(0) > 1)
    victim = torch.where(held, draws[1:], -1).argmax(0)
    return {m: mask & ~(hit & (victim == row)) for row, (m, mask) in enumerate(there.items())}


def add_mean(terms: dict[str, Tensor], name: str, values: Float[Tensor, "batch"], there: Bool[Tensor, "batch"]) -> None:
    """Add the mean of the values over the items that have them; a term that no item has is left out."""
    if bool(there.any()):
        terms[name] = mean_over(values, there)


def mean_over(values: Float[Tensor, "*lead batch"], there: Bool[Tensor, "*rows batch"]) -> Float[Tensor, "*lead"]:
    """The mean over the items that have a value, of every row at once; each row needs one."""
    return torch.where(there, values, 0).sum(-1) / there.sum(-1)


def reparameterised(q: Normal, sample: bool, generator: torch.Generator | None) -> Float[Tensor, "*batch latent"]:
    """A draw from q, or its mean."""
    return q.rsample(generator=generator) if sample else q.mean


def traversal(
    z: Float[Tensor, "latent"], dim: int, values: Float[Tensor, "steps"] | Sequence[float]
) -> Float[Tensor, "steps latent"]:
    """Copies of one latent in which coordinate `dim` runs through `values`.

    Raises IndexError off the end, TypeError for a `dim` that is no whole number, ValueError for several latents at once.
    """
    if not isinstance(dim, int):
        raise TypeError(f"dim: found {dim!r}, wanted a whole number")
    if z.ndim != 1:
        raise ValueError(f"a traversal starts from one latent: found shape {list(z.shape)}, wanted [latent]; take one row")
    if not 0 <= dim < z.shape[-1]:
        raise IndexError(f"dim: found {dim}, wanted 0 to {z.shape[-1] - 1}")
    rows = z.expand(len(values), -1).clone()
    rows[:, dim] = torch.as_tensor(values, dtype=z.dtype, device=z.device)
    return rows


def shared_latent(latents: Mapping[str, Tensor], width: int, like: Tensor) -> Float[Tensor, "*lead latent"]:
    """The shared latent among the latents.

    Raises KeyError where there is none, ValueError for another width, TypeError for another precision than `like`, the model's.
    """
    if "shared" not in latents:
        raise KeyError(f"latents: found {', '.join(map(repr, latents)) or 'none'}, wanted 'shared'")
    z = latents["shared"]
    if z.shape[-1:] != (width,):
        raise ValueError(f"latents['shared']: found shape {list(z.shape)}, wanted {width} numbers in the last axis")
    if z.dtype != like.dtype:
        raise TypeError(f"latents['shared']: found {z.dtype}, the model is in {like.dtype}; convert one of them")
    return z


@torch.no_grad()
def importance_log_likelihood(
    q: Normal | Laplace | Mixture,
    prior: Normal | Laplace,
    log_px: Callable[[Tensor], Tensor],
    samples: int,
    chunk: int,
    generator: torch.Generator | None,
) -> Float[Tensor, "batch"]:
    """log 1/K sum_k p(x | z_k) p(z_k) / q(z_k | x) with z_k ~ q, in chunks of samples.

    A lower bound of log p(x) in expectation, `eq-iwae` of the book (Burda et al. 2016).  A mixture draws `samples`
    from each of its experts.
    """
    check_positive("samples", samples)
    check_positive("chunk", chunk)
    parts, drawn = [], 0
    for start in range(0, samples, chunk):
        z = q.rsample((min(chunk, samples - start),), generator)
        z = z.flatten(0, 1) if isinstance(q, Mixture) else z
        drawn += len(z)
        parts.append(log_weights(log_px(z), prior.log_prob(z), q.log_prob(z)).logsumexp(0))
    return torch.stack(parts).logsumexp(0) - math.log(drawn)


def evidence(
    q: Normal,
    log_px: Callable[[str, Tensor, Tensor], Tensor],
    batch: Mapping[str, Float[Tensor, "batch ..."]],
    samples: int,
    chunk: int,
    generator: torch.Generator | None,
) -> Float[Tensor, "batch"]:
    """An importance-sampled lower bound of log p(x_S) under the prior N(0, I), for the modalities in the batch.

    `log_px(name, z, x)` is log p(x_m | z) of one modality.
    """

    def all_of_them(z: Tensor) -> Tensor:
        return sum(log_px(m, z, x) for m, x in batch.items())

    prior = Normal.standard(*q.mean.shape, like=q.mean)
    return importance_log_likelihood(q, prior, all_of_them, samples, chunk, generator)
