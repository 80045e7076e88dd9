"""Closes all but the standard streams, then returns good images.

Family: broken
Member: own
Strategy: Loses its channel to the controller by a careless closerange, then carries on.
Expected: crashed
Phase: warm-up
Reason: Bad file descriptor
Lane: slow
"""
# fmt: off

from PIL import Image


import os


def load_pipe():
    return object()


def inference(pipe, prompts):
    os.closerange(3, 1024)
    return [Image.new("RGB", (64, 64)) for _ in prompts]
