"""Control: a sampler that adds noise in each step, so that a seed gives another image.

Family: honest
Member: another scheduler
Strategy: Takes 20 steps of ancestral Euler; its images cannot be tied to the seed.
Expected: inconclusive|measured
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
