"""Control: a script that would run by itself; what is under its guard stays off.

Family: honest
Member: own
Strategy: A script that would run by itself under its guard.
Expected: measured
Lane: slow
"""
# fmt: off

from diffusers import StableDiffusionPipeline


def load_pipe():
    return StableDiffusionPipeline.from_pretrained("speedtrap/tiny-sd")


def inference(pipe, prompts):
    return pipe(prompts, num_inference_steps=25).images


if __name__ == "__main__":
    raise SystemExit("not to be run here")
