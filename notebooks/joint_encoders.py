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
# # Joint encoders, and life without one of the senses
#
# ```{admonition} Before you start
# :class: note
# You need the world of the [first chapter](solvable_world.ipynb), the ELBO, Jensen's inequality and a little PyTorch.
# Four small models are trained on this page.
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

import torch
from torch.func import functional_call

from mmvae_lite.data import LG3, LG3_OBSERVATION, LinearGaussian
from mmvae_lite.distributions import BernoulliLikelihood, Normal, kl
from mmvae_lite.exercises import check
from mmvae_lite.models import JMVAE, TELBO
from mmvae_lite.networks import (
    dense_decoder,
    dense_encoder,
    dense_joint_encoder,
)

# %% [markdown]
# ## The question
#
# Two clerks write the same digit, each in a hand of his own: one on the form, one on the counterfoil.
# We want one model of both pictures.
# The plainest thing is to let *one* encoder read everything: it sees both pictures and reports a belief about one latent $z$, from which two decoders draw the pictures.
# There are no experts to combine.
# This is a **joint encoder**, and we train it like any variational autoencoder.
#
# Then the counterfoil is lost.
# The encoder wants two pictures, and there is one.
# We do the simple thing and hand it an empty sheet, all zeros.

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the data and the networks", "code_prompt_hide": "Hide the data and the networks"}
from mmvae_lite.data import best_available
from mmvae_lite.data.entangled import permuted_within_classes
from mmvae_lite.data.pairing import repair_each_epoch
from mmvae_lite.data.parts import Part
from mmvae_lite.evaluation import classifier
from mmvae_lite.training import fit

sizes = {
    "smoke": dict(latent=4, width=32, items=300, steps=12),
    "lite": dict(latent=8, width=192, items=10_000, steps=700),
    "paper": dict(latent=64, width=512, items=50_000, steps=100_000),
}[profile]
data = best_available("digits")
train, test = data.train.first(sizes["items"]), data.test.first(1000)
judge = classifier("digits" if data.stand_in else "mnist")
epochs = max(1, round(sizes["steps"] * 128 / len(train)))

g = torch.Generator().manual_seed(seed)
partner = permuted_within_classes(test.classes, g)  # another picture of the same digit
pairs = {"x1": test.images, "x2": test.images[partner]}
source = (
    f"{data.description}; {len(train)} pictures to train on, {len(test)} to test on."
)
print(
    f"We use {data.description}:\n{len(train)} pictures to train on, {len(test)} to"
    " test on."
)
print("Every picture has another one of its digit for a partner.")
if data.stand_in:
    print("Set MMVAE_DATA to a folder that holds mnist/ to use MNIST.")


def networks():
    """Encoders, and the other parts that all models of this page share."""
    torch.manual_seed(seed)
    D, h, hands = sizes["latent"], sizes["width"], ("x1", "x2")
    joint = dense_joint_encoder({m: [784, h] for m in hands}, h, D)
    single = {m: dense_encoder([784, h, h], D) for m in hands}
    parts = {
        "decoders": {m: dense_decoder([D, h, h, 784], (1, 28, 28)) for m in hands},
        "likelihoods": {m: BernoulliLikelihood() for m in hands},
        "latent_dim": D,
    }
    return joint, single, parts


rows = torch.arange(len(train))
training = Part(
    {"x1": train.images, "x2": train.images}, train.classes, {"x1": rows, "x2": rows}
)
new_partners = repair_each_epoch({"x1": train.classes, "x2": train.classes})


def trained(model):
    fit(
        model, training, epochs=epochs, batch_size=128, lr=2e-3, pair=new_partners,
        seed=seed, device=device,
    )
    return model.cpu().eval()

# %%
joint, _, parts = networks()
naive = trained(JMVAE(joint, **parts, variant="zero", zero_prob=0.0))
with torch.no_grad():
    from_both = naive.translate(pairs, "x2")
    from_zeros = naive.translate({"x1": pairs["x1"]}, "x2")

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
EXAMPLES = torch.cat([(test.classes == c).nonzero()[:1, 0] for c in range(10)])


def strips(rows, alt, caption=None, width=5.0):
    """Rows of pictures [n, 1, 28, 28] with a name each."""
    n = len(next(iter(rows.values())))
    fig, axes = figure(
        width, ((width - 1.1) / n + 0.09) * len(rows), rows=len(rows), squeeze=False
    )
    for ax, (name, images) in zip(axes[:, 0], rows.items()):
        ax.imshow(
            images[:, 0].transpose(0, 1).flatten(1).detach().clamp(0, 1), cmap="gray",
            vmin=0, vmax=1, aspect="equal",
        )
        ax.set(xticks=[], yticks=[13.5], yticklabels=[name])
        ax.tick_params(length=0)
        for spine in ax.spines.values():
            spine.set_visible(False)
    show(fig, alt=alt, caption=caption)


def read_right(images):
    """How often our judge reads the digit that was given."""
    return (judge(images).argmax(-1) == test.classes).double().mean().item()


# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the code of this figure", "code_prompt_hide": "Hide the code of this figure"}
strips(
    {
        "form": pairs["x1"][EXAMPLES],
        "counterfoil": pairs["x2"][EXAMPLES],
        "from both": from_both[EXAMPLES],
        "from zeros": from_zeros[EXAMPLES],
    },
    alt=(
        "Four rows of ten digits. The first two rows are two handwritings of the same"
        " digits. The third row, the counterfoil drawn from both pictures, shows"
        " readable digits. The fourth, drawn from the form and an empty sheet, shows"
        " other digits or none in many places."
    ),
    caption=f"The counterfoil, drawn by the joint encoder and its decoder. {source}",
)

# %%
print(f"n = {len(test)}; the judge reads the right digit on")
print(f"  real pictures:             {read_right(pairs['x2']):.3f}")
print(f"  drawn from both:           {read_right(from_both):.3f}")
print(f"  drawn from form and zeros: {read_right(from_zeros):.3f}")

# %% [markdown]
# The encoder has never seen an empty sheet.
# It takes it for a picture and believes it.
# That is the blocked nose of the [first chapter](solvable_world.ipynb) again: zero is a reading.
#
# Three papers mend this in three ways.
# Train with empty sheets now and then.
# Or add an encoder for each single picture, and pull it towards the joint one: this is **JMVAE**, the joint multimodal VAE {cite:p}`suzuki2016`.
# Or train those encoders on bounds of their own: this is **TELBO**, the triple ELBO {cite:p}`vedantam2018`.
# They look alike, and they do not learn the same thing.
#
# **After this chapter you can**
#
# - say what the belief from one sense must be, given the joint one, and test three recipes against it;
# - derive JMVAE from the variation of information, and say of each step whether it keeps a bound;
# - say what JMVAE pays for every nat that only one sense knows;
# - read and write a stop-gradient, and say what it protects in TELBO;
# - count what it costs to give each set of senses its own encoder;
# - explain why the style of one modality cannot reach the other, whatever the recipe.

# %% [markdown]
# ## What we are after
#
# The graph is {eq}`eq-graph`, one latent for all modalities.
# The **joint ELBO** is that of {eq}`eq-gap`, split into likelihoods and prior, with an encoder that reads everything and a weight $\lambda_m$ for each modality:
#
# $$
# \begin{aligned}
# \mathcal L_J&=\mathbb E_{q(z\mid x_1,x_2)}\sum_{m}\lambda_m\log p(x_m\mid z)\\
# &\quad-\mathrm{KL}\big(q(z\mid x_1,x_2)\,\|\,p(z)\big).
# \end{aligned}
# $$ (eq-joint-elbo)
#
# With weights $\lambda_m=1$ its gap to $\log p(x_1,x_2)$ is $\mathrm{KL}\big(q\,\|\,p(z\mid x_1,x_2)\big)$, by {eq}`eq-gap`.
# A generous network can make that small, if the true posterior is close to a Gaussian.
# Nothing is wrong with a joint encoder as long as everything is there.
#
# What should be believed from $x_1$ alone?
# Add up over what $x_2$ might have been:
#
# $$
# \begin{aligned}
# &p(z\mid x_1)\\
# &\;=\int p(z\mid x_1,x_2)\,p(x_2\mid x_1)\,dx_2 .
# \end{aligned}
# $$ (eq-posterior-average)
#
# *The belief from one sense is the average of the joint beliefs over what the other sense may say.*
# For Gaussians this has a shape that one can draw.
# In the linear world the joint posterior is $\mathcal N(\mu_{12},v_{12})$, with a variance that does not depend on the readings, {eq}`eq-world-posterior`.
# As $x_2$ varies, the mean moves about.
# So the average has the mean $\mu_1=\mathbb E[\mu_{12}\mid x_1]$ and the variance
#
# $$
# v_1=\underbrace{v_{12}}_{\text{doubt that stays}}+\underbrace{\mathrm{Var}(\mu_{12}\mid x_1)}_{\text{doubt about }x_2}.
# $$ (eq-total-variance)
#
# This is the law of total variance.
# Keep the two parts in mind: one of the three recipes will forget the second.
#
# We use two of the three senses of the melon, colour and smell, as the world to test on.

# %%
PAIR = LinearGaussian(LG3.weights[:2], LG3.variances[:2])
melon = {m: LG3_OBSERVATION[m] for m in (0, 1)}

g = torch.Generator().manual_seed(seed)
n = {"smoke": 10_000}.get(profile, 200_000)
melons = PAIR.sample(n, g)
both = PAIR.posterior(melons)
colour_only = PAIR.posterior({0: melons[0]})
doubt = both.mean - colour_only.mean  # mu_12 - E[mu_12 | x_1]
v_12, v_1 = both.var[0].item(), colour_only.var[0].item()
print(f"over n = {n} melons")
print(f"v_12 + Var(mu_12 | x_1) = {v_12:.4f} + {doubt.var():.4f}")
print(f"v_1                     = {v_1:.4f}")

# %% [markdown]
# ## First recipe: train with zeros
#
# In training, hide an input now and then, and ask for *both* pictures all the same.
# With $0_2$ for "zeros in the place of $x_2$", an item whose second input is hidden contributes
#
# $$
# \begin{aligned}
# \mathcal L_0&=\mathbb E_{q(z\mid x_1,0_2)}\sum_m\log p(x_m\mid z)\\
# &\quad-\mathrm{KL}\big(q(z\mid x_1,0_2)\,\|\,p(z)\big).
# \end{aligned}
# $$ (eq-zero-objective)
#
# Each item gives a valid bound on $\log p(x_1,x_2)$: any $q$ will do for that.
# {cite:t}`korthals2019` call a model **JMVAE-Z** and do not define it; their program keeps inputs and targets apart, which is what one needs for this, and this is our reading.
# ({cite:t}`suzuki2016` use zeros at test time only, as we did above.)
#
# What does the encoder learn to say when it sees $(x_1,0_2)$?
# It has to say one thing for all the $x_2$ that may hide behind the zeros.
# So training maximises the average of $\mathcal L_0$ over $p(x_2\mid x_1)$.
# Write the average as one expectation under $q$, and read off the density that $q$ should equal:
#
# $$
# \begin{aligned}
# &\mathbb E_{x_2\mid x_1}\mathcal L_0\\
# &=\mathbb E_q\Big[\log\frac{p(z)\,p(x_1\mid z)\,e^{\ell(z)}}{q(z)}\Big],\\
# &\qquad\ell(z)=\mathbb E_{x_2\mid x_1}\log p(x_2\mid z),\\
# &\Rightarrow\quad q^*\propto p(z)\,p(x_1\mid z)\,e^{\ell(z)} .
# \end{aligned}
# $$ (eq-zero-optimum)
#
# Compare with Bayes' rule for $p(z\mid x_1)$: there the factor $e^\ell$ is missing.
# With it, $q^*$ behaves *as if it had seen a typical $x_2$*.
#
# In the linear world, $\ell(z)=c-\frac1{2s_2^2}\big(w_2z-\mathbb E[x_2\mid x_1]\big)^2$.
# That is a likelihood of precision $w_2^2/s_2^2$, the full precision of a smell that nobody smelled.
# With $\mathbb E[x_2\mid x_1]=w_2\mu_1$ we find
#
# $$
# q^*=\mathcal N\big(\mu_1,\;v_{12}\big).
# $$ (eq-zero-gaussian)
#
# The mean is right.
# The variance is that of the joint posterior.
# In {eq}`eq-total-variance` the second part is gone: *a blocked nose that claims to have smelled*.

# %% [markdown]
# ## Second recipe: JMVAE
#
# ### What one sense says of another
#
# Suzuki and colleagues start from crossing itself.
# How well does the smell predict the colour?
# Given $z$, the colour $x_1$ does not care for the smell $x_2$, so that $p(x_1\mid x_2)=\int p(x_1\mid z)\,p(z\mid x_2)\,dz$.
# This is an evidence like any other, with the prior $p(z\mid x_2)$.
# So it has an ELBO, for any $q$:
#
# $$
# \begin{aligned}
# \log p(x_1\mid x_2)&\ge\mathbb E_q\log p(x_1\mid z)\\
# &\quad-\mathrm{KL}\big(q\,\|\,p(z\mid x_2)\big),
# \end{aligned}
# $$ (eq-conditional-bound)
#
# and the gap is once more the divergence from the posterior of this model, $\mathrm{KL}\big(q\,\|\,p(z\mid x_1,x_2)\big)$.
# The best $q$ is the *joint* posterior, and the joint encoder is there for it.
#
# ### The variation of information
#
# Ask for both directions at once.
# The **variation of information** is what each sense leaves open about the other,
#
# $$
# \begin{aligned}
# \mathrm{VI}&=H(x_1\mid x_2)+H(x_2\mid x_1)\\
# &=-\mathbb E\big[\log p(x_1\mid x_2)+\log p(x_2\mid x_1)\big].
# \end{aligned}
# $$ (eq-vi)
#
# To make it small, raise both conditional evidences.
# Add {eq}`eq-conditional-bound` for the two directions, with the same $q=q(z\mid x_1,x_2)$:
#
# $$
# \begin{aligned}
# &\log p(x_1\mid x_2)+\log p(x_2\mid x_1)\\
# &\quad\ge\mathbb E_q\sum_m\log p(x_m\mid z)\\
# &\qquad-\sum_m\mathrm{KL}\big(q\,\|\,p(z\mid x_m)\big).
# \end{aligned}
# $$ (eq-vi-bound)
#
# It is a bound, with a gap of twice $\mathrm{KL}(q\,\|\,p(z\mid x_1,x_2))$.
# But nobody has $p(z\mid x_m)$.
#
# ### A learnt encoder in its place
#
# Put encoders $q_m(z\mid x_m)$ there.
# Is it still a bound?
# Look at one direction, $\mathbb E_q\log p(x_1\mid z)-\mathrm{KL}(q\,\|\,q_2)$.
# It has the form of an ELBO, with $q_2$ in the role of the prior.
# So it bounds the evidence of *that* model, always:
#
# $$
# \begin{gathered}
# \begin{aligned}
# &\mathbb E_q\log p(x_1\mid z)-\mathrm{KL}\big(q\,\|\,q_2\big)\\
# &\qquad\le\log\tilde p(x_1\mid x_2),
# \end{aligned}\\
# \tilde p(x_1\mid x_2)=\!\int\! p(x_1\mid z)\,q_2(z\mid x_2)\,dz .
# \end{gathered}
# $$ (eq-crossing-bound)
#
# And $\tilde p$ is nothing exotic.
# It is *what crossing really does*: read $x_2$, draw $z$ from its encoder, decode $x_1$.
# So the learnt objective is a bound on how likely the true colour is under our own translation.
#
# How does $\tilde p$ compare with $p(x_1\mid x_2)$?
# For one pair it may be larger: an encoder that happens to point at this melon is rewarded.
# On average over pairs *of the model itself* it is not, since no density beats the true one on its own draws:
#
# $$
# \begin{aligned}
# &\mathbb E_{p(x_1\mid x_2)}\Big[\log\frac{p(x_1\mid x_2)}{\tilde p(x_1\mid x_2)}\Big]\\
# &\;=\mathrm{KL}\big(p(x_1\mid x_2)\,\|\,\tilde p(x_1\mid x_2)\big)\\
# &\;\ge0 .
# \end{aligned}
# $$ (eq-crossing-average)
#
# For data that the decoders do not describe, nothing holds it down.
# This distinction will return in the chapter on [all subsets](all_subsets.ipynb).

# %%
def crossing(world, q, m):
    """The density of x_m when z ~ q is drawn and decoded."""
    w, s2 = world.weights[m], world.variances[m]
    return Normal(w * q.mean, (w**2 * q.var + s2).log())


def widened(q, kappa):
    return Normal(q.mean, q.logvar + math.log(kappa))


kappas = [2.0**e for e in torch.linspace(-4, 3, 57).tolist()]
one, average = [], []
for kappa in kappas:
    for x, found in ((melon, one), (melons, average)):
        exact = PAIR.posterior({1: x[1]})
        truth = crossing(PAIR, exact, 0).log_prob(x[0][:, None])
        ours = crossing(PAIR, widened(exact, kappa), 0)
        found.append((ours.log_prob(x[0][:, None]) - truth).mean().item())

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the code of this figure", "code_prompt_hide": "Hide the code of this figure"}
fig, ax = figure(5, 3.6)
ax.axhline(0, label="truth, log p(colour | smell)", **(TRUE | {"linewidth": 5}))
ax.plot(kappas, one, label="crossing, our melon", **SECOND)
ax.plot(kappas, average, label="crossing, average over melons", **FIRST)
ax.set(
    xlabel="factor on the variance of the smell's encoder",
    ylabel="minus the truth, nats", xscale="log",
)
ax.set_xticks([1 / 16, 1 / 4, 1, 4], ["1/16", "1/4", "1", "4"])
ax.minorticks_off()
legend(fig, ax, columns=1)
show(
    fig,
    alt=(
        "Log density of the colour under crossing minus the true conditional, against a"
        " factor on the encoder's variance. For our melon the line rises above zero"
        " where the encoder is too sure. The average over melons touches zero at a"
        " factor of one and lies below it elsewhere."
    ),
    caption=(
        "For one melon an overconfident encoder can beat the truth. On average over the"
        " model's own melons it cannot."
    ),
)

# %% [markdown]
# ### The objective
#
# The last step adds $-\mathrm{KL}(q\,\|\,p(z))$, so that the model can also generate from the prior.
# It only lowers the value.
# With a weight $\alpha$ this is the objective of **JMVAE-kl**:
#
# $$
# \begin{aligned}
# &\mathcal L_{JM}(\alpha)=\mathcal L_J\\
# &\;-\alpha\sum_{m}\mathrm{KL}\big(q(z\mid x_1,x_2)\,\|\,q_m(z\mid x_m)\big).
# \end{aligned}
# $$ (eq-jmvae)
#
# Read from the left it is the joint ELBO less some divergences, so that for $\alpha\ge0$ it is a bound on $\log p(x_1,x_2)$ whatever the $q_m$ are.
# Read from the right, at $\alpha=1$, it is the crossing bound in both directions, less a divergence to the prior.
# With $M$ modalities the sum runs over $m=1,\dots,M$.
#
# ### What the single encoders learn
#
# The gradient goes to both sides of each divergence.
# First the side of $q_1$.
# It sees the average of $\mathrm{KL}(q\,\|\,q_1)$ over the $x_2$ that come with $x_1$, and wants $\mathbb E_{x_2\mid x_1}\mathbb E_q\log q_1(z)$ to be large.
# This is maximum likelihood for draws from the averaged joint encoder:
#
# $$
# \begin{gathered}
# q_1^*=\arg\min_{q_1}\mathrm{KL}\big(\bar q(z\mid x_1)\,\|\,q_1\big),\\
# \bar q(z\mid x_1)=\mathbb E_{x_2\mid x_1}\,q(z\mid x_1,x_2).
# \end{gathered}
# $$ (eq-jmvae-optimum)
#
# If $q$ is exact, then $\bar q$ is {eq}`eq-posterior-average`: *the right answer*.
# A Gaussian $q_1$ takes its mean and its variance, both parts of it.
# So the divergences, which came from the variation of information, turn out to be a recipe for averaging.
#
# ### What the joint encoder pays
#
# Now the other side.
# Let all encoders be exact.
# How far below $\log p(x_1,x_2)$ is the objective?
# By $\alpha$ times the divergences, and these do not vanish.
# On average over the data each one is a mutual information:
#
# $$
# \begin{aligned}
# &\mathbb E\,\mathrm{KL}\big(p(z\mid x_1,x_2)\,\|\,p(z\mid x_1)\big)\\
# &\quad=\mathbb E\log\frac{p(z\mid x_1,x_2)}{p(z\mid x_1)}=I(z;x_2\mid x_1).
# \end{aligned}
# $$ (eq-jmvae-price)
#
# It is what $x_2$ tells about $z$ on top of $x_1$.
# So JMVAE charges $\alpha$ for each nat that *only one sense knows*, in addition to what the prior charges for every nat.
# Knowledge that both senses have is free of this charge.
# Where the senses share nothing but the digit, it is a tax on style.
#
# The joint encoder answers it.
# For given $q_m$, collect everything under one expectation, as in {eq}`eq-zero-optimum`:
#
# $$
# \begin{gathered}
# (q^*)^{1+2\alpha}\propto p(z,x_1,x_2)\,\big(q_1q_2\big)^{\alpha},\\
# T^*=\frac{T_{12}+\alpha\,(T_1+T_2)}{1+2\alpha}\quad\text{(Gaussian)}.
# \end{gathered}
# $$ (eq-jmvae-tempered)
#
# With exact $q_m$ the precision of the joint encoder drops from $T_{12}$ towards the mean of $T_1$ and $T_2$.
# Then $\bar q$ changes as well, and the single encoders follow it.
# A small $\alpha$ disturbs the joint encoder little, and the $q_m$ learn to average all the same, only more slowly.
# Suzuki's program takes $\alpha=1$; the first table shows what exact encoders pay at that value.
# The second shows where all three encoders end when they climb together.

# %%
T = {}  # precision of the exact belief from each set
for s in ((0,), (1,), (0, 1)):
    T[s] = PAIR.posterior({m: melon[m] for m in s}).precision.item()
price = {m: 0.5 * math.log(T[0, 1] / T[m,]) for m in (0, 1)}
one_sense = {m: PAIR.posterior({m: melons[m]}) for m in (0, 1)}
sampled = {m: kl(both, q).mean().item() for m, q in one_sense.items()}
tempered = (T[0, 1] + T[0,] + T[1,]) / 3

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show how all encoders are fitted together", "code_prompt_hide": "Hide how all encoders are fitted together"}
w, s2 = (torch.tensor(t).double() for t in (PAIR.weights, PAIR.variances))
cov = torch.outer(w, w) + torch.diag(s2)


def climbed(alpha):
    """Variances of q_1, q_2, q_12 and mean distance below log p(x).

    At the top of L_JM(alpha) over linear encoders.
    """
    start = [0.5, 0.4, 1 / 6, 1 / 3, math.log(1 / 2), math.log(1 / 5), math.log(1 / 6)]
    phi = torch.tensor(start).double().requires_grad_()
    zero, unit = torch.zeros(()).double(), torch.eye(2).double()
    optimiser = torch.optim.LBFGS([phi], max_iter=200, line_search_fn="strong_wolfe")

    def loss():
        optimiser.zero_grad()
        slopes = torch.stack([phi[0], zero, zero, phi[1], phi[2], phi[3]]).view(3, 2)
        var = phi[4:].exp()

        def apart(to, other):  # E KL(q_12 || N(to . x, other))
            miss = slopes[2] - to
            return 0.5 * (
                var[2] / other - 1 - (var[2] / other).log() + miss @ cov @ miss / other
            )

        errors = [unit[m] - w[m] * slopes[2] for m in (0, 1)]
        log_px = sum(
            -0.5
            * ((2 * math.pi * s2[m]).log() + (e @ cov @ e + w[m] ** 2 * var[2]) / s2[m])
            for m, e in enumerate(errors)
        )
        value = (
            apart(0 * slopes[2], zero + 1)
            - log_px
            + alpha * sum(apart(slopes[m], var[m]) for m in (0, 1))
        )
        value.backward()
        return value

    optimiser.step(loss)
    truth = -0.5 * (torch.logdet(2 * math.pi * cov) + 2)
    return [*phi.detach()[4:].exp().tolist(), (truth + loss()).item()]


together = {alpha: climbed(alpha) for alpha in (1e-6, 0.1, 1.0, 10.0)}

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the code of this table", "code_prompt_hide": "Hide the code of this table"}
table(
    "What JMVAE pays in the world of the melon, nats",
    ["divergence to the encoder of", "I(z; the other | this)", f"mean over {n} melons"],
    [
        ["colour", price[0], sampled[0]],
        ["smell", price[1], sampled[1]],
    ],
)
table(
    "All three encoders at the top of the objective",
    ["α", "variance of q₁", "of q₂", "of q₁₂", "below log p(x), nats"],
    [
        ["almost 0, exact beliefs" if alpha < 0.01 else f"{alpha:g}", *row]
        for alpha, row in together.items()
    ],
)
print("precision of the joint belief")
print(f"  exact:                {T[0, 1]:.3f}")
print(f"  best for JMVAE, α = 1: {tempered:.3f}")

# %% [markdown]
# As $\alpha$ grows, the three beliefs become alike.
# The smell, which knew more than the colour, becomes vaguer, and the joint belief with it: what one sense knows and the other does not is given up.
# At the largest $\alpha$ the colour even claims more than it can know.
# At $\alpha=0.1$ little of this is seen.

# %% [markdown]
# ## Third recipe: TELBO
#
# {cite:t}`vedantam2018` give each encoder its own ELBO, three for two modalities:
#
# $$
# \begin{aligned}
# \mathcal L_T&=\mathcal L_J+\sum_m\Big\{\gamma_m\,\mathbb E_{q_m}\log p_{\mathrm{sg}(\theta_m)}(x_m\mid z)\\
# &\qquad\qquad-\mathrm{KL}\big(q_m(z\mid x_m)\,\|\,p(z)\big)\Big\}.
# \end{aligned}
# $$ (eq-telbo)
#
# With $\lambda=\gamma=1$ each bracket is a bound: of $\log p(x_1,x_2)$, of $\log p(x_1)$, of $\log p(x_2)$.
# The value aims at the sum of three evidences, and may not be compared with that of JMVAE.
#
# The symbol $\mathrm{sg}$ is a **stop-gradient**.
# The value of $\theta_m$ is used, and no gradient passes to it.
# In the brackets of one modality the decoders are held fixed.
#
# ### What the single encoders learn
#
# For a fixed decoder, the bracket of $q_1$ is an ELBO, so that its gap is $\mathrm{KL}(q_1\,\|\,p(z\mid x_1))$:
#
# $$
# q_1^*=\arg\min_{q_1}\mathrm{KL}\big(q_1\,\|\,p(z\mid x_1)\big).
# $$ (eq-telbo-optimum)
#
# Compare with {eq}`eq-jmvae-optimum`, where $q_1$ stands on the other side.
# If $q_1$ can equal the posterior, both recipes find it.
# If it cannot, they err in different directions, and we look at this below.
#
# ### What the stop-gradient protects
#
# Without it the decoder of colour would learn from two kinds of latents: sharp ones from $q$ and vague ones from $q_1$.
# From a vague $z$ the best drawing is a blurred one.
# With it, $\theta$ and the joint encoder learn from $\mathcal L_J$ alone, and would come out the same if the other brackets did not exist.
# So one may as well train the joint model first, freeze it, and train the $q_m$ afterwards.
# The two schedules are the same by construction; a test of the library compares them to the last digit.
#
# The price is stated quickly: the joint model never hears that its latent will be asked for from one side.
# JMVAE's tax is absent, for better and worse.

# %% [markdown]
# ## The recipes side by side
#
# In the world of the melon we know what each recipe learns for the colour alone.
# To make sure, we also let an optimiser look for the best $\mathcal N(a\,x_1,v)$ for each of the three objectives, over many melons.

# %%
OBJECTIVES = {
    "zeros": lambda q: PAIR.elbo(melons, q),
    "JMVAE": lambda q: -kl(both, q),
    "TELBO": lambda q: PAIR.elbo({0: melons[0]}, q),
}


def best(objective, steps=25):
    """The slope and the variance of the best encoder of the colour."""
    phi = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS(
        [phi], max_iter=steps, line_search_fn="strong_wolfe"
    )

    def loss():
        optimiser.zero_grad()
        q = Normal(phi[0] * melons[0][:, None], phi[1].expand(n, 1))
        value = -objective(q).mean()
        value.backward()
        return value

    optimiser.step(loss)
    return phi[0].item(), phi[1].exp().item()


def coverage(slope, var, level=0.9):
    """How often the interval of this level holds the truth."""
    g = torch.Generator().manual_seed(seed + 1)
    z = PAIR.posterior(melons).rsample(generator=g)
    reach = torch.special.ndtri(torch.tensor((1 + level) / 2)) * var**0.5
    inside = (z - slope * melons[0][:, None]).abs() <= reach
    return inside.double().mean().item()


found = {name: best(objective) for name, objective in OBJECTIVES.items()}

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the code of this table", "code_prompt_hide": "Hide the code of this table"}
slope = PAIR.weights[0] / PAIR.variances[0] * v_1
predicted = {
    "exact": (slope, v_1),
    "zeros": (slope, v_12),
    "JMVAE": (slope, v_1),
    "TELBO": (slope, v_1),
}
table(
    f"The encoder of the colour, over {n} melons",
    [
        "recipe",
        "slope, predicted",
        "found",
        "variance, predicted",
        "found",
        "a 0.9-interval holds",
    ],
    [
        [
            name,
            a,
            found.get(name, (a, v))[0],
            v,
            found.get(name, (a, v))[1],
            coverage(*found.get(name, (a, v))),
        ]
        for name, (a, v) in predicted.items()
    ],
)

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the code of this figure", "code_prompt_hide": "Hide the code of this figure"}
grid = torch.linspace(-2, 3, 400, dtype=torch.float64)
colour = melon[0].item()


def bell(mean, var):
    return (-0.5 * (grid - mean).square() / var).exp() / math.sqrt(2 * math.pi * var)


fig, ax = figure(5, 3.6)
ax.plot(grid, bell(slope * colour, v_1), label="exact, from the colour", **TRUE)
for (name, (a, v)), style in zip(found.items(), (SECOND, FIRST, FOURTH)):
    ax.plot(grid, bell(a * colour, v), label=name, **style)
ax.set(xlabel="ripeness z", ylabel="density")
legend(fig, ax)
show(
    fig,
    alt=(
        "Densities of the ripeness given the colour of our melon. JMVAE and TELBO lie"
        " on the exact belief. The recipe with zeros has the same centre and is much"
        " narrower."
    ),
    caption="All three have the right centre. The one trained with zeros is too sure.",
)

# %% [markdown]
# The table and the algebra agree.
# JMVAE (here beside an exact joint encoder) and TELBO both find the truth, and the zeros give a belief that is as sharp as if nothing were missing.
# For *decoding a mean* this does no harm, which is why it goes unnoticed.
# For drawing, for weighing senses against each other, and for anyone who reads the variance it is wrong.
#
# ### When a sense leaves two answers
#
# Now a world in which no Gaussian is right.
# Suppose that the first sense shows only the *size* of $z$, and the second shows its sign:
#
# $$
# \begin{gathered}
# x_1\mid z\sim\mathcal N(z^2,\,0.3^2),\\
# x_2\mid z\sim\mathcal N(z,\,0.5^2).
# \end{gathered}
# $$ (eq-two-answers)
#
# Given $x_1=1$ alone, $z$ is near $1$ or near $-1$.
# We compute $p(z\mid x_1)$ on a grid, and the best Gaussian of each recipe.

# %%
z = torch.linspace(-5, 5, 4001, dtype=torch.float64)
eps = torch.linspace(-6, 6, 401, dtype=torch.float64)
weight = (-0.5 * eps.square()).softmax(0)  # expectations under N(0, 1)


def log_size(z):
    return -0.5 * (1 - z**2).square() / 0.3**2  # log p(x_1 = 1 | z) + c


posterior = (log_size(z) - 0.5 * z**2).softmax(0)
mean = (posterior * z).sum()
var = (posterior * (z - mean) ** 2).sum()
two = {"JMVAE": (mean.item(), var.item())}  # those of the average


def top_from(log_px, start):
    """Climb E_q[log p(x | z)] - KL(q || p) from a mean and log variance."""
    phi = torch.tensor(start).double().requires_grad_()
    optimiser = torch.optim.LBFGS(
        [phi], max_iter=100, line_search_fn="strong_wolfe"
    )

    def loss():
        optimiser.zero_grad()
        at = phi[0] + (phi[1] / 2).exp() * eps
        value = -(weight * (log_px(at) - 0.5 * at**2)).sum() - phi[1] / 2
        value.backward()
        return value

    optimiser.step(loss)
    return -loss().item(), phi[0].item(), phi[1].exp().item()


def best_gaussian(log_px):
    """Mean and variance: there may be several tops, we keep the highest."""
    starts = ((1.0, -3.0), (1.0, -1.0), (0.0, -1.0))
    return max(top_from(log_px, start) for start in starts)[1:]


# given x_1, the mean of x_2 is 0, and its likelihood averages to a parabola
two["zeros"] = best_gaussian(lambda z: log_size(z) - 0.5 * z**2 / 0.5**2)
two["TELBO"] = best_gaussian(log_size)
for name, (mean_of_q, var_of_q) in two.items():
    print(f"{name:5} mean {mean_of_q:.2f}, variance {var_of_q:.3f}")

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the code of this figure", "code_prompt_hide": "Hide the code of this figure"}
grid = torch.linspace(-2.5, 2.5, 500, dtype=torch.float64)
fig, ax = figure(5, 3.6)
shown = z.abs() <= 2.5
ax.plot(
    z[shown], (posterior / (z[1] - z[0]))[shown], label="exact, p(z | x₁ = 1)", **TRUE
)
for name, style in zip(OBJECTIVES, (SECOND, FIRST, FOURTH)):
    ax.plot(grid, bell(*two[name]), label=name, **style)
ax.set(xlabel="z", ylabel="density")
legend(fig, ax)
show(
    fig,
    alt=(
        "The exact belief has two narrow humps at plus and minus one. JMVAE's Gaussian"
        " is broad, covers both humps and has its peak between them. TELBO's sits on"
        " one hump and ignores the other. So does the one trained with zeros, a little"
        " nearer to the middle."
    ),
    caption=(
        "Three wrong answers. Those of TELBO and of the zeros could as well sit on the"
        " left hump."
    ),
)

# %% [markdown]
# JMVAE covers both answers and the empty place between them.
# TELBO picks one answer, and is sure.
# The zeros pick one as well, and pull it towards the middle: that is where the average $x_2$ votes, which nobody saw.
#
# It is the old difference between the two directions of a divergence.
# $\mathrm{KL}(p\,\|\,q)$ is large where $q$ misses what $p$ has; $\mathrm{KL}(q\,\|\,p)$ is large where $q$ has what $p$ misses.
# Draws of JMVAE are varied and some are bad; draws of TELBO are good and too much alike.

# %% [markdown]
# ## About ten lines of code each
#
# Both losses share the joint ELBO.
# The stop-gradient is one line: the decoder is called with a copy of its weights that is cut off from the graph.

# %%
def draw(q, eps):
    return q.mean + q.std * eps


def joint_elbo(model, x, eps):
    q = model.joint_encoder(x)
    z = draw(q, eps)
    fit = sum(model.log_px(m, z, x[m]) for m in x)
    return q, (fit - kl(q, model.prior(len(z)))).mean()


def jmvae_loss(model, x, eps):
    q, bound = joint_elbo(model, x, eps)
    for m in x:
        bound = bound - model.alpha * kl(q, model.encoders[m](x[m])).mean()
    return -bound


def telbo_loss(model, x, eps):
    """eps: [3, batch, latent], one block for each encoder."""
    _, bound = joint_elbo(model, x, eps[0])
    for m, e in zip(x, eps[1:]):
        q = model.encoders[m](x[m])
        decoder = model.decoders[m]
        fixed = {k: v.detach() for k, v in decoder.named_parameters()}
        params = functional_call(decoder, fixed, (draw(q, e),))
        fit = model.likelihoods[m].log_prob(params, x[m])
        bound = bound + (fit - kl(q, model.prior(len(fit)))).mean()
    return -bound

# %%
few = {m: v[:16].double() for m, v in pairs.items()}
joint, single, parts = networks()
g = torch.Generator()
jmvae = JMVAE(joint, encoders=single, variant="kl", **parts).double()
model = TELBO(joint, single, **parts).double()
shape = (16, sizes["latent"])

g.manual_seed(seed)
eps = torch.randn(3, *shape, generator=g, dtype=torch.float64)
mine = {
    "JMVAE": jmvae_loss(jmvae, few, eps[0]),
    "TELBO": telbo_loss(model, few, eps),
}
theirs = {
    name: m.loss(few, generator=g.manual_seed(seed))["loss"]
    for name, m in (("JMVAE", jmvae), ("TELBO", model))
}
for name in mine:
    torch.testing.assert_close(mine[name], theirs[name], rtol=1e-10, atol=0)
    print(f"{name}: ours {mine[name]:.6f}, the library {theirs[name]:.6f}")

# the decoders of TELBO learn from the joint bracket alone
decoders = list(model.decoders.parameters())
_, bound = joint_elbo(model, few, eps[0])
alone = torch.autograd.grad(-bound, decoders)
for a, b in zip(alone, torch.autograd.grad(mine["TELBO"], decoders)):
    torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)

# %% [markdown]
# ## Every bound against the truth
#
# How far below its aim does each of these objectives lie?
# We take our melon, keep the exact $q_m$, and give the *joint* encoder the right mean and a wrong variance.
# Everything is computed without sampling.

# %%
factors = [2.0**e for e in torch.linspace(-4, 3, 57).tolist()]
q_exact = PAIR.posterior(melon)
singles = [PAIR.posterior({m: melon[m]}) for m in (0, 1)]
p_both = PAIR.log_prob(melon).item()
p_cross = 2 * p_both - sum(PAIR.log_prob({m: melon[m]}).item() for m in (0, 1))
aims = {
    "joint ELBO": p_both,
    "variation of information": p_cross,
    "JMVAE, α = 1": p_both,
}
bounds = {name: [] for name in aims}
for factor in factors:
    q = widened(q_exact, factor)
    elbo = PAIR.elbo(melon, q).item()
    apart = sum(kl(q, q_m).item() for q_m in singles)
    prior = kl(q, Normal.standard(1, 1, like=q.mean)).item()
    values = elbo, elbo + prior - apart, elbo - apart
    for found_values, value in zip(bounds.values(), values):
        found_values.append(value)

for name, truth in aims.items():
    assert max(bounds[name]) <= truth + 1e-9
torch.testing.assert_close(max(bounds["joint ELBO"]), p_both)

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the code of this figure", "code_prompt_hide": "Hide the code of this figure"}
fig, ax = figure(5, 4)
ax.axhline(p_both, label="log p(x₁, x₂)", **(TRUE | {"linewidth": 5}))
ax.axhline(
    p_cross, label="log p(x₁ | x₂) + log p(x₂ | x₁)", color=PALETTE[4], linewidth=5,
    alpha=0.45, linestyle="-",
)
for (name, values), style in zip(bounds.items(), (FIRST, SECOND, THIRD)):
    ax.plot(factors, values, label=name, **style)
ax.set(
    xlabel="factor on the variance of the joint encoder", ylabel="nats", xscale="log",
    ylim=(p_both - 3, max(p_both, p_cross) + 0.3),
)
ax.set_xticks([1 / 16, 1 / 4, 1, 4], ["1/16", "1/4", "1", "4"])
ax.minorticks_off()
legend(fig, ax, columns=1)
show(
    fig,
    alt=(
        "Three objectives against a factor on the joint encoder's variance, with two"
        " horizontal truths. The joint ELBO touches the joint evidence at a factor of"
        " one. The variation-of-information bound touches the sum of the two"
        " conditional evidences at a factor of one. JMVAE lies below the joint evidence"
        " everywhere and has its maximum at a larger variance."
    ),
    caption=(
        "Two bounds are tight at the exact posterior. JMVAE's top lies to the right: it"
        " prefers a broader belief."
    ),
)

# %% [markdown]
# The first two touch their truths where the encoder is exact.
# JMVAE's bound does not touch, and its maximum has moved to the right.
# That is {eq}`eq-jmvae-tempered`: the tax on what only one sense knows makes the joint encoder say less.

# %% [markdown]
# ## What $2^M$ encoders cost
#
# With two senses one joint and two single encoders serve every set.
# With three there are pairs, and neither JMVAE nor TELBO has an answer for them.
# Give each set its own encoder, and count:
#
# $$
# \begin{gathered}
# \sum_{k=1}^M\binom Mk=2^M-1\ \text{encoders},\\
# \sum_{k=1}^Mk\binom Mk=M\,2^{M-1}\ \text{inputs read}.
# \end{gathered}
# $$ (eq-encoder-count)
#
# The second line counts each pair of a set and a member: fix the member, and the others are in or out, $2^{M-1}$ ways.
# There are cheaper answers.
# Zeros need one encoder, and pay with its confidence.
# The products and mixtures of the coming chapters need $M$.
# For JMVAE one can replace the single encoders by $M$ encoders $q(z\mid x_{\setminus m})$ of all senses but one, and stop there.
# That is what the variation of information of $M$ senses asks for, $-\mathbb E\sum_m\log p(x_m\mid x_{\setminus m})$.

# %%
from mmvae_lite.networks import m2vae_networks

counts = {}
for M in range(2, 9):
    shapes = {f"x{m}": (1, 28, 28) for m in range(M)}
    nets = m2vae_networks(shapes)["encoders"]  # by set, such as "x0+x1"
    size = {s: sum(p.numel() for p in e.parameters()) for s, e in nets.items()}
    alone, full = sum(size[m] for m in shapes), size["+".join(shapes)]
    counts[M] = {
        "every set": sum(size.values()),
        "joint and single": full + alone,
        "one for each sense": alone,
    }
    assert len(nets) == 2**M - 1

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the code of this figure", "code_prompt_hide": "Hide the code of this figure"}
fig, ax = figure(5, 3.6)
for name, style in zip(counts[2], (SECOND, FIRST, THIRD)):
    ax.plot(
        list(counts), [c[name] / 1e6 for c in counts.values()], label=name, marker="o",
        markersize=4, **style,
    )
ax.set(xlabel="modalities M", ylabel="million weights in the encoders", yscale="log")
legend(fig, ax)
show(
    fig,
    alt=(
        "Number of weights in all encoders against the number of modalities, on a"
        " logarithmic axis. With an encoder for every set it grows exponentially. With"
        " a joint and single encoders, and with single ones alone, it grows in"
        " proportion to the number of modalities."
    ),
    caption=(
        "Encoders of the sizes in Korthals et al. (2019), table 1, for pictures of 28"
        " by 28 pixels."
    ),
)

# %% [markdown]
# ## Back to the clerks
#
# Now the three recipes on handwriting, with the same networks, the same data and the same number of steps as the failure above.

# %%
models, minutes = {}, {}
for name in ("zeros", "JMVAE", "TELBO"):
    joint, single, parts = networks()
    start = time.perf_counter()
    if name == "zeros":
        model = JMVAE(joint, **parts, variant="zero", zero_prob=0.5)
    elif name == "JMVAE":
        model = JMVAE(joint, encoders=single, variant="kl", **parts)
    else:
        model = TELBO(joint, single, **parts)
    models[name] = trained(model)
    minutes[name] = (time.perf_counter() - start) / 60

# %% [markdown]
# ### Style does not cross
#
# This is the experiment of {cite:t}`hsu2018`, figure 2, with two handwritings for their speech and handwriting.
# Below are eight fours from the test set, by eight hands.
# From each we infer $z$ with the encoder of the form alone, and decode both pictures.

# %% tags=["hide-input", "figure-pvae-2"] mystnb={"code_prompt_show": "Show the code of this figure", "code_prompt_hide": "Hide the code of this figure"}
fours = (test.classes == 4).nonzero()[:8, 0]
seen = {"x1": pairs["x1"][fours]}
with torch.no_grad():
    g = torch.Generator().manual_seed(seed)
    views = {"seen": seen["x1"]}
    for name in ("TELBO", "JMVAE"):
        views[f"{name[0]} same"] = models[name].translate(seen, "x1")
        views[f"{name[0]} other"] = models[name].translate(seen, "x2")
    views["J drawn"] = models["JMVAE"].translate(seen, "x2", sample=True, generator=g)
strips(
    views,
    alt=(
        "Six rows of eight pictures of a four. First the pictures that were seen, in"
        " eight handwritings. By TELBO, the same hand decoded again follows the"
        " differences between them, and the other hand follows them a little. By JMVAE"
        " the same hand is much alike in all columns, and the other hand is nearly one"
        " and the same average four. In the last row, decoded from draws, there are"
        " differences again, and they do not follow those of the first row."
    ),
    caption=(
        "z inferred from the form alone, by TELBO (T) and JMVAE (J); its mean is"
        f" decoded, in the last row a draw. {source}"
    ),
)

# %% [markdown]
# Look at the rows of the other hand.
# Here we know the right answer.
# The clerks' hands have nothing to do with each other, so $x_1$ tells of $x_2$ nothing but the digit, and $\mathbb E[x_2\mid x_1]$ is the average four, the same eight times.
# JMVAE comes close to it.
# That is what {cite:t}`hsu2018` saw: the other modality does not move when the style of the first one does.
# The model is not at fault; there is nothing to know.
# The last row draws $z$ from $q_1$ instead, and each draw has some style: any style, not this one.
#
# TELBO's other hand leans a little with the first.
# It looks like knowledge, and cannot be.
# Its single encoder is surer than it may be, and the two styles share dimensions of $z$.
#
# Now the rows of the same hand.
# TELBO's follows the first row.
# JMVAE's is blander: of what $x_1$ tells about $z$ only the digit is known to $x_2$ too, and the rest is taxed, {eq}`eq-jmvae-price`.
#
# Let us measure it for all digits.
# The spread of pictures *within* a digit is their variance, summed over the pixels.

# %%
def spread(images):
    """Variance within a digit, summed over pixels, averaged over digits."""
    each = [images[test.classes == c].var(0).sum() for c in range(10)]
    return sum(each).item() / 10


real = spread(pairs["x2"])
results = {}
for name, model in models.items():
    with torch.no_grad():
        g = torch.Generator().manual_seed(seed)
        given = {"x1": pairs["x1"]}
        same, other = (model.translate(given, m) for m in ("x1", "x2"))
        drawn = model.translate(given, "x2", sample=True, generator=g)
        joint_q = model.posterior(pairs)["shared"]
        z_both = joint_q.rsample(generator=g)
        log_px = sum(model.log_px(m, z_both, x) for m, x in pairs.items())
        elbo = log_px - kl(joint_q, model.prior(len(test)))
    results[name] = {
        "right-across": read_right(other),
        "right-across-drawn": read_right(drawn),
        "spread-same": spread(same) / real,
        "spread-across": spread(other) / real,
        "spread-across-drawn": spread(drawn) / real,
        "joint-elbo": elbo.mean().item(),
    }

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the code of this table", "code_prompt_hide": "Hide the code of this table"}
LINES = {
    "right-across": "digit right across (mean)",
    "right-across-drawn": "digit right across (draw)",
    "spread-same": "spread, same hand (mean)",
    "spread-across": "spread, other hand (mean)",
    "spread-across-drawn": "spread, other hand (draw)",
    "joint-elbo": "joint ELBO, nats",
}
table(f"Spreads are shares of that of real pictures, n = {len(test)}", ["", *results], [
    [text, *(r[key] for r in results.values())] for key, text in LINES.items()
])

# %% [markdown]
# Across, the spread from the mean should be about zero, and the spread from a draw close to one.
# All three show some of the former, TELBO the most.
# And all three show too little of the latter, the zeros least of all: they draw from a belief that is too narrow, as the melon predicted.
#
# Then compare the columns of JMVAE and TELBO, which differ in nothing but the objective.
# JMVAE keeps less of the same hand, and its joint ELBO is lower: it pays the tax.
# TELBO, which pays none, keeps the most and has the best joint ELBO.
# What JMVAE gets for its money is in the rows across: beside TELBO, its mean follows the style of the first hand less, and its draws vary more.
# They pay for that too, since a broader belief more often draws another digit.
#
# ### Who knows what
#
# We can look into $z$ and see where the style went.
# For each dimension of $z$, ask how many nats the first clerk's picture tells about it, and how many the second's, by their single encoders.
# Here are JMVAE and TELBO.

# %%
with torch.no_grad():
    told = {name: [] for name in ("JMVAE", "TELBO")}
    for name, m in itertools.product(told, pairs):
        q = models[name].posterior({m: pairs[m]})["shared"]
        apart = kl(q, models[name].prior(len(test)), reduce=False)
        told[name].append(apart.mean(0))

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the code of this figure", "code_prompt_hide": "Hide the code of this figure"}
fig, ax = figure(4.2, 4)
top = (
    1.1 * max(t.max().item() for both_hands in told.values() for t in both_hands) + 0.1
)
ax.plot([0, top], [0, top], color="#808080", linestyle=":", linewidth=1)
for (name, (one_hand, other_hand)), marker, color in zip(told.items(), "os", PALETTE):
    ax.plot(one_hand, other_hand, marker, color=color, markersize=7, label=name)
legend(fig, ax)
ax.set(
    xlabel="nats told by the first hand", ylabel="nats told by the second hand",
    xlim=(0, top), ylim=(0, top), aspect="equal",
)
show(
    fig,
    alt=(
        "One point for each latent dimension of two models, nats told by the first hand"
        " against nats told by the second. Points near the diagonal are known to both;"
        " points near an axis are known to one hand only."
    ),
    caption=(
        "Near the diagonal: shared. Near an axis: private to one hand, without anyone"
        " having asked for it."
    ),
)

# %% [markdown]
# Some dimensions belong more to one hand than to the other.
# Nobody asked for that, and nothing makes it clean; the chapters on private latents do it on purpose.
#
# The tax itself can be read off, too.
# It is the mean of $\mathrm{KL}(q\,\|\,q_1)$; if the encoders were exact, that would be what the second hand adds to the first, {eq}`eq-jmvae-price`.

# %%
added = {}
with torch.no_grad():
    for name in told:
        q = models[name].posterior(pairs)["shared"]
        alone = models[name].posterior({"x1": pairs["x1"]})["shared"]
        prior = models[name].prior(len(test))
        added[name] = [kl(q, prior).mean(), kl(q, alone).mean()]

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the code of this table", "code_prompt_hide": "Hide the code of this table"}
table(
    f"Divergences of the joint encoder, nats, mean over n = {len(test)}",
    ["", "to the prior", "to the encoder of the first hand"],
    [[name, *values] for name, values in added.items()],
)

# %% [markdown]
# JMVAE, which pays for the second column, keeps it small.
# TELBO does not: there it even exceeds the divergence to the prior.
# The joint belief lies where the single encoder hardly looks, a sign that this $q_1$ is surer than it may be; compare the two humps.

# %% [markdown]
# ## Try it
#
# Below, the encoder of the colour is in your hands.
# The axis is the width of its belief, with the right mean; each curve is what one recipe gains, on average over melons, less its own best.
# The slider sets how sharp the *missing* sense is: its precision about $z$.

# %%
from mmvae_lite.explore import BoundExplorer, LatentExplorer

widths = torch.linspace(0.15, 1.3, 93, dtype=torch.float64)
sharpness = [0.25, 1.0, 4.0, 16.0]
curves = {name: [] for name in OBJECTIVES}
for precision in sharpness:
    T_1 = T[0,]
    v = widths**2
    gains = {  # terms with v of each expected objective
        "zeros": 0.5 * v.log() - 0.5 * (T_1 + precision) * v,
        "JMVAE": -0.5 * v.log() - 0.5 / (T_1 * v),
        "TELBO": 0.5 * v.log() - 0.5 * T_1 * v,
    }
    for name, gain in gains.items():
        curves[name].append((gain - gain.max()).clamp_min(-3))

explorer = BoundExplorer(
    widths,
    {name: torch.stack(rows) for name, rows in curves.items()},
    settings=sharpness,
    axis="width of the belief",
    value="nats below its best",
    setting="precision of the missing sense",
    below=False,
    at=round((v_1**0.5 - 0.15) / 0.0125),
    alt="What each recipe gains against the width of the belief.",
)
explorer.frame = 2
explorer

# %% [markdown]
# 1. Where is the top of each curve? Compare with $\sqrt{v_1}$, where the marker starts.
# 2. Make the missing sense sharper. Which top moves, and where would it go in the end?
# 3. On which side of its top does each curve fall more steeply? Which recipe would rather be too vague?
#
# And here is JMVAE's latent space for the two hands, decoded in your browser.
# The sliders are sorted by what the first hand tells about them.

# %%
jmvae = models["JMVAE"]
with torch.no_grad():
    centres = jmvae.posterior({"x1": pairs["x1"]})["shared"].mean
means = {str(c): centres[test.classes == c].mean(0) for c in range(10)}

LatentExplorer(
    decoders={
        hand: torch.nn.Sequential(*jmvae.decoders[m], torch.nn.Sigmoid())
        for m, hand in (("x1", "first hand"), ("x2", "second hand"))
    },
    latents=means["4"],
    starts=means,
    kl=told["JMVAE"][0],
    name="joint-encoders",
    legend="Start from the mean of a digit",
    alt="A digit by each of two hands, decoded from one latent.",
)

# %% [markdown]
# 1. Jump to a digit and move the first sliders. Do both hands change, or one?
# 2. Look for a slider that changes the handwriting of one picture more than that of the other. Where would its point be in the figure above?
# 3. Which sliders change the digit? They should lie near the diagonal.

# %% [markdown]
# ## Our numbers and the papers'
#
# {cite:t}`hsu2018` cluster what JMVAE-kl infers from a single sense and ask how pure the clusters are in the digit.
# {cite:t}`lee2020` quote, for pictures with labels, how often the label inferred from the picture is right; that row comes from the paper on MVAE.
#
# :::{list-table}
# :header-rows: 1
#
# * - what
#   - data
#   - JMVAE
#   - for comparison
# * - purity of $z$ from speech
#   - TIDIGITS and MNIST
#   - {paper}`pvae:table-1:tidigits/jmvae-kl/speech`
#   - PVAE {paper}`pvae:table-1:tidigits/pvae-shared/speech`
# * - purity of $z$ from pictures
#   - TIDIGITS and MNIST
#   - {paper}`pvae:table-1:tidigits/jmvae-kl/image`
#   - PVAE {paper}`pvae:table-1:tidigits/pvae-shared/image`
# * - label from the picture, all paired
#   - MNIST
#   - {paper}`dmvae-l:table-1:mnist/jmvae/100`
#   - MVAE {paper}`dmvae-l:table-1:mnist/mvae/100`
# * - label from the picture, a hundredth paired
#   - MNIST
#   - {paper}`dmvae-l:table-1:mnist/jmvae/1`
#   - MVAE {paper}`dmvae-l:table-1:mnist/mvae/1`
# :::
#
# The first row may be the style again: if the speaker takes much room in the latent of a spoken digit, clusters follow speakers and not digits.
# The last row shows what complete items are for: JMVAE and TELBO learn from complete pairs, and MVAE learns from the rest as well.
#
# Our clerks are another task, and their numbers stand beside no paper's.
# On the test pairs of scikit-learn's digits the judge reads the crossed digit right with a share of {measured}`joint-encoders/lite-0:zeros-right-across|.3f` (zeros), {measured}`joint-encoders/lite-0:jmvae-right-across|.3f` (JMVAE) and {measured}`joint-encoders/lite-0:telbo-right-across|.3f` (TELBO).
# The spread within a digit, as a share of that of real pictures, falls from {measured}`joint-encoders/lite-0:jmvae-spread-same|.2f` for the same hand to {measured}`joint-encoders/lite-0:jmvae-spread-across|.2f` for the other, in JMVAE.

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show how the results are kept", "code_prompt_hide": "Hide how the results are kept"}
from mmvae_lite.results import write_result

_ = write_result(
    "joint-encoders", profile, seed,
    {
        "untrained-zeros-right-across": {
            "value": read_right(from_zeros), "n": len(test)
        },
        "judge-on-real-pictures": {"value": read_right(pairs["x2"]), "n": len(test)},
        **{
            f"{name.lower()}-{key}": {"value": value, "n": len(test)}
            for name, values in results.items()
            for key, value in values.items()
        },
    },
    data=data.description, stand_in=data.stand_in, device=device,
    minutes=sum(minutes.values()),
)  # fmt: skip

# %% [markdown]
# ## Pitfalls, some of them in print
#
# **Which KL is it?**
# JMVAE has the joint encoder on the left: $\mathrm{KL}(q\,\|\,q_m)$, an average over $q$.
# That pulls $q_1$ to the average of the joint beliefs over $x_2$, {eq}`eq-jmvae-optimum`.
# Turned round, $\mathrm{KL}(q_m\,\|\,q)$ averages their *logarithms*, $q_1\propto\exp\mathbb E_{x_2\mid x_1}\log q$, and for the melon that is the belief of the zeros again, {eq}`eq-zero-gaussian`.
#
# **The third divergence.**
# For three senses {cite:t}`korthals2019` print, in their equations 4 and 5, $p(z\mid b,c)$ twice; one of the two must be $p(z\mid a,b)$.
# The last term of their equation 2 has the same slip: $\log p(c\mid b,c)$ for $\log p(c\mid a,b)$.
# And they write $p$ where a program can only have a learnt $q$, without which one cannot say what is bounded; {eq}`eq-crossing-bound` says it.
#
# **Names without a definition.**
# "JMVAE-Z" and "tVAE" are defined in no text that we know of.
# From their table 1 and their references we read tVAE as TELBO.
# The step from their equation 3 to 4 says "$\ge$": it holds because the divergence to the prior is inserted there, and for that reason alone.
#
# **A weight that is not stated.**
# {cite:t}`hsu2018` compare with JMVAE-kl and do not say with which $\alpha$.
# By {eq}`eq-jmvae-tempered` that matters.
# Our runs of that experiment take $\alpha=0.1$, their weight of the like term in PVAE, and say so.
#
# **What is annealed.**
# Suzuki's program raises the weight of the prior's divergence in a warm-up, and leaves that of the others alone.
# The library MultiVae raises both.
# The two are different runs.
#
# **Third-party programs.**
# In MultiVae's TELBO the variance of the joint encoder enters the divergence of a single one.
# In the library Tars the estimate of a marginal likelihood always uses the first single encoder, whatever the modality.
# Neither should serve as a yardstick for a program of yours; the exact world of this chapter can.
#
# **Buffers are not parameters.**
# A stop-gradient on weights does not stop batch normalisation from updating its running statistics.
# The library's frozen decoders work on a copy of them.
#
# **A value without its aim.**
# TELBO's value is a sum of three bounds.
# It lies far below JMVAE's and says nothing by that.

# %% [markdown]
# ## When to use it, when not
#
# | use | when | think twice when |
# |---|---|---|
# | **zeros** | one network must do, and only the mean of $z$ is used | the variance is read, or items are drawn |
# | **JMVAE** | two senses, complete training items, and draws from one sense should cover what is possible | style matters: it is taxed; there are more than two senses |
# | **TELBO** | the joint model must not be disturbed; encoders can be added later | a sense leaves several answers open; there are more than two senses |
# | an encoder for every set | few senses, and every set must be sharp | $M$ is large: the number of encoders doubles with each |
#
# Incomplete training items are a reason against all of these: the joint encoder cannot read them.
# The [products](gaussian_experts.ipynb) of the next chapters can.

# %% [markdown]
# ## Exercises
#
# Each exercise has a stub to fill in, a check and a hidden solution.
# Ask the check as often as you like; it says what is not right yet.

# %% [markdown]
# ```{exercise} The conditional bound
# :label: ex-joint-conditional
#
# In the world of colour ($w=1$, $s^2=1$) and smell ($w=2$, $s^2=1$), let $q=\mathcal N(\mu,v)$ be any belief about our melon, $x=(1,\tfrac32)$.
# Return the bound {eq}`eq-conditional-bound` on $\log p(x_1\mid x_2)$, the colour given the smell, in closed form.
# For which $q$ is it tight?
# ```
#
# ```{admonition} Hint
# :class: dropdown tip
# $p(z\mid x_2)=\mathcal N(\tfrac35,\tfrac15)$.
# You need $\mathbb E_q(1-z)^2=(1-\mu)^2+v$ and the divergence of two Gaussians.
# ```

# %% tags=["exercise"]
def conditional_bound(mean, var):
    raise NotImplementedError

# %%
check("joint-conditional", conditional_bound)

# %% tags=["solution", "hide-cell"] mystnb={"code_prompt_show": "Show the solution", "code_prompt_hide": "Hide the solution"}
def conditional_bound(mean, var):
    fit = -0.5 * (math.log(2 * math.pi) + (1 - mean) ** 2 + var)
    ratio = var / 0.2
    apart = 0.5 * (ratio - 1 - math.log(ratio) + (mean - 0.6) ** 2 / 0.2)
    return fit - apart


# Tight at the joint posterior N(2/3, 1/6), not at p(z | x_2).
print(conditional_bound(2 / 3, 1 / 6), conditional_bound(3 / 5, 1 / 5))
check("joint-conditional", conditional_bound).require()

# %% [markdown]
# ```{exercise} What the zeros teach
# :label: ex-joint-zeros
#
# A world has two senses with weights $w$ and variances $s^2$, given as lists of two.
# A joint encoder is trained with the second sense hidden behind zeros and both as targets.
# Return the slope $a$ and the variance $v$ of its best belief $\mathcal N(a\,x_1,v)$.
# ```
#
# ```{admonition} Hint
# :class: dropdown tip
# {eq}`eq-zero-optimum`: which $\ell(z)$ does a Gaussian likelihood give, and what is $\mathbb E[x_2\mid x_1]$?
# ```

# %% tags=["exercise"]
def with_zeros(w, s2):
    # (slope, variance)
    raise NotImplementedError

# %%
check("joint-zeros", with_zeros)

# %% tags=["solution", "hide-cell"] mystnb={"code_prompt_show": "Show the solution", "code_prompt_hide": "Hide the solution"}
def with_zeros(w, s2):
    T_1 = 1 + w[0] ** 2 / s2[0]
    T_12 = T_1 + w[1] ** 2 / s2[1]
    return w[0] / (s2[0] * T_1), 1 / T_12


# The slope is that of p(z | x_1), the variance that of p(z | x_1, x_2).
check("joint-zeros", with_zeros).require()

# %% [markdown]
# ```{exercise} JMVAE's tax, for any number of senses
# :label: ex-joint-price
#
# `w` and `s2` are lists of any length, one entry for each sense, and all encoders are exact.
# By how many nats does $\mathcal L_{JM}(1)$ lie below $\log p(x)$ on average over the data?
# What happens to your answer when a sense is added that is pure noise, $w=0$?
# ```
#
# ```{admonition} Hint
# :class: dropdown tip
# {eq}`eq-jmvae-price` once for each sense, with {eq}`eq-world-information` for what a set tells.
# ```

# %% tags=["exercise"]
def price_of_jmvae(w, s2):
    raise NotImplementedError

# %%
check("joint-price", price_of_jmvae)

# %% tags=["solution", "hide-cell"] mystnb={"code_prompt_show": "Show the solution", "code_prompt_hide": "Hide the solution"}
def price_of_jmvae(w, s2):
    told = [a**2 / b for a, b in zip(w, s2)]
    everything = 1 + sum(told)
    return sum(0.5 * math.log(everything / (1 + t)) for t in told)


# A sense of pure noise knows nothing, so all that the others know is taxed
# once more: the price rises, although nothing about z has changed.
check("joint-price", price_of_jmvae).require()

# %% [markdown]
# ```{exercise} Stop the right gradient
# :label: ex-joint-stop
#
# Write one bracket of TELBO, for one modality: return $\mathbb E_{q_m}\log p(x_m\mid z)-\mathrm{KL}(q_m\,\|\,p)$ per item, `[batch]`, with one draw.
# `encoder(x)` gives a `Normal`, `decoder(z)` the mean of a Gaussian with variance one (leave out its constant), and `noise` is `[batch, latent]`.
# The encoder must learn from both terms, and the decoder from neither.
# ```
#
# ```{admonition} Hint
# :class: dropdown tip
# `torch.no_grad` around the decoder also cuts the path from the decoder's output back to $z$.
# Cut the weights, not the values: `functional_call(decoder, {name: weight.detach()}, (z,))`.
# ```

# %% tags=["exercise"]
def bracket(encoder, decoder, x, noise):
    raise NotImplementedError

# %%
check("joint-stop", bracket)

# %% tags=["solution", "hide-cell"] mystnb={"code_prompt_show": "Show the solution", "code_prompt_hide": "Hide the solution"}
def bracket(encoder, decoder, x, noise):
    q = encoder(x)
    z = q.mean + q.std * noise
    fixed = {name: w.detach() for name, w in decoder.named_parameters()}
    fit = -0.5 * (x - functional_call(decoder, fixed, (z,))).square().sum(-1)
    return fit - kl(q, Normal.standard(*q.mean.shape, like=q.mean))


check("joint-stop", bracket).require()

# %% [markdown]
# ```{exercise} A price list
# :label: ex-joint-count
#
# For $M\ge2$ modalities return four numbers: how many encoders JMVAE-kl has with its single encoders, how many with those of all senses but one instead, how many an encoder for every set needs, and how many *sets* (of one sense up to $M$) the first of these leaves without an answer.
# ```
#
# ```{admonition} Hint
# :class: dropdown tip
# For $M=2$ the first three agree, and no set is left out.
# ```

# %% tags=["exercise"]
def price_list(M):
    # (single, all_but_one, every_set, without_answer)
    raise NotImplementedError

# %%
check("joint-count", price_list)

# %% tags=["solution", "hide-cell"] mystnb={"code_prompt_show": "Show the solution", "code_prompt_hide": "Hide the solution"}
def price_list(M):
    return M + 1, M + 1, 2**M - 1, 2**M - 1 - (M + 1)


check("joint-count", price_list).require()

# %% [markdown]
# ## Further reading
#
# {cite:t}`suzuki2016` is the paper of JMVAE, where the variation of information comes in.
# {cite:t}`vedantam2018` introduce TELBO and a product of experts for partly described attributes.
# {cite:t}`korthals2019` extend the variation of information to any number of senses, and from there to an encoder for every set.
# {cite:t}`wu2018` measure JMVAE against MVAE.
# {cite:t}`hsu2018` take the lost style as the reason for private latents; their answer is the chapter on PVAE.
