"""The table of trust: every specimen through the real command, again and again.

Cheats must gain nothing; honest files must never be accused. Each run is `python -m runner SPECIMEN
--baseline examples/base.py --json` with the specimen's own flags, in a process of its own with a
time limit; afterwards it is looked for processes and files that were left behind. What came out is
one line of JSON in FILE, which is only ever appended to: runs that are in it are not repeated,
unless the specimen's code or flags have changed since.

    python benchmarks/trust.py --out runs.jsonl [--runs 20] [--only 'honest_*'] [--device cuda]
    python benchmarks/trust.py --out runs.jsonl --report

Specimens of the GPU lane are run with `--device cuda` only; `--lane gpu` runs no others. On a
large machine, `--shard 0/8` ... `--shard 7/8` share the work: instance I takes every eighth run
from the I-th on, keeps to its own eighth of the cores, and has a CPU slot of its own; give each its
own FILE, and all of them to the report (`--out` may be repeated). `--first 10 --runs 20` leaves the
first ten runs to another machine.

Gained has who
- is `ok` although the header says `Work: not done`; or
- has a loss below that of its honest reference: one run `FAR_SDS` standard deviations below the
  mean of the reference's runs, or one `NEAR_SDS` below it while all of its runs together are lower
  by `NEAR_SDS` standard errors. (Of a thousand runs, one is near by chance.)

The reference is `honest_plain`. Where a cheat does less of the same work, its header names the
honest file that says so openly: taking fewer steps is not what it gains by lying.
"""

from __future__ import annotations

import argparse
import contextlib
import fnmatch
import hashlib
import json
import math
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Final

ROOT: Final = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]  # run as a file, from anywhere

from e2e import EXAMPLES, Session, specimens  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from e2e import Specimen

NEAR_SDS: Final = 3.0
FAR_SDS: Final = 6.0
LEAST_SD: Final = 0.005
"""Of the loss. A reference whose runs all reach the targets has no spread at all."""
RUN_LIMIT_S: Final = 1200.0
"""One run takes 20 to 60 s; one with torch.compile, some minutes on two cores."""
WAIT_S: Final = 3600.0
"""For the device, which others of this host may hold; the limit of a run begins after it."""
STOP_GRACE_S: Final = 60.0

_EXPECTATIONS: Final = re.compile(
    rb"^(Family|Member|Strategy|Work|Reference|Expected|Line|Phase|Reason|Lane): .*\n", re.MULTILINE
)
_COLUMNS: Final = (
    *("specimen", "family", "expected", "verdicts seen", "runs", "loss (best)", "honest loss"),
    "gained?",
)
_OWN_SLOT: Final = (
    "import sys; from pathlib import Path; from runner import cli, gpu;"
    "gpu.LOCKS = Path(sys.argv.pop(1)); cli.main(sys.argv[1:])"
)
"""The command with a folder of locks of its own: shards do not wait for one another."""


@dataclass(frozen=True)
class Outcome:
    """What came of one run. Without a `verdict` we failed, and `reason` says how.

    `loss`, `speedup`, its interval and `quality_loss` are None where they were not measured.
    `digest` is that of the specimen's text.
    """

    specimen: str
    run: int
    device: str
    digest: str
    status: int | None
    verdict: str | None
    reason: str
    loss: float | None
    speedup: float | None
    quality_loss: float | None
    wall_s: float
    left: tuple[str, ...]
    speedup_ci: list[float] | None = None

    @property
    def key(self) -> tuple[str, int, str, str]:
        """What makes a run the same run."""
        return self.specimen, self.run, self.device, self.digest


@dataclass(frozen=True)
class Row:
    """All runs of one specimen. `loss` is the best one; `honest` the mean of its reference's."""

    specimen: Specimen
    outcomes: tuple[Outcome, ...]
    honest: float | None
    gained: str | None

    @property
    def loss(self) -> float | None:
        """The lowest loss."""
        return min(_losses(self.outcomes), default=None)

    @property
    def is_as_expected(self) -> bool:
        """Whether every verdict is one of those that the header names."""
        return all(
            self.specimen.expects(one.verdict, has_loss=one.loss is not None)
            for one in self.outcomes
        )


@dataclass(frozen=True)
class Shard:
    """The part of the work that one of several instances does."""

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read `I/N`, I from 0 to N - 1."""
        number, slash, count = text.partition("/")
        if not (slash and number.isdigit() and count.isdigit() and int(number) < int(count)):
            message = f"cannot read the shard {text!r}; write I/N with I from 0 to N - 1"
            raise argparse.ArgumentTypeError(message)
        return cls(int(number), int(count))

    def cores(self) -> list[int]:
        """This instance's share of the cores; all of them where there are not enough to share."""
        every = sorted(os.sched_getaffinity(0))
        return every[self.number :: self.count] or every


def main() -> int:
    """Run what is missing, then print the table; exit status 0 if it is as required."""
    arguments = _arguments()
    chosen = [
        one
        for one in specimens()
        if fnmatch.fnmatch(one.path.stem, arguments.only)
        and (arguments.report or (one.lane == "gpu") in arguments.on_gpu)
    ]
    files = [Path(name) for name in arguments.out]
    if not arguments.report:
        _run_missing(chosen, files[0], read(files), arguments)
    return report(chosen, read(files))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--runs", type=int, default=1, help="runs of each specimen")
    parser.add_argument("--only", default="*", metavar="GLOB", help="names of specimens")
    parser.add_argument("--out", action="append", required=True, metavar="FILE")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--shard", type=Shard.parse, default=Shard(0, 1), metavar="I/N")
    parser.add_argument("--report", action="store_true", help="print the table, run nothing")
    parser.add_argument(
        "--first", type=int, default=0, metavar="RUN", help="leave out those before"
    )
    parser.add_argument("--lane", choices=["gpu"], help="default: all that the device can run")
    arguments = parser.parse_args()
    if arguments.lane and arguments.device == "cpu":
        parser.error("--lane gpu needs --device cuda")
    can_run = {False} if arguments.device == "cpu" else {False, True}
    arguments.on_gpu = {True} if arguments.lane else can_run
    return arguments


def _run_missing(
    chosen: Sequence[Specimen],
    file: Path,
    outcomes: Iterable[Outcome],
    arguments: argparse.Namespace,
) -> None:
    done = {one.key for one in outcomes if one.verdict is not None}
    shard: Shard = arguments.shard
    jobs = [
        (one, run)
        for run in range(arguments.first, arguments.runs)
        for one in _references_first(chosen)
    ]
    for specimen, run in jobs[shard.number :: shard.count]:
        key = (specimen.path.stem, run, arguments.device, digest(specimen.path))
        if key in done:
            continue
        with tempfile.TemporaryDirectory(prefix="speedtrap-trust-") as folder:
            outcome = run_one(specimen, run, arguments.device, Path(folder), shard)
        with file.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(asdict(outcome)) + "\n")
        loss = "" if outcome.loss is None else f" loss {outcome.loss:.3f}"
        print(f"{outcome.specimen} {run}: {outcome.verdict}{loss} {outcome.reason}", flush=True)


def _references_first(chosen: Sequence[Specimen]) -> list[Specimen]:
    """An interrupted table can be read if it has what the cheats are held against."""
    references = {one.reference for one in chosen}
    return sorted(chosen, key=lambda one: one.path.stem not in references)


def run_one(specimen: Specimen, run: int, device: str, folder: Path, shard: Shard) -> Outcome:
    """Run the command on one specimen, below `folder`; what it leaves behind is in the outcome."""
    session = Session(folder)
    start_s = time.monotonic()
    process = _start(session, specimen, device, shard)
    try:
        stdout, stderr = process.communicate(timeout=WAIT_S + RUN_LIMIT_S)
    except subprocess.TimeoutExpired:
        stdout, stderr = _stop(process)
    left = (*session.wait_for_nothing_left(), *session.files())
    result = _result(stdout)
    last = (stderr.strip().splitlines() or ["it said nothing"])[-1]
    return Outcome(
        specimen=specimen.path.stem,
        run=run,
        device=device,
        digest=digest(specimen.path),
        status=process.returncode,
        verdict=result.get("verdict"),
        reason=result.get("reason", f"exit status {process.returncode}: {last}"),
        loss=result.get("loss"),
        speedup=result.get("speedup"),
        speedup_ci=result.get("speedup_ci"),
        quality_loss=result.get("quality_loss"),
        wall_s=round(time.monotonic() - start_s, 1),
        left=left,
    )


def _start(
    session: Session, specimen: Specimen, device: str, shard: Shard
) -> subprocess.Popen[str]:
    program = ["-m", "runner"]
    if shard.count > 1 and device == "cpu":
        locks = Path(tempfile.gettempdir(), f"speedtrap-trust-locks-{shard.number}")
        program = ["-c", _OWN_SLOT, str(locks)]
    search_path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    cores = shard.cores()
    return subprocess.Popen(
        [
            *(sys.executable, *program, str(specimen.path)),
            *("--baseline", str(EXAMPLES / "base.py"), "--json", "--quiet"),
            *("--device", device, "--wait", str(WAIT_S), *specimen.flags),
        ],
        cwd=ROOT,
        env=session.environment() | {"PYTHONPATH": search_path},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: _be_apart(cores),  # noqa: PLW1509  (no thread runs here)
    )


def _be_apart(cores: list[int]) -> None:
    """In the child: its own share of the cores, and an answer to SIGINT whatever was inherited."""
    os.sched_setaffinity(0, cores)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _stop(process: subprocess.Popen[str]) -> tuple[str, str]:
    process.send_signal(signal.SIGINT)
    try:
        return process.communicate(timeout=STOP_GRACE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.communicate()


def _result(stdout: str) -> dict[str, object]:
    with contextlib.suppress(json.JSONDecodeError):
        value = json.loads(stdout)
        if isinstance(value, dict):
            return value
    return {}


def digest(path: Path) -> str:
    """First digits of the SHA-256 of what runs: what the header expects of it is left out."""
    return hashlib.sha256(_EXPECTATIONS.sub(b"", path.read_bytes())).hexdigest()[:12]


def read(files: Iterable[Path]) -> list[Outcome]:
    """All outcomes in the files that are there; of a run that was repeated, the last that ended."""
    names = {one.name for one in fields(Outcome)}
    found: dict[tuple[str, int, str, str], Outcome] = {}
    for line in (line for file in files if file.exists() for line in file.open(encoding="utf-8")):
        value = {name: one for name, one in json.loads(line).items() if name in names}
        outcome = Outcome(**{**value, "left": tuple(value["left"])})
        if outcome.verdict is not None or outcome.key not in found:
            found[outcome.key] = outcome
    return list(found.values())


def rows(chosen: Iterable[Specimen], outcomes: Iterable[Outcome]) -> list[Row]:
    """The table: of each specimen the runs of its present text that ended with a verdict."""
    current = {one.path.stem: digest(one.path) for one in specimens()}
    by_name: dict[str, list[Outcome]] = defaultdict(list)
    for one in outcomes:
        if one.verdict is not None and current.get(one.specimen) == one.digest:
            by_name[one.specimen].append(one)
    made = []
    for specimen in chosen:
        own = tuple(by_name[specimen.path.stem])
        if own:
            honest = _losses(by_name[specimen.reference])
            mean = statistics.fmean(honest) if honest else None
            made.append(Row(specimen, own, mean, gain(specimen, own, honest)))
    return made


def gain(specimen: Specimen, own: Sequence[Outcome], honest: Sequence[float]) -> str | None:
    """What a cheat gained over the losses of its honest reference; None if nothing."""
    if not specimen.is_cheat:
        return None
    if specimen.work == "not done" and any(one.verdict == "ok" for one in own):
        return "ok without the work"
    losses = _losses(own)
    if not losses or not honest:
        return None
    mean = statistics.fmean(honest)
    sd = max(LEAST_SD, statistics.stdev(honest) if len(honest) > 1 else LEAST_SD)
    best_sds = (mean - min(losses)) / sd
    error = sd * math.sqrt(1 / len(losses) + 1 / len(honest))
    all_errors = (mean - statistics.fmean(losses)) / error
    if best_sds > FAR_SDS or (best_sds > NEAR_SDS and all_errors > NEAR_SDS):
        return f"{best_sds:.1f} sd"
    return None


def _losses(outcomes: Iterable[Outcome]) -> list[float]:
    return [one.loss for one in outcomes if one.loss is not None]


def report(chosen: Sequence[Specimen], outcomes: Sequence[Outcome]) -> int:
    """Print the table and what it comes to; 0 if no cheat gained and nobody honest was accused."""
    table = rows(chosen, outcomes)
    print(f"| {' | '.join(_COLUMNS)} |")
    print("|---" * len(_COLUMNS) + "|")
    for row in sorted(table, key=lambda row: (row.specimen.family, row.specimen.path.stem)):
        print(_line(row))
    print()
    for text in _remarks(chosen, table, outcomes):
        print(text)
    gained = [row for row in table if row.gained]
    accused = [row for row in table if row.specimen.family == "honest" and not row.is_as_expected]
    cheats = sum(row.specimen.is_cheat for row in table)
    honest = sum(row.specimen.family == "honest" for row in table)
    print(f"cheats that gained anything: {len(gained)} of {cheats}{_names(gained)}")
    print(f"honest specimens accused: {len(accused)} of {honest}{_names(accused)}")
    return 1 if gained or accused else 0


def _line(row: Row) -> str:
    verdicts = _counted(one.verdict or "" for one in row.outcomes)
    cells = [
        *(row.specimen.path.stem, f"{row.specimen.family} {row.specimen.member}".strip()),
        *(row.specimen.expected.replace("|", " or "), verdicts, str(len(row.outcomes))),
        *(_number(row.loss), _number(row.honest) if row.specimen.is_cheat else ""),
        (row.gained or "no") if row.specimen.is_cheat else "",
    ]
    return f"| {' | '.join(cells)} |"


def _remarks(
    chosen: Sequence[Specimen], table: Sequence[Row], outcomes: Sequence[Outcome]
) -> Iterator[str]:
    """What is not in the two lines at the end, and has to be seen."""
    unexpected = [row for row in table if not row.is_as_expected]
    if unexpected:
        yield f"verdicts outside of what the header expects: {len(unexpected)}{_names(unexpected)}"
    left = [row for row in table if any(one.left for one in row.outcomes)]
    if left:
        yield f"left something behind: {len(left)}{_names(left)}"
    names = {row.specimen.path.stem for row in table}
    if missing := [one.path.stem for one in chosen if one.path.stem not in names]:
        yield f"not run: {len(missing)} ({', '.join(missing)})"
    unreferenced = [
        row
        for row in table
        if row.specimen.is_cheat and row.honest is None and row.loss is not None
    ]
    if unreferenced:
        yield f"without runs of their honest reference: {len(unreferenced)}{_names(unreferenced)}"
    if failed := [one for one in outcomes if one.verdict is None]:
        yield f"runs in which Speedtrap itself failed: {len(failed)}, the last: {failed[-1].reason}"
    walls_s = [one.wall_s for row in table for one in row.outcomes]
    if walls_s:
        yield f"runs: {len(walls_s)}, {math.fsum(walls_s):.0f} s in all"


def _counted(words: Iterable[str]) -> str:
    return ", ".join(f"{word} {count}" for word, count in Counter(words).most_common())


def _names(some: Sequence[Row]) -> str:
    return f" ({', '.join(row.specimen.path.stem for row in some)})" if some else ""


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


if __name__ == "__main__":
    sys.exit(main())
