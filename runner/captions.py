"""Stage 3: prompts that nobody could know, drawn for one run.

A grammar is a TOML file of rules: each name stands for several texts, in which `{other}` stands for
one of the texts of that rule. `origin` is where a caption begins. Instead of a grammar, a private
file with a prompt a line may be drawn from.
"""

from __future__ import annotations

import hashlib
import random
import re
import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from runner import paths
from runner.records import NoPromptsError, PromptLength

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_TRIES: Final = 1000
"""Draws for each wanted caption, before a grammar is called too small."""
EXTREME_SHARE: Final = 0.1
"""Of a source's captions: so many are short, and so many long."""
_SAMPLE: Final = 2000
"""Captions that are drawn to see how long they are: the limits are off by some characters."""
_MORE_TRIES: Final = 10_000
_HOLE: Final = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, slots=True)
class Source:
    """Where fresh prompts are drawn from: its name, its text's SHA-256, and how to draw one."""

    name: str
    digest: str
    draw: Callable[[random.Random], str]


def from_grammar(name: str) -> Source:
    """One of the project's grammars: `prompts/NAME.grammar.toml`."""
    text = (paths.PROMPTS / f"{name}.grammar.toml").read_text(encoding="utf-8")
    rules = tomllib.loads(text)

    def draw(rng: random.Random) -> str:
        return _expand("{origin}", rules, rng)

    return Source(f"{name} grammar", hashlib.sha256(text.encode()).hexdigest(), draw)


def from_prompts(name: str, digest: str, prompts: Sequence[str]) -> Source:
    """A private file's prompts."""
    return Source(name, digest, lambda rng: rng.choice(prompts))


def of_length(source: Source, length: PromptLength) -> Source:
    """The shortest or longest tenth of a source, by characters; all of it for any length."""
    if length is PromptLength.ANY:
        return source
    sample_rng = random.Random(0)  # noqa: S311  (what is long is no secret)
    counts = sorted(len(source.draw(sample_rng)) for _ in range(_SAMPLE))
    place = round(EXTREME_SHARE * (_SAMPLE - 1))
    is_short = length is PromptLength.SHORT
    limit = counts[place] if is_short else counts[-1 - place]

    def draw(rng: random.Random) -> str:
        for _ in range(_MORE_TRIES):
            caption = source.draw(rng)
            if len(caption) <= limit if is_short else len(caption) >= limit:
                return caption
        message = f"{source.name} has hardly any {length} prompts"
        raise NoPromptsError(message)

    return Source(f"{source.name}, {length}", source.digest, draw)


def joined(source: Source, words: int) -> Source:
    """Captions that are several of a source's, one after the other, of up to so many words."""

    def draw(rng: random.Random) -> str:
        text = source.draw(rng)
        while len((longer := f"{text}. {source.draw(rng)}").split()) <= words:
            text = longer
        return text

    return Source(f"{source.name}, {PromptLength.LONG}", source.digest, draw)


def draw_distinct(
    source: Source, count: int, avoid: frozenset[str], rng: random.Random
) -> list[str]:
    """Draw `count` prompts, no two alike and none in `avoid`, or raise `NoPromptsError`."""
    found: dict[str, None] = {}
    for _ in range(_TRIES * count):
        if len(found) == count:
            break
        caption = source.draw(rng)
        if caption not in avoid:
            found[caption] = None
    if len(found) < count:
        message = (
            f"{source.name} has only {len(found)} prompts that are not in the prompt set,"
            f" and {count} audit prompts are needed: use more, or fewer batches (--audit-batches)"
        )
        raise NoPromptsError(message)
    return list(found)


def _expand(text: str, rules: Mapping[str, Sequence[str]], rng: random.Random) -> str:
    return _HOLE.sub(lambda hole: _expand(rng.choice(rules[hole[1]]), rules, rng), text)
