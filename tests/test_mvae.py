"""MVAE against exact posteriors, an independent recomputation of its loss, and bad input."""

import itertools
import math
from collections import Counter

import pytest
import torch

from mmvae_lite.data import LG3, LG3_OBSERVATION
from mmvae_lite.distributions import BernoulliLikelihood, CategoricalLikelihood, kl
from mmvae_lite.models import MVAE
from mmvae_lite.models.mvae import random_subsets
from mmvae_lite.networks import image_decoder, image_encoder, label_decoder, label_encoder
from tests.linear import NAMES, lg_mvae, observation

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
