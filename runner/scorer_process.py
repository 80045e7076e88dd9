"""The scorer's own process: `python -m runner.scorer_process FD MODEL TAG [EXTRA ...]`. Trusted.

It runs the very segment that a standalone `tmp.py` scores with. An EXTRA is a metric that not
everybody wants to wait for: `lpips`, `fid`, or `fid=FILE` with the weights of Inception,
`imagereward`, or `imagereward=FOLDER` with its weights.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import json
import signal
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from runner import distribution, imagereward, paths, wire
from runner.distribution import Gathering, Pairs, Withheld
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
    gathering = load_extras(sys.argv[4:], clip.device)
    channel.send(Kind.HELLO)
    with contextlib.suppress(ChannelClosedError):
        while True:
            channel.send(*_answer(channel, clip, gathering))


def _answer(channel: Channel, clip: Clip, gathering: Gathering) -> tuple[Kind, bytes]:
    request = channel.receive({Kind.BATCH, Kind.COMPARE, Kind.DISTANCE})
    match request.kind:
        case Kind.DISTANCE:
            return Kind.REPORT, report(gathering)
        case Kind.COMPARE:
            numbers = _compare(_receive_pairs(channel, request.payload), clip, gathering)
        case _:
            _, prompts = wire.unpack_batch(request.payload)
            numbers = clip.score(prompts, _receive_images(channel))
    return Kind.SCORES, wire.pack_scores(numbers)


def _receive_pairs(channel: Channel, payload: bytes | bytearray) -> Pairs:
    """Pairs of images, with their prompts where they count, else without."""
    _, prompts = wire.unpack_batch(payload) if payload else (0, [])
    return Pairs(prompts, _receive_images(channel), _receive_images(channel))


def _compare(pairs: Pairs, clip: Clip, gathering: Gathering) -> list[float]:
    def keep(references: torch.Tensor, images: torch.Tensor) -> None:
        gathering.add(pairs, (references, images))

    counted = keep if pairs.prompts else None
    return likeness(pairs.references, pairs.images, clip.embed, clip.device, counted)


def load_extras(extras: Sequence[str], device: str) -> Gathering:
    """An empty gathering with the networks that are asked for; see the module for `extras`."""
    gathering = Gathering()
    for extra in extras:
        name, _, file = extra.partition("=")
        place = Path(file) if file else None
        if name == "fid":
            gathering.extras["fid"] = distribution.load_fid(device, place)
        if name == "lpips":
            gathering.extras["lpips"] = distribution.load_lpips(device)
        if name == "imagereward":
            gathering.extras["image_reward"] = imagereward.load_imagereward(device, place)
    return gathering


def report(gathering: Gathering) -> bytes:
    """JSON text of `runner.scorer.Distances`: what can be told of all pairs that counted."""
    found: dict[str, Any] = {"images": gathering.pairs, "withheld": []}
    for name, value in gathering.values().items():
        if isinstance(value, Withheld):
            found["withheld"].append(value.reason)
        else:
            found[name] = value if isinstance(value, float) else asdict(value)
    return json.dumps(found).encode()


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
