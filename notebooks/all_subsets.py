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
# # All subsets: M²VAE
#
# ```{admonition} Before you start
# :class: note
# You need the chapter on [joint encoders](joint_encoders.ipynb), the world of the [first chapter](solvable_world.ipynb), and a little counting.
# Four small models of two numbers each are trained on this page.
# The profile `lite` is made for one CPU core.
# With pen and paper, take an afternoon for the derivations.
# ```

# %% tags=["parameters", "hide-input"] mystnb={"code_prompt_show": "Show the settings", "code_prompt_hide": "Hide the settings"}
profile = "lite"
seed = 0
device = "cpu"

# %% tags=["setup", "hide-input"] mystnb={"code_prompt_show": "Show the imports", "code_prompt_hide": "Hide the imports"}
import itertools
import math
import time
from fractions import Fraction

import torch

from mmvae_lite.data import LG3, LG3_OBSERVATION, LinearGaussian
from mmvae_lite.distributions import Normal, NormalLikelihood, kl
from mmvae_lite.exercises import check
from mmvae_lite.models import JMVAE, M2VAE, TELBO
from mmvae_lite.models.linear import exact_model
from mmvae_lite.models.m2vae import omega, subsets
from mmvae_lite.networks import m2vae_networks

# %% [markdown]
# ## The question
#
# A robot has two poor sensors and a world of ten things.
# One sensor, $w$, puts the things on a circle, two of them in the same place.
# The other, $x$, puts them in a square, where three of them share one place and two share another.
# Neither sensor can tell all ten apart; together they can.
# This didactic set is by {cite:t}`korthals2019`.
#
# Suppose that only $x$ reports, from the place that three things share.
# What will $w$ say?
# One of three places on the circle, and nothing in between.
# We train a joint encoder on both sensors, hide one now and then behind zeros as in the chapter on [joint encoders](joint_encoders.ipynb), and ask it.

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the data and the networks", "code_prompt_hide": "Hide the data and the networks"}
from mmvae_lite.data import mog
from mmvae_lite.training import fit

sizes = {
    "smoke": dict(items=500, steps=30, draws=50),
    "lite": dict(items=20_000, steps=2000, draws=1000),
    "paper": dict(items=59_400, steps=50_000, draws=1000),
}[profile]
SHAPES, NOISE = {"w": (2,), "x": (2,)}, 0.05  # the decoders' standard deviation
data = mog(seed=seed)
train, test = data.train.first(sizes["items"]), data.test
batch, classes = test.take(slice(None)), test.classes
epochs = max(1, round(sizes["steps"] * 128 / len(train)))
print(f"{len(train)} pairs to train on, {len(test)} to test on")


def untrained(kind, **options):
    """A model of this page, with the networks of Korthals et al. (2019), table 1."""
    torch.manual_seed(seed)
    nets = m2vae_networks(SHAPES, hidden=(128,))
    encoders, parts = nets["encoders"], {
        "decoders": nets["decoders"],
        "likelihoods": {m: NormalLikelihood(NOISE) for m in SHAPES},
        "latent_dim": 2,
    }
    single = {m: encoders[m] for m in SHAPES}
    if kind == "JMVAE-Z":
        return JMVAE(encoders["w+x"], **parts, variant="zero", zero_prob=0.5)
    if kind == "tVAE":
        return TELBO(encoders["w+x"], single, **parts)
    return M2VAE(encoders, **parts, **options)


def trained(kind, **options):
    model = untrained(kind, **options)
    fit(model, train, epochs=epochs, batch_size=128, lr=2e-3, seed=seed, device=device)
    return model.cpu().eval()

# %%
models = {"JMVAE-Z": trained("JMVAE-Z")}

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the plotting helpers", "code_prompt_hide": "Hide the plotting helpers"}
from mmvae_lite.plotting import PALETTE, figure, legend, show, table

TRUE = {
    "color": "#808080",
    "linewidth": 8,
    "alpha": 0.45,
    "linestyle": "-",
    "solid_capstyle": "round",
}
FIRST, SECOND, THIRD, FOURTH = (
    {"color": PALETTE[i], "linestyle": dash}
    for i, dash in enumerate(("-", "--", "-.", ":"))
)
NAMES = ("colour", "smell", "firmness")


def dots(ax, points, **style):
    ax.plot(points[:, 0], points[:, 1], ".", markersize=3, **style)


SHARED = test.classes == 6  # 5, 6 and 7 share a place in x
PLACE = {"x": batch["x"][SHARED]}


@torch.no_grad()
def imagined(model, n=400):
    """Draws of w for readings of x from the shared place, [n, 2]."""
    g = torch.Generator().manual_seed(seed)
    rows = torch.randint(len(PLACE["x"]), (n,), generator=g)
    given = {"x": PLACE["x"][rows]}
    return model.translate(given, "w", sample=True, generator=g)


def show_imagined(names, alt, caption=None):
    fig, axes = figure(
        5, 2.5 * math.ceil(len(names) / 2), rows=math.ceil(len(names) / 2), columns=2,
        sharex=True, sharey=True,
    )
    for ax, name in zip(axes.flat, names):
        dots(ax, batch["w"], color="#808080", alpha=0.35)
        if name == "the three things":
            for c in (5, 6, 7):
                dots(ax, batch["w"][classes == c], color=PALETTE[c - 5])
        else:
            dots(ax, imagined(models[name]), color=PALETTE[1], alpha=0.6)
        ax.set(title=name, aspect="equal", xticks=[], yticks=[])
    show(fig, alt=alt, caption=caption)

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the code of this figure", "code_prompt_hide": "Hide the code of this figure"}
show_imagined(
    ["the three things", "JMVAE-Z"],
    alt=(
        "Two panels with clouds of grey points on a circle. On the left three"
        " neighbouring clouds are coloured: the things that x cannot tell apart. On the"
        " right are the readings of w that the model imagines; they are crowded in a"
        " part of the place where the three are."
    ),
    caption=(
        "Left: where w may be, given x from the place that three things share. Right:"
        " where a model trained with zeros imagines it."
    ),
)
# %% [markdown]
# The model is sure where nobody could be.
# The chapter on joint encoders says why: a belief that was trained with zeros is as sharp as if nothing were missing.
# The other recipes of that chapter had an encoder for each single sense beside the joint one.
# With two senses that is every set there is.
# With three, pairs are missing.
#
# So give each set its own encoder, and train all of them.
# But on what?
# Each set $S$ has an ELBO of its own.
# Adding them up, as [MVAE](mvae.ipynb) does, gives a sum that aims at no evidence in particular, in which a set counts as much as any other.
# Is there a choice of weights for which the whole is again about $\log p(x)$, one number for one model?
# **M²VAE** answers: yes, exactly one that treats all senses alike.
# The weights are those by which game theory has been dividing profits since the fifties.
#
# **After this chapter you can**
#
# - write $\log p(x)$ as an average over the orders in which senses arrive, for two and three senses by hand;
# - prove the weights of all subsets, and program them in ten lines;
# - say which step of the derivation gives a bound, which one loosens it, and which one breaks it;
# - exhibit a case in which the objective exceeds the evidence, and prove that it cannot on average over the model's own data;
# - correct the printed derivation where it slips, and show by a number that it does;
# - compare the objective with JMVAE-Z and TELBO, in a world that can be solved and on the robot's sensors.

# %% [markdown]
# ## The chain rule, in every order
#
# ### Two senses by hand
#
# The chain rule of probability gives the joint evidence in two ways,
#
# $$
# \begin{aligned}
# \log p(x_1,x_2)&=\log p(x_1)+\log p(x_2\mid x_1)\\
# &=\log p(x_2)+\log p(x_1\mid x_2).
# \end{aligned}
# $$ (eq-two-ways)
#
# Neither is better than the other, so take the mean of both:
#
# $$
# \begin{aligned}
# &\log p(x_1,x_2)\\
# &\;=\tfrac12\big[\log p(x_1)+\log p(x_2)\big]\\
# &\;+\tfrac12\big[\log p(x_1\mid x_2)+\log p(x_2\mid x_1)\big].
# \end{aligned}
# $$ (eq-two-average)
#
# This is an identity; nothing has been lost.
# The first bracket asks for the two single evidences, and single encoders bound them.
# The second is, on average and with the other sign, the variation of information, {eq}`eq-vi`; the joint encoder bounds it, {eq}`eq-vi-bound`.
#
# ### Any set
#
# For a set $S$ there are $|S|$ ways to take out one sense.
# The mean of them is
#
# $$
# \begin{aligned}
# \log p(x_S)&=\frac1{|S|}\sum_{m\in S}\log p(x_{S\setminus m})\\
# &\;+\frac1{|S|}\sum_{m\in S}\log p(x_m\mid x_{S\setminus m}),
# \end{aligned}
# $$ (eq-chain-average)
#
# where $S\setminus m$ is $S$ without $m$, and the evidence of nothing is one.
# The rests $S\setminus m$ are smaller sets, and the formula applies to them again.
#
# ### Three senses by hand
#
# Write $v_S=\log p(x_S)$ and $c_S=\sum_{m\in S}\log p(x_m\mid x_{S\setminus m})$, so that {eq}`eq-chain-average` reads $v_S=\frac1{|S|}\big(c_S+\sum_mv_{S\setminus m}\big)$.
# For a single sense $v_m=c_m$.
# Then
#
# $$
# \begin{aligned}
# v_{123}&=\tfrac13c_{123}+\tfrac13\big(v_{12}+v_{13}+v_{23}\big),\\
# v_{12}&=\tfrac12c_{12}+\tfrac12\big(v_1+v_2\big),\ \dots
# \end{aligned}
# $$ (eq-three-steps)
#
# Put the second line, and its two sisters, into the first.
# Each pair gets $\frac13\cdot\frac12=\frac16$.
# Each single sense is in two pairs, and gets $2\cdot\frac13\cdot\frac12=\frac13$:
#
# $$
# \begin{aligned}
# v_{123}&=\tfrac13c_{123}\\
# &\;+\tfrac16\big(c_{12}+c_{13}+c_{23}\big)\\
# &\;+\tfrac13\big(c_1+c_2+c_3\big).
# \end{aligned}
# $$ (eq-three-weights)
#
# Pairs count *less* than the triple, and less than single senses.
# That looks odd, until one sees how they are reached.
#
# ### Any number of senses
#
# Take senses away from the full set, one at a time, until $S$ is left.
# Each order of removal is a path down the **lattice of subsets**.
# A step from a set of size $k$ carries the factor $\frac1k$, and at its end $c_S$ carries $\frac1{|S|}$.
# With $s=|S|$, the $M-s$ senses outside $S$ can be removed in $(M-s)!$ orders, and every one of them has the same product of factors:
#
# $$
# \begin{aligned}
# \omega(S)&=(M-s)!\;\frac1s\prod_{k=s+1}^M\frac1k\\
# &=\frac{(M-s)!\,(s-1)!}{M!}\\
# &=\frac1{s\binom Ms}.
# \end{aligned}
# $$ (eq-omega)
#
# For $M=2$ it is $\frac12,\frac12$; for $M=3$, by size, $\frac13,\frac16,\frac13$.
#
# No other weights that depend on the size alone would do.
# Write $c_S=\sum_m(v_S-v_{S\setminus m})$ and collect, in $\sum_S\omega(S)\,c_S$, what belongs to one $v_S$.
# It stands $s$ times in its own $c_S$, and is taken off once for each of the $M-s$ sets above it.
# For $\log p(x)$ alone to remain it must cancel below the top:
#
# $$
# \begin{gathered}
# s\,\omega_s=(M-s)\,\omega_{s+1},\\
# M\,\omega_M=1 .
# \end{gathered}
# $$ (eq-omega-ladder)
#
# From the top down this ladder gives {eq}`eq-omega` and nothing else.
# There are many sets of middling size, and they share.
# All sets of one size together get $\binom Ms\,\omega=\frac1s$.
#
# Here are the recursion and the formula, as exact fractions.

# %%
def unroll(S):
    """The weight of every c in v_S, by the recursion."""
    weights = {S: Fraction(1, len(S))}
    for m in S if len(S) > 1 else ():
        rest = tuple(k for k in S if k != m)
        for T, share in unroll(rest).items():
            weights[T] = weights.get(T, 0) + share / len(S)
    return weights


for M in range(1, 7):
    found = unroll(tuple(range(M)))
    assert len(found) == 2**M - 1
    assert all(share == omega(len(S), M) for S, share in found.items())
    print(f"M = {M}:", *(omega(s, M) for s in range(1, M + 1)))

# %% [markdown]
# ### Two sums that must come out
#
# Fix a sense $m$.
# It is in $\binom{M-1}{s-1}$ sets of size $s$, and $\binom{M-1}{s-1}\big/\big(s\binom Ms\big)=\frac1M$, for every $s$.
# Add up over sizes, and over all sets:
#
# $$
# \begin{aligned}
# \sum_{S\ni m}\omega(S)&=1,\\
# \sum_S\omega(S)&=\sum_{s=1}^M\frac1s=H_M,\\
# \sum_{|S|\ge2}|S|\,\omega(S)&=M-1 .
# \end{aligned}
# $$ (eq-omega-sums)
#
# The first says that every sense is rebuilt with total weight one, as an evidence must.
# The others will tell how much divergence the objective carries.
# Here $H_M=1+\frac12+\dots+\frac1M$ is a harmonic number.

# %% [markdown]
# ## A division of profits
#
# Let senses arrive one by one.
# When $m$ arrives after the set $R$, the log-evidence grows by $\log p(x_m\mid x_R)$.
# {cite:t}`shapley1953` asked how to divide the profit of a coalition fairly and averaged each member's gain over all orders of arrival.
# Here the profit is $\log p(x)$, and the share of $m$ is
#
# $$
# \begin{aligned}
# \phi_m&=\frac1{M!}\sum_{\text{orders}}\log p(x_m\mid\text{those before})\\
# &=\sum_{S\ni m}\omega(S)\,\log p(x_m\mid x_{S\setminus m}),\\
# \sum_m\phi_m&=\log p(x).
# \end{aligned}
# $$ (eq-shapley)
#
# The second line counts: in how many of the $M!$ orders does $m$ find exactly $S\setminus m$?
# Those come before it in $(s-1)!$ orders, the others after it in $(M-s)!$.
# That is $\omega(S)$ again.
# And in each single order the gains add up to $\log p(x)$, so their averages do.
# Sum the second line over $m$, and {eq}`eq-chain-average`, unrolled, is proved once more.

# %%
x = LG3_OBSERVATION
SETS = [S for s in (1, 2, 3) for S in itertools.combinations(range(3), s)]
v = {(): 0.0}  # log-evidence of every set
for S in SETS:
    v[S] = LG3.log_prob({m: x[m] for m in S}).item()


def rest(S, m):
    return tuple(k for k in S if k != m)


gains = {}  # order of arrival -> what each sense adds
for order in itertools.permutations(range(3)):
    there = [v[tuple(sorted(order[:k]))] for k in range(4)]
    gains[order] = {m: there[k + 1] - there[k] for k, m in enumerate(order)}

by_orders = [sum(gain[m] for gain in gains.values()) / 6 for m in range(3)]
share = {S: float(omega(len(S), 3)) for S in v if S}
phi = [
    sum(share[S] * (v[S] - v[rest(S, m)]) for S in share if m in S)
    for m in range(3)
]
torch.testing.assert_close(torch.tensor(phi), torch.tensor(by_orders))
torch.testing.assert_close(sum(phi), v[0, 1, 2])

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the code of this figure", "code_prompt_hide": "Hide the code of this figure"}
fig, ax = figure(5, 3.8)
rows = [*gains.values(), dict(enumerate(phi))]
labels = [" → ".join(NAMES[m][0] for m in order) for order in gains] + ["mean of all"]
for row, (order, gain) in enumerate(zip([*gains, (0, 1, 2)], rows)):
    left = 0.0
    for m in order:
        ax.barh(
            -row - 0.35 * (row == 6), -gain[m], left=left, height=0.7, color=PALETTE[m],
            hatch=("", "//", "..")[m], edgecolor="white", linewidth=0.5,
            label=NAMES[m] if row == 0 else None,
        )
        left -= gain[m]
ax.set(
    yticks=[-row - 0.35 * (row == 6) for row in range(7)], yticklabels=labels,
    xlabel="minus log evidence, nats",
)
legend(fig, ax, columns=3)
show(
    fig,
    alt=(
        "Seven bars of the same length, one for each order in which colour, smell and"
        " firmness arrive, and one for their mean. Each is cut into three parts, one"
        " for each sense. A sense's part is longer when it comes first and shorter when"
        " it comes last."
    ),
    caption=(
        "c, s and f are colour, smell and firmness of our melon. What a sense costs"
        " depends on who was there before; the last bar is the mean, the Shapley"
        " shares."
    ),
)

# %% [markdown]
# All bars are as long as $-\log p(x)$.
# A sense that comes late is half explained already, and costs less.
# The last bar treats everyone alike.

# %% [markdown]
# ## From evidences to bounds
#
# So far nothing was approximated, and nothing can be computed for pictures.
# Now replace each $c_S$ by something that encoders can estimate.
#
# ### A step that bounds
#
# For one conditional evidence use {eq}`eq-conditional-bound`, with the encoder of $S$ in the role of $q$:
#
# $$
# \begin{aligned}
# &\log p(x_m\mid x_{S\setminus m})\\
# &\;\ge\mathbb E_{q_S}\log p(x_m\mid z)\\
# &\quad-\mathrm{KL}\big(q_S\,\|\,p(z\mid x_{S\setminus m})\big).
# \end{aligned}
# $$ (eq-subset-bound)
#
# We write $q_S$ for $q(z\mid x_S)$.
# The gap is $\mathrm{KL}\big(q_S\,\|\,p(z\mid x_S)\big)$, so the same $q_S$ is the best for all $m\in S$.
# For a single sense the rest is empty, $p(z\mid x_\emptyset)$ is the prior, and this is the ELBO.
#
# ### A step that loosens
#
# Sum over $m\in S$.
# For sets of two and more, Korthals and colleagues also insert $-\mathrm{KL}(q_S\,\|\,p(z))$, after Suzuki.
# Give it a weight $\beta$ and the mutual divergences a weight $\alpha$:
#
# $$
# \begin{aligned}
# J(S)&=\mathbb E_{q_S}\sum_{m\in S}\log p(x_m\mid z)\\
# &\;-\beta\,\mathrm{KL}\big(q_S\,\|\,p(z)\big)\\
# &\;-\alpha\sum_{m\in S}\mathrm{KL}\big(q_S\,\|\,q_{S\setminus m}\big),\\
# J(\{m\})&=\mathrm{ELBO}(\{m\}).
# \end{aligned}
# $$ (eq-subset-term)
#
# ### A step that breaks
#
# There is a third change in this formula.
# It has the learnt $q_{S\setminus m}$ where {eq}`eq-subset-bound` has the true $p(z\mid x_{S\setminus m})$.
# We come to it below.
#
# ### The objective
#
# $$
# \begin{aligned}
# \mathcal L(S)&=\frac1{|S|}\Big[J(S)+\sum_{m\in S}\mathcal L(S\setminus m)\Big],\\
# \mathcal L(\{1..M\})&=\sum_{S\ne\emptyset}\omega(S)\,J(S).
# \end{aligned}
# $$ (eq-m2vae)
#
# The first line is the recursion as the authors state it, and the second is what {eq}`eq-omega` makes of it.
# For $M=2$ it is the mean of JMVAE and of the two single ELBOs, $\frac12\big[J(12)+J(1)+J(2)\big]$.
# By {eq}`eq-omega-sums`, with $\alpha=\beta=1$ it rebuilds each sense with weight one, charges divergences to the prior with weight $H_M$, and mutual ones with weight $M-1$.
# At $\beta=0$ (for two senses and more) the prior has weight $\sum_m\omega(\{m\})=1$, as in an ordinary ELBO.
#
# ### Ten lines of code
#
# As a recursion over sets, with a noise for each set.

# %%
def m2vae_bound(model, x, noise):
    """L({1..M}) by the recursion; noise is {set: [batch, latent]}."""
    q = {S: model.posterior({m: x[m] for m in S})["shared"] for S in noise}
    prior = model.prior(len(next(iter(x.values()))))

    def J(S):
        z = q[S].mean + q[S].std * noise[S]
        value = sum(model.log_px(m, z, x[m]) for m in S) - kl(q[S], prior)
        if len(S) > 1:
            value = value - sum(kl(q[S], q[rest(S, m)]) for m in S)
        return value.mean()

    def L(S):
        below = sum(L(rest(S, m)) for m in S) if len(S) > 1 else 0
        return (J(S) + below) / len(S)

    return L(tuple(x))


model = exact_model("m2vae", LG3, NAMES, widen=1.7)  # encoders that err
g = torch.Generator().manual_seed(seed)
melons = {NAMES[m]: value[:, None] for m, value in LG3.sample(64, g).items()}
g.manual_seed(seed)
blocks = torch.randn(7, 64, 1, generator=g, dtype=torch.float64)
ours = m2vae_bound(model, melons, dict(zip(subsets(NAMES), blocks)))
theirs = -model.loss(melons, generator=g.manual_seed(seed))["loss"]
torch.testing.assert_close(ours, theirs)
print(f"the recursion {ours:.9f}, the library {theirs:.9f}")

# %% [markdown]
# ## Is it a bound?
#
# Three questions hide in this one, and they have three answers.
#
# ### With exact encoders
#
# Let $\alpha=1$ and $q_S=p(z\mid x_S)$ for all $S$.
# Then {eq}`eq-subset-bound` is tight, and only the inserted divergences are lost:
#
# $$
# \begin{aligned}
# &\log p(x)-\mathcal L\\
# &\;=\beta\sum_{|S|\ge2}\omega(S)\,\mathrm{KL}\big(p(z\mid x_S)\,\|\,p(z)\big).
# \end{aligned}
# $$ (eq-m2vae-gap)
#
# At $\beta=0$ it is *exactly* $\log p(x)$.
# At $\beta=1$ it lies below, on average over the data by $\sum_{|S|\ge2}\omega(S)\,I(z;x_S)$, since $I(z;x_S)$ is the mean of that divergence.
#
# ### With learnt encoders, for one item
#
# Now the step that breaks.
# As in {eq}`eq-crossing-bound`, a learnt $q_{S\setminus m}$ makes each conditional term a bound, not of $\log p(x_m\mid x_{S\setminus m})$, but of
#
# $$
# \begin{aligned}
# &\log\tilde p(x_m\mid x_{S\setminus m})\\
# &\;=\log\int p(x_m\mid z)\,q_{S\setminus m}(z)\,dz ,
# \end{aligned}
# $$ (eq-subset-crossing)
#
# the density of our own crossing at the true $x_m$.
# For a given item that can be *larger* than the conditional evidence.
# An encoder that points, with too much confidence, to where this item happens to be, is paid for it.
# So at $\beta=0$ the objective can exceed $\log p(x)$.
#
# Does $\beta=1$ prevent that?
# For an ordinary item it does.
# Each $J(S)$ is then at most the ELBO of $S$, because its mutual divergences only take away.
# So the total is a lower bound of $\sum_S\omega(S)\log p(x_S)$, a weighted sum over *all* evidences, and not of $\log p(x)$.
# If the senses contradict each other, the joint evidence is far below the single ones, and the weighted sum may lie above the joint one alone.
#
# We let an optimiser loose on the encoders of one item, for the first two senses of the melon.
# The melon gets a Gaussian $q_1$, $q_2$ and $q_{12}$ of its own, and they climb as high as they can.

# %%
PAIR = LinearGaussian(LG3.weights[:2], LG3.variances[:2])
melon = {m: x[m] for m in (0, 1)}


def pair_objective(x, means, logvars, beta):
    """L({1, 2}) of one item for three Gaussians, without sampling."""
    q = [Normal(m.view(1, 1), s.view(1, 1)) for m, s in zip(means, logvars)]
    prior = Normal.standard(1, 1, like=q[0].mean)
    singles = sum(PAIR.elbo({m: x[m]}, q[m]) for m in (0, 1))
    top = PAIR.elbo(x, q[2]) + (1 - beta) * kl(q[2], prior)
    return 0.5 * (singles + top - kl(q[2], q[0]) - kl(q[2], q[1]))


def highest(x, beta):
    """The supremum over all three Gaussians, minus log p(x)."""
    start = [PAIR.posterior(s) for s in ({0: x[0]}, {1: x[1]}, x)]
    phi = torch.tensor([[q.mean.item(), q.logvar.item()] for q in start])
    phi = phi.double().T.contiguous().requires_grad_()
    optimiser = torch.optim.LBFGS(
        [phi], max_iter=100, line_search_fn="strong_wolfe"
    )

    def loss():
        optimiser.zero_grad()
        value = -pair_objective(x, *phi, beta).sum()
        value.backward()
        return value

    optimiser.step(loss)
    return -loss().item() - PAIR.log_prob(x).item()


smells = torch.linspace(-5, 7, {"smoke": 5}.get(profile, 25)).double()
excess = {beta: [] for beta in (0.0, 1.0)}
for smell in smells:
    item = {0: melon[0], 1: smell.view(1)}
    for beta, found in excess.items():
        found.append(highest(item, beta))

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the code of this figure", "code_prompt_hide": "Hide the code of this figure"}
fig, ax = figure(5, 3.6)
ax.axhline(0, label="log p(x₁, x₂)", **(TRUE | {"linewidth": 5}))
for (beta, values), style in zip(excess.items(), (SECOND, FIRST)):
    ax.plot(
        smells, values, label=f"best objective, β = {beta:g}", marker="o", markersize=4,
        **style,
    )
ax.set(xlabel="smell of a melon with colour 1", ylabel="minus the truth, nats")
legend(fig, ax, columns=1)
show(
    fig,
    alt=(
        "The highest value of the objective minus the log evidence, for melons of one"
        " colour and different smells. Without the joint divergence to the prior the"
        " curve lies above zero everywhere. With it, the curve is below zero for"
        " ordinary smells and crosses zero where colour and smell contradict each"
        " other."
    ),
    caption=(
        "Encoders fitted to one item. Without the joint prior divergence the objective"
        " always exceeds the evidence a little; with it, only for melons that"
        " contradict themselves."
    ),
)

# %% [markdown]
# ### On average over the data
#
# One item is a hard test, since an encoder has to serve all items.
# For data drawn *from the model itself* there is good news.
# Take the average over $x\sim p(x)$.
# Each $\tilde p(x_m\mid x_R)$ is a density of $x_m$, and no density beats the true conditional on average, {eq}`eq-crossing-average`.
# Put this into every term of {eq}`eq-m2vae`, with $\alpha=1$:
#
# $$
# \begin{aligned}
# &\mathbb E_{p(x)}\,\mathcal L\big|_{\beta=0}\\
# &\;\le\sum_S\omega(S)\;\mathbb E_{p(x)}\,c_S\\
# &\;=\mathbb E_{p(x)}\log p(x),
# \end{aligned}
# $$ (eq-m2vae-average)
#
# for *any* encoders, and with equality for exact ones ($c_S$ is the sum of conditional evidences from above).
# The objective then has its maximum at the truth.
# For $\beta=1$ the same follows, since divergences only lower it.
#
# Real data are not drawn from our decoders, certainly not early in training.
# If their senses go together otherwise than the decoders say, the average crossing can beat the model's own conditionals.
# We keep the decoders of colour and smell, and offer melons from another market, in which the correlation of the two scores is $r$ instead of the model's.
# The encoders, linear now and the same for all melons, are fitted to that market.

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show how the averages are computed", "code_prompt_hide": "Hide how the averages are computed"}
w, s2 = (torch.tensor(t).double() for t in (PAIR.weights, PAIR.variances))
model_cov = torch.outer(w, w) + torch.diag(s2)
scale = model_cov.diagonal().sqrt()
model_r = (model_cov[0, 1] / scale.prod()).item()


def gaussian_kl(squares, var, other):
    """Mean KL of two Gaussians whose means differ by `squares` in the mean square."""
    return 0.5 * (var / other - 1 - (var / other).log() + squares / other)


def market_objective(slopes, var, cov, beta):
    """E[L({1, 2})] over x with this covariance; slopes [3, 2] of q_1, q_2, q_12."""
    def square(a):
        return a @ cov @ a

    def fit(k, m):  # E log p(x_m | z) with z ~ q_k
        miss = torch.eye(2).double()[m] - w[m] * slopes[k]
        return -0.5 * (
            (2 * math.pi * s2[m]).log() + (square(miss) + w[m] ** 2 * var[k]) / s2[m]
        )

    def apart(k, j=None):
        to, other = (
            (0 * slopes[k], torch.ones(()).double())
            if j is None
            else (slopes[j], var[j])
        )
        return gaussian_kl(square(slopes[k] - to), var[k], other)

    singles = sum(fit(k, k) - apart(k) for k in (0, 1))
    top = fit(2, 0) + fit(2, 1) - beta * apart(2) - apart(2, 0) - apart(2, 1)
    return 0.5 * (singles + top)


def best_in_market(r, beta):
    cov = torch.outer(scale, scale) * torch.tensor([[1, r], [r, 1]]).double()
    start = [0.5, 0.4, 1 / 6, 1 / 3, math.log(1 / 2), math.log(1 / 5), math.log(1 / 6)]
    phi = torch.tensor(start).double().requires_grad_()
    optimiser = torch.optim.LBFGS([phi], max_iter=200, line_search_fn="strong_wolfe")

    def loss():
        optimiser.zero_grad()
        zero = torch.zeros(()).double()
        slopes = torch.stack([phi[0], zero, zero, phi[1], phi[2], phi[3]]).view(3, 2)
        value = -market_objective(slopes, phi[4:].exp(), cov, beta)
        value.backward()
        return value

    optimiser.step(loss)
    truth = -0.5 * (
        torch.logdet(2 * math.pi * model_cov)
        + torch.trace(torch.linalg.solve(model_cov, cov))
    )
    return (-loss() - truth).item()


correlations = sorted(
    [*torch.linspace(-0.9, 0.95, {"smoke": 5}.get(profile, 22)).tolist(), model_r]
)
market = {beta: [best_in_market(r, beta) for r in correlations] for beta in (0.0, 1.0)}
best_there = market[0.0][correlations.index(model_r)]
print(f"the model's own correlation: {model_r:.3f}")
print(f"there, at beta = 0, best minus truth: {best_there:+.6f}")

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the code of this figure", "code_prompt_hide": "Hide the code of this figure"}
fig, ax = figure(5, 3.6)
ax.axhline(0, label="mean of log p(x₁, x₂)", **(TRUE | {"linewidth": 5}))
for (beta, values), style in zip(market.items(), (SECOND, FIRST)):
    ax.plot(correlations, values, label=f"best objective, β = {beta:g}", **style)
ax.axvline(model_r, color="#808080", linewidth=1, linestyle=":")
ax.set(
    xlabel="correlation of colour and smell in the data", ylabel="minus the truth, nats"
)
legend(fig, ax, columns=1)
show(
    fig,
    alt=(
        "The best mean objective minus the mean log evidence, against the correlation"
        " in the data. Without the joint divergence to the prior the curve touches zero"
        " at the model's own correlation, marked by a dotted line, and lies above zero"
        " on both sides. With it, the curve is below zero except at strongly negative"
        " correlations."
    ),
    caption=(
        "The dotted line is the model's own correlation. There, and only there, the"
        " objective without the joint prior divergence stops at the truth."
    ),
)

# %% [markdown]
# So this is the answer.
# Without the joint divergence to the prior, the objective is right when the model is right.
# When the model is wrong it *rewards the encoders for the model's error*.
# Decoders that can follow the data will remove the error, and with it the reward; where they cannot, the value looks better than it is.
# The divergence to the prior buys distance from this, and its price is {eq}`eq-m2vae-gap`.
# It is no guarantee either: on the far left the senses contradict what the decoders say, and the objective with $\beta=1$ exceeds the truth too.
# A value of the objective is therefore no measure of a model.
# To compare models, estimate $\log p(x)$ by importance sampling, {eq}`eq-iwae`, the same way for all.

# %% [markdown]
# ## Against the truth, and against the others
#
# Back to all three senses of the melon, and to exact encoders.
# How low does each objective lie, on average over melons, although nothing is wrong?
# All these gaps are mutual informations, so no sampling is needed.

# %%
told = {S: LG3.information(S) for S in SETS}
everything = told[0, 1, 2]
gaps = {
    "joint ELBO": 0.0,
    "JMVAE, α = 1": sum(everything - told[m,] for m in range(3)),
    "M²VAE, β = 0": 0.0,
    "M²VAE, β = 1": sum(
        float(omega(len(S), 3)) * I for S, I in told.items() if len(S) > 1
    ),
    "JMVAE, all but one": sum(
        everything - told[rest((0, 1, 2), m)] for m in range(3)
    ),
}

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the code of this table", "code_prompt_hide": "Hide the code of this table"}
ANSWERS = {
    "joint ELBO": "all three",
    "JMVAE, α = 1": "all three, single ones",
    "M²VAE, β = 0": "every set",
    "M²VAE, β = 1": "every set",
    "JMVAE, all but one": "all three, pairs",
}
table(
    "Mean distance below log p(x) with exact encoders, in the world of the melon, nats",
    ["objective", "distance", "sets with an encoder"],
    [
        [name, gap, ANSWERS[name]]
        for name, gap in sorted(gaps.items(), key=lambda kv: kv[1])
    ],
)

# %% [markdown]
# JMVAE compares the belief from everything with that from single senses, and pays for the whole distance at once.
# M²VAE goes down the lattice in small steps, and with exact encoders the mutual divergences of these steps cost nothing: they belong to the conditional evidences.
# What it pays at $\beta=1$ are the inserted divergences to the prior, each with a small weight.
# Stopping after one step, at the encoders of all senses but one, is cheaper than both, and leaves single senses without an answer.
# TELBO is not in the table: with exact encoders its brackets are tight, and they aim at another sum.
#
# ### And for our melon
#
# The library's model with the exact encoders, and $\beta$ for two senses and more from zero to one.
# We also widen all encoders by a factor $\kappa$, or narrow them.

# %%
betas = torch.linspace(0, 1, 11).tolist()
kappas = [0.5, 0.7, 1.0, 1.5, 2.0]
values = torch.zeros(len(kappas), len(betas), dtype=torch.float64)
q = {S: LG3.posterior({m: x[m] for m in S}) for S in SETS}
prior = Normal.standard(1, 1, like=x[0])
for row, kappa in enumerate(kappas):
    shift = math.log(kappa)
    wide = {S: Normal(p.mean, p.logvar + shift) for S, p in q.items()}
    for column, beta in enumerate(betas):
        for S, p in wide.items():
            J = LG3.elbo({m: x[m] for m in S}, p)
            if len(S) > 1:
                J = J + (1 - beta) * kl(p, prior)
                J = J - sum(kl(p, wide[rest(S, m)]) for m in S)
            values[row, column] += float(omega(len(S), 3)) * J.item()

model = exact_model("m2vae", LG3, NAMES)  # it draws its z
many = {name: x[m].expand(20_000)[:, None] for m, name in enumerate(NAMES)}
with torch.no_grad():
    g = torch.Generator().manual_seed(seed)
    sampled = -model.loss(many, generator=g)["loss"]
exact_one = values[kappas.index(1.0)]
print(f"beta = 0: {exact_one[0]:.4f}, and log p(x) = {v[0, 1, 2]:.4f}")
print(f"beta = 1: {exact_one[-1]:.4f}, drawn by the library {sampled:.4f}")
torch.testing.assert_close(exact_one[0].item(), v[0, 1, 2])
assert abs(sampled - exact_one[-1]) < 0.05

# %% [markdown]
# ## Back to the robot
#
# Now the other recipes for the two sensors: tVAE, which we read as TELBO, and M²VAE with and without the joint divergence to the prior.
# All have the networks of the authors' table 1.

# %%
minutes = {}
for name, options in {
    "tVAE": {}, "M²VAE": {}, "M²VAE, β = 0": {"beta_joint": 0.0},
}.items():  # fmt: skip
    start = time.perf_counter()
    models[name] = trained(name, **options)
    minutes[name] = (time.perf_counter() - start) / 60

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the code of this figure", "code_prompt_hide": "Hide the code of this figure"}
show_imagined(
    list(models),
    alt=(
        "Four panels with clouds of grey points on a circle, and the readings of w that"
        " each of four models imagines for the place in x that three things share."
    ),
    caption=(
        "w imagined from x, for the place that three things share; the figure at the"
        " top shows where the three are."
    ),
)

# %% [markdown]
# Nobody hits three clouds with one Gaussian in a latent plane, but the failures differ.
# Look at the width, and at what lies between the clouds.
#
# The set has a rare virtue: we know its densities.
# It is a mixture of ten Gaussians, so that $\log p(w\mid x)$ and all the rest can be written down, with the means and variances of the training items.
# So we can put the truth into the first column, and compare crossing by its own density $\tilde p(w\mid x)$, {eq}`eq-subset-crossing`, with many draws of $z$.

# %%
everyone, every_class = data.train.take(slice(None)), data.train.classes
log_share = (every_class.bincount(minlength=10) / len(every_class)).log()


def log_density_by_class(m):
    """log p(x_m | class), [items, 10]."""
    found = []
    for c in range(10):
        known = everyone[m][every_class == c]
        q = Normal(known.mean(0), known.var(0).log())
        found.append(q.log_prob(batch[m]))
    return torch.stack(found, 1)


by_class = {m: log_density_by_class(m) for m in SHAPES}
log_w, log_x = ((log_share + by_class[m]).logsumexp(1) for m in SHAPES)
log_wx = (log_share + sum(by_class.values())).logsumexp(1)
exact = {
    "joint-elbo": float("nan"),
    "log-p-both": log_wx.mean().item(),
    "w-given-x": (log_wx - log_x).mean().item(),
    "x-given-w": (log_wx - log_w).mean().item(),
}


@torch.no_grad()
def measured(model):
    g, K = torch.Generator().manual_seed(seed), sizes["draws"]
    q = model.posterior(batch)["shared"]
    z = q.rsample((20,), generator=g)
    log_px = sum(model.log_px(m, z, batch[m]) for m in batch).mean(0)
    found = {
        "joint-elbo": (log_px - kl(q, model.prior(z.shape[1]))).mean().item(),
        "log-p-both": model.log_likelihood(batch, K, generator=g).mean().item(),
    }
    for m, given in (("w", "x"), ("x", "w")):
        q = model.posterior({given: batch[given]})["shared"]
        z = q.rsample((K,), generator=g)
        crossing = model.log_px(m, z, batch[m]).logsumexp(0) - math.log(K)
        found[f"{m}-given-{given}"] = crossing.mean().item()
    return found


scores = {name: measured(model) for name, model in models.items()}

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the code of this table", "code_prompt_hide": "Hide the code of this table"}
LINES = {
    "joint-elbo": "joint ELBO",
    "log-p-both": "log p(w, x)",
    "w-given-x": "w from x",
    "x-given-w": "x from w",
}
table(
    f"Nats per pair, mean over n = {len(test)} test pairs; densities of data scaled to"
    " the unit square",
    ["", *LINES.values()],
    [
        [name, *("" if math.isnan(row[key]) else row[key] for key in LINES)]
        for name, row in {"the mixture itself": exact, **scores}.items()
    ],
)

# %% [markdown]
# The two last columns are the crossings, and what the chapter is about.
# Nobody reaches the mixture: a Gaussian belief has one hump, and a continuous decoder cannot tear it into three.
# But the model with zeros falls far behind where it imagines $w$, as the first picture announced.
# tVAE does better, and M²VAE better still in both directions.
# In the figure, draws of tVAE stray into the ring, where no thing lives, and those of M²VAE keep closer to it.
# In the joint ELBO the last three hardly differ: almost nothing was paid there for the better crossing.
#
# Why is M²VAE better across?
# Look at where the joint encoder puts the three things that $x$ confuses, and at how wide the belief from $x$ is.

# %%
layout = {}
with torch.no_grad():
    for name, model in models.items():
        z = model.posterior(batch)["shared"].mean
        centres = torch.stack([z[classes == c].mean(0) for c in range(10)])
        apart = torch.pdist(centres).mean()
        width = model.posterior({"x": batch["x"]})["shared"].std.mean()
        layout[name] = [torch.pdist(centres[5:8]).mean() / apart, width]

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the code of this table", "code_prompt_hide": "Hide the code of this table"}
table(
    "In the plane of z",
    ["", "distance of the three, by the mean of all", "width of the belief from x"],
    [[name, *row] for name, row in layout.items()],
)

# %% [markdown]
# M²VAE has moved the three together.
# The mutual divergence makes it expensive for the joint encoder to be far from where $x$ alone points, so what $x$ confuses comes to lie side by side, and a broad belief from $x$ covers all three and little else.
# In tVAE the joint encoder knows of no such thing, and its decoders never learn from a single encoder's draws.
# The belief of the model with zeros is less than half as wide as that of M²VAE.
#
# Dropping the joint divergence to the prior changes little on these data.
# Its decoders can follow what they are shown, so there is not much error to be rewarded.
# But look at the second column: its $\log p(w,x)$, estimated the same way for all, is lower than that of M²VAE with the divergence, although its objective, which charges less, is higher.

# %% [markdown]
# ## Try it
#
# The lattice for three senses.
# The letters are colour, smell and firmness.
# Pick a set; the explorer shows its weight, the terms that it adds, and what our melon gives for $J(S)$ with exact encoders.

# %%
from mmvae_lite.explore import BoundExplorer, SubsetLattice

terms = {}
for S, p in q.items():
    J = LG3.elbo({m: x[m] for m in S}, p)
    if len(S) > 1:
        J = J - sum(kl(p, q[rest(S, m)]) for m in S)
    terms[S] = J.item()
torch.testing.assert_close(
    sum(share[S] * J for S, J in terms.items()),
    exact_one[-1].item(),
)

SubsetLattice(3, names=["c", "s", "f"], values=terms)

# %% [markdown]
# 1. Follow all paths from the top down to one single sense. How many are there, and which factors do they carry? Multiply and add: do you get its weight?
# 2. Compare $J$ of a pair with that of its two members. Which divergences make the pair so low?
# 3. Add up the weights of the sets that hold *smell*.
#
# Next, the objective for our melon while you turn $\beta$.
# The line is $\log p(x)$; the slider sets how wide the encoders are against the exact ones.

# %%
explorer = BoundExplorer(
    betas,
    {"M²VAE": values},
    truth=v[0, 1, 2],
    settings=kappas,
    axis="weight β",
    setting="factor on variances",
    at=0,
    alt="The objective for our melon against the joint prior weight.",
)
explorer.frame = kappas.index(1.0)
explorer

# %% [markdown]
# 1. With the factor at one, where does the curve start, and where does it end? {eq}`eq-m2vae-gap` gives both.
# 2. Make the encoders a little too sure. At which $\beta$ does the curve cross the line?
# 3. Make them too modest. Can the objective still exceed the evidence?

# %% [markdown]
# ## Our numbers and the paper's
#
# The paper's text holds no measurement of M²VAE, only the derivation and the networks.
# Its one number is for a JMVAE of two kinds of pictures, and belongs to the chapter on entangled data: {paper}`m2vae:figure-1:e-mnist` on pairs that share their style, and {paper}`m2vae:figure-1:me-mnist` on pairs that do not.
#
# For the robot's sensors there is nothing to compare with, so we compare with the truth.
# Crossing from $x$ to $w$, the mixture itself has {measured}`all-subsets-mog/lite-0:mixture-w-given-x|.2f`, M²VAE {measured}`all-subsets-mog/lite-0:m2vae-w-given-x|.2f`, tVAE {measured}`all-subsets-mog/lite-0:tvae-w-given-x|.2f` and JMVAE-Z {measured}`all-subsets-mog/lite-0:jmvae-z-w-given-x|.2f`.
# In the joint ELBO the three have {measured}`all-subsets-mog/lite-0:m2vae-joint-elbo|.2f`, {measured}`all-subsets-mog/lite-0:tvae-joint-elbo|.2f` and {measured}`all-subsets-mog/lite-0:jmvae-z-joint-elbo|.2f`, with one seed.

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show how the results are kept", "code_prompt_hide": "Hide how the results are kept"}
from mmvae_lite.results import write_result

KEYS = {
    "JMVAE-Z": "jmvae-z",
    "tVAE": "tvae",
    "M²VAE": "m2vae",
    "M²VAE, β = 0": "m2vae-without-joint-prior",
}
kept = {
    f"mixture-{key}": {"value": value, "n": len(test), "unit": "nats"}
    for key, value in exact.items()
    if not math.isnan(value)
}
kept |= {
    f"{KEYS[name]}-{key}": {"value": value, "n": len(test), "unit": "nats"}
    for name, found in scores.items()
    for key, value in found.items()
}
_ = write_result(
    "all-subsets-mog", profile, seed, kept, data=data.description,
    stand_in=data.stand_in, device=device, minutes=sum(minutes.values()),
)

# %% [markdown]
# ## Pitfalls, most of them in print
#
# The derivation is right, and the print has slips.
# We list those of {cite:t}`korthals2019` that would cost you an afternoon.
#
# **Equation 14: a sixth or a third.**
# It has $\frac16\big(L_{ab}+L_{bc}+L_{ac}\big)+\frac13L_{3M}$.
# Equation 15 defines $L_{\mathcal M}$ as $\log p(\mathcal M)$, and with that the first factor must be $\frac13$, as in {eq}`eq-three-steps`.
# The sixth is right only if $L_{ab}$ means $\log p(a,b)^2$, as it stands two lines earlier.
# A program that takes the sixth *and* the recursion halves every pair twice.
# In a world that can be solved, the slip is a number:

# %%
pairs = sum(v[S] for S in v if len(S) == 2)
conditionals = sum(v[0, 1, 2] - v[rest((0, 1, 2), m)] for m in range(3))
print(f"log p(x)              {v[0, 1, 2]:.4f}")
print(f"1/3 pairs + 1/3 L_3M  {(pairs + conditionals) / 3:.4f}")
print(f"1/6 pairs + 1/3 L_3M  {pairs / 6 + conditionals / 3:.4f}  (printed)")

# %% [markdown]
# **Equation 2: who is given.**
# The last term reads $\log p(c\mid b,c)$; it must be $\log p(c\mid a,b)$.
#
# **Equations 4 and 5: one divergence twice.**
# $p(z\mid b,c)$ occurs two times, and the third should be $p(z\mid a,b)$.
# And $p$ becomes $q$ without a word when it is programmed: the step that breaks.
#
# **From equation 3 to 4.**
# The sign "$\ge$" is there because $-\mathrm{KL}(q\,\|\,p(z))$ is inserted; nothing else in that step loses anything.
#
# **Equation 1.**
# The gap of the conditional bound is $\mathrm{KL}(q\,\|\,p(z\mid\mathcal M))$, as printed; the divergence *inside* the bound is to $p(z\mid\mathcal M\setminus a)$, which the text leaves to the reader.
#
# **The lattice that got lost.**
# The released program's first models have the weights $\omega$, with the weights of mutual and prior divergences left free.
# Its later general class gives every set the weight one.
# That is another objective: for three senses the sum of the weights is then seven, and each sense is rebuilt four times.
# The library's `lattice="uniform"` is that one.
#
# **A standard deviation that is a variance.**
# In all of the authors' programs that we have read, a latent is drawn as $\mu+e^{\log\sigma^2}\epsilon$, while the divergence takes $\sigma^2$ for the variance.
# It should be $e^{\frac12\log\sigma^2}$.
#
# **Sizes and squashing.**
# The table of networks has $786$ pixels for $784$, and decoders that end in $\tanh$, which a binary cross-entropy cannot read.
#
# **A likelihood that explains nothing.**
# With a squared error the variance of the decoder is hidden in its scale.
# The data of the two sensors lie in the unit square.
# A plain squared error is a Gaussian of variance one half, wider than the square, and a $\beta$ of one then tells the encoders to give up.
# The authors' program has weights far below one for this set.
# We say the same with a decoder of standard deviation $\frac1{20}$, close to the sensors' own noise, and keep $\beta=1$.
#
# **Not a measure.**
# The value of the objective is not an evidence, and not always below the one that it aims at.

# %% [markdown]
# ## When to use it, when not
#
# | use M²VAE when | think twice when |
# |---|---|
# | there are two to four senses, and every set of them must have a sharp belief of its own | there are more: encoders double with each sense |
# | the beliefs of different sets are not products or mixtures of each other, as when two senses together see what neither sees | a product would do: it needs one encoder for each sense |
# | training items are complete | many items are incomplete: each set then learns from the items that have all of it, and large sets from few |
# | you want weights that follow from one principle | the value itself is to be reported: it is not an evidence |

# %% [markdown]
# ## Exercises
#
# Each exercise has a stub to fill in, a check and a hidden solution.
# Ask the check as often as you like; it says what is not right yet.

# %% [markdown]
# ```{exercise} Four senses
# :label: ex-subsets-weights
#
# Find the weights $\omega(S)$ for $M$ senses by the recursion $\mathcal L(S)=\frac1{|S|}\big[J(S)+\sum_m\mathcal L(S\setminus m)\big]$, without using {eq}`eq-omega`.
# Return a list of `Fraction`s, by size from one to $M$.
# For $M=4$ do it with a pencil first.
# ```
#
# ```{admonition} Hint
# :class: dropdown tip
# By symmetry only sizes matter.
# Let $\rho_s$ be the coefficient with which $\mathcal L(S)$ of *one* set of size $s$ enters the total.
# It is handed down from every set that has one sense more.
# ```

# %% tags=["exercise"]
def weights_by_size(M):
    raise NotImplementedError

# %%
check("subsets-weights", weights_by_size)

# %% tags=["solution", "hide-cell"] mystnb={"code_prompt_show": "Show the solution", "code_prompt_hide": "Hide the solution"}
def weights_by_size(M):
    reach = {M: Fraction(1)}  # the coefficient of L(S), by size
    for s in range(M - 1, 0, -1):
        # M - s sets hold S and one sense more; each hands down a share
        reach[s] = (M - s) * reach[s + 1] / (s + 1)
    return [reach[s] / s for s in range(1, M + 1)]


print(*weights_by_size(4))  # 1/4 1/12 1/12 1/4
check("subsets-weights", weights_by_size).require()

# %% [markdown]
# ```{exercise} What the objective carries
# :label: ex-subsets-masses
#
# For $M$ senses and $\alpha=\beta=1$, return four numbers: the number of decodings, the number of mutual divergences, the total weight of the divergences to the prior, and the total weight of the mutual ones.
# Prove the last one with {eq}`eq-omega-sums`.
# ```
#
# ```{admonition} Hint
# :class: dropdown tip
# A set of size $s$ has $s$ decodings and, if $s\ge2$, $s$ mutual divergences.
# Fix the sense that is rebuilt, or taken out, and count the sets.
# ```

# %% tags=["exercise"]
def masses(M):
    # (decodings, mutual divergences, prior weight, mutual weight)
    raise NotImplementedError

# %%
check("subsets-masses", masses)

# %% tags=["solution", "hide-cell"] mystnb={"code_prompt_show": "Show the solution", "code_prompt_hide": "Hide the solution"}
def masses(M):
    decodings = M * 2 ** (M - 1)
    prior = sum(Fraction(1, s) for s in range(1, M + 1))
    return decodings, decodings - M, prior, M - 1


# Each sense has weight 1 over all sets; the M single sets take 1/M of it
# each, and what is left, M - 1 in all, belongs to mutual divergences.
check("subsets-masses", masses).require()

# %% [markdown]
# ```{exercise} A fair share
# :label: ex-subsets-shapley
#
# `v` maps every `frozenset` of senses $0,\dots,M-1$ to its log-evidence; the empty one has zero.
# Return the list of shares $\phi_0,\dots,\phi_{M-1}$ of {eq}`eq-shapley`.
# Then look at our melon: which sense has the largest part in its improbability?
# ```
#
# ```{admonition} Hint
# :class: dropdown tip
# For each sense, run over the sets that hold it: weight times gain.
# ```

# %% tags=["exercise"]
def shares(v, M):
    raise NotImplementedError

# %%
check("subsets-shapley", shares)

# %% tags=["solution", "hide-cell"] mystnb={"code_prompt_show": "Show the solution", "code_prompt_hide": "Hide the solution"}
def shares(v, M):
    found = [0.0] * M
    for S, value in v.items():
        for m in S:
            weight = 1 / (len(S) * math.comb(M, len(S)))
            found[m] += weight * (value - v[S - {m}])
    return found


check("subsets-shapley", shares).require()

# %% [markdown]
# ```{exercise} The price of the joint prior
# :label: ex-subsets-gap
#
# In a linear-Gaussian world with weights `w` and variances `s2`, any number of senses, all encoders are exact.
# How far below $\log p(x)$ is M²VAE with $\alpha=\beta=1$, on average over the data?
# Compare with the price of JMVAE, {eq}`eq-jmvae-price`: which is dearer when there are many senses that all say the same?
# ```
#
# ```{admonition} Hint
# :class: dropdown tip
# {eq}`eq-m2vae-gap`, with $I(z;x_S)$ from {eq}`eq-world-information`, and `itertools.combinations`.
# ```

# %% tags=["exercise"]
def price_of_m2vae(w, s2):
    raise NotImplementedError

# %%
check("subsets-gap", price_of_m2vae)

# %% tags=["solution", "hide-cell"] mystnb={"code_prompt_show": "Show the solution", "code_prompt_hide": "Hide the solution"}
def price_of_m2vae(w, s2):
    M, total = len(w), 0.0
    for s in range(2, M + 1):
        for S in itertools.combinations(range(M), s):
            told = 0.5 * math.log(1 + sum(w[m] ** 2 / s2[m] for m in S))
            total += told / (s * math.comb(M, s))
    return total


def price_of_jmvae(w, s2):
    each = [a**2 / b for a, b in zip(w, s2)]
    return sum(0.5 * math.log((1 + sum(each)) / (1 + t)) for t in each)


# Ten equal senses: the lattice takes small steps, JMVAE one big one each.
print(price_of_m2vae([1.0] * 10, [1.0] * 10))
print(price_of_jmvae([1.0] * 10, [1.0] * 10))
check("subsets-gap", price_of_m2vae).require()

# %% [markdown]
# ```{exercise} Beat the evidence
# :label: ex-subsets-excess
#
# For the pair colour and smell of our melon, $x=(1,\tfrac32)$, find three Gaussians for which the objective with $\beta=0$ (for the pair) and $\alpha=1$ exceeds $\log p(x)$ by at least a twentieth.
# Return three pairs (mean, variance), for $q_1$, $q_2$ and $q_{12}$.
# Exact are $\mathcal N(\tfrac12,\tfrac12)$, $\mathcal N(\tfrac35,\tfrac15)$ and $\mathcal N(\tfrac23,\tfrac16)$.
# Then explain in a sentence why no encoder can do this for all melons at once.
# ```
#
# ```{admonition} Hint
# :class: dropdown tip
# A single belief that leaves its exact place loses in its own ELBO, at first very little.
# If it comes nearer to $q_{12}$ meanwhile, $J(12)$ gains at once.
# So move the single ones towards the joint one, and make them narrower.
# ```

# %% tags=["exercise"]
def beliefs():
    # [(mean, variance) of q_1, of q_2, of q_12]
    raise NotImplementedError

# %%
check("subsets-excess", beliefs)

# %% tags=["solution", "hide-cell"] mystnb={"code_prompt_show": "Show the solution", "code_prompt_hide": "Hide the solution"}
def beliefs():
    return [(0.58, 0.25), (0.62, 0.16), (0.65, 0.14)]


# q_1 pays for its overconfidence in its own ELBO with half a divergence,
# and earns more in J(12). Averaged over melons with this colour, it would
# point to the wrong smell as often as to the right one.
check("subsets-excess", beliefs).require()

# %% [markdown]
# ## Further reading
#
# {cite:t}`korthals2019` is the paper of this chapter, with the derivation in its appendix; {cite:t}`korthals2019m2vae` is a note on that derivation alone.
# {cite:t}`shapley1953` has the weights, for games.
# {cite:t}`han1978` has inequalities for the entropies of all subsets: with them you can prove that M²VAE with $\beta=1$ stays below the truth on average by another way.
# {cite:t}`suzuki2016` is where the mutual divergences come from.
# {cite:t}`wu2018` reach all subsets with one expert for each sense.
