"""A cached baseline for real: real sandbox, real scorer, real clock, the embedded model."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
from e2e import EXAMPLES, SPECIMENS, make_stand_in, read_specimen

from runner import compare_cli, recall, verify
from runner.records import SpeedtrapError, Verdict
from runner.score import score

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from runner.records import Result

pytestmark = pytest.mark.timeout(1200)  # the host's one CPU slot may have to be waited for

PROMPTS = """\
a large red circle above a small blue square on a white background
a small green triangle on a yellow background
a large blue circle on a white background
a small red square above a large green circle on a black background
"""
AUDIT_BATCHES = 5
ANY = 100.0
"""Instead of a limit that a busy host may be over. What it does is shown in test_recall.py."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def quick(folder: Path) -> Path:
    """The examples, in fewer steps."""
    for name in ("base.py", "deepcache.py"):
        text = (EXAMPLES / name).read_text("utf-8")
        (folder / name).write_text(text.replace("STEPS = 25", "STEPS = 10"), "utf-8")
    return folder


@pytest.fixture(scope="module")
def run(folder: Path, quick: Path) -> Iterator[Callable[..., Result]]:
    """Score with the cache of this module, which the first run makes."""
    prompts = folder / "prompts.txt"
    prompts.write_text(PROMPTS)
    stand_in = make_stand_in(folder)
    options: dict[str, Any] = {
        "baseline": quick / "base.py",
        "device": "cpu",
        "prompts": str(prompts),
        "batch_size": 2,
        "audit_batches": AUDIT_BATCHES,
        "baseline_cache": folder / "base.cache",
    }
    if stand_in is not None:
        options |= {"stand_ins": {"speedtrap/tiny-sd": str(stand_in)}, "clip": "ViT-S-32:random"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setattr(recall, "MAX_NOISE", ANY)
        patch.setattr(verify, "MAX_DRIFT", ANY)
        yield lambda candidate, **changes: score(candidate, **(options | changes))


@pytest.fixture(scope="module")
def cold(run: Callable[..., Result], quick: Path) -> Result:
    """The first run, which measures the baseline, too."""
    return run(quick / "deepcache.py")


def live(result: Result) -> int:
    assert result.baseline is not None
    return sum(not one.recalled for one in result.baseline.batches)


def assert_recalled(result: Result) -> None:
    assert result.loss is not None, result.reason
    assert result.drift is not None
    assert result.baseline is not None
    assert result.drift.least_psnr_db == pytest.approx(100.0)
    assert len(result.baseline.counted) == AUDIT_BATCHES
    again = sum(batch.purpose == "again" for batch in result.baseline.batches)
    assert live(result) == 1 + len(result.drift.live_s) + again
    assert live(result) < len(result.baseline.batches)
    assert any("the prompts come from a baseline cache" in text for text in warnings(result))


def test_a_first_run_makes_the_cache_and_uses_it(cold: Result, folder: Path):
    assert_recalled(cold)
    assert (folder / "base.cache").stat().st_mode & 0o077 == 0
    assert not list(folder.glob(".*.partial"))


@pytest.mark.slow
def test_a_second_run_takes_few_baseline_batches_and_finds_the_same(
    run: Callable[..., Result], cold: Result, quick: Path
):
    made = (quick / "base.cache").read_bytes()
    warm = run(quick / "deepcache.py")
    assert (quick / "base.cache").read_bytes() == made
    assert_recalled(warm)
    assert cold.drift.cache_sha256 == warm.drift.cache_sha256
    assert warm.quality_loss == pytest.approx(cold.quality_loss, abs=1e-9)  # the same prompts
    assert warm.fidelity == cold.fidelity
    first, second = (compare_cli.Named(name, one) for name, one in (("a", cold), ("b", warm)))
    held = compare_cli.hold(first, second)
    assert held.differences == ()
    low, high = held.ratio.interval
    assert math.log(low) - 0.5 < 0 < math.log(high) + 0.5


def warnings(result: Result) -> tuple[str, ...]:
    return result.circumstances.warnings


def test_other_prompts_or_an_other_seed_are_refused_by_name(
    run: Callable[..., Result], cold: Result, folder: Path
):
    assert cold.drift is not None
    other = folder / "other.txt"
    other.write_text(PROMPTS.replace("large", "small"))
    with pytest.raises(SpeedtrapError) as caught:
        run(folder / "deepcache.py", prompts=str(other), seed=43, audit_batches=6)
    text = str(caught.value)
    assert f"prompt set: {cold.circumstances.prompts_sha256} against" in text
    assert "seed: 42 against 43" in text
    assert "number of audit batches: 5 against 6" in text
    with pytest.raises(SpeedtrapError, match=r"audit seed: \d+ against 1 "):
        run(folder / "deepcache.py", audit_seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["draws_the_scene", "lru_cache_on_prompt"])
def test_a_cheat_gets_no_better_verdict(run: Callable[..., Result], cold: Result, name: str):
    assert cold.drift is not None
    specimen = read_specimen(SPECIMENS / f"{name}.py")
    for options in ({}, {"baseline_cache": None}):
        found = run(specimen.path, **options)
        has_loss = found.loss is not None
        assert specimen.expects(found.verdict, has_loss=has_loss), (options, found.reason)
        assert not found.passed


@pytest.mark.slow
def test_a_candidate_that_breaks_is_refused_with_a_cache_too(run: Callable[..., Result]):
    found = run(SPECIMENS / "exit_in_inference.py")
    assert found.verdict is Verdict.CRASHED
    assert found.drift is None


@pytest.mark.slow
def test_the_baseline_as_candidate_is_neither_faster_nor_slower(
    run: Callable[..., Result], folder: Path
):
    found = run(folder / "base.py")
    assert found.quality_loss == pytest.approx(0.0, abs=1e-9)
    low, high = found.speedup_ci
    assert math.log(low) - 0.3 < 0 < math.log(high) + 0.3
