"""The reproduction ledger: every table is there, a result shows up where it belongs, and a stand-in is never compared."""

import re
import sys
from pathlib import Path

import pytest

from mmvae_lite import networks, results
from mmvae_lite.experiments import EXPERIMENTS
from mmvae_lite.results import read_result, write_result

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "book" / "_ext"))

import ledger  # noqa: E402
import reproduction as page  # noqa: E402

PAPERS = ledger.load_papers(ROOT / "book" / "results")
CELL = "dmvae-l:table-1:mnist/dmvae/0.2"
PAPER = PAPERS["dmvae-l"]["tables"]["table-1"]["cells"]["mnist/dmvae/0.2"]


@pytest.fixture(autouse=True)
def no_git(monkeypatch):
    monkeypatch.setattr(results, "_commit", lambda: "planted")


def plant(folder, value=PAPER, seed=0, experiment="dmvae_l-mnist-0.2", metric="accuracy", profile="paper", stand_in=False, **more):
    write_result(experiment, profile, seed, {metric: {"value": value, "n": 10_000, **more}}, data="planted data", stand_in=stand_in, device="cpu", minutes=1.0, folder=folder)


def line(folder, cell=CELL, experiment=None, tried={}):
    found = page.lines(cell.rpartition(":")[0], PAPERS, ledger.load_measured(folder), tried)
    return next(x for x in found if x.row.cell == cell and (experiment is None or x.row.experiment == experiment))


def test_every_value_of_every_paper_has_a_row_that_is_answered_by_what_exists():
    rows = [row for address in page.addresses(PAPERS) for row in page.rows(address, PAPERS)]
    cells = {f"{p}:{t}:{c}" for p, paper in PAPERS.items() for t, table in paper["tables"].items() for c in table["cells"]}
    assert {row.cell for row in rows if row.cell} == cells
    for row in rows:
        assert row.experiment or row.why, row
        if row.experiment:
            assert row.experiment in EXPERIMENTS, row
            assert row.metric in EXPERIMENTS[row.experiment].metrics, row


def test_the_page_holds_every_table_and_every_figure():
    text = (ROOT / "book" / "ledger.md").read_text(encoding="utf-8")
    assert re.findall(r"^```\{reproduction\} (\S+)$", text, re.M) == page.addresses(PAPERS)
    assert re.findall(r"^```\{reproduction-figures\} (\S+)$", text, re.M) == list(PAPERS) == list(page.FIGURES)
    assert all(hasattr(networks, function) for built in page.NETWORKS.values() for function in built.values())


def test_a_planted_result_shows_up(tmp_path):
    assert (line(tmp_path).ours, line(tmp_path).state) == ("–", page.NOT_YET)
    plant(tmp_path, PAPER - 0.005)
    plant(tmp_path, PAPER + 0.005, seed=1)
    plant(tmp_path, PAPER, seed=2)
    found = line(tmp_path)
    assert (found.paper, found.ours, found.state) == (f"{PAPER:.3f}", f"{PAPER:.3f} ± 0.005", page.REPRODUCED)
    assert found.where == "3 seeds, paper, n = 10000"
    assert page.count(PAPERS, ledger.load_measured(tmp_path), {})["dmvae-l"][page.REPRODUCED] == 2  # table 8 has the same value


@pytest.mark.parametrize("change, state, why", [
    (-0.0199, page.REPRODUCED, ""),
    (-0.0201, page.DIFFERS, "worse than the paper's: another schedule was tried"),
    (+0.05, page.REPRODUCED, "better than the paper's"),
])  # fmt: skip
def test_what_counts_as_reproduced(tmp_path, change, state, why):
    plant(tmp_path, PAPER + change)
    found = line(tmp_path, tried={"dmvae_l-mnist-0.2": "another schedule was tried"})
    assert (found.state, found.why) == (state, why)


def test_what_was_tried_is_said_where_corpora_do_not_compare_too(tmp_path):
    cell = "pvae:table-1:tidigits/pvae-shared/speech"
    write_result("pvae-speech", "paper", 0, {"purity_shared_speech": {"value": 99.0, "unit": "%", "n": 300}}, data="voices", stand_in=False, device="cpu", minutes=1.0, folder=tmp_path)
    plain, said = line(tmp_path, cell), line(tmp_path, cell, tried={"pvae-speech": "dear styles were tried"})
    assert plain.state == said.state == page.DIFFERS and said.why == plain.why + "; dear styles were tried"


def test_a_stand_in_never_stands_as_comparable(tmp_path):
    for row in (row for address in page.addresses(PAPERS) for row in page.rows(address, PAPERS) if row.experiment):
        value, table = page.paper_of(row, PAPERS)
        scale = 0.01 if table.get("unit") == "%" else 1.0
        (tmp_path / row.experiment).mkdir(exist_ok=True)
        old = tmp_path / row.experiment / "paper-0.json"
        metrics = read_result(old)["metrics"] if old.exists() else {}
        write_result(row.experiment, "paper", 0, metrics | {row.metric: (value or 0.5) * scale}, data="drawn", stand_in=True, device="cpu", minutes=1.0, folder=tmp_path)
    files = ledger.load_measured(tmp_path)
    found = [x for address in page.addresses(PAPERS) for x in page.lines(address, PAPERS, files, {})]
    measured = [x for x in found if x.ours != "–"]
    assert len(measured) > 150
    assert {x.state for x in measured} == {page.STAND_IN}
    assert all("not comparable" in x.why for x in measured)
    assert not any(counts[page.REPRODUCED] or counts[page.DIFFERS] for counts in page.count(PAPERS, files, {}).values())
    shown = page.Reproduction.shown(_Directive(), measured[0])
    assert "(stand-in data)" in shown[2].astext()


class _Directive:
    class env:
        docname = "book/ledger"

        class app:
            class builder:
                @staticmethod
                def get_relative_uri(a, b):
                    return b


def test_the_paper_s_data_come_before_a_stand_in_and_its_size_before_a_smaller_one(tmp_path):
    plant(tmp_path, 0.1, profile="smoke")
    assert line(tmp_path).state == page.NOT_YET  # a smoke run is no result
    plant(tmp_path, 0.2, stand_in=True)
    assert (line(tmp_path).ours, line(tmp_path).state) == ("0.200", page.STAND_IN)
    plant(tmp_path, 0.3, profile="lite")
    assert (line(tmp_path).ours, line(tmp_path).state, line(tmp_path).why) == ("0.300", page.DIFFERS, "the lite size")
    plant(tmp_path, PAPER, seed=3)
    assert (line(tmp_path).state, line(tmp_path).where) == (page.REPRODUCED, "1 seed, paper, n = 10000")


def test_units_agree_and_smaller_is_better_where_it_is(tmp_path):
    cell = "mmvae:table-2:mnist-svhn/mmvae"
    plant(tmp_path, 0.870, experiment="mmvae-street", metric="coherence_digit_to_street")
    assert line(tmp_path, cell).ours == "87.0%" and line(tmp_path, cell).state == page.REPRODUCED
    row = page.Row("", "pvae:table-1:tidigits/pvae-private/image", "e", "m", lower=True)
    ours = page.Ours(15.0, None, (0,), None, "paper", False, "", "e")
    assert page.status(row, 20.6, ours, "%") == (page.REPRODUCED, "better than the paper's")
    assert page.status(row, 10.0, ours, "%")[0] == page.DIFFERS
    purity = "pvae:table-1:tidigits/pvae-shared/image"
    plant(tmp_path, 99.1, experiment="pvae-speech", metric="purity_shared_image", unit="%")
    assert line(tmp_path, purity).ours == "99.10%"
    assert line(tmp_path, purity).state == page.DIFFERS and "another corpus" in line(tmp_path, purity).why


def test_another_schedule_or_setting_has_a_row_of_its_own_with_its_command(tmp_path):
    plant(tmp_path)
    for name in ("dmvae_l-mnist-0.2-interleaved", "dmvae_l-mnist-0.2--label-1000", "dmvae_l-mnist-0.2-interleaved--beta-1"):
        plant(tmp_path, 0.5, experiment=name)
        assert line(tmp_path, experiment=name).ours == "0.500" and line(tmp_path, experiment=name).row.what.startswith("MNIST, DMVAE, 0.2% (")
    assert line(tmp_path, experiment="dmvae_l-mnist-0.2-interleaved--beta-1").row.what == "MNIST, DMVAE, 0.2% (interleaved, beta 1)"
    assert page.command("dmvae_l-mnist-0.2--label-1000") == "mmvae reproduce dmvae_l-mnist-0.2 --profile paper --seeds 0,1,2 --set label=1000"
    assert not any("0.2% (" in x.row.what for x in page.lines("dmvae-l:table-1", PAPERS, {}, {}))


def test_the_gap_of_the_entangled_sets_is_computed(tmp_path):
    assert page.gap(PAPERS, {})[0].paper.startswith("+5.25") and page.gap(PAPERS, {})[0].state == page.NOT_YET
    for seed, (e, me) in enumerate([(-150.0, -154.0), (-151.0, -155.0)]):
        plant(tmp_path, e, seed, "jmvae_zero-e", "elbo", stand_in=True)
        plant(tmp_path, me, seed, "jmvae_zero-me", "elbo", stand_in=True)
    found = page.gap(PAPERS, ledger.load_measured(tmp_path))[0]
    assert found.ours.startswith("+4.00 ± 1.00") and found.state == page.REPRODUCED
    plant(tmp_path, -170.0, 0, "jmvae_zero-e", "elbo", stand_in=True)
    assert page.gap(PAPERS, ledger.load_measured(tmp_path))[0].state == page.DIFFERS


def test_a_figure_is_drawn_where_a_cell_says_so(tmp_path):
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "_toc.yml").write_text("parts: [{chapters: [{file: notebooks/sound}, {file: book/notation}]}]")
    (tmp_path / "notebooks" / "sound.py").write_text('# # Private and shared\n# %% tags=["hide-input", "figure-pvae-4", "figure-pvae-16"]\n')
    (tmp_path / "notebooks" / "absent.py").write_text('# # Not in the book\n# %% tags=["figure-pvae-2"]\n')
    assert page.drawn(tmp_path) == {("pvae", "4"): ("notebooks/sound", "Private and shared"), ("pvae", "16"): ("notebooks/sound", "Private and shared")}
    known = {(paper, number) for paper, figures in page.FIGURES.items() for number in figures}
    assert set(page.drawn(ROOT)) <= known


def test_what_was_tried_belongs_to_experiments_that_exist():
    path = ROOT / "book" / "results" / "tried.json"
    if path.exists():
        import json

        tried = json.loads(path.read_text(encoding="utf-8"))
        assert all(name.partition("--")[0] in EXPERIMENTS and words.strip() for name, words in tried.items())
