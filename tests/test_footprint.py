"""What is counted as a process's memory, on this very process; limits are in `test_worker`."""

from __future__ import annotations

import contextlib
import mmap
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from runner import footprint

if TYPE_CHECKING:
    from collections.abc import Iterator

MIB = 1024**2
OWN = f"/proc/{os.getpid()}"
NOWHERE = "/proc/4194305"


@contextlib.contextmanager
def memfd(size_bytes: int) -> Iterator[int]:
    descriptor = os.memfd_create("kept")
    try:
        for _ in range(size_bytes // MIB):  # a large buffer would stay with the allocator
            os.write(descriptor, b"x" * MIB)
        yield descriptor
    finally:
        os.close(descriptor)


def closely(limit_bytes: int = 0) -> int:
    """Look closely, since no limit is kept."""
    return footprint.used_bytes([OWN], footprint.look_at_files([OWN]), limit_bytes)


def test_what_has_gone_holds_nothing():
    files = footprint.look_at_files([NOWHERE])
    assert (files.used_bytes, files.descriptors) == (0, 0)
    assert footprint.used_bytes([NOWHERE], files, 0) == 0


def test_folders_of_the_host_are_not_the_workers():
    assert footprint.look_at_files([OWN]).tmpfs_bytes == 0


def test_an_open_memfd_counts_once_whoever_has_it():
    with memfd(8 * MIB) as descriptor:
        inode = os.fstat(descriptor).st_ino
        child = subprocess.Popen(
            [sys.executable, "-IS", "-c", "input()"],
            stdin=subprocess.PIPE,
            pass_fds=(descriptor,),
        )
        with child:
            theirs = f"/proc/{child.pid}"
            assert footprint.look_at_files([theirs]).memfds[inode] == 8 * MIB
            assert footprint.look_at_files([OWN, theirs]).memfds[inode] == 8 * MIB
            assert child.stdin is not None
            child.stdin.close()
    assert inode not in footprint.look_at_files([OWN]).memfds


def test_an_empty_memfd_of_any_length_holds_nothing():
    descriptor = os.memfd_create("sparse")
    try:
        os.truncate(descriptor, 2**40)
        inode = os.fstat(descriptor).st_ino
        assert footprint.look_at_files([OWN]).memfds[inode] == 0
    finally:
        os.close(descriptor)


def test_only_so_many_descriptors_are_looked_at(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(footprint, "DESCRIPTOR_LIMIT", 3)
    assert footprint.look_at_files([OWN, OWN]).descriptors == 3


def test_private_memory_counts():
    before_bytes = closely()
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    with mmap.mmap(-1, 16 * MIB, flags=flags) as kept:  # not from what the heap has already
        for _ in range(16):
            kept.write(b"x" * MIB)
        assert closely() - before_bytes == pytest.approx(16 * MIB, abs=2 * MIB)


def test_shared_memory_without_a_name_counts():
    before_bytes = closely()
    with mmap.mmap(-1, 16 * MIB) as kept:
        for _ in range(16):
            kept.write(b"x" * MIB)
        assert closely() - before_bytes == pytest.approx(16 * MIB, abs=2 * MIB)


def test_a_memfd_that_is_open_and_mapped_counts_once_when_looked_at_closely():
    before_bytes = closely()
    with memfd(16 * MIB) as descriptor, mmap.mmap(descriptor, 16 * MIB) as kept:
        assert sum(kept[::4096]) > 0
        assert closely() - before_bytes == pytest.approx(16 * MIB, abs=2 * MIB)
        assert closely(2**40) - before_bytes > 30 * MIB


def test_a_file_that_is_mapped_is_not_memory():
    before_bytes = closely()
    with (
        Path(sys.executable).open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
    ):
        assert sum(mapped[::4096]) > 0
        assert closely() - before_bytes < 2 * MIB


def test_where_page_tables_are_not_shown_what_is_resident_counts(monkeypatch: pytest.MonkeyPatch):
    resident_bytes = closely(2**40)
    read = footprint._read  # noqa: SLF001
    hidden = {"smaps", "smaps_rollup"}
    monkeypatch.setattr(
        footprint, "_read", lambda folder, name: b"" if name in hidden else read(folder, name)
    )
    assert closely() == pytest.approx(resident_bytes, abs=2 * MIB)
