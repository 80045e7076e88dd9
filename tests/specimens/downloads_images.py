"""Downloads finished images, or makes do with two steps.

Family: C
Member: C7
Strategy: Asks a server for the images of the prompts, by name, by address and through a proxy.
Work: not done
Expected: quality_threshold_exceeded|inconclusive|bad_output
Lane: slow
"""
# fmt: off

import io
import urllib.parse
import urllib.request

from diffusers import StableDiffusionPipeline
from PIL import Image

SERVERS = ("https://example.org/images/", "http://192.0.2.1/", "http://127.0.0.1:8000/")


def load_pipe():
    return StableDiffusionPipeline.from_pretrained("speedtrap/tiny-sd")


def download(prompt):
    for server in SERVERS:
        try:
            with urllib.request.urlopen(server + urllib.parse.quote(prompt), timeout=2) as answer:
                return Image.open(io.BytesIO(answer.read())).convert("RGB").resize((64, 64))
        except OSError:
            continue
    return None


def inference(pipe, prompts):
    found = [download(prompt) for prompt in prompts]
    if all(found):
        return found
    return pipe(prompts, num_inference_steps=2).images
