"""Shapes in annotations are executed while the tests run: jaxtyping with beartype."""

import os
import signal

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

# A shell starts what it puts in the background deaf to Ctrl-C, and the runs that the tests interrupt would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
