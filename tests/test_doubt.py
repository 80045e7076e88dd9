"""Second goes: which batches get one, what stands afterwards, and what a candidate cannot do."""

import dataclasses

import pytest

from runner import doubt
from runner.records import Batch, Device, PlannedBatch, Purpose, Side, Weather
from runner.weather import Limits

LIMITS = Limits.of(Device(kind="cpu", name="Fake CPU"), 2)
FAIR = Weather(wall_s=2.0, looks=0, foreign_cores=0.0)
FOUL = Weather(wall_s=4.0, looks=0, foreign_cores=1.0)
PLAN = [
    PlannedBatch(7, ("w",), Purpose.WARM_UP),
    PlannedBatch(8, ("f",), Purpose.FIXED),
    PlannedBatch(9, ("a",), Purpose.AUDIT),
    PlannedBatch(10, ("b",), Purpose.AUDIT),
    PlannedBatch(11, ("b",), Purpose.OTHER_SEED, 3),
]


def batch(planned, weather=FAIR, **changes):
    phase = "warm-up" if planned.purpose is Purpose.WARM_UP else "timed"
    fields = {
        "phase": phase,
        "purpose": planned.purpose,
        "of": planned.of,
        "counts": planned.purpose is Purpose.AUDIT,
        "seed": planned.seed,
        "time_s": weather.wall_s,
        "scores": (90.0,),
        "weather": weather,
    }
    return Batch(**(fields | changes))


def side(plan, foul=(), **changes):
    """A side that was disturbed in the batches at the places `foul`."""
    batches = [
        batch(planned, FOUL if place in foul else FAIR, **changes)
        for place, planned in enumerate(plan)
    ]
    return Side(time_s=1.0, score=90.0, batches=tuple(batches))


def with_goes(foul, foul_again=()):
    """The baseline after its second goes; `foul_again` are places of the longer plan."""
    plan = [*PLAN, *doubt.second_goes(PLAN, side(PLAN, foul), side(PLAN), LIMITS)]
    return plan, side(plan, {*foul, *foul_again})


def test_a_quiet_baseline_gets_no_second_go():
    assert doubt.second_goes(PLAN, side(PLAN), side(PLAN), LIMITS) == []


def test_a_batch_that_counts_and_is_in_doubt_runs_once_more_for_the_baseline_alone():
    (again,) = doubt.second_goes(PLAN, side(PLAN, {3}), side(PLAN), LIMITS)
    assert again == dataclasses.replace(PLAN[3], purpose=Purpose.AGAIN, of=3)
    assert not again.for_candidate
    assert not again.timed


def test_what_does_not_count_is_not_run_again():
    assert doubt.second_goes(PLAN, side(PLAN, {0, 1, 4}), side(PLAN), LIMITS) == []


def test_a_pair_that_was_disturbed_on_both_sides_stays_as_it_is():
    found = doubt.second_goes(PLAN, side(PLAN, {2, 3}), side(PLAN, {2}), LIMITS)
    assert [one.of for one in found] == [3]


def test_nothing_gets_a_third_go():
    plan, baseline = with_goes({2, 3}, foul_again={5, 6})
    assert len(plan) == len(PLAN) + 2
    assert doubt.second_goes(plan, baseline, side(PLAN), LIMITS) == []


def test_what_a_cache_recalls_is_not_run_again():
    recalled = side(PLAN, {3}, recalled=True, marks=("in doubt when it was made",))
    assert doubt.second_goes(PLAN, recalled, side(PLAN), LIMITS) == []
    assert all(one.marks for one in doubt.settled(recalled, LIMITS).batches)


def test_the_second_go_stands_and_the_first_is_kept():
    _, baseline = with_goes({3})
    assert doubt.settled(side(PLAN, {3}), LIMITS).time_s == 2.0 + 4.0
    found = doubt.settled(baseline, LIMITS)
    assert found.time_s == 2.0 + 2.0
    one = found.batches[3]
    assert (one.time_s, one.weather, one.marks) == (2.0, FAIR, ())
    assert one.first_go.time_s == 4.0
    assert one.first_go.weather == FOUL
    assert "other processes" in one.first_go.marks[0]
    assert found.batches[2].first_go is None
    assert found.cost.images == 2
    assert found.cost.wall_s == 4.0


def test_a_second_go_that_is_in_doubt_too_changes_nothing():
    _, baseline = with_goes({3}, foul_again={5})
    found = doubt.settled(baseline, LIMITS)
    assert found.time_s == 2.0 + 4.0
    assert found.batches[3].first_go is None
    assert found.batches[3].marks


def test_a_second_go_that_is_slower_changes_nothing():
    plan, baseline = with_goes({3})
    batches = list(baseline.batches)
    batches[-1] = batches[-1].model_copy(update={"time_s": 4.5})
    found = doubt.settled(baseline.model_copy(update={"batches": tuple(batches)}), LIMITS)
    assert len(plan) == len(batches)
    assert found.time_s == 2.0 + 4.0
    assert found.batches[3].marks


def test_cost_is_that_of_batches_that_ran_here():
    baseline = side(PLAN)
    batches = [
        one.model_copy(update={"recalled": place == 3})
        for place, one in enumerate(baseline.batches)
    ]
    found = doubt.settled(baseline.model_copy(update={"batches": tuple(batches)}), LIMITS)
    assert found.cost.images == 1


def test_the_seconds_of_the_first_go_are_what_the_script_knows_of():
    _, baseline = with_goes({3})
    found = doubt.settled(baseline, LIMITS)
    assert found.run_s == baseline.run_s == pytest.approx(2.0 + 2.0 + 4.0 + 2.0 + 2.0)


def test_marks_of_the_candidate_are_told_and_change_none_of_its_times():
    candidate = side(PLAN, {2, 3})
    found = doubt.settled(candidate, LIMITS)
    assert [one.time_s for one in found.batches] == [one.time_s for one in candidate.batches]
    (told,) = doubt.doubts(doubt.settled(side(PLAN), LIMITS), found)
    assert told.startswith("2 of 2 pairs of batches are in doubt: other processes")


def test_second_goes_are_told_of():
    _, baseline = with_goes({3})
    (told,) = doubt.doubts(doubt.settled(baseline, LIMITS), doubt.settled(side(PLAN), LIMITS))
    assert told.startswith(
        "1 of 2 batches of the baseline were in doubt, and their second go counts"
    )
