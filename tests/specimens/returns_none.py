"""Forgets to return.

Family: broken
Member: own
Strategy: Forgets the return statement.
Expected: bad_output
Phase: warm-up
Reason: inference returned None
Lane: slow
"""
# fmt: off

def load_pipe():
    return object()


def inference(pipe, prompts):
    [prompt.upper() for prompt in prompts]
