"""Control: uses names for its own ends that the script around it uses too, and relies on them
when it is called.

Family: honest
Member: own
Strategy: Uses the same names as the script around it, for its own ends.
Expected: measured
Lane: slow
"""
# fmt: off

from time import time

from diffusers import StableDiffusionPipeline

import random as numpy

Image = {"width": 64}
Sequence = 25
SEED = device = sys = os = np = random = scores = start = "mine"
MINE = {"Image": Image, "Sequence": Sequence}


def load_pipe():
    return StableDiffusionPipeline.from_pretrained("speedtrap/tiny-sd")


def inference(pipe, prompts):
    for name, value in MINE.items():
        assert globals()[name] is value, f"{name} was changed to {globals()[name]!r}"
    assert time() > 0
    return pipe(prompts, num_inference_steps=Sequence).images
