"""Trained models that ship, each with an exhibit: what it makes of held-out items, and never the items.

`ship` turns a finished run into files of `mmvae_lite.pretrained`, and `load_pretrained` turns them into a model again.
Neither the model nor the exhibit needs the data that they came from.
"""

from __future__ import annotations

import copy
import itertools
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from mmvae_lite.checks import check_name
from mmvae_lite.data.parts import MultimodalSet, Part
from mmvae_lite.distributions import Concrete, Laplace, Normal
from mmvae_lite.evaluation._common import at_rest
from mmvae_lite.experiments import EXPERIMENTS, find
from mmvae_lite.experiments.exporting import to_means
from mmvae_lite.experiments.running import Run, train
from mmvae_lite.experts import Mixture
from mmvae_lite.pretrained import BadWeights, cards, load_tensors, save_tensors
from mmvae_lite.results import read_result

MODEL, EXHIBIT = "model-", "exhibit-"
EACH = 20  # held-out items of a class
EXHIBIT_BYTES = 300_000
Subset = tuple[str, ...]


class NotShipped(nn.Module):
    """Stands where a network was that no page needs."""

    def __init__(self, name: str, experiment: str) -> None:
        super().__init__()
        self.name, self.experiment = name, experiment

    def forward(self, *_: object, **__: object) -> Tensor:
        raise RuntimeError(f"{self.experiment}: its network {self.name!r} does not ship, {how_to_train(self.experiment)}")


def how_to_train(experiment: str) -> str:
    return f"train it yourself: mmvae train {experiment} --profile lite"


@dataclass(frozen=True)
class Exhibit:
    """What a model makes of held-out items, some of each class, which themselves are not kept.

    Item by item the classes take turns: the first ten items of ten classes have one of each.

    classes: the class of each item, or None where there are none.  facts: what else is known of each item, such as the
    speaker of a spoken digit.  reconstructions: modality -> means decoded from what the model infers from everything (a
    mixture: from this modality alone), [first items, *event], for as many of the first items as there was room for.
    """

    classes: Int[Tensor, "items"] | None
    facts: Mapping[str, Tensor]
    reconstructions: Mapping[str, Float[Tensor, "shown *event"]]
    posteriors: Mapping[Subset, Mapping[str, Normal | Laplace | Concrete]] = field(repr=False)
    card: Mapping[str, object] = field(repr=False)

    def __len__(self) -> int:
        return int(self.card["items"])

    @property
    def given(self) -> tuple[Subset, ...]:
        """The sets of modalities that latents were inferred from."""
        return tuple(self.posteriors)

    def posterior(self, *given: str) -> dict[str, Normal | Laplace | Concrete]:
        """Latent -> its posterior given these modalities, all items at once; without a name given all modalities.

        Raises KeyError for modalities that the exhibit does not have together.
        """
        wanted = next((s for s in self.given if set(s) == set(given)), given) if given else self.given[-1]
        check_name("set of modalities", "+".join(wanted), ["+".join(s) for s in self.given])
        return dict(self.posteriors[wanted])

    def latents(self, *given: str) -> dict[str, Tensor]:
        """Latent -> the mean of its posterior, class probabilities where it is discrete: what `decode` of the model reads."""
        return {name: q.probs.flatten(1) if isinstance(q, Concrete) else q.mean for name, q in self.posterior(*given).items()}


@dataclass(frozen=True)
class Pretrained:
    """A model as it was trained by a run: in evaluation mode, on the CPU, its weights fixed."""

    model: nn.Module
    card: Mapping[str, object]
    folder: Path | None = field(default=None, repr=False)

    @cached_property
    def exhibit(self) -> Exhibit:
        """Raises BadWeights where it is missing or broken."""
        return load_exhibit(str(self.card["experiment"]), self.folder)

    def decoders(self) -> dict[str, nn.Sequential]:
        """Modality -> the decoder from latents to means, as explorers take them."""
        return to_means(self.model)


def shipped(folder: str | os.PathLike | None = None) -> tuple[str, ...]:
    """The experiments that `load_pretrained` knows."""
    return tuple(name.removeprefix(MODEL) for name in cards(folder) if name.startswith(MODEL))


def load_pretrained(experiment: str, folder: str | os.PathLike | None = None) -> Pretrained:
    """The model of an experiment with the weights that ship, its card and its exhibit.  No data are needed.

    Networks that do not ship raise RuntimeError when they are called.
    Raises KeyError for an unknown experiment, FileNotFoundError where nothing of it ships, BadWeights for broken files.
    """
    if experiment.partition("--")[0] not in EXPERIMENTS:
        find(experiment)
    known = shipped(folder)
    if experiment not in known:
        others = f"; what ships: {', '.join(known)}" if known else ""
        raise FileNotFoundError(f"{experiment}: no weights of it ship with this version, {how_to_train(experiment)}{others}")
    tensors, card = load_tensors(MODEL + experiment, folder)
    run = Run(find(card["experiment"], **card["options"]), card["profile"], card["seed"])
    model = run.experiment.untrained(run.profile, blank(card["built_for"]), run.seed)
    _drop(model, set(card["networks"]), experiment)
    wanted, found = ({k: tuple(x.shape) for k, x in held.items()} for held in (model.state_dict(), tensors))
    if wanted != found:
        other = sorted(k for k in wanted.keys() | found.keys() if wanted.get(k) != found.get(k))[0]
        raise BadWeights(f"weights {experiment!r}: {other} is {found.get(other, 'missing')}, the model's is {wanted.get(other, 'missing')}; ship the run again")
    model.load_state_dict(tensors)
    return Pretrained(model.eval().requires_grad_(False), card, Path(folder) if folder else None)


def load_exhibit(experiment: str, folder: str | os.PathLike | None = None) -> Exhibit:
    """The exhibit of an experiment.  Raises as `load_weights`."""
    tensors, card = load_tensors(EXHIBIT + experiment, folder)
    held: dict[str, dict[str, Tensor]] = {}
    for key, x in tensors.items():
        kind, _, rest = key.partition(":")
        held.setdefault(kind, {})[rest] = x
    posteriors = {}
    for given in card["given"]:
        q = {}
        for latent, about in card["latents"].items():
            place = f"{'+'.join(given)}:{latent}"
            parts = [held[kind][place].float() for kind in ("mean", "logvar") if place in held.get(kind, {})]
            q[latent] = _density(about, parts, card["items"])
        posteriors[tuple(given)] = q
    shown = {m: _unpacked(x, card["ranges"].get(m)) for m, x in held.get("reconstruction", {}).items()}
    classes = held.get("classes", {}).get("")
    return Exhibit(None if classes is None else classes.long(), held.get("fact", {}), shown, posteriors, card)


def ship(run: Run, networks: Sequence[str] | None = None, limit: int = 2_000_000, folder: str | os.PathLike | None = None) -> tuple[Path, Path]:
    """Write the weights of a finished run and its exhibit, each with a card; returns the paths of the cards.

    networks: which of the model's (`decoders`, `encoders`, `joint_encoder`, ...) ship; all of them where they take at most
        `limit` bytes, else its decoders alone.
    Raises ValueError for a run that is not finished or was not measured, and for a network that the model does not have;
    nothing is written then.
    """
    title, data = run.title, run.experiment.data(run.profile, run.seed)
    settings, at = run.experiment.training(run.profile, data, run.seed), run.progress()
    again = f"run mmvae reproduce {run.experiment.name} --profile {run.profile} --seed {run.seed}"
    if settings is None:
        raise ValueError(f"{title}: it trains no model; there is nothing to ship")
    if at is None or at["epoch"] < settings.epochs:
        found = f"{at['epoch']} of {settings.epochs} epochs are trained" if at else f"no checkpoint is found at {run.checkpoint}"
        raise ValueError(f"{title}: {found}; {again}")
    result = run.result()
    if result is None:
        raise ValueError(f"{title}: no result file is found; {again}")
    model = train(run, "cpu", progress=False).model.eval()
    return _write(run, model, data, settings.corrupt, read_result(result), networks, limit, folder)


def _write(run, model, data, corrupt, record, networks, limit, folder) -> tuple[Path, Path]:
    for x in itertools.chain(model.parameters(), model.buffers()):  # the exhibit is that of the weights that ship
        if x.is_floating_point():
            x.data = x.data.half().to(x.dtype)
    children = {name for name, _ in model.named_children()}
    for name in networks or ():
        check_name(f"network of {run.experiment.name}", name, children)
    size = 2 * sum(x.numel() for x in model.state_dict().values())
    kept = sorted(set(networks) if networks else children if size <= limit else children & {"decoders", "decoder"})
    if not {"decoders", "decoder"} & set(kept):
        raise ValueError(f"{run.title}: networks are {', '.join(kept)}, wanted its decoders among them")
    base = run.experiment.name.partition("--")[0]
    usual = EXPERIMENTS[base].options() if base in EXPERIMENTS else {}
    options = {k: v for k, v in run.experiment.options().items() if k in usual and usual[k] != v}
    about = {
        "experiment": base, "options": options, "profile": run.profile, "source": run.experiment.source, "paper": run.experiment.paper,
        "data": data.description, "stand_in": data.stand_in, "items": len(data.train), "seed": run.seed, "minutes": record["minutes"],
        "device": record["device"], "trained_with": record["commit"],
    }  # fmt: skip
    tensors, exhibit = _exhibit(model, data, corrupt)
    small = copy.deepcopy(model)
    _drop(small, set(kept), base)
    metrics = {name: m for name, m in record["metrics"].items() if "n" in m}
    weights = save_tensors(MODEL + base, small.state_dict(), {
        **about, "what": f"{type(model).__name__} of {run.experiment.source}, profile {run.profile}.", "networks": kept,
        "network": f"load_pretrained({base!r})", "built_for": _shapes(data.train), "metrics": metrics,
    }, folder)  # fmt: skip
    shown = save_tensors(EXHIBIT + base, tensors, {
        **about, **exhibit, "what": f"What {type(model).__name__} of {run.experiment.source} makes of held-out items, which are not kept.",
        "network": f"load_pretrained({base!r}).exhibit", "of": MODEL + base,
    }, folder)  # fmt: skip
    return weights, shown


def _shapes(part: Part) -> dict[str, object]:
    return {"items": len(part), "shapes": {m: list(x.shape[1:]) for m, x in part.batch.items()}, "words": dict(part.words)}


def blank(about: Mapping[str, object]) -> MultimodalSet:
    """A set of empty items with the shapes of the one that a model was built for; it takes no memory."""
    items, words = about["items"], dict(about["words"])
    zero = {m: torch.zeros((), dtype=torch.long if m in words else torch.uint8) for m in about["shapes"]}
    part = Part({m: zero[m].expand(items, *shape) for m, shape in about["shapes"].items()}, words=words)
    return MultimodalSet("blank", "empty items", True, part, part, part)


def _drop(model: nn.Module, kept: set[str], experiment: str) -> None:
    """Put `NotShipped` in the place of all networks but these."""
    for name, child in list(model.named_children()):
        if name in kept:
            continue
        if isinstance(child, nn.ModuleDict):
            setattr(model, name, nn.ModuleDict({key: NotShipped(f"{name}.{key}", experiment) for key in child}))
        else:
            setattr(model, name, NotShipped(name, experiment))


# The exhibit ------------------------------------------------------------------------------------------


def held_out(part: Part, each: int = EACH) -> Int[Tensor, "items"]:
    """So many tuples of each class, evenly from all of its tuples, the classes in turn; of a set without classes ten times as many."""
    if part.classes is None:
        return torch.linspace(0, len(part) - 1, min(10 * each, len(part))).round().long()
    rows = [(part.classes == k).nonzero().flatten() for k in part.classes.unique()]
    taken = [r[torch.linspace(0, len(r) - 1, min(each, len(r))).round().long()] for r in rows]
    return torch.tensor([row for turn in itertools.zip_longest(*(t.tolist() for t in taken)) for row in turn if row is not None])


def _exhibit(model: nn.Module, data: MultimodalSet, corrupt) -> tuple[dict[str, Tensor], dict[str, object]]:
    part, rows = data.test, held_out(data.test)
    tensors = {} if part.classes is None else {"classes:": part.classes[rows].to(torch.uint8)}
    tensors |= {f"fact:{name}": x[rows] for name, x in part.facts.items() if x[rows].numel() <= 4 * len(rows)}
    latents: dict[str, dict[str, object]] = {}
    shown: dict[str, Tensor] = {}
    given = []
    with at_rest(model) as like:
        clean = {m: x.to(like) for m, x in part.take(rows).items()}
        seen = corrupt(clean, torch.Generator().manual_seed(0)) if corrupt else clean
        for subset in _subsets(list(clean)):
            try:
                found = model.posterior({m: seen[m] for m in subset})
            except NotImplementedError:
                continue
            found = {name: q.experts[0] if isinstance(q, Mixture) and len(q.experts) == 1 else q for name, q in found.items()}
            if any(isinstance(q, Mixture) for q in found.values()):
                continue
            given.append(list(subset))
            for name, q in found.items():
                latents[name] = _about(q)
                tensors |= {f"{kind}:{'+'.join(subset)}:{name}": x for kind, x in _numbers(q).items()}
            if len(subset) == len(clean) or not shown:
                shown = _decoded(model, found, seen) or shown
    room = EXHIBIT_BYTES - 5_000 - sum(x.numel() * (2 if x.is_floating_point() else x.element_size()) for x in tensors.values())
    packed = {m: _packed(x) for m, x in shown.items()}
    for m, fits in _fitting({m: (len(x), x[0].numel()) for m, (x, _) in packed.items()}, room).items():
        if fits:
            tensors[f"reconstruction:{m}"] = packed[m][0][:fits].clone()
    ranges = {m: limits for m, (_, limits) in packed.items()}
    return tensors, {"items": len(rows), "given": given, "latents": latents, "ranges": ranges}


def _fitting(sizes: Mapping[str, tuple[int, int]], room: int) -> dict[str, int]:
    """How many items of each modality there is room for: ten of each first, then equal shares of the bytes, small items first.

    sizes: modality -> items and the bytes of one.
    """
    taken = {m: min(10, items) for m, (items, _) in sizes.items()}
    room -= sum(n * sizes[m][1] for m, n in taken.items())
    if room < 0:
        return {m: 0 for m in sizes}
    for turn, (m, (items, one)) in enumerate(sorted(sizes.items(), key=lambda entry: entry[1][1])):
        more = min(items - taken[m], room // (len(sizes) - turn) // one)
        taken[m], room = taken[m] + more, room - more * one
    return taken


def _subsets(modalities: Sequence[str]) -> list[Subset]:
    """Every subset of up to three modalities; of more, single ones, all but one, and all."""
    sizes = range(1, len(modalities) + 1) if len(modalities) <= 3 else sorted({1, len(modalities) - 1, len(modalities)})
    return [s for size in sizes for s in itertools.combinations(modalities, size)]


def _decoded(model: nn.Module, q: Mapping[str, Normal | Laplace | Concrete], seen: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What the decoders make of the posteriors' means; a discrete latent is rounded to its likeliest class."""
    latents = {name: d.mode.flatten(1) if isinstance(d, Concrete) else d.mean for name, d in q.items()}
    if hasattr(model, "modality") and getattr(model, "label", None) in seen:  # a CVAE decodes for a class
        latents[model.label] = seen[model.label]
    return model.decode(latents)


def _about(q: Normal | Laplace | Concrete) -> dict[str, object]:
    if isinstance(q, Concrete):
        return {"family": "concrete", "shape": list(q.logits.shape[1:]), "temperature": float(q.temperature)}
    return {"family": type(q).__name__.lower(), "shape": list(q.mean.shape[1:])}


def _numbers(q: Normal | Laplace | Concrete) -> dict[str, Tensor]:
    """What is kept of a posterior; nothing where it is the prior N(0, I)."""
    if isinstance(q, Concrete):
        return {"mean": q.log_probs.clamp(min=-1e4)}
    logvar = 2 * q.std.log()
    if isinstance(q, Normal) and not bool(q.mean.any()) and not bool(logvar.any()):
        return {}
    return {"mean": q.mean, "logvar": logvar}


def _density(about: Mapping[str, object], parts: Sequence[Tensor], items: int) -> Normal | Laplace | Concrete:
    if about["family"] == "concrete":
        return Concrete(parts[0], about["temperature"])
    mean, logvar = parts or (torch.zeros(items, *about["shape"]),) * 2
    return Laplace(mean, (0.5 * logvar).exp() / math.sqrt(2)) if about["family"] == "laplace" else Normal(mean, logvar)


def _packed(x: Tensor) -> tuple[Tensor, list[float]]:
    """256 levels between the smallest and the largest value; [0, 1] for pictures and probabilities."""
    low, high = (0.0, 1.0) if 0 <= float(x.min()) and float(x.max()) <= 1 else (float(x.min()), float(x.max()))
    return ((x - low) / (high - low) * 255).round().clamp(0, 255).to(torch.uint8), [low, high]


def _unpacked(x: Tensor, limits: Sequence[float]) -> Tensor:
    return limits[0] + x.float() / 255 * (limits[1] - limits[0])
