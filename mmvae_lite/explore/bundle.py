"""One JavaScript source, two shells: an ES module for JupyterLab, a classic script for the book."""

import re
from functools import cache
from pathlib import Path

HERE = Path(__file__).parent
#: Tag of each explorer -> its file in js/, without the ending, and the function that draws it.
RENDERERS = {
    "expert-playground": "renderExpertPlayground",
    "latent-explorer": "renderLatentExplorer",
    "style-mixer": "renderStyleMixer",
    "entangled-slider": "renderEntangledSlider",
    "label-dial": "renderLabelDial",
    "attribute-dial": "renderAttributeDial",
    "concrete-simplex": "renderConcreteSimplex",
    "subset-lattice": "renderSubsetLattice",
    "bound-explorer": "renderBoundExplorer",
    "infonce-matrix": "renderInfonceMatrix",
    "caption-editor": "renderCaptionEditor",
}
TAGS = tuple(RENDERERS)
SHARED = ("shell", "studio", "outputs")
ENGINE = ("decode", "unpackWeights", "createDecoder", "synthesise", "melTriangles")
EXPORTED = (
    "decode", "unpackWeights", "synthesise", "melTriangles", "gaussianProduct", "gaussianMixture", "klOnGrid", "gaussianKl", "concreteLogDensity", "scoreMatrix",
    "infoNce", "measureLatency",
)  # fmt: skip


@cache
def _source(*names: str) -> str:
    text = "\n".join((HERE / "js" / f"{name}.js").read_text(encoding="utf-8") for name in names)
    if re.search(r"^\s*(import|export)\b", text, re.MULTILINE):
        raise ValueError("The explorers' JavaScript must not import or export: bundle.py does that.")
    return text


def engine() -> str:
    """The engine as one function, so that a worker can be built from its own text."""
    names = ", ".join(ENGINE)
    return f"function mmvaeEngine() {{\n{_source('engine', 'sound')}\nreturn {{ {names} }};\n}}\nconst {{ {names} }} = mmvaeEngine();\n"


def module(tag: str) -> str:
    """The ES module that anywidget loads for the explorer `tag`."""
    return f"{engine()}\n{_source(*SHARED, tag.replace('-', '_'))}\nexport default {{ render: {RENDERERS[tag]} }};\n"


def classic_script() -> str:
    """The one script of the static book: it defines every custom element and works from `file://`.

    It also sets `globalThis.mmvaeExplore`, the functions that the tests call.
    """
    body = engine() + "\n" + _source(*SHARED, *(tag.replace("-", "_") for tag in RENDERERS))
    define = "\n".join(f'defineExplorer("{tag}", {name});' for tag, name in RENDERERS.items())
    exports = ", ".join(EXPORTED)
    return f'(() => {{\n"use strict";\n{body}\nglobalThis.mmvaeExplore = {{ {exports} }};\n{define}\n}})();\n'


@cache
def stylesheet() -> str:
    """The stylesheet of both shells."""
    return (HERE / "explore.css").read_text(encoding="utf-8")
