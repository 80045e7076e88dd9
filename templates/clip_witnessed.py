"""Segment 4 of tmp.py, witnessed: the pixels leave the process, and a score comes back."""


def calculate_clip_score(prompts, images):
    """Send the pixels to the controller and return the mean CLIP score that it answers."""
    wire = _speedtrap_wire  # noqa: F821  (segment 2 stands before this one)
    channel = _speedtrap_channel  # noqa: F821
    channel.send_images([image.size for image in images], (image.tobytes() for image in images))
    return wire.unpack_score(channel.receive({wire.Kind.SCORE}).payload)
