"""Explorers without a network: the concrete simplex, the lattice of subsets, bounds as curves, InfoNCE's matrix."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
import traitlets
from torch import Tensor

from mmvae_lite.distributions import Concrete
from mmvae_lite.models.m2vae import omega

from . import static
from .widgets_base import NO_SCRIPT, BadInput, Explorer, as_array, check_length, check_one_of, check_said, finite

SHOWS = ("first", "second", "densities", "classes")
CRITICS = ("optimal", "inner", "cosine")


class ConcreteSimplex(Explorer):
    """A concrete variable of three classes: its density, its draws, and two ways to multiply two of them.

    Args:
        logits: log-probabilities of the first variable, not normalised, [3].  second: of the second.
        temperature: of both, from 0.1 to 3.
        show: "first", "second", "densities" (the product of their densities, which may have no integral) or "classes"
            (the product of their class probabilities, which is what the library takes; see `concrete_product`).
        classes: names of the corners.

    `logits`, `second`, `temperature` and `show` follow the page.  Raises BadInput, a ValueError that names the argument.
    """

    TAG = "concrete-simplex"
    KEYS = ("logits", "second", "temperature", "show")
    logits = traitlets.List(traitlets.Float()).tag(sync=True)
    second = traitlets.List(traitlets.Float()).tag(sync=True)
    temperature = traitlets.Float(0.66).tag(sync=True)
    show = traitlets.Unicode("classes").tag(sync=True)

    def __init__(
        self,
        logits: Sequence = (1.0, 0.0, -1.0),
        second: Sequence = (0.0, 1.5, -1.0),
        temperature: float | int = 0.66,
        show: str = "classes",
        classes: Sequence[str] = ("1", "2", "3"),
    ) -> None:
        check_length("classes", classes, 3)
        super().__init__(
            logits=[float(v) for v in logits], second=[float(v) for v in second], temperature=float(temperature), show=show,
            options={"classes": [str(c) for c in classes]},
        )  # fmt: skip

    @traitlets.validate("logits", "second")
    def _valid_logits(self, proposal):
        check_length(proposal.trait.name, proposal.value, 3)
        if not finite(proposal.value) or max(map(abs, proposal.value)) > 4:
            raise BadInput(f"{proposal.trait.name}: wanted three numbers from -4 to 4, found {proposal.value}.")
        return proposal.value

    @traitlets.validate("temperature")
    def _valid_temperature(self, proposal):
        if not 0.1 <= proposal.value <= 3:
            raise BadInput(f"temperature: wanted 0.1 to 3, found {proposal.value}.")
        return proposal.value

    @traitlets.validate("show")
    def _valid_show(self, proposal):
        check_one_of("show", proposal.value, SHOWS)
        return proposal.value

    def _picture(self) -> tuple[str, str, int]:
        first, second = torch.tensor(self.logits), torch.tensor(self.second)
        logits = {"first": first, "second": second}.get(self.show, first + second)
        draws = Concrete(logits.expand(400, 3), self.temperature).rsample(generator=torch.Generator().manual_seed(0)).reshape(-1, 3).numpy()
        corners = np.array([[40, 250], [320, 20], [600, 250]], dtype=float)
        dots = "".join(f'<circle cx="{x:.0f}" cy="{y:.0f}" r="3"/>' for x, y in draws @ corners)
        probabilities = ", ".join(f"{name} {p:.2f}" for name, p in zip(self.options["classes"], logits.softmax(-1).tolist(), strict=True))
        alt = f"Draws of a concrete variable on a triangle at temperature {self.temperature:g}. Class probabilities: {probabilities}."
        picture = (
            f'<svg role="img" aria-label="{alt}" viewBox="0 0 640 270" width="640" height="270" fill="currentColor">'
            f'<path d="M40,250L320,20L600,250Z" fill="none" stroke="currentColor"/><g opacity="0.45">{dots}</g></svg>'
        )
        return picture, f"{alt} {NO_SCRIPT}", 7


class SubsetLattice(Explorer):
    """The lattice of subsets that M2VAE walks, with the weight of each subset and the terms that a picked one adds.

    Args:
        modalities: how many, 2 to 4.  names: what they are called.
        subset: the one that is picked, as indices; all by default.
        values: subset of indices -> J(S), to be shown with its share of the bound, such as that of a trained model.

    `modalities` and `subset` follow the page.  Raises BadInput, a ValueError that names the argument.
    Source: Korthals et al. (2019); see `mmvae_lite.models.m2vae.omega`.
    """

    TAG = "subset-lattice"
    KEYS = ("modalities", "subset")
    modalities = traitlets.Int(3).tag(sync=True)
    subset = traitlets.List(traitlets.Int()).tag(sync=True)

    def __init__(
        self,
        modalities: int = 3,
        subset: Sequence | None = None,
        names: Sequence[str] = ("a", "b", "c", "d"),
        values: Mapping | None = None,
    ) -> None:
        if len(names) < modalities:
            raise BadInput(f"names: wanted {modalities} of them, found {len(names)}.")
        given = {",".join(map(str, sorted(key))): float(value) for key, value in (values or {}).items()}
        super().__init__(
            modalities=modalities,
            subset=sorted(int(m) for m in (range(modalities) if subset is None else subset)),
            options={"names": [str(name) for name in names], "values": given, "most": min(4, len(names))},
        )

    @traitlets.validate("modalities")
    def _valid_modalities(self, proposal):
        if proposal.value not in (2, 3, 4):
            raise BadInput(f"modalities: wanted 2, 3 or 4, found {proposal.value}.")
        return proposal.value

    @traitlets.validate("subset")
    def _valid_subset(self, proposal):
        chosen = proposal.value
        if not chosen or len(set(chosen)) != len(chosen) or any(m not in range(self.modalities) for m in chosen):
            raise BadInput(f"subset: wanted different modalities from 0 to {self.modalities - 1}, found {chosen}.")
        return sorted(chosen)

    def _picture(self) -> tuple[str, str, int]:
        names, count = self.options["names"], self.modalities
        found, lines = [], ""
        for size in range(1, count + 1):
            level = list(itertools.combinations(range(count), size))
            for n, s in enumerate(level):
                x, y = 320 + 140 * (n - (len(level) - 1) / 2) * (4 / max(4, len(level))), 30 + 70 * (count - size)
                found.append((s, x, y))
                label = "".join(names[m] for m in s)
                lines += f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="middle">{label} {omega(size, count)}</text>'
        edges = "".join(
            f'<path d="M{x},{y + 6}L{u},{v - 16}" stroke="currentColor" opacity="0.3"/>'
            for s, x, y in found for t, u, v in found if len(t) == len(s) - 1 and set(t) < set(s)
        )  # fmt: skip
        weights = "; ".join(f"{size} of {count}: {omega(size, count)}" for size in range(1, count + 1))
        alt = f"The subsets of {count} modalities by size, each with its weight. Weight of a subset of {weights}."
        picture = (
            f'<svg role="img" aria-label="{alt}" viewBox="0 0 640 {30 + 70 * count}" width="640" height="{30 + 70 * count}" '
            f'font-size="14" fill="currentColor">{edges}{lines}</svg>'
        )
        return picture, f"{alt} {NO_SCRIPT}", count


class BoundExplorer(Explorer):
    """Curves over one axis, read at a point that the reader moves: a bound against its number of samples, or any other.

    Args:
        x: the points of the axis, rising.
        curves: name -> values at these points, [points].  Or, with `settings`, [settings, points].
        truth: what the curves are compared with, such as the exact evidence: a number, or one for each setting.
        settings: values of a second slider, such as a weight; `setting` names it.
        axis, value: what the axes mean.  log: whether the axis is logarithmic.
        below: whether the curves are bounds from below, so that their distance to the truth is called a gap.
        alt: what the plot shows, in words.

    `at` and `frame` (indices of the point and of the setting) and `hidden` (names of the curves that are off) follow the page.
    Raises BadInput, a ValueError that names the argument.
    """

    TAG = "bound-explorer"
    KEYS = ("at", "frame", "hidden")
    at = traitlets.Int(0).tag(sync=True)
    frame = traitlets.Int(0).tag(sync=True)
    hidden = traitlets.List(traitlets.Unicode()).tag(sync=True)

    def __init__(
        self,
        x: Tensor | np.ndarray | Sequence,
        curves: Mapping,
        truth: float | int | Sequence | np.ndarray | Tensor | None = None,
        settings: Sequence | None = None,
        axis: str = "K",
        value: str = "nats",
        setting: str = "setting",
        log: bool = False,
        below: bool = True,
        at: int | None = None,
        alt: str = "Bounds over the number of samples.",
    ) -> None:
        points = as_array(x)
        if points.ndim != 1 or len(points) < 2 or not (np.diff(points) > 0).all() or (log and points[0] <= 0):
            raise BadInput(f"x: wanted two or more rising {'positive ' if log else ''}numbers, found {points.tolist()[:6]}.")
        if not curves:
            raise BadInput("curves: give one or more.")
        frames = 1 if settings is None else len(settings)
        table = {}
        for name, given in curves.items():
            values = np.atleast_2d(as_array(given))
            if values.shape != (frames, len(points)) or not np.isfinite(values).all():
                raise BadInput(f"curves[{name!r}]: wanted finite values of shape {(frames, len(points))}, found {values.shape}.")
            table[str(name)] = [[float(f"{v:.6g}") for v in row] for row in values]
        exact = None if truth is None else np.broadcast_to(as_array(truth), frames).tolist()
        if exact is not None and not finite(exact):
            raise BadInput(f"truth: wanted finite numbers, found {exact}.")
        self._points, self._frames = len(points), frames
        super().__init__(
            options={
                "x": points.tolist(), "curves": table, "truth": exact, "settings": None if settings is None else [float(s) for s in settings],
                "axis": axis, "value": value, "setting": setting, "log": log, "below": below, "alt": check_said(alt),
            },
            at=len(points) // 2 if at is None else at,
        )  # fmt: skip

    @traitlets.validate("at", "frame")
    def _valid_index(self, proposal):
        most = self._points if proposal.trait.name == "at" else self._frames
        if not 0 <= proposal.value < most:
            raise BadInput(f"{proposal.trait.name}: wanted 0 to {most - 1}, found {proposal.value}.")
        return proposal.value

    @traitlets.validate("hidden")
    def _valid_hidden(self, proposal):
        for name in proposal.value:
            check_one_of("hidden", name, list(self.options.get("curves", proposal.value)))
        return proposal.value

    def _picture(self) -> tuple[str, str, int]:
        options = self.options
        curves = {name: np.array(rows[self.frame]) for name, rows in options["curves"].items()}
        if options["truth"] is not None:
            curves["exact"] = np.full(self._points, options["truth"][self.frame])
        last = ", ".join(f"{name} {values[-1]:.3f}" for name, values in curves.items())
        x = np.log(options["x"]) if options["log"] else np.array(options["x"])
        alt = f"{options['alt']} At {options['axis']} {options['x'][-1]:g}: {last}."
        picture = static.chart(x, curves, alt, f"log {options['axis']}" if options["log"] else options["axis"])
        return picture, f"{alt} {NO_SCRIPT}", 1 + (options["settings"] is not None) + math.ceil(len(curves) / 4)


class InfonceMatrix(Explorer):
    """Scores of every pair in a batch of correlated Gaussians, the InfoNCE bound that they give, and its ceiling log K.

    Args:
        correlation: of each of the `dims` pairs of coordinates, 0 to 0.99.
        items: K, the batch, one of 2, 4, 8, 16, 32, 64.
        temperature: divides the scores.
        critic: "optimal" (the log density ratio), "inner" (the inner product) or "cosine" (of normalised codes).
        dims: coordinates of a code, 1 to 8.

    `correlation`, `items`, `temperature` and `critic` follow the page.  Raises BadInput, a ValueError that names the argument.
    Source: van den Oord et al. (2018); see `mmvae_lite.information.info_nce`.
    """

    TAG = "infonce-matrix"
    KEYS = ("correlation", "items", "temperature", "critic")
    correlation = traitlets.Float(0.9).tag(sync=True)
    items = traitlets.Int(16).tag(sync=True)
    temperature = traitlets.Float(1.0).tag(sync=True)
    critic = traitlets.Unicode("optimal").tag(sync=True)

    def __init__(self, correlation: float | int = 0.9, items: int = 16, temperature: float | int = 1.0, critic: str = "optimal", dims: int = 4) -> None:
        if dims not in range(1, 9):
            raise BadInput(f"dims: wanted 1 to 8, found {dims}.")
        super().__init__(
            correlation=float(correlation), items=int(items), temperature=float(temperature), critic=critic, options={"dims": int(dims)}
        )

    @traitlets.validate("correlation", "temperature")
    def _valid_number(self, proposal):
        low, high = {"correlation": (0.0, 0.99), "temperature": (0.05, 5.0)}[proposal.trait.name]
        if not low <= proposal.value <= high:
            raise BadInput(f"{proposal.trait.name}: wanted {low:g} to {high:g}, found {proposal.value}.")
        return proposal.value

    @traitlets.validate("items")
    def _valid_count(self, proposal):
        check_one_of("items", proposal.value, (2, 4, 8, 16, 32, 64))
        return proposal.value

    @traitlets.validate("critic")
    def _valid_critic(self, proposal):
        check_one_of("critic", proposal.value, CRITICS)
        return proposal.value

    def _picture(self) -> tuple[str, str, int]:
        r, dims = self.correlation, self.options["dims"]
        a, b = torch.randn(2, self.items, dims, generator=torch.Generator().manual_seed(0))
        b = r * a + math.sqrt(1 - r * r) * b
        scores = a @ b.T
        shown = ((scores - scores.min()) / (scores.max() - scores.min())).numpy()
        shown = np.repeat(np.repeat(shown, 288 // self.items, 0), 288 // self.items, 1)
        exact = -0.5 * dims * math.log(1 - r * r)
        alt = (
            f"Inner products of {self.items} codes with their partners, partners on the diagonal. The mutual information is {exact:.2f} nats, "
            f"InfoNCE cannot exceed log {self.items}, which is {math.log(self.items):.2f}."
        )
        return static.grid_picture(shown[None, None, None], alt, scale=1), f"{alt} {NO_SCRIPT}", 3
