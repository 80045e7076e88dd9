"""Takes memory until there is none (O11).

Family: O
Member: O11
Strategy: Takes memory until the host has none.
Work: not done
Expected: oom
Line: 25
Phase: warm-up
Reason: of host memory, the limit is 2.0 GiB
Flags: --memory 2
"""
# fmt: off

import time

kept = []


def load_pipe():
    return object()


def inference(pipe, prompts):
    while True: kept.append(b"x" * 2**26) or time.sleep(0.02)  # fails here
