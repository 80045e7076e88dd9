"""Stage 8: whether to go on measuring, and how sure to be at each look.

Whoever looks at growing data until an interval is clear finds one that is clear by chance. So each
look spends a part of the 5 % of error: look k uses intervals at the level 1 - 0.05 / (k (k + 1)),
and since these parts add up to 5 %, the chance that the interval of any look leaves the true value
out is at most that, however many looks there are and however they depend on one another (Boole's
inequality). It is alpha spending (Lan and DeMets, Biometrika 70, 1983) without the joint
distribution, which costs some images and assumes nothing. The number of batches grows by half from
look to look, so that a thousand images are a dozen looks.
`benchmarks/calibration.py` shows by simulation that the error holds.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from runner.records import Decision, Purpose, SpeedtrapError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from runner.prompts import Further
    from runner.records import PlannedBatch, Side

ERROR: Final = 0.05
LOOK_GROWTH: Final = 0.5
MAX_BATCHES: Final = 20_000
"""All images that count are kept in the scorer's and the controller's figures."""


def level(look: int) -> float:
    """Level of the intervals at the `look`-th look at the data, from 1."""
    return 1 - ERROR / (look * (look + 1))


@dataclass(slots=True)
class Decider:
    """Asked after all planned batches, and again after those that it ordered.

    `is_decided` tells, of both sides' records and a level, whether all targets are clearly met or
    one clearly missed. `budget_s` runs from the making of this object.
    """

    further: Further
    is_decided: Callable[[Side, Side, float], bool]
    budget_s: float
    looks: int = 0
    ended: str = ""
    _start_s: float = field(default_factory=time.monotonic)

    def __call__(
        self, plan: Sequence[PlannedBatch], baseline: Side, candidate: Side
    ) -> Sequence[PlannedBatch]:
        """Batches that are to be measured after those of `plan`; none when it is over."""
        self.looks += 1
        if self.is_decided(baseline, candidate, level(self.looks)):
            self.ended = "decided"
            return ()
        done = sum(batch.purpose is Purpose.AUDIT for batch in candidate.batches)
        wanted = min(math.ceil(done * LOOK_GROWTH), self._affordable(candidate), MAX_BATCHES - done)
        if wanted < 1:
            self.ended = "budget"
            return ()
        try:
            return self.further.batches(plan, wanted)
        except SpeedtrapError:  # there are not so many prompts that were not used
            self.ended = "prompts"
            return ()

    def decision(self) -> Decision:
        """What it came to, for the result."""
        return Decision(looks=self.looks, ended=self.ended, budget_s=self.budget_s)

    def _affordable(self, candidate: Side) -> int:
        """Pairs of batches that fit into what is left of the budget, by those so far."""
        elapsed_s = time.monotonic() - self._start_s
        return int((self.budget_s - elapsed_s) / (elapsed_s / len(candidate.batches)))
