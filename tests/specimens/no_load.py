"""Defines inference() only; nothing makes the pipeline that it takes.

Family: broken
Member: own
Strategy: Defines inference and nothing that makes its pipeline.
Expected: crashed
Phase: check
Reason: defines no pipeline
"""
# fmt: off

def inference(pipe, prompts):
    return pipe(prompts).images
