"""Stage 3: which prompts are measured, with which CLIP model, and in which batches.

A preset names what belongs together: the prompt set, the CLIP model that can judge it, and the
default targets. The preset follows from the baseline's model and can be overridden.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from runner import captions, paths, wire
from runner.records import PlannedBatch, PromptLength, Purpose, SpeedtrapError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

WARMUP_BATCHES: Final = 1
AUDIT_TIMES: Final = 3
"""Audit batches for each fixed one: for 15 fixed prompts in batches of 5 that is nine pairs, enough
for an interval of their median that one disturbed pair on either side does not widen."""
LEAST_AUDIT_BATCHES: Final = 9
LONG_WORDS: Final = 55
"""CLIP's text encoders take 77 tokens, two of which begin and end them; longer texts are cut."""
TINY_SD: Final = "speedtrap/tiny-sd"
_COCO = re.compile(r"coco:(?P<count>[1-9][0-9]{0,5})(?:@(?P<dataset>.+))?")
MAX_BATCH_BYTES: Final = 128 * 1024
"""A batch of prompts waits in the channel for a stopped worker; the kernel keeps twice as much."""
_SEEDS: Final = 2**32
"""numpy's generator takes no seed from here on."""
_COCO_TIMEOUT_S: Final = 300.0
"""Opening a cached data set takes seconds; on a slow network file system, minutes."""


@dataclass(frozen=True, slots=True)
class ClipModel:
    """An open_clip model: `name` as open_clip knows it, `pretrained` a tag or None (random)."""

    name: str
    pretrained: str | None

    @property
    def is_meaningful(self) -> bool:
        """Whether its scores say anything about quality; random weights do not."""
        return self.pretrained is not None or self.name.startswith("local-dir:")


@dataclass(frozen=True, slots=True)
class Preset:
    """What belongs to a kind of baseline. `grammar` is what audit prompts are drawn from.

    Long prompts are several of its captions in a row, of up to `joined_words`; None: the longest of
    its captions, since the model understands no more.
    """

    name: str
    prompts: str
    grammar: str
    clip: ClipModel
    target_speedup: float
    joined_words: int | None = None


@dataclass(frozen=True, slots=True)
class PromptSet:
    """Prompts in their fixed order, with the SHA-256 of the text that they came from."""

    name: str
    prompts: tuple[str, ...]
    digest: str


PRESETS: Final = {
    preset.name: preset
    for preset in (
        Preset("embedded", "tiny-20", "tiny", ClipModel("local-dir:tiny-clip", None), 1.5),
        Preset(
            name="natural",
            prompts="natural-20",
            grammar="natural",
            clip=ClipModel("ViT-g-14", "laion2b_s34b_b88k"),
            target_speedup=10.0,
            joined_words=LONG_WORDS,
        ),
    )
}


def choose_preset(name: str | None, models: Iterable[str]) -> Preset:
    """Return the preset called `name`, or without a name the one for a baseline of `models`."""
    if name is None:
        return PRESETS["embedded" if TINY_SD in models else "natural"]
    if name not in PRESETS:
        message = f"there is no preset {name!r}; choose one of {', '.join(sorted(PRESETS))}"
        raise SpeedtrapError(message)
    return PRESETS[name]


def parse_clip(text: str) -> ClipModel:
    """Read `MODEL:TAG`, `MODEL:random` (random weights) or `local-dir:FOLDER`."""
    if text.startswith("local-dir:"):
        return ClipModel(text, None)
    name, colon, tag = text.partition(":")
    if not (name and colon and tag):
        message = (
            f"cannot read the CLIP model {text!r}; write MODEL:TAG (as open_clip lists them),"
            " MODEL:random or local-dir:FOLDER"
        )
        raise SpeedtrapError(message)
    return ClipModel(name, None if tag == "random" else tag)


def load(name: str) -> PromptSet:
    """Load a prompt set: one of the project's by name, `coco:N`, or a text file, one a line.

    `coco:N@DATASET` names another data set of COCO's layout: a cached one, or a local folder.
    """
    if match := _COCO.fullmatch(name):
        return _from_text(name, "\n".join(_coco_captions(match["count"], match["dataset"])))
    shipped = sorted(path.stem for path in paths.PROMPTS.glob("*.txt"))
    path = paths.PROMPTS / f"{name}.txt" if name in shipped else Path(name)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        known = ", ".join(shipped)
        message = f"no prompt set {name!r} ({error}); use one of {known}, coco:N, or a text file"
        raise SpeedtrapError(message) from error
    return _from_text(name if name in shipped else path.name, text)


def plan(prompts: PromptSet, batch_size: int, seed: int) -> tuple[PlannedBatch, ...]:
    """Cut a prompt set into the warm-up batch and the timed ones, with a seed each."""
    if not 1 <= batch_size <= wire.MAX_BATCH:
        message = f"the batch size must be 1 to {wire.MAX_BATCH}, not {batch_size}"
        raise SpeedtrapError(message)
    needed = batch_size * (WARMUP_BATCHES + 1)
    if len(prompts.prompts) < needed:
        message = (
            f"prompt set {prompts.name} has {len(prompts.prompts)} prompts; a warm-up and one"
            f" timed batch of {batch_size} need {needed}: use more prompts or a smaller batch"
        )
        raise SpeedtrapError(message)
    starts = range(0, len(prompts.prompts), batch_size)
    return _bounded(
        PlannedBatch(
            seed=seed + number,
            prompts=prompts.prompts[start : start + batch_size],
            purpose=Purpose.FIXED if number >= WARMUP_BATCHES else Purpose.WARM_UP,
        )
        for number, start in enumerate(starts)
    )


def fitted(
    prompts: PromptSet, source: captions.Source, count: int, *, keep: bool = True
) -> PromptSet:
    """A prompt set of exactly `count`: its first ones, and then some of `source`, always the same.

    Without `keep`, all are of `source`.
    """
    kept = prompts.prompts[:count] if keep else ()
    rng = random.Random(prompts.digest)  # noqa: S311  (public like the others)
    drawn = captions.draw_distinct(source, count - len(kept), frozenset(kept), rng)
    named = prompts.name if keep else f"{prompts.name}, but of the {source.name}"
    return _from_text(named, "\n".join([*kept, *drawn]))


def _bounded(batches: Iterable[PlannedBatch]) -> tuple[PlannedBatch, ...]:
    """The batches, none too large for the channel."""
    found = tuple(batches)
    for batch in found:
        count = sum(len(prompt.encode()) for prompt in batch.prompts)
        if count > MAX_BATCH_BYTES:
            message = (
                f"a batch of prompts has {count} bytes, at most {MAX_BATCH_BYTES} are taken: use a"
                " smaller batch or shorter prompts"
            )
            raise SpeedtrapError(message)
    return found


def audit_source(
    preset: Preset, file: Path | None, length: PromptLength = PromptLength.ANY
) -> captions.Source:
    """Where audit prompts come from: the private `file`, or the preset's grammar."""
    if file is not None:
        return captions.of_length(_from_file(file), length)
    source = captions.from_grammar(preset.grammar)
    if length is PromptLength.LONG and preset.joined_words is not None:
        return captions.joined(source, preset.joined_words)
    return captions.of_length(source, length)


def _from_file(file: Path) -> captions.Source:
    try:
        prompts = _from_text(file.name, file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        message = f"cannot read the audit prompts {file}: {error}; give a text file, one a line"
        raise SpeedtrapError(message) from error
    if not prompts.prompts:
        message = f"{file} has no prompt; give a text file with a prompt a line"
        raise SpeedtrapError(message)
    return captions.from_prompts(file.name, prompts.digest, prompts.prompts)


def with_audit(
    fixed: Sequence[PlannedBatch],
    source: captions.Source,
    count: int | None,
    seed: int,
    *,
    has_floors: bool = True,
) -> tuple[PlannedBatch, ...]:
    """Mix `count` audit batches among the timed ones of `fixed`, by the secret `seed`.

    Without a `count`, there are `AUDIT_TIMES` as many as fixed ones. After all of them comes one
    audit batch once more, and with `has_floors` the baseline gets every batch that counts with
    another seed: the audit batches, or without any the fixed ones.
    """
    warm_up = [batch for batch in fixed if not batch.timed]
    timed = [batch for batch in fixed if batch.timed]
    rng = random.Random(seed)  # noqa: S311  (seeded by `secrets`; a run can be repeated)
    audit = _draw_audit(fixed, source, _default_count(timed) if count is None else count, rng)
    mixed = [*timed, *audit]
    rng.shuffle(mixed)
    plan = [*warm_up, *mixed]
    counting = Purpose.AUDIT if audit else Purpose.FIXED
    places = [place for place, batch in enumerate(plan) if batch.purpose is counting]
    if audit:
        again = rng.choice(places)
        plan.append(replace(plan[again], purpose=Purpose.REPEAT, of=again))
    if has_floors:
        plan += [_other_seed(plan[place], place, rng) for place in places]
    return _bounded(plan)


def _other_seed(batch: PlannedBatch, place: int, rng: random.Random) -> PlannedBatch:
    return replace(batch, purpose=Purpose.OTHER_SEED, of=place, seed=_secret_seed(rng))


def _default_count(timed: Sequence[PlannedBatch]) -> int:
    return max(LEAST_AUDIT_BATCHES, AUDIT_TIMES * len(timed))


@dataclass(frozen=True, slots=True)
class Further:
    """Draws audit batches after those of a plan: no prompt comes twice."""

    source: captions.Source
    size: int
    known: set[str]
    rng: random.Random
    has_floors: bool

    @classmethod
    def after(
        cls, plan: Sequence[PlannedBatch], source: captions.Source, seed: int, *, has_floors: bool
    ) -> Further:
        """Go on from `plan`, by the secret `seed`."""
        known = {prompt for batch in plan for prompt in batch.prompts}
        rng = random.Random(f"after {seed}")  # noqa: S311  (seeded by `secrets`; can be repeated)
        return cls(source, len(plan[0].prompts), known, rng, has_floors)

    def batches(self, plan: Sequence[PlannedBatch], count: int) -> tuple[PlannedBatch, ...]:
        """`count` batches to add to `plan`, each followed by itself with another seed.

        Images are not kept for long that way. Raises `NoPromptsError`, with no prompt used up,
        where there are not so many left.
        """
        drawn = captions.draw_distinct(
            self.source, count * self.size, frozenset(self.known), self.rng
        )
        self.known.update(drawn)
        longer = list(plan)
        for batch in _cut(drawn, self.size, self.rng):
            longer.append(batch)
            if self.has_floors:
                longer.append(_other_seed(batch, len(longer) - 1, self.rng))
        return _bounded(longer[len(plan) :])


def _draw_audit(
    fixed: Sequence[PlannedBatch], source: captions.Source, count: int, rng: random.Random
) -> list[PlannedBatch]:
    size = len(fixed[0].prompts)
    known = frozenset(prompt for batch in fixed for prompt in batch.prompts)
    drawn = captions.draw_distinct(source, count * size, known, rng)
    return _cut(drawn, size, rng)


def _cut(prompts: Sequence[str], size: int, rng: random.Random) -> list[PlannedBatch]:
    return [
        PlannedBatch(_secret_seed(rng), tuple(prompts[start : start + size]), Purpose.AUDIT)
        for start in range(0, len(prompts), size)
    ]


def _secret_seed(rng: random.Random) -> int:
    return rng.randrange(_SEEDS)


def _from_text(name: str, text: str) -> PromptSet:
    prompts = tuple(line.strip() for line in text.splitlines() if line.strip())
    for prompt in prompts:
        if len(prompt.encode()) > wire.MAX_PROMPT_BYTES:
            message = f"prompt set {name}: a prompt is longer than {wire.MAX_PROMPT_BYTES} bytes"
            raise SpeedtrapError(message)
    return PromptSet(name, prompts, hashlib.sha256("\n".join(prompts).encode()).hexdigest())


def _coco_captions(count: str, dataset: str | None) -> list[str]:
    """First captions of COCO 2017's validation split, read by a process of its own.

    `datasets` brings pyarrow and pandas, which the controller must not carry.
    """
    search_path = os.pathsep.join([str(paths.ROOT), *filter(None, sys.path)])
    try:
        run = subprocess.run(
            [sys.executable, "-P", "-m", "runner.coco", count, *([dataset] if dataset else [])],
            capture_output=True,
            text=True,
            timeout=_COCO_TIMEOUT_S,
            check=False,
            env={**os.environ, "PYTHONPATH": search_path},
        )
    except subprocess.TimeoutExpired as error:
        message = f"cannot read coco:{count}: not read within {_COCO_TIMEOUT_S:g} s; try again"
        raise SpeedtrapError(message) from error
    if run.returncode != 0:
        last = (run.stderr.strip().splitlines() or [f"exit status {run.returncode}"])[-1]
        message = f"cannot read coco:{count}: {last}"
        raise SpeedtrapError(message)
    captions: list[str] = json.loads(run.stdout)
    return captions
