"""Before a device is taken: from settings to a job, and from a job to both sides' scripts."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

from runner import assemble, check, compare, model_cache, prompts, sandbox, scorer, synthesise
from runner.assemble import Form
from runner.job import Job
from runner.keep import write_text
from runner.records import PromptLength, Refused, Role, Source, SpeedtrapError, Verdict
from runner.settings import MAX_AUDIT_SEED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runner import captions
    from runner.assemble import Values
    from runner.records import Config, ConfigMatch, Isolation, ModelMount, Script
    from runner.settings import Settings


def prepare(settings: Settings) -> Job:
    """Read the files and settle everything that follows from them and from the settings."""
    candidate = check.read_to_run(settings.candidate)
    truth = check.read_truth(settings.against) if settings.against else None
    match = _compare(candidate, truth, settings)
    is_decided = isinstance(candidate, Refused) or bool(match and match.mismatches)
    baseline, synthesised = _baseline(settings, candidate, is_decided=is_decided)
    models = baseline.models if baseline else ()
    preset = prompts.choose_preset(settings.preset, models if baseline else _models(candidate))
    prompt_set = prompts.load(settings.prompts or preset.prompts)
    mounts = model_cache.mounts(model_cache.user_cache(os.environ), settings.stand_ins)
    if (absent := model_cache.missing(models, mounts)) and not is_decided:
        message = f"the baseline cannot be used: {model_cache.remedy(absent[0])}"
        raise SpeedtrapError(message)
    isolation, bwrap = sandbox.find_isolation(settings.sandbox)
    if settings.baseline_cache is not None:
        _require_hidden(settings, mounts, isolation)
    clip = prompts.parse_clip(settings.clip) if settings.clip else preset.clip
    source = prompts.audit_source(preset, settings.audit_prompts, settings.prompt_length)
    secret = secrets.randbelow(MAX_AUDIT_SEED)
    audit_seed = secret if settings.audit_seed is None else settings.audit_seed
    prompt_set = _fitted(prompt_set, source, settings)
    plan = prompts.with_audit(
        prompts.plan(prompt_set, settings.batch_size, settings.seed),
        source,
        settings.audit_batches,
        audit_seed,
        has_floors=clip.is_meaningful,
    )
    return Job(
        settings=settings,
        preset=preset,
        baseline=baseline,
        candidate=candidate,
        prompt_set=prompt_set,
        plan=plan,
        audit_seed=audit_seed,
        audit_source=(source.name, source.digest),
        further=prompts.Further.after(plan, source, audit_seed, has_floors=clip.is_meaningful),
        clip=clip,
        mounts=mounts,
        isolation=isolation,
        bwrap=bwrap,
        match=match,
        truth=truth,
        synthesised=synthesised,
    )


def _fitted(
    prompt_set: prompts.PromptSet, source: captions.Source, settings: Settings
) -> prompts.PromptSet:
    """The fixed prompts: as many as asked for, and of the length of the audit prompts.

    Prompts of another length than the audit prompts' would look like prepared ones where a
    candidate is only good at one length.
    """
    is_any = settings.prompt_length is PromptLength.ANY
    if is_any and settings.fixed_batches is None:
        return prompt_set
    batches = len(prompt_set.prompts) // settings.batch_size - prompts.WARMUP_BATCHES
    batches = settings.fixed_batches or max(1, batches)
    count = settings.batch_size * (prompts.WARMUP_BATCHES + batches)
    return prompts.fitted(prompt_set, source, count, keep=is_any)


def _require_hidden(settings: Settings, mounts: Sequence[ModelMount], isolation: Isolation) -> None:
    """Refuse a baseline cache that a candidate could read: it holds prompts, seeds and images."""
    assert settings.baseline_cache is not None
    if isolation.host_files:
        message = (
            "--baseline-cache needs a sandbox: without one, a candidate reads the prompts and the"
            " images out of the file"
        )
        raise SpeedtrapError(message)
    path = Path(os.path.realpath(settings.baseline_cache))
    for folder in sandbox.shown(mounts, settings.readable):
        if path.is_relative_to(os.path.realpath(folder)):
            message = (
                f"the sandbox shows {folder}, and so the baseline cache {settings.baseline_cache}:"
                " keep it elsewhere"
            )
            raise SpeedtrapError(message)


def _models(candidate: Source | Refused) -> tuple[str, ...]:
    return candidate.models if isinstance(candidate, Source) else ()


def _compare(
    candidate: Source | Refused, truth: Config | None, settings: Settings
) -> ConfigMatch | None:
    """Compare the candidate's text with the ground truth's, if there are both."""
    if truth is None or isinstance(candidate, Refused):
        return None
    return compare.compare(candidate.config, truth, settings.fields, settings.open_fields)


def _baseline(
    settings: Settings, candidate: Source | Refused, *, is_decided: bool
) -> tuple[Source | None, str | None]:
    """The baseline, and its text if it is made here; neither if it is not needed."""
    text = None
    if settings.baseline is not None:
        source = check.read_to_run(settings.baseline)
    elif is_decided or isinstance(candidate, Refused):
        return None, None
    else:
        text = synthesise.write(
            candidate.config, settings.baseline_precision, settings.candidate.name
        )
        if settings.save_baseline is not None:
            write_text(settings.save_baseline, text)
        source = check.examine(text.encode(), Path(synthesise.NAME))
    if isinstance(source, Refused):
        message = f"the baseline cannot be used: {source.reason}"
        raise SpeedtrapError(message)
    return source, text


def write_scripts(job: Job, values: Values | None = None) -> dict[Role, Script] | Refused:
    """Assemble both sides' scripts; refused where the texts, or lacking models, tell the verdict.

    `values` are the job's own unless others are given.
    """
    if job.refused is not None:
        return job.refused
    assert isinstance(job.candidate, Source)
    assert job.baseline is not None
    if absent := model_cache.missing(job.candidate.models, job.mounts):
        reason = f"{job.candidate.path}: {model_cache.remedy(absent[0])}"
        return Refused(Verdict.CRASHED, reason)
    scripts = {}
    for role, source in ((Role.BASELINE, job.baseline), (Role.CANDIDATE, job.candidate)):
        script = assemble.assemble(source, Form.WITNESSED, values or job.values)
        if isinstance(script, Refused):
            return script
        scripts[role] = script
    return scripts


def emit(candidate: Path, settings: Settings) -> str | Refused:
    """Return the standalone `tmp.py` of `candidate`, which anyone can run with `python tmp.py`.

    `settings` gives preset, prompts, CLIP model, batch size and seed; without a preset, the
    candidate's own models choose it.
    """
    source = check.read_to_run(candidate)
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
    values = assemble.Values(
        seed=settings.seed,
        batches=plan,
        clip_model=name,
        clip_pretrained=clip.pretrained,
        models=shown,
    )
    script = assemble.assemble(source, Form.STANDALONE, values)
    return script if isinstance(script, Refused) else script.text
