"""The account of one run: what was settled, what happened, and the result made from both."""

from __future__ import annotations

import contextlib
import datetime as dt
import importlib.metadata
import os
import platform
import re
import secrets
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import psutil

from runner import (
    audit,
    compare,
    decide,
    doubt,
    estimate,
    gpu,
    live,
    model_cache,
    prompts,
    recall,
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
from runner.settings import MAX_AUDIT_SEED
from runner.verify import Evidence

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from runner.exchange import More, Order, Turn
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
_CUDA: Final = re.compile(r"^cuda\b[^=\n]*= *['\"]([^'\"]+)['\"]", re.MULTILINE)
"""In torch/version.py, which its build writes."""


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
    memory: recall.Memory | None = None

    def with_memory(self, memory: recall.Memory) -> Job:
        """The same with a recalled baseline's plan; batches beyond it are drawn afresh."""
        further = prompts.Further.after(
            memory.plan,
            self.further.source,
            secrets.randbelow(MAX_AUDIT_SEED),
            has_floors=self.further.has_floors,
        )
        seed = memory.audit_seed
        return replace(self, plan=memory.plan, audit_seed=seed, further=further, memory=memory)

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
    def device_wanted(self) -> str:
        """What `--device` says; of several cards, the one that a recalled baseline ran on."""
        wanted, memory = self.job.settings.device, self.job.memory
        ran_on = memory.result.device if memory is not None else None
        is_open = wanted in {"auto", "cuda"}
        if is_open and ran_on is not None and ran_on.index is not None:
            return f"cuda:{ran_on.index}"
        return wanted

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
        if again := doubt.second_goes(plan, baseline, self._limits):
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
        measured = self._corrected(measured)
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
            steps_factor=settings.steps_factor,
            seed=settings.seed,
            audit_seed=job.audit_seed,
            audit_batches=sum(batch.purpose is Purpose.AUDIT for batch in job.plan),
            audit_prompts_sha256=job.audit_source[1],
            allow_untied=settings.allow_untied,
            baseline_precision=settings.baseline_precision if job.synthesised else None,
            metrics=settings.metrics,
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
        if self.job.memory is not None:
            yield (
                "the prompts come from a baseline cache, the same for every run that uses it:"
                " whoever sees a kept log, a traceback or the audit seed of one knows those of the"
                " next"
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
    differing = live.contradicts(job.as_run(job.truth), reading, on_cuda=on_cuda)
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
    texts = job.configs_as_run
    fields = {
        name
        for config, reading in ((texts.baseline, ours), (texts.candidate, theirs))
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
    if cuda := _cuda_version():
        versions["cuda"] = cuda
    return versions


def _cuda_version() -> str | None:
    """Version of CUDA that torch was built for, read without importing it."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError, OSError, UnicodeError):
        path = Path(str(importlib.metadata.distribution("torch").locate_file("torch/version.py")))
        found = _CUDA.search(path.read_text(encoding="utf-8"))
        return found[1] if found else None
    return None


def _host() -> dict[str, str | int | float]:
    return {
        "kernel": platform.release(),
        "machine": platform.machine(),
        "cpu": gpu.cpu_name(),
        "omp_num_threads": os.environ.get("OMP_NUM_THREADS", ""),  # the sandbox passes it on
        "logical_cores": os.cpu_count() or 0,
        "memory_bytes": psutil.virtual_memory().total,
        "load_1min": os.getloadavg()[0],
    }
