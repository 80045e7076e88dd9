"""What it costs to look at card and host, and whether it disturbs what is timed.

    python benchmarks/weather_probe.py [PAIRS]

Needs torch; looks at the first NVIDIA GPU, or at the host alone. A child process does the same work
over and over on request, and is timed from outside as a worker is. Every other time `Station` looks
meanwhile, in ABBA order. Prints what one look of each kind costs, the share of a core that the
station takes, and the ratio of the times with and without it: median, and a 95 % interval by
bootstrap. Ends with the weather of the last batch.
"""

from __future__ import annotations

import random
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from runner import gpu, weather  # noqa: E402  (the checkout, not an installed package)
from runner.records import Device  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable

PAIRS = 40
BATCH_S = 1.0
LOOKS = 50
RESAMPLES = 2000

CHILD = """\
import sys, time, torch
has_cuda, batch_s = torch.cuda.is_available(), float(sys.argv[1])
torch.set_num_threads(1)
side = torch.ones(*((8192,) * 2 if has_cuda else (256,) * 2), device="cuda" if has_cuda else "cpu")
def run(count):
    for _ in range(count):
        side @ side
    if has_cuda:
        torch.cuda.synchronize()
def timed(count):
    start_s = time.perf_counter()
    run(count)
    return time.perf_counter() - start_s
timed(20)
count = max(1, round(batch_s / (timed(50) / 50)))
for line in sys.stdin:
    run(count)
    print("done", flush=True)
"""


def main() -> None:
    """Measure and print."""
    pairs = int(sys.argv[1]) if len(sys.argv) > 1 else PAIRS
    nvml = gpu.PyNvml()
    cards = nvml.cards()
    device = Device(kind="cpu", name=gpu.cpu_name())
    if cards:
        device = Device(kind="cuda", name=cards[0].name, uuid=cards[0].uuid)
    print(device.name)
    print("before:", "; ".join(weather.before(nvml, device)) or "quiet")
    command = [sys.executable, "-c", CHILD, str(BATCH_S)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as child:
        _batch_s(child)
        _print_costs(nvml, device)
        _print_ratio(child, nvml, device, pairs)
        child.communicate()


def _batch_s(child: subprocess.Popen[str]) -> float:
    assert child.stdin is not None
    assert child.stdout is not None
    start_s = time.monotonic()
    child.stdin.write("\n")
    child.stdout.readline()
    return time.monotonic() - start_s


def _print_costs(nvml: gpu.Nvml, device: Device) -> None:
    station = weather.Station(nvml, device)
    _print_cost("a look at everything", station.look)
    if device.uuid is not None:
        uuid = device.uuid
        _print_cost("  of it, the card", lambda: nvml.conditions(uuid))
        _print_cost("  of it, who is on it", lambda: nvml.occupants(uuid))
        _print_cost("  of it, how busy it was", lambda: nvml.windows(uuid, 0))


def _print_cost(what: str, call: Callable[[], object]) -> None:
    call()
    costs_s, walls_s = [], []
    for _ in range(LOOKS):
        cpu_s, wall_s = time.thread_time(), time.perf_counter()
        call()
        costs_s.append(time.thread_time() - cpu_s)
        walls_s.append(time.perf_counter() - wall_s)
    cost_us, wall_us = statistics.median(costs_s) * 1e6, statistics.median(walls_s) * 1e6
    print(f"{what}: {cost_us:.0f} us of processor time, {wall_us:.0f} us, median of {LOOKS}")


def _print_ratio(child: subprocess.Popen[str], nvml: gpu.Nvml, device: Device, pairs: int) -> None:
    ratios = []
    cost_s = watched_s = 0.0
    told = None
    for number in range(pairs):
        times_s = {}
        for looking in (True, False) if number % 2 else (False, True):
            if not looking:
                times_s[looking] = _batch_s(child)
                continue
            with weather.Station(nvml, device) as station:
                entered_cost_s = station.cost_s
                start_s = time.monotonic()
                times_s[looking] = _batch_s(child)
                cost_s += station.cost_s - entered_cost_s
                watched_s += times_s[looking]
                told = station.between(start_s, start_s + times_s[looking])
        ratios.append(times_s[True] / times_s[False])
    low, high = _interval(ratios)
    print(f"the station takes {cost_s / watched_s:.3%} of a core")
    print(
        f"time with / without it: {statistics.median(ratios):.5f} [{low:.5f}, {high:.5f}],"
        f" {pairs} pairs of batches of {times_s[False]:.2f} s"
    )
    print(told.model_dump_json(indent=1) if told else "")


def _interval(ratios: list[float]) -> tuple[float, float]:
    generator = random.Random(1)  # noqa: S311  (a bootstrap, not a secret)
    medians = sorted(
        statistics.median(generator.choices(ratios, k=len(ratios))) for _ in range(RESAMPLES)
    )
    return medians[int(0.025 * RESAMPLES)], medians[int(0.975 * RESAMPLES)]


if __name__ == "__main__":
    main()
