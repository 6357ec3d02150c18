"""The checks of the chapter on images and words."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from mmvae_lite.exercises import NotYet, _expect, _near, _number, _same, _tensor, exercise


@exercise("words-cosine")
def _(answer: Callable[[Tensor, Tensor], Tensor]) -> None:
    g = torch.Generator().manual_seed(0)
    for n, k, shift in ((5, 3, 0.0), (4, 6, 2.0)):
        a, b = (torch.randn(n, k, generator=g, dtype=torch.float64) + shift for _ in range(2))
        means = (a.mean(0) + 0.3, b.mean(0) - 0.2)
        found = _tensor(answer(a, b, *means), (n,), "the correlation of each pair")
        x, y = a - means[0], b - means[1]
        if _same(found, F.cosine_similarity(x, y, dim=1)):
            continue
        _expect(not _same(found, F.cosine_similarity(a, b, dim=1)), "the means of the training set are not taken off")
        own = F.cosine_similarity(a - a.mean(0), b - b.mean(0), dim=1)
        _expect(not _same(found, own), "these pairs have means of their own; take off those that are given, which come from the training set")
        _expect(not _same(found, (x * y).sum(1)), "the inner product is there; divide by both lengths")
        _expect(not _same(found, (x * y).mean(1)), "the inner product is averaged over the directions; divide by both lengths instead")
        _expect(bool((found.abs() <= 1 + 1e-9).all()), "a cosine lies between minus one and one")
        raise NotYet("the value of a pair is not the cosine between its two rows, each less its mean")


@exercise("words-shuffled")
def _(answer: Callable[[Tensor], float]) -> None:
    g = torch.Generator().manual_seed(1)
    for n in (2, 3, 8):
        cosines = 2 * torch.rand(n, n, generator=g, dtype=torch.float64) - 1 + torch.eye(n, dtype=torch.float64)
        off = (cosines.sum() - cosines.trace()) / (n * n - n)
        wanted = float(cosines.diagonal().mean() - off)
        found = _number(answer(cosines), f"the difference for {n} pairs")
        if _near(found, wanted, 1e-8):
            continue
        _expect(not _near(found, -wanted, 1e-8), "the sign is turned round: the right pairs less the wrong ones")
        _expect(not _near(found, float(cosines.diagonal().mean()), 1e-8), "this is the mean of the right pairs alone")
        _expect(not _near(found, float(off), 1e-8), "this is the baseline; it has to be taken off the mean of the right pairs")
        _expect(not _near(found, float(cosines.diagonal().mean() - cosines.mean()), 1e-8), "the baseline holds the right pairs too; a caption does not count as its own wrong picture")
        raise NotYet(f"for {n} pairs {found:.4g} is not the mean of the diagonal less the mean of what is off it")


def _captions() -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(2)
    logits = torch.randn(4, 6, 9, generator=g, dtype=torch.float64)
    ids = torch.tensor([[3, 4, 2, 1, 1, 1], [5, 0, 6, 7, 2, 1], [8, 3, 3, 4, 5, 2], [2, 1, 1, 1, 1, 1]])
    return logits, ids


@exercise("words-padding")
def _(answer: Callable[[Tensor, Tensor], Tensor]) -> None:
    logits, ids = _captions()
    found = _tensor(answer(logits, ids), (4,), "the log-likelihood of four captions")
    each = logits.log_softmax(-1).gather(2, ids[..., None])[..., 0]
    until = (ids == 2).cumsum(1) - (ids == 2).long() == 0
    if _same(found, (each * until).sum(1)):
        return
    _expect(not _same(found, each.sum(1)), "padding is counted as if somebody had written it")
    _expect(not _same(found, (each * (ids != 0)).sum(1)), "this is what the paper's program does: the rare word is left out and padding is counted; here it is the other way round")
    _expect(not _same(found, (each * (until & (ids != 2))).sum(1)), "the end is a word too: a model that never stops has to pay for it")
    _expect(not _same(found, (each * (until & (ids != 0))).sum(1)), "the rare word is left out; the writer did write something there")
    _expect(not _same(found, (each * until).sum(1) / until.sum(1)), "the mean per word is no log-likelihood of the caption; add")
    _expect(not _same(found, (logits.gather(2, ids[..., None])[..., 0] * until).sum(1)), "logits are no log-probabilities; normalise over the words first")
    raise NotYet("the words up to the end, with it, count; nothing after it does")


@exercise("words-exact")
def _(answer: Callable[[float], dict[str, float]]) -> None:
    for rho in (0.25, 0.64, 0.09):
        wanted = {"truth": rho, "joint": 1.0, "cross": math.sqrt(rho)}
        found = answer(rho)
        given = f"for rho = {rho:g}"
        _expect(isinstance(found, dict) and set(found) == set(wanted), "return a dict with the keys 'truth', 'joint' and 'cross'")
        values = {key: _number(x, f"{given} {key!r}") for key, x in found.items()}
        _expect(_near(values["truth"], rho, 1e-9), f"{given} the correlation of the data is not right; the covariance is that of what is shared, and both variances are one")
        _expect(not _near(values["joint"], rho, 1e-9), f"{given} the joint draw has the noise of the data; the decoders' means have none")
        _expect(_near(values["joint"], 1.0, 1e-9), f"{given} the joint correlation is not right; both means are multiples of one s")
        _expect(not _near(values["cross"], rho, 1e-9), f"{given} the cross correlation has the variance of a real b below the line; the decoder's mean has less")
        _expect(not _near(values["cross"], 1.0, 1e-9), f"{given} that is the cross correlation at the posterior mean; a draw of s is asked for")
        _expect(_near(values["cross"], wanted["cross"], 1e-9), f"{given} the cross correlation is not right; what is the covariance of a with a draw of s given a?")


@exercise("words-lookup")
def _(answer: Callable[[Tensor, Tensor], Tensor]) -> None:
    g = torch.Generator().manual_seed(3)
    for n, many, p in ((12, 30, 5), (9, 20, 2)):
        made, known = torch.randn(n, p, generator=g, dtype=torch.float64), 2 * torch.randn(many, p, generator=g, dtype=torch.float64)
        known[0] = 0.0  # the mean
        found = answer(made, known)
        _expect(isinstance(found, Tensor) and tuple(found.shape) == (n,), f"return one row number for each of {n} vectors")
        distance = torch.cdist(made, known)
        wanted = distance.argmin(1)
        if torch.equal(found.long(), wanted):
            continue
        _expect(not torch.equal(found.long(), distance.argmax(1)), "these are the furthest")
        _expect(bool(((found >= 0) & (found < many)).all()), "a row number points outside the known vectors")
        _expect(not torch.equal(found.long(), (made @ known.T).argmax(1)), "the largest inner product prefers long vectors; take distances")
        _expect(not torch.equal(found.long(), F.cosine_similarity(made[:, None], known[None], dim=2).argmax(1)), "the largest cosine forgets lengths; the paper takes Euclidean distances")
        raise NotYet("a known vector is nearer than the one you chose")
