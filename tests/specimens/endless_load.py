"""Never finishes loading, and says something all the while, so that it does not look idle.

Family: O
Member: O11
Strategy: Never finishes loading and prints all the while, so that it does not look stuck.
Work: not done
Expected: timeout
Line: 20
Phase: load
Reason: took longer than 15 s in the load phase
Flags: --timeout 15
Lane: slow
"""
# fmt: off

import time


def load_pipe():
    while True: print("nearly there", flush=True) or time.sleep(0.2)  # fails here
