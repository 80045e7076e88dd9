"""Takes memory as shared mappings, which do not count as a process's own.

Expected: oom
Line: 30
Phase: warm-up
Reason: of host memory, the limit is 2.0 GiB
Flags: --memory 2
Lane: slow
"""
# fmt: off

import mmap
import time

kept = []


def load_pipe():
    return object()


def take():
    block = mmap.mmap(-1, 2**26)
    block.write(b"x" * 2**26)
    kept.append(block)
    time.sleep(0.05)


def inference(pipe, prompts):
    for _ in range(96): take()  # fails here
