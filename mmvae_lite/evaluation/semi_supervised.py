"""How well a model that saw few labels names its images, beside classifiers that saw the same labels.

A multimodal model classifies by translation: image -> shared latent -> label decoder -> the largest probability (Wu and
Goodman 2018, section 5.1; Lee and Pavlovic 2020, section 4.1).  The comparison classifiers of their tables are not described
there beyond their names.  What stands here are plain versions of them, with settings that were fixed before any test item
was seen: a neural network and a logistic regression that see the labelled items alone, and a restricted Boltzmann machine,
an autoencoder and a VAE that learn features from all images, on which a logistic regression sees the labelled items.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from mmvae_lite.checks import check_name, check_positive
from mmvae_lite.data.parts import Part, as_float
from mmvae_lite.evaluation._common import at_rest, generator_for, in_chunks
from mmvae_lite.evaluation.coherence import agreement


def label_accuracy(
    model: Any,
    data: Part,
    given: Sequence[str] = ("image",),
    label: str = "label",
    *,
    sample: bool = True,
    chunk: int = 1000,
    seed: int = 0,
    **options: Any,
) -> dict[str, float]:
    """The share of items whose label the model finds by translation: `value`, `se`, `n`, and `chance` as in `agreement`.

    The truth is the argmax of `label` [items, classes].  With `sample` the latents are drawn, False takes means.
    options: others of the model's `translate`; Lee and Pavlovic (2020) name an image by a relaxed draw, `hard=False`.
    Average the values of several training seeds outside, with `over_seeds`.
    Raises KeyError for an unknown modality.
    """
    found, truth = _translated(model, data, given, label, chunk, seed, sample=sample, **options)
    return agreement(found.argmax(-1), truth.argmax(-1), classes=truth.shape[-1])


def attribute_scores(
    model: Any,
    data: Part,
    given: Sequence[str] = ("image",),
    attributes: str = "attributes",
    *,
    sample: bool = True,
    chunk: int = 1000,
    seed: int = 0,
    **options: Any,
) -> dict[str, dict[str, float]]:
    """`accuracy` and `f1` of attributes [items, attributes] that the model finds by translation, see `binary_scores`.

    A probability above one half counts as 1.  sample, options, and what is raised: as in `label_accuracy`.
    """
    found, truth = _translated(model, data, given, attributes, chunk, seed, sample=sample, **options)
    return binary_scores(found > 0.5, truth > 0.5)


def _translated(model: Any, data: Part, given: Sequence[str], to: str, chunk: int, seed: int, **options: Any) -> tuple[Tensor, Tensor]:
    check_name("modality", to, data.batch)
    if isinstance(given, str):
        given = (given,)
    made, wanted = [], []
    with at_rest(model) as like:
        generator = generator_for(seed, f"{'+'.join(given)}->{to}", like)
        for _, batch in in_chunks(data, [*given, to], chunk, like):
            wanted.append(batch.pop(to))
            made.append(model.translate(batch, to, generator=generator, **options))
    return torch.cat(made), torch.cat(wanted)


def binary_scores(found: Tensor, truth: Tensor) -> dict[str, dict[str, float]]:
    """`accuracy` and `f1`, each with `value` and `n`, means over attributes of what is found and true, bool [items, attributes].

    F1 of an attribute is 2 TP / (2 TP + FP + FN), and 0 where none is found and none is true.  `accuracy` has a `base`, what
    always saying the more frequent answer would score; `f1` has one too, what always saying yes would score.
    Raises ValueError for shapes that differ or are not [items, attributes].
    """
    if found.shape != truth.shape or found.ndim != 2 or not len(found):
        raise ValueError(f"binary_scores: found shapes {list(found.shape)} and {list(truth.shape)}, wanted the same, [items, attributes]")
    found, truth = found.bool(), truth.bool()
    share = truth.double().mean(0)
    return {
        "accuracy": {"value": float((found == truth).double().mean()), "n": len(truth), "base": float(torch.maximum(share, 1 - share).mean())},
        "f1": {"value": float(_f1(found, truth).mean()), "n": len(truth), "base": float(_f1(torch.ones_like(truth), truth).mean())},
    }


def _f1(found: Tensor, truth: Tensor) -> Float[Tensor, "attributes"]:
    hits = (found & truth).double().sum(0)
    return 2 * hits / (found.double().sum(0) + truth.double().sum(0)).clamp_min(1)


def over_seeds(results: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """`value`, the mean over runs, `sd` among them (NaN-free: 0 for one run), `seeds`, how many, and `n`, the items of one."""
    if not results:
        raise ValueError("over_seeds: found no result, wanted at least one")
    values = [float(r["value"]) for r in results]
    mean = math.fsum(values) / len(values)
    sd = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1)) if len(values) > 1 else 0.0
    return {"value": mean, "sd": sd, "seeds": len(values), "n": results[0]["n"]}


# ---- the comparison classifiers ------------------------------------------------------------------------------------


def fit_predict(
    name: str,
    images: Tensor,
    labels: Int[Tensor, "labelled"],
    unlabelled: Tensor,
    test_images: Tensor,
    seed: int = 0,
    **settings: Any,
) -> Int[Tensor, "test"]:
    """Train the comparison classifier `name` of `BASELINES` and name the test images: classes [test].

    images [labelled, *event] with `labels`, `unlabelled` [others, *event] and `test_images` [test, *event] are uint8 or in
    [0, 1], on one device.  All images, labelled or not, teach the features of `rbm`, `ae` and `vae`.
    settings: keyword arguments of that classifier.  Same seed, same bits.
    Raises KeyError for an unknown name, ValueError for numbers of items that do not fit.
    """
    check_name("classifier", name, BASELINES)
    if len(images) != len(labels) or not len(labels):
        raise ValueError(f"fit_predict: found {len(images)} images and {len(labels)} labels, wanted the same number, at least 1")
    device = images.device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        return BASELINES[name](_flat(images), labels, _flat(unlabelled), _flat(test_images), **settings)


def _flat(x: Tensor) -> Float[Tensor, "items pixels"]:
    return as_float(x).flatten(1)


def _logreg(x: Tensor, y: Tensor, others: Tensor, test: Tensor, **settings: Any) -> Tensor:
    return logistic_regression(x, y, **settings)(test).argmax(1)


def _nn(x: Tensor, y: Tensor, others: Tensor, test: Tensor, hidden: int = 512, steps: int = 2000, batch_size: int = 100, lr: float = 1e-3) -> Tensor:
    """Two hidden layers, as the image encoder of Wu and Goodman (2018) has, for a fixed number of steps."""
    net = nn.Sequential(nn.Linear(x.shape[1], hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, int(y.max()) + 1)).to(x)
    _descend(net.parameters(), lambda rows: F.cross_entropy(net(x[rows]), y[rows]), len(x), steps, batch_size, lr)
    with torch.no_grad():
        return net(test).argmax(1)


def _rbm(x: Tensor, y: Tensor, others: Tensor, test: Tensor, hidden: int = 256, c: float = 100.0, **settings: Any) -> Tensor:
    machine = RBM(x.shape[1], hidden).to(x)
    machine.fit(torch.cat([x, others]), **settings)
    with torch.no_grad():
        return logistic_regression(machine.hidden(x), y, c)(machine.hidden(test)).argmax(1)


def _ae(
    x: Tensor, y: Tensor, others: Tensor, test: Tensor, latent: int = 64, hidden: int = 512, steps: int = 4000, batch_size: int = 100,
    lr: float = 1e-3, c: float = 1.0, noisy: bool = False,
) -> Tensor:  # fmt: skip
    """An autoencoder with a Bernoulli likelihood, of the sizes of Wu and Goodman (2018); with `noisy` a VAE."""
    everything, pixels = torch.cat([x, others]), x.shape[1]
    encoder = nn.Sequential(nn.Linear(pixels, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, latent * (2 if noisy else 1))).to(x)
    decoder = nn.Sequential(nn.Linear(latent, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, pixels)).to(x)

    def loss(rows: Tensor) -> Tensor:
        batch = everything[rows]
        z, divergence = encoder(batch), 0.0
        if noisy:
            mean, logvar = z.chunk(2, 1)
            z = mean + (0.5 * logvar).exp() * torch.randn_like(mean)
            divergence = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).sum(1).mean()
        return F.binary_cross_entropy_with_logits(decoder(z), batch, reduction="none").sum(1).mean() + divergence

    _descend([*encoder.parameters(), *decoder.parameters()], loss, len(everything), steps, batch_size, lr)
    with torch.no_grad():
        features, test_features = (encoder(part)[:, :latent] for part in (x, test))
        return logistic_regression(features, y, c)(test_features).argmax(1)


def _vae(x: Tensor, y: Tensor, others: Tensor, test: Tensor, **settings: Any) -> Tensor:
    return _ae(x, y, others, test, noisy=True, **settings)


def _descend(parameters: Any, loss: Callable[[Tensor], Tensor], items: int, steps: int, batch_size: int, lr: float) -> None:
    check_positive("steps", steps)
    check_positive("batch_size", batch_size)
    optimizer = torch.optim.Adam(parameters, lr=lr)
    with torch.enable_grad():
        for _ in range(steps):
            optimizer.zero_grad()
            loss(torch.randint(items, (min(batch_size, items),))).backward()
            optimizer.step()


BASELINES: dict[str, Callable[..., Tensor]] = {"nn": _nn, "logreg": _logreg, "rbm": _rbm, "ae": _ae, "vae": _vae}


def logistic_regression(x: Float[Tensor, "items features"], y: Int[Tensor, "items"], c: float = 1.0, max_iter: int = 200) -> nn.Linear:
    """Multinomial logistic regression: the minimum of c sum_i -log p(y_i | x_i) + |weights|^2 / 2, by L-BFGS.

    The intercepts are not penalised.  In double precision; returns a layer in that of x.
    """
    classes = int(y.max()) + 1
    inputs = x.detach().double()
    weight = torch.zeros(classes, x.shape[1], dtype=torch.float64, device=x.device, requires_grad=True)
    bias = torch.zeros(classes, dtype=torch.float64, device=x.device, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=max_iter, tolerance_grad=1e-7, history_size=20, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        total = F.cross_entropy(F.linear(inputs, weight, bias), y, reduction="sum") + weight.square().sum() / (2 * c)
        mean = total / len(y)  # so that the tolerances mean the same for few and many items
        mean.backward()
        return mean

    with torch.enable_grad():
        optimizer.step(closure)
    layer = nn.Linear(x.shape[1], classes, device=x.device, dtype=x.dtype).requires_grad_(False)
    layer.weight.copy_(weight)
    layer.bias.copy_(bias)
    return layer


class RBM(nn.Module):
    """A restricted Boltzmann machine of binary units: p(v, h) proportional to exp(v W h + a v + b h).

    visible, hidden: numbers of units.  Grey levels stand for the probabilities of visible units.
    Source: Hinton (2002), contrastive divergence; the free energy sums the hidden units out.
    """

    def __init__(self, visible: int, hidden: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(0.01 * torch.randn(visible, hidden), requires_grad=False)
        self.visible_bias = nn.Parameter(torch.zeros(visible), requires_grad=False)
        self.hidden_bias = nn.Parameter(torch.zeros(hidden), requires_grad=False)

    def hidden(self, v: Float[Tensor, "items visible"]) -> Float[Tensor, "items hidden"]:
        """p(h = 1 | v)."""
        return (v @ self.weight + self.hidden_bias).sigmoid()

    def visible(self, h: Float[Tensor, "items hidden"]) -> Float[Tensor, "items visible"]:
        """p(v = 1 | h)."""
        return (h @ self.weight.T + self.visible_bias).sigmoid()

    def free_energy(self, v: Float[Tensor, "items visible"]) -> Float[Tensor, "items"]:
        """-log sum_h exp(v W h + a v + b h), so that p(v) is proportional to exp of its negative."""
        return -(v @ self.visible_bias) - F.softplus(v @ self.weight + self.hidden_bias).sum(1)

    def statistics(self, v: Float[Tensor, "items visible"]) -> dict[str, Tensor]:
        """The mean derivative of -free_energy by each parameter: E[v h'], E[v] and E[h]."""
        h = self.hidden(v)
        return {"weight": v.T @ h / len(v), "visible_bias": v.mean(0), "hidden_bias": h.mean(0)}

    def gibbs(self, v: Float[Tensor, "items visible"], steps: int, generator: torch.Generator | None = None) -> Float[Tensor, "items visible"]:
        """Binary visible units after so many rounds of drawing h given v, then v given h."""
        for _ in range(steps):
            v = self.visible(self.hidden(v).bernoulli(generator=generator)).bernoulli(generator=generator)
        return v

    def contrast(
        self, v: Float[Tensor, "items visible"], fantasy: Float[Tensor, "chains visible"], steps: int = 1, generator: torch.Generator | None = None
    ) -> tuple[dict[str, Tensor], Tensor]:
        """An estimate of the gradient of the mean log p(v), with the model's statistics taken after `steps` rounds from `fantasy`.

        Contrastive divergence starts from the data, its persistent form from where the last step ended.  Returns the
        gradient by parameter and the new fantasy.
        """
        fantasy = self.gibbs(fantasy, steps, generator)
        data, model = self.statistics(v), self.statistics(fantasy)
        return {name: data[name] - model[name] for name in data}, fantasy

    def fit(
        self, x: Float[Tensor, "items visible"], steps: int = 6000, batch_size: int = 100, lr: float = 0.05, rounds: int = 1,
        persistent: bool = True, generator: torch.Generator | None = None,
    ) -> None:  # fmt: skip
        """Stochastic ascent of the mean log-likelihood, with a rate that falls linearly to 0."""
        check_positive("steps", steps)
        check_positive("batch_size", batch_size)
        mean = x.mean(0).clamp(0.01, 0.99)
        self.visible_bias.copy_((mean / (1 - mean)).log())  # so that the first steps need not learn the mean
        fantasy = None
        for step in range(steps):
            v = x[torch.randint(len(x), (min(batch_size, len(x)),), generator=generator)]
            start = fantasy if persistent and fantasy is not None else v
            gradient, fantasy = self.contrast(v, start, rounds, generator)
            for name, g in gradient.items():
                getattr(self, name).add_(lr * (1 - step / steps) * g)
