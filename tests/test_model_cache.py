import subprocess
import sys
from pathlib import Path

import pytest

from runner import model_cache
from runner.model_cache import EMBEDDED
from runner.records import ModelMount, SpeedtrapError

VARIABLES = ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME")
CASES = [
    {},
    {"XDG_CACHE_HOME": "/xdg"},
    {"HF_HOME": "/home-of-hf", "XDG_CACHE_HOME": "/xdg"},
    {"HUGGINGFACE_HUB_CACHE": "/old", "HF_HOME": "/home-of-hf"},
    {"HF_HUB_CACHE": "/hub", "HUGGINGFACE_HUB_CACHE": "/old", "HF_HOME": "/home-of-hf"},
    {"HF_HUB_CACHE": "~/hub"},
    {"HF_HOME": "~/hf"},
    {"XDG_CACHE_HOME": "~/xdg"},
]


@pytest.fixture
def cache(tmp_path):
    """Return a cache in Hugging Face layout: two repositories, and what is none."""
    for name in ("models--owner--name", "models--gpt2"):
        (tmp_path / name / "snapshots" / "0123").mkdir(parents=True)
    (tmp_path / "datasets--owner--data").mkdir()
    (tmp_path / ".locks").mkdir()
    (tmp_path / "version.txt").touch()
    (tmp_path / "models--a--file").touch()
    (tmp_path / "models--broken--link").symlink_to(tmp_path / "nowhere")
    return tmp_path


def names(mounts):
    return {mount.name for mount in mounts}


def by_name(mounts, name):
    (found,) = [mount for mount in mounts if mount.name == name]
    return found


@pytest.mark.parametrize("variables", CASES, ids=str)
def test_folder_is_the_one_of_the_library(variables):
    code = (
        "import sys, types, importlib.util as u\n"
        "from importlib.metadata import distribution\n"
        "path = distribution('huggingface_hub').locate_file('huggingface_hub/constants.py')\n"
        "spec = u.spec_from_file_location('huggingface_hub.constants', path)\n"
        "module = u.module_from_spec(spec)\n"
        "spec.loader.exec_module(module)\n"
        "print(module.HF_HUB_CACHE)"
    )
    environment = {"HOME": str(Path.home()), **variables}
    run = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert model_cache.user_cache(variables) == Path(run.stdout.strip())


@pytest.mark.parametrize("variable", VARIABLES)
def test_an_empty_variable_counts_as_unset(variable):
    assert model_cache.user_cache({variable: ""}) == model_cache.user_cache({})


def test_cached_repositories_and_the_embedded_model_are_mounted(cache):
    found = model_cache.mounts(cache, {})
    assert names(found) == {"owner/name", "gpt2", *EMBEDDED}
    expected = ModelMount("owner/name", cache / "models--owner--name", is_snapshot=False)
    assert by_name(found, "owner/name") == expected
    assert by_name(found, "speedtrap/tiny-sd").is_snapshot


def test_a_linked_repository_is_mounted_where_it_lies(cache, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (cache / "models--big--model").symlink_to(elsewhere)
    assert by_name(model_cache.mounts(cache, {}), "big/model").folder == elsewhere


def test_no_cache_shows_the_embedded_model_only(tmp_path):
    assert names(model_cache.mounts(tmp_path / "nowhere", {})) == set(EMBEDDED)


def test_embedded_model_wins_over_one_of_its_name_in_the_cache(cache):
    (cache / "models--speedtrap--tiny-sd").mkdir()
    found = by_name(model_cache.mounts(cache, {}), "speedtrap/tiny-sd")
    assert found.folder == EMBEDDED["speedtrap/tiny-sd"]


def test_cached_model_stands_in_for_another(cache):
    found = by_name(model_cache.mounts(cache, {"big/model": "owner/name"}), "big/model")
    expected = ModelMount("big/model", cache / "models--owner--name", is_snapshot=False)
    assert found == expected


def test_embedded_model_stands_in_for_a_cached_one(cache):
    found = by_name(model_cache.mounts(cache, {"gpt2": "speedtrap/tiny-sd"}), "gpt2")
    assert found == ModelMount("gpt2", EMBEDDED["speedtrap/tiny-sd"], is_snapshot=True)


def test_folder_stands_in_for_a_model(cache, tmp_path_factory):
    folder = tmp_path_factory.mktemp("folder")
    found = by_name(model_cache.mounts(cache, {"big/model": str(folder)}), "big/model")
    assert found == ModelMount("big/model", folder, is_snapshot=True)


def test_stand_ins_may_build_on_one_another(cache):
    found = model_cache.mounts(cache, {"a/b": "gpt2", "c/d": "a/b"})
    assert by_name(found, "c/d").folder == cache / "models--gpt2"


@pytest.mark.parametrize("other", ["nobody/nothing", "/nowhere", ""])
def test_stand_in_that_is_nowhere_is_refused(cache, other, monkeypatch):
    monkeypatch.chdir(cache)
    with pytest.raises(SpeedtrapError, match="neither a cached model nor a folder"):
        model_cache.mounts(cache, {"a/b": other or "''"})


@pytest.mark.parametrize("name", ["", "a/b/c", "../x", "a/..", "/a", "a b", "-a/b", "a/b\n"])
def test_stand_in_for_what_is_no_model_name_is_refused(cache, name):
    with pytest.raises(SpeedtrapError, match="is no model name"):
        model_cache.mounts(cache, {name: "gpt2"})


@pytest.mark.parametrize(
    ("models", "expected"),
    [
        ([], []),
        (["owner/name", "gpt2"], []),
        (["owner/other", "gpt2", "nobody"], ["owner/other", "nobody"]),
        (["/local/folder", "./here", "~/there", "a/b/c", "../x"], []),
    ],
)
def test_missing_are_hub_names_that_are_not_mounted(cache, models, expected):
    assert model_cache.missing(models, model_cache.mounts(cache, {})) == expected


def test_a_stand_in_is_not_missing(cache):
    mounted = model_cache.mounts(cache, {"big/model": "gpt2"})
    assert model_cache.missing(["big/model"], mounted) == []


def test_not_in_the_cache_are_embedded_model_and_stand_ins(cache):
    mounted = model_cache.mounts(cache, {"big/model": "gpt2", "gpt2": "owner/name"})
    assert model_cache.not_in(cache, mounted) == {
        "big/model": str(cache / "models--gpt2"),
        "gpt2": str(cache / "models--owner--name"),
        "speedtrap/tiny-sd": str(EMBEDDED["speedtrap/tiny-sd"]),
    }


def test_remedy_names_both_ways_out():
    text = model_cache.remedy("owner/name")
    assert "hf download owner/name" in text
    assert "--stand-in owner/name=OTHER" in text
