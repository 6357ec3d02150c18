"""Divergences of each latent dimension, against quadrature and worked numbers."""

import itertools
import math

import pytest
import torch

from mmvae_lite.distributions import Concrete, Laplace, Normal, kl
from mmvae_lite.evaluation.latents import expert_divergences, per_dimension_kl, symmetric_kl
from mmvae_lite.models import MMVAE
from tests.linear import F64, Affine, lg_mvae, lg_parts, observation
from tests.test_dmvae_d import linear as lg_dmvae_d
from tests.test_pvae import lg_batch, lg_pvae

PAIR = ("first", "second")


def normal(mean, var):
    return Normal(torch.tensor([float(mean)], dtype=F64), torch.tensor([math.log(var)], dtype=F64))


def laplace(loc, scale):
    return Laplace(torch.tensor([float(loc)], dtype=F64), torch.tensor([float(scale)], dtype=F64))


DENSITIES = [normal(0, 1), normal(1.3, 0.4), laplace(0, 0.75), laplace(-0.6, 1.5), laplace(1.3, 0.2)]


@pytest.mark.parametrize("q, p", list(itertools.permutations(DENSITIES, 2)))
def test_every_pair_of_families_against_quadrature(q, p):
    z = torch.linspace(-60, 60, 1_200_001, dtype=F64)[:, None]
    log_q, log_p = q.log_prob(z), p.log_prob(z)
    wanted = ((log_q.exp() * (log_q - log_p)).sum() * 120 / 1_200_000).item()
    assert per_dimension_kl(q, p).item() == pytest.approx(wanted, abs=1e-6)


def test_known_answers():
    assert per_dimension_kl(normal(1, 0.5), normal(0, 1)).item() == pytest.approx(0.5965736, abs=1e-7)
    same = Laplace(torch.zeros(2, 3), torch.ones(2, 3))
    assert torch.equal(per_dimension_kl(same, same), torch.zeros(2, 3)) and torch.equal(symmetric_kl(same, same), torch.zeros(2, 3))
    # two unit Normals a distance d apart differ by d^2 / 2 in either direction
    assert symmetric_kl(normal(0, 1), normal(3, 1)).item() == pytest.approx(4.5)
    a, b = laplace(0, 0.5), laplace(1, 2)
    assert symmetric_kl(a, b).item() == symmetric_kl(b, a).item() == pytest.approx(0.5 * (kl(a, b) + kl(b, a)).item())


def test_dimensions_add_up_and_stay_apart():
    g = torch.Generator().manual_seed(0)
    q, p = (Normal(torch.randn(5, 4, generator=g), torch.randn(5, 4, generator=g)) for _ in range(2))
    each = per_dimension_kl(q, p)
    assert each.shape == (5, 4) and torch.allclose(each.sum(-1), kl(q, p))
    moved = Normal(q.mean + torch.tensor([0.0, 5, 0, 0]), q.logvar)
    assert ((per_dimension_kl(moved, p) - each).abs() > 1e-6).tolist() == [[False, True, False, False]] * 5


def test_the_experts_of_a_mixture_are_compared_with_the_prior_and_with_each_other():
    model = MMVAE({"first": Affine(0, 1.0, 0.5), "second": Affine(0, 0.0, 1.0)}, **lg_parts(PAIR), prior="normal", learn_prior=False)
    rows = expert_divergences(model, observation(PAIR, 4))
    assert {name: x.shape for name, x in rows.items()} == {"first": (1,), "second": (1,), "first | second": (1,)}
    assert rows["first"].item() == pytest.approx(0.5965736, abs=1e-7)  # the other one is the prior
    assert rows["second"].item() == pytest.approx(0, abs=1e-12)
    assert rows["first | second"].item() == pytest.approx(0.5 * (0.5965736 + 0.5 * (math.log(0.5) + (1 + 1) / 0.5 - 1)), abs=1e-7)


def test_an_encoder_that_says_nothing_is_caught_in_every_dimension():
    """What a collapsed posterior looks like: zero everywhere, whatever the picture."""
    model = MMVAE({n: Affine(0, 0.0, 1.0) for n in PAIR}, **lg_parts(PAIR), prior="normal", learn_prior=False)
    assert all(x.abs().max() < 1e-12 for x in expert_divergences(model, observation(PAIR, 4)).values())
    assert all(x.min() > 0.01 for x in expert_divergences(lg_mvae(PAIR), observation(PAIR, 4)).values())


def test_models_with_styles_report_them():
    model, batch = lg_pvae(), lg_batch(3)
    one, two = model.modalities
    rows = expert_divergences(model, batch)
    assert set(rows) == {one, two, f"{one} | {two}", f"private/{one}", f"private/{two}"}
    q = model.posterior({one: batch[one]})
    assert torch.allclose(rows[f"private/{one}"].sum(), kl(q[f"private/{one}"], model.prior(f"private/{one}", 3)).mean())
    rows = expert_divergences(lg_dmvae_d(PAIR), observation(PAIR, 3))
    assert "first | second" in rows and "first" not in rows and "private/first" in rows


def test_concrete_variables_have_one_number_each():
    q, p = Concrete(torch.tensor([[[0.0, 0], [50, 0]]]), 0.5), Concrete.uniform(1, 2, 2, temperature=0.5)
    assert per_dimension_kl(q, p)[0].tolist() == pytest.approx([0, math.log(2)], abs=1e-6)
    with pytest.raises(TypeError, match="found a Concrete and a Normal"):
        per_dimension_kl(q, Normal.standard(1, 2))
