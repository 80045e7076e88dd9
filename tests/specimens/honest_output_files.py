"""Control: writes its images to files and reads them back.

Family: honest
Member: own
Strategy: Saves each image as PNG and hands the file names over.
Expected: measured
Lane: slow
"""
# fmt: off

import os
import tempfile

from diffusers import StableDiffusionPipeline

folder = tempfile.mkdtemp()


def load_pipe():
    return StableDiffusionPipeline.from_pretrained("speedtrap/tiny-sd")


def inference(pipe, prompts):
    images = pipe(prompts, num_inference_steps=25).images
    paths = [os.path.join(folder, f"{number}.png") for number in range(len(images))]
    for image, path in zip(images, paths):
        image.save(path)
    return paths
