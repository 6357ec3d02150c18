"""What the chapter on PVAE relies on: networks that one core trains and a page decodes, and the experiment made of them."""

import math

import torch

from mmvae_lite.distributions import NormalLikelihood
from mmvae_lite.experiments import find
from mmvae_lite.experiments.pvae import quick_jmvae_networks, quick_networks
from mmvae_lite.explore import export_decoders, page_decoders
from mmvae_lite.models import JMVAE, PVAE

BOTH = ("speech", "image")


def batch(n=3):
    g = torch.Generator().manual_seed(0)
    return {"speech": torch.randn(n, 100, 80, generator=g), "image": torch.rand(n, 1, 28, 28, generator=g)}


def families():
    return {m: NormalLikelihood(1.0) for m in BOTH}


def test_quick_networks_fit_the_data_and_a_page():
    torch.manual_seed(0)
    model = PVAE(**quick_networks(3, 5, 16), likelihoods=families(), private_dim=3, shared_dim=5)
    assert model.event_shapes == {"speech": (100, 80), "image": (1, 28, 28)}
    terms = model.loss(batch(), generator=torch.Generator().manual_seed(0))
    assert math.isfinite(terms["loss"].item())
    assert {tuple(r["shared"].mean.shape) for r in model.unimodal(batch()).values()} == {(3, 5)}
    one = JMVAE(**quick_jmvae_networks(7, 16), likelihoods=families(), latent_dim=7, variant="kl")
    assert math.isfinite(one.loss(batch(), generator=torch.Generator().manual_seed(0))["loss"].item())
    exported = export_decoders(page_decoders(PVAE(**quick_networks(6, 8), likelihoods=families(), private_dim=6, shared_dim=8)))
    assert len(exported.weights) <= 1_000_000


def test_the_quick_experiment_takes_its_settings():
    experiment = find("pvae_quick-speech", contrast=0.0, private=3, updates=50)
    data = experiment.data("smoke", 0)
    model, training = experiment.model("smoke", data), experiment.training("lite", data, 0)
    assert (model.alpha_cm, model.alpha_ch, model.private_dims["speech"], model.shared_dim) == (0.0, 0.1, 3, 8)
    assert training.epochs == math.ceil(50 / math.ceil(len(data.train) / training.batch_size))
    assert experiment.metrics == find("pvae-speech").metrics
