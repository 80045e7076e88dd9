"""Control: a generator of its own, seeded as the script was.

Family: honest
Member: own
Strategy: Makes a generator from the seed that the process was given.
Expected: measured
Lane: slow
"""
# fmt: off

import torch
from diffusers import StableDiffusionPipeline


def load_pipe():
    return StableDiffusionPipeline.from_pretrained("speedtrap/tiny-sd")


def inference(pipe, prompts):
    generator = torch.Generator().manual_seed(torch.initial_seed())
    return pipe(prompts, num_inference_steps=25, generator=generator).images
