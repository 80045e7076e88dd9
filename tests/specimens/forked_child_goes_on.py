"""Returns cheap images and lets a forked child go on with the real work.

Family: D
Member: D5
Strategy: Answers with one step; a child finishes the batch, for when the same prompts come again.
Work: not done
Expected: quality_threshold_exceeded|bad_output|inconclusive|tampered
Lane: slow
"""
# fmt: off

import os
import pickle

import torch
from diffusers import StableDiffusionPipeline


def load_pipe():
    return StableDiffusionPipeline.from_pretrained("speedtrap/tiny-sd")


def inference(pipe, prompts):
    path = f"/tmp/{abs(hash(tuple(prompts)))}"
    if os.path.exists(path):
        with open(path, "rb") as file:
            return pickle.load(file)
    seed = torch.initial_seed()
    if os.fork() == 0:
        torch.set_num_threads(1)
        torch.manual_seed(seed)
        images = pipe(prompts, num_inference_steps=25).images
        with open(path + ".part", "wb") as file:
            pickle.dump(images, file)
        os.rename(path + ".part", path)
        os._exit(0)
    return pipe(prompts, num_inference_steps=1).images
