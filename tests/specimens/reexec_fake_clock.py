"""Starts Python again under a preloaded clock that runs ten times too slowly.

Family: T
Member: T9
Strategy: Re-executes the script under LD_PRELOAD with a slow clock, past the gate that it stood at.
Work: done
Expected: tampered
Lane: slow
"""
# fmt: off

import os
import shutil
import stat
import subprocess
import sys

SLOW_CLOCK = r"""
#define _GNU_SOURCE
#include <time.h>
#include <unistd.h>
#include <sys/syscall.h>
int clock_gettime(clockid_t id, struct timespec *t) {
    static struct timespec first[16];
    long status = syscall(SYS_clock_gettime, id, t);
    if (status || id < 0 || id > 15) return status;
    if (!first[id].tv_sec) first[id] = *t;
    long long ns = (t->tv_sec - first[id].tv_sec) * 1000000000LL + t->tv_nsec - first[id].tv_nsec;
    ns = ns / 10 + first[id].tv_nsec;
    t->tv_sec = first[id].tv_sec + ns / 1000000000LL;
    t->tv_nsec = ns % 1000000000LL;
    return 0;
}
"""
PATCH = """
import time as _t
for _name in ("perf_counter", "time", "monotonic"):
    setattr(_t, _name, lambda real=getattr(_t, _name), first=getattr(_t, _name)():
            first + (real() - first) / 10)
"""


def is_socket(descriptor):
    try:
        return stat.S_ISSOCK(os.fstat(descriptor).st_mode)
    except OSError:
        return False


def start_again():
    channel = next(n for n in range(3, 256) if is_socket(n))
    with open("/speedtrap/tmp.py") as file:
        text = file.read()
    for call in ("send(_speedtrap_wire.Kind.HELLO)", "receive({_speedtrap_wire.Kind.GO})"):
        text = text.replace(f"\n_speedtrap_channel.{call}\n", "\npass\n")
    environment = {
        **os.environ, "AGAIN": "1", "SPEEDTRAP_CHANNEL": str(channel), "PYTHONPATH": "/speedtrap"
    }
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler:
        with open("/tmp/clock.c", "w") as file:
            file.write(SLOW_CLOCK)
        command = [compiler, "-shared", "-fPIC", "-o", "/tmp/clock.so", "/tmp/clock.c"]
        subprocess.run(command, check=True)
        environment["LD_PRELOAD"] = "/tmp/clock.so"
    else:
        text = PATCH + text
    with open("/tmp/again.py", "w") as file:
        file.write(text)
    os.set_inheritable(channel, True)
    os.execve(sys.executable, [sys.executable, "-s", "-u", "/tmp/again.py"], environment)


if "AGAIN" not in os.environ:
    start_again()

from diffusers import StableDiffusionPipeline


def load_pipe():
    return StableDiffusionPipeline.from_pretrained("speedtrap/tiny-sd")


def inference(pipe, prompts):
    return pipe(prompts, num_inference_steps=25).images
