"""DMVAE-D: who learns from what, its products, an independent recomputation of its loss, and bad input."""

import itertools
import math
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn

from mmvae_lite.data import LG3, LG3_OBSERVATION
from mmvae_lite.distributions import LaplaceLikelihood, Normal, NormalLikelihood
from mmvae_lite.ex_post import ExPostDensity
from mmvae_lite.information import Discriminator
from mmvae_lite.models import DMVAE_D, MODELS
from mmvae_lite.models.dmvae_d import ALL, INNER, NT_XENT, SUBSET, A, B, Codes
from mmvae_lite.networks import (
    SplitEncoder, dense_decoder, dense_trunk, dmvae_d_networks, dmvae_d_paired_networks, normal_init,
)  # fmt: skip
from mmvae_lite.training import fit
from tests.kinds import KINDS, density, divergence, gradients, items, log_px, size
from tests.linear import F64, NAMES, lg_posterior, linear_decoder, observation

S, C = 2, 3
PAIR, TRIPLE = ("image", "label"), ("image", "label", "speech")


def small(names=PAIR, seed=0, private=S, shared=C, hidden=8, **options):
    torch.manual_seed(seed)
    return DMVAE_D(
        {m: SplitEncoder(dense_trunk([size(m), hidden]), hidden, private, shared) for m in names},
        {m: dense_decoder([private + shared, hidden, size(m)], KINDS[m][0]) for m in names},
        {m: KINDS[m][1] for m in names},
        private,
        shared,
        discriminators={m: Discriminator(private, shared, (6,), (8,)) for m in names},
        **options,
    ).double()


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def term(model, kind, batch, seed=1):
    return sum(v for name, v in model.loss(batch, generator=seeded(seed)).items() if kind in name)


def moved(model, loss, part):
    """Whether a loss gives a non-zero gradient to the heads, or whatever `part` names, of every modality."""
    modules = {
        "c heads": [e.shared for e in model.encoders.values()],
        "s heads": [e.private for e in model.encoders.values()],
        "decoders": model.decoders.values(),
        "discriminators": model.discriminators.values(),
    }[part]
    return [any(g is not None and g.abs().max() > 0 for g in gradients(loss, module.parameters())) for module in modules]


@pytest.mark.parametrize("preset", ["paper", "code"])
@pytest.mark.parametrize(
    ("kind", "learners"),
    [
        ("recon", ("s heads", "decoders")),
        ("kl", ("s heads",)),
        ("tc", ("s heads",)),
        ("info_nce", ("c heads",)),
        ("loss", ("s heads", "c heads", "decoders")),
    ],
)
def test_who_learns_from_what(preset, kind, learners):
    model = small(contrast=DMVAE_D.PRESETS[preset]["contrast"], halves=DMVAE_D.PRESETS[preset]["halves"])
    loss = term(model, kind, items(PAIR, 30))
    for part in ("c heads", "s heads", "decoders", "discriminators"):
        assert moved(model, loss, part) == [part in learners] * 2, part


def test_discriminators_learn_alone_from_their_loss():
    model = small()
    losses = model.discriminator_losses(model.draw(items(PAIR, 30), generator=seeded(1)), seeded(2))
    assert set(losses) == set(PAIR)
    assert moved(model, sum(losses.values()), "discriminators") == [True, True]
    for part in ("c heads", "s heads", "decoders"):
        assert moved(model, sum(losses.values()), part) == [False, False]


def test_the_trunks_learn_from_both_sides():
    model, batch = small(), items(PAIR, 30)
    for kind in ("recon", "info_nce"):
        trunk = model.encoders["image"].trunk
        assert any(g.abs().max() > 0 for g in gradients(term(model, kind, batch), trunk.parameters()))


class Split(nn.Module):
    """Exact q(c | x_m) of LG3 beside a style that is its prior."""

    def __init__(self, name):
        super().__init__()
        self.shared = lg_posterior((name,))

    def forward(self, x):
        return {"private": Normal.standard(len(x), 1, like=x), "shared": self.shared(x)}


class Deaf(nn.Module):
    """A decoder that does not hear the style."""

    def __init__(self, weight):
        super().__init__()
        self.decoder = linear_decoder(weight)

    def forward(self, z):
        return self.decoder(z[:, 1:])


def linear(names=NAMES, **options):
    index = [NAMES.index(name) for name in names]
    return DMVAE_D(
        {name: Split(name) for name in names},
        {name: Deaf(LG3.weights[i]) for name, i in zip(names, index)},
        {name: NormalLikelihood(math.sqrt(LG3.variances[i])) for name, i in zip(names, index)},
        1,
        1,
        **options,
    )


@pytest.mark.equation("eq-dmvae-d-product")
def test_plain_product_counts_the_prior_too_often_and_the_quotient_is_exact():
    plain = linear().posterior(observation())["shared"]
    assert (plain.precision.item(), plain.mean.item()) == pytest.approx((10, 0.5))
    with_prior = linear(pool="prior").posterior(observation())["shared"]
    assert with_prior.precision.item() == pytest.approx(11)
    for r in (1, 2, 3):
        for names in itertools.combinations(NAMES, r):
            exact = LG3.posterior({NAMES.index(n): LG3_OBSERVATION[NAMES.index(n)] for n in names})
            found = linear(pool="quotient").posterior(observation(names))["shared"]
            assert (found.mean.item(), found.var.item()) == pytest.approx((exact.mean.item(), exact.var.item()))


@pytest.mark.parametrize("pool", ["product", "prior", "quotient"])
def test_subsets_of_a_draw_are_the_posteriors_of_those_subsets(pool):
    model, batch = linear(pool=pool), observation(n=20)
    codes = model.draw(batch, generator=seeded(0))
    checked = 0
    for k, i in itertools.product((A, B, ALL, SUBSET), range(20)):
        names = [m for m in NAMES if codes.present[m][k, i]]
        if not names:
            continue
        found = model.posterior(observation(names))["shared"]
        assert codes.shared.mean[k, i].item() == pytest.approx(found.mean.item())
        assert codes.shared.logvar[k, i].item() == pytest.approx(found.logvar.item())
        checked += 1
    assert checked > 60


def test_a_and_b_split_everything_once():
    model = small(TRIPLE)
    codes = model.draw(items(TRIPLE, 400), generator=seeded(0))
    for present in codes.present.values():
        assert torch.equal(present[A] ^ present[B], present[ALL]) and present[ALL].all()
        assert 0.4 < present[A].double().mean().item() < 0.6
    subsets = {tuple(bool(codes.present[m][SUBSET, i]) for m in TRIPLE) for i in range(400)}
    assert len(subsets) == 1 and any(subsets.pop())


def test_evaluation_puts_everything_into_a_and_uses_means():
    model, batch = small(halves=True).eval(), items(PAIR, 10)
    codes = model.draw(batch, generator=seeded(0))
    for m in PAIR:
        assert codes.present[m][A].all() and not codes.present[m][B].any()
        assert torch.equal(codes.s[m], codes.private[m].mean)
    terms = model.loss(batch)
    assert {"A/recon/image", "A/recon/label"} < set(terms) and not any(name.startswith("B/") for name in terms)


def test_the_subset_is_a_coin_for_each_modality_and_never_empty():
    model, batch, g = small(), items(PAIR, 2), seeded(0)
    drawn = Counter()
    for _ in range(600):
        present = model.draw(batch, generator=g).present
        drawn[tuple(bool(present[m][SUBSET, 0]) for m in PAIR)] += 1
    chances = {(True, False): 3 / 8, (False, True): 3 / 8, (True, True): 1 / 4}
    assert set(drawn) == set(chances)
    assert sum((drawn[s] - 600 * p) ** 2 / (600 * p) for s, p in chances.items()) < 13.8


def recomputed(model, batch, target, there, seed):
    """The loss by loops over items, modalities and anchors, from the same stream of random numbers."""
    D, g, names = torch.distributions, seeded(seed), list(model.modalities)
    n = len(next(iter(batch.values())))
    coins = torch.rand(len(names), n, generator=g) < 0.5
    kept = torch.rand(len(names), 1, generator=g)
    subset = [bool(u < 0.5) or float(u) == float(kept.min()) for u in kept]
    q = {m: model.encoders[m](batch[m]) for m in names}
    s = {m: q[m]["private"].mean + q[m]["private"].std * torch.randn(n, S, generator=g, dtype=F64) for m in names}
    noise = torch.randn(4, n, C, generator=g, dtype=F64)

    def pool(members, i):
        precision = sum(1 / q[m]["shared"].logvar[i].exp() for m in members)
        mean = sum(q[m]["shared"].mean[i] / q[m]["shared"].logvar[i].exp() for m in members) / precision
        return D.Normal(mean, precision.rsqrt())

    recon, divergences, pairs = {}, {m: [] for m in names}, {m: [] for m in names}
    one, two = [], []
    for i in range(n):
        here = [m for m in names if there[m][i]]
        a = [m for m in here if coins[names.index(m), i]]
        b = [m for m in here if m not in a]
        for m in here:
            z = torch.cat([s[m][i], pool(a if m in a else b, i).loc.detach()])
            name = ("A/" if m in a else "B/") + m if model.halves else m
            recon.setdefault(name, []).append(log_px(model, m, z, target[m][i]))
            divergences[m].append(divergence(density(q[m]["private"], i), D.Normal(0.0, 1.0)))
            if m in a:
                c = pool(a, i)
                pairs[m].append((s[m][i], (c.loc + c.scale * noise[A, i]).detach()))
        both = [m for m in here if subset[names.index(m)]]
        if both and (a or not model.halves):
            full, part = pool(here, i), pool(both, i)
            one.append(full.loc + full.scale * noise[ALL, i])
            two.append(part.loc + part.scale * noise[SUBSET, i])
    total = -sum(model.weights[name.split("/")[-1]] * torch.stack(v).mean() for name, v in recon.items())
    for m in names:
        total = total + model.beta * model.betas[m] * torch.stack(divergences[m]).mean()
        if len(pairs[m]) < 2:
            continue
        styles, codes = (torch.stack(part) for part in zip(*pairs[m]))
        total = total + model.deltas[m] * model.discriminators[m](styles, codes).log_softmax(-1).diff(dim=-1).neg().mean()
    return total - model.gamma * contrast_by_loops(one, two, nt_xent=model.contrast == NT_XENT)


def contrast_by_loops(one, two, nt_xent):
    k, total = len(one), 0.0
    if not nt_xent:
        for i in range(k):
            scores = torch.stack([one[i] @ two[j] for j in range(k)])
            total = total + (scores[i] - scores.exp().mean().log()) / k
        return total
    views = [v / v.norm() for v in [*one, *two]]
    for a in range(2 * k):
        others = torch.stack([views[a] @ views[b] for b in range(2 * k) if b != a])
        total = total + (others.exp().sum().log() - views[a] @ views[(a + k) % (2 * k)]) / (2 * k)
    return math.log(2 * k - 1) - total


@pytest.mark.equation("eq-dmvae-d-loss")
@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("form", [{"contrast": INNER, "halves": False}, {"contrast": NT_XENT, "halves": True}])
def test_loss_and_gradients_equal_an_independent_recomputation(form, missing):
    weights = {"weights": {"label": 3.0}, "betas": {"image": 2.0}, "gamma": 1.7, "deltas": {"speech": 0.5}}
    model, batch, n = small(TRIPLE, **weights, **form), items(TRIPLE, 9), 9
    model.beta = 0.6
    target = {m: x.roll(1, 0) for m, x in batch.items()}
    there = {m: torch.ones(n, dtype=torch.bool) for m in TRIPLE}
    if missing:
        there = {m: torch.rand(n, generator=seeded(k)) < 0.7 for k, m in enumerate(TRIPLE)}
        there["image"] |= ~(there["label"] | there["speech"])
    found = model.loss(batch, target, there, seeded(5))["loss"]
    expected = recomputed(model, batch, target, there, 5)
    assert found.item() == pytest.approx(expected.item(), rel=1e-10)
    ours = [*model.encoders.parameters(), *model.decoders.parameters()]
    assert all(torch.allclose(a, b, rtol=1e-7, atol=1e-10) for a, b in zip(gradients(found, ours), gradients(expected, ours)))


def test_with_halves_reconstruction_counts_twice_and_is_the_mean_otherwise():
    batch = items(PAIR, 40)
    once, twice = (small(halves=h).loss(batch, generator=seeded(3)) for h in (False, True))
    assert once["kl/image"].item() == twice["kl/image"].item()
    assert (twice["A/recon/image"] + twice["B/recon/image"]).item() == pytest.approx(2 * once["recon/image"].item(), rel=0.05)


def test_a_constant_added_to_the_styles_leaves_the_contrast_alone():
    model, batch = small(), items(PAIR, 12)
    before = model.loss(batch, generator=seeded(1))
    with torch.no_grad():
        for encoder in model.encoders.values():
            encoder.private.bias[:S] += 7.0
    after = model.loss(batch, generator=seeded(1))
    assert after["info_nce"].item() == before["info_nce"].item()
    assert after["tc/image"].item() != before["tc/image"].item() and after["kl/image"] > before["kl/image"]


@pytest.mark.parametrize(("contrast", "ceiling"), [(INNER, math.log(30)), (NT_XENT, math.log(59))])
def test_the_contrast_stays_below_its_ceiling_and_is_nothing_for_constant_codes(contrast, ceiling):
    model, batch = small(contrast=contrast), items(PAIR, 30)
    with torch.no_grad():
        for encoder in model.encoders.values():
            encoder.shared.weight *= 50
    assert model.loss(batch)["info_nce"].item() <= ceiling
    with torch.no_grad():
        for encoder in model.encoders.values():
            encoder.shared.weight.zero_()
            encoder.shared.bias.copy_(torch.tensor([1.0] * C + [-10.0] * C))
    assert model.eval().loss(batch)["info_nce"].item() == pytest.approx(0, abs=1e-9)


def test_discriminator_losses_are_cross_entropies_of_joint_and_permuted_pairs():
    model, batch = small(("image",)), items(("image",), 20)
    codes = model.draw(batch, generator=seeded(1))
    found = model.discriminator_losses(codes, seeded(2))["image"]
    rows = [i for i in range(20) if codes.present["image"][A, i]]
    order, judge, cross_entropy = torch.randperm(len(rows), generator=seeded(2)), model.discriminators["image"], nn.functional.cross_entropy
    total = 0.0
    for k, i in enumerate(rows):
        c = codes.c[A, i : i + 1]
        joint, mixed = judge(codes.s["image"][i : i + 1], c), judge(codes.s["image"][[rows[order[k]]]], c)
        total = total + 0.5 * (cross_entropy(joint, torch.tensor([0])) + cross_entropy(mixed, torch.tensor([1]))) / len(rows)
    assert found.item() == pytest.approx(total.item(), rel=1e-10)


def test_the_adversary_separates_styles_that_know_c():
    g, model = seeded(0), small(("image",), private=1, shared=1, gamma=0.0)
    optimiser = torch.optim.Adam(model.discriminators.parameters(), lr=1e-2)

    def codes(n):
        c = torch.randn(n, 1, generator=g, dtype=F64)
        s = 0.9 * c + math.sqrt(0.19) * torch.randn(n, 1, generator=g, dtype=F64)
        everyone = torch.ones(4, n, dtype=torch.bool)
        return Codes({}, {"image": s}, Normal.standard(4, n, 1), c.expand(4, n, 1), {"image": everyone})

    for _ in range(200):
        optimiser.zero_grad()
        model.discriminator_losses(codes(200), g)["image"].backward()
        optimiser.step()
    found = model.objective(codes(5000), items(("image",), 2))["tc/image"].item()
    assert found == pytest.approx(-0.5 * math.log(0.19), abs=0.3)


def test_a_masked_modality_equals_an_absent_one():
    model, batch = small(TRIPLE), items(TRIPLE, 10)
    masked = model.loss(batch, observed={"speech": torch.zeros(10, dtype=torch.bool)}, generator=seeded(0))
    absent = model.loss({m: batch[m] for m in PAIR}, generator=seeded(0))
    assert masked.keys() == absent.keys() and all(masked[k].item() == absent[k].item() for k in masked)


def test_unobserved_values_play_no_part():
    model, batch, n = small(TRIPLE), items(TRIPLE, 10), 10
    there = {"speech": torch.arange(n) % 3 > 0}
    other = {**batch, "speech": torch.where(there["speech"][:, None, None], batch["speech"], 9.0)}
    one, two = (model.loss(b, observed=there, generator=seeded(0)) for b in (batch, other))
    assert all(one[k].item() == pytest.approx(two[k].item(), rel=1e-12) for k in one)


@settings(max_examples=20, deadline=None)
@given(st.permutations(TRIPLE), st.permutations(range(6)), st.integers(1, 3), st.sampled_from(["product", "prior"]))
def test_order_changes_nothing_and_any_subset_is_finite(names, rows, r, pool):
    model, batch = small(TRIPLE, pool=pool).eval(), items(TRIPLE, 6)
    shuffled = {m: batch[m][rows] for m in names[:r]}
    q, plain = model.posterior(shuffled), model.posterior({m: batch[m] for m in TRIPLE if m in names[:r]})
    assert set(q) == {"shared", *(f"private/{m}" for m in TRIPLE)}
    for k in q:
        assert torch.isfinite(q[k].mean).all() and torch.allclose(q[k].mean, plain[k].mean[rows])
    one, two = (model.loss(b) for b in (shuffled, {m: batch[m] for m in TRIPLE if m in names[:r]}))
    for k in set(one) - {"loss", "info_nce"}:
        assert one[k].item() == pytest.approx(two[k].item(), rel=1e-9)
    assert all(math.isfinite(v.item()) for v in one.values())
    by_rows = model.loss({m: batch[m][rows] for m in TRIPLE}, generator=seeded(0))
    assert by_rows["loss"].item() == pytest.approx(model.loss(batch, generator=seeded(0))["loss"].item(), rel=1e-9)


def test_one_item_cannot_be_contrasted_but_has_every_other_term():
    one = items(PAIR, 1)
    with pytest.raises(ValueError, match="info_nce needs at least 2 items, got 1"):
        small(deltas=0.0).loss(one)
    with pytest.raises(ValueError, match="density_ratio_tc needs at least 2 items, got 1"):
        small(gamma=0.0).loss(one)
    terms = small(gamma=0.0, deltas=0.0).loss(one)
    assert set(terms) == {"loss", "recon/image", "recon/label", "kl/image", "kl/label"}
    assert math.isfinite(terms["loss"].item())


def test_an_unlucky_split_leaves_the_terms_out():
    model, batch = small(halves=True), items(PAIR, 2)
    seen = {frozenset(model.loss(batch, generator=seeded(k))) for k in range(40)}
    assert any("tc/image" not in names for names in seen) and any("tc/image" in names for names in seen)
    assert any("info_nce" not in names for names in seen)


def test_verbs_have_the_promised_shapes_even_for_one_item():
    model, batch = small(TRIPLE), items(TRIPLE, 1)
    image = {"image": batch["image"]}
    assert model.translate(image, "label").shape == (1, 3)
    drawn = [model.translate(image, "speech", sample=True, generator=seeded(k)) for k in (0, 0, 1)]
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])
    swapped = model.swap({"label": batch["label"]}, image)
    assert {k: tuple(v.shape[1:]) for k, v in swapped.items()} == {m: KINDS[m][0] for m in TRIPLE}
    latents = {"shared": torch.zeros(C, dtype=F64), "private/image": torch.zeros(S, dtype=F64)}
    steps = model.traverse(latents, 1, torch.linspace(-1, 1, 4, dtype=F64), of="private/image")
    assert set(steps) == {"image"} and steps["image"].shape == (4, 1, 4, 4)
    assert not torch.equal(steps["image"][0], steps["image"][3])
    assert model.decode({"shared": torch.zeros(2, 5, C).double(), "private/label": torch.zeros(2, 5, S).double()})["label"].shape == (2, 5, 3)


def test_swap_takes_c_from_one_batch_and_styles_from_the_other():
    model, batch = small(), items(PAIR, 4)
    other = {m: x.flip(0) for m, x in batch.items()}
    found = model.swap(batch, {"image": other["image"]})
    q, r = model.posterior(batch), model.posterior({"image": other["image"]})
    by_hand = model.decoders["image"](torch.cat([r["private/image"].mean, q["shared"].mean], -1)).sigmoid()
    assert torch.equal(found["image"], by_hand)
    own = model.translate(batch, "image")
    assert torch.equal(model.swap(batch, batch)["image"], own)
    no_style = model.decoders["label"](torch.cat([torch.zeros(4, S, dtype=F64), q["shared"].mean], -1)).softmax(-1)
    assert torch.equal(found["label"], no_style)


def test_a_drawn_translation_draws_the_style_and_not_c():
    model, batch = small(), items(PAIR, 4)
    c = model.posterior({"image": batch["image"]})["shared"].mean
    g = seeded(3)
    own, style = (torch.randn(4, S, dtype=F64, generator=g) for _ in PAIR)
    expected = model.decoders["label"](torch.cat([style, c], -1)).softmax(-1)
    assert torch.equal(model.translate({"image": batch["image"]}, "label", sample=True, generator=seeded(3)), expected)
    q = model.posterior(batch)["private/image"]
    expected = model.decoders["image"](torch.cat([q.mean + q.std * own, c], -1)).sigmoid()
    assert torch.equal(model.translate({"image": batch["image"]}, "image", sample=True, generator=seeded(3)), expected)


def fitted(model, batch, components=2):
    model.density = ExPostDensity.of(model, batch, components=components)
    return model


def test_sampling_and_likelihood_need_a_fitted_density():
    model, batch = small(), items(PAIR, 40)
    for verb in (lambda: model.sample(3), lambda: model.log_likelihood(batch, 5)):
        with pytest.raises(NotImplementedError, match=r"has no prior of c; \w+ needs model.density = ExPostDensity.of\(model, data\)"):
            verb()
    assert "density" not in "".join(model.state_dict())
    fitted(model, batch)
    assert {k: tuple(v.shape) for k, v in model.sample(5, seeded(0)).items()} == {"image": (5, 1, 4, 4), "label": (5, 3)}
    assert torch.equal(model.sample(5, seeded(0))["image"], model.sample(5, seeded(0))["image"])
    assert model.log_likelihood(batch, 5, generator=seeded(0)).shape == (40,)
    g = seeded(0)
    c = model.density.sample(5, g)
    styles = {f"private/{m}": torch.randn(5, S, dtype=F64, generator=g) for m in PAIR}
    by_hand, found = model.decode({"shared": c, **styles}), model.sample(5, seeded(0))
    assert all(torch.equal(found[m], by_hand[m]) for m in PAIR)


def test_a_density_follows_the_type_of_the_model_and_must_have_its_size():
    model, batch = small(), items(PAIR, 40)
    double = fitted(model, batch).log_likelihood(batch, 5, generator=seeded(0))
    model.density = model.density.to(torch.zeros(1))
    assert model.sample(3)["image"].dtype == F64 and model._fitted("sample").means.dtype == F64
    assert torch.allclose(model.log_likelihood(batch, 5, generator=seeded(0)), double, rtol=1e-4)
    model.density = ExPostDensity.fit(torch.randn(9, C + 1), components=1)
    with pytest.raises(ValueError, match="model.density has 4 dimensions and c has 3"):
        model.sample(2)


def test_likelihood_of_an_exact_model_is_the_evidence_whatever_the_chunking():
    model = linear(pool="quotient")
    one = torch.ones(1, dtype=F64)
    model.density = ExPostDensity(one, torch.zeros(1, 1, dtype=F64), one[:, None, None])
    for names in (NAMES[:1], NAMES[:2], NAMES):
        exact = LG3.log_prob({NAMES.index(n): LG3_OBSERVATION[NAMES.index(n)] for n in names}).item()
        for samples, chunk in ((5, 2), (6, 100), (1, 1)):
            assert model.log_likelihood(observation(names, 3), samples, chunk).tolist() == pytest.approx([exact] * 3, abs=1e-9)


def test_likelihood_approaches_quadrature_where_styles_matter():
    model, x = small(("label",), private=1, shared=1), items(("label",), 2)
    one = torch.ones(1, dtype=F64)
    model.density = ExPostDensity(one, torch.zeros(1, 1, dtype=F64), one[:, None, None])
    grid = torch.linspace(-8, 8, 401, dtype=F64)
    s, c = torch.meshgrid(grid, grid, indexing="ij")
    z = torch.stack([s.flatten(), c.flatten()], -1)
    with torch.no_grad():
        log_p = (x["label"][:, None] * model.decoders["label"](z).log_softmax(-1)).sum(-1)
        log_p = log_p + torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(-1)
    exact = log_p.logsumexp(-1) + 2 * math.log(16 / 400)
    found = model.log_likelihood(x, 20_000, 5000, seeded(0))
    assert torch.allclose(found, exact, atol=0.02)


@pytest.mark.parametrize("names", [PAIR, ("image", "label", "speech", "caption", "attributes")])
@pytest.mark.parametrize("form", [{"contrast": INNER}, {"contrast": NT_XENT, "halves": True}])
def test_it_learns_every_kind_of_modality(names, form, tmp_path):
    data, model = items(names, 48), small(names, deltas=0.1, **form)
    before = [p.clone() for p in model.discriminators.parameters()]
    history = fit(model, data, epochs=12, batch_size=24, seed=0, progress=False, step=model.step, optimizers=model.optimizers(5e-3, 1e-3))
    assert history["loss"][-1] < history["loss"][0] and f"discriminator/{names[0]}" in history.epochs[0]
    assert not any(torch.equal(a, b) for a, b in zip(before, model.discriminators.parameters()))
    save_file(model.state_dict(), tmp_path / "m.safetensors")
    again = small(names, seed=1)
    again.load_state_dict(load_file(tmp_path / "m.safetensors"))
    again.eval()
    assert all(torch.equal(a.mean, b.mean) for a, b in zip(model.posterior(data).values(), again.posterior(data).values()))


def test_a_step_moves_the_discriminators_before_the_model_and_each_with_its_own_optimiser():
    model, batch = small(), items(PAIR, 20)
    frozen = {"model": torch.optim.SGD(model.encoders.parameters(), lr=0.0), "discriminators": model.optimizers()["discriminators"]}
    before = model.loss(batch, generator=seeded(3))
    terms = model.step(model, batch, frozen, seeded(3))
    assert terms["recon/image"].item() == before["recon/image"].item()
    assert terms["tc/image"].item() != before["tc/image"].item()  # the verdict of the updated discriminator
    groups = model.optimizers()
    held = {name: {id(p) for g in o.param_groups for p in g["params"]} for name, o in groups.items()}
    assert held["discriminators"] == {id(p) for p in model.discriminators.parameters()}
    assert not held["model"] & held["discriminators"] and len(held["model"] | held["discriminators"]) == len(list(model.parameters()))
    assert groups["discriminators"].defaults["betas"] == (0.5, 0.9) and groups["discriminators"].defaults["lr"] == 1e-4


def test_denoising_reconstructs_clean_targets_from_noisy_inputs():
    names = ("a", "b", "c")
    torch.manual_seed(0)
    model = DMVAE_D(
        {m: SplitEncoder(dense_trunk([16, 8]), 8, S, C) for m in names},
        {m: nn.Sequential(*dense_decoder([S + C, 8, 16], (1, 4, 4)), nn.Sigmoid()) for m in names},
        {m: LaplaceLikelihood(0.1) for m in names},
        S,
        C,
        discriminators={m: Discriminator(S, C, (6,), (8,)) for m in names},
        **DMVAE_D.PRESETS["code_paired"],
    )
    clean = {m: items(("image",), 48)["image"].float() for m in names}

    def noise(batch, generator):
        return {m: x + torch.randn(x.shape, generator=generator) for m, x in batch.items()}

    history = fit(
        model, clean, epochs=15, batch_size=24, corrupt=noise, step=model.step, optimizers=model.optimizers(1e-2), progress=False
    )
    assert history["A/recon/a"][-1] > history["A/recon/a"][0]
    loss = model.loss({m: x + 1 for m, x in clean.items()}, target=clean, generator=seeded(0))
    assert loss["loss"].item() != model.loss({m: x + 1 for m, x in clean.items()}, generator=seeded(0))["loss"].item()


@pytest.mark.parametrize("preset", DMVAE_D.PRESETS)
def test_networks_of_the_paper_with_its_presets(preset):
    names = list("abcde") if preset.endswith("paired") else ["mnist", "svhn"]
    networks = dmvae_d_paired_networks(names) if preset.endswith("paired") else dmvae_d_networks()
    shapes = {m: (3, 32, 32) if m == "svhn" else (1, 28, 28) for m in names}
    model = DMVAE_D(**networks, likelihoods={m: LaplaceLikelihood(0.1) for m in names}, private_dim=10, shared_dim=10, **DMVAE_D.PRESETS[preset])
    assert model.event_shapes == shapes and MODELS["dmvae_d"] is DMVAE_D
    batch = {m: torch.rand(4, *shape, generator=seeded(0)) for m, shape in shapes.items()}
    assert math.isfinite(model.loss(batch, generator=seeded(0))["loss"].item())


def test_networks_have_the_sizes_of_the_paper():
    def count(module):
        return sum(p.numel() for p in module.parameters())

    networks, paired = dmvae_d_networks(), dmvae_d_paired_networks(("one",))
    assert count(networks["encoders"]["mnist"]) == 784 * 400 + 400 + 4 * (400 * 10 + 10)
    assert count(networks["decoders"]["mnist"]) == 20 * 400 + 400 + 400 * 784 + 784
    convolutions = (3 * 32 + 32 * 64 + 64 * 128) * 16
    assert count(networks["encoders"]["svhn"]) == convolutions + 32 + 64 + 128 + 4 * (128 * 16 * 10 + 10)
    assert count(networks["decoders"]["svhn"]) == convolutions + 20 * 128 * 16 + 128 + 64 + 32 + 3
    assert count(paired["encoders"]["one"]) == 784 * 512 + 512 + 512 * 512 + 512 + 4 * (512 * 10 + 10)
    assert count(paired["decoders"]["one"]) == 20 * 512 + 512 + 2 * (512 * 512 + 512) + 512 * 784 + 784
    start = networks["decoders"]["svhn"][1].weight.clone()
    for part in networks.values():
        for network in part.values():
            network.apply(normal_init)
    assert networks["encoders"]["mnist"].private.weight.std().item() == pytest.approx(0.05, rel=0.05)
    assert networks["encoders"]["svhn"].trunk[0].bias.abs().max().item() == 0
    assert torch.equal(networks["decoders"]["svhn"][1].weight, start)


@pytest.mark.parametrize(
    ("change", "error", "sentence"),
    [
        (lambda b: {**b, "image": b["image"][:, :, :2]}, ValueError, r"'image': found shape \[6, 1, 2, 4\], wanted \[batch, 1, 4, 4\]"),
        (lambda b: {**b, "image": b["image"] * 255}, ValueError, "wanted 0 to 1"),
        (lambda b: {**b, "image": b["image"].masked_fill(torch.ones(1, 4, 4) > 0, math.nan)}, ValueError, "holds NaN"),
        (lambda b: {**b, "lable": b["label"]}, KeyError, "did you mean 'label'"),
        (lambda b: {**b, "label": b["label"][:5]}, ValueError, "differ in length"),
        (lambda b: {}, ValueError, "the batch is empty"),
    ],
)
@pytest.mark.parametrize("verb", ["loss", "posterior"])
def test_bad_batches_are_named(as_a_reader, verb, change, error, sentence):
    with pytest.raises(error, match=sentence):
        getattr(small(), verb)(change(items(PAIR, 6)))


def test_bad_settings_targets_masks_and_latents_are_named(as_a_reader):
    model, batch = small(), items(PAIR, 6)
    for options, error, sentence in [
        ({"pool": "produkt"}, KeyError, "did you mean 'product'"),
        ({"betas": {"imege": 1.0}}, KeyError, "did you mean 'image'"),
        ({"contrast": {"temprature": 0.1}}, KeyError, "unknown option of the contrast.* did you mean 'temperature'"),
    ]:
        with pytest.raises(error, match=sentence):
            small(**options)
    for sizes, sentence in [((0, 2), "private_dim: found 0"), ((2, 0), "shared_dim: found 0")]:
        with pytest.raises(ValueError, match=sentence):
            DMVAE_D(model.encoders, model.decoders, model.likelihoods, *sizes)
    with pytest.raises(KeyError, match="unknown critic 'dot'"):
        small(contrast={"critic": "dot"}).loss(batch)
    with pytest.raises(ValueError, match="decoder of 'image' cannot read 6 numbers, its private and shared latents together"):
        DMVAE_D(model.encoders, model.decoders, model.likelihoods, S, C + 1)
    with pytest.raises(KeyError, match=r"optimizers: found \['adam'\], wanted 'model' and 'discriminators'"):
        fit(model, batch, epochs=1, batch_size=3, optimizers={"adam": torch.optim.Adam(model.parameters())}, progress=False)
    with pytest.raises(ValueError, match="decoders are given for"):
        DMVAE_D({"image": nn.Identity()}, {}, {}, 2, 2)
    with pytest.raises(KeyError, match="target lacks modality 'label'"):
        model.loss(batch, target={"image": batch["image"]})
    with pytest.raises(ValueError, match="every modality of every item as absent"):
        model.loss(batch, observed={m: torch.zeros(6, dtype=torch.bool) for m in batch})
    with pytest.raises(KeyError, match="unknown latent 'private/imge'.* did you mean 'private/image'"):
        model.decode({"shared": torch.zeros(1, C).double(), "private/imge": torch.zeros(1, S).double()})
    with pytest.raises(KeyError, match="latents: found 'private/image', wanted 'shared'"):
        model.decode({"private/image": torch.zeros(1, S).double()})
    one = {"shared": torch.zeros(1, C).double(), "private/image": torch.zeros(1, S).double()}
    with pytest.raises(ValueError, match=r"latents\['private/image'\]: found shape \[1, 7\], wanted 2 numbers in the last axis"):
        model.decode({**one, "private/image": torch.zeros(1, 7).double()})
    with pytest.raises(ValueError, match=r"latents\['private/image'\]: found \[4\] items, wanted \[1\] as in 'shared'"):
        model.decode({**one, "private/image": torch.zeros(4, S).double()})
    with pytest.raises(ValueError, match=r"starts from one item: latents\['shared'\] has shape \[1, 3\]"):
        model.traverse(one, 0, torch.zeros(2))
    with pytest.raises(ValueError, match="content has 6 items and style has 3"):
        model.swap(batch, {m: x[:3] for m, x in batch.items()})
    with pytest.raises(KeyError, match="unknown modality 'sound'"):
        model.translate(batch, "sound")
    with pytest.raises(IndexError, match="dim: found 9"):
        model.traverse({"shared": torch.zeros(C), "private/image": torch.zeros(S)}, 9, torch.zeros(2))
    with pytest.raises(ValueError, match="n: found 0"):
        model.sample(0)
