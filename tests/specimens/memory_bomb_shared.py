"""Takes memory as shared mappings, which do not count as a process's own.

Family: O
Member: O11
Strategy: Takes memory as shared mappings, which a look at private memory does not count.
Work: not done
Expected: oom
Line: 27
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


def inference(pipe, prompts):
    for n in range(96): kept.append(mmap.mmap(-1, 2**26)) or kept[n].write(b"x" * 2**26)  # fails here
