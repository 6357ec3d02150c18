"""No measured number is typed in prose: they enter by the two roles, which read files."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from mmvae_lite.results import read_result, write_result
from tests.prose import markdown_of, typed_numbers

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted((ROOT / "book").glob("*.md")) + sorted((ROOT / "notebooks").glob("*.ipynb"))
sys.path.insert(0, str(ROOT / "book" / "_ext"))


def readme_without_the_block_that_a_tool_writes() -> str:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return re.sub(r"<!-- fresh:begin -->.*?<!-- fresh:end -->", "", text, flags=re.S)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_no_measured_number_is_typed_on_a_page(page):
    assert typed_numbers(markdown_of(page)) == []


def test_no_measured_number_is_typed_in_the_readme():
    assert typed_numbers(readme_without_the_block_that_a_tool_writes()) == []


PLANTED = [
    "The accuracy is 0.93 after training.",
    "Accuracy rose from 71 to 88.",
    "MVAE reaches 57.9% of the labels.",
    "It classifies 94 % correctly.",
    "an ELBO of -92.4 on the test set",
    "the bound is tighter by 1.3 nats",
    "Training takes 12 minutes.",
    "a frame is painted within 16 ms",
    "Coherence: 0.86",
    "FID 15.7",
    "its purity was about 99.8",
    "accuracy of $0.93$",
    "an accuracy of $93\\%$",
    "It trains in ninety seconds.",
    "All of it takes about a minute.",
    "what one hour of one core can do",
    "Every cell runs in seconds.",
    "We measured 0.93, the best accuracy so far.",
    "| accuracy | 0.93 |",
    "**0.97** accuracy",
    "{measured}`mvae/lite-0:accuracy` accuracy, against 0.441 accuracy in the paper",
    ":::{note}\nThe accuracy is 0.93.\n:::",
    "```{admonition} Result\nThe accuracy is 0.93.\n```",
]
INNOCENT = [
    "The accuracy is {measured}`mvae/lite-0:accuracy|.1%`, in the paper {paper}`dmvae-l:table-1:mnist/mvae/0.1`.",
    "Accuracy lies between 0 and 1.",
    "The ELBO is the IWAE bound with $K = 1$ sample.",
    "With $N(1, 0.5)$ the normaliser is $\\log Z = -2.177$.",
    "Call `accuracy(x, 0.93)`.",
    "```python\naccuracy = 0.93\n```",
    "$$ \\mathrm{ELBO} = -4.2272 $$ (eq-x)",
    "The images are 28x28 and there are 10 digits.",
    "The accuracy over 10 classes is a mean.",
    "Accuracy is given in Table 1 of Lee and Pavlovic (2020).",
    "LG3 and MNIST are data sets; the loss of a 2-D latent is drawn.",
    "Two modalities, three products, one prior.",
    "{cite:t}`wu2018` report accuracy.",
    "The mean is 0.6 and the variance 0.4.",
]


@pytest.mark.parametrize("text", PLANTED)
def test_planted_number_is_found(text):
    assert typed_numbers(text)


@pytest.mark.parametrize("text", INNOCENT)
def test_definitions_code_and_mathematics_pass(text):
    assert typed_numbers(text) == []


def test_planted_number_on_a_real_page_is_found(tmp_path):
    page = tmp_path / "intro.md"
    page.write_text(markdown_of(ROOT / "book" / "intro.md") + "\n\nThe label is right with accuracy 0.97.\n", encoding="utf-8")
    assert typed_numbers(markdown_of(page))


# The roles and the files that they read -------------------------------------------------------------


@pytest.fixture
def ledger():
    pytest.importorskip("sphinx")
    import ledger

    return ledger


def write(folder: Path, **changes):
    settings = dict(data="digits", stand_in=True, device="cpu", minutes=1.5, folder=folder) | changes
    return write_result("mvae-digits", "lite", 0, {"accuracy": {"value": 0.93, "n": 360, "sd": 0.01}, "elbo": -90.0}, **settings)


def test_result_file_round_trip_has_the_whole_provenance(tmp_path):
    path = write(tmp_path)
    assert path == tmp_path / "mvae-digits" / "lite-0.json"
    record = read_result(path)
    assert record["metrics"]["accuracy"] == {"value": 0.93, "n": 360, "sd": 0.01}
    assert record["data"] == {"name": "digits", "stand_in": True}
    assert {"seed", "device", "minutes", "library", "commit"} <= set(record)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"experiment": "../x"}, "experiment"),
        ({"profile": "huge"}, "profile"),
        ({"metrics": {}}, "metrics"),
        ({"metrics": {"accuracy": float("nan")}}, "finite"),
        ({"metrics": {"accuracy": {"n": 3}}}, "value"),
    ],
)
def test_a_bad_result_is_refused_and_nothing_is_written(tmp_path, change, message):
    arguments = {"experiment": "mvae", "profile": "lite", "metrics": {"accuracy": 0.9}} | change
    with pytest.raises(ValueError, match=message):
        write_result(
            arguments["experiment"], arguments["profile"], 0, arguments["metrics"],
            data="digits", stand_in=True, device="cpu", minutes=1.0, folder=tmp_path,
        )
    assert not list(tmp_path.rglob("*"))


def test_a_result_without_its_fields_is_refused(tmp_path):
    path = tmp_path / "x.json"
    path.write_text("{}")
    with pytest.raises(ValueError, match="lacks experiment"):
        read_result(path)


def test_measured_role_reads_value_format_and_provenance(tmp_path, ledger):
    write(tmp_path)
    results = ledger.load_measured(tmp_path)
    text, metric, record = ledger.measured_value(results, "mvae-digits/lite-0:accuracy", ".1%")
    assert text == "93.0% ± 1.0%"
    for part in ("seed 0", "device cpu", "1.5 minutes", "commit", "data digits", "stand-in", "n = 360"):
        assert part in ledger.provenance(record, metric)


@pytest.mark.parametrize("address", ["mvae-digits/lite-1:accuracy", "mvae-digits/lite-0:purity", "nothing"])
def test_measured_role_refuses_what_is_not_there(tmp_path, ledger, address):
    write(tmp_path)
    with pytest.raises(ledger.Missing):
        ledger.measured_value(ledger.load_measured(tmp_path), address)


def test_paper_role_reads_a_cell_and_refuses_others(ledger):
    papers = ledger.load_papers(ROOT / "book" / "results")
    text, table, paper = ledger.paper_value(papers, "dmvae-l:table-1:mnist/mvae/0.2")
    assert text == "0.579" and "Accuracy" in table["caption"] and "Lee" in paper["name"]
    for address in ("dmvae-l:table-1:mnist/mvae/7", "dmvae-l:table-9:x", "nobody:table-1:x", "dmvae-l"):
        with pytest.raises(ledger.Missing):
            ledger.paper_value(papers, address)


def test_papers_are_in_the_bibliography_and_their_cells_are_numbers():
    papers = json.loads((ROOT / "book" / "results" / "papers.json").read_text(encoding="utf-8"))["papers"]
    bibliography = (ROOT / "book" / "references.bib").read_text(encoding="utf-8")
    for paper in papers.values():
        assert f"{{{paper['cite']}," in bibliography
        assert paper["name"] and paper["note"]
        for table in paper["tables"].values():
            assert table["caption"] and table["cells"]
            assert all(isinstance(value, (int, float)) for value in table["cells"].values())


def test_committed_results_are_whole():
    for path in (ROOT / "book" / "results").glob("*/*.json"):
        record = read_result(path)
        assert path.parent.name == record["experiment"]
        assert path.stem == f"{record['profile']}-{record['seed']}"


def test_every_role_on_a_page_finds_its_number(ledger):
    folder = ROOT / "book" / "results"
    measured, papers = ledger.load_measured(folder), ledger.load_papers(folder)
    for page in PAGES:
        # an inline code span that shows the syntax is not a use of the role
        for kind, text in re.findall(r"(?<!`)\{(measured|paper)\}`([^`]+)`(?!`)", re.sub(r"``.*?``", "", markdown_of(page))):
            address, spec = ledger.split(text)
            if kind == "measured":
                ledger.measured_value(measured, address, spec)
            else:
                ledger.paper_value(papers, address, spec)
