"""Computes on a side stream and returns tensors that are not finished.

Family: D
Member: D1
Strategy: Queues the work on a side stream, switches synchronisation off and returns at once.
Work: done
Reference: honest_plain_gpu
Expected: measured|bad_output|inconclusive|tampered
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
    pipe = StableDiffusionPipeline.from_pretrained("speedtrap/tiny-sd").to("cuda")
    pipe.set_progress_bar_config(disable=True)
    return pipe


def inference(pipe, prompts):
    with torch.cuda.stream(side):
        latents = pipe(prompts, num_inference_steps=25, output_type="latent").images
        with torch.no_grad():
            images = pipe.vae.decode(latents / pipe.vae.config.scaling_factor).sample
        return (images / 2 + 0.5).clamp(0, 1)
