"""The page that compares the models: it finds all of them, and shows just what differs."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "book" / "_ext"))

import side_by_side as page  # noqa: E402

from mmvae_lite.models import MODELS  # noqa: E402


@pytest.fixture(scope="module")
def models():
    return [page.read_model(ROOT, key) for key in page.registered(ROOT)]


def test_every_model_is_there_under_its_class_name(models):
    assert [m.name for m in models] == [cls.__name__ for cls in MODELS.values()]
    for model in models:
        assert any("def loss" in line for line in model.lines) and any("def posterior" in line for line in model.lines)
        assert not any('"""' in line or line.strip().startswith("#") for line in model.lines)


def test_a_difference_rebuilds_one_model_from_the_other(models):
    for one in models:
        for two in models:
            lines = [line for line in page.difference(one, two) if line != "⋯"]
            only_one = [line[1:] for line in lines if line[0] == "-"]
            only_two = [line[1:] for line in lines if line[0] == "+"]
            assert sorted(set(one.lines) - set(two.lines)) == sorted(set(only_one) - set(two.lines))
            assert sorted(set(two.lines) - set(one.lines)) == sorted(set(only_two) - set(one.lines))
            assert page.count(lines) == len(only_one) + len(only_two)


def test_a_model_does_not_differ_from_itself(models):
    assert page.difference(models[0], models[0]) == []


def test_code_is_escaped():
    one = page.Model("A", "", ("x < y",))
    two = page.Model("B", "", ("x > y",))
    html = page.pair_html(one, two, page.difference(one, two))
    assert "x &lt; y" in html and "x &gt; y" in html and 'id="pair-a-b"' in html


def test_every_model_fits_on_a_few_pages():
    """A model is read beside its paper: 220 lines with docstrings are the most, blank ones not counted."""
    for key in MODELS:
        lines = [line for line in (ROOT / page.MODELS / f"{key}.py").read_text(encoding="utf-8").splitlines() if line.strip()]
        assert len(lines) <= 220, f"{key}.py has {len(lines)} lines"
