"""Which run is worth the next minutes, and several runs at once, each in a process of its own."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from mmvae_lite.experiments import EXPERIMENTS, find
from mmvae_lite.experiments.running import Run, runs_folder

SEEDS = (0, 1, 2)
LEAST_SECONDS = 20  # a process that imports torch and reads its data has done nothing by then
GRACE = 60  # what a process may take beyond its minutes before it is stopped
COMPARATORS = ("mvae", "jmvae", "classifiers")


def wanted(device: str) -> Iterator[str]:
    """Names of experiments, the most valuable first: what a CPU can finish first there, what needs a GPU first on one."""
    labels = [f"dmvae_l-mnist-{f}" for f in ("0.2", "1", "10", "100")]
    interleaved = [f"{name}-interleaved" for name in labels[:2]]
    noisy = [f"{model}-noisy-{m}" for m in (3, 2, 4, 5) for model in ("dmvae_d", "mvae", "mmvae")]
    entangled = [f"{model}-{kind}" for kind in ("e", "me") for model in ("jmvae_zero", "tvae", "m2vae")]
    speech = ["pvae-speech", "pvae_no_contrast-speech", "jmvae_kl-speech", "vae_speech-speech", "vae_image-speech"]
    fashion = ["dmvae_l-fashion-0.2", "dmvae_l-fashion-0.2-interleaved", "dmvae_l-fashion-100"]
    first = [*speech[:1], *fashion, *speech[1:], *labels, *interleaved, *noisy] if device == "cuda" else [*labels, *interleaved, *noisy, *entangled, *speech]
    compared = [f"{model}-mnist-{f}" for f in ("0.2", "1", "10", "100") for model in COMPARATORS]
    return (name for name in dict.fromkeys([*first, *compared, *EXPERIMENTS]) if name in EXPERIMENTS)


def missing(device: str, profile: str, seeds: Sequence[int] = SEEDS) -> list[Run]:
    """The runs without a result, in order; of equal worth, those that have a checkpoint come first."""
    runs = [Run(find(name), profile, seed) for name in wanted(device) for seed in seeds]
    grouped = (list(g) for _, g in itertools.groupby(runs, key=lambda run: run.experiment.name))
    ordered = (sorted(group, key=lambda run: run.progress() is None) for group in grouped)
    return [run for group in ordered for run in group if run.result() is None]


@dataclass
class Worker:
    """A run in its own process."""

    run: Run
    process: subprocess.Popen
    log: TextIO
    deadline: float | int = field(default=float("inf"))

    @classmethod
    def start(cls, run: Run, device: str, seconds: float | int) -> Worker:
        log_path = run.checkpoint.with_suffix(".log")
        log_path.parent.mkdir(parents=True, exist_ok=True)
        log = log_path.open("w", encoding="utf-8")
        command = [
            sys.executable, "-m", "mmvae_lite", "reproduce", run.experiment.name, "--profile", run.profile, "--seed", str(run.seed),
            "--device", device, "--minutes", f"{seconds / 60:.3f}", "--json",
        ]  # fmt: skip
        threads = os.environ.get("OMP_NUM_THREADS", "1")  # several processes that each take all cores are slower than one
        env = {**os.environ, "OMP_NUM_THREADS": threads, "OMP_WAIT_POLICY": "PASSIVE"}
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=env, start_new_session=True)
        return cls(run, process, log, time.monotonic() + seconds + GRACE)

    def outcome(self) -> dict[str, object]:
        """What came of the process, once it has ended: its own words, or the last line of its log."""
        out, _ = self.process.communicate()
        self.log.close()
        try:
            said = json.loads(out)["runs"][0]
        except (ValueError, KeyError, IndexError):
            lines = Path(self.log.name).read_text(encoding="utf-8", errors="replace").replace("\r", "\n").split("\n")
            last = next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
            said = {"name": self.run.experiment.name, "profile": self.run.profile, "seed": self.run.seed,
                    "status": "failed", "message": f"{self.run.title}: {last}"}  # fmt: skip
        return said


def work(
    runs: Sequence[Run], device: str, minutes: float | int, workers: int, say: Callable[[str], None], stop: Callable[[], bool] = lambda: False
) -> list[dict[str, object]]:
    """Run so many at once until the time is over; returns what came of each that was started."""
    end, left, busy, done = time.monotonic() + 60 * minutes, list(runs), [], []
    runs_folder().mkdir(parents=True, exist_ok=True)
    asked = False
    while True:
        for worker in [w for w in busy if w.process.poll() is not None]:
            busy.remove(worker)
            done.append(worker.outcome())
            say(str(done[-1]["message"]))
        rest = end - time.monotonic()
        while left and len(busy) < workers and rest >= LEAST_SECONDS and not asked:
            busy.append(Worker.start(left.pop(0), device, rest))
            say(f"started {busy[-1].run.title}")
        if not busy:
            return done
        if stop() and not asked:
            asked = True
        for worker in busy:
            if (asked or time.monotonic() > worker.deadline) and worker.deadline < float("inf"):
                worker.process.send_signal(2)  # once: a second one would interrupt its saving
                worker.deadline = float("inf")
        time.sleep(0.2)
