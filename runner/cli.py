"""The command line, `bin/score`: reads flags once, into `Settings`; the rest is elsewhere."""

from __future__ import annotations

import json
import signal
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from runner.records import IsolationPolicy, Refused, Result, SpeedtrapError
from runner.settings import Settings, parse_gib, parse_stand_in

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType

EXIT_PASSED, EXIT_NOT_PASSED, EXIT_WE_FAILED, EXIT_INTERRUPTED = 0, 1, 2, 130

_HELP = """Score CANDIDATE, a Python file that claims to run a text-to-image pipeline faster.

Both files run in a sandbox; the clock, the prompts and the scorer stay outside of it. A file
defines load_pipe() and inference(pipe, prompts), which returns one image per prompt, or a global
pipe. Exit status: 0 passed, 1 not passed, 2 Speedtrap itself failed, 130 interrupted."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command and exit; `arguments` are those after the program's name."""
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        status = command.main(args=arguments, prog_name="bin/score", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        status = EXIT_WE_FAILED
    except SpeedtrapError as error:
        _tell(f"speedtrap: {error}")
        status = EXIT_WE_FAILED
    except (KeyboardInterrupt, click.Abort):
        click.echo("speedtrap: interrupted; everything that was started has been ended", err=True)
        status = EXIT_INTERRUPTED
    except Exception:  # noqa: BLE001  (status 1 would read as the candidate's failure)
        traceback.print_exc()
        click.echo("speedtrap: failed for a reason of its own, see above", err=True)
        status = EXIT_WE_FAILED
    sys.exit(status)


def _tell(message: str) -> None:
    """Write to stderr what may hold a candidate's words."""
    from runner.report import printable  # deferred: what --help does not need

    click.echo(printable(message), err=True)


def _interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


@click.command(help=_HELP, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("candidate", type=click.Path(path_type=Path), required=False)
@click.option("--baseline", type=click.Path(path_type=Path), help="The file to compare with.")
@click.option("--target-speedup", type=float, help="Speedup asked for.  [default: the preset's]")
@click.option("--target-quality-loss", type=float, default=0.02, show_default=True)
@click.option("--preset", help="embedded or natural.  [default: by the baseline's model]")
@click.option("--prompts", help="A prompt set, coco:N, or a text file with a prompt a line.")
@click.option("--clip", help="MODEL:TAG as open_clip lists them, MODEL:random, local-dir:FOLDER.")
@click.option("--batch-size", type=int, default=5, show_default=True)
@click.option("--seed", type=int, default=42, show_default=True)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option(
    "--wait",
    type=float,
    default=600.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for a free device.",
)
@click.option(
    "--timeout",
    type=float,
    default=600.0,
    show_default=True,
    metavar="SECONDS",
    help="Limit for loading, and for each batch.",
)
@click.option(
    "--memory",
    type=float,
    metavar="GIB",
    help="Limit of host memory for each side.  [default: 80 % of what is available]",
)
@click.option(
    "--sandbox",
    type=click.Choice([policy.value for policy in IsolationPolicy]),
    default=IsolationPolicy.BUBBLEWRAP.value,
    show_default=True,
    help="none runs untrusted code without any isolation.",
)
@click.option(
    "--stand-in",
    multiple=True,
    metavar="NAME=OTHER",
    help="Mount a model, or a folder, under another model's name. Repeatable.",
)
@click.option(
    "--allow-read",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Let both sides read a folder of the host. Repeatable.",
)
@click.option(
    "--keep",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Keep scripts, images and logs of both sides in a new folder.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
@click.option("--quiet", is_flag=True, help="Show no progress.")
@click.option(
    "--emit",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write the standalone script of CANDIDATE and stop.",
)
@click.option("--schema", is_flag=True, help="Print the JSON Schema of --json and stop.")
def command(**options: Any) -> int:  # noqa: ANN401  (click's own)
    """Score one candidate, or write what was asked for instead."""
    if options["schema"]:
        click.echo(json.dumps(Result.model_json_schema(mode="serialization"), indent=2))
        return EXIT_PASSED
    candidate = options["candidate"]
    if candidate is None:
        message = "name the candidate: bin/score CANDIDATE --baseline BASELINE"
        raise click.UsageError(message)
    if options["emit"] is not None:
        return _emit(candidate, _settings(options, candidate), options["emit"])
    if options["baseline"] is None:
        message = "name the baseline: bin/score CANDIDATE --baseline BASELINE"
        raise click.UsageError(message)
    settings = _settings(options, options["baseline"])
    return _score(settings, as_json=options["as_json"], quiet=options["quiet"])


def _settings(options: dict[str, Any], baseline: Path) -> Settings:
    gib = options["memory"]
    return Settings(
        candidate=options["candidate"],
        baseline=baseline,
        target_speedup=options["target_speedup"],
        target_quality_loss=options["target_quality_loss"],
        preset=options["preset"],
        prompts=options["prompts"],
        clip=options["clip"],
        batch_size=options["batch_size"],
        seed=options["seed"],
        device=options["device"],
        wait_s=options["wait"],
        timeout_s=options["timeout"],
        memory_limit_bytes=None if gib is None else parse_gib(gib),
        sandbox=IsolationPolicy(options["sandbox"]),
        stand_ins=dict(parse_stand_in(text) for text in options["stand_in"]),
        readable=tuple(folder.absolute() for folder in options["allow_read"]),
        keep=options["keep"],
    )


def _score(settings: Settings, *, as_json: bool, quiet: bool) -> int:
    from runner import progress, report  # deferred: what --help does not need
    from runner.score import run

    with progress.for_terminal(quiet=quiet) as display:
        result = run(settings, display)
    if as_json:
        click.echo(result.model_dump_json(indent=2))
    else:
        report.show(result, sys.stdout)
    return EXIT_PASSED if result.passed else EXIT_NOT_PASSED


def _emit(candidate: Path, settings: Settings, target: Path) -> int:
    from runner.score import emit  # deferred: what --help does not need

    script = emit(candidate, settings)
    if isinstance(script, Refused):
        _tell(f"{script.verdict}: {script.reason}")
        return EXIT_NOT_PASSED
    try:
        target.write_text(script, encoding="utf-8", newline="")
    except OSError as error:
        message = f"cannot write {target}: {error.strerror}"
        raise SpeedtrapError(message) from error
    click.echo(f"wrote {target}; run it with: python {target}", err=True)
    return EXIT_PASSED
