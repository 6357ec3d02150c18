"""What models with a shared and several private latents have in common: latents are a dict, decoders take both.

The keys are `shared` and `private/<modality>`.  A decoder reads the private latent first, then the shared one.  The verbs
`decode`, `log_px`, `translate`, `swap` and `traverse` are functions of a model, which takes over by name those that its
paper leaves as they are; they use its `decoders`, `likelihoods`, `modalities`, `private_dims`, `shared_dim` and `_latents`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mmvae_lite.checks import check_name, check_positive
from mmvae_lite.distributions import Concrete, Normal
from mmvae_lite.experts import concrete_product, masked, product, product_with_prior, quotient
from mmvae_lite.models._common import all_weights, decode_flat, event_shapes, parameter_like, score, shared_latent, traversal

Latents = Mapping[str, Float[Tensor, "..."]]
Modules = Mapping[str, nn.Module] | nn.ModuleDict
POOLS = ("product", "prior", "quotient")


def key(modality: str) -> str:
    return f"private/{modality}"


def for_each(modalities: Sequence[str], values: float | int | Mapping[str, float] | None) -> dict[str, float]:
    """A weight for every modality: one number for all, or 1 unless given."""
    number = isinstance(values, (int, float))
    return {m: float(values) for m in modalities} if number else all_weights(modalities, values)


def split_event_shapes(decoders: Modules, latent_dims: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
    """The shape of one item of each modality, for decoders whose latents differ in size.

    Raises ValueError for a decoder that cannot read a latent of its size.
    """
    shapes = {}
    for m, decoder in decoders.items():
        try:
            shapes |= event_shapes({m: decoder}, latent_dims[m])
        except RuntimeError as e:
            raise ValueError(f"decoder of {m!r} cannot read {latent_dims[m]} numbers, its private and shared latents together ({e})") from None
    return shapes


def pooled(experts: Mapping[str, Normal], present: Mapping[str, Bool[Tensor, "..."]], form: str) -> Normal:
    """One product for every subset: experts [batch, latent] and masks [*subsets, batch] -> [*subsets, batch, latent].

    `form` names the product.  Where a subset of an item is empty the result is N(0, I), to keep numbers finite.
    """
    prior = Normal.standard(*next(iter(experts.values())).mean.shape, like=next(iter(experts.values())).mean)
    if form == "quotient":  # who is absent knows what the prior knows, and that is divided out
        pairs = [(present[m][..., None], e) for m, e in experts.items()]
        return quotient([Normal(torch.where(p, e.mean, 0), torch.where(p, e.logvar, 0)) for p, e in pairs])
    members = [masked(expert, present[m]) for m, expert in experts.items()]
    if form == "prior":
        return product_with_prior(members)
    nobody = ~torch.stack([present[m] for m in experts]).any(0)
    return product([*members, masked(prior, nobody)])


def encoded(encoders: Modules, batch: Mapping[str, Tensor], prior: Normal | Concrete) -> dict[str, dict[str, Normal | Concrete]]:
    """What the encoder of each modality says: `shared`, and `private` where it has one.

    Raises ValueError for a shared latent of another family, size or temperature than its prior.
    """
    codes = {m: encoders[m](x) for m, x in batch.items()}
    for m, q in codes.items():
        if _kind(q["shared"]) != _kind(prior):
            raise ValueError(f"encoder of {m!r}: its shared latent is a {_kind(q['shared'])}, wanted a {_kind(prior)} as in the model; build both alike")
    return codes


def _kind(q: Normal | Concrete) -> str:
    if isinstance(q, Normal):
        return f"Normal of shape {list(q.mean.shape[1:])}"
    return f"Concrete of shape {list(q.logits.shape[1:])} at temperature {q.temperature:g}"


def combined(experts: Sequence[Normal | Concrete]) -> Normal | Concrete:
    """The joint posterior of two experts or more, with the prior among them; one alone is left as it is."""
    if len(experts) == 1:
        return experts[0]
    return concrete_product(experts) if isinstance(experts[0], Concrete) else product_with_prior(experts)


def average(values: Sequence[tuple[int, Float[Tensor, ""]]]) -> Float[Tensor, ""]:
    """The mean of numbers that stand for so many items each."""
    if len(values) == 1:
        return values[0][1]
    return sum(items * value for items, value in values) / sum(items for items, _ in values)


def groups(there: Mapping[str, Bool[Tensor, "batch"]]) -> Iterator[tuple[tuple[str, ...], Tensor]]:
    """The items that have the same modalities, for every such set that occurs but the empty one."""
    if all(bool(mask.all()) for mask in there.values()):
        yield tuple(there), torch.arange(len(next(iter(there.values()))), device=next(iter(there.values())).device)
        return
    code = sum(mask.long() << k for k, mask in enumerate(there.values()))
    for value in code.unique().tolist():
        members = tuple(m for k, m in enumerate(there) if value >> k & 1)
        if members:
            yield members, (code == value).nonzero().flatten()


def drawn(q: Normal | Concrete, sample: bool, hard: bool, generator: torch.Generator | None) -> Float[Tensor, "..."]:
    """A draw from q, or its mean or mode; `hard` rounds a concrete draw to its class, which has the class's probability."""
    if isinstance(q, Normal):
        return q.rsample(generator=generator) if sample else q.mean
    z = q.rsample(generator=generator) if sample else q.mode
    return nn.functional.one_hot(z.argmax(-1), z.shape[-1]).to(z) if hard else z


def joined(latents: Latents, modality: str) -> Float[Tensor, "..."]:
    """What a modality's decoder reads: its private latent, where it has one, and the shared latent."""
    if key(modality) not in latents:
        return latents["shared"]
    return torch.cat([latents[key(modality)], latents["shared"]], -1)


def decode(self: nn.Module, latents: Latents) -> dict[str, Tensor]:
    """The mean of p(x_m | s_m, c) for every modality whose private latent is given, or that has none, [*lead, *event].

    `shared` is flat where it is categorical.  Raises KeyError for an unknown latent or without a shared one, ValueError
    for shapes that do not fit.
    """
    lead = shared_latent(latents, self.shared_dim, parameter_like(self)).shape[:-1]
    widths = {"shared": self.shared_dim, **{key(m): dim for m, dim in self.private_dims.items() if dim}}
    for name, z in latents.items():
        check_name("latent", name, widths)
        if z.shape[-1:] != (widths[name],):
            raise ValueError(f"latents[{name!r}]: found shape {list(z.shape)}, wanted {widths[name]} numbers in the last axis")
        if z.shape[:-1] != lead:
            raise ValueError(f"latents[{name!r}]: found {list(z.shape[:-1])} items, wanted {list(lead)} as in 'shared'")
    there = [m for m in self.decoders if not self.private_dims[m] or key(m) in latents]
    return {m: self.likelihoods[m].mean(decode_flat(self.decoders[m], joined(latents, m))) for m in there}


def log_px(self: nn.Module, name: str, latents: Latents, x: Float[Tensor, "batch *event"]) -> Float[Tensor, "*lead batch"]:
    """log p(x_m | s_m, c) of one modality, unweighted, for flat latents [*lead, batch, latent]."""
    return score(self.decoders[name], self.likelihoods[name], joined(latents, name), x)


def translate(
    self: nn.Module, batch: Mapping[str, Tensor], to: str, sample: bool = False, generator: torch.Generator | None = None
) -> Float[Tensor, "batch *event"]:
    """The mean of p(x_to | s_to, c); the style is that of x_to, or the prior's where x_to is not in the batch."""
    check_name("modality", to, self.modalities)
    latents = self._latents(batch, sample, generator)
    return self.decode({name: latents[name] for name in ("shared", key(to))})[to]


def swap(
    self: nn.Module,
    content: Mapping[str, Tensor],
    style: Mapping[str, Tensor],
    sample: bool = False,
    generator: torch.Generator | None = None,
) -> dict[str, Tensor]:
    """The shared latent of one batch with the styles of another, item by item; one that `style` lacks is the prior's."""
    return self.decode(swapped(*(self._latents(b, sample, generator) for b in (content, style))))


def traverse(self: nn.Module, latents: Latents, dim: int, values: Float[Tensor, "steps"], of: str = "shared") -> dict[str, Tensor]:
    """Decode one item with coordinate `dim` of the latent `of` set to each of `values`: [steps, *event]."""
    return self.decode(traversed(latents, dim, values, of))


def swapped(content: Latents, style: Latents) -> dict[str, Tensor]:
    """The shared latent of one batch with the private latents of another.  Raises ValueError for unequal lengths."""
    n, found = len(content["shared"]), len(style["shared"])
    if n != found:
        raise ValueError(f"swap: content has {n} items and style has {found}, wanted the same number")
    return {**style, "shared": content["shared"]}


def traversed(latents: Latents, dim: int, values: Float[Tensor, "steps"], of: str) -> dict[str, Tensor]:
    """Copies of the latents of one item in which coordinate `dim` of the latent `of` runs through `values`.

    Raises KeyError for an unknown latent, IndexError off its end, ValueError for several items at once.
    """
    check_name("latent", of, latents)
    for name, z in latents.items():
        if z.ndim != 1:
            raise ValueError(f"a traversal starts from one item: latents[{name!r}] has shape {list(z.shape)}, wanted [latent]; take one row")
    copies = {name: z.expand(len(values), -1) for name, z in latents.items()}
    return {**copies, of: traversal(latents[of], dim, values)}


@torch.no_grad()
def split_log_likelihood(
    q: Mapping[str, object],
    priors: Mapping[str, object],
    log_px: Callable[[Mapping[str, Tensor]], Tensor],
    samples: int,
    chunk: int,
    generator: torch.Generator | None,
) -> Float[Tensor, "batch"]:
    """log 1/K sum_k p(x | z_k) p(z_k) / q(z_k | x) for a dict of latents, in chunks of samples.

    `q` and `priors` hold a density of each latent; log-densities with further axes are summed down to [samples, batch].
    """
    check_positive("samples", samples)
    check_positive("chunk", chunk)
    parts = []
    for start in range(0, samples, chunk):
        z = {name: d.rsample((min(chunk, samples - start),), generator) for name, d in q.items()}
        ratios = [priors[name].log_prob(z[name]) - d.log_prob(z[name]) for name, d in q.items()]
        parts.append((log_px(z) + sum(r.sum(-1) if r.ndim > 2 else r for r in ratios)).logsumexp(0))
    return torch.stack(parts).logsumexp(0) - math.log(samples)
