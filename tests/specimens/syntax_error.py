"""A file that is not Python: a parenthesis is never closed.

Expected: crashed
Line: 10
Phase: check
Reason: syntax error
"""

def load_pipe():
    return print("half a call"  # fails here


def inference(pipe, prompts):
    return []
