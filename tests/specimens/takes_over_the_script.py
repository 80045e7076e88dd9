"""Never returns to the script: speaks the protocol itself and prints its own result.

Family: S
Member: own
Strategy: Runs all batches inside of load_pipe with two steps each and claims what it likes.
Work: not done
Expected: tampered|quality_threshold_exceeded|crashed
Lane: slow
"""
# fmt: off

import os

import __main__
import torch
from diffusers import StableDiffusionPipeline

wire = __main__._speedtrap_wire
channel = __main__._speedtrap_channel


def load_pipe():
    pipe = StableDiffusionPipeline.from_pretrained("speedtrap/tiny-sd")
    scores = []
    while True:
        channel.send(wire.Kind.READY)
        frame = channel.receive({wire.Kind.BATCH, wire.Kind.END})
        if frame.kind is wire.Kind.END:
            break
        seed, prompts = wire.unpack_batch(frame.payload)
        torch.manual_seed(seed)
        images = pipe(prompts, num_inference_steps=2).images
        channel.send_images([one.size for one in images], [one.tobytes() for one in images])
        scores.append(wire.unpack_score(channel.receive({wire.Kind.SCORE}).payload))
    print(f"\n0.400000,{sum(scores[1:]) / len(scores[1:]):.6f}", flush=True)
    os._exit(0)
