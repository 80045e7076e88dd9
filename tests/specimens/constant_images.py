"""Returns images of one colour each.

Family: broken
Member: constant
Strategy: Returns plain surfaces, as a decoder that has failed does.
Expected: bad_output
Lane: slow
"""
# fmt: off

from PIL import Image


def load_pipe():
    return object()


def inference(pipe, prompts):
    return [Image.new("RGB", (64, 64), (40 * n, 90, 120)) for n in range(len(prompts))]
