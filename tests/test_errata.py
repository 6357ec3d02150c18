"""The errata of the five papers: every entry names tests that exist, and those that no other file shows are shown here."""

import ast
import math
import re
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from mmvae_lite.data.gaussian_mixture import COUNTS
from mmvae_lite.distributions import Normal, kl
from mmvae_lite.evaluation import frechet

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "book" / "_ext"))

import errata as page  # noqa: E402
import ledger  # noqa: E402

ENTRIES = page.load(ROOT)
PAPERS = ledger.load_papers(ROOT / "book" / "results")


def cell(address):
    paper, table, name = address.split(":")
    return PAPERS[paper]["tables"][table]["cells"][name]


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda e: e["id"])
def test_every_erratum_names_tests_that_exist(entry):
    assert entry["tests"]
    for name in entry["tests"]:
        path, _, function = name.partition("::")
        found = {node.name for node in ast.parse((ROOT / path).read_text(encoding="utf-8")).body if isinstance(node, ast.FunctionDef)}
        assert function in found, name
        assert page.line_of(ROOT / path, function) > 1


def test_every_entry_is_on_the_page_once():
    text = (ROOT / "book" / "errata.md").read_text(encoding="utf-8")
    assert len({e["id"] for e in ENTRIES}) == len(ENTRIES)
    for paper in {e["paper"] for e in ENTRIES}:
        assert text.count(f"```{{errata}} {paper}\n") == 1


def test_every_number_of_a_paper_is_found():
    for entry in ENTRIES:
        for text in re.findall(r"\{paper\}`([^`]+)`", entry["printed"] + entry["right"]):
            ledger.paper_value(PAPERS, *ledger.split(text))


def test_an_entry_that_lacks_a_field_is_refused(tmp_path):
    (tmp_path / "book").mkdir()
    (tmp_path / "book" / "errata.yml").write_text("- {id: x, paper: pvae, title: t}")
    with pytest.raises(ValueError, match="errata.yml: x has the fields"):
        page.load(tmp_path)


# Shown nowhere else ---------------------------------------------------------------------------------


def test_one_negative_example_in_ten_shares_the_digit():
    shares = torch.tensor(COUNTS, dtype=torch.float64) / sum(COUNTS)
    assert shares.square().sum().item() == pytest.approx(0.1003, abs=5e-5)


def test_the_headline_of_dmvae_d_compares_two_models():
    before, after = cell("dmvae-d:table-1:mmvae/joint"), cell("dmvae-d:table-1:dmvae/joint")
    assert before == cell("dmvae-d:table-3:mmvae/prior/joint") and after == cell("dmvae-d:table-3:dmvae/ex-post/joint")
    assert cell("dmvae-d:table-3:mmvae/ex-post/joint") < after


def test_two_tables_of_dmvae_l_disagree():
    assert cell("dmvae-l:table-8:fmnist/mvae") == cell("dmvae-l:table-1:fmnist/mvae/0.2")
    assert cell("dmvae-l:table-8:mnist/mvae") != cell("dmvae-l:table-1:mnist/mvae/0.2")
    assert cell("dmvae-l:table-8:mnist/discrete") == cell("dmvae-l:table-1:mnist/dmvae/0.2")


def test_dmvae_l_does_not_win_each_case():
    assert cell("dmvae-l:table-2a:accuracy/dmvae/1") < cell("dmvae-l:table-2a:accuracy/mvae/1")
    assert cell("dmvae-l:table-2a:f1/dmvae/1") > cell("dmvae-l:table-2a:f1/mvae/1")


def test_two_papers_disagree_about_mvae():
    for task in ("joint", "mnist-svhn", "svhn-mnist"):
        assert cell(f"dmvae-d:table-1:mvae/{task}") > 2 * cell(f"mmvae:table-2:{task}/mvae")


def test_a_frechet_distance_depends_on_the_order_of_colours():
    g = torch.Generator().manual_seed(0)
    tint = torch.tensor([0.8, 0.5, 0.2])[:, None, None]
    real, made = (tint * torch.rand((200, 3, 8, 8), generator=g) ** power for power in (1.0, 1.5))
    network = nn.Conv2d(3, 4, 8)
    with torch.no_grad():
        network.weight.copy_(torch.randn(network.weight.shape, generator=g) * torch.tensor([3.0, 1.0, 0.3])[:, None, None])

    def distance(order):
        return frechet.between(*(frechet.extract(x[:, order], lambda images: network(images).flatten(1)) for x in (real, made)))

    assert abs(distance([0, 1, 2]) / distance([2, 1, 0]) - 1) > 0.2


# z ~ N(0, 1), x_m | z ~ N(w_m z, s_m): everything below has a closed form.
W, S, X = (1.0, 2.0), (1.0, 1.0), (1.0, 1.5)
ALL = (0, 1)


def exact(members):
    precision = 1 + sum(W[m] ** 2 / S[m] for m in members)
    return Normal(torch.tensor([sum(W[m] * X[m] / S[m] for m in members) / precision]), torch.tensor([1 / precision]).log())


def expected(q, var=None, members=ALL):
    """E_q log p(x_S | z), for draws of this variance."""
    v = q.var if var is None else var
    return sum(-0.5 * (math.log(2 * math.pi * S[m]) + ((X[m] - W[m] * q.mean) ** 2 + W[m] ** 2 * v) / S[m]) for m in members).item()


def log_p(members):
    q = exact(members)
    return expected(q, members=members) - divergence(q)


def divergence(q, p=None):
    return kl(q, p or Normal.standard(1)).item()


def test_drawing_with_the_variance_exceeds_the_evidence():
    q = exact(ALL)
    assert expected(q) - divergence(q) == pytest.approx(-3.0254234677, abs=1e-6)
    assert expected(q, var=q.var.square()) - divergence(q) > log_p(ALL) + 0.1


def m2vae(joint, single, with_prior):
    """Its objective for two modalities with learnt posteriors, with or without the joint divergence from the prior."""
    top = expected(joint) - sum(divergence(joint, q) for q in single) - (divergence(joint) if with_prior else 0)
    alone = sum(expected(q, members=(m,)) - divergence(q) for m, q in enumerate(single))
    return 0.5 * (top + alone)


def test_m2vae_without_the_joint_divergences_can_exceed_the_evidence():
    joint, single = exact(ALL), [exact((m,)) for m in ALL]
    assert m2vae(joint, single, with_prior=False) == pytest.approx(log_p(ALL), abs=1e-6)
    leaning = [Normal(0.9 * q.mean + 0.1 * joint.mean, 0.9 * q.logvar + 0.1 * joint.logvar) for q in single]
    assert m2vae(joint, leaning, with_prior=False) > log_p(ALL) + 0.01
    assert m2vae(joint, leaning, with_prior=True) < log_p(ALL)
