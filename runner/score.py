"""The spine: one candidate, from file to result. The only place that knows the order."""

from __future__ import annotations

import os
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pydantic import ValidationError

from runner import assemble, check, exchange, gpu, model_cache, prompts, sandbox, scorer, verify
from runner import worker as workers
from runner.account import Account, Job
from runner.assemble import Form
from runner.keep import Keeper
from runner.progress import Silent
from runner.records import Phase, Refused, Role, SpeedtrapError, Verdict, WorkerLostError
from runner.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runner.gpu import Lease, Nvml, Seen
    from runner.progress import Display
    from runner.records import Measured, Result, Script

MAX_ATTEMPTS: Final = 4
BACK_OFF_S: Final = 5.0
"""Before the next attempt after an out-of-memory; doubled each time, so that others can finish."""


def score(candidate: str | Path, baseline: str | Path, **options: Any) -> Result:  # noqa: ANN401
    """Score `candidate` against `baseline`; `options` are the other fields of `Settings`.

    Returns the result, whatever the verdict. Raises `SpeedtrapError` when we failed: no device, no
    sandbox, a baseline that does not run, an option that does not exist or does not fit.
    """
    try:
        settings = Settings(Path(candidate), Path(baseline), **options)
    except ValidationError as error:
        first = error.errors()[0]
        message = f"option {'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise SpeedtrapError(message) from error
    return run(settings, Silent())


def run(settings: Settings, display: Display) -> Result:
    """Score by `settings`, telling `display` what goes on."""
    account = Account(prepare(settings), Keeper(settings.keep), display)
    scripts = write_scripts(account.job)
    if isinstance(scripts, Refused):
        return account.result(scripts)
    for role, script in scripts.items():
        account.keeper.text(role, "tmp.py", script.text)
    return account.result(witness(scripts, account, gpu.PyNvml()))


def prepare(settings: Settings) -> Job:
    """Read both files and settle everything that follows from them and from the settings."""
    baseline = check.read(settings.baseline)
    if isinstance(baseline, Refused):
        message = f"the baseline cannot be used: {baseline.reason}"
        raise SpeedtrapError(message)
    preset = prompts.choose_preset(settings.preset, baseline.models)
    prompt_set = prompts.load(settings.prompts or preset.prompts)
    mounts = model_cache.mounts(model_cache.user_cache(os.environ), settings.stand_ins)
    if absent := model_cache.missing(baseline.models, mounts):
        message = f"the baseline cannot be used: {model_cache.remedy(absent[0])}"
        raise SpeedtrapError(message)
    isolation, bwrap = sandbox.find_isolation(settings.sandbox)
    return Job(
        settings=settings,
        preset=preset,
        baseline=baseline,
        candidate=check.read(settings.candidate),
        prompt_set=prompt_set,
        plan=prompts.plan(prompt_set, settings.batch_size, settings.seed),
        clip=prompts.parse_clip(settings.clip) if settings.clip else preset.clip,
        mounts=mounts,
        isolation=isolation,
        bwrap=bwrap,
    )


def write_scripts(job: Job) -> dict[Role, Script] | Refused:
    """Assemble both sides' scripts; refused when the candidate's cannot be, or lacks its model."""
    if isinstance(job.candidate, Refused):
        return job.candidate
    if absent := model_cache.missing(job.candidate.models, job.mounts):
        reason = f"{job.candidate.path}: {model_cache.remedy(absent[0])}"
        return Refused(Verdict.CRASHED, reason)
    scripts = {}
    for role, source in ((Role.BASELINE, job.baseline), (Role.CANDIDATE, job.candidate)):
        script = assemble.assemble(source, Form.WITNESSED, job.values)
        if isinstance(script, Refused):
            return script
        scripts[role] = script
    return scripts


def witness(scripts: Mapping[Role, Script], account: Account, nvml: Nvml) -> Measured | Refused:
    """Measure both sides on a leased device; again if somebody else's memory was in the way."""
    settings = account.job.settings
    request = gpu.Request.parse(settings.device, settings.wait_s)
    for attempt in range(MAX_ATTEMPTS):
        with ExitStack() as stack:
            with account.phase("lease"):
                lease = stack.enter_context(
                    gpu.lease(request, nvml, account.display.begin, account.crowded)
                )
            account.device = lease.device
            watch = stack.enter_context(gpu.Watch(nvml, lease.device.uuid))
            try:
                outcome: Measured | Refused = _measure(scripts, lease, account)
                again = None
            except WorkerLostError as lost:
                outcome = verify.explain(lost, scripts[lost.role])
                again = _what_next(lost, outcome, account, watch.seen)
            account.attempted(outcome, watch)
        if again is None:
            break
        account.order = "whole" if again.alone else "alternate"
        if again.avoid_card:
            account.crowded |= {lease.device.uuid or ""}
            time.sleep(BACK_OFF_S * 2**attempt)
    return outcome


def _what_next(
    lost: WorkerLostError, refused: Refused, account: Account, seen: Seen
) -> gpu.Again | None:
    """Whether the pair may run again; without that, a lost baseline is our own failure."""
    is_shared = account.order == "alternate"
    again = gpu.after_loss(refused.verdict, lost.phase, seen, shared_with_baseline=is_shared)
    if lost.phase is Phase.IMPORTS:
        message = (
            f"the {lost.role}'s worker failed before any code of its file ran: {refused.reason}"
        )
        raise SpeedtrapError(message)
    if again is None and lost.role is Role.BASELINE:
        detail = refused.failure.traceback if refused.failure else ""
        message = f"the baseline failed: {refused.reason}\n{detail}".strip()
        raise SpeedtrapError(message)
    return again


def _measure(scripts: Mapping[Role, Script], lease: Lease, account: Account) -> Measured:
    """Start scorer and workers side by side, exchange all batches, and end everything."""
    job = account.job
    account.display.begin("starting scorer and workers")
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="speedtrap-")))
        judge = stack.enter_context(scorer.start(job.clip, lease.device))
        turns = {}
        for role, script in scripts.items():
            box = sandbox.Box(
                isolation=job.isolation,
                bwrap=job.bwrap,
                models=job.mounts,
                readable=job.settings.readable,
                gpu_minor=lease.minor,
                gpu_uuid=lease.device.uuid,
                folder=scratch / role,
            )
            side = workers.start(role, box.prepare(script.text), job.settings.memory_limit())
            stack.callback(account.keep_output, side)
            stack.enter_context(side)
            turns[role] = exchange.Turn(
                side, judge, account.keeper.images, job.settings.timeout_s, []
            )
        with account.phase("imports"):
            exchange.wait_for_imports([turn.side for turn in turns.values()])
            judge.wait_until_loaded()
        with account.phase("exchange"):
            return exchange.run(
                turns[Role.BASELINE],
                turns[Role.CANDIDATE],
                job.plan,
                account.order,
                account.display,
            )


def emit(candidate: Path, settings: Settings) -> str | Refused:
    """Return the standalone `tmp.py` of `candidate`, which anyone can run with `python tmp.py`.

    `settings` gives preset, prompts, CLIP model, batch size and seed; without a preset, the
    candidate's own models choose it.
    """
    source = check.read(candidate)
    if isinstance(source, Refused):
        return source
    preset = prompts.choose_preset(settings.preset, source.models)
    plan = prompts.plan(
        prompts.load(settings.prompts or preset.prompts), settings.batch_size, settings.seed
    )
    clip = prompts.parse_clip(settings.clip) if settings.clip else preset.clip
    cache = model_cache.user_cache(os.environ)
    shown = model_cache.not_in(cache, model_cache.mounts(cache, settings.stand_ins))
    if prompts.TINY_SD not in (*source.models, *settings.stand_ins):
        del shown[prompts.TINY_SD]
    name = scorer.resolve(clip.name)
    values = assemble.Values(settings.seed, plan, name, clip.pretrained, shown)
    script = assemble.assemble(source, Form.STANDALONE, values)
    return script if isinstance(script, Refused) else script.text
