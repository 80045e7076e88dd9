"""Stage 10: the answer for people. Programs get the result through `plain.json_text`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from runner.plain import one_line
from runner.records import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import TextIO

    from runner.records import (
        ConfigMatch,
        Cost,
        Distances,
        Drift,
        Fidelity,
        ImageReward,
        Part,
        Result,
    )
    from runner.repeat import Repeated
    from runner.stability import Row, Stability

TRACEBACK_LINES: Final = 12
_MAX_TRACEBACK_CHARS: Final = 500
"""Of a line: a candidate may raise with a message of megabytes."""

_NO_TERMINAL_COLUMNS: Final = 10_000


def show(result: Result, file: TextIO) -> None:
    """Write a short table, and below it where a candidate failed."""
    console = console_for(file)
    console.print(grid(rows(result)))
    if result.failure is not None and result.failure.traceback.strip():
        last = result.failure.traceback.rstrip().splitlines()[-TRACEBACK_LINES:]
        console.print()
        console.print(_quoted(last))


def show_again(repeated: Repeated, file: TextIO) -> None:
    """Write what several whole runs come to, and a line for each of them."""
    console_for(file).print(grid(rows_again(repeated)))


def rows_again(repeated: Repeated) -> Iterator[tuple[str, str]]:
    """Name and value of each line of the table of several runs."""
    yield "verdict", f"{repeated.verdict}{' (passed)' if repeated.passed else ''}"
    if repeated.reason:
        yield "reason", repeated.reason
    for name, spread, form in (
        ("credited speedup", repeated.credited_speedup, ".3f"),
        ("quality loss", repeated.quality_loss, ".2%"),
        ("loss", repeated.loss, ".4f"),
    ):
        if spread is not None:
            ends = _ends((spread.low, spread.high), form)
            yield name, f"{spread.mean:{form}}{ends}   deviation {spread.sd:{form}}"
    for number, result in enumerate(repeated.runs, start=1):
        told = [str(result.verdict), *(f"{name} {value}" for name, value in _numbers(result))]
        yield f"run {number}", "; ".join(told)


def show_shapes(stability: Stability, file: TextIO) -> None:
    """Write what several shapes come to, a table of them, and why some were not run."""
    console = console_for(file)
    console.print(grid(rows_of_shapes(stability)))
    console.print()
    console.print(table_of_shapes(stability))
    if reasons := [(row.name, row.reason) for row in stability.rows if row.verdict is None]:
        console.print()
        console.print(grid(reasons))


def rows_of_shapes(stability: Stability) -> Iterator[tuple[str, str]]:
    """Name and value of each line above the table of shapes."""
    yield "verdict", f"{stability.verdict}{' (passed)' if stability.passed else ''}"
    if stability.reason:
        yield "reason", stability.reason
    least, greatest = stability.least_speedup, stability.greatest_speedup
    if least is not None and greatest is not None:
        yield "speedup", f"{least:.2f}x to {greatest:.2f}x"
    yield "shapes", stability.summary


def table_of_shapes(stability: Stability) -> Table:
    """A line for each shape; one that differs clearly from what was asked has a mark."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    for name in ("", "speedup", "quality loss, %", "loss"):
        table.add_column(name, no_wrap=True)
    table.add_column("verdict", overflow="fold")
    for row in stability.rows:
        marks = {"slower": stability.uneven, "faster": stability.faster}
        mark = "".join(f" ({word})" for word, names in marks.items() if row.name in names)
        told = (row.verdict or row.came).replace("_", " ") + mark
        cells = (row.name, *_cells(row), told)
        table.add_row(*(Text(one_line(cell)) for cell in cells))
    return table


def _cells(row: Row) -> Iterator[str]:
    """Speedup, quality loss and loss of a shape."""
    for value, ends, scale, form in (
        (row.speedup, row.speedup_ci, 1, ".2f"),
        (row.quality_loss, row.quality_loss_ci, 100, ".1f"),
    ):
        scaled = ends and (ends[0] * scale, ends[1] * scale)
        yield "-" if value is None else f"{value * scale:{form}}{_ends(scaled, form)}"
    yield "-" if row.loss is None else f"{row.loss:.2f}"


def _quoted(lines: Iterable[str]) -> Table:
    """Lines behind a bar; what is folded in a narrow terminal stays behind it too."""
    table = Table.grid(padding=(0, 1, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for line in lines:
        table.add_row(
            Text("  |", style="dim"), Text(one_line(line, _MAX_TRACEBACK_CHARS), style="dim")
        )
    return table


def grid(named: Iterable[tuple[str, str]]) -> Table:
    """A table of names and values, one line each."""
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in named:
        table.add_row(Text(one_line(name), style="dim"), Text(one_line(value)))
    return table


def console_for(file: TextIO) -> Console:
    """As wide as the terminal; where there is none, no value is folded."""
    width = None if file.isatty() else _NO_TERMINAL_COLUMNS
    return Console(file=file, highlight=False, soft_wrap=True, width=width)


def rows(result: Result) -> Iterator[tuple[str, str]]:
    """Name and value of each line of the table; what was not measured is left out."""
    yield "verdict", f"{result.verdict}{' (passed)' if result.passed else ''}"
    if result.reason:
        yield "reason", result.reason
    if result.config_match is not None:
        yield "config", _match(result.config_match)
    if result.synthesised_baseline is not None:
        yield "baseline file", "made from the candidate's text; --save-baseline FILE writes it"
    yield from _numbers(result)
    yield from _sides(result)
    yield from _seen(result)
    if result.device is not None:
        index = "" if result.device.index is None else f" {result.device.index}"
        yield "ran on", f"{result.device.kind}{index}: {result.device.name}"
    if result.isolation is not None:
        yield "isolation", result.isolation.version or f"{result.isolation.backend}!"
    if result.circumstances is not None:
        for warning in result.circumstances.warnings:
            yield "warning", warning


def _match(match: ConfigMatch) -> str:
    """How many fields match the ground truth, and which are not known."""
    unknown = ", ".join(one.field for one in match.fields if one.match is Outcome.UNKNOWN)
    return f"{match.rate:.0%} of the fields match" + (f", unknown: {unknown}" if unknown else "")


def _seen(result: Result) -> Iterator[tuple[str, str]]:
    """What the live pipelines show beside the numbers."""
    for sentence in result.no_ops:
        yield "no effect", sentence
    for sentence in result.contradictions:
        yield "changed", sentence
    for sentence in result.live.problems if result.live else ():
        yield "not seen", sentence


def _numbers(result: Result) -> Iterator[tuple[str, str]]:
    if result.speedup is not None:
        reached = f"{result.speed_achievement:.0%}" if result.speed_achievement is not None else "-"
        target = f"{result.target_speedup:g}x"
        credited = result.credited_speedup
        less = "" if credited in {None, result.speedup} else f" (credited: {credited:.3f}x)"
        ends = _ends(result.speedup_ci, ".3f")
        yield "speedup", f"{result.speedup:.3f}x{ends}{less}   target {target}, achieved {reached}"
    if result.quality_loss is not None and result.accuracy_achievement is not None:
        target = f"{result.target_quality_loss:.2%}"
        reached = f"{result.accuracy_achievement:.0%}"
        seen = f"{result.quality_loss:.2%}{_ends(result.quality_loss_ci, '.2%')}"
        yield "quality loss", f"{seen}   target {target}, achieved {reached}"
    ends = _ends(result.loss_ci, ".4f")
    yield "loss", "not measured" if result.loss is None else f"{result.loss:.4f}{ends}"
    if result.confidence is not None and result.speedup_ci is not None:
        looks = f", at look {result.decision.looks}" if result.decision else ""
        yield "intervals", f"{100 * result.confidence:.4g}% each{looks}"


def _ends(interval: tuple[float, float] | None, form: str) -> str:
    """An interval behind its value; nothing where there is none."""
    return "" if interval is None else f" ({interval[0]:{form}} to {interval[1]:{form}})"


def _sides(result: Result) -> Iterator[tuple[str, str]]:
    for name, side in (("baseline", result.baseline), ("candidate", result.candidate)):
        if side is not None:
            images = sum(len(batch.scores) for batch in side.counted)
            took = "" if side.cost is None else _took(side.cost)
            score = f"CLIP score {side.score:.3f}"
            yield name, f"{side.time_s:.3f} s for {images} images, {score}{took}"
    if result.audit is not None:
        yield "public prompts", f"{_part(result.audit.fixed)}; fresh: {_part(result.audit.audit)}"
    if result.fidelity is not None:
        yield "fidelity", _fidelity(result.fidelity)
    if result.drift is not None:
        yield "baseline cache", _drift(result.drift)
    if result.distances is not None:
        yield from _distances(result.distances)
    if result.claim is not None:
        yield "claim", f"{result.claim.time_s:.3f} s, CLIP score {result.claim.score:.3f}"


def _drift(drift: Drift) -> str:
    """How the live batches of a recalled baseline compare, and how noisy its own run was."""
    factor = f"{drift.factor:.3f}{_ends((drift.low, drift.high), '.3f')}"
    return (
        f"live batches took {factor} times the cached seconds ({len(drift.live_s)} batches);"
        f" measured {drift.measured_at} with a noise of {drift.noise:.2%} on {drift.noise_pairs}"
        " pairs against itself"
    )


def _took(cost: Cost) -> str:
    """What an image took besides time, where it is known."""
    energy = "" if cost.joules_per_image is None else f", {cost.joules_per_image:.1f} J an image"
    peak = cost.worker_bytes_max
    return energy + ("" if peak is None else f", {peak / 1024**3:.1f} GiB of GPU memory")


def _distances(distances: Distances) -> Iterator[tuple[str, str]]:
    cmmd, lpips = distances.cmmd, distances.lpips
    if cmmd is not None:
        yield "CMMD", f"{cmmd.value:.3f}, chance makes up to {cmmd.noise:.3f}"
    if distances.fid is not None:
        yield "FID", f"{distances.fid:.2f}"
    if lpips is not None:
        yield "LPIPS", f"{lpips.value:.4f} (standard error {lpips.error:.4f})"
    if distances.image_reward is not None:
        yield "ImageReward", _rewards(distances.image_reward)
    for text in distances.withheld:
        yield "not told", text


def _rewards(rewards: ImageReward) -> str:
    """Both means, and whether their difference is one: either way is worth a look."""
    means = f"{rewards.candidate:.3f}, baseline {rewards.baseline:.3f}"
    seen = f"{means}; difference {rewards.difference:+.3f}{_ends(rewards.difference_ci, '+.3f')}"
    low, high = rewards.difference_ci or (0.0, 0.0)
    if low > 0:
        return f"{seen}: surely above"
    return f"{seen}: surely below" if high < 0 else seen


def _part(part: Part) -> str:
    quality = "-" if part.quality_loss is None else f"{part.quality_loss:.2%}"
    return f"{part.speedup:.3f}x, quality loss {quality}"


def _fidelity(fidelity: Fidelity) -> str:
    """The candidate's likeness to the baseline's images, and the floors that other seeds give."""
    psnr, ssim, cosine = fidelity.psnr_db, fidelity.ssim, fidelity.clip_cosine
    seen = f"PSNR {psnr.seen:.1f} dB, SSIM {ssim.seen:.3f}, CLIP {cosine.seen:.3f}"
    floor = f"{psnr.at_least:.1f}, {ssim.at_least:.3f}, {cosine.at_least:.3f}"
    return f"{seen}   floors {floor}; {fidelity.tied_images} of {fidelity.images} images tied"
