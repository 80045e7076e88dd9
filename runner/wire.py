"""The message format between the controller and the processes that it measures.

Theory of operation
-------------------
A channel is one end of a local stream socket. Every message is a frame:

    2 bytes  magic ``ST``
    1 byte   protocol version
    1 byte   kind
    4 bytes  payload length, big endian
    n bytes  payload

The reader checks magic, version, kind and length *before* it reads the payload, and reads no
more than the length it accepted. There is no string that is evaluated, no pickle, no image file:
pixels travel as raw 8-bit RGB with their sizes in front. Whatever does not fit is a `WireError`,
which the controller turns into a verdict about the side that sent it.

The conversation of a worker (C is the controller, W the worker):

    W HELLO   its imports are done; it waits at the gate and has run no candidate code yet
    C GO      the gate opens: the candidate's own code runs, the pipeline loads
    W READY   it wants a batch
    C BATCH   seed and prompts; the controller's clock starts just before this is sent
    W IMAGES  the pixels; the controller's clock stops at the last byte
    C SCORE   the CLIP score of that batch      (READY ... SCORE repeats)
    C END     no more batches, sent instead of BATCH
    W REPORT  what it says of its pipeline, as JSON text; it may also just end

The scorer speaks the same frames: C BATCH + IMAGES, S SCORES (one number an image); and to compare
images in pairs, C COMPARE + IMAGES + IMAGES, S SCORES (`LIKENESS_COUNT` numbers a pair). Pairs of a
COMPARE that carries their prompts, as BATCH does, count: C DISTANCE, S REPORT tells of all of them
together, as JSON text.

Only the standard library is imported here: the very same file is mounted into the sandbox and is
all of Speedtrap that a candidate's process can see.
"""

from __future__ import annotations

import enum
import math
import socket
import struct
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

MAGIC: Final = b"ST"
VERSION: Final = 1

_HEADER: Final = struct.Struct("!2sBBI")
_BATCH_HEAD: Final = struct.Struct("!QH")
_COUNT: Final = struct.Struct("!H")
_SIZE: Final = struct.Struct("!HH")
_DOUBLE: Final = struct.Struct("!d")

MAX_BATCH: Final = 64
"""Most images in a batch; the largest batches in published comparisons are 16 to 32."""
MAX_SIDE_PX: Final = 4096
"""Longest image side; the largest sizes that current pipelines are trained for are below this."""
MAX_PROMPT_BYTES: Final = 8192
LIKENESS_COUNT: Final = 3
"""Numbers that say how alike two images are: PSNR, SSIM, cosine of their CLIP embeddings."""
MAX_PIXEL_BYTES: Final = 256 * 1024 * 1024
"""Most pixel bytes in a batch: five images of 4096 x 4096, or 64 of 1024 x 1024."""
MAX_REPORT_BYTES: Final = 4 * 1024 * 1024
"""A reading has kilobytes; with fingerprints of 3,000 weights, half a MiB."""
_STEP_BYTES: Final = 16 * 1024 * 1024
"""Memory follows what came in steps of this size, never what a header promised."""
_BUFFER_BYTES: Final = 4 * 1024 * 1024
"""Asked of the kernel, which may grant less: a batch of five images of 512 x 512."""
_MAX_BATCH_BYTES: Final = _BATCH_HEAD.size + MAX_BATCH * (_COUNT.size + MAX_PROMPT_BYTES)


class Kind(enum.IntEnum):
    """What a frame is."""

    HELLO = 1
    GO = 2
    READY = 3
    BATCH = 4
    IMAGES = 5
    SCORE = 6
    END = 7
    SCORES = 8
    REPORT = 9
    COMPARE = 10
    DISTANCE = 11


MAX_PAYLOAD_BYTES: Final[dict[Kind, int]] = {
    Kind.HELLO: 0,
    Kind.GO: 0,
    Kind.READY: 0,
    Kind.BATCH: _MAX_BATCH_BYTES,
    Kind.IMAGES: _COUNT.size + MAX_BATCH * _SIZE.size + MAX_PIXEL_BYTES,
    Kind.SCORE: _DOUBLE.size,
    Kind.END: 0,
    Kind.SCORES: _COUNT.size + MAX_BATCH * LIKENESS_COUNT * _DOUBLE.size,
    Kind.REPORT: MAX_REPORT_BYTES,
    Kind.COMPARE: _MAX_BATCH_BYTES,
    Kind.DISTANCE: 0,
}


class WireError(Exception):
    """The other end sent something that is not in the protocol, or out of turn."""


class ChannelClosedError(WireError):
    """The other end is gone."""


class DeadlineError(Exception):
    """The other end did not answer in time."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One received message. `payload` is complete and no longer than its kind allows."""

    kind: Kind
    payload: bytearray


@dataclass(frozen=True, slots=True)
class Image:
    """Raw pixels: `rgb` holds `width_px * height_px * 3` bytes, row by row, 8 bits a channel."""

    width_px: int
    height_px: int
    rgb: bytes


class Channel:
    """One end of a conversation. Not thread-safe: one owner reads and writes."""

    def __init__(self, connection: socket.socket) -> None:
        """Take over `connection`, a connected stream socket."""
        self._socket = connection

    @classmethod
    def from_descriptor(cls, descriptor: int) -> Channel:
        """Open the channel on an inherited file descriptor of a stream socket."""
        return cls(socket.socket(fileno=descriptor))

    def close(self) -> None:
        """Close this end; the other one reads end-of-file."""
        self._socket.close()

    def send(self, kind: Kind, payload: bytes = b"", deadline_s: float | None = None) -> None:
        """Write one frame.

        `deadline_s` is a reading of `time.monotonic`; None waits without limit.
        Raises `ValueError` for a payload over its kind's limit, `ChannelClosedError` when the
        other end is gone, `DeadlineError` when it does not take the bytes in time.
        """
        if len(payload) > MAX_PAYLOAD_BYTES[kind]:
            message = f"{kind.name} may carry {MAX_PAYLOAD_BYTES[kind]} bytes, not {len(payload)}"
            raise ValueError(message)
        self._wait_until(deadline_s)
        try:
            self._socket.sendall(_HEADER.pack(MAGIC, VERSION, kind, len(payload)) + payload)
        except TimeoutError as error:
            raise DeadlineError from error
        except OSError as error:
            message = f"the other end is gone: {error.strerror}"
            raise ChannelClosedError(message) from error

    def send_images(self, sizes: Sequence[tuple[int, int]], pixels: Iterable[bytes]) -> None:
        """Write an IMAGES frame, taking the pixels of one image at a time.

        `sizes` are (width, height) in pixels: up to 64 images, at most 4,096 pixels a side, 256 MiB
        together. Only one image's bytes need to lie in memory: the kernel then need not clear fresh
        pages for a whole batch, which would take longer than the transfer. Raises `ValueError` for
        sizes beyond the limits or pixels that do not fit them, `ChannelClosedError` as `send` does.
        """
        head = _pack_sizes(sizes)
        length = len(head) + sum(width_px * height_px * 3 for width_px, height_px in sizes)
        self._wait_until(None)
        try:
            self._socket.sendall(_HEADER.pack(MAGIC, VERSION, Kind.IMAGES, length) + head)
            for rgb in _checked(sizes, pixels):
                self._socket.sendall(rgb)
        except OSError as error:
            message = f"the other end is gone: {error.strerror}"
            raise ChannelClosedError(message) from error

    def has_unread(self) -> bool:
        """Whether the other end has sent something that was not received yet."""
        self._socket.settimeout(0)
        try:
            return bool(self._socket.recv(1, socket.MSG_PEEK))
        except OSError:
            return False

    def receive(self, expected: Collection[Kind], deadline_s: float | None = None) -> Frame:
        """Read one frame, which must be of an expected kind.

        `deadline_s` is a reading of `time.monotonic` at which the whole frame must be here.
        Raises `WireError` (also for an unexpected kind or a length over the limit),
        `ChannelClosedError` at end-of-file, `DeadlineError` past the deadline.
        """
        magic, version, number, length = _HEADER.unpack(self._exactly(_HEADER.size, deadline_s))
        if magic != MAGIC or version != VERSION:
            message = "a message with a foreign header"
            raise WireError(message)
        if number not in {int(kind) for kind in expected}:
            names = " or ".join(sorted(kind.name for kind in expected))
            message = f"message {number} out of turn, expected {names}"
            raise WireError(message)
        kind = Kind(number)
        if length > MAX_PAYLOAD_BYTES[kind]:
            message = f"{kind.name} of {length} bytes is over {MAX_PAYLOAD_BYTES[kind]}"
            raise WireError(message)
        return Frame(kind, self._exactly(length, deadline_s))

    def _exactly(self, count: int, deadline_s: float | None) -> bytearray:
        data = bytearray(min(count, _STEP_BYTES))
        filled = 0
        while filled < count:
            if filled == len(data):
                data += bytes(min(count - filled, _STEP_BYTES))
            self._wait_until(deadline_s)
            with memoryview(data) as view:
                taken = self._receive_into(view[filled:])
            filled += taken
        return data

    def _receive_into(self, room: memoryview) -> int:
        with room:
            try:
                taken = self._socket.recv_into(room)
            except TimeoutError as error:
                raise DeadlineError from error
            except OSError as error:
                message = f"the other end is gone: {error.strerror}"
                raise ChannelClosedError(message) from error
        if not taken:
            message = "the other end closed the channel"
            raise ChannelClosedError(message)
        return taken

    def _wait_until(self, deadline_s: float | None) -> None:
        if deadline_s is None:
            self._socket.settimeout(None)
            return
        left_s = deadline_s - time.monotonic()
        if left_s <= 0:
            raise DeadlineError
        self._socket.settimeout(left_s)


def pair() -> tuple[socket.socket, socket.socket]:
    """Two connected ends with room for a batch of images, so that a sender need not wait."""
    ends = socket.socketpair()
    for end in ends:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_BYTES)
    return ends


def pack_batch(seed: int, prompts: Sequence[str]) -> bytes:
    """Payload of BATCH. `seed` is 0 to 2**64 - 1; 1 to 64 prompts of at most 8,192 bytes each."""
    if not 1 <= len(prompts) <= MAX_BATCH:
        message = f"a batch has 1 to {MAX_BATCH} prompts, not {len(prompts)}"
        raise ValueError(message)
    parts = [_BATCH_HEAD.pack(seed, len(prompts))]
    for prompt in prompts:
        text = prompt.encode()
        if len(text) > MAX_PROMPT_BYTES:
            message = f"a prompt has at most {MAX_PROMPT_BYTES} bytes, not {len(text)}"
            raise ValueError(message)
        parts += [_COUNT.pack(len(text)), text]
    return b"".join(parts)


def unpack_batch(payload: bytes | bytearray) -> tuple[int, list[str]]:
    """Seed and prompts of a BATCH. Raises `WireError` if the payload is not exactly one batch."""
    seed, count = _take(_BATCH_HEAD, payload, 0)
    if not 1 <= count <= MAX_BATCH:
        message = f"a batch of {count} prompts"
        raise WireError(message)
    offset = _BATCH_HEAD.size
    prompts = []
    for _ in range(count):
        (length,) = _take(_COUNT, payload, offset)
        offset += _COUNT.size
        text = payload[offset : offset + length]
        if len(text) != length:
            message = "a prompt is cut short"
            raise WireError(message)
        prompts.append(_decode(text))
        offset += length
    _require_end(payload, offset)
    return seed, prompts


def pack_images(images: Sequence[Image]) -> bytes:
    """Payload of IMAGES as one piece; limits and errors as for `Channel.send_images`."""
    sizes = [(image.width_px, image.height_px) for image in images]
    return b"".join([_pack_sizes(sizes), *_checked(sizes, (image.rgb for image in images))])


def unpack_images(payload: bytes | bytearray) -> list[Image]:
    """Images of an IMAGES payload. Raises `WireError` if sizes and bytes do not agree exactly."""
    (count,) = _take(_COUNT, payload, 0)
    if count > MAX_BATCH:
        message = f"{count} images in one batch, at most {MAX_BATCH}"
        raise WireError(message)
    sizes = [_take(_SIZE, payload, _COUNT.size + i * _SIZE.size) for i in range(count)]
    offset = _COUNT.size + count * _SIZE.size
    images = []
    for width_px, height_px in sizes:
        if not (1 <= width_px <= MAX_SIDE_PX and 1 <= height_px <= MAX_SIDE_PX):
            message = f"an image of {width_px} x {height_px} pixels"
            raise WireError(message)
        length = width_px * height_px * 3
        rgb = bytes(payload[offset : offset + length])
        if len(rgb) != length:
            message = "an image is cut short"
            raise WireError(message)
        images.append(Image(width_px, height_px, rgb))
        offset += length
    _require_end(payload, offset)
    return images


def pack_score(score: float) -> bytes:
    """Payload of SCORE: one finite number."""
    return _DOUBLE.pack(score)


def unpack_score(payload: bytes | bytearray) -> float:
    """The number of a SCORE. Raises `WireError` unless it is one finite number."""
    _require_end(payload, _DOUBLE.size)
    return _take_score(payload, 0)


def pack_scores(scores: Sequence[float]) -> bytes:
    """Payload of SCORES: finite numbers: one an image, or `LIKENESS_COUNT` a pair of them."""
    return _COUNT.pack(len(scores)) + b"".join(_DOUBLE.pack(score) for score in scores)


def unpack_scores(payload: bytes | bytearray) -> list[float]:
    """The numbers of a SCORES. Raises `WireError` unless they are all there and finite."""
    (count,) = _take(_COUNT, payload, 0)
    offsets = [_COUNT.size + i * _DOUBLE.size for i in range(count)]
    _require_end(payload, _COUNT.size + count * _DOUBLE.size)
    return [_take_score(payload, offset) for offset in offsets]


def _pack_sizes(sizes: Sequence[tuple[int, int]]) -> bytes:
    """Count and sizes, the head of an IMAGES payload."""
    if len(sizes) > MAX_BATCH:
        message = f"at most {MAX_BATCH} images, not {len(sizes)}"
        raise ValueError(message)
    for width_px, height_px in sizes:
        if not (1 <= width_px <= MAX_SIDE_PX and 1 <= height_px <= MAX_SIDE_PX):
            message = f"an image of {width_px} x {height_px} pixels"
            raise ValueError(message)
    total_bytes = sum(width_px * height_px * 3 for width_px, height_px in sizes)
    if total_bytes > MAX_PIXEL_BYTES:
        message = f"a batch of {total_bytes} bytes of pixels, at most {MAX_PIXEL_BYTES}"
        raise ValueError(message)
    return _COUNT.pack(len(sizes)) + b"".join(_SIZE.pack(*size) for size in sizes)


def _checked(sizes: Sequence[tuple[int, int]], pixels: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the pixels of each image, which must fit its size."""
    for (width_px, height_px), rgb in zip(sizes, pixels, strict=True):
        if len(rgb) != width_px * height_px * 3:
            message = f"{len(rgb)} bytes for {width_px} x {height_px} pixels"
            raise ValueError(message)
        yield rgb


def _take(layout: struct.Struct, payload: bytes | bytearray, offset: int) -> tuple[int, ...]:
    """Whole numbers at `offset`."""
    try:
        return layout.unpack_from(payload, offset)
    except struct.error as error:
        message = "a message is cut short"
        raise WireError(message) from error


def _take_score(payload: bytes | bytearray, offset: int) -> float:
    """A finite number at `offset`."""
    if len(payload) < offset + _DOUBLE.size:
        message = "a message is cut short"
        raise WireError(message)
    value: float = _DOUBLE.unpack_from(payload, offset)[0]
    if not math.isfinite(value):
        message = f"a score of {value}"
        raise WireError(message)
    return value


def _decode(text: bytes | bytearray) -> str:
    try:
        return text.decode()
    except UnicodeDecodeError as error:
        message = "a prompt is not UTF-8"
        raise WireError(message) from error


def _require_end(payload: bytes | bytearray, offset: int) -> None:
    if len(payload) != offset:
        message = f"a message of {len(payload)} bytes that should have {offset}"
        raise WireError(message)
