"""Naming images with few labels: known answers, exact enumeration of a small Boltzmann machine, scikit-learn as oracle."""

import itertools
import math

import pytest
import torch
from torch.nn import functional as F

from mmvae_lite.data.parts import Part
from mmvae_lite.evaluation.semi_supervised import (
    BASELINES,
    RBM,
    attribute_scores,
    binary_scores,
    fit_predict,
    label_accuracy,
    logistic_regression,
    over_seeds,
)

QUICK = {"nn": {"steps": 100, "hidden": 64}, "logreg": {}, "rbm": {"steps": 250, "hidden": 32}, "ae": {"steps": 200, "hidden": 64, "latent": 8}, "vae": {"steps": 200, "hidden": 64, "latent": 8}}


def seeded(build, seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()


def pictures(n, seed, noise=0.15):
    """Four binary prototypes of 6x6 pixels, of which some are flipped."""
    prototypes = torch.rand(4, 1, 6, 6, generator=torch.Generator().manual_seed(50)).round()
    g = torch.Generator().manual_seed(seed)
    classes = torch.randint(4, (n,), generator=g)
    flipped = torch.rand(n, 1, 6, 6, generator=g) < noise
    return torch.where(flipped, 1 - prototypes[classes], prototypes[classes]), classes


class Translator:
    """A model whose label is right with a known probability, told by the image's first pixels."""

    modalities = ("image", "label")

    def __init__(self, right=1.0):
        self.right = right

    def translate(self, batch, to, sample=False, generator=None):
        wanted = batch["image"][:, : (10 if to == "label" else 3)]
        hit = torch.rand(len(wanted), 1, generator=generator) < self.right
        return torch.where(hit, wanted, wanted.roll(1, 1))


def test_accuracy_of_a_translation():
    classes = torch.randint(10, (3000,), generator=torch.Generator().manual_seed(0))
    data = Part({"image": F.one_hot(classes, 10).float(), "label": F.one_hot(classes, 10).float()}, classes)
    found = label_accuracy(Translator(0.8), data)
    assert found["value"] == pytest.approx(0.8, abs=4 * found["se"]) and found["n"] == 3000
    assert found["chance"] == pytest.approx(0.1, abs=0.01)
    assert label_accuracy(Translator(), data)["value"] == 1 and label_accuracy(Translator(0.8), data, "image") == found


def test_a_model_is_asked_as_its_paper_asks_it():
    """Lee and Pavlovic (2020) name an image by a relaxed draw of the discrete latent, which their model makes if told so."""
    asked = []

    class Discrete(Translator):
        def translate(self, batch, to, sample=False, generator=None, hard=True):
            assert set(batch) == {"image"}, "the answer is not shown to the model"
            asked.append((sample, hard))
            return super().translate(batch, to, sample, generator)

    data = Part({"image": torch.eye(10), "label": torch.eye(10), "attributes": torch.eye(10)[:, :3]})
    label_accuracy(Discrete(), data, hard=False)
    attribute_scores(Discrete(), data, sample=False, hard=False)
    label_accuracy(Discrete(), data)
    assert asked == [(True, False), (False, False), (True, True)]


def test_shuffled_labels_are_at_chance():
    classes = torch.randint(10, (3000,), generator=torch.Generator().manual_seed(0))
    order = torch.randperm(3000, generator=torch.Generator().manual_seed(1))
    data = Part({"image": F.one_hot(classes, 10).float(), "label": F.one_hot(classes[order], 10).float()}, classes)
    found = label_accuracy(Translator(), data)
    assert found["value"] == pytest.approx(found["chance"], abs=4 * found["se"])


def test_attributes_against_scikit_learn():
    from sklearn.metrics import f1_score

    g = torch.Generator().manual_seed(2)
    truth = torch.rand(200, 5, generator=g) < torch.tensor([0.1, 0.3, 0.5, 0.9, 0.0])
    found = truth ^ (torch.rand(200, 5, generator=g) < 0.2)
    found[:, 4] = False  # neither found nor true
    scores = binary_scores(found, truth)
    theirs = [f1_score(truth[:, k].numpy(), found[:, k].numpy(), zero_division=0) for k in range(5)]
    assert scores["f1"]["value"] == pytest.approx(sum(theirs) / 5) and scores["f1"]["n"] == 200
    assert scores["accuracy"]["value"] == pytest.approx(float((found == truth).double().mean()))
    assert scores["accuracy"]["base"] == pytest.approx(sum(max(float(t), 1 - float(t)) for t in truth.double().mean(0)) / 5)


def test_f1_by_hand_and_of_one_who_always_says_no():
    """Two found of which one is right, one missed: F1 is 2 / (2 + 1 + 1)."""
    truth, found = torch.tensor([[1], [1], [0], [0]]), torch.tensor([[1], [0], [1], [0]])
    assert binary_scores(found, truth)["f1"]["value"] == 0.5
    rare = torch.zeros(100, 1)
    rare[0] = 1
    lazy = binary_scores(torch.zeros(100, 1), rare)
    assert lazy["accuracy"]["value"] == lazy["accuracy"]["base"] == 0.99 and lazy["f1"]["value"] == 0


def test_attributes_of_a_translation():
    truth = torch.rand(500, 3, generator=torch.Generator().manual_seed(0)).round()
    data = Part({"image": truth, "attributes": truth})
    assert attribute_scores(Translator(), data)["f1"]["value"] == attribute_scores(Translator(), data)["accuracy"]["value"] == 1
    assert attribute_scores(Translator(0.0), data)["accuracy"]["value"] == pytest.approx(0.5, abs=0.06)


def test_over_seeds():
    found = over_seeds([{"value": v, "n": 10} for v in (0.5, 0.7, 0.9)])
    assert found == {"value": pytest.approx(0.7), "sd": pytest.approx(0.2), "seeds": 3, "n": 10}
    assert over_seeds([{"value": 0.5, "n": 10}])["sd"] == 0


@pytest.mark.parametrize("name", BASELINES)
def test_learns_and_repeats(name):
    x, y = pictures(120, 1)
    others, (unseen, classes) = pictures(300, 2)[0], pictures(400, 3)
    before = torch.get_rng_state()
    found = fit_predict(name, x, y, others, unseen, seed=3, **QUICK[name])
    assert torch.equal(before, torch.get_rng_state())
    assert found.shape == (400,) and float((found == classes).double().mean()) > 0.9
    again = seeded(lambda: fit_predict(name, (255 * x).byte(), y, (255 * others).byte(), (255 * unseen).byte(), seed=3, **QUICK[name]), 77)
    assert torch.equal(found, again)


@pytest.mark.parametrize("name", BASELINES)
def test_pictures_that_do_not_show_their_class_are_named_by_chance(name):
    g = torch.Generator().manual_seed(4)
    x, others, unseen = (torch.rand(n, 1, 6, 6, generator=g).round() for n in (120, 100, 1000))
    y, classes = (torch.randint(4, (n,), generator=g) for n in (120, 1000))
    found = fit_predict(name, x, y, others, unseen, **{**QUICK[name], **({"steps": 60} if name != "logreg" else {})})
    assert float((found == classes).double().mean()) == pytest.approx(0.25, abs=4 * math.sqrt(0.25 * 0.75 / 1000))


BRIEF = {name: {**QUICK[name], "steps": 40} for name in ("nn", "rbm", "vae")}


def test_same_answers_in_another_process(elsewhere):
    program = (
        "from tests.test_semi_supervised import *; x, y = pictures(60, 1); "
        "print(*(fit_predict(n, x, y, x, pictures(200, 3, noise=0.35)[0], seed=3, **BRIEF[n]).tolist() for n in BRIEF))"
    )
    there = elsewhere(program)
    x, y = pictures(60, 1)
    here = [fit_predict(n, x, y, x, pictures(200, 3, noise=0.35)[0], seed=3, **BRIEF[n]).tolist() for n in BRIEF]
    assert there == " ".join(map(str, here)) + "\n"


def test_features_are_learnt_from_images_without_labels():
    """Two labelled pictures of each class: a VAE names the rest better where it sees many others without labels."""
    gains = []
    for seed in range(2):
        x, y = pictures(400, seed, noise=0.25)
        few = torch.cat([(y == k).nonzero().flatten()[:2] for k in range(4)])
        unseen, classes = pictures(500, 100 + seed, noise=0.25)
        many, none = (fit_predict("vae", x[few], y[few], others, unseen, seed=seed, steps=250, hidden=64, latent=4) for others in (x, x[few]))
        gains.append(float((many == classes).double().mean() - (none == classes).double().mean()))
    assert min(gains) > 0.15


def test_logistic_regression_is_scikit_learns():
    from sklearn.linear_model import LogisticRegression

    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(200, 5, generator=g, dtype=torch.float64), torch.randint(3, (200,), generator=g)
    x[:, 0] += y
    for c in (0.1, 1.0, 10.0):
        theirs = LogisticRegression(C=c, tol=1e-10, max_iter=10_000).fit(x.numpy(), y.numpy())
        ours = logistic_regression(x, y, c)
        assert torch.allclose(ours.weight, torch.as_tensor(theirs.coef_), atol=2e-4)
        gaps = ours.bias - torch.as_tensor(theirs.intercept_)
        assert torch.allclose(gaps, gaps.mean().expand(3), atol=2e-4), "a constant added to all intercepts changes nothing"


def machine(visible=5, hidden=3, seed=1):
    m = seeded(lambda: RBM(visible, hidden).double())
    g = torch.Generator().manual_seed(seed)
    for p in m.parameters():
        p.copy_(0.7 * torch.randn(p.shape, generator=g, dtype=p.dtype))
    return m


def states(n):
    return torch.tensor(list(itertools.product([0.0, 1.0], repeat=n)), dtype=torch.float64)


def log_probs(m):
    """log p(v) of every v, by the sum over all visible and hidden states."""
    v, h = states(len(m.visible_bias)), states(len(m.hidden_bias))
    energies = v @ m.weight @ h.T + (v @ m.visible_bias)[:, None] + h @ m.hidden_bias
    return energies.logsumexp(1) - energies.flatten().logsumexp(0)


def test_free_energy_and_conditionals_by_enumeration():
    m = machine()
    v, h = states(5), states(3)
    assert torch.allclose((-m.free_energy(v)).log_softmax(0), log_probs(m), atol=1e-12)
    joint = (v @ m.weight @ h.T + (v @ m.visible_bias)[:, None] + h @ m.hidden_bias).exp()
    assert torch.allclose(m.hidden(v), joint @ h / joint.sum(1, keepdim=True))
    assert torch.allclose(m.visible(h), joint.T @ v / joint.sum(0)[:, None])


def exact_gradient(m, data):
    for p in m.parameters():
        p.requires_grad_(True)
    row = (data @ (2.0 ** torch.arange(4, -1, -1, dtype=torch.float64))).long()
    gradients = torch.autograd.grad(log_probs(m)[row].mean(), list(m.parameters()))
    for p in m.parameters():
        p.requires_grad_(False)
    return dict(zip([n for n, _ in m.named_parameters()], gradients))


def test_contrast_estimates_the_gradient_of_the_likelihood():
    """With many chains and rounds the estimate is the gradient of the enumerated likelihood, up to its standard error."""
    m, g = machine(), torch.Generator().manual_seed(0)
    data = (torch.rand(40, 5, generator=g, dtype=torch.float64) < torch.tensor([0.9, 0.2, 0.5, 0.7, 0.4])).double()
    chains = 40_000
    start = torch.rand(chains, 5, generator=g, dtype=torch.float64).round()
    estimate, fantasy = m.contrast(data, start, steps=40, generator=g)
    for name, wanted in exact_gradient(m, data).items():
        assert torch.allclose(estimate[name], wanted, atol=4 * 0.5 / math.sqrt(chains)), name
    # the statistics of all states, each by its probability, leave no error at all
    v, p = states(5), log_probs(m).exp()
    h = m.hidden(v)
    assert torch.allclose(m.statistics(data)["weight"] - torch.einsum("s,sv,sh->vh", p, v, h), exact_gradient(m, data)["weight"])
    counts = torch.bincount((fantasy @ (2.0 ** torch.arange(4, -1, -1, dtype=torch.float64))).long(), minlength=32).double() / chains
    assert torch.allclose(counts, p, atol=4 * 0.5 / math.sqrt(chains)), "the chains have the machine's own distribution"


@pytest.mark.parametrize("persistent", [False, True])
def test_chains_go_on_where_they_ended_if_they_persist(persistent, monkeypatch):
    m, starts, ends, contrast = machine(), [], [], RBM.contrast

    def watched(self, v, fantasy, steps=1, generator=None):
        gradient, after = contrast(self, v, fantasy, steps, generator)
        starts.append((fantasy, v)), ends.append(after)
        return gradient, after

    monkeypatch.setattr(RBM, "contrast", watched)
    m.fit(states(5), steps=4, batch_size=8, persistent=persistent, generator=torch.Generator().manual_seed(0))
    assert starts[0][0] is starts[0][1]
    for (start, batch), before in zip(starts[1:], ends):
        assert start is (before if persistent else batch)


@pytest.mark.parametrize("persistent", [False, True])
def test_training_raises_the_exact_likelihood(persistent):
    """Three patterns of five pixels: from the likelihood of independent pixels to near the entropy of the data."""
    patterns = torch.tensor([[1, 1, 0, 0, 0], [0, 0, 0, 1, 1], [0, 1, 1, 1, 0]], dtype=torch.float64)
    data = patterns.repeat(20, 1)
    m = seeded(lambda: RBM(5, 6).double())
    row = (patterns @ (2.0 ** torch.arange(4, -1, -1, dtype=torch.float64))).long()
    mean = data.mean(0).clamp(0.01, 0.99)
    independent = float((patterns * mean.log() + (1 - patterns) * (1 - mean).log()).sum(1).mean())
    m.fit(data, steps=1500, batch_size=60, lr=0.2, persistent=persistent, generator=torch.Generator().manual_seed(0))
    found = float(log_probs(m)[row].mean())
    assert independent < -2.5 < -1.6 < found < -math.log(3)


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: fit_predict("svm", *[torch.ones(1, 4)] * 4), KeyError, "unknown classifier 'svm', known: 'nn'"),
        (lambda: fit_predict("nn", torch.ones(2, 4), torch.tensor([1]), torch.ones(1, 4), torch.ones(1, 4)), ValueError, "2 images and 1 labels"),
        (lambda: fit_predict("nn", torch.ones(1, 4), torch.tensor([1]), torch.ones(1, 4), torch.ones(1, 4), steps=0), ValueError, "steps: found 0"),
        (lambda: binary_scores(torch.ones(3), torch.ones(3)), ValueError, "wanted the same, "),
        (lambda: over_seeds([]), ValueError, "found no result"),
        (lambda: label_accuracy(Translator(), Part({"image": torch.ones(2, 10)})), KeyError, "unknown modality 'label'"),
    ],
)
def test_refuses_in_one_sentence(as_a_reader, call, error, message):
    with pytest.raises(error, match=message):
        call()
