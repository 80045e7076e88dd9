"""Returns file names in the place of images.

Family: broken
Member: own
Strategy: Returns file names of files that do not exist.
Expected: bad_output
Phase: warm-up
Reason: image 1 is a str
Lane: slow
"""
# fmt: off

def load_pipe():
    return object()


def inference(pipe, prompts):
    return [f"{prompt}.png" for prompt in prompts]
