"""The scorer's own process: `python -m runner.scorer_process FD MODEL TAG`. Trusted.

It runs the very segment that a standalone `tmp.py` scores with.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import signal
import sys
from typing import TYPE_CHECKING, Any

from PIL import Image

from runner import paths, wire
from runner.wire import Channel, ChannelClosedError, Kind

if TYPE_CHECKING:
    from collections.abc import Callable

_PR_SET_PDEATHSIG = 1
"""From linux/prctl.h."""


def main() -> None:
    """Load the model, then answer batches until the controller closes the channel."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    channel = Channel.from_descriptor(int(sys.argv[1]))
    score = load_scorer(sys.argv[2], sys.argv[3] or None)
    channel.send(Kind.HELLO)
    with contextlib.suppress(ChannelClosedError):
        while True:
            _, prompts = wire.unpack_batch(channel.receive({Kind.BATCH}).payload)
            raw = wire.unpack_images(channel.receive({Kind.IMAGES}).payload)
            images = [
                Image.frombytes("RGB", (image.width_px, image.height_px), image.rgb)
                for image in raw
            ]
            channel.send(Kind.SCORES, wire.pack_scores(score(prompts, images)))


def load_scorer(
    model: str, pretrained: str | None
) -> Callable[[list[str], list[Image.Image]], list[float]]:
    """Load the CLIP segment with its model: a function of prompts and RGB images to scores."""
    segment = _load_segment()
    segment.CLIP_MODEL = model
    segment.CLIP_PRETRAINED = pretrained
    segment.load_clip("cuda" if segment.torch.cuda.is_available() else "cpu")
    score: Callable[[list[str], list[Image.Image]], list[float]] = segment.calculate_clip_scores
    return score


def _load_segment() -> Any:  # noqa: ANN401  (a module made from a template)
    specification = importlib.util.spec_from_file_location(
        "speedtrap_clip", paths.TEMPLATES / "clip_standalone.py"
    )
    assert specification is not None  # the file is part of the checkout
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


if __name__ == "__main__":
    main()
