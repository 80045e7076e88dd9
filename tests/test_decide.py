from __future__ import annotations

import pytest

from runner import captions, decide, prompts
from runner.decide import Decider
from runner.records import Purpose, SpeedtrapError

MANY = captions.Source("numbers", "0", lambda rng: f"a circle, {rng.randrange(10**9)}")
FEW = captions.from_prompts("few", "0", tuple(f"caption {number}" for number in range(12)))


def planned(count, source=MANY, size=5):
    """A plan with `count` audit batches."""
    text = tuple(f"public {number}" for number in range(size * 2))
    fixed = prompts.plan(prompts.PromptSet("p", text, "0"), size, 42)
    return prompts.with_audit(fixed, source, count, 7)


def further(plan, source=MANY, *, has_floors=True):
    return prompts.Further.after(plan, source, 7, has_floors=has_floors)


@pytest.fixture
def record(side):
    """A side with `count` audit batches."""

    def make(count):
        full = side(timed=count)
        batches = [one.model_copy(update={"purpose": Purpose.AUDIT}) for one in full.counted]
        return full.model_copy(update={"batches": (full.batches[0], *batches)})

    return make


def test_all_looks_together_spend_no_more_than_the_error():
    levels = [decide.level(look) for look in range(1, 10_000)]
    assert levels[0] == pytest.approx(0.975)
    assert levels == sorted(levels)
    assert sum(1 - level for level in levels) < decide.ERROR


def test_the_data_grow_by_half_until_it_is_decided(record):
    plan, asked = planned(9), []

    def is_decided(_ours, theirs, level):
        asked.append(level)
        return len(theirs.counted) >= 32

    decider = Decider(further(plan), is_decided, budget_s=1e6)
    counts = [9]
    while added := decider(plan, record(counts[-1]), record(counts[-1])):
        counts.append(counts[-1] + sum(one.purpose is Purpose.AUDIT for one in added))
        plan += tuple(added)
    assert counts == [9, 14, 21, 32]
    assert asked == [decide.level(look) for look in (1, 2, 3, 4)]
    assert decider.decision().model_dump() == {"looks": 4, "ended": "decided", "budget_s": 1e6}


def test_it_ends_when_the_budget_is_spent(record):
    plan = planned(9)
    decider = Decider(further(plan), lambda *_: False, budget_s=1e-9)
    assert not decider(plan, record(9), record(9))
    assert decider.decision().ended == "budget"


def test_no_more_is_ordered_than_fits_into_the_budget(record):
    plan = planned(9)
    ours = record(9)  # 4 s of nine batches and 9 s of warm-up: 2.6 s a pair at its pace
    decider = Decider(further(plan), lambda *_: False, budget_s=26.0 + 2 * 2.6 + 0.1)
    added = decider(plan, ours, record(9))
    assert sum(one.purpose is Purpose.AUDIT for one in added) == 2


@pytest.mark.parametrize("slower", [0.01, 1.0, 1000.0])
def test_the_candidates_seconds_choose_neither_the_end_nor_the_size_of_a_look(record, slower):
    plan, ours = planned(9), record(9)
    theirs = record(9)
    theirs = theirs.model_copy(
        update={
            "batches": tuple(
                one.model_copy(update={"time_s": one.time_s * slower}) for one in theirs.batches
            )
        }
    )
    decider = Decider(further(plan), lambda *_: False, budget_s=35.0)
    added = decider(plan, ours, theirs)
    assert sum(one.purpose is Purpose.AUDIT for one in added) == 3


def test_the_last_prompts_are_used_up_before_it_ends(record):
    many = captions.from_prompts("many", "0", tuple(f"caption {number}" for number in range(200)))
    plan = planned(9, many)
    decider = Decider(further(plan, many), lambda *_: False, budget_s=1e6)
    counts = [9]
    while added := decider(plan, record(counts[-1]), record(counts[-1])):
        counts.append(counts[-1] + sum(one.purpose is Purpose.AUDIT for one in added))
        plan += tuple(added)
    assert counts[-1] >= 38  # of 40
    assert decider.decision().ended == "prompts"


def test_added_prompts_are_new_and_some_are_held_against_another_seed():
    plan = planned(9)
    more = further(plan)
    first = more.batches(plan, 5)
    longer = [*plan, *first]
    second = more.batches(longer, 7)
    for before, added, count in ((plan, first, 5), (longer, second, 7)):
        whole = [*before, *added]
        audit = [one for one in added if one.purpose is Purpose.AUDIT]
        assert len(audit) == count
        assert len(added) == 2 * count
        for place in range(len(before), len(whole), 2):
            one, other = whole[place : place + 2]
            assert (one.purpose, other.purpose) == (Purpose.AUDIT, Purpose.OTHER_SEED)
            assert other.of == place
            assert other.prompts == one.prompts
            assert other.seed != one.seed
    fresh = [
        prompt
        for one in (*first, *second)
        if one.purpose is Purpose.AUDIT
        for prompt in one.prompts
    ]
    assert len(set(fresh)) == len(fresh) == 60
    assert not set(fresh) & {prompt for one in plan for prompt in one.prompts}


def test_without_floors_no_other_seed_is_asked_for():
    plan = planned(9)
    added = further(plan, has_floors=False).batches(plan, 6)
    assert {one.purpose for one in added} == {Purpose.AUDIT}


def test_prompts_that_are_used_up_are_an_error():
    plan = planned(2, FEW)
    with pytest.raises(SpeedtrapError, match="few has only"):
        further(plan, FEW).batches(plan, 3)


def test_the_same_secret_gives_the_same_prompts():
    plan = planned(9)
    assert further(plan).batches(plan, 4) == further(plan).batches(plan, 4)
