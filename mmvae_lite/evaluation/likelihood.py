"""Importance-sampled likelihoods, each with its effective sample size, and what a decoder's scale does to them.

Every estimate is log 1/K sum_k w_k with w_k = p(x_T | z_k) p(z_k) / q(z_k | x_S) and z_k ~ q(z | x_S) (Burda et al. 2016).
Whatever subset S the proposal sees, the target is the marginal log p(x_T), approached from below; the proposal decides
how fast.  Three columns of Shi et al. (2019), table 3, are such estimates of one number, log p(x_m), by three proposals:
their differences say how well the proposals fit and nothing about conditioning.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mmvae_lite.checks import check_name, check_positive
from mmvae_lite.distributions import LOG_2PI, BernoulliLikelihood, CategoricalLikelihood, LaplaceLikelihood, Likelihood, NormalLikelihood
from mmvae_lite.evaluation._common import at_rest, priors
from mmvae_lite.experts import Mixture
from mmvae_lite.models._common import all_weights

Batch = Mapping[str, Float[Tensor, "batch ..."]]


@dataclass(frozen=True)
class Estimate:
    """What importance sampling gave for each item.

    values: the estimate in nats, [items]; ess: (sum w)^2 / sum w^2, between 1 and `draws`, [items].
    draws: how many latents each item had, `samples` from each expert of a mixture.
    """

    values: Float[Tensor, "items"]
    ess: Float[Tensor, "items"]
    draws: int

    @property
    def shortfall(self) -> Float[Tensor, "items"]:
        """How far the expected value lies below the truth, to first order: half the relative variance of the mean weight.

        It comes from the same draws, so that it is too small where a few weights carry everything (`ess` near 1).
        """
        return 0.5 * (1 / self.ess - 1 / self.draws)

    def summary(self) -> dict[str, float]:
        """`mean` and its standard error `se` over the items, `n` items, `draws`, the median `ess`, `shortfall` and `poor`.

        `shortfall` is the mean of what the values are too low by; `poor` the share of items with an effective sample size
        below 10, whose values are lower still.
        """
        n = len(self.values)
        return {
            "mean": float(self.values.mean()),
            "se": float(self.values.std() / math.sqrt(n)) if n > 1 else math.nan,
            "n": n,
            "draws": self.draws,
            "ess": float(self.ess.median()),
            "shortfall": float(self.shortfall.mean()),
            "poor": float((self.ess < 10).double().mean()),
        }


def log_likelihood(
    model: nn.Module,
    target: Batch,
    given: Batch | None = None,
    samples: int = 1000,
    chunk: int = 100,
    weights: Mapping[str, float] | None = None,
    generator: torch.Generator | None = None,
    items: int = 100,
) -> Estimate:
    """Estimate log p(x_T) of the modalities in `target`, with q(z | x_S) for those in `given` as the proposal.

    given: what the proposal sees, the target by default; a private latent that it does not see is drawn from its prior.
    samples: K, from each expert of a mixture; `chunk` of them pass through the decoders at once, for `items` items at once.
    weights: lambda_m of each log p(x_m | z).  With others than 1 the value is an objective, not a likelihood of anything.

    The model computes in evaluation mode.  DMVAE-D needs a density of its shared latent, as for its own `log_likelihood`.
    Raises ValueError for unequal lengths, and as the model's `posterior` does for a subset that it cannot infer from.
    """
    for name, value in (("samples", samples), ("chunk", chunk), ("items", items)):
        check_positive(name, value)
    given = target if given is None else given
    lengths = {len(x) for x in (*target.values(), *given.values())}
    if len(lengths) != 1:
        raise ValueError(f"target and given: found {sorted(lengths)} items, wanted the same number in every modality, at least one modality")
    lambdas = None if weights is None else all_weights(tuple(target), weights)
    with at_rest(model):
        parts = [_estimate(model, a, b, lambdas, samples, chunk, generator) for a, b in zip(_split(target, items), _split(given, items))]
    return Estimate(torch.cat([p.values for p in parts]), torch.cat([p.ess for p in parts]), parts[0].draws)


def _split(batch: Batch, items: int) -> list[dict[str, Tensor]]:
    n = len(next(iter(batch.values())))
    return [{m: x[start : start + items] for m, x in batch.items()} for start in range(0, n, items)]


def _others(batch: Batch, of: str) -> dict[str, Tensor]:
    """All modalities but one.  Raises KeyError where the batch lacks it, ValueError where it holds nothing else."""
    check_name("modality", of, batch)
    rest = {m: x for m, x in batch.items() if m != of}
    if not rest:
        raise ValueError(f"conditional: the batch holds {of!r} alone, wanted another modality to condition on")
    return rest


def _estimate(model, target, given, lambdas, samples, chunk, generator) -> Estimate:
    used = ("shared", *(f"private/{m}" for m in target))
    q = {name: density for name, density in model.posterior(given).items() if name in used}
    p, log_px = priors(model, len(next(iter(given.values())))), _scorer(model, target, given, lambdas)
    once, twice, drawn = [], [], 0
    for start in range(0, samples, chunk):
        z = {name: _draw(density, min(chunk, samples - start), generator) for name, density in q.items()}
        log_w = log_px(z) + sum(_summed(p[name].log_prob(z[name]) - density.log_prob(z[name])) for name, density in q.items())
        once.append(log_w.logsumexp(0))
        twice.append((2 * log_w).logsumexp(0))
        drawn += len(log_w)
    total, squares = torch.stack(once).logsumexp(0), torch.stack(twice).logsumexp(0)
    return Estimate(total - math.log(drawn), (2 * total - squares).exp(), drawn)


def _draw(density, n: int, generator: torch.Generator | None) -> Float[Tensor, "draws batch ..."]:
    z = density.rsample((n,), generator)
    return z.flatten(0, 1) if isinstance(density, Mixture) else z


def _summed(log_ratio: Float[Tensor, "draws batch ..."]) -> Float[Tensor, "draws batch"]:
    return log_ratio.sum(-1) if log_ratio.ndim > 2 else log_ratio  # several categorical variables


def _scorer(model: nn.Module, target: Batch, given: Batch, lambdas: Mapping[str, float] | None) -> Callable[[Mapping[str, Tensor]], Tensor]:
    """log p(x_T | z) as a function of a dict of latents."""
    if hasattr(model, "modality"):
        check_name("modality", next((m for m in target if m != getattr(model, "label", None)), ""), [model.modality])
        x, label = target[model.modality], given.get(getattr(model, "label", ""))
        score = lambda m, z: model.log_px(z["shared"], x) if label is None else model.log_px(z["shared"], x, label)  # noqa: E731
        names = [model.modality]
    else:
        flat = getattr(model, "_flat", lambda z: z)
        private = hasattr(model, "private_dims")
        score = lambda m, z: model.log_px(m, {**z, "shared": flat(z["shared"])} if private else z["shared"], target[m])  # noqa: E731
        names = list(target)
    return lambda z: sum((1.0 if lambdas is None else lambdas[m]) * score(m, z) for m in names)


def conditional(
    model: nn.Module, batch: Batch, of: str, samples: int = 1000, chunk: int = 100, generator: torch.Generator | None = None
) -> Float[Tensor, "items"]:
    """log p(x_of | the other modalities) in nats, as the difference log p(x) - log p(x without x_of), [items].

    Both terms are estimated from below, each by its own proposal, so that the difference is no bound in either direction.
    Raises KeyError for a modality that the batch lacks, ValueError where no other is left.
    """
    both, one = (log_likelihood(model, b, None, samples, chunk, None, generator) for b in (batch, _others(batch, of)))
    return both.values - one.values


def prediction(
    model: nn.Module,
    batch: Batch,
    of: str,
    samples: int = 1000,
    chunk: int = 100,
    generator: torch.Generator | None = None,
    items: int = 100,
) -> Float[Tensor, "items"]:
    """log 1/K sum_k p(x_of | z_k) with z_k ~ q(z | the other modalities), unweighted, [items].

    The conditional likelihood that Suzuki et al. (2016) report.  It is what the model predicts through its own inference
    network, from below; equal to `conditional` only where q(z | x_S) is the true posterior.
    samples, chunk, items: as in `log_likelihood`.  Raises as `conditional` does.
    """
    rest = _others(batch, of)
    for name, value in (("samples", samples), ("chunk", chunk), ("items", items)):
        check_positive(name, value)
    with at_rest(model):
        parts = [_predicted(model, x[of], given, of, samples, chunk, generator) for x, given in zip(_split(batch, items), _split(rest, items))]
    return torch.cat(parts)


def _predicted(model, x, given, of, samples, chunk, generator) -> Float[Tensor, "items"]:
    q, log_px = model.posterior(given), _scorer(model, {of: x}, given, None)
    parts, drawn = [], 0
    for start in range(0, samples, chunk):
        scores = log_px({name: _draw(d, min(chunk, samples - start), generator) for name, d in q.items() if name in ("shared", f"private/{of}")})
        parts.append(scores.logsumexp(0))
        drawn += len(scores)
    return torch.stack(parts).logsumexp(0) - math.log(drawn)


def table(
    model: nn.Module, batch: Batch, samples: int = 1000, chunk: int = 100, generator: torch.Generator | None = None
) -> dict[str, dict[str, float]]:
    """The columns of Shi et al. (2019), table 3, under names that say what they are; each a `summary`.

    `joint` is log p(x) with every weight 1, the number to compare.  `joint, weighted` stands beside it where the model was
    trained with other weights; that is what the paper's column holds, and no likelihood.  For each modality m,
    `m, proposal m`, `m, proposal all` and `m, proposal n` all estimate the marginal log p(x_m); the paper prints them as
    log p(x_m | x_m), log p(x_m | x_m, x_n) and log p(x_m | x_n).  A proposal that the model does not have is left out.
    """

    def run(target: Batch, given: Batch, weights: Mapping[str, float] | None = None) -> dict[str, float]:
        return log_likelihood(model, target, given, samples, chunk, weights, generator).summary()

    rows = {"joint": run(batch, batch)}
    weights = {m: v for m, v in getattr(model, "weights", {}).items() if m in batch}
    if any(value != 1 for value in weights.values()):
        rows["joint, weighted"] = run(batch, batch, weights)
    for m, x in batch.items():
        proposals = {n: {n: batch[n]} for n in (m, *(n for n in batch if n != m))} | ({"all": batch} if len(batch) > 1 else {})
        for name, given in proposals.items():
            with contextlib.suppress(NotImplementedError):  # the model cannot infer from these modalities alone
                rows[f"{m}, proposal {name}"] = run({m: x}, given)
    return rows


def ceiling(likelihood: Likelihood, x: Float[Tensor, "items *event"]) -> Float[Tensor, "items"]:
    """The highest log p(x | z) that any decoder can reach on each item: that of a perfect reconstruction, in nats, [items].

    For a Laplace density, equation `eq-laplace-ceiling` of the book.
    No log p(x) is above it.  For a density it grows without limit as the scale shrinks, which is why likelihoods of
    models with different scales cannot be compared.
    """
    flat = x.flatten(1).double()
    if isinstance(likelihood, CategoricalLikelihood):
        return torch.zeros(len(x), dtype=torch.float64, device=x.device)
    if isinstance(likelihood, BernoulliLikelihood):
        return (torch.xlogy(flat, flat) + torch.xlogy(1 - flat, 1 - flat)).sum(1)
    peak = torch.as_tensor(_log_peak(likelihood), dtype=torch.float64, device=x.device)
    return peak.expand(x.shape[1:]).sum().expand(len(x))


def _log_peak(likelihood: NormalLikelihood | LaplaceLikelihood) -> float | Tensor:
    """The log-density of one number at its mode."""
    if isinstance(likelihood, LaplaceLikelihood):
        return -math.log(2 * likelihood.scale)
    return -torch.as_tensor(likelihood.std, dtype=torch.float64).log() - 0.5 * LOG_2PI


def check_possible(value: float, likelihood: NormalLikelihood | LaplaceLikelihood, event: tuple[int, ...]) -> None:
    """Raise ValueError for a mean log-likelihood that no decoder with this likelihood can reach on events of this shape.

    The sentence names the widest scale that could: the scale behind a number is seldom printed beside it.
    """
    highest = float(ceiling(likelihood, torch.zeros(1, *event))[0])
    if value > highest:
        per_number = value / math.prod(event)
        widest = math.exp(-per_number) / 2 if isinstance(likelihood, LaplaceLikelihood) else math.exp(-per_number - 0.5 * LOG_2PI)
        raise ValueError(
            f"found {value:.6g} nats for {math.prod(event)} numbers, but {likelihood} reaches {highest:.6g} at most; "
            f"the number needs a scale of {widest:.3g} or less"
        )


def check_comparable(models: Mapping[str, nn.Module]) -> None:
    """Raise ValueError unless the likelihoods of every modality have one family and one scale in all models.

    A narrower density scores higher for the same pictures, so that numbers under different scales rank the scales.
    """
    (first, model), *others = models.items()
    for name, other in others:
        for m, a in _likelihoods(model).items():
            b = _likelihoods(other).get(m)
            if b is None or type(a) is not type(b) or not torch.equal(torch.as_tensor(_scale(a)), torch.as_tensor(_scale(b))):
                raise ValueError(f"modality {m!r}: {first!r} has {a} and {name!r} has {b}; likelihoods under different scales cannot be compared")


def _likelihoods(model: nn.Module) -> Mapping[str, Likelihood]:
    return getattr(model, "likelihoods", None) or {model.modality: model.likelihood}


def _scale(likelihood: Likelihood) -> float | Tensor:
    return getattr(likelihood, "scale", getattr(likelihood, "std", 0.0))


def scales(model: nn.Module, batch: Batch, generator: torch.Generator | None = None) -> dict[str, dict[str, float]]:
    """For each modality with a scale: `scale`, that of its density; `residual`, the one that fits; `ceiling`.

    `residual` is the mean absolute error of reconstructions (root mean square for a Normal) at one draw of q(z | x), the
    maximum-likelihood scale.  A `scale` far below it means a model that is sure of pixels it gets wrong, one far above
    it a log-likelihood that is mostly the normaliser's; report both beside every likelihood.
    """
    with at_rest(model):
        means = model.decode(_flat_draws(model, batch, generator))
    rows = {}
    for m, x in batch.items():
        likelihood = _likelihoods(model)[m]
        if isinstance(likelihood, (LaplaceLikelihood, NormalLikelihood)):
            errors = (x - means[m]).double()
            residual = errors.abs().mean() if isinstance(likelihood, LaplaceLikelihood) else errors.square().mean().sqrt()
            scale = torch.as_tensor(_scale(likelihood)).double().mean()
            rows[m] = {"scale": float(scale), "residual": float(residual), "ceiling": float(ceiling(likelihood, x[:1])[0]), "n": len(x)}
    return rows


def _flat_draws(model: nn.Module, batch: Batch, generator: torch.Generator | None) -> dict[str, Tensor]:
    q = model.posterior(batch)
    z = {name: d.draw(generator) if isinstance(d, Mixture) else d.rsample(generator=generator) for name, d in q.items()}
    label = getattr(model, "label", None)
    extra = {label: batch[label]} if label in batch else {}
    return {**z, "shared": model._flat(z["shared"]) if hasattr(model, "_flat") else z["shared"], **extra}
