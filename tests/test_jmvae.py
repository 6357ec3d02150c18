"""JMVAE against exact posteriors, an independent recomputation of its loss, and bad input."""

import itertools
import math

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from mmvae_lite.data import LG3, LG3_OBSERVATION
from mmvae_lite.distributions import BernoulliLikelihood, CategoricalLikelihood, kl
from mmvae_lite.experts import ImproperProduct
from mmvae_lite.models import JMVAE, MODELS
from mmvae_lite.networks import jmvae_networks
from mmvae_lite.training import fit
from tests import kinds
from tests.linear import NAMES, LinearJoint, assert_a_batch_is_its_singles, lg_parts, lg_posterior, objective, observation, two_point_noise

PAIR = NAMES[:2]
KINDS = ("image", "label", "speech")


def lg_jmvae(names=PAIR, encoders=None, **options):
    options = {"variant": "kl"} | options
    if options["variant"] == "kl" and encoders is None:
        encoders = {n: lg_posterior((n,)) for n in names}
    return JMVAE(lg_posterior(names), **lg_parts(names), encoders=encoders, **options)


def make(names=KINDS, seed=0, **options):
    torch.manual_seed(seed)
    options = {"variant": "kl"} | options
    encoders = {}
    if options["variant"] == "kl":
        size = len(names) - 1 if options.get("extension") == "leave_one_out" else 1
        encoders = {"+".join(s): kinds.encoder(s) for s in itertools.combinations(names, size)}
    return JMVAE(kinds.encoder(names), **kinds.parts(names), encoders=encoders, **options).double()


# --- known answers on LG3


def test_the_joint_elbo_of_an_exact_model_is_the_evidence(monkeypatch):
    for options in ({"alpha": 0.0}, {"variant": "joint"}, {"variant": "zero"}):
        found = objective(monkeypatch, lg_jmvae(**options), observation(PAIR, 2))
        assert found == pytest.approx(-3.0254234677, abs=1e-9)


def test_alpha_subtracts_the_divergences_from_the_unimodal_posteriors(monkeypatch):
    model, batch = lg_jmvae(alpha=1.0), observation(PAIR, 2)
    assert objective(monkeypatch, model, batch) == pytest.approx(-3.2881126, abs=1e-7)
    terms = model.loss(batch)
    assert terms["kl/first"].item() == pytest.approx(0.2437505888, abs=1e-9)
    assert terms["kl/second"].item() == pytest.approx(0.0189385562, abs=1e-9)


def test_the_objective_falls_with_alpha():
    batch, losses = kinds.items(KINDS), []
    for alpha in (0.0, 0.1, 1.0, 10.0):
        losses.append(make(alpha=alpha).loss(batch, generator=torch.Generator().manual_seed(0))["loss"].item())
    assert losses == sorted(losses) and losses[0] < losses[-1]


def test_one_modality_makes_it_a_vae(monkeypatch):
    shared = lg_posterior(NAMES[:1])
    for alpha in (0.0, 5.0):
        model = JMVAE(shared, **lg_parts(NAMES[:1]), encoders={"first": shared}, variant="kl", alpha=alpha)
        assert objective(monkeypatch, model, observation(NAMES[:1], 2)) == pytest.approx(-1.5155121235, abs=1e-9)


def test_the_terms_give_the_conditional_evidence(monkeypatch):
    # E_q log p(x1 | z) - KL(q || p(z | x2)) = log p(x1 | x2) at the exact posterior
    model = lg_jmvae()
    monkeypatch.setattr("mmvae_lite.distributions._noise", two_point_noise)
    terms = model.loss(observation(PAIR, 2))
    assert (terms["recon/first"] - terms["kl/second"]).item() == pytest.approx(-1.0767659783, abs=1e-9)


def test_posteriors_and_likelihoods_are_exact_on_lg3():
    pairs = {"+".join(s): lg_posterior(s) for s in itertools.combinations(NAMES, 2)}
    models = [
        (lg_jmvae(NAMES, extension="quotient"), [s for r in (1, 2, 3) for s in itertools.combinations(NAMES, r)]),
        (lg_jmvae(NAMES, pairs, extension="leave_one_out"), [s for r in (2, 3) for s in itertools.combinations(NAMES, r)]),
    ]
    for model, subsets in models:
        for names in subsets:
            x = {NAMES.index(n): LG3_OBSERVATION[NAMES.index(n)] for n in names}
            assert kl(model.posterior(observation(names))["shared"], LG3.posterior(x)).abs().max().item() < 1e-12
            found = model.log_likelihood(observation(names, 3), samples=5, chunk=2)
            assert found.tolist() == pytest.approx([LG3.log_prob(x).item()] * 3, abs=1e-9)


def test_three_modalities_with_leave_one_out_encoders(monkeypatch):
    # log p(x) minus the three divergences of the exact posterior from those that lack one modality
    pairs = {"+".join(s): lg_posterior(s) for s in itertools.combinations(NAMES, 2)}
    found = objective(monkeypatch, lg_jmvae(NAMES, pairs, extension="leave_one_out"), observation(NAMES, 2))
    full = torch.distributions.Normal(0.625, math.sqrt(0.125))
    rest = [(0.666667, 0.166667), (0.5, 0.25), (0.571429, 0.142857)]
    gaps = [torch.distributions.kl_divergence(full, torch.distributions.Normal(m, math.sqrt(v))).item() for m, v in rest]
    assert found == pytest.approx(-3.7624627802 - sum(gaps), abs=1e-5)
    # and with two modalities, to leave one out is to keep the other
    one, two = make(("image", "label")), make(("image", "label"), extension="leave_one_out")
    batch = kinds.items(("image", "label"))
    losses = [m.loss(batch, generator=torch.Generator().manual_seed(0))["loss"].item() for m in (one, two)]
    assert losses[0] == losses[1]


# --- the zero variant


def test_zero_without_hiding_is_the_joint_elbo_to_the_bit():
    batch = kinds.items(KINDS)
    one, two = (
        make(variant=v).loss(batch, generator=torch.Generator().manual_seed(0)) for v in ("joint", "zero")
    )
    assert one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)


def test_zeroing_removes_exactly_a_linear_encoder_s_block():
    model = JMVAE(LinearJoint(NAMES), **lg_parts(NAMES), variant="zero")
    batch = observation()
    for name in NAMES:
        rest = {n: x for n, x in batch.items() if n != name}
        gap = model.posterior(batch)["shared"].mean - model.posterior(rest)["shared"].mean
        assert gap.item() == pytest.approx((model.joint_encoder.slopes[name] * batch[name]).item(), abs=1e-14)


class Seen(torch.nn.Module):
    """An encoder that records which inputs are zero."""

    def forward(self, batch):
        self.inputs = batch
        return kinds.encoder(("label",)).double()(kinds.items(("label",), n=len(batch["label"]))["label"])


def test_training_hides_one_input_and_never_all_and_keeps_the_targets():
    seen = Seen()
    model = JMVAE(seen, **kinds.parts(KINDS), variant="zero", zero_prob=0.6).double()
    batch = {m: x.clamp_min(0.01) if m != "label" else x for m, x in kinds.items(KINDS, n=3000).items()}
    terms = model.loss(batch, generator=torch.Generator().manual_seed(0))
    assert {f"recon/{m}" for m in KINDS} < terms.keys()
    hidden = torch.stack([(seen.inputs[m].flatten(1) == 0).all(1) for m in KINDS])
    assert set(hidden.sum(0).tolist()) == {0, 1}
    assert hidden.any(0).double().mean().item() == pytest.approx(0.6, abs=4 * math.sqrt(0.24 / 3000))
    assert all(abs(share - 0.2) < 4 * math.sqrt(0.16 / 3000) for share in hidden.double().mean(1).tolist())
    partial = {"label": torch.zeros(3000, dtype=torch.bool), "speech": torch.arange(3000) % 2 == 0}
    model.loss(batch, observed=partial, generator=torch.Generator().manual_seed(0))
    hidden = torch.stack([(seen.inputs[m].flatten(1) == 0).all(1) for m in KINDS])
    assert bool((hidden.sum(0) < 3).all())
    model.eval()
    model.loss(batch, generator=torch.Generator().manual_seed(0))
    assert all(torch.equal(seen.inputs[m], batch[m]) for m in KINDS)


def test_an_input_can_be_absent_while_its_target_is_there():
    model, batch = make(variant="zero"), kinds.items(KINDS)
    inputs = {"image": batch["image"]}
    terms = model.loss(inputs, target=batch, generator=torch.Generator().manual_seed(0))
    assert {f"recon/{m}" for m in KINDS} < terms.keys()
    assert {"recon/image"} == {k for k in model.loss(inputs) if k.startswith("recon")}


def test_a_mask_can_mark_a_target_that_is_no_input():
    model, batch = make(variant="zero"), kinds.items(KINDS)
    inputs, there = {"image": batch["image"]}, torch.arange(12) % 3 == 0
    terms = model.loss(inputs, target=batch, observed={"label": there}, generator=torch.Generator().manual_seed(7))
    q = model.posterior(inputs)["shared"]
    z = q.mean + (0.5 * q.logvar).exp() * kinds.noise(12, kinds.LATENT, seed=7)
    expected = [kinds.log_px(model, "label", z[i], batch["label"][i]) for i in range(12) if there[i]]
    assert terms["recon/label"].item() == pytest.approx(torch.stack(expected).mean().item(), rel=1e-12)
    hidden = {"label": torch.zeros(12, dtype=torch.bool)}
    assert "recon/label" not in model.loss(inputs, target=batch, observed=hidden)


def test_refinement_is_decoding_the_missing_and_encoding_again():
    model, batch = make(variant="zero").eval(), kinds.items(("image",))
    z = model.posterior(batch)["shared"].mean
    for _ in range(2):
        z = model.posterior({**model.decode({"shared": z}), **batch})["shared"].mean
    twice, expected = model.translate(batch, "label", refine=2), model.decode({"shared": z})["label"]
    assert torch.allclose(twice, expected, rtol=1e-13, atol=0)
    assert not torch.allclose(model.translate(batch, "label", refine=1), expected, rtol=1e-13, atol=0)
    assert not torch.allclose(model.translate(batch, "label"), model.translate(batch, "label", refine=2))


# --- an independent second computation


def recomputed(model, batch, there, alpha, beta, seed):
    """The objective by loops over items and modalities, with torch.distributions; zeros where an item lacks one."""
    n = len(batch["image"])
    eps = kinds.noise(n, kinds.LATENT, seed=seed)
    sums = {}
    for i in range(n):
        if not any(there[m][i] for m in batch):
            continue
        x = {m: batch[m][i : i + 1] * float(there[m][i]) for m in batch}
        q = kinds.density(model.joint_encoder(x), 0)
        z = q.loc + q.scale * eps[i]
        sums.setdefault("prior", []).append(-beta * kinds.divergence(q, torch.distributions.Normal(0.0, 1.0)))
        for m in batch:
            if there[m][i]:
                sums.setdefault(m, []).append(model.weights[m] * kinds.log_px(model, m, z, batch[m][i]))
        for name, encoder in model.encoders.items():
            inputs = {m: x[m] for m in name.split("+")}
            p = encoder(inputs if len(inputs) > 1 else x[name])
            sums.setdefault(f"kl/{name}", []).append(-alpha * kinds.divergence(q, kinds.density(p, 0)))
    return -sum(torch.stack(values).mean() for values in sums.values())


@pytest.mark.parametrize("options", [{}, {"extension": "leave_one_out"}, {"variant": "joint"}, {"variant": "zero"}])
def test_loss_and_gradient_equal_an_independent_recomputation(options):
    model, batch = make(alpha=0.3, beta=0.7, weights={"label": 5.0}, **options), kinds.items(KINDS, n=6)
    there = {m: torch.ones(6, dtype=torch.bool) for m in KINDS}
    if options == {"variant": "zero"}:
        there |= {"image": torch.tensor([1, 0, 1, 1, 0, 1]).bool(), "label": torch.tensor([1, 1, 0, 1, 0, 0]).bool()}
        there["speech"] = torch.tensor([0, 1, 1, 1, 0, 1]).bool()
    found = model.loss(batch, observed=there, generator=torch.Generator().manual_seed(7))["loss"]
    expected = recomputed(model, batch, there, 0.3, 0.7, seed=7)
    assert found.item() == pytest.approx(expected.item(), rel=1e-12)
    kinds.assert_same_gradients(found, expected, model.parameters())


def test_the_divergence_trains_both_encoders():
    model = make()
    terms = model.loss(kinds.items(KINDS), generator=torch.Generator().manual_seed(0))
    for m in KINDS:
        for module in (model.joint_encoder, model.encoders[m]):
            grads = [g for g in kinds.gradients(terms[f"kl/{m}"], module.parameters()) if g is not None]
            assert max(g.abs().max().item() for g in grads) > 0
        others = [p for k, e in model.encoders.items() if k != m for p in e.parameters()] + list(model.decoders.parameters())
        assert all(g is None for g in kinds.gradients(terms[f"kl/{m}"], others))


# --- properties


def test_a_masked_modality_equals_an_absent_one():
    model, batch = make(variant="zero", zero_prob=0.5), kinds.items(KINDS)
    for gone in KINDS:
        masked = model.loss(batch, observed={gone: torch.zeros(12, dtype=torch.bool)}, generator=torch.Generator().manual_seed(0))
        absent = model.loss({m: x for m, x in batch.items() if m != gone}, generator=torch.Generator().manual_seed(0))
        assert masked.keys() == absent.keys() and all(torch.equal(masked[k], absent[k]) for k in masked)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(names=st.permutations(KINDS), rows=st.permutations(range(5)), r=st.integers(1, 3))
def test_order_changes_nothing_and_any_subset_is_finite(names, rows, r):
    batch = kinds.items(KINDS, n=5)
    for model in (make(extension="quotient"), make(variant="zero")):
        shuffled = {m: batch[m][list(rows)] for m in names}
        one, two = model.posterior(batch)["shared"], model.posterior(shuffled)["shared"]
        assert torch.allclose(one.mean[list(rows)], two.mean) and torch.allclose(one.logvar[list(rows)], two.logvar)
        if model.variant == "zero":
            subset = {m: batch[m] for m in names[:r]}
            assert math.isfinite(model.loss(subset)["loss"].item())
            assert all(bool(x.isfinite().all()) for x in (model.translate(subset, m) for m in KINDS))
        q = model.posterior({names[0]: batch[names[0]]})["shared"]
        assert bool(q.mean.isfinite().all()) and bool((q.var > 0).all())


@pytest.mark.parametrize("options", [{}, {"variant": "zero", "zero_prob": 0.5}, {"variant": "joint"}])
def test_verbs_work_for_one_item(options):
    model, g, batch = make(**options), torch.Generator().manual_seed(0), kinds.items(KINDS, n=1)
    assert math.isfinite(model.loss(batch, generator=g)["loss"].item())
    assert model.posterior({}, n=3)["shared"].mean.abs().max().item() == 0
    assert {m: tuple(x.shape) for m, x in model.sample(4, g).items()} == {m: (4, *kinds.KINDS[m][0]) for m in KINDS}
    assert model.translate(batch, "speech", sample=True, generator=g).shape == (1, 5, 4)
    walk = model.traverse({"shared": torch.zeros(3).double()}, 0, torch.linspace(-1, 1, 3).double())
    assert walk["image"].shape == (3, 1, 4, 4)


def test_likelihood_of_a_batch_is_the_sum_of_its_singles_whatever_the_chunking():
    model, batch = lg_jmvae(NAMES, extension="quotient"), {n: torch.randn(4, 1, dtype=torch.float64) for n in NAMES}
    assert_a_batch_is_its_singles(model, batch)
    one = make().eval()
    found = [
        one.log_likelihood(kinds.items(KINDS), samples=8, chunk=8, generator=torch.Generator().manual_seed(0)),
        one.log_likelihood(kinds.items(KINDS), samples=8, chunk=4, generator=torch.Generator().manual_seed(0)),
    ]
    assert torch.allclose(*found)


# --- training, files, networks


@pytest.mark.parametrize("options", [{}, {"variant": "zero", "zero_prob": 0.3}, {"extension": "leave_one_out"}])
def test_it_learns_every_kind_of_modality(options, tmp_path):
    names = tuple(kinds.KINDS) if not options.get("extension") else KINDS
    model, data = make(names, **options).float(), kinds.items(names, n=40, dtype=torch.float32)
    history = fit(model, data, epochs=8, batch_size=20, lr=1e-2, device="cpu", progress=False)
    assert history["loss"][-1] < history["loss"][0]
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    again = make(names, seed=1, **options).float()
    again.load_state_dict(load_file(tmp_path / "model.safetensors"))
    again.eval()
    assert all(torch.equal(again.translate(data, m), model.translate(data, m)) for m in names)


def test_the_networks_of_suzuki_have_the_sizes_of_their_table():
    parts = jmvae_networks()
    count = {k: sum(p.numel() for p in m.parameters()) for k, m in [("joint", parts["joint_encoder"]), *parts["encoders"].items()]}
    head, image, label = 512 * 128 + 128, 784 * 512 + 512, 10 * 512 + 512
    assert count == {
        "joint": image + label + 1024 * 512 + 512 + head,
        "image": image + 512 * 512 + 512 + head,
        "label": label + 512 * 512 + 512 + head,
    }
    decoders = {m: sum(p.numel() for p in d.parameters()) for m, d in parts["decoders"].items()}
    trunk = 64 * 512 + 512 + 512 * 512 + 512
    assert decoders == {"image": trunk + 512 * 784 + 784, "label": trunk + 512 * 10 + 10}
    for preset in JMVAE.PRESETS.values():
        likelihoods = {"image": BernoulliLikelihood(), "label": CategoricalLikelihood()}
        model = MODELS["jmvae"](**parts, likelihoods=likelihoods, latent_dim=64, **preset)
        assert model.sample(2)["image"].shape == (2, 1, 28, 28)


# --- bad input


def test_what_has_no_meaning_says_so():
    batch = kinds.items(KINDS)
    with pytest.raises(NotImplementedError, match="JMVAE-joint has no encoder for 'image' alone"):
        make(variant="joint").posterior({"image": batch["image"]})
    with pytest.raises(NotImplementedError, match=r"JMVAE-kl has no encoder for 'image\+label' alone"):
        make().posterior({m: batch[m] for m in ("label", "image")})
    with pytest.raises(NotImplementedError, match="no encoder for 'image' alone"):
        make(extension="leave_one_out").posterior({"image": batch["image"]})
    with pytest.raises(NotImplementedError, match="JMVAE-kl trains on complete items"):
        make().loss({"image": batch["image"]})
    with pytest.raises(NotImplementedError, match="JMVAE-joint trains on complete items"):
        make(variant="joint").loss(batch, observed={"image": torch.arange(12) > 3})
    with pytest.raises(NotImplementedError, match="no private style"):
        make().swap(batch, batch)


@pytest.mark.parametrize(
    ("options", "error", "sentence"),
    [
        ({"variant": "one"}, KeyError, "unknown variant 'one', known: 'joint', 'zero', 'kl'"),
        ({"extension": "quotent"}, KeyError, "unknown extension 'quotent'.* did you mean 'quotient'"),
        ({"variant": "zero", "extension": "quotient"}, ValueError, "belong to variant 'kl', found variant 'zero'"),
        ({"zero_prob": 0.5}, ValueError, "zero_prob: found 0.5 with variant 'kl'"),
        ({"variant": "zero", "zero_prob": 1.5}, ValueError, "zero_prob: found 1.5"),
        ({"weights": {"lable": 2.0}}, KeyError, "did you mean 'label'"),
    ],
)
def test_bad_options_are_named(options, error, sentence):
    with pytest.raises(error, match=sentence):
        make(**options)


def test_a_quotient_of_vague_encoders_is_refused():
    model = make(extension="quotient")
    with torch.no_grad():
        for encoder in model.encoders.values():
            encoder.head.bias[kinds.LATENT :] = 3.0
    with pytest.raises(ImproperProduct, match="the precision is .* wanted more than 0"):
        model.posterior(kinds.items(("image", "label")))


def test_encoders_must_fit_the_modalities():
    with pytest.raises(ValueError, match=r"encoders are given for \['image'\], wanted \['image', 'label', 'speech'\]"):
        JMVAE(kinds.encoder(KINDS), **kinds.parts(KINDS), encoders={"image": kinds.encoder(("image",))}, variant="kl")
    with pytest.raises(ValueError, match="likelihoods are given for"):
        JMVAE(kinds.encoder(KINDS), **kinds.parts(KINDS) | {"likelihoods": {}})
    with pytest.raises(KeyError, match="'sound' as present"):
        make().loss(kinds.items(KINDS), observed={"sound": torch.ones(12, dtype=torch.bool)})
    with pytest.raises(KeyError, match="unknown modality 'sound'"):
        make().translate(kinds.items(KINDS), "sound")


def test_bad_batches_are_named(as_a_reader):
    batch = kinds.items(KINDS)
    with pytest.raises(ValueError, match=r"'image': found shape \[12, 1, 4, 3\]"):
        make().loss({**batch, "image": batch["image"][..., :3]})
    with pytest.raises(ValueError, match="'speech': item 2 holds NaN"):
        make().loss({**batch, "speech": batch["speech"].masked_fill((torch.arange(12) == 2).view(12, 1, 1), math.nan)})
    with pytest.raises(TypeError, match="'label': found ndarray"):
        make().loss({**batch, "label": batch["label"].numpy()})
    with pytest.raises(ValueError, match="every modality of every item as absent"):
        make(variant="zero").loss(batch, observed={m: torch.zeros(12, dtype=torch.bool) for m in KINDS})
