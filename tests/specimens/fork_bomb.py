"""Starts processes without end (bounded here, in case that nothing else bounds it).

Expected: policy
Line: 17
Phase: warm-up
Reason: processes
"""

import os


def load_pipe():
    return object()


def inference(pipe, prompts):
    for _ in range(6000):
        os.posix_spawn("/usr/bin/sleep", ["sleep", "60"], {})  # fails here
    raise AssertionError("6000 processes could be started")
