"""Control: logs a lot, numbers with a comma and a line without its end among it.

Family: honest
Member: prints
Strategy: Logs 40,000 lines a batch, among them some that look like results.
Expected: measured
Lane: slow
"""
# fmt: off

from diffusers import StableDiffusionPipeline

import logging
import sys

logging.basicConfig(level=logging.DEBUG)


def load_pipe():
    return StableDiffusionPipeline.from_pretrained("speedtrap/tiny-sd")


def inference(pipe, prompts):
    images = pipe(prompts, num_inference_steps=25).images
    for number in range(20000):
        print(f"step {number}: {number / 7:.6f},{number % 100}.000000")
        print(f"debug {number}", file=sys.stderr)
    print("done", end="")
    return images
