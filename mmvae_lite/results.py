"""Result files: what was measured, and on what, so that prose never types a number.

One run writes one file, FOLDER/<experiment>/<profile>-<seed>.json.  A page takes a value from it by
{measured}`experiment/profile-seed:metric`.
"""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mmvae_lite

#: The runs that come with a clone of the repository; an installed wheel has none.
RECORDED = Path(__file__).resolve().parent.parent / "book" / "results"
PROFILES = ("smoke", "lite", "paper")
REQUIRED = ("experiment", "profile", "seed", "metrics", "device", "minutes", "library", "commit", "data")
_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]*")


def results_folder() -> Path:
    """Where results go: the folder that MMVAE_RESULTS names, else `results` in the working folder."""
    return Path(os.environ.get("MMVAE_RESULTS") or "results")


def write_result(
    experiment: str,
    profile: str,
    seed: int,
    metrics: Mapping[str, float | Mapping[str, Any]],
    *,
    data: str,
    stand_in: bool,
    device: str,
    minutes: float,
    folder: str | Path | None = None,
) -> Path:
    """Write one result file and return its path.

    `metrics` maps a name to a number or to a dict of `value` and, where they apply, `n` (items or draws it
    is a mean of), `sd` and `unit` ("", "%", "nats", "bits", "s", "ms").  `data` names the data used and
    `stand_in` says that it stands in for the data the paper used.

    Raises ValueError for a malformed name or a metric that is not finite; nothing is written then.
    """
    _check_name("experiment", experiment)
    if profile not in PROFILES:
        raise ValueError(f"profile: found {profile!r}, wanted one of {', '.join(PROFILES)}")
    if not metrics:
        raise ValueError("metrics: found none, wanted at least one")
    record = {
        "experiment": experiment,
        "profile": profile,
        "seed": int(seed),
        "metrics": {name: _metric(name, m) for name, m in metrics.items()},
        "device": str(device),
        "minutes": round(float(minutes), 2),
        "library": mmvae_lite.__version__,
        "commit": _commit(),
        "data": {"name": data, "stand_in": bool(stand_in)},
    }
    path = Path(folder or results_folder()) / experiment / f"{profile}-{int(seed)}.json"
    _write_atomically(path, json.dumps(record, indent=2, ensure_ascii=False) + "\n")
    return path


def read_result(path: str | Path) -> dict[str, Any]:
    """Read a result file.

    Raises FileNotFoundError when there is none, ValueError when it lacks a field.
    """
    path = Path(path)
    record = json.loads(path.read_text(encoding="utf-8"))
    missing = [field for field in REQUIRED if field not in record]
    if missing:
        raise ValueError(f"{path}: lacks {', '.join(missing)}; write it again with write_result")
    return record


def _check_name(kind: str, name: str) -> None:
    if not _NAME.fullmatch(name):
        raise ValueError(f"{kind}: found {name!r}, wanted small letters, digits and - _ . only")


def _metric(name: str, metric: float | Mapping[str, Any]) -> dict[str, Any]:
    _check_name("metric", name)
    entry = dict(metric) if isinstance(metric, Mapping) else {"value": metric}
    if "value" not in entry:
        raise ValueError(f"metric {name!r}: lacks a value")
    entry["value"] = float(entry["value"])
    if not math.isfinite(entry["value"]):
        raise ValueError(f"metric {name!r}: found {entry['value']}, wanted a finite number")
    return entry


def _commit() -> str:
    """The commit of the working copy that the library runs from, with + when it has local changes."""
    root = Path(mmvae_lite.__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return "unknown"
    try:
        head = subprocess.run(
            ["git", "rev-parse", "--short=10", "HEAD"], cwd=root, capture_output=True, text=True, check=True
        ).stdout.strip()
        changed = subprocess.run(
            ["git", "status", "--porcelain", "--", "mmvae_lite", "notebooks"],
            cwd=root, capture_output=True, text=True, check=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head + ("+" if changed else "")


def _write_atomically(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, part = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(part, path)
    except BaseException:
        Path(part).unlink(missing_ok=True)
        raise
