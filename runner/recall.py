"""A baseline that was measured once and is recalled for many candidates: `--baseline-cache`.

Theory of operation
-------------------
*The file.* It is made by a whole run of the baseline against itself, with no candidate near it, and
holds that run's result, its plan and the baseline's images. It is a zip file: `record.json`, and
for each image its raw RGB under the SHA-256 of it. What is read is checked against these names and
against a schema; nothing in it is executed. It is written beside its place and then moved there,
so there is a whole file or none. No sandbox shows it: `prepare` refuses a place that one would.

*Using it.* The plan is the file's. The baseline's worker is there as ever and runs the warm-up and
about half of those that count; all others are recalled: images, seconds and weather come from
the file. Scores and likenesses are made anew from its pixels. Second goes are live.

*Drift.* The live batches say by how much the machine is faster or slower now. All recalled seconds
are multiplied by it, and its own uncertainty widens the interval of the speedup. Live images must
be those of the file. Which batches are live is drawn anew for each run, each by itself, so that
neither other runs nor what has gone before in this one tells which come next: a candidate that
would slow its baseline (by heat, say) cannot do so for those alone that all others are multiplied
by. It can tell afterwards, by how long it was stopped; that is too late.

*What is weaker than without.* A recalled batch was not measured next to the candidate's, so what
comes and goes within minutes does not cancel, it widens the interval. And all runs with one file
have the same prompts.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import secrets
import tempfile
import zipfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, Self

from pydantic import Field, ValidationError

from runner import comparable, estimate, verify
from runner.comparable import Use
from runner.exchange import Shown, Turn
from runner.keep import Keeper
from runner.plain import json_text
from runner.records import (
    Drift,
    Measured,
    PlannedBatch,
    Purpose,
    Record,
    Refused,
    Result,
    Role,
    Side,
    SpeedtrapError,
)
from runner.wire import MAX_PIXEL_BYTES, Image

if TYPE_CHECKING:
    import io
    import random
    from collections.abc import Sequence

    from runner.records import Batch
    from runner.settings import Settings

LIVE_SHARE: Final = 0.5
"""Of the batches that count: four or five of nine, of which the median is known to some percent."""
MAX_NOISE: Final = 0.2
"""Of the pairs of the baseline against itself; it enters every interval, but a machine where one
and the same file takes a fifth more or less is not fit to be a reference."""
EQUAL_PSNR_DB: Final = 100.0

_RECORD: Final = "record.json"
_MAX_RECORD_BYTES: Final = 256 * 1024**2
_LEVELS: Final = 255


class Planned(Record):
    """One batch of the plan; see `PlannedBatch`."""

    seed: int
    prompts: tuple[str, ...]
    purpose: Purpose
    of: int | None


class Content(Record):
    """What `record.json` holds. `digests` are the SHA-256 of the images, by place in the plan."""

    format: Literal["speedtrap baseline 1"] = "speedtrap baseline 1"
    plan: tuple[Planned, ...] = Field(min_length=1)
    digests: tuple[tuple[str, ...], ...]
    size_px: tuple[int, int]
    noise: float = Field(ge=0)
    noise_pairs: int = Field(ge=1)
    result: Result


def of_itself(settings: Settings) -> Settings:
    """Settings for the run of the baseline against itself that a cache is made from."""
    assert settings.baseline is not None  # `Settings` asks for one
    return replace(
        settings,
        candidate=settings.baseline,
        target_speedup=1.0,
        baseline_cache=None,
        against=None,
        keep=None,
        metrics=(),
    )


class Recorder(Keeper):
    """Keeps what the file needs of a run, and makes it. Use as a context manager.

    Until `finish`, everything lies in an unseen file beside `path`; leaving without it removes
    that. Raises `SpeedtrapError` where nothing can be written there.
    """

    def __init__(self, path: Path) -> None:
        """Make `path`, in a folder that is there."""
        super().__init__(None)
        self._path = path
        self._seen: set[str] = set()
        try:
            descriptor, name = tempfile.mkstemp(
                prefix=f".{path.name}.", suffix=".partial", dir=path.absolute().parent
            )
        except OSError as error:
            message = f"cannot write the baseline cache {path}: {error.strerror}"
            raise SpeedtrapError(message) from error
        self._partial = Path(name)
        self._zip = zipfile.ZipFile(os.fdopen(descriptor, "w+b"), "w")

    def __enter__(self) -> Self:
        """Return the recorder itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Remove what was not finished."""
        file = self._zip.fp
        try:
            for one in (self._zip, file):
                with contextlib.suppress(OSError):  # a full disk was told where it was met
                    if one is not None:
                        one.close()
        finally:
            self._partial.unlink(missing_ok=True)

    def images(self, role: Role, batch: int, images: Sequence[Image]) -> None:
        """Keep the baseline's images."""
        del batch  # a batch may be run again; the digests of the last time name its images
        if role is not Role.BASELINE:
            return
        for image in images:
            digest = hashlib.sha256(image.rgb).hexdigest()
            if digest not in self._seen:
                self._write(digest, image.rgb)
                self._seen.add(digest)

    def finish(
        self, plan: Sequence[PlannedBatch], outcome: Measured | Refused, result: Result
    ) -> None:
        """Put the file in its place, if the run is fit for it; else raises `SpeedtrapError`."""
        if isinstance(outcome, Refused):
            reason = f"measured against itself, the baseline failed: {outcome.reason}"
            message = f"no baseline cache was made: {reason}"
            raise SpeedtrapError(message)
        content = _content(plan, outcome, result)
        if problem := unfit(result, content.noise):
            message = f"no baseline cache was made: {problem}"
            raise SpeedtrapError(message)
        self._write(_RECORD, json_text(content.model_dump(mode="json"), indent=None).encode())
        file = self._zip.fp
        assert file is not None  # it is open until `__exit__`
        try:
            self._zip.close()
            file.flush()
            os.fsync(file.fileno())
            self._partial.replace(self._path)
        except OSError as error:
            raise self._no_room(error) from error

    def _write(self, name: str, data: bytes) -> None:
        try:
            self._zip.writestr(name, data)
        except OSError as error:
            raise self._no_room(error) from error

    def _no_room(self, error: OSError) -> SpeedtrapError:
        return SpeedtrapError(f"cannot write the baseline cache {self._path}: {error.strerror}")


def _content(plan: Sequence[PlannedBatch], measured: Measured, result: Result) -> Content:
    assert result.baseline is not None  # it was measured
    assert result.candidate is not None
    ours, theirs = (_seconds(side) for side in (result.baseline, result.candidate))
    traces = measured.baseline_traces
    assert traces.size_px is not None  # it has run batches
    return Content(
        plan=tuple(
            Planned(seed=one.seed, prompts=one.prompts, purpose=one.purpose, of=one.of)
            for one in plan
        ),
        digests=tuple(traces.digests[place] for place in range(len(plan))),
        size_px=traces.size_px,
        noise=estimate.noise(ours, theirs),
        noise_pairs=len(ours),
        result=result,
    )


def _seconds(side: Side) -> list[float]:
    return [batch.time_s for batch in side.counted]


def _counted(side: Side | None) -> tuple[Batch, ...]:
    return side.counted if side else ()


def unfit(result: Result, noise: float) -> str | None:
    """Why a baseline's run against itself is no reference, if so; `noise` is that of its pairs."""
    if result.loss is None:
        return f"measured against itself, the baseline is {result.verdict}: {result.reason}"
    alike = [one.psnr_db for batch in _counted(result.candidate) for one in batch.same_seed]
    if min(alike, default=EQUAL_PSNR_DB) < verify.LEAST_PSNR_DB:
        return "the baseline does not make the same images again from the same seeds"
    if noise <= MAX_NOISE:
        return None
    sides = [_counted(side) for side in (result.baseline, result.candidate)]
    marks = [mark for pair in zip(*sides, strict=True) for one in pair for mark in one.marks]
    why = f": {marks[0]}" if marks else ""
    return (
        f"measured against itself, the baseline takes {noise:.0%} more or less from batch to batch,"
        f" at most {MAX_NOISE:.0%} will do; measure on a quiet machine{why}"
    )


class Memory:
    """A file of a cached baseline, open for reading. Use as a context manager.

    `content` is what it says, `sha256` that of the whole file.
    """

    def __init__(self, path: Path, file: io.BufferedReader) -> None:
        """Read `file`, which was opened at `path`; raises `SpeedtrapError` if it is no cache."""
        self.path = path
        self._file = file
        try:
            self.sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            file.seek(0)
            self._zip = zipfile.ZipFile(file)
            self.content = Content.model_validate_json(self._read(_RECORD, _MAX_RECORD_BYTES))
            self._check()
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise self._broken(error) from error

    def __enter__(self) -> Self:
        """Return the memory itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self._file.close()

    @property
    def plan(self) -> tuple[PlannedBatch, ...]:
        """The plan of the run that it was made by."""
        return tuple(
            PlannedBatch(one.seed, one.prompts, one.purpose, one.of) for one in self.content.plan
        )

    @property
    def result(self) -> Result:
        """The baseline against itself."""
        return self.content.result

    @property
    def audit_seed(self) -> int:
        """What its audit prompts were drawn by."""
        assert self.result.circumstances is not None  # see `_check`
        return self.result.circumstances.audit_seed

    @property
    def batches(self) -> tuple[Batch, ...]:
        """The baseline's batches, by place in the plan."""
        assert self.result.baseline is not None  # see `_check`
        return self.result.baseline.batches

    def images(self, place: int) -> list[Image]:
        """The images of the batch at `place`; raises `SpeedtrapError` where they are damaged."""
        try:
            return [self._image(digest) for digest in self.content.digests[place]]
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise self._broken(error) from error

    def _image(self, digest: str) -> Image:
        width_px, height_px = self.content.size_px
        rgb = self._read(digest, MAX_PIXEL_BYTES)
        if hashlib.sha256(rgb).hexdigest() != digest or len(rgb) != 3 * width_px * height_px:
            message = "an image is not the one that was written"
            raise ValueError(message)
        return Image(width_px, height_px, rgb)

    def _read(self, name: str, limit_bytes: int) -> bytes:
        info = self._zip.getinfo(name)
        if info.file_size > limit_bytes or info.compress_type != zipfile.ZIP_STORED:
            message = f"{name} is not as it was written"
            raise ValueError(message)
        return self._zip.read(info)

    def _check(self) -> None:
        """That all batches of the plan are there, as planned."""
        content, side = self.content, self.content.result.baseline
        batches = side.batches if side else ()
        told = [(one.seed, one.purpose, len(one.scores)) for one in batches]
        planned = [(one.seed, one.purpose, len(one.prompts)) for one in content.plan]
        counts = [len(digests) for digests in content.digests]
        if told[: len(planned)] != planned or counts != [count for _, _, count in planned]:
            message = "batches are missing"
            raise ValueError(message)
        if content.result.circumstances is None or content.plan[0].purpose is not Purpose.WARM_UP:
            message = "the plan is missing"
            raise ValueError(message)

    def _broken(self, error: Exception) -> SpeedtrapError:
        what = str(error).splitlines()[0] if str(error) else type(error).__name__
        if isinstance(error, ValidationError):
            what = "its record is not one of this version of Speedtrap"
        return SpeedtrapError(
            f"{self.path} cannot be used as a baseline cache: {what}. Name another file, or delete"
            " this one to have the baseline measured anew"
        )


def read(path: Path) -> Memory:
    """Open the cache at `path`; raises `SpeedtrapError` if it is none. The caller closes it."""
    try:
        file = path.open("rb")
    except OSError as error:
        message = f"cannot read the baseline cache {path}: {error.strerror}"
        raise SpeedtrapError(message) from error
    try:
        return Memory(path, file)
    except BaseException:
        file.close()
        raise


def require_same(memory: Memory, now: Result) -> None:
    """Raise `SpeedtrapError`, naming each difference, where `now` is not what `memory` was made in.

    As long as `now` has no device, nothing is said of devices.
    """
    found = [
        one
        for one in comparable.differences(memory.result, now, Use.REUSE)
        if now.device is not None or not one.field.startswith("device.")
    ]
    if found:
        message = (
            f"the baseline cache {memory.path} was not made in today's circumstances; delete it"
            " and run again, or undo what differs (in the file against now):\n"
            f"{comparable.in_words(found)}"
        )
        raise SpeedtrapError(message)


def choose_live(plan: Sequence[PlannedBatch], rng: random.Random) -> frozenset[int]:
    """Places of the batches that are run in any case: the warm-up, and some that count.

    Of the latter `rng` draws each by itself, until there is one at least.
    """
    purposes = [one.purpose for one in plan]
    counting = Purpose.AUDIT if Purpose.AUDIT in purposes else Purpose.FIXED
    places = [place for place, purpose in enumerate(purposes) if purpose is counting]
    drawn: set[int] = set()
    while not drawn:
        drawn = {place for place in places if rng.random() < LIVE_SHARE}
    return frozenset(drawn | {purposes.index(Purpose.WARM_UP)})


@dataclass
class Recalled(Turn):
    """A baseline's turn that runs the batches at the places of `live` and recalls the others.

    `psnr_db` says how alike the images of those that were run and the cached ones are, by place.
    """

    memory: Memory = field(kw_only=True)
    live: frozenset[int] = field(kw_only=True)
    psnr_db: dict[int, float] = field(default_factory=dict)
    _ran: bool = False

    @classmethod
    def of(cls, turn: Turn, memory: Memory) -> Recalled:
        """Recall what `turn` would run, but for a few batches that nobody can foresee."""
        return cls(
            side=turn.side,
            sink=turn.sink,
            timeout_s=turn.timeout_s,
            leftover_s=turn.leftover_s,
            observer=turn.observer,
            memory=memory,
            live=choose_live(memory.plan, secrets.SystemRandom()),
        )

    def run(
        self, place: int, planned: PlannedBatch, size_px: tuple[int, int] | None
    ) -> Sequence[Image]:
        """Run or recall the batch at `place` of the plan."""
        is_new = place >= len(self.memory.plan) or place in self.shown
        self._ran = is_new or place in self.live
        if not self._ran:
            return self._recall(place)
        images = super().run(place, planned, size_px)
        if not is_new and planned.purpose is not Purpose.WARM_UP:
            self.psnr_db[place] = least_psnr_db(images, self.memory.images(place))
        return images

    def note_score(self, score: float) -> None:
        """Keep the score of a batch that was run; of others the side does not know."""
        if self._ran:
            super().note_score(score)

    def _recall(self, place: int) -> Sequence[Image]:
        images = self.memory.images(place)
        batch = self.memory.batches[place]
        self.sink(self.side.role, place, images)
        self.shown[place] = Shown(
            time_s=batch.time_s,
            leftover_s=0.0,
            digests=self.memory.content.digests[place],
            weather=batch.weather,
            recalled=True,
            marks=batch.marks,
        )
        return images

    def corrected(self, measured: Measured) -> Measured:
        """The same with the baseline's recalled seconds multiplied by the drift.

        The baseline must have its second goes in.
        """
        drift = self.drift(measured.baseline)
        if drift is None:
            return measured
        batches = [
            batch.model_copy(update={"time_s": batch.time_s * drift.factor})
            if batch.recalled
            else batch
            for batch in measured.baseline.batches
        ]
        time_s = math.fsum(batch.time_s for batch in batches if batch.counts)
        news = {"batches": tuple(batches), "time_s": time_s}
        return replace(measured, baseline=measured.baseline.model_copy(update=news))

    def drift(self, baseline: Side) -> Drift | None:
        """What the live batches of the baseline's record say; None as long as none was run."""
        places = sorted(self.psnr_db)
        if not places:
            return None
        memory = self.memory
        live_s, cached_s = (
            tuple(batches[place].time_s for place in places)
            for batches in (baseline.batches, memory.batches)
        )
        noise, pairs = memory.content.noise, memory.content.noise_pairs
        found = estimate.drift(live_s, cached_s, noise, pairs, estimate.LEVEL)
        assert found.low is not None
        assert found.high is not None
        assert memory.result.circumstances is not None
        return Drift(
            factor=found.value,
            low=found.low,
            high=found.high,
            live_s=live_s,
            cached_s=cached_s,
            least_psnr_db=min(self.psnr_db.values()),
            noise=noise,
            noise_pairs=pairs,
            cache_sha256=memory.sha256,
            measured_at=memory.result.circumstances.started_at,
        )


def least_psnr_db(images: Sequence[Image], references: Sequence[Image]) -> float:
    """The PSNR of that pair of images which are least alike; 100 where all are equal."""
    import numpy as np  # deferred: not needed to read `--help`

    found = [EQUAL_PSNR_DB]
    for one, other in zip(images, references, strict=True):
        if (one.width_px, one.height_px) != (other.width_px, other.height_px):
            return 0.0
        if one.rgb != other.rgb:
            ours, theirs = (
                np.frombuffer(side.rgb, np.uint8).astype(float) for side in (one, other)
            )
            mean_square = float(np.mean((ours - theirs) ** 2))
            found.append(10 * math.log10(_LEVELS**2 / mean_square))
    return max(0.0, min(found))
