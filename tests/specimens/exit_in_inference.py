"""Calls sys.exit(0) in inference.

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
