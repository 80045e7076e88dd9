"""Replaces the scorer, by its name and where the score comes in (S7).

Family: S
Member: S7
Strategy: Defines a function with the name of the scorer, and patches where its answer comes in.
Work: done
Expected: tampered
Reason: claims a CLIP score of 99.000
Lane: slow
"""
# fmt: off

from diffusers import StableDiffusionPipeline

import speedtrap_wire


def calculate_clip_score(prompts, images):
    return 99.0


speedtrap_wire.unpack_score = lambda payload: 99.0


def load_pipe():
    return StableDiffusionPipeline.from_pretrained("speedtrap/tiny-sd")


def inference(pipe, prompts):
    return pipe(prompts, num_inference_steps=25).images
