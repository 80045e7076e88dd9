"""Draws a scene as a 64 x 64 RGB image. Needs numpy and Pillow.

What a caption leaves open (exact place, exact size, distance) is drawn from the given generator, so
one caption has many right images.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

if TYPE_CHECKING:
    import random

    from numpy.typing import NDArray

    from models.scenes import Scene

SIDE = 64
SUPERSAMPLE = 4
MARGIN = 1.5
GAP = 3.0
RADII = {"small": (6.5, 8.0), "large": (12.0, 14.0)}
RGB = {
    "red": (220, 40, 40),
    "orange": (245, 140, 30),
    "yellow": (245, 220, 50),
    "green": (50, 170, 70),
    "cyan": (60, 200, 220),
    "blue": (45, 80, 215),
    "purple": (130, 60, 180),
    "pink": (245, 140, 190),
    "white": (250, 250, 250),
    "black": (15, 15, 15),
    "gray": (128, 128, 128),
    "brown": (110, 70, 40),
}

Point = tuple[float, float]
Colour = tuple[int, int, int]


def _star() -> list[Point]:
    spokes = [(1.05 if k % 2 == 0 else 0.45, math.pi * (k / 5 - 0.5)) for k in range(10)]
    return [(r * math.cos(a), r * math.sin(a)) for r, a in spokes]


def _heart() -> list[Point]:
    turns = [2 * math.pi * k / 40 for k in range(40)]
    return [
        (
            math.sin(t) ** 3,
            -(13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)) / 16,
        )
        for t in turns
    ]


def _cross(arm: float = 0.34) -> list[Point]:
    quarter = [(arm, -1.0), (arm, -arm), (1.0, -arm)]
    points: list[Point] = []
    for _ in range(4):
        points += quarter
        quarter = [(-y, x) for x, y in quarter]
    return points


POLYGONS: dict[str, list[Point]] = {
    "square": [(-0.85, -0.85), (0.85, -0.85), (0.85, 0.85), (-0.85, 0.85)],
    "triangle": [(0.0, -0.95), (1.0, 0.85), (-1.0, 0.85)],
    "diamond": [(0.0, -1.0), (0.62, 0.0), (0.0, 1.0), (-0.62, 0.0)],
    "star": _star(),
    "heart": _heart(),
    "cross": _cross(),
}


def _between(rng: random.Random, low: float, high: float) -> float:
    return rng.uniform(low, max(low, high))


def _place_one(rng: random.Random, where: str, r: float) -> Point:
    """A centre in pixels for one thing of radius `r` (pixels)."""
    near, far = _between(rng, MARGIN + r, MARGIN + r + 4), SIDE / 2 + rng.uniform(-6, 6)
    return {
        "center": (SIDE / 2 + rng.uniform(-5, 5), far),
        "top": (far, near),
        "bottom": (far, SIDE - near),
        "left": (near, far),
        "right": (SIDE - near, far),
    }[where]


def _place_two(rng: random.Random, where: str, r1: float, r2: float) -> tuple[Point, Point]:
    """Centres in pixels of two things with radii `r1`, `r2`, the first `where` of the second."""
    slack = SIDE - 2 * (MARGIN + r1 + r2) - GAP
    start = rng.uniform(0, slack)
    gap = rng.uniform(0, slack - start)
    along1 = MARGIN + start + r1
    along2 = along1 + r1 + GAP + gap + r2
    across1 = _between(rng, MARGIN + r1, SIDE - MARGIN - r1)
    across2 = _between(
        rng, max(MARGIN + r2, across1 - 8), min(SIDE - MARGIN - r2, max(across1 + 8, MARGIN + r2))
    )
    if where in ("below", "right"):
        along1, along2 = SIDE - along1, SIDE - along2
    if where in ("above", "below"):
        return (across1, along1), (across2, along2)
    return (along1, across1), (along2, across2)


def _draw_shape(
    draw: ImageDraw.ImageDraw,
    shape: str,
    place: tuple[float, float, float],
    fill: Colour,
    ground: Colour,
) -> None:
    """Draw one shape; `place` is x, y and radius in pixels of the final image."""
    x, y, r = (v * SUPERSAMPLE for v in place)
    if shape in POLYGONS:
        draw.polygon([(x + r * px, y + r * py) for px, py in POLYGONS[shape]], fill=fill)
        return
    draw.ellipse((x - r, y - r, x + r, y + r), fill=fill)
    if shape == "ring":
        hole = 0.55 * r
        draw.ellipse((x - hole, y - hole, x + hole, y + hole), fill=ground)


def render(scene: Scene, rng: random.Random) -> NDArray[np.uint8]:
    """Draw `scene` as uint8 RGB of shape (64, 64, 3)."""
    ground = RGB[scene.background]
    big = Image.new("RGB", (SIDE * SUPERSAMPLE, SIDE * SUPERSAMPLE), ground)
    draw = ImageDraw.Draw(big)
    radii = [rng.uniform(*RADII[thing.size]) for thing in scene.things]
    centres: tuple[Point, ...]
    if len(radii) == 1:
        centres = (_place_one(rng, scene.where, radii[0]),)
    else:
        centres = _place_two(rng, scene.where, radii[0], radii[1])
    for thing, centre, radius in zip(scene.things, centres, radii, strict=True):
        _draw_shape(draw, thing.shape, (*centre, radius), RGB[thing.colour], ground)
    return np.asarray(big.reduce(SUPERSAMPLE), dtype=np.uint8)
