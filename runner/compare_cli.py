"""The command line of `bin/compare`: two results or more, held against the first of them."""

from __future__ import annotations

import itertools
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

import click
from pydantic import ValidationError
from rich.table import Table
from rich.text import Text

from runner import cli, comparable, estimate, verify
from runner.comparable import Use
from runner.plain import json_text, one_line
from runner.records import Measured, Result, SpeedtrapError, Verdict
from runner.report import console_for
from runner.verify import Evidence

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from runner.comparable import Difference
    from runner.estimate import Estimate

EXIT_COMPARED, EXIT_MUST_NOT = 0, 1
MAX_RESULT_BYTES: Final = 256 * 1024**2
_LEAST_FILES: Final = 2

_HELP = """Compare results: each FILE is what bin/score --json printed, or result.json of --keep.

Each is held against the first FILE: how many times as fast it is, and whether that is for sure.
Results that must not be compared are refused, and what differs is named. Exit status: 0 compared, 1
must not be compared or came to no number, 2 a FILE is no result.
"""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command and exit; `arguments` are those after the program's name."""
    cli.run(command, "bin/compare", arguments)


@dataclass(frozen=True, slots=True)
class Named:
    """A result and the name of its file."""

    name: str
    result: Result


@dataclass(frozen=True, slots=True)
class Against:
    """One result held against the first.

    `differences` are why they must not be compared. `ratio` is how many times as fast it is, None
    where one of the two came to no loss. `other_losses` are why their losses are not of one kind,
    `verdicts` the verdicts of both in words.
    """

    name: str
    differences: tuple[Difference, ...]
    ratio: Estimate | None
    other_losses: tuple[Difference, ...]
    verdicts: str

    @property
    def differs(self) -> bool | None:
        """Whether one is faster for sure; None: cannot tell."""
        if self.ratio is None or self.ratio.interval is None:
            return None
        low, high = self.ratio.interval
        return True if low > 1 or high < 1 else None


@click.command(help=_HELP, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("files", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
def command(files: tuple[Path, ...], *, as_json: bool) -> int:
    """Compare results."""
    if len(files) < _LEAST_FILES:
        message = "name two results or more"
        raise click.UsageError(message)
    first, *others = [Named(str(path), read(path)) for path in files]
    found = [hold(first, other) for other in others]
    if as_json:
        click.echo(json_text(_as_json(first, others, found)))
    else:
        _show([first, *others], found)
    return EXIT_COMPARED if all(one.ratio for one in found) else EXIT_MUST_NOT


def read(path: Path) -> Result:
    """The result in a file; raises `SpeedtrapError` where there is none."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_RESULT_BYTES + 1)
    except OSError as error:
        message = f"cannot read {path}: {error.strerror}"
        raise SpeedtrapError(message) from error
    if len(data) > MAX_RESULT_BYTES:
        message = f"{path} is larger than any result"
        raise SpeedtrapError(message)
    try:
        return Result.model_validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        message = (
            f"{path} is no result of this version: {where and f'{where}: '}{first['msg']}; give"
            " what bin/score --json prints (of --repeat, one of its runs)"
        )
        raise SpeedtrapError(message) from error


def hold(first: Named, other: Named) -> Against:
    """Hold a result against the first one."""
    pair = first.result, other.result
    differences = comparable.differences(*pair, Use.SPEEDUP | Use.QUALITY)
    level = max([estimate.LEVEL, *(one.confidence or 0.0 for one in pair)])
    ours, theirs = (_credited(one, level) for one in pair)
    is_fit = ours is not None and theirs is not None and not differences
    ratio = estimate.ratio(ours, theirs) if is_fit and ours and theirs else None
    verdicts = f"{first.name} is {first.result.verdict}, {other.name} {other.result.verdict}"
    losses = comparable.differences(*pair, Use.LOSS)
    return Against(other.name, differences, ratio, losses, verdicts)


def _credited(result: Result, level: float) -> Estimate | None:
    """The credited speedup with its interval, made from the raw seconds of the pairs.

    None where the run itself came to no number: without a loss, times say nothing.
    """
    baseline, candidate = result.baseline, result.candidate
    if result.loss is None or baseline is None or candidate is None:
        return None
    circumstances = result.circumstances
    return verify.credited_speedup(
        Evidence(
            Measured(baseline, candidate, claim_stdout="", order="alternate"),
            scores=(),
            fidelity=result.fidelity,
            allow_untied=circumstances is not None and circumstances.allow_untied,
            level=level,
            drift=result.drift,
        )
    )


def _as_json(first: Named, others: Sequence[Named], found: Sequence[Against]) -> dict[str, Any]:
    return {
        "first": first.name,
        "level": estimate.LEVEL,
        "results": [
            {
                "file": one.name,
                **one.result.model_dump(
                    mode="json",
                    include={
                        *("verdict", "speedup", "speedup_ci", "credited_speedup", "quality_loss"),
                        *("quality_loss_ci", "loss", "loss_ci"),
                    },
                ),
            }
            for one in [first, *others]
        ],
        "against_first": [
            {
                "file": one.name,
                "comparable": not one.differences,
                "differences": [asdict(difference) for difference in one.differences],
                "ratio": one.ratio.value if one.ratio else None,
                "ratio_ci": one.ratio.interval if one.ratio else None,
                "differs": one.differs,
                "losses_differ_in": [asdict(difference) for difference in one.other_losses],
            }
            for one in found
        ],
    }


def _show(named: Sequence[Named], found: Sequence[Against]) -> None:
    console = console_for(sys.stdout)
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for title in ("result", "verdict", "speedup", "credited", "quality loss", "loss"):
        table.add_column(title, overflow="fold")
    for one in named:
        table.add_row(*(Text(one_line(cell)) for cell in _cells(one)))
    console.print(table)
    for line in itertools.chain.from_iterable(map(_lines, found)):
        console.print(Text(one_line(line)))


def _cells(one: Named) -> Iterator[str]:
    result = one.result
    yield one.name
    yield result.verdict
    yield _said(result.speedup, result.speedup_ci, ".3f")
    yield _said(result.credited_speedup, None, ".3f")
    yield _said(result.quality_loss, result.quality_loss_ci, ".2%")
    yield _said(result.loss, result.loss_ci, ".4f")


def _said(value: float | None, ends: tuple[float, float] | None, form: str) -> str:
    if value is None:
        return "-"
    return f"{value:{form}}" + (f" ({ends[0]:{form}} to {ends[1]:{form}})" if ends else "")


def _lines(one: Against) -> Iterator[str]:
    """What is said of a result below the table."""
    if one.differences:
        yield f"{one.name} must not be compared with the first:"
        yield from (f"  - {difference}" for difference in one.differences)
        return
    if one.ratio is None:
        yield f"{one.name}: no speedup to compare, {one.verdicts}"
        return
    ratio = _said(one.ratio.value, one.ratio.interval, ".3f")
    if one.ratio.interval is None:
        why = "too few pairs of batches for an interval"
    elif one.differs:
        why = "faster for sure" if one.ratio.value > 1 else "slower for sure"
    else:
        why = "cannot tell whether they differ"
    yield f"{one.name}: {ratio} times as fast as the first, credited speedups: {why}"
    if Verdict.QUALITY_THRESHOLD_EXCEEDED in one.verdicts:
        yield f"  not at the quality that was asked for: {one.verdicts}"
    for difference in one.other_losses:
        yield f"  the losses are not of one kind: {difference}"


if __name__ == "__main__":
    main()
