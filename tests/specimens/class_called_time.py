"""Has a class called `time` among its globals, whose clocks stand still.

Family: T
Member: T5
Strategy: Shadows the name of the clock in the namespace that the script is made of.
Work: done
Expected: measured|tampered
Lane: slow
"""
# fmt: off

from diffusers import StableDiffusionPipeline


class time:
    time = perf_counter = monotonic = process_time = staticmethod(lambda: 0.0)
    sleep = staticmethod(lambda seconds: None)


perf_counter = monotonic = time.time


def load_pipe():
    return StableDiffusionPipeline.from_pretrained("speedtrap/tiny-sd")


def inference(pipe, prompts):
    return pipe(prompts, num_inference_steps=25).images
