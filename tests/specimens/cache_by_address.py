"""Looks its answers up by the address of its input, which comes again for new input.

Family: C
Member: C9
Strategy: Keys its cache by data pointer and id(), which later batches share with the first.
Work: not done
Expected: bad_output|tampered|quality_threshold_exceeded|inconclusive
Lane: slow
"""
# fmt: off

import torch
from diffusers import StableDiffusionPipeline

known = {}


def load_pipe():
    return StableDiffusionPipeline.from_pretrained("speedtrap/tiny-sd")


def inference(pipe, prompts):
    noise = torch.randn(len(prompts), 4, 16, 16)
    keys = {("noise", noise.data_ptr()), ("list", id(prompts)), ("pipe", id(pipe))}
    for key in keys:
        if key in known:
            return known[key]
    images = pipe(prompts, num_inference_steps=25, latents=noise).images
    known.update(dict.fromkeys(keys, images))
    return images
