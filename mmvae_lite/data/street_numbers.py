"""House numbers as a street camera sees them, drawn here: a stand-in for SVHN (Netzer et al. 2011) that needs no files.

Each picture shows one digit of a house number, often with parts of its neighbours.  Faces are skeletons of strokes; what
differs from picture to picture is the face, its weight, contrast, width, slant and finish, the wall or plate behind it,
paint, shadow, clutter, light, sharpness and noise.  A picture follows from the seed, the partition and its number alone;
processors that round differently may differ by a level.
"""

from __future__ import annotations

import functools
import hashlib
import math

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor
from torch.nn import functional as F

from mmvae_lite.checks import check_name, check_positive
from mmvae_lite.data import drawing

SIZE = 32
CHUNK = 500
PARTITIONS = ("train", "test")

Number = int | float
Points = Float[Tensor, "batch height width 2"]


def street_numbers(n: int, partition: str = "train", seed: int = 0) -> tuple[UInt8[Tensor, "n 3 32 32"], Int[Tensor, "n"]]:
    """n pictures [n, 3, 32, 32] of 256 levels, and the digits [n] that they show.

    The digits are drawn evenly.  The first pictures of a longer set are those of a shorter one, and no picture of `train`
    is one of `test`.  Raises KeyError for another partition, ValueError for an n below 1.
    """
    check_positive("n", n)
    check_name("partition", partition, PARTITIONS)
    chunks = [_chunk(partition, seed, number) for number in range(math.ceil(n / CHUNK))]
    return torch.cat([images for images, _ in chunks])[:n], torch.cat([digits for _, digits in chunks])[:n]


@functools.lru_cache(maxsize=64)
@torch.no_grad()
def _chunk(partition: str, seed: int, number: int) -> tuple[Tensor, Tensor]:
    digest = hashlib.sha256(f"street numbers/{partition}/{seed}/{number}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
    digits = torch.randint(10, (CHUNK,), generator=generator)
    return draw(digits, generator), digits


class _Dice:
    """Random numbers for each picture of a batch."""

    def __init__(self, n: int, generator: torch.Generator) -> None:
        self.n, self.generator = n, generator

    def uniform(self, low: Number, high: Number, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand((self.n, *shape), generator=self.generator)

    def normal(self, sd: float, *shape: int) -> Tensor:
        return sd * torch.randn((self.n, *shape), generator=self.generator)

    def chance(self, probability: float) -> Bool[Tensor, "n"]:
        return torch.rand(self.n, generator=self.generator) < probability

    def pick(self, weights: list[float]) -> Int[Tensor, "n"]:
        return torch.multinomial(torch.tensor(weights), self.n, replacement=True, generator=self.generator)


def draw(digits: Int[Tensor, "batch"], generator: torch.Generator) -> UInt8[Tensor, "batch 3 32 32"]:
    """A new picture of each digit, 256 levels."""
    dice = _Dice(len(digits), generator)
    points = drawing.grid(SIZE)
    wall, paint = _colours(dice)
    canvas, plate = _wall(points, wall, dice)
    number = drawing.place(_warped(points, dice), at=dice.normal(0.08, 2), angle=dice.normal(0.1), slant=dice.normal(0.12))
    glyphs = _number(number, digits, dice)
    canvas = _painted(canvas, glyphs, plate, paint, dice)
    canvas = _clutter(canvas, points, wall, dice)
    gap = ((paint - wall) @ LUMINANCE).abs()
    return (_photographed(canvas, points, gap, dice) * 255).round().to(torch.uint8)


# ---------------------------------------------------------------- faces

def _arc(x: Number, y: Number, rx: Number, ry: Number, start: Number, stop: Number) -> list:
    """A path along an ellipse between two angles in degrees, clockwise from the right."""
    steps = max(3, round(abs(stop - start) / 30))
    return drawing.arc((x, y), (rx, ry), math.radians(start), math.radians(stop), steps).tolist()


def _curve(a: tuple, b: tuple, c: tuple) -> list:
    return drawing.bezier(list(a), list(b), list(c), 5).tolist()


def _turned(strokes: list) -> list:
    return [[(-x, -y) for x, y in stroke] for stroke in strokes]


def _faces() -> list[list]:
    """Faces of ten digits, each a list of strokes in a box from -1 to 1, y downwards."""
    six = [_arc(0, 0.4, 0.95, 0.6, 0, 360), _curve((-0.95, 0.4), (-0.95, -0.75), (0.6, -1))]
    geometric = [
        [_arc(0, 0, 1, 1, 0, 360)],
        [[(-0.5, -0.6), (0.15, -1), (0.15, 1)]],
        [[*_arc(0, -0.46, 0.92, 0.54, 190, 390), (-1, 1), (1, 1)]],
        [_arc(0, -0.5, 0.85, 0.5, 200, 450), _arc(0, 0.48, 1, 0.52, 270, 515)],
        [[(0.45, 1), (0.45, -1), (-1, 0.4), (1, 0.4)]],
        [[(0.85, -1), (-0.7, -1), *_arc(0, 0.35, 1, 0.65, 217, 515)]],
        six,
        [[(-1, -1), (1, -1), (-0.2, 1)]],
        [_arc(0, -0.5, 0.8, 0.5, 0, 360), _arc(0, 0.5, 1, 0.5, 0, 360)],
        _turned(six),
    ]
    six = [[*_arc(0, -0.4, 1, 0.6, 330, 180), *_arc(0, 0.42, 1, 0.58, 180, -180)]]
    narrow = [
        [[*_arc(0, -0.4, 1, 0.6, 180, 360), *_arc(0, 0.4, 1, 0.6, 0, 180), (-1, -0.4)]],
        [[(-0.7, -0.55), (0, -1), (0, 1)], [(-0.7, 1), (0.7, 1)]],
        [[*_arc(0, -0.45, 1, 0.55, 180, 380), (-0.95, 0.75), (-0.95, 1), (1, 1)]],
        [[(-0.9, -1), (0.95, -1), (-0.15, -0.2), *_arc(-0.05, 0.4, 1, 0.6, 270, 520)]],
        [[(-0.3, -1), (-1, 0.35), (1, 0.35)], [(0.45, -0.3), (0.45, 1)]],
        [[(0.9, -1), (-0.85, -1), (-0.85, -0.1), *_arc(0, 0.4, 1, 0.6, 230, 520)]],
        six,
        [[(-1, -1), (1, -1), *_curve((1, -0.8), (-0.25, 0), (-0.3, 1))]],
        [_arc(0, -0.5, 0.9, 0.5, 0, 360), _arc(0, 0.5, 1, 0.5, 0, 360)],
        _turned(six),
    ]
    square = [
        [[(-1, -0.8), (-0.8, -1), (0.8, -1), (1, -0.8), (1, 0.8), (0.8, 1), (-0.8, 1), (-1, 0.8), (-1, -0.8)]],
        [[(-0.5, -0.8), (0.1, -1), (0.1, 1)]],
        [[(-1, -0.7), (-0.7, -1), (0.8, -1), (1, -0.8), (1, -0.2), (0.8, 0), (-0.8, 0.1), (-1, 0.3), (-1, 1), (1, 1)]],
        [[(-1, -0.8), (-0.8, -1), (0.8, -1), (1, -0.8), (1, -0.15), (0.8, 0), (-0.3, 0)],
         [(0.8, 0), (1, 0.15), (1, 0.8), (0.8, 1), (-0.8, 1), (-1, 0.8)]],
        [[(-0.9, -1), (-0.9, 0.2), (1, 0.2)], [(0.55, -1), (0.55, 1)]],
        [[(1, -1), (-1, -1), (-1, -0.1), (0.75, -0.1), (1, 0.15), (1, 0.8), (0.8, 1), (-0.8, 1), (-1, 0.8)]],
        [[(0.9, -0.85), (0.7, -1), (-0.75, -1), (-1, -0.75), (-1, 0.8), (-0.8, 1), (0.8, 1), (1, 0.8), (1, 0.1), (0.8, -0.05),
          (-1, -0.05)]],
        [[(-1, -1), (1, -1), (1, -0.7), (0, 0.3), (0, 1)]],
        [[(-0.8, 0), (-0.95, -0.2), (-0.95, -0.8), (-0.75, -1), (0.75, -1), (0.95, -0.8), (0.95, -0.2), (0.8, 0), (-0.8, 0),
          (-1, 0.2), (-1, 0.8), (-0.8, 1), (0.8, 1), (1, 0.8), (1, 0.2), (0.8, 0)]],
        [[(-0.9, 0.85), (-0.7, 1), (0.75, 1), (1, 0.75), (1, -0.8), (0.8, -1), (-0.8, -1), (-1, -0.8), (-1, -0.1), (-0.8, 0.05),
          (1, 0.05)]],
    ]  # fmt: skip
    six = [_arc(0, 0.38, 0.95, 0.62, 0, 360), _curve((-0.95, 0.38), (-1, -0.7), (0.75, -1)), [(0.75, -1), (0.8, -0.75)]]
    serif = [
        [_arc(0, 0, 0.95, 1, 0, 360)],
        [[(-0.6, -0.7), (0, -1), (0, 1)], [(-0.65, 1), (0.65, 1)]],
        [[(-0.75, -0.55), *_arc(0, -0.46, 0.9, 0.54, 200, 385), *_curve((0.6, 0.05), (-0.4, 0.5), (-1, 1)), (0.9, 1), (1, 0.65)]],
        [[(-0.65, -0.6), *_arc(0, -0.52, 0.8, 0.48, 205, 445)], [*_arc(-0.05, 0.46, 0.95, 0.54, 275, 510), (-0.7, 0.6)]],
        [[(0.4, 1), (0.4, -1), (-1, 0.4), (1, 0.4)], [(0, 1), (0.8, 1)]],
        [[(0.8, -0.85), (0.7, -1), (-0.65, -1), *_arc(-0.05, 0.38, 0.98, 0.62, 225, 510), (-0.7, 0.55)]],
        six,
        [[(-0.9, -0.6), (-0.85, -1), (1, -1), *_curve((1, -0.95), (-0.1, 0.1), (-0.15, 1))]],
        [_arc(0, -0.52, 0.78, 0.48, 0, 360), _arc(0, 0.48, 0.95, 0.52, 0, 360)],
        _turned(six),
    ]
    hand = [
        [_arc(0, 0, 0.9, 1, -70, 290)],
        [[(0.1, -1), (-0.1, 1)]],
        [[*_arc(-0.1, -0.5, 0.8, 0.5, 200, 390), *_curve((0.5, 0), (-0.2, 0.6), (-1, 0.95)), *_curve((-0.9, 0.9), (0, 0.7), (1, 1))]],
        [_arc(-0.1, -0.5, 0.8, 0.5, 215, 440), _arc(-0.15, 0.45, 1, 0.55, 275, 500)],
        [[(-0.35, -1), (-0.9, 0.15), (0.95, 0.1)], [(0.55, -0.75), (0.25, 1)]],
        [[(0.9, -1), (-0.5, -0.95), (-0.7, -0.1), *_arc(-0.1, 0.4, 0.95, 0.6, 230, 490)]],
        [[*_curve((0.5, -1), (-0.7, -0.4), (-0.9, 0.4)), *_arc(0, 0.45, 0.9, 0.55, 180, -150)]],
        [[(-0.9, -0.85), (0.95, -1), *_curve((0.9, -0.9), (0.1, 0), (-0.35, 1))], [(-0.35, 0.05), (0.75, 0)]],
        [[*_arc(0, -0.5, 0.8, 0.5, -60, -270), *_arc(0, 0.48, 0.9, 0.52, 270, 630)], _arc(0, -0.5, 0.8, 0.5, -60, 90)],
        [_arc(-0.05, -0.45, 0.85, 0.55, 0, 360), [(0.8, -0.5), (0.55, 1)]],
    ]
    return [geometric, narrow, square, serif, hand]


ADVANCE = torch.tensor([1.0, 0.6, 1, 1, 1, 1, 1, 1, 1, 1])
"""How wide each digit is against the others of its face."""


@functools.cache
def _segments() -> Float[Tensor, "faces 10 segments 2 2"]:
    """The faces as lines, two ends each; digits with fewer lines repeat their last one."""
    lines = [[[pair for stroke in digit for pair in zip(stroke, stroke[1:])] for digit in face] for face in _faces()]
    most = max(len(digit) for face in lines for digit in face)
    return torch.tensor([[digit + digit[-1:] * (most - len(digit)) for digit in face] for face in lines])


# ---------------------------------------------------------------- the number

def _warped(points: Tensor, dice: _Dice) -> Points:
    """The picture's points, bent a little."""
    bend, phase = dice.normal(0.025, 2, 1, 1), dice.uniform(0, 2 * math.pi, 2, 1, 1)
    x, y = points.unbind(-1)
    return torch.stack([x + bend[:, 0] * (3 * y + phase[:, 0]).sin(), y + bend[:, 1] * (3 * x + phase[:, 1]).sin()], -1)


def _number(points: Points, digits: Tensor, dice: _Dice) -> dict[str, Tensor]:
    """The distance to the digit's strokes and to those of its neighbours, [batch, height, width], and the strokes' radius."""
    face = dice.pick([0.28, 0.26, 0.14, 0.18, 0.14])
    height = dice.uniform(0.54, 0.92)
    width = height * dice.uniform(0.4, 0.72)
    radius = torch.minimum(height * dice.uniform(0.1, 0.24), 0.34 * width)
    # Strokes of a serif face are thicker when they run up and down.
    contrast = torch.where(face == 3, dice.uniform(0.15, 0.4), dice.normal(0.06).clamp(-0.15, 0.15))
    square = (face == 2) | dice.chance(0.2)
    metric = torch.stack([1 + contrast, 1 - contrast], -1)
    gap = radius * 2 + dice.uniform(-0.05, 0.25)

    def glyph(rows: Tensor, digit: Tensor, shift: Tensor) -> Tensor:
        box = torch.stack([width[rows] * ADVANCE[digit], height[rows]], -1) - radius[rows, None]
        ends = (_segments()[face[rows], digit] * box[:, None, None] + shift[:, None, None]) / metric[rows, None, None]
        return _strokes(points[rows] / metric[rows, None, None], ends, square[rows])

    everything = torch.arange(len(digits))
    nothing = torch.zeros(len(digits), 2)
    neighbours = torch.full((len(digits), SIZE, SIZE), 9.0)
    for side in (-1.0, 1.0):
        beside, there = torch.randint(10, (len(digits),), generator=dice.generator), dice.chance(0.55)
        shift = torch.stack([side * (width * (ADVANCE[digits] + ADVANCE[beside]) + gap - radius), dice.normal(0.03)], -1)
        rows = everything[there]
        neighbours[rows] = torch.minimum(neighbours[rows], glyph(rows, beside[rows], shift[rows]))
    return {"own": glyph(everything, digits, nothing), "beside": neighbours, "radius": radius}


def _strokes(
    points: Points, ends: Float[Tensor, "batch segments 2 2"], square: Bool[Tensor, "batch"]
) -> Float[Tensor, "batch height width"]:
    """The distance to the nearest line; with square ends and corners it is measured along the axes."""
    found = torch.empty(points.shape[:-1])
    for rows, length in ((~square, _euclidean), (square, _chebyshev)):
        if bool(rows.any()):
            found[rows] = length(points[rows], ends[rows])
    return found


def _euclidean(points: Points, ends: Tensor) -> Tensor:
    px, py = points[..., 0], points[..., 1]
    best = None
    for line in ends.unbind(1):
        x, y = _beyond(px, py, line)
        squared = x.square().addcmul_(y, y)
        best = squared if best is None else torch.minimum(best, squared, out=best)
    return best.sqrt()


def _chebyshev(points: Points, ends: Tensor) -> Tensor:
    px, py = points[..., 0], points[..., 1]
    best = None
    for line in ends.unbind(1):
        x, y = _beyond(px, py, line)
        reach = torch.maximum(x.abs_(), y.abs_())
        best = reach if best is None else torch.minimum(best, reach, out=best)
    return best


def _beyond(px: Tensor, py: Tensor, line: Float[Tensor, "batch 2 2"]) -> tuple[Tensor, Tensor]:
    """From the nearest point of a line to each point."""
    ax, ay, bx, by = line.flatten(1).T[..., None, None]
    dx, dy = bx - ax, by - ay
    x, y = px - ax, py - ay
    inverse = 1 / (dx * dx + dy * dy).clamp_min(1e-9)
    along = (x * (dx * inverse)).addcmul_(y, dy * inverse).clamp_(0, 1)
    return x.addcmul_(along, dx, value=-1), y.addcmul_(along, dy, value=-1)


# ---------------------------------------------------------------- colours, walls, paint

WALLS = [(0.55, 0.25, 0.18), (0.45, 0.2, 0.15), (0.85, 0.82, 0.74), (0.7, 0.66, 0.58), (0.5, 0.5, 0.5), (0.3, 0.3, 0.32), (0.92, 0.92, 0.9),
         (0.35, 0.22, 0.12), (0.6, 0.42, 0.25), (0.16, 0.25, 0.2), (0.15, 0.2, 0.4), (0.1, 0.1, 0.1), (0.4, 0.5, 0.55), (0.75, 0.7, 0.4),
         (0.2, 0.35, 0.6), (0.45, 0.12, 0.12)]  # fmt: skip
PAINTS = [(0.95, 0.95, 0.95), (0.9, 0.88, 0.8), (0.08, 0.08, 0.08), (0.2, 0.2, 0.22), (0.8, 0.65, 0.3), (0.65, 0.5, 0.25),
          (0.7, 0.72, 0.75), (0.6, 0.1, 0.1), (0.1, 0.15, 0.45), (0.1, 0.3, 0.15), (0.9, 0.8, 0.2), (0.35, 0.2, 0.1),
          (0.98, 0.98, 1.0), (0.0, 0.0, 0.0)]  # fmt: skip
LUMINANCE = torch.tensor([0.3, 0.59, 0.11])
LEGIBLE = 0.18  # how far the number's brightness is from the wall's at least, after the camera


def _colours(dice: _Dice) -> tuple[Float[Tensor, "batch 3"], Float[Tensor, "batch 3"]]:
    """The wall's colour and the paint's: of several paints the first that stands out enough, else the one that does most.

    As often as not they change places, so that neither is the brighter one more often.
    """
    wall = (torch.tensor(WALLS)[dice.pick([1.0] * len(WALLS))] + dice.normal(0.07, 3)).clamp(0.02, 1)
    choices = torch.tensor(PAINTS)[torch.randint(len(PAINTS), (dice.n, 5), generator=dice.generator)]
    choices = (choices + dice.normal(0.05, 5, 3)).clamp(0, 1)
    contrast = ((choices - wall[:, None]) @ LUMINANCE).abs()
    enough = dice.uniform(0.15, 0.45)[:, None]
    chosen = torch.where(contrast > enough, 10.0 - torch.arange(5.0), contrast).argmax(1)
    paint, swap = choices[torch.arange(dice.n), chosen], dice.chance(0.5)[:, None]
    return torch.where(swap, paint, wall), torch.where(swap, wall, paint)


def _wall(points: Tensor, wall: Tensor, dice: _Dice) -> tuple[Tensor, Tensor]:
    """The wall with its courses or planks, blotches and sometimes a plate; and where there is a plate [batch]."""
    tint = dice.normal(0.06, 3)
    canvas = drawing.blend(points, wall + tint, wall - tint, dice.uniform(0, 2 * math.pi))
    blotches = F.interpolate(dice.normal(1.0, 1, 5, 5), SIZE, mode="bicubic", align_corners=False)
    canvas = canvas + blotches * dice.uniform(0.0, 0.06, 1, 1, 1)
    x, y = drawing.place(points, dice.uniform(-1, 1, 2), angle=dice.normal(0.05)).unbind(-1)
    turned = dice.chance(0.35)[:, None, None]
    along, across = torch.where(turned, y, x), torch.where(turned, x, y)
    course, brick = dice.uniform(0.18, 0.5, 1, 1), dice.chance(0.5)[:, None, None]
    row = (across / course).floor()
    seam = (across - (row + 0.5) * course).abs() - course / 2
    length = 2.5 * course
    shifted = along + 0.5 * length * (row % 2)
    end = (shifted - ((shifted / length).floor() + 0.5) * length).abs() - length / 2
    lines = -torch.where(brick, torch.minimum(-seam, -end), -seam)
    mortar = (wall + dice.normal(0.15, 1)).clamp(0, 1)
    canvas = drawing.paint(canvas, lines + dice.uniform(0.01, 0.05, 1, 1), mortar, opacity=dice.uniform(0.2, 0.9) * dice.chance(0.35))
    plate = dice.chance(0.3)
    half = torch.stack([dice.uniform(0.7, 1.6), dice.uniform(0.85, 1.05)], -1)
    shape = drawing.box(drawing.place(points, dice.normal(0.08, 2), angle=dice.normal(0.05)), (0.0, 0.0), half, dice.uniform(0.0, 0.4))
    dark, light = dice.uniform(0.0, 0.5, 1), dice.uniform(0.8, 1.2, 1)
    canvas = drawing.paint(canvas, shape + 0.02, wall * dark, softness=0.25, opacity=plate * 0.6)
    canvas = drawing.paint(canvas, shape, (wall * light + dice.normal(0.04, 3)).clamp(0, 1), opacity=plate.float())
    rim = drawing.outline(shape + 0.08, 0.05)
    return drawing.paint(canvas, rim, (wall * dark).clamp(0, 1), opacity=plate * dice.chance(0.5) * 0.8), plate


def _painted(canvas: Tensor, number: dict[str, Tensor], plate: Tensor, paint: Tensor, dice: _Dice) -> Tensor:
    """The strokes in one of several finishes, with a shadow or a rim: plain, outlined, with an inner line, or a stencil."""
    middle, radius = torch.minimum(number["own"], number["beside"]), number["radius"][:, None, None]
    finish = dice.pick([0.7, 0.1, 0.12, 0.08])[:, None, None]
    solid = middle - radius
    shape = torch.where(finish == 1, solid.abs() - radius * 0.3, solid)
    shape = torch.where((finish == 2) & (radius > 0.12), torch.maximum(solid, radius * 0.25 - middle), shape)
    bridge = drawing.outline(drawing.half_plane(drawing.grid(SIZE), (0.0, 0.0), dice.normal(0.1)), 0.09)
    shape = torch.where(finish == 3, torch.maximum(shape, -bridge), shape)
    dark, offset = dice.chance(0.3), dice.uniform(1, 3, 2).round() * dice.chance(0.5)[:, None].mul(2).sub(1)
    shadow = _shifted(solid, offset)
    canvas = drawing.paint(canvas, shadow, canvas * 0.4, softness=dice.uniform(0.08, 0.3), opacity=dark * dice.uniform(0.4, 0.9))
    rim = dice.chance(0.12)
    contrasting = ((paint @ LUMINANCE) < 0.5).float()[:, None].expand(-1, 3)
    canvas = drawing.paint(canvas, solid - 0.06, contrasting, opacity=rim * 0.8)
    ends = (paint * dice.uniform(0.8, 1.05, 1) for _ in range(2))
    sheen = drawing.blend(drawing.grid(SIZE), *ends, dice.uniform(0, 2 * math.pi))
    return drawing.paint(canvas, shape, sheen.clamp(0, 1), opacity=dice.uniform(0.85, 1.0))


def _shifted(distance: Tensor, offset: Float[Tensor, "batch 2"]) -> Tensor:
    """A field moved by whole pixels (x, y); what comes in from outside is the edge."""
    x, y = (torch.arange(SIZE) - offset[:, i, None].long() for i in (0, 1))
    batch = torch.arange(len(distance))[:, None, None]
    return distance[batch, y.clamp(0, SIZE - 1)[:, :, None], x.clamp(0, SIZE - 1)[:, None, :]]


def _clutter(canvas: Tensor, points: Tensor, wall: Tensor, dice: _Dice) -> Tensor:
    """Screws, wires, door frames and leaves, mostly near the border."""
    edge = dice.uniform(0, 2 * math.pi)
    frame = drawing.half_plane(points, torch.stack([edge.cos(), edge.sin()], -1) * dice.uniform(0.8, 1.1, 1), edge)
    canvas = drawing.paint(canvas, -frame, (wall * dice.uniform(0.3, 1.5, 1)).clamp(0, 1), opacity=dice.chance(0.25).float())
    a, b = dice.uniform(-1.2, 1.2, 2), dice.uniform(-1.2, 1.2, 2)
    wire = drawing.segment(points, a, b) - dice.uniform(0.01, 0.05, 1, 1)
    canvas = drawing.paint(canvas, wire, dice.uniform(0.0, 0.9, 1).expand(-1, 3), opacity=dice.chance(0.15) * 0.8)
    at = dice.uniform(0.75, 1.0, 2) * torch.where(torch.rand((dice.n, 2), generator=dice.generator) < 0.5, -1.0, 1.0)
    spot = drawing.ellipse(points, at, dice.uniform(0.04, 0.3, 2))
    return drawing.paint(canvas, spot, dice.uniform(0.0, 1.0, 3), opacity=dice.chance(0.2) * 0.9)


def _photographed(canvas: Tensor, points: Tensor, gap: Float[Tensor, "batch"], dice: _Dice) -> Tensor:
    """Light from one side, blur, lower contrast, another exposure and white balance, noise; values in [0, 1].

    gap: how far the paint's brightness is from the wall's; so much contrast is kept that the number can still be read.
    """
    light = drawing.blend(points, dice.uniform(0.75, 1.05, 1), dice.uniform(0.75, 1.05, 1), dice.uniform(0, 2 * math.pi))
    shade = drawing.coverage(drawing.half_plane(points, dice.uniform(-0.8, 0.8, 2), dice.uniform(0, 2 * math.pi)), 0.15)
    light = light * (1 - (shade * dice.uniform(0.15, 0.4, 1, 1) * dice.chance(0.12)[:, None, None])[:, None])
    canvas = _blurred(canvas * light, dice.uniform(0.4, 1.8))
    middle = canvas.mean((1, 2, 3), keepdim=True)
    contrast = dice.uniform(0.25, 1.0).maximum((LEGIBLE / gap.clamp_min(0.05)).clamp_max(1.5))[:, None, None, None]
    exposure = (middle * dice.uniform(0.75, 1.1, 1, 1, 1) + dice.normal(0.08, 1, 1, 1)).clamp(0.2, 0.8)
    canvas = (canvas - middle) * contrast + exposure
    canvas = canvas * (1 + dice.normal(0.04, 3, 1, 1))
    return (canvas + dice.normal(1.0, 3, SIZE, SIZE) * dice.uniform(0.004, 0.025, 1, 1, 1)).clamp(0, 1)


def _blurred(canvas: Tensor, sd: Float[Tensor, "batch"]) -> Tensor:
    """Each picture blurred by its own Gaussian of `sd` pixels."""
    taps = torch.exp(-0.5 * (torch.arange(-3.0, 4.0) / sd[:, None]).square())
    taps = (taps / taps.sum(1, keepdim=True))[:, :, None, None, None].unbind(1)
    for dim in (2, 3):
        padded = F.pad(canvas, (0, 0, 3, 3) if dim == 2 else (3, 3, 0, 0), mode="replicate")
        canvas = sum(tap * padded.narrow(dim, i, SIZE) for i, tap in enumerate(taps))
    return canvas
