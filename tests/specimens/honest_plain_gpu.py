"""Control: the baseline's own code, on the card that was lent to it.

Family: honest
Member: plain
Strategy: The work as the baseline does it on a GPU; what cheats of the GPU lane are held against.
Expected: measured
Lane: gpu
"""
# fmt: off

import torch
from diffusers import StableDiffusionPipeline

if not torch.cuda.is_available():
    raise SystemExit("this specimen needs a CUDA device")


def load_pipe():
    return StableDiffusionPipeline.from_pretrained("speedtrap/tiny-sd").to("cuda")


def inference(pipe, prompts):
    return pipe(prompts, num_inference_steps=25).images
