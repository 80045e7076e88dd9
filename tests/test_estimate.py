"""What the estimates make of small cases, of noise, and of machines that change under them."""

import itertools
import math
import random
import statistics

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from runner.estimate import LEAST_PAIRS, LEVEL, difference, quality_loss, speedup, total_speedup

seconds = st.floats(0.01, 1000)
scores = st.floats(1, 100)


def pairs_of(values):
    return st.lists(st.tuples(values, values), min_size=1, max_size=12)


def sides(pairs):
    return [ours for ours, _ in pairs], [theirs for _, theirs in pairs]


def noisy(count, seed, spread=0.02):
    rng = random.Random(seed)
    return [math.exp(rng.gauss(0, spread)) for _ in range(count)]


class TestSpeedup:
    def test_median_of_the_ratios_and_not_the_ratio_of_the_sums(self):
        found = speedup([2, 3, 100], [1, 1, 10], LEVEL)
        assert found.value == pytest.approx(3)

    def test_even_number_of_pairs_has_the_geometric_middle(self):
        assert speedup([1, 4], [1, 1], LEVEL).value == pytest.approx(2)

    def test_five_pairs_have_the_widest_interval_that_there_is(self):
        found = speedup([1, 2, 3, 4, 5], [1] * 5, LEVEL)
        assert found.interval == pytest.approx((1, 5))

    def test_of_nine_pairs_one_on_each_side_may_be_outside(self):
        found = speedup(range(1, 10), [1] * 9, LEVEL)
        assert found.interval == pytest.approx((2, 8))

    def test_equal_ratios_leave_no_doubt(self):
        times = noisy(9, seed=1, spread=1.0)
        found = speedup([3 * time for time in times], times, LEVEL)
        assert (found.value, *found.interval) == pytest.approx((3, 3, 3))

    def test_twice_as_fast_and_half_as_fast_are_equally_far(self):
        ours, theirs = noisy(9, seed=2), noisy(9, seed=3)
        there, back = speedup(ours, theirs, LEVEL), speedup(theirs, ours, LEVEL)
        assert back.value == pytest.approx(1 / there.value)
        assert back.interval == pytest.approx((1 / there.high, 1 / there.low), rel=0.01)

    def test_one_wild_pair_of_nine_hardly_moves_it(self):
        ours = noisy(9, seed=4)
        theirs = [time / 1.5 for time in noisy(9, seed=5)]
        calm = speedup(ours, theirs, LEVEL)
        wild = speedup(ours, [theirs[0] * 50, *theirs[1:]], LEVEL)
        assert wild.value == pytest.approx(calm.value, rel=0.02)
        assert wild.interval == pytest.approx(calm.interval, rel=0.04)

    def test_drift_that_both_sides_share_cancels(self):
        ours = noisy(9, seed=6)
        theirs = [time / 1.5 for time in noisy(9, seed=7)]
        falling_clock = [1 / (1 - 0.05 * number) for number in range(9)]
        drifting = speedup(
            [time * slow for time, slow in zip(ours, falling_clock, strict=True)],
            [time * slow for time, slow in zip(theirs, falling_clock, strict=True)],
            LEVEL,
        )
        steady = speedup(ours, theirs, LEVEL)
        assert drifting.value == pytest.approx(steady.value)
        assert drifting.interval == pytest.approx(steady.interval)

    def test_half_of_a_run_twice_as_slow_is_no_speedup(self):
        noise = noisy(10, seed=8)
        slow = [2.0] * 5 + [1.0] * 5
        times = [time * factor for time, factor in zip(noise, slow, strict=True)]
        found = speedup(times, [time * 0.999 for time in times], LEVEL)
        assert found.interval == pytest.approx((1.001, 1.001), rel=1e-3)

    def test_shuffling_one_side_alone_changes_it(self):
        times = noisy(9, seed=9, spread=0.5)
        theirs = [time / 2 for time in times]
        assert speedup(times, theirs, LEVEL).value == pytest.approx(2)
        alone = speedup(times, theirs[1:] + theirs[:1], LEVEL)
        assert alone.high / alone.low > 1.2

    @given(pairs_of(seconds), st.floats(0.001, 1000))
    def test_unit_of_time_does_not_matter(self, pairs, factor):
        ours, theirs = sides(pairs)
        one = speedup(ours, theirs, LEVEL)
        other = speedup([factor * t for t in ours], [factor * t for t in theirs], LEVEL)
        assert other.value == pytest.approx(one.value)
        assert (other.interval is None) == (one.interval is None)
        if one.interval is not None:
            assert other.interval == pytest.approx(one.interval)


class TestQualityLoss:
    def test_ratio_of_means(self):
        assert quality_loss([50, 100], [50, 85], LEVEL).value == pytest.approx(0.1)

    def test_better_images_are_a_loss_below_zero(self):
        assert quality_loss([80], [88], LEVEL).value == pytest.approx(-0.1)

    def test_same_scores_leave_no_doubt(self):
        values = [90.0, 80.0, 95.0, 70.0, 99.0]
        found = quality_loss(values, values, LEVEL)
        assert (found.value, found.low, found.high) == pytest.approx((0, 0, 0), abs=1e-12)

    def test_pairing_takes_the_prompts_out_of_the_noise(self):
        rng = random.Random(10)
        baseline = [rng.uniform(40, 100) for _ in range(45)]
        candidate = [0.99 * score for score in baseline]
        together = quality_loss(baseline, candidate, LEVEL)
        rng.shuffle(candidate)
        alone = quality_loss(baseline, candidate, LEVEL)
        assert together.value == pytest.approx(alone.value)
        assert together.high - together.low < 1e-9
        assert alone.high - alone.low > 0.05

    def test_more_images_make_it_narrower(self):
        rng = random.Random(11)
        baseline = [rng.gauss(94, 2) for _ in range(400)]
        candidate = [score - rng.gauss(1, 4) for score in baseline]
        few = quality_loss(baseline[:25], candidate[:25], LEVEL)
        many = quality_loss(baseline, candidate, LEVEL)
        assert (many.high - many.low) == pytest.approx((few.high - few.low) / 4, rel=0.4)

    @given(pairs_of(scores), st.floats(0.01, 100))
    def test_weight_of_the_score_does_not_matter(self, pairs, factor):
        ours, theirs = sides(pairs)
        one = quality_loss(ours, theirs, LEVEL)
        other = quality_loss([factor * s for s in ours], [factor * s for s in theirs], LEVEL)
        assert other.value == pytest.approx(one.value, abs=1e-9)


BOTH = pytest.mark.parametrize("estimate", [speedup, quality_loss])


@BOTH
class TestBoth:
    @pytest.mark.parametrize("count", range(1, LEAST_PAIRS))
    def test_too_few_pairs_have_a_value_and_no_interval(self, estimate, count):
        found = estimate([2.0] * count, [1.0] * count, LEVEL)
        assert found.value in (pytest.approx(2), pytest.approx(0.5))
        assert found.interval is None

    def test_least_pairs_have_an_interval(self, estimate):
        times = noisy(LEAST_PAIRS, seed=12)
        assert estimate(times, times[::-1], LEVEL).interval is not None

    def test_sides_of_unequal_length_are_our_mistake(self, estimate):
        with pytest.raises(ValueError, match="zip"):
            estimate([1.0, 2.0], [1.0], LEVEL)

    def test_surer_is_wider(self, estimate):
        ours, theirs = noisy(30, seed=13), noisy(30, seed=14)
        found = [estimate(ours, theirs, level) for level in (0.5, 0.9, 0.99, 0.9999)]
        assert [one.level for one in found] == [0.5, 0.9, 0.99, 0.9999]
        for narrow, wide in itertools.pairwise(found):
            assert wide.low < narrow.low < narrow.high < wide.high

    @settings(max_examples=30)
    @given(pairs=pairs_of(scores), rng=st.randoms(use_true_random=False))
    def test_same_pairs_in_any_order_give_the_same(self, estimate, pairs, rng):
        one = estimate(*sides(pairs), LEVEL)
        assert estimate(*sides(pairs), LEVEL) == one
        rng.shuffle(pairs)
        assert estimate(*sides(pairs), LEVEL) == one

    @settings(max_examples=50)
    @given(pairs=pairs_of(scores), level=st.floats(0.9, 0.9999))
    def test_value_is_inside_of_its_interval(self, estimate, pairs, level):
        found = estimate(*sides(pairs), level)
        assert math.isfinite(found.value)
        assume(found.interval is not None)  # few pairs tell nothing at a high level
        slack = 1e-9 * (1 + abs(found.value))
        assert found.low - slack <= found.value <= found.high + slack

    def test_factor_is_applied_to_all_of_it(self, estimate):
        one = estimate([3.0, 4, 5, 6, 7], [1.0, 1, 2, 2, 2], LEVEL)
        half = one.times(0.5)
        assert half.value == one.value / 2
        assert half.interval == (one.low / 2, one.high / 2)
        assert half.level == one.level

    def test_factor_makes_no_interval(self, estimate):
        assert estimate([2.0], [1.0], LEVEL).times(0.5).interval is None


@pytest.mark.parametrize(
    ("count", "level", "has_interval"),
    [
        (4, 0.95, False),
        (5, 0.95, True),
        (5, 0.975, False),
        (6, 0.975, True),
        (6, 0.9917, False),
        (9, 0.9917, True),
        (9, 0.9999, False),
    ],
)
def test_a_median_of_few_pairs_cannot_be_surer_than_its_widest_interval(count, level, has_interval):
    found = speedup([2.0] * count, [1.0] * count, level)
    assert (found.interval is not None) == has_interval


def test_a_mean_difference_has_nearly_the_interval_of_student():
    rng = random.Random(1)
    ours = [rng.gauss(0, 5) for _ in range(40)]
    theirs = [one + 0.3 + rng.gauss(0, 1) for one in ours]
    gaps = [their - our for our, their in zip(ours, theirs, strict=True)]
    error = statistics.stdev(gaps) / math.sqrt(40)
    found = difference(ours, theirs, LEVEL)
    assert found.value == pytest.approx(statistics.fmean(gaps))
    assert found.low == pytest.approx(found.value - 2.0227 * error, abs=0.1 * error)
    assert found.high == pytest.approx(found.value + 2.0227 * error, abs=0.1 * error)
    assert difference(ours[:4], theirs[:4], LEVEL).interval is None
    assert difference(theirs, ours, LEVEL).value == pytest.approx(-found.value)


def test_scores_of_which_a_draw_may_be_all_zero_have_no_interval():
    found = quality_loss([80.0] + [0.0] * 9, [80.0] + [0.0] * 9, 0.95)
    assert (found.value, found.interval) == (0.0, None)


def test_all_seconds_together():
    found = total_speedup([3.0] * 10, [0.5, 3.0] * 5, 0.95)
    assert found.value == pytest.approx(30 / 17.5)
    assert found.low < found.value < found.high
    assert total_speedup([3.0] * 4, [1.0] * 4, 0.95).interval is None
