"""MultiVae beside a CPU build of torch, fed with our own networks.

MultiVae imports torchvision for data sets and metrics that no benchmark touches, and the torchvision of the package
index needs a CUDA torch.  A stand-in takes its place, in which whatever is asked for exists and does nothing.
"""

from __future__ import annotations

import copy
import importlib.abc
import importlib.machinery
import sys
import types
from collections.abc import Mapping

import torch
from torch import Tensor, nn


class _Missing:
    def __init__(self, *args: object, **kwargs: object) -> None:
        """The peer makes some of these when it is imported; nothing calls them."""


class _Standin(types.ModuleType):
    __path__: list[str] = []
    __version__ = "0"

    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Missing


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "torchvision":
            return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec):
        return _Standin(spec.name)

    def exec_module(self, module):
        pass


sys.meta_path.insert(0, _Finder())

from multivae import models as multivae_models  # noqa: E402
from multivae.data.datasets.base import IncompleteDataset, MultimodalBaseDataset  # noqa: E402, F401
from multivae.models.nn.base_architectures import BaseConditionalDecoder, BaseJointEncoder, BaseMultilatentEncoder  # noqa: E402
from pythae.models.base.base_utils import ModelOutput  # noqa: E402
from pythae.models.nn.base_architectures import BaseDecoder, BaseEncoder  # noqa: E402


class Encoder(BaseEncoder):
    """One of our encoders in the peer's clothes: the head's two halves under the names that it reads."""

    def __init__(self, network: nn.Module, latent_dim: int) -> None:
        super().__init__()
        self.network, self.latent_dim = network, latent_dim

    def forward(self, x: Tensor) -> ModelOutput:
        first, second = self.network.head(self.network.trunk(x)).chunk(2, dim=-1)
        return ModelOutput(embedding=first, log_covariance=second)


class JointEncoder(BaseJointEncoder):
    def __init__(self, network: nn.Module, latent_dim: int) -> None:
        super().__init__()
        self.network, self.latent_dim = network, latent_dim

    def forward(self, x: Mapping[str, Tensor]) -> ModelOutput:
        q = self.network(x)
        return ModelOutput(embedding=q.mean, log_covariance=q.logvar)


class SplitEncoder(BaseMultilatentEncoder):
    def __init__(self, network: nn.Module, latent_dim: int, style_dim: int) -> None:
        super().__init__()
        self.network, self.latent_dim, self.style_dim = network, latent_dim, style_dim

    def forward(self, x: Tensor) -> ModelOutput:
        q = self.network(x)
        return ModelOutput(
            embedding=q["shared"].mean, log_covariance=q["shared"].logvar,
            style_embedding=q["private"].mean, style_log_covariance=q["private"].logvar,
        )  # fmt: skip


class Decoder(BaseDecoder):
    def __init__(self, network: nn.Module, latent_dim: int) -> None:
        super().__init__()
        self.network, self.latent_dim = network, latent_dim

    def forward(self, z: Tensor) -> ModelOutput:
        return ModelOutput(reconstruction=self.network(z))


class ConditionalEncoder(BaseJointEncoder):
    def __init__(self, network: nn.Module, latent_dim: int) -> None:
        super().__init__()
        self.network, self.latent_dim = network, latent_dim

    def forward(self, x: Mapping[str, Tensor]) -> ModelOutput:
        q = self.network(x["image"], x["label"])
        return ModelOutput(embedding=q.mean, log_covariance=q.logvar)


class ConditionalDecoder(BaseConditionalDecoder):
    def __init__(self, network: nn.Module, latent_dim: int) -> None:
        super().__init__()
        self.network, self.latent_dim = network, latent_dim

    def forward(self, z: Tensor, cond_mods: Mapping[str, Tensor]) -> ModelOutput:
        return ModelOutput(reconstruction=self.network(torch.cat([z, cond_mods["label"]], -1)))


def peer_of(name: str, **settings: object) -> nn.Module:
    """A model of the peer by class name with its configuration."""
    config = getattr(multivae_models, f"{name}Config")
    parts = {key: settings.pop(key) for key in ("encoders", "decoders", "joint_encoder", "encoder", "decoder") if key in settings}
    return getattr(multivae_models, name)(config(**settings), **parts)


def copies(modules: Mapping[str, nn.Module], wrap) -> dict[str, nn.Module]:
    """The peer's own copy of every network, so that both start from the same weights and neither trains the other's."""
    return {name: wrap(copy.deepcopy(module)) for name, module in modules.items()}


def dataset(batch: Mapping[str, Tensor]) -> MultimodalBaseDataset:
    return MultimodalBaseDataset(data=dict(batch))
