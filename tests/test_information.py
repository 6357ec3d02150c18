"""Information estimates against exact answers, explicit loops, and the biases that they really have."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from mmvae_lite.distributions import Concrete, Normal
from mmvae_lite.information import (
    DISCRETE_LOGPROBS,
    WEIGHTS,
    Discriminator,
    contrastive_hinge,
    density_ratio_tc,
    derangement,
    discriminator_loss,
    factor_log_prob,
    info_nce,
    info_nce_from_scores,
    log_batch_weights,
    log_q_matrix,
    mi_tc_dw,
    rbf_kernel,
)

F64 = torch.float64
D = torch.distributions
UNIT_ROW_SUMS = ("unbiased", "batch_mean", "mss")
ONE_ITEM = "needs at least 2 items, got 1"


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def randn(*shape, seed=0):
    return torch.randn(shape, dtype=F64, generator=seeded(seed))


def estimate(q, z, n_data, weights="unbiased"):
    prior = Normal.standard(*z.shape, like=z)
    return mi_tc_dw(log_q_matrix(q, z), q.log_prob(z), prior.log_prob(z), n_data, weights)


# ---- total correlation by minibatch -------------------------------------------------------------------------------


def test_matrix_of_a_normal_entry_by_entry():
    q, z = Normal(randn(4, 3), randn(4, 3, seed=1)), randn(4, 3, seed=2)
    found = log_q_matrix(q, z)
    for i, j, d in itertools.product(range(4), range(4), range(3)):
        oracle = D.Normal(q.mean[j, d], (0.5 * q.logvar[j, d]).exp()).log_prob(z[i, d])
        assert found[i, j, d].item() == pytest.approx(oracle.item(), abs=1e-12)
    assert torch.allclose(found.diagonal().T, factor_log_prob(q, z))


@pytest.mark.parametrize("shape", [(4, 5), (4, 3, 2)])
def test_matrix_of_a_concrete_entry_by_entry(shape):
    q = Concrete(randn(*shape), 0.66)
    z = q.rsample(generator=seeded())
    n, variables = shape[0], 1 if len(shape) == 2 else shape[1]
    logits, draws = q.logits.view(n, variables, -1), z.view(n, variables, -1)
    for kind in DISCRETE_LOGPROBS:
        found = log_q_matrix(q, z, kind)
        assert found.shape == (n, n, variables)
        assert torch.allclose(found.diagonal().T, factor_log_prob(q, z, kind))
        for i, j, v in itertools.product(range(n), range(n), range(variables)):
            log_pi, y = logits[j, v].log_softmax(-1), draws[i, v]
            oracle = {
                "argmax": log_pi[y.argmax()],
                "soft": (y * log_pi).sum(),
                "concrete": D.RelaxedOneHotCategorical(torch.tensor(0.66, dtype=F64), logits=log_pi).log_prob(y),
            }[kind]
            assert found[i, j, v].item() == pytest.approx(oracle.item(), abs=1e-9)


def test_argmax_gradients_reach_the_class_probabilities_only():
    logits = randn(4, 5).requires_grad_()
    z = Concrete(randn(4, 5, seed=1), 0.66).rsample(generator=seeded()).requires_grad_()

    def grads(kind):
        return torch.autograd.grad(log_q_matrix(Concrete(logits, 0.66), z, kind).sum(), (logits, z), allow_unused=True)

    to_logits, to_draw = grads("argmax")
    assert to_draw is None and to_logits.abs().min().item() > 0
    assert grads("soft")[1].abs().min().item() > 0 and grads("concrete")[1].abs().min().item() > 0


def weight(scheme, i, j, batch, n):
    """W_ij straight from the definitions."""
    others = batch - 1
    if scheme == "mws":
        return 1 / (n * batch)
    if scheme == "batch_mean":
        return 1 / batch
    if scheme == "unbiased":
        return 1 / n if i == j else (n - 1) / (n * others)
    if scheme == "probtorch":
        return (others / (n - 1) if i == j else 1) / batch
    if i == j:
        return 1 / n
    return (n - others) / (n * others) if j == (i + 1) % batch else 1 / others


@pytest.mark.parametrize("scheme", WEIGHTS)
@pytest.mark.parametrize("batch", [2, 5])
def test_estimates_equal_explicit_sums(scheme, batch):
    n, q, z = 23, Normal(randn(batch, 3), randn(batch, 3, seed=1)), randn(batch, 3, seed=2)
    experts = [D.Normal(q.mean[j], (0.5 * q.logvar[j]).exp()) for j in range(batch)]
    mi, tc, dw = 0.0, 0.0, 0.0
    for i in range(batch):
        w = [weight(scheme, i, j, batch, n) for j in range(batch)]
        marginal = [sum(w[j] * experts[j].log_prob(z[i])[d].exp() for j in range(batch)).log() for d in range(3)]
        joint = sum(w[j] * experts[j].log_prob(z[i]).sum().exp() for j in range(batch)).log()
        mi = mi + (experts[i].log_prob(z[i]).sum() - joint) / batch
        tc = tc + (joint - sum(marginal)) / batch
        dw = dw + (sum(marginal) - D.Normal(0.0, 1.0).log_prob(z[i]).sum()) / batch
    found = estimate(q, z, n, scheme)
    assert [v.item() for v in found] == pytest.approx([mi.item(), tc.item(), dw.item()], abs=1e-10)


@pytest.mark.equation("eq-kl-split")
@settings(max_examples=25, deadline=None)
@given(st.sampled_from(WEIGHTS), st.sampled_from(DISCRETE_LOGPROBS), st.integers(2, 8), st.integers(0, 10_000))
def test_the_three_terms_telescope_to_the_one_sample_kl(scheme, kind, batch, n_extra):
    style, code = Normal(randn(batch, 2), randn(batch, 2, seed=1)), Concrete(randn(batch, 3, 4, seed=2), 0.66)
    s, c = style.rsample(generator=seeded(3)), code.rsample(generator=seeded(4))
    log_q = torch.cat([log_q_matrix(style, s), log_q_matrix(code, c, kind)], -1)
    uniform = Concrete.uniform(batch, 3, 4, temperature=0.66, like=c)
    own = style.log_prob(s) + factor_log_prob(code, c, kind).sum(-1)
    prior = Normal.standard(batch, 2, like=s).log_prob(s) + factor_log_prob(uniform, c, kind).sum(-1)
    terms = mi_tc_dw(log_q, own, prior, batch + n_extra, scheme)
    assert log_q.shape == (batch, batch, 5)
    assert sum(terms).item() == pytest.approx((own - prior).mean().item(), abs=1e-10)


@settings(max_examples=25, deadline=None)
@given(st.sampled_from([w for w in WEIGHTS if w != "mss"]), st.permutations(range(6)))
def test_the_order_of_the_batch_does_not_matter(scheme, order):
    q, z = Normal(randn(6, 3), randn(6, 3, seed=1)), randn(6, 3, seed=2)
    one = estimate(q, z, 100, scheme)
    two = estimate(Normal(q.mean[order], q.logvar[order]), z[order], 100, scheme)
    assert all(a.item() == pytest.approx(b.item(), abs=1e-10) for a, b in zip(one, two))


@pytest.mark.equation("eq-batch-weights")
@pytest.mark.parametrize("scheme", ["unbiased", "mss"])
def test_weights_are_unbiased_over_all_batches(scheme):
    n, batch, own = 6, 3, 0
    values = torch.rand(n, dtype=F64, generator=seeded())
    row = log_batch_weights(batch, n, scheme, like=values).exp()[0]
    batches = itertools.permutations([i for i in range(n) if i != own], batch - 1)
    means = [(row * values[[own, *others]]).sum() for others in batches]
    assert torch.stack(means).mean().item() == pytest.approx(values.mean().item(), abs=1e-12)


def test_released_stratified_weights_miss_the_diagonal():
    """The released code fills by a stride of B instead of B + 1, hence two columns."""
    n, batch = 6, 3
    released = torch.full((batch, batch), 1 / (batch - 1), dtype=F64)
    released.view(-1)[::batch] = 1 / n
    released.view(-1)[1::batch] = (n - batch + 1) / (n * (batch - 1))
    released[-1, 0] = (n - batch + 1) / (n * (batch - 1))
    ours = log_batch_weights(batch, n, "mss", like=released).exp()
    assert ours.diagonal().tolist() == pytest.approx([1 / n] * batch)
    assert released.diagonal().tolist() != pytest.approx([1 / n] * batch)
    assert torch.allclose(ours[0], released[0])


@pytest.mark.parametrize("scheme", WEIGHTS)
def test_row_sums(scheme):
    n, batch = 1000, 10
    sums = log_batch_weights(batch, n, scheme).exp().sum(1)
    wanted = {"mws": 1 / n, "probtorch": ((batch - 1) + (batch - 1) / (n - 1)) / batch}.get(scheme, 1.0)
    assert sums.tolist() == pytest.approx([wanted] * batch, rel=1e-5)


def test_a_whole_data_set_as_batch_gives_the_exact_aggregate():
    n, q = 7, Normal(randn(7, 2), randn(7, 2, seed=1))
    z = q.rsample(generator=seeded(2))
    mixture = D.MixtureSameFamily(D.Categorical(torch.ones(n, dtype=F64)), D.Independent(D.Normal(q.mean, q.std), 1))
    mi, _, _ = estimate(q, z, n)
    assert mi.item() == pytest.approx((q.log_prob(z) - mixture.log_prob(z)).mean().item(), abs=1e-12)


@pytest.mark.parametrize("batch", [32, 100])
@pytest.mark.parametrize("scheme", WEIGHTS)
def test_a_collapsed_posterior_has_no_total_correlation_but_an_offset(scheme, batch):
    n, dims, z = 50_000, 4, randn(batch, 4)
    offset = {
        "mws": (dims - 1) * math.log(n),
        "probtorch": (dims - 1) * math.log((n - 1) * batch / (n * (batch - 1))),
    }.get(scheme, 0.0)
    mi, tc, dw = estimate(Normal.standard(batch, dims, like=z), z, n, scheme)
    assert tc.item() == pytest.approx(offset, abs=1e-9)
    assert mi.item() == pytest.approx(offset / (dims - 1), abs=1e-9)
    assert dw.item() == pytest.approx(-offset * dims / (dims - 1), abs=1e-9)
    printed = {("mws", 32): 32.459, ("mws", 100): 32.459, ("probtorch", 32): 0.095, ("probtorch", 100): 0.030}
    assert tc.item() == pytest.approx(printed.get((scheme, batch), 0.0), abs=5e-4)


def test_mws_is_the_batch_mean_with_offsets_and_the_same_gradients():
    n, batch, dims = 50_000, 8, 3
    mean, z = randn(batch, dims).requires_grad_(), randn(batch, dims, seed=1)
    found = {s: estimate(Normal(mean, torch.zeros_like(mean)), z, n, s) for s in ("mws", "batch_mean", "unbiased", "probtorch")}
    shift = [a.item() - b.item() for a, b in zip(found["mws"], found["batch_mean"])]
    assert shift == pytest.approx([math.log(n), (dims - 1) * math.log(n), -dims * math.log(n)], abs=1e-9)
    for one, two in (("mws", "batch_mean"), ("unbiased", "probtorch")):
        for a, b in zip(found[one], found[two]):
            ga, gb = (torch.autograd.grad(v, mean, retain_graph=True)[0] for v in (a, b))
            assert torch.allclose(ga, gb, atol=1e-12)


def tc_estimates(batch, scheme, repeats, correlation=0.0, seed=0):
    """TC from fresh batches of z = m + noise, m Gaussian of variance 3/4 and equal correlations, noise of variance 1/4."""
    g, dims = seeded(seed), 4
    covariance = 0.75 * ((1 - correlation) * torch.eye(dims, dtype=F64) + correlation)
    root, found = torch.linalg.cholesky(covariance), []
    for _ in range(repeats):
        mean = torch.randn(batch, dims, dtype=F64, generator=g) @ root.T
        q = Normal(mean, torch.full_like(mean, math.log(0.25)))
        found.append(estimate(q, q.rsample(generator=g), 50_000, scheme)[1])
    return torch.stack(found)


@pytest.mark.parametrize(
    ("batch", "repeats", "unbiased", "batch_mean"),
    [(32, 400, -0.450, 0.368), (100, 100, -0.195, 0.183), (256, 30, -0.094, 0.096), (1024, 4, -0.026, 0.033)],
)
def test_bias_of_tc_where_the_truth_is_zero(batch, repeats, unbiased, batch_mean):
    for scheme, printed in (("unbiased", unbiased), ("batch_mean", batch_mean)):
        values = tc_estimates(batch, scheme, repeats)
        error = 4 * values.std().item() / math.sqrt(repeats)
        assert values.mean().item() == pytest.approx(printed, abs=error + 0.01)
        assert error < 0.05


def test_an_unbiased_density_makes_total_correlation_negative():
    values = tc_estimates(100, "unbiased", 60)
    assert values.mean().item() < -20 * values.std().item() / math.sqrt(len(values))


def test_bias_of_tc_shrinks_with_the_batch():
    bias = [tc_estimates(batch, "unbiased", repeats).mean().item() for batch, repeats in ((32, 60), (128, 30), (512, 6))]
    assert bias[0] < bias[1] < bias[2] < 0


def test_tc_of_correlated_latents():
    r = 0.8 * 0.75  # the correlation of z; the determinant of equal correlations in closed form
    truth = -0.5 * math.log((1 - r) ** 3 * (1 + 3 * r))
    assert truth == pytest.approx(0.8596, abs=5e-5)
    found = [tc_estimates(b, "unbiased", n, 0.8).mean().item() for b, n in ((32, 200), (100, 60), (256, 30), (1024, 6))]
    assert found == pytest.approx([0.758, 0.820, 0.837, 0.848], abs=0.05)
    assert found[-1] == pytest.approx(truth, abs=0.05)


def test_batch_estimates_refuse_what_they_cannot_do():
    q, z = Normal(randn(4, 2), randn(4, 2, seed=1)), randn(4, 2, seed=2)
    with pytest.raises(ValueError, match=f"mi_tc_dw {ONE_ITEM}"):
        estimate(Normal(q.mean[:1], q.logvar[:1]), z[:1], 10)
    with pytest.raises(ValueError, match="n_data: found 3 for a batch of 4, wanted the number of training items"):
        estimate(q, z, 3)
    with pytest.raises(KeyError, match="unknown weights 'unbaised'.* did you mean 'unbiased'"):
        estimate(q, z, 10, "unbaised")
    with pytest.raises(KeyError, match="unknown discrete_logprob 'hard'"):
        log_q_matrix(Concrete(z, 0.66), z.softmax(-1), "hard")


# ---- total correlation by density ratio ---------------------------------------------------------------------------


def pairs(n, rho, g):
    s = torch.randn(n, 1, dtype=F64, generator=g)
    return s, rho * s + math.sqrt(1 - rho**2) * torch.randn(n, 1, dtype=F64, generator=g)


def log_ratio(s, c, rho):
    """log p(s, c) / p(s) p(c) of a bivariate Gaussian."""
    quadratic = (rho**2 * (s**2 + c**2) - 2 * rho * s * c) / (1 - rho**2)
    return -0.5 * math.log(1 - rho**2) - 0.5 * quadratic


@pytest.mark.equation("eq-density-ratio")
@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9])
def test_the_optimal_discriminator_gives_the_mutual_information(rho):
    s, c = pairs(200_000, rho, seeded())
    odds = log_ratio(s, c, rho)[:, 0]
    found = density_ratio_tc(torch.stack([odds, torch.zeros_like(odds)], 1)).item()
    assert found == pytest.approx(-0.5 * math.log(1 - rho**2), abs=4 * odds.std().item() / math.sqrt(len(odds)) + 1e-12)


@pytest.mark.parametrize(("rho", "truth", "tolerance"), [(0.0, 0.0, 0.02), (0.9, 0.8304, 0.05)])
def test_a_trained_discriminator_comes_close(rho, truth, tolerance):
    g = seeded(1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = Discriminator(1, 1, hidden=(32,), joint=(32,)).double()
    steps = 700
    optimiser = torch.optim.Adam(net.parameters(), lr=5e-3)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        s, c = pairs(512, rho, g)
        loss = discriminator_loss(net(s, c), net(s[derangement(512, g)], c))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        decay.step()
    with torch.no_grad():
        assert density_ratio_tc(net(*pairs(50_000, rho, g))).item() == pytest.approx(truth, abs=tolerance)


@pytest.mark.equation("eq-discriminator")
def test_discriminator_loss_against_cross_entropy_and_at_chance():
    joint, product = randn(5, 2), randn(5, 2, seed=1)
    oracle = F.cross_entropy(joint, torch.zeros(5, dtype=torch.long)) + F.cross_entropy(product, torch.ones(5, dtype=torch.long))
    assert discriminator_loss(joint, product).item() == pytest.approx(0.5 * oracle.item(), abs=1e-12)
    even = torch.zeros(5, 2, dtype=F64)
    assert discriminator_loss(even, even).item() == pytest.approx(math.log(2))
    assert density_ratio_tc(even).item() == 0


def test_a_poor_discriminator_gives_a_negative_total_correlation():
    assert density_ratio_tc(torch.tensor([[0.0, 1.0]] * 3)).item() == -1


def test_discriminator_has_the_sizes_of_the_paper():
    branch = (10 * 500 + 500) + 2 * (500 * 500 + 500)
    joint = 2 * (1000 * 1000 + 1000) + (1000 * 2 + 2)
    net = Discriminator(10, 10)
    assert {m.negative_slope for m in net.modules() if isinstance(m, torch.nn.LeakyReLU)} == {0.2}
    assert sum(p.numel() for p in net.parameters()) == 2 * branch + joint
    assert net(torch.zeros(3, 10), torch.zeros(3, 10)).shape == (3, 2)


def test_density_ratio_needs_two_items():
    with pytest.raises(ValueError, match=f"density_ratio_tc {ONE_ITEM}"):
        density_ratio_tc(torch.zeros(1, 2))
    with pytest.raises(ValueError, match=f"discriminator_loss {ONE_ITEM}"):
        discriminator_loss(torch.zeros(1, 2), torch.zeros(1, 2))


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 40), st.integers(0, 1000))
def test_a_derangement_moves_every_item(n, seed):
    order = derangement(n, seeded(seed))
    assert sorted(order.tolist()) == list(range(n))
    assert not bool((order == torch.arange(n)).any())
    assert torch.equal(order, derangement(n, seeded(seed)))


def test_a_derangement_is_uniform_over_the_other_items():
    found = torch.stack([derangement(4, g) for g in [seeded()] for _ in range(3000)])
    shares = F.one_hot(found, 4).double().mean(0)
    assert torch.allclose(shares, (1 - torch.eye(4).double()) / 3, atol=0.04)
    with pytest.raises(ValueError, match=ONE_ITEM):
        derangement(1)


# ---- InfoNCE ------------------------------------------------------------------------------------------------------

FORMS = [dict(symmetric=s, same_view=v) for s in (False, True) for v in (False, True)]


def loop_info_nce(a, b, critic, temperature, symmetric, same_view):
    """The bound by explicit sums over anchors and contrasts."""
    if critic == "cosine":
        a, b = a / a.square().sum(1, keepdim=True).sqrt(), b / b.square().sum(1, keepdim=True).sqrt()
    total, anchors = 0.0, [(a, b), (b, a)] if symmetric else [(a, b)]
    for one, other in anchors:
        for i in range(len(one)):
            contrasts = [one[i] @ y for y in other]
            if same_view:
                contrasts += [one[i] @ one[j] for j in range(len(one)) if j != i]
            mean = sum((f / temperature).exp() for f in contrasts) / len(contrasts)
            total = total + ((one[i] @ other[i] / temperature).exp() / mean).log() / len(one)
    return (total / len(anchors)).item()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("critic", ["inner", "cosine"])
@pytest.mark.parametrize("temperature", [0.5, 1.0])
def test_info_nce_equals_explicit_sums(form, critic, temperature):
    a, b = randn(5, 3), randn(5, 3, seed=1)
    found = info_nce(a, b, critic, temperature, **form).item()
    assert found == pytest.approx(loop_info_nce(a, b, critic, temperature, **form), abs=1e-10)


@pytest.mark.equation("eq-nt-xent")
def test_code_form_is_nt_xent():
    n, a, b = 6, randn(6, 3), randn(6, 3, seed=1)
    views = F.normalize(torch.cat([a, b]), dim=1)
    scores = (views @ views.T).fill_diagonal_(-math.inf)
    positives = torch.arange(2 * n).roll(n)
    nt_xent = F.cross_entropy(scores, positives)
    found = info_nce(a, b, "cosine", 1.0, symmetric=True, same_view=True)
    assert found.item() == pytest.approx(math.log(2 * n - 1) - nt_xent.item(), abs=1e-12)


@pytest.mark.equation("eq-info-nce")
@pytest.mark.parametrize(
    ("rho", "information", "found"),
    [(0.9, 0.8304, (0.3370, 0.679, 0.808, 0.8245)), (0.999, 3.1076, (0.6542, 1.832, 2.839, 3.029))],
)
def test_known_answers_with_the_true_log_ratio_as_critic(rho, information, found):
    assert -0.5 * math.log(1 - rho**2) == pytest.approx(information, abs=5e-5)
    g = seeded()
    for k, answer in zip((2, 8, 64, 256), found):
        repeats = max(60, min(2000, 24_000 // k))
        s, c = (x.view(repeats, k, 1) for x in pairs(repeats * k, rho, g))
        values = torch.stack([info_nce_from_scores(log_ratio(x, y.T, rho)) for x, y in zip(s, c)])
        error = 4 * values.std().item() / math.sqrt(repeats)
        assert values.mean().item() == pytest.approx(answer, abs=error + 1e-3)
        assert values.mean().item() < min(information, math.log(k)) + error


def test_two_items_against_quadrature():
    """E[log 2 - log(1 + e^(f(x, y') - f(x, y)))] with (x, y) a pair and y' independent, by Gauss-Hermite."""
    rho, (nodes, mass) = 0.9, np.polynomial.hermite_e.hermegauss(60)
    x, w = torch.tensor(nodes), torch.tensor(mass / math.sqrt(2 * math.pi))
    first, free = x[:, None, None], x[None, None, :]
    partner = rho * first + math.sqrt(1 - rho**2) * x[None, :, None]
    gain = math.log(2) - F.softplus(log_ratio(first, free, rho) - log_ratio(first, partner, rho))
    exact = torch.einsum("abc,a,b,c->", gain, w, w, w).item()
    assert exact == pytest.approx(0.3370, abs=5e-5)
    s, c = (v.view(20_000, 2, 1) for v in pairs(40_000, rho, seeded()))
    values = torch.stack([info_nce_from_scores(log_ratio(a, b.T, rho)) for a, b in zip(s[:4000], c)])
    assert values.mean().item() == pytest.approx(exact, abs=4 * values.std().item() / math.sqrt(len(values)))


@pytest.mark.equation("eq-info-nce-ceiling")
@settings(max_examples=40, deadline=None)
@given(st.integers(2, 12), st.floats(0.1, 50), st.sampled_from(["inner", "cosine"]), st.sampled_from(FORMS), st.integers(0, 99))
def test_never_above_the_log_of_the_contrasts(n, scale, critic, form, seed):
    a = scale * randn(n, 3, seed=seed)
    b = a + 0.1 * randn(n, 3, seed=seed + 1)
    ceiling = math.log(2 * n - 1 if form["same_view"] else n)
    assert info_nce(a, b, critic, 0.05, **form).item() <= ceiling + 1e-9


@pytest.mark.equation("eq-cosine-ceiling")
@settings(max_examples=40, deadline=None)
@given(st.integers(2, 12), st.integers(1, 6), st.integers(0, 99), st.booleans())
def test_a_cosine_at_temperature_one_saturates(n, dims, seed, aligned):
    a = randn(n, dims, seed=seed)
    b = a if aligned else randn(n, dims, seed=seed + 1)
    found = info_nce(a, b, "cosine").item()
    assert found <= math.log(n * math.e**2 / (math.e**2 + n - 1)) + 1e-9
    assert found <= 1 + 1e-9  # what unit vectors can reach: half the sum of the variances of the two views
    assert info_nce(a, b, "cosine", symmetric=True, same_view=True).item() <= 1 + 1 / (2 * n - 1) + 1e-9


@pytest.mark.parametrize(("n", "ceiling"), [(10, 1.506), (100, 1.938), (1024, 1.994)])
def test_ceiling_of_scores_between_minus_one_and_one(n, ceiling):
    scores = torch.full((n, n), -1.0, dtype=F64).fill_diagonal_(1.0)
    assert info_nce_from_scores(scores).item() == pytest.approx(ceiling, abs=1e-3)
    assert info_nce_from_scores(scores).item() < min(2, math.log(n))


@pytest.mark.parametrize("n", [10, 100, 1024])
def test_no_unit_vectors_attain_that_ceiling(n):
    """The best codes of n items are the corners of a regular simplex, with cosines -1 / (n - 1)."""
    corners = torch.eye(n, dtype=F64) - 1 / n
    best = math.log(n) + 1 - math.log(math.e + (n - 1) * math.exp(-1 / (n - 1)))
    assert info_nce(corners, corners, "cosine").item() == pytest.approx(best, abs=1e-9)
    assert 0.8 < best < 1
    assert info_nce(10 * corners, 10 * corners, "inner").item() == pytest.approx(math.log(n), abs=1e-9)
    assert info_nce(corners, corners, "cosine", temperature=0.05).item() == pytest.approx(math.log(n), abs=1e-4)


@pytest.mark.parametrize("form", FORMS)
def test_constant_codes_carry_nothing(form):
    a = torch.ones(5, 3, dtype=F64)
    assert info_nce(a, a, **form).item() == pytest.approx(0, abs=1e-12)
    assert info_nce(a, a, "cosine", **form).item() == pytest.approx(0, abs=1e-12)


def test_with_the_printed_sign_constant_codes_would_be_the_optimum():
    constant = torch.ones(6, 3, dtype=F64)
    for seed in range(20):
        a = randn(6, 3, seed=seed)
        assert info_nce(a, a, "cosine").item() > info_nce(constant, constant, "cosine").item()


def test_invariances_of_info_nce():
    a, b, order = randn(6, 3), randn(6, 3, seed=1), [3, 1, 5, 0, 2, 4]
    for form in FORMS:
        found = info_nce(a, b, **form).item()
        assert info_nce(a[order], b[order], **form).item() == pytest.approx(found, abs=1e-12)
        assert info_nce(3 * a, 0.1 * b, "cosine", **form).item() == pytest.approx(info_nce(a, b, "cosine", **form).item(), abs=1e-12)
        if form["symmetric"]:
            assert info_nce(b, a, **form).item() == pytest.approx(found, abs=1e-12)
    assert info_nce(3 * a, b).item() != pytest.approx(info_nce(a, b).item(), abs=1e-3)


def test_bad_info_nce_input_is_named():
    a = randn(4, 3)
    with pytest.raises(ValueError, match=f"info_nce {ONE_ITEM}"):
        info_nce(a[:1], a[:1])
    with pytest.raises(KeyError, match="unknown critic 'cosin'.* did you mean 'cosine'"):
        info_nce(a, a, "cosin")
    with pytest.raises(ValueError, match="temperature: found 0.0, wanted more than 0"):
        info_nce(a, a, temperature=0.0)


# ---- kernel hinge -------------------------------------------------------------------------------------------------


@pytest.mark.equation("eq-pvae-kernel")
def test_kernel_values():
    origin, g = torch.zeros(3, 4, dtype=F64), seeded()
    assert rbf_kernel(origin, origin).tolist() == [1, 1, 1]
    direction = F.normalize(torch.randn(3, 4, dtype=F64, generator=g), dim=1)
    half = math.sqrt(2 * math.log(2))
    assert half == pytest.approx(1.1774, abs=5e-5)
    assert rbf_kernel(origin, half * direction).tolist() == pytest.approx([0.5] * 3)


def at(*values):
    return torch.tensor(values, dtype=F64)[:, None]


@pytest.mark.equation("eq-pvae-hinge")
@pytest.mark.parametrize(
    ("positive", "negative", "wanted"),
    [(0.0, 0.0, -0.5), (0.0, 1.1775, 0.0), (0.0, 100.0, 0.0), (100.0, None, -1.5)],
    ids=["all equal", "just satisfied", "satisfied", "worst"],
)
def test_extremes_of_the_hinge_for_two_modalities(positive, negative, wanted):
    anchors = {"image": at(0.0), "sound": at(positive)}
    # the worst case swaps: every negative of one modality lies on the anchor of the other
    negatives = {"image": at(positive), "sound": at(0.0)} if negative is None else {k: at(negative) for k in anchors}
    assert contrastive_hinge(anchors, negatives).item() == pytest.approx(wanted, abs=1e-4)


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 5), st.floats(0.1, 1.0), st.floats(0.01, 4), st.integers(0, 99), st.floats(-5, 5))
def test_hinge_against_loops_range_and_invariances(modalities, margin, spread, seed, shift):
    names = [f"m{i}" for i in range(modalities)]
    anchors = {m: spread * randn(3, 2, seed=seed + i) for i, m in enumerate(names)}
    negatives = {m: spread * randn(3, 2, seed=seed + i + 50) for i, m in enumerate(names)}
    found = contrastive_hinge(anchors, negatives, margin)
    for b in range(3):
        total = 0.0
        for other, m in itertools.permutations(names, 2):
            positive = math.exp(-0.5 * ((anchors[other][b] - anchors[m][b]) ** 2).sum().item())
            negative = math.exp(-0.5 * ((anchors[other][b] - negatives[m][b]) ** 2).sum().item())
            total += max(0.0, margin - positive + negative)
        assert found[b].item() == pytest.approx(-total / modalities, abs=1e-10)
    assert bool((found <= 0).all()) and bool((found >= -(modalities - 1) * (1 + margin)).all())
    reordered = contrastive_hinge(dict(reversed(anchors.items())), negatives, margin)
    moved = contrastive_hinge({m: v + shift for m, v in anchors.items()}, {m: v + shift for m, v in negatives.items()}, margin)
    assert torch.allclose(found, reordered) and torch.allclose(found, moved)


def test_all_means_equal_cost_the_margin_for_every_modality_but_one():
    for modalities in (2, 3, 5):
        means = {str(m): at(0.0, 1.0) for m in range(modalities)}
        assert contrastive_hinge(means, means).tolist() == pytest.approx([-(modalities - 1) * 0.5] * 2)


def test_gradients_of_the_hinge_die_out_with_distance():
    def gradient(distance):
        x = at(distance).requires_grad_()
        far = {"image": at(0.0), "sound": x}
        return torch.autograd.grad(contrastive_hinge(far, {k: at(-distance) for k in far}).sum(), x)[0].abs().item()

    assert gradient(1.0) > 0.1 > 0.05 > gradient(3.0) > gradient(6.0)
    assert gradient(9.0) < 1e-12


def test_bad_hinge_input_is_named():
    with pytest.raises(ValueError, match="at least 2 modalities, got 1"):
        contrastive_hinge({"image": at(0.0)}, {"image": at(0.0)})
    with pytest.raises(ValueError, match=r"negatives are given for \['image'\], anchors for \['image', 'sound'\]"):
        contrastive_hinge({"image": at(0.0), "sound": at(0.0)}, {"image": at(0.0)})
