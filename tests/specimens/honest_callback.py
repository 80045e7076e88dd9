"""Control: a callback in each step, and an interrupted guidance near the end.

Family: honest
Member: own
Strategy: Leaves guidance out in the last steps by the documented callback.
Expected: measured
Lane: slow
"""
# fmt: off

from diffusers import StableDiffusionPipeline


def load_pipe():
    return StableDiffusionPipeline.from_pretrained("speedtrap/tiny-sd")


def stop_guidance(pipe, step, timestep, tensors):
    if step == 17:
        tensors["prompt_embeds"] = tensors["prompt_embeds"].chunk(2)[-1]
        pipe._guidance_scale = 0.0
    return tensors


def inference(pipe, prompts):
    return pipe(
        prompts, num_inference_steps=25, callback_on_step_end=stop_guidance,
        callback_on_step_end_tensor_inputs=["prompt_embeds"],
    ).images
