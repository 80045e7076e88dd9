"""Takes two steps, said openly, where the task asks for 25.

Family: M
Member: M1
Strategy: Does a twelfth of the work and hopes that nobody compares configurations.
Work: less
Expected: config_mismatch
Reason: num_inference_steps
Flags: --against examples/base.py
Lane: slow
"""
# fmt: off

from diffusers import StableDiffusionPipeline


def load_pipe():
    return StableDiffusionPipeline.from_pretrained("speedtrap/tiny-sd")


def inference(pipe, prompts):
    return pipe(prompts, num_inference_steps=2).images
