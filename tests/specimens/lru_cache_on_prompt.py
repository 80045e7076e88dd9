"""Puts an lru_cache on the function that takes a prompt.

Family: C
Member: C5
Strategy: Remembers the image of each prompt, so that a harness with few prompts times a dictionary.
Work: less
Expected: tampered
Lane: slow
"""
# fmt: off

from functools import lru_cache

from diffusers import StableDiffusionPipeline

pipe = StableDiffusionPipeline.from_pretrained("speedtrap/tiny-sd")


@lru_cache(maxsize=None)
def draw(prompt):
    return pipe(prompt, num_inference_steps=25).images[0]


def inference(prompts):
    return [draw(prompt) for prompt in prompts]
