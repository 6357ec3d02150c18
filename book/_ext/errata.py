"""Sphinx extension: the directive `errata`, which shows the entries of book/errata.yml for one paper.

Each has its place, what is printed, what is right, the tests that show it, with links into their source where the book
has it, and the chapter that tells more, once it is there.
"""

from __future__ import annotations

from pathlib import Path

import yaml
from docutils import nodes
from docutils.statemachine import StringList
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

import equations

logger = logging.getLogger(__name__)
FIELDS = ("id", "paper", "title", "place", "printed", "right", "tests", "chapter")


def load(root: Path) -> list[dict]:
    """The entries.  Raises ValueError for one that lacks a field."""
    found = yaml.safe_load((root / "book" / "errata.yml").read_text(encoding="utf-8"))
    for entry in found:
        if set(entry) != set(FIELDS):
            raise ValueError(f"errata.yml: {entry.get('id', entry)} has the fields {sorted(entry)}, wanted {sorted(FIELDS)}")
    return found


class Errata(SphinxDirective):
    required_arguments = 1

    def run(self):
        root = Path(self.env.srcdir)
        self.env.note_dependency(str(root / "book" / "errata.yml"))
        self.env.note_reread()  # a chapter may have come
        entries = [entry for entry in load(root) if entry["paper"] == self.arguments[0]]
        if not entries:
            raise self.error(f"errata.yml has nothing of {self.arguments[0]!r}")
        return [self.block(entry) for entry in entries]

    def block(self, entry: dict) -> nodes.Node:
        box = nodes.container(classes=["erratum"], ids=[f"erratum-{entry['id']}"])
        box += nodes.rubric("", entry["title"])
        rows = [("Where", entry["place"]), ("Printed", entry["printed"]), ("Right", entry["right"])]
        items = nodes.definition_list()
        for word, text in rows:
            items += nodes.definition_list_item("", nodes.term("", word), nodes.definition("", *self.parsed(text)))
        items += nodes.definition_list_item("", nodes.term("", "Shown by"), nodes.definition("", self.tests(entry["tests"])))
        if entry["chapter"] in self.env.found_docs:
            link = nodes.reference("", "", internal=True, refuri=self.env.app.builder.get_relative_uri(self.env.docname, entry["chapter"]))
            link += chapter_title(entry["chapter"])
            items += nodes.definition_list_item("", nodes.term("", "More in"), nodes.definition("", nodes.paragraph("", "", link)))
        box += items
        return box

    def parsed(self, text: str) -> list[nodes.Node]:
        place = nodes.Element()
        self.state.nested_parse(StringList(text.splitlines(), source="book/errata.yml"), 0, place)
        return place.children

    def tests(self, names: list[str]) -> nodes.paragraph:
        """The tests, as words; a link where the book shows the file, which it does of those that prove an equation."""
        root, line = Path(self.env.srcdir), nodes.paragraph("", "", classes=["erratum-tests"])
        shown = {site.path for site in equations.tests(root)}
        for name in names:
            path, _, function = name.partition("::")
            words = function.removeprefix("test_").replace("_", " ")
            if len(line):
                line += nodes.Text(", ")
            if path in shown:
                place = f"source/{path.removesuffix('.py')}"
                uri = f"{self.env.app.builder.get_relative_uri(self.env.docname, place)}#L{line_of(root / path, function)}"
                line += nodes.reference("", words, refuri=uri, internal=True)
            else:
                line += nodes.Text(f"{words} ")
                line += nodes.literal("", path)
        return line


def line_of(path: Path, function: str) -> int:
    lines = path.read_text(encoding="utf-8").splitlines()
    return next((k for k, line in enumerate(lines, 1) if line.startswith(f"def {function}(")), 1)


class chapter_title(nodes.General, nodes.Element):
    """Stands for a chapter's title until all pages are read."""

    def __init__(self, page: str = "", **attributes) -> None:
        super().__init__("", page=page, **attributes)


def fill_titles(app, doctree, docname: str) -> None:
    for node in list(doctree.findall(chapter_title)):
        node.replace_self(nodes.Text(app.env.titles[node["page"]].astext()))


def setup(app):
    app.add_node(chapter_title)
    app.add_directive("errata", Errata)
    app.connect("doctree-resolved", fill_titles)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
