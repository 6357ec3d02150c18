"""The command `mmvae` as it is typed: every verb, its exit codes, what it says, and what an interruption leaves behind."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mmvae_lite import cli
from mmvae_lite.experiments import EXPERIMENTS, find, queue
from mmvae_lite.experiments.running import Run

ROOT = Path(__file__).resolve().parent.parent
NAME = "m2vae-mog"  # trains in a second and needs no data
LONG = ["--set", "epochs=400", "--set", "batch_size=64"]  # of the paper profile: minutes


@pytest.fixture(autouse=True)
def folders(monkeypatch, tmp_path):
    for variable, folder in (("MMVAE_RUNS", "runs"), ("MMVAE_RESULTS", "results"), ("MMVAE_CACHE", "cache")):
        monkeypatch.setenv(variable, str(tmp_path / folder))
    monkeypatch.delenv("MMVAE_DATA", raising=False)
    return tmp_path


def mmvae(capsys, *arguments):
    """Exit code, standard output and standard error of the command in this process."""
    code = cli.main([*arguments])
    said = capsys.readouterr()
    assert "Traceback" not in said.err
    return code, said.out, said.err


def test_list_shows_every_experiment_with_its_table(capsys):
    code, out, _ = mmvae(capsys, "list")
    assert code == 0 and all(name in out for name in EXPERIMENTS)
    code, out, _ = mmvae(capsys, "list", "--paper", "pvae", "--json")
    rows = json.loads(out)["experiments"]
    assert code == 0 and {r["paper"] for r in rows} == {"pvae"} and rows[0]["source"].startswith("Table 1")
    assert {"name", "at_hand", "metrics", "options", "deviations", "results", "profiles"} <= set(rows[0])


def test_data_says_what_is_here_and_where_the_rest_comes_from(capsys):
    code, out, _ = mmvae(capsys, "data", "--json")
    rows = {r["name"]: r for r in json.loads(out)["data"]}
    assert code == 0 and rows["mnist"]["state"] == "missing" and "mmvae data fetch mnist" in rows["mnist"]["words"]
    assert rows["mnist"]["urls"] and rows["image-label"]["state"] == "stand-in" and rows["mog"]["state"] == "real"


def test_fetch_says_what_it_takes_from_where_before_it_does(capsys, monkeypatch):
    fetched = []
    monkeypatch.setattr("mmvae_lite.experiments._data.fetch", lambda source: fetched.append(source.name) or Path(source.name))
    code, out, err = mmvae(capsys, "data", "fetch", "mnist")
    assert code == 0 and len(fetched) == 4 and err.count("https://") == 4 and out.split() == fetched
    code, _, err = mmvae(capsys, "data", "fetch", "faces")
    assert code == 1 and "MMVAE_DATA" in err and err.count("\n") == 1


def test_train_evaluate_explore_and_reproduce_one_experiment(capsys, folders):
    weights = folders / "weights.safetensors"
    code, out, _ = mmvae(capsys, "train", NAME, "--profile", "smoke", "--out", str(weights))
    assert code == 0 and "trained 1 epochs" in out and weights.is_file()
    code, _, err = mmvae(capsys, "train", NAME, "--profile", "smoke")
    assert code == 2 and "add --resume to go on from it or --restart to begin again" in err
    code, out, _ = mmvae(capsys, "train", NAME, "--profile", "smoke", "--resume", "--json")
    assert code == 0 and json.loads(out)["status"] == "trained"
    code, out, _ = mmvae(capsys, "evaluate", NAME, "--profile", "smoke", "--json")
    assert code == 0 and set(json.loads(out)["metrics"]) == set(EXPERIMENTS[NAME].metrics)
    code, out, _ = mmvae(capsys, "explore", NAME, "--profile", "smoke", "--out", str(folders / "page"))
    assert code == 0 and sorted(p.name for p in (folders / "page").iterdir()) == [f"{NAME}.bin", f"{NAME}.json"]
    assert set(json.loads((folders / "page" / f"{NAME}.json").read_text())["decoders"]) == {"w", "x"}
    code, out, _ = mmvae(capsys, "reproduce", NAME, "--profile", "smoke", "--json")
    run = json.loads(out)["runs"][0]
    assert code == 0 and run["status"] == "done" and json.loads(Path(run["result"]).read_text())["metrics"] == run["metrics"]
    code, out, _ = mmvae(capsys, "list", "--paper", "m2vae")
    assert "smoke-0" in out
    assert not [p for p in folders.rglob("*") if p.suffix in (".part", ".tmp")]


def test_several_seeds_give_several_results_and_a_setting_another_name(capsys, folders):
    code, out, _ = mmvae(capsys, "reproduce", NAME, "--profile", "smoke", "--seeds", "1,2", "--set", "beta=0.5", "--json")
    assert code == 0 and [r["seed"] for r in json.loads(out)["runs"]] == [1, 2]
    assert sorted(p.name for p in (folders / "results" / f"{NAME}--beta-0.5").iterdir()) == ["smoke-1.json", "smoke-2.json"]


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["train", "m2vae-mgo"], "unknown experiment 'm2vae-mgo'; did you mean 'm2vae-mog'?"),
        (["train", NAME, "--set", "alfa=1"], "unknown option of m2vae-mog 'alfa'"),
        (["train", NAME, "--set", "alpha"], "wanted OPTION=VALUE"),
        (["train", NAME, "--profile", "huge"], "invalid choice: 'huge'"),
        (["train", NAME, "--minutes", "0"], "wanted a number above 0"),
        (["reproduce"], "wants names of experiments or --next"),
        (["reproduce", "--next", NAME], "wants names of experiments or --next"),
        (["reproduce", NAME, "--seeds", "a"], "wanted whole numbers"),
        (["train", NAME, "--seed", "-1"], "found '-1', wanted a whole number from 0"),
        (["train", NAME, "--seed", str(2**32)], "wanted a whole number from 0 to 4294967295"),
        (["train", NAME, "--minutes", "soon"], "found 'soon', wanted a number above 0"),
        (["train", NAME, "--minutes", "nan"], "found 'nan', wanted a number above 0"),
        (["train", NAME, "--device", "banana"], "found 'banana', wanted auto, cpu or cuda"),
        (["train", NAME, "--set", "beta=much"], "option beta of m2vae-mog: found 'much', wanted a number"),
        (["train", "dmvae_d-street", "--set", "preset=foo"], "unknown preset 'foo', known: 'code', 'paper'"),
        (["reproduce", "--next", "--workers", "0"], "found '0', wanted a whole number of at least 1"),
        (["list", "--paper", "nobody"], "wanted one of pvae"),
        (["data", "fetch"], "wants the NAME"),
        (["train", NAME, "--out", "/nowhere/at/all/w.safetensors"], "there is no folder"),
        (["fly"], "invalid choice: 'fly'"),
        (["--fly"], "COMMAND"),
    ],
)
def test_wrong_usage_is_2_and_says_why(capsys, arguments, words):
    code, out, err = mmvae(capsys, *arguments)
    assert code == 2 and out == "" and words in err


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["evaluate", NAME], "is not trained; run mmvae train m2vae-mog --profile lite --seed 0"),
        (["explore", NAME], "is not trained"),
        (["train", NAME, "--profile", "smoke", "--device", "cuda:77"], "device"),
        (["data", "fetch", "nothing"], "unknown data set 'nothing'"),
    ],
)
def test_a_failure_is_1_and_one_sentence(capsys, arguments, words):
    code, out, err = mmvae(capsys, *arguments)
    assert code == 1 and out == "" and words in err and err.count("\n") == 1


def test_a_broken_checkpoint_is_one_sentence(capsys):
    run = Run(EXPERIMENTS[NAME], "smoke")
    run.checkpoint.parent.mkdir(parents=True)
    run.checkpoint.write_bytes(b"nothing")
    code, _, err = mmvae(capsys, "reproduce", NAME, "--profile", "smoke")
    assert code == 1 and "is broken" in err and "delete it" in err and err.strip().count("\n") == 0


def test_help_shows_examples_and_every_command(capsys):
    code, out, _ = mmvae(capsys, "--help")
    assert code == 0 and "examples:" in out and "exit codes:" in out
    assert all(verb in out for verb in ("list", "train", "evaluate", "reproduce", "data", "explore"))
    assert mmvae(capsys, "reproduce", "--help")[0] == 0


def test_without_a_word_it_says_what_it_is_and_what_to_type_first(capsys):
    code, out, err = mmvae(capsys)
    assert code == 0 and err == "" and max(map(len, out.splitlines())) <= 80
    typed = [line.split("  ")[1].split()[1:] for line in out.splitlines() if line.startswith("  mmvae ")]
    assert len(typed) == 3 and [words[0] for words in typed] == ["list", "reproduce", "data"]
    for words in typed:
        assert cli._parser().parse_args(words).command
    assert typed[1][1] in EXPERIMENTS


def test_help_and_lists_fit_eighty_columns(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    for arguments in (["--help"], ["train", "--help"], ["reproduce", "--help"], ["data", "--help"]):
        assert max(map(len, mmvae(capsys, *arguments)[1].splitlines())) <= 80
    code, out, _ = mmvae(capsys, "list")
    assert all(re.search(rf"(?m)^  {re.escape(name)} +(real|stand-in|missing)  ", out) for name in EXPERIMENTS)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    assert max(map(len, mmvae(capsys, "list")[1].splitlines())) <= 80
    assert mmvae(capsys, "--version")[0] == 0


def test_numbers_that_must_not_stand_beside_the_paper_say_so(capsys):
    _, out, _ = mmvae(capsys, "reproduce", NAME, "--profile", "smoke")
    assert out.rstrip().endswith("not comparable with the paper: the smoke size")
    run = Run(EXPERIMENTS[NAME], "paper")
    assert cli._notes(run, False) == "" and "stand in for the paper's" in cli._notes(run, True)


def test_too_little_time_is_3_and_the_next_call_goes_on(capsys):
    code, _, err = mmvae(capsys, "train", NAME, "--profile", "paper", *LONG, "--minutes", "0.01")
    assert code == 3 and "of 400 epochs are trained, run it again to go on" in err
    run = Run(find(NAME, epochs=400, batch_size=64), "paper")
    first = run.progress()
    assert first is not None
    code, out, _ = mmvae(capsys, "train", NAME, "--profile", "paper", *LONG, "--minutes", "0.01", "--resume", "--json")
    assert code == 3 and json.loads(out)["status"] == "unfinished"
    second = run.progress()
    assert (second["epoch"], second["step"]) > (first["epoch"], first["step"])


def checkpoint_of(folders):
    return next((p for p in (folders / "runs").rglob("*.safetensors")), None)


def wait_for(process, condition, seconds=90):
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError(f"it never came so far: {process.communicate()}")


def test_an_interruption_is_130_says_how_to_go_on_and_leaves_a_whole_checkpoint(folders, capsys):
    log = folders / "err"
    with log.open("w") as err:
        process = subprocess.Popen([sys.executable, "-m", "mmvae_lite", "train", NAME, "--profile", "paper", *LONG, "--json"],
                                   cwd=ROOT, stdout=subprocess.PIPE, stderr=err, text=True)  # fmt: skip
        wait_for(process, lambda: "epoch" in log.read_text())
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=60)
    assert process.returncode == 130 and json.loads(out)["status"] == "interrupted" and "go on with --resume" in json.loads(out)["message"]
    assert Run(find(NAME, epochs=400, batch_size=64), "paper").progress()["step"] >= 0
    assert mmvae(capsys, "train", NAME, "--profile", "paper", *LONG, "--minutes", "0.01", "--resume")[0] == 3


def test_a_run_that_was_killed_and_resumed_ends_with_the_same_bits(folders, capsys):
    few = ["--set", "epochs=5", "--set", "batch_size=4096"]
    whole, again = folders / "whole.safetensors", folders / "again.safetensors"
    assert mmvae(capsys, "train", NAME, "--profile", "paper", *few, "--out", str(whole))[0] == 0
    checkpoint_of(folders).unlink()
    assert mmvae(capsys, "train", NAME, "--profile", "paper", *few, "--minutes", "0.005")[0] == 3
    log = folders / "err"
    with log.open("w") as err:
        process = subprocess.Popen([sys.executable, "-m", "mmvae_lite", "train", NAME, "--profile", "paper", *few, "--resume"], cwd=ROOT, stderr=err)
        wait_for(process, lambda: "epoch" in log.read_text())
        process.kill()
        process.wait()
    assert mmvae(capsys, "train", NAME, "--profile", "paper", *few, "--resume", "--out", str(again))[0] == 0
    assert whole.read_bytes() == again.read_bytes()


def test_next_runs_the_missing_ones_in_turn_and_says_how_far_each_came(capsys, monkeypatch, folders):
    monkeypatch.setattr(queue, "wanted", lambda device: iter([NAME, "jmvae_zero-mog"]))
    monkeypatch.setattr(queue, "LEAST_SECONDS", 1)
    code, out, _ = mmvae(capsys, "reproduce", "--next", "--profile", "smoke", "--dry-run", "--seeds", "0,1", "--json")
    assert code == 0 and [(r["name"], r["seed"]) for r in json.loads(out)["next"]] == [(NAME, 0), (NAME, 1), ("jmvae_zero-mog", 0), ("jmvae_zero-mog", 1)]
    code, out, err = mmvae(capsys, "reproduce", "--next", "--profile", "smoke", "--seeds", "0", "--workers", "2", "--minutes", "2", "--json", "--device", "cpu")
    runs = json.loads(out)["runs"]
    assert code == 0 and {r["status"] for r in runs} == {"done"} and len(runs) == 2 and "started" in err
    code, out, _ = mmvae(capsys, "reproduce", "--next", "--profile", "smoke", "--seeds", "0")
    assert code == 0 and "every experiment has its results" in out


def test_next_keeps_its_time_and_leaves_checkpoints(capsys, monkeypatch, folders):
    monkeypatch.setattr(queue, "missing", lambda device, profile, seeds: [Run(EXPERIMENTS["m2vae-e"], "paper", 0)])
    monkeypatch.setattr(queue, "LEAST_SECONDS", 1)
    begun = time.monotonic()
    code, _, err = mmvae(capsys, "reproduce", "--next", "--minutes", "0.25", "--device", "cpu")
    assert code == 3 and re.search(r"m2vae-e \(paper, seed 0\): \d+ of 100 epochs are trained, run it again to go on", err)
    assert time.monotonic() - begun < 0.25 * 60 + queue.GRACE and checkpoint_of(folders) is not None


def test_a_worker_that_dies_is_reported_by_its_last_words(monkeypatch, folders, capsys):
    monkeypatch.setattr(queue, "missing", lambda device, profile, seeds: [Run(EXPERIMENTS[NAME], "smoke", 0)])
    monkeypatch.setattr(queue, "LEAST_SECONDS", 1)
    monkeypatch.setenv("MMVAE_DATA", str(folders / "nowhere"))
    code, out, _ = mmvae(capsys, "reproduce", "--next", "--minutes", "1", "--device", "cpu", "--json")
    assert code == 1 and "MMVAE_DATA names" in json.loads(out)["runs"][0]["message"]


BLOCKED = """
import sys
sys.modules |= dict.fromkeys(["sklearn", "scipy", "matplotlib", "PIL", "plotly", "anywidget", "accelerate"])
from mmvae_lite.cli import main
codes = [main(a.split()) for a in sys.argv[1:]]
assert sys.modules["sklearn"] is sys.modules["scipy"] is sys.modules["matplotlib"] is None
sys.exit(max(codes))
"""


@pytest.mark.parametrize("rank, lines", [("0", 1), ("1", 0)])
def test_one_of_several_processes_says_how_it_ended(monkeypatch, capsys, rank, lines):
    monkeypatch.setenv("RANK", rank)
    code, out, _ = mmvae(capsys, "train", NAME, "--profile", "smoke", "--json")
    assert code == 0 and len(out.splitlines()) == lines


def test_nothing_beyond_torch_is_needed():
    commands = ["list", "data", f"reproduce {NAME} --profile smoke", "reproduce jmvae_zero-e --profile smoke", f"explore {NAME} --profile smoke"]
    done = subprocess.run([sys.executable, "-c", BLOCKED, *commands], cwd=ROOT, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr[-500:]


@pytest.mark.skipif("MMVAE_TEST_DATA" not in os.environ, reason="MMVAE_TEST_DATA names no folder of real data")
def test_nothing_beyond_torch_and_real_data_is_needed(monkeypatch):
    env = {**os.environ, "MMVAE_DATA": os.environ["MMVAE_TEST_DATA"]}
    commands = [f"reproduce {name} --profile smoke" for name in ("dmvae_l-mnist-1", "classifiers-mnist-1", "pvae-speech", "dmvae_d-noisy-2")]
    done = subprocess.run([sys.executable, "-c", BLOCKED, *commands], cwd=ROOT, text=True, capture_output=True, env=env)
    assert done.returncode == 0, done.stderr[-500:]
