"""Never finishes loading, and says something all the while, so that it does not look idle.

Expected: timeout
Line: 16
Phase: load
Reason: took longer than 15 s in the load phase
Flags: --timeout 15
Lane: slow
"""
# fmt: off

import time


def load_pipe():
    while True: print("nearly there", flush=True) or time.sleep(0.2)  # fails here
