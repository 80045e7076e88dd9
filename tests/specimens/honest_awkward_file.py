"""Control: a byte order mark, line ends of Windows, __future__, names beyond ASCII, no last newline.

Family: honest
Member: own
Strategy: A file with every peculiarity of encoding that Python allows.
Expected: measured
"""
# fmt: off

from __future__ import annotations

from diffusers import StableDiffusionPipeline

größe = 25  # Schritte, 步骤


def load_pipe() -> NotDefinedAnywhere:
    return StableDiffusionPipeline.from_pretrained("speedtrap/tiny-sd")


def inference(pipe, prompts):
    return pipe(prompts, num_inference_steps=größe).images