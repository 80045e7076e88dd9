"""How much of the host's memory a worker holds, wherever it has put it.

Theory of operation
-------------------
Memory can be held without being mapped, and hidden from a sum over processes: in a file of the
sandbox's tmpfs, or in a memfd that is open and not mapped. Four kinds add up without overlap:

- private pages, in proportion to who shares them (after a fork);
- pages of the sandbox's tmpfs, mapped or not: what the file systems say is used;
- pages of memfds that somebody has open, mapped or not: each inode's blocks, once;
- pages that are shared without a name (`MAP_SHARED | MAP_ANONYMOUS`, System V), or of a memfd that
  is mapped and no longer open: in proportion, as mapped.

The first and last need a walk over page tables. So a bound is formed first, from counters that
cost microseconds, in which what is shared or both mapped and in a file counts more than once; only
a worker that is over its limit by that bound is looked at closely.

All of these files belong to the kernel. The one text of the candidate's in them is its name, in
which the kernel escapes line feeds (`status`), and names of mapped files, likewise (`smaps`).

Not seen: a memfd that is in flight over a socket, or in a table of descriptors that one thread
keeps for itself; of a process that made itself undumpable, if the caller is not root, descriptors
at all, and its private pages count in full.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

WRITABLE_INSIDE: Final = ("tmp", "home/candidate", "dev/shm")
"""Mount points in the sandbox that are held in memory."""
DESCRIPTOR_LIMIT: Final = 32768
"""Open descriptors of a whole worker that are looked at; honest ones hold hundreds."""

_BLOCK_BYTES: Final = 512
"""Unit of `st_blocks`, whatever the file system's own block is."""
_RESIDENT: Final = re.compile(rb"^(?:RssAnon|RssShmem):\s+(\d+) kB$", re.MULTILINE)
_PRIVATE: Final = re.compile(rb"^Pss_Anon:\s+(\d+) kB$", re.MULTILINE)
_MAPPING: Final = re.compile(
    rb"^[0-9a-f]+-[0-9a-f]+ \S+ [0-9a-f]+ ([0-9a-f]+):([0-9a-f]+) (\d+)\b.*\n"
    rb"(?:[A-Z]\w+:.*\n)*?Pss:\s+(\d+) kB$",
    re.MULTILINE,
)


@dataclass(frozen=True, slots=True)
class Files:
    """Memory that files hold. `memfds` has the bytes of each by its inode."""

    tmpfs_bytes: int
    memfds: Mapping[int, int]
    descriptors: int

    @property
    def used_bytes(self) -> int:
        """All of it."""
        return self.tmpfs_bytes + sum(self.memfds.values())


def look_at_files(folders: Sequence[str]) -> Files:
    """What a worker's processes hold in the sandbox's files and in memfds.

    `folders` are theirs in /proc (see `processes.folder`), parents before children.
    """
    memfds: dict[int, int] = {}
    descriptors = 0
    for folder in folders:
        descriptors += _collect_memfds(folder, DESCRIPTOR_LIMIT - descriptors, memfds)
    return Files(_tmpfs_bytes(folders), memfds, descriptors)


def used_bytes(folders: Sequence[str], files: Files, limit_bytes: int) -> int:
    """Memory that the processes hold; a bound from above if that is within `limit_bytes`."""
    bound = sum(_sum_bytes(folder, "status", _RESIDENT) for folder in folders) + files.used_bytes
    if bound <= limit_bytes:
        return bound
    mapped = (_private_and_unnamed(folder, files.memfds) for folder in folders)
    return files.used_bytes + sum(mapped)


def _private_and_unnamed(folder: str, counted: Mapping[int, int]) -> int:
    """Pages of one process that no file accounts for; what is resident, where that is not shown."""
    maps = _read(folder, "smaps")
    rollup = _read(folder, "smaps_rollup")
    if not rollup or not maps:
        return _sum_bytes(folder, "status", _RESIDENT)
    private_kib = sum(map(int, _PRIVATE.findall(rollup)))
    unnamed_kib = sum(
        int(pss)
        for major, minor, inode, pss in _MAPPING.findall(maps)
        if os.makedev(int(major, 16), int(minor, 16)) == _unnamed_device()
        and int(inode) not in counted
    )
    return (private_kib + unnamed_kib) * 1024


@cache
def _unnamed_device() -> int:
    """The kernel's own tmpfs, in which memfds and shared memory without a name live."""
    descriptor = os.memfd_create("speedtrap")
    try:
        return os.fstat(descriptor).st_dev
    finally:
        os.close(descriptor)


def _tmpfs_bytes(folders: Iterable[str]) -> int:
    """What is used of the file systems in memory that the first sandboxed process sees.

    A process that has the host's mounts, or is still arranging its own, shows the host's folders.
    """
    for folder in folders:
        try:
            is_ours = Path(f"{folder}/ns/mnt").stat().st_ino == _own_mounts()
        except OSError:
            continue
        if not is_ours:
            return sum(_used_in(Path(f"{folder}/root"), name) for name in WRITABLE_INSIDE)
    return 0


def _own_mounts() -> int:
    return Path("/proc/self/ns/mnt").stat().st_ino


def _used_in(root: Path, name: str) -> int:
    try:
        inside = root / name
        if inside.stat().st_dev in _devices_of_host(name):
            return 0
        figures = os.statvfs(inside)
    except OSError:
        return 0
    return (figures.f_blocks - figures.f_bfree) * figures.f_frsize


def _devices_of_host(name: str) -> set[int]:
    ours = (Path("/"), Path("/") / name)
    return {path.stat().st_dev for path in ours if path.exists()}


def _collect_memfds(folder: str, limit: int, memfds: dict[int, int]) -> int:
    """Add the memfds that a process has open; returns how many descriptors were looked at."""
    count = 0
    for name in _descriptors(folder):
        if count >= limit:
            break
        count += 1
        link = f"{folder}/fd/{name}"
        try:
            if os.readlink(link).startswith("/memfd:"):  # noqa: PTH115  (many, often)
                about = os.stat(link)  # noqa: PTH116
                memfds[about.st_ino] = about.st_blocks * _BLOCK_BYTES
        except OSError:
            continue  # closed meanwhile
    return count


def _descriptors(folder: str) -> list[str]:
    try:
        return os.listdir(f"{folder}/fd")  # noqa: PTH208  (many, often)
    except OSError:
        return []


def _sum_bytes(folder: str, name: str, fields: re.Pattern[bytes]) -> int:
    return sum(map(int, fields.findall(_read(folder, name)))) * 1024


def _read(folder: str, name: str) -> bytes:
    """A file of a process's folder in /proc; empty once it has ended, or where it is not shown."""
    try:
        return Path(f"{folder}/{name}").read_bytes()
    except OSError:
        return b""
