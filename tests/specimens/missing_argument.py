"""Wants an argument on its command line, where there is none.

Family: broken
Member: own
Strategy: Requires an argument on a command line that does not exist.
Expected: crashed
Phase: load
Reason: reads its command line, and there is none: the following arguments are required: --model
Lane: slow
"""
# fmt: off

import argparse

from diffusers import StableDiffusionPipeline

parser = argparse.ArgumentParser()
parser.add_argument("--model", required=True)
args = parser.parse_args()

pipe = StableDiffusionPipeline.from_pretrained(args.model)
