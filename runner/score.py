"""The spine: one candidate, from file to result. The only place that knows the order."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from runner import gpu, prepare, recall
from runner.account import Account
from runner.attempt import witness
from runner.keep import Keeper
from runner.progress import Silent
from runner.records import Refused, SpeedtrapError
from runner.settings import Settings

if TYPE_CHECKING:
    from runner.progress import Display
    from runner.records import Result


def score(
    candidate: str | Path,
    baseline: str | Path | None = None,
    **options: Any,  # noqa: ANN401
) -> Result:
    """Score `candidate` against `baseline`; `options` are the other fields of `Settings`.

    Without a baseline, one is made from the candidate's text; `Result.synthesised_baseline` is it.
    Returns the result, whatever the verdict. Raises `SpeedtrapError` when we failed: no device, no
    sandbox, a baseline that does not run, an option that does not exist or does not fit.
    """
    try:
        base = None if baseline is None else Path(baseline)
        settings = Settings(Path(candidate), base, **options)
    except ValidationError as error:
        first = error.errors()[0]
        message = f"option {'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise SpeedtrapError(message) from error
    return run(settings, Silent())


def run(settings: Settings, display: Display) -> Result:
    """Score by `settings`, telling `display` what goes on."""
    account = Account(prepare.prepare(settings), Keeper(settings.keep), display)
    if account.job.synthesised is not None:
        account.keeper.baseline(account.job.synthesised)
    scripts = prepare.write_scripts(account.job)
    if isinstance(scripts, Refused):
        return account.result(scripts)
    for role, script in scripts.items():
        account.keeper.text(role, "tmp.py", script.text)
    with ExitStack() as stack:
        if settings.baseline_cache is not None:
            with account.phase("baseline cache"):
                account.use(stack.enter_context(_memory(settings.baseline_cache, account)))
        return account.result(witness(scripts, account, gpu.PyNvml()))


def _memory(path: Path, account: Account) -> recall.Memory:
    """Open the baseline cache at `path`; make it, if there is none, by measuring the baseline."""
    if not path.exists():
        account.display.begin(f"measuring the baseline against itself for {path}")
        alone = prepare.prepare(recall.of_itself(account.job.settings))
        with recall.Recorder(path) as recorder:
            own = Account(alone, recorder, account.display)
            scripts = prepare.write_scripts(alone)
            outcome = (
                scripts if isinstance(scripts, Refused) else witness(scripts, own, gpu.PyNvml())
            )
            recorder.finish(alone.plan, outcome, own.result(outcome))
    return recall.read(path)
