"""The claims of the chapter on all subsets, in worlds that can be solved."""

import itertools
import math

import pytest
import torch

from mmvae_lite.data import LG3, LG3_OBSERVATION, LinearGaussian
from mmvae_lite.distributions import Normal, kl
from mmvae_lite.models.linear import exact_model
from mmvae_lite.models.m2vae import omega
from tests.linear import NAMES, objective

WORLDS = [LG3, LinearGaussian((0.5, -3.0, 0.2), (0.2, 2.0, 1.0))]


def subsets(M):
    return [s for size in range(1, M + 1) for s in itertools.combinations(range(M), size)]


def rest(s, m):
    return tuple(k for k in s if k != m)


def term(world, x, q, s, beta=1.0):
    """J(S) for given beliefs, without sampling."""
    value = world.elbo({m: x[m] for m in s}, q[s])
    if len(s) == 1:
        return value
    return value + (1 - beta) * kl(q[s], Normal.standard(*q[s].mean.shape, like=q[s].mean)) - sum(kl(q[s], q[rest(s, m)]) for m in s)


def beliefs(world, x, widen):
    """Exact ones with variances that are off by a factor for each size."""
    exact = {s: world.posterior({m: x[m] for m in s}) for s in subsets(len(world.weights))}
    return {s: Normal(p.mean, p.logvar + math.log(widen[len(s) - 1])) for s, p in exact.items()}


@pytest.mark.equation("eq-omega")
@pytest.mark.parametrize("M", range(1, 7))
def test_a_set_is_reached_by_as_many_orders_of_removal_as_its_weight_says(M):
    paths = {s: 0.0 for s in subsets(M)}
    for order in itertools.permutations(range(M)):
        left, factor = tuple(range(M)), 1.0
        for m in order:
            paths[left] += factor / len(left) / math.factorial(len(left))  # as many orders go on below
            factor, left = factor / len(left), rest(left, m)
    for s, found in paths.items():
        assert found == pytest.approx(float(omega(len(s), M)))


@pytest.mark.equation("eq-m2vae")
@pytest.mark.equation("eq-subset-term")
@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("widen", [1.0, 0.6])
def test_the_library_s_sum_is_the_recursion_without_sampling(world, widen, monkeypatch):
    x = {m: LG3_OBSERVATION[m] for m in range(3)}
    q = beliefs(world, x, [widen] * 3)

    def recursion(s):
        return (term(world, x, q, s) + sum(recursion(rest(s, m)) for m in s if len(s) > 1)) / len(s)

    batch = {name: x[m].expand(2)[:, None] for m, name in enumerate(NAMES)}
    assert objective(monkeypatch, exact_model("m2vae", world, NAMES, widen), batch) == pytest.approx(recursion((0, 1, 2)).item(), abs=1e-9)


@pytest.mark.parametrize("world", WORLDS)
def test_the_mean_distance_with_exact_encoders_is_a_weighted_information(world):
    x = world.sample(100_000, torch.Generator().manual_seed(0))
    q = beliefs(world, x, [1.0] * 3)
    sets = subsets(3)
    lost = world.log_prob(x) - sum(float(omega(len(s), 3)) * term(world, x, q, s) for s in sets)
    wanted = sum(float(omega(len(s), 3)) * world.information(s) for s in sets if len(s) > 1)
    assert abs(lost.mean() - wanted) < 5 * lost.std() / len(lost) ** 0.5


def test_without_the_joint_prior_it_may_exceed_the_evidence_of_an_item_but_not_the_mean():
    x = LG3.sample(100_000, torch.Generator().manual_seed(0))
    truth = LG3.log_prob(x)
    for widen in ((0.7, 0.8, 0.9), (0.5, 0.5, 0.5), (1.5, 1.2, 0.8)):
        q = beliefs(LG3, x, widen)
        found = sum(float(omega(len(s), 3)) * term(LG3, x, q, s, beta=0.0) for s in subsets(3))
        assert found.mean() < truth.mean()
        if widen[0] < 1:
            assert (found > truth).double().mean() > 0.1


def test_beliefs_fitted_to_one_contradictory_item_exceed_it_even_with_the_joint_prior():
    world = LinearGaussian(LG3.weights[:2], LG3.variances[:2])
    x = {0: torch.tensor([3.0]).double(), 1: torch.tensor([-4.0]).double()}
    phi = torch.zeros(2, 3, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([phi], max_iter=100, line_search_fn="strong_wolfe")

    def loss():
        optimiser.zero_grad()
        q = {s: Normal(phi[0, k].view(1, 1), phi[1, k].view(1, 1)) for k, s in enumerate(subsets(2))}
        value = -sum(0.5 * term(world, x, q, s) for s in q).sum()
        value.backward()
        return value

    optimiser.step(loss)
    assert -loss().item() > world.log_prob(x).item() + 1
