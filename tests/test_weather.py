import dataclasses
import itertools
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_gpu import GIB, FakeNvml, card

from runner import processes, weather
from runner.gpu import Conditions, Occupant, Window
from runner.processes import Process
from runner.records import Device, SpeedtrapError
from runner.weather import Cost, Host, Limits, Station, Tally, Times, Weather

CPU = Device(kind="cpu", name="Fake CPU")
CUDA = Device(kind="cuda", name="Fake H200", uuid="GPU-0")
OTHER_PID = os.getppid()

STAT = b"""\
cpu  2400 300 700 9000 50 60 70 800 5 0
cpu0 1000 100 300 4000 20 30 30 300 5 0
cpu1 1000 100 300 4000 20 20 30 300 0 0
cpu10 400 100 100 1000 10 10 10 200 0 0
intr 12345 1 2 3
ctxt 9
"""
SETTINGS = ("gpu_idle", "application_clocks_setting", "display_clock_setting")
NORMAL = ("sw_power_cap", "board_limit", "reliability", *SETTINGS)
BURN = "while True: pass"
BURN_IN_UNAWAITED_CHILDREN = """\
import os, signal, time
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
while True:
    if not (pid := os.fork()):
        end_s = time.process_time() + 0.05
        while time.process_time() < end_s: pass
        os._exit(0)
    try: os.waitpid(pid, 0)
    except ChildProcessError: pass
"""
BURN_IN_AWAITED_CHILDREN = BURN_IN_UNAWAITED_CHILDREN.replace("SIG_IGN", "SIG_DFL")


class FakeTime:
    """The clocks that `weather` reads; only the test moves them."""

    def __init__(self):
        self.now_s = 100.0

    def monotonic(self):
        return self.now_s

    def time(self):
        return self.now_s

    def time_ns(self):
        return round(self.now_s * 1e9)

    def thread_time(self):
        return 0.0

    def sleep(self, seconds):
        self.now_s += seconds


@pytest.fixture
def clock(monkeypatch):
    clock = FakeTime()
    monkeypatch.setattr(weather, "time", clock)
    return clock


@pytest.fixture
def proc(tmp_path):
    """Return a folder like /proc, with two cores and this process; `times` are in ticks."""

    class Proc:
        path = tmp_path / "proc"

        def set(self, busy=0, steal=0, load=0.5, **processes):
            self.path.mkdir(exist_ok=True)
            core = f"{busy} 0 0 1000 0 0 0 {steal} 0 0"
            lines = f"cpu  {core}\ncpu0 {core}\ncpu1 0 0 0 1000 0 0 0 0 0 0\nintr 5\n"
            (self.path / "stat").write_text(lines)
            (self.path / "loadavg").write_text(f"{load} 0.4 0.3 1/100 1234\n")
            for name, ticks in processes.items():
                folder = self.path / name.removeprefix("pid")
                folder.mkdir(exist_ok=True)
                (folder / "stat").write_bytes(stat_line(int(folder.name), *ticks))

        def host(self, *pids):
            return Host(ours=lambda: pids, cores=frozenset({0, 1}), proc=self.path)

    return Proc()


def stat_line(pid, *ticks, started=77):
    """Make the text of /proc/PID/stat; `ticks` are user, system, and both of what was reaped."""
    times = (*ticks, 0, 0, 0, 0)[:4]
    fields = ["S", *["1"] * 10, *times, 20, 0, 1, 0, started, 0]
    return f"{pid} (a) b) c) {' '.join(map(str, fields))}\n".encode()


def fair(**changes):
    return Weather(**({"wall_s": 2.0, "looks": 10} | changes))


def seen(**changes):
    normal = Conditions(
        used_bytes=GIB,
        sm_clock_mhz=1900,
        max_sm_clock_mhz=1980,
        memory_clock_mhz=3201,
        clock_events=frozenset(),
        temperature_c=50,
        power_w=400.0,
        energy_j=1000.0,
    )
    return dataclasses.replace(normal, **changes)


def script(*conditions):
    """Let each look at a card see the next of `conditions`; the last one stays."""
    left = list(conditions)
    return lambda: left.pop(0) if len(left) > 1 else left[0]


def look_each_second(station, clock, count):
    for _ in range(count):
        station.look()
        clock.now_s += 1.0


def test_cores_that_are_not_asked_for_do_not_count():
    assert weather.read_cores(STAT, {0, 10}) == (20.0, 5.0)
    assert weather.read_cores(STAT, {1}) == (14.0, 3.0)


@pytest.mark.parametrize(
    "text", [b"", b"intr 1 2\n", b"cpu  0 0 0 0\ncpu0 0 0 0 0 0 0 0 0\n", STAT]
)
def test_a_host_that_shows_no_times_of_these_cores_is_not_known(text):
    assert weather.read_cores(text, {7} if text == STAT else {0}) is None


def test_a_kernel_without_steal_time_steals_nothing():
    assert weather.read_cores(b"cpu0 100 0 0 4000\n", {0}) == (1.0, 0.0)


def test_times_of_a_process_with_a_name_made_to_mislead():
    assert weather.read_times(stat_line(5, 100, 50, 7, 3, started=9)) == (
        Process(5, 9),
        Times(1.5, 0.1),
    )


@pytest.mark.parametrize("text", [b"", b"5 (name", b"5 (name) S 1 1"])
def test_a_process_that_went_has_no_times(text):
    assert weather.read_times(text) is None


def test_times_of_this_process_are_those_that_python_knows():
    content = (weather.Path("/proc/self/stat")).read_bytes()
    process, times = weather.read_times(content)
    assert process == processes.identify(os.getpid())
    assert times.own_s == pytest.approx(time.process_time(), abs=0.05)


class TestTally:
    A, B, C = Process(1, 1), Process(2, 1), Process(3, 1)

    def test_what_was_used_before_the_first_look_does_not_count(self):
        assert Tally().add({self.A: Times(100.0, 50.0)}) == 0

    def test_a_child_counts_from_its_start(self):
        tally = Tally()
        tally.add({self.A: Times(1.0, 0.0)})
        assert tally.add({self.A: Times(1.5, 0.0), self.B: Times(2.0, 0.25)}) == 2.75

    def test_a_child_that_ends_counts_once(self):
        tally = Tally()
        tally.add({self.A: Times(1.0, 0.0), self.B: Times(2.0, 0.5)})
        assert tally.add({self.A: Times(1.0, 3.25)}) == 0.75

    def test_a_child_that_came_and_went_counts(self):
        tally = Tally()
        tally.add({self.A: Times(1.0, 0.0)})
        assert tally.add({self.A: Times(1.0, 4.0)}) == 4

    def test_a_child_that_nobody_waited_for_takes_nothing_back(self):
        tally = Tally()
        tally.add({self.A: Times(1.0, 0.0), self.B: Times(2.0, 0.0)})
        tally.add({self.A: Times(1.5, 0.0), self.B: Times(3.0, 0.0)})
        assert tally.add({self.A: Times(1.75, 0.0)}) == 1.75

    def test_a_pid_that_is_used_again_is_another_process(self):
        tally = Tally()
        tally.add({self.A: Times(0.0, 0.0), self.B: Times(5.0, 0.0)})
        assert tally.add({self.A: Times(0.0, 5.0), Process(2, 9): Times(0.5, 0.0)}) == 0.5

    @given(st.lists(st.lists(st.floats(0, 10), min_size=3, max_size=3), max_size=10))
    def test_it_never_falls(self, rounds):
        tally = Tally()
        known = zip((self.A, self.B, self.C), itertools.repeat(0.0), strict=False)
        totals = [tally.add({one: Times(own_s, own_s) for one, own_s in known})]
        for own_s in rounds:
            alive = [pair for pair in zip((self.A, self.B, self.C), own_s, strict=True) if pair[1]]
            totals.append(tally.add({one: Times(own_s, own_s) for one, own_s in alive}))
        assert totals == sorted(totals)


def test_load_that_is_not_ours_is_foreign(clock, proc):
    proc.set(busy=1000, steal=0, pid7=(100, 0), pid8=(0, 0))
    station = Station(FakeNvml([]), CPU, proc.host(7, 8))
    station.look()
    clock.now_s += 2.0
    proc.set(busy=1200, steal=40, load=1.25, pid7=(150, 0), pid8=(20, 10))
    seen = station.between(100.0, 102.0)
    assert seen.foreign_cores == pytest.approx(0.6)  # (2.0 - 0.5 - 0.3) s in 2 s
    assert seen.steal_cores == pytest.approx(0.2)
    assert seen.free_cores == pytest.approx(1.2)
    assert (seen.load_1min, seen.wall_s, seen.looks) == (1.25, 2.0, 0)


def test_our_own_load_is_not_foreign(clock, proc):
    proc.set(busy=1000, pid7=(100, 0))
    station = Station(FakeNvml([]), CPU, proc.host(7))
    station.look()
    clock.now_s += 1.0
    proc.set(busy=1100, pid7=(202, 0))
    assert station.between(100.0, 101.0).foreign_cores == 0


def test_only_looks_around_the_batch_tell_of_it(clock, proc):
    station = Station(FakeNvml([]), CPU, proc.host())
    for busy in (0, 100, 120, 220):
        proc.set(busy=busy)
        station.look()
        clock.now_s += 1.0
    assert station.between(101.0, 102.0).foreign_cores == pytest.approx(0.2)
    assert station.between(101.2, 101.8).foreign_cores == pytest.approx(0.2)
    assert station.between(100.5, 101.5).foreign_cores == pytest.approx(0.6)


def test_a_host_without_proc_is_not_known(clock, tmp_path):
    host = Host(ours=lambda: [1], cores=frozenset({0}), proc=tmp_path)
    station = Station(FakeNvml([]), CPU, host)
    station.look()
    clock.now_s += 1.0
    seen = station.between(100.0, 101.0)
    assert seen == Weather(wall_s=1.0, looks=0)
    assert weather.marks(seen, Limits.of(CPU, 2)) == ()


def test_a_batch_before_the_first_look_is_not_known(clock, proc):
    proc.set(busy=10)
    station = Station(FakeNvml([[card()]][0], conditions_now=seen), CUDA, proc.host())
    clock.now_s += 1.0
    station.look()
    clock.now_s += 1.0
    told = station.between(100.0, 101.5)
    assert (told.energy_j, told.foreign_cores, told.foreign_pids) == (None, None, None)


def test_what_the_card_was_like(clock, proc):
    proc.set()
    now = script(
        seen(temperature_c=90, sm_clock_mhz=345, power_w=90.0),  # before the batch
        seen(energy_j=1000.0, sm_clock_mhz=1900, used_bytes=GIB),
        seen(energy_j=1400.0, sm_clock_mhz=1500, used_bytes=3 * GIB, temperature_c=60),
        seen(energy_j=2200.0, sm_clock_mhz=1980, clock_events=frozenset({"sw_power_cap"})),
        seen(energy_j=9000.0, temperature_c=91),  # after it
    )
    station = Station(FakeNvml([card()], conditions_now=now), CUDA, proc.host())
    look_each_second(station, clock, 5)
    told = station.between(101.0, 103.0)
    assert told.looks == 3
    assert told.sm_clock_mhz_mean == pytest.approx((1900 + 1500 + 1980) / 3)
    assert (told.sm_clock_mhz_min, told.sm_clock_mhz_limit) == (1500, 1980)
    assert (told.temperature_c_max, told.used_bytes_max) == (60, 3 * GIB)
    assert told.memory_clock_mhz_min == 3201
    assert told.energy_j == pytest.approx(1200.0)
    assert told.power_w_mean == pytest.approx(600.0)
    assert told.clock_events == ("sw_power_cap",)
    assert told.foreign_pids == ()


def test_energy_within_two_looks_is_shared_out_evenly(clock, proc):
    proc.set()
    now = script(seen(energy_j=0.0), seen(energy_j=100.0), seen(energy_j=400.0))
    station = Station(FakeNvml([card()], conditions_now=now), CUDA, proc.host())
    look_each_second(station, clock, 3)
    assert station.between(100.25, 101.5).energy_j == pytest.approx(75 + 150)
    assert station.between(100.25, 100.5).energy_j == pytest.approx(25)


@pytest.mark.parametrize("last", [None, 3.0])
def test_energy_that_the_card_does_not_count_is_not_known(clock, proc, last):
    proc.set()
    now = script(seen(energy_j=10.0, power_w=1.0), seen(energy_j=last, power_w=350.0))
    station = Station(FakeNvml([card()], conditions_now=now), CUDA, proc.host())
    look_each_second(station, clock, 2)
    told = station.between(100.5, 101.0)
    assert (told.energy_j, told.power_w_mean) == (None, 350.0)


def test_a_card_that_tells_nothing_is_not_known(clock, proc):
    proc.set()
    station = Station(FakeNvml([card()]), CUDA, proc.host())
    look_each_second(station, clock, 2)
    told = station.between(100.0, 101.0)
    known = told.model_dump(exclude_none=True)
    assert set(known) == {
        "wall_s",
        "looks",
        "foreign_pids",
        "foreign_cores",
        "free_cores",
        "steal_cores",
        "load_1min",
    }
    assert weather.marks(told, Limits.of(CUDA, 16)) == ()


def test_utilisation_is_that_of_the_batch(clock, proc):
    proc.set()
    quarter = 250_000
    busy = [
        Window(at_us, at_us + quarter, percent)
        for at_us, percent in zip(
            range(100_000_000, 102_000_000, quarter), (0, 0, 80, 90, 100, 90, 0, 0), strict=True
        )
    ]
    nvml = FakeNvml([card()], busy=busy, now_us=lambda: clock.now_s * 1e6)
    station = Station(nvml, CUDA, proc.host())
    look_each_second(station, clock, 3)
    assert station.between(100.5, 101.5).utilisation_percent == pytest.approx(90.0)
    assert station.between(100.25, 101.25).utilisation_percent == pytest.approx(67.5)


def test_utilisation_of_which_the_driver_told_too_little_is_not_known(clock, proc):
    proc.set()
    busy = [Window(100_000_000, 100_400_000, 50)]
    station = Station(FakeNvml([card()], busy=busy), CUDA, proc.host())
    look_each_second(station, clock, 2)
    assert station.between(100.0, 101.0).utilisation_percent is None
    assert station.between(100.0, 100.8).utilisation_percent == 50


def test_a_process_of_somebody_else_on_the_card_is_foreign(clock, proc):
    proc.set()
    ours, other = Occupant(os.getpid(), 2 * GIB), Occupant(OTHER_PID, GIB)
    quiet, shared = [card(occupants=(ours,))], [card(occupants=(ours, other))]
    station = Station(FakeNvml(quiet, quiet, shared, quiet), CUDA, proc.host(os.getpid()))
    look_each_second(station, clock, 4)
    assert station.between(102.0, 103.0).foreign_pids == (OTHER_PID,)
    assert station.between(100.0, 101.0).foreign_pids == ()


def test_our_processes_stay_ours_when_they_lose_their_parents(clock, proc):
    proc.set()
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        on_it = [card(occupants=(Occupant(child.pid, GIB),))]
        pids = [child.pid]
        host = Host(ours=lambda: list(pids), cores=frozenset({0}), proc=proc.path)
        station = Station(FakeNvml(on_it), CUDA, host)
        station.look()
        clock.now_s += 1.0
        pids.clear()
        assert station.between(100.0, 101.0).foreign_pids == ()
    finally:
        child.communicate(b"\n")


def test_memory_of_the_side_that_was_measured(clock, proc):
    proc.set()
    moments = [
        [card(occupants=(Occupant(11, used * GIB), Occupant(12, GIB), Occupant(20, 9 * GIB)))]
        for used in (7, 1, 4, 2)
    ]
    station = Station(FakeNvml(*moments), CUDA, proc.host(11, 12, 20))
    look_each_second(station, clock, 4)
    assert station.between(101.0, 103.0, {11, 12}).worker_bytes_max == 5 * GIB
    assert station.between(101.0, 103.0, {99}).worker_bytes_max is None
    assert station.between(101.0, 103.0).worker_bytes_max is None


class FailingNvml(FakeNvml):
    def conditions(self, _uuid):
        message = "NVML failed: GPU is lost"
        raise SpeedtrapError(message)


def test_where_nvml_fails_the_host_is_still_looked_at(clock, proc):
    proc.set(busy=0)
    station = Station(FailingNvml([card()]), CUDA, proc.host())
    station.look()
    clock.now_s += 1.0
    proc.set(busy=50)
    told = station.between(100.0, 101.0)
    assert station.blind_because == "NVML failed: GPU is lost"
    assert (told.looks, told.foreign_cores) == (0, 0.5)


def test_before_a_run_a_card_that_does_not_tell_is_no_reason_to_fail(clock, proc):
    proc.set()
    assert weather.before(FailingNvml([card()]), CUDA, proc.host()) == ()
    assert clock.now_s <= 100.3


class TestMarks:
    HERE = Limits.of(CPU, 2)
    GPU_HOST = Limits.of(CUDA, 16)

    def test_fair_weather_has_none(self):
        told = fair(
            clock_events=NORMAL,
            temperature_c_max=80,
            foreign_pids=(),
            foreign_cores=0.1,
            steal_cores=0.05,
            free_cores=1.9,
        )
        assert weather.marks(told, self.HERE) == ()

    @pytest.mark.parametrize("event", sorted(weather.SLOWDOWNS))
    def test_each_slowdown_is_one(self, event):
        told = fair(
            clock_events=(event, "sw_power_cap"),
            sm_clock_mhz_min=1200,
            sm_clock_mhz_limit=1980,
            temperature_c_max=88,
        )
        (mark,) = weather.marks(told, self.GPU_HOST)
        assert f"({event}) at 1200 of 1980 MHz, at 88 C: let it cool down" in mark

    def test_a_slowdown_of_a_card_that_says_nothing_else(self):
        (mark,) = weather.marks(fair(clock_events=("sync_boost",)), self.GPU_HOST)
        assert mark.startswith("the card slowed down (sync_boost): ")

    def test_a_foreign_process_on_the_card_is_one(self):
        (mark,) = weather.marks(fair(foreign_pids=(7, 9)), self.GPU_HOST)
        assert (
            mark
            == "the card was shared with process 7, 9: end it, or take another card by --device"
        )

    def test_foreign_load_on_a_cpu_run_is_one(self):
        (mark,) = weather.marks(fair(foreign_cores=0.8), self.HERE)
        assert "0.8 of 2 cores busy, fair is up to 0.15: end them, or wait" in mark

    def test_beside_a_gpu_foreign_load_is_welcome_on_cores_that_nobody_needs(self):
        assert weather.marks(fair(foreign_cores=13.5), self.GPU_HOST) == ()
        (mark,) = weather.marks(fair(foreign_cores=14.5), self.GPU_HOST)
        assert "14.5 of 16 cores busy, fair is up to 14" in mark

    def test_beside_a_gpu_a_small_host_has_none_to_spare(self):
        assert len(weather.marks(fair(foreign_cores=0.8), Limits.of(CUDA, 2))) == 1

    def test_steal_is_one(self):
        (mark,) = weather.marks(fair(steal_cores=0.5), self.HERE)
        assert "the hypervisor gave 0.5 of 2 cores to others" in mark

    def test_a_short_batch_is_not_marked_for_what_ticks_cannot_tell(self):
        assert weather.marks(fair(wall_s=0.1, foreign_cores=0.4), self.HERE) == ()
        assert len(weather.marks(fair(wall_s=10.0, foreign_cores=0.4), self.HERE)) == 1

    def test_what_is_not_known_is_none(self):
        assert weather.marks(fair(), self.HERE) == ()


def test_a_throttle_is_seen_and_marked(clock, proc):
    proc.set()
    slowed = seen(
        clock_events=frozenset({"sw_thermal_slowdown"}), sm_clock_mhz=900, temperature_c=89
    )
    station = Station(
        FakeNvml([card()], conditions_now=script(seen(), seen(), slowed, seen())), CUDA, proc.host()
    )
    look_each_second(station, clock, 4)
    limits = Limits.of(CUDA, 16)
    (mark,) = weather.marks(station.between(101.5, 102.5), limits)
    assert "sw_thermal_slowdown) at 900 of 1980 MHz, at 89 C" in mark
    assert weather.marks(station.between(100.0, 101.0), limits) == ()


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ({"gpu_idle", "hw_slowdown"}, ()),
        ({"gpu_idle", "hw_slowdown", "hw_thermal_slowdown"}, ("hw_thermal_slowdown",)),
        ({"hw_slowdown"}, ("hw_slowdown",)),
        ({"gpu_idle"}, ()),
    ],
)
def test_an_idle_card_that_changes_its_clocks_is_not_slowed_down(clock, proc, events, expected):
    proc.set()
    now = script(seen(clock_events=frozenset(events)))
    station = Station(FakeNvml([card()], conditions_now=now), CUDA, proc.host())
    look_each_second(station, clock, 2)
    assert station.between(100.0, 101.0).clock_events == expected


@pytest.mark.usefixtures("clock")
def test_before_a_run_a_hot_card_and_a_stranger_are_told(proc):
    proc.set()
    now = script(seen(clock_events=frozenset({"hw_thermal_slowdown"})))
    nvml = FakeNvml([card(occupants=(Occupant(OTHER_PID, GIB),))], conditions_now=now)
    found = weather.before(nvml, CUDA, proc.host())
    assert [one.split(":")[0] for one in found] == [
        "the card slowed down (hw_thermal_slowdown) at 1900 of 1980 MHz, at 50 C",
        f"the card was shared with process {OTHER_PID}",
    ]


@pytest.mark.usefixtures("clock")
def test_before_a_run_a_quiet_machine_is_told_nothing_of(proc):
    proc.set()
    assert weather.before(FakeNvml([card()], conditions_now=seen), CUDA, proc.host()) == ()
    assert weather.before(FakeNvml([]), CPU, proc.host()) == ()


class TestCost:
    def test_of_a_side(self):
        first = fair(
            wall_s=2.0,
            energy_j=800.0,
            power_w_mean=400.0,
            utilisation_percent=100.0,
            used_bytes_max=5,
            worker_bytes_max=2,
        )
        second = fair(
            wall_s=6.0,
            energy_j=1200.0,
            power_w_mean=200.0,
            utilisation_percent=60.0,
            used_bytes_max=7,
        )
        assert weather.cost([(first, 3), (second, 5)]) == Cost(
            images=8,
            wall_s=8.0,
            images_per_s=1.0,
            energy_j=2000.0,
            joules_per_image=250.0,
            power_w_mean=250.0,
            utilisation_percent=70.0,
            used_bytes_max=7,
            worker_bytes_max=2,
        )

    def test_what_one_batch_does_not_tell_is_not_known_of_all(self):
        told = weather.cost([(fair(energy_j=800.0), 3), (fair(), 5)])
        assert (told.energy_j, told.joules_per_image, told.images_per_s) == (None, None, 2.0)

    def test_of_no_image_there_is_none(self):
        assert weather.cost([]) is None


def test_weather_survives_json():
    told = fair(clock_events=("sw_power_cap",), foreign_pids=(3,), energy_j=1.5)
    assert Weather.model_validate_json(told.model_dump_json()) == told


# From here on the real host is looked at.


@pytest.fixture
def run_child():
    """Start `python -c text`, which ends with the test."""
    started = []

    def start(text):
        child = subprocess.Popen([sys.executable, "-c", text])
        started.append(child)
        time.sleep(0.3)
        return child

    yield start
    for child in started:
        child.send_signal(signal.SIGKILL)
        child.wait()


def cpu_s(child):
    """Processor seconds of a child and of the children that it waited for."""
    _, times = weather.read_times((weather.Path("/proc") / str(child.pid) / "stat").read_bytes())
    return times.own_s + times.reaped_s


def only_this_process():
    return [os.getpid()]


def foreign_cores(seconds, *hosts):
    """Foreign cores over some seconds in the eyes of each of `hosts`."""
    stations = [Station(FakeNvml([]), CPU, host) for host in hosts]
    for station in stations:
        station.look()
    start_s = time.monotonic()
    time.sleep(seconds)
    end_s = time.monotonic()
    return [station.between(start_s, end_s).foreign_cores for station in stations]


def test_a_core_that_a_stranger_burns_is_seen(run_child):
    child = run_child(BURN)
    before_s, start_s = cpu_s(child), time.monotonic()
    counted = Station(FakeNvml([]), CPU, Host(ours=only_this_process))
    all_ours = Station(FakeNvml([]), CPU, Host(ours=lambda: [os.getpid(), child.pid]))
    for station in (counted, all_ours):
        station.look()
    time.sleep(2.0)
    end_s = time.monotonic()
    foreign = counted.between(start_s + 0.1, end_s).foreign_cores
    without = all_ours.between(start_s + 0.1, end_s).foreign_cores
    burnt = (cpu_s(child) - before_s) / (end_s - start_s)
    assert foreign - without == pytest.approx(burnt, abs=0.1)
    assert foreign >= 0.9 * burnt


@pytest.mark.parametrize("text", [BURN, BURN_IN_AWAITED_CHILDREN])
def test_a_core_that_one_of_ours_burns_is_not_foreign(run_child, text):
    run_child(text)
    all_below, this_one = foreign_cores(1.5, Host(), Host(ours=only_this_process))
    assert all_below < this_one - 0.2


def test_load_of_children_that_nobody_waits_for_shows_as_foreign(run_child):
    """Why the candidate's own foreign load is no reason to measure again."""
    run_child(BURN_IN_UNAWAITED_CHILDREN)
    all_below, this_one = foreign_cores(1.5, Host(), Host(ours=only_this_process))
    assert all_below > 0.2
    assert all_below > this_one - 0.15


def test_a_look_at_this_host_tells_all_of_it():
    assert next(iter(Host().ours())) == os.getpid()
    station = Station(FakeNvml([]), CPU)
    station.look()
    start_s = time.monotonic()
    time.sleep(0.3)
    told = station.between(start_s, time.monotonic())
    assert 0 <= told.foreign_cores <= len(os.sched_getaffinity(0)) + 1
    assert 0 <= told.free_cores <= len(os.sched_getaffinity(0))
    assert told.load_1min == pytest.approx(os.getloadavg()[0], abs=0.5)


def test_the_thread_looks_on_its_own_and_stops(monkeypatch):
    monkeypatch.setattr(weather, "PERIOD_S", 0.02)
    now = script(*(seen(energy_j=10.0 * number) for number in range(1000)))
    with Station(FakeNvml([card()], conditions_now=now), CUDA) as station:
        start_s = time.monotonic()
        time.sleep(0.5)
        told = station.between(start_s, time.monotonic())
        threads = threading.active_count()
    assert threading.active_count() == threads - 1
    assert told.looks >= 5
    assert told.energy_j > 0


def test_looking_costs_less_than_half_a_percent_of_a_core():
    now = script(seen())
    with Station(FakeNvml([card()], conditions_now=now), CUDA) as station:
        before_s, start_s = station.cost_s, time.monotonic()
        time.sleep(4.0)
        share = (station.cost_s - before_s) / (time.monotonic() - start_s)
    assert 0 < share < 0.005


def test_looks_that_cost_much_are_taken_less_often(monkeypatch):
    monkeypatch.setattr(weather, "PERIOD_S", 0.01)

    def burn():
        end_s = time.thread_time() + 0.01
        while time.thread_time() < end_s:
            continue
        return seen()

    with Station(FakeNvml([card()], conditions_now=burn), CUDA) as station:
        before_s = station.cost_s
        time.sleep(1.0)
        assert station.cost_s - before_s < 0.05
