"""Times taken in turn, so that whatever else the machine does falls on all sides alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

import torch


def interleaved(tasks: Mapping[str, Callable[[], object]], rounds: int, warm: int = 3, seconds: float = 60.0, least: int = 5) -> dict[str, list[float]]:
    """Milliseconds of every task in every round, one after the other in turn, in reversed order every second round.

    Stops early, after `least` rounds, when `seconds` are spent.
    """
    for _ in range(warm):
        for task in tasks.values():
            task()
    times: dict[str, list[float]] = {name: [] for name in tasks}
    end = time.perf_counter() + seconds
    for turn in range(rounds):
        for name in list(tasks)[:: 1 if turn % 2 else -1]:
            start = time.perf_counter()
            tasks[name]()
            times[name].append(1e3 * (time.perf_counter() - start))
        if turn + 1 >= least and time.perf_counter() > end:
            break
    return times


def spread(values: list[float]) -> dict[str, float]:
    """Median, 10th and 90th percentile and the number of values."""
    cuts = statistics.quantiles(values, n=10, method="inclusive")
    return {"median": statistics.median(values), "p10": cuts[0], "p90": cuts[-1], "n": len(values)}


def ratio(slow: list[float], fast: list[float]) -> dict[str, float]:
    """How many times longer the first takes, round by round."""
    return spread([a / b for a, b in zip(slow, fast)])


def matrix_rate(size: int = 1024, rounds: int = 20) -> float:
    """Floating-point operations per second of a square float32 matrix product, the best of several."""
    a, b = torch.rand(size, size), torch.rand(size, size)
    best = min(interleaved({"mm": lambda: a @ b}, rounds)["mm"])
    return 2 * size**3 / (best / 1e3)
