"""The static form of an explorer: a custom element that carries its state, its weights and a picture.

The picture stands there without JavaScript, in print and while the script loads.
"""

import base64
import hashlib
import html
import json
import struct
import zlib

import numpy as np
import torch

from ..distributions import Normal
from ..experts import ImproperProduct, product, product_with_prior, quotient

COLOURS = ("#2878b5", "#c4570c", "#0b8457")
BLOCK = 3_000_000  # bytes in one script of weights, 4 MB once they are base64
DASHES = ("", "9 3", "12 3 2 3")


def element(
    tag: str, state: dict, picture: str, caption: str, rows: int, weights: tuple[str, str, bytes] | None = None
) -> str:
    """HTML of `<tag>` with its state as JSON and its weights `(name, sha256, bytes)` as base64.

    `rows` is the number of slider rows; from it, and from how many outputs sound, the stylesheet knows the height of the live form.
    """
    spec = json.dumps(state, allow_nan=False).replace("<", "\\u003c")
    sounding = sum(info["kind"] == "speech" for info in state.get("options", {}).get("outputs", {}).values())
    blocks = [] if weights is None else [weights[2][n : n + BLOCK] for n in range(0, len(weights[2]), BLOCK)]
    parts = [
        f'<{tag}><div class="mx-static" style="--mx-rows:{rows};--mx-sounds:{sounding}">{picture}<p>{html.escape(caption)}</p></div>',
        f'<script type="application/json" class="explorer-spec">{spec}</script>',
    ]
    for number, block in enumerate(blocks):
        name = weights[0] + (f"-{number + 1}" if len(blocks) > 1 else "")
        parts.append(
            f'<script type="text/plain" class="explorer-weights" data-name="{html.escape(name)}" '
            f'data-sha256="{hashlib.sha256(block).hexdigest()}">{base64.b64encode(block).decode()}</script>'
        )
    return "\n".join([*parts, f"</{tag}>"])


def png(values: np.ndarray) -> bytes:
    """A PNG of an array in [0, 1], grey `[height, width]` or in colour `[height, width, 3]`."""
    levels = np.round(255 * np.clip(values, 0, 1)).astype(np.uint8)
    rows = b"".join(b"\0" + row.tobytes() for row in levels)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width = levels.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, 8, 2 if levels.ndim == 3 else 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")


def grid_picture(images: np.ndarray, alt: str, scale: int = 2) -> str:
    """An `<img>` of rows of pictures `[rows, columns, 1 or 3, height, width]` in [0, 1]."""
    images = np.pad(images, ((0, 0), (0, 0), (0, 0), (1, 1), (1, 1)), constant_values=0.5)  # a thin line between pictures
    rows, columns, channels, height, width = images.shape
    grid = images.transpose(0, 3, 1, 4, 2).reshape(rows * height, columns * width, channels)
    source = base64.b64encode(png(grid if channels == 3 else grid[..., 0])).decode()
    scale = scale if width * columns * scale <= 720 else 1
    return (
        f'<img alt="{html.escape(alt)}" width="{scale * columns * width}" height="{scale * rows * height}" '
        f'src="data:image/png;base64,{source}">'
    )


def text_picture(alt: str) -> str:
    """What stands where a picture would only be words."""
    return f"<p>{html.escape(alt)}</p>"


def chart(x: np.ndarray, curves: dict[str, np.ndarray], alt: str, axis: str = "") -> str:
    """An inline SVG of curves over x, with their names in a key; text uses `currentColor`."""
    values = np.concatenate([np.asarray(y, dtype=float) for y in curves.values()])
    values = values[np.isfinite(values)]
    low, high = values.min(), values.max()
    spread = (high - low) or 1.0
    across = lambda v: 48 + 552 * (v - x[0]) / ((x[-1] - x[0]) or 1)  # noqa: E731
    up = lambda v: 216 - 190 * (v - low) / spread  # noqa: E731
    paths, names = "", ""
    for n, (name, y) in enumerate(curves.items()):
        points = "L".join(f"{across(a):.1f},{up(b):.1f}" for a, b in zip(x, y, strict=True) if np.isfinite(b))
        style = f'stroke="{COLOURS[n % 3]}" stroke-dasharray="{DASHES[n % 3]}"'
        paths += f'<path d="M{points}" fill="none" stroke-width="2" {style}/>'
        names += f'<text x="{56 + 180 * (n % 3)}" y="{264 + 18 * (n // 3)}" fill="{COLOURS[n % 3]}">{html.escape(name)}</text>'
    ticks = "".join(f'<text x="42" y="{up(v):.0f}" text-anchor="end">{v:.3g}</text>' for v in (low, high))
    ticks += "".join(f'<text x="{across(v):.0f}" y="236" text-anchor="middle">{v:.3g}</text>' for v in (x[0], x[-1]))
    return (
        f'<svg role="img" aria-label="{html.escape(alt)}" viewBox="0 0 640 310" width="640" height="310" font-size="13" '
        f'fill="currentColor"><path d="M48,216H600M48,20V216" fill="none" stroke="currentColor"/>{paths}{ticks}'
        f'<text x="320" y="248" text-anchor="middle">{html.escape(axis)}</text>{names}</svg>'
    )


def combine(means: list[float], precisions: list[float], present: list[bool], form: str) -> Normal | None:
    """The playground's result as a `Normal` of shape [1], or None where it is no density; of a mixture the mean and variance."""
    experts = [
        Normal.from_precision(torch.tensor([mean], dtype=torch.float64), torch.tensor([precision], dtype=torch.float64))
        for mean, precision, here in zip(means, precisions, present, strict=True)
        if here
    ]
    if form == "mixture" and experts:
        means, variances = torch.stack([e.mean for e in experts]), torch.stack([e.var for e in experts])
        return Normal(means.mean(0), (variances.mean(0) + means.var(0, correction=0)).log())
    if not experts:
        return None if form == "product" else Normal.standard(1, like=torch.zeros(1, dtype=torch.float64))
    try:
        return {"product": product, "prior": product_with_prior, "quotient": quotient}[form](experts)
    except ImproperProduct:
        return None


def playground_picture(state: dict, alt: str) -> str:
    """An inline SVG of the experts and their product; its text and product curve use `currentColor`."""
    reach = state["options"]["limit"] + 1
    z = np.linspace(-reach, reach, 161)

    def density(mean: float, precision: float) -> np.ndarray:
        return np.sqrt(precision / (2 * np.pi)) * np.exp(-0.5 * precision * (z - mean) ** 2)

    curves = [
        (density(mean, precision), f'stroke="{COLOURS[m]}" stroke-width="2" stroke-dasharray="{DASHES[m]}"')
        for m, (mean, precision) in enumerate(zip(state["means"], state["precisions"], strict=True))
        if state["present"][m]
    ]
    curves.append((density(0.0, 1.0), 'stroke="currentColor" stroke-width="1.5" stroke-dasharray="2 4" opacity="0.7"'))
    result = combine(state["means"], state["precisions"], state["present"], state["form"])
    if state["form"] == "mixture" and any(state["present"]):
        there = [density(m, t) for m, t, here in zip(state["means"], state["precisions"], state["present"], strict=True) if here]
        curves.append((np.mean(there, 0), 'stroke="currentColor" stroke-width="3"'))
    elif result is not None:
        curves.append((density(result.mean.item(), result.precision.item()), 'stroke="currentColor" stroke-width="3"'))
    top = max(curve.max() for curve, _ in curves)
    paths = "".join(
        f'<path d="M{"L".join(f"{40 + 560 * n / 160:.1f},{220 - 200 * p / top:.1f}" for n, p in enumerate(curve))}" '
        f'fill="none" {style}/>'
        for curve, style in curves
    )
    ticks = "".join(
        f'<text x="{40 + 560 * (k + reach) / (2 * reach):.1f}" y="240" text-anchor="middle">{k}</text>'
        for k in range(-int(reach), int(reach) + 1)
    )
    return (
        f'<svg role="img" aria-label="{html.escape(alt)}" viewBox="0 0 640 250" width="640" height="250" '
        f'font-size="13" fill="currentColor"><path d="M40,220H600" stroke="currentColor"/>{paths}{ticks}</svg>'
    )
