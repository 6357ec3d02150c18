"""PVAE on a linear-Gaussian world with an exact answer, against a recomputation by loops, and what it refuses."""

import itertools
import math

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn

from mmvae_lite.data import LG_PVAE, LG_PVAE_OBSERVATION, PartitionedGaussian
from mmvae_lite.distributions import Normal, NormalLikelihood, kl
from mmvae_lite.models import MODELS, PVAE
from mmvae_lite.models.pvae import coherence
from mmvae_lite.networks import (
    JointEncoder,
    PartitionedEncoder,
    SplitEncoder,
    chrono_init,
    dense_decoder,
    dense_trunk,
    pvae_image_trunk,
    pvae_jmvae_networks,
    pvae_networks,
    speech_decoder,
    speech_trunk,
)
from mmvae_lite.training import fit
from tests import kinds

D = torch.distributions
F64 = torch.float64
PAIR = ("speech", "image")
LG = ("first", "second")
PRIVATE, SHARED = 2, 3


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def make(names=PAIR, seed=0, **options):
    torch.manual_seed(seed)
    trunks = [{m: dense_trunk([kinds.size(m), 8]) for m in names} for _ in range(2)]
    return PVAE(
        PartitionedEncoder(trunks[0], 8 * len(names), PRIVATE, SHARED),
        {m: SplitEncoder(trunk, 8, PRIVATE, SHARED) for m, trunk in trunks[1].items()},
        {m: dense_decoder([PRIVATE + SHARED, 8, kinds.size(m)], kinds.KINDS[m][0]) for m in names},
        {m: kinds.KINDS[m][1] for m in names},
        PRIVATE,
        SHARED,
        **options,
    ).double()


# ---- the exact world ----------------------------------------------------------------------------------------------


def log_gaussian(x, covariance):
    return D.MultivariateNormal(torch.zeros(len(x), dtype=F64), covariance).log_prob(x).item()


@pytest.mark.equation("eq-mean-field-gap")
def test_the_partitioned_world_has_its_known_answers():
    mean, covariance = LG_PVAE.posterior(LG_PVAE_OBSERVATION)
    assert mean[0].tolist() == pytest.approx([-0.0657534, 0.8438356, 0.4547945], abs=1e-7)
    assert covariance.diagonal().tolist() == pytest.approx([0.2054795, 0.4246575, 0.7260274], abs=1e-7)
    assert LG_PVAE.log_prob(LG_PVAE_OBSERVATION).item() == pytest.approx(-3.6088655, abs=1e-7)
    assert LG_PVAE.mean_field_gap((0, 1)) == pytest.approx(0.6810149, abs=1e-7)
    assert LG_PVAE.mean_field(LG_PVAE_OBSERVATION).var[0].tolist() == pytest.approx([1 / 19, 1 / 3, 0.2], abs=1e-12)
    one, two = (LG_PVAE.mean_field({m: LG_PVAE_OBSERVATION[m]}) for m in range(2))
    assert one.mean[0].tolist() == pytest.approx([0.48, 0.48, 0], abs=1e-12)
    assert one.var[0].tolist() == pytest.approx([1 / 3, 1 / 3, 1], abs=1e-12)
    assert two.mean[0].tolist() == pytest.approx([-0.2666667, 0, 0.1333333], abs=1e-7)
    assert two.var[0].tolist() == pytest.approx([1 / 17, 1, 0.2], abs=1e-12)


def test_the_partitioned_world_against_conditioning_the_joint_gaussian():
    world = PartitionedGaussian((0.5, -1.0, 2.0), (1.5, 0.3, -0.7), (0.4, 1.1, 0.2))
    loadings = torch.tensor([[0.5, 1.5, 0, 0], [-1.0, 0, 0.3, 0], [2.0, 0, 0, -0.7]], dtype=F64)
    noise = torch.tensor([0.4, 1.1, 0.2], dtype=F64)
    x = torch.tensor([0.3, -1.2, 0.8], dtype=F64)
    for r in (1, 2, 3):
        for subset in itertools.combinations(range(3), r):
            rows = list(subset)
            w = loadings[rows]
            marginal = w @ w.T + torch.diag(noise[rows])
            gain = w.T @ torch.linalg.inv(marginal)
            mean, covariance = world.posterior({m: x[m : m + 1] for m in subset})
            assert torch.allclose(mean[0], gain @ x[rows], atol=1e-12)
            assert torch.allclose(covariance, torch.eye(4, dtype=F64) - gain @ w, atol=1e-12)
            assert world.log_prob({m: x[m : m + 1] for m in subset}).item() == pytest.approx(log_gaussian(x[rows], marginal), abs=1e-10)
    with pytest.raises(ValueError, match="found 2 shared and 1 private weights and 2 variances"):
        PartitionedGaussian((1.0, 2.0), (1.0,), (1.0, 1.0))
    with pytest.raises(ValueError, match="variances: found 0.0, wanted more than 0"):
        PartitionedGaussian((1.0,), (1.0,), (0.0,))


class Linear(nn.Module):
    """Means that are linear in the inputs and constant variances, one for each of the named latents."""

    def __init__(self, weight, var, names):
        super().__init__()
        self.weight, self.logvar, self.names = nn.Parameter(weight.clone()), nn.Parameter(var.log()), names

    def forward(self, x):
        x = torch.cat(list(x.values()), -1) if isinstance(x, dict) else x
        mean = x @ self.weight
        return {name: Normal(mean[:, i : i + 1], self.logvar[i].expand(len(x), 1)) for i, name in enumerate(self.names)}


def mean_field_of(world, subset, latents, names):
    """The best factorised posterior for a subset as a module, restricted to some latents."""
    unit = torch.eye(len(subset), dtype=F64)
    rows = world.mean_field({m: unit[:, i] for i, m in enumerate(subset)})
    return Linear(rows.mean[:, latents], rows.var[0, latents], names)


def lg_pvae(world=LG_PVAE, **options):
    """The world's exact decoders, with the best factorised posteriors as inference networks."""
    decoders = {}
    for name, a, b in zip(LG, world.shared, world.private):
        decoders[name] = nn.Linear(2, 1, bias=False, dtype=F64)
        decoders[name].weight.data = torch.tensor([[b, a]], dtype=F64)
    return PVAE(
        mean_field_of(world, (0, 1), [0, 1, 2], ["shared", "private/first", "private/second"]),
        {name: mean_field_of(world, (m,), [0, m + 1], ["shared", "private"]) for m, name in enumerate(LG)},
        decoders,
        {name: NormalLikelihood(math.sqrt(v)) for name, v in zip(LG, world.variances)},
        private_dim=1,
        shared_dim=1,
        **options,
    )


def lg_batch(n=1):
    return {name: LG_PVAE_OBSERVATION[m].expand(n)[:, None] for m, name in enumerate(LG)}


def orthogonal_signs(monkeypatch):
    """Noise of +1 and -1 that is independent between the latents over a batch of eight: exact for quadratics."""
    calls = itertools.count()

    def noise(samples, like, generator):
        bit = next(calls) % 3
        signs = torch.tensor([1.0 if (i >> bit) & 1 else -1.0 for i in range(8)], dtype=F64)[:, None]
        return signs.expand(*samples, *like.shape).clone()

    monkeypatch.setattr("mmvae_lite.distributions._noise", noise)


@pytest.mark.equation("eq-pvae-elbo")
def test_the_elbo_of_the_best_factorised_posterior(monkeypatch):
    orthogonal_signs(monkeypatch)
    found = -lg_pvae(alpha_ch=0, alpha_cm=0).loss(lg_batch(8))["loss"].item()
    assert found == pytest.approx(-4.2898803, abs=1e-7)
    assert found == pytest.approx(LG_PVAE.log_prob(LG_PVAE_OBSERVATION).item() - LG_PVAE.mean_field_gap((0, 1)), abs=1e-9)


@pytest.mark.equation("eq-mean-field-gap")
def test_any_other_posterior_is_worse(monkeypatch):
    orthogonal_signs(monkeypatch)
    model = lg_pvae(alpha_ch=0, alpha_cm=0)
    for change in range(6):
        parameter = [model.joint_encoder.logvar, model.joint_encoder.weight][change // 3]
        with torch.no_grad():
            parameter[..., change % 3] += 0.2
        assert -model.loss(lg_batch(8))["loss"].item() < -4.2898803 - 1e-4
        with torch.no_grad():
            parameter[..., change % 3] -= 0.2


def test_a_posterior_that_factorises_closes_the_gap(monkeypatch):
    orthogonal_signs(monkeypatch)
    world = PartitionedGaussian((1.0, 2.0), (0.0, 0.0), (0.5, 0.25))
    found = -lg_pvae(world, alpha_ch=0, alpha_cm=0).loss(lg_batch(8))["loss"].item()
    assert world.mean_field_gap((0, 1)) == pytest.approx(0, abs=1e-12)
    assert found == pytest.approx(world.log_prob(LG_PVAE_OBSERVATION).item(), abs=1e-9)


@pytest.mark.equation("eq-pvae-coherence")
def test_coherence_of_the_best_factorised_posteriors():
    terms = lg_pvae().loss(lg_batch(2))
    assert terms["ch"].item() == pytest.approx(-1.7516320, abs=1e-7)


@pytest.mark.equation("eq-pvae-coherence")
def test_coherence_is_zero_only_where_the_networks_agree():
    g = generator()
    q = {name: Normal(*torch.randn(2, 5, 2, dtype=F64, generator=g)) for name in ("shared", "private/a", "private/b")}
    same = {m: {"shared": q["shared"], "private": q[f"private/{m}"]} for m in "ab"}
    assert coherence(q, same).abs().max().item() < 1e-14
    for m, latent in itertools.product("ab", ("shared", "private")):
        other = {k: dict(v) for k, v in same.items()}
        other[m][latent] = Normal(other[m][latent].mean + 0.1, other[m][latent].logvar - 0.1)
        assert bool((coherence(q, other) < 0).all())


@pytest.mark.parametrize(
    ("means", "expected"),
    [
        ({"first": [0.0, 0.0], "second": [0.0, 0.0]}, -0.5),  # all alike
        ({"first": [0.0, 9.0], "second": [0.0, 9.0]}, 0.0),  # pairs agree, items are far apart
        ({"first": [0.0, 9.0], "second": [9.0, 0.0]}, -1.5),  # every item agrees with the other item only
    ],
)
def test_the_contrast_at_its_extremes(means, expected):
    class Fixed(nn.Module):
        def __init__(self, values):
            super().__init__()
            self.mean = nn.Parameter(torch.tensor(values, dtype=F64)[:, None])

        def forward(self, x):
            return {"shared": Normal(self.mean, torch.zeros_like(self.mean)), "private": Normal.standard(2, 1, like=self.mean)}

    model = lg_pvae()
    model.encoders = nn.ModuleDict({m: Fixed(v) for m, v in means.items()})
    assert model.loss(lg_batch(2))["cm"].item() == pytest.approx(expected, abs=1e-12)


def test_the_likelihood_tends_to_the_evidence():
    # From one modality the proposal is narrower than the posterior, and the estimate is only a bound.
    model = lg_pvae()
    with torch.no_grad():
        model.joint_encoder.logvar += 1.0
    exact = LG_PVAE.log_prob(LG_PVAE_OBSERVATION).item()
    found = model.log_likelihood(lg_batch(4), samples=40_000, chunk=9000, generator=generator())
    assert found.tolist() == pytest.approx([exact] * 4, abs=0.03)
    with torch.no_grad():
        for encoder in model.encoders.values():
            encoder.logvar += 1.0
    for m, name in enumerate(LG):
        exact = LG_PVAE.log_prob({m: LG_PVAE_OBSERVATION[m]}).item()
        found = model.log_likelihood({name: lg_batch(4)[name]}, samples=40_000, chunk=9000, generator=generator())
        assert found.tolist() == pytest.approx([exact] * 4, abs=0.03)


def test_a_likelihood_of_a_batch_is_that_of_its_items_whatever_the_chunks():
    # where the posterior is exact a draw has no influence, so that nothing but the sums is compared
    world = PartitionedGaussian((1.0, 2.0), (0.0, 0.0), (0.5, 0.25))
    model, exact = lg_pvae(world), world.log_prob(LG_PVAE_OBSERVATION).item()
    for chunk in (1, 3, 100):
        assert model.log_likelihood(lg_batch(5), samples=7, chunk=chunk).sum().item() == pytest.approx(5 * exact, abs=1e-10)
        assert model.log_likelihood(lg_batch(1), samples=7, chunk=chunk).item() == pytest.approx(exact, abs=1e-10)


# ---- the loss by another route ------------------------------------------------------------------------------------


def density(q, i):
    return D.Normal(q.mean[i], (0.5 * q.logvar[i]).exp())


def kernel(a, b):
    return math.exp(-0.5 * sum((p - q) ** 2 for p, q in zip(a.tolist(), b.tolist())))


def recomputed_loss(model, batch, seed):
    """Equation 9 by loops over items, modalities and pairs, with torch.distributions."""
    names, n, g = list(model.modalities), len(next(iter(batch.values()))), generator(seed)
    q = model.joint_encoder({m: batch[m] for m in names})
    z = {name: d.mean + (0.5 * d.logvar).exp() * torch.randn(d.mean.shape, dtype=F64, generator=g) for name, d in q.items()}
    cycle = torch.randperm(n, generator=g).tolist()
    negative = {cycle[k]: cycle[k - 1] for k in range(n)}
    r = {m: model.encoders[m](batch[m]) for m in names}
    total = 0.0
    for i in range(n):
        prior = {name: D.Normal(torch.zeros_like(d.mean[i]), 1.0) for name, d in q.items()}
        for name, d in q.items():
            weight = model.beta if name == "shared" else model.beta * model.private_beta
            total = total - weight * kinds.divergence(density(d, i), prior[name])
        for m in names:
            point = torch.cat([z[f"private/{m}"][i], z["shared"][i]])
            total = total + model.weights[m] * kinds.log_px(model, m, point, batch[m][i])
            total = total - model.alpha_ch * kinds.divergence(density(q[f"private/{m}"], i), density(r[m]["private"], i))
            total = total - model.alpha_ch * kinds.divergence(density(q["shared"], i), density(r[m]["shared"], i))
        for anchor, m in itertools.permutations(names, 2):
            mu = r[anchor]["shared"].mean[i], r[m]["shared"].mean[i], r[m]["shared"].mean[negative[i]]
            pull, push = (torch.exp(-0.5 * (mu[0] - other).square().sum()) for other in mu[1:])
            assert pull.item() == pytest.approx(kernel(mu[0], mu[1]))
            total = total - model.alpha_cm * torch.relu(model.margin - pull + push) / len(names)
    return -total / n


@pytest.mark.equation("eq-pvae-loss")
@pytest.mark.parametrize("names", [PAIR, ("image", "label", "attributes")])
def test_loss_and_gradient_equal_an_independent_recomputation(names):
    model = make(names, alpha_ch=0.3, alpha_cm=2.0, margin=0.7, beta=0.8, private_beta=1.7, weights={"image": 0.4})
    batch = kinds.items(names, n=5)
    found = model.loss(batch, generator=generator(5))["loss"]
    expected = recomputed_loss(model, batch, 5)
    assert found.item() == pytest.approx(expected.item(), rel=1e-10)
    kinds.assert_same_gradients(found, expected, model.parameters())


# ---- what learns from what ----------------------------------------------------------------------------------------


def reach(value, module):
    grads = torch.autograd.grad(value, list(module.parameters()), allow_unused=True, retain_graph=True)
    return sum(0.0 if g is None else g.abs().sum().item() for g in grads)


def test_each_term_teaches_the_networks_that_the_paper_says():
    model = make()
    terms = model.loss(kinds.items(PAIR), generator=generator())
    r_shared = nn.ModuleList([e.shared for e in model.encoders.values()])
    r_private = nn.ModuleList([e.private for e in model.encoders.values()])
    assert reach(terms["ch"], model.joint_encoder) > 0 and reach(terms["ch"], model.encoders) > 0
    assert reach(terms["ch"], model.decoders) == 0
    assert reach(terms["cm"], r_shared) > 0
    assert reach(terms["cm"], r_private) == reach(terms["cm"], model.joint_encoder) == reach(terms["cm"], model.decoders) == 0
    for m in PAIR:
        assert reach(terms[f"recon/{m}"], model.joint_encoder.shared) > 0
        assert reach(terms[f"recon/{m}"], model.joint_encoder.private[m]) > 0
        for other in set(PAIR) - {m}:
            assert reach(terms[f"recon/{m}"], model.joint_encoder.private[other]) == 0
            assert reach(terms[f"recon/{m}"], model.decoders[other]) == 0
        assert reach(terms[f"recon/{m}"], model.encoders) == 0


def test_without_coherence_and_contrast_the_unimodal_networks_learn_nothing():
    model, batch = make(alpha_ch=0, alpha_cm=0), kinds.items(PAIR)
    terms = model.loss(batch, generator=generator())
    assert "ch" not in terms and "cm" not in terms
    assert reach(terms["loss"], model.encoders) == 0
    # and computed with weight 0 beside the other, a term adds nothing either
    alone = make(alpha_ch=0, alpha_cm=1).loss(batch, generator=generator())
    assert alone["loss"].item() == pytest.approx(terms["loss"].item() - alone["cm"].item(), rel=1e-12)
    assert reach(alone["loss"], make(alpha_ch=0).encoders["image"].private) == 0


def test_exchanging_the_shared_latents_of_items_leaves_the_divergences():
    model, batch = make(alpha_ch=0, alpha_cm=0), kinds.items(PAIR, n=2)
    plain = model.loss(batch, generator=generator())

    class Exchanged(nn.Module):
        def __init__(self, encoder):
            super().__init__()
            self.encoder = encoder

        def forward(self, x):
            q = self.encoder(x)
            return {**q, "shared": Normal(q["shared"].mean.flip(0), q["shared"].logvar.flip(0))}

    model.joint_encoder = Exchanged(model.joint_encoder)
    swapped = model.loss(batch, generator=generator())
    for name in plain:
        assert (swapped[name].item() == pytest.approx(plain[name].item(), rel=1e-12)) == name.startswith("kl/"), name


# ---- verbs --------------------------------------------------------------------------------------------------------


@pytest.mark.equation("eq-pvae-unimodal")
@pytest.mark.equation("eq-pvae-r")
def test_one_modality_leaves_the_other_styles_to_the_prior():
    model, batch = make(), kinds.items(PAIR)
    q = model.posterior({"speech": batch["speech"]})
    assert set(q) == {"shared", "private/speech", "private/image"}
    assert kl(q["private/image"], model.prior("private/image", 12)).abs().max().item() == 0
    found = model.encoders["speech"](batch["speech"])
    assert torch.equal(q["private/speech"].mean, found["private"].mean)
    assert torch.allclose(q["shared"].mean, found["shared"].mean) and torch.allclose(q["shared"].var, found["shared"].var)
    # so that what it makes of the image does not depend on the speaker
    for sample in (False, True):
        one = model.translate({"speech": batch["speech"]}, "image", sample, generator())
        with torch.no_grad():
            model.encoders["speech"].private.bias += 3.0
        two = model.translate({"speech": batch["speech"]}, "image", sample, generator())
        assert torch.equal(one, two)
    assert not torch.equal(model.translate({"speech": batch["speech"]}, "speech"), model.translate(batch, "speech"))


@pytest.mark.equation("eq-pvae-q")
def test_all_modalities_use_the_joint_network_in_any_order():
    model, batch = make(), kinds.items(PAIR)
    expected = model.joint_encoder(batch)
    for given_ in (batch, dict(reversed(batch.items()))):
        q = model.posterior(given_)
        assert all(torch.equal(q[name].mean, expected[name].mean) for name in expected)
    one, two = (model.loss(b, generator=generator())["loss"].item() for b in (batch, dict(reversed(batch.items()))))
    assert one == pytest.approx(two, rel=1e-12)


def test_swap_takes_content_and_style():
    model, batch = make(), kinds.items(PAIR)
    other = {m: x.flip(0) for m, x in batch.items()}
    made = model.swap(batch, other)
    content, style = model.posterior(batch), model.posterior(other)
    expected = model.decode({"shared": content["shared"].mean, "private/image": style["private/image"].mean})["image"]
    assert torch.equal(made["image"], expected)
    own = model.swap(batch, batch)
    assert torch.allclose(own["speech"], model.translate(batch, "speech"))
    across = model.swap({"speech": batch["speech"]}, {"image": batch["image"]})
    assert across["image"].shape == (12, 1, 4, 4) and across["speech"].shape == (12, 5, 4)


def test_some_of_three_modalities_need_the_extension():
    names = ("image", "label", "speech")
    pair = {m: x for m, x in kinds.items(names).items() if m != "speech"}
    with pytest.raises(NotImplementedError, match="infers from one modality or from all of 'image', 'label', 'speech', found .*ask for extension"):
        make(names).posterior(pair)
    model = make(names, extension="quotient")
    with torch.no_grad():  # sharper than the prior, so that the quotient is a density
        for encoder in model.encoders.values():
            encoder.shared.bias[SHARED:] -= 3.0
    q, r = model.posterior(pair), {m: model.encoders[m](pair[m]) for m in pair}
    precision = sum(1 / found["shared"].logvar.exp() for found in r.values()) - 1
    mean = sum(found["shared"].mean / found["shared"].logvar.exp() for found in r.values()) / precision
    assert torch.allclose(q["shared"].precision, precision) and torch.allclose(q["shared"].mean, mean)
    assert kl(q["private/speech"], model.prior("private/speech", 12)).abs().max().item() == 0


@pytest.mark.equation("eq-pvae-joint")
def test_samples_share_one_draw_of_the_content_and_draw_each_style():
    model, g = make(), generator(4)
    content, *styles = (torch.randn(5, size, dtype=F64, generator=g) for size in (SHARED, PRIVATE, PRIVATE))
    found = model.sample(5, generator(4))
    for m, style in zip(PAIR, styles):
        params = model.decoders[m](torch.cat([style, content], -1))
        assert torch.equal(found[m], params.sigmoid() if m == "image" else params)


def test_verbs_have_the_promised_shapes_even_for_one_item():
    model, batch = make(), kinds.items(PAIR, n=1)
    assert {m: tuple(x.shape) for m, x in model.sample(4, generator()).items()} == {"speech": (4, 5, 4), "image": (4, 1, 4, 4)}
    assert model.translate(batch, "speech", sample=True, generator=generator()).shape == (1, 5, 4)
    z = {"shared": torch.zeros(SHARED, dtype=F64), "private/image": torch.zeros(PRIVATE, dtype=F64)}
    walk = model.traverse(z, 1, torch.linspace(-1, 1, 5).double())
    assert {m: tuple(x.shape) for m, x in walk.items()} == {"image": (5, 1, 4, 4)}
    style = model.traverse(z, 1, torch.linspace(-1, 1, 5).double(), of="private/image")["image"]
    assert not torch.equal(style, walk["image"])
    assert model.log_likelihood(batch, 3).shape == model.log_likelihood({"image": batch["image"]}, 3).shape == (1,)


def test_a_batch_of_one_has_no_negative_example():
    batch = kinds.items(PAIR, n=1)
    with pytest.raises(ValueError, match="PVAE's contrast needs at least 2 items, got 1"):
        make().loss(batch)
    assert math.isfinite(make(alpha_cm=0).loss(batch)["loss"].item())


def test_one_modality_alone_has_nothing_to_be_contrasted_with():
    terms = make(("image",)).loss(kinds.items(("image",), n=1))
    assert set(terms) == {"loss", "recon/image", "kl/shared", "kl/private/image", "ch"}


def test_an_absent_modality_and_a_masked_one_are_refused_alike():
    model, batch = make(), kinds.items(PAIR)
    sentence = "PVAE's objective needs every modality of every item, 'speech' is absent; drop those items"
    for mask in (torch.zeros(12, dtype=torch.bool), torch.arange(12) > 0):
        with pytest.raises(NotImplementedError, match=sentence):
            model.loss(batch, observed={"speech": mask})
    with pytest.raises(NotImplementedError, match=sentence):
        model.loss({"image": batch["image"]})
    everything = {m: torch.ones(12, dtype=torch.bool) for m in batch}
    one, two = (model.loss(batch, observed=o, generator=generator())["loss"].item() for o in (None, everything))
    assert one == two


def test_a_target_can_differ_from_the_input():
    model, noisy = make(), kinds.items(PAIR)
    clean = {**noisy, "image": noisy["image"].round()}
    one, two = (model.loss(noisy, target=t, generator=generator()) for t in (None, clean))
    assert {name for name in one if one[name].item() != two[name].item()} == {"loss", "recon/image"}


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(subset=st.sampled_from([("speech",), ("image",), ("label",), ("label", "image", "speech")]), n=st.integers(2, 5), seed=st.integers(0, 100))
def test_any_supported_subset_is_finite_and_items_do_not_mix(subset, n, seed):
    model = make(("image", "label", "speech"))
    batch = {m: kinds.items(("image", "label", "speech"), n=n)[m] for m in subset}
    order = torch.randperm(n, generator=generator(seed))
    q, shuffled = model.posterior(batch), model.posterior({m: x[order] for m, x in batch.items()})
    for name in q:
        assert bool(torch.isfinite(q[name].mean).all()) and torch.allclose(q[name].mean[order], shuffled[name].mean)
    if len(subset) == 3:
        assert all(math.isfinite(v.item()) for v in model.loss(batch, generator=generator(seed)).values())


# ---- networks and training ----------------------------------------------------------------------------------------


def count(module):
    return sum(p.numel() for p in module.parameters())


def lstm(inputs, units):
    return 4 * units * (inputs + units + 2)  # torch keeps two biases


def test_networks_have_the_papers_sizes():
    nets = pvae_networks()
    image = (4 * 4 * 1 * 4 + 4) + (4 * 4 * 4 * 8 + 8) + (7 * 7 * 8 * 512 + 512)
    speech = lstm(80, 512)
    assert count(speech_trunk()) == speech and count(pvae_image_trunk()) == image
    assert count(nets["joint_encoder"]) == speech + image + 3 * (1024 * 64 + 64)
    assert count(nets["encoders"]["speech"]) == speech + 2 * (512 * 64 + 64)
    assert count(nets["encoders"]["image"]) == image + 2 * (512 * 64 + 64)
    assert count(nets["decoders"]["speech"]) == lstm(64, 512) + 512 * 80 + 80
    dense = (64 * 512 + 512) + (512 * 784 + 784)
    assert count(nets["decoders"]["image"]) == dense + (16 * 8 * 16 + 8) + (8 * 16 + 1)
    shared = set(nets["joint_encoder"].parameters()) & set(nets["encoders"]["speech"].parameters())
    assert not shared


def test_the_jmvae_baseline_has_one_latent_of_the_same_size():
    nets = pvae_jmvae_networks()
    assert isinstance(nets["joint_encoder"], JointEncoder)
    trunks = count(speech_trunk()) + count(pvae_image_trunk())
    assert count(nets["joint_encoder"]) == trunks + 1024 * 192 + 192
    assert count(nets["decoders"]["speech"]) == lstm(96, 512) + 512 * 80 + 80
    batch = {"speech": torch.zeros(2, 100, 80), "image": torch.zeros(2, 1, 28, 28)}
    assert nets["joint_encoder"](batch).mean.shape == (2, 96)


def test_the_speech_decoder_reads_its_latent_at_every_frame():
    torch.manual_seed(0)
    decoder, z = speech_decoder(4, frames=6, bins=3, units=5), torch.randn(2, 4)
    cell = nn.LSTMCell(4, 5)
    for mine, theirs in (("weight_ih", "weight_ih_l0"), ("weight_hh", "weight_hh_l0"), ("bias_ih", "bias_ih_l0"), ("bias_hh", "bias_hh_l0")):
        getattr(cell, mine).data = getattr(decoder[0].lstm, theirs).data
    state, frames = (torch.zeros(2, 5), torch.zeros(2, 5)), []
    for _ in range(6):
        state = cell(z, state)
        frames.append(decoder[1](state[0]))
    assert torch.allclose(decoder(z), torch.stack(frames, 1), atol=1e-6)
    trunk, x = speech_trunk(3, 5), torch.randn(2, 7, 3)
    assert torch.equal(trunk(x), trunk.lstm(x)[0][:, -1])


def test_a_reader_of_speech_still_knows_the_word_after_the_silence_behind_it():
    torch.manual_seed(0)
    words = torch.randn(2, 40, 80)
    heard = torch.cat([words, torch.zeros(2, 60, 80)], 1)
    told_apart = []
    for trunk in (speech_trunk(80, 64), speech_trunk(80, 64, frames=2)):  # the second has biases near 0, as in torch
        with torch.no_grad():
            told_apart.append((trunk(heard)[0] - trunk(heard)[1]).norm().item())
    assert told_apart[0] > 0.03 and told_apart[1] < 1e-6


@pytest.mark.equation("eq-chrono")
def test_gates_keep_their_cells_for_as_long_as_was_drawn():
    torch.manual_seed(0)
    lstm = nn.LSTM(3, 2000, num_layers=2)
    chrono_init(lstm, 100)
    for layer in range(2):
        bias = getattr(lstm, f"bias_ih_l{layer}") + getattr(lstm, f"bias_hh_l{layer}")
        i, f, g, o = bias.detach().chunk(4)
        assert torch.equal(i, -f) and not g.any() and not o.any()
        kept = 1 / (1 - torch.sigmoid(f))  # frames until a cell that is only forgotten has fallen to 1/e, nearly
        assert 2 <= kept.min() and kept.max() <= 100 and abs(kept.mean() - 51) < 2


@pytest.mark.parametrize("preset", PVAE.PRESETS)
def test_presets_build_the_paper_s_model(preset):
    torch.manual_seed(0)
    likelihoods = {m: NormalLikelihood(1.0) for m in PAIR}
    model = PVAE(**pvae_networks(frames=4, units=16), likelihoods=likelihoods, **PVAE.PRESETS[preset])
    assert model.event_shapes == {"speech": (4, 80), "image": (1, 28, 28)}
    assert (model.alpha_ch, model.alpha_cm, model.margin) == (0.1, 10, 0.5)
    batch = {"speech": torch.randn(3, 4, 80, generator=generator()), "image": torch.rand(3, 1, 28, 28, generator=generator())}
    assert math.isfinite(model.loss(batch, generator=generator())["loss"].item())


def test_it_learns_every_kind_of_modality():
    names = tuple(kinds.KINDS)
    model, batch = make(names).float(), kinds.items(names, n=32, dtype=torch.float32)
    history = fit(model, batch, epochs=15, batch_size=32, lr=1e-2, progress=False)
    assert history["loss"][-1] < history["loss"][0] - 2


def test_it_learns_speech_with_an_lstm():
    torch.manual_seed(0)
    likelihoods = {m: NormalLikelihood(1.0) for m in PAIR}
    model = PVAE(**pvae_networks(4, 4, frames=6, bins=5, units=12), likelihoods=likelihoods, private_dim=4, shared_dim=4)
    g, classes = generator(1), torch.arange(32) % 3
    batch = {"speech": 3 * torch.randn(3, 6, 5, generator=g)[classes], "image": torch.rand(3, 1, 28, 28, generator=g).round()[classes]}
    history = fit(model, batch, epochs=15, batch_size=16, lr=1e-2, progress=False)
    assert history["loss"][-1] < history["loss"][0] - 10
    assert history["cm"][-1] > history["cm"][0]


def test_weights_survive_the_file_to_the_bit(tmp_path):
    model, batch = make(), kinds.items(PAIR)
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    other = make(seed=9)
    other.load_state_dict(load_file(tmp_path / "model.safetensors"))
    one, two = (m.loss(batch, generator=generator())["loss"] for m in (model, other))
    assert one.item() == two.item()


# ---- bad input ----------------------------------------------------------------------------------------------------


def test_bad_input_is_named(as_a_reader):
    model, batch = make(), kinds.items(PAIR)
    with pytest.raises(KeyError, match="unknown modality 'speach'.* did you mean 'speech'"):
        model.loss({**batch, "speach": batch["speech"]})
    with pytest.raises(ValueError, match=r"'speech': found shape \[12, 4, 4\], wanted \[batch, 5, 4\]"):
        model.loss({**batch, "speech": batch["speech"][:, :4]})
    with pytest.raises(ValueError, match="the batch is empty"):
        model.posterior({})
    with pytest.raises(ValueError, match="every modality of every item as absent"):
        model.loss(batch, observed={m: torch.zeros(12, dtype=torch.bool) for m in batch})
    with pytest.raises(ValueError, match="swap: content has 12 items and style has 3"):
        model.swap(batch, {m: x[:3] for m, x in batch.items()})
    with pytest.raises(KeyError, match="unknown modality 'label'"):
        model.translate(batch, "label")
    with pytest.raises(KeyError, match="unknown extension 'poe', known: 'quotient'"):
        make(extension="poe")
    with pytest.raises(KeyError, match="did you mean 'image'"):
        make(weights={"imag": 1.0})
    with pytest.raises(ValueError, match="decoders are given for"):
        PVAE(nn.Identity(), {"image": nn.Identity()}, {}, {}, 2, 2)


def test_it_is_among_the_models():
    assert MODELS["pvae"] is PVAE
