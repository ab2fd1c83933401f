"""Messages cut out of the bytes of a stream, and joined to them. The reference.

`_pieces.pyx` is the same, compiled.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = ["cut_frames", "cut_lines", "join_frames", "join_lines", "missing_bytes"]

LONGEST_VARINT = 10
"""Bytes of a varint: 64 bits, seven in each byte (Protocol Buffers, "Base 128 Varints")."""


def cut_lines(
    data: bytes, start: int, ending: bytes, most: int, max_length: int
) -> tuple[list[bytes], int]:
    """The whole lines from ``data[start]`` on, at most so many, and the place after them.

    The place is -1 if the first line is too long.
    """
    lines = data[start:].split(ending, most) if start else data.split(ending, most)
    rest = lines.pop()
    if len(data) - start <= max_length:
        return lines, len(data) - len(rest)
    for index, line in enumerate(lines):
        if len(line) > max_length:
            if index == 0:
                return [], -1
            lines = lines[:index]
            break
    # The rest may end with a part of its ending.
    if not lines and len(rest) >= max_length + len(ending):
        return [], -1
    return lines, start + sum(map(len, lines)) + len(ending) * len(lines)


def join_lines(messages: Sequence[bytes], ending: bytes) -> bytes:
    """Each message and the ending. ``ValueError`` if a message has the ending inside."""
    encoded = ending.join([*messages, b""])
    is_found = encoded.count(ending) == len(messages)
    if is_found and len(ending) > 1:  # its first bytes may be the last ones of a message
        is_found = encoded.split(ending) == [*messages, b""]
    if not is_found:
        raise ValueError(f"a line must not contain its ending, {ending!r}")
    return encoded


def join_frames(messages: Sequence[Any], size: int, is_little: bool) -> bytes:
    """Each message after its length of ``size`` bytes; 0: a varint.

    ``ValueError`` if the size cannot say a length.
    """
    parts: list[Any] = []
    for message in messages:
        parts.append(_header(len(message), size, is_little))
        parts.append(message)
    return b"".join(parts)


def cut_frames(
    data: bytes, start: int, size: int, is_little: bool, most: int, max_length: int
) -> tuple[list[bytes], int]:
    """The whole frames from ``data[start]`` on, at most so many, and the place after them.

    Each comes after its length of ``size`` bytes; 0: a varint. The place is -1 if the first is too
    long.
    """
    messages: list[bytes] = []
    while len(messages) < most:
        body, length = _read_header(data, start, size, is_little, max_length)
        if length > max_length:
            return messages, start if messages else -1
        if body == 0 or len(data) - body < length:
            break
        messages.append(data[body : body + length])
        start = body + length
    return messages, start


def missing_bytes(data: bytes, start: int, size: int, is_little: bool, max_length: int) -> int:
    """How many bytes more the frame at ``start`` needs at least."""
    body, length = _read_header(data, start, size, is_little, max_length)
    return 1 if body == 0 else body + length - len(data)


def _read_header(
    data: bytes, start: int, size: int, is_little: bool, max_length: int
) -> tuple[int, int]:
    """Where the message begins, and its length; the place is 0 if the length is not there yet.

    The length is one more than the largest where it is too long, or no length at all.
    """
    if size == 0:
        return _read_varint(data, start, max_length)
    if len(data) - start < size:
        return 0, 0
    length = int.from_bytes(data[start : start + size], "little" if is_little else "big")
    return start + size, min(length, max_length + 1)


def _read_varint(data: bytes, start: int, max_length: int) -> tuple[int, int]:
    length = 0
    for index in range(min(LONGEST_VARINT, len(data) - start)):
        byte = data[start + index]
        bits = (byte & 127) << (7 * index)
        if bits and (index == LONGEST_VARINT - 1 or length + bits > max_length):
            return 0, max_length + 1
        length += bits
        if byte < 128:
            return start + index + 1, length
    return 0, (max_length + 1 if len(data) - start >= LONGEST_VARINT else 0)


def _header(length: int, size: int, is_little: bool) -> bytes:
    if size:
        if length >= 256**size:
            raise ValueError(f"a length of {size} bytes cannot say {length}")
        return length.to_bytes(size, "little" if is_little else "big")
    header = bytearray()
    while length > 127:
        header.append(length & 127 | 128)
        length >>= 7
    header.append(length)
    return bytes(header)
