"""A plotly figure on a page of the book: its data as JSON, drawn by book.js with the book's own plotly.js.

myst-nb finds this renderer through the entry point `myst_nb.mime_renderers` of the package.
"""

from __future__ import annotations

import json
from html import escape

from docutils import nodes

MIME = "application/vnd.plotly.v1+json"


def plotly_html(figure: dict) -> str:
    """The place where book.js draws `figure`, a dict of data, layout and config.

    Its description is `layout.meta.alt`, which `mmvae_lite.plotting.show` has set.
    """
    layout = dict(figure.get("layout", {}))
    alt = (layout.get("meta") or {}).get("alt", "")
    config = {k: v for k, v in figure.get("config", {}).items() if k != "plotlyServerURL"}
    config |= {"responsive": True, "displayModeBar": False, "scrollZoom": False}
    body = json.dumps({"data": figure["data"], "layout": layout, "config": config}).replace("</", "<\\/")
    height = layout.get("height", 450)
    return (
        f'<div class="plotly-figure" style="min-height:{height}px">'
        f'<p class="plotly-alt">{escape(alt)}</p>'
        f'<script type="application/json">{body}</script></div>'
    )


class PlotlyMime:
    """myst-nb renderer of plotly's JSON mime type."""

    mime_priority_overrides = [("html", MIME, 1)]

    @staticmethod
    def handle_mime(renderer, data, inline):
        if inline or data.mime_type != MIME:
            return None
        figure = data.content if isinstance(data.content, dict) else json.loads(data.content)
        return [nodes.raw(text=plotly_html(figure), format="html", classes=["output", "text_html"])]
