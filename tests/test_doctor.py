import dataclasses
import fcntl
import io
import json
import os
import pty
import re
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import pytest

from runner import doctor, gpu, model_cache, paths, sandbox
from runner.doctor import Finding, Host, Status
from runner.gpu import Card, Occupant
from runner.records import Isolation, IsolationPolicy, SpeedtrapError
from runner.settings import Settings

GIB = 1024**3
NO_NAMESPACES = "setting up uid map: Permission denied"
CARD = Card(0, "GPU-1", "NVIDIA H200", 0, "580.95.05", 140 * GIB, 0, 0, ())
FLAGS = ("--doctor", "--device", "cpu", "--wait", "240")


def run(*flags, **environment):
    return subprocess.run(
        [sys.executable, "-m", "runner", *flags],
        cwd=paths.ROOT,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def here():
    """What the real command says of this machine, as JSON."""
    return run(*FLAGS, "--json", "--quiet")


def refuse(_policy):
    raise SpeedtrapError("no sandbox can be made here")


def second_wall(_policy):
    gaps = ("host names: in view", "user id: the caller's")
    shown = {"version": "Landlock ABI 7", "network": False, "host_files": False, "gaps": gaps}
    return Isolation(backend=IsolationPolicy.LANDLOCK, **shown), None


@pytest.fixture
def make_host(tmp_path):
    """Make a host whose kernel shows only `files`; other edges of it are as given."""

    def make(files=None, device="auto", **edges):
        root = tmp_path / "root"
        root.mkdir()
        for name, text in (files or {}).items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        settings = Settings(Path("candidate.py"), device=device, wait_s=0.0)
        return Host(settings, lambda _what: None, root=root, **{"environment": {}, **edges})

    return make


def cards(*shown):
    class Shown:
        def cards(self):
            return list(shown)

    return Shown


def finding(name, host):
    return doctor.CHECKS[name](host)


# The real command


def test_this_machine_can_score_and_says_so(here):
    answer = json.loads(here.stdout)
    assert here.returncode == 0, here.stdout
    assert here.stderr == ""
    assert answer["can_score"] is True
    assert [check["name"] for check in answer["checks"]] == list(doctor.CHECKS)
    for check in answer["checks"]:
        assert set(check) == {"name", "status", "seen", "remedy"}
        assert check["status"] in {"ok", "warning"}, check
        assert check["seen"]


def test_kernel_ran_in_the_sandbox_and_was_right(here):
    (kernel,) = (one for one in json.loads(here.stdout)["checks"] if one["name"] == "one kernel")
    assert kernel["status"] == "ok"
    assert re.match(r"cpu: a matrix product in \d+\.\d\d s \(torch \d", kernel["seen"])


def test_failed_check_is_exit_2_and_nothing_but_a_line(tmp_path):
    ran = run(*FLAGS, "--device", "cuda:9", "--quiet", HF_HUB_CACHE=str(tmp_path))
    lines = ran.stdout.splitlines()
    assert ran.returncode == 2
    assert len(lines) == len(doctor.CHECKS) + 1
    assert lines[-1].startswith("No score can be run here: nvidia driver")
    assert sum(line.startswith("failed") for line in lines) == lines[-1].count(",") + 1


def test_controller_imports_no_torch():
    code = "import sys, runner.doctor; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=paths.ROOT, check=False).returncode == 0


# What is shown


FINDINGS = {
    "well": Finding(Status.OK, "as it should be"),
    "so so": Finding(Status.WARNING, "slow\x1b[31m\nforged", "make it fast"),
    "ill": Finding(Status.FAILED, "word " * 40, "heal it"),
}


def test_no_terminal_gets_one_line_a_check():
    file = io.StringIO()
    doctor.show(FINDINGS, file)
    assert file.getvalue().splitlines() == [
        "ok       well             as it should be",
        "warning  so so            slow\ufffd[31m forged  -> make it fast",
        f"failed   ill              {'word ' * 40}  -> heal it",
        "No score can be run here: ill.",
    ]


@pytest.mark.parametrize("columns", [50, 80, 200])
def test_terminal_gets_lines_no_wider_than_itself(columns, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "xterm")
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "w") as file:
        doctor.show(FINDINGS, file)
    shown = re.sub(r"\x1b\[[\d;]*m", "", os.read(ours, 65536).decode())
    os.close(ours)
    lines = [line.rstrip() for line in shown.splitlines()]
    assert max(map(len, lines)) <= columns
    assert any(line.endswith("-> heal it") for line in lines)


def test_json_says_the_same():
    answer = json.loads(doctor.as_json(FINDINGS))
    assert answer["can_score"] is False
    assert answer["checks"][0] == {
        "name": "well",
        "status": "ok",
        "seen": "as it should be",
        "remedy": "",
    }


def test_warning_is_no_obstacle():
    assert doctor.can_score({"one": FINDINGS["well"], "other": FINDINGS["so so"]})


def test_check_that_raises_is_a_failed_line(monkeypatch, make_host):
    def broken(_host):
        raise ZeroDivisionError("by nothing")

    monkeypatch.setattr(doctor, "CHECKS", {"broken": broken, "cores": doctor.CHECKS["cores"]})
    found = doctor.examine(make_host())
    assert found["broken"] == Finding(Status.FAILED, "ZeroDivisionError: by nothing")
    assert "cores" in found


def test_device_that_cannot_be_read_is_refused_as_by_a_score():
    ran = run("--doctor", "--device", "gpu", "--quiet")
    assert ran.returncode == 2
    assert ran.stdout == ""
    assert "cannot read the device 'gpu'" in ran.stderr


# Python and its packages


@pytest.fixture
def project(tmp_path):
    """Write a checkout with a `pyproject.toml`; returns its folder."""

    def write(requires, *dependencies):
        text = f'[project]\nrequires-python = "{requires}"\ndependencies = {list(dependencies)}\n'
        (tmp_path / "pyproject.toml").write_text(text)
        return tmp_path

    return write


def test_python_out_of_range(make_host, project):
    found = finding("python", make_host(checkout=project("<3.0")))
    assert found.status is Status.FAILED
    assert "needed: <3.0" in found.seen
    assert "SPEEDTRAP_PYTHON" in found.remedy


def versions(**known):
    def version_of(name):
        if name not in known:
            raise metadata.PackageNotFoundError(name)
        return known[name]

    return version_of


@pytest.mark.parametrize(
    ("known", "status", "seen"),
    [
        ({"torch": "2.11.0+cu130", "tomesd": "0.1.3"}, Status.OK, "all 2"),
        ({"torch": "2.9.1", "tomesd": "0.1.3"}, Status.WARNING, "torch is 2.9.1, known to work"),
        ({"torch": "2.11.0"}, Status.WARNING, "tomesd is missing (no candidate can use it)"),
        ({"tomesd": "0.1.3"}, Status.FAILED, "torch is missing"),
    ],
)
def test_packages_against_the_projects_ranges(make_host, project, known, status, seen):
    checkout = project(">=3.11", "torch>=2.11", "tomesd>=0.1.3", "winonly; os_name == 'nt'")
    found = finding("packages", make_host(checkout=checkout, version_of=versions(**known)))
    assert found.status is status
    assert seen in found.seen
    assert bool(found.remedy) == (status is not Status.OK)


def test_packages_of_a_given_python_are_mended_by_pip(make_host, project):
    checkout = project(">=3.11", "torch>=2.11")
    environment = {"SPEEDTRAP_PYTHON": sys.executable}
    host = make_host(checkout=checkout, version_of=versions(), environment=environment)
    assert finding("packages", host).remedy.startswith(f"{sys.executable} -m pip install -r")


# The sandbox


@pytest.mark.parametrize("name", ["bubblewrap", "user namespaces"])
@pytest.mark.parametrize(
    ("isolate", "status"), [(refuse, Status.FAILED), (second_wall, Status.WARNING)]
)
def test_no_bubblewrap_is_fatal_only_without_a_second_wall(make_host, name, isolate, status):
    found = finding(name, make_host(bwraps=list, isolate=isolate))
    assert found.status is status
    assert "install" in found.remedy


@pytest.mark.parametrize(
    ("files", "remedy"),
    [
        (
            {"proc/sys/kernel/apparmor_restrict_unprivileged_userns": "1\n"},
            "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
        ),
        (
            {"proc/sys/kernel/unprivileged_userns_clone": "0\n"},
            "sudo sysctl -w kernel.unprivileged_userns_clone=1",
        ),
        (
            {"proc/sys/user/max_user_namespaces": "0\n"},
            "sudo sysctl -w user.max_user_namespaces=15000",
        ),
        ({".dockerenv": ""}, "--security-opt seccomp=unconfined"),
        ({"proc/self/status": "Name:\tsh\nSeccomp:\t2\n"}, "--security-opt seccomp=unconfined"),
        ({}, "bwrap --unshare-user"),
    ],
)
def test_refused_user_namespaces_name_what_allows_them(make_host, files, remedy):
    host = make_host(
        {
            "proc/sys/user/max_user_namespaces": "96365\n",
            "proc/sys/kernel/unprivileged_userns_clone": "1\n",
            "proc/self/status": "Name:\tsh\nSeccomp:\t0\n",
            **files,
        },
        bwraps=lambda: [Path("/usr/bin/bwrap")],
        probe=lambda _bwrap: NO_NAMESPACES,
        isolate=refuse,
    )
    found = finding("user namespaces", host)
    assert found.status is Status.FAILED
    assert f"/usr/bin/bwrap: {NO_NAMESPACES}" in found.seen
    assert remedy in found.remedy
    assert found.remedy.count("sysctl") <= 1


def test_second_bubblewrap_may_work(make_host):
    host = make_host(
        bwraps=lambda: [Path("/usr/bin/bwrap"), Path("/wheel/bwrap")],
        probe=lambda bwrap: NO_NAMESPACES if bwrap == Path("/usr/bin/bwrap") else None,
    )
    assert finding("user namespaces", host).status is Status.OK


@pytest.mark.parametrize(
    ("files", "status"),
    [
        ({"proc/sys/kernel/seccomp/actions_avail": "kill_process errno log allow"}, Status.OK),
        ({"proc/sys/kernel/seccomp/actions_avail": "kill_thread errno allow"}, Status.FAILED),
        ({"proc/self/status": "Name:\tsh\nSeccomp:\t0\n"}, Status.WARNING),
        ({"proc/self/status": "Name:\tsh\n"}, Status.FAILED),
    ],
)
def test_seccomp(make_host, files, status):
    assert finding("seccomp", make_host(files)).status is status


@pytest.mark.parametrize(("problem", "status"), [(None, Status.OK), ("no", Status.WARNING)])
def test_lack_of_landlock_matters_where_bubblewrap_does_not_work(
    make_host, monkeypatch, problem, status
):
    monkeypatch.setattr("landlockpy.abi_version", lambda: 0)
    host = make_host(bwraps=lambda: [Path("/bwrap")], probe=lambda _bwrap: problem)
    assert finding("landlock", host).status is status


def test_missing_landlockpy_is_no_crash(make_host, monkeypatch):
    monkeypatch.setitem(sys.modules, "landlockpy", None)
    host = make_host(bwraps=lambda: [Path("/bwrap")], probe=lambda _bwrap: None)
    assert finding("landlock", host).status is Status.OK
    found = finding("landlock", dataclasses.replace(host, bwraps=list))
    assert found.status is Status.WARNING
    assert "installed.lock" in found.remedy


def test_no_sandbox_is_said_once_in_the_sandboxes_own_words(make_host):
    host = make_host(isolate=refuse)
    found = finding("sandbox", host)
    assert found == Finding(Status.FAILED, "no sandbox can be made here", "see user namespaces")
    assert finding("one kernel", host).seen == "not tried, for want of a sandbox"
    assert finding("shared memory", dataclasses.replace(host, root=Path("/"))).seen


def test_second_wall_names_what_it_does_not_deny(make_host):
    found = finding("sandbox", make_host(isolate=second_wall))
    assert found.status is Status.WARNING
    assert found.seen == "Landlock ABI 7; not denied: host names, user id"


def test_kernel_runs_behind_the_second_wall_too(make_host, monkeypatch, tmp_path):
    monkeypatch.setattr(gpu, "LOCKS", tmp_path / "locks")
    isolate = lambda _policy: sandbox.find_isolation(IsolationPolicy.LANDLOCK)  # noqa: E731
    found = finding("one kernel", make_host(device="cpu", isolate=isolate))
    assert found.status is Status.OK, found


def test_no_isolation_is_a_warning(make_host):
    host = make_host(isolate=lambda _policy: sandbox.find_isolation(IsolationPolicy.NONE))
    assert finding("sandbox", host).status is Status.WARNING


# The device


PCI = "sys/bus/pci/devices/0000:01:00.0/"


@pytest.mark.parametrize(
    ("files", "seen", "remedy"),
    [
        ({}, "no NVIDIA card", ""),
        (
            {f"{PCI}vendor": "0x10de\n", f"{PCI}class": "0x030200\n"},
            "without a driver",
            "ubuntu-drivers",
        ),
        ({f"{PCI}vendor": "0x10de\n", f"{PCI}class": "0x040300\n"}, "no NVIDIA card", ""),
        ({"sys/module/nvidia/version": "580.95.05\n"}, "driver 580.95.05 is loaded", "nvidia-smi"),
    ],
)
def test_without_cards_only_a_cpu_can_be_had(make_host, files, seen, remedy):
    found = finding("nvidia driver", make_host(files, nvml=cards()))
    assert found.status is Status.WARNING
    assert seen in found.seen
    assert "CPU only" in found.seen
    assert remedy in found.remedy


def test_without_cards_a_card_that_is_asked_for_cannot_be_had(make_host):
    found = finding("nvidia driver", make_host(device="cuda:0", nvml=cards()))
    assert found.status is Status.FAILED
    assert found.remedy == "bin/score --device cpu"


NODES = ("dev/nvidia0", "dev/nvidiactl", "dev/nvidia-uvm")


def test_cards_are_listed_with_who_is_on_them(make_host):
    busy = dataclasses.replace(CARD, index=1, occupants=(Occupant(77, GIB),))
    host = make_host(dict.fromkeys(NODES, ""), nvml=cards(CARD, busy))
    found = finding("nvidia driver", host)
    assert found.status is Status.OK
    assert found.seen == (
        "driver 580.95.05: cuda:0 NVIDIA H200, 140 GiB, free,"
        " cuda:1 NVIDIA H200, 140 GiB, is used by process 77"
    )


def test_missing_device_node_names_what_makes_it(make_host):
    found = finding("nvidia driver", make_host(dict.fromkeys(NODES[:2], ""), nvml=cards(CARD)))
    assert found.status is Status.FAILED
    assert "dev/nvidia-uvm missing" in found.seen
    assert found.remedy == "sudo nvidia-modprobe -u -c=0"


def test_busy_card_is_a_warning_and_a_card_that_is_not_there_a_failure(make_host, monkeypatch):
    monkeypatch.setattr(gpu, "LOCKS", Path("/proc/nowhere"))  # nothing may be leased here
    busy = dataclasses.replace(CARD, occupants=(Occupant(77, GIB),))
    isolate = lambda _policy: sandbox.find_isolation(IsolationPolicy.NONE)  # noqa: E731
    host = make_host(device="cuda:0", nvml=cards(busy), isolate=isolate)
    found = finding("one kernel", host)
    assert found.status is Status.WARNING
    assert "is used by process 77" in found.seen
    elsewhere = dataclasses.replace(
        host, settings=dataclasses.replace(host.settings, device="cuda:4")
    )
    found = finding("one kernel", elsewhere)
    assert found.status is Status.FAILED
    assert "there is no cuda:4 here" in found.seen


def print_answer(**changes):
    """Make a script that says what the real one says, with some of it changed."""
    answer = {"torch": "2", "cuda": None, "import_s": 1, "kernel_s": 1, "total": 512**3}
    return f"print({json.dumps({**answer, 'status': 'Seccomp: 2', **changes})!r})"


@pytest.mark.parametrize(
    ("script", "seen"),
    [
        (
            "import sys\nsys.exit('no kernel image is available')",
            "cpu: exit status 1: no kernel image is available",
        ),
        ("import os\nos.abort()", "cpu: exit status 134"),
        ("import time\ntime.sleep(60)", "took longer than 3 s in the exit phase"),
        (print_answer(total=5), "but wrong: 5"),
        (print_answer(status="Seccomp:\t0\n"), "no seccomp filter inside"),
    ],
)
def test_kernel_that_fails_in_the_real_sandbox(make_host, monkeypatch, tmp_path, script, seen):
    monkeypatch.setattr(doctor, "_KERNEL", script.replace("{", "{{").replace("}", "}}"))
    monkeypatch.setattr(gpu, "LOCKS", tmp_path / "locks")
    host = make_host(device="cpu")
    settings = dataclasses.replace(host.settings, timeout_s=3.0)
    found = finding("one kernel", dataclasses.replace(host, settings=settings))
    assert found.status is Status.FAILED
    assert found.remedy
    assert seen in found.seen


# Models and prompts


@pytest.fixture
def cache(tmp_path):
    """Make a hub cache that holds these models; returns the environment that names it."""

    def make(*names):
        folder = tmp_path / "hub"
        folder.mkdir(exist_ok=True)
        for name in names:
            (folder / f"models--{name.replace('/', '--')}" / "blobs").mkdir(parents=True)
        return {"HF_HUB_CACHE": str(folder)}

    return make


def test_empty_cache_still_has_the_embedded_model(make_host, cache):
    found = finding("models", make_host(environment=cache()))
    assert found.status is Status.OK
    assert "speedtrap/tiny-sd" in found.seen


def test_cached_models_are_listed_up_to_a_number(make_host, cache):
    names = [f"owner/m{number}" for number in range(8)]
    found = finding("models", make_host(environment=cache(*names, doctor.JUDGE)))
    assert found.status is Status.OK
    assert "owner/m0" in found.seen
    assert found.seen.endswith("and 4 more")


def test_real_models_without_their_judge_are_a_warning(make_host, cache):
    found = finding("models", make_host(environment=cache("owner/model")))
    assert found.status is Status.WARNING
    assert found.remedy == f"hf download {doctor.JUDGE}"


def test_judge_is_where_open_clip_looks_for_it():
    code = (
        "from open_clip.pretrained import get_pretrained_cfg\n"
        "from runner.prompts import PRESETS\n"
        "clip = PRESETS['natural'].clip\n"
        "print(get_pretrained_cfg(clip.name, clip.pretrained)['hf_hub'])"
    )
    ask = [sys.executable, "-c", code]
    answer = subprocess.run(ask, cwd=paths.ROOT, capture_output=True, text=True, check=True).stdout
    assert answer.strip().strip("/") == doctor.JUDGE


def test_unfinished_download_is_a_warning(make_host, cache, tmp_path):
    environment = cache("owner/model")
    (tmp_path / "hub/models--owner--model/blobs/abc.incomplete").touch()
    found = finding("models", make_host(environment=environment))
    assert found.status is Status.WARNING
    assert found.remedy == "hf download owner/model"


def test_pointers_in_place_of_the_embedded_weights_fail(make_host, cache, tmp_path, monkeypatch):
    pointer = tmp_path / "tiny" / "unet" / "model.safetensors"
    pointer.parent.mkdir(parents=True)
    pointer.write_text("version https://git-lfs.github.com/spec/v1\n")
    monkeypatch.setattr(model_cache, "EMBEDDED", {"speedtrap/tiny-sd": tmp_path / "tiny"})
    found = finding("models", make_host(environment=cache()))
    assert found.status is Status.FAILED
    assert str(tmp_path / "tiny") in found.seen


def test_missing_prompt_set_fails(make_host, tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "PROMPTS", tmp_path)
    found = finding("prompts", make_host())
    assert found.status is Status.FAILED
    assert found.remedy.endswith("checkout -- prompts")


# Room


class Usage(NamedTuple):
    total: int
    used: int
    free: int


@pytest.mark.parametrize("name", ["temporary files", "checkout"])
def test_little_room_is_a_warning(make_host, monkeypatch, name):
    monkeypatch.setattr("shutil.disk_usage", lambda _path: Usage(GIB, GIB // 2, GIB // 2))
    assert finding(name, make_host()).status is Status.WARNING


def test_temporary_folder_that_takes_no_file_fails(make_host, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", "/proc/nowhere")
    found = finding("temporary files", make_host())
    assert found.status is Status.FAILED
    assert found.remedy.startswith("TMPDIR=")


def test_lock_that_is_held_shows_its_holder(make_host, tmp_path):
    (tmp_path / "cpu.lock").touch()
    (tmp_path / "GPU-1.lock").touch()
    with (tmp_path / "cpu.lock").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        host = dataclasses.replace(make_host(locks=tmp_path), root=Path("/"))
        found = finding("locks", host)
    assert found.status is Status.OK
    assert f"cpu held by process {os.getpid()}" in found.seen
    assert "GPU-1" not in found.seen
    assert "nobody" in finding("locks", host).seen


def test_lock_of_another_process_namespace(make_host, tmp_path):
    lock = tmp_path / "cpu.lock"
    lock.touch()
    line = f"1: FLOCK  ADVISORY  WRITE 0 fe:00:{lock.stat().st_ino} 0 EOF\n"
    found = finding("locks", make_host({"proc/locks": line}, locks=tmp_path))
    assert "cpu held by a process out of sight" in found.seen


def test_lock_folder_that_is_a_link_fails(make_host, tmp_path):
    (tmp_path / "link").symlink_to(tmp_path)
    assert finding("locks", make_host(locks=tmp_path / "link")).status is Status.FAILED


@pytest.mark.parametrize(("parent", "status"), [(".", Status.OK), ("missing", Status.FAILED)])
def test_lock_folder_that_is_not_there_yet(make_host, tmp_path, parent, status):
    assert finding("locks", make_host(locks=tmp_path / parent / "locks")).status is status


MOUNTED = "38 31 0:35 / /sys/fs/cgroup rw,relatime - cgroup2 cgroup2 rw\n"
OF_V1 = "32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime shared:9 - cgroup cgroup rw,cpu\n"


@pytest.mark.parametrize(
    ("files", "seen"),
    [
        ({}, "none mounted"),
        ({"proc/self/mountinfo": OF_V1, "proc/self/cgroup": "1:cpu:/\n"}, "v1; no v2 group"),
        (
            {
                "proc/self/mountinfo": OF_V1 + MOUNTED,
                "proc/self/cgroup": "1:cpu:/\n0::/mine\n",
                "sys/fs/cgroup/mine/cgroup.procs": "",
            },
            "v1 and v2; child groups can be made in",
        ),
        (
            {
                "proc/self/mountinfo": MOUNTED,
                "proc/self/cgroup": "0::/gone\n",
            },
            "v2; no v2 group",
        ),
    ],
)
def test_cgroups_are_information(make_host, files, seen):
    host = make_host(files)
    found = finding("cgroups", host)
    assert found.status is Status.OK
    assert found.seen.startswith(seen)
    assert not list(host.root.rglob("speedtrap-doctor-*"))


def test_memory_limit_of_a_cgroup_counts(make_host):
    host = make_host(
        {
            "proc/self/mountinfo": MOUNTED,
            "proc/self/cgroup": "0::/\n",
            "sys/fs/cgroup/memory.max": f"{GIB}\n",
        }
    )
    found = finding("memory", host)
    assert found.status is Status.WARNING
    assert "the limit of this cgroup is 1.0 GiB" in found.seen


def test_one_core_is_a_warning(make_host, monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _pid: {3})
    assert finding("cores", make_host()).status is Status.WARNING


@pytest.mark.parametrize(
    ("backend", "status"),
    [(IsolationPolicy.BUBBLEWRAP, Status.OK), (IsolationPolicy.NONE, Status.WARNING)],
)
def test_small_shared_memory_matters_without_a_sandbox_of_its_own(
    make_host, monkeypatch, backend, status
):
    monkeypatch.setattr("shutil.disk_usage", lambda _path: Usage(64 * 1024**2, 0, 64 * 1024**2))
    isolation = Isolation(backend=backend, network=True, host_files=True)
    host = make_host(isolate=lambda _policy: (isolation, None))
    assert finding("shared memory", host).status is status


def test_interrupted_doctor_leaves_nothing(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-m", "runner", *FLAGS],
        cwd=paths.ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    for line in process.stderr:
        if "running one kernel" in line:
            break
    time.sleep(0.5)
    process.terminate()
    process.communicate()
    assert process.returncode == 130
    assert list(tmp_path.iterdir()) == []
    assert f" {process.pid} " not in Path("/proc/locks").read_text()
