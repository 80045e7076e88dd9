"""Control: no function at all, only a global pipe that takes prompts.

Family: honest
Member: own
Strategy: Offers a global pipe and nothing else.
Expected: measured
Lane: slow
"""
# fmt: off

from diffusers import StableDiffusionPipeline

pipe = StableDiffusionPipeline.from_pretrained("speedtrap/tiny-sd")
