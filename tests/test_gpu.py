import contextlib
import dataclasses
import functools
import os
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import pynvml
import pytest

from runner import gpu, paths
from runner.gpu import Again, Card, Conditions, Idle, Occupant, Request, Seen, Window
from runner.records import Phase, SpeedtrapError, Verdict

GIB = 1024**3
MIB = 1024**2


class FakeNvml:
    """Cards as they are told to be; each look takes the next of `moments`, the last one stays.

    `busy` are the windows of every card; those that end later than `now_us()` are not known yet.
    `conditions_now()` is what every card says of itself.
    """

    def __init__(self, *moments, busy=(), now_us=lambda: 2**63, conditions_now=Conditions):
        self.moments = list(moments)
        self.busy = list(busy)
        self.now_us = now_us
        self.conditions_now = conditions_now

    def cards(self):
        return list(self.moments.pop(0) if len(self.moments) > 1 else self.moments[0])

    def used_share(self, uuid):
        return next(
            one.used_bytes / one.memory_bytes for one in self.moments[0] if one.uuid == uuid
        )

    def windows(self, _uuid, since_us):
        return [one for one in self.busy if since_us < one.to_us <= self.now_us()]

    def conditions(self, _uuid):
        return self.conditions_now()

    def occupants(self, uuid):
        return next(one.occupants for one in self.cards() if one.uuid == uuid)


class FakePynvml:
    """As much of the module `pynvml` as `PyNvml` uses, with two cards."""

    NVMLError = type("NVMLError", (Exception,), {})
    NVMLError_NotFound = type("NVMLError_NotFound", (NVMLError,), {})
    NVMLError_NotSupported = type("NVMLError_NotSupported", (NVMLError,), {})
    NVMLError_NoPermission = type("NVMLError_NoPermission", (NVMLError,), {})
    NVMLError_FunctionNotFound = type("NVMLError_FunctionNotFound", (NVMLError,), {})
    NVML_GPU_UTILIZATION_SAMPLES = 1
    NVML_CLOCK_SM = 1
    NVML_CLOCK_MEM = 2
    NVML_TEMPERATURE_GPU = 0
    __spec__ = None

    def __init__(
        self,
        *,
        driver=True,
        failing=False,
        samples=((3000, 7), (1000, 0), (2000, 90)),
    ):
        self.driver, self.failing, self.samples = driver, failing, samples

    def nvmlInit(self):  # noqa: N802  (NVML's own names)
        if not self.driver:
            raise self.NVMLError

    def nvmlDeviceGetSamples(self, _handle, kind, since_us):  # noqa: N802
        assert (kind, since_us) == (self.NVML_GPU_UTILIZATION_SAMPLES, 0)
        if not self.samples:
            raise self.NVMLError_NotFound
        return 1, [
            SimpleNamespace(timeStamp=stamp, sampleValue=SimpleNamespace(uiVal=percent))
            for stamp, percent in self.samples
        ]

    def __getattr__(self, name):
        if self.failing:
            raise self.NVMLError("GPU is lost")
        process = SimpleNamespace(pid=77, usedGpuMemory=None)
        answers = {
            "nvmlDeviceGetCount": lambda: 2,
            "nvmlDeviceGetHandleByIndex": lambda index: index,
            "nvmlDeviceGetHandleByUUID": lambda uuid: int(uuid.removeprefix("GPU-")),
            "nvmlDeviceGetMemoryInfo": lambda _: SimpleNamespace(total=8 * GIB, used=GIB),
            "nvmlDeviceGetComputeRunningProcesses": lambda index: [process] * index,
            "nvmlDeviceGetGraphicsRunningProcesses": lambda index: [process] * index,
            "nvmlDeviceGetUUID": lambda index: f"GPU-{index}",
            "nvmlDeviceGetName": lambda _: "Fake",
            "nvmlDeviceGetMinorNumber": lambda index: 1 - index,
            "nvmlSystemGetDriverVersion": lambda: "580.1",
            "nvmlDeviceGetUtilizationRates": lambda _: SimpleNamespace(gpu=3),
            "nvmlDeviceGetClockInfo": lambda _, kind: {1: 1410, 2: 3201}[kind],
            "nvmlDeviceGetMaxClockInfo": lambda _, kind: {1: 1980}[kind],
            "nvmlDeviceGetCurrentClocksEventReasons": lambda _: 0x24,
            "nvmlDeviceGetCurrentClocksThrottleReasons": lambda _: 0x40,
            "nvmlDeviceGetTemperature": lambda _, sensor: {0: 61}[sensor],
            "nvmlDeviceGetPowerUsage": lambda _: 512_250,
            "nvmlDeviceGetTotalEnergyConsumption": lambda _: 2**40 + 1,
        }
        if name not in answers:
            raise AttributeError(name)
        return answers[name]


class Clock:
    """A clock that only sleeping moves."""

    def __init__(self):
        self.now_s = 0.0
        self.slept = []

    def monotonic(self):
        return self.now_s

    def time_ns(self):
        return round(self.now_s * 1e9)

    def sleep(self, seconds):
        self.slept.append(seconds)
        self.now_s += seconds


def card(index=0, **changes):
    free = Card(
        index=index,
        uuid=f"GPU-{index}",
        name="Fake H200",
        minor=index + 4,
        driver="580.1",
        memory_bytes=140 * GIB,
        used_bytes=600 * MIB,
        utilisation_percent=0,
        occupants=(),
    )
    return dataclasses.replace(free, **changes)


def busy(index=0):
    return card(index, occupants=(Occupant(1, GIB),))


@pytest.fixture(autouse=True)
def locks(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, "LOCKS", tmp_path / "locks")
    return tmp_path / "locks"


@pytest.fixture(autouse=True)
def all_cards_are_visible(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(gpu, "time", clock)
    return clock


def lease(device="auto", nvml=None, wait_s=0.0, tell=lambda _: None, avoid=frozenset()):
    return gpu.lease(Request.parse(device, wait_s), nvml or FakeNvml([]), tell, avoid)


def check_answer_is_a_fresh_list(nvml):
    first = nvml.cards()
    first.append(None)
    assert None not in nvml.cards()


def check_cards_are_told_apart(nvml):
    cards = nvml.cards()
    assert [one.index for one in cards] == list(range(len(cards)))
    assert len({one.uuid for one in cards}) == len(cards)
    assert len({one.minor for one in cards}) == len(cards)


def check_texts_are_there(nvml):
    assert all(one.uuid and one.name and one.driver for one in nvml.cards())


def check_numbers_are_sane(nvml):
    for one in nvml.cards():
        assert 0 <= one.used_bytes <= one.memory_bytes
        assert one.memory_bytes >= GIB
        assert 0 <= one.utilisation_percent <= 100
        assert one.minor >= 0


def check_occupants_are_processes(nvml):
    for one in nvml.cards():
        pids = [occupant.pid for occupant in one.occupants]
        assert pids == sorted(set(pids))
        assert all(occupant.pid > 0 <= occupant.used_bytes for occupant in one.occupants)


def check_busy_has_a_reason(nvml):
    for one in nvml.cards():
        why = one.busy_because()
        assert why is None or why.startswith(("is ", "has "))


def check_used_share_is_a_share(nvml):
    for one in nvml.cards():
        assert 0 <= nvml.used_share(one.uuid) <= 1


def check_windows_are_in_order(nvml):
    for one in nvml.cards():
        windows = nvml.windows(one.uuid, 0)
        assert all(window.from_us < window.to_us for window in windows)
        assert all(0 <= window.busy_percent <= 100 for window in windows)
        assert windows == sorted(windows, key=lambda window: window.to_us)
        if windows:
            later = nvml.windows(one.uuid, windows[0].to_us)
            assert all(window.to_us > windows[0].to_us for window in later)


def check_conditions_are_sane(nvml):
    for one in nvml.cards():
        seen = nvml.conditions(one.uuid)
        told = {
            name: value for name, value in dataclasses.asdict(seen).items() if value is not None
        }
        assert isinstance(told.pop("clock_events", frozenset()), frozenset)
        assert all(value >= 0 for value in told.values())
        assert told.get("sm_clock_mhz", 0) <= told.get("max_sm_clock_mhz", 10_000)


def check_occupants_are_those_of_the_card(nvml):
    for one in nvml.cards():
        assert nvml.occupants(one.uuid) == one.occupants


CONFORMANCE = [
    check_conditions_are_sane,
    check_occupants_are_those_of_the_card,
    check_used_share_is_a_share,
    check_windows_are_in_order,
    check_answer_is_a_fresh_list,
    check_cards_are_told_apart,
    check_texts_are_there,
    check_numbers_are_sane,
    check_occupants_are_processes,
    check_busy_has_a_reason,
]


def fake_nvml(_):
    return FakeNvml([card(0), busy(1)], busy=[Window(0, 1000, 0), Window(1000, 2000, 99)])


def empty_nvml(_):
    return FakeNvml([])


def pynvml_on_fake(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", FakePynvml())
    return gpu.PyNvml()


def pynvml_here(_):
    return gpu.PyNvml()


@pytest.mark.parametrize("check", CONFORMANCE)
@pytest.mark.parametrize("make", [fake_nvml, empty_nvml, pynvml_on_fake, pynvml_here])
def test_conformance(check, make, monkeypatch):
    check(make(monkeypatch))


@pytest.mark.gpu
@pytest.mark.parametrize("check", CONFORMANCE)
def test_conformance_on_a_real_card(check):
    nvml = gpu.PyNvml()
    assert nvml.cards()
    check(nvml)


def test_pynvml_reads_each_field(monkeypatch):
    first, second = pynvml_on_fake(monkeypatch).cards()
    assert first == Card(0, "GPU-0", "Fake", 1, "580.1", 8 * GIB, GIB, 3, ())
    assert (second.minor, second.occupants) == (0, (Occupant(77, 0),))


def test_pynvml_makes_windows_of_samples(monkeypatch):
    nvml = pynvml_on_fake(monkeypatch)
    assert nvml.windows("GPU-0", 0) == [Window(1000, 2000, 90), Window(2000, 3000, 7)]
    assert nvml.windows("GPU-0", 2000) == [Window(2000, 3000, 7)]
    assert nvml.windows("GPU-0", 3000) == []


def test_pynvml_without_samples_has_no_windows(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", FakePynvml(samples=()))
    assert gpu.PyNvml().windows("GPU-0", 0) == []


def test_pynvml_tells_the_share_of_memory_in_use(monkeypatch):
    assert pynvml_on_fake(monkeypatch).used_share("GPU-1") == 1 / 8


def test_pynvml_reads_each_condition(monkeypatch):
    assert pynvml_on_fake(monkeypatch).conditions("GPU-1") == Conditions(
        used_bytes=GIB,
        sm_clock_mhz=1410,
        max_sm_clock_mhz=1980,
        memory_clock_mhz=3201,
        clock_events=frozenset({"sw_power_cap", "sw_thermal_slowdown"}),
        temperature_c=61,
        power_w=512.25,
        energy_j=(2**40 + 1) / 1000,
    )


@pytest.mark.parametrize(
    ("name", "error", "changes"),
    [
        ("nvmlDeviceGetTotalEnergyConsumption", "NotSupported", {"energy_j": None}),
        ("nvmlDeviceGetPowerUsage", "NoPermission", {"power_w": None}),
        ("nvmlDeviceGetMaxClockInfo", "NotSupported", {"max_sm_clock_mhz": None}),
        ("nvmlDeviceGetTemperature", "FunctionNotFound", {"temperature_c": None}),
        (
            "nvmlDeviceGetCurrentClocksEventReasons",
            "FunctionNotFound",
            {"clock_events": frozenset({"hw_thermal_slowdown"})},
        ),
    ],
)
def test_what_a_card_does_not_tell_is_not_known(monkeypatch, name, error, changes):
    whole = pynvml_on_fake(monkeypatch).conditions("GPU-0")
    fake = FakePynvml()

    def refuse(*_):
        raise getattr(fake, f"NVMLError_{error}")

    monkeypatch.setattr(fake, name, refuse, raising=False)
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    assert gpu.PyNvml().conditions("GPU-0") == dataclasses.replace(whole, **changes)


def test_clock_events_have_the_bits_that_nvml_gives_them():
    for bit, name in gpu.CLOCK_EVENTS.items():
        words = name.title().replace("_", "").replace("ApplicationClocks", "ApplicationsClocks")
        assert getattr(pynvml, f"nvmlClocksThrottleReason{words}") == bit
    assert not pynvml.nvmlClocksEventReasonAll & ~sum(gpu.CLOCK_EVENTS)


def test_a_clock_event_without_a_name_is_shown_by_its_bits(monkeypatch):
    fake = FakePynvml()
    monkeypatch.setattr(
        fake, "nvmlDeviceGetCurrentClocksEventReasons", lambda _: 0x8004, raising=False
    )
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    seen = gpu.PyNvml().conditions("GPU-0").clock_events
    assert seen == {"sw_power_cap", "unknown_0x8000"}


def test_no_driver_means_no_cards(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", FakePynvml(driver=False, failing=True))
    assert gpu.PyNvml().cards() == []


def test_failing_nvml_is_our_failure(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", FakePynvml(failing=True))
    nvml = gpu.PyNvml()
    calls = [nvml.used_share, nvml.conditions, nvml.occupants, lambda uuid: nvml.windows(uuid, 0)]
    for call in (nvml.cards, *(functools.partial(call, "GPU-0") for call in calls)):
        with pytest.raises(SpeedtrapError, match="GPU is lost; does `nvidia-smi` work"):
            call()


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({}, None),
        ({"used_bytes": GIB}, None),
        ({"utilisation_percent": 5}, None),
        ({"used_bytes": GIB + 1}, "has 1.0 GiB of its memory in use"),
        ({"utilisation_percent": 6}, "is 6 % busy"),
        ({"occupants": (Occupant(7, 0),)}, "is used by process 7"),
        ({"occupants": (Occupant(7, 0), Occupant(9, 5))}, "is used by process 7, 9"),
    ],
)
def test_a_card_is_busy_for_a_reason(changes, why):
    assert card(**changes).busy_because() == why


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("auto", ("auto", None)),
        ("cpu", ("cpu", None)),
        ("cuda", ("cuda", None)),
        ("cuda:0", ("cuda", 0)),
        ("cuda:12", ("cuda", 12)),
    ],
)
def test_devices_that_can_be_asked_for(text, expected):
    request = Request.parse(text, 3.0)
    assert (request.kind, request.index, request.wait_s) == (*expected, 3.0)


@pytest.mark.parametrize(
    "text", ["", "gpu", "CUDA", "cuda:", "cuda:-1", "cuda:x", "cpu:0", "auto:1"]
)
def test_devices_that_cannot_be_read(text):
    with pytest.raises(SpeedtrapError, match="write auto, cpu, cuda or cuda:N"):
        Request.parse(text, 0)


def test_one_card_may_be_the_only_one_that_will_do():
    cards = [card(0), card(1), card(2)]
    request = Request("cuda", None, 0.0, only=cards[1].uuid)
    with gpu.lease(request, FakeNvml(cards), lambda _: None) as held:
        assert held.device.uuid == cards[1].uuid
    other = Request("cuda", None, 0.0, only="GPU-of-another-host")
    with gpu.lease(other, FakeNvml(cards), lambda _: None) as held:
        assert held.device.uuid in {one.uuid for one in cards}


@pytest.mark.parametrize(("allowed", "timed"), [({3, 1, 2}, (2, 3)), ({0, 1}, (1,)), ({5}, (5,))])
def test_the_first_core_is_left_for_the_controller(monkeypatch, allowed, timed):
    monkeypatch.setattr("os.sched_getaffinity", lambda _pid: allowed)
    for kind, nvml in (("cpu", FakeNvml([])), ("cuda", FakeNvml([card(3)]))):
        with lease(kind, nvml) as held:
            assert held.device.cores == timed


def test_a_lease_tells_all_about_its_card():
    with lease("cuda", FakeNvml([card(3)])) as held:
        device = held.device
        assert (device.kind, device.index, device.uuid) == ("cuda", 3, "GPU-3")
        assert (device.name, device.driver) == ("Fake H200", "580.1")
        assert (device.memory_bytes, held.minor) == (140 * GIB, 7)


@pytest.mark.parametrize(
    ("device", "cards", "avoid", "expected"),
    [
        ("auto", [card(0), card(1)], (), 0),
        ("cuda", [busy(0), card(1)], (), 1),
        ("cuda", [card(0, used_bytes=900 * MIB), card(1)], (), 1),
        ("cuda:1", [card(0), card(1)], (), 1),
        ("cuda", [card(0), card(1)], ("GPU-0",), 1),
        ("cuda", [card(0), busy(1)], ("GPU-0",), 0),
        ("cuda", [card(0)], ("GPU-0",), 0),
    ],
)
def test_choice_of_a_card(device, cards, avoid, expected):
    with lease(device, FakeNvml(cards), avoid=frozenset(avoid)) as held:
        assert held.device.index == expected


def test_auto_falls_back_to_the_cpu():
    with lease("auto") as held:
        assert (held.device.kind, held.device.index, held.minor) == ("cpu", None, None)
        assert held.device.name == gpu.cpu_name()
        assert "cores" in held.device.name


def test_auto_waits_for_a_card_rather_than_take_the_cpu():
    with pytest.raises(SpeedtrapError, match="cuda:0 is used"), lease("auto", FakeNvml([busy()])):
        pass


def test_cpu_is_not_kept_from_us_by_busy_cards():
    with lease("cpu", FakeNvml([busy()])) as held:
        assert held.device.kind == "cpu"


@pytest.mark.parametrize("device", ["cuda", "cuda:0"])
def test_no_card_at_all_is_told_at_once(device, clock):
    with pytest.raises(SpeedtrapError, match="use --device cpu"), lease(device, wait_s=600):
        pass
    assert clock.slept == []


def test_unknown_index_names_the_known_ones(clock):
    nvml = FakeNvml([card(0), card(1)])
    with (
        pytest.raises(SpeedtrapError, match="no cuda:5 here; there are cuda:0, cuda:1"),
        lease("cuda:5", nvml, wait_s=600),
    ):
        pass
    assert clock.slept == []


@pytest.mark.parametrize(
    ("allowed", "expected"),
    [
        ("0", [0]),
        ("1,0", [1, 0]),
        (" 1 , 2 ", [1, 2]),
        ("GPU-1", [1]),
        ("GPU-2,GPU-0", [2, 0]),
        ("GPU-", []),
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),
        ("0,-1,1", [0]),
        ("0,7,1", [0]),
        ("1,MIG-2", [1]),
    ],
)
def test_visible_cards_are_those_that_cuda_would_show(allowed, expected):
    cards = [card(0), card(1), card(2)]
    assert [one.index for one in gpu._visible(cards, allowed)] == expected  # noqa: SLF001


def test_only_visible_cards_are_leased(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,1")
    nvml = FakeNvml([card(0), card(1), busy(2)])
    with lease("cuda", nvml) as held:
        assert held.device.index == 1
    with (
        pytest.raises(SpeedtrapError, match=r"no cuda:0 here; there are cuda:2, cuda:1 \(by CUDA"),
        lease("cuda:0", nvml),
    ):
        pass


@pytest.mark.parametrize("allowed", ["", "-1", "9"])
def test_no_visible_card_means_the_cpu_or_an_error(monkeypatch, allowed):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", allowed)
    nvml = FakeNvml([card(0), card(1)])
    with lease("auto", nvml) as held:
        assert held.device.kind == "cpu"
    with (
        pytest.raises(SpeedtrapError, match="allows none of cuda:0, cuda:1; unset it"),
        lease("cuda", nvml),
    ):
        pass


def test_waiting_ends_at_the_deadline_with_every_reason(clock):
    nvml = FakeNvml([busy(0), card(1, utilisation_percent=50)])
    with (
        pytest.raises(SpeedtrapError, match=r"within 5 s: cuda:0 is used.*; cuda:1 is 50 % busy"),
        lease("cuda", nvml, wait_s=5),
    ):
        pass
    assert clock.now_s == 5


def test_waiting_ends_when_a_card_is_free(clock):
    told = []
    nvml = FakeNvml([busy()], [busy()], [card(utilisation_percent=9)], [card()])
    with lease("cuda", nvml, wait_s=60, tell=told.append):
        assert clock.slept == [gpu.POLL_PERIOD_S] * 3
    assert told == [
        "waiting for a free device (cuda:0 is used by process 1)",
        "waiting for a free device (cuda:0 is 9 % busy)",
    ]


def test_a_held_card_is_not_leased_again():
    nvml = FakeNvml([card(0), card(1)])
    with lease("cuda", nvml) as one, lease("cuda", nvml) as other:
        assert {one.device.index, other.device.index} == {0, 1}
        with (
            pytest.raises(SpeedtrapError, match="cuda:0 held by another Speedtrap; cuda:1 held"),
            lease("cuda", nvml),
        ):
            pass
    with lease("cuda", nvml) as again:
        assert again.device.index == 0


def test_there_is_one_cpu_slot():
    with lease("cpu"):
        with pytest.raises(SpeedtrapError, match="CPU slot is held"), lease("cpu"):
            pass
        with lease("cuda", FakeNvml([card()])):
            pass
    with lease("cpu"):
        pass


def test_a_lease_is_given_back_after_an_error():
    with contextlib.suppress(KeyError), lease("cpu"):
        raise KeyError
    with lease("cpu"):
        pass


def test_a_lock_is_gone_with_its_process(locks):
    code = (
        "import pathlib, sys; from runner import gpu\n"
        "gpu.LOCKS = pathlib.Path(sys.argv[1])\n"
        "with gpu.lease(gpu.Request.parse('cpu', 0), None, print):\n"
        "    print('held', flush=True); sys.stdin.read()\n"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(locks)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(paths.ROOT)},
    )
    with holder:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(SpeedtrapError, match="CPU slot is held"), lease("cpu"):
            pass
        holder.kill()
        holder.wait()
    with lease("cpu"):
        pass


def test_a_child_does_not_keep_the_lock():
    with lease("cpu"):
        child = subprocess.Popen([sys.executable, "-IS", "-c", "input()"], stdin=subprocess.PIPE)
    with child, lease("cpu"):
        child.stdin.close()


def test_locks_are_open_to_all_users(locks):
    with lease("cpu"):
        assert locks.stat().st_mode & 0o7777 == 0o1777


def test_a_lock_that_cannot_be_made_is_our_failure(locks):
    locks.touch()
    with pytest.raises(SpeedtrapError, match="cannot make the lock"), lease("cpu"):
        pass


def test_a_link_in_place_of_a_lock_is_not_followed(locks, tmp_path):
    locks.mkdir()
    (locks / "cpu.lock").symlink_to(tmp_path / "target")
    with pytest.raises(SpeedtrapError, match="cannot make the lock"), lease("cpu"):
        pass
    assert not (tmp_path / "target").exists()


SHARED_FULL = Seen(used_share=0.8)
FOREIGN = Seen(foreign_bytes=gpu.FOREIGN_BYTES)
NOTHING = Seen(foreign_bytes=gpu.FOREIGN_BYTES - 1, used_share=0.79)


@pytest.mark.parametrize("phase", [Phase.IMPORTS, Phase.LOAD, Phase.WARMUP])
@pytest.mark.parametrize(
    ("seen", "shared", "expected"),
    [
        (FOREIGN, True, Again(alone=False, avoid_card=True)),
        (FOREIGN, False, Again(alone=True, avoid_card=True)),
        (SHARED_FULL, True, Again(alone=True, avoid_card=False)),
        (SHARED_FULL, False, None),
        (NOTHING, True, None),
        (NOTHING, False, None),
        (Seen(), True, None),
        (Seen(foreign_pids=frozenset({1})), True, None),
    ],
)
def test_out_of_memory_policy(phase, seen, shared, expected):
    assert gpu.after_loss(Verdict.OOM, phase, seen, shared_with_baseline=shared) == expected


@pytest.mark.parametrize("phase", list(Phase))
@pytest.mark.parametrize("shared", [True, False])
def test_the_words_out_of_memory_never_buy_a_retry(phase, shared):
    assert gpu.after_loss(Verdict.OOM, phase, Seen(), shared_with_baseline=shared) is None


@pytest.mark.parametrize("phase", [Phase.TIMED, Phase.EXIT])
@pytest.mark.parametrize("seen", [FOREIGN, SHARED_FULL])
@pytest.mark.parametrize("shared", [True, False])
def test_nothing_is_run_again_after_the_first_timed_batch(phase, seen, shared):
    assert gpu.after_loss(Verdict.OOM, phase, seen, shared_with_baseline=shared) is None


@pytest.mark.parametrize("verdict", sorted(set(Verdict) - {Verdict.OOM}))
def test_nothing_but_out_of_memory_is_run_again(verdict):
    seen = Seen(foreign_bytes=GIB, used_share=1.0)
    assert gpu.after_loss(verdict, Phase.LOAD, seen, shared_with_baseline=True) is None


def test_this_process_and_its_children_are_not_foreign():
    child = subprocess.Popen([sys.executable, "-IS", "-c", "input()"], stdin=subprocess.PIPE)
    with child:
        assert not gpu.is_foreign(os.getpid())
        assert not gpu.is_foreign(child.pid)
        child.stdin.close()


def test_a_process_above_this_one_is_foreign():
    assert gpu.is_foreign(os.getppid())


def test_a_process_that_is_not_visible_is_not_called_foreign():
    assert not gpu.is_foreign(2**22 + 1)


def test_seen_keeps_the_most_of_every_look(monkeypatch):
    monkeypatch.setattr(gpu, "is_foreign", lambda pid: pid >= 100)
    looks = [
        card(used_bytes=14 * GIB, occupants=(Occupant(1, 9 * GIB), Occupant(100, GIB))),
        card(used_bytes=70 * GIB, occupants=(Occupant(101, GIB), Occupant(102, 2 * GIB))),
        card(used_bytes=7 * GIB, occupants=(Occupant(1, 90 * GIB),)),
    ]
    seen = Seen()
    for look in looks:
        seen = seen.and_also(look)
    assert seen == Seen(3 * GIB, frozenset({100, 101, 102}), 0.5)


def test_watch_looks_at_its_own_card_only(monkeypatch):
    monkeypatch.setattr(gpu, "WATCH_PERIOD_S", 0)
    monkeypatch.setattr(gpu, "is_foreign", lambda _: True)
    looked = threading.Event()
    looks = iter(range(3))

    class Looked(FakeNvml):
        def cards(self):
            if next(looks, None) is None:
                looked.set()
            return super().cards()

    monkeypatch.setattr(gpu, "MEMORY_PERIOD_S", 0.001)
    mine = card(0, used_bytes=70 * GIB, occupants=(Occupant(5, GIB),))
    other = card(1, used_bytes=140 * GIB, occupants=(Occupant(6, 2 * GIB),))
    with gpu.Watch(Looked([mine, other]), "GPU-0") as watch:
        assert looked.wait(30)
    assert watch.seen == Seen(GIB, frozenset({5}), 0.5)


def test_watch_on_a_cpu_run_looks_at_nothing():
    with gpu.Watch(None, None) as watch:
        pass
    assert watch.seen == Seen()


def test_watch_reads_memory_more_often_than_it_looks_around(monkeypatch):
    monkeypatch.setattr(gpu, "time", time)
    monkeypatch.setattr(gpu, "MEMORY_PERIOD_S", 0.001)
    peak = threading.Event()

    class FullForAMoment(FakeNvml):
        reads = 0
        looks = 0

        def cards(self):
            self.looks += 1
            return super().cards()

        def used_share(self, uuid):
            self.reads += 1
            if self.reads == 20:
                peak.set()
                return 0.97
            return super().used_share(uuid)

    nvml = FullForAMoment([card(0)])
    with gpu.Watch(nvml, "GPU-0") as watch:
        assert peak.wait(30)
    assert gpu.was_full(watch.seen)
    assert nvml.looks < 20


def test_watch_that_fails_says_so(monkeypatch):
    monkeypatch.setattr(gpu, "MEMORY_PERIOD_S", 0.001)
    failed = threading.Event()

    class Failing(FakeNvml):
        def used_share(self, _uuid):
            failed.set()
            raise SpeedtrapError("NVML failed")

    with gpu.Watch(Failing([card(0)]), "GPU-0") as watch:
        assert failed.wait(30)
    assert watch.blind_because == "NVML failed"


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        (Seen(), False),
        (Seen(used_share=0.79), False),
        (Seen(used_share=0.8), True),
        (Seen(foreign_bytes=gpu.FOREIGN_BYTES - 1), False),
        (Seen(foreign_bytes=gpu.FOREIGN_BYTES), True),
        (Seen(foreign_pids=frozenset({1})), False),
    ],
)
def test_an_out_of_memory_is_believed_for_what_was_seen(seen, expected):
    assert gpu.was_full(seen) is expected


def every_20_ms(*percents):
    """Windows from 10 ms before the clock's start on."""
    starts = range(-10_000, 10**9, 20_000)
    return [
        Window(start, start + 20_000, percent)
        for start, percent in zip(starts, percents, strict=False)
    ]


@pytest.mark.parametrize(
    ("percents", "busy_s", "waited_s"),
    [
        ([0] * 9, 0.0, 0.03),
        ([100] + [0] * 9, 0.0, 0.03),
        ([100, 5, 0], 0.0, 0.03),
        ([100, 6, 0], 0.03, 0.05),
        ([100, 100, 100, 100, 0], 0.07, 0.09),
        ([0, 0, 100, 100], 0.0, 0.03),
        ([100] * 100, 1.0, 1.0),
    ],
)
def test_work_is_waited_out_from_the_first_window_that_is_all_ours(
    clock, percents, busy_s, waited_s
):
    nvml = FakeNvml([card()], busy=every_20_ms(*percents), now_us=lambda: clock.time_ns() // 1000)
    idle = Idle(nvml, "GPU-0")
    assert idle.wait_until_idle(1.0) == pytest.approx(busy_s, abs=0.001)
    assert clock.now_s == pytest.approx(waited_s, abs=gpu.IDLE_POLL_S)
    assert idle.blind_because == ""


def test_on_a_cpu_run_nothing_is_waited_for(clock):
    assert Idle(None, None).wait_until_idle(9.0) == 0
    assert clock.slept == []


def test_a_driver_that_says_nothing_is_asked_again_each_time(clock):
    idle = Idle(FakeNvml([card()]), "GPU-0")
    assert idle.wait_until_idle(9.0) == 0
    assert clock.now_s == pytest.approx(gpu.FIRST_WINDOW_S, abs=2 * gpu.IDLE_POLL_S)
    assert "said nothing of how busy the card is" in idle.blind_because
    waited_s = clock.now_s
    assert idle.wait_until_idle(9.0) == 0
    assert clock.now_s == pytest.approx(2 * waited_s, abs=2 * gpu.IDLE_POLL_S)


def test_a_driver_that_cannot_tell_is_noted(monkeypatch, clock):
    monkeypatch.setitem(sys.modules, "pynvml", FakePynvml(failing=True))
    idle = Idle(gpu.PyNvml(), "GPU-0")
    assert idle.wait_until_idle(9.0) == 0
    assert "GPU is lost" in idle.blind_because
    assert clock.slept == []
