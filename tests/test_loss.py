import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from runner.loss import accuracy_achievement, loss, speed_achievement

positive = st.floats(min_value=1e-6, max_value=1e6)
any_positive = st.floats(
    min_value=0, exclude_min=True, allow_infinity=False, allow_nan=False, allow_subnormal=True
)
quality_losses = st.floats(max_value=1, allow_infinity=False, allow_nan=False)
targets = st.floats(min_value=0, max_value=1)


@pytest.mark.parametrize(
    ("speedup", "quality_loss", "target_speedup", "target_quality_loss", "expected"),
    [
        (10, 0.02, 10, 0.02, 0.0),
        (20, -0.5, 10, 0.02, 0.0),
        (5, 0.0, 10, 0.02, 0.5),
        (10, 0.04, 10, 0.02, 0.5),
        (5, 0.04, 10, 0.02, 0.75),
        (1, 1.0, 10, 0.02, 0.998),
        (10, 1e-9, 10, 0.0, 1.0),
        (10, 0.0, 10, 0.0, 0.0),
        (10, 1.0, 10, 1.0, 0.0),
    ],
)
def test_worked_examples(speedup, quality_loss, target_speedup, target_quality_loss, expected):
    found = loss(speedup, quality_loss, target_speedup, target_quality_loss)
    assert found == pytest.approx(expected, abs=1e-12)


@given(positive, st.floats(-1, 1), positive, targets)
def test_formula_of_the_design(speedup, quality_loss, target_speedup, target_quality_loss):
    speed = min(1, speedup / target_speedup)
    accuracy = 1
    if quality_loss > target_quality_loss:
        accuracy = min(1, target_quality_loss / quality_loss)
    found = loss(speedup, quality_loss, target_speedup, target_quality_loss)
    assert found == pytest.approx(1 - speed * accuracy, abs=1e-12)


@given(any_positive, quality_losses, any_positive, targets)
def test_bounded(speedup, quality_loss, target_speedup, target_quality_loss):
    assert 0 <= loss(speedup, quality_loss, target_speedup, target_quality_loss) <= 1


@given(any_positive, any_positive, quality_losses, any_positive, targets)
def test_never_rises_with_speedup(one, other, quality_loss, target_speedup, target_quality_loss):
    slow, fast = sorted((one, other))
    assert loss(fast, quality_loss, target_speedup, target_quality_loss) <= loss(
        slow, quality_loss, target_speedup, target_quality_loss
    )


@given(any_positive, quality_losses, quality_losses, any_positive, targets)
def test_never_falls_with_quality_loss(speedup, one, other, target_speedup, target_quality_loss):
    better, worse = sorted((one, other))
    assert loss(speedup, better, target_speedup, target_quality_loss) <= loss(
        speedup, worse, target_speedup, target_quality_loss
    )


@given(any_positive, quality_losses, any_positive, any_positive, targets)
def test_never_falls_with_target_speedup(speedup, quality_loss, one, other, target_quality_loss):
    modest, ambitious = sorted((one, other))
    assert loss(speedup, quality_loss, modest, target_quality_loss) <= loss(
        speedup, quality_loss, ambitious, target_quality_loss
    )


@given(any_positive, quality_losses, any_positive, targets, targets)
def test_never_rises_with_tolerance(speedup, quality_loss, target_speedup, one, other):
    strict, lax = sorted((one, other))
    assert loss(speedup, quality_loss, target_speedup, lax) <= loss(
        speedup, quality_loss, target_speedup, strict
    )


@given(
    st.tuples(st.floats(0.01, 100), st.floats(-1, 1), st.floats(0.01, 100), st.floats(0.001, 1)),
    st.integers(0, 3),
    st.sampled_from([-1e-9, 1e-9]),
)
def test_continuous(point, which, step):
    steepest = 1 / 0.001 + 100 / 0.01**2
    near = list(point)
    near[which] += step
    assume(near[1] <= 1 >= near[3])
    assert abs(loss(*near) - loss(*point)) <= steepest * abs(step)


@given(st.floats(0.001, 0.999))
def test_no_jump_at_the_tolerance(target):
    assert accuracy_achievement(target, target) == 1
    assert accuracy_achievement(math.nextafter(target, 1), target) == pytest.approx(1, abs=1e-12)


@given(any_positive)
def test_reaching_the_target_exactly_is_full_achievement(target):
    assert speed_achievement(target, target) == 1


@pytest.mark.parametrize("bad", [0, -0.0, -1, math.nan, math.inf, -math.inf])
def test_speedups_that_are_refused(bad):
    with pytest.raises(ValueError, match="speedup must be finite and above 0"):
        speed_achievement(bad, 10)
    with pytest.raises(ValueError, match="target_speedup must be finite and above 0"):
        speed_achievement(1, bad)
    with pytest.raises(ValueError, match="speedup"):
        loss(bad, 0, 10, 0.02)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1.0000001, 2])
def test_quality_losses_that_are_refused(bad):
    with pytest.raises(ValueError, match="quality_loss must be finite and at most 1"):
        accuracy_achievement(bad, 0.02)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -1e-9, 1.1, -math.inf])
def test_tolerances_that_are_refused(bad):
    with pytest.raises(ValueError, match="target_quality_loss must be in"):
        accuracy_achievement(0.5, bad)
