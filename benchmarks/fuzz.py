"""Fuzz everything that the controller reads from a worker, and write down what came of it.

    python benchmarks/fuzz.py --messages 10000000 --record fuzz.json
    PYTHONPATH=FOLDER_WITH_ATHERIS python benchmarks/fuzz.py --engine atheris --messages 1000000

Theory of operation
-------------------
A message is one thing that the controller reads: a frame of a conversation, a report, what a worker
printed to stdout, or its stderr with its exit status. `SUBJECTS` are the real reading code, each
called with bytes: `exchange.Turn` on a `wire.Channel`, `live`, `verify`, and what shows their
answers to people. Only two things are not the product's: `Feed` stands for the socket, and `Peer`
for `worker.Worker`, which is a process. One conversation in `SOCKET_SHARE` runs over a real socket
pair as well and must end in the same way.

What counts as a finding: an exception that is not part of the protocol; more than `CPU_LIMIT_S` of
CPU time for one input; more memory than `MEMORY_BYTES`; a byte read beyond what was accepted;
an import, a file, a process or an unpickling (seen by an audit hook); a message that is accepted
but is not what packing its content gives; text for people that is not harmless.

The engine `random` damages valid conversations and reports in ways that `Mutator` lists, and mixes
in noise. It is repeatable: a share of the work is known by the seed and its number. The engine
`atheris` (not a dependency; tried with 3.0) is guided by coverage, and starts from valid inputs.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import datetime as dt
import importlib.metadata
import json
import math
import multiprocessing
import os
import platform
import random
import re
import resource
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn, Self

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file, from anywhere

from runner import exchange, feedback, live, plain, verify, wire
from runner.records import (
    Batch,
    Config,
    Ending,
    Measured,
    Phase,
    PlannedBatch,
    Purpose,
    Reading,
    Readings,
    Role,
    Script,
    Side,
    Traces,
    Verdict,
    WorkerLostError,
)
from runner.wire import Channel, ChannelClosedError, DeadlineError, Frame, Image, Kind, WireError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

SHARE_MESSAGES: Final = 50_000
"""Messages of a share of the work, after which its process reports."""
CPU_LIMIT_S: Final = 2.0
MEMORY_BYTES: Final = 2 * 1024**3
"""Address space beyond what the process has once everything is imported. The largest input is
4 MiB; a header may promise 256 MiB, of which 16 MiB are reserved at a time."""
SOCKET_SHARE: Final = 200
KEPT_INPUT_BYTES: Final = 4096
MAX_CHUNK_BYTES: Final = 1 << 20

PLAN: Final = (
    PlannedBatch(1, ("a red circle", "a blue square"), Purpose.WARM_UP),
    PlannedBatch(2, ("a \N{SNOWMAN}",), Purpose.FIXED),
)
TIMEOUT_S: Final = 60.0
_SCRIPT: Final = Script(text="", source=Path("candidate.py"), first_line=40, line_count=100)
_TEXT: Final = Config(
    pipeline_name="StableDiffusionPipeline",
    model_id="speedtrap/tiny-sd",
    scheduler_name="DDIMScheduler",
    num_inference_steps=25,
    guidance_scale=7.5,
    dtype="float16",
    acceleration_methods=(
        *("attention_slicing", "channels_last", "cpu_offload", "deepcache", "fastercache"),
        *("fp16", "freeu", "quanto", "tgate", "tomesd", "torch.compile", "xformers"),
    ),
)
_TIMED: Final = Batch.model_construct(
    phase="timed", purpose=Purpose.FIXED, time_s=1.25, scores=(31.5,)
)
_SIDE: Final = Side.model_construct(time_s=1.25, score=31.5, batches=(_TIMED,))
_ALLOWED_EVENTS: Final = frozenset(
    {"builtins.id", "object.__getattr__", "object.__setattr__", "sys._getframe", "socket.__new__"}
)


class FindingError(Exception):
    """What must not happen did."""


@dataclass(slots=True)
class Guard:
    """Sees imports, files, processes and long computing while an input is fed."""

    seen: list[str] = field(default_factory=list)
    is_armed: bool = False

    def install(self) -> Self:
        """Start to listen; an audit hook cannot be taken off again."""
        sys.addaudithook(self._hear)
        signal.signal(signal.SIGPROF, self._too_long)
        return self

    def feed(self, subject: Callable[[bytes], int], data: bytes) -> int:
        """Call `subject` under watch; returns its number of messages, raises what it finds."""
        signal.setitimer(signal.ITIMER_PROF, CPU_LIMIT_S)
        self.is_armed = True
        try:
            count = subject(data)
        finally:
            self.is_armed = False
            signal.setitimer(signal.ITIMER_PROF, 0)
        if self.seen:
            events, self.seen = self.seen, []
            raise FindingError(f"the reader did {', '.join(events)}")
        return count

    def _hear(self, event: str, _arguments: tuple[object, ...]) -> None:
        if self.is_armed and event not in _ALLOWED_EVENTS:
            self.seen.append(event)

    def _too_long(self, _number: int, _frame: object) -> NoReturn:
        raise FindingError(f"took more than {CPU_LIMIT_S:g} s of CPU time")


class Feed:
    """A socket whose other end has written `data` and then closed, or fallen silent.

    It gives at most `chunk_bytes` at a time, as a peer that writes in pieces would.
    """

    def __init__(self, data: bytes, chunk_bytes: int, end: str) -> None:
        self._data = memoryview(data)
        self._chunk_bytes = chunk_bytes
        self._end = end
        self.taken_bytes = 0

    def settimeout(self, seconds: float | None) -> None:
        """Take a limit as a socket does."""
        if seconds is not None and seconds < 0:
            raise FindingError(f"a time limit of {seconds} s")

    def recv_into(self, room: memoryview) -> int:
        """Give what there is."""
        if len(room) > wire._STEP_BYTES:  # noqa: SLF001  (the promise that is looked at)
            raise FindingError(f"room for {len(room)} bytes at once")
        count = min(len(room), self._chunk_bytes, len(self._data) - self.taken_bytes)
        if count == 0 and len(room) > 0 and self._end != "closed":
            raise TimeoutError if self._end == "silent" else ConnectionResetError
        room[:count] = self._data[self.taken_bytes : self.taken_bytes + count]
        self.taken_bytes += count
        return count

    def sendall(self, _data: bytes) -> None:
        """Take everything."""

    def close(self) -> None:
        """Nothing is held."""


class Peer:
    """A contestant as `worker.Worker` is one, without a process: the same errors, the same end."""

    role = Role.CANDIDATE

    def __init__(self, connection: Any) -> None:  # noqa: ANN401  (a socket, or a `Feed`)
        self.phase = Phase.IMPORTS
        self.received = 0
        self._connection = connection
        self._channel = Channel(connection)

    def freeze(self) -> None:
        """Have no process to stop."""

    def require_still(self) -> None:
        """Have no process that could have run."""

    def thaw(self) -> None:
        """Have no process to let go."""

    def send(self, kind: Kind, payload: bytes = b"", *, within_s: float) -> None:
        """Send one frame."""
        try:
            self._channel.send(kind, payload, time.monotonic() + within_s)
        except DeadlineError:
            self.refuse(Verdict.TIMEOUT, "took too long")
        except ChannelClosedError:
            self._lose()

    def receive(self, expected: Collection[Kind], *, within_s: float) -> Frame:
        """Read one frame, and see how many bytes that took."""
        self.received += 1
        before = getattr(self._connection, "taken_bytes", None)
        try:
            frame = self._channel.receive(expected, time.monotonic() + within_s)
        except DeadlineError:
            self.refuse(Verdict.TIMEOUT, "took too long")
        except ChannelClosedError:
            self._lose()
        except WireError as error:
            self._check_taken(before, 8)
            self.refuse(Verdict.TAMPERED, f"broke the protocol: {error}")
        self._check_taken(before, 8 + len(frame.payload))
        if frame.kind not in expected or len(frame.payload) > wire.MAX_PAYLOAD_BYTES[frame.kind]:
            raise FindingError(f"took {frame.kind} of {len(frame.payload)} bytes")
        return frame

    def refuse(self, verdict: Verdict, reason: str) -> NoReturn:
        """Raise the end that a real worker has after a breach."""
        raise WorkerLostError(self.role, self.phase, Ending(137, "", "", verdict, reason))

    def finish(self, within_s: float) -> Ending:
        """Exit by itself."""
        del within_s
        return Ending(0, "1.000000,50.000000\n", "")

    def _lose(self) -> NoReturn:
        raise WorkerLostError(self.role, self.phase, Ending(0, "", ""))

    def _check_taken(self, before: int | None, most_bytes: int) -> None:
        if before is not None and self._connection.taken_bytes - before > most_bytes:
            raise FindingError(f"read more than {most_bytes} bytes of a message")


def converse(side: Peer) -> str:
    """Hold the whole conversation of one side; returns how it ended."""
    turn = exchange.Turn(side, lambda *_: None, TIMEOUT_S)
    try:
        side.receive({Kind.HELLO}, within_s=TIMEOUT_S)
        turn.load()
        for place, planned in enumerate(PLAN):
            turn.run(place, planned, turn.size_px)
            turn.note_score(50.0)
        turn.end(TIMEOUT_S)
    except WorkerLostError as lost:
        return f"{lost.phase}: {lost.ending.breach}: {lost.ending.breach_reason}"
    digests = turn.traces().digests
    if [len(digests[place]) for place in digests] != [len(planned.prompts) for planned in PLAN]:
        raise FindingError(f"traces of {digests}")
    return "no report" if turn.report is None else "report"


def conversation(data: bytes) -> int:
    """The first byte says in which pieces the rest comes, and how it ends."""
    how, stream = data[:1] or b"\0", data[1:]
    chunk_bytes = (MAX_CHUNK_BYTES, 1, 7, 4096)[how[0] & 3]
    end = ("closed", "closed", "silent", "reset")[how[0] >> 2 & 3]
    side = Peer(Feed(stream, chunk_bytes, end))
    outcome = converse(side)
    if how[0] >> 4 == 1 and end == "closed" and len(stream) < MAX_CHUNK_BYTES // 16:
        over_socket = _converse_over_socket(stream)
        if over_socket != outcome:
            raise FindingError(f"over a socket: {over_socket}; fed: {outcome}")
    return side.received


def _converse_over_socket(stream: bytes) -> str:
    ours, theirs = wire.pair()
    with ours, theirs:
        theirs.sendall(stream)
        theirs.shutdown(socket.SHUT_WR)
        return converse(Peer(ours))


_EXPECTED: Final = (
    *({Kind.HELLO}, {Kind.READY}, {Kind.IMAGES}, {Kind.REPORT}, {Kind.SCORES}),
    *({Kind.READY, Kind.IMAGES}, {Kind.BATCH, Kind.END, Kind.COMPARE}, {Kind.SCORE}, set(Kind)),
)
_ANY_KIND: Final = len(_EXPECTED) - 1
_ANY_KIND_UNLIMITED: Final = 15 * len(_EXPECTED) + _ANY_KIND
_PACKED_AGAIN: Final[dict[Kind, Callable[[bytearray], bytes]]] = {
    Kind.BATCH: lambda payload: wire.pack_batch(*wire.unpack_batch(payload)),
    Kind.IMAGES: lambda payload: wire.pack_images(wire.unpack_images(payload)),
    Kind.SCORE: lambda payload: wire.pack_score(wire.unpack_score(payload)),
    Kind.SCORES: lambda payload: wire.pack_scores(wire.unpack_scores(payload)),
}


def frames(data: bytes) -> int:
    """Frames until one is refused: what is unpacked must pack to the same bytes."""
    how, stream = data[:1] or b"\0", data[1:]
    expected = _EXPECTED[how[0] % len(_EXPECTED)]
    side = Peer(Feed(stream, MAX_CHUNK_BYTES, "closed"))
    while True:
        try:
            frame = side.receive(expected, within_s=TIMEOUT_S)
        except WorkerLostError:
            return side.received
        again = _PACKED_AGAIN.get(frame.kind)
        with contextlib.suppress(WireError):
            if again is not None and again(frame.payload) != frame.payload:
                raise FindingError(f"{frame.kind.name} is not what its content packs to")


def report(data: bytes) -> int:
    """What a side says of its pipeline, held against a text and against another reading."""
    traces = Traces(report=data, size_px=(64, 64))
    reading = live.read(traces)
    if isinstance(reading, Reading):
        other = reading.model_copy(update={"steps_per_image": 3.0, "guidance": None})
        for sentence in (
            *live.contradictions(Role.CANDIDATE, _TEXT, reading),
            *live.no_ops(Role.CANDIDATE, _TEXT, reading),
            *live.changes(other, reading),
            *live.contradicts(_TEXT, reading),
        ):
            _require_harmless(sentence)
        plain.json_text(Readings(candidate=reading).model_dump(mode="json"))
    else:
        _require_harmless(reading.reason)
    deep = live.read_deep(data)
    if not isinstance(deep, live.NoReading):
        for sentence in live.compare_deep(_deep_truth(), deep):
            _require_harmless(sentence)
    return 1


def claim(data: bytes) -> int:
    """What was printed to stdout, as `worker.Drain` decodes it, held against the witness."""
    stdout = data.decode(errors="replace")
    found = verify.read_claim(stdout)
    if reason := verify.tampering(found, Measured(_SIDE, _SIDE, stdout, "alternate")):
        _require_harmless(reason)
    if found is not None and not (0 <= found.time_s < 1e9 and 0 <= found.score < 1e3):  # noqa: PLR2004
        raise FindingError(f"a claim of {found}")
    return 1


_STATUSES: Final = (0, 1, 2, 64, 65, 134, 137, 139, 255, 129)


def explain(data: bytes) -> int:
    """What was printed to stderr, with an exit status, made into a verdict and told."""
    how, stderr = data[:1] or b"\0", data[1:].decode(errors="replace")
    phase = tuple(Phase)[how[0] % len(Phase)]
    ending = Ending(_STATUSES[how[0] % len(_STATUSES)], stderr, stderr)
    lost = WorkerLostError(Role.CANDIDATE, phase, ending)
    refused = verify.explain(lost, _SCRIPT, card_was_full=bool(how[0] & 64))
    assert refused.failure is not None
    if len(refused.reason) > 1000 or len(refused.failure.traceback) > verify.TRACEBACK_CHARS:  # noqa: PLR2004
        raise FindingError(f"an explanation of {len(refused.reason)} characters")
    told = feedback.for_refusal(refused)
    if len(told) > feedback.MAX_CHARS or not told.startswith(f"verdict: {refused.verdict}\n"):
        raise FindingError(f"feedback of {len(told)} characters")
    if plain.printable(told) != told:
        raise FindingError("feedback that is not harmless")
    _require_harmless(refused.reason)
    plain.json_text(refused.failure.model_dump(mode="json"))
    return 1


def _require_harmless(sentence: str) -> None:
    shown = plain.one_line(sentence)
    if len(shown.splitlines()) > 1 or plain.printable(shown) != shown:
        raise FindingError(f"shown as {shown!a:.200}")


SUBJECTS: Final[tuple[Callable[[bytes], int], ...]] = (conversation, frames, report, claim, explain)

PIPELINE: Final[dict[str, Any]] = {
    "pipeline_name": "StableDiffusionPipeline",
    "model_id": "speedtrap/tiny-sd",
    "scheduler_name": "DDIMScheduler",
    "scheduler_steps": 25,
    "timesteps": 25,
    "skips_prk_steps": None,
    "denoiser": "unet",
    "denoiser_name": "UNet2DConditionModel",
    "dtype": "float32",
    "guidance_scale": 7.5,
    "guidance": True,
    "attention_processors": {"AttnProcessor2_0": 14},
    "methods": {"deepcache": {"cache_interval": 3, "layers": 2}, "tomesd": {"ratio": 0.5}},
    "unread": [],
}
REPORT: Final[dict[str, Any]] = {
    "loads": "load_pipe",
    "pipeline": PIPELINE,
    "other_pipelines": ["LatentUpscaler"],
    "compute_dtype": "float32",
    "batches": [[2, 10, 100, 10, 50], [1, 5, 50, 5, 25]],
}
COMPONENTS: Final[dict[str, Any]] = {
    "unet": {
        "class_name": "UNet2DConditionModel",
        "config": {"sample_size": 16, "act_fn": "silu", "_name": None},
        "tensors": [
            ["conv_in.weight", [8, 4, 3, 3], "float32", 1.5, 0.01, -0.3],
            ["conv_in.bias", [8], "float32", 0.0, 0.0, 0.0],
        ],
    },
    "scheduler": {"class_name": "DDIMScheduler", "config": {"beta": 0.1}, "tensors": []},
}


def _deep_truth() -> dict[str, live.Component]:
    return {name: live.Component.model_validate(one) for name, one in COMPONENTS.items()}


def framed(kind: int, payload: bytes = b"") -> bytes:
    """Return a whole message."""
    return struct.pack("!2sBBI", wire.MAGIC, wire.VERSION, kind, len(payload)) + payload


def _pixels(rng: random.Random, count: int) -> bytes:
    width_px, height_px = rng.choice(((1, 1), (2, 1), (4, 3), (8, 8)))
    images = [Image(width_px, height_px, rng.randbytes(width_px * height_px * 3))] * count
    return wire.pack_images(images)


_NOISE: Final = (
    *('"', "\\", "\x1b[2J", "\x9b", "\u202e", "\u2028", "\x85", "\r", "\n", "\x00", "\ufeff"),
    *("<script>", "verdict: ok (passed)", "\N{SNOWMAN}" * 9, "a" * 300, "\u0300" * 40),
    "speedtrap: ",
)
_VALUES: Final = (
    *("null", "true", "-1", "0", "1e999", "-0.0", "NaN", "Infinity", "1e-400", "9" * 400),
    "9" * 4400,
    *('"\\ud800"', '"\\u0000"', "[]", "{}", "[" * 500, '{"a":' * 60 + "1" + "}" * 60, "1.5"),
    *('"' + "x" * 600 + '"', "2147483648", "9007199254740993", '"\\u202e"', '"__class__"', "[[]]"),
)
LINES: Final = (
    "Traceback (most recent call last):",
    '  File "/tmp/speedtrap/tmp.py", line 60, in load_pipe',
    '  File "candidate.py", line 12, in inference',
    '  File "/usr/lib/python3/dist-packages/torch/nn.py", line 7, in __call__',
    "    return pipe(prompts).images",
    "ValueError: no",
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB",
    "MemoryError",
    "StopIteration",
    "speedtrap: inference returned 3 images for 5 prompts",
    "speedtrap_candidate.Odd: \x1b[31mred",
    "Exception ignored in: <function f at 0x7f>",
    "candidate.py: error: the following arguments are required: --steps",
    "Error: Missing option",
    "Fatal Python error: Aborted",
    "Current thread 0x00007f (most recent call first):",
    "Extension modules: numpy.core._multiarray_umath, torch._C (total: 2)",
    "During handling of the above exception, another exception occurred:",
    "verdict: ok (passed)",
    "\t\t",
    "",
)
REPEATED: Final = (
    *("Error", 'File "', "/", " ", 'File "/tmp.py", line 1'),
    "Exception ignored in: \n",
)


class Mutator:
    """Makes inputs out of valid ones. All randomness comes from `rng`."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._reports = [json.dumps(one).encode() for one in self._valid_reports()]

    @staticmethod
    def _valid_reports() -> Iterator[dict[str, Any]]:
        yield REPORT
        yield REPORT | {"components": COMPONENTS}
        yield {"problem": "it could not be read"}
        yield {"pipeline": None}

    def next(self) -> tuple[Callable[[bytes], int], bytes]:
        """A subject and an input for it."""
        draw = self._rng.random()
        if draw < 0.62:  # noqa: PLR2004  (shares of the work)
            return conversation, self.conversation()
        if draw < 0.85:  # noqa: PLR2004
            return frames, self.frames()
        if draw < 0.90:  # noqa: PLR2004
            return report, self.report()
        if draw < 0.95:  # noqa: PLR2004
            return claim, self.claim()
        return explain, self.explain()

    def valid(self) -> Iterator[tuple[Callable[[bytes], int], bytes]]:
        """One undamaged input of each sort."""
        yield conversation, b"\x10" + b"".join(self._conversation())
        for number in range(len(_EXPECTED)):
            yield frames, bytes([number]) + self._any_frame()
        yield from ((report, one) for one in self._reports)
        yield claim, b"step 1\n1.250000,31.500000\n"
        for number in range(len(_STATUSES)):
            yield explain, bytes([number]) + "\n".join(LINES).encode()

    def conversation(self) -> bytes:
        """A conversation, whole or damaged."""
        rng = self._rng
        parts = self._conversation()
        for _ in range(rng.choice((0, 1, 1, 1, 2, 3))):
            self._damage(parts)
        stream = b"".join(parts)
        if rng.random() < 0.3:  # noqa: PLR2004
            stream = self._spoil(stream)
        how = rng.randrange(16) | (16 if rng.random() < 1 / SOCKET_SHARE else 0)
        return bytes([how]) + stream

    def frames(self) -> bytes:
        """Some frames of any kind, or noise."""
        rng = self._rng
        if rng.random() < 0.1:  # noqa: PLR2004
            return rng.randbytes(rng.randrange(40))
        parts = [self._any_frame() for _ in range(rng.randrange(1, 4))]
        if rng.random() < 0.6:  # noqa: PLR2004
            self._damage(parts)
        how = rng.choice((_ANY_KIND, _ANY_KIND_UNLIMITED, rng.randrange(256)))
        stream = b"".join(parts)
        return bytes([how]) + (self._spoil(stream) if rng.random() < 0.3 else stream)  # noqa: PLR2004

    def report(self) -> bytes:
        """A report, with values replaced and bytes spoiled."""
        rng = self._rng
        if rng.random() < 0.002:  # noqa: PLR2004
            return self._large_report()
        data = rng.choice(self._reports)
        for _ in range(rng.choice((0, 1, 1, 2, 4))):
            draw = rng.random()
            if draw < 0.6:  # noqa: PLR2004
                data = self._replace_value(data)
            elif draw < 0.8:  # noqa: PLR2004
                data = self._insert(data, rng.choice(_NOISE).encode())
            else:
                data = self._spoil(data)
        return data

    def claim(self) -> bytes:
        """Something like `time,score`, after noise."""
        rng = self._rng
        time_s = rng.choice(("1.250000", "0.000000", "9" * 12, "-1.0", "nan", "\u0661.000000"))
        score = rng.choice(("31.500000", "999.999999", "1000.000000", "inf", "", "31.500000 "))
        text = rng.choice(("", "step\r", "\x1b[0m", *_NOISE)) + "\n" + time_s + "," + score
        text += rng.choice(("", "\n", "\n\n", "\x1c", "\u2028", "\nx", "\x00"))
        if rng.random() < 0.001:  # noqa: PLR2004
            text = rng.choice(REPEATED) * 50_000 + text
        return self._spoil(text.encode()) if rng.random() < 0.3 else text.encode()  # noqa: PLR2004

    def explain(self) -> bytes:
        """Lines of tracebacks and messages in any order, spoiled."""
        rng = self._rng
        lines = rng.choices(LINES, k=rng.randrange(12))
        if rng.random() < 0.3:  # noqa: PLR2004
            lines.insert(rng.randrange(len(lines) + 1), rng.choice(_NOISE))
        if rng.random() < 0.001:  # noqa: PLR2004
            lines.append(rng.choice((*REPEATED, *LINES, *_NOISE)) * rng.randrange(1, 20_000))
        text = rng.choice(("\n", "\n", "\r\n", "\u2028")).join(lines).encode()
        if rng.random() < 0.3:  # noqa: PLR2004
            text = self._spoil(text)
        return bytes([rng.randrange(256)]) + text[: 512 * 1024]

    def _conversation(self) -> list[bytes]:
        parts = [framed(Kind.HELLO), framed(Kind.READY)]
        for planned in PLAN:
            count = len(planned.prompts)
            parts += [framed(Kind.IMAGES, _pixels(self._rng, count)), framed(Kind.READY)]
        return [*parts, framed(Kind.REPORT, self._rng.choice(self._reports))]

    def _any_frame(self) -> bytes:
        rng = self._rng
        match rng.choice(tuple(Kind)):
            case Kind.BATCH as kind:
                return framed(kind, wire.pack_batch(rng.getrandbits(64), ["a", "\N{SNOWMAN}", ""]))
            case Kind.IMAGES as kind:
                return framed(kind, _pixels(rng, rng.randrange(5)))
            case Kind.SCORE as kind:
                return framed(kind, rng.randbytes(8))
            case Kind.SCORES as kind:
                return framed(kind, wire.pack_scores([rng.random()] * rng.randrange(5)))
            case Kind.REPORT as kind:
                return framed(kind, rng.choice(self._reports))
            case kind:
                return framed(kind)

    def _damage(self, parts: list[bytes]) -> None:
        """Change one frame, or the order of frames."""
        rng = self._rng
        place = rng.randrange(len(parts))
        part = parts[place]
        match rng.randrange(9):
            case 0:
                del parts[place:]
                parts.append(part[: rng.randrange(len(part) + 1)])
            case 1:
                parts[place] = b""
            case 2:
                parts.insert(place, part)
            case 3:
                other = rng.randrange(len(parts))
                parts[place], parts[other] = parts[other], part
            case 4:
                parts[place] = self._any_frame()
            case 5:
                parts[place] = part[:4] + self._length(len(part) - 8) + part[8:]
            case 6:
                parts[place] = self._header_byte(part)
            case 7:
                parts[place] = framed(part[3] if len(part) > 3 else 0, self._payload(part[8:]))  # noqa: PLR2004
            case _:
                parts.insert(place, rng.randbytes(rng.randrange(1, 20)))

    def _length(self, real: int) -> bytes:
        rng = self._rng
        interesting = (
            *(0, 1, real - 1, real + 1, 2**31, 2**32 - 1, 65536, wire.MAX_REPORT_BYTES + 1),
            *(wire.MAX_PAYLOAD_BYTES[Kind.IMAGES], wire.MAX_PAYLOAD_BYTES[Kind.IMAGES] + 1),
        )
        return (rng.choice(interesting) % 2**32).to_bytes(4, "big")

    def _header_byte(self, part: bytes) -> bytes:
        place = self._rng.randrange(4)
        return part[:place] + bytes([self._rng.randrange(256)]) + part[place + 1 :]

    def _payload(self, payload: bytes) -> bytes:
        """A payload with its first numbers changed, cut, or made longer."""
        rng = self._rng
        match rng.randrange(4):
            case 0:
                number = rng.choice((0, 1, 2, 3, 64, 65, 255, 4096, 4097, 65535))
                place = 2 * rng.randrange(4)
                return payload[:place] + number.to_bytes(2, "big") + payload[place + 2 :]
            case 1:
                return payload[: rng.randrange(len(payload) + 1)]
            case 2:
                return payload + rng.randbytes(rng.randrange(1, 9))
            case _:
                return self._spoil(payload)

    def _spoil(self, data: bytes) -> bytes:
        """Flip, overwrite, cut out or double some bytes."""
        rng = self._rng
        spoilt = bytearray(data)
        for _ in range(rng.choice((1, 1, 2, 5))):
            place = rng.randrange(len(spoilt) + 1)
            match rng.randrange(5):
                case 0 if place < len(spoilt):
                    spoilt[place] ^= 1 << rng.randrange(8)
                case 1 if place < len(spoilt):
                    spoilt[place] = rng.choice((0, 1, 10, 13, 34, 127, 128, 155, 255))
                case 2:
                    del spoilt[place : place + rng.randrange(9)]
                case 3:
                    spoilt[place:place] = rng.randbytes(rng.randrange(1, 9))
                case _:
                    spoilt[place:place] = spoilt[place : place + rng.randrange(32)]
        return bytes(spoilt)

    def _insert(self, data: bytes, piece: bytes) -> bytes:
        place = self._rng.randrange(len(data) + 1)
        return data[:place] + piece + data[place:]

    def _replace_value(self, data: bytes) -> bytes:
        """Put another JSON value in the place of one."""
        found = list(_JSON_VALUE.finditer(data))
        if not found:
            return data
        one = self._rng.choice(found)
        return data[: one.start()] + self._rng.choice(_VALUES).encode() + data[one.end() :]

    def _large_report(self) -> bytes:
        rng = self._rng
        count = rng.randrange(1, 60_000)
        match rng.randrange(4):
            case 0:
                return b"[" * count
            case 1:
                return b'{"batches": [' + b",".join([b"[1,2,3,4,5]"] * count) + b"]}"
            case 2:
                row = b'["w",[1,2],"float32",1.0,0.0,0.5]'
                rows = b",".join([row] * count)
                head = b'{"components":{"unet":{"class_name":"U","config":{},"tensors":['
                return head + rows + b"]}}}"
            case _:
                pairs = b",".join(b'"k%d":%d' % (number, number) for number in range(count))
                return b"{" + pairs + b"}"


_JSON_VALUE: Final = re.compile(rb'(?<=[:\[,] )(?:"[^"]*"|[\w.+-]+|\[\]|\{\})')


@dataclass(slots=True)
class Tally:
    """What a share of the work came to."""

    messages: Counter[str] = field(default_factory=Counter)
    inputs: Counter[str] = field(default_factory=Counter)
    findings: list[dict[str, str]] = field(default_factory=list)
    peak_bytes: int = 0

    def add(self, other: Tally) -> None:
        """Take in another share."""
        self.messages += other.messages
        self.inputs += other.inputs
        self.findings += other.findings
        self.peak_bytes = max(self.peak_bytes, other.peak_bytes)


_MAX_FINDINGS: Final = 20
"""Of one share: one fault is found thousands of times."""


def work(seed: int, number: int, message_count: int) -> Tally:
    """One share of the work: the same inputs for the same `seed` and `number`, every time."""
    guard = _guard()
    mutator = Mutator(random.Random(f"{seed}/{number}"))  # noqa: S311  (repeatable on purpose)
    tally = Tally()
    done = 0
    while done < message_count and len(tally.findings) < _MAX_FINDINGS:
        subject, data = mutator.next()
        count = 1
        try:
            count = guard.feed(subject, data)
        except Exception as error:  # noqa: BLE001  (whatever it is, it is a finding)
            tally.findings.append(_finding(subject, data, error, f"{seed}/{number}"))
        tally.inputs[subject.__name__] += 1
        tally.messages[subject.__name__] += count
        done += count
    tally.peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return tally


_GUARDS: Final[list[Guard]] = []
"""The guard of this process, once it has one: audit hooks stay."""


def _guard() -> Guard:
    """This process's guard; what is imported late or made once is done before it listens."""
    if not _GUARDS:
        guard = Guard()
        for subject, data in Mutator(random.Random(0)).valid():  # noqa: S311
            subject(data)
        _GUARDS.append(guard.install())
    return _GUARDS[0]


def _limit_memory() -> None:
    """Let this process have `MEMORY_BYTES` more than it has."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    most = pages * resource.getpagesize() + MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _finding(
    subject: Callable[[bytes], int], data: bytes, error: Exception, share: str
) -> dict[str, str]:
    return {
        "subject": subject.__name__,
        "share": share,
        "error": f"{type(error).__name__}: {error!s:.500}",
        "input_base64": base64.b64encode(data[:KEPT_INPUT_BYTES]).decode(),
        "input_bytes": str(len(data)),
    }


def run_random(message_count: int, processes: int, seed: int) -> Tally:
    """Divide the work between processes and gather what they found."""
    shares = math.ceil(message_count / SHARE_MESSAGES)
    tally = Tally()
    start_s = time.monotonic()
    context = multiprocessing.get_context("spawn")
    with (
        ProcessPoolExecutor(processes, mp_context=context, initializer=_limit_memory) as pool,
        _nothing_waits(pool),
    ):
        size = min(message_count, SHARE_MESSAGES)
        waiting = [pool.submit(work, seed, number, size) for number in range(shares)]
        for finished, one in enumerate(as_completed(waiting), start=1):
            tally.add(one.result())
            done, elapsed_s = tally.messages.total(), time.monotonic() - start_s
            if finished % 10 == 0 or finished == shares:
                print(
                    f"{done:,} messages, {len(tally.findings)} findings, {elapsed_s:.0f} s,"
                    f" {done / elapsed_s:,.0f} messages/s",
                    file=sys.stderr,
                    flush=True,
                )
    return tally


@contextlib.contextmanager
def _nothing_waits(pool: ProcessPoolExecutor) -> Iterator[None]:
    """Drop the work that is left when this process is interrupted or asked to end."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    except BaseException:
        pool.shutdown(cancel_futures=True)
        raise


def run_atheris(input_count: int, seed: int) -> tuple[Tally, str]:
    """Let atheris drive a process of its own; what it printed last comes back too."""
    with tempfile.TemporaryDirectory(prefix="speedtrap-fuzz-") as folder:
        corpus = Path(folder, "corpus")
        corpus.mkdir()
        mutator = Mutator(random.Random(seed))  # noqa: S311
        for number, (subject, data) in enumerate(mutator.valid()):
            (corpus / f"{number:03}").write_bytes(bytes([SUBJECTS.index(subject)]) + data)
        tallied = Path(folder, "tally.json")
        command = [
            *(sys.executable, __file__, "--guided-by-atheris", str(tallied)),
            *(f"-runs={input_count}", f"-seed={seed % 2**32}", "-max_len=2048", "-timeout=60"),
            *(f"-artifact_prefix={folder}/", "-rss_limit_mb=4096", "-print_final_stats=1"),
            str(corpus),
        ]
        run = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
        found = json.loads(tallied.read_text(encoding="utf-8")) if tallied.exists() else {}
        tally = Tally(Counter(found.get("messages")), Counter(found.get("inputs")))
        for crash in (*Path(folder).glob("crash-*"), *Path(folder).glob("timeout-*")):
            data = crash.read_bytes()
            error = FindingError("\n".join(run.stderr.splitlines()[-30:]))
            tally.findings.append(_finding(_subject(data), data[1:], error, "atheris"))
        if run.returncode and not tally.findings:
            raise SystemExit(f"atheris ended with {run.returncode}:\n{run.stderr[-2000:]}")
    stats = [line for line in run.stderr.splitlines() if line.startswith(("stat::", "#", "Done"))]
    return tally, "\n".join(stats[-12:])


def _subject(data: bytes) -> Callable[[bytes], int]:
    return SUBJECTS[(data[0] if data else 0) % len(SUBJECTS)]


_WRITTEN_DOWN_EVERY: Final = 1000


def guided(arguments: list[str]) -> NoReturn:
    """Be the process that atheris drives: `TALLY-FILE`, then libFuzzer's own arguments."""
    import atheris  # deferred: only this process needs it

    tallied, *rest = arguments
    for module in (wire, exchange, live, verify, feedback):  # `plain` decides nothing, slowly
        _instrument(atheris, module)
    guard = _guard()
    tally = Tally()

    def feed(data: bytes) -> None:
        subject = _subject(data)
        count = guard.feed(subject, data[1:])
        tally.inputs[subject.__name__] += 1
        tally.messages[subject.__name__] += count
        if tally.inputs.total() % _WRITTEN_DOWN_EVERY == 0:  # libFuzzer leaves without a farewell
            counts = {"messages": dict(tally.messages), "inputs": dict(tally.inputs)}
            Path(tallied).write_text(json.dumps(counts), encoding="utf-8")

    atheris.Setup([sys.argv[0], *rest], feed)
    atheris.Fuzz()
    raise SystemExit(0)


def _instrument(atheris: Any, module: Any) -> None:  # noqa: ANN401  (no types of it are there)
    """Have every function and method of a module report which branches it takes."""
    for holder in (module, *(one for one in vars(module).values() if isinstance(one, type))):
        if getattr(holder, "__module__", module.__name__) != module.__name__:
            continue
        for name, one in list(vars(holder).items()):
            is_own = getattr(one, "__module__", None) == module.__name__
            if is_own and hasattr(one, "__code__"):
                setattr(holder, name, atheris.instrument_func(one))


def versions() -> dict[str, str]:
    """What was fuzzed, and with what."""
    found = {"python": platform.python_version()}
    for name in ("speedtrap", "pydantic", "pydantic_core", "atheris"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def main() -> None:
    """Fuzz, and print or write the record. Exit status 1 with findings."""
    if sys.argv[1:2] == ["--guided-by-atheris"]:
        guided(sys.argv[2:])
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().getrandbits(32))
    parser.add_argument("--engine", choices=("random", "atheris"), default="random")
    parser.add_argument("--record", type=Path, help="write the record here, as JSON")
    options = parser.parse_args()
    print(f"seed {options.seed}", file=sys.stderr, flush=True)
    start_s = time.monotonic()
    notes = ""
    if options.engine == "random":
        tally = run_random(options.messages, options.processes, options.seed)
    else:
        tally, notes = run_atheris(options.messages, options.seed)
    elapsed_s = time.monotonic() - start_s
    record = {
        "date": dt.datetime.now(tz=dt.UTC).isoformat(timespec="seconds"),
        "engine": options.engine,
        "seed": options.seed,
        "processes": options.processes if options.engine == "random" else 1,
        "messages": tally.messages.total(),
        "messages_by_subject": dict(tally.messages),
        "inputs": tally.inputs.total(),
        "wall_s": round(elapsed_s, 1),
        "messages_per_s": round(tally.messages.total() / elapsed_s),
        "peak_bytes_of_a_process": tally.peak_bytes or None,
        "findings": tally.findings,
        "versions": versions(),
        **({"engine_says": notes.splitlines()} if notes else {}),
    }
    text = json.dumps(record, indent=2)
    if options.record is not None:
        options.record.write_text(text + "\n", encoding="utf-8")
    print(text)
    raise SystemExit(1 if tally.findings else 0)


if __name__ == "__main__":
    main()
