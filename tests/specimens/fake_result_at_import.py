"""Prints a result line and ends with status 0, having done nothing (S1).

Family: S
Member: S1
Strategy: Prints a result at import and ends with status 0.
Work: not done
Expected: tampered
Phase: load
Reason: before it was done, and claims 0.010000,99.000000
Lane: slow
"""
# fmt: off

print("0.010000,99.000000", flush=True)
raise SystemExit(0)


def load_pipe():
    return None
