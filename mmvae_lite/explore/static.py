"""The static form of an explorer: a custom element that carries its state, its weights and a picture.

The picture stands there without JavaScript, in print and while the script loads.
"""

import base64
import html
import json
import struct
import zlib

import numpy as np
import torch

from ..distributions import Normal
from ..experts import ImproperProduct, product, product_with_prior, quotient

COLOURS = ("#2878b5", "#c4570c", "#0b8457")
DASHES = ("", "9 3", "12 3 2 3")


def element(
    tag: str, state: dict, picture: str, caption: str, rows: int, weights: tuple[str, str, bytes] | None = None
) -> str:
    """HTML of `<tag>` with its state as JSON and its weights `(name, sha256, bytes)` as base64.

    `rows` is the number of slider rows, from which the stylesheet knows the height of the live form.
    """
    spec = json.dumps(state, allow_nan=False).replace("<", "\\u003c")
    parts = [
        f'<{tag}><div class="mx-static" style="--mx-rows:{rows}">{picture}<p>{html.escape(caption)}</p></div>',
        f'<script type="application/json" class="explorer-spec">{spec}</script>',
    ]
    if weights is not None:
        name, sha256, blob = weights
        parts.append(
            f'<script type="text/plain" class="explorer-weights" data-name="{html.escape(name)}" '
            f'data-sha256="{sha256}">{base64.b64encode(blob).decode()}</script>'
        )
    return "\n".join([*parts, f"</{tag}>"])


def png(grey: np.ndarray) -> bytes:
    """A grey-level PNG of an array `[height, width]` in [0, 1]."""
    levels = np.round(255 * np.clip(grey, 0, 1)).astype(np.uint8)
    rows = b"".join(b"\0" + row.tobytes() for row in levels)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width = levels.shape
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")


def traversal_picture(images: np.ndarray, alt: str) -> str:
    """An `<img>` of a traversal grid `[dims, values, height, width]`."""
    images = np.pad(images, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=0.5)  # a thin line between pictures
    dims, values, height, width = images.shape
    grid = images.transpose(0, 2, 1, 3).reshape(dims * height, values * width)
    source = base64.b64encode(png(grid)).decode()
    return (
        f'<img alt="{html.escape(alt)}" width="{2 * values * width}" height="{2 * dims * height}" '
        f'src="data:image/png;base64,{source}">'
    )


def combine(means: list[float], precisions: list[float], present: list[bool], form: str) -> Normal | None:
    """The playground's product as a `Normal` of shape [1], or None where it is no density."""
    experts = [
        Normal.from_precision(torch.tensor([mean], dtype=torch.float64), torch.tensor([precision], dtype=torch.float64))
        for mean, precision, here in zip(means, precisions, present, strict=True)
        if here
    ]
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
    if result is not None:
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
