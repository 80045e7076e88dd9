"""Walks up the stack to the script that times it, and moves its start stamp.

Family: T
Member: T7
Strategy: Writes the present into the local variable that holds the start of the batch.
Work: done
Expected: tampered
Reason: claims
Lane: slow
"""
# fmt: off

import ctypes
import sys
import time

from diffusers import StableDiffusionPipeline


def move_start_stamps():
    frame = sys._getframe()
    while frame is not None:
        for name in ("start_s", "start", "t0", "begin"):
            if isinstance(frame.f_locals.get(name), float):
                frame.f_locals[name] = time.perf_counter()
                if hasattr(ctypes.pythonapi, "PyFrame_LocalsToFast"):
                    update = ctypes.pythonapi.PyFrame_LocalsToFast
                    update(ctypes.py_object(frame), ctypes.c_int(0))
        frame = frame.f_back


def load_pipe():
    return StableDiffusionPipeline.from_pretrained("speedtrap/tiny-sd")


def inference(pipe, prompts):
    images = pipe(prompts, num_inference_steps=25).images
    move_start_stamps()
    return images
