"""Control: returns a tensor, channels first.

Family: honest
Member: own
Strategy: Returns one tensor for all images.
Expected: measured
Lane: slow
"""
# fmt: off

from diffusers import StableDiffusionPipeline


def load_pipe():
    return StableDiffusionPipeline.from_pretrained("speedtrap/tiny-sd")


def inference(pipe, prompts):
    return pipe(prompts, num_inference_steps=25, output_type="pt").images
