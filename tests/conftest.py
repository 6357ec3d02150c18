"""Shapes in annotations are executed while the tests run: jaxtyping with beartype."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from jaxtyping import install_import_hook  # noqa: E402

install_import_hook("mmvae_lite", "beartype.beartype")
