import dataclasses
import math
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner import prompts
from runner.records import IsolationPolicy, SpeedtrapError
from runner.settings import Settings, parse_gib, parse_stand_in

FILES = (Path("candidate.py"), Path("base.py"))


def test_defaults():
    settings = Settings(*FILES)
    assert settings.sandbox is IsolationPolicy.AUTO
    assert (settings.target_speedup, settings.target_quality_loss) == (None, 0.02)
    assert (settings.batch_size, settings.seed, settings.device) == (5, 42, "auto")
    assert (settings.keep, settings.readable, settings.stand_ins) == (None, (), {})
    assert (settings.audit_batches, settings.audit_prompts, settings.audit_seed) == (None,) * 3
    assert settings.allow_untied is False


def test_metrics_may_name_where_their_weights_are():
    names = ("lpips", "fid", "fid=a.pt", "imagereward", "imagereward=/a folder")
    assert Settings(*FILES, metrics=names).metrics == names


def test_frozen():
    settings = Settings(*FILES)
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.seed = 1


@pytest.mark.parametrize(
    ("field", "values", "message"),
    [
        ("target_speedup", [0, -1, math.nan, -math.inf], "above 0"),
        ("target_speedup", [math.inf], "finite"),
        ("target_quality_loss", [-0.001, 1.001, math.nan, math.inf], "in 0 to 1"),
        ("seed", [-1, 2**31, 2**64], "the seed must be"),
        ("timeout_s", [0, -1, math.nan, math.inf], "the timeout must be"),
        ("wait_s", [-1, math.nan, math.inf], "the waiting time must be"),
        ("memory_limit_bytes", [0, -1], "memory"),
        ("audit_batches", [-1, 1001], "audit batches must be 0 to 1000"),
        ("metrics", [("lpip",), ("lpips", "imagereward2"), ("",)], "there is no metric"),
        ("audit_seed", [-1, 2**53, 2**64], "the audit seed must be in 0 to 9007199254740991"),
    ],
)
def test_values_that_are_refused(field, values, message):
    for value in values:
        with pytest.raises(SpeedtrapError, match=message):
            Settings(*FILES, **{field: value})


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("target_speedup", [None, 1e-9, 1, 1e9]),
        ("target_quality_loss", [0, 0.5, 1]),
        ("seed", [0, 42, 2**31 - 1]),
        ("timeout_s", [0.001, 600, 86400]),
        ("wait_s", [0, 600, 86400]),
        ("memory_limit_bytes", [None, 1, 2**40]),
        ("audit_batches", [None, 0, 1, 1000]),
        ("audit_seed", [None, 0, 2**53 - 1]),
    ],
)
def test_values_that_are_taken(field, values):
    for value in values:
        assert getattr(Settings(*FILES, **{field: value}), field) == value


@given(st.floats(min_value=0, exclude_min=True, allow_infinity=False))
def test_any_timeout_that_is_taken_can_be_waited_for(timeout_s):
    try:
        settings = Settings(*FILES, timeout_s=timeout_s)
    except SpeedtrapError:
        return
    one, other = socket.socketpair()
    with one, other:
        one.settimeout(settings.timeout_s)


@pytest.mark.parametrize("seed", [0, 2**31 - 1])
def test_numpy_takes_the_seed_of_every_batch(seed):
    most = prompts.PromptSet("most", ("x",) * 1000, "")
    for batch in prompts.plan(most, 1, Settings(*FILES, seed=seed).seed):
        assert 0 <= batch.seed < 2**32


def test_memory_limit_is_the_asked_or_most_of_what_is_there():
    assert Settings(*FILES, memory_limit_bytes=7).memory_limit() == 7
    assert Settings(*FILES).memory_limit() > 0


def test_readable_takes_folders_only(tmp_path):
    assert Settings(*FILES, readable=(tmp_path,)).readable == (tmp_path,)
    for path in (tmp_path / "nowhere", Path(__file__)):
        with pytest.raises(SpeedtrapError, match="--allow-read takes folders"):
            Settings(*FILES, readable=(tmp_path, path))


def test_keep_takes_a_folder_or_a_new_one(tmp_path):
    assert Settings(*FILES, keep=tmp_path).keep == tmp_path
    assert Settings(*FILES, keep=tmp_path / "new" / "er").keep
    with pytest.raises(SpeedtrapError, match="--keep takes a folder"):
        Settings(*FILES, keep=Path(__file__))


def test_keep_that_is_not_writable_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(SpeedtrapError, match="is not writable"):
        Settings(*FILES, keep=tmp_path)


def test_save_baseline_overwrites_no_input(tmp_path):
    candidate, truth = tmp_path / "candidate.py", tmp_path / "truth.py"
    for path in (candidate, truth):
        path.touch()
    (tmp_path / "sub").mkdir()
    (tmp_path / "soft.py").symlink_to(candidate)
    (tmp_path / "hard.py").hardlink_to(truth)
    for name, role in (
        ("sub/../candidate.py", "candidate"),
        ("soft.py", "candidate"),
        ("truth.py", "ground truth"),
        ("hard.py", "ground truth"),
    ):
        with pytest.raises(SpeedtrapError, match=f"would overwrite the {role}"):
            Settings(candidate, against=truth, save_baseline=tmp_path / name)
    other = tmp_path / "sub" / "candidate.py"
    assert Settings(candidate, against=truth, save_baseline=other).save_baseline == other


def test_save_baseline_is_no_input_that_is_not_there_yet(tmp_path):
    with pytest.raises(SpeedtrapError, match="would overwrite the candidate"):
        Settings(tmp_path / "a.py", save_baseline=tmp_path / "no" / ".." / "a.py")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("a/b=c/d", ("a/b", "c/d")), ("a=/x=y", ("a", "/x=y")), ("a= b ", ("a", " b "))],
)
def test_stand_in(text, expected):
    assert parse_stand_in(text) == expected


@pytest.mark.parametrize("text", ["", "=", "a", "a=", "=b"])
def test_stand_in_that_cannot_be_read(text):
    with pytest.raises(SpeedtrapError, match="write NAME=OTHER"):
        parse_stand_in(text)


@pytest.mark.parametrize(("gib", "expected"), [(1, 2**30), (0.5, 2**29), (1000, 1000 * 2**30)])
def test_gib(gib, expected):
    assert parse_gib(gib) == expected


@pytest.mark.parametrize("gib", [0, -1, math.nan, math.inf, -math.inf])
def test_gib_that_are_refused(gib):
    with pytest.raises(SpeedtrapError):
        parse_gib(gib)
