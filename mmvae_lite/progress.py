"""A run as the person at the keyboard meets it: the line that says where it is, and what stops it early."""

from __future__ import annotations

import contextlib
import math
import signal
import sys
import threading
import time
from collections.abc import Iterator

from mmvae_lite.state import Run


@contextlib.contextmanager
def held_signals() -> Iterator[list[int]]:
    """Ctrl-C, and the termination that a scheduler sends, wait for the end of the step, where the run can be saved.

    Gives the list that their numbers go to.  A second one does not wait.  Where a program handles them itself, it goes on to.
    """
    pressed: list[int] = []

    def press(number: int, _: object) -> None:
        if pressed:
            raise stopped(number)
        pressed.append(number)

    ours = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    here = threading.current_thread() is threading.main_thread()
    ours = {number: handler for number, handler in ours.items() if here and signal.getsignal(number) is handler}
    for number in ours:
        signal.signal(number, press)
    try:
        yield pressed
    finally:
        for number, handler in ours.items():
            signal.signal(number, handler)
    if pressed:  # after the last step
        raise stopped(pressed[0])


def stopped(number: int) -> BaseException:
    """What a signal ends a program with: Ctrl-C a KeyboardInterrupt, a termination the exit status that a shell gives it."""
    return KeyboardInterrupt() if number == signal.SIGINT else SystemExit(128 + number)


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
            return self.run.means()["loss"]
        return self.run.history.epochs[-1]["loss"] if self.run.history.epochs else math.nan


def _clock(seconds: float) -> str:
    seconds = round(seconds)
    return f"{seconds} s" if seconds < 100 else f"{seconds // 60} min {seconds % 60} s"
