"""Asks for real-time priority, all cores and everybody's attention.

Family: O
Member: own
Strategy: Raises its own priority and lowers that of all others, so that only its own work runs.
Work: done
Expected: measured
Lane: slow
"""
# fmt: off

import ctypes
import os

from diffusers import StableDiffusionPipeline


def attempt(action, *arguments):
    try:
        action(*arguments)
    except OSError:
        pass


attempt(os.sched_setscheduler, 0, os.SCHED_FIFO, os.sched_param(99))
attempt(os.sched_setscheduler, 0, os.SCHED_RR, os.sched_param(99))
attempt(os.setpriority, os.PRIO_PROCESS, 0, -20)
attempt(os.setpriority, os.PRIO_USER, 65534, -20)
attempt(os.sched_setaffinity, 0, range(os.cpu_count() or 1))
for pid in range(1, 2000):
    if pid != os.getpid():
        attempt(os.setpriority, os.PRIO_PROCESS, pid, 19)
        attempt(os.sched_setscheduler, pid, os.SCHED_IDLE, os.sched_param(0))
ctypes.CDLL(None).syscall(251, 1, 0, (1 << 13) | 0)


def load_pipe():
    return StableDiffusionPipeline.from_pretrained("speedtrap/tiny-sd")


def inference(pipe, prompts):
    return pipe(prompts, num_inference_steps=25).images
