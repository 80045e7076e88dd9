"""A program: confine itself with Landlock and a system-call filter, then run a command.

`python -I landlock_process.py POLICY COMMAND...`, started by the sandbox's second back end, whose
theory of operation is in `landlock.py`. It imports nothing of Speedtrap; POLICY says what it needs.
Exit status: the command's, or 128 + n after signal n, as a shell has it.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import signal
import sys
import traceback
from pathlib import Path
from typing import Any, Final, NoReturn

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_SECCOMP: Final = 22
_PR_CAPBSET_DROP: Final = 24
_PR_SET_CHILD_SUBREAPER: Final = 36
_SECCOMP_MODE_FILTER: Final = 2
_CAPABILITY_VERSION: Final = 0x20080522
_CAPABILITY_NUMBERS: Final = 64
"""More than there are; the kernel says where its own end."""
_INSTRUCTION_BYTES: Final = 8
_FAILED: Final = 125
_OUT_OF_MEMORY_FIRST: Final = "1000"


def main() -> None:
    """Supervise the command in domains of its own; ends with the command's status."""
    policy = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    sys.path += policy["search_path"]
    libc = ctypes.CDLL(None, use_errno=True)
    _die_with(libc, policy["parent"])
    _drop_capabilities(libc)
    _confine_signals(policy["parent"])
    lifeline = _post_guard()
    _require(libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))
    supervisor = os.getpid()
    script = os.fork()
    if script == 0:
        _become(libc, policy, sys.argv[2:], supervisor)
    sys.exit(_supervise(script, lifeline))


def _require(status: int) -> None:
    """Raise the error of a C function that returned -1."""
    if status == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _die_with(libc: ctypes.CDLL, parent: int) -> None:
    """Be killed when the parent dies, also if it has died already."""
    _require(libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0))
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def _drop_capabilities(libc: ctypes.CDLL) -> None:
    """Give up every capability, and that a root user gets them back with the next program."""
    for number in range(_CAPABILITY_NUMBERS):
        if libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0) == -1:
            break
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0)
    nothing = (ctypes.c_uint32 * 6)()
    _require(libc.capset(ctypes.byref(header), ctypes.byref(nothing)))


def _confine_signals(parent: int) -> None:
    """Enter the outer domain, and see that it holds before anything relies on it.

    It has to allow moves between folders: every domain denies them that does not speak of them.
    """
    from landlockpy import AccessFS, AccessNet, Ruleset, Scope  # deferred: found by the policy

    with Ruleset(
        handled_fs=AccessFS.REFER,
        handled_net=AccessNet.NONE,
        scoped=Scope.SIGNAL,
        best_effort=False,
    ) as ruleset:
        ruleset.allow_path("/", AccessFS.REFER)
        ruleset.restrict()
    try:
        os.kill(parent, 0)
    except PermissionError:
        return
    message = "Landlock does not confine signals on this kernel"
    raise RuntimeError(message)


def _post_guard() -> int:
    """Start the guard, away from this process's descendants; it acts when the result is closed."""
    watched, lifeline = os.pipe()
    between = os.fork()
    if between == 0:
        if os.fork() == 0:
            _guard(watched)
        os._exit(0)
    os.waitpid(between, 0)
    os.close(watched)
    return lifeline


def _guard(watched: int) -> NoReturn:
    """Wait for the supervisor's end, then end all that is left of its outer domain."""
    os.setsid()
    os.closerange(0, watched)
    os.closerange(watched + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    os.read(watched, 1)
    _kill_domain()
    os._exit(0)


def _kill_domain() -> None:
    """Kill every process of the outer domain but this one."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(-1, signal.SIGKILL)


def _become(
    libc: ctypes.CDLL, policy: dict[str, Any], command: list[str], supervisor: int
) -> NoReturn:
    try:
        os.setsid()
        _die_with(libc, supervisor)
        _limit(policy)
        os.chdir(policy["writable"])
        program = Path(policy["filter_file"]).read_bytes()
        _confine_files(policy)
        _filter_system_calls(libc, program)
        os.execv(command[0], command)  # noqa: S606  (the command is the point)
    except BaseException:
        traceback.print_exc()
        raise
    finally:
        os._exit(_FAILED)


def _limit(policy: dict[str, Any]) -> None:
    """Set limits; the number of processes is counted for the user, whose others come on top."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _lower(resource.RLIMIT_FSIZE, policy["file_size_bytes"])
    _lower(resource.RLIMIT_NPROC, policy["task_limit"] + _tasks_of_user())
    Path("/proc/self/oom_score_adj").write_text(_OUT_OF_MEMORY_FIRST, encoding="ascii")


def _lower(which: int, limit: int) -> None:
    hard = resource.getrlimit(which)[1]
    value = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
    resource.setrlimit(which, (value, value))


def _tasks_of_user() -> int:
    own = os.getuid()
    count = 0
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if folder.name.isdigit() and folder.stat().st_uid == own:
                count += sum(1 for _ in (folder / "task").iterdir())
    return count


def _confine_files(policy: dict[str, Any]) -> None:
    """Enter the inner domain: what is not allowed here by path cannot be opened or changed."""
    from landlockpy import AccessFS as Files  # deferred: found by the policy
    from landlockpy import Ruleset, Scope

    read = Files.READ_FILE | Files.READ_DIR | Files.EXECUTE
    made = Files.MAKE_DIR | Files.MAKE_REG | Files.MAKE_FIFO | Files.MAKE_SYM | Files.REFER
    changed = Files.WRITE_FILE | Files.TRUNCATE | Files.REMOVE_DIR | Files.REMOVE_FILE
    use = Files.READ_FILE | Files.WRITE_FILE | Files.IOCTL_DEV
    with Ruleset(scoped=Scope.SIGNAL | Scope.ABSTRACT_UNIX_SOCKET) as ruleset:
        for path in filter(os.path.exists, policy["readable"]):
            access = read if Path(path).is_dir() else read & ~Files.READ_DIR
            ruleset.allow_path(path, access)
        for path in filter(os.path.exists, policy["devices"]):
            ruleset.allow_path(path, use)
        ruleset.allow_path(policy["writable"], read | made | changed)
        # CUDA names its threads there, and does not start where it cannot
        ruleset.allow_path("/proc/self/task", read | Files.WRITE_FILE | Files.TRUNCATE)
        ruleset.restrict()


def _filter_system_calls(libc: ctypes.CDLL, program: bytes) -> None:
    class FilterProgram(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))

    header = FilterProgram(len(program) // _INSTRUCTION_BYTES, program)
    _require(libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(header), 0, 0))


def _supervise(script: int, lifeline: int) -> int:
    """Wait for the script, end all that it left, and return its status.

    The script's folders in /proc stay open, since a rule for one is lost when the kernel drops it
    from its cache. The channel and all else is closed here, so that its end can be seen.
    """
    folder = os.open(f"/proc/{script}/task", os.O_PATH)
    kept = {0, 1, 2, lifeline, folder}
    for number in [int(link.name) for link in Path("/proc/self/fd").iterdir()]:
        if number not in kept:
            with contextlib.suppress(OSError):
                os.close(number)
    signal.signal(signal.SIGABRT, lambda *_: os.kill(script, signal.SIGABRT))
    _, status = os.waitpid(script, 0)
    _kill_domain()
    with contextlib.suppress(ChildProcessError):
        while True:
            os.wait()
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    main()
