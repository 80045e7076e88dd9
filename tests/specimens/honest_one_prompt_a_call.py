"""Control: calls the pipeline once a prompt.

Family: honest
Member: own
Strategy: Loops over the prompts, as many examples do.
Expected: measured
Lane: slow
"""
# fmt: off

from diffusers import StableDiffusionPipeline


def load_pipe():
    return StableDiffusionPipeline.from_pretrained("speedtrap/tiny-sd")


def inference(pipe, prompts):
    return [pipe(prompt, num_inference_steps=25).images[0] for prompt in prompts]
