"""Stage 3: prompts that nobody could know, drawn for one run.

A grammar is a TOML file of rules: each name stands for several texts, in which `{other}` stands for
one of the texts of that rule. `origin` is where a caption begins. Instead of a grammar, a private
file with a prompt a line may be drawn from.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from runner import paths
from runner.records import NoPromptsError

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Mapping, Sequence

_TRIES: Final = 1000
"""Draws for each wanted caption, before a grammar is called too small."""
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
