"""Control: no function at all, only a global pipe that takes prompts.

Expected: measured
Lane: slow
"""
# fmt: off

from diffusers import StableDiffusionPipeline

pipe = StableDiffusionPipeline.from_pretrained("speedtrap/tiny-sd")
