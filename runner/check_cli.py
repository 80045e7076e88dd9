"""The command line of `bin/check`: what a file's text says, and whether that is what was asked."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

import click
from rich.table import Table
from rich.text import Text

from runner import check, cli, compare, feedback
from runner.plain import json_text, one_line
from runner.records import Outcome, Refused, Source, said
from runner.report import console_for, grid
from runner.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pydantic import JsonValue

    from runner.records import ConfigMatch

EXIT_MATCHES, EXIT_DIFFERS = 0, 1

_HELP = """Say what the text of each FILE tells: pipeline, model, scheduler, steps, methods.

Nothing is executed. With --against, the one FILE is compared with a ground truth, field by field;
with --live, both pipelines are loaded in the sandbox too, and compared weight by weight. Exit
status: 0 read, and all required fields match; 1 not, or with --feedback, bin/score would refuse it;
2 Speedtrap itself failed, 130 interrupted."""
_MAX_DIFFERENCES: Final = 40
_MARKS: Final = {Outcome.YES: "green", Outcome.NO: "red", Outcome.UNKNOWN: "yellow"}


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command and exit; `arguments` are those after the program's name."""
    cli.run(command, "bin/check", arguments)


@click.command(help=_HELP, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("files", type=click.Path(path_type=Path), nargs=-1, required=True)
@cli.comparison
@click.option("--live", is_flag=True, help="With --against: load and compare both pipelines.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON; a line a file for several.")
@click.option("--feedback", "as_feedback", is_flag=True, help="Print only what helps the author.")
@cli.places
@click.option("--quiet", is_flag=True, help="With --live: show no progress.")
def command(files: tuple[Path, ...], **options: Any) -> int:  # noqa: ANN401  (click's own)
    """Read files, or compare one."""
    if options["as_json"] and options["as_feedback"]:
        message = "--json and --feedback exclude each other"
        raise click.UsageError(message)
    if options["against"] is not None:
        if len(files) != 1:
            message = "--against takes one file to compare"
            raise click.UsageError(message)
        return _compare(files[0], options)
    if options["live"]:
        message = "--live needs --against"
        raise click.UsageError(message)
    _check_fields(options)
    is_alone = len(files) == 1
    return max(_tell(path, check.read(path), options, is_alone=is_alone) for path in files)


def _check_fields(options: dict[str, Any]) -> None:
    """Refuse names of fields that there are not, though nothing is compared."""
    places = cli.place_settings(options)
    compare.check_fields((*places["fields"], *places["open_fields"]))


def _tell(
    path: Path, found: Source | Refused, options: dict[str, Any], *, is_alone: bool = True
) -> int:
    """Print what was read of one file; return the exit status."""
    if options["as_json"]:
        click.echo(json_text(as_json(path, found), indent=2 if is_alone else None))
    elif options["as_feedback"]:
        return _tell_author(found, None if is_alone else str(path))
    elif isinstance(found, Refused):
        click.echo(one_line(f"{found.verdict}: {found.reason}"))
    else:
        _show_rows(found, None if is_alone else str(path))
    return EXIT_DIFFERS if isinstance(found, Refused) else EXIT_MATCHES


def as_json(path: Path, found: Source | Refused) -> dict[str, JsonValue]:
    """What was read of one file, for programs: null where the text does not tell."""
    name = str(path).encode(errors="replace").decode()
    if isinstance(found, Refused):
        line = found.failure.line if found.failure else None
        return {"file": name, "error": found.reason, "verdict": found.verdict, "line": line}
    usage = found.usage
    return {
        **found.config.model_dump(mode="json"),
        "loads": usage.shape,
        "refusal": usage.refusal or None,
        "models": list(found.models),
        "file": name,
    }


def _rows(source: Source) -> Iterator[tuple[str, str]]:
    config = source.config.model_dump(mode="json")
    parameters = config.pop("method_parameters")
    for name in compare.REQUIRED:
        yield name, said(config.pop(name))
    for method, given in sorted(parameters.items()):
        yield f"  {method}", said(given)
    for name, value in config.items():
        is_usual = name == "call_method" and value == "__call__"
        if value not in (None, False, [], {}) and not is_usual:
            yield name, said(value)
    yield "loads", source.usage.shape
    if source.usage.refusal:
        yield "not usable", source.usage.refusal


def _show_rows(source: Source, title: str | None) -> None:
    console = console_for(sys.stdout)
    if title is not None:
        console.print(Text(one_line(title), style="bold"))
    console.print(grid(_rows(source)))


def _tell_author(found: Source | Refused, title: str | None) -> int:
    """Print what helps the author; return the exit status, which says what the verdict says."""
    if isinstance(found, Source) and found.usage.refusal:
        found = check.refuse(found.path, found.usage.refusal)
    is_refused = isinstance(found, Refused)
    text = feedback.for_refusal(found) if isinstance(found, Refused) else "verdict: ok"
    if title is not None:
        click.echo(f"{one_line(title)}:")
    click.echo(text)
    return EXIT_DIFFERS if is_refused else EXIT_MATCHES


def _compare(path: Path, options: dict[str, Any]) -> int:
    """Compare one file with the ground truth; print and return the exit status."""
    settings = Settings(candidate=path, baseline=options["against"], **cli.place_settings(options))
    truth = check.read_truth(options["against"])
    found = check.read(path)
    if isinstance(found, Refused):
        return _tell(path, found, options)
    match = compare.compare(found.config, truth, settings.fields, settings.open_fields)
    # Certain mismatches need no device to be sure of.
    is_live = options["live"] and not match.mismatches
    seen = _look(settings, quiet=options["quiet"]) if is_live else None
    if isinstance(seen, Refused):
        return _tell(path, seen, options)
    if options["as_json"]:
        live = None if seen is None else {"matched": not seen, "differences": list[Any](seen)}
        click.echo(json_text({**match.model_dump(mode="json"), "live": live}))
    elif options["as_feedback"]:
        click.echo(feedback.for_match(match, seen or ()))
    else:
        _show_match(match)
        _show_live(seen)
    return EXIT_MATCHES if match.matched and not seen else EXIT_DIFFERS


def _look(settings: Settings, *, quiet: bool) -> list[str] | Refused:
    from runner import progress  # deferred: what reading does not need
    from runner.look import look

    with progress.for_terminal(quiet=quiet) as display:
        return look(settings, display)


def _show_match(match: ConfigMatch) -> None:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("field", "candidate", "ground truth", "match"):
        table.add_column(name, overflow="fold")
    for one in match.fields:
        values = (one_line(said(value)) for value in (one.candidate, one.ground_truth))
        mark = Text(one.match, style=_MARKS.get(one.match, "dim"))
        table.add_row(Text(one.field), *map(Text, values), mark)
    console = console_for(sys.stdout)
    console.print(table)
    undecided = "" if match.decided else "; what is unknown, the text does not tell"
    console.print(Text(f"\nmatch rate {match.rate:.0%}{undecided}"))


def _show_live(differences: list[str] | None) -> None:
    if differences is None:
        return
    click.echo(f"live: {_count(differences)}")
    for sentence in differences[:_MAX_DIFFERENCES]:
        click.echo(f"  {one_line(sentence)}")
    if len(differences) > _MAX_DIFFERENCES:
        click.echo(f"  and {len(differences) - _MAX_DIFFERENCES} more; --json has them")


def _count(differences: list[str]) -> str:
    match len(differences):
        case 0:
            return "no difference"
        case 1:
            return "1 difference"
        case many:
            return f"{many} differences"


if __name__ == "__main__":
    main()
