import contextlib
import itertools
import math
import socket
import struct
import subprocess
import sys
import time
import tracemalloc
from types import SimpleNamespace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from runner import paths, wire
from runner.wire import Channel, ChannelClosedError, DeadlineError, Frame, Image, Kind, WireError

EMPTY_KINDS = [Kind.HELLO, Kind.GO, Kind.READY, Kind.END]
UNPACKERS = [wire.unpack_batch, wire.unpack_images, wire.unpack_score, wire.unpack_scores]

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
prompt_lists = st.lists(texts, min_size=1, max_size=8)
finite = st.floats(allow_nan=False, allow_infinity=False)


@st.composite
def pictures(draw):
    width, height = draw(st.integers(1, 6)), draw(st.integers(1, 6))
    count = width * height * 3
    return Image(width, height, draw(st.binary(min_size=count, max_size=count)))


payloads = st.one_of(
    st.builds(wire.pack_batch, st.integers(0, 2**64 - 1), prompt_lists),
    st.builds(wire.pack_images, st.lists(pictures(), max_size=4)),
    st.builds(wire.pack_score, finite),
    st.builds(wire.pack_scores, st.lists(finite, max_size=8)),
)


def header(kind=Kind.READY, length=0, magic=b"ST", version=1):
    return struct.pack("!2sBBI", magic, version, kind, length)


@contextlib.contextmanager
def channel_fed(data, *, closed=True):
    ours, theirs = socket.socketpair()
    with contextlib.closing(Channel(ours)) as channel, theirs:
        theirs.sendall(data)
        if closed:
            theirs.shutdown(socket.SHUT_WR)
        yield channel


@contextlib.contextmanager
def pair():
    one, other = (Channel(end) for end in socket.socketpair())
    with contextlib.closing(one), contextlib.closing(other):
        yield one, other


class Tap:
    """A socket that gives what is asked for, from endless zeros after `head`."""

    def __init__(self, head, chunk_bytes=None, on_receive=lambda: None):
        self.left = head
        self.asked = []
        self.given_bytes = 0
        self.chunk_bytes = chunk_bytes
        self.on_receive = on_receive

    def settimeout(self, seconds):
        assert seconds is None or seconds > 0

    def recv_into(self, room):
        self.on_receive()
        self.asked.append(len(room))
        count = min(len(room), self.chunk_bytes or len(room))
        data, self.left = self.left[:count], self.left[count:]
        data = data or bytes(count)
        room[: len(data)] = data
        self.given_bytes += len(data)
        return len(data)


@given(st.integers(0, 2**64 - 1), prompt_lists)
def test_batch_round_trip(seed, prompts):
    assert wire.unpack_batch(wire.pack_batch(seed, prompts)) == (seed, prompts)


@given(st.lists(pictures(), max_size=6))
def test_images_round_trip(images):
    assert wire.unpack_images(bytearray(wire.pack_images(images))) == images


@given(finite)
def test_score_round_trip(score):
    assert wire.unpack_score(wire.pack_score(score)) == score


@given(st.lists(finite, max_size=64))
def test_scores_round_trip(scores):
    assert wire.unpack_scores(wire.pack_scores(scores)) == scores


@pytest.mark.parametrize("kind", list(Kind))
def test_frame_round_trip(kind):
    payload = bytes(min(3, wire.MAX_PAYLOAD_BYTES[kind]))
    with pair() as (one, other):
        one.send(kind, payload)
        assert other.receive({kind}) == Frame(kind, bytearray(payload))


@given(st.lists(st.sampled_from(EMPTY_KINDS), min_size=1, max_size=8))
def test_frames_keep_their_order(kinds):
    with pair() as (one, other):
        for kind in kinds:
            one.send(kind)
        assert [other.receive(kinds).kind for _ in kinds] == kinds


def test_largest_batch_fits_its_frame():
    payload = wire.pack_batch(2**64 - 1, ["x" * wire.MAX_PROMPT_BYTES] * wire.MAX_BATCH)
    assert len(payload) == wire.MAX_PAYLOAD_BYTES[Kind.BATCH]


@pytest.mark.parametrize("prompts", [[], ["x"] * 65, ["x" * 8193], ["\N{SNOWMAN}" * 2731]])
def test_batches_that_are_not_packed(prompts):
    with pytest.raises(ValueError, match=r"batch has 1 to 64|at most 8192 bytes"):
        wire.pack_batch(0, prompts)


@pytest.mark.parametrize(
    "image",
    [
        Image(0, 1, b""),
        Image(1, 0, b""),
        Image(4097, 1, bytes(4097 * 3)),
        Image(1, 4097, bytes(4097 * 3)),
        Image(2, 2, bytes(11)),
        Image(2, 2, bytes(13)),
    ],
)
def test_images_that_are_not_packed(image):
    with pytest.raises(ValueError, match="pixels"):
        wire.pack_images([image])


def test_too_many_images_are_not_packed():
    with pytest.raises(ValueError, match="at most 64 images"):
        wire.pack_images([Image(1, 1, bytes(3))] * 65)


def test_too_many_pixels_are_not_packed(monkeypatch):
    monkeypatch.setattr(wire, "MAX_PIXEL_BYTES", 30)
    wire.pack_images([Image(1, 1, bytes(3))] * 10)
    with pytest.raises(ValueError, match="bytes"):
        wire.pack_images([Image(1, 1, bytes(3))] * 11)


@given(payloads, st.data())
def test_every_truncation_is_refused(payload, data):
    (unpack,) = [each for each in UNPACKERS if _accepts(each, payload)][:1]
    cut = data.draw(st.integers(0, len(payload) - 1))
    with pytest.raises(WireError):
        unpack(payload[:cut])


@given(payloads, st.binary(min_size=1, max_size=20))
def test_every_surplus_is_refused(payload, surplus):
    (unpack,) = [each for each in UNPACKERS if _accepts(each, payload)][:1]
    with pytest.raises(WireError):
        unpack(payload + surplus)


@pytest.mark.parametrize("unpack", UNPACKERS)
@given(st.binary(max_size=200))
@example(b"")
@example(b"\xff" * 64)
@example(bytes(8) + b"\xff\xff")
def test_any_bytes_are_unpacked_or_refused(unpack, data):
    with contextlib.suppress(WireError):
        unpack(data)


@pytest.mark.parametrize("unpack", UNPACKERS)
@given(payloads, st.data())
def test_damaged_payloads_are_unpacked_or_refused(unpack, payload, data):
    damaged = bytearray(payload)
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, len(payload) - 1))
        damaged[position] = data.draw(st.integers(0, 255))
    with contextlib.suppress(WireError):
        unpack(damaged)


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf])
def test_scores_that_are_no_number_are_refused(score):
    raw = struct.pack("!d", score)
    with pytest.raises(WireError, match="a score of"):
        wire.unpack_score(raw)
    with pytest.raises(WireError, match="a score of"):
        wire.unpack_scores(struct.pack("!H", 2) + struct.pack("!d", 1.0) + raw)


@pytest.mark.parametrize(("width", "height"), [(0, 5), (5, 0), (4097, 1), (1, 65535)])
def test_image_sizes_out_of_range_are_refused(width, height):
    with pytest.raises(WireError, match="an image of"):
        wire.unpack_images(struct.pack("!HHH", 1, width, height))


def test_image_count_over_the_limit_is_refused():
    with pytest.raises(WireError, match="65 images"):
        wire.unpack_images(struct.pack("!H", 65) + struct.pack("!HH", 1, 1) * 65 + bytes(195))


def test_prompts_that_are_not_utf8_are_refused():
    with pytest.raises(WireError, match="UTF-8"):
        wire.unpack_batch(struct.pack("!QHH", 0, 1, 2) + b"\xc3\x28")


@pytest.mark.parametrize(
    "data",
    [
        header(magic=b"XX"),
        header(magic=b"TS"),
        header(version=0),
        header(version=2),
        b"HTTP/1.1 200 OK\r\n",
    ],
)
def test_foreign_headers_are_refused(data):
    with channel_fed(data) as channel, pytest.raises(WireError, match="foreign header"):
        channel.receive({Kind.READY})


@pytest.mark.parametrize("number", [0, int(Kind.GO), int(Kind.SCORE), 9, 255])
def test_kinds_out_of_turn_are_refused(number):
    with channel_fed(header(number)) as channel, pytest.raises(WireError, match="out of turn"):
        channel.receive({Kind.READY, Kind.IMAGES})


@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize("excess", [1, 2**31])
def test_payload_over_the_limit_is_not_read(kind, excess):
    tap = Tap(header(kind, wire.MAX_PAYLOAD_BYTES[kind] + excess))
    with pytest.raises(WireError, match="is over"):
        Channel(tap).receive({kind})
    assert tap.given_bytes == len(header())


def test_payload_out_of_turn_is_not_read():
    tap = Tap(header(Kind.IMAGES, 1000))
    with pytest.raises(WireError, match="out of turn"):
        Channel(tap).receive({Kind.READY})
    assert tap.given_bytes == len(header())


def test_no_more_is_read_than_the_frame():
    tap = Tap(header(Kind.SCORE, 8))
    assert Channel(tap).receive({Kind.SCORE}).payload == bytes(8)
    assert tap.given_bytes == len(header()) + 8


def test_memory_follows_what_came_not_what_was_promised():
    data = header(Kind.IMAGES, wire.MAX_PAYLOAD_BYTES[Kind.IMAGES]) + bytes(1000)
    with channel_fed(data) as channel:
        tracemalloc.start()
        try:
            with pytest.raises(ChannelClosedError):
                channel.receive({Kind.IMAGES})
            _, peak_bytes = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak_bytes < 20 * 1024**2


@given(st.binary(max_size=300))
@example(header(Kind.SCORE, 8) + bytes(8))
@example(header(Kind.IMAGES, 2) + bytes(2))
def test_any_bytes_on_a_channel_are_a_frame_or_refused(data):
    with channel_fed(data) as channel, contextlib.suppress(WireError):
        for _ in range(len(data) + 1):
            frame = channel.receive(list(Kind))
            assert len(frame.payload) <= wire.MAX_PAYLOAD_BYTES[frame.kind]
        pytest.fail("more frames than bytes")


@given(st.binary(max_size=64), st.sampled_from(list(Kind)), st.integers(0, 2**32 - 1))
def test_any_length_with_any_payload_is_a_frame_or_refused(data, kind, length):
    with channel_fed(header(kind, length) + data) as channel, contextlib.suppress(WireError):
        assert len(channel.receive({kind}).payload) == length


@pytest.mark.parametrize("kind", [Kind.SCORE, Kind.IMAGES])
def test_every_truncated_frame_is_a_closed_channel(kind):
    whole = header(kind, 8) + bytes(8)
    for cut in range(len(whole)):
        with channel_fed(whole[:cut]) as channel, pytest.raises(ChannelClosedError):
            channel.receive({kind})


def test_slow_drip_meets_the_deadline(monkeypatch):
    seconds = itertools.count()
    monkeypatch.setattr(wire, "time", SimpleNamespace(monotonic=lambda: float(next(seconds))))
    tap = Tap(header(Kind.IMAGES, 1000), chunk_bytes=1)
    with pytest.raises(DeadlineError):
        Channel(tap).receive({Kind.IMAGES}, deadline_s=50)
    assert tap.given_bytes == 50


def test_silence_meets_the_deadline():
    with channel_fed(b"", closed=False) as channel, pytest.raises(DeadlineError):
        channel.receive({Kind.READY}, time.monotonic() + 0.01)


def test_silence_in_the_middle_of_a_frame_meets_the_deadline():
    data = header(Kind.SCORE, 8) + bytes(7)
    with channel_fed(data, closed=False) as channel, pytest.raises(DeadlineError):
        channel.receive({Kind.SCORE}, time.monotonic() + 0.01)


def test_past_deadline_reads_and_writes_nothing():
    with pair() as (one, other):
        one.send(Kind.READY)
        with pytest.raises(DeadlineError):
            other.receive({Kind.READY}, time.monotonic() - 1)
        with pytest.raises(DeadlineError):
            other.send(Kind.GO, deadline_s=time.monotonic() - 1)
        assert other.receive({Kind.READY}).kind is Kind.READY


def test_a_peer_that_does_not_read_meets_the_deadline():
    with pair() as (one, _), pytest.raises(DeadlineError):
        one.send(Kind.IMAGES, bytes(8 * 1024**2), time.monotonic() + 0.05)


def test_a_deadline_does_not_outlive_its_call():
    with pair() as (one, other):
        one.send(Kind.READY, deadline_s=time.monotonic() + 0.01)
        one.send(Kind.READY)
        assert one._socket.gettimeout() is None  # noqa: SLF001  (nothing else shows it)
        assert other.receive({Kind.READY}).kind is Kind.READY


def test_a_gone_peer_is_a_closed_channel():
    with pair() as (one, other):
        other.close()
        with pytest.raises(ChannelClosedError):
            one.send(Kind.READY)
        with pytest.raises(ChannelClosedError):
            one.receive({Kind.GO})


@pytest.mark.parametrize("kind", [*EMPTY_KINDS, Kind.SCORE, Kind.SCORES, Kind.BATCH])
def test_oversize_payload_is_not_sent(kind):
    with pair() as (one, other):
        with pytest.raises(ValueError, match="may carry"):
            one.send(kind, bytes(wire.MAX_PAYLOAD_BYTES[kind] + 1))
        one.send(Kind.READY)
        assert other.receive({Kind.READY}).kind is Kind.READY


def test_every_kind_has_a_limit():
    assert set(wire.MAX_PAYLOAD_BYTES) == set(Kind)
    assert max(wire.MAX_PAYLOAD_BYTES.values()) < 2**32


def test_needs_nothing_but_the_standard_library():
    code = "import runpy, sys; runpy.run_path(sys.argv[1])"
    subprocess.run([sys.executable, "-I", "-S", "-c", code, paths.WIRE], check=True, timeout=60)


def _accepts(unpack, payload):
    try:
        unpack(payload)
    except WireError:
        return False
    return True


@given(st.lists(pictures(), max_size=6))
def test_images_sent_one_by_one_are_the_same_frame(images):
    sizes = [(image.width_px, image.height_px) for image in images]
    with pair() as (one, other):
        one.send_images(sizes, (image.rgb for image in images))
        frame = other.receive({Kind.IMAGES})
    assert wire.unpack_images(frame.payload) == images


@pytest.mark.parametrize(
    ("sizes", "pixels"),
    [
        ([(1, 1)], [bytes(4)]),
        ([(1, 1)], []),
        ([(1, 1)], [bytes(3), bytes(3)]),
        ([(0, 1)], [b""]),
        ([(4097, 1)], [bytes(4097 * 3)]),
        ([(1, 1)] * 65, [bytes(3)] * 65),
    ],
)
def test_images_that_do_not_fit_are_not_sent(sizes, pixels):
    with pair() as (one, _), pytest.raises(ValueError, match=r"."):
        one.send_images(sizes, pixels)
