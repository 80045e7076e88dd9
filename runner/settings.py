"""What a run was asked for: parsed once, validated, frozen. Nobody reads flags after this."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import psutil
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from runner import compare
from runner.records import BaselinePrecision, IsolationPolicy, PromptLength, SpeedtrapError

MAX_SEED: Final = 2**31
"""Batches count up from the seed, and numpy's generator takes no seed from 2**32 on."""
MEMORY_SHARE: Final = 0.45
"""Both sides are resident, and the scorer."""
MAX_AUDIT_SEED: Final = 2**53
"""Any JSON reader keeps whole numbers exactly up to here."""
MAX_AUDIT_BATCHES: Final = 1000
MAX_TIMEOUT_S: Final = 365 * 86400.0
"""Sockets take no longer timeout than some centuries."""


@dataclass(frozen=True, slots=True, config=ConfigDict(extra="forbid"))
class Settings:
    """One scoring of one candidate. None leaves a choice to the preset.

    `timeout_s` bounds the load, and each batch on its own. `memory_limit_bytes` bounds the host
    memory of each worker; None: 45 % of what is available at the start. `quality` is in [0, 1].
    Without a `baseline`, one is made from the candidate's text, in `baseline_precision`, and also
    written to `save_baseline`. `against` is a ground truth; `fields` of its config are compared,
    less `open_fields`, before a device is taken.
    With `until_decided`, prompts are added until the targets are decided, for up to `budget_s`.
    `audit_batches` with prompts that were drawn for this run are mixed among the fixed ones; None:
    three times as many, 0: none, and the numbers stand on public prompts. They come from
    `audit_prompts` (a private text file, a prompt a line) or else from the preset's grammar.
    `audit_seed` repeats those of an earlier run; None: secret. `allow_untied` accepts images that
    do not follow from the seed as the baseline's do, from a sampler that adds noise for one.
    `baseline_cache` is a file that the baseline is recalled from, and is made if it is not there.
    `metrics` are further ones: `lpips`, `fid` or `fid=FILE` with weights of Inception,
    `imagereward` or `imagereward=FOLDER` with its weights.
    With `prompt_length`, all prompts are short or long ones of where audit prompts come from. There
    are `fixed_batches` of the public ones, by default as many as the prompt set has.
    `steps_factor` multiplies the number of inference steps in both files' pipeline calls.
    Raises `SpeedtrapError` for a value out of its range.
    """

    candidate: Path
    baseline: Path | None = None
    target_speedup: float | None = None
    target_quality_loss: float = 0.02
    preset: str | None = None
    prompts: str | None = None
    clip: str | None = None
    batch_size: int = 5
    seed: int = 42
    device: str = "auto"
    wait_s: float = 600.0
    timeout_s: float = 600.0
    memory_limit_bytes: int | None = None
    sandbox: IsolationPolicy = IsolationPolicy.AUTO
    stand_ins: Mapping[str, str] = Field(default_factory=dict)
    readable: tuple[Path, ...] = ()
    keep: Path | None = None
    baseline_precision: BaselinePrecision = BaselinePrecision.SAME
    save_baseline: Path | None = None
    against: Path | None = None
    fields: tuple[str, ...] = compare.REQUIRED
    open_fields: tuple[str, ...] = ()
    until_decided: bool = False
    budget_s: float = 600.0
    audit_batches: int | None = None
    audit_prompts: Path | None = None
    audit_seed: int | None = None
    allow_untied: bool = False
    metrics: tuple[str, ...] = ()
    prompt_length: PromptLength = PromptLength.ANY
    fixed_batches: int | None = None
    steps_factor: float = 1.0
    baseline_cache: Path | None = None

    def __post_init__(self) -> None:
        """Refuse what could only fail later."""
        if self.target_speedup is not None:
            _require(self.target_speedup > 0, "the target speedup must be above 0")
            _require(math.isfinite(self.target_speedup), "the target speedup must be finite")
        _require(0 <= self.target_quality_loss <= 1, "the target quality loss must be in 0 to 1")
        _require(0 <= self.seed < MAX_SEED, "the seed must be in 0 to 2**31 - 1")
        _require(0 < self.timeout_s <= MAX_TIMEOUT_S, "the timeout must be above 0, at most a year")
        _require(0 <= self.wait_s < math.inf, "the waiting time must be 0 or more and finite")
        limit = self.memory_limit_bytes
        _require(limit is None or limit > 0, "the memory limit must be above 0")
        for folder in self.readable:
            _require(folder.is_dir(), f"{folder} is not a folder; --allow-read takes folders")
        if self.keep is not None and self.keep.exists():
            _require(self.keep.is_dir(), f"{self.keep} is not a folder; --keep takes a folder")
            _require(os.access(self.keep, os.W_OK), f"{self.keep} is not writable")
        _require(
            self.audit_batches is None or 0 <= self.audit_batches <= MAX_AUDIT_BATCHES,
            f"the number of audit batches must be 0 to {MAX_AUDIT_BATCHES}",
        )
        _require(
            self.audit_seed is None or 0 <= self.audit_seed < MAX_AUDIT_SEED,
            f"the audit seed must be in 0 to {MAX_AUDIT_SEED - 1}",
        )
        _require(
            self.fixed_batches is None or 1 <= self.fixed_batches <= MAX_AUDIT_BATCHES,
            f"the number of fixed batches must be 1 to {MAX_AUDIT_BATCHES}",
        )
        _require(0 < self.steps_factor < math.inf, "the factor of steps must be above 0 and finite")
        _require(0 < self.budget_s < math.inf, "the budget must be above 0 and finite")
        _require(
            not (self.until_decided and self.audit_batches == 0),
            "to measure until the targets are decided takes audit batches: leave out"
            " --audit-batches 0",
        )
        for metric in self.metrics:
            named = metric.startswith(("fid=", "imagereward="))
            _require(
                named or metric in {"lpips", "fid", "imagereward"},
                f"there is no metric {metric!r}; choose lpips, fid, fid=FILE, imagereward or"
                " imagereward=FOLDER",
            )
        if self.baseline_cache is not None:
            self._check_cache(self.baseline_cache)
        compare.check_fields((*self.fields, *self.open_fields))
        if self.save_baseline is not None:
            _require(self.baseline is None, "--save-baseline writes the baseline that is made here")
            for role, path in (("candidate", self.candidate), ("ground truth", self.against)):
                is_input = path is not None and _is_same(self.save_baseline, path)
                _require(not is_input, f"--save-baseline would overwrite the {role}")

    def _check_cache(self, path: Path) -> None:
        _require(
            self.baseline is not None,
            "--baseline-cache keeps what one baseline made: name it with --baseline (a baseline"
            " that is made here is another one for each candidate; --save-baseline writes it)",
        )
        _require(
            not path.exists() or path.is_file(), f"{path} is no file; --baseline-cache takes one"
        )
        _require(
            not self.until_decided,
            "--until-decided and --baseline-cache exclude each other: more batches do not make a"
            " recalled baseline surer",
        )
        folder = path.absolute().parent
        _require(folder.is_dir(), f"there is no folder {folder} for the file of --baseline-cache")

    def memory_limit(self) -> int:
        """Bytes of host memory that each worker may use."""
        if self.memory_limit_bytes is not None:
            return self.memory_limit_bytes
        return int(psutil.virtual_memory().available * MEMORY_SHARE)


def parse_stand_in(text: str) -> tuple[str, str]:
    """Read `NAME=OTHER`."""
    name, equals, other = text.partition("=")
    _require(
        bool(name and equals and other), f"cannot read the stand-in {text!r}; write NAME=OTHER"
    )
    return name, other


def parse_gib(gib: float) -> int:
    """Bytes of a number of GiB."""
    _require(0 < gib < math.inf, "the memory limit must be above 0 and finite")
    return int(gib * 1024**3)


def _is_same(one: Path, other: Path) -> bool:
    """Whether both are one file, whatever links and `..` they are written with."""
    try:
        return one.samefile(other)
    except OSError:  # one of them is not there
        return os.path.realpath(one) == os.path.realpath(other)


def _require(condition: bool, message: str) -> None:  # noqa: FBT001  (it is the condition)
    if not condition:
        raise SpeedtrapError(message)
