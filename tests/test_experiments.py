"""Every experiment builds, trains a little and measures what it promises, on small sets that ship."""

import functools
import inspect
import json
import math
import re
from dataclasses import replace

import pytest
import torch

from mmvae_lite import data as sets
from mmvae_lite.data.digit_sets import image_label
from mmvae_lite.data.parts import Part
from mmvae_lite.distributions import Normal, kl
from mmvae_lite.evaluation.classifiers import NETWORKS
from mmvae_lite.experiments import EXPERIMENTS, PAPERS, _measures, find, queue
from mmvae_lite.experiments.dmvae_l import EVERY, LabelledBatches
from mmvae_lite.experiments.running import Run, Unfinished, evaluate, reproduce, train
from mmvae_lite.models import MVAE
from mmvae_lite.networks import dense_decoder, dense_encoder
from mmvae_lite.pretrained import cards
from mmvae_lite.results import REQUIRED, read_result
from mmvae_lite.training import fit

SMALL = {
    "digits-street": {"drawn": (300, 1000), "times": 1},
    "entangled": {"per_class": 400},
    "faces": {"train": 100, "validation": 20, "test": 20},
    "birds": {"train_species": 4, "test_species": 3, "each": 12},
}
#: One of every kind; the others differ in the share of labels, the number of modalities or the set of images, or they are
#: a model and measurements that are here in other pairs.
TWINS = ("mvae-street", "vae_digit-street", "mmvae_product-birds", "pvae_no_contrast-speech", "mvae-noisy-3", "mvae-faces-10", "tvae-e")
KINDS = [
    name
    for name in EXPERIMENTS
    if re.fullmatch(r".*-(speech|street|birds|noisy-3|e|mog|digit|mnist-1|mnist-1-interleaved|faces-10)", name) and name not in TWINS
]


@functools.cache
def small(name, options):
    options = {**SMALL.get(name, {}), **{k: v for k, v in options if not (name in SMALL and k in SMALL[name])}}
    if options.get("kind") == "m":  # the original pictures, which do not ship
        options["kind"] = "me"
    make = ORIGINAL[name]
    return make(**({"source": "stand-in"} if "source" in inspect.signature(make).parameters else {}), **options)


ORIGINAL = dict(sets.PAIRED)


@pytest.fixture(autouse=True)
def small_sets(monkeypatch, tmp_path):
    """The sets that ship, few items of each, made once."""
    for name in ORIGINAL:
        monkeypatch.setitem(sets.PAIRED, name, lambda name=name, **options: small(name, tuple(sorted(options.items()))))
    monkeypatch.setenv("MMVAE_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("MMVAE_RESULTS", str(tmp_path / "results"))


def two_steps(experiment):
    """The experiment with as much training data as two steps see, and few test items."""

    def data(profile, seed):
        found = experiment.data(profile, seed)
        settings = experiment.training(profile, found, seed)
        return replace(found, train=found.train.first(2 * settings.batch_size)) if settings else found

    return replace(experiment, data=data)


#: Weights that ship and that some measurements need.
NEEDED = {"street": "colour-features", "birds": "features-drawn-birds"}


@pytest.mark.parametrize("name", [k for k in KINDS if not {NEEDED.get(k.split("-")[1])} - {None, *cards()}])
def test_every_kind_of_experiment_trains_two_steps_and_measures_what_it_promises(name, monkeypatch):
    monkeypatch.setitem(_measures.GENERATED, "smoke", 100)
    run = Run(two_steps(EXPERIMENTS[name]), "smoke")
    trained = train(run, "cpu", progress=False)
    metrics = evaluate(run, trained)
    assert set(metrics) == set(run.experiment.metrics)
    assert all(math.isfinite(m["value"]) for m in metrics.values())
    assert all(m["n"] >= 1 for m in metrics.values() if "n" in m)
    if run.experiment.training("smoke", trained.data, 0) is not None:
        assert trained.history.finished and all(math.isfinite(e["loss"]) for e in trained.history.epochs)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_builds_in_every_profile_and_names_what_it_measures(name):
    experiment = EXPERIMENTS[name]
    assert experiment.name == name and experiment.paper in PAPERS and experiment.source and experiment.data_name in ORIGINAL
    assert re.fullmatch(r"[a-z0-9][a-z0-9_.-]*", name)
    assert experiment.metrics and all(re.fullmatch(r"[a-z0-9_.]+", m) for m in experiment.metrics)
    data = experiment.data("smoke", 0)
    for profile in ("smoke", "lite", "paper"):
        with torch.device("meta"):
            model = experiment.model(profile, data)
        settings = experiment.training(profile, data, 0)
        if settings is None:
            continue
        assert settings.epochs >= 1 and settings.batch_size >= 2 and settings.lr > 0
        shapes = {m: tuple(x.shape[1:]) for m, x in data.train.take(slice(0, 2)).items()}
        assert {m: tuple(s) for m, s in model.event_shapes.items()} == shapes


def test_the_names_that_others_rely_on_exist():
    wanted = ["pvae-speech", "dmvae_d-street", "dmvae_d-noisy-3", "mmvae-street", "mmvae_product-street", "mmvae-birds", "m2vae-e", "cvae-digit"]
    wanted += [f"{model}-{kind}-{f}" for model in ("dmvae_l", "dmvae_l_continuous", "mvae", "jmvae", "telbo", "classifiers")
               for kind in ("mnist", "fashion") for f in ("0.1", "0.2", "0.5", "1", "5", "10", "50", "100")]  # fmt: skip
    assert [name for name in wanted if name not in EXPERIMENTS] == []
    assert EXPERIMENTS["dmvae_l-mnist-0.2"].metrics[:2] == ("accuracy", "accuracy_validation")
    assert "purity_shared_speech" in EXPERIMENTS["pvae-speech"].metrics
    assert "coherence_digit_to_street" in EXPERIMENTS["mmvae-street"].metrics


def test_an_unknown_name_suggests_the_nearest_and_an_unknown_option_is_refused():
    with pytest.raises(KeyError, match="did you mean 'dmvae_l-mnist-0.2'"):
        find("dmvae_l-mnst-0.2")
    with pytest.raises(KeyError, match="unknown option of dmvae_l-mnist-0.2 'lable'.*did you mean 'label'"):
        find("dmvae_l-mnist-0.2", lable=1)


def test_an_option_changes_the_model_and_the_name():
    changed = find("dmvae_l-mnist-0.2", label=1e5, beta=1.0)
    assert changed.name == "dmvae_l-mnist-0.2--beta-1--label-100000"
    data = changed.data("smoke", 0)
    model, usual = changed.model("paper", data), EXPERIMENTS["dmvae_l-mnist-0.2"].model("paper", data)
    assert (model.weights["label"], model.tc_weights["image"]) == (1e5, 1.0)
    assert (usual.weights["label"], usual.tc_weights["image"]) == (1e4, 3.0)


def test_pvae_can_be_squeezed_in_the_middle_of_its_training_and_ends_on_the_papers_weights():
    changed = find("pvae-speech", squeeze=10.0, units=16, updates=400, batch=32)
    data = changed.data("smoke", 0)
    settings, model = changed.training("paper", data, 0), changed.model("paper", data)
    seen = []
    for share in (0.0, 0.39, 0.4, 0.5, 0.6, 0.65, 0.7, 1.0):
        settings.schedule(model, share * settings.epochs)
        seen.append(model.private_beta)
    assert seen == pytest.approx([1, 1, 10, 10, 10, 10**0.5, 1, 1]) and seen[-1] == 1
    assert (settings.epochs, settings.batch_size) == (math.ceil(400 / math.ceil(len(data.train) / 32)), 32)
    assert EXPERIMENTS["pvae-speech"].training("paper", data, 0).schedule is None


def test_the_paper_profile_of_dmvae_l_is_that_of_the_paper_and_its_program():
    items = 50_000
    images = Part({"image": torch.zeros(items, 1, 28, 28, dtype=torch.uint8), "label": torch.eye(10).repeat(items // 10, 1)})
    data = replace(image_label("stand-in"), train=images)
    experiment = EXPERIMENTS["dmvae_l-mnist-0.2"]
    settings, model = experiment.training("paper", data, 0), experiment.model("paper", data)
    assert settings.epochs * math.ceil(items / settings.batch_size) == 250_000 and settings.lr == 1e-3
    assert model.n_data == items and model.temperature == 0.66 and model.unpaired == ("image",) and model.private_dims == {"image": 10, "label": 0}
    assert model.sizes == (1, 10)
    for fraction, labelled in ((0.1, 50), (0.2, 100), (0.5, 250), (1, 500), (100, items)):
        assert int(LabelledBatches(images, fraction, "released", 0).paired.sum()) == labelled


class Watcher(torch.nn.Module):
    """Records which batches it saw and learns nothing."""

    def __init__(self):
        super().__init__()
        self.weight, self.seen = torch.nn.Parameter(torch.zeros(())), []

    def loss(self, batch, generator=None):
        self.seen.append({m: x.clone() for m, x in batch.items()})
        return {"loss": self.weight * 0.0}


def walk(batches, epochs=1):
    model = Watcher()
    optimizers = {"model": torch.optim.SGD(model.parameters(), lr=0.1)}
    for step in range(epochs * batches.steps):
        batches.schedule(model, step / batches.steps)
        any_rows = {m: x[: batches.size] for m, x in batches.part.take(slice(None)).items()}
        batches.step(model, any_rows, optimizers, torch.Generator())
    return model.seen


def numbered(items):
    """Items whose image says which they are."""
    return Part({"image": torch.arange(items).float()[:, None], "label": torch.eye(10).repeat(items // 10, 1)})


def test_released_batches_keep_items_and_order_and_the_same_ones_are_labelled_in_every_epoch():
    part = numbered(2000)
    batches = LabelledBatches(part, 10, "released", 3)
    seen = walk(batches, epochs=2)
    assert [len(b["image"]) for b in seen] == [100] * 40
    assert all(torch.equal(b["image"][:, 0], torch.arange(100.0) + 100 * (k % 20)) for k, b in enumerate(seen))
    labelled = [k for k, b in enumerate(seen) if "label" in b]
    assert len(labelled) == 4 and labelled[2:] == [k + 20 for k in labelled[:2]]
    assert LabelledBatches(part, 10, "released", 4).labelled != batches.labelled


def test_interleaved_batches_show_the_same_labels_at_every_tenth_step():
    part = numbered(5000)
    released, batches = (LabelledBatches(part, 4, timing, 3) for timing in ("released", "interleaved"))
    assert batches.labelled == released.labelled and len(batches.labelled) == 2
    seen = walk(batches)
    labelled = [k for k, b in enumerate(seen) if "label" in b]
    assert labelled == list(range(0, batches.steps, EVERY))
    first = [int(seen[k]["image"][0, 0]) // 100 for k in labelled]
    assert first == [batches.labelled[i % 2] for i in range(len(first))]
    known = set(torch.arange(5000)[batches.paired].tolist())
    assert {int(i) for k in labelled for i in seen[k]["image"][:, 0]} == known


def test_nothing_is_interleaved_where_a_tenth_or_more_is_labelled():
    assert not LabelledBatches(numbered(2000), 50, "interleaved", 0).interleaved
    with pytest.raises(ValueError, match="timing: found 'often', wanted 'released' or 'interleaved'"):
        LabelledBatches(numbered(2000), 50, "often", 0)


def test_a_result_file_has_everything_and_the_run_resumes_where_it_was():
    run = Run(EXPERIMENTS["dmvae_l-mnist-1"], "smoke", 5)
    with pytest.raises(Unfinished, match=r"dmvae_l-mnist-1 \(smoke, seed 5\): 0 of 1 epochs are trained, run it again to go on"):
        train(run, "cpu", seconds=1e-3, progress=False)
    kept = run.progress()
    assert kept["epoch"] == 0 and kept["step"] == 1
    path = reproduce(run, "cpu", progress=False)
    assert run.result() == path
    record = read_result(path)
    assert set(REQUIRED) <= set(record) and record["experiment"] == "dmvae_l-mnist-1" and record["seed"] == 5 and record["device"] == "cpu"
    assert set(record["metrics"]) == {*run.experiment.metrics, "epochs", "parameters"}
    assert record["data"]["stand_in"] is True and record["metrics"]["accuracy"]["n"] > 100
    again = json.loads(path.read_text())
    path.unlink()
    fresh = reproduce(run, "cpu", progress=False, restart=True)
    assert json.loads(fresh.read_text())["metrics"] == again["metrics"]  # killed and resumed, or in one go


def test_a_metric_that_an_experiment_does_not_list_is_an_error():
    run = Run(replace(EXPERIMENTS["m2vae-mog"], metrics=("elbo", "elbo_given_w", "bits")), "smoke")
    trained = train(run, "cpu", progress=False)
    with pytest.raises(RuntimeError, match=r"measured \['elbo_given_x'\] beyond its list of metrics and lacks \['bits'\]"):
        evaluate(run, trained)


def test_the_queue_is_in_the_order_of_worth_and_leaves_out_what_has_a_result(monkeypatch):
    cpu = [(run.experiment.name, run.seed) for run in queue.missing("cpu", "paper")]
    assert cpu[:4] == [("dmvae_l-mnist-0.2", 0), ("dmvae_l-mnist-0.2", 1), ("dmvae_l-mnist-0.2", 2), ("dmvae_l-mnist-1", 0)]
    place = {name: k for k, name in reversed(list(enumerate(n for n, _ in cpu)))}
    assert place["dmvae_l-mnist-100"] < place["dmvae_d-noisy-2"] < place["m2vae-e"]
    gpu = [run.experiment.name for run in queue.missing("cuda", "paper")]
    assert gpu[:4] == ["pvae-speech"] * 3 + ["dmvae_l-fashion-0.2"]
    assert {n for n, _ in cpu} == set(gpu) == set(EXPERIMENTS)
    run = Run(EXPERIMENTS["dmvae_l-mnist-0.2"], "paper", 1)
    run.checkpoint.parent.mkdir(parents=True)
    monkeypatch.setattr(Run, "progress", lambda self: {"epoch": 3} if (self.experiment.name, self.seed) == ("dmvae_l-mnist-0.2", 2) else None)
    monkeypatch.setattr(Run, "result", lambda self: "here" if (self.experiment.name, self.seed) == ("dmvae_l-mnist-0.2", 0) else None)
    assert [run.seed for run in queue.missing("cpu", "paper")[:2]] == [2, 1]


def test_a_judge_is_one_that_reads_the_data_and_is_trained_where_none_does(monkeypatch):
    data = image_label("stand-in")
    assert _measures.judge("image", data, torch.device("cpu"), "smoke").of == "digits"
    few = data.train.first(600)
    negative = replace(few, batch={**few.batch, "image": 255 - few.batch["image"].flip(-1)})
    trained = _measures.train_classifier
    monkeypatch.setattr(_measures, "train_classifier", lambda *a, epochs, **k: trained(*a, epochs=30, **k))
    own = _measures.judge("image", replace(data, train=negative), torch.device("cpu"), "lite")
    assert not hasattr(own, "of") and isinstance(own, type(NETWORKS["image"](10)))
    shown = own(negative.take(slice(0, 500))["image"]).argmax(-1)
    assert (shown == negative.classes[:500]).float().mean() > 0.9


def test_the_joint_elbo_is_the_closed_form_where_the_posterior_is_the_prior():
    shape, n = (1, 2, 2), 200
    encoder, decoder = dense_encoder([4, 3], 2), dense_decoder([2, 3, 4], shape)
    model = MVAE({"a": encoder}, {"a": decoder}, {"a": sets_likelihood()}, 2)
    for p in model.parameters():
        torch.nn.init.zeros_(p)
    model.encoders["a"].head.bias.data[2:] = 10.0  # an expert that says nothing: q is the prior
    x = torch.rand(n, *shape, generator=torch.Generator().manual_seed(0))
    found = _measures.joint_elbo(model, Part({"a": x}), 0)
    assert found["n"] == n and found["value"] == pytest.approx(-4 * math.log(2), abs=1e-3)


def sets_likelihood():
    from mmvae_lite.distributions import BernoulliLikelihood

    return BernoulliLikelihood()


@pytest.mark.parametrize(
    "name, options, words",
    [
        ("m2vae-mog", {"beta": "much"}, "option beta of m2vae-mog: found 'much', wanted a number"),
        ("m2vae-mog", {"beta": float("nan")}, "found nan, wanted a number"),
        ("m2vae-mog", {"epochs": 0}, "option epochs of m2vae-mog: found 0, wanted a whole number of at least 1"),
        ("m2vae-mog", {"epochs": True}, "found True"),
        ("m2vae-mog", {"epochs": 2.5}, "found 2.5"),
        ("dmvae_d-street", {"preset": 3}, "found 3, wanted a word such as 'code'"),
        ("dmvae_d-street", {"preset": "cod"}, "unknown preset 'cod', known: 'code', 'paper'"),
        ("dmvae_d-noisy-2", {"preset": "code"}, "unknown preset 'code', known: 'code_paired', 'paper_paired'"),
        ("mmvae-street", {"preset": "cod"}, "unknown preset 'cod'"),
        ("dmvae_l-mnist-1", {"timing": "often"}, "timing: found 'often'"),
        ("mvae-mnist-1", {"timing": "often"}, "timing: found 'often'"),
    ],
)
def test_a_value_that_an_option_cannot_have_is_refused_before_anything_is_trained(name, options, words):
    with pytest.raises((KeyError, ValueError)) as caught:
        find(name, **options)
    assert words in str(caught.value)


class Swapped(torch.nn.Module):
    """Content is the class, style the rest: decodes an image [items, 10] whose largest entry is the content's, or the style's."""

    def __init__(self, obeys):
        super().__init__()
        self.place, self.obeys = torch.nn.Parameter(torch.zeros(())), obeys

    def swap(self, content, style):
        return content if self.obeys == "content" else style


@pytest.mark.parametrize("obeys", ["content", "style"])
def test_swap_accuracy_sees_whether_the_content_or_the_style_decides(obeys):
    classes = torch.arange(10).repeat(60)
    x = torch.nn.functional.one_hot(classes, 10).float()
    data = sets.MultimodalSet("s", "s", False, Part({"a": x}, classes), Part({"a": x}, classes))
    found = _measures.swap_accuracies(Swapped(obeys), data, {"a": lambda x: x}, 0)
    assert found["swap_accuracy_a"]["n"] == 600 and found["classifier_accuracy_a"]["value"] == 1.0
    assert found["swap_accuracy_a"]["value"] == 1.0 if obeys == "content" else found["swap_accuracy_a"]["value"] < 0.2


def test_the_curve_of_inertia_bends_at_the_number_of_clusters(monkeypatch):
    g = torch.Generator().manual_seed(0)
    centres = 20 * torch.randn(10, 8, generator=g, dtype=torch.float64)
    z = (centres[:, None] + torch.randn(10, 20, 8, generator=g, dtype=torch.float64)).flatten(0, 1)
    monkeypatch.setattr(_measures, "posteriors", lambda model, part, given, latent: z)
    monkeypatch.setattr(_measures, "latents", lambda q, sample: q)
    data = sets.MultimodalSet("s", "s", False, Part({"a": z}), Part({"a": z}))
    found = _measures.elbows(torch.nn.Module(), data, "lite", 0)["elbow_shared_a"]
    assert found["value"] == 10 and found["n"] == 200 and list(found["curve"]) == [str(k) for k in range(2, 21)]


def test_divergences_of_every_dimension_are_the_closed_form():
    encoders = {m: dense_encoder([4, 3], 2) for m in "ab"}
    model = MVAE(encoders, {m: dense_decoder([2, 3, 4], (4,)) for m in "ab"}, dict.fromkeys("ab", sets_likelihood()), 2)
    for p in model.parameters():
        torch.nn.init.zeros_(p)
    for m, mean in (("a", 1.0), ("b", -1.0)):
        model.encoders[m].head.bias.data[0] = mean  # N(mean, 1) times the prior: N(mean / 2, 1/2)
    part = Part({m: torch.rand(50, 4, generator=torch.Generator().manual_seed(0)) for m in "ab"})
    found = _measures.dimension_kls(model, sets.MultimodalSet("s", "s", False, part, part))
    moved, still = 0.5 * (0.5 + 0.25 - 1 + math.log(2)), 0.5 * (0.5 - 1 + math.log(2))
    assert found["kl_a"]["dimensions"] == pytest.approx([moved, still], abs=1e-5) and found["kl_a"]["value"] == pytest.approx(moved + still, abs=1e-5)
    assert found["kl_a_b"]["dimensions"] == pytest.approx([1.0, 0.0], abs=1e-5) and found["kl_a_b"]["n"] == 50


def test_the_list_says_stand_in_where_the_set_does(monkeypatch):
    from mmvae_lite.experiments import _data

    for everything in (False, True):
        monkeypatch.setattr(_data, "here", lambda part: everything)
        states = {kind: _data.at_hand("entangled", {"kind": kind}) for kind in ("e", "me", "m")}
        assert states == {"e": "stand-in", "me": "stand-in", "m": "real" if everything else "missing"}
        assert _data.at_hand("image-label", {"images": "fashion-mnist"}) == ("real" if everything else "stand-in")
    assert small("entangled", (("kind", "e"),)).stand_in and not small("mog", ()).stand_in
    assert {EXPERIMENTS[f"m2vae-{kind}"].data_options["kind"] for kind in ("e", "me", "m")} == {"e", "me", "m"}


def test_a_part_is_thinned_evenly_and_loses_no_class():
    part = Part({"a": torch.arange(100)[:, None]}, torch.arange(10).repeat_interleave(10), {}, {"who": torch.arange(100)})
    few = part.evenly(20)
    assert len(few) == 20 and set(few.classes.tolist()) == set(range(10))
    assert torch.equal(few.facts["who"], few.batch["a"][:, 0])


def test_points_of_a_mixture_get_a_latent_and_would_get_none_with_a_weight_of_one():
    found = {}
    for beta in (None, 1.0):
        experiment = EXPERIMENTS["m2vae-mog"].maker("m2vae", "mog", beta=beta, alpha=beta)
        data = experiment.data("lite", 0)
        torch.manual_seed(0)
        model = experiment.model("lite", data)
        settings = experiment.training("lite", data, 0)
        fit(model, data.train.first(10_000), epochs=2, batch_size=settings.batch_size, optimizers=settings.optimizers(model), seed=0)
        with torch.no_grad():
            q = model.posterior(data.test.take(slice(0, 500)))["shared"]
        found[beta] = kl(q, Normal.standard(*q.mean.shape)).mean()
    assert found[1.0] < 0.05 and found[None] > 1
