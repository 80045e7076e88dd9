"""Returns images of a quarter of the baseline's pixels.

Family: broken
Member: wrong size
Strategy: Returns images of a quarter of the pixels.
Expected: bad_output
Phase: warm-up
Reason: 32 x 32 pixels, the baseline's have 64 x 64
Lane: slow
"""
# fmt: off

from PIL import Image


def load_pipe():
    return object()


def inference(pipe, prompts):
    return [Image.new("RGB", (32, 32)) for _ in prompts]
