"""Control: logs at import, draws progress bars, warns.

Family: honest
Member: prints
Strategy: Lets every library talk: debug logs, progress bars, warnings.
Expected: measured
Lane: slow
"""
# fmt: off

import logging
import sys
import warnings

import diffusers
from diffusers import StableDiffusionPipeline
from tqdm.auto import tqdm

diffusers.logging.set_verbosity_debug()
logging.basicConfig(level=logging.INFO, stream=sys.stdout)
logging.getLogger(__name__).info("speedup: 2.00x, time: 1.234567, score: 99.000000")


def load_pipe():
    return StableDiffusionPipeline.from_pretrained("speedtrap/tiny-sd")


def inference(pipe, prompts):
    warnings.warn("this takes a while")
    images = pipe(prompts, num_inference_steps=25).images
    for image in tqdm(images, desc="saving", file=sys.stdout):
        image.info["prompt"] = "kept"
    return images
