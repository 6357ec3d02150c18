"""The package, its two lists of dependencies, its wheel, and an import that disturbs nothing."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def name_of(requirement: str) -> str:
    return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", requirement)[0]).lower()


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


def requirements(*extras: str) -> list[str]:
    return PROJECT["dependencies"] + [r for extra in extras for r in PROJECT["optional-dependencies"][extra]]


def test_conda_environment_names_the_same_packages():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    listed = next(entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict))
    packages = [entry for entry in listed if not entry.startswith("-")]
    assert sorted(packages) == sorted(requirements("book", "test", "coursework"))
    assert {"-c constraints.txt", "-e ."} <= set(listed)
    assert f"python{PROJECT['requires-python']}" in environment["dependencies"]


def test_every_requirement_has_a_lower_bound_and_a_tested_pin():
    tested = pins()
    for requirement in requirements(*PROJECT["optional-dependencies"]):
        assert ">=" in requirement, f"{requirement} has no lower bound"
        assert name_of(requirement) in tested, f"{requirement} is not pinned in constraints.txt"
    assert tested["torch"] == "2.13.0"


def test_pins_satisfy_the_bounds():
    tested = pins()
    for requirement in map(Requirement, requirements(*PROJECT["optional-dependencies"])):
        assert requirement.specifier.contains(tested[name_of(requirement.name)])


def test_library_depends_on_four_packages_only():
    assert {name_of(r) for r in PROJECT["dependencies"]} == {"torch", "numpy", "jaxtyping", "safetensors"}


@pytest.mark.slow
def needed(names):
    """The installed packages that these requirements bring along, themselves included."""
    found, waiting = set(), list(names)
    while waiting:
        name = canonicalize_name(waiting.pop())
        if name in found:
            continue
        found.add(name)
        for line in metadata.requires(name) or []:
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                waiting.append(requirement.name)
    return found


def test_the_book_extra_brings_every_sphinx_extension():
    """A machine that has all extras hides a missing one: make book installs this extra alone."""
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))["sphinx"]
    modules = {name.partition(".")[0] for name in config["config"]["extensions"]} - set(config["local_extensions"])
    available = needed(Requirement(r).name for r in requirements("book"))
    owners = metadata.packages_distributions()
    for module in modules:
        packages = owners.get(module) or [module]
        assert available & {canonicalize_name(p) for p in packages}, f"no requirement of the extra book brings {module}"


def test_wheel_holds_scripts_styles_and_typing_mark(tmp_path):
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q", "-w", str(tmp_path), str(ROOT)]
    made = subprocess.run(build, capture_output=True, text=True)
    if made.returncode and "setuptools" in made.stderr:  # no setuptools in this venv: let pip fetch its own
        made = subprocess.run([part for part in build if part != "--no-build-isolation"], capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    wanted = {
        p.relative_to(ROOT).as_posix()
        for pattern in ("*.py", "*.js", "*.css", "*.safetensors", "py.typed")
        for p in (ROOT / "mmvae_lite").rglob(pattern)
    }
    assert wanted <= set(names)
    assert not [n for n in names if not n.startswith("mmvae_lite")]
    entry_points = next(n for n in names if n.endswith("entry_points.txt"))
    assert "mmvae_lite.sphinx_plotly:PlotlyMime" in zipfile.ZipFile(wheel).read(entry_points).decode()


QUIET = """
import random, sys, warnings
warnings.simplefilter("error")
import numpy, torch

def refuse(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "urllib.Request", "subprocess.Popen"):
        raise SystemExit(f"import of mmvae_lite did {event} {arguments}")

sys.addaudithook(refuse)
before = torch.random.get_rng_state().clone(), repr(numpy.random.get_state()), random.getstate(), torch.get_num_threads(), torch.get_default_dtype()
import pkgutil, importlib, mmvae_lite
for module in pkgutil.walk_packages(mmvae_lite.__path__, "mmvae_lite."):
    if not module.name.startswith(("mmvae_lite.sphinx_plotly", "mmvae_lite.explore.widgets", "mmvae_lite.__main__")):
        importlib.import_module(module.name)
after = torch.random.get_rng_state(), repr(numpy.random.get_state()), random.getstate(), torch.get_num_threads(), torch.get_default_dtype()
assert torch.equal(before[0], after[0]) and before[1:] == after[1:], "a seed or a default changed"
loaded = {"sklearn", "scipy", "matplotlib", "plotly", "anywidget", "IPython", "accelerate"} & set(sys.modules)
assert not loaded, f"import of mmvae_lite imported {sorted(loaded)}"
"""


def test_import_is_quiet():
    """No network, no seed, no default, and none of the heavy packages, in any module of the library."""
    done = subprocess.run([sys.executable, "-c", QUIET], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""


def test_version_is_the_one_to_cite():
    import mmvae_lite

    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == mmvae_lite.__version__


def test_example_of_the_readme_runs(capsys):
    (example,) = (ROOT / "README.md").read_text(encoding="utf-8").split("```python\n")[1:]
    exec(compile(example.split("```")[0], "README.md", "exec"), {})
    assert capsys.readouterr().out == "tensor([0.8333])\n"
