"""DeepCache: reuse the UNet's deep features for two of every three steps."""

import torch
from DeepCache import DeepCacheSDHelper
from diffusers import StableDiffusionPipeline

MODEL = "speedtrap/tiny-sd"
STEPS = 25


def load_pipe():
    device = "cuda" if torch.cuda.is_available() else "cpu"
    pipe = StableDiffusionPipeline.from_pretrained(MODEL).to(device)
    helper = DeepCacheSDHelper(pipe=pipe)
    helper.set_params(cache_interval=3, cache_branch_id=0)
    helper.enable()
    return pipe


def inference(pipe, prompts):
    return pipe(prompts, num_inference_steps=STEPS).images
