"""The models of the book, one file each; `MODELS` finds them by name."""

from mmvae_lite.models.mvae import MVAE
from mmvae_lite.models.vae import VAE

MODELS = {"vae": VAE, "mvae": MVAE}

__all__ = ["MODELS", "MVAE", "VAE"]
