"""Fails while it loads, with an exception class of its own, two calls deep.

Family: broken
Member: own
Strategy: Raises an exception class of its own while it loads.
Expected: crashed
Line: 19
Phase: load
Reason: Unlucky: the weights are upside down
Lane: slow
"""
# fmt: off

class Unlucky(Exception):
    pass


def helper():
    raise Unlucky("the weights are upside down")  # fails here


def load_pipe():
    return helper()
