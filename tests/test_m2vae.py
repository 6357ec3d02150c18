"""M2VAE: its lattice in exact fractions, LG3, an independent recomputation of its loss, and bad input."""

import itertools
import math
from fractions import Fraction

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from mmvae_lite.data import LG3, LG3_OBSERVATION
from mmvae_lite.distributions import BernoulliLikelihood, NormalLikelihood, kl
from mmvae_lite.models import M2VAE, VAE
from mmvae_lite.models.m2vae import omega, subsets
from mmvae_lite.networks import m2vae_networks
from mmvae_lite.training import fit
from tests import kinds
from tests.linear import NAMES, assert_a_batch_is_its_singles, lg_parts, lg_posterior, objective, observation, two_point_noise

KINDS = ("image", "label", "speech")
LOG_P = {1: -1.5155121235, 2: -3.0254234677, 3: -3.7624627802}


def lg_m2vae(names=NAMES, **options):
    return M2VAE({"+".join(s): lg_posterior(s) for s in subsets(names)}, **lg_parts(names), **options)


def make(names=KINDS, seed=0, **options):
    torch.manual_seed(seed)
    encoders = {"+".join(s): kinds.encoder(s) for s in subsets(names)}
    return M2VAE(encoders, **kinds.parts(names), **options).double()


def loss(model, batch=None, seed=0, **more):
    return model.loss(batch or kinds.items(KINDS), generator=torch.Generator().manual_seed(seed), **more)


# --- the lattice


def recursion(names):
    """Coefficients of J(S) in L(names), by the paper's recursion L(S) = 1/|S| (J(S) + sum_m L(S without m))."""
    if not names:
        return {}
    share, found = Fraction(1, len(names)), {frozenset(names): Fraction(1, len(names))}
    for m in names:
        for s, c in recursion(names - {m}).items():
            found[s] = found.get(s, Fraction(0)) + share * c
    return found


@pytest.mark.parametrize("M", range(1, 7))
def test_weights_are_the_recursion_s_in_exact_fractions(M):
    found = recursion(frozenset(range(M)))
    assert len(found) == 2**M - 1
    assert all(c == omega(len(s), M) for s, c in found.items())


@pytest.mark.parametrize("M", range(1, 7))
def test_masses_of_the_lattice(M):
    sizes = [len(s) for s in subsets([str(m) for m in range(M)])]
    assert len(sizes) == 2**M - 1
    assert sum(omega(s, M) for s in sizes) == sum(Fraction(1, k) for k in range(1, M + 1))
    assert sum(omega(len(s), M) for s in subsets([str(m) for m in range(M)]) if "0" in s) == 1
    assert sum(s * omega(s, M) for s in sizes if s > 1) == M - 1


def test_weights_by_size_of_the_papers_cases():
    table = {M: [omega(s, M) for s in range(1, M + 1)] for M in (1, 2, 3, 4, 5)}
    f = Fraction
    assert table == {
        1: [f(1)],
        2: [f(1, 2), f(1, 2)],
        3: [f(1, 3), f(1, 6), f(1, 3)],
        4: [f(1, 4), f(1, 12), f(1, 12), f(1, 4)],
        5: [f(1, 5), f(1, 20), f(1, 30), f(1, 20), f(1, 5)],
    }
    with pytest.raises(ValueError, match="size: found 4, wanted 1 to 3"):
        omega(4, 3)


def test_weights_are_shapley_values_of_the_evidence():
    # the average gain of a modality over arrival orders, which add up to log p(x)
    evidence = {(): 0.0}
    for s in subsets(NAMES):
        evidence[s] = LG3.log_prob({NAMES.index(n): LG3_OBSERVATION[NAMES.index(n)] for n in s}).item()
    gains = dict.fromkeys(NAMES, 0.0)
    for order in itertools.permutations(NAMES):
        for i, m in enumerate(order):
            before, after = (tuple(n for n in NAMES if n in order[:k]) for k in (i, i + 1))
            gains[m] += (evidence[after] - evidence[before]) / 6
    for m in NAMES:
        by_weights = sum(
            float(omega(len(s), 3)) * (evidence[s] - evidence[tuple(n for n in s if n != m)]) for s in subsets(NAMES) if m in s
        )
        assert gains[m] == pytest.approx(by_weights, abs=1e-12)
    assert sum(gains.values()) == pytest.approx(LOG_P[3], abs=1e-9)


# --- known answers on LG3


@pytest.mark.parametrize("M", [1, 2, 3])
def test_without_the_joint_prior_divergences_it_is_the_evidence(M, monkeypatch):
    model = lg_m2vae(NAMES[:M], beta_joint=0.0)
    assert objective(monkeypatch, model, observation(NAMES[:M], 2)) == pytest.approx(LOG_P[M], abs=1e-9)


def test_the_joint_prior_divergences_lower_the_bound(monkeypatch):
    found = {M: objective(monkeypatch, lg_m2vae(NAMES[:M]), observation(NAMES[:M], 2)) for M in (2, 3)}
    assert found == pytest.approx({2: -3.3761411, 3: -4.3370124}, abs=1e-7)
    for M, gap in ((2, 0.3507176), (3, 0.5745497)):
        prior = sum(
            float(omega(len(s), M)) * kl(lg_m2vae().posterior(observation(s))["shared"], lg_m2vae().prior(1)).item()
            for s in subsets(NAMES[:M])
            if len(s) > 1
        )
        assert LOG_P[M] - found[M] == pytest.approx(gap, abs=1e-7) and gap == pytest.approx(prior, abs=1e-7)


def test_the_top_of_the_lattice_is_the_sum_of_conditional_evidences(monkeypatch):
    monkeypatch.setattr("mmvae_lite.distributions._noise", two_point_noise)
    terms, full = lg_m2vae().loss(observation(NAMES, 2)), "+".join(NAMES)
    found = sum(terms[f"{full}/recon/{m}"] for m in NAMES) - sum(terms[f"{full}/kl/{'+'.join(s)}"] for s in itertools.combinations(NAMES, 2))
    rests = [LG3.log_prob({k: v for k, v in LG3_OBSERVATION.items() if k != m}).item() for m in range(3)]
    assert found.item() == pytest.approx(-3.1311128, abs=1e-7) and found.item() == pytest.approx(3 * LOG_P[3] - sum(rests), abs=1e-8)


def test_one_modality_makes_it_a_vae():
    model, batch = make(("image",), beta_uni=0.5), kinds.items(("image",))
    vae = VAE(model.encoders["image"], model.decoders["image"], BernoulliLikelihood(), kinds.LATENT, beta=0.5)
    one, two = (m.loss(batch, generator=torch.Generator().manual_seed(0))["loss"] for m in (model, vae))
    assert one.item() == pytest.approx(two.item(), rel=1e-12)


def test_relabelling_the_modalities_leaves_the_loss_unchanged(monkeypatch):
    values = {objective(monkeypatch, lg_m2vae(names), observation(NAMES, 2)) for names in itertools.permutations(NAMES)}
    assert max(values) - min(values) < 1e-12
    values = {objective(monkeypatch, lg_m2vae(), observation(names, 2)) for names in itertools.permutations(NAMES)}
    assert len(values) == 1


def test_posteriors_and_likelihoods_are_exact_on_lg3():
    model = lg_m2vae()
    for names in subsets(NAMES):
        x = {NAMES.index(n): LG3_OBSERVATION[NAMES.index(n)] for n in names}
        assert kl(model.posterior(observation(names))["shared"], LG3.posterior(x)).abs().max().item() < 1e-12
        found = model.log_likelihood(observation(names, 3), samples=5, chunk=2)
        assert found.tolist() == pytest.approx([LG3.log_prob(x).item()] * 3, abs=1e-9)


# --- an independent second computation


def recomputed(model, batch, there, eps, lattice):
    """Part by part: the paper's recursion for every item, then each part's mean over the items that have it."""
    n, parts, prior = len(batch["image"]), {}, torch.distributions.Normal(0.0, 1.0)
    rows = [s for s in subsets(KINDS) if any(all(there[m][i] for m in s) for i in range(n))]

    def posterior(s, i):
        inputs = {m: batch[m][i : i + 1] for m in s}
        return kinds.density(model.encoders["+".join(s)](inputs if len(s) > 1 else inputs[s[0]]), 0)

    for i in range(n):
        held = frozenset(m for m in KINDS if there[m][i])
        weights = recursion(held)
        for row, s in enumerate(rows):
            if not set(s) <= held:
                continue
            q = posterior(s, i)
            z = q.loc + q.scale * eps[row, i]
            recon = sum(model.weights[m] * kinds.log_px(model, m, z, batch[m][i]) for m in s)
            part = (0.4 if len(s) == 1 else 1.0) * recon - 0.7 * (0.3 if len(s) == 1 else 0.9) * kinds.divergence(q, prior)
            if len(s) > 1:
                part = part - 0.6 * sum(kinds.divergence(q, posterior(tuple(k for k in s if k != m), i)) for m in s)
            weight = float(weights[frozenset(s)]) if lattice == "shapley" else 1.0
            parts.setdefault(s, []).append(weight * part)
    return -sum(torch.stack(values).mean() for values in parts.values())


@pytest.mark.parametrize("lattice", ["shapley", "uniform"])
@pytest.mark.parametrize("mask", ["everything", "some"])
def test_loss_and_gradient_equal_an_independent_recomputation(mask, lattice):
    model = make(weights={"label": 5.0}, alpha=0.6, beta=0.7, beta_joint=0.9, beta_uni=0.3, gamma=0.4, lattice=lattice)
    batch, there = kinds.items(KINDS, n=6), {m: torch.ones(6, dtype=torch.bool) for m in KINDS}
    if mask == "some":
        there = {"image": torch.tensor([1, 0, 1, 1, 0, 0]).bool(), "label": torch.tensor([1, 1, 0, 1, 0, 0]).bool()}
        there["speech"] = torch.tensor([0, 1, 1, 0, 0, 1]).bool()  # no item is complete, one has nothing
    rows = 7 if mask == "everything" else 6
    found = loss(model, batch, seed=7, observed=there)["loss"]
    expected = recomputed(model, batch, there, kinds.noise(rows, 6, kinds.LATENT, seed=7), lattice)
    assert found.item() == pytest.approx(expected.item(), rel=1e-12)
    kinds.assert_same_gradients(found, expected, model.parameters())


def test_beta_can_follow_the_size_of_what_is_reconstructed():
    plain, scaled = (loss(make(normalised=n, lattice="uniform", beta=0.1)) for n in (False, True))
    sizes = {"image": 16, "label": 3, "speech": 20}
    extra = sum(0.1 * (sum(sizes[m] for m in s) / 3 - 1) * plain[f"{'+'.join(s)}/kl"].item() for s in subsets(KINDS))
    assert scaled["loss"].item() == pytest.approx(plain["loss"].item() + extra, rel=1e-12)
    assert {k: v.item() for k, v in plain.items() if k != "loss"} == {k: v.item() for k, v in scaled.items() if k != "loss"}


def test_mutual_divergences_train_both_encoders():
    model = make()
    terms = loss(model)
    for s in subsets(KINDS):
        for rest in itertools.combinations(s, len(s) - 1) if len(s) > 1 else ():
            term = terms[f"{'+'.join(s)}/kl/{'+'.join(rest)}"]
            for key, encoder in model.encoders.items():
                grads = [g for g in kinds.gradients(term, encoder.parameters()) if g is not None]
                assert bool(grads) == (key in ("+".join(s), "+".join(rest)))
                assert not grads or max(g.abs().max().item() for g in grads) > 0
            assert all(g is None for g in kinds.gradients(term, model.decoders.parameters()))


def test_the_loss_is_the_weighted_sum_of_its_unweighted_terms():
    terms, total = loss(make(alpha=0.6, beta_joint=0.9, beta_uni=0.3, gamma=0.4)), 0.0
    for s in subsets(KINDS):
        name, single = "+".join(s), len(s) == 1
        part = (0.4 if single else 1.0) * sum(terms[f"{name}/recon/{m}"] for m in s) - (0.3 if single else 0.9) * terms[f"{name}/kl"]
        part = part - 0.6 * sum(v for k, v in terms.items() if k.startswith(f"{name}/kl/"))
        total = total + float(omega(len(s), 3)) * part
    assert terms["loss"].item() == pytest.approx(-total.item(), rel=1e-12)


def test_counts_of_the_lattice_for_three_modalities():
    terms = loss(make())
    assert sum("/kl/" in k for k in terms) == 9 and sum(k.endswith("/kl") for k in terms) == 7
    assert sum("/recon/" in k for k in terms) == 3 * 2**2


# --- properties


def test_a_masked_modality_equals_an_absent_one():
    model, batch = make(), kinds.items(KINDS)
    for gone in KINDS:
        masked = loss(model, batch, observed={gone: torch.zeros(12, dtype=torch.bool)})
        absent = loss(model, {m: x for m, x in batch.items() if m != gone})
        assert masked.keys() == absent.keys() and all(torch.equal(masked[k], absent[k]) for k in masked)


def test_an_incomplete_batch_is_the_smaller_model():
    model, batch = make(), kinds.items(("image", "label"))
    smaller = M2VAE(
        {k: e for k, e in model.encoders.items() if "speech" not in k},
        {m: d for m, d in model.decoders.items() if m != "speech"},
        {m: p for m, p in model.likelihoods.items() if m != "speech"},
        kinds.LATENT,
    )
    assert loss(model, batch)["loss"].item() == loss(smaller, batch)["loss"].item()


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(names=st.permutations(KINDS), rows=st.permutations(range(5)), r=st.integers(1, 3))
def test_order_changes_nothing_and_any_subset_is_finite(names, rows, r):
    model, batch = make(), kinds.items(KINDS, n=5)
    subset = {m: batch[m] for m in names[:r]}
    one, two = model.posterior(subset)["shared"], model.posterior({m: x[list(rows)] for m, x in reversed(subset.items())})["shared"]
    assert torch.allclose(one.mean[list(rows)], two.mean) and torch.allclose(one.logvar[list(rows)], two.logvar)
    value = loss(model, subset)["loss"].item()
    assert math.isfinite(value)
    assert value == pytest.approx(loss(model, dict(reversed(subset.items())))["loss"].item(), rel=1e-12)


def test_verbs_work_for_one_item():
    model, g, batch = make(), torch.Generator().manual_seed(0), kinds.items(KINDS, n=1)
    assert math.isfinite(loss(model, batch)["loss"].item())
    assert model.posterior({}, n=3)["shared"].mean.abs().max().item() == 0
    assert {m: tuple(x.shape) for m, x in model.sample(4, g).items()} == {m: (4, *kinds.KINDS[m][0]) for m in KINDS}
    two = {m: batch[m] for m in ("speech", "label")}
    assert model.translate(two, "image", sample=True, generator=g).shape == (1, 1, 4, 4)
    walk = model.traverse({"shared": torch.zeros(3).double()}, 0, torch.linspace(-1, 1, 3).double())
    assert walk["image"].shape == (3, 1, 4, 4)
    target = {**batch, "image": 1 - batch["image"]}
    assert loss(model, batch, target=target)["loss"].item() != loss(model, batch)["loss"].item()


def test_likelihood_of_a_batch_is_the_sum_of_its_singles_whatever_the_chunking():
    model, batch = lg_m2vae(), {n: torch.randn(4, 1, dtype=torch.float64) for n in NAMES}
    assert_a_batch_is_its_singles(model, batch)
    found = [make().log_likelihood(kinds.items(KINDS), 8, chunk, torch.Generator().manual_seed(0)) for chunk in (8, 4)]
    assert torch.allclose(*found)


# --- training, files, networks


def test_it_learns_every_kind_of_modality_at_once(tmp_path):
    names = tuple(kinds.KINDS)
    assert len(names) == 5
    model, data = make(names).float(), kinds.items(names, n=40, dtype=torch.float32)
    some = {"image": torch.arange(40) % 3 > 0, "caption": torch.arange(40) % 4 > 0}
    history = fit(model, data, epochs=4, batch_size=20, lr=1e-2, observed=some, device="cpu", progress=False)
    assert history["loss"][-1] < history["loss"][0]
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    again = make(names, seed=1).float()
    again.load_state_dict(load_file(tmp_path / "model.safetensors"))
    again.eval()
    assert all(torch.equal(again.translate(data, m), model.translate(data, m)) for m in names)


def count(module):
    return sum(p.numel() for p in module.parameters())


def test_the_networks_of_the_paper_have_the_sizes_of_its_table():
    image, head = 784 * 128 + 128 + 128 * 64 + 64, 64 * 4 + 4
    parts = m2vae_networks({"digit": (1, 28, 28), "garment": (1, 28, 28)})
    found = {k: count(e) for k, e in parts["encoders"].items()}
    assert found == {"digit": image + head, "garment": image + head, "digit+garment": 2 * image + 128 * 64 + 64 + head}
    assert count(parts["decoders"]["digit"]) == 2 * 64 + 64 + 64 * 128 + 128 + 128 * 784 + 784
    two, wide = 2 * 128 + 128, 128 * 4 + 4
    mog = m2vae_networks({"a": (2,), "b": (2,)}, hidden=(128,))
    assert {k: count(e) for k, e in mog["encoders"].items()} == {"a": two + wide, "b": two + wide, "a+b": 2 * two + 256 * 64 + 64 + head}
    assert count(mog["decoders"]["b"]) == 2 * 128 + 128 + 128 * 2 + 2
    for preset in M2VAE.PRESETS.values():
        model = M2VAE(**mog, likelihoods=dict.fromkeys("ab", NormalLikelihood(math.sqrt(0.5))), latent_dim=2, **preset)
        assert math.isfinite(model.loss({"a": torch.randn(3, 2), "b": torch.randn(3, 2)})["loss"].item())
    three = m2vae_networks({m: (1, 28, 28) for m in "abc"})
    assert count(three["encoders"]["a+b+c"]) == 3 * image + 192 * 64 + 64 + head


# --- bad input


def test_what_has_no_meaning_says_so():
    batch = kinds.items(KINDS)
    with pytest.raises(NotImplementedError, match="no private style"):
        make().swap(batch, batch)
    with pytest.raises(KeyError, match="unknown lattice 'shaply'.* did you mean 'shapley'"):
        make(lattice="shaply")
    with pytest.raises(KeyError, match="did you mean 'label'"):
        make(weights={"lable": 2.0})
    with pytest.raises(ValueError, match=r"encoders are given for \['image'\], wanted \['image', 'image\+label', 'label'\]"):
        M2VAE({"image": kinds.encoder(("image",))}, **kinds.parts(("image", "label")))
    with pytest.raises(KeyError, match="unknown modality 'sound'"):
        M2VAE({"image": kinds.encoder(("image",)), "image+sound": kinds.encoder(("image",))}, **kinds.parts(("image", "label")))
    with pytest.raises(KeyError, match="target lacks modality 'label'"):
        make().loss(batch, target={"image": batch["image"]})


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
