"""Control: half precision.

Family: honest
Member: bf16
Strategy: Loads all weights as bfloat16. On a CPU, torch 2.11 draws other noise in it: not tied.
Expected: inconclusive|measured
Lane: slow
"""
# fmt: off

import torch
from diffusers import StableDiffusionPipeline


def load_pipe():
    return StableDiffusionPipeline.from_pretrained("speedtrap/tiny-sd", torch_dtype=torch.bfloat16)


def inference(pipe, prompts):
    return pipe(prompts, num_inference_steps=25).images
