"""Captions of simple scenes, drawn at random. Standard library only.

A scene is one or two coloured shapes on a plain background, described by one sentence:

    a small green star at the top of a black background
    a large red circle above a small blue square on a white background

Every scene has exactly one caption. A stable hash of its meaning puts it on one side of the split,
'train' or 'held-out'; two captions that mean the same ("A above B", "B below A") are always on the
same side.

    >>> import random
    >>> draw_caption(random.Random(7), split="held-out").held_out
    True
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator

Split = Literal["train", "held-out", "any"]

SIZES = ("small", "large")
COLOURS = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink")
SHAPES = ("circle", "square", "triangle", "star", "diamond", "cross", "ring", "heart")
BACKGROUNDS = ("white", "black", "gray", "brown")
PLACES = {
    "center": "on",
    "top": "at the top of",
    "bottom": "at the bottom of",
    "left": "on the left of",
    "right": "on the right of",
}
RELATIONS = {
    "above": "above",
    "below": "below",
    "left": "to the left of",
    "right": "to the right of",
}
OPPOSITE = {
    "above": "below",
    "below": "above",
    "left": "right",
    "right": "left",
    "top": "bottom",
    "bottom": "top",
    "center": "center",
}

SINGLE_SHARE = 0.2
HELD_OUT_ONE_IN = 64


@dataclass(frozen=True)
class Thing:
    """One coloured shape."""

    size: str
    colour: str
    shape: str

    @property
    def phrase(self) -> str:
        """The noun phrase, article included."""
        return f"a {self.size} {self.colour} {self.shape}"


@dataclass(frozen=True)
class Scene:
    """One or two things on a background.

    `where` is a key of PLACES for one thing, and of RELATIONS (first to second) for two.
    """

    things: tuple[Thing, ...]
    where: str
    background: str

    @property
    def is_pair(self) -> bool:
        """Whether there are two things."""
        return len(self.things) > 1

    @property
    def caption(self) -> str:
        """The one sentence that describes this scene."""
        ground = f"a {self.background} background"
        first = self.things[0].phrase
        if not self.is_pair:
            return f"{first} {PLACES[self.where]} {ground}"
        return f"{first} {RELATIONS[self.where]} {self.things[1].phrase} on {ground}"

    @property
    def canonical(self) -> Scene:
        """The same meaning with 'below' and 'right' turned into 'above' and 'left'."""
        if self.is_pair and self.where in ("below", "right"):
            return Scene(self.things[::-1], OPPOSITE[self.where], self.background)
        return self

    @property
    def key(self) -> int:
        """A stable 63-bit number, equal for scenes of equal meaning."""
        digest = hashlib.sha256(self.canonical.caption.encode()).digest()
        return int.from_bytes(digest[:8], "big") >> 1

    @property
    def held_out(self) -> bool:
        """Whether training must never see this scene (one in HELD_OUT_ONE_IN)."""
        return self.key % HELD_OUT_ONE_IN == 0


def _draw_thing(rng: random.Random) -> Thing:
    return Thing(rng.choice(SIZES), rng.choice(COLOURS), rng.choice(SHAPES))


def _draw_any(rng: random.Random) -> Scene:
    first, background = _draw_thing(rng), rng.choice(BACKGROUNDS)
    if rng.random() < SINGLE_SHARE:
        return Scene((first,), rng.choice(tuple(PLACES)), background)
    second = _draw_thing(rng)
    while second == first:
        second = _draw_thing(rng)
    return Scene((first, second), rng.choice(tuple(RELATIONS)), background)


def draw_caption(rng: random.Random, split: Split = "any") -> Scene:
    """Draw one scene; its sentence is `.caption`. The same `rng` state gives the same scene."""
    while True:
        scene = _draw_any(rng)
        if split == "any" or scene.held_out == (split == "held-out"):
            return scene


def draw_distinct(rng: random.Random, count: int, split: Split = "any") -> list[Scene]:
    """Draw `count` scenes, no two of the same meaning, in a stable order."""
    found: dict[int, Scene] = {}
    while len(found) < count:
        scene = draw_caption(rng, split)
        found.setdefault(scene.key, scene)
    return list(found.values())


def all_scenes() -> Iterator[Scene]:
    """Every scene of the grammar, in a fixed order."""
    things = [Thing(s, c, f) for s in SIZES for c in COLOURS for f in SHAPES]
    for background in BACKGROUNDS:
        for first in things:
            yield from (Scene((first,), place, background) for place in PLACES)
            for second in things:
                if second != first:
                    yield from (Scene((first, second), rel, background) for rel in RELATIONS)


def count_captions() -> int:
    """How many distinct captions the grammar has: 262,656."""
    things = len(SIZES) * len(COLOURS) * len(SHAPES)
    singles = things * len(PLACES)
    pairs = things * (things - 1) * len(RELATIONS)
    return (singles + pairs) * len(BACKGROUNDS)


def words() -> list[str]:
    """Every word that can occur in a caption, sorted."""
    vocabulary = {*SIZES, *COLOURS, *SHAPES, *BACKGROUNDS, "a", "on", "background"}
    for phrase in (*PLACES.values(), *RELATIONS.values()):
        vocabulary.update(phrase.split())
    return sorted(vocabulary)


def _other(rng: random.Random, values: tuple[str, ...], value: str) -> str:
    return rng.choice([v for v in values if v != value])


def _with_thing(scene: Scene, index: int, **changes: str) -> Scene:
    things = list(scene.things)
    things[index] = replace(things[index], **changes)
    return replace(scene, things=tuple(things))


def _change(rng: random.Random, scene: Scene, field: str, values: tuple[str, ...]) -> Scene:
    index = rng.randrange(len(scene.things))
    old: str = getattr(scene.things[index], field)
    return _with_thing(scene, index, **{field: _other(rng, values, old)})


def _swap(scene: Scene, field: str) -> Scene:
    if not scene.is_pair:
        return scene
    a, b = (getattr(t, field) for t in scene.things)
    return _with_thing(_with_thing(scene, 0, **{field: b}), 1, **{field: a})


def _change_where(rng: random.Random, scene: Scene) -> Scene:
    if not scene.is_pair:
        return replace(scene, where=_other(rng, tuple(PLACES), scene.where))
    return replace(scene, where=_other(rng, tuple(RELATIONS), scene.where))


_EDITS: tuple[Callable[[random.Random, Scene], Scene], ...] = (
    lambda rng, s: _change(rng, s, "colour", COLOURS),
    lambda rng, s: _change(rng, s, "shape", SHAPES),
    lambda rng, s: _change(rng, s, "size", SIZES),
    lambda rng, s: replace(s, background=_other(rng, BACKGROUNDS, s.background)),
    _change_where,
    lambda _, s: replace(s, where=OPPOSITE[s.where]),
    lambda _, s: _swap(s, "colour"),
    lambda _, s: _swap(s, "shape"),
    lambda _, s: _swap(s, "size"),
)


def near_misses(rng: random.Random, scene: Scene, count: int) -> list[Scene]:
    """Draw `count` training scenes that differ from `scene` by one edit: a false caption each."""
    found: list[Scene] = []
    while len(found) < count:
        wrong = rng.choice(_EDITS)(rng, scene)
        identical = len(set(wrong.things)) < len(wrong.things)
        if not identical and wrong.key != scene.key and not wrong.held_out:
            found.append(wrong)
    return found
