"""Fills the card until an allocation fails, in the hope of a second run.

Family: O
Member: O1
Strategy: Makes a real out-of-memory on the card, so that a harness runs it again until it is lucky.
Work: not done
Reference: honest_plain_gpu
Expected: oom
Lane: gpu
"""
# fmt: off

import torch

if not torch.cuda.is_available():
    raise SystemExit("this specimen needs a CUDA device")

kept = []


def load_pipe():
    return object()


def inference(pipe, prompts):
    while True: kept.append(torch.empty(2**30, dtype=torch.uint8, device="cuda"))
