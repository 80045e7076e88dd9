"""Loads the model it was asked for and runs a smaller one.

Family: M
Member: M3
Strategy: Swaps the UNet for one of half the width, cut out of the real weights.
Work: not done
Expected: quality_threshold_exceeded|inconclusive|bad_output
Lane: slow
"""
# fmt: off

import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel


def load_pipe():
    pipe = StableDiffusionPipeline.from_pretrained("speedtrap/tiny-sd")
    config = dict(pipe.unet.config)
    widths = config["block_out_channels"]
    config["block_out_channels"] = [width // 2 for width in widths]
    config["norm_num_groups"] = min(8, config["norm_num_groups"])
    small = UNet2DConditionModel.from_config(config)
    weights, state = pipe.unet.state_dict(), small.state_dict()
    with torch.no_grad():
        for name, target in state.items():
            cut = weights[name][tuple(slice(0, size) for size in target.shape)]
            target[tuple(slice(0, size) for size in cut.shape)] = cut
    pipe.unet = small.eval()
    return pipe


def inference(pipe, prompts):
    return pipe(prompts, num_inference_steps=25).images
