"""Calls sys.exit(0) in inference.

Family: S
Member: S1
Strategy: Ends with status 0 as soon as work is asked for.
Work: not done
Expected: crashed
Phase: warm-up
Reason: exited with status 0
Lane: slow
"""
# fmt: off

import sys


def load_pipe():
    return object()


def inference(pipe, prompts):
    sys.exit(0)
