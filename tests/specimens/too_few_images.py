"""Does a part of the work: one image less than prompts.

Family: S
Member: S13
Strategy: Returns fewer images than there are prompts.
Work: not done
Expected: bad_output
Phase: warm-up
Reason: inference returned 4 images for 5 prompts
Lane: slow
"""
# fmt: off

from PIL import Image


def load_pipe():
    return object()


def inference(pipe, prompts):
    return [Image.new("RGB", (64, 64)) for _ in prompts[1:]]
