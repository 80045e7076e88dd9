"""Stage 5: a device to measure on. Find a free GPU, hold it alone, see who else was on it.

A GPU is free when NVML shows no foreign process, little memory in use and no load. It is held
under a lock per GPU UUID that every Speedtrap on the host respects. Without a GPU there is one CPU
slot, under a lock of the same kind.

NVML is reached through `Nvml`, a small interface with a real implementation on `pynvml`; the
choice and the out-of-memory policy are plain functions of what it shows.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import platform
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol, Self

import psutil

from runner.records import Device, Phase, SpeedtrapError, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

FREE_MEMORY_BYTES: Final = 1024**3
"""A card with no process shows up to about 0.7 GiB in use by the driver (H200: 0.6)."""
FREE_UTILISATION_PERCENT: Final = 5
WATCH_PERIOD_S: Final = 0.5
NEARLY_FULL_SHARE: Final = 0.8
"""A failed allocation is not visible itself; what is: little room is left beside two pipelines."""
POLL_PERIOD_S: Final = 1.0
LOCKS: Final = Path("/tmp/speedtrap-locks")  # noqa: S108  (shared by all users of the host)
FOREIGN_BYTES: Final = 64 * 1024**2
"""Less foreign memory than this is a monitor or a display, and no reason for an out-of-memory."""


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


class Nvml(Protocol):
    """What is needed of NVML."""

    def cards(self) -> list[Card]:
        """All cards of the host, as they are now; empty without a driver."""
        ...


class PyNvml:
    """NVML through `pynvml`. Initialised once and kept: starting it takes tens of milliseconds."""

    def __init__(self) -> None:
        """Look for a driver; without one there are no cards."""
        import pynvml  # deferred: not needed to read `--help`

        self._nvml = pynvml
        try:
            pynvml.nvmlInit()
            self._has_driver = True
        except pynvml.NVMLError:
            self._has_driver = False

    def cards(self) -> list[Card]:
        """All cards of the host, as they are now; empty without a driver."""
        if not self._has_driver:
            return []
        try:
            count = self._nvml.nvmlDeviceGetCount()
            return [self._card(index) for index in range(count)]
        except self._nvml.NVMLError as error:
            message = f"NVML failed: {error}; does `nvidia-smi` work?"
            raise SpeedtrapError(message) from error

    def _card(self, index: int) -> Card:
        nvml = self._nvml
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        memory = nvml.nvmlDeviceGetMemoryInfo(handle)
        processes = [
            *nvml.nvmlDeviceGetComputeRunningProcesses(handle),
            *nvml.nvmlDeviceGetGraphicsRunningProcesses(handle),
        ]
        occupants = {process.pid: process.usedGpuMemory or 0 for process in processes}
        return Card(
            index=index,
            uuid=nvml.nvmlDeviceGetUUID(handle),
            name=nvml.nvmlDeviceGetName(handle),
            minor=int(nvml.nvmlDeviceGetMinorNumber(handle)),
            driver=nvml.nvmlSystemGetDriverVersion(),
            memory_bytes=int(memory.total),
            used_bytes=int(memory.used),
            utilisation_percent=int(nvml.nvmlDeviceGetUtilizationRates(handle).gpu),
            occupants=tuple(Occupant(pid, used) for pid, used in sorted(occupants.items())),
        )


@dataclass(frozen=True, slots=True)
class Request:
    """Which device is wanted: `cpu`, `cuda` (any free card), `cuda:N`, or `auto`."""

    kind: str
    index: int | None
    wait_s: float

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
    """What was seen on a leased card, at most, over a run. Zero on a CPU run."""

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
        try:
            while not self._stopping.wait(WATCH_PERIOD_S):
                for card in self._nvml.cards():
                    if card.uuid == self._uuid:
                        self.seen = self.seen.and_also(card, self._ours)
                        pids = {one.pid for one in card.occupants}
                        self._ours |= pids - self.seen.foreign_pids
        except SpeedtrapError as error:
            self.blind_because = str(error)


@dataclass(frozen=True, slots=True)
class Again:
    """Run the pair once more: `alone` without the baseline beside the candidate."""

    alone: bool
    avoid_card: bool


def after_loss(
    verdict: Verdict, phase: Phase, seen: Seen, *, shared_with_baseline: bool
) -> Again | None:
    """The out-of-memory policy, judged from outside: once more, or (None) the verdict stands.

    What a candidate says never buys a second run. It gets one only if its card was seen to hold
    somebody else's memory, or was seen nearly full while our own baseline lay beside it; and never
    after its first timed batch, since then it could choose among runs.
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
    cards = [] if request.kind == "cpu" else nvml.cards()
    if not cards and request.kind == "cuda":
        message = "no GPU here: NVML shows none (does `nvidia-smi` work?); use --device cpu"
        raise SpeedtrapError(message)
    if not cards:
        lock = _Lock.acquire("cpu")
        if lock is None:
            return None, "the CPU slot is held by another Speedtrap"
        return (Lease(Device(kind="cpu", name=cpu_name()), None), lock), ""
    return _try_cards(_wanted(cards, request.index), avoid)


def _wanted(cards: Sequence[Card], index: int | None) -> Sequence[Card]:
    wanted = [card for card in cards if index in {None, card.index}]
    if not wanted:
        known = ", ".join(f"cuda:{card.index}" for card in cards)
        message = f"there is no cuda:{index} here; there are {known}"
        raise SpeedtrapError(message)
    return wanted


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
            )
            return (Lease(device, card.minor), lock), ""
        else:
            reasons.append(f"cuda:{card.index} held by another Speedtrap")
    return None, "; ".join(reasons)


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
