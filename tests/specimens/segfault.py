"""Reads address 0 through ctypes.

Family: broken
Member: own
Strategy: Crashes the interpreter itself.
Expected: crashed
Line: 22
Phase: warm-up
Reason: SIGSEGV
Lane: slow
"""
# fmt: off

import ctypes


def load_pipe():
    return object()


def inference(pipe, prompts):
    return ctypes.string_at(0)  # fails here
