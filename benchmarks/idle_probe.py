"""What NVML says of a card just after its last kernel, and while a stopped process's queue drains.

    python benchmarks/idle_probe.py [LOG]

Needs torch, nvidia-ml-py and a free NVIDIA GPU. Four cases: a child runs 0.3 s of kernels and
synchronises, or queues 3 s of them and is stopped with SIGSTOP; kernels fill the card (`wide`) or
keep one of its multiprocessors busy (`narrow`). In each, every call that might tell is made every
5 ms, and its answers are printed as `milliseconds from the end of the turn: value`, changes only;
LOG gets all of them. Then `runner.gpu.Idle` is asked: what it says, how long it took. Ends with
what a call costs.
"""

from __future__ import annotations

import contextlib
import itertools
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from signal import SIGCONT, SIGSTOP
from typing import TYPE_CHECKING, Any

import pynvml

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parent.parent
POLL_S = 0.005
BURST_S = 0.3
QUEUE_S = 3.0
UNIT_S = 0.01
AFTER_BURST_S = 1.5
AFTER_QUEUE_S = 4.5
KEPT_S = 0.5
SHOWN_FROM_MS = -400
LINE_CHARS = 600
REPEATS = 5

CHILD = """\
import sys, time, torch
kernels, burst_s, queue_s, unit_s = sys.argv[1], *map(float, sys.argv[2:])
side = torch.randn(16384, 16384, device="cuda", dtype=torch.bfloat16)
out = torch.empty_like(side)
cycles = 10_000_000
def unit():
    torch.mm(side, side, out=out) if kernels == "wide" else torch.cuda._sleep(cycles)
def timed(count):
    torch.cuda.synchronize()
    start_s = time.perf_counter()
    for _ in range(count):
        unit()
    torch.cuda.synchronize()
    return (time.perf_counter() - start_s) / count
timed(5)
each_s = timed(20)
for line in sys.stdin:
    count = round({"burst": burst_s, "queue": queue_s}[line.strip()] / each_s)
    for _ in range(count):
        unit()
    if line.strip() == "burst":
        torch.cuda.synchronize()
    print(count * each_s, flush=True)
"""


@dataclass
class Probe:
    """Makes the calls and keeps what they said."""

    device: Any
    costs_s: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    broken: dict[str, str] = field(default_factory=dict)
    gpm: list[tuple[float, Any]] = field(default_factory=list)
    last_us: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def calls(self) -> dict[str, Callable[[], object]]:
        """Every call by its name."""
        return {
            "rates": lambda: pynvml.nvmlDeviceGetUtilizationRates(self.device).gpu,
            "samples": self.samples,
            "by process": self.by_process,
            "power W": lambda: pynvml.nvmlDeviceGetPowerUsage(self.device) // 50_000 * 50,
            "gpm 20 ms": lambda: self.gpm_share(0.02),
            "gpm 100 ms": lambda: self.gpm_share(0.1),
        }

    def look(self) -> dict[str, object]:
        """Make every call once; one that fails is noted and not made again."""
        said: dict[str, object] = {}
        self.remember_gpm()
        for name, call in self.calls().items():
            if name in self.broken:
                continue
            start_s = time.perf_counter()
            try:
                said[name] = call()
            except pynvml.NVMLError_NotFound:
                said[name] = ()
            except (pynvml.NVMLError, AttributeError) as error:
                self.broken[name] = str(error)
            self.costs_s[name].append(time.perf_counter() - start_s)
        return said

    def samples(self) -> tuple[tuple[int, int], ...]:
        """New utilisation samples: (moment in us, percent)."""
        kind = pynvml.NVML_GPU_UTILIZATION_SAMPLES
        _, found = pynvml.nvmlDeviceGetSamples(self.device, kind, self.last_us["samples"])
        new = tuple(sorted((int(one.timeStamp), int(one.sampleValue.uiVal)) for one in found))
        self.last_us["samples"] = max([self.last_us["samples"], *(stamp for stamp, _ in new)])
        return new

    def by_process(self) -> tuple[tuple[int, int], ...]:
        """New samples of single processes: (moment in us, percent of the multiprocessors)."""
        last_us = self.last_us["by process"]
        found = pynvml.nvmlDeviceGetProcessUtilization(self.device, last_us)
        new = tuple(sorted((int(one.timeStamp), int(one.smUtil)) for one in found))
        self.last_us["by process"] = max([last_us, *(stamp for stamp, _ in new)])
        return new

    def remember_gpm(self) -> None:
        """Take one sample of the performance counters."""
        if "gpm 20 ms" in self.broken:
            return
        try:
            sample = pynvml.nvmlGpmSampleAlloc()
            pynvml.nvmlGpmSampleGet(self.device, sample)
        except (pynvml.NVMLError, AttributeError) as error:
            self.broken |= {"gpm 20 ms": str(error), "gpm 100 ms": str(error)}
            return
        self.gpm.append((time.monotonic(), sample))
        while self.gpm[-1][0] - self.gpm[0][0] > KEPT_S:
            pynvml.nvmlGpmSampleFree(self.gpm.pop(0)[1])

    def gpm_share(self, window_s: float) -> str:
        """Busy share of graphics/compute and of the multiprocessors over the last `window_s`."""
        now_s, newest = self.gpm[-1]
        old = [sample for moment_s, sample in self.gpm if now_s - moment_s >= window_s]
        if not old:
            return "-"
        ask = pynvml.c_nvmlGpmMetricsGet_t()
        ask.version = pynvml.NVML_GPM_METRICS_GET_VERSION
        ask.numMetrics = 2
        ask.sample1, ask.sample2 = old[-1], newest
        ask.metrics[0].metricId = pynvml.NVML_GPM_METRIC_GRAPHICS_UTIL
        ask.metrics[1].metricId = pynvml.NVML_GPM_METRIC_SM_UTIL
        pynvml.nvmlGpmMetricsGet(ask)
        return f"{ask.metrics[0].value:.0f}/{ask.metrics[1].value:.0f}"


@contextlib.contextmanager
def child(kernels: str) -> Iterator[subprocess.Popen[str]]:
    """Start a process that runs kernels when it is told to."""
    figures = map(str, (BURST_S, QUEUE_S, UNIT_S))
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD, kernels, *figures],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.send_signal(SIGCONT)
        process.kill()
        process.wait()


def turn(process: subprocess.Popen[str], what: str) -> float:
    """Have a child do its work, and stop it; returns the seconds of work."""
    assert process.stdin is not None
    assert process.stdout is not None
    print(what, file=process.stdin, flush=True)
    work_s = float(process.stdout.readline())
    process.send_signal(SIGSTOP)
    return work_s


def timeline(probe: Probe, process: subprocess.Popen[str], what: str, log: list[str]) -> None:
    """Print what each call says from the end of the turn on."""
    probe.look()
    start_us = time.time_ns() // 1000
    work_s = turn(process, what)
    end_us = time.time_ns() // 1000
    print(f"-- {what}: {work_s:.3f} s of work, turn took {(end_us - start_us) / 1e6:.3f} s")
    heard: dict[str, list[tuple[float, object]]] = defaultdict(list)
    wait_s = AFTER_BURST_S if what == "burst" else AFTER_QUEUE_S
    while (now_us := time.time_ns() // 1000) < end_us + wait_s * 1e6:
        for name, said in probe.look().items():
            offset_ms = (now_us - end_us) / 1000
            log.append(f"{what} {offset_ms:.1f} {name} {said}")
            if isinstance(said, tuple):
                heard[name] += [((stamp - end_us) / 1000, value) for stamp, value in said]
            else:
                heard[name].append((offset_ms, said))
        time.sleep(POLL_S)
    process.send_signal(SIGCONT)
    for name, entries in heard.items():
        recent = [one for one in entries if one[0] > SHOWN_FROM_MS]
        print(f"   {name}{spacing(recent)}: {', '.join(changes(recent))}"[:LINE_CHARS])


def spacing(entries: list[tuple[float, object]]) -> str:
    """How far apart answers are, in milliseconds."""
    gaps = [later - sooner for (sooner, _), (later, _) in itertools.pairwise(entries)]
    return f" (every {statistics.median(gaps):.1f} ms)" if gaps else ""


def changes(entries: list[tuple[float, object]]) -> list[str]:
    """The first of each stretch of equal answers."""
    stretches = itertools.groupby(entries, key=lambda entry: entry[1])
    return [f"{next(stretch)[0]:.0f}: {value}" for value, stretch in stretches]


def ask_idle(uuid: str, process: subprocess.Popen[str], what: str) -> None:
    """Print what `runner.gpu.Idle` says after a turn, and how long it took."""
    try:
        from runner import gpu
    except ImportError as error:
        print(f"   Idle was not asked: {error}")
        return
    idle = gpu.Idle(gpu.PyNvml(), uuid)
    for _ in range(REPEATS if what == "burst" else 2):
        time.sleep(1)
        work_s = turn(process, what)
        start_s = time.monotonic()
        busy_s = idle.wait_until_idle(10.0)
        taken_s = time.monotonic() - start_s
        process.send_signal(SIGCONT)
        blind = f" blind: {idle.blind_because}" if idle.blind_because else ""
        print(f"   Idle after {work_s:.2f} s: busy {busy_s:.3f} s, took {taken_s:.3f} s{blind}")


def main() -> None:
    """Run all cases on the first card."""
    sys.path.insert(0, str(ROOT))
    pynvml.nvmlInit()
    device = pynvml.nvmlDeviceGetHandleByIndex(0)
    uuid = pynvml.nvmlDeviceGetUUID(device)
    print(pynvml.nvmlDeviceGetName(device), "driver", pynvml.nvmlSystemGetDriverVersion())
    probe = Probe(device)
    log: list[str] = []
    for kernels in ("wide", "narrow"):
        print(f"== {kernels} kernels")
        with child(kernels) as process:
            turn(process, "burst")
            process.send_signal(SIGCONT)
            time.sleep(1)
            for what in ("burst", "queue"):
                timeline(probe, process, what, log)
                ask_idle(uuid, process, what)
    for name, costs_s in probe.costs_s.items():
        print(f"a call of {name}: median {statistics.median(costs_s) * 1e6:.0f} us")
    for name, why in probe.broken.items():
        print(f"{name} does not work here: {why}")
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text("\n".join(log) + "\n")


if __name__ == "__main__":
    main()
