"""How often the intervals hold, and how often `--until-decided` errs: figures of docs/method.md.

    python benchmarks/calibration.py coverage [--runs 2000]
    python benchmarks/calibration.py looks [--runs 2000]
    python benchmarks/calibration.py scores [--images 400] [--out FILE]
    python benchmarks/calibration.py aa --runs 100 --out RUNS.jsonl [--file BASE.py]
        [--device cuda] [--shard I/N] [-- more options of bin/score]
    python benchmarks/calibration.py aa --out RUNS.jsonl --report

`coverage` and `looks` simulate: times from models of noise, scores from a normal distribution or
from `calibration_scores.json`, CLIP scores of the embedded model's images, which `scores` makes. A
true value is known there, so it can be counted how often an interval has it inside. The resamples
are those of `runner.estimate`, only for thousands of runs at once; a test holds both together.

`aa` is not simulated: the real command with one file on both sides, whose true speedup is 1. Each
run is one line of JSON in a file that is only appended to; a run that is in it is not repeated.
Shards are those of `benchmarks/trust.py`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import random
import statistics
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np
from scipy.special import ndtri

ROOT: Final = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / part) for part in ("", "benchmarks", "tests")]  # run from anywhere

import e2e  # noqa: E402
import trust  # noqa: E402

from runner import decide, estimate  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from e2e import Specimen
    from numpy.typing import NDArray

    Numbers = NDArray[np.float64]
    Rng = np.random.Generator

SCORES: Final = Path(__file__).with_name("calibration_scores.json")
PAIRS: Final = (5, 6, 7, 9, 12, 15, 30, 60)
IMAGES: Final = (15, 30, 45, 100, 300)
FIRST_BATCHES: Final = 9
LOOKS: Final = 30
BATCH: Final = 5
SPEEDUP: Final = 1.5
TARGET: Final = 0.02
"""Of the quality loss."""
TRUE_LOSSES: Final = (0.003, 0.01, 0.015, 0.019, 0.021, 0.03)
NOISE: Final = 0.02
"""Standard deviation of a batch's time, as a share of it; the coverage does not depend on it."""
MOST_PAIRS: Final = 120
"""Of so many pairs, resamples are drawn; of more, their known limit is used (a sign test)."""
MOST_IMAGES: Final = 300
"""Of so many images, resamples are drawn; of more, what they tend to: Cornish and Fisher's
expansion with the skewness."""
SUMMED_IMAGES: Final = 2000
"""So many more images are drawn one by one; more, as a normal sum."""
RUNS_AT_ONCE: Final = 250
SAFE_IMAGES: Final = 200
"""Of so many images at least a target is called met: before, a failure of one image in fifty is
likely not seen at all."""


# Intervals of many runs at once


def median_ends(values: Numbers, level: float) -> tuple[Numbers, Numbers]:
    """Ends of the interval of each row's median, as `estimate.speedup` has them of logarithms."""
    lower, upper = _middle_ranks(values.shape[1])
    values = np.sort(values, axis=1)
    return _ends(values, level, lambda some: (some[:, lower] + some[:, upper]) / 2)


def loss_ends(baseline: Numbers, candidate: Numbers, level: float) -> tuple[Numbers, Numbers]:
    """Ends of the interval of each row's loss, as `estimate.quality_loss` has them."""
    count = baseline.shape[1]
    order = np.lexsort((candidate, baseline), axis=1)
    both = np.stack([np.take_along_axis(side, order, axis=1) for side in (baseline, candidate)], 1)
    times = _times_drawn(count)

    def losses(some: Numbers) -> Numbers:
        means = some.reshape(-1, count) @ times.T
        return 1 - means[1::2] / means[::2]

    return _ends(both, level, losses)


@lru_cache(maxsize=8)
def _middle_ranks(count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Places, in the order of size, of the two values in the middle of each resample."""
    ranks = np.concatenate([np.sort(drawn, axis=1) for drawn in estimate.draws(count)])
    return ranks[:, (count - 1) // 2], ranks[:, count // 2]


@lru_cache(maxsize=8)
def _times_drawn(count: int) -> Numbers:
    """How often each pair is in each resample."""
    drawn = np.concatenate(list(estimate.draws(count)))
    places = (drawn + count * np.arange(len(drawn))[:, None]).ravel()
    return np.bincount(places, minlength=drawn.size).reshape(drawn.shape).astype(float)


def _ends(
    data: Numbers, level: float, resample: Callable[[Numbers], Numbers]
) -> tuple[Numbers, Numbers]:
    outside = estimate.tail(data.shape[-1], level)
    parts = [
        np.quantile(resample(data[start : start + RUNS_AT_ONCE]), [outside, 1 - outside], axis=1)
        for start in range(0, len(data), RUNS_AT_ONCE)
    ]
    low, high = np.concatenate(parts, axis=1)
    return low, high


# Times


@dataclass(frozen=True)
class Machine:
    """How a machine disturbs. `noise` draws factors of a shape; `slow` is a factor by the time.

    The time runs from 0 to 1 over the run.
    """

    name: str
    noise: Callable[[Rng, tuple[int, ...]], Numbers]
    slow: Callable[[Numbers], Numbers] = np.ones_like


def normal(rng: Rng, shape: tuple[int, ...]) -> Numbers:
    """Factors about 1, log-normal."""
    return np.exp(rng.normal(0, NOISE, shape))


def student(rng: Rng, shape: tuple[int, ...]) -> Numbers:
    """The same with far outliers: Student's t of 3 degrees."""
    return np.exp(NOISE * rng.standard_t(3, shape))


def bursts(rng: Rng, shape: tuple[int, ...]) -> Numbers:
    """Some noise, and 15 % of the batches slower by 30 % on average."""
    hit = rng.random(shape) < 0.15  # noqa: PLR2004
    return normal(rng, shape) * (1 + hit * rng.exponential(0.3, shape))


MACHINES: Final = (
    Machine("normal", normal),
    Machine("Student t3", student),
    Machine("bursts", bursts),
    Machine("drift: clock falls by 30 %", normal, lambda at: 1 / (1 - 0.3 * at)),
    Machine("step: first half twice as slow", normal, lambda at: np.where(at < 0.5, 2.0, 1.0)),  # noqa: PLR2004
)


def paired_times(machine: Machine, pairs: int, runs: int, rng: Rng) -> tuple[Numbers, Numbers]:
    """Seconds of both sides' audit batches, a run a row, in the order of `runner.exchange`.

    Fixed batches stand between them, as many as in a run without options; sides take turns in ABBA
    order.
    """
    fixed = max(1, pairs // 3)
    work = 1 + 1 / SPEEDUP
    places = np.tile(np.arange(pairs + fixed), (runs, 1))
    start = np.sort(rng.permuted(places, axis=1)[:, :pairs], axis=1) + 1  # after the warm-up
    begins = start % 2 == 0
    end = (pairs + fixed + 1) * work
    ours_at = (start * work + np.where(begins, 0, 1 / SPEEDUP) + 0.5) / end
    theirs_at = (start * work + np.where(begins, 1, 0) + 0.5 / SPEEDUP) / end
    ours = machine.slow(ours_at) * machine.noise(rng, ours_at.shape)
    theirs = machine.slow(theirs_at) * machine.noise(rng, theirs_at.shape) / SPEEDUP
    return ours, theirs


def naive_speedups(machine: Machine, pairs: int, runs: int, rng: Rng) -> Numbers:
    """One run after the other, and the ratio of their sums."""
    work = np.concatenate([np.ones(pairs), np.full(pairs, 1 / SPEEDUP)])
    middle = (np.cumsum(work) - work / 2) / work.sum()
    times = work * machine.slow(middle) * machine.noise(rng, (runs, 2 * pairs))
    return times[:, :pairs].sum(1) / times[:, pairs:].sum(1)


def speed_table(runs: int) -> Iterator[str]:
    """Coverage of the interval of the speedup by number of pairs, and both estimators' bias."""
    yield _cells("machine", *(f"{pairs} pairs" for pairs in PAIRS), "off", "naive: off")
    yield _rule(len(PAIRS) + 3)
    for number, machine in enumerate(MACHINES):
        rng = np.random.default_rng(number)
        held, off = [], 0.0
        for pairs in PAIRS:
            ours, theirs = paired_times(machine, pairs, runs, rng)
            ratios = np.log(ours / theirs)
            low, high = median_ends(ratios, estimate.LEVEL)
            held.append(f"{100 * np.mean((low <= _LOG) & (high >= _LOG)):.1f}")
            if pairs == FIRST_BATCHES:
                off = float(np.exp(np.mean(np.median(ratios, axis=1))) / SPEEDUP - 1)
        naive = float(np.median(naive_speedups(machine, FIRST_BATCHES, runs, rng)) / SPEEDUP - 1)
        yield _cells(machine.name, *held, f"{off:+.1%}", f"{naive:+.1%}")


_LOG: Final = math.log(SPEEDUP)


# Quality


@dataclass(frozen=True)
class Population:
    """Pairs of scores that images are drawn from, evenly and with replacement."""

    name: str
    baseline: Numbers
    candidate: Numbers

    @property
    def loss(self) -> float:
        """The true value."""
        return float(1 - self.candidate.mean() / self.baseline.mean())

    def draw(self, runs: int, images: int, rng: Rng) -> tuple[Numbers, Numbers]:
        """Scores of both sides, a run a row."""
        chosen = rng.integers(0, len(self.baseline), (runs, images))
        return self.baseline[chosen], self.candidate[chosen]


def normal_population(size: int = 100_000) -> Population:
    """Differences that are normal: what textbooks are about."""
    rng = np.random.default_rng(0)
    baseline = rng.normal(94, 3, size)
    return Population("normal", baseline, baseline * (1 - TARGET) + rng.normal(0, 3, size))


def measured_populations(path: Path = SCORES) -> list[Population]:
    """The methods of the file, in its order."""
    scores = {name: np.array(some) for name, some in json.loads(path.read_text())["scores"].items()}
    baseline = scores.pop("plain")
    return [Population(name, baseline, candidate) for name, candidate in scores.items()]


def with_loss(loss: float, some: Sequence[Population]) -> Population:
    """A candidate of exactly this loss: by turns the nearest method below it and the next above."""
    plain = Population("plain", some[0].baseline, some[0].baseline)
    ranked = sorted([plain, *some], key=lambda one: one.loss)
    above = next(place for place, one in enumerate(ranked) if one.loss > loss)
    better, worse = ranked[above - 1], ranked[above]
    share = (loss - better.loss) / (worse.loss - better.loss)
    rng = np.random.default_rng(0)
    size = 40 * len(better.baseline)
    taken = np.tile(np.arange(len(better.baseline)), 40)
    from_worse = np.sort(rng.permutation(size)) < share * size
    rng.shuffle(from_worse)
    mixed = np.where(from_worse, worse.candidate[taken], better.candidate[taken])
    baseline = better.baseline[taken]
    mixed = mixed * (1 - loss) * baseline.mean() / mixed.mean()  # what chance left over
    return Population(f"{better.name} / {worse.name}", baseline, mixed)


def quality_table(runs: int) -> Iterator[str]:
    """Coverage of the interval of the quality loss, and on which side the true value was missed."""
    yield _cells("scores", "loss %", *(f"{images} images" for images in IMAGES))
    yield _rule(len(IMAGES) + 2)
    measured = measured_populations()
    at_target = with_loss(TARGET, measured)
    for number, one in enumerate([normal_population(), *measured, at_target]):
        rng = np.random.default_rng(number)
        cells = []
        for images in IMAGES:
            low, high = loss_ends(*one.draw(runs, images, rng), estimate.LEVEL)
            over, under = (100 * float(np.mean(miss)) for miss in (high < one.loss, low > one.loss))
            cells.append(f"{100 - over - under:.1f} ({over:.1f}, {under:.1f})")
        yield _cells(one.name, f"{100 * one.loss:.2f}", *cells)


# Looking again and again


class Stream(Protocol):
    """Growing data of many runs, a run a row."""

    def grow(self, batches: int) -> None:
        """Measure so many more batches in each run."""
        ...

    def sides(self, level: float) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """In which runs the target is clearly met, and in which it is clearly missed."""
        ...

    def keep(self, going_on: NDArray[np.bool_]) -> None:
        """Forget the other runs."""
        ...


class Speeds:
    """Logarithms of paired ratios over the target, whose median is `shift` standard deviations."""

    def __init__(
        self, noise: Callable[[Rng, tuple[int, ...]], Numbers], shift: float, runs: int, rng: Rng
    ) -> None:
        self.noise, self.shift, self.rng = noise, shift, rng
        self.ratios = np.empty((runs, 0))
        self.count, self.below = 0, np.zeros(runs)
        many = self._draw((1, 200_000))
        self.share_below = float((many < 0).mean()) if shift else 0.5

    def _draw(self, shape: tuple[int, ...]) -> Numbers:
        ratios: Numbers = np.log(self.noise(self.rng, shape) / self.noise(self.rng, shape))
        return ratios + self.shift * NOISE * math.sqrt(2)

    def grow(self, batches: int) -> None:
        """See `Stream`."""
        runs = len(self.below)
        self.count += batches
        if self.count <= MOST_PAIRS:
            more = self._draw((runs, batches))
            self.ratios = np.concatenate([self.ratios, more], axis=1)
            self.below += (more < 0).sum(axis=1)
        else:
            self.below += self.rng.binomial(batches, self.share_below, runs)

    def sides(self, level: float) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """See `Stream`."""
        if self.count <= MOST_PAIRS:
            low, high = median_ends(self.ratios, level)
            return low > 0, high < 0
        reach = -ndtri(estimate.tail(self.count, level)) * math.sqrt(self.count) / 2
        return self.below < self.count / 2 - reach, self.below > self.count / 2 + reach

    def keep(self, going_on: NDArray[np.bool_]) -> None:
        """See `Stream`."""
        self.ratios, self.below = self.ratios[going_on], self.below[going_on]


class Qualities:
    """Scores of a population's images."""

    def __init__(self, population: Population, runs: int, rng: Rng) -> None:
        self.population, self.rng, self.count = population, rng, 0
        self.baseline, self.candidate = np.empty((runs, 0)), np.empty((runs, 0))
        moments = _moments(population.baseline, population.candidate)
        self.mean, self.covariance = moments.mean(axis=0), np.cov(moments.T)
        self.sums = np.zeros((runs, len(self.mean)))

    def grow(self, batches: int) -> None:
        """See `Stream`."""
        runs, images = len(self.sums), BATCH * batches
        self.count += images
        if self.count <= MOST_IMAGES:
            ours, theirs = self.population.draw(runs, images, self.rng)
            self.baseline = np.concatenate([self.baseline, ours], axis=1)
            self.candidate = np.concatenate([self.candidate, theirs], axis=1)
            self.sums += _moments(ours, theirs).sum(axis=1)
        elif images <= SUMMED_IMAGES:
            for _ in range(batches):
                self.sums += _moments(*self.population.draw(runs, BATCH, self.rng)).sum(axis=1)
        else:  # a sum of so many is normal
            mean, covariance = images * self.mean, images * self.covariance
            self.sums += self.rng.multivariate_normal(mean, covariance, runs, "ignore")

    def sides(self, level: float) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """See `Stream`."""
        if self.count <= MOST_IMAGES:
            low, high = loss_ends(self.baseline, self.candidate, level)
        else:
            low, high = _expanded(self.sums.T / self.count, self.count, level)
        return high < TARGET, low > TARGET

    def keep(self, going_on: NDArray[np.bool_]) -> None:
        """See `Stream`."""
        self.baseline, self.candidate = self.baseline[going_on], self.candidate[going_on]
        self.sums = self.sums[going_on]


def _moments(ours: Numbers, theirs: Numbers) -> Numbers:
    powers = ((1, 0), (0, 1), (2, 0), (1, 1), (0, 2), (3, 0), (2, 1), (1, 2), (0, 3))
    return np.stack([ours**one * theirs**other for one, other in powers], axis=-1)


def _expanded(moments: Numbers, count: int, level: float) -> tuple[Numbers, Numbers]:
    """Ends of the interval of the loss, by the means of `_moments`."""
    ours, theirs, oo, ot, tt, ooo, oot, ott, ttt = moments
    ratio = theirs / ours
    variance = tt - 2 * ratio * ot + ratio**2 * oo
    third = ttt - 3 * ratio * ott + 3 * ratio**2 * oot - ratio**3 * ooo
    skewness = -third / variance**1.5
    z = -ndtri(estimate.tail(count, level))
    error = np.sqrt(variance / count) / ours
    bend = skewness / (6 * math.sqrt(count)) * (z**2 - 1)
    return 1 - ratio + error * (bend - z), 1 - ratio + error * (bend + z)


@dataclass(frozen=True)
class Ended:
    """What came of many runs: of how many batches each decision was made, met or missed."""

    runs: int
    met: tuple[int, ...]
    missed: tuple[int, ...]

    def share(self, some: Sequence[int]) -> float:
        """Share of the runs."""
        return len(some) / self.runs


def follow(
    stream: Stream,
    runs: int,
    level: Callable[[int], float],
    *,
    least_to_meet: int = 0,
    most_batches: int = 10**9,
) -> Ended:
    """Look at a stream as `--until-decided` does, until all runs are decided or a bound is met.

    With fewer than `least_to_meet` batches no target is called met.
    """
    met: list[int] = []
    missed: list[int] = []
    batches, more = 0, FIRST_BATCHES
    for look in range(1, LOOKS + 1):
        stream.grow(more)
        batches += more
        is_met, is_missed = stream.sides(level(look))
        is_met &= batches >= least_to_meet
        met += [batches] * int(is_met.sum())
        missed += [batches] * int(is_missed.sum())
        going_on = ~(is_met | is_missed)
        more = min(math.ceil(batches * decide.LOOK_GROWTH), most_batches - batches)
        if not going_on.any() or more < 1:
            break
        stream.keep(going_on)
    return Ended(runs, tuple(met), tuple(missed))


def every_look(_look: int) -> float:
    """The naive rule."""
    return estimate.LEVEL


def error_table(runs: int) -> Iterator[str]:
    """Share of decisions at the target and beside it: met and missed, by three rules."""
    yield _cells("measured", "true value", *(f"{name}: met, missed" for name, _, _ in RULES))
    yield _rule(2 + len(RULES))
    for name, where, make in _hard_cases():
        found = []
        for _, level, least in RULES:
            stream = make(runs, np.random.default_rng(1))
            ended = follow(stream, runs, level, least_to_meet=least)
            found.append(f"{ended.share(ended.met):.1%}, {ended.share(ended.missed):.1%}")
        yield _cells(name, where, *found)


RULES: Final = (
    ("the rule", decide.level, SAFE_IMAGES // BATCH),
    ("met at any look", decide.level, 0),
    ("95 % at any look", every_look, 0),
)
"""Name, level at a look, and of how many batches at least a target is called met."""


def _hard_cases() -> Iterator[tuple[str, str, Callable[[int, Rng], Stream]]]:
    """What is measured, where the true value lies, and the stream of so many runs of it."""
    at_first = math.sqrt(math.pi / 2 / FIRST_BATCHES)
    for name, noise in (("speedup, normal", normal), ("speedup, bursts", bursts)):
        for where, shift in (("at the target", 0.0), ("1 se better", at_first)):
            yield (
                name,
                where,
                lambda runs, rng, noise=noise, shift=shift: Speeds(noise, shift, runs, rng),
            )
    measured = measured_populations()
    for name, make in (
        ("quality, normal", lambda loss: _moved(normal_population(), loss)),
        ("quality, measured", lambda loss: with_loss(loss, measured)),
    ):
        one = make(TARGET)
        error = _spread(one) / math.sqrt(BATCH * FIRST_BATCHES)
        for where, loss in (
            ("at the target", TARGET),
            ("1 se better", TARGET - error),
            ("1 se worse", TARGET + error),
        ):
            some = make(loss)
            yield name, where, lambda runs, rng, some=some: Qualities(some, runs, rng)


def _moved(one: Population, loss: float) -> Population:
    return Population(one.name, one.baseline, one.candidate * (1 - loss) / (1 - one.loss))


def _spread(one: Population) -> float:
    """Standard deviation of the loss of one image."""
    difference = one.candidate - (1 - one.loss) * one.baseline
    return float(difference.std() / one.baseline.mean())


def cost_table(runs: int) -> Iterator[str]:
    """How many images a decision takes, by the true quality loss."""
    yield _cells("true loss %", "made of", "met", "missed", "open", "images: median", "95 % below")
    yield _rule(7)
    measured = measured_populations()
    for loss in TRUE_LOSSES:
        one = with_loss(loss, measured)
        stream = Qualities(one, runs, np.random.default_rng(2))
        ended = follow(
            stream,
            runs,
            decide.level,
            least_to_meet=SAFE_IMAGES // BATCH,
            most_batches=decide.MAX_BATCHES,
        )
        images = BATCH * np.sort([*ended.met, *ended.missed])
        open_share = 1 - (len(ended.met) + len(ended.missed)) / runs
        places = [int(share * runs) for share in (0.5, 0.95)]
        cells = [f"{images[at]:,}" if at < len(images) else "-" for at in places]
        shares = (ended.share(ended.met), ended.share(ended.missed), open_share)
        yield _cells(f"{100 * loss:g}", one.name, *(f"{one:.1%}" for one in shares), *cells)


# Scores of real images


def make_scores(images: int) -> dict[str, list[float]]:
    """CLIP scores of the embedded model's images of fresh captions, by method; takes minutes."""
    import fidelity  # brings torch

    from runner import captions, paths, prompts
    from runner.scorer_process import load_clip

    avoid = frozenset(prompts.load("tiny-20").prompts)
    studio = fidelity.Studio(BATCH, "cpu")
    studio.captions = captions.draw_distinct(
        captions.from_grammar("tiny"),
        images,
        avoid,
        random.Random(20),  # noqa: S311  (a sample, no secrets)
    )
    clip = load_clip(f"local-dir:{paths.ROOT / 'models' / 'tiny-clip'}", None)
    methods = {method.name: method for method in fidelity.HONEST}
    scores = {}
    for name in METHODS:
        start_s = time.monotonic()
        found = clip.score(studio.captions, methods[name].make(studio))
        scores[name] = [round(score, 2) for score in found]
        print(f"{name}: {time.monotonic() - start_s:.0f} s", file=sys.stderr, flush=True)
    return scores


METHODS: Final = ("plain", "DeepCache 5", "10 steps", "DeepCache 3", "4 steps")
"""Of `benchmarks/fidelity.py`; the first is the baseline."""


def save_scores(path: Path, scores: dict[str, list[float]]) -> None:
    """Write the file of scores, a method a line."""
    count = len(scores["plain"])
    made_by = f"python benchmarks/calibration.py scores --images {count}"
    lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(some)}" for name, some in scores.items())
    path.write_text(f'{{\n"made_by": {json.dumps(made_by)},\n"scores": {{\n{lines}\n}}\n}}\n')


# A against A


def run_missing(arguments: argparse.Namespace) -> None:
    """Run what is not in the files yet, of this shard, and append it to the first file."""
    same = _same(arguments)
    digest = trust.digest(same.path)
    done = {one.key for one in trust.read(arguments.out) if one.speedup is not None}
    shard: trust.Shard = arguments.shard
    for run in range(arguments.runs)[shard.number :: shard.count]:
        if (same.path.stem, run, arguments.device, digest) in done:
            continue
        with tempfile.TemporaryDirectory(prefix="speedtrap-calibration-") as folder:
            one = trust.run_one(same, run, arguments.device, Path(folder), shard)
        with arguments.out[0].open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(asdict(one)) + "\n")
        print(f"{run}: {one.verdict}, speedup {one.speedup} {one.speedup_ci}", flush=True)


def _same(arguments: argparse.Namespace) -> Specimen:
    """The baseline as candidate."""
    file = arguments.file.absolute()
    flags = ("--baseline", str(file), *arguments.options)
    return replace(e2e.specimens()[0], path=file, flags=flags)


def same_table(outcomes: Sequence[trust.Outcome]) -> Iterator[str]:
    """How often the interval holds 1, and how near to 1 the speedup is."""
    yield _cells(
        "device", "runs", "1.0 inside", "sd of the speedup", "mean", "within 1 %", "no number"
    )
    yield _rule(7)
    for device in sorted({one.device for one in outcomes}):
        some = [one for one in outcomes if one.device == device]
        ends = [one.speedup_ci for one in some if one.speedup_ci is not None]
        speeds = [one.speedup for one in some if one.speedup is not None]
        held = sum(low <= 1 <= high for low, high in ends)
        near = sum(abs(speed - 1) <= 0.01 for speed in speeds)  # noqa: PLR2004
        yield _cells(
            *(device, str(len(some)), f"{held} of {len(ends)}"),
            f"{statistics.stdev(speeds):.4f}" if len(speeds) > 1 else "-",
            f"{statistics.fmean(speeds):.4f}" if speeds else "-",
            *(f"{near} of {len(speeds)}", str(len(some) - len(speeds))),
        )


# The command line


def _cells(*texts: str) -> str:
    return f"| {' | '.join(texts)} |"


def _rule(columns: int) -> str:
    return "|---" * columns + "|"


def _coverage(arguments: argparse.Namespace) -> Iterator[str]:
    yield f"Times: share of {arguments.runs} runs whose interval holds the true speedup, in %.\n"
    yield from speed_table(arguments.runs)
    yield (
        "\nQuality: the same for the loss; in brackets, how often the true value is over and under"
        " the interval.\n"
    )
    yield from quality_table(arguments.runs)


def _looks(arguments: argparse.Namespace) -> Iterator[str]:
    yield f"Decisions of {arguments.runs} runs in up to {LOOKS} looks.\n"
    yield from error_table(arguments.runs)
    yield f"\nImages that a decision takes; at most {BATCH * decide.MAX_BATCHES:,}.\n"
    yield from cost_table(arguments.runs)


def _scores(arguments: argparse.Namespace) -> Iterator[str]:
    with contextlib.redirect_stdout(sys.stderr):  # libraries greet
        scores = make_scores(arguments.images)
    save_scores(arguments.out, scores)
    yield f"wrote {arguments.out}"


def _aa(arguments: argparse.Namespace) -> Iterator[str]:
    if not arguments.report:
        run_missing(arguments)
    yield from same_table(trust.read(arguments.out))


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parts = parser.add_subparsers(required=True)
    for name, run in (("coverage", _coverage), ("looks", _looks)):
        part = parts.add_parser(name)
        part.add_argument("--runs", type=int, default=2000)
        part.set_defaults(do=run)
    part = parts.add_parser("scores")
    part.add_argument("--images", type=int, default=400, help=f"a multiple of {BATCH}")
    part.add_argument("--out", type=Path, default=SCORES)
    part.set_defaults(do=_scores)
    part = parts.add_parser("aa")
    part.add_argument("--runs", type=int, default=100)
    part.add_argument("--out", type=Path, action="append", required=True, metavar="FILE")
    part.add_argument("--file", type=Path, default=e2e.EXAMPLES / "base.py", metavar="BASE.py")
    part.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    part.add_argument("--shard", type=trust.Shard.parse, default=trust.Shard(0, 1), metavar="I/N")
    part.add_argument("--report", action="store_true", help="print the table, run nothing")
    part.add_argument("options", nargs="*", help="more options of bin/score, after --")
    part.set_defaults(do=_aa)
    return parser.parse_args(words)


def main() -> None:
    """Print what was asked for."""
    arguments = parse()
    for line in arguments.do(arguments):
        print(line, flush=True)


if __name__ == "__main__":
    main()
