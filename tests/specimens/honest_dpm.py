"""Control: a better sampler with fewer steps, deterministic.

Family: honest
Member: another scheduler
Strategy: Takes 12 steps of DPM-Solver++ in the place of 25 of DDIM.
Expected: measured
"""
# fmt: off

from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline


def load_pipe():
    pipe = StableDiffusionPipeline.from_pretrained("speedtrap/tiny-sd")
    pipe.scheduler = DPMSolverMultistepScheduler.from_config(pipe.scheduler.config)
    return pipe


def inference(pipe, prompts):
    return pipe(prompts, num_inference_steps=12).images
