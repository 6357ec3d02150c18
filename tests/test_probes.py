"""Linear probes on latents whose content is known, in both papers' ways."""

import math

import pytest
import torch
from torch.nn import functional as F

from mmvae_lite.data.parts import Part
from mmvae_lite.distributions import Concrete, Laplace, Normal
from mmvae_lite.evaluation.probes import posteriors, probe_means, probe_samples
from mmvae_lite.experts import Mixture
from mmvae_lite.models import DMVAE_D, MMVAE
from mmvae_lite.networks import SplitEncoder, dense_decoder, dense_encoder, dense_trunk
from mmvae_lite.distributions import NormalLikelihood

LATENT = 6


def codes(n, seed, informative=True, width=0.1, centres=None):
    """Posteriors around a centre of each class, or around nothing."""
    g = torch.Generator().manual_seed(seed)
    classes = torch.randint(10, (n,), generator=g)
    centres = 3 * torch.randn(10, LATENT, generator=torch.Generator().manual_seed(77)) if centres is None else centres
    mean = centres[classes] if informative else torch.randn(n, LATENT, generator=g)
    return Normal(mean, torch.full_like(mean, 2 * math.log(width))), classes


def test_separable_latents_are_read_in_full():
    (q, y), (p, t) = codes(2000, 1), codes(800, 2)
    assert probe_samples(q, y, p, t, lr=0.05, epochs=10)["value"] == 1
    found = probe_means(q.mean, y, p.mean, t, lr=0.05, per_epoch=500)
    assert found["value"] == found["validation"] == 1 and found["n"] == 800


def test_latents_that_know_nothing_are_at_chance():
    (q, y), (p, t) = codes(3000, 1, informative=False), codes(4000, 2, informative=False)
    for found in (probe_samples(q, y, p, t, epochs=3), probe_means(q.mean, y, p.mean, t, per_epoch=1000, max_epochs=10)):
        assert found["value"] == pytest.approx(0.1, abs=4 * found["se"] + 0.005) and found["n"] == 4000
        assert found["se"] == pytest.approx(math.sqrt(found["value"] * (1 - found["value"]) / 4000))


def test_draws_know_less_than_means():
    """Two classes at -1 and 1 with draws of deviation 1: the best line is right with probability Phi(1)."""
    centres = torch.zeros(10, LATENT)
    centres[:, 0] = torch.where(torch.arange(10) < 5, 1.0, -1.0)
    (q, y), (p, t) = codes(3000, 1, width=1.0, centres=centres), codes(6000, 2, width=1.0, centres=centres)
    y, t = (y < 5).long(), (t < 5).long()
    best = 0.5 * (1 + math.erf(1 / math.sqrt(2)))
    found = probe_samples(q, y, p, t, epochs=8, lr=0.02)
    assert found["value"] == pytest.approx(best, abs=4 * found["se"])
    assert probe_means(q.mean, y, p.mean, t, lr=0.01, per_epoch=500)["value"] == 1


def test_the_layer_is_that_of_logistic_regression():
    from sklearn.linear_model import LogisticRegression

    (q, y), (p, t) = codes(4000, 1, width=2.0), codes(4000, 2, width=2.0)
    g = torch.Generator().manual_seed(3)
    z, u = q.rsample(generator=g), p.rsample(generator=g)
    theirs = LogisticRegression(C=1e6, max_iter=1000).fit(z.numpy(), y.numpy()).score(u.numpy(), t.numpy())
    assert probe_means(z, y, u, t, lr=0.02, per_epoch=2000, max_epochs=40, validation=400)["value"] == pytest.approx(theirs, abs=0.01)


def test_stops_by_held_out_training_items_alone():
    """The test items do not choose the layer: with other test items the run is the same."""
    (q, y), (p, t) = codes(600, 1, width=3.0), codes(300, 2)
    z = q.rsample(generator=torch.Generator().manual_seed(0))
    one = probe_means(z, y, p.mean, t, lr=0.05, per_epoch=300, max_epochs=150)
    two = probe_means(z, y, -p.mean, (t + 1) % 10, lr=0.05, per_epoch=300, max_epochs=150)
    assert one["epochs"] == two["epochs"] < 150 and one["validation"] == two["validation"] and one["value"] != two["value"]


def test_three_falls_in_a_row_stop_it(monkeypatch):
    from mmvae_lite.evaluation import probes

    scores = iter([0.5, 0.6, 0.5, 0.55, 0.5, 0.4, 0.3, 0.9, 0.1])
    monkeypatch.setattr(probes._Probe, "score", lambda self, z, y: {"value": next(scores), "se": 0.0, "n": len(y)})
    (q, y), (p, t) = codes(100, 1), codes(10, 2)
    found = probe_means(q.mean, y, p.mean, t, per_epoch=50)
    assert found["epochs"] == 7 and found["validation"] == 0.6 and found["value"] == 0.9


def test_every_training_item_is_visited_before_one_comes_again():
    from mmvae_lite.evaluation.probes import _Visits

    visits = _Visits(torch.arange(5, 12), torch.Generator().manual_seed(0))
    taken = torch.cat([visits.take(3) for _ in range(7)])
    assert [sorted(part.tolist()) for part in taken.split(7)] == [list(range(5, 12))] * 3
    assert len(_Visits(torch.arange(3), torch.Generator()).take(8)) == 8


def test_same_numbers_again_and_in_another_process(elsewhere):
    brief = {"per_epoch": 300, "max_epochs": 4}
    program = (
        "from tests.test_probes import *; (q, y), (p, t) = codes(500, 1, width=2.0), codes(300, 2, width=2.0)\n"
        f"print(probe_samples(q, y, p, t, epochs=2)['value'], probe_means(q.mean, y, p.rsample(generator=torch.Generator().manual_seed(1)), t, **{brief})['value'])"
    )
    there = elsewhere(program)
    (q, y), (p, t) = codes(500, 1, width=2.0), codes(300, 2, width=2.0)
    here = probe_samples(q, y, p, t, epochs=2)["value"], probe_means(q.mean, y, p.rsample(generator=torch.Generator().manual_seed(1)), t, **brief)["value"]
    assert there == f"{here[0]} {here[1]}\n"


@pytest.mark.parametrize("family", ["laplace", "mixture", "concrete"])
def test_any_posterior_can_be_drawn_from(family):
    (q, y), (p, t) = codes(1500, 1), codes(400, 2)

    def other(d, classes):
        if family == "laplace":
            return Laplace(d.mean, torch.full_like(d.mean, 0.1))
        if family == "mixture":
            return Mixture((d, Normal(d.mean, d.logvar)))
        return Concrete(8 * F.one_hot(torch.stack([classes, classes], 1), 10).float(), 0.66)

    assert probe_samples(other(q, y), y, other(p, t), t, lr=0.05)["value"] > 0.99


def test_draws_of_a_concrete_latent_are_not_its_probabilities():
    from mmvae_lite.evaluation.probes import latents

    q = Concrete(torch.zeros(2000, 1, 4), 0.1)
    drawn, probs = latents(q, True, torch.Generator().manual_seed(0)), latents(q, False)
    assert drawn.shape == probs.shape == (2000, 4) and torch.allclose(probs, torch.full((2000, 4), 0.25))
    assert drawn.amax(1).median() > 0.9 and torch.allclose(drawn.mean(0), probs[0], atol=0.04)


def test_posteriors_of_a_model():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        shapes, likelihoods = {"a": 4, "b": 5}, {m: NormalLikelihood(1.0) for m in "ab"}
        mixture = MMVAE({m: dense_encoder([d, 8], 3) for m, d in shapes.items()}, {m: dense_decoder([3, 8, d], (d,)) for m, d in shapes.items()}, likelihoods, 3)
        private = DMVAE_D(
            {m: SplitEncoder(dense_trunk([d, 8]), 8, 2, 3) for m, d in shapes.items()},
            {m: dense_decoder([5, 8, d], (d,)) for m, d in shapes.items()}, likelihoods, 2, 3,
        )  # fmt: skip
    data = Part({"a": torch.randn(30, 4), "b": torch.randn(10, 5)}, torch.arange(30) % 10, {"b": torch.arange(30) % 10})
    for model in (mixture, private):
        one = posteriors(model.train(), data, ["a", "b"], chunk=7)
        whole = model.eval().posterior(data.take(slice(None)))["shared"]
        assert torch.allclose(one.mean, whole.mean, atol=1e-6) and one.mean.shape == (30, 3) and not one.mean.requires_grad
    assert len(posteriors(mixture, data, ["a", "b"]).experts) == 2
    assert posteriors(private, data, ["b"], "private/b").mean.shape == (30, 2)
    with pytest.raises(KeyError, match="unknown modality 'c'"):
        posteriors(mixture, data, ["c"])
    with pytest.raises(KeyError, match="unknown latent 'style'"):
        posteriors(mixture, data, ["a"], "style")


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"train": torch.ones(4, 3)}, r"training latents of shape \[4, 3\] and 5 classes"),
        ({"test": torch.full((2, 3), float("inf"))}, "the test latents hold NaN or infinity"),
        ({"test": torch.ones(2, 4)}, "3 training and 4 test dimensions"),
        ({"validation": 5}, "5 of 5 training items were to be held out"),
        ({"patience": 0}, "patience: found 0"),
    ],
)
def test_refuses_in_one_sentence(as_a_reader, changes, message):
    given = {"train": torch.ones(5, 3), "train_classes": torch.zeros(5, dtype=torch.int64), "test": torch.ones(2, 3),
             "test_classes": torch.zeros(2, dtype=torch.int64), "validation": 1}  # fmt: skip
    with pytest.raises(ValueError, match=message):
        probe_means(**(given | changes))
