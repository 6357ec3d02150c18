"""ELBO and IWAE on LG3, where the evidence is known."""

import math

import pytest
import torch

from mmvae_lite.bounds import elbo, iwae, log_weights
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
