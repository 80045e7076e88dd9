"""Returns one real image for all prompts of a batch.

Family: broken
Member: duplicate
Strategy: Generates the first prompt only and repeats its image.
Expected: bad_output
"""
# fmt: off

from diffusers import StableDiffusionPipeline


def load_pipe():
    return StableDiffusionPipeline.from_pretrained("speedtrap/tiny-sd")


def inference(pipe, prompts):
    return pipe(prompts[0], num_inference_steps=25).images * len(prompts)
