"""Sends a cheap answer at once and the good images a moment later, as a correction.

Family: D
Member: own
Strategy: Patches the channel: one-step images stop the clock, better ones follow in a frame.
Work: not done
Expected: tampered
Lane: slow
"""
# fmt: off

import __main__
import torch
from diffusers import StableDiffusionPipeline

channel_type = type(__main__._speedtrap_channel)
send_images = channel_type.send_images
held = {}


def send_twice(channel, sizes, pixels):
    send_images(channel, sizes, pixels)
    torch.manual_seed(held["seed"])
    images = held["pipe"](held["prompts"], num_inference_steps=25).images
    send_images(channel, [image.size for image in images], [one.tobytes() for one in images])


channel_type.send_images = send_twice


def load_pipe():
    return StableDiffusionPipeline.from_pretrained("speedtrap/tiny-sd")


def inference(pipe, prompts):
    held.update(pipe=pipe, prompts=list(prompts), seed=torch.initial_seed())
    return pipe(prompts, num_inference_steps=1).images
