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
# # Why several senses, and a world we can solve
#
# ```{admonition} Before you start
# :class: note
# You need Gaussians, expectations and logarithms.
# It helps to have met a variational autoencoder, but this page starts from nothing.
# Nothing is trained here, and one CPU core is enough.
# ```

# %% tags=["parameters", "hide-input"] mystnb={"code_prompt_show": "Show the settings", "code_prompt_hide": "Hide the settings"}
profile = "lite"
seed = 0
device = "cpu"

# %% tags=["setup", "hide-input"] mystnb={"code_prompt_show": "Show the imports", "code_prompt_hide": "Hide the imports"}
import itertools
import math

import torch

from mmvae_lite.data import (
    LG3,
    LG3_OBSERVATION,
    LG_PVAE,
    LG_PVAE_OBSERVATION,
    LinearGaussian,
    PartitionedGaussian,
)
from mmvae_lite.distributions import Normal, kl
from mmvae_lite.exercises import check
from mmvae_lite.models.linear import exact_model

# %% [markdown]
# ## The question
#
# You stand in front of a melon.
# You want to know how ripe it is, and you cannot look inside.
# But its colour tells you something.
# So does its smell, and so does the way it gives under your thumb.
# No single one of them would do.
# Together they are good enough for you to pay.
#
# Psychologists have measured how people do this, with the height of a ridge that they see and feel at once {cite:p}`ernst2002`.
# People weigh each sense by how reliable it is, and they come close to the best that mathematics allows.
# This book is about machines that do the same.
#
# Let us make the melon exact.
# Write $z$ for its ripeness: zero is the average melon, and one is a standard deviation riper.
# Colour, smell and firmness are scores, each measured from the average too:
#
# $$
# \begin{gathered}
# z\sim\mathcal N(0,1),\\
# x_m\mid z\sim\mathcal N(w_mz,\,s_m^2),\\
# \begin{array}{lccc}
#  & \text{colour} & \text{smell} & \text{firmness}\\
# w & 1 & 2 & -1\\
# s^2 & 1 & 1 & \tfrac12
# \end{array}
# \end{gathered}
# $$ (eq-melon)
#
# A ripe melon is yellower, it smells more, and it is softer: the last weight is negative.
# Smell is the best witness here, since its weight is large against its noise.
# Our melon has the scores $x=(1,\tfrac32,-\tfrac12)$: rather yellow, fragrant, a little soft.
# We call this world **LG3**, for linear, Gaussian, three senses.
#
# Now imagine that you have learnt to judge melons with all three senses, and today you have a cold.
# You cannot smell anything.
# What do you do with the rule that you have learnt, which wants three numbers?
# The simple answer is to fill in the average, zero, and to go on as before.
# We compare it with the exact answer, which this world lets us compute.

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the plotting helpers", "code_prompt_hide": "Hide the plotting helpers"}
from matplotlib.colors import to_rgba
from matplotlib.patches import Ellipse

from mmvae_lite.plotting import PALETTE, figure, legend, show, table

NAMES = ("colour", "smell", "firmness")
TRUE = {
    "color": "#808080",
    "linewidth": 8,
    "alpha": 0.45,
    "linestyle": "-",
    "solid_capstyle": "round",
}
FIRST, SECOND, THIRD = (
    {"color": PALETTE[i], "linestyle": dash} for i, dash in enumerate(("-", "--", "-."))
)


def density(q, grid):
    """The density of the first item and dimension of q on a grid of z."""
    return q.log_prob(grid[:, None, None]).exp()[:, 0]


def named(subset):
    return " + ".join(NAMES[m] for m in subset) or "nothing"


# %%
x = LG3_OBSERVATION  # {0: colour, 1: smell, 2: firmness}
without_smell = {m: x[m] for m in (0, 2)}

with_all = LG3.posterior(x)  # p(z | colour, smell, firmness)
exact = LG3.posterior(without_smell)  # p(z | colour, firmness)
filled_in = LG3.posterior({**x, 1: torch.zeros(1)})  # smell := 0

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the code of this figure", "code_prompt_hide": "Hide the code of this figure"}
grid = torch.linspace(-1.6, 2.4, 400, dtype=torch.float64)
fig, ax = figure(5, 3.6)
ax.plot(grid, density(exact, grid), label="exact, without smell", **TRUE)
ax.plot(grid, density(filled_in, grid), label="smell set to zero", **SECOND)
ax.plot(
    grid, density(with_all, grid), label="exact, with smell", color=PALETTE[0],
    linestyle=":",
)
ax.set(xlabel="ripeness z", ylabel="density")
legend(fig, ax)
show(
    fig,
    alt=(
        "Densities of the ripeness z. The exact belief without smell is broad and"
        " centred at one half. The belief with smell set to zero is much narrower, as"
        " narrow as the one with all three senses, and lies to the left of both."
    ),
)

# %%
n = {"smoke": 10_000}.get(profile, 100_000)
g = torch.Generator().manual_seed(seed + 1)
melons = LG3.sample(n, g)
ripeness = LG3.posterior(melons).rsample(generator=g)  # one that fits each


def coverage(melons, level=0.9):
    """How often the belief's interval of this level holds the truth."""
    q = LG3.posterior(melons)
    reach = torch.special.ndtri(torch.tensor((1 + level) / 2)) * q.std
    return ((ripeness - q.mean).abs() <= reach).double().mean().item()


blocked = {m: melons[m] for m in (0, 2)}
zeros = {**melons, 1: torch.zeros_like(melons[1])}
print(f"n = {n} melons; an interval of level 0.9 holds the truth in")
print(f"  {coverage(melons):.3f} of them, with all senses")
print(f"  {coverage(blocked):.3f} of them, without smell")
print(f"  {coverage(zeros):.3f} of them, with smell set to zero")

# %% [markdown]
# The dashed curve is as narrow as if you had smelled the melon, and it lies in the wrong place.
# A blocked nose is not a nose that reports an average melon.
# The rule took the zero for evidence, and evidence it was not.
# The exact answer is modest: it moves a little, and it grows broader.
#
# So a machine with several senses must do more than glue its inputs together.
# It has to know what to believe from *any* of them.
# In this chapter nothing stands in the way of finding out what that means, because the world is small enough to be solved with a pencil.
# Everything that later chapters must approximate, we compute here and look at.
#
# **After this chapter you can**
#
# - draw the graph of a multimodal variational autoencoder and say what each arrow is;
# - compute posterior, evidence and information of a linear-Gaussian world for any set of senses;
# - state what such a model should be good at, in four criteria, and put a number on each;
# - prove that the gap of the ELBO is a divergence, and say which mistakes it forgives;
# - hold the objectives of six models against the truth, and say which of them are bounds, and of what.

# %% [markdown]
# ## One cause, several effects
#
# The melon is the simplest case of the graph on which this whole book is built.
# A hidden **latent variable** $z$ is drawn from a **prior**.
# Each **modality** $x_m$ is then drawn from $z$ alone, by its own **decoder** $p(x_m\mid z)$:
#
# $$
# p(z,x_1,\dots,x_M)=p(z)\prod_{m=1}^Mp(x_m\mid z).
# $$ (eq-graph)
#
# The product says that the modalities are **conditionally independent**.
# Colour and smell go together in the market, but only because ripeness drives both.
# Among melons of one ripeness, colour says nothing about smell.
#
# Arrows run down, from the cause to its effects.
# Perception goes up, from effects to the cause: that is the **posterior** $p(z\mid x_S)$, where $S$ is the set of modalities that we happen to have.
# For pictures and sounds it cannot be computed, and a neural network approximates it by $q(z\mid x_S)$, an **encoder**.
# A *multimodal variational autoencoder* is this graph with networks for all arrows.
# The models in this book differ in two things: which latents there are, and where the encoders come from.

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the code of this figure", "code_prompt_hide": "Hide the code of this figure"}
def node(ax, at, text, seen=False):
    ax.add_patch(
        Ellipse(
            at, 0.62, 0.62, facecolor=to_rgba(PALETTE[0], 0.25) if seen else "none",
            edgecolor="black", linewidth=1.3,
        )
    )
    ax.text(*at, text, ha="center", va="center", fontsize=12)


def arrow(ax, start, end, bend=0.0, **style):
    (x0, y0), (x1, y1) = start, end
    length = math.hypot(x1 - x0, y1 - y0)
    ux, uy = (x1 - x0) / length * 0.36, (y1 - y0) / length * 0.36
    look = {
        "arrowstyle": "-|>",
        "color": "black",
        "linewidth": 1.3,
        "connectionstyle": f"arc3,rad={bend}",
        "shrinkA": 0,
        "shrinkB": 0,
    } | style
    ax.annotate("", (x1 - ux, y1 - uy), (x0 + ux, y0 + uy), arrowprops=look)


fig, (left, right) = figure(5, 2.6, columns=2)
for m, at in enumerate((-1.2, 0.0, 1.2)):
    arrow(left, (0, 1.7), (at, 0))
    arrow(left, (at, 0), (0, 1.7), bend=0.35, color=PALETTE[1], linestyle="--")
    node(left, (at, 0), f"$x_{m + 1}$", seen=True)
node(left, (0, 1.7), "$z$")
for m, at in enumerate((-0.7, 0.7)):
    arrow(right, (0, 1.7), (at, 0))
    arrow(right, (2.1 * at, 1.7), (at, 0))
    node(right, (at, 0), f"$x_{m + 1}$", seen=True)
    node(right, (2.1 * at, 1.7), f"$z^{m + 1}$")
node(right, (0, 1.7), "$z^s$")
for ax, title in ((left, "one latent"), (right, "shared and private latents")):
    ax.set(xlim=(-2, 2), ylim=(-0.5, 2.2), aspect="equal", title=title)
    ax.set_axis_off()
show(
    fig,
    alt=(
        "Two graphs. Left: one latent z above, three observed modalities below, a solid"
        " arrow from z down to each, and a dashed arrow back up from each to z. Right:"
        " a shared latent points to both of two modalities, and each also has a private"
        " latent of its own."
    ),
    caption=(
        "Solid: decoders, from the cause to what it causes. Dashed: encoders, from what"
        " is observed to a belief about the cause. Left: the melon. Right: a graph with"
        " private latents, to which we come below."
    ),
)

# %% [markdown]
# ## Four answers with a pencil
#
# ### What to believe
#
# By Bayes' rule the posterior is proportional to the prior times the likelihoods.
# Take the logarithm and keep what depends on $z$; the rest goes into the constants $c$ and $c'$:
#
# $$
# \begin{gathered}
# \begin{aligned}
# \log p(z\mid x_S)&=c-\tfrac12z^2\\
# &\quad-\sum_{m\in S}\frac{(x_m-w_mz)^2}{2s_m^2}\\
# &=c'-\tfrac12T_Sz^2+T_S\mu_Sz,
# \end{aligned}\\
# T_S=1+\sum_{m\in S}\frac{w_m^2}{s_m^2},\\
# \mu_S=\frac1{T_S}\sum_{m\in S}\frac{w_mx_m}{s_m^2}.
# \end{gathered}
# $$ (eq-world-posterior)
#
# A parabola in $z$ is the logarithm of a Gaussian: $p(z\mid x_S)=\mathcal N(\mu_S,1/T_S)$.
# Its **precision** $T_S$ is a sum.
# The prior brings one, and each sense brings its own $w_m^2/s_m^2$: signal over noise.
# A sense that is missing brings nothing.
# That is all there is to a blocked nose.
#
# ### How probable the readings are
#
# The **evidence** $p(x_S)$ is the probability density of what we observed, with the cause averaged out.
# It is what training makes large, and what tells a good model from a bad one.
# Here $x_S$ is a Gaussian $z$ times numbers, plus Gaussian noise, so it is Gaussian as well.
# Two senses vary together because $z$ moves both, and each has its noise on top:
#
# $$
# \begin{gathered}
# p(x_S)=\mathcal N(x_S;\,0,\,C_S),\\
# C_S=w_Sw_S^\top+\mathrm{diag}(s_S^2).
# \end{gathered}
# $$ (eq-world-evidence)
#
# ### What one sense predicts of another
#
# Before you touch the melon you have an idea of how soft it will be.
# Your belief about $z$ is $\mathcal N(\mu_S,1/T_S)$.
# Carry it through the decoder of a sense $m$ that is not in $S$, and add that sense's noise:
#
# $$
# \begin{aligned}
# &p(x_m\mid x_S)\\
# &\quad=\int p(x_m\mid z)\,p(z\mid x_S)\,dz\\
# &\quad=\mathcal N\Big(x_m;\,w_m\mu_S,\;\frac{w_m^2}{T_S}+s_m^2\Big).
# \end{aligned}
# $$ (eq-world-predictive)
#
# At the reading itself, its logarithm is the **conditional evidence** $\log p(x_S,x_m)-\log p(x_S)$.
#
# ### How much a sense tells
#
# How much do we learn about $z$ when we look?
# We count in **nats**, the unit of information for natural logarithms.
# The entropy of a Gaussian of variance $v$ is $\tfrac12\log(2\pi e\,v)$.
# Before, the variance is $1$; after, it is $1/T_S$, whatever the readings are.
# The difference is the **mutual information**:
#
# $$
# \begin{aligned}
# I(z;x_S)&=\tfrac12\log T_S\\
# &=\tfrac12\log\Big(1+\sum_{m\in S}\frac{w_m^2}{s_m^2}\Big).
# \end{aligned}
# $$ (eq-world-information)
#
# The sum stands inside a logarithm.
# So a sense adds less than it would tell alone, and the less, the more the others have told before it.

# %% [markdown]
# ## Ten lines of code
#
# The posterior needs two sums.
# For the evidence there is a trick that saves the matrix: $p(x)=p(x,z)/p(z\mid x)$ holds for *every* $z$.
# We take $z=0$.

# %%
def log_normal(x, mean, var):
    return -0.5 * (math.log(2 * math.pi * var) + (x - mean) ** 2 / var)


def solve(x):
    """Mean and variance of p(z | x_S), and log p(x_S), in LG3."""
    T, eta, log_p = 1.0, 0.0, log_normal(0, 0, 1)  # log p(z = 0)
    for m, value in x.items():
        w, s2 = LG3.weights[m], LG3.variances[m]
        T, eta = T + w**2 / s2, eta + w * value / s2
        log_p += log_normal(value, 0, s2)  # log p(x_m | z = 0)
    log_p -= log_normal(0, eta / T, 1 / T)  # log p(z = 0 | x_S)
    return eta / T, 1 / T, log_p


subsets = [s for k in range(4) for s in itertools.combinations(range(3), k)]
for s in subsets[1:]:
    seen = {m: x[m] for m in s}
    q, log_p = LG3.posterior(seen), LG3.log_prob(seen)
    ours = torch.tensor(solve({m: x[m].item() for m in s})).double()
    theirs = torch.cat([q.mean[0], q.var[0], log_p])
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)
print("The ten lines and the library agree on all sets of senses.")

# %% [markdown]
# ## What several senses buy
#
# Here is the whole world at a glance: what to believe about our melon from every set of senses, and how much each set tells.

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the code of this figure", "code_prompt_hide": "Hide the code of this figure"}
grid = torch.linspace(-2.6, 2.6, 400, dtype=torch.float64)
fig, (ridge, bars) = figure(5, 4.6, columns=2, width_ratios=[3, 2], sharey=True)
for row, s in enumerate(subsets):
    color = PALETTE[len(s) - 1] if s else "#808080"
    q = LG3.posterior({m: x[m] for m in s})
    curve = density(q, grid) / 1.3
    ridge.fill_between(grid, -row, curve - row, color=color, alpha=0.35, linewidth=0)
    ridge.plot(grid, curve - row, color=color, linestyle="-", linewidth=1.5)
    bars.barh(0.25 - row, LG3.information(s), height=0.5, color=color)
ridge.set(
    xlabel="ripeness z", yticks=[0.2 - row for row in range(8)],
    yticklabels=[
        named(s).replace(" + ", "\n+ ", 1) if len(s) > 2 else named(s) for s in subsets
    ],
)
ridge.tick_params(axis="y", length=0)
bars.set(xlabel="I(z; x) in nats")
bars.tick_params(axis="y", left=False)
for ax in (ridge, bars):
    ax.spines["left"].set_visible(False)
show(
    fig,
    alt=(
        "Eight rows, one for each set of senses, from nothing to all three. On the left"
        " the belief about the ripeness: broad for nothing, narrower for each single"
        " sense, each pair narrower than either of its two senses, and narrowest for"
        " all three. On the right the information in nats: smell alone tells more than"
        " colour and firmness together, and all three tell the most."
    ),
    caption=(
        "Every sense that joins a set sharpens the belief. The bar of a pair is shorter"
        " than the bars of its two senses laid end to end."
    ),
)

# %%
alone = [LG3.information([m]) for m in range(3)]
everything = LG3.information([0, 1, 2])
last = [everything - LG3.information({0, 1, 2} - {m}) for m in range(3)]

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the code of this table", "code_prompt_hide": "Hide the code of this table"}
table(
    "What each sense adds, in nats", ["sense", "alone", "as the last of three"],
    list(zip(NAMES, alone, last)),
)

# %% [markdown]
# As the last of three, each sense adds far less than it tells alone.
# What happened to the rest?
# The others had told it already.
# This overlap has a name and a formula, and we shall need it twice.
#
# Write $H$ for entropy.
# Given $z$ the modalities are independent, so that $H(x_S\mid z)=\sum_mH(x_m\mid z)$, and with $I(z;x_S)=H(x_S)-H(x_S\mid z)$
#
# $$
# \begin{aligned}
# \mathrm{TC}(x_S)&:=\sum_{m\in S}H(x_m)-H(x_S)\\
# &=\sum_{m\in S}I(z;x_m)-I(z;x_S)\\
# &\ge0 .
# \end{aligned}
# $$ (eq-shared-information)
#
# The first line is the **total correlation**: how far the modalities are from being independent.
# It equals $\mathrm{KL}\big(p(x_S)\,\|\,\prod_mp(x_m)\big)$, where $\mathrm{KL}(p\,\|\,q)=\mathbb E_p\log\frac pq$ is the **Kullback-Leibler divergence**.
# A divergence is never negative, hence the sign.
# The second line reads: *what is said more than once*.
# Nothing Gaussian was used.
# In every world with the graph {eq}`eq-graph`, the senses repeat each other exactly as much as they depend on each other.
# And about their common cause they never tell more together than the sum of what each tells.
#
# So why have several?
# Because each is noisy, because each can be missing, and because of something that only appears when there is more than one latent.
# We come to it.

# %% [markdown] tags=["figure-mmvae-2"]
# ## Four criteria, each with a number
#
# When has a model with several senses learnt its lesson?
# {cite:t}`shi2019` name four criteria.
# We state them in their order, and for each we build a *cheat*: a model that looks fine and misses the point.
# In a world that we can solve, the cheat has a price, and the price is exact.
# (We keep the first criterion for the end, since it needs a second world.)
#
# | criterion | in words | for a melon |
# |---|---|---|
# | **latent factorisation** | the latents split into shared ones and private ones | ripeness apart from the light in the shop |
# | **joint generation** | things generated together belong together | an invented melon is yellow *and* fragrant, or neither |
# | **cross generation** | from one modality, generate another that fits | from the colour, imagine the smell |
# | **synergy** | a modality is modelled better because the others were there | a nose makes the eyes better |

# %% [markdown]
# ### Joint generation: draw the cause once
#
# To invent a melon, draw one $z$ from the prior and let every decoder use it.
# The cheat draws a fresh $z$ for every sense.
# Look at one sense at a time and you cannot tell the two apart: each $p(x_m)$ is perfect.

# %%
g = torch.Generator().manual_seed(seed)
coherent = LG3.sample(400, g)
cheat = {m: LG3.sample(400, g)[m] for m in range(3)}  # z anew for each

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the code of this figure", "code_prompt_hide": "Hide the code of this figure"}
fig, axes = figure(5, 2.7, columns=2, sharex=True, sharey=True)
for ax, made, title, color in zip(
    axes, (coherent, cheat), ("one z for all", "a z for each sense"), PALETTE
):
    ax.plot(made[0], made[1], ".", color=color, markersize=4, alpha=0.5)
    ax.set(xlabel="colour", title=title)
axes[0].set_ylabel("smell")
show(
    fig,
    alt=(
        "Two clouds of points, colour against smell. On the left the cloud is a slanted"
        " ellipse: yellow melons smell. On the right it is upright: colour and smell"
        " have nothing to do with each other."
    ),
)

# %% [markdown]
# What does the cheat lose?
# Its density is $\prod_mp(x_m)$, and its log-likelihood falls short of the best possible, on average over melons, by $\mathrm{KL}\big(p(x)\,\|\,\prod_mp(x_m)\big)$.
# That is {eq}`eq-shared-information`, the total correlation.
# So the price of incoherence is what the senses have in common.

# %%
incoherent = LG3.shared_information([0, 1, 2])
each = sum(LG3.log_prob({m: melons[m]}) for m in range(3))
lost = LG3.log_prob(melons) - each
error = lost.std() / n**0.5
print(f"lost by drawing z afresh:  {incoherent:.4f} nats")
print(f"over the n melons above:   {lost.mean():.4f} +- {error:.4f}")

# %% [markdown]
# With pictures and captions nobody has these densities.
# There one asks classifiers whether the generated parts agree, and calls the share of agreement *coherence*.
#
# ### Cross generation: do not forget your doubt
#
# You see the colour; imagine the smell.
# The exact answer is {eq}`eq-world-predictive`.
# One cheat ignores the colour and imagines just any melon.
# Another infers the ripeness, keeps only the *mean* of its belief, and decodes that.
# It is a common way to translate with an autoencoder, and it looks clever.

# %%
w, s2 = LG3.weights[1], LG3.variances[1]


def decode_the_mean(colour):
    """N(w_2 mu, s_2^2): the smell if z were its posterior mean."""
    mean = w * LG3.posterior(colour).mean
    return Normal(mean, torch.full_like(mean, math.log(s2)))


given_colour = LG3.predict({0: x[0]}, 1)  # p(smell | colour)
from_the_mean = decode_the_mean({0: x[0]})
any_melon = LG3.predict({}, 1)  # p(smell)

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the code of this figure", "code_prompt_hide": "Hide the code of this figure"}
grid = torch.linspace(-6, 8, 400, dtype=torch.float64)
fig, ax = figure(5, 3.6)
ax.plot(grid, density(given_colour, grid), label="exact, given the colour", **TRUE)
ax.plot(grid, density(from_the_mean, grid), label="decode the mean", **SECOND)
ax.plot(grid, density(any_melon, grid), label="ignore the colour", **FIRST)
ax.set(xlabel="smell", ylabel="density")
legend(fig, ax)
show(
    fig,
    alt=(
        "Three densities of the smell. The exact one is centred at one and of middling"
        " width. Decoding the mean gives one with the same centre that is far too"
        " narrow. Ignoring the colour gives one centred at zero that is too wide."
    ),
)

# %%
smell = melons[1][:, None]
best = LG3.predict({0: melons[0]}, 1).log_prob(smell)
mean_only = decode_the_mean({0: melons[0]}).log_prob(smell)
ignoring = any_melon.log_prob(smell)

r = w**2 * LG3.posterior({0: x[0]}).var.item() / s2
by_mean = 0.5 * (r - math.log1p(r))
by_ignoring = LG3.shared_information([0, 1])  # I(colour; smell)

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the code of this table", "code_prompt_hide": "Hide the code of this table"}
table(
    "Nats lost per melon when the smell is predicted from the colour",
    ["prediction", "exactly", f"over {n} melons"],
    [
        ["exact", 0.0, 0.0],
        ["ignore the colour", by_ignoring, (best - ignoring).mean()],
        ["decode the mean", by_mean, (best - mean_only).mean()],
    ],
)

# %% [markdown]
# Here, decoding the mean is *worse than not looking at all*.
# It has the right centre and no doubt, and a smell that is a little off counts as a near impossibility.
# With $r=w_m^2/(s_m^2T_S)$, the doubt about $z$ over the noise, the loss is $\tfrac12\big(r-\log(1+r)\big)$.
# It is small when the colour pins $z$ down.
# When it does not, the loss grows with $w_m^2/s_m^2$, and without limit: the clearer the smell, the dearer the forgotten doubt.
# If you want one guess, take the mean; if you want to *generate*, draw $z$ from the belief first.
#
# ### Synergy: what one sense cannot learn
#
# The fourth criterion sounds like magic: a model of colour should get better because there was also a smell.
# Suppose that you have only ever seen melons, never smelled or touched one.
# You know that colour has variance $w_1^2+s_1^2=2$.
# But how much of that is ripeness, and how much is noise?
# Nothing that you can ever see will tell you.
# Let us hold the total at $2$, vary the share of the signal, and look at how well each model explains a market's worth of melons.

# %%
g = torch.Generator().manual_seed(seed + 1)
market = LG3.sample({"smoke": 300}.get(profile, 2000), g)
shares = torch.linspace(0.02, 0.98, 49).tolist()
score = {(0,): [], (0, 1): [], (0, 1, 2): []}
for share in shares:
    model = LinearGaussian(
        weights=(math.sqrt(2 * share), *LG3.weights[1:]),
        variances=(2 * (1 - share), *LG3.variances[1:]),
    )
    for s in score:
        log_p = model.log_prob({m: market[m] for m in s})
        score[s].append(log_p.mean().item())

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the code of this figure", "code_prompt_hide": "Hide the code of this figure"}
fig, ax = figure(5, 3.6)
for (s, values), style in zip(score.items(), (FIRST, SECOND, THIRD)):
    ax.plot(shares, [v - max(values) for v in values], label=named(s), **style)
ax.axvline(0.5, color="#808080", linewidth=1, linestyle=":")
ax.set(
    xlabel="share of the signal in the colour", ylabel="evidence below its best, nats",
    ylim=(-0.35, 0.02),
)
legend(fig, ax, columns=1)
show(
    fig,
    alt=(
        "Mean log evidence below its maximum, against the share of the signal in the"
        " variance of the colour. For colour alone the line is flat. With smell there"
        " is a peak near one half, the true value, and with firmness as well the peak"
        " is sharper."
    ),
    caption=(
        "The dotted line marks the truth. From colour alone all shares are equally"
        " good."
    ),
)

# %% [markdown]
# With colour alone the line is flat: signal and noise cannot be told apart, not even from infinitely many melons.
# With a second sense whose weight and noise we know there is a peak near the truth, and with a third a slightly sharper one.
# Now the *decoder of colour* has become better through senses that are not colour.
# That is synergy in learning.
# With three senses none of them needs to be known beforehand: the exercises show how their three covariances alone give away how much of each is signal, an idea that began with {cite:t}`spearman1904`, who looked for one cause behind the marks of schoolchildren.
#
# Synergy can also mean that inference gets sharper, and there {eq}`eq-shared-information` seemed to forbid any more than the sum of the parts.
# It does so for everything that is behind the senses, taken together.
# For one latent among several it does not, and several latents are what the first criterion is about.

# %% [markdown]
# ## Private factors: a first look
#
# Colour does not depend on ripeness alone.
# Under a warm lamp every melon looks yellow.
# And in a draught no melon smells.
# The lamp concerns colour only, the draught smell only.
# They are **private** latents $z^1$ and $z^2$; ripeness is the **shared** one, $z^s$.
# This is the graph on the right of the first drawing, and here is the world:
#
# $$
# \begin{gathered}
# z^s,z^1,z^2\sim\mathcal N(0,1),\\
# x_1\mid z\sim\mathcal N(z^s+z^1,\tfrac12),\\
# x_2\mid z\sim\mathcal N(2z^s-z^2,\tfrac14).
# \end{gathered}
# $$ (eq-lamp)
#
# A latent is private to one modality if the others, by themselves, say nothing about it.
# That is a statement that we can check.
# The posterior of a latent is Gaussian, so as in {eq}`eq-world-information`, with $i$ for $s$, $1$ or $2$,
#
# $$
# I(z^i;x_S)=-\tfrac12\log\mathrm{Var}(z^i\mid x_S).
# $$ (eq-latent-information)

# %%
given = {"the colour": [0], "the smell": [1], "both": [0, 1]}
told = [
    [LG_PVAE.information(latent, s) for s in given.values()]
    for latent in range(3)  # z^s, z^1, z^2
]

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the code of this table", "code_prompt_hide": "Hide the code of this table"}
latents = ("ripeness, shared", "lamp, private to colour", "draught, private to smell")
table(
    "Nats that are told about each latent", ["latent", *given],
    [[name, *row] for name, row in zip(latents, told)],
)

# %% [markdown]
# The zeros are the factorisation: the smell knows nothing about the lamp, the colour nothing about the draught.
# Now look at the row of the lamp again.
# The smell alone tells nothing about it.
# Yet colour *and* smell tell more than the colour.
#
# Say the melon is yellow: ripe, or a warm lamp?
# Now you sniff, and there is no smell.
# So it is hardly ripe, and so it must be the lamp.
# The nose has just told you something about a lamp.
# This is called **explaining away**, and it is synergy in the strict sense: more than the sum of the parts.

# %%
y = LG_PVAE_OBSERVATION  # a yellow melon without much smell
views = {"from the colour": {0: y[0]}, "from colour and smell": y}
beliefs = {name: LG_PVAE.posterior(x) for name, x in views.items()}
factorised = LG_PVAE.mean_field(y)  # the best q(z^s) q(z^1) q(z^2)

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the code of this figure", "code_prompt_hide": "Hide the code of this figure"}
def ellipse(ax, mean, covariance, label, **style):
    """The contour at one standard deviation of the first two latents."""
    values, vectors = torch.linalg.eigh(covariance[:2, :2])
    turn = torch.linspace(0, 2 * math.pi, 200, dtype=torch.float64)
    circle = torch.stack([turn.cos(), turn.sin()]) * values.sqrt()[:, None]
    line = mean[:2, None] + vectors @ circle
    ax.plot(*line, label=label, **style)
    ax.plot(*mean[:2, None], "o", color=style["color"], markersize=5)


fig, ax = figure(4.6, 4.6)
ellipse(
    ax, torch.zeros(3).double(), torch.eye(3).double(), "prior", color="#808080",
    linestyle=":",
)
for (name, (mean, covariance)), style in zip(beliefs.items(), (FIRST, SECOND)):
    ellipse(ax, mean[0], covariance, name, **style)
ellipse(
    ax, factorised.mean[0], torch.diag(factorised.var[0]), "best without slant", **THIRD
)
ax.set(xlabel="ripeness", ylabel="warmth of the lamp", aspect="equal")
legend(fig, ax)
show(
    fig,
    alt=(
        "Ellipses in the plane of ripeness and lamp. The prior is a circle. From the"
        " colour the belief is a slanted ellipse along falling lines: a riper melon"
        " means a colder lamp. From colour and smell it is smaller, still slanted, and"
        " lies at less ripeness and a warmer lamp. The best upright ellipse has the"
        " same centre and is smaller than the slanted one."
    ),
    caption=(
        "Contours at one standard deviation. The slant says: if it is riper than we"
        " think, the lamp is colder."
    ),
)

# %% [markdown]
# Before anything is seen, lamp and ripeness are independent.
# Given the colour they are not: the ellipse is slanted.
# So *independent* causes have *dependent* posteriors, and an encoder that reports one variance per latent cannot say so.
# The best it can do is the upright ellipse, which has the right centre and is too small.
# Soon we can say what that costs.
#
# ### The evidence does not see it
#
# There is a catch, and it is the hardest thing about the first criterion.
# Call the lamp *noise*: drop $z^1$ and $z^2$ and give their variance to the noise.

# %%
no_privates = PartitionedGaussian(
    shared=LG_PVAE.shared,
    private=(0.0, 0.0),
    variances=(0.5 + 1.0**2, 0.25 + 1.0**2),
)
g = torch.Generator().manual_seed(seed)
anything = dict(enumerate(3 * torch.randn(2, 1000, generator=g)))
torch.testing.assert_close(
    no_privates.log_prob(anything), LG_PVAE.log_prob(anything)
)

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the code of this table", "code_prompt_hide": "Hide the code of this table"}
twins = LG_PVAE, no_privates
table(
    "Two worlds", ["", "with private latents", "without"],
    [
        ["log evidence of our melon, nats", *(world.log_prob(y) for world in twins)],
        [
            "colour tells about ripeness, nats",
            *(world.information(0, (0,)) for world in twins),
        ],
        [
            "colour tells about the lamp, nats",
            *(world.information(1, (0,)) for world in twins),
        ],
    ],
)

# %% [markdown]
# The two have the same density for every possible $x$; the last lines of the cell tried a thousand.
# No likelihood, no bound and no amount of data can prefer one to the other.
# Whether a model has private factors is decided by its *architecture and its training*, not by its fit.
# The chapters on PVAE, DMVAE-D and DMVAE-L are about how to make that decision well.

# %% [markdown]
# ## From the evidence to a bound
#
# In this world we just write down $\log p(x)$.
# With networks we cannot, and we climb a **lower bound** instead.
# Where does it come from, and how low is it?
#
# Start from $\log p(x)=\log p(x,z)-\log p(z\mid x)$, which holds for every $z$.
# Take any density $q(z)$, subtract and add its logarithm, and average over $z\sim q$:
#
# $$
# \begin{aligned}
# \log p(x)&=\underbrace{\mathbb E_q\Big[\log\frac{p(x,z)}{q(z)}\Big]}_{\mathrm{ELBO}(q)}\\
# &\quad+\underbrace{\mathbb E_q\Big[\log\frac{q(z)}{p(z\mid x)}\Big]}_{\mathrm{KL}(q\,\|\,p(z\mid x))} .
# \end{aligned}
# $$ (eq-gap)
#
# A divergence is never negative.
# So the first term, the **evidence lower bound** or ELBO, is at most the evidence, and the *gap is a divergence*: how wrong $q$ is about $z$.
# Nothing was assumed about the model.
# The only trouble is that in a real model we see the ELBO and never the gap.
#
# Here we see both.
# For $q=\mathcal N(\mu,v)$, split $p(x,z)$ into likelihoods and prior, and average each square:
#
# $$
# \begin{aligned}
# \mathrm{ELBO}(q)&=-\frac12\sum_{m\in S}\Big[\log2\pi s_m^2\\
# &\qquad+\frac{(x_m-w_m\mu)^2+w_m^2v}{s_m^2}\Big]\\
# &\quad-\tfrac12\big(\mu^2+v-1-\log v\big).
# \end{aligned}
# $$ (eq-linear-elbo)
#
# The last line is $\mathrm{KL}(q\,\|\,p(z))$.
# Let $q$ go everywhere, and look at the gap.

# %%
means = torch.linspace(-0.5, 1.75, 91, dtype=torch.float64)
stds = torch.logspace(-1.2, 0.2, 81, dtype=torch.float64)
mean, std = torch.meshgrid(means, stds, indexing="xy")  # [81, 91]
q = Normal(mean.reshape(-1, 1), 2 * std.log().reshape(-1, 1))

gap = LG3.log_prob(x) - LG3.elbo(x, q)
torch.testing.assert_close(gap, kl(q, LG3.posterior(x)))  # exactly
gap = gap.reshape(mean.shape)

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the code of this figure", "code_prompt_hide": "Hide the code of this figure"}
fig, ax = figure(5, 3.9)
levels = (0.02, 0.1, 0.25, 0.5, 1, 2, 4)
lines = ax.contour(mean, std, gap, levels=levels, colors=PALETTE[0], linewidths=1.4)
ax.clabel(lines, fmt=lambda v: f"{v:g}", fontsize=9)
ax.plot(
    with_all.mean.item(), with_all.std.item(), "o", color=PALETTE[1],
    label="exact posterior: gap 0",
)
ax.axhline(with_all.std.item(), color="#808080", linewidth=1, linestyle=":")
ax.set(xlabel="mean of q", ylabel="standard deviation of q", yscale="log")
ticks = (0.1, 0.2, 0.5, 1)
ax.set_yticks(ticks, [f"{t:g}" for t in ticks])
ax.minorticks_off()
legend(fig, ax)
show(
    fig,
    alt=(
        "Contours of the gap over mean and standard deviation of q, on a logarithmic"
        " scale upwards. They close around a point at mean five eighths, where the gap"
        " is zero. Upwards, where q is too wide, the lines are crowded; downwards,"
        " where q is too narrow, they lie far apart."
    ),
    caption=(
        "The gap in nats between evidence and ELBO. It rises steeply where q is too"
        " wide and slowly where q is too narrow."
    ),
)

# %%
for factor, words in ((0.5, "half as wide"), (2.0, "twice as wide")):
    spoilt = Normal(with_all.mean, with_all.logvar + 2 * math.log(factor))
    lost = (LG3.log_prob(x) - LG3.elbo(x, spoilt)).item()
    print(f"q {words} as it should be: gap {lost:.3f} nats")

# %% [markdown]
# The landscape is lopsided.
# A $q$ that is twice too wide costs far more than one that is half as wide as it should be: the average is over $z\sim q$, and a wide $q$ visits places where $p(z\mid x)$ is almost zero.
# So a model that must err, errs towards *being too sure*.
# Remember this when an encoder's variances look impressive.
#
# The upright ellipse of the melon under the lamp is an example.
# It is the best of its kind, it is too small, and its gap has a closed form, {eq}`eq-mean-field-gap`.

# %%
missing = LG_PVAE.mean_field_gap((0, 1))
print(f"the best factorised q: {missing:.4f} nats below the evidence")

# %% [markdown]
# ## Every objective against the truth
#
# The models of this book train on different objectives.
# All are made of ELBOs and divergences, and their values are often compared.
# May one do that?
# We take the library's own models, and give them the decoders of LG3 and its *exact* posteriors as encoders.
# What an objective then loses, it does not lose by learning badly.
# It loses it by what it is.
#
# For the full set of senses, in short, with $q$ the encoder of all and $q_m$ that of one.
# $\mathrm{ELBO}(q)$ is a bound for all of $x$, and $\mathrm{ELBO}_m(q_m)$ one for $x_m$ alone:
#
# | objective | what is maximised | what it aims at |
# |---|---|---|
# | **joint ELBO** | $\mathrm{ELBO}(q)$ | $\log p(x)$ |
# | **JMVAE** | $\mathrm{ELBO}(q)-\sum_m\mathrm{KL}(q\,\Vert\,q_m)$ | $\log p(x)$ |
# | **TELBO**, **MVAE** | $\mathrm{ELBO}(q)+\sum_m\mathrm{ELBO}_m(q_m)$ | $\log p(x)+\sum_m\log p(x_m)$ |
# | **M²VAE** | a weighted sum over *all* sets of senses | $\log p(x)$ |
# | **MMVAE** | the average of $\mathrm{ELBO}(q_m)$, or a bound with the mixture $\frac1M\sum_mq_m$ as $q$ | $\log p(x)$ |
#
# TELBO and MVAE differ in where their encoders come from and in what each term trains, and not in value here.
# MVAE may add random pairs; we leave them out.
# An **importance-weighted** bound averages $K$ draws inside the logarithm, which makes it tighter; *loose* and *tight* say whether the average over the $M$ experts stands outside or inside.
# The chapters to come take these apart one by one.
# Here we only look at the score.

# %%
truth = LG3.log_prob(x).item()
single = sum(LG3.log_prob({m: x[m]}).item() for m in range(3))
mixture = {"bound": "loose", "samples": 1}
OBJECTIVES = {  # name: (model, its options, what it aims at)
    "joint ELBO": ("jmvae", {"variant": "joint"}, truth),
    "JMVAE": ("jmvae", {}, truth),
    "TELBO": ("telbo", {}, truth + single),
    "MVAE": ("mvae", {"random_subsets": 0}, truth + single),
    "M²VAE": ("m2vae", {}, truth),
    "M²VAE, no joint prior KL": ("m2vae", {"beta_joint": 0.0}, truth),
    "mixture, average of ELBOs": (
        "mmvae", {"bound": "naive", "samples": 1}, truth,
    ),
    "mixture, ELBO": ("mmvae", mixture, truth),
    "mixture, loose, K = 10": (
        "mmvae", {"bound": "loose", "samples": 10}, truth,
    ),
    "mixture, tight, K = 10": (
        "mmvae", {"bound": "tight", "samples": 10}, truth,
    ),
}  # fmt: skip


@torch.no_grad()
def excess(name, widen=1.0, items=20_000, repeats=1):
    """Objective minus what it aims at, [repeats], each a mean of items."""
    kind, options, aim = OBJECTIVES[name]
    model = exact_model(kind, LG3, NAMES, widen, **options)
    batch = {NAMES[m]: x[m].expand(items)[:, None] for m in x}
    losses = []
    for i in range(repeats):
        g = torch.Generator().manual_seed(seed + i)
        losses.append(model.loss(batch, generator=g)["loss"])
    return -torch.stack(losses) - aim

# %%
repeats = {"smoke": 3}.get(profile, 20)
runs = {name: excess(name, repeats=repeats) for name in OBJECTIVES}

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the code of this table", "code_prompt_hide": "Hide the code of this table"}
found = {
    name: (v.mean().item(), v.std().item() / repeats**0.5) for name, v in runs.items()
}
table(
    "The library's objectives with exact encoders, in nats",
    ["objective", "value", "aims at", "gap", "error"],
    [
        [name, value + OBJECTIVES[name][2], OBJECTIVES[name][2], -value, error]
        for name, (value, error) in found.items()
    ],
)

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the code of this figure", "code_prompt_hide": "Hide the code of this figure"}
fig, ax = figure(5, 3.9)
for row, (below, error) in enumerate(found.values()):
    ax.plot([below, 0], [-row, -row], color=PALETTE[0], linestyle="-", linewidth=1.2)
    ax.errorbar(
        below, -row, xerr=2 * error, color=PALETTE[1], marker="o", markersize=6,
        linestyle="none",
    )
ax.axvline(0, **(TRUE | {"linewidth": 5}))
ax.set(
    yticks=[-row for row in range(len(found))], yticklabels=list(found),
    xlabel="objective minus what it aims at, nats",
)
show(
    fig,
    alt=(
        "One row for each objective, a dot at its distance below the truth. Joint ELBO,"
        " TELBO, MVAE and M2VAE without the prior divergence stand on the truth. The"
        " mixture with ten draws is just below. JMVAE is furthest below, then M2VAE and"
        " the two mixtures without importance weights."
    ),
    caption=(
        "With exact encoders. The thick line is the truth of each; the table's last"
        " column is one standard error."
    ),
)

# %% [markdown]
# Read the column of values first.
# TELBO and MVAE are far lower than all others, and yet they lose nothing: they are *sums* of several bounds.
# A value without what it aims at means nothing.
#
# Then the gaps, though no encoder is wrong.
# **JMVAE** pays the divergences between what all senses say and what each one says; a single sense cannot know as much as three, so this never vanishes.
# **M²VAE** pays a divergence to the prior for every set of two or more, which its derivation does not need; without it there is no gap.
# A **mixture** of exact beliefs is not the exact belief: the average of three reports is broader than what the three together imply.
# Importance weights win most of this back.
#
# ### And when the encoders are wrong?
#
# Now we multiply the variance of *every* encoder by one factor $\kappa$.
# For MVAE these are the experts that enter its product; for all others they are posteriors.
# Below one they are overconfident, above one too modest.

# %%
kappas = [2.0**e for e in torch.linspace(-3, 2, 21).tolist()]
shown = [
    "joint ELBO", "JMVAE", "MVAE", "M²VAE",
    "M²VAE, no joint prior KL", "mixture, loose, K = 10",
]  # fmt: skip
items = {"smoke": 2000}.get(profile, 20_000)
curves = {
    name: [excess(name, kappa, items).item() for kappa in kappas]
    for name in shown
}

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the code of this figure", "code_prompt_hide": "Hide the code of this figure"}
fig, ax = figure(5, 4.6)
ax.axhline(0, **(TRUE | {"linewidth": 5}))
for (name, values), marker in zip(curves.items(), "osD^vP"):
    ax.plot(
        kappas, values, label=name, marker=marker, markersize=4, markevery=4,
        linewidth=1.6,
    )
ax.axvline(1, color="#808080", linewidth=1, linestyle=":")
ax.set(
    xlabel="factor κ on the variance of every encoder",
    ylabel="objective minus what it aims at, nats", xscale="log", ylim=(-2.2, 0.25),
)
ax.set_xticks([0.125, 0.25, 0.5, 1, 2, 4], ["1/8", "1/4", "1/2", "1", "2", "4"])
ax.minorticks_off()
legend(fig, ax)
show(
    fig,
    alt=(
        "Six curves against the factor on the encoders' variance. Most lie below the"
        " thick line of the truth everywhere and are highest near a factor of one. The"
        " importance-weighted mixture stays close to it throughout. One curve, M2VAE"
        " without the joint divergence to the prior, rises above the truth for factors"
        " between about one half and one."
    ),
    caption=(
        "For our melon. Below the thick line is below the truth. One curve crosses it."
    ),
)

# %%
over = "M²VAE, no joint prior KL"
worst = max(range(len(kappas)), key=lambda i: curves[over][i])
above = excess(over, kappas[worst], repeats=repeats)
print(f"at kappa = {kappas[worst]:.2f}, minus the truth, in nats:")
print(f"{above.mean():+.4f} +- {above.std() / repeats**0.5:.4f}")

# %% [markdown]
# The objective that was exact with exact encoders goes *above* the truth of our melon when they are a little too sure.
# It uses the encoder of some senses in a place where its derivation needs the true posterior, and then nothing holds this one item down.
# It is an *approximation*, and a good one; for a single item it is not a bound.
# On average over melons of this very world it is one, whatever the encoders are.
# But training data are seldom drawn from one's own decoders, and then a training run may be rewarded for this error.
#
# What about the divergence to the prior, which looked like a waste?
# It lowers the objective of every item, and for our melon it lowers it enough.
# Yet it does not make a bound for each item: where the senses contradict each other, even the objective with it can lie above the truth.
# The chapter on [all subsets](all_subsets.ipynb) proves the statement about the average and shows such items.
#
# Three lessons for the rest of the book.
#
# 1. Ask of every objective what it aims at before you compare its value with another.
# 2. Ask how low it lies when nothing is wrong. That part is not the encoders' fault.
# 3. Ask whether it is a bound at all once the encoders are learnt: for every item, on average, or not even that.

# %% [markdown]
# ## Try it
#
# The three bumps are what each sense says on its own about our melon, and the product combines them with the prior.
# The dashed line is the exact posterior for the senses that are switched on.

# %%
from mmvae_lite.explore import BoundExplorer, ExpertPlayground

witnesses = LG3.experts(x)  # what each sense says, without the prior
truths = {s: LG3.posterior({m: x[m] for m in s}) for s in subsets}
ExpertPlayground(
    means=[q.mean.item() for q in witnesses],
    precisions=[q.precision.item() for q in witnesses],
    form="prior",
    labels=list(NAMES),
    truth={s: (float(q.mean), float(q.precision)) for s, q in truths.items()},
)

# %% [markdown]
# 1. Switch the smell off, and on again. How much broader does the belief become? Do the same with the colour.
# 2. Switch everything off. What is left, and why?
# 3. Move the mean of one sense to the far side, so that it contradicts the others. Does the belief become broader? Look at {eq}`eq-world-posterior` to see why.
# 4. The other buttons combine the same three reports differently. They leave the dashed line. The [chapter on experts](gaussian_experts.ipynb) says why.
#
# Now take the approximation into your own hands.
# Below you move $q=\mathcal N(\mu,v)$ for our melon: its mean along the axis, its width with the second slider.
# Beside the ELBO there is an importance-weighted bound, which draws $K$ values $z_k\sim q$ and takes $\mathbb E\log\frac1K\sum_kp(x,z_k)/q(z_k)$; for $K=1$ it is the ELBO.
# The [next chapter](bounds.ipynb) is about it.

# %%
widths = [0.1, 0.15, 0.2, 0.25, 0.354, 0.5, 0.7, 1.0]
centres = torch.arange(-8, 49).double() / 32
draws = {"smoke": 100}.get(profile, 4000)
g = torch.Generator().manual_seed(seed)
noise = torch.randn(draws, 10, 1, 1, generator=g, dtype=torch.float64)


def bounds_of(width):
    """ELBO and the bound of K = 10 draws at every centre, [57] each."""
    logvar = torch.full((57, 1), 2 * math.log(width)).double()
    q = Normal(centres[:, None], logvar)
    z = q.mean + width * noise  # [draws, 10, 57, 1]
    log_w = Normal.standard(1, 1).log_prob(z) - q.log_prob(z)
    for m, expert in enumerate(LG3.experts(x)):  # p(x_m | z), up to |w_m|
        log_w = log_w + expert.log_prob(z) - math.log(abs(LG3.weights[m]))
    importance = (log_w.logsumexp(1) - math.log(10)).mean(0)
    return LG3.elbo(x, q), importance


elbos, importance = zip(*(bounds_of(width) for width in widths))
explorer = BoundExplorer(
    centres,
    {"ELBO": torch.stack(elbos), "K = 10": torch.stack(importance)},
    truth=LG3.log_prob(x).item(),
    settings=widths,
    axis="mean of q",
    setting="standard deviation of q",
    at=16,
    alt="Two bounds of the log evidence of our melon against the mean of q.",
)
explorer.frame = 3  # the fourth width
explorer

# %% [markdown]
# 1. Find the $q$ with the smallest gap. Is it where {eq}`eq-world-posterior` says?
# 2. Set the width to its largest and then to its smallest value. Which hurts the ELBO more at the best mean, and which hurts it more far away?
# 3. Where is the second bound far better than the first, and where do the two hardly differ?

# %% [markdown]
# ## Our numbers and the paper's
#
# {cite:t}`shi2019` put a number on each criterion as well, with handwritten digits (MNIST) and house numbers (SVHN) for senses.
# Here they are for their model MMVAE, which uses a mixture, and for MVAE, which uses a product.
#
# :::{list-table}
# :header-rows: 1
#
# * - criterion
#   - how they measure it
#   - MMVAE
#   - MVAE
# * - factorisation
#   - a linear classifier finds the digit in the latent of a house number
#   - {paper}`mmvae:table-1:svhn/mmvae`
#   - {paper}`mmvae:table-1:svhn/mvae-single`
# * - joint generation
#   - digits of a generated pair agree
#   - {paper}`mmvae:table-2:joint/mmvae`
#   - {paper}`mmvae:table-2:joint/mvae`
# * - cross generation
#   - the house number shows the digit that was given
#   - {paper}`mmvae:table-2:mnist-svhn/mmvae`
#   - {paper}`mmvae:table-2:mnist-svhn/mvae`
# * - synergy
#   - the classifier for a model that saw both, against a VAE of house numbers alone: {paper}`mmvae:table-1:svhn/single-vae`
#   - {paper}`mmvae:table-1:svhn/mmvae`
#   - {paper}`mmvae:table-1:svhn/mvae-single`
# :::
#
# **Not comparable** with anything on this page: theirs is a share of agreeing digits, ours is an exact loss of nats.
# But the shape is the same: a criterion, a measure, and a rival that fails it.
# (The chapter on measuring shows how each of their numbers can be cheated, too; {cite:t}`daunhawer2021` find that the row of MVAE is too pessimistic.)

# %%
blind = (LG_PVAE.log_prob(y) - no_privates.log_prob(y)).item()
guess = max(score[(0,)]) - min(score[(0,)])
price = {
    "latent factorisation": ["call the private latents noise", blind],
    "joint generation": ["draw z anew for each sense", incoherent],
    "cross generation": ["decode the mean", by_mean],
    "synergy": ["learn from colour alone, guess its share", guess],
}

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the code of this table", "code_prompt_hide": "Hide the code of this table"}
title = "What the evidence loses to each cheat, nats per melon"
table(
    title, ["criterion", "cheat", "lost"], [[name, *row] for name, row in price.items()]
)

# %% [markdown]
# Two of the four prices are zero.
# A likelihood can reward coherent generation, joint and across.
# It cannot see a wrong factorisation, nor what was never learnt from one sense, and there one needs other tools.

# %% [markdown]
# ## Pitfalls, some of them in print
#
# **Sums beside single bounds.**
# The value of MVAE or TELBO is a sum of bounds on different evidences.
# It must not stand in one column with an ELBO.
# Compare $\log p(x)$, estimated for all models alike.
#
# **A marginal that is called a conditional.**
# {cite:t}`shi2019` give, in their table 3, likelihoods with the headings $\log p(x_m\mid x_m,x_n)$, $\log p(x_m\mid x_m)$ and $\log p(x_m\mid x_n)$.
# What their program estimates is $\log p(x_m)$, each time with draws from another encoder.
# With enough draws all three agree; before that, their differences say how good a *proposal* the encoder is, and nothing about conditioning.
# In LG3 we can tell the two apart.
# (The smell's belief is too narrow to be a good proposal for the colour, so that its estimate is slow to settle.)

# %%
model = exact_model("mmvae", LG3, NAMES)
batch = {name: x[m][:, None] for m, name in enumerate(NAMES)}
K = {"smoke": 10_000}.get(profile, 200_000)


def estimate(*proposal):
    """log p(colour) by importance sampling, as for their table 3."""
    given, g = {m: batch[m] for m in proposal}, torch.Generator()
    return model.log_likelihood(
        given, target={"colour": batch["colour"]},
        samples=K, chunk=10_000, generator=g.manual_seed(seed),
    ).item()  # fmt: skip


three = [estimate("colour"), estimate("smell"), estimate("colour", "smell")]
marginal = LG3.log_prob({0: x[0]}).item()
conditional = LG3.predict({1: x[1]}, 0).log_prob(x[0][:, None]).item()

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the code of this table", "code_prompt_hide": "Hide the code of this table"}
table(
    f"Marginal or conditional? {K} draws from each expert, nats", ["quantity", "value"],
    [
        ["estimate for colour, draws from colour", three[0]],
        ["estimate for colour, draws from smell", three[1]],
        ["estimate for colour, draws from colour and smell", three[2]],
        ["log p(colour)", marginal],
        ["log p(colour | smell), what the heading promises", conditional],
    ],
)

# %% [markdown]
# **A density is not a probability.**
# Measure firmness in other units and $\log p(x)$ shifts by a constant; it may become positive.
# Gaps, divergences and mutual information do not move.
# Never compare log-densities of data that were scaled differently (see the exercises).
#
# **A zero is a reading.**
# Filling in zeros for a missing modality is evidence for an average one.
# A model can be *trained* to read zeros as "missing"; the chapter on joint encoders does so.
#
# **"Synergy" means two things.**
# The definition of {cite:t}`shi2019` speaks of learning first ("improved through representations learnt across") and of inference next ("observing both").
# They are different measurements, as this page shows, and papers tend to report one of them.
#
# **A tick is an opinion.**
# The table in their figure 2 ticks which earlier models meet which criterion.
# It is the authors' reading of the literature, without a measure behind it.
#
# **Private is not unaffected.**
# That the smell tells nothing about the lamp does not mean that the belief about the lamp ignores the smell once the colour is there.
# Encoders that read private latents from their own modality alone, as in DMVAE-D and DMVAE-L, give up this part knowingly.

# %% [markdown]
# ## When to use it, when not
#
# | use a world that you can solve when | think twice when |
# |---|---|
# | you have written a new bound or estimator: plug in exact encoders and see what it loses | you want to know whether a network will *learn* the encoders |
# | two objectives are compared and you must know what each aims at | the question is about images that look right |
# | a claim says "always" or "never": one exact counterexample suffices | a trend in LG3 is taken for a law; it is one-dimensional and Gaussian |
#
# In the library any world will do: `LinearGaussian` takes your weights and noises, and `exact_model` puts it inside five of the models.

# %% [markdown]
# ## Exercises
#
# Each exercise has a stub to fill in, a check and a hidden solution.
# Ask the check as often as you like; it says what is not right yet.

# %% [markdown]
# ```{exercise} Which criterion?
# :label: ex-world-criteria
#
# Each line reports something about some model of photographs and captions.
# To which criterion does it belong?
# Return a dict from the letters to `"factorisation"`, `"joint"`, `"cross"` or `"synergy"`.
#
# - `a`: Photographs and captions drawn from the prior are shown to people, who say whether they match.
# - `b`: Given a photograph, the model writes captions, and people say whether they fit.
# - `c`: One group of latents can be exchanged between two photographs, and what the caption says stays the same.
# - `d`: A photograph model is trained once with captions and once without; the former gives unseen photographs more evidence.
# - `e`: Given the caption "a red bird", the model paints birds, and their colour is measured.
# - `f`: From the latents of style alone, no classifier can guess what is on the photograph.
# ```
#
# ```{admonition} Hint
# :class: dropdown tip
# Ask what is given, and what is compared with what.
# Nothing given: joint. One modality given, another one judged: cross.
# ```

# %% tags=["exercise"]
def criteria():
    # {"a": ..., "b": ..., "c": ..., "d": ..., "e": ..., "f": ...}
    raise NotImplementedError

# %%
check("world-criteria", criteria)

# %% tags=["solution", "hide-cell"] mystnb={"code_prompt_show": "Show the solution", "code_prompt_hide": "Hide the solution"}
def criteria():
    return {
        "a": "joint",
        "b": "cross",
        "c": "factorisation",
        "d": "synergy",
        "e": "cross",
        "f": "factorisation",
    }


check("world-criteria", criteria).require()

# %% [markdown]
# ```{exercise} Any set of senses
# :label: ex-world-posterior
#
# Write the posterior {eq}`eq-world-posterior` for any linear-Gaussian world.
# `weights`, `variances` and `x` are lists of the same length, and a missing reading is `None` in `x`.
# Return mean and variance.
# ```
#
# ```{admonition} Hint
# :class: dropdown tip
# Two sums over the senses that are there. What do you start them with?
# ```

# %% tags=["exercise"]
def posterior(weights, variances, x):
    # (mean, variance)
    raise NotImplementedError

# %%
check("world-posterior", posterior)

# %% tags=["solution", "hide-cell"] mystnb={"code_prompt_show": "Show the solution", "code_prompt_hide": "Hide the solution"}
def posterior(weights, variances, x):
    T, eta = 1.0, 0.0  # the prior
    for w, s2, value in zip(weights, variances, x):
        if value is not None:
            T, eta = T + w**2 / s2, eta + w * value / s2
    return eta / T, 1 / T


# With nothing observed this is the prior, without a special case.
check("world-posterior", posterior).require()

# %% [markdown]
# ```{exercise} The price of a wrong belief
# :label: ex-world-gap
#
# The posterior of our melon from all three senses is $\mathcal N(\tfrac58,\tfrac18)$.
# With pen and paper, find the gap between evidence and ELBO for $q=\mathcal N(\mu,v)$, and return it.
# Then ask yourself: by what factor may $v$ be wrong, upwards or downwards, before the gap exceeds a tenth?
# ```
#
# ```{admonition} Hint
# :class: dropdown tip
# By {eq}`eq-gap` you need only one divergence, between two Gaussians.
# Write both logarithms, and average the squares under $q$.
# ```

# %% tags=["exercise"]
def gap_of(mean, var):
    raise NotImplementedError

# %%
check("world-gap", gap_of)

# %% tags=["solution", "hide-cell"] mystnb={"code_prompt_show": "Show the solution", "code_prompt_hide": "Hide the solution"}
def gap_of(mean, var):
    ratio = var / (1 / 8)
    return 0.5 * (ratio - 1 - math.log(ratio) + 8 * (mean - 5 / 8) ** 2)


# Upwards the ratio counts in full, downwards only its logarithm does.
for ratio in (0.49, 0.5, 1.75, 1.8):
    print(f"variance times {ratio}: gap {gap_of(5 / 8, ratio / 8):.3f}")
check("world-gap", gap_of).require()

# %% [markdown]
# ```{exercise} Signal or noise?
# :label: ex-world-signal
#
# Somebody hands you the covariance matrix of three senses, a tensor of shape `[3, 3]`, and nothing else.
# The world is linear and Gaussian with one latent, but you know neither weights nor noise.
# Return the three *signal variances* $w_1^2,w_2^2,w_3^2$ as a tensor.
# Why does the same not work with two senses?
# ```
#
# ```{admonition} Hint
# :class: dropdown tip
# By {eq}`eq-world-evidence` the noise sits on the diagonal only.
# Off it stand $w_1w_2$, $w_1w_3$ and $w_2w_3$. Multiply two of them and divide by the third.
# ```

# %% tags=["exercise"]
def signal_variances(covariance):
    raise NotImplementedError

# %%
check("world-signal", signal_variances)

# %% tags=["solution", "hide-cell"] mystnb={"code_prompt_show": "Show the solution", "code_prompt_hide": "Hide the solution"}
def signal_variances(covariance):
    c12, c13, c23 = covariance[0, 1], covariance[0, 2], covariance[1, 2]
    return torch.stack([c12 * c13 / c23, c12 * c23 / c13, c13 * c23 / c12])


# Two senses give one number off the diagonal, and there are two weights.
g = torch.Generator().manual_seed(1)
readings = torch.stack(list(LG3.sample(100_000, g).values()))
estimates = signal_variances(readings.cov()).tolist()
print("from many melons:", [f"{v:.2f}" for v in estimates])
check("world-signal", signal_variances).require()

# %% [markdown]
# ```{exercise} Other units
# :label: ex-world-units
#
# Somebody measures the firmness of melons in units that are $a$ times smaller, so that three numbers of this sense are $a$ times larger: weight, standard deviation of the noise, and reading.
# Return by how much each of these changes: the log evidence $\log p(x)$, the information $I(z;x)$, and the gap of a fixed $q(z)$.
# ```
#
# ```{admonition} Hint
# :class: dropdown tip
# How does the density of a length change when it is given in millimetres and no longer in metres?
# And which of the three depend on the readings only through $w_m/s_m$ and $x_m/s_m$?
# ```

# %% tags=["exercise"]
def changes(a):
    # (change of log p(x), change of I(z; x), change of the gap)
    raise NotImplementedError

# %%
check("world-units", changes)

# %% tags=["solution", "hide-cell"] mystnb={"code_prompt_show": "Show the solution", "code_prompt_hide": "Hide the solution"}
def changes(a):
    return -math.log(a), 0.0, 0.0


# The density is per unit; beliefs about z do not know the unit.
check("world-units", changes).require()

# %% [markdown]
# ```{exercise} What the nose knows about the lamp
# :label: ex-world-lamp
#
# Take a world like {eq}`eq-lamp` with two senses: $x_m\mid z\sim\mathcal N(a_mz^s+b_mz^m,\,s_m^2)$.
# Return what the second sense *adds* about the private latent of the first, once the first is known: $I(z^1;x_1,x_2)-I(z^1;x_1)$.
# `shared` holds $a$, `private` holds $b$ and `variances` holds $s^2$, two numbers each.
# When is the answer zero?
# ```
#
# ```{admonition} Hint
# :class: dropdown tip
# The precision matrix of all three latents is $I+\sum_mh_mh_m^\top/s_m^2$, where $h_m$ holds the weights of sense $m$.
# Invert it, and use {eq}`eq-latent-information`. Do it with one sense and with two.
# ```

# %% tags=["exercise"]
def lamp_from_smell(shared, private, variances):
    raise NotImplementedError

# %%
check("world-lamp", lamp_from_smell)

# %% tags=["solution", "hide-cell"] mystnb={"code_prompt_show": "Show the solution", "code_prompt_hide": "Hide the solution"}
def lamp_from_smell(shared, private, variances):
    (a1, a2), (b1, b2) = shared, private
    h = torch.tensor([[a1, b1, 0.0], [a2, 0.0, b2]], dtype=torch.float64)
    precision = torch.eye(3, dtype=torch.float64)
    told = []
    for m in range(2):
        precision = precision + torch.outer(h[m], h[m]) / variances[m]
        told.append(-0.5 * torch.linalg.inv(precision)[1, 1].log())
    return told[1] - told[0]


# It is zero when either sense does not depend on what they share, or when
# the first has no private latent: then there is nothing to explain away.
check("world-lamp", lamp_from_smell).require()

# %% [markdown]
# ## Further reading
#
# {cite:t}`shi2019` state the four criteria in their introduction; their figure 2 draws them.
# {cite:t}`ernst2002` show that people combine sight and touch almost as {eq}`eq-world-posterior` says.
# {cite:t}`bishop2006` derives linear-Gaussian models in section 2.3.3 and factor analysis, which is what LG3 is, in section 12.2.4.
# {cite:t}`spearman1904` is where one hidden cause of several measurements begins.
# {cite:t}`watanabe1960` introduces the total correlation.
# The ELBO of a deep model is due to {cite:t}`kingma2014` and {cite:t}`rezende2014`.
# For the objectives on this page see {cite:t}`suzuki2016`, {cite:t}`vedantam2018`, {cite:t}`wu2018`, {cite:t}`korthals2019` and {cite:t}`burda2016`; each has its chapter.
