"""Sliders over a latent space."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import traitlets
from torch import Tensor, nn

from .widgets_base import SOUND, BadInput, Decoded, check_length, check_said, finite, vector

STRIP = (-3, -2, -1, 0, 1, 2, 3)
PICTURE_ROWS = 3
SHOWN_DIMS = 8
COLLAPSED = 0.01  # nats; the decoder ignores such a dimension, so its slider would be dead


class LatentExplorer(Decoded):
    """Sliders over a latent space, decoded in the page.

    Args:
        decoders: modality -> `nn.Sequential` from [batch, latent] to pictures in [0, 1], [batch, 1 or 3, height, width];
            log-mel speech [batch, frames, 80]; scores of words [batch, positions, vocabulary]; or probabilities of labels
            [batch, classes]. See `export_decoders` and `page_decoders`.
        latents: where to begin, [latent].
        starts: places to jump to by name, each [latent], such as the posterior mean given a label; `legend` stands above.
        dims: the dimensions that get a slider; by default the eight with the largest KL, without
            those that have collapsed (a KL below 0.01 nats).
        kl: KL of every dimension in nats, [latent]; sorts the sliders and is shown beside them.
        name: what the weights are called in the book's folder.
        image_shape: (height, width) of the decoder `image`, where its output is flat.
        classes: names of the labels; by default their indices.  A dict of them where several decoders give labels.
        alt: what the picture shows, in words.
        reads: decoder -> the dimensions that it reads, in its order; all of them by default.  For models with private latents.
        faces: names of the dimensions, [latent]; z0, z1, ... by default.
        words: decoder -> its vocabulary, for captions.

    `z` (list of floats) and `focus` (the dimension of the film strip) follow the page and can be set
    from Python.

    Raises:
        BadInput: a ValueError that names the argument.
        ValueError: a layer that the page cannot run.
    """

    TAG = "latent-explorer"
    KEYS = ("spec", "z", "focus")
    z = traitlets.List(traitlets.Float()).tag(sync=True)
    focus = traitlets.Int(0).tag(sync=True)

    def __init__(
        self,
        decoders: Mapping[str, nn.Sequential],
        latents: Tensor | Sequence,
        starts: Mapping[str, Tensor | Sequence] | None = None,
        dims: Sequence | None = None,
        kl: Tensor | Sequence | None = None,
        name: str = "decoder",
        image_shape: tuple[int, int] | None = None,
        classes: Sequence[str] | Mapping[str, Sequence[str]] | None = None,
        alt: str = "Picture decoded from the latent vector.",
        reads: Mapping[str, Sequence[int]] | None = None,
        faces: Sequence[str] | None = None,
        words: Mapping[str, Sequence[str]] | None = None,
        legend: str = "Start from the mean given the label",
    ) -> None:
        z = vector("latents", latents)
        self._latent = len(z)
        places = {str(key): vector(f"starts[{key!r}]", value) for key, value in (starts or {}).items()}
        for key, place in places.items():
            check_length(f"starts[{key!r}]", place, self._latent)
        kls = None if kl is None else vector("kl", kl)
        if kls is not None:
            check_length("kl", kls, self._latent)
        shown = _shown_dims(dims, kls, self._latent)
        spec, outputs = self._export(decoders, name, None, image_shape, classes, words)
        read = {str(key): [int(n) for n in value] for key, value in (reads or {}).items()}
        for key in decoders:
            wanted, found = spec["inputs"][key], read.get(key, list(range(self._latent)))
            if key in read and (len(found) != wanted or any(n not in range(self._latent) for n in found)):
                raise BadInput(f"reads[{key!r}]: wanted {wanted} dimensions from 0 to {self._latent - 1}, found {found}.")
            check_length("latents", found, wanted)
        if all(info["kind"] == "bars" for info in outputs.values()):
            raise BadInput(f'decoders: wanted one of a picture, such as "image", of speech or of words, found {sorted(decoders)}.')
        named = [f"z{n}" for n in range(self._latent)] if faces is None else [str(face) for face in faces]
        check_length("faces", named, self._latent)
        furthest = max(abs(value) for place in [z, *places.values()] for value in place)
        super().__init__(
            spec=spec,
            weights=self._blob,
            options={
                "outputs": outputs,
                "titles": {key: "label decoder" if key == "label" else key for key in outputs},
                "reads": read,
                "starts": places,
                "legend": legend,
                "dims": shown,
                "faces": [named[dim] for dim in shown],
                "kl": None if kls is None else [kls[dim] for dim in shown],
                "limit": max(3, math.ceil(furthest)),
                "alt": check_said(alt),
                "sound": SOUND,
            },
            z=z,
            focus=shown[0],
        )

    @traitlets.validate("z")
    def _valid_z(self, proposal):
        check_length("z", proposal.value, self._latent)
        if not finite(proposal.value):
            raise BadInput(f"z: every value must be a finite number, found {proposal.value}.")
        return proposal.value

    @traitlets.validate("focus")
    def _valid_focus(self, proposal):
        if "dims" in self.options and proposal.value not in self.options["dims"]:
            raise BadInput(f"focus: wanted one of the shown dimensions {self.options['dims']}, found {proposal.value}.")
        return proposal.value

    def _picture(self) -> tuple[str, str, int]:
        options = self.options
        shown = next(key for key, info in options["outputs"].items() if info["kind"] != "bars")
        read = options["reads"].get(shown, list(range(self._latent)))
        rows = [dim for dim in options["dims"] if dim in read][:PICTURE_ROWS]
        z = np.tile(np.array(self.z, dtype=np.float32), (len(rows), len(STRIP), 1))
        for row, dim in enumerate(rows):
            z[row, :, dim] = STRIP
        names = ", ".join(options["faces"][options["dims"].index(dim)] for dim in rows)
        alt = f"{options['alt']} Each row moves one latent dimension ({names}) from {STRIP[0]} to {STRIP[-1]}."
        caption = f"Each row moves one latent dimension from {STRIP[0]} to {STRIP[-1]}. With JavaScript, this picture has sliders."
        return self._still(shown, list(z[..., read]), alt), caption, len(options["dims"])


def _shown_dims(dims: Sequence | None, kl: list[float] | None, latent: int) -> list[int]:
    shown = list(range(latent)) if dims is None else [int(dim) for dim in dims]
    if not shown or any(dim not in range(latent) for dim in shown) or len(set(shown)) != len(shown):
        raise BadInput(f"dims: wanted different dimensions from 0 to {latent - 1}, found {shown}.")
    if kl is not None:
        shown.sort(key=lambda dim: -kl[dim])
    if dims is not None:
        return shown
    awake = shown if kl is None else [dim for dim in shown if kl[dim] >= COLLAPSED]
    return (awake or shown)[:SHOWN_DIMS]
