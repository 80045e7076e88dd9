"""Workers around light scripts in the real sandbox: output, memory, deadlines, ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from e2e import PREAMBLE, ROOT, processes_that_mention, start_boxed

from runner import footprint, processes, wire, worker
from runner.records import Phase, Verdict, WorkerLostError
from runner.wire import Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from runner.worker import Worker

SOON_S = 30.0
"""Far more than any light script needs; a bound, not a pace."""


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Worker]]:
    """Start a light script; after the test it is closed, and nothing of it may be left."""
    started = []

    def start_script(script: str, **limits: int) -> Worker:
        one = start_boxed(tmp_path, PREAMBLE + textwrap.dedent(script), **limits)
        started.append(one)
        return one

    yield start_script
    for one in started:
        one.close()
    assert processes_that_mention(marker(tmp_path)) == []


def marker(folder: Path) -> str:
    """What a test's processes mention, and those of the same test in another run do not."""
    return f"{folder.parent.name}/{folder.name}"


def receive(one: Worker, kind: Kind = Kind.HELLO, within_s: float = SOON_S) -> wire.Frame:
    return one.receive({kind}, within_s=within_s)


def lost(one: Worker, within_s: float = SOON_S) -> WorkerLostError:
    with pytest.raises(WorkerLostError) as caught:
        receive(one, within_s=within_s)
    return caught.value


def wait_until(condition: Callable[[], object]) -> None:
    deadline_s = time.monotonic() + SOON_S
    while not condition():
        assert time.monotonic() < deadline_s, "what was waited for did not come"
        time.sleep(0.02)


class TestConversation:
    def test_frames_go_both_ways_and_the_exit_is_clean(self, start: Callable[..., Worker]):
        one = start(
            """
            channel.send(wire.Kind.HELLO)
            seed, prompts = wire.unpack_batch(channel.receive({wire.Kind.BATCH}).payload)
            print(seed, prompts)
            print("to stderr", file=sys.stderr)
            channel.send(wire.Kind.READY)
            """
        )
        receive(one)
        one.send(Kind.BATCH, wire.pack_batch(7, ["ein Bär", "🐢"]), within_s=SOON_S)
        receive(one, Kind.READY)
        ending = one.finish(SOON_S)
        assert (ending.returncode, ending.breach) == (0, None)
        assert ending.stdout == "7 ['ein Bär', '🐢']\n"
        assert ending.stderr == "to stderr\n"

    @pytest.mark.parametrize(
        ("end", "returncode"),
        [
            ("sys.exit(0)", 0),
            ("os._exit(7)", 7),
            ("os.kill(os.getpid(), signal.SIGSEGV)", 128 + signal.SIGSEGV),
            ("os.kill(os.getpid(), signal.SIGKILL)", 128 + signal.SIGKILL),
        ],
    )
    def test_early_end_is_told_by_its_status(
        self, start: Callable[..., Worker], end: str, returncode: int
    ):
        error = lost(start(end))
        assert error.ending.returncode == returncode
        assert error.ending.breach is None
        assert error.phase is Phase.IMPORTS

    @pytest.mark.parametrize(
        ("sent", "says"),
        [
            ("b'GET / HTTP/1.1\\r\\n\\r\\n'", "a message with a foreign header"),
            ("bytes([83, 84, 9, 1, 0, 0, 0, 0])", "a message with a foreign header"),
            ("bytes([83, 84, 1, 77, 0, 0, 0, 0])", "message 77 out of turn, expected HELLO"),
            ("bytes([83, 84, 1, 5, 0, 0, 0, 0])", "message 5 out of turn, expected HELLO"),
            ("bytes([83, 84, 1, 1, 255, 255, 255, 255])", "HELLO of 4294967295 bytes is over 0"),
        ],
    )
    def test_nonsense_on_the_channel_is_tampering(
        self, start: Callable[..., Worker], sent: str, says: str
    ):
        ending = lost(start(f"channel._socket.sendall({sent})\ntime.sleep(600)")).ending
        assert ending.breach is Verdict.TAMPERED
        assert ending.breach_reason == f"broke the protocol: {says}"

    def test_closed_channel_of_a_living_process_is_tampering(
        self, start: Callable[..., Worker], monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr(worker, "EXIT_GRACE_S", 0.5)
        ending = lost(start("os.closerange(0, 1024)\ntime.sleep(600)")).ending
        assert ending.breach is Verdict.TAMPERED
        assert ending.breach_reason == "closed its channel and went on running"

    def test_images_before_they_were_asked_for_are_tampering(self, start: Callable[..., Worker]):
        one = start(
            """
            channel.send(wire.Kind.READY)
            channel.send(wire.Kind.IMAGES, wire.pack_images([wire.Image(1, 1, b"rgb")]))
            time.sleep(600)
            """
        )
        receive(one, Kind.READY)
        wait_until(one._channel.has_unread)  # noqa: SLF001  (nothing else shows that they are here)
        with pytest.raises(WorkerLostError) as caught:
            one.send(Kind.BATCH, wire.pack_batch(0, ["a prompt"]), within_s=SOON_S)
        assert caught.value.ending.breach is Verdict.TAMPERED
        assert "sent something before it was asked" in caught.value.ending.breach_reason

    def test_only_standard_streams_and_the_channel_are_open(self, start: Callable[..., Worker]):
        one = start(
            """
            links = []
            for name in os.listdir("/proc/self/fd"):
                try:
                    links.append(os.readlink(f"/proc/self/fd/{name}").partition(":")[0])
                except FileNotFoundError:
                    pass  # the listing's own
            print(sorted(links))
            """
        )
        assert one.finish(SOON_S).stdout == "['/dev/null', 'pipe', 'pipe', 'socket']\n"


class TestOutput:
    def test_both_streams_are_drained_while_the_process_runs(self, start: Callable[..., Worker]):
        one = start(
            """
            for stream in (sys.stdout, sys.stderr):
                stream.write("first\\n" + "x" * (8 << 20) + "\\nlast\\n")
                stream.flush()
            channel.send(wire.Kind.HELLO)
            """
        )
        receive(one)
        ending = one.finish(SOON_S)
        for text in (ending.stdout, ending.stderr):
            assert text.startswith("first\nxxx")
            assert text.endswith("xxx\nlast\n")
            assert "bytes left out" in text
            assert len(text) < 3 * worker.KEPT_BYTES

    def test_flood_ends_the_worker_and_shows_where_it_stood(
        self, start: Callable[..., Worker], monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr(worker, "OUTPUT_LIMIT_BYTES", 1 << 20)
        ending = lost(start("while True: print('x' * 4096)")).ending
        assert ending.breach is Verdict.POLICY
        assert ending.breach_reason == "wrote more than 1 MiB of output"
        assert f"line {len(PREAMBLE.splitlines()) + 1} in <module>" in ending.stderr

    def test_bytes_that_are_no_text_are_replaced(self, start: Callable[..., Worker]):
        one = start("sys.stdout.buffer.write(b'\\xff\\x00caf\\xc3\\xa9')")
        assert one.finish(SOON_S).stdout == "\N{REPLACEMENT CHARACTER}\0café"

    def test_grandchild_that_holds_the_pipes_does_not_delay_the_end(
        self, start: Callable[..., Worker]
    ):
        one = start(
            """
            if os.fork() == 0:
                os.setsid()
                time.sleep(600)
            print("done")
            """
        )
        start_s = time.monotonic()
        assert one.finish(SOON_S).stdout == "done\n"
        assert time.monotonic() - start_s < worker.EXIT_GRACE_S / 4


class TestDeadlines:
    def test_silence_is_a_timeout_with_the_line_where_it_stood(self, start: Callable[..., Worker]):
        one = start("channel.send(wire.Kind.HELLO)\ntime.sleep(600)")
        receive(one)
        one.phase = Phase.LOAD
        error = lost(one, within_s=0.3)
        assert error.ending.breach is Verdict.TIMEOUT
        assert error.ending.breach_reason == "took longer than 0.3 s in the load phase"
        assert "(most recent call first)" in error.ending.stderr
        assert f'tmp.py", line {len(PREAMBLE.splitlines()) + 2} in <module>' in error.ending.stderr

    def test_a_trickle_of_bytes_does_not_extend_the_deadline(self, start: Callable[..., Worker]):
        one = start(
            """
            channel.send(wire.Kind.HELLO)
            channel._socket.sendall(bytes([83, 84, 1, 5, 0, 1, 0, 0]))
            while True:
                channel._socket.sendall(b"x")
                time.sleep(0.05)
            """
        )
        receive(one)
        start_s = time.monotonic()
        with pytest.raises(WorkerLostError) as caught:
            receive(one, Kind.IMAGES, within_s=1.0)
        assert caught.value.ending.breach is Verdict.TIMEOUT
        assert time.monotonic() - start_s < 8

    @pytest.mark.parametrize(
        "trick",
        [
            "signal.signal(signal.SIGABRT, signal.SIG_IGN)",
            "import faulthandler; faulthandler.disable()",
            "signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 32))",
            "os.kill(os.getpid(), signal.SIGSTOP)",
        ],
    )
    def test_nothing_survives_its_deadline(self, start: Callable[..., Worker], trick: str):
        one = start(f"channel.send(wire.Kind.HELLO)\n{trick}\nwhile True: pass")
        receive(one)
        start_s = time.monotonic()
        assert lost(one, within_s=0.3).ending.breach is Verdict.TIMEOUT
        assert time.monotonic() - start_s < 10

    def test_worker_that_does_not_read_is_a_timeout(self, start: Callable[..., Worker]):
        one = start("channel.send(wire.Kind.HELLO)\ntime.sleep(600)")
        receive(one)
        payload = wire.pack_batch(0, ["x" * wire.MAX_PROMPT_BYTES] * wire.MAX_BATCH)

        def send_more_than_fits() -> None:
            for _ in range(1000):
                one.send(Kind.BATCH, payload, within_s=0.3)

        with pytest.raises(WorkerLostError) as caught:
            send_more_than_fits()
        assert caught.value.ending.breach is Verdict.TIMEOUT

    def test_process_that_does_not_exit_is_a_timeout(self, start: Callable[..., Worker]):
        one = start("channel.send(wire.Kind.HELLO)\ntime.sleep(600)")
        receive(one)
        with pytest.raises(WorkerLostError) as caught:
            one.finish(0.3)
        assert caught.value.ending.breach is Verdict.TIMEOUT
        assert caught.value.phase is Phase.EXIT


def fill(path: str) -> str:
    return f"""
        file = open({path!r}, "wb", buffering=0)
        for _ in range(8):
            file.write(b'x' * (64 << 20))
        """


TAKE = {
    "its own": "kept = [b'x' * (64 << 20) for _ in range(8)]",
    "mapped": """
        import mmap
        kept = [mmap.mmap(-1, 64 << 20) for _ in range(8)]
        for block in kept:
            block.write(b'x' * (64 << 20))
        """,
    "of its children": """
        for _ in range(8):
            if os.fork() == 0:
                kept = b'x' * (64 << 20)
                time.sleep(600)
        """,
    "in /dev/shm, mapped": """
        import mmap
        file = open("/dev/shm/fill", "w+b")
        file.truncate(512 << 20)
        kept = mmap.mmap(file.fileno(), 512 << 20)
        kept.write(b'x' * (512 << 20))
        """,
    "in files of /tmp": fill("/tmp/fill"),
    "in files of its home": fill("/home/candidate/fill"),
    "in files of /dev/shm": fill("/dev/shm/fill"),
    "in a file that is open and has no name": fill("/tmp/fill") + "os.unlink(file.name)",
    "of a process whose first thread has ended": """
        import ctypes, threading
        def take():
            time.sleep(0.3)
            kept = b'x' * (512 << 20)
            time.sleep(600)
        threading.Thread(target=take).start()
        ctypes.CDLL(None).pthread_exit(None)
        """,
    "in a memfd of a process whose first thread has ended": """
        import ctypes, threading
        def take():
            time.sleep(0.3)
            memfd = os.memfd_create("hidden")
            for _ in range(8):
                os.write(memfd, b'x' * (64 << 20))
            time.sleep(600)
        threading.Thread(target=take).start()
        ctypes.CDLL(None).pthread_exit(None)
        """,
    "in a memfd that is not mapped": """
        memfd = os.memfd_create("hidden")
        for _ in range(8):
            os.write(memfd, b'x' * (64 << 20))
        """,
    "in a memfd that is open in a child alone": """
        memfd = os.memfd_create("hidden")
        if os.fork() == 0:
            for _ in range(8):
                os.write(memfd, b'x' * (64 << 20))
            time.sleep(600)
        os.close(memfd)
        """,
    "in a memfd that is mapped and not open": """
        import mmap
        memfd = os.memfd_create("hidden")
        os.truncate(memfd, 512 << 20)
        kept = mmap.mmap(memfd, 512 << 20)
        os.close(memfd)
        kept.write(b'x' * (512 << 20))
        os.closerange(max(3, channel._socket.fileno() + 1), 64)  # the duplicate that mmap keeps
        """,
}


class TestLimits:
    @pytest.mark.parametrize("taken", TAKE)
    def test_memory(self, start: Callable[..., Worker], taken: str):
        script = textwrap.dedent(TAKE[taken]) + "\ntime.sleep(600)"
        ending = lost(start(script, memory_limit_bytes=256 << 20)).ending
        assert ending.breach is Verdict.OOM
        assert "of host memory, the limit is 0.2 GiB" in ending.breach_reason

    def test_memory_that_processes_share_counts_once(self, start: Callable[..., Worker]):
        one = start(
            """
            import mmap
            block = mmap.mmap(-1, 64 << 20)
            block.write(b"x" * (64 << 20))
            for _ in range(6):
                if os.fork() == 0:
                    sum(block[i] for i in range(0, 64 << 20, 4096))
                    time.sleep(600)
            time.sleep(1.5)
            """,
            memory_limit_bytes=256 << 20,
        )
        ending = one.finish(SOON_S)
        assert (ending.returncode, ending.breach) == (0, None)

    @pytest.mark.parametrize(
        "make",
        [
            "file = open('/dev/shm/share', 'w+b')\nfile.truncate(150 << 20)\nfd = file.fileno()",
            "fd = os.memfd_create('share')\nos.truncate(fd, 150 << 20)",
        ],
    )
    def test_memory_that_is_both_in_a_file_and_mapped_counts_once(
        self, start: Callable[..., Worker], make: str
    ):
        mapping = """
            import mmap
            block = mmap.mmap(fd, 150 << 20)
            for _ in range(150):
                block.write(b"x" * (1 << 20))
            if os.fork() == 0:
                sum(block[i] for i in range(0, 150 << 20, 4096))
            time.sleep(1.5)
            """
        one = start(make + textwrap.dedent(mapping), memory_limit_bytes=256 << 20)
        ending = one.finish(SOON_S)
        assert (ending.returncode, ending.breach) == (0, None)

    def test_open_files(self, start: Callable[..., Worker], monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(footprint, "DESCRIPTOR_LIMIT", 100)
        script = "kept = [os.open('/dev/null', 0) for _ in range(120)]\ntime.sleep(600)"
        ending = lost(start(script)).ending
        assert ending.breach is Verdict.POLICY
        assert ending.breach_reason == "held 100 open files"

    def test_the_watchdog_costs_little(self, start: Callable[..., Worker]):
        one = start(
            """
            import threading
            kept = [os.open("/dev/null", 0) for _ in range(100)]
            for _ in range(20):
                threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
            channel.send(wire.Kind.HELLO)
            time.sleep(600)
            """
        )
        receive(one)
        own = processes.identify(one.pid)
        before_s = time.thread_time()
        for _ in range(20):
            assert worker._too_much(processes.family(own), 2**30) is None  # noqa: SLF001
        assert (time.thread_time() - before_s) / 20 < 0.05 * worker.WATCH_PERIOD_S

    @pytest.mark.parametrize(
        "multiply",
        [
            "os.posix_spawn('/usr/bin/sleep', ['sleep', '600'], {})",
            "threading.Thread(target=time.sleep, args=(600,)).start()",
        ],
    )
    @pytest.mark.parametrize("name", ["python", "Threads:\t1", "x) R 1 1 1", "\nThreads:\t1\n"])
    def test_processes_and_threads(
        self,
        start: Callable[..., Worker],
        monkeypatch: pytest.MonkeyPatch,
        multiply: str,
        name: str,
    ):
        monkeypatch.setattr(worker, "PROCESS_LIMIT", 50)
        script = f"""
            import threading
            open("/proc/self/comm", "w").write({name!r})
            for _ in range(100): {multiply}
            time.sleep(600)
            """
        ending = lost(start(script)).ending
        assert ending.breach is Verdict.POLICY
        assert ending.breach_reason == "ran more than 50 processes and threads"


SPIN = """
import mmap, threading
file = open("/dev/shm/counts", "w+b")
file.truncate(4096)
counts = mmap.mmap(file.fileno(), 4096)
def spin(slot):
    count = 0
    while True:
        count += 1
        counts[8 * slot : 8 * slot + 8] = count.to_bytes(8, "big")
"""
"""A function that counts in one slot of memory that the test can read."""

ALARM = """
import ctypes, threading
libc = ctypes.CDLL(None, use_errno=True)
class Event(ctypes.Structure):
    _fields_ = [
        ("value", ctypes.c_void_p), ("number", ctypes.c_int), ("notify", ctypes.c_int),
        ("rest", ctypes.c_int * 12),
    ]
class Times(ctypes.Structure):
    _fields_ = [(name, ctypes.c_long) for name in ("every_s", "every_ns", "first_s", "first_ns")]
def signal_after(number, first_ns, every_ns=0):
    timer, event = ctypes.c_void_p(), Event(None, number, 0)
    assert libc.timer_create(time.CLOCK_MONOTONIC, ctypes.byref(event), ctypes.byref(timer)) == 0
    times = Times(0, every_ns, 0, first_ns)
    assert libc.timer_settime(timer, 0, ctypes.byref(times), None) == 0
"""
"""A function that has the kernel send this process a signal, whether it is stopped or not."""

WOKEN = {
    "by a timer, to burn": """
        signal_after(signal.SIGCONT, 300_000_000)
        channel.send(wire.Kind.HELLO)
        while True: pass
        """,
    "by a timer, to burn a little and stop again": """
        def burn(*_):
            until_s = time.monotonic() + 0.02
            while time.monotonic() < until_s: pass
            os.kill(os.getpid(), signal.SIGSTOP)
        signal.signal(signal.SIGCONT, burn)
        signal_after(signal.SIGCONT, 300_000_000)
        channel.send(wire.Kind.HELLO)
        while True: time.sleep(1)
        """,
    "by a timer, to wait for its turn": """
        signal_after(signal.SIGCONT, 300_000_000)
        channel.send(wire.Kind.HELLO)
        time.sleep(600)
        """,
    "in a child": """
        if os.fork() == 0:
            signal_after(signal.SIGCONT, 400_000_000)
            while True: pass
        time.sleep(0.2)
        channel.send(wire.Kind.HELLO)
        time.sleep(600)
        """,
    "by the end of a child that a timer kills": """
        if os.fork() == 0:
            signal_after(signal.SIGKILL, 400_000_000)
            time.sleep(600)
        time.sleep(0.2)
        channel.send(wire.Kind.HELLO)
        time.sleep(600)
        """,
}
"""Ways not to stay stopped."""

RESTLESS = {
    "a thread": "threading.Thread(target=spin, args=(0,)).start()",
    "a child": "os.fork() or spin(0)",
    "a grandchild in its own session": """
        if os.fork() == 0:
            os.setsid()
            os.fork() or spin(0)
            os._exit(0)
        """,
    "a child that blocks and ignores all it can": """
        if os.fork() == 0:
            for number in set(signal.valid_signals()) - {signal.SIGKILL, signal.SIGSTOP}:
                signal.signal(number, signal.SIG_IGN)
            signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
            spin(0)
        """,
    "a child named like the sandbox": """
        if os.fork() == 0:
            open("/proc/self/comm", "w").write("bwrap")
            spin(0)
        """,
    "a child named like a stopped process": """
        if os.fork() == 0:
            open("/proc/self/comm", "w").write("x) T 1 1 1")
            threading.Thread(target=spin, args=(0,)).start()
            open("/proc/self/comm", "w").write("x) T 1 1 1")
            time.sleep(600)
        """,
    "a child that wakes all others": """
        if os.fork() == 0:
            threading.Thread(target=spin, args=(0,)).start()
            while True:
                os.kill(-1, signal.SIGCONT)
        """,
    "a process whose first thread has ended": """
        import ctypes
        if os.fork() == 0:
            threading.Thread(target=spin, args=(0,)).start()
            ctypes.CDLL(None).pthread_exit(None)
        """,
    "a parent in vfork": """
        import ctypes, platform
        libc = ctypes.CDLL(None)
        CLONE_VFORK, SYS_clone = 0x4000, {"x86_64": 56, "aarch64": 220}[platform.machine()]
        def stand_by():
            libc.syscall(SYS_clone, CLONE_VFORK | signal.SIGCHLD, 0, 0, 0, 0) or time.sleep(600)
        threading.Thread(target=spin, args=(0,)).start()
        threading.Thread(target=stand_by).start()
        time.sleep(0.3)
        """,
}
STORMS = {
    "two that wake each other": """
        theirs = os.getpid()
        if (other := os.fork()) == 0:
            other = theirs
        else:
            channel.send(wire.Kind.HELLO)
        while True:
            os.kill(other, signal.SIGCONT)
        """,
    "twenty that wake each other": """
        for _ in range(20):
            if os.fork() == 0:
                while True:
                    os.kill(-1, signal.SIGCONT)
        channel.send(wire.Kind.HELLO)
        time.sleep(600)
        """,
    "one that lives on in its children": """
        if os.fork() == 0:
            while True:
                if os.fork():
                    os._exit(0)
        channel.send(wire.Kind.HELLO)
        time.sleep(600)
        """,
    "a tree that grows": """
        channel.send(wire.Kind.HELLO)
        while True:
            try:
                os.fork()
            except OSError:
                time.sleep(0.01)
        """,
}


def states(folder: Path) -> set[str]:
    """State letters of all threads of all processes of a test, found by what they mention."""
    return thread_states(processes_that_mention(marker(folder)))


def thread_states(lines: list[str]) -> set[str]:
    found = set()
    for line in lines:
        for thread in Path("/proc", line.split()[0], "task").iterdir():
            found.add((thread / "stat").read_text().rpartition(") ")[2][0])
    return found


def busy_ticks(folder: Path) -> int:
    """CPU time of all processes of a test."""
    total = 0
    for line in processes_that_mention(marker(folder)):
        fields = Path("/proc", line.split()[0], "stat").read_text().rpartition(") ")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total


def freeze_or_lose(one: Worker) -> WorkerLostError | None:
    try:
        one.freeze()
    except WorkerLostError as error:
        return error
    return None


def count(one: Worker) -> int:
    """What the worker that spins has counted so far."""
    first_inside = processes.family(processes.identify(one.pid))[1].process.pid
    counts = Path(f"/proc/{first_inside}/root/dev/shm/counts").read_bytes()
    return int.from_bytes(counts[:8], "big")


def goes_on(one: Worker) -> None:
    before = count(one)
    wait_until(lambda: count(one) > before)


class TestTurns:
    @pytest.mark.parametrize("restless", RESTLESS)
    def test_frozen_stands_still_and_thawed_goes_on(
        self, start: Callable[..., Worker], tmp_path: Path, restless: str
    ):
        tail = "\nchannel.send(wire.Kind.HELLO)\nwhile True: time.sleep(0.001)"
        one = start(SPIN + textwrap.dedent(RESTLESS[restless]) + tail)
        receive(one)
        for _ in range(3):
            goes_on(one)
            one.freeze()
            before = count(one)
            assert states(tmp_path) <= set("TZD")
            assert ("D" in states(tmp_path)) == (restless == "a parent in vfork")
            time.sleep(0.2)
            assert count(one) == before
            one.thaw()
        goes_on(one)

    @pytest.mark.parametrize("storm", STORMS)
    def test_storm_is_stopped_or_ended(
        self,
        start: Callable[..., Worker],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        storm: str,
    ):
        monkeypatch.setattr(worker, "FREEZE_LIMIT_S", 1.0)
        monkeypatch.setattr(worker, "PROCESS_LIMIT", 300)
        one = start(STORMS[storm])
        receive(one)
        time.sleep(0.3)
        start_s = time.monotonic()
        if error := freeze_or_lose(one):
            assert error.ending.breach in {Verdict.TAMPERED, Verdict.POLICY}
            assert error.ending.breach_reason in {
                "could not be stopped between its batches",
                "ran more than 300 processes and threads",
            }
            wait_until(lambda: not processes_that_mention(marker(tmp_path)))
        else:
            before = busy_ticks(tmp_path)
            assert states(tmp_path) <= set("TZD")
            time.sleep(0.3)
            assert busy_ticks(tmp_path) == before
        assert time.monotonic() - start_s < 10

    def test_what_is_sent_to_a_frozen_worker_is_taken_once_it_thaws(
        self, start: Callable[..., Worker]
    ):
        one = start(
            """
            channel.send(wire.Kind.HELLO)
            channel.receive({wire.Kind.GO})
            channel.send(wire.Kind.READY)
            """
        )
        receive(one)
        one.freeze()
        one.send(Kind.GO, within_s=SOON_S)
        time.sleep(0.3)
        assert not one._channel.has_unread()  # noqa: SLF001
        one.thaw()
        receive(one, Kind.READY)
        assert one.finish(SOON_S).returncode == 0

    def test_freezing_and_thawing_again_changes_nothing(
        self, start: Callable[..., Worker], tmp_path: Path
    ):
        one = start("channel.send(wire.Kind.HELLO)\ntime.sleep(600)")
        receive(one)
        one.thaw()
        one.freeze()
        one.freeze()
        assert states(tmp_path) == {"T"}
        one.thaw()
        one.thaw()
        wait_until(lambda: "T" not in states(tmp_path))

    def test_frozen_worker_can_be_refused(self, start: Callable[..., Worker], tmp_path: Path):
        one = start("os.fork()\nchannel.send(wire.Kind.HELLO)\ntime.sleep(600)")
        receive(one)
        one.freeze()
        start_s = time.monotonic()
        with pytest.raises(WorkerLostError) as caught:
            one.refuse(Verdict.TAMPERED, "for a test")
        assert caught.value.ending.breach_reason == "for a test"
        wait_until(lambda: not processes_that_mention(marker(tmp_path)))
        assert time.monotonic() - start_s < 5

    def test_frozen_worker_can_be_closed(self, start: Callable[..., Worker], tmp_path: Path):
        one = start("os.fork()\nchannel.send(wire.Kind.HELLO)\ntime.sleep(600)")
        receive(one)
        one.freeze()
        start_s = time.monotonic()
        one.close()
        assert processes_that_mention(marker(tmp_path)) == []
        assert time.monotonic() - start_s < 5

    def test_worker_over_its_memory_limit_when_it_is_frozen_is_ended(
        self, start: Callable[..., Worker]
    ):
        one = start("channel.send(wire.Kind.HELLO)\ntime.sleep(600)")
        receive(one)
        one._memory_limit_bytes = 1  # noqa: SLF001
        with pytest.raises(WorkerLostError) as caught:
            one.freeze()
        assert caught.value.ending.breach is Verdict.OOM
        assert "Abort" not in caught.value.ending.stderr

    def test_nobody_looks_at_a_frozen_worker(self, start: Callable[..., Worker]):
        one = start("channel.send(wire.Kind.HELLO)\ntime.sleep(600)")
        receive(one)
        one.freeze()
        one._memory_limit_bytes = 1  # noqa: SLF001
        time.sleep(3 * worker.WATCH_PERIOD_S)
        assert one._process.poll() is None  # noqa: SLF001
        one.thaw()
        assert lost(one).ending.breach is Verdict.OOM

    def test_worker_that_has_ended_is_lost_when_it_is_to_be_frozen(
        self, start: Callable[..., Worker]
    ):
        one = start("channel.send(wire.Kind.HELLO)\nos._exit(7)")
        receive(one)
        wait_until(lambda: one._process.poll() is not None)  # noqa: SLF001
        with pytest.raises(WorkerLostError) as caught:
            one.freeze()
        assert caught.value.ending.returncode == 7

    @pytest.mark.parametrize("restless", RESTLESS)
    def test_what_stayed_stopped_is_still(self, start: Callable[..., Worker], restless: str):
        tail = "\nchannel.send(wire.Kind.HELLO)\nwhile True: time.sleep(0.001)"
        one = start(SPIN + textwrap.dedent(RESTLESS[restless]) + tail)
        receive(one)
        for _ in range(3):
            one.freeze()
            time.sleep(0.1)
            one.require_still()
            one.thaw()
            one.require_still()  # says nothing of what may run

    @pytest.mark.parametrize("woken", WOKEN)
    def test_one_that_has_itself_woken_is_refused(self, start: Callable[..., Worker], woken: str):
        one = start(ALARM + textwrap.dedent(WOKEN[woken]))
        receive(one)
        one.freeze()
        time.sleep(0.6)
        with pytest.raises(WorkerLostError) as caught:
            one.require_still()
        assert caught.value.ending.breach is Verdict.TAMPERED
        assert "ran while it was stopped" in caught.value.ending.breach_reason

    def test_one_that_has_ended_meanwhile_is_lost_as_any_other(self, start: Callable[..., Worker]):
        one = start("channel.send(wire.Kind.HELLO)\ntime.sleep(600)")
        receive(one)
        one.freeze()
        os.kill(one.pid, signal.SIGKILL)
        wait_until(lambda: one._process.poll() is not None)  # noqa: SLF001
        one.require_still()
        assert lost(one).ending.breach is None

    def test_it_takes_milliseconds(self, start: Callable[..., Worker]):
        one = start(
            """
            import threading
            for _ in range(2):
                if os.fork() == 0:
                    time.sleep(600)
            for _ in range(20):
                threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
            channel.send(wire.Kind.HELLO)
            time.sleep(600)
            """
        )
        receive(one)
        taken_s = []
        for _ in range(20):
            start_s = time.monotonic()
            one.freeze()
            one.thaw()
            taken_s.append(time.monotonic() - start_s)
        assert min(taken_s) < 0.02


class TestEnds:
    def test_close_ends_grandchildren_in_sessions_of_their_own(
        self, start: Callable[..., Worker], tmp_path: Path
    ):
        one = start(
            """
            for _ in range(3):
                if os.fork() == 0:
                    os.setsid()
                    if os.fork() == 0:
                        os.setsid()
                        os.closerange(0, 1024)
                        time.sleep(600)
                    os._exit(0)
            channel.send(wire.Kind.HELLO)
            time.sleep(600)
            """
        )
        receive(one)
        wait_until(lambda: len(running_python(tmp_path)) >= 4)
        one.close()
        assert processes_that_mention(marker(tmp_path)) == []

    def test_exit_of_the_script_ends_its_grandchildren(
        self, start: Callable[..., Worker], tmp_path: Path
    ):
        one = start("if os.fork() == 0:\n    os.setsid()\n    time.sleep(600)")
        assert one.finish(SOON_S).returncode == 0
        wait_until(lambda: not processes_that_mention(marker(tmp_path)))

    def test_closing_one_leaves_the_other_alone(self, start: Callable[..., Worker]):
        script = "channel.send(wire.Kind.HELLO)\nchannel.receive({wire.Kind.GO})\nprint('alive')"
        one, other = start(script), start(script)
        receive(one)
        receive(other)
        one.close()
        other.send(Kind.GO, within_s=SOON_S)
        assert other.finish(SOON_S).stdout == "alive\n"

    def test_close_may_be_called_again(self, start: Callable[..., Worker]):
        one = start("time.sleep(600)")
        one.close()
        one.close()

    @pytest.mark.parametrize("is_frozen", [False, True])
    @pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
    def test_death_of_the_controller_leaves_nothing(
        self, tmp_path: Path, number: int, *, is_frozen: bool
    ):
        controller = f"""
            import signal, sys, time
            # A shell that runs the tests in the background has them ignore it.
            signal.signal(signal.SIGINT, signal.default_int_handler)
            sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / "tests")!r}]
            from pathlib import Path
            from e2e import PREAMBLE, start_boxed
            script = '''
            if os.fork() == 0:
                os.setsid()
            time.sleep(600)
            '''
            import textwrap
            one = start_boxed(Path({str(tmp_path)!r}), PREAMBLE + textwrap.dedent(script))
            if {is_frozen}:
                while len(one._enumerate()) < 4:
                    time.sleep(0.01)
                one.freeze()
            time.sleep(600)
            """
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(controller)], stderr=subprocess.DEVNULL
        )
        try:
            wait_until(lambda: len(running_python(tmp_path)) >= 2)
            if is_frozen:
                wait_until(lambda: thread_states(running_python(tmp_path)) == {"T"})
        finally:
            process.send_signal(number)
            process.wait()
        wait_until(lambda: not processes_that_mention(marker(tmp_path)))


def running_python(folder: Path) -> list[str]:
    """Sandboxed interpreters of this test; the controller itself shows by its command line."""
    return [line for line in processes_that_mention(marker(folder)) if "python (mountinfo)" in line]
