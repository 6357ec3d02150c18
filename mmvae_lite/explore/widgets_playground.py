"""Gaussian experts on one axis."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import traitlets

from . import static
from .widgets_base import BadInput, Explorer, check_length, finite

FORMS = ("product", "prior", "quotient", "mixture")
PRECISION_RANGE = (2.0**-4, 2.0**6)


class ExpertPlayground(Explorer):
    """Two or three Gaussian experts on one axis and the three ways to multiply them, or their mixture.

    Args:
        means, precisions: one number per expert. Precisions lie in [1/16, 64].
        form: "product" (prod q_m), "prior" (p prod q_m), "quotient" (prod q_m / p^(|S|-1)) with the prior N(0, 1), or
            "mixture" (the mean of the q_m, the prior where nobody is there); see `mmvae_lite.experts`.
        present: which experts are there; an absent one is a missing modality.
        labels: names of the experts.
        truth: the exact posterior to compare with, as `(mean, precision)` when all experts are
            present, or as a mapping from the indices of the present experts, such as `(0, 2)`, to
            such a pair.

    `means`, `precisions`, `present` and `form` follow the page and can be set from Python.

    Raises:
        BadInput: a ValueError that names the argument.
    """

    TAG = "expert-playground"
    KEYS = ("means", "precisions", "present", "form")
    means = traitlets.List(traitlets.Float()).tag(sync=True)
    precisions = traitlets.List(traitlets.Float()).tag(sync=True)
    present = traitlets.List(traitlets.Bool()).tag(sync=True)
    form = traitlets.Unicode("product").tag(sync=True)

    def __init__(
        self,
        means: Sequence = (1.0, -1.0),
        precisions: Sequence = (2.0, 0.5),
        form: str = "product",
        present: Sequence | None = None,
        labels: Sequence[str] | None = None,
        truth: tuple | Mapping | None = None,
    ) -> None:
        self._count = len(means)
        if self._count not in (2, 3):
            raise BadInput(f"means: the playground shows 2 or 3 experts, not {self._count}.")
        names = [f"expert {m + 1}" for m in range(self._count)] if labels is None else [str(label) for label in labels]
        check_length("labels", names, self._count)
        super().__init__(
            means=[float(mean) for mean in means],
            precisions=[float(precision) for precision in precisions],
            present=[True] * self._count if present is None else [bool(here) for here in present],
            form=form,
            options={
                "labels": names,
                "limit": max(3, math.ceil(max(abs(mean) for mean in means))) if finite(means) else 3,
                "truth": _subsets(truth, self._count),
            },
        )

    @traitlets.validate("means")
    def _valid_means(self, proposal):
        check_length("means", proposal.value, self._count)
        if not finite(proposal.value):
            raise BadInput(f"means: every mean must be a finite number, found {proposal.value}.")
        return proposal.value

    @traitlets.validate("precisions")
    def _valid_precisions(self, proposal):
        low, high = PRECISION_RANGE
        check_length("precisions", proposal.value, self._count)
        if not all(low <= precision <= high for precision in proposal.value):
            raise BadInput(f"precisions: every precision must lie in [{low:g}, {high:g}], found {proposal.value}.")
        return proposal.value

    @traitlets.validate("present")
    def _valid_present(self, proposal):
        check_length("present", proposal.value, self._count)
        return proposal.value

    @traitlets.validate("form")
    def _valid_form(self, proposal):
        if proposal.value not in FORMS:
            raise BadInput(f"form: wanted one of {', '.join(FORMS)}, found {proposal.value!r}.")
        return proposal.value

    def _picture(self) -> tuple[str, str, int]:
        state = {key: self.trait_values()[key] for key in (*self.KEYS, "options")}
        result = static.combine(self.means, self.precisions, self.present, self.form)
        kind = "mixture" if self.form == "mixture" else "Gaussian"
        outcome = (
            "The result is no density: its precision is not positive."
            if result is None
            else f"The result is a {kind} with mean {result.mean.item():.2f} and variance {result.var.item():.2f}."
        )
        named = "mixture" if self.form == "mixture" else f"{self.form} form of their product"
        alt = f"Densities of {self._count} Gaussian experts, the prior N(0, 1) and the {named}. {outcome}"
        return static.playground_picture(state, alt), f"{outcome} With JavaScript, this picture has sliders.", self._count


def _subsets(truth, count: int) -> dict[str, list[float]]:
    """The exact posteriors by subset, with keys such as "0,2" for the page."""
    if truth is None:
        return {}
    pairs = truth if isinstance(truth, Mapping) else {tuple(range(count)): truth}
    subsets = {}
    for subset, pair in pairs.items():
        mean, precision = (float(value) for value in pair)
        if not (math.isfinite(mean) and math.isfinite(precision) and precision > 0):
            raise BadInput(f"truth: wanted (mean, positive precision), found {tuple(pair)}.")
        if any(m not in range(count) for m in subset):
            raise BadInput(f"truth: there is no expert {subset} among {count}.")
        subsets[",".join(str(m) for m in sorted(subset))] = [mean, precision]
    return subsets
