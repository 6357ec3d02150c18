"""The concrete variable and its product of experts, and which of its naive properties are false."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmvae_lite.distributions import Concrete, categorical_kl
from mmvae_lite.experts import concrete_product, concrete_root

F64 = torch.float64
D = torch.distributions
PAPER = ((4.0, 3.0), (2.0, 3.0))  # the experts of figure 5 of Lee and Pavlovic (2020); their product is (8, 9)


def concrete(weights, temperature=0.66):
    return Concrete(torch.tensor(weights, dtype=F64).log(), temperature)


def on_logit_axis(limit, steps=80_001):
    """Points of the one-dimensional simplex, evenly spaced in logit(z_1) over [-limit, limit], and their Jacobian."""
    t = torch.linspace(-limit, limit, steps, dtype=F64)
    z = torch.stack([t, torch.zeros_like(t)], -1).softmax(-1)
    return t, z, z.log().sum(-1)


def cut_off_product(weights, temperature, limit, jacobians=1):
    """Integral of the product of densities over |logit z_1| <= limit: left and right of the middle."""
    t, z, log_jacobian = on_logit_axis(limit)
    f = (sum(concrete(w, temperature).log_prob(z) for w in weights) + jacobians * log_jacobian).exp()
    middle = len(t) // 2
    return torch.trapezoid(f[: middle + 1], t[: middle + 1]).item(), torch.trapezoid(f[middle:], t[middle:]).item()


# ---- the density --------------------------------------------------------------------------------------------------


@pytest.mark.equation("eq-concrete-density")
@pytest.mark.parametrize("temperature", [0.1, 0.3, 0.66, 1.0, 2.0])
@pytest.mark.parametrize("weights", PAPER)
def test_density_of_two_classes_integrates_to_one(weights, temperature):
    assert sum(cut_off_product([weights], temperature, 60 / temperature)) == pytest.approx(1, abs=1e-6)


@pytest.mark.equation("eq-concrete-density")
@pytest.mark.parametrize("temperature", [0.66, 1.5])
def test_density_of_three_classes_integrates_to_one(temperature):
    t = torch.linspace(-30 / temperature, 30 / temperature, 1201, dtype=F64)
    a, b = torch.meshgrid(t, t, indexing="ij")
    z = torch.stack([a, b, torch.zeros_like(a)], -1).softmax(-1)
    f = (concrete((4.0, 3.0, 1.0), temperature).log_prob(z) + z.log().sum(-1)).exp()
    assert torch.trapezoid(torch.trapezoid(f, t), t).item() == pytest.approx(1, abs=1e-6)


@pytest.mark.equation("eq-concrete-density")
@settings(max_examples=25, deadline=None)
@given(st.integers(2, 12), st.floats(0.1, 5), st.floats(-50, 50), st.integers(0, 1000))
def test_density_against_torch_and_without_regard_to_the_scale_of_the_weights(n, temperature, shift, seed):
    g = torch.Generator().manual_seed(seed)
    q = Concrete(torch.randn(3, n, dtype=F64, generator=g), temperature)
    z = torch.rand(4, 3, n, dtype=F64, generator=g).add(0.01)
    z = z / z.sum(-1, keepdim=True)
    oracle = D.RelaxedOneHotCategorical(torch.tensor(temperature, dtype=F64), logits=q.logits)
    assert torch.allclose(q.log_prob(z), oracle.log_prob(z), atol=1e-9)
    assert torch.allclose(Concrete(q.logits + shift, temperature).log_prob(z), q.log_prob(z), atol=1e-9)


def test_draws_have_the_promised_shapes_and_lie_on_the_simplex():
    q = Concrete(torch.randn(4, 18, 2, dtype=F64), 0.66)
    z = q.rsample((3, 2), torch.Generator().manual_seed(0))
    assert z.shape == (3, 2, 4, 18, 2) and q.log_prob(z).shape == (3, 2, 4, 18)
    assert torch.allclose(z.sum(-1), torch.ones(3, 2, 4, 18, dtype=F64))
    assert torch.equal(z, q.rsample((3, 2), torch.Generator().manual_seed(0)))
    assert Concrete.uniform(5, 3, temperature=1.0, like=z).probs.unique().item() == pytest.approx(1 / 3)
    assert q.mode.sum(-1).unique().item() == 1 and torch.equal(q.mode.argmax(-1), q.probs.argmax(-1))


@pytest.mark.equation("eq-concrete-draw")
def test_draws_follow_the_density():
    q = concrete((4.0, 3.0), 0.66)
    z = q.rsample((200_000,), torch.Generator().manual_seed(0))[:, 0]
    for edge in (0.1, 0.35, 0.5, 0.9):
        limit = math.log(edge / (1 - edge))
        t, points, log_jacobian = on_logit_axis(80.0)
        f = (q.log_prob(points) + log_jacobian).exp()
        below = torch.trapezoid(f[t <= limit], t[t <= limit]).item()
        assert (z < edge).double().mean().item() == pytest.approx(below, abs=4 * 0.5 / math.sqrt(len(z)))


@pytest.mark.equation("eq-concrete-product")
@pytest.mark.parametrize(("temperature", "largest"), [(2.0, 0.654), (0.66, 0.810), (0.1, 0.966), (0.01, 0.997)])
def test_argmax_is_the_categorical_product_at_every_temperature(temperature, largest):
    joint = concrete_product([concrete(w, temperature) for w in PAPER])
    z = joint.rsample((1_000_000,), torch.Generator().manual_seed(1))
    assert (z[:, 0] > z[:, 1]).double().mean().item() == pytest.approx(8 / 17, abs=0.0015)
    assert z.amax(-1).mean().item() == pytest.approx(largest, abs=0.0015)


@pytest.mark.equation("eq-gumbel-max")
def test_argmax_of_many_classes_passes_a_chi_square_test():
    q = concrete((5.0, 1.0, 3.0, 0.5, 2.5), 3.0)
    draws = 100_000
    found = torch.bincount(q.rsample((draws,), torch.Generator().manual_seed(0)).argmax(-1), minlength=5)
    expected = draws * q.probs
    assert ((found - expected).square() / expected).sum().item() < 18.5  # the 0.999 quantile with 4 degrees of freedom


@pytest.mark.parametrize("temperature", [0.66, 0.01])
def test_single_precision_draws_and_densities_stay_finite(temperature):
    logits = torch.tensor([[30.0, -30.0, 0.0]], requires_grad=True)
    q = Concrete(logits, temperature)
    z = q.rsample((1000,), torch.Generator().manual_seed(0))
    log_f = q.log_prob(z)
    (z[..., 0].sum() + log_f.sum()).backward()
    assert bool(torch.isfinite(log_f).all()) and bool(torch.isfinite(logits.grad).all())


def test_gradients_reach_the_logits_through_draws_and_stop_at_detach():
    logits = torch.randn(3, 4, dtype=F64, requires_grad=True)
    q = Concrete(logits, 0.66)
    (grad,) = torch.autograd.grad(q.rsample(generator=torch.Generator().manual_seed(0))[:, 0].sum(), logits)
    assert grad.abs().min().item() > 0
    assert not q.detach().logits.requires_grad


@pytest.mark.equation("eq-categorical-kl")
def test_categorical_kl_against_torch_and_below_the_relaxed_one():
    q, p = concrete((4.0, 3.0)), concrete((1.0, 6.0))
    oracle = D.kl_divergence(D.Categorical(logits=q.logits), D.Categorical(logits=p.logits))
    assert categorical_kl(q, p).item() == pytest.approx(oracle.item(), abs=1e-12)
    t, z, log_jacobian = on_logit_axis(80.0)
    log_q = q.log_prob(z) + log_jacobian
    relaxed = torch.trapezoid(log_q.exp() * (q.log_prob(z) - p.log_prob(z)), t).item()
    assert categorical_kl(q, p).item() < relaxed
    assert categorical_kl(q, q).item() == 0


@pytest.mark.equation("eq-categorical-kl")
def test_the_relaxed_kl_is_the_same_at_every_temperature_and_never_the_categorical_one():
    def relaxed(temperature):
        q, p = (concrete(w, temperature) for w in ((9.0, 1.0), (1.0, 1.0)))
        t, z, log_jacobian = on_logit_axis(60 / temperature)
        log_q = q.log_prob(z)
        return torch.trapezoid((log_q + log_jacobian).exp() * (log_q - p.log_prob(z)), t).item()

    found = [relaxed(temperature) for temperature in (0.1, 0.66, 2.0)]
    assert found == pytest.approx([found[0]] * 3, abs=1e-6)
    assert found[0] > categorical_kl(concrete((9.0, 1.0)), concrete((1.0, 1.0))).item() + 0.1


@pytest.mark.equation("eq-concrete-draw")
def test_a_draw_is_the_softmax_of_the_race_and_keeps_its_order():
    q, waits = concrete((4.0, 3.0, 1.0), 0.3), torch.empty(500, 3, dtype=F64)
    waits.exponential_(generator=torch.Generator().manual_seed(3))
    times = waits / q.logits.exp()
    powers = times ** (-1 / 0.3)
    z = q.rsample((500,), torch.Generator().manual_seed(3))
    assert torch.allclose(z, powers / powers.sum(-1, keepdim=True))
    assert torch.equal(z.argsort(-1, descending=True)[:, 0], times.argmin(-1))


# ---- the product of experts ---------------------------------------------------------------------------------------

weights = st.lists(st.lists(st.floats(0.01, 100), min_size=3, max_size=3), min_size=1, max_size=4)


@pytest.mark.equation("eq-concrete-product")
@settings(max_examples=40, deadline=None)
@given(weights, st.floats(0.01, 100))
def test_product_is_the_normalised_product_of_class_probabilities(drawn, scale):
    experts = [concrete(w) for w in drawn]
    by_hand = torch.tensor(drawn, dtype=F64)
    by_hand = (by_hand / by_hand.sum(-1, keepdim=True)).prod(0)
    joint = concrete_product(experts)
    assert torch.allclose(joint.probs, by_hand / by_hand.sum())
    for same in (
        concrete_product(experts[::-1]),
        concrete_product([concrete([scale * v for v in drawn[0]]), *experts[1:]]),
        concrete_product([*experts, concrete((7.0, 7.0, 7.0))]),
        concrete_product(experts, prior=Concrete.uniform(3, temperature=0.66, like=by_hand)),
    ):
        assert torch.allclose(joint.probs, same.probs)


def test_product_with_a_prior_that_is_not_uniform():
    joint = concrete_product([concrete((4.0, 3.0)), concrete((2.0, 3.0))], prior=concrete((9.0, 8.0)))
    assert joint.probs.tolist() == pytest.approx([0.5, 0.5])


def test_product_of_several_variables_keeps_them_apart():
    a, b = (Concrete(torch.randn(5, 18, 2, dtype=F64), 0.66) for _ in range(2))
    joint = concrete_product([a, b])
    one = concrete_product([Concrete(a.logits[:, 7], 0.66), Concrete(b.logits[:, 7], 0.66)])
    assert joint.probs.shape == (5, 18, 2) and torch.allclose(joint.probs[:, 7], one.probs)


@pytest.mark.equation("eq-concrete-root")
def test_root_keeps_vertices_and_leaves_the_simplex_inside():
    vertex = torch.tensor([0.0, 1.0, 0.0], dtype=F64)
    assert concrete_root(vertex, 3).tolist() == pytest.approx([1e-3, 1, 1e-3], rel=1e-6)
    inside = torch.tensor([0.2, 0.5, 0.3], dtype=F64)
    assert concrete_root(inside, 3).sum().item() > 1
    assert torch.allclose(concrete_root(inside, 3) ** 3, inside, atol=1e-8)


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="temperature: found 0.0, wanted more than 0"):
        Concrete(torch.zeros(2), 0.0)
    with pytest.raises(ValueError, match="at least 1 expert, got 0"):
        concrete_product([])
    with pytest.raises(ValueError, match=r"found temperatures \[0.5, 0.66\], wanted the same"):
        concrete_product([concrete((1.0, 1.0), 0.5), concrete((1.0, 1.0), 0.66)])


# ---- what is false of a product of concrete densities --------------------------------------------------------------

UNIFORM = (1.0, 1.0)


def test_the_product_of_densities_has_no_finite_integral_at_the_paper_s_temperature():
    def integrals(temperature):
        limits = [math.log(1 / eps) for eps in (1e-3, 1e-6, 1e-9, 1e-12)]
        return [sum(cut_off_product([*PAPER, UNIFORM], temperature, limit)) for limit in limits]

    improper, proper = integrals(0.66), integrals(0.7)
    assert improper == pytest.approx([2.59, 7.45, 13.1, 19.6], rel=5e-3)
    growth, decay = ([b - a for a, b in zip(values, values[1:])] for values in (improper, proper))
    assert growth[0] < growth[1] < growth[2]
    assert decay[0] > decay[1] > decay[2] > 0


@pytest.mark.parametrize(("experts", "threshold"), [(2, 1 / 2), (3, 2 / 3), (4, 3 / 4)])
def test_threshold_of_integrability_for_two_classes(experts, threshold):
    def growth_ratio(temperature):
        a, b, c = (sum(cut_off_product([UNIFORM] * experts, temperature, limit)) for limit in (40, 80, 120))
        return (c - b) / (b - a)

    assert growth_ratio(threshold - 0.02) > 1 > growth_ratio(threshold + 0.02)


def test_threshold_of_integrability_for_three_classes():
    def integral(temperature, limit):
        t = torch.linspace(-limit, limit, 401, dtype=F64)
        a, b = torch.meshgrid(t, t, indexing="ij")
        z = torch.stack([a, b, torch.zeros_like(a)], -1).softmax(-1)
        f = (2 * concrete((1.0, 1.0, 1.0), temperature).log_prob(z) + z.log().sum(-1)).exp()
        return torch.trapezoid(torch.trapezoid(f, t), t).item()

    for temperature, grows in ((0.9, True), (1.1, False)):
        a, b, c = (integral(temperature, limit) for limit in (20, 40, 60))
        assert ((c - b) > (b - a)) is grows


def share_of_first(temperature, limit):
    left, right = cut_off_product(PAPER, temperature, limit)
    return right / (left + right)


@pytest.mark.parametrize(
    ("temperature", "shares"),
    [
        (0.3, (0.4620, 0.4455, 0.4415, 0.4414)),
        (0.05, (0.4916, 0.4821, 0.4662, 0.4423)),
        (0.02, (0.4966, 0.4926, 0.4849, 0.4561)),
    ],
)
def test_below_the_threshold_the_vertex_weights_depend_on_the_cut_off(temperature, shares):
    found = [share_of_first(temperature, limit) for limit in (7, 14, 28, 100)]
    assert found == pytest.approx(shares, abs=1e-4)


def test_the_limits_do_not_commute_and_neither_is_the_categorical_product():
    assert share_of_first(0.3, 300) == pytest.approx(64 / 145, abs=1e-6)  # squared odds: cut-off first
    assert share_of_first(1e-5, 28) == pytest.approx(1 / 2, abs=1e-3)  # even odds: temperature first
    assert abs(64 / 145 - 8 / 17) > 0.02


@pytest.mark.parametrize(("temperature", "share"), [(0.55, 0.4477), (0.66, 0.4579), (1.0, 0.4707)])
def test_a_proper_product_of_densities_is_not_the_categorical_product_either(temperature, share):
    assert share_of_first(temperature, 60 / (2 * temperature - 1)) == pytest.approx(share, abs=1e-4)


@pytest.mark.parametrize("temperature", [0.1, 0.66, 2.0])
def test_in_log_space_the_product_is_proper_and_still_another_one(temperature):
    left, right = cut_off_product(PAPER, temperature, 60 / temperature, jacobians=len(PAPER))
    assert right / (left + right) == pytest.approx(0.4781, abs=1e-4)
