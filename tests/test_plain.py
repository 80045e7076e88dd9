import json
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from runner import plain

BAD = "\N{REPLACEMENT CHARACTER}"
ANYTHING = st.text(st.characters(), max_size=200)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | ANYTHING,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(ANYTHING, inner, max_size=4),
    max_leaves=10,
)


@pytest.mark.parametrize(
    "text",
    [
        "größe 雪 ☃ é 1.5x",
        "e\u0301a\u0308 \u05e9\u05c1\u05bc\u05b0 \u0e01\u0e34\u0e49 \u0928\u093f",
        "\ta table\n  of\u00a0lines\n",
        "\N{SNOWMAN}\N{GRINNING FACE}",
    ],
)
def test_text_of_any_language_stays(text):
    assert plain.printable(text) == text


@pytest.mark.parametrize(
    "character",
    [
        *map(chr, [*range(9), 11, 12, *range(13, 32), *range(127, 160)]),
        *("\u00ad", "\u200b", "\u200d", "\u200e", "\u202e", "\u2066", "\u2069", "\ufeff"),
        *("\u2028", "\u2029", "\ud800", "\udfff", "\ue000", "\uffff", "\U000e0041", "\U000e0100"),
        *("\u115f", "\u3164", "\u2800", "\ufe0f", "\u034f", "\u180e", "\u061c"),
    ],
)
def test_what_is_not_harmless_is_replaced(character):
    assert plain.printable(f"a{character}b") == f"a{BAD}b"


def test_marks_do_not_pile_up():
    shown = plain.printable("a" + "\u0301" * 100)
    assert shown.startswith("a" + "\u0301" * 4 + BAD)
    assert max(map(len, shown.split(BAD))) <= 5


@given(ANYTHING)
@example("\u0301" * 9)
def test_length_is_kept_and_twice_is_once(text):
    shown = plain.printable(text)
    assert len(shown) == len(text)
    assert plain.printable(shown) == shown
    assert not [
        one
        for one in shown
        if unicodedata.category(one) in {"Cc", "Cf", "Cs", "Zl"} and one not in "\t\n"
    ]


@given(ANYTHING)
@example("a\nb\tc\x85d\u2028e\x1cf\x0bg\r\nh")
def test_one_line_is_one_line(text):
    shown = plain.one_line(text)
    assert len(shown.splitlines()) <= 1
    assert "\t" not in shown
    assert plain.one_line(shown) == shown


def test_one_line_keeps_both_ends():
    shown = plain.one_line("a" * 5000 + "b" * 5000 + "c", limit_chars=101)
    assert len(shown) <= 101
    assert shown.startswith("aaaa")
    assert shown.endswith("bbc")
    assert "[...]" in shown


@given(values)
@example("</script>\x7f\x9b\u2028&amp;")
def test_json_is_printable_ascii_and_says_the_same(value):
    text = plain.json_text(value)
    assert not set(text) - set("\n" + "".join(map(chr, range(32, 127))))
    assert not set(text) & set("<>&")
    assert json.loads(text) == _without_surrogates(value)


def test_json_of_a_line_is_a_line():
    assert plain.json_text({"a": ["\n\u2028", 1]}, indent=None) == '{"a": ["\\n\\u2028", 1]}'


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_json_has_no_numbers_that_are_none(number):
    with pytest.raises(ValueError, match="not JSON compliant"):
        plain.json_text({"loss": number})


def _without_surrogates(value):
    match value:
        case str():
            return value.encode(errors="replace").decode()
        case list():
            return [_without_surrogates(one) for one in value]
        case dict():
            return {
                _without_surrogates(key): _without_surrogates(one) for key, one in value.items()
            }
    return value
