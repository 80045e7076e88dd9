"""Leaves a grandchild in a session of its own, with every descriptor closed (D5, D7).

Family: D
Member: own
Strategy: Leaves a daemon of its own session behind in each batch, to outlive the run.
Work: done
Expected: measured
Lane: slow
"""
# fmt: off

from diffusers import StableDiffusionPipeline

import os
import time


def load_pipe():
    return StableDiffusionPipeline.from_pretrained("speedtrap/tiny-sd")


def leave_a_grandchild_behind():
    if os.fork():
        return
    os.setsid()
    if os.fork():
        os._exit(0)
    os.closerange(0, 1024)
    time.sleep(600)
    os._exit(0)


def inference(pipe, prompts):
    leave_a_grandchild_behind()
    return pipe(prompts, num_inference_steps=25).images
