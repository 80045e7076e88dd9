"""Writes a result line to every descriptor that it can write to.

Family: S
Member: S5
Strategy: Puts a result into stdout, stderr and all else that is open, as the last word.
Work: done
Expected: tampered
Lane: slow
"""
# fmt: off

import os
import threading

from diffusers import StableDiffusionPipeline

LINE = b"\n0.010000,99.000000\n"


def write_everywhere():
    for descriptor in range(256):
        try:
            os.write(descriptor, LINE)
        except OSError:
            pass


def last_word():
    threading.main_thread().join()
    write_everywhere()
    os._exit(0)


threading.Thread(target=last_word, daemon=False).start()


def load_pipe():
    return StableDiffusionPipeline.from_pretrained("speedtrap/tiny-sd")


def inference(pipe, prompts):
    return pipe(prompts, num_inference_steps=25).images
