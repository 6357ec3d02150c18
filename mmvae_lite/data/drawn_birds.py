"""Drawn birds with captions: a stand-in for CUB (Wah et al. 2011) with the captions of Reed et al. (2016).

A species is a distribution over attributes; a bird is one draw of them.  Its picture and its captions are both made from
the attributes, and every caption names only some of them, so that neither can be told from the other exactly.  The
species of the test partition are never seen in training, as in CUB.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from mmvae_lite.checks import check_positive
from mmvae_lite.data.bird_captions import Caption, band_colour, describe, wing_mark
from mmvae_lite.data.captions import Vocabulary
from mmvae_lite.data.drawing import ellipse, grid, intersection, paint, smooth_union, tapered, union
from mmvae_lite.data.parts import MultimodalSet, Part

COLOURS = {
    "black": (0.10, 0.10, 0.12),
    "white": (0.96, 0.96, 0.94),
    "grey": (0.56, 0.58, 0.61),
    "brown": (0.46, 0.29, 0.14),
    "red": (0.85, 0.12, 0.12),
    "orange": (0.97, 0.55, 0.08),
    "yellow": (0.97, 0.87, 0.15),
    "green": (0.22, 0.58, 0.22),
    "blue": (0.14, 0.37, 0.86),
    "purple": (0.55, 0.24, 0.70),
    "pink": (0.97, 0.60, 0.70),
}
PLUMAGE = tuple(COLOURS)[:10]
HORN = ("black", "grey", "yellow", "orange", "red", "pink")

ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "shape": ("songbird", "wren", "swallow", "wader", "duck", "hawk"),
    "bill": ("cone", "needle", "long", "hooked", "flat", "curved"),
    "size": ("small", "medium", "large"),
    "crest": ("no", "yes"),
    "crown": PLUMAGE,
    "head": PLUMAGE,
    "throat": PLUMAGE,
    "back": PLUMAGE,
    "wing": PLUMAGE,
    "belly": PLUMAGE,
    "tail": PLUMAGE,
    "wing pattern": ("plain", "bar", "bars", "spots"),
    "belly pattern": ("plain", "streaks", "spots", "band"),
    "face": ("plain", "mask", "eyebrow"),
    "eye ring": ("none", "white", "yellow"),
    "bill colour": HORN,
    "legs": HORN,
    "pose": ("level", "upright", "feeding"),
    "facing": ("left", "right"),
    "scene": ("branch", "wire", "grass", "sand", "snow", "water"),
    "light": ("day", "dusk", "overcast"),
}
"""The attributes of a drawn bird and their values; a bird is a row of value numbers, in this order."""

COLUMN = {name: i for i, name in enumerate(ATTRIBUTES)}

BILLS = {"songbird": "cone needle curved", "wren": "needle cone curved", "swallow": "needle", "wader": "long curved", "duck": "flat", "hawk": "hooked"}
SCENES = {
    "songbird": "branch wire grass snow", "wren": "branch grass sand snow", "swallow": "wire branch", "wader": "sand water grass",
    "duck": "water grass snow", "hawk": "branch wire",
}  # fmt: skip
SIZES = {"songbird": "small medium", "wren": "small", "swallow": "small medium", "wader": "medium large", "duck": "medium large", "hawk": "large medium"}

# a mark, and the colour of what it is on that would hide it
HIDDEN = (
    ("face", "mask", "head", "black"), ("face", "eyebrow", "crown", "white"), ("face", "eyebrow", "head", "white"),
    ("eye ring", "white", "head", "white"), ("eye ring", "yellow", "head", "yellow"),
)  # fmt: skip

# body length, body height, tilt, neck length, neck angle, head radius, tail length, tail angle, leg length
FORMS = {
    "songbird": (0.40, 0.25, 0.50, 0.17, 0.95, 0.195, 0.40, 0.42, 0.20),
    "wren": (0.31, 0.27, 0.20, 0.16, 0.75, 0.200, 0.30, -0.95, 0.17),
    "swallow": (0.46, 0.165, 0.42, 0.10, 0.60, 0.150, 0.62, 0.30, 0.10),
    "wader": (0.36, 0.20, 0.12, 0.40, 1.15, 0.135, 0.20, 0.15, 0.52),
    "duck": (0.47, 0.235, 0.02, 0.24, 1.10, 0.165, 0.24, -0.30, 0.12),
    "hawk": (0.43, 0.27, 1.02, 0.12, 1.20, 0.190, 0.42, 1.12, 0.14),
}


def _generator(purpose: str) -> torch.Generator:
    digest = hashlib.sha256(f"birds/{purpose}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


def species(number: int, seed: int | str = 0) -> Float[Tensor, "species attributes values"]:
    """So many species: for each the probability of every value of every attribute, [species, attributes, 11].

    No two species agree in the likeliest values of all attributes that do not belong to the moment of the picture.
    """
    check_positive("number", number)
    g = _generator(f"species/{seed}")
    found, seen = [], set()
    while len(found) < number:
        modes = _modes(g)
        key = tuple(modes[name][0] for name in list(ATTRIBUTES)[: COLUMN["pose"]])
        if key not in seen:
            seen.add(key)
            found.append(_table(modes, g))
    return torch.stack(found)


def _pick(options: tuple | list | str, g: torch.Generator) -> str:
    options = options.split() if isinstance(options, str) else options
    return options[int(torch.randint(len(options), (), generator=g))]


def _modes(g: torch.Generator) -> dict[str, tuple[str, ...]]:
    """The values of each attribute that a species may have, the likeliest first."""
    shape = _pick(ATTRIBUTES["shape"], g)
    main, under, accent = _pick(PLUMAGE, g), _pick(PLUMAGE, g), _pick(PLUMAGE, g)
    while under == main:
        under = _pick(("white", "white", "yellow", "grey", *PLUMAGE), g)
    dark = _pick(("black", "brown", "grey", main), g)
    head = _pick((main, main, accent, dark), g)
    wing = _pick((main, dark, dark, accent), g)
    plain = ("plain",)
    modes = {
        "shape": (shape,),
        "bill": (_pick(BILLS[shape], g),),
        "size": (_pick(SIZES[shape], g),),
        "crest": (_pick("no no yes", g),),
        "crown": (_pick((head, accent, "black", "red"), g), head),
        "head": (head, dark),
        "throat": (_pick((under, head, accent, "white"), g), under),
        "back": (main, dark),
        "wing": (wing, dark),
        "belly": (under, _pick(("white", "grey"), g)),
        "tail": (_pick((wing, main, dark), g), wing),
        "wing pattern": (_pick((*plain, *ATTRIBUTES["wing pattern"]), g),),
        "belly pattern": (_pick((*plain, *ATTRIBUTES["belly pattern"]), g),),
        "face": (_pick((*plain, *ATTRIBUTES["face"]), g),),
        "eye ring": (_pick(("none", *ATTRIBUTES["eye ring"]), g),),
        "bill colour": (_pick(HORN, g), _pick(HORN, g)),
        "legs": (_pick(HORN, g), _pick(HORN, g)),
        "pose": ATTRIBUTES["pose"],
        "facing": ATTRIBUTES["facing"],
        "scene": tuple(SCENES[shape].split()),
        "light": ATTRIBUTES["light"],
    }
    return modes


def _table(modes: Mapping[str, tuple[str, ...]], g: torch.Generator) -> Float[Tensor, "attributes values"]:
    table = torch.zeros(len(ATTRIBUTES), max(map(len, ATTRIBUTES.values())))
    for name, values in modes.items():
        weight = torch.rand(len(values), generator=g) + 0.2
        if COLUMN[name] < COLUMN["pose"]:  # a species looks alike but for a few birds
            weight[0] = 8.0
        for value, share in zip(values, (weight / weight.sum()).tolist()):
            table[COLUMN[name], ATTRIBUTES[name].index(value)] += share
    return table


def sample(probabilities: Float[Tensor, "birds attributes values"], generator: torch.Generator) -> Int[Tensor, "birds attributes"]:
    """One draw of every attribute of every bird; hawks, swallows and swimming ducks do not feed, no mark is of the colour that it is on."""
    n, names, values = probabilities.shape
    drawn = torch.multinomial(probabilities.reshape(n * names, values), 1, generator=generator).view(n, names)
    upright, feeding = (ATTRIBUTES["pose"].index(p) for p in ("upright", "feeding"))
    shape = drawn[:, COLUMN["shape"]]
    perched = (shape == ATTRIBUTES["shape"].index("hawk")) | (shape == ATTRIBUTES["shape"].index("swallow"))
    pose = drawn[:, COLUMN["pose"]]
    drawn[:, COLUMN["pose"]] = torch.where(perched & (pose == feeding), torch.full_like(pose, upright), pose)
    afloat = _value(drawn, "shape", "duck") & _value(drawn, "scene", "water")  # its head would be under water
    drawn[:, COLUMN["pose"]] = torch.where(afloat, torch.zeros_like(pose), drawn[:, COLUMN["pose"]])
    for name, value, on, colour in HIDDEN:
        drawn[_value(drawn, name, value) & _value(drawn, on, colour), COLUMN[name]] = 0
    return drawn


def _value(attributes: Tensor, name: str, value: str) -> Tensor:
    return attributes[:, COLUMN[name]] == ATTRIBUTES[name].index(value)


def _colour(attributes: Tensor, name: str, jitter: Tensor) -> Tensor:
    table = torch.tensor([COLOURS[c] for c in ATTRIBUTES[name]])
    return (table[attributes[:, COLUMN[name]]] + 0.06 * (jitter - 0.5)).clamp(0, 1)


JITTER = 40


@torch.no_grad()
def draw(
    attributes: Int[Tensor, "birds attributes"], jitter: Float[Tensor, "birds numbers"], side: int = 64, chunk: int = 16
) -> UInt8[Tensor, "birds 3 side side"]:
    """Pictures of birds.  jitter: `JITTER` numbers in [0, 1] for each, which move, tint and resize it a little."""
    return torch.cat([_draw(a, j, side) for a, j in zip(attributes.split(chunk), jitter.split(chunk))])


# The first part of a bill and the second, from its base, and the radii at base, bend and tip.
BILL_FORMS = {
    "cone": (0.09, 0.00, 0.17, 0.02, 0.085, 0.055, 0.005),
    "needle": (0.11, 0.00, 0.23, 0.01, 0.040, 0.030, 0.008),
    "long": (0.22, 0.02, 0.47, 0.06, 0.045, 0.032, 0.014),
    "hooked": (0.09, 0.00, 0.13, 0.10, 0.075, 0.060, 0.010),
    "flat": (0.14, 0.05, 0.29, 0.03, 0.060, 0.050, 0.055),
    "curved": (0.16, 0.02, 0.29, 0.16, 0.050, 0.038, 0.012),
}
SKY = {"day": ((0.50, 0.74, 0.95), (0.84, 0.93, 0.99)), "dusk": ((0.50, 0.42, 0.62), (0.99, 0.74, 0.50)), "overcast": ((0.60, 0.63, 0.67), (0.80, 0.81, 0.83))}
GROUND = {
    "branch": (0.36, 0.25, 0.16), "wire": (0.20, 0.20, 0.22), "grass": (0.42, 0.66, 0.28), "sand": (0.88, 0.77, 0.56),
    "snow": (0.93, 0.95, 0.99), "water": (0.30, 0.52, 0.66),
}  # fmt: skip
TINT = {"day": (1.0, 1.0, 1.0), "dusk": (0.98, 0.87, 0.82), "overcast": (0.88, 0.89, 0.91)}
SCALE = {"small": 0.82, "medium": 0.98, "large": 1.14}
BULK = {"songbird": 1.04, "wren": 1.12, "swallow": 1.02, "wader": 0.84, "duck": 0.86, "hawk": 0.98}
INK = (0.12, 0.10, 0.10)
FEET = 0.60


def _rows(table: Mapping[str, object], name: str, attributes: Tensor) -> Tensor:
    return torch.tensor([table[value] for value in ATTRIBUTES[name]], dtype=torch.float32)[attributes[:, COLUMN[name]]]


def _at(x: Tensor, y: Tensor) -> Tensor:
    return torch.stack([x, y], -1)


def _turn(angle: Tensor) -> Tensor:
    """The direction so many radians above the horizon, facing right."""
    return _at(angle.cos(), -angle.sin())


def _along(points: Tensor, origin: Tensor, direction: Tensor) -> Tensor:
    """How far each point lies from the origin in a direction [birds, 2]."""
    (x, y), (ox, oy), (dx, dy) = points.unbind(-1), *(v[:, None, None].unbind(-1) for v in (origin, direction))
    return (x - ox) * dx + (y - oy) * dy


def _draw(attributes: Tensor, jitter: Tensor, side: int) -> Tensor:
    is_ = lambda name, value: _value(attributes, name, value)  # noqa: E731
    one = lambda name, value: is_(name, value).float()  # noqa: E731
    noise = iter((2 * jitter - 1).unbind(1))
    wobble = lambda size: size * next(noise)  # noqa: E731
    hue = {name: _colour(attributes, name, jitter[:, 30 + i, None]) for i, name in enumerate(
        ("crown", "head", "throat", "back", "wing", "belly", "tail", "bill colour", "legs"))}  # fmt: skip
    everywhere = grid(side)

    canvas = _scene(attributes, everywhere, one, wobble)

    scale = _rows(SCALE, "size", attributes) * _rows(BULK, "shape", attributes) * (1 + wobble(0.05))
    mirror = 1 - 2 * one("facing", "left")
    feet = _at(mirror * (-0.05 - 0.14 * one("shape", "wader")) + wobble(0.06), FEET + 0 * scale)
    offsets = ((everywhere[..., i] - feet[:, i, None, None]) / size[:, None, None] for i, size in enumerate((mirror * scale, scale)))
    points = torch.stack(list(offsets)).movedim(0, -1)
    softness = 2 / side / scale

    def put(distance: Tensor, colour: object, opacity: Tensor | float = 1.0, ink: float = 0.0) -> None:
        nonlocal canvas
        if ink:
            canvas = paint(canvas, distance - ink, INK, softness, 0.8 * opacity)
        canvas = paint(canvas, distance, colour, softness, opacity)

    form = _rows(FORMS, "shape", attributes)
    length, height, tilt, neck, neck_angle, radius, tail, tail_angle, leg = form.unbind(1)
    swims = one("shape", "duck") * one("scene", "water")
    feeding, upright = one("pose", "feeding"), one("pose", "upright")
    tilt = tilt + 0.22 * upright - 0.42 * feeding + wobble(0.06)
    neck_angle = neck_angle + 0.15 * upright - 1.35 * feeding + wobble(0.08)
    pitch = wobble(0.12) - 0.55 * feeding
    leg = leg * (1 - swims) - 0.02 * swims
    forward, up = _turn(tilt), _turn(tilt + torch.pi / 2)
    centre = _at(wobble(0.03), -(leg + height * (0.85 + 0.45 * tilt.clamp_min(0).sin())))
    base = centre + forward * (0.68 * length)[:, None] + up * (0.15 * height)[:, None]
    head = base + _turn(neck_angle) * neck[:, None]
    tail_end_angle = tail_angle + torch.where(is_("shape", "hawk"), 0.3 * upright, 0.12 * upright) - 0.2 * feeding + wobble(0.08)
    along = _at(-tail_end_angle.cos(), tail_end_angle.sin())
    rump = centre - forward * (0.72 * length)[:, None]
    tip = rump + along * (tail + 0.15 * length)[:, None]

    # tail, legs
    fork = one("shape", "swallow")
    across = _at(-along[:, 1], along[:, 0]) * (0.03 + 0.10 * fork)[:, None]
    width = 0.075 - 0.05 * fork
    feathers = union(*(tapered(points, rump, tip + s * across, 0.30 * height, width) for s in (1.0, -1.0)))
    put(feathers, hue["tail"], ink=0.025)
    knee = centre - up * (0.55 * height)[:, None]
    for step in (0.07, -0.06):
        foot = _at(0 * leg + step, 0 * leg)
        limb = union(tapered(points, knee + _at(0 * leg + step, 0 * leg), foot, 0.030, 0.022), tapered(points, foot, foot + torch.tensor([0.09, 0.01]), 0.025, 0.015))
        put(limb, hue["legs"], 1 - swims, ink=0.012)

    # the crest lies behind the head
    behind = head + _at(-1.25 * radius, -1.45 * radius)
    put(tapered(points, head + _at(-0.1 * radius, -0.45 * radius), behind, 0.60 * radius, 0.02), hue["crown"], one("crest", "yes"), ink=0.025)

    # body, neck and head in one outline
    lengthwise, upwards = _along(points, centre, forward), _along(points, centre, up)
    body = ellipse(torch.stack([lengthwise, upwards]).movedim(0, -1), (0.0, 0.0), _at(length, height))
    thick = tapered(points, base, head, 0.62 * height, 0.80 * radius)
    skull = ellipse(points, head, _at(1.08 * radius, radius))
    whole = smooth_union(smooth_union(body, thick, 0.12), skull, 0.06)
    put(whole, hue["back"], ink=0.028)

    # underside and its pattern
    below = intersection(whole, upwards + 0.08 * height[:, None, None])
    put(below, hue["belly"])
    dark_belly = one("belly", "black") + one("belly", "brown") + one("belly", "blue") + one("belly", "purple") + one("belly", "green")
    mark = dark_belly[:, None] * torch.tensor(COLOURS["white"]) + (1 - dark_belly[:, None]) * torch.tensor((0.20, 0.14, 0.10))
    cell = 0.15
    row = (lengthwise / cell).floor()
    stripe = lengthwise - cell * (row + 0.5)
    spot = (stripe.square() + ((upwards + 0.5 * cell * row) % cell - cell / 2).square()).sqrt()
    put(intersection(below + 0.02, spot - 0.040), mark, one("belly pattern", "spots"))
    put(intersection(below + 0.02, stripe.abs() - 0.028), mark, one("belly pattern", "streaks"))
    # wing
    shoulder = centre + forward * (0.12 * length)[:, None] + up * (0.12 * height)[:, None]
    wing_tip = centre - forward * ((0.92 + 0.35 * fork) * length)[:, None] + up * (0.05 * height)[:, None]
    wing = tapered(points, shoulder, wing_tip, 0.52 * height, 0.045 + 0 * height)
    put(wing, hue["wing"], ink=0.022)
    inner = wing + 0.015
    for number, at in enumerate((-0.12, 0.14)):
        bar = (lengthwise - at * length[:, None, None] + 0.15 * upwards).abs() - 0.035
        shown = one("wing pattern", "bars") + (one("wing pattern", "bar") if number == 1 else 0)
        put(intersection(inner, bar), _derived(wing_mark, "wing", attributes), shown)
    put(intersection(inner, spot - 0.038), _derived(wing_mark, "wing", attributes), one("wing pattern", "spots"))

    # head
    nape = head + 0.45 * (base - head) * (neck > 0.2)[:, None]
    hood = intersection(whole, tapered(points, head, nape, 1.12 * radius, 0.9 * radius))
    put(hood, hue["head"])
    look = _turn(pitch)
    ahead, above = _along(points, head, look), _along(points, head, _turn(pitch + torch.pi / 2))
    face = torch.stack([ahead, above]).movedim(0, -1)
    r = radius[:, None, None]
    throat = ellipse(face, _at(0.45 * radius, -0.95 * radius), _at(0.72 * radius, 0.80 * radius))
    put(intersection(whole, throat), hue["throat"])
    put(intersection(whole, ellipse(points, head, 1.25 * radius[:, None]), 0.34 * r - above - 0.1 * ahead), hue["crown"])
    put(intersection(whole, (above - 0.06 * r).abs() - 0.27 * r, -0.75 * r - ahead), INK, one("face", "mask"))
    put(intersection(whole, (above - 0.47 * r - 0.1 * ahead).abs() - 0.11 * r, -0.9 * r - ahead), COLOURS["white"], one("face", "eyebrow"))

    # a band across the breast, where the neck begins
    band = (_along(points, base, _turn(0.6 * neck_angle + 0.4 * tilt)) + 0.05).abs() - 0.055
    put(intersection(whole, band), _derived(band_colour, "belly", attributes), one("belly pattern", "band"))

    # bill
    first_x, first_y, second_x, second_y, r0, r1, r2 = _rows(BILL_FORMS, "bill", attributes).unbind(1)
    down = -_turn(pitch + torch.pi / 2)
    stretch = (radius / 0.19).clamp(0.85, 1.05)
    root = head + look * (0.80 * radius)[:, None] + down * (0.12 * radius)[:, None]
    bend = root + look * (stretch * (first_x + 0.03))[:, None] + down * (stretch * first_y)[:, None]
    end = root + look * (stretch * (second_x + 0.03))[:, None] + down * (stretch * second_y)[:, None]
    put(union(tapered(points, root, bend, r0, r1), tapered(points, bend, end, r1, r2)), hue["bill colour"], ink=0.018)

    # eye
    eye = ellipse(face, _at(0.30 * radius, 0.10 * radius), radius[:, None])
    size = 0.055
    ring = one("eye ring", "white")[:, None] * torch.tensor(COLOURS["white"]) + one("eye ring", "yellow")[:, None] * torch.tensor(COLOURS["yellow"])
    dot = eye + r
    put(dot - size - 0.042, ring, 1 - one("eye ring", "none"))
    dark = one("head", "black") + one("face", "mask")
    put(dot - size - 0.016, (0.62, 0.55, 0.46), dark.clamp(max=1) * one("eye ring", "none"))
    put(dot - size, (0.05, 0.04, 0.04))
    shine = ellipse(face, _at(0.30 * radius + 0.015, 0.10 * radius + 0.02), 0.018)
    put(shine, (0.95, 0.95, 0.95), 0.9)

    canvas = _front(canvas, attributes, everywhere, one)
    tint = _rows(TINT, "light", attributes)
    return (canvas * tint[:, :, None, None] * 255).round().clamp(0, 255).to(torch.uint8)


def _derived(rule, on: str, attributes: Tensor) -> Tensor:
    """Colours that follow from another attribute's by the rule that the captions use, [birds, 3]."""
    return _rows({value: COLOURS[rule({on: value})] for value in ATTRIBUTES[on]}, on, attributes)


def _scene(attributes: Tensor, points: Tensor, one, wobble) -> Tensor:
    high, low = (torch.tensor([SKY[v][i] for v in ATTRIBUTES["light"]])[attributes[:, COLUMN["light"]]] for i in (0, 1))
    y = points[..., 1]
    share = (y + 1) / 2
    canvas = torch.lerp(high[:, :, None, None], low[:, :, None, None], share)
    # leaves out of focus behind a branch, a far bank behind ground
    tree = one("scene", "branch")
    for x, y0, size in ((-0.7, -0.6, 0.5), (0.75, -0.2, 0.45), (0.1, 0.95, 0.55)):
        spot = ellipse(points, _at(x + wobble(0.3), y0 + wobble(0.25)), (size + wobble(0.1))[:, None])
        canvas = paint(canvas, spot, (0.52, 0.70, 0.48), 0.5, 0.75 * tree)
    ground = _rows(GROUND, "scene", attributes)
    flat = 1 - tree - one("scene", "wire")
    horizon = y - (FEET - 0.22 + wobble(0.08))[:, None, None]
    shade = (0.86 + 0.22 * ((y - FEET) / (1 - FEET)).clamp(-1, 1)).clamp(0, 1.06)
    canvas = paint(canvas, -horizon, (ground[:, :, None, None] * shade).clamp(0, 1), 0.06, flat)
    # what it sits on
    slope = wobble(0.05)
    bough = tapered(points, _at(-1.2 + 0 * slope, FEET + 0.06 + 1.2 * slope), _at(1.2 + 0 * slope, FEET + 0.06 - 1.2 * slope), 0.075, 0.055)
    canvas = paint(canvas, bough, ground, None, tree)
    canvas = paint(canvas, bough + 0.05, (0.50, 0.37, 0.25), None, tree)
    wire = (y - FEET - 0.02).abs() - 0.022
    return paint(canvas, wire, ground, None, one("scene", "wire"))


def _front(canvas: Tensor, attributes: Tensor, points: Tensor, one) -> Tensor:
    """Water before a swimming or wading bird, blades of grass before its feet, drawn last."""
    x, y = points.unbind(-1)
    water = one("scene", "water")
    ripple = 0.015 * (14 * x).sin() + FEET - 0.05
    canvas = paint(canvas, ripple - y, (0.33, 0.55, 0.69), None, water * (0.55 + 0.4 * one("shape", "duck")))
    for depth in (0.10, 0.26):
        line = (y - FEET - depth - 0.012 * (11 * x + 20 * depth).sin()).abs() - 0.012
        canvas = paint(canvas, line, (0.72, 0.84, 0.90), None, 0.7 * water)
    blade = FEET + 0.06 - 0.07 * (23 * x).sin().abs() - y
    return paint(canvas, blade, (0.33, 0.57, 0.22), None, one("scene", "grass"))


def names_of(row: Int[Tensor, "attributes"]) -> dict[str, str]:
    """A bird's attributes by name."""
    return {name: values[v] for (name, values), v in zip(ATTRIBUTES.items(), row.tolist())}


def captions_of(attributes: Int[Tensor, "birds attributes"], seed: str | int = 0, number: int = 10) -> list[list[Caption]]:
    """So many captions of each bird; those of a bird depend on the seed and its place alone."""
    return [describe(names_of(row), random.Random(f"captions/{seed}/{i}"), number) for i, row in enumerate(attributes)]


def drawn_birds(train_species: int = 150, test_species: int = 50, each: int = 40, captions: int = 10, seed: int = 0) -> MultimodalSet:
    """Drawn birds with captions: `image` [3, 64, 64], 256 levels, and `caption`, word numbers of [32] positions.

    each: birds of a species; captions: of a bird.  A tuple is a bird with one of its captions, in this order, so that
    its image is that of tuple number div `captions`.  The words are those of the training captions, and
    `Vocabulary(data.words)` reads them.  Facts: `attributes` [tuples, attributes] as numbers of `ATTRIBUTES`.  Classes are species, those of the
    test partition after those of training.

    Raises ValueError for numbers below 1.
    """
    for name, value in (("each", each), ("captions", captions), ("train_species", train_species), ("test_species", test_species)):
        check_positive(name, value)
    kinds = species(train_species + test_species, seed)
    named = tuple(f"{i + 1:03d}.{_title(kind)}" for i, kind in enumerate(kinds))
    halves = []
    for start, stop in ((0, train_species), (train_species, train_species + test_species)):
        part = "test" if start else "train"
        g = _generator(f"{part}/{seed}")
        classes = torch.arange(start, stop).repeat_interleave(each)
        attributes = sample(kinds[classes], g)
        images = draw(attributes, torch.rand(len(attributes), JITTER, generator=g))
        written = captions_of(attributes, f"{part}/{seed}", captions)
        halves.append((classes, attributes, images, [c.text for of_bird in written for c in of_bird]))
    vocabulary = Vocabulary.of(halves[0][3])
    train, test = (_part(*half, vocabulary, captions) for half in halves)
    description = f"drawn birds of {train_species} species, and of {test_species} others for testing, with {captions} made-up captions each"
    return MultimodalSet("drawn-birds", description, True, train, test, class_names=named, words=vocabulary.words)


def _title(kind: Tensor) -> str:
    shown = names_of(kind.argmax(-1))
    return f"{shown['crown']}_crowned_{shown['belly']}_{shown['shape']}"


def _part(classes: Tensor, attributes: Tensor, images: Tensor, texts: list[str], vocabulary: Vocabulary, captions: int) -> Part:
    index = {"image": torch.arange(len(images)).repeat_interleave(captions)}
    facts = {"attributes": attributes.to(torch.int8).repeat_interleave(captions, 0)}
    batch = {"image": images, "caption": vocabulary.encode(texts)}
    return Part(batch, classes.repeat_interleave(captions), index, facts, {"caption": len(vocabulary)})
