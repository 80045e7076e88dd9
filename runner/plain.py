"""Make harmless what comes from a candidate, before a person or a program sees it.

Theory of operation
-------------------
A candidate chooses its messages, its tracebacks, the names in its text and the names that its live
report gives, and often its file's name. Terminals obey control characters, logs and LLMs take one
line for another, and readers trust what they see. So every way out goes through one of three
functions:

- `printable` for text that may have lines: nothing in it moves a cursor, ends a line (but the line
  end itself), changes the direction of writing, hides, or piles up over other lines.
- `one_line` for a value in a line of ours: it cannot begin another line, and it is short.
- `json_text` for programs: ASCII, with escapes for all else, so it is harmless in a terminal, in a
  log and within HTML as well, and what is no Unicode text does not stop the reader.

None of them makes text into HTML: whoever writes HTML escapes it.
"""

from __future__ import annotations

import json
import re
import unicodedata
from typing import Final

MAX_LINE_CHARS: Final = 4000
"""Of a value in a line: twice what a whole feedback may have."""

_REPLACEMENT: Final = "\N{REPLACEMENT CHARACTER}"
_ALWAYS: Final = "\t\n"
_LINE_ENDS: Final = {"Zl", "Zp"}
_MARKS: Final = {"Mn", "Me"}
_MOST_MARKS: Final = 4
"""Upon one letter, which is what written languages need; more of them cover other lines."""
_UNSEEN: Final = frozenset(
    [
        *("\u034f", "\u115f", "\u1160", "\u17b4", "\u17b5", "\u2800", "\u3164", "\uffa0"),
        *map(chr, range(0x180B, 0x1810)),
        *map(chr, range(0xFE00, 0xFE10)),
        *map(chr, range(0xE0100, 0xE01F0)),
    ]
)
"""What shows nothing but is no format character: fillers, blanks and variation selectors
(`Default_Ignorable_Code_Point` of Unicode's DerivedCoreProperties, less the category Cf, and the
empty Braille pattern). Text can be hidden in them."""
_NOT_BARE: Final = re.compile(r"[^\n !#-%'-;=?-~\"]")
"""In JSON: all but printable ASCII, and the characters that begin something in HTML."""


def printable(text: str) -> str:
    """Text of the same length with U+FFFD for each character that is not harmless.

    Those are: control (all but tab and line feed), format (bidi marks too), surrogates, private
    and unassigned characters, line and paragraph separators, blanks of other scripts that hide
    text, and marks on top of more than four others.
    """
    if text.isascii() and text.isprintable():
        return text
    shown = []
    marks = 0
    for character in text:
        category = unicodedata.category(character)
        marks = marks + 1 if category in _MARKS else 0
        is_harmful = (
            (category[0] == "C" and character not in _ALWAYS)
            or category in _LINE_ENDS
            or character in _UNSEEN
            or marks > _MOST_MARKS
        )
        marks = 0 if is_harmful else marks
        shown.append(_REPLACEMENT if is_harmful else character)
    return "".join(shown)


def one_line(text: str, limit_chars: int = MAX_LINE_CHARS) -> str:
    """What is printable of a text, as one line of at most `limit_chars`; the middle gives way."""
    if len(text) > limit_chars:
        half = (limit_chars - len(_CUT)) // 2
        text = text[:half] + _CUT + text[len(text) - half :]
    return printable(text).replace("\n", " ").replace("\t", " ")


_CUT: Final = " [...] "


def json_text(value: object, indent: int | None = 2) -> str:
    """JSON in printable ASCII without `<`, `>` and `&`; `?` stands for what is no Unicode text.

    Raises `ValueError` for a number that is not finite.
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, indent=indent)
    return _NOT_BARE.sub(_escaped, text.encode(errors="replace").decode())


def _escaped(found: re.Match[str]) -> str:
    character = found[0]
    return f"\\u{ord(character):04x}" if character.isascii() else json.dumps(character)[1:-1]
