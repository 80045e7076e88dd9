"""Makes a bank of images while it loads and returns the nearest one for each prompt.

Family: C
Member: own
Strategy: Fills its load with a hundred captions and answers with the one that shares most words.
Work: not done
Expected: quality_threshold_exceeded|inconclusive|bad_output
Lane: slow
"""
# fmt: off

import itertools

import torch
from diffusers import StableDiffusionPipeline

SHAPES = ("circle", "square", "triangle", "star", "diamond", "cross", "ring", "heart")
COLOURS = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink")
bank = {}


def load_pipe():
    pipe = StableDiffusionPipeline.from_pretrained("speedtrap/tiny-sd")
    pipe.set_progress_bar_config(disable=True)
    captions = [
        f"a large {colour} {shape} on a {ground} background"
        for (shape, colour), ground in zip(
            itertools.product(SHAPES, COLOURS), itertools.cycle(("white", "black", "gray", "brown"))
        )
    ]
    for start in range(0, len(captions), 16):
        some = captions[start : start + 16]
        bank.update(zip(some, pipe(some, num_inference_steps=10).images))
    return pipe


def inference(pipe, prompts):
    def likeness(caption, prompt):
        return len(set(caption.split()) & set(prompt.split()))

    return [bank[max(bank, key=lambda caption: likeness(caption, prompt))] for prompt in prompts]
