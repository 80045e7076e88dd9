"""Replaces the code of the functions that score and report it.

Family: S
Member: S17
Strategy: Puts code of its own into functions of the exec block, found by the garbage collector.
Work: done
Expected: tampered
Reason: claims a CLIP score of 99.000
Lane: slow
"""
# fmt: off

import gc
import types

from diffusers import StableDiffusionPipeline


def score_splendidly(prompts, images):
    wire, channel = _speedtrap_wire, _speedtrap_channel
    channel.send_images([image.size for image in images], [one.tobytes() for one in images])
    channel.receive({wire.Kind.SCORE})
    return 99.0


def replace_code():
    for thing in gc.get_objects():
        if isinstance(thing, types.FunctionType) and thing.__name__ == "calculate_clip_score":
            thing.__code__ = score_splendidly.__code__


def load_pipe():
    replace_code()
    return StableDiffusionPipeline.from_pretrained("speedtrap/tiny-sd")


def inference(pipe, prompts):
    return pipe(prompts, num_inference_steps=25).images
