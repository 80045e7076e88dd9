"""Whole runs, again: what the interval of a single run does not cover.

One and the same file takes some tenths of a percent more or less from one process to the next:
memory layout, the allocator, what a compiler chose. Only fresh processes show it. Every run has
its own, and its own prompts, so the runs' values are independent of one another, and the interval
of their mean is Student's.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from runner import verify
from runner.estimate import LEVEL, Estimate
from runner.records import SCHEMA_VERSION, Record, Result, Text, Verdict
from runner.score import run as run_once

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from runner.progress import Display
    from runner.settings import Settings


class Spread(Record):
    """A value over several runs."""

    mean: float
    sd: float = Field(ge=0)
    low: float = Field(description="lower end of the mean's 95 % interval")
    high: float = Field(description="its upper end")


class Repeated(Record):
    """Several whole runs of one candidate, and what they come to together."""

    schema_version: Literal["1.3"] = SCHEMA_VERSION
    verdict: Verdict
    reason: Text
    passed: bool
    credited_speedup: Spread | None = None
    quality_loss: Spread | None = None
    loss: Spread | None = Field(None, description="null: a run was not measured")
    runs: tuple[Result, ...] = Field(description="whole results; fewer where one has no loss")


def repeat(
    settings: Settings,
    count: int,
    display: Display,
    run: Callable[[Settings, Display], Result] = run_once,
) -> Repeated:
    """Score `count` times, two or more, until one of the runs has no loss.

    With `keep`, each run has a folder of its own in it. Raises `SpeedtrapError` when we failed.
    """
    results: list[Result] = []
    for number in range(1, count + 1):
        display.begin(f"run {number} of {count}")
        keep = settings.keep and settings.keep / f"run-{number}"
        results.append(run(replace(settings, keep=keep), display))
        if results[-1].loss is None:
            break
    return together(results, count)


def together(results: Sequence[Result], count: int) -> Repeated:
    """What the results of `count` runs come to; a run without a loss is what they all come to."""
    last = results[-1]
    if last.loss is None:
        reason = f"run {len(results)} of {count}: {last.reason}"
        return Repeated(verdict=last.verdict, reason=reason, passed=False, runs=tuple(results))
    speed = _spread([one.credited_speedup for one in results])
    quality = _spread([one.quality_loss for one in results])
    targets = verify.Targets(last.target_speedup, last.target_quality_loss)
    verdict, reason = verify.against_targets(_estimate(speed), _estimate(quality), targets)
    return Repeated(
        verdict=verdict,
        reason=reason,
        passed=verdict is Verdict.OK,
        credited_speedup=speed,
        quality_loss=quality,
        loss=_spread([one.loss for one in results]),
        runs=tuple(results),
    )


def _spread(values: Sequence[float | None]) -> Spread:
    from scipy.special import stdtrit  # deferred: not needed to read `--help`

    known = [value for value in values if value is not None]
    assert len(known) == len(values)  # a result with a loss has all numbers
    mean, sd = statistics.fmean(known), statistics.stdev(known)
    half = float(stdtrit(len(known) - 1, (1 + LEVEL) / 2)) * sd / math.sqrt(len(known))
    return Spread(mean=mean, sd=sd, low=mean - half, high=mean + half)


def _estimate(spread: Spread) -> Estimate:
    return Estimate(spread.mean, spread.low, spread.high, LEVEL)
