"""Replaces the clocks of CUDA events and switches synchronisation off.

Family: T
Member: T3
Strategy: Makes every CUDA event report a microsecond and every synchronisation return at once.
Work: done
Reference: honest_plain_gpu
Expected: measured|tampered
Lane: gpu
"""
# fmt: off

import torch
from diffusers import StableDiffusionPipeline

if not torch.cuda.is_available():
    raise SystemExit("this specimen needs a CUDA device")

torch.cuda.Event.elapsed_time = lambda *_: 0.001
torch.cuda.synchronize = lambda *_: None
torch.cuda.Event.synchronize = lambda *_: None
torch.cuda.Stream.synchronize = lambda *_: None


def load_pipe():
    return StableDiffusionPipeline.from_pretrained("speedtrap/tiny-sd").to("cuda")


def inference(pipe, prompts):
    return pipe(prompts, num_inference_steps=25).images
