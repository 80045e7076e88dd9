import hashlib
import math
import sys
import weakref
from dataclasses import replace
from pathlib import Path

import pytest

from runner import exchange, paths, verify, wire, worker
from runner.exchange import Gallery, Turn
from runner.progress import Silent
from runner.records import (
    Distances,
    Ending,
    Likeness,
    Phase,
    PlannedBatch,
    Purpose,
    Role,
    SpeedtrapError,
    Verdict,
)
from runner.records import WorkerLostError as LostError
from runner.wire import Frame, Image, Kind


def planned(number, purpose, of=None):
    return PlannedBatch(42 + number, (f"a {number}", f"b {number}"), purpose, of)


PLAN = tuple(planned(n, Purpose.FIXED if n else Purpose.WARM_UP) for n in range(4))
AUDITED = (
    planned(0, Purpose.WARM_UP),
    planned(1, Purpose.FIXED),
    planned(2, Purpose.AUDIT),
    planned(3, Purpose.FIXED),
    planned(4, Purpose.AUDIT),
    planned(2, Purpose.REPEAT, of=2),
    planned(6, Purpose.OTHER_SEED, of=2),
    planned(7, Purpose.OTHER_SEED, of=4),
)
FOR_BOTH = 6
"""So many batches of `AUDITED` are for the candidate too."""
PIXELS = Image(2, 1, b"abcdef")
ALIKE = Likeness(psnr_db=30.0, ssim=0.5, clip_cosine=0.9)
B, C = Role.BASELINE, Role.CANDIDATE
ABBA = [B, C, C, B, B, C, C, B]
WITHIN_S = 60.0
ORDERS = ("alternate", "whole")

REAL_WORKER = """
import os, sys
sys.path.insert(0, os.environ["WIRE"])
from wire import Channel, Image, Kind, pack_images, unpack_batch, unpack_score
channel = Channel.from_descriptor(int(os.environ["CHANNEL"]))
channel.send(Kind.HELLO)
channel.receive({Kind.GO})
print("loaded", flush=True)
scores = []
while True:
    channel.send(Kind.READY)
    frame = channel.receive({Kind.BATCH, Kind.END})
    if frame.kind is Kind.END:
        break
    prompts = unpack_batch(frame.payload)[1]
    channel.send(Kind.IMAGES, pack_images([Image(2, 1, b"abcdef")] * len(prompts)))
    scores.append(unpack_score(channel.receive({Kind.SCORE}).payload))
print(f"3.000000,{sum(scores[1:]) / len(scores[1:]):.6f}")
"""


class Clock:
    """A clock that moves when the scripted sides and scorer say so."""

    def __init__(self):
        self.now_s = 1000.0

    def monotonic(self):
        return self.now_s


class FakeSide:
    """A worker that plays its part: how long each step takes, and which images it sends.

    It does nothing while it is frozen; what it is told then waits. `log` is shared by all sides and
    notes who was sent what, and who was frozen and thawed, in order.
    """

    def __init__(self, role, clock=None, log=None, **script):
        self.role = role
        self.phase = Phase.IMPORTS
        self.clock = clock or Clock()
        self.log = [] if log is None else log
        self.images = script.get("images", lambda count, _: [PIXELS] * count)
        self.step_s = {Kind.IMAGES: 1.0} | script.get("step_s", {})
        self.returncode = script.get("returncode", 0)
        self.report = script.get("report", b"{}")
        self.wakes = script.get("wakes", False)
        self.seeds, self.scores, self.limits_s, self.counts = [], [], [], []
        self.told = []
        self.is_frozen = False
        self.finished = 0
        self._part = self._play()

    def send(self, kind, payload=b"", *, within_s):
        self.log.append((self.role, kind))
        self.limits_s.append(within_s)
        self.clock.now_s += self.step_s.get(kind, 0.0)
        self.told.append((kind, payload))

    def freeze(self):
        assert not self.is_frozen
        self.is_frozen = True
        self.log.append((self.role, "freeze"))

    def require_still(self):
        if self.is_frozen and self.wakes:
            self.refuse(Verdict.TAMPERED, "ran while it was stopped")

    def thaw(self):
        self.is_frozen = False
        self.log.append((self.role, "thaw"))

    def receive(self, expected, *, within_s):
        self.limits_s.append(within_s)
        if self.is_frozen:
            self.refuse(Verdict.TIMEOUT, "took too long")
        kind, payload = next(self._part, (None, b""))
        if kind is None:
            raise LostError(self.role, self.phase, self.ending())
        if kind not in expected:
            self.refuse(Verdict.TAMPERED, f"broke the protocol: {kind}")
        self.clock.now_s += self.step_s.get(kind, 0.0)
        return Frame(kind, bytearray(payload))

    def _play(self):
        yield Kind.HELLO, b""
        self._take(Kind.GO)
        while True:
            yield Kind.READY, b""
            kind, payload = self.told.pop(0)
            if kind is Kind.END:
                break
            assert kind is Kind.BATCH
            seed, prompts = wire.unpack_batch(payload)
            self.seeds.append(seed)
            self.counts.append(len(prompts))
            images = self.images(len(prompts), len(self.seeds) - 1)
            yield Kind.IMAGES, images if isinstance(images, bytes) else wire.pack_images(images)
            self.scores.append(wire.unpack_score(self._take(Kind.SCORE)))
        if self.report is not None:
            yield Kind.REPORT, self.report

    def _take(self, expected):
        kind, payload = self.told.pop(0)
        assert kind is expected
        return payload

    def refuse(self, verdict, reason):
        raise LostError(self.role, self.phase, Ending(137, "", "", verdict, reason))

    def finish(self, within_s):
        assert not self.is_frozen
        self.phase = Phase.EXIT
        self.limits_s.append(within_s)
        self.finished += 1
        self.log.append((self.role, "finish"))
        return self.ending()

    def ending(self):
        """Print what the script prints: time and mean score of all batches but the first."""
        time_s = self.step_s[Kind.IMAGES] * len(self.seeds[1:])
        images = sum(self.counts[1:])
        total = sum(map(math.prod, zip(self.scores[1:], self.counts[1:], strict=True)))
        return Ending(self.returncode, f"loaded\n{time_s:.6f},{total / max(1, images):.6f}\n", "")


class FakeJudge:
    """Scores by a list, one number an image, and takes its time over it.

    `frozen` is asked at each call, for who is frozen then.
    """

    def __init__(self, clock=None, score=80.0, step_s=500.0):
        self.clock, self.value, self.step_s = clock or Clock(), score, step_s
        self.seen, self.pairs, self.frozen_then = [], [], []
        self.counted = 0
        self.prompted = []
        self.frozen = lambda: None

    def score(self, prompts, images):
        self.seen.append((tuple(prompts), list(images)))
        self.frozen_then.append(self.frozen())
        self.clock.now_s += self.step_s
        return [self.value + number for number in range(len(images))]

    def compare(self, references, images, prompts=()):
        if prompts:
            self.counted += 1
            self.prompted.append(prompts)
        self.pairs.append((tag(references), tag(images)))
        self.frozen_then.append(self.frozen())
        self.clock.now_s += self.step_s
        return [ALIKE] * len(images)

    def distances(self):
        return Distances(images=2 * self.counted, withheld=())


def painted(role):
    """Make images that say of whom they are, and the how manieth batch's."""

    def images(count, batch):
        return [Image(2, 1, bytes([role is C, batch, number, 0, 0, 0])) for number in range(count)]

    return images


def tag(images):
    """Whose images these are, and of which batch."""
    role, batch = images[0].rgb[:2]
    return (C if role else B), batch


class Watcher(Silent):
    def __init__(self):
        self.steps, self.done, self.said = 0, 0, []

    def expect(self, steps, done=0):
        assert done in {0, self.done}
        self.steps = steps

    def begin(self, what):
        self.said.append(what)

    def advance(self):
        self.done += 1


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(exchange, "time", clock)
    return clock


@pytest.fixture
def judge(clock):
    return FakeJudge(clock)


@pytest.fixture
def stage(clock):
    """Make both turns with a common log; keywords are those of each side."""

    def make(baseline=None, candidate=None, leftover_s=None):
        log, kept = [], []

        def sink(*image):
            kept.append(image)

        more = {} if leftover_s is None else {"leftover_s": leftover_s}
        turns = [
            Turn(FakeSide(role, clock, log, **(options or {})), sink, WITHIN_S, **more)
            for role, options in ((B, baseline), (C, candidate))
        ]
        return turns, log, kept

    return make


@pytest.fixture
def run(judge):
    def run_exchange(turns, order="alternate", plan=PLAN, progress=None, judge=judge):
        judge.frozen = lambda: [turn.side.is_frozen for turn in turns]
        exchange.wait_for_imports([turn.side for turn in turns])
        gallery = Gallery(list(plan), judge)
        return exchange.run(*turns, gallery, order, progress or Silent())

    return run_exchange


def only(log, kind):
    return [role for role, sent in log if sent == kind]


def test_sides_alternate_in_abba_order(stage, run):
    turns, log, _ = stage()
    found = run(turns)
    assert only(log, Kind.BATCH) == ABBA
    assert only(log, Kind.GO) == [B, C]
    assert only(log, Kind.END) == [B, C]
    assert found.order == "alternate"


def test_whole_baseline_comes_before_the_whole_candidate(stage, run):
    turns, log, _ = stage()
    found = run(turns, "whole")
    assert only(log, Kind.BATCH) == [B] * 4 + [C] * 4
    assert log.index((B, "finish")) < log.index((C, Kind.GO))
    assert found.order == "whole"


def test_both_are_loaded_before_the_first_batch(stage, run):
    turns, log, _ = stage()
    run(turns)
    assert [entry for entry in log if isinstance(entry[1], Kind)][:3] == [
        *((B, Kind.GO), (C, Kind.GO), (B, Kind.BATCH))
    ]


@pytest.mark.parametrize("order", ORDERS)
def test_both_sides_get_every_batch_in_order_with_its_seed(stage, run, judge, order):
    turns, _, _ = stage()
    run(turns, order)
    for turn in turns:
        assert turn.side.seeds == [42, 43, 44, 45]
    assert judge.seen.count((PLAN[0].prompts, [PIXELS] * 2)) == 2


@pytest.mark.parametrize("order", ORDERS)
def test_the_baseline_alone_gets_batches_of_other_seeds(stage, run, order):
    turns, _, _ = stage()
    found = run(turns, order, AUDITED)
    assert turns[0].side.seeds == [one.seed for one in AUDITED]
    assert turns[1].side.seeds == [one.seed for one in AUDITED[:FOR_BOTH]]
    assert [batch.purpose for batch in found.baseline.batches] == [one.purpose for one in AUDITED]
    phases = ["warm-up", *["timed"] * 5, "reference", "reference"]
    assert [batch.phase for batch in found.baseline.batches] == phases
    assert [batch.purpose for batch in found.candidate.batches] == [
        one.purpose for one in AUDITED[:FOR_BOTH]
    ]


@pytest.mark.parametrize("order", ORDERS)
def test_a_side_runs_only_while_its_clock_runs(stage, run, judge, order):
    turns, log, _ = stage()
    run(turns, order, AUDITED)
    until_end = log[: log.index((B, Kind.END))] if order == "alternate" else log
    for at, (role, what) in enumerate(until_end):
        if what == "thaw" and (role, Kind.END) != log[at - 1]:
            assert log[at - 1] == (role, Kind.BATCH)  # it waits in the channel, the clock runs
            assert log[at + 1] == (role, "freeze")
    assert len(only(log, "freeze")) == 1 + len(AUDITED) + 1 + FOR_BOTH
    if order == "alternate":
        assert judge.frozen_then == [[True, True]] * len(judge.frozen_then)
    else:
        assert all(any(frozen) for frozen in judge.frozen_then)
    assert not any(turn.side.is_frozen for turn in turns)


@pytest.mark.parametrize("order", ORDERS)
def test_a_side_is_frozen_as_soon_as_it_is_loaded(stage, run, order):
    turns, log, _ = stage()
    run(turns, order)
    for role in (B, C):
        at = log.index((role, Kind.GO))
        assert log[at + 1] == (role, "freeze")


@pytest.mark.parametrize("order", ORDERS)
def test_the_score_waits_in_the_channel_and_the_end_comes_after_the_last(stage, run, order):
    turns, log, _ = stage()
    run(turns, order, AUDITED)
    for role, count in ((B, len(AUDITED)), (C, FOR_BOTH)):
        kinds = [what for who, what in log if who is role and isinstance(what, Kind)]
        assert kinds == [Kind.GO, *[Kind.BATCH, Kind.SCORE] * count, Kind.END]


@pytest.mark.parametrize("order", ORDERS)
def test_clock_runs_from_the_prompts_to_the_last_pixel(stage, run, order):
    steps = {Kind.GO: 70.0, Kind.BATCH: 0.25, Kind.IMAGES: 2.0, Kind.SCORE: 90.0}
    turns, _, _ = stage(baseline={"step_s": steps}, candidate={"step_s": {Kind.IMAGES: 0.5}})
    found = run(turns, order)
    assert [batch.time_s for batch in found.baseline.batches] == [2.25] * 4
    assert [batch.time_s for batch in found.candidate.batches] == [0.5] * 4
    assert (found.baseline.time_s, found.candidate.time_s) == (6.75, 1.5)


def test_what_a_side_does_between_two_batches_is_in_its_own_clock(stage, run):
    turns, _, _ = stage(candidate={"step_s": {Kind.READY: 0.125}})
    found = run(turns)
    assert [batch.time_s for batch in found.candidate.batches] == [1.0, 1.125, 1.125, 1.125]
    assert [batch.time_s for batch in found.baseline.batches] == [1.0] * 4


@pytest.mark.parametrize("order", ORDERS)
def test_work_left_on_the_gpu_is_added_to_the_time_of_its_batch(stage, run, order):
    turns, log, _ = stage()
    asked = []

    def leftover_s(limit_s):
        asked.append((log[-1], limit_s))
        return 0.75

    turns[1].leftover_s = leftover_s
    found = run(turns, order)
    assert [(batch.time_s, batch.leftover_s) for batch in found.candidate.batches] == [
        (1.75, 0.75)
    ] * 4
    assert [(batch.time_s, batch.leftover_s) for batch in found.baseline.batches] == [
        (1.0, 0.0)
    ] * 4
    assert found.candidate.time_s == 5.25
    assert asked == [((C, "freeze"), exchange.LEFTOVER_LIMIT_S)] * 4


@pytest.mark.parametrize("more_s", [0.0, 1.0])
def test_work_that_does_not_end_is_tampering(stage, run, judge, more_s):
    turns, _, kept = stage(leftover_s=lambda limit_s: limit_s + more_s)
    with pytest.raises(LostError) as caught:
        run(turns)
    assert caught.value.ending.breach is Verdict.TAMPERED
    assert caught.value.ending.breach_reason == (
        "left more than 60 s of work on the GPU after its images"
    )
    assert [len(judge.seen), len(kept)] == [1, 1]  # the baseline's warm-up


def test_what_works_after_the_baselines_batch_is_not_its_own(stage, run):
    turns, _, _ = stage()
    turns[0].leftover_s = lambda limit_s: limit_s
    found = run(turns)
    assert {batch.leftover_s for batch in found.baseline.batches} == {exchange.LEFTOVER_LIMIT_S}
    assert {batch.time_s for batch in found.baseline.batches} == {1.0}


def test_just_under_the_limit_is_only_slow(stage, run):
    turns, _, _ = stage(leftover_s=lambda limit_s: limit_s - 1.0)
    assert run(turns).candidate.time_s == 3 * 60.0


def test_warm_up_is_recorded_but_not_counted(stage, run):
    turns, _, _ = stage()
    found = run(turns)
    assert [batch.phase for batch in found.candidate.batches] == ["warm-up"] + ["timed"] * 3
    assert [batch.counts for batch in found.candidate.batches] == [False] + [True] * 3
    assert found.candidate.time_s == 3.0


@pytest.mark.parametrize("order", ORDERS)
def test_numbers_stand_on_the_audit_batches_where_there_are_any(stage, run, order):
    class Rising(FakeJudge):
        def score(self, prompts, images):
            return [float(prompts[0].split()[1])] * len(images)

    turns, _, _ = stage()
    found = run(turns, order, AUDITED, judge=Rising())
    for side in (found.baseline, found.candidate):
        assert [batch.seed - 42 for batch in side.counted] == [2, 4]
        assert (side.time_s, side.score) == (2.0, 3.0)
    assert [batch.phase for batch in found.candidate.batches] == ["warm-up"] + ["timed"] * 5


def test_score_is_the_mean_over_timed_images(stage, run, clock):
    class Rising(FakeJudge):
        def score(self, prompts, images):
            number = int(prompts[0].split()[1])
            return [number * 10.0 + place for place in range(len(images))]

    uneven = (*PLAN, PlannedBatch(46, ("a 4",), Purpose.FIXED))
    turns, _, _ = stage()
    found = run(turns, plan=uneven, judge=Rising(clock))
    assert found.candidate.score == pytest.approx((10 + 11 + 20 + 21 + 30 + 31 + 40) / 7)
    assert found.candidate.batches[1].scores == (10.0, 11.0)
    assert turns[1].side.scores == [0.5, 10.5, 20.5, 30.5, 40.0]


def test_pixels_that_are_scored_are_those_that_came(stage, run):
    other = Image(2, 1, b"ABCDEF")
    turns, _, kept = stage(
        candidate={"images": lambda _, batch: [PIXELS, other][:2] if batch else [other] * 2}
    )
    run(turns)
    candidate = [(number, images) for role, number, images in kept if role is C]
    assert candidate[0] == (0, [other, other])
    assert candidate[1:] == [(number, [PIXELS, other]) for number in (1, 2, 3)]


@pytest.mark.parametrize("order", ORDERS)
def test_the_claim_is_the_candidates_last_word_and_is_about_all_timed_batches(stage, run, order):
    turns, _, _ = stage()
    found = run(turns, order, AUDITED)
    assert found.claim_stdout == "loaded\n5.000000,80.500000\n"
    assert found.candidate.time_s == 2.0
    assert verify.tampering(verify.read_claim(found.claim_stdout), found) is None


PAIRS = {
    ((B, 0), (B, 0)),  # so that the scorer takes its memory
    *[((B, place), (C, place)) for place in range(1, FOR_BOTH)],
    *[((B, 6), (role, 2)) for role in Role],
    *[((B, 7), (role, 4)) for role in Role],
}


@pytest.mark.parametrize("order", ORDERS)
def test_every_pair_is_compared_once_in_any_order(stage, run, judge, order):
    turns, _, _ = stage({"images": painted(B)}, {"images": painted(C)})
    found = run(turns, order, AUDITED)
    assert set(judge.pairs) == PAIRS
    assert len(judge.pairs) == len(PAIRS)
    same = [len(batch.same_seed) for batch in found.candidate.batches]
    assert same == [0, 2, 2, 2, 2, 2]
    assert [len(batch.other_seed) for batch in found.candidate.batches] == [0, 0, 2, 0, 2, 0]
    assert [len(batch.other_seed) for batch in found.baseline.batches] == [0, 0, 2, 0, 2, 0, 0, 0]
    assert not any(batch.same_seed for batch in found.baseline.batches)


class Wall(list):
    """Images that can be asked whether anybody still holds them."""

    __hash__ = object.__hash__


@pytest.mark.parametrize(
    ("order", "most"), [("alternate", 6), ("whole", 7)], ids=["alternate", "whole"]
)
def test_images_are_let_go_when_nothing_awaits_them(order, most):
    places = {B: range(len(AUDITED)), C: range(FOR_BOTH)}
    steps = [(role, place) for role in (B, C) for place in places[role]]
    if order == "alternate":
        steps.sort(key=lambda step: step[1])
    gallery = Gallery(list(AUDITED), FakeJudge())
    held, counts = weakref.WeakSet(), []
    for role, place in steps:
        images = Wall(painted(role)(2, place))
        held.add(images)
        gallery.hang(role, place, images)
        del images
        counts.append(len(held))
    assert counts[-1] == 0
    assert max(counts) <= most


def test_without_other_seeds_images_wait_for_their_twin_alone():
    gallery = Gallery(list(PLAN), FakeJudge())
    held, counts = weakref.WeakSet(), []
    for place in range(len(PLAN)):
        for role in Role:
            images = Wall(painted(role)(2, place))
            held.add(images)
            gallery.hang(role, place, images)
            del images
            counts.append(len(held))
    assert counts == [0, 0] + [1, 0] * 3


def test_progress_takes_every_announced_step(stage, run):
    for order in ORDERS:
        watcher = Watcher()
        turns, _, _ = stage()
        run(turns, order, AUDITED, progress=watcher)
        assert watcher.done == watcher.steps == 2 + len(AUDITED) + FOR_BOTH
        assert "candidate: warm-up batch" in watcher.said
        assert "baseline: batch 3" in watcher.said


def test_progress_does_not_tell_public_from_fresh_prompts(stage, run):
    watcher = Watcher()
    turns, _, _ = stage()
    run(turns, plan=AUDITED, progress=watcher)
    said = " ".join(watcher.said)
    assert not any(purpose in said for purpose in ("fixed", "audit", "repeat", "other"))


@pytest.mark.parametrize("order", ORDERS)
def test_each_wait_has_its_limit(stage, run, order):
    turns, _, _ = stage()
    run(turns, order)
    allowed = {WITHIN_S, exchange.IMPORTS_TIMEOUT_S, exchange.CLAIM_TIMEOUT_S}
    for turn in turns:
        assert set(turn.side.limits_s) <= allowed
        assert turn.side.limits_s[0] == exchange.IMPORTS_TIMEOUT_S
        assert turn.side.finished >= 1


@pytest.fixture
def lost(run):
    def run_into(turns, order="alternate"):
        with pytest.raises(LostError) as caught:
            run(turns, order)
        ending = caught.value.ending
        return caught.value.role, caught.value.phase, ending.breach, ending.breach_reason

    return run_into


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(
    ("image", "text"),
    [(Image(1, 2, b"abcdef"), "1 x 2"), (Image(1, 1, b"abc"), "1 x 1")],
)
def test_a_size_other_than_the_baselines_is_bad_output(stage, lost, order, image, text):
    turns, _, _ = stage(candidate={"images": lambda count, _: [PIXELS] * (count - 1) + [image]})
    role, phase, verdict, reason = lost(turns, order)
    assert (role, phase, verdict) == (C, Phase.WARMUP, Verdict.BAD_OUTPUT)
    assert reason == f"image 2 has {text} pixels, the baseline's have 2 x 1"


def test_a_size_that_changes_later_is_bad_output(stage, lost):
    small = Image(1, 1, b"abc")
    turns, _, _ = stage(
        candidate={"images": lambda count, batch: [small if batch == 2 else PIXELS] * count}
    )
    assert lost(turns)[:3] == (C, Phase.TIMED, Verdict.BAD_OUTPUT)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_wrong_count_is_bad_output(stage, lost, count):
    turns, _, _ = stage(candidate={"images": lambda *_: [PIXELS] * count})
    role, _, verdict, reason = lost(turns)
    assert (role, verdict) == (C, Verdict.BAD_OUTPUT)
    assert reason == f"sent {count} images for 2 prompts"


@pytest.mark.parametrize("payload", [b"\x00", b"\xff" * 20, b"\x00\x02" + b"\x00\x01" * 4])
def test_nonsense_pixels_are_tampering(stage, lost, payload):
    turns, _, _ = stage(candidate={"images": lambda *_: payload})
    assert lost(turns)[2] is Verdict.TAMPERED


def test_a_failing_baseline_is_told_as_the_baseline(stage, lost):
    turns, _, _ = stage(baseline={"images": lambda *_: []})
    assert lost(turns)[:2] == (B, Phase.WARMUP)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(("side", "role"), [("baseline", B), ("candidate", C)])
def test_an_unclean_exit_is_a_loss(stage, lost, order, side, role):
    turns, _, _ = stage(**{side: {"returncode": 3}})
    assert lost(turns, order)[:2] == (role, Phase.EXIT)


def test_nothing_is_scored_that_was_refused(stage, lost, judge):
    turns, _, kept = stage(candidate={"images": lambda *_: []})
    lost(turns)
    assert [role for role, _, _ in kept] == [B]
    assert len(judge.seen) == 1


def test_a_failing_scorer_is_our_failure(stage, run, clock):
    class Broken(FakeJudge):
        def score(self, *_):
            raise SpeedtrapError("the CLIP scorer failed")

    turns, _, _ = stage()
    with pytest.raises(SpeedtrapError, match="CLIP scorer"):
        run(turns, judge=Broken(clock))


@pytest.mark.parametrize("order", ORDERS)
def test_reports_and_digests_of_both_sides_are_kept(stage, run, order):
    other = Image(2, 1, b"ABCDEF")
    turns, _, _ = stage(
        baseline={"report": b'{"a": 1}'},
        candidate={"images": lambda count, _: [PIXELS] * (count - 1) + [other]},
    )
    found = run(turns, order)
    assert (found.baseline_traces.report, found.candidate_traces.report) == (b'{"a": 1}', b"{}")
    assert found.baseline_traces.size_px == (2, 1)
    mine, same = (hashlib.sha256(image.rgb).hexdigest() for image in (other, PIXELS))
    assert found.baseline_traces.digests == dict.fromkeys(range(4), (same, same))
    assert found.candidate_traces.digests == dict.fromkeys(range(4), (same, mine))


@pytest.mark.parametrize("order", ORDERS)
def test_a_clean_end_without_a_report_is_no_failure(stage, run, order):
    turns, _, _ = stage(candidate={"report": None})
    found = run(turns, order)
    assert found.candidate_traces.report is None
    assert found.claim_stdout == "loaded\n3.000000,80.500000\n"


def test_an_unclean_end_without_a_report_is_a_loss(stage, lost):
    turns, _, _ = stage(candidate={"report": None, "returncode": 3})
    assert lost(turns)[:2] == (C, Phase.EXIT)


def test_a_look_loads_and_runs_no_batch(stage):
    turns, log, _ = stage(candidate={"report": b"[]"})
    turn = turns[1]
    turn.side.receive({Kind.HELLO}, within_s=1.0)
    assert exchange.look(turn) == b"[]"
    assert [kind for role, kind in log if role is C] == [
        *(Kind.GO, "freeze", Kind.END, "thaw", "finish")
    ]


def fake_contestant(_):
    return FakeSide(C)


def real_contestant(folder):
    script = Path(folder) / "worker.py"
    script.write_text(REAL_WORKER)
    (folder / "wire.py").symlink_to(paths.WIRE)

    def command(descriptor):
        variables = {"CHANNEL": str(descriptor), "WIRE": str(folder)}
        return [sys.executable, "-S", "-s", str(script)], variables

    return worker.start(C, command, 2**40)


@pytest.fixture(params=[fake_contestant, real_contestant])
def contestant(request, tmp_path):
    """Make a contestant, fake and real, to which one list of tests applies."""
    made = request.param(tmp_path)
    yield made
    if isinstance(made, worker.Worker):
        made.close()


def test_conformance_whole_conversation(contestant):
    exchange.wait_for_imports([contestant])
    turn = Turn(contestant, lambda *_: None, WITHIN_S)
    turn.load()
    for place, batch in enumerate(PLAN):
        assert turn.run(place, batch, (2, 1)) == [PIXELS] * 2
        turn.note_score(80.5)
    turn.end()
    ending = turn.ending()
    assert (ending.returncode, ending.breach, ending.stderr) == (0, None, "")
    assert ending.stdout == "loaded\n3.000000,80.500000\n"
    assert contestant.finish(WITHIN_S) == ending


def test_conformance_answer_out_of_turn(contestant):
    with pytest.raises(LostError) as caught:
        contestant.receive({Kind.READY}, within_s=WITHIN_S)
    assert (caught.value.role, caught.value.phase) == (C, Phase.IMPORTS)
    assert caught.value.ending.breach is Verdict.TAMPERED
    assert caught.value.ending.returncode == 137


def test_conformance_what_is_told_while_frozen_waits(contestant):
    exchange.wait_for_imports([contestant])
    contestant.freeze()
    contestant.send(Kind.GO, within_s=WITHIN_S)
    contestant.thaw()
    contestant.thaw()  # of one that runs, nothing comes
    assert contestant.receive({Kind.READY}, within_s=WITHIN_S).kind is Kind.READY


def test_conformance_a_frozen_side_says_nothing(contestant):
    exchange.wait_for_imports([contestant])
    contestant.freeze()
    contestant.send(Kind.GO, within_s=WITHIN_S)
    with pytest.raises(LostError) as caught:
        contestant.receive({Kind.READY}, within_s=0.5)
    assert caught.value.ending.breach is Verdict.TIMEOUT


def test_conformance_refusal(contestant):
    exchange.wait_for_imports([contestant])
    contestant.phase = Phase.LOAD
    with pytest.raises(LostError) as caught:
        contestant.refuse(Verdict.BAD_OUTPUT, "two heads")
    lost = caught.value
    assert (lost.role, lost.phase) == (C, Phase.LOAD)
    assert (lost.ending.breach, lost.ending.breach_reason) == (Verdict.BAD_OUTPUT, "two heads")
    assert lost.ending.returncode == 137


def test_conformance_size_that_is_not_the_expected(contestant):
    exchange.wait_for_imports([contestant])
    turn = Turn(contestant, lambda *_: None, WITHIN_S)
    turn.load()
    with pytest.raises(LostError) as caught:
        turn.run(1, PLAN[1], (9, 9))
    assert (
        caught.value.ending.breach_reason == "image 1 has 2 x 1 pixels, the baseline's have 9 x 9"
    )
    assert caught.value.phase is Phase.TIMED


def test_a_side_that_ran_while_it_was_stopped_is_refused_before_its_next_clock(stage, run):
    turns, log, _ = stage(candidate={"wakes": True})
    with pytest.raises(LostError) as caught:
        run(turns)
    assert caught.value.ending.breach is Verdict.TAMPERED
    assert only(log, Kind.BATCH) == [B]
    assert (C, "thaw") not in log


def test_a_side_that_ran_after_its_last_batch_is_refused_too(stage, run):
    turns, log, _ = stage()

    class Late(list):
        def append(self, entry):
            super().append(entry)
            turns[1].side.wakes |= entry == (B, Kind.END)

    for turn in turns:
        turn.side.log = Late(log)
    with pytest.raises(LostError):
        run(turns)
    assert len(turns[1].shown) == len(PLAN)


def test_a_second_go_is_for_the_baseline_alone_and_its_images_are_not_kept(stage, judge):
    turns, log, _ = stage()
    place = next(place for place, one in enumerate(AUDITED) if one.purpose is Purpose.AUDIT)

    def more(plan, _ours, _theirs):
        if len(plan) > len(AUDITED):
            return ()
        return (replace(plan[place], purpose=Purpose.AGAIN, of=place),)

    exchange.wait_for_imports([turn.side for turn in turns])
    gallery = Gallery(list(AUDITED), judge, more)
    found = exchange.run(*turns, gallery, "alternate", Silent())
    assert only(log, Kind.BATCH)[-1] == B
    again = found.baseline.batches[-1]
    assert (again.purpose, again.of, again.counts) == (Purpose.AGAIN, place, False)
    assert len(found.candidate.batches) == sum(one.for_candidate for one in AUDITED)
    assert gallery._images == {}  # noqa: SLF001  (it is the memory that they take)


def test_what_comes_after_the_plan_is_asked_for_until_there_is_nothing(stage, judge):
    turns, log, _ = stage()
    asked = []

    def more(plan, ours, theirs):
        asked.append((len(plan), len(ours.counted), len(theirs.counted)))
        if len(asked) == 3:
            return ()
        place = len(plan)
        audit = planned(100 + place, Purpose.AUDIT)
        return audit, replace(audit, purpose=Purpose.OTHER_SEED, of=place, seed=7)

    exchange.wait_for_imports([turn.side for turn in turns])
    watcher = Watcher()
    found = exchange.run(*turns, Gallery(list(AUDITED), judge, more), "alternate", watcher)
    assert watcher.done == watcher.steps
    counted = sum(one.purpose is Purpose.AUDIT for one in AUDITED)
    assert asked == [(len(AUDITED) + 2 * n, counted + n, counted + n) for n in range(3)]
    assert len(found.candidate.counted) == len(found.baseline.counted) == counted + 2
    assert len(found.baseline.batches) == len(AUDITED) + 4
    assert all(one.other_seed for one in found.candidate.counted[-2:])
    tail = only(log, Kind.BATCH)[-6:]
    assert tail in ([B, C, B, C, B, B], [C, B, B, B, C, B])  # who begins goes on changing
    assert found.distances.images == 2 * (counted + 2)
    asked_for = [one.prompts for one in AUDITED if one.purpose is Purpose.AUDIT]
    assert judge.prompted[:counted] == asked_for


def test_the_plan_does_not_grow_where_whole_sides_are_measured(stage, judge):
    turns, _, _ = stage()
    exchange.wait_for_imports([turn.side for turn in turns])
    gallery = Gallery(list(AUDITED), judge, lambda *_: pytest.fail("the baseline is over"))
    found = exchange.run(*turns, gallery, "whole", Silent())
    assert len(found.baseline.batches) == len(AUDITED)
