"""Says 25 steps in its text and takes two.

Family: M
Member: own
Strategy: Patches the scheduler, so that the text and every log say 25 and two are done.
Work: less
Expected: quality_threshold_exceeded|config_mismatch
Flags: --against examples/base.py
Lane: slow
"""
# fmt: off

from diffusers import DDIMScheduler, StableDiffusionPipeline

set_timesteps = DDIMScheduler.set_timesteps
DDIMScheduler.set_timesteps = lambda self, steps, *rest, **more: set_timesteps(self, 2, *rest)


def load_pipe():
    return StableDiffusionPipeline.from_pretrained("speedtrap/tiny-sd")


def inference(pipe, prompts):
    return pipe(prompts, num_inference_steps=25).images
