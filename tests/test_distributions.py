"""Densities against torch.distributions, divergences against quadrature and known values."""

import math

import pytest
import torch

from mmvae_lite.distributions import (
    BernoulliLikelihood,
    CategoricalLikelihood,
    Laplace,
    LaplaceLikelihood,
    Normal,
    NormalLikelihood,
    kl,
)

D = torch.distributions
F64 = torch.float64


def normal(mean, var):
    return Normal(torch.tensor([mean], dtype=F64), torch.tensor([var], dtype=F64).log())


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


def test_log_prob_of_normal_and_laplace(generator):
    loc, raw = (torch.randn(5, 3, dtype=F64, generator=generator) for _ in range(2))
    z = torch.randn(4, 5, 3, dtype=F64, generator=generator)
    expected = D.Normal(loc, (0.5 * raw).exp()).log_prob(z).sum(-1)
    assert torch.allclose(Normal(loc, raw).log_prob(z), expected, atol=1e-12)
    expected = D.Laplace(loc, raw.exp()).log_prob(z).sum(-1)
    assert torch.allclose(Laplace(loc, raw.exp()).log_prob(z), expected, atol=1e-12)


@pytest.mark.equation("eq-kl-normal")
def test_kl_of_normals_known_value():
    # 1/2 (v + mu^2 - 1 - log v) with mu = 1 and v = 1/2
    assert kl(normal(1.0, 0.5), normal(0.0, 1.0)).item() == pytest.approx(0.5965736, abs=1e-7)


@pytest.mark.equation("eq-laplace-divergence")
def test_kl_of_laplaces_known_value():
    q = Laplace(torch.tensor([0.5], dtype=F64), torch.tensor([0.8], dtype=F64))
    p = Laplace(torch.zeros(1, dtype=F64), torch.ones(1, dtype=F64))
    assert kl(q, p).item() == pytest.approx(0.1513527, abs=1e-7)


@pytest.mark.equation("eq-kl-normal", "eq-laplace-divergence")
@pytest.mark.parametrize("family", ["normal", "laplace"])
def test_kl_equals_quadrature(family, generator):
    grid = torch.linspace(-60, 60, 400_001, dtype=F64)[:, None]
    for _ in range(3):
        a, b = (torch.randn(1, dtype=F64, generator=generator) for _ in range(2))
        if family == "normal":
            q, p = Normal(a, 0.5 * b), Normal(-b, torch.tensor([0.3], dtype=F64))
        else:
            q, p = Laplace(a, (0.5 * b).exp()), Laplace(-b, torch.tensor([1.3], dtype=F64))
        log_q, log_p = q.log_prob(grid), p.log_prob(grid)
        integral = torch.trapezoid(log_q.exp() * (log_q - log_p), grid[:, 0])
        assert kl(q, p).item() == pytest.approx(integral.item(), abs=1e-6)


def test_kl_per_dimension_adds_up_and_families_must_agree(generator):
    q = Normal(torch.randn(5, 3, generator=generator), torch.randn(5, 3, generator=generator))
    p = Normal.standard(5, 3)
    assert torch.allclose(kl(q, p, reduce=False).sum(-1), kl(q, p))
    with pytest.raises(TypeError, match="Normal and Laplace"):
        kl(p, Laplace(torch.zeros(5, 3), torch.ones(5, 3)))


@pytest.mark.parametrize("q", [Normal(torch.tensor([1.0, -2.0]), torch.tensor([0.3, -1.0])), Laplace(torch.tensor([1.0, -2.0]), torch.tensor([0.3, 1.5]))])
def test_rsample_has_the_mean_and_spread_of_its_density(q, generator):
    z = q.rsample((200_000,), generator)
    assert z.shape == (200_000, 2)
    error = q.std / math.sqrt(200_000)
    assert bool(((z.mean(0) - q.mean).abs() < 4 * error).all())
    assert torch.allclose(z.std(0), q.std, rtol=0.02)


def test_rsample_repeats_with_its_generator():
    q = Normal.standard(3, 2)
    one, two = (q.rsample(generator=torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(one, two)
    assert not torch.equal(one, q.rsample(generator=torch.Generator().manual_seed(2)))


@pytest.mark.equation("eq-laplace-scale")
def test_laplace_scales_add_up_to_the_dimension(generator):
    q = Laplace.from_logits(torch.zeros(7, 20, dtype=F64), torch.randn(7, 20, dtype=F64, generator=generator))
    assert torch.allclose(q.scale.sum(-1), torch.full((7,), 20 * (1 + 1e-6), dtype=F64))


def test_likelihoods_equal_torch_distributions(generator):
    params = torch.randn(4, 5, 2, 3, dtype=F64, generator=generator)
    x = torch.randn(5, 2, 3, dtype=F64, generator=generator)
    cases = [
        (NormalLikelihood(0.5), D.Normal(params, 0.5).log_prob(x)),
        (LaplaceLikelihood(0.75), D.Laplace(params, 0.75).log_prob(x)),
        (BernoulliLikelihood(), D.Bernoulli(logits=params).log_prob((x > 0).double())),
    ]
    for likelihood, elementwise in cases:
        data = (x > 0).double() if isinstance(likelihood, BernoulliLikelihood) else x
        assert torch.allclose(likelihood.log_prob(params, data), elementwise.sum((-2, -1)), atol=1e-12)


def test_categorical_likelihood_sums_positions(generator):
    logits = torch.randn(4, 5, 7, 3, dtype=F64, generator=generator)
    classes = torch.randint(3, (5, 7), generator=generator)
    one_hot = torch.nn.functional.one_hot(classes, 3).double()
    expected = D.Categorical(logits=logits).log_prob(classes).sum(-1)
    assert torch.allclose(CategoricalLikelihood().log_prob(logits, one_hot), expected, atol=1e-12)


def test_bernoulli_is_finite_for_extreme_logits():
    logits = torch.tensor([[-2000.0, 2000.0]])
    assert BernoulliLikelihood().log_prob(logits, torch.tensor([[0.0, 1.0]])).item() == 0.0
    assert math.isfinite(BernoulliLikelihood().log_prob(logits, torch.tensor([[1.0, 0.0]])).item())
