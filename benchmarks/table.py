"""The tables of benchmarks/results as text: python3 benchmarks/table.py writes them into README.md.

The book's page on speed shows the same tables.  Needs the standard library only.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"
NAMES = {"cvae": "CVAE", "mvae": "MVAE", "jmvae": "JMVAE", "dmvae_l": "DMVAE-L", "mmvae-k1": "MMVAE, K = 1", "mmvae-k10": "MMVAE, K = 10", "mmvae-k30": "MMVAE, K = 30"}
DATA = {"label": "image + label", "conv": "image + 3x32x32"}

Table = tuple[list[str], list[list[str]]]


def load(part: str) -> dict | None:
    path = RESULTS / f"{part}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def between(value: dict, digits: int = 2) -> str:
    """A median with the 10th and 90th percentile."""
    return f"{value['median']:.{digits}f}\u00a0({value['p10']:.{digits}f}\u2013{value['p90']:.{digits}f})"


def steps(result: dict) -> Table:
    header = ["model", "data", "ours, ms", "MultiVae, ms", "MultiVae / ours", "ours / passes", "ours in bfloat16, ms", "FLOP floor, ms", "losses differ by"]
    return header, [
        [NAMES[r["model"]], DATA[r["data"]], f"{r['milliseconds']['ours']['median']:.1f}", f"{r['milliseconds']['theirs']['median']:.1f}",
         between(r["peer_over_ours"]), between(r["ours_over_passes"]), f"{r['milliseconds']['bfloat16']['median']:.1f}", f"{r['floor_milliseconds']:.1f}", f"{r['same_loss']['relative']:.0e}"]
        for r in result["rows"]
    ]  # fmt: skip


def epochs(result: dict) -> Table:
    header = ["model", "data", "ours, s", "MultiVae, s", "MultiVae / ours"]
    return header, [
        [NAMES[r["model"]], DATA[r["data"]], f"{r['seconds']['ours']['median']:.1f}", f"{r['seconds']['theirs']['median']:.1f}", between(r["peer_over_ours"])]
        for r in result["rows"]
    ]


def memory(result: dict) -> Table:
    header = ["model", "data", "ours, MB", "MultiVae, MB", "ours / MultiVae"]
    return header, [
        [NAMES[r["model"]], DATA[r["data"]], f"{r['megabytes']['ours']:.0f}", f"{r['megabytes']['theirs']:.0f}", f"{r['ours_over_peer']:.2f}"]
        for r in result["rows"]
    ]


def imports(result: dict) -> Table:
    return ["import", "seconds"], [[name, between(row)] for name, row in result["seconds"].items()]


def book(result: dict) -> Table:
    return ["step", "seconds"], [[step, f"{seconds:.1f}"] for step, seconds in result["seconds"].items()]


def page(result: dict) -> Table:
    header = ["explorer", "draw, ms", "input to painted frame, ms"]
    return header, [[name, between(row["draw"], 1), between(row["painted"], 1)] for name, row in result["milliseconds"].items()]


TABLES = {"steps": steps, "epochs": epochs, "memory": memory, "imports": imports, "book": book, "page": page}


def measured_on(result: dict) -> str:
    """One sentence about the machine."""
    m = result["machine"]
    peer = f"MultiVae {m['multivae']}, " if "multivae" in m else ""
    return (
        f"Measured on {m['cores']} cores, torch {m['torch']} with {m['threads']} threads, {peer}"
        f"at commit {m['commit']}; {m['load_before']:.1f} processes were busy before."
    )


def markdown(table: Table) -> str:
    header, rows = table
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [header, ["---"] * len(header), *rows])


def block() -> str:
    """The README's part: the steps with labels, and where the rest stands."""
    result = load("steps")
    header, rows = steps(result)
    kept = [i for i, name in enumerate(header) if name not in ("FLOP floor, ms", "ours in bfloat16, ms", "losses differ by")]
    small = [header[i] for i in kept], [[row[i] for i in kept] for row in rows]
    return f"{markdown(small)}\n\n{measured_on(result)}"


def main() -> None:
    readme = ROOT / "README.md"
    text = readme.read_text(encoding="utf-8")
    if BEGIN not in text:
        raise SystemExit(f"README.md lacks the mark {BEGIN}")
    readme.write_text(re.sub(f"{BEGIN}.*?{END}", lambda _: f"{BEGIN}\n{block()}\n{END}", text, flags=re.S), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
