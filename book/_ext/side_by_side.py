"""Sphinx extension: the models side by side, from their source.

The directive `model-pairs` reads every model file of the library, takes the posterior and the loss of its class
with the methods that the loss calls, and shows for each pair the lines that differ.  Nothing is imported: the files are parsed.
"""

from __future__ import annotations

import ast
import difflib
import textwrap
from dataclasses import dataclass
from html import escape
from itertools import combinations
from pathlib import Path

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

SAME_IN_ALL = {"_check", "prior", "log_px"}
MODELS = "mmvae_lite/models"


@dataclass(frozen=True)
class Model:
    """What is compared of one model: its class name, and the code of posterior and loss."""

    name: str
    path: str
    lines: tuple[str, ...]


def registered(root: Path) -> list[str]:
    """The keys of `MODELS`, in their order, read from the package's file."""
    tree = ast.parse((root / MODELS / "__init__.py").read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(getattr(t, "id", "") == "MODELS" for t in node.targets):
            return [key.value for key in node.value.keys]
    raise ValueError(f"{MODELS}/__init__.py assigns no dict to MODELS")


def read_model(root: Path, key: str) -> Model:
    path = f"{MODELS}/{key}.py"
    source = (root / path).read_text(encoding="utf-8")
    tree = ast.parse(source)
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    owner = next(c for c in classes if any(getattr(f, "name", "") == "loss" for f in c.body))
    methods = {f.name: f for f in owner.body if isinstance(f, ast.FunctionDef)}
    names = ["posterior", *reached("loss", methods)]
    return Model(owner.name, path, tuple(line for name in names for line in body(source, methods[name])))


def reached(name: str, methods: dict[str, ast.FunctionDef]) -> list[str]:
    """A method and, behind it, those of its class that it calls; what all models share alike is left out."""
    names = [name]
    for caller in names:  # grows while it is read
        for node in ast.walk(methods[caller]):
            called = isinstance(node, ast.Attribute) and getattr(node.value, "id", "") == "self" and node.attr
            if called in methods and called not in SAME_IN_ALL | {"posterior", *names} and not methods[called].decorator_list:
                names.append(called)
    return names


def body(source: str, function: ast.FunctionDef) -> list[str]:
    """The lines of a function under a short heading, without signature, docstring, comments and empty lines."""
    statements = function.body[1:] if ast.get_docstring(function) else function.body
    first, last = statements[0].lineno, statements[-1].end_lineno
    code = textwrap.dedent("\n".join(source.splitlines()[first - 1 : last]))
    kept = [line for line in code.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    return [f"def {function.name}:", *(f"    {line}" for line in kept)]


def difference(one: Model, two: Model) -> list[str]:
    """The lines that differ, marked - and +, with one common line around each place, and gaps marked by ⋯."""
    found = list(difflib.unified_diff(one.lines, two.lines, n=1, lineterm=""))[2:]
    lines = ["⋯" if line.startswith("@@") else line for line in found]
    return lines[1:] if lines and lines[0] == "⋯" else lines


def title(model: Model) -> str:
    """The name that the papers and the pages use: M²VAE for M2VAE, DMVAE-D for DMVAE_D."""
    return escape(model.name.replace("_", "-").replace("M2VAE", "M²VAE"))


def count(lines: list[str]) -> int:
    return sum(line[0] in "+-" for line in lines)


def anchor(one: Model, two: Model) -> str:
    return f"pair-{one.name.lower()}-{two.name.lower()}"


def matrix_html(models: list[Model], pairs: dict[tuple[Model, Model], list[str]]) -> str:
    """Who differs from whom by how many lines, each number a link to the lines."""
    head = "".join(f'<th scope="col">{title(m)}</th>' for m in models)
    rows = []
    for one in models:
        cells = []
        for two in models:
            pair = (one, two) if (one, two) in pairs else (two, one)
            cells.append(f'<td><a href="#{anchor(*pair)}">{count(pairs[pair])}</a></td>' if pair in pairs else "<td>–</td>")
        rows.append(f'<tr><th scope="row">{title(one)}</th>{"".join(cells)}</tr>')
    return (
        '<div class="model-matrix" tabindex="0" role="region" aria-label="lines by which two models differ">'
        f'<table class="table"><caption>Lines of posterior and loss by which two models differ</caption>'
        f'<thead><tr><td></td>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
    )


def pair_html(one: Model, two: Model, lines: list[str]) -> str:
    kinds = {"-": "only-one", "+": "only-two", "⋯": "gap"}
    marked = "".join(f'<span class="{kinds.get(line[0], "both")}">{escape(line)}\n</span>' for line in lines)
    heading = f"{title(one)} and {title(two)}: {count(lines)} lines"
    return (
        f'<details class="model-pair"><summary>{heading}</summary>'
        f'<p id="{anchor(one, two)}"><span class="only-one">- {title(one)}</span> <span class="only-two">+ {title(two)}</span></p>'
        f'<div class="highlight"><pre tabindex="0" role="region" aria-label="{heading}">{marked}</pre></div></details>'
    )


class ModelPairs(SphinxDirective):
    def run(self) -> list[nodes.Node]:
        root = Path(self.env.srcdir)
        models = [read_model(root, key) for key in registered(root)]
        for model in models:
            self.env.note_dependency(str(root / model.path))
        self.env.note_dependency(str(root / MODELS / "__init__.py"))
        pairs = {(one, two): difference(one, two) for one, two in combinations(models, 2)}
        html = matrix_html(models, pairs) + "".join(pair_html(*pair, lines) for pair, lines in pairs.items())
        return [nodes.raw("", html, format="html")]


def setup(app):
    app.add_directive("model-pairs", ModelPairs)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
