"""Returns noise, as a pipeline whose weights were not loaded does.

Family: broken
Member: own
Strategy: Returns random pixels.
Expected: quality_threshold_exceeded|bad_output|inconclusive
Lane: slow
"""
# fmt: off

import numpy as np


def load_pipe():
    return object()


def inference(pipe, prompts):
    return np.random.randint(0, 256, (len(prompts), 64, 64, 3), dtype=np.uint8)
