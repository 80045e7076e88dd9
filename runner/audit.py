"""Stage 9: public prompts held against prompts that nobody could know.

Speedup and quality stand on the audit batches, so an answer that was prepared for the public
prompts gains nothing. This is where it is said aloud: fixed batches that are faster or better than
audit batches beyond noise, or a batch that is faster the second time.

What noise is, the baseline shows: it does the same work for every batch, so the spread of its own
times is what this machine does to anybody's.
"""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING, Final

from runner import estimate
from runner.records import Audit, Part, Purpose

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runner.records import Batch, Measured

LEAST_TOLERANCE: Final = 3.0
"""Nothing is gained by prepared answers, so this need not be fine: they are tens of times faster.
On a machine with bursts of load, times of one file's batches differ by half."""
LEAST_BATCHES: Final = 2
"""With a single audit batch a burst of load, or a compilation at the second call, looks like the
others being faster: then times alone are no reason."""
SPREADS: Final = 3.0
BETTER_T: Final = 5.0
BETTER_POINTS: Final = 2.0
BETTER_IMAGES: Final = 10
"""Of each kind: with fewer, Student's t is beyond `BETTER_T` once in some thousand honest runs."""
_LEAST_ERROR: Final = 1e-6


def judge(measured: Measured, seed: int, source: tuple[str, str]) -> Audit | None:
    """Compare fixed, audit and repeated batches; None where there are no audit batches.

    `source` is the name and the digest of where the audit prompts come from.
    """
    fixed, audit, repeat = (
        _pairs(measured, purpose) for purpose in (Purpose.FIXED, Purpose.AUDIT, Purpose.REPEAT)
    )
    if not audit:
        return None
    times_s = [ours.time_s for ours, _ in (*fixed, *audit, *repeat)]
    tolerance = _tolerance(times_s)
    faster = _faster(fixed, audit)
    again = _faster(repeat, [*fixed, *audit]) if repeat else None
    better, better_t = _better(fixed, audit)
    return Audit(
        seed=seed,
        prompts=source[0],
        prompts_sha256=source[1],
        fixed=_part(fixed),
        audit=_part(audit),
        fixed_faster=faster,
        repeat_faster=again,
        tolerance=tolerance,
        fixed_better=better,
        fixed_better_t=better_t,
        suspicion=_of_times(faster, again, tolerance, len(audit)) or _of_scores(better, better_t),
    )


def _of_times(faster: float, again: float | None, tolerance: float, batches: int) -> str | None:
    """What is suspicious of times."""
    if batches < LEAST_BATCHES:
        return None
    if faster > tolerance:
        return (
            f"public prompts are {faster:.2f} times faster than fresh ones (noise: up to"
            f" {tolerance:.2f}): answers to them were prepared"
        )
    if again is not None and again > tolerance:
        return (
            f"a batch is {again:.2f} times faster the second time (noise: up to {tolerance:.2f}):"
            " answers are kept from call to call"
        )
    return None


def _of_scores(better: float | None, t: float | None) -> str | None:
    """What is suspicious of scores."""
    if better is not None and t is not None and better > BETTER_POINTS and t > BETTER_T:
        return (
            f"public prompts score {better:.1f} points better than fresh ones ({t:.0f} standard"
            " errors): images for them were prepared"
        )
    return None


def _pairs(measured: Measured, purpose: Purpose) -> list[tuple[Batch, Batch]]:
    """Baseline's and candidate's batches of one purpose."""
    ours = [batch for batch in measured.baseline.batches if batch.purpose is purpose]
    theirs = [batch for batch in measured.candidate.batches if batch.purpose is purpose]
    return list(zip(ours, theirs, strict=True))


def _tolerance(baseline_s: Sequence[float]) -> float:
    """Up to how many times faster may be noise."""
    spread = max(baseline_s) / statistics.median(baseline_s) - 1
    return max(LEAST_TOLERANCE, 1 + SPREADS * spread)


def _faster(these: Sequence[tuple[Batch, Batch]], those: Sequence[tuple[Batch, Batch]]) -> float:
    """How many times faster the candidate is on `these` than on `those`, its baseline's share out.

    An image's time at its best: whatever disturbs a machine makes a batch slower, never faster. The
    baseline's share is never below 1, which would blame the candidate for its noise.
    """
    (ours, theirs), (our_other, their_other) = _best(these), _best(those)
    return their_other / theirs / max(1.0, our_other / ours)


def _best(pairs: Sequence[tuple[Batch, Batch]]) -> tuple[float, float]:
    """Least seconds an image of the baseline and of the candidate."""
    ours, theirs = (min(_image_s(batch) for batch in side) for side in zip(*pairs, strict=True))
    return ours, theirs


def _image_s(batch: Batch) -> float:
    """Seconds an image."""
    return batch.time_s / len(batch.scores)


def _part(pairs: Sequence[tuple[Batch, Batch]]) -> Part:
    sides = list(zip(*pairs, strict=True))
    ours, theirs = ([batch.time_s for batch in side] for side in sides)
    score, other = (
        statistics.fmean(score for batch in side for score in batch.scores) for side in sides
    )
    speedup = estimate.speedup(ours, theirs, estimate.LEVEL).value
    return Part(speedup=speedup, quality_loss=1 - other / score if score > 0 else None)


def _better(
    fixed: Sequence[tuple[Batch, Batch]], audit: Sequence[tuple[Batch, Batch]]
) -> tuple[float | None, float | None]:
    """Points by which accuracy is better on `fixed`, and the same in standard errors (Welch)."""
    (one, one_error), (other, other_error) = _accuracy(fixed), _accuracy(audit)
    if one is None or other is None:
        return None, None
    error = math.hypot(one_error, other_error)
    points = 100 * (one - other)
    return points, points / max(100 * error, _LEAST_ERROR)


def _accuracy(pairs: Sequence[tuple[Batch, Batch]]) -> tuple[float | None, float]:
    """Mean of candidate's less baseline's scores as a share of the baseline's; standard error."""
    ours = [score for pair in pairs for score in pair[0].scores]
    theirs = [score for pair in pairs for score in pair[1].scores]
    level = statistics.fmean(ours)
    if level <= 0 or len(ours) < BETTER_IMAGES:
        return None, 0.0
    differences = [(b - a) / level for a, b in zip(ours, theirs, strict=True)]
    return statistics.fmean(differences), statistics.stdev(differences) / math.sqrt(len(ours))
