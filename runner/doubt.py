"""Stage 8: batches whose time is in doubt, and the second go that the baseline gets.

`weather.marks` says whose time should not be believed. Where it is the *baseline's* alone of a pair
that counts, the baseline runs that batch once more at the end, on the same prompts with the same
seed. The seconds of the second go stand in for those in doubt where nothing marks them and they are
fewer: what disturbs a batch makes it slower, and nothing that a candidate leaves behind for the end
may pay. The baseline is trusted: it gains nothing from having seen the prompts. Where both halves
of a pair are in doubt, they were disturbed alike, and a fair half beside a disturbed one would be
worse.

The *candidate* gets no second go. It may have caused its own marks (heat, load that is nobody's),
and whoever can have batches dropped chooses which ones count. For the same reason no pair is
dropped because the baseline's half is in doubt, which a candidate can bring about too, by heating
its card. What stays in doubt stays in the numbers, and they say so.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from runner import weather
from runner.records import FirstGo, Purpose

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from runner.records import Batch, PlannedBatch, Side
    from runner.weather import Limits


def second_goes(
    plan: Sequence[PlannedBatch], baseline: Side, candidate: Side, limits: Limits
) -> list[PlannedBatch]:
    """Batches to add to `plan`: a second go for each of the baseline's that is in doubt alone.

    Both sides have run the whole plan.
    """
    known = {one.of for one in plan if one.purpose is Purpose.AGAIN}
    ours, theirs = marked(baseline, limits), marked(candidate, limits)
    places = [place for place, batch in enumerate(ours.batches) if batch.counts]
    pairs = zip(places, ours.counted, theirs.counted, strict=True)
    return [
        replace(plan[place], purpose=Purpose.AGAIN, of=place)
        for place, one, other in pairs
        if one.marks and not other.marks and not one.recalled and place not in known
    ]


def marked(side: Side, limits: Limits) -> Side:
    """The side with its batches marked."""
    batches = tuple(_marked(batch, limits) for batch in side.batches)
    return side.model_copy(update={"batches": batches})


def _marked(batch: Batch, limits: Limits) -> Batch:
    if batch.weather is None or batch.recalled:  # recalled ones were marked where they were run
        return batch
    return batch.model_copy(update={"marks": weather.marks(batch.weather, limits)})


def settled(side: Side, limits: Limits) -> Side:
    """The side with its batches marked, fair second goes in, and what its images took."""
    batches = marked(side, limits).batches
    fair = [batch for batch in batches if batch.purpose is Purpose.AGAIN and not batch.marks]
    again = {batch.of: batch for batch in fair}
    stands = tuple(_better(batch, again.get(place)) for place, batch in enumerate(batches))
    counted = [batch for batch in stands if batch.counts]
    time_s = math.fsum(batch.time_s for batch in counted)
    ran = [batch for batch in counted if not batch.recalled]
    cost = weather.cost([(one.weather, len(one.scores)) for one in ran if one.weather])
    return side.model_copy(update={"batches": stands, "time_s": time_s, "cost": cost})


def _better(batch: Batch, again: Batch | None) -> Batch:
    """The batch, or its second go where it was in doubt and took longer than that."""
    if again is None or not batch.marks or again.time_s > batch.time_s:
        return batch
    first = FirstGo(time_s=batch.time_s, marks=batch.marks, weather=batch.weather)
    news = {"time_s": again.time_s, "weather": again.weather, "marks": (), "first_go": first}
    return batch.model_copy(update=news)


def doubts(baseline: Side, candidate: Side) -> Iterator[str]:
    """What to warn of: pairs that are in doubt, and those that were measured once more."""
    pairs = list(zip(baseline.counted, candidate.counted, strict=True))
    marks = [one.marks + other.marks for one, other in pairs if one.marks or other.marks]
    if marks:
        yield f"{len(marks)} of {len(pairs)} pairs of batches are in doubt: {marks[0][0]}"
    firsts = [one.first_go for one, _ in pairs if one.first_go]
    if firsts:
        yield (
            f"{len(firsts)} of {len(pairs)} batches of the baseline were in doubt, and their second"
            f" go counts instead: {firsts[0].marks[0]}"
        )
