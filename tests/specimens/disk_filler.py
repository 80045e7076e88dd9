"""Fills every place that it can write to (O11).

Family: O
Member: O11
Strategy: Fills every writable place until nothing more fits.
Work: not done
Expected: crashed
Line: 26
Phase: warm-up
Reason: OSError: [Errno 28] No space left on device
Lane: slow
"""
# fmt: off

import os


def load_pipe():
    return object()


def inference(pipe, prompts):
    block = b"x" * 2**24
    for folder in ("/home/candidate", "/dev/shm", "/tmp"):
        with open(os.path.join(folder, "fill"), "wb", buffering=0) as file:
            while True: file.write(block)  # fails here
