"""Drawing many small pictures at once: signed distances to shapes, and paint where the distance is negative.

The origin is the centre of the picture, x runs to the right and y downwards, and the shorter side runs from -1 to 1.
A shape is a function of the picture's points that gives the distance to its edge, negative inside.  Each of its numbers
may differ from picture to picture: a tensor [batch] for a number, [batch, 2] for a place or a size in x and y ([batch, 1]
where they are the same), [batch, corners, 2] for a path; plain numbers and lists hold for all pictures.  An edge is blurred
over one pixel, so no picture is drawn larger than it is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

Numbers = Tensor | float | int | Sequence
Distance = Float[Tensor, "... height width"]


def grid(height: int, width: int | None = None, dtype: torch.dtype = torch.float32) -> Float[Tensor, "height width 2"]:
    """The centres of the pixels, (x, y); a square picture unless a width is given."""
    width = height if width is None else width
    side = min(height, width)
    y, x = ((2 * torch.arange(n, dtype=dtype) + 1 - n) / side for n in (height, width))
    return torch.stack([x.expand(height, width), y[:, None].expand(height, width)]).movedim(0, -1)  # x and y as planes are faster


def place(
    points: Float[Tensor, "... height width 2"], at: Numbers = (0.0, 0.0), scale: Numbers = 1.0, angle: Numbers = 0.0,
    slant: Numbers = 0.0,
) -> Float[Tensor, "... height width 2"]:  # fmt: skip
    """The points as a shape sees them that is slanted, enlarged, turned clockwise by `angle` radians and moved to `at`.

    scale: one number or two, for x and y.  slant: how far to the right the shape leans for each unit upwards.
    Distances come out in the shape's own units: multiply them by the scale to have them in those of the picture.
    """
    at, scale = _pair(at, points), _pair(scale, points)
    angle, slant = _number(angle, points), _number(slant, points)
    x, y = (points - at).unbind(-1)
    cos, sin = angle.cos(), angle.sin()
    x, y = (x * cos + y * sin) / scale[..., 0], (y * cos - x * sin) / scale[..., 1]
    return torch.stack([x + slant * y, y]).movedim(0, -1)


def segment(points: Float[Tensor, "... height width 2"], a: Numbers, b: Numbers) -> Distance:
    """The distance to the line from a to b; `segment(...) - r` is a capsule of radius r."""
    return polyline(points, torch.stack(torch.broadcast_tensors(*(torch.as_tensor(v, dtype=points.dtype) for v in (a, b))), -2))


def polyline(points: Float[Tensor, "... height width 2"], path: Numbers, closed: bool = False) -> Distance:
    """The distance to the lines that join the corners of a path [batch, corners, 2]; less a radius it is a stroke."""
    px, py = points.unbind(-1)
    corners = [corner.unbind(-1) for corner in _path(path, points)]
    best = None
    for (ax, ay), (bx, by) in zip(corners, corners[1:] + corners[:1] if closed else corners[1:]):
        dx, dy, x, y = bx - ax, by - ay, px - ax, py - ay
        along = ((x * dx + y * dy) / (dx * dx + dy * dy).clamp_min(1e-12)).clamp(0, 1)
        squared = (x - along * dx).square() + (y - along * dy).square()
        best = squared if best is None else torch.minimum(best, squared)
    return best.sqrt()


def tapered(points: Float[Tensor, "*batch height width 2"], a: Numbers, b: Numbers, start: Numbers, stop: Numbers) -> Distance:
    """About the distance to a line from a to b whose radius runs from `start` to `stop`: a beak, a tail, a limb."""
    (px, py), (ax, ay), (bx, by) = (_pair(v, points).unbind(-1) if v is not points else v.unbind(-1) for v in (points, a, b))
    start, stop = _number(start, points), _number(stop, points)
    dx, dy, x, y = bx - ax, by - ay, px - ax, py - ay
    along = ((x * dx + y * dy) / (dx * dx + dy * dy).clamp_min(1e-12)).clamp(0, 1)
    return ((x - along * dx).square() + (y - along * dy).square()).sqrt() - start - along * (stop - start)


def polygon(points: Float[Tensor, "... height width 2"], path: Numbers) -> Distance:
    """The signed distance to a closed path [batch, corners, 2], which may be concave."""
    px, py = points.unbind(-1)
    corners = [corner.unbind(-1) for corner in _path(path, points)]
    inside = None
    for (ax, ay), (bx, by) in zip(corners, corners[1:] + corners[:1]):
        rise = torch.where(by == ay, 1.0, by - ay)  # a level side crosses no level line; the divisor is not used
        crossed = ((ay > py) != (by > py)) & (px < ax + (py - ay) * (bx - ax) / rise)
        inside = crossed if inside is None else inside ^ crossed
    edge = polyline(points, path, closed=True)
    return torch.where(inside, -edge, edge)


def ellipse(points: Float[Tensor, "... height width 2"], centre: Numbers = (0.0, 0.0), radii: Numbers = 1.0) -> Distance:
    """The distance to an ellipse with half-axes `radii`, one number for a circle; to first order near the edge."""
    radii = _pair(radii, points)
    (px, py), (cx, cy), (rx, ry) = points.unbind(-1), _pair(centre, points).unbind(-1), radii.unbind(-1)
    x, y = (px - cx) / rx, (py - cy) / ry
    k0, k1 = (x.square() + y.square()).sqrt(), ((x / rx).square() + (y / ry).square()).sqrt()
    return torch.where(k1 > 1e-6, k0 * (k0 - 1) / k1.clamp_min(1e-6), -radii.amin(-1))


def box(
    points: Float[Tensor, "... height width 2"], centre: Numbers = (0.0, 0.0), half: Numbers = 1.0, radius: Numbers = 0.0
) -> Distance:
    """The signed distance to a box of half-width and half-height `half`, its corners rounded by `radius`."""
    radius = _number(radius, points)
    x, y = ((points - _pair(centre, points)).abs() - _pair(half, points) + radius[..., None]).unbind(-1)
    return (x.clamp_min(0).square() + y.clamp_min(0).square()).sqrt() + torch.maximum(x, y).clamp_max(0) - radius


def half_plane(points: Float[Tensor, "... height width 2"], at: Numbers, angle: Numbers) -> Distance:
    """The signed distance to a straight edge through `at`; what lies towards `angle` is outside, 0 is to the right."""
    offset, angle = points - _pair(at, points), _number(angle, points)
    return offset[..., 0] * angle.cos() + offset[..., 1] * angle.sin()


def bezier(a: Numbers, b: Numbers, c: Numbers, steps: int = 8) -> Float[Tensor, "... corners 2"]:
    """A path along the quadratic Bezier curve from a towards b to c."""
    a, b, c = (torch.as_tensor(v, dtype=torch.float32)[..., None, :] for v in (a, b, c))
    t = torch.linspace(0, 1, steps + 1)[:, None]
    return (1 - t).square() * a + 2 * t * (1 - t) * b + t.square() * c


def arc(centre: Numbers, radii: Numbers, start: Numbers, stop: Numbers, steps: int = 12) -> Float[Tensor, "... corners 2"]:
    """A path along an ellipse from the angle `start` to `stop`, in radians clockwise from the right."""
    centre, radii = (torch.as_tensor(v, dtype=torch.float32) for v in (centre, radii))
    start, stop = (torch.as_tensor(v, dtype=torch.float32)[..., None] for v in (start, stop))
    angle = start + (stop - start) * torch.linspace(0, 1, steps + 1)
    radii = radii[..., None, :] if radii.ndim else radii
    return centre[..., None, :] + radii * torch.stack([angle.cos(), angle.sin()], -1)


def union(*distances: Distance) -> Distance:
    """What lies in any of the shapes."""
    best = distances[0]
    for d in distances[1:]:
        best = torch.minimum(best, d)
    return best


def smooth_union(first: Distance, second: Distance, reach: Numbers) -> Distance:
    """Two shapes that flow into each other where their edges are nearer than `reach`."""
    reach = _number(reach, first[..., None])
    share = (0.5 + 0.5 * (second - first) / reach).clamp(0, 1)
    return second + share * (first - second) - reach * share * (1 - share)


def intersection(*distances: Distance) -> Distance:
    """What lies in all of the shapes."""
    best = distances[0]
    for d in distances[1:]:
        best = torch.maximum(best, d)
    return best


def difference(distance: Distance, *others: Distance) -> Distance:
    """What lies in the first shape and in none of the others."""
    return intersection(distance, *(-d for d in others))


def outline(distance: Distance, width: Numbers) -> Distance:
    """A line of this width along the edge of a shape."""
    return distance.abs() - _number(width, distance[..., None]) / 2


def coverage(distance: Distance, softness: Numbers | None = None) -> Distance:
    """How much of each pixel the shape covers, 0 to 1: a ramp of width `softness` about the edge, one pixel unless given."""
    softness = 2 / min(distance.shape[-2:]) if softness is None else _number(softness, distance[..., None])
    return (0.5 - distance / softness).clamp(0, 1)


def paint(
    canvas: Float[Tensor, "batch channels height width"], distance: Distance, colour: Numbers, softness: Numbers | None = None,
    opacity: Numbers = 1.0,
) -> Float[Tensor, "batch channels height width"]:  # fmt: skip
    """The canvas with a shape painted over it.

    colour: [channels], [batch, channels], or a picture [batch, channels, height, width].  opacity: 0 leaves the canvas;
    [batch] so that a picture may do without the shape.  softness: the width of the blurred edge, for shadows and glows.
    """
    cover = (coverage(distance, softness) * _number(opacity, distance[..., None]))[..., None, :, :]
    colour = torch.as_tensor(colour, dtype=canvas.dtype)
    colour = colour if colour.ndim == 4 else colour[..., None, None]
    return torch.lerp(canvas, colour, cover)


def blend(points: Float[Tensor, "... height width 2"], first: Numbers, second: Numbers, angle: Numbers = math.pi / 2) -> Tensor:
    """A picture [batch, channels, height, width] that runs from one colour to another towards `angle`, by default downwards."""
    first, second = (torch.as_tensor(v, dtype=points.dtype)[..., None, None] for v in (first, second))
    share = ((half_plane(points, (0.0, 0.0), angle) + 1) / 2).clamp(0, 1)[..., None, :, :]
    return first + share * (second - first)


def _number(value: Numbers, points: Tensor) -> Tensor:
    """A number for each picture, to be used beside its pixels."""
    return torch.as_tensor(value, dtype=points.dtype)[..., None, None]


def _pair(value: Numbers, points: Tensor) -> Tensor:
    """Two numbers for each picture; one number, or [batch, 1], is taken twice."""
    value = torch.as_tensor(value, dtype=points.dtype)
    if value.ndim and value.shape[-1] not in (1, 2):
        raise ValueError(f"found shape {list(value.shape)}, wanted [batch, 2], or [batch, 1] for the same number in both directions")
    return value.expand(*value.shape[:-1], 2)[..., None, None, :]


def _path(path: Numbers, points: Tensor) -> list[Tensor]:
    """The corners of a path, each [batch, 1, 1, 2]."""
    path = torch.as_tensor(path, dtype=points.dtype)
    return [corner[..., None, None, :] for corner in path.unbind(-2)]
