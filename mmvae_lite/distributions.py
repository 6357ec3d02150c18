"""Distributions that the models are made of: latent densities and likelihoods of the data.

Latent densities (`Normal`, `Laplace`) factorise over their last axis; `log_prob` and `kl` sum over
it.  The last axis of a `Concrete` holds the classes of one variable.  Likelihoods turn what a decoder
puts out into log p(x | z), summed over every event axis of x.
All log-densities are in nats.  Random draws take a `torch.Generator`, so that a run can be resumed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

LOG_2PI = math.log(2 * math.pi)


def _noise(samples: tuple[int, ...], like: Tensor, generator: torch.Generator | None) -> Tensor:
    return torch.randn(
        (*samples, *like.shape), dtype=like.dtype, device=like.device, generator=generator
    )


@dataclass(frozen=True)
class Normal:
    """A Gaussian with diagonal covariance, N(mean, exp(logvar)).

    `mean` and `logvar` have shape [*batch, latent].  The log-variance is stored because it is what a
    network puts out; precision and variance follow from it without an added epsilon.
    """

    mean: Float[Tensor, "*batch latent"]
    logvar: Float[Tensor, "*batch latent"]

    @classmethod
    def standard(cls, *shape: int, like: Tensor | None = None) -> "Normal":
        """The prior N(0, I) of the given shape, with the dtype and device of `like`."""
        zeros = torch.zeros(shape) if like is None else like.new_zeros(shape)
        return cls(zeros, zeros)

    @classmethod
    def from_precision(
        cls, mean: Float[Tensor, "*batch latent"], precision: Float[Tensor, "*batch latent"]
    ) -> "Normal":
        """N(mean, 1 / precision); the precision must be positive."""
        return cls(mean, -precision.log())

    @property
    def var(self) -> Float[Tensor, "*batch latent"]:
        return self.logvar.exp()

    @property
    def std(self) -> Float[Tensor, "*batch latent"]:
        return (0.5 * self.logvar).exp()

    @property
    def precision(self) -> Float[Tensor, "*batch latent"]:
        return (-self.logvar).exp()

    def rsample(
        self, samples: tuple[int, ...] = (), generator: torch.Generator | None = None
    ) -> Float[Tensor, "..."]:
        """Draw z = mean + std * noise, shape [*samples, *batch, latent]; gradients flow through z."""
        return self.mean + self.std * _noise(samples, self.mean, generator)

    def log_prob(self, z: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """log N(z; mean, var) summed over the latent axis: [*samples, *batch, latent] -> [*samples, *batch]."""
        squares = (z - self.mean).square() * self.precision
        return -0.5 * (squares + self.logvar + LOG_2PI).sum(-1)

    def detach(self) -> "Normal":
        return Normal(self.mean.detach(), self.logvar.detach())


@dataclass(frozen=True)
class Laplace:
    """A factorised Laplace density with location `loc` and scale `scale`, both [*batch, latent]."""

    loc: Float[Tensor, "*batch latent"]
    scale: Float[Tensor, "*batch latent"]

    @classmethod
    def from_logits(
        cls, loc: Float[Tensor, "*batch latent"], logits: Float[Tensor, "*batch latent"], eps: float = 1e-6
    ) -> "Laplace":
        """Scales that share a fixed sum: b = D softmax(logits) + eps, so they add up to D (1 + eps).

        Equation `eq-laplace-scale` of the book.  Source: Shi et al. (2019), section 4; no posterior can be sharp in every dimension at once.
        """
        return cls(loc, loc.shape[-1] * logits.softmax(-1) + eps)

    @property
    def mean(self) -> Float[Tensor, "*batch latent"]:
        return self.loc

    @property
    def std(self) -> Float[Tensor, "*batch latent"]:
        return math.sqrt(2) * self.scale

    def rsample(
        self, samples: tuple[int, ...] = (), generator: torch.Generator | None = None
    ) -> Float[Tensor, "..."]:
        """Draw by the inverse of the distribution function, shape [*samples, *batch, latent]."""
        shape = (*samples, *self.loc.shape)
        u = torch.rand(shape, dtype=self.loc.dtype, device=self.loc.device, generator=generator) - 0.5
        tail = (1 - 2 * u.abs()).clamp_min(torch.finfo(u.dtype).tiny)
        return self.loc - self.scale * u.sign() * tail.log()

    def log_prob(self, z: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """log density summed over the latent axis: [*samples, *batch, latent] -> [*samples, *batch]."""
        return -((z - self.loc).abs() / self.scale + (2 * self.scale).log()).sum(-1)

    def detach(self) -> "Laplace":
        return Laplace(self.loc.detach(), self.scale.detach())


def kl(q: Normal | Laplace, p: Normal | Laplace, reduce: bool = True) -> Float[Tensor, "..."]:
    """KL(q || p) in nats for two densities of the same family.

    Equation `eq-kl-normal` of the book (Kingma and Welling 2014, appendix B, for a general p); for the
    Laplace family `eq-laplace-divergence`, the closed form used by Shi et al. (2019).

    Returns [*batch], summed over the latent axis, or [*batch, latent] with `reduce=False`.
    Raises TypeError when the families differ.
    """
    if isinstance(q, Normal) and isinstance(p, Normal):
        gap = (q.mean - p.mean).square()
        per_dim = 0.5 * (p.logvar - q.logvar + (q.var + gap) * p.precision - 1)
    elif isinstance(q, Laplace) and isinstance(p, Laplace):
        gap = (q.loc - p.loc).abs()
        overlap = q.scale * (-gap / q.scale).exp() + gap
        per_dim = (p.scale / q.scale).log() + overlap / p.scale - 1
    else:
        raise TypeError(f"kl needs two densities of one family, got {type(q).__name__} and {type(p).__name__}")
    return per_dim.sum(-1) if reduce else per_dim


@dataclass(frozen=True)
class Concrete:
    """A relaxed one-hot vector on the simplex; equation `eq-gumbel-max` of the book (Maddison et al. 2017; Jang et al. 2017).

    `logits` are the unnormalised log class weights, [*batch, classes]; adding a constant to them changes
    nothing.  Several categorical variables at once are one more batch axis, [batch, variables, classes].
    At every temperature the argmax of a draw has exactly the class probabilities; as the temperature
    falls a draw tends to a vertex.

    Raises ValueError for a temperature that is not positive.
    """

    logits: Float[Tensor, "*batch classes"]
    temperature: float

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(f"temperature: found {self.temperature!r}, wanted more than 0")

    @classmethod
    def uniform(cls, *shape: int, temperature: float, like: Tensor | None = None) -> "Concrete":
        """Equal class weights of the given shape [*batch, classes], with the dtype and device of `like`."""
        return cls(torch.zeros(shape) if like is None else like.new_zeros(shape), temperature)

    @property
    def log_probs(self) -> Float[Tensor, "*batch classes"]:
        """Normalised log class probabilities."""
        return self.logits.log_softmax(-1)

    @property
    def probs(self) -> Float[Tensor, "*batch classes"]:
        return self.logits.softmax(-1)

    @property
    def mode(self) -> Float[Tensor, "*batch classes"]:
        """The most probable class as a one-hot vector."""
        return F.one_hot(self.logits.argmax(-1), self.logits.shape[-1]).to(self.logits)

    def rsample(
        self, samples: tuple[int, ...] = (), generator: torch.Generator | None = None
    ) -> Float[Tensor, "..."]:
        """Draw softmax((logits + Gumbel noise) / temperature), shape [*samples, *batch, classes].

        Equation `eq-concrete-draw` of the book (Lee and Pavlovic 2020, equation 6).
        """
        waits = torch.empty((*samples, *self.logits.shape), dtype=self.logits.dtype, device=self.logits.device)
        waits.exponential_(generator=generator).clamp_min_(torch.finfo(waits.dtype).tiny)
        return ((self.logits - waits.log()) / self.temperature).softmax(-1)

    def log_prob(self, z: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """log density over all coordinates but the last: [*samples, *batch, classes] -> [*samples, *batch].

        Equation `eq-concrete-density` of the book (Maddison et al. 2017; Lee and Pavlovic 2020, equation 7): the normalising
        sum is raised to the number of classes.
        """
        n, t = z.shape[-1], self.temperature
        log_z = z.clamp_min(torch.finfo(z.dtype).tiny).log()
        numerator = (self.logits - (t + 1) * log_z).sum(-1)
        return math.lgamma(n) + (n - 1) * math.log(t) + numerator - n * (self.logits - t * log_z).logsumexp(-1)

    def detach(self) -> "Concrete":
        return Concrete(self.logits.detach(), self.temperature)


def categorical_kl(q: Concrete, p: Concrete) -> Float[Tensor, "*batch"]:
    """KL between the class probabilities of q and p, [*batch]; the temperatures play no part.

    Equation `eq-categorical-kl` of the book: it is a lower bound of the KL between the relaxed densities when both have one
    temperature, because the argmax is a function of the draw, and that KL is the same at every temperature.
    """
    return (q.probs * (q.log_probs - p.log_probs)).sum(-1)


def _sum_event(values: Tensor, x: Tensor) -> Tensor:
    """Sum over the event axes of x, which are all but its first; sample axes in front stay.

    What is the same for every number is left for after the sum: on a CPU each step of arithmetic walks through memory once.
    """
    return values.flatten(-(x.ndim - 1)).sum(-1) if x.ndim > 1 else values


@dataclass(frozen=True)
class BernoulliLikelihood:
    """log p(x | z) = sum_d x_d log p_d + (1 - x_d) log(1 - p_d), from logits.

    On grey levels in [0, 1] this is a pseudo-likelihood: it has no normaliser (see the pitfalls of
    the chapter on MVAE).
    """

    support = (0.0, 1.0)

    def log_prob(self, logits: Float[Tensor, "..."], x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """[*samples, batch, *event] logits and [batch, *event] data -> [*samples, batch]."""
        return _sum_event(x * logits, x) - _sum_event(F.softplus(logits), x)

    def mean(self, logits: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        return logits.sigmoid()


@dataclass(frozen=True)
class CategoricalLikelihood:
    """log p(y | z) = sum_k y_k log softmax(logits)_k for one-hot y; classes are the last axis.

    ignore: a class whose occurrences in the data count nothing, as that of rare words in captions (code of Shi et al. 2019).
    """

    ignore: int | None = None
    support = (0.0, 1.0)

    def log_prob(self, logits: Float[Tensor, "..."], x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """[*samples, batch, *event] logits and [batch, *event] one-hot data -> [*samples, batch]."""
        terms = x * logits.log_softmax(-1)
        if self.ignore is not None:
            keep = torch.ones(x.shape[-1], dtype=terms.dtype, device=terms.device)
            keep[self.ignore] = 0
            terms = terms * keep
        return _sum_event(terms, x)

    def mean(self, logits: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        return logits.softmax(-1)


@dataclass(frozen=True)
class NormalLikelihood:
    """log N(x; mean, std^2 I) with a fixed standard deviation; `std` broadcasts against the event."""

    std: float | Tensor = 1.0
    support = (-math.inf, math.inf)

    def log_prob(self, mean: Float[Tensor, "..."], x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """[*samples, batch, *event] means and [batch, *event] data -> [*samples, batch]."""
        squares = F.mse_loss(mean, x.expand_as(mean), reduction="none")
        if isinstance(self.std, Tensor):
            std = self.std.to(x)
            return -0.5 * _sum_event(squares / std.square(), x) - (std.log() + 0.5 * LOG_2PI).expand(x.shape[1:]).sum()
        return -0.5 / self.std**2 * _sum_event(squares, x) - (math.log(self.std) + 0.5 * LOG_2PI) * x.shape[1:].numel()

    def mean(self, mean: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        return mean


@dataclass(frozen=True)
class LaplaceLikelihood:
    """log Laplace(x; mean, scale) with a fixed scale, as in Shi et al. (2019)."""

    scale: float = 0.75
    support = (-math.inf, math.inf)

    def log_prob(self, mean: Float[Tensor, "..."], x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """[*samples, batch, *event] means and [batch, *event] data -> [*samples, batch]."""
        gaps = F.l1_loss(mean, x.expand_as(mean), reduction="none")
        return -_sum_event(gaps, x) / self.scale - math.log(2 * self.scale) * x.shape[1:].numel()

    def mean(self, mean: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        return mean


Likelihood = BernoulliLikelihood | CategoricalLikelihood | NormalLikelihood | LaplaceLikelihood
