"""The loss: one number from a speedup, a quality ratio and two targets. Pure functions."""

from __future__ import annotations

import math


def speed_achievement(speedup: float, target_speedup: float) -> float:
    """Share of the asked-for speedup that was reached, in [0, 1]. Both arguments above 0."""
    _require_positive("speedup", speedup)
    _require_positive("target_speedup", target_speedup)
    return min(1.0, speedup / target_speedup)


def accuracy_achievement(quality_loss: float, target_quality_loss: float) -> float:
    """1 up to the tolerated quality loss, then the tolerated over the actual one; in [0, 1].

    `quality_loss` is 1 - candidate score / baseline score, at most 1, negative for a better one.
    `target_quality_loss` is in [0, 1]; at 0 the smallest loss of quality gives 0.
    """
    if not 0 <= target_quality_loss <= 1:
        message = f"target_quality_loss must be in [0, 1], not {target_quality_loss}"
        raise ValueError(message)
    if not math.isfinite(quality_loss) or quality_loss > 1:
        message = f"quality_loss must be finite and at most 1, not {quality_loss}"
        raise ValueError(message)
    if quality_loss <= target_quality_loss:
        return 1.0
    return target_quality_loss / quality_loss


def loss(
    speedup: float, quality_loss: float, target_speedup: float, target_quality_loss: float
) -> float:
    """1 - speed achievement x accuracy achievement, in [0, 1]; lower is better.

    Raises `ValueError` for arguments outside the ranges of the two achievements.
    """
    speed = speed_achievement(speedup, target_speedup)
    return 1.0 - speed * accuracy_achievement(quality_loss, target_quality_loss)


def _require_positive(name: str, value: float) -> None:
    if not (math.isfinite(value) and value > 0):
        message = f"{name} must be finite and above 0, not {value}"
        raise ValueError(message)
