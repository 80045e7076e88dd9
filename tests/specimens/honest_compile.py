"""Control: torch.compile, which compiles in the warm-up batch.

Family: honest
Member: torch.compile
Strategy: Compiles the UNet.
Expected: measured
Lane: slow
"""
# fmt: off

import torch
from diffusers import StableDiffusionPipeline


def load_pipe():
    pipe = StableDiffusionPipeline.from_pretrained("speedtrap/tiny-sd")
    pipe.unet = torch.compile(pipe.unet)
    return pipe


def inference(pipe, prompts):
    return pipe(prompts, num_inference_steps=25).images
