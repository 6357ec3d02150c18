"""The bounds of a mixture of experts on LG3, and what their gradient estimators really estimate."""

import math

import numpy as np
import pytest
import torch

from mmvae_lite.bounds import BOUNDS, ESTIMATORS, iwae, iwae_by_quadrature, moe_bound, moe_linear_time, moe_loose, moe_naive, moe_tight
from mmvae_lite.data import LG3, LG3_OBSERVATION
from mmvae_lite.distributions import Laplace, Normal, kl

D = torch.distributions
F64 = torch.float64
LOG_P = -3.7624627802
POSTERIORS = [LG3.posterior({m: LG3_OBSERVATION[m]}) for m in range(3)]


def log_px(z):
    """log p(x | z) of all three modalities of LG3 at z [..., 1]."""
    return sum(D.Normal(w * z[..., 0], math.sqrt(v)).log_prob(LG3_OBSERVATION[m]) for m, (w, v) in enumerate(zip(LG3.weights, LG3.variances)))


def log_joint(z):
    return log_px(z) + D.Normal(0.0, 1.0).log_prob(z[..., 0])


def under_each_expert(f):
    """E_q_m[f(z)] for the three exact unimodal posteriors, by Gauss-Hermite quadrature."""
    nodes, weights = (torch.from_numpy(a) for a in np.polynomial.hermite_e.hermegauss(80))
    return [((weights / weights.sum()) * f(q.mean + q.std * nodes[:, None])).sum().item() for q in POSTERIORS]


def log_mixture(z):
    parts = torch.stack([D.Normal(q.mean, q.std).log_prob(z).sum(-1) for q in POSTERIORS])
    return parts.logsumexp(0) - math.log(3)


@pytest.mark.equation("eq-moe-naive")
def test_naive_bound_and_elbo_by_quadrature():
    expected = torch.tensor(under_each_expert(log_px), dtype=F64)
    divergences = torch.cat([kl(q, Normal.standard(1, 1, like=q.mean)) for q in POSTERIORS])
    naive = moe_naive(expected[:, None], divergences).item()
    elbo = sum(under_each_expert(lambda z: log_joint(z) - log_mixture(z))) / 3
    assert naive == pytest.approx(-4.302479, abs=1e-6)
    assert elbo == pytest.approx(-4.253542, abs=1e-6)
    assert naive < elbo < LOG_P


def lg3_bounds(k, repeats, seed=0):
    """The means of the loose and tight bounds over many repeats, with their errors."""
    g = torch.Generator().manual_seed(seed)
    experts = [Normal(q.mean.expand(repeats, 1), q.logvar.expand(repeats, 1)) for q in POSTERIORS]
    z = torch.stack([q.rsample((k,), g) for q in experts])
    log_w = log_joint(z) - log_mixture(z)
    found = {}
    for name in BOUNDS:
        values = moe_bound(experts, z, log_joint, name)
        assert torch.allclose(values, BOUNDS[name](log_w), atol=1e-12)
        found[name] = values.mean().item(), values.std().item() / math.sqrt(repeats)
    return found


@pytest.mark.equation("eq-moe-bounds")
def test_loose_and_tight_bounds_rise_towards_the_evidence():
    known = {1: (-4.253542, -3.8281), 5: (-3.8097, -3.7728), 30: (-3.7762, -3.7642)}
    chain = []
    for k, (loose, tight) in known.items():
        found = lg3_bounds(k, 400_000 // k)
        assert found["loose"][0] == pytest.approx(loose, abs=4 * found["loose"][1] + 1e-4)
        assert found["tight"][0] == pytest.approx(tight, abs=4 * found["tight"][1] + 1e-4)
        assert found["loose"][1] < 3e-3
        chain.append((found["loose"][0], found["tight"][0]))
    assert all(loose <= tight <= LOG_P + 1e-3 for loose, tight in chain)
    assert [loose for loose, _ in chain] == sorted(loose for loose, _ in chain)


NODES = torch.linspace(-9, 9, 1501, dtype=F64)
PROBS = (-0.5 * NODES.square()).softmax(0)


def lg3_log_w_on_grid():
    """log p(x, z) - log q_mixture(z) on a grid under each expert."""
    z = [q.mean + q.std * NODES[:, None] for q in POSTERIORS]
    return torch.stack([log_joint(part) - log_mixture(part) for part in z])


@pytest.mark.equation("eq-frullani")
def test_quadrature_agrees_with_draws_for_both_bounds():
    log_w = lg3_log_w_on_grid()
    found = lg3_bounds(5, 80_000, seed=1)
    loose = sum(iwae_by_quadrature(row[None], PROBS, 5).item() for row in log_w) / 3
    assert loose == pytest.approx(found["loose"][0], abs=4 * found["loose"][1])
    assert iwae_by_quadrature(log_w, PROBS, 5).item() == pytest.approx(found["tight"][0], abs=4 * found["tight"][1])


@pytest.mark.equation("eq-moe-limit")
def test_the_loose_bound_stays_below_the_evidence_by_the_divergence_of_the_shares():
    log_w = lg3_log_w_on_grid()
    exact = LG3.posterior(LG3_OBSERVATION)
    z = exact.mean + exact.std * NODES[:, None]
    shares = torch.stack([q.log_prob(z) for q in POSTERIORS]).softmax(0) @ PROBS
    gap = -(3 * shares).log().mean().item()
    assert gap > 0.008
    loose = sum(iwae_by_quadrature(row[None], PROBS, 100_000).item() for row in log_w) / 3
    assert loose == pytest.approx(LOG_P - gap, abs=1e-5)
    assert iwae_by_quadrature(log_w, PROBS, 100_000).item() == pytest.approx(LOG_P, abs=1e-5)


@pytest.mark.equation("eq-moe-bounds")
def test_bounds_against_explicit_sums():
    w = torch.rand(2, 3, 4, dtype=F64, generator=torch.Generator().manual_seed(0))
    for i in range(4):
        loose = sum(math.log(sum(w[m, k, i].item() for k in range(3)) / 3) for m in range(2)) / 2
        tight = math.log(sum(w[m, k, i].item() for m in range(2) for k in range(3)) / 6)
        assert moe_loose(w.log())[i].item() == pytest.approx(loose, abs=1e-12)
        assert moe_tight(w.log())[i].item() == pytest.approx(tight, abs=1e-12)
    for bound in (moe_loose, moe_tight):  # one expert: both are the importance-weighted bound
        assert torch.allclose(bound(w[:1].log()), iwae(w[0].log()), atol=1e-14)


# ---- gradient estimators ------------------------------------------------------------------------------------------

X = 1.3


def toy_log_joint(z):
    """z ~ N(0, 1), x | z ~ N(z, 1) at x = 1.3."""
    z = z[..., 0]
    return -0.5 * z.square() - 0.5 * (X - z).square() - math.log(2 * math.pi)


def toy_experts(params, repeats):
    """q_m = N(a_m x, s_m^2), each repeat with its own copy of (a, log s), so that one backward pass gives all gradients."""
    leaves = [torch.tensor([a, math.log(s)], dtype=F64).repeat(repeats, 1).requires_grad_() for a, s in params]
    return leaves, [Normal(leaf[:, :1] * X, 2 * leaf[:, 1:]) for leaf in leaves]


def toy_gradients(params, k, estimator, bound="loose", repeats=4000, seed=0):
    leaves, experts = toy_experts(params, repeats)
    g = torch.Generator().manual_seed(seed)
    z = torch.stack([q.rsample((k,), g) for q in experts])
    value = moe_bound(experts, z, toy_log_joint, bound, estimator)
    return torch.cat(torch.autograd.grad(value.sum(), leaves), 1), value


def reference_gradients(params, k, bound="loose", repeats=4000, seed=0):
    """The same by plain differentiation of the bound, written out with torch.distributions."""
    leaves = [torch.tensor([a, math.log(s)], dtype=F64).repeat(repeats, 1).requires_grad_() for a, s in params]
    qs = [D.Normal(leaf[:, 0] * X, leaf[:, 1].exp()) for leaf in leaves]
    g = torch.Generator().manual_seed(seed)
    total = []
    for q in qs:
        z = q.loc + q.scale * torch.randn(k, repeats, dtype=F64, generator=g)
        log_q = torch.stack([other.log_prob(z) for other in qs]).logsumexp(0) - math.log(len(qs))
        total.append(D.Normal(0.0, 1.0).log_prob(z) + D.Normal(z, 1.0).log_prob(torch.tensor(X)) - log_q)
    if bound == "loose":
        value = sum(w.exp().mean(0).log() for w in total) / len(total)
    else:
        value = torch.cat(total).exp().mean(0).log()
    return torch.cat(torch.autograd.grad(value.sum(), leaves), 1), value


def gap_in_errors(one, two):
    """The largest difference of the means, in standard errors of the difference of independent runs."""
    error = ((one.var(0) + two.var(0)) / len(one)).sqrt()
    return ((one.mean(0) - two.mean(0)).abs() / error).max().item()


ONE = [(0.2, 1.1)]
TWO = [(0.2, 1.1), (0.9, 0.5)]


@pytest.mark.equation("eq-iwae-gradient")
@pytest.mark.parametrize("bound", ["loose", "tight"])
@pytest.mark.parametrize("params", [ONE, TWO])
def test_every_estimator_returns_the_bound_and_iwae_differentiates_it(params, bound):
    expected, value = reference_gradients(params, 3, bound, repeats=50)
    for estimator in ESTIMATORS:
        found, same = toy_gradients(params, 3, estimator, bound, repeats=50)
        assert torch.allclose(same, value, atol=1e-12)
        if estimator == "iwae":
            assert torch.allclose(found, expected, atol=1e-10)


def test_one_expert_measured_gradients():
    expected = {
        (5, "iwae"): (0.086, -0.100),
        (5, "dreg"): (0.087, -0.093),
        (5, "stl"): (0.470, -0.530),
        (20, "iwae"): (0.018, -0.017),
        (20, "dreg"): (0.018, -0.019),
        (20, "stl"): (0.430, -0.473),
    }
    for (k, estimator), (a, s) in expected.items():
        found, _ = toy_gradients(ONE, k, estimator)
        error = found.std(0) / math.sqrt(len(found))
        # the published means carry an error of the same size
        assert found.mean(0).tolist() == pytest.approx([a, s], abs=8 * error.max().item() + 1e-3), (k, estimator)


@pytest.mark.equation("eq-dreg")
def test_one_expert_dreg_is_unbiased_and_quieter():
    plain, _ = reference_gradients(ONE, 5, repeats=8000, seed=1)
    doubly, _ = toy_gradients(ONE, 5, "dreg", repeats=8000, seed=2)
    assert gap_in_errors(plain, doubly) < 3
    assert (plain.var(0) / doubly.var(0)).min().item() > 5
    mixed, _ = toy_gradients(ONE, 5, "dreg_mix", repeats=8000, seed=2)
    assert torch.allclose(mixed, doubly, atol=1e-12)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_one_sample_of_one_expert_leaves_nothing_to_be_wrong_about(estimator):
    # grad of E[log p - log q]: d/da of -(x - ax)^2/2 - (ax)^2/2, and d/dlog s of log s - s^2
    found, _ = toy_gradients(ONE, 1, estimator, repeats=40_000)
    a, s = ONE[0]
    exact = torch.tensor([X * X * (1 - a) - X * X * a, 1 - 2 * s * s], dtype=F64)
    error = found.std(0) / math.sqrt(len(found))
    assert ((found.mean(0) - exact).abs() / error).max().item() < 4


def gradients_with_a_hook_on_a_copy(params, k, repeats, seed):
    """DReG with the slip: the hook sits on a stack made after the weights, through which no gradient flows."""
    leaves, experts = toy_experts(params, repeats)
    g = torch.Generator().manual_seed(seed)
    z = [q.rsample((k,), g) for q in experts]
    log_q = [torch.stack([q.detach().log_prob(part) for q in experts]).logsumexp(0) - math.log(len(experts)) for part in z]
    log_w = torch.stack([toy_log_joint(part) for part in z]) - torch.stack(log_q)
    fired = []
    copy, weight = torch.stack(z), log_w.detach().softmax(1)
    copy.register_hook(lambda grad: fired.append(1) or grad * weight[..., None])
    surrogate = (weight * log_w).sum(1).mean(0)
    return torch.cat(torch.autograd.grad(surrogate.sum(), leaves), 1), fired


@pytest.mark.parametrize("params", [ONE, TWO])
def test_a_hook_on_a_copy_never_fires_and_leaves_the_biased_estimator(params):
    slip, fired = gradients_with_a_hook_on_a_copy(params, 5, 500, seed=3)
    assert fired == []
    stl, _ = toy_gradients(params, 5, "stl", repeats=500, seed=3)
    dreg, _ = toy_gradients(params, 5, "dreg", repeats=500, seed=3)
    assert torch.allclose(slip, stl, atol=1e-10)
    assert not torch.allclose(slip, dreg, atol=0.1)


def test_a_hook_on_a_copy_is_found_out_at_five_samples():
    plain, _ = reference_gradients(ONE, 5, repeats=8000, seed=4)
    slip, _ = gradients_with_a_hook_on_a_copy(ONE, 5, 8000, seed=5)
    assert gap_in_errors(plain, slip) > 10


@pytest.mark.equation("eq-dreg-mix")
@pytest.mark.parametrize("bound", ["loose", "tight"])
@pytest.mark.parametrize("k", [5, 20])
def test_under_a_mixture_dreg_is_biased_and_dreg_mix_is_not(bound, k):
    repeats = {5: 80_000, 20: 15_000}[k]
    plain, _ = reference_gradients(TWO, k, bound, repeats, seed=6)
    mixed, _ = toy_gradients(TWO, k, "dreg_mix", bound, repeats, seed=7)
    assert gap_in_errors(plain, mixed) < 3.5
    if bound == "loose":
        assert (plain.var(0) / mixed.var(0)).min().item() > 1.3
        doubly, _ = toy_gradients(TWO, k, "dreg", bound, repeats, seed=7)
        assert gap_in_errors(plain, doubly) > 6


@pytest.mark.parametrize("estimator", ["dreg", "dreg_mix"])
def test_with_one_sample_an_expert_the_loose_bound_has_an_unbiased_gradient(estimator):
    repeats = 60_000
    plain, _ = reference_gradients(TWO, 1, "loose", repeats, seed=8)
    found, _ = toy_gradients(TWO, 1, estimator, "loose", repeats, seed=9)
    assert gap_in_errors(plain, found) < 3.5


def test_model_parameters_get_the_same_gradient_from_every_estimator():
    grads = []
    for estimator in ESTIMATORS:
        slope = torch.tensor(0.7, dtype=F64, requires_grad=True)
        _, experts = toy_experts(TWO, 6)
        z = torch.stack([q.rsample((4,), torch.Generator().manual_seed(0)) for q in experts])
        value = moe_bound(experts, z, lambda z: toy_log_joint(z) - 0.5 * (slope * z[..., 0] - 1).square(), "loose", estimator)
        grads.append(torch.autograd.grad(value.sum(), slope)[0].item())
    assert grads == pytest.approx([grads[0]] * 4, rel=1e-10) and grads[0] != 0


# ---- experts that an item lacks -----------------------------------------------------------------------------------


def three_experts(family=Normal, n=4):
    g = torch.Generator().manual_seed(0)
    leaves = [torch.randn(n, 4, dtype=F64, generator=g).requires_grad_() for _ in range(3)]
    make = {Normal: lambda a, b: Normal(a, b), Laplace: lambda a, b: Laplace.from_logits(a, b)}[family]
    return leaves, [make(*leaf.chunk(2, -1)) for leaf in leaves]


def wide_log_joint(z):
    return -0.5 * z.square().sum(-1) - (z - 1).abs().sum(-1)


@pytest.mark.parametrize("family", [Normal, Laplace])
@pytest.mark.parametrize("bound", ["loose", "tight"])
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_an_absent_expert_is_as_if_it_were_not_there(family, bound, estimator):
    leaves, experts = three_experts(family)
    z = torch.stack([q.rsample((5,), torch.Generator().manual_seed(1)) for q in experts])
    present = torch.ones(3, 4, dtype=torch.bool)
    present[1, :2] = False
    found = moe_bound(experts, z, wide_log_joint, bound, estimator, present)
    grads = torch.autograd.grad(found.sum(), leaves, retain_graph=True)
    assert grads[1][:2].abs().max().item() == 0
    rest = [type(q)(*(t[:2] for t in vars(q).values())) for q in (experts[0], experts[2])]
    alone = moe_bound(rest, z[[0, 2]][:, :, :2], wide_log_joint, bound, estimator)
    assert torch.allclose(found[:2], alone, atol=1e-12)
    for m, grad in zip((0, 2), torch.autograd.grad(alone.sum(), [leaves[0], leaves[2]])):
        assert torch.allclose(grad[:2], grads[m][:2], atol=1e-10)


# ---- linear time --------------------------------------------------------------------------------------------------

SLOPES = (0.8, 1.2)


def own_log_px(z):
    """Expert d's samples [experts, ...] scored by decoder d alone: x_d | z ~ N(c_d z, 1) at x_d = 1.3."""
    return torch.stack([D.Normal(c * part[..., 0], 1.0).log_prob(torch.tensor(X, dtype=F64)) for c, part in zip(SLOPES, z)])


@pytest.mark.equation("eq-linear-time")
def test_linear_time_value_against_explicit_loops():
    _, experts = toy_experts(TWO, 3)
    z = torch.stack([q.rsample((4,), torch.Generator().manual_seed(0)) for q in experts])
    divergence = torch.stack([kl(q, Normal.standard(3, 1, like=q.mean)) for q in experts])
    found = moe_linear_time(experts, z, own_log_px, divergence)
    for i in range(3):
        total = 0.0
        for r in range(2):
            q_r = D.Normal(experts[r].mean[i], experts[r].std[i])
            for d in range(2):
                q_d = D.Normal(experts[d].mean[i], experts[d].std[i])
                ratios = (q_r.log_prob(z[d, :, i]) - q_d.log_prob(z[d, :, i])).exp()
                total += sum((ratios[k] * own_log_px(z)[d, k, i]).item() for k in range(4)) / 4
            total -= D.kl_divergence(q_r, D.Normal(0.0, 1.0)).item()
        assert found[i].item() == pytest.approx(total / 2, rel=1e-10)


CLOSE = [(0.2, 0.9), (0.6, 0.8)]  # experts of like width, so that the ratio of their densities has a variance


def naive_by_hand(params):
    """The naive bound and its gradient in closed form: every expectation is of a quadratic."""
    leaves = [torch.tensor([a, math.log(s)], dtype=F64, requires_grad=True) for a, s in params]
    total = 0.0
    for leaf in leaves:
        mean, var = leaf[0] * X, (2 * leaf[1]).exp()
        for c in SLOPES:
            total = total - 0.5 * (math.log(2 * math.pi) + (X - c * mean).square() + c * c * var)
        total = total - 0.5 * (mean.square() + var - 1 - var.log())
    value = total / len(leaves)
    return value.item(), torch.cat(torch.autograd.grad(value, leaves))


def linear_time_gradients(released, repeats=100_000):
    leaves, experts = toy_experts(CLOSE, repeats)
    z = torch.stack([q.rsample((2,), torch.Generator().manual_seed(0)) for q in experts])
    divergence = torch.stack([kl(q, Normal.standard(repeats, 1, like=q.mean)) for q in experts])
    value = moe_linear_time(experts, z, own_log_px, divergence, released_gradient=released)
    return value, torch.cat(torch.autograd.grad(value.sum(), leaves), 1)


@pytest.mark.equation("eq-linear-time")
def test_linear_time_estimates_the_naive_bound_and_its_gradient():
    exact_value, exact = naive_by_hand(CLOSE)
    value, grads = linear_time_gradients(released=False)
    assert value.mean().item() == pytest.approx(exact_value, abs=4 * value.std().item() / math.sqrt(len(value)))
    error = grads.std(0) / math.sqrt(len(grads))
    assert ((grads.mean(0) - exact).abs() / error).max().item() < 4


def test_the_released_linear_time_gradient_is_biased():
    _, exact = naive_by_hand(CLOSE)
    _, grads = linear_time_gradients(released=True)
    error = grads.std(0) / math.sqrt(len(grads))
    assert ((grads.mean(0) - exact).abs() / error).max().item() > 20


def test_linear_time_without_an_expert():
    leaves, experts = three_experts()
    z = torch.stack([q.rsample((5,), torch.Generator().manual_seed(1)) for q in experts])
    divergence = torch.stack([kl(q, Normal.standard(4, 2, like=z)) for q in experts])
    present = torch.ones(3, 4, dtype=torch.bool)
    present[1] = False

    def own(z):
        return -z.square().sum(-1)

    found = moe_linear_time(experts, z, own, divergence, present)
    alone = moe_linear_time([experts[0], experts[2]], z[[0, 2]], own, divergence[[0, 2]])
    assert torch.allclose(found, alone, atol=1e-12)
    one, two = (torch.autograd.grad(v.sum(), [leaves[0], leaves[2]], retain_graph=True) for v in (found, alone))
    assert all(torch.allclose(a, b, atol=1e-10) for a, b in zip(one, two))


def test_unknown_choices_are_named():
    _, experts = three_experts()
    z = torch.stack([q.rsample((2,)) for q in experts])
    with pytest.raises(KeyError, match="unknown estimator 'dregg'.* did you mean 'dreg'"):
        moe_bound(experts, z, wide_log_joint, estimator="dregg")
    with pytest.raises(KeyError, match="unknown bound 'lose'.* did you mean 'loose'"):
        moe_bound(experts, z, wide_log_joint, bound="lose")
