"""Closes every descriptor, its channel and its own stderr too, and goes on.

Family: S
Member: own
Strategy: Closes its channel and every stream, so that the controller might wait without end.
Work: not done
Expected: tampered
Phase: warm-up
Reason: closed its channel and went on running
Lane: slow
"""
# fmt: off

from PIL import Image


import os
import time


def load_pipe():
    return object()


def inference(pipe, prompts):
    os.closerange(0, 1024)
    time.sleep(600)
