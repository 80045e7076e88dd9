"""Stages 5 to 8: one attempt at measuring both sides, and another where it was not their doing."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

from runner import exchange, gpu, sandbox, scorer, verify, weather
from runner.records import (
    Phase,
    Refused,
    Role,
    ScorerError,
    SpeedtrapError,
    Verdict,
    WorkerLostError,
)
from runner.start import Starter

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runner.account import Account
    from runner.gpu import Lease, Nvml, Seen
    from runner.records import Measured, Script

MAX_ATTEMPTS: Final = 4
BACK_OFF_S: Final = 5.0
"""Before the next attempt after an out-of-memory; doubled each time, so that others can finish."""


def witness(scripts: Mapping[Role, Script], account: Account, nvml: Nvml) -> Measured | Refused:
    """Measure both sides on a leased device; again if somebody else's memory was in the way."""
    request = account.device_wanted
    for attempt in range(MAX_ATTEMPTS):
        with ExitStack() as stack:
            with account.phase("lease"):
                lease = stack.enter_context(
                    gpu.lease(request, nvml, account.display.begin, account.crowded)
                )
            account.is_on(lease.device)
            account.before(weather.before(nvml, lease.device))
            watch = stack.enter_context(gpu.Watch(nvml, lease.device.uuid))
            try:
                outcome: Measured | Refused = _measure(scripts, lease, account, nvml)
                again = None
            except WorkerLostError as lost:
                outcome = verify.explain(
                    lost, scripts[lost.role], card_was_full=gpu.was_full(watch.seen)
                )
                again = _what_next(lost, outcome, account, watch.seen)
                if again is None and lost.role is Role.BASELINE:
                    outcome = _without_baseline(outcome, account)
            except ScorerError as failure:
                if not gpu.was_full(watch.seen) or watch.seen.foreign_pids:
                    raise
                again = None
                outcome = Refused(Verdict.OOM, f"the card was full beside it: {failure}")
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
    """Whether the pair may run again; a worker that is lost before its file is our own failure."""
    is_shared = account.order == "alternate"
    again = gpu.after_loss(refused.verdict, lost.phase, seen, shared_with_baseline=is_shared)
    if lost.ending.breach_reason == exchange.LEFT_WORK and seen.foreign_pids:
        message = "another process kept the GPU busy: measure again on a quiet card"
        raise SpeedtrapError(message)
    if lost.phase is Phase.IMPORTS:
        message = (
            f"the {lost.role}'s worker failed before any code of its file ran: {refused.reason}"
        )
        raise SpeedtrapError(message)
    return again


def _without_baseline(refused: Refused, account: Account) -> Refused:
    """The verdict where the baseline failed by the candidate's doing; else it is our failure.

    Its author must not be able to choose exit 2: by a text that the baseline was made from, or by
    taking the memory that the baseline needs.
    """
    if account.job.synthesised is not None:
        reason = f"the baseline made from the candidate's text failed: {refused.reason}"
        return Refused(Verdict.INCONCLUSIVE, f"{reason}; name one with --baseline")
    if refused.verdict is Verdict.OOM and account.order == "alternate":
        reason = "its baseline ran out of the card's memory beside it, after the first timed batch"
        return Refused(Verdict.OOM, f"{reason}: {refused.reason}")
    detail = refused.failure.traceback if refused.failure else ""
    message = f"the baseline failed: {refused.reason}\n{detail}".strip()
    raise SpeedtrapError(message)


def _measure(
    scripts: Mapping[Role, Script], lease: Lease, account: Account, nvml: Nvml
) -> Measured:
    """Start scorer and workers side by side, exchange all batches, and end everything."""
    job = account.job
    account.display.begin("starting scorer and workers")
    with ExitStack() as stack:
        scratch = stack.enter_context(sandbox.scratch_folder())
        station = stack.enter_context(weather.Station(nvml, lease.device))
        judge = stack.enter_context(scorer.start(job.clip, lease.device, job.settings.metrics))
        idle = gpu.Idle(nvml, lease.device.uuid)
        starter = Starter(account, lease, stack, scratch, idle.wait_until_idle, station)
        turns = {role: starter.start(role, script) for role, script in scripts.items()}
        turns[Role.BASELINE] = account.turn(turns[Role.BASELINE])
        with account.phase("imports"):
            exchange.wait_for_imports([turn.side for turn in turns.values()])
            judge.wait_until_loaded()
        with account.phase("exchange"):
            measured = exchange.run(
                turns[Role.BASELINE],
                turns[Role.CANDIDATE],
                exchange.Gallery(list(job.plan), judge, account.more()),
                account.order,
                account.display,
            )
        account.blind(idle, station)
        return measured
