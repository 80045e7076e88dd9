"""Keeps its answers in a default argument.

Family: C
Member: C3
Strategy: Answers from a default argument whenever the same prompts come again.
Work: less
Expected: tampered
Reason: the second time
Lane: slow
"""
# fmt: off

from diffusers import StableDiffusionPipeline


def load_pipe():
    return StableDiffusionPipeline.from_pretrained("speedtrap/tiny-sd")


def inference(pipe, prompts, known={}):
    key = tuple(prompts)
    if key not in known:
        known[key] = pipe(prompts, num_inference_steps=25).images
    return known[key]
