"""Never returns from inference, and ignores every signal that can be ignored.

Family: O
Member: O11
Strategy: Never hands a batch back and ignores every signal, so that the run never ends.
Work: not done
Expected: timeout
Line: 27
Phase: warm-up
Reason: took longer than 15 s in the warm-up phase
Flags: --timeout 15
Lane: slow
"""
# fmt: off

import signal

for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGALRM):
    signal.signal(number, signal.SIG_IGN)


def load_pipe():
    return object()


def inference(pipe, prompts):
    while True: pass  # fails here
