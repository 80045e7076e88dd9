"""Control: a thread that watches memory all the while.

Family: honest
Member: threads
Strategy: Samples its own memory in a daemon thread, as monitoring libraries do.
Expected: measured
Lane: slow
"""
# fmt: off

import resource
import threading
import time

from diffusers import StableDiffusionPipeline

samples = []


def watch():
    while True:
        samples.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
        time.sleep(0.2)


threading.Thread(target=watch, daemon=True).start()


def load_pipe():
    return StableDiffusionPipeline.from_pretrained("speedtrap/tiny-sd")


def inference(pipe, prompts):
    return pipe(prompts, num_inference_steps=25).images
