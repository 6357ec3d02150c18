"""A run as the person at the keyboard meets it: the line that says where it is, and Ctrl-C."""

from __future__ import annotations

import contextlib
import math
import signal
import sys
import threading
import time
from collections.abc import Iterator

from mmvae_lite.checkpoint import Run


@contextlib.contextmanager
def held_interrupts() -> Iterator[list[bool]]:
    """Ctrl-C waits for the end of the step, where the run can be saved; a second one does not."""
    pressed: list[bool] = []

    def press(*_: object) -> None:
        if pressed:
            raise KeyboardInterrupt
        pressed.append(True)

    ours = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if ours:
        signal.signal(signal.SIGINT, press)
    try:
        yield pressed
    finally:
        if ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)


class Progress:
    """One line that says where the run is, what the loss is and how long it still takes."""

    def __init__(self, run: Run, shown: bool) -> None:
        self.run, self.shown, self.next = run, shown, 0.0
        self.pause = 0.1 if sys.stdout.isatty() else 1.0
        self.start, self.done = time.monotonic(), run.epoch * run.steps + run.step

    def update(self) -> None:
        if self.shown and time.monotonic() >= self.next:
            self.next = time.monotonic() + self.pause
            self._write()

    def close(self) -> None:
        if self.shown:
            self._write()
            print(flush=True)

    def _write(self) -> None:
        run, total = self.run, self.run.epochs * self.run.steps
        done = run.epoch * run.steps + run.step
        rate = (time.monotonic() - self.start) / max(1, done - self.done)
        filled = 24 * done // total
        left = f"{_clock(rate * (total - done))} left" if done < total else f"took {_clock(run.history.seconds)}"
        line = f"epoch {min(run.epoch + 1, run.epochs)}/{run.epochs} {'█' * filled}{'░' * (24 - filled)} loss {self._loss():.2f}, {left}"
        print(f"\r{line:<90}", end="", flush=True)

    def _loss(self) -> float:
        if self.run.sums:
            return float(self.run.sums["loss"]) / self.run.step
        return self.run.history.epochs[-1]["loss"] if self.run.history.epochs else math.nan


def _clock(seconds: float) -> str:
    seconds = round(seconds)
    return f"{seconds} s" if seconds < 100 else f"{seconds // 60} min {seconds % 60} s"
