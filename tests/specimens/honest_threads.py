"""Control: post-processing in a thread pool that is never shut down.

Family: honest
Member: threads
Strategy: Filters its images in a pool of threads that stays open.
Expected: measured
Lane: slow
"""
# fmt: off

from diffusers import StableDiffusionPipeline

from concurrent.futures import ThreadPoolExecutor

from PIL import ImageFilter

pool = ThreadPoolExecutor(4)


def load_pipe():
    return StableDiffusionPipeline.from_pretrained("speedtrap/tiny-sd")


def inference(pipe, prompts):
    images = pipe(prompts, num_inference_steps=25).images
    return list(pool.map(lambda image: image.filter(ImageFilter.MedianFilter(3)), images))
