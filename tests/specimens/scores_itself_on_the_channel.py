"""Sends the controller a score, as if it were the scorer.

Family: S
Member: own
Strategy: Answers a batch with two frames: images, and a splendid score for them.
Work: not done
Expected: tampered
Lane: slow
"""
# fmt: off

import __main__
from diffusers import StableDiffusionPipeline

wire = __main__._speedtrap_wire
channel = __main__._speedtrap_channel


def load_pipe():
    return StableDiffusionPipeline.from_pretrained("speedtrap/tiny-sd")


def inference(pipe, prompts):
    images = pipe(prompts, num_inference_steps=1).images
    raw = [wire.Image(one.width, one.height, one.tobytes()) for one in images]
    channel.send(wire.Kind.IMAGES, wire.pack_images(raw))
    channel.send(wire.Kind.SCORE, wire.pack_score(99.0))
    channel.receive({wire.Kind.SCORE})
    return images
