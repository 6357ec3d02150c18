"""Explorers that put latents together: style with content, a label, attributes, a class of entangled data, a caption."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
import traitlets
from torch import Tensor, nn

from mmvae_lite.data.captions import Vocabulary

from .export import reference_decode
from .widgets_base import NO_SCRIPT, SOUND, BadInput, Decoded, check_length, check_one_of, check_said, finite, matrix, vector

CONTENTS, STYLES = 6, 4
DIALS = 4


class StyleMixer(Decoded):
    """Any content with any style, within a modality and across modalities: a swap grid, and all modalities of the cell that is picked.

    Args:
        decoders: modality -> `nn.Sequential` from [batch, private + shared] (private first), as in `LatentExplorer`.
        shared: modality -> what its posterior says of the shared latent, [items, shared]; or one such matrix.  Where several
            modalities say it, the reader chooses whose content is taken.
        private: modality -> posterior means of its private latent, [items, private]; a modality without one is left out.
        labels: class of each item, [items]; the grid starts with one item of each class.
        name, classes, words, image_shape: as in `LatentExplorer`.
        alt: what the grid shows, in words.

    `target` (the modality of the grid), `source` (the modality that gives the content), `columns` and `rows` (items that give
    content and style), `column` and `row` (the cell that is picked), `styles` ("items" or "prior") and `nudge` (moves of the
    style along its two widest dimensions) follow the page and can be set from Python.

    Raises BadInput, a ValueError that names the argument; ValueError for a layer that the page cannot run.
    """

    TAG = "style-mixer"
    KEYS = ("spec", "target", "source", "columns", "rows", "column", "row", "styles", "nudge")
    target = traitlets.Unicode().tag(sync=True)
    source = traitlets.Unicode().tag(sync=True)
    columns = traitlets.List(traitlets.Int()).tag(sync=True)
    rows = traitlets.List(traitlets.Int()).tag(sync=True)
    column = traitlets.Int(0).tag(sync=True)
    row = traitlets.Int(0).tag(sync=True)
    styles = traitlets.Unicode("items").tag(sync=True)
    nudge = traitlets.List(traitlets.Float()).tag(sync=True)

    def __init__(
        self,
        decoders: Mapping[str, nn.Sequential],
        shared: Tensor | Mapping[str, Tensor],
        private: Mapping[str, Tensor],
        labels: Tensor | Sequence | None = None,
        name: str = "mixer",
        classes: Sequence[str] | Mapping[str, Sequence[str]] | None = None,
        words: Mapping[str, Sequence[str]] | None = None,
        image_shape: tuple[int, int] | None = None,
        alt: str = "Every content with every style, decoded.",
    ) -> None:
        contents = dict(shared) if isinstance(shared, Mapping) else {"all": shared}
        contents = {str(key): matrix(f"shared[{key!r}]", value) for key, value in contents.items()}
        if not contents or not private:
            raise BadInput("shared, private: give the codes of one modality or more.")
        items = len(next(iter(contents.values())))
        for key, value in contents.items():
            check_length(f"shared[{key!r}]", value, items)
        codes = {str(key): matrix(f"private[{key!r}]", value, items) for key, value in private.items()}
        unknown = sorted(set(codes) - set(decoders))
        if unknown:
            raise BadInput(f"private: there is no decoder {unknown[0]!r}, only {sorted(decoders)}.")
        classes_of = [0] * items if labels is None else [int(c) for c in labels]
        check_length("labels", classes_of, items)
        tables = {f"shared/{key}": torch.from_numpy(value) for key, value in contents.items()}
        tables |= {f"private/{key}": torch.from_numpy(value) for key, value in codes.items()}
        spec, outputs = self._export(decoders, name, tables, image_shape, classes, words)
        width = next(iter(contents.values())).shape[1]
        for key in decoders:
            found = width + (codes[key].shape[1] if key in codes else 0)
            if found != spec["inputs"][key]:
                raise BadInput(f"decoders: {key!r} reads {spec['inputs'][key]} numbers, its private and shared latents have {found}.")
        targets = [key for key in codes if outputs[key]["kind"] != "bars"]
        if not targets:
            raise BadInput("private: wanted a modality of pictures, speech or words that has a style.")
        super().__init__(
            spec=spec,
            weights=self._blob,
            options={
                "outputs": outputs,
                "targets": targets,
                "sources": list(contents),
                "items": items,
                "labels": classes_of,
                "widest": {key: [int(n) for n in np.argsort(-value.var(0))[:2]] for key, value in codes.items()},
                "alt": check_said(alt),
                "sound": SOUND,
            },
            target=targets[0],
            source=next(iter(contents)),
            columns=_one_of_each(classes_of, CONTENTS),
            rows=_far_apart(codes[targets[0]], STYLES),
            nudge=[0.0, 0.0],
        )
        self._items = items

    @traitlets.validate("columns", "rows")
    def _valid_items(self, proposal):
        items = self.options.get("items", math.inf)
        if not proposal.value or any(not 0 <= n < items for n in proposal.value):
            raise BadInput(f"{proposal.trait.name}: wanted items from 0 to {items - 1}, found {proposal.value}.")
        return proposal.value

    @traitlets.validate("target", "source", "styles")
    def _valid_choice(self, proposal):
        known = {"target": self.options.get("targets"), "source": self.options.get("sources"), "styles": ["items", "prior"]}
        if known[proposal.trait.name] is not None:
            check_one_of(proposal.trait.name, proposal.value, known[proposal.trait.name])
        return proposal.value

    @traitlets.validate("nudge")
    def _valid_nudge(self, proposal):
        check_length("nudge", proposal.value, 2)
        if not finite(proposal.value):
            raise BadInput(f"nudge: every value must be a finite number, found {proposal.value}.")
        return proposal.value

    def _table(self, name: str) -> np.ndarray:
        at = self.spec["tables"][name]
        values = np.frombuffer(self.weights, "<f2")[at["start"] : at["start"] + at["rows"] * at["columns"]]
        return values.astype(np.float32).reshape(at["rows"], at["columns"])

    def _picture(self) -> tuple[str, str, int]:
        content, style = self._table(f"shared/{self.source}"), self._table(f"private/{self.target}")
        rows = [np.stack([np.concatenate([style[r], content[c]]) for c in self.columns]) for r in self.rows]
        alt = f"{self.options['alt']} One content to a column, one style to a row."
        return self._still(self.target, rows, alt), f"One content to a column, one style to a row. {NO_SCRIPT}", len(self.rows)


class _Dialled(Decoded):
    """A decoder of [private, shared] where the reader moves the private latent `z` and something else sets the shared one."""

    z = traitlets.List(traitlets.Float()).tag(sync=True)

    def _dialled(self, decoders, private, width, kl, name, classes, words, image_shape, styles) -> tuple[dict, dict, list[float]]:
        z = vector("private", private)
        self._private = len(z)
        spec, outputs = self._export(decoders, name, None, image_shape, classes, words)
        reads = {}
        for key in decoders:
            wanted = spec["inputs"][key]
            if wanted not in (self._private + width, width):
                raise BadInput(f"decoders: {key!r} reads {wanted} numbers, wanted {self._private} private and {width} shared ones, or the shared alone.")
            reads[key] = "all" if wanted == self._private + width else "shared"
        shown = next((key for key, info in outputs.items() if info["kind"] != "bars"), None)
        if shown is None:
            raise BadInput("decoders: wanted one of pictures, speech or words.")
        kls = None if kl is None else vector("kl", kl)
        if kls is not None:
            check_length("kl", kls, self._private)
        order = sorted(range(self._private), key=lambda dim: 0 if kls is None else -kls[dim])
        others = np.zeros((0, self._private)) if styles is None else matrix("styles", styles, columns=self._private)
        options = {
            "outputs": outputs, "reads": reads, "shown": shown, "dims": order[:DIALS], "sound": SOUND,
            "others": [[round(float(v), 3) for v in row] for row in others],
            "limit": max(3, math.ceil(max(map(abs, z)))) if not len(others) else max(3, math.ceil(max(np.abs(others).max(), max(map(abs, z))))),
        }  # fmt: skip
        return spec, options, z

    @traitlets.validate("z")
    def _valid_z(self, proposal):
        check_length("z", proposal.value, self._private)
        if not finite(proposal.value):
            raise BadInput(f"z: every value must be a finite number, found {proposal.value}.")
        return proposal.value

    def _reads(self, private: np.ndarray, shared: np.ndarray) -> np.ndarray:
        return shared if self.options["reads"][self.options["shown"]] == "shared" else np.concatenate([private, shared])


class LabelDial(_Dialled):
    """Turn the label and keep the style, or keep the label and turn the style.

    Args:
        decoders: modality -> `nn.Sequential` from [batch, private + shared], or from the shared latent alone.
        codes: the shared latent of each label, [classes, shared]: one-hot rows, or posterior means given the label.
        private: the style to begin with, [private].  styles: others to jump to, [styles, private].
        kl: KL of each private dimension, which sorts the sliders.
        classes: names of the labels.  name, words, image_shape, alt: as in `LatentExplorer`.

    `label`, `toward` (another label), `mix` (how far the code has gone there, 0 to 1) and `z` (the style) follow the page.
    Raises BadInput, a ValueError that names the argument; ValueError for a layer that the page cannot run.
    """

    TAG = "label-dial"
    KEYS = ("spec", "label", "toward", "mix", "z")
    label = traitlets.Int(0).tag(sync=True)
    toward = traitlets.Int(1).tag(sync=True)
    mix = traitlets.Float(0.0).tag(sync=True)

    def __init__(
        self,
        decoders: Mapping[str, nn.Sequential],
        codes: Tensor | Sequence,
        private: Tensor | Sequence,
        styles: Tensor | None = None,
        kl: Tensor | Sequence | None = None,
        classes: Sequence[str] | None = None,
        name: str = "labels",
        words: Mapping[str, Sequence[str]] | None = None,
        image_shape: tuple[int, int] | None = None,
        alt: str = "One style under every label.",
    ) -> None:
        rows = matrix("codes", codes)
        if len(rows) < 2:
            raise BadInput(f"codes: wanted two labels or more, found {len(rows)}.")
        named = [str(n) for n in range(len(rows))] if classes is None else [str(c) for c in classes]
        check_length("classes", named, len(rows))
        spec, options, z = self._dialled(decoders, private, rows.shape[1], kl, name, named if classes else None, words, image_shape, styles)
        options |= {"codes": [[round(float(v), 4) for v in row] for row in rows], "classes": named, "alt": check_said(alt)}
        super().__init__(spec=spec, weights=self._blob, options=options, z=z)

    @traitlets.validate("label", "toward")
    def _valid_label(self, proposal):
        known = len(self.options.get("codes", ())) or math.inf
        if not 0 <= proposal.value < known:
            raise BadInput(f"{proposal.trait.name}: wanted 0 to {known - 1}, found {proposal.value}.")
        return proposal.value

    @traitlets.validate("mix")
    def _valid_mix(self, proposal):
        if not 0 <= proposal.value <= 1:
            raise BadInput(f"mix: wanted a number from 0 to 1, found {proposal.value}.")
        return proposal.value

    def _picture(self) -> tuple[str, str, int]:
        codes, z = np.array(self.options["codes"]), np.array(self.z)
        styles = [z, *np.array(self.options["others"]).reshape(-1, self._private)[:2]]
        rows = [np.stack([self._reads(style, code) for code in codes]) for style in styles]
        alt = f"{self.options['alt']} The labels from left to right: {', '.join(self.options['classes'])}."
        return self._still(self.options["shown"], rows, alt), f"One label to a column, one style to a row. {NO_SCRIPT}", len(self.options["dims"])


class AttributeDial(_Dialled):
    """Switch attributes on and off and keep the style.

    Args:
        decoders: modality -> `nn.Sequential` from [batch, private + shared], or from the shared latent alone.
        attributes: their names.
        private: the style to begin with, [private].  styles: others to jump to, [styles, private].
        on: which attributes are on at the beginning.
        codes: what the shared latent holds for each attribute when it is off and when it is on, [attributes, 2, width]; by
            default two classes, of which the second is on.
        kl, name, words, image_shape, alt: as in `LabelDial`.

    `on` (a list of booleans) and `z` (the style) follow the page.
    Raises BadInput, a ValueError that names the argument; ValueError for a layer that the page cannot run.
    """

    TAG = "attribute-dial"
    KEYS = ("spec", "on", "z")
    on = traitlets.List(traitlets.Bool()).tag(sync=True)

    def __init__(
        self,
        decoders: Mapping[str, nn.Sequential],
        attributes: Sequence[str],
        private: Tensor | Sequence,
        styles: Tensor | None = None,
        on: Sequence | None = None,
        codes: Tensor | Sequence | None = None,
        kl: Tensor | Sequence | None = None,
        name: str = "attributes",
        words: Mapping[str, Sequence[str]] | None = None,
        image_shape: tuple[int, int] | None = None,
        alt: str = "A picture whose attributes can be switched.",
    ) -> None:
        names = [str(attribute) for attribute in attributes]
        pairs = np.tile(np.eye(2), (len(names), 1, 1)) if codes is None else np.asarray(codes, dtype=np.float64)
        if pairs.ndim != 3 or pairs.shape[:2] != (len(names), 2):
            raise BadInput(f"codes: wanted [{len(names)}, 2, width], found {list(pairs.shape)}.")
        self._count = len(names)
        width = self._count * pairs.shape[2]
        spec, options, z = self._dialled(decoders, private, width, kl, name, names, words, image_shape, styles)
        options |= {"codes": pairs.tolist(), "attributes": names, "alt": check_said(alt)}
        super().__init__(spec=spec, weights=self._blob, options=options, z=z, on=[False] * self._count if on is None else [bool(v) for v in on])

    @traitlets.validate("on")
    def _valid_on(self, proposal):
        check_length("on", proposal.value, self._count)
        return proposal.value

    def _picture(self) -> tuple[str, str, int]:
        pairs, z = np.array(self.options["codes"]), np.array(self.z)

        def code(on: Sequence) -> np.ndarray:
            return pairs[np.arange(self._count), np.array(on, dtype=int)].ravel()

        flips = [list(self.on)] + [[v != (n == k) for n, v in enumerate(self.on)] for k in range(min(self._count, 6))]
        named = ", ".join(self.options["attributes"][: len(flips) - 1])
        alt = f"{self.options['alt']} First as it is, then with one attribute turned over: {named}."
        row = np.stack([self._reads(z, code(on)) for on in flips])
        return self._still(self.options["shown"], [row], alt), f"Left as it is, then with one attribute turned over. {NO_SCRIPT}", math.ceil(self._count / 3)


class EntangledSlider(Decoded):
    """One latent moved, every modality decoded from it in one class: what entangled data are made of.

    Args:
        decoders: modality -> `nn.Sequential` from [batch, 2 + classes], a latent in the plane and a one-hot class, as of `cvae_decoder`.
        classes: names of the classes, for all modalities or modality -> names.
        radius: how far from the origin the latent may go.
        latents: where to begin, [2].  label: the class to begin with.
        name, image_shape, alt: as in `LatentExplorer`.

    `z`, `label` and `mixed` (every modality after the first gets a latent of its own, as in me-MNIST) follow the page.
    Raises BadInput, a ValueError that names the argument; ValueError for a layer that the page cannot run.
    """

    TAG = "entangled-slider"
    KEYS = ("spec", "z", "label", "mixed")
    z = traitlets.List(traitlets.Float()).tag(sync=True)
    label = traitlets.Int(0).tag(sync=True)
    mixed = traitlets.Bool(False).tag(sync=True)

    def __init__(
        self,
        decoders: Mapping[str, nn.Sequential],
        classes: Sequence[str] | Mapping[str, Sequence[str]] | None = None,
        radius: float | int = 2.0,
        latents: Tensor | Sequence = (0.6, -0.4),
        label: int = 0,
        name: str = "entangled",
        image_shape: tuple[int, int] | None = None,
        alt: str = "Pictures of several modalities decoded from one latent.",
    ) -> None:
        self._radius = float(radius)
        spec, outputs = self._export(decoders, name, None, image_shape, None, None)
        sizes = {spec["inputs"][key] - 2 for key in decoders}
        if len(sizes) != 1 or min(sizes) < 1:
            raise BadInput(f"decoders: wanted inputs of two latents and one class each, found {spec['inputs']}.")
        self._classes = sizes.pop()
        wide = classes if isinstance(classes, Mapping) else {key: classes for key in decoders}
        names = []
        for n in range(self._classes):
            found = [str(n) if wide.get(key) is None else str(wide[key][n]) for key in decoders]
            names.append(" / ".join(dict.fromkeys(found)))
        super().__init__(
            spec=spec,
            weights=self._blob,
            options={"outputs": outputs, "classes": names, "radius": self._radius, "alt": check_said(alt), "sound": SOUND},
            z=vector("latents", latents),
            label=int(label),
        )

    @traitlets.validate("z")
    def _valid_z(self, proposal):
        check_length("z", proposal.value, 2)
        if not finite(proposal.value) or math.hypot(*proposal.value) > self._radius + 1e-6:
            raise BadInput(f"z: wanted two numbers at most {self._radius:g} from the origin, found {proposal.value}.")
        return proposal.value

    @traitlets.validate("label")
    def _valid_label(self, proposal):
        if not 0 <= proposal.value < self._classes:
            raise BadInput(f"label: wanted 0 to {self._classes - 1}, found {proposal.value}.")
        return proposal.value

    def _picture(self) -> tuple[str, str, int]:
        across = np.linspace(-0.9, 0.9, 7) * self._radius
        one_hot = np.eye(self._classes)[self.label]
        row = np.stack([np.concatenate([[x, self.z[1] * 0.4], one_hot]) for x in across])
        alt = f"{self.options['alt']} From left to right the first latent number grows; the class is {self.options['classes'][self.label]}."
        pictures = "".join(self._still(name, [row], f"{name}: {alt}") for name in self.options["outputs"])
        return pictures, f"From left to right one latent number grows, in every row alike. {NO_SCRIPT}", 2


class CaptionEditor(Decoded):
    """Edit a sentence and see what a model makes of it.

    Args:
        encoder: `page_encoder` of the caption's encoder: words -> the mean of its posterior.
        decoders: modality -> `nn.Sequential` from that latent, as in `LatentExplorer`.
        vocabulary: a `mmvae_lite.data.captions.Vocabulary`.
        caption: the sentence to begin with.  examples: others to jump to.
        name, alt: as in `LatentExplorer`.

    `caption` follows the page and can be set from Python.
    Raises BadInput, a ValueError that names the argument; ValueError for a layer that the page cannot run.
    """

    TAG = "caption-editor"
    KEYS = ("spec", "caption")
    caption = traitlets.Unicode().tag(sync=True)

    def __init__(
        self,
        encoder: nn.Sequential,
        decoders: Mapping[str, nn.Sequential],
        vocabulary: Vocabulary,
        caption: str,
        examples: Sequence[str] = (),
        name: str = "caption",
        alt: str = "A picture decoded from the sentence.",
    ) -> None:
        own = {key: vocabulary.words for key in decoders}
        nets = {"words": encoder, **decoders}
        spec, outputs = self._export(nets, name, None, None, None, own, hidden=("words",), positions=vocabulary.length)
        latent = spec["shapes"]["words"][-1]
        for key in decoders:
            if spec["inputs"][key] != latent:
                raise BadInput(f"decoders: {key!r} reads {spec['inputs'][key]} numbers, the encoder gives {latent}.")
        self._vocabulary = vocabulary
        options = {"outputs": outputs, "vocabulary": list(vocabulary.words), "positions": vocabulary.length}
        options |= {"examples": [str(e) for e in (caption, *examples)], "alt": check_said(alt), "sound": SOUND}
        super().__init__(spec=spec, weights=self._blob, options=options, caption=caption)

    def _picture(self) -> tuple[str, str, int]:
        ids = self._vocabulary.encode([self.caption]).numpy()
        z = reference_decode(self.spec, self.weights, "words", ids)
        shown = next((key for key, info in self.options["outputs"].items() if info["kind"] == "image"), next(iter(self.options["outputs"])))
        return self._still(shown, [z], f"{self.options['alt']} {self.caption}"), f"{self.caption} {NO_SCRIPT}", 1


def _one_of_each(labels: Sequence[int], count: int) -> list[int]:
    """The first item of each class, then the rest in order, `count` items."""
    first = [labels.index(c) for c in sorted(set(labels))]
    return (first + [n for n in range(len(labels)) if n not in first])[: min(count, len(labels))]


def _far_apart(codes: np.ndarray, count: int) -> list[int]:
    """Items whose codes are far from each other: each is the furthest from those before it; the first is the nearest to the mean."""
    scaled = (codes - codes.mean(0)) / (codes.std(0) + 1e-6)
    chosen = [int(np.linalg.norm(scaled, axis=1).argmin())]
    while len(chosen) < min(count, len(codes)):
        distance = np.linalg.norm(scaled[:, None] - scaled[None, chosen], axis=-1).min(1)
        chosen.append(int(distance.argmax()))
    return chosen
