"""Renders the training set in parallel. Only scenes of the split 'train' are ever drawn."""

from __future__ import annotations

import os
import random
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from models import render, scenes, tokens

if TYPE_CHECKING:
    from numpy.typing import NDArray

NEAR_MISSES = 4
CHUNK = 4000


@dataclass(frozen=True)
class Corpus:
    """N rendered scenes with their captions."""

    images: NDArray[np.uint8]
    """(N, 64, 64, 3) RGB."""
    captions: NDArray[np.int16]
    """(N, CONTEXT) token ids."""
    misses: NDArray[np.int16]
    """(N, NEAR_MISSES, CONTEXT) token ids of false captions, one edit away."""
    keys: NDArray[np.int64]
    """(N,) equal for captions of equal meaning."""


def make_chunk(seed: int, count: int) -> Corpus:
    """Draw and render `count` training scenes."""
    rng = random.Random(seed)
    ids, _ = tokens.vocabulary()
    drawn = [scenes.draw_caption(rng, "train") for _ in range(count)]
    misses = [scenes.near_misses(rng, s, NEAR_MISSES) for s in drawn]
    return Corpus(
        images=np.stack([render.render(s, rng) for s in drawn]),
        captions=np.array([tokens.encode(s.caption, ids) for s in drawn], np.int16),
        misses=np.array([[tokens.encode(m.caption, ids) for m in ms] for ms in misses], np.int16),
        keys=np.array([s.key for s in drawn], np.int64),
    )


def make_corpus(seed: int, count: int) -> Corpus:
    """Draw and render `count` training scenes with every core; `seed` fixes them all."""
    sizes = [min(CHUNK, count - start) for start in range(0, count, CHUNK)]
    seeds = [seed * 1_000_003 + k for k in range(len(sizes))]
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        chunks = list(pool.map(make_chunk, seeds, sizes))
    return Corpus(
        images=np.concatenate([c.images for c in chunks]),
        captions=np.concatenate([c.captions for c in chunks]),
        misses=np.concatenate([c.misses for c in chunks]),
        keys=np.concatenate([c.keys for c in chunks]),
    )
