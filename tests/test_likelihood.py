"""Likelihoods by importance sampling, against LG3 where every one of them is known."""

import math

import pytest
import torch
from torch import nn

from mmvae_lite.data import LG3, LG3_OBSERVATION, LG_PVAE, LG_PVAE_OBSERVATION
from mmvae_lite.distributions import BernoulliLikelihood, CategoricalLikelihood, LaplaceLikelihood, Normal, NormalLikelihood
from mmvae_lite.evaluation import likelihood as lik
from mmvae_lite.evaluation.latents import expert_divergences
from mmvae_lite.models import CVAE, DMVAE_L, JMVAE, MMVAE
from mmvae_lite.networks import ConditionalEncoder, SplitEncoder, dense_trunk, mlp
from tests import kinds
from tests.linear import F64, NAMES, Affine, LinearJoint, all_three, lg_mvae, lg_parts, lg_posterior, lg_vae, observation
from tests.test_pvae import lg_batch, lg_pvae

PAIR = NAMES[:2]


def exact(*names):
    return LG3.log_prob({NAMES.index(n): LG3_OBSERVATION[NAMES.index(n)] for n in names}).item()


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def lg_mmvae(names=PAIR, encoders=None, **options):
    """LG3 under a mixture of its exact unimodal posteriors."""
    options = {"prior": "normal", "learn_prior": False} | options
    return MMVAE(encoders or {name: lg_posterior((name,)) for name in names}, **lg_parts(names), **options)


def lg_jmvae(encoders=None):
    return JMVAE(LinearJoint(PAIR), encoders=encoders or {n: lg_posterior((n,)) for n in PAIR}, variant="kl", **lg_parts(PAIR))


@pytest.mark.parametrize("names", [NAMES, PAIR, ("second",)])
def test_an_exact_proposal_gives_the_evidence_from_every_draw(names):
    found = lik.log_likelihood(lg_mvae(), observation(names, 4), samples=7, chunk=3)
    assert found.values.tolist() == pytest.approx([exact(*names)] * 4, abs=1e-10)
    assert found.ess.tolist() == pytest.approx([7] * 4, abs=1e-9) and found.draws == 7
    assert found.shortfall.abs().max() < 1e-10


def test_it_agrees_with_the_verb_of_the_model():
    model, batch = lg_mmvae(), observation(PAIR, 5)
    ours = lik.log_likelihood(model, batch, samples=40, chunk=13, generator=seeded())
    theirs = model.log_likelihood(batch, samples=40, chunk=13, generator=seeded())
    assert torch.equal(ours.values, theirs) and ours.draws == 80
    other = lik.log_likelihood(model, {"second": batch["second"]}, {"first": batch["first"]}, samples=40, generator=seeded())
    wanted = model.log_likelihood({"first": batch["first"]}, 40, generator=seeded(), target={"second": batch["second"]})
    assert torch.allclose(other.values, wanted, rtol=0, atol=1e-12)
    model, all_x = lg_vae(0.4, 0.3), all_three(3)
    assert torch.equal(lik.log_likelihood(model, all_x, samples=9, generator=seeded()).values, model.log_likelihood(all_x, 9, generator=seeded()))


def test_it_agrees_with_the_verb_of_models_with_private_latents():
    names, g = ("image", "label"), torch.Generator().manual_seed(3)
    batch = kinds.items(names, dtype=torch.float32)
    torch.manual_seed(0)
    for shared in (2, (1, 3), (2, 3)):
        width = shared if isinstance(shared, int) else shared[0] * shared[1]
        model = DMVAE_L(
            {m: SplitEncoder(dense_trunk([kinds.size(m), 8]), 8, 2 if m == "image" else 0, shared) for m in names},
            {m: nn.Sequential(*mlp([width + (2 if m == "image" else 0), 8, kinds.size(m)]), nn.Unflatten(1, kinds.KINDS[m][0])) for m in names},
            {m: kinds.KINDS[m][1] for m in names},
            n_data=12,
            private_dims={"image": 2, "label": 0},
            shared=shared,
        )
        for given in (batch, {"label": batch["label"]}):
            g.manual_seed(1)
            ours = lik.log_likelihood(model, given, samples=20, generator=g).values
            g.manual_seed(1)
            assert torch.allclose(ours, model.log_likelihood(given, 20, generator=g), atol=1e-5)


def test_private_latents_are_drawn_from_their_prior_where_the_proposal_does_not_see_them():
    model, batch = lg_pvae(), lg_batch(4)
    truth = LG_PVAE.log_prob({1: LG_PVAE_OBSERVATION[1]}).item()
    one, two = model.modalities
    found = lik.log_likelihood(model, {two: batch[two]}, {one: batch[one]}, samples=40_000, chunk=9000, generator=seeded())
    assert found.values.mean().item() == pytest.approx(truth, abs=0.1)
    own = lik.log_likelihood(model, {two: batch[two]}, samples=40_000, chunk=9000, generator=seeded())
    assert own.values.mean().item() == pytest.approx(truth, abs=0.1)
    # the best factorised posterior is narrower than the true one, and so a worse proposal than the prior of its style
    assert own.ess.median() < found.ess.median() / 2


def test_the_three_columns_have_one_target():
    """Whatever x_S the proposal saw, the estimate tends to log p(x_m), and not to log p(x_m | x_n)."""
    model, batch = lg_mmvae(), observation(PAIR, 8)
    rows = lik.table(model, batch, samples=4000, chunk=1000, generator=seeded())
    assert set(rows) == {"joint"} | {f"{m}, proposal {n}" for m in PAIR for n in (*PAIR, "all")}
    for proposal in ("second", "first", "all"):
        assert rows[f"second, proposal {proposal}"]["mean"] == pytest.approx(exact("second"), abs=0.02)
    assert abs(exact("second") - (exact(*PAIR) - exact("first"))) > 0.4  # so that the two could not be mistaken
    assert rows["second, proposal second"]["ess"] == pytest.approx(4000)
    assert rows["second, proposal first"]["ess"] < rows["second, proposal all"]["ess"] < 8000
    assert rows["joint"]["mean"] == pytest.approx(exact(*PAIR), abs=0.02)
    assert rows["joint"]["n"] == 8 and rows["joint"]["draws"] == 8000


def test_a_model_without_unimodal_encoders_has_the_other_columns():
    rows = lik.table(JMVAE(LinearJoint(PAIR), **lg_parts(PAIR)), observation(PAIR, 2), samples=3000, chunk=1000, generator=seeded())
    assert set(rows) == {"joint", "first, proposal all", "second, proposal all"}
    assert rows["joint"]["mean"] == pytest.approx(exact(*PAIR), abs=1e-9)


def test_weights_make_an_objective_that_is_shown_beside_the_likelihood():
    model, batch = lg_mmvae(weights={"first": 3.92}), observation(PAIR, 6)
    rows = lik.table(model, batch, samples=2000, generator=seeded())
    assert rows["joint"]["mean"] == pytest.approx(exact(*PAIR), abs=0.03)
    z = torch.linspace(-12, 12, 40_001, dtype=F64)
    score = lambda m, i: NormalLikelihood(math.sqrt(LG3.variances[i])).log_prob(LG3.weights[i] * z[:, None], batch[m][:1].expand(len(z), 1))  # noqa: E731
    integrand = 3.92 * score("first", 0) + score("second", 1) + Normal.standard(1, like=z).log_prob(z[:, None])
    truth = (integrand.logsumexp(0) + math.log(24 / 40_000)).item()
    assert rows["joint, weighted"]["mean"] == pytest.approx(truth, abs=0.03)
    assert abs(truth - exact(*PAIR)) > 1


def test_estimates_rise_to_the_evidence_from_below_and_say_how_far_they_are():
    model = lg_vae(0.4, 0.3)
    values = [lik.log_likelihood(model, all_three(4000), samples=k, items=4000, generator=seeded()).values.mean().item() for k in (1, 2, 10, 100)]
    assert values == sorted(values) and values[-1] < exact(*NAMES) + 0.003
    assert values == pytest.approx([-4.2272, -3.9095, -3.7824, -3.7634], abs=0.03)
    found = lik.log_likelihood(model, all_three(4000), samples=100, items=4000, generator=seeded())
    shortfall = exact(*NAMES) - found.values.mean().item()
    assert found.shortfall.mean().item() == pytest.approx(shortfall, abs=0.004) and found.shortfall.mean() > 1e-3
    assert found.summary()["shortfall"] == found.shortfall.mean().item()


def test_a_poor_proposal_is_seen_in_the_effective_sample_size():
    far = lg_mmvae(encoders={name: Affine(0, 6.0, 0.01) for name in PAIR})
    found = lik.log_likelihood(far, observation(PAIR, 10), samples=300, generator=seeded())
    assert found.values.max().item() < exact(*PAIR) - 1
    assert found.summary()["poor"] > 0.5 and found.ess.min() >= 1 - 1e-9
    assert lik.log_likelihood(lg_mmvae(), observation(PAIR, 10), samples=300, generator=seeded()).summary()["poor"] == 0


def test_neither_chunks_nor_the_items_at_once_change_an_exact_value():
    batch = {name: x + torch.arange(7, dtype=F64)[:, None] for name, x in observation(PAIR, 7).items()}
    truth = LG3.log_prob({i: batch[n][:, 0] for i, n in enumerate(PAIR)})
    for chunk, items in ((1, 1), (4, 3), (100, 100)):
        found = lik.log_likelihood(lg_mvae(PAIR), batch, samples=5, chunk=chunk, items=items)
        assert torch.allclose(found.values, truth, atol=1e-10) and torch.allclose(found.ess, torch.full((7,), 5.0, dtype=F64))


def test_a_seed_fixes_the_estimate_and_the_model_stays_in_its_mode():
    model, batch = lg_mmvae().train(), observation(PAIR, 3)
    a, b, c = (lik.log_likelihood(model, batch, samples=10, generator=seeded(s)).values for s in (1, 1, 2))
    assert torch.equal(a, b) and not torch.equal(a, c) and model.training


def test_conditionals_are_differences_of_evidences():
    found = lik.conditional(lg_jmvae(), observation(PAIR, 3), "first", samples=5)
    assert found.tolist() == pytest.approx([-1.0767660] * 3, abs=1e-7)
    assert found[0].item() == pytest.approx(exact(*PAIR) - exact("second"), abs=1e-10)


def test_the_prediction_of_suzuki_is_the_conditional_where_inference_is_exact():
    batch, truth = observation(PAIR, 4), exact(*PAIR) - exact("second")
    found = lik.prediction(lg_jmvae(), batch, "first", samples=20_000, chunk=5000, generator=seeded())
    assert found.tolist() == pytest.approx([truth] * 4, abs=0.02)
    shifted = lg_jmvae({"first": lg_posterior(("first",)), "second": Affine(0, -3.0, 0.05)})
    wrong = lik.prediction(shifted, batch, "first", samples=20_000, chunk=5000, generator=seeded())
    assert wrong.max().item() < truth - 2  # a wrong q(z | x_n) shows here, and is repaired by weights in `conditional`
    assert lik.conditional(lg_jmvae(), batch, "first", samples=4).tolist() == pytest.approx([truth] * 4, abs=1e-9)


def test_the_conditional_measures_chunk_their_items():
    """Items of their own values, so that a chunk that took the wrong ones would show."""
    batch = {name: x + torch.arange(7, dtype=F64)[:, None] for name, x in observation(PAIR, 7).items()}
    model, options = lg_jmvae(), {"samples": 4000, "chunk": 1500}
    one, many = (lik.prediction(model, batch, "first", items=k, generator=seeded(), **options) for k in (100, 3))
    exact_one = lik.conditional(model, batch, "first", samples=2)
    assert torch.allclose(one, exact_one, atol=0.6) and torch.allclose(many, exact_one, atol=0.6) and exact_one.std() > 1


class Dropped(Affine):
    """An encoder that differs in training mode."""

    def forward(self, x):
        q = super().forward(x)
        return Normal(q.mean + 5, q.logvar) if self.training else q


def test_the_model_is_at_rest_while_it_is_asked_and_each_part_comes_back_as_it_was():
    model, batch = lg_mmvae(encoders={n: Dropped(0, 0.5, 0.5) for n in PAIR}), observation(PAIR, 3)
    calls = {
        "log_likelihood": lambda: lik.log_likelihood(model, batch, samples=20, generator=seeded()).values,
        "conditional": lambda: lik.conditional(model, batch, "first", samples=20, generator=seeded()),
        "prediction": lambda: lik.prediction(model, batch, "first", samples=20, generator=seeded()),
        "expert_divergences": lambda: expert_divergences(model, batch)["first"],
    }
    for name, call in calls.items():
        model.eval()
        wanted = call()
        model.train()
        model.encoders["second"].eval()  # such as a part that is kept as it is
        assert torch.equal(call(), wanted), name
        assert model.training and model.encoders["first"].training and not model.encoders["second"].training, name


def test_a_cvae_is_scored_given_its_label():
    torch.manual_seed(0)
    encoder = ConditionalEncoder(nn.Flatten(), nn.Sequential(nn.Linear(19, 8), nn.ReLU()), 8, 2)
    decoder = nn.Sequential(*mlp([5, 8, 16]), nn.Unflatten(1, (1, 4, 4)))
    model = CVAE(encoder, decoder, BernoulliLikelihood(), 2, classes=3)
    batch = kinds.items(("image", "label"), dtype=torch.float32)
    ours = lik.log_likelihood(model, {"image": batch["image"]}, batch, samples=30, generator=seeded())
    assert torch.allclose(ours.values, model.log_likelihood(batch, 30, generator=seeded()), atol=1e-5)


# What a decoder's scale does.


class Copy(nn.Module):
    """Decodes z as it stands."""

    def __init__(self, dim):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, z):
        return z * self.weight


class Around(nn.Module):
    """q(z | x) = N(x, 0.01)."""

    def __init__(self):
        super().__init__()
        self.logvar = nn.Parameter(torch.tensor(math.log(0.01)))

    def forward(self, x):
        return Normal(x, self.logvar.expand_as(x))


def pictures(scale, dim=20):
    return MMVAE({"x": Around()}, {"x": Copy(dim)}, {"x": LaplaceLikelihood(scale)}, dim, prior="normal")


def test_a_scale_that_fits_raises_the_likelihood_of_the_same_pictures_and_the_comparison_is_refused():
    x = {"x": 0.1 * torch.randn(50, 20, generator=seeded())}
    models = {"table": pictures(0.75), "fitted": pictures(0.08), "sure": pictures(0.01)}
    values = {name: lik.log_likelihood(m, x, samples=50, generator=seeded()).values.mean().item() for name, m in models.items()}
    assert values["fitted"] > values["table"] + 10  # the very same decoder
    with pytest.raises(ValueError, match=r"modality 'x': 'table' has LaplaceLikelihood\(scale=0.75\) and 'fitted' has .*cannot be compared"):
        lik.check_comparable(models)
    lik.check_comparable({"table": models["table"], "again": pictures(0.75)})
    report = {name: lik.scales(m, x, seeded())["x"] for name, m in models.items()}
    for name, row in report.items():
        assert row["residual"] == pytest.approx(0.1 * math.sqrt(2 / math.pi), rel=0.1) and row["n"] == 50
        assert values[name] <= row["ceiling"] == pytest.approx(-20 * math.log(2 * models[name].likelihoods["x"].scale))
    assert report["sure"]["scale"] < report["sure"]["residual"] / 4 < report["fitted"]["scale"]
    assert report["table"]["scale"] > 4 * report["table"]["residual"]


def test_a_published_number_can_be_impossible_under_the_scale_beside_it():
    with pytest.raises(ValueError, match=r"868.76 nats for 784 numbers, but LaplaceLikelihood\(scale=0.75\) reaches -317.88.* needs a scale of 0.165 or less"):
        lik.check_possible(868.76, LaplaceLikelihood(0.75), (1, 28, 28))
    lik.check_possible(868.76, LaplaceLikelihood(0.16), (1, 28, 28))
    with pytest.raises(ValueError, match="0.399"):
        lik.check_possible(1e-9, NormalLikelihood(1.0), (1,))


@pytest.mark.equation("eq-laplace-ceiling")
@pytest.mark.parametrize("likelihood", [BernoulliLikelihood(), LaplaceLikelihood(0.3), NormalLikelihood(0.2), NormalLikelihood(torch.tensor([0.1, 0.4, 2.0])), CategoricalLikelihood()])
def test_the_ceiling_is_the_best_that_any_decoder_reaches(likelihood):
    x = torch.rand(5, 3, generator=seeded(), dtype=F64)
    if isinstance(likelihood, CategoricalLikelihood):
        x = nn.functional.one_hot(torch.arange(5) % 3, 3).to(F64)
    best = {BernoulliLikelihood: torch.logit(x.clamp(1e-12, 1 - 1e-12)), CategoricalLikelihood: 80 * x}.get(type(likelihood), x)
    top = lik.ceiling(likelihood, x)
    assert torch.allclose(likelihood.log_prob(best, x), top, atol=1e-9)
    for shift in (-0.3, 0.3):
        assert (likelihood.log_prob(best + shift * torch.tensor([1.0, 0.0, 0.5]), x) < top + 1e-9).all()


def test_bad_input_is_named(as_a_reader):
    model, batch = lg_mmvae(), observation(PAIR, 2)
    with pytest.raises(ValueError, match=r"found \[1, 2\] items, wanted the same number"):
        lik.log_likelihood(model, batch, {"first": batch["first"][:1]})
    with pytest.raises(ValueError, match="wanted the same number in every modality, at least one"):
        lik.log_likelihood(model, {})
    with pytest.raises(ValueError, match="samples: found 0"):
        lik.log_likelihood(model, batch, samples=0)
    with pytest.raises(KeyError, match="unknown modality 'thrid'"):
        lik.conditional(model, batch, "thrid")
    with pytest.raises(ValueError, match="'first' alone, wanted another"):
        lik.conditional(model, {"first": batch["first"]}, "first")
    with pytest.raises(ValueError, match="'first' alone, wanted another"):
        lik.prediction(model, {"first": batch["first"]}, "first")
    with pytest.raises(KeyError, match="unknown modality 'frist'"):
        lik.log_likelihood(model, batch, weights={"frist": 2.0})
    with pytest.raises(NotImplementedError, match="no encoder"):
        lik.log_likelihood(JMVAE(LinearJoint(PAIR), **lg_parts(PAIR)), {"first": batch["first"]})
