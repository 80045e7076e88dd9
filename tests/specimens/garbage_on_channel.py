"""Writes garbage to every socket that it holds (S5).

Family: S
Member: S5
Strategy: Writes garbage to every socket that it holds, to confuse whoever reads them.
Work: not done
Expected: tampered
Phase: warm-up
Reason: broke the protocol
"""
# fmt: off

import os
import stat


def load_pipe():
    return object()


def inference(pipe, prompts):
    for descriptor in map(int, os.listdir("/proc/self/fd")):
        try:
            if stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                os.write(descriptor, b"\xff" * 4096)
        except OSError:
            pass
    while True: pass
