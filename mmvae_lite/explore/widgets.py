"""The explorers as widgets: live in JupyterLab, and a static custom element in the book."""

import math
from collections.abc import Mapping, Sequence

import anywidget
import numpy as np
import traitlets
from torch import Tensor, nn

from . import bundle, static
from .export import export_decoders, reference_decode

FORMS = ("product", "prior", "quotient")
PRECISION_RANGE = (2.0**-4, 2.0**6)
STRIP = (-3, -2, -1, 0, 1, 2, 3)
PICTURE_ROWS = 3
SHOWN_DIMS = 8
COLLAPSED = 0.01  # nats; the decoder ignores such a dimension, so its slider would be dead


class BadInput(traitlets.TraitError, ValueError):
    """A value that an explorer cannot show; the message says what it wants."""


class _Explorer(anywidget.AnyWidget):
    """What both explorers share: the second, static form of the output."""

    _css = bundle.stylesheet()

    def static_html(self) -> str:
        """The custom element that the book shows; it needs no kernel."""
        raise NotImplementedError

    def _repr_mimebundle_(self, **kwargs):
        data, metadata = super()._repr_mimebundle_(**kwargs)
        return {**data, "text/html": self.static_html()}, metadata


class ExpertPlayground(_Explorer):
    """Two or three Gaussian experts on one axis and the three ways to multiply them.

    Args:
        means, precisions: one number per expert. Precisions lie in [1/16, 64].
        form: "product" (prod q_m), "prior" (p prod q_m) or "quotient" (prod q_m / p^(|S|-1)),
            with the prior N(0, 1); see `mmvae_lite.experts`.
        present: which experts are there; an absent one is a missing modality.
        labels: names of the experts.
        truth: the exact posterior to compare with, as `(mean, precision)` when all experts are
            present, or as a mapping from the indices of the present experts, such as `(0, 2)`, to
            such a pair.

    `means`, `precisions`, `present` and `form` follow the page and can be set from Python.

    Raises:
        BadInput: a ValueError that names the argument.
    """

    _esm = bundle.module("expert-playground")
    means = traitlets.List(traitlets.Float()).tag(sync=True)
    precisions = traitlets.List(traitlets.Float()).tag(sync=True)
    present = traitlets.List(traitlets.Bool()).tag(sync=True)
    form = traitlets.Unicode("product").tag(sync=True)
    options = traitlets.Dict().tag(sync=True)

    def __init__(
        self,
        means: Sequence[float] = (1.0, -1.0),
        precisions: Sequence[float] = (2.0, 0.5),
        form: str = "product",
        present: Sequence[bool] | None = None,
        labels: Sequence[str] | None = None,
        truth: tuple[float, float] | Mapping[tuple[int, ...], tuple[float, float]] | None = None,
    ) -> None:
        self._count = len(means)
        if self._count not in (2, 3):
            raise BadInput(f"means: the playground shows 2 or 3 experts, not {self._count}.")
        names = [f"expert {m + 1}" for m in range(self._count)] if labels is None else [str(label) for label in labels]
        _check_length("labels", names, self._count)
        super().__init__(
            means=[float(mean) for mean in means],
            precisions=[float(precision) for precision in precisions],
            present=[True] * self._count if present is None else [bool(here) for here in present],
            form=form,
            options={
                "labels": names,
                "limit": max(3, math.ceil(max(abs(mean) for mean in means))) if _finite(means) else 3,
                "truth": _subsets(truth, self._count),
            },
        )

    @traitlets.validate("means")
    def _valid_means(self, proposal):
        _check_length("means", proposal.value, self._count)
        if not _finite(proposal.value):
            raise BadInput(f"means: every mean must be a finite number, found {proposal.value}.")
        return proposal.value

    @traitlets.validate("precisions")
    def _valid_precisions(self, proposal):
        low, high = PRECISION_RANGE
        _check_length("precisions", proposal.value, self._count)
        if not all(low <= precision <= high for precision in proposal.value):
            raise BadInput(f"precisions: every precision must lie in [{low:g}, {high:g}], found {proposal.value}.")
        return proposal.value

    @traitlets.validate("present")
    def _valid_present(self, proposal):
        _check_length("present", proposal.value, self._count)
        return proposal.value

    @traitlets.validate("form")
    def _valid_form(self, proposal):
        if proposal.value not in FORMS:
            raise BadInput(f"form: wanted one of {', '.join(FORMS)}, found {proposal.value!r}.")
        return proposal.value

    def static_html(self) -> str:
        state = {key: self.trait_values()[key] for key in ("means", "precisions", "present", "form", "options")}
        result = static.combine(self.means, self.precisions, self.present, self.form)
        outcome = (
            "The result is no density: its precision is not positive."
            if result is None
            else f"The result is a Gaussian with mean {result.mean.item():.2f} and variance {result.var.item():.2f}."
        )
        alt = f"Densities of {self._count} Gaussian experts, the prior N(0, 1) and the {self.form} form of their product. {outcome}"
        caption = f"{outcome} With JavaScript, this picture has sliders."
        return static.element("expert-playground", state, static.playground_picture(state, alt), caption, self._count)


class LatentExplorer(_Explorer):
    """Sliders over a latent space, decoded in the page.

    Args:
        decoders: "image" -> `nn.Sequential` from [batch, latent] to grey levels in [0, 1], and
            optionally "label" -> `nn.Sequential` to class probabilities. See `export_decoders`.
        latents: where to begin, [latent].
        starts: places to jump to by name, each [latent], such as the posterior mean given a label.
        dims: the dimensions that get a slider; by default the eight with the largest KL, without
            those that have collapsed (a KL below 0.01 nats).
        kl: KL of every dimension in nats, [latent]; sorts the sliders and is shown beside them.
        name: what the weights are called in the book's folder.
        image_shape: (height, width).
        classes: names of the label decoder's outputs; by default their indices.
        alt: what the picture shows, in words.

    `z` (list of floats) and `focus` (the dimension of the film strip) follow the page and can be set
    from Python.

    Raises:
        BadInput: a ValueError that names the argument.
        ValueError: a layer that the page cannot run.
    """

    _esm = bundle.module("latent-explorer")
    spec = traitlets.Dict().tag(sync=True)
    weights = traitlets.Bytes().tag(sync=True)
    options = traitlets.Dict().tag(sync=True)
    z = traitlets.List(traitlets.Float()).tag(sync=True)
    focus = traitlets.Int(0).tag(sync=True)

    def __init__(
        self,
        decoders: Mapping[str, nn.Sequential],
        latents: Tensor | Sequence[float],
        starts: Mapping[str, Tensor | Sequence[float]] | None = None,
        dims: Sequence[int] | None = None,
        kl: Tensor | Sequence[float] | None = None,
        name: str = "decoder",
        image_shape: tuple[int, int] = (28, 28),
        classes: Sequence[str] | None = None,
        alt: str = "Picture decoded from the latent vector.",
    ) -> None:
        z = _vector("latents", latents)
        self._latent = len(z)
        places = {str(key): _vector(f"starts[{key!r}]", value) for key, value in (starts or {}).items()}
        for key, place in places.items():
            _check_length(f"starts[{key!r}]", place, self._latent)
        kls = None if kl is None else _vector("kl", kl)
        if kls is not None:
            _check_length("kl", kls, self._latent)
        shown = _shown_dims(dims, kls, self._latent)
        exported = _export(decoders)
        outputs = _try_decoders(exported, np.array([z]), image_shape)
        names = [str(n) for n in range(outputs)] if classes is None else [str(label) for label in classes]
        _check_length("classes", names, outputs)
        if not alt.strip():
            raise BadInput("alt: say in words what the picture shows.")
        self._name = name
        furthest = max(abs(value) for place in [z, *places.values()] for value in place)
        super().__init__(
            spec=exported.spec,
            weights=exported.weights,
            options={
                "starts": places,
                "dims": shown,
                "kl": None if kls is None else [kls[dim] for dim in shown],
                "limit": max(3, math.ceil(furthest)),
                "image_shape": [int(size) for size in image_shape],
                "classes": names,
                "alt": alt.strip(),
            },
            z=z,
            focus=shown[0],
        )

    @traitlets.validate("z")
    def _valid_z(self, proposal):
        _check_length("z", proposal.value, self._latent)
        if not _finite(proposal.value):
            raise BadInput(f"z: every value must be a finite number, found {proposal.value}.")
        return proposal.value

    @traitlets.validate("focus")
    def _valid_focus(self, proposal):
        if "dims" in self.options and proposal.value not in self.options["dims"]:
            raise BadInput(f"focus: wanted one of the shown dimensions {self.options['dims']}, found {proposal.value}.")
        return proposal.value

    def static_html(self) -> str:
        state = {key: self.trait_values()[key] for key in ("spec", "options", "z", "focus")}
        rows = self.options["dims"][:PICTURE_ROWS]
        z = np.tile(np.array(self.z, dtype=np.float32), (len(rows), len(STRIP), 1))
        for row, dim in enumerate(rows):
            z[row, :, dim] = STRIP
        images = reference_decode(self.spec, self.weights, "image", z.reshape(-1, self._latent))
        names = ", ".join(f"z{dim}" for dim in rows)
        alt = f"{self.options['alt']} Each row moves one latent dimension ({names}) from {STRIP[0]} to {STRIP[-1]}."
        picture = static.traversal_picture(images.reshape(len(rows), len(STRIP), *self.options["image_shape"]), alt)
        caption = f"Each row moves one latent dimension from {STRIP[0]} to {STRIP[-1]}. With JavaScript, this picture has sliders."
        weights = (self._name, self.spec["sha256"], self.weights)
        return static.element("latent-explorer", state, picture, caption, len(self.options["dims"]), weights)


def _finite(values: Sequence[float]) -> bool:
    return all(math.isfinite(value) for value in values)


def _check_length(name: str, values: Sequence, wanted: int) -> None:
    if len(values) != wanted:
        raise BadInput(f"{name}: wanted {wanted} values, found {len(values)}.")


def _vector(name: str, values: Tensor | Sequence[float]) -> list[float]:
    array = np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values, dtype=np.float64)
    if array.ndim != 1 or array.size == 0 or not np.isfinite(array).all():
        raise BadInput(f"{name}: wanted a vector of finite numbers, found shape {array.shape}.")
    return [float(np.float32(value)) for value in array]


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


def _shown_dims(dims: Sequence[int] | None, kl: list[float] | None, latent: int) -> list[int]:
    shown = list(range(latent)) if dims is None else [int(dim) for dim in dims]
    if not shown or any(dim not in range(latent) for dim in shown) or len(set(shown)) != len(shown):
        raise BadInput(f"dims: wanted different dimensions from 0 to {latent - 1}, found {shown}.")
    if kl is not None:
        shown.sort(key=lambda dim: -kl[dim])
    if dims is not None:
        return shown
    awake = shown if kl is None else [dim for dim in shown if kl[dim] >= COLLAPSED]
    return (awake or shown)[:SHOWN_DIMS]


def _export(decoders: Mapping[str, nn.Sequential]):
    if "image" not in decoders or set(decoders) - {"image", "label"}:
        raise BadInput(f'decoders: wanted "image" and optionally "label", found {sorted(decoders)}.')
    return export_decoders(decoders)


def _try_decoders(exported, z: np.ndarray, image_shape: tuple[int, int]) -> int:
    """Decode once; returns the number of classes (0 without a label decoder)."""
    first = next(layer for layer in exported.spec["decoders"]["image"] if layer["op"] == "linear")
    _check_length("latents", z[0].tolist(), first["inputs"])
    image = reference_decode(exported.spec, exported.weights, "image", z)
    if image.size != math.prod(image_shape):
        raise BadInput(f"image_shape: the image decoder gives {image.size} values, which is not {tuple(image_shape)}.")
    if image.min() < 0 or image.max() > 1:
        raise BadInput("decoders: the image decoder leaves [0, 1]; end it with nn.Sigmoid().")
    if "label" not in exported.spec["decoders"]:
        return 0
    label = reference_decode(exported.spec, exported.weights, "label", z)
    if label.min() < 0 or abs(label.sum() - 1) > 1e-3:
        raise BadInput("decoders: the label decoder does not give probabilities; end it with nn.Softmax(-1).")
    return label.shape[-1]
