"""A worker's processes as the kernel shows them: finding all of them, stopping all of them.

Theory of operation
-------------------
All processes of a worker descend from its outermost one: a PID namespace gives orphans to its own
first process. They are found by walking down `/proc/PID/task/TID/children`, which costs as much as
the worker is large and not as much as the host is busy. A process is known by its pid and its start
time, and a signal goes through a descriptor of the process (`pidfd_open`), so that a reused pid
never takes what was meant for another.

Whatever a process can write about itself is not parsed: its name may hold any character, and
`/proc/PID/stat` does not escape it, so fields are counted from the last closing parenthesis.

`Freezer` stops a worker with SIGSTOP, which no process can catch or block:

1. Walk from the top, sending SIGSTOP to each process before its children are read. Wait until
   every thread of those found is seen stopped.
2. Note how long each thread has run, in nanoseconds (`schedstat`); walk once more; note it again.
   If a process is new, gone or in another state, or a thread has run, begin again.

All first notes come before all second ones, so if they agree there was a moment in between at which
everything known was stopped at once: processes that wake each other in turn may each look stopped
when it is looked at, but they have run. And during the walk nothing known could fork, so whatever
was made before shows. The kernel may leave an entry out of a list of children only while a listed
one ends, and a child leaves a list only when its parent (or that thread) ends: either shows.

A thread in uninterruptible sleep counts as stopped after a while: it takes the signal before it
runs another instruction of its own. (Such is a parent in `vfork` whose child was stopped; it would
never be seen in any other state.)

*A stopped process can have itself woken.* A timer, a socket that signals, the death of another:
each can be asked to send SIGCONT, and a process that ran for a while can stop itself again. So
`is_still` looks once more before anybody is let go on: whoever is new, gone or not stopped, or has
run, did not stay stopped.

Processes that wake each other as fast as they are stopped, or
that fork faster than they are found, cannot be stopped in time; that is for the caller to judge.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from runner.records import SpeedtrapError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

UNINTERRUPTIBLE_S: Final = 0.1
"""A thread that was asleep this long without a break, a signal pending, counts as stopped."""
SETTLE_S: Final = 0.5
"""For known processes to stop, until others that wake them are looked for."""
PAUSE_S: Final = 0.0002
"""Before the next look at threads that are about to stop, which takes tens of microseconds."""
ENDING_PAUSE_S: Final = 0.005
STILL_NS: Final = 2_000_000
"""All threads together may have run so long since they were frozen: one that was asleep in the
kernel finishes its system call before it stops."""

_STOPPED: Final = frozenset("Tt")
_ENDED: Final = frozenset("ZXx")
_ASLEEP: Final = "D"
_READ_BYTES: Final = 65536


@dataclass(frozen=True, slots=True, order=True)
class Process:
    """One process: its pid here, and when it started in clock ticks since the host's boot."""

    pid: int
    started_ticks: int

    def is_alive(self) -> bool:
        """Whether it is there and has not ended; one that only waits to be reaped has."""
        now = read_stat(self.pid)
        return now is not None and now.process == self and not now.has_ended

    def is_stopped_or_gone(self) -> bool:
        """Whether its first thread is stopped, or there is nothing left of it to stop."""
        now = read_stat(self.pid)
        return now is None or now.process != self or now.state in _STOPPED or now.has_ended

    def send(self, number: signal.Signals) -> None:
        """Send a signal, unless it has ended or its pid belongs to another by now."""
        with contextlib.suppress(ProcessLookupError):
            descriptor = os.pidfd_open(self.pid)
            try:
                now = read_stat(self.pid)
                if now is not None and now.process == self:
                    signal.pidfd_send_signal(descriptor, number)
            finally:
                os.close(descriptor)


@dataclass(frozen=True, slots=True)
class Stat:
    """What `/proc/PID/stat` says. `state` is a letter of proc(5), that of the first thread."""

    process: Process
    name: str
    state: str
    parent_pid: int
    threads: int

    @property
    def has_ended(self) -> bool:
        """Whether it only waits to be reaped; its first thread may end while others go on."""
        return self.state in _ENDED and self.threads <= 1


@dataclass(frozen=True, slots=True)
class _Shape:
    """What a process that stays stopped keeps: its threads, and how long each has run."""

    process: Process
    state: str
    ran: tuple[tuple[str, bytes], ...]

    @property
    def parts(self) -> tuple[bool, list[str]]:
        """Whether it has ended, as far as its first thread says, and its threads."""
        return self.state in _ENDED, [task for task, _ in self.ran]

    @property
    def ran_ns(self) -> int:
        """Nanoseconds that its threads have run, together."""
        return sum(int(schedstat.split()[0]) for _, schedstat in self.ran if schedstat)


def read_stat(pid: int) -> Stat | None:
    """Describe a process as it is now; None when there is none."""
    found = parse_stat(read_file(f"/proc/{pid}/stat"))
    if found is None:
        return None
    process, name, fields = found
    told = name.decode(errors="replace")
    return Stat(process, told, fields[0].decode(), int(fields[1]), int(fields[17]))


def parse_stat(content: bytes) -> tuple[Process, bytes, list[bytes]] | None:
    """Who it is, its name, and its fields from the state on (the 3rd); None for no process."""
    head, parenthesis, rest = content.rpartition(b") ")
    fields = rest.split()
    if not parenthesis or len(fields) < 20:  # noqa: PLR2004  (up to starttime, the 22nd of stat)
        return None
    pid, _, name = head.partition(b" (")
    return Process(int(pid), int(fields[19])), name, fields


def identify(pid: int) -> Process:
    """Name the process that has `pid` now. Raises `SpeedtrapError` when there is none."""
    stat = read_stat(pid)
    if stat is None:
        message = f"process {pid} is not shown in /proc, which must be mounted and not hide it"
        raise SpeedtrapError(message)
    return stat.process


def family(outermost: Process) -> list[Stat]:
    """The process `outermost` and all below it, parents before children; empty if it has ended.

    Those that come or go meanwhile may be missing.
    """
    return list(_walk(outermost))


def folder(one: Stat) -> str:
    """Where /proc shows a process's memory and files.

    That is its own folder, or once its first thread has ended while others go on, one of theirs:
    an ended thread shows nothing.
    """
    pid = one.process.pid
    if one.state in _ENDED and one.threads > 1:
        for task in _tasks(pid):
            if _thread_state(pid, task) not in _ENDED:
                return f"/proc/{pid}/task/{task}"
    return f"/proc/{pid}"


def wait_until_gone(processes: Iterable[Process], limit_s: float) -> list[Process]:
    """Wait until all have ended; returns those that have not within `limit_s`."""
    deadline_s = time.monotonic() + limit_s
    left = [one for one in processes if one.is_alive()]
    while left and time.monotonic() < deadline_s:
        time.sleep(ENDING_PAUSE_S)
        left = [one for one in left if one.is_alive()]
    return left


class Freezer:
    """Stops and continues all processes from `outermost` down. Not thread-safe."""

    def __init__(self, outermost: Process) -> None:
        """Prepare for the worker whose first process is `outermost`; nothing happens yet."""
        self._outermost = outermost
        self._frozen: list[Process] = []
        self._shapes: dict[Process, _Shape] = {}
        self._asleep_since_s: dict[tuple[int, str], float] = {}

    def freeze(self, limit_s: float) -> bool:
        """Stop every process; False where some still ran after `limit_s` seconds.

        What was stopped by then stays so. A worker that has ended is frozen.
        """
        deadline_s = time.monotonic() + limit_s
        self._asleep_since_s.clear()
        self._frozen = []
        while time.monotonic() < deadline_s:
            found = [one.process for one in self._stop_all()]
            if self._settle(found):
                before = _shapes(found)
                if before is not None and before == _shapes(_found(self._outermost)):
                    self._frozen, self._shapes = found, before
                    return True
        return False

    def is_still(self) -> bool:
        """Whether what was frozen has stayed so until now; a worker that has ended has."""
        if not self._outermost.is_alive():
            return True
        now = _shapes(_found(self._outermost))
        if now is None or now.keys() != self._shapes.keys():
            return False
        is_all_there = all(now[one].parts == self._shapes[one].parts for one in now)
        return is_all_there and _ran_ns(now) - _ran_ns(self._shapes) <= STILL_NS

    def thaw(self) -> None:
        """Continue every process, the lowest first: a parent may look for its children."""
        for process in reversed(self._frozen or _found(self._outermost)):
            process.send(signal.SIGCONT)
        self._frozen = []

    def _stop_all(self) -> Iterator[Stat]:
        for one in _walk(self._outermost):
            if one.state not in _STOPPED:
                one.process.send(signal.SIGSTOP)
            yield one

    def _settle(self, processes: Sequence[Process]) -> bool:
        """Wait until no thread of them runs; False if one still does after `SETTLE_S`."""
        deadline_s = time.monotonic() + SETTLE_S
        running = [process for process in processes if not self._is_still(process)]
        while running and time.monotonic() < deadline_s:
            time.sleep(PAUSE_S)
            for process in running:
                process.send(signal.SIGSTOP)
            running = [process for process in running if not self._is_still(process)]
        return not running

    def _is_still(self, process: Process) -> bool:
        """Whether all threads of a process are stopped; ends at the first that is not."""
        pid = process.pid
        return all(self._is_thread_still(pid, task) for task in _tasks(pid))

    def _is_thread_still(self, pid: int, task: str) -> bool:
        state = _thread_state(pid, task)
        if state != _ASLEEP:
            self._asleep_since_s.pop((pid, task), None)
            return state in _STOPPED | _ENDED
        now_s = time.monotonic()
        return now_s - self._asleep_since_s.setdefault((pid, task), now_s) >= UNINTERRUPTIBLE_S


def _found(outermost: Process) -> list[Process]:
    return [one.process for one in _walk(outermost)]


def _shapes(processes: Iterable[Process]) -> dict[Process, _Shape] | None:
    """Look at processes once more; None where one runs or has gone."""
    found = {process: _shape(process) for process in processes}
    still = {process: shape for process, shape in found.items() if shape is not None}
    return still if len(still) == len(found) else None


def _ran_ns(shapes: Mapping[Process, _Shape]) -> int:
    return sum(shape.ran_ns for shape in shapes.values())


def _shape(process: Process) -> _Shape | None:
    pid = process.pid
    ran = tuple((task, read_file(f"/proc/{pid}/task/{task}/schedstat")) for task in _tasks(pid))
    now = read_stat(pid)
    if now is None or now.process != process or now.state not in _STOPPED | _ENDED | {_ASLEEP}:
        return None
    return _Shape(process, now.state, ran)


def _walk(outermost: Process) -> Iterator[Stat]:
    """All processes from the top; the children of one are read after the caller has had it."""
    root = read_stat(outermost.pid)
    if root is None or root.process != outermost:
        return
    children = _children if _has_children_files() else _children_by_scan()
    queue = [root]
    known = {outermost.pid}
    for one in queue:  # grows while it is walked
        yield one
        for pid in children(one.process.pid):
            child = None if pid in known else read_stat(pid)
            if child is not None and child.parent_pid in known:
                known.add(pid)
                queue.append(child)


def _children(pid: int) -> list[int]:
    """Children of all threads of a process."""
    found: list[int] = []
    for task in _tasks(pid):
        found += map(int, read_file(f"/proc/{pid}/task/{task}/children").split())
    return found


def _has_children_files() -> bool:
    """Whether the kernel was built with CONFIG_PROC_CHILDREN, as distributions' are."""
    return Path("/proc/thread-self/children").exists()


def _children_by_scan() -> Callable[[int], list[int]]:
    """Look through all processes of the host, once, for who has which children."""
    found: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        stat = read_stat(int(entry.name)) if entry.name.isdecimal() else None
        if stat is not None:
            found.setdefault(stat.parent_pid, []).append(stat.process.pid)
    return lambda pid: found.get(pid, [])


def _tasks(pid: int) -> list[str]:
    try:
        return os.listdir(f"/proc/{pid}/task")  # noqa: PTH208  (many, often: names will do)
    except OSError:
        return []


def _thread_state(pid: int, task: str) -> str:
    """State letter of one thread; that of an ended one if it is gone."""
    _, _, rest = read_file(f"/proc/{pid}/task/{task}/stat").rpartition(b") ")
    return rest[:1].decode() or "X"


def read_file(path: str | Path) -> bytes:
    """Content of a file of /proc; empty when it is not there, or its process has gone."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        content = b""
        while piece := os.read(descriptor, _READ_BYTES):
            content += piece
    except OSError:
        return b""
    finally:
        os.close(descriptor)
    return content
