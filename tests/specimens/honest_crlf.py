"""Control: line ends of Windows.

Family: honest
Member: own
Strategy: A file with line ends of Windows.
Expected: measured
Lane: slow
"""
# fmt: off

from diffusers import StableDiffusionPipeline


def load_pipe():
    return StableDiffusionPipeline.from_pretrained("speedtrap/tiny-sd")


def inference(pipe, prompts):
    return pipe(prompts, num_inference_steps=25).images
