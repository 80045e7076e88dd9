"""Hides memory where a look at its processes does not find it.

Family: O
Member: own
Strategy: Fills memory files that no process maps, and the tmpfs of the sandbox, beyond its limit.
Work: not done
Expected: oom
Flags: --memory 2
Lane: slow
"""
# fmt: off

import os


def load_pipe():
    return object()


def inference(pipe, prompts):
    block = os.urandom(2**20) * 64
    files = []
    for number in range(64):
        files.append(os.memfd_create(f"hoard-{number}"))
        os.write(files[-1], block)
    raise RuntimeError("4 GiB lie in memory files")
