"""The decoders of a trained model in the form that a page's explorer loads."""

from __future__ import annotations

import json
import os
from pathlib import Path

from torch import nn

from mmvae_lite.distributions import BernoulliLikelihood, CategoricalLikelihood
from mmvae_lite.explore import export_decoders


def to_means(model: nn.Module) -> dict[str, nn.Sequential]:
    """The model's decoders from latents to means: a sigmoid or a softmax follows where they give logits."""
    single = hasattr(model, "modality")
    decoders = {model.modality: model.decoder} if single else dict(model.decoders)
    families = {model.modality: model.likelihood} if single else model.likelihoods
    last = {BernoulliLikelihood: nn.Sigmoid, CategoricalLikelihood: lambda: nn.Softmax(-1)}
    return {m: nn.Sequential(d, *([last[type(families[m])]()] if type(families[m]) in last else [])) for m, d in decoders.items()}


def export(model: nn.Module, folder: Path, name: str) -> list[Path]:
    """Write NAME.json, the layers, and NAME.bin, their weights in half precision; returns both paths.

    Raises ValueError for a layer that the page cannot run; nothing is written then.
    """
    exported = export_decoders(to_means(model))
    folder.mkdir(parents=True, exist_ok=True)
    files = {folder / f"{name}.bin": exported.weights, folder / f"{name}.json": json.dumps(exported.spec, indent=1).encode()}
    for path, content in files.items():
        part = path.with_name(path.name + ".part")
        part.write_bytes(content)
        os.replace(part, path)
    return list(files)
