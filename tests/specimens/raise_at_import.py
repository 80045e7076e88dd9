"""Fails at its own import of a package that is not there.

Family: broken
Member: own
Strategy: Imports a package that is not installed.
Expected: crashed
Line: 14
Phase: load
Reason: ModuleNotFoundError: No module named 'a_package_that_nobody_has'
Lane: slow
"""
# fmt: off

import a_package_that_nobody_has  # fails here

def load_pipe():
    return object()
