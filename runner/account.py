"""The account of one run: what happened while a job ran, and the result made from both."""

from __future__ import annotations

import contextlib
import datetime as dt
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from runner import (
    audit,
    decide,
    doubt,
    estimate,
    gpu,
    live,
    recall,
    verify,
    weather,
)
from runner import fidelity as fidelities
from runner.circumstances import During, circumstances
from runner.decide import Decider
from runner.records import (
    Attempt,
    Circumstances,
    Judgement,
    Measured,
    Refused,
    Result,
    Verdict,
)
from runner.settle import settle
from runner.verify import Evidence

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from runner.exchange import More, Order, Turn
    from runner.gpu import Idle, Watch
    from runner.job import Job
    from runner.keep import Keeper
    from runner.progress import Display
    from runner.records import (
        Decision,
        Device,
        PlannedBatch,
        Side,
    )
    from runner.weather import Station
    from runner.worker import Worker

_NO_FIDELITY = (
    "the images could not be held against a floor: the baseline's do not depend on the seed, or too"
    " few were made. A file that fakes images is not found out; have the baseline draw its noise"
    " from the global generator"
)


@dataclass(slots=True)
class Account:
    """What happens while a job runs; tells the display, keeps the files, makes the result.

    `crowded` holds the UUIDs of cards on which somebody else's memory was in the way.
    """

    job: Job
    keeper: Keeper
    display: Display
    device: Device | None = None
    order: Order = "alternate"
    crowded: frozenset[str] = frozenset()
    attempts: list[Attempt] = field(default_factory=list)
    phases_s: dict[str, float] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    decider: Decider | None = None
    recalled: recall.Recalled | None = None
    _started_at: dt.datetime = field(default_factory=lambda: dt.datetime.now(tz=dt.UTC))
    _start_s: float = field(default_factory=time.monotonic)

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time what happens inside, under `name`."""
        start_s = time.monotonic()
        try:
            yield
        finally:
            elapsed_s = time.monotonic() - start_s
            self.phases_s[name] = self.phases_s.get(name, 0.0) + elapsed_s

    def attempted(self, outcome: Measured | Refused, watch: Watch) -> None:
        """Record one run of the pair and what was seen on its card."""
        device, seen = self.device, watch.seen
        self.attempts.append(
            Attempt(
                device=(device.uuid or device.kind) if device else "",
                verdict=outcome.verdict if isinstance(outcome, Refused) else Verdict.OK,
                order=self.order,
                foreign_bytes=seen.foreign_bytes,
            )
        )
        if watch.blind_because:
            self.warnings.append(
                f"the card could not be watched for other processes: {watch.blind_because}"
            )
        if seen.foreign_pids:
            pids = ", ".join(map(str, sorted(seen.foreign_pids)))
            self.warnings.append(
                f"another process ({pids}) used the GPU during the measurement: the times are in"
                " doubt, measure again on a quiet card"
            )

    def before(self, marks: Sequence[str]) -> None:
        """Warn of what is wrong with the machine before anything of ours runs."""
        self.warnings.extend(f"before the measurement, {mark}" for mark in marks)

    def blind(self, idle: Idle, station: Station) -> None:
        """Warn of what cannot be seen: the card, or work that a side leaves on it."""
        if station.blind_because:
            self.warnings.append(
                f"clocks, temperature and energy could not be read: {station.blind_because}"
            )
        if idle.blind_because:
            self.warnings.append(
                "work that a file leaves on the GPU after its images could not be seen:"
                f" {idle.blind_because}"
            )

    def use(self, memory: recall.Memory) -> None:
        """Recall the baseline from `memory`; raises `SpeedtrapError` if it may not be used here."""
        settings = self.job.settings
        if settings.audit_seed is None:
            self.job = replace(self.job, audit_seed=memory.audit_seed)
        recall.require_same(memory, self._setting_out())
        self.job = self.job.with_memory(memory)

    @property
    def device_wanted(self) -> gpu.Request:
        """What `--device` says; of several cards, the one that a recalled baseline ran on."""
        memory = self.job.memory
        ran_on = memory.result.device if memory is not None else None
        request = gpu.Request.parse(self.job.settings.device, self.job.settings.wait_s)
        return replace(request, only=ran_on.uuid if ran_on else None)

    def is_on(self, device: Device) -> None:
        """Note the device; raises `SpeedtrapError` if a recalled baseline may not be used on it."""
        self.device = device
        if self.job.memory is not None:
            recall.require_same(self.job.memory, self._setting_out())

    def _setting_out(self) -> Result:
        """What can be said of the run before anything is measured."""
        targets = self.job.targets
        return Result(
            verdict=Verdict.INCONCLUSIVE,
            reason="not measured yet",
            passed=False,
            target_speedup=targets.speedup,
            target_quality_loss=targets.quality_loss,
            device=self.device,
            isolation=self.job.isolation,
            circumstances=self._circumstances(),
        )

    def turn(self, baseline: Turn) -> Turn:
        """The baseline's turn, recalled if there is a cache."""
        memory = self.job.memory
        self.recalled = None if memory is None else recall.Recalled.of(baseline, memory)
        return self.recalled or baseline

    def _corrected(self, measured: Measured) -> Measured:
        """The same with what a recalled baseline's live batches say of the others."""
        return self.recalled.corrected(measured) if self.recalled else measured

    def more(self) -> More:
        """What is asked for batches after those of the plan; to be called anew for each attempt."""
        settings = self.job.settings
        self.decider = (
            Decider(self.job.further, self._is_decided, settings.budget_s)
            if settings.until_decided
            else None
        )
        return self._more

    def _more(
        self, plan: Sequence[PlannedBatch], baseline: Side, candidate: Side
    ) -> Sequence[PlannedBatch]:
        """Second goes first; then, if the targets are to be decided, what that takes."""
        if again := doubt.second_goes(plan, baseline, candidate, self._limits):
            return again
        if self.decider is None:
            return ()
        return self.decider(plan, doubt.settled(baseline, self._limits), candidate)

    @property
    def _limits(self) -> weather.Limits:
        assert self.device is not None  # something was measured on it
        return weather.Limits.of(self.device, len(self.device.cores))

    def _is_decided(self, baseline: Side, candidate: Side, level: float) -> bool:
        measured = Measured(baseline, candidate, claim_stdout="", order=self.order)
        return verify.is_decided(self._of_images(measured, level), self.job.targets)

    def keep_output(self, worker: Worker) -> None:
        """Keep what a worker printed."""
        stdout, stderr = worker.output()
        self.keeper.log(worker.role, "stdout.txt", stdout)
        self.keeper.log(worker.role, "stderr.txt", stderr)

    def result(self, outcome: Measured | Refused) -> Result:
        """Make the result from what was measured, or from the refusal; keep it and return it."""
        targets = self.job.targets
        if isinstance(outcome, Measured):
            outcome = self._corrected(self._settled(outcome))
        if isinstance(outcome, Refused):
            measured, failure, evidence = None, outcome.failure, None
            judgement = Judgement(outcome.verdict, outcome.reason)
        else:
            decider = self.decider
            looks = decider.looks if decider else 0
            level = decide.level(looks) if looks else estimate.LEVEL
            measured, failure, evidence = outcome, None, self._evidence(outcome, level)
            judgement = verify.judge(evidence, targets)
        on_cuda = self.device is not None and self.device.kind == "cuda"
        configs = self.job.configs
        as_run = self.job.configs_as_run
        seen = live.compare(as_run, measured, on_cuda=on_cuda) if measured else None
        if seen is not None:
            judgement = settle(judgement, self.job, seen.readings, on_cuda=on_cuda)
        if judgement.quality_loss_ci and self.job.clip.is_meaningful:
            self.warnings.extend(filter(None, [verify.too_good(judgement.quality_loss_ci)]))
        accuracy = judgement.accuracy
        result = Result(
            verdict=judgement.verdict,
            reason=judgement.reason,
            passed=judgement.verdict is Verdict.OK,
            speedup=judgement.speedup,
            speedup_ci=judgement.speedup_ci,
            credited_speedup=judgement.credited_speedup,
            accuracy=accuracy,
            quality_loss=None if accuracy is None else 1 - accuracy,
            quality_loss_ci=judgement.quality_loss_ci,
            confidence=judgement.confidence,
            speed_achievement=judgement.speed_achievement,
            accuracy_achievement=judgement.accuracy_achievement,
            loss=judgement.loss,
            loss_ci=judgement.loss_ci,
            target_speedup=targets.speedup,
            target_quality_loss=targets.quality_loss,
            decision=self._decision(),
            drift=evidence.drift if evidence else None,
            baseline=measured.baseline if measured else None,
            candidate=measured.candidate if measured else None,
            claim=judgement.claim,
            audit=evidence.audit if evidence else None,
            fidelity=evidence.fidelity if evidence else None,
            distances=measured.distances if measured else None,
            config=configs,
            config_match=self.job.match,
            synthesised_baseline=self.job.synthesised,
            live=seen.readings if seen else None,
            contradictions=seen.contradictions if seen else (),
            no_ops=seen.no_ops if seen else (),
            failure=failure,
            device=self.device,
            isolation=self.job.isolation,
            circumstances=self._circumstances(),
        )
        self.keeper.result(result)
        return result

    def _settled(self, measured: Measured) -> Measured:
        """The same with what the weather says of each batch, and of what the images took."""
        if self.device is None:
            return measured
        baseline = doubt.settled(measured.baseline, self._limits)
        candidate = doubt.settled(measured.candidate, self._limits)
        self.warnings.extend(doubt.doubts(baseline, candidate))
        return replace(measured, baseline=baseline, candidate=candidate)

    def _decision(self) -> Decision | None:
        return self.decider.decision() if self.decider and self.decider.ended else None

    def _evidence(self, measured: Measured, level: float) -> Evidence:
        """What comes of comparing batches and images."""
        job = self.job
        evidence = self._of_images(measured, level)
        if evidence.has_quality and evidence.fidelity is None and evidence.allow_untied:
            self.warnings.append(_NO_FIDELITY)
        return replace(
            evidence,
            audit=audit.judge(measured, job.audit_seed, job.audit_source),
            duplicates=fidelities.duplicates(measured),
        )

    def _of_images(self, measured: Measured, level: float) -> Evidence:
        """What comes of comparing images. Random CLIP weights say nothing of them."""
        job = self.job
        fidelity = fidelities.judge(measured) if job.clip.is_meaningful else None
        return Evidence(
            measured,
            scores=fidelities.scores(measured, fidelity),
            fidelity=fidelity,
            allow_untied=job.settings.allow_untied,
            has_quality=job.clip.is_meaningful,
            level=level,
            least_images=verify.SAFE_IMAGES if self.decider and self.order == "alternate" else 0,
            drift=self.recalled.drift(measured.baseline) if self.recalled else None,
        )

    def _circumstances(self) -> Circumstances:
        during = During(
            started_at=self._started_at,
            start_s=self._start_s,
            phases_s=self.phases_s,
            order=self.order,
            attempts=self.attempts,
            warnings=self.warnings,
        )
        return circumstances(self.job, during)
