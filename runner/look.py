"""Load two files' pipelines in the sandbox, run no batch, and compare what stands there."""

from __future__ import annotations

import dataclasses
from contextlib import ExitStack
from typing import TYPE_CHECKING

from runner import exchange, gpu, live, prepare, sandbox, verify
from runner.account import Account
from runner.keep import Keeper
from runner.records import Phase, Refused, Role, SpeedtrapError, Verdict, WorkerLostError
from runner.start import Starter

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runner.progress import Display
    from runner.settings import Settings


def look(settings: Settings, display: Display) -> list[str] | Refused:
    """Load both files' pipelines in the sandbox and compare them: what differs, as sentences.

    The files' texts are not compared. Raises `SpeedtrapError` as `score` does.
    """
    account = Account(prepare.prepare(settings), Keeper(settings.keep), display)
    job = account.job
    scripts = prepare.write_scripts(job, dataclasses.replace(job.values, batches=(), deep=True))
    if isinstance(scripts, Refused):
        return scripts
    request = gpu.Request.parse(settings.device, settings.wait_s)
    try:
        with ExitStack() as stack:
            scratch = stack.enter_context(sandbox.scratch_folder())
            lease = stack.enter_context(gpu.lease(request, gpu.PyNvml(), display.begin))
            starter = Starter(account, lease, stack, scratch)
            turns = {role: starter.start(role, script) for role, script in scripts.items()}
            display.begin("loading both pipelines")
            exchange.wait_for_imports([turn.side for turn in turns.values()])
            reports = {role: exchange.look(turn) for role, turn in turns.items()}
    except WorkerLostError as lost:
        refused = verify.explain(lost, scripts[lost.role], card_was_full=False)
        if lost.role is Role.BASELINE or lost.phase is Phase.IMPORTS:
            message = f"the {lost.role} failed: {refused.reason}"
            raise SpeedtrapError(message) from lost
        return refused
    return _compare_reports(reports, settings)


def _compare_reports(
    reports: Mapping[Role, bytes | None], settings: Settings
) -> list[str] | Refused:
    baseline = live.read_deep(reports[Role.BASELINE])
    candidate = live.read_deep(reports[Role.CANDIDATE])
    if isinstance(baseline, live.NoReading):
        message = f"the pipeline of {settings.baseline} cannot be read: {baseline.reason}"
        raise SpeedtrapError(message)
    if isinstance(candidate, live.NoReading):
        reason = f"{settings.candidate}: its pipeline cannot be read: {candidate.reason}"
        return Refused(Verdict.CRASHED, reason)
    return live.compare_deep(baseline, candidate)
