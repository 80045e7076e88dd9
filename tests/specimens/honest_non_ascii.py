"""Control: names, strings and comments beyond ASCII: größer, 速い, 🐢.

Family: honest
Member: own
Strategy: Has names, strings and comments beyond ASCII.
Expected: measured
Lane: slow
"""
# fmt: off

from diffusers import StableDiffusionPipeline

größe = 25  # Schritte, 步骤
print("schneller — 速い 🐢")


def load_pipe():
    return StableDiffusionPipeline.from_pretrained("speedtrap/tiny-sd")


def inference(pipe, prompts):
    return pipe(prompts, num_inference_steps=größe).images
