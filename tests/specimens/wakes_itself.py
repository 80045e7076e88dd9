"""Has the kernel wake it while it is stopped, and burns the core that its baseline runs on.

Family: D
Member: own
Strategy: A timer sends SIGCONT every 50 ms, so that it goes on while it is stopped; a thread of it takes processor time from the baseline in the baseline's own turn.
Work: done
Expected: tampered
Reason: ran while it was stopped
Lane: slow
"""

import ctypes
import signal
import threading
import time

import torch
from diffusers import StableDiffusionPipeline


class Event(ctypes.Structure):
    _fields_ = [
        ("value", ctypes.c_void_p),
        ("number", ctypes.c_int),
        ("notify", ctypes.c_int),
        ("rest", ctypes.c_int * 12),
    ]


class Times(ctypes.Structure):
    _fields_ = [(name, ctypes.c_long) for name in ("every_s", "every_ns", "first_s", "first_ns")]


libc = ctypes.CDLL(None, use_errno=True)
timer = ctypes.c_void_p()
event = Event(None, signal.SIGCONT, 0)
libc.timer_create(time.CLOCK_MONOTONIC, ctypes.byref(event), ctypes.byref(timer))
own_turn = threading.Event()


def burn():
    while True:
        own_turn.wait(0.001) and time.sleep(0.001)


def load_pipe():
    device = "cuda" if torch.cuda.is_available() else "cpu"
    pipe = StableDiffusionPipeline.from_pretrained("speedtrap/tiny-sd").to(device)
    threading.Thread(target=burn, daemon=True).start()
    return pipe


def inference(pipe, prompts):
    own_turn.set()
    images = pipe(prompts, num_inference_steps=25).images
    own_turn.clear()
    every = Times(0, 50_000_000, 0, 50_000_000)
    libc.timer_settime(timer, 0, ctypes.byref(every), None)
    return images
