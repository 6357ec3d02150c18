"""ELBO and IWAE on LG3, where the evidence is known."""

import math

import pytest
import torch

from mmvae_lite.bounds import elbo, iwae, iwae_by_quadrature, log_weights
from mmvae_lite.data import LG3, LG3_OBSERVATION
from mmvae_lite.distributions import Normal, kl

F64 = torch.float64
X = LG3_OBSERVATION
Q = Normal(torch.tensor([0.4], dtype=F64), torch.tensor([0.3], dtype=F64).log())
PRIOR = Normal.standard(1, like=Q.mean)
LOG_P = -3.7624627802


def log_px(z):
    """log p(x | z) of all three modalities at z [..., 1]."""
    terms = [torch.distributions.Normal(w * z[..., 0], math.sqrt(v)).log_prob(X[m]) for m, (w, v) in enumerate(zip(LG3.weights, LG3.variances))]
    return sum(terms)


def expected_log_px():
    """E_q[log p(x | z)] by Gauss-Hermite quadrature, exact for a quadratic."""
    import numpy as np

    nodes, weights = (torch.from_numpy(a) for a in np.polynomial.hermite_e.hermegauss(20))
    z = Q.mean + Q.std * nodes[:, None]
    return (weights / weights.sum() * log_px(z)).sum()


@pytest.mark.equation("eq-elbo")
def test_elbo_is_the_evidence_minus_the_gap():
    bound = elbo(expected_log_px(), kl(Q, PRIOR))
    assert bound.item() == pytest.approx(-4.2272284, abs=1e-7)
    gap = kl(Q, LG3.posterior(X))
    assert bound.item() == pytest.approx(LOG_P - gap.item(), abs=1e-9)


@pytest.mark.equation("eq-elbo")
def test_beta_zero_leaves_the_reconstruction():
    assert elbo(torch.tensor(-3.0), torch.tensor(2.0), beta=0.0).item() == -3.0


@pytest.mark.equation("eq-iwae")
def test_iwae_rises_with_samples_towards_the_evidence():
    generator = torch.Generator().manual_seed(0)
    known = {1: -4.2272284, 2: -3.9095, 10: -3.7824, 50: -3.7663, 500: -3.7626}
    found = {}
    for k, value in known.items():
        repeats = 2_000_000 // k if k < 500 else 20_000
        z = Q.rsample((k, repeats), generator)
        log_w = log_weights(log_px(z), PRIOR.log_prob(z), Q.log_prob(z))
        bounds = iwae(log_w)
        found[k] = bounds.mean().item()
        error = bounds.std().item() / math.sqrt(repeats)
        assert found[k] == pytest.approx(value, abs=4 * error + 1e-4), f"K = {k}"
    assert list(found.values()) == sorted(found.values())
    assert found[500] <= LOG_P + 1e-3


@pytest.mark.equation("eq-iwae")
def test_iwae_with_the_exact_posterior_is_the_evidence_for_any_sample():
    q = LG3.posterior(X)
    z = q.rsample((7,), torch.Generator().manual_seed(0))
    log_w = log_weights(log_px(z), Normal.standard(1, 1, like=q.mean).log_prob(z), q.log_prob(z))
    assert iwae(log_w).item() == pytest.approx(LOG_P, abs=1e-9)


def grid():
    """Standard normal nodes and their probabilities."""
    nodes = torch.linspace(-9, 9, 1501, dtype=F64)
    probs = (-0.5 * nodes.square()).softmax(0)
    return nodes, probs


def log_w_on_grid(q):
    nodes, _ = grid()
    z = q.mean + q.std * nodes[:, None]
    return log_weights(log_px(z), PRIOR.log_prob(z), q.log_prob(z))


@pytest.mark.equation("eq-importance-weight")
@pytest.mark.parametrize(("mean", "var"), [(0.4, 0.3), (-0.2, 0.8), (0.625, 0.125)])
def test_the_weights_average_to_the_evidence_whatever_q_is(mean, var):
    q = Normal(torch.tensor([mean], dtype=F64), torch.tensor([var], dtype=F64).log())
    assert (log_w_on_grid(q) + grid()[1].log()).logsumexp(0).item() == pytest.approx(LOG_P, abs=1e-9)


@pytest.mark.equation("eq-frullani")
def test_quadrature_knows_the_elbo_and_the_evidence():
    _, probs = grid()
    log_w = log_w_on_grid(Q)[None]
    assert iwae_by_quadrature(log_w, probs, 1).item() == pytest.approx(-4.2272284, abs=1e-7)
    assert iwae_by_quadrature(log_w, probs, 10**6).item() == pytest.approx(LOG_P, abs=1e-6)
    values = [iwae_by_quadrature(log_w, probs, k).item() for k in range(1, 30)]
    assert values == sorted(values)
    exact = LG3.posterior(X)
    log_w = log_w_on_grid(Normal(exact.mean[0], exact.logvar[0]))[None]
    assert iwae_by_quadrature(log_w, probs, 7).item() == pytest.approx(LOG_P, abs=1e-9)


@pytest.mark.equation("eq-frullani")
@pytest.mark.parametrize("samples", [2, 3])
def test_quadrature_equals_the_sum_over_all_draws(samples):
    """A weight with three values: the expectation is a sum over all 3^K draws."""
    log_w = torch.tensor([-1.0, 0.5, 2.0], dtype=F64)
    probs = torch.tensor([0.5, 0.3, 0.2], dtype=F64)
    total = 0.0
    for draw in torch.cartesian_prod(*[torch.arange(3)] * samples):
        total += probs[draw].prod().item() * iwae(log_w[draw]).item()
    assert iwae_by_quadrature(log_w[None], probs, samples).item() == pytest.approx(total, abs=1e-9)


@pytest.mark.equation("eq-frullani")
def test_the_gradient_of_the_quadrature_at_one_sample():
    """x | z ~ N(z, 1) at x = 1.3 and q = N(a x, s^2): the gradient of the ELBO in (a, log s) in closed form."""
    leaf = torch.tensor([0.2, math.log(1.1)], dtype=F64, requires_grad=True)
    nodes, probs = grid()
    q = Normal(leaf[:1] * 1.3, 2 * leaf[1:])
    z = q.mean + q.std * nodes[:, None]
    log_w = -0.5 * z[:, 0].square() - 0.5 * (1.3 - z[:, 0]).square() - math.log(2 * math.pi) - q.log_prob(z)
    (gradient,) = torch.autograd.grad(iwae_by_quadrature(log_w[None], probs, 1), leaf)
    assert gradient.tolist() == pytest.approx([1.69 * 0.6, 1 - 2 * 1.21], abs=1e-7)
