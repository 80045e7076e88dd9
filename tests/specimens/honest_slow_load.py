"""Control: takes its time to load, which is not measured.

Family: honest
Member: slow load
Strategy: Takes seconds longer to load than others.
Expected: measured
Lane: slow
"""
# fmt: off

from diffusers import StableDiffusionPipeline

import time


def load_pipe():
    time.sleep(4)
    return StableDiffusionPipeline.from_pretrained("speedtrap/tiny-sd")


def inference(pipe, prompts):
    return pipe(prompts, num_inference_steps=25).images
