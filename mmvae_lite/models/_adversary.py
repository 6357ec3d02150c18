"""A density-ratio discriminator beside a model: its loss, its verdict, and the step in which both learn."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mmvae_lite.information import density_ratio_tc, discriminator_loss

Pair = tuple[Float[Tensor, "pairs style"], Float[Tensor, "pairs code"]]


def frozen_tc(discriminator: nn.Module, pair: Pair) -> Float[Tensor, ""]:
    """The total correlation of joint pairs as the discriminator sees it; gradients reach the pairs alone."""
    parameters = {name: p.detach() for name, p in discriminator.named_parameters()}
    return density_ratio_tc(torch.func.functional_call(discriminator, parameters, pair))


def permuted_loss(discriminator: nn.Module, pair: Pair, generator: torch.Generator | None) -> Float[Tensor, ""]:
    """The discriminator's loss on pairs and on pairs with whole styles permuted over the batch, all detached."""
    style, code = (z.detach() for z in pair)
    order = torch.randperm(len(style), device=style.device, generator=generator)
    return discriminator_loss(discriminator(style, code), discriminator(style[order], code))


def adversarial_step(
    model: nn.Module,
    batch: Mapping[str, Tensor],
    optimizers: Mapping[str, torch.optim.Optimizer],
    generator: torch.Generator,
    target: Mapping[str, Tensor] | None = None,
    observed: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """First the discriminators' step, then the model's against them, on the same codes; for the `step` of `fit`.

    Returns the terms of the loss and `discriminator/<modality>`, each discriminator's own loss.  Raises KeyError unless
    `optimizers` holds `model` and `discriminators`.
    """
    if not {"model", "discriminators"} <= set(optimizers):
        raise KeyError(f"optimizers: found {sorted(optimizers)}, wanted 'model' and 'discriminators', see model.optimizers()")
    codes = model.draw(batch, observed, generator)
    judged = model.discriminator_losses(codes, generator)
    if judged:
        _descend(optimizers["discriminators"], sum(judged.values()))
    terms = model.objective(codes, batch if target is None else target)
    _descend(optimizers["model"], terms["loss"])
    return terms | {f"discriminator/{m}": value for m, value in judged.items()}


def _descend(optimizer: torch.optim.Optimizer, loss: Float[Tensor, ""]) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
