"""The world that we can solve: exact answers against brute force, and the library's models with exact encoders."""

import itertools
import math

import pytest
import torch

from mmvae_lite.data import LG3, LG3_OBSERVATION, LG_PVAE, LG_PVAE_OBSERVATION, LinearGaussian, PartitionedGaussian
from mmvae_lite.distributions import Normal, kl
from mmvae_lite.models.linear import KINDS, exact_encoder, exact_model

F64 = torch.float64
NAMES = ("colour", "smell", "firmness")
SUBSETS = [s for size in (1, 2, 3) for s in itertools.combinations(range(3), size)]
GRID = torch.linspace(-12, 12, 20_001, dtype=F64)


def readings(subset):
    return {m: LG3_OBSERVATION[m] for m in subset}


def batch(n=1, names=NAMES):
    return {name: LG3_OBSERVATION[NAMES.index(name)].expand(n)[:, None] for name in names}


def log_joint(subset):
    """log p(x_S, z) of LG3 on the grid."""
    densities = [torch.distributions.Normal(LG3.weights[m] * GRID, math.sqrt(LG3.variances[m])) for m in subset]
    prior = torch.distributions.Normal(torch.tensor(0.0, dtype=F64), torch.tensor(1.0, dtype=F64))
    return prior.log_prob(GRID) + sum(d.log_prob(LG3_OBSERVATION[m]) for d, m in zip(densities, subset))


def normal(mean, var):
    return Normal(torch.tensor([[mean]], dtype=F64), torch.tensor([[math.log(var)]], dtype=F64))


# --- exact answers by brute force


@pytest.mark.equation("eq-world-posterior")
@pytest.mark.parametrize("subset", SUBSETS)
def test_posterior_by_quadrature(subset):
    weights = log_joint(subset).exp()
    weights = weights / weights.sum()
    mean = (weights * GRID).sum()
    q = LG3.posterior(readings(subset))
    assert q.mean.item() == pytest.approx(mean.item(), abs=1e-9)
    assert q.var.item() == pytest.approx((weights * (GRID - mean) ** 2).sum().item(), abs=1e-9)


@pytest.mark.equation("eq-world-evidence")
@pytest.mark.parametrize("subset", SUBSETS)
def test_evidence_by_quadrature(subset):
    assert LG3.log_prob(readings(subset)).item() == pytest.approx(torch.trapezoid(log_joint(subset).exp(), GRID).log().item(), abs=1e-9)


@pytest.mark.equation("eq-world-predictive")
@pytest.mark.parametrize("subset", [(), *SUBSETS[:-1]])
def test_prediction_is_the_conditional_evidence(subset):
    for m in set(range(3)) - set(subset):
        q = LG3.predict(readings(subset), m)
        known = LG3.log_prob(readings(subset)).item() if subset else 0.0
        wanted = LG3.log_prob(readings((*subset, m))).item() - known
        assert q.log_prob(LG3_OBSERVATION[m][:, None]).item() == pytest.approx(wanted, abs=1e-9)
    with pytest.raises(ValueError, match="modality: found 1, which is observed"):
        LG3.predict(readings((1,)), 1)


@pytest.mark.equation("eq-world-information")
@pytest.mark.parametrize("subset", SUBSETS)
def test_information_by_two_entropies_of_the_data(subset):
    # I(z; x) = H(x) - H(x | z), of Gaussians
    w = torch.tensor([LG3.weights[m] for m in subset], dtype=F64)
    noise = torch.tensor([LG3.variances[m] for m in subset], dtype=F64)
    wanted = 0.5 * (torch.logdet(torch.outer(w, w) + torch.diag(noise)) - noise.log().sum())
    assert LG3.information(subset) == pytest.approx(wanted.item(), abs=1e-12)
    assert LG3.information((*subset, *subset)) == LG3.information(subset) and LG3.information(()) == 0


@pytest.mark.equation("eq-shared-information")
@pytest.mark.parametrize("subset", SUBSETS)
def test_shared_information_is_the_total_correlation(subset):
    w = torch.tensor([LG3.weights[m] for m in subset], dtype=F64)
    covariance = torch.outer(w, w) + torch.diag(torch.tensor([LG3.variances[m] for m in subset], dtype=F64))
    wanted = 0.5 * (covariance.diagonal().log().sum() - torch.logdet(covariance))
    assert LG3.shared_information(subset) == pytest.approx(wanted.item(), abs=1e-12)
    assert LG3.shared_information(subset) >= 0


@pytest.mark.equation("eq-latent-information")
@pytest.mark.parametrize("modalities", [(), (0,), (1,), (0, 1)])
@pytest.mark.parametrize("latent", [0, 1, 2])
def test_information_about_a_latent_by_the_joint_covariance(latent, modalities):
    # I(z_i; x) = 1/2 log (var z_i det C_x / det C_(z_i, x)), of the covariance of z_i and x together
    w = torch.tensor([[1.0, 1.0, 0.0], [2.0, 0.0, -1.0]], dtype=F64)[list(modalities)]
    data = w @ w.T + torch.diag(torch.tensor(LG_PVAE.variances, dtype=F64)[list(modalities)])
    both = torch.cat([torch.cat([torch.ones(1, 1, dtype=F64), w[:, latent][None]], 1), torch.cat([w[:, latent][:, None], data], 1)])
    wanted = 0.5 * (torch.logdet(data) - torch.logdet(both)) if modalities else torch.zeros(())
    assert LG_PVAE.information(latent, modalities) == pytest.approx(wanted.item(), abs=1e-12)


def test_a_style_is_explained_away():
    alone, other, both = (LG_PVAE.information(1, s) for s in ((0,), (1,), (0, 1)))
    assert other == pytest.approx(0, abs=1e-12) and both > alone + other + 0.1
    # about what is shared, two modalities never tell more than the sum of each
    assert LG_PVAE.information(0, (0, 1)) < LG_PVAE.information(0, (0,)) + LG_PVAE.information(0, (1,))


def test_the_evidence_does_not_see_which_latent_is_private():
    # one shared latent and no noise of its own against two latents that add up to the same covariance
    one = PartitionedGaussian(shared=(1.0, 1.0), private=(1.0, 1.0), variances=(1.0, 1.0))
    two = PartitionedGaussian(shared=(1.0, 1.0), private=(0.5, 0.5), variances=(1.75, 1.75))
    x = {0: torch.tensor([0.3, -1.0], dtype=F64), 1: torch.tensor([1.1, 0.2], dtype=F64)}
    assert torch.allclose(one.log_prob(x), two.log_prob(x), atol=1e-12)
    assert one.information(1, (0,)) > two.information(1, (0,)) + 0.1


@pytest.mark.equation("eq-melon")
def test_draws_have_the_covariance_of_one_cause():
    x = torch.stack(list(LG3.sample(200_000, torch.Generator().manual_seed(0)).values()))
    wanted = torch.tensor([[2.0, 2.0, -1.0], [2.0, 5.0, -2.0], [-1.0, -2.0, 1.5]], dtype=F64)
    assert torch.allclose(x.cov(), wanted, atol=0.06) and x.mean(1).abs().max() < 0.02


@pytest.mark.equation("eq-lamp")
def test_evidence_with_private_latents_by_a_sum_over_a_grid():
    # integrate z^s, z^1 and z^2 out on a grid, one modality after the other given z^s
    x, grid = LG_PVAE_OBSERVATION, torch.linspace(-9, 9, 1201, dtype=F64)
    step, prior = grid[1] - grid[0], torch.distributions.Normal(torch.zeros((), dtype=F64), 1.0)
    first = torch.distributions.Normal(grid[:, None] + grid, math.sqrt(0.5)).log_prob(x[0]) + prior.log_prob(grid)
    second = torch.distributions.Normal(2 * grid[:, None] - grid, math.sqrt(0.25)).log_prob(x[1]) + prior.log_prob(grid)
    total = prior.log_prob(grid) + first.logsumexp(1) + second.logsumexp(1) + 3 * step.log()
    assert LG_PVAE.log_prob(x).item() == pytest.approx(total.logsumexp(0).item(), abs=1e-9)


# --- the ELBO


@pytest.mark.equation("eq-linear-elbo")
@pytest.mark.parametrize("subset", SUBSETS)
def test_elbo_by_quadrature(subset):
    q = normal(0.4, 0.3)
    log_q = q.log_prob(GRID[:, None, None])[:, 0]
    wanted = torch.trapezoid(log_q.exp() * (log_joint(subset) - log_q), GRID)
    assert LG3.elbo(readings(subset), q).item() == pytest.approx(wanted.item(), abs=1e-9)


@pytest.mark.equation("eq-gap")
@pytest.mark.parametrize("subset", SUBSETS)
def test_the_gap_is_the_divergence_from_the_posterior(subset):
    x, exact = readings(subset), LG3.posterior(readings(subset))
    for q in (normal(0.4, 0.3), normal(-1.0, 2.0), exact):
        gap = LG3.log_prob(x) - LG3.elbo(x, q)
        assert gap.item() == pytest.approx(kl(q, exact).item(), abs=1e-9)
    assert LG3.elbo(x, exact).item() == pytest.approx(LG3.log_prob(x).item(), abs=1e-12)


def test_elbo_of_a_batch_is_one_number_for_each_item():
    x = LG3.sample(5, torch.Generator().manual_seed(0))
    assert torch.allclose(LG3.elbo(x, LG3.posterior(x)), LG3.log_prob(x), atol=1e-12)


# --- the library's models with exact encoders


def objective(model, n=200_000, seed=0):
    return -model.loss(batch(n), generator=torch.Generator().manual_seed(seed))["loss"].item()


EVIDENCE = {s: LG3.log_prob(readings(s)).item() for s in SUBSETS}
POST = {s: LG3.posterior(readings(s)) for s in SUBSETS}
ALL = (0, 1, 2)
SINGLES = sum(EVIDENCE[(m,)] for m in ALL)


@pytest.mark.parametrize(
    ("kind", "options", "wanted"),
    [
        ("jmvae", {"variant": "joint"}, EVIDENCE[ALL]),
        ("jmvae", {}, EVIDENCE[ALL] - sum(kl(POST[ALL], POST[(m,)]).item() for m in ALL)),
        ("telbo", {}, EVIDENCE[ALL] + SINGLES),
        ("mvae", {"random_subsets": 0}, EVIDENCE[ALL] + SINGLES),
        ("m2vae", {"beta_joint": 0.0}, EVIDENCE[ALL]),
        ("m2vae", {}, -4.3370124),
        ("mmvae", {"bound": "naive", "samples": 1}, -4.302479),
        ("mmvae", {"bound": "loose", "samples": 1}, -4.253542),
        ("mmvae", {"bound": "loose", "samples": 5}, -3.8097),
        ("mmvae", {"bound": "tight", "samples": 5}, -3.7728),
    ],
)
def test_objectives_of_the_library_have_their_known_values(kind, options, wanted):
    found = objective(exact_model(kind, LG3, NAMES, **options))
    assert found == pytest.approx(wanted, abs=0.012)  # more than 4 standard errors of the widest


@pytest.mark.equation("eq-world-posterior")
@pytest.mark.parametrize("kind", KINDS)
def test_the_models_hold_the_exact_posteriors(kind):
    model = exact_model(kind, LG3, NAMES)
    for subset in SUBSETS:
        names = [NAMES[m] for m in subset]
        if kind in ("jmvae", "telbo") and len(subset) == 2 or kind == "mmvae" and len(subset) > 1:
            continue
        q = model.posterior(batch(names=names))["shared"]
        assert kl(q, POST[subset]).item() == pytest.approx(0, abs=1e-12)


def test_widen_multiplies_the_variance_of_every_encoder():
    for subset in (("colour",), ("smell", "firmness"), NAMES):
        x = batch(names=subset) if len(subset) > 1 else batch()[subset[0]]
        honest, wide = (exact_encoder(LG3, NAMES, subset, widen)(x) for widen in (1.0, 3.0))
        assert wide.mean.item() == honest.mean.item() and wide.var.item() == pytest.approx(3 * honest.var.item())
    for kind, key in (("telbo", "smell"), ("mvae", "smell"), ("mmvae", "smell"), ("jmvae", "smell"), ("m2vae", "smell+firmness")):
        encoders = [exact_model(kind, LG3, NAMES, widen).encoders[key] for widen in (1.0, 3.0)]
        gap = encoders[1].logvar - encoders[0].logvar
        assert gap.item() == pytest.approx(math.log(3))
    assert exact_model("telbo", LG3, NAMES, 3.0).joint_encoder.logvar.item() == pytest.approx(math.log(3 / 8))


def test_what_the_helper_refuses():
    with pytest.raises(KeyError, match="unknown kind 'vae'"):
        exact_model("vae", LG3, NAMES)
    with pytest.raises(ValueError, match="wanted 3 different ones"):
        exact_model("telbo", LG3, NAMES[:2])
    two = LinearGaussian(weights=(1.0, 2.0), variances=(1.0, 1.0))
    assert objective_of_two(two) == pytest.approx(EVIDENCE[(0, 1)], abs=1e-6)


def objective_of_two(world):
    model = exact_model("jmvae", world, NAMES[:2], variant="joint")
    return model.log_likelihood(batch(names=NAMES[:2]), samples=3, chunk=3).item()
