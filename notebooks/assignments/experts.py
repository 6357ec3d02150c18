# ---
# jupyter:
#   jupytext:
#     formats: py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [raw]
# # ASSIGNMENT CONFIG
# name: experts
# init_cell: true
# check_all_cell: true
# export_cell: false
# solutions_pdf: false
# template_pdf: false
# run_tests: false
# requirements:
#   - torch
# tests:
#   ok_format: false
# show_question_points: true

# %% [markdown]
# # Assignment: experts
#
# Several experts report on one hidden quantity $z$.
# You will combine their reports in five ways, and see what each way does to an expert that is missing and to one that is wrong.
#
# Read the chapters *Gaussian product of experts* and *Discrete latents and the concrete product* first.
# You need PyTorch and nothing else; no cell takes longer than a moment.
#
# ## How it works
#
# - Replace each `...` by code, and keep the names and the arguments of the functions.
# - `grader.check("q1")` runs the tests that you can see.
#   Your grade also counts tests that you cannot see: other shapes, other numbers, and the cases that the text names.
# - Restart the kernel and run all cells before you hand the notebook in.
#   Keep its name.
#
# A Gaussian expert is written by its mean $\mu_m$ and its **precision** $T_m=1/\sigma_m^2$.
# The tensors `means` and `precisions` have shape `[experts, ...]`: the first axis counts the experts, and every other axis is a case of its own.

# %%
import math

import torch

# %% [raw]
# # BEGIN QUESTION
# name: q1
# points: 2

# %% [markdown]
# ## Question 1: the plain product
#
# Multiply the densities and normalise:
#
# $$
# q(z)\propto\prod_m\mathcal N(z;\mu_m,1/T_m).
# $$
#
# The logarithm of the product is a quadratic in $z$.
# Collect its terms, and read off the mean and the precision of $q$.
#
# Return the pair `(mean, precision)`, each of the shape of one expert.

# %% [raw]
# # BEGIN SOLUTION

# %%
def plain_product(means, precisions):
    """Mean and precision of the product of the experts; all tensors without the first axis."""
    # BEGIN SOLUTION
    total = precisions.sum(0)
    return (precisions * means).sum(0) / total, total
    # END SOLUTION

# %% [raw]
# # END SOLUTION

# %% [raw]
# # BEGIN TESTS

# %%
""" # BEGIN TEST CONFIG
points: 1
""" # END TEST CONFIG
def test_two_experts(plain_product):
    import torch
    answer = plain_product(torch.tensor([1.0, -1.0]), torch.tensor([2.0, 0.5]))
    assert isinstance(answer, tuple) and len(answer) == 2, "return the pair (mean, precision)"
    mean, precision = (torch.as_tensor(a) for a in answer)
    assert torch.allclose(precision, torch.tensor(2.5)), f"the precision is {precision}, wanted 2.5"
    assert torch.allclose(mean, torch.tensor(0.6)), f"the mean is {mean}, wanted 0.6"

# %%
""" # BEGIN TEST CONFIG
points: 1
hidden: true
""" # END TEST CONFIG
def test_against_the_densities_on_a_grid(plain_product):
    import torch
    g = torch.Generator().manual_seed(1)
    means = torch.randn(4, 5, 3, generator=g, dtype=torch.float64)
    precisions = torch.rand(4, 5, 3, generator=g, dtype=torch.float64) + 0.2
    z = torch.linspace(-12, 12, 4001, dtype=torch.float64)[:, None, None]
    weights = sum(-0.5 * t * (z - m) ** 2 for m, t in zip(means, precisions)).softmax(0)
    mean = (weights * z).sum(0)
    variance = (weights * (z - mean) ** 2).sum(0)
    found = plain_product(means, precisions)
    assert found[0].shape == found[1].shape == (5, 3)
    assert torch.allclose(found[0], mean, atol=1e-6) and torch.allclose(1 / found[1], variance, atol=1e-6)

# %% [raw]
# # END TESTS

# %% [raw]
# # END QUESTION

# %% [raw]
# # BEGIN QUESTION
# name: q2
# points: 2

# %% [markdown]
# ## Question 2: the product with a prior expert
#
# If expert $m$ reports a normalised **likelihood** of $z$, the posterior is the product of the experts and the prior $p(z)=\mathcal N(0,1)$:
#
# $$
# q(z)\propto p(z)\prod_m\mathcal N(z;\mu_m,1/T_m).
# $$

# %% [raw]
# # BEGIN SOLUTION

# %%
def product_with_prior(means, precisions):
    """Mean and precision of the product of the experts and the prior N(0, 1)."""
    # BEGIN SOLUTION
    total = 1 + precisions.sum(0)
    return (precisions * means).sum(0) / total, total
    # END SOLUTION

# %% [raw]
# # END SOLUTION

# %% [raw]
# # BEGIN TESTS

# %%
""" # BEGIN TEST CONFIG
points: 1
""" # END TEST CONFIG
def test_one_expert(product_with_prior):
    import torch
    answer = product_with_prior(torch.tensor([1.0]), torch.tensor([3.0]))
    assert isinstance(answer, tuple) and len(answer) == 2, "return the pair (mean, precision)"
    mean, precision = (torch.as_tensor(a) for a in answer)
    assert torch.allclose(precision, torch.tensor(4.0)), f"the precision is {precision}, wanted 4"
    assert torch.allclose(mean, torch.tensor(0.75)), f"the mean is {mean}, wanted 0.75"

# %%
""" # BEGIN TEST CONFIG
points: 1
hidden: true
""" # END TEST CONFIG
def test_the_prior_counts_once(product_with_prior):
    import torch
    g = torch.Generator().manual_seed(2)
    means = torch.randn(3, 7, generator=g, dtype=torch.float64)
    precisions = torch.rand(3, 7, generator=g, dtype=torch.float64) + 0.2
    z = torch.linspace(-12, 12, 4001, dtype=torch.float64)[:, None]
    weights = (sum(-0.5 * t * (z - m) ** 2 for m, t in zip(means, precisions)) - 0.5 * z**2).softmax(0)
    mean = (weights * z).sum(0)
    variance = (weights * (z - mean) ** 2).sum(0)
    found = product_with_prior(means, precisions)
    assert torch.allclose(found[0], mean, atol=1e-6) and torch.allclose(1 / found[1], variance, atol=1e-6)

# %% [raw]
# # END TESTS

# %% [raw]
# # END QUESTION

# %% [raw]
# # BEGIN QUESTION
# name: q3
# points: 3

# %% [markdown]
# ## Question 3: the quotient
#
# Now each expert reports its **posterior** $p(z\mid x_m)$.
# Every one of the $M$ reports holds the prior $\mathcal N(0,1)$ once, so the product holds it $M$ times.
# Divide the surplus out:
#
# $$
# q(z)\propto\frac{\prod_m\mathcal N(z;\mu_m,1/T_m)}{p(z)^{M-1}}.
# $$
#
# A quotient of Gaussians need not be a density.
# Raise `ValueError` when the precision of the result is not above zero in some place.

# %% [raw]
# # BEGIN SOLUTION

# %%
def quotient(means, precisions):
    """Mean and precision of the product of posteriors that holds the prior once; ValueError where there is none."""
    # BEGIN SOLUTION
    total = precisions.sum(0) - (len(precisions) - 1)
    if not bool((total > 0).all()):
        raise ValueError(f"the precision is {float(total.min()):.3g}, wanted more than 0")
    return (precisions * means).sum(0) / total, total
    # END SOLUTION

# %% [raw]
# # END SOLUTION

# %% [raw]
# # BEGIN TESTS

# %%
""" # BEGIN TEST CONFIG
points: 1
""" # END TEST CONFIG
def test_two_posteriors(quotient):
    import torch
    answer = quotient(torch.tensor([1.0, -1.0]), torch.tensor([2.0, 1.5]))
    assert isinstance(answer, tuple) and len(answer) == 2, "return the pair (mean, precision)"
    mean, precision = (torch.as_tensor(a) for a in answer)
    assert torch.allclose(precision, torch.tensor(2.5)), f"the precision is {precision}, wanted 2.5"
    assert torch.allclose(mean, torch.tensor(0.2)), f"the mean is {mean}, wanted 0.2"

# %%
""" # BEGIN TEST CONFIG
points: 1
hidden: true
""" # END TEST CONFIG
def test_is_the_posterior_of_a_linear_world(quotient):
    import torch
    # z ~ N(0, 1) and x_m = w_m z + noise of variance v_m: Bayes' rule for one reading, and for all of them
    w = torch.tensor([1.0, 2.0, -1.0, 0.3], dtype=torch.float64)
    v = torch.tensor([1.0, 1.0, 0.5, 2.0], dtype=torch.float64)
    x = torch.tensor([1.0, 1.5, -0.5, 0.8], dtype=torch.float64)
    for count in (1, 2, 3, 4):
        eta, t = (w * x / v)[:count], (w**2 / v)[:count]
        mean, precision = quotient(eta / (1 + t), 1 + t)
        assert torch.allclose(precision, 1 + t.sum()), f"{count} posteriors"
        assert torch.allclose(mean, eta.sum() / (1 + t.sum())), f"{count} posteriors"

# %%
""" # BEGIN TEST CONFIG
points: 1
hidden: true
""" # END TEST CONFIG
def test_no_density_is_an_error(quotient):
    import torch
    for precisions in ([[0.4], [0.5]], [[3.0, 0.5], [3.0, 0.5]], [[0.5], [0.5]]):
        precisions = torch.tensor(precisions)
        try:
            quotient(torch.zeros_like(precisions), precisions)
        except ValueError:
            continue
        raise AssertionError(f"no ValueError for the precisions {precisions.tolist()}")

# %% [raw]
# # END TESTS

# %% [raw]
# # END QUESTION

# %% [raw]
# # BEGIN QUESTION
# name: q4
# points: 3

# %% [markdown]
# ## Question 4: missing modalities
#
# An item may lack its sound or its label.
# The expert of a missing modality has no opinion: it leaves the product.
# If every modality is missing, the prior remains.
#
# `present` is a table of booleans `[experts, items]`, while `means` and `precisions` are `[experts, items, latent]`.
# What stands in the rows of a missing modality is whatever an encoder made of an empty input.
# **It may be NaN.**
#
# Use the product with a prior expert.

# %% [raw]
# # BEGIN SOLUTION

# %%
def posterior(means, precisions, present):
    """Mean and precision [items, latent] of the prior N(0, 1) times the experts that are present."""
    # BEGIN SOLUTION
    there = present[..., None]
    precisions = torch.where(there, precisions, 0.0)
    means = torch.where(there, means, 0.0)
    total = 1 + precisions.sum(0)
    return (precisions * means).sum(0) / total, total
    # END SOLUTION

# %% [raw]
# # END SOLUTION

# %% [raw]
# # BEGIN TESTS

# %%
""" # BEGIN TEST CONFIG
points: 1
""" # END TEST CONFIG
def test_one_of_two_is_missing(posterior):
    import torch
    means = torch.tensor([[[1.0], [1.0]], [[-1.0], [-1.0]]])
    precisions = torch.tensor([[[3.0], [3.0]], [[1.0], [1.0]]])
    answer = posterior(means, precisions, torch.tensor([[True, True], [True, False]]))
    assert isinstance(answer, tuple) and len(answer) == 2, "return the pair (mean, precision)"
    mean, precision = answer
    assert tuple(mean.shape) == tuple(precision.shape) == (2, 1), f"the shapes are {tuple(mean.shape)} and {tuple(precision.shape)}, wanted (2, 1)"
    assert torch.allclose(precision, torch.tensor([[5.0], [4.0]])), f"the precisions are {precision.flatten().tolist()}, wanted [5, 4]"
    assert torch.allclose(mean, torch.tensor([[0.4], [0.75]])), f"the means are {mean.flatten().tolist()}, wanted [0.4, 0.75]"

# %%
""" # BEGIN TEST CONFIG
points: 1
hidden: true
""" # END TEST CONFIG
def test_what_stands_in_a_missing_row_does_not_matter(posterior):
    import torch
    g = torch.Generator().manual_seed(3)
    means, precisions = torch.randn(3, 8, 2, generator=g), torch.rand(3, 8, 2, generator=g) + 0.5
    present = torch.tensor([[bool(i >> m & 1) for i in range(8)] for m in range(3)])
    wanted = []
    for i in range(1, 8):
        rows = [m for m in range(3) if present[m, i]]
        total = 1 + precisions[rows, i].sum(0)
        wanted.append(((precisions[rows, i] * means[rows, i]).sum(0) / total, total))
    for nonsense in (float("nan"), 1e30, -5.0):
        there = present[..., None]
        mean, precision = posterior(torch.where(there, means, nonsense), torch.where(there, precisions, nonsense), present)
        for i, (m, t) in enumerate(wanted, 1):
            assert torch.allclose(mean[i], m, atol=1e-5) and torch.allclose(precision[i], t, atol=1e-5), f"item {i}, {nonsense} in missing rows"

# %%
""" # BEGIN TEST CONFIG
points: 1
hidden: true
""" # END TEST CONFIG
def test_with_nothing_the_prior_remains(posterior):
    import torch
    mean, precision = posterior(torch.ones(2, 3, 4), torch.full((2, 3, 4), 2.0), torch.zeros(2, 3, dtype=torch.bool))
    assert torch.equal(mean, torch.zeros(3, 4)) and torch.equal(precision, torch.ones(3, 4))

# %% [raw]
# # END TESTS

# %% [raw]
# # END QUESTION

# %% [raw]
# # BEGIN QUESTION
# name: q5
# points: 2

# %% [markdown]
# ## Question 5: the veto
#
# In a product each expert can object, and a precise one is heard above all others.
#
# Let $n$ experts agree: each of them says $\mathcal N(0,1/t)$.
# One more expert says $\mathcal N(d,1/T)$ with $d\neq 0$, and it is wrong.
# The prior is $\mathcal N(0,1)$, and all of them are multiplied as in question 2.
#
# How precise must the wrong expert be to pull the mean of the product to $s\,d$, with a share $s$ between 0 and 1?
# Solve for $T$.

# %% [raw]
# # BEGIN SOLUTION

# %%
def veto(share, count, precision):
    """The precision T with which one expert pulls the mean by `share`, against `count` experts of `precision` and the prior."""
    return share / (1 - share) * (count * precision + 1)  # SOLUTION

# %% [raw]
# # END SOLUTION

# %% [raw]
# # BEGIN TESTS

# %%
""" # BEGIN TEST CONFIG
points: 1
""" # END TEST CONFIG
def test_half_the_way_against_two(veto):
    answer = veto(0.5, 2, 3.0)
    assert isinstance(answer, (int, float)), f"return a number, found {answer!r}"
    assert abs(answer - 7) < 1e-6, f"the precision is {answer:.4g}, wanted 7"

# %%
""" # BEGIN TEST CONFIG
points: 1
hidden: true
""" # END TEST CONFIG
def test_the_mean_lands_where_it_should(veto):
    for share, count, precision, d in ((0.9, 3, 2.0, 4.0), (0.1, 1, 0.5, -2.0), (0.75, 5, 10.0, 1.0), (0.3, 0, 1.0, 1.0)):
        T = veto(share, count, precision)
        assert abs(T * d / (1 + count * precision + T) - share * d) < 1e-6, (share, count, precision)

# %% [raw]
# # END TESTS

# %% [raw]
# # END QUESTION

# %% [raw]
# # BEGIN QUESTION
# name: q6
# points: 3

# %% [markdown]
# ## Question 6: the mixture
#
# A mixture lets every expert speak for itself:
#
# $$
# q(z)=\frac1M\sum_m\mathcal N(z;\mu_m,1/T_m).
# $$
#
# No expert has a veto: where one of them finds $z$ plausible, so does the mixture.
#
# Return $\log q(z)$.
# `z` has the shape of one expert, `[...]`, and the result has it too.
# Far from every mean the densities are too small for a float, but their logarithms are not; your result must be right there.

# %% [raw]
# # BEGIN SOLUTION

# %%
def mixture_log_density(z, means, precisions):
    """log of the mean of the experts' densities at z, of the shape of z."""
    # BEGIN SOLUTION
    logs = 0.5 * (precisions.log() - math.log(2 * math.pi)) - 0.5 * precisions * (z - means) ** 2
    return logs.logsumexp(0) - math.log(len(means))
    # END SOLUTION

# %% [raw]
# # END SOLUTION

# %% [raw]
# # BEGIN TESTS

# %%
""" # BEGIN TEST CONFIG
points: 1
""" # END TEST CONFIG
def test_equal_experts_are_one_expert(mixture_log_density):
    import math
    import torch
    answer = mixture_log_density(torch.tensor(0.0), torch.zeros(3), torch.ones(3))
    assert isinstance(answer, torch.Tensor) and answer.shape == (), f"return a tensor of the shape of z, found {answer!r}"
    wanted = -0.5 * math.log(2 * math.pi)
    assert abs(float(answer) - wanted) < 1e-5, f"log q is {float(answer):.4f}, wanted {wanted:.4f}"

# %%
""" # BEGIN TEST CONFIG
points: 1
hidden: true
""" # END TEST CONFIG
def test_against_the_densities(mixture_log_density):
    import torch
    g = torch.Generator().manual_seed(4)
    means, precisions = torch.randn(3, 6, generator=g), torch.rand(3, 6, generator=g) + 0.3
    z = torch.linspace(-3, 3, 6)
    wanted = torch.distributions.Normal(means, precisions**-0.5).log_prob(z).exp().mean(0).log()
    assert torch.allclose(mixture_log_density(z, means, precisions), wanted, atol=1e-5)

# %%
""" # BEGIN TEST CONFIG
points: 1
hidden: true
""" # END TEST CONFIG
def test_far_from_every_mean(mixture_log_density):
    import math
    import torch
    found = mixture_log_density(torch.tensor([100.0, -1000.0]), torch.tensor([[0.0, 0.0], [1.0, 1.0]]), torch.ones(2, 2))
    nearest = torch.tensor([99.0, 1000.0]) ** 2
    wanted = -0.5 * nearest - 0.5 * math.log(2 * math.pi) - math.log(2)
    assert torch.allclose(found, wanted, rtol=1e-5), found.tolist()

# %% [raw]
# # END TESTS

# %% [raw]
# # END QUESTION

# %% [raw]
# # BEGIN QUESTION
# name: q7
# points: 3

# %% [markdown]
# ## Question 7: the product of class probabilities
#
# Now $z$ is one of several classes, and expert $m$ reports `logits`: the logarithms of its class weights, up to a constant.
# The product of experts multiplies the class probabilities, class by class, and normalises.
# The prior is uniform.
#
# `logits` is `[experts, items, classes]`, and `present` is `[experts, items]` as in question 4.
# The logit $-\infty$ is a veto: this expert rules the class out.
# A missing expert rules nothing out, whatever stands in its rows.
#
# Return the log-probabilities `[items, classes]`.

# %% [raw]
# # BEGIN SOLUTION

# %%
def class_product(logits, present):
    """Log class probabilities [items, classes] of the product of the experts that are present."""
    # BEGIN SOLUTION
    return torch.where(present[..., None], logits, 0.0).sum(0).log_softmax(-1)
    # END SOLUTION

# %% [raw]
# # END SOLUTION

# %% [raw]
# # BEGIN TESTS

# %%
""" # BEGIN TEST CONFIG
points: 1
""" # END TEST CONFIG
def test_two_experts_of_two_classes(class_product):
    import torch
    logits = torch.tensor([[[4.0, 3.0]], [[2.0, 3.0]]]).log()
    answer = class_product(logits, torch.ones(2, 1, dtype=torch.bool))
    assert isinstance(answer, torch.Tensor) and answer.shape == (1, 2), "return log-probabilities of shape [items, classes]"
    found = answer.exp()[0].tolist()
    assert abs(found[0] - 8 / 17) < 1e-5 and abs(found[1] - 9 / 17) < 1e-5, f"the probabilities are {found}, wanted [8/17, 9/17]"

# %%
""" # BEGIN TEST CONFIG
points: 1
hidden: true
""" # END TEST CONFIG
def test_three_experts_with_other_constants(class_product):
    import torch
    g = torch.Generator().manual_seed(5)
    logits = torch.randn(3, 6, 5, generator=g)
    wanted = logits.softmax(-1).prod(0)
    wanted = wanted / wanted.sum(-1, keepdim=True)
    shifted = logits + 10 * torch.randn(3, 6, 1, generator=g)
    for given in (logits, shifted):
        assert torch.allclose(class_product(given, torch.ones(3, 6, dtype=torch.bool)).exp(), wanted, atol=1e-4)

# %%
""" # BEGIN TEST CONFIG
points: 1
hidden: true
""" # END TEST CONFIG
def test_a_veto_counts_and_a_missing_expert_has_none(class_product):
    import math
    import torch
    logits = torch.tensor([[[0.0, 0.0, 0.0]] * 2, [[-math.inf, 0.0, 0.0]] * 2])
    found = class_product(logits, torch.tensor([[True, True], [True, False]])).exp()
    assert torch.allclose(found, torch.tensor([[0.0, 0.5, 0.5], [1 / 3, 1 / 3, 1 / 3]]), atol=1e-6), found.tolist()
    absent = class_product(torch.full((2, 1, 4), math.nan), torch.zeros(2, 1, dtype=torch.bool)).exp()
    assert torch.allclose(absent, torch.full((1, 4), 0.25), atol=1e-6), absent.tolist()

# %% [raw]
# # END TESTS

# %% [raw]
# # END QUESTION

# %% [raw]
# # BEGIN QUESTION
# name: q8
# points: 2

# %% [markdown]
# ## Question 8: a draw of the concrete product
#
# A model needs draws through which gradients flow.
# A concrete draw at temperature $\tau$ adds Gumbel noise $g$ to the log-probabilities of question 7 and takes a softmax that is sharper or softer than usual.
# At **every** temperature the largest coordinate of the draw is the class that the same noise would have chosen, so classes come as often as the product of experts says.
#
# `gumbel` has the shape of `log_probs`.

# %% [raw]
# # BEGIN SOLUTION

# %%
def relaxed_draw(log_probs, temperature, gumbel):
    """A point of the simplex, of the shape of log_probs."""
    return ((log_probs + gumbel) / temperature).softmax(-1)  # SOLUTION

# %% [raw]
# # END SOLUTION

# %% [raw]
# # BEGIN TESTS

# %%
""" # BEGIN TEST CONFIG
points: 1
""" # END TEST CONFIG
def test_without_noise_at_temperature_one(relaxed_draw):
    import torch
    probs = torch.tensor([0.2, 0.3, 0.5])
    answer = relaxed_draw(probs.log(), 1.0, torch.zeros(3))
    assert isinstance(answer, torch.Tensor) and answer.shape == (3,), "return a tensor of the shape of log_probs"
    assert torch.allclose(answer, probs, atol=1e-6), f"without noise the draw is {answer.tolist()}, wanted the probabilities"

# %%
""" # BEGIN TEST CONFIG
points: 1
hidden: true
""" # END TEST CONFIG
def test_the_class_does_not_depend_on_the_temperature(relaxed_draw):
    import torch
    g = torch.Generator().manual_seed(6)
    probs = torch.tensor([0.1, 0.2, 0.7])
    gumbel = -torch.empty(4000, 3).exponential_(generator=g).log()
    chosen = (probs.log() + gumbel).argmax(-1)
    for temperature in (0.3, 0.66, 3.0):
        z = relaxed_draw(probs.log().expand(4000, 3), temperature, gumbel)
        assert torch.allclose(z.sum(-1), torch.ones(4000), atol=1e-5)
        assert (z.argmax(-1) == chosen).float().mean() > 0.999, f"temperature {temperature}"
    two = relaxed_draw(torch.tensor([0.5, 0.5]).log(), 0.5, torch.tensor([1.0, 0.0]))
    assert abs(float(two[0]) - 1 / (1 + 2.718281828**-2)) < 1e-5, "the noise is divided by the temperature too"

# %% [raw]
# # END TESTS

# %% [raw]
# # END QUESTION
