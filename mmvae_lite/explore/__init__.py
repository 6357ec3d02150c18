"""Explorers that run in JupyterLab and, from the same JavaScript, in the static book.

Importing this package needs neither anywidget nor Jupyter; making a widget needs anywidget.
"""

from .bundle import classic_script, stylesheet
from .export import export_decoders, reference_decode

__all__ = ["ExpertPlayground", "LatentExplorer", "classic_script", "export_decoders", "reference_decode", "stylesheet"]


def __getattr__(name: str):
    if name not in ("ExpertPlayground", "LatentExplorer"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from . import widgets
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{name} needs the package {error.name}: pip install anywidget", name=error.name) from error
    return getattr(widgets, name)
