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
# # Bounds and their gradients
#
# ```{admonition} Before you start
# :class: note
# You need expectations, Jensen's inequality, the chain rule, the density of a Gaussian, and a little PyTorch.
# The world LG3 comes from the [first chapter](solvable_world.ipynb).
# Nothing large is trained here, and one CPU core is enough.
# With pen and paper, take an afternoon for the derivations.
# ```

# %% tags=["parameters", "hide-input"] mystnb={"code_prompt_show": "Show the settings", "code_prompt_hide": "Hide the settings"}
profile = "lite"
seed = 0
device = "cpu"

# %% tags=["setup", "hide-input"] mystnb={"code_prompt_show": "Show the imports", "code_prompt_hide": "Hide the imports"}
import math

import torch

from mmvae_lite.bounds import (
    iwae,
    iwae_by_quadrature,
    moe_bound,
    moe_linear_time,
)
from mmvae_lite.data import LG3, LG3_OBSERVATION
from mmvae_lite.distributions import Normal, kl
from mmvae_lite.exercises import check
from mmvae_lite.experts import Mixture

# %% [markdown]
# ## The question
#
# A variational autoencoder is trained on a lower bound of $\log p(x)$.
# The bound is too low, so we make it tighter: instead of one latent for each item we draw $K$ and average before the logarithm.
# That works, always, and this chapter proves it.
# Then we look at the encoder and find that it has stopped learning.
#
# Here is the smallest model in which this happens.
# A latent, one observation, and a Gaussian encoder with two parameters:
#
# $$
# \begin{gathered}
# z\sim\mathcal N(0,1),\qquad x\mid z\sim\mathcal N(z,1),\\
# q_\phi(z\mid x)=\mathcal N(z;\,a\,x,\,s^2),\\
# \phi=(a,\log s),\qquad x=1.3 .
# \end{gathered}
# $$ (eq-bounds-toy)
#
# The exact posterior is $\mathcal N(\tfrac x2,\tfrac12)$, so the best encoder has $a=\tfrac12$ and $s^2=\tfrac12$.
# Ours starts at $a=0.2$ and $s=1.1$: it looks in the wrong place and is too vague.
# For every $K$ we ask two things of it.
# How high is the bound?
# And how large is its gradient in $\phi$, beside the noise of one draw of that gradient?
#
# In this small world the bound and its gradient are exact: a method further down gives both by an integral.
# Only the noise is measured, from many draws.

# %%
X = 1.3


def toy_log_joint(z):
    """log p(x, z) of the toy, [..., 1] -> [...]."""
    z = z[..., 0]
    log_pz, log_px = -0.5 * z.square(), -0.5 * (X - z).square()
    return log_pz + log_px - math.log(2 * math.pi)


def encoders(params, n):
    """One expert for each (a, s), in n copies with leaves of their own.

    Returns the leaves (a, log s), each [n, 2], and Normals [n, 1].
    """
    leaves = []
    for a, s in params:
        phi = torch.tensor([a, math.log(s)]).double()
        leaves.append(phi.repeat(n, 1).requires_grad_())
    qs = [Normal(phi[:, :1] * X, 2 * phi[:, 1:]) for phi in leaves]
    return leaves, qs


def sampled(qs, K):
    """K draws from each expert, [experts, K, n, 1]."""
    g = torch.Generator().manual_seed(seed)
    return Mixture(tuple(qs)).rsample((K,), g)


def gradients(params, K, estimator, n, bound="loose"):
    """n draws of the gradient in all parameters, [n, 2 * experts]."""
    leaves, qs = encoders(params, n)
    z = sampled(qs, K)
    value = moe_bound(qs, z, toy_log_joint, bound, estimator)
    return torch.cat(torch.autograd.grad(value.sum(), leaves), 1)

# %% tags=["setup", "hide-input"] mystnb={"code_prompt_show": "Show the grid for integrals over z", "code_prompt_hide": "Hide the grid for integrals over z"}
NODES = torch.linspace(-9, 9, 1501, dtype=torch.float64)  # in standard deviations
PROBS = (-0.5 * NODES.square()).softmax(0)


def points(q):
    """The grid under a Normal with one value: z [nodes, 1], of probabilities PROBS."""
    return q.mean.reshape(1) + q.std.reshape(1) * NODES[:, None]


def on_grid(experts, log_joint, own=False):
    """log r on the grid under each expert, [experts, nodes].

    Below the line is the mixture, or with `own` the expert.
    """
    rows = []
    for q in experts:
        z = points(q)
        below = q if own else Mixture(tuple(experts))
        rows.append(log_joint(z) - below.log_prob(z[:, None])[:, 0])
    return torch.stack(rows)


def average(rows, K):
    """The average over experts of the bound of each alone."""
    return sum(iwae_by_quadrature(row[None], PROBS, K) for row in rows) / len(rows)

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show how the numbers of the figure are computed", "code_prompt_hide": "Hide how the numbers of the figure are computed"}
def exact(params, K, bound="loose"):
    """The bound and its gradient in all parameters, by quadrature."""
    leaves, qs = encoders(params, 1)
    log_w = on_grid(qs, toy_log_joint)
    value = (
        iwae_by_quadrature(log_w, PROBS, K) if bound == "tight" else average(log_w, K)
    )
    return value.item(), torch.cat(torch.autograd.grad(value, leaves), 1)[0]


def spread(draws):
    """The root of the summed variances of the gradient's components."""
    return draws.var(0).sum().sqrt().item()


def repeats(K):
    """How many draws of a gradient: fewer where one is dear."""
    return {"smoke": 4_000}.get(profile, 200_000) // max(K, 4)


START = [(0.2, 1.1)]
KS = [1, 2, 4, 8, 16, 32, 64, 128] if profile != "smoke" else [1, 4, 16, 64]
EVIDENCE = -0.5 * math.log(4 * math.pi) - X**2 / 4  # log N(x; 0, 2)

bound, signal = {}, {}
for K in KS:
    bound[K], gradient = exact(START, K)
    signal[K] = gradient.norm().item()
noise = {K: spread(gradients(START, K, "iwae", repeats(K))) for K in KS}

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the plotting helpers", "code_prompt_hide": "Hide the plotting helpers"}
from mmvae_lite.plotting import PALETTE, figure, legend, show, table

TRUTH = {
    "color": "#808080",
    "linewidth": 8,
    "alpha": 0.45,
    "linestyle": "-",
    "solid_capstyle": "round",
}
LOOK = {
    "iwae": {"label": "IWAE", "color": PALETTE[1], "linestyle": "-", "marker": "o"},
    "stl": {"label": "STL", "color": PALETTE[3], "linestyle": "-.", "marker": "s"},
    "dreg": {"label": "DReG", "color": PALETTE[0], "linestyle": "--", "marker": "D"},
    "dreg_mix": {
        "label": "DReG for mixtures",
        "color": PALETTE[2],
        "linestyle": "-",
        "marker": "^",
    },
}
for style in LOOK.values():
    style["markersize"] = 4


def ticks_of_k(ax, ks):
    ax.set_xscale("log")
    ax.set_xticks(ks, ks, minor=False)
    ax.minorticks_off()


# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the code of this figure", "code_prompt_hide": "Hide the code of this figure"}
fig, (top, bottom) = figure(5, 5.6, rows=2, sharex=True)
top.axhline(EVIDENCE, label="log p(x)", **TRUTH)
top.plot(
    KS, list(bound.values()), color=PALETTE[2], marker="o", markersize=4,
    label="the bound",
)
bottom.plot(
    KS, list(noise.values()), color=PALETTE[1], linestyle="--", marker="s",
    markersize=4, label="noise of one gradient",
)
bottom.plot(
    KS, list(signal.values()), color=PALETTE[0], marker="o", markersize=4,
    label="length of the true gradient",
)
top.set(ylabel="nats")
bottom.set(ylabel="size of the gradient", yscale="log", xlabel="samples K")
ticks_of_k(bottom, KS)
handles = [
    h + k
    for h, k in zip(top.get_legend_handles_labels(), bottom.get_legend_handles_labels())
]
fig.legend(*handles, loc="outside lower center", ncols=2)
show(
    fig,
    alt=(
        "Two panels against the number of samples. Above, the bound rises quickly and"
        " settles on the log-evidence. Below, on a logarithmic axis, the length of the"
        " true gradient falls steeply and the noise of one drawn gradient falls half as"
        " steeply, so that the gap between them widens all the way."
    ),
    caption=(
        "The bound comes closer to the truth with K, and its gradient drowns. Gradient"
        " in (a, log s); the noise is a standard deviation."
    ),
)

# %% [markdown]
# The upper panel is good news: the bound climbs to the truth.
# The lower one is not.
# The true gradient fades, and the noise fades more slowly.
# With many samples a gradient step is close to the toss of a coin.
# More work gives a worse direction.
#
# There is a remedy.
# It changes the gradient and leaves the bound alone; it is called DReG.
# MMVAE {cite:p}`shi2019` was meant to be trained with it.
# But the released program never applied it, and under a mixture of experts it would have been wrong anyway.
#
# **After this chapter you can**
#
# - derive the ELBO and the many-sample bound, and prove that the bound rises with $K$;
# - put four bounds of a mixture of experts in order, and say which one stays below the truth however many samples it takes;
# - split a gradient into path and score, and derive STL and DReG from the two parts;
# - find an estimator that is biased, with a test of a few lines;
# - say why DReG fails under a mixture, and derive one that does not.

# %% [markdown]
# ## One sample: the ELBO
#
# Take a density $q(z\mid x)$ that we can draw from, positive wherever $p(x,z)$ is.
# From here on we leave $\phi$ out where nothing is differentiated.
# The **importance weight** of a draw is
#
# $$
# \begin{gathered}
# r(z)=\frac{p(x\mid z)\,p(z)}{q(z\mid x)}\,,\\
# \mathbb E_{q}[r]=\int p(x,z)\,dz=p(x).
# \end{gathered}
# $$ (eq-importance-weight)
#
# So one weight is an unbiased estimate of the evidence.
# We want its logarithm.
# The logarithm is concave, and Jensen's inequality says that the mean of a logarithm is at most the logarithm of the mean:
#
# $$
# \begin{aligned}
# \mathrm{ELBO}&=\mathbb E_{q}[\log r]\\
# &\le\log\mathbb E_{q}[r]=\log p(x).
# \end{aligned}
# $$ (eq-bounds-jensen)
#
# This is the **evidence lower bound** {cite:p}`kingma2014`.
# Write $\log r=\log p(x\mid z)-\log\frac{q(z\mid x)}{p(z)}$ and you have its usual form, reconstruction minus divergence, {eq}`eq-elbo`.
# Write $r=p(x)\,\frac{p(z\mid x)}{q(z\mid x)}$ and you have what is lost:
#
# $$
# \begin{aligned}
# &\log p(x)-\mathrm{ELBO}\\
# &\quad=\mathrm{KL}\big(q(z\mid x)\,\|\,p(z\mid x)\big).
# \end{aligned}
# $$ (eq-bounds-gap)
#
# Programs keep $\log r$ and never $r$, which may be smaller than a computer's smallest number.
# The library calls it `log_w`, as most programs do.

# %% [markdown]
# ## Many samples: IWAE
#
# The loss in {eq}`eq-bounds-jensen` comes from the logarithm of a noisy estimate.
# An average of $K$ independent weights is a less noisy estimate of the same thing.
# The mean of its logarithm is the **importance-weighted** bound of {cite:t}`burda2016`, who call their model an importance-weighted autoencoder, IWAE.
# ({eq}`eq-iwae` has it for any set of modalities.)
#
# $$
# \begin{aligned}
# \mathcal L_K&=\mathbb E\,\log\bar r_K,\\
# \bar r_K&=\frac1K\sum_{k=1}^Kr(z_k).
# \end{aligned}
# $$ (eq-many-samples)
#
# ### It rises with K
#
# Let $J<K$.
# Choose $J$ of the $K$ weights at random, and average those.
# Each weight is chosen equally often, so the average over all choices $I$ is the average of all the weights:
#
# $$
# \begin{gathered}
# \bar r_K=\mathbb E_I\Big[\frac1J\sum_{i\in I}r(z_i)\Big],\\
# \begin{aligned}
# \mathcal L_K&=\mathbb E\,\log\mathbb E_I\Big[\frac1J\sum_{i\in I}r(z_i)\Big]\\
# &\ge\mathbb E\,\mathbb E_I\log\frac1J\sum_{i\in I}r(z_i)=\mathcal L_J .
# \end{aligned}
# \end{gathered}
# $$ (eq-bounds-subsets)
#
# The inequality is Jensen's once more.
# The last step holds because any $J$ of the weights have the same distribution as the first $J$.
# With $J=1$ the bound is the ELBO; and no $\mathcal L_K$ exceeds $\log\mathbb E\,\bar r_K=\log p(x)$.
# If the weights have a finite variance $V$, a Taylor expansion of the logarithm around $p(x)$ says how fast the gap closes:
#
# $$
# \log p(x)-\mathcal L_K\approx\frac{V}{2K\,p(x)^2}\,.
# $$ (eq-bounds-rate)
#
# The gap shrinks like $1/K$.
# So does its derivative in $\phi$.
# Remember this: *the gradient of a good bound is small*.
# The truth $\log p(x)$ does not depend on $q$ at all, so a bound that reaches it has nothing left to tell the encoder.
#
# ### The bound without sampling
#
# How did the first figure get rid of its sampling error?
# A logarithm of a mean of many variables looks hopeless to integrate, but there is an old identity, Frullani's:
#
# $$
# \begin{gathered}
# \log y=\int_0^\infty\big(e^{-t}-e^{-ty}\big)\frac{dt}t\,,\\
# \mathcal L_K=\!\int_0^\infty\!\!\Big(e^{-t}-\mathbb E_q\big[e^{-tr/K}\big]^K\Big)\frac{dt}t .
# \end{gathered}
# $$ (eq-frullani)
#
# The exponential turns the sum of weights into a product, and the expectation of a product of independent variables is a product of expectations.
# What remains are two integrals in one variable, over $z$ and over $t$.
# It works for any $K$ at the same cost, and for any latent of one dimension.

# %%
def exact_bound(log_w, K):
    """L_K from log weights on the grid, [nodes]."""
    u = torch.linspace(-35, 60, 951).double()  # t = exp(u), dt / t = du
    t = u.exp()
    laplace = torch.exp(-t[:, None] * log_w.exp() / K) @ PROBS
    return torch.trapezoid(torch.exp(-t) - laplace**K, u)


_, (q,) = encoders(START, 1)
log_w = on_grid([q], toy_log_joint)[0]
for K in (1, 5, 100):
    theirs = iwae_by_quadrature(log_w[None], PROBS, K)
    torch.testing.assert_close(exact_bound(log_w, K), theirs)

n = repeats(5)
_, (many_q,) = encoders(START, n)
z = sampled([many_q], 5)[0]
values = iwae(toy_log_joint(z) - many_q.log_prob(z))
error = values.std() / math.sqrt(n)
print(f"K = 5, exact {exact_bound(log_w, 5):.5f}")
print(f"K = 5, drawn {values.mean():.5f} +- {error:.5f}, n = {n}")
assert abs(values.mean() - exact_bound(log_w, 5)) < 5 * error

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the code of this figure", "code_prompt_hide": "Hide the code of this figure"}
many = [2**i for i in range(11)]
variance = ((log_w - EVIDENCE).exp().square() * PROBS).sum().item() - 1  # of r / p(x)
gaps = [EVIDENCE - iwae_by_quadrature(log_w[None], PROBS, K).item() for K in many]
fig, ax = figure(5, 3.6)
ax.plot(many, [variance / (2 * K) for K in many], label="V / (2 K p(x)²)", **TRUTH)
ax.plot(
    many, gaps, color=PALETTE[2], marker="o", markersize=4,
    label="log p(x) minus the bound",
)
ax.set(yscale="log", xlabel="samples K", ylabel="nats")
ticks_of_k(ax, many[::2])
legend(fig, ax)
show(
    fig,
    alt=(
        "The gap between log-evidence and bound against the number of samples, both"
        " axes logarithmic. The exact gap starts above the straight line of the"
        " expansion and runs into it; from then on it falls like one over K."
    ),
    caption=(
        "Where the weights' variance is finite, twice the samples halve the gap, once"
        " there are enough of them."
    ),
)

# %% [markdown]
# ## Bounds for a mixture of experts
#
# MMVAE {cite:p}`shi2019` has one encoder for each modality, and its posterior is the mixture {eq}`eq-mixture` of them, $q_\Phi=\frac1M\sum_mq_m$.
# Any $q$ may stand in the bounds above, this one too.
# To draw from a mixture, one picks an expert at random and draws from it.
# It is better not to leave that to chance: draw $K$ latents $z_{m1},\dots,z_{mK}$ from *every* expert.
# This is **stratified sampling**; each expert is a stratum.
# An expectation under the mixture is the average of the expectations under the experts.
# The weight has the whole mixture below the line, whichever expert the draw came from:
#
# $$
# r(z_{mk})=\frac{p(z_{mk})\prod_jp(x_j\mid z_{mk})}{\frac1M\sum_jq_j(z_{mk}\mid x_j)}\,.
# $$ (eq-moe-weight)
#
# The bound averages over experts and takes a logarithm; which comes first?
# {cite:t}`shi2019` give two answers, with the logarithm inside the average over experts and outside it:
#
# $$
# \begin{aligned}
# \mathcal L^{\rm loose}_K&=\frac1M\sum_{m}\mathbb E\log\frac1K\sum_kr(z_{mk}),\\
# \mathcal L^{\rm tight}_K&=\mathbb E\log\frac1{MK}\sum_{m,k}r(z_{mk}).
# \end{aligned}
# $$ (eq-moe-bounds)
#
# The loose one is what they train (their equation 3), because it gives every expert an equal voice.
# The tight one (their appendix A) they use for test likelihoods.
# The loose one with $K=1$ is the ELBO of the mixture.
# A simpler bound forgets that there is a mixture and averages the experts' own ELBOs; $p$ is the prior here:
#
# $$
# \begin{aligned}
# \mathcal L^{\rm naive}=\frac1M\sum_m\Big(&\mathbb E_{q_m}\sum_j\log p(x_j\mid z)\\
# &-\mathrm{KL}(q_m\,\|\,p)\Big).
# \end{aligned}
# $$ (eq-moe-naive)
#
# ### Their order
#
# $$
# \begin{aligned}
# \mathcal L^{\rm naive}&\le\mathrm{ELBO}_\Phi=\mathcal L^{\rm loose}_1\\
# &\le\mathcal L^{\rm loose}_K\le\mathcal L^{\rm tight}_K\\
# &\le\log p(x).
# \end{aligned}
# $$ (eq-moe-order)
#
# *First step.*
# The reconstructions agree, so naive bound and $\mathrm{ELBO}_\Phi$, the ELBO of the mixture, differ in the divergence alone.
# Put $\log q_m=\log q_\Phi+\log\frac{q_m}{q_\Phi}$ into the average divergence:
#
# $$
# \begin{aligned}
# \frac1M\sum_m\,&\mathrm{KL}(q_m\|p)=\mathrm{KL}(q_\Phi\|p)\\
# &+\frac1M\sum_m\mathrm{KL}(q_m\|q_\Phi).
# \end{aligned}
# $$ (eq-moe-kl)
#
# The naive bound pays the last term, which is positive unless all experts agree.
#
# *Second step.*
# Within one stratum the proof {eq}`eq-bounds-subsets` holds word for word.
#
# *Third step.*
# Write $A_m=\frac1K\sum_kr(z_{mk})$.
# The loose bound averages the logarithms of the $A_m$, the tight one takes the logarithm of their average.
# Jensen says which is larger.
# (An exercise asks for the difference as a divergence.)
#
# *Last step.*
# The average of all $A_m$ is an unbiased estimate of $p(x)$, and Jensen applies a last time.
#
# ### One of them never arrives
#
# Each single $A_m$ is *not* an unbiased estimate of $p(x)$.
# Its samples come from $q_m$ and its weights have $q_\Phi$ below the line:
#
# $$
# \begin{aligned}
# \mathbb E_{q_m}[r]&=\int q_m(z)\frac{p(x,z)}{q_\Phi(z)}\,dz\\
# &=p(x)\,M\bar\rho_m ,\\
# \bar\rho_m&=\mathbb E_{p(z\mid x)}[\rho_m(z)],\\
# \rho_m(z)&=\frac{q_m(z)}{\sum_jq_j(z)}\,.
# \end{aligned}
# $$ (eq-moe-shares)
#
# The **responsibility** $\rho_m(z)$ is the share of expert $m$ in the mixture at $z$.
# Its mean $\bar\rho_m$ under the true posterior is the share of the posterior that expert $m$ covers.
# These shares add up to one.
# Let $K\to\infty$ in {eq}`eq-moe-bounds`; by the law of large numbers every average of weights becomes its mean:
#
# $$
# \begin{aligned}
# \mathcal L^{\rm tight}_\infty&=\log p(x),\\
# \mathcal L^{\rm loose}_\infty&=\log p(x)-\mathrm{KL}(u\,\|\,\bar\rho),
# \end{aligned}
# $$ (eq-moe-limit)
#
# where $u$ is the uniform distribution over the $M$ experts.
# So samples alone never close the gap of the loose bound.
# It closes only when all experts cover equal shares of the posterior.
# That is the equal voice in numbers: a model trained on the loose bound pays for experts that leave the work to others.
#
# All of this can be seen on LG3, {eq}`eq-melon`, with its exact *unimodal* posteriors as experts: those given one reading each.

# %% tags=["setup"]
def lg3_log_joint(z):
    """log p(x, z) of LG3 at the book's readings, [..., 1] -> [...]."""
    z = z[..., 0]
    total = -0.5 * z.square() - 0.5 * math.log(2 * math.pi)
    for m, x in LG3_OBSERVATION.items():
        variance = LG3.variances[m]
        total = total - 0.5 * (x - LG3.weights[m] * z).square() / variance
        total = total - 0.5 * math.log(2 * math.pi * variance)
    return total


EXPERTS = [LG3.posterior({m: x}) for m, x in LG3_OBSERVATION.items()]

# %%
log_p = LG3.log_prob(LG3_OBSERVATION).item()
log_w = on_grid(EXPERTS, lg3_log_joint)
own_log_w = on_grid(EXPERTS, lg3_log_joint, own=True)

curves = {
    "tight": [iwae_by_quadrature(log_w, PROBS, K).item() for K in many],
    "loose": [average(log_w, K).item() for K in many],
    "own density": [average(own_log_w, K).item() for K in many],
}
tight, loose, own = curves.values()
naive, elbo_of_mixture = own[0], loose[0]
assert naive < elbo_of_mixture
assert all(a < b < log_p for a, b in zip(loose, tight))

z = points(LG3.posterior(LG3_OBSERVATION))[:, None]
rho = Mixture(tuple(EXPERTS)).responsibilities(z)[..., 0]
shares = rho @ PROBS  # of each expert in the exact posterior
limit = log_p + (3 * shares).log().mean().item()

print(f"log p(x)            {log_p:.5f}")
print(f"naive bound         {naive:.5f}")
print(f"ELBO of the mixture {elbo_of_mixture:.5f}")
print("shares of the posterior:", ", ".join(f"{s:.3f}" for s in shares))
print(f"loose bound, K = {many[-1]}  {loose[-1]:.5f}")
print(f"its limit           {limit:.5f}")

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the code of this figure", "code_prompt_hide": "Hide the code of this figure"}
fig, (ax, low) = figure(5, 6, rows=2, sharex=True)
styles = [
    {"color": PALETTE[2], "linestyle": "-", "marker": "^"},
    {"color": PALETTE[0], "linestyle": "--", "marker": "o"},
    {"color": PALETTE[3], "linestyle": "-.", "marker": "s"},
]
for panel in (ax, low):
    panel.axhline(log_p, label="log p(x)", **TRUTH)
    panel.axhline(
        limit, color=PALETTE[0], linewidth=1, linestyle=":",
        label="limit of the loose bound",
    )
    for (name, values), style in zip(curves.items(), styles):
        panel.plot(many, values, label=name, markersize=4, **style)
ax.set(ylabel="nats")
low.set(
    ylim=(log_p - 0.03, log_p + 0.004), ylabel="nats, the top enlarged",
    xlabel="samples K of each expert",
)
ticks_of_k(low, many[::2])
legend(fig, ax)
show(
    fig,
    alt=(
        "Bounds on LG3 against the number of samples of each expert. Above, all three"
        " rise towards the log-evidence; the tight one is highest throughout. Below,"
        " the top is enlarged: the tight bound and the bound with the expert's own"
        " density reach the log-evidence, the loose bound levels off on a dotted line"
        " below it and is overtaken."
    ),
    caption=(
        "Three bounds on LG3, exact. The curve of the experts' own densities starts at"
        " the naive bound, the loose one at the ELBO of the mixture."
    ),
)

# %% [markdown]
# The third curve answers a question that students ask: why not put the expert's own density $q_m$ below the line?
# That gives a bound too, the average of $M$ separate importance-weighted bounds.
# With one sample it is the naive bound, below the loose one.
# With many samples it overtakes the loose bound, since each of its averages estimates $p(x)$.
# But it asks each expert to find the whole posterior alone, from one modality.
# With the mixture below the line an expert is excused wherever another one covers for it, and no weight can exceed $M$ times its own-density value.
#
# ### Try it
#
# Two experts look at the toy of {eq}`eq-bounds-toy`.
# The first one is the exact posterior.
# The second one has the right width, and its mean is off by the distance that you choose.

# %%
from mmvae_lite.explore import BoundExplorer

distances = [0.0, 0.3, 0.6, 0.9, 1.2] if profile != "smoke" else [0.0, 1.0]
axis = many if profile != "smoke" else many[::5]
moved = {"tight": [], "loose": [], "own density": []}
width = torch.tensor([[0.5]]).double().log()
for d in distances:
    right, wrong = X / 2, X / 2 + d
    pair = [Normal(torch.tensor([[m]]).double(), width) for m in (right, wrong)]
    log_w = on_grid(pair, toy_log_joint)
    own_log_w = on_grid(pair, toy_log_joint, own=True)
    for name, bound_at in (
        ("tight", lambda K: iwae_by_quadrature(log_w, PROBS, K)),
        ("loose", lambda K: average(log_w, K)),
        ("own density", lambda K: average(own_log_w, K)),
    ):
        moved[name].append([bound_at(K).item() for K in axis])

explorer = BoundExplorer(
    x=axis,
    curves=moved,
    truth=EVIDENCE,
    settings=distances,
    setting="distance of the second expert",
    axis="samples K of each expert",
    log=True,
    alt="Tight bound, loose bound and the bound with the experts' own "
        "densities against the number of samples, for two experts.",
)
explorer.frame = len(distances) - 1
explorer

# %% [markdown]
# 1. Put the second expert on the first, at distance zero. What do the three bounds say, and why does $K$ not matter?
# 2. Move it away step by step with $K=1$. Which bound loses least? One of two experts is still right: what do the weights of the other one do to each bound?
# 3. At the largest distance turn $K$ up. Which bound does not come back? Compare with {eq}`eq-moe-limit`: what is the share of the second expert now?

# %% [markdown]
# ### The bound in linear time
#
# Every expert's samples go through every decoder: $M^2$ passes.
# {cite:t}`shi2019`, appendix B, get the naive bound with $M$.
# Decode the samples of expert $d$ with decoder $d$ only, and use importance weights *between experts*:
#
# $$
# \begin{aligned}
# &\mathbb E_{q_m}[\log p(x_d\mid z)]\\
# &\quad=\mathbb E_{q_d}\Big[\frac{q_m(z)}{q_d(z)}\log p(x_d\mid z)\Big].
# \end{aligned}
# $$ (eq-linear-time)
#
# The value is right.
# Its price is variance: where $q_m$ is wider than $q_d$, the ratio has heavy tails.
# Its gradient holds a trap, to which we come at the end.

# %% [markdown]
# ## The gradient has two parts
#
# Back to a single $q_\phi$, and to the question of the beginning.
# Write each draw as a function of noise that does not depend on $\phi$, $z_k=z(\varepsilon_k,\phi)$; for a Gaussian $z=\mu+\sigma\varepsilon$.
# This is the **reparameterisation** of {cite:t}`kingma2014` and {cite:t}`rezende2014`.
# Now $\phi$ enters $\log r(z_k)$ twice: it moves the point $z_k$, and it changes the density $q_\phi$ at a fixed point.
# With the normalised weights $\tilde r_k$, the derivative of $\log\frac1K\sum_kr_k$ is
#
# $$
# \begin{aligned}
# \nabla_\phi\mathcal L_K=\mathbb E\sum_k\tilde r_k\Big[&\underbrace{\frac{\partial\log r}{\partial z}\frac{\partial z_k}{\partial\phi}}_{\text{path}}\\
# &\;-\underbrace{\frac{\partial\log q_\phi(z_k)}{\partial\phi}}_{\text{score}}\Big],\\
# \tilde r_k&=\frac{r(z_k)}{\sum_ir(z_i)}\,.
# \end{aligned}
# $$ (eq-iwae-gradient)
#
# This is what `backward()` computes if we let it.
# We call it the estimator **IWAE**.
# It is unbiased, as the derivative of an expectation over a fixed noise.
#
# The parameters $\theta$ of the decoders enter $\log r$ once, and their gradient is $\mathbb E\sum_k\tilde r_k\,\partial_\theta\log r(z_k)$.
# It is the same in everything that follows.
#
# ### Leave the score out: STL
#
# The score has mean zero, $\mathbb E_q[\partial_\phi\log q_\phi]=\int\partial_\phi q_\phi\,dz=\partial_\phi1=0$.
# So for $K=1$, where $\tilde r=1$, it adds noise and nothing else.
# {cite:t}`roeder2017` drop it: they hold $\phi$ fixed inside $\log q$ and keep the path alone.
# Their paper is called *Sticking the Landing*, and the estimator **STL**.
# When $q$ is the exact posterior, $\log r$ is constant and every single STL gradient is zero; the IWAE one is not.
#
# For $K>1$ the score is multiplied by $\tilde r_k$, which depends on $z_k$.
# The product need not have mean zero, and leaving it out is a bias.
# {cite:t}`roeder2017` suspected that it might be none; {cite:t}`tucker2019` showed that it is one.
#
# ### Reparameterise it again: DReG
#
# Do not drop the score; turn it into a path.
# For any smooth function $g$ that does not depend on $\phi$,
#
# $$
# \begin{aligned}
# &\mathbb E_{q}\Big[g(z)\,\frac{\partial\log q_\phi(z)}{\partial\phi}\Big]\\
# &\quad=\mathbb E_\varepsilon\Big[\frac{\partial g}{\partial z}\frac{\partial z}{\partial\phi}\Big].
# \end{aligned}
# $$ (eq-score-to-path)
#
# Both sides are the derivative of $\mathbb E_{q_\phi}[g(z)]$ in $\phi$.
# The left one differentiates the density in $\int q_\phi\,g\,dz$, the right one the path in $\mathbb E_\varepsilon[g(z(\varepsilon,\phi))]$.
#
# Apply it to one summand of the score in {eq}`eq-iwae-gradient`.
# Hold all other draws fixed, and take $g=\tilde r_k$ as a function of $z_k$ alone, with today's value of $\phi$ put in as a number.
# With $c$ for the sum of the other weights, $\tilde r_k=r_k/(r_k+c)$, and the quotient rule gives
#
# $$
# \frac{\partial\tilde r_k}{\partial z_k}=\tilde r_k(1-\tilde r_k)\,\frac{\partial\log r}{\partial z}(z_k).
# $$ (eq-weight-slope)
#
# So the score part has the mean of $\sum_k\tilde r_k(1-\tilde r_k)\,\partial_z\log r\;\partial_\phi z_k$.
# Subtract it from the path part, whose factor is $\tilde r_k$.
# What is left has the factor $\tilde r_k-\tilde r_k(1-\tilde r_k)=\tilde r_k^2$:
#
# $$
# \nabla_\phi\mathcal L_K=\mathbb E\sum_k\tilde r_k^{\,2}\,\frac{\partial\log r}{\partial z}\frac{\partial z_k}{\partial\phi}\,.
# $$ (eq-dreg)
#
# This is the **doubly reparameterised gradient**, DReG {cite:p}`tucker2019`.
# It is exact in the mean, and like STL it is silent when $q$ is the posterior.
# STL has $\tilde r_k$ where DReG has its square.
#
# ### Signal and noise
#
# For large $K$ the normalised weights are of the order $1/K$.
# The IWAE estimator adds $K$ nearly independent terms of that order, so its noise falls like $1/\sqrt K$.
# By {eq}`eq-bounds-rate` the signal falls like $1/K$.
# DReG adds $K$ terms of the order $1/K^2$: noise like $K^{-3/2}$, and the same signal.
# The **signal-to-noise ratio** is mean over standard deviation:
#
# $$
# \begin{aligned}
# \mathrm{SNR}_{\rm IWAE}&\sim1/\sqrt K\,,\\
# \mathrm{SNR}_{\rm DReG}&\sim\sqrt K .
# \end{aligned}
# $$ (eq-gradient-snr)
#
# The first rate is the discovery of {cite:t}`rainforth2018`, the second that of {cite:t}`tucker2019`.
# For the decoders' parameters the ratio grows like $\sqrt K$ in any case, since their signal does not fade.

# %% [markdown]
# ## DReG in a few lines
#
# In PyTorch there are two things to do.
# Take $q$ with its parameters detached, so that no score arises.
# Then ask that the gradient which reaches $z_k$ be multiplied by $\tilde r_k$ once more.
# A **hook** does that: a function, registered on a tensor, through which that tensor's gradient passes on its way back.

# %%
def dreg(q, z, log_joint):
    """The bound L_K, with DReG for q; z is [samples, batch, latent]."""
    log_w = log_joint(z) - q.detach().log_prob(z)
    weight = log_w.detach().softmax(0)
    z.register_hook(lambda grad: weight[..., None] * grad)
    return iwae(log_w)


def fresh(n=1000, K=5):
    (leaf,), (q,) = encoders(START, n)
    return leaf, q, sampled([q], K)[0]


leaf, q, z = fresh()
(ours,) = torch.autograd.grad(dreg(q, z, toy_log_joint).sum(), leaf)

leaf, q, z = fresh()
value = moe_bound([q], z[None], toy_log_joint, estimator="dreg")
(theirs,) = torch.autograd.grad(value.sum(), leaf)
torch.testing.assert_close(ours, theirs)

leaf, q, z = fresh()  # and equation (eq-dreg) to the letter
point = z.detach().requires_grad_()
log_w = toy_log_joint(point) - q.detach().log_prob(point)
(slope,) = torch.autograd.grad(log_w.sum(), point)
squares = log_w.detach().softmax(0).square()[..., None]
(formula,) = torch.autograd.grad(z, leaf, squares * slope)
torch.testing.assert_close(ours, formula)
print("A hook, the library and the formula give the same gradients.")

# %% [markdown]
# ## Bias and noise, measured
#
# We draw many gradients with each estimator at the starting point of the toy.
# The exact gradient is known, so the distance of the mean from it is the bias, up to a standard error.

# %%
def measure(params, estimator, ks, bound="loose"):
    """bias, its standard error, noise and signal / noise, each over ks."""
    rows = []
    for K in ks:
        _, truth = exact(params, K, bound)
        n = repeats(K)
        draws = gradients(params, K, estimator, n, bound)
        mean, noise = draws.mean(0), spread(draws)
        bias = (mean - truth).norm().item()
        ratio = mean.norm().item() / noise
        rows.append((bias, noise / math.sqrt(n), noise, ratio))
    return dict(zip(("bias", "error", "noise", "ratio"), zip(*rows)))


one = {name: measure(START, name, KS) for name in ("iwae", "stl", "dreg")}

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the code of this figure", "code_prompt_hide": "Hide the code of this figure"}
def floor(ax, found, ks, name):
    """A bias below about two of its standard errors is no finding."""
    ax.fill_between(
        ks, 1e-9, [2 * e for e in found["error"]], color=LOOK[name]["color"],
        alpha=0.15, linewidth=0,
    )


fig, axes = figure(5, 8, rows=3, sharex=True)
for name, found in one.items():
    floor(axes[0], found, KS, name)
    for ax, what in zip(axes, ("bias", "noise", "ratio")):
        ax.plot(KS, found[what], **LOOK[name])
axes[0].set(ylabel="bias", yscale="log", ylim=(1e-6, 2))
axes[1].set(ylabel="noise", yscale="log")
axes[2].set(ylabel="signal / noise", yscale="log", xlabel="samples K")
ticks_of_k(axes[2], KS)
legend(fig, axes[1], columns=3)
show(
    fig,
    alt=(
        "Three panels against the number of samples on logarithmic axes, for the"
        " estimators IWAE, STL and DReG. Bias: STL is within its band at one sample and"
        " then large and level; IWAE and DReG stay within their shaded error bands."
        " Noise: DReG falls fastest. Signal to noise: IWAE falls, DReG soon rises, and"
        " STL rises most."
    ),
    caption=(
        "One expert. A bias inside the shade of its colour, two standard errors, is"
        " compatible with none."
    ),
)

# %% [markdown]
# *Top.* IWAE and DReG have no bias that these draws could show.
# STL has none at $K=1$.
# With more samples its bias stays where it is while the gradient fades, and soon it is the larger of the two.
#
# *Middle.* DReG and STL are the same at $K=1$; after that DReG is the quietest, and its noise falls with a steeper slope.
#
# *Bottom.* This is {eq}`eq-gradient-snr`: one line goes down and one goes up.
# STL has the best ratio of all.
# It is very sure of a direction that is not the gradient of the bound.
#
# Papers predict the slopes, and slopes we can compute.

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the code of this table", "code_prompt_hide": "Hide the code of this table"}
def slope_of(values, ks):
    """The slope of log value against log K, over the upper half of ks."""
    half = len(ks) // 2
    x, y = (torch.tensor(v[half:]).double().log() for v in (ks, list(values)))
    return (
        ((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum()
    ).item()


table(
    "Claims of the papers, and this toy",
    ["claim", "predicted slope", "measured slope"],
    [
        ["gap of the bound, Burda et al.", "-1", f"{slope_of(gaps, many):.2f}"],
        [
            "noise of IWAE, Rainforth et al.",
            "-1/2",
            f"{slope_of(one['iwae']['noise'], KS):.2f}",
        ],
        [
            "true gradient, Rainforth et al.",
            "-1",
            f"{slope_of(signal.values(), KS):.2f}",
        ],
        [
            "noise of DReG, Tucker et al.",
            "-3/2",
            f"{slope_of(one['dreg']['noise'], KS):.2f}",
        ],
        [
            "signal to noise of DReG, Tucker et al.",
            "+1/2",
            f"{slope_of(one['dreg']['ratio'], KS):.2f}",
        ],
    ],
)

# %% [markdown]
# ### Does it matter?
#
# A biased direction may still be a good direction.
# In the toy all three estimators lead to the exact posterior, because the encoder can represent it.
# So take a model where it cannot: $x\mid z\sim\mathcal N(e^{3z/2},\tfrac14)$, whose posterior is skewed.
# We fit one Gaussian with $K=32$ and Adam, several times, and watch its width.
# Quadrature tells which width is best.

# %%
SKEW_K = 32
steps = {"smoke": 60}.get(profile, 800)
chains, draws_a_step = 12, 8


def skew_log_joint(z):
    z = z[..., 0]
    squares = (X - (1.5 * z).exp()).square()
    return -0.5 * z.square() - 2 * squares - math.log(math.pi)


def skew_bound(phi):
    """The exact bound of one Gaussian with phi = (mean, log s)."""
    q = Normal(phi[None, :1], 2 * phi[None, 1:])
    log_w = on_grid([q], skew_log_joint)
    return iwae_by_quadrature(log_w, PROBS, SKEW_K)


best = torch.tensor([0.0, -0.5]).double().requires_grad_()
search = torch.optim.LBFGS([best], line_search_fn="strong_wolfe")


def loss():
    search.zero_grad()
    value = -skew_bound(best)
    value.backward()
    return value


search.step(loss)


def fitted(estimator):
    """(mean, log s) of all chains at every step, [steps, chains, 2]."""
    phi = torch.tensor([[0.5, 0.0]]).double().repeat(chains, 1)
    phi.requires_grad_()
    adam = torch.optim.Adam([phi], lr=0.02)
    g = torch.Generator().manual_seed(seed)
    path = []
    for _ in range(steps):
        rows = phi.repeat_interleave(draws_a_step, 0)
        q = Normal(rows[:, :1], 2 * rows[:, 1:])
        z = q.rsample((SKEW_K,), g)
        value = moe_bound([q], z[None], skew_log_joint, estimator=estimator)
        adam.zero_grad()
        (-value.sum() / draws_a_step).backward()
        adam.step()
        path.append(phi.detach().clone())
    return torch.stack(path)


paths = {name: fitted(name) for name in ("iwae", "stl", "dreg")}

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the code of this figure", "code_prompt_hide": "Hide the code of this figure"}
fig, axes = figure(5, 6.4, rows=3, sharex=True, sharey=True)
for ax, (name, path) in zip(axes, paths.items()):
    ax.axhline(best[1].item(), label="best for this bound", **TRUTH)
    ax.plot(
        range(0, steps, 4), path[::4, :, 1], color=LOOK[name]["color"], linewidth=0.8,
        alpha=0.7, linestyle="-",
    )
    ax.set(ylabel=f"log s, {LOOK[name]['label']}")
axes[-1].set(xlabel="step")
legend(fig, axes[0])
show(
    fig,
    alt=(
        "Three panels of the fitted log width against the training step, twelve runs"
        " each, with the best value as a grey band. The runs of IWAE drift to the band"
        " slowly and scatter, those of STL fall quickly and stay together clearly below"
        " it, those of DReG fall quickly and stay on it."
    ),
    caption=(
        f"Fitting one Gaussian to a skewed posterior with K = {SKEW_K}. Every line is"
        " one run."
    ),
)

# %% [markdown]
# IWAE finds the right width in the end, after hundreds of steps in which noise moves it more than the gradient does.
# STL is there in a few dozen steps, at a posterior that is too narrow.
# DReG is as quick, and stops where the bound is largest.
#
# How bad is STL's answer?
# The next lines compare the exact bounds at the average end of the runs.
# With this $K$ the bound feels the width only a little, which is the lesson of {eq}`eq-bounds-rate` again: the bound forgives the encoder.
# Whoever uses the encoder itself, to cross between modalities for instance, will notice.

# %%
print(f"best  log s = {best[1]:.3f}, bound {skew_bound(best):.4f}")
for name, path in paths.items():
    end = path[-steps // 4 :].mean((0, 1))  # over runs and last steps
    reached = f"log s = {end[1]:.3f}, bound {skew_bound(end):.4f}"
    print(f"{LOOK[name]['label']:5} {reached}")

# %% [markdown]
# ## A hook on a copy
#
# Now read a program.
# The one that {cite:t}`shi2019` released computes the weights expert by expert, in a loop.
# At the end it stacks the samples of all experts into one tensor, and registers DReG's hook on that.
# In our words and names it does this:

# %%
def released(experts, z, log_joint):
    """z: a list of [samples, batch, latent], one for each expert."""
    frozen = Mixture(tuple(q.detach() for q in experts))
    log_w = []
    for part in z:
        log_w.append(log_joint(part) - frozen.log_prob(part))
    log_w = torch.stack(log_w)
    weight = log_w.detach().softmax(1)
    stacked = torch.stack(z)  # a new tensor, made after the weights
    calls = []

    def hook(grad):
        calls.append(1)
        return weight[..., None] * grad

    stacked.register_hook(hook)
    return (weight * log_w).sum(1).mean(0), calls


PAIR = [(0.2, 1.1), (0.9, 0.5)]
leaves, qs = encoders(PAIR, 1000)
value, calls = released(qs, list(sampled(qs, 5)), toy_log_joint)
slip = torch.cat(torch.autograd.grad(value.sum(), leaves), 1)
print("the hook was called", len(calls), "times")

for estimator in ("stl", "dreg"):
    leaves, qs = encoders(PAIR, 1000)
    z = sampled(qs, 5)
    value = moe_bound(qs, z, toy_log_joint, estimator=estimator)
    gradient = torch.cat(torch.autograd.grad(value.sum(), leaves), 1)
    same = torch.allclose(gradient, slip)
    print(f"the same gradients as {estimator}: {same}")
    assert same == (estimator == "stl")

# %% [markdown]
# The gradient flows back from the loss to the weights, from the weights to `z`, and from `z` to the encoder.
# The tensor `stacked` was made from `z` too, but nothing was computed *from it*.
# It is a dead branch: no gradient passes, and the hook is never called.
# Nothing crashes, and the value of the loss is the same with and without the hook.
# (It is not the value of the bound: the last line of `released` returns a stand-in, of which only the gradient is meant.)
# What remains is {eq}`eq-dreg` with $\tilde r_k$ in place of its square, and that is STL.
#
# So the published model was trained with a biased gradient whenever $K>1$.
# `MMVAE(estimator="stl")` reproduces it.
# The hook must sit on the very tensor that the weights are computed from.
# Better, test it: at $K=5$ compare the mean gradient with that of IWAE, as the exercises do.

# %% [markdown]
# ## DReG under a mixture
#
# Suppose the hook is mended.
# Is the gradient right now?
# Look for the place where the proof of {eq}`eq-dreg` used that the samples come from the density below the line.
# It did so once, at {eq}`eq-score-to-path`: the draws come from the very density whose score is turned into a path.
# In MMVAE the samples come from $q_m$ and the density below the line is $q_\Phi$.
# The square of the weight has no proof any more.
#
# ### The gradient that is right
#
# Take the loose bound, and the parameters $\phi_j$ of expert $j$.
# They move the samples of stratum $j$, and no others.
# And they sit below the line in *all* strata, with
#
# $$
# \frac{\partial\log q_\Phi(z)}{\partial\phi_j}=\rho_j(z)\,\frac{\partial\log q_j(z)}{\partial\phi_j},
# $$ (eq-mixture-score)
#
# because $q_\Phi$ is a sum and only one of its terms depends on $\phi_j$.
# So path and score are
#
# $$
# \begin{aligned}
# \nabla_{\phi_j}\mathcal L&=\frac1M\Big\{\mathbb E_{q_j}\sum_k\tilde r_k\,\partial_z\log r\,\partial_{\phi_j}z_k\\
# &-\sum_{m}\mathbb E_{q_m}\sum_k\tilde r_k\,\rho_j\,\partial_{\phi_j}\log q_j\Big\},
# \end{aligned}
# $$ (eq-mixture-gradient)
#
# with everything inside the sums taken at $z_{jk}$ or $z_{mk}$, and $\tilde r_k$ normalised within its stratum.
# In the term $m=j$ of the last sum the samples do come from $q_j$.
# There {eq}`eq-score-to-path` applies, with $g=\tilde r_k\,\rho_j$.
# By {eq}`eq-weight-slope` and the product rule,
#
# $$
# \begin{aligned}
# \partial_zg&=\tilde r_k(1-\tilde r_k)\,\rho_j\,\partial_z\log r\\
# &\quad+\tilde r_k\,\partial_z\rho_j .
# \end{aligned}
# $$ (eq-bounds-product-rule)
#
# Collect the terms:
#
# $$
# \begin{aligned}
# &\nabla_{\phi_j}\mathcal L=\frac1M\Big\{\mathbb E_{q_j}\sum_k\Big[\\
# &\quad\tilde r_k\,(1-\rho_j+\rho_j\tilde r_k)\,\partial_z\log r\\
# &\quad-\tilde r_k\,\partial_z\rho_j\Big]\,\partial_{\phi_j}z_k\\
# &\;-\sum_{m\ne j}\mathbb E_{q_m}\sum_k\tilde r_k\,\rho_j\,\partial_{\phi_j}\log q_j\Big\}.
# \end{aligned}
# $$ (eq-dreg-mix)
#
# The last sum remains a score: $\phi_j$ cannot move samples that another expert drew, so there is no path to put in its place.
# For one expert $\rho=1$, its slope is zero, no other stratum exists, and {eq}`eq-dreg` comes back.
# For the tight bound normalise $\tilde r$ over all $MK$ weights and drop the factor $\frac1M$; the derivation is the same.
# The library calls this estimator `dreg_mix`.
# The identity behind it is {eq}`eq-score-to-path`; {cite:t}`bauer2021` extend that identity further, to scores of densities that the samples do not come from.
#
# ### How wrong is the square?
#
# We measure as before, now with two encoders that differ.
# A **z-score** is the distance of a mean from the exact value in standard errors; without bias it is seldom beyond three.

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the code of this table", "code_prompt_hide": "Hide the code of this table"}
def z_scores(estimator, K, bound, n):
    _, truth = exact(PAIR, K, bound)
    draws = gradients(PAIR, K, estimator, n, bound)
    return (draws.mean(0) - truth) / draws.std(0) * math.sqrt(n)


n = {"smoke": 2_000}.get(profile, 40_000)
rows = []
for which, K in (
    ("loose", 1),
    ("loose", 5),
    ("loose", 20),
    ("tight", 5),
    ("tight", 20),
):
    worst = {
        name: z_scores(name, K, which, n // (1 + K // 10)).abs().max().item()
        for name in LOOK
    }
    rows.append(
        [
            f"{which}, K = {K}",
            f"{n // (1 + K // 10)}",
            *(f"{v:.1f}" for v in worst.values()),
        ]
    )
    assert worst["iwae"] < 5 and worst["dreg_mix"] < 5
table(
    "The largest z-score of the four gradient components",
    ["bound", "n", *(s["label"] for s in LOOK.values())], rows,
)

_, truth = exact(PAIR, 20)
wrong = gradients(PAIR, 20, "dreg", n // 3).mean(0)
print("loose bound, K = 20, gradient in a and log s of both experts")
print("  exact        ", "  ".join(f"{v:+.4f}" for v in truth))
print("  mean of DReG ", "  ".join(f"{v:+.4f}" for v in wrong))

# %% [markdown]
# Two columns are quiet, IWAE and DReG for mixtures.
# STL and plain DReG are biased far beyond chance, once $K>1$.
# The two lines below the table show what that means for one gradient: some components are off by a factor, and a sign may be wrong.
# Under the tight bound the square is less wrong, but still wrong.
# With $K=1$ in the loose bound all normalised weights are one, and every estimator is right.

# %%
ks = [1, 2, 4, 8, 16, 32, 64] if profile != "smoke" else [1, 4, 16]
two = {name: measure(PAIR, name, ks) for name in LOOK}
length = [exact(PAIR, K)[1].norm().item() for K in ks]

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the code of this figure", "code_prompt_hide": "Hide the code of this figure"}
fig, (top, bottom) = figure(5, 6, rows=2, sharex=True)
for name, found in two.items():
    floor(top, found, ks, name)
    top.plot(ks, found["bias"], **LOOK[name])
    bottom.plot(ks, found["noise"], **LOOK[name])
top.plot(ks, length, label="length of the true gradient", **TRUTH)
top.set(ylabel="bias", yscale="log", ylim=(5e-4, 2))
bottom.set(ylabel="noise", yscale="log", xlabel="samples K of each expert")
ticks_of_k(bottom, ks)
legend(fig, top)
show(
    fig,
    alt=(
        "Two panels against the number of samples, both logarithmic, for two experts"
        " and the loose bound. Bias: STL is far above the true gradient, plain DReG"
        " rises to about its size, IWAE and DReG for mixtures stay within their shaded"
        " error bands. Noise: plain DReG is lowest and falls fastest, DReG for mixtures"
        " lies below IWAE by a constant factor."
    ),
    caption=(
        "Two experts, loose bound. The grey band is the length of the exact gradient: a"
        " bias near it makes the direction worthless."
    ),
)

# %% [markdown]
# The correct estimator is quieter than IWAE by a factor, not by a rate, because its score terms in the other strata stay.
# The noise of plain DReG does fall fast, around the wrong mean.
# If you want the bound's own gradient, use `iwae` or `dreg_mix`.
#
# ### The linear-time bound has a trap of its own
#
# Take $m\ne d$ in {eq}`eq-linear-time`.
# The expectation of $\frac{q_m}{q_d}\log p(x_d\mid z)$ under $q_d$ does not depend on $q_d$ at all.
# Expert $d$ must get no gradient from it.
# The released program detaches $q_d$ and $z_d$ inside the ratio, so the ratio counts as a number.
# But it lets the gradient pass through $z_d$ into $\log p(x_d\mid z_d)$.
# A path without its score is again half a gradient.
#
# We test it in a world with two modalities, $x_d\mid z\sim\mathcal N(c_dz,1)$.
# There every expectation is that of a quadratic, so the exact gradient has a closed form.
# In the first row of the table only the term $m=d$ moves the samples of expert $d$; in the second row all terms do, as in the released program.

# %%
SLOPES = (0.8, 1.2)  # x_d | z ~ N(c_d z, 1), both observed at x = 1.3
CLOSE = [(0.2, 0.9), (0.6, 0.8)]


def own_log_px(z):
    """log p(x_d | z_d) of each expert's samples, [experts, ...]."""
    gaps = [X - c * part[..., 0] for c, part in zip(SLOPES, z)]
    return -0.5 * torch.stack(gaps).square() - 0.5 * math.log(2 * math.pi)


def divergences(qs):
    prior = Normal.standard(*qs[0].mean.shape, like=qs[0].mean)
    return torch.stack([kl(q, prior) for q in qs])


leaves, qs = encoders(CLOSE, 1)
fit = sum(
    0.5 * (math.log(2 * math.pi) + (X - c * q.mean) ** 2 + c * c * q.var)
    for c in SLOPES
    for q in qs
)
closed_form = -(fit.sum() + divergences(qs).sum()) / 2  # the naive bound
truth = torch.cat(torch.autograd.grad(closed_form, leaves), 1)[0]

n = {"smoke": 5_000}.get(profile, 100_000)
rows = []
for name in ("only the own term moves the samples", "as released"):
    leaves, qs = encoders(CLOSE, n)
    value = moe_linear_time(
        qs, sampled(qs, 2), own_log_px, divergences(qs),
        released_gradient=name == "as released",
    )
    draws = torch.cat(torch.autograd.grad(value.sum(), leaves), 1)
    off = (value.mean() - closed_form).abs() / value.std() * math.sqrt(n)
    worst = (draws.mean(0) - truth).abs() / draws.std(0) * math.sqrt(n)
    rows.append([name, f"{off.item():.1f}", f"{worst.max().item():.1f}"])
title = f"Linear-time bound, z-scores, n = {n}"
table(title, ["gradient", "value", "largest of the gradient"], rows)

# %% [markdown]
# The value is right both times.
# The gradient is right once.

# %% [markdown]
# ## The papers' claims and ours
#
# The five papers of this book print no number that this page could stand beside: they report trained models, and here is a world of one latent.
# But they make claims, and those can be checked.
#
# | claim | where | what this page finds |
# |---|---|---|
# | the bound rises with $K$ | {cite:t}`burda2016`, theorem 1 | proven, {eq}`eq-bounds-subsets`, and seen without sampling error |
# | the gradient's signal-to-noise ratio falls | {cite:t}`rainforth2018` | yes, with the predicted slope |
# | DReG is unbiased and its ratio rises | {cite:t}`tucker2019` | yes, for one density |
# | the loose bound gives all modalities equal weight | {cite:t}`shi2019`, section 3 | yes, and so it stays below $\log p(x)$ unless they share the posterior equally, {eq}`eq-moe-limit` |
# | both mixture bounds are trained with DReG | {cite:t}`shi2019`, section 3 | no: the hook is dead, STL was trained |
# | DReG can be used for the mixture | the same | no: biased for $K>1$; {eq}`eq-dreg-mix` is not |

# %% [markdown]
# ## Pitfalls, some of them in print
#
# **A dead hook looks like a live one.**
# The loss does not change, training works, and the numbers are plausible.
# Only a test of the gradient's mean finds it.
#
# **Low noise is not quality.**
# STL and plain DReG have the best signal-to-noise ratios under a mixture, and the wrong signal.
# Report a bias next to a variance, or do not report the variance.
#
# **More samples are not always better.**
# For the decoders they are.
# For the encoder with the plain gradient they are worse, and the bound does not show it.
#
# **The loose bound is not an estimate of the likelihood.**
# Its limit depends on the experts.
# For test likelihoods use the tight one, as {cite:t}`shi2019` do.
#
# **Weights inside the bound.**
# With a likelihood weight $\lambda_m\ne1$ on $\log p(x_m\mid z)$ the product in {eq}`eq-moe-weight` is no joint density, and none of the inequalities above says anything about $\log p(x)$.
# The released MMVAE program weighs its pictures so.
#
# **Infinite variance.**
# Equation {eq}`eq-bounds-rate` needs a finite variance of the weights.
# If a Gaussian $q$ has less than half the variance of a Gaussian posterior it is infinite; the bound still holds, but it climbs more slowly, and an error bar computed from draws cannot be trusted.
#
# **Averages in the wrong order.**
# `log_w.mean(0)` is the ELBO, `log_w.logsumexp(0) - log(K)` is IWAE.
# The first runs just as well.

# %% [markdown]
# ## When to use which
#
# | you want | use | because |
# |---|---|---|
# | a first model that trains | the ELBO | one sample, a strong signal for the encoder |
# | a better decoder, one posterior | IWAE's bound with DReG | the gradient stays useful as $K$ grows |
# | a mixture of experts | the loose bound with `iwae` or `dreg_mix` | all experts learn, and the gradient is that of the bound |
# | the numbers of the MMVAE paper | `stl` | it is what was run |
# | a test likelihood | the tight bound, large $K$ | it is the highest, and it arrives |
#
# Think twice before you raise $K$ to improve an *encoder*.

# %% [markdown]
# ## Exercises
#
# Each exercise has a stub to fill in, a check and a hidden solution.
# Ask the check as often as you like; it says what is not right yet.
# In the code, `PROBS` and `points` are the grid of this page, and `EXPERTS` are the unimodal posteriors of LG3.

# %% [markdown]
# ```{exercise} Prove that loose is at most tight
# :label: ex-bounds-order
#
# Let $A_m=\frac1K\sum_kr(z_{mk})$.
# The tight estimate minus the loose one is $\log\frac1M\sum_mA_m-\frac1M\sum_m\log A_m$.
# Show on paper that this is $\mathrm{KL}(u\,\|\,\alpha)$, with the uniform distribution $u$ and a distribution $\alpha$ over the experts.
# Since a divergence is never negative, that is the proof, draw by draw.
# Return $\alpha$, of shape `[experts]`, from `log_w` of shape `[experts, samples]`.
# It must not overflow for large `log_w`.
# ```
#
# ```{admonition} Hint
# :class: dropdown tip
# Write $\mathrm{KL}(u\,\|\,\alpha)=\frac1M\sum_m\log\frac{1}{M\alpha_m}$ and compare it with the difference term by term.
# For the code: what does a softmax do to logarithms?
# ```

# %% tags=["exercise"]
def shares_of_the_experts(log_w):
    raise NotImplementedError

# %%
check("bounds-order", shares_of_the_experts)

# %% tags=["solution", "hide-cell"] mystnb={"code_prompt_show": "Show the solution", "code_prompt_hide": "Hide the solution"}
def shares_of_the_experts(log_w):
    # alpha_m = A_m / sum_j A_j; the factor 1/K cancels
    return log_w.logsumexp(1).softmax(0)


# KL(u || alpha) = 1/M sum_m log (sum_j A_j / (M A_m)), which is the
# difference. With many samples alpha tends to the experts' shares of the
# posterior, and the difference to the one in eq-moe-limit.
check("bounds-order", shares_of_the_experts).require()

# %% [markdown]
# ```{exercise} The ELBO of a mixture
# :label: ex-bounds-moe-elbo
#
# Compute the ELBO of the mixture of the three exact unimodal posteriors of LG3, $\mathbb E_{q_\Phi}[\log p(x,z)-\log q_\Phi(z)]$, without drawing a sample.
# Return one number, in nats.
# Then compare it with the divergence of $q_\Phi$ from the exact posterior.
# ```
#
# ```{admonition} Hint
# :class: dropdown tip
# An expectation under the mixture is the average of the three expectations under `EXPERTS`.
# Under each, use `points(q)` and the probabilities `PROBS`; `lg3_log_joint` takes `[nodes, 1]`.
# `Mixture(tuple(EXPERTS)).log_prob(z[:, None])` has shape `[nodes, 1]`.
# ```

# %% tags=["exercise"]
def moe_elbo():
    raise NotImplementedError

# %%
check("bounds-moe-elbo", moe_elbo)

# %% tags=["solution", "hide-cell"] mystnb={"code_prompt_show": "Show the solution", "code_prompt_hide": "Hide the solution"}
def moe_elbo():
    mixture = Mixture(tuple(EXPERTS))
    total = 0.0
    for q in EXPERTS:
        z = points(q)
        log_w = lg3_log_joint(z) - mixture.log_prob(z[:, None])[:, 0]
        total = total + (PROBS * log_w).sum()
    return total / len(EXPERTS)


# The evidence minus this number is KL(mixture || exact posterior).
check("bounds-moe-elbo", moe_elbo).require()

# %% [markdown]
# ```{exercise} Repair the dead hook
# :label: ex-bounds-hook
#
# This function should return the bound $\mathcal L_K$ with the gradient of DReG.
# Its value is right and its gradient is not.
# `q` is a `Normal` of shape `[batch, 1]`, `noise` is `[samples, batch, 1]`, and the result is `[batch]`.
# Find the slip, and write the function right.
# ~~~python
# def dreg_bound(q, noise, log_joint):
#     z = q.mean + q.std * noise
#     log_w = log_joint(z) - q.detach().log_prob(z)
#     weight = log_w.detach().softmax(0)
#     samples = torch.stack(list(z))
#     samples.register_hook(lambda grad: weight[..., None] * grad)
#     return iwae(log_w)
# ~~~
# ```
#
# ```{admonition} Hint
# :class: dropdown tip
# Draw the graph from the loss back to `q.mean`.
# Which tensors lie on the way?
# ```

# %% tags=["exercise"]
def dreg_bound(q, noise, log_joint):
    raise NotImplementedError

# %%
check("bounds-hook", dreg_bound)

# %% tags=["solution", "hide-cell"] mystnb={"code_prompt_show": "Show the solution", "code_prompt_hide": "Hide the solution"}
def dreg_bound(q, noise, log_joint):
    z = q.mean + q.std * noise
    log_w = log_joint(z) - q.detach().log_prob(z)
    weight = log_w.detach().softmax(0)
    z.register_hook(lambda grad: weight[..., None] * grad)
    return iwae(log_w)


# The hook belongs on z, which the weights are computed from. Stacking first
# and computing the weights from the stack would do as well.
check("bounds-hook", dreg_bound).require()

# %% [markdown]
# ```{exercise} A test for an estimator
# :label: ex-bounds-detect
#
# `draws` holds $n$ independent draws of a gradient, `[n, parameters]`, and `exact` is the exact gradient, `[parameters]`.
# Return the largest absolute z-score over the parameters.
# Then try it on the estimators of this page: how many draws does it take to expose STL at $K=5$?
# ```
#
# ```{admonition} Hint
# :class: dropdown tip
# The mean of $n$ draws has a standard error smaller than the standard deviation of one.
# ```

# %% tags=["exercise"]
def largest_z_score(draws, exact):
    raise NotImplementedError

# %%
check("bounds-detect", largest_z_score)

# %% tags=["solution", "hide-cell"] mystnb={"code_prompt_show": "Show the solution", "code_prompt_hide": "Hide the solution"}
def largest_z_score(draws, exact):
    error = draws.std(0) / math.sqrt(len(draws))
    return ((draws.mean(0) - exact) / error).abs().max()


check("bounds-detect", largest_z_score).require()

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Show the answer to the question", "code_prompt_hide": "Hide the answer to the question"}
_, truth = exact(START, 5)
for n in (4, 16, 64, 256, 1024):
    found = {name: largest_z_score(gradients(START, 5, name, n), truth).item() for name in ("stl", "dreg")}
    print(f"n = {n:4}: STL {found['stl']:5.1f}, DReG {found['dreg']:4.1f}")

# %% [markdown]
# ```{exercise} What a direction costs
# :label: ex-bounds-budget
#
# One draw of a gradient component uses $K$ samples and has mean `mean` and standard deviation `sd`.
# We average $n$ draws until the mean is $c$ standard errors away from zero.
# Return the number of latent samples that takes in all, $nK$, as a real number.
# With the rates {eq}`eq-gradient-snr`, how does it grow with $K$ for IWAE, and how for DReG?
# ```
#
# ```{admonition} Hint
# :class: dropdown tip
# The standard error of the mean is `sd` divided by the square root of $n$. Set $c$ of them equal to the mean and solve for $n$.
# ```

# %% tags=["exercise"]
def samples_needed(mean, sd, K, c):
    raise NotImplementedError

# %%
check("bounds-budget", samples_needed)

# %% tags=["solution", "hide-cell"] mystnb={"code_prompt_show": "Show the solution", "code_prompt_hide": "Hide the solution"}
def samples_needed(mean, sd, K, c):
    return K * (c * sd / mean) ** 2


# n goes like one over the squared ratio: K for IWAE, 1/K for DReG.
# In all that is K squared for IWAE, and a constant for DReG.
check("bounds-budget", samples_needed).require()

# %% [markdown]
# ```{exercise} The factor under a mixture (harder)
# :label: ex-bounds-factor
#
# In {eq}`eq-dreg-mix` the path of expert $j$'s own samples has the factor $\tilde r_k\,(1-\rho_j+\rho_j\tilde r_k)$.
# Compute it for the loose bound.
# `log_joint` is $\log p(x,z)$ at the $K$ samples of expert $j$, `[samples]`.
# `log_q` holds $\log q_m$ of all experts at these samples, `[experts, samples]`.
# What is the factor if the experts do not overlap, and what if they are all the same?
# ```
#
# ```{admonition} Hint
# :class: dropdown tip
# The responsibilities are a softmax over the experts.
# The weights need the density of the mixture, and the normalisation is over the samples.
# ```

# %% tags=["exercise"]
def own_factor(log_joint, log_q, j):
    raise NotImplementedError

# %%
check("bounds-factor", own_factor)

# %% tags=["solution", "hide-cell"] mystnb={"code_prompt_show": "Show the solution", "code_prompt_hide": "Hide the solution"}
def own_factor(log_joint, log_q, j):
    rho = log_q.softmax(0)[j]
    # log of the sum over experts; its 1/M cancels when we normalise
    weight = (log_joint - log_q.logsumexp(0)).softmax(0)
    return weight * (1 - rho + rho * weight)


# Far apart: rho is one on expert j's own samples, and the factor is the
# square, as for a single density. All the same: rho is 1/M.
check("bounds-factor", own_factor).require()

# %% [markdown]
# ## Further reading
#
# {cite:t}`burda2016` introduce the bound and prove that it rises; {eq}`eq-bounds-subsets` is their proof.
# {cite:t}`rainforth2018` show that tighter is not better for the encoder.
# {cite:t}`roeder2017` drop the score; {cite:t}`tucker2019` show what that costs, and give DReG.
# {cite:t}`bauer2021` extend DReG to hierarchical models and to scores of other densities, and are the place to look for an estimator with less noise than {eq}`eq-dreg-mix`.
# {cite:t}`shi2019` bring the mixture: section 3 has the loose bound, the appendices the tight and the linear-time one.
