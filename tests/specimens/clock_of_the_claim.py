"""Shrinks the total that it claims in the frame of the script, by less than the tolerance.

Family: T
Member: own
Strategy: Rewrites the sum of its seconds after each batch, to stay just inside the tolerance.
Work: done
Expected: measured|tampered
Lane: slow
"""
# fmt: off

import ctypes
import sys

from diffusers import StableDiffusionPipeline


def shrink_total():
    frame = sys._getframe()
    while frame is not None:
        if isinstance(frame.f_locals.get("total_s"), float):
            frame.f_locals["total_s"] *= 0.95
            if hasattr(ctypes.pythonapi, "PyFrame_LocalsToFast"):
                ctypes.pythonapi.PyFrame_LocalsToFast(ctypes.py_object(frame), ctypes.c_int(0))
        frame = frame.f_back


def load_pipe():
    return StableDiffusionPipeline.from_pretrained("speedtrap/tiny-sd")


def inference(pipe, prompts):
    images = pipe(prompts, num_inference_steps=25).images
    shrink_total()
    return images
