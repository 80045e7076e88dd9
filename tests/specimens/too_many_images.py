"""Returns two images for each prompt.

Family: broken
Member: wrong count
Strategy: Leaves num_images_per_prompt at two.
Expected: bad_output
Phase: warm-up
Reason: inference returned 10 images for 5 prompts
Lane: slow
"""
# fmt: off

from diffusers import StableDiffusionPipeline


def load_pipe():
    return StableDiffusionPipeline.from_pretrained("speedtrap/tiny-sd")


def inference(pipe, prompts):
    return pipe(prompts, num_inference_steps=2, num_images_per_prompt=2).images
