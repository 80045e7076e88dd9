"""What must agree before two results may be compared, or a baseline's seconds be used again.

Every result is a ratio to a baseline that ran beside it, so much may differ: the card itself, its
clocks, the hour, the audit seed (each side of a pair gets the same prompts), the order of the
sides, the number of batches (the interval tells). What the ratio itself depends on must agree.
Seconds that were measured at another time are no ratio: for them nearly everything must.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from runner.records import Result


class Use(enum.Flag):
    """What two results are held against each other for."""

    SPEEDUP = enum.auto()
    QUALITY = enum.auto()
    LOSS = enum.auto()
    REUSE = enum.auto()
    """Of a baseline's seconds and images in another run."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One thing that must agree for `uses`.

    `path` leads to it from a `Result`; where it ends in `*`, there is one thing for each key. `of`
    makes of a value what is compared. `on_cpu`: only where the work ran on the CPU.
    """

    path: str
    name: str
    why: str
    uses: Use
    of: Callable[[object], object] = lambda value: value
    on_cpu: bool = False


@dataclass(frozen=True, slots=True)
class Difference:
    """Something that should agree and does not. Values are for people; None: not told."""

    field: str
    name: str
    one: str | None
    other: str | None
    why: str

    def __str__(self) -> str:
        """One line, with both values and the reason."""
        ours, theirs = ("not told" if value is None else value for value in (self.one, self.other))
        return f"{self.name}: {ours} against {theirs} ({self.why})"


def _count(value: object) -> object:
    return len(value) if isinstance(value, tuple) else value


_RATIOS: Final = Use.SPEEDUP | Use.QUALITY
_ALL: Final = _RATIOS | Use.REUSE

RULES: Final = (
    Rule(
        "circumstances.baseline_sha256",
        "baseline file",
        "all numbers are relative to it",
        _ALL,
    ),
    Rule("circumstances.stand_ins.*", "stand-in for", "another model is other work", _ALL),
    Rule("circumstances.steps_factor", "factor of steps", "more steps are more work", _ALL),
    Rule("circumstances.batch_size", "batch size", "it changes work and noise of an image", _ALL),
    Rule(
        "circumstances.prompts_sha256",
        "prompt set",
        "other prompts are other work and other images",
        _ALL,
    ),
    Rule(
        "circumstances.audit_prompts_sha256",
        "source of the audit prompts",
        "other prompts are other work and other images",
        _ALL,
    ),
    Rule("circumstances.versions.*", "version of", "it changes speed or images", _ALL),
    Rule(
        "circumstances.seed",
        "seed",
        "the fixed prompts have other images",
        Use.QUALITY | Use.REUSE,
    ),
    Rule(
        "circumstances.clip_model",
        "CLIP model",
        "each has a scale of its own",
        Use.QUALITY | Use.REUSE,
    ),
    Rule(
        "circumstances.clip_pretrained",
        "weights of the CLIP model",
        "each has a scale of its own",
        Use.QUALITY | Use.REUSE,
    ),
    Rule(
        "circumstances.allow_untied",
        "images that do not follow from the seed allowed",
        "one is credited for what the other is not",
        _RATIOS,
    ),
    Rule("device.kind", "kind of device", "a method gains differently", Use.SPEEDUP | Use.REUSE),
    Rule("device.name", "device", "a method gains differently", Use.SPEEDUP | Use.REUSE),
    Rule("device.driver", "driver", "it launches and compiles kernels", Use.SPEEDUP | Use.REUSE),
    Rule(
        "isolation.backend",
        "sandbox",
        "what it costs draws ratios towards 1",
        Use.SPEEDUP | Use.REUSE,
    ),
    Rule(
        "device.cores",
        "number of cores",
        "a method gains differently",
        Use.SPEEDUP,
        of=_count,
        on_cpu=True,
    ),
    Rule("device.cores", "cores", "seconds depend on them", Use.REUSE),
    Rule("device.uuid", "card", "no two cards are equally fast", Use.REUSE),
    Rule("circumstances.host.cpu", "processor", "it launches the kernels", Use.REUSE),
    Rule(
        "circumstances.host.omp_num_threads",
        "OMP_NUM_THREADS",
        "both sides get it, and seconds depend on it",
        Use.REUSE,
    ),
    Rule("circumstances.host.kernel", "kernel", "seconds depend on it", Use.REUSE),
    Rule("circumstances.audit_batches", "number of audit batches", "they are cached", Use.REUSE),
    Rule(
        "circumstances.audit_batches",
        "fresh prompts",
        "files can be prepared for public ones",
        _RATIOS,
        of=bool,
    ),
    Rule("circumstances.audit_seed", "audit seed", "its prompts are cached", Use.REUSE),
    Rule(
        "circumstances.quality_meaningful",
        "quality measured",
        "its images are cached, or not",
        Use.QUALITY | Use.REUSE,
    ),
    Rule("target_speedup", "target speedup", "the loss is about it", Use.LOSS),
    Rule("target_quality_loss", "target quality loss", "the loss is about it", Use.LOSS),
)


def differences(one: Result, other: Result, use: Use) -> tuple[Difference, ...]:
    """What should agree between two results for any of `use`, and does not."""
    found = (
        difference
        for rule in RULES
        if rule.uses & use and not (rule.on_cpu and _is_on_card(one, other))
        for difference in _hold(rule, one, other)
    )
    return tuple(found)


def in_words(found: Iterable[Difference]) -> str:
    """The differences for people, one a line."""
    return "\n".join(f"- {one}" for one in found)


def _is_on_card(*results: Result) -> bool:
    return any(one.device is not None and one.device.kind != "cpu" for one in results)


def _hold(rule: Rule, one: Result, other: Result) -> Iterator[Difference]:
    path = rule.path.removesuffix(".*")
    ours, theirs = (rule.of(_at(result, path)) for result in (one, other))
    if path == rule.path:
        if ours != theirs:
            yield Difference(path, rule.name, _said(ours), _said(theirs), rule.why)
        return
    our_own, their_own = (value if isinstance(value, Mapping) else {} for value in (ours, theirs))
    for key in sorted({*our_own, *their_own}):
        a, b = our_own.get(key), their_own.get(key)
        if a != b:
            yield Difference(f"{path}.{key}", f"{rule.name} {key}", _said(a), _said(b), rule.why)


def _at(result: Result, path: str) -> object:
    """The value at a path of names and keys; None where there is none."""
    value: object = result
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else getattr(value, name, None)
    return value


def _said(value: object) -> str | None:
    match value:
        case None:
            return None
        case bool():
            return "yes" if value else "no"
        case tuple():
            return ", ".join(map(str, value)) or "none"
    return str(value)
