"""Sphinx extension: pages from the executed notebooks, and the explorers on them.

`jupyter-book build .` reads notebooks/NAME.ipynb, which holds no outputs.  Just before it is parsed, its
text is swapped for the copy that papermill executed.  The page's download button still gives the clean one.
"""

from __future__ import annotations

import base64
import hashlib
import importlib
import json
import os
import re
from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

logger = logging.getLogger(__name__)

WIDGET = "application/vnd.jupyter.widget-view+json"
PLOTLY = "application/vnd.plotly.v1+json"
_WEIGHTS = re.compile(r'<script\b(?=[^>]*\bclass="explorer-weights")([^>]*)>(.*?)</script>\s*', re.S)
_ELEMENT = re.compile(r"<([a-z]+(?:-[a-z]+)+)\b([^>]*)>")
_EXPLORER = re.compile(r'class="explorer-spec"')  # every kind of explorer carries its state in such a script
_ATTRIBUTE = re.compile(r'([\w-]+)="([^"]*)"')


# Clean-up of a notebook: plain functions of its JSON ------------------------------------------------


def collapse_returns(text: str) -> str:
    """What a terminal shows after the carriage returns of a progress bar: the last state of every line."""
    lines = []
    for line in text.replace("\r\n", "\n").split("\n"):
        states = [state for state in line.split("\r") if state]
        lines.append(states[-1] if states else "")
    return "\n".join(lines)


def merge_streams(outputs: list[dict]) -> list[dict]:
    """Join consecutive pieces of one stream, since a progress bar arrives in many, and collapse them."""
    merged: list[dict] = []
    for output in outputs:
        if output["output_type"] != "stream":
            merged.append(output)
            continue
        text = _text(output["text"])
        previous = merged[-1] if merged else {}
        if previous.get("output_type") == "stream" and previous["name"] == output["name"]:
            previous["text"] += text
        else:
            merged.append({**output, "text": text})
    for output in merged:
        if output["output_type"] == "stream":
            output["text"] = collapse_returns(output["text"])
    return merged


def clean(notebook: dict) -> dict:
    """Drop what papermill and the widgets left in an executed notebook."""
    notebook["metadata"].pop("papermill", None)
    notebook["metadata"].pop("widgets", None)
    notebook["cells"] = [c for c in notebook["cells"] if "injected-parameters" not in c["metadata"].get("tags", [])]
    for cell in notebook["cells"]:
        cell["metadata"].pop("papermill", None)
        if cell["cell_type"] != "code":
            continue
        cell["outputs"] = merge_streams(cell["outputs"])
        for output in cell["outputs"]:
            data = output.get("data", {})
            if WIDGET in data and "text/html" in data:
                del data[WIDGET]
    return notebook


def problems(output: dict) -> list[str]:
    """What a reader could not use or could not see in an output, one sentence each."""
    data = output.get("data", {})
    found = []
    if WIDGET in data and "text/html" not in data:
        found.append("a widget without a static text/html form would be dead on the page")
    if PLOTLY in data:
        if not ((data[PLOTLY].get("layout") or {}).get("meta") or {}).get("alt"):
            found.append("a plotly figure has no alt text; show it with mmvae_lite.plotting.show(fig, alt=...)")
        return found
    for mime in ("image/png", "image/jpeg", "image/svg+xml"):
        if mime in data and "text/html" not in data:
            found.append(f"an {mime} output has no alt text; show it with mmvae_lite.plotting.show(fig, alt=...)")
    html = _text(data.get("text/html", ""))
    if any(not re.search(r'\balt="', tag) for tag in re.findall(r"<img\b[^>]*>", html)):
        found.append("an <img> has no alt attribute")
    for tag in re.findall(r"<svg\b[^>]*>", html):
        if "aria-label" not in tag and "aria-hidden" not in tag:
            found.append("an inline <svg> has neither aria-label nor aria-hidden")
    return found


def extract_weights(html: str, to_static: str) -> tuple[str, dict[str, str]]:
    """Move each block of inline weights out of `html`.

    Returns the new html, whose elements name their weights by data-weights and data-src, separated by spaces where they
    come in several blocks, and the scripts by file name.  Raises ValueError when a block does not match its hash or stands outside an element.
    """
    scripts: dict[str, str] = {}
    while block := _WEIGHTS.search(html):
        attributes = dict(_ATTRIBUTE.findall(block[1]))
        content = "".join(block[2].split())
        sha, name = attributes.get("data-sha256", ""), attributes.get("data-name", "weights")
        if hashlib.sha256(base64.b64decode(content)).hexdigest() != sha:
            raise ValueError(f"the weights {name!r} of an explorer do not match their hash")
        elements = list(_ELEMENT.finditer(html, 0, block.start()))
        if not elements:
            raise ValueError(f"the weights {name!r} stand outside an explorer")
        key = f"{name}-{sha[:12]}"
        scripts[f"{key}.js"] = f'(globalThis.mmvaeWeights ??= {{}})["{key}"]="{content}";\n'
        tag, rest = elements[-1], html[elements[-1].end() : block.start()] + html[block.end() :]
        before = dict(_ATTRIBUTE.findall(tag[2]))
        marks = {"data-weights": key, "data-src": f"{to_static}explorers/{key}.js"}
        marks = before | {name: f"{before.get(name, '')} {value}".strip() for name, value in marks.items()}
        opening = "".join(f' {name}="{value}"' for name, value in marks.items())
        html = f"{html[: tag.start()]}<{tag[1]}{opening}>{rest}"
    return html, scripts


def _text(source: str | list[str]) -> str:
    return source if isinstance(source, str) else "".join(source)


# Sphinx ---------------------------------------------------------------------------------------------


def static_prefix(docname: str) -> str:
    return "../" * docname.count("/") + "_static/"


def swap(app, docname: str, source: list[str]) -> None:
    """source-read: put the executed notebook in the place of the source notebook."""
    path = Path(app.env.doc2path(docname))
    if path.suffix != ".ipynb":
        return
    executed = Path(app.srcdir, app.config.executed_notebooks, path.name)
    app.env.note_dependency(str(executed))
    if not executed.exists():
        logger.warning("%s has not been run; build the book with tools/build_book.py", path.name, location=docname)
        return
    notebook = clean(json.loads(executed.read_text(encoding="utf-8")))
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            for problem in problems(output):
                logger.warning("%s: %s", docname, problem, location=docname)
            _adopt(app, docname, output)
    source[0] = json.dumps(notebook)


def _adopt(app, docname: str, output: dict) -> None:
    data = output.get("data", {})
    if PLOTLY in data:
        features(app.env)[docname]["plotly"] = True
        data.pop("text/html", None)
    html = _text(data.get("text/html", ""))
    if html:
        data["text/html"] = adopt_html(app, docname, html)


def adopt_html(app, docname: str, html: str) -> str:
    """Note what the page needs for this piece of html, and move the weights in it to files."""
    if not _EXPLORER.search(html):
        return html
    features(app.env)[docname]["explorer"] = True
    try:
        html, scripts = extract_weights(html, static_prefix(docname))
    except ValueError as error:
        logger.warning("%s: %s", docname, error, location=docname)
        return html
    for name, script in scripts.items():
        path = generated(app) / "explorers" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(script, encoding="ascii")
    return html


class Features(dict):
    """docname -> what its page needs; a page starts with nothing."""

    def __missing__(self, docname):
        self[docname] = {}
        return self[docname]


def features(env) -> Features:
    if not hasattr(env, "mmvae_features"):
        env.mmvae_features = Features()
    return env.mmvae_features


def purge(app, env, docname: str) -> None:
    features(env).pop(docname, None)


def merge(app, env, docnames, other) -> None:
    features(env).update({d: f for d, f in features(other).items() if d in docnames})


def generated(app) -> Path:
    """The folder of generated static files; kept between builds, so that pages not read again keep theirs."""
    return Path(app.doctreedir).parent / "generated_static"


def add_static(app) -> None:
    if app.builder.format != "html":
        return
    folder = generated(app)
    folder.mkdir(parents=True, exist_ok=True)
    explore = importlib.import_module("mmvae_lite.explore")
    (folder / "explore.js").write_text(explore.classic_script(), encoding="utf-8")
    (folder / "explore.css").write_text(explore.stylesheet(), encoding="utf-8")
    app.config.html_static_path.append(str(folder))


def add_plotly(app, error: Exception | None) -> None:
    if error or app.builder.format != "html":
        return
    target = Path(app.outdir, "_static", "plotly.min.js")
    if not any("plotly" in f for f in features(app.env).values()):
        target.unlink(missing_ok=True)
        return
    import plotly

    target.write_bytes((Path(plotly.__file__).parent / "package_data" / "plotly.min.js").read_bytes())


def page_assets(app, pagename, templatename, context, doctree) -> None:
    """html-page-context: only a page with an explorer loads the explorers' script and style."""
    # docutils calls the bibliography a list and puts other things than list items in it.
    if "body" in context:
        context["body"] = context["body"].replace('<div role="list" class="citation-list">', '<div class="citation-list">')
    if "explorer" in features(app.env).get(pagename, {}):
        app.add_css_file("explore.css")
        app.add_js_file("explore.js", loading_method="defer")


class Explorer(SphinxDirective):
    """An explorer on a prose page: its class name, and its arguments as JSON in the body."""

    required_arguments = 1
    has_content = True
    option_spec = {"alt": directives.unchanged}

    def run(self) -> list[nodes.Node]:
        widget = getattr(importlib.import_module("mmvae_lite.explore"), self.arguments[0])
        arguments = json.loads("\n".join(self.content) or "{}")
        bundle = widget(**arguments)._repr_mimebundle_()
        bundle = bundle[0] if isinstance(bundle, tuple) else bundle
        html = adopt_html(_App(self.env), self.env.docname, bundle["text/html"])
        return [nodes.raw("", html, format="html")]


class _App:
    """The two attributes of the application that adopt_html needs, taken from the environment."""

    def __init__(self, env):
        self.env, self.doctreedir = env, env.doctreedir


def own_version() -> int:
    """A number that changes with the extensions, so that pages made by older ones are read again."""
    text = b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))
    return int(hashlib.sha256(text).hexdigest()[:8], 16)


def setup(app):
    app.add_config_value("executed_notebooks", os.environ.get("MMVAE_EXECUTED", "build/executed/lite"), "env")
    app.add_directive("explorer", Explorer)
    app.connect("builder-inited", add_static)
    app.connect("source-read", swap, priority=100)
    app.connect("env-purge-doc", purge)
    app.connect("env-merge-info", merge)
    app.connect("html-page-context", page_assets)
    app.connect("build-finished", add_plotly)
    return {"version": "1", "env_version": own_version(), "parallel_read_safe": True, "parallel_write_safe": True}
