"""Checks of the exercises: `check("name", answer)` says "passed", or what is not right yet.

A check takes the reader's answer, mostly a function, tries it, and raises `NotYet` with a hint when
something is off.  `check` turns whatever happens into a `Verdict`, so that a wrong answer, a stub or a
crash never stops a notebook.  No message gives an answer away.

To add an exercise, write a function under the section of its chapter, here or in a module
`exercises_CHAPTER` beside this one, and register it:

    @exercise("chapter-what")
    def _(answer):
        value = _number(answer(2.0), "the value at 2")
        _expect(abs(value - wanted) < 1e-6, "the value at 2 is too large; which term grows with it?")
"""

from __future__ import annotations

import importlib
import math
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import torch
from torch import Tensor

from mmvae_lite.data.linear_gaussian import LG3, LG3_OBSERVATION
from mmvae_lite.distributions import BernoulliLikelihood, CategoricalLikelihood, Normal, kl
from mmvae_lite.experts import ImproperProduct, log_normaliser, product, product_with_prior, quotient
from mmvae_lite.models import MVAE
from mmvae_lite.networks import image_decoder, image_encoder, label_decoder, label_encoder

STUB = "the function is still a stub; replace the line that raises NotImplementedError"


class NotYet(AssertionError):
    """An answer that is not right yet; the message is the hint that the reader sees."""


@dataclass(frozen=True, repr=False)
class Verdict:
    """What a check found; a notebook shows it as "passed" or "not yet: ..."."""

    passed: bool
    message: str = ""

    def __bool__(self) -> bool:
        return self.passed

    def __repr__(self) -> str:
        return "passed" if self.passed else f"not yet: {self.message}"

    def _repr_html_(self) -> str:
        mark, kind = ("✓", "passed") if self.passed else ("→", "not-yet")
        return (
            f'<p class="verdict {kind}" role="status" style="border-left:4px solid currentColor;padding:.2em .8em">'
            f'<span aria-hidden="true">{mark}</span> {escape(repr(self))}</p>'
        )

    def require(self) -> "Verdict":
        """Return the verdict when it is "passed"; otherwise raise NotYet, an AssertionError."""
        if not self.passed:
            raise NotYet(self.message)
        return self


_CHECKS: dict[str, Callable[[Any], None]] = {}


def exercise(name: str) -> Callable[[Callable[[Any], None]], Callable[[Any], None]]:
    """Register the decorated function as the check of the exercise `name`."""

    def register(function: Callable[[Any], None]) -> Callable[[Any], None]:
        if name in _CHECKS:
            raise ValueError(f"there are two checks named {name!r}")
        _CHECKS[name] = function
        return function

    return register


def _load_chapters() -> None:
    """Import every module `exercises_CHAPTER` of the package, which registers its exercises."""
    package = importlib.import_module(__package__)
    for module in pkgutil.iter_modules(package.__path__):
        if module.name.startswith("exercises_"):
            importlib.import_module(f"{__package__}.{module.name}")


def names() -> list[str]:
    """The names of all exercises."""
    _load_chapters()
    return sorted(_CHECKS)


def check(name: str, answer: Any) -> Verdict:
    """Try the reader's answer to the exercise `name`.

    A wrong answer, a stub and an answer that crashes give a `Verdict`; only an unknown name raises
    (ValueError).
    """
    if name not in _CHECKS:
        _load_chapters()
    if name not in _CHECKS:
        raise ValueError(f"there is no exercise {name!r}; there are {', '.join(names())}")
    try:
        _CHECKS[name](answer)
    except NotYet as hint:
        return Verdict(False, str(hint))
    except NotImplementedError:
        return Verdict(False, STUB)
    except Exception as error:
        return Verdict(False, f"your code stopped with {type(error).__name__}: {error}")
    return Verdict(True)


def _expect(condition: bool, hint: str) -> None:
    if not condition:
        raise NotYet(hint)


def _number(value: Any, what: str) -> float:
    """`value` as a finite float; tensors and arrays of one element count as numbers."""
    _expect(value is not None, f"{what}: found None; does your function return its result?")
    try:
        number = float(value)
    except (TypeError, ValueError, RuntimeError):
        raise NotYet(f"{what}: wanted one number, found {type(value).__name__}") from None
    _expect(math.isfinite(number), f"{what}: found {number}, wanted a finite number")
    return number


def _tensor(value: Any, shape: tuple[int, ...], what: str) -> Tensor:
    """`value` as a float64 tensor of the wanted shape without NaN or infinity."""
    _expect(value is not None, f"{what}: found None; does your function return its result?")
    try:
        tensor = torch.as_tensor(value).detach().double()
    except (TypeError, ValueError, RuntimeError):
        raise NotYet(f"{what}: wanted a tensor, found {type(value).__name__}") from None
    _expect(tuple(tensor.shape) == shape, f"{what}: found shape {tuple(tensor.shape)}, wanted {shape}")
    _expect(bool(tensor.isfinite().all()), f"{what}: found NaN or infinity")
    return tensor


def _near(a: float, b: float, tolerance: float = 1e-3) -> bool:
    return abs(a - b) <= tolerance * max(1.0, abs(b))


def _same(a: Tensor, b: Tensor, tolerance: float = 1e-6) -> bool:
    return torch.allclose(a, b.double(), rtol=tolerance, atol=tolerance)


# ---------------------------------------------------------------- Gaussian product of experts


@exercise("poe-three-products")
def _(answer: Callable[[], Mapping[str, Sequence[float]]]) -> None:
    experts = [LG3.posterior({m: value}) for m, value in LG3_OBSERVATION.items()]
    forms = {"product": product(experts), "prior": product_with_prior(experts), "quotient": quotient(experts)}
    exact = {form: (float(q.precision), float(q.mean)) for form, q in forms.items()}
    found = answer()
    _expect(
        isinstance(found, Mapping) and set(found) == set(forms),
        'return a dict with the keys "product", "prior" and "quotient"',
    )
    for form, pair in found.items():
        _expect(
            isinstance(pair, (tuple, list, Tensor)) and len(pair) == 2,
            f"{form}: wanted the pair (precision, mean), found {pair!r}",
        )
        _check_form(form, *(_number(v, f"{form}, {what}") for v, what in zip(pair, ("precision", "mean"))), exact, experts)


def _check_form(form: str, precision: float, mean: float, exact: dict, experts: list[Normal]) -> None:
    if _near(precision, exact[form][0]):
        average = sum(float(e.mean) for e in experts) / len(experts)
        _expect(not _near(mean, average), f"{form}: the mean is the plain average; a sharper expert has more votes")
        _expect(_near(mean, exact[form][1]), f"{form}: the precision is right, the mean is not; add the eta's, then divide by the precision")
        return
    other = [name for name, (value, _) in exact.items() if _near(precision, value)]
    _expect(not other, f"{form}: this is the precision of another form; how often does this one count the prior?")
    _expect(not _near(precision, 1 / exact[form][0]), f"{form}: this is the variance; the precision is wanted first")
    raise NotYet(f"{form}: the precision {precision:.4g} is not right; add the three precisions, then mind the prior")


@exercise("poe-improper")
def _(answer: Callable[[], Sequence[tuple[float, float]]]) -> None:
    found = answer()
    _expect(isinstance(found, Sequence) and len(found) == 3, "return a list of three pairs (mean, variance)")
    _expect(all(isinstance(pair, Sequence) and len(pair) == 2 for pair in found), "every expert is a pair (mean, variance)")
    pairs = [(_number(mean, f"mean of expert {m + 1}"), _number(var, f"variance of expert {m + 1}")) for m, (mean, var) in enumerate(found)]
    _expect(all(var > 0 for _, var in pairs), "every expert must be a density itself: its variance is positive")
    _expect(min(var for _, var in pairs) < 1, "one expert must be sharper than the prior N(0, 1)")
    experts = [Normal(torch.tensor([mean]).double(), torch.tensor([math.log(var)]).double()) for mean, var in pairs]
    try:
        q = quotient(experts)
    except ImproperProduct:
        return
    raise NotYet(f"this quotient is a density, with precision {float(q.precision):.4g}; push that to zero or below")


@exercise("poe-agreement")
def _(answer: Callable[[float, float, float, float], float]) -> None:
    for mean1, var1, mean2, var2 in ((0.0, 1.0, 0.0, 1.0), (1.0, 0.5, -1.0, 2.0), (-0.3, 0.1, 2.0, 4.0), (2.0, 4.0, -0.3, 0.1)):
        given = f"for N({mean1}, {var1}) and N({mean2}, {var2})"
        experts = [Normal(torch.tensor([m]).double(), torch.tensor([v]).double().log()) for m, v in ((mean1, var1), (mean2, var2))]
        wanted = float(log_normaliser(experts))
        found = _number(answer(*(torch.tensor(v).double() for v in (mean1, var1, mean2, var2))), f"the score {given}")
        if _near(found, wanted, 1e-6):
            continue
        _expect(not _near(found, math.exp(wanted), 1e-6), f"{given} this is Z itself; the exercise asks for its logarithm")
        _expect(not _near(found, -wanted, 1e-6), f"{given} the sign is turned round")
        squares, total = (mean1 - mean2) ** 2, var1 + var2
        _expect(
            not _near(found, -0.5 * squares / total - 0.5 * math.log(total), 1e-6),
            f"{given} a constant is missing; a density integrates to one",
        )
        std_as_var = -0.5 * squares / total**2 - math.log(total) - 0.5 * math.log(2 * math.pi)
        _expect(not _near(found, std_as_var, 1e-6), f"{given} a variance was used as a standard deviation")
        raise NotYet(f"{given} the score {found:.4g} is not log Z; what does the difference of the two experts' draws look like?")


@exercise("poe-calibrate")
def _(answer: Callable[[Tensor, Tensor, Tensor], float]) -> None:
    for factor, seed in ((4.0, 1), (0.25, 2), (1.0, 3)):
        g = torch.Generator().manual_seed(seed)
        z, noise = (torch.randn(20_000, generator=g, dtype=torch.float64) for _ in range(2))
        true = 0.1 + torch.rand(20_000, generator=g, dtype=torch.float64)
        found = _number(answer(z + true.sqrt() * noise, true / factor, z), "the factor")
        if abs(math.log(max(found, 1e-9) / factor)) < 0.1:
            continue
        state = "the experts claim too small a variance" if factor > 1 else "the experts claim too large a variance"
        if factor == 1:
            raise NotYet(f"these experts are honest already, yet the factor is {found:.3g}; weigh each error by that item's own variance")
        _expect(abs(math.log(max(found, 1e-9) * factor)) > 0.1, f"{state}, and this factor makes it worse: which way does it have to act?")
        _expect(
            abs(math.log(max(found, 1e-9) / math.sqrt(factor))) > 0.1,
            f"{state}; this factor mends the standard deviation, the variance was asked for",
        )
        raise NotYet(f"{state}; after your factor {found:.3g} the squared errors still do not match the variances on average")


@exercise("poe-full-covariance")
def _(answer: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]) -> None:
    g = torch.Generator().manual_seed(0)
    for count, dims in ((2, 2), (3, 4), (1, 3)):
        means = torch.randn(count, dims, generator=g, dtype=torch.float64)
        roots = torch.randn(count, dims, dims, generator=g, dtype=torch.float64)
        covariances = roots @ roots.mT + 0.5 * torch.eye(dims, dtype=torch.float64)
        result = answer(means, covariances)
        _expect(isinstance(result, (tuple, list)) and len(result) == 2, "return the pair (mean, covariance)")
        mean = _tensor(result[0], (dims,), f"the mean of {count} experts in {dims} dimensions")
        covariance = _tensor(result[1], (dims, dims), f"the covariance of {count} experts in {dims} dimensions")
        _check_full(mean, covariance, means, covariances)


def _check_full(mean: Tensor, covariance: Tensor, means: Tensor, covariances: Tensor) -> None:
    precisions = torch.linalg.inv(covariances)
    precision = precisions.sum(0)
    wanted = torch.linalg.inv(precision)
    diagonal = 1 / (1 / covariances.diagonal(dim1=-2, dim2=-1)).sum(0)
    if not _same(covariance, wanted):
        _expect(not _same(covariance, precision), "this is the precision matrix; the covariance is wanted")
        _expect(not _same(covariance, torch.diag(diagonal)), "this treats each dimension alone; the off-diagonal entries count too")
        _expect(not _same(covariance, covariances.sum(0)), "covariances do not add up when densities are multiplied; which matrices do?")
        _expect(not _same(covariance, 1 / precision), "invert the matrix, not each of its entries")
        raise NotYet("the covariance is not right; write the density in its natural form, with matrices, and add")
    if not _same(mean, wanted @ torch.einsum("mij,mj->i", precisions, means)):
        _expect(not _same(mean, means.mean(0)), "the mean is the plain average; weigh each expert by its precision matrix")
        raise NotYet("the covariance is right, the mean is not; add the vectors precision times mean, then undo the total precision")


# ---------------------------------------------------------------- MVAE on image and label


@exercise("mvae-precision")
def _(answer: Callable[[Tensor | None, Tensor | None], Tensor]) -> None:
    g = torch.Generator().manual_seed(0)
    image, label = torch.rand(2, 3, 4, generator=g, dtype=torch.float64) * 5
    cases = {"both": (image, label), "the image alone": (image, None), "the label alone": (None, label)}
    for given, (a, b) in cases.items():
        votes = sum(t for t in (a, b) if t is not None)
        _check_precision(_tensor(answer(a, b), (3, 4), f"given {given}, the precision"), votes, given)
    nothing = torch.as_tensor(answer(None, None)).double()
    _expect(bool((nothing != 0).all()), "given nothing, the precision is not zero; what do you know before you look?")
    _expect(bool((nothing == 1).all()), "given nothing, the posterior is the prior N(0, 1)")


def _check_precision(found: Tensor, votes: Tensor, given: str) -> None:
    if _same(found, 1 + votes):
        return
    _expect(not _same(found, votes), f"given {given}, the prior has no vote; it is an expert too")
    _expect(not _same(found, 2 + votes), f"given {given}, there is one prior too many: either it is counted again, or a missing modality gets votes")
    _expect(not _same(found, 1 / (1 + votes)), f"given {given}, this is the variance; the precision is wanted")
    raise NotYet(f"given {given}, the precision is not right; add the votes of all experts that are there")


def _image_label_model(seed: int) -> tuple[MVAE, Tensor]:
    """A small MVAE with random weights in double precision, and four random images."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = MVAE(
            encoders={"image": image_encoder(3, (8,)), "label": label_encoder(3, hidden=(8,))},
            decoders={"image": image_decoder(3, (8,)), "label": label_decoder(3, hidden=(8,))},
            likelihoods={"image": BernoulliLikelihood(), "label": CategoricalLikelihood()},
            latent_dim=3,
            weights={"label": 10.0},
        )
        return model.double(), torch.rand(4, 1, 28, 28, dtype=torch.float64)


@exercise("mvae-label-by-bound")
def _(answer: Callable[[MVAE, Tensor, Tensor], Tensor]) -> None:
    model, images = _image_label_model(0)
    noise = torch.randn(10, 4, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    with torch.no_grad():
        found = answer(model, images, noise)
        _expect(not isinstance(found, Tensor) or tuple(found.shape) != (10, 4), "the shape is [10, n]; one row per image is wanted, [n, 10]")
        found = _tensor(found, (4, 10), "the bounds of 4 images")
        picture, label, divergence = (torch.empty(4, 10, dtype=torch.float64) for _ in range(3))
        for c in range(10):
            y = torch.eye(10, dtype=torch.float64)[[c] * 4]
            q = model.posterior({"image": images, "label": y})["shared"]
            z = q.mean + q.std * noise[c]
            picture[:, c], label[:, c] = model.log_px("image", z, images), model.log_px("label", z, y)
            divergence[:, c] = kl(q, model.prior(4))
    wanted = picture + label - divergence
    if _same(found, wanted):
        return
    _expect(not _same(found, -wanted), "this is the loss; the bound has the other sign")
    _expect(not _same(found, picture + 10 * label - divergence), "the label's term is weighted; a bound has no weights")
    _expect(not _same(found, picture + label), "the divergence from the prior is missing")
    _expect(not _same(found, picture - divergence), "the label's own term is missing")
    _expect(not _same(found, wanted.softmax(1)), "these are probabilities; return the bounds themselves")
    raise NotYet("the bounds are not right; is z drawn from the posterior of image and label, with the noise of that label?")


@exercise("mvae-count")
def _(answer: Callable[[int, int], Sequence[float]]) -> None:
    for modalities, extra in ((2, 0), (2, 1), (3, 1), (5, 2), (19, 1)):
        drawn = extra if modalities > 2 else 0
        wanted = (1 + modalities + drawn, modalities, 2 * modalities + drawn * (modalities + 1) / 2)
        found = answer(modalities, extra)
        _expect(isinstance(found, Sequence) and len(found) == 3, "return three numbers: bounds, encodings, decodings")
        numbers = [_number(v, what) for v, what in zip(found, ("bounds", "encodings", "decodings"))]
        given = f"for {modalities} modalities and {extra} random sets"
        _expect(modalities > 2 or not extra or numbers[0] == wanted[0], f"{given}: which sets have at least two members and leave one out?")
        _expect(numbers[0] == wanted[0], f"{given}: the number of bounds is not right; count the full set, the single ones, the random ones")
        _expect(numbers[1] == wanted[1], f"{given}: the number of encodings is not right; can an expert be used in several sets?")
        _expect(_near(numbers[2], wanted[2], 1e-9), f"{given}: the number of decodings is not right; each set rebuilds its own members, and a random size is uniform from 2 to M - 1")


@exercise("mvae-prior-twice")
def _(answer: Callable[[list[Normal]], Normal]) -> None:
    experts = LG3.experts(LG3_OBSERVATION)
    for chosen in ((0,), (1,), (0, 1), (0, 1, 2)):
        exact = LG3.posterior({m: LG3_OBSERVATION[m] for m in chosen})
        q = answer([experts[m] for m in chosen])
        _expect(isinstance(q, Normal), f"wanted a Normal, found {type(q).__name__}")
        T, count = float(q.precision), len(chosen)
        extra = T - float(exact.precision)
        what = f"with {count} expert{'s' * (count > 1)}"
        _expect(not _near(extra, float(count)), f"{what} the prior is still counted {count + 1} times")
        _expect(not _near(extra, count - 1.0) or count == 1, f"{what} the prior is counted {count} times; it belongs to the product, not to each expert")
        _expect(not _near(extra, -1.0), f"{what} the prior is gone altogether")
        _expect(_near(T, float(exact.precision), 1e-6), f"{what} the precision is {T:.4g}, which is not the exact posterior's")
        _expect(_near(float(q.mean), float(exact.mean), 1e-6), f"{what} the precision is right, the mean is not")


@exercise("mvae-weight")
def _(answer: Callable[[float], Sequence[float]]) -> None:
    for weight in (10.0, 0.5, 50.0, 1.0):
        found = answer(weight)
        _expect(isinstance(found, Sequence) and len(found) == 2, "return the pair (precision, mean)")
        T, mean = (_number(v, what) for v, what in zip(found, ("precision", "mean")))
        given, wanted = f"for a weight of {weight:g}", 2 + 4 * weight
        if _near(T, wanted, 1e-6):
            _expect(_near(mean, (1 + 3 * weight) / wanted, 1e-6), f"{given} the precision is right, the mean is not")
            continue
        _expect(not _near(T, 6.0), f"{given} the precision has not moved; does q not gain by listening to the weighted modality?")
        _expect(not _near(T, 2 + 4 * weight**2), f"{given} the precision moves too much; the weight enters once, in front of the logarithm")
        _expect(not _near(T, 1 + 5 * weight), f"{given} both modalities are weighted, and only the second should be")
        raise NotYet(f"{given} the precision is not right; a power of a Gaussian is a Gaussian, with which precision?")
