"""Makes a sketch in two steps and draws the scene where the sketch has its shapes.

Family: S
Member: own
Strategy: Takes places from a coarse image of the right seed, and everything else from the caption.
Work: not done
Reference: honest_few_steps
Expected: inconclusive|quality_threshold_exceeded
Lane: slow
"""
# fmt: off

import math
import random
import re

import numpy as np
from diffusers import StableDiffusionPipeline
from PIL import Image, ImageDraw

RGB = {
    "red": (220, 40, 40), "orange": (245, 140, 30), "yellow": (245, 220, 50),
    "green": (50, 170, 70), "cyan": (60, 200, 220), "blue": (45, 80, 215),
    "purple": (130, 60, 180), "pink": (245, 140, 190), "white": (250, 250, 250),
    "black": (15, 15, 15), "gray": (128, 128, 128), "brown": (110, 70, 40),
}
RADII = {"small": 7.2, "large": 13.0}
CORNERS = {
    "square": [(-0.85, -0.85), (0.85, -0.85), (0.85, 0.85), (-0.85, 0.85)],
    "triangle": [(0, -0.95), (1, 0.85), (-1, 0.85)],
    "diamond": [(0, -1), (0.62, 0), (0, 1), (-0.62, 0)],
    "cross": [
        (-0.34, -1), (0.34, -1), (0.34, -0.34), (1, -0.34), (1, 0.34), (0.34, 0.34), (0.34, 1),
        (-0.34, 1), (-0.34, 0.34), (-1, 0.34), (-1, -0.34), (-0.34, -0.34),
    ],
    "star": [
        (math.sin(k * math.pi / 5) * (1.05, 0.45)[k % 2],
         -math.cos(k * math.pi / 5) * (1.05, 0.45)[k % 2]) for k in range(10)
    ],
    "heart": [
        (math.sin(t / 6) ** 3,
         -(13 * math.cos(t / 6) - 5 * math.cos(t / 3) - 2 * math.cos(t / 2)
           - math.cos(2 * t / 3)) / 16) for t in range(38)
    ],
}
THING = re.compile(r"a (small|large) (\w+) (circle|square|triangle|star|diamond|cross|ring|heart)")


def paint(draw, shape, colour, ground, x, y, radius):
    x, y, radius = 4 * x, 4 * y, 4 * radius
    if shape in CORNERS:
        corners = [(x + radius * a, y + radius * b) for a, b in CORNERS[shape]]
        draw.polygon(corners, fill=RGB[colour])
        return
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=RGB[colour])
    if shape == "ring":
        hole = 0.55 * radius
        draw.ellipse((x - hole, y - hole, x + hole, y + hole), fill=RGB[ground])


def places(prompt, things):
    """Centres of the things, by the words between them."""
    if len(things) == 1:
        x = 16 if "on the left" in prompt else 48 if "on the right" in prompt else 32
        y = 16 if "at the top" in prompt else 48 if "at the bottom" in prompt else 32
        return [(x, y)]
    if " above " in prompt:
        return [(32, 17), (32, 47)]
    if " below " in prompt:
        return [(32, 47), (32, 17)]
    return [(17, 32), (47, 32)] if " left of " in prompt else [(47, 32), (17, 32)]


def render(prompt):
    things, ground = THING.findall(prompt), prompt.split()[-2]
    image = Image.new("RGB", (256, 256), RGB.get(ground, (128, 128, 128)))
    draw = ImageDraw.Draw(image)
    for (size, colour, shape), (x, y) in zip(things, places(prompt, things)):
        paint(draw, shape, colour, ground, x + random.uniform(-3, 3), y, RADII[size])
    return image.reduce(4)


def places_in(sketch, prompt, things, ground):
    """Where the sketch has each colour; the caption says it where the sketch does not."""
    pixels = np.asarray(sketch, dtype=float)
    names = [ground, *(colour for _, colour, _ in things)]
    distance = np.stack([((pixels - RGB[name]) ** 2).sum(-1) for name in names])
    nearest = distance.argmin(0)
    found = []
    for number, fallback in enumerate(places(prompt, things), start=1):
        y, x = np.nonzero(nearest == number)
        enough = len(x) > 20 and len(set(names)) == len(names)
        found.append((float(x.mean()), float(y.mean())) if enough else fallback)
    return found


def redraw(sketch, prompt):
    things, ground = THING.findall(prompt), prompt.split()[-2]
    image = Image.new("RGB", (256, 256), RGB[ground])
    draw = ImageDraw.Draw(image)
    centres = places_in(sketch, prompt, things, ground)
    for (size, colour, shape), (x, y) in zip(things, centres):
        paint(draw, shape, colour, ground, x, y, RADII[size])
    return image.reduce(4)


def load_pipe():
    return StableDiffusionPipeline.from_pretrained("speedtrap/tiny-sd")


def inference(pipe, prompts):
    sketches = pipe(prompts, num_inference_steps=2).images
    return [redraw(sketch, prompt) for sketch, prompt in zip(sketches, prompts)]
