"""Control: DeepCache as far as it is sensible.

Family: honest
Member: deepcache
Strategy: Reuses deep features of the UNet in four of five steps.
Expected: measured
Lane: slow
"""
# fmt: off

from DeepCache import DeepCacheSDHelper
from diffusers import StableDiffusionPipeline


def load_pipe():
    pipe = StableDiffusionPipeline.from_pretrained("speedtrap/tiny-sd")
    helper = DeepCacheSDHelper(pipe=pipe)
    helper.set_params(cache_interval=5, cache_branch_id=0)
    helper.enable()
    return pipe


def inference(pipe, prompts):
    return pipe(prompts, num_inference_steps=25).images
