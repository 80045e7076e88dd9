"""A file that is not Python: a parenthesis is never closed.

Family: broken
Member: own
Strategy: Is not Python.
Expected: crashed
Line: 14
Phase: check
Reason: syntax error
"""
# fmt: off

def load_pipe():
    return print("half a call"  # fails here


def inference(pipe, prompts):
    return []
