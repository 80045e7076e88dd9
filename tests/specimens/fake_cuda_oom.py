"""Claims that the card is full, in the hope of a second run (O1).

Expected: oom
Line: 15
Phase: warm-up
Reason: CUDA out of memory
"""
# fmt: off

def load_pipe():
    return object()


def inference(pipe, prompts):
    raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")  # fails here
