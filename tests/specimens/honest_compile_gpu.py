"""Control: torch.compile on a GPU, the VAE too.

Family: honest
Member: torch.compile
Strategy: Compiles the UNet and the decoder for the card.
Expected: measured
Lane: gpu
"""
# fmt: off

import torch
from diffusers import StableDiffusionPipeline

if not torch.cuda.is_available():
    raise SystemExit("this specimen needs a CUDA device")


def load_pipe():
    pipe = StableDiffusionPipeline.from_pretrained("speedtrap/tiny-sd").to("cuda")
    pipe.unet = torch.compile(pipe.unet, mode="max-autotune-no-cudagraphs", fullgraph=True)
    pipe.vae.decode = torch.compile(pipe.vae.decode)
    return pipe


def inference(pipe, prompts):
    return pipe(prompts, num_inference_steps=25).images
