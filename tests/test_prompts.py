import hashlib
import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner import captions, coco, paths, prompts, wire
from runner.prompts import ClipModel, PromptSet
from runner.records import Purpose, SpeedtrapError

FRESH = captions.Source("fresh", "0", lambda rng: f"fresh {rng.randrange(10**12)}")


def prompt_set(count):
    return PromptSet("mine", tuple(f"prompt {number}" for number in range(count)), "")


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Keep what `datasets` writes, and what it could find, inside the test's folder."""
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_DATASETS_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    return tmp_path / "hf"


@pytest.fixture
def coco_folder(tmp_path):
    def make(captions, name="coco2017"):
        folder = tmp_path / name
        folder.mkdir()
        rows = [json.dumps({"file_name": "x.jpg", "captions": texts}) for texts in captions]
        (folder / "validation.jsonl").write_text("\n".join(rows))
        return folder

    return make


@pytest.mark.parametrize("name", sorted(prompts.PRESETS))
def test_each_preset_has_what_it_names(name):
    preset = prompts.choose_preset(name, [])
    assert preset.name == name
    assert preset.clip.is_meaningful
    assert preset.target_speedup > 1
    loaded = prompts.load(preset.prompts)
    assert loaded.name == preset.prompts
    assert len(loaded.prompts) == 20
    assert len(set(loaded.prompts)) == 20


@pytest.mark.parametrize("name", sorted(path.stem for path in paths.PROMPTS.glob("*.txt")))
def test_shipped_sets_make_a_warm_up_and_fifteen_timed_images(name):
    plan = prompts.plan(prompts.load(name), 5, 42)
    assert [batch.timed for batch in plan] == [False, True, True, True]
    assert [len(batch.prompts) for batch in plan] == [5] * 4


@pytest.mark.parametrize(
    ("name", "models", "expected"),
    [
        (None, [prompts.TINY_SD], "embedded"),
        (None, ["other/vae", prompts.TINY_SD], "embedded"),
        (None, ["runwayml/stable-diffusion-v1-5"], "natural"),
        (None, [], "natural"),
        ("natural", [prompts.TINY_SD], "natural"),
        ("embedded", [], "embedded"),
    ],
)
def test_preset_follows_the_model_unless_it_is_named(name, models, expected):
    assert prompts.choose_preset(name, models).name == expected


def test_unknown_preset_names_the_known_ones():
    with pytest.raises(SpeedtrapError, match="'fast'; choose one of embedded, natural"):
        prompts.choose_preset("fast", [])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ViT-B-32:openai", ClipModel("ViT-B-32", "openai")),
        ("ViT-B-32:random", ClipModel("ViT-B-32", None)),
        ("local-dir:/some/where", ClipModel("local-dir:/some/where", None)),
        ("hf-hub:owner/name", ClipModel("hf-hub", "owner/name")),
    ],
)
def test_clip_models(text, expected):
    assert prompts.parse_clip(text) == expected


@pytest.mark.parametrize("text", ["", "ViT-B-32", "ViT-B-32:", ":openai", ":"])
def test_clip_models_that_cannot_be_read(text):
    with pytest.raises(SpeedtrapError, match="write MODEL:TAG"):
        prompts.parse_clip(text)


@pytest.mark.parametrize(
    ("clip", "expected"),
    [("ViT-B-32:openai", True), ("ViT-B-32:random", False), ("local-dir:x", True)],
)
def test_random_weights_mean_nothing(clip, expected):
    assert prompts.parse_clip(clip).is_meaningful is expected


@given(st.integers(1, wire.MAX_BATCH), st.integers(0, 300), st.integers(0, 2**31))
def test_plan_hands_out_every_prompt_once_and_in_order(batch_size, more, seed):
    given_set = prompt_set(2 * batch_size + more)
    plan = prompts.plan(given_set, batch_size, seed)
    assert sum((batch.prompts for batch in plan), ()) == given_set.prompts
    assert [batch.seed for batch in plan] == list(range(seed, seed + len(plan)))
    assert [batch.timed for batch in plan] == [False] + [True] * (len(plan) - 1)
    assert {len(batch.prompts) for batch in plan[:-1]} == {batch_size}
    assert 1 <= len(plan[-1].prompts) <= batch_size


@pytest.mark.parametrize("size", [-1, 0, 65, 1000])
def test_batch_sizes_that_are_refused(size):
    with pytest.raises(SpeedtrapError, match="batch size must be 1 to 64"):
        prompts.plan(prompt_set(5000), size, 42)


@pytest.mark.parametrize(("count", "size"), [(0, 1), (1, 1), (9, 5), (127, 64)])
def test_too_few_prompts_tell_what_to_do(count, size):
    with pytest.raises(SpeedtrapError, match=f"need {2 * size}: use more prompts or a smaller"):
        prompts.plan(prompt_set(count), size, 42)


def fixed_plan(batches=3, size=5, more=0):
    return prompts.plan(prompt_set((1 + batches) * size + more), size, 42)


def of(plan, purpose):
    return [batch for batch in plan if batch.purpose is purpose]


def sizes(plan):
    return {purpose: len(of(plan, purpose)) for purpose in Purpose}


secrets = st.integers(0, 2**53 - 1)


@given(st.integers(1, 6), st.integers(1, 5), st.integers(0, 4), st.integers(0, 6), secrets)
def test_audit_batches_are_mixed_among_the_fixed_ones(batches, size, more, count, seed):
    fixed = fixed_plan(batches, size, more % size)
    plan = prompts.with_audit(fixed, FRESH, count, seed)
    assert plan[0] == fixed[0]
    timed = [batch for batch in fixed if batch.timed]
    assert sorted(of(plan, Purpose.FIXED), key=lambda batch: batch.seed) == timed
    audit = of(plan, Purpose.AUDIT)
    assert len(audit) == count
    drawn = [prompt for batch in audit for prompt in batch.prompts]
    public = {prompt for batch in fixed for prompt in batch.prompts}
    assert len(drawn) == len(set(drawn)) == count * size
    assert not public & set(drawn)
    assert {len(batch.prompts) for batch in audit} <= {size}
    assert all(0 <= batch.seed < 2**32 for batch in plan)


@given(st.integers(1, 6), st.integers(0, 6), secrets)
def test_repeat_and_other_seeds_refer_to_their_batches(batches, count, seed):
    plan = prompts.with_audit(fixed_plan(batches), FRESH, count, seed)
    counting = Purpose.AUDIT if count else Purpose.FIXED
    assert sizes(plan) == {
        Purpose.WARM_UP: 1,
        Purpose.FIXED: batches,
        Purpose.AUDIT: count,
        Purpose.REPEAT: min(1, count),
        Purpose.OTHER_SEED: count or batches,
        Purpose.AGAIN: 0,
    }
    for batch in of(plan, Purpose.REPEAT):
        again = plan[batch.of]
        assert again.purpose is Purpose.AUDIT
        assert (batch.seed, batch.prompts) == (again.seed, again.prompts)
    others = of(plan, Purpose.OTHER_SEED)
    assert [batch.of for batch in others] == [
        place for place, batch in enumerate(plan) if batch.purpose is counting
    ]
    for batch in others:
        assert batch.prompts == plan[batch.of].prompts
        assert batch.seed != plan[batch.of].seed
    assert all(batch.of is None for batch in plan if batch not in others + of(plan, Purpose.REPEAT))


@given(st.integers(1, 6), st.integers(0, 6), secrets)
def test_the_candidates_batches_stand_at_the_same_places_as_the_baselines(batches, count, seed):
    plan = prompts.with_audit(fixed_plan(batches), FRESH, count, seed)
    mine = [batch for batch in plan if batch.for_candidate]
    assert list(plan[: len(mine)]) == mine
    assert Purpose.REPEAT not in [batch.purpose for batch in mine[:-1]]


def test_the_order_is_the_seeds_and_any_place_may_hold_any_kind():
    plans = [prompts.with_audit(fixed_plan(), FRESH, 3, seed) for seed in range(60)]
    orders = [tuple(batch.purpose for batch in plan[1:7]) for plan in plans]
    assert len(set(orders)) > 10  # of 20
    for place in range(6):
        assert {order[place] for order in orders} == {Purpose.FIXED, Purpose.AUDIT}
    assert len({plan[7].of for plan in plans}) >= 5


@given(st.integers(0, 6), secrets)
def test_the_same_secret_seed_gives_the_same_plan(count, seed):
    fixed = fixed_plan()
    assert prompts.with_audit(fixed, FRESH, count, seed) == prompts.with_audit(
        fixed, FRESH, count, seed
    )


def test_two_secret_seeds_share_no_prompt_and_no_seed():
    one, other = (
        of(prompts.with_audit(fixed_plan(), FRESH, 3, seed), Purpose.AUDIT) for seed in (1, 2)
    )
    assert not {batch.prompts for batch in one} & {batch.prompts for batch in other}
    assert not {batch.seed for batch in one} & {batch.seed for batch in other}


def test_there_are_three_audit_batches_for_each_fixed_one_and_at_least_nine_unless_said():
    assert sizes(prompts.with_audit(fixed_plan(4), FRESH, None, 1))[Purpose.AUDIT] == 12
    assert sizes(prompts.with_audit(fixed_plan(1), FRESH, None, 1))[Purpose.AUDIT] == 9
    assert sizes(prompts.with_audit(fixed_plan(4), FRESH, 1, 1))[Purpose.AUDIT] == 1


def test_without_audit_batches_the_fixed_ones_get_another_seed():
    plan = prompts.with_audit(fixed_plan(), FRESH, 0, 1)
    assert sizes(plan)[Purpose.AUDIT] == sizes(plan)[Purpose.REPEAT] == 0
    assert [plan[batch.of].purpose for batch in of(plan, Purpose.OTHER_SEED)] == [Purpose.FIXED] * 3


def test_public_prompts_in_a_private_file_are_not_drawn(write):
    fixed = fixed_plan(1, 2)
    public = [prompt for batch in fixed for prompt in batch.prompts]
    path = write("\n".join([*public, "mine", "yours"]), "private.txt")
    source = prompts.audit_source(prompts.PRESETS["natural"], path)
    (audit,) = of(prompts.with_audit(fixed, source, 1, 5), Purpose.AUDIT)
    assert sorted(audit.prompts) == ["mine", "yours"]
    with pytest.raises(SpeedtrapError, match=r"private\.txt has only 2 prompts"):
        prompts.with_audit(fixed, source, 2, 5)


def test_audit_prompts_come_from_the_presets_grammar_or_a_file(write):
    preset = prompts.PRESETS["embedded"]
    assert prompts.audit_source(preset, None).name == "tiny grammar"
    path = write("one\n\n two \n", "private.txt")
    source = prompts.audit_source(preset, path)
    assert source.name == "private.txt"
    assert source.digest == prompts.load(str(path)).digest


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "has no prompt; give a text file with a prompt a line"),
        (b"\n \n", "has no prompt"),
        (b"\xff\xfe\x00", "cannot read the audit prompts"),
        (b"x" * 9000, "a prompt is longer than 8192 bytes"),
    ],
)
def test_audit_files_that_are_refused(write, content, says):
    with pytest.raises(SpeedtrapError, match=says):
        prompts.audit_source(prompts.PRESETS["natural"], write(content, "private.txt"))


def test_an_audit_file_that_is_not_there(tmp_path):
    with pytest.raises(SpeedtrapError, match=r"cannot read the audit prompts .*give a text file"):
        prompts.audit_source(prompts.PRESETS["natural"], tmp_path / "nowhere.txt")


def test_text_file_is_a_prompt_a_line(write):
    path = write(b"  one \r\n\r\n\ttwo, with 'quotes'\n\nthr\xc3\xa9\xc3\xa9", "mine.txt")
    loaded = prompts.load(str(path))
    assert loaded.name == "mine.txt"
    assert loaded.prompts == ("one", "two, with 'quotes'", "thréé")
    assert loaded.digest == hashlib.sha256("one\ntwo, with 'quotes'\nthréé".encode()).hexdigest()


def test_digest_is_of_the_prompts_alone(write):
    one = prompts.load(str(write("a\nb\n", "one.txt")))
    other = prompts.load(str(write("\n a\r\nb", "other.txt")))
    assert one.digest == other.digest


def test_byte_order_mark_is_no_part_of_a_prompt(write):
    assert prompts.load(str(write(b"\xef\xbb\xbfone\ntwo", "x.txt"))).prompts == ("one", "two")


def test_prompt_over_the_wire_limit_is_refused(write):
    path = write("x" * wire.MAX_PROMPT_BYTES + "\n" + "é" * 5000, "long.txt")
    with pytest.raises(SpeedtrapError, match=r"long.txt: a prompt is longer than 8192 bytes"):
        prompts.load(str(path))


@pytest.mark.parametrize(
    "name", ["nowhere", "/nowhere/x.txt", "coco:0", "coco:x", "coco:", "a " * 500]
)
def test_unknown_sets_tell_what_there_is(name):
    with pytest.raises(SpeedtrapError, match=r"use one of natural-20, tiny-20.*coco:N, or a text"):
        prompts.load(name)


def test_folders_and_binary_files_are_no_prompt_sets(tmp_path, write):
    for path in (tmp_path, write(b"\xff\xfe\x00", "binary.txt")):
        with pytest.raises(SpeedtrapError, match="no prompt set"):
            prompts.load(str(path))


@pytest.mark.timeout(120)
def test_coco_from_a_folder_gives_first_captions(hub, coco_folder, monkeypatch, tmp_path):
    folder = coco_folder([[f" A  cat\n{number} ", "another"] for number in range(4)])
    monkeypatch.chdir(tmp_path)
    loaded = prompts.load(f"coco:3@{folder}")
    assert loaded.name == f"coco:3@{folder}"
    assert loaded.prompts == ("A cat 0", "A cat 1", "A cat 2")
    assert hub.is_dir()


@pytest.mark.timeout(120)
def test_coco_by_name_comes_from_the_cache(hub, coco_folder):
    folder = coco_folder([["a dog"], ["a horse"]])
    prompts.load(f"coco:1@{folder}")
    cached = hub / "datasets"
    (cached / "coco2017").rename(cached / coco.DATASET.replace("/", "___"))
    (folder / "validation.jsonl").unlink()
    assert prompts.load("coco:2").prompts == ("a dog", "a horse")


@pytest.mark.timeout(120)
@pytest.mark.usefixtures("hub")
def test_coco_that_is_not_cached_tells_what_to_do():
    with pytest.raises(SpeedtrapError, match=r"coco:20: .*load_dataset\(.phiyodr/coco2017"):
        prompts.load("coco:20")


@pytest.mark.timeout(120)
@pytest.mark.usefixtures("hub")
def test_coco_with_too_few_samples_says_so(coco_folder):
    with pytest.raises(SpeedtrapError, match="has 1 validation samples, not 2"):
        prompts.load(f"coco:2@{coco_folder([['a']])}")


def test_coco_runs_this_interpreter_from_any_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    calls = []

    def run(command, **options):
        calls.append((command, options))
        return subprocess.CompletedProcess(command, 0, stdout='["a", "b"]', stderr="")

    monkeypatch.setattr(subprocess, "run", run)
    assert prompts.load("coco:2@some/where").prompts == ("a", "b")
    ((command, options),) = calls
    assert command == [sys.executable, "-P", "-m", "runner.coco", "2", "some/where"]
    assert str(paths.ROOT) in options["env"]["PYTHONPATH"].split(":")


def test_coco_process_that_dies_silently_is_our_failure(monkeypatch):
    ended = subprocess.CompletedProcess([], -9, stdout="", stderr="")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: ended)
    with pytest.raises(SpeedtrapError, match="coco:2: exit status -9"):
        prompts.load("coco:2")


def test_coco_process_that_hangs_is_our_failure(monkeypatch):
    def run(command, **options):
        raise subprocess.TimeoutExpired(command, options["timeout"])

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(SpeedtrapError, match="not read within 300 s"):
        prompts.load("coco:2")
