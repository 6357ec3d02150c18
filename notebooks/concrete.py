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
# # Discrete latents and the concrete product
#
# ```{admonition} Before you start
# :class: note
# You need the [product of experts](gaussian_experts.ipynb), the exponential distribution, and the change of variables in an integral.
# Two small classifiers are trained on this page, on one CPU core.
# Everything else is computed exactly, or drawn at random and counted.
# ```

# %% tags=["parameters", "hide-input"] mystnb={"code_prompt_show": "Show the settings", "code_prompt_hide": "Hide the settings"}
profile = "lite"
seed = 0
device = "cpu"

# %% tags=["setup", "hide-input"] mystnb={"code_prompt_show": "Show the imports", "code_prompt_hide": "Hide the imports"}
import math

import torch
from torch.nn import functional as F

from mmvae_lite.data import best_available
from mmvae_lite.distributions import Concrete, Normal, categorical_kl
from mmvae_lite.exercises import check
from mmvae_lite.experts import concrete_product, concrete_root, product

# %% [markdown]
# ## The question
#
# A handwritten digit is one of ten things.
# Two witnesses saw half of it each.
# The left half says: *a four or a nine, I cannot tell.*
# The right half says: *a nine or a seven.*
# Together they leave one answer, a nine.
#
# Now let the witnesses speak in Gaussians, as the [Gaussian experts](gaussian_experts.ipynb) do.
# We lay the digits on a line, digit $k$ at the point $k$.
# Each belief becomes the Gaussian that has its mean and variance, and we multiply:
#
# $$
# \begin{gathered}
# \tfrac12\{4\}+\tfrac12\{9\}\;\to\;\mathcal N(6.5,\,6.25),\\
# \tfrac12\{9\}+\tfrac12\{7\}\;\to\;\mathcal N(8,\,1),\\
# \mu=\frac{0.16\cdot6.5+1\cdot8}{0.16+1}\approx7.79 .
# \end{gathered}
# $$
#
# The nearest digit is an eight, which no witness ever named.

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the plotting helpers", "code_prompt_hide": "Hide the plotting helpers"}
from functools import partial

from mmvae_lite.plotting import PALETTE, figure, legend, show, table

table = partial(table, digits=4, one_line=True)

MUTED = "#808080"

# %%
digits = torch.arange(10.0)
left, right = torch.zeros(2, 10)
left[[4, 9]] = 0.5
right[[9, 7]] = 0.5

both = left * right / (left * right).sum()  # multiply the beliefs


def as_gaussian(belief):
    """The Gaussian on the line with the mean and variance of a belief."""
    mean = (belief * digits).sum()
    var = (belief * (digits - mean) ** 2).sum()
    return Normal(mean[None, None], var.log()[None, None])


gaussians = [as_gaussian(left), as_gaussian(right)]
q = product(gaussians)
assert both.argmax() == 9 and q.mean.round() == 8

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the code of this figure", "code_prompt_hide": "Hide the code of this figure"}
fig, (top, bottom) = figure(5, 4.6, rows=2, sharex=True)
for i, (belief, name) in enumerate(
    ((left, "left half"), (right, "right half"), (both, "product"))
):
    top.bar(
        digits + 0.27 * (i - 1), belief, width=0.25, color=PALETTE[i], label=name,
        hatch=("//", "..", None)[i], edgecolor="white", linewidth=0,
    )
line = torch.linspace(-0.5, 9.5, 400)
for i, g in enumerate((*gaussians, q)):
    bottom.plot(
        line, g.log_prob(line[:, None, None]).exp()[:, 0], color=PALETTE[i],
        linestyle=(":", "--", "-")[i],
    )
bottom.axvline(q.mean.item(), color=MUTED, linewidth=1, linestyle="-.")
bottom.set(xlabel="digit", ylabel="density on the line", xticks=range(10))
top.set(ylabel="probability")
legend(fig, top, columns=3)
show(
    fig,
    alt=(
        "Two panels over the digits zero to nine. Above, the left half gives four and"
        " nine half each, the right half seven and nine half each, and their product is"
        " a single bar at nine. Below, the same beliefs as Gaussians: the product peaks"
        " close to eight, where no witness had any probability."
    ),
    caption=(
        "Above, beliefs over classes: the product keeps what both allow. Below, the"
        " same beliefs as Gaussians on a line: the product stands at a digit that"
        " nobody named."
    ),
)

# %% [markdown]
# The product is not to blame.
# A Gaussian has one hump, so it cannot say *either, or*.
# Its mean lies between the two candidates, and on a line something else lives there.
# A better order of the digits mends this pair of witnesses and breaks another.
# More dimensions help, because there is more room between ten points; we measure that below, on real halves of digits.
# But the code that a digit wants is plain: one of ten, and a probability for each.
#
# {cite:t}`lee2020` tried both in one model, DMVAE-L.
# The table quotes how often the model names the class of a picture right, from their table 8.
# (Its discrete values are those of their table 1 with two labelled pairs in a thousand.)
#
# :::{list-table}
# :header-rows: 1
#
# * - shared code of DMVAE-L
#   - MNIST
#   - Fashion-MNIST
# * - continuous, Gaussian
#   - {paper}`dmvae-l:table-8:mnist/continuous`
#   - {paper}`dmvae-l:table-8:fmnist/continuous`
# * - discrete, ten classes
#   - {paper}`dmvae-l:table-8:mnist/discrete`
#   - {paper}`dmvae-l:table-8:fmnist/discrete`
# :::
#
# A discrete code brings a difficulty of its own.
# Training needs gradients, and there is no derivative of "a four or a nine".
# This chapter shows the usual way out, the **concrete distribution**, and then a trap: what happens when two of them are multiplied.
#
# **After this chapter you can**
#
# - draw from a categorical distribution by a race, and prove that it works;
# - derive the density of the concrete distribution with pen and paper;
# - say what a temperature changes and what it can never change;
# - choose between three gradients for a discrete code, knowing which is biased and which is noisy;
# - show that a product of concrete densities may have no finite integral, and say what to multiply instead.

# %% [markdown]
# ## A race picks the class
#
# There are $n$ classes with weights $\pi_1,\dots,\pi_n>0$.
# They need not sum to one.
# We want a random class $c$ with $P(c=k)=\pi_k/\sum_j\pi_j$.
# And we want it as a fixed function of the weights and of some noise that knows nothing about the weights.
# Then a gradient with respect to the weights has a way through.
#
# Let $n$ runners race.
# Runner $k$ needs an exponential time $W_k$ with rate $\pi_k$, so that $P(W_k>t)=e^{-\pi_kt}$.
# A large rate is a fast runner.
# The runners are independent, and the first to arrive is the class.
# Runner $k$ wins if it arrives at some time $t$ while all others are still on the way:
#
# $$
# \begin{aligned}
# P(c=k)&=\int_0^\infty \pi_ke^{-\pi_kt}\prod_{j\ne k}e^{-\pi_jt}\,dt\\
# &=\pi_k\int_0^\infty e^{-t\sum_j\pi_j}\,dt\\
# &=\frac{\pi_k}{\sum_j\pi_j}\,.
# \end{aligned}
# $$ (eq-race)
#
# That is the whole proof.
# To get the noise away from the weights, note that $W_k=E_k/\pi_k$ has rate $\pi_k$ if $E_k$ has rate one.
# The smallest $W_k$ has the largest $-\log W_k=\log\pi_k-\log E_k$.
# So with $G_k=-\log E_k$ the winner is
#
# $$
# \begin{gathered}
# c=\arg\max_k\,\big(\log\pi_k+G_k\big),\\
# P(c=k)=\frac{\pi_k}{\sum_j\pi_j}\,.
# \end{gathered}
# $$ (eq-gumbel-max)
#
# This is the **Gumbel-max theorem**.
# The noise $G_k$ has the distribution function $P(G_k\le g)=P(E_k\ge e^{-g})=e^{-e^{-g}}$, which is called **Gumbel**.
# If $u$ is uniform on $(0,1)$ then $-\log u$ is exponential, so $G=-\log(-\log u)$.
# That is the formula found in papers and programs.
# The race says why it works.

# %%
g = torch.Generator().manual_seed(seed)
draws = {"smoke": 20_000}.get(profile, 500_000)
pi = torch.tensor([4.0, 3.0, 2.0, 1.0], dtype=torch.float64)

E = torch.empty(draws, 4, dtype=torch.float64).exponential_(generator=g)
first = (E / pi).argmin(-1)  # the race
largest = (pi.log() - E.log()).argmax(-1)  # the same draw, as Gumbel-max
assert torch.equal(first, largest)

counted = torch.bincount(first, minlength=4) / draws
names = [f"class {k + 1}" for k in range(4)]
table(f"Winners of {draws} races", ["", *names],
      [["pi / sum", *pi / pi.sum()], ["share of races won", *counted]])
assert (counted - pi / pi.sum()).abs().max() < 4 * 0.5 / draws**0.5

# %% [markdown]
# ## From a winner to a podium
#
# The argmax is a step.
# Move a weight a little and the winner stays the same, so the derivative is zero almost everywhere.
# {cite:t}`maddison2017` and {cite:t}`jang2017` replaced it, independently and at the same time, by a softmax with a **temperature** $\tau>0$:
#
# $$
# \begin{aligned}
# z_k&=\frac{\exp\big((\log\pi_k+G_k)/\tau\big)}{\sum_j\exp\big((\log\pi_j+G_j)/\tau\big)}\\
# &=\frac{W_k^{-1/\tau}}{\sum_jW_j^{-1/\tau}}\,.
# \end{aligned}
# $$ (eq-concrete-draw)
#
# This is equation 6 of {cite:t}`lee2020`, who write $T$ for our $\tau$.
# Now every runner gets a share of the prize, and the shares $z=(z_1,\dots,z_n)$ add up to one.
# Such a $z$ is a point of the **simplex**, whose vertices are the classes.
# The distribution of $z$ is $\mathrm{Concrete}(\pi,\tau)$: *continuous* and *discrete* in one word.
#
# Two things can be read off at once.
#
# - A softmax keeps the order. The largest share goes to the winner of the race, **at every temperature**, so {eq}`eq-gumbel-max` holds for $\arg\max_kz_k$ exactly.
# - Temperature sets how the prize is split. As $\tau\to0$ the winner takes it all, and $z$ tends to a vertex. As $\tau\to\infty$ everybody gets $1/n$.
#
# ### Two classes, completely
#
# With $n=2$ the share $z_1$ says everything, and it is best looked at on the **logit** axis, $t=\log(z_1/z_2)$.
# By {eq}`eq-concrete-draw` it is $t=(\log\frac{\pi_1}{\pi_2}+G_1-G_2)/\tau$.
# The difference of two Gumbel variables is again a race: $G_1-G_2\le s$ means $E_2\le e^sE_1$.
# The time $E_2e^{-s}$ has rate $e^s$, and it beats $E_1$ with probability $e^s/(1+e^s)=\sigma(s)$, the logistic function.
# Hence
#
# $$
# P(t\le s)=\sigma\Big(\tau s-\log\frac{\pi_1}{\pi_2}\Big).
# $$ (eq-concrete-logit)
#
# A logistic distribution, centred at $\frac1\tau\log\frac{\pi_1}{\pi_2}$, with scale $1/\tau$.
# Temperature does one thing: it stretches the logit axis.
# It cannot change on which side of zero a draw lies.

# %% [markdown]
# ### The density, for any number of classes
#
# We change variables from the arrival times $w_1,\dots,w_n$ to the shares $z$ and one more number $s$.
# Choose $s=\big(\sum_jw_j^{-1/\tau}\big)^{-\tau}$.
# Then {eq}`eq-concrete-draw` reads backwards $w_k=s\,z_k^{-\tau}$, that is
#
# $$
# \log w_k=\log s-\tau\log z_k .
# $$
#
# This $s$ is a common scale of all times, and no longer the bound on $t$ of the last section.
# The free variables are $\log s$ and $z_1,\dots,z_{n-1}$, with $z_n=1-z_1-\dots-z_{n-1}$.
# Write down the matrix of derivatives of $\log w_k$.
# Its first column is all ones.
# The column of $z_i$ has $-\tau/z_i$ in row $i$, $+\tau/z_n$ in row $n$, and zeros elsewhere.
# Multiply the last row by $z_n$, and add to it every other row times its own $z_k$.
# It becomes $(1,0,\dots,0)$, because the shares add up to one and $-\tau+\tau=0$.
# What remains is a diagonal, and we only have to divide by $z_n$ again:
#
# $$
# \bigg|\frac{\partial(\log w_1,\dots,\log w_n)}{\partial(\log s,z_1,\dots,z_{n-1})}\bigg|
# =\tau^{n-1}\prod_{k=1}^n\frac1{z_k}\,.
# $$
#
# The density of all $\log w_k$ together is $\prod_k\pi_kw_ke^{-\pi_kw_k}$.
# Put $w_k=sz_k^{-\tau}$ in, multiply by the determinant, and integrate $s$ away.
# The $n$ factors $w_k$ bring $s^n$, and $d\log s=ds/s$ takes one $s$ back.
# With $A=\sum_j\pi_jz_j^{-\tau}$ the integral is $\int_0^\infty s^{n-1}e^{-sA}\,ds=(n-1)!\,/A^n$, and
#
# $$
# \begin{aligned}
# f_{\pi,\tau}(z)&=(n-1)!\;\tau^{n-1}\\
# &\quad\times\frac{\prod_{k=1}^n\pi_k\,z_k^{-\tau-1}}{\big(\sum_{j=1}^n\pi_j\,z_j^{-\tau}\big)^n}\,.
# \end{aligned}
# $$ (eq-concrete-density)
#
# It is a density of the first $n-1$ shares.
# Multiplying all weights by one number changes nothing: it cancels.
# This is equation 7 of the paper.
# In one line its brackets are easily lost: the sum stands under the product sign, once for each factor, and so gets the power $n$.
# With the power one the formula does not integrate to one.

# %% [markdown]
# ## Ten lines of code
#
# The logarithm of {eq}`eq-concrete-density`, and a draw by {eq}`eq-concrete-draw`.

# %%
def draw(log_pi, tau, E):
    """Shares z, [draws, n], from exponential noise E of that shape."""
    return ((log_pi - E.log()) / tau).softmax(-1)


def log_density(log_pi, tau, z):
    """log f(z) for z of shape [..., n]."""
    n, log_z = z.shape[-1], z.log()
    terms = log_pi - tau * log_z  # log of pi_k z_k^-tau
    constant = math.lgamma(n) + (n - 1) * math.log(tau)
    return constant + (terms - log_z).sum(-1) - n * terms.logsumexp(-1)


log_pi, tau = torch.randn(5, generator=g, dtype=torch.float64), 0.66
mine, theirs = (torch.Generator().manual_seed(seed) for _ in range(2))
E = torch.empty(1000, 5, dtype=torch.float64).exponential_(generator=mine)
q = Concrete(log_pi, tau)
z = draw(log_pi, tau, E)
torch.testing.assert_close(z, q.rsample((1000,), theirs))
torch.testing.assert_close(log_density(log_pi, tau, z), q.log_prob(z))
print("The ten lines and the library draw the same and score the same.")

# %% [markdown]
# ## What temperature changes, and what not
#
# We take the weights $\pi=(8,9)$ of the paper's example.
# The class probabilities are $\frac8{17}$ and $\frac9{17}$.

# %%
def on_logit_axis(limit, steps=40_001):
    """Logits t in [-limit, limit], shares z [steps, 2], log of dz/dt."""
    t = torch.linspace(-limit, limit, steps, dtype=torch.float64)
    z = torch.stack([t, torch.zeros_like(t)], -1).softmax(-1)
    return t, z, z.log().sum(-1)  # dz_1/dt = z_1 z_2


pair = torch.tensor([8.0, 9.0], dtype=torch.float64).log()
rows = []
for tau in (4.0, 2.0, 0.66, 0.1):
    t, z, jacobian = on_logit_axis(60 / tau)
    f = (Concrete(pair, tau).log_prob(z) + jacobian).exp()  # density of t
    total = torch.trapezoid(f, t)
    assert abs(total - 1) < 1e-6
    side = torch.trapezoid(f[len(t) // 2 :], t[len(t) // 2 :])
    winner = torch.trapezoid(f * z.amax(-1), t)
    rows.append([f"{tau:g}", side, winner, torch.trapezoid(f * z[:, 0], t)])
    assert abs(side - 8 / 17) < 1e-4

table("Concrete(8, 9), by quadrature",
      ["temperature", "P(class 1 leads)", "mean of the largest share",
       "mean of z_1"], rows)

# %% tags=["hide-input", "figure-dmvae-l-5"] mystnb={"code_prompt_show": "Show the code of this figure", "code_prompt_hide": "Hide the code of this figure"}
SHOWN = {2.0: "-", 0.66: "--", 0.1: "-."}
fig, (top, bottom) = figure(5, 5.4, rows=2)
share = torch.linspace(0.002, 0.998, 800, dtype=torch.float64)
t = torch.linspace(-40, 40, 800, dtype=torch.float64)
for i, (tau, dashes) in enumerate(SHOWN.items()):
    q = Concrete(pair, tau)
    top.plot(
        share, q.log_prob(torch.stack([share, 1 - share], -1)).exp(), color=PALETTE[i],
        linestyle=dashes, label=f"τ = {tau:g}",
    )
    z = torch.stack([t, torch.zeros_like(t)], -1).softmax(-1)
    bottom.plot(
        t, (q.log_prob(z) + z.log().sum(-1)).exp(), color=PALETTE[i], linestyle=dashes
    )
top.set(xlabel="share of class 1, $z_1$", ylabel="density of $z_1$", ylim=(0, 4))
bottom.set(xlabel="logit of $z_1$", ylabel="density of the logit")
bottom.axvline(0, color=MUTED, linewidth=1, linestyle=":")
legend(fig, top, columns=3)
show(
    fig,
    alt=(
        "Densities of the concrete distribution with two classes at three temperatures."
        " Above, over the share: at temperature two one hump in the middle, at nought"
        " point six six a shallow bowl that rises at both ends, at nought point one"
        " almost all at the ends. Below, over the logit: the same logistic bell, wider"
        " at lower temperature, always split in the same ratio at zero."
    ),
    caption=(
        "Above, the density over the share of class 1: a hump in the middle turns into"
        " mass at the two ends as τ falls. Below, over the logit it is always one bell,"
        " stretched by 1/τ. The dotted line splits each bell in the same ratio."
    ),
)

# %% [markdown]
# The first column never moves.
# The second does: at $\tau=0.66$, the temperature of DMVAE-L, the winner of a race between two is still far from holding everything.
# The third column moves too, towards one half as it gets warmer.
# A concrete draw is *not* unbiased for the one-hot vector: its mean is not the vector of class probabilities, except in the limit $\tau\to0$, or when all classes weigh the same.
#
# With more classes there is more room in the middle.

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the code of this figure", "code_prompt_hide": "Hide the code of this figure"}
fig, axes = figure(5.2, 2.5, columns=3)
weights = torch.tensor([3.0, 2.0, 1.0], dtype=torch.float64)
corners = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.5, 3**0.5 / 2]], dtype=torch.float64)
outline = corners[[0, 1, 2, 0]]
for ax, tau in zip(axes, SHOWN):
    z = Concrete(weights.log(), tau).rsample(
        (700,), torch.Generator().manual_seed(seed)
    )
    winner, where = z.argmax(-1), z @ corners
    ax.plot(*outline.T, color=MUTED, linewidth=1, linestyle="-")
    for k in range(3):
        ax.plot(
            *where[winner == k].T, "os^"[k], color=PALETTE[k], markersize=2.2,
            alpha=0.6, linestyle="none", label=f"class {k + 1} leads",
        )
    ax.set_title(f"τ = {tau:g}")
    ax.set(xlim=(-0.06, 1.06), ylim=(-0.06, 0.93), aspect="equal")
    ax.set_axis_off()
fig.legend(
    *axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3,
    markerscale=2,
)
show(
    fig,
    alt=(
        "Three triangles with points drawn from the same races at three temperatures."
        " At temperature two the points form a cloud in the middle of the triangle, at"
        " nought point six six they fill it and gather along its edges, at nought point"
        " one they sit at the corners. The colours, which say who leads, are the same"
        " points in the same numbers."
    ),
    caption=(
        "Seven hundred races between three classes with weights 3, 2, 1, the same races"
        " in every panel. The points move to the corners as τ falls; their colours, the"
        " winners, do not change."
    ),
)

# %%
rows = []
for tau in (4.0, 2.0, 0.66, 0.1, 0.01):
    ten = Concrete.uniform(10, temperature=tau)
    z = ten.rsample((draws // 10,), torch.Generator().manual_seed(seed))
    rows.append([f"{tau:g}", z.amax(-1).mean()])
table("Ten equal classes: mean of the largest share",
      ["temperature", "largest share"], rows)

# %% [markdown]
# So at the temperature of the paper a draw among ten equal classes leaves a large part of the prize to the losers.
# A decoder that is trained on such draws learns to read blends of classes, and at test time it is handed vertices, or the other way round.
# Keep that in mind for the gradients, which come next.

# %% [markdown]
# ## Three gradients
#
# Let $e_k$ be the one-hot vector of class $k$, let $\ell=\log\pi$ be the logits, and let $p=\mathrm{softmax}(\ell)$.
# A decoder and its loss give a number $f(z)$ for a code $z$.
# (This $f$ has no index; the density $f_{\pi,\tau}$ has two.)
# We want the gradient of the mean over classes.
# It can be written down:
#
# $$
# \begin{gathered}
# R(\ell)=\sum_kp_k\,f(e_k),\\
# \frac{\partial R}{\partial\ell_k}=p_k\,\big(f(e_k)-R\big).
# \end{gathered}
# $$ (eq-exact-gradient)
#
# With one variable of ten classes that is ten decodings, and one may as well do it.
# With the eighteen attributes of a face it is $2^{18}$.
# So one draws, and there are three well-known ways.
#
# **Score function** {cite:p}`williams1992`.
# Draw a class $c$ and weigh the gradient of its log-probability by what it earned, compared with some baseline $b$:
#
# $$
# \begin{gathered}
# \hat g=\big(f(e_c)-b\big)\,\nabla_\ell\log p_c\\
# \phantom{\hat g}=\big(f(e_c)-b\big)\,(e_c-p).
# \end{gathered}
# $$ (eq-score-gradient)
#
# Its mean is {eq}`eq-exact-gradient` for every $b$ that does not look at $c$.
# It never asks for the slope of $f$, so it is noisy.
#
# **Relaxation** {cite:p}`maddison2017,jang2017`.
# Draw the noise and differentiate through {eq}`eq-concrete-draw`:
#
# $$
# \hat g=\nabla_\ell\,f\big(z(\ell,G)\big).
# $$ (eq-relaxed-gradient)
#
# It uses the slope of $f$, and is much less noisy at moderate temperatures.
# It is an unbiased gradient of $R_\tau(\ell)=\mathbb E\,f(z)$, which is another objective than $R$: it asks $f$ for its opinion in the middle of the simplex, where no class lives.
#
# **Straight-through** {cite:p}`bengio2013,jang2017`.
# Show $f$ the vertex, but let the gradient pass as if $f$ had seen the relaxed draw:
#
# $$
# \begin{gathered}
# \hat g=\Big(\frac{\partial z}{\partial\ell}\Big)^{\!\top}\nabla f(e_c),\\
# c=\arg\max_kz_k .
# \end{gathered}
# $$ (eq-straight-through)
#
# Train and test then see the same codes.
# In general it is the gradient of no objective at all.
# In PyTorch it is one line: `hard + z - z.detach()`.
#
# ### The objective that the relaxation sees
#
# Here is the smallest example, of a kind that {cite:t}`tucker2017` use.
# There are two classes, and $f(z)=(z_1-0.4)^2$.
# Class one, $z_1=1$, costs $0.36$; class two, $z_1=0$, costs $0.16$.
# So the best is never to choose class one.
# But the cheapest *point* of the segment between them is $z_1=0.4$, which is no class.

# %%
def cost(share):
    return (share - 0.4) ** 2


x = torch.linspace(-45, 45, 60_001, dtype=torch.float64)
bell = x.sigmoid() * (-x).sigmoid()  # density of G_1 - G_2


def relaxed_cost(logit, tau):
    """R_tau: the mean cost of a relaxed draw, by quadrature."""
    return torch.trapezoid(bell * cost(((logit + x) / tau).sigmoid()), x)


p1 = torch.linspace(0.005, 0.995, 100, dtype=torch.float64)
exact_cost = p1 * cost(1.0) + (1 - p1) * cost(0.0)
relaxed = {tau: torch.stack([relaxed_cost(v, tau) for v in p1.logit()])
           for tau in (2.0, 0.66, 0.1)}
print("the relaxed cost is least at")
for tau, values in relaxed.items():
    print(f"  p_1 = {p1[values.argmin()]:.2f} for tau = {tau:g}")

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the code of this figure", "code_prompt_hide": "Hide the code of this figure"}
fig, ax = figure(5, 3.6)
ax.plot(
    p1, exact_cost, color=MUTED, linewidth=6, alpha=0.5, linestyle="-",
    label="exact, over classes",
)
for i, (tau, values) in enumerate(relaxed.items()):
    ax.plot(
        p1, values, color=PALETTE[i], linestyle=SHOWN[tau],
        label=f"relaxed, τ = {tau:g}",
    )
    best = values.argmin()
    ax.plot(p1[best], values[best], "o", color=PALETTE[i], markersize=6)
ax.set(xlabel="probability of class 1", ylabel="mean cost", ylim=(0, None))
legend(fig, ax)
show(
    fig,
    alt=(
        "Mean cost against the probability of class one. The exact cost is a straight"
        " line that rises from left to right. The relaxed costs lie below it; at the"
        " two higher temperatures their minimum, marked by a dot, is inside, away from"
        " the left end. At the lowest temperature the curve is close to the line and"
        " its minimum is at or next to the left end."
    ),
    caption=(
        "The exact objective falls to the left end: never choose class 1. The two"
        " warmer relaxed objectives have their minima (dots) inside, because the middle"
        " of the simplex looks cheap."
    ),
)

# %% [markdown]
# Gradient descent on a relaxed objective goes to the dot.
# No number of samples mends that.
# A lower temperature does, and it has its price: noise.
# We measure both at $p_1=\frac14$, for one draw of the noise.
# The mean and the deviation of each gradient are integrals, so nothing is sampled.

# %%
logit = torch.tensor(1 / 3, dtype=torch.float64).log()
p = logit.sigmoid()
true = p * (1 - p) * (cost(1.0) - cost(0.0))


def mean_and_noise(gradient):
    """Mean and deviation over the noise x, in units of the truth."""
    mean = torch.trapezoid(bell * gradient, x)
    var = torch.trapezoid(bell * (gradient - mean) ** 2, x)
    return (mean / true).item(), (var.sqrt() / true).item()


taus = torch.logspace(-1.3, 0.7, 21, dtype=torch.float64)
won = (logit + x > 0).double()  # 1 where class one leads
found = {"relaxed": [], "straight-through": []}
for tau in taus:
    z = ((logit + x) / tau).sigmoid()
    slope = z * (1 - z) / tau  # dz_1 / dlogit
    found["relaxed"].append(mean_and_noise(2 * (z - 0.4) * slope))
    found["straight-through"].append(mean_and_noise(2 * (won - 0.4) * slope))

R = p * cost(1.0) + (1 - p) * cost(0.0)
score = {name: mean_and_noise((cost(won) - b) * (won - p))
         for name, b in (("score function", 0.0), ("score, baseline R", R))}

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the code of this figure", "code_prompt_hide": "Hide the code of this figure"}
fig, (top, bottom) = figure(5, 5.6, rows=2, sharex=True)
for i, (name, values) in enumerate(found.items()):
    for ax, k in ((top, 0), (bottom, 1)):
        ax.plot(
            taus, [v[k] for v in values], color=PALETTE[i], linestyle=("-", "--")[i],
            label=name,
        )
for i, (name, values) in enumerate(score.items()):
    for ax, k in ((top, 0), (bottom, 1)):
        ax.axhline(
            values[k], color=PALETTE[2 + i], linestyle=("-.", ":")[i], label=name
        )
top.axhline(0, color=MUTED, linewidth=1, linestyle="-")
top.set(ylabel="mean, truth = 1", xscale="log")
bottom.set(xlabel="temperature τ", ylabel="noise, truth = 1", yscale="log")
for ax in (top, bottom):
    ax.axvline(0.66, color=MUTED, linewidth=1, linestyle=":")
legend(fig, top)
show(
    fig,
    alt=(
        "Two panels against the temperature, in units of the true gradient. Above, the"
        " mean: one for both score functions; the relaxed gradient and straight-through"
        " come near one at low temperature and fall as it rises, relaxed to about zero"
        " and straight-through well below, before both turn back a little. Below, the"
        " noise on a log axis: the score function is constant, its baseline lowers it;"
        " relaxed and straight-through rise steeply as the temperature falls."
    ),
    caption=(
        "For one draw, in units of the true gradient. Going left, the means of relaxed"
        " and straight-through approach the truth and their noise rises. The score"
        " function is right on average at any τ, and a good baseline tames its noise."
        " The dotted line is τ of DMVAE-L."
    ),
)

# %% [markdown]
# There is no free choice.
# The relaxed gradient trades bias for noise by its temperature.
# At the temperature of the paper it nearly vanishes here, since $p_1=\frac14$ is close to the dot of the last figure.
# Straight-through even points the wrong way there: it reads off the slope at the vertices, and between them the cost bends.
# The score function is right on average and needs a baseline.
# In this tiny example we know $R$ and can subtract it; with a large decoder it has to be estimated.
#
# We chose a hard case, a cost that dips between the classes.
# A cost that is linear in the shares is the kindest one.

# %%
z = ((logit + x) / 0.66).sigmoid()
slope = cost(1.0) - cost(0.0)  # a line through the same two vertices
mean, noise = mean_and_noise(slope * z * (1 - z) / 0.66)
print("relaxed gradient of a linear cost, in units of the truth")
print(f"  mean {mean:.2f}, noise {noise:.2f}, for tau = 0.66")

# %% [markdown]
# There relaxed and straight-through are one, their mean is nearly right, and they are less noisy than both score functions of the figure.
# A decoder lies somewhere between the two cases.
# DMVAE-L takes the relaxed gradient.

# %% [markdown]
# ## Two experts: multiply the class probabilities
#
# Back to the two witnesses.
# Let $\bar\pi_m$ be the class weights that the encoder of modality $m$ puts out, made to sum to one.
# Modalities are conditionally independent given the class, as in {eq}`eq-bayes`, and $\pi^0$ is the prior over classes.
# For likelihood experts the product with prior reads
#
# $$
# \begin{gathered}
# \begin{aligned}
# \log\pi_k&=\log\pi^0_k\\
# &\quad+\sum_{m\in S}\log\bar\pi_{m,k}\,,
# \end{aligned}\\
# z\sim\mathrm{Concrete}(\pi,\tau),\\
# P(\arg\max z=k)\propto\pi^0_k\prod_{m\in S}\bar\pi_{m,k}\,.
# \end{gathered}
# $$ (eq-concrete-product)
#
# Log-probabilities add, then we draw *one* concrete variable.
# The last line holds at every temperature by {eq}`eq-gumbel-max`; nothing else had to be proved.
# In the library it is `concrete_product`.
#
# **The prior's place.**
# A uniform prior adds the same number to every class, and drops out.
# So the three forms of the Gaussian product, plain, with prior and quotient, are here one and the same.
# With a prior that is not uniform they differ again, and the rule is the old one: count it once.
#
# The example of the paper has the weights $(4,3)$ and $(2,3)$, so the product is $(8,9)$.

# %%
tau = 0.66
experts = [Concrete(torch.tensor(w, dtype=torch.float64).log(), tau)
           for w in ((4.0, 3.0), (2.0, 3.0))]
joint = concrete_product(experts)
z = joint.rsample((draws,), g)
led = (z.argmax(-1) == 0).double().mean()
print(f"probability of class 1: {joint.probs[0]:.4f}, 8/17 = {8 / 17:.4f}")
print(f"share of {draws} draws that class 1 leads: {led:.4f}")
torch.testing.assert_close(joint.probs, Concrete(pair, tau).probs)

# %% [markdown]
# ## Two experts: multiply the densities instead
#
# The text of {cite:t}`lee2020` does something else.
# Each expert is a density $f_{\pi_m,\tau}$ on the simplex, the prior is one more, $\mathrm{Concrete}(1/n,\tau)$, and their equation 8 multiplies *densities*, as one does with Gaussians.
# It then argues that the result is nearly $f_{\pi_1\pi_2,\tau}$ at $z^3$, the three from three factors.
# Let us multiply and look.
#
# ### Two classes: follow the tails
#
# We go to the logit axis once more.
# There each density is a logistic bell $h_j(t)$ by {eq}`eq-concrete-logit`, and since $dz_1=z_1z_2\,dt$ the density of $z_1$ is $h_j(t)/(z_1z_2)$.
# Multiply $J$ of them, and only one $dz_1$ is there to cancel:
#
# $$
# \begin{gathered}
# \prod_{j=1}^Jf_j\,dz_1=\frac{\prod_jh_j(t)}{(z_1z_2)^{J-1}}\,dt .
# \end{gathered}
# $$ (eq-density-product)
#
# Far out to the right $z_1z_2\approx e^{-t}$, and a bell falls like $h_j(t)\approx\tau o_j\,e^{-\tau t}$, with the odds $o_j=\pi_{j,1}/\pi_{j,2}$.
# Far out to the left it is the same with $1/o_j$.
# So the integrand behaves like
#
# $$
# \begin{gathered}
# \tau^J\,e^{(J-1-J\tau)\,|t|}\times C_\pm,\\
# C_+=\prod_jo_j\ (t\to\infty),\\
# C_-=\prod_j\frac1{o_j}\ (t\to-\infty).
# \end{gathered}
# $$ (eq-density-tails)
#
# Every factor brings a falling $e^{-\tau|t|}$.
# Every factor but one brings a rising $e^{|t|}$.
# If $\tau\le\frac{J-1}J$ the rise wins, or at best keeps level, and there is **no finite integral**.
# Two experts need $\tau>\frac12$.
# Two experts and the prior need $\tau>\frac23$, and $0.66$ is less than that.
# The prior is not harmless here: being uniform over classes does not make it flat on the simplex.

# %%
def log_integrand(weights, tau, t):
    """Log of the product of densities, per unit of logit."""
    z = torch.stack([t, torch.zeros_like(t)], -1).softmax(-1)
    total = z.log().sum(-1)
    for w in weights:
        log_pi = torch.tensor(w, dtype=t.dtype).log()
        total = total + Concrete(log_pi, tau).log_prob(z)
    return total


def cut_off(weights, tau, limit, steps=40_001):
    """The integral over |logit| <= limit, and the share with z_1 > 1/2."""
    t = torch.linspace(-limit, limit, steps, dtype=torch.float64)
    f = log_integrand(weights, tau, t).exp()
    total, half = torch.trapezoid(f, t), steps // 2
    right = torch.trapezoid(f[half:], t[half:])
    return total.item(), (right / total).item()


two, prior = [(4.0, 3.0), (2.0, 3.0)], (1.0, 1.0)
cuts = [1e-3, 1e-6, 1e-9, 1e-12, 1e-24]
rows = []
for tau in (0.5, 0.66, 0.7, 1.0):
    rows.append([f"{tau:g}"])
    for cut in cuts:
        integral, _ = cut_off([*two, prior], tau, math.log(1 / cut))
        rows[-1].append(f"{integral:.4g}")
table("Two experts and the prior: the integral over ε < z₁ < 1 − ε",
      ["τ", *(f"ε = {cut:g}" for cut in cuts)], rows)

# %% [markdown]
# In the first two rows the integral keeps growing as $\varepsilon$ falls.
# In the other two it settles, slowly where $\tau$ is just above the threshold.
#
# ### Any number of classes
#
# Ten classes are worse than two, because at a vertex *nine* shares vanish.
#
# $$
# \begin{gathered}
# \int\prod_{j=1}^Jf_{\pi_j,\tau}\,dz<\infty\\
# \iff J\tau>(J-1)(n-1).
# \end{gathered}
# $$ (eq-improper)
#
# *Proof.*
# Cut the simplex into $n$ parts by who leads, and look at the part where class $n$ does; the others are alike.
# There $z_n\ge1/n$, and the coordinates $t_k=-\log z_k\ge0$ for $k<n$ have $dz=e^{-\sum t_k}dt$.
# Let $t_*$ be the largest of them.
# The sum in {eq}`eq-concrete-density` lies between two constants times $e^{\tau t_*}$.
# So, up to constants, the integrand is $e^a$ with
#
# $$
# \begin{aligned}
# a&=J(\tau+1)\sum_{k<n}t_k-Jn\tau\,t_*-\sum_{k<n}t_k\\
# &\le\big[(J\tau+J-1)(n-1)-Jn\tau\big]\,t_*\\
# &=\big[(J-1)(n-1)-J\tau\big]\,t_*\,,
# \end{aligned}
# $$
#
# because $\sum t_k\le(n-1)\,t_*$.
# If the bracket is negative the integral is finite.
# If it is not, stay in the tube where all $t_k$ lie in $[s,s+1]$: there $a$ is the bracket times $s$ up to a constant, so it does not fall as $s\to\infty$, and the tube is infinitely long. $\square$

# %%
sizes = (2, 3, 10)
rows = [[f"{J} densities", *((J - 1) * (n - 1) / J for n in sizes)]
        for J in (2, 3, 4)]
table("The temperature that a product of densities must exceed",
      ["", *(f"{n} classes" for n in sizes)], rows, digits=3)

# %% [markdown]
# A digit has ten classes; two experts and the prior make three factors.
# The temperature would have to exceed six, where every draw sits in the middle of the simplex and hardly tells the classes apart.
#
# ### Where the mass goes
#
# An integral that is infinite can still be drawn: every plot stops somewhere.
# Here are the integrands of the paper's two experts, without the prior as in its figure 5.

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the code of this figure", "code_prompt_hide": "Hide the code of this figure"}
t = torch.linspace(-30, 30, 801, dtype=torch.float64)
fig, ax = figure(5, 4)
for i, tau in enumerate((1.0, 0.66, 0.5, 0.3)):
    ax.plot(
        t, log_integrand(two, tau, t) / math.log(10), color=PALETTE[i],
        linestyle=("-", "--", "-.", (0, (5, 1)))[i], label=f"τ = {tau:g}",
    )
for cut in (1e-2, 1e-6, 1e-10):
    for sign in (-1, 1):
        ax.axvline(
            sign * math.log(1 / cut), ymax=0.9, color=MUTED, linewidth=1, linestyle=":"
        )
    ax.text(
        math.log(1 / cut), 6.5, f"$10^{{{round(math.log10(cut))}}}$", ha="center",
        va="bottom",
    )
ax.set(xlabel="logit of $z_1$", ylabel="integrand, power of ten", ylim=(-14, 8.5))
legend(fig, ax, columns=4)
show(
    fig,
    alt=(
        "The integrand of a product of two concrete densities on a log scale, against"
        " the logit. At temperature one and nought point six six its tails fall as"
        " straight lines, at one half they are level, at nought point three they rise"
        " on both sides without end. Dotted verticals mark where a plot that starts at"
        " a given smallest share stops."
    ),
    caption=(
        "Product of the densities (4, 3) and (2, 3), per unit of logit. Above τ = 1/2"
        " the tails fall; below, they rise for ever, and the mass is wherever the plot"
        " stops. Dotted: plots that begin at the share written above the line."
    ),
)

# %% [markdown]
# Below the threshold nearly all the mass lies in the last bit of the axis that the cut-off lets in, on both sides.
# By {eq}`eq-density-tails` the two sides weigh like $C_+$ and $C_-$, so as the cut-off $\varepsilon\to0$ at a fixed $\tau$
#
# $$
# \frac{\text{mass at vertex 1}}{\text{mass at vertex 2}}\to\frac{C_+}{C_-}=\prod_jo_j^2 ,
# $$ (eq-vertex-odds)
#
# the *square* of the odds that we wanted.
# For the paper's experts that is $\frac{64}{81}$ instead of $\frac89$.
#
# But a plot does the limits in the other order: it fixes its grid and lowers $\tau$.
# Then each bell has the width $1/\tau$, far wider than the window, and looks flat through it.
# What remains is the factor $(z_1z_2)^{1-J}$, which knows nothing about the experts: **even odds**.
#
# In between one can get anything.

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the code of this figure", "code_prompt_hide": "Hide the code of this figure"}
powers = torch.linspace(0.5, 100, 60).tolist()
fig, ax = figure(5, 4.2)
for i, tau in enumerate((0.66, 0.3, 0.05, 0.02)):
    shares = [cut_off(two, tau, power * math.log(10), 10_001)[1] for power in powers]
    ax.plot(
        powers, shares, color=PALETTE[i], linestyle=("-", "--", "-.", (0, (5, 1)))[i],
        label=f"τ = {tau:g}",
    )
for level, name in (
    (1 / 2, "1/2"),
    (8 / 17, "8/17, the product of class probabilities"),
    (64 / 145, "64/145, squared odds"),
):
    ax.axhline(level, color=MUTED, linewidth=1, linestyle=":")
    ax.text(
        101, level + (-0.001 if level < 0.45 else 0.001), name, ha="right",
        va="top" if level < 0.45 else "bottom",
    )
ax.set(
    xlabel="d, where the plot is cut at ε = $10^{-d}$",
    ylabel="share of mass with z₁ > ½", ylim=(0.434, 0.506),
)
legend(fig, ax, columns=4)
show(
    fig,
    alt=(
        "The share of mass on the side of class one, against how small the cut-off is,"
        " at four temperatures. At nought point six six it settles between sixty-four"
        " over one hundred and forty-five and eight seventeenths. At lower temperatures"
        " the curves start close to one half and fall slowly, crossing eight"
        " seventeenths on the way, towards sixty-four over one hundred and forty-five."
    ),
    caption=(
        "What a product of densities says about class 1, depending on where the plot"
        " stops. Below τ = 1/2 every curve starts near 1/2, passes the right value 8/17"
        " by accident, and ends at 64/145. At τ = 0.66 it settles at a wrong value."
    ),
)

# %% [markdown]
# ### The paper's figure, with and without its grid
#
# Figure 5 of {cite:t}`lee2020` shows the two experts, the wanted $\mathrm{Concrete}(8,9)$, and the product of the two densities, normalised.
# The authors note that the product closely follows the discrete one.
# We draw it again at temperatures of our choice, with an evenly spaced grid of twenty points, which gives every normaliser a finite value.

# %%
def on_grid(weights, tau, points):
    """The product at the middles of equal cells, made to sum to one."""
    z1 = (torch.arange(points, dtype=torch.float64) + 0.5) / points
    t = z1.logit()
    log_f = log_integrand(weights, tau, t) - (z1 * (1 - z1)).log()
    return z1, log_f.softmax(0)


coarse = {"(4, 3)": [(4.0, 3.0)], "(2, 3)": [(2.0, 3.0)],
          "(8, 9)": [(8.0, 9.0)], "product": two}

# %% tags=["hide-input", "figure-dmvae-l-5"] mystnb={"code_prompt_show": "Show the code of this figure", "code_prompt_hide": "Hide the code of this figure"}
fig, axes = figure(5.2, 5, rows=3, columns=4, sharex=True, sharey="row")
for row, tau in zip(axes, (2.0, 0.66, 0.1)):
    for i, (ax, (name, weights)) in enumerate(zip(row, coarse.items())):
        z1, mass = on_grid(weights, tau, 20)
        ax.bar(z1, mass, width=0.045, color=PALETTE[i])
        if tau == 2.0:
            ax.set_title(name)
        if tau == 0.1:
            ax.set(xlabel="$z_1$", xticks=[0, 1])
    row[0].set_ylabel(f"τ = {tau:g}")
show(
    fig,
    alt=(
        "Twelve small bar charts, three temperatures by four densities, on a grid of"
        " twenty points. From left to right: the first expert, the second, the concrete"
        " distribution with the product of the weights, and the product of the"
        " densities. At low temperature all have bars at both ends; the last two"
        " columns look alike, the product a little more extreme."
    ),
    caption=(
        "Figure 5 of the paper drawn again, on twenty cells. The last column, the"
        " product of densities, has the shape of the third, which is the one wanted,"
        " with more of its mass at the ends."
    ),
)

# %% [markdown]
# By eye the last two columns tell the same story.
# Now we ask both for a number, the mass on the side of class one, and change nothing but the grid.
# A cell in the middle of the axis is as good as any other; the ends decide, so the last rows place the points evenly in the logit instead.

# %%
temperatures = (2.0, 0.66, 0.3, 0.1, 0.02)


def share_of_first(weights):
    """Rows of a table: a grid, then the share at every temperature."""
    rows = []
    for points in (20, 2_000, 200_000):
        rows.append([f"{points} even cells"])
        for tau in temperatures:
            z1, mass = on_grid(weights, tau, points)
            rows[-1].append(mass[z1 > 0.5].sum())
    for power in (12, 50, 200):
        limit = power * math.log(10)
        rows.append([f"logits, cut at 1e-{power}"])
        for tau in temperatures:
            rows[-1].append(cut_off(weights, tau, limit)[1])
    return rows


columns = ["", *(f"τ = {tau:g}" for tau in temperatures)]
wanted = f"wanted: {8 / 17:.4f}"
one = share_of_first([(8.0, 9.0)])
table(f"Concrete(8, 9), {wanted}", columns, one)
table(f"Product of the two densities, {wanted}", columns, share_of_first(two))

# %% [markdown]
# A coarse grid is a poor judge of *any* cold density, also of the one that is wanted: in the first table the numbers on the right need points very close to the ends.
# But all its columns end at $\frac8{17}$.
# In the second table each column ends somewhere else: the two on the left at values that depend on the temperature, the others at $\frac{64}{145}\approx0.4414$, and on the way there they pass whatever one wishes to see.
# Without its grid the figure has no last column at all for $\tau\le\frac12$, and with the prior in the product none for $\tau\le\frac23$.
#
# ### Where equation 8 breaks
#
# **The cross terms stay.**
# The product of the sums $\sum_j\pi_jz_j^{-\tau}$ has terms with $z_i^{-\tau}z_j^{-\tau}$, $i\ne j$.
# The paper drops them, since $z_iz_j\approx0$ as $\tau\to0$.
# But they hold the *power* $-\tau$ of the shares.
# For a concrete draw $z_i^{-\tau}/z_j^{-\tau}=W_i/W_j$, by {eq}`eq-concrete-draw`: a ratio of arrival times, in which no temperature is left.
# The cross terms are as large as the others, at every $\tau$.
#
# **A density takes no cube.**
# Even without cross terms, $f_{\pi_1\pi_2,\tau}(z^3)$ would not be the density of a $z$ whose cube is concrete.
# The change of variables has a Jacobian, and the cubes of shares do not add up to one.

# %% [markdown]
# ## Try it
#
# Three classes, two concrete variables, one triangle.
# The first variable has a doubt between classes 1 and 2, the second between 2 and 3; both can agree on 2.

# %%
from mmvae_lite.explore import ConcreteSimplex

ConcreteSimplex(
    logits=(1.5, 1.3, -2.0), second=(-2.0, 1.3, 1.5),
    temperature=0.66, show="densities", classes=("1", "2", "3"),
)

# %% [markdown]
# 1. Show the first variable, and move the temperature from end to end. The probabilities of the argmax do not move. What does?
# 2. Show the product of densities. With two factors and three classes {eq}`eq-improper` asks for $\tau>1$. Find the place where the explorer stops complaining. Where in the triangle is the mass then, and how sharp is it?
# 3. Switch to the product of classes. Which class wins, and does the temperature matter?

# %% [markdown]
# ## What is used instead
#
# The authors' own program does not multiply densities.
# It adds normalised class log-probabilities and draws one concrete variable: {eq}`eq-concrete-product`.
# We take that as the definition, in the library and in DMVAE-L.
# It is the exact categorical product, relaxed once, at the end.
#
# One trace of equation 8 is left.
# With $z^3$ read as "the cube of what the decoder sees is concrete", the program draws $y\sim\mathrm{Concrete}(\pi,\tau)$ and gives the decoder its root,
#
# $$
# \begin{gathered}
# z_k=(y_k+10^{-9})^{1/J},\\
# J=1+\text{the number of experts}.
# \end{gathered}
# $$ (eq-concrete-root)
#
# The one more is for the prior, so two experts have the cube root.
# Vertices stay vertices, but for the tiny constant.
# In between, the root lifts small shares, and the sum is no longer one.
# With the cube root a share of one half reads as almost four fifths, and if two classes have a half each, both do.
# The decoder meets such codes only from the joint expert; a single expert's draw comes without a root.
# So a decoder has to read the same class in two dialects.

# %%
rows = []
for tau in (2.0, 0.66, 0.1):
    y = Concrete.uniform(10, temperature=tau).rsample((draws // 10,), g)
    root = concrete_root(y, 3)
    values = (y.amax(-1), root.amax(-1), root.sum(-1))
    rows.append([f"{tau:g}", *(v.mean() for v in values)])
columns = ["τ", "largest share", "largest root", "sum of the roots"]
table("Ten equal classes: what the decoder reads, on average",
      columns, rows, digits=3)
assert concrete_root(torch.eye(3), 3).argmax(-1).tolist() == [0, 1, 2]

# %% [markdown]
# ### Which divergence?
#
# The bound needs $\mathrm{KL}(q\,\|\,p)$ for the code.
# There are two candidates: that of the classes and that of the relaxed draws.
#
# $$
# \begin{aligned}
# \mathrm{KL}(\pi\,\|\,\pi^0)&=\sum_k\bar\pi_k\log\frac{\bar\pi_k}{\bar\pi^0_k}\\
# &\le\mathrm{KL}\big(f_{\pi,\tau}\,\|\,f_{\pi^0,\tau}\big).
# \end{aligned}
# $$ (eq-categorical-kl)
#
# The class is a function of the draw, and a function of the data can only lose divergence; hence the inequality.
# One may expect the gap to close as $\tau\to0$.
# It does not close, and does not even move.
# A draw and the ratios of arrival times determine each other, by $W_k/W_j=(z_k/z_j)^{-\tau}$, and these ratios do not know the temperature.
# So the relaxed divergence is the same at every $\tau$.

# %%
rows = []
relaxed_kl = []
flat = Concrete(torch.zeros(2, dtype=torch.float64), 1.0)
q = Concrete(torch.tensor([9.0, 1.0], dtype=torch.float64).log(), 1.0)
for tau in (0.1, 0.66, 2.0):
    t, z, jacobian = on_logit_axis(60 / tau)
    log_q, log_p = (Concrete(c.logits, tau).log_prob(z) for c in (q, flat))
    density = (log_q + jacobian).exp()
    relaxed_kl.append(torch.trapezoid(density * (log_q - log_p), t))
    rows.append([f"{tau:g}", relaxed_kl[-1], categorical_kl(q, flat)])
table("KL from (9, 1) to (1, 1), in nats",
      ["τ", "of the draws", "of the classes"], rows)
assert max(relaxed_kl) - min(relaxed_kl) < 1e-4
assert min(relaxed_kl) > categorical_kl(q, flat)

# %% [markdown]
# DMVAE-L's program draws once for each item, and takes $\log\bar\pi_k-\log\bar\pi^0_k$ for the class $k$ that leads.
# By {eq}`eq-gumbel-max` that is an unbiased estimate of the divergence of the classes, the left side of {eq}`eq-categorical-kl`.

# %% [markdown]
# ## Real halves of digits
#
# Now the two witnesses of the beginning, for real.
# One linear classifier sees the left half of a picture, another the right half, and neither ever sees the other's.
# Nothing is trained together.
# What they report are posteriors, but the ten digits are about equally frequent.
# So the prior is nearly flat, and their product needs no correction.

# %%
data = best_available("digits")
train, test = data.train.first(1442), data.test
steps = {"smoke": 40}.get(profile, 400)
counts = f"{len(train)} to train on, n = {len(test)} to test on"
source = f"{data.description}; {counts}"
print(f"We use {data.description}:\n{counts}.")


def witness(columns):
    """Beliefs on the test set of a linear classifier of some columns."""
    torch.manual_seed(seed)
    pictures = train.images[..., columns].flatten(1)
    net = torch.nn.Linear(pictures.shape[1], 10)
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    for _ in range(steps):
        rows = torch.randint(len(train), (100,))
        loss = F.cross_entropy(net(pictures[rows]), train.classes[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        return Concrete(net(test.images[..., columns].flatten(1)), 0.66)


halves = [witness(slice(0, 14)), witness(slice(14, 28))]
joint = concrete_product(halves)

# %% [markdown]
# We compare each half alone, the product and the mixture of the two beliefs, and the Gaussians of the beginning with three layouts of the classes.
# "On a line" puts digit $k$ at $k$.
# "On a plane" is kinder: it places the digits by the two main directions in which their mean pictures differ.
# "One axis for each class" has ten dimensions and puts the digits at the one-hot vectors.
# A Gaussian answer is the class nearest to the mean of the product.

# %%
means = torch.stack([train.images[train.classes == c].flatten(1).mean(0)
                     for c in range(10)])
centred = means - means.mean(0)
axes2 = torch.linalg.svd(centred, full_matrices=False).Vh[:2]
layouts = {
    "on a line": torch.arange(10.0)[:, None],
    "on a plane": centred @ axes2.T,
    "one axis for each class": torch.eye(10),
}


def gaussian_answer(layout):
    """The class nearest to the mean of the product of two Gaussians."""
    experts = []
    for belief in halves:
        mean = belief.probs @ layout
        var = belief.probs @ layout**2 - mean**2
        var = var + 0.01 * layout.var(0)  # a little width when sure
        experts.append(Normal(mean, var.log()))
    return torch.cdist(product(experts).mean, layout).argmin(-1)


def share_right(answer):
    return (answer == test.classes).float().mean()


mixture = (halves[0].probs + halves[1].probs) / 2
answers = {"left half alone": halves[0].probs.argmax(-1),
           "right half alone": halves[1].probs.argmax(-1),
           "product of class probabilities": joint.probs.argmax(-1),
           "mixture": mixture.argmax(-1)}
for name, layout in layouts.items():
    answers[f"Gaussians {name}"] = gaussian_answer(layout)
table(f"Share of digits named right. {source}", ["", "right"],
      [[name, share_right(a)] for name, a in answers.items()], digits=3)

# %% [markdown]
# On a line the product of two Gaussians does worse than either half alone.
# A plane helps a lot, and ten dimensions help still more.
# But ten dimensions with the digits at the one-hot vectors are the discrete code, in a heavier coat.
# (A network that is trained from end to end finds its own layout. These three are ours, and show what a layout can cost.)
#
# Here is a digit that both halves get wrong, if there is one, and that the product gets right.

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the code of this figure", "code_prompt_hide": "Hide the code of this figure"}
truth = test.classes
wrong = [h.probs.argmax(-1) != truth for h in halves]
right_together = joint.probs.argmax(-1) == truth
rescued = wrong[0] & wrong[1] & right_together
if not rescued.any():
    rescued = (wrong[0] | wrong[1]) & right_together
item = int(rescued.nonzero()[0, 0]) if rescued.any() else 0

fig, axes = figure(5, 4.8, rows=3, columns=2, width_ratios=[1, 3])
picture = test.images[item, 0]
for i, (row, name) in enumerate(zip(axes, ("left half", "right half", "product"))):
    shown = picture.clone()
    if i == 0:
        shown[:, 14:] = 0.35
    elif i == 1:
        shown[:, :14] = 0.35
    row[0].imshow(shown, cmap="gray", vmin=0, vmax=1)
    row[0].set_axis_off()
    belief = (*halves, joint)[i].probs[item]
    row[1].bar(
        range(10), belief,
        color=[
            PALETTE[(0, 1, 3)[i]] if k != truth[item] else PALETTE[2] for k in range(10)
        ],
    )
    row[1].set(ylim=(0, 1.05), xticks=range(10), ylabel=name)
axes[2, 1].set_xlabel("class")
best = [int(h.probs[item].argmax()) for h in (*halves, joint)]
show(
    fig,
    alt=(
        f"A handwritten {int(truth[item])}, three times: its left half, its right half,"
        " and whole, each beside bars for the ten classes. The left half believes most"
        f" in {best[0]}, the right half in {best[1]}, and their product in {best[2]}."
    ),
    caption=(
        "Left: what each witness sees; right: its belief (green: the true class). The"
        f" product names the class that both find possible. {data.description}."
    ),
)

# %% [markdown]
# The relaxed joint draw follows the product, whatever the temperature.
# We draw for this item and count the leaders.

# %%
for tau in (2.0, 0.66, 0.1):
    experts = [Concrete(h.logits[item], tau) for h in halves]
    z = concrete_product(experts).rsample((draws // 10,), g)
    led = torch.bincount(z.argmax(-1), minlength=10) / len(z)
    gap = (led - joint.probs[item]).abs().max()
    print(f"τ = {tau:<4g}: largest gap to the product {gap:.4f}")
    assert gap < 4 * 0.5 / len(z) ** 0.5

# %% [markdown]
# How sure should it be?
# The two halves of a digit are not independent, given the digit: a slanted hand is slanted on both sides.
# So the product counts some evidence twice.
# The next table asks for the mean log-probability of the true class, which punishes false certainty.

# %%
beliefs = {"left half alone": halves[0].log_probs,
           "right half alone": halves[1].log_probs,
           "product": joint.log_probs, "mixture": mixture.log()}
rows = []
for name, log_probs in beliefs.items():
    of_truth = log_probs.gather(1, truth[:, None]).mean()
    sure = log_probs.amax(-1).exp().mean()
    rows.append([name, of_truth, sure, share_right(log_probs.argmax(-1))])
columns = ["", "log-probability of the truth, nats", "mean certainty",
           "share right"]
table(f"Two witnesses. {source}", columns, rows, digits=3)

# %% [markdown]
# The mixture is far less sure than it is right: it averages, and never lets two weak hints make a strong one.
# The product's certainty is to be compared with its share of right answers.
# Whether it claims too much depends on the data and on how well the witnesses are trained; measure it, as the Gaussian experts were measured.

# %% [markdown]
# ## Our numbers and the paper's
#
# The paper makes three statements about its concrete product, and its program a fourth.
# They are mathematics, so no training and no stand-in is involved.
#
# | {cite:t}`lee2020` | what we find |
# |---|---|
# | equation 7 is a density | yes, with power $n$ on the sum; {eq}`eq-concrete-density` and its test |
# | equation 8: the product of densities is close to $f_{\pi_1\pi_2,\tau}(z^3)$ | at their $\tau$, with the prior, the product has no finite integral; {eq}`eq-improper` |
# | figure 5: the product closely follows the discrete product as $\tau$ falls | on a coarse grid by eye; the value moves between $\tfrac12$ and $\tfrac{64}{145}$ with the grid, and $\tfrac8{17}$ is not its limit |
# | their program: add class log-probabilities | exact at every temperature; {eq}`eq-concrete-product` |
#
# What the discrete code is worth inside DMVAE-L, {paper}`dmvae-l:table-8:mnist/discrete` against {paper}`dmvae-l:table-8:mnist/continuous` on MNIST, is a matter of training, and not of this page.

# %% [markdown]
# ## Pitfalls, some of them in print
#
# **Equation 8** (an erratum).
# The product of densities has no finite integral at the paper's temperature, its vertex weights depend on where one cuts, and neither limit is the categorical product.
# The program is right where the text is not.
#
# **"As the temperature goes to zero" is not one limit.**
# A cut-off and a temperature, taken in the two orders, give squared odds and even odds.
# Whenever a figure needs a grid to be finite, halve the grid.
#
# **Unnormalised logits.**
# `concrete_product` normalises each expert first.
# For the product itself it makes no difference, since a constant cancels.
# For a mixture, or for anything that compares experts with each other, it does.
#
# **The argmax is exact, the mean is not.**
# $\mathbb E\,z$ is not the vector of class probabilities.
# Reading a relaxed draw as a probability is wrong twice: it is a draw, and its mean is biased.
#
# **Training on blends, testing on vertices.**
# A decoder that has only seen relaxed codes may do odd things at a vertex, and the other way round.
# Say which one you report. {cite:t}`lee2020` classify with one relaxed draw.
#
# **Tiny shares.**
# In single precision the smallest share of a cold draw is rounded to zero, and $\log z$ to minus infinity.
# Keep logits and logs where you can; the library clamps before it takes the logarithm.
#
# **Different temperatures.**
# Experts with different temperatures have no common relaxation.
# The library refuses them.

# %% [markdown]
# ## When to use it, when not
#
# | use a discrete code when | think twice when |
# |---|---|
# | the shared factor is a name: a class, an attribute, a speaker | the factor has neighbours: an angle, a size, a shade |
# | beliefs must be able to say *either, or* | one code with many classes would be needed; several small ones are easier to learn |
# | experts are to be multiplied: in class probabilities it is exact and never improper | you need the joint *density* of relaxed codes: nobody has a proper one at low temperature |
#
# If you train one today: sum over the classes exactly if there are few.
# Otherwise take the relaxed gradient with a temperature around one half to one, measure with the codes that you will use in the end, and combine experts by their class probabilities.

# %% [markdown]
# ## Exercises
#
# Each exercise has a stub to fill in, a check and a hidden solution.
# Ask the check as often as you like; it says what is not right yet.

# %% [markdown]
# ```{exercise} First and second
# :label: ex-concrete-podium
#
# In the race of {eq}`eq-race`, what is the probability that runner `first` wins *and* runner `second` comes in next?
# `pi` is a list of rates, and the runners are indices into it.
# ```
#
# ```{admonition} Hint
# :class: dropdown tip
# An exponential time has no memory.
# When the winner is in, the others are still at their start, as far as their remaining times go.
# ```

# %% tags=["exercise"]
def podium(pi, first, second):
    raise NotImplementedError

# %%
check("concrete-podium", podium)

# %% tags=["solution", "hide-cell"] mystnb={"code_prompt_show": "Show the solution", "code_prompt_hide": "Hide the solution"}
def podium(pi, first, second):
    total = sum(pi)
    return pi[first] / total * pi[second] / (total - pi[first])


# A second race among those who are left, independent of the first.
# Going on like this gives a probability for every order of arrival.
check("concrete-podium", podium).require()

# %% [markdown]
# ```{exercise} Two classes from the logistic
# :label: ex-concrete-logistic
#
# Start from {eq}`eq-concrete-logit`, not from {eq}`eq-concrete-density`.
# Return the *logarithm* of the density of $z_1$, for a tensor `z1` of shares, the odds $\pi_1/\pi_2$ and a temperature.
# Do not use the library.
# ```
#
# ```{admonition} Hint
# :class: dropdown tip
# The derivative of $\sigma$ is $\sigma(1-\sigma)$.
# Two derivatives enter: that of the inner function with respect to $t$, and that of $t=\log\frac{z_1}{1-z_1}$ with respect to $z_1$.
# ```

# %% tags=["exercise"]
def log_density_of_share(z1, odds, tau):
    raise NotImplementedError

# %%
check("concrete-logistic", log_density_of_share)

# %% tags=["solution", "hide-cell"] mystnb={"code_prompt_show": "Show the solution", "code_prompt_hide": "Hide the solution"}
def log_density_of_share(z1, odds, tau):
    t = z1.log() - (1 - z1).log()
    s = tau * t - math.log(odds)
    bell = F.logsigmoid(s) + F.logsigmoid(-s)
    return math.log(tau) + bell - z1.log() - (1 - z1).log()


check("concrete-logistic", log_density_of_share).require()

# %% [markdown]
# ```{exercise} Straight through
# :label: ex-concrete-straight-through
#
# Write the code of {eq}`eq-straight-through`.
# From `logits` `[n]`, a temperature and Gumbel noise `G` `[draws, n]`, return codes `[draws, n]`.
# Their values are exactly one-hot, and their gradient with respect to `logits` is that of the relaxed draw.
# ```
#
# ```{admonition} Hint
# :class: dropdown tip
# `F.one_hot(index, n)` makes integers.
# Add something that is zero and has the right gradient.
# To be exact in floating point, mind the order of the additions.
# ```

# %% tags=["exercise"]
def straight_through(logits, tau, G):
    raise NotImplementedError

# %%
check("concrete-straight-through", straight_through)

# %% tags=["solution", "hide-cell"] mystnb={"code_prompt_show": "Show the solution", "code_prompt_hide": "Hide the solution"}
def straight_through(logits, tau, G):
    z = ((logits + G) / tau).softmax(-1)
    hard = F.one_hot(z.argmax(-1), z.shape[-1]).to(z)
    return hard + (z - z.detach())  # the bracket is exactly zero


# hard + z - z.detach() may miss zero and one by a rounding.
check("concrete-straight-through", straight_through).require()

# %% [markdown]
# ```{exercise} The error of the product of densities
# :label: ex-concrete-error
#
# Two experts on two classes have the weights `first` and `second`, pairs of positive numbers, and `tau` is more than one half.
# Return two numbers: the probability of class one in the exact categorical product, by enumeration, and the mass on the side $z_1>\frac12$ of the normalised product of their *densities* at the temperature `tau`, by quadrature.
# How large is the error for the paper's $(4,3)$ and $(2,3)$ at $\tau=0.66$, and how does it change with $\tau$?
# ```
#
# ```{admonition} Hint
# :class: dropdown tip
# The integrand is steep at both ends of the segment.
# Integrate over the logit, where by {eq}`eq-density-product` it is smooth, and go far enough: the tails fall only like $e^{(1-2\tau)|t|}$.
# ```

# %% tags=["exercise"]
def two_products(first, second, tau):
    # (exact, by densities)
    raise NotImplementedError

# %%
check("concrete-error", two_products)

# %% tags=["solution", "hide-cell"] mystnb={"code_prompt_show": "Show the solution", "code_prompt_hide": "Hide the solution"}
def two_products(first, second, tau):
    weights = [a * b for a, b in zip(first, second)]
    exact = weights[0] / sum(weights)
    limit = 40 / (2 * tau - 1)
    t = torch.linspace(-limit, limit, 200_001, dtype=torch.float64)
    log_f = F.softplus(t) + F.softplus(-t)  # 1 / (z1 z2), once
    for a, b in (first, second):
        s = tau * t - math.log(a / b)
        log_f = log_f + F.logsigmoid(s) + F.logsigmoid(-s)
    mass = log_f.softmax(0)
    return exact, mass[t > 0].sum().item()


for tau in (0.55, 0.66, 1.0, 2.0):
    exact, relaxed = two_products((4, 3), (2, 3), tau)
    print(f"τ = {tau:<4g}: exact {exact:.4f}, by densities {relaxed:.4f}")
# The error shrinks as the temperature rises, crosses zero near τ = 1,
# and has the other sign above. Neither end of the axis makes it vanish.
check("concrete-error", two_products).require()

# %% [markdown]
# ```{exercise} How hot must it be?
# :label: ex-concrete-threshold
#
# Return the temperature that must be exceeded for the product of the densities of `experts` experts and a uniform concrete prior over `classes` classes to have a finite integral.
# Then prove it for three classes, near one vertex: put $z_1=ru$, $z_2=r(1-u)$, and count the powers of $r$.
# ```
#
# ```{admonition} Hint
# :class: dropdown tip
# The prior is a factor too.
# Near the vertex one density goes like $r^{\tau-(n-1)}$, and the volume like $r^{n-2}\,dr$.
# ```

# %% tags=["exercise"]
def threshold(experts, classes):
    raise NotImplementedError

# %%
check("concrete-threshold", threshold)

# %% tags=["solution", "hide-cell"] mystnb={"code_prompt_show": "Show the solution", "code_prompt_hide": "Hide the solution"}
def threshold(experts, classes):
    J = experts + 1
    return (J - 1) * (classes - 1) / J


# Numerator r^(-2(tau+1)) over r^(-3 tau) leaves r^(tau-2) for each density.
# J of them and the volume r dr: finite if J (tau - 2) + 1 > -1,
# that is J tau > 2 (J - 1).
check("concrete-threshold", threshold).require()

# %% [markdown]
# ```{exercise} The prior, once
# :label: ex-concrete-prior-once
#
# Classes are not always equally frequent.
# Each witness was trained on data with the class frequencies `prior` `[n]`, and reports its *posterior* given its own modality: `beliefs` is `[witnesses, n]`.
# The modalities are conditionally independent given the class.
# Return the class probabilities given all witnesses, `[n]`.
# ```
#
# ```{admonition} Hint
# :class: dropdown tip
# {eq}`eq-quotient` holds for probabilities as it does for densities.
# ```

# %% tags=["exercise"]
def together(beliefs, prior):
    raise NotImplementedError

# %%
check("concrete-prior-once", together)

# %% tags=["solution", "hide-cell"] mystnb={"code_prompt_show": "Show the solution", "code_prompt_hide": "Hide the solution"}
def together(beliefs, prior):
    extra = len(beliefs) - 1
    return (beliefs.log().sum(0) - extra * prior.log()).softmax(-1)


# A quotient of Gaussians can be improper. One of probabilities cannot:
# there are finitely many classes, and any positive weights have a sum.
check("concrete-prior-once", together).require()

# %% [markdown]
# ## Further reading
#
# {cite:t}`maddison2017` and {cite:t}`jang2017` introduce the concrete distribution, under the names *concrete* and *Gumbel-softmax*; the first derives the density, the second adds straight-through.
# {cite:t}`williams1992` is the score-function gradient, {cite:t}`bengio2013` compare early gradients through stochastic units, and {cite:t}`tucker2017` use the relaxation as a baseline of the score function, which takes the bias away and keeps most of the calm.
# {cite:t}`lee2020` put a concrete code into a multimodal model; their section 4.5 and appendix A.2 are what this chapter is about.
# {cite:t}`hinton2002` has the product of experts for densities that can be multiplied.
