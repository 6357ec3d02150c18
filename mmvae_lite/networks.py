"""Encoders and decoders.  Decoders are plain `nn.Sequential`, so that a page can run them as they are."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from mmvae_lite.distributions import Normal

LOGVAR_RANGE = (-10.0, 10.0)


def mlp(sizes: Sequence[int], activation: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    """Linear layers of the given sizes with the activation between them, none after the last.

    `mlp([784, 512, 20])` maps [batch, 784] to [batch, 20].  Raises ValueError for fewer than two sizes.
    """
    if len(sizes) < 2:
        raise ValueError(f"an MLP needs at least 2 sizes, got {list(sizes)}")
    layers: list[nn.Module] = []
    for fan_in, fan_out in zip(sizes, sizes[1:]):
        layers += [nn.Linear(fan_in, fan_out), activation()]
    return nn.Sequential(*layers[:-1])


class GaussianEncoder(nn.Module):
    """A trunk of features followed by one linear head for mean and log-variance.

    `forward` maps [batch, *event] to a `Normal` of shape [batch, latent].  The log-variance is clamped to
    [-10, 10], so that a precision neither overflows nor vanishes.
    """

    def __init__(self, trunk: nn.Module, features: int, latent_dim: int) -> None:
        super().__init__()
        self.trunk = trunk
        self.head = nn.Linear(features, 2 * latent_dim)

    def forward(self, x: Float[Tensor, "batch *event"]) -> Normal:
        mean, logvar = self.head(self.trunk(x)).chunk(2, dim=-1)
        return Normal(mean, logvar.clamp(*LOGVAR_RANGE))


def image_encoder(latent_dim: int, hidden: Sequence[int] = (512, 512), pixels: int = 784) -> GaussianEncoder:
    """The MVAE image encoder: [batch, 1, 28, 28] -> hidden layers with Swish -> Normal (Wu and Goodman 2018)."""
    trunk = nn.Sequential(nn.Flatten(), mlp([pixels, *hidden], nn.SiLU), nn.SiLU())
    return GaussianEncoder(trunk, hidden[-1], latent_dim)


def image_decoder(
    latent_dim: int, hidden: Sequence[int] = (512, 512, 512), shape: tuple[int, ...] = (1, 28, 28)
) -> nn.Sequential:
    """The MVAE image decoder: [batch, latent] -> logits [batch, *shape] (Wu and Goodman 2018)."""
    pixels = 1
    for side in shape:
        pixels *= side
    return nn.Sequential(*mlp([latent_dim, *hidden, pixels], nn.SiLU), nn.Unflatten(1, shape))


def label_encoder(latent_dim: int, classes: int = 10, hidden: Sequence[int] = (512, 512)) -> GaussianEncoder:
    """The MVAE label encoder: one-hot [batch, classes] -> embedding -> hidden layers -> Normal.

    A linear layer without bias on a one-hot label is an embedding of the class.
    """
    embedding = nn.Linear(classes, hidden[0], bias=False)
    rest = [layer for a, b in zip(hidden, hidden[1:]) for layer in (nn.Linear(a, b), nn.SiLU())]
    return GaussianEncoder(nn.Sequential(embedding, nn.SiLU(), *rest), hidden[-1], latent_dim)


def label_decoder(latent_dim: int, classes: int = 10, hidden: Sequence[int] = (512, 512, 512)) -> nn.Sequential:
    """The MVAE label decoder: [batch, latent] -> logits [batch, classes] (Wu and Goodman 2018)."""
    return mlp([latent_dim, *hidden, classes], nn.SiLU)
