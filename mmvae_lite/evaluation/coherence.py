"""Coherence: whether what a model generates in several modalities is of one class, as classifiers see it.

Conditional coherence asks whether a translation keeps the class of its input, joint coherence whether the modalities of one
draw agree, leave-one-out coherence does the former with all other modalities as input.  None of them sees a model that
generates too little, so each value comes with what a generator would score that ignores its input, with the number of
classes it generates, and with how much its items vary within a class.  Copies of training items look honest in all of
these; `frechet.copied` finds them.

Sources: Shi et al. (2019), section 4.2; Daunhawer et al. (2021), section 4.1.  Both draw latents, and look at decoder means.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mmvae_lite.checks import check_name, check_positive
from mmvae_lite.data.parts import Part
from mmvae_lite.evaluation._common import Corrupt, at_rest, classes_of, generator_for, in_chunks
from mmvae_lite.evaluation.classifiers import Judge, predict
from mmvae_lite.ex_post import ExPostDensity

AVERAGES = ("micro", "macro", "multivae")
Pairs = Iterable[tuple[Sequence[str], str]]


def conditional_coherence(
    model: Any,
    data: Part,
    judges: Mapping[str, Judge],
    *,
    pairs: Pairs | None = None,
    sample: bool = True,
    average: str = "micro",
    corrupt: Corrupt | None = None,
    classes: int = 10,
    chunk: int = 500,
    seed: int = 0,
) -> dict[str, dict[str, Any]]:
    """How often the class of a translation is that of its input, for each way of translating.

    model: has `modalities` and `translate(batch, to, sample, generator)`.
    data: tuples with their classes.
    judges: modality -> classifier from items to logits; of a one-hot label, `torch.nn.Identity()`.
    pairs: (given modalities, target); by default every one to every other that has a judge.
    sample: latents are drawn, as in both papers (DMVAE-D draws the styles alone); False takes means.
    average: `micro`, the share of all items; `macro`, the mean of the classes' shares; `multivae`, that mean as the package
        MultiVae computes it, where a class without items counts as 0.
    corrupt: as in `fit`, what the model sees of its input; the judges see what it makes.
    classes: how many there are.

    Returns for each pair, called `image->label` or `x1+x2->x3`, a dict of
    `value`, its standard error `se` and the number of items `n`;
    `chance`, the value that the same outputs would score on average in random order: a model that ignores its input has it;
    `effective_classes`, exp of the entropy of the classes it generates, 1 where all are of one class;
    `spread`, the variance within classes over that of real items, 0 where each class is one picture; decoder means
    have less than 1 honestly; `classifier`, the judge's accuracy on the real items; and `average`.

    Raises KeyError for an unknown modality, average or missing judge, ValueError for data without classes.
    """
    check_name("average", average, AVERAGES)
    truth = classes_of(data, "conditional_coherence")
    names = tuple(model.modalities)
    if pairs is None:
        pairs = [((a,), b) for a in names for b in names if a != b and b in judges]
    pairs = [((given,) if isinstance(given, str) else tuple(given), to) for given, to in pairs]
    for given, to in pairs:
        for m in (*given, to):
            check_name("modality", m, names)
        check_name("judge", to, judges)
        if to in given or not given:
            raise ValueError(f"pairs: found {given} -> {to!r}, wanted one or more other modalities as input")
    real = {to: _Spread(classes) for _, to in pairs}
    ability = {to: _ability(data, to, judges[to], truth, real[to], chunk) for to in real}
    results = {}
    for given, to in pairs:
        name = f"{'+'.join(given)}->{to}"
        with at_rest(model) as like:
            generator, found, spread = generator_for(seed, name, like), [], _Spread(classes)
            for rows, batch in in_chunks(data, given, chunk, like):
                made = model.translate(corrupt(batch, generator) if corrupt else batch, to, sample=sample, generator=generator)
                found.append(predict(judges[to], made, chunk).to(truth.device))
                spread.add(made, truth[rows])
        predicted = torch.cat(found)
        results[name] = {
            **agreement(predicted, truth, average, classes),
            "effective_classes": effective_classes(predicted, classes),
            "spread": spread.over(real[to]),
            "classifier": ability[to],
            "average": average,
        }
    return results


def leave_one_out_coherence(model: Any, data: Part, judges: Mapping[str, Judge], **options: Any) -> dict[str, dict[str, Any]]:
    """Conditional coherence with all modalities but the target as input, and its mean over the targets under `mean`.

    `options` are those of `conditional_coherence`.  The mean's `se` treats the targets as if they had other items, `n` is
    that of one.  Source: Daunhawer et al. (2021), section 4.2.
    Raises ValueError for fewer than two modalities.
    """
    names = [m for m in model.modalities]
    if len(names) < 2:
        raise ValueError(f"leave_one_out_coherence: the model has {names}, wanted at least two modalities")
    pairs = [(tuple(a for a in names if a != m), m) for m in names if m in judges]
    results = conditional_coherence(model, data, judges, pairs=pairs, **options)
    each = list(results.values())
    mean = {key: math.fsum(r[key] for r in each) / len(each) for key in ("value", "chance", "effective_classes", "spread", "classifier")}
    se = math.sqrt(math.fsum(r["se"] ** 2 for r in each)) / len(each)
    return {**results, "mean": {**mean, "se": se, "n": each[0]["n"], "average": each[0]["average"]}}


def joint_coherence(
    model: Any,
    data: Part,
    judges: Mapping[str, Judge],
    *,
    n: int = 10_000,
    density: ExPostDensity | None = None,
    classes: int = 10,
    chunk: int = 500,
    seed: int = 0,
) -> dict[str, Any]:
    """The share of joint draws in which the classifiers of all modalities see the same class.

    model: has `sample(n, generator)`, joint draws from its prior.
    data: real tuples with classes, on which the judges are tried.
    n: draws; 10 000 in Shi et al. (2019).
    density: draw the shared latent from this `ExPostDensity` instead, and private latents from N(0, I).

    Returns `value`, `se`, `n`; `chance`, what the modalities would score if each were drawn by itself with the classes that
    it has; `effective_classes` of the draws that agree; `spread`, modality -> variance within the classes seen over that of
    real items; `classifier`, modality -> accuracy on real items; `real`, the share of real tuples on which the judges
    agree.  A model that always draws one class has a value of 1, a chance of 1 and one effective class.

    Raises ValueError for fewer than two judges or data without classes, KeyError for a judge of an unknown modality.
    """
    check_positive("n", n)
    truth = classes_of(data, "joint_coherence")
    if len(judges) < 2:
        raise ValueError(f"joint_coherence: found judges of {sorted(judges)}, wanted at least two modalities that can agree")
    for m in judges:
        check_name("modality", m, data.batch)
    real, seen = {m: _Spread(classes) for m in judges}, {m: _Spread(classes) for m in judges}
    on_real = {m: _of_tuples(data, m, judge, chunk) for m, judge in judges.items()}
    for m in judges:
        real[m].add_rows(data, m, truth, chunk)
    found: dict[str, list[Tensor]] = {m: [] for m in judges}
    with at_rest(model) as like:
        generator = generator_for(seed, "joint", like)
        for start in range(0, n, chunk):
            made = _draw(model, min(chunk, n - start), density, generator)
            for m, judge in judges.items():
                check_name("modality", m, made)
                found[m].append(predict(judge, made[m], chunk).cpu())
                seen[m].add(made[m], found[m][-1])
    predicted = torch.stack([torch.cat(found[m]) for m in judges])
    agreed = (predicted == predicted[0]).all(0)
    value = float(agreed.double().mean())
    shares = torch.stack([torch.bincount(p, minlength=classes).double() / n for p in predicted])
    first, *others = on_real.values()
    return {
        "value": value,
        "se": math.sqrt(value * (1 - value) / n),
        "n": n,
        "chance": float(shares.prod(0).sum()),
        "effective_classes": effective_classes(predicted[0][agreed], classes),
        "spread": {m: seen[m].over(real[m]) for m in judges},
        "classifier": {m: float((p == truth.cpu()).double().mean()) for m, p in on_real.items()},
        "real": float(torch.stack([first == p for p in others]).all(0).double().mean()),
    }


def _draw(model: Any, n: int, density: ExPostDensity | None, generator: torch.Generator) -> dict[str, Tensor]:
    if density is None:
        return model.sample(n, generator=generator)
    c = density.sample(n, generator)
    styles = {f"private/{m}": dim for m, dim in getattr(model, "private_dims", {}).items() if dim}
    drawn = {name: torch.randn(n, dim, dtype=c.dtype, device=c.device, generator=generator) for name, dim in styles.items()}
    return model.decode({"shared": c, **drawn})


def agreement(
    predicted: Int[Tensor, "items"], truth: Int[Tensor, "items"], average: str = "micro", classes: int = 10
) -> dict[str, float]:
    """`value`, `se`, `n` and `chance` of predicted classes; the averages are those of `conditional_coherence`.

    Equations `eq-coherence` and `eq-coherence-chance` of the book.

    Raises KeyError for an unknown average, ValueError for unequal lengths, none, or a class that is not among them.
    """
    check_name("average", average, AVERAGES)
    if len(predicted) != len(truth) or not len(truth):
        raise ValueError(f"agreement: found {len(predicted)} predictions of {len(truth)} items, wanted as many, at least 1")
    if not 0 <= int(truth.min()) <= int(truth.max()) < classes:
        raise ValueError(f"agreement: found classes {int(truth.min())} to {int(truth.max())}, wanted 0 to {classes - 1}")
    truth, n = truth.to(predicted.device), len(truth)
    sizes = torch.bincount(truth, minlength=classes).double().cpu()
    hits = torch.bincount(truth[predicted == truth], minlength=classes).double().cpu()
    shares = torch.bincount(predicted, minlength=classes)[:classes].double().cpu() / n
    rates = hits / sizes.clamp_min(1)
    weights = sizes / n if average == "micro" else (sizes > 0).double() / (classes if average == "multivae" else (sizes > 0).sum())
    value = float((weights * rates).sum())
    if average == "micro":
        variance = value * (1 - value) / n
    else:
        variance = float((weights.square() * rates * (1 - rates) / sizes.clamp_min(1)).sum())
    return {"value": value, "se": math.sqrt(variance), "n": n, "chance": float((weights * shares).sum())}


def effective_classes(predicted: Int[Tensor, "items"], classes: int = 10) -> float:
    """exp of the entropy of the classes' histogram: 1 for one class, `classes` for equal shares, 0 for no item."""
    if not len(predicted):
        return 0.0
    shares = torch.bincount(predicted, minlength=classes).double() / len(predicted)
    return float(torch.special.entr(shares).sum().exp())


def _of_tuples(data: Part, m: str, judge: Judge, chunk: int) -> Int[Tensor, "items"]:
    """What a judge sees in modality m of every real tuple, on the CPU; a row that many tuples share is judged once."""
    seen = predict(judge, data.batch[m], chunk).cpu()
    return seen[data.index[m].cpu()] if m in data.index else seen


def _ability(data: Part, m: str, judge: Judge, truth: Tensor, spread: "_Spread", chunk: int) -> float:
    check_name("modality", m, data.batch)
    spread.add_rows(data, m, truth, chunk)
    return float((_of_tuples(data, m, judge, chunk) == truth.cpu()).double().mean())


class _Spread:
    """Sums from which the variance within classes follows, over items that come in chunks."""

    def __init__(self, classes: int) -> None:
        self.classes, self.count, self.sums, self.squares = classes, torch.zeros(classes, dtype=torch.float64), None, 0.0

    def add(self, x: Float[Tensor, "items ..."], classes: Int[Tensor, "items"]) -> None:
        x = x.detach().flatten(1).double()
        members = torch.nn.functional.one_hot(classes.to(x.device), self.classes).double()
        sums = (members.T @ x).cpu()
        self.sums = sums if self.sums is None else self.sums + sums
        self.count += members.sum(0).cpu()
        self.squares += float(x.square().sum())

    def add_rows(self, data: Part, m: str, truth: Tensor, chunk: int) -> None:
        like = torch.empty(0, device=data.batch[m].device)
        for rows, batch in in_chunks(data, [m], chunk, like):
            self.add(batch[m], truth[rows])

    def variance(self) -> float:
        means = self.sums.square().sum(1) / self.count.clamp_min(1)
        return max(0.0, (self.squares - float(means.sum())) / float(self.count.sum()))

    def over(self, real: "_Spread") -> float:
        """The ratio of two variances; 1 where neither varies, as one-hot labels."""
        a, b = self.variance(), real.variance()
        return a / b if b > 1e-12 else 1.0 if a <= 1e-12 else math.inf
