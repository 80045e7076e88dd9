"""A CLIP byte-pair tokenizer in which every caption word is one token.

Any other text still has tokens (its bytes), as in the original CLIP vocabulary, but the embeddings
of those were never trained.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from typing import TYPE_CHECKING

from models.scenes import words

if TYPE_CHECKING:
    from pathlib import Path

CONTEXT = 24
START, END = "<|startoftext|>", "<|endoftext|>"
SUFFIX = "</w>"


def _byte_alphabet() -> list[str]:
    """The 256 printable stand-ins for bytes that byte-level BPE uses."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [b for b in range(256) if b not in plain]
    return [chr(b) for b in plain] + [chr(256 + k) for k in range(len(hidden))]


def _merge(symbols: list[str], pair: tuple[str, str]) -> list[str]:
    merged: list[str] = []
    for symbol in symbols:
        if merged and (merged[-1], symbol) == pair:
            merged[-1] += symbol
        else:
            merged.append(symbol)
    return merged


def learn_merges(vocabulary: list[str]) -> list[tuple[str, str]]:
    """Learn merges, most frequent pair first, until every word is one token."""
    split = [[*word[:-1], word[-1] + SUFFIX] for word in vocabulary]
    merges: list[tuple[str, str]] = []
    while True:
        pairs = Counter(p for s in split for p in itertools.pairwise(s))
        if not pairs:
            return merges
        best = max(sorted(pairs), key=lambda p: pairs[p])
        merges.append(best)
        split = [_merge(s, best) for s in split]


def vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Token ids, contiguous from 0 with END last, and the merges in order."""
    merges = learn_merges(words())
    alphabet = _byte_alphabet()
    tokens = [*alphabet, *(c + SUFFIX for c in alphabet), *("".join(m) for m in merges)]
    tokens = [*dict.fromkeys(tokens), START, END]
    return {token: index for index, token in enumerate(tokens)}, merges


def encode(caption: str, ids: dict[str, int]) -> list[int]:
    """CONTEXT token ids of a caption of the grammar, END-padded."""
    body = [ids[word + SUFFIX] for word in caption.split()]
    return [ids[START], *body, *[ids[END]] * (CONTEXT - 1 - len(body))]


def save_tokenizer(folder: Path) -> None:
    """Write the tokenizer for transformers: tokenizer.json, and the older pair of files."""
    from transformers import CLIPTokenizer

    ids, merges = vocabulary()
    tokenizer = CLIPTokenizer(vocab=ids, merges=merges, model_max_length=CONTEXT)
    tokenizer.save_pretrained(folder)
    (folder / "vocab.json").write_text(json.dumps(ids, ensure_ascii=False) + "\n", "utf-8")
    lines = ["#version: 0.2", *(" ".join(m) for m in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", "utf-8")
