"""The real command on a real GPU: `pytest -m gpu`. Without a GPU, or on a busy one, it fails."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from e2e import EXAMPLES, PREAMBLE, ROOT

from runner import gpu, sandbox, worker
from runner.records import IsolationPolicy, Role
from runner.wire import Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from runner.gpu import Card

pytestmark = pytest.mark.gpu

BASELINE = EXAMPLES / "base.py"
GIB = 1024**3
FREE_WITHIN_S = 20.0
"""A killed process's memory is gone within a second or two; utilisation is an average."""

BROKEN = """\
import torch
from diffusers import StableDiffusionPipeline


def load_pipe():
    {statement}
    return StableDiffusionPipeline.from_pretrained("speedtrap/tiny-sd").to("cuda")


def inference(pipe, prompts):
    return pipe(prompts, num_inference_steps=25).images
"""
TOO_MUCH = 'kept = [torch.empty(2**30, dtype=torch.uint8, device="cuda") for _ in range(2**20)]'
FAKE = (
    'raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a'
    ' total capacity of 139.80 GiB of which 1.00 GiB is free.")'
)
HOLD_4_GIB_OF_EACH = """\
import sys, torch
held = [
    torch.empty(4 * 1024**3, dtype=torch.uint8, device=f"cuda:{n}")
    for n in range(torch.cuda.device_count())
]
print("holding", flush=True)
sys.stdin.read()
"""
LOOK_AROUND = """\
import json, os, re, torch
print(json.dumps({
    "nodes": sorted(name for name in os.listdir("/dev") if re.fullmatch("nvidia[0-9]+", name)),
    "devices": torch.cuda.device_count(),
    "sum": torch.ones(1000, device="cuda").sum().item(),
    "uid": os.getuid(),
}))
"""


@dataclass(frozen=True)
class Run:
    """One finished command."""

    status: int
    stdout: str
    stderr: str

    @property
    def result(self) -> dict[str, Any]:
        assert self.status in {0, 1}, self.stderr
        return json.loads(self.stdout)


def look() -> list[Card]:
    """All cards as they are now; a host without one fails whatever asked."""
    cards = gpu.PyNvml().cards()
    assert cards, "no GPU here: NVML shows none, and this lane was asked for"
    return cards


def in_use() -> dict[str, str]:
    """Why each card that is not free is not, waiting `FREE_WITHIN_S` for it to become so."""
    deadline_s = time.monotonic() + FREE_WITHIN_S
    while True:
        why = {card.uuid: reason for card in look() if (reason := card.busy_because())}
        if not why or time.monotonic() > deadline_s:
            return why
        time.sleep(0.2)


@pytest.fixture(autouse=True)
def nothing_is_left_on_any_card() -> Iterator[None]:
    assert in_use() == {}, "this lane needs every card of the host free"
    before = {card.uuid: card.used_bytes for card in look()}
    yield
    assert in_use() == {}
    assert {card.uuid for card in look()} == set(before)
    for card in look():
        assert card.used_bytes <= before[card.uuid] + gpu.FOREIGN_BYTES


def start(candidate: Path, *more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [
            *(str(ROOT / "bin" / "score"), str(candidate), "--baseline", str(BASELINE)),
            *("--device", "cuda", "--wait", "60", "--json", *more),
        ],
        env={**os.environ, "SPEEDTRAP_PYTHON": sys.executable},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def score(candidate: Path, *more: str) -> Run:
    process = start(candidate, *more)
    stdout, stderr = process.communicate()
    return Run(process.returncode, stdout, stderr)


@pytest.fixture
def broken(tmp_path: Path) -> Callable[[str], Path]:
    """Write a candidate that executes `statement` when it loads."""

    def write(statement: str) -> Path:
        path = tmp_path / "candidate.py"
        path.write_text(BROKEN.format(statement=statement))
        return path

    return write


@pytest.fixture
def holder() -> Iterator[subprocess.Popen[str]]:
    """Start a process of somebody else's that holds 4 GiB of every card."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD_4_GIB_OF_EACH],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "holding\n"
        yield process
        process.kill()


def assert_measured(run: Run) -> None:
    result = run.result
    assert result["loss"] is not None, result["reason"]
    assert result["speedup"] > 0
    assert 0 <= result["loss"] <= 1
    assert result["device"]["kind"] == "cuda"
    assert result["device"]["uuid"] in {card.uuid for card in look()}
    assert result["isolation"]["backend"] == "bubblewrap"
    assert result["isolation"]["network"] is False
    assert len(result["circumstances"]["attempts"]) == 1
    assert not any("another process" in one for one in result["circumstances"]["warnings"])


def assert_failed(run: Run, verdict: str, orders: list[str]) -> None:
    result = run.result
    assert run.status == 1
    assert result["verdict"] == verdict
    assert result["loss"] is None
    assert result["speedup"] is None
    assert result["failure"]["phase"] == "load"
    assert result["failure"]["line"] == 6
    assert "out of memory" in result["reason"]
    attempts = result["circumstances"]["attempts"]
    assert [(one["verdict"], one["order"]) for one in attempts] == [(verdict, o) for o in orders]


def test_example_is_measured():
    assert_measured(score(EXAMPLES / "deepcache.py"))


@pytest.mark.parametrize("index", range(len(gpu.PyNvml().cards()) or 1))
def test_sandbox_shows_exactly_one_card(index, tmp_path):
    card = look()[index]
    isolation, bwrap = sandbox.find_isolation(IsolationPolicy.BUBBLEWRAP)
    box = sandbox.Box(isolation, bwrap, (), (), card.minor, card.uuid, tmp_path / "box")
    with worker.start(Role.CANDIDATE, box.prepare(LOOK_AROUND), 64 * GIB) as side:
        ending = side.finish(120)
    assert ending.returncode == 0, ending.stderr
    assert json.loads(ending.stdout) == {
        "nodes": [f"nvidia{card.minor}"],
        "devices": 1,
        "sum": 1000.0,
        "uid": sandbox.INSIDE_UID,
    }


def test_busy_card_is_not_taken_and_taken_again_once_free(holder):
    run = score(EXAMPLES / "deepcache.py", "--wait", "3")
    assert run.status == 2
    assert run.stdout == ""
    assert f"is used by process {holder.pid}" in run.stderr
    assert "--wait" in run.stderr
    holder.kill()
    holder.wait()
    assert_measured(score(EXAMPLES / "deepcache.py"))


def test_real_out_of_memory_is_the_verdict_once_the_card_was_its_own(broken):
    assert_failed(score(broken(TOO_MUCH)), "oom", ["alternate", "whole"])


def test_the_words_out_of_memory_buy_neither_the_verdict_nor_a_second_attempt(broken):
    assert_failed(score(broken(FAKE)), "crashed", ["alternate"])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_an_ended_run_leaves_nothing_on_the_card(number):
    process = start(EXAMPLES / "deepcache.py")
    deadline_s = time.monotonic() + 120
    while process.poll() is None and not any(len(card.occupants) > 1 for card in look()):
        assert time.monotonic() < deadline_s
        time.sleep(0.1)
    process.send_signal(number)
    _, stderr = process.communicate()
    assert process.returncode == (130 if number == signal.SIGTERM else -number), stderr


LEAVES_WORK = """\
import sys, time, torch
torch.cuda._sleep(1000)
torch.cuda.synchronize()
channel.send(wire.Kind.HELLO)
for kind in (wire.Kind.GO, wire.Kind.END):
    channel.receive({kind})
    for _ in range(100):
        torch.cuda._sleep(20_000_000)
    if kind is wire.Kind.GO:
        torch.cuda.synchronize()
    channel.send(wire.Kind.READY)
time.sleep(600)
"""


def test_work_that_a_frozen_side_left_is_seen_and_finished_work_is_not(tmp_path):
    nvml = gpu.PyNvml()
    card = look()[0]
    isolation, bwrap = sandbox.find_isolation(IsolationPolicy.BUBBLEWRAP)
    box = sandbox.Box(isolation, bwrap, (), (), card.minor, card.uuid, tmp_path / "box")
    idle = gpu.Idle(nvml, card.uuid)
    with worker.start(Role.CANDIDATE, box.prepare(PREAMBLE + LEAVES_WORK), 64 * GIB) as side:
        side.receive({Kind.HELLO}, within_s=120)
        seen_s = {}
        for kind in (Kind.GO, Kind.END):
            side.send(kind, within_s=60)
            side.receive({Kind.READY}, within_s=60)
            side.freeze()
            seen_s[kind] = idle.wait_until_idle(10)
            side.thaw()
    assert idle.blind_because == ""
    assert seen_s[Kind.GO] == 0
    assert seen_s[Kind.END] > 0.5
