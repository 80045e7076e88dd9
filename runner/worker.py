"""Stage 7: start, watch and end the process that runs an untrusted script.

Theory of operation
-------------------

    controller (trusted; owns the clock, the prompts, the verdict)
      |-- scorer (trusted; torch and open_clip; sees pixels and prompts, never code)
      |-- bwrap --> init of a PID namespace --> python tmp.py     baseline
      `-- bwrap --> init of a PID namespace --> python tmp.py     candidate
    =================================================================== trust line above tmp.py

A worker is joined to the controller by three things: a socket that carries the protocol of
`wire`, and the pipes of its stdout and stderr. Two threads drain the pipes all the while it runs
(a full pipe would stop the candidate and look like slowness), keep a bounded head and tail, and
end a worker that writes without end. A third thread watches its memory and counts its processes
and open files.

A worker runs only while it is its turn: `freeze` stops every process of it (see `processes`),
`thaw` lets it go on. It may be ended while frozen; a fatal signal does not wait. Only the outermost
process is in sight of a terminal's or a supervisor's signals, and it dies with the controller
frozen or not.

The controller waits for a worker only under a deadline. A worker that overruns one first gets
SIGABRT, on which Python's fault handler prints where the program stood; then it is killed. Killing
means killing `bwrap`: the init of the PID namespace dies with it, and the kernel kills every
process in the namespace, whatever sessions and groups it made. `close()` then looks whether all
are gone.

The children die with the *thread* that started them (`--die-with-parent`), so a worker must be
started from a thread that outlives it.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import threading
import time
from collections import deque
from typing import IO, TYPE_CHECKING, Final, NoReturn, Self

from runner import footprint, processes, wire
from runner.records import Ending, Phase, Role, SpeedtrapError, Verdict, WorkerLostError
from runner.sandbox import PROCESS_LIMIT
from runner.wire import Channel, ChannelClosedError, DeadlineError, Frame, Kind, WireError

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Collection, Iterator, Sequence

    from runner.processes import Process, Stat

KEPT_BYTES: Final = 256 * 1024
"""Head and tail that are kept of each output stream, each; far longer than any traceback."""
OUTPUT_LIMIT_BYTES: Final = 64 * 1024 * 1024
"""A worker that writes more is ended. A candidate that logs every step stays below 1 MiB."""
DUMP_GRACE_S: Final = 1.0
"""For the fault handler to print a stack after SIGABRT; it takes milliseconds."""
BREACH_DUMP_GRACE_S: Final = 0.1
"""The same for a worker that eats memory or processes meanwhile."""
EXIT_GRACE_S: Final = 60.0
"""From a closed channel to the process's exit: an interpreter with CUDA shuts down in 1 to 3 s, on
a host whose cores are all taken in many times that."""
KILL_GRACE_S: Final = 20.0
"""For the kernel to take down a killed namespace; tens of GB of pinned memory take seconds."""
HOLD_GRACE_S: Final = 1.0
"""For a process to stop after SIGSTOP: it finishes the system call that it is in."""
FREEZE_LIMIT_S: Final = 10.0
"""For every process to stop; milliseconds, but a busy host may not run a thread for a while."""
WATCH_PERIOD_S: Final = 0.2
_READ_BYTES: Final = 65536


class Drain:
    """Reads a pipe to its end in a thread, keeping the head and the tail of what came."""

    def __init__(self, pipe: IO[bytes], on_flood: Callable[[], None]) -> None:
        """Start draining `pipe`; `on_flood` is called once if it carries too much."""
        self._pipe = pipe
        self._on_flood = on_flood
        self._head = bytearray()
        self._tail: deque[bytes] = deque()
        self._tail_bytes = 0
        self._total_bytes = 0
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def text(self, timeout_s: float) -> str:
        """What was kept, after the pipe closed or `timeout_s` passed; bad UTF-8 replaced."""
        self._thread.join(timeout_s)
        kept = bytes(self._head) + b"".join(list(self._tail))
        dropped = self._total_bytes - len(kept)
        if dropped > 0:
            gap = f"\n[... {dropped} bytes left out ...]\n".encode()
            kept = bytes(self._head) + gap + b"".join(list(self._tail))
        return kept.decode(errors="replace")

    def _run(self) -> None:
        descriptor = self._pipe.fileno()
        while chunk := os.read(descriptor, _READ_BYTES):
            before, self._total_bytes = self._total_bytes, self._total_bytes + len(chunk)
            self._keep(chunk)
            if before <= OUTPUT_LIMIT_BYTES < self._total_bytes:
                self._on_flood()
        self._pipe.close()

    def _keep(self, chunk: bytes) -> None:
        room = KEPT_BYTES - len(self._head)
        self._head += chunk[:room]
        rest = chunk[room:] if room > 0 else chunk
        if not rest:
            return
        self._tail.append(rest)
        self._tail_bytes += len(rest)
        while self._tail_bytes - len(self._tail[0]) > KEPT_BYTES:
            self._tail_bytes -= len(self._tail.popleft())


class Worker:
    """One untrusted process and its channel. Use as a context manager: leaving it ends it."""

    def __init__(
        self,
        role: Role,
        process: subprocess.Popen[bytes],
        connection: socket.socket,
        memory_limit_bytes: int,
    ) -> None:
        """Take over a started process with piped output; see `start`."""
        self.role = role
        self.phase = Phase.IMPORTS
        self._process = process
        self._outermost = processes.identify(process.pid)
        self._freezer = processes.Freezer(self._outermost)
        self._is_frozen = False
        self._family_lock = threading.Lock()
        self._channel = Channel(connection)
        self._breach: tuple[Verdict, str] | None = None
        self._breach_lock = threading.Lock()
        self._family: set[Process] = set()
        self._memory_limit_bytes = memory_limit_bytes
        self._stopping = threading.Event()
        assert process.stdout is not None  # both are pipes, as asked for
        assert process.stderr is not None
        self._stdout = Drain(process.stdout, self._on_flood)
        self._stderr = Drain(process.stderr, self._on_flood)
        self._watchdog = threading.Thread(target=self._watch, daemon=True)
        self._watchdog.start()

    def __enter__(self) -> Self:
        """Return the worker itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the worker and everything that it started."""
        self.close()

    def pids(self) -> frozenset[int]:
        """Process ids of it and all below it, on the host."""
        return frozenset(one.process.pid for one in processes.family(self._outermost))

    @property
    def pid(self) -> int:
        """Process id of the outermost process, on the host."""
        return self._process.pid

    def send(self, kind: Kind, payload: bytes = b"", *, within_s: float) -> None:
        """Send one frame; raises `WorkerLostError` when the worker does not take it.

        The two ends take turns, so a worker that has already sent the next thing did so before it
        was asked: images without a clock.
        """
        if self._channel.has_unread():
            self.refuse(Verdict.TAMPERED, "broke the protocol: sent something before it was asked")
        deadline_s = time.monotonic() + within_s
        try:
            self._channel.send(kind, payload, deadline_s)
        except DeadlineError:
            self._overrun(within_s)
        except ChannelClosedError:
            self._lost_channel()

    def receive(self, expected: Collection[Kind], *, within_s: float) -> Frame:
        """Return the next frame; raises `WorkerLostError` for silence, nonsense or an end."""
        deadline_s = time.monotonic() + within_s
        try:
            frame = self._channel.receive(expected, deadline_s)
            if frame.kind is Kind.HELLO:
                self._enumerate()
        except DeadlineError:
            self._overrun(within_s)
        except ChannelClosedError:
            self._lost_channel()
        except WireError as error:
            self.refuse(Verdict.TAMPERED, f"broke the protocol: {error}")
        return frame

    def freeze(self) -> None:
        """Stop every process of this worker, and see it stopped; takes about a millisecond.

        Raises `WorkerLostError` if one cannot be stopped, if the worker has ended, or if it holds
        too much: from now on nobody looks. What it had given to its GPU before goes on there.
        """
        is_stopped = self._freezer.freeze(FREEZE_LIMIT_S)
        self._is_frozen = True
        if not is_stopped:
            self.refuse(Verdict.TAMPERED, "could not be stopped between its batches")
        if self._process.poll() is not None:
            self._lost_channel()
        if self._look():
            raise WorkerLostError(self.role, self.phase, self._ending())

    def require_still(self) -> None:
        """Raise `WorkerLostError` where it ran since it was frozen; takes about a millisecond."""
        if self._is_frozen and not self._freezer.is_still():
            self.refuse(Verdict.TAMPERED, "ran while it was stopped, in the other side's turn")

    def thaw(self) -> None:
        """Let every process of this worker go on; nothing happens to one that runs."""
        self._freezer.thaw()
        self._is_frozen = False

    def refuse(self, verdict: Verdict, reason: str) -> NoReturn:
        """End the worker for `reason` and raise `WorkerLostError`."""
        self._note_breach(verdict, reason)
        self._kill()
        raise WorkerLostError(self.role, self.phase, self._ending())

    def finish(self, within_s: float) -> Ending:
        """Wait for the process to exit by itself; raises `WorkerLostError` past `within_s`."""
        self.phase = Phase.EXIT
        try:
            self._process.wait(within_s)
        except subprocess.TimeoutExpired:
            self._overrun(within_s)
        return self._ending()

    def output(self) -> tuple[str, str]:
        """What is kept of stdout and stderr; complete once the worker has ended."""
        return self._stdout.text(EXIT_GRACE_S), self._stderr.text(EXIT_GRACE_S)

    def close(self) -> None:
        """End every process of this worker. Raises `SpeedtrapError` if one cannot be ended."""
        self._kill()
        self._channel.close()
        self._watchdog.join()
        if alive := processes.wait_until_gone(self._family, KILL_GRACE_S):
            pids = ", ".join(str(process.pid) for process in alive)
            message = f"processes of the {self.role} cannot be ended: {pids}; end them by hand"
            raise SpeedtrapError(message)

    def _overrun(self, limit_s: float) -> NoReturn:
        self._note_breach(
            Verdict.TIMEOUT, f"took longer than {limit_s:g} s in the {self.phase} phase"
        )
        self._dump_stack(DUMP_GRACE_S)
        self._kill()
        raise WorkerLostError(self.role, self.phase, self._ending())

    def _lost_channel(self) -> NoReturn:
        """The channel is closed: the process has ended, is about to, or hides something."""
        try:
            self._process.wait(EXIT_GRACE_S)
        except subprocess.TimeoutExpired:
            self.refuse(Verdict.TAMPERED, "closed its channel and went on running")
        raise WorkerLostError(self.role, self.phase, self._ending())

    def _ending(self) -> Ending:
        returncode = self._process.wait(KILL_GRACE_S)
        breach = self._breach
        stdout, stderr = self.output()
        return Ending(
            returncode=128 - returncode if returncode < 0 else returncode,
            stdout=stdout,
            stderr=stderr,
            breach=breach[0] if breach else None,
            breach_reason=breach[1] if breach else "",
        )

    def _note_breach(self, verdict: Verdict, reason: str) -> None:
        """Record why the worker is ended; the first reason stands."""
        with self._breach_lock:
            self._breach = self._breach or (verdict, reason)

    def _on_flood(self) -> None:
        limit_mib = OUTPUT_LIMIT_BYTES // 1024**2
        self._note_breach(Verdict.POLICY, f"wrote more than {limit_mib} MiB of output")
        self._dump_stack(DUMP_GRACE_S)
        self._process.kill()

    def _watch(self) -> None:
        while not self._stopping.wait(WATCH_PERIOD_S):
            # A look at many files takes long: it must not fall on the other side's turn.
            if not self._is_frozen and self._look():
                return

    def _look(self) -> bool:
        """End the worker if it holds too much; whether it did."""
        family = self._enumerate()
        self._forget_the_dead()
        breach = _too_much(family, self._memory_limit_bytes)
        if breach:
            self._note_breach(*breach)
            self._dump_stack(BREACH_DUMP_GRACE_S)
            self._process.kill()
        return breach is not None

    def _enumerate(self) -> list[Stat]:
        """All live processes of this worker; those ever seen are remembered for `close`."""
        family = processes.family(self._outermost)
        with self._family_lock:
            self._family.update(one.process for one in family)
        return family

    def _forget_the_dead(self) -> None:
        with self._family_lock:
            self._family = {process for process in self._family if process.is_alive()}

    def _dump_stack(self, grace_s: float) -> None:
        """Let Python's fault handler print where the script stands, then go on.

        A frozen worker cannot, and was not running its own code when it was stopped for something.
        """
        if self._is_frozen:
            return
        for one in self._enumerate():
            if not _BWRAP.search(one.name):
                one.process.send(signal.SIGABRT)
                processes.wait_until_gone([one.process], grace_s)
                return

    def _kill(self) -> None:
        """Kill the outermost process and all that were ever seen below it and live.

        The namespace's init is among them since before the gate opened, so a namespace ends even if
        its candidate made the outermost process leave first.
        """
        self._stopping.set()
        self._hold_outermost()
        self._enumerate()
        self._process.kill()
        with self._family_lock:
            for process in self._family:
                process.send(signal.SIGKILL)
        self._process.wait(KILL_GRACE_S)

    def _hold_outermost(self) -> None:
        """Stop the outermost process, so that no child of it can be missed.

        A `bwrap` that is killed just after it made its child leaves one that waits for ever: it did
        not yet ask to die with its parent.
        """
        deadline_s = time.monotonic() + HOLD_GRACE_S
        self._outermost.send(signal.SIGSTOP)
        while not self._outermost.is_stopped_or_gone() and time.monotonic() < deadline_s:
            time.sleep(0.001)


_BWRAP: Final = re.compile("bwrap")


def start(
    role: Role,
    command: Callable[[int], tuple[list[str], dict[str, str]]],
    memory_limit_bytes: int,
    cores: Collection[int] = (),
) -> Worker:
    """Start a worker; `command` makes its command line and environment from a descriptor.

    It runs on `cores`, by default on those of the caller.
    """
    ours, theirs = wire.pair()
    arguments, environment = command(theirs.fileno())
    with _bound(cores):
        process = subprocess.Popen(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            pass_fds=(theirs.fileno(),),
            start_new_session=True,
        )
    theirs.close()
    return Worker(role, process, ours, memory_limit_bytes)


@contextlib.contextmanager
def _bound(cores: Collection[int]) -> Iterator[None]:
    """Bind this thread to `cores`, if there are any, and so what it starts meanwhile.

    A process that was bound after its start would have children by then that are not.
    """
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores or before)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _too_much(family: Sequence[Stat], memory_limit_bytes: int) -> tuple[Verdict, str] | None:
    """The verdict for a worker over a limit: processes and threads, open files, host memory."""
    if len(family) > PROCESS_LIMIT or sum(one.threads for one in family) > PROCESS_LIMIT:
        return Verdict.POLICY, f"ran more than {PROCESS_LIMIT} processes and threads"
    folders = [processes.folder(one) for one in family]
    files = footprint.look_at_files(folders)
    if files.descriptors >= footprint.DESCRIPTOR_LIMIT:
        return Verdict.POLICY, f"held {footprint.DESCRIPTOR_LIMIT} open files"
    used_bytes = footprint.used_bytes(folders, files, memory_limit_bytes)
    if used_bytes <= memory_limit_bytes:
        return None
    used, limit = (f"{count / 1024**3:.1f}" for count in (used_bytes, memory_limit_bytes))
    return Verdict.OOM, f"used {used} GiB of host memory, the limit is {limit} GiB"
