"""Stage 9: demote a judgement where the running pipelines are not what the texts say."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runner import live
from runner.records import BaselinePrecision, Outcome, Verdict, said

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runner.job import Job
    from runner.records import Judgement, Reading, Readings


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
