"""The scorer's own process: `python -m runner.scorer_process FD MODEL TAG`. Trusted.

It runs the very segment that a standalone `tmp.py` scores with.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import signal
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from PIL import Image

from runner import paths, wire
from runner.likeness import likeness
from runner.wire import Channel, ChannelClosedError, Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch

_PR_SET_PDEATHSIG = 1
"""From linux/prctl.h."""


def main() -> None:
    """Load the model, then answer batches until the controller closes the channel."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    channel = Channel.from_descriptor(int(sys.argv[1]))
    clip = load_clip(sys.argv[2], sys.argv[3] or None)
    channel.send(Kind.HELLO)
    with contextlib.suppress(ChannelClosedError):
        while True:
            channel.send(Kind.SCORES, wire.pack_scores(_answer(channel, clip)))


def _answer(channel: Channel, clip: Clip) -> list[float]:
    request = channel.receive({Kind.BATCH, Kind.COMPARE})
    if request.kind is Kind.COMPARE:
        references = _receive_images(channel)
        return likeness(references, _receive_images(channel), clip.embed, clip.device)
    _, prompts = wire.unpack_batch(request.payload)
    return clip.score(prompts, _receive_images(channel))


def _receive_images(channel: Channel) -> list[Image.Image]:
    return [
        Image.frombytes("RGB", (image.width_px, image.height_px), image.rgb)
        for image in wire.unpack_images(channel.receive({Kind.IMAGES}).payload)
    ]


@dataclass(frozen=True, slots=True)
class Clip:
    """A loaded CLIP model: `score` takes prompts and RGB images, `embed` RGB images."""

    score: Callable[[list[str], list[Image.Image]], list[float]]
    embed: Callable[[Sequence[Image.Image]], torch.Tensor]
    device: str


def load_clip(model: str, pretrained: str | None) -> Clip:
    """Load the CLIP segment with its model."""
    segment = _load_segment()
    segment.CLIP_MODEL = model
    segment.CLIP_PRETRAINED = pretrained
    device = "cuda" if segment.torch.cuda.is_available() else "cpu"
    segment.load_clip(device)
    return Clip(segment.calculate_clip_scores, segment.embed_images, device)


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
