"""Compare mmvae_lite with MultiVae on this machine: make bench, or .venv/bin/python benchmarks/run.py [PART ...]

Parts: steps, epochs, memory, imports, book, page (of the built book).  Each writes benchmarks/results/PART.json, from which the README and the book take
their tables.  Both sides compute the same objective with the same networks, weights and batch, which is shown first
(`same_loss`); then they take turns, so that a busy machine slows both.  Quiet the machine before you quote a time.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
LABEL = [("mvae", 1), ("jmvae", 1), ("dmvae_l", 1), ("mmvae", 1), ("mmvae", 10), ("mmvae", 30)]
CASES = [("label", m, k) for m, k in [("cvae", 1), *LABEL]] + [("conv", m, k) for m, k in LABEL]
BATCH, ITEMS = 128, 60_000
PEER_ITEMS = 12_800  # its epoch is timed on these and scaled: the time is linear in the steps


def step_of(loss, optimizer):
    """Forward, backward, one step of Adam."""

    def step() -> None:
        value = loss()
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        optimizer.step()

    return step


def steps(seconds: float) -> dict:
    """Milliseconds of one training step, ours, the peer's, and of the networks' passes alone, in turn."""
    from same_loss import check
    import torch
    from timing import interleaved, matrix_rate, ratio, spread
    from torch.utils.flop_counter import FlopCounterMode
    from twins import twins

    from mmvae_lite.parallel import networks_run

    rate, rows = matrix_rate(), []
    for data, model, k in CASES:
        agreed = check(twins(model, data, 16, min(k, 5)))
        pair = twins(model, data, BATCH, k)
        ours, theirs = pair.optimizers()
        with FlopCounterMode(display=False) as flops:
            pair.passes().backward()
        step = step_of(pair.ours, ours)

        def half(step=step, pair=pair) -> None:
            with networks_run(pair.our_model, torch.device("cpu"), precision="bfloat16"):
                step()

        tasks = {"ours": step, "theirs": step_of(pair.theirs, theirs), "passes": lambda p=pair: p.passes().backward(), "bfloat16": half}
        times = interleaved(tasks, rounds=200, seconds=seconds)
        row = {
            "model": pair.name, "data": data, "same_loss": agreed,
            "milliseconds": {name: spread(values) for name, values in times.items()},
            "peer_over_ours": ratio(times["theirs"], times["ours"]),
            "ours_over_passes": ratio(times["ours"], times["passes"]),
            "peer_over_passes": ratio(times["theirs"], times["passes"]),
            "peer_over_bfloat16": ratio(times["theirs"], times["bfloat16"]),
            "floor_milliseconds": 1e3 * flops.get_total_flops() / rate,
        }  # fmt: skip
        rows.append(row)
        print(f"{pair.name:9} {data:5} ours {row['milliseconds']['ours']['median']:8.1f} ms  peer {row['milliseconds']['theirs']['median']:8.1f} ms"
              f"  peer/ours {row['peer_over_ours']['median']:.2f}  ours/passes {row['ours_over_passes']['median']:.2f}", flush=True)  # fmt: skip
    return {"batch": BATCH, "matrix_gflops": rate / 1e9, "rows": rows}


def epochs(seconds: float) -> dict:
    """Seconds of one epoch of 60 000 items with image and label: `fit` against the peer's trainer, in turn."""
    import tempfile

    import peer
    from multivae.trainers import BaseTrainer, BaseTrainerConfig
    from timing import interleaved, ratio, spread
    from twins import batch_of, twins

    from mmvae_lite.training import fit

    rows = []
    for model in ("mvae", "jmvae", "dmvae_l"):
        pair = twins(model, "label", BATCH)
        data, some = batch_of("label", ITEMS), peer.dataset(batch_of("label", PEER_ITEMS))

        def theirs(pair=pair, some=some) -> None:
            with tempfile.TemporaryDirectory() as folder:
                config = BaseTrainerConfig(output_dir=folder, num_epochs=1, learning_rate=1e-3, per_device_train_batch_size=BATCH, no_cuda=True)
                BaseTrainer(pair.their_model, train_dataset=some, training_config=config).train()

        tasks = {"ours": lambda p=pair, d=data: fit(p.our_model, d, epochs=1, batch_size=BATCH, device="cpu", progress=False), "theirs": theirs}
        times = interleaved(tasks, rounds=5, warm=0, seconds=seconds, least=2)
        times["theirs"] = [t * ITEMS / PEER_ITEMS for t in times["theirs"]]
        rows.append({
            "model": pair.name, "data": "label",
            "seconds": {name: spread([t / 1e3 for t in values]) for name, values in times.items()},
            "peer_over_ours": ratio(times["theirs"], times["ours"]),
        })  # fmt: skip
        print(f"{pair.name:9} epoch: ours {rows[-1]['seconds']['ours']['median']:.1f} s  peer {rows[-1]['seconds']['theirs']['median']:.1f} s", flush=True)
    return {"batch": BATCH, "items": ITEMS, "peer_items": PEER_ITEMS, "rows": rows}


def memory(seconds: float) -> dict:
    """Peak resident memory of a process that trains for a few steps, imports included, in MB."""
    rows = []
    for data, model, k in CASES:
        peaks = {side: _child("memory", side, data, model, str(k)) for side in ("ours", "theirs")}
        rows.append({"model": f"{model}-k{k}" if model == "mmvae" else model, "data": data, "megabytes": peaks, "ours_over_peer": peaks["ours"] / peaks["theirs"]})
        print(f"{rows[-1]['model']:9} {data:5} ours {peaks['ours']:.0f} MB  peer {peaks['theirs']:.0f} MB", flush=True)
    return {"batch": BATCH, "rows": rows}


def imports(seconds: float) -> dict:
    """Seconds that an import takes in a new process, and those of torch alone, in turn."""
    from timing import spread

    code = "import time; t = time.perf_counter(); {}; print(time.perf_counter() - t)"
    wanted = {
        "torch": "import torch",
        "mmvae_lite": "import mmvae_lite, mmvae_lite.models, mmvae_lite.training",
        "multivae": f"import sys; sys.path.insert(0, {str(HERE)!r}); import peer",
    }
    taken: dict[str, list[float]] = {name: [] for name in wanted}
    for _ in range(7):
        for name, statement in wanted.items():
            out = subprocess.run([sys.executable, "-W", "ignore", "-c", code.format(statement)], capture_output=True, text=True, check=True)
            taken[name].append(float(out.stdout.split()[-1]))
    rows = {name: spread(values) for name, values in taken.items()}
    print({name: round(row["median"], 2) for name, row in rows.items()}, flush=True)
    return {"seconds": rows}


def _child(*args: str) -> float:
    out = subprocess.run([sys.executable, "-W", "ignore", str(HERE / "memory.py"), *args[1:]], capture_output=True, text=True)
    if out.returncode:
        raise SystemExit(out.stderr[-2000:])
    return float(out.stdout.split()[-1])


def book(seconds: float) -> dict:
    """Seconds of each notebook in the profile lite, of the pages and of the whole, two processes at a time."""
    if subprocess.call([sys.executable, "tools/build_book.py", "--profile", "lite", "--force"], cwd=HERE.parent):
        raise SystemExit("the book could not be built; see above")
    return json.loads((HERE.parent / "build" / "book-times.json").read_text(encoding="utf-8"))


def page(seconds: float) -> dict:
    """Milliseconds from input to pixels of every explorer of the built book, in headless Chromium."""
    import tempfile

    from timing import spread

    with tempfile.TemporaryDirectory() as folder:
        tests = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/browser/test_book.py", "-k", "test_page"]
        code = subprocess.call(tests, cwd=HERE.parent, env={"MMVAE_BOOK": str(HERE.parent / "_build" / "html"), **os.environ, "MMVAE_LATENCIES": folder})
        samples = {name: v for file in Path(folder).glob("*.json") for name, v in json.loads(file.read_text(encoding="utf-8")).items()}
    if code or not samples:
        raise SystemExit("the explorers' tests failed, or no book is built; see above")
    return {"milliseconds": {name: {key: spread([s[key] for s in v]) for key in ("draw", "painted")} for name, v in sorted(samples.items())}}


PARTS = {"steps": steps, "epochs": epochs, "memory": memory, "imports": imports, "book": book, "page": page}


def machine() -> dict:
    """What the numbers were measured on."""
    import torch

    commit = subprocess.run(["git", "rev-parse", "--short=10", "HEAD"], cwd=HERE, capture_output=True, text=True).stdout.strip()
    changed = subprocess.run(["git", "status", "--porcelain", "--", "mmvae_lite"], cwd=HERE.parent, capture_output=True, text=True).stdout.strip()
    from importlib.metadata import PackageNotFoundError, version

    try:
        peer = {"multivae": version("multivae")}
    except PackageNotFoundError:
        peer = {}  # the book and the page are measured without it
    return {
        "cores": os.cpu_count(), "threads": torch.get_num_threads(), "python": platform.python_version(), "torch": torch.__version__,
        **peer, "commit": commit + ("+" if changed else ""), "load_before": os.getloadavg()[0],
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS], help="default: all")
    parser.add_argument("--seconds", type=float, default=20.0, help="how long each case may take (default: %(default)s)")
    arguments = parser.parse_args()
    sys.path.insert(0, str(HERE))
    RESULTS.mkdir(exist_ok=True)
    for part in arguments.parts or PARTS:
        began, about = time.perf_counter(), machine()
        print(f"-- {part}, load {about['load_before']:.1f}", flush=True)
        result = {"machine": about, **PARTS[part](arguments.seconds)}
        result["minutes"] = round((time.perf_counter() - began) / 60, 2)
        (RESULTS / f"{part}.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
