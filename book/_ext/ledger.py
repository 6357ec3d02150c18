"""Sphinx extension: numbers that prose takes from files, since no number is typed.

{measured}`experiment/profile-seed:metric`   a value of book/results/experiment/profile-seed.json
{paper}`paper:table:cell`                    a value of book/results/papers.json

Both take a Python format after a bar, as in {measured}`mvae/lite-0:accuracy|.1%`.  Each number links to its
row on the results page, which the directives `measured-table` and `paper-table` fill.
"""

from __future__ import annotations

import json
from pathlib import Path

from docutils import nodes
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective, SphinxRole

from mmvae_lite.results import read_result

logger = logging.getLogger(__name__)
PAGE = "book/results"


class Missing(Exception):
    """A number that is asked for and is not there."""


# The files ------------------------------------------------------------------------------------------


def load_measured(folder: Path) -> dict[str, dict]:
    """All result files, by experiment/profile-seed."""
    return {f"{p.parent.name}/{p.stem}": read_result(p) for p in sorted(folder.glob("*/*.json"))}


def load_papers(folder: Path) -> dict[str, dict]:
    return json.loads((folder / "papers.json").read_text(encoding="utf-8"))["papers"]


def split(text: str) -> tuple[str, str]:
    """The address and the format of a role's text."""
    address, _, spec = text.partition("|")
    return address.strip(), spec.strip()


def measured_value(results: dict[str, dict], address: str, spec: str = "") -> tuple[str, dict, dict]:
    """The text of a measured number, its metric and its record."""
    run, _, name = address.partition(":")
    if run not in results:
        raise Missing(f"no result file book/results/{run}.json; there are {_listed(results)}")
    record = results[run]
    if name not in record["metrics"]:
        raise Missing(f"book/results/{run}.json has no metric {name!r}; it has {_listed(record['metrics'])}")
    metric = record["metrics"][name]
    return render(metric, spec), metric, record


def paper_value(papers: dict[str, dict], address: str, spec: str = "") -> tuple[str, dict, dict]:
    """The text of a paper's number, its table and its paper."""
    parts = address.split(":")
    if len(parts) != 3:
        raise Missing(f"{address!r} is not of the form paper:table:cell")
    paper, table, cell = parts
    if paper not in papers:
        raise Missing(f"papers.json has no paper {paper!r}; it has {_listed(papers)}")
    tables = papers[paper]["tables"]
    if table not in tables:
        raise Missing(f"papers.json has no table {table!r} of {paper}; it has {_listed(tables)}")
    if cell not in tables[table]["cells"]:
        raise Missing(f"papers.json has no cell {cell!r} in {paper}:{table}; it has {_listed(tables[table]['cells'])}")
    entry = tables[table]["cells"][cell]
    metric = {"value": entry, "unit": tables[table].get("unit", ""), "format": tables[table].get("format", "")}
    return render(metric, spec), tables[table], papers[paper]


def render(metric: dict, spec: str = "") -> str:
    """A value with its spread and its unit."""
    spec = spec or metric.get("format", "")
    # `g` would drop the zeros that a paper prints, so a value without a format is written as the file has it.
    write = (lambda v: format(v, spec)) if spec else (lambda v: f"{v:.4g}" if isinstance(v, float) else str(v))
    text = write(metric["value"])
    if "sd" in metric:
        text += f" ± {write(metric['sd']).removeprefix('+')}"
    unit = metric.get("unit", "")
    if not unit or spec.endswith("%"):
        return text
    return f"{text}{unit}" if unit == "%" else f"{text}\N{NO-BREAK SPACE}{unit}"


def provenance(record: dict, metric: dict) -> str:
    """In one line: what a measured number was measured on."""
    parts = [f"profile {record['profile']}", f"seed {record['seed']}", f"device {record['device']}"]
    parts += [f"{record['minutes']} minutes", f"commit {record['commit']}", f"data {record['data']['name']}"]
    if "n" in metric:
        parts.insert(0, f"n = {metric['n']}")
    if record["data"]["stand_in"]:
        parts.append("stand-in for the paper's data")
    return ", ".join(parts)


def anchor(kind: str, address: str) -> str:
    return f"{kind}-{nodes.make_id(address.replace('.', '-dot-'))}"


def _listed(names) -> str:
    return ", ".join(names) or "none"


# Roles and tables -----------------------------------------------------------------------------------


def folder_of(env) -> Path:
    return Path(env.srcdir, "book", "results")


def _link(env, docname: str, kind: str, address: str, text: str, title: str) -> nodes.reference:
    target = env.app.builder.get_relative_uri(docname, PAGE) if env.app.builder.format == "html" else ""
    link = nodes.reference("", "", refuri=f"{target}#{anchor(kind, address)}", internal=True, classes=["number", kind])
    link["reftitle"] = title
    link += nodes.inline("", text)
    return link


class Measured(SphinxRole):
    def run(self):
        address, spec = split(self.text)
        folder = folder_of(self.env)
        self.env.note_dependency(str(folder / f"{address.partition(':')[0]}.json"))
        try:
            text, metric, record = measured_value(load_measured(folder), address, spec)
        except (Missing, ValueError) as error:
            return _problem(self, error)
        found = [_link(self.env, self.env.docname, "measured", address, text, provenance(record, metric))]
        if record["data"]["stand_in"]:
            found.append(nodes.inline("", " (stand-in data)", classes=["stand-in"]))
        return found, []


class Paper(SphinxRole):
    def run(self):
        address, spec = split(self.text)
        folder = folder_of(self.env)
        self.env.note_dependency(str(folder / "papers.json"))
        try:
            text, table, paper = paper_value(load_papers(folder), address, spec)
        except (Missing, ValueError) as error:
            return _problem(self, error)
        title = f"{paper['name']}, {table['name']}: {table['caption']}"
        return [_link(self.env, self.env.docname, "paper", address, text, title)], []


def _problem(role: SphinxRole, error: Exception):
    logger.warning("{%s}`%s`: %s", role.name, role.text, error, location=(role.env.docname, role.lineno))
    return [nodes.problematic(role.rawtext, role.rawtext)], []


class MeasuredTable(SphinxDirective):
    """Every measured number that the book holds, one table for each experiment, with what it was measured on."""

    def run(self):
        results = load_measured(folder_of(self.env))
        self.env.note_reread()
        if not results:
            return [nodes.paragraph("", "No result has been recorded yet.")]
        found: list[nodes.Node] = []
        for experiment in dict.fromkeys(run.rpartition("/")[0] for run in results):
            runs = {run: record for run, record in results.items() if run.rpartition("/")[0] == experiment}
            found += [nodes.rubric("", experiment), _runs_table(runs)]
        return found


def _runs_table(runs: dict[str, dict]) -> nodes.table:
    """Metrics by runs, and below them what each run was measured on."""
    rows = []
    for name in dict.fromkeys(name for record in runs.values() for name in record["metrics"]):
        cells = [(_metric_name(name, runs), "")]
        for run, record in runs.items():
            metric = record["metrics"].get(name)
            cells.append((render(metric), anchor("measured", f"{run}:{name}")) if metric else ("–", ""))
        rows.append(cells)
    for field in ("seed", "device", "minutes", "commit"):
        rows.append([(field, ""), *((str(record[field]), "") for record in runs.values())])
    rows.append([("data", ""), *((_data(record), "") for record in runs.values())])
    return table(["", *(run.rpartition("/")[2] for run in runs)], rows)


def _metric_name(name: str, runs: dict[str, dict]) -> str:
    """The metric, with the number of items that it is a mean of where all runs agree on it."""
    counts = {record["metrics"][name].get("n") for record in runs.values() if name in record["metrics"]}
    count = counts.pop() if len(counts) == 1 else None
    return f"{name} (n = {count})" if count else name


def _data(record: dict) -> str:
    return record["data"]["name"] + (", a stand-in for the paper's" if record["data"]["stand_in"] else "")


class PaperTable(SphinxDirective):
    """Every number quoted from a paper, by paper and table."""

    def run(self):
        found: list[nodes.Node] = []
        papers = load_papers(folder_of(self.env))
        self.env.note_dependency(str(folder_of(self.env) / "papers.json"))
        for key, paper in papers.items():
            for table_key, entry in paper["tables"].items():
                found.append(nodes.rubric("", f"{paper['name']}, {entry['name']}"))
                found.append(nodes.paragraph("", f"{entry['caption']}. {paper['note']}"))
                found.append(_pivot(f"{key}:{table_key}", entry))
        return found


def _pivot(address: str, entry: dict) -> nodes.table:
    """A paper's cells, named row/column, with the columns side by side again."""
    places = {cell: cell.rpartition("/")[::2] for cell in entry["cells"]}
    columns = list(dict.fromkeys(column for _, column in places.values()))
    rows = []
    for name in dict.fromkeys(row for row, _ in places.values()):
        cells: list[tuple[str, str]] = [(name.replace("/", ", "), "")]
        for column in columns:
            cell = f"{name}/{column}" if name else column
            value = entry["cells"].get(cell)
            spread = {"sd": entry["sd"][cell]} if cell in entry.get("sd", {}) else {}
            text = "–" if value is None else render({"unit": entry.get("unit", ""), "format": entry.get("format", ""), "value": value, **spread})
            cells.append((text, anchor("paper", f"{address}:{cell}") if value is not None else ""))
        rows.append(cells)
    return table(["", *columns], rows)


def table(head: list[str], rows: list[list[tuple[str, str]]]) -> nodes.table:
    """A docutils table of (text, id) cells."""
    body = nodes.tbody("", *[_row(row) for row in rows])
    top = nodes.thead("", _row([(text, "") for text in head]))
    group = nodes.tgroup("", *[nodes.colspec(colwidth=1) for _ in head], top, body, cols=len(head))
    return nodes.table("", group, classes=["results-table"])


def _row(cells: list[tuple[str, str]]) -> nodes.row:
    return nodes.row("", *[nodes.entry("", nodes.paragraph("", text, ids=[i] if i else [])) for text, i in cells])


def setup(app):
    app.add_role("measured", Measured())
    app.add_role("paper", Paper())
    app.add_directive("measured-table", MeasuredTable)
    app.add_directive("paper-table", PaperTable)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
