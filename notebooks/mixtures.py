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
# # Mixtures: every sense must manage alone
#
# ```{admonition} Before you start
# :class: note
# You need the [products of experts](gaussian_experts.ipynb), [MVAE](mvae.ipynb), and from [bounds and their gradients](bounds.ipynb) the section on mixtures.
# Four small models are trained on this page.
# The profile `lite` is made for one CPU core; the bars below say how long each training took.
# ```

# %% tags=["parameters", "hide-input"] mystnb={"code_prompt_show": "Show the settings", "code_prompt_hide": "Hide the settings"}
profile = "lite"
seed = 0
device = "cpu"

# %% tags=["setup", "hide-input"] mystnb={"code_prompt_show": "Show the imports", "code_prompt_hide": "Hide the imports"}
import math
import time
from dataclasses import replace

import torch
from torch import nn
from torch.nn import functional as F

from mmvae_lite.data import LG3, digits_street
from mmvae_lite.distributions import Laplace, LaplaceLikelihood, Normal, kl
from mmvae_lite.evaluation import (
    conditional_coherence,
    expert_divergences,
    joint_coherence,
    judges_for,
    posteriors,
    probe_samples,
)
from mmvae_lite.evaluation.classifiers import descend
from mmvae_lite.exercises import check
from mmvae_lite.experts import Mixture, product_with_prior
from mmvae_lite.models import MMVAE, MVAE
from mmvae_lite.networks import (
    GaussianEncoder,
    LaplaceEncoder,
    dense_decoder,
    dense_trunk,
)
from mmvae_lite.training import fit

# %% [markdown]
# ## The question
#
# Somebody writes a digit on paper.
# The same digit stands on a house.
# The two pictures share one fact, which digit it is, and nothing else: not the stroke, not the font, not the neighbours on the wall.
# {cite:t}`shi2019` pair MNIST with street numbers in this way, to separate what is seen from what is meant.
#
# We want to go from one picture to the other.
# Does the product of experts of the last chapters do it, if we simply train it on pairs?

# %%
sizes = {
    "smoke": dict(pictures=(400, 200), steps=40, K=2),
    "lite": dict(pictures=(8000, 1000), steps=850, K=3),
    "paper": dict(pictures=(50_000, 10_000), steps=100_000, K=30),
}[profile]
LATENT, BATCH = 10, 64
raw = digits_street(times=1, drawn=sizes["pictures"], seed=seed)
print("We use", raw.description.replace(", and", ",\nand") + ":")
print(f"{len(raw.train)} pairs to train on, {len(raw.test)} to test on.")
if raw.stand_in:
    print("They stand in for MNIST and SVHN, which the paper uses.")

# %% [markdown]
# A house number is dark on bright or bright on dark, in any two colours.
# To learn that takes longer than this page can wait.
# So we make the task easier, and say how: each pixel becomes its distance from the colour of the ground, at half the size.
# Colours are gone; fonts, sizes, tilt, neighbours and dirt stay.
# (The experiment `mmvae-street` has the colours and the paper's networks.)

# %%
def ink(street):
    """[n, 3, 32, 32] levels -> [n, 1, 16, 16]: how far from the ground."""
    x = street.float()
    border = torch.cat([x[..., :3].flatten(2), x[..., -3:].flatten(2)], 2)
    ground = border.median(2).values[..., None, None]
    far = (x - ground).square().sum(1, keepdim=True).sqrt()
    far = F.avg_pool2d(far, 2)
    bright = far.flatten(1).quantile(0.97, 1)[:, None, None, None]
    return (255 * far / bright.clamp_min(1)).clamp(0, 255).to(torch.uint8)


def plain(part):
    street = [ink(x) for x in part.batch["street"].split(1000)]
    return replace(part, batch={**part.batch, "street": torch.cat(street)})


data = replace(raw, train=plain(raw.train), test=plain(raw.test))
train, test = data.train, data.test
source = f"{data.description}, made plain; {len(train)} pairs to train on."

# %% tags=["hide-input", "figure-mmvae-3"] mystnb={"code_prompt_show": "Show the plotting helpers and this figure", "code_prompt_hide": "Hide the plotting helpers and this figure"}
from mmvae_lite.plotting import PALETTE, figure, legend, show

EXAMPLES = torch.stack([(test.classes == c).nonzero()[3, 0] for c in range(10)])
SHOWN = test.take(EXAMPLES)


def strip(ax, images, label):
    """Pictures [n, c, height, width] side by side in one row."""
    row = images.permute(2, 0, 3, 1).flatten(1, 2).clamp(0, 1)
    ax.imshow(row if row.shape[-1] == 3 else row[..., 0], vmin=0, vmax=1, cmap="gray")
    ax.set(xticks=[], yticks=[])
    if label:
        ax.set_title(label, loc="left", fontsize=9, pad=2)
    for spine in ax.spines.values():
        spine.set_visible(False)


fig, axes = figure(5.6, 2.5, rows=3)
strip(axes[0], SHOWN["digit"], "digit")
strip(axes[1], raw.test.take(EXAMPLES)["street"], "house number")
strip(axes[2], SHOWN["street"], "made plain")
show(
    fig,
    alt=(
        "Ten test pairs, one for each digit: a handwritten digit, a coloured house"
        " number with the same digit in its middle and parts of its neighbours at the"
        " sides, and the house number made plain, bright on dark."
    ),
    caption=f"One test pair for each digit. {source}",
)

# %%
def networks(head):
    """Encoders and decoders; `head` makes each expert's density."""
    conv = dict(kernel_size=4, stride=2, padding=1)
    street = nn.Sequential(
        nn.Conv2d(1, 16, **conv, bias=False),
        nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 32, **conv, bias=False),
        nn.BatchNorm2d(32), nn.ReLU(),
        nn.Flatten(), nn.Linear(512, 128), nn.ReLU(),
    )
    return {
        "encoders": {
            "digit": head(dense_trunk([784, 128]), 128, LATENT),
            "street": head(street, 128, LATENT),
        },
        "decoders": {
            "digit": nn.Sequential(
                *dense_decoder([LATENT, 128, 784], (1, 28, 28)),
                nn.Sigmoid(),
            ),
            "street": nn.Sequential(
                *dense_decoder([LATENT, 128, 512], (32, 4, 4)),
                nn.ReLU(),
                nn.ConvTranspose2d(32, 16, **conv), nn.ReLU(),
                nn.ConvTranspose2d(16, 1, **conv), nn.Sigmoid(),
            ),
        },
    }


SCALE = 0.1
COMMON = {
    "likelihoods": {
        m: LaplaceLikelihood(SCALE) for m in ("digit", "street")
    },
    "weights": {"street": 784 / 256},  # as if it had as many pixels
    "latent_dim": LATENT,
}


def product_model(subsampled):
    torch.manual_seed(seed)
    nets = networks(GaussianEncoder)
    return MVAE(**nets, **COMMON, subsampled=subsampled)


def trained(model):
    epochs = max(1, round(sizes["steps"] * BATCH / len(train)))
    start = time.process_time()
    fit(
        model, train, epochs=epochs, batch_size=BATCH, lr=3e-3,
        seed=seed, device=device,
    )
    model.minutes = (time.process_time() - start) / 60
    return model.cpu().eval()


joint_product = trained(product_model(subsampled=False))

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the code of this figure", "code_prompt_hide": "Hide the code of this figure"}
OTHER = {"digit": "street", "street": "digit"}
TITLE = {"digit": "digit", "street": "house number"}


@torch.no_grad()
def show_crossings(model, alt, sample=False):
    """For each sense: what is shown, rebuilt, and made of it by the other sense."""
    g = torch.Generator().manual_seed(seed)
    fig, axes = figure(5.6, 5.0, rows=6)
    for three, m in zip((axes[:3], axes[3:]), OTHER):
        shown = {m: SHOWN[m]}
        strip(three[0], shown[m], f"{TITLE[m]} shown")
        strip(three[1], model.translate(shown, m), "rebuilt")
        strip(
            three[2], model.translate(shown, OTHER[m], sample=sample, generator=g),
            f"as {TITLE[OTHER[m]]}",
        )
    show(
        fig, alt=alt,
        caption=f"{'Crossed by draws' if sample else 'At posterior means'}. {source}",
    )


show_crossings(
    joint_product,
    "Two blocks of three rows. A handwritten digit is shown, rebuilt, and drawn as a"
    " house number; then a house number is shown, rebuilt, and drawn as a handwritten"
    " digit. The crossed rows do not show the digits of the rows above them.",
)

# %% [markdown]
# The handwritten digit is rebuilt well.
# But the house number drawn for it is not that digit, and for very different house numbers the model writes nearly the same one.
# The reason is the one of the chapter on [MVAE](mvae.ipynb): the product was trained on pairs, and nothing asked either expert to stand alone.
# MVAE answers with more bounds, one for each sense alone.
# {cite:t}`shi2019` answer with another way to combine experts: a **mixture**.
# It has no joint expert at all.
# Whatever it does, one sense must have done it alone.
#
# **After this chapter you can**
#
# - say what a product gains over a mixture, what it risks, and give both in nats;
# - write the objective of MMVAE and point to the terms that train a crossing;
# - explain why its scales add up to a constant, and what that costs;
# - exchange a product for a mixture and nothing else, and measure what changes;
# - read a traversal with the divergence of every dimension beside it;
# - name three places where the paper, its program and its tables disagree.

# %% [markdown]
# ## Vote, or take turns
#
# Two experts give a density each.
# A product multiplies them: both must agree on a place.
# A mixture averages them, {eq}`eq-mixture`: to draw from it, let one of them speak, chosen at random.
#
# ### What a mixture is sure of
#
# Let expert $m$ have mean $\mu_m$ and variance $v_m$.
# Each of the $M$ experts speaks with probability $1/M$, so the mean of a draw is the mean of the means, and its variance is the average width plus the disagreement:
#
# $$
# \begin{aligned}
# \mathbb E[z]&=\frac1M\sum_m\mu_m=\bar\mu,\\
# \mathrm{Var}[z]&=\frac1M\sum_mv_m+\frac1M\sum_m(\mu_m-\bar\mu)^2 .
# \end{aligned}
# $$ (eq-mixture-moments)
#
# Two witnesses in full agreement leave a mixture exactly as unsure as one of them.
# A product would have added their precisions.
# Two witnesses who disagree make a mixture wider; a product of Gaussians is as narrow as before.
#
# ### What it can lose
#
# Drop all terms of the sum but one.
# For every $z$ and every expert $m$
#
# $$
# \begin{aligned}
# \log q_\Phi(z)&=\log\frac1M\sum_jq_j(z)\\
# &\ge\log q_m(z)-\log M .
# \end{aligned}
# $$ (eq-mixture-floor)
#
# Put in the true latent, and take the mean over everything that may be true.
# *A mixture is never more than $\log M$ nats worse than its best expert*, whatever the other experts say.
# A product has no such floor: one expert who is sure and wrong makes it sure and wrong.
#
# Both sides can be measured where the truth is known.
# In LG3, {eq}`eq-linear-gaussian`, we draw latents and readings, and ask how probable each combination finds the true latent.
# Then one expert becomes overconfident: it reports $\kappa$ times its variance.

# %%
g = torch.Generator().manual_seed(seed)
x = LG3.sample(4000, g)
truth = LG3.posterior(x)
z = truth.rsample(generator=g)
alone = [LG3.posterior({m: x[m]}) for m in range(3)]
witnesses = LG3.experts(x)  # likelihood experts, for the product


def louder(experts, kappa, j=0):
    """The experts, of which number j reports kappa times its variance."""
    q = Normal(experts[j].mean, experts[j].logvar + math.log(kappa))
    return [*experts[:j], q, *experts[j + 1 :]]


kappas = torch.logspace(-3, 1, 33).tolist()
scores = {"product with prior": [], "mixture": []}
for kappa in kappas:
    vote = product_with_prior(louder(witnesses, kappa))
    turns = Mixture(tuple(louder(alone, kappa)))
    scores["product with prior"].append(vote.log_prob(z).mean().item())
    scores["mixture"].append(turns.log_prob(z).mean().item())
best = max(q.log_prob(z).mean().item() for q in alone[1:])
floor = best - math.log(3)
assert min(scores["mixture"]) >= floor

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the code of this figure", "code_prompt_hide": "Hide the code of this figure"}
fig, ax = figure(5, 3.8)
ax.plot(
    kappas, scores["product with prior"], color=PALETTE[0], label="product with prior"
)
ax.plot(kappas, scores["mixture"], color=PALETTE[1], linestyle="--", label="mixture")
ax.axhline(
    truth.log_prob(z).mean().item(), color="#808080", linewidth=1,
    label="exact posterior",
)
ax.axhline(
    floor, color=PALETTE[1], linewidth=1, linestyle=":", label="floor of the mixture"
)
ax.axvline(1, color="#808080", linewidth=1, linestyle=":")
ax.set(
    xscale="log", ylim=(-4, 0.2), xlabel="factor κ on the variance of expert 1",
    ylabel="log-density of the true latent",
)
legend(fig, ax)
show(
    fig,
    alt=(
        "Mean log-density of the true latent against the factor on one expert's"
        " variance. The product touches the exact posterior at factor one and falls"
        " without end to the left. The mixture lies below it around one, falls a little"
        " to the left, and stays above a dotted floor."
    ),
    caption="LG3 with all three senses. Left of one, expert 1 is overconfident.",
)

# %% [markdown]
# At $\kappa=1$ the experts are honest, and the product is the exact posterior.
# The distance down to the mixture is the **price** of taking turns.
# To the left the product falls without end, and the mixture never falls below its floor: that is the **insurance** which the price pays for.
# {cite:t}`shi2019` argue that training makes experts miscalibrated and the insurance worth its price.
# Whether that is so depends on the training, which is why we measure it below.

# %% [markdown]
# ### Try it

# %%
from mmvae_lite.explore import ExpertPlayground

ExpertPlayground(
    means=[1.5, -1.0],
    precisions=[1.0, 16.0],
    form="mixture",
    labels=["digit", "house number"],
)

# %% [markdown]
# 1. Raise the precision of one expert as far as it goes. What does the mixture keep of the other one? Choose the product and look again.
# 2. Put both experts on one place. How sure is the mixture, how sure the product? Compare with {eq}`eq-mixture-moments`.
# 3. Switch one expert off. Which form leaves the other one exactly as it was?

# %% [markdown]
# ## The objective of MMVAE
#
# The model is the same as before, $p(z)\prod_mp(x_m\mid z)$.
# The posterior is the mixture $q_\Phi=\frac1M\sum_mq_m$, where each $q_m(z\mid x_m)$ is now a posterior and not a likelihood expert: alone, it needs no prior.
# Start with the evidence lower bound, whose divergence is from $q_\Phi$.
# An expectation under a mixture is the average of the expectations under its experts, so
#
# $$
# \begin{aligned}
# \mathrm{ELBO}_\Phi&=\frac1M\sum_{m,j}\mathbb E_{q_m}\log p(x_j\mid z)\\
# &\quad-\mathrm{KL}(q_\Phi\,\|\,p).
# \end{aligned}
# $$ (eq-mixture-elbo)
#
# The divergence of a mixture has no closed form, so it is estimated from the same draws as the rest.
# Write the first part as a table with a row for each expert and a column for each decoder:
#
# | | rebuild the digit | rebuild the house number |
# |---|---|---|
# | latent drawn from the digit | $\mathbb E_{q_1}\log p(x_1\mid z)$ | $\mathbb E_{q_1}\log p(x_2\mid z)$ |
# | latent drawn from the house number | $\mathbb E_{q_2}\log p(x_1\mid z)$ | $\mathbb E_{q_2}\log p(x_2\mid z)$ |
#
# The diagonal rebuilds. *Off the diagonal are the crossings.*
# In MVAE no summand asked one sense for the other; with two senses, half of the summands here do.
# The price is arithmetic: $M^2$ passes through decoders instead of $M$.
#
# The paper trains an importance-weighted form of it.
# Each expert draws $K$ latents (stratified sampling), each draw has the weight {eq}`eq-moe-weight` with the whole mixture below the line, and the *loose* bound averages the logarithms over the experts, {eq}`eq-moe-bounds`:
#
# $$
# \mathcal L^{\rm loose}_K=\frac1M\sum_m\mathbb E\log\frac1K\sum_kr(z_{mk}).
# $$
#
# With $K=1$ it is {eq}`eq-mixture-elbo`.
# The *tight* bound puts the average over experts inside the logarithm.
# With $K\to\infty$ it tends to $\log p(x)$, and the loose one does not: it stays below by $\mathrm{KL}(u\,\|\,\bar\rho)$, {eq}`eq-moe-limit`.
# Here $\bar\rho_m$ is the share of the true posterior that expert $m$ covers, and $u$ gives each expert the same share, $1/M$.
# So the gap closes only if all experts cover equal shares.
# The loose bound presses every expert to cover its part of the posterior of *both* pictures, and for that the paper prefers it to the tight one.

# %% [markdown]
# ### What an expert cannot know
#
# The handwritten digit does not tell the font on the house.
# Off the diagonal the decoder must answer all the same.
# With $K=1$ and the Laplace likelihood of the paper, the best picture $y$ that it can give makes $\mathbb E\,\lVert x_2-y\rVert_1$ small over all house numbers that go with this digit, and that is their **median**, pixel by pixel.
# Here it is, without any training.

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the code of this figure", "code_prompt_hide": "Hide the code of this figure"}
def medians(part):
    rows = [(part.classes == c).nonzero()[:300, 0] for c in range(10)]
    return torch.stack([part.take(r)["street"].median(0).values for r in rows])


fig, axes = figure(5.6, 1.7, rows=2)
strip(axes[0], medians(raw.train), "in colour")
strip(axes[1], medians(train), "made plain")
show(
    fig,
    alt=(
        "Pixelwise medians of three hundred house numbers of each digit. In colour all"
        " ten are nearly the same brownish grey, without a digit. Made plain, each is a"
        " blurred but readable digit."
    ),
    caption=(
        "The best single answer to 'which house number goes with this digit', under a"
        " Laplace likelihood with one draw."
    ),
)

# %% [markdown]
# In colour the answer is mud: dark on bright and bright on dark cancel.
# (Now you know why we took the colours away.)
# Made plain, a digit remains, in no font.
# This is no failure of training.
# A model with *one* latent, whose experts must rebuild the other sense from what they know, does best with the middle of all that they do not know.
#
# There are two ways out.
# One is more draws.
# In the loose bound with $K>1$ it is enough if the best of the $K$ draws fits, so an expert may spread over fonts and hit sometimes; {cite:t}`shi2019` prefer it to the ELBO for this reason, too.
# The other is a private latent for each sense, as in PVAE and the two DMVAEs; later chapters take it.

# %% [markdown]
# ## A budget of scales
#
# The paper's prior and experts are Laplace densities.
# With $D_z$ dimensions, the scales of each of them add up to $D_z$:
#
# $$
# b_d=D_z\,\frac{e^{\ell_d}}{\sum_{d'}e^{\ell_{d'}}},\qquad\sum_db_d=D_z .
# $$ (eq-laplace-scale)
#
# The encoder gives the locations $\mu_d$ and the logits $\ell_d$.
# The prior has location zero and logits of its own, which are learnt.
# For two Laplace densities the divergence is closed; primes mark the second one, here the prior:
#
# $$
# \begin{aligned}
# \mathrm{KL}(q\,\|\,p)&=\sum_d\Big(\log\frac{b'_d}{b_d}-1\\
# &\quad+\frac{b_d\,e^{-|\Delta_d|/b_d}+|\Delta_d|}{b'_d}\Big),\\
# \Delta_d&=\mu_d-\mu'_d .
# \end{aligned}
# $$ (eq-laplace-divergence)
#
# The sum is a budget.
# An expert that is sharp in some dimensions must be wide in others.
# A digit that says nothing about the font *has to* leave room somewhere, and a decoder that reads these dimensions sees fonts drawn at random.
# The axes matter too: a Laplace density is not round, so a rotation of the latent space changes the bound, and single dimensions can take on meanings.
# The traversals below show some.

# %%
logits = torch.tensor([[3.0, 0.0, 0.0, 0.0, -2.0]])
q = Laplace.from_logits(torch.zeros(1, 5), logits)
p = Laplace(torch.zeros(1, 5), torch.ones(1, 5))
print("scales     ", [round(b, 3) for b in q.scale[0].tolist()])
print("their sum  ", round(q.scale.sum().item(), 3))
each = kl(q, p, reduce=False)[0]
print("divergences", [round(d, 3) for d in each.tolist()])

# %% [markdown]
# A scale costs nats below the prior's and above it.
# So a dimension that an expert cannot use is not free either: it has to take what the sharp ones leave.
#
# ## About fifteen lines of code
#
# Each expert draws, every decoder reads every draw, and the mixture stands below the line.

# %%
def minus_loose_bound(model, x, K, g):
    experts = [model.encoders[m](x[m]) for m in x]
    prior = model.prior(len(experts[0].mean))
    M, total = len(experts), 0.0
    for q in experts:
        z = q.rsample((K,), g)  # [K, batch, latent]
        log_q = torch.stack([other.log_prob(z) for other in experts])
        below = log_q.logsumexp(0) - math.log(M)  # [K, batch]
        log_r = prior.log_prob(z) - below
        for m in x:
            means = model.decoders[m](z.flatten(0, 1)).unflatten(0, (K, -1))
            log_px = model.likelihoods[m].log_prob(means, x[m])
            log_r = log_r + model.weights[m] * log_px
        total = total + (log_r.logsumexp(0) - math.log(K)).mean() / M
    return -total

# %% [markdown]
# In double precision, with the same draws, it must equal the library's `MMVAE.loss`.

# %%
def mixture_model(head=LaplaceEncoder, samples=sizes["K"], **options):
    torch.manual_seed(seed)
    return MMVAE(**networks(head), **COMMON, samples=samples, **options)


model = mixture_model().double().eval()
x = {m: v.double() for m, v in test.take(slice(0, 16)).items()}
g = torch.Generator().manual_seed(seed)
ours = minus_loose_bound(model, x, sizes["K"], g)
theirs = model.loss(x, generator=g.manual_seed(seed))["loss"]
torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=0)
print(f"ours {ours:.6f}, the library {theirs:.6f}")

# %% [markdown]
# ## Training MMVAE
#
# Laplace experts, a learnt prior, the loose bound with a few draws, the plain gradient (`estimator="iwae"`; the pitfalls say why).
# The likelihoods are Laplace densities with the scale that the authors' first release had.
# The house number has fewer pixels, and a weight that makes up for it, as in their program.

# %%
mmvae = trained(mixture_model())

# %% tags=["hide-input", "figure-mmvae-4"] mystnb={"code_prompt_show": "Show the code of this figure", "code_prompt_hide": "Hide the code of this figure"}
show_crossings(
    mmvae,
    "Two blocks of three rows, as before, for the trained mixture. Most digits come"
    " back; drawn as a house number, a digit is a soft but mostly readable number; a"
    " house number drawn as a digit mostly shows the right one.",
)

# %% [markdown]
# ### What it invents
#
# One draw of $z$ from the prior, and both pictures from it.

# %% tags=["hide-input", "figure-mmvae-4"] mystnb={"code_prompt_show": "Show the code of this figure", "code_prompt_hide": "Hide the code of this figure"}
g = torch.Generator().manual_seed(seed)
with torch.no_grad():
    invented = mmvae.sample(24, g)
fig, axes = figure(5.6, 3.0, rows=4)
for row in range(2):
    for ax, m in zip(axes[2 * row : 2 * row + 2], OTHER):
        strip(ax, invented[m][12 * row : 12 * (row + 1)], TITLE[m])
show(
    fig,
    alt=(
        "Twenty-four pairs drawn from the prior, in two blocks. Some pairs show the"
        " same digit twice; many handwritten pictures lie between two digits, and house"
        " numbers are soft."
    ),
    caption=f"Each column of a block is one draw of the prior. {source}",
)

# %% [markdown]
# Where the prior lies between two digits the pictures do too, and nothing in the objective makes both decoders say the same there.

# %% [markdown]
# ## Measuring it
#
# *Coherence* asks a judge that never saw the model: which digit is in this picture?
# For handwriting a classifier ships with the book.
# For plain house numbers we train a small one on the training pictures.
# How often each judge is right on real test pictures is printed too.

# %%
def street_judge():
    layers = []
    for a, b in ((1, 16), (16, 32)):
        layers += [nn.Conv2d(a, b, 3, padding=1), nn.BatchNorm2d(b)]
        layers += [nn.ReLU(), nn.MaxPool2d(2)]
    layers += [nn.Flatten(), nn.Dropout(), nn.Linear(512, 10)]
    return nn.Sequential(*layers)


pictures = train.batch["street"].float() / 255
names = torch.zeros(len(pictures), dtype=torch.long)
names[train.index["street"]] = train.classes


def mistakes(net, rows):
    return F.cross_entropy(net(pictures[rows]), names[rows])


judge = descend(
    street_judge, mistakes, len(pictures), torch.device("cpu"),
    epochs=3, batch_size=64, lr=4e-3, seed=seed, progress=False,
)
judges = {
    "digit": judges_for(raw)["digit"],
    "street": lambda x: judge(x / 255 if x.dtype == torch.uint8 else x),
}


def measured(model):
    """Shares of crossings, by draws and at means, and of joint draws."""
    shares = {}
    for ending, sample in (("", True), ("-mean", False)):
        crossed = conditional_coherence(
            model, test, judges, sample=sample, seed=seed
        )
        for way, r in crossed.items():
            shares[way.replace("->", "-to-") + ending] = r["value"]
    joint = joint_coherence(model, test, judges, n=len(test), seed=seed)
    shares["joint"] = joint["value"]
    return shares | {f"judge-{m}": s for m, s in joint["classifier"].items()}


found = {"MMVAE": measured(mmvae)}
for what, share in found["MMVAE"].items():
    print(f"{what:22} {share:.3f}")
print(f"n = {len(test)} test pairs, and as many draws of the prior")

# %% [markdown]
# ## Only the mixture
#
# A comparison of two papers' models exchanges everything at once.
# {cite:t}`shi2019` also did the better experiment, in their appendix E: change the way experts are combined, and nothing else.
# We do the same.
# Networks, Gaussian experts, prior $\mathcal N(0,I)$, likelihoods, weights, steps and seed are the same, and one latent is drawn from each posterior that is trained.
#
# - The **product** on the joint bound: the model of the first figure.
# - The product with MVAE's **sub-sampled** bounds, {eq}`eq-mvae-loss`.
# - The **mixture**, $K=1$: {eq}`eq-mixture-elbo`, with $M^2$ passes, as many as the row above needs.

# %%
swapped = {
    "product, joint bound": joint_product,
    "product, sub-sampled": trained(product_model(subsampled=True)),
    "mixture, K = 1": trained(mixture_model(
        GaussianEncoder, samples=1, prior="normal", learn_prior=False
    )),
}
found |= {name: measured(m) for name, m in swapped.items()}
models = {**swapped, "MMVAE": mmvae}

# %%
columns = {
    "digit-to-street": "to number", "digit-to-street-mean": "(mean)",
    "street-to-digit": "to digit", "street-to-digit-mean": "(mean)",
    "joint": "joint",
}
print(" " * 21 + "".join(f"{c:>10}" for c in columns.values()))
for name in models:
    row = "".join(f"{found[name][c]:10.3f}" for c in columns)
    print(f"{name:21}{row}")

# %% tags=["hide-input", "figure-mmvae-4"] mystnb={"code_prompt_show": "Show the code of this figure", "code_prompt_hide": "Hide the code of this figure"}
@torch.no_grad()
def show_all(shown, to, alt):
    """The same pictures crossed by every model, at posterior means."""
    fig, axes = figure(5.6, 4.2, rows=1 + len(models))
    strip(axes[0], SHOWN[shown], f"{TITLE[shown]} shown")
    for ax, (name, model) in zip(axes[1:], models.items()):
        strip(ax, model.translate({shown: SHOWN[shown]}, to), name)
    show(fig, alt=alt, caption=f"Each row is one model. At posterior means. {source}")


show_all(
    "street", "digit",
    "Ten house numbers, and below them the handwritten digits that four models make of"
    " them. Both mixtures show mostly the right digits; the product on the joint bound"
    " shows digits that have little to do with the numbers above.",
)
show_all(
    "digit", "street",
    "Ten handwritten digits, and below them the house numbers that four models make of"
    " them. Both mixtures show soft, centred numbers of about the right shape; the"
    " products show others.",
)

# %% [markdown]
# Only the posterior differs between the first three rows, and in our run the mixture crosses best in both directions, and by far.
# Its joint draws agree most often too.
# The product on the joint bound writes nearly one and the same digit for all house numbers.
# The sub-sampled product learns to read each sense alone, and still crosses less well: no summand of {eq}`eq-mvae-loss` asks for it.
#
# The last row changes three more things at once: Laplace experts with their budget, a learnt prior, and more draws.
# At posterior means it crosses at least as well as the plain mixture; by draws, clearly worse.
# So its experts know the digit and spread around it, as the loose bound allows: the best of the draws has to fit, and no other.
# Which of the three changes does it we cannot say from one row. Change one and see.
#
# ### Who outvotes whom
#
# One product can be asked for the reason.
# How much precision does each of its experts bring, for the pairs of the test set?

# %%
with torch.no_grad():
    for name in ("product, joint bound", "product, sub-sampled"):
        encoders = swapped[name].encoders
        votes = {
            m: encoders[m](x).precision.mean(0)
            for m, x in test.take(slice(None)).items()
        }
        ratio = (votes["digit"] / votes["street"]).log().mean().exp().item()
        found[name]["votes"] = ratio
        print(f"{name}: {ratio:.2f} votes of the digit")
print("for one of the house number: mean precision over test pairs,")
print("geometric mean over dimensions")

# %% [markdown]
# In our recorded run the digit has {measured}`mixtures-street-joint/lite-0:votes|.2f` votes for one of the house number.
# So the house number decides, although a linear layer finds the digit in its latents far less often than in the handwriting's (see [below](ref-mixtures-probe)).
# Votes are not knowledge.
# An expert is sharp in a dimension when its own picture is rebuilt from it in detail, and a house number has much detail that is no digit.
# That is the miscalibration of which {cite:t}`shi2019` speak, here as a number.

# %% [markdown]
# ## Which dimension says what
#
# Figure 5 of the paper, for our model.
# For every dimension we take three divergences in nats, means over test pairs: of each expert from the prior, and of the two experts from one another, as the mean of both directions.
# A dimension in which only one expert leaves the prior belongs to one sense.
# One in which both leave it *and agree* is shared.

# %% tags=["hide-input", "figure-mmvae-5"] mystnb={"code_prompt_show": "Show the code of this figure", "code_prompt_hide": "Hide the code of this figure"}
apart = expert_divergences(mmvae, test.take(slice(None)))
order = (apart["digit"] + apart["street"]).argsort(descending=True)
fig, ax = figure(5.2, 3)
BARS = {
    "digit": ("digit's expert from the prior", PALETTE[0]),
    "street": ("house number's expert from the prior", PALETTE[1]),
    "digit | street": ("the two experts from each other", PALETTE[3]),
}
for k, (key, (label, color)) in enumerate(BARS.items()):
    ax.bar(
        torch.arange(LATENT) + 0.27 * (k - 1), apart[key][order], 0.25, color=color,
        label=label, hatch=("", "//", "..")[k], edgecolor="white",
    )
ax.set(xlabel="dimension", ylabel="nats", yscale="log", xticks=range(LATENT))
ax.set_yticks([1, 3, 10, 30], ["1", "3", "10", "30"])
ax.minorticks_off()
ax.set_xticklabels([f"z{int(d)}" for d in order])
legend(fig, ax, columns=1)
show(
    fig,
    alt=(
        "Three bars for each of ten dimensions: how far the digit's expert is from the"
        " prior, how far the house number's, and how far the two are from each other."
        " All dimensions are used; some more by one expert, some more by the other. The"
        " two experts are further from each other than from the prior in every one."
    ),
    caption=(
        f"Mean divergences over {len(test)} test pairs, sorted by the sum of the first"
        " two. Logarithmic axis."
    ),
)

# %% [markdown]
# In our run no dimension belongs to one sense alone, and the third bar is the tallest everywhere.
# The two experts are both sharp, and in different places: further from each other than from the prior.
# Nothing in the objective brings them together.
# Each has to put its latents where *both decoders* can read them, but the decoders may well read the same digit in two places.
# {cite:t}`shi2019` see some dimensions that move one picture only; look for them below.

# %% tags=["hide-input", "figure-mmvae-5"] mystnb={"code_prompt_show": "Show the code of this figure", "code_prompt_hide": "Hide the code of this figure"}
with torch.no_grad():
    one = mmvae.posterior({"digit": SHOWN["digit"][3:4]})["shared"].mean[0]
    reach = 5 * mmvae.prior(1).std[0]
share = apart["digit"] / (apart["digit"] + apart["street"])
used = (apart["digit"] + apart["street"]) > 0.2
pick = {
    "mostly the digit's": torch.where(used, share, -1.0).argmax(),
    "mostly the number's": torch.where(used, -share, -2.0).argmax(),
    "largest for both": torch.minimum(apart["digit"], apart["street"]).argmax(),
}
fig, axes = figure(5.6, 4.4, rows=6)
for k, (what, d) in enumerate(pick.items()):
    values = one[d] + torch.linspace(-1, 1, 11) * reach[d]
    with torch.no_grad():
        moved = mmvae.traverse({"shared": one}, int(d), values)
    strip(axes[2 * k], moved["digit"], f"z{int(d)}: {what}")
    strip(axes[2 * k + 1], moved["street"], "")
show(
    fig,
    alt=(
        "Three dimensions are moved one at a time from five prior standard deviations"
        " below to five above the posterior mean of a handwritten three; for each, a"
        " row of digits and a row of house numbers shows what changes."
    ),
    caption=(
        "Moved by up to five prior standard deviations around the posterior mean of a"
        " test digit."
    ),
)

# %% [markdown]
# ### Walk through it
#
# Both decoders of MMVAE run in your browser.
# The bars say how far the two experts leave the prior in each dimension, on average.

# %%
from mmvae_lite.explore import LatentExplorer, page_decoders

with torch.no_grad():
    starts = {"prior mean": torch.zeros(LATENT)}
    for m, title in TITLE.items():
        mean = mmvae.posterior({m: SHOWN[m]})["shared"].mean
        starts |= {f"{title} {c}": mean[c] for c in (0, 3, 7)}

LatentExplorer(
    decoders=page_decoders(mmvae),
    latents=starts["digit 3"],
    starts=starts,
    kl=(apart["digit"] + apart["street"]) / 2,
    name="mixtures",
    legend="Start from what one sense says",
    alt="A handwritten digit and a house number that MMVAE draws "
        "from the same latent point.",
)

# %% [markdown]
# 1. Jump from *digit 3* to *house number 3*. Which picture changes more, and is it still a three? A mixture never has to put the two in one place.
# 2. Find a dimension that changes one picture more than the other. In the figure above, which expert's bar is the taller one there?
# 3. Start at the prior mean. What is drawn there, and how far is the next readable digit?

# %% [markdown]
# (ref-mixtures-probe)=
# ## What the latents know
#
# {cite:t}`shi2019` also train a linear classifier on draws from each expert, their table 1.
# A linear layer finds the digit only where it lies open.

# %%
def probed(model, m):
    known, asked = (posteriors(model, part, (m,)) for part in (train, test))
    return probe_samples(
        known, train.classes, asked, test.classes,
        epochs=2 if profile == "smoke" else 10, seed=seed,
    )["value"]


print(" " * 21 + "     digit    number")
for name, model in models.items():
    found[name] |= {f"probe-{m}": probed(model, m) for m in OTHER}
    shares = "".join(f"{found[name][f'probe-{m}']:10.3f}" for m in OTHER)
    print(f"{name:21}{shares}")

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Show how the numbers are recorded", "code_prompt_hide": "Hide how the numbers are recorded"}
from mmvae_lite.results import write_result

NAMES = dict(zip(models, ("joint", "subsampled", "mixture", "mmvae")))
for name, model in models.items():
    metrics = {k: {"value": v, "n": len(test)} for k, v in found[name].items()}
    write_result(
        f"mixtures-street-{NAMES[name]}", profile, seed, metrics,
        data=f"{data.name}, made plain", stand_in=True, device=device, minutes=model.minutes,
    )

# %% [markdown]
# ## Our numbers and the paper's
#
# :::{list-table}
# :header-rows: 1
#
# * - who
#   - digit to number
#   - number to digit
#   - joint
# * - MMVAE, {cite:t}`shi2019`, MNIST and SVHN
#   - {paper}`mmvae:table-2:mnist-svhn/mmvae`
#   - {paper}`mmvae:table-2:svhn-mnist/mmvae`
#   - {paper}`mmvae:table-2:joint/mmvae`
# * - MVAE, as they ran it
#   - {paper}`mmvae:table-2:mnist-svhn/mvae`
#   - {paper}`mmvae:table-2:svhn-mnist/mvae`
#   - {paper}`mmvae:table-2:joint/mvae`
# * - MVAE, as {cite:t}`daunhawer2021` ran it
#   - {paper}`dmvae-d:table-1:mvae/mnist-svhn`
#   - {paper}`dmvae-d:table-1:mvae/svhn-mnist`
#   - {paper}`dmvae-d:table-1:mvae/joint`
# :::
#
# Two groups ran the same baseline: {cite:t}`shi2019` with its authors' public code, {cite:t}`daunhawer2021` with a program of their own.
# The second found several times the coherence of the first.
#
# Ours, on the stand-ins made plain, **not comparable** with any of them:
#
# :::{list-table}
# :header-rows: 1
#
# * - our lite model, stand-in data
#   - digit to number
#   - number to digit
#   - joint
# * - MMVAE
#   - {measured}`mixtures-street-mmvae/lite-0:digit-to-street|.1%`
#   - {measured}`mixtures-street-mmvae/lite-0:street-to-digit|.1%`
#   - {measured}`mixtures-street-mmvae/lite-0:joint|.1%`
# * - MMVAE, at posterior means
#   - {measured}`mixtures-street-mmvae/lite-0:digit-to-street-mean|.1%`
#   - {measured}`mixtures-street-mmvae/lite-0:street-to-digit-mean|.1%`
#   -
# * - mixture, one draw
#   - {measured}`mixtures-street-mixture/lite-0:digit-to-street|.1%`
#   - {measured}`mixtures-street-mixture/lite-0:street-to-digit|.1%`
#   - {measured}`mixtures-street-mixture/lite-0:joint|.1%`
# * - product, sub-sampled
#   - {measured}`mixtures-street-subsampled/lite-0:digit-to-street|.1%`
#   - {measured}`mixtures-street-subsampled/lite-0:street-to-digit|.1%`
#   - {measured}`mixtures-street-subsampled/lite-0:joint|.1%`
# * - product, joint bound
#   - {measured}`mixtures-street-joint/lite-0:digit-to-street|.1%`
#   - {measured}`mixtures-street-joint/lite-0:street-to-digit|.1%`
#   - {measured}`mixtures-street-joint/lite-0:joint|.1%`
# :::
#
# The judges themselves name {measured}`mixtures-street-mmvae/lite-0:judge-digit|.1%` of the real test digits and {measured}`mixtures-street-mmvae/lite-0:judge-street|.1%` of the real plain house numbers right.
# The paper's sizes are the experiments `mmvae-street` and `mmvae_product-street` of `mmvae reproduce`.

# %% [markdown]
# ## Pitfalls, some of them in print
#
# **A hook on a copy.**
# The paper says that it trains with the doubly reparameterised gradient (DReG).
# The released program puts the hook for it on a stack of the samples that is made *after* the weights were computed from them.
# No gradient passes through that copy, so the hook never fires, and what remains is another estimator, STL, which is biased for $K>1$.
# The [chapter on bounds](bounds.ipynb) has the dead line and the live one side by side.
# `estimator="stl"` reproduces what was run.
#
# **DReG under a mixture.**
# Mending the hook does not help.
# The proof of DReG needs draws from the density that stands below the line, and here they come from $q_m$ while $q_\Phi$ stands there.
# For two experts or more and $K>1$ it is biased; {eq}`eq-dreg-mix` is an unbiased one, `estimator="dreg_mix"`.
# On this page we take the plain gradient, which is right and a little noisier.
#
# **A likelihood is no better than its scale.**
# A Laplace density of $D_m$ numbers with scale $b$ is nowhere higher than at its centre, so that for every decoder
#
# $$
# \log p(x_m\mid z)\le-D_m\log 2b .
# $$ (eq-laplace-ceiling)
#
# The first release of the program had $b=0.1$.
# The authors later corrected it to $\mathrm{softplus}(0.1)$, about three quarters, for their tables 1 and 2.
# With that scale no log-likelihood of MNIST or SVHN can be positive at all.
# Their table 3 has {paper}`mmvae:table-3:mnist/mmvae/own` for MNIST and {paper}`mmvae:table-3:svhn/mmvae/own` for SVHN.
# So it was made with a smaller scale than tables 1 and 2; an exercise asks for the largest one possible.
# Never compare likelihoods under two scales: the narrower wins by its normaliser.
#
# **Conditionals that are marginals.**
# Columns of that table are written $\log p(x_m\mid x_n)$.
# What is computed is $\log p(x_m)$ by importance sampling, with draws from another expert.
# All columns of a row estimate one number, and where they differ the proposal was bad.
#
# **A weight in a likelihood.**
# The program multiplies $\log p(x_1\mid z)$ by the ratio of the pictures' sizes, for training and in the joint likelihood that it reports.
# With weights the bound is no bound of $\log p(x)$.
# We use one too, and report none.
#
# **Loose is not "nearly tight".**
# The paper calls its objective a tighter bound than the ELBO, which it is.
# But samples never close its gap, {eq}`eq-moe-limit`.
# For test likelihoods take the tight one, as they do.
#
# **The mean of a mixture.**
# The average of two experts' means may be a place where neither puts any density.
# `MMVAE.translate` decodes it when two senses are given; a draw is the safer choice.

# %% [markdown]
# ## When to use it, when not
#
# | use a mixture when | think twice when |
# |---|---|
# | all senses are there in training, and any one of them has to do at test time | several senses together should sharpen the belief: a mixture gains nothing from a second witness |
# | crossings are what you want: it trains each of them | what one sense cannot know is large; it will be averaged away, unless you draw many latents or give it a room of its own |
# | experts are of unequal quality and you cannot calibrate them | there are many modalities: $M^2$ passes |

# %% [markdown]
# ## Exercises
#
# Each exercise has a stub to fill in, a check and a hidden solution.
# Ask the check as often as you like; it says what is not right yet.

# %% [markdown]
# ```{exercise} How wide is a mixture?
# :label: ex-mixture-variance
#
# `means` and `variances` are `[experts, latent]`.
# Return the variance of the mixture with equal weights, `[latent]`.
# ```
#
# ```{admonition} Hint
# :class: dropdown tip
# {eq}`eq-mixture-moments`: the average width plus the disagreement.
# ```

# %% tags=["exercise"]
def mixture_variance(means, variances):
    raise NotImplementedError

# %%
check("mixture-variance", mixture_variance)

# %% tags=["solution", "hide-cell"] mystnb={"code_prompt_show": "Show the solution", "code_prompt_hide": "Hide the solution"}
def mixture_variance(means, variances):
    return variances.mean(0) + means.var(0, unbiased=False)


check("mixture-variance", mixture_variance).require()

# %% [markdown]
# ```{exercise} The cost of a bad colleague
# :label: ex-mixture-floor
#
# `log_q` is `[experts, items]`: how probable each expert finds the true latent of each item.
# Return by how many nats the mixture is worse than the best expert *of that item*, `[items]`.
# It must work for logarithms of any size.
# How large can the result be, and when is it zero?
# ```
#
# ```{admonition} Hint
# :class: dropdown tip
# The logarithm of a mean of densities is a `logsumexp` less $\log M$.
# The bound is {eq}`eq-mixture-floor`.
# ```

# %% tags=["exercise"]
def cost_of_colleagues(log_q):
    raise NotImplementedError

# %%
check("mixture-floor", cost_of_colleagues)

# %% tags=["solution", "hide-cell"] mystnb={"code_prompt_show": "Show the solution", "code_prompt_hide": "Hide the solution"}
def cost_of_colleagues(log_q):
    mixture = log_q.logsumexp(0) - math.log(len(log_q))
    return log_q.max(0).values - mixture


# At most log M, when the others give it nothing; zero when all agree.
check("mixture-floor", cost_of_colleagues).require()

# %% [markdown]
# ```{exercise} Count the passes
# :label: ex-mixture-passes
#
# One item has $M$ modalities, and each expert draws $K$ latents.
# One latent read by one decoder is one pass.
# How many passes are there for the loose bound, for the bound in linear time {eq}`eq-linear-time`, and for the joint bound of a product that draws one latent?
# Return the three numbers.
# ```
#
# ```{admonition} Hint
# :class: dropdown tip
# How many latents are drawn, and how many decoders read each of them?
# ```

# %% tags=["exercise"]
def passes(M, K):
    # (loose, linear time, product)
    raise NotImplementedError

# %%
check("mixture-passes", passes)

# %% tags=["solution", "hide-cell"] mystnb={"code_prompt_show": "Show the solution", "code_prompt_hide": "Hide the solution"}
def passes(M, K):
    return M * K * M, M * K, M


check("mixture-passes", passes).require()

# %% [markdown]
# ```{exercise} The grey answer
# :label: ex-mixture-grey
#
# `targets` is `[n, channels, height, width]`: all the house numbers that may go with a digit.
# Return the one picture that has the largest mean log-likelihood under a Laplace density around it.
# What would it be for a Gaussian density?
# ```
#
# ```{admonition} Hint
# :class: dropdown tip
# The pixels separate.
# For one pixel, move $y$ a little to the right: how many distances grow, and how many shrink?
# ```

# %% tags=["exercise"]
def best_answer(targets):
    raise NotImplementedError

# %%
check("mixture-grey", best_answer)

# %% tags=["solution", "hide-cell"] mystnb={"code_prompt_show": "Show the solution", "code_prompt_hide": "Hide the solution"}
def best_answer(targets):
    return targets.median(0).values


# For a Gaussian it would be the mean. Half bright and half dark, the mean
# is grey; the median jumps to one of the two at every pixel by itself.
check("mixture-grey", best_answer).require()

# %% [markdown]
# ```{exercise} The price of being sharp
# :label: ex-mixture-scales
#
# An expert has location zero everywhere. In `n` of its `D` dimensions the scale is `sharp`; the others share what is left of the budget equally.
# Return its divergence in nats from the prior with location zero and all scales one.
# ```
#
# ```{admonition} Hint
# :class: dropdown tip
# Put $\Delta_d=0$ and $b'_d=1$ into {eq}`eq-laplace-divergence`, and use that the scales add up to $D$: what is left is one sum of logarithms.
# ```

# %% tags=["exercise"]
def price(D, n, sharp):
    raise NotImplementedError

# %%
check("mixture-scales", price)

# %% tags=["solution", "hide-cell"] mystnb={"code_prompt_show": "Show the solution", "code_prompt_hide": "Hide the solution"}
def price(D, n, sharp):
    rest = (D - n * sharp) / (D - n)
    return -n * math.log(sharp) - (D - n) * math.log(rest)


# The sum of b - 1 vanishes, so the divergence is minus the sum of log b.
# In this form the wide dimensions take a little off. Each by itself still
# costs b - 1 - log b, which is positive.
check("mixture-scales", price).require()

# %% [markdown]
# ```{exercise} Which scale made this table?
# :label: ex-mixture-ceiling
#
# A paper reports a mean log-likelihood of `nats` for pictures of `numbers` numbers each, under Laplace densities of one fixed scale.
# Return the largest scale with which that is possible.
# Then try the two values of table 3 quoted above: a picture of MNIST has $28\cdot28$ numbers, one of SVHN $3\cdot32\cdot32$.
# ```
#
# ```{admonition} Hint
# :class: dropdown tip
# Solve {eq}`eq-laplace-ceiling` for $b$.
# ```

# %% tags=["exercise"]
def widest_scale(nats, numbers):
    raise NotImplementedError

# %%
check("mixture-ceiling", widest_scale)

# %% tags=["solution", "hide-cell"] mystnb={"code_prompt_show": "Show the solution", "code_prompt_hide": "Hide the solution"}
def widest_scale(nats, numbers):
    return math.exp(-nats / numbers) / 2


# Both values of table 3 need a scale far below three quarters.
check("mixture-ceiling", widest_scale).require()

# %% [markdown]
# ## Further reading
#
# {cite:t}`shi2019` is the paper of this chapter: its introduction has the four criteria, section 3 the case against products, and the appendices the tight and the linear-time bound and the swap.
# {cite:t}`daunhawer2021` answer it with a product on a shared space of its own.
# {cite:t}`burda2016` have the bound for one expert, {cite:t}`tucker2019` the gradient that the paper meant to use, {cite:t}`bauer2021` where it stops being right.
# {cite:t}`hinton2002` is where products of experts come from, with a comparison to mixtures.
