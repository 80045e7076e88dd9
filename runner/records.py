"""The types that travel between the stages, and the result that leaves the program.

Times are seconds on the controller's monotonic clock, scores are CLIP scores in [0, 100], a
missing value is None (null in JSON) and never a number.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from runner.shapes import Usage

SCHEMA_VERSION: Final = "1.3"


class SpeedtrapError(Exception):
    """We failed, not the candidate: exit code 2. The message says what to do about it."""


class NoPromptsError(SpeedtrapError):
    """There are not so many prompts that were not used yet."""


class ScorerError(SpeedtrapError):
    """The scorer failed: our failure, unless a candidate left it no memory."""


class Verdict(enum.StrEnum):
    """What is said of a candidate. All but `OK` come with a reason."""

    OK = "ok"
    CONFIG_MISMATCH = "config_mismatch"
    QUALITY_THRESHOLD_EXCEEDED = "quality_threshold_exceeded"
    SPEEDUP_TARGET_NOT_MET = "speedup_target_not_met"
    INCONCLUSIVE = "inconclusive"
    CRASHED = "crashed"
    TIMEOUT = "timeout"
    OOM = "oom"
    BAD_OUTPUT = "bad_output"
    TAMPERED = "tampered"
    POLICY = "policy"


class Role(enum.StrEnum):
    """Which of the two measured files a process runs."""

    BASELINE = "baseline"
    CANDIDATE = "candidate"


class Phase(enum.StrEnum):
    """Where in its life a worker is; each phase has a deadline of its own."""

    IMPORTS = "imports"
    LOAD = "load"
    WARMUP = "warm-up"
    TIMED = "timed"
    EXIT = "exit"


class IsolationPolicy(enum.StrEnum):
    """What may stand between a candidate and the host; `AUTO` is the strongest that works."""

    AUTO = "auto"
    BUBBLEWRAP = "bubblewrap"
    LANDLOCK = "landlock"
    NONE = "none"


class PromptLength(enum.StrEnum):
    """Which of the prompts that there are a run is measured with."""

    ANY = "any"
    SHORT = "short"
    LONG = "long"


class BaselinePrecision(enum.StrEnum):
    """Precision of a baseline that is made from the candidate's config."""

    SAME = "same"
    FLOAT32 = "float32"


@dataclass(frozen=True, slots=True)
class Source:
    """A candidate or baseline file, read but never executed.

    `text` is decoded, without a byte order mark; `digest` is the SHA-256 of the file's bytes.
    `models` are the names of the models that it certainly loads, `config` is what its text says of
    the pipeline, `usage` how it will be used.
    """

    path: Path
    text: str
    digest: str
    models: tuple[str, ...]
    config: Config
    usage: Usage


@dataclass(frozen=True, slots=True)
class Script:
    """An assembled `tmp.py`.

    The candidate's line n is line `first_line + n - 1`, for n up to `line_count`.
    """

    text: str
    source: Path
    first_line: int
    line_count: int

    def original_line(self, line: int) -> int | None:
        """The candidate's own line for a line of `tmp.py`; None where that line is ours."""
        own = line - self.first_line + 1
        return own if 1 <= own <= self.line_count else None


class Purpose(enum.StrEnum):
    """What a batch is for.

    FIXED batches hold the public prompts of the prompt set. AUDIT batches hold prompts that were
    drawn for this run, with secret seeds. A REPEAT is an audit batch once more. OTHER_SEED is an
    audit or fixed batch with another seed, for the baseline alone: how alike are two of its images?
    AGAIN is a batch that counts once more, for the baseline alone: its time was in doubt.
    """

    WARM_UP = "warm-up"
    FIXED = "fixed"
    AUDIT = "audit"
    REPEAT = "repeat"
    OTHER_SEED = "other seed"
    AGAIN = "again"


@dataclass(frozen=True, slots=True)
class PlannedBatch:
    """Prompts that are handed over together.

    `of` is the place in the plan of the batch that this one repeats, or gives another seed.
    """

    seed: int
    prompts: tuple[str, ...]
    purpose: Purpose
    of: int | None = None

    @property
    def timed(self) -> bool:
        """Whether its time is part of a measurement."""
        return self.purpose not in {Purpose.WARM_UP, Purpose.OTHER_SEED, Purpose.AGAIN}

    @property
    def for_candidate(self) -> bool:
        """Whether the candidate gets it too."""
        return self.purpose not in {Purpose.OTHER_SEED, Purpose.AGAIN}


@dataclass(frozen=True, slots=True)
class ModelMount:
    """A folder that stands for the model `name` inside the sandbox.

    `is_snapshot` tells a plain model folder from a repository of a Hugging Face cache.
    """

    name: str
    folder: Path
    is_snapshot: bool


@dataclass(frozen=True, slots=True)
class Ending:
    """How a worker ended, as seen from outside.

    `returncode` follows the shell: 128 + n after signal n. `stdout` and `stderr` are capped,
    decoded with replacement, and untrusted. `breach` is the verdict for which we ended it, if any.
    """

    returncode: int
    stdout: str
    stderr: str
    breach: Verdict | None = None
    breach_reason: str = ""


class WorkerLostError(Exception):
    """A worker ended, or had to be ended, before its work was done. Whose fault it is, is not said.

    For the candidate's worker it becomes a verdict, for the baseline's a `SpeedtrapError`, unless
    the baseline was made from the candidate's text.
    """

    def __init__(self, role: Role, phase: Phase, ending: Ending) -> None:
        super().__init__(f"{role} lost in phase {phase}")
        self.role = role
        self.phase = phase
        self.ending = ending


def _encodable(text: str) -> str:
    """Replace what no JSON can carry: the surrogates of a file name that is not UTF-8."""
    return text.encode(errors="replace").decode()


Text = Annotated[str, AfterValidator(_encodable)]


class Record(BaseModel):
    """Base of everything in the result: immutable, and no unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Shape(enum.StrEnum):
    """How a file is used: what it defines, in the order in which it is looked for."""

    LOAD_AND_INFERENCE = "load_pipe+inference"
    LOAD = "load_pipe"
    PIPE = "pipe"
    APPLY = "apply_optimizations"
    CLASS = "class"
    INFERENCE = "inference"
    MAIN_GUARD = "main-guard"
    NOTHING = "nothing"


class Config(Record):
    """What a file's text says of the pipeline that it builds. None: not said, or not known."""

    pipeline_name: Text | None = None
    model_id: Text | None = None
    scheduler_name: Text | None = None
    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    height: int | None = Field(None, description="pixels")
    width: int | None = Field(None, description="pixels")
    dtype: Literal["float32", "float16", "bfloat16"] | None = None
    acceleration_methods: tuple[str, ...] | None = Field(
        (), description="canonical names, sorted; used for certain. null: unknown as a whole"
    )
    method_parameters: dict[str, dict[str, JsonValue]] = Field(default_factory=dict)
    possible_methods: tuple[str, ...] = Field(
        (), description="used or not: it depends on something that the text does not tell"
    )
    has_unseen_code: bool = Field(
        default=False,
        description="another module's code acts on the pipeline: it may use more methods",
    )
    call_arguments: dict[str, JsonValue] = Field(
        default_factory=dict, description="constants that the pipeline is called with"
    )
    call_method: str = Field("__call__", description="the pipeline's method that generates")


Detail = bool | int | float | Text | None


class Reading(Record):
    """What a side's own process says of the pipeline that ran; untrusted.

    It can spoil a verdict, never make one better. The size is the exception: it is that of the
    pixels that came. Calls, rows and steps are means over the timed batches; a row is one entry of
    the batch that the denoiser gets, and under classifier-free guidance there are two an image and
    step.
    """

    loads: Text | None = Field(None, description="how the file was loaded")
    pipeline_name: Text | None = None
    other_pipelines: tuple[Text, ...] = Field((), description="other pipelines that ran, by class")
    model_id: Text | None = None
    scheduler_name: Text | None = None
    num_inference_steps: int | None = Field(None, description="as the scheduler was told")
    timesteps: int | None = Field(None, description="length of the scheduler's list")
    expected_steps: int | None = Field(
        None, description="denoiser calls that so many inference steps take with this scheduler"
    )
    steps_per_image: float | None = Field(None, description="scheduler steps counted")
    denoiser_name: Text | None = None
    denoiser_calls_per_batch: float | None = None
    scheduler_steps_per_batch: float | None = None
    rows_per_step: float | None = Field(
        None, description="denoiser rows an image and step: 2 under classifier-free guidance"
    )
    guidance: bool | None = Field(None, description="classifier-free guidance")
    guidance_scale: float | None = None
    height: int | None = Field(None, description="pixels, witnessed")
    width: int | None = Field(None, description="pixels, witnessed")
    dtype: Text | None = Field(None, description="of most of the denoiser's weights")
    compute_dtype: Text | None = Field(None, description="of what the denoiser returns")
    attention_processors: dict[Text, int] = Field(default_factory=dict)
    methods: dict[Text, dict[Text, Detail]] = Field(
        default_factory=dict, description="acceleration methods found on the live objects"
    )
    unread: tuple[Text, ...] = Field(
        (), description="what could not be read: then a method that is not found may be there"
    )
    scaled_calls: int | None = Field(
        None, description="where steps are changed: calls of pipelines in which they were"
    )
    unscaled: tuple[Text, ...] = Field(
        (), description="where steps are changed: why calls kept their own"
    )


class Readings(Record):
    """The live readings of both sides; null where there is none."""

    baseline: Reading | None = None
    candidate: Reading | None = None
    problems: tuple[Text, ...] = Field((), description="why a reading is missing")


class Outcome(enum.StrEnum):
    """What comparing one field comes to. OPEN: nothing is asked for; UNKNOWN: not told."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"
    OPEN = "open"


class FieldMatch(Record):
    """One field of a config, compared with the ground truth's."""

    field: str
    candidate: JsonValue
    ground_truth: JsonValue
    match: Outcome


class ConfigMatch(Record):
    """A config compared with a ground truth's, field by field."""

    fields: tuple[FieldMatch, ...]
    rate: float = Field(ge=0, le=1, description="matching fields / fields that are not open")
    matched: bool = Field(description="every field that is not open matches")
    decided: bool = Field(description="no field is unknown")

    @property
    def mismatches(self) -> tuple[FieldMatch, ...]:
        """The fields that certainly differ."""
        return tuple(one for one in self.fields if one.match is Outcome.NO)


def said(value: JsonValue) -> str:
    """A config's value for people."""
    match value:
        case None:
            return "unknown"
        case []:
            return "none"
        case list():
            return ", ".join(map(str, value))
        case dict():
            return ", ".join(f"{name} {said(one)}" for name, one in value.items()) or "none"
    return str(value)


class Configs(Record):
    """What the texts of both sides say."""

    baseline: Config | None = None
    candidate: Config | None = None


class Likeness(Record):
    """How alike two images of one prompt are."""

    psnr_db: float = Field(ge=0, le=100, description="100 stands for equal images")
    ssim: float = Field(ge=-1, le=1)
    clip_cosine: float = Field(ge=-1, le=1, description="of their CLIP embeddings")


class Weather(Record):
    """What card and host were like while a batch was measured. null: not known, or no card."""

    wall_s: float = Field(gt=0, description="seconds from prompts sent to last pixel")
    looks: int = Field(ge=0, description="looks at the card that tell of this batch")
    sm_clock_mhz_mean: float | None = None
    sm_clock_mhz_min: int | None = None
    sm_clock_mhz_limit: int | None = Field(None, description="the highest that the card has")
    memory_clock_mhz_min: int | None = None
    clock_events: tuple[str, ...] | None = Field(
        None, description="NVML's reasons for which clocks were lower than they could be"
    )
    temperature_c_max: int | None = None
    power_w_mean: float | None = None
    energy_j: float | None = Field(None, description="of the whole card, by its own counter")
    utilisation_percent: float | None = Field(None, ge=0, le=100)
    used_bytes_max: int | None = Field(None, description="the card's memory in use, by anybody")
    worker_bytes_max: int | None = Field(
        None, description="the card's memory that this side's processes held, where NVML tells"
    )
    foreign_pids: tuple[int, ...] | None = Field(
        None, description="processes on the card that are not ours"
    )
    foreign_cores: float | None = Field(
        None, ge=0, description="cores that processes of others kept busy, on average"
    )
    free_cores: float | None = Field(None, ge=0, description="cores that were left for us")
    steal_cores: float | None = Field(
        None, ge=0, description="cores that the hypervisor gave to others, on average"
    )
    load_1min: float | None = Field(None, description="the host's load average, ours included")


class Cost(Record):
    """What images took on one side, over some batches. null: not known in at least one of them."""

    images: int
    wall_s: float
    images_per_s: float
    energy_j: float | None = Field(description="of the whole card, its idle share included")
    joules_per_image: float | None
    power_w_mean: float | None
    utilisation_percent: float | None
    used_bytes_max: int | None = Field(description="the card's memory in use, both sides'")
    worker_bytes_max: int | None = Field(description="this side's, where NVML tells")


class FirstGo(Record):
    """A batch whose time was in doubt."""

    time_s: float = Field(gt=0)
    marks: tuple[Text, ...] = Field(description="why its time was in doubt")
    weather: Weather | None


class Batch(Record):
    """One witnessed batch of one side."""

    phase: Literal["warm-up", "timed", "reference"]
    purpose: Purpose
    of: int | None = Field(
        None,
        description="place, from 0 among the baseline's batches, of the one that this one repeats"
        " or gives another seed",
    )
    counts: bool = Field(description="whether speedup and quality stand on this batch")
    seed: int
    time_s: float = Field(
        gt=0,
        description="seconds from prompts sent to last pixel; the candidate's with `leftover_s`",
    )
    leftover_s: float = Field(
        0.0, ge=0, description="seconds of work seen on the GPU after the last pixel"
    )
    scores: tuple[float, ...] = Field(description="CLIP score of each image, 0 to 100")
    weather: Weather | None = Field(None, description="of card and host meanwhile")
    marks: tuple[Text, ...] = Field((), description="why its time is in doubt, and what to do")
    first_go: FirstGo | None = Field(
        None, description="what it was at first; `time_s` and `weather` are of a second go"
    )
    recalled: bool = Field(
        default=False,
        description="not run for this result: images, weather and seconds (times the drift) come"
        " from --baseline-cache",
    )
    same_seed: tuple[Likeness, ...] = Field(
        (), description="each image with the baseline's of the same prompt and seed"
    )
    other_seed: tuple[Likeness, ...] = Field(
        (), description="each image with the baseline's of the same prompt and another seed"
    )


class Side(Record):
    """The witness's record of one side."""

    time_s: float = Field(gt=0, description="witnessed seconds of the batches that count")
    score: float = Field(ge=0, description="mean CLIP score of the images that count")
    batches: tuple[Batch, ...] = Field(description="every batch, warm-up included, in order")
    cost: Cost | None = Field(None, description="of the batches that count")

    @property
    def run_s(self) -> float:
        """Seconds of all batches but the warm-up that ran here, each as it first went."""
        firsts = (one.first_go.time_s if one.first_go else one.time_s for one in self.run)
        return math.fsum(firsts)

    @property
    def run(self) -> tuple[Batch, ...]:
        """All batches but the warm-up that ran here: what the script's claim is about."""
        timed = (one for one in self.batches if one.purpose is not Purpose.WARM_UP)
        return tuple(one for one in timed if not one.recalled)

    @property
    def counted(self) -> tuple[Batch, ...]:
        """The batches that speedup and quality stand on."""
        return tuple(batch for batch in self.batches if batch.counts)


class Part(Record):
    """Speed and quality on some of the batches."""

    speedup: float = Field(description="median of baseline time / candidate time over the pairs")
    quality_loss: float | None = Field(description="1 - candidate score / baseline score")


class Audit(Record):
    """Public prompts held against prompts that nobody could know."""

    seed: int = Field(description="repeats this run's prompts: --audit-seed; secret until its end")
    prompts: Text = Field(description="the grammar or file that they were drawn from")
    prompts_sha256: str
    fixed: Part
    audit: Part
    fixed_faster: float = Field(
        description="how many times faster fixed batches are, the baseline's own share taken out"
    )
    repeat_faster: float | None = Field(description="the same for prompts that came a second time")
    tolerance: float = Field(description="up to here it may be noise, seen in the baseline's times")
    fixed_better: float | None = Field(
        description="percentage points of accuracy that fixed prompts score above audit prompts"
    )
    fixed_better_t: float | None = Field(description="the same in standard errors")
    suspicion: Text | None = Field(description="what is beyond noise")


class Cmmd(Record):
    """CMMD of the images that count; all but `p_value` in the same unit. 0: no difference."""

    value: float = Field(description="unbiased: around 0, also below, where only chance differs")
    published: float = Field(description="by the biased formula of the published code")
    noise: float = Field(description="95 % of the distances that chance makes are below")
    p_value: float = Field(gt=0, le=1, description="share of chance's distances not below `value`")


class Lpips(Record):
    """LPIPS (shift-tolerant, AlexNet): mean over pairs of one prompt and seed, 0 for equal ones."""

    value: float
    error: float = Field(ge=0, description="standard error of the mean")


class ImageReward(Record):
    """Mean ImageReward of both sides, in standard deviations of its training set's rewards."""

    baseline: float
    candidate: float
    difference: float = Field(description="the candidate's less the baseline's")
    difference_ci: tuple[float, float] | None = Field(
        description="95 % interval over pairs of one prompt and seed; null: fewer than 5 pairs"
    )


class Distances(Record):
    """Baseline and candidate as two sets of images. None: not asked for, or withheld."""

    images: int = Field(ge=0, description="of each side")
    cmmd: Cmmd | None = None
    fid: float | None = None
    lpips: Lpips | None = None
    image_reward: ImageReward | None = None
    withheld: tuple[Text, ...] = Field(description="what could not be told, why, what is missing")


class Floor(Record):
    """How alike the baseline's images of different seeds are, and how alike the candidate's."""

    mean: float
    sd: float
    at_least: float = Field(description="for the mean of the candidate's images")
    image_at_least: float = Field(description="for each image; below, its CLIP score counts as 0")
    seen: float = Field(description="mean of the candidate's images")


class Fidelity(Record):
    """The candidate's images held against the baseline's, of the same seed and of another."""

    psnr_db: Floor
    ssim: Floor
    clip_cosine: Floor
    images: int
    discarded: int = Field(description="images whose CLIP score counts as 0")
    below: tuple[str, ...] = Field(description="measures whose mean is below the floor")
    tie_t: float = Field(
        description="mean of what each image has gone of the way from another seed's image to the"
        " same seed's, in standard errors"
    )
    closeness: float = Field(
        description="way from another seed's images (0) to the baseline's (1) that was gone"
    )
    tied_images: int = Field(description="images nearer to the same seed's than to another's")
    tied: bool = Field(description="whether the images follow from the seed as the baseline's do")
    credit: float = Field(
        ge=0, le=1, description="share of the speedup that is credited: that of tied images"
    )


class Claim(Record):
    """What the candidate's own script printed. Reported, compared, never used."""

    time_s: float
    score: float


class Failure(Record):
    """Where a candidate failed, in its own file's terms."""

    file: Text
    line: int | None = Field(description="line in the candidate's own file, from 1; null: unknown")
    phase: str
    message: Text
    traceback: Text = Field(description="as printed by the candidate's process, capped; untrusted")


class Device(Record):
    """Where the work ran."""

    kind: Literal["cuda", "cpu"]
    name: str
    index: int | None = None
    uuid: str | None = None
    memory_bytes: int | None = None
    driver: str | None = None
    cores: tuple[int, ...] = Field((), description="the host's, that both sides are bound to")


class Isolation(Record):
    """What stood between the candidate and the host."""

    backend: IsolationPolicy
    version: str | None = None
    network: bool = Field(description="whether the candidate could reach a network")
    host_files: bool = Field(description="whether it could read the host's files")
    namespaces: tuple[str, ...] = ()
    seccomp: bool = Field(default=False, description="whether its system calls were filtered")
    gaps: tuple[str, ...] = Field(
        default=(), description="what this back end does not deny, of what the others do"
    )


class Attempt(Record):
    """One run of the pair; more than one only after somebody else's memory was on the card."""

    device: str
    verdict: str
    order: Literal["alternate", "whole"]
    foreign_bytes: int


class Drift(Record):
    """A baseline that is recalled from --baseline-cache, held against its live batches."""

    factor: float = Field(
        gt=0,
        description="median of live seconds / cached seconds; cached seconds are multiplied by it",
    )
    low: float = Field(gt=0, description="lower end of the factor's 95 % interval")
    high: float = Field(gt=0, description="its upper end")
    live_s: tuple[float, ...] = Field(description="seconds of the live batches that count")
    cached_s: tuple[float, ...] = Field(description="seconds of the same batches in the cache")
    least_psnr_db: float = Field(
        ge=0, le=100, description="of live images against the cached ones; 100: all are equal"
    )
    noise: float = Field(
        ge=0,
        description="root mean square of the logarithms of the ratios by which the cache's run of"
        " the baseline against itself was off 1",
    )
    noise_pairs: int = Field(ge=1, description="pairs of batches that the noise was seen on")
    cache_sha256: str
    measured_at: str = Field(description="start of the cache's run: UTC, ISO 8601")


class Circumstances(Record):
    """What has to be known to believe, repeat or compare a result."""

    started_at: str = Field(description="UTC, ISO 8601")
    wall_s: float
    phases_s: dict[str, float] = Field(description="wall seconds of each phase of the run")
    candidate_sha256: str | None
    baseline_sha256: str | None
    preset: str
    prompts: Text = Field(description="name of the prompt set")
    prompts_sha256: str
    prompt_count: int
    batch_size: int
    steps_factor: float = Field(1.0, description="times the files' own numbers of inference steps")
    seed: int
    audit_seed: int
    audit_batches: int | None = Field(None, description="audit batches of the plan")
    audit_prompts_sha256: str | None = Field(
        None, description="of the grammar or file that the audit prompts come from"
    )
    allow_untied: bool = False
    baseline_precision: BaselinePrecision | None = None
    metrics: tuple[Text, ...] = ()
    order: Literal["alternate", "whole"]
    clip_model: str
    clip_pretrained: str | None
    quality_meaningful: bool
    stand_ins: dict[Text, Text]
    versions: dict[str, str]
    host: dict[str, str | int | float]
    attempts: tuple[Attempt, ...]
    warnings: tuple[str, ...] = Field(description="reasons to doubt a number, with what to do")


class Decision(Record):
    """How measuring until the targets were decided went."""

    looks: int = Field(ge=0, description="times that the numbers were looked at")
    ended: Literal["decided", "budget", "prompts"] = Field(
        description="nothing left that more images could decide, budget spent, or no unused prompts"
    )
    budget_s: float = Field(description="seconds, at the baseline's pace")


Ends = tuple[float, float]
"""The lower and the upper end of an interval."""


class Result(Record):
    """Everything that is said of one candidate. The published JSON Schema is made from this."""

    schema_version: Literal["1.3"] = SCHEMA_VERSION
    verdict: Verdict
    reason: Text
    passed: bool
    speedup: float | None = Field(
        None, description="median of baseline time / candidate time over the pairs of batches"
    )
    speedup_ci: Ends | None = Field(None, description="null: too few pairs of batches")
    credited_speedup: float | None = Field(
        None,
        description="what the loss stands on: less than the speedup where images are not tied, or"
        " where all batches together are faster by less",
    )
    accuracy: float | None = Field(None, description="candidate score / baseline score")
    quality_loss: float | None = Field(None, description="1 - accuracy; negative: better")
    quality_loss_ci: Ends | None = Field(None, description="null: too few images")
    confidence: float | None = Field(
        None, gt=0, lt=1, description="share of runs whose intervals (`_ci`) hold the true value"
    )
    speed_achievement: float | None = Field(None, ge=0, le=1)
    accuracy_achievement: float | None = Field(None, ge=0, le=1)
    loss: float | None = Field(None, ge=0, le=1, description="lower is better; null: not measured")
    loss_ci: Ends | None = Field(
        None, description="the losses at the good and at the bad ends of both intervals"
    )
    target_speedup: float
    target_quality_loss: float
    decision: Decision | None = Field(None, description="with --until-decided")
    drift: Drift | None = Field(None, description="with --baseline-cache")
    baseline: Side | None = None
    candidate: Side | None = None
    claim: Claim | None = None
    audit: Audit | None = None
    fidelity: Fidelity | None = Field(
        None, description="null: not measured, or the CLIP model's weights are random"
    )
    distances: Distances | None = Field(
        None, description="of the images that count as two sets: for comparison, no target"
    )
    config: Configs | None = Field(None, description="as read from the texts")
    config_match: ConfigMatch | None = Field(None, description="with the ground truth, if given")
    synthesised_baseline: Text | None = Field(
        None, description="text of the baseline that was made from the candidate's config"
    )
    live: Readings | None = Field(None, description="as the running processes say; untrusted")
    contradictions: tuple[Text, ...] = Field(
        (), description="where text, live pipeline and baseline differ"
    )
    no_ops: tuple[Text, ...] = Field(
        (), description="methods that are in a text but took no effect"
    )
    failure: Failure | None = None
    device: Device | None = None
    isolation: Isolation | None = None
    circumstances: Circumstances | None = None


@dataclass(frozen=True, slots=True)
class Traces:
    """What came of one side besides times and scores.

    `report` is the untrusted text of its REPORT, None if it ended without one. `digests` are the
    SHA-256 of each image's pixels, by the place of its batch in the plan; `size_px` is (width,
    height).
    """

    report: bytes | None = None
    digests: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    size_px: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Measured:
    """Both sides as witnessed, and what both scripts printed (the candidate's is untrusted)."""

    baseline: Side
    candidate: Side
    claim_stdout: str
    order: Literal["alternate", "whole"]
    baseline_traces: Traces = Traces()
    candidate_traces: Traces = Traces()
    baseline_stdout: str = ""
    distances: Distances | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """The candidate failed: a verdict with its reason."""

    verdict: Verdict
    reason: str
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the numbers come to."""

    verdict: Verdict
    reason: str
    speedup: float | None = None
    speedup_ci: Ends | None = None
    credited_speedup: float | None = None
    accuracy: float | None = None
    quality_loss_ci: Ends | None = None
    confidence: float | None = None
    speed_achievement: float | None = None
    accuracy_achievement: float | None = None
    loss: float | None = None
    loss_ci: Ends | None = None
    claim: Claim | None = None

    def without_loss(self, verdict: Verdict, reason: str) -> Judgement:
        """Another verdict, for numbers that no loss may be made from."""
        return replace(self, verdict=verdict, reason=reason, loss=None, loss_ci=None)
