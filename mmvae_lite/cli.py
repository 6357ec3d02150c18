"""The command `mmvae`: list, train, evaluate and reproduce the experiments of the papers."""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from mmvae_lite import __version__
from mmvae_lite.results import PROFILES

OK, FAILED, USAGE, UNFINISHED, INTERRUPTED = 0, 1, 2, 3, 130

WELCOME = """\
mmvae trains and measures the experiments of five papers on multimodal
variational autoencoders.  It needs no data and no GPU to begin:

  mmvae list --paper m2vae                  what there is of one paper
  mmvae reproduce m2vae-mog                 train, measure, write a result file
  mmvae data                                which data are here, how to get more

Add --profile smoke to see it work in seconds.  More: mmvae --help
"""
EXAMPLES = """\
examples:
  mmvae list --paper dmvae_l         what there is of one paper
  mmvae train dmvae_l-mnist-0.2      the small size, in a minute or two
  mmvae evaluate dmvae_l-mnist-0.2   its measurements
  mmvae reproduce pvae-speech --profile paper --minutes 9
                                     nine minutes of the full size;
                                     run it again to go on
  mmvae reproduce --next --minutes 30
                                     what is missing and worth most
  mmvae data fetch mnist             download a data set into the cache

Data are looked for in the folder that MMVAE_DATA names, then in the cache,
then in the package.  Checkpoints go to MMVAE_RUNS or ./runs, results to
MMVAE_RESULTS or ./results.

exit codes: 0 done; 1 failed, and one sentence says why; 2 wrong usage;
3 the minutes were over first; 130 interrupted.  After 3 and 130 the
checkpoint holds the run, and the same command goes on with it (train wants
--resume).
"""


class Usage(Exception):
    """The command was typed in a way that means nothing."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    if not (sys.argv[1:] if arguments is None else arguments):
        print(WELCOME, end="")
        return OK
    try:
        args = _parser().parse_args(arguments)
    except SystemExit as e:  # argparse has said what is wrong
        return int(e.code or 0)
    before = signal.getsignal(signal.SIGTERM)
    try:
        signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))  # a termination is saved as Ctrl-C is
        return args.command(args)
    except Usage as e:
        return _fail(str(e), USAGE)
    except KeyboardInterrupt:
        return _fail("interrupted", INTERRUPTED)
    except BrokenPipeError:  # the reader of a long list had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except Exception as e:
        if os.environ.get("MMVAE_TRACEBACK"):
            raise
        return _fail(_sentence(e), FAILED)
    finally:
        signal.signal(signal.SIGTERM, before)


def _fail(sentence: str, code: int) -> int:
    print(f"mmvae: {sentence}", file=sys.stderr)
    return code


def _sentence(error: BaseException) -> str:
    """The words of an error on one line; what is not ours is named by its kind."""
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    kind = "" if isinstance(error, (ValueError, KeyError, OSError, ImportError, NotImplementedError)) and text else f"{type(error).__name__}: "
    return " ".join(f"{kind}{text}".split())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mmvae", description="Train, measure and explore the models of five papers on multimodal\nvariational autoencoders.",
        epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--version", action="version", version=f"mmvae_lite {__version__}")
    verbs = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    verb = verbs.add_parser("list", help="show the experiments, their data and the results found")
    verb.add_argument("--paper", help="those of one paper only, for example dmvae_l")
    verb.add_argument("--json", action="store_true", help="as JSON on standard output")
    verb.set_defaults(command=_list)

    verb = verbs.add_parser("train", help="train one experiment")
    _one(verb)
    _how(verb)
    verb.add_argument("--resume", action="store_true", help="go on from the checkpoint of an earlier run")
    verb.add_argument("--restart", action="store_true", help="forget the checkpoint of an earlier run")
    verb.add_argument("--out", type=Path, metavar="FILE", help="also write the weights to this .safetensors file")
    verb.set_defaults(command=_train)

    verb = verbs.add_parser("evaluate", help="measure a trained experiment")
    _one(verb)
    _how(verb, minutes=False)
    verb.set_defaults(command=_evaluate)

    verb = verbs.add_parser("reproduce", help="train and measure experiments and write their result files", epilog=EXAMPLES,
                            formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    verb.add_argument("names", nargs="*", metavar="NAME", help="experiments, see `mmvae list`; none with --next")
    verb.add_argument("--next", action="store_true", help="the most valuable runs that have no result yet")
    verb.add_argument("--seeds", type=_seeds, metavar="S,S,..", help="several seeds, such as 0,1,2, one after the other")
    verb.add_argument("--workers", type=_count, metavar="N", help="with --next: how many runs at once (2 on a CPU, 6 on a GPU)")
    verb.add_argument("--dry-run", action="store_true", help="with --next: say what would run")
    _how(verb)
    verb.set_defaults(command=_reproduce)

    verb = verbs.add_parser("data", help="show which data are here, or fetch some")
    verb.add_argument("action", nargs="?", choices=("list", "fetch"), default="list")
    verb.add_argument("name", nargs="?", metavar="NAME", help="what to fetch")
    verb.add_argument("--json", action="store_true", help="as JSON on standard output")
    verb.set_defaults(command=_data)

    verb = verbs.add_parser("explore", help="export the decoders of a trained experiment for an explorer in a page")
    _one(verb)
    _how(verb, minutes=False)
    verb.add_argument("--out", type=Path, metavar="FOLDER", help="where to; by default beside the checkpoint")
    verb.set_defaults(command=_explore)
    return parser


def _one(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("name", metavar="NAME", help="an experiment, see `mmvae list`")


def _how(verb: argparse.ArgumentParser, minutes: bool = True) -> None:
    verb.add_argument("--profile", choices=PROFILES, help="smoke: seconds, to see that it works; lite: a minute or two on one core; "
                      "paper: the paper's sizes (lite unless given, paper with --next)")  # fmt: skip
    verb.add_argument("--seed", type=_seed, default=0, metavar="N", help="what all random draws follow from (0)")
    verb.add_argument("--device", type=_device, default="auto", help="auto, cpu, cuda or cuda:1; auto takes a GPU where there is one")
    verb.add_argument("--set", action="append", default=[], metavar="OPTION=VALUE", help="change a setting of the experiment; may be repeated")
    verb.add_argument("--json", action="store_true", help="the outcome as JSON on standard output")
    if minutes:
        verb.add_argument("--minutes", type=_minutes, metavar="M", help="stop in time; the checkpoint holds the run, which goes on next time")


def _minutes(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"found {text!r}, wanted a number above 0")
    return value


def _seed(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(f"found {text!r}, wanted a whole number from 0 to {2**32 - 1}")
    return int(text)


def _device(text: str) -> str:
    if not re.fullmatch(r"auto|cpu|mps|cuda(:[0-9]+)?", text):
        raise argparse.ArgumentTypeError(f"found {text!r}, wanted auto, cpu or cuda")
    return text


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or int(text) < 1:
        raise argparse.ArgumentTypeError(f"found {text!r}, wanted a whole number of at least 1")
    return int(text)


def _seeds(text: str) -> tuple[int, ...]:
    try:
        return tuple(dict.fromkeys(_seed(part.strip()) for part in text.split(",")))
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(f"found {text!r}, wanted whole numbers with commas between them, such as 0,1,2") from None


def _value(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return text


def _run(args: argparse.Namespace, name: str, seed: int | None = None):
    """The run that was asked for.  Raises Usage for a name or an option that does not exist."""
    from mmvae_lite.experiments import find
    from mmvae_lite.experiments.running import Run

    options = {}
    for text in args.set:
        key, equals, value = text.partition("=")
        if not equals:
            raise Usage(f"--set: found {text!r}, wanted OPTION=VALUE")
        options[key] = _value(value)
    try:
        experiment = find(name, **options)
    except (KeyError, ValueError) as e:
        words = _sentence(e)
        known, _, hint = words.partition("; did you mean")
        short = f"unknown experiment {name!r}" if known.startswith("unknown experiment") else known
        raise Usage(short + (f"; did you mean{hint}" if hint else "") + ("; see mmvae list" if known != short else "")) from None
    return Run(experiment, args.profile or "lite", args.seed if seed is None else seed)


class _Signals:
    """The first Ctrl-C or termination asks the processes that work to stop between two steps, the second interrupts."""

    def __init__(self) -> None:
        self.asked = False
        self.before: dict[int, object] = {}

    def __call__(self) -> bool:
        return self.asked

    def __enter__(self) -> _Signals:
        for number in (signal.SIGINT, signal.SIGTERM):
            self.before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: object) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _print(args: argparse.Namespace, outcome: dict[str, object], text: str) -> None:
    print(json.dumps(outcome, ensure_ascii=False) if args.json else text, flush=True)


def _outcome(run, status: str, message: str, **rest: object) -> dict[str, object]:
    return {"name": run.experiment.name, "profile": run.profile, "seed": run.seed, "status": status, "message": message, **rest}


def _attempt(run, work: Callable[[], dict[str, object]]) -> tuple[int, dict[str, object]]:
    """Do the work of one run; its exit code and its outcome."""
    from mmvae_lite.experiments.running import Unfinished

    try:
        return OK, work()
    except Unfinished as e:
        return UNFINISHED, _outcome(run, "unfinished", str(e))
    except KeyboardInterrupt:
        kept = run.progress()
        how = f"its checkpoint holds epoch {kept['epoch']}, go on with --resume or mmvae reproduce" if kept else "nothing was trained yet"
        return INTERRUPTED, _outcome(run, "interrupted", f"{run.title}: interrupted, {how}")
    except Exception as e:
        if os.environ.get("MMVAE_TRACEBACK"):
            raise
        return FAILED, _outcome(run, "failed", f"{run.title}: {_sentence(e)}")


def _end(args: argparse.Namespace, code: int, outcome: dict[str, object]) -> int:
    from mmvae_lite.processes import leads

    if leads() and (args.json or code == OK):
        _print(args, outcome, str(outcome["message"]))
    if code != OK:
        _say(f"mmvae: {outcome['message']}")
    return code


def _seconds(args: argparse.Namespace) -> float:
    return math.inf if args.minutes is None else 60 * args.minutes


def _train(args: argparse.Namespace) -> int:
    from mmvae_lite.experiments import running

    run = _run(args, args.name)
    kept = run.progress()
    if kept and not (args.resume or args.restart):
        raise Usage(f"{run.title}: a checkpoint holds epoch {kept['epoch']}; add --resume to go on from it or --restart to begin again")
    if args.out is not None and not args.out.parent.is_dir():
        raise Usage(f"--out: there is no folder {args.out.parent}")

    def work() -> dict[str, object]:
        trained = running.train(run, args.device, _seconds(args), restart=args.restart)
        if args.out is not None:
            _save_weights(trained.model, args.out)
        losses = trained.history.epochs
        if not losses:
            return _outcome(run, "trained", f"{run.title}: {running.NO_TRAINING}", checkpoint=None)
        message = f"{run.title}: trained {len(losses)} epochs in {trained.history.seconds:.0f} s, loss {losses[-1]['loss']:.4g}; checkpoint {run.checkpoint}"
        return _outcome(run, "trained", message, epochs=len(losses), loss=losses[-1]["loss"], seconds=trained.history.seconds,
                        checkpoint=str(run.checkpoint), out=args.out and str(args.out))  # fmt: skip

    return _end(args, *_attempt(run, work))


def _save_weights(model, path: Path) -> None:
    from safetensors.torch import save_file

    tensors, seen = {}, {}
    for name, x in model.state_dict().items():
        if x.data_ptr() not in seen or not x.numel():
            seen[x.data_ptr()] = name
            tensors[name] = x.detach().cpu().contiguous()
        else:
            tensors[name] = x.detach().cpu().clone()
    part = path.with_name(path.name + ".part")
    try:
        save_file(tensors, part)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _trained(run, args: argparse.Namespace):
    """The run's model from its finished checkpoint.  Raises ValueError where there is none."""
    from mmvae_lite.experiments import running

    settings = run.experiment.training(run.profile, run.experiment.data(run.profile, run.seed), run.seed)
    at = run.progress()
    if settings is not None and (at is None or at["epoch"] < settings.epochs):
        found = "is not trained" if at is None else f"is trained for {at['epoch']} of {settings.epochs} epochs"
        raise ValueError(f"it {found}; run mmvae train {run.experiment.name} --profile {run.profile} --seed {run.seed}" + (" --resume" if at else ""))
    return running.train(run, args.device, progress=False)


def _evaluate(args: argparse.Namespace) -> int:
    from mmvae_lite.experiments import running

    run = _run(args, args.name)

    def work() -> dict[str, object]:
        trained = _trained(run, args)
        metrics, stand_in = running.evaluate(run, trained), trained.data.stand_in
        return _outcome(run, "measured", f"{run.title}\n{_table(metrics)}{_notes(run, stand_in)}", metrics=metrics, stand_in=stand_in)

    return _end(args, *_attempt(run, work))


def _table(metrics: dict[str, dict[str, float]]) -> str:
    width = max(map(len, metrics), default=0)
    return "\n".join(f"  {name:<{width}}  {m['value']:.4g}" + (f"  (n = {m['n']:g})" if "n" in m else "") for name, m in metrics.items())


def _notes(run, stand_in: bool) -> str:
    """Why the values above must not stand beside the paper's, if they must not."""
    why = [f"the {run.profile} size"] * (run.profile != "paper") + ["data that stand in for the paper's"] * stand_in
    return f"\n  not comparable with the paper: {', and '.join(why)}" if why else ""


def _reproduce(args: argparse.Namespace) -> int:
    if args.next == bool(args.names):
        raise Usage("reproduce wants names of experiments or --next, and not both")
    if args.next and args.set:
        raise Usage("--set changes one experiment: name it, without --next")
    return _next(args) if args.next else _named(args)


def _named(args: argparse.Namespace) -> int:
    import time

    from mmvae_lite.experiments import running
    from mmvae_lite.results import read_result

    runs = [_run(args, name, seed) for name in args.names for seed in args.seeds or (args.seed,)]
    end = time.monotonic() + _seconds(args)
    outcomes, worst = [], OK
    for run in runs:
        def work(run=run) -> dict[str, object]:
            path = running.reproduce(run, args.device, max(0.0, end - time.monotonic()))
            record = read_result(path)
            metrics, notes = record["metrics"], _notes(run, record["data"]["stand_in"])
            return _outcome(run, "done", f"{run.title}: {path}\n{_table(metrics)}{notes}", metrics=metrics, result=str(path), stand_in=record["data"]["stand_in"])

        code, outcome = _attempt(run, work)
        outcomes.append(outcome)
        worst = worst if worst == FAILED else code or worst
        if code or not args.json:
            print(f"mmvae: {outcome['message']}" if code else outcome["message"], file=sys.stderr if code else sys.stdout, flush=True)
        if code == INTERRUPTED:
            break
    if args.json:
        print(json.dumps({"runs": outcomes}, ensure_ascii=False), flush=True)
    return worst


def _next(args: argparse.Namespace) -> int:
    from mmvae_lite.experiments import queue
    from mmvae_lite.training import pick_device

    device = pick_device(args.device).type
    workers = args.workers or (6 if device == "cuda" else max(1, min(2, os.cpu_count() or 1)))
    runs = queue.missing(device, args.profile or "paper", args.seeds or queue.SEEDS)
    if args.dry_run or not runs:
        names = [{"name": run.experiment.name, "profile": run.profile, "seed": run.seed, "epoch": (run.progress() or {}).get("epoch", 0)} for run in runs]
        _print(args, {"next": names}, "\n".join(f"{n['name']:<34} seed {n['seed']}" + (f", from epoch {n['epoch']}" if n["epoch"] else "") for n in names) or "every experiment has its results")
        return OK
    with _Signals() as stop:
        done = queue.work(runs, device, args.minutes or 9.0, workers, _say, stop)
    finished = sum(d["status"] == "done" for d in done)
    _print(args, {"runs": done}, f"{finished} of {len(done)} runs finished, {len(runs) - finished} are still missing")
    if stop.asked:
        return INTERRUPTED
    statuses = {d["status"] for d in done}
    return FAILED if "failed" in statuses else UNFINISHED if "unfinished" in statuses else OK


def _list(args: argparse.Namespace) -> int:
    from mmvae_lite.experiments import EXPERIMENTS, PAPERS
    from mmvae_lite.experiments._data import at_hand
    from mmvae_lite.experiments.running import Run

    if args.paper is not None and args.paper not in PAPERS:
        raise Usage(f"--paper: found {args.paper!r}, wanted one of {', '.join(PAPERS)}")
    rows = []
    for e in EXPERIMENTS.values():
        if args.paper in (None, e.paper):
            results = [f"{p}-{s}" for p in PROFILES for s in range(5) if Run(e, p, s).result()]
            rows.append({"name": e.name, "paper": e.paper, "source": e.source, "data": e.data_name, "at_hand": at_hand(e.data_name, e.data_options),
                         "profiles": list(PROFILES), "metrics": list(e.metrics), "options": e.options(), "deviations": list(e.deviations), "results": results})  # fmt: skip
    if args.json:
        print(json.dumps({"experiments": rows}, ensure_ascii=False))
        return OK
    width = max(len(r["name"]) for r in rows)
    wide = shutil.get_terminal_size((130, 24)).columns if sys.stdout.isatty() else 1000
    for paper, title in PAPERS.items():
        here = [r for r in rows if r["paper"] == paper]
        if here:
            print(f"\n{title}  (--paper {paper})")
        for r in here:
            print(f"  {r['name']:<{width}}  {r['at_hand']:<8}  {r['source']}{'  done: ' * bool(r['results'])}{' '.join(r['results'])}"[:wide].rstrip())
    print("\nSecond column: whether it would train on the paper's data (real), on what\nstands in for them, or lacks them (missing); see mmvae data.\nStart with: mmvae train NAME --profile smoke")
    return OK


def _data(args: argparse.Namespace) -> int:
    from mmvae_lite.experiments._data import describe, fetch_all

    if args.action == "fetch":
        if not args.name:
            raise Usage("data fetch wants the NAME of a data set, see mmvae data")
        paths = fetch_all(args.name, _say)
        _print(args, {"files": [str(p) for p in paths]}, "\n".join(map(str, paths)))
        return OK
    rows = describe()
    if args.json:
        print(json.dumps({"data": rows}, ensure_ascii=False))
        return OK
    for row in rows:
        print(f"{row['name']:<16}{row['state']:<10}{row['words']}")
    return OK


def _explore(args: argparse.Namespace) -> int:
    from mmvae_lite.experiments.exporting import export

    run = _run(args, args.name)

    def work() -> dict[str, object]:
        trained = _trained(run, args)
        folder = args.out or run.checkpoint.with_suffix("")
        files = export(trained.model, folder, run.experiment.name)
        return _outcome(run, "exported", f"{run.title}: wrote {', '.join(map(str, files))}", files=[str(f) for f in files])

    return _end(args, *_attempt(run, work))
