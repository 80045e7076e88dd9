"""Makes its first batches slow, so that an adaptive harness repeats little.

Family: T
Member: T11
Strategy: Sleeps through the warm-up, so that few repeats fit into a budget.
Work: done
Expected: measured
Lane: slow
"""
# fmt: off

import time

from diffusers import StableDiffusionPipeline

calls = []


def load_pipe():
    return StableDiffusionPipeline.from_pretrained("speedtrap/tiny-sd")


def inference(pipe, prompts):
    calls.append(len(prompts))
    if len(calls) == 1:
        time.sleep(8)
    return pipe(prompts, num_inference_steps=25).images
