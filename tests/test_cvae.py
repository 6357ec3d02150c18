"""CVAE against exact posteriors and a plain VAE, its table's networks, and the sampler of entangled data."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn

from mmvae_lite.data import entangle, shuffle_within_classes, truncated_normal
from mmvae_lite.data.entangled import RADII
from mmvae_lite.distributions import BernoulliLikelihood, Normal, NormalLikelihood
from mmvae_lite.models import CVAE, MODELS, VAE
from mmvae_lite.networks import ConditionalEncoder, cvae_decoder, cvae_encoder, dense_decoder, dense_trunk
from mmvae_lite.training import fit
from tests import kinds
from tests.linear import F64, two_point_noise

NAMES = ("image", "label")
OFFSETS = torch.tensor([0.5, -1.0, 2.0], dtype=F64)


def make(modality="image", latent=kinds.LATENT, seed=0, hidden=8, **options):
    torch.manual_seed(seed)
    encoder = ConditionalEncoder(
        dense_trunk([kinds.size(modality), hidden]), nn.Sequential(nn.Linear(hidden + 3, hidden), nn.ReLU()), hidden, latent
    )
    decoder = dense_decoder([latent + 3, hidden, kinds.size(modality)], kinds.KINDS[modality][0])
    return CVAE(encoder, decoder, kinds.KINDS[modality][1], latent, 3, modality, **options).double()


def loss(model, batch=None, seed=0, **more):
    return model.loss(batch or kinds.items(NAMES), generator=torch.Generator().manual_seed(seed), **more)


# --- known answers


class LinearClass(nn.Module):
    """The exact p(z | x, C) of x = z + offset_C + noise with variance 1, which is N((x - offset_C) / 2, 1 / 2)."""

    def forward(self, x, label):
        mean = (x - label @ OFFSETS[:, None]) / 2
        return Normal(mean, torch.full_like(mean, math.log(0.5)))


def linear_cvae(**options):
    decoder = nn.Linear(4, 1, bias=False, dtype=F64)
    decoder.weight.data = torch.cat([torch.ones(1, dtype=F64), OFFSETS])[None]
    return CVAE(LinearClass(), decoder, NormalLikelihood(1.0), 1, 3, "x", **options)


def linear_batch():
    classes = torch.arange(3).repeat_interleave(2)
    return {"x": torch.tensor([1.0, 1.0, -0.3, -0.3, 4.0, 4.0], dtype=F64)[:, None], "label": torch.eye(3, dtype=F64)[classes]}


def test_the_exact_posterior_makes_the_bound_the_conditional_evidence(monkeypatch):
    model, batch = linear_cvae(), linear_batch()
    exact = torch.distributions.Normal(batch["label"] @ OFFSETS, math.sqrt(2)).log_prob(batch["x"][:, 0])
    assert model.log_likelihood(batch, samples=3, chunk=2).tolist() == pytest.approx(exact.tolist(), abs=1e-12)
    monkeypatch.setattr("mmvae_lite.distributions._noise", two_point_noise)
    assert -model.loss(batch)["loss"].item() == pytest.approx(exact.mean().item(), abs=1e-12)


class Given(nn.Module):
    """An encoder with its class built in."""

    def __init__(self, encoder, label):
        super().__init__()
        self.encoder, self.label = encoder, label

    def forward(self, x):
        return self.encoder(x, self.label.expand(len(x), -1))


def test_with_one_class_it_is_a_vae():
    model, label = make(beta=1.7), torch.eye(3, dtype=F64)[1]
    decoder = dense_decoder([kinds.LATENT, 8, 16], (1, 4, 4)).double()
    decoder.load_state_dict(model.decoder.state_dict() | {"0.weight": model.decoder[0].weight[:, : kinds.LATENT]})
    decoder[0].bias.data = model.decoder[0].bias.data + model.decoder[0].weight.data[:, kinds.LATENT + 1]
    vae = VAE(Given(model.encoder, label), decoder, BernoulliLikelihood(), kinds.LATENT, beta=1.7)
    image = kinds.items(("image",))
    found, plain = loss(model, image | {"label": label.expand(12, 3)}), loss(vae, image)
    assert found.keys() == plain.keys()
    assert {k: v.item() for k, v in found.items()} == pytest.approx({k: v.item() for k, v in plain.items()}, rel=1e-12)


@settings(max_examples=6, deadline=None)
@given(order=st.permutations(range(3)))
def test_renaming_the_classes_leaves_the_loss_unchanged(order):
    one, two, order = make(), make(), list(order)
    with torch.no_grad():
        for layer, start in ((two.encoder.merge[0], 8), (two.decoder[0], kinds.LATENT)):
            layer.weight[:, start:] = layer.weight[:, start:][:, order].clone()
    batch = kinds.items(NAMES)
    renamed = {**batch, "label": batch["label"][:, order]}
    assert loss(one, batch)["loss"].item() == pytest.approx(loss(two, renamed)["loss"].item(), rel=1e-12)


def test_without_beta_the_prior_does_not_matter(monkeypatch):
    for beta, same in ((0.0, True), (1.0, False)):
        model = make(beta=beta)
        before = loss(model)["loss"].item()
        monkeypatch.setattr(CVAE, "prior", lambda self, n: Normal(torch.full((n, 3), 2.0, dtype=F64), torch.ones(n, 3, dtype=F64)))
        assert (loss(model)["loss"].item() == before) is same
        monkeypatch.undo()


# --- an independent second computation


@pytest.mark.equation("eq-cvae")
@pytest.mark.parametrize("modality", ["image", "speech", "caption"])
def test_loss_and_gradient_equal_an_independent_recomputation(modality):
    model, batch = make(modality, beta=4.0), kinds.items((modality, "label"), n=5)
    target = {modality: kinds.items((modality,), n=6)[modality][1:]}
    found, eps, total = loss(model, batch, seed=7, target=target)["loss"], kinds.noise(5, kinds.LATENT, seed=7), 0.0
    for i in range(5):
        c = batch["label"][i : i + 1]
        q = kinds.density(model.encoder(batch[modality][i : i + 1], c), 0)
        z = torch.cat([q.loc + q.scale * eps[i], c[0]])
        stand_in = type("M", (), {"decoders": {modality: model.decoder}, "likelihoods": {modality: model.likelihood}})
        total = total + kinds.log_px(stand_in, modality, z, target[modality][i]) - 4 * kinds.divergence(q, torch.distributions.Normal(0.0, 1.0))
    assert found.item() == pytest.approx(-total.item() / 5, rel=1e-12)
    kinds.assert_same_gradients(found, -total / 5, model.parameters())


# --- verbs


def test_verbs_work_for_one_item():
    model, g, batch = make(), torch.Generator().manual_seed(0), kinds.items(NAMES, n=1)
    assert math.isfinite(loss(model, batch)["loss"].item())
    assert model.posterior({}, n=4)["shared"].mean.shape == (4, 3)
    label = torch.eye(3, dtype=F64)
    assert model.sample(5, g, label=label[0])["image"].shape == (5, 1, 4, 4) == model.sample(5, g, label=label[[0, 1, 2, 0, 1]])["image"].shape
    walk = model.traverse({"shared": torch.zeros(3, dtype=F64), "label": label[2]}, 1, torch.linspace(-2, 2, 7, dtype=F64))["image"]
    assert walk.shape == (7, 1, 4, 4) and not torch.equal(walk[0], walk[-1])
    assert model.translate(batch, "image", sample=True, generator=g).shape == (1, 1, 4, 4)


def test_a_label_alone_gives_the_prior_and_its_mean_picture():
    model, batch = make(), kinds.items(("label",), n=4)
    assert model.posterior(batch)["shared"].mean.abs().max().item() == 0
    expected = model.decode({"shared": torch.zeros(4, 3, dtype=F64), "label": batch["label"]})["image"]
    assert torch.equal(model.translate(batch, "image"), expected)


def test_swap_takes_the_class_of_one_and_the_latent_of_the_other():
    model, batch = make(), kinds.items(NAMES, n=4)
    other = {m: x.roll(1, 0) for m, x in batch.items()}
    z = model.encoder(other["image"], other["label"]).mean
    assert torch.equal(model.swap(batch, other)["image"], model.decoder(torch.cat([z, batch["label"]], -1)).sigmoid())
    assert torch.allclose(model.swap(batch, batch)["image"], model.translate(batch, "image"))


def test_order_of_items_changes_no_posterior():
    model, batch, rows = make(), kinds.items(NAMES), [3, 1, 0, 2]
    one, two = model.posterior(batch)["shared"], model.posterior({m: batch[m][rows] for m in reversed(NAMES)})["shared"]
    assert torch.allclose(one.mean[rows], two.mean) and torch.allclose(one.logvar[rows], two.logvar)


def test_likelihood_of_a_batch_is_the_sum_of_its_singles_whatever_the_chunking():
    batch = linear_batch()
    whole = linear_cvae().log_likelihood(batch, samples=6, chunk=4)
    singles = torch.cat([linear_cvae().log_likelihood({k: x[i : i + 1] for k, x in batch.items()}, samples=2, chunk=1) for i in range(6)])
    assert torch.allclose(whole, singles, atol=1e-12)
    found = [make().log_likelihood(kinds.items(NAMES), 8, chunk, torch.Generator().manual_seed(0)) for chunk in (8, 4)]
    assert torch.allclose(*found)


# --- training, files, networks


@pytest.mark.parametrize("modality", ["image", "speech", "caption", "attributes"])
def test_it_learns_every_kind_of_modality(modality, tmp_path):
    model, data = make(modality).float(), kinds.items((modality, "label"), n=40, dtype=torch.float32)
    history = fit(model, data, epochs=8, batch_size=20, lr=1e-2, device="cpu", progress=False)
    assert history["loss"][-1] < history["loss"][0]
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    again = make(modality, seed=1).float()
    again.load_state_dict(load_file(tmp_path / "model.safetensors"))
    again.eval()
    assert torch.equal(again.translate(data, modality), model.translate(data, modality))


def test_the_networks_of_the_paper_have_the_sizes_of_its_table():
    encoder, decoder = cvae_encoder(), cvae_decoder()
    sizes = [2 * 2 + 1, 64 * 4 + 64, 64 * 64 * 9 + 64, 64 * 64 * 9 + 64, (14 * 14 * 64 + 10) * 128 + 128, 128 * 4 + 4]
    assert sum(p.numel() for p in encoder.parameters()) == sum(sizes)
    sizes = [12 * 128 + 128, 128 * 14 * 14 * 64 + 14 * 14 * 64, *[64 * 64 * 9 + 64] * 3, 64 * 4 + 1]
    assert sum(p.numel() for p in decoder.parameters()) == sum(sizes)
    for preset in CVAE.PRESETS.values():
        model = MODELS["cvae"](encoder, decoder, BernoulliLikelihood(), 2, **preset)
        assert model.beta == 4.0 and model.event_shapes == {"image": (1, 28, 28), "label": (10,)}
        image, label = torch.rand(2, 1, 28, 28), torch.eye(10)[:2]
        assert math.isfinite(model.loss({"image": image, "label": label})["loss"].item())
    assert [tuple(m.weight.shape[2:]) for m in encoder.trunk if isinstance(m, nn.Conv2d)] == [(2, 2), (2, 2), (3, 3), (3, 3)]
    assert encoder.trunk[:5](torch.rand(1, 1, 28, 28)).shape == (1, 64, 14, 14)


# --- entangled data


@pytest.mark.equation("eq-cut")
@pytest.mark.parametrize(("dim", "radius"), [(1, 2.0), (2, 2.0), (2, 1.645), (2, 0.2), (5, 1.5)])
def test_truncated_draws_stay_inside_and_follow_the_law(dim, radius):
    z = truncated_normal(20_000, dim, radius, torch.Generator().manual_seed(0))
    length = z.norm(dim=-1)
    assert z.shape == (20_000, dim) and length.max().item() <= radius

    def below(r):
        return torch.special.gammainc(torch.tensor(dim / 2), torch.tensor(r**2 / 2)).item()

    for r in (0.3 * radius, 0.6 * radius, 0.9 * radius):
        p = below(r) / below(radius)
        assert (length <= r).double().mean().item() == pytest.approx(p, abs=4 * math.sqrt(p * (1 - p) / 20_000))
    assert z.mean(0).abs().max().item() < 4 * radius / math.sqrt(20_000)


def test_the_radii_are_the_text_s_and_the_program_s():
    assert RADII == {"paper": 2.0, "code": 1.645}


def two_models():
    return {"digit": make("image", 2, seed=0), "sound": make("speech", 2, seed=1)}


@pytest.mark.equation("eq-entangle")
@pytest.mark.parametrize("radius", ["paper", "code", 1.0])
def test_one_latent_and_one_class_make_every_modality(radius):
    models = two_models()
    batch, z = entangle(models, per_class=50, radius=radius, generator=torch.Generator().manual_seed(0), chunk=40)
    assert z.norm(dim=-1).max().item() <= RADII.get(radius, radius) and len(z) == 150
    assert batch["label"].sum(0).tolist() == [50, 50, 50]
    assert z.dtype == batch["label"].dtype == torch.float64
    classes = batch["label"].argmax(-1)
    assert int((classes[1:] != classes[:-1]).sum()) > 50  # in random order, not class by class
    for name, model in models.items():
        expected = model.decode({"shared": z, "label": batch["label"]})[model.modality]
        assert torch.allclose(batch[name], expected, rtol=1e-12, atol=1e-14)
        assert model.training
    # the latents are drawn once and used in every class
    used = [set(map(tuple, z[batch["label"][:, c] == 1].tolist())) for c in range(3)]
    assert len(used[0]) == 50 and used[0] == used[1] == used[2]


def test_the_models_decode_in_evaluation_mode():
    model = make("image", 2)
    model.decoder = nn.Sequential(nn.Dropout(0.5), model.decoder)
    batch, z = entangle({"digit": model}, per_class=5, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(batch["digit"], model.eval().decode({"shared": z, "label": batch["label"]})["image"])
    with pytest.raises(TypeError, match="'digit' is a VAE, wanted a CVAE"):
        entangle({"digit": VAE(nn.Identity(), nn.Linear(2, 1), NormalLikelihood(1.0), 2)})


def test_the_generator_is_determined_by_its_seed():
    one, two, other = (entangle(two_models(), per_class=9, generator=torch.Generator().manual_seed(s)) for s in (0, 0, 1))
    assert all(torch.equal(one[0][k], two[0][k]) for k in one[0]) and torch.equal(one[1], two[1])
    assert not torch.equal(one[1], other[1])


@pytest.mark.equation("eq-shuffle")
def test_the_control_keeps_classes_and_items_and_nothing_else():
    batch, _ = entangle(two_models(), per_class=40, generator=torch.Generator().manual_seed(0))
    mixed = shuffle_within_classes(batch, "sound", generator=torch.Generator().manual_seed(1))
    assert mixed["digit"] is batch["digit"] and mixed["label"] is batch["label"]
    moved = (mixed["sound"] != batch["sound"]).flatten(1).any(1)
    assert moved.double().mean().item() > 0.9
    for c in range(3):
        of_class = batch["label"][:, c] == 1
        before, after = (sorted(x[of_class].flatten(1).tolist()) for x in (batch["sound"], mixed["sound"]))
        assert before == after


# --- bad input


def test_what_has_no_meaning_says_so():
    model, batch = make(), kinds.items(NAMES)
    for attempt in (
        lambda: model.posterior({"image": batch["image"]}),
        lambda: model.translate({"image": batch["image"]}, "image"),
        lambda: model.decode({"shared": torch.zeros(2, 3, dtype=F64)}),
        lambda: model.sample(3),
    ):
        with pytest.raises(NotImplementedError, match="CVAE models 'image' given its class: 'label' is missing, wanted one-hot rows of 3"):
            attempt()
    with pytest.raises(NotImplementedError, match=r"CVAE has no p\(label\); give 'image' as well"):
        model.log_likelihood({"label": batch["label"]})
    for given_, masks in (({"image": batch["image"]}, None), ({"label": batch["label"]}, None), (batch, {"label": torch.arange(12) > 3})):
        with pytest.raises(NotImplementedError, match="CVAE trains on items that have both 'image' and 'label'"):
            model.loss(given_, observed=masks)
    with pytest.raises(KeyError, match="unknown modality 'label', known: 'image'"):
        model.translate(batch, "label")


def test_bad_batches_and_settings_are_named(as_a_reader):
    batch = kinds.items(NAMES)
    with pytest.raises(ValueError, match=r"'image': found shape \[12, 1, 4, 3\]"):
        make().loss({**batch, "image": batch["image"][..., :3]})
    with pytest.raises(ValueError, match=r"'label': found shape \[12, 2\], wanted \[batch, 3\]"):
        make().loss({**batch, "label": batch["label"][:, :2]})
    with pytest.raises(ValueError, match="'label': item 0 does not sum to 1"):
        make().loss({**batch, "label": batch["label"] / 2})
    with pytest.raises(TypeError, match="'label': found ndarray"):
        make().loss({**batch, "label": batch["label"].numpy()})
    with pytest.raises(ValueError, match="latent_dim: found 0"):
        CVAE(nn.Identity(), nn.Identity(), BernoulliLikelihood(), 0)


def test_bad_settings_of_the_sampler_are_named():
    with pytest.raises(KeyError, match="unknown radius 'papr'.* did you mean 'paper'"):
        entangle(two_models(), radius="papr")
    with pytest.raises(ValueError, match="'digit' has 2 and 3, 'sound' has 3 and 3; wanted one or more with the same"):
        entangle({**two_models(), "sound": make("speech", 3)})
    with pytest.raises(ValueError, match="no model; wanted one or more"):
        entangle({})
    with pytest.raises(ValueError, match="'label' is the name of the classes"):
        entangle({"label": make()})
    with pytest.raises(ValueError, match="per_class: found 0"):
        entangle(two_models(), per_class=0)
    with pytest.raises(ValueError, match="radius: found -1.0, wanted more than 0"):
        truncated_normal(3, 2, -1.0)
    with pytest.raises(ValueError, match="in 40 dimensions; wanted 0.001 or more"):
        truncated_normal(3, 40, 1.0)
    with pytest.raises(KeyError, match="unknown modality 'sond'"):
        shuffle_within_classes({"sound": torch.zeros(2, 1), "label": torch.eye(2)}, "sond")
