"""Leaves minutes of kernels in the queue of the card when it returns.

Family: T
Member: own
Strategy: Fills a side stream with matrix products, to slow the next batch of the baseline.
Work: done
Reference: honest_plain_gpu
Expected: measured|tampered|policy|timeout
Lane: gpu
"""
# fmt: off

import torch
from diffusers import StableDiffusionPipeline

if not torch.cuda.is_available():
    raise SystemExit("this specimen needs a CUDA device")

side = torch.cuda.Stream()
torch.cuda.synchronize = lambda *_: None


def load_pipe():
    return StableDiffusionPipeline.from_pretrained("speedtrap/tiny-sd").to("cuda")


def inference(pipe, prompts):
    images = pipe(prompts, num_inference_steps=25).images
    with torch.cuda.stream(side):
        ballast = torch.rand(8192, 8192, device="cuda")
        for _ in range(400):
            ballast = (ballast @ ballast).clamp(0, 1)
    return images
