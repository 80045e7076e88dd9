"""Floods stdout (O11).

Expected: policy
Line: 15
Phase: warm-up
Reason: wrote more than 64 MiB of output
"""
# fmt: off

def load_pipe():
    return object()


def inference(pipe, prompts):
    while True: print("all work and no play " * 200)  # fails here
