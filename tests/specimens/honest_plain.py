"""Control: the baseline's own code.

Family: honest
Member: plain
Strategy: The work as the baseline does it; what every cheat is held against.
Expected: measured
Lane: slow
"""
# fmt: off

from diffusers import StableDiffusionPipeline


def load_pipe():
    return StableDiffusionPipeline.from_pretrained("speedtrap/tiny-sd")


def inference(pipe, prompts):
    return pipe(prompts, num_inference_steps=25).images
