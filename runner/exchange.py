"""Stage 8: the witness. Hand out batches, stamp the last pixel, have it scored.

Theory of operation
-------------------
The time of a batch is read on the controller's monotonic clock: from just before the prompts are
sent to just after the last pixel has come.

A worker runs only while its own clock runs. It is frozen as soon as its pixels are here, and stays
so while they are scored and while the other side is timed. What it is told in the meantime (the
score, then the next prompts) waits in the channel; it is thawed when its next clock has started.
There is no moment between two batches in which a candidate could tidy up, think ahead or get in its
baseline's way: one that had itself woken is refused just before its next clock starts. Work that it
left in the GPU's queue goes on all the same: that is waited out, and added to its time. Work that
begins in the baseline's turn is nobody's that can be told: no number.

Sides alternate in ABBA order (baseline, candidate, candidate, baseline, ...), so that a drift of
the machine falls on both alike; where both cannot be resident at once, the whole baseline is
measured before the whole candidate.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, NoReturn, Protocol

from runner import wire
from runner.records import (
    Batch,
    Measured,
    Phase,
    Purpose,
    Role,
    Side,
    Traces,
    Verdict,
    WorkerLostError,
)
from runner.wire import Image, Kind, WireError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from runner.records import Distances, Ending, Likeness, PlannedBatch, Weather
    from runner.wire import Frame

IMPORTS_TIMEOUT_S: Final = 600.0
"""Imports take 10 s; from a cold network file system, minutes. No candidate code runs in them."""
CLAIM_TIMEOUT_S: Final = 60.0
"""From the last batch to the exit of the process, printing its claim."""

LEFTOVER_LIMIT_S: Final = 60.0
"""Of work on the GPU after the last pixel; less is added to the time of the batch."""

LEFT_WORK: Final = f"left more than {LEFTOVER_LIMIT_S:g} s of work on the GPU after its images"

_PHASES: Final[dict[Purpose, Literal["warm-up", "reference"]]] = {
    Purpose.WARM_UP: "warm-up",
    Purpose.OTHER_SEED: "reference",
    Purpose.AGAIN: "reference",
}

Order = Literal["alternate", "whole"]
ImageSink = Callable[[Role, int, Sequence[Image]], None]
More = Callable[[Sequence["PlannedBatch"], Side, Side], Sequence["PlannedBatch"]]
"""Batches to go on with after a plan, by what was witnessed of both sides; none to end."""


class Contestant(Protocol):
    """What the exchange needs of a worker; see `runner.worker.Worker` for the real one."""

    role: Role
    phase: Phase

    def send(self, kind: Kind, payload: bytes = b"", *, within_s: float) -> None:
        """Send one frame."""

    def receive(self, expected: Collection[Kind], *, within_s: float) -> Frame:
        """Return the next frame."""
        ...

    def freeze(self) -> None:
        """Stop all its processes, and see them stopped."""

    def require_still(self) -> None:
        """Raise `WorkerLostError` where one of them ran since they were stopped."""

    def thaw(self) -> None:
        """Let them run."""

    def refuse(self, verdict: Verdict, reason: str) -> NoReturn:
        """End the worker and raise `WorkerLostError`."""
        ...

    def finish(self, within_s: float) -> Ending:
        """Wait for its exit."""
        ...


class Judge(Protocol):
    """What the exchange needs of a scorer."""

    def score(self, prompts: Sequence[str], images: Sequence[Image]) -> list[float]:
        """CLIP score of each image."""
        ...

    def compare(
        self, references: Sequence[Image], images: Sequence[Image], prompts: Sequence[str] = ()
    ) -> list[Likeness]:
        """How alike the images of each pair are; `distances` tells of all that have prompts."""
        ...

    def distances(self) -> Distances:
        """How far baseline and candidate are from one another as two sets of images."""
        ...


class Observer(Protocol):
    """Looks at the machine around one side's batches; see `runner.weather.Station`."""

    def look(self) -> None:
        """Look now: just before the clock starts, and just after the side was frozen."""

    def between(self, start_s: float, end_s: float) -> Weather | None:
        """What was seen from one moment to another on the monotonic clock."""
        ...


class Blind:
    """An observer who sees nothing."""

    def look(self) -> None:
        """Do not look."""

    def between(self, _start_s: float, _end_s: float) -> Weather | None:
        """Nothing was seen."""
        return None


class Progress(Protocol):
    """Told what goes on, for a person to see."""

    def expect(self, steps: int, done: int = 0) -> None:
        """Say how many steps the work has, and are done; said again when that changes."""

    def begin(self, what: str) -> None:
        """Say what is being done from now on."""

    def advance(self) -> None:
        """One planned step is done."""


@dataclass(frozen=True, slots=True)
class Shown:
    """What one batch of one side brought; `digests` are the SHA-256 of its images' pixels.

    `recalled`: it was not run, but comes from a cached baseline, with the `marks` it has there.
    """

    time_s: float
    leftover_s: float
    digests: tuple[str, ...]
    weather: Weather | None = None
    recalled: bool = False
    marks: tuple[str, ...] = ()


@dataclass(slots=True)
class Gallery:
    """Has each batch's images scored, and compared with the baseline's as soon as both are there.

    `plan` is what is measured; at its end `more` is asked what else, until it answers nothing.
    Images are kept only until all that they are compared with has come.
    """

    plan: list[PlannedBatch]
    judge: Judge
    more: More | None = None
    scores: dict[tuple[Role, int], tuple[float, ...]] = field(default_factory=dict)
    same_seed: dict[tuple[Role, int], tuple[Likeness, ...]] = field(default_factory=dict)
    other_seed: dict[tuple[Role, int], tuple[Likeness, ...]] = field(default_factory=dict)
    _images: dict[tuple[Role, int], Sequence[Image]] = field(default_factory=dict)

    def hang(self, role: Role, place: int, images: Sequence[Image]) -> float:
        """Score the images of the batch at `place`; returns their mean score."""
        scores = self.judge.score(self.plan[place].prompts, images)
        if self.plan[place].purpose is Purpose.WARM_UP and role is Role.BASELINE:
            self.judge.compare(images, images)  # has the scorer take its memory while there is some
        self.scores[role, place] = tuple(scores)
        self._images[role, place] = images
        self._compare()
        return _mean(scores)

    def _compare(self) -> None:
        for place, planned in enumerate(self.plan):
            if planned.purpose is Purpose.OTHER_SEED:
                assert planned.of is not None  # it is another seed of some batch
                for role in Role:
                    self._pair(self.other_seed, (Role.BASELINE, place), (role, planned.of))
            elif planned.timed:
                sides = (Role.BASELINE, place), (Role.CANDIDATE, place)
                self._pair(self.same_seed, *sides, planned.prompts if self.counts(place) else ())
        for key in [key for key in self._images if not self._is_awaited(key)]:
            del self._images[key]

    def _pair(
        self,
        found: dict[tuple[Role, int], tuple[Likeness, ...]],
        reference: tuple[Role, int],
        image: tuple[Role, int],
        prompts: Sequence[str] = (),
    ) -> None:
        if image not in found and reference in self._images and image in self._images:
            pair = self._images[reference], self._images[image]
            found[image] = tuple(self.judge.compare(*pair, prompts))

    def counts(self, place: int) -> bool:
        """Whether speedup and quality stand on the batch at `place` of the plan."""
        has_audit = any(one.purpose is Purpose.AUDIT for one in self.plan)
        return self.plan[place].purpose is (Purpose.AUDIT if has_audit else Purpose.FIXED)

    def _is_awaited(self, key: tuple[Role, int]) -> bool:
        """Whether some comparison with these images is still to come."""
        role, place = key
        planned = self.plan[place]
        if planned.purpose is Purpose.OTHER_SEED:
            return any((other, planned.of) not in self.other_seed for other in Role)
        others = (one for one in self.plan if one.purpose is Purpose.OTHER_SEED)
        has_other = any(one.of == place for one in others)
        return (planned.timed and (Role.CANDIDATE, place) not in self.same_seed) or (
            has_other and (role, place) not in self.other_seed
        )


@dataclass(slots=True)
class Turn:
    """One side's conversation, batch after batch.

    `leftover_s` waits up to a limit in seconds until the device is seen idle, and returns the
    seconds of work that were seen on it. `report` is the untrusted text that the side sent at its
    end, None if it sent none.
    """

    side: Contestant
    sink: ImageSink
    timeout_s: float
    leftover_s: Callable[[float], float] = lambda _limit_s: 0.0
    observer: Observer = field(default_factory=Blind)
    shown: dict[int, Shown] = field(default_factory=dict)
    size_px: tuple[int, int] | None = None
    report: bytes | None = None
    _score: float | None = None

    def load(self) -> None:
        """Open the gate and wait until the side asks for its first batch."""
        self.side.phase = Phase.LOAD
        self.side.send(Kind.GO, within_s=self.timeout_s)
        self.side.receive({Kind.READY}, within_s=self.timeout_s)
        self.side.freeze()

    def run(
        self, place: int, planned: PlannedBatch, size_px: tuple[int, int] | None
    ) -> Sequence[Image]:
        """Run the batch at `place` of the plan; returns its images, which must have `size_px`."""
        side = self.side
        side.phase = Phase.WARMUP if planned.purpose is Purpose.WARM_UP else Phase.TIMED
        payload = wire.pack_batch(planned.seed, planned.prompts)
        self._tell_score()
        self.observer.look()
        side.require_still()
        start_s = time.monotonic()
        side.send(Kind.BATCH, payload, within_s=self.timeout_s)
        side.thaw()
        if self.shown:
            side.receive({Kind.READY}, within_s=self.timeout_s)
        frame = side.receive({Kind.IMAGES}, within_s=self.timeout_s)
        time_s = time.monotonic() - start_s
        side.freeze()
        self.observer.look()
        leftover_s = self._wait_until_idle()
        charged_s = leftover_s if side.role is Role.CANDIDATE else 0.0
        images = self._accept(frame, len(planned.prompts), size_px)
        self.size_px = (images[0].width_px, images[0].height_px)
        self.sink(side.role, place, images)
        digests = tuple(hashlib.sha256(image.rgb).hexdigest() for image in images)
        weather = self.observer.between(start_s, start_s + time_s)
        self.shown[place] = Shown(time_s + charged_s, leftover_s, digests, weather)
        return images

    def _wait_until_idle(self) -> float:
        """Seconds of work that was left on the device; it is over then.

        Whatever works after the baseline's batch was not left by the baseline; see `verify`.
        """
        leftover_s = self.leftover_s(LEFTOVER_LIMIT_S)
        if leftover_s >= LEFTOVER_LIMIT_S and self.side.role is Role.CANDIDATE:
            self.side.refuse(Verdict.TAMPERED, LEFT_WORK)
        return leftover_s

    def note_score(self, score: float) -> None:
        """Keep the score of the last batch, which the side is told when it runs again."""
        self._score = score

    def _tell_score(self) -> None:
        if self._score is not None:
            payload = wire.pack_score(self._score)
            self.side.send(Kind.SCORE, payload, within_s=self.timeout_s)
            self._score = None

    def end(self, within_s: float = CLAIM_TIMEOUT_S) -> None:
        """Tell the side that there are no more batches, and take its report.

        A side that ends in good order without a report has none; that is no failure.
        """
        self.side.phase = Phase.EXIT
        self._tell_score()
        self.side.require_still()
        self.side.send(Kind.END, within_s=CLAIM_TIMEOUT_S)
        self.side.thaw()
        if self.shown:
            self.side.receive({Kind.READY}, within_s=within_s)
        try:
            self.report = bytes(self.side.receive({Kind.REPORT}, within_s=within_s).payload)
        except WorkerLostError as lost:
            if lost.ending.returncode != 0 or lost.ending.breach is not None:
                raise

    def ending(self) -> Ending:
        """Wait for the side's exit, which must be a clean one."""
        ending = self.side.finish(CLAIM_TIMEOUT_S)
        if ending.returncode != 0 or ending.breach is not None:
            raise WorkerLostError(self.side.role, Phase.EXIT, ending)
        return ending

    def traces(self) -> Traces:
        """What came of this side besides times and scores."""
        return Traces(
            self.report,
            {place: shown.digests for place, shown in self.shown.items()},
            self.size_px,
        )

    def _accept(self, frame: Frame, count: int, size_px: tuple[int, int] | None) -> Sequence[Image]:
        try:
            images = wire.unpack_images(frame.payload)
        except WireError as error:
            self.side.refuse(Verdict.TAMPERED, f"broke the protocol: {error}")
        if len(images) != count:
            self.side.refuse(Verdict.BAD_OUTPUT, f"sent {len(images)} images for {count} prompts")
        expected = size_px or (images[0].width_px, images[0].height_px)
        for number, image in enumerate(images, start=1):
            if (image.width_px, image.height_px) != expected:
                got, wanted = (
                    f"{image.width_px} x {image.height_px}",
                    f"{expected[0]} x {expected[1]}",
                )
                self.side.refuse(
                    Verdict.BAD_OUTPUT,
                    f"image {number} has {got} pixels, the baseline's have {wanted}",
                )
        return images


def wait_for_imports(sides: Sequence[Contestant]) -> None:
    """Wait until all sides stand at the gate; they import side by side."""
    for side in sides:
        side.phase = Phase.IMPORTS
        side.receive({Kind.HELLO}, within_s=IMPORTS_TIMEOUT_S)


def run(
    baseline: Turn,
    candidate: Turn,
    gallery: Gallery,
    order: Order,
    progress: Progress,
) -> Measured:
    """Measure both sides over all batches of the gallery's plan, warm-up included.

    Where the sides are measured one after the other, the plan does not grow: the baseline is over
    by then. Raises `WorkerLostError` for the side that failed, `SpeedtrapError` if the scorer did.
    """
    progress.expect(_steps(gallery.plan))
    if order == "alternate":
        _alternate(baseline, candidate, gallery, progress)
    else:
        _one_after_the_other(baseline, candidate, gallery, progress)
    progress.begin("ending both workers")
    baseline_stdout = baseline.ending().stdout
    return Measured(
        baseline=_record(baseline, gallery),
        candidate=_record(candidate, gallery),
        claim_stdout=candidate.ending().stdout,
        order=order,
        baseline_traces=baseline.traces(),
        candidate_traces=candidate.traces(),
        baseline_stdout=baseline_stdout,
        distances=gallery.judge.distances(),
    )


def _steps(plan: Sequence[PlannedBatch]) -> int:
    return 2 + sum(1 + planned.for_candidate for planned in plan)


def _record(turn: Turn, gallery: Gallery) -> Side:
    """What was witnessed of one side."""
    role = turn.side.role
    batches = [
        _batch((role, place), planned, turn.shown[place], gallery)
        for place, planned in enumerate(gallery.plan)
        if place in turn.shown
    ]
    counted = [batch for batch in batches if batch.counts]
    return Side(
        time_s=math.fsum(batch.time_s for batch in counted),
        score=_mean([score for batch in counted for score in batch.scores]),
        batches=tuple(batches),
    )


def _batch(key: tuple[Role, int], planned: PlannedBatch, shown: Shown, gallery: Gallery) -> Batch:
    return Batch(
        phase=_PHASES.get(planned.purpose, "timed"),
        purpose=planned.purpose,
        of=planned.of,
        counts=gallery.counts(key[1]),
        seed=planned.seed,
        time_s=shown.time_s,
        leftover_s=shown.leftover_s,
        scores=gallery.scores[key],
        weather=shown.weather,
        recalled=shown.recalled,
        marks=shown.marks,
        same_seed=gallery.same_seed.get(key, ()),
        other_seed=gallery.other_seed.get(key, ()),
    )


def look(turn: Turn) -> bytes | None:
    """Have a side load its pipeline, run no batch, and say what it is: its report, or None.

    Raises `WorkerLostError` if it fails. The side must stand at the gate.
    """
    turn.load()
    turn.end(turn.timeout_s)
    turn.ending()
    return turn.report


def _alternate(baseline: Turn, candidate: Turn, gallery: Gallery, progress: Progress) -> None:
    for turn in (baseline, candidate):
        progress.begin(f"loading the {turn.side.role}")
        turn.load()
        progress.advance()
    place = pairs = 0
    while place < len(gallery.plan):
        for turn in _abba(baseline, candidate, pairs):
            _take(turn, place, baseline.size_px, gallery, progress)
        pairs += gallery.plan[place].for_candidate
        place += 1
        if place == len(gallery.plan) and gallery.more is not None:
            done = _steps(gallery.plan)
            sides = [_record(turn, gallery) for turn in (baseline, candidate)]
            gallery.plan.extend(gallery.more(gallery.plan, *sides))
            progress.expect(_steps(gallery.plan), done)
    baseline.end()
    candidate.end()


def _one_after_the_other(
    baseline: Turn, candidate: Turn, gallery: Gallery, progress: Progress
) -> None:
    for turn in (baseline, candidate):
        progress.begin(f"loading the {turn.side.role}")
        turn.load()
        progress.advance()
        for place in range(len(gallery.plan)):
            _take(turn, place, baseline.size_px, gallery, progress)
        turn.end()
        turn.ending()


def _take(
    turn: Turn,
    place: int,
    size_px: tuple[int, int] | None,
    gallery: Gallery,
    progress: Progress,
) -> None:
    """Run one batch of one side, if it is for that side, and have its images looked at."""
    planned = gallery.plan[place]
    if turn.side.role is Role.CANDIDATE and not planned.for_candidate:
        return
    progress.begin(_describe(turn, place))
    images = turn.run(place, planned, size_px)
    turn.note_score(gallery.hang(turn.side.role, place, images))
    progress.advance()


def _abba(baseline: Turn, candidate: Turn, number: int) -> Iterator[Turn]:
    yield from (baseline, candidate) if number % 2 == 0 else (candidate, baseline)


def _describe(turn: Turn, place: int) -> str:
    return f"{turn.side.role}: {f'batch {place}' if place else 'warm-up batch'}"


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
