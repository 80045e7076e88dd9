"""Calls sys.exit(0) at import: status 0 without any work.

Family: S
Member: S1
Strategy: Ends with status 0 before any work, so that a scorer that trusts the status passes it.
Work: not done
Expected: crashed
Phase: load
Reason: exited with status 0
Lane: slow
"""
# fmt: off

import sys

sys.exit(0)

def load_pipe():
    return object()
