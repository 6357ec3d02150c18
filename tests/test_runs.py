"""What the command asks of a run and of the queue, with runs that take no time: settings, minutes, order, exit codes."""

from __future__ import annotations

import itertools
import json
import signal
import subprocess
import sys
import time
from argparse import Namespace

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from mmvae_lite import cli, results
from mmvae_lite.data.parts import MultimodalSet, Part
from mmvae_lite.distributions import NormalLikelihood
from mmvae_lite.experiments import EXPERIMENTS, queue, running
from mmvae_lite.experiments._experiment import Experiment, Training
from mmvae_lite.experiments.running import Run, Unfinished

NAME = "m2vae-mog"


@pytest.fixture(autouse=True)
def folders(monkeypatch, tmp_path):
    for variable, folder in (("MMVAE_RUNS", "runs"), ("MMVAE_RESULTS", "results"), ("MMVAE_CACHE", "cache")):
        monkeypatch.setenv(variable, str(tmp_path / folder))
    monkeypatch.delenv("MMVAE_DATA", raising=False)
    return tmp_path


class Toy(nn.Module):
    """Learns the mean of two numbers."""

    modality, event_shapes, likelihood = "x", {"x": (2,)}, NormalLikelihood()

    def __init__(self):
        super().__init__()
        self.w, self.steps = nn.Parameter(torch.zeros(2)), 0

    def loss(self, batch, target=None, generator=None):
        self.steps += 1
        return {"loss": (batch["x"] - self.w).square().mean()}


def toy(stand_in=False, data_seconds=0.0, measure=None, **training):
    part = Part({"x": torch.ones(16, 2)})

    def data(profile, seed):
        time.sleep(data_seconds)
        return MultimodalSet("toy", "ones", stand_in, part, part)

    return Experiment(
        "toy", "m2vae", "Table 0", "mog", data=data, model=lambda profile, data: Toy(),
        training=lambda profile, data, seed: Training(**{"epochs": 2, "batch_size": 8} | training),
        measure=measure or (lambda model, data, profile, seed: {"w": {"value": float(model.w.sum()), "n": 16}}), metrics=("w",),
    )  # fmt: skip


# One run ---------------------------------------------------------------------------------------------


def test_a_finished_run_is_loaded_unless_it_is_to_begin_again():
    run = Run(toy(), "smoke")
    assert running.train(run, "cpu", progress=False).model.steps == 4
    assert running.train(run, "cpu", progress=False).model.steps == 0
    assert running.train(run, "cpu", progress=False, restart=True).model.steps == 4


def test_the_settings_of_an_experiment_reach_the_training():
    called = set()

    def corrupt(batch, generator):
        called.add("corrupt")
        return batch

    def pair(index, generator):
        called.add("pair")
        return {"x": torch.arange(16)}

    def step(*arguments, **more):
        called.add("step")
        return {"loss": torch.zeros(())}

    running.train(Run(toy(corrupt=corrupt, pair=pair, schedule=lambda model, epoch: called.add("schedule")), "smoke"), "cpu", progress=False)
    optimizers = lambda model: called.add("optimizers") or {"w": torch.optim.SGD(model.parameters(), 0.1)}  # noqa: E731
    running.train(Run(toy(optimizers=optimizers, step=step), "smoke", 1), "cpu", progress=False)
    assert called == {"corrupt", "pair", "schedule", "optimizers", "step"}


def test_the_time_that_data_take_is_part_of_the_time():
    with pytest.raises(Unfinished, match="of 50 epochs are trained"):
        running.train(Run(toy(data_seconds=0.4, epochs=50), "smoke"), "cpu", seconds=0.4, progress=False)


def test_standard_output_is_for_results(capsys):
    running.train(Run(toy(), "smoke"), "cpu", progress=True)
    said = capsys.readouterr()
    assert said.out == "" and "epoch" in said.err


def test_a_result_file_counts_what_there_was(monkeypatch):
    minutes, write = [], running.write_result
    monkeypatch.setattr(running, "write_result", lambda *a, **k: minutes.append(k["minutes"]) or write(*a, **k))

    def measure(model, data, profile, seed):
        assert not model.training
        time.sleep(0.12)
        return {"w": {"value": 1.0, "n": 16}}

    for stand_in in (False, True):
        run = Run(toy(stand_in=stand_in, measure=measure, epochs=3), "smoke", int(stand_in))
        record = results.read_result(running.reproduce(run, "cpu", progress=False))
        assert record["metrics"]["epochs"]["value"] == 3 and record["metrics"]["parameters"]["value"] == 2
        assert record["data"]["stand_in"] is stand_in and record["device"] == "cpu"
    assert all(0.12 / 60 <= found < 0.1 for found in minutes)


def test_a_result_that_the_repository_records_is_one(monkeypatch, tmp_path):
    run = Run(toy(), "paper", 2)
    assert run.result() is None
    monkeypatch.setattr(running, "RECORDED", tmp_path / "book")
    recorded = tmp_path / "book" / "toy" / "paper-2.json"
    recorded.parent.mkdir(parents=True)
    recorded.write_text("{}")
    assert run.result() == recorded


# The queue -------------------------------------------------------------------------------------------


class Clock:
    """Time that passes only while one sleeps."""

    def __init__(self):
        self.now = 100.0

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


class Quick:
    """A worker without a process: it is done after so many seconds, or a second after it was interrupted."""

    log: list = []
    seconds = 10.0

    @classmethod
    def start(cls, run, device, seconds):
        self = cls()
        self.run, self.process, self.signals = run, self, []
        self.end, self.deadline = queue.time.monotonic() + cls.seconds, queue.time.monotonic() + seconds + queue.GRACE
        cls.log.append(("start", run.seed))
        return self

    def poll(self):
        return 0 if queue.time.monotonic() >= self.end else None

    def send_signal(self, number):
        self.signals.append(number)
        self.end = queue.time.monotonic() + 1
        self.log.append(("signal", self.run.seed))

    def outcome(self):
        self.log.append(("end", self.run.seed))
        return {"seed": self.run.seed, "status": "done", "message": f"seed {self.run.seed}"}


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(queue, "time", Clock())
    monkeypatch.setattr(queue, "Worker", type("Counted", (Quick,), {"log": []}))
    return queue.Worker


def runs(n):
    return [Run(EXPERIMENTS[NAME], "smoke", seed) for seed in range(n)]


def test_so_many_work_at_once_and_in_order(quick):
    done = queue.work(runs(5), "cpu", 10, 2, lambda text: None)
    assert [d["seed"] for d in done] == [0, 1, 2, 3, 4]
    assert [seed for what, seed in quick.log if what == "start"] == [0, 1, 2, 3, 4]
    assert [d["seed"] for d in queue.work(runs(3), "cpu", 10, 1, lambda text: None)] == [0, 1, 2], "one after the other"
    busy = list(itertools.accumulate(1 if what == "start" else -1 for what, _ in quick.log))
    assert max(busy) == 2


def test_none_is_started_that_could_do_nothing(quick):
    quick.seconds = 45.0
    done = queue.work(runs(5), "cpu", 1, 1, lambda text: None)  # after 45 of 60 seconds too few are left
    assert [d["seed"] for d in done] == [0]


def test_one_that_does_not_end_is_interrupted_once(quick):
    quick.seconds = 1e6
    queue.work(runs(1), "cpu", 1, 1, lambda text: None)
    assert quick.log == [("start", 0), ("signal", 0), ("end", 0)]
    assert 160 + queue.GRACE <= queue.time.now < 165 + queue.GRACE


def test_whoever_is_asked_to_stop_starts_none_and_interrupts_each_once(quick):
    queue.work(runs(5), "cpu", 10, 2, lambda text: None, stop=lambda: queue.time.now > 112)
    assert [entry for entry in quick.log if entry[0] == "start"] == [("start", seed) for seed in (0, 1, 2, 3)]
    assert sorted(entry for entry in quick.log if entry[0] == "signal") == [("signal", 2), ("signal", 3)]


def test_a_worker_is_told_everything(monkeypatch, as_a_reader):
    made = []
    monkeypatch.setattr(queue.subprocess, "Popen", lambda command, **more: made.append((command, more)))
    run = Run(EXPERIMENTS[NAME], "smoke", 2)
    worker = queue.Worker.start(run, "cuda:1", 90.0)
    worker.log.close()
    (command, more) = made[0]
    words = dict(zip(command[4:], command[5:]))
    assert command[1:5] == ["-m", "mmvae_lite", "reproduce", NAME]
    assert (words["--profile"], words["--seed"], words["--device"], float(words["--minutes"])) == ("smoke", "2", "cuda:1", 1.5)
    assert command[-1] == "--json" and more["start_new_session"] and more["env"]["OMP_NUM_THREADS"]
    assert worker.deadline > time.monotonic() + 90


def test_what_has_a_checkpoint_comes_first_among_equals(monkeypatch):
    monkeypatch.setattr(queue, "wanted", lambda device: iter([NAME, "m2vae-e"]))
    monkeypatch.setattr(Run, "progress", lambda self: {"epoch": 1} if self.seed == 2 else None)
    found = [(run.experiment.name, run.seed) for run in queue.missing("cpu", "smoke")]
    assert found == [(name, seed) for name in (NAME, "m2vae-e") for seed in (2, 0, 1)]


# The command -----------------------------------------------------------------------------------------


def mmvae(capsys, *arguments):
    code = cli.main([*arguments])
    said = capsys.readouterr()
    assert "Traceback" not in said.err
    return code, said.out, said.err


@pytest.fixture
def reproduced(monkeypatch):
    """`reproduce` of seed 0 fails, of 1 is not done in time, of 2 is interrupted; returns what it was given."""
    given = []

    def reproduce(run, device, seconds):
        given.append((run.experiment.name, run.seed, seconds))
        ends = {0: RuntimeError("no luck"), 1: Unfinished(f"{run.title}: later"), 2: KeyboardInterrupt()}
        if run.seed in ends:
            raise ends[run.seed]
        return "result.json"

    monkeypatch.setattr(running, "reproduce", reproduce)
    monkeypatch.setattr(results, "read_result", lambda path: {"metrics": {"elbo": {"value": 1.0}}, "data": {"stand_in": False}})
    return given


@pytest.mark.parametrize(
    ("seeds", "code", "statuses"),
    [
        ("3,4", 0, ["done", "done"]),
        ("0,1,3", 1, ["failed", "unfinished", "done"]),
        ("1,0", 1, ["unfinished", "failed"]),
        ("1,3", 3, ["unfinished", "done"]),
        ("3,2,4", 130, ["done", "interrupted"]),
        ("3,3,4", 0, ["done", "done"]),
    ],
)
def test_the_worst_of_several_runs_is_the_exit_code(capsys, reproduced, seeds, code, statuses):
    found, out, err = mmvae(capsys, "reproduce", NAME, "--profile", "smoke", "--seeds", seeds, "--json")
    assert (found, [run["status"] for run in json.loads(out)["runs"]]) == (code, statuses)
    assert ("RuntimeError: no luck" in err) == ("failed" in statuses)


def test_several_names_share_the_minutes(capsys, reproduced):
    assert mmvae(capsys, "reproduce", NAME, "jmvae_zero-mog", "--profile", "smoke", "--seeds", "3,4", "--minutes", "2")[0] == 0
    assert [(name, seed) for name, seed, _ in reproduced] == [(name, seed) for name in (NAME, "jmvae_zero-mog") for seed in (3, 4)]
    seconds = [seconds for _, _, seconds in reproduced]
    assert seconds == sorted(seconds, reverse=True) and seconds[0] > seconds[-1] and 110 < seconds[-1] <= seconds[0] <= 120


def test_a_run_trained_in_part_is_not_measured(capsys, monkeypatch):
    monkeypatch.setattr(Run, "progress", lambda self: {"epoch": 0, "step": 3, "seconds": 1.0})
    code, _, err = mmvae(capsys, "evaluate", NAME, "--profile", "smoke")
    assert code == 1 and "is trained for 0 of 1 epochs" in err and "--resume" in err


def test_restart_and_the_minutes_reach_the_training(capsys, monkeypatch):
    given = {}

    def train(run, device, seconds, restart):
        given.update(seconds=seconds, restart=restart)
        raise Unfinished("later")

    monkeypatch.setattr(running, "train", train)
    monkeypatch.setattr(Run, "progress", lambda self: {"epoch": 0})
    assert mmvae(capsys, "train", NAME, "--profile", "smoke", "--restart", "--minutes", "1.5")[0] == 3
    assert given == {"seconds": 90.0, "restart": True}
    assert mmvae(capsys, "train", NAME, "--profile", "smoke", "--resume")[0] == 3
    assert given == {"seconds": float("inf"), "restart": False}


def test_a_termination_is_saved_as_ctrl_c_is_and_the_handler_is_put_back(capsys, monkeypatch):
    monkeypatch.setattr(running, "train", lambda *a, **k: signal.raise_signal(signal.SIGTERM))
    before = signal.getsignal(signal.SIGTERM)
    code, _, err = mmvae(capsys, "train", NAME, "--profile", "smoke")
    assert code == 130 and "interrupted, nothing was trained yet" in err
    assert signal.getsignal(signal.SIGTERM) is before


def test_weights_that_two_layers_share_are_written_for_both(folders):
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    net[1].weight = net[0].weight
    cli._save_weights(net, folders / "w.safetensors")
    kept = load_file(folders / "w.safetensors")
    assert all(torch.equal(kept[name], x) for name, x in net.state_dict().items()) and set(kept) == set(net.state_dict())


def test_only_the_papers_sizes_on_its_data_are_comparable():
    noted = {(profile, stand_in): cli._notes(Run(toy(), profile), stand_in) for profile in results.PROFILES for stand_in in (False, True)}
    assert noted["paper", False] == "" and all(text for key, text in noted.items() if key != ("paper", False))
    assert "the lite size" in noted["lite", False] and "stand in" not in noted["lite", False] and "size" not in noted["paper", True]


@pytest.fixture
def worked(monkeypatch):
    """`--next` with three runs and a queue that says what it is told; returns what it was asked for."""
    asked = {}

    def missing(device, profile, seeds):
        asked.update(profile=profile, seeds=tuple(seeds))
        return runs(3)

    def work(runs, device, minutes, workers, say, stop):
        asked.update(minutes=minutes, workers=workers)
        if asked.get("interrupt"):
            signal.raise_signal(signal.SIGINT)
            assert stop()
            if asked["interrupt"] == 2:
                signal.raise_signal(signal.SIGINT)
        return [{"status": status, "message": status} for status in asked["statuses"]]

    monkeypatch.setattr(queue, "missing", missing)
    monkeypatch.setattr(queue, "work", work)
    return asked


@pytest.mark.parametrize(
    ("statuses", "code"),
    [(["done"] * 3, 0), (["done", "unfinished"], 3), (["failed", "unfinished"], 1), (["unfinished", "failed", "done"], 1), (["done"], 0)],
)
def test_next_says_how_many_are_missing_and_ends_with_the_worst(capsys, worked, statuses, code):
    worked["statuses"] = statuses
    found, out, _ = mmvae(capsys, "reproduce", "--next", "--device", "cpu")
    done = statuses.count("done")
    assert found == code and out.strip() == f"{done} of {len(statuses)} runs finished, {3 - done} are still missing"
    assert worked["profile"] == "paper" and worked["seeds"] == queue.SEEDS and worked["minutes"] == 9.0


def test_the_first_ctrl_c_lets_the_workers_save_and_the_second_interrupts(capsys, worked):
    before = signal.getsignal(signal.SIGINT)
    worked.update(statuses=["done"], interrupt=1)
    assert mmvae(capsys, "reproduce", "--next", "--device", "cpu")[0] == 130
    worked.update(interrupt=2)
    code, out, err = mmvae(capsys, "reproduce", "--next", "--device", "cpu")
    assert code == 130 and out == "" and "interrupted" in err
    assert signal.getsignal(signal.SIGINT) is before


def test_settings_go_with_a_name(capsys):
    code, _, err = mmvae(capsys, "reproduce", "--next", "--set", "beta=1")
    assert code == 2 and "name it, without --next" in err


def test_the_list_shows_the_results_of_every_seed(capsys, folders):
    path = folders / "results" / NAME / "lite-4.json"
    path.parent.mkdir(parents=True)
    path.write_text("{}")
    _, out, _ = mmvae(capsys, "list", "--paper", "m2vae", "--json")
    (row,) = [row for row in json.loads(out)["experiments"] if row["name"] == NAME]
    assert "lite-4" in row["results"]


def test_a_reader_who_had_enough_is_no_error():
    process = subprocess.Popen([sys.executable, "-m", "mmvae_lite", "list"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    assert process.stderr.read() == b"" and process.wait(60) == 0
    process.stderr.close()


def test_minutes_are_seconds_and_a_seed_counts_once():
    assert cli._seconds(Namespace(minutes=2.5)) == 150 and cli._seconds(Namespace(minutes=None)) == float("inf")
    assert cli._seeds("1, 2,1") == (1, 2)
