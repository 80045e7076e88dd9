"""The weather of a batch: what card and host were like meanwhile, and whether to believe its time.

Theory of operation
-------------------
`Station` looks at the card (NVML) and at the host (/proc) from the controller, outside of whatever
is measured, and never asks a worker. A thread of its own looks at the card every `PERIOD_S` and
around (host, who is on the card) every `HOST_PERIOD_S`. It measures what its looks cost in
processor time, and looks less often where they cost more than `MAX_SHARE` of a core. In addition
the caller has it look just before a clock starts and just after a worker was frozen, which is
outside the clock: what is a difference of two counters (energy, processor time) is then that of the
batch.

*Foreign load* is the time for which the cores that both sides are bound to were busy, less the
processor time of our own processes: the controller and all below it, frozen or not. What our
processes spent is taken from those that live and, for those that ended in between, from what they
left to the parent that waited for them. Interrupts are left out: nobody can tell whose they are.
The kernel counts in ticks of 10 ms, so what is seen over a short batch is coarse; `marks` allows
for that.

*What a candidate can bring about.* It runs below us, so its load is ours, with one exception: a
child that nobody waits for (SIGCHLD ignored) and that starts and ends between two looks leaves its
time to nobody, and shows as foreign. It can heat its card, too. Whoever repeats what is marked must
not let a candidate choose which of its batches count: see `doubt`. In the baseline's turn it is
frozen.

*What is not seen.* In a container, NVML may speak of the host's process ids; a process that is not
visible here is not called foreign (see `gpu.is_foreign`). A clock event that comes and goes between
two looks leaves no trace.
"""

from __future__ import annotations

import bisect
import contextlib
import itertools
import math
import os
import statistics
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol, Self, TypeVar

from runner import gpu, processes
from runner.records import Cost, SpeedtrapError, Weather

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from runner.gpu import Conditions, Nvml, Occupant
    from runner.processes import Process
    from runner.records import Device

PERIOD_S: Final = 0.2
"""Between looks at the card: a throttle lasts longer, and the driver's counters are no finer."""
HOST_PERIOD_S: Final = 1.0
MAX_SHARE: Final = 0.002
"""Of a core, for each of the two kinds of looks."""
LONGEST_PERIOD_S: Final = 10.0
KEPT_LOOKS: Final = 50_000
"""Of each kind; more than two hours."""
BEFORE_S: Final = 0.25
"""How long `before` looks."""
RESOLUTION_S: Final = 0.03
"""By so much the difference of two readings of the kernel's processor times may be off."""
FOREIGN_CORES: Final = 0.15
"""What an idle host does on its own; more slows a worker that uses every core by some percent."""
FOREIGN_SHARE: Final = 0.03
"""The same as a share of the cores, for a host that has many."""
STEAL_SHARE: Final = 0.02
GPU_RUN_CORES: Final = 2
"""One launches kernels, one is for the worker's other threads."""
COVERED_SHARE: Final = 0.5
"""Of a batch, that the driver must have told how busy the card was."""

SLOWDOWNS: Final = frozenset(
    {
        "hw_slowdown",
        "hw_thermal_slowdown",
        "hw_power_brake_slowdown",
        "sw_thermal_slowdown",
        "sync_boost",
    }
)
"""Clock events that mark a batch: what they take depends on what went before (heat), on the power
supply or on another card. Not so `sw_power_cap`, `board_limit` and `reliability`: at full load a
card runs at its limit of power or voltage all the time, that is how fast it is, and who needs less
power is faster by right. Settings by which an administrator holds clocks are the same for both
sides."""

_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Limits:
    """Up to where weather is fair: cores that others may keep busy, and that may be stolen."""

    cores: int
    foreign_cores: float
    steal_cores: float

    @classmethod
    def of(cls, device: Device, cores: int) -> Self:
        """Limits for a run on `device` whose workers are bound to `cores` cores.

        On a CPU run the worker uses every core, and any load is in its way; beside a GPU it needs a
        few, and who uses the others is welcome.
        """
        tolerated = max(FOREIGN_CORES, FOREIGN_SHARE * cores)
        spare = cores if device.kind == "cpu" else GPU_RUN_CORES
        return cls(cores, max(tolerated, cores - spare), max(FOREIGN_CORES, STEAL_SHARE * cores))


@dataclass(frozen=True, slots=True)
class CardLook:
    """The card at one moment, in seconds on the monotonic clock."""

    at_s: float
    seen: Conditions


@dataclass(frozen=True, slots=True)
class CrowdLook:
    """Who was on the card at one moment, and which of them are not ours."""

    at_s: float
    occupants: tuple[Occupant, ...]
    foreign_pids: frozenset[int]


@dataclass(frozen=True, slots=True)
class HostLook:
    """The host at one moment: counters of processor seconds that only differences mean much of."""

    at_s: float
    busy_s: float
    steal_s: float
    ours_s: float
    load_1min: float


@dataclass(frozen=True, slots=True)
class BusyWindow:
    """How busy the card was from one moment to another, in seconds on the monotonic clock."""

    from_s: float
    to_s: float
    percent: float


class Dated(Protocol):
    """A look, at a moment on the monotonic clock."""

    @property
    def at_s(self) -> float:
        """When it was."""
        ...


L = TypeVar("L", bound=Dated)
N = TypeVar("N", int, float)


@dataclass(frozen=True, slots=True)
class Times:
    """Processor seconds of one process, and those of its children that it has waited for."""

    own_s: float
    reaped_s: float


@dataclass(slots=True)
class Tally:
    """Sums up what a changing set of processes has used since the first look at it."""

    total_s: float = 0.0
    _known: dict[Process, Times] | None = None

    def add(self, now: Mapping[Process, Times]) -> float:
        """Take one more look; returns the total.

        A process that is new has used all its time since the look before. One that is gone left its
        time to the process that waited for it, which so has more of it than is news.
        """
        if self._known is not None:
            nothing = Times(0.0, 0.0)
            before = {process: self._known.get(process, nothing) for process in now}
            own_s = math.fsum(now[one].own_s - before[one].own_s for one in now)
            reaped_s = math.fsum(now[one].reaped_s - before[one].reaped_s for one in now)
            gone = [times for process, times in self._known.items() if process not in now]
            old_s = math.fsum(times.own_s + times.reaped_s for times in gone)
            self.total_s += max(0.0, own_s) + max(0.0, reaped_s - old_s)
        self._known = dict(now)
        return self.total_s


def _all_below_us() -> Iterable[int]:
    return [one.process.pid for one in processes.family(processes.identify(os.getpid()))]


@dataclass(slots=True)
class Host:
    """The host as /proc shows it.

    `ours` names the processes whose load is not foreign, by pid; `cores` are those that are looked
    at, by default all that this process may use.
    """

    ours: Callable[[], Iterable[int]] = _all_below_us
    cores: frozenset[int] = field(default_factory=lambda: frozenset(os.sched_getaffinity(0)))
    proc: Path = Path("/proc")
    _tally: Tally = field(default_factory=Tally)

    def look(self, pids: Iterable[int]) -> HostLook | None:
        """Read the counters, those of `pids` as ours; None where the host does not show them."""
        at_s = time.monotonic()
        ticks = read_cores(processes.read_file(self.proc / "stat"), self.cores)
        found = (read_times(processes.read_file(self.proc / str(pid) / "stat")) for pid in pids)
        ours_s = self._tally.add(dict(one for one in found if one is not None))
        if ticks is None:
            return None
        busy_s, steal_s = ticks
        load = processes.read_file(self.proc / "loadavg").split()
        return HostLook(at_s, busy_s, steal_s, ours_s, float(load[0]) if load else 0.0)

    @classmethod
    def of(cls, device: Device) -> Self:
        """This host, and of its cores those that a run on `device` is bound to."""
        return cls(cores=frozenset(device.cores or os.sched_getaffinity(0)))


def read_cores(stat: bytes, cores: Collection[int]) -> tuple[float, float] | None:
    """Busy and stolen seconds of `cores` since boot, from the text of /proc/stat.

    Busy is user, nice and system time (proc_stat(5)); guests' is part of it. None where the text
    has no times, as in some sandboxed containers.
    """
    found = []
    for line in stat.splitlines():
        name, *ticks = line.split() or [b""]
        if not name.startswith(b"cpu"):
            break
        if name[3:].isdigit() and int(name[3:]) in cores:
            found.append([int(tick) for tick in ticks])
    if not any(map(any, found)):
        return None
    busy = sum(sum(ticks[:3]) for ticks in found)
    steal = sum(sum(ticks[7:8]) for ticks in found)
    return busy / _TICKS_PER_S, steal / _TICKS_PER_S


def read_times(stat: bytes) -> tuple[Process, Times] | None:
    """Who it is, and its processor times, from the text of /proc/PID/stat; None for no process."""
    found = processes.parse_stat(stat)
    if found is None:
        return None
    process, _, fields = found
    user, system, reaped_user, reaped_system = (int(one) / _TICKS_PER_S for one in fields[11:15])
    return process, Times(user + system, reaped_user + reaped_system)


class Station:
    """Looks at card and host from time to time. Use as a context manager; safe for threads.

    `blind_because` says why the card is no longer looked at, if NVML failed; `cost_s` is the
    processor time that all looks took.
    """

    def __init__(self, nvml: Nvml, device: Device, host: Host | None = None) -> None:
        """Look at `device`, on a CPU run at the host alone; `host` is this one's cores for it."""
        self._nvml = nvml
        self._uuid = device.uuid if device.kind == "cuda" else None
        self._host = host or Host.of(device)
        self._lock = threading.Lock()
        self._cards: deque[CardLook] = deque(maxlen=KEPT_LOOKS)
        self._crowds: deque[CrowdLook] = deque(maxlen=KEPT_LOOKS)
        self._hosts: deque[HostLook] = deque(maxlen=KEPT_LOOKS)
        self._windows: deque[BusyWindow] = deque(maxlen=KEPT_LOOKS)
        self._ours: set[int] = set()  # a dying worker loses its parents before its pid
        self._known_us = time.time_ns() // 1000
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.blind_because = ""
        self.cost_s = 0.0

    def __enter__(self) -> Self:
        """Look once, and start the thread."""
        self.look()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop looking."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def look(self) -> None:
        """Look at everything now: just before a clock starts, and just after a worker is frozen.

        Takes about 10 us for each thread that is ours, and as long as NVML needs to answer.
        """
        with self._lock:
            self._look_at_card()
            self._look_around()

    def between(self, start_s: float, end_s: float, worker: Collection[int] = ()) -> Weather:
        """The weather from `start_s` to `end_s` on the monotonic clock, both while it looked.

        `worker` are the pids of the side that was measured, for its memory. Looks once more if it
        has not since `end_s`.
        """
        with self._lock:
            if not self._has_looked_since(end_s):
                self._look_at_card()
                self._look_around()
            with self._counted():
                self._look_at_windows()
            cards, crowds, hosts = list(self._cards), list(self._crowds), list(self._hosts)
            windows = list(self._windows)
        span = Span(start_s, end_s)
        seen = [look.seen for look in span.telling(cards)]
        energy_j = _energy_j(span, cards)
        power_w = _known(one.power_w for one in seen)
        clocks_mhz = _known(one.sm_clock_mhz for one in seen)
        foreign_cores, steal_cores = _load(span, hosts)
        free_cores = len(self._host.cores) - (foreign_cores or 0.0) - (steal_cores or 0.0)
        return Weather(
            wall_s=span.wall_s,
            looks=len(seen),
            sm_clock_mhz_mean=_mean(clocks_mhz),
            sm_clock_mhz_min=min(clocks_mhz, default=None),
            sm_clock_mhz_limit=max(_known(one.max_sm_clock_mhz for one in seen), default=None),
            memory_clock_mhz_min=min(_known(one.memory_clock_mhz for one in seen), default=None),
            clock_events=_clock_events(seen),
            temperature_c_max=max(_known(one.temperature_c for one in seen), default=None),
            power_w_mean=_mean(power_w) if energy_j is None else energy_j / span.wall_s,
            energy_j=energy_j,
            utilisation_percent=_busy_percent(span, windows),
            used_bytes_max=max(_known(one.used_bytes for one in seen), default=None),
            worker_bytes_max=_worker_bytes(span, crowds, worker),
            foreign_pids=_foreign_pids(span, crowds),
            foreign_cores=foreign_cores,
            free_cores=None if foreign_cores is None else max(0.0, free_cores),
            steal_cores=steal_cores,
            load_1min=max((look.load_1min for look in span.telling(hosts)), default=None),
        )

    def _has_looked_since(self, end_s: float) -> bool:
        last_s = self._hosts[-1].at_s if self._hosts else -math.inf
        if self._uuid is not None and not self.blind_because:
            last_s = min([last_s, *(looks[-1].at_s for looks in (self._cards, self._crowds))])
        return last_s >= end_s

    def _run(self) -> None:
        paces = [_Pace(self._look_at_card, PERIOD_S)] if self._uuid is not None else []
        paces.append(_Pace(self._look_around, HOST_PERIOD_S))
        while not self._stopping.wait(min(pace.wait_s() for pace in paces)):
            for pace in paces:
                if pace.wait_s() == 0:
                    with self._lock:
                        pace.go()

    def _look_at_card(self) -> None:
        with self._counted():
            if self._uuid is not None and not self.blind_because:
                at_s = time.monotonic()
                self._cards.append(CardLook(at_s, self._nvml.conditions(self._uuid)))

    def _look_around(self) -> None:
        with self._counted():
            pids = frozenset(self._host.ours())
            look = self._host.look(pids)
            if look is not None:
                self._hosts.append(look)
            if self._uuid is not None and not self.blind_because:
                at_s = time.monotonic()
                there = self._nvml.occupants(self._uuid)
                foreign = self._foreign({one.pid for one in there} - pids)
                self._crowds.append(CrowdLook(at_s, there, foreign))
                self._look_at_windows()

    def _foreign(self, pids: set[int]) -> frozenset[int]:
        foreign = frozenset(pid for pid in pids - self._ours if gpu.is_foreign(pid))
        self._ours |= pids - foreign
        return foreign

    def _look_at_windows(self) -> None:
        if self._uuid is None or self.blind_because:
            return
        offset_s = time.time() - time.monotonic()
        for one in self._nvml.windows(self._uuid, self._known_us):
            from_s, to_s = one.from_us / 1e6 - offset_s, one.to_us / 1e6 - offset_s
            self._windows.append(BusyWindow(from_s, to_s, one.busy_percent))
            self._known_us = one.to_us

    @contextlib.contextmanager
    def _counted(self) -> Iterator[None]:
        """Count the processor time of a look; where NVML fails, go on without the card."""
        before_s = time.thread_time()
        try:
            yield
        except SpeedtrapError as error:
            self.blind_because = str(error)
        finally:
            self.cost_s += time.thread_time() - before_s


class _Pace:
    """Calls `look` once in a while: every `period_s`, or less often where it costs too much."""

    def __init__(self, look: Callable[[], None], period_s: float) -> None:
        self._look = look
        self._period_s = period_s
        self._next_s = time.monotonic() + period_s

    def wait_s(self) -> float:
        return max(0.0, self._next_s - time.monotonic())

    def go(self) -> None:
        before_s = time.thread_time()
        self._look()
        fair_s = (time.thread_time() - before_s) / MAX_SHARE
        pause_s = min(max(self._period_s, fair_s), LONGEST_PERIOD_S)
        self._next_s = time.monotonic() + pause_s


@dataclass(frozen=True, slots=True)
class Span:
    """A time on the monotonic clock, and which looks tell of it."""

    start_s: float
    end_s: float

    @property
    def wall_s(self) -> float:
        """How long it was."""
        return self.end_s - self.start_s

    def telling(self, looks: Sequence[L]) -> Sequence[L]:
        """The looks within, and the first after it."""
        first = bisect.bisect_left(looks, self.start_s, key=_at_s)
        after = bisect.bisect_left(looks, self.end_s, key=_at_s)
        return looks[first : after + 1]

    def around(self, looks: Sequence[L]) -> Sequence[L]:
        """The looks within, the last before and the first after it; none if one is missing."""
        first = bisect.bisect_right(looks, self.start_s, key=_at_s) - 1
        after = bisect.bisect_left(looks, self.end_s, key=_at_s)
        return looks[first : after + 1] if 0 <= first < after < len(looks) else []


def _at_s(look: Dated) -> float:
    return look.at_s


def _energy_j(span: Span, looks: Sequence[CardLook]) -> float | None:
    """What the card's counter rose by, taken as even between two looks."""
    told = [(look.at_s, look.seen.energy_j) for look in span.around(looks)]
    known = [(at_s, energy_j) for at_s, energy_j in told if energy_j is not None]
    if not told or len(known) < len(told):
        return None
    risen_j = 0.0
    for (from_s, before_j), (to_s, after_j) in itertools.pairwise(known):
        within_s = min(to_s, span.end_s) - max(from_s, span.start_s)
        risen_j += (after_j - before_j) * within_s / (to_s - from_s)
    return risen_j if risen_j >= 0 else None  # the driver was loaded anew


def _clock_events(seen: Sequence[Conditions]) -> tuple[str, ...] | None:
    """All events; a card that is idle may call a change of its clocks a slowdown, which is none."""
    told = [one.clock_events for one in seen if one.clock_events is not None]
    if not told:
        return None
    real = [one - {"hw_slowdown"} if "gpu_idle" in one else one for one in told]
    return tuple(sorted(frozenset().union(*real) - {"gpu_idle"}))


def _foreign_pids(span: Span, looks: Sequence[CrowdLook]) -> tuple[int, ...] | None:
    around = span.around(looks)
    pids: frozenset[int] = frozenset().union(*(look.foreign_pids for look in around))
    return tuple(sorted(pids)) if around else None


def _worker_bytes(span: Span, looks: Sequence[CrowdLook], worker: Collection[int]) -> int | None:
    held = [
        sum(one.used_bytes for one in look.occupants if one.pid in worker)
        for look in span.telling(looks)
    ]
    return max(held, default=0) or None


def _load(span: Span, looks: Sequence[HostLook]) -> tuple[float | None, float | None]:
    """Foreign and stolen cores, on average between the looks around."""
    around = span.around(looks)
    if not around:
        return None, None
    before, after = around[0], around[-1]
    wall_s = after.at_s - before.at_s
    foreign_s = (after.busy_s - before.busy_s) - (after.ours_s - before.ours_s)
    steal_s = after.steal_s - before.steal_s
    return max(0.0, foreign_s / wall_s), max(0.0, steal_s / wall_s)


def _busy_percent(span: Span, windows: Sequence[BusyWindow]) -> float | None:
    """How busy the card was, where the driver has told of most of the time."""
    within_s = [
        max(0.0, min(one.to_s, span.end_s) - max(one.from_s, span.start_s)) for one in windows
    ]
    covered_s = math.fsum(within_s)
    if covered_s < COVERED_SHARE * span.wall_s:
        return None
    pairs = zip(windows, within_s, strict=True)
    return min(100.0, math.fsum(one.percent * one_s for one, one_s in pairs) / covered_s)


def _known(values: Iterable[N | None]) -> list[N]:
    return [value for value in values if value is not None]


def _mean(values: Sequence[float]) -> float | None:
    return statistics.fmean(values) if values else None


def marks(weather: Weather, limits: Limits) -> tuple[str, ...]:
    """Why a time that was measured in this weather should not be believed, and what to do.

    Empty for fair weather. What is not known is not held against it.
    """
    return (*_of_clocks(weather), *_of_the_crowd(weather), *_of_the_host(weather, limits))


def before(nvml: Nvml, device: Device, host: Host | None = None) -> tuple[str, ...]:
    """What is wrong with the machine before anything of ours runs on `device`; takes 0.3 s.

    Where NVML does not tell, from the host alone.
    """
    host = host or Host.of(device)
    station = Station(nvml, device, host)
    station.look()
    start_s = time.monotonic()
    time.sleep(BEFORE_S)
    weather = station.between(start_s, time.monotonic())
    return marks(weather, Limits.of(device, len(host.cores)))


def cost(batches: Sequence[tuple[Weather, int]]) -> Cost | None:
    """What one side's batches took together, each with its number of images; None without any."""
    images = sum(count for _, count in batches)
    if not images:
        return None
    seen = [weather for weather, _ in batches]
    wall_s = math.fsum(one.wall_s for one in seen)
    energy_j = _sum(one.energy_j for one in seen)
    power_ws = _sum(_times(one.power_w_mean, one.wall_s) for one in seen)
    busy_s = _sum(_times(one.utilisation_percent, one.wall_s) for one in seen)
    return Cost(
        images=images,
        wall_s=wall_s,
        images_per_s=images / wall_s,
        energy_j=energy_j,
        joules_per_image=None if energy_j is None else energy_j / images,
        power_w_mean=None if power_ws is None else power_ws / wall_s,
        utilisation_percent=None if busy_s is None else busy_s / wall_s,
        used_bytes_max=max(_known(one.used_bytes_max for one in seen), default=None),
        worker_bytes_max=max(_known(one.worker_bytes_max for one in seen), default=None),
    )


def _sum(values: Iterable[float | None]) -> float | None:
    """The sum of all; None where one is not known."""
    listed = list(values)
    known = _known(listed)
    return math.fsum(known) if len(known) == len(listed) else None


def _times(value: float | None, seconds: float) -> float | None:
    return None if value is None else value * seconds


def _of_clocks(weather: Weather) -> Iterator[str]:
    slowed = sorted(SLOWDOWNS.intersection(weather.clock_events or ()))
    if not slowed:
        return
    seen = []
    if weather.sm_clock_mhz_min is not None:
        seen.append(f"at {weather.sm_clock_mhz_min} of {weather.sm_clock_mhz_limit or '?'} MHz")
    if weather.temperature_c_max is not None:
        seen.append(f"at {weather.temperature_c_max} C")
    where = f" {', '.join(seen)}" if seen else ""
    yield (
        f"the card slowed down ({', '.join(slowed)}){where}: let it cool down, see to its cooling"
        " and power, and measure again"
    )


def _of_the_crowd(weather: Weather) -> Iterator[str]:
    if weather.foreign_pids:
        pids = ", ".join(map(str, weather.foreign_pids))
        yield f"the card was shared with process {pids}: end it, or take another card by --device"


def _of_the_host(weather: Weather, limits: Limits) -> Iterator[str]:
    blur_cores = RESOLUTION_S / weather.wall_s
    foreign_cores, steal_cores = weather.foreign_cores, weather.steal_cores
    if foreign_cores is not None and foreign_cores > limits.foreign_cores + blur_cores:
        yield (
            f"other processes kept {foreign_cores:.1f} of {limits.cores} cores busy, fair is up to"
            f" {limits.foreign_cores:.2g}: end them, or wait, and measure again"
        )
    if steal_cores is not None and steal_cores > limits.steal_cores + blur_cores:
        yield (
            f"the hypervisor gave {steal_cores:.1f} of {limits.cores} cores to others: measure on a"
            " machine of your own, or again at another time"
        )
