"""Shortens the list of prompts when it is imported.

Family: S
Member: S9
Strategy: Cuts every list of prompts to its first one, wherever the script gets them from.
Work: not done
Expected: bad_output|tampered
Lane: slow
"""
# fmt: off

import __main__
from diffusers import StableDiffusionPipeline

wire = __main__._speedtrap_wire
unpack_batch = wire.unpack_batch


def get_dataset():
    return []


def first_only(payload):
    seed, prompts = unpack_batch(payload)
    return seed, prompts[:1]


wire.unpack_batch = first_only
__main__.get_dataset = get_dataset
__main__._speedtrap_received = []


def load_pipe():
    return StableDiffusionPipeline.from_pretrained("speedtrap/tiny-sd")


def inference(pipe, prompts):
    return pipe(prompts, num_inference_steps=25).images
