"""TELBO against exact posteriors, its stop-gradients, an independent recomputation of its loss, and bad input."""

import math

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn

from mmvae_lite.data import LG3, LG3_OBSERVATION
from mmvae_lite.distributions import BernoulliLikelihood, CategoricalLikelihood, kl
from mmvae_lite.models import JMVAE, TELBO
from mmvae_lite.networks import jmvae_networks
from mmvae_lite.training import fit
from tests import kinds
from tests.linear import NAMES, assert_a_batch_is_its_singles, lg_parts, lg_posterior, objective, observation

PAIR = NAMES[:2]
KINDS = ("image", "label", "speech")


def lg_telbo(names=PAIR, **options):
    return TELBO(lg_posterior(names), {n: lg_posterior((n,)) for n in names}, **lg_parts(names), **options)


def make(names=KINDS, seed=0, **options):
    torch.manual_seed(seed)
    encoders = {m: kinds.encoder((m,)) for m in names}
    return TELBO(kinds.encoder(names), encoders, **kinds.parts(names), **options).double()


def loss(model, batch=None, seed=0, **more):
    return model.loss(batch or kinds.items(KINDS), generator=torch.Generator().manual_seed(seed), **more)


# --- known answers on LG3


def test_exact_encoders_make_the_loss_a_sum_of_three_evidences(monkeypatch):
    assert objective(monkeypatch, lg_telbo(), observation(PAIR, 2)) == pytest.approx(-6.4895931, abs=1e-7)


def test_posteriors_and_likelihoods_are_exact_on_lg3():
    model = lg_telbo(NAMES)
    for names in [*((n,) for n in NAMES), NAMES]:
        x = {NAMES.index(n): LG3_OBSERVATION[NAMES.index(n)] for n in names}
        assert kl(model.posterior(observation(names))["shared"], LG3.posterior(x)).abs().max().item() < 1e-12
        found = model.log_likelihood(observation(names, 3), samples=5, chunk=2)
        assert found.tolist() == pytest.approx([LG3.log_prob(x).item()] * 3, abs=1e-9)


def test_one_modality_gives_the_elbo_twice_and_the_decoder_s_gradient_once():
    shared = kinds.encoder(("image",)).double()
    model = TELBO(shared, {"image": shared}, **kinds.parts(("image",))).double()
    batch = kinds.items(("image",))
    terms = loss(model, batch)
    joint = -(terms["joint/recon/image"] - terms["joint/kl"])
    again = -(terms["image/recon/image"] - terms["image/kl"])
    assert terms["loss"].item() == pytest.approx((joint + again).item(), rel=1e-12)
    assert terms["joint/kl"].item() == terms["image/kl"].item()
    kinds.assert_same_gradients(terms["loss"], joint, model.decoders.parameters())
    both = [a + b for a, b in zip(kinds.gradients(joint, shared.parameters()), kinds.gradients(again, shared.parameters()))]
    assert all(torch.allclose(a, b) for a, b in zip(both, kinds.gradients(terms["loss"], shared.parameters())))


# --- stop-gradients


def test_decoders_learn_from_the_joint_elbo_alone():
    model = make(unimodal_weights={"image": 7.0})
    joint = JMVAE(model.joint_encoder, dict(model.decoders), model.likelihoods, kinds.LATENT)
    alone = loss(joint)["loss"]
    for parameters in (model.decoders.parameters(), model.joint_encoder.parameters()):
        parameters = list(parameters)
        pairs = zip(kinds.gradients(loss(model)["loss"], parameters), kinds.gradients(alone, parameters))
        assert max((a - b).abs().max().item() for a, b in pairs) == 0


@pytest.mark.parametrize("predict_both", [False, True])
def test_unimodal_brackets_train_their_own_encoder_alone(predict_both):
    model = make(predict_both=predict_both)
    terms = loss(model)
    for m in KINDS:
        bracket = sum(terms[f"{m}/recon/{name}"] for name in (KINDS if predict_both else (m,))) - terms[f"{m}/kl"]
        own, others = model.encoders[m], [model.joint_encoder, model.decoders, *(e for k, e in model.encoders.items() if k != m)]
        assert max(g.abs().max().item() for g in kinds.gradients(bracket, own.parameters())) > 0
        assert all(g is None for module in others for g in kinds.gradients(bracket, module.parameters()))


def test_the_joint_bracket_does_not_reach_the_unimodal_encoders():
    one, two = make(), make(weights=dict.fromkeys(KINDS, 9.0))
    kinds_of = [kinds.gradients(loss(m)["loss"], m.encoders.parameters()) for m in (one, two)]
    assert all(torch.equal(a, b) for a, b in zip(*kinds_of))
    assert loss(one)["loss"].item() != loss(two)["loss"].item()


def test_two_stages_give_the_same_joint_model_as_one():
    def trained(epochs, **options):
        model = make()
        history = fit(model, kinds.items(KINDS), epochs=epochs, batch_size=5, lr=1e-2, device="cpu", progress=False, **options)
        return model, history

    def same(one, two):
        return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values()))

    one, one_history = trained(3)
    two, two_history = trained(3, frozen=make().two_stages(3))  # a schedule for another model freezes nothing here
    assert same(one, two)
    staged = make()
    before = {k: v.clone() for k, v in staged.encoders.state_dict().items()}
    history = fit(
        staged, kinds.items(KINDS), epochs=3, batch_size=5, lr=1e-2, device="cpu", progress=False, frozen=staged.two_stages(3)
    )
    assert same(one.decoders, staged.decoders) and same(one.joint_encoder, staged.joint_encoder)
    for term in ("joint/kl", *(f"joint/recon/{m}" for m in KINDS)):
        assert one_history[term] == history[term] == two_history[term]
    assert all(torch.equal(before[k], v) for k, v in staged.encoders.state_dict().items())
    second = make()
    fit(second, kinds.items(KINDS), epochs=5, batch_size=5, lr=1e-2, device="cpu", progress=False, frozen=second.two_stages(3))
    assert same(one.decoders, second.decoders) and same(one.joint_encoder, second.joint_encoder)
    assert not torch.equal(second.encoders["image"].head.weight, make().encoders["image"].head.weight)


def test_running_statistics_follow_the_joint_posterior():
    torch.manual_seed(0)
    decoder = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))
    parts = {"decoders": {"label": decoder}, "likelihoods": {"label": CategoricalLikelihood()}, "latent_dim": 3}
    model = TELBO(kinds.encoder(("label",)), {"label": kinds.encoder(("label",))}, **parts).double()
    batch = kinds.items(("label",))
    loss(model, batch)
    assert decoder[1].num_batches_tracked.item() == 1
    # the frozen decoder normalises as the other does, and stays in training mode
    z = kinds.noise(12, 3, seed=0)
    frozen = model.log_px_frozen("label", z, batch["label"])
    assert model.training and decoder.training and torch.equal(frozen, model.log_px("label", z, batch["label"]))


# --- an independent second computation


def recomputed(model, batch, there, seed, beta, predict_both):
    """The three kinds of brackets by loops over items, with torch.distributions."""
    n, g, prior, total = 6, torch.Generator().manual_seed(seed), torch.distributions.Normal(0.0, 1.0), 0.0
    complete = [all(bool(there[m][i]) for m in KINDS) for i in range(n)]
    brackets = [("joint", lambda i: model.joint_encoder({m: batch[m][i : i + 1] for m in KINDS}), complete, KINDS, model.weights)]
    for m in KINDS:
        names = KINDS if predict_both else (m,)
        brackets.append((m, lambda i, m=m: model.encoders[m](batch[m][i : i + 1]), there[m], names, model.unimodal_weights))
    for bracket, encode, has, names, weights in brackets:
        eps = torch.randn(n, kinds.LATENT, dtype=torch.float64, generator=g)
        sums = {}
        for i in range(n):
            if has[i]:
                q = kinds.density(encode(i), 0)
                z = q.loc + q.scale * eps[i]
                sums.setdefault("kl", []).append(-beta * kinds.divergence(q, prior))
                for name in names:
                    if there[name][i]:
                        sums.setdefault(name, []).append(weights[name] * kinds.log_px(model, name, z, batch[name][i]))
        total = total + sum(torch.stack(values).mean() for values in sums.values())
    return -total


@pytest.mark.parametrize("predict_both", [False, True])
@pytest.mark.parametrize("mask", ["everything", "some"])
def test_loss_and_gradient_equal_an_independent_recomputation(mask, predict_both):
    model = make(beta=0.7, weights={"label": 5.0}, unimodal_weights={"label": 3.0, "image": 2.0}, predict_both=predict_both)
    batch, there = kinds.items(KINDS, n=6), {m: torch.ones(6, dtype=torch.bool) for m in KINDS}
    if mask == "some":
        there = {"image": torch.tensor([1, 0, 1, 1, 0, 1]).bool(), "label": torch.tensor([1, 1, 0, 1, 0, 0]).bool()}
        there["speech"] = torch.tensor([1, 1, 1, 0, 0, 1]).bool()
    found = loss(model, batch, seed=7, observed=there)["loss"]
    expected = recomputed(model, batch, there, 7, 0.7, predict_both)
    assert found.item() == pytest.approx(expected.item(), rel=1e-12)
    kinds.assert_same_gradients(found, expected, [*model.encoders.parameters(), *model.joint_encoder.parameters()])


# --- properties


def test_a_masked_modality_equals_an_absent_one():
    model, batch = make(), kinds.items(KINDS)
    for gone in KINDS:
        masked = loss(model, batch, observed={gone: torch.zeros(12, dtype=torch.bool)})
        absent = loss(model, {m: x for m, x in batch.items() if m != gone})
        assert masked.keys() == absent.keys() and "joint/kl" not in masked
        assert all(torch.equal(masked[k], absent[k]) for k in masked)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(names=st.permutations(KINDS), rows=st.permutations(range(5)), r=st.integers(1, 3))
def test_order_changes_nothing_and_any_subset_is_finite(names, rows, r):
    model, batch = make(), kinds.items(KINDS, n=5)
    shuffled = {m: batch[m][list(rows)] for m in names}
    one, two = model.posterior(batch)["shared"], model.posterior(shuffled)["shared"]
    assert torch.allclose(one.mean[list(rows)], two.mean) and torch.allclose(one.logvar[list(rows)], two.logvar)
    assert loss(model, batch)["loss"].item() == pytest.approx(loss(model, {m: batch[m] for m in names})["loss"].item(), rel=1e-12)
    assert math.isfinite(loss(model, {m: batch[m] for m in names[:r]})["loss"].item())


def test_verbs_work_for_one_item():
    model, g, batch = make(), torch.Generator().manual_seed(0), kinds.items(KINDS, n=1)
    assert math.isfinite(loss(model, batch)["loss"].item())
    assert model.posterior({}, n=3)["shared"].mean.abs().max().item() == 0
    assert {m: tuple(x.shape) for m, x in model.sample(4, g).items()} == {m: (4, *kinds.KINDS[m][0]) for m in KINDS}
    assert model.translate({"label": batch["label"]}, "speech", sample=True, generator=g).shape == (1, 5, 4)
    walk = model.traverse({"shared": torch.zeros(3).double()}, 0, torch.linspace(-1, 1, 3).double())
    assert walk["image"].shape == (3, 1, 4, 4)
    target = {**batch, "image": 1 - batch["image"]}
    assert loss(model, batch, target=target)["loss"].item() != loss(model, batch)["loss"].item()


def test_likelihood_of_a_batch_is_the_sum_of_its_singles_whatever_the_chunking():
    model, batch = lg_telbo(NAMES), {n: torch.randn(4, 1, dtype=torch.float64) for n in NAMES}
    assert_a_batch_is_its_singles(model, batch)
    found = [make().log_likelihood(kinds.items(KINDS), 8, chunk, torch.Generator().manual_seed(0)) for chunk in (8, 4)]
    assert torch.allclose(*found)


# --- training and files


def test_it_learns_every_kind_of_modality(tmp_path):
    names = tuple(kinds.KINDS)
    model, data = make(names).float(), kinds.items(names, n=40, dtype=torch.float32)
    history = fit(model, data, epochs=8, batch_size=20, lr=1e-2, device="cpu", progress=False)
    assert history["loss"][-1] < history["loss"][0]
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    again = make(names, seed=1).float()
    again.load_state_dict(load_file(tmp_path / "model.safetensors"))
    again.eval()
    assert all(torch.equal(again.translate(data, m), model.translate(data, m)) for m in names)


def test_presets_build_a_model():
    likelihoods = {"image": BernoulliLikelihood(), "label": CategoricalLikelihood()}
    built = {name: TELBO(**jmvae_networks(4, 8), likelihoods=likelihoods, latent_dim=4, **p) for name, p in TELBO.PRESETS.items()}
    assert built["paper"].weights == built["paper"].unimodal_weights == {"image": 1.0, "label": 1.0}
    assert (built["code"].weights["label"], built["code"].unimodal_weights["label"]) == (10.0, 50.0)


# --- bad input


def test_what_has_no_meaning_says_so():
    batch = kinds.items(KINDS)
    with pytest.raises(NotImplementedError, match=r"TELBO has no encoder for 'image\+label'"):
        make().posterior({m: batch[m] for m in ("label", "image")})
    with pytest.raises(NotImplementedError, match="no private style"):
        make().swap(batch, batch)
    with pytest.raises(KeyError, match="target lacks modality 'label', which the batch holds"):
        make().loss(batch, target={"image": batch["image"], "speech": batch["speech"]})
    with pytest.raises(ValueError, match=r"decoders are given for \['image'\], wanted \['label'\]"):
        TELBO(kinds.encoder(("label",)), {"label": kinds.encoder(("label",))}, **kinds.parts(("image",)))
    with pytest.raises(KeyError, match="did you mean 'label'"):
        make(unimodal_weights={"lable": 2.0})


def test_bad_batches_are_named(as_a_reader):
    batch = kinds.items(KINDS)
    with pytest.raises(ValueError, match=r"'image': found shape \[12, 1, 4, 3\]"):
        make().loss({**batch, "image": batch["image"][..., :3]})
    with pytest.raises(ValueError, match="'speech': item 2 holds NaN"):
        make().loss({**batch, "speech": batch["speech"].masked_fill((torch.arange(12) == 2).view(12, 1, 1), math.nan)})
    with pytest.raises(TypeError, match="'label': found ndarray"):
        make().loss({**batch, "label": batch["label"].numpy()})
    with pytest.raises(ValueError, match="every modality of every item as absent"):
        make().loss(batch, observed={m: torch.zeros(12, dtype=torch.bool) for m in KINDS})
    with pytest.raises(ValueError, match=r"observed\['label'\]: found torch.bool of shape \[5\]"):
        make().loss(batch, observed={"label": torch.ones(5, dtype=torch.bool)})
