"""Explorers that run in JupyterLab and, from the same JavaScript, in the static book.

Importing this package needs neither anywidget nor Jupyter; making a widget needs anywidget.
"""

from .bundle import TAGS, classic_script, stylesheet
from .export import export_decoders, page_decoders, page_encoder, reference_decode

WIDGETS = (
    "AttributeDial", "BoundExplorer", "CaptionEditor", "ConcreteSimplex", "EntangledSlider", "ExpertPlayground", "InfonceMatrix",
    "LabelDial", "LatentExplorer", "StyleMixer", "SubsetLattice",
)  # fmt: skip
__all__ = ["TAGS", "classic_script", "export_decoders", "page_decoders", "page_encoder", "reference_decode", "stylesheet", *WIDGETS]


def __getattr__(name: str):
    if name not in WIDGETS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from . import widgets
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{name} needs the package {error.name}: pip install anywidget", name=error.name) from error
    return getattr(widgets, name)
