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
# Nothing is trained here, and every cell runs in seconds on one CPU core.
# The expert playground on this page needs no Python at all.
# ```

# %% tags=["parameters"]
profile = "lite"
seed = 0
device = "cpu"

# %% tags=["setup"]
import math
from statistics import NormalDist

import torch

from mmvae_lite.data.linear_gaussian import LG3, LG3_OBSERVATION, LinearGaussian
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
# The obvious answer is to multiply them.
# Where all experts find $z$ plausible, the product is large; where one of them objects, it is small.
# This is a **product of experts** {cite:p}`hinton2002`.
# It is also how MVAE and both models called DMVAE merge what an image, a label or a sound says about a shared latent.
#
# We try it in a world where the truth is known.
# It is called LG3, it is linear and Gaussian, and it has three modalities:
#
# $$
# z\sim\mathcal N(0,1),\qquad x_m\mid z\sim\mathcal N(w_m z,\;s_m^2),\qquad
# w=(1,2,-1),\quad s^2=(1,1,\tfrac12).
# $$ (eq-linear-gaussian)
#
# In this world Bayes' rule has a closed form, for one reading and for several.
# So we can let two instruments report their exact posteriors, multiply, and compare with the exact posterior given both readings.

# %% tags=["hide-input"]
from html import escape

from IPython.display import HTML, display

from mmvae_lite.plotting import PALETTE, figure, show

EXACT = {"color": "#808080", "linewidth": 8, "alpha": 0.45, "linestyle": "-", "solid_capstyle": "round"}
STYLES = {
    "plain product": {"color": PALETTE[1], "linestyle": "--"},
    "product with prior": {"color": PALETTE[3], "linestyle": "-."},
    "quotient": {"color": PALETTE[2], "linestyle": "-"},
}


def density(q, grid):
    """The density of the first item and dimension of q on a grid of z."""
    return q.log_prob(grid[:, None, None]).exp()[:, 0]


def draw(ax, q, grid, label, **style):
    ax.plot(grid, density(q, grid), label=label, **style)


def finish(fig, ax, columns=3, **labels):
    ax.set(**labels)
    fig.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=columns)


def table(title, columns, rows):
    """Show rows of text and numbers; numbers get four decimals."""
    text = lambda v: escape(v) if isinstance(v, str) else f"{float(v):.4f}"
    head = "".join(f'<th scope="col">{escape(c)}</th>' for c in columns)
    body = "".join(
        f'<tr><th scope="row">{text(first)}</th>' + "".join(f"<td>{text(v)}</td>" for v in rest) + "</tr>"
        for first, *rest in rows
    )
    display(HTML(f'<div style="overflow-x:auto" tabindex="0" role="region" aria-label="{escape(title)}">'
                 f'<table class="table"><caption>{escape(title)}</caption>'
                 f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"))

# %%
x = {m: LG3_OBSERVATION[m] for m in (0, 1)}  # two readings, each of shape [batch] with batch 1
reports = [LG3.posterior({m: x[m]}) for m in x]  # p(z | x_1) and p(z | x_2)
exact = LG3.posterior(x)  # p(z | x_1, x_2)
answers = {
    "plain product": product(reports),
    "product with prior": product_with_prior(reports),
    "quotient": quotient(reports),
}

# %% tags=["hide-input"]
grid = torch.linspace(-1.6, 2.6, 400, dtype=torch.float64)
fig, ax = figure(6.4, 4.2)
draw(ax, exact, grid, "exact posterior", **EXACT)
for m, q in enumerate(reports, 1):
    draw(ax, q, grid, f"report {m}", color=PALETTE[0], linewidth=1.3, linestyle=(0, (1, m)))
for name, q in answers.items():
    draw(ax, q, grid, name, **STYLES[name])
finish(fig, ax, xlabel="z", ylabel="density")
show(fig, alt="Densities over z. Two wide curves are the reports of two instruments. The plain product and the product "
     "with prior are too narrow and stand too far left, towards zero. The quotient lies exactly on the exact posterior.")

# %% [markdown]
# Two of the three answers miss.
# The reports were exact, and multiplying looked harmless.
# Yet the plain product is too sure and too close to zero, and one more factor of the prior makes it worse.
# A third form, the *quotient*, lands on the truth.
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
# Its logarithm is a parabola:
#
# $$
# \log q_m(z)=-\tfrac12 T_m z^2+\eta_m z+\text{const},\qquad \eta_m=T_m\mu_m .
# $$ (eq-natural)
#
# The pair $(T_m,\eta_m)$ holds the **natural parameters**.
# Multiplying densities adds their logarithms, and the sum of parabolas is a parabola.
# So natural parameters simply add:
#
# $$
# q(z)\propto\prod_{m=1}^M q_m(z)
# \quad\Longrightarrow\quad
# T=\sum_m T_m,\qquad \eta=\sum_m\eta_m,\qquad
# \mu=\frac{\eta}{T}=\frac{\sum_m T_m\mu_m}{\sum_m T_m},\qquad v=\frac1T .
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
# \log Z=\log\int\prod_i\mathcal N(z;\mu_i,1/T_i)^{a_i}\,dz
# =\tfrac12\log\frac{2\pi}{T}+\frac{\eta^2}{2T}+\sum_i a_i\Big(\tfrac12\log\frac{T_i}{2\pi}-\tfrac12T_i\mu_i^2\Big).
# $$ (eq-log-normaliser)
#
# The powers will let us divide by a density: its power is negative.
# For two experts with power one there is a shorter form.
# Draw $z$ from the first expert and add independent noise of variance $v_2$.
# The density of the sum at $\mu_2$ is the integral that we want, and a sum of Gaussians is Gaussian:
#
# $$
# Z=\int\mathcal N(z;\mu_1,v_1)\,\mathcal N(z;\mu_2,v_2)\,dz=\mathcal N(\mu_1;\,\mu_2,\,v_1+v_2).
# $$ (eq-agreement)
#
# $Z$ is large when the means are close, measured in units of the experts' joint spread.
# It falls when they disagree.
# So the disagreement is not in the product; it is in the number that we threw away.

# %% [markdown]
# ### The prior must be counted once
#
# Now let the experts be what they are in a multimodal model: beliefs after one modality each.
# Assume that the modalities are **conditionally independent** given $z$, as they are in LG3.
# For any set $S$ of observed modalities Bayes' rule says
#
# $$
# p(z\mid x_S)\;\propto\;p(z)\prod_{m\in S}p(x_m\mid z),
# \qquad\text{and for a single one}\qquad
# p(x_m\mid z)\;\propto\;\frac{p(z\mid x_m)}{p(z)} .
# $$ (eq-bayes)
#
# Put the second into the first.
# The prior $p(z)=\mathcal N(\mu_0,1/T_0)$ appears once in front and $|S|$ times below the line:
#
# $$
# p(z\mid x_S)\;\propto\;\frac{\prod_{m\in S}p(z\mid x_m)}{p(z)^{|S|-1}}
# \quad\Longrightarrow\quad
# T=\sum_{m\in S}T_m-(|S|-1)\,T_0,\qquad
# \eta=\sum_{m\in S}\eta_m-(|S|-1)\,T_0\mu_0 .
# $$ (eq-quotient)
#
# This is the **quotient form**; {cite:t}`daunhawer2021` state it as their equation 2.
# It explains the picture.
# Each report already contains the prior, so the plain product contains it $|S|$ times, and the product with a prior expert $|S|+1$ times.
# The prior sits at zero, and it pulls once too often.

# %% [markdown]
# ### MVAE's way: let the network report the likelihood
#
# {cite:t}`wu2018` avoid the division.
# They let the network put out only what its own modality adds, $\tilde q_m(z)\propto p(z\mid x_m)/p(z)$.
# With $q_m=\tilde q_m\,p$ the quotient cancels, and the prior joins as one more expert:
#
# $$
# q(z\mid x_S)\;\propto\;p(z)\prod_{m\in S}\tilde q_m(z)
# \quad\Longrightarrow\quad
# T=T_0+\sum_{m\in S}\tilde T_m,\qquad
# \eta=T_0\mu_0+\sum_{m\in S}\tilde\eta_m .
# $$ (eq-product-prior)
#
# This is the **product with a prior expert**.
# A missing modality has nothing to add: its precision is zero and it drops out.
# With no modality at all the result is the prior, as it should be.
#
# So the last two forms are both exact, each for its own kind of expert.
#
# | the expert is | right form | prior counted |
# |---|---|---|
# | a posterior $p(z\mid x_m)$ | quotient {eq}`eq-quotient` | once |
# | a likelihood $\tilde q_m\propto p(x_m\mid z)$ | product with prior {eq}`eq-product-prior` | once |
# | a posterior | plain product {eq}`eq-product` | once per expert |
# | a likelihood | plain product {eq}`eq-product` | never |

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
# Exact posteriors of LG3 always satisfy this, because each is sharper than the prior.
# A network's output may not.
# It suffices that no expert is vaguer than the prior.
# MVAE's form gives that for free: $\tilde T_m>0$ means $T_m=T_0+\tilde T_m>T_0$.
# The library refuses an improper quotient with an error instead of clamping its precision, because a clamped one is nobody's posterior.
#
# ### More than one dimension
#
# With vectors and covariance matrices the same parabola reads $-\tfrac12 z^\top\Lambda_m z+h_m^\top z$ with $\Lambda_m=C_m^{-1}$ and $h_m=\Lambda_m\mu_m$.
# Again they add:
#
# $$
# \Lambda=\sum_m\Lambda_m,\qquad \Lambda\mu=\sum_m\Lambda_m\mu_m .
# $$ (eq-full-product)
#
# If every $C_m$ is diagonal the dimensions separate, and each follows {eq}`eq-product` alone.
# That is what encoders do in practice and what the library computes.
# The price: two long thin experts that cross at a slant make a small round product, and diagonal experts cannot express that.

# %% [markdown]
# ## Ten lines of code
#
# The three forms differ in one number: how many extra priors are multiplied in.
# The plain product takes none, the product with prior takes one, the quotient takes one minus the number of experts.

# %%
def combine(experts, extra_priors):
    """Product of Gaussians and of N(0, 1) to the power extra_priors; experts are Normals [batch, latent]."""
    T = torch.stack([q.precision for q in experts])  # [experts, batch, latent]
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
experts = [Normal(mean, -0.5 * z.abs()) for mean, z in zip(noise[0], noise[1])]

for library, extra_priors in ((product, 0), (product_with_prior, 1), (quotient, 1 - len(experts))):
    ours, theirs = combine(experts, extra_priors), library(experts)
    torch.testing.assert_close(theirs.mean, ours.mean)
    torch.testing.assert_close(theirs.var, ours.var)
print("The ten lines and the library agree on all three forms.")

# %% [markdown]
# A second opinion comes from brute force: multiply on a fine grid, and sum.

# %%
fine = torch.linspace(-12, 12, 20_001, dtype=torch.float64)
powers = [1.0, 1.0, -1.0]  # two reports, divided by the prior once
prior = Normal.standard(1, 1, like=exact.mean)
log_values = sum(a * q.log_prob(fine[:, None, None])[:, 0] for a, q in zip(powers, [*reports, prior]))
by_grid = torch.trapezoid(log_values.exp(), fine).log()
by_formula = log_normaliser([*reports, prior], powers)
torch.testing.assert_close(by_grid, by_formula.squeeze())
print(f"log Z of the quotient: {by_grid:.6f} by quadrature, {by_formula.item():.6f} by the formula")

# %% [markdown]
# ## All of LG3, in numbers
#
# To compare two Gaussians we use the Kullback-Leibler divergence, here from an answer $q$ to the exact posterior $p$:
#
# $$
# \mathrm{KL}(q\,\|\,p)=\tfrac12\Big(\log\frac{v_p}{v_q}+\frac{v_q+(\mu_q-\mu_p)^2}{v_p}-1\Big).
# $$ (eq-kl-normal)
#
# It is zero exactly when the two are equal.
# Here is every set of modalities.
# The last column feeds *likelihood* experts to the product with prior.

# %%
subsets = [(0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2)]
rows = []
for subset in subsets:
    x = {m: LG3_OBSERVATION[m] for m in subset}
    truth = LG3.posterior(x)
    posteriors = [LG3.posterior({m: x[m]}) for m in subset]
    tried = [product(posteriors), product_with_prior(posteriors), quotient(posteriors), product_with_prior(LG3.experts(x))]
    rows.append([" ".join(f"x{m + 1}" for m in subset), truth.mean, truth.var, *(kl(q, truth).abs() for q in tried)])

table("KL to the exact posterior of LG3, in nats",
      ["observed", "exact mean", "exact variance", "plain, posteriors", "with prior, posteriors", "quotient, posteriors", "with prior, likelihoods"],
      rows)
assert max(float(v) for row in rows for v in row[5:]) < 1e-12

# %% [markdown]
# The last two columns are zero up to rounding: they are the same density, computed on two routes.
# With a single modality the plain product is exact too, since there is nothing to count twice.
# The product with prior on posteriors is wrong even then.
#
# The table hides how fast the error grows.
# Take a world of many *weak* instruments, each barely better than the prior.
# We draw readings and a hidden $z$, and ask how often $z$ lies in the central interval that should hold it nine times out of ten.

# %%
HALF_WIDTH = NormalDist().inv_cdf(0.95)  # the central 90 % of a Gaussian, in standard deviations


def coverage(q, z):
    """How often z [n] lies in the central 90 % interval of q [n, 1]."""
    return ((z - q.mean[:, 0]).abs() < HALF_WIDTH * q.std[:, 0]).double().mean().item()


n = {"smoke": 2_000}.get(profile, 20_000)
counts = range(1, 13)
found = {name: [] for name in STYLES}
for M in counts:
    world = LinearGaussian(weights=(1.0,) * M, variances=(4.0,) * M)
    x = world.sample(n, g)
    z = world.posterior(x).rsample(generator=g)[:, 0]  # a hidden z that fits the readings
    posteriors = [world.posterior({m: x[m]}) for m in x]
    for name, form in zip(STYLES, (product, product_with_prior, quotient)):
        found[name].append(coverage(form(posteriors), z))

# %% tags=["hide-input"]
fig, ax = figure(6.4, 3.8)
ax.axhline(0.9, label="as promised", **EXACT)
for name, values in found.items():
    ax.plot(counts, values, label=name, marker="o", markersize=4, **STYLES[name])
finish(fig, ax, columns=2, xlabel="number of modalities", ylabel="coverage", ylim=(0, 1.05))
show(fig, alt="Coverage of the nominal nine-in-ten interval against the number of modalities. The quotient stays on the promised "
     "level. The plain product and the product with prior start near it and fall steadily as modalities are added.")

# %% [markdown]
# Every added modality brings another copy of the prior.
# The plain product becomes too sure of itself, and with a dozen weak instruments its interval misses the truth more often than it should by far.
# The quotient keeps its promise at any number.
#
# ### The normaliser knows the evidence
#
# For LG3's likelihood experts the constant has one more meaning.
# As a function of $z$, $p(x_m\mid z)=\mathcal N(z;\,x_m/w_m,\,s_m^2/w_m^2)\,/\,|w_m|$.
# The integral of prior times likelihoods is the evidence, so
#
# $$
# \log p(x_S)=\log Z-\sum_{m\in S}\log|w_m| .
# $$ (eq-evidence)
#
# Readings that fit together, and fit the prior, are probable readings.

# %%
score = log_normaliser([prior, *LG3.experts(LG3_OBSERVATION)]).item()
evidence = score - sum(math.log(abs(w)) for w in LG3.weights)
torch.testing.assert_close(evidence, LG3.log_prob(LG3_OBSERVATION).item())
print(f"log evidence of the three readings: {evidence:.6f} nats, from the normaliser and from LG3 directly")

# %% [markdown]
# ## The veto
#
# So far every expert was honest.
# Now two experts agree, and a third one far away is very sure of itself.

# %%
crowd = [Normal(torch.tensor([[mean]]), torch.tensor([[0.0]])) for mean in (-1.2, -0.8)]


def outsider(precision, mean=3.0):
    return Normal(torch.tensor([[mean]]), torch.tensor([[-math.log(precision)]]))


for precision in (0.1, 1.0, 10.0, 100.0):
    trio = [*crowd, outsider(precision)]
    q = product(trio)
    print(f"outsider's precision {precision:5.1f}: product has mean {q.mean.item():6.2f}, "
          f"sd {q.std.item():.2f}, log Z {log_normaliser(trio).item():7.2f}")

# %% tags=["hide-input"]
grid = torch.linspace(-4.5, 4.5, 600)
fig, ax = figure(6.4, 4.0)
trio = [*crowd, outsider(10.0)]
for name, q, dots in (("two who agree", crowd[0], 1), (None, crowd[1], 1), ("the outsider", trio[2], 3)):
    draw(ax, q, grid, name, color=PALETTE[0], linewidth=1.3, linestyle=(0, (1, dots)))
draw(ax, product(trio), grid, "product", **STYLES["plain product"])
draw(ax, Mixture(tuple(trio)), grid, "mixture", color=PALETTE[4])
finish(fig, ax, columns=2, xlabel="z", ylabel="density")
show(fig, alt="Two wide experts near minus one, a narrow outsider at three. The product is a single narrow peak close to the "
     "outsider, where the two wide experts are almost zero. The mixture keeps a broad hump at minus one and a peak at three.")

# %% [markdown]
# The product moves to the outsider, to a place that the other two find almost impossible.
# Votes are counted by precision, and two ordinary voters stand against one who holds ten times as many votes.
# The product does not look worried either: its standard deviation is smaller than anybody's.
# Only $\log Z$, falling in the print-out, says that something is wrong.
#
# {cite:t}`shi2019` call this the power of **veto**: where one expert is almost zero, so is the product.
# It is what we want from an honest expert, since "it is certainly not there" is information.
# It does harm when the expert is sharp without reason.
#
# ### What overconfidence costs
#
# Let expert $j$ report its variance times $\kappa$.
# With $\kappa<1$ it is overconfident, with $\kappa>1$ too modest.
# Its precision changes by $\delta$, at its own mean $\tilde\mu_j$, so by {eq}`eq-product-prior` the combined mean moves by
#
# $$
# \mu(\kappa)-\mu(1)=\frac{\delta}{T+\delta}\,(\tilde\mu_j-\mu(1)),
# \qquad \delta=\tilde T_j\Big(\frac1\kappa-1\Big),
# $$ (eq-kappa)
#
# with $T$ the precision at $\kappa=1$.
# As $\kappa\to0$ the fraction goes to one: expert $j$ decides alone.
# As $\kappa\to\infty$ it goes to the value that removes expert $j$.
# Two failures, and they are not alike: modesty wastes a witness, overconfidence silences all the others.

# %%
x = LG3.sample(n, g)
truth = LG3.posterior(x)
z = truth.rsample(generator=g)[:, 0]
witnesses = LG3.experts(x)  # likelihood experts, each [n, 1]
kappas = torch.logspace(-3, 3, 25, dtype=torch.float64)


def with_kappa(experts, j, kappa):
    """The same experts, but expert j reports kappa times its variance."""
    return [Normal(q.mean, q.logvar + math.log(kappa)) if m == j else q for m, q in enumerate(experts)]


bias, covered = {}, {}
for j in range(3):
    combined = [product_with_prior(with_kappa(witnesses, j, k)) for k in kappas.tolist()]
    bias[j] = [(q.mean - truth.mean).square().mean().sqrt().item() for q in combined]
    covered[j] = [coverage(q, z) for q in combined]

# the closed form says the same
j, kappa = 1, 0.1
delta = witnesses[j].precision * (1 / kappa - 1)
shift = delta / (truth.precision + delta) * (witnesses[j].mean - truth.mean)
torch.testing.assert_close(product_with_prior(with_kappa(witnesses, j, kappa)).mean - truth.mean, shift)

# %% tags=["hide-input"]
fig, (top, bottom) = figure(6.4, 5.6, rows=2, sharex=True)
for j in range(3):
    style = {"color": PALETTE[j], "linestyle": ("-", "--", "-.")[j]}
    top.plot(kappas, bias[j], label=f"expert {j + 1} is off", **style)
    bottom.plot(kappas, covered[j], **style)
bottom.axhline(0.9, **EXACT)
for ax in (top, bottom):
    ax.axvline(1, color="#808080", linewidth=1, linestyle=":")
top.set(ylabel="bias of the mean (rms)", xscale="log", ylim=(0, None))
bottom.set(xlabel="factor κ on one expert's variance", ylabel="coverage", ylim=(0, 1))
fig.legend(*top.get_legend_handles_labels(), loc="outside lower center", ncols=3)
show(fig, alt="Two panels against the factor kappa, from far below one to far above, one curve per expert of LG3. The bias of "
     "the mean is zero at kappa one, rises on both sides, and most on the left for the weakest expert. The coverage is at the "
     "promised level at one and above, and collapses towards zero on the left.")

# %% [markdown]
# The damage is lopsided.
# To the right of one the bias levels off and the interval still covers, since less information is used but it is used honestly.
# To the left the interval collapses: the product grows narrower without becoming more right.
# It is worst when the expert that deserves the fewest votes takes them all.
#
# A network has no reason to be calibrated across modalities.
# An image has hundreds of pixels, a label has one symbol; the likelihood weights in the objective rescale them further.
# {cite:t}`shi2019` suspect such miscalibrated precisions behind the poor results of MVAE, and replace the product by a **mixture of experts**:
#
# $$
# q(z\mid x_S)=\frac1{|S|}\sum_{m\in S}q_m(z\mid x_m).
# $$ (eq-mixture)
#
# A mixture cannot be vetoed: no expert can take away what another one has put there.
# It pays for this, since two witnesses in agreement make it no sharper than one.
# {cite:t}`daunhawer2021` argue on the other side: the product is sound, they say, once private factors are kept out of it.

# %% [markdown]
# ## Try it
#
# The experts below start as the exact posteriors of LG3, and the thin line marks the exact posterior of whatever set is switched on.

# %%
from mmvae_lite.explore import ExpertPlayground

posteriors = [LG3.posterior({m: value}) for m, value in LG3_OBSERVATION.items()]
truths = {s: LG3.posterior({m: LG3_OBSERVATION[m] for m in s}) for s in subsets}
ExpertPlayground(
    means=[q.mean.item() for q in posteriors],
    precisions=[q.precision.item() for q in posteriors],
    form="product",
    labels=["p(z | x1)", "p(z | x2)", "p(z | x3)"],
    truth={s: (q.mean.item(), q.precision.item()) for s, q in truths.items()},
)

# %% [markdown]
# 1. Step through the three forms with all experts present, then switch one expert off. Which form stays on the exact posterior?
# 2. Choose the quotient and lower the precisions one after another. At what total does it stop being a density? Compare with {eq}`eq-proper`.
# 3. Choose the product, push one expert's mean to the edge, then raise its precision. Watch the mean follow and the width not care.

# %% [markdown]
# ## Pitfalls, some of them in print
#
# **Which expert does the code have in hand?**
# The three forms look alike, and nothing crashes when the wrong one is used.
# {cite:t}`daunhawer2021` derive the quotient as their equation 2; their released code takes the plain product, with no prior expert and no division.
# If its encoders learn posteriors, the prior is counted once per modality.
# The two agree only where the prior hardly matters.
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
# MVAE's code adds a small constant to the variances and again to their inverse, to be safe from dividing by zero.
# The effect is tiny but it is a bias, and it hides from tests with a loose tolerance.
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
# If you build a model today: report likelihood experts and use the product with prior.
# It is exact under its assumptions, it is never improper, and it needs no case for missing data.
# Then check the calibration, as in the coverage figure above.

# %% [markdown]
# ## Exercises
#
# Each exercise has a stub, a check and a hidden solution.
# The check says what is not right yet, as often as you like.

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

# %% tags=["solution", "hide-cell"]
def three_products():
    # precisions 2, 5, 3 and eta 1, 3, 1; the standard prior has precision 1 and eta 0
    T, eta = 2 + 5 + 3, 1 + 3 + 1
    return {"product": (T, eta / T), "prior": (T + 1, eta / (T + 1)), "quotient": (T - 2, eta / (T - 2))}


# Only the quotient is the exact posterior: the experts are posteriors, so two of three priors must go.
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

# %% tags=["solution", "hide-cell"]
def experts_that_fail():
    # the precisions 1.25 + 0.25 + 0.25 stay below the 2 that the quotient takes away
    return [(0.0, 0.8), (1.0, 4.0), (-1.0, 4.0)]


# With two experts the quotient takes away 1, and the sharp one alone brings more than that.
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

# %% tags=["solution", "hide-cell"]
def log_agreement(mean1, var1, mean2, var2):
    total = var1 + var2
    return -0.5 * (math.log(2 * math.pi * total) + (mean1 - mean2) ** 2 / total)


# The derivative is zero where the total variance equals the squared gap of the means:
# experts that disagree should have claimed just the spread that their disagreement shows.
check("poe-agreement", log_agreement).require()

# %% [markdown]
# ```{exercise} Mend an overconfident expert
# :label: ex-poe-calibrate
#
# An expert has reported `means` and `variances` for many items, and for these items the hidden values `z` are known (all of shape `[n]`).
# Return the one factor by which its variances must be multiplied to be honest.
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

# %% tags=["solution", "hide-cell"]
def calibration_factor(means, variances, z):
    return ((z - means) ** 2 / variances).mean()


# It is also the maximum-likelihood estimate of the factor. The expert's kappa is its inverse.
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

# %% tags=["solution", "hide-cell"]
def full_product(means, covariances):
    precisions = torch.linalg.inv(covariances)
    precision = precisions.sum(0)
    eta = torch.einsum("mij,mj->i", precisions, means)
    return torch.linalg.solve(precision, eta), torch.linalg.inv(precision)


slanted = torch.tensor([[1.0, 0.95], [0.95, 1.0]])
crossed = torch.stack([slanted, torch.linalg.inv(slanted) * slanted.det()])
_, covariance = full_product(torch.zeros(2, 2), crossed)
_, diagonal = full_product(torch.zeros(2, 2), torch.stack([torch.diag(c.diagonal()) for c in crossed]))
print(f"variance along each axis: {covariance[0, 0]:.3f} with full matrices, {diagonal[0, 0]:.3f} with diagonals only")
check("poe-full-covariance", full_product).require()

# %% [markdown]
# ## Further reading
#
# {cite:t}`hinton2002` introduces products of experts, for models whose normaliser has no closed form.
# {cite:t}`wu2018` bring them to variational autoencoders; their section 2 has the derivation above.
# {cite:t}`daunhawer2021` and {cite:t}`lee2020` put a product on the shared latent alone and give every modality a private one, an idea that goes back to {cite:t}`hsu2018`.
# {cite:t}`shi2019` make the case against products and for mixtures.
# {cite:t}`korthals2019` train one encoder per subset instead of combining experts.
# The variational autoencoder itself, and the divergence {eq}`eq-kl-normal`, are in {cite:t}`kingma2014`.
