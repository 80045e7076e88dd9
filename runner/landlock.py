"""The second wall: what a candidate may touch where user namespaces are refused.

Theory of operation
-------------------
Landlock lets a process give up rights for itself and all that it starts, without privileges and
without namespaces. `landlock_process.py` does so in a fresh process and then becomes the script:

    controller
      `-- supervisor     outer domain: may signal nobody outside of it
            |-- script   inner domain: files by list, no signals out, and the system-call filter
      guard              in the outer domain, no descendant of anybody who could be asked to end it

Files are denied unless they lie under a path of the policy. Signals, tracing and /proc files that
need the right to trace end at the domain's border, so neither controller, supervisor nor the other
side's script can be touched. Landlock mediates neither UDP nor, in most kernels, Unix sockets by
path, so the stricter column of the filter leaves only Unix sockets that cannot connect (CUDA does
not start without one to listen at). It refuses also what Landlock does not mediate of the caller's
files: mode, owner, times and attributes.

Nothing outlives the supervisor. Its outer domain is a set of processes that nobody can leave and
in which `kill(-1)` reaches the members only, all at one stroke, however fast they fork. The
supervisor does that when the script ends, and the guard when the supervisor dies in any way.

What cannot be denied like this is declared in `GAPS`.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final

from runner import paths

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

REQUIRED_ABI: Final = 6
"""Linux 6.12. Files need ABI 3: before it, any file that the caller may write could be truncated.
Signals need ABI 6: before it, a script could kill its controller and the other side."""
GAPS: Final = (
    "host name: it is in view",
    "socket name: a free name for an abstract Unix socket can be taken while it runs",
    "file metadata: whether a file of the host exists, its size and times can be asked for",
    "process ids: which process ids of the host are in use can be found out",
    "disk space: its folder lies on the host's disk; one file is bounded, all together are not",
    "user id: it runs under the caller's own user id, without any capability",
)
"""Each begins with the name of what it is about."""

_READ_SYSTEM: Final = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/sys")
_READ_FILES: Final = (
    *("/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/alternatives", "/etc/localtime"),
    *("/etc/mime.types", "/etc/nsswitch.conf", "/etc/ssl/certs", "/etc/ssl/openssl.cnf"),
    *("/etc/ssl/cert.pem", "/etc/pki/tls/certs", "/etc/pki/tls/openssl.cnf"),
    *("/etc/pki/ca-trust/extracted", "/etc/ca-certificates/extracted"),
    *("/proc/self", "/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/proc/filesystems"),
    *("/proc/devices", "/proc/driver/nvidia", "/proc/sys/vm", "/proc/sys/kernel"),
)
"""Public files of /etc are among them that libraries open wherever they exist: a file that is there
and cannot be read stops them, one that is not there, as behind bubblewrap, does not."""
_DEVICES: Final = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")


@dataclass(frozen=True, slots=True)
class Policy:
    """What `landlock_process.py` is told, as JSON. All paths are absolute.

    `parent` is the process whose death ends everything. `task_limit` counts beside the tasks that
    the user has already.
    """

    parent: int
    readable: tuple[str, ...]
    writable: str
    devices: tuple[str, ...]
    filter_file: str
    search_path: tuple[str, ...]
    file_size_bytes: int
    task_limit: int

    def write(self, path: Path) -> None:
        """Write the policy for the program."""
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")


def problem() -> str | None:
    """Why this kernel's Landlock does not do; None where it does."""
    import landlockpy  # deferred: only where it is the back end

    abi = landlockpy.abi_version()
    if abi == 0:
        return "the kernel has no Landlock, or it was left out at boot (lsm=landlock,...)"
    if abi < REQUIRED_ABI:
        return (
            f"the kernel's Landlock has ABI {abi}, and {REQUIRED_ABI} (Linux 6.12) is needed:"
            " an older one does not keep a candidate from sending signals to its controller"
        )
    return None


def version() -> str:
    """Name the back end for the result."""
    import landlockpy  # deferred: only where it is the back end

    return f"Landlock ABI {landlockpy.abi_version()}"


def readable(folders: Sequence[Path]) -> tuple[str, ...]:
    """Everything to be read: the system's own and `folders`."""
    return (*_READ_SYSTEM, *_READ_FILES, *map(str, folders))


def devices(nodes: Sequence[str]) -> tuple[str, ...]:
    """Device nodes to be used: the harmless ones and `nodes`."""
    return (*_DEVICES, *nodes)


def command(python: Path, policy_file: Path, arguments: Sequence[str]) -> list[str]:
    """Make the command line that runs `arguments` under a written policy."""
    return [str(python), "-I", str(paths.LANDLOCK_PROCESS), str(policy_file), *arguments]
