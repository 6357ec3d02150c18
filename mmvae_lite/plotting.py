"""Figures and tables that read on a white page and on a dark one, on a phone, and in words.

A figure is drawn with transparent ground and with axes and text in the colour of the page's text, and
shown as inline SVG.  Nothing here changes matplotlib's settings for anybody else.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

#: Okabe and Ito's colours for the colour-blind; orange, sky blue and purple darkened so that every
#: one has a contrast of at least 3 to 1 on white and on the book's dark ground.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#B5609A", "#B57E00", "#3A8FC4")

DARK_GROUND = "#14181e"
_INK = "#010203"  # stands for the page's text colour until the SVG is written
_FONT = 11.0
_SMALLEST_FONT = 9.0
_DASHES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (1, 1)))
_MUTED = "#808080"
_ALIKE = re.compile(r'<use href="([^"]*)" x="[^"]*" y="[^"]*" style="([^"]*)"/>(?:<use href="\1" x="[^"]*" y="[^"]*" style="\2"/>)+')
_INLINE_PNG = re.compile(r"(data:image/png;base64,)\s*([A-Za-z0-9+/=\s]+)")

_STYLE: dict[str, Any] = {
    "font.size": _FONT,
    "axes.titlesize": _FONT,
    "axes.labelsize": _FONT,
    "xtick.labelsize": _FONT - 1,
    "ytick.labelsize": _FONT - 1,
    "legend.fontsize": _FONT - 1,
    "legend.frameon": False,
    "text.color": _INK,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "axes.titlecolor": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "lines.linewidth": 2.0,
    "image.cmap": "gray",
}


def figure(width: float = 5.0, height: float = 3.0, rows: int = 1, columns: int = 1, **subplots: Any):
    """A new matplotlib figure and its axes, sized in inches: `fig, ax = figure(5, 3)`.

    With `rows` or `columns` above one, `ax` is an array of shape [rows, columns] squeezed of axes of
    length one, as in `Figure.subplots`, which takes the other keyword arguments.
    """
    from cycler import cycler
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(_STYLE):
        fig = Figure(figsize=(width, height), layout="constrained")
        axes = fig.subplots(rows, columns, **subplots)
        for ax in fig.axes:
            ax.set_prop_cycle(cycler(color=PALETTE, linestyle=_DASHES))
    return fig, axes


def show(fig: Any, alt: str | None = None, caption: str | None = None) -> None:
    """Display a matplotlib or plotly figure; `alt` says in words what it shows.

    Raises ValueError when `alt` is missing or too short to describe anything.
    """
    from IPython.display import HTML, display

    if hasattr(fig, "to_plotly_json"):
        display(plotly_bundle(fig, alt), raw=True)
        return
    note = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    display(HTML(f'<figure class="mmvae-figure">{svg(fig, alt)}{note}</figure>'))


def legend(fig: Any, ax: Any, columns: int = 2) -> None:
    """Put the labels of `ax` in a legend under the figure, in so many columns.

    Raises ValueError when nothing in `ax` has a label.
    """
    handles, labels = ax.get_legend_handles_labels()
    if not labels:
        raise ValueError("ax: nothing in it has a label; give one to what is drawn, as in ax.plot(x, y, label='exact')")
    fig.legend(handles, labels, loc="outside lower center", ncols=columns)


def mosaic(images: Any, columns: int) -> Any:
    """Lay grey pictures [n, 1, height, width] side by side, row by row: [n / columns * height, columns * width].

    The values are cut to lie between 0 and 1.  Raises ValueError for another shape, and when `columns`
    does not divide n.
    """
    if images.ndim != 4 or images.shape[1] != 1:
        raise ValueError(f"images: found shape {tuple(images.shape)}; expected [n, 1, height, width]")
    if columns < 1 or len(images) % columns:
        raise ValueError(f"columns: found {columns} for {len(images)} images; expected a divisor of that")
    rows = images[:, 0].unflatten(0, (-1, columns))
    return rows.transpose(1, 2).flatten(2, 3).flatten(0, 1).clamp(0, 1)


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]], digits: int = 3, one_line: bool = False) -> None:
    """Display rows of text and numbers under the heads `columns`, with `title` as the caption.

    The first cell of a row names it.  Numbers, and tensors of one element, are shown with `digits`
    decimals; text stays as it is.  With `one_line` the names of the rows are never broken.
    Raises ValueError when a row has not one cell for each column, or holds neither text nor a number.
    """
    from IPython.display import HTML, display

    display(HTML(_table(title, columns, rows, digits, one_line)))


def _table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]], digits: int, one_line: bool) -> str:
    whole = ' style="white-space:nowrap"' if one_line else ""
    body = ""
    for values in rows:
        if len(values) != len(columns):
            raise ValueError(f"table {title!r}: found {len(values)} cells in row {list(values)!r}; expected one for each of {list(columns)!r}")
        first, *rest = (_cell(value, digits) for value in values)
        cells = "".join(f"<td>{text}</td>" for text in rest)
        body += f'<tr><th scope="row"{whole}>{first}</th>{cells}</tr>'
    head = "".join(f'<th scope="col" style="overflow-wrap:normal">{escape(column)}</th>' for column in columns)
    return (
        f'<div style="overflow-x:auto" tabindex="0" role="region" aria-label="{escape(title)}">'
        f'<table class="table"><caption>{escape(title)}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _cell(value: Any, digits: int) -> str:
    if isinstance(value, str):
        return escape(value)
    try:
        number = float(value)
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"cell: found {value!r}; expected text, a number or a tensor of one element") from None
    return f"{round(number, digits) + 0.0:.{digits}f}"  # without the sign of a zero


def check_alt(alt: str | None) -> str:
    """Return `alt` on one line, or raise ValueError when it says too little."""
    text = " ".join((alt or "").split())
    if len(text) < 20 or len(text.split()) < 4:
        raise ValueError(
            f"alt: found {alt!r}; say in a sentence what the figure shows, for a reader who cannot see it"
        )
    return text


def svg(fig: Any, alt: str | None) -> str:
    """The matplotlib figure as an inline SVG element with role img, scaling with the page."""
    from matplotlib import rc_context

    alt = check_alt(alt)
    _make_readable(fig)
    buffer = io.StringIO()
    with rc_context({"svg.fonttype": "path", "svg.image_inline": True, "svg.hashsalt": "mmvae_lite"}):
        fig.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return _inline(_INLINE_PNG.sub(lambda found: found[1] + _smaller_png(found[2]), buffer.getvalue()), alt)


def _smaller_png(text: str) -> str:
    """The picture in 32 levels of each colour, and a byte for a pixel where that makes 256 colours at most; matplotlib writes four."""
    import numpy as np
    from PIL import Image

    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(text))).convert("RGBA"))
    if len(np.unique(pixels.reshape(-1, 4), axis=0)) > 32:  # noise of a level or two is most of what a picture weighs
        pixels = (np.rint(pixels / (255 / 31)) * (255 / 31)).round().astype(np.uint8)
    colours, index = np.unique(pixels.reshape(-1, 4), axis=0, return_inverse=True)
    held = io.BytesIO()
    if len(colours) > 256:
        Image.fromarray(pixels).save(held, "PNG", optimize=True)
    else:
        image = Image.fromarray(index.reshape(pixels.shape[:2]).astype(np.uint8), "P")
        image.putpalette(colours[:, :3].tobytes())
        image.save(held, "PNG", optimize=True, transparency=colours[:, 3].tobytes())
    small = base64.b64encode(held.getvalue()).decode()
    return small if len(small) < len(text) else text


def _make_readable(fig: Any) -> None:
    """Mend what calls after `figure` took from matplotlib's own settings: opaque legends and tiny text."""
    from matplotlib.legend import Legend
    from matplotlib.text import Text

    for legend in fig.findobj(Legend):
        legend.set_frame_on(False)
    for text in fig.findobj(Text):
        text.set_fontsize(max(text.get_fontsize(), _SMALLEST_FONT))


def _inline(drawing: str, alt: str) -> str:
    """Turn a stand-alone SVG into an element: own ids, the page's text colour, a size that scales."""
    body = drawing[drawing.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.S)
    prefix = "f" + hashlib.sha256(body.encode() + alt.encode()).hexdigest()[:8] + "-"
    ids: dict[str, str] = {}
    body = re.sub(r'(\bid="|href="#|url\(#)([^")]+)', lambda m: m[1] + ids.setdefault(m[2], f"{prefix}{len(ids):x}"), body)
    body = re.sub(rf"{_INK}|#000000", "currentColor", body, flags=re.I)
    body = re.sub(r"\n\s*", "\n", re.sub(r"<!--.*?-->", "", body, flags=re.S)).replace(">\n<", "><")
    head, _, rest = body.partition(">")
    width, height = (float(v) for v in re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', head).groups())
    pixels = width * 96 / 72
    # Wide figures scroll sideways on a phone rather than shrink their text out of sight.
    opening = (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" '
        f'aria-label="{escape(alt)}" viewBox="0 0 {width:g} {height:g}" fill="currentColor" '
        f'style="width:100%;min-width:{0.7 * pixels:.0f}px;max-width:{pixels:.0f}px;height:auto">'
    )
    rest = re.sub(r"(?<![\w.])(\d+)\.\d{3,}", _rounded, rest).replace("xlink:href", "href")
    rest = re.sub(r'(?<= d=")[^"]*', _thinned, rest)
    return opening + _ALIKE.sub(_one_style, rest).strip()


def _one_style(run: re.Match[str]) -> str:
    """Markers of one look in a row: the look is said once."""
    style = f' style="{run[2]}"'
    return f"<g{style}>{run[0].replace(style, '')}</g>"


def _thinned(path: re.Match[str]) -> str:
    """A polygon or polyline without the points that lie on the way from one to the next, to a twentieth of a point."""
    text = re.sub(r"\s*\n", "", path[0]).replace("L ", "L").replace("M ", "M")
    steps = re.findall(r"([ML])(-?[\d.]+) (-?[\d.]+)", text)
    if len(steps) < 8 or re.sub(r"[ML]-?[\d.]+ -?[\d.]+|z", "", text):
        return text
    points = [(kind, float(x), float(y)) for kind, x, y in steps]
    kept = [0]
    for k in range(1, len(points) - 1):
        last = kept[-1]
        straight = points[k][0] == points[k + 1][0] == "L" and k - last < 40
        if not straight or any(_off(points[last], points[k + 1], points[j]) > 0.05 for j in range(last + 1, k + 1)):
            kept.append(k)
    kept.append(len(points) - 1)
    return "".join(f"{steps[k][0]}{steps[k][1]} {steps[k][2]}" for k in kept) + ("z" if text.endswith("z") else "")


def _off(a: tuple[str, float, float], b: tuple[str, float, float], c: tuple[str, float, float]) -> float:
    """How far c is from the way a to b; far where it is not between them, as at the tip of a spike."""
    dx, dy, px, py = b[1] - a[1], b[2] - a[2], c[1] - a[1], c[2] - a[2]
    length = dx * dx + dy * dy
    if length == 0:
        return (px * px + py * py) ** 0.5
    along = (px * dx + py * dy) / length
    return abs(px * dy - py * dx) / length**0.5 if -1e-9 <= along <= 1 + 1e-9 else float("inf")


def _rounded(number: re.Match[str]) -> str:
    """A coordinate to a hundredth of a point; a factor below 1 keeps five digits."""
    value = float(number[0])
    return f"{value:.2f}".rstrip("0").rstrip(".") if int(number[1]) else f"{value:.5g}"


def plotly_bundle(fig: Any, alt: str | None) -> dict[str, Any]:
    """The plotly figure as a mime bundle, transparent, with its description in `layout.meta.alt`."""
    alt = check_alt(alt)
    content = json.loads(fig.to_json())
    layout = content.setdefault("layout", {})
    layout["meta"] = {**(layout.get("meta") or {}), "alt": alt}
    layout.setdefault("colorway", list(PALETTE))
    layout |= {"paper_bgcolor": "rgba(0,0,0,0)", "plot_bgcolor": "rgba(0,0,0,0)"}
    layout["margin"] = {"l": 50, "r": 20, "t": 30, "b": 50} | (layout.get("margin") or {})
    # A grey that reads on both grounds; the book's page puts its own text colour instead.
    layout["font"] = {"size": 14, "color": _MUTED} | (layout.get("font") or {})
    if isinstance(layout.get("template"), dict):
        layout["template"].get("layout", {}).pop("font", None)
        layout["template"].get("layout", {}).pop("colorway", None)
    return {"application/vnd.plotly.v1+json": content, "text/plain": alt}
