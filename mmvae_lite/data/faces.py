"""Cartoon faces with the 18 attributes of the CelebA experiments, drawn by this module; CelebA itself where it is at hand.

A face is a function of its attributes and of continuous factors of style that do not depend on them.  The attributes
depend on each other as they do among people, and hide each other: a fringe lies over the brows, dark glasses over both,
a hat over the hairline, a moustache over the lip.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Shaped, UInt8
from torch import Tensor

from mmvae_lite.checks import check_name, check_positive
from mmvae_lite.data import drawing
from mmvae_lite.data.celeba import ATTRIBUTES, celeba, celeba_folder
from mmvae_lite.data.parts import MultimodalSet, Part
from mmvae_lite.data.sources import SOURCES

STYLE = (
    "turn",
    "tilt",
    "nod",
    "right",
    "down",
    "size",
    "width",
    "jaw",
    "skin tone",
    "skin warmth",
    "age",
    "eye colour",
    "eye size",
    "nose size",
    "mouth width",
    "hair length",
    "hair volume",
    "hair shade",
    "background hue",
    "background lightness",
    "background spot",
    "light from",
    "light strength",
    "clothes hue",
    "clothes pattern",
    "accent hue",
    "glasses shape",
    "hat shape",
)
"""The factors of style, each uniform on [0, 1] and independent of the attributes and of each other."""

SIZE = 64
CHUNK = 64
SKIN = ((0.97, 0.82, 0.70), (0.93, 0.74, 0.60), (0.84, 0.62, 0.45), (0.67, 0.45, 0.30), (0.48, 0.31, 0.21), (0.33, 0.21, 0.15))
PALE = (1.0, 0.945, 0.915)
HAIR = {
    "Black_Hair": ((0.05, 0.05, 0.07), (0.13, 0.12, 0.15)),
    "Blond_Hair": ((0.88, 0.68, 0.28), (0.99, 0.88, 0.55)),
    "Brown_Hair": ((0.29, 0.17, 0.09), (0.47, 0.29, 0.16)),
    "Gray_Hair": ((0.60, 0.61, 0.64), (0.84, 0.85, 0.88)),
}
OTHER_HAIR = ((0.55, 0.16, 0.10), (0.83, 0.38, 0.12))
EYES = ((0.24, 0.14, 0.08), (0.42, 0.26, 0.12), (0.35, 0.45, 0.22), (0.25, 0.50, 0.62), (0.22, 0.38, 0.72))


# --- which attributes come together ----------------------------------------------------------------------------------


def sample_attributes(n: int, generator: torch.Generator | None = None) -> Bool[Tensor, "n 18"]:
    """Attributes of n faces, columns as in `ATTRIBUTES`.

    Hair has one colour or none of the four; who is bald has neither fringe nor shape of hair; straight hair is not wavy;
    moustaches, bushy brows and bald heads are mostly men's, makeup women's; grey, bald and receding hair go with age.
    """

    def happens(probability: Tensor) -> Tensor:
        return torch.rand(n, generator=generator) < probability

    def by_sex(woman: float, man: float) -> Tensor:
        return torch.where(male, man, woman)

    male, senior = happens(torch.tensor(0.45)), happens(torch.tensor(0.2))
    bald = happens(torch.where(male, torch.where(senior, 0.3, 0.12), 0.01))
    receding = ~bald & happens(torch.where(male, torch.where(senior, 0.4, 0.15), 0.02))
    bangs = ~bald & ~receding & happens(by_sex(0.4, 0.2))
    shape = torch.rand(n, generator=generator)
    straight, wavy = ~bald & (shape < by_sex(0.36, 0.36)), ~bald & (shape > by_sex(0.58, 0.74))

    shares = torch.tensor([[0.27, 0.25, 0.29, 0.04], [0.35, 0.14, 0.33, 0.05], [0.12, 0.10, 0.16, 0.52]])
    row = torch.where(senior, 2, male.long())
    # who is bald keeps a rim of hair or not: a third of the time its colour is seen
    shares = shares[row] * torch.where(bald, 0.35, 1.0)[:, None]
    colour = torch.searchsorted(shares.cumsum(-1), torch.rand(n, 1, generator=generator))[:, 0]

    smiling = happens(by_sex(0.52, 0.44))
    columns = {
        "Bald": bald,
        "Bangs": bangs,
        "Black_Hair": colour == 0,
        "Blond_Hair": colour == 1,
        "Brown_Hair": colour == 2,
        "Bushy_Eyebrows": happens(by_sex(0.10, 0.34)),
        "Eyeglasses": happens(torch.where(senior, 0.3, 0.17)),
        "Gray_Hair": colour == 3,
        "Heavy_Makeup": happens(by_sex(0.55, 0.015)),
        "Male": male,
        "Mouth_Slightly_Open": happens(torch.where(smiling, 0.65, 0.28)),
        "Mustache": happens(by_sex(0.006, 0.26)),
        "Pale_Skin": happens(torch.tensor(0.14)),
        "Receding_Hairline": receding,
        "Smiling": smiling,
        "Straight_Hair": straight,
        "Wavy_Hair": wavy,
        "Wearing_Hat": happens(torch.tensor(0.14)),
    }
    return torch.stack([columns[name] for name in ATTRIBUTES], -1)


def sample_style(n: int, generator: torch.Generator | None = None) -> Float[Tensor, "n style"]:
    """Factors of style of n faces, columns as in `STYLE`, uniform on [0, 1]."""
    return torch.rand(n, len(STYLE), generator=generator)


# --- drawing -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Faces:
    """Faces being drawn: the canvas, its points as the heads see them, one pixel in the heads' unit, and what is drawn.

    The head's half-width is about 1, its centre the origin; `at` holds attributes, style, colours and measures by name.
    """

    canvas: Tensor
    points: Tensor
    pixel: Tensor
    at: dict[str, Tensor]

    def __getitem__(self, name: str) -> Tensor:
        return self.at[name]

    def put(self, distance: Tensor, colour, opacity=1.0, softness=None) -> None:
        """Paint a shape; softness in the heads' unit, one pixel unless given."""
        self.canvas.copy_(drawing.paint(self.canvas, distance, colour, self.pixel if softness is None else softness, opacity))

    def moved(self, x, y, angle=0.0) -> Tensor:
        """The points as a feature sees them that lies there on the face; it moves as the head turns and nods."""
        return drawing.place(self.points, _xy(x + self["turned"], y + self["nodded"]), 1.0, angle)

    def window(self, top: int, bottom: int, left: int, right: int) -> _Faces:
        """A part of the picture: to paint a small feature, only the pixels that it may reach are looked at."""
        rows, columns = slice(top, bottom), slice(left, right)
        return replace(self, canvas=self.canvas[..., rows, columns], points=self.points[:, rows, columns])

    def where(self, chosen: Tensor, draw: Callable[[_Faces], None]) -> None:
        """Draw on some of the faces."""
        rows = chosen.nonzero()[:, 0]
        if len(rows):
            some = _Faces(self.canvas[rows], self.points[rows], self.pixel[rows], {k: v[rows] for k, v in self.at.items()})
            draw(some)
            self.canvas[rows] = some.canvas


def _xy(x, y) -> Tensor:
    return torch.stack(torch.broadcast_tensors(torch.as_tensor(x), torch.as_tensor(y)), -1)


def _mix(colours, share: Tensor) -> Tensor:
    """A colour [n, 3] along a row of colours, from the first at 0 to the last at 1."""
    colours = torch.as_tensor(colours)
    where = share.clamp(0, 1) * (len(colours) - 1)
    low = where.long().clamp(max=len(colours) - 2)
    return torch.lerp(colours[low], colours[low + 1], (where - low)[:, None])


def _hue(hue: Tensor, saturation: float, value: Tensor | float) -> Tensor:
    """A colour [n, 3] from its place on the colour circle."""
    wheel = ((hue[:, None] * 6 + torch.tensor([0.0, 4.0, 2.0])) % 6 - 3).abs().sub(1).clamp(0, 1)
    return (1 + saturation * (wheel - 1)) * torch.as_tensor(value).reshape(-1, 1)


def _measure(on: dict[str, Tensor], style: dict[str, Tensor]) -> dict[str, Tensor]:
    """Colours and lengths that several layers share."""
    male, bald = on["Male"], on["Bald"]
    skin = _mix(SKIN, style["skin tone"])
    skin = torch.where(on["Pale_Skin"][:, None], torch.tensor(PALE), skin)
    skin = (skin + (style["skin warmth"] - 0.5)[:, None] * torch.tensor([0.01, 0.0, -0.04])).clamp(0, 1)
    hair = _mix(OTHER_HAIR, style["hair shade"])
    for name, ends in HAIR.items():
        hair = torch.where(on[name][:, None], _mix(ends, style["hair shade"]), hair)
    coloured = torch.stack([on[name] for name in HAIR]).any(0)
    brow = hair * 0.62
    unseen = (brow - skin).abs().amax(-1) < 0.2
    brow = torch.where(unseen[:, None], skin * 0.45, brow)
    length = torch.where(male, 0.25 * style["hair length"] ** 2, 0.25 + 0.75 * style["hair length"])
    plain = ~on["Straight_Hair"] & ~on["Wavy_Hair"]
    return {
        "skin": skin,
        "skin shade": skin * torch.tensor([0.80, 0.72, 0.70]),
        "skin line": skin * torch.tensor([0.58, 0.46, 0.44]),
        "hair": hair,
        "brow": torch.where(bald[:, None] & ~coloured[:, None], torch.tensor([0.22, 0.15, 0.11]) * skin, brow),
        "rim": bald & coloured,
        "hairy": ~bald,
        "plain": plain,
        "long": ~bald & (length > 0.2),
        "length": torch.where(plain, length.clamp(max=0.55), length),
        "w": 0.90 + 0.16 * style["width"] + 0.03 * male,
        "square": torch.where(male, 0.83, 0.66) + 0.11 * style["jaw"],
        "chin": torch.where(male, 1.24, 1.16) + 0.08 * style["jaw"],
        "turned": 0.34 * (style["turn"] - 0.5),
        "nodded": 0.16 * (style["nod"] - 0.5),
        "old": (0.9 * style["age"] - 0.35 + 0.35 * (on["Gray_Hair"] | on["Receding_Hairline"])).clamp(0, 1),
        "accent": _hue(style["accent hue"], 0.62, 0.78),
    }


def draw(attributes: Shaped[Tensor, "n attributes"], style: Float[Tensor, "n style"]) -> UInt8[Tensor, "n 3 64 64"]:
    """Faces with these attributes (columns as in `ATTRIBUTES`, 0 and 1) and factors of style (as in `STYLE`), in 256 levels.

    Raises ValueError where a tensor has another shape.
    """
    wanted = ([len(attributes), len(ATTRIBUTES)], [len(attributes), len(STYLE)])
    if (list(attributes.shape), list(style.shape)) != wanted:
        raise ValueError(f"found attributes {list(attributes.shape)} and style {list(style.shape)}, wanted {wanted[0]} and {wanted[1]}")
    attributes = attributes > 0
    pictures = [_draw(a, s) for a, s in zip(attributes.split(CHUNK), style.split(CHUNK))]
    return torch.cat(pictures) if pictures else torch.zeros(0, 3, SIZE, SIZE, dtype=torch.uint8)


def _draw(attributes: Tensor, style: Tensor) -> Tensor:
    on = dict(zip(ATTRIBUTES, attributes.unbind(-1)))
    by_name = dict(zip(STYLE, style.unbind(-1)))
    n, points = len(attributes), drawing.grid(SIZE)
    scale = 0.43 + 0.09 * by_name["size"]
    centre = _xy(0.26 * (by_name["right"] - 0.5), 0.07 + 0.16 * (by_name["down"] - 0.5))
    heads = drawing.place(points.expand(n, SIZE, SIZE, 2), centre, scale[:, None], 0.46 * (by_name["tilt"] - 0.5))
    faces = _Faces(torch.zeros(n, 3, SIZE, SIZE), heads, 2 / SIZE / scale, on | by_name | _measure(on, by_name))
    _background(faces, points)
    faces.where(faces["long"], _hair_behind)
    _body(faces.window(35, 64, 0, 64))
    _head(faces)
    faces.window(12, 60, 8, 56).where(faces["old"] > 0.12, _age)
    faces.window(16, 58, 4, 60).where(faces["Heavy_Makeup"], _makeup)
    _eyes(faces.window(20, 48, 8, 56))
    _brows(faces.window(14, 44, 8, 56))
    _nose(faces.window(28, 53, 16, 48))
    _mouth(faces.window(31, 64, 8, 56))
    faces.window(30, 60, 8, 56).where(faces["Mustache"], _mustache)
    faces.window(0, 52, 0, 64).where(faces["Bald"], _bald)
    faces.where(faces["hairy"] & ~faces["Receding_Hairline"], _hair_in_front)
    faces.where(faces["hairy"] & faces["Receding_Hairline"], _receding_hair)
    faces.window(0, 50, 0, 64).where(faces["Bangs"], _bangs)
    faces.window(16, 54, 2, 62).where(faces["Eyeglasses"], _glasses)
    faces.window(0, 50, 0, 64).where(faces["Wearing_Hat"], _hat)
    angle = math.pi * (1 + by_name["light from"])
    light = drawing.half_plane(points.expand(n, SIZE, SIZE, 2), (0.0, 0.0), angle)
    canvas = faces.canvas * (1 + 0.22 * (by_name["light strength"][:, None, None] * light))[:, None]
    return (canvas.clamp(0, 1) * 255).round().to(torch.uint8)


def _background(f: _Faces, points: Tensor) -> None:
    value = 0.45 + 0.5 * f["background lightness"]
    low, high = _hue(f["background hue"], 0.38, value), _hue(f["background hue"] + 0.06, 0.26, value + 0.06)
    everywhere = points.expand(len(value), SIZE, SIZE, 2)
    f.canvas.copy_(drawing.blend(everywhere, high, low))
    angle = 2 * math.pi * f["background spot"]
    spot = drawing.ellipse(everywhere, 0.85 * _xy(angle.cos(), angle.sin()), 0.55)
    f.canvas.copy_(drawing.paint(f.canvas, spot, _hue(f["background hue"] + 0.1, 0.2, value + 0.12), 0.3, 0.7))


def _body(f: _Faces) -> None:
    wide = torch.where(f["Male"], 1.0, 0.0)
    shirt = _hue(f["clothes hue"], 0.5, 0.72)
    shoulders = drawing.ellipse(f.points, (0.0, 2.42), _xy(1.40 + 0.32 * wide, 1.02))
    y = f.points[..., 1]
    stripes = torch.where((f["clothes pattern"] > 0.6)[:, None, None] & ((y * 3.2) % 1 < 0.5), 0.82, 1.0)
    f.put(shoulders, shirt[..., None, None] * stripes[:, None])
    neckline = torch.where(f["clothes pattern"] > 0.3, 0.24, 0.42)
    f.put(drawing.ellipse(f.points, (0.0, 1.42), _xy(0.40 + 0.1 * wide, neckline)), f["skin shade"])
    f.put(drawing.box(f.points, (0.0, 1.1), _xy(0.30 + 0.13 * wide, 0.42)), f["skin shade"])


def _skull(f: _Faces) -> Tensor:
    top = drawing.ellipse(f.points, (0.0, -0.12), _xy(f["w"], 1.13))
    jaw = drawing.ellipse(f.points, _xy(0.0, f["chin"] - 0.86), _xy(f["w"] * f["square"] + 0.12, 0.86))
    return drawing.union(top, jaw)


def _head(f: _Faces) -> None:
    for side in (-1.0, 1.0):
        ear = drawing.ellipse(f.points, _xy(side * (f["w"] + 0.02) - 0.3 * f["turned"], 0.12 + 0.5 * f["nodded"]), _xy(0.15, 0.23))
        f.put(ear, f["skin line"])
        f.put(ear + 0.05, f["skin shade"])
    skull = _skull(f)
    away = torch.where(f["light from"] < 0.5, 1.0, -1.0)
    shade = (0.5 + 0.9 * f.points[..., 0] * away[:, None, None]).clamp(0, 1) * f["light strength"][:, None, None] * 0.6
    skin, dark = f["skin"][..., None, None], f["skin shade"][..., None, None]
    f.put(skull, f["skin line"])
    f.put(skull + 0.045, skin + shade[:, None] * (dark - skin))


def _age(f: _Faces) -> None:
    strength = f["old"]
    for y, half in ((-0.52, 0.34), (-0.66, 0.28)):
        line = drawing.polyline(f.moved(0.0, y), drawing.bezier((-half, 0.03), (0.0, -0.05), (half, 0.03), 3)) - 0.018
        f.put(line, f["skin line"], 0.75 * strength)
    for side in (-1.0, 1.0):
        fold = drawing.polyline(f.moved(0.0, 0.0), drawing.bezier((side * 0.22, 0.44), (side * 0.42, 0.56), (side * 0.46, 0.82), 3))
        f.put(fold - 0.02, f["skin line"], 0.75 * strength)
        bag = drawing.polyline(f.moved(0.0, 0.0), drawing.bezier((side * 0.26, 0.24), (side * 0.40, 0.36), (side * 0.56, 0.24), 3))
        f.put(bag - 0.018, f["skin line"], 0.6 * strength)


def _makeup(f: _Faces) -> None:
    shadow = _hue(0.55 + 0.4 * f["accent hue"], 0.6, 0.72)
    blush = f["skin"] * torch.tensor([0.98, 0.55, 0.62])
    for side in (-1.0, 1.0):
        f.put(drawing.ellipse(f.moved(side * 0.56, 0.46), (0.0, 0.0), _xy(0.24, 0.16)), blush, 0.6, 0.24)
        f.put(drawing.ellipse(f.moved(side * 0.41, -0.08), (0.0, 0.0), _xy(0.27, 0.20)), shadow, 0.85, 0.1)


def _eyes(f: _Faces) -> None:
    big = 0.9 + 0.25 * f["eye size"] + 0.06 * torch.where(f["Male"], 0.0, 1.0)
    iris = _mix(EYES, f["eye colour"])
    lined = torch.where(f["Heavy_Makeup"], 0.055, torch.where(f["Male"], 0.022, 0.034))
    look = _xy(0.25 * f["turned"], 0.25 * f["nodded"])
    for side in (-1.0, 1.0):
        at = f.moved(side * 0.41, 0.04)
        white = drawing.ellipse(at, (0.0, 0.0), _xy(0.195 * big, 0.165 * big))
        f.put(white, (0.98, 0.98, 0.97))
        f.put(drawing.intersection(white, drawing.ellipse(at, look, 0.125 * big[:, None])), iris)
        f.put(drawing.ellipse(at, look, 0.062 * big[:, None]), (0.04, 0.03, 0.04))
        f.put(drawing.ellipse(at, look + torch.tensor([-0.045, -0.05]), 0.042), (1.0, 1.0, 1.0))
        lid = drawing.polyline(at, drawing.arc((0.0, 0.0), _xy(0.2 * big, 0.17 * big), math.pi * 1.02, math.pi * 1.98, 5))
        f.put(lid - lined[:, None, None], (0.10, 0.07, 0.07))
        lash = drawing.segment(at, _xy(side * 0.17 * big, -0.08), _xy(side * 0.30 * big, -0.19))
        f.put(lash - lined[:, None, None], (0.10, 0.07, 0.07), torch.where(f["Heavy_Makeup"], 1.0, torch.where(f["Male"], 0.0, 0.6)))


def _brows(f: _Faces) -> None:
    bushy, male = f["Bushy_Eyebrows"], f["Male"]
    thick = torch.where(bushy, 0.105, torch.where(male, 0.045, 0.03))
    arch = torch.where(male, 0.05, 0.11)
    for side in (-1.0, 1.0):
        inner, outer = _xy(side * torch.where(bushy, 0.16, 0.22), -0.27), _xy(side * 0.66, torch.where(male, -0.25, -0.23))
        path = drawing.bezier(inner, _xy(side * 0.45, -0.34 - arch), outer, 4)
        f.put(drawing.polyline(f.moved(0.0, 0.0), path) - thick[:, None, None], f["brow"])


def _nose(f: _Faces) -> None:
    half = 0.09 + 0.06 * f["nose size"] + 0.02 * f["Male"]
    at = f.moved(0.35 * f["turned"], 0.38)
    side = torch.where(f["turned"] < 0, -1.0, 1.0)
    ridge = drawing.polyline(at, drawing.bezier(_xy(side * 0.03, -0.24), _xy(side * 0.07, -0.10), _xy(side * half, 0.02), 3)) - 0.016
    f.put(ridge, f["skin line"], 0.45)
    f.put(drawing.polyline(at, drawing.bezier(_xy(-half, 0.02), _xy(0.0, 0.15), _xy(half, 0.02), 4)) - 0.024, f["skin line"], 0.85)


def _mouth(f: _Faces) -> None:
    smiling, parted, makeup = f["Smiling"], f["Mouth_Slightly_Open"], f["Heavy_Makeup"]
    at = f.moved(0.15 * f["turned"], 0.76)
    half = (0.27 + 0.08 * f["mouth width"]) * torch.where(smiling, 1.25, torch.where(parted, 0.72, 1.0))
    lips = torch.where(makeup[:, None], _hue(0.93 + 0.1 * f["accent hue"], 0.85, 0.80), f["skin line"] * torch.tensor([1.12, 0.85, 0.88]))
    thick = torch.where(makeup, 0.075, torch.where(f["Male"], 0.028, 0.042))
    left, right = (_xy(s * half, torch.where(smiling, -0.13, 0.0)) for s in (-1.0, 1.0))
    upper = drawing.bezier(left, _xy(0.0, torch.where(smiling, 0.06, torch.where(parted, -0.20, -0.04))), right, 6)
    lower = drawing.bezier(right, _xy(0.0, torch.where(smiling, 0.58, 0.28)), left, 6)
    line = drawing.bezier(left, _xy(0.0, torch.where(smiling, 0.34, 0.02)), right, 6)

    def open_mouth(g: _Faces) -> None:
        path = torch.cat([g["upper"][:, :-1], g["lower"][:, :-1]], 1)
        hole = drawing.polygon(g["mouth at"], path)
        g.put(hole - g["lip"][:, None, None], g["lips"])
        g.put(hole, (0.32, 0.06, 0.08))
        high, deep = torch.where(g["Smiling"], -0.06, -0.14), torch.where(g["Smiling"], 0.17, 0.12)
        teeth = drawing.ellipse(g["mouth at"], _xy(0.0, high), _xy(g["half"] * 0.86, deep))
        g.put(drawing.intersection(hole + 0.01, teeth), (0.98, 0.97, 0.94))

    def closed_mouth(g: _Faces) -> None:
        stroke = drawing.polyline(g["mouth at"], g["line"])
        full = drawing.ellipse(g["mouth at"], _xy(0.0, torch.where(g["Smiling"], 0.07, 0.0)), _xy(g["half"] * 0.72, 0.13))
        g.put(full, g["lips"], torch.where(g["Heavy_Makeup"], 1.0, torch.where(g["Male"], 0.25, 0.5)))
        g.put(stroke - g["lip"][:, None, None] * 0.8, g["lips"] * 0.8)

    f.at.update({"mouth at": at, "half": half, "lips": lips, "lip": thick, "upper": upper, "lower": lower, "line": line})
    f.where(parted, open_mouth)
    f.where(~parted, closed_mouth)


def _mustache(f: _Faces) -> None:
    for side in (-1.0, 1.0):
        at = f.moved(side * 0.20 + 0.15 * f["turned"], 0.63, side * 0.28)
        f.put(drawing.ellipse(at, (0.0, 0.0), (0.28, 0.105)), f["brow"])


def _bald(f: _Faces) -> None:
    for side in (-1.0, 1.0):
        rim = drawing.ellipse(f.points, _xy(side * (f["w"] - 0.02), -0.16), _xy(0.15, 0.36))
        f.put(rim, f["hair"], torch.where(f["rim"], 1.0, 0.0))
    side = torch.where(f["light from"] < 0.5, -1.0, 1.0)
    f.put(drawing.ellipse(f.points, _xy(side * 0.36, -0.88), _xy(0.24, 0.12)), (1.0, 1.0, 1.0), 0.55, 0.16)


def _strands(f: _Faces) -> Tensor:
    """The colour of hair as a picture: combed where it is straight, in waves where it is wavy, even otherwise."""
    x, y = f.points.unbind(-1)
    even = 0.10 * (-(((x + 0.25) / 0.5) ** 2) - ((y + 0.95) / 0.25) ** 2).exp()
    combed = 0.13 * torch.cos(22 * x / (1.0 + 0.25 * y.clamp(-1, 1)))
    waves = 0.16 * torch.cos(13 * x + 2.2 * torch.sin(7.5 * y))
    lift = torch.where(f["Straight_Hair"][:, None, None], combed, torch.where(f["Wavy_Hair"][:, None, None], waves, even))
    # dark hair shows its strands by shine, light hair by shadow
    hair, lift = f["hair"][..., None, None], lift[:, None]
    return (hair * (1 + lift) + 0.35 * lift.clamp(min=0) * (1 - hair)).clamp(0, 1)


def _outline(f: _Faces) -> Tensor:
    """How far the hair's outer edge stands out, by the direction from the head's centre: spikes, curls or nothing."""
    x, y = f.points.unbind(-1)
    angle = torch.atan2(y + 0.2, x)
    spikes = torch.where(f["long"], 0.05, 0.16)[:, None, None] * ((angle * 3.4) % 1)
    curls = 0.20 * torch.sin(4.5 * angle + 0.8).abs()
    return torch.where(f["Straight_Hair"][:, None, None], spikes, torch.where(f["Wavy_Hair"][:, None, None], curls, 0.0))


def _hair_behind(f: _Faces) -> None:
    y = f.points[..., 1]
    low = 0.25 + 1.45 * f["length"]
    wide = f["w"] + 0.16 + 0.12 * f["hair volume"]
    wave = torch.where(f["Wavy_Hair"][:, None, None], 0.13 * torch.sin(6.5 * y) - 0.06, 0.0)
    fall = drawing.box(f.points, _xy(0.0, (low - 0.5) / 2), _xy(wide, (low + 0.5) / 2), torch.where(f["Straight_Hair"], 0.08, 0.45)) + wave
    colour = _strands(f) * 0.86
    f.put(fall, colour)


def _receding_hair(f: _Faces) -> None:
    temples = [drawing.ellipse(f.moved(0.0, 0.0), _xy(s * 0.48, -0.72), (0.34, 0.46)) for s in (-1.0, 1.0)]
    _hair_in_front(f, -1.02, drawing.intersection(drawing.union(*temples), _skull(f) + 0.06))


def _hair_in_front(f: _Faces, hairline: float = -0.70, bare: Tensor | None = None) -> None:
    y = f.points[..., 1]
    volume = 0.10 + 0.14 * f["hair volume"]
    cap = drawing.ellipse(f.points, (0.0, -0.2), _xy(f["w"] + 0.10 + 0.5 * volume, 1.08 + volume)) - _outline(f)
    opening = drawing.ellipse(f.moved(-0.4 * f["turned"], 0.0), _xy(0.0, hairline + 1.3), _xy(0.93 * f["w"], 1.3))
    opening = opening if bare is None else drawing.union(opening, bare)
    reach = torch.where(f["long"], 0.3 + 1.1 * f["length"], 0.0)
    below = y - reach[:, None, None]
    hair = drawing.intersection(drawing.difference(cap, opening), below)
    hair = torch.where(f["Wearing_Hat"][:, None, None], torch.maximum(hair, -0.62 - y), hair)
    f.put(hair, _strands(f))


def _bangs(f: _Faces) -> None:
    x, y = f.points.unbind(-1)
    saw = 0.12 * ((x * 3.1 + 0.2) % 1)
    scallops = 0.14 * torch.sin(5.0 * x + 0.7).abs()
    edge = torch.where(f["Straight_Hair"][:, None, None], saw, torch.where(f["Wavy_Hair"][:, None, None], scallops, 0.05 * x))
    cap = drawing.ellipse(f.points, (0.0, -0.2), _xy(f["w"] + 0.02, 1.1))
    fringe = drawing.intersection(cap, y - edge + 0.30 - 0.6 * f["nodded"][:, None, None])
    fringe = torch.where(f["Wearing_Hat"][:, None, None], torch.maximum(fringe, -0.62 - y), fringe)
    f.put(fringe, _strands(f) * 0.94)


def _glasses(f: _Faces) -> None:
    dark = f["glasses shape"] > 0.8
    frame = torch.where((f["accent hue"] < 0.45)[:, None], torch.tensor([0.08, 0.07, 0.09]), f["accent"] * 0.8)
    glass = torch.where(dark[:, None], torch.tensor([0.07, 0.07, 0.10]), torch.tensor([0.85, 0.93, 1.0]))
    corner = 0.06 + 0.2 * ((f["glasses shape"] * 2.5) % 1)
    for side in (-1.0, 1.0):
        lens = drawing.box(f.moved(side * 0.42, 0.05), (0.0, 0.0), (0.33, 0.27), corner)
        f.put(lens, glass, torch.where(dark, 0.93, 0.16))
        f.put(drawing.segment(f.moved(side * 0.42, 0.05), (-0.12, 0.1), (0.04, -0.14)) - 0.03, (1.0, 1.0, 1.0), 0.4)
        f.put(drawing.outline(lens, 0.095), frame)
        f.put(drawing.segment(f.moved(0.0, 0.0), (side * 0.75, -0.02), (side * 1.0, -0.06)) - 0.045, frame)
    f.put(drawing.segment(f.moved(0.0, 0.02), (-0.1, 0.0), (0.1, 0.0)) - 0.045, frame)


def _hat(f: _Faces) -> None:
    shape = f["hat shape"]
    hue = torch.where((f["accent hue"] > 0.85)[:, None], torch.tensor([0.22, 0.22, 0.26]), f["accent"])

    def beanie(g: _Faces) -> None:
        y = g.points[..., 1]
        dome = drawing.ellipse(g.points, (0.0, -0.55), _xy(g["w"] + 0.16, 1.0))
        g.put(drawing.ellipse(g.points, (0.0, -1.62), 0.22), (0.97, 0.96, 0.93))
        g.put(drawing.intersection(dome, y + 0.5), g["cloth"])
        g.put(drawing.box(g.points, (0.0, -0.56), _xy(g["w"] + 0.2, 0.17), 0.12), g["cloth"] * 0.74)

    def brimmed(g: _Faces) -> None:
        g.put(drawing.box(g.points, (0.0, -1.15), _xy(g["w"] * 0.82, 0.52), 0.3), g["cloth"])
        g.put(drawing.box(g.points, (0.0, -0.80), _xy(g["w"] * 0.82, 0.13)), g["cloth"] * 0.5)
        g.put(drawing.ellipse(g.points, (0.0, -0.60), _xy(g["w"] + 0.62, 0.17)), g["cloth"] * 0.85)

    def cap(g: _Faces) -> None:
        y = g.points[..., 1]
        dome = drawing.ellipse(g.points, (0.0, -0.5), _xy(g["w"] + 0.12, 0.98))
        g.put(drawing.intersection(dome, y + 0.52), g["cloth"])
        g.put(drawing.ellipse(g.points, (0.0, -1.47), (0.12, 0.07)), g["cloth"] * 0.7)
        g.put(drawing.ellipse(g.moved(0.6 * g["turned"], -0.9), (0.0, 0.0), 0.2), (0.97, 0.96, 0.93), 0.9)
        visor = drawing.ellipse(g.points, _xy(1.6 * g["turned"], -0.50), _xy(g["w"] + 0.02, 0.2))
        g.put(visor, g["cloth"] * 0.62)

    f.at["cloth"] = hue
    f.where(shape < 0.4, beanie)
    f.where((shape >= 0.4) & (shape < 0.7), brimmed)
    f.where(shape >= 0.7, cap)


# --- the data set --------------------------------------------------------------------------------------------------------

PARTS = {"train": 20_000, "validation": 2_000, "test": 2_000}


def drawn_faces(n: int, seed: int = 0) -> Part:
    """n drawn faces: `image` [n, 3, 64, 64] in 256 levels, `attributes` [n, 18] of 0 and 1; the fact `style` [n, style].

    The same seed gives the same faces in any process of a machine.  Raises ValueError unless n is at least 1.
    """
    check_positive("n", n)
    generator = torch.Generator().manual_seed(seed)
    attributes, style = sample_attributes(n, generator), sample_style(n, generator)
    return Part({"image": draw(attributes, style), "attributes": attributes.float()}, facts={"style": style})


def faces(
    source: str = "best",
    *,
    download: bool = False,
    seed: int = 0,
    train: int | None = None,
    validation: int | None = None,
    test: int | None = None,
) -> MultimodalSet:
    """Faces: `image` [items, 3, 64, 64] in 256 levels of [0, 1], `attributes` [items, 18] of 0 and 1, named in `class_names`.

    source: `best` takes CelebA where its folder is and draws cartoon faces elsewhere; `real` and `stand-in` insist.
    train, validation, test: how many of each; unless given all of CelebA, or 20 000, 2 000 and 2 000 drawn ones.
    download: changes nothing, as CelebA must be fetched by hand.  seed: of the drawn faces.

    Raises KeyError for an unknown source, FileNotFoundError where CelebA is asked for and missing, and as `celeba` does.
    """
    check_name("source", source, SOURCES)
    sizes = {"train": train, "validation": validation, "test": test}
    if source == "real" or (source == "best" and celeba_folder() is not None):
        return celeba(**sizes)
    for name, size in sizes.items():
        if size is not None:
            check_positive(name, size)
    # no two parts of any two seeds are drawn with one generator
    parts = {name: drawn_faces(sizes[name] or n, 3 * seed + i) for i, (name, n) in enumerate(PARTS.items())}
    return MultimodalSet("cartoon-faces", "drawn cartoon faces with 18 attributes", True, **parts, class_names=ATTRIBUTES)
