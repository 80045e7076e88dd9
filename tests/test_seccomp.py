"""The filter does for every number, argument and architecture what the list says: run by hand."""

from __future__ import annotations

import errno
import itertools
import os
import struct
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner import paths, seccomp
from runner.records import SpeedtrapError

MACHINES = sorted(seccomp.MACHINES)
PLAIN = {"allow": seccomp.ALLOW, "refuse": seccomp.EPERM, "absent": seccomp.ENOSYS}
NUMBERS = {machine: [c.number[machine] for c in seccomp.system_calls()] for machine in MACHINES}
WALLS = [True, False]


def judge(machine: str, number: int, *arguments: int, alone: bool = False, arch: int | None = None):
    """What the filter answers, by an interpreter of the few instructions that it is made of."""
    architecture = seccomp.MACHINES[machine].audit_architecture if arch is None else arch
    padded = [*arguments, *([0] * (6 - len(arguments)))]
    data = struct.pack("<IIQ6Q", number, architecture, 0, *padded)
    program = seccomp.program(machine, has_namespaces=not alone)
    place, value = 0, 0
    while True:
        one = program[place]
        place += 1
        if one.code == 0x20:
            value = struct.unpack_from("<I", data, one.operand)[0]
        elif one.code == 0x54:
            value &= one.operand
        elif one.code == 0x05:
            place += one.operand
        elif one.code == 0x06:
            return one.operand
        else:
            is_so = {
                0x15: value == one.operand,
                0x35: value >= one.operand,
                0x45: bool(value & one.operand),
            }[one.code]
            place += one.if_true if is_so else one.if_false


def number_of(name: str, machine: str = "x86_64") -> int:
    return next(c.number[machine] for c in seccomp.system_calls() if c.name == name)


def ask(name: str, *arguments: int, alone: bool = False) -> int:
    return judge("x86_64", number_of(name), *arguments, alone=alone)


class TestList:
    def test_every_name_and_number_is_there_once(self):
        names = [call.name for call in seccomp.system_calls()]
        assert len(names) == len(set(names)) > 350
        for machine in MACHINES:
            numbers = [number for number in NUMBERS[machine] if number is not None]
            assert len(numbers) == len(set(numbers)) > 280

    def test_numbers_are_those_of_this_hosts_headers(self):
        """Where a C compiler and the kernel's headers are here; they may be older than the list."""
        try:
            run = subprocess.run(
                ["cc", "-E", "-dM", "-include", "asm/unistd.h", "-x", "c", "/dev/null"],
                capture_output=True,
                text=True,
                check=True,
            )
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("no C compiler with the kernel's headers")
        lines = [line.split() for line in run.stdout.splitlines()]
        defined = {
            words[1].removeprefix("__NR_"): int(words[2])
            for words in lines
            if len(words) == 3 and words[1].startswith("__NR_") and words[2].isdigit()
        }
        machine = os.uname().machine
        listed = {call.name: call.number[machine] for call in seccomp.system_calls()}
        shared = defined.keys() & listed.keys()
        assert len(shared) > 250
        assert {name: defined[name] for name in shared} == {name: listed[name] for name in shared}

    def test_each_call_of_the_kernel_is_under_a_known_rule(self):
        rules = {rule for c in seccomp.system_calls() for rule in (c.rule, c.rule_alone)}
        assert rules == set(seccomp._CHECKS)  # noqa: SLF001

    def test_without_namespaces_nothing_is_allowed_that_is_refused_with_them(self):
        for call in seccomp.system_calls():
            if call.rule in {"refuse", "absent"}:
                assert call.rule_alone == call.rule, call.name


class TestProgram:
    @pytest.mark.parametrize("machine", MACHINES)
    @pytest.mark.parametrize("alone", WALLS)
    def test_plain_rules_hold_whatever_the_arguments(self, machine: str, *, alone: bool):
        for call in seccomp.system_calls():
            rule, number = call.rule_alone if alone else call.rule, call.number[machine]
            if number is not None and rule in PLAIN:
                for arguments in ((), (2**64 - 1,) * 6):
                    found = judge(machine, number, *arguments, alone=alone)
                    assert found == PLAIN[rule], call.name

    @pytest.mark.parametrize("machine", MACHINES)
    @pytest.mark.parametrize("alone", WALLS)
    def test_numbers_that_no_kernel_has_yet_are_absent(self, machine: str, *, alone: bool):
        known = {number for number in NUMBERS[machine] if number is not None}
        for number in (set(range(2000)) | {2**30 - 1}) - known:
            assert judge(machine, number, alone=alone) == seccomp.ENOSYS

    @given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
    def test_another_architectures_numbers_end_the_process(self, number: int, arch: int):
        for machine in MACHINES:
            if arch != seccomp.MACHINES[machine].audit_architecture:
                assert judge(machine, number, arch=arch) == seccomp.KILL_PROCESS

    @given(st.integers(0x40000000, 2**32 - 1))
    def test_x32_numbers_end_the_process(self, number: int):
        assert judge("x86_64", number) == seccomp.KILL_PROCESS
        assert judge("aarch64", number) == seccomp.ENOSYS

    @pytest.mark.parametrize("machine", MACHINES)
    def test_every_path_through_it_is_short_and_it_fits_the_kernel(self, machine: str):
        for alone in WALLS:
            program = seccomp.program(machine, has_namespaces=not alone)
            assert len(program) <= 4096
            assert all(one.if_true <= 255 and one.if_false <= 255 for one in program)
            raw = seccomp.program_bytes(machine, has_namespaces=not alone)
            assert len(raw) == 8 * len(program)

    def test_an_unknown_machine_is_our_failure_with_a_remedy(self):
        with pytest.raises(SpeedtrapError, match="riscv64 machine: run Speedtrap on x86_64 or aar"):
            seccomp.program("riscv64", has_namespaces=True)


CLONE_THREAD = 0x3D0F00
NEW = {"ns": 0x20000, "cgroup": 0x2000000, "uts": 0x4000000, "ipc": 0x8000000}
NEW |= {"user": 0x10000000, "pid": 0x20000000, "net": 0x40000000}


class TestArguments:
    @pytest.mark.parametrize("flag", NEW.values(), ids=list(NEW))
    def test_no_new_namespace(self, flag: int):
        assert ask("clone", flag) == seccomp.EPERM
        assert ask("clone", CLONE_THREAD | flag) == seccomp.EPERM
        assert ask("unshare", flag) == seccomp.EPERM

    def test_threads_and_processes_can_be_made(self):
        assert ask("clone", CLONE_THREAD) == seccomp.ALLOW
        assert ask("clone", 0x1200011) == seccomp.ALLOW
        assert ask("clone", 0x4111) == seccomp.ALLOW
        assert ask("clone3", 0) == seccomp.ENOSYS

    def test_a_thread_cannot_keep_descriptors_for_itself(self):
        assert ask("clone", CLONE_THREAD & ~0x400) == seccomp.EPERM
        assert ask("unshare", 0x400) == seccomp.EPERM

    def test_files_can_be_locked_and_not_leased(self):
        commands = {number: ask("fcntl", 3, number) for number in (*range(40), *range(1024, 1040))}
        assert {n for n, answer in commands.items() if answer != seccomp.ALLOW} == {1024, 1026}

    def test_terminals_cannot_be_typed_into(self):
        for command in (0x5412, 0x541C, 0x541D, 0x5423, 0x5412 | 0xFFFFFFFF00000000):
            assert ask("ioctl", 0, command) == seccomp.EPERM
        for command in (0x5401, 0x5413, 0x541B, 0xC020462A, 0x30000001, 27):
            assert ask("ioctl", 0, command) == seccomp.ALLOW

    def test_sockets_are_of_the_common_families(self):
        allowed = {family for family in range(64) if ask("socket", family, 1) == seccomp.ALLOW}
        assert allowed == {1, 2, 10, 16}
        refused = {ask("socket", family, 1) & 0xFFFF for family in set(range(64)) - allowed}
        assert refused == {errno.EAFNOSUPPORT}
        assert {p for p in range(32) if ask("socket", 16, 3, p) == seccomp.ALLOW} == {0}

    def test_without_namespaces_no_socket_can_reach_one_of_the_host(self):
        """Streams and sequences send to whom they are connected, and cannot be connected."""
        for family, kind in itertools.product(range(20), range(8)):
            for name in ("socket", "socketpair"):
                answer = ask(name, family, kind | 0o2004000, alone=True)
                assert (answer == seccomp.ALLOW) == ((family, kind) in {(1, 1), (1, 5)})
        assert ask("connect", 3, 0, 0, alone=True) == seccomp.EPERM

    def test_persona_is_asked_for_and_not_changed(self):
        assert ask("personality", 0xFFFFFFFF) == seccomp.ALLOW
        assert ask("personality", 0) == seccomp.ALLOW
        assert ask("personality", 0x40000) == seccomp.EPERM

    def test_a_process_cannot_hide_from_its_user(self):
        assert ask("prctl", 4, 0) == ask("prctl", 4, 2) == seccomp.EPERM
        assert ask("prctl", 4, 1) == seccomp.ALLOW
        assert ask("prctl", 35) == ask("prctl", 62) == ask("prctl", 22) == seccomp.EPERM
        assert ask("prctl", 15) == ask("prctl", 38, 1) == seccomp.ALLOW

    def test_devices_cannot_be_made(self):
        for kind, answer in ((0o060000, "refuse"), (0o020000, "refuse"), (0o010000, "allow")):
            assert ask("mknod", 0, kind | 0o666) == PLAIN[answer]
            assert ask("mknodat", 0, 0, kind | 0o666) == PLAIN[answer]

    def test_without_namespaces_every_folder_can_be_removed_by_its_owner(self):
        for mode, answer in ((0o777, "allow"), (0o700, "allow"), (0o500, "refuse"), (0, "refuse")):
            assert ask("mkdir", 0, mode, alone=True) == PLAIN[answer]
            assert ask("mkdirat", 0, 0, mode, alone=True) == PLAIN[answer]
            assert ask("umask", 0o777 & ~mode, alone=True) == PLAIN[answer]
            assert ask("mkdir", 0, mode) == seccomp.ALLOW

    @pytest.mark.parametrize("name", ["prlimit64", "sched_setparam", "sched_setscheduler"])
    def test_without_namespaces_a_process_changes_itself_only(self, name: str):
        assert ask(name, 0, alone=True) == seccomp.ALLOW
        assert ask(name, 4711, alone=True) == seccomp.EPERM
        assert ask(name, 4711) == seccomp.ALLOW

    def test_cores_cannot_be_chosen_and_nobody_fails_by_asking(self):
        for pid, alone in itertools.product((0, 4711), (False, True)):
            assert ask("sched_setaffinity", pid, alone=alone) == seccomp.IGNORE
            assert ask("sched_setattr", pid, alone=alone) == seccomp.IGNORE
        assert ask("sched_getaffinity", 0) == seccomp.ALLOW

    def test_without_namespaces_priorities_are_its_own(self):
        assert ask("setpriority", 0, 0, alone=True) == seccomp.ALLOW
        assert ask("setpriority", 2, 0, alone=True) == seccomp.EPERM
        assert ask("setpriority", 0, 4711, alone=True) == seccomp.EPERM
        assert ask("ioprio_set", 1, 0, alone=True) == seccomp.ALLOW
        assert ask("ioprio_set", 3, 0, alone=True) == seccomp.EPERM


INSTALL = """
import ctypes, os, sys
class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_char_p)]
code = open(sys.argv[1], "rb").read()
libc = ctypes.CDLL(None, use_errno=True)
program = Program(len(code) // 8, code)
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, ctypes.byref(program), 0, 0) == 0, ctypes.get_errno()
import subprocess, threading
threading.Thread(target=print).start()
print(subprocess.run(["/usr/bin/true"]).returncode)
for number in map(int, sys.argv[2:]):
    print(libc.syscall(number, 0, 0, 0, 0, 0), ctypes.get_errno())
"""


@pytest.mark.parametrize("alone", WALLS)
def test_the_kernel_takes_it_and_answers_as_the_interpreter_does(tmp_path, *, alone: bool):
    machine = os.uname().machine
    path = tmp_path / "seccomp.bpf"
    path.write_bytes(seccomp.program_bytes(machine, has_namespaces=not alone))
    names = ["ptrace", "bpf", "io_uring_setup", "keyctl", "userfaultfd", "setns", "open_tree"]
    numbers = [number_of(name, machine) for name in names]
    clone3 = number_of("clone3", machine)
    run = subprocess.run(
        [sys.executable, "-c", INSTALL, path, *map(str, [*numbers, clone3, 1500])],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    answers = run.stdout.split("\n")[1:-1]
    refused = [f"-1 {errno.EPERM}"] * len(names)
    assert answers == ["0", *refused, f"-1 {errno.ENOSYS}", f"-1 {errno.ENOSYS}"]


def test_the_list_belongs_to_the_package():
    assert paths.SYSTEM_CALLS.is_file()
