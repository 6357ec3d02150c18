"""What the explorers share: the two forms of the output, decoders that travel with it, and checks of what they are given."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import anywidget
import numpy as np
import traitlets
from torch import Tensor, nn

from mmvae_lite.data import audio

from . import bundle, static
from .export import export_decoders, reference_decode

SOUND = {
    "rate": audio.RATE, "size": audio.N_FFT, "window": audio.WINDOW, "hop": audio.HOP, "bins": audio.BINS,
    "centre": audio.CENTRE, "spread": audio.SCALE, "floor": audio.FLOOR,
}  # fmt: skip
NO_SCRIPT = "With JavaScript, this picture has controls."


class BadInput(traitlets.TraitError, ValueError):
    """A value that an explorer cannot show; the message says what it wants."""


class Explorer(anywidget.AnyWidget):
    """What all explorers share: the second, static form of the output.

    A kind gives its `TAG`, the names `KEYS` of its synced state beside `options`, and `_picture`.
    """

    TAG = ""
    KEYS: tuple[str, ...] = ()
    _css = bundle.stylesheet()
    options = traitlets.Dict().tag(sync=True)

    def __init_subclass__(cls, **kwargs) -> None:
        super().__init_subclass__(**kwargs)
        if "TAG" in cls.__dict__:  # not in the classes that anywidget derives at run time
            cls._esm = bundle.module(cls.TAG)

    def _picture(self) -> tuple[str, str, int]:
        """HTML of a still picture, its caption, and how many rows of sliders the live form has."""
        raise NotImplementedError

    def _weights(self) -> tuple[str, str, bytes] | None:
        return None

    def static_html(self) -> str:
        """The custom element that the book shows; it needs no kernel."""
        state = {key: self.trait_values()[key] for key in (*self.KEYS, "options")}
        picture, caption, rows = self._picture()
        return static.element(self.TAG, state, picture, caption, rows, self._weights())

    def _repr_mimebundle_(self, **kwargs):
        data, metadata = super()._repr_mimebundle_(**kwargs)
        return {**data, "text/html": self.static_html()}, metadata


class Decoded(Explorer):
    """An explorer with decoders: their layers in `spec`, their numbers in `weights`, what they show in `options["outputs"]`."""

    spec = traitlets.Dict().tag(sync=True)
    weights = traitlets.Bytes().tag(sync=True)

    def _export(
        self,
        decoders: Mapping[str, nn.Module],
        name: str,
        tables: Mapping[str, Tensor] | None = None,
        image_shape: Sequence[int] | None = None,
        classes: Sequence[str] | Mapping[str, Sequence[str]] | None = None,
        words: Mapping[str, Sequence[str]] | None = None,
        hidden: Sequence[str] = (),
        positions: int = 32,
    ) -> tuple[dict, dict]:
        """The spec, and for every decoder that is not `hidden` what it gives: an image, speech, words or bars."""
        self._name = name
        exported = export_decoders(decoders, tables, positions)
        self._blob = exported.weights
        outputs = {}
        for decoder in decoders:
            if decoder in hidden:
                continue
            shape = _picture_shape(exported.spec["shapes"][decoder], image_shape if decoder == "image" else None)
            outputs[decoder] = _output(decoder, shape, classes, words or {})
            if outputs[decoder]["kind"] in ("image", "bars"):
                self._check_range(exported.spec, decoder, outputs[decoder])
        return exported.spec, outputs

    def _check_range(self, spec: dict, name: str, info: dict) -> None:
        """Pictures and probabilities lie in [0, 1], which one random decoding shows or refutes."""
        inputs = spec["inputs"][name]
        draws = np.random.default_rng(0).normal(size=(4, inputs))
        values = reference_decode(spec, self._blob, name, draws).reshape(4, -1)
        if values.min() < 0 or values.max() > 1:
            if info["kind"] == "image":
                raise BadInput(f"decoders: the {name} decoder leaves [0, 1]; end it with nn.Sigmoid() or nn.Hardtanh(0, 1).")
            raise BadInput(f"decoders: the {name} decoder does not give probabilities; end it with nn.Softmax(-1) or nn.Sigmoid().")
        if info["kind"] == "bars":
            info["separate"] = bool(np.abs(values.sum(-1) - 1).max() > 1e-3)

    def _weights(self) -> tuple[str, str, bytes]:
        return self._name, self.spec["sha256"], self.weights

    def _decode(self, name: str, z: np.ndarray) -> np.ndarray:
        """What the page shows for latents [batch, latent]: [batch, *shape]."""
        found = reference_decode(self.spec, self.weights, name, np.asarray(z, dtype=np.float32))
        return found.reshape(len(found), *self.options["outputs"][name]["shape"])

    def _still(self, name: str, rows: Sequence | np.ndarray, alt: str) -> str:
        """A picture of rows of latents [columns, latent], decoded; words and bars become a table in text."""
        kind = self.options["outputs"][name]["kind"]
        found = np.stack([self._decode(name, row) for row in rows])
        if kind == "image":
            return static.grid_picture(found, alt)
        if kind == "speech":
            coarse = np.clip((found[..., ::2, ::2] + 0.8) / 3.4, 0, 1)  # a quarter of the numbers, in 32 levels, are enough to stand in
            return static.grid_picture(np.round(31 * coarse[..., ::-1].swapaxes(-1, -2)[:, :, None]) / 31, alt)
        return static.text_picture(alt)


def _picture_shape(shape: list[int], wanted: Sequence[int] | None) -> list[int]:
    if wanted is None:
        return list(shape)
    size = math.prod(wanted)
    if size not in (math.prod(shape), math.prod(shape) / 3):
        raise BadInput(f"image_shape: the image decoder gives {math.prod(shape)} values, which is not {tuple(wanted)}.")
    return [math.prod(shape) // size, *(int(side) for side in wanted)]


def _output(name: str, shape: list[int], classes, words: Mapping[str, Sequence[str]]) -> dict:
    if len(shape) == 3 and shape[0] in (1, 3):
        return {"kind": "image", "shape": shape}
    if len(shape) == 2 and name not in words and shape[1] == audio.BINS:
        return {"kind": "speech", "shape": shape}
    if len(shape) == 2:
        if name not in words:
            raise BadInput(f"words: the decoder {name!r} chooses among {shape[1]} words at {shape[0]} places; give words={{{name!r}: [...]}}.")
        check_length(f"words[{name!r}]", words[name], shape[1])
        end = [word for word in words[name] if word.strip("<>").lower() in ("eos", "pad")]
        return {"kind": "words", "shape": shape, "words": [str(word) for word in words[name]], "end": end}
    if len(shape) != 1:
        raise BadInput(f"decoders: {name!r} gives values of shape {tuple(shape)}; an explorer shows images, speech, words and labels.")
    given = classes.get(name) if isinstance(classes, Mapping) else classes
    names = [str(n) for n in range(shape[0])] if given is None else [str(label) for label in given]
    check_length("classes", names, shape[0])
    return {"kind": "bars", "shape": shape, "names": names}


def finite(values: Sequence) -> bool:
    return all(math.isfinite(value) for value in values)


def check_length(name: str, values: Sequence | np.ndarray, wanted: int) -> None:
    if len(values) != wanted:
        raise BadInput(f"{name}: wanted {wanted} values, found {len(values)}.")


def check_one_of(name: str, value: object, known: Sequence) -> None:
    if value not in known:
        raise BadInput(f"{name}: wanted one of {', '.join(map(str, known))}, found {value!r}.")


def check_said(alt: str) -> str:
    if not alt.strip():
        raise BadInput("alt: say in words what the picture shows.")
    return alt.strip()


def as_array(values: Tensor | np.ndarray | Sequence | float | int) -> np.ndarray:
    return np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values, dtype=np.float64)


def vector(name: str, values: Tensor | np.ndarray | Sequence) -> list[float]:
    array = as_array(values)
    if array.ndim != 1 or array.size == 0 or not np.isfinite(array).all():
        raise BadInput(f"{name}: wanted a vector of finite numbers, found shape {array.shape}.")
    return [float(np.float32(value)) for value in array]


def matrix(name: str, values: Tensor | np.ndarray | Sequence, rows: int | None = None, columns: int | None = None) -> np.ndarray:
    """A finite matrix [rows, columns] in float32."""
    array = as_array(values)
    fits = array.ndim == 2 and array.size and rows in (None, array.shape[0]) and columns in (None, array.shape[1])
    if not fits or not np.isfinite(array).all():
        wanted = f"[{rows or 'rows'}, {columns or 'columns'}]"
        raise BadInput(f"{name}: wanted a matrix {wanted} of finite numbers, found shape {array.shape}.")
    return array.astype(np.float32)
