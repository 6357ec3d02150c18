"""The room of the measurements as a whole: what it lists, what it needs, what two of its parts must not both hold."""

import subprocess
import sys
from pathlib import Path

import mmvae_lite.evaluation as room


def test_the_first_lines_name_every_module_and_what_is_exported_exists():
    modules = {p.stem for p in Path(room.__file__).parent.glob("*.py") if not p.stem.startswith("_")}
    assert len(modules) > 10 and not [m for m in modules if f"`{m}`" not in room.__doc__]
    assert all(hasattr(room, name) for name in room.__all__) and len(set(room.__all__)) == len(room.__all__)


def test_no_function_hides_a_module():
    from types import ModuleType

    modules = {p.stem for p in Path(room.__file__).parent.glob("*.py")}
    assert all(isinstance(getattr(room, m), ModuleType) for m in modules - {"__init__"})


def test_it_measures_without_scikit_learn_and_scipy():
    program = """
import sys
for name in ("sklearn", "scipy", "matplotlib", "PIL"):
    sys.modules[name] = None
import torch
import mmvae_lite.evaluation as room
from mmvae_lite.evaluation import cca, frechet, semi_supervised, sentences
x, y = torch.randn(60, 4, generator=torch.Generator().manual_seed(0)), torch.arange(60) % 3
room.cluster_purity(x, y, clusters=3); room.probe_means(x, y, x, y, per_epoch=60, max_epochs=2); frechet.between(x, x)
cca.fit_cca(x, x, 2); sentences.fit_sentences(torch.randint(3, 9, (20, 5)), 9, 4); semi_supervised.logistic_regression(x, y)
semi_supervised.binary_scores(x > 0, x > 0.1); room.classifier("digits")(torch.zeros(2, 1, 28, 28))
print("all of it")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout == "all of it\n", done.stderr
