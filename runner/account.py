"""The account of one run: what was settled, what happened, and the result made from both."""

from __future__ import annotations

import contextlib
import datetime as dt
import importlib.metadata
import os
import platform
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import psutil

from runner import (
    audit,
    compare,
    decide,
    estimate,
    live,
    model_cache,
    synthesise,
    verify,
    weather,
)
from runner import fidelity as fidelities
from runner.assemble import Values
from runner.decide import Decider
from runner.records import (
    Attempt,
    BaselinePrecision,
    Circumstances,
    Configs,
    Judgement,
    Measured,
    Outcome,
    Purpose,
    Refused,
    Result,
    Source,
    Verdict,
    said,
)
from runner.verify import Evidence

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from runner.exchange import Order
    from runner.gpu import Idle, Watch
    from runner.keep import Keeper
    from runner.progress import Display
    from runner.prompts import ClipModel, Further, Preset, PromptSet
    from runner.records import (
        Config,
        ConfigMatch,
        Decision,
        Device,
        Isolation,
        ModelMount,
        PlannedBatch,
        Reading,
        Readings,
        Side,
    )
    from runner.settings import Settings
    from runner.weather import Station
    from runner.worker import Worker

_NO_FIDELITY = (
    "the images could not be held against a floor: the baseline's do not depend on the seed, or too"
    " few were made. A file that fakes images is not found out; have the baseline draw its noise"
    " from the global generator"
)
_REPORTED_PACKAGES = (
    *("speedtrap", "torch", "diffusers", "transformers", "open_clip_torch", "DeepCache", "tomesd"),
    *("numpy", "pillow"),
)


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
        )

    @property
    def configs(self) -> Configs:
        """What the texts of both sides say."""
        candidate = self.candidate.config if isinstance(self.candidate, Source) else None
        baseline = self.baseline.config if self.baseline else None
        return Configs(baseline=baseline, candidate=candidate)

    @property
    def shown(self) -> dict[str, str]:
        """Models that the script has to show itself: none where a sandbox does."""
        cache = model_cache.user_cache(os.environ)
        return model_cache.not_in(cache, self.mounts) if self.isolation.host_files else {}


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

    def until_decided(self) -> Decider | None:
        """What says whether to go on, if the targets are to be decided; a new one each attempt."""
        settings = self.job.settings
        self.decider = (
            Decider(self.job.further, self._is_decided, settings.budget_s)
            if settings.until_decided
            else None
        )
        return self.decider

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
            outcome = self._marked(outcome)
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
        seen = live.compare(configs, measured, on_cuda=on_cuda) if measured else None
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

    def _marked(self, measured: Measured) -> Measured:
        """The same with what the weather says of each batch, and of what the images took."""
        if self.device is None:
            return measured
        limits = weather.Limits.of(self.device, len(self.device.cores))
        sides = [_in_weather(side, limits) for side in (measured.baseline, measured.candidate)]
        counted = list(zip(*(side.counted for side in sides), strict=True))
        marked = [one.marks + other.marks for one, other in counted if one.marks or other.marks]
        if marked:
            text = f"{len(marked)} of {len(counted)} pairs of batches are in doubt: {marked[0][0]}"
            self.warnings.append(text)
        return replace(measured, baseline=sides[0], candidate=sides[1])

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
        )

    def _circumstances(self) -> Circumstances:
        job, settings = self.job, self.job.settings
        candidate = job.candidate.digest if isinstance(job.candidate, Source) else None
        return Circumstances(
            started_at=self._started_at.isoformat(timespec="seconds"),
            wall_s=time.monotonic() - self._start_s,
            phases_s=self.phases_s,
            candidate_sha256=candidate,
            baseline_sha256=job.baseline.digest if job.baseline else None,
            preset=job.preset.name,
            prompts=job.prompt_set.name,
            prompts_sha256=job.prompt_set.digest,
            prompt_count=len(job.prompt_set.prompts),
            batch_size=settings.batch_size,
            seed=settings.seed,
            audit_seed=job.audit_seed,
            order=self.order,
            clip_model=job.clip.name,
            clip_pretrained=job.clip.pretrained,
            quality_meaningful=job.clip.is_meaningful,
            stand_ins=dict(settings.stand_ins),
            versions=_versions(),
            host=_host(),
            attempts=tuple(self.attempts),
            warnings=(*self._standing_warnings(), *self.warnings),
        )

    def _standing_warnings(self) -> Iterator[str]:
        """What is doubtful about this job whatever happens."""
        if self.job.synthesised and isinstance(self.job.candidate, Source):
            yield from synthesise.doubts(self.job.candidate.config)
        if self.job.settings.until_decided and self.order == "whole":
            yield "--until-decided had no effect: the sides were measured one after the other"
        if self.job.settings.audit_batches == 0:
            yield (
                "without audit batches the numbers stand on public prompts, for which a candidate"
                " can be prepared"
            )
        if self.job.settings.audit_seed is not None:
            yield "the audit seed was given: whoever knows it knows the prompts"
        if not self.job.clip.is_meaningful:
            yield (
                "the CLIP model has random weights: score, accuracy, quality loss and loss are not"
                " meaningful, only the times are"
            )
        for gap in self.job.isolation.gaps:
            yield f"the {self.job.isolation.backend} sandbox leaves a gap: {gap}"
        if self.job.isolation.host_files:
            yield (
                "the candidate ran without isolation: it could read, change and forge anything"
                " that its user can"
            )


def _in_weather(side: Side, limits: weather.Limits) -> Side:
    """The side with its batches marked, and with what the images took."""
    batches = tuple(
        batch.model_copy(update={"marks": weather.marks(batch.weather, limits)})
        if batch.weather
        else batch
        for batch in side.batches
    )
    seen = [(one.weather, len(one.scores)) for one in batches if one.counts and one.weather]
    return side.model_copy(update={"batches": batches, "cost": weather.cost(seen)})


def settle(judgement: Judgement, job: Job, readings: Readings, *, on_cuda: bool) -> Judgement:
    """Demote a judgement where the running pipelines are not what the texts say.

    A reading comes out of an untrusted process, so it never makes a verdict better.
    """
    if judgement.verdict is Verdict.TAMPERED:
        return judgement
    if reason := "; ".join(_unlike_truth(job, readings.candidate, on_cuda=on_cuda)):
        return judgement.without_loss(Verdict.CONFIG_MISMATCH, reason)
    is_settled = judgement.verdict in {Verdict.OK, Verdict.SPEEDUP_TARGET_NOT_MET}
    if is_settled and (fields := _unlike_text(job, readings, on_cuda=on_cuda)):
        reason = (
            "the baseline was made from the candidate's text, but the running pipelines differ in"
            f" {', '.join(fields)}; name a baseline with --baseline"
        )
        return judgement.without_loss(Verdict.INCONCLUSIVE, reason)
    return judgement


def _unlike_truth(job: Job, reading: Reading | None, *, on_cuda: bool) -> Iterator[str]:
    """Where the running candidate differs from the ground truth in what its text does not tell."""
    if job.match is None or job.truth is None or reading is None:
        return
    differing = live.contradicts(job.truth, reading, on_cuda=on_cuda)
    for one in job.match.fields:
        if one.match is Outcome.UNKNOWN and one.field in differing:
            value = said(getattr(reading, one.field, None))
            asked = said(one.ground_truth)
            yield f"{one.field} is {value} in the live pipeline, asked for is {asked}"


def _unlike_text(job: Job, readings: Readings, *, on_cuda: bool) -> list[str]:
    """Fields in which a side differs from the text that a made baseline stands on."""
    if job.synthesised is None:
        return []
    ours, theirs = readings.baseline, readings.candidate
    fields = {
        name
        for config, reading in ((job.configs.baseline, ours), (job.configs.candidate, theirs))
        if config is not None and reading is not None
        for name in live.contradicts(config, reading, on_cuda=on_cuda)
    }
    is_pinned = job.settings.baseline_precision is BaselinePrecision.SAME
    if is_pinned and ours and theirs and _precision(ours) != _precision(theirs):
        fields.add("dtype")
    return sorted(fields)


def _precision(reading: Reading) -> str | None:
    """What is computed in: under autocast and quantisation not what the weights have."""
    return reading.compute_dtype or reading.dtype


def _versions() -> dict[str, str]:
    """Versions of Python and of the packages that make the numbers."""
    versions = {"python": platform.python_version()}
    for name in _REPORTED_PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name.lower()] = importlib.metadata.version(name)
    return versions


def _host() -> dict[str, str | int | float]:
    return {
        "kernel": platform.release(),
        "machine": platform.machine(),
        "logical_cores": os.cpu_count() or 0,
        "memory_bytes": psutil.virtual_memory().total,
        "load_1min": os.getloadavg()[0],
    }
