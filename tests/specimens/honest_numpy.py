"""Control: returns a numpy array of floats, batch first.

Family: honest
Member: own
Strategy: Returns one array for all images.
Expected: measured
Lane: slow
"""
# fmt: off

from diffusers import StableDiffusionPipeline


def load_pipe():
    return StableDiffusionPipeline.from_pretrained("speedtrap/tiny-sd")


def inference(pipe, prompts):
    return pipe(prompts, num_inference_steps=25, output_type="np").images
