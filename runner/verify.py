"""Stage 9: what the record comes to. Explain a failure, or judge the numbers."""

from __future__ import annotations

import math
import re
import signal
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from runner import estimate, loss
from runner.records import Claim, Failure, Judgement, Phase, Refused, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from runner.estimate import Estimate
    from runner.records import (
        Audit,
        Drift,
        Ending,
        Fidelity,
        Measured,
        Script,
        Side,
        WorkerLostError,
    )

EXIT_BAD_OUTPUT: Final = 64
"""Exit status with which the exec block refuses what `inference` returned."""
EXIT_NO_INTERFACE: Final = 65
"""Exit status with which the exec block says that there is nothing to call."""

EXIT_USAGE: Final = 2
"""Exit status with which argparse and click refuse a command line."""

CLAIM_TIME_SHARE: Final = 0.2
CLAIM_TIME_S_PER_BATCH: Final = 0.1
CLAIM_OVERHEADS: Final = 4.0
"""A claim's clock stops at the last synchronisation, the witness's after conversion to pixels and
transfer, and a process that was stopped wakes first: milliseconds a batch, on a busy host up to
seconds. How long that takes here and now, the baseline's claim shows. The claim is never used as a
number, so the tolerance may be wide; it has to tell a different clock from a slow pipe."""
CLAIM_SCORE: Final = 1e-3
"""The script prints the mean of scores that it was sent: only rounding may differ."""

LEFT_IN_BATCHES: Final = 20
LEFT_BY_BASELINE_S: Final = 0.5
"""A baseline gains nothing by work after its images. NVML's windows last 0.02 to 0.2 s."""

TOO_GOOD: Final = 0.005
"""Of the CLIP score. On the embedded model those honest methods that gain most, guidance 5 and
bfloat16, gain 0.3 and 0.5 %, in intervals that reach below this in 99 of 100 runs of 15 images."""
EVEN_SHARE: Final = 0.95
"""Of the median: when all batches together are so much faster, they are of one kind."""
SAFE_IMAGES: Final = 200
"""A good method spoils one image in forty: fewer hold too few of them for an interval to know, and
who goes on until it looks good stops where there were none. See docs/method.md."""
MORE: Final = "measure more prompts: --until-decided, a longer --budget, or --audit-batches N"
MAX_DRIFT: Final = 0.1
"""From a cached baseline to its live batches. Who is slower by more is another machine by now."""
LEAST_PSNR_DB: Final = 30.0
"""Of a baseline's live images against its cached ones: not every GPU makes the same last bit."""
ROUNDING: Final = 1e-9
"""A target is reached exactly at it; 1 - 98/100 is not quite 0.02 in binary."""
_EXTENSIONS = re.compile(r"^Extension modules: .*$", re.MULTILINE)
"""A line of kilobytes that the fault handler ends with."""
TRACEBACK_CHARS: Final = 20_000

_OURS: Final = "speedtrap: "
_SIGNAL_BASE: Final = 128

_CLAIM = re.compile(r"(\d{1,9}\.\d{6}),(\d{1,3}\.\d{6})")
_FRAME = re.compile(r'File "(?:[^"\n]*/)?tmp\.py", line (\d{1,9})\b')
_EXCEPTION = re.compile(
    r"(?:[A-Za-z_][\w.]*)?(?:Error|Exception|Interrupt|Exit|Warning|Group)(?::.*)?$"
)
_USAGE = re.compile(r"^(?:candidate\.py: error|Error): (.*)$", re.MULTILINE)
_OOM = re.compile(
    r"OutOfMemoryError|CUDA out of memory|CUDA error: out of memory|CUBLAS_STATUS_ALLOC_FAILED"
)
_IGNORED = re.compile(
    r"^Exception ignored in: .*\n(?:Traceback .*\n(?:[ \t].*\n)*(?:\S.*\n?)?)?", re.MULTILINE
)
"""An exception that Python printed and went on, from a destructor or at its exit."""


@dataclass(frozen=True, slots=True)
class Targets:
    """What is asked of a candidate."""

    speedup: float
    quality_loss: float


def explain(lost: WorkerLostError, script: Script, *, card_was_full: bool) -> Refused:
    """Turn the end of a worker into a verdict, in terms of the candidate's own file.

    `card_was_full` is what NVML saw; what a process says of memory does not make it an `oom`.
    """
    ending = lost.ending
    line = _own_line(ending.stderr, script)
    verdict, message = _why(ending, lost.phase, card_was_full=card_was_full)
    where = f"{script.source}:{line}: " if line is not None else f"{script.source}: "
    return Refused(
        verdict,
        where + message,
        Failure(
            file=str(script.source),
            line=line,
            phase=lost.phase,
            message=message,
            traceback=_traceback(ending.stderr, script),
        ),
    )


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was found out about the measured sides.

    `scores` are the CLIP scores of the candidate's images that count, 0 for those that are not like
    the baseline's. `allow_untied`: see `Settings`. Without
    `has_quality` (random CLIP weights) images are not judged. `level` is that of the intervals.
    From fewer than `least_images` the targets are not called met. `drift` is that of a recalled
    baseline, whose seconds in `measured` are corrected by it.
    """

    measured: Measured
    scores: Sequence[float]
    audit: Audit | None = None
    fidelity: Fidelity | None = None
    duplicates: int = 0
    allow_untied: bool = False
    has_quality: bool = False
    level: float = estimate.LEVEL
    least_images: int = 0
    drift: Drift | None = None


def is_decided(evidence: Evidence, targets: Targets) -> bool:
    """Whether more images are no use: one target is missed, both are met, or no image counts."""
    if not _is_tied(evidence) or evidence.measured.baseline.score <= 0 or _drifted(evidence.drift):
        return True
    credited = credited_speedup(evidence)
    verdict, _ = _verdict(evidence, credited, _quality(evidence), targets)
    return verdict is not Verdict.INCONCLUSIVE


def _speed(evidence: Evidence) -> Estimate:
    found = estimate.speedup(*_seconds(evidence.measured), evidence.level)
    return found.widened(_drift_half(evidence))


def _drift_half(evidence: Evidence) -> float:
    """Half the width, in logarithms, of the interval of a recalled baseline's drift."""
    drift, level = evidence.drift, evidence.level
    if drift is None:
        return 0.0
    seen = drift.live_s, drift.cached_s, drift.noise, drift.noise_pairs
    found = estimate.drift(*seen, level)
    assert found.high is not None
    return math.log(found.high / found.value)


def credited_speedup(evidence: Evidence) -> Estimate:
    """The speedup that counts: of tied images, and not of the faster half of the batches alone.

    A median does not see how slow the slower half is, and the quality is a mean over all of them:
    seconds that were spent in any batch have to cost something. So where all batches together are
    faster by less than the median, that counts, whether by intent or by a burst of load.
    """
    speed = _speed(evidence)
    total = estimate.total_speedup(*_seconds(evidence.measured), evidence.level)
    total = total.widened(_drift_half(evidence))
    is_uneven = total.value < EVEN_SHARE * speed.value
    return (total if is_uneven else speed).times(_credit(evidence))


def _seconds(measured: Measured) -> tuple[list[float], list[float]]:
    """Seconds of the batches that count, baseline's and candidate's."""
    ours, theirs = (
        [batch.time_s for batch in side.counted] for side in (measured.baseline, measured.candidate)
    )
    return ours, theirs


def _quality(evidence: Evidence) -> Estimate:
    """The quality loss; the baseline's score must be above 0."""
    counted = evidence.measured.baseline.counted
    scores = [score for batch in counted for score in batch.scores]
    return estimate.quality_loss(scores, evidence.scores, evidence.level)


def judge(evidence: Evidence, targets: Targets) -> Judgement:
    """Hold both sides' records against each other and against the targets."""
    measured = evidence.measured
    claim = read_claim(measured.claim_stdout)
    if refusal := _refusal(claim, evidence):
        return Judgement(*refusal, claim=claim)
    speed = _speed(evidence)
    credited = credited_speedup(evidence)
    found = Judgement(
        Verdict.INCONCLUSIVE,
        "the baseline's images have a CLIP score of 0, so there is no quality to compare",
        speedup=speed.value,
        speedup_ci=speed.interval,
        credited_speedup=credited.value,
        confidence=evidence.level,
        speed_achievement=loss.speed_achievement(credited.value, targets.speedup),
        claim=claim,
    )
    if measured.baseline.score <= 0:
        return found
    quality = _quality(evidence)
    verdict, reason = _verdict(evidence, credited, quality, targets)
    if verdict is Verdict.QUALITY_THRESHOLD_EXCEEDED:
        reason += _unlike(evidence.fidelity)
    elif verdict is Verdict.SPEEDUP_TARGET_NOT_MET:
        reason += _uncredited(speed.value, credited.value, evidence)
    judgement = replace(
        found,
        verdict=verdict,
        reason=reason,
        accuracy=1 - quality.value,
        quality_loss_ci=quality.interval,
        accuracy_achievement=loss.accuracy_achievement(quality.value, targets.quality_loss),
        loss=loss.loss(credited.value, quality.value, targets.speedup, targets.quality_loss),
        loss_ci=_loss_ends(credited, quality, targets),
    )
    if problem := _drifted(evidence.drift):
        return judgement.without_loss(Verdict.INCONCLUSIVE, problem)
    return judgement if _is_tied(evidence) else _untied(judgement, evidence.fidelity)


def _drifted(drift: Drift | None) -> str | None:
    """Why a recalled baseline is not the one that runs now, if so."""
    if drift is None:
        return None
    remedy = "delete the file of --baseline-cache and run again, to measure the baseline anew"
    if drift.least_psnr_db < LEAST_PSNR_DB:
        return (
            "the baseline no longer makes the images of its cache (PSNR"
            f" {drift.least_psnr_db:.1f} dB): {remedy}"
        )
    if abs(math.log(drift.factor)) > math.log1p(MAX_DRIFT):
        return (
            f"the baseline takes {drift.factor:.3f} times as long as in its cache, at most"
            f" {MAX_DRIFT:.0%} off are corrected: see that the machine is quiet, or {remedy}"
        )
    return None


def _refusal(claim: Claim | None, evidence: Evidence) -> tuple[Verdict, str] | None:
    """Why there is nothing to measure here, if so."""
    if problem := tampering(claim, evidence.measured):
        return Verdict.TAMPERED, problem
    if evidence.audit and evidence.audit.suspicion:
        return Verdict.TAMPERED, evidence.audit.suspicion
    ran = evidence.measured.baseline.run
    left_s = math.fsum(batch.leftover_s for batch in evidence.measured.baseline.batches)
    if left_s > LEFT_BY_BASELINE_S * max(1, len(ran) / LEFT_IN_BATCHES):
        reason = (
            f"the GPU worked {left_s:.1f} s after the baseline's batches: for the candidate, or for"
            " somebody else. Measure again on a quiet card"
        )
        return Verdict.INCONCLUSIVE, reason
    if evidence.duplicates:
        reason = f"returned {evidence.duplicates} images again for other prompts or seeds"
        return Verdict.BAD_OUTPUT, reason
    return None


def too_good(quality_loss_ci: tuple[float, float]) -> str | None:
    """Why a quality so far above the baseline's is as suspicious as one below; None if it is not.

    `quality_loss_ci` is the interval of the quality loss, 0.02 for 2 %.
    """
    gain = -quality_loss_ci[1]
    if gain <= TOO_GOOD:
        return None
    return (
        f"its CLIP score is above the baseline's by {gain:.1%} or more: a faster way to the same"
        " images does not improve on them. Look at the images: they may be made for the score"
    )


def _unlike(fidelity: Fidelity | None) -> str:
    """What of a quality loss comes from images that are not the baseline's."""
    if fidelity is None:
        return ""
    if fidelity.below:
        names = ", ".join(fidelity.below)
        return f": the images are less like the baseline's than another seed's are ({names})"
    if fidelity.discarded:
        return (
            f": {fidelity.discarded} of {fidelity.images} images are nothing like the baseline's"
            " and count as 0"
        )
    return ""


def _uncredited(speedup: float, credited: float, evidence: Evidence) -> str:
    """Why less than the speedup is credited."""
    if credited >= speedup:
        return ""
    fidelity = evidence.fidelity
    is_tied = fidelity is None or fidelity.tied_images == fidelity.images
    if fidelity is None or is_tied or evidence.allow_untied:
        return f": {speedup:.2f} is the median, but all batches together were faster by less"
    return (
        f": {speedup:.2f} were measured, but of {fidelity.images} images only"
        f" {fidelity.tied_images} are more like the baseline's of their seed than like another's"
    )


def _credit(evidence: Evidence) -> float:
    """Share of the speedup that counts."""
    if evidence.fidelity is None or evidence.allow_untied:
        return 1.0
    return evidence.fidelity.credit


def _is_tied(evidence: Evidence) -> bool:
    fidelity = evidence.fidelity
    if fidelity is None:
        return evidence.allow_untied or not evidence.has_quality
    return evidence.allow_untied or fidelity.tied or bool(fidelity.below)


def _untied(judgement: Judgement, fidelity: Fidelity | None) -> Judgement:
    """No number for images of which nothing shows that they follow from the seed."""
    if fidelity is None:
        reason = (
            "the images cannot be held against a floor: the baseline's do not depend on the seed,"
            " or too few are made. Have the baseline draw its noise from the global generator, and"
            " make at least two images; or accept any with --allow-untied"
        )
        return judgement.without_loss(Verdict.INCONCLUSIVE, reason)
    reason = (
        "the images are no more like the baseline's of the same seed than like those of another:"
        " nothing shows that they come from the pipeline. Draw noise as the baseline does (global"
        " generator, one draw for the batch, a sampler that adds none); where the task allows"
        " another way, score with --allow-untied"
    )
    return judgement.without_loss(Verdict.INCONCLUSIVE, reason)


def read_claim(stdout: str) -> Claim | None:
    """The `time,score` on the last line of stdout; None if that line is anything else."""
    lines = stdout.rstrip().splitlines()
    match = _CLAIM.fullmatch(lines[-1].strip()) if lines else None
    return Claim(time_s=float(match[1]), score=float(match[2])) if match else None


def tampering(claim: Claim | None, measured: Measured) -> str | None:
    """How the claim contradicts the witness; None when it does not.

    The script cannot tell which batches count: its claim is about all but the warm-up.
    """
    results = _results(measured.claim_stdout)
    if claim is None:
        after = "there is output after it" if results else "there is none"
        return f"the last line of stdout is not the script's `time,score`: {after}"
    if len(results) > 1:
        return f"printed {len(results)} result lines: {', '.join(results[:3])}"
    time_s, score, count = _witnessed(measured.candidate)
    time_s -= math.fsum(batch.leftover_s for batch in measured.candidate.batches[1:])
    late_s = CLAIM_OVERHEADS * _overhead_s(measured)
    tolerance_s = CLAIM_TIME_SHARE * time_s + count * max(CLAIM_TIME_S_PER_BATCH, late_s)
    if abs(claim.time_s - time_s) > tolerance_s:
        return f"claims {claim.time_s:.3f} s, the witness saw {time_s:.3f} s"
    if abs(claim.score - score) > CLAIM_SCORE:
        return f"claims a CLIP score of {claim.score:.3f}, the witness saw {score:.3f}"
    return None


def _witnessed(side: Side) -> tuple[float, float, int]:
    """Seconds, mean score and number of the batches that a script's claim is about."""
    scores = [score for batch in side.run for score in batch.scores]
    return side.run_s, math.fsum(scores) / len(scores), len(side.run)


def _overhead_s(measured: Measured) -> float:
    """Seconds a batch by which the witness saw the baseline take longer than it says."""
    claim = read_claim(measured.baseline_stdout)
    if claim is None:
        return 0.0
    time_s, _, count = _witnessed(measured.baseline)
    return max(0.0, time_s - claim.time_s) / count


def _results(stdout: str) -> list[str]:
    """Every line of stdout that looks like a result."""
    return [line.strip() for line in stdout.splitlines() if _CLAIM.fullmatch(line.strip())]


def _verdict(
    evidence: Evidence, speed: Estimate, quality: Estimate, targets: Targets
) -> tuple[Verdict, str]:
    verdict, reason = against_targets(speed, quality, targets)
    count = len(evidence.scores)
    if verdict is Verdict.OK and count < evidence.least_images:
        reason = f"cannot tell yet: rare bad images do not show in {count}; {MORE}"
        return Verdict.INCONCLUSIVE, reason
    return verdict, reason


def against_targets(speed: Estimate, quality: Estimate, targets: Targets) -> tuple[Verdict, str]:
    """Which target is missed for sure, whether both are met for sure, or that nobody can tell."""
    asked, tolerated = targets.speedup - ROUNDING, targets.quality_loss + ROUNDING
    if quality.low is not None and quality.low > tolerated:
        reason = f"quality loss {quality.value:.2%} is over {targets.quality_loss:.2%}"
        return Verdict.QUALITY_THRESHOLD_EXCEEDED, reason
    if speed.high is not None and speed.high < asked:
        reason = f"speedup {speed.value:.2f} is under {targets.speedup:g}"
        return Verdict.SPEEDUP_TARGET_NOT_MET, reason
    unclear = []
    if speed.low is None or speed.low < asked:
        unclear.append(f"speedup {_between(speed, '.3f')} against {targets.speedup:g}")
    if quality.high is None or quality.high > tolerated:
        unclear.append(
            f"quality loss {_between(quality, '.2%')} against {targets.quality_loss:.2%}"
        )
    if unclear:
        reason = f"cannot tell yet: {' and '.join(unclear)}; {MORE}"
        return Verdict.INCONCLUSIVE, reason
    return Verdict.OK, ""


def _between(found: Estimate, form: str) -> str:
    if found.interval is None:
        return f"{found.value:{form}} (too few for an interval)"
    low, high = found.interval
    return f"{found.value:{form}} ({low:{form}} to {high:{form}})"


def _loss_ends(speed: Estimate, quality: Estimate, targets: Targets) -> tuple[float, float] | None:
    """The losses at the good ends of both intervals and at the bad ones."""
    if speed.interval is None or quality.interval is None:
        return None
    low, high = (
        loss.loss(faster, worse, targets.speedup, targets.quality_loss)
        for faster, worse in zip(speed.interval[::-1], quality.interval, strict=True)
    )
    return low, high


def _why(ending: Ending, phase: Phase, *, card_was_full: bool) -> tuple[Verdict, str]:
    if ending.breach is not None:
        return ending.breach, ending.breach_reason
    message = _usage(ending) or _last_message(ending.stderr)
    if ending.returncode in {EXIT_BAD_OUTPUT, EXIT_NO_INTERFACE} and message.startswith(_OURS):
        is_output = ending.returncode == EXIT_BAD_OUTPUT
        verdict = Verdict.BAD_OUTPUT if is_output else Verdict.CRASHED
        return verdict, message.removeprefix(_OURS)
    if _OOM.search(message):
        seen = "" if card_was_full else " (the card was not seen full)"
        return Verdict.OOM if card_was_full else Verdict.CRASHED, message + seen
    if ending.returncode > _SIGNAL_BASE:
        return _by_signal(ending.returncode - _SIGNAL_BASE, phase)
    if ending.returncode == 0:
        return _left_early(ending, phase)
    return Verdict.CRASHED, message or f"exited with status {ending.returncode}"


def _left_early(ending: Ending, phase: Phase) -> tuple[Verdict, str]:
    seen = f"exited with status 0 in the {phase} phase, before it was done"
    if results := _results(ending.stdout):
        return Verdict.TAMPERED, f"{seen}, and claims {results[-1]}"
    return Verdict.CRASHED, seen


def _usage(ending: Ending) -> str:
    """What a parser of command lines complained of; empty if it did not."""
    found = _USAGE.findall(ending.stderr) if ending.returncode == EXIT_USAGE else []
    if not found:
        return ""
    return f"reads its command line, and there is none: {found[-1][:500]}; give defaults"


def _by_signal(number: int, phase: Phase) -> tuple[Verdict, str]:
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = f"signal {number}"
    by = " (by itself, or by the kernel for lack of memory)" if number == signal.SIGKILL else ""
    return Verdict.CRASHED, f"was ended by {name} in the {phase} phase{by}"


def _last_message(stderr: str) -> str:
    """The last line that looks like an exception or is ours; empty if there is none.

    An exception may have any name (`StopIteration`): then it is what follows the last traceback.
    """
    stderr = _IGNORED.sub("", stderr)
    for line in reversed(stderr.splitlines()):
        if line.startswith(_OURS) or _EXCEPTION.match(line):
            return line.strip()[:500]
    _, found, rest = stderr.rpartition("Traceback (most recent call last):\n")
    below = [line for line in rest.splitlines() if line and not line[0].isspace()]
    return below[0].strip()[:500] if found and below else ""


def _own_line(stderr: str, script: Script) -> int | None:
    """The candidate's line nearest to where it failed.

    Python prints the innermost frame last, its fault handler prints it first.
    """
    _, fault, dump = stderr.rpartition("(most recent call first)")
    own = list(_own_lines(dump if fault else stderr, script))
    if not own:
        return None
    return own[0] if fault else own[-1]


def _own_lines(text: str, script: Script) -> Iterator[int]:
    for match in _FRAME.finditer(text):
        line = script.original_line(int(match[1]))
        if line is not None:
            yield line


def _traceback(stderr: str, script: Script) -> str:
    """The end of stderr with `tmp.py` lines turned into lines of the candidate's own file."""

    def original(match: re.Match[str]) -> str:
        line = script.original_line(int(match[1]))
        return match[0] if line is None else f'File "{script.source}", line {line}'

    end = _EXTENSIONS.sub("", stderr)[-TRACEBACK_CHARS:]  # a long path would come in many times
    return _FRAME.sub(original, end)[-TRACEBACK_CHARS:]
