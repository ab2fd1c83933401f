# cython: binding=False, annotation_typing=False
"""Lines: each message ends with the same bytes, such as a newline.

One source for both engines: `_lines` is this file, compiled, with the types of `_lines.pxd`.
"""

from __future__ import annotations

from collections.abc import Sequence

from everserve.errors import FrameError, OptionError

__all__ = ["MAX_LINE", "Lines"]

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
        ending = self.ending
        lines = data[start:].split(ending, most) if start else data.split(ending, most)
        rest = lines.pop()
        if len(data) - start > self.max_length:
            lines = self._within(lines, rest)
            return lines, start + sum(map(len, lines)) + len(ending) * len(lines)
        return lines, len(data) - len(rest)

    def _within(self, lines: list[bytes], rest: bytes) -> list[bytes]:
        """The lines before the first that is too long. Raises if that is the first of all."""
        most = self.max_length
        for index, line in enumerate(lines):
            if len(line) > most:
                if index:
                    return lines[:index]
                raise self._too_long()
        # The rest may end with a part of its ending.
        if not lines and len(rest) >= most + len(self.ending):
            raise self._too_long()
        return lines

    def _too_long(self) -> FrameError:
        return FrameError(f"a line of more than {self.max_length} bytes: raise max_length if meant")

    def encode(self, message: bytes, /) -> bytes:
        """The line with its ending."""
        return self.encode_many([message])

    def encode_many(self, messages: Sequence[bytes], /) -> bytes:
        """The lines, each with its ending."""
        encoded = self.ending.join([*messages, b""])
        is_found = encoded.count(self.ending) == len(messages)
        if is_found and len(self.ending) > 1:  # its first bytes may be the last ones of a message
            is_found = encoded.split(self.ending) == [*messages, b""]
        if not is_found:
            raise ValueError(f"a line must not contain its ending, {self.ending!r}")
        return encoded
