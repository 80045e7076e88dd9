"""What the figures of docs/method.md stand on: many runs at once are what one run is."""

import importlib.util
import json
import math
import sys

import numpy as np
import pytest
from e2e import ROOT

from runner import decide, estimate

RUNS = 400


@pytest.fixture(scope="module")
def calibration():
    path = ROOT / "benchmarks" / "calibration.py"
    specification = importlib.util.spec_from_file_location("calibration", path)
    module = importlib.util.module_from_spec(specification)
    before = list(sys.path)
    sys.modules["calibration"] = module
    specification.loader.exec_module(module)
    sys.path[:] = before
    yield module
    del sys.modules["calibration"]


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def machine(calibration):
    return lambda word: next(one for one in calibration.MACHINES if word in one.name)


@pytest.mark.parametrize("count", [5, 8, 9, 30])
def test_medians_of_many_runs_have_the_interval_of_each(calibration, rng, count):
    ours, theirs = (np.exp(rng.normal(0, 0.1, (3, count))) for _ in range(2))
    low, high = calibration.median_ends(np.log(ours / theirs), 0.95)
    for run in range(3):
        one = estimate.speedup(ours[run], theirs[run], 0.95)
        assert one.interval == pytest.approx((math.exp(low[run]), math.exp(high[run])))


@pytest.mark.parametrize("count", [5, 45])
def test_losses_of_many_runs_have_the_interval_of_each(calibration, rng, count):
    ours, theirs = (rng.normal(94, 3, (3, count)) for _ in range(2))
    low, high = calibration.loss_ends(ours, theirs, 0.99)
    for run in range(3):
        one = estimate.quality_loss(ours[run], theirs[run], 0.99)
        assert one.interval == pytest.approx((low[run], high[run]))


@pytest.mark.parametrize("word", ["normal", "bursts", "drift", "step"])
def test_interval_of_nine_pairs_holds_on_any_machine(calibration, rng, machine, word):
    ours, theirs = calibration.paired_times(machine(word), 9, RUNS, rng)
    low, high = np.exp(calibration.median_ends(np.log(ours / theirs), 0.95))
    assert 0.92 < np.mean((low <= calibration.SPEEDUP) & (high >= calibration.SPEEDUP)) < 0.99


@pytest.mark.parametrize("word", ["drift", "step"])
def test_pairs_are_right_where_whole_runs_are_off(calibration, rng, machine, word):
    ours, theirs = calibration.paired_times(machine(word), 9, RUNS, rng)
    paired = np.median(ours / theirs, axis=1) / calibration.SPEEDUP - 1
    naive = calibration.naive_speedups(machine(word), 9, RUNS, rng) / calibration.SPEEDUP - 1
    assert abs(np.median(paired)) < 0.01
    assert np.quantile(np.abs(paired), 0.95) < 0.05
    assert np.quantile(np.abs(naive), 0.05) > 0.1


class TestScores:
    def test_file_has_hundreds_of_images_of_every_method(self, calibration):
        assert calibration.SCORES.stat().st_size < 40_000
        content = json.loads(calibration.SCORES.read_text())
        assert set(content["scores"]) == set(calibration.METHODS)
        assert {len(some) for some in content["scores"].values()} == {400}

    @pytest.mark.parametrize("loss", [0.003, 0.019, 0.021, 0.03])
    def test_candidate_of_a_given_loss_has_it(self, calibration, rng, loss):
        one = calibration.with_loss(loss, calibration.measured_populations())
        assert one.loss == pytest.approx(loss)
        ours, theirs = one.draw(1, 200_000, rng)
        assert 1 - theirs.mean() / ours.mean() == pytest.approx(loss, abs=0.001)

    def test_written_scores_are_read(self, calibration, tmp_path):
        scores = {"plain": [80.0, 90.5], "DeepCache 5": [70.25, 90.0]}
        calibration.save_scores(tmp_path / "scores.json", scores)
        (one,) = calibration.measured_populations(tmp_path / "scores.json")
        assert (one.name, *one.baseline, *one.candidate) == ("DeepCache 5", 80, 90.5, 70.25, 90)


class Fake:
    """Run number n is met as soon as there are n batches."""

    def __init__(self, runs):
        self.numbers = np.arange(1, runs + 1)
        self.levels = []
        self.count = 0

    def grow(self, batches):
        self.count += batches

    def sides(self, level):
        self.levels.append(level)
        return self.numbers <= self.count, np.zeros(len(self.numbers), dtype=bool)

    def keep(self, going_on):
        self.numbers = self.numbers[going_on]


class TestFollow:
    def test_looks_are_those_of_the_decider(self, calibration):
        fake = Fake(40)
        ended = calibration.follow(fake, 40, decide.level)
        assert ended.met == (9,) * 9 + (14,) * 5 + (21,) * 7 + (32,) * 11 + (48,) * 8
        assert fake.levels == [decide.level(look) for look in range(1, 6)]

    def test_bound_ends_it(self, calibration):
        ended = calibration.follow(Fake(40), 40, decide.level, most_batches=20)
        assert (len(ended.met), ended.missed) == (20, ())

    @pytest.mark.parametrize(("rule", "holds"), [(0, True), (1, False), (2, False)])
    def test_measured_quality_at_its_target_is_rarely_decided(self, calibration, rule, holds):
        one = calibration.with_loss(calibration.TARGET, calibration.measured_populations())
        stream = calibration.Qualities(one, RUNS, np.random.default_rng(3))
        _, level, least = calibration.RULES[rule]
        ended = calibration.follow(stream, RUNS, level, least_to_meet=least, most_batches=500)
        assert (len(ended.met) + len(ended.missed) <= 0.05 * RUNS) is holds

    def test_speed_at_its_target_is_rarely_decided(self, calibration):
        stream = calibration.Speeds(calibration.bursts, 0.0, RUNS, np.random.default_rng(4))
        ended = calibration.follow(stream, RUNS, decide.level, most_batches=100)
        assert len(ended.met) + len(ended.missed) <= 0.08 * RUNS

    def test_quality_beyond_the_resamples_is_what_it_is_before(self, calibration, monkeypatch):
        one = calibration.normal_population(5000)
        shares = []
        for bound in (10**9, 0):
            monkeypatch.setattr(calibration, "MOST_IMAGES", bound)
            stream = calibration.Qualities(one, RUNS, np.random.default_rng(1))
            stream.grow(40)
            shares.append([side.mean() for side in stream.sides(0.5)])
        assert shares[0] == pytest.approx(shares[1], abs=0.12)
        assert sum(shares[0]) == pytest.approx(0.5, abs=0.1)

    def test_speed_beyond_the_resamples_is_what_it_is_before(self, calibration, monkeypatch):
        shares = []
        for bound in (10**9, 0):
            monkeypatch.setattr(calibration, "MOST_PAIRS", bound)
            rng = np.random.default_rng(2)
            stream = calibration.Speeds(calibration.normal, 0.0, RUNS, rng)
            stream.grow(101)
            shares.append([side.mean() for side in stream.sides(0.5)])
        assert shares[0] == pytest.approx(shares[1], abs=0.12)
        assert sum(shares[0]) == pytest.approx(0.5, abs=0.12)


def test_table_of_real_runs_counts_intervals_and_near_ones(calibration):
    def outcome(run, speedup, ends):
        return calibration.trust.Outcome(
            *("base", run, "cpu", "", 0, "ok", "", 0.0, speedup, 0.0, 1.0, ()), speedup_ci=ends
        )

    some = [
        outcome(0, 1.005, [0.99, 1.02]),
        outcome(1, 0.98, [0.97, 0.99]),
        outcome(2, None, None),
    ]
    last = list(calibration.same_table(some))[-1]
    assert last == "| cpu | 3 | 1 of 2 | 0.0177 | 0.9925 | 1 of 2 | 1 |"
