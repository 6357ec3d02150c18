# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     notebook_metadata_filter: kernelspec,jupytext,-jupytext.text_representation.jupytext_version
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Gaussian product of experts
#
# ```{admonition} Before you start
# :class: note
# You need Bayes' rule, the density of a Gaussian, and a little PyTorch.
# Nothing is trained here, and one CPU core is enough.
# The expert playground on this page needs no Python at all.
# ```

# %% tags=["parameters", "hide-input"] mystnb={"code_prompt_show": "Show the settings", "code_prompt_hide": "Hide the settings"}
profile = "lite"
seed = 0
device = "cpu"

# %% tags=["setup", "hide-input"] mystnb={"code_prompt_show": "Show the imports", "code_prompt_hide": "Hide the imports"}
import math
from statistics import NormalDist

import torch

from mmvae_lite.data.linear_gaussian import (
    LG3,
    LG3_OBSERVATION,
    LinearGaussian,
)
from mmvae_lite.distributions import Normal, kl
from mmvae_lite.exercises import check
from mmvae_lite.experts import (
    ImproperProduct,
    Mixture,
    log_normaliser,
    product,
    product_with_prior,
    quotient,
)

# %% [markdown]
# ## The question
#
# Several instruments look at one hidden quantity $z$.
# Each of them reports what it believes about $z$ after its own reading: a Gaussian.
# How do we turn the reports into one belief?
#
# A multimodal VAE asks this question for every item.
# There $z$ is the latent code, and the instruments are encoders: one for the image, one for the label, one for the sound.
#
# The obvious answer is to multiply the reports.
# Where all experts find $z$ plausible, the product is large; where one of them objects, it is small.
# This is a **product of experts** {cite:p}`hinton2002`.
# The models MVAE {cite:p}`wu2018` and DMVAE {cite:p}`daunhawer2021,lee2020` are built on it.
#
# We try it in a world where the truth is known.
# It is LG3, the world of the melon in the [first chapter](solvable_world.ipynb): linear and Gaussian, with three modalities.
#
# $$
# \begin{gathered}
# z\sim\mathcal N(0,1),\\
# x_m\mid z\sim\mathcal N(w_m z,\,s_m^2),\\
# w=(1,2,-1),\quad s^2=(1,1,\tfrac12).
# \end{gathered}
# $$ (eq-linear-gaussian)
#
# In this world Bayes' rule has a closed form, for one reading and for several.
# Our readings are again $x=(1,\tfrac32,-\tfrac12)$.
# We let two instruments, the first and the third, report their exact posteriors.
# Then we multiply, in three ways that the literature uses, and compare with the exact posterior given both readings.

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the plotting helpers", "code_prompt_hide": "Hide the plotting helpers"}
from functools import partial

from mmvae_lite.plotting import PALETTE, figure, legend, show, table

table = partial(table, digits=4, one_line=True)

EXACT = {
    "color": "#808080",
    "linewidth": 8,
    "alpha": 0.45,
    "linestyle": "-",
    "solid_capstyle": "round",
}
STYLES = {
    "plain product": {"color": PALETTE[1], "linestyle": "--"},
    "product with prior": {"color": PALETTE[3], "linestyle": "-."},
    "quotient": {"color": PALETTE[2], "linestyle": "-"},
}
REPORT = {"color": PALETTE[0], "linewidth": 1.4, "linestyle": ":"}


def density(q, grid):
    """The density of the first item and dimension of q on a grid of z."""
    return q.log_prob(grid[:, None, None]).exp()[:, 0]


def draw(ax, q, grid, label, **style):
    ax.plot(grid, density(q, grid), label=label, **style)


# %%
x = {m: LG3_OBSERVATION[m] for m in (0, 2)}  # two readings, each [batch]
reports = [LG3.posterior({m: x[m]}) for m in x]  # p(z | x_1), p(z | x_3)
exact = LG3.posterior(x)  # p(z | x_1, x_3)
answers = {
    "plain product": product(reports),
    "product with prior": product_with_prior(reports),
    "quotient": quotient(reports),
}

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the code of this figure", "code_prompt_hide": "Hide the code of this figure"}
grid = torch.linspace(-1.6, 2.4, 400, dtype=torch.float64)
fig, ax = figure(5, 3.8)
draw(ax, exact, grid, "exact posterior", **EXACT)
for q, label in zip(reports, ("the two reports", None)):
    draw(ax, q, grid, label, **REPORT)
for name, q in answers.items():
    draw(ax, q, grid, name, **STYLES[name])
ax.set(xlabel="z", ylabel="density")
legend(fig, ax)
show(
    fig,
    alt=(
        "Densities over z. Two wide curves are the reports of two instruments. The"
        " plain product and the product with prior are too narrow and stand too far"
        " left, towards zero. The quotient lies exactly on the exact posterior."
    ),
)

# %% [markdown]
# Two of the three answers miss.
# The reports were exact, and multiplying looked harmless.
# Yet the plain product is too sure and too close to zero.
# One more factor, the prior, makes it worse.
# The third form divides by the prior; this *quotient* lands on the truth.
#
# **After this chapter you can**
#
# - multiply Gaussians in your head, by adding precisions;
# - say which of the three forms belongs to which kind of expert, and prove it;
# - read the normaliser of a product as a score of agreement;
# - predict when a quotient is no density, and when one expert silences the others;
# - measure whether a combined posterior is as sure as it should be.

# %% [markdown]
# ## Multiplying is adding
#
# Let expert $m$ be $q_m(z)=\mathcal N(z;\mu_m,v_m)$ with **precision** $T_m=1/v_m$.
# Its logarithm is a parabola, with a constant $c_m$ that does not depend on $z$:
#
# $$
# \begin{gathered}
# \log q_m(z)=-\tfrac12 T_m z^2+\eta_m z+c_m,\\
# \eta_m=T_m\mu_m .
# \end{gathered}
# $$ (eq-natural)
#
# The pair $(T_m,\eta_m)$ holds the **natural parameters**.
# Multiplying densities adds their logarithms, and the sum of parabolas is a parabola.
# So natural parameters simply add:
#
# $$
# \begin{gathered}
# q(z)\propto\prod_{m=1}^M q_m(z),\\
# T=\sum_m T_m,\qquad \eta=\sum_m\eta_m,\\
# \mu=\frac{\eta}{T}=\frac{\sum_m T_m\mu_m}{\sum_m T_m},\quad v=\frac1T .
# \end{gathered}
# $$ (eq-product)
#
# The mean is a vote in which expert $m$ holds $T_m$ votes.
# The variance is smaller than every expert's own.
# Notice what the precision does *not* depend on: the means.
# Experts who contradict each other give a product as sharp as experts who agree.

# %% [markdown]
# ### The constant is a score of agreement
#
# The product of densities does not integrate to one.
# We lose its integral $Z$ when we normalise, and $Z$ is worth a look first.
# Give every expert a power $a_i$, write $T=\sum_i a_iT_i>0$ and $\eta=\sum_i a_i\eta_i$, and complete the square:
#
# $$
# \begin{aligned}
# \log Z&=\log\int\prod_i\mathcal N\big(z;\mu_i,\tfrac1{T_i}\big)^{a_i}dz\\
# &=\tfrac12\log\frac{2\pi}{T}+\frac{\eta^2}{2T}\\
# &+\sum_i\frac{a_i}2\Big(\log\frac{T_i}{2\pi}-T_i\mu_i^2\Big).
# \end{aligned}
# $$ (eq-log-normaliser)
#
# The powers will let us divide by a density: its power is negative.
# For two experts with power one there is a shorter form.
# Draw $z$ from the first expert and add independent noise of variance $v_2$.
# The density of the sum at $\mu_2$ is the integral that we want, and a sum of Gaussians is Gaussian:
#
# $$
# \begin{aligned}
# Z&=\int\mathcal N(z;\mu_1,v_1)\,\mathcal N(z;\mu_2,v_2)\,dz\\
# &=\mathcal N(\mu_1;\,\mu_2,\,v_1+v_2).
# \end{aligned}
# $$ (eq-agreement)
#
# For given variances, $Z$ is largest when the means agree.
# It falls as they move apart, measured in units of the experts' joint spread $\sqrt{v_1+v_2}$.
# So the disagreement is not in the product; it is in the number that we threw away.

# %% [markdown]
# ### The prior must be counted once
#
# Now let the experts be what they are in a multimodal model: beliefs after one modality each.
# Assume that the modalities are **conditionally independent** given $z$, as they are in LG3.
# Write $S$ for the set of observed modalities, and $|S|$ for their number.
# Bayes' rule, for all of them and for a single one, says
#
# $$
# \begin{gathered}
# p(z\mid x_S)\;\propto\;p(z)\prod_{m\in S}p(x_m\mid z),\\
# p(x_m\mid z)\;\propto\;\frac{p(z\mid x_m)}{p(z)} .
# \end{gathered}
# $$ (eq-bayes)
#
# Put the second line into the first.
# The prior $p(z)=\mathcal N(\mu_0,1/T_0)$ then stands once in front and $|S|$ times below the line.
# One of them cancels:
#
# $$
# \begin{gathered}
# p(z\mid x_S)\;\propto\;\frac{\prod_{m\in S}p(z\mid x_m)}{p(z)^{|S|-1}}\,,\\
# \begin{aligned}
# T&=\sum_{m\in S}T_m-(|S|-1)\,T_0,\\
# \eta&=\sum_{m\in S}\eta_m-(|S|-1)\,T_0\mu_0 .
# \end{aligned}
# \end{gathered}
# $$ (eq-quotient)
#
# This is the **quotient form**; {cite:t}`daunhawer2021` state it as their equation 2.
#
# Now the picture is clear.
# Each report already contains the prior.
# So the plain product contains it $|S|$ times, and the product with one more prior $|S|+1$ times.
# Every extra prior adds precision that no reading has earned, and pulls the mean towards the prior's.

# %% [markdown]
# ### MVAE's way: let the network report the likelihood
#
# {cite:t}`wu2018` avoid the division.
# They let the network put out only what its own modality adds: a Gaussian $\tilde q_m(z)\propto p(z\mid x_m)/p(z)$, with precision $\tilde T_m$.
# By {eq}`eq-bayes` that is the likelihood $p(x_m\mid z)$, scaled so that it is a density of $z$.
# With $q_m\propto\tilde q_m\,p$ the quotient cancels, and the prior joins as one more expert:
#
# $$
# \begin{gathered}
# q(z\mid x_S)\;\propto\;p(z)\prod_{m\in S}\tilde q_m(z)\,,\\
# \begin{aligned}
# T&=T_0+\sum_{m\in S}\tilde T_m,\\
# \eta&=T_0\mu_0+\sum_{m\in S}\tilde\eta_m .
# \end{aligned}
# \end{gathered}
# $$ (eq-product-prior)
#
# This is the **product with a prior expert**.
# A missing modality has nothing to add: its precision is zero and it drops out.
# With no modality at all the result is the prior, as it should be.
#
# So two forms are exact, each for its own kind of expert.
#
# | form | on posteriors $p(z\mid x_m)$, the prior counts | on likelihoods $\tilde q_m$, the prior counts |
# |---|---|---|
# | plain product {eq}`eq-product` | $\lvert S\rvert$ times | never |
# | product with prior {eq}`eq-product-prior` | $\lvert S\rvert+1$ times | **once** |
# | quotient {eq}`eq-quotient` | **once** | $1-\lvert S\rvert$ times |

# %% [markdown]
# ### A quotient can fail
#
# A sum of positive precisions is positive.
# A difference need not be: the quotient is a density only if
#
# $$
# \sum_{m\in S}T_m\;>\;(|S|-1)\,T_0 .
# $$ (eq-proper)
#
# It suffices that no expert is vaguer than the prior.
# Exact posteriors of LG3 always satisfy this, because each is sharper than the prior.
# A network's output may not.
# MVAE's form gives that for free: $\tilde T_m>0$ means $T_m=T_0+\tilde T_m>T_0$.
#
# The library refuses an improper quotient with an error instead of clamping its precision, because a clamped one is nobody's posterior.
#
# ### More than one dimension
#
# A latent code is a vector, and expert $m$ has a mean vector $\mu_m$ and a covariance matrix $C_m$.
# Its parabola reads $-\tfrac12 z^\top\Lambda_m z+z^\top\Lambda_m\mu_m$, with the precision matrix $\Lambda_m=C_m^{-1}$.
# Again the parameters add:
#
# $$
# \Lambda=\sum_m\Lambda_m,\qquad \Lambda\mu=\sum_m\Lambda_m\mu_m .
# $$ (eq-full-product)
#
# If every $C_m$ is diagonal the dimensions separate, and each follows {eq}`eq-product` alone.
# That is what encoders do in practice, and what the library computes.
# It has a price.
# Two long thin experts, both slanted to the axes and crossing at a right angle, make a small round product.
# Keep only their diagonals and the slant is lost: two wide round experts remain, and their product is far too wide.
# The last exercise measures it.

# %% [markdown]
# ## Ten lines of code
#
# The three forms differ in one number: how many extra priors are multiplied in.
# The plain product takes none, the product with prior takes one, the quotient takes one minus the number of experts.

# %%
def combine(experts, extra_priors):
    """The product of all experts and of N(0, 1) ** extra_priors."""
    # all of shape [experts, batch, latent] until they are summed
    T = torch.stack([q.precision for q in experts])
    eta = T * torch.stack([q.mean for q in experts])
    precision = T.sum(0) + extra_priors  # T_0 = 1
    mean = eta.sum(0) / precision  # mu_0 = 0 adds nothing to eta
    if not (precision > 0).all():
        raise ImproperProduct("the precision is not positive")
    return Normal(mean, -precision.log())

# %% [markdown]
# The library's functions must agree, on random experts with many dimensions.

# %%
g = torch.Generator().manual_seed(seed)
noise = torch.randn(2, 3, 5, 16, generator=g, dtype=torch.float64)
experts = [Normal(mean, -0.5 * a.abs()) for mean, a in zip(*noise)]

forms = {product: 0, product_with_prior: 1, quotient: 1 - len(experts)}
for library, extra_priors in forms.items():
    theirs, ours = library(experts), combine(experts, extra_priors)
    torch.testing.assert_close(theirs.mean, ours.mean)
    torch.testing.assert_close(theirs.var, ours.var)
print("The ten lines and the library agree on all three forms.")

# %% [markdown]
# A second opinion comes from brute force.
# We multiply the two reports on a fine grid, divide by the prior, and integrate.
# Equation {eq}`eq-log-normaliser` must give the same constant.

# %%
fine = torch.linspace(-12, 12, 20_001, dtype=torch.float64)
prior = Normal.standard(1, 1, like=exact.mean)
trio, powers = [*reports, prior], [1.0, 1.0, -1.0]

log_values = sum(
    a * q.log_prob(fine[:, None, None])[:, 0] for a, q in zip(powers, trio)
)
by_grid = torch.trapezoid(log_values.exp(), fine).log()
by_formula = log_normaliser(trio, powers).squeeze()
torch.testing.assert_close(by_grid, by_formula)
print(f"log Z by quadrature {by_grid:.6f}, by the formula {by_formula:.6f}")

# %% [markdown]
# ## All of LG3, in numbers
#
# To compare two Gaussians we use the Kullback-Leibler divergence $\mathrm{KL}(q\,\|\,p)=\mathbb E_q\log\frac qp$, here from an answer $q$ to the exact posterior $p$:
#
# $$
# \begin{aligned}
# 2\,\mathrm{KL}(q\,\|\,p)&=\log\frac{v_p}{v_q}-1\\
# &+\frac{v_q+(\mu_q-\mu_p)^2}{v_p}\,.
# \end{aligned}
# $$ (eq-kl-normal)
#
# It is zero exactly when the two are equal.
# Here it is for every set of readings.
# The columns "plain", "with prior" and "quotient" combine unimodal *posteriors*.
# The last column combines *likelihood* experts, as MVAE does.

# %%
subsets = [(0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2)]
rows = []
for subset in subsets:
    x = {m: LG3_OBSERVATION[m] for m in subset}
    truth = LG3.posterior(x)
    posteriors = [LG3.posterior({m: x[m]}) for m in subset]
    tried = [form(posteriors) for form in forms]
    tried.append(product_with_prior(LG3.experts(x)))
    name = " ".join(f"x{m + 1}" for m in subset)
    # abs, since rounding can leave a zero just below zero
    divergences = [kl(q, truth).abs() for q in tried]
    rows.append([name, truth.mean, truth.var, *divergences])

columns = ["observed", "exact mean", "exact variance"]
columns += ["plain", "with prior", "quotient", "likelihoods with prior"]
table("LG3: the exact posterior, and KL to it in nats", columns, rows)
assert max(float(v) for row in rows for v in row[-2:]) < 1e-12

# %% [markdown]
# The last two columns are zero up to rounding: they are the same density, computed on two routes.
# With a single modality the plain product is exact too, since there is nothing to count twice.
# The product with prior on posteriors is wrong even then.
#
# The table hides how fast the error grows.
# Take a world of many *weak* instruments, each barely better than the prior.
# We draw readings, and then a hidden $z$ from their exact posterior.
# Then we ask how often $z$ lies in the interval around an answer's mean that should hold it nine times out of ten.
# This share is the **coverage**.

# %%
LEVEL = 0.9
HALF_WIDTH = NormalDist().inv_cdf(0.5 + LEVEL / 2)  # in standard deviations


def coverage(q, z):
    """How often z [n] lies in the central interval of q [n, 1]."""
    inside = (z - q.mean[:, 0]).abs() < HALF_WIDTH * q.std[:, 0]
    return inside.double().mean().item()


n = {"smoke": 2_000}.get(profile, 20_000)
counts = range(1, 13)
found = {name: [] for name in STYLES}
for M in counts:
    world = LinearGaussian(weights=(1.0,) * M, variances=(4.0,) * M)
    x = world.sample(n, g)
    z = world.posterior(x).rsample(generator=g)[:, 0]
    posteriors = [world.posterior({m: x[m]}) for m in x]
    for name, form in zip(STYLES, forms):
        found[name].append(coverage(form(posteriors), z))

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the code of this figure", "code_prompt_hide": "Hide the code of this figure"}
fig, ax = figure(5, 3.8)
ax.axhline(LEVEL, label="as promised", **EXACT)
for name, values in found.items():
    ax.plot(counts, values, label=name, marker="o", markersize=4, **STYLES[name])
ax.set(xlabel="number of modalities", ylabel="coverage", ylim=(0, 1.05))
legend(fig, ax)
show(
    fig,
    alt=(
        "Coverage of the nine-in-ten interval against the number of modalities. The"
        " quotient stays on the promised level. The plain product starts there and"
        " falls steadily as modalities are added; the product with prior lies below it"
        " throughout."
    ),
)

# %% [markdown]
# Every added modality brings another copy of the prior, and the plain product mistakes the copies for evidence.
# At the right end of the figure its interval misses the truth most of the time.
# The quotient keeps its promise at any number.
#
# ### The normaliser knows the evidence
#
# The constant that we throw away has one more meaning.
# In LG3 a likelihood is, up to a factor, a Gaussian in $z$, and the factor is one over $|w_m|$:
#
# $$
# \begin{gathered}
# p(x_m\mid z)=\tfrac{1}{|w_m|}\,\mathcal N\big(z;\tfrac{x_m}{w_m},\tfrac{s_m^2}{w_m^2}\big),\\
# \log p(x_S)=\log Z-\sum_{m\in S}\log|w_m| .
# \end{gathered}
# $$ (eq-evidence)
#
# The second line follows, since the integral of the prior times all likelihoods is the evidence $p(x_S)$.
# So agreement is probability: readings that fit together, and fit the prior, are probable readings.

# %%
score = log_normaliser([prior, *LG3.experts(LG3_OBSERVATION)]).item()
evidence = score - sum(math.log(abs(w)) for w in LG3.weights)
direct = LG3.log_prob(LG3_OBSERVATION).item()
torch.testing.assert_close(evidence, direct)
print(f"log evidence from Z: {evidence:.6f}, directly: {direct:.6f} nats")

# %% [markdown]
# ## The veto
#
# So far every expert was honest.
# Now two experts agree, and a third one far away is very sure of itself.

# %%
def expert(mean, precision):
    mean, precision = torch.tensor([[[mean]], [[precision]]])
    return Normal.from_precision(mean, precision)


crowd = [expert(-1.2, 1.0), expert(-0.8, 1.0)]
rows = []
for precision in (0.1, 1.0, 10.0, 100.0):
    trio = [*crowd, expert(3.0, precision)]
    q = product(trio)
    rows.append([f"{precision:g}", q.mean, q.std, log_normaliser(trio)])

columns = ["outsider's precision", "mean", "standard deviation", "log Z"]
table("Product of two ordinary experts and an outsider", columns, rows)

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the code of this figure", "code_prompt_hide": "Hide the code of this figure"}
grid = torch.linspace(-4.5, 4.5, 600)
fig, ax = figure(5, 4)
trio = [*crowd, expert(3.0, 10.0)]
for name, q in zip(("the three experts", None, None), trio):
    draw(ax, q, grid, name, **REPORT)
draw(ax, product(trio), grid, "product", **STYLES["plain product"])
draw(ax, Mixture(tuple(trio)), grid, "mixture", color=PALETTE[4])
ax.set(xlabel="z", ylabel="density")
legend(fig, ax)
show(
    fig,
    alt=(
        "Two wide experts near minus one, a narrow outsider at three. The product is a"
        " single narrow peak close to the outsider, where the two wide experts are"
        " almost zero. The mixture keeps a broad hump at minus one and a peak at three."
    ),
)

# %% [markdown]
# In the figure the outsider holds ten votes and each of the other two holds one.
# The product moves most of the way to the outsider, to a place that the others find almost impossible.
# It does not look worried: it is narrower than any of the three.
# Only $\log Z$, which falls down the table, says that something is wrong.
# (The mixture in the figure is the other way to combine experts; we come to it below.)
#
# {cite:t}`shi2019` call this the power of **veto**: where one expert is almost zero, so is the product before it is normalised.
# Here each of them vetoes some place.
# The normaliser then lifts what is left, and the sharpest veto decides where that is.
# It is what we want from an honest expert, since "it is certainly not there" is information.
# It does harm when the expert is sharp without reason.
#
# ### What overconfidence costs
#
# Let one likelihood expert, number $j$, report its variance times $\kappa$.
# With $\kappa<1$ it is overconfident, with $\kappa>1$ too modest.
# Write $T$ and $\mu$ for the combined precision and mean when it is honest, at $\kappa=1$.
# Its own precision changes by some $\delta$, positive or negative, and those votes all concern its own mean $\tilde\mu_j$.
# By {eq}`eq-product-prior` the combined mean becomes a vote between $\mu$ with weight $T$ and $\tilde\mu_j$ with weight $\delta$:
#
# $$
# \begin{gathered}
# \mu(\kappa)-\mu=\frac{\delta}{T+\delta}\,(\tilde\mu_j-\mu),\\
# \delta=\tilde T_j\Big(\frac1\kappa-1\Big).
# \end{gathered}
# $$ (eq-kappa)
#
# As $\kappa\to0$ the fraction goes to one: expert $j$ decides alone.
# As $\kappa\to\infty$ we get $\delta\to-\tilde T_j$: expert $j$ is dropped.
# So the two failures differ.
# Modesty wastes one witness; overconfidence silences all the others.

# %%
x = LG3.sample(n, g)
truth = LG3.posterior(x)
z = truth.rsample(generator=g)[:, 0]
witnesses = LG3.experts(x)  # likelihood experts, each [n, 1]
kappas = torch.logspace(-3, 3, 25, dtype=torch.float64)


def with_kappa(experts, j, kappa):
    """The same experts, but expert j reports kappa times its variance."""
    loud = Normal(experts[j].mean, experts[j].logvar + math.log(kappa))
    return [*experts[:j], loud, *experts[j + 1 :]]


bias, covered = {}, {}
for j in range(3):
    combined = [
        product_with_prior(with_kappa(witnesses, j, kappa))
        for kappa in kappas.tolist()
    ]
    gaps = [q.mean - truth.mean for q in combined]
    bias[j] = [gap.square().mean().sqrt().item() for gap in gaps]
    covered[j] = [coverage(q, z) for q in combined]

# The closed form gives the same shift of every item's mean.
delta = witnesses[2].precision * (1 / kappas[0] - 1)
fraction = delta / (truth.precision + delta)
shift = fraction * (witnesses[2].mean - truth.mean)
overconfident = product_with_prior(with_kappa(witnesses, 2, kappas[0].item()))
torch.testing.assert_close(overconfident.mean - truth.mean, shift)

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the code of this figure", "code_prompt_hide": "Hide the code of this figure"}
fig, (top, bottom) = figure(5, 5.6, rows=2, sharex=True)
for j in range(3):
    style = {"color": PALETTE[j], "linestyle": ("-", "--", "-.")[j]}
    top.plot(kappas, bias[j], label=f"expert {j + 1}", **style)
    bottom.plot(kappas, covered[j], **style)
bottom.axhline(LEVEL, **EXACT)
for ax in (top, bottom):
    ax.axvline(1, color="#808080", linewidth=1, linestyle=":")
top.set(ylabel="bias of the mean", xscale="log", ylim=(0, None))
bottom.set(xlabel="factor κ on one expert's variance", ylabel="coverage", ylim=(0, 1))
legend(fig, top, columns=3)
show(
    fig,
    alt=(
        "Two panels against the factor kappa, from far below one to far above, one"
        " curve per expert of LG3. The bias of the mean is zero at kappa one, rises on"
        " both sides, and most on the left for the weakest expert. The coverage is at"
        " the promised level at one and above, and collapses towards zero on the left."
    ),
)

# %% [markdown]
# The upper panel shows the root mean square of the shift over many readings, the lower one the coverage.
# The bias levels off on both sides.
# The lopsided panel is the lower one.
# To the right of one the interval still covers: less is known, and the product says so.
# To the left the coverage collapses: the product grows narrower without becoming more right.
# The bias is worst when the expert that deserves the fewest votes, number one, takes them all.
#
# A network has no reason to be calibrated across modalities.
# An image has hundreds of pixels and a label is one symbol, and training rewards each at its own scale.
# {cite:t}`shi2019` suspect such miscalibrated precisions behind the poor results of MVAE, and replace the product by a **mixture of experts**:
#
# $$
# q(z\mid x_S)=\frac1{|S|}\sum_{m\in S}q_m(z\mid x_m).
# $$ (eq-mixture)
#
# A mixture cannot be vetoed: no expert can take away what another one has put there.
# It pays for this, since two witnesses in agreement make it no sharper than one.
# {cite:t}`daunhawer2021` take the other side.
# The product is sound, they argue, if only what the modalities share goes into it.

# %% [markdown]
# ## Try it
#
# The experts below start as the exact posteriors of LG3, given one reading each.
# The dashed line is the exact posterior of whatever set of readings is switched on.

# %%
from mmvae_lite.explore import ExpertPlayground

readings = LG3_OBSERVATION
posteriors = [LG3.posterior({m: readings[m]}) for m in range(3)]
truths = {s: LG3.posterior({m: readings[m] for m in s}) for s in subsets}
ExpertPlayground(
    means=[q.mean.item() for q in posteriors],
    precisions=[q.precision.item() for q in posteriors],
    form="product",
    labels=["report 1", "report 2", "report 3"],
    truth={s: (q.mean.item(), q.precision.item()) for s, q in truths.items()},
)

# %% [markdown]
# 1. Step through the three forms with all experts present, then switch one expert off. Which form stays on the exact posterior?
# 2. Choose the quotient and lower the precisions one after another. At what total does it stop being a density? Compare with {eq}`eq-proper`.
# 3. Choose the product and push one expert's mean to the edge. The product follows, and its width does not care. Then raise that expert's precision: the mean follows further, and now the width shrinks too.

# %% [markdown]
# ## Pitfalls, some of them in print
#
# **Which expert does the code have in hand?**
# The three forms look alike, and nothing crashes when the wrong one is used.
# {cite:t}`daunhawer2021` print the quotient as their equation 2.
# Their released code takes the plain product, with no prior expert and no division.
# Their training puts no prior on the shared code, so the plain product is not wrong by itself; but it is not the equation in the paper.
# The two agree only where the experts are far sharper than the prior.
#
# **The missing identity.**
# {cite:t}`lee2020` multiply the experts by the prior $\mathcal N(0,I)$, and print the result as $C^{-1}=\sum_iC_i^{-1}$.
# The prior's own precision, the identity, is missing from that sum.
# Their code has it, and {eq}`eq-product-prior` is what they compute.
#
# **What "the posterior of one modality" means.**
# In MVAE the encoder puts out $\tilde q_m$.
# The belief after one modality is $p\,\tilde q_m$, not $\tilde q_m$; forgetting the prior there gives samples that are too wide.
#
# **An epsilon, twice.**
# MVAE's code adds a small constant to every variance, and adds it again before it takes the inverse, to be safe from dividing by zero.
# The effect is tiny, but it is a bias, and it blurs every test against an exact answer.
# A network that puts out $\log v$ needs none: $T=\exp(-\log v)$ is positive.
#
# **Repairing an improper quotient.**
# Clamping a negative precision to a small positive one returns a very wide Gaussian with a wild mean.
# Change the parametrisation instead, as MVAE does.

# %% [markdown]
# ## When to use it, when not
#
# | use a product when | think twice when |
# |---|---|
# | modalities are conditionally independent given the latent | the latent also holds what only one modality knows |
# | any of them may be missing, and all $2^M$ sets must work with $M$ encoders | experts are trained apart and their precisions were never compared |
# | each new witness should sharpen the belief | experts may contradict each other, and the conflict is the message |
#
# If you build a model today, let the encoders report likelihood experts and use the product with prior.
# It is exact under its assumptions, it is never improper, and it needs no special case for missing data.
# Then measure the coverage, as above, wherever you can draw $z$ yourself.

# %% [markdown]
# ## Exercises
#
# Each exercise has a stub to fill in, a check and a hidden solution.
# Ask the check as often as you like; it says what is not right yet.

# %% [markdown]
# ```{exercise} Three products on paper
# :label: ex-poe-three-products
#
# The three unimodal posteriors of LG3 at our readings are $\mathcal N(\tfrac12,\tfrac12)$, $\mathcal N(\tfrac35,\tfrac15)$ and $\mathcal N(\tfrac13,\tfrac13)$.
# With pen and paper, find precision and mean of the plain product, of the product with prior, and of the quotient.
# Return them as a dict from `"product"`, `"prior"` and `"quotient"` to a pair (precision, mean).
# Which of them is $p(z\mid x_1,x_2,x_3)$?
# ```
#
# ```{admonition} Hint
# :class: dropdown tip
# Write the three precisions and the three $\eta_m$ in a small table.
# You need only two sums, and then change the precision.
# ```

# %% tags=["exercise"]
def three_products():
    # a dict from each form to (precision, mean)
    raise NotImplementedError

# %%
check("poe-three-products", three_products)

# %% tags=["solution", "hide-cell"] mystnb={"code_prompt_show": "Show the solution", "code_prompt_hide": "Hide the solution"}
def three_products():
    T = 2 + 5 + 3
    eta = 1 + 3 + 1
    # the standard prior has precision 1 and eta 0
    return {
        "product": (T, eta / T),
        "prior": (T + 1, eta / (T + 1)),
        "quotient": (T - 2, eta / (T - 2)),
    }


# Only the quotient is the exact posterior. The experts are posteriors,
# so two of the three priors in their product must go.
check("poe-three-products", three_products).require()

# %% [markdown]
# ```{exercise} The quotient that fails
# :label: ex-poe-improper
#
# Find three experts whose quotient is no density, although *one of them is sharper than the prior* $\mathcal N(0,1)$.
# Return a list of three pairs (mean, variance).
# Why do two experts not suffice?
# ```
#
# ```{admonition} Hint
# :class: dropdown tip
# Look at {eq}`eq-proper`. How much precision does the sharp expert bring, and how much is left for the other two?
# ```

# %% tags=["exercise"]
def experts_that_fail():
    # [(mean, variance), (mean, variance), (mean, variance)]
    raise NotImplementedError

# %%
check("poe-improper", experts_that_fail)

# %% tags=["solution", "hide-cell"] mystnb={"code_prompt_show": "Show the solution", "code_prompt_hide": "Hide the solution"}
def experts_that_fail():
    # precisions 1.25 + 0.25 + 0.25, less than the 2 that is taken away
    return [(0.0, 0.8), (1.0, 4.0), (-1.0, 4.0)]


# With two experts the quotient takes away 1,
# and the sharp one alone brings more than that.
check("poe-improper", experts_that_fail).require()

# %% [markdown]
# ```{exercise} A score of agreement
# :label: ex-poe-agreement
#
# Write the logarithm of {eq}`eq-agreement`: a function of two means and two variances that returns $\log Z$.
# Do not use the library.
# Then ask yourself: for fixed means, which total variance makes the score largest?
# ```
#
# ```{admonition} Hint
# :class: dropdown tip
# It is the logarithm of one Gaussian density, evaluated at one point.
# For the question, differentiate with respect to the total variance.
# ```

# %% tags=["exercise"]
def log_agreement(mean1, var1, mean2, var2):
    raise NotImplementedError

# %%
check("poe-agreement", log_agreement)

# %% tags=["solution", "hide-cell"] mystnb={"code_prompt_show": "Show the solution", "code_prompt_hide": "Hide the solution"}
def log_agreement(mean1, var1, mean2, var2):
    total = var1 + var2
    squares = (mean1 - mean2) ** 2
    return -0.5 * (math.log(2 * math.pi * total) + squares / total)


# The derivative is zero where the total variance equals the squared gap of
# the means: the experts should claim just the spread that they show.
check("poe-agreement", log_agreement).require()

# %% [markdown]
# ```{exercise} Mend an overconfident expert
# :label: ex-poe-calibrate
#
# An expert has reported `means` and `variances` for many items, and for these items the hidden values `z` are known (all of shape `[n]`).
# Return the one factor by which all its variances must be multiplied so that they are honest on average.
# What is its $\kappa$ in {eq}`eq-kappa`?
# ```
#
# ```{admonition} Hint
# :class: dropdown tip
# If a variance is honest, the squared error divided by it is one on average.
# ```

# %% tags=["exercise"]
def calibration_factor(means, variances, z):
    raise NotImplementedError

# %%
check("poe-calibrate", calibration_factor)

# %% tags=["solution", "hide-cell"] mystnb={"code_prompt_show": "Show the solution", "code_prompt_hide": "Hide the solution"}
def calibration_factor(means, variances, z):
    return ((z - means) ** 2 / variances).mean()


# It is also the maximum-likelihood estimate of the factor.
# The expert's kappa is its inverse.
check("poe-calibrate", calibration_factor).require()

# %% [markdown]
# ```{exercise} Experts with full covariance
# :label: ex-poe-full-covariance
#
# Implement {eq}`eq-full-product`: from `means` of shape `[experts, dims]` and `covariances` of shape `[experts, dims, dims]`, return mean `[dims]` and covariance `[dims, dims]` of the plain product.
# Then cross two long thin experts at a right angle, slanted to the axes, and compare with what you get if you keep only their diagonals.
# ```
#
# ```{admonition} Hint
# :class: dropdown tip
# `torch.linalg.inv` inverts a whole stack of matrices, and `torch.linalg.solve(A, b)` is better than `inv(A) @ b`.
# ```

# %% tags=["exercise"]
def full_product(means, covariances):
    raise NotImplementedError

# %%
check("poe-full-covariance", full_product)

# %% tags=["solution", "hide-cell"] mystnb={"code_prompt_show": "Show the solution", "code_prompt_hide": "Hide the solution"}
def full_product(means, covariances):
    precisions = torch.linalg.inv(covariances)
    precision = precisions.sum(0)
    eta = torch.einsum("mij,mj->i", precisions, means)
    return torch.linalg.solve(precision, eta), torch.linalg.inv(precision)


flip = torch.tensor([[1.0, -1.0], [-1.0, 1.0]])
slanted = torch.tensor([[1.0, 0.95], [0.95, 1.0]])
crossed = torch.stack([slanted, slanted * flip])  # at a right angle
_, full = full_product(torch.zeros(2, 2), crossed)
_, diagonal = full_product(torch.zeros(2, 2), crossed * torch.eye(2))
print("variance along each axis:")
print(f"  full matrices  {full[0, 0]:.3f}")
print(f"  diagonals only {diagonal[0, 0]:.3f}")
check("poe-full-covariance", full_product).require()

# %% [markdown]
# ## Further reading
#
# {cite:t}`hinton2002` introduces products of experts, for models whose normaliser has no closed form.
# {cite:t}`wu2018` bring them to variational autoencoders; their section 2 has the derivation above.
# {cite:t}`daunhawer2021` and {cite:t}`lee2020` put a product on the shared latent alone and give every modality a private one.
# Private latents are older than that: see {cite:t}`hsu2018`.
# {cite:t}`shi2019` make the case against products and for mixtures.
# {cite:t}`korthals2019` train one encoder per subset instead of combining experts.
# The variational autoencoder itself is in {cite:t}`kingma2014`, with {eq}`eq-kl-normal` for the case that $p$ is the standard normal.
