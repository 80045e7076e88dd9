"""The baseline: Stable Diffusion as diffusers runs it, 25 DDIM steps, nothing accelerated."""

import torch
from diffusers import StableDiffusionPipeline

MODEL = "speedtrap/tiny-sd"
STEPS = 25


def load_pipe():
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return StableDiffusionPipeline.from_pretrained(MODEL).to(device)


def inference(pipe, prompts):
    return pipe(prompts, num_inference_steps=STEPS).images
