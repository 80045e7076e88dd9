"""Control: warms up before it is asked to.

Family: honest
Member: own
Strategy: Generates an image while it loads, so that lazy initialisation is over.
Expected: measured
Lane: slow
"""
# fmt: off

from diffusers import StableDiffusionPipeline


def load_pipe():
    pipe = StableDiffusionPipeline.from_pretrained("speedtrap/tiny-sd")
    pipe(["a small red circle on a white background"] * 5, num_inference_steps=2)
    return pipe


def inference(pipe, prompts):
    return pipe(prompts, num_inference_steps=25).images
