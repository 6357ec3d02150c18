"""Sphinx extension: the first page, and what every chapter says of itself below its title.

`first-explorer` is an explorer of decoders that ship.  `chapter-table` lists the chapters: what each needs, how long it is
to read and to run, its notebook, and how to open it in JupyterLab.  Below a chapter's title stands its own row of that table.
Nothing is typed: the words come from the chapters, the times from their runs.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from html import escape
from pathlib import Path

import yaml
from docutils import nodes
from sphinx.util.docutils import SphinxDirective

import executed_notebooks

WORDS_A_MINUTE, FORMULAS_A_MINUTE = 150, 2
LAB = "http://localhost:8888/lab/tree/"  # where `make lab` serves the folder of the notebooks


@dataclass(frozen=True)
class Chapter:
    """A chapter of the book: its page, its title, and what it says and measured of itself."""

    page: str
    part: str
    title: str
    needs: str
    reading: int  # minutes
    seconds: float | None  # of all its cells, in the profile lite

    @property
    def name(self) -> str:
        return self.page.rpartition("/")[2]


def chapters(root: Path, executed: Path | None = None) -> list[Chapter]:
    """The notebooks in the table of contents, in its order."""
    toc = yaml.safe_load((root / "_toc.yml").read_text(encoding="utf-8"))
    pages = [(part["caption"], entry["file"]) for part in toc["parts"] for entry in part["chapters"]]
    return [describe(root, part, page, executed) for part, page in pages if page.startswith("notebooks/")]


def describe(root: Path, part: str, page: str, executed: Path | None = None) -> Chapter:
    notebook = json.loads((root / f"{page}.ipynb").read_text(encoding="utf-8"))
    prose = "\n\n".join("".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "markdown")
    title = re.search(r"^# (.+)$", prose, re.M)
    needs = re.search(r"^You need (.+?\.)$", prose, re.M)
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", needs[1]) if needs else ""
    plain = plain[:1].upper() + plain[1:]
    words = len(re.findall(r"\b[A-Za-z]{2,}\b", re.sub(r"\$\$.*?\$\$|```.*?```|\$[^$]*\$", " ", prose, flags=re.S)))
    formulas = len(re.findall(r"\$\$.*?\$\$", prose, re.S))
    reading = max(5, 5 * round((words / WORDS_A_MINUTE + formulas / FORMULAS_A_MINUTE) / 5))
    return Chapter(page, part, title[1] if title else page, plain, reading, run_time(root, page, executed))


def run_time(root: Path, page: str, executed: Path | None) -> float | None:
    """Seconds of the profile lite: of the copy that is shown, else as `make bench` found them."""
    name = page.rpartition("/")[2]
    copy = executed / f"{name}.ipynb" if executed else None
    if copy is not None and copy.exists():
        ran = json.loads(copy.read_text(encoding="utf-8"))["metadata"].get("papermill") or {}
        if (ran.get("parameters") or {}).get("profile") == "lite" and ran.get("duration"):
            return float(ran["duration"])
    bench = root / "benchmarks" / "results" / "book.json"
    if not bench.exists():
        return None
    return json.loads(bench.read_text(encoding="utf-8"))["seconds"].get(name)


def lasting(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.1f} min"


def hours(minutes: int) -> str:
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"


def buttons(chapter: Chapter, source: str) -> str:
    """The notebook itself, and how to have it open: a panel that says so, since a page cannot start a program."""
    name, key = escape(chapter.name), f"lab-{escape(chapter.name)}"
    title = escape(chapter.title)
    return (
        f'<span class="take"><a class="take-button" href="{escape(source)}" download="{name}.ipynb"><i class="fas fa-download" aria-hidden="true"></i> Notebook'
        f'<span class="visually-hidden"> of {title}</span></a>'
        f'<button class="take-button" type="button" popovertarget="{key}"><i class="fas fa-rocket" aria-hidden="true"></i> JupyterLab'
        f'<span class="visually-hidden">: open {title}</span></button></span>'
        f'<div class="take-panel" id="{key}" popover><p><strong>{title}, in JupyterLab</strong></p>'
        f"<p>In a clone of the book, start it with <code>make lab</code>. It opens a window of its own; then</p>"
        f'<p><a href="{LAB}{name}.ipynb">open {name}.ipynb there</a>.</p>'
        f"<p>Without a clone: download the notebook, <code>pip install jupyterlab</code> and our package, and <code>jupyter lab {name}.ipynb</code>.</p></div>"
    )


class ChapterTable(SphinxDirective):
    """What the chapters need, how long they take, and how to take them with you."""

    def run(self):
        self.env.note_reread()
        found = chapters(Path(self.env.srcdir), executed_folder(self.config))
        uri = self.env.app.builder.get_relative_uri
        rows, part = [], ""
        for chapter in found:
            if chapter.part != part:
                part = chapter.part
                rows.append(f'<tr class="part"><th colspan="4" scope="rowgroup">{escape(part)}</th></tr>')
            source = uri(self.env.docname, chapter.page).rpartition(".html")[0]
            rows.append(
                f'<tr><th scope="row"><a class="reference internal" href="{escape(uri(self.env.docname, chapter.page))}">{escape(chapter.title)}</a>'
                f'<span class="needs">{math(chapter.needs)}</span></th>'
                f"<td>{chapter.reading} min</td><td>{lasting(chapter.seconds)}</td>"
                f"<td>{buttons(chapter, sources(source))}</td></tr>"
            )
        total = [c.seconds for c in found if c.seconds]
        rows.append(f'<tr class="sum"><th scope="row">Everything</th><td>{hours(sum(c.reading for c in found))}</td><td>{lasting(sum(total))}</td><td></td></tr>')
        head = "<tr><th scope='col'>Chapter, and what you need for it</th><th scope='col'>to read</th><th scope='col'>to run</th><th scope='col'>take it along</th></tr>"
        return [nodes.raw("", f'<div class="chapter-table"><table><thead>{head}</thead><tbody>{"".join(rows)}</tbody></table></div>', format="html")]


def math(text: str) -> str:
    """Words with their formulas, which MathJax reads, and their emphasis."""
    return re.sub(r"\*([^*]+)\*", r"<em>\1</em>", re.sub(r"\$([^$]+)\$", r'<span class="math notranslate nohighlight">\\(\1\\)</span>', escape(text)))


def sources(relative: str) -> str:
    """The clean notebook beside the page, where the theme's own button finds it too."""
    up, _, rest = relative.rpartition("notebooks/")
    return f"{up}_sources/notebooks/{rest}.ipynb"


def executed_folder(config) -> Path:
    return Path(config.executed_notebooks)


def below_the_title(app, doctree, docname: str) -> None:
    """doctree-resolved: how long a chapter is to read and to run, and how to take it along."""
    if app.builder.format != "html" or not docname.startswith("notebooks/"):
        return
    chapter = describe(Path(app.srcdir), "", docname, executed_folder(app.config))
    section = next(iter(doctree.findall(nodes.section)), None)
    if section is None:
        return
    up = "../" * docname.count("/")
    ran = f', <span title="all cells, profile lite, one core">{lasting(chapter.seconds)} to run</span>' if chapter.seconds else ""
    html = f'<div class="page-facts"><span>{chapter.reading} minutes to read{ran}</span> {buttons(chapter, f"{up}_sources/{docname}.ipynb")}</div>'
    at = next((k for k, node in enumerate(section.children) if isinstance(node, nodes.title)), -1)
    section.insert(at + 1, nodes.raw("", html, format="html"))


class FirstExplorer(SphinxDirective):
    """Two decoders that ship, digits and garments, moved by one latent."""

    def run(self):
        from torch import nn

        from mmvae_lite.data.entangled_sets import generators
        from mmvae_lite.explore import EntangledSlider

        garments = ("T-shirt", "trousers", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot")
        widget = EntangledSlider(
            {name: nn.Sequential(decoder, nn.Sigmoid()) for name, decoder in generators().items()},
            classes={"digit": tuple(map(str, range(10))), "garment": garments}, label=7, latents=[0.6, -0.4], name="first",
            alt="A handwritten digit and a piece of clothing, both drawn by networks from one latent and one class.",
        )  # fmt: skip
        bundle = widget._repr_mimebundle_()
        bundle = bundle[0] if isinstance(bundle, tuple) else bundle
        html = executed_notebooks.adopt_html(executed_notebooks._App(self.env), self.env.docname, bundle["text/html"])
        return [nodes.raw("", f'<div class="first-explorer">{html}</div>', format="html")]


def setup(app):
    app.add_directive("first-explorer", FirstExplorer)
    app.add_directive("chapter-table", ChapterTable)
    app.connect("doctree-resolved", below_the_title)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
