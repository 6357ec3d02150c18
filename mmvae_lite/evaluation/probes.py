"""What a linear classifier reads from a latent.

The two papers ask differently, and their numbers are not comparable: MMVAE's is trained and tested on draws from the
posterior of one modality, DMVAE-D's on the means of the shared latent given all that is there.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from mmvae_lite.checks import check_positive
from mmvae_lite.evaluation._common import Posterior, latents, posteriors, rows_of

__all__ = ["posteriors", "probe_means", "probe_samples"]


def probe_samples(
    train: Posterior,
    train_classes: Int[Tensor, "train"],
    test: Posterior,
    test_classes: Int[Tensor, "test"],
    *,
    epochs: int = 30,
    batch_size: int = 256,
    lr: float = 1e-3,
    seed: int = 0,
) -> dict[str, float]:
    """Train a linear layer on z ~ q(z | x_m), drawn afresh at each visit, and test it on one draw of each test item.

    train, test: posteriors [items, latent], see `posteriors`.
    Adam, its step, the batches and the epochs are those of Shi et al. (2019), section 4.2; the layer starts at zero.
    Returns the test accuracy as `value`, its standard error `se`, and `n`.
    Raises ValueError where items and classes disagree in number, or for latents that are not finite.
    """
    check_positive("epochs", epochs)
    check_positive("batch_size", batch_size)
    device = latents(rows_of(train, slice(0, 1)), False).device
    train_classes = train_classes.to(device)
    generator, noise = (torch.Generator(device).manual_seed(s) for s in (seed, seed + 1))
    probe = _Probe(latents(train, False), train_classes, latents(test, False), test_classes, lr)
    for _ in range(epochs):
        for rows in torch.randperm(len(train_classes), generator=generator, device=device).split(batch_size):
            probe.step(latents(rows_of(train, rows), True, noise), train_classes[rows])
    return probe.score(latents(test, True, noise), test_classes)


def probe_means(
    train: Float[Tensor, "train latent"],
    train_classes: Int[Tensor, "train"],
    test: Float[Tensor, "test latent"],
    test_classes: Int[Tensor, "test"],
    *,
    validation: int | None = None,
    per_epoch: int = 10_000,
    batch_size: int = 256,
    lr: float = 1e-3,
    patience: int = 3,
    max_epochs: int = 200,
    seed: int = 0,
) -> dict[str, float]:
    """Train a linear layer on posterior means until its accuracy on held-out training items has fallen `patience` times in a row.

    validation: how many random training items decide when to stop; by default a tenth, at most 10 000.
    per_epoch: training items that one epoch visits, each epoch others.
    The layer of the best epoch is tested.  Returns the test accuracy as `value`, `se`, `n`, the `epochs` taken and the best
    `validation` accuracy.

    Daunhawer et al. (2021) stop by the accuracy on the test items, which lets the test choose the layer; this is their
    protocol with held-out training items in that place.
    Raises ValueError where numbers of items disagree or leave nothing to train on, or for latents that are not finite.
    """
    for name, value in (("per_epoch", per_epoch), ("batch_size", batch_size), ("patience", patience), ("max_epochs", max_epochs)):
        check_positive(name, value)
    held = min(10_000, len(train) // 10) if validation is None else validation
    if not 1 <= held < len(train):
        raise ValueError(f"probe_means: {held} of {len(train)} training items were to be held out, wanted 1 to {len(train) - 1}")
    generator, train_classes = torch.Generator(train.device).manual_seed(seed), train_classes.to(train.device)
    probe = _Probe(train, train_classes, test, test_classes, lr)
    order = torch.randperm(len(train), generator=generator, device=train.device)
    kept, learnt = order[:held], order[held:]
    best, before, falls, epoch = (-1.0, probe.weight, probe.bias), -1.0, 0, 0
    visits = _Visits(learnt, generator)
    while epoch < max_epochs and falls < patience:
        epoch += 1
        for start in range(0, per_epoch, batch_size):
            rows = visits.take(min(batch_size, per_epoch - start))
            probe.step(train[rows], train_classes[rows])
        now = probe.score(train[kept], train_classes[kept])["value"]
        falls = falls + 1 if now < before else 0
        before = now
        if now > best[0]:
            best = (now, probe.weight.detach().clone(), probe.bias.detach().clone())
    probe.weight, probe.bias = best[1], best[2]
    return {**probe.score(test, test_classes), "epochs": epoch, "validation": best[0]}


class _Visits:
    """Rows in random order, in a new one when all were visited."""

    def __init__(self, rows: Tensor, generator: torch.Generator) -> None:
        self.rows, self.generator, self.waiting = rows, generator, rows[:0]

    def take(self, n: int) -> Int[Tensor, "n"]:
        while len(self.waiting) < n:
            order = torch.randperm(len(self.rows), generator=self.generator, device=self.rows.device)
            self.waiting = torch.cat([self.waiting, self.rows[order]])
        taken, self.waiting = self.waiting[:n], self.waiting[n:]
        return taken


class _Probe:
    """A linear layer that starts at zero, and its Adam."""

    def __init__(self, train: Tensor, train_classes: Tensor, test: Tensor, test_classes: Tensor, lr: float) -> None:
        for name, z, y in (("training", train, train_classes), ("test", test, test_classes)):
            if z.ndim != 2 or len(z) != len(y) or not len(y):
                raise ValueError(f"probe: found {name} latents of shape {list(z.shape)} and {len(y)} classes, wanted [items, latent] and as many")
            if not bool(torch.isfinite(z).all()):
                raise ValueError(f"probe: the {name} latents hold NaN or infinity, wanted finite values; train the model first")
        if train.shape[1] != test.shape[1]:
            raise ValueError(f"probe: found {train.shape[1]} training and {test.shape[1]} test dimensions, wanted the same")
        classes = int(max(train_classes.max(), test_classes.max())) + 1
        self.weight = train.new_zeros(classes, train.shape[1], requires_grad=True)
        self.bias = train.new_zeros(classes, requires_grad=True)
        self.adam = torch.optim.Adam([self.weight, self.bias], lr=lr)

    def step(self, z: Tensor, classes: Tensor) -> None:
        with torch.enable_grad():
            loss = F.cross_entropy(F.linear(z.detach(), self.weight, self.bias), classes.to(z.device))
            self.adam.zero_grad()
            loss.backward()
            self.adam.step()

    @torch.no_grad()
    def score(self, z: Tensor, classes: Tensor) -> dict[str, float]:
        right = F.linear(z, self.weight, self.bias).argmax(1) == classes.to(z.device)
        value = float(right.double().mean())
        return {"value": value, "se": math.sqrt(value * (1 - value) / len(classes)), "n": len(classes)}
