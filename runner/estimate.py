"""How much faster, how much worse, and how sure that is.

The speedup is the median of the ratios of paired batches: a burst of load that falls on one batch
moves one ratio, and half of them would have to be off before the median is. The quality loss is
one ratio of means over the images of both sides, paired by prompt and seed, since that is what the
target is about.

Intervals come from the bootstrap: whole pairs are drawn again, with replacement, and the statistic
is made anew. Read off as it is, the percentile interval of few pairs is too narrow (nine pairs: a
median inside of it in 85 to 95 % of runs). It is taken further out, to the percentiles at which it
agrees with Student's interval for a mean of normal values: the expanded percentile interval of
T. Hesterberg, "What Teachers Should Know About the Bootstrap", The American Statistician 69 (2015),
section 4.3. `benchmarks/calibration.py` shows how often it holds.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

LEVEL: Final = 0.95
LEAST_PAIRS: Final = 5
"""The widest interval of a median that there is, from the least to the greatest of n values, leaves
the true one out in 2 of 2**n runs: of five pairs in 6 %, of four in 12 %."""
SHORT_OF: Final = 1.3
"""Times the error asked for, that the widest interval of a median may have: five pairs at 95 %."""
RESAMPLES: Final = 10_000
MEDIAN_ERROR: Final = math.sqrt(math.pi / 2)
"""Of the standard error of a mean of many normal values is that of their median; of three: 1.16."""
_AT_ONCE: Final = 2**21
"""Numbers that are drawn together, so that many pairs do not take much memory."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value and its interval, from `low` to `high`; both are None where there are too few pairs.

    `level` is the share of runs whose interval has the true value in it.
    """

    value: float
    low: float | None
    high: float | None
    level: float

    @property
    def interval(self) -> tuple[float, float] | None:
        """Both ends, or None."""
        return None if self.low is None or self.high is None else (self.low, self.high)

    def times(self, factor: float) -> Estimate:
        """All of it times a factor above 0."""
        low, high = (None if end is None else end * factor for end in (self.low, self.high))
        return Estimate(self.value * factor, low, high, self.level)

    def widened(self, half: float) -> Estimate:
        """The same with a wider interval, where its value, above 0, was multiplied by another one.

        `half` is half the width of that one's interval in logarithms; both are independent.
        """
        if self.low is None or self.high is None or not half:
            return self
        below, above = math.log(self.value / self.low), math.log(self.high / self.value)
        low = self.value * math.exp(-math.hypot(below, half))
        return Estimate(self.value, low, self.value * math.exp(math.hypot(above, half)), self.level)


def speedup(baseline_s: Sequence[float], candidate_s: Sequence[float], level: float) -> Estimate:
    """Median ratio of the seconds of paired batches, all above 0.

    Made from logarithms: twice as fast and half as fast are equally far from 1.
    """
    ratios = [(math.log(ours / theirs),) for ours, theirs in _paired(baseline_s, candidate_s)]
    found = _estimate(ratios, _median, level)
    if 2 * 0.5 ** len(ratios) > SHORT_OF * (1 - level):
        found = Estimate(found.value, None, None, level)
    low, high = (None if end is None else math.exp(end) for end in (found.low, found.high))
    return Estimate(math.exp(found.value), low, high, level)


def total_speedup(
    baseline_s: Sequence[float], candidate_s: Sequence[float], level: float
) -> Estimate:
    """Ratio of the seconds of all batches together: what they were worth to whoever waited."""
    found = _estimate(_paired(candidate_s, baseline_s), _loss_of_means, level)
    low, high = (None if end is None else 1 - end for end in (found.high, found.low))
    return Estimate(1 - found.value, low, high, level)


def ratio(ours: Estimate, theirs: Estimate) -> Estimate:
    """Theirs / ours, of two independent values above 0, at one level.

    How far the interval reaches comes from both values' own ends, squared and added in logarithms
    (G. Y. Zou and A. Donner, Statistics in Medicine 27, 2008: 1693).
    """
    value = theirs.value / ours.value
    if ours.interval is None or theirs.interval is None:
        return Estimate(value, None, None, ours.level)
    (a_low, a_high), (b_low, b_high) = ours.interval, theirs.interval
    below = math.hypot(math.log(theirs.value / b_low), math.log(a_high / ours.value))
    above = math.hypot(math.log(b_high / theirs.value), math.log(ours.value / a_low))
    return Estimate(value, value * math.exp(-below), value * math.exp(above), ours.level)


def noise(baseline_s: Sequence[float], again_s: Sequence[float]) -> float:
    """How far ratios of one file's seconds are off 1: root mean square of their logarithms."""
    logs = [math.log(ours / theirs) for ours, theirs in _paired(baseline_s, again_s)]
    return math.sqrt(math.fsum(one * one for one in logs) / len(logs))


def drift(
    live_s: Sequence[float],
    cached_s: Sequence[float],
    noise: float,
    pairs: int,
    level: float,
) -> Estimate:
    """By how much a file has become slower: the median ratio of live seconds to cached ones.

    Its error comes from the `noise` that was seen on `pairs` pairs, or from their own spread where
    that says more.
    """
    from scipy.special import stdtrit  # deferred: not needed to read `--help`

    logs = [math.log(live / cached) for live, cached in _paired(live_s, cached_s)]
    value = statistics.median(logs)
    tail = (1 + level) / 2
    halves = [float(stdtrit(pairs, tail)) * noise]
    if len(logs) > 1:
        halves.append(float(stdtrit(len(logs) - 1, tail)) * statistics.stdev(logs))
    half = MEDIAN_ERROR * max(halves) / math.sqrt(len(logs))
    return Estimate(math.exp(value), math.exp(value - half), math.exp(value + half), level)


def quality_loss(baseline: Sequence[float], candidate: Sequence[float], level: float) -> Estimate:
    """1 - mean of the candidate's scores / mean of the baseline's, of the same prompts and seeds.

    The baseline's mean must be above 0.
    """
    return _estimate(_paired(baseline, candidate), _loss_of_means, level)


def difference(baseline: Sequence[float], candidate: Sequence[float], level: float) -> Estimate:
    """Mean of the candidate's values less the baseline's, of the same prompts and seeds."""
    pairs = _paired(baseline, candidate)
    return _estimate([(theirs - ours,) for ours, theirs in pairs], _mean, level)


def _paired(ours: Sequence[float], theirs: Sequence[float]) -> list[tuple[float, float]]:
    return list(zip(ours, theirs, strict=True))


def _estimate(
    pairs: Sequence[tuple[float, ...]], statistic: Callable[[Any], Any], level: float
) -> Estimate:
    """`statistic` takes (resamples, pairs, values of a pair) and returns one value a resample."""
    import numpy as np  # deferred: not needed to read `--help`

    data = np.asarray(sorted(pairs), dtype=float)  # in whatever order they were measured
    count = len(data)
    value = float(statistic(data[None])[0])
    if count < LEAST_PAIRS:
        return Estimate(value, None, None, level)
    outside = tail(count, level)
    with np.errstate(divide="ignore", invalid="ignore"):
        found = np.concatenate([statistic(data[chosen]) for chosen in draws(count)])
        low, high = map(float, np.quantile(found, [outside, 1 - outside]))
    if not (math.isfinite(low) and math.isfinite(high)):  # draws with a mean score of 0
        return Estimate(value, None, None, level)
    return Estimate(value, low, high, level)


def tail(count: int, level: float) -> float:
    """Share of the resamples of `count` pairs that is outside of the interval, on each side."""
    from scipy.special import ndtr, stdtrit

    return float(ndtr(-stdtrit(count - 1, (1 + level) / 2) * math.sqrt(count / (count - 1))))


def draws(count: int) -> Iterator[Any]:
    """Arrays, a resample a row, of the numbers of the pairs in it; always the same ones."""
    import numpy as np

    rng = np.random.default_rng(0)
    rows = max(1, _AT_ONCE // count)
    for done in range(0, RESAMPLES, rows):
        yield rng.integers(0, count, (min(rows, RESAMPLES - done), count))


def _median(values: Any) -> Any:  # noqa: ANN401  (arrays; numpy is not imported here)
    import numpy as np

    return np.median(values[..., 0], axis=-1)


def _mean(values: Any) -> Any:  # noqa: ANN401
    return values[..., 0].mean(axis=-1)


def _loss_of_means(values: Any) -> Any:  # noqa: ANN401
    return 1 - values[..., 1].mean(axis=-1) / values[..., 0].mean(axis=-1)
