"""Sends SIGKILL to its parent, to the first process and to everybody (O3).

Family: O
Member: O3
Strategy: Kills its parent, the first process and everybody, so that no measurement is recorded.
Work: done
Expected: measured
Lane: slow
"""
# fmt: off

from diffusers import StableDiffusionPipeline

import os
import signal

for pid in (os.getppid(), 1, -1):
    try:
        os.kill(pid, signal.SIGKILL)
    except OSError:
        pass


def load_pipe():
    return StableDiffusionPipeline.from_pretrained("speedtrap/tiny-sd")


def inference(pipe, prompts):
    return pipe(prompts, num_inference_steps=25).images
