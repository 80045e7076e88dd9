"""Progress on stderr: a bar on a terminal, plain lines in a log, or silence."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID


class Silent:
    """Says nothing."""

    def __enter__(self) -> Self:
        """Return the progress itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is left to do."""

    def expect(self, steps: int, done: int = 0) -> None:
        """Ignore how many steps there are."""

    def begin(self, what: str) -> None:
        """Ignore what is being done."""

    def advance(self) -> None:
        """Ignore that a step is done."""


class Lines:
    """One line a phase, for logs and pipes."""

    def __init__(self) -> None:
        """Start the clock."""
        self._start_s = time.monotonic()
        self._steps = 0
        self._done = 0

    def __enter__(self) -> Self:
        """Return the progress itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is left to do."""

    def expect(self, steps: int, done: int = 0) -> None:
        """Note how many steps there are."""
        self._steps, self._done = steps, done

    def begin(self, what: str) -> None:
        """Print what is being done."""
        elapsed_s = time.monotonic() - self._start_s
        count = f" [{min(self._done + 1, self._steps)}/{self._steps}]" if self._steps else ""
        print(f"{elapsed_s:7.1f} s{count}  {what}", file=sys.stderr, flush=True)

    def advance(self) -> None:
        """Count a step."""
        self._done += 1


class Bar:
    """A bar, for terminals."""

    def __init__(self) -> None:
        """Make the bar; it is shown while the context is open."""
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
        from rich.progress import TimeElapsedColumn as Elapsed

        self._bar: RichProgress = Progress(
            TextColumn("{task.description:<28}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            Elapsed(),
            console=Console(stderr=True),
            transient=True,
        )
        self._task: TaskID = self._bar.add_task("starting", total=None)

    def __enter__(self) -> Self:
        """Show the bar."""
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Take the bar away."""
        self._bar.stop()

    def expect(self, steps: int, done: int = 0) -> None:
        """Set the bar's length."""
        self._bar.update(self._task, total=steps, completed=done)

    def begin(self, what: str) -> None:
        """Show what is being done."""
        self._bar.update(self._task, description=what)

    def advance(self) -> None:
        """Move the bar on."""
        self._bar.advance(self._task)


Display = Bar | Lines | Silent


def for_terminal(*, quiet: bool) -> Display:
    """Choose by what stderr is."""
    if quiet:
        return Silent()
    return Bar() if sys.stderr.isatty() else Lines()
