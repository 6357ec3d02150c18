"""Checks of the exercises of the chapter on hybrid latents and few labels; see `mmvae_lite.exercises`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from mmvae_lite.distributions import BernoulliLikelihood, CategoricalLikelihood
from mmvae_lite.exercises import NotYet, _expect, _near, _number, _same, _tensor, exercise
from mmvae_lite.information import log_batch_weights
from mmvae_lite.models import DMVAE_L
from mmvae_lite.networks import dmvae_l_networks


def _three(found: object, names: Sequence[str], given: str) -> list[float]:
    _expect(isinstance(found, Sequence) and len(found) == 3, f"return three numbers: {', '.join(names)}")
    return [_number(v, f"{name}, {given}") for v, name in zip(found, names)]


@exercise("hybrid-blocks")
def _(answer: Callable[[Tensor, int], Sequence[float]]) -> None:
    g = torch.Generator().manual_seed(0)
    for size, private in ((2, 1), (4, 2), (5, 3)):
        root = torch.randn(size, size, generator=g, dtype=torch.float64)
        sigma = root @ root.T + 0.3 * torch.eye(size, dtype=torch.float64)
        parts = [sigma[:private, :private], sigma[private:, private:]]
        tc = [0.5 * (s.diagonal().log().sum() - s.logdet()).item() for s in (sigma, *parts)]
        given = f"for {size} coordinates of which {private} are private"
        whole, both, shared = _three(answer(sigma.clone(), private), ("the total correlation", "the sum over blocks", "the mutual information"), given)
        _expect(not _near(whole, -tc[0]), f"{given} the total correlation has the wrong sign; it is never negative")
        _expect(not _near(whole, 2 * tc[0]), f"{given} the total correlation is twice too large; entropies of Gaussians have a half")
        _expect(not _near(whole, -0.5 * sigma.logdet().item()), f"{given} the variances of the coordinates are missing; they are not one here")
        _expect(_near(whole, tc[0]), f"{given} the total correlation is not right; compare the entropies of the coordinates with that of all")
        _expect(_near(both, tc[1] + tc[2]), f"{given} the sum over the two blocks is not right; each needs its own part of the matrix")
        _expect(not _near(shared, both - whole), f"{given} the mutual information has the wrong sign")
        _expect(_near(shared, tc[0] - tc[1] - tc[2]), f"{given} the mutual information is not right; what is left of the whole?")


@exercise("hybrid-weights")
def _(answer: Callable[[int, int], Tensor]) -> None:
    for batch, items in ((2, 10), (5, 1000), (6, 6)):
        given = f"for a batch of {batch} from {items} items"
        found = _tensor(answer(batch, items), (batch, batch), f"{given}, the log-weights")
        wanted = log_batch_weights(batch, items, "unbiased", like=found)
        if torch.allclose(found, wanted, atol=1e-5):
            continue
        _expect(not torch.allclose(found, wanted.exp(), atol=1e-5), f"{given} these are the weights; their logarithms are wanted")
        others = {kind: log_batch_weights(batch, items, kind, like=found) for kind in ("mws", "batch_mean", "probtorch")}
        _expect(not torch.allclose(found, others["mws"], atol=1e-5), f"{given} every item has the same weight 1/(NB); which of them is in the batch for certain?")
        _expect(not torch.allclose(found, others["batch_mean"], atol=1e-5), f"{given} the own item counts 1/B; in the mixture it counts less")
        _expect(not torch.allclose(found, others["probtorch"], atol=1e-5), f"{given} the rows do not add up to one")
        sums = found.exp().sum(1)
        _expect(torch.allclose(sums, torch.ones_like(sums), atol=1e-4), f"{given} a row adds up to {sums[0].item():.4g} instead of one")
        diagonal = found.diagonal().exp()
        _expect(torch.allclose(diagonal, torch.full_like(diagonal, 1 / items), atol=1e-6), f"{given} the weight of the own item is not right")
        raise NotYet(f"{given} the weights of the other items are not right; they share what the own item leaves")


@exercise("hybrid-offset")
def _(answer: Callable[[int, int], Sequence[float]]) -> None:
    for factors, items in ((4, 50_000), (11, 1442), (1, 100)):
        log_n, given = math.log(items), f"for {factors} factor{'s' * (factors > 1)} and {items} items"
        mi, tc, dw = _three(answer(factors, items), ("MI", "TC", "DW"), given)
        _expect(not (factors > 1 and _near(tc, factors * log_n)), f"{given} TC is too large by log N; the joint density has an offset too, of the other sign")
        _expect(not (factors > 1 and _near(tc, -(factors - 1) * log_n)), f"{given} TC has the wrong sign; which density stands below the fraction line?")
        _expect(not _near(mi, -log_n), f"{given} MI has the wrong sign; the aggregate stands below the fraction line")
        _expect(not _near(dw, factors * log_n), f"{given} DW has the wrong sign")
        _expect(_near(mi, log_n), f"{given} MI is not right; by what is one log q too low?")
        _expect(_near(tc, (factors - 1) * log_n), f"{given} TC is not right; count its logarithms of q, with their signs")
        _expect(_near(dw, -factors * log_n), f"{given} DW is not right; the three offsets must cancel")


@exercise("hybrid-count")
def _(answer: Callable[[int], Sequence[int]]) -> None:
    for M in (2.0, 3.0, 5.0):
        given = f"for {M:.0f} modalities"
        terms, encodings, crossings = _three(answer(int(M)), ("the terms", "the encodings", "the crossings"), given)
        _expect(not _near(terms, M * M), f"{given} the joint source is missing")
        _expect(not _near(terms, M + 1), f"{given} these are the sources; each of them explains every modality")
        _expect(_near(terms, M * (M + 1)), f"{given} the number of terms is not right; sources times modalities")
        _expect(not _near(encodings, M * (M + 1)), f"{given} an encoder runs once, its output is used in many terms")
        _expect(_near(encodings, M), f"{given} the number of encodings is not right")
        _expect(not _near(crossings, M * M), f"{given} a modality that explains itself is no crossing")
        _expect(_near(crossings, M * (M - 1)), f"{given} the number of crossings is not right; the joint source is none")


def _small_model() -> tuple[DMVAE_L, Tensor, Tensor]:
    """A DMVAE-L with random weights in double precision, four classes and four random photos."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = DMVAE_L(
            **dmvae_l_networks(private_dim=3, shared=(1, 10), hidden=8),
            likelihoods={"image": BernoulliLikelihood(), "label": CategoricalLikelihood()},
            private_dims={"image": 3, "label": 0}, shared=(1, 10), n_data=100,
        )  # fmt: skip
        return model.double(), torch.tensor([3, 0, 9, 3]), torch.rand(4, 1, 28, 28, dtype=torch.float64)


@exercise("hybrid-style")
def _(answer: Callable[[DMVAE_L, Tensor, Tensor], Tensor]) -> None:
    model, classes, photos = _small_model()
    with torch.no_grad():
        found = _tensor(answer(model, classes, photos), (4, 1, 28, 28), "the pictures")
        q, asked = model.posterior({"image": photos}), F.one_hot(classes, 10).to(photos)
        style, own = q["private/image"].mean, q["shared"].probs.flatten(1)
        names = model.posterior({"label": asked})["shared"].probs.flatten(1)

        def made(shared: Tensor, private: Tensor) -> Tensor:
            return model.decode({"shared": shared, "private/image": private})["image"]

        def vertex(probs: Tensor) -> Tensor:
            return F.one_hot(probs.argmax(-1), 10).to(photos)

        code = vertex(names)
        if _same(found, made(code, style)):
            return
        _expect(not _same(found, made(asked, style)), "the classes of z are not numbered like the labels; ask the label's expert which one is meant")
        _expect(not _same(found, made(names, style)), "these are the probabilities of the classes; take the class that leads")
        _expect(not any(_same(found, made(z, style)) for z in (own, vertex(own))), "the class comes from the photo; it was given")
        _expect(not _same(found, made(code, torch.zeros_like(style))), "the style is the prior's mean; read it from the photos")
        _expect(not _same(found, made(code, style.flip(0))), "the styles belong to other photos")
    raise NotYet("the pictures are not right; are the style's posterior means taken, without a draw?")


@exercise("hybrid-bound")
def _(answer: Callable[[float, float, float, float, float], float]) -> None:
    def kl(m: float, v: float) -> float:
        return 0.5 * (v + m * m - 1 - math.log(v))

    for x, a, s, b, t in ((0.0, 0.0, 1.0, 0.0, 1.0), (1.5, 0.7, 0.4, 0.5, 0.3), (-2.0, 0.5, 0.2, -1.0, 2.0)):
        given = f"for x = {x:g}, a = {a:.3g}, s = {s:.3g}, b = {b:.3g}, t = {t:.3g}"
        found = _number(answer(x, a, s, b, t), f"the term {given}")
        fit = -0.5 * math.log(math.pi) - (x - a - b) ** 2
        wanted = fit - s - t - kl(a, s) - kl(b, t)
        if _near(found, wanted):
            continue
        _expect(not _near(found, fit - kl(a, s) - kl(b, t)), f"{given} the variances of z and z1 are missing in the mean square")
        _expect(not _near(found, fit - s - t - kl(b, t)), f"{given} the private divergence is missing")
        _expect(not _near(found, fit - s - t - kl(a, s)), f"{given} the divergence of the source is missing")
        _expect(not _near(found, fit - s - t), f"{given} both divergences are missing")
        evidence = -0.5 * math.log(5 * math.pi) - x * x / 5
        _expect(found <= evidence + 1e-9, f"{given} {found:.4g} is above the evidence {evidence:.4g}, which no term can be")
        raise NotYet(f"{given} {found:.4g} is not right; is one half taken for the variance of x?")
