"""Under what circumstances a result came about, and what is doubtful about it from the start."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import psutil

from runner import gpu, synthesise
from runner.records import Circumstances, Purpose, Source

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Iterator, Mapping, Sequence

    from runner.exchange import Order
    from runner.job import Job
    from runner.records import Attempt

_REPORTED_PACKAGES = (
    *("speedtrap", "torch", "diffusers", "transformers", "open_clip_torch", "DeepCache", "tomesd"),
    *("numpy", "pillow"),
)
_CUDA: Final = re.compile(r"^cuda\b[^=\n]*= *['\"]([^'\"]+)['\"]", re.MULTILINE)
"""In torch/version.py, which its build writes."""


@dataclass(frozen=True, slots=True)
class During:
    """What happened so far; `start_s` is on the monotonic clock."""

    started_at: dt.datetime
    start_s: float
    phases_s: Mapping[str, float]
    order: Order
    attempts: Sequence[Attempt]
    warnings: Sequence[str]


def circumstances(job: Job, during: During) -> Circumstances:
    """Circumstances of a run of `job`."""
    settings = job.settings
    candidate = job.candidate.digest if isinstance(job.candidate, Source) else None
    return Circumstances(
        started_at=during.started_at.isoformat(timespec="seconds"),
        wall_s=time.monotonic() - during.start_s,
        phases_s=during.phases_s,
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
        order=during.order,
        clip_model=job.clip.name,
        clip_pretrained=job.clip.pretrained,
        quality_meaningful=job.clip.is_meaningful,
        stand_ins=dict(settings.stand_ins),
        versions=_versions(),
        host=_host(),
        attempts=tuple(during.attempts),
        warnings=(*_standing_warnings(job, during.order), *during.warnings),
    )


def _standing_warnings(job: Job, order: Order) -> Iterator[str]:
    """What is doubtful about this job whatever happens."""
    if job.synthesised and isinstance(job.candidate, Source):
        yield from synthesise.doubts(job.candidate.config)
    if job.settings.until_decided and order == "whole":
        yield "--until-decided had no effect: the sides were measured one after the other"
    if job.settings.audit_batches == 0:
        yield (
            "without audit batches the numbers stand on public prompts, for which a candidate"
            " can be prepared"
        )
    if job.memory is not None:
        yield (
            "the prompts come from a baseline cache, the same for every run that uses it:"
            " whoever sees a kept log, a traceback or the audit seed of one knows those of the"
            " next"
        )
    if job.settings.audit_seed is not None:
        yield "the audit seed was given: whoever knows it knows the prompts"
    if not job.clip.is_meaningful:
        yield (
            "the CLIP model has random weights: score, accuracy, quality loss and loss are not"
            " meaningful, only the times are"
        )
    for gap in job.isolation.gaps:
        yield f"the {job.isolation.backend} sandbox leaves a gap: {gap}"
    if job.isolation.host_files:
        yield (
            "the candidate ran without isolation: it could read, change and forge anything"
            " that its user can"
        )


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
