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
# # Measuring, and how to cheat
#
# ```{admonition} Before you start
# :class: note
# You need one model with two modalities, such as [MVAE](mvae.ipynb), the evidence lower bound, and averages with their errors.
# One small model and one judge are trained on this page; one CPU core is enough.
# ```

# %% tags=["parameters", "hide-input"] mystnb={"code_prompt_show": "Show the settings", "code_prompt_hide": "Hide the settings"}
profile = "lite"
seed = 0
device = "cpu"

# %% tags=["setup", "hide-input"] mystnb={"code_prompt_show": "Show the imports", "code_prompt_hide": "Hide the imports"}
import math
import warnings
from dataclasses import replace

import torch
from torch import nn

from mmvae_lite.data import noisy_digits
from mmvae_lite.data.pairing import repair_each_epoch
from mmvae_lite.distributions import LaplaceLikelihood
from mmvae_lite.evaluation import (
    cluster_purity,
    conditional_coherence,
    joint_coherence,
    judges_for,
    log_likelihood,
    per_dimension_kl,
    probe_means,
    train_judge,
)
from mmvae_lite.evaluation.cca import fit_cca
from mmvae_lite.evaluation.classifiers import predict
from mmvae_lite.evaluation.frechet import (
    between,
    class_conditional,
    copied,
    extract,
)
from mmvae_lite.evaluation.likelihood import ceiling
from mmvae_lite.exercises import check
from mmvae_lite.models import MMVAE
from mmvae_lite.networks import LaplaceEncoder, dense_decoder, dense_trunk
from mmvae_lite.training import fit

# %% [markdown]
# ## The question
#
# Two people write down the same digit.
# A generator sees one of the two pictures and draws the other.
# How good is it?
#
# The papers of this book answer with **coherence**: a classifier reads what was drawn, and we count how often it finds the digit of the input.
# Here is a generator that scores almost perfectly.
# It was not trained at all.

# %%
data = noisy_digits(modalities=2)  # used without the noise
items, asked = {
    "smoke": (1280, 400), "lite": (10_000, 2000), "paper": (60_000, 10_000)
}[profile]
train, test = data.train.evenly(items), data.test.evenly(asked)
NAMES = ("x1", "x2")
judges = judges_for(data)
judge = judges["x2"]
source = f"{data.description}; {len(train)} pairs to train on, {len(test)} to test on."
print(source)
if data.stand_in:
    print("They stand in for MNIST, which the papers use.")
    print("Set MMVAE_DATA to a folder that holds mnist/ to use it.")

pictures, classes = train.take(slice(None))["x1"], train.classes
row_classes = torch.empty_like(data.train.classes)
row_classes[data.train.index["x1"]] = data.train.classes  # also of pictures in no pair here


class Generator:
    """What the measures ask of a model: to translate, and to draw pairs."""

    modalities = NAMES

    def draw(self, digits, generator):
        """A picture for each digit."""
        raise NotImplementedError

    def translate(self, batch, to, sample=False, generator=None):
        (x,) = batch.values()
        return self.draw(predict(judge, x), generator)

    def sample(self, n, generator=None):
        digits = torch.randint(10, (n,), generator=generator)
        return {m: self.draw(digits, generator) for m in NAMES}


class Stamps(Generator):
    """Reads its input as the judge does, and stamps the mean picture of the class."""

    def __init__(self):
        means = [pictures[classes == k].mean(0) for k in range(10)]
        self.means = torch.stack(means)

    def draw(self, digits, generator):
        return self.means[digits]


options = dict(pairs=[(("x1",), "x2")], chunk=len(test), seed=seed)


def coherence(model):
    return conditional_coherence(model, test, judges, **options)["x1->x2"]


found = coherence(Stamps())
print(f"coherence of the stamps {found['value']:.3f} +- {found['se']:.3f}, n = {found['n']}")
print(f"the judge of real pictures is right with a share of {found['classifier']:.3f}")

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the plotting helpers", "code_prompt_hide": "Hide the plotting helpers"}
from mmvae_lite.plotting import PALETTE, figure, legend, mosaic, show, table

TRUTH = {
    "color": "#808080",
    "linewidth": 8,
    "alpha": 0.45,
    "linestyle": "-",
    "solid_capstyle": "round",
}
EXAMPLES = (
    torch.cat([(test.classes == c).nonzero()[:3, 0] for c in range(10)])
    .reshape(10, 3)
    .T.flatten()
)  # three rows of ten digits


def seen(rows):
    """Test pictures of both modalities."""
    return test.take(rows)


def picture(ax, images, columns, label=None):
    ax.imshow(mosaic(images, columns), vmin=0, vmax=1, cmap="gray")
    ax.set(xticks=[], yticks=[])
    if label:
        ax.set_ylabel(label, rotation=0, ha="right", va="center")
    for spine in ax.spines.values():
        spine.set_visible(False)


@torch.no_grad()
def drawn_for(model, rows=EXAMPLES):
    g = torch.Generator().manual_seed(seed)
    return model.translate({"x1": seen(rows)["x1"]}, "x2", sample=True, generator=g)


# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the code of this figure", "code_prompt_hide": "Hide the code of this figure"}
fig, (top, bottom) = figure(5, 3.6, rows=2)
picture(top, seen(EXAMPLES)["x1"], 10, "seen")
picture(bottom, drawn_for(Stamps()), 10, "drawn")
show(
    fig,
    alt=(
        "Above three rows of ten handwritten digits. Below what the stamps draw for"
        " them: in each column the same blurred mean picture three times, whatever the"
        " handwriting."
    ),
    caption=f"Perfect by coherence, and of no use: ten pictures in all. {source}",
)

# %% [markdown]
# Ten blurred pictures, and a score that the trained model of this page does not reach.
# Coherence does not ask whether a generator can draw more than one picture of a thing.
# It was never meant to; but a table with one column does not say so.
#
# Every number has such a blind spot.
# This chapter takes the measures of the five papers one by one.
# For each it says what is computed, and then builds a generator that is bad and scores well.
# A cheat is not malice: training finds such generators by itself, when the number that we watch is the number that we raise.
#
# **After this chapter you can**
#
# - say what coherence, probes, likelihoods, Fréchet distances, purity and CCA measure, and name for each a generator that cheats it;
# - report a score with what it needs beside it: chance, the judge's own accuracy, the number of items, a floor;
# - correct a coherence for the errors of its judge, and say how many items a difference needs;
# - read a table in which the measures disagree.

# %% [markdown]
# ## A few generators
#
# We need something honest to compare with.
# The **truth** draws a real picture of the right digit: one from the test set that nobody has seen.
# The **model** is an MMVAE, trained for a short time.
#
# The **copier** ignores its input and shows some training picture.
# The **filing clerk** reads its input and shows a training picture of that digit.

# %%
class Truth(Generator):
    """Another test picture of the right digit, which it is told."""

    def translate(self, batch, to, sample=False, generator=None):
        return self.draw(self.told, generator)

    def draw(self, digits, generator):
        return pick(real_x2, test.classes, digits, generator)


real_x2 = test.take(slice(None))["x2"]


def pick(images, classes, digits, generator):
    """A random image of each digit."""
    weights = (classes == torch.arange(10)[:, None]).double()
    rows = torch.multinomial(weights[digits], 1, generator=generator)[:, 0]
    return images[rows]


class FilingClerk(Generator):
    def draw(self, digits, generator):
        return pick(pictures, classes, digits, generator)


class Copier(FilingClerk):
    def draw(self, digits, generator):
        digits = torch.randint(10, digits.shape, generator=generator)
        return super().draw(digits, generator)


class OneTrick(Stamps):
    """Joint draws are always the digit one, in both modalities."""

    def sample(self, n, generator=None):
        return {m: self.means[torch.ones(n, dtype=torch.long)] for m in NAMES}

# %%
def small_mmvae(latent=16, width=100):
    torch.manual_seed(seed)
    layers = [latent, width, 784]
    return MMVAE(
        encoders={
            m: LaplaceEncoder(dense_trunk([784, width]), width, latent)
            for m in NAMES
        },
        decoders={
            m: nn.Sequential(*dense_decoder(layers, (1, 28, 28)), nn.Sigmoid())
            for m in NAMES
        },
        likelihoods={m: LaplaceLikelihood(0.1) for m in NAMES},
        latent_dim=latent, samples=1,
    )


model = small_mmvae()
steps = {"smoke": 20, "lite": 720, "paper": 47_000}[profile]
fit(
    model, train, batch_size=128, lr=3e-3, seed=seed, device=device,
    epochs=max(2, round(steps / math.ceil(len(train) / 128))),
    pair=repair_each_epoch({m: row_classes for m in NAMES}),
)
model = model.cpu().eval()

# %% [markdown]
# ## Coherence
#
# Let $y_i$ be the class of input $i$, and $\hat y_i$ what the judge reads in the translation:
#
# $$
# \mathrm{coherence}=\frac1n\sum_{i=1}^n[\hat y_i=y_i].
# $$ (eq-coherence)
#
# It is a share $p$ of $n$ independent yes-or-no answers, so its standard error is $\sqrt{p(1-p)/n}$.
# Three more numbers belong beside it.
#
# **Chance.**
# A generator that ignores its input still hits by luck.
# If it draws class $k$ with share $\hat\pi_k$, and class $k$ is asked for with share $\pi_k$, luck gives
#
# $$
# \mathrm{chance}=\sum_k\pi_k\,\hat\pi_k .
# $$ (eq-coherence-chance)
#
# **How much it draws.**
# Two numbers see the stamps: the *effective number of classes*, the exponential of the entropy of $\hat\pi$, and the *spread*, the variance of its pictures within their classes over that of real ones.
#
# **The judge.**
# A judge with accuracy $a$ calls a share $1-a$ of right pictures wrong, and some wrong ones right.
# If its errors fall on the other $n_c-1$ classes alike, a true share $t$ is observed as
#
# $$
# \begin{aligned}
# \mathrm{coherence}&=t\,a+(1-t)\,e,\\
# e&=\frac{1-a}{n_c-1}\,.
# \end{aligned}
# $$ (eq-coherence-judge)
#
# So no honest generator exceeds $a$; one that does was made for the judge.
# And the assumption is a kind one: a judge is usually worse on drawn pictures than on the real ones that its $a$ was measured on.
#
# The next generator is made for the judge, and for nothing else.
# Asked for a three it shows an eight, and adds a faint pattern along the slope of the judge's own score.

# %%
class Whisperer(Generator):
    """A training picture of a wrong digit, with a faint pattern that makes this judge read the right one."""

    def draw(self, digits, generator, strength=0.25, steps=30):
        start = pick(pictures, classes, (digits + 5) % 10, generator)
        x = start.clone()
        with torch.enable_grad():
            for _ in range(steps):
                x.requires_grad_()
                loss = nn.functional.cross_entropy(judge(x), digits)
                (slope,) = torch.autograd.grad(loss, x)
                x = x.detach() - strength / 8 * slope.sign()
                x = (start + (x - start).clamp(-strength, strength)).clamp(0, 1)
        return x

# %% [markdown]
# To catch it, ask somebody else.
# We train a second judge, of the same kind on the same pictures, from another start.

# %%
epochs = {"smoke": 1}.get(profile, 15 if data.stand_in else 3)
used = replace(data, train=train, test=test)
second = train_judge(used, "x2", epochs=epochs, shift=1, seed=1)
accuracy = second.card["metrics"]["accuracy"]
print(f"the second judge of real pictures: {accuracy['value']:.3f}, n = {accuracy['n']}")

truth = Truth()
truth.told = test.classes
models = {
    "truth": truth, "model": model, "stamps": Stamps(), "copier": Copier(),
    "filing clerk": FilingClerk(), "whisperer": Whisperer(),
}
scores, rows = {}, []
with torch.no_grad():
    for name, one in models.items():
        scores[name] = coherence(one)
        other = predict(second, drawn_for(one, slice(None)))
        scores[name]["second"] = (other == test.classes).float().mean().item()
        values = [scores[name][k] for k in ("value", "second", "chance", "effective_classes", "spread")]
        rows.append([name, *(f"{v:.2f}" for v in values)])
table(
    f"Coherence from x1 to x2, n = {len(test)}",
    ["generator", "coherence", "second judge", "chance", "classes", "spread"], rows,
)

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the code of this figure", "code_prompt_hide": "Hide the code of this figure"}
fig, axes = figure(5, 4.4, rows=len(models) + 1)
ten = EXAMPLES[:10]
picture(axes[0], seen(ten)["x1"], 10, "seen")
for ax, (name, one) in zip(axes[1:], models.items()):
    truth.told = test.classes[ten]
    picture(ax, drawn_for(one, ten), 10, name)
truth.told = test.classes
show(
    fig,
    alt=(
        "Ten test digits, and below them what each generator draws. Truth and filing"
        " clerk show other pictures of the same digit, the model slightly blurred ones,"
        " the stamps mean pictures, the copier sharp pictures of other digits, the"
        " whisperer pictures of wrong digits on a mottled ground."
    ),
    caption=(
        "One row for each generator. The whisperer's digits are all wrong by five, and"
        " one judge reads most of them as right."
    ),
)

# %% [markdown]
# The spread exposes the stamps.
# It does not expose the whisperer, which varies as real pictures do; the second judge does.
# Even that one is fooled more often than by luck: such patterns carry over from one network to another of its kind.
# Nothing in this table exposes the filing clerk, and the copier has only its class wrong.
#
# **Joint coherence** asks for draws from the prior whether all modalities agree.
# It needs no input, and that makes it easier still to cheat.

# %%
rows = []
draws = dict(n=1000 if profile != "smoke" else 100, chunk=1000, seed=seed)
for name, one in {**models, "one trick": OneTrick()}.items():
    if name == "whisperer":
        continue
    found = joint_coherence(one, test, judges, **draws)
    rows.append([name, f"{found['value']:.2f}", f"{found['chance']:.2f}", f"{found['effective_classes']:.1f}"])
table(f"Joint coherence, n = {draws['n']} draws", ["generator", "joint coherence", "chance", "classes"], rows)

# %% [markdown]
# The one trick always draws a one, in both modalities, and they always agree.
# Its chance level is as high as its score: it has shown nothing.
#
# ## Fréchet distances
#
# Coherence looks at each picture by itself.
# A **Fréchet distance** looks at all of them together {cite:p}`heusel2017`.
# A network turns pictures into features; real and generated features are taken as two Gaussians, with means $m$ and covariances $C$, and
#
# $$
# \begin{aligned}
# d^2&=\|m_1-m_2\|^2\\
# &\quad+\mathrm{tr}\big(C_1+C_2-2(C_1^{1/2}C_2C_1^{1/2})^{1/2}\big).
# \end{aligned}
# $$ (eq-frechet)
#
# It sees blur, noise, missing kinds and wrong proportions, since all of them move the moments.
# With the features of one Inception network it is called FID; ours are those of a small network that ships with the library, so we never call it so, and it compares with no published number.
#
# It does not see whether picture and input belong together.
# {cite:t}`daunhawer2021` therefore also compute it **class by class**: the pictures made from inputs of one digit, against the real pictures of that digit.
#
# Its unit is the square of the features' own, whatever that is, so a value means something only beside others of the same features.
# Two more things belong beside it.
# A distance of real pictures from other real ones is not zero: that is the **floor**.
# And it is biased upwards with few pictures, since both covariances are noisy.

# %%
axes_of = torch.linalg.svd(extract(pictures) - extract(pictures).mean(0), full_matrices=False)[2][:10]


def features(images):
    """Ten directions of our grey-features, in which training pictures vary most."""
    return extract(images) @ axes_of.T


real = features(pictures)
g = torch.Generator().manual_seed(seed)
sizes = [20, 40, 80, 160, 320] + ([640] if profile != "smoke" else [])
floor = []
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # some of these samples are too small on purpose
    for n in sizes:
        halves = [torch.randperm(len(real), generator=g)[: 2 * n].split(n) for _ in range(8)]
        floor.append([between(real[a], real[b]) for a, b in halves])

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the code of this figure", "code_prompt_hide": "Hide the code of this figure"}
fig, ax = figure(5, 3.2)
ax.plot(
    sizes, [sum(v) / len(v) for v in floor], color=PALETTE[0], linestyle="-",
    label="mean of eight splits",
)
for n, values in zip(sizes, floor):
    ax.plot(
        [n] * len(values), values, color=PALETTE[0], marker="o", linestyle="none",
        markersize=3.5, alpha=0.6,
    )
ax.set(
    xscale="log", yscale="log", xlabel="pictures on each side",
    ylabel="distance of real from real",
)
ax.set_xticks(sizes, sizes)
ax.minorticks_off()
show(
    fig,
    alt=(
        "The distance between two disjoint sets of real pictures against the size of"
        " the sets, both axes logarithmic. It falls steadily with the number of"
        " pictures, roughly in proportion to one over it, and would be zero with"
        " infinitely many."
    ),
    caption=(
        "Fréchet distance on ten directions of grey-features. Real against real: all of"
        " this is bias."
    ),
)

# %% [markdown]
# Compare distances at equal numbers of pictures only.
#
# The copier has this distance in its pocket: training pictures *are* real ones.
# And whoever knows the features can do without pictures.
# The next generator starts from noise, and changes pixels until each picture has the features of some real one.

# %%
def impostors(n, steps):
    """Noise with the features of real pictures."""
    from mmvae_lite.evaluation.frechet import _shipped

    g = torch.Generator().manual_seed(seed)
    network = _shipped("grey-features", torch.device("cpu"))
    wanted = extract(pictures[torch.randperm(len(pictures), generator=g)[:n]])
    x = torch.rand(n, 1, 28, 28, generator=g).requires_grad_()
    optimizer = torch.optim.Adam([x], lr=0.03)
    for _ in range(steps):
        gap = (network(x.clamp(0, 1)) - wanted).square().sum(1).mean()
        optimizer.zero_grad()
        gap.backward()
        optimizer.step()
    return x.detach().clamp(0, 1)


class Impostor(Generator):
    def __init__(self):
        self.pictures = impostors(len(test), {"smoke": 3}.get(profile, 80))

    def translate(self, batch, to, sample=False, generator=None):
        (x,) = batch.values()
        return self.pictures[torch.randint(len(self.pictures), (len(x),), generator=generator)]


models["impostor"] = Impostor()
distances, rows = {}, []
with warnings.catch_warnings(), torch.no_grad():
    warnings.simplefilter("ignore")  # a class has few pictures
    for name, one in models.items():
        made = drawn_for(one, slice(None))
        z = features(made)
        copies = copied(made, pictures, real_x2)["share"]
        by_class = class_conditional(real, classes, z, test.classes)["mean"]
        distances[name] = between(real, z), by_class, copies
        rows.append([name, *(f"{v:.2f}" for v in distances[name])])
table(
    f"Fréchet distance on ten directions of grey-features, n = {len(test)} against {len(real)}",
    ["generator", "all", "class by class", "share of copies"], rows,
)

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the code of this figure", "code_prompt_hide": "Hide the code of this figure"}
fig, (top, bottom) = figure(5, 1.7, rows=2)
picture(top, pictures[:: len(pictures) // 10][:10], 10, "real")
picture(bottom, models["impostor"].pictures[:10], 10, "impostor")
show(
    fig,
    alt=(
        "Above ten real digits. Below ten pictures of speckled noise, in which no digit"
        " can be made out."
    ),
    caption="Both rows have nearly the same features. The lower one is noise.",
)

# %% [markdown]
# Read the columns against each other.
#
# - *All* puts the copier beside the truth, and the noise of the impostor ahead of the model.
# - *Class by class* catches the copier, whose pictures belong to the wrong inputs.
# - The filing clerk passes both. Only a search among the training pictures finds it: the ratio of the distances to the nearest and to the second nearest, which is near zero for a copy and near one for anything new.
#
# The last column is no proof either.
# A copy that is shifted by one pixel is no copy in pixels.

# %% [markdown]
# ## Likelihoods
#
# A likelihood needs no judge and no features.
# {eq}`eq-iwae` estimates $\log p(x)$ of held-out items from below, and a copier that gives new items no density is punished without mercy.
# It has its own blind spots.
#
# **A little honesty goes a long way** {cite:p}`theis2016`.
# Take a good density $p$ and any noise $r$, and draw from the good one only once in a hundred times:
#
# $$
# \begin{gathered}
# p_{\text{bad}}(x)=\tfrac1{100}\,p(x)+\tfrac{99}{100}\,r(x),\\
# \log p_{\text{bad}}(x)\ge\log p(x)-\log100 .
# \end{gathered}
# $$ (eq-mostly-noise)
#
# Ninety-nine of a hundred pictures are rubbish, and the price is $\log100\approx4.6$ nats.
# Against what scale?

# %%
some = seen(torch.arange(0, len(test), 4))
with torch.no_grad():
    x1 = {"x1": some["x1"]}
    g = torch.Generator().manual_seed(seed)
    found = log_likelihood(model, x1, samples=200, generator=g).summary()
    peak = ceiling(model.likelihoods["x1"], some["x1"]).mean()
price = math.log(100)
print(f"log p(x1) {found['mean']:.1f} +- {found['se']:.1f} nats, n = {found['n']}")
print(f"mostly noise: at least {found['mean'] - price:.1f}")
print(f"items differ by a standard deviation of {found['se'] * math.sqrt(found['n']):.0f} nats")

# %% [markdown]
# The price is lost in the differences between items.
#
# **The scale of the decoder decides.**
# Our model says $p(x\mid z)=\mathrm{Laplace}(x;\mu(z),b)$ with $b=0.1$ for each of $784$ pixels.
# Pictures are shown as $\mu(z)$, in which $b$ plays no part.
# But the density does: no item can have more than $-784\log2b$ nats, and near that ceiling the number says little but $b$.
# The next cell changes $b$, and nothing that anybody could see.

# %%
rows = []
with torch.no_grad():
    for b in (0.03, 0.1, 0.2, 0.5, 0.75):
        model.likelihoods["x1"] = LaplaceLikelihood(b)
        g = torch.Generator().manual_seed(seed)
        value = log_likelihood(model, x1, samples=50, generator=g).summary()["mean"]
        top = ceiling(model.likelihoods["x1"], some["x1"]).mean()
        rows.append([f"{b:g}", f"{value:.0f}", f"{top:.0f}"])
model.likelihoods["x1"] = LaplaceLikelihood(0.1)
table(f"One model, the same pictures, n = {found['n']}", ["scale b", "log p(x1), nats", "ceiling"], rows)

# %% [markdown]
# So likelihoods of models with different likelihood families, or different scales, must not stand in one column.
# A published case: table 3 of {cite:t}`shi2019` has log-likelihoods of MNIST up to {paper}`mmvae:table-3:mnist/mmvae/both`, above the ceiling that the scale of its other tables allows.
#
# Three more traps in the same table.
# Its columns with a bar, such as $\log p(x_1\mid x_2)$, are importance-sampled estimates of the *marginal* $\log p(x_1)$; what differs is the proposal, and so they measure proposals.
# The joint column weighs one modality by almost four, and is no log-likelihood at all.
# And an importance sample that misses the posterior gives a value that is too low, with a small error bar; look at the effective sample size.
#
# ## Probes
#
# A **linear probe** is a linear classifier, trained on latents and their classes, and tried on held-out ones.
# Its accuracy says how much of the class a *linear* layer can read.

# %%
def rings(n, g):
    """Two dimensions in which the radius, and nothing else, tells the digit."""
    digit = torch.randint(10, (n,), generator=g)
    angle = 2 * math.pi * torch.rand(n, generator=g)
    radius = 1 + digit + 0.1 * torch.randn(n, generator=g)
    return torch.stack([radius * angle.cos(), radius * angle.sin()], 1), digit


def probe(z, y, other, asked):
    epochs = {"smoke": 3}.get(profile, 60)
    return probe_means(z, y, other, asked, max_epochs=epochs, seed=seed)


g = torch.Generator().manual_seed(seed)
known, asked = pictures, seen(slice(None))["x1"]
y, y_test = train.classes, test.classes
weights = torch.randn(784, 300, generator=g) / 10
mixing = torch.randn(784, 16, generator=g) / 28
reads = {
    "the model's latent": lambda x: model.posterior({"x1": x})["shared"].loc,
    "the pixels themselves": lambda x: x.flatten(1),
    "random features of the pixels": lambda x: (x.flatten(1) @ weights).relu(),
    "sixteen random mixtures of pixels": lambda x: x.flatten(1) @ mixing,
}
rows = []
with torch.no_grad():
    for name, read in reads.items():
        z, z_test = read(known), read(asked)
        found = probe(z, y, z_test, y_test)["value"]
        rows.append([name, str(z.shape[1]), f"{found:.2f}"])
    latent = reads["the model's latent"](asked)
ring = probe(*rings(len(y), g), *rings(len(y_test), g))["value"]
rows.append(["rings, whose radius is the digit", "2", f"{ring:.2f}"])
columns = ["what is probed", "dimensions", "accuracy"]
table(f"Linear probes, n = {len(y_test)}", columns, rows)

# %% [markdown]
# Features that nobody trained score high, because a linear function of the pixels can nearly tell the digits apart.
# Rings hold the digit completely, and a linear probe sees next to nothing.
# So compare a probe with one on random features of the same size, and never read it as information.
#
# A probe is also easy to fool oneself with.
# The authors' program of DMVAE-D stops its probe by its accuracy on the *test* set, and reports that accuracy.
# Here is what this buys where there is nothing to find: latents of pure noise, many probes, and the best of them.

# %%
g = torch.Generator().manual_seed(seed)
n, trials = 200, 100
labels = torch.randint(10, (2 * n,), generator=g)
hits = []
for _ in range(trials):
    weights = torch.randn(16, 10, generator=g)
    z = torch.randn(2 * n, 16, generator=g)
    hits.append(((z @ weights).argmax(1) == labels).float().view(2, n).mean(1))
hits = torch.stack(hits)  # [trials, (chosen on, untouched)]
best = hits[:, 0].argmax()
print(f"{trials} probes of noise, n = {n}: mean {hits[:, 0].mean():.3f}")
print(f"the best, on the items that chose it: {hits[best, 0]:.3f}")
print(f"the best, on untouched items:         {hits[best, 1]:.3f}")

# %% [markdown]
# ## Purity
#
# {cite:t}`hsu2018` cluster latents by k-means, and ask how pure the clusters are: the share of items that belong to the largest class of their cluster, $\frac1n\sum_c\max_kn_{ck}$, where $n_{ck}$ items of cluster $c$ have class $k$.
# It asks for more than a probe: classes have to be blobs, far apart, in the latent's own units.
#
# That is its blind spot.
# The units of a latent mean nothing to the model: stretch one dimension in prior and posterior, shrink the decoder's weights for it alike, and every picture and every KL stays as it was.

# %%
z = latent
with torch.no_grad():
    posterior = model.posterior({"x1": asked})["shared"]
    kls = per_dimension_kl(posterior, model.prior(len(z))).mean(0)
cheapest = int(kls.argmin())
stretched = z.clone()
stretched[:, cheapest] *= 100 / z[:, cheapest].std()
rows = []
for name, x, k in (
    ("the model's latent", z, 10),
    ("its cheapest dimension stretched", stretched, 10),
    ("fifty clusters", z, 50),
    ("a hundred and fifty clusters", z, 150),
):
    found = cluster_purity(x, y_test, clusters=k, restarts=3, seed=seed)
    rows.append([name, f"{found['value']:.2f}", f"{found['random']:.2f}"])
table(f"Purity, n = {len(y_test)}", ["clusters of", "purity", "of random latents"], rows)

# %% [markdown]
# Stretching the dimension with the least KL ruins the purity; a linear probe undoes it with one weight.
# More clusters raise it for nothing: one for each item gives one.
# The last column is the control to print beside it.
#
# Two related pictures have a blind spot each.
# The inertia curve, in which one looks for an elbow, depends on the units as well.
# And the **KL of each dimension**, drawn as bars under a traversal, says what a dimension costs and not what it is used for: an encoder may write into a dimension that its decoder never reads.
#
# ## Correlation with a caption
#
# For birds and sentences there is no judge.
# {cite:t}`shi2019` fit a canonical correlation analysis to real pairs: directions $a_i$ of image features and $b_i$ of sentence vectors that correlate most.
# The score of a pair is the cosine of the two projections.
#
# With many directions and few pairs it finds correlations in anything.

# %%
g = torch.Generator().manual_seed(seed)
rows = []
for n in (100, 300, 3000):  # pairs
    first, second_view = torch.randn(2, n, 40, generator=g)
    fresh = torch.randn(2, 2000, 40, generator=g)
    cca = fit_cca(first, second_view, k=20)
    inside = cca.cosines(first, second_view).mean().item()
    outside = cca.cosines(*fresh).mean().item()
    rows.append([str(n), f"{inside:.2f}", f"{outside:.2f}"])
table("Two views of pure noise, 40 features each, 20 directions", ["pairs", "score on the pairs of the fit", "score on fresh pairs"], rows)

# %% [markdown]
# Held-out pairs cure that.
# They do not cure the next one.
# Suppose that pictures and sentences share ten kinds, and that each also has much of its own.
# A generator that draws the *average* picture of a kind leaves out all that the sentence cannot know, and so it correlates better than the real picture did.

# %%
g = torch.Generator().manual_seed(seed)
kinds = 2 * torch.randn(10, 8, generator=g)


def views(n):
    kind = torch.randint(10, (n,), generator=g)
    return kind, kinds[kind] + 2 * torch.randn(n, 8, generator=g), kinds[kind] + 2 * torch.randn(n, 8, generator=g)


_, first, second_view = views(4000)
cca = fit_cca(first, second_view, k=8)
kind, first, second_view = views(2000)
real_score = cca.cosines(first, second_view).mean().item()
stamped = cca.cosines(first, kinds[kind]).mean().item()
print(f"real pairs {real_score:.2f}, stamps instead of real ones {stamped:.2f}, n = {len(kind)}")
assert stamped > real_score

# %% [markdown]
# The score of real pairs is therefore no ceiling.
# In the paper's table 4 the best generator has {paper}`mmvae:table-4:mmvae/joint` and real pairs {paper}`mmvae:table-4:truth/joint`: close, and that alone does not say that its birds are nearly real.
# Shuffled pairs belong beside it too: a generator that always writes the same sentence scores no less when its pairs are shuffled.

# %% [markdown]
# ## When measures disagree
#
# Here are the two measures that most tables print, on the generators of this page.

# %% tags=["hide-input"] mystnb={"code_prompt_show": "Show the code of this figure", "code_prompt_hide": "Hide the code of this figure"}
if "impostor" not in scores:
    with torch.no_grad():
        scores["impostor"] = coherence(models["impostor"])
fig, ax = figure(5, 4)
for i, name in enumerate(models):
    x, y = distances[name][0], scores[name]["value"]
    ax.plot(
        [x], [y], marker="osD^vPX"[i % 7], color=PALETTE[i % 6], linestyle="none",
        markersize=8, label=name,
    )
ax.axhline(scores["truth"]["classifier"], color="#808080", linestyle=":", linewidth=1.2)
ax.set(
    xlabel="Fréchet distance, lower is better", ylabel="coherence", xscale="log",
    ylim=(-0.02, 1.05),
)
legend(fig, ax, columns=3)
show(
    fig,
    alt=(
        "Coherence against Fréchet distance for seven generators. The truth and the"
        " filing clerk share the best corner. The stamps and the whisperer are as"
        " coherent with far larger distances. The copier and the impostor have small"
        " distances and a coherence near one in ten. The honest model lies between"
        " them, worse than several cheats in either measure."
    ),
    caption=(
        "Seven generators, two measures. The dotted line is the judge's own accuracy."
        " The honest model is beaten by a cheat on every axis."
    ),
)

# %% [markdown]
# On each axis alone some cheat beats the model.
# On both together only the filing clerk does, and a third measure finds it.
# That is all that can be asked: enough measures with different blind spots, each with its control beside it.
#
# | measure | cheated by | print beside it |
# |---|---|---|
# | coherence | stamps, whisperer, filing clerk | judge's accuracy, chance, $n$, spread, a second judge |
# | joint coherence | one trick | chance, effective classes |
# | Fréchet distance | copier, impostor | floor at the same $n$, name of the features, share of copies |
# | Fréchet distance class by class | filing clerk | the same |
# | likelihood | mostly noise, a narrow scale | family, scale, weights, draws and effective sample size |
# | linear probe | raw pixels; blind to rings | probe of random features, the split that chose it |
# | purity | many clusters; ruined by units | random latents, number of clusters |
# | CCA | few pairs, average pictures | fresh pairs, shuffled pairs, real pairs |
#
# ## Try it
#
# The model of this page, one latent dimension at a time.
# The bars are the KL of each dimension: what it costs, not what it does.

# %%
from mmvae_lite.explore import LatentExplorer
from mmvae_lite.explore.export import page_decoders

start = latent[int((y_test == 3).nonzero()[0, 0])]
LatentExplorer(
    page_decoders(model), start, kl=kls.tolist(), name="measuring",
    alt="Two pictures of one digit, decoded from the same latent.",
)

# %% [markdown]
# 1. Move the dimension with the longest bar through its range. Does the digit change in both pictures at once?
# 2. Compare the longest bar with the shortest that is shown. Does the dearer dimension do more to the pictures?
# 3. Find a place between two digits. What would a judge read, and what would you?
#
# ## Published numbers, read with this in mind
#
# - Joint coherence of MMVAE on MNIST with SVHN is {paper}`mmvae:table-2:joint/mmvae` in {cite:t}`shi2019`, and {paper}`dmvae-d:table-3:mmvae/ex-post/joint` per cent with draws from a fitted density in {cite:t}`daunhawer2021`: the same model, another way of drawing.
# - In table 2 of {cite:t}`daunhawer2021` MVAE has the *better* distance from MNIST to SVHN, {paper}`dmvae-d:table-2:mvae/mnist-svhn` against {paper}`dmvae-d:table-2:dmvae/mnist-svhn`, and the worse coherence, {paper}`dmvae-d:table-1:mvae/mnist-svhn` against {paper}`dmvae-d:table-1:dmvae/mnist-svhn` per cent: pictures of the wrong digit can have the right features.
# - Their probes and those of {cite:t}`shi2019` are trained differently, one on means and the other on draws, and share a table.
# - Their FID reads pictures with the channels in another order than most programs, so it compares with no other table.
# - Purity of speech without the contrast is {paper}`pvae:table-1:tidigits/pvae-no-contrast-shared/speech` per cent in {cite:t}`hsu2018`; start, restarts and split of the k-means are not stated.
#
# Ours stand in the [ledger](../book/ledger.md), with their $n$, their judges and what they were trained on.

# %% [markdown]
# ## Pitfalls, some of them in print
#
# **A judge from another set.**
# A classifier of MNIST has an opinion about everything.
# The library refuses a judge for data that it was not trained on.
#
# **Means or draws.**
# Coherence of decoded posterior *means* is higher than that of draws, and has less spread.
# Papers do both; say which.
#
# **The mean over classes.**
# If a class has no items, some programs count it as zero and divide by all classes.
# The package MultiVae does; `average="multivae"` repeats it.
#
# **Test items twice.**
# A test set of MNIST with SVHN repeats each picture twenty times.
# Then $n$ is not the number of pairs, and the error bar is too small.
#
# **Seeds.**
# The standard error over items says nothing about another training.
# Papers of this book report five runs or one.
#
# **Small differences.**
# With a thousand items, two coherences that differ by one hundredth cannot be told apart; an exercise below says how many items it takes.

# %% [markdown]
# ## When to use which
#
# | you ask | use | with |
# |---|---|---|
# | does a translation keep the content? | conditional coherence | a judge with a stated accuracy, and chance |
# | do modalities belong together when drawn? | joint coherence | effective classes |
# | does it look like the data, in all its variety? | Fréchet distance | its floor, and a search for copies |
# | both at once? | Fréchet distance class by class | enough pictures of each class |
# | is this density better than that one? | likelihood | the same family, scale and weights |
# | is the content readable from the latent? | linear probe | random features |
# | does the latent fall into kinds? | purity | random latents |
# | is there no judge at all? | CCA on fresh pairs | shuffled and real pairs |

# %% [markdown]
# ## Exercises
#
# Each exercise has a stub to fill in, a check and a hidden solution.
# Ask the check as often as you like; it says what is not right yet.

# %% [markdown]
# ```{exercise} What luck would give
# :label: ex-measuring-chance
#
# `predicted` and `truth` are classes, `[n]` each.
# Return the coherence that the same outputs would have on average if they were dealt out to the inputs at random.
# ```
#
# ```{admonition} Hint
# :class: dropdown tip
# It is {eq}`eq-coherence-chance`; `torch.bincount` counts.
# ```

# %% tags=["exercise"]
def chance_level(predicted, truth):
    raise NotImplementedError

# %%
check("measuring-chance", chance_level)

# %% tags=["solution", "hide-cell"] mystnb={"code_prompt_show": "Show the solution", "code_prompt_hide": "Hide the solution"}
def chance_level(predicted, truth):
    k = int(max(predicted.max(), truth.max())) + 1
    made = torch.bincount(predicted, minlength=k) / len(predicted)
    asked = torch.bincount(truth, minlength=k) / len(truth)
    return (made.double() * asked.double()).sum()


check("measuring-chance", chance_level).require()

# %% [markdown]
# ```{exercise} Correct for the judge
# :label: ex-measuring-judge
#
# A judge with accuracy `accuracy` among `classes` classes reports the coherence `observed`.
# Assume that its errors fall on the other classes alike.
# Return the share of pictures that are truly right.
# What does it mean if the result is above one?
# ```
#
# ```{admonition} Hint
# :class: dropdown tip
# Solve {eq}`eq-coherence-judge` for $t$.
# ```

# %% tags=["exercise"]
def true_share(observed, accuracy, classes):
    raise NotImplementedError

# %%
check("measuring-judge", true_share)

# %% tags=["solution", "hide-cell"] mystnb={"code_prompt_show": "Show the solution", "code_prompt_hide": "Hide the solution"}
def true_share(observed, accuracy, classes):
    by_mistake = (1 - accuracy) / (classes - 1)
    return (observed - by_mistake) / (accuracy - by_mistake)


# Above one: the pictures suit the judge better than real ones do, as
# those of the stamps and of the whisperer.
check("measuring-judge", true_share).require()

# %% [markdown]
# ```{exercise} The distance of two Gaussians
# :label: ex-measuring-frechet
#
# `a` and `b` are means, `u` and `v` the variances of two Gaussians with *diagonal* covariances, `[features]` each.
# Simplify {eq}`eq-frechet` and return the distance $d^2$.
# ```
#
# ```{admonition} Hint
# :class: dropdown tip
# Diagonal matrices commute, so $(C_1^{1/2}C_2C_1^{1/2})^{1/2}$ has the entries $\sqrt{u_iv_i}$.
# ```

# %% tags=["exercise"]
def diagonal_distance(a, u, b, v):
    raise NotImplementedError

# %%
check("measuring-frechet", diagonal_distance)

# %% tags=["solution", "hide-cell"] mystnb={"code_prompt_show": "Show the solution", "code_prompt_hide": "Hide the solution"}
def diagonal_distance(a, u, b, v):
    return ((a - b) ** 2).sum() + ((u.sqrt() - v.sqrt()) ** 2).sum()


check("measuring-frechet", diagonal_distance).require()

# %% [markdown]
# ```{exercise} How much noise for a nat?
# :label: ex-measuring-noise-share
#
# A model may lose at most `nats` of its log-likelihood.
# Return the largest share of noise that {eq}`eq-mostly-noise`, with another weight, lets it draw.
# How large is it for a tenth of a nat?
# ```
#
# ```{admonition} Hint
# :class: dropdown tip
# With the weight $\epsilon$ of the good part, $\log p_{\text{bad}}\ge\log p+\log\epsilon$.
# ```

# %% tags=["exercise"]
def share_of_noise(nats):
    raise NotImplementedError

# %%
check("measuring-noise-share", share_of_noise)

# %% tags=["solution", "hide-cell"] mystnb={"code_prompt_show": "Show the solution", "code_prompt_hide": "Hide the solution"}
def share_of_noise(nats):
    return 1 - math.exp(-nats)


# A tenth of a nat: almost one picture in ten may be noise.
check("measuring-noise-share", share_of_noise).require()

# %% [markdown]
# ```{exercise} How many items?
# :label: ex-measuring-items
#
# Two generators have true coherences `first` and `second`; each is measured on $n$ items of its own.
# Return the $n$, as a real number, at which the true difference is `c` standard errors of the measured difference.
# How many items does it take to tell $0.85$ from $0.86$ by two of them?
# ```
#
# ```{admonition} Hint
# :class: dropdown tip
# The variance of a share is $p(1-p)/n$, and variances of independent measurements add.
# ```

# %% tags=["exercise"]
def items_needed(first, second, c):
    raise NotImplementedError

# %%
check("measuring-items", items_needed)

# %% tags=["solution", "hide-cell"] mystnb={"code_prompt_show": "Show the solution", "code_prompt_hide": "Hide the solution"}
def items_needed(first, second, c):
    variance = first * (1 - first) + second * (1 - second)
    return c**2 * variance / (first - second) ** 2


print(f"{items_needed(0.85, 0.86, 2):.0f} items for each")
check("measuring-items", items_needed).require()

# %% [markdown]
# ## Further reading
#
# {cite:t}`theis2016` is the classic on measures that disagree; {eq}`eq-mostly-noise` is theirs.
# {cite:t}`heusel2017` introduce the Fréchet distance on Inception features.
# {cite:t}`shi2019` introduce coherence and the correlation with captions, {cite:t}`daunhawer2021` leave-one-out coherence and distances within a class, {cite:t}`hsu2018` purity of shared and private latents.
# {cite:t}`burda2016` give the likelihood estimate {eq}`eq-iwae`.
