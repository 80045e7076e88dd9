"""Stage 5: a device to measure on. Find a free GPU, hold it alone, see who else was on it.

A GPU is free when NVML shows no foreign process, little memory in use and no load. It is held
under a lock per GPU UUID that every Speedtrap on the host respects. Without a GPU there is one CPU
slot, under a lock of the same kind.

A process that was stopped leaves its GPU with whatever it had queued. `Idle` waits that out, and
says how long it took.

NVML is reached through `Nvml`, a small interface with a real implementation on `pynvml`; the
choice and the out-of-memory policy are plain functions of what it shows.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import platform
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, Self

import psutil

from runner.records import Device, Phase, SpeedtrapError, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

FREE_MEMORY_BYTES: Final = 1024**3
"""A card with no process shows up to about 0.7 GiB in use by the driver (H200: 0.6)."""
FREE_UTILISATION_PERCENT: Final = 5
WATCH_PERIOD_S: Final = 0.5
"""Between looks at who is on the card; its memory is read every `MEMORY_PERIOD_S`."""
MEMORY_PERIOD_S: Final = 0.05
"""A card that fills up stays full for longer: the allocator tries again before it gives up."""
IDLE_POLL_S: Final = 0.005
FIRST_WINDOW_S: Final = 1.5
"""For the driver to say anything of the time since it was asked; its slowest counter takes 1 s."""
NEARLY_FULL_SHARE: Final = 0.8
"""A failed allocation is not visible itself; what is: little room is left beside two pipelines."""
POLL_PERIOD_S: Final = 1.0
VISIBLE: Final = "CUDA_VISIBLE_DEVICES"
LOCKS: Final = Path("/tmp/speedtrap-locks")  # noqa: S108  (shared by all users of the host)
CLOCK_EVENTS: Final = {
    0x001: "gpu_idle",
    0x002: "application_clocks_setting",
    0x004: "sw_power_cap",
    0x008: "hw_slowdown",
    0x010: "sync_boost",
    0x020: "sw_thermal_slowdown",
    0x040: "hw_thermal_slowdown",
    0x080: "hw_power_brake_slowdown",
    0x100: "display_clock_setting",
    0x200: "board_limit",
    0x400: "reliability",
}
"""NVML's reasons for which a clock is lower than it could be, by their bits."""
FOREIGN_BYTES: Final = 64 * 1024**2
"""Less foreign memory than this is a monitor or a display, and no reason for an out-of-memory."""
_CLOCK: Final = ("nvmlDeviceGetClockInfo",)
_EVENT_REASONS: Final = (
    "nvmlDeviceGetCurrentClocksEventReasons",
    "nvmlDeviceGetCurrentClocksThrottleReasons",
)
"""The newer name first; older drivers know the other one only."""
_TEMPERATURE: Final = ("nvmlDeviceGetTemperature", "nvmlDeviceGetTemperatureV")
"""The older name first: NVML keeps it until CUDA 14."""


@dataclass(frozen=True, slots=True)
class Occupant:
    """A process on a card. `used_bytes` is 0 where the driver does not tell."""

    pid: int
    used_bytes: int


@dataclass(frozen=True, slots=True)
class Card:
    """One GPU as NVML shows it at one moment."""

    index: int
    uuid: str
    name: str
    minor: int
    driver: str
    memory_bytes: int
    used_bytes: int
    utilisation_percent: int
    occupants: tuple[Occupant, ...]

    def busy_because(self) -> str | None:
        """Why this card is not free for a new lease; None when it is."""
        if self.occupants:
            return "is used by process " + ", ".join(str(one.pid) for one in self.occupants)
        if self.used_bytes > FREE_MEMORY_BYTES:
            return f"has {self.used_bytes / 1024**3:.1f} GiB of its memory in use"
        if self.utilisation_percent > FREE_UTILISATION_PERCENT:
            return f"is {self.utilisation_percent} % busy"
        return None


@dataclass(frozen=True, slots=True)
class Window:
    """How busy a card was from one moment to another, in microseconds since 1970."""

    from_us: int
    to_us: int
    busy_percent: float


@dataclass(frozen=True, slots=True)
class Conditions:
    """What a card says of itself at one moment. None where it does not tell.

    `clock_events` are names of `CLOCK_EVENTS`; `energy_j` counts from when the driver was loaded.
    """

    used_bytes: int | None = None
    sm_clock_mhz: int | None = None
    max_sm_clock_mhz: int | None = None
    memory_clock_mhz: int | None = None
    clock_events: frozenset[str] | None = None
    temperature_c: int | None = None
    power_w: float | None = None
    energy_j: float | None = None


class Nvml(Protocol):
    """What is needed of NVML. Every method raises `SpeedtrapError` when NVML fails."""

    def cards(self) -> list[Card]:
        """All cards of the host, as they are now; empty without a driver."""
        ...

    def used_share(self, uuid: str) -> float:
        """Share of one card's memory that is in use, from 0 to 1. Takes microseconds."""
        ...

    def windows(self, uuid: str, since_us: int) -> list[Window]:
        """How busy a card was, in windows that end after `since_us`, in order of time."""
        ...

    def conditions(self, uuid: str) -> Conditions:
        """Clocks, temperature, power, energy and memory of one card, as they are now."""
        ...

    def occupants(self, uuid: str) -> tuple[Occupant, ...]:
        """The processes on one card, as they are now, by pid."""
        ...


class PyNvml:
    """NVML through `pynvml`. Initialised once and kept: starting it takes tens of milliseconds."""

    def __init__(self) -> None:
        """Look for a driver; without one there are no cards."""
        import pynvml  # deferred: not needed to read `--help`

        self._nvml = pynvml
        self._handles: dict[str, Any] = {}
        self._max_clocks_mhz: dict[str, int | None] = {}
        try:
            pynvml.nvmlInit()
            self._has_driver = True
        except pynvml.NVMLError:
            self._has_driver = False

    def cards(self) -> list[Card]:
        """All cards of the host, as they are now; empty without a driver."""
        if not self._has_driver:
            return []
        with self._our_failure():
            count = self._nvml.nvmlDeviceGetCount()
            return [self._card(index) for index in range(count)]

    def used_share(self, uuid: str) -> float:
        """Share of one card's memory that is in use, from 0 to 1. Takes microseconds."""
        with self._our_failure():
            memory = self._nvml.nvmlDeviceGetMemoryInfo(self._handle(uuid))
            return int(memory.used) / int(memory.total)

    def windows(self, uuid: str, since_us: int) -> list[Window]:
        """How busy a card was, in windows that end after `since_us`, in order of time.

        From the driver's buffer of utilisation samples, the finest that it keeps without being
        asked to: `nvmlDeviceGetUtilizationRates` says the last of these and not what time it is of,
        GPM needs 100 ms between two of its samples and a Hopper card, and the samples by process
        name pids that a container may not know. A window begins where the one before it ended.
        """
        kind = self._nvml.NVML_GPU_UTILIZATION_SAMPLES
        with self._our_failure():
            try:
                _, samples = self._nvml.nvmlDeviceGetSamples(self._handle(uuid), kind, 0)
            except self._nvml.NVMLError_NotFound:
                return []
        stamps = sorted((int(one.timeStamp), one.sampleValue.uiVal) for one in samples)
        return [
            Window(before_us, now_us, float(percent))
            for (before_us, _), (now_us, percent) in itertools.pairwise(stamps)
            if now_us > since_us
        ]

    def conditions(self, uuid: str) -> Conditions:
        """Clocks, temperature, power, energy and memory of one card, as they are now."""
        nvml = self._nvml
        ask = self._ask
        with self._our_failure():
            handle = self._handle(uuid)
            bits = ask(handle, _EVENT_REASONS)
            power_mw = ask(handle, ("nvmlDeviceGetPowerUsage",))
            energy_mj = ask(handle, ("nvmlDeviceGetTotalEnergyConsumption",))
            return Conditions(
                used_bytes=int(nvml.nvmlDeviceGetMemoryInfo(handle).used),
                sm_clock_mhz=ask(handle, _CLOCK, nvml.NVML_CLOCK_SM),
                max_sm_clock_mhz=self._max_sm_clock_mhz(uuid),
                memory_clock_mhz=ask(handle, _CLOCK, nvml.NVML_CLOCK_MEM),
                clock_events=None if bits is None else _named(bits),
                temperature_c=ask(handle, _TEMPERATURE, nvml.NVML_TEMPERATURE_GPU),
                power_w=None if power_mw is None else power_mw / 1000,
                energy_j=None if energy_mj is None else energy_mj / 1000,
            )

    def occupants(self, uuid: str) -> tuple[Occupant, ...]:
        """The processes on one card, as they are now, by pid."""
        with self._our_failure():
            return self._occupants(self._handle(uuid))

    def _ask(self, handle: Any, names: Sequence[str], *more: int) -> int | None:  # noqa: ANN401
        """The answer of the first of these functions that is there; None if the card has none."""
        nvml = self._nvml
        for name in names:
            function = getattr(nvml, name, None)
            if function is None:
                continue
            try:
                return int(function(handle, *more))
            except nvml.NVMLError_FunctionNotFound:
                continue
            except (nvml.NVMLError_NotSupported, nvml.NVMLError_NoPermission):
                return None
        return None

    def _max_sm_clock_mhz(self, uuid: str) -> int | None:
        if uuid not in self._max_clocks_mhz:
            name, kind = ("nvmlDeviceGetMaxClockInfo",), self._nvml.NVML_CLOCK_SM
            self._max_clocks_mhz[uuid] = self._ask(self._handle(uuid), name, kind)
        return self._max_clocks_mhz[uuid]

    def _occupants(self, handle: Any) -> tuple[Occupant, ...]:  # noqa: ANN401
        nvml = self._nvml
        processes = [
            *nvml.nvmlDeviceGetComputeRunningProcesses(handle),
            *nvml.nvmlDeviceGetGraphicsRunningProcesses(handle),
        ]
        used_bytes = {process.pid: process.usedGpuMemory or 0 for process in processes}
        return tuple(Occupant(pid, used) for pid, used in sorted(used_bytes.items()))

    @contextlib.contextmanager
    def _our_failure(self) -> Iterator[None]:
        try:
            yield
        except self._nvml.NVMLError as error:
            message = f"NVML failed: {error}; does `nvidia-smi` work?"
            raise SpeedtrapError(message) from error

    def _handle(self, uuid: str) -> Any:  # noqa: ANN401  (a pointer of the driver's)
        if uuid not in self._handles:
            self._handles[uuid] = self._nvml.nvmlDeviceGetHandleByUUID(uuid)
        return self._handles[uuid]

    def _card(self, index: int) -> Card:
        nvml = self._nvml
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        memory = nvml.nvmlDeviceGetMemoryInfo(handle)
        return Card(
            index=index,
            uuid=nvml.nvmlDeviceGetUUID(handle),
            name=nvml.nvmlDeviceGetName(handle),
            minor=int(nvml.nvmlDeviceGetMinorNumber(handle)),
            driver=nvml.nvmlSystemGetDriverVersion(),
            memory_bytes=int(memory.total),
            used_bytes=int(memory.used),
            utilisation_percent=int(nvml.nvmlDeviceGetUtilizationRates(handle).gpu),
            occupants=self._occupants(handle),
        )


@dataclass(frozen=True, slots=True)
class Request:
    """Which device is wanted: `cpu`, `cuda` (any free card), `cuda:N`, or `auto`.

    Of several cards that will do, only that with the UUID `only` is taken, if it is among them.
    """

    kind: str
    index: int | None
    wait_s: float
    only: str | None = None

    @classmethod
    def parse(cls, text: str, wait_s: float) -> Self:
        """Read the value of `--device`."""
        kind, colon, number = text.partition(":")
        if text in {"auto", "cpu", "cuda"}:
            return cls(text, None, wait_s)
        if kind == "cuda" and colon and number.isdecimal():
            return cls(kind, int(number), wait_s)
        message = f"cannot read the device {text!r}; write auto, cpu, cuda or cuda:N"
        raise SpeedtrapError(message)


@dataclass(frozen=True, slots=True)
class Lease:
    """A device that is ours until the context ends. `minor` is the n of /dev/nvidian."""

    device: Device
    minor: int | None


@contextlib.contextmanager
def lease(
    request: Request,
    nvml: Nvml,
    tell: Callable[[str], None],
    avoid: frozenset[str] = frozenset(),
) -> Iterator[Lease]:
    """Hold a device alone, waiting for one up to `request.wait_s` seconds.

    `tell` is called with what is being waited for; cards whose UUID is in `avoid` are taken only
    when there is no other. Raises `SpeedtrapError` when there is no such device, or none in time.

    Only cards that the caller's CUDA_VISIBLE_DEVICES allows are considered, in CUDA's own terms:
    numbers, UUIDs or their beginnings, up to the first entry that names no card; without the
    variable all, with an empty one or -1 none. Numbers are NVML's, by PCI bus, here as in `cuda:N`.
    """
    deadline_s = time.monotonic() + request.wait_s
    told = ""
    while True:
        taken, why = _try_lease(request, nvml, avoid)
        if taken is not None:
            break
        if time.monotonic() >= deadline_s:
            message = f"no free device within {request.wait_s:g} s: {why}; wait longer with --wait"
            raise SpeedtrapError(message)
        if why != told:
            tell(f"waiting for a free device ({why})")
            told = why
        time.sleep(POLL_PERIOD_S)
    held, lock = taken
    try:
        yield held
    finally:
        lock.close()


@dataclass(frozen=True, slots=True)
class Seen:
    """What was seen on a leased card, at most, over a run. Zero on a CPU run.

    `used_share` is the largest share of its memory that was in use, whoever used it.
    """

    foreign_bytes: int = 0
    foreign_pids: frozenset[int] = frozenset()
    used_share: float = 0.0

    def and_also(self, card: Card, ours: frozenset[int] = frozenset()) -> Seen:
        """Add one look at the card; processes among `ours` are not foreign."""
        others = [one for one in card.occupants if one.pid not in ours]
        foreign = [one for one in others if is_foreign(one.pid)]
        return Seen(
            max(self.foreign_bytes, sum(one.used_bytes for one in foreign)),
            self.foreign_pids | {one.pid for one in foreign},
            max(self.used_share, card.used_bytes / card.memory_bytes),
        )

    def and_used(self, share: float) -> Seen:
        """Add one look at the memory that is in use."""
        return replace(self, used_share=max(self.used_share, share))


class Watch:
    """Looks at a leased card from time to time. Use as a context manager.

    `seen` is what was seen so far; `blind_because` says why nothing more is, if NVML failed.
    """

    def __init__(self, nvml: Nvml, uuid: str | None) -> None:
        """Watch the card `uuid`; None (a CPU run) watches nothing."""
        self._nvml = nvml
        self._uuid = uuid
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._ours: frozenset[int] = frozenset()  # a dying worker loses its parents before its pid
        self.seen = Seen()
        self.blind_because = ""

    def __enter__(self) -> Self:
        """Start watching."""
        if self._uuid is not None:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop watching."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        assert self._uuid is not None  # else not started
        next_look_s = time.monotonic()
        try:
            while not self._stopping.wait(MEMORY_PERIOD_S):
                self.seen = self.seen.and_used(self._nvml.used_share(self._uuid))
                if time.monotonic() >= next_look_s:
                    self._look_around()
                    next_look_s = time.monotonic() + WATCH_PERIOD_S
        except SpeedtrapError as error:
            self.blind_because = str(error)

    def _look_around(self) -> None:
        for card in self._nvml.cards():
            if card.uuid == self._uuid:
                self.seen = self.seen.and_also(card, self._ours)
                pids = {one.pid for one in card.occupants}
                self._ours |= pids - self.seen.foreign_pids


class Idle:
    """Waits until a leased card has nothing left to do.

    `blind_because` says why that could not be told, if it ever could not.
    """

    def __init__(self, nvml: Nvml, uuid: str | None) -> None:
        """Wait for the card `uuid`; with None (a CPU run) there is nothing to wait for."""
        self._nvml = nvml
        self._uuid = uuid
        self.blind_because = ""

    def wait_until_idle(self, limit_s: float) -> float:
        """Return for how many seconds work was seen after this call began; 0 for an idle card.

        To be called when nothing that is to go on uses the card: the side that had its turn is
        frozen, the scorer has not begun. What was done before the call does not count, so windows
        that began before it are passed over: the wait is one to two of the driver's windows, and
        as much longer as work goes on, but no longer than `limit_s`.
        """
        if self._uuid is None:
            return 0.0
        try:
            return self._wait(self._uuid, limit_s)
        except SpeedtrapError as error:
            self.blind_because = str(error)
            return 0.0

    def _wait(self, uuid: str, limit_s: float) -> float:
        begin_us = time.time_ns() // 1000
        begin_s = time.monotonic()
        busy_us = 0
        while True:
            waited_s = time.monotonic() - begin_s
            whole = [one for one in self._nvml.windows(uuid, begin_us) if one.from_us >= begin_us]
            if whole:
                busy_us = max((one.to_us - begin_us for one in whole if _is_busy(one)), default=0)
                if not _is_busy(whole[-1]):
                    return busy_us / 1e6
            elif waited_s >= FIRST_WINDOW_S:
                message = f"the driver said nothing of how busy the card is for {waited_s:.1f} s"
                raise SpeedtrapError(message)
            if waited_s >= limit_s:  # the last whole window ends before, and work goes on
                return max(busy_us / 1e6, limit_s)
            time.sleep(IDLE_POLL_S)


def _named(bits: int) -> frozenset[str]:
    """Names of the clock events in NVML's bit mask; a bit that has none here is named as such."""
    known = {name for bit, name in CLOCK_EVENTS.items() if bits & bit}
    unknown = bits & ~sum(CLOCK_EVENTS)
    return frozenset(known | ({f"unknown_{unknown:#x}"} if unknown else set()))


def _is_busy(window: Window) -> bool:
    return window.busy_percent > FREE_UTILISATION_PERCENT


@dataclass(frozen=True, slots=True)
class Again:
    """Run the pair once more: `alone` without the baseline beside the candidate."""

    alone: bool
    avoid_card: bool


def was_full(seen: Seen) -> bool:
    """Whether a worker that says that it ran out of the card's memory can be believed.

    A failed allocation is not visible itself. What is: most of the card was in use at one moment
    (the allocator fills it before it gives up), or somebody else's memory was on it.
    """
    return seen.used_share >= NEARLY_FULL_SHARE or seen.foreign_bytes >= FOREIGN_BYTES


def after_loss(
    verdict: Verdict, phase: Phase, seen: Seen, *, shared_with_baseline: bool
) -> Again | None:
    """The out-of-memory policy, judged from outside: once more, or (None) the verdict stands.

    What a candidate says buys neither the verdict (see `was_full`) nor a second run. It gets one
    only if its card was seen to hold somebody else's memory, or was seen nearly full while our own
    baseline lay beside it; and never after its first timed batch, since then it could choose among
    runs.
    """
    if verdict is not Verdict.OOM or phase in {Phase.TIMED, Phase.EXIT}:
        return None
    if seen.foreign_bytes >= FOREIGN_BYTES:
        return Again(alone=not shared_with_baseline, avoid_card=True)
    if shared_with_baseline and seen.used_share >= NEARLY_FULL_SHARE:
        return Again(alone=True, avoid_card=False)
    return None


def is_foreign(pid: int) -> bool:
    """Whether a process that this host shows is neither this one nor below it.

    A process that is not visible here (in a container, NVML may speak of the host's) is not called
    foreign: the card was free when it was leased, so most likely it is one of our own workers.
    """
    try:
        family = [pid, *(parent.pid for parent in psutil.Process(pid).parents())]
    except psutil.NoSuchProcess:
        return False
    return os.getpid() not in family


def _try_lease(
    request: Request, nvml: Nvml, avoid: frozenset[str]
) -> tuple[tuple[Lease, _Lock] | None, str]:
    """One attempt: the lease with its lock, or None and the reason."""
    found = [] if request.kind == "cpu" else nvml.cards()
    if not found and request.kind == "cuda":
        message = "no GPU here: NVML shows none (does `nvidia-smi` work?); use --device cpu"
        raise SpeedtrapError(message)
    allowed = os.environ.get(VISIBLE)
    cards = _visible(found, allowed)
    if found and not cards and request.kind == "cuda":
        message = f"{VISIBLE}={allowed!r} allows none of {_names(found)}; unset it, or name one"
        raise SpeedtrapError(message)
    if not cards:
        lock = _Lock.acquire("cpu")
        if lock is None:
            return None, "the CPU slot is held by another Speedtrap"
        return (Lease(Device(kind="cpu", name=cpu_name(), cores=timed_cores()), None), lock), ""
    wanted = _wanted(cards, request.index)
    return _try_cards([card for card in wanted if card.uuid == request.only] or wanted, avoid)


def _wanted(cards: Sequence[Card], index: int | None) -> Sequence[Card]:
    wanted = [card for card in cards if index in {None, card.index}]
    if not wanted:
        message = f"there is no cuda:{index} here; there are {_names(cards)}"
        if VISIBLE in os.environ:
            message += f" (by {VISIBLE}={os.environ[VISIBLE]!r})"
        raise SpeedtrapError(message)
    return wanted


def _visible(cards: Sequence[Card], allowed: str | None) -> list[Card]:
    """Those of `cards` that the variable's value lets a CUDA program see."""
    if allowed is None:
        return list(cards)
    seen: list[Card] = []
    for entry in map(str.strip, allowed.split(",")):
        named = [card for card in cards if _is_named(card, entry)]
        if len(named) != 1:
            break
        seen += named
    return seen


def _is_named(card: Card, entry: str) -> bool:
    if entry.isdecimal():
        return int(entry) == card.index
    return entry.startswith("GPU-") and card.uuid.startswith(entry)


def _names(cards: Sequence[Card]) -> str:
    return ", ".join(f"cuda:{card.index}" for card in cards)


def _try_cards(
    cards: Sequence[Card], avoid: frozenset[str]
) -> tuple[tuple[Lease, _Lock] | None, str]:
    reasons = []
    for card in sorted(cards, key=lambda card: (card.uuid in avoid, card.used_bytes, card.index)):
        if why := card.busy_because():
            reasons.append(f"cuda:{card.index} {why}")
        elif lock := _Lock.acquire(card.uuid):
            device = Device(
                kind="cuda",
                name=card.name,
                index=card.index,
                uuid=card.uuid,
                memory_bytes=card.memory_bytes,
                driver=card.driver,
                cores=timed_cores(),
            )
            return (Lease(device, card.minor), lock), ""
        else:
            reasons.append(f"cuda:{card.index} held by another Speedtrap")
    return None, "; ".join(reasons)


def timed_cores() -> tuple[int, ...]:
    """Cores for whoever is timed: all that this process may use but the first, where it has more.

    The first is left for the controller, which takes the pixels and looks at the machine meanwhile,
    and for interrupts, of which it usually has most.
    """
    every = sorted(os.sched_getaffinity(0))
    return tuple(every[1:] or every)


def cpu_name() -> str:
    """Model name of the host's processor, with the number of logical cores."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return f"{line.partition(':')[2].strip()}, {os.cpu_count()} cores"
    return f"{platform.machine()}, {os.cpu_count()} cores"


class _Lock:
    """An exclusive `flock` on a file that all users of the host can open; gone with its process."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @classmethod
    def acquire(cls, name: str) -> Self | None:
        folder = LOCKS
        try:
            descriptor = _open_lock(folder, f"{name}.lock")
        except OSError as error:
            message = f"cannot make the lock {folder}/{name}.lock: {error.strerror}"
            raise SpeedtrapError(message) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        return cls(descriptor)

    def close(self) -> None:
        os.close(self._descriptor)


def _open_lock(folder: Path, name: str) -> int:
    """Open a lock file, making it and its folder if need be; no symbolic link is followed.

    An existing file is opened without O_CREAT, which Linux refuses for another user's file in a
    sticky folder (fs.protected_regular). What is made here is opened to all users.
    """
    with contextlib.suppress(FileExistsError):
        folder.mkdir()
        folder.chmod(0o1777)
    parent = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        return os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=parent)
    except FileNotFoundError:
        flags = os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW
        descriptor = os.open(name, flags, 0o644, dir_fd=parent)
        os.fchmod(descriptor, 0o644)  # whatever the umask
        return descriptor
    finally:
        os.close(parent)
