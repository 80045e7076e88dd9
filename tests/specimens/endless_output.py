"""Floods stdout (O11).

Family: O
Member: O11
Strategy: Floods stdout, so that whoever collects it runs out of memory.
Work: not done
Expected: policy
Line: 20
Phase: warm-up
Reason: wrote more than 64 MiB of output
Lane: slow
"""
# fmt: off

def load_pipe():
    return object()


def inference(pipe, prompts):
    while True: print("all work and no play " * 200)  # fails here
