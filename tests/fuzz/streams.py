"""What must hold for a codec and any bytes: ``check(data)`` raises an error where it does not.

Both the campaign of ``make fuzz`` and the tests call it. The first bytes of ``data`` choose the codec,
its limit and the places where the stream is cut; the others are the stream. However it is cut, it gives
the same messages and is refused at the same place, with ``FrameError`` alone; no message is longer than
the limit; what was decoded can be encoded again; and both engines agree.
"""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from everserve.errors import FrameError
from everserve.wire.codec import decode_many, encode_many, missing
from everserve.wire.jsonlines import JSONLines
from everserve.wire.lengths import Lengths
from everserve.wire.lines import Lines
from everserve.wire.netstrings import Netstrings

__all__ = ["HEAD", "KINDS", "Outcome", "check", "compare", "read"]

HEAD = 8
"""Bytes that choose: the codec, the limit, how many messages at a time, five cuts."""


def compiled(room: str, name: str) -> Any:
    """A class of the compiled engine, or ``None`` where it was not built."""
    try:
        return getattr(importlib.import_module(room), name)
    except ImportError:
        return None


LINES = [one for one in (Lines, compiled("everserve.wire._lines", "Lines")) if one]
LENGTHS = [one for one in (Lengths, compiled("everserve.wire._lengths", "Lengths")) if one]

KINDS: tuple[Callable[[int], list[Any]], ...] = (
    lambda limit: [one(limit) for one in LINES],
    lambda limit: [one(limit, b"\r\n") for one in LINES],
    lambda limit: [one(limit, b"aab") for one in LINES],
    lambda limit: [one(1, limit) for one in LENGTHS],
    lambda limit: [one(4, limit) for one in LENGTHS],
    lambda limit: [one(8, limit, byteorder="little") for one in LENGTHS],
    lambda limit: [one("varint", limit) for one in LENGTHS],
    lambda limit: [Netstrings(limit)],
    lambda limit: [JSONLines(limit)],
)
"""Each makes the codecs of one kind, of both engines, with a limit."""


class Outcome(NamedTuple):
    """What a stream gave: its messages, how many were refused, and where it stood at the end."""

    messages: list[Any]
    refused: int
    end: int
    is_over: bool


def check(data: bytes) -> None:
    """Check all that must hold for the codec and the stream that ``data`` means."""
    head, stream = data[:HEAD], data[HEAD:]
    if len(head) < HEAD:
        return
    codecs = KINDS[head[0] % len(KINDS)](1 + head[1])
    cuts = [cut * len(stream) // 255 for cut in head[3:]]
    compare(codecs, stream, cuts, 1 + head[2] % 8)


def compare(codecs: list[Any], stream: bytes, cuts: list[int], most: int) -> None:
    """Check it for ``codecs`` that must agree, and these cuts."""
    whole = read(codecs[0], [stream], 2**16)
    for codec in codecs:
        for parts in ([stream], list(split(stream, cuts)), [bytes([byte]) for byte in stream]):
            assert read(codec, parts, most) == whole, (codec, parts)
        encode_again(codec, whole.messages)


def split(stream: bytes, cuts: list[int]) -> Iterator[bytes]:
    for begin, end in itertools.pairwise([0, *sorted(cuts), len(stream)]):
        if end > begin:
            yield stream[begin:end]


def read(codec: Any, parts: list[bytes], most: int) -> Outcome:
    """Decode a stream that comes in parts, as a conversation does."""
    messages: list[Any] = []
    rest, passed, refused, needed = b"", 0, 0, 0
    for part in parts:
        before = len(messages) + refused
        rest, start = rest + part, 0
        while start < len(rest):
            found, end, is_refused = step(codec, rest, start, most)
            refused += is_refused
            messages += found
            if end is None:
                return Outcome(messages, refused, passed + start, is_over=True)
            if end == start:
                break
            start = end
        assert needed <= len(part) or len(messages) + refused == before, "less was missing"
        rest, passed = rest[start:], passed + start
        needed = missing(codec, rest, 0) if rest else 0
    return Outcome(messages, refused, passed, is_over=False)


def step(codec: Any, data: bytes, start: int, most: int) -> tuple[list[Any], int | None, bool]:
    """The next messages, where it goes on (``None``: nowhere), and whether bytes were refused."""
    try:
        found, end = decode_many(codec, data, start, most)
    except FrameError as error:
        resumes_at = error.resumes_at
    else:
        assert len(found) <= most, "more messages than asked for"
        assert (end > start) == bool(found), "a message of no bytes, or bytes of no message"
        return found, end, False
    assert resumes_at is None or start < resumes_at <= len(data), "it resumes behind, or ahead"
    return [], resumes_at, True


def encode_again(codec: Any, messages: list[Any]) -> None:
    """What was decoded is within the limit, and the same once it was encoded and decoded again."""
    if not getattr(codec, "of_bytes", False):
        messages = [message for message in messages if is_encodable(codec, message)]
    else:
        assert all(len(message) <= codec.max_length for message in messages), "past the limit"
    encoded = encode_many(codec, messages)
    if getattr(codec, "of_bytes", False):
        assert read(codec, [encoded], 2**16).messages == messages


def is_encodable(codec: Any, message: Any) -> bool:
    """False for a number beyond all floats, or half a surrogate pair: JSON can say them, we do not."""
    try:
        codec.encode(message)
    except ValueError:
        return False
    return True
