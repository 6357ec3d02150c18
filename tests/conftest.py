"""Shapes in annotations are executed while the tests run: jaxtyping with beartype."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import pytest  # noqa: E402
from jaxtyping import config, install_import_hook  # noqa: E402

install_import_hook("mmvae_lite", "beartype.beartype")


@pytest.fixture
def as_a_reader():
    """Switch the shape checker off, to see the sentence that a reader sees for a wrong type or shape."""
    config.update("jaxtyping_disable", True)
    yield
    config.update("jaxtyping_disable", False)

#: Runs each line of its input, a program with its environment in JSON, and answers with what it printed.
ELSEWHERE = """
import contextlib, io, json, os, sys
for line in sys.stdin:
    program, environment = json.loads(line)
    for name in os.environ.keys() - environment.keys():
        del os.environ[name]
    os.environ.update(environment)
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(program, {})
    print(json.dumps(said.getvalue()), flush=True)
"""


@pytest.fixture(scope="session")
def elsewhere():
    """elsewhere(program) runs it in another process, whose sets have another order, and returns what it printed."""
    environment = os.environ | {"PYTHONHASHSEED": "7"}
    command = [sys.executable, "-c", ELSEWHERE]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=Path(__file__).parents[1]) as process:

        def run(program: str) -> str:
            print(json.dumps([program, dict(os.environ)]), file=process.stdin, flush=True)
            answer = process.stdout.readline()
            assert answer, f"the other process ended at {program!r}"
            return json.loads(answer)

        yield run


# A shell starts what it puts in the background deaf to Ctrl-C, and the runs that the tests interrupt would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
