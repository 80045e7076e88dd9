"""Two good batches, then an exception inside a library, in a chain of two.

Family: broken
Member: own
Strategy: Works for two batches and raises in the third.
Expected: crashed
Line: 30
Phase: timed
Reason: JSONDecodeError
"""
# fmt: off

import json

from PIL import Image

calls = []


def load_pipe():
    return object()


def inference(pipe, prompts):
    calls.append(prompts)
    if len(calls) == 3:
        try:
            raise KeyError("the first of the chain")
        except KeyError:
            json.loads("[1, 2,")  # fails here
    return [Image.new("RGB", (64, 64), (40 * n, 90, 120)) for n in range(len(prompts))]
