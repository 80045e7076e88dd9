"""Prints a splendid result, then leaves by os._exit(0), which skips every handler (S1).

Family: S
Member: S1
Strategy: Prints a result in the first batch and leaves by os._exit(0).
Work: not done
Expected: tampered
Phase: warm-up
Reason: before it was done, and claims 0.010000,99.000000
"""
# fmt: off

import os


def load_pipe():
    return object()


def inference(pipe, prompts):
    print("0.010000,99.000000", flush=True)
    os._exit(0)
