"""Cheats on public prompts, and honest files on noisy machines, as simulated times and scores."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner import audit
from runner.records import Batch, Measured, Purpose, Side

SOURCE = ("tiny grammar", "0" * 64)
SIZE = 5
COUNTED = {Purpose.AUDIT}
PUBLIC, FRESH, AGAIN, OTHER = Purpose.FIXED, Purpose.AUDIT, Purpose.REPEAT, Purpose.OTHER_SEED
USUAL = (PUBLIC,) * 3 + (FRESH,) * 3 + (AGAIN,)


def batch(purpose, time_s, scores):
    return Batch(
        phase="timed",
        purpose=purpose,
        counts=purpose in COUNTED,
        seed=1,
        time_s=time_s,
        scores=tuple(scores),
    )


def side(batches):
    counted = [one for one in batches if one.counts] or batches
    scores = [score for one in counted for score in one.scores]
    time_s = math.fsum(one.time_s for one in counted)
    return Side(time_s=time_s, score=math.fsum(scores) / len(scores), batches=tuple(batches))


def measured(purposes, ours, theirs):
    """Two sides; `ours` and `theirs` give seconds and scores for a purpose."""
    sides = (side([batch(one, *play(one)) for one in purposes]) for play in (ours, theirs))
    return Measured(*sides, "", "alternate")


def steady(time_s=1.0, scores=(90.0,) * SIZE, **special):
    """The same time and scores for every batch, but for the purposes named."""

    def play(purpose):
        return special.get(purpose.name, (time_s, scores))

    return play


def steadily_slowed(rng, noise):
    """How many times slower a batch is that always has company."""
    return 1 + abs(rng.gauss(0, noise))


def slowed_in_bursts(rng, noise):
    """The same where most batches are alone, and one in seven is not."""
    return steadily_slowed(rng, noise / 3) + (rng.random() < 0.15) * rng.expovariate(
        1 / (3 * noise)
    )


def noisy(rng, time_s, slower, spread=1.0):
    """Times that noise makes longer, never shorter, and scores that vary from image to image."""

    def play(_):
        return time_s * slower(rng), [90 + rng.gauss(0, spread) for _ in range(SIZE)]

    return play


def judged(found):
    return audit.judge(found, 7, SOURCE)


def test_without_audit_batches_there_is_no_audit():
    assert judged(measured((PUBLIC,) * 3, steady(), steady())) is None


def test_an_honest_file_on_a_quiet_machine():
    found = judged(measured((*USUAL, OTHER), steady(2.0), steady(1.0, (81.0,) * SIZE)))
    assert (found.seed, found.prompts, found.prompts_sha256) == (7, *SOURCE)
    for part in (found.fixed, found.audit):
        assert part.speedup == pytest.approx(2.0)
        assert part.quality_loss == pytest.approx(0.1)
    assert found.fixed_faster == pytest.approx(1.0)
    assert found.repeat_faster == pytest.approx(1.0)
    assert found.tolerance == audit.LEAST_TOLERANCE
    assert found.fixed_better == pytest.approx(0.0)
    assert found.suspicion is None


def test_answers_kept_for_public_prompts_are_suspicious():
    found = judged(measured(USUAL, steady(), steady(FIXED=(0.1, (90.0,) * SIZE))))
    assert found.fixed_faster == pytest.approx(10.0)
    assert found.suspicion == (
        "public prompts are 10.00 times faster than fresh ones (noise: up to"
        f" {audit.LEAST_TOLERANCE:.2f}): answers to them were prepared"
    )


def test_answers_kept_from_call_to_call_are_suspicious():
    found = judged(measured(USUAL, steady(), steady(REPEAT=(0.01, (90.0,) * SIZE))))
    assert found.repeat_faster == pytest.approx(100.0)
    assert found.suspicion == (
        "a batch is 100.00 times faster the second time (noise: up to"
        f" {audit.LEAST_TOLERANCE:.2f}): answers are kept from call to call"
    )


def test_images_prepared_for_public_prompts_are_suspicious():
    poor = [70.0 + number for number in range(SIZE)]
    prepared = [90.0 + number / 10 for number in range(SIZE)]
    found = judged(measured(USUAL, steady(), steady(1.0, poor, FIXED=(1.0, prepared))))
    assert found.fixed_better > 15
    assert found.suspicion.startswith(
        f"public prompts score {found.fixed_better:.1f} points better"
    )
    assert "images for them were prepared" in found.suspicion


def test_worse_and_slower_on_public_prompts_is_nobodys_gain():
    found = judged(measured(USUAL, steady(), steady(FIXED=(9.0, (10.0,) * SIZE))))
    assert found.fixed_faster < 1
    assert found.fixed_better < 0
    assert found.suspicion is None


def test_what_the_baseline_is_faster_at_too_is_no_suspicion():
    both = {"FIXED": (0.2, (90.0,) * SIZE)}
    assert judged(measured(USUAL, steady(**both), steady(**both))).suspicion is None


def test_a_baseline_slow_on_public_prompts_blames_nobody():
    slow = {"FIXED": (5.0, (90.0,) * SIZE)}
    found = judged(measured(USUAL, steady(**slow), steady()))
    assert found.fixed_faster == pytest.approx(1.0)


def test_a_short_last_batch_is_judged_by_the_image():
    purposes = (*USUAL, PUBLIC)
    seen = iter([*(((1.0, (90.0,) * SIZE),) * 7), (0.2, (90.0,))] * 2)
    found = judged(measured(purposes, lambda _: next(seen), lambda _: next(seen)))
    assert found.fixed_faster == pytest.approx(1.0)
    assert found.suspicion is None


def test_tolerance_follows_the_baselines_own_spread():
    times = iter([1.0, 1.0, 1.0, 1.0, 1.0, 2.0, 1.0])
    found = judged(measured(USUAL, lambda _: (next(times), (90.0,) * SIZE), steady()))
    assert found.tolerance == pytest.approx(4.0)


def test_a_candidate_cannot_widen_the_tolerance_by_noise_of_its_own():
    times = iter([0.1, 0.1, 0.1, 9.0, 1.0, 5.0, 3.0])
    found = judged(measured(USUAL, steady(), lambda _: (next(times), (90.0,) * SIZE)))
    assert found.tolerance == audit.LEAST_TOLERANCE
    assert "public prompts are" in found.suspicion


RUNS = 1000
MACHINES = [
    pytest.param(lambda rng, noise=noise, kind=kind: kind(rng, noise), id=f"{name} {noise:.0%}")
    for name, kind in (("steady", steadily_slowed), ("bursts", slowed_in_bursts))
    for noise in (0.1, 0.2, 0.3)
]


@pytest.mark.parametrize("slower", MACHINES)
@pytest.mark.parametrize("fresh", [3, 2], ids=lambda fresh: f"{fresh} fresh")
def test_honest_noise_is_never_accused(slower, fresh):
    rng = random.Random(1)
    purposes = (PUBLIC,) * 3 + (FRESH,) * fresh + (AGAIN,)
    runs = (
        judged(measured(purposes, noisy(rng, 2.0, slower), noisy(rng, 1.0, slower, spread=5.0)))
        for _ in range(RUNS)
    )
    assert [found.suspicion for found in runs if found.suspicion] == []


def test_honest_noise_is_not_accused_on_a_single_audit_batch():
    rng = random.Random(1)

    def slower(rng):
        return steadily_slowed(rng, 0.3)

    purposes = (PUBLIC,) * 3 + (FRESH, AGAIN)
    runs = (
        judged(measured(purposes, noisy(rng, 2.0, slower), noisy(rng, 1.0, slower, spread=5.0)))
        for _ in range(RUNS)
    )
    assert [found.suspicion for found in runs if found.suspicion] == []


@pytest.mark.parametrize("kept", [{PUBLIC}, {AGAIN}, {PUBLIC, AGAIN}])
@pytest.mark.parametrize("slower", MACHINES)
def test_answers_that_were_kept_are_found_on_a_noisy_machine_too(slower, kept):
    rng = random.Random(1)
    cheat = noisy(rng, 1.0, slower)

    def play(purpose):
        time_s, scores = cheat(purpose)
        return time_s * (0.005 if purpose in kept else 1.0), scores

    runs = [judged(measured(USUAL, noisy(rng, 1.0, slower), play)) for _ in range(200)]
    assert all(found.suspicion for found in runs)


def test_times_of_a_single_audit_batch_are_no_reason():
    purposes = (PUBLIC, PUBLIC, PUBLIC, FRESH, AGAIN)
    assert judged(measured(purposes, steady(), steady())).suspicion is None
    prepared = steady(FIXED=(0.1, (90.0,) * SIZE))
    found = judged(measured(purposes, steady(), prepared))
    assert found.fixed_faster == pytest.approx(10.0)
    assert found.suspicion is None


times_s = st.floats(1e-6, 1e4)
any_score = st.just(0.0) | st.floats(1e-40, 100)  # cosines come in single precision


@given(st.data(), st.integers(1, 3), st.integers(1, 3), st.booleans())
def test_any_numbers_give_numbers(data, fixed, fresh, has_repeat):
    purposes = (PUBLIC,) * fixed + (FRESH,) * fresh + ((AGAIN,) if has_repeat else ())
    counts = [data.draw(st.integers(1, 3)) for _ in purposes]
    scores = [[[data.draw(any_score) for _ in range(count)] for count in counts] for _ in "ab"]
    played = [iter([(data.draw(times_s), one) for one in side_scores]) for side_scores in scores]
    found = judged(measured(purposes, *[lambda _, plays=plays: next(plays) for plays in played]))
    for number in (found.fixed_faster, found.tolerance, found.fixed.speedup, found.audit.speedup):
        assert math.isfinite(number)
        assert number > 0
    assert (found.repeat_faster is None) is not has_repeat
    for part in (found.fixed, found.audit):
        assert part.quality_loss is None or math.isfinite(part.quality_loss)
    assert (found.fixed_better is None) == (found.fixed_better_t is None)


def test_images_without_any_score_leave_quality_open():
    nothing = steady(1.0, (0.0,) * SIZE)
    found = judged(measured(USUAL, nothing, nothing))
    assert (found.fixed.quality_loss, found.fixed_better, found.fixed_better_t) == (None,) * 3
    assert found.suspicion is None
