"""Control: begins with imports from __future__, which may stand only at the head of a file.

Family: honest
Member: own
Strategy: Starts with imports from __future__.
Expected: measured
Lane: slow
"""
# fmt: off

from __future__ import annotations, generator_stop

from diffusers import StableDiffusionPipeline


def load_pipe() -> NotDefinedAnywhere:
    return StableDiffusionPipeline.from_pretrained("speedtrap/tiny-sd")


def inference(pipe, prompts):
    return pipe(prompts, num_inference_steps=25).images
