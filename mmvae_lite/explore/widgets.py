"""The explorers as widgets: live in JupyterLab, and a static custom element in the book."""

from .widgets_base import BadInput
from .widgets_diagrams import BoundExplorer, ConcreteSimplex, InfonceMatrix, SubsetLattice
from .widgets_latent import LatentExplorer
from .widgets_mixers import AttributeDial, CaptionEditor, EntangledSlider, LabelDial, StyleMixer
from .widgets_playground import ExpertPlayground

__all__ = [
    "AttributeDial", "BadInput", "BoundExplorer", "CaptionEditor", "ConcreteSimplex", "EntangledSlider", "ExpertPlayground",
    "InfonceMatrix", "LabelDial", "LatentExplorer", "StyleMixer", "SubsetLattice",
]  # fmt: skip
