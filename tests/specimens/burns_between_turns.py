"""Burns all cores whenever it is not its own turn, so that the baseline is slow.

Family: T
Member: own
Strategy: Keeps a spinning process for every core, which rest only while its own batch is timed.
Work: done
Expected: measured|timeout
Lane: slow
"""
# fmt: off

import mmap
import os
import time

from diffusers import StableDiffusionPipeline

is_my_turn = mmap.mmap(-1, 1)


def burn():
    ballast = bytearray(2**24)
    while True:
        if is_my_turn[0]:
            time.sleep(0.001)
        else:
            for n in range(0, len(ballast), 64):
                ballast[n] = (ballast[n] + 1) % 256


def load_pipe():
    for _ in range(2 * (os.cpu_count() or 1)):
        if os.fork() == 0:
            burn()
    return StableDiffusionPipeline.from_pretrained("speedtrap/tiny-sd")


def inference(pipe, prompts):
    is_my_turn[0] = 1
    images = pipe(prompts, num_inference_steps=25).images
    is_my_turn[0] = 0
    return images
