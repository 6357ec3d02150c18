"""The ex-post mixture against torch.distributions and scikit-learn, on models of several kinds, and bad input."""

import itertools
import math

import pytest
import torch

from mmvae_lite.ex_post import ExPostDensity
from mmvae_lite.models import DMVAE_L, MMVAE, MVAE, VAE
from mmvae_lite.networks import LaplaceEncoder, SplitEncoder, dense_trunk
from tests.kinds import LATENT, encoder, items, parts, size

D = torch.distributions


def clusters(n=600, seed=0):
    g = torch.Generator().manual_seed(seed)
    centres = torch.tensor([[4.0, 0, 0], [0, 4, 0], [0, 0, 4]], dtype=torch.float64)
    mixing = torch.tensor([[1, 0.5, 0], [0, 0.7, 0.2], [0, 0, 0.5]], dtype=torch.float64)
    return centres[torch.randint(3, (n,), generator=g)] + torch.randn(n, 3, generator=g, dtype=torch.float64) @ mixing


@pytest.mark.equation("eq-ex-post")
def test_log_prob_is_that_of_a_mixture_of_full_gaussians():
    density, z = ExPostDensity.fit(clusters(), components=3), clusters(50, seed=1)
    covariances = density.factors @ density.factors.mT
    families = D.MixtureSameFamily(D.Categorical(density.weights), D.MultivariateNormal(density.means, covariances))
    assert torch.allclose(density.log_prob(z), families.log_prob(z), rtol=1e-10)
    assert density.log_prob(z.reshape(5, 10, 3)).shape == (5, 10)
    assert torch.equal(density.log_prob(z.reshape(5, 10, 3)).flatten(), density.log_prob(z))


def test_the_fit_is_scikit_learn_s():
    from sklearn.mixture import GaussianMixture

    z = clusters()
    theirs = GaussianMixture(3, covariance_type="full", max_iter=2000, tol=1e-9, random_state=0).fit(z.numpy())
    ours = ExPostDensity.fit(z, components=3, tol=1e-9)
    mine, other = (torch.as_tensor(means).amax(1).argsort() for means in (ours.means, theirs.means_))
    for found, wanted in ((ours.weights, theirs.weights_), (ours.means, theirs.means_), (ours.factors @ ours.factors.mT, theirs.covariances_)):
        assert torch.allclose(found[mine], torch.as_tensor(wanted)[other], atol=1e-4)
    assert ours.log_prob(z).mean().item() == pytest.approx(theirs.score(z.numpy()), rel=1e-9)
    shares = ours.responsibilities(z)
    assert torch.allclose(shares[:, mine], torch.as_tensor(theirs.predict_proba(z.numpy()))[:, other], atol=1e-4)


def tangled(n=1500, seed=0):
    """Points of eight narrow strips that cross, which an unlucky start does not take apart."""
    g = torch.Generator().manual_seed(seed)
    turn = torch.arange(8, dtype=torch.float64) * math.pi / 8
    k = torch.randint(8, (n,), generator=g)
    along, across = (torch.randn(n, generator=g, dtype=torch.float64) * s for s in (2.0, 0.05))
    return torch.stack([along * turn[k].cos() - across * turn[k].sin(), along * turn[k].sin() + across * turn[k].cos()], 1)


def test_more_starts_are_better_and_as_good_as_scikit_learn_s():
    from sklearn.mixture import GaussianMixture

    z = tangled() + 30  # far from the origin, where squares multiplied out would cancel
    one, ten = (ExPostDensity.fit(z, 8, tol=1e-5, restarts=n).log_prob(z).mean().item() for n in (1, 10))
    theirs = GaussianMixture(8, max_iter=2000, tol=1e-5, n_init=10, random_state=0).fit(z.numpy()).score(z.numpy())
    assert one + 0.01 < ten and ten > theirs - 0.05
    twice = [ExPostDensity.fit(z, 8, restarts=2, seed=3).means for _ in range(2)]
    assert torch.equal(*twice)


@pytest.mark.equation("eq-em")
def test_every_round_is_more_likely():
    z = tangled(600)
    values = [ExPostDensity.fit(z, 8, max_iter=n, tol=0, restarts=1).log_prob(z).mean().item() for n in (1, 2, 5, 20, 60)]
    assert values == sorted(values) and values[-1] > values[0] + 0.1


def test_one_component_is_the_gaussian_of_the_data():
    z = clusters()
    density = ExPostDensity.fit(z, components=1)
    assert torch.allclose(density.means[0], z.mean(0))
    assert torch.allclose(density.factors[0] @ density.factors[0].T, z.T.cov(correction=0), atol=1e-5)


def test_draws_follow_the_density_and_the_generator():
    density = ExPostDensity.fit(clusters(), components=3)
    draws = density.sample(20_000, torch.Generator().manual_seed(1))
    assert torch.equal(draws, density.sample(20_000, torch.Generator().manual_seed(1)))
    covariances = density.factors @ density.factors.mT
    mean = density.weights @ density.means
    second = (density.weights[:, None, None] * (covariances + density.means[:, :, None] * density.means[:, None])).sum(0)
    assert torch.allclose(draws.mean(0), mean, atol=4 * draws.std(0).max().item() / 20_000**0.5)
    assert torch.allclose(draws.T.cov(), second - torch.outer(mean, mean), atol=0.2)


def test_a_hundred_components_are_the_default():
    density = ExPostDensity.fit(clusters(400))
    assert density.weights.shape == (100,) and density.factors.shape == (100, 3, 3)
    assert density.weights.sum().item() == pytest.approx(1)
    assert torch.isfinite(density.log_prob(clusters(20, seed=2))).all()


def test_it_fits_any_model_s_shared_latent_whatever_the_chunk():
    names = ("image", "label")
    torch.manual_seed(0)
    mvae = MVAE({m: encoder((m,)) for m in names}, **parts(names)).double()
    pieces = {k: v["image"] if isinstance(v, dict) else v for k, v in parts(("image",)).items()}
    vae = VAE(encoder(("image",)), pieces["decoders"], pieces["likelihoods"], 3).double()
    for model, data in ((mvae, items(names, 60)), (vae, items(("image",), 60))):
        one, two = (ExPostDensity.of(model, data, components=2, chunk=c) for c in (60, 7))
        assert torch.allclose(one.means, two.means)
        few = ExPostDensity.of(model, data, items=30, components=1)
        assert torch.allclose(few.means[0], model.posterior({k: v[:30] for k, v in data.items()})["shared"].mean.mean(0))
        decoded = model.decode({"shared": one.sample(5, torch.Generator().manual_seed(0))})
        assert decoded["image"].shape == (5, 1, 4, 4) and not one.means.requires_grad


def test_it_reads_the_model_in_evaluation_mode_and_leaves_its_mode():
    torch.manual_seed(0)
    pieces = {k: v["image"] if isinstance(v, dict) else v for k, v in parts(("image",)).items()}
    noisy = encoder(("image",))
    noisy.trunk = torch.nn.Sequential(noisy.trunk, torch.nn.BatchNorm1d(8), torch.nn.Dropout(0.5))
    model, data = VAE(noisy, pieces["decoders"], pieces["likelihoods"], LATENT).double(), items(("image",), 40)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    one, two = (ExPostDensity.of(model, data, components=1, chunk=c) for c in (40, 9))
    assert torch.allclose(one.means, two.means) and model.training
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    model.eval()
    ExPostDensity.of(model, data, components=1)
    assert not model.training


def test_of_a_mixture_it_takes_every_expert_and_of_classes_nothing():
    names, data = ("image", "label"), items(("image", "label"), 40)
    torch.manual_seed(0)
    experts = {m: LaplaceEncoder(dense_trunk([size(m), 8]), 8, LATENT) for m in names}
    mmvae = MMVAE(experts, **parts(names)).double()
    found = ExPostDensity.of(mmvae, data, components=1).means[0]
    means = torch.cat([mmvae.encoders[m](data[m]).loc for m in names])
    assert torch.allclose(found, means.mean(0))

    classes = {m: SplitEncoder(dense_trunk([size(m), 8]), 8, 0, (1, 3)) for m in names}
    dmvae = DMVAE_L(classes, parts(names)["decoders"], parts(names)["likelihoods"], dict.fromkeys(names, 0), (1, 3), 40).double()
    with pytest.raises(TypeError, match="the shared latent is a Concrete, wanted a continuous one; sample its prior"):
        ExPostDensity.of(dmvae, data, components=1)


def test_saved_and_loaded_bit_for_bit(tmp_path):
    density = ExPostDensity.fit(clusters(), components=3)
    density.save(tmp_path / "c.safetensors")
    again = ExPostDensity.load(tmp_path / "c.safetensors")
    for part, dtype in itertools.product(("weights", "means", "factors"), (torch.float64,)):
        assert torch.equal(getattr(again, part), getattr(density, part)) and getattr(again, part).dtype == dtype
    assert [p.name for p in tmp_path.iterdir()] == ["c.safetensors"]
    assert again.to(torch.zeros(1)).means.dtype == torch.float32


def test_bad_latents_and_files_are_named(as_a_reader, tmp_path):
    from safetensors.torch import save_file

    with pytest.raises(ValueError, match="found 12 latents for 100 components, wanted at least 100"):
        ExPostDensity.fit(clusters(12))
    with pytest.raises(ValueError, match="hold NaN or infinity"):
        ExPostDensity.fit(clusters().index_fill(0, torch.tensor([3]), float("nan")), components=2)
    with pytest.raises(ValueError, match=r"found latents of shape \[12\], wanted \[items, latent\]"):
        ExPostDensity.fit(clusters(12)[:, 0], components=2)
    for data, kind in (({}, "dict"), ([torch.ones(9, 2)], "list")):
        with pytest.raises(ValueError, match=f"the data are an empty or nameless {kind}, wanted a dict"):
            ExPostDensity.of(torch.nn.Identity(), data)
    with pytest.raises(ValueError, match="found 2 distinct latents for 3 components; the latent has collapsed"):
        ExPostDensity.fit(torch.eye(2).repeat(9, 1), components=3)
    with pytest.raises(ValueError, match="components: found 0"):
        ExPostDensity.fit(clusters(), components=0)
    with pytest.raises(ValueError, match=r"found \[3\] weights"):
        ExPostDensity(torch.ones(3), torch.zeros(2, 4), torch.zeros(2, 4, 4))
    with pytest.raises(FileNotFoundError, match="none.safetensors: no such file"):
        ExPostDensity.load(tmp_path / "none.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"broken")
    with pytest.raises(ValueError, match="broken.safetensors is broken"):
        ExPostDensity.load(tmp_path / "broken.safetensors")
    save_file({"a": torch.ones(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="found format None"):
        ExPostDensity.load(tmp_path / "other.safetensors")
    with pytest.raises(OSError, match="could not be written"):
        ExPostDensity.fit(clusters(), components=1).save(tmp_path / "no such folder" / "c.safetensors")
