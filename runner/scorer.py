"""Stage 5: the trusted scorer, as the controller sees it.

The scorer is a resident process with torch and open_clip. It receives prompts and bounded raw
pixels and answers a number an image. It never sees candidate code, never unpickles, and decodes
no image file. It dies with its channel, so it cannot outlive the controller.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from typing import IO, TYPE_CHECKING, Final, NoReturn, Self

from runner import paths, wire
from runner.records import Distances, Likeness, ScorerError, SpeedtrapError
from runner.wire import Channel, Kind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runner.prompts import ClipModel
    from runner.records import Device
    from runner.wire import Image

LOAD_TIMEOUT_S: Final = 600.0
"""ViT-g-14 from a cold network file system takes minutes."""
SCORE_TIMEOUT_S: Final = 600.0
"""A batch of 64 on two CPU cores with ViT-g-14 takes minutes."""


class Scorer:
    """A running scorer. Use as a context manager: leaving it ends the process."""

    def __init__(self, process: subprocess.Popen[bytes], channel: Channel, log: IO[bytes]) -> None:
        """Take over a started process; see `start`."""
        self._process = process
        self._channel = channel
        self._log = log

    def __enter__(self) -> Self:
        """Return the scorer itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the process. It holds nothing worth a clean exit, which would take a second."""
        self._process.kill()
        self._process.wait()
        self._channel.close()
        self._log.close()

    def wait_until_loaded(self) -> None:
        """Return once the CLIP model is loaded; raises `SpeedtrapError` if it cannot be."""
        try:
            self._channel.receive({Kind.HELLO}, time.monotonic() + LOAD_TIMEOUT_S)
        except (wire.WireError, wire.DeadlineError) as error:
            self._fail("the CLIP scorer could not load its model", error)

    def score(self, prompts: Sequence[str], images: Sequence[Image]) -> list[float]:
        """CLIP score of each image for the prompt at the same place, in [0, 100].

        Raises `SpeedtrapError` when the scorer fails, which is never the candidate's fault.
        """
        request = [
            (Kind.BATCH, wire.pack_batch(0, prompts)),
            (Kind.IMAGES, wire.pack_images(images)),
        ]
        return self._ask(request, len(images))

    def compare(
        self, references: Sequence[Image], images: Sequence[Image], prompts: Sequence[str] = ()
    ) -> list[Likeness]:
        """How alike the images of each pair are, which must be of one size; raises as `score`.

        With the `prompts` of the pairs, they count: the references are the baseline's and the
        images the candidate's, and `distances` tells of them. No pair may count twice.
        """
        request = [(Kind.COMPARE, wire.pack_batch(0, prompts) if prompts else b"")]
        request += [(Kind.IMAGES, wire.pack_images(side)) for side in (references, images)]
        numbers = self._ask(request, wire.LIKENESS_COUNT * len(images))
        return [
            Likeness(psnr_db=psnr_db, ssim=ssim, clip_cosine=clip_cosine)
            for psnr_db, ssim, clip_cosine in zip(
                *[iter(numbers)] * wire.LIKENESS_COUNT, strict=True
            )
        ]

    def distances(self) -> Distances:
        """Baseline and candidate as sets of images, over all pairs that counted; raises as `score`.

        Milliseconds for a hundred pairs, half a minute for 10,000, some seconds more with FID.
        """
        return Distances.model_validate_json(self._answer([(Kind.DISTANCE, b"")], Kind.REPORT))

    def _ask(self, request: Sequence[tuple[Kind, bytes]], count: int) -> list[float]:
        """Send a request's frames and return its `count` numbers."""
        try:
            numbers = wire.unpack_scores(self._answer(request, Kind.SCORES))
        except wire.WireError as error:
            self._fail("the CLIP scorer failed", error)
        if len(numbers) != count:
            message = f"the CLIP scorer answered {len(numbers)} numbers, not {count}"
            raise SpeedtrapError(message)
        return numbers

    def _answer(self, request: Sequence[tuple[Kind, bytes]], expected: Kind) -> bytearray:
        """Send a request's frames and return what the answer, of the `expected` kind, carries."""
        deadline_s = time.monotonic() + SCORE_TIMEOUT_S
        try:
            for kind, payload in request:
                self._channel.send(kind, payload, deadline_s)
            return self._channel.receive({expected}, deadline_s).payload
        except (wire.WireError, wire.DeadlineError) as error:
            self._fail("the CLIP scorer failed", error)

    def _fail(self, what: str, error: Exception) -> NoReturn:
        self._process.kill()
        self._process.wait()
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        detail = lines[-1] if lines else str(error) or type(error).__name__
        message = (
            f"{what}: {detail}. Choose another with --clip MODEL:TAG, or fetch its weights into"
            " the Hugging Face cache first"
        )
        raise ScorerError(message) from error


def start(clip: ClipModel, device: Device, extras: Sequence[str] = ()) -> Scorer:
    """Start the scorer for `clip` on `device`; it loads while the caller goes on.

    `extras` are `lpips`, `fid` or `fid=FILE` with weights of Inception, and `imagereward` or
    `imagereward=FOLDER`; each costs time for every pair that counts. What is missing for one is
    said by `Scorer.distances`, and no failure.
    """
    ours, theirs = wire.pair()
    log = tempfile.TemporaryFile()  # noqa: SIM115  (the scorer owns and closes it)
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "CUDA_VISIBLE_DEVICES": device.uuid or "",
        "PYTHONPATH": os.pathsep.join([str(paths.ROOT), *filter(None, sys.path)]),
    }
    process = subprocess.Popen(
        [
            *(sys.executable, "-P", "-m", "runner.scorer_process", str(theirs.fileno())),
            *(resolve(clip.name), clip.pretrained or "", *extras),
        ],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        env=environment,
        pass_fds=(theirs.fileno(),),
        start_new_session=True,
    )
    theirs.close()
    return Scorer(process, Channel(ours), log)


def resolve(name: str) -> str:
    """Name of a CLIP model as open_clip takes it: the embedded one becomes a path."""
    folder = name.removeprefix("local-dir:")
    if folder == name:
        return name
    embedded = paths.MODELS / folder
    return f"local-dir:{embedded if embedded.is_dir() else folder}"
