"""Control: the same, where the task allows images that are not tied to the seed.

Family: honest
Member: another scheduler
Strategy: Takes 20 steps of ancestral Euler where the caller allows it.
Expected: measured
Flags: --allow-untied
Lane: slow
"""
# fmt: off

from diffusers import EulerAncestralDiscreteScheduler, StableDiffusionPipeline


def load_pipe():
    pipe = StableDiffusionPipeline.from_pretrained("speedtrap/tiny-sd")
    pipe.scheduler = EulerAncestralDiscreteScheduler.from_config(pipe.scheduler.config)
    return pipe


def inference(pipe, prompts):
    return pipe(prompts, num_inference_steps=20).images
