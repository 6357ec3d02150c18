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
# # DMVAE-D: a shared code by contrast
#
# ```{admonition} Before you start
# :class: note
# You need the [product of experts](gaussian_experts.ipynb), the evidence lower bound, mutual information, and a little PyTorch.
# Six small models are trained on this page; one CPU core is enough, and the bars say how long each training took.
# With pen and paper, take an afternoon for the proofs.
# ```

# %% tags=["parameters", "hide-input"] mystnb={"code_prompt_show": "Show the settings", "code_prompt_hide": "Hide the settings"}
profile = "lite"
seed = 0
device = "cpu"

# %% tags=["setup", "hide-input"] mystnb={"code_prompt_show": "Show the imports", "code_prompt_hide": "Hide the imports"}
import math

import torch
from torch import nn

from mmvae_lite.data import noisy_digits
from mmvae_lite.data.digit_sets import add_noise
from mmvae_lite.data.pairing import repair_each_epoch
from mmvae_lite.distributions import LaplaceLikelihood, Normal, kl
from mmvae_lite.evaluation import (
    joint_coherence,
    judges_for,
    leave_one_out_coherence,
)
from mmvae_lite.evaluation.classifiers import predict
from mmvae_lite.ex_post import ExPostDensity
from mmvae_lite.exercises import check
from mmvae_lite.information import (
    Discriminator,
    density_ratio_tc,
    discriminator_loss,
    info_nce,
    info_nce_from_scores,
)
from mmvae_lite.models import DMVAE_D
from mmvae_lite.networks import SplitEncoder, dense_decoder, dense_trunk
from mmvae_lite.training import fit, kl_warmup

# %% [markdown]
# ## The question
#
# Three people write down the same digit, and three cheap cameras take a picture of it.
# Each picture has its own handwriting and its own noise.
# What the three have in common is the digit, and nothing else.
#
# We want a model that finds out *by itself* what the pictures share.
# It should pool that over whatever pictures are there, and keep each handwriting apart.
# Then it could draw any digit in any hand.
#
# The natural model has a **shared code** $c$ and a **style** $s_m$ for each picture {cite:p}`daunhawer2021`:
#
# $$
# \begin{aligned}
# &p(x,s,c)\\
# &\quad=p(c)\prod_{m=1}^Mp(s_m)\,p(x_m\mid c,s_m).
# \end{aligned}
# $$ (eq-dmvae-d-joint)
#
# The letters are the paper's; elsewhere in this book they are $z$ and $z^m$.
# Encoder $m$ gives a Gaussian for $s_m$ and an expert for $c$; the experts are multiplied.
# Decoder $m$ reads $c$ and $s_m$.
# So we train it to rebuild its pictures, as autoencoders are trained.
# Then we do an experiment: take $c$ from one set of pictures, the style from another, and look which of the two decides on the digit.

# %%
paper = profile == "paper"
sizes = dict(code=10, style=10)
sizes["hidden"] = [512, 512] if paper else [100 if profile == "lite" else 32]

data = noisy_digits(modalities=5 if paper else 3)
NAMES = list(data.train.batch)
items, asked = {
    "smoke": (1280, 400), "lite": (10_000, 2000), "paper": (60_000, 10_000)
}[profile]
train, test = data.train.evenly(items), data.test.evenly(asked)
judges = judges_for(data)
counts = f"{len(train)} tuples to train on, {len(test)} to test on"
source = f"{data.description}; {counts}."
print(f"We use {data.description}:\n{counts}.")
if data.stand_in:
    print("They stand in for MNIST, which the paper uses.")
    print("Set MMVAE_DATA to a folder that holds mnist/ to use it.")

# %%
def split_model(**weights):
    """A DMVAE-D with the weights of the authors' program but for beta, or with others."""
    torch.manual_seed(seed)
    style, code, hidden = sizes["style"], sizes["code"], sizes["hidden"]
    widths = [style + code, *hidden[::-1], 784]
    judge = {} if paper else dict(hidden=(64,), joint=(64,))
    return DMVAE_D(
        encoders={
            m: SplitEncoder(dense_trunk([784, *hidden]), hidden[-1], style, code)
            for m in NAMES
        },
        decoders={
            m: nn.Sequential(*dense_decoder(widths, (1, 28, 28)), nn.Sigmoid())
            for m in NAMES
        },
        likelihoods={m: LaplaceLikelihood(0.1) for m in NAMES},
        private_dim=style, shared_dim=code,
        discriminators={m: Discriminator(style, code, **judge) for m in NAMES},
        **{**DMVAE_D.PRESETS["code_paired"], "betas": 1.0, **weights},
    )


noisy = add_noise(1.0 if paper else 0.3)  # on every pixel, anew at each visit
STEPS = {"smoke": 20, "lite": 1080, "paper": 17_700}[profile]
SHORT = STEPS // 3


def trained(model, steps=STEPS):
    """Random partners of the same class in each epoch; noisy inputs, clean targets."""
    x1 = data.train.index["x1"]
    classes = torch.empty_like(data.train.classes)
    classes[x1] = data.train.classes  # of every row: any picture may be a partner
    batch = 1024 if paper else 128
    epochs = max(2, round(steps / math.ceil(len(train) / batch)))
    # in a short training the adversary has to learn faster than the program's
    rates = dict(lr=1e-3) if paper else dict(lr=3e-3, discriminator_lr=1e-3)
    history = fit(
        model, train, epochs=epochs, batch_size=batch,
        optimizers=model.optimizers(**rates), corrupt=noisy,
        schedule=kl_warmup(max(1, epochs // 5)),
        pair=repair_each_epoch({m: classes for m in NAMES}),
        seed=seed, device=device,
    )
    return model.cpu().eval(), history

# %% [markdown]
# The contrast and the adversary of this chapter are switched off by their weights.
# What is left is reconstruction, and a divergence for the styles.
# In this model the decoders read $c$ but send no gradient back to it, for a reason that comes below.
# So nobody teaches the heads of $c$ yet; what they say about a picture is left to chance.

# %%
naive, _ = trained(split_model(gamma=0.0, deltas=0.0), SHORT)

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the plotting helpers", "code_prompt_hide": "Hide the plotting helpers"}
from mmvae_lite.data.parts import as_float
from mmvae_lite.plotting import PALETTE, figure, legend, mosaic, show, table

LOOK = {
    "DMVAE-D": {"color": PALETTE[0], "linestyle": "-", "marker": "o"},
    "MVAE": {"color": PALETTE[1], "linestyle": "--", "marker": "s"},
    "MMVAE": {"color": PALETTE[2], "linestyle": "-.", "marker": "^"},
}
TRUTH = {
    "color": "#808080",
    "linewidth": 8,
    "alpha": 0.45,
    "linestyle": "-",
    "solid_capstyle": "round",
}


def seen(part, rows, noise_seed=0):
    """Noisy pictures of some tuples, and the clean ones."""
    clean = {m: as_float(x) for m, x in part.take(rows).items()}
    return noisy(clean, torch.Generator().manual_seed(noise_seed)), clean


def picture(ax, images, columns, label=None):
    ax.imshow(mosaic(images, columns), vmin=0, vmax=1, cmap="gray")
    ax.set(xticks=[], yticks=[])
    if label:
        ax.set_ylabel(label)
    for spine in ax.spines.values():
        spine.set_visible(False)


EXAMPLES = torch.stack([(test.classes == c).nonzero()[3, 0] for c in range(10)])
HANDS = EXAMPLES[[1, 4, 7, 0]]


@torch.no_grad()
def swap_grid(model):
    """Codes of ten tuples in columns, styles of four in rows: [40, 1, 28, 28]."""
    content = model.posterior(seen(test, EXAMPLES)[0])["shared"].mean
    style = model.posterior(seen(test, HANDS)[0])["private/x1"].mean
    z = {"shared": content.repeat(4, 1), "private/x1": style.repeat_interleave(10, 0)}
    return model.decode(z)["x1"]


@torch.no_grad()
def who_decides(model):
    """Code of one tuple, style of another digit: how often is either's digit drawn?"""
    x, _ = seen(test, slice(None))
    g = torch.Generator().manual_seed(seed)
    other = torch.randperm(len(test), generator=g)
    q = model.posterior(x)
    z = {"shared": q["shared"].mean, "private/x1": q["private/x1"].mean[other]}
    digit = predict(judges["x1"], model.decode(z)["x1"])
    differ = test.classes != test.classes[other]
    share = lambda wanted: (digit == wanted)[differ].float().mean().item()
    return {
        "code": share(test.classes),
        "style": share(test.classes[other]),
        "n": int(differ.sum()),
    }


def show_swaps(model, alt, caption):
    content, style = seen(test, EXAMPLES)[0]["x2"], seen(test, HANDS)[1]["x1"]
    fig, (top, bottom) = figure(5, 3.1, rows=2, height_ratios=[1, 4])
    picture(top, torch.cat([torch.ones(1, 1, 28, 28), content]), 11, "code")
    grid = swap_grid(model).unflatten(0, (4, 10))
    picture(bottom, torch.cat([style[:, None], grid], 1).flatten(0, 1), 11, "style")
    show(fig, alt=alt, caption=caption)

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the code of this figure", "code_prompt_hide": "Hide the code of this figure"}
show_swaps(
    naive,
    "A grid of pictures. The top row shows one noisy picture of each of ten digits,"
    " which give the code. The first column shows four clean pictures, which give the"
    " style. Inside the grid each row looks nearly the same all along: the digit of its"
    " style.",
    f"Trained to rebuild, and for nothing else. Columns: codes; rows: styles. {source}",
)
found = who_decides(naive)
print(f"n = {found['n']} swaps between different digits")
print(f"  the digit of the code is drawn:  {found['code']:.3f}")
print(f"  the digit of the style is drawn: {found['style']:.3f}")

# %% [markdown]
# Read along a row.
# The style brings its digit with it, and the code hardly matters.
#
# Nothing is broken.
# The objective asks for a good picture, and a style that knows the whole picture gives one.
# No term teaches the code, and no term says what belongs where.
# To let reconstruction teach the code as well would only give the handwriting a second place to live.
#
# **After this chapter you can**
#
# - prove that InfoNCE is a lower bound of mutual information, and say why it cannot exceed $\log K$;
# - find a second, lower ceiling in the authors' program, and prove that too;
# - train a discriminator into an estimate of mutual information, and test it against an exact value;
# - decide the sign of every term of the objective, also of the one that is printed wrong;
# - pool two to five noisy pictures, and say why a mixture of experts cannot;
# - sample from a code that has no prior.

# %% [markdown]
# ## Three wishes
#
# Let $h_1(x)$ and $h_2(x)$ be two codes of the data.
# We want both to be informative, and neither to repeat the other {cite:p}`daunhawer2021`:
#
# $$
# \begin{aligned}
# \max_{h_1,h_2}\;&I(x;h_1)+I(x;h_2)\\
# &-I(h_1;h_2).
# \end{aligned}
# $$ (eq-three-wishes)
#
# The mutual information $I(a;b)=\mathrm{KL}(p(a,b)\,\|\,p(a)\,p(b))$ is zero when $a$ and $b$ are independent, and has no upper limit.
# None of the three terms can be computed.
# Each gets a stand-in:
#
# | wish | stand-in | from which side |
# |---|---|---|
# | the code $c$ is informative about what modalities share | InfoNCE between $c$ of all modalities and $c$ of some | a lower bound, to be raised |
# | the styles are informative | reconstruction and KL, one VAE for each modality | a lower bound, to be raised |
# | style and code do not repeat each other | total correlation by a discriminator | neither; to be lowered |
#
# The idea in one sentence: $c$ is taught by the contrast alone, and each style gets what is left over.

# %% [markdown]
# ## The code: a product of experts
#
# Each encoder gives a Gaussian expert $q_m(c\mid x_m)$.
# Those of the modalities in $S$ are multiplied, {eq}`eq-product`:
#
# $$
# \begin{gathered}
# q(c\mid x_S)\propto\prod_{m\in S}q_m(c\mid x_m),\\
# T_S=\sum_{m\in S}T_m,\qquad\mu_S=\frac1{T_S}\sum_{m\in S}T_m\mu_m .
# \end{gathered}
# $$ (eq-dmvae-d-product)
#
# A missing modality has precision zero.
# Each further picture can only add precision, so noise averages out.
# This is what a mixture cannot do: its components stay as wide as the experts are.
#
# Two things are left out that you know from earlier chapters.
# There is no prior expert.
# And the paper's equation 2 divides by the prior, {eq}`eq-quotient`; its program does not.
# If the experts were exact posteriors, the plain product would count the prior once too often for every modality after the first.
# Here they are not: as we are about to see, nothing in the objective ties $c$ to a prior, so there is none to count.
#
# ## A bound on information
#
# How can we tell that two codes share something, without a decoder and without labels?
# Play a game.
# Take $K$ items, each seen twice: once by all modalities, once by some of them.
# Given one item's first code, find its second code among all $K$.
# Whoever plays well must know what the two views have in common.
#
# The game gives a bound, and this section proves it.
# For the proof forget the pictures: let $(x,y)$ be any pair of random variables, and $f(x,y)$ any **critic**, a function that scores pairs.
#
# ### Step 1: a bound with a free function
#
# For every $t>0$, $\log t\le t-1$.
# Write $P=p(x,y)$, $Q=p(x)\,p(y)$, and put $t=e^{g}\,\frac{dQ}{dP}$ with any function $g(x,y)$:
#
# $$
# \begin{gathered}
# \begin{aligned}
# &\mathbb E_P[g]-\mathrm{KL}(P\,\|\,Q)=\mathbb E_P\Big[\log\Big(e^{g}\tfrac{dQ}{dP}\Big)\Big]\\
# &\quad\le\mathbb E_P\Big[e^{g}\tfrac{dQ}{dP}\Big]-1=\mathbb E_Q[e^g]-1,
# \end{aligned}\\
# \Longrightarrow\;I(x;y)\ge1+\mathbb E_P[g]-\mathbb E_Q[e^{g}].
# \end{gathered}
# $$ (eq-contrast-free)
#
# ### Step 2: ask the other items
#
# Draw $K-1$ further $y_2,\dots,y_K$ from $p(y)$, independent of everything.
# They say nothing about $x$, so $I(x;y_1,\dots,y_K)=I(x;y_1)$.
# Apply step 1 to the pair of $x$ and the *whole list*, with
#
# $$
# g=\log\frac{e^{f(x,y_1)}}{\frac1K\sum_{j=1}^Ke^{f(x,y_j)}}\,.
# $$ (eq-contrast-list)
#
# Under $Q$ all $y_j$ are independent of $x$ and alike.
# So the expectation of $e^{g}$ is the same whichever of them stands above the line.
# Average over that choice: the sum above cancels the sum below, and
#
# $$
# \mathbb E_Q[e^{g}]=\mathbb E_Q\Bigg[\frac{\frac1K\sum_ie^{f(x,y_i)}}{\frac1K\sum_je^{f(x,y_j)}}\Bigg]=1 .
# $$ (eq-contrast-one)
#
# The one and the minus one of {eq}`eq-contrast-free` cancel.
# What remains holds for every critic.
# In a batch each of the $K$ items takes its turn as the first:
#
# $$
# \begin{gathered}
# \hat I_K=\frac1K\sum_{i=1}^K\log\frac{e^{f_{ii}}}{\frac1K\sum_{j=1}^Ke^{f_{ij}}}\,,\\
# f_{ij}=f(x^{(i)},y^{(j)}),\qquad\mathbb E\big[\hat I_K\big]\le I(x;y).
# \end{gathered}
# $$ (eq-info-nce)
#
# This is **InfoNCE** {cite:p}`oord2018`.
# Up to the constant $\log K$ it is minus the cross-entropy of a classifier with $K$ classes, which picks the partner of $x^{(i)}$.
#
# ### Step 3: the ceiling
#
# The pair itself stands in the sum below the line, so $e^{f_{ii}}\le\sum_je^{f_{ij}}$, and
#
# $$
# \hat I_K\le\log K .
# $$ (eq-info-nce-ceiling)
#
# Not in expectation: always.
# A batch of $K$ cannot testify to more than $\log K$, however good the critic and however much there is to know.
#
# ### Step 4: the best critic
#
# A classifier is best when its scores are log-probabilities.
# The partner is the one $y$ that was drawn from $p(y\mid x)$, so
#
# $$
# f^*(x,y)=\log\frac{p(y\mid x)}{p(y)}+h(x),
# $$ (eq-contrast-critic)
#
# with any $h$, because a constant in a row cancels.
# With this critic and $K\to\infty$ the average below the line tends to $e^{h(x)}$, and $\hat I_K$ to the mutual information.
#
# ### Step 5: back to the pictures
#
# The two views are $c$, computed from all of $x$, and $\tilde c$, computed from a part $\tilde x$ of it.
# Given $x$ the two are drawn independently.
# Processing data adds no information, so
#
# $$
# \hat I_K\lesssim I(c;\tilde c)\le I(x;c).
# $$ (eq-contrast-processing)
#
# The first sign holds in expectation.
# That is the first wish, with its bound on the right side.
#
# ### About ten lines of code

# %%
def contrast(scores):
    """InfoNCE from f[i, j]; the partner of item i is on the diagonal."""
    K = len(scores)
    log_mean = scores.logsumexp(1) - math.log(K)
    return (scores.diagonal() - log_mean).mean()


g = torch.Generator().manual_seed(seed)
c, c_part = torch.randn(2, 64, 10, generator=g).double()
inner = c @ c_part.T  # the critic of the paper
torch.testing.assert_close(contrast(inner), info_nce(c, c_part))
torch.testing.assert_close(contrast(inner), info_nce_from_scores(inner))
print(f"{contrast(inner):.9f}, the library {info_nce(c, c_part):.9f}")
assert contrast(100 * torch.eye(64)) <= math.log(64)

# %% [markdown]
# Now a world with a known answer.
# Let $x$ and $y$ be standard normal with correlation $\rho$.
# Then $I(x;y)=-\tfrac12\log(1-\rho^2)$, and the best critic is the log density ratio
#
# $$
# \begin{aligned}
# &\log\frac{p(x,y)}{p(x)\,p(y)}=-\tfrac12\log(1-\rho^2)\\
# &\quad-\frac{\rho^2(x^2+y^2)-2\rho xy}{2(1-\rho^2)}\,.
# \end{aligned}
# $$ (eq-contrast-gaussian)

# %%
def log_ratio(x, y, rho):
    """log p(x, y) / p(x) p(y) of a bivariate Gaussian."""
    square = rho**2 * (x**2 + y**2) - 2 * rho * x * y
    return -0.5 * math.log(1 - rho**2) - 0.5 * square / (1 - rho**2)


def gaussian_pairs(*shape, rho, g):
    x, noise = torch.randn(2, *shape, generator=g).double()
    return x, rho * x + math.sqrt(1 - rho**2) * noise


def by_batches(K, rho, critic, batches):
    """The mean of InfoNCE over batches of K pairs, and its error."""
    g = torch.Generator().manual_seed(seed)
    x, y = gaussian_pairs(batches, K, rho=rho, g=g)
    scores = critic(x[:, :, None], y[:, None, :], rho)
    values = torch.stack([contrast(f) for f in scores])
    return values.mean().item(), values.std().item() / math.sqrt(batches)


KS = (2, 8, 64, 256)
INFORMATION = torch.linspace(0.02, 6.5, 14 if profile != "smoke" else 5)
RHOS = (1 - torch.exp(-2 * INFORMATION.double())).sqrt().tolist()
curves, batches = {}, {"smoke": 512}.get(profile, 8192)
for K in KS:
    n = min(1000, max(30, batches // K))
    curves[K] = [by_batches(K, rho, log_ratio, n) for rho in RHOS]
    for (value, error), information in zip(curves[K], INFORMATION.tolist()):
        assert value < min(information, math.log(K)) + 5 * error + 1e-6

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the code of this figure", "code_prompt_hide": "Hide the code of this figure"}
fig, ax = figure(5, 4.2)
ax.plot(INFORMATION, INFORMATION, label="the truth", **TRUTH)
for i, K in enumerate(KS):
    ax.plot(
        INFORMATION, [v for v, _ in curves[K]], color=PALETTE[i], linestyle="-",
        marker="osD^"[i], markersize=4, label=f"K = {K}",
    )
    ax.axhline(math.log(K), color=PALETTE[i], linestyle=":", linewidth=1.2)
ax.set(xlabel="mutual information of the pair, in nats", ylabel="InfoNCE, in nats")
legend(fig, ax, columns=3)
show(
    fig,
    alt=(
        "InfoNCE against the true mutual information for batches of four sizes. Each"
        " curve follows the diagonal at first, then bends and runs flat into its own"
        " dotted ceiling, the logarithm of the batch size; a larger batch bends later."
    ),
    caption=(
        "The best critic there is, on Gaussians. Dotted: log K. Below the ceiling the"
        " bound is good; at the ceiling it says nothing more."
    ),
)

# %% [markdown]
# While the truth is well below $\log K$, the bound is close to it.
# From there on it is blind.
# The paper's $K=1024$ can see up to $\log1024\approx6.9$ nats; ten digits need $\log10\approx2.3$.
# So a large batch is more than enough, or so it seems.

# %% [markdown]
# ## A second ceiling
#
# The paper's critic is the inner product $\langle c,\tilde c\rangle$.
# The authors' program divides each code by its length first, so that the score is a **cosine**, over a temperature $\tau$ that it leaves at one.
# It also uses the symmetric loss NT-Xent {cite:p}`chen2020`.
# There each of the $2K$ codes is an anchor in turn, and all $2K-1$ others are contrasts, those of its own view included:
#
# $$
# \begin{gathered}
# \hat I^{\text{NT}}=\log(2K-1)\\
# +\frac1{2K}\sum_{a=1}^{2K}\log\frac{e^{\langle\hat h_a,\hat h_{a^+}\rangle/\tau}}{\sum_{b\ne a}e^{\langle\hat h_a,\hat h_b\rangle/\tau}}\,,
# \end{gathered}
# $$ (eq-nt-xent)
#
# where $h$ holds both views, $\hat h=h/\|h\|$, and $a^+$ is the other view of the same item.
# The logarithm in front makes it comparable with {eq}`eq-info-nce`; programs leave it out.
# Our proof does not cover this form: the contrasts of the anchor's own view are no independent draws from $p(y)$.
#
# Cosines lie between minus one and one.
# That costs more than one might think.
# Write $u_i=\hat c^{(i)}$, $v_i=\hat{\tilde c}^{(i)}$, and bars for averages over the batch.
# By Jensen, the log of an average of exponentials is at least the average of the exponents.
# So for the form {eq}`eq-info-nce` with the cosine
#
# $$
# \begin{aligned}
# \hat I_K&\le\frac1K\sum_if_{ii}-\frac1{K^2}\sum_{i,j}f_{ij}\\
# &=\frac1\tau\cdot\frac1K\sum_i\langle u_i-\bar u,\,v_i-\bar v\rangle\\
# &\le\frac1\tau\sqrt{(1-\|\bar u\|^2)(1-\|\bar v\|^2)}\\
# &\le\frac1\tau .
# \end{aligned}
# $$ (eq-cosine-ceiling)
#
# The third line is Cauchy-Schwarz, and $\frac1K\sum_i\|u_i-\bar u\|^2=1-\|\bar u\|^2$ because the $u_i$ have length one.
#
# At $\tau=1$ the estimate cannot exceed **one nat**, whatever the batch.
# That is less than half of what ten digits are worth.
# NT-Xent can exceed it by one part in $2K-1$, no more.
# So the number that the program prints is no estimate of the information, and a batch of a thousand buys nothing for the ceiling.
# The *gradient* may still be useful; we will measure that.

# %%
def cosine_game(K, tau, rho, batches=40, dims=8):
    """NT-Xent's estimate for correlated codes in `dims` dimensions."""
    g = torch.Generator().manual_seed(seed)
    x, y = gaussian_pairs(batches, K, dims, rho=rho, g=g)
    options = dict(symmetric=True, same_view=True, temperature=tau)
    values = [info_nce(a, b, "cosine", **options) for a, b in zip(x, y)]
    return torch.stack(values).mean().item()


K, taus = 128, (1.0, 0.3, 0.1)
many = torch.linspace(0.02, 12, 10 if profile != "smoke" else 4)
rhos = (1 - torch.exp(-2 * many.double() / 8)).sqrt().tolist()  # 8 pairs of coordinates
found = {tau: [cosine_game(K, tau, rho) for rho in rhos] for tau in taus}
assert max(found[1.0]) <= 1 + 1 / (2 * K - 1)

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the code of this figure", "code_prompt_hide": "Hide the code of this figure"}
fig, ax = figure(5, 3.8)
ax.plot(many, many, label="the truth", **TRUTH)
for i, tau in enumerate(taus):
    ax.plot(
        many, found[tau], color=PALETTE[i], linestyle="-", marker="osD"[i],
        markersize=4, label=f"cosine, τ = {tau:g}",
    )
ax.axhline(math.log(2 * K - 1), color="#808080", linestyle=":", linewidth=1.2)
ax.axhline(1, color=PALETTE[0], linestyle=":", linewidth=1.2)
ax.set(
    xlabel="mutual information of the two codes, in nats",
    ylabel="NT-Xent's estimate, in nats", ylim=(0, 6),
)
legend(fig, ax)
show(
    fig,
    alt=(
        "NT-Xent's estimate with a cosine critic against the true information. At"
        " temperature one the curve stays below its dotted line at one nat. At lower"
        " temperatures it climbs higher, and that of the lowest one ends not far below"
        " the dotted line of the logarithm of the contrasts."
    ),
    caption=(
        f"A batch of {K}, codes of eight dimensions. Dotted: the log of the number of"
        " contrasts, and one nat."
    ),
)

# %% [markdown]
# ## Try it
#
# Each row of the matrix is one code, looking for its partner among $K$.
# A bright diagonal means that it finds it.

# %%
from mmvae_lite.explore import InfonceMatrix

InfonceMatrix(correlation=0.9, items=16, temperature=1.0, critic="optimal", dims=4)

# %% [markdown]
# 1. Move the correlation to its right end. The truth leaves the ceiling behind. Now raise $K$: what follows?
# 2. Switch to the cosine. Compare the bound with one nat, for the smallest and the largest batch.
# 3. Lower the temperature with the cosine. Where is the bound best, and what happens beyond?
# 4. Take the inner product at a correlation of $0.5$. At a temperature of one half the bound lies below zero: valid, and worthless. Which temperature is best?

# %% [markdown]
# ## A sign in print
#
# The paper maximises, in its equation 4, $\mathcal L_{\text{VAE}}+\gamma\,\mathcal L_{\text{shared}}-\delta\,\mathcal L_{\text{disent}}$.
# Its equation 5 defines $\mathcal L_{\text{shared}}:=-\mathbb E[\hat I_K]$.
# Put together, the information is *minimised*.
# One of the two signs has to go; the program minimises $-\gamma\hat I$, as it should.
#
# How bad would the printed one be?
# We give a linear encoder with a two-dimensional code six kinds of items, in two noisy views each, and train it with either sign.

# %%
def two_views(n, g):
    """n items of six kinds, as points of 12 dimensions, and two noisy views of each."""
    kind = torch.randint(6, (n,), generator=g)
    centre = torch.cat([4 * torch.eye(6)[kind], torch.zeros(n, 6)], 1)
    return kind, [centre + torch.randn(n, 12, generator=g) for _ in range(2)]


def encoder_by_contrast(sign, steps=200):
    torch.manual_seed(seed)
    g = torch.Generator().manual_seed(seed)
    net = nn.Linear(12, 2, bias=False)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.05)
    for _ in range(steps if profile != "smoke" else 30):
        _, (a, b) = two_views(128, g)
        value = info_nce(net(a), net(b), "cosine", temperature=0.3)
        optimizer.zero_grad()
        (-sign * value).backward()
        optimizer.step()
    with torch.no_grad():
        kind, (a, b) = two_views(400, g)
        value = info_nce(net(a), net(b), "cosine", temperature=0.3)
        return kind, nn.functional.normalize(net(a), dim=1), value.item()

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the code of this figure", "code_prompt_hide": "Hide the code of this figure"}
fig, axes = figure(5, 2.9, columns=2, sharex=True, sharey=True)
for ax, sign, name in zip(axes, (1, -1), ("maximised", "minimised, as printed")):
    kind, codes, value = encoder_by_contrast(sign)
    radius = 1 + 0.06 * torch.randn(
        len(codes), 1, generator=torch.Generator().manual_seed(1)
    )
    for k in range(6):
        x, y = (codes * radius)[kind == k].T
        ax.plot(
            x, y, color=PALETTE[k], linestyle="none", marker="osD^vP"[k], markersize=3
        )
    ax.set(
        xlim=(-1.3, 1.3), ylim=(-1.3, 1.3), xticks=[], yticks=[],
        xlabel=f"{name}\nInfoNCE {value:.2f}",
    )
    ax.set_aspect("equal")
show(
    fig,
    alt=(
        "Codes on a circle, coloured by kind of item, for both signs. Maximised: the"
        " kinds take separate arcs all around the circle. Minimised: all kinds are"
        " mixed, wherever there are codes."
    ),
    caption=(
        "Directions of the codes, jittered outwards to be seen. With the printed sign"
        " the code forgets what the items are."
    ),
)

# %% [markdown]
# With the printed sign the encoder looks for a code in which the two views agree *less* than strangers do.
# It drops the kind, and keeps the noise, which is what the two views do not share.
# Where views have no noise of their own it can do no better than a constant code: for unit vectors $f_{ii}\ge f_{ij}$, so $\hat I_K\ge0$, and a constant has zero.

# %% [markdown]
# ## Independence by a discriminator
#
# Now the third wish: $s_m$ shall not repeat $c$.
# For two variables the mutual information is also called their **total correlation**, and the paper writes $\mathrm{TC}(c,s_m)$.
# This time a lower bound would not help, since we want to *lower* the quantity.
# We need an estimate that is about right.
#
# Train a classifier to tell two kinds of pairs apart {cite:p}`kim2018`:
# joint pairs $(s,c)\sim P=q(s,c)$, and product pairs $(s,c)\sim Q=q(s)\,q(c)$.
# Product pairs are easy to have: permute the styles over the batch, as whole vectors.
# With two logits $R_0,R_1$ it minimises the cross-entropy
#
# $$
# \begin{aligned}
# \mathcal L_R&=-\tfrac12\,\mathbb E_P\big[\log\mathrm{softmax}_0R(s,c)\big]\\
# &\quad-\tfrac12\,\mathbb E_Q\big[\log\mathrm{softmax}_1R(s,c)\big].
# \end{aligned}
# $$ (eq-discriminator)
#
# At each point $(s,c)$ this is $-\tfrac12[P\log D+Q\log(1-D)]$ with $D=\mathrm{softmax}_0R$.
# Its derivative in $D$ vanishes where $\frac PD=\frac Q{1-D}$, that is at $D=\frac P{P+Q}$.
# So the best log-odds are the log density ratio, and their average over joint pairs is what we want:
#
# $$
# \begin{aligned}
# R^*_0-R^*_1&=\log\frac{D^*}{1-D^*}\\
# &=\log\frac{q(s,c)}{q(s)\,q(c)}\,,\\
# \widehat{\mathrm{TC}}&=\mathbb E_P\big[R_0-R_1\big]\\
# &\to I(s;c).
# \end{aligned}
# $$ (eq-density-ratio)
#
# The arrow is a hope.
# A real discriminator is not the best one, and its estimate may lie on either side, also below zero.
# On Gaussians we know the truth and can look.

# %%
def discriminator_for(rho, steps=300, dims=1, pairs=None):
    """A small discriminator trained on Gaussian pairs: fresh ones, or a few fixed ones."""
    g = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    net = Discriminator(dims, dims, hidden=(32,), joint=(32,))
    optimizer = torch.optim.Adam(net.parameters(), lr=5e-3)
    values = []
    for _ in range(steps if profile != "smoke" else 40):
        s, c = pairs or [v.float() for v in gaussian_pairs(256, dims, rho=rho, g=g)]
        order = torch.randperm(len(s), generator=g)
        judged = net(s, c)
        loss = discriminator_loss(judged, net(s[order], c))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        fresh = [v.float() for v in gaussian_pairs(1000, dims, rho=rho, g=g)]
        with torch.no_grad():
            values.append([density_ratio_tc(net(*fresh)).item(), density_ratio_tc(judged).item()])
    return net, torch.tensor(values)


exact = [0.0, 0.15, 0.4, 0.83, 1.6, 2.5]
estimates = []
for information in exact:
    rho = math.sqrt(1 - math.exp(-2 * information))
    _, values = discriminator_for(rho)
    estimates.append(values[-50:, 0].mean().item())
few = [v.float() for v in gaussian_pairs(200, 5, rho=0.0, g=torch.Generator().manual_seed(1))]
_, memorised = discriminator_for(0.0, steps=250, dims=5, pairs=few)

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the code of this figure", "code_prompt_hide": "Hide the code of this figure"}
fig, (left, right) = figure(5, 5.6, rows=2)
left.plot(exact, exact, label="exact", **TRUTH)
left.plot(
    exact, estimates, color=PALETTE[0], linestyle="-", marker="o", markersize=4,
    label="by a discriminator",
)
left.set(xlabel="mutual information, in nats", ylabel="estimate")
left.legend()
right.axhline(0, label="exact", **TRUTH)
right.plot(
    memorised[:, 1], color=PALETTE[1], linestyle="-",
    label="on the pairs it was trained on",
)
right.plot(memorised[:, 0], color=PALETTE[0], linestyle="--", label="on fresh pairs")
right.set(xlabel="step, on the same 200 independent pairs", ylabel="estimate")
right.legend()
show(
    fig,
    alt=(
        "Above, the discriminator's estimate follows the exact mutual information of"
        " Gaussians along the diagonal and falls short at the right end. Below, a"
        " discriminator that sees the same independent pairs again and again reports"
        " more and more dependence on them, and less than none on fresh pairs, where"
        " the truth is zero."
    ),
    caption=(
        "A trained discriminator against the exact value. Above with fresh draws at"
        " each step; below with the same few pairs at each step."
    ),
)

# %% [markdown]
# With fresh pairs the estimate is good, and a little low where the dependence is strong: a small network cannot draw so sharp a ridge.
# With few pairs it memorises which style came with which code.
# On those pairs it reports a dependence that is not there; on others it is sure and wrong, and the estimate is negative.
# In training, encoders and noise change all the time, and the discriminator sees new codes at each step.
# With a small data set, think of this figure.
#
# Unlike InfoNCE this estimate has no ceiling, and it is no bound.

# %% [markdown]
# ## The whole objective
#
# Let us put the three stand-ins together, and watch who learns from which.
#
# Reconstruction must not teach $c$: else the code would take up whatever makes pictures good, handwriting included.
# So the decoders read a *copy* of it, cut off from the gradient, and read its mean.
# And reconstruction must not always see the code of all modalities: else decoders would never meet the code of a few.
# So a coin for each modality of each item splits the item into a half $A$ and the rest $B$.
# A modality is rebuilt with the code of the half that holds it; its mean is $\bar c_m$.
#
# $$
# \begin{gathered}
# \begin{aligned}
# \mathcal L=&\sum_m\lambda_m\,\mathbb E\log p(x_m\mid\mathrm{sg}(\bar c_m),s_m)\\
# &-\sum_m\beta_m\,\mathrm{KL}(q(s_m\mid x_m)\,\|\,p)\\
# &+\gamma\,\hat I(c;\tilde c)\\
# &-\sum_m\delta_m\,\widehat{\mathrm{TC}}\big(\mathrm{sg}(c_A),s_m\big),
# \end{aligned}\\
# \mathrm{sg}=\text{no gradient passes}.
# \end{gathered}
# $$ (eq-dmvae-d-loss)
#
# This is to be maximised, with the sign of the contrast mended.
# $\tilde c$ is drawn from the product over one random set of modalities, the same for the whole batch.
#
# | this term teaches | $c$ | $s_m$ | decoders |
# |---|---|---|---|
# | reconstruction | no | yes | yes |
# | KL of the style | no | yes | no |
# | contrast | yes, alone | no | no |
# | total correlation | no | yes | no |
#
# An encoder's first layers serve both codes and so learn from all terms.
# The first two lines make one VAE for each modality, *given* $c$.
# There is no divergence for $c$, so $\mathcal L_{\text{VAE}}$ is no bound of $\log p(x)$, whatever its name in the paper says.
#
# ### As code
#
# The library draws the coins and the latents in `draw`, and `objective` does the rest.
# By hand, from the experts on, with the paper's contrast and one average for each reconstruction:

# %%
def by_hand(model, x, codes):
    """The negative objective; `codes` holds the coins and the draws."""
    q = {m: model.encoders[m](x[m]) for m in x}

    def pooled(A):  # the product of the experts of a set, its mean
        T = sum(rows[:, None] * q[m]["shared"].precision for m, rows in A.items())
        eta = sum(rows[:, None] * q[m]["shared"].precision * q[m]["shared"].mean
                  for m, rows in A.items())
        return eta / T

    in_a = {m: rows[0] for m, rows in codes.present.items()}
    in_b = {m: ~rows for m, rows in in_a.items()}
    total = -model.gamma * contrast(codes.c[2] @ codes.c[3].T)  # all, some
    for m in x:
        c = torch.where(in_a[m][:, None], pooled(in_a), pooled(in_b)).detach()
        picture = model.decoders[m](torch.cat([codes.s[m], c], 1))
        log_px = model.likelihoods[m].log_prob(picture, x[m])
        style = q[m]["private"]
        divergence = 0.5 * (style.var + style.mean**2 - 1 - style.logvar).sum(1)
        logits = model.discriminators[m](
            codes.s[m][in_a[m]], codes.c[0][in_a[m]].detach()
        )
        tc = (logits[:, 0] - logits[:, 1]).mean()
        total = total - model.weights[m] * log_px.mean()
        total = total + model.betas[m] * divergence.mean()
        total = total + model.deltas[m] * tc
    return total


model = split_model(**DMVAE_D.PRESETS["paper_paired"]).double()
x = {m: v.double() for m, v in seen(test, slice(0, len(test), 9))[0].items()}
codes = model.draw(x, generator=torch.Generator().manual_seed(seed))
ours, theirs = by_hand(model, x, codes), model.objective(codes, x)["loss"]
torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=0)
print(f"ours {ours:.6f}, the library {theirs:.6f}")

# %% [markdown]
# The gradient map is a claim, so we test it: the contrast is the only term that reaches the heads of $c$.

# %%
heads = [p for m in NAMES for p in model.encoders[m].shared.parameters()]
terms = model.objective(codes, x)
for name, value in terms.items():
    if name == "loss":
        continue
    found = torch.autograd.grad(
        value, heads, retain_graph=True, allow_unused=True
    )
    reached = any(v is not None and v.abs().max() > 0 for v in found)
    assert reached == (name == "info_nce"), name
print("of", ", ".join(sorted({n.split('/')[0] for n in terms} - {'loss'})))
print("only info_nce reaches the heads of c")

# %% [markdown]
# ## Training
#
# The same networks and the same data as in the first figure, now with the contrast and the adversary.
# It trains longer, too; the table below says what each term is worth at equal length.

# %%
model, history = trained(split_model())

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the code of this figure", "code_prompt_hide": "Hide the code of this figure"}
show_swaps(
    model,
    "The same grid after training with contrast and adversary. Now each column looks"
    " like one digit all the way down, the digit of its code, and the rows differ in"
    " slant, width and stroke.",
    f"With contrast and adversary. Columns: codes; rows: styles. {source}",
)
with_all = who_decides(model)
print(f"n = {with_all['n']} swaps between different digits")
print(f"  the digit of the code is drawn:  {with_all['code']:.3f}")
print(f"  the digit of the style is drawn: {with_all['style']:.3f}")

# %% [markdown]
# The grid has turned by a right angle.
# Now the code decides on the digit, and the style on how it is written.
# The network saw no label: only which pictures belong together.
#
# Which term did it?
# The contrast alone teaches $c$, but the failure of the first figure was in the styles.
# Two terms press on these: the adversary, and the divergence.
# This page weighs the divergence with $\beta=1$, the authors' program with $\beta=10$.
# We train once without the adversary, once with the paper's inner product in place of the cosine, and once with $\beta=10$.
# *Variety* is the variance of pictures over styles drawn from the prior, as a share of what real pictures of one digit have.

# %%
variants = {
    "no adversary": dict(deltas=0.0),
    "all terms": {},
    "all, inner product": dict(contrast={"critic": "inner"}),
    "all, β = 10": dict(betas=10.0),
}
compared = {"rebuild only": naive}
for name, weights in variants.items():
    compared[name], _ = trained(split_model(**weights), SHORT)
compared["all terms, three times the steps"] = model


@torch.no_grad()
def variety(model, styles=20):
    """Variance of pictures over styles of the prior, over that within a class."""
    g = torch.Generator().manual_seed(seed)
    x, clean = seen(test, slice(None))
    c = model.posterior(x)["shared"].mean
    drawn = []
    for s in torch.randn(styles, sizes["style"], generator=g):
        z = {"shared": c, "private/x1": s.expand(len(c), -1)}
        drawn.append(model.decode(z)["x1"])
    digits = [clean["x1"][test.classes == k] for k in range(10)]
    real = sum(x.var(0).sum() for x in digits) / 10
    return (torch.stack(drawn).var(0).sum((1, 2, 3)).mean() / real).item()


options = dict(corrupt=noisy, chunk=1000, seed=seed)
rows = []
for name, one in compared.items():
    share = who_decides(one)
    loo = leave_one_out_coherence(one, test, judges, **options)["mean"]
    values = share["code"], share["style"], variety(one), loo["value"]
    rows.append([name, *(f"{v:.2f}" for v in values)])
table(
    f"{SHORT} steps each, n = {share['n']} swaps",
    ["", "the code's digit", "the style's", "variety of styles", "coherence, one left out"],
    rows,
)
print(f"The judge of real pictures: {loo['classifier']:.3f}, n = {loo['n']}")

# %% [markdown]
# Read it line by line.
#
# - *Rebuild only*: the style draws its own digit, as in the first figure.
# - *No adversary*: the contrast has taught the code, and the decoder listens to it now and then. The styles still know the digit.
# - *All terms*: the adversary takes the digit from the styles, and the code decides.
# - *Inner product*: it learns more slowly here. A likely reason: its scores grow with the length of the codes, so the game is soon won or lost by a wide margin, and then teaches little.
# - *β = 10*, the program's weight for noisy digits: the code decides, and the styles hold almost nothing. A strong divergence does the adversary's work and takes the handwriting along. That helps coherence and costs variety; the two pull in different directions all the time.
#
# These are single short runs on small stand-in data.
# They say what each term does, not how large its effect is elsewhere.

# %% [markdown]
# ## Any digit in any hand
#
# The paper's second figure shows pictures drawn from one digit with several styles.
# Its rows share a style drawn from the *prior*: nobody wrote like this, and yet it is consistent from digit to digit.

# %% tags=["hide-input", "figure-dmvae-d-2"] mystnb={"code_prompt_show": "Show the code of this figure", "code_prompt_hide": "Hide the code of this figure"}
@torch.no_grad()
def drawn_styles(model, rows=4):
    content = model.posterior(seen(test, EXAMPLES)[0])["shared"].mean
    g = torch.Generator().manual_seed(3)
    style = torch.randn(rows, sizes["style"], generator=g)
    z = {
        "shared": content.repeat(rows, 1),
        "private/x1": style.repeat_interleave(10, 0),
    }
    return model.decode(z)["x1"]


fig, (top, bottom) = figure(5, 3.1, rows=2, height_ratios=[1, 4])
picture(top, seen(test, EXAMPLES)[0]["x2"], 10, "seen")
picture(bottom, drawn_styles(model), 10, "drawn")
show(
    fig,
    alt=(
        "On top ten noisy pictures, one for each digit. Below them four rows of clean"
        " pictures of the same digits. Each row has a hand of its own, thick or thin,"
        " upright or slanted, which it keeps from digit to digit."
    ),
    caption=(
        f"Codes from noisy pictures, one style from the prior for each row. {source}"
    ),
)

# %% [markdown]
# ## Try it
#
# Pick a code in a column, a style in a row, and watch the cell.
# The decoders run on this page.

# %%
from mmvae_lite.explore import StyleMixer
from mmvae_lite.explore.export import page_decoders

few = torch.cat([(test.classes == c).nonzero()[:2, 0] for c in range(10)])
with torch.no_grad():
    x, _ = seen(test, few)
    q = model.posterior(x)
    alone = {m: model.posterior({m: x[m]})["shared"].mean for m in ("x1", "x2")}
decoders = page_decoders(model)

StyleMixer(
    {m: decoders[m] for m in ("x1", "x2")},
    shared={"all pictures": q["shared"].mean, **alone},
    private={m: q[f"private/{m}"].mean for m in ("x1", "x2")},
    labels=test.classes[few], name="contrast-mixer",
    alt="Digits decoded from the code of one tuple and the style of another.",
)

# %% [markdown]
# 1. Take the code from one noisy picture alone instead of all. Which digits change?
# 2. Take styles from the prior and move the two sliders. Does the digit ever change? It should not; where it does, the style still knows too much.
# 3. Choose the other modality. Its styles are its own, and the code is the same.

# %% [markdown]
# ## Two to five modalities
#
# More pictures of the same digit should help.
# How much they help tells products from mixtures.
# A product adds precisions: four vague experts make one sharp one.
# A mixture asks one expert at a time, chosen by lot, however many there are.
#
# We leave one picture out, draw it from the others, and let a judge read it: **leave-one-out coherence**.
# The noise of this page is mild, so that one can see handwriting at all.
# Here it is the paper's, $\mathcal N(0,1)$ on every pixel of $[0,1]$, in which a single picture may hide its digit.
# Beside DMVAE-D, with the program's weights, stand the two models of one latent from earlier chapters, with the same layers, data and steps.

# %% tags=["hide-input", "figure-dmvae-d-3"] mystnb={"code_prompt_show": "Show the code of this figure", "code_prompt_hide": "Hide the code of this figure"}
from mmvae_lite.results import RECORDED, read_result

KINDS = {"DMVAE-D": "dmvae_d", "MVAE": "mvae", "MMVAE": "mmvae"}
MS = (2, 3, 4, 5)


def noisy_runs(kind, images):
    """modalities -> recorded results of all seeds."""
    found = {
        M: sorted((RECORDED / f"noisy-{images}-{kind}-{M}").glob("lite-*.json"))
        for M in MS
    }
    return {M: [read_result(p) for p in paths] for M, paths in found.items() if paths}


def show_noisy(images):
    fig, ax = figure(5, 4)
    for name, kind in KINDS.items():
        runs = noisy_runs(kind, images)
        values = {
            M: [r["metrics"]["coherence-leave-one-out"]["value"] for r in rs]
            for M, rs in runs.items()
        }
        ax.plot(
            list(values), [sum(v) / len(v) for v in values.values()], label=name,
            markersize=0, color=LOOK[name]["color"], linestyle=LOOK[name]["linestyle"],
        )
        for M, v in values.items():
            ax.plot(
                [M] * len(v), v, color=LOOK[name]["color"], marker=LOOK[name]["marker"],
                linestyle="none", markersize=4, alpha=0.7,
            )
    said = {
        "digits": "Scikit-learn's digits, which stand in for MNIST",
        "mnist": "MNIST",
    }[images]
    ax.set(
        xlabel="modalities M, of which one is drawn from the others",
        ylabel="leave-one-out coherence", ylim=(0, 1.02), xticks=MS,
    )
    legend(fig, ax, columns=3)
    show(
        fig,
        alt=(
            "Leave-one-out coherence against the number of modalities for three models."
            " The two with products, DMVAE-D and MVAE, climb with every further"
            " picture. The mixture, MMVAE, stays where it was with two."
        ),
        caption=(
            f"{said}. A mark is a run of one seed, a line the mean of seeds."
            " Precomputed by book/results/make_noisy_sweep.py."
        ),
    )


for images in ("digits", "mnist"):
    if all(len(noisy_runs(kind, images)) > 1 for kind in KINDS.values()):
        show_noisy(images)

# %% [markdown]
# The figure repeats the left half of the paper's figure 3 in small: products rise with $M$, the mixture does not.
#
# It also warns against reading only the slope.
# With two modalities the mixture is *ahead*: it was trained on every crossing, with each expert alone, and in so short a training that counts.
# And with many, MVAE is ahead of DMVAE-D: its product is taught by every reconstruction, that of DMVAE-D by the contrast alone.
# The paper trains longer and looks at pictures, too; compare slopes here, and not levels.
#
# ## A code without a prior
#
# How do we draw a pair of pictures that nobody gave us a code for?
# The styles have a prior.
# The code has none: the contrast put it wherever the game is won, in any place and on any scale.
# A draw from $\mathcal N(0,I)$ is just some point.
#
# The remedy is called **ex-post density estimation** {cite:p}`ghosh2020`.
# When training is over, encode the training items, and fit a density to their codes; the paper takes a mixture of Gaussians with full covariances:
#
# $$
# \hat p(c)=\sum_{k=1}^Kw_k\,\mathcal N(c;\,\mu_k,\Sigma_k).
# $$ (eq-ex-post)
#
# It is fitted by **expectation maximisation**.
# Given a mixture, the responsibility of component $k$ for code $c_i$ is $r_{ik}=\frac{w_k\,\mathcal N(c_i;\mu_k,\Sigma_k)}{\hat p(c_i)}$.
# Given responsibilities, the most likely mixture has
#
# $$
# \begin{gathered}
# w_k=\frac1N\sum_ir_{ik},\qquad\mu_k=\frac{\sum_ir_{ik}\,c_i}{\sum_ir_{ik}},\\
# \Sigma_k=\frac{\sum_ir_{ik}\,(c_i-\mu_k)(c_i-\mu_k)^\top}{\sum_ir_{ik}}.
# \end{gathered}
# $$ (eq-em)
#
# Taken in turn, the two steps never lower the likelihood.

# %%
with torch.no_grad():
    g = torch.Generator().manual_seed(seed)
    rows = torch.randperm(len(train), generator=g)[:2000]
    known, _ = seen(train, rows)
    codes = model.posterior(known)["shared"].mean.double()


def em_round(density, c):
    """One round: responsibilities, then the mixture that they make most likely."""
    r = density.responsibilities(c)  # [items, components]
    n = r.sum(0)
    mean = r.T @ c / n[:, None]
    gaps = c - mean[:, None]  # [components, items, code]
    cov = (r.T[..., None] * gaps).mT @ gaps / n[:, None, None]
    return ExPostDensity(n / len(c), mean, torch.linalg.cholesky(cov))


density = ExPostDensity.fit(codes, components=10, max_iter=1, restarts=1)
likelihood = [density.log_prob(codes).mean().item()]
for _ in range(20):
    density = em_round(density, codes)
    likelihood.append(density.log_prob(codes).mean().item())
assert all(b > a - 1e-6 for a, b in zip(likelihood, likelihood[1:]))
fitted = ExPostDensity.fit(codes, components=10, tol=1e-5)
print(f"one round {likelihood[0]:.3f}, twenty more {likelihood[-1]:.3f},")
print(f"the library, which starts three times, {fitted.log_prob(codes).mean():.3f} nats")

# %% [markdown]
# Now draw three pictures at once, and ask the judges whether they show the same digit: **joint coherence**.

# %%
D = sizes["code"]
unit = ExPostDensity(torch.ones(1), torch.zeros(1, D), torch.eye(D)[None])
densities = {"N(0, I), which is no prior of it": unit}
for K, name in ((1, "1 Gaussian"), (10, "10 Gaussians"), (30, "30 Gaussians")):
    densities[name] = ExPostDensity.of(model, known, components=K)
draws = dict(n=1000 if profile != "smoke" else 100, chunk=1000, seed=seed)
rows = []
for name, density in densities.items():
    found = joint_coherence(model, test, judges, density=density, **draws)
    rows.append([name, f"{found['value']:.2f}", f"{found['effective_classes']:.1f}"])
table(f"All {len(NAMES)} pictures agree, n = {draws['n']} draws", ["codes from", "joint coherence", "kinds of digits"], rows)

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the code of this figure", "code_prompt_hide": "Hide the code of this figure"}
@torch.no_grad()
def drawn_jointly(density, n=10):
    g = torch.Generator().manual_seed(seed)
    model.density = density
    pictures = model.sample(n, g)
    return torch.cat([pictures[m] for m in NAMES[:3]])


fig, axes = figure(5, 3.7, rows=2)
for ax, (name, label) in zip(
    axes,
    (("N(0, I), which is no prior of it", "N(0, I)"), ("30 Gaussians", "30 Gaussians")),
):
    picture(ax, drawn_jointly(densities[name]), 10, label)
show(
    fig,
    alt=(
        "Two blocks of ten columns with three pictures each. With codes from a standard"
        " normal many columns show shapes between two digits, or three pictures that"
        " disagree. With codes from the fitted mixture most columns show one digit in"
        " three different hands."
    ),
    caption=(
        "Each column is one joint draw: one code, a style for each picture. Above from"
        " a standard normal, below from the fitted mixture."
    ),
)

# %% [markdown]
# The same trick helps models that do have a prior, since the codes of the data rarely fill it; the numbers follow.
# So a fair table compares prior with prior and fitted with fitted.
#
# How many components?
# With one for each training item the mixture would repeat the training codes, and no coherence would tell.
# Fit on one half and ask for the likelihood of the other.

# %% [markdown]
# ## Our numbers and the paper's
#
# The headline of the paper is that joint coherence on MNIST with SVHN rises from {paper}`dmvae-d:table-1:mmvae/joint` to {paper}`dmvae-d:table-1:dmvae/joint`.
# The first number is MMVAE with draws from its *prior*, the second DMVAE-D with draws from a *fitted* mixture.
# The paper's own table 3 has the like-for-like numbers:
#
# :::{list-table}
# :header-rows: 1
#
# * - joint coherence in per cent, {cite:t}`daunhawer2021`, table 3
#   - prior
#   - fitted mixture
# * - MVAE
#   - {paper}`dmvae-d:table-3:mvae/prior/joint`
#   - {paper}`dmvae-d:table-3:mvae/ex-post/joint`
# * - MMVAE
#   - {paper}`dmvae-d:table-3:mmvae/prior/joint`
#   - {paper}`dmvae-d:table-3:mmvae/ex-post/joint`
# * - DMVAE-D
#   - none
#   - {paper}`dmvae-d:table-3:dmvae/ex-post/joint`
# :::
#
# Fitted against fitted, what the new model adds to MMVAE is small beside what the mixture adds.
# Across modalities it gains about as much, table 1: from MNIST to SVHN {paper}`dmvae-d:table-1:dmvae/mnist-svhn` against {paper}`dmvae-d:table-1:mmvae/mnist-svhn` of MMVAE, and back {paper}`dmvae-d:table-1:dmvae/svhn-mnist` against {paper}`dmvae-d:table-1:mmvae/svhn-mnist`.
#
# For noisy digits the paper prints a figure and no numbers.
# Ours, with scikit-learn's digits in place of MNIST and small networks, as shares:
#
# :::{list-table}
# :header-rows: 1
#
# * - stand-in data, seed 0
#   - one left out, $M=2$
#   - $M=5$
#   - joint, $M=3$: prior
#   - fitted, $K=30$
# * - DMVAE-D
#   - {measured}`noisy-digits-dmvae_d-2/lite-0:coherence-leave-one-out|.3f`
#   - {measured}`noisy-digits-dmvae_d-5/lite-0:coherence-leave-one-out|.3f`
#   - none
#   - {measured}`noisy-digits-dmvae_d-3/lite-0:coherence-joint-expost-30|.3f`
# * - MVAE
#   - {measured}`noisy-digits-mvae-2/lite-0:coherence-leave-one-out|.3f`
#   - {measured}`noisy-digits-mvae-5/lite-0:coherence-leave-one-out|.3f`
#   - {measured}`noisy-digits-mvae-3/lite-0:coherence-joint-prior|.3f`
#   - {measured}`noisy-digits-mvae-3/lite-0:coherence-joint-expost-30|.3f`
# * - MMVAE
#   - {measured}`noisy-digits-mmvae-2/lite-0:coherence-leave-one-out|.3f`
#   - {measured}`noisy-digits-mmvae-5/lite-0:coherence-leave-one-out|.3f`
#   - {measured}`noisy-digits-mmvae-3/lite-0:coherence-joint-prior|.3f`
#   - {measured}`noisy-digits-mmvae-3/lite-0:coherence-joint-expost-30|.3f`
# :::
#
# **The two tables must not be compared**: other data, other sizes, a training of a few hundred steps, and $M$ pictures that all have to agree.
# They share a direction: the fitted mixture helps both models that have a prior to compare it with.
# The judge is right about real pictures with a share of {measured}`noisy-digits-dmvae_d-3/lite-0:judge|.3f`.
#
# ## Paper and program
#
# The library has both as presets of `DMVAE_D`.
#
# | | `paper`, `paper_paired` | `code`, `code_paired` |
# |---|---|---|
# | critic | inner product of $c$ and $\tilde c$ | cosine, symmetric, contrasts in both views, $\tau=1$ |
# | reconstruction | one average over all items | the averages over $A$ and over $B$ are added, so it counts twice |
# | contrasted items | all | those with a modality in $A$: a share of $1-2^{-M}$ |
# | $\beta$ on noisy digits | $100$ | $10$ |
# | learning rate there | $3\cdot10^{-3}$ | $10^{-3}$ |
# | product for $c$ | equation 2, with a quotient that is never used | plain product |
# | other weights | not in the text | $\gamma=100$, $\delta_m=100$; with SVHN $1000$ and $500$, $100$ |

# %% [markdown]
# ## Pitfalls, some of them in print
#
# **The sign.**
# Equations 4 and 5 of the paper minimise the information that they are meant to raise.
# A program that follows the text line by line learns a constant code.
#
# **One nat.**
# With cosines at $\tau=1$ the bound is at most one nat, {eq}`eq-cosine-ceiling`, so the weight $\gamma$ has to be large for it to be heard beside a reconstruction of hundreds of nats.
# Do not report it as information.
#
# **K is not the batch.**
# The program contrasts only the items that have a modality in $A$.
# With two modalities and batches of $1024$ that is $768$ on average.
#
# **Negatives of the same kind.**
# With ten digits, one in ten of the contrasts shows the digit of the anchor.
# The game punishes a code that calls them alike.
# The bound stays valid: $\log10$ is simply all that there is to know.
#
# **$\tilde x\subset x$ is not strict.**
# The random set may hold all modalities, with probability $2^{-M}$; then a code is compared with another draw of itself.
#
# **A weight outside its sum.**
# The text prints $\delta_m\sum_m$ where $\sum_m\delta_m$ is meant.
#
# **Not an ELBO.**
# Without a divergence for $c$, and with a mean in its place, the objective bounds no evidence.
# Do not compare it with another model's ELBO.
# For a likelihood one needs a density of $c$: ours is the fitted one, and then it is a likelihood of *that* model.
#
# **A discriminator with few items.**
# See the lower half of its figure: on the same few pairs it reports dependence that is not there.
#
# **Looking at the test set.**
# The authors' linear probe stops early by its accuracy on the test set; see the chapter on measuring.

# %% [markdown]
# ## When to use it, when not
#
# | use DMVAE-D when | think twice when |
# |---|---|
# | modalities share something and each has much of its own | you need a likelihood, or a principled bound |
# | there are many modalities, noisy ones, and any may be missing | what is shared is more than a few nats: mind both ceilings |
# | style has to change while content stays | batches must be small: the contrast lives on many items |
# | no labels at all are at hand | some labels are: DMVAE-L uses them |

# %% [markdown]
# ## Exercises
#
# Each exercise has a stub to fill in, a check and a hidden solution.
# Ask the check as often as you like; it says what is not right yet.

# %% [markdown]
# ```{exercise} The best critic
# :label: ex-contrast-log-ratio
#
# Derive {eq}`eq-contrast-gaussian`: the log density ratio of two standard normals with correlation $\rho$.
# Return it for tensors `x` and `y` of one shape.
# ```
#
# ```{admonition} Hint
# :class: dropdown tip
# $\log\frac{p(x,y)}{p(x)p(y)}=\log p(y\mid x)-\log p(y)$, and $p(y\mid x)=\mathcal N(y;\rho x,1-\rho^2)$.
# The page has the answer; write it from these two densities, with `torch.distributions` if you like.
# ```

# %% tags=["exercise"]
def gaussian_log_ratio(x, y, rho):
    raise NotImplementedError

# %%
check("contrast-log-ratio", gaussian_log_ratio)

# %% tags=["solution", "hide-cell"] mystnb={"code_prompt_show": "Show the solution", "code_prompt_hide": "Hide the solution"}
def gaussian_log_ratio(x, y, rho):
    conditional = torch.distributions.Normal(rho * x, math.sqrt(1 - rho**2))
    marginal = torch.distributions.Normal(0.0, 1.0)
    return conditional.log_prob(y) - marginal.log_prob(y)


check("contrast-log-ratio", gaussian_log_ratio).require()

# %% [markdown]
# ```{exercise} Play the game
# :label: ex-contrast-info-nce
#
# `x` and `y` are `[batches, K]`: in each batch $K$ Gaussian pairs with correlation `rho`.
# Return the InfoNCE estimate of every batch, `[batches]`, with the best critic of the last exercise.
# Then average over many batches: for $\rho=0.9$ and $K=2$ the mean should be near $0.34$, and for $K=256$ near the truth, $0.83$.
# ```
#
# ```{admonition} Hint
# :class: dropdown tip
# `x[:, :, None]` and `y[:, None, :]` make a matrix of scores for each batch.
# Below the line stands an *average*, over all of the row.
# ```

# %% tags=["exercise"]
def estimates_of_batches(x, y, rho):
    raise NotImplementedError

# %%
check("contrast-info-nce", estimates_of_batches)

# %% tags=["solution", "hide-cell"] mystnb={"code_prompt_show": "Show the solution", "code_prompt_hide": "Hide the solution"}
def estimates_of_batches(x, y, rho):
    x, y = x[:, :, None], y[:, None, :]
    square = rho**2 * (x**2 + y**2) - 2 * rho * x * y
    scores = -0.5 * math.log(1 - rho**2) - 0.5 * square / (1 - rho**2)
    log_mean = scores.logsumexp(2) - math.log(scores.shape[2])
    return (scores.diagonal(dim1=1, dim2=2) - log_mean).mean(1)


check("contrast-info-nce", estimates_of_batches).require()

# %% tags=["hide-cell"] mystnb={"code_prompt_show": "Show the averages", "code_prompt_hide": "Hide the averages"}
for K in (2, 8, 64, 256):
    g = torch.Generator().manual_seed(seed)
    x, y = gaussian_pairs(20_000 // K, K, rho=0.9, g=g)
    print(f"K = {K:3}: {estimates_of_batches(x, y, 0.9).mean():.3f}")

# %% [markdown]
# ```{exercise} How high can a cosine get?
# :label: ex-contrast-ceiling
#
# The best that $K$ pairs of unit vectors can do is this: both views of an item are the same corner of a regular simplex around the origin.
# Any two of its $K$ corners have the same cosine, and the code must have $K-1$ dimensions or more.
# Find that cosine, put it into {eq}`eq-info-nce`, and return the ceiling for `K` and temperature `tau`.
# How far below one is it for $K=10$ and $\tau=1$?
# ```
#
# ```{admonition} Hint
# :class: dropdown tip
# The corners add up to zero.
# Take the inner product of that sum with one corner.
# ```

# %% tags=["exercise"]
def cosine_ceiling(K, tau):
    raise NotImplementedError

# %%
check("contrast-ceiling", cosine_ceiling)

# %% tags=["solution", "hide-cell"] mystnb={"code_prompt_show": "Show the solution", "code_prompt_hide": "Hide the solution"}
def cosine_ceiling(K, tau):
    other = -1 / (K - 1)  # 1 + (K - 1) other = 0
    return math.log(K) - math.log(1 + (K - 1) * math.exp((other - 1) / tau))


print(f"K = 10, tau = 1: {cosine_ceiling(10, 1.0):.3f} of log 10 = {math.log(10):.3f} nats")
check("contrast-ceiling", cosine_ceiling).require()

# %% [markdown]
# ```{exercise} The half that holds it
# :label: ex-contrast-split
#
# `means` and `precisions` are the experts' for the code, `[modalities, items, code]`, and `in_a` says which modality of which item is in $A$, `[modalities, items]`.
# Return what the decoder of modality `m` reads as code, `[items, code]`: the mean of the product over the half that holds `m`, with no gradient.
# ```
#
# ```{admonition} Hint
# :class: dropdown tip
# A modality outside the half has precision zero.
# Where nobody is in a half the mean is zero over zero; nobody is decoded from it, so `torch.where` may discard it.
# ```

# %% tags=["exercise"]
def code_for(m, means, precisions, in_a):
    raise NotImplementedError

# %%
check("contrast-split", code_for)

# %% tags=["solution", "hide-cell"] mystnb={"code_prompt_show": "Show the solution", "code_prompt_hide": "Hide the solution"}
def code_for(m, means, precisions, in_a):
    def pooled(rows):
        votes = precisions * rows[..., None]
        return (votes * means).sum(0) / votes.sum(0)

    return torch.where(in_a[m][:, None], pooled(in_a), pooled(~in_a)).detach()


check("contrast-split", code_for).require()

# %% [markdown]
# ```{exercise} Four signs
# :label: ex-contrast-sign
#
# Write the loss that an optimiser *minimises*, as one number.
# `recon` (mean log-likelihoods), `kl` and `tc` are dicts from modality to a number, `nce` is the estimate $\hat I$, `gamma` is a number and `delta` a dict; take $\lambda_m=\beta_m=1$.
# ```
#
# ```{admonition} Hint
# :class: dropdown tip
# For each term ask: should it become larger or smaller?
# The check knows the slip in print.
# ```

# %% tags=["exercise"]
def loss_to_minimise(recon, kl, nce, tc, gamma, delta):
    raise NotImplementedError

# %%
check("contrast-sign", loss_to_minimise)

# %% tags=["solution", "hide-cell"] mystnb={"code_prompt_show": "Show the solution", "code_prompt_hide": "Hide the solution"}
def loss_to_minimise(recon, kl, nce, tc, gamma, delta):
    fit_less_divergence = sum(recon[m] - kl[m] for m in recon)
    dependence = sum(delta[m] * tc[m] for m in tc)
    return -(fit_less_divergence + gamma * nce - dependence)


check("contrast-sign", loss_to_minimise).require()

# %% [markdown]
# ## Further reading
#
# {cite:t}`daunhawer2021` is the paper of this chapter; its section 3.2 has the two contrastive objectives.
# {cite:t}`oord2018` introduced InfoNCE; {cite:t}`poole2019` derive it as we did and set it beside other bounds.
# {cite:t}`chen2020` is the source of NT-Xent; there the temperature is tuned, and matters.
# {cite:t}`kim2018` train a VAE against a discriminator of total correlation.
# {cite:t}`ghosh2020` fit densities after training, to autoencoders without any prior.
# {cite:t}`hsu2018` reach the same goal with a hinge in place of InfoNCE.
