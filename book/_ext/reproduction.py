"""Sphinx extension: the reproduction ledger, every table and figure of the five papers with what became of it here.

```{reproduction} pvae:table-1
```
sets each value of a paper's table beside ours.  Papers' values come from book/results/papers.json, ours from the result
files of the runs, and what was tried where ours fall short from book/results/tried.json.  `reproduction-figures PAPER`
lists figures with the page that draws them: the one with a cell tagged `figure-PAPER-NUMBER`.  `reproduction-summary`
counts.  No number is typed here but the tolerances.
"""

from __future__ import annotations

import json
import re
import statistics
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import yaml
from docutils import nodes
from sphinx.util.docutils import SphinxDirective

import ledger

SIZES = ("paper", "lite")  # the best first; a smoke run shows only that the program runs
#: How far from the paper's value ours may be to count as reproduced, by unit: shares of 1, percent, nats relative to the value.
TOLERANCE = {"": 0.02, "%": 2.0, "nats": 0.01}
REPRODUCED, DIFFERS, STAND_IN, NOT_YET = "reproduced", "differs", "stand-in data", "not yet"

CORPUS = "another corpus, open where the paper's are closed"
FEATURES = "distances by features of our own, which no value of another network's can equal"
GENERATED = "another generated set; the difference below is what can be compared"
HEADS = "the heads of the columns are lost in our copy, so that no share of ours can stand beside it"


@dataclass(frozen=True)
class Row:
    """A value of a paper and the experiment and metric that answer it.

    cell: paper:table:cell, "" where the paper has a figure only.  experiment: "" where there is none.
    why: why no value of ours could be the paper's.  lower: whether a smaller value is the better one.
    """

    what: str
    cell: str
    experiment: str = ""
    metric: str = ""
    why: str = ""
    lower: bool = False


@dataclass(frozen=True)
class Ours:
    """The mean over the seeds of the best runs, in the unit of the paper's table."""

    value: float
    sd: float | None
    seeds: tuple[int, ...]
    n: int | None
    profile: str
    stand_in: bool
    data: str
    experiment: str


# What answers what -----------------------------------------------------------------------------------


def _pvae(cell: str) -> dict:
    corpus, model, m = cell.split("/")
    kind = "private" if model.endswith("private") else "shared"
    names = {"vae-sp": "vae_speech", "vae-im": "vae_image", "jmvae-kl": "jmvae_kl"}
    name = names.get(model, "pvae_no_contrast" if "no-contrast" in model else "pvae")
    if corpus == "secuvoice":
        return {"why": "a closed corpus of Spanish digits"}
    return {"experiment": f"{name}-speech", "metric": f"purity_{kind}_{m}", "why": CORPUS, "lower": kind == "private"}


STREET = {"mnist": "digit", "svhn": "street", "both": "both"}
DMVAE_D_MODELS = {"mvae": "mvae-street", "mmvae": "mmvae-street", "dmvae": "dmvae_d-street"}


def _way(text: str) -> str:
    return "_to_".join(STREET[m] for m in text.split("-"))


def _dmvae_d(cell: str) -> dict:
    model, measure = cell.split("/")
    end = "_expost" if model == "dmvae" else ""  # it draws its shared latent from a fitted density throughout
    kind, _, rest = measure.partition("-")
    metric = f"latent_accuracy_{STREET[rest]}" if kind == "latent" else f"coherence_joint{end}" if kind == "joint" else f"coherence_{_way(measure)}"
    return {"experiment": DMVAE_D_MODELS[model], "metric": metric}


def _dmvae_d_distances(cell: str) -> dict:
    model, images = cell.split("/")
    end = "_expost" if model == "dmvae" else ""
    by_class, across = images.startswith("class-"), images.removeprefix("class-")
    metric = f"frechet_{STREET[across]}{end}" if across in STREET else f"frechet_{'class_' if by_class else ''}{_way(across)}"
    return {"experiment": DMVAE_D_MODELS[model], "metric": metric, "why": FEATURES, "lower": True}


def _dmvae_d_sources(cell: str) -> dict:
    model, source, measure = cell.split("/")
    end = "_expost" if source == "ex-post" else ""
    joint = measure == "joint"
    metric = f"coherence_joint{end}" if joint else f"frechet_{STREET[measure.removeprefix('fid-')]}{end}"
    return {"experiment": DMVAE_D_MODELS[model], "metric": metric, **({} if joint else {"why": FEATURES, "lower": True})}


KIND = {"mnist": "mnist", "fmnist": "fashion"}


def _dmvae_l(cell: str) -> dict:
    kind, model, share = cell.split("/")
    if model in ("ae", "nn", "logreg", "rbm", "vae"):
        return {"experiment": f"classifiers-{KIND[kind]}-{share}", "metric": f"accuracy_{model}"}
    names = {"dmvae": "dmvae_l", "jmvae": "jmvae", "mvae": "mvae", "mvae-published": "mvae"}
    return {"experiment": f"{names[model]}-{KIND[kind]}-{share}", "metric": "accuracy"}


def _dmvae_l_faces(cell: str) -> dict:
    return {"why": "no classifier of ours sees its images" if cell.endswith("/cross") else HEADS}


def _dmvae_l_ablation(cell: str) -> dict:
    kind, model = cell.split("/")
    if kind not in KIND:
        return {"why": HEADS}
    name = {"mvae": "mvae", "continuous": "dmvae_l_continuous", "discrete": "dmvae_l"}[model]
    return {"experiment": f"{name}-{KIND[kind]}-0.2", "metric": "accuracy"}


def _mmvae_latents(cell: str) -> dict:
    m, model = cell.split("/")
    if model == "single-vae":
        return {"experiment": f"vae_{STREET[m]}-street", "metric": f"latent_accuracy_{STREET[m]}"}
    seen = "both" if model == "mvae-both" else STREET[m]
    return {"experiment": "mmvae-street" if model == "mmvae" else "mmvae_product-street", "metric": f"latent_accuracy_{seen}"}


def _mmvae_coherence(cell: str) -> dict:
    task, model = cell.split("/")
    metric = "coherence_joint" if task == "joint" else f"coherence_{_way(task)}"
    return {"experiment": "mmvae-street" if model == "mmvae" else "mmvae_product-street", "metric": metric}


def _mmvae_likelihoods(cell: str) -> dict:
    m, model, proposal = cell.split("/")
    other = {"mnist": "street", "svhn": "digit"}[m]
    by = {"both": "all", "own": STREET[m], "other": other}[proposal]
    return {"experiment": "mmvae-street" if model == "mmvae" else "mmvae_product-street", "metric": f"log_likelihood_{STREET[m]}_by_{by}",
            "why": "the scale of the likelihoods is the authors' later one, with which the printed values cannot be compared"}  # fmt: skip


def _mmvae_birds(cell: str) -> dict:
    model, task = cell.split("/")
    if model == "truth":
        return {"experiment": "mmvae-birds", "metric": "cca_truth"}
    metric = {"joint": "cca_joint", "image-caption": "cca_image_to_caption", "caption-image": "cca_caption_to_image"}[task]
    return {"experiment": "mmvae-birds" if model == "mmvae" else "mmvae_product-birds", "metric": metric}


def _m2vae(cell: str) -> dict:
    return {"experiment": {"e-mnist": "jmvae_zero-e", "me-mnist": "jmvae_zero-me"}[cell], "metric": "elbo", "why": GENERATED}


ANSWERS = {
    "pvae:table-1": _pvae,
    "dmvae-d:table-1": _dmvae_d,
    "dmvae-d:table-2": _dmvae_d_distances,
    "dmvae-d:table-3": _dmvae_d_sources,
    "dmvae-l:table-1": _dmvae_l,
    "dmvae-l:table-2a": _dmvae_l_faces,
    "dmvae-l:table-7": _dmvae_l,
    "dmvae-l:table-8": _dmvae_l_ablation,
    "mmvae:table-1": _mmvae_latents,
    "mmvae:table-2": _mmvae_coherence,
    "mmvae:table-3": _mmvae_likelihoods,
    "mmvae:table-4": _mmvae_birds,
    "m2vae:figure-1": _m2vae,
}
#: Values of ours to which the paper has a figure, or a table whose heads are lost.
OURS_ONLY = {
    "dmvae-l:table-2a": [
        Row(f"{measure}, {model}, {share} of a hundred labelled", "", f"{model}-faces-{share}", measure)
        for measure in ("f1", "accuracy") for model in ("mvae", "dmvae_l") for share in (1, 10, 100)
    ],
    "dmvae-d:figure-3": [
        Row(f"{words}, {model}, {m} modalities", "", f"{name}-noisy-{m}", metric, lower=metric.startswith("frechet"))
        for words, metric in (("coherence", "coherence_leave_one_out"), ("distance within a class", "frechet_class_leave_one_out"))
        for model, name in (("MVAE", "mvae"), ("MMVAE", "mmvae"), ("DMVAE", "dmvae_d")) for m in (2, 3, 4, 5)
    ],
}  # fmt: skip

WORDS = {
    "tidigits": "TIDIGITS", "secuvoice": "SecuVoice", "vae-sp": "VAE-sp", "vae-im": "VAE-im", "jmvae-kl": "JMVAE-kl",
    "pvae-shared": "PVAE, shared", "pvae-private": "PVAE, private", "pvae-no-contrast-shared": "PVAE without contrast, shared",
    "pvae-no-contrast-private": "PVAE without contrast, private", "mnist": "MNIST", "svhn": "SVHN", "fmnist": "Fashion-MNIST",
    "mvae": "MVAE", "mmvae": "MMVAE", "dmvae": "DMVAE", "jmvae": "JMVAE", "vae": "VAE", "ae": "AE", "rbm": "RBM", "logreg": "logistic regression",
    "nn": "network", "latent-mnist": "latent of MNIST", "latent-svhn": "latent of SVHN", "latent-both": "latent of both", "joint": "joint",
    "mnist-svhn": "MNIST to SVHN", "svhn-mnist": "SVHN to MNIST", "class-mnist-svhn": "MNIST to SVHN, by class", "class-svhn-mnist": "SVHN to MNIST, by class",
    "prior": "prior", "ex-post": "ex-post density", "fid-mnist": "distance of MNIST", "fid-svhn": "distance of SVHN",
    "mvae-published": "MVAE as published", "mvae-single": "MVAE, from it alone", "mvae-both": "MVAE, from both", "single-vae": "VAE of it alone",
    "both": "proposed by both", "own": "proposed by itself", "other": "proposed by the other", "f1": "F1", "celeba-f1": "faces, F1", "celeba-accuracy": "faces, accuracy",
    "continuous": "DMVAE continuous", "discrete": "DMVAE discrete", "cross": "of images made", "truth": "real pairs",
    "image-caption": "image to caption", "caption-image": "caption to image", "e-mnist": "e-MNIST", "me-mnist": "me-MNIST",
}  # fmt: skip

#: Every figure: paper, number, what it shows.  Tables of networks: the functions of mmvae_lite.networks that build them.
FIGURES = {
    "pvae": {
        "1": "Graphical models of generation and of inference",
        "2": "JMVAE-kl: what the other modality makes of a latent does not vary with the style",
        "3": "Inertia of k-means against the number of clusters",
        "4": "Any content with any style, within a modality",
        "5": "Content from one modality, style from the other",
        **{str(k): f"The networks: {what}" for k, what in zip(range(6, 11), ("speech decoder", "image decoder", "joint encoder", "speech encoder", "image encoder"))},
        **{str(k): f"t-SNE of {what}" for k, what in zip(range(11, 16), ("the shared latent of speech", "the shared latent of images", "the shared latents of both", "the private latent of speech", "the private latent of images"))},
        **{str(k): "A large grid of contents and styles, within a modality" for k in range(16, 19)},
        **{str(k): "A large grid of contents and styles, across modalities" for k in range(19, 23)},
    },
    "dmvae-d": {
        "1": "The architecture, and what it separates",
        "2": "House numbers made for a digit, one style to a row",
        "3": "Coherence and distances with two to five modalities",
    },
    "dmvae-l": {
        "1": "Graphical models",
        "2": "Images made for a label, with styles from the prior or from an image",
        "3": "Faces made for an attribute, with the style of a photograph or from the prior",
        "4": "Private and shared factors of a face and its attributes",
        "5": "The concrete density at several temperatures, and a product of two",
        "6": "How parts of the latents are reconstructed within and across modalities",
        "7": "How frequent each attribute is",
        "8": "Faces made for attributes, with styles from the prior",
        "9": "Faces made for attributes, with the style of a photograph",
        "10": "Digits and garments made for a label, with the style of an image",
        "11": "Digits and garments made for a label, with styles from the prior",
        "12": "One style with every label",
        "13": "t-SNE of the latents of faces",
        "14": "t-SNE of the latents of digits",
    },
    "mmvae": {
        "1": "What several senses share",
        "2": "Four criteria of a multimodal generative model",
        "3": "Examples of digits with house numbers",
        "4": "Joint draws, reconstructions and translations, MMVAE and MVAE",
        "5": "Traversals of single dimensions, which serve one modality or both",
        "6": "Examples of birds with captions",
        "7": "Reconstructed, translated and jointly drawn birds and captions",
    },
    "m2vae": {"1": "Naive and entangled pairs, the latents of the generators and of the JMVAE"},
}
NETWORKS = {
    "dmvae-l": {"Table 3": "dmvae_l_networks", "Table 4": "dmvae_l_fashion_networks", "Table 5": "dmvae_l_celeba_networks"},
    "m2vae": {"Table 1": "m2vae_networks", "Table 2": "cvae_decoder"},
    "pvae": {"Figures 6 to 10": "pvae_networks"},
}
LOST = {"dmvae-l": {"Table 2b": "not legible in our copy", "Table 6": "what it says of the optimisation is in the experiments of mmvae_lite"}}


def rows(address: str, papers: Mapping[str, dict]) -> list[Row]:
    """The rows of one table, in the paper's order, and behind them ours that have no value there."""
    paper, _, key = address.partition(":")
    found = []
    if address in ANSWERS:
        for cell in papers[paper]["tables"][key]["cells"]:
            found.append(Row(in_words(cell, shares=key in ("table-1", "table-7")), f"{address}:{cell}", **ANSWERS[address](cell)))
    return found + OURS_ONLY.get(address, [])


def in_words(cell: str, shares: bool = True) -> str:
    """The name of a cell as a reader would say it; a number is a share of labelled items or a column."""
    *first, last = cell.split("/")
    number = last.replace(".", "").isdigit()
    last = f"{last}%" if number and shares else f"column {last}" if number else WORDS.get(last, last)
    return ", ".join([*(WORDS.get(part, part) for part in first), last])


def addresses(papers: Mapping[str, dict]) -> list[str]:
    """Every table that has rows, paper by paper."""
    known = [f"{paper}:{key}" for paper, entry in papers.items() for key in entry["tables"]]
    known += [a for a in OURS_ONLY if a not in known]
    return sorted(known, key=lambda a: list(papers).index(a.partition(":")[0]))


# What became of it -----------------------------------------------------------------------------------


def variants(row: Row, results: Mapping[str, dict]) -> list[Row]:
    """The row, and beside it the same with another schedule or with settings of its own, where results of those exist."""
    if not row.experiment:
        return [row]
    names = {run.rpartition("/")[0] for run in results}
    others = sorted(n for n in names if n == f"{row.experiment}-interleaved" or n.startswith((f"{row.experiment}--", f"{row.experiment}-interleaved--")))
    more = [replace(row, what=f"{row.what} ({_settings(n.removeprefix(row.experiment))})", experiment=n) for n in others]
    return [row, *(r for r in more if measured(r, results, ""))]


def _settings(ending: str) -> str:
    """`-interleaved--image_std-0.5` -> `interleaved, image std 0.5`."""
    return ", ".join(option.replace("-", " ", 1).replace("_", " ") for option in ending.strip("-").split("--"))


def measured(row: Row, results: Mapping[str, dict], unit: str) -> Ours | None:
    """The mean over seeds of the best there is: the paper's data before a stand-in, the paper's size before a smaller one."""
    runs = [r for run, r in results.items() if run.rpartition("/")[0] == row.experiment and row.metric in r["metrics"]]
    for stand_in in (False, True):
        for profile in SIZES:
            chosen = sorted((r for r in runs if r["profile"] == profile and r["data"]["stand_in"] is stand_in), key=lambda r: r["seed"])
            if chosen:
                metrics = [r["metrics"][row.metric] for r in chosen]
                values = [m["value"] * _scale(m.get("unit", ""), unit) for m in metrics]
                sd = statistics.stdev(values) if len(values) > 1 else None
                counts = {m.get("n") for m in metrics}
                return Ours(statistics.fmean(values), sd, tuple(r["seed"] for r in chosen), counts.pop() if len(counts) == 1 else None,
                            profile, stand_in, chosen[0]["data"]["name"], row.experiment)  # fmt: skip
    return None


def _scale(have: str, want: str) -> float:
    return 100.0 if want == "%" and have != "%" else 0.01 if want != "%" and have == "%" else 1.0


def status(row: Row, paper: float | None, ours: Ours | None, unit: str, tried: Mapping[str, str] = {}) -> tuple[str, str]:
    """One of the four states, and why."""
    if ours is None:
        return NOT_YET, "" if row.experiment else row.why
    if ours.stand_in:
        return STAND_IN, f"{ours.data}; not comparable"
    if paper is None:
        return DIFFERS, row.why or "the paper's value is in a figure or lost"
    notes = [row.why] if row.why else []
    if ours.profile != "paper":
        notes.append(f"the {ours.profile} size")
    if notes:
        return DIFFERS, "; ".join([*notes, *([tried[ours.experiment]] if ours.experiment in tried else [])])
    tolerance = TOLERANCE[unit] * (abs(paper) if unit == "nats" else 1)
    gain = (paper - ours.value) if row.lower else (ours.value - paper)
    if abs(gain) <= tolerance:
        return REPRODUCED, ""
    if gain > 0:
        return REPRODUCED, "better than the paper's"
    return DIFFERS, "worse than the paper's" + (f": {tried[ours.experiment]}" if ours.experiment in tried else "")


def paper_of(row: Row, papers: Mapping[str, dict]) -> tuple[float | None, dict]:
    """The paper's value and its table, whose unit and format are those of ours too."""
    if not row.cell:
        return None, {"unit": "%" if row.metric.startswith("coherence") else "", "format": ".1f" if row.metric.startswith(("coherence", "frechet")) else ".3f"}
    paper, table, cell = row.cell.split(":")
    entry = papers[paper]["tables"][table]
    return entry["cells"][cell], entry


def command(experiment: str) -> str:
    """What makes the row's value, for three seeds."""
    base, *options = experiment.split("--")
    words = "".join(f" --set {key}={value}" for key, _, value in (o.partition("-") for o in options))
    return f"mmvae reproduce {base} --profile paper --seeds 0,1,2{words}"


@dataclass(frozen=True)
class Line:
    """A row as it is shown."""

    row: Row
    paper: str
    ours: str
    where: str
    state: str
    why: str


def lines(address: str, papers: Mapping[str, dict], results: Mapping[str, dict], tried: Mapping[str, str]) -> list[Line]:
    found = []
    for base in rows(address, papers):
        for row in variants(base, results):
            value, table = paper_of(row, papers)
            unit, form = table.get("unit", ""), table.get("format", "")
            if address.endswith(("table-3",)) and row.metric.startswith("coherence"):
                unit = "%"
            ours = measured(row, results, unit)
            spread = {"sd": table["sd"][row.cell.split(":")[2]]} if row.cell and row.cell.split(":")[2] in table.get("sd", {}) else {}
            shown = "–" if value is None else ledger.render({"value": value, "unit": unit, "format": form, **spread})
            state, why = status(row, value, ours, unit, tried)
            if ours is None:
                found.append(Line(row, shown, "–", "", state, why))
                continue
            text = ledger.render({"value": ours.value, "unit": unit, "format": form, **({} if ours.sd is None else {"sd": ours.sd})})
            where = f"{len(ours.seeds)} seed{'s' * (len(ours.seeds) > 1)}, {ours.profile}" + (f", n = {ours.n}" if ours.n else "")
            found.append(Line(row, shown, text, where, state, why))
    return found


def gap(papers: Mapping[str, dict], results: Mapping[str, dict]) -> list[Line]:
    """How much higher the bound is on entangled pairs than on shuffled ones: the paper's claim, comparable where its values are not."""
    cells = papers["m2vae"]["tables"]["figure-1"]
    paper = cells["cells"]["e-mnist"] - cells["cells"]["me-mnist"]
    shown = ledger.render({"value": paper, "unit": cells["unit"], "format": "+.2f"})
    row = Row("e-MNIST minus me-MNIST", "", "jmvae_zero-e", "elbo")
    pair = [measured(replace(row, experiment=name), results, "nats") for name in ("jmvae_zero-e", "jmvae_zero-me")]
    if None in pair:
        return [Line(row, shown, "–", "", NOT_YET, "")]
    entangled, shuffled = pair
    value = entangled.value - shuffled.value
    sd = None if entangled.sd is None or shuffled.sd is None else (entangled.sd**2 + shuffled.sd**2) ** 0.5
    text = ledger.render({"value": value, "unit": "nats", "format": "+.2f", **({} if sd is None else {"sd": sd})})
    where = f"{min(len(o.seeds) for o in pair)} seeds, {entangled.profile}"
    if entangled.profile != shuffled.profile or entangled.profile != "paper":
        return [Line(row, shown, text, where, DIFFERS, "not the paper's size")]
    # generated by networks of ours, as the paper's are by theirs: neither is a stand-in, and the claim is the sign
    return [Line(row, shown, text, where, REPRODUCED if value > 0 else DIFFERS, "the same sign" if value > 0 else "the sign is another")]


def drawn(root: Path) -> dict[tuple[str, str], tuple[str, str]]:
    """(paper, number) -> page and its title, for the figures that a chapter of the book draws in a cell tagged so."""
    toc = yaml.safe_load((root / "_toc.yml").read_text(encoding="utf-8"))
    pages = [chapter["file"] for part in toc["parts"] for chapter in part["chapters"]]
    found: dict[tuple[str, str], tuple[str, str]] = {}
    for page in pages:
        source = root / f"{page}.py"
        if not page.startswith("notebooks/") or not source.exists():
            continue
        text = source.read_text(encoding="utf-8")
        title = re.search(r"^# # (.+)$", text, re.M)
        for tags in re.findall(r"^# %%.*tags=(\[.*?\])", text, re.M):
            for paper, number in re.findall(r'"figure-(pvae|dmvae-d|dmvae-l|mmvae|m2vae)-(\d+)"', tags):
                found.setdefault((paper, number), (page, title[1] if title else page))
    return found


def count(papers: Mapping[str, dict], results: Mapping[str, dict], tried: Mapping[str, str]) -> dict[str, Counter]:
    """How many values of each paper are in each state."""
    total = {paper: Counter() for paper in papers}
    for address in addresses(papers):
        total[address.partition(":")[0]].update(line.state for line in lines(address, papers, results, tried) if line.row.cell)
    return total


# The page --------------------------------------------------------------------------------------------


class _Base(SphinxDirective):
    required_arguments = 0
    optional_arguments = 1

    def files(self) -> tuple[dict, dict, dict]:
        folder = ledger.folder_of(self.env)
        self.env.note_reread()
        tried = folder / "tried.json"
        return ledger.load_papers(folder), ledger.load_measured(folder), json.loads(tried.read_text(encoding="utf-8")) if tried.exists() else {}


class Reproduction(_Base):
    """One table of a paper: its value, ours, on how many seeds, what became of it, and what makes it."""

    required_arguments = 1

    def run(self):
        papers, results, tried = self.files()
        address = self.arguments[0]
        if address not in addresses(papers):
            raise self.error(f"no table {address!r}; there are {', '.join(addresses(papers))}")
        found = lines(address, papers, results, tried) + (gap(papers, results) if address == "m2vae:figure-1" else [])
        paper, _, key = address.partition(":")
        entry = papers[paper]["tables"].get(key)
        caption = [nodes.paragraph("", re.sub(r" \([^()]*\)$", "", entry["caption"]) + ".")] if entry else []
        title = f"{papers[paper]['name']}, {entry['name']}" if entry else ""
        return [*caption, _wide(_table(["Value", "Paper", "Ours", "Status", "Experiment"], [self.shown(line, title) for line in found]))]

    def shown(self, line: Line, title: str = "") -> list[nodes.Node]:
        paper: nodes.Node = nodes.Text(line.paper)
        if line.row.cell:
            uri = self.env.app.builder.get_relative_uri(self.env.docname, ledger.PAGE)
            paper = nodes.reference("", line.paper, refuri=f"{uri}#{ledger.anchor('paper', line.row.cell)}", internal=True, classes=["number", "paper"], reftitle=title)
        ours = nodes.inline("", line.ours)
        if line.where:
            ours += nodes.inline("", line.where, classes=["runs"])
        if line.state == STAND_IN:
            ours += nodes.inline("", " (stand-in data)", classes=["stand-in"])
        state = nodes.inline("", "", nodes.inline("", line.state, classes=["state", f"state-{line.state.replace(' ', '-')}"]))
        if line.why:
            state += nodes.Text(f" {line.why}")
        made: nodes.Node = nodes.Text("–")
        if line.row.experiment:
            made = nodes.literal("", command(line.row.experiment) if "--" in line.row.experiment else line.row.experiment)
        return [nodes.Text(line.row.what), paper, ours, state, made]


class Figures(_Base):
    """The figures of a paper, and its tables of networks: where they are drawn or built here."""

    required_arguments = 1

    def run(self):
        paper = self.arguments[0]
        if paper not in FIGURES:
            raise self.error(f"no paper {paper!r}; there are {', '.join(FIGURES)}")
        self.env.note_reread()
        pages = drawn(Path(self.env.srcdir))
        body = []
        for number, what in FIGURES[paper].items():
            place: nodes.Node = nodes.inline("", NOT_YET, classes=["state", "state-not-yet"])
            if (paper, number) in pages:
                page, title = pages[paper, number]
                place = nodes.inline("", "", nodes.Text("drawn in "), nodes.reference("", title, refuri=self.env.app.builder.get_relative_uri(self.env.docname, page), internal=True))
            body.append([nodes.Text(f"Figure {number}"), nodes.Text(what), place])
        for name, function in NETWORKS.get(paper, {}).items():
            body.append([nodes.Text(name), nodes.Text("The networks, layer by layer"), nodes.inline("", "", nodes.Text("built by "), nodes.literal("", f"networks.{function}"))])
        body += [[nodes.Text(name), nodes.Text("–"), nodes.Text(why)] for name, why in LOST.get(paper, {}).items()]
        return [_wide(_table(["", "What it shows", "Here"], body))]


class Summary(_Base):
    """How many values of each paper are reproduced, and what the words mean."""

    def run(self):
        papers, results, tried = self.files()
        states = (REPRODUCED, DIFFERS, STAND_IN, NOT_YET)
        body = []
        for paper, counts in count(papers, results, tried).items():
            body.append([nodes.Text(f"{papers[paper]['name']}, {sum(counts.values())} values"), *(nodes.Text(str(counts[state])) for state in states)])
        rule = (
            f"Reproduced: at the paper's size on the paper's data, within {TOLERANCE['%']:g} points of its value "
            f"({TOLERANCE['nats']:.0%} of a likelihood), or better. Differs: not so, and the table says why. "
            "Stand-in data: measured on data that take the place of the paper's; such a value does not compare with it."
        )
        made = nodes.paragraph("", "", nodes.Text("What makes a value, checkpoints and resumption included: "), nodes.literal("", command("EXPERIMENT")), nodes.Text("."))
        return [_table(["Values of", *states], body), nodes.paragraph("", rule), made]


def _wide(table: nodes.table) -> nodes.container:
    return nodes.container("", table, classes=["ledger"])


def _table(head: list[str], body: list[list[nodes.Node]]) -> nodes.table:
    top = nodes.thead("", _row([nodes.Text(text) for text in head]))
    group = nodes.tgroup("", *[nodes.colspec(colwidth=1) for _ in head], top, nodes.tbody("", *[_row(cells) for cells in body]), cols=len(head))
    return nodes.table("", group, classes=["results-table", "ledger-table"])


def _row(cells: Iterator[nodes.Node] | list[nodes.Node]) -> nodes.row:
    return nodes.row("", *[nodes.entry("", nodes.paragraph("", "", cell)) for cell in cells])


def setup(app):
    app.add_directive("reproduction", Reproduction)
    app.add_directive("reproduction-figures", Figures)
    app.add_directive("reproduction-summary", Summary)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
