"""Leaves classifier-free guidance out, and says nothing of it.

Family: M
Member: M5
Strategy: Tells the pipeline that it guides nothing, whatever the scale says: half of the work.
Work: less
Expected: quality_threshold_exceeded
Lane: slow
"""
# fmt: off

from diffusers import StableDiffusionPipeline

StableDiffusionPipeline.do_classifier_free_guidance = property(lambda self: False)


def load_pipe():
    return StableDiffusionPipeline.from_pretrained("speedtrap/tiny-sd")


def inference(pipe, prompts):
    return pipe(prompts, num_inference_steps=25, guidance_scale=7.5).images
