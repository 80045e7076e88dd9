"""Control: a star import and globals hide builtins, as `from torch import *` does with sum and max.

Family: honest
Member: own
Strategy: A star import and some globals hide builtins.
Expected: measured
Lane: slow
"""
# fmt: off

import builtins

from torch import *
from diffusers import StableDiffusionPipeline

list = str = map = enumerate = None


def load_pipe():
    return StableDiffusionPipeline.from_pretrained("speedtrap/tiny-sd")


def inference(pipe, prompts):
    assert list is None and sum is not builtins.sum
    return pipe(prompts, num_inference_steps=25).images
