"""Live reading: what a side's own process says of its pipeline, held against its text.

Everything in a report comes out of an untrusted process. It is parsed strictly, compared and shown.
It can spoil a verdict (`account.settle`), never make one better, and no time, score or loss is made
from it. A report that is not in order is no reading.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Final, Literal, TypeVar, cast

import pydantic_core
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    FailFast,
    Field,
    JsonValue,
    PlainValidator,
    ValidationError,
    model_validator,
)

from runner.compare import outcome
from runner.records import Config, Configs, Measured, Outcome, Reading, Readings, Role, Traces

REPORT_BYTES: Final = 1024 * 1024
DEEP_REPORT_BYTES: Final = 4 * 1024 * 1024
MAX_DIFFERENCES: Final = 1000

_MAX_TENSORS: Final = 50_000
_MAX_AXES: Final = 16
_MAX_COUNT: Final = 10**9
_MAX_WHOLE: Final = 10**15
_MAX_NAME_CHARS: Final = 500
_MAX_NESTED: Final = 200_000
"""Lists and objects in a report, of which each costs up to 200 bytes: a tensor takes two."""

_SECOND_ORDER: Final = frozenset(
    {
        "DPMSolverSDEScheduler",
        "FlowMatchHeunDiscreteScheduler",
        "HeunDiscreteScheduler",
        "KDPM2AncestralDiscreteScheduler",
        "KDPM2DiscreteScheduler",
    }
)
"""`order = 2` in diffusers: two calls a step but for the last one, 2n - 1 in all. Measured as
`len(scheduler.timesteps)` after `set_timesteps(n)` with diffusers 0.42."""
_PNDM_EXTRA: Final = 1
_PNDM_PRK_EXTRA: Final = 9
"""PNDM repeats its second step; with Runge-Kutta first (`skip_prk_steps=False`) it makes three
steps of four calls each."""
_OWN_COUNT: Final = frozenset({"RePaintScheduler", "MiniMaxH3Scheduler", "DDPMWuerstchenScheduler"})
"""Their lists have another length than was asked for: jumps back, or an end that is not run."""

_PARTIAL_ARGUMENTS: Final = frozenset(
    {"denoising_end", "denoising_start", "sigmas", "strength", "timesteps"}
)
"""Arguments of the call with which fewer steps are run, or others, than were asked for."""
_GENERIC: Final = ("DiffusionPipeline", "AutoPipeline")
_CHANGE_IMAGES: Final = frozenset(
    {
        *("bitsandbytes", "cache-dit", "deepcache", "fastercache", "first_block_cache", "freeu"),
        *("hyper_sd", "lcm_lora", "lightning", "magcache", "pab", "para-attn", "quanto"),
        *("taylorseer", "tgate", "tomesd", "torchao"),
    }
)
"""Methods whose images cannot be the same to the last bit if they do anything."""
_ROWS_CHANGE: Final = frozenset({"fastercache", "tgate"})
"""Methods that leave out the unconditional half of the batch in some steps."""
_CACHES: Final = ("fastercache", "first_block_cache", "magcache", "pab", "taylorseer")
_QUANTISERS: Final = ("bitsandbytes", "quanto", "torchao")
_CUDA_ONLY: Final = ("channels_last", "torch.compile", "xformers")
"""Methods that a file may rightly leave out where there is no CUDA device."""
_SWITCHES: Final = ("freeu", "vae_slicing", "vae_tiling")
_HALVES: Final = {"fp16": "float16", "bf16": "bfloat16"}
_COMPARED: Final = (
    ("pipeline", ("pipeline_name",)),
    ("model", ("model_id",)),
    ("scheduler", ("scheduler_name",)),
    ("steps taken for an image", ("steps_per_image", "num_inference_steps")),
    ("denoiser rows an image and step", ("rows_per_step", "guidance")),
    ("guidance scale", ("guidance_scale",)),
    ("dtype", ("dtype",)),
)
"""What both sides should have alike: of each, the first field that both readings know."""
_HELD: Final = (
    *("pipeline_name", "model_id", "scheduler_name", "num_inference_steps", "guidance_scale"),
    "dtype",
)
"""What a live pipeline is held against a ground truth in."""
_PLAIN_ATTENTION: Final = frozenset({"AttnProcessor", "AttnProcessor2_0"})
_SINGLE_FILE: Final = (".ckpt", ".pt", ".safetensors")
_WHOLE: Final = 0.02
"""Counts are means over images: this far from a whole number is not a whole number."""

_Float = Literal["float32", "float16", "bfloat16"]
_FLOATS: Final = frozenset({"float32", *_HALVES.values()})


def _few(limit: int) -> BeforeValidator:
    """Refuse a longer object at once: pydantic looks at each of its entries first."""

    def check(value: object) -> object:
        if isinstance(value, dict) and len(value) > limit:
            message = f"has {len(value)} entries, at most {limit} are read"
            raise ValueError(message)
        return value

    return BeforeValidator(check)


_Name = Annotated[str, Field(max_length=_MAX_NAME_CHARS)]
_Count = Annotated[int, Field(ge=0, le=_MAX_COUNT)]
_Scalar = (
    Annotated[bool, Field()]
    | Annotated[int, Field(ge=-_MAX_WHOLE, le=_MAX_WHOLE)]
    | Annotated[float, Field(allow_inf_nan=False)]
    | _Name
    | None
)
_TallyRow = Annotated[list[_Count], Field(min_length=5, max_length=5), FailFast()]
_Names = Annotated[list[_Name], Field(max_length=16), FailFast()]
Tensor = tuple[str, list[int], str, float | None, float | None, float | None]
"""Of one weight: name, shape, dtype, norm, mean, dot product with a random vector."""


def _is_name(value: object) -> bool:
    return isinstance(value, str) and len(value) <= _MAX_NAME_CHARS


def _is_shape(value: object) -> bool:
    return (
        isinstance(value, list)
        and len(value) <= _MAX_AXES
        and all(type(size) is int and 0 <= size <= _MAX_COUNT for size in value)
    )


def _is_moment(value: object) -> bool:
    """A finite number of which others can be taken away; an int may be too large for that."""
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or (type(value) is int and abs(value) <= _MAX_WHOLE)


_COLUMNS: Final = (_is_name, _is_shape, _is_name, _is_moment, _is_moment, _is_moment)


def _tensors(value: object) -> list[Tensor]:
    """Check the rows by hand: many bad ones cost gigabytes of pydantic's errors."""
    if not isinstance(value, list) or len(value) > _MAX_TENSORS:
        message = f"is no list of at most {_MAX_TENSORS} tensors"
        raise ValueError(message)
    for place, row in enumerate(value):
        is_row = isinstance(row, list | tuple) and len(row) == len(_COLUMNS)
        if not is_row or not all(fits(one) for fits, one in zip(_COLUMNS, row, strict=True)):
            message = f"row {place} is no tensor"
            raise ValueError(message)
    return [cast("Tensor", tuple(row)) for row in value]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _only_its_fields(cls, value: object) -> object:
        """Refuse at the first field that there is not: pydantic names them all."""
        for name in value if isinstance(value, dict) else ():
            if name not in cls.model_fields:
                message = f"there is no field {name[:_MAX_NAME_CHARS]!r:.100}"
                raise ValueError(message)
        return value


class _Pipeline(_Strict):
    """The pipeline as its process reads it."""

    pipeline_name: _Name
    model_id: _Name | None
    scheduler_name: _Name | None
    scheduler_steps: _Count | None
    timesteps: _Count | None
    skips_prk_steps: bool | None
    denoiser: _Name | None
    denoiser_name: _Name | None
    dtype: _Name | None
    guidance_scale: float | None
    guidance: bool | None
    attention_processors: Annotated[dict[_Name, _Count], _few(64)]
    methods: Annotated[dict[_Name, Annotated[dict[_Name, _Scalar], _few(32)]], _few(64)]
    unread: _Names


class Component(_Strict):
    """One component: its settings and its weights."""

    class_name: _Name | None
    config: Annotated[dict[_Name, JsonValue], _few(1000)]
    tensors: Annotated[list[Tensor], PlainValidator(_tensors)]


class _Steps(_Strict):
    """What came of changing the number of steps."""

    scaled: _Count
    left: Annotated[list[_Name], Field(max_length=4), FailFast()]


class _Report(_Strict):
    """A whole REPORT."""

    problem: _Name | None = None
    loads: _Name | None = None
    pipeline: _Pipeline | None = None
    other_pipelines: _Names = []
    compute_dtype: _Name | None = None
    batches: Annotated[list[_TallyRow], Field(max_length=5000), FailFast()] = []
    steps: _Steps | None = None


class _DeepReport(_Report):
    """A whole REPORT, with what `read_deep` reads."""

    components: Annotated[dict[_Name, Component], _few(200)] | None = None


@dataclass(frozen=True, slots=True)
class NoReading:
    """There is no live reading, and why."""

    reason: str


@dataclass(frozen=True, slots=True)
class Findings:
    """What the live readings come to, as sentences for a person."""

    readings: Readings
    contradictions: tuple[str, ...]
    no_ops: tuple[str, ...]


_AnyReport = TypeVar("_AnyReport", bound=_Report)


def read(traces: Traces, warmup: int = 1) -> Reading | NoReading:
    """Read a side's report; `warmup` batches at its head do not count towards the means."""
    report = _parse(_Report, traces.report, REPORT_BYTES)
    if isinstance(report, NoReading):
        return report
    if report.pipeline is None:
        return NoReading("no pipeline of diffusers was found in its process")
    pipeline = report.pipeline
    images, calls, rows, steps, step_rows = _totals(report.batches[warmup:])
    count = max(len(report.batches) - warmup, 0)
    width_px, height_px = traces.size_px or (None, None)
    return Reading(
        loads=report.loads,
        pipeline_name=pipeline.pipeline_name,
        other_pipelines=tuple(report.other_pipelines),
        model_id=pipeline.model_id,
        scheduler_name=pipeline.scheduler_name,
        num_inference_steps=pipeline.scheduler_steps,
        timesteps=pipeline.timesteps,
        expected_steps=expected_steps(
            pipeline.scheduler_name,
            pipeline.scheduler_steps,
            skips_prk_steps=pipeline.skips_prk_steps,
        ),
        steps_per_image=_ratio(step_rows, images),
        denoiser_name=pipeline.denoiser_name,
        denoiser_calls_per_batch=_ratio(calls, count),
        scheduler_steps_per_batch=_ratio(steps, count),
        rows_per_step=_ratio(rows, step_rows),
        guidance=pipeline.guidance,
        guidance_scale=pipeline.guidance_scale,
        height=height_px,
        width=width_px,
        dtype=pipeline.dtype,
        compute_dtype=report.compute_dtype,
        attention_processors=pipeline.attention_processors,
        methods=pipeline.methods,
        unread=tuple(pipeline.unread),
        scaled_calls=report.steps.scaled if report.steps else None,
        unscaled=tuple(report.steps.left) if report.steps else (),
    )


def read_deep(report: bytes | None) -> dict[str, Component] | NoReading:
    """Read the components of a deep report, by name."""
    parsed = _parse(_DeepReport, report, DEEP_REPORT_BYTES)
    if isinstance(parsed, NoReading):
        return parsed
    if parsed.components is None:
        return NoReading("it holds no components: no pipeline was loaded")
    return parsed.components


def scaled_steps(steps: int, factor: float) -> int:
    """So many inference steps times a factor, as `templates/steps.py` makes them."""
    return max(1, int(steps * factor + 0.5))


def with_steps(config: Config, factor: float) -> Config:
    """What a text says once its number of steps is changed."""
    if config.num_inference_steps is None:
        return config
    steps = scaled_steps(config.num_inference_steps, factor)
    return config.model_copy(update={"num_inference_steps": steps})


def expected_steps(
    scheduler_name: str | None, steps: int | None, *, skips_prk_steps: bool | None = True
) -> int | None:
    """Denoiser calls that `steps` inference steps take; None where that is not known."""
    if scheduler_name is None or steps is None or scheduler_name in _OWN_COUNT:
        return None
    if scheduler_name in _SECOND_ORDER:
        return max(2 * steps - 1, 0)
    if scheduler_name == "PNDMScheduler":
        return steps + (_PNDM_PRK_EXTRA if skips_prk_steps is False else _PNDM_EXTRA)
    return steps


def compare(configs: Configs, measured: Measured, *, on_cuda: bool = True) -> Findings:
    """Read both sides' reports and hold them against the texts and against each other.

    A text is read as for a machine with a CUDA device; `on_cuda` says whether the pipelines ran on
    one.
    """
    warmup = sum(batch.phase == "warm-up" for batch in measured.candidate.batches)
    baseline = read(measured.baseline_traces, warmup)
    candidate = read(measured.candidate_traces, warmup)
    readings, problems = [], []
    for role, found in ((Role.BASELINE, baseline), (Role.CANDIDATE, candidate)):
        readings.append(None if isinstance(found, NoReading) else found)
        if isinstance(found, NoReading):
            problems.append(f"no live reading of the {role}: {found.reason}")
    same = identical(measured.baseline_traces, measured.candidate_traces)
    ours, theirs = readings
    return Findings(
        Readings(baseline=ours, candidate=theirs, problems=tuple(problems)),
        (
            *contradictions(Role.BASELINE, configs.baseline, ours),
            *contradictions(Role.CANDIDATE, configs.candidate, theirs),
            *changes(ours, theirs),
        ),
        (
            *no_ops(Role.BASELINE, configs.baseline, ours, on_cuda=on_cuda),
            *no_ops(Role.CANDIDATE, configs.candidate, theirs, on_cuda=on_cuda),
            *(same_images(configs, same) if same else ()),
        ),
    )


def contradictions(role: Role, config: Config | None, live: Reading | None) -> Iterator[str]:
    """Yield where a live pipeline differs from its text, and which steps or rows it left out."""
    if live is None:
        return
    if config is not None:
        yield from _against_text(role, config, live)
    yield from _left_out(role, config, live)


def changes(baseline: Reading | None, candidate: Reading | None) -> Iterator[str]:
    """Yield where the candidate's live pipeline differs from the baseline's."""
    if baseline is None or candidate is None:
        return
    for label, fields in _COMPARED:
        for field in fields:
            ours, theirs = getattr(baseline, field), getattr(candidate, field)
            if ours is None or theirs is None:
                continue
            if ours != theirs and not (
                isinstance(ours, float) and math.isclose(ours, theirs, rel_tol=1e-6)
            ):
                yield f"{label}: {_say(ours)} in the baseline, {_say(theirs)} in the candidate"
            break


def contradicts(truth: Config, live: Reading, *, on_cuda: bool = True) -> tuple[str, ...]:
    """Return the fields in which a live pipeline clearly differs from what `truth` asks for.

    Names of one model and generic pipeline classes are taken as in comparing texts. What either
    side does not tell is no difference, nor is a dtype where there is no CUDA device.
    """
    asked = dict.fromkeys(_HELD) if on_cuda else dict.fromkeys(_HELD[:-1])
    if truth.model_id is not None and truth.model_id.endswith(_SINGLE_FILE):
        del asked["model_id"]
    if _PARTIAL_ARGUMENTS & truth.call_arguments.keys():
        del asked["num_inference_steps"]
    seen = Config(
        pipeline_name=live.pipeline_name,
        model_id=live.model_id,
        scheduler_name=live.scheduler_name,
        num_inference_steps=live.num_inference_steps,
        guidance_scale=live.guidance_scale,
        dtype=_float_dtype(truth, live),
    )
    return tuple(name for name in asked if outcome(name, seen, truth) is Outcome.NO)


def _float_dtype(truth: Config, live: Reading) -> _Float | None:
    """The dtype of the weights; what is computed in where `truth` asks for that (autocast)."""
    dtype = truth.dtype if truth.dtype == live.compute_dtype != "float32" else live.dtype
    return cast("_Float", dtype) if dtype in _FLOATS else None


def no_ops(
    role: Role, config: Config | None, live: Reading | None, *, on_cuda: bool = True
) -> Iterator[str]:
    """Yield a sentence for each method of the text that took no effect, as far as can be seen.

    Without a CUDA device (`on_cuda`), what a file does on one only is not missed.
    """
    methods = (config.acceleration_methods or ()) if config else ()
    for method in methods:
        if live is None or (not on_cuda and _is_for_cuda(method, live)):
            continue
        if reason := _why_no_effect(method, live):
            yield f"{role}: {method} is in the text, but {reason}"


def _is_for_cuda(method: str, live: Reading) -> bool:
    """Whether a method that is not found may be one that the file leaves out without CUDA."""
    if method in _HALVES:
        return live.dtype == "float32"
    return method in _CUDA_ONLY and method not in live.methods


def identical(baseline: Traces, candidate: Traces) -> int | None:
    """Number of images if the candidate's are the baseline's, pixel by pixel; else None."""
    ours, theirs = baseline.digests, candidate.digests
    if not theirs or any(ours.get(place) != images for place, images in theirs.items()):
        return None
    return sum(map(len, theirs.values()))


def same_images(configs: Configs, count: int) -> Iterator[str]:
    """Yield what differs between the texts and should change images, though all `count` agree."""
    ours, theirs = configs.baseline, configs.candidate
    if ours is None or theirs is None or ours.acceleration_methods is None:
        return
    but = f"but all {count} images equal the baseline's in every pixel"
    for method in theirs.acceleration_methods or ():
        is_new = method not in ours.acceleration_methods
        if is_new and method in _CHANGE_IMAGES:
            yield f"candidate: {method} is in the text, {but}"
    for field, label in (
        ("scheduler_name", "scheduler"),
        ("num_inference_steps", "number of steps"),
        ("guidance_scale", "guidance scale"),
    ):
        before, after = getattr(ours, field), getattr(theirs, field)
        if before is not None and after is not None and before != after:
            yield f"candidate: {label} {_say(after)} is in the text, {but}"


def compare_deep(
    truth: Mapping[str, Component], candidate: Mapping[str, Component], tolerance: float = 1e-3
) -> list[str]:
    """Differences of two loaded pipelines, component by component, as sentences.

    After `MAX_DIFFERENCES` of them, one sentence says how many more there are.

    A weight differs if its dot products with a random vector, whose entries are about 1, or its
    norms differ by more than `tolerance` times the norm. The first is the length of the difference
    in a random direction: of a difference of n tolerances, it misses about 0.8 / n. Rounding
    float32 to float16 makes about 3e-4 in all, to bfloat16 about 2e-3.
    """
    found = list(_differences(truth, candidate, tolerance))
    more = len(found) - MAX_DIFFERENCES
    return [*found[:MAX_DIFFERENCES], f"and {more} more"] if more > 0 else found


def _differences(
    truth: Mapping[str, Component], candidate: Mapping[str, Component], tolerance: float
) -> Iterator[str]:
    for name in sorted({*truth, *candidate}):
        ours, theirs = truth.get(name), candidate.get(name)
        if ours is None or theirs is None:
            yield f"{name}: only in the {'candidate' if ours is None else 'ground truth'}"
            continue
        if ours.class_name != theirs.class_name:
            yield f"{name}: class {ours.class_name} is {theirs.class_name} in the candidate"
        yield from _config_differences(name, ours, theirs)
        yield from _weight_differences(name, ours, theirs, tolerance)


def _parse(
    model: type[_AnyReport], report: bytes | None, limit_bytes: int
) -> _AnyReport | NoReading:
    """Read a report in time and memory that are bounded, whatever it holds."""
    if report is None:
        return NoReading("its process ended without one")
    if reason := _too_much(report, limit_bytes):
        return NoReading(reason)
    try:
        parsed = model.model_validate(pydantic_core.from_json(report, allow_inf_nan=False))
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"])[:100]
        return NoReading(f"it is not in order: {where or 'text'}: {first['msg'][:200]}")
    except ValueError as error:
        return NoReading(f"it is not in order: text: {str(error)[:200]}")
    if parsed.problem is not None:
        return NoReading(parsed.problem)
    return parsed


def _too_much(report: bytes, limit_bytes: int) -> str | None:
    if len(report) > limit_bytes:
        return f"it has {len(report)} bytes, at most {limit_bytes} are read"
    if report.count(b"[") + report.count(b"{") > _MAX_NESTED:
        return f"it is not in order: it has more than {_MAX_NESTED} lists and objects"
    return None


def _totals(rows: Sequence[_TallyRow]) -> tuple[int, int, int, int, int]:
    images, calls, denoised, steps, stepped = (
        sum(row[place] for row in rows) for place in range(5)
    )
    return images, calls, denoised, steps, stepped


def _ratio(part: int, whole: int) -> float | None:
    """None where nothing was counted: then nothing is known."""
    return part / whole if part and whole else None


def _against_text(role: Role, config: Config, live: Reading) -> Iterator[str]:
    is_generic = config.pipeline_name is None or config.pipeline_name.startswith(_GENERIC)
    model_id = config.model_id
    if model_id is not None and model_id.endswith(_SINGLE_FILE):
        model_id = None
    pairs: list[tuple[str, object, object]] = [
        ("pipeline", None if is_generic else config.pipeline_name, live.pipeline_name),
        ("model", model_id, live.model_id),
        ("scheduler", config.scheduler_name, live.scheduler_name),
        ("guidance scale", config.guidance_scale, live.guidance_scale),
        ("height", config.height, live.height),
        ("width", config.width, live.width),
    ]
    if not _PARTIAL_ARGUMENTS & config.call_arguments.keys():
        pairs.append(("number of steps", config.num_inference_steps, live.num_inference_steps))
    if config.dtype == "float32":
        pairs.append(("dtype", config.dtype, live.dtype))
    for label, said, seen in pairs:
        if said is not None and seen is not None and said != seen:
            yield f"{role}: {label} is {_say(said)} in the text, {_say(seen)} in the live pipeline"


def _left_out(role: Role, config: Config | None, live: Reading) -> Iterator[str]:
    arguments = config.call_arguments if config else {}
    taken, expected = live.steps_per_image, live.expected_steps
    is_whole = not _PARTIAL_ARGUMENTS & arguments.keys()
    if taken and expected and is_whole and taken < expected - _WHOLE:
        yield (
            f"{role}: {_say(taken)} steps were taken for an image, where"
            f" {_say(live.num_inference_steps)} inference steps of {live.scheduler_name}"
            f" make {expected}"
        )
    calls, steps = live.denoiser_calls_per_batch, live.scheduler_steps_per_batch
    if calls and steps and calls < steps - _WHOLE:
        yield (
            f"{role}: the denoiser was called {_say(calls)} times a batch in {_say(steps)} steps"
        )
    methods = {*live.methods, *((config.acceleration_methods if config else ()) or ())}
    rows = live.rows_per_step
    if live.guidance and rows and rows < 2 - _WHOLE and not _ROWS_CHANGE & methods:
        yield (
            f"{role}: guidance was left out in part: the denoiser got {_say(rows)} rows an image"
            " and step instead of 2"
        )


def _say(value: object) -> str:
    match value:
        case bool():
            return "on" if value else "off"
        case float():
            return f"{value:.4g}"
    return str(value)


def _why_no_effect(method: str, live: Reading) -> str | None:
    """Why a method of the text did nothing, if the live pipeline shows that; else None."""
    if method in _HALVES:
        return _no_half(_HALVES[method], live)
    if live.unread:
        return None
    if check := _CHECKS.get(method):
        return check(live, live.methods.get(method))
    return None if method in live.methods else _why_absent(method, live)


def _why_absent(method: str, live: Reading) -> str | None:
    """What is missing of a method that would show if it were there; None if it need not show."""
    denoiser = live.denoiser_name or "the denoiser"
    if method in _CACHES:
        return f"no layer of {denoiser} has its hooks"
    if method in _QUANTISERS:
        return f"no layer of {denoiser} is quantised with it"
    if method in _SWITCHES:
        return "it is off in the live pipeline"
    return None


_Details = Mapping[str, object] | None


def _no_deepcache(live: Reading, found: _Details) -> str | None:
    if found is None:
        return "no layer of the denoiser is wrapped by it"
    interval = found.get("cache_interval")
    if isinstance(interval, int) and interval <= 1:
        return f"cache_interval is {interval}: every call is a full one"
    steps = live.steps_per_image
    if isinstance(interval, int) and steps and interval > 1 and steps <= 1:
        return "an image takes one step: every call is a full one"
    return None


def _no_tomesd(_: Reading, found: _Details) -> str | None:
    if found is None:
        return "the denoiser is not patched"
    if found.get("layers") == 0:
        return "0 blocks of the denoiser are patched"
    if found.get("ratio") == 0:
        return "its ratio is 0"
    if found.get("merged") is False:
        return "no patched block has merged any tokens"
    return None


def _no_tgate(live: Reading, found: _Details) -> str | None:
    if found is None or found.get("layers") == 0:
        return "no attention layer is patched: it acts only through pipe.tgate(...)"
    if live.guidance and live.rows_per_step and live.rows_per_step >= 2 - _WHOLE:
        return "guidance ran in every step: it acts only through pipe.tgate(...)"
    return None


def _no_compile(_: Reading, found: _Details) -> str | None:
    if found is None:
        return "nothing is compiled"
    if found.get("graphs") == 0:
        return f"no graph was compiled ({_say(found.get('layers'))} modules were given to it)"
    return None


def _no_attention(live: Reading, found: _Details) -> str | None:
    """Whether all attention is plain; what a processor of an unknown class does is not known."""
    processors = live.attention_processors.keys()
    if found is None and processors and processors <= _PLAIN_ATTENTION:
        return f"attention runs with {', '.join(sorted(processors))}"
    return None


def _no_channels_last(_: Reading, found: _Details) -> str | None:
    return "no weight of the denoiser is in that memory format" if found is None else None


def _no_offload(_: Reading, found: _Details) -> str | None:
    return "no component has a hook that moves it" if found is None else None


def _no_half(dtype: str, live: Reading) -> str | None:
    if live.dtype is None or dtype in {live.dtype, live.compute_dtype}:
        return None
    return f"the denoiser has {live.dtype} weights"


_CHECKS: Final[dict[str, Callable[[Reading, _Details], str | None]]] = {
    "attention_slicing": _no_attention,
    "channels_last": _no_channels_last,
    "cpu_offload": _no_offload,
    "deepcache": _no_deepcache,
    "tgate": _no_tgate,
    "tomesd": _no_tomesd,
    "torch.compile": _no_compile,
    "xformers": _no_attention,
}


def _config_differences(name: str, ours: Component, theirs: Component) -> list[str]:
    """Differences of settings; of two classes, those of the settings that both have."""
    asked, seen = ours.config, theirs.config
    is_other = ours.class_name != theirs.class_name
    keys = asked.keys() & seen.keys() if is_other else {*asked, *seen}
    return [
        f"{name}: {key} is {asked.get(key)!r:.100} in the ground truth,"
        f" {seen.get(key)!r:.100} in the candidate"
        for key in sorted(keys)
        if not key.startswith("_") and asked.get(key) != seen.get(key)
    ]


def _weight_differences(
    name: str, truth: Component, candidate: Component, tolerance: float
) -> list[str]:
    ours = {tensor[0]: tensor for tensor in truth.tensors}
    theirs = {tensor[0]: tensor for tensor in candidate.tensors}
    found = []
    for key in sorted({*ours, *theirs}):
        if key not in ours or key not in theirs:
            found.append(
                f"{name}.{key}: only in the {'ground truth' if key in ours else 'candidate'}"
            )
            continue
        _, shape, dtype, norm, _, dot = ours[key]
        _, other_shape, other_dtype, other_norm, _, other_dot = theirs[key]
        if shape != other_shape:
            found.append(f"{name}.{key}: shape {shape} is {other_shape} in the candidate")
            continue
        if dtype != other_dtype:
            found.append(f"{name}.{key}: dtype {dtype} is {other_dtype} in the candidate")
        if norm is None or other_norm is None or dot is None or other_dot is None:
            if (norm, dot) != (other_norm, other_dot):
                found.append(f"{name}.{key}: has no finite values on one side")
            continue
        distance = max(abs(dot - other_dot), abs(norm - other_norm))
        scale = max(norm, other_norm)
        if distance > tolerance * scale:
            share = distance / scale if scale > 0 else math.inf
            found.append(
                f"{name}.{key}: differs (in a random direction by {share:.2g} of its norm)"
            )
    return found
