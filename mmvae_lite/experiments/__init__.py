"""The experiments of the five papers by name, one file a paper."""

from mmvae_lite.checks import check_name
from mmvae_lite.experiments import dmvae_d, dmvae_l, m2vae, mmvae, pvae
from mmvae_lite.experiments._experiment import PAPERS, Experiment, Training

#: Every experiment by its name, in the order of `mmvae list`.
EXPERIMENTS = {e.name: e for paper in (pvae, dmvae_d, dmvae_l, mmvae, m2vae) for e in paper.EXPERIMENTS}


def find(name: str, **options: object) -> Experiment:
    """The experiment of this name.  Raises KeyError, which suggests the nearest name, for an unknown one."""
    if name not in EXPERIMENTS:
        check_name("experiment", name, EXPERIMENTS)
    return EXPERIMENTS[name].with_options(**options)


__all__ = ["EXPERIMENTS", "PAPERS", "Experiment", "Training", "find"]
