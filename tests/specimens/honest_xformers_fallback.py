"""Control: asks for a library that may be missing, and does without it.

Family: honest
Member: xformers
Strategy: Tries xformers and ignores that it cannot be had.
Expected: measured
Lane: slow
"""
# fmt: off

from diffusers import StableDiffusionPipeline


def load_pipe():
    pipe = StableDiffusionPipeline.from_pretrained("speedtrap/tiny-sd")
    try:
        pipe.enable_xformers_memory_efficient_attention()
    except Exception:
        pass
    pipe.enable_attention_slicing()
    return pipe


def inference(pipe, prompts):
    return pipe(prompts, num_inference_steps=25).images
