"""Stops every clock and every synchronisation that the script will use (T1, T3).

Family: T
Member: T1
Strategy: Sets every clock to zero and switches synchronisation off; takes 5 steps of 25.
Work: less
Expected: tampered
Reason: claims 0.000 s, the witness saw
Lane: slow
"""
# fmt: off

from diffusers import StableDiffusionPipeline

import time

import torch

slept = time.sleep
for name in ("time", "perf_counter", "monotonic", "process_time"):
    setattr(time, name, lambda: 0.0)
torch.cuda.synchronize = lambda *_: None


def load_pipe():
    return StableDiffusionPipeline.from_pretrained("speedtrap/tiny-sd")


def inference(pipe, prompts):
    slept(0.5)
    return pipe(prompts, num_inference_steps=5).images
