# cython: binding=False, annotation_typing=False
"""Lines: each message ends with the same bytes, such as a newline.

One source for both engines: `_lines` is this file, compiled, with the types of `_lines.pxd`.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

from everserve.errors import FrameError, OptionError

__all__ = ["MAX_LINE", "Lines"]

COMPILED = __name__ == "everserve.wire._lines"

_PIECES = importlib.import_module("everserve.wire._pieces" if COMPILED else "everserve.wire.pieces")
cut_lines: Any = _PIECES.cut_lines
join_lines: Any = _PIECES.join_lines

MAX_LINE = 65_536
"""Bytes of a line, by default: 64 KiB."""


class Lines:
    """Messages that end with ``ending``, which is no part of them: ``bytes`` without a newline.

    ``max_length`` (bytes, default 64 KiB) bounds a message without its ending. A longer one raises
    ``FrameError`` when the limit is passed. ``encode`` appends the ending; a message that has it inside
    would be two for the peer, and is a ``ValueError``.
    """

    of_bytes = True

    def __init__(self, max_length: int = MAX_LINE, ending: bytes = b"\n") -> None:
        if type(max_length) is not int or max_length < 1:
            raise OptionError(f"max_length = {max_length!r}: expected bytes, 1 or more")
        if not isinstance(ending, bytes) or not ending:
            raise OptionError(f"ending = {ending!r}: expected bytes, such as b'\\n'")
        self.max_length = max_length
        self.ending = ending

    def decode(self, data: bytes, start: int, /) -> tuple[bytes, int] | None:
        """The line that begins at ``start``, and the place after its ending."""
        messages, end = self.decode_many(data, start, 1)
        return (messages[0], end) if messages else None

    def decode_many(self, data: bytes, start: int, most: int, /) -> tuple[list[bytes], int]:
        """All whole lines from ``start`` on, at most so many."""
        lines, end = cut_lines(data, start, self.ending, most, self.max_length)
        if end < 0:
            raise self._too_long()
        return lines, end

    def _too_long(self) -> FrameError:
        return FrameError(f"a line of more than {self.max_length} bytes: raise max_length if meant")

    def encode(self, message: bytes, /) -> bytes:
        """The line with its ending."""
        return self.encode_many([message])

    def encode_many(self, messages: Sequence[bytes], /) -> bytes:
        """The lines, each with its ending."""
        encoded: bytes = join_lines(messages, self.ending)
        return encoded
