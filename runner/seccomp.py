"""Which system calls a sandboxed process may make: a filter in the kernel's classic BPF.

Theory of operation
-------------------
Namespaces and Landlock restrict what a process can name. They leave the whole of the kernel's
interface callable, and some calls reach what neither restricts: leases on files of others, the
session keyring, tracing, io_uring's own way around the checks. `syscalls.txt` therefore lists every
system call of the newest kernel known here with one rule each:

- `allow`, for what ordinary programs, compilers and the CUDA driver use;
- `refuse`: EPERM;
- `absent`: ENOSYS, as on an older kernel, on which every C library falls back. `clone3` is absent
  because its flags lie in memory, where a filter cannot look; `clone` gets them in a register;
- `ignore`: success, and nothing is done. Both sides are bound to the same cores, and a candidate
  that asks for others, or for a higher clock of them, must neither get that nor fail;
- the name of a check of arguments (`_CHECKS`): a few flags and commands of a call are refused.

A number that is not in the list is absent: what a future kernel adds is denied until it is listed.
Calls in the numbering of another architecture (32-bit or x32 on x86_64) end the process, since the
same numbers mean other calls there.

The list has a second column for a back end without namespaces, where more has to be refused: there
the process shares process ids, sockets and System V IPC with the host, and Landlock does not
mediate changes of mode, owner, times and attributes of files that the caller owns.

The filter is an array of `struct sock_filter`, the format of `bwrap --seccomp` and prctl(2). It is
a binary tree over the numbers, so a call costs about nine comparisons on kernels that do not
remember what a filter always allows.
"""

from __future__ import annotations

import errno
import struct
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from typing import TYPE_CHECKING, Final

from runner import paths
from runner.records import SpeedtrapError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

ALLOW: Final = 0x7FFF0000
KILL_PROCESS: Final = 0x80000000
_ERRNO: Final = 0x00050000
IGNORE: Final = _ERRNO
"""Success, and nothing is done."""
EPERM: Final = _ERRNO | errno.EPERM
ENOSYS: Final = _ERRNO | errno.ENOSYS
_NO_FAMILY: Final = _ERRNO | errno.EAFNOSUPPORT
_NO_PROTOCOL: Final = _ERRNO | errno.EPROTONOSUPPORT

_LOAD: Final = 0x20  # a 32-bit word of `struct seccomp_data` at offset k
_AND: Final = 0x54
_JUMP: Final = 0x05
_JUMP_EQUAL: Final = 0x15
_JUMP_AT_LEAST: Final = 0x35
_JUMP_ANY_BIT: Final = 0x45
_RETURN: Final = 0x06
_MAX_SKIP: Final = 255
_NUMBER_OFFSET: Final = 0
_ARCHITECTURE_OFFSET: Final = 4
_ARGUMENTS_OFFSET: Final = 16

_X32_FROM: Final = 0x40000000
_CLONE_NEW: Final = 0x7E020000
"""CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID and NEWNET."""
_CLONE_THREAD: Final = 0x10000
_CLONE_FILES: Final = 0x400
_TERMINAL_COMMANDS: Final = (0x5412, 0x541C, 0x541D, 0x5423)
"""TIOCSTI and TIOCLINUX type into a terminal, TIOCCONS and TIOCSETD take it over."""
_FILE_COMMANDS: Final = (1024, 1026)
"""F_SETLEASE stops others' opens of the caller's files, F_NOTIFY watches them."""
_PROCESS_OPTIONS: Final = (22, 35, 62)
"""PR_SET_SECCOMP (nobody stacks filters here), PR_SET_MM (it rewrites what /proc says of a process)
and PR_SCHED_CORE (it keeps others off the sibling of a core)."""
_PR_SET_DUMPABLE: Final = 4
_CLOSE_RANGE_CLOEXEC: Final = 4
_UNIX, _INET, _INET6, _NETLINK = 1, 2, 10, 16
_STREAM, _SEQUENCE = 1, 5
_TYPE_MASK: Final = 0xF
_FORMAT_MASK: Final = 0o170000
_OWNER_MASK: Final = 0o700
_DEVICE_FORMATS: Final = (0o060000, 0o020000)
_FULL_MASK: Final = 0xFFFFFFFF

_Block = tuple["Instruction", ...]


@dataclass(frozen=True, slots=True)
class Instruction:
    """One `struct sock_filter`: operation, skips when true and when false, operand."""

    code: int
    if_true: int
    if_false: int
    operand: int

    def packed(self) -> bytes:
        """Return the eight bytes that the kernel reads, in this machine's byte order."""
        return struct.pack("=HBBI", self.code, self.if_true, self.if_false, self.operand)


@dataclass(frozen=True, slots=True)
class SystemCall:
    """A line of the list; `number` is None where the architecture has no such call."""

    name: str
    number: Mapping[str, int | None]
    rule: str
    rule_alone: str


@dataclass(frozen=True, slots=True)
class _Machine:
    audit_architecture: int
    has_x32: bool


MACHINES: Final = {
    "x86_64": _Machine(audit_architecture=0xC000003E, has_x32=True),
    "aarch64": _Machine(audit_architecture=0xC00000B7, has_x32=False),
}


@cache
def system_calls() -> tuple[SystemCall, ...]:
    """Return the list of `syscalls.txt`."""
    lines = paths.SYSTEM_CALLS.read_text(encoding="ascii").splitlines()
    return tuple(_parse(line) for line in lines if not line.startswith("#"))


def program(machine: str, *, has_namespaces: bool) -> tuple[Instruction, ...]:
    """Return the filter for a machine (`os.uname().machine`).

    Without namespaces the stricter column of the list holds. Raises `SpeedtrapError` for a machine
    whose system calls are not listed.
    """
    if machine not in MACHINES:
        known = " or ".join(MACHINES)
        message = f"no system-call filter for a {machine} machine: run Speedtrap on {known}"
        raise SpeedtrapError(message)
    blocks = {
        number: _block(call.rule if has_namespaces else call.rule_alone)
        for call in system_calls()
        if (number := call.number[machine]) is not None
    }
    about = MACHINES[machine]
    foreign = _return(KILL_PROCESS)
    head = [
        Instruction(_LOAD, 0, 0, _ARCHITECTURE_OFFSET),
        Instruction(_JUMP_EQUAL, 1, 0, about.audit_architecture),
        *foreign,
        Instruction(_LOAD, 0, 0, _NUMBER_OFFSET),
    ]
    if about.has_x32:
        head += [Instruction(_JUMP_AT_LEAST, 0, 1, _X32_FROM), *foreign]
    return (*head, *_tree(_ranges(blocks)))


def program_bytes(machine: str, *, has_namespaces: bool) -> bytes:
    """Return `program` as the kernel and `bwrap --seccomp` read it."""
    instructions = program(machine, has_namespaces=has_namespaces)
    return b"".join(instruction.packed() for instruction in instructions)


def _parse(line: str) -> SystemCall:
    name, on_x86_64, on_aarch64, rule, *alone = line.split()
    number = {"x86_64": _number(on_x86_64), "aarch64": _number(on_aarch64)}
    return SystemCall(name, number, rule, alone[0] if alone else rule)


def _number(text: str) -> int | None:
    return None if text == "-" else int(text)


def _return(action: int) -> _Block:
    return (Instruction(_RETURN, 0, 0, action),)


def _choose(
    argument: int, values: Iterable[int], found: _Block, other: _Block, mask: int = _FULL_MASK
) -> _Block:
    """Go on with `found` where the argument, masked, is among `values`, else with `other`.

    Only the low half of an argument is looked at: each that is checked here is 32 bits wide in the
    kernel, which drops the upper half.
    """
    operands = tuple(values)
    head: _Block = (Instruction(_LOAD, 0, 0, _ARGUMENTS_OFFSET + 8 * argument),)
    if mask != _FULL_MASK:
        head += (Instruction(_AND, 0, 0, mask),)
    tests = tuple(
        Instruction(_JUMP_EQUAL, len(operands) - 1 - place + len(other), 0, value)
        for place, value in enumerate(operands)
    )
    return (*head, *tests, *other, *found)


_YES: Final = _return(ALLOW)
_NO: Final = _return(EPERM)


def _ioctl() -> _Block:
    return _choose(1, _TERMINAL_COMMANDS, _NO, _YES)


def _fcntl() -> _Block:
    return _choose(1, _FILE_COMMANDS, _NO, _YES)


def _socket() -> _Block:
    """Unix, IPv4, IPv6, and netlink's routing protocol, which lists interfaces."""
    routing = _choose(2, (0,), _YES, _return(_NO_PROTOCOL))
    others = _choose(0, (_NETLINK,), routing, _return(_NO_FAMILY))
    return _choose(0, (_UNIX, _INET, _INET6), _YES, others)


def _socketpair() -> _Block:
    return _choose(0, (_UNIX,), _YES, _return(_NO_FAMILY))


def _local() -> _Block:
    """Unix sockets that send nowhere but to whom they are connected, and connecting is refused.

    A datagram socket, also one of a pair, can send to any address. The CUDA driver opens one of the
    others to listen.
    """
    connected = _choose(1, (_STREAM, _SEQUENCE), _YES, _NO, mask=_TYPE_MASK)
    return _choose(0, (_UNIX,), connected, _return(_NO_FAMILY))


def _clone() -> _Block:
    """No new namespace, and no thread with descriptors that are not its process's.

    The memory that a worker holds in open files is counted from outside, process by process.
    """
    thread = (_CLONE_THREAD,)
    sharing = _choose(0, thread, _NO, _YES, mask=_CLONE_THREAD | _CLONE_FILES)
    return (
        Instruction(_LOAD, 0, 0, _ARGUMENTS_OFFSET),
        Instruction(_JUMP_ANY_BIT, 0, 1, _CLONE_NEW),
        *_NO,
        *sharing,
    )


def _personality() -> _Block:
    """Asking, and the one that every process has."""
    return _choose(0, (0, _FULL_MASK), _YES, _NO)


def _close_range() -> _Block:
    """No table of descriptors of its own for a thread: what it holds is counted from outside."""
    return _choose(2, (0, _CLOSE_RANGE_CLOEXEC), _YES, _NO)


def _prctl() -> _Block:
    """A process stays readable for its own user: its memory is counted from outside."""
    dumpable = _choose(1, (1,), _YES, _NO)
    others = _choose(0, (_PR_SET_DUMPABLE,), dumpable, _YES)
    return _choose(0, _PROCESS_OPTIONS, _NO, others)


def _mknod() -> _Block:
    return _choose(1, _DEVICE_FORMATS, _NO, _YES, mask=_FORMAT_MASK)


def _mknodat() -> _Block:
    return _choose(2, _DEVICE_FORMATS, _NO, _YES, mask=_FORMAT_MASK)


def _mkdir() -> _Block:
    """Folders that their owner can use, and so remove: the candidate's lie on the host's disk."""
    return _choose(1, (_OWNER_MASK,), _YES, _NO, mask=_OWNER_MASK)


def _mkdirat() -> _Block:
    return _choose(2, (_OWNER_MASK,), _YES, _NO, mask=_OWNER_MASK)


def _umask() -> _Block:
    return _choose(0, (0,), _YES, _NO, mask=_OWNER_MASK)


def _own_process() -> _Block:
    """Process id 0, the caller: the same user's other processes would do as well."""
    return _choose(0, (0,), _YES, _NO)


def _own_priority() -> _Block:
    """PRIO_PROCESS and the caller."""
    return _choose(0, (0,), _choose(1, (0,), _YES, _NO), _NO)


def _own_ioprio() -> _Block:
    """IOPRIO_WHO_PROCESS and the caller."""
    return _choose(0, (1,), _choose(1, (0,), _YES, _NO), _NO)


_CHECKS: Final[Mapping[str, Callable[[], _Block]]] = {
    "allow": lambda: _YES,
    "refuse": lambda: _NO,
    "absent": lambda: _return(ENOSYS),
    "ignore": lambda: _return(IGNORE),
    "ioctl": _ioctl,
    "fcntl": _fcntl,
    "socket": _socket,
    "socketpair": _socketpair,
    "local": _local,
    "clone": _clone,
    "close_range": _close_range,
    "personality": _personality,
    "prctl": _prctl,
    "mknod": _mknod,
    "mknodat": _mknodat,
    "mkdir": _mkdir,
    "mkdirat": _mkdirat,
    "umask": _umask,
    "own_process": _own_process,
    "own_priority": _own_priority,
    "own_ioprio": _own_ioprio,
}


def _block(rule: str) -> _Block:
    return _CHECKS[rule]()


def _ranges(blocks: Mapping[int, _Block]) -> list[tuple[int, _Block]]:
    """First number of each run of calls that are treated alike; from the last one on, absent."""
    absent = _return(ENOSYS)
    end = max(blocks) + 1
    every = ((number, blocks.get(number, absent)) for number in range(end + 1))
    runs = (next(run) for _, run in groupby(every, key=lambda item: item[1]))
    return list(runs)


def _tree(ranges: list[tuple[int, _Block]]) -> _Block:
    """Find the range of the loaded number by halving, then run its block."""
    if len(ranges) == 1:
        return ranges[0][1]
    middle = len(ranges) // 2
    first, rest = _tree(ranges[:middle]), _tree(ranges[middle:])
    bound = ranges[middle][0]
    if len(first) <= _MAX_SKIP:
        return (Instruction(_JUMP_AT_LEAST, len(first), 0, bound), *first, *rest)
    far = Instruction(_JUMP, 0, 0, len(first))
    return (Instruction(_JUMP_AT_LEAST, 0, 1, bound), far, *first, *rest)
