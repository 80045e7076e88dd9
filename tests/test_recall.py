"""A cached baseline: its file, which batches are live, what its drift does to the numbers."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import random
import zipfile

import pytest
from test_comparable import BOX, CIRCUMSTANCES, CPU, H200
from test_exchange import Clock, FakeJudge, FakeSide

from runner import estimate, exchange, gpu, prepare, recall, verify
from runner.account import Account
from runner.exchange import Gallery, Turn
from runner.keep import Keeper
from runner.progress import Silent
from runner.recall import Memory, Recalled, Recorder
from runner.records import (
    Drift,
    Measured,
    PlannedBatch,
    Purpose,
    Refused,
    Role,
    SpeedtrapError,
    Verdict,
)
from runner.settings import Settings
from runner.verify import Evidence, Targets
from runner.wire import Image, Kind

B, C = Role.BASELINE, Role.CANDIDATE


def planned(number, purpose, of=None):
    return PlannedBatch(100 + number, (f"a {number}", f"b {number}"), purpose, of)


COUNTED = range(2, 11)
PLAN = (
    planned(0, Purpose.WARM_UP),
    planned(1, Purpose.FIXED),
    *(planned(number, Purpose.AUDIT) for number in COUNTED),
    planned(2, Purpose.REPEAT, of=2),
    *(planned(20 + number, Purpose.OTHER_SEED, of=number) for number in COUNTED),
)


def painting(seed, number):
    """An image that follows from the seed."""
    rgb = hashlib.sha256(f"{seed} {number}".encode()).digest()[:24]
    return Image(4, 2, rgb)


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(exchange, "time", clock)
    return clock


@pytest.fixture
def worker(clock):
    """A scripted worker whose images follow from the seed; `paint` makes them otherwise."""

    def make(role, batch_s, log, paint=painting):
        one = FakeSide(role, clock, log, step_s={Kind.IMAGES: batch_s})
        one.images = lambda count, batch: [paint(one.seeds[batch], n) for n in range(count)]
        return one

    return make


@pytest.fixture
def measure(worker):
    """Measure two scripted sides over `PLAN`; returns what was witnessed, the turn, and a log."""

    def run(memory=None, baseline_s=2.0, candidate_s=1.0, keeper=None, plan=PLAN, **more):
        log = []
        sink = (keeper or Keeper(None)).images
        turns = [
            Turn(worker(B, baseline_s, log, **more), sink, 60.0),
            Turn(worker(C, candidate_s, log), sink, 60.0),
        ]
        if memory is not None:
            turns[0] = Recalled.of(turns[0], memory)
        exchange.wait_for_imports([turn.side for turn in turns])
        found = exchange.run(*turns, Gallery(list(plan), FakeJudge()), "alternate", Silent())
        return found, turns[0], log

    return run


@pytest.fixture
def as_result(make_result):
    """The result of the baseline against itself."""

    def make(measured, **changes):
        told = {"device": H200, "isolation": BOX, "circumstances": CIRCUMSTANCES} | changes
        return make_result(baseline=measured.baseline, candidate=measured.candidate, **told)

    return make


@pytest.fixture
def write_cache(measure, as_result, tmp_path):
    """Make a cache by a real exchange of scripted sides; returns its path."""

    def make(name="base.cache", batch_s=2.0, **changes):
        path = tmp_path / name
        with Recorder(path) as recorder:
            measured, _, _ = measure(None, batch_s, batch_s, keeper=recorder)
            recorder.finish(PLAN, measured, as_result(measured, **changes))
        return path

    return make


class TestFile:
    def test_round_trip(self, write_cache):
        with recall.read(write_cache()) as memory:
            assert memory.plan == PLAN
            assert memory.audit_seed == CIRCUMSTANCES.audit_seed
            assert memory.content.noise == 0.0
            assert memory.content.noise_pairs == len(COUNTED)
            assert memory.sha256 == hashlib.sha256(memory.path.read_bytes()).hexdigest()
            for place, one in enumerate(PLAN):
                assert memory.images(place) == [painting(one.seed, n) for n in range(2)]
                assert memory.batches[place].time_s == 2.0

    def test_nobody_else_may_read_it(self, write_cache):
        assert write_cache().stat().st_mode & 0o077 == 0

    def test_the_last_of_two_writers_wins_whole(self, write_cache, tmp_path):
        write_cache(batch_s=2.0)
        path = write_cache(batch_s=3.0)
        with recall.read(path) as memory:
            assert memory.batches[1].time_s == 3.0
        assert list(tmp_path.iterdir()) == [path]

    def test_an_open_memory_outlives_the_file_that_it_came_from(self, write_cache):
        with recall.read(write_cache(batch_s=2.0)) as memory:
            write_cache(batch_s=3.0)
            assert memory.batches[1].time_s == 2.0
            assert memory.images(4)[0] == painting(PLAN[4].seed, 0)

    def test_an_interrupt_leaves_nothing(self, tmp_path):
        def stopped_half_way():
            with Recorder(tmp_path / "base.cache") as recorder:
                recorder.images(B, 0, [painting(1, 0)])
                assert len(list(tmp_path.iterdir())) == 1
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            stopped_half_way()
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
    def test_a_truncated_file_is_refused_and_left_alone(self, write_cache, share):
        path = write_cache()
        whole = path.read_bytes()
        part = whole[: int(len(whole) * share)]
        path.write_bytes(part)
        with pytest.raises(SpeedtrapError, match=r"base\.cache cannot be used as a baseline cache"):
            recall.read(path)
        assert path.read_bytes() == part

    @pytest.mark.parametrize("content", [b"prompts = 3\n", b"PK\x03\x04", b"\0" * 4096])
    def test_a_foreign_file_is_refused_and_left_alone(self, tmp_path, content):
        path = tmp_path / "other.py"
        path.write_bytes(content)
        with pytest.raises(SpeedtrapError, match="cannot be used as a baseline cache"):
            recall.read(path)
        assert path.read_bytes() == content

    @pytest.mark.parametrize(
        "damage",
        [
            lambda record: record | {"format": "speedtrap baseline 0"},
            lambda record: record | {"plan": record["plan"][1:]},
            lambda record: record | {"digests": record["digests"][:-1]},
            lambda record: record | {"plan": [one | {"seed": 1} for one in record["plan"]]},
            lambda record: record | {"result": record["result"] | {"baseline": None}},
            lambda record: record | {"result": record["result"] | {"circumstances": None}},
            lambda record: {"a": record["plan"]},
        ],
    )
    def test_a_record_that_is_not_whole_is_refused(self, write_cache, damage):
        path = write_cache()
        with zipfile.ZipFile(path) as file:
            parts = {name: file.read(name) for name in file.namelist()}
        parts["record.json"] = json.dumps(damage(json.loads(parts["record.json"]))).encode()
        with zipfile.ZipFile(path, "w") as file:
            for name, data in parts.items():
                file.writestr(name, data)
        with pytest.raises(SpeedtrapError, match="cannot be used as a baseline cache"):
            recall.read(path)

    def test_an_image_that_was_exchanged_is_noticed(self, write_cache):
        path = write_cache()
        with zipfile.ZipFile(path) as file:
            parts = {name: file.read(name) for name in file.namelist()}
        with zipfile.ZipFile(path, "w") as file:
            for name, data in parts.items():
                file.writestr(name, data if name == "record.json" else bytes(24))
        with recall.read(path) as memory, pytest.raises(SpeedtrapError, match="an image is not"):
            memory.images(3)

    def test_a_folder_that_is_not_there_is_our_failure(self, tmp_path):
        with pytest.raises(SpeedtrapError, match="cannot write the baseline cache"):
            Recorder(tmp_path / "none" / "base.cache")


class TestFitness:
    def test_a_baseline_that_fails_makes_no_file(self, tmp_path, refused_result):
        refused = Refused(Verdict.CRASHED, "ValueError: no")
        path = tmp_path / "base.cache"
        with Recorder(path) as recorder, pytest.raises(SpeedtrapError, match="ValueError: no"):
            recorder.finish(PLAN, refused, refused_result)
        assert list(tmp_path.iterdir()) == []

    def test_untied_images_make_no_file(self, write_cache, tmp_path):
        untied = {"verdict": Verdict.INCONCLUSIVE, "reason": "not tied", "loss": None}
        with pytest.raises(SpeedtrapError, match="is inconclusive: not tied"):
            write_cache(**untied)
        assert list(tmp_path.iterdir()) == []

    def test_noise_makes_no_file_and_is_told_with_its_mark(self, measure, as_result, tmp_path):
        with Recorder(tmp_path / "base.cache") as recorder:
            measured, _, _ = measure(None, 2.0, 1.5, keeper=recorder)
            batches = [
                one.model_copy(update={"marks": ("a foreign load: end it",)})
                for one in measured.baseline.batches
            ]
            marked = measured.baseline.model_copy(update={"batches": tuple(batches)})
            measured = dataclasses.replace(measured, baseline=marked)
            with pytest.raises(SpeedtrapError, match=r"takes 29% more or less.*a foreign load"):
                recorder.finish(PLAN, measured, as_result(measured))
        assert list(tmp_path.iterdir()) == []


class TestDifferences:
    def test_gpu_driver_and_prompt_set_are_named_with_both_values(self, write_cache, make_result):
        card = H200.model_copy(update={"uuid": "GPU-2", "driver": "590.2"})
        circumstances = CIRCUMSTANCES.model_copy(update={"prompts_sha256": "e" * 64})
        now = make_result(device=card, isolation=BOX, circumstances=circumstances)
        with recall.read(write_cache()) as memory, pytest.raises(SpeedtrapError) as caught:
            recall.require_same(memory, now)
        text = str(caught.value)
        assert "delete it and run again" in text
        assert "card: GPU-1 against GPU-2" in text
        assert "driver: 580.1 against 590.2" in text
        assert f"prompt set: {'a' * 64} against {'e' * 64}" in text

    def test_before_there_is_a_device_nothing_is_said_of_devices(self, write_cache, make_result):
        now = make_result(isolation=BOX, circumstances=CIRCUMSTANCES)
        with recall.read(write_cache()) as memory:
            recall.require_same(memory, now)
            with pytest.raises(SpeedtrapError, match="kind of device: cuda against cpu"):
                recall.require_same(memory, now.model_copy(update={"device": CPU}))


class TestLive:
    def test_the_warm_up_and_at_least_one_batch_that_counts_are_live(self):
        for seed in range(200):
            live = recall.choose_live(PLAN, random.Random(seed))
            assert 0 in live
            assert len(live) >= 2
            assert live <= {0, *COUNTED}

    def test_what_was_live_before_does_not_tell_what_comes(self):
        drawn = [recall.choose_live(PLAN, random.Random(seed)) for seed in range(4000)]
        *before, last = COUNTED
        for count in (2, 4, 6):
            alike = [last in live for live in drawn if len(live & {*before}) == count]
            assert len(alike) > 100
            assert 0.35 < sum(alike) / len(alike) < 0.65

    @pytest.mark.parametrize("count", [1, 2])
    def test_of_few_batches_too_one_is_live(self, count):
        plan = (PLAN[0], *(planned(number, Purpose.FIXED) for number in range(count)))
        assert len(recall.choose_live(plan, random.Random(1))) >= 2

    def test_the_baseline_runs_only_live_batches_and_the_candidate_all(self, write_cache, measure):
        with recall.read(write_cache()) as memory:
            found, turn, log = measure(memory)
        sent = [role for role, kind in log if kind == Kind.BATCH]
        assert sent.count(B) == len(turn.live)
        assert sent.count(C) == sum(one.for_candidate for one in PLAN)
        recalled = [place for place, one in enumerate(found.baseline.batches) if one.recalled]
        assert set(recalled) == set(range(len(PLAN))) - turn.live
        assert not any(one.recalled for one in found.candidate.batches)

    def test_images_are_those_of_a_run_without_a_cache(self, write_cache, measure):
        without, _, _ = measure()
        with recall.read(write_cache()) as memory:
            found, _, _ = measure(memory)
        assert found.baseline_traces.digests == without.baseline_traces.digests
        assert found.baseline.score == without.baseline.score

    def test_kept_images_are_all(self, write_cache, measure):
        class Kept(Keeper):
            def __init__(self):
                super().__init__(None)
                self.places = []

            def images(self, role, batch, images):
                del images
                self.places += [batch] if role is B else []

        keeper = Kept()
        with recall.read(write_cache()) as memory:
            measure(memory, keeper=keeper)
        assert keeper.places == list(range(len(PLAN)))

    def test_recalled_seconds_do_not_make_a_false_claim_look_like_a_slow_pipe(
        self, write_cache, measure
    ):
        with recall.read(write_cache(batch_s=9.0)) as memory:
            found, _, _ = measure(memory, baseline_s=2.0)
        assert verify.tampering(verify.read_claim(found.claim_stdout), found) is None
        twice = verify.read_claim(found.claim_stdout).model_copy(update={"time_s": 22.0})
        assert "the witness saw 11.000 s" in verify.tampering(twice, found)

    def test_what_was_in_doubt_in_the_cache_is_so_still(self, measure, as_result, tmp_path):
        path = tmp_path / "base.cache"
        with Recorder(path) as recorder:
            measured, _, _ = measure(None, 2.0, 2.0, keeper=recorder)
            result = as_result(measured)
            batches = [
                one.model_copy(update={"marks": ("a foreign load: end it",)})
                for one in result.baseline.batches
            ]
            marked = result.baseline.model_copy(update={"batches": tuple(batches)})
            recorder.finish(PLAN, measured, result.model_copy(update={"baseline": marked}))
        with recall.read(path) as memory:
            found, _, _ = measure(memory)
        for one in found.baseline.batches:
            assert one.marks == (("a foreign load: end it",) if one.recalled else ())

    def test_batches_beyond_the_plan_are_live(self, write_cache, measure):
        longer = (*PLAN, planned(50, Purpose.AUDIT), planned(51, Purpose.OTHER_SEED, of=len(PLAN)))
        with recall.read(write_cache()) as memory:
            found, turn, log = measure(memory, plan=longer)
        assert not any(one.recalled for one in found.baseline.batches[len(PLAN) :])
        sent = [role for role, kind in log if kind == Kind.BATCH]
        assert sent.count(B) == len(turn.live) + 2


class TestDrift:
    def test_recalled_seconds_follow_the_live_ones(self, write_cache, measure):
        with recall.read(write_cache(batch_s=2.0)) as memory:
            found, turn, _ = measure(memory, baseline_s=2.1, candidate_s=1.05)
            corrected = turn.corrected(found)
            drift = turn.drift(found.baseline)
        assert drift.factor == pytest.approx(1.05)
        count = len(turn.live) - 1
        assert drift.live_s == pytest.approx([2.1] * count)
        assert drift.cached_s == (2.0,) * count
        assert drift.least_psnr_db == 100.0
        assert drift.cache_sha256 == memory.sha256
        assert [one.time_s for one in corrected.baseline.counted] == [pytest.approx(2.1)] * 9
        assert corrected.baseline.time_s == pytest.approx(9 * 2.1)
        ours = [one.time_s for one in corrected.baseline.counted]
        assert estimate.speedup(ours, [1.05] * 9, 0.95).value == pytest.approx(2.0)

    def test_its_interval_holds_the_true_drift(self):
        rng = random.Random(7)
        inside = 0
        for _ in range(2000):
            again = [[math.exp(rng.gauss(0, 0.03)) for _ in range(9)] for _ in range(2)]
            noise = estimate.noise(*again)
            live_s = [1.04 * math.exp(rng.gauss(0, 0.03)) for _ in range(3)]
            found = estimate.drift(live_s, again[0][:3], noise, 9, 0.95)
            inside += found.low <= 1.04 <= found.high
        assert inside / 2000 > 0.94

    def test_live_batches_that_scatter_more_than_the_noise_widen_it(self):
        calm = estimate.drift([2.0, 2.0, 2.0], [2.0] * 3, 0.01, 9, 0.95)
        wild = estimate.drift([1.5, 2.0, 2.6], [2.0] * 3, 0.01, 9, 0.95)
        assert calm.value == wild.value == 1.0
        half = 2.262157 * 0.01 * math.sqrt(math.pi / 2) / math.sqrt(3)  # Student's t, 9 degrees
        assert math.log(calm.high) == pytest.approx(half, rel=1e-6)
        assert math.log(wild.high) > 10 * half

    def test_the_speedup_is_as_unsure_as_the_drift_and_itself_together(self):
        ours = estimate.Estimate(2.0, 1.8, 2.2, 0.95)
        found = ours.widened(0.1)
        assert math.log(2.0 / found.low) == pytest.approx(math.hypot(math.log(2 / 1.8), 0.1))
        assert math.log(found.high / 2.0) == pytest.approx(math.hypot(math.log(1.1), 0.1))
        assert ours.widened(0.0) == ours

    def test_psnr_of_the_least_alike_pair(self):
        black, grey = Image(2, 1, bytes(6)), Image(2, 1, b"\x08" * 6)
        assert recall.least_psnr_db([black, black], [black, black]) == 100.0
        found = recall.least_psnr_db([black, grey], [black, black])
        assert found == pytest.approx(20 * math.log10(255 / 8))
        assert recall.least_psnr_db([black], [Image(1, 2, bytes(6))]) == 0.0


class TestVerdict:
    """What the drift makes of a pair that would pass."""

    @pytest.fixture
    def judge(self, side):
        def make(**changes):
            told = {
                "factor": 1.01,
                "low": 1.0,
                "high": 1.02,
                "live_s": (2.02,) * 3,
                "cached_s": (2.0,) * 3,
                "least_psnr_db": 100.0,
                "noise": 0.02,
                "noise_pairs": 9,
                "cache_sha256": "0" * 64,
                "measured_at": "2026-01-01T00:00:00+00:00",
            }
            drift = Drift(**(told | changes)) if changes.pop("is_recalled", True) else None
            measured = Measured(
                side(18.0, timed=9), side(9.0, timed=9), "9.000000,80.000000\n", "alternate"
            )
            evidence = Evidence(measured, scores=[80.0] * 18, drift=drift)
            return verify.judge(evidence, Targets(1.9, 0.02)), evidence

        return make

    def test_the_intervals_are_wider_and_so_is_the_loss(self, judge):
        told, _ = judge()
        without, _ = judge(is_recalled=False)
        assert without.speedup_ci == pytest.approx((2.0, 2.0))
        half = 2.262157 * 0.02 * math.sqrt(math.pi / 2) / math.sqrt(3)
        assert told.speedup_ci == pytest.approx((2 * math.exp(-half), 2 * math.exp(half)))
        assert without.loss_ci == (0.0, 0.0)
        assert told.verdict is Verdict.OK

    def test_noise_of_the_cache_can_leave_the_target_open(self, judge):
        told, _ = judge(noise=0.1)
        assert told.verdict is Verdict.INCONCLUSIVE
        assert told.loss_ci[1] > told.loss_ci[0] == 0.0

    @pytest.mark.parametrize("factor", [1.11, 0.90])
    def test_a_drift_beyond_ten_percent_is_no_number_and_no_failure_of_ours(self, judge, factor):
        told, evidence = judge(factor=factor)
        assert told.verdict is Verdict.INCONCLUSIVE
        assert (told.loss, told.loss_ci) == (None, None)
        assert f"{factor:.3f} times as long as in its cache" in told.reason
        assert "delete the file of --baseline-cache" in told.reason
        assert verify.is_decided(evidence, Targets(1.9, 0.02))

    @pytest.mark.parametrize("factor", [1.09, 0.92])
    def test_a_smaller_one_is_corrected(self, judge, factor):
        assert judge(factor=factor)[0].loss is not None

    def test_other_images_are_no_number(self, judge):
        told, evidence = judge(least_psnr_db=29.0)
        assert (told.verdict, told.loss) == (Verdict.INCONCLUSIVE, None)
        assert "no longer makes the images of its cache" in told.reason
        assert verify.is_decided(evidence, Targets(1.9, 0.02))
        assert judge(least_psnr_db=31.0)[0].loss is not None

    def test_a_claim_that_is_off_the_witness_is_still_tampering(self, judge):
        _, evidence = judge(factor=2.0)
        lies = dataclasses.replace(evidence.measured, claim_stdout="1.000000,99.000000\n")
        told = verify.judge(dataclasses.replace(evidence, measured=lies), Targets(1.9, 0.02))
        assert told.verdict is Verdict.TAMPERED


def test_a_memory_is_closed_at_the_end(write_cache):
    with recall.read(write_cache()) as memory:
        assert isinstance(memory, Memory)
    with pytest.raises(SpeedtrapError):
        memory.images(1)


class TestSettings:
    """What is refused before anything runs."""

    @pytest.fixture
    def settings(self, write):
        text = (
            "from diffusers import StableDiffusionPipeline\n"
            "pipe = StableDiffusionPipeline.from_pretrained('speedtrap/tiny-sd')\n"
        )
        paths = {"candidate": write(text), "baseline": write(text, "base.py")}

        def make(cache, **changes):
            return Settings(**({"device": "cpu"} | paths | changes), baseline_cache=cache)

        return make

    def test_a_baseline_that_is_made_here_cannot_be_cached(self, settings, tmp_path):
        with pytest.raises(SpeedtrapError, match="name it with --baseline"):
            settings(tmp_path / "base.cache", baseline=None)

    def test_it_takes_a_file_in_a_folder_that_is_there(self, settings, tmp_path):
        with pytest.raises(SpeedtrapError, match="is no file"):
            settings(tmp_path)
        with pytest.raises(SpeedtrapError, match="there is no folder"):
            settings(tmp_path / "none" / "base.cache")

    def test_a_candidate_must_not_see_it(self, settings, tmp_path):
        folder = tmp_path / "seen"
        folder.mkdir()
        (tmp_path / "link").symlink_to(folder)
        for cache in (folder / "base.cache", tmp_path / "link" / "base.cache"):
            with pytest.raises(SpeedtrapError, match="the sandbox shows"):
                prepare.prepare(settings(cache, readable=(folder,)))
        with pytest.raises(SpeedtrapError, match="needs a sandbox"):
            prepare.prepare(settings(tmp_path / "base.cache", sandbox="none"))
        job = prepare.prepare(settings(tmp_path / "base.cache", readable=(folder,)))
        assert job.refused is None

    def test_the_run_against_itself_has_both_sides_alike_and_no_cache(self, settings, tmp_path):
        alone = recall.of_itself(settings(tmp_path / "base.cache", keep=tmp_path / "kept"))
        assert alone.candidate == alone.baseline
        assert (alone.baseline_cache, alone.keep) == (None, None)

    def test_more_batches_do_not_make_it_surer(self, settings, tmp_path):
        with pytest.raises(SpeedtrapError, match="--until-decided and --baseline-cache"):
            settings(tmp_path / "base.cache", until_decided=True)

    def test_of_several_cards_the_one_of_the_cache_is_asked_for(self, settings, write_cache):
        job = prepare.prepare(settings(write_cache(), device="cuda"))
        account = Account(job, Keeper(None), Silent())
        assert account.device_wanted == gpu.Request("cuda", None, job.settings.wait_s)
        with recall.read(job.settings.baseline_cache) as memory:
            account.job = job.with_memory(memory)
            assert account.device_wanted.only == memory.result.device.uuid is not None

    def test_the_plan_is_that_of_the_cache(self, settings, write_cache):
        job = prepare.prepare(settings(write_cache()))
        with recall.read(job.settings.baseline_cache) as memory:
            found = job.with_memory(memory)
        assert (found.plan, found.audit_seed) == (PLAN, CIRCUMSTANCES.audit_seed)

    def test_circumstances_say_for_which_cuda_torch_was_built(self, settings, tmp_path):
        import torch  # few tests need it, and it takes seconds

        job = prepare.prepare(settings(tmp_path / "base.cache", audit_batches=4))
        refused = Refused(Verdict.CRASHED, "no")
        told = Account(job, Keeper(None), Silent()).result(refused).circumstances
        assert told.versions.get("cuda") == torch.version.cuda
        assert told.audit_batches == 4
        assert told.host["cpu"]
