"""Measurements that several experiments share, each a call of `mmvae_lite.evaluation` with the names of its metrics."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from mmvae_lite.data.parts import MultimodalSet, Part, as_float
from mmvae_lite.distributions import kl
from mmvae_lite.evaluation import cca, clustering, coherence, frechet, probes, semi_supervised
from mmvae_lite.evaluation import latents as divergences
from mmvae_lite.evaluation._common import latents, posteriors
from mmvae_lite.evaluation.bird_features import bird_features
from mmvae_lite.evaluation.classifiers import SHIPPED, accuracy, classifier, train_classifier
from mmvae_lite.ex_post import ExPostDensity
from mmvae_lite.experiments._experiment import Metrics, generator, mean_of
from mmvae_lite.pretrained import BadWeights

CHUNK = 1000
GENERATED = {"smoke": 200, "lite": 2000, "paper": 10_000}
COMPONENTS = {"smoke": 4, "lite": 30, "paper": 100}
#: Modality -> the kind of network that judges it, and the sets that shipped judges were trained on.
JUDGES = {
    "image": ("image", ("mnist", "fashion-mnist", "digits")),
    "digit": ("image", ("mnist", "digits")),
    "garment": ("image", ("fashion-mnist",)),
    "street": ("street", ("street-numbers",)),
    "speech": ("speech", ("fsdd", "spoken-digits")),
}
TRUSTED = 0.8


def value(x: float | int, n: int | None = None, scale: float | int = 1.0, **rest: object) -> dict[str, object]:
    """One metric for a result file."""
    return {"value": scale * float(x), **({} if n is None else {"n": n}), **rest}


def taken(found: Mapping[str, object]) -> dict[str, object]:
    """Of what a function of `evaluation` returns, what a result file keeps."""
    return {key: found[key] for key in ("value", "n", "se", "chance", "effective_classes", "spread", "random") if isinstance(found.get(key), (int, float))}


def batches(part: Part, model: nn.Module, modalities: Sequence[str] | None = None) -> Iterator[dict[str, Tensor]]:
    """The tuples in their order, on the model's device, some of their modalities only if named."""
    device = next(model.parameters()).device
    for start in range(0, len(part), CHUNK):
        batch = part.take(slice(start, start + CHUNK))
        yield {m: x.to(device) for m, x in batch.items() if modalities is None or m in modalities}


def with_train(data: MultimodalSet, rows: Tensor) -> MultimodalSet:
    """The set with some of its training tuples only."""
    part = data.train
    chosen = replace(
        part,
        batch={m: x if m in part.index else x[rows] for m, x in part.batch.items()},
        classes=None if part.classes is None else part.classes[rows],
        index={m: index[rows] for m, index in part.index.items()},
        facts={name: x[rows] for name, x in part.facts.items()},
    )
    return replace(data, train=chosen)


def judge(modality: str, data: MultimodalSet, device: torch.device, profile: str):
    """The classifier for a modality: of those that ship the one that reads this set's training items best, else one trained on them."""
    kind, names = JUDGES.get(modality, JUDGES["digit"])
    part = data.train
    rows = part.index.get(modality, torch.arange(len(part)))
    known = slice(0, 1000)
    x, classes = part.batch[modality][rows[known]], part.classes[known]
    ships = []
    for name in names:
        if name in SHIPPED:
            try:
                ships.append(classifier(name))
            except (BadWeights, FileNotFoundError, KeyError):
                continue
    scored = [(accuracy(c, x, classes), k) for k, c in enumerate(ships)]
    if scored and max(scored)[0] >= TRUSTED:
        return ships[max(scored)[1]].to(device)
    few = slice(0, 2000 if profile == "smoke" else 60_000)
    shift = 2 if kind == "image" else 0
    x, classes = part.batch[modality][rows[few]].to(device), part.classes[few].to(device)
    epochs = 1 if profile == "smoke" else max(3, 40_000 // len(classes))
    return train_classifier(kind, x, classes, outputs=10, epochs=epochs, shift=shift, seed=0)


def device_of(model: nn.Module) -> torch.device:
    return next(itertools.chain(model.parameters(), model.buffers())).device


class Nothing(nn.Module):
    """Stands for the model of an experiment that measures classifiers: it has a device and nothing to train."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("place", torch.empty(0))


@torch.no_grad()
def label_accuracy(model: nn.Module, part: Part, seed: int, image: str = "image", label: str = "label") -> dict[str, float]:
    """How often the label decoded from an image alone is right; from a relaxed draw of a discrete latent, the mean of another."""
    g, hits = generator(seed, model), []
    for batch in batches(part, model):
        discrete = len(getattr(model, "sizes", ())) == 2
        options = {"sample": True, "hard": False, "generator": g} if discrete else {}
        found = model.translate({image: batch[image]}, label, **options).argmax(-1)
        hits.append(found == batch[label].argmax(-1))
    return mean_of(torch.cat(hits).cpu())


def coherences(model: nn.Module, data: MultimodalSet, judges: Mapping[str, object], seed: int, pairs: Sequence[tuple[str, str]] | None = None) -> Metrics:
    """`coherence_a_to_b` for every way of translating, and `classifier_accuracy_b` beside it."""
    pairs = pairs or [(a, b) for a in model.modalities for b in judges if a != b]
    found = coherence.conditional_coherence(model, data.test, judges, pairs=[((a,), b) for a, b in pairs], seed=seed)
    metrics = {f"coherence_{a}_to_{b}": taken(found[f"{a}->{b}"]) for a, b in pairs}
    return metrics | {f"classifier_accuracy_{b}": value(found[f"{a}->{b}"]["classifier"], len(data.test)) for a, b in pairs}


def leave_one_out(model: nn.Module, data: MultimodalSet, judges: Mapping[str, object], seed: int) -> Metrics:
    found = coherence.leave_one_out_coherence(model, data.test, judges, seed=seed)["mean"]
    return {"coherence_leave_one_out": taken(found), "classifier_accuracy": value(found["classifier"], len(data.test))}


def joint(model: nn.Module, data: MultimodalSet, judges: Mapping[str, object], profile: str, seed: int, density: ExPostDensity | None, name: str) -> Metrics:
    found = coherence.joint_coherence(model, data.test, judges, n=GENERATED[profile], density=density, seed=seed)
    return {name: taken(found)}


def ex_post(model: nn.Module, data: MultimodalSet, profile: str, seed: int) -> ExPostDensity:
    """A mixture of Gaussians over the shared latent's posterior means of training tuples, as many as are generated, at most 5000."""
    q = posteriors(model, data.train.evenly(min(5000, 4 * GENERATED[profile])), model.modalities)
    means = torch.cat([e.mean for e in q.experts]) if hasattr(q, "experts") else q.mean
    return ExPostDensity.fit(means, COMPONENTS[profile], seed=seed)


def purities(model: nn.Module, data: MultimodalSet, seed: int, private: bool) -> Metrics:
    """`purity_shared_m` and `purity_private_m` of k-means on posterior means given x_m, in %."""
    metrics = {}
    for m in data.test.batch:
        for kind, latent in [("shared", "shared")] + ([("private", f"private/{m}")] if private else []):
            z = latents(posteriors(model, data.test, (m,), latent), False)
            found = clustering.cluster_purity(z, data.test.classes, seed=seed)
            metrics[f"purity_{kind}_{m}"] = {**value(found["value"], found["n"], 100.0), "unit": "%", "random": 100 * found["random"]}
    return metrics


def elbows(model: nn.Module, data: MultimodalSet, profile: str, seed: int) -> Metrics:
    """`elbow_shared_m`: the number of clusters at the elbow of the inertia curve of x_m's shared means, with the curve itself."""
    ks, restarts = ((2, 6, 10, 15, 20), 1) if profile == "smoke" else (tuple(range(2, 21)), 10 if profile == "paper" else 3)
    found = {}
    for m in data.test.batch:
        curve = clustering.inertia_curve(latents(posteriors(model, data.test, (m,), "shared"), False), ks, restarts, seed)
        found[f"elbow_shared_{m}"] = value(clustering.elbow(curve), len(data.test), curve={str(k): inertia for k, inertia in curve.items()})
    return found


@torch.no_grad()
def swap_accuracies(model: nn.Module, data: MultimodalSet, judges: Mapping[str, object], seed: int) -> Metrics:
    """`swap_accuracy_m`: how often x_m decoded with another item's style is still read as its own class, both inferred from x_m."""
    other, device = torch.randperm(len(data.test), generator=generator(seed)), device_of(model)
    found = {}
    for m, read in judges.items():
        hits = []
        for start in range(0, len(data.test), CHUNK):
            rows = slice(start, start + CHUNK)
            content, style = (data.test.take(chosen)[m].to(device) for chosen in (rows, other[rows]))
            hits.append(read(model.swap({m: content}, {m: style})[m]).argmax(-1).cpu() == data.test.classes[rows])
        found[f"swap_accuracy_{m}"] = mean_of(torch.cat(hits))
        rows = slice(0, CHUNK)
        found[f"classifier_accuracy_{m}"] = value(accuracy(read, data.test.take(rows)[m].to(device), data.test.classes[rows].to(device)), min(CHUNK, len(data.test)))
    return found


def dimension_kls(model: nn.Module, data: MultimodalSet) -> Metrics:
    """`kl_m`, from the posterior given x_m to the prior, and the symmetric `kl_a_b` between two posteriors, with every dimension's."""
    part = data.test.evenly(CHUNK)
    batch = {m: x.to(device_of(model)) for m, x in part.take(slice(None)).items()}
    found = divergences.expert_divergences(model, batch)
    return {f"kl_{name.replace(' | ', '_')}": value(float(each.sum()), len(part), unit="nats", dimensions=each.tolist()) for name, each in found.items()}


def latent_accuracies(model: nn.Module, data: MultimodalSet, profile: str, seed: int, sampled: bool, given: Mapping[str, Sequence[str]]) -> Metrics:
    """`latent_accuracy_..` of a linear layer on the shared latent; `given` maps a name to the modalities that are seen.

    sampled: on draws as Shi et al. (2019) train it, else on means as Daunhawer et al. (2021) do.
    """
    train = data.train.evenly({"smoke": 500, "lite": 10_000}.get(profile, 60_000))
    metrics = {}
    for name, seen in given.items():
        known, asked = (posteriors(model, part, seen) for part in (train, data.test))
        if sampled:
            found = probes.probe_samples(known, train.classes, asked, data.test.classes, epochs=2 if profile == "smoke" else 30, seed=seed)
        else:
            found = probes.probe_means(latents(known, False), train.classes, latents(asked, False), data.test.classes, max_epochs=2 if profile == "smoke" else 200, seed=seed)
        metrics[f"latent_accuracy_{name}"] = taken(found)
    return metrics


@torch.no_grad()
def made(model: nn.Module, data: MultimodalSet, modality: str, given: Sequence[str], seed: int) -> Tensor:
    """Translations of the whole test set into one modality, from sampled latents."""
    g = generator(seed, model)
    return torch.cat([model.translate(batch, modality, sample=True, generator=g) for batch in batches(data.test, model, given)])


@torch.no_grad()
def drawn(model: nn.Module, n: int, density: ExPostDensity | None, seed: int) -> dict[str, Tensor]:
    """n joint draws, of the model's prior or of the ex-post density."""
    g, parts = generator(seed, model), []
    for start in range(0, n, CHUNK):
        parts.append(coherence._draw(model, min(CHUNK, n - start), density, g))
    return {m: torch.cat([part[m] for part in parts]) for m in parts[0]}


def real(data: MultimodalSet, modality: str, device: torch.device) -> Tensor:
    part = data.test
    return as_float(part.batch[modality][part.index[modality]] if modality in part.index else part.batch[modality]).to(device)


def distances(generated: Mapping[str, Tensor], data: MultimodalSet, name: str, by_class: bool = False) -> Metrics:
    """Fréchet distances on the features of our own small networks, `frechet_<modality><name>`."""
    metrics = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a smoke run has too few images for a number worth printing, and prints n
        for m, images in generated.items():
            a, b = frechet.extract(real(data, m, images.device)), frechet.extract(images)
            if by_class:
                truth = data.test.classes.to(images.device)
                found = frechet.class_conditional(a, truth, b, truth)["mean"]
            else:
                found = frechet.between(a, b)
            metrics[f"frechet_{name.format(m)}"] = value(found, len(images), features=frechet.default_features(images.shape[1:]))
    return metrics


@torch.no_grad()
def joint_elbo(model: nn.Module, part: Part, seed: int) -> dict[str, float]:
    """The test ELBO of all modalities by a model of one latent, unweighted, in nats."""
    g, values = generator(seed, model), []
    for batch in batches(part, model):
        q = model.posterior(batch)["shared"]
        z = q.rsample(generator=g)
        values.append(sum(model.log_px(m, z, x) for m, x in batch.items()) - kl(q, model.prior(len(z))))
    return {**mean_of(torch.cat(values).cpu()), "unit": "nats"}


def mean_class_distance(generated: Mapping[str, Tensor], data: MultimodalSet, name: str) -> Metrics:
    """The mean over the modalities of the distances within the classes."""
    each = list(distances(generated, data, "{}", by_class=True).values())
    return {name: {**each[0], "value": sum(m["value"] for m in each) / len(each)}}


class Noisy(nn.Module):
    """A model that sees its inputs through fresh noise N(0, sd^2), as in training."""

    def __init__(self, model: nn.Module, sd: float | int = 1.0) -> None:
        super().__init__()
        self.model, self.sd, self.modalities = model, sd, model.modalities

    def translate(self, batch: Mapping[str, Tensor], to: str, sample: bool = False, generator: torch.Generator | None = None) -> Tensor:
        noise = {m: torch.randn(x.shape, generator=generator, device=x.device, dtype=x.dtype) for m, x in batch.items()}
        return self.model.translate({m: x + self.sd * noise[m] for m, x in batch.items()}, to, sample=sample, generator=generator)


@torch.no_grad()
def single_elbos(model: nn.Module, part: Part, seed: int) -> Metrics:
    """`elbo_given_m`: the test bound of all modalities with z inferred from x_m alone, in nats."""
    found = {}
    for m in part.batch:
        g, values = generator(seed, model), []
        for batch in batches(part, model):
            q = model.posterior({m: batch[m]})["shared"]
            z = q.rsample(generator=g)
            values.append(sum(model.log_px(name, z, x) for name, x in batch.items()) - kl(q, model.prior(len(z))))
        found[f"elbo_given_{m}"] = {**mean_of(torch.cat(values).cpu()), "unit": "nats"}
    return found


@torch.no_grad()
def cvae_metrics(model: nn.Module, data: MultimodalSet, profile: str, seed: int) -> Metrics:
    """The test bound given the class with its KL, and whether pictures drawn for a class are read as that class."""
    g, bounds, gaps = generator(seed, model), [], []
    for batch in batches(data.test, model):
        q = model.posterior(batch)["shared"]
        z = q.rsample(generator=g)
        gaps.append(kl(q, model.prior(len(z))))
        bounds.append(model.log_px(z, batch["image"], batch["label"]) - gaps[-1])
    found = {name: {**mean_of(torch.cat(values).cpu()), "unit": "nats"} for name, values in (("elbo", bounds), ("kl", gaps))}
    return found | from_labels(model, data, profile, seed)


@torch.no_grad()
def from_labels(model: nn.Module, data: MultimodalSet, profile: str, seed: int) -> Metrics:
    """`coherence_label_to_image`: pictures drawn for every label equally often, as our classifier reads them."""
    device, n = device_of(model), GENERATED[profile] // 10
    classes = torch.arange(10, device=device).repeat_interleave(n)
    g, read = generator(seed, model), judge("image", data, device, profile)
    labels = torch.nn.functional.one_hot(classes, 10).to(next(model.parameters()).dtype)
    images = torch.cat([model.translate({"label": part}, "image", sample=True, generator=g) for part in labels.split(CHUNK)])
    seen = torch.cat([read(part).argmax(-1) for part in images.split(CHUNK)])
    test = data.test.first(GENERATED[profile])
    return {
        "coherence_label_to_image": mean_of((seen == classes).cpu()),
        "classifier_accuracy_image": value(accuracy(read, test.batch["image"].to(device), test.classes.to(device)), len(test)),
    }


def thinned(data: MultimodalSet, counts: tuple[int | None, int | None]) -> MultimodalSet:
    """The set with so many training and test tuples, taken evenly."""
    train, test = (part.evenly(n) if n else part for part, n in zip((data.train, data.test), counts))
    return replace(data, train=train, test=test)


def baselines(data: MultimodalSet, labelled: Tensor, device: torch.device, profile: str, seed: int) -> Metrics:
    """`accuracy_<name>` of the comparison classifiers, which have the labels of some training images (bool [items])."""
    images, classes = data.train.batch["image"].to(device), data.train.classes.to(device)
    test, steps = data.test, {"steps": 20 if profile == "smoke" else 1000} if profile != "paper" else {}
    found, labelled = {}, labelled.to(device)
    for name in semi_supervised.BASELINES:
        few = {} if name == "logreg" else steps
        predicted = semi_supervised.fit_predict(name, images[labelled], classes[labelled], images[~labelled], test.batch["image"].to(device), seed, **few)
        found[f"accuracy_{name}"] = mean_of(predicted.cpu() == test.classes)
    return found


def attribute_metrics(model: nn.Module, data: MultimodalSet, seed: int) -> Metrics:
    """Accuracy and binary F1 of attributes found from the image alone, means over the attributes, on test and validation."""
    metrics = {}
    for ending, part in (("", data.test), ("_validation", data.validation)):
        scores = semi_supervised.attribute_scores(model, part, seed=seed)
        metrics |= {f"{name}{ending}": {**taken(scores[name]), "base": scores[name]["base"]} for name in ("accuracy", "f1")}
    return metrics


def correlations(model: nn.Module, data: MultimodalSet, profile: str, seed: int) -> Metrics:
    """Correlations of images with captions in the directions of a CCA, for real tuples, joint draws and both translations."""
    device = device_of(model)
    pictures = data.train.batch["image"].ndim == 4
    features = bird_features().to(device) if pictures else None
    k = 40 if profile == "paper" else 20
    judge = cca.fit_caption_judge(data.train, features, k=k)
    test = data.test if profile != "paper" else data.test.evenly(3000)
    cross = cca.cross_correlation(model, test, judge, seed=seed)
    return {
        "cca_joint": taken(cca.joint_correlation(model, judge, 1000 if profile != "smoke" else 100, seed=seed)),
        "cca_image_to_caption": taken(cross["image->caption"]),
        "cca_caption_to_image": taken(cross["caption->image"]),
        "cca_truth": taken(cca.real_correlation(test, judge)),
    }
