"""Properties of what is read from a worker; benchmarks/fuzz.py looks at them at length."""

import contextlib
import json
import socket
import subprocess
import sys
import time
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import fuzz
from runner import live, paths, verify, wire
from runner.live import NoReading
from runner.records import Ending, Phase, Reading, Role, Script, Traces, WorkerLostError
from runner.wire import Image, Kind

SILENCE_S = 0.02
CPU_LIMIT_S = 1.0
STREAM_BYTES = 512 * 1024
"""What is kept of a stream of a worker's output."""

SMALL = Image(2, 1, b"abcdef")
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(10**400), 10**400)
    | st.floats()
    | st.text(st.characters(exclude_categories=[]), max_size=30),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=8,
)


class Hostile(fuzz.Peer):
    """A side on a real socket whose other end does one thing of `moves` a frame.

    `outcome` is how the conversation must end, known as soon as a move is not right.
    """

    def __init__(self, ours, theirs, moves):
        super().__init__(ours)
        self.theirs = theirs
        self.moves = moves
        self.batch = 0
        self.outcome = None

    def receive(self, expected, *, within_s):
        assert self.outcome is None, "the conversation went on after a breach"
        (kind,) = expected
        self.play(kind, *next(self.moves))
        limit_s = SILENCE_S if self.outcome == "timeout" else within_s
        return super().receive(expected, within_s=limit_s)

    def play(self, kind, move, noise, number):
        """Write what `move` says, and note what must come of it."""
        count = len(fuzz.PLAN[self.batch].prompts) if kind is Kind.IMAGES else 0
        right = self.frame(kind, count)
        self.batch += kind is Kind.IMAGES
        if move in {"count", "inside"} and kind is not Kind.IMAGES:
            return self.theirs.sendall(right)
        other_kind = bytes([(kind + 1 + number % 255) % 256])
        length = (wire.MAX_PAYLOAD_BYTES[kind] + 1 + number).to_bytes(4, "big")
        gone = "no report" if kind is Kind.REPORT else "None"
        data, self.outcome = {
            "right": (right, None),
            "silent": (b"", "timeout"),
            "close": (b"", gone),
            "cut": (right[: number % len(right)], gone),
            "noise": (b"XX" + noise + bytes(8), "tampered"),
            "kind": (right[:3] + other_kind + right[4:], "tampered"),
            "promise": (right[:4] + length + noise, "tampered"),
            "count": (self.frame(kind, count + 1), "bad_output"),
            "inside": (right[:8] + b"\xff\xff" + right[10:], "tampered"),
        }[move]
        self.theirs.sendall(data)
        if self.outcome == gone:
            self.theirs.shutdown(socket.SHUT_WR)
        return None

    @staticmethod
    def frame(kind, count):
        payload = b"{}" if kind is Kind.REPORT else b""
        if kind is Kind.IMAGES:
            payload = wire.pack_images([SMALL] * count)
        return fuzz.framed(kind, payload)


MOVES = ["silent", "close", "cut", "noise", "kind", "promise", "count", "inside"]


@settings(max_examples=150)
@given(
    st.integers(0, 7),
    st.lists(
        st.tuples(st.sampled_from(MOVES), st.binary(max_size=40), st.integers(0, 2**31)),
        min_size=9,
        max_size=9,
    ),
)
def test_a_conversation_ends_at_the_first_breach_and_as_it_must(right_count, wrong):
    ours, theirs = wire.pair()
    with ours, theirs:
        moves = [("right", b"", 0)] * right_count + wrong
        side = Hostile(ours, theirs, iter(moves))
        outcome = fuzz.converse(side)
        if side.outcome is None:
            assert outcome == "report"
        elif side.outcome == "no report":
            assert outcome == "no report"
        else:
            assert outcome.split(": ")[1] == side.outcome


def test_a_right_conversation_is_held_to_its_end():
    ours, theirs = wire.pair()
    with ours, theirs:
        side = Hostile(ours, theirs, iter([("right", b"", 0)] * 7))
        assert fuzz.converse(side) == "report"
        assert side.received == 7


@given(st.binary(max_size=300))
def test_any_stream_ends_a_conversation_alike_over_a_socket_and_fed(stream):
    fuzz.conversation(b"\x10" + stream)


def test_urgent_bytes_and_descriptors_are_no_messages():
    """A stream socket carries more than bytes: neither may stop the reader or reach it."""
    ours, theirs = wire.pair()
    with ours, theirs, paths.WIRE.open("rb") as file:
        with contextlib.suppress(OSError):  # kernels before 5.15 have none of it here
            theirs.send(b"!", socket.MSG_OOB)
        socket.send_fds(theirs, [fuzz.framed(Kind.HELLO)], [file.fileno()])
        theirs.shutdown(socket.SHUT_WR)
        descriptors = _descriptors()
        assert fuzz.converse(fuzz.Peer(ours)).endswith(": None: ")
        assert _descriptors() <= descriptors


def _descriptors():
    return {one.name for one in paths.Path("/proc/self/fd").iterdir()}


PATHS = [
    (),
    ("pipeline",),
    *(("pipeline", name) for name in fuzz.PIPELINE),
    *(("batches",), ("batches", 1), ("batches", 1, 3), ("other_pipelines", 0)),
    ("pipeline", "methods", "deepcache", "cache_interval"),
    *(("components",), ("components", "unet"), ("components", "unet", "config", "act_fn")),
    *(("components", "unet", "tensors", row) for row in (0, 1)),
    *(("components", "unet", "tensors", row, place) for row in (0, 1) for place in range(6)),
]


@settings(max_examples=300)
@given(st.sampled_from(PATHS), JSON)
def test_any_value_anywhere_in_a_report_is_read_or_refused(path, value):
    root = json.loads(json.dumps([fuzz.REPORT | {"components": fuzz.COMPONENTS}]))
    place = root
    *steps, last = (0, *path)
    for step in steps:
        place = place[step]
    place[last] = value
    data = json.dumps(root[0]).encode()
    assert fuzz.report(data) == 1
    assert isinstance(live.read(Traces(report=data)), Reading | NoReading)


@given(st.binary(max_size=200))
def test_bytes_that_are_no_report_are_refused(data):
    with contextlib.suppress(ValueError):
        json.loads(data)
        return
    assert isinstance(live.read(Traces(report=data)), NoReading)


@pytest.mark.parametrize(
    "tensor",
    [
        b'["w", [1], "f", 1' + b"0" * 400 + b", 0, 0]",
        b'["w", [1], "f", 0.0, 0.0, 5.0]',
        b'["w", [1], "f", -1.0, 0.0, 1e308]',
    ],
)
def test_no_weight_stops_the_comparison(tensor):
    head = b'{"components": {"u": {"class_name": "U", "config": {}, "tensors": ['
    zero = live.read_deep(head + b'["w", [1], "f", 0.0, 0.0, 0.0]]}}}')
    assert not isinstance(zero, NoReading)
    found = live.read_deep(head + tensor + b"]}}}")
    assert isinstance(found, NoReading) or len(live.compare_deep(zero, found)) == 1


@pytest.mark.parametrize(
    "data",
    [
        b"[" * wire.MAX_REPORT_BYTES,
        b'{"a":' * (wire.MAX_REPORT_BYTES // 5),
        b'"' + b"\\u0041" * (wire.MAX_REPORT_BYTES // 6 - 1) + b'"',
        b"9" * wire.MAX_REPORT_BYTES,
        b'{"components": {"u": {"class_name": "", "config": {}, "tensors": ['
        + b"[]," * 1_000_000
        + b"[]]}}}",
    ],
    ids=["lists", "objects", "text", "digits", "rows"],
)
def test_the_largest_reports_cost_little(data):
    start_s = time.process_time()
    tracemalloc.start()
    try:
        assert isinstance(live.read_deep(data), NoReading)
        assert isinstance(live.read(Traces(report=data)), NoReading)
        assert tracemalloc.get_traced_memory()[1] < 20 * wire.MAX_REPORT_BYTES
    finally:
        tracemalloc.stop()
    assert time.process_time() - start_s < 4 * CPU_LIMIT_S  # tracing costs most of it


REPEATED = [
    *fuzz.REPEATED,
    *(one + "\n" for one in fuzz.LINES if one.strip()),
    *("a.", "Error:", "Exception ignored in: x\nTraceback x\n x\n", 'File "tmp.py', "\r", "9"),
    *("Traceback (most recent call last):\n", " \t", "\u2028", "candidate.py: error: ", "\x00"),
]


@pytest.mark.parametrize("piece", REPEATED)
@pytest.mark.parametrize("end", ["", "!", "\nError"])
def test_no_text_takes_long_to_explain(piece, end):
    text = piece * (STREAM_BYTES // len(piece)) + end
    script = Script("", "/" + "long/" * 800, first_line=1, line_count=10**9)
    start_s = time.process_time()
    for status in (1, 2):
        lost = WorkerLostError(Role.CANDIDATE, Phase.LOAD, Ending(status, text, text))
        refused = verify.explain(lost, script, card_was_full=True)
        assert len(refused.failure.traceback) <= verify.TRACEBACK_CHARS
    verify.read_claim(text)
    assert time.process_time() - start_s < CPU_LIMIT_S


@given(st.text(max_size=300), st.integers(0, 255))
def test_any_text_is_explained(text, number):
    assert fuzz.explain(bytes([number]) + text.encode(errors="replace")) == 1


@given(st.text(max_size=60))
def test_any_text_is_a_claim_or_none(text):
    assert fuzz.claim(text.encode(errors="replace")) == 1


@pytest.mark.parametrize("number", range(40))
def test_damaged_inputs_of_each_kind(number):
    mutator = fuzz.Mutator(fuzz.random.Random(number))
    for make, subject in (
        (mutator.conversation, fuzz.conversation),
        (mutator.frames, fuzz.frames),
        (mutator.report, fuzz.report),
        (mutator.claim, fuzz.claim),
        (mutator.explain, fuzz.explain),
    ):
        for _ in range(10):
            assert subject(make()) >= 1


def test_the_command_writes_a_record(tmp_path):
    record = tmp_path / "record.json"
    command = [sys.executable, paths.ROOT / "benchmarks" / "fuzz.py", "--messages", "2000"]
    run = subprocess.run(
        [*command, "--processes", "1", "--seed", "7", "--record", record],
        cwd=tmp_path,
        timeout=120,
        check=False,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    found = json.loads(record.read_text())
    assert found["messages"] >= 2000
    assert found["seed"] == 7
    assert found["findings"] == []
    assert set(found["messages_by_subject"]) == {one.__name__ for one in fuzz.SUBJECTS}


FAULTS = {
    "an exception": ("wire.unpack_images = lambda payload: [][0]", "IndexError"),
    "an import": ("verify.read_claim = lambda text: __import__('this_is_not_there')", "import"),
    "unpickling": (
        "import pickle; live.read = lambda traces: pickle.loads(b'cos\\nsystem\\n.')",
        "pickle.find_class",
    ),
    "a hang": ("verify.read_claim = lambda text: [0 for _ in iter(int, 1)]", "CPU time"),
    "greed": (
        """one = wire.Channel._exactly
wire.Channel._exactly = lambda self, count, end: one(self, count + 1, end)[:count]""",
        "read more than",
    ),
    "laxness": ("wire._require_end = lambda payload, offset: None", "packs to"),
    "text as it came": ("fuzz.plain.printable = fuzz.feedback.printable = str", "shown as"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_planted_faults_are_found(fault):
    planted, expected = FAULTS[fault]
    code = (
        f"from benchmarks import fuzz; from runner import live, verify, wire; fuzz._guard();"
        f"fuzz.CPU_LIMIT_S = 0.3; fuzz._MAX_FINDINGS = 3; {planted}\n"
        "tally = fuzz.work(1, 0, 20_000)\n"
        "print([one['error'] for one in tally.findings])\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=paths.ROOT,
        timeout=120,
        check=False,
        capture_output=True,
        text=True,
    )
    assert expected in run.stdout, run.stderr
