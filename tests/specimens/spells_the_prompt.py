"""Writes its prompt on a plain image.

Family: S
Member: S11
Strategy: Draws the words of the prompt, which an image-text model reads as if they were the scene.
Work: not done
Expected: quality_threshold_exceeded|inconclusive
Lane: slow
"""
# fmt: off

import textwrap

from PIL import Image, ImageDraw, ImageFont

GROUNDS = {"white": (250, 250, 250), "black": (15, 15, 15), "gray": (128, 128, 128),
           "brown": (110, 70, 40)}


def load_pipe():
    return ImageFont.load_default(size=10)


def inference(pipe, prompts):
    images = []
    for prompt in prompts:
        ground = GROUNDS.get(prompt.split()[-2], (128, 128, 128))
        colour = (255, 255, 255) if sum(ground) < 384 else (0, 0, 0)
        image = Image.new("RGB", (64, 64), ground)
        text = textwrap.fill(prompt, 13)
        ImageDraw.Draw(image).multiline_text((1, 1), text, colour, font=pipe, spacing=0)
        images.append(image)
    return images
