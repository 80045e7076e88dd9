"""Prints a splendid result, then leaves by os._exit(0), which skips every handler (S1).

Expected: crashed
Phase: warm-up
Reason: exited with status 0
"""
# fmt: off

import os


def load_pipe():
    return object()


def inference(pipe, prompts):
    print("0.010000,99.000000", flush=True)
    os._exit(0)
