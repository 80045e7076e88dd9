import hashlib
import random
import re
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models import scenes
from runner import captions, paths, prompts, wire
from runner.records import SpeedtrapError

GRAMMARS = sorted(preset.grammar for preset in prompts.PRESETS.values())
HOLE = re.compile(r"\{([^}]*)\}")
THINGS = re.compile(r"a (?:small|large) \w+ \w+")


def rules_of(name):
    return tomllib.loads((paths.PROMPTS / f"{name}.grammar.toml").read_text(encoding="utf-8"))


def draw(name, count, seed=1, avoid=frozenset()):
    source = captions.from_grammar(name)
    return captions.draw_distinct(source, count, avoid, random.Random(seed))


def test_each_shipped_grammar_belongs_to_a_preset():
    shipped = sorted(path.name for path in paths.PROMPTS.glob("*.grammar.toml"))
    assert shipped == [f"{name}.grammar.toml" for name in GRAMMARS]


@pytest.mark.parametrize("name", GRAMMARS)
def test_every_rule_is_defined_and_used(name):
    rules = rules_of(name)
    used = {hole for texts in rules.values() for text in texts for hole in HOLE.findall(text)}
    assert used | {"origin"} == set(rules)
    assert all(rules.values())


@pytest.mark.parametrize("name", GRAMMARS)
def test_rules_do_not_run_in_circles(name):
    rules = rules_of(name)

    def depth(rule, above):
        assert rule not in above
        inner = [hole for text in rules[rule] for hole in HOLE.findall(text)]
        return 1 + max((depth(one, {*above, rule}) for one in inner), default=0)

    assert depth("origin", set()) >= 2


@pytest.mark.parametrize("name", GRAMMARS)
def test_a_grammar_has_thousands_of_captions(name):
    found = draw(name, 5000)
    assert len(set(found)) == 5000
    for caption in found:
        assert not set("{}\n\t") & set(caption)
        assert caption == " ".join(caption.split())
        assert len(caption.encode()) < wire.MAX_PROMPT_BYTES


@pytest.mark.parametrize("name", GRAMMARS)
def test_two_runs_have_hardly_a_caption_in_common(name):
    assert len(set(draw(name, 100, seed=1)) & set(draw(name, 100, seed=2))) <= 2


def test_tiny_captions_are_what_the_embedded_model_was_trained_on():
    known = {scene.caption for scene in scenes.all_scenes()}
    strange = [caption for caption in draw("tiny", 5000) if caption not in known]
    for caption in strange:  # a grammar cannot say "another thing"; one in 160 names a thing twice
        one, other = THINGS.findall(caption)
        assert one == other
    assert len(strange) < 100


@pytest.mark.parametrize("preset", prompts.PRESETS.values(), ids=lambda preset: preset.name)
def test_none_of_the_public_prompts_is_drawn(preset):
    public = frozenset(prompts.load(preset.prompts).prompts)
    assert not public & set(draw(preset.grammar, 2000, avoid=public))


@given(st.integers(0, 2**53), st.integers(0, 40))
def test_the_same_seed_gives_the_same_captions(seed, count):
    found = draw("tiny", count, seed)
    assert found == draw("tiny", count, seed)
    assert len(set(found)) == count


@pytest.mark.parametrize("name", GRAMMARS)
def test_a_source_is_known_by_the_digest_of_its_text(name):
    source = captions.from_grammar(name)
    text = (paths.PROMPTS / f"{name}.grammar.toml").read_bytes()
    assert (source.name, source.digest) == (f"{name} grammar", hashlib.sha256(text).hexdigest())


@given(st.sets(st.text(), min_size=1, max_size=30), st.data())
def test_a_files_prompts_are_all_drawn_but_those_to_avoid(texts, data):
    avoid = data.draw(st.frozensets(st.sampled_from(sorted(texts))))
    source = captions.from_prompts("mine.txt", "0", sorted(texts))
    wanted = len(texts - avoid)
    found = captions.draw_distinct(source, wanted, avoid, random.Random(1))
    assert set(found) == texts - avoid
    with pytest.raises(SpeedtrapError, match=f"mine.txt has only {wanted} prompts"):
        captions.draw_distinct(source, wanted + 1, avoid, random.Random(1))


def test_too_small_a_file_says_what_is_missing_and_what_to_do():
    source = captions.from_prompts("mine.txt", "0", ["a", "b", "b", "c"])
    with pytest.raises(SpeedtrapError) as caught:
        captions.draw_distinct(source, 5, frozenset({"a"}), random.Random(1))
    assert str(caught.value) == (
        "mine.txt has only 2 prompts that are not in the prompt set, and 5 audit prompts are"
        " needed: use more, or fewer batches (--audit-batches)"
    )


def test_a_file_that_just_suffices_is_drawn_out():
    texts = [f"prompt {number}" for number in range(64)]
    source = captions.from_prompts("mine.txt", "0", texts)
    found = captions.draw_distinct(source, 64, frozenset(), random.Random(3))
    assert sorted(found) == sorted(texts)
