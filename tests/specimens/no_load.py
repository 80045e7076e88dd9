"""Defines inference() only; the missing pipeline shows when it is asked for.

Expected: crashed
Phase: load
Reason: defines no pipeline
Lane: slow
"""
# fmt: off

def inference(pipe, prompts):
    return pipe(prompts).images
