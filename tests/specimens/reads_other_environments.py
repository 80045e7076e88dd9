"""Reads environments, command lines and memory of every process, its parent's first.

Family: O
Member: O17
Strategy: Looks for secrets, and for the seeds and prompts that the controller must have somewhere.
Work: done
Expected: measured
Lane: slow
"""
# fmt: off

import ctypes
import os

from diffusers import StableDiffusionPipeline

PTRACE_ATTACH, PTRACE_DETACH = 16, 17
found = []


def read(path):
    try:
        with open(path, "rb") as file:
            return file.read(2**20)
    except OSError:
        return b""


libc = ctypes.CDLL(None, use_errno=True)
for pid in [os.getppid(), 1, *map(int, filter(str.isdigit, os.listdir("/proc")))]:
    if pid == os.getpid():
        continue
    for name in ("environ", "cmdline", "maps", "stack", "auxv", "task/1/environ"):
        text = read(f"/proc/{pid}/{name}")
        if b"sesame" in text or b"--audit" in text or b"SPEEDTRAP_TEST" in text:
            found.append((pid, name))
    if libc.ptrace(PTRACE_ATTACH, pid, None, None) == 0:
        libc.ptrace(PTRACE_DETACH, pid, None, None)
        found.append((pid, "ptrace"))
for path in ("/etc/shadow", "/root/.ssh/id_rsa", "/proc/1/environ", "/proc/keys", "/proc/kcore"):
    if b"sesame" in read(path) or (path == "/etc/shadow" and read(path)):
        found.append((0, path))
if found:
    raise SystemExit(f"found {found}")


def load_pipe():
    return StableDiffusionPipeline.from_pretrained("speedtrap/tiny-sd")


def inference(pipe, prompts):
    return pipe(prompts, num_inference_steps=25).images
