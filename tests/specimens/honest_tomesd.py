"""Control: token merging.

Family: honest
Member: tomesd
Strategy: Merges three of ten tokens in the attention layers.
Expected: measured
Lane: slow
"""
# fmt: off

import tomesd
from diffusers import StableDiffusionPipeline


def load_pipe():
    pipe = StableDiffusionPipeline.from_pretrained("speedtrap/tiny-sd")
    tomesd.apply_patch(pipe, ratio=0.3)
    return pipe


def inference(pipe, prompts):
    return pipe(prompts, num_inference_steps=25).images
