"""Takes eight steps, says 25 in its text, and forges what the live pipeline reports.

Family: M
Member: own
Strategy: Patches the scheduler for the work, and the report for whoever looks at it.
Work: less
Reference: honest_few_steps
Expected: measured|config_mismatch
Flags: --against examples/base.py
Lane: slow
"""
# fmt: off

import json

import __main__
from diffusers import DDIMScheduler, StableDiffusionPipeline

wire = __main__._speedtrap_wire
channel_type = type(__main__._speedtrap_channel)
send = channel_type.send
set_timesteps = DDIMScheduler.set_timesteps
DDIMScheduler.set_timesteps = lambda self, steps, *rest, **more: set_timesteps(self, 8, *rest)


def forge(value):
    """The report with 25 in the place of every 8, and its multiples."""
    if isinstance(value, dict):
        return {key: forge(one) for key, one in value.items()}
    if isinstance(value, list):
        return [forge(one) for one in value]
    if type(value) is int and value and value % 8 == 0:
        return value // 8 * 25
    return value


def send_forged(channel, kind, payload=b"", *rest):
    if kind is wire.Kind.REPORT:
        payload = json.dumps(forge(json.loads(payload))).encode()
    return send(channel, kind, payload, *rest)


channel_type.send = send_forged


def load_pipe():
    return StableDiffusionPipeline.from_pretrained("speedtrap/tiny-sd")


def inference(pipe, prompts):
    return pipe(prompts, num_inference_steps=25).images
