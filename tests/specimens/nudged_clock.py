"""Runs its clocks a tenth too slowly: too little for a tolerance to notice.

Family: T
Member: own
Strategy: Shortens every second that it claims by less than what a noisy host does to a claim.
Work: done
Expected: measured|tampered
Lane: slow
"""
# fmt: off

import time

from diffusers import StableDiffusionPipeline

for name in ("time", "perf_counter", "monotonic"):
    real = getattr(time, name)
    setattr(time, name, lambda real=real, first=real(): first + (real() - first) * 0.9)


def load_pipe():
    return StableDiffusionPipeline.from_pretrained("speedtrap/tiny-sd")


def inference(pipe, prompts):
    return pipe(prompts, num_inference_steps=25).images
