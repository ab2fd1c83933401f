# cython: binding=False, annotation_typing=False
"""Frames: each message comes after its length, a number of fixed size or a varint.

One source for both engines: `_lengths` is this file, compiled, with the types of `_lengths.pxd`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from everserve.errors import FrameError, OptionError

__all__ = ["MAX_FRAME", "Lengths"]

MAX_FRAME = 16_777_216
"""Bytes of a frame, by default: 16 MiB."""

LARGEST = 2**48
"""The largest ``max_length``: the sums below stay within 64 bits."""

LONGEST_VARINT = 10
"""Bytes of a varint: 64 bits, seven in each byte (Protocol Buffers, "Base 128 Varints")."""


class Lengths:
    """Messages after their length: ``bytes``.

    ``size``: how many bytes the length has (1 to 8, default 4), or ``"varint"`` (as in Protocol
    Buffers: seven bits a byte, the lowest first). ``max_length`` (bytes, default 16 MiB): a longer
    message raises ``FrameError`` when its length is read. ``byteorder`` is that of a fixed size,
    ``"big"`` (default) or ``"little"``.
    """

    of_bytes = True

    def __init__(
        self,
        size: int | Literal["varint"] = 4,
        max_length: int = MAX_FRAME,
        *,
        byteorder: Literal["big", "little"] = "big",
    ) -> None:
        if size != "varint" and (type(size) is not int or not 1 <= size <= 8):
            raise OptionError(f"size = {size!r}: expected 1 to 8 bytes, or 'varint'")
        if type(max_length) is not int or not 1 <= max_length <= LARGEST:
            raise OptionError(f"max_length = {max_length!r}: expected 1 to {LARGEST} bytes")
        if byteorder not in ("big", "little"):
            raise OptionError(f"byteorder = {byteorder!r}: expected 'big' or 'little'")
        self._size = 0 if size == "varint" else int(size)
        self._is_little = byteorder == "little"
        # What a fixed size cannot say needs no other limit.
        self._most = max_length if self._size == 0 else min(max_length, 256**self._size - 1)

    @property
    def max_length(self) -> int:
        """The bytes that a message may have."""
        return self._most

    def decode(self, data: bytes, start: int, /) -> tuple[bytes, int] | None:
        """The frame that begins at ``start``, and the place after it."""
        messages, end = self.decode_many(data, start, 1)
        return (messages[0], end) if messages else None

    def decode_many(self, data: bytes, start: int, most: int, /) -> tuple[list[bytes], int]:
        """All whole frames from ``start`` on, at most so many."""
        messages: list[bytes] = []
        size = len(data)
        while most > 0:
            body, length = self._read_header(data, start, size)
            if length > self._most:
                if messages:
                    break
                raise self._refusal()
            if body == 0 or size - body < length:
                break
            messages.append(data[body : body + length])
            start = body + length
            most -= 1
        return messages, start

    def missing(self, data: bytes, start: int, /) -> int:
        """How many bytes more the frame at ``start`` needs at least."""
        body, length = self._read_header(data, start, len(data))
        return 1 if body == 0 else body + length - len(data)

    def _read_header(self, data: bytes, start: int, size: int) -> tuple[int, int]:
        """Where the message begins, and its length; the place is 0 if the length is not there yet.

        The length is one more than the largest where it is too long, or no length at all.
        """
        if self._size == 0:
            return self._read_varint(data, start, size)
        if size - start < self._size:
            return 0, 0
        length = 0
        for index in range(self._size):
            if length > self._most:
                break
            byte = data[start + (self._size - 1 - index if self._is_little else index)]
            length = length * 256 + byte
        return start + self._size, min(length, self._most + 1)

    def _read_varint(self, data: bytes, start: int, size: int) -> tuple[int, int]:
        length = 0
        factor = 1
        for index in range(min(LONGEST_VARINT, size - start)):
            byte = data[start + index]
            bits = byte & 127
            if bits and (index == LONGEST_VARINT - 1 or length + bits * factor > self._most):
                return 0, self._most + 1
            length += bits * factor
            if byte < 128:
                return start + index + 1, length
            factor *= 128
        return 0, (self._most + 1 if size - start >= LONGEST_VARINT else 0)

    def _refusal(self) -> FrameError:
        return FrameError(f"a frame of more than {self._most} bytes: raise max_length if meant")

    def encode(self, message: Any, /) -> bytes:
        """The length and the message. Raises ``ValueError`` if the size cannot say the length."""
        return self._header(len(message)) + bytes(message)

    def encode_many(self, messages: Sequence[Any], /) -> bytes:
        """Each message after its length."""
        parts: list[Any] = []
        for message in messages:
            parts.append(self._header(len(message)))
            parts.append(message)
        return b"".join(parts)

    def _header(self, length: int) -> bytes:
        if self._size:
            if length >= 256**self._size:
                raise ValueError(f"a length of {self._size} bytes cannot say {length}")
            return length.to_bytes(self._size, "little" if self._is_little else "big")
        header = bytearray()
        while length > 127:
            header.append(length & 127 | 128)
            length >>= 7
        header.append(length)
        return bytes(header)
