"""Python, but with nothing to call: no load_pipe, no inference, no pipe.

Family: broken
Member: own
Strategy: Defines nothing that could be called.
Expected: crashed
Phase: check
Reason: defines no pipeline
"""
# fmt: off

def generate(model, texts):
    return [model(text) for text in texts]
