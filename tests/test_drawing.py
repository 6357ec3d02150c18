"""Drawn shapes: distances against geometry that is known, coverage against a fine grid, and pictures of a batch against single ones."""

import math

import pytest
import torch

from mmvae_lite.data import drawing as D

POINTS = D.grid(48)


def area(distance):
    """How much of the picture, whose area is 4, is covered."""
    return 4 * D.coverage(distance).mean().item()


@pytest.mark.parametrize(
    ("distance", "wanted"),
    [
        (D.ellipse(POINTS, (0.1, -0.2), 0.5), math.pi * 0.25),
        (D.ellipse(POINTS, (0.1, 0.0), (0.6, 0.3)), math.pi * 0.18),
        (D.box(POINTS, (0.0, 0.1), (0.5, 0.3)), 4 * 0.15),
        (D.box(POINTS, (0.0, 0.1), (0.5, 0.3), 0.2), 4 * 0.15 - (4 - math.pi) * 0.04),
        (D.segment(POINTS, (-0.5, 0.0), (0.5, 0.2)) - 0.1, 0.2 * math.hypot(1.0, 0.2) + math.pi * 0.01),
        (D.polygon(POINTS, [[-0.5, -0.5], [0.5, -0.5], [0.0, 0.6]]), 0.55),
        (D.polygon(POINTS, [[-0.6, -0.6], [0.6, -0.6], [0.0, 0.0], [0.6, 0.6], [-0.6, 0.6]]), 1.44 - 0.36),
        (D.half_plane(POINTS, (0.25, 0.0), 0.0), 2.5),
        (D.outline(D.ellipse(POINTS, (0.0, 0.0), 0.6), 0.2), math.pi * (0.49 - 0.25)),
        (D.polyline(POINTS, D.arc((0.0, 0.0), 0.6, 0.0, 2 * math.pi, 48)) - 0.1, math.pi * (0.49 - 0.25)),
        (D.difference(D.ellipse(POINTS, 0.0, 0.8), D.ellipse(POINTS, 0.0, 0.4)), math.pi * 0.48),
        (D.union(D.box(POINTS, (-0.5, 0.0), 0.2), D.box(POINTS, (0.5, 0.0), 0.2)), 0.32),
        (D.intersection(D.box(POINTS, (0.0, 0.0), 0.5), D.half_plane(POINTS, (0.0, 0.0), math.pi / 2)), 0.5),
    ],
)  # fmt: skip
def test_a_shape_covers_its_area(distance, wanted):
    assert area(distance) == pytest.approx(wanted, rel=0.02)


def test_distances_are_exact_where_geometry_knows_them():
    points = torch.tensor([[[0.0, 0.0], [3.0, 4.0], [1.0, 0.0], [2.0, 2.0]]], dtype=torch.float64)
    assert D.ellipse(points, 0.0, 2.0)[0].tolist() == pytest.approx([-2, 3, -1, math.sqrt(8) - 2])
    assert D.box(points, (0.0, 0.0), (1.0, 2.0))[0].tolist() == pytest.approx([-1, math.sqrt(8), 0, 1])
    assert D.segment(points, (0.0, 0.0), (2.0, 0.0))[0].tolist() == pytest.approx([0, math.sqrt(17), 0, 2])
    square = [[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]]
    assert D.polygon(points, square)[0].tolist() == pytest.approx([-1, math.sqrt(13), 0, math.sqrt(2)])


def test_a_tapered_line_is_as_wide_as_its_ends():
    """Its edge lies at the first radius beside the start, at the second beside the end, and half way between them in the middle."""
    points = torch.tensor([[[0.0, 0.3], [2.0, 0.1], [1.0, 0.2], [-0.3, 0.0], [2.1, 0.0]]])
    assert D.tapered(points, (0.0, 0.0), (2.0, 0.0), 0.3, 0.1)[0].tolist() == pytest.approx([0, 0, 0, 0, 0], abs=1e-6)


def test_shapes_that_flow_together_are_larger_than_both():
    """Where both edges are equally far a quarter of the reach is added; farther than the reach it is the union."""
    first, second = torch.tensor([[0.2, 0.1, 1.0]]), torch.tensor([[0.2, 0.3, -1.0]])
    assert D.smooth_union(first, second, 0.4)[0].tolist() == pytest.approx([0.1, 0.075, -1.0])


def test_the_blurred_edge_is_a_pixel_of_the_shorter_side():
    tall = D.coverage(D.half_plane(D.grid(32, 8), (0.0, 0.01), math.pi / 2))
    assert tall[:16].eq(1).all() and tall[17:].eq(0).all()
    assert tall[16].tolist() == pytest.approx([0.5 - (0.125 - 0.01) / 0.25] * 8, abs=1e-5), "a quarter is a pixel's side"


def test_a_blend_runs_downwards_unless_told():
    shades = D.blend(D.grid(4), [0.0], [1.0])[..., 0, :, :].squeeze()
    assert torch.allclose(shades, torch.tensor([0.125, 0.375, 0.625, 0.875])[:, None].expand(4, 4))


def test_the_edge_covers_as_much_as_a_fine_grid():
    """A pixel's cover is the share of it that lies inside, to within the error of a ramp."""
    coarse = D.coverage(D.ellipse(D.grid(16), (0.07, -0.04), 0.61))
    fine = (D.ellipse(D.grid(16 * 32), (0.07, -0.04), 0.61) < 0).float().reshape(16, 32, 16, 32).mean((1, 3))
    assert (coarse - fine).abs().max() < 0.12 and (coarse - fine).abs().mean() < 0.01


def test_a_placed_shape_lies_where_it_should():
    """A bar that reaches up from the origin, moved, enlarged and turned clockwise by a right angle, reaches to the right."""
    seen = D.place(POINTS, at=(0.2, 0.1), scale=0.5, angle=math.pi / 2)
    bar = D.coverage((D.segment(seen, (0.0, 0.0), (0.0, -1.0)) - 0.2) * 0.5)
    assert (bar[..., None] * POINTS).sum((0, 1)).div(bar.sum()).tolist() == pytest.approx([0.45, 0.1], abs=0.01)
    leaning = D.coverage(D.segment(D.place(POINTS, slant=0.5), (0.0, 0.5), (0.0, -0.5)) - 0.1)
    top, bottom = ((leaning * half * POINTS[..., 0]).sum() for half in (POINTS[..., 1] < 0, POINTS[..., 1] > 0))
    assert top > 0 > bottom


def random_scene(n):
    g = torch.Generator().manual_seed(0)
    return {
        "at": torch.rand(n, 2, generator=g) - 0.5, "scale": torch.rand(n, 1, generator=g) + 0.5, "angle": torch.rand(n, generator=g),
        "path": torch.rand(n, 5, 2, generator=g) - 0.5, "colour": torch.rand(n, 3, generator=g), "opacity": torch.rand(n, generator=g),
    }  # fmt: skip


def draw(scene):
    points = D.place(D.grid(24), scene["at"], scene["scale"], scene["angle"])
    canvas = D.blend(D.grid(24), scene["colour"], scene["colour"].flip(-1), scene["angle"])
    canvas = D.paint(canvas, D.polygon(points, scene["path"]), scene["colour"].flip(-1), opacity=scene["opacity"])
    canvas = D.paint(canvas, D.ellipse(points, scene["at"], scene["scale"] / 3), scene["colour"], softness=0.5)
    return D.paint(canvas, D.polyline(points, D.bezier(*scene["path"][:, :3].unbind(1))) - 0.1, canvas.flip(-1))


@pytest.mark.parametrize("n", [1, 2, 3, 7])
def test_a_batch_is_its_pictures(n):
    """Two pictures too, whose one number each must not be read as a pair."""
    scene = random_scene(n)
    together = draw(scene)
    assert together.shape == (n, 3, 24, 24) and 0 <= together.min() and together.max() <= 1
    for i in range(n):
        torch.testing.assert_close(draw({k: v[i : i + 1] for k, v in scene.items()})[0], together[i])


def test_paint_leaves_what_it_does_not_cover_and_its_input():
    canvas = torch.full((2, 3, 16, 16), 0.5)
    painted = D.paint(canvas, D.box(D.grid(16), (-0.5, 0.0), (0.25, 0.25)), [1.0, 0.0, 0.0], opacity=torch.tensor([1.0, 0.0]))
    assert bool((canvas == 0.5).all()) and torch.equal(painted[1], canvas[1])
    assert torch.equal(painted[0, :, :, 8:], canvas[0, :, :, 8:])
    assert painted[0, :, 8, 4].tolist() == [1.0, 0.0, 0.0]


def test_paths_run_along_their_curves():
    path = D.arc((0.5, 0.0), (0.2, 0.4), 0.0, math.pi, 4)
    assert path.tolist() == [pytest.approx(p, abs=1e-6) for p in (
        [0.7, 0.0], [0.5 + 0.2 * math.sqrt(0.5), 0.4 * math.sqrt(0.5)], [0.5, 0.4], [0.5 - 0.2 * math.sqrt(0.5), 0.4 * math.sqrt(0.5)], [0.3, 0.0],
    )]  # fmt: skip
    curve = D.bezier([0.0, 0.0], [1.0, 0.0], [1.0, 1.0], 2)
    assert curve.tolist() == [[0, 0], [0.75, 0.25], [1, 1]]


def test_a_wrong_size_is_refused(as_a_reader):
    with pytest.raises(ValueError, match=r"found shape \[3\], wanted \[batch, 2\]"):
        D.ellipse(POINTS, 0.0, torch.ones(3))
