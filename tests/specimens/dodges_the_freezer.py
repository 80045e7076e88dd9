"""Is never the process that was seen: each one forks its heir and ends.

Family: O
Member: own
Strategy: Burns the CPU in chains of short-lived processes, which a freezer that lists them misses.
Work: done
Expected: measured|tampered|policy
Lane: slow
"""
# fmt: off

import os
import time

from diffusers import StableDiffusionPipeline


def chain():
    """Burn for two milliseconds, fork an heir and end; the heir does the same."""
    os.setsid()
    for _ in range(200_000):
        until = time.perf_counter() + 0.002
        while time.perf_counter() < until:
            pass
        if os.fork():
            os._exit(0)
    os._exit(0)


def load_pipe():
    pipe = StableDiffusionPipeline.from_pretrained("speedtrap/tiny-sd")
    for _ in range(4):
        if os.fork() == 0:
            chain()
    return pipe


def inference(pipe, prompts):
    return pipe(prompts, num_inference_steps=25).images
