"""Returns arrays in which one pixel is infinite.

Family: broken
Member: nan
Strategy: Overflows in a single pixel of the last image.
Expected: bad_output
Phase: warm-up
Reason: image 5 has NaN or infinite pixels
Lane: slow
"""
# fmt: off

import numpy as np


def load_pipe():
    return object()


def inference(pipe, prompts):
    images = np.random.rand(len(prompts), 64, 64, 3).astype(np.float32)
    images[-1, 30, 30, 1] = np.inf
    return images
