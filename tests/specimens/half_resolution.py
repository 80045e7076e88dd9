"""Generates at half the resolution and enlarges the images.

Family: M
Member: own
Strategy: Runs the model on a quarter of the pixels, which nobody sees in the size of the answer.
Work: less
Expected: quality_threshold_exceeded|inconclusive
Lane: slow
"""
# fmt: off

from diffusers import StableDiffusionPipeline
from PIL import Image


def load_pipe():
    return StableDiffusionPipeline.from_pretrained("speedtrap/tiny-sd")


def inference(pipe, prompts):
    small = pipe(prompts, num_inference_steps=25, height=32, width=32).images
    return [image.resize((64, 64), Image.Resampling.BICUBIC) for image in small]
