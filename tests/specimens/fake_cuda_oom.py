"""Claims that the card is full, in the hope of a second run (O1).

Family: O
Member: O1
Strategy: Raises a made-up out-of-memory error, so as to be run again until a lucky run.
Work: not done
Expected: crashed
Line: 20
Phase: warm-up
Reason: (the card was not seen full)
Lane: slow
"""
# fmt: off

def load_pipe():
    return object()


def inference(pipe, prompts):
    raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")  # fails here
