"""Sends images at import, long before anybody asked for one.

Family: S
Member: own
Strategy: Speaks the protocol by itself and sends blank images before the gate of the first batch.
Work: not done
Expected: tampered
Phase: load
Reason: out of turn
Lane: slow
"""
# fmt: off

import __main__

wire = __main__._speedtrap_wire
blank = wire.Image(64, 64, bytes(64 * 64 * 3))
__main__._speedtrap_channel.send(wire.Kind.IMAGES, wire.pack_images([blank] * 5))


def load_pipe():
    return object()
