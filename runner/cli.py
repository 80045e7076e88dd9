"""The command line, `bin/score`: reads flags once, into `Settings`; the rest is elsewhere."""

from __future__ import annotations

import json
import signal
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TextIO, TypeVar

import click

from runner import compare
from runner.plain import json_text, one_line
from runner.records import BaselinePrecision, IsolationPolicy, Refused, Result, SpeedtrapError
from runner.settings import Settings, parse_gib, parse_stand_in

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import FrameType

    from runner.repeat import Repeated
    from runner.stability import Stability

R = TypeVar("R", "Result", "Repeated", "Stability")

EXIT_PASSED, EXIT_NOT_PASSED, EXIT_WE_FAILED, EXIT_INTERRUPTED = 0, 1, 2, 130
_MOST_LINES = 100

_HELP = """Score CANDIDATE, a Python file that claims to run a text-to-image pipeline faster.

Both files run in a sandbox; the clock, the prompts and the scorer stay outside of it. A file
defines load_pipe() and inference(pipe, prompts), which returns one image per prompt, or a global
pipe. Without --baseline, one is made from what the text of CANDIDATE says. With --against, texts
are compared first, and a mismatch is the verdict. Exit status: 0 passed, 1 not passed, 2 Speedtrap
itself failed, 130 interrupted."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command and exit; `arguments` are those after the program's name."""
    run(command, "bin/score", arguments)


def run(program: click.Command, name: str, arguments: Sequence[str] | None) -> NoReturn:
    """Run a command and exit with the status of what it returns or raises."""
    signal.signal(signal.SIGTERM, _interrupt)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # it is under nohup
        signal.signal(signal.SIGHUP, _interrupt)
    try:
        status = program.main(args=arguments, prog_name=name, standalone_mode=False)
    except click.ClickException as error:
        if isinstance(error, click.UsageError) and error.ctx is not None:
            click.echo(error.ctx.get_usage(), err=True)
        tell(f"Error: {error.format_message()}")
        status = EXIT_WE_FAILED
    except SpeedtrapError as error:
        tell(f"speedtrap: {error}")
        status = EXIT_WE_FAILED
    except (KeyboardInterrupt, click.Abort):
        click.echo("speedtrap: interrupted; everything that was started has been ended", err=True)
        status = EXIT_INTERRUPTED
    except Exception:  # noqa: BLE001  (status 1 would read as the candidate's failure)
        tell(f"speedtrap: failed for a reason of its own\n{traceback.format_exc()}")
        status = EXIT_WE_FAILED
    sys.exit(status)


def tell(message: str) -> None:
    """Write to stderr what may hold a candidate's words: only the first line begins like ours."""
    first, *rest = message.splitlines() or [""]
    click.echo(one_line(first), err=True)
    for line in rest[-_MOST_LINES:]:
        click.echo(f"  | {one_line(line)}", err=True)


def _interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def places(program: Callable[..., int]) -> Callable[..., int]:
    """Add the options that say where and within which limits files are run."""
    options = [
        click.option(
            "--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N."
        ),
        click.option(
            "--wait",
            type=float,
            default=600.0,
            show_default=True,
            metavar="SECONDS",
            help="How long to wait for a free device.",
        ),
        click.option(
            "--timeout",
            type=float,
            default=600.0,
            show_default=True,
            metavar="SECONDS",
            help="Limit for loading, and for each batch.",
        ),
        click.option(
            "--memory",
            type=float,
            metavar="GIB",
            help="Limit of host memory for each side.  [default: 45 % of what is available]",
        ),
        click.option(
            "--sandbox",
            type=click.Choice([policy.value for policy in IsolationPolicy]),
            default=IsolationPolicy.AUTO.value,
            show_default=True,
            help="auto is bubblewrap, or landlock where there are no user namespaces; none runs"
            " untrusted code without any isolation.",
        ),
        click.option(
            "--stand-in",
            multiple=True,
            metavar="NAME=OTHER",
            help="Mount a model, or a folder, under another model's name. Repeatable.",
        ),
        click.option(
            "--allow-read",
            multiple=True,
            type=click.Path(path_type=Path),
            metavar="FOLDER",
            help="Let both sides read a folder of the host. Repeatable.",
        ),
    ]
    for option in reversed(options):
        program = option(program)
    return program


def comparison(program: Callable[..., int]) -> Callable[..., int]:
    """Add the options that say what a text is compared with."""
    options = [
        click.option(
            "--against",
            type=click.Path(path_type=Path),
            metavar="FILE",
            help="A ground truth: a file whose text says what is asked for.",
        ),
        click.option(
            "--fields",
            default=",".join(compare.REQUIRED),
            show_default=True,
            metavar="FIELDS",
            help="What is compared, between commas.",
        ),
        click.option(
            "--open",
            "open_fields",
            multiple=True,
            metavar="FIELD",
            help="A field that need not match. Repeatable.",
        ),
    ]
    for option in reversed(options):
        program = option(program)
    return program


def place_settings(options: dict[str, Any]) -> dict[str, Any]:
    """Fields of `Settings` from the options of `places` and `comparison`."""
    gib = options["memory"]
    return {
        "device": options["device"],
        "wait_s": options["wait"],
        "timeout_s": options["timeout"],
        "memory_limit_bytes": None if gib is None else parse_gib(gib),
        "sandbox": IsolationPolicy(options["sandbox"]),
        "stand_ins": dict(parse_stand_in(text) for text in options["stand_in"]),
        "readable": tuple(folder.absolute() for folder in options["allow_read"]),
        "fields": tuple(name.strip() for name in options["fields"].split(",")),
        "open_fields": options["open_fields"],
    }


@click.command(help=_HELP, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("candidate", type=click.Path(path_type=Path), required=False)
@click.option(
    "--baseline",
    type=click.Path(path_type=Path),
    help="The file to compare with.  [default: made from CANDIDATE]",
)
@click.option(
    "--baseline-cache",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Recall the baseline from FILE, but for some live batches; measure and write it if there"
    " is none. For many candidates with one baseline.",
)
@click.option("--target-speedup", type=float, help="Speedup asked for.  [default: the preset's]")
@click.option("--target-quality-loss", type=float, default=0.02, show_default=True)
@click.option("--preset", help="embedded or natural.  [default: by the baseline's model]")
@click.option("--prompts", help="A prompt set, coco:N, or a text file with a prompt a line.")
@click.option("--clip", help="MODEL:TAG as open_clip lists them, MODEL:random, local-dir:FOLDER.")
@click.option("--batch-size", type=int, default=5, show_default=True)
@click.option("--seed", type=int, default=42, show_default=True)
@click.option(
    "--until-decided",
    is_flag=True,
    help="Add fresh prompts until both targets are clearly met, or one clearly missed.",
)
@click.option(
    "--budget",
    type=float,
    default=600.0,
    show_default=True,
    metavar="SECONDS",
    help="Of both sides' batches, at the baseline's pace, with --until-decided.",
)
@click.option(
    "--audit-batches",
    type=int,
    metavar="N",
    help="Batches of fresh prompts, which the numbers stand on.  [default: 3 for each fixed one]",
)
@click.option(
    "--audit-prompts",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Draw fresh prompts from a private text file.  [default: the preset's grammar]",
)
@click.option(
    "--audit-seed", type=int, metavar="N", help="Repeat the fresh prompts of an earlier run."
)
@click.option(
    "--allow-untied",
    is_flag=True,
    help="Accept images that do not follow from the seed as the baseline's do.",
)
@click.option(
    "--metric",
    multiple=True,
    metavar="NAME",
    help="A further metric: lpips, fid, fid=FILE with weights of Inception, imagereward, or"
    " imagereward=FOLDER with its weights. Repeatable.",
)
@places
@comparison
@click.option(
    "--baseline-precision",
    type=click.Choice([one.value for one in BaselinePrecision]),
    default=BaselinePrecision.SAME.value,
    show_default=True,
    help="Of a baseline that is made here. With float32, half precision counts as acceleration.",
)
@click.option(
    "--save-baseline",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write the baseline that is made here.",
)
@click.option(
    "--keep",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Keep scripts, images and logs of both sides in a new folder.",
)
@click.option(
    "--repeat",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    metavar="N",
    help="Whole runs, each with fresh processes and prompts: mean, deviation and interval.",
)
@click.option(
    "--stability",
    is_flag=True,
    help="Also runs at other batch sizes, prompts, seeds and steps: a table with a row for each.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
@click.option("--feedback", is_flag=True, help="Print only what helps the author of CANDIDATE.")
@click.option("--quiet", is_flag=True, help="Show no progress.")
@click.option(
    "--emit",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write the standalone script of CANDIDATE and stop.",
)
@click.option("--doctor", is_flag=True, help="Check whether a score can be run here, and stop.")
@click.option("--schema", is_flag=True, help="Print the JSON Schema of --json and stop.")
def command(**options: Any) -> int:  # noqa: ANN401  (click's own)
    """Score one candidate, or write what was asked for instead."""
    if options["schema"]:
        click.echo(_schema(options["repeat"], stability=options["stability"]))
        return EXIT_PASSED
    if options["doctor"]:
        return _doctor(options)
    candidate = options["candidate"]
    if candidate is None:
        message = "name the candidate: bin/score CANDIDATE"
        raise click.UsageError(message)
    if options["emit"] is not None:
        return _emit(candidate, _settings(options), options["emit"])
    return _way(options)(_settings(options), options)


def _way(options: dict[str, Any]) -> Callable[[Settings, dict[str, Any]], int]:
    """How to score: once, several times, or at several shapes."""
    asked = {
        "--json": options["as_json"],
        "--feedback": options["feedback"],
        "--repeat": options["repeat"] > 1,
        "--stability": options["stability"],
        "--baseline-cache": options["baseline_cache"] is not None,
    }
    for one, other in (
        ("--json", "--feedback"),
        ("--repeat", "--feedback"),
        ("--stability", "--feedback"),
        ("--stability", "--repeat"),
        ("--stability", "--baseline-cache"),
        ("--repeat", "--baseline-cache"),  # its runs would not be independent
        ("--feedback", "--baseline-cache"),  # it could tell the prompts of the next run
    ):
        if asked[one] and asked[other]:
            message = f"{one} and {other} exclude each other"
            raise click.UsageError(message)
    if asked["--stability"]:
        return _score_shapes
    return _score_again if asked["--repeat"] else _score


def _schema(count: int, *, stability: bool) -> str:
    from runner.repeat import Repeated  # deferred: what --help does not need
    from runner.stability import Stability

    model = Stability if stability else Result if count == 1 else Repeated
    return json.dumps(model.model_json_schema(mode="serialization"), indent=2)


def _settings(options: dict[str, Any]) -> Settings:
    return Settings(
        candidate=options["candidate"],
        baseline=options["baseline"],
        target_speedup=options["target_speedup"],
        target_quality_loss=options["target_quality_loss"],
        preset=options["preset"],
        prompts=options["prompts"],
        clip=options["clip"],
        batch_size=options["batch_size"],
        seed=options["seed"],
        keep=options["keep"],
        baseline_precision=BaselinePrecision(options["baseline_precision"]),
        save_baseline=options["save_baseline"],
        against=options["against"],
        audit_batches=options["audit_batches"],
        audit_prompts=options["audit_prompts"],
        audit_seed=options["audit_seed"],
        until_decided=options["until_decided"],
        budget_s=options["budget"],
        metrics=options["metric"],
        baseline_cache=options["baseline_cache"],
        allow_untied=options["allow_untied"],
        **place_settings(options),
    )


def _score(settings: Settings, options: dict[str, Any]) -> int:
    from runner import feedback, progress, report  # deferred: what --help does not need
    from runner.score import run

    with progress.for_terminal(quiet=options["quiet"]) as display:
        result = run(settings, display)
    if options["feedback"]:
        click.echo(feedback.for_result(result))
        return EXIT_PASSED if result.passed else EXIT_NOT_PASSED
    return _tell(result, report.show, options)


def _score_again(settings: Settings, options: dict[str, Any]) -> int:
    from runner import progress, report  # deferred: what --help does not need
    from runner.repeat import repeat

    with progress.for_terminal(quiet=options["quiet"]) as display:
        repeated = repeat(settings, options["repeat"], display)
    return _tell(repeated, report.show_again, options)


def _score_shapes(settings: Settings, options: dict[str, Any]) -> int:
    from runner import progress, report  # deferred: what --help does not need
    from runner.stability import stability

    with progress.for_terminal(quiet=options["quiet"]) as display:
        found = stability(settings, display)
    return _tell(found, report.show_shapes, options)


def _tell(found: R, show: Callable[[R, TextIO], None], options: dict[str, Any]) -> int:
    """Print what was found, as JSON or by `show`; the exit status."""
    if options["as_json"]:
        click.echo(json_text(found.model_dump(mode="json")))
    else:
        show(found, sys.stdout)
    return EXIT_PASSED if found.passed else EXIT_NOT_PASSED


def _doctor(options: dict[str, Any]) -> int:
    from runner import doctor, progress  # deferred: what --help does not need

    source = click.get_current_context().get_parameter_source("wait")
    if source is click.core.ParameterSource.DEFAULT:
        options["wait"] = doctor.LEASE_WAIT_S
    settings = Settings(candidate=Path(), **place_settings(options))
    with progress.for_terminal(quiet=options["quiet"]) as display:
        findings = doctor.examine(doctor.Host(settings, display.begin))
    if options["as_json"]:
        click.echo(doctor.as_json(findings))
    else:
        doctor.show(findings, sys.stdout)
    return EXIT_PASSED if doctor.can_score(findings) else EXIT_WE_FAILED


def _emit(candidate: Path, settings: Settings, target: Path) -> int:
    from runner.keep import write_text  # deferred: what --help does not need
    from runner.prepare import emit

    script = emit(candidate, settings)
    if isinstance(script, Refused):
        tell(f"{script.verdict}: {script.reason}")
        return EXIT_NOT_PASSED
    write_text(target, script)
    tell(f"wrote {target}; run it with: python {target}")
    return EXIT_PASSED
