# cython: binding=False, annotation_typing=False
"""Frames: each message comes after its length, a number of fixed size or a varint.

One source for both engines: `_lengths` is this file, compiled, with the types of `_lengths.pxd`.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any, Literal

from everserve.errors import FrameError, OptionError

__all__ = ["MAX_FRAME", "Lengths"]

COMPILED = __name__ == "everserve.wire._lengths"

_PIECES = importlib.import_module("everserve.wire._pieces" if COMPILED else "everserve.wire.pieces")
cut_frames: Any = _PIECES.cut_frames
join_frames: Any = _PIECES.join_frames
missing_bytes: Any = _PIECES.missing_bytes

MAX_FRAME = 16_777_216
"""Bytes of a frame, by default: 16 MiB."""

LARGEST = 2**48
"""The largest ``max_length``: the sums below stay within 64 bits."""


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
        messages, end = cut_frames(data, start, self._size, self._is_little, most, self._most)
        if end < 0:
            raise self._refusal()
        return messages, end

    def missing(self, data: bytes, start: int, /) -> int:
        """How many bytes more the frame at ``start`` needs at least."""
        lacking: int = missing_bytes(data, start, self._size, self._is_little, self._most)
        return lacking

    def _refusal(self) -> FrameError:
        return FrameError(f"a frame of more than {self._most} bytes: raise max_length if meant")

    def encode(self, message: Any, /) -> bytes:
        """The length and the message. Raises ``ValueError`` if the size cannot say the length."""
        return self.encode_many([message])

    def encode_many(self, messages: Sequence[Any], /) -> bytes:
        """Each message after its length."""
        encoded: bytes = join_frames(messages, self._size, self._is_little)
        return encoded
