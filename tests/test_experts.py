"""Products and mixtures against known answers, brute-force quadrature and the exact world LG3."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmvae_lite.data import LG3, LG3_OBSERVATION, LinearGaussian
from mmvae_lite.distributions import Normal, kl
from mmvae_lite.experts import (
    ImproperProduct,
    Mixture,
    log_normaliser,
    masked,
    product,
    product_with_prior,
    quotient,
)

F64 = torch.float64
FORMS = {"plain": product, "prior": product_with_prior, "quotient": quotient}


def normal(mean, var):
    return Normal(torch.tensor([float(mean)], dtype=F64), torch.tensor([float(var)], dtype=F64).log())


PAIR = [normal(1, 0.5), normal(-1, 2)]
PRIOR = normal(0, 1)


@pytest.mark.parametrize(
    ("form", "powers", "mean", "var", "log_z"),
    [
        pytest.param("plain", (1.0, 1.0), 0.6, 0.4, -2.1770839, marks=pytest.mark.equation("eq-product")),
        pytest.param("prior", (1.0, 1.0, 1.0), 0.4285714, 0.2857143, -3.3928300, marks=pytest.mark.equation("eq-product-prior")),
        pytest.param("quotient", (1.0, 1.0, -1.0), 1.0, 0.6666667, -0.7027326, marks=pytest.mark.equation("eq-quotient")),
    ],
)
def test_known_answers(form, powers, mean, var, log_z):
    joint = FORMS[form](PAIR)
    assert joint.mean.item() == pytest.approx(mean, abs=1e-7)
    assert joint.var.item() == pytest.approx(var, abs=1e-7)
    experts = [*PAIR, PRIOR][: len(powers)]
    assert log_normaliser(experts, powers).item() == pytest.approx(log_z, abs=1e-7)


def brute_force(experts, powers):
    """The normalised density, its mean, variance and log normaliser on a grid."""
    grid = torch.linspace(-40, 40, 400_001, dtype=F64)
    log_f = sum(a * e.log_prob(grid[:, None]) for a, e in zip(powers, experts))
    f = log_f.exp()
    z = torch.trapezoid(f, grid)
    mean = torch.trapezoid(f * grid, grid) / z
    var = torch.trapezoid(f * (grid - mean) ** 2, grid) / z
    return mean.item(), var.item(), z.log().item()


finite_mean = st.floats(-4, 4)
variance = st.floats(0.05, 0.9)


@pytest.mark.equation("eq-product")
@pytest.mark.equation("eq-product-prior")
@pytest.mark.equation("eq-quotient")
@pytest.mark.equation("eq-log-normaliser")
@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(finite_mean, variance), min_size=1, max_size=4))
def test_products_equal_brute_force_quadrature(drawn):
    experts = [normal(m, v) for m, v in drawn]
    n = len(experts)
    for form, powers in (("plain", [1.0] * n), ("prior", [1.0] * n + [1.0]), ("quotient", [1.0] * n + [1.0 - n])):
        joint = FORMS[form](experts)
        members = [*experts, PRIOR][: len(powers)]
        mean, var, log_z = brute_force(members, powers)
        assert joint.mean.item() == pytest.approx(mean, abs=1e-7)
        assert joint.var.item() == pytest.approx(var, abs=1e-7)
        assert log_normaliser(members, powers).item() == pytest.approx(log_z, abs=1e-7)


@pytest.mark.equation("eq-agreement")
@given(finite_mean, variance, finite_mean, variance)
def test_the_normaliser_of_two_experts_is_their_agreement(m1, v1, m2, v2):
    expected = normal(m2, v1 + v2).log_prob(torch.tensor([m1], dtype=F64))
    assert log_normaliser([normal(m1, v1), normal(m2, v2)]).item() == pytest.approx(expected.item(), abs=1e-9)


@given(st.permutations(range(3)))
def test_the_order_of_experts_does_not_matter(order):
    experts = [normal(1, 0.5), normal(-1, 0.7), normal(0.3, 0.2)]
    for form in FORMS.values():
        one, two = form(experts), form([experts[i] for i in order])
        assert torch.allclose(one.mean, two.mean) and torch.allclose(one.var, two.var)


@pytest.mark.equation("eq-quotient")
def test_only_the_quotient_of_posteriors_is_exact_on_lg3():
    x = LG3_OBSERVATION
    posteriors = [LG3.posterior({m: x[m]}) for m in x]
    exact = LG3.posterior(x)
    found = {name: form(posteriors) for name, form in FORMS.items()}
    assert {n: round(q.precision.item(), 9) for n, q in found.items()} == {"plain": 10, "prior": 11, "quotient": 8}
    assert {n: round(q.mean.item(), 4) for n, q in found.items()} == {"plain": 0.5, "prior": 0.4545, "quotient": 0.625}
    assert kl(found["quotient"], exact).item() == pytest.approx(0, abs=1e-12)
    assert min(kl(found[n], exact).item() for n in ("plain", "prior")) > 0.01


@pytest.mark.equation("eq-product-prior")
def test_the_prior_form_is_exact_on_likelihood_experts():
    for subset in ([0], [1, 2], [0, 1, 2]):
        x = {m: LG3_OBSERVATION[m] for m in subset}
        assert kl(product_with_prior(LG3.experts(x)), LG3.posterior(x)).item() == pytest.approx(0, abs=1e-12)


@pytest.mark.equation("eq-proper")
def test_a_vague_pair_of_experts_has_no_quotient():
    with pytest.raises(ImproperProduct, match=r"latent dimensions \[1\]"):
        quotient([Normal(torch.zeros(2, 2), torch.tensor([[-1.0, 1.0]] * 2))] * 2)
    with pytest.raises(ImproperProduct, match="total precision"):
        log_normaliser([normal(0, 3), PRIOR], [1.0, -1.0])


def test_empty_products_are_refused():
    for form in FORMS.values():
        with pytest.raises(ValueError, match="at least 1 expert, got 0"):
            form([])
    with pytest.raises(ValueError, match="got 1 powers for 2 experts"):
        log_normaliser(PAIR, [1.0])
    with pytest.raises(ValueError, match="at least 1 expert"):
        Mixture(())


def test_a_masked_expert_is_an_absent_one():
    experts = [Normal(torch.randn(4, 3, dtype=F64), torch.randn(4, 3, dtype=F64)) for _ in range(3)]
    present = [torch.tensor([[True] * 4, [False] * 4]), torch.tensor([[True] * 4] * 2), torch.tensor([[False] * 4, [True] * 4])]
    joint = product_with_prior([masked(e, p) for e, p in zip(experts, present)])
    for row, members in enumerate(([0, 1], [1, 2])):
        alone = product_with_prior([experts[m] for m in members])
        assert torch.allclose(joint.mean[row], alone.mean) and torch.allclose(joint.logvar[row], alone.logvar)


def test_all_masked_gives_the_prior_and_finite_gradients():
    logvar = torch.zeros(2, 3, dtype=F64, requires_grad=True)
    mean = torch.ones(2, 3, dtype=F64, requires_grad=True)
    joint = product_with_prior([masked(Normal(mean, logvar), torch.zeros(2, dtype=torch.bool))])
    assert kl(joint, Normal.standard(2, 3, like=mean.detach())).abs().max().item() == 0
    (joint.mean.sum() + joint.logvar.sum()).backward()
    assert bool((logvar.grad == 0).all()) and bool((mean.grad == 0).all())


@pytest.mark.equation("eq-mixture")
def test_mixture_against_torch_distributions():
    generator = torch.Generator().manual_seed(0)
    means, logvars = (torch.randn(3, 4, 2, dtype=F64, generator=generator) for _ in range(2))
    mixture = Mixture(tuple(Normal(m, v) for m, v in zip(means, logvars)))
    z = torch.randn(5, 4, 2, dtype=F64, generator=generator)
    D = torch.distributions
    components = D.Independent(D.Normal(means.movedim(0, 1), (0.5 * logvars).exp().movedim(0, 1)), 1)
    oracle = D.MixtureSameFamily(D.Categorical(torch.ones(4, 3, dtype=F64)), components)
    assert torch.allclose(mixture.log_prob(z), oracle.log_prob(z), atol=1e-12)
    assert torch.allclose(mixture.responsibilities(z).sum(0), torch.ones(5, 4, dtype=F64))
    assert mixture.rsample((6,), generator).shape == (3, 6, 4, 2)


@pytest.mark.equation("eq-mixture-floor")
def test_a_mixture_is_never_much_worse_than_its_best_expert():
    generator = torch.Generator().manual_seed(1)
    means, logvars = (3 * torch.randn(4, 5, 2, dtype=F64, generator=generator) for _ in range(2))
    mixture = Mixture(tuple(Normal(m, v) for m, v in zip(means, logvars)))
    z = 5 * torch.randn(50, 5, 2, dtype=F64, generator=generator)
    loss = mixture.expert_log_probs(z).amax(0) - mixture.log_prob(z)
    assert bool((loss <= math.log(4) + 1e-12).all()) and bool((loss >= 0).all())
    alone = Mixture((Normal(means[0, :1], torch.zeros(1, 2, dtype=F64)), Normal(means[0, :1] + 1e3, torch.zeros(1, 2, dtype=F64))))
    at = means[0, :1]
    assert (alone.expert_log_probs(at).amax(0) - alone.log_prob(at)).item() == pytest.approx(math.log(2))


@pytest.mark.equation("eq-linear-gaussian")
def test_lg3_evidence_and_posteriors_against_quadrature():
    grid = torch.linspace(-12, 12, 200_001, dtype=F64)
    for subset in ([0], [1], [2], [0, 1], [0, 2], [1, 2], [0, 1, 2]):
        x = {m: LG3_OBSERVATION[m] for m in subset}
        log_joint = Normal.standard(1, like=grid).log_prob(grid[:, None])
        for m, value in x.items():
            log_joint = log_joint + torch.distributions.Normal(LG3.weights[m] * grid, math.sqrt(LG3.variances[m])).log_prob(value)
        evidence = torch.trapezoid(log_joint.exp(), grid)
        assert LG3.log_prob(x).item() == pytest.approx(evidence.log().item(), abs=1e-9)
        mean = torch.trapezoid(log_joint.exp() * grid, grid) / evidence
        assert LG3.posterior(x).mean.item() == pytest.approx(mean.item(), abs=1e-9)


@pytest.mark.parametrize(
    ("subset", "log_p", "mean", "var"),
    [
        ((0,), -1.5155121235, 0.5, 0.5),
        ((1,), -1.9486574894, 0.6, 0.2),
        ((2,), -1.2050044206, 1 / 3, 1 / 3),
        ((0, 1), -3.0254234677, 2 / 3, 1 / 6),
        ((0, 2), -2.4344506567, 0.5, 0.25),
        ((1, 2), -2.6964014078, 4 / 7, 1 / 7),
        ((0, 1, 2), -3.7624627802, 0.625, 0.125),
    ],
)
def test_lg3_known_answers(subset, log_p, mean, var):
    x = {m: LG3_OBSERVATION[m] for m in subset}
    posterior = LG3.posterior(x)
    assert (LG3.log_prob(x).item(), posterior.mean.item(), posterior.var.item()) == pytest.approx((log_p, mean, var), abs=1e-10)


@pytest.mark.equation("eq-linear-gaussian")
def test_lg3_sample_has_the_covariance_of_its_definition():
    x = torch.stack(list(LG3.sample(200_000, torch.Generator().manual_seed(0)).values()))
    w = torch.tensor(LG3.weights, dtype=F64)
    wanted = torch.outer(w, w) + torch.diag(torch.tensor(LG3.variances, dtype=F64))
    assert torch.allclose(torch.cov(x), wanted, atol=0.05)


def test_linear_gaussian_refuses_what_makes_no_sense():
    with pytest.raises(ValueError, match="1 weights and 2 variances"):
        LinearGaussian((1.0,), (1.0, 2.0))
    with pytest.raises(ValueError, match="wanted more than 0"):
        LinearGaussian((1.0,), (0.0,))
