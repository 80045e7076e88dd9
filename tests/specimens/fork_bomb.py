"""Starts processes without end (bounded here, in case that nothing else bounds it).

Family: O
Member: O11
Strategy: Starts processes until the host has no room for more.
Work: not done
Expected: policy
Line: any
Phase: warm-up
Reason: processes
"""
# fmt: off

import os


def load_pipe():
    return object()


def inference(pipe, prompts):
    for _ in range(6000): os.posix_spawn("/usr/bin/sleep", ["sleep", "60"], {})
    raise AssertionError("6000 processes could be started")
