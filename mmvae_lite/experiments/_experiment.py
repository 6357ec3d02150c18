"""What an experiment is: data, model, training and measurements, each for three sizes."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from mmvae_lite.checks import check_name
from mmvae_lite.data.parts import MultimodalSet, Part
from mmvae_lite.results import PROFILES

Metrics = dict[str, dict[str, float]]
PAPERS = {
    "pvae": "Hsu and Glass 2018, PVAE",
    "dmvae_d": "Daunhawer et al. 2021, DMVAE",
    "dmvae_l": "Lee and Pavlovic 2020, DMVAE",
    "mmvae": "Shi et al. 2019, MMVAE",
    "m2vae": "Korthals et al. 2019, M2VAE",
}


@dataclass(frozen=True)
class Training:
    """Arguments of `fit`; `optimizers` maps the model to its optimisers."""

    epochs: int
    batch_size: int = 100
    lr: float | int = 1e-3
    optimizers: Callable[[nn.Module], dict[str, torch.optim.Optimizer]] | None = None
    step: Callable[..., dict[str, Tensor]] | None = None
    pair: Callable | None = None
    corrupt: Callable | None = None
    schedule: Callable[[nn.Module, float], None] | None = None
    accumulate: int = 1


@dataclass(frozen=True)
class Experiment:
    """One row of a paper's table, or one curve of its figure, at the sizes `smoke`, `lite` and `paper`.

    data: profile, seed -> `MultimodalSet`.  model: profile, data -> a model before training.
    training: profile, data, seed -> `Training`, or None where nothing but the measurement trains.
    measure: model, data, profile, seed -> metrics, each a dict of `value` and the `n` it is a mean of.
    data_name: the data set's name in `mmvae data`.  source: where the paper shows it.  metrics: the names that
    `measure` returns, which a table of results may rely on.  deviations: what the paper profile does otherwise than the paper.
    """

    name: str
    paper: str
    source: str
    data_name: str
    data: Callable[[str, int], MultimodalSet]
    model: Callable[[str, MultimodalSet], nn.Module]
    training: Callable[[str, MultimodalSet, int], Training | None]
    measure: Callable[[nn.Module, MultimodalSet, str, int], Metrics]
    metrics: tuple[str, ...]
    deviations: tuple[str, ...] = ()
    data_options: Mapping[str, object] = field(default_factory=dict)
    maker: Callable[..., Experiment] | None = field(default=None, repr=False)
    arguments: Mapping[str, object] = field(default_factory=dict, repr=False)

    def with_options(self, **options: object) -> Experiment:
        """The same experiment with other settings, under a name that says which; see `options`.

        Raises KeyError for an option that it does not have, ValueError for a value that it cannot have.
        """
        if not options:
            return self
        for key in options:
            check_name(f"option of {self.name}", key, self.options())
            _check_option(f"option {key} of {self.name}", options[key], self.options()[key])
        suffix = "".join(f"--{key}-{_plain(value)}" for key, value in sorted(options.items()))
        arguments = {**self.arguments, **options}
        return replace(self.maker(**arguments), name=self.name + suffix, maker=self.maker, arguments=arguments)

    def options(self) -> dict[str, object]:
        """The settings that may be changed, with their values."""
        if self.maker is None:
            return {}
        defaults = {k: p.default for k, p in inspect.signature(self.maker).parameters.items() if p.kind is p.KEYWORD_ONLY}
        return {**defaults, **{k: v for k, v in self.arguments.items() if k in defaults}}

    def untrained(self, profile: str, data: MultimodalSet, seed: int) -> nn.Module:
        """The model as it starts, drawn from the seed and from nothing else."""
        check_name("profile", profile, PROFILES)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.model(profile, data)


def _check_option(what: str, value: object, usual: object) -> None:
    """Raise ValueError unless the value is a word where the usual one is, else a finite number, whole where that is."""
    if isinstance(usual, str):
        good, wanted = isinstance(value, str), f"a word such as {usual!r}"
    elif isinstance(usual, int):
        good, wanted = isinstance(value, int) and not isinstance(value, bool) and value >= 1, "a whole number of at least 1"
    else:
        good, wanted = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value), "a number"
    if not good:
        raise ValueError(f"{what}: found {value!r}, wanted {wanted}")


def _plain(value: object) -> str:
    """A value as it may stand in the name of a file."""
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text.lower().replace("+", "").replace(" ", "")


def made(maker: Callable[..., Experiment], **arguments: object) -> Experiment:
    """The experiment that `maker` makes of the arguments, which remembers how it was made; its keyword-only ones are options."""
    return replace(maker(**arguments), maker=maker, arguments=arguments)


def shortened(data: MultimodalSet, train: int | None, test: int | None = None) -> MultimodalSet:
    """The set with at most so many tuples to train on and to test with."""
    test = train if test is None else test
    cut = {"train": data.train.first(train)} if train else {}
    cut |= {"test": data.test.first(test)} if test else {}
    if test and data.validation is not None:
        cut["validation"] = data.validation.first(test)
    return replace(data, **cut)


def only(data: MultimodalSet, modalities: Sequence[str]) -> MultimodalSet:
    """The set with some of its modalities."""

    def kept(part: Part | None) -> Part | None:
        chosen = {name: {m: x for m, x in getattr(part, name).items() if m in modalities} for name in ("batch", "index", "words")} if part else {}
        return replace(part, **chosen) if part else None

    return replace(data, train=kept(data.train), test=kept(data.test), validation=kept(data.validation))


def mean_of(hits: Tensor, scale: float | int = 1.0) -> dict[str, float]:
    """The mean of values [items] with their number, for a result file."""
    return {"value": float(hits.double().mean()) * scale, "n": len(hits)}


def generator(seed: int, like: nn.Module | None = None) -> torch.Generator:
    """A generator of the measurement's own draws on the model's device."""
    device = next(like.parameters()).device if like is not None else "cpu"
    return torch.Generator(device).manual_seed(seed)
