"""The models of the book, one file each; `MODELS` finds them by name."""

from mmvae_lite.models.cvae import CVAE
from mmvae_lite.models.dmvae_d import DMVAE_D
from mmvae_lite.models.dmvae_l import DMVAE_L
from mmvae_lite.models.jmvae import JMVAE
from mmvae_lite.models.m2vae import M2VAE
from mmvae_lite.models.mmvae import MMVAE
from mmvae_lite.models.mvae import MVAE
from mmvae_lite.models.pvae import PVAE
from mmvae_lite.models.telbo import TELBO
from mmvae_lite.models.vae import VAE

MODELS = {
    "vae": VAE,
    "cvae": CVAE,
    "jmvae": JMVAE,
    "telbo": TELBO,
    "mvae": MVAE,
    "pvae": PVAE,
    "dmvae_d": DMVAE_D,
    "dmvae_l": DMVAE_L,
    "mmvae": MMVAE,
    "m2vae": M2VAE,
}

__all__ = ["CVAE", "DMVAE_D", "DMVAE_L", "JMVAE", "M2VAE", "MMVAE", "MODELS", "MVAE", "PVAE", "TELBO", "VAE"]
