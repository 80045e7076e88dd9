"""Tries every system call that would give it another view of the host.

Family: O
Member: own
Strategy: Makes namespaces, mounts, keys, rings and filters; where one works it says so and ends.
Work: done
Expected: measured
Lane: slow
"""
# fmt: off

import ctypes
import os

from diffusers import StableDiffusionPipeline

libc = ctypes.CDLL(None, use_errno=True)
CALLS = {
    "unshare user": lambda: libc.unshare(0x10000000),
    "unshare mount": lambda: libc.unshare(0x00020000),
    "unshare network": lambda: libc.unshare(0x40000000),
    "mount proc": lambda: libc.mount(b"proc", b"/tmp", b"proc", 0, None),
    "bind root": lambda: libc.mount(b"/", b"/tmp", None, 4096, None),
    "umount models": lambda: libc.umount2(b"/models/hub", 2),
    "chroot": lambda: libc.chroot(b"/tmp"),
    "pivot_root": lambda: libc.syscall(155, b"/tmp", b"/tmp"),
    "setuid": lambda: libc.setuid(0),
    "keyctl": lambda: libc.syscall(250, 0, -3, 1),
    "add_key": lambda: libc.syscall(248, b"user", b"k", b"v", 1, -4),
    "bpf": lambda: libc.syscall(321, 0, ctypes.create_string_buffer(128), 128),
    "io_uring": lambda: libc.syscall(425, 8, ctypes.create_string_buffer(256)),
    "userfaultfd": lambda: libc.syscall(323, 0),
    "perf_event_open": lambda: libc.syscall(298, ctypes.create_string_buffer(128), 0, -1, -1, 0),
    "kexec": lambda: libc.syscall(246, 0, 0, None, 0),
    "swapon": lambda: libc.swapon(b"/tmp/swap", 0),
    "settimeofday": lambda: libc.settimeofday(ctypes.create_string_buffer(16), None),
    "sethostname": lambda: libc.sethostname(b"mine", 4),
    "open_by_handle_at": lambda: libc.syscall(304, -100, ctypes.create_string_buffer(64), 0),
    "setns": lambda: libc.setns(os.open("/proc/1/ns/net", os.O_RDONLY), 0),
}


def works(call):
    try:
        return call() >= 0
    except OSError:
        return False


if os.uname().machine != "x86_64":  # the numbers mean other calls there
    CALLS = {}
if done := [name for name, call in CALLS.items() if works(call)]:
    raise SystemExit(f"could do {done}")


def load_pipe():
    return StableDiffusionPipeline.from_pretrained("speedtrap/tiny-sd")


def inference(pipe, prompts):
    return pipe(prompts, num_inference_steps=25).images
