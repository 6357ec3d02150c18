"""The VAE on LG3, where its bound is known, and what it says to bad input."""

import math

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from mmvae_lite.data import LG3
from mmvae_lite.distributions import BernoulliLikelihood, NormalLikelihood
from mmvae_lite.models import VAE
from mmvae_lite.networks import image_decoder, image_encoder
from mmvae_lite.training import fit
from tests import kinds
from tests.linear import F64, Affine, all_three, lg_vae, linear_decoder

LOG_P = -3.7624627802


def mean_and_error(model, batch, repeats=40):
    g = torch.Generator().manual_seed(0)
    with torch.no_grad():
        values = torch.stack([-model.loss(batch, generator=g)["loss"] for _ in range(repeats)])
    return values.mean().item(), 4 * values.std().item() / math.sqrt(repeats)


@pytest.mark.equation("eq-elbo")
def test_the_exact_posterior_makes_the_bound_the_evidence():
    # p(z | x) of LG3's first modality is N(x / 2, 1/2)
    model = VAE(Affine(0.5, 0, 0.5), linear_decoder(1.0), NormalLikelihood(1.0), 1, modality="first")
    batch = {"first": torch.ones(20_000, 1, dtype=F64)}
    bound, error = mean_and_error(model, batch)
    assert bound == pytest.approx(-1.5155121, abs=error)
    exact = LG3.log_prob({0: torch.ones(1)}).item()
    assert model.log_likelihood({"first": batch["first"][:3]}, samples=2).tolist() == pytest.approx([exact] * 3, abs=1e-10)


@pytest.mark.equation("eq-elbo")
def test_a_wrong_posterior_costs_its_divergence_from_the_truth():
    bound, error = mean_and_error(lg_vae(0.4, 0.3), all_three(20_000))
    assert bound == pytest.approx(-4.2272284, abs=error)
    assert error < 0.01


def test_more_importance_samples_tighten_the_likelihood():
    model, batch, g = lg_vae(0.4, 0.3), all_three(4000), torch.Generator().manual_seed(0)
    found = [model.log_likelihood(batch, k, chunk=33, generator=g).mean().item() for k in (1, 2, 10, 500)]
    assert found == pytest.approx([-4.2272, -3.9095, -3.7824, -3.7626], abs=0.05)
    assert found == sorted(found) and found[-1] <= LOG_P + 0.002


def test_beta_zero_leaves_the_reconstruction():
    terms = lg_vae(0.4, 0.3, beta=0.0).loss(all_three())
    assert -terms["loss"].item() == pytest.approx(terms["recon/all"].item())
    assert terms["kl"].item() > 0


def test_gradient_of_the_log_variance_equals_finite_differences():
    model, batch = lg_vae(0.4, 0.3), all_three(16)

    def loss():
        return model.loss(batch, generator=torch.Generator().manual_seed(3))["loss"]

    (grad,) = torch.autograd.grad(loss(), model.encoder.logvar)
    h, values = 1e-5, []
    for sign in (1, -1):
        with torch.no_grad():
            model.encoder.logvar += sign * h
            values.append(loss().item())
            model.encoder.logvar -= sign * h
    assert grad.item() == pytest.approx((values[0] - values[1]) / (2 * h), abs=1e-6)


def image_vae():
    return VAE(image_encoder(4, (16, 16)), image_decoder(4, (16, 16)), BernoulliLikelihood(), 4)


def test_verbs_have_the_promised_shapes_even_for_one_item():
    model, g = image_vae(), torch.Generator().manual_seed(0)
    batch = {"image": torch.rand(1, 1, 28, 28)}
    assert model.posterior(batch)["shared"].mean.shape == (1, 4)
    assert model.sample(3, g)["image"].shape == (3, 1, 28, 28)
    assert model.translate(batch, "image", sample=True, generator=g).shape == (1, 1, 28, 28)
    walk = model.traverse({"shared": torch.zeros(4)}, 2, torch.linspace(-3, 3, 7))["image"]
    assert walk.shape == (7, 1, 28, 28)
    assert bool((walk >= 0).all()) and bool((walk <= 1).all()) and not torch.equal(walk[0], walk[-1])


def test_a_target_can_differ_from_the_input():
    model, noisy, clean = image_vae(), {"image": torch.rand(2, 1, 28, 28)}, {"image": torch.zeros(2, 1, 28, 28)}
    one, two = (model.loss(noisy, target=t, generator=torch.Generator().manual_seed(0)) for t in (None, clean))
    assert one["kl"].item() == two["kl"].item() and one["loss"].item() != two["loss"].item()


def test_bad_input_is_named():
    model = image_vae()
    with pytest.raises(NotImplementedError, match="no private style"):
        model.swap({}, {})
    with pytest.raises(KeyError, match="did you mean 'image'"):
        model.loss({"imag": torch.rand(2, 1, 28, 28)})
    with pytest.raises(ValueError, match="one modality, so no item"):
        model.loss({"image": torch.rand(2, 1, 28, 28)}, observed={})
    with pytest.raises(ValueError, match="latent_dim: found 0"):
        VAE(nn.Identity(), nn.Identity(), BernoulliLikelihood(), 0)
    with pytest.raises(IndexError, match="found 9, wanted 0 to 3"):
        model.traverse({"shared": torch.zeros(4)}, 9, torch.zeros(2))
    with pytest.raises(ValueError, match="samples: found 0"):
        model.log_likelihood({"image": torch.rand(2, 1, 28, 28)}, samples=0)


# --- recomputation, properties, training, files


def of_kind(name, seed=0, **options):
    torch.manual_seed(seed)
    return VAE(kinds.encoder((name,)), kinds.parts((name,))["decoders"][name], kinds.KINDS[name][1], kinds.LATENT, name, **options)


class One:
    """A VAE as `kinds.log_px` wants it."""

    def __init__(self, model):
        self.decoders, self.likelihoods = {model.modality: model.decoder}, {model.modality: model.likelihood}


@pytest.mark.parametrize("name", ["image", "speech", "caption"])
@pytest.mark.equation("eq-elbo")
def test_loss_and_gradient_equal_an_independent_recomputation(name):
    model, x, eps, total = of_kind(name, beta=0.7).double(), kinds.items((name,), n=5)[name], kinds.noise(5, kinds.LATENT, seed=7), 0.0
    found = model.loss({name: x}, generator=torch.Generator().manual_seed(7))["loss"]
    for i in range(5):
        q = kinds.density(model.encoder(x[i : i + 1]), 0)
        log_px = kinds.log_px(One(model), name, q.loc + q.scale * eps[i], x[i])
        total = total + log_px - 0.7 * kinds.divergence(q, torch.distributions.Normal(0.0, 1.0))
    assert found.item() == pytest.approx(-total.item() / 5, rel=1e-12)
    kinds.assert_same_gradients(found, -total / 5, model.parameters())


def test_likelihood_of_a_batch_is_the_sum_of_its_singles_whatever_the_chunking(monkeypatch):
    model, x, eps = lg_vae(0.4, 0.3), torch.randn(4, 3, dtype=F64), torch.randn(8, 4, 1, dtype=F64)

    def with_chunks_of(size):
        pool = iter(eps)  # the same draws, however many are taken at a time
        monkeypatch.setattr("mmvae_lite.distributions._noise", lambda samples, like, generator: torch.stack([next(pool) for _ in range(samples[0])]))
        return model.log_likelihood({"all": x}, 8, size)

    normal = torch.distributions.Normal
    z = 0.4 + math.sqrt(0.3) * eps
    log_w = normal(z * torch.tensor(LG3.weights, dtype=F64), torch.tensor(LG3.variances, dtype=F64).sqrt()).log_prob(x).sum(-1)
    log_w = log_w + (normal(0.0, 1.0).log_prob(z) - normal(0.4, math.sqrt(0.3)).log_prob(z)).sum(-1)
    for size in (8, 4, 3, 1, 100):
        assert torch.allclose(with_chunks_of(size), log_w.logsumexp(0) - math.log(8))
    monkeypatch.undo()
    exact = VAE(Affine(0.5, 0, 0.5), linear_decoder(1.0), NormalLikelihood(1.0), 1, modality="first")
    whole = exact.log_likelihood({"first": x[:, :1]}, samples=3)
    singles = torch.cat([exact.log_likelihood({"first": x[i : i + 1, :1]}, samples=5, chunk=2) for i in range(4)])
    assert torch.allclose(whole, singles, atol=1e-12)


@pytest.mark.parametrize("name", kinds.KINDS)
def test_it_learns_every_kind_of_modality(name, tmp_path):
    model, data = of_kind(name, **VAE.PRESETS["paper"]), kinds.items((name,), n=40, dtype=torch.float32)
    history = fit(model, data, epochs=8, batch_size=20, lr=1e-2, device="cpu", progress=False)
    assert history["loss"][-1] < history["loss"][0]
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    again = of_kind(name, seed=1)
    again.load_state_dict(load_file(tmp_path / "model.safetensors"))
    again.eval()
    assert torch.equal(again.translate(data, name), model.translate(data, name))
