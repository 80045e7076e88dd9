"""Speedtrap scores Python files nobody trusts; `from runner import score` is the way in."""

from runner.records import Result, SpeedtrapError, Verdict
from runner.score import score

__all__ = ["Result", "SpeedtrapError", "Verdict", "score"]
