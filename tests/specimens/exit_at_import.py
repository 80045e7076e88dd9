"""Calls sys.exit(0) at import: status 0 without any work.

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
