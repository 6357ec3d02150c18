"""MMVAE on LG3, where its bounds are known, against a recomputation by loops, and what it says to bad input."""

import itertools
import math

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn

from mmvae_lite.bounds import ESTIMATORS
from mmvae_lite.data import LG3, LG3_OBSERVATION
from mmvae_lite.distributions import Laplace, LaplaceLikelihood, Normal, NormalLikelihood
from mmvae_lite.experts import Mixture
from mmvae_lite.models import MMVAE, MODELS, _common
from mmvae_lite.networks import LaplaceEncoder, dense_trunk, mmvae_cub_networks, mmvae_networks
from mmvae_lite.training import fit
from tests import kinds
from tests.linear import F64, NAMES, Affine, linear_decoder, observation

D = torch.distributions
PAIR = ("image", "label")
BOUND_NAMES = ("loose", "tight", "naive", "linear")


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def lg_mmvae(names=NAMES, **options):
    """LG3 with its exact unimodal posteriors as experts."""
    index = [NAMES.index(n) for n in names]
    precisions = [1 + LG3.weights[i] ** 2 / LG3.variances[i] for i in index]
    return MMVAE(
        {n: Affine(LG3.weights[i] / LG3.variances[i] / t, 0, 1 / t) for n, i, t in zip(names, index, precisions)},
        {n: linear_decoder(LG3.weights[i]) for n, i in zip(names, index)},
        {n: NormalLikelihood(math.sqrt(LG3.variances[i])) for n, i in zip(names, index)},
        latent_dim=1,
        **({"prior": "normal", "learn_prior": False} | options),
    )


def make(names=PAIR, seed=0, laplace=True, **options):
    torch.manual_seed(seed)
    encoders = {m: LaplaceEncoder(dense_trunk([kinds.size(m), 8]), 8, kinds.LATENT) for m in names}
    if not laplace:
        encoders = {m: kinds.encoder((m,)) for m in names}
    options = {"samples": 4, "prior": "laplace" if laplace else "normal"} | options
    return MMVAE(encoders, **kinds.parts(names), **options).double()


# ---- known answers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "known"),
    [
        ({"bound": "naive", "samples": 1}, -4.302479),
        ({"samples": 1}, -4.253542),
        ({"samples": 5}, -3.8097),
        ({"samples": 30}, -3.7762),
        ({"samples": 1, "bound": "tight"}, -3.8281),
        ({"samples": 5, "bound": "tight"}, -3.7728),
        ({"samples": 30, "bound": "tight"}, -3.7642),
    ],
)
def test_the_loss_is_the_bound_on_lg3(options, known):
    model, n = lg_mmvae(**options), 200_000 // options["samples"]
    with torch.no_grad():
        values = torch.stack([-model.loss(observation(n=n // 10), generator=generator(s))["loss"] for s in range(10)])
    error = 4 * values.std().item() / math.sqrt(10)
    assert values.mean().item() == pytest.approx(known, abs=error + 1e-4) and error < 0.03


def test_one_expert_and_one_sample_give_the_elbo():
    model, batch = make(("image",), samples=1), kinds.items(("image",))
    terms = model.loss(batch, generator=generator(3))
    q, prior = model.encoders["image"](batch["image"]), model.prior(12)
    z = q.rsample((1,), generator(3))[0]
    expected = prior.log_prob(z) + model.log_px("image", z, batch["image"]) - q.log_prob(z)
    assert -terms["loss"].item() == pytest.approx(expected.mean().item(), abs=1e-12)


def test_one_expert_and_one_sample_give_the_closed_form_elbo_in_expectation():
    model = lg_mmvae(("first",), samples=1)
    found = torch.stack([-model.loss(observation(("first",), 1000), generator=generator(s))["loss"] for s in range(20)])
    assert found.mean().item() == pytest.approx(-1.5155121235, abs=1e-9)  # the posterior is exact: no noise at all
    model.encoders["first"].offset.data += 0.3
    found = torch.stack([-model.loss(observation(("first",), 1000), generator=generator(s))["loss"] for s in range(20)])
    gap = D.kl_divergence(D.Normal(0.8, math.sqrt(0.5)), D.Normal(0.5, math.sqrt(0.5))).item()
    assert found.mean().item() == pytest.approx(-1.5155121235 - gap, abs=4 * found.std().item() / math.sqrt(20))


def test_the_likelihood_tends_to_the_evidence():
    exact = LG3.log_prob(LG3_OBSERVATION).item()
    found = lg_mmvae().log_likelihood(observation(n=4), samples=20_000, chunk=3000, generator=generator())
    assert found.tolist() == pytest.approx([exact] * 4, abs=0.02)


def test_a_likelihood_of_a_batch_is_that_of_its_items_whatever_the_chunks():
    # with every expert at the joint posterior a draw has no influence, so that nothing but the sums is compared
    model = lg_mmvae()
    joint = LG3.posterior(LG3_OBSERVATION)
    for encoder in model.encoders.values():
        encoder.slope.data.zero_(), encoder.offset.data.fill_(joint.mean.item()), encoder.logvar.data.fill_(joint.logvar.item())
    exact = LG3.log_prob(LG3_OBSERVATION).item()
    for chunk in (1, 3, 100):
        assert model.log_likelihood(observation(n=5), samples=7, chunk=chunk).sum().item() == pytest.approx(5 * exact, abs=1e-10)
        assert model.log_likelihood(observation(n=1), samples=7, chunk=chunk).item() == pytest.approx(exact, abs=1e-10)


def test_a_target_under_other_inputs_is_a_marginal_likelihood():
    # the proposal is an expert of another modality; what is estimated stays log p(x_1)
    model, batch = lg_mmvae(), observation(n=3)
    exact = LG3.log_prob({0: LG3_OBSERVATION[0]}).item()
    for names in (("first",), ("first", "third")):
        found = model.log_likelihood({n: batch[n] for n in names}, 20_000, 4000, generator(), target={"first": batch["first"]})
        assert found.tolist() == pytest.approx([exact] * 3, abs=0.05)


# ---- densities ----------------------------------------------------------------------------------------------------


def test_scales_sum_to_the_number_of_dimensions():
    model, batch = make(), kinds.items(PAIR)
    assert model.prior(2).scale.sum(-1).tolist() == pytest.approx([kinds.LATENT] * 2, abs=1e-12)
    model.prior_scale.data = torch.randn(kinds.LATENT).double()
    assert model.prior(2).scale.sum(-1).tolist() == pytest.approx([kinds.LATENT] * 2, abs=1e-12)
    for q in model.experts(batch).values():
        assert q.scale.sum(-1).tolist() == pytest.approx([kinds.LATENT * (1 + 1e-6)] * 12, abs=1e-12)


@pytest.mark.parametrize("prior", ["laplace", "normal"])
def test_the_prior_starts_at_scale_one_and_learns_only_its_scale(prior):
    for learn in (True, False):
        model = make(laplace=prior == "laplace", prior=prior, learn_prior=learn)
        p = model.prior(3)
        assert p.mean.abs().max().item() == 0
        assert (p.scale if prior == "laplace" else p.std).tolist() == [[1.0] * kinds.LATENT] * 3
        model.loss(kinds.items(PAIR), generator=generator())["loss"].backward()
        assert (model.prior_scale.grad is not None and bool(model.prior_scale.grad.abs().max() > 0)) == learn


def test_posterior_is_a_mixture_of_what_is_there():
    model, batch = make(), kinds.items(PAIR)
    both = model.posterior(batch)["shared"]
    assert isinstance(both, Mixture) and len(both.experts) == 2
    assert torch.allclose(both.mean, (both.experts[0].loc + both.experts[1].loc) / 2)
    alone = model.posterior({"label": batch["label"]})["shared"]
    assert isinstance(alone, Laplace) and torch.equal(alone.loc, both.experts[1].loc)


def test_a_mixture_draws_from_each_expert_alike():
    means = torch.tensor([[-100.0], [0.0], [100.0]])
    mixture = Mixture(tuple(Normal(m.expand(9000, 1), torch.zeros(9000, 1)) for m in means))
    z = mixture.draw(generator())
    counts = [int(((z - m).abs() < 10).sum()) for m in means]
    assert z.shape == (9000, 1) and sum(counts) == 9000
    assert sum((c - 3000) ** 2 / 3000 for c in counts) < 13.8  # the 0.999 quantile with 2 degrees of freedom


# ---- the loss by another route ------------------------------------------------------------------------------------


def density(q, i):
    return D.Laplace(q.loc[i], q.scale[i]) if isinstance(q, Laplace) else D.Normal(q.mean[i], (0.5 * q.logvar[i]).exp())


def recomputed_loss(model, batch, there, seed):
    """The objective by loops over items, experts, draws and modalities, with torch.distributions."""
    names, n = list(batch), len(next(iter(batch.values())))
    experts = {m: model.encoders[m](batch[m]) for m in names}
    g = generator(seed)
    z = {m: experts[m].rsample((model.samples,), g) for m in names}
    zero, one = torch.zeros(kinds.LATENT, dtype=F64), torch.ones(kinds.LATENT, dtype=F64)
    logits = model.prior_scale
    prior = D.Laplace(zero, kinds.LATENT * logits.exp() / logits.exp().sum()) if model.prior_family == "laplace" else D.Normal(zero, one * (logits / 2).exp())
    totals = []
    for i in range(n):
        mine = [m for m in names if there[m][i]]
        if not mine:
            continue
        q = {m: density(experts[m], i) for m in mine}
        divergence = {m: D.kl_divergence(q[m], prior).sum() for m in mine}

        def log_px(z, members):
            return sum(model.weights[m] * kinds.log_px(model, m, z, batch[m][i]) for m in members)

        if model.bound == "naive":
            parts = [sum(log_px(z[r][k, i], mine) for k in range(model.samples)) / model.samples - divergence[r] for r in mine]
            totals.append(sum(parts) / len(mine))
        elif model.bound == "linear":
            total = -sum(divergence.values())
            for r, d, k in itertools.product(mine, mine, range(model.samples)):
                point = z[d][k, i]
                ratio = (q[r].log_prob(point.detach()) - density(experts[d].detach(), i).log_prob(point.detach())).sum().exp() if r != d else 1.0
                total = total + ratio * log_px(point if r == d else point.detach(), [d]) / model.samples
            totals.append(total / len(mine))
        else:
            w = {}
            for r, k in itertools.product(mine, range(model.samples)):
                point = z[r][k, i]
                mixture = sum(q[m].log_prob(point).sum().exp() for m in mine) / len(mine)
                w[r, k] = (prior.log_prob(point).sum() + log_px(point, mine)).exp() / mixture
            if model.bound == "tight":
                totals.append((sum(w.values()) / len(w)).log())
            else:
                totals.append(sum((sum(w[r, k] for k in range(model.samples)) / model.samples).log() for r in mine) / len(mine))
    return -sum(totals) / len(totals)


@pytest.mark.parametrize("bound", BOUND_NAMES)
@pytest.mark.parametrize("laplace", [True, False])
@pytest.mark.parametrize("mask", ["everything", "some"])
def test_loss_and_gradient_equal_an_independent_recomputation(bound, laplace, mask):
    names = ("image", "label", "speech")
    model, batch = make(names, laplace=laplace, bound=bound, samples=2, weights={"label": 3.0, "image": 0.4}), kinds.items(names, n=4)
    there = {m: torch.ones(4, dtype=torch.bool) for m in names}
    if mask == "some":
        there = {"image": torch.tensor([1, 0, 0, 1]).bool(), "label": torch.tensor([1, 1, 0, 0]).bool(), "speech": torch.tensor([1, 1, 0, 0]).bool()}
    found = model.loss(batch, observed=there, generator=generator(5))["loss"]
    expected = recomputed_loss(model, batch, there, 5)
    assert found.item() == pytest.approx(expected.item(), rel=1e-10)
    kinds.assert_same_gradients(found, expected, model.parameters())


@pytest.mark.parametrize("bound", ["loose", "tight"])
def test_the_estimator_changes_the_gradient_and_not_the_value(bound):
    batch, losses, grads = kinds.items(PAIR), [], []
    for estimator in ESTIMATORS:
        model = make(bound=bound, estimator=estimator)
        loss = model.loss(batch, generator=generator())["loss"]
        losses.append(loss.item())
        encoder = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.encoders.parameters()), retain_graph=True)])
        rest = torch.cat([g.flatten() for g in torch.autograd.grad(loss, [model.prior_scale, *model.decoders.parameters()])])
        grads.append((encoder, rest))
    assert losses == pytest.approx([losses[0]] * 4, rel=1e-12)
    for (one, rest), (two, other) in itertools.combinations(grads, 2):
        assert not torch.allclose(one, two, rtol=1e-3)
        assert torch.allclose(rest, other, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("bound", "estimator"), [("loose", "dreg_mix"), ("loose", "iwae"), ("tight", "dreg"), ("linear", "iwae"), ("naive", "iwae")])
@pytest.mark.parametrize("chunk", [5, 14, 1000])
def test_chunks_change_neither_value_nor_gradient(bound, estimator, chunk):
    batch, losses = kinds.items(PAIR, n=6), []
    model = make(bound=bound, estimator=estimator)
    for model.chunk in (None, chunk):
        losses.append(model.loss(batch, generator=generator()))
    assert all(losses[0][k].item() == pytest.approx(losses[1][k].item(), rel=1e-12) for k in losses[0])
    kinds.assert_same_gradients(losses[0]["loss"], losses[1]["loss"], model.parameters())


@pytest.mark.parametrize("at_once", [1, 7, 20, 25])
def test_draws_that_pass_through_a_decoder_a_few_at_a_time_change_nothing(monkeypatch, at_once):
    batch, losses, passes = kinds.items(PAIR, n=6), [], []
    model = make(bound="tight", samples=5)
    for decoder in model.decoders.values():
        decoder.register_forward_hook(lambda module, args, out: passes.append(len(out)))
    for size in (10_000, at_once):
        monkeypatch.setattr(_common, "AT_ONCE", size)
        losses.append(model.loss(batch, generator=generator()))
    assert passes[:2] == [60, 60] and set(passes[2:]) <= {6 * max(1, at_once // 6), 60 % (6 * max(1, at_once // 6))}
    assert all(losses[0][k].item() == pytest.approx(losses[1][k].item(), rel=1e-12) for k in losses[0])
    kinds.assert_same_gradients(losses[0]["loss"], losses[1]["loss"], model.parameters())


def test_a_decoder_with_batch_norm_sees_all_draws_at_once(monkeypatch):
    monkeypatch.setattr(_common, "AT_ONCE", 6)
    seen, decoder = [], nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5)).double()
    decoder[0].register_forward_hook(lambda module, args, out: seen.append(len(out)))
    z, x = torch.randn(5, 6, 3, generator=generator(), dtype=F64), torch.randn(6, 5, generator=generator(), dtype=F64)
    found = _common.score(decoder, NormalLikelihood(0.5), z, x)
    assert seen == [30] and torch.allclose(found, NormalLikelihood(0.5).log_prob(decoder(z.flatten(0, 1)).unflatten(0, (5, 6)), x))
    decoder.eval()
    _common.score(decoder, NormalLikelihood(0.5), z, x)
    assert seen[2:] == [6] * 5


def test_chunks_hold_fewer_activations():
    held = []
    for chunk in (None, 6):
        model, batch, total = make(samples=20, chunk=chunk), kinds.items(PAIR), []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: total.append(t.numel()) or t, lambda t: t):
            model.loss(batch, generator=generator())
        held.append(sum(total))
    assert held[1] < held[0] / 2


def test_linear_time_decodes_each_draw_once():
    for bound, passes in (("loose", 4), ("linear", 2)):
        model, seen = make(bound=bound, samples=3), []
        for decoder in model.decoders.values():
            decoder.register_forward_hook(lambda module, args, out: seen.append(len(out)))
        model.loss(kinds.items(PAIR))
        assert sum(seen) == passes * 3 * 12


# ---- subsets, items, properties -----------------------------------------------------------------------------------


@pytest.mark.parametrize("bound", BOUND_NAMES)
def test_a_masked_modality_equals_an_absent_one(bound):
    model, batch = make(bound=bound), kinds.items(PAIR)
    absent = {"label": torch.zeros(12, dtype=torch.bool)}
    masked = model.loss(batch, observed=absent, generator=generator())
    alone = model.loss({"image": batch["image"]}, generator=generator())
    assert masked.keys() == alone.keys() == {"loss", "image/recon/image", "image/kl"}
    assert all(masked[k].item() == pytest.approx(alone[k].item(), rel=1e-12) for k in masked)


def test_named_terms_are_means_over_the_items_that_have_both_modalities():
    model, batch = make(), kinds.items(PAIR, n=4)
    there = {"label": torch.tensor([1, 1, 0, 0]).bool(), "image": torch.tensor([1, 0, 1, 0]).bool()}
    terms, g = model.loss(batch, observed=there, generator=generator(3)), generator(3)
    experts = {m: model.encoders[m](batch[m]) for m in PAIR}
    draws = {m: q.rsample((4,), g) for m, q in experts.items()}
    for r, m in itertools.product(PAIR, PAIR):
        rows = [i for i in range(4) if there[r][i] and there[m][i]]
        values = [kinds.log_px(model, m, draws[r][k, i], batch[m][i]).item() for i in rows for k in range(4)]
        assert terms[f"{r}/recon/{m}"].item() == pytest.approx(sum(values) / len(values), rel=1e-10)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_an_item_that_lacks_a_modality_teaches_that_modality_nothing(estimator):
    model, batch = make(estimator=estimator), kinds.items(PAIR, n=4)
    there = {"label": torch.tensor([1, 1, 0, 0]).bool(), "image": torch.tensor([1, 1, 1, 0]).bool()}
    batch = {m: x.requires_grad_() for m, x in batch.items()}
    loss = model.loss(batch, observed=there, generator=generator())["loss"]
    for m, grad in zip(batch, torch.autograd.grad(loss, list(batch.values()))):
        assert bool(torch.isfinite(grad).all())
        assert grad[~there[m]].abs().sum().item() == 0 and grad[there[m]].abs().sum().item() > 0


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    subset=st.sets(st.sampled_from(list(kinds.KINDS)), min_size=1),
    bound=st.sampled_from(BOUND_NAMES),
    n=st.integers(1, 4),
    seed=st.integers(0, 100),
)
def test_any_subset_is_finite_and_its_order_does_not_matter(subset, bound, n, seed):
    names = [m for m in kinds.KINDS if m in subset]
    model, batch = make(tuple(kinds.KINDS), bound=bound, samples=2), kinds.items(names, n=n)
    terms = model.loss(batch, generator=generator(seed))
    assert all(math.isfinite(v.item()) for v in terms.values())
    one, two = model.posterior(batch)["shared"], model.posterior(dict(reversed(batch.items())))["shared"]
    assert torch.allclose(one.mean, two.mean)
    z = one.mean + 0.1
    assert torch.allclose(one.log_prob(z), two.log_prob(z))


def test_the_order_of_items_does_not_matter():
    model, batch = make(), kinds.items(PAIR)
    order = torch.randperm(12, generator=generator(1))
    shuffled = {m: x[order] for m, x in batch.items()}
    one, two = model.posterior(batch)["shared"], model.posterior(shuffled)["shared"]
    z = torch.randn(5, 12, kinds.LATENT, dtype=F64, generator=generator())
    assert torch.allclose(one.log_prob(z)[:, order], two.log_prob(z[:, order]))
    for m in PAIR:
        assert torch.allclose(model.log_px(m, z, batch[m])[:, order], model.log_px(m, z[:, order], shuffled[m]))


@pytest.mark.parametrize("bound", BOUND_NAMES)
def test_a_target_can_differ_from_the_input(bound):
    model, noisy = make(bound=bound), kinds.items(PAIR)
    clean = {m: x.clone() for m, x in noisy.items()}
    clean["image"] = clean["image"].round()
    one, two = (model.loss(noisy, target=t, generator=generator()) for t in (None, clean))
    assert one["image/kl"].item() == two["image/kl"].item() and one["loss"].item() != two["loss"].item()


def test_a_translation_decodes_the_mean_of_the_mixture_or_a_draw_of_one_expert():
    model, batch = make(), kinds.items(PAIR, n=40)
    decoder, experts = model.decoders["image"], [model.encoders[m](batch[m]) for m in PAIR]
    assert torch.allclose(model.translate(batch, "image"), decoder((experts[0].loc + experts[1].loc) / 2).sigmoid().detach())
    g = generator(2)
    draws = [decoder(q.rsample(generator=g)).sigmoid() for q in experts]
    found = model.translate(batch, "image", sample=True, generator=generator(2))
    first, second = (torch.isclose(found, x).flatten(1).all(1) for x in draws)
    assert bool((first ^ second).all()) and 8 < int(first.sum()) < 32


def test_samples_are_decoded_draws_of_the_learnt_prior():
    model = make()
    model.prior_scale.data = torch.tensor([0.0, 2.0, -1.0], dtype=F64)
    z = Laplace(torch.zeros(5, 3, dtype=F64), 3 * model.prior_scale.softmax(0).expand(5, 3)).rsample(generator=generator(4))
    found = model.sample(5, generator(4))
    assert torch.allclose(found["image"], model.decoders["image"](z).sigmoid())
    assert torch.allclose(found["label"], model.decoders["label"](z).softmax(-1))


def test_a_likelihood_has_no_weights():
    batch = kinds.items(PAIR, n=3)
    one, two = (make(weights=w).log_likelihood(batch, 5, generator=generator()) for w in (None, {"label": 7.0}))
    assert torch.equal(one, two)


def test_verbs_have_the_promised_shapes_even_for_one_item():
    model, batch = make(), kinds.items(PAIR, n=1)
    assert model.translate({"label": batch["label"]}, "image").shape == (1, 1, 4, 4)
    found = model.translate(batch, "label", sample=True, generator=generator())
    assert found.shape == (1, 3) and found.sum().item() == pytest.approx(1)
    assert {m: tuple(x.shape) for m, x in model.sample(4, generator()).items()} == {"image": (4, 1, 4, 4), "label": (4, 3)}
    walk = model.traverse({"shared": torch.zeros(3, dtype=F64)}, 1, torch.linspace(-1, 1, 5).double())
    assert walk["label"].shape == (5, 3)
    assert model.log_likelihood(batch, 3).shape == (1,)


# ---- training -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"bound": "tight", "estimator": "dreg_mix"}, {"estimator": "dreg", "chunk": 100}, {"estimator": "stl"}, {"bound": "linear"}, {"bound": "naive", "laplace": False}])
def test_it_learns_every_kind_of_modality(options):
    names = tuple(kinds.KINDS)
    model, batch = make(names, samples=2, **options).float(), kinds.items(names, n=32, dtype=torch.float32)
    history = fit(model, batch, epochs=12, batch_size=32, lr=2e-2, progress=False)
    assert history["loss"][-1] < history["loss"][0] - 2


def test_weights_survive_the_file_to_the_bit(tmp_path):
    model, batch = make(), kinds.items(PAIR)
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    other = make(seed=9)
    other.load_state_dict(load_file(tmp_path / "model.safetensors"))
    one, two = (m.loss(batch, generator=generator())["loss"] for m in (model, other))
    assert one.item() == two.item()


@pytest.mark.parametrize("preset", MMVAE.PRESETS)
def test_presets_build_the_paper_s_model(preset):
    likelihoods = {m: LaplaceLikelihood(0.75) for m in ("mnist", "svhn")}
    torch.manual_seed(0)
    model = MMVAE(**mmvae_networks(), likelihoods=likelihoods, **(MMVAE.PRESETS[preset] | {"samples": 2}))
    assert model.event_shapes == {"mnist": (1, 28, 28), "svhn": (3, 32, 32)}
    batch = {"mnist": torch.rand(2, 1, 28, 28), "svhn": torch.rand(2, 3, 32, 32)}
    assert math.isfinite(model.loss(batch, generator=generator())["loss"].item())
    assert model.weights["mnist"] == (1.0 if preset == "paper" else pytest.approx(3.918, abs=1e-3))


def count(module):
    return sum(p.numel() for p in module.parameters())


def test_networks_have_the_papers_sizes():
    nets, d = mmvae_networks(20), 20
    dense = 784 * 400 + 400
    assert count(nets["encoders"]["mnist"]) == dense + 2 * (400 * d + d)
    assert count(nets["decoders"]["mnist"]) == d * 400 + 400 + 400 * 784 + 784
    down = (3 * 32 + 32 * 64 + 64 * 128) * 16 + 32 + 64 + 128
    assert count(nets["encoders"]["svhn"]) == down + 2 * (128 * 16 * d + d)
    assert count(nets["decoders"]["svhn"]) == (d * 128 + 128 * 64 + 64 * 32 + 32 * 3) * 16 + 128 + 64 + 32 + 3


def test_networks_for_birds_have_the_code_s_sizes():
    nets, d, vocabulary = mmvae_cub_networks(64), 64, 1590
    halves = sum(a * b + b for a, b in ((2048, 1024), (1024, 512), (512, 256)))
    assert count(nets["encoders"]["image"]) == halves + 2 * (256 * d + d)
    assert count(nets["decoders"]["image"]) == sum(a * b + b for a, b in ((d, 256), (256, 512), (512, 1024), (1024, 2048)))
    kernels = (1 * 32 + 32 * 64 + 64 * 128) * 16 + 2 * 128 * 128 * 4
    norms = 2 * (32 + 64 + 128 * 3)
    embedding = vocabulary * 128
    assert count(nets["encoders"]["caption"]) == embedding + kernels + norms + 2 * (128 * 16 * d + d)
    assert count(nets["decoders"]["caption"]) == d * 128 * 16 + kernels + norms + embedding + vocabulary
    assert nets["decoders"]["caption"][-1].weight is nets["encoders"]["caption"].trunk[0].weight


def test_networks_for_birds_read_and_write_captions():
    torch.manual_seed(0)
    nets = mmvae_cub_networks(4, vocabulary=11, positions=16)
    words = nn.functional.one_hot(torch.randint(11, (3, 16), generator=generator()), 11).float()
    q = nets["encoders"]["caption"](words)
    assert isinstance(q, Laplace) and q.loc.shape == (3, 4)
    assert nets["decoders"]["caption"](q.loc).shape == (3, 16, 11)
    assert isinstance(mmvae_cub_networks(4, 11, 16, laplace=False)["encoders"]["caption"](words), Normal)
    with pytest.raises(ValueError, match="positions: found 12, wanted a multiple of 8"):
        mmvae_cub_networks(positions=12)


# ---- bad input ----------------------------------------------------------------------------------------------------


def test_bad_input_is_named(as_a_reader):
    model, batch = make(), kinds.items(PAIR)
    with pytest.raises(NotImplementedError, match="MMVAE has one shared latent and no private style"):
        model.swap({}, {})
    with pytest.raises(ValueError, match="the batch is empty"):
        model.posterior({})
    with pytest.raises(KeyError, match="did you mean 'image'"):
        model.loss({"imag": batch["image"]})
    with pytest.raises(ValueError, match=r"'image': found shape \[12, 4, 4\], wanted \[batch, 1, 4, 4\]"):
        model.loss({"image": batch["image"][:, 0]})
    with pytest.raises(ValueError, match="target holds 3 items and the batch 12"):
        model.log_likelihood(batch, 2, target={"image": batch["image"][:3]})
    with pytest.raises(KeyError, match="target lacks modality 'label'"):
        model.loss(batch, target={"image": batch["image"]})
    with pytest.raises(KeyError, match="latents: found 'c', wanted 'shared'"):
        model.decode({"c": torch.zeros(1, 3).double()})
    with pytest.raises(ValueError, match=r"latents\['shared'\]: found shape \[1, 4\], wanted 3 numbers"):
        model.decode({"shared": torch.zeros(1, 4).double()})
    with pytest.raises(ValueError, match="every modality of every item as absent"):
        model.loss(batch, observed={m: torch.zeros(12, dtype=torch.bool) for m in batch})
    for options, sentence in (
        ({"bound": "losse"}, "unknown bound 'losse'.* did you mean 'loose'"),
        ({"estimator": "dregs"}, "unknown estimator 'dregs'.* did you mean 'dreg'"),
        ({"prior": "cauchy"}, "unknown prior 'cauchy', known: 'laplace', 'normal'"),
        ({"weights": {"imag": 1.0}}, "did you mean 'image'"),
    ):
        with pytest.raises(KeyError, match=sentence):
            make(**options)
    for options, sentence in (
        ({"samples": 0}, "samples: found 0"),
        ({"chunk": 0}, "chunk: found 0"),
        ({"bound": "linear", "estimator": "dreg"}, "estimator 'dreg' is for the bounds 'loose' and 'tight'"),
    ):
        with pytest.raises(ValueError, match=sentence):
            make(**options)


def test_it_is_among_the_models():
    assert MODELS["mmvae"] is MMVAE
