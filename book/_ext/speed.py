"""Sphinx extension: the directive `benchmark-table`, which shows a part of benchmarks/results as a table.

```{benchmark-table} steps
```
"""

from __future__ import annotations

import sys
from pathlib import Path

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.util.docutils import SphinxDirective

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


class BenchmarkTable(SphinxDirective):
    """The rows of one result file, and what they were measured on."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        sys.path.insert(0, str(BENCHMARKS))
        try:
            import table
        finally:
            sys.path.remove(str(BENCHMARKS))
        part = self.arguments[0]
        result = table.load(part) if part in table.TABLES else None
        if result is None:
            raise self.error(f"benchmarks/results has no {part}.json; run make bench, or name one of {', '.join(table.TABLES)}")
        self.env.note_dependency(str(table.RESULTS / f"{part}.json"))
        text = f"{table.markdown(table.TABLES[part](result))}\n\n{table.measured_on(result)}"
        box = nodes.container(classes=["wide-table"])
        self.state.nested_parse(StringList(text.splitlines(), source=self.get_source_info()[0]), self.content_offset, box)
        return [box]


def setup(app):
    app.add_directive("benchmark-table", BenchmarkTable)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
