"""One JavaScript source, two shells: an ES module for JupyterLab, a classic script for the book."""

import re
from functools import cache
from pathlib import Path

HERE = Path(__file__).parent
RENDERERS = {"expert-playground": "renderExpertPlayground", "latent-explorer": "renderLatentExplorer"}
EXPORTED = ("decode", "unpackWeights", "gaussianProduct", "gaussianKl", "measureLatency")


@cache
def _source(*names: str) -> str:
    text = "\n".join((HERE / "js" / f"{name}.js").read_text(encoding="utf-8") for name in names)
    if re.search(r"^\s*(import|export)\b", text, re.MULTILINE):
        raise ValueError("The explorers' JavaScript must not import or export: bundle.py does that.")
    return text


def module(tag: str) -> str:
    """The ES module that anywidget loads for the explorer `tag`."""
    own = tag.replace("-", "_")
    return f"{_source('engine', 'shell', own)}\nexport default {{ render: {RENDERERS[tag]} }};\n"


def classic_script() -> str:
    """The one script of the static book: it defines both custom elements and works from `file://`.

    It also sets `globalThis.mmvaeExplore`, the functions that the tests call.
    """
    body = _source("engine", "shell", "expert_playground", "latent_explorer")
    define = "\n".join(f'defineExplorer("{tag}", {name});' for tag, name in RENDERERS.items())
    exports = ", ".join(EXPORTED)
    return f'(() => {{\n"use strict";\n{body}\nglobalThis.mmvaeExplore = {{ {exports} }};\n{define}\n}})();\n'


@cache
def stylesheet() -> str:
    """The stylesheet of both shells."""
    return (HERE / "explore.css").read_text(encoding="utf-8")
