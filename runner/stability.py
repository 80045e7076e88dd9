"""One candidate at several shapes: is it as fast elsewhere as where it was asked to be?

Each row is a whole ordinary run with one thing changed: batch size, length of the prompts, seed, or
number of inference steps. The first is as asked, in every respect. The others are brief. Unless the
number of audit batches is given, they have `estimate.LEAST_PAIRS` pairs, the fewest that have an
interval: starting both sides costs more than these. Small batches are more, so that no row has
fewer than `LEAST_IMAGES` images. Few images leave a quality loss open; a row is there to be
compared, and only its clear misses are told.

A row differs from the first one (`uneven`, `faster`) where both intervals of the speedup do not
overlap and the values differ by more than `CLEARLY`. Two 95 % intervals of one value and of like
width miss each other by chance in about one of 200 cases, so nine rows do in 5 % at most; what
processes differ in from run to run, some tenths of a percent on a quiet machine, is far below
`CLEARLY`. One batch of five that is disturbed, or quick on purpose, makes an interval reach far: a
row whose value alone is below is told as well, as one of which nobody can tell.

The verdict is that of the first row: targets are set for what was asked, and a cache that saves
less in half the steps is no worse for it. It is not `ok` where another row was refused: a file that
works with five prompts and crashes with eight was made for the test. Rows that clearly miss a
target are named in the reason, also of an `ok`. `tampered` in any row is the verdict. Where a run
failed by our doing, an `ok` is `inconclusive`.

A file fixes its own number of steps, so its script changes the argument of each pipeline's call
(`templates/steps.py`), in the candidate's own process and on both sides alike. A file that breaks
by that is named and no worse for it: the change is ours. Where a side gives timesteps or sigmas
of its own, or calls no pipeline of diffusers, such a row is not possible, which is nobody's fault.
A candidate that fights the change has the other number of steps in its live reading and spoils that
row, or, where it forges that too, makes one row look better that is part of no verdict: the first
row's numbers stand on none of this.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, Literal

from pydantic import Field

from runner import live
from runner.estimate import LEAST_PAIRS
from runner.records import (
    SCHEMA_VERSION,
    Ends,
    NoPromptsError,
    PromptLength,
    Record,
    Result,
    SpeedtrapError,
    Text,
    Verdict,
)
from runner.score import run as run_once
from runner.settings import MAX_AUDIT_SEED, MAX_SEED

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from runner.progress import Display
    from runner.settings import Settings

AS_ASKED: Final = "as asked"
LEAST_IMAGES: Final = 15
CLEARLY: Final = 0.9
"""Times the speedup of the first row: less than that, and it differs."""
HALF_GAIN: Final = 0.5
"""Of the time that is gained as asked: a file that gains less at all other values of what was
changed is called fast at the one only."""
BATCH_SIZES: Final = (1, 4, 8)
SEED_STEPS: Final = (1000, 2000)
STEP_FACTORS: Final = {0.5: "half the steps", 2.0: "twice the steps"}


class Axis(enum.StrEnum):
    """What a row has changed."""

    NOTHING = "nothing"
    BATCH_SIZE = "batch size"
    PROMPTS = "prompts"
    SEED = "seed"
    STEPS = "steps"


class Came(enum.StrEnum):
    """What became of a row. A RUN has a verdict; FAILED is our failure, not the candidate's."""

    RUN = "run"
    NOT_POSSIBLE = "not possible"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Change:
    """A row to be run: its name, and the fields of `Settings` that differ."""

    name: str
    axis: Axis
    fields: Mapping[str, Any] = field(default_factory=dict)


class Row(Record):
    """One run with one thing changed. Numbers are null where they are not of what was changed."""

    name: str
    changed: Axis
    came: Came
    verdict: Verdict | None = Field(None, description="null: not run, or not with the change")
    reason: Text = ""
    speedup: float | None = None
    speedup_ci: Ends | None = None
    quality_loss: float | None = None
    quality_loss_ci: Ends | None = None
    loss: float | None = None
    result: Result | None = Field(None, description="the whole run; null: there was none")

    @property
    def is_measured(self) -> bool:
        """Whether it has numbers that may be compared."""
        return self.came is Came.RUN and self.loss is not None


class Stability(Record):
    """One candidate at several shapes."""

    schema_version: Literal["1.3"] = SCHEMA_VERSION
    verdict: Verdict
    reason: Text = Field(description="also of an ok: which rows miss a target")
    passed: bool
    least_speedup: float | None = Field(None, description="of the rows that were measured")
    greatest_speedup: float | None = None
    uneven: tuple[str, ...] = Field((), description="rows clearly less fast than as asked")
    faster: tuple[str, ...] = Field((), description="rows clearly faster than as asked")
    missed: tuple[str, ...] = Field((), description="rows that clearly miss a target")
    summary: Text = Field(description="a sentence: how even it is")
    rows: tuple[Row, ...]


def changes(settings: Settings) -> tuple[Change, ...]:
    """The rows of these settings, the first one as asked."""
    sizes = [
        Change(f"batch size {size}", Axis.BATCH_SIZE, {"batch_size": size})
        for size in BATCH_SIZES
        if size != settings.batch_size
    ]
    lengths = [
        Change(f"{length} prompts", Axis.PROMPTS, {"prompt_length": length})
        for length in (PromptLength.SHORT, PromptLength.LONG)
    ]
    seeds = [_other_seed(settings, more) for more in SEED_STEPS]
    steps = [
        Change(name, Axis.STEPS, {"steps_factor": factor}) for factor, name in STEP_FACTORS.items()
    ]
    return (Change(AS_ASKED, Axis.NOTHING), *sizes, *lengths, *seeds, *steps)


def _other_seed(settings: Settings, more: int) -> Change:
    """Another seed; of the fresh prompts too, where theirs was given."""
    fields = {"seed": (settings.seed + more) % MAX_SEED}
    if settings.audit_seed is not None:
        fields["audit_seed"] = (settings.audit_seed + more) % MAX_AUDIT_SEED
    return Change(f"seed {fields['seed']}", Axis.SEED, fields)


def settings_of(change: Change, settings: Settings) -> Settings:
    """Those of one row: what is not as asked is brief. Each keeps its files in its own folder."""
    keep = settings.keep and settings.keep / change.name.replace(" ", "-")
    if change.axis is Axis.NOTHING:
        return replace(settings, keep=keep)
    own = replace(settings, keep=keep, fixed_batches=1, until_decided=False, **change.fields)
    if own.audit_batches is not None:
        return own
    needed = max(LEAST_PAIRS, math.ceil(LEAST_IMAGES / own.batch_size))
    return replace(own, audit_batches=needed)


def stability(
    settings: Settings,
    display: Display,
    run: Callable[[Settings, Display], Result] = run_once,
    only: Collection[str] | None = None,
) -> Stability:
    """Run row by row, whatever comes of each; `only` the first one and the named ones, if given.

    Raises `SpeedtrapError` when we failed as asked; in another row it is the row's reason.
    """
    if settings.audit_batches is not None and settings.audit_batches < LEAST_PAIRS:
        message = f"--stability needs intervals: --audit-batches {LEAST_PAIRS} or more"
        raise SpeedtrapError(message)
    first, *others = changes(settings)
    others = [change for change in others if only is None or change.name in only]
    rows: list[Row] = []
    for number, change in enumerate((first, *others), start=1):
        display.begin(f"{number} of {1 + len(others)}: {change.name}")
        try:
            result = run(settings_of(change, settings), display)
        except SpeedtrapError as error:
            if change is first:
                raise
            came = Came.NOT_POSSIBLE if isinstance(error, NoPromptsError) else Came.FAILED
            rows.append(Row(name=change.name, changed=change.axis, came=came, reason=str(error)))
        else:
            rows.append(_row(change, result, rows[0].result if rows else None))
    return together(rows, settings)


def _row(change: Change, result: Result, asked: Result | None) -> Row:
    """A row of a run; `asked` is what came of the first one."""
    factor = change.fields.get("steps_factor", 1.0)
    is_fair = result.verdict in {Verdict.OK, Verdict.INCONCLUSIVE, Verdict.SPEEDUP_TARGET_NOT_MET}
    if factor != 1 and is_fair and (reason := "; ".join(_not_scaled(result, asked, factor))):
        return Row(
            name=change.name,
            changed=change.axis,
            came=Came.NOT_POSSIBLE,
            reason=reason,
            result=result,
        )
    return Row(
        name=change.name,
        changed=change.axis,
        came=Came.RUN,
        verdict=result.verdict,
        reason=result.reason,
        speedup=result.speedup,
        speedup_ci=result.speedup_ci,
        quality_loss=result.quality_loss,
        quality_loss_ci=result.quality_loss_ci,
        loss=result.loss,
        result=result,
    )


def _not_scaled(result: Result, asked: Result | None, factor: float) -> Iterator[str]:
    """Why the sides did not run the other number of steps; nothing where they did.

    The readings are the sides' own words: they excuse nothing that is worse than slow.
    """
    if result.live is None:
        return
    yield from result.live.problems
    for role in ("baseline", "candidate"):
        reading = getattr(result.live, role)
        if reading is None:
            continue
        if reading.unscaled:
            yield f"{role}: {', '.join(reading.unscaled)}"
            continue
        if not reading.scaled_calls:
            yield f"{role}: no pipeline of diffusers is called with a number of steps"
            continue
        before = getattr(asked.live, role) if asked and asked.live else None
        steps, taken = before and before.num_inference_steps, reading.num_inference_steps
        if steps and taken and taken != live.scaled_steps(steps, factor):
            yield f"{role}: ran {taken} steps, as asked {steps}"


def together(rows: Sequence[Row], settings: Settings) -> Stability:
    """What the rows come to; the first one is as asked."""
    asked, *others = rows
    speedups = [row.speedup for row in rows if row.is_measured and row.speedup is not None]
    slower = [row for row in others if _is_below(row, asked)]
    faster = [row for row in others if _is_below(asked, row)]
    verdict, reason = _verdict(rows)
    return Stability(
        verdict=verdict,
        reason=reason,
        passed=verdict is Verdict.OK,
        least_speedup=min(speedups, default=None),
        greatest_speedup=max(speedups, default=None),
        uneven=tuple(row.name for row in slower),
        faster=tuple(row.name for row in faster),
        missed=tuple(row.name for row in others if _misses(row)),
        summary=_summary(rows, slower, faster, settings),
        rows=tuple(rows),
    )


def _is_below(row: Row, other: Row) -> bool:
    """Whether one row is clearly less fast than another."""
    if not (row.is_measured and other.is_measured and row.speedup_ci and other.speedup_ci):
        return False
    assert row.speedup is not None
    assert other.speedup is not None
    return row.speedup_ci[1] < other.speedup_ci[0] and row.speedup < CLEARLY * other.speedup


def _may_be_below(row: Row, other: Row) -> bool:
    """Whether one row is less fast than another by its value, whatever its interval says.

    One quick batch of five reaches from end to end of an interval, by chance or by intent.
    """
    if not (row.is_measured and other.is_measured):
        return False
    assert row.speedup is not None
    assert other.speedup is not None
    return row.speedup < CLEARLY * other.speedup


def _misses(row: Row) -> bool:
    return row.verdict in {Verdict.SPEEDUP_TARGET_NOT_MET, Verdict.QUALITY_THRESHOLD_EXCEEDED}


def _verdict(rows: Sequence[Row]) -> tuple[Verdict, str]:
    """The verdict of all rows, and why."""
    asked, *others = rows
    assert asked.verdict is not None  # where we fail as asked, there is nothing
    told = [f"{AS_ASKED}: {asked.reason}"] if asked.reason else []
    refused = [row for row in others if row.came is Came.RUN and row.loss is None]
    failed = [row for row in others if row.came is Came.FAILED]
    counts = [row for row in refused if row.changed is not Axis.STEPS or _is_cheat(row)]
    told += [f"{row.name}: {row.verdict}: {row.reason}" for row in refused]
    told += [f"{row.name}: could not be run: {row.reason}" for row in failed]
    if missing := [f"{row.name} ({row.verdict})" for row in others if _misses(row)]:
        told.append(f"targets are missed at {', '.join(missing)}")
    verdict = asked.verdict
    refusals = [row.verdict for row in counts if row.verdict is not None]
    if Verdict.TAMPERED in refusals:
        verdict = Verdict.TAMPERED
    elif verdict is Verdict.OK and refusals:
        verdict = refusals[0]
    elif verdict is Verdict.OK and any(row.changed is not Axis.STEPS for row in failed):
        verdict = Verdict.INCONCLUSIVE
    return verdict, "; ".join(told)


def _is_cheat(row: Row) -> bool:
    return row.verdict is Verdict.TAMPERED


def _summary(
    rows: Sequence[Row], slower: Sequence[Row], faster: Sequence[Row], settings: Settings
) -> str:
    """One sentence on how even the rows are."""
    asked = rows[0]
    if not asked.is_measured:
        return "not measured as asked, so that nothing can be compared with it"
    told = []
    for axis, value in _only_at(rows, slower, settings):
        here = [row for row in slower if row.changed is axis]
        told.append(f"only fast at {value}: {_speedups([asked])}, {_speedups(here)}")
    fast_only = {axis for axis, _ in _only_at(rows, slower, settings)}
    if less := [row for row in slower if row.changed not in fast_only]:
        told.append(f"less fast than {_speedups([asked])}: {_speedups(less)}")
    if faster:
        told.append(f"faster than {_speedups([asked])}: {_speedups(faster)}")
    if unclear := [row for row in rows[1:] if _may_be_below(row, asked) and row not in slower]:
        told.append(f"cannot tell, less fast than {_speedups([asked])} by chance or not:")
        told[-1] += f" {_speedups(unclear)}"
    if not told:
        compared = sum(row.is_measured for row in rows) - 1
        return f"no clear difference between {AS_ASKED} and {compared} other shapes"
    return "; ".join(told)


def _only_at(
    rows: Sequence[Row], slower: Sequence[Row], settings: Settings
) -> Iterator[tuple[Axis, str]]:
    """What was asked for and is fast by itself only: all its other values gain less than half."""
    gained = (rows[0].speedup or 1.0) - 1
    if gained <= 0:
        return
    values = {
        Axis.BATCH_SIZE: f"batch size {settings.batch_size}",
        Axis.PROMPTS: "the prompts asked for",
        Axis.SEED: f"seed {settings.seed}",
        Axis.STEPS: "the steps asked for",
    }
    for axis, value in values.items():
        here = [row for row in rows if row.changed is axis and row.is_measured]
        gains = [(row.speedup or 1.0) - 1 for row in here if row in slower]
        if gains and len(gains) == len(here) and max(gains) < HALF_GAIN * gained:
            yield axis, value


def _speedups(rows: Sequence[Row]) -> str:
    return ", ".join(f"{row.speedup:.2f}x {_where(row)}" for row in rows)


def _where(row: Row) -> str:
    return row.name if row.changed is Axis.NOTHING else f"at {row.name}"
