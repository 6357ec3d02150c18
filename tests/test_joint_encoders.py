"""The claims of the chapter on joint encoders, in the world that can be solved."""

import math

import pytest
import torch

from mmvae_lite.data import LG3, LG3_OBSERVATION, LinearGaussian
from mmvae_lite.distributions import Normal, kl
from mmvae_lite.models.linear import exact_model
from tests.linear import F64, NAMES, objective

PAIR = LinearGaussian(LG3.weights[:2], LG3.variances[:2])
WORLDS = [LG3, LinearGaussian((0.5, -3.0, 0.2), (0.2, 2.0, 1.0))]


def readings(world, n=2):
    return {name: LG3_OBSERVATION[m].expand(n)[:, None] for m, name in enumerate(NAMES)}


def indexed(x):
    return {m: value[:1, 0] for m, value in enumerate(x.values())}


@pytest.mark.equation("eq-joint-elbo")
@pytest.mark.parametrize("world", WORLDS)
def test_the_joint_elbo_touches_the_evidence_and_falls_by_the_divergence(world, monkeypatch):
    x = readings(world)
    truth = world.log_prob(indexed(x)).item()
    for widen in (1.0, 0.4, 2.5):
        found = objective(monkeypatch, exact_model("jmvae", world, NAMES, widen, variant="joint"), x)
        exact = world.posterior(indexed(x))
        assert truth - found == pytest.approx(kl(Normal(exact.mean, exact.logvar + math.log(widen)), exact).item(), abs=1e-9)


@pytest.mark.equation("eq-jmvae")
@pytest.mark.parametrize("world", WORLDS)
def test_jmvae_is_the_joint_elbo_less_the_divergences(world, monkeypatch):
    x = readings(world)
    q, singles = world.posterior(indexed(x)), [world.posterior({m: value}) for m, value in indexed(x).items()]
    for alpha in (0.0, 0.1, 1.0):
        found = objective(monkeypatch, exact_model("jmvae", world, NAMES, alpha=alpha), x)
        assert found == pytest.approx(world.log_prob(indexed(x)).item() - alpha * sum(kl(q, s).item() for s in singles), abs=1e-9)


@pytest.mark.equation("eq-telbo")
@pytest.mark.parametrize("world", WORLDS)
def test_telbo_aims_at_the_sum_of_the_evidences(world, monkeypatch):
    x = readings(world)
    sought = world.log_prob(indexed(x)) + sum(world.log_prob({m: value}) for m, value in indexed(x).items())
    assert objective(monkeypatch, exact_model("telbo", world, NAMES), x) == pytest.approx(sought.item(), abs=1e-9)


def test_what_jmvae_pays_on_average_is_what_the_others_tell_on_top():
    x = LG3.sample(200_000, torch.Generator().manual_seed(0))
    q = LG3.posterior(x)
    for m in range(3):
        paid = kl(q, LG3.posterior({m: x[m]}))
        wanted = LG3.information([0, 1, 2]) - LG3.information([m])
        assert abs(paid.mean() - wanted) < 5 * paid.std() / len(paid) ** 0.5


def test_hidden_inputs_teach_the_variance_of_the_joint_posterior():
    x = PAIR.sample(100_000, torch.Generator().manual_seed(0))
    one, both = PAIR.posterior({0: x[0]}), PAIR.posterior(x)
    sure, right = Normal(one.mean, both.logvar), one

    def gain(q):
        return PAIR.elbo(x, q).mean().item()

    assert gain(sure) > gain(right) + 0.1
    for change in (0.9, 1.1):
        assert gain(sure) > gain(Normal(sure.mean, sure.logvar + math.log(change)))
        assert gain(sure) > gain(Normal(sure.mean * change, sure.logvar))


def test_the_divergence_from_the_joint_encoder_teaches_the_right_belief():
    x = PAIR.sample(100_000, torch.Generator().manual_seed(0))
    one, both = PAIR.posterior({0: x[0]}), PAIR.posterior(x)

    def loss(q):
        return kl(both, q).mean().item()

    for change in (0.9, 1.1):
        assert loss(one) < loss(Normal(one.mean, one.logvar + math.log(change)))
        assert loss(one) < loss(Normal(one.mean * change, one.logvar))


def test_crossing_is_bounded_by_itself_and_on_average_by_the_truth():
    x = PAIR.sample(100_000, torch.Generator().manual_seed(0))
    exact, colour = PAIR.posterior({1: x[1]}), x[0][:, None]
    truth = PAIR.predict({1: x[1]}, 0).log_prob(colour)
    w, s2 = PAIR.weights[0], PAIR.variances[0]
    above = 0
    for kappa in (0.2, 0.5, 2.0):
        q_2 = Normal(exact.mean, exact.logvar + math.log(kappa))
        crossing = Normal(w * q_2.mean, (w**2 * q_2.var + s2).log()).log_prob(colour)
        for q in (PAIR.posterior(x), q_2, Normal.standard(len(colour), 1, like=exact.mean)):
            fit = PAIR.elbo({0: x[0]}, q) + kl(q, Normal.standard(len(colour), 1, like=exact.mean))
            assert (fit - kl(q, q_2) <= crossing + 1e-9).all()
        assert crossing.mean() < truth.mean()
        above += int((crossing > truth).sum())
    assert above > 0  # for single pairs it may exceed the truth


def test_the_best_joint_belief_beside_exact_single_ones_is_tempered():
    x = {m: LG3_OBSERVATION[m] for m in (0, 1)}
    exact, singles = PAIR.posterior(x), [PAIR.posterior({m: x[m]}) for m in (0, 1)]
    for alpha in (0.1, 1.0):
        precision = (float(exact.precision) + alpha * sum(float(q.precision) for q in singles)) / (1 + 2 * alpha)
        eta = (exact.precision * exact.mean + alpha * sum(q.precision * q.mean for q in singles)) / (1 + 2 * alpha)

        def gain(mean, precision, alpha=alpha):
            q = Normal(mean, torch.full((1, 1), -math.log(precision), dtype=F64))
            return (PAIR.elbo(x, q) - alpha * sum(kl(q, s) for s in singles)).item()

        best = gain(eta / precision, precision)
        assert best > max(gain(eta / precision, precision * c) for c in (0.9, 1.1))
        assert best > max(gain(eta / precision + c, precision) for c in (-0.05, 0.05))
