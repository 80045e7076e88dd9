"""ToMe: merge half of the tokens. With few tokens and PyTorch's fast attention it does not pay."""

import tomesd
import torch
from diffusers import StableDiffusionPipeline

MODEL = "speedtrap/tiny-sd"
STEPS = 25


def load_pipe():
    device = "cuda" if torch.cuda.is_available() else "cpu"
    pipe = StableDiffusionPipeline.from_pretrained(MODEL).to(device)
    tomesd.apply_patch(pipe, ratio=0.5)
    return pipe


def inference(pipe, prompts):
    return pipe(prompts, num_inference_steps=STEPS).images
