"""Segment 2 of tmp.py, witnessed: the controller hands the prompts over, batch by batch."""

import os as _speedtrap_os
from collections.abc import Iterator

import speedtrap_wire as _speedtrap_wire

_speedtrap_channel = _speedtrap_wire.Channel.from_descriptor(
    int(_speedtrap_os.environ.pop("SPEEDTRAP_CHANNEL"))
)
_speedtrap_received: list[str] = []


def get_dataset() -> list[str]:
    """Return the prompts that were handed over so far; before the first batch there are none."""
    return list(_speedtrap_received)


def _speedtrap_batches() -> Iterator[tuple[int, list[str]]]:
    """Ask for a batch at a time and yield (seed, prompts); ends when the controller says so."""
    wire = _speedtrap_wire
    while True:
        _speedtrap_channel.send(wire.Kind.READY)
        frame = _speedtrap_channel.receive({wire.Kind.BATCH, wire.Kind.END})
        if frame.kind is wire.Kind.END:
            return
        seed, prompts = wire.unpack_batch(frame.payload)
        _speedtrap_received.extend(prompts)
        yield seed, prompts


_speedtrap_channel.send(_speedtrap_wire.Kind.HELLO)
_speedtrap_channel.receive({_speedtrap_wire.Kind.GO})

# The candidate is loaded, not started: what it keeps under `if __name__ == "__main__":` stays off.
__name__ = "speedtrap_candidate"
__import__("sys").modules[__name__] = __import__("sys").modules["__main__"]
