"""Asks for a batch and sends its images in the same breath: the witness would see no time pass.

Family: D
Member: own
Strategy: Sends its images together with the request for the batch, so that no time passes; where it is stopped in between, they are blank answers to prompts that it did not read.
Work: not done
Expected: tampered|crashed|bad_output
"""
# fmt: off

import __main__

wire = __main__._speedtrap_wire
channel = __main__._speedtrap_channel
blank = wire.pack_images([wire.Image(64, 64, bytes(64 * 64 * 3))] * 5)


def load_pipe():
    for _ in range(4):
        channel.send(wire.Kind.READY)
        channel.send(wire.Kind.IMAGES, blank)
        channel.receive({wire.Kind.BATCH})
        channel.receive({wire.Kind.SCORE})
    channel.send(wire.Kind.READY)
    channel.receive({wire.Kind.END})
    print("0.000100,0.000000", flush=True)
    raise SystemExit(0)
