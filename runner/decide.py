"""Stage 8: whether to go on measuring, and how sure to be at each look.

Whoever looks at growing data until an interval is clear finds one that is clear by chance. So each
look spends a part of the 5 % of error: look k uses intervals at the level 1 - 0.05 / (k (k + 1)),
and since these parts add up to 5 %, the chance that the interval of any look leaves the true value
out is at most that, however many looks there are and however they depend on one another (Boole's
inequality). It is alpha spending (Lan and DeMets, Biometrika 70, 1983) without the joint
distribution, which costs some images and assumes nothing. The number of batches grows by half from
look to look, so that a thousand images are nine looks. How many batches a look adds, and when the
budget is spent, follows from the baseline's seconds alone: no candidate chooses when it ends.
`benchmarks/calibration.py` shows by simulation that the error holds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from runner.records import Decision, NoPromptsError, Purpose

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from runner.prompts import Further
    from runner.records import PlannedBatch, Side

ERROR: Final = 0.05
LOOK_GROWTH: Final = 0.5
TURNS_A_BATCH: Final = 2
MAX_BATCHES: Final = 20_000
"""All images that count are kept in the scorer's and the controller's figures."""


def level(look: int) -> float:
    """Level of the intervals at the `look`-th look at the data, from 1."""
    return 1 - ERROR / (look * (look + 1))


@dataclass(slots=True)
class Decider:
    """Asked after all planned batches, and again after those that it ordered.

    `is_decided` tells, of both sides' records and a level, whether all targets are clearly met or
    one clearly missed. `budget_s` are seconds of both sides' batches, the candidate's taken to be
    as long as the baseline's.
    """

    further: Further
    is_decided: Callable[[Side, Side, float], bool]
    budget_s: float
    looks: int = 0
    ended: str = ""

    def __call__(
        self, plan: Sequence[PlannedBatch], baseline: Side, candidate: Side
    ) -> Sequence[PlannedBatch]:
        """Batches that are to be measured after those of `plan`; none when it is over."""
        self.looks += 1
        if self.is_decided(baseline, candidate, level(self.looks)):
            self.ended = "decided"
            return ()
        done = sum(batch.purpose is Purpose.AUDIT for batch in baseline.batches)
        wanted = min(math.ceil(done * LOOK_GROWTH), self._affordable(baseline), MAX_BATCHES - done)
        self.ended = "budget"
        while wanted > 0:
            try:
                return self.further.batches(plan, wanted)
            except NoPromptsError:
                self.ended = "prompts"
                wanted //= 2
        return ()

    def decision(self) -> Decision:
        """What it came to, for the result."""
        return Decision(looks=self.looks, ended=self.ended, budget_s=self.budget_s)

    def _affordable(self, baseline: Side) -> int:
        """Batches that fit into what is left of the budget, at the baseline's pace."""
        times_s = [batch.time_s for batch in baseline.batches]
        share = TURNS_A_BATCH * math.fsum(times_s) / len(times_s)
        return int((self.budget_s - TURNS_A_BATCH * math.fsum(times_s)) / share)
