"""Finding and stopping processes, on trees of real ones; the sandboxed are in `test_worker`."""

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

from runner import processes
from runner.processes import Freezer, Process
from runner.records import SpeedtrapError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NO_PID = 2**22 + 1
TREE = """
    import threading
    def beget():
        if os.fork() == 0:
            os.fork()
            time.sleep(600)
        time.sleep(600)
    threading.Thread(target=beget).start()
    os.fork()
    """


@pytest.fixture
def start() -> Iterator[Callable[[str], Process]]:
    """Start a script that prints a line when it is ready; ends it with all below it."""
    started = []

    def start_script(script: str) -> Process:
        code = "import os, signal, sys, time\n" + textwrap.dedent(script)
        code += "\nos.write(1, b'ready\\n')\ntime.sleep(600)"
        one = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        started.append(one)
        assert one.stdout is not None
        assert one.stdout.readline() == b"ready\n"
        return processes.identify(one.pid)

    yield start_script
    for one in started:
        for below in reversed(processes.family(processes.identify(one.pid))):
            below.process.send(signal.SIGKILL)
        one.wait()
        one.stdout.close()


def found_at_last(root: Process, count: int) -> set[Process]:
    deadline_s = time.monotonic() + 30
    while len(found := {one.process for one in processes.family(root)}) != count:
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
    return found


def test_a_process_is_described():
    own = processes.read_stat(os.getpid())
    assert own is not None
    assert (own.process.pid, own.parent_pid, own.state) == (os.getpid(), os.getppid(), "R")
    assert own.name == Path("/proc/self/comm").read_text().rstrip("\n")
    assert own.process.is_alive()


def test_no_process_is_described_as_none():
    assert processes.read_stat(NO_PID) is None
    assert processes.family(Process(NO_PID, 1)) == []
    with pytest.raises(SpeedtrapError, match="is not shown in /proc"):
        processes.identify(NO_PID)


@pytest.mark.parametrize("name", ["x) R 1 1 1", "a b", "(", ")", "\nThreads:\t9", "\xff"])
def test_a_name_says_nothing_else(start: Callable[[str], Process], name: str):
    one = start(f"open('/proc/self/comm', 'w', encoding='latin-1').write({name!r})")
    now = processes.read_stat(one.pid)
    assert now is not None
    assert now.process == one
    assert (now.parent_pid, now.threads) == (os.getpid(), 1)
    assert now.state in "RS"


@pytest.mark.parametrize("has_children_files", [True, False])
def test_a_family_has_children_of_threads_and_their_children(
    start: Callable[[str], Process], monkeypatch: pytest.MonkeyPatch, *, has_children_files: bool
):
    monkeypatch.setattr(processes, "_has_children_files", lambda: has_children_files)
    root = start(TREE)
    found_at_last(root, 4)
    family = processes.family(root)
    assert family[0].process == root
    pids = [one.process.pid for one in family]
    assert all(one.parent_pid in pids[:place] for place, one in enumerate(family) if place)


def test_a_family_may_be_larger_than_one_page_of_pids(start: Callable[[str], Process]):
    found_at_last(start("for _ in range(700): os.fork() or time.sleep(600)"), 701)


def test_a_signal_reaches_no_other_process_of_the_same_pid(start: Callable[[str], Process]):
    one = start("")
    Process(one.pid, one.started_ticks - 1).send(signal.SIGKILL)
    time.sleep(0.1)
    assert one.is_alive()
    assert not Process(one.pid, one.started_ticks - 1).is_alive()
    one.send(signal.SIGKILL)
    assert processes.wait_until_gone([one], 30) == []
    one.send(signal.SIGKILL)


def test_a_process_that_waits_to_be_reaped_has_ended():
    with subprocess.Popen([sys.executable, "-IS", "-c", "input()"], stdin=subprocess.PIPE) as child:
        one = processes.identify(child.pid)
        assert processes.wait_until_gone([one], 0.1) == [one]
        child.kill()
        assert processes.wait_until_gone([one], 30) == []
        assert processes.read_stat(child.pid) is not None


def test_what_an_ended_first_thread_does_not_show_another_does(start: Callable[[str], Process]):
    one = start(
        """
        import ctypes, threading
        def go_on():
            while open("/proc/self/stat").read().rpartition(") ")[2][0] != "Z":
                time.sleep(0.01)
            os.write(1, b"ready\\n")
            time.sleep(600)
        threading.Thread(target=go_on).start()
        ctypes.CDLL(None).pthread_exit(None)
        """
    )
    now = processes.read_stat(one.pid)
    assert now is not None
    assert (now.state, now.threads) == ("Z", 2)
    assert one.is_alive()
    assert "RssAnon" not in Path(f"/proc/{one.pid}/status").read_text()
    assert "RssAnon" in Path(processes.folder(now), "status").read_text()
    assert Freezer(one).freeze(5)
    assert Path(processes.folder(now), "stat").read_text().rpartition(") ")[2][0] == "T"


def test_a_family_stops_and_goes_on(start: Callable[[str], Process]):
    root = start(TREE)
    found = found_at_last(root, 4)
    freezer = Freezer(root)
    assert freezer.freeze(5)
    assert {one.process for one in processes.family(root) if one.state == "T"} == found
    assert all(one.is_stopped_or_gone() for one in found)
    freezer.thaw()
    assert {one.state for one in processes.family(root)} <= {"S", "R"}


def test_what_has_ended_is_stopped(start: Callable[[str], Process]):
    one = start("")
    one.send(signal.SIGKILL)
    processes.wait_until_gone([one], 30)
    freezer = Freezer(one)
    assert freezer.freeze(5)
    freezer.thaw()
    assert freezer.freeze(5)
    assert one.is_stopped_or_gone()


def test_two_that_wake_each_other_are_not_called_stopped_while_they_run(
    start: Callable[[str], Process],
):
    root = start(
        """
        other = os.getpid()
        if child := os.fork():
            other = child
        os.write(1, b"ready\\n")
        while True:
            os.kill(other, signal.SIGCONT)
        """
    )
    found = found_at_last(root, 2)
    freezer = Freezer(root)
    for _ in range(20):
        if freezer.freeze(0.2):
            before = [ran(one) for one in found]
            time.sleep(0.02)
            assert [ran(one) for one in found] == before
            freezer.thaw()


def ran(one: Process) -> str:
    return Path(f"/proc/{one.pid}/schedstat").read_text().split()[0]


def test_no_time_is_not_enough(start: Callable[[str], Process]):
    assert not Freezer(start("")).freeze(0)
