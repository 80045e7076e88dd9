"""What is settled before a device is taken: files, plan, model, sandbox, and what follows."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from runner import compare, live, model_cache, verify
from runner.assemble import Values
from runner.records import Configs, Purpose, Refused, Source, Verdict

if TYPE_CHECKING:
    from pathlib import Path

    from runner.prompts import ClipModel, Further, Preset, PromptSet
    from runner.recall import Memory
    from runner.records import Config, ConfigMatch, Isolation, ModelMount, PlannedBatch
    from runner.settings import Settings


@dataclass(frozen=True, slots=True)
class Job:
    """Everything that is settled before a device is taken.

    `truth` is what the ground truth's text says and `match` the comparison with it, None without
    one. `synthesised` is the text of a baseline that was made here. There is no baseline where none
    was given and none is needed.
    """

    settings: Settings
    preset: Preset
    baseline: Source | None
    candidate: Source | Refused
    prompt_set: PromptSet
    plan: tuple[PlannedBatch, ...]
    audit_seed: int
    audit_source: tuple[str, str]
    further: Further
    clip: ClipModel
    mounts: tuple[ModelMount, ...]
    isolation: Isolation
    bwrap: Path | None
    match: ConfigMatch | None = None
    truth: Config | None = None
    synthesised: str | None = None
    memory: Memory | None = None

    def with_memory(self, memory: Memory) -> Job:
        """The same with a recalled baseline's plan."""
        return replace(self, plan=memory.plan, audit_seed=memory.audit_seed, memory=memory)

    @property
    def refused(self) -> Refused | None:
        """The verdict, where the texts alone tell it."""
        if isinstance(self.candidate, Refused):
            return self.candidate
        if self.match is not None and (reason := compare.reason(self.match)):
            return Refused(Verdict.CONFIG_MISMATCH, f"{self.candidate.path}: {reason}")
        return None

    @property
    def targets(self) -> verify.Targets:
        """What is asked of the candidate."""
        asked = self.settings.target_speedup
        speedup = self.preset.target_speedup if asked is None else asked
        return verify.Targets(speedup, self.settings.target_quality_loss)

    @property
    def values(self) -> Values:
        """What is filled into the script's segments."""
        public = {Purpose.WARM_UP, Purpose.FIXED}
        return Values(
            seed=self.settings.seed,
            batches=[batch for batch in self.plan if batch.purpose in public],
            clip_model=self.clip.name,
            clip_pretrained=self.clip.pretrained,
            models=self.shown,
            build=self.baseline.config if self.baseline else None,
            steps_factor=self.settings.steps_factor,
        )

    @property
    def configs(self) -> Configs:
        """What the texts of both sides say."""
        candidate = self.candidate.config if isinstance(self.candidate, Source) else None
        baseline = self.baseline.config if self.baseline else None
        return Configs(baseline=baseline, candidate=candidate)

    def as_run(self, config: Config) -> Config:
        """What a text says, with the number of steps that it is made to run."""
        return live.with_steps(config, self.settings.steps_factor)

    @property
    def configs_as_run(self) -> Configs:
        """What the texts of both sides say, with the steps that they are made to run."""
        sides = [self.configs.baseline, self.configs.candidate]
        ours, theirs = (None if one is None else self.as_run(one) for one in sides)
        return Configs(baseline=ours, candidate=theirs)

    @property
    def shown(self) -> dict[str, str]:
        """Models that the script has to show itself: none where a sandbox does."""
        cache = model_cache.user_cache(os.environ)
        return model_cache.not_in(cache, self.mounts) if self.isolation.host_files else {}
