"""MVAE against exact posteriors, an independent recomputation of its loss, and bad input."""

import itertools
import math
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from mmvae_lite.data import LG3, LG3_OBSERVATION
from mmvae_lite.distributions import BernoulliLikelihood, CategoricalLikelihood, kl
from mmvae_lite.models import MVAE
from mmvae_lite.models.mvae import random_subsets
from mmvae_lite.networks import image_decoder, image_encoder, label_decoder, label_encoder
from mmvae_lite.training import fit
from tests import kinds
from tests.linear import NAMES, assert_a_batch_is_its_singles, lg_mvae, observation

D = torch.distributions


@pytest.mark.equation("eq-mvae-posterior")
def test_posteriors_of_all_subsets_are_exact_on_lg3():
    model = lg_mvae()
    for r in (1, 2, 3):
        for names in itertools.combinations(NAMES, r):
            exact = LG3.posterior({NAMES.index(n): LG3_OBSERVATION[NAMES.index(n)] for n in names})
            found = model.posterior(observation(names))["shared"]
            assert kl(found, exact).abs().max().item() < 1e-12
    full, pair = (model.posterior(observation(names))["shared"] for names in (NAMES, NAMES[:2]))
    assert (full.precision.item(), full.mean.item()) == pytest.approx((8, 0.625))
    assert (pair.precision.item(), pair.mean.item()) == pytest.approx((6, 2 / 3))


def test_no_modality_gives_the_prior():
    q = lg_mvae().posterior({}, n=3)["shared"]
    assert q.mean.shape == (3, 1) and kl(q, lg_mvae().prior(3)).abs().max().item() == 0


def test_the_order_of_modalities_does_not_matter():
    model, batch = lg_mvae(), observation()
    one = model.posterior(batch)["shared"]
    two = model.posterior(dict(reversed(batch.items())))["shared"]
    assert torch.allclose(one.mean, two.mean) and torch.allclose(one.var, two.var)


@pytest.mark.equation("eq-mvae-loss")
def test_exact_experts_make_the_loss_a_sum_of_evidences():
    names, g = NAMES[:2], torch.Generator().manual_seed(0)
    with torch.no_grad():
        values = torch.stack([-lg_mvae(names).loss(observation(names, 20_000), generator=g)["loss"] for _ in range(40)])
    error = 4 * values.std().item() / math.sqrt(len(values))
    assert values.mean().item() == pytest.approx(-6.4895931, abs=error)
    assert error < 0.02


def test_random_subsets_have_uniform_sizes_and_are_never_full_or_single():
    g = torch.Generator().manual_seed(0)
    names = tuple("abcde")
    drawn = [random_subsets(names, 1, g)[0] for _ in range(6000)]
    sizes = Counter(map(len, drawn))
    assert set(sizes) == {2, 3, 4}
    chi2 = sum((n - 2000) ** 2 / 2000 for n in sizes.values())
    assert chi2 < 13.8  # the 0.999 quantile with 2 degrees of freedom
    within = Counter(s for s in drawn if len(s) == 2)
    assert len(within) == 10 and max(within.values()) < 2 * min(within.values())


def test_random_subsets_of_one_step_differ_and_run_out_gracefully():
    g = torch.Generator().manual_seed(0)
    for _ in range(50):
        drawn = random_subsets(tuple("abcd"), 3, g)
        assert len(set(drawn)) == len(drawn)
    assert random_subsets(("a", "b"), 3, g) == []
    assert 1 <= len(random_subsets(("a", "b", "c"), 9, g)) <= 3


def image_label_mvae(D_z=5, seed=0, **options):
    torch.manual_seed(seed)
    return MVAE(
        {"image": image_encoder(D_z, (16, 16)), "label": label_encoder(D_z, hidden=(8, 8))},
        {"image": image_decoder(D_z, (16, 16)), "label": label_decoder(D_z, hidden=(8, 8))},
        {"image": BernoulliLikelihood(), "label": CategoricalLikelihood()},
        D_z,
        **({"weights": {"label": 50.0}} | options),
    ).double()


def image_label_batch(n=6):
    g = torch.Generator().manual_seed(1)
    labels = torch.nn.functional.one_hot(torch.arange(n) % 10, 10).double()
    return {"image": torch.rand(n, 1, 28, 28, dtype=torch.float64, generator=g), "label": labels}


def recomputed_loss(model, batch, there, noise, beta=1.0):
    """The objective by explicit loops over subsets and items, with torch.distributions."""
    n = len(batch["image"])
    total = 0.0
    for s, subset in enumerate([("image", "label"), ("image",), ("label",)]):
        recon, divergence = {m: [] for m in subset}, []
        for i in range(n):
            members = [m for m in subset if there[m][i]]
            if not members:
                continue
            precision, eta = torch.ones(model.latent_dim).double(), torch.zeros(model.latent_dim).double()
            for m in members:
                expert = model.encoders[m](batch[m][i : i + 1])
                precision = precision + 1 / expert.logvar[0].exp()
                eta = eta + expert.mean[0] / expert.logvar[0].exp()
            q = D.Normal(eta / precision, precision.rsqrt())
            z = q.loc + q.scale * noise[s, i]
            divergence.append(D.kl_divergence(q, D.Normal(0.0, 1.0)).sum())
            if "image" in members:
                recon["image"].append(D.Bernoulli(logits=model.decoders["image"](z[None])[0], validate_args=False).log_prob(batch["image"][i]).sum())
            if "label" in members:
                recon["label"].append(D.OneHotCategorical(logits=model.decoders["label"](z[None])[0]).log_prob(batch["label"][i]))
        for m, values in recon.items():
            if values:
                total = total + model.weights[m] * torch.stack(values).mean()
        if divergence:
            total = total - beta * torch.stack(divergence).mean()
    return -total


@pytest.mark.equation("eq-mvae-loss")
@pytest.mark.parametrize("mask", ["everything", "some"])
def test_loss_equals_an_independent_recomputation(mask):
    model, batch, n = image_label_mvae(beta=0.7), image_label_batch(), 6
    there = {"image": torch.ones(n, dtype=torch.bool), "label": torch.ones(n, dtype=torch.bool)}
    if mask == "some":
        there = {"image": torch.tensor([1, 1, 0, 1, 0, 1]).bool(), "label": torch.tensor([1, 0, 1, 1, 1, 0]).bool()}
    found = model.loss(batch, observed=there, generator=torch.Generator().manual_seed(7))["loss"]
    noise = torch.randn(3, n, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(7))
    expected = recomputed_loss(model, batch, there, noise, beta=0.7)
    assert found.item() == pytest.approx(expected.item(), rel=1e-12)
    one, two = (torch.autograd.grad(loss, list(model.parameters()), allow_unused=True) for loss in (found, expected))
    assert all(torch.allclose(a, b, rtol=1e-9, atol=1e-12) for a, b in zip(one, two))


def test_a_masked_modality_equals_an_absent_one():
    model, batch = image_label_mvae(), image_label_batch()
    absent = {"label": torch.zeros(6, dtype=torch.bool)}
    masked = model.loss(batch, observed=absent, generator=torch.Generator().manual_seed(0))
    alone = model.loss({"image": batch["image"]}, generator=torch.Generator().manual_seed(0))
    assert masked.keys() == alone.keys()
    assert all(masked[k].item() == pytest.approx(alone[k].item(), rel=1e-12) for k in masked)


def test_with_one_weight_left_the_joint_elbo_is_that_modality_s():
    model, batch = image_label_mvae(weights={"label": 0.0}, subsampled=False), image_label_batch()
    terms = model.loss(batch, generator=torch.Generator().manual_seed(0))
    assert -terms["loss"].item() == pytest.approx((terms["image+label/recon/image"] - terms["image+label/kl"]).item(), rel=1e-12)
    assert "image/kl" not in terms


def test_without_sub_sampling_a_step_has_one_subset():
    assert image_label_mvae(subsampled=False).subsets() == [("image", "label")]
    assert image_label_mvae().subsets() == [("image", "label"), ("image",), ("label",)]
    assert len(lg_mvae().subsets()) == 5


def test_importance_likelihood_of_an_exact_model_is_the_evidence():
    model = lg_mvae()
    for names in (NAMES[:1], NAMES[:2], NAMES):
        exact = LG3.log_prob({NAMES.index(n): LG3_OBSERVATION[NAMES.index(n)] for n in names}).item()
        found = model.log_likelihood(observation(names, 4), samples=5, chunk=2)
        assert found.tolist() == pytest.approx([exact] * 4, abs=1e-9)


def test_verbs_have_the_promised_shapes_even_for_one_item():
    model, g = image_label_mvae(), torch.Generator().manual_seed(0)
    batch = image_label_batch(1)
    assert model.translate({"label": batch["label"]}, "image").shape == (1, 1, 28, 28)
    labels = model.translate({"image": batch["image"]}, "label", sample=True, generator=g)
    assert labels.shape == (1, 10) and labels.sum().item() == pytest.approx(1)
    assert {k: tuple(v.shape) for k, v in model.sample(4, g).items()} == {"image": (4, 1, 28, 28), "label": (4, 10)}
    assert model.traverse({"shared": torch.zeros(5).double()}, 0, torch.linspace(-1, 1, 3).double())["label"].shape == (3, 10)
    assert math.isfinite(model.loss(batch, generator=g)["loss"].item())


@pytest.mark.parametrize(
    ("change", "error", "sentence"),
    [
        (lambda b: {**b, "image": b["image"][:, :, :20]}, ValueError, r"'image': found shape \[6, 1, 20, 28\], wanted \[batch, 1, 28, 28\]"),
        (lambda b: {**b, "image": b["image"] * 255}, ValueError, r"'image': found values from .* wanted 0 to 1 for a BernoulliLikelihood"),
        (lambda b: {**b, "image": (b["image"] * 255).to(torch.uint8)}, TypeError, "found dtype torch.uint8, wanted floats"),
        (lambda b: {**b, "image": b["image"].masked_fill(torch.arange(6).view(6, 1, 1, 1) == 4, math.nan)}, ValueError, "'image': item 4 holds NaN"),
        (lambda b: {**b, "label": b["label"].argmax(-1)}, TypeError, "'label': found dtype torch.int64, wanted one-hot"),
        (lambda b: {**b, "label": b["label"] * 0.5}, ValueError, "'label': item 0 does not sum to 1"),
        (lambda b: {**b, "label": b["label"][:5]}, ValueError, "'image' has 6, 'label' has 5 items"),
        (lambda b: {**b, "lable": b["label"]}, KeyError, "unknown modality 'lable'.* did you mean 'label'"),
        (lambda b: {}, ValueError, "the batch is empty: wanted at least one of 'image', 'label'"),
        (lambda b: {k: v[:0] for k, v in b.items()}, ValueError, "found 0 items"),
        (lambda b: {**b, "image": b["image"].numpy()}, TypeError, "'image': found ndarray, wanted a torch tensor"),
        (lambda b: [b], TypeError, "a batch is a dict"),
    ],
)
def test_bad_batches_are_named(as_a_reader, change, error, sentence):
    with pytest.raises(error, match=sentence):
        image_label_mvae().loss(change(image_label_batch()))


def test_bad_masks_and_settings_are_named(as_a_reader):
    model, batch = image_label_mvae(), image_label_batch()
    with pytest.raises(ValueError, match="every modality of every item as absent"):
        model.loss(batch, observed={k: torch.zeros(6, dtype=torch.bool) for k in batch})
    with pytest.raises(KeyError, match="'sound' as present, but the batch does not hold it"):
        model.loss(batch, observed={"sound": torch.ones(6, dtype=torch.bool)})
    with pytest.raises(ValueError, match=r"observed\['label'\]: found torch.bool of shape \[5\]"):
        model.loss(batch, observed={"label": torch.ones(5, dtype=torch.bool)})
    with pytest.raises(NotImplementedError, match="no private style"):
        model.swap({}, {})
    with pytest.raises(ValueError, match="decoders are given for"):
        MVAE({"image": image_encoder(2)}, {}, {}, 2)
    with pytest.raises(KeyError, match="did you mean 'image'"):
        image_label_mvae(weights={"imege": 2.0})


# --- properties, training, files


def of_kinds(names, seed=0, **options):
    torch.manual_seed(seed)
    return MVAE({m: kinds.encoder((m,)) for m in names}, **kinds.parts(names), **options)


def by_hand(model, batch, there, noise, subsets):
    """The objective for any subsets, item by item: an item's members of a subset are those that it has."""
    terms = {}
    for s, subset in enumerate(subsets):
        for i in range(noise.shape[1]):
            members = [m for m in subset if there[m][i]]
            if not members:
                continue
            experts = [kinds.density(model.encoders[m](batch[m][i : i + 1]), 0) for m in members]
            precision = 1 + sum(e.variance.reciprocal() for e in experts)
            q = D.Normal(sum(e.mean / e.variance for e in experts) / precision, precision.rsqrt())
            z = q.loc + q.scale * noise[s, i]
            terms.setdefault((subset, "kl"), []).append(-model.beta * kinds.divergence(q, D.Normal(0.0, 1.0)))
            for m in members:
                terms.setdefault((subset, m), []).append(model.weights[m] * kinds.log_px(model, m, z, batch[m][i]))
    return -sum(torch.stack(values).mean() for values in terms.values())


def test_loss_of_three_modalities_with_random_subsets_equals_a_recomputation(monkeypatch):
    names = ("image", "label", "speech")
    model, batch = of_kinds(names, weights={"label": 5.0}, beta=0.7).double(), kinds.items(names, n=6)
    subsets = [names, *((m,) for m in names), ("image", "speech")]
    monkeypatch.setattr(MVAE, "subsets", lambda self, generator=None: subsets)
    there = {"image": torch.tensor([1, 0, 1, 1, 0, 0]).bool(), "label": torch.tensor([1, 1, 0, 1, 0, 0]).bool()}
    there["speech"] = torch.tensor([1, 1, 1, 0, 0, 1]).bool()
    found = model.loss(batch, observed=there, generator=torch.Generator().manual_seed(7))["loss"]
    expected = by_hand(model, batch, there, kinds.noise(5, 6, kinds.LATENT, seed=7), subsets)
    assert found.item() == pytest.approx(expected.item(), rel=1e-12)
    kinds.assert_same_gradients(found, expected, model.parameters())


@settings(max_examples=15, deadline=None)
@given(names=st.permutations(("image", "label", "speech")), rows=st.permutations(range(5)), r=st.integers(1, 3))
def test_order_changes_nothing_and_any_subset_is_finite(names, rows, r):
    model, batch = of_kinds(("image", "label", "speech")).double(), kinds.items(("image", "label", "speech"), n=5)
    subset = {m: batch[m] for m in names[:r]}
    one, two = (model.posterior(b)["shared"] for b in (subset, {m: x[list(rows)] for m, x in reversed(subset.items())}))
    assert torch.allclose(one.mean[list(rows)], two.mean) and torch.allclose(one.logvar[list(rows)], two.logvar)
    losses = [model.loss(b, generator=torch.Generator().manual_seed(0))["loss"].item() for b in (subset, dict(reversed(subset.items())))]
    assert math.isfinite(losses[0]) and losses[0] == pytest.approx(losses[1], rel=1e-12)
    assert all(bool(model.translate(subset, m).isfinite().all()) for m in batch)


def test_likelihood_of_a_batch_is_the_sum_of_its_singles_whatever_the_chunking():
    model, batch = lg_mvae(), {n: torch.randn(4, 1, dtype=torch.float64) for n in NAMES}
    assert_a_batch_is_its_singles(model, batch)
    model, batch = of_kinds(("image", "label")).double(), kinds.items(("image", "label"))
    found = [model.log_likelihood(batch, 8, chunk, torch.Generator().manual_seed(0)) for chunk in (8, 4)]
    assert torch.allclose(*found)


def test_it_learns_every_kind_of_modality(tmp_path):
    names = tuple(kinds.KINDS)
    model, data = of_kinds(names), kinds.items(names, n=40, dtype=torch.float32)
    some = {"image": torch.arange(40) % 3 > 0, "caption": torch.arange(40) % 4 > 0}
    history = fit(model, data, epochs=8, batch_size=20, lr=1e-2, observed=some, device="cpu", progress=False)
    assert history["loss"][-1] < history["loss"][0]
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    again = of_kinds(names, seed=1)
    again.load_state_dict(load_file(tmp_path / "model.safetensors"))
    again.eval()
    assert all(torch.equal(again.translate(data, m), model.translate(data, m)) for m in names)


def test_presets_build_a_model():
    built = {name: image_label_mvae(**({"weights": None} | preset)) for name, preset in MVAE.PRESETS.items()}
    assert built["paper"].weights == {"image": 1.0, "label": 1.0} and built["code"].weights == {"image": 1.0, "label": 50.0}
