"""Sphinx extension: from an equation to the line that computes it, to the test that proves it, and back.

A numbered equation is labelled eq-NAME.  The docstring of the function that computes it cites `eq-NAME`, and a
test that proves it is marked @pytest.mark.equation("eq-NAME").  From the sources alone, without importing them,
this module makes a line of links under each equation, a page for each source file with links back, and the list
of the directive `equation-index`.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from html import escape
from pathlib import Path

from docutils import nodes
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

logger = logging.getLogger(__name__)

CITED = re.compile(r"`(eq-[a-z0-9]+(?:-[a-z0-9]+)*)`")
LABEL = re.compile(r"\$\$\s*\((eq-[^)\s]+)\)|:label:\s*(eq-\S+)|\\label\{(eq-[^}]+)\}", re.M)


@dataclass(frozen=True)
class Site:
    """A function, class or test that belongs to an equation."""

    label: str
    path: str  # relative to the root of the repository, with forward slashes
    name: str  # dotted within its file
    line: int

    @property
    def page(self) -> str:
        return "source/" + self.path.removesuffix(".py")

    @property
    def anchor(self) -> str:
        return self.name

    @property
    def title(self) -> str:
        module = self.path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        return f"{module}.{self.name}" if self.path.startswith("mmvae_lite") else self.name


# The registry, read from the sources -----------------------------------------------------------------


def definitions(tree: ast.AST, prefix: str = "") -> Iterator[tuple[str, ast.AST]]:
    """All functions and classes of a module with their dotted names."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield prefix + node.name, node
            yield from definitions(node, prefix + node.name + ".")


def cited_labels(node: ast.AST) -> list[str]:
    return list(dict.fromkeys(CITED.findall(ast.get_docstring(node) or "")))


def marked_labels(node: ast.AST) -> list[str]:
    """The labels of pytest.mark.equation("...") in the decorators of a test, those of its parameters too."""
    calls = [c for d in getattr(node, "decorator_list", []) for c in ast.walk(d) if isinstance(c, ast.Call)]
    marks = [c for c in calls if ast.unparse(c.func).endswith("mark.equation")]
    return list(dict.fromkeys(a.value for mark in marks for a in mark.args if isinstance(a, ast.Constant)))


def scan(root: Path, folder: str, labels_of) -> list[Site]:
    paths = sorted((root / folder).rglob("*.py"))
    return [site for path in paths for site in _sites(path, path.stat().st_mtime_ns, path.relative_to(root).as_posix(), labels_of)]


@lru_cache(maxsize=None)  # every page asks for the sites of all files
def _sites(path: Path, changed: int, relative: str, labels_of) -> tuple[Site, ...]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return tuple(Site(label, relative, name, node.lineno) for name, node in definitions(tree) for label in labels_of(node))


def functions(root: Path) -> list[Site]:
    """What computes an equation: everything in the library whose docstring cites one, the explorers last."""
    return sorted(scan(root, "mmvae_lite", cited_labels), key=lambda site: "explore" in site.path)


def tests(root: Path) -> list[Site]:
    """What proves an equation: every test marked with one, those of the explorers last."""
    return sorted(scan(root, "tests", marked_labels), key=lambda site: "explore" in site.path or "browser" in site.path)


def labels_in(text: str) -> list[str]:
    """The equation labels that a page of markdown defines."""
    return ["".join(match) for match in LABEL.findall(text)]


def by_label(sites: list[Site]) -> dict[str, list[Site]]:
    grouped: dict[str, list[Site]] = {}
    for site in sites:
        grouped.setdefault(site.label, []).append(site)
    return grouped


# Source pages ---------------------------------------------------------------------------------------


def source_html(text: str, sites: list[Site], equation_url) -> str:
    """Highlighted source with a number and an anchor on each line, and each cited label made a link.

    `equation_url(label)` gives the address of the equation or "" when there is no such equation.
    """
    anchors: dict[int, list[str]] = {}
    for site in dict.fromkeys(sites):
        anchors.setdefault(site.line, []).append(site.anchor)
    lines = highlight(text, PythonLexer(stripnl=False), HtmlFormatter(nowrap=True)).rstrip("\n").split("\n")
    labels = {site.label for site in sites}
    pattern = re.compile(rf"(?<![\w-])(?:{'|'.join(map(re.escape, labels))})(?![\w-])") if labels else None

    def link(match: re.Match) -> str:
        url = equation_url(match[0])
        return f'<a class="to-equation" href="{escape(url)}">{match[0]}</a>' if url else match[0]

    rows = []
    for number, line in enumerate(lines, 1):
        marks = "".join(f'<span id="{escape(a)}"></span>' for a in dict.fromkeys(anchors.get(number, [])))
        line = pattern.sub(link, line) if pattern else line
        rows.append(f'{marks}<span id="L{number}" class="source-line"><span class="number" data-n="{number}"></span>{line}\n</span>')
    return f'<div class="highlight source"><pre tabindex="0" role="region" aria-label="source code">{"".join(rows)}</pre></div>'


def source_page(app, path: str, sites: list[Site]) -> tuple[str, dict, str]:
    page = "source/" + path.removesuffix(".py")
    url = lambda label: equation_url(app, page, label)  # noqa: E731
    body = [f"<h1>{escape(path)}</h1>"]
    if sites:
        items = []
        for site in sites:
            here = f'<a href="#{site.anchor}"><code>{escape(site.name)}</code></a>'
            there = f'<a href="{escape(url(site.label))}">equation {escape(number_of(app.env, site.label))}</a>'
            items.append(f"<li>{here} belongs to {there} ({site.label})</li>")
        body.append(f'<ul class="source-index">{"".join(items)}</ul>')
    body.append(source_html(Path(app.srcdir, path).read_text(encoding="utf-8"), sites, url))
    context = {"parents": [], "title": path, "body": "\n".join(body), "toc": "", "display_toc": False}
    return page, context, "page.html"


def source_pages(app):
    """html-collect-pages: one page for each source file that belongs to an equation."""
    sites = known(app.env, functions(Path(app.srcdir)) + tests(Path(app.srcdir)))
    for path in sorted({site.path for site in sites}):
        yield source_page(app, path, [site for site in sites if site.path == path])


# Links on the pages ---------------------------------------------------------------------------------


def equations(env) -> dict[str, tuple[str, int]]:
    """label -> (page, number) for the equations of the book, from Sphinx's own list."""
    found = env.get_domain("math").equations
    return {label: place for label, place in found.items() if label.startswith("eq-")}


def known(env, sites: list[Site]) -> list[Site]:
    return [site for site in sites if site.label in equations(env)]


def equation_url(app, from_page: str, label: str) -> str:
    if label not in equations(app.env):
        return ""
    return app.builder.get_relative_uri(from_page, equations(app.env)[label][0]) + f"#equation-{label}"


def number_of(env, label: str) -> str:
    """The number that the page shows.  With `numfig` it runs through the book, which Sphinx's list of equations does not."""
    page, number = equations(env)[label]
    shown = env.toc_fignumbers.get(page, {}).get("displaymath", {}).get(f"equation-{label}", (number,))
    return f"({'.'.join(map(str, shown))})"


def link_to(app, docname: str, site: Site) -> nodes.reference:
    """The site's short name as a link; a test's name is read as words."""
    uri = f"{app.builder.get_relative_uri(docname, site.page)}#{site.anchor}"
    words = site.name.rpartition(".")[2].removeprefix("test_").replace("_", " ")
    text = nodes.literal("", site.title.removeprefix("mmvae_lite.")) if site.path.startswith("mmvae_lite") else nodes.Text(words)
    return nodes.reference("", "", text, refuri=uri, internal=True)


def links_line(app, docname: str, computed: list[Site], proved: list[Site]) -> nodes.paragraph:
    line = nodes.paragraph("", "", classes=["equation-links"])
    for word, sites in (("Code: ", computed), ("Tests: ", proved)):
        if sites:
            line += nodes.Text(f"{'. ' if len(line) else ''}{word}")
            line += _listed(app, docname, sites)
    line += nodes.Text(".")
    return line


class equation_index(nodes.General, nodes.Element):
    """Stands where the list of equations comes, once all pages are read."""


class EquationIndex(SphinxDirective):
    def run(self):
        self.env.note_reread()  # the list depends on every other page
        return [equation_index()]


def add_links(app, doctree, docname: str) -> None:
    """doctree-resolved: the line of links under each equation, and the list of all of them."""
    if app.builder.format != "html":
        return
    root = Path(app.srcdir)
    computed, proved = by_label(functions(root)), by_label(tests(root))
    for block in list(doctree.findall(nodes.math_block)):
        label = block.get("label") or ""
        if label in computed or label in proved:
            block.parent.insert(block.parent.index(block) + 1, links_line(app, docname, computed.get(label, []), proved.get(label, [])))
    for place in list(doctree.findall(equation_index)):
        place.replace_self(_index(app, docname, computed, proved))


def _index(app, docname, computed, proved) -> list[nodes.Node]:
    """A list for each chapter: the equation, then its links."""
    found: list[nodes.Node] = []
    chapters: dict[str, list[str]] = {}
    for label, (page, _) in sorted(equations(app.env).items(), key=lambda entry: entry[1]):
        if label in computed or label in proved:
            chapters.setdefault(page, []).append(label)
    for page, labels in chapters.items():
        items = nodes.definition_list("", classes=["equation-index"])
        for label in labels:
            text = f"{number_of(app.env, label)} {label.removeprefix('eq-').replace('-', ' ')}"
            name = nodes.reference("", text, refuri=equation_url(app, docname, label), internal=True)
            line = links_line(app, docname, computed.get(label, []), proved.get(label, []))
            items += nodes.definition_list_item("", nodes.term("", "", name), nodes.definition("", line))
        found += [nodes.rubric("", app.env.titles[page].astext()), items]
    return found


def _listed(app, docname, sites) -> list[nodes.Node]:
    found: list[nodes.Node] = []
    for site in sites:
        if found:
            found.append(nodes.Text(", "))
        found.append(link_to(app, docname, site))
    return found or [nodes.Text("–")]


# Consistency and incremental builds -----------------------------------------------------------------


def check(app, env) -> list[str]:
    """env-updated: warn about links with one end, and write the pages with equations again, whose links may have moved."""
    root = Path(app.srcdir)
    computed, proved = functions(root), tests(root)
    for site in computed + proved:
        if site.label not in equations(env):
            logger.warning("%s:%s cites %s, which no page defines", site.path, site.line, site.label, location=site.path)
    for label, sites in by_label(computed).items():
        if label not in by_label(proved):
            logger.warning("%s cites %s, which no test is marked with", sites[0].path, label, location=sites[0].path)
    for label, sites in by_label(proved).items():
        if label not in by_label(computed):
            logger.warning("%s is marked %s, which no docstring cites", sites[0].path, label, location=sites[0].path)
    return sorted({page for page, _ in equations(env).values()})


def setup(app):
    app.add_node(equation_index)
    app.add_directive("equation-index", EquationIndex)
    app.connect("env-updated", check)
    app.connect("doctree-resolved", add_links)
    app.connect("html-collect-pages", source_pages)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
