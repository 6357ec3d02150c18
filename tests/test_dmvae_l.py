"""DMVAE-L: its products, its six terms recomputed by loops, paired and unpaired items, and bad input."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn

from mmvae_lite.data import LG3, LG3_OBSERVATION
from mmvae_lite.distributions import BernoulliLikelihood, CategoricalLikelihood, Concrete, NormalLikelihood
from mmvae_lite.information import WEIGHTS
from mmvae_lite.models import DMVAE_L, MODELS
from mmvae_lite.networks import SplitEncoder, dense_decoder, dense_trunk, dmvae_l_celeba_networks, dmvae_l_networks
from mmvae_lite.training import fit
from tests.kinds import KINDS, gradients, items, log_px, size
from tests.linear import F64, NAMES, Affine, linear_decoder, observation

PAIR, TRIPLE = ("image", "label"), ("image", "label", "speech")
PRIVATE = {"image": 2, "label": 0, "speech": 3, "caption": 1, "attributes": 0}
SHARED = [4, (1, 3), (2, 3)]
T = 0.66


def width(shared):
    return shared if isinstance(shared, int) else shared[0] * shared[1]


def small(names=PAIR, shared=(1, 3), seed=0, hidden=8, n_data=100, **options):
    torch.manual_seed(seed)
    return DMVAE_L(
        {m: SplitEncoder(dense_trunk([size(m), hidden]), hidden, PRIVATE[m], shared) for m in names},
        {m: dense_decoder([PRIVATE[m] + width(shared), hidden, size(m)], KINDS[m][0]) for m in names},
        {m: KINDS[m][1] for m in names},
        {m: PRIVATE[m] for m in names},
        shared,
        n_data,
        **options,
    ).double()


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def only(batch, *names):
    return {m: batch[m] for m in names}


class Likelihood(nn.Module):
    """LG3's likelihood expert of z, and no private latent."""

    def __init__(self, i):
        super().__init__()
        self.expert = Affine(1 / LG3.weights[i], 0, LG3.variances[i] / LG3.weights[i] ** 2)

    def forward(self, x):
        return {"shared": self.expert(x)}


def linear(names=NAMES, **options):
    index = [NAMES.index(name) for name in names]
    return DMVAE_L(
        {name: Likelihood(i) for name, i in zip(names, index)},
        {name: linear_decoder(LG3.weights[i]) for name, i in zip(names, index)},
        {name: NormalLikelihood(math.sqrt(LG3.variances[i])) for name, i in zip(names, index)},
        dict.fromkeys(names, 0),
        1,
        100,
        **options,
    )


@pytest.mark.equation("eq-hybrid-posterior")
def test_two_experts_or_more_are_multiplied_with_the_prior_and_one_is_left_alone():
    for r in (2, 3):
        for names in itertools.combinations(NAMES, r):
            exact = LG3.posterior({NAMES.index(n): LG3_OBSERVATION[NAMES.index(n)] for n in names})
            found = linear().posterior(observation(names))["shared"]
            assert (found.mean.item(), found.var.item()) == pytest.approx((exact.mean.item(), exact.var.item()))
    alone = linear().posterior(observation(("second",)))["shared"]
    assert (alone.mean.item(), alone.precision.item()) == pytest.approx((1.5 / 2, 4))
    assert linear().posterior({}, n=3)["shared"].mean.shape == (3, 1)


@pytest.mark.parametrize("temperature", [2.0, 0.66, 0.1])
def test_the_joint_class_is_the_categorical_product_at_every_temperature(temperature):
    model = small(("image", "attributes"), shared=(1, 2), temperature=temperature)
    for m, odds in (("image", (4.0, 3.0)), ("attributes", (2.0, 3.0))):
        model.encoders[m].temperature = temperature
        with torch.no_grad():
            model.encoders[m].shared.weight.zero_()
            model.encoders[m].shared.bias.copy_(torch.tensor(odds).log())
    q = model.posterior(items(("image", "attributes"), 2))["shared"]
    assert q.probs[0, 0, 0].item() == pytest.approx(8 / 17)
    draws = q.rsample((100_000,), seeded(0))[:, 0, 0]
    assert (draws[:, 0] > 0.5).double().mean().item() == pytest.approx(8 / 17, abs=4 * 0.5 / math.sqrt(100_000))


# ---- the loss ---------------------------------------------------------------------------------------------------


def draw(q, g):
    """A draw of a posterior from the generator, by the book."""
    if isinstance(q, Concrete):
        waits = torch.empty(q.logits.shape, dtype=F64).exponential_(generator=g)
        return torch.softmax((q.logits - waits.log()) / q.temperature, -1)
    return q.mean + (0.5 * q.logvar).exp() * torch.randn(q.mean.shape, dtype=F64, generator=g)


def factors(q, j, z):
    """log q(z | x_j) of every factor as a list, for the draw z of one item."""
    D = torch.distributions
    if isinstance(q, Concrete):
        return [D.Categorical(logits=q.logits[j, v]).log_prob(z[v].argmax()) for v in range(z.shape[0])]
    normal = D.Normal(q.mean[j], (0.5 * q.logvar[j]).exp())
    return list(normal.log_prob(z))


def prior_factors(z):
    D = torch.distributions
    return [D.Categorical(torch.ones(z.shape[-1], dtype=F64)).log_prob(v.argmax()) for v in z] if z.ndim == 2 else list(D.Normal(0.0, 1.0).log_prob(z))


def weight(scheme, i, j, b, n):
    if scheme == "mws":
        return 1 / (n * b)
    if scheme == "batch_mean":
        return 1 / b
    if scheme == "unbiased":
        return 1 / n if i == j else (n - 1) / (n * (b - 1))
    if scheme == "probtorch":
        return (b - 1) / ((n - 1) * b) if i == j else 1 / b
    return 1 / n if i == j else (n - b + 1) / (n * (b - 1)) if j == (i + 1) % b else 1 / (b - 1)


def mi_tc_dw_by_loops(parts, n_data, scheme):
    """parts: (posterior, draws) of each latent of the concatenation."""
    b = len(parts[0][1])
    mi = tc = dw = 0.0
    for i in range(b):
        log_q = [sum((factors(q, j, z[i]) for q, z in parts), []) for j in range(b)]
        w = torch.tensor([weight(scheme, i, j, b, n_data) for j in range(b)], dtype=F64)
        joint = sum(w[j] * torch.stack(log_q[j]).sum().exp() for j in range(b)).log()
        product = sum(sum(w[j] * log_q[j][f].exp() for j in range(b)).log() for f in range(len(log_q[0])))
        log_p = sum(sum((prior_factors(z[i]) for _, z in parts), []))
        mi, tc, dw = mi + (sum(log_q[i]) - joint) / b, tc + (joint - product) / b, dw + (product - log_p) / b
    return mi, tc, dw


def recomputed(model, batch, target, there, seed, plain=False):
    """The loss by loops; with `plain` every KL is the one-sample KL, whatever the weighting."""
    g, names, n = seeded(seed), list(model.modalities), len(next(iter(batch.values())))
    patterns = {i: tuple(m for m in names if there[m][i]) for i in range(n)}
    order = sorted(set(patterns.values()), key=lambda s: sum(2 ** [m for m in names if m in batch].index(m) for m in s))
    learn = [s for s in order if len(s) > 1 or (s and s[0] in model.unpaired)]
    n_learn = sum(patterns[i] in learn for i in range(n))
    total = 0.0
    for members in learn:
        rows = [i for i in range(n) if patterns[i] == members]
        q = {m: model.encoders[m](batch[m][rows]) for m in members}
        z_private = {m: draw(q[m]["private"], g) for m in members if PRIVATE[m]}
        sources = {m: q[m]["shared"] for m in members}
        if len(members) > 1:
            experts = list(sources.values())
            if isinstance(experts[0], Concrete):
                joint = Concrete(sum(torch.log_softmax(e.logits, -1) for e in experts), T)
            else:
                precision = 1 + sum(1 / e.logvar.exp() for e in experts)
                mean = sum(e.mean / e.logvar.exp() for e in experts) / precision
                joint = type(experts[0])(mean, -precision.log())
            sources = {"joint": joint, **sources}
        copies = (len(names) + 1) / len(sources)
        for source, q_s in sources.items():
            z = draw(q_s, g)
            seen = z
            if isinstance(q_s, Concrete):
                seen = (z + 1e-9) ** (1 / (len(members) + 1)) if source == "joint" and model.root else z
            for m in members:
                values = []
                for k, i in enumerate(rows):
                    latent = torch.cat([*([z_private[m][k]] if PRIVATE[m] else []), seen[k].flatten()])
                    values.append(log_px(model, m, latent, target[m][i]))
                parts = [(q_s, z)] + ([(q[m]["private"], z_private[m])] if PRIVATE[m] else [])
                if plain or len(rows) == 1:
                    kls = [sum(sum((factors(p, k, d[k]) for p, d in parts), [])) - sum(sum((prior_factors(d[k]) for _, d in parts), [])) for k in range(len(rows))]
                    penalty = sum(kls) / len(rows)
                else:
                    blocks = [[part] for part in parts] if model.blocks else [parts]
                    estimates = [mi_tc_dw_by_loops(block, model.n_data, model.weighting) for block in blocks]
                    penalty = sum(mi + model.tc_weights[m] * tc + dw for mi, tc, dw in estimates)
                share = len(rows) / n_learn * copies
                total = total - share * (model.weights[m] * torch.stack(values).mean() - model.beta * penalty)
    return total


def everything(names, n):
    return {m: torch.ones(n, dtype=torch.bool) for m in names}


@pytest.mark.equation("eq-hybrid-loss")
@pytest.mark.parametrize("shared", SHARED)
@pytest.mark.parametrize(("names", "missing"), [(PAIR, False), (PAIR, True), (TRIPLE, True)])
def test_loss_and_gradients_equal_an_independent_recomputation(shared, names, missing):
    options = {"weights": {"label": 30.0}, "tc_weights": {"image": 3.0, "label": 2.0}}
    model, batch, n = small(names, shared, **options), items(names, 7), 7
    model.beta = 0.8
    target, there = {m: x.flip(0) for m, x in batch.items()}, everything(names, n)
    if missing:
        there = {m: torch.rand(n, generator=seeded(k)) < 0.7 for k, m in enumerate(names)}
        there["image"] |= ~torch.stack(list(there.values())).any(0)
    found = model.loss(batch, target, there, seeded(3))["loss"]
    expected = recomputed(model, batch, target, there, 3)
    assert found.item() == pytest.approx(expected.item(), rel=1e-10)
    parameters = list(model.parameters())
    assert all(
        torch.allclose(torch.zeros(()) if a is None else a, torch.zeros((), dtype=F64) if b is None else b, rtol=1e-7, atol=1e-10)
        for a, b in zip(gradients(found, parameters), gradients(expected, parameters))
    )


@pytest.mark.equation("eq-tc-weight")
@pytest.mark.parametrize("options", [{"weighting": w} for w in WEIGHTS] + [{"blocks": True}, {"root": False}, {"unpaired": ("image",)}])
def test_every_option_equals_its_recomputation(options):
    model, batch = small(tc_weights={"image": 3.0}, **options), items(PAIR, 6)
    there = {"image": torch.tensor([1, 1, 1, 1, 0, 1]).bool(), "label": torch.tensor([1, 1, 0, 0, 1, 1]).bool()}
    found = model.loss(batch, observed=there, generator=seeded(3))["loss"]
    assert found.item() == pytest.approx(recomputed(model, batch, batch, there, 3).item(), rel=1e-10)


@pytest.mark.parametrize("weighting", WEIGHTS)
@pytest.mark.parametrize("shared", SHARED)
def test_without_extra_weight_the_objective_is_six_plain_elbos_for_any_weighting(weighting, shared):
    model, batch = small(shared=shared, weighting=weighting), items(PAIR, 8)
    terms = model.loss(batch, generator=seeded(2))
    assert sum("recon" in name for name in terms) == 6
    assert terms["loss"].item() == pytest.approx(recomputed(model, batch, batch, everything(PAIR, 8), 2, plain=True).item(), rel=1e-10)
    by_block = small(shared=shared, weighting=weighting, blocks=True).loss(batch, generator=seeded(2))
    assert by_block["loss"].item() == pytest.approx(terms["loss"].item(), rel=1e-10)
    assert by_block["joint/tc/image"].item() != pytest.approx(terms["joint/tc/image"].item(), rel=1e-6)


@pytest.mark.parametrize("discrete_logprob", ["soft", "concrete"])
def test_other_readings_of_a_concrete_draw_give_other_estimates(discrete_logprob):
    batch = items(PAIR, 8)
    one, two = (small(discrete_logprob=d).loss(batch, generator=seeded(2)) for d in ("argmax", discrete_logprob))
    assert one["joint/recon/image"].item() == two["joint/recon/image"].item()
    assert one["joint/mi/image"].item() != two["joint/mi/image"].item() and math.isfinite(two["loss"].item())


def test_terms_that_share_a_source_share_its_draw_and_each_modality_has_every_source():
    terms = small(TRIPLE).loss(items(TRIPLE, 6), generator=seeded(0))
    assert {name.split("/")[0] for name in terms} == {"loss", "joint", *TRIPLE}
    assert len(terms) == 1 + 4 * 3 * 4
    # the label has no private latent, so that its divergences are the source's alone, and one factor has no correlation
    assert terms["image/tc/label"].item() == pytest.approx(0, abs=1e-12)


# ---- paired and unpaired items ----------------------------------------------------------------------------------


def heads(model, *names):
    return [p for m in names for part in (model.encoders[m], model.decoders[m]) for p in part.parameters()]


def test_an_unpaired_image_teaches_its_own_networks_three_times_and_no_label_network():
    model, batch = small(**DMVAE_L.PRESETS["code"]), items(PAIR, 8)
    terms = model.loss(only(batch, "image"), generator=seeded(0))
    one = terms["image/recon/image"] - terms["image/mi/image"] - 3 * terms["image/tc/image"] - terms["image/dw/image"]
    assert terms["loss"].item() == pytest.approx(-3 * one.item(), rel=1e-12)
    assert all(g is None or g.abs().max() == 0 for g in gradients(terms["loss"], heads(model, "label")))
    moved = gradients(terms["loss"], heads(model, "image"))
    assert all(g is not None and g.abs().max() > 0 for g in moved)


def test_unpaired_labels_are_unused_by_the_code_and_used_three_times_otherwise():
    batch, there = items(PAIR, 6), {"image": torch.tensor([1, 1, 1, 1, 0, 0]).bool(), "label": torch.ones(6, dtype=torch.bool)}
    code = small(unpaired=("image",))
    ignored = code.loss(batch, observed=there, generator=seeded(0))
    paired = code.loss({m: x[:4] for m, x in batch.items()}, generator=seeded(0))
    assert all(ignored[k].item() == pytest.approx(paired[k].item(), rel=1e-12) for k in paired)
    with pytest.raises(ValueError, match="no item can learn.*unpaired is \\['image'\\]; pair some items"):
        code.loss(only(batch, "label"))
    model = small()
    terms = model.loss(only(batch, "label"), generator=seeded(0))
    assert terms["loss"].item() == pytest.approx(-3 * (terms["label/recon/label"] - terms["label/mi/label"] - terms["label/tc/label"] - terms["label/dw/label"]).item())


def test_a_mixed_batch_is_the_mean_over_items_of_paired_and_unpaired_batches():
    model, batch = small(), items(PAIR, 10)
    there = {"image": torch.ones(10, dtype=torch.bool), "label": torch.arange(10) >= 6}
    g = seeded(0)
    mixed = model.loss(batch, observed=there, generator=seeded(0))
    unpaired = model.loss({"image": batch["image"][:6]}, generator=g)
    paired = model.loss({m: x[6:] for m, x in batch.items()}, generator=g)
    assert mixed["loss"].item() == pytest.approx((0.6 * unpaired["loss"] + 0.4 * paired["loss"]).item(), rel=1e-12)
    own = 0.6 * unpaired["image/recon/image"] + 0.4 * paired["image/recon/image"]
    assert mixed["image/recon/image"].item() == pytest.approx(own.item(), rel=1e-12)
    assert mixed["joint/recon/image"].item() == pytest.approx(paired["joint/recon/image"].item(), rel=1e-12)


def test_a_masked_modality_equals_an_absent_one():
    model, batch = small(TRIPLE), items(TRIPLE, 8)
    masked = model.loss(batch, observed={"speech": torch.zeros(8, dtype=torch.bool)}, generator=seeded(0))
    absent = model.loss(only(batch, *PAIR), generator=seeded(0))
    assert masked.keys() == absent.keys() and all(masked[k].item() == absent[k].item() for k in masked)


def test_one_item_cannot_be_decomposed_but_a_group_of_one_in_a_larger_batch_has_its_kl():
    with pytest.raises(ValueError, match="mi_tc_dw needs at least 2 items, got 1"):
        small().loss(items(PAIR, 1))
    there = {"image": torch.ones(5, dtype=torch.bool), "label": torch.arange(5) == 0}
    terms = small().loss(items(PAIR, 5), observed=there, generator=seeded(0))
    assert "joint/kl/image" in terms and "joint/tc/image" not in terms and "image/tc/image" in terms
    assert all(math.isfinite(v.item()) for v in terms.values())


@settings(max_examples=15, deadline=None)
@given(st.permutations(TRIPLE), st.permutations(range(6)), st.integers(1, 3), st.sampled_from(SHARED))
def test_order_changes_nothing_and_any_subset_is_finite(names, rows, r, shared):
    model, batch = small(TRIPLE, shared), items(TRIPLE, 6)
    shuffled, plain = {m: batch[m][rows] for m in names[:r]}, {m: batch[m] for m in TRIPLE if m in names[:r]}
    q, p = model.posterior(shuffled), model.posterior(plain)
    assert set(q) == {"shared", "private/image", "private/speech"}
    for k in q:
        a, b = (d[k].probs if isinstance(d[k], Concrete) else d[k].mean for d in (q, p))
        assert torch.isfinite(a).all() and torch.allclose(a, b[rows])
    terms = model.loss(shuffled, generator=seeded(0))
    assert all(math.isfinite(v.item()) for v in terms.values())
    assert set(terms) == set(model.loss(plain, generator=seeded(0)))


# ---- verbs ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shared", SHARED)
def test_verbs_have_the_promised_shapes_even_for_one_item(shared):
    model, batch = small(TRIPLE, shared), items(TRIPLE, 1)
    for sample, hard in itertools.product((False, True), (False, True)):
        for to in TRIPLE:
            found = model.translate(only(batch, "image", "label"), to, sample=sample, hard=hard, generator=seeded(0))
            assert found.shape == (1, *KINDS[to][0]) and torch.isfinite(found).all()
    assert {k: tuple(v.shape) for k, v in model.sample(4, seeded(0)).items()} == {m: (4, *KINDS[m][0]) for m in TRIPLE}
    assert {k: tuple(v.shape) for k, v in model.swap(only(batch, "label")).items()} == {m: (1, *KINDS[m][0]) for m in TRIPLE}
    latents = {"shared": torch.zeros(width(shared), dtype=F64), "private/image": torch.zeros(2, dtype=F64)}
    steps = model.traverse(latents, 1, torch.linspace(-2, 2, 5, dtype=F64), of="private/image")
    assert set(steps) == {"image", "label"} and steps["image"].shape == (5, 1, 4, 4)
    assert torch.equal(steps["label"][0], steps["label"][4]) and not torch.equal(steps["image"][0], steps["image"][4])


@pytest.mark.parametrize("shared", [4, (1, 3)])
def test_samples_are_decoded_draws_of_the_priors(shared):
    model, g = small(shared=shared), seeded(4)
    if shared == 4:
        content = torch.randn(6, 4, dtype=F64, generator=g)
    else:
        content = nn.functional.one_hot(draw(Concrete.uniform(6, 1, 3, temperature=T, like=torch.zeros(1, dtype=F64)), g).argmax(-1), 3)[:, 0].double()
    style = torch.randn(6, 2, dtype=F64, generator=g)
    found = model.sample(6, seeded(4))
    assert torch.equal(found["image"], model.decoders["image"](torch.cat([style, content], -1)).sigmoid())
    assert torch.equal(found["label"], model.decoders["label"](content).softmax(-1))


def test_cross_synthesis_takes_the_class_from_the_label_and_the_style_from_an_image_or_the_prior():
    model, batch = small(), items(PAIR, 4)
    label, style = only(batch, "label"), {"image": batch["image"].flip(0)}
    one_hot = model.posterior(label)["shared"].mode.flatten(1)
    private = model.posterior(style)["private/image"].mean

    def decoded(z):
        return model.decoders["image"](torch.cat([z, one_hot], -1)).sigmoid()

    assert set(one_hot.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(model.translate(label, "image", style=style), decoded(private))
    assert torch.equal(model.swap(label, style)["image"], decoded(private))
    assert torch.equal(model.translate(label, "image"), decoded(torch.zeros(4, 2, dtype=F64)))
    assert torch.equal(model.swap(label)["image"], decoded(torch.zeros(4, 2, dtype=F64)))
    drawn = [model.translate(label, "image", sample=True, generator=seeded(k)) for k in (0, 0, 1)]
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])
    q = model.posterior(batch)
    own = model.decoders["image"](torch.cat([q["private/image"].mean, q["shared"].mode.flatten(1)], -1)).sigmoid()
    assert torch.equal(model.translate(batch, "image"), own)


def test_an_image_is_classified_by_a_relaxed_draw_or_by_a_class():
    model, batch = small(), items(("image",), 5)
    q = model.posterior(batch)["shared"]
    hard, relaxed = (model.translate(batch, "label", sample=True, hard=h, generator=seeded(0)) for h in (True, False))
    g = seeded(0)
    z = q.rsample(generator=g)[:, 0]
    assert torch.equal(relaxed, model.decoders["label"](z).softmax(-1))
    assert torch.equal(hard, model.decoders["label"](nn.functional.one_hot(z.argmax(-1), 3).double()).softmax(-1))


def test_a_relaxed_draw_of_the_joint_posterior_goes_through_the_root():
    batch = items(PAIR, 5)
    for root, power in ((True, 1 / 3), (False, 1)):
        model = small(root=root)
        z = model.posterior(batch)["shared"].rsample(generator=seeded(0))[:, 0]
        expected = model.decoders["label"]((z + (1e-9 if root else 0)) ** power).softmax(-1)
        assert torch.allclose(model.translate(batch, "label", sample=True, hard=False, generator=seeded(0)), expected)


def test_several_variables_are_each_their_own_factor():
    model = small(("image", "attributes"), (5, 2))
    batch = items(("image", "attributes"), 9)
    q = model.posterior(batch)["shared"]
    assert q.logits.shape == (9, 5, 2)
    assert torch.allclose(q.probs.sum(-1), torch.ones(9, 5, dtype=F64))
    z = torch.eye(2, dtype=F64)[torch.randint(2, (9, 5), generator=seeded(0))].flatten(1)
    assert model.decode({"shared": z, "private/image": torch.zeros(9, 2, dtype=F64)})["attributes"].shape == (9, 5)
    assert model.loss(batch, generator=seeded(0))["attributes/tc/attributes"].item() != 0


# ---- likelihood -------------------------------------------------------------------------------------------------


def test_likelihood_of_an_exact_model_is_the_evidence_whatever_the_chunking():
    for names in (NAMES[:2], NAMES):
        exact = LG3.log_prob({NAMES.index(n): LG3_OBSERVATION[NAMES.index(n)] for n in names}).item()
        for samples, chunk in ((5, 2), (6, 100), (1, 1)):
            assert linear().log_likelihood(observation(names, 3), samples, chunk).tolist() == pytest.approx([exact] * 3, abs=1e-9)


@pytest.mark.parametrize("names", [("attributes",), ("label", "attributes")])
def test_likelihood_of_a_concrete_model_approaches_quadrature(names):
    # also from several modalities the decoders read the draw itself, and not its root
    model, x = small(names, (1, 2)), items(names, 2)
    u = torch.linspace(-30, 30, 4001, dtype=F64)  # logit of z_1, in which the density of the prior is smooth
    z = torch.stack([u.sigmoid(), (-u).sigmoid()], -1)
    log_p = (Concrete.uniform(2, temperature=T, like=z).log_prob(z) + z.log().sum(-1))[:, None].expand(-1, 2)
    with torch.no_grad():
        for m in names:
            logits = model.decoders[m](z)[:, None]
            family = torch.distributions.Bernoulli(logits=logits, validate_args=False) if m == "attributes" else None
            log_p = log_p + (family.log_prob(x[m]) if family else x[m] * logits.log_softmax(-1)).sum(-1)
    exact = log_p.logsumexp(0) + math.log(60 / 4000)
    found = model.log_likelihood(x, 20_000, 5000, seeded(0))
    assert torch.allclose(found, exact, atol=0.02)


def test_likelihood_is_finite_for_several_variables_with_styles():
    assert torch.isfinite(small(TRIPLE, (2, 3)).log_likelihood(items(TRIPLE, 3), 20)).all()


# ---- training and settings --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("names", "shared"), [(PAIR, (1, 3)), (PAIR, 4), (tuple(KINDS), (2, 3))])
def test_it_learns_every_kind_of_modality_from_paired_and_unpaired_items(names, shared, tmp_path):
    data, model = items(names, 48), small(names, shared, n_data=48, tc_weights={"image": 2.0})
    observed = {names[1]: torch.arange(48) % 3 > 0}
    history = fit(model, data, epochs=8, batch_size=24, lr=2e-2, observed=observed, seed=0, progress=False)
    assert history["loss"][-1] < history["loss"][0]
    assert history[f"joint/recon/{names[0]}"][-1] > history[f"joint/recon/{names[0]}"][0]
    save_file(model.state_dict(), tmp_path / "m.safetensors")
    again = small(names, shared, seed=1)
    again.load_state_dict(load_file(tmp_path / "m.safetensors"))
    again.eval()
    assert all(torch.equal(a, b) for a, b in zip(model.sample(3, seeded(0)).values(), again.sample(3, seeded(0)).values()))


@pytest.mark.parametrize("preset", DMVAE_L.PRESETS)
def test_networks_of_the_paper_with_its_presets(preset):
    likelihoods = {"image": BernoulliLikelihood(), "label": CategoricalLikelihood()}
    model = DMVAE_L(**dmvae_l_networks(), likelihoods=likelihoods, private_dims={"image": 10, "label": 0}, shared=(1, 10), n_data=50_000, **DMVAE_L.PRESETS[preset])
    batch = {"image": torch.rand(4, 1, 28, 28, generator=seeded(0)), "label": torch.eye(10)[:4]}
    assert math.isfinite(model.loss(batch, generator=seeded(0))["loss"].item()) and MODELS["dmvae_l"] is DMVAE_L
    assert model.temperature == model.encoders["image"].temperature == T


def test_faces_with_eighteen_binary_variables():
    likelihoods = {"image": BernoulliLikelihood(), "attributes": BernoulliLikelihood()}
    model = DMVAE_L(**dmvae_l_celeba_networks(), likelihoods=likelihoods, private_dims={"image": 100, "attributes": 0}, shared=(18, 2), n_data=1000)
    batch = {"image": torch.rand(2, 3, 64, 64, generator=seeded(0)), "attributes": torch.rand(2, 18, generator=seeded(1)).round()}
    assert model.posterior(batch)["shared"].logits.shape == (2, 18, 2)
    assert math.isfinite(model.loss(batch, generator=seeded(0))["loss"].item())


@pytest.mark.parametrize(
    ("change", "error", "sentence"),
    [
        (lambda b: {**b, "image": b["image"][:, :, :2]}, ValueError, r"'image': found shape \[6, 1, 2, 4\], wanted \[batch, 1, 4, 4\]"),
        (lambda b: {**b, "image": b["image"] * 255}, ValueError, "wanted 0 to 1"),
        (lambda b: {**b, "image": b["image"].masked_fill(torch.ones(1, 4, 4) > 0, math.nan)}, ValueError, "holds NaN"),
        (lambda b: {**b, "label": b["label"].argmax(-1)}, TypeError, "'label': found dtype torch.int64, wanted one-hot"),
        (lambda b: {**b, "lable": b["label"]}, KeyError, "did you mean 'label'"),
        (lambda b: {**b, "label": b["label"][:5]}, ValueError, "differ in length"),
    ],
)
@pytest.mark.parametrize("verb", ["loss", "posterior"])
def test_bad_batches_are_named(as_a_reader, verb, change, error, sentence):
    with pytest.raises(error, match=sentence):
        getattr(small(), verb)(change(items(PAIR, 6)))


def test_bad_settings_targets_masks_and_latents_are_named(as_a_reader):
    model, batch = small(), items(PAIR, 6)
    for options, error, sentence in [
        ({"n_data": 0}, ValueError, "n_data: found 0"),
        ({"weighting": "unbaised"}, KeyError, "did you mean 'unbiased'"),
        ({"discrete_logprob": "hard"}, KeyError, "unknown discrete_logprob 'hard'"),
        ({"unpaired": ("imege",)}, KeyError, "did you mean 'image'"),
        ({"weights": {"lable": 1.0}}, KeyError, "did you mean 'label'"),
    ]:
        with pytest.raises(error, match=sentence):
            small(**options)
    parts = (model.encoders, model.decoders, model.likelihoods)
    with pytest.raises(ValueError, match="shared: found 0"):
        DMVAE_L(*parts, model.private_dims, (1, 0), 10)
    with pytest.raises(ValueError, match="private_dims are given for"):
        DMVAE_L(*parts, {"image": 2}, 3, 10)
    for options, wanted in (({"temperature": 0.5}, r"Concrete of shape \[1, 3\] at temperature 0.5"), ({"shared": (3, 1)}, "Concrete of shape"), ({"shared": 3}, "Normal of")):
        pieces = {"encoders": model.encoders, "decoders": model.decoders, "likelihoods": model.likelihoods, "private_dims": model.private_dims}
        other = DMVAE_L(**{**pieces, "shared": (1, 3), "n_data": 10, **options})
        for verb in (other.loss, other.posterior):
            with pytest.raises(ValueError, match=rf"encoder of 'image': its shared latent is a Concrete of shape \[1, 3\] at temperature 0.66, wanted a {wanted}"):
                verb(batch)
    with pytest.raises(ValueError, match="n_data: found 4 for a batch of 6"):
        small(n_data=4).loss(batch)
    for verb in (model.loss, model.log_likelihood):
        with pytest.raises(ValueError, match="the batch is empty"):
            verb({})
    with pytest.raises(ValueError, match=r"latents\['shared'\]: found shape \[1, 5\], wanted 3 numbers"):
        model.decode({"shared": torch.zeros(1, 5).double()})
    with pytest.raises(KeyError, match="target lacks modality 'label'"):
        model.loss(batch, target=only(batch, "image"))
    with pytest.raises(ValueError, match="every modality of every item as absent"):
        model.loss(batch, observed={m: torch.zeros(6, dtype=torch.bool) for m in batch})
    with pytest.raises(KeyError, match="unknown latent 'private/label'"):
        model.decode({"shared": torch.zeros(1, 3).double(), "private/label": torch.zeros(1, 2).double()})
    with pytest.raises(ValueError, match="content has 6 items and style has 3"):
        model.swap(batch, {"image": batch["image"][:3]})
    with pytest.raises(KeyError, match="unknown modality 'sound'"):
        model.translate(batch, "sound")
