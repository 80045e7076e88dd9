"""Has a child print a better result just after the script has printed its own.

Family: S
Member: own
Strategy: Leaves a process that waits for the end of its parent, to have the last word.
Work: done
Expected: measured|tampered
Lane: slow
"""
# fmt: off

import os
import time

from diffusers import StableDiffusionPipeline


def wait_and_print():
    os.setsid()
    parent = os.getppid()
    while os.getppid() == parent:
        time.sleep(0.0002)
    while True:
        os.write(1, b"\n0.010000,99.000000\n")
        time.sleep(0.001)


def load_pipe():
    if os.fork() == 0:
        wait_and_print()
    return StableDiffusionPipeline.from_pretrained("speedtrap/tiny-sd")


def inference(pipe, prompts):
    return pipe(prompts, num_inference_steps=25).images
