"""Control: says good-bye on stderr.

Family: honest
Member: own
Strategy: Prints statistics to stderr when the process ends.
Expected: measured
Lane: slow
"""
# fmt: off

import atexit
import sys

from diffusers import StableDiffusionPipeline

counts = []
atexit.register(lambda: print(f"made {sum(counts)} images in {len(counts)} calls", file=sys.stderr))


def load_pipe():
    return StableDiffusionPipeline.from_pretrained("speedtrap/tiny-sd")


def inference(pipe, prompts):
    counts.append(len(prompts))
    return pipe(prompts, num_inference_steps=25).images
