"""Netstrings: the length in decimal digits, a colon, the message, a comma.

See https://cr.yp.to/proto/netstrings.txt.
"""

from __future__ import annotations

from everserve.errors import FrameError, OptionError
from everserve.wire.codec import Codec
from everserve.wire.lengths import MAX_FRAME

__all__ = ["Netstrings"]

_DIGITS = frozenset(b"0123456789")


class Netstrings(Codec):
    """Messages as netstrings, ``b"5:hello,"``: ``bytes``.

    ``max_length`` (bytes, default 16 MiB): a longer message raises ``FrameError`` when its length is
    read.
    """

    of_bytes = True

    def __init__(self, max_length: int = MAX_FRAME) -> None:
        if type(max_length) is not int or max_length < 1:
            raise OptionError(f"max_length = {max_length!r}: expected bytes, 1 or more")
        self.max_length = max_length
        self._longest_header = len(str(max_length)) + 1  # the colon too

    def decode(self, data: bytes, start: int, /) -> tuple[bytes, int] | None:
        """The message of the netstring that begins at ``start``, and the place after its comma."""
        header = self._read_header(data, start)
        if header is None:
            return None
        begin, length = header
        end = begin + length
        if len(data) <= end:
            return None
        if data[end] != ord(","):
            raise FrameError(f"a netstring of {length} bytes does not end with a comma")
        return data[begin:end], end + 1

    def missing(self, data: bytes, start: int, /) -> int:
        """How many bytes more the netstring at ``start`` needs at least."""
        header = self._read_header(data, start)
        return 1 if header is None else sum(header) + 1 - len(data)

    def _read_header(self, data: bytes, start: int) -> tuple[int, int] | None:
        """Where the message begins, and its length; ``None`` if the colon is not there yet."""
        header = data[start : start + self._longest_header]
        digits, colon, _ = header.partition(b":")
        if not _DIGITS.issuperset(digits) or (not digits and colon):
            raise FrameError("a netstring begins with its length in digits")
        if digits.startswith(b"0") and len(digits) > 1:
            raise FrameError("the length of a netstring begins with no 0")
        if (digits and int(digits) > self.max_length) or len(digits) == self._longest_header:
            raise FrameError(
                f"a netstring of more than {self.max_length} bytes: raise max_length if meant"
            )
        return (start + len(digits) + 1, int(digits)) if colon else None

    def encode(self, message: bytes, /) -> bytes:
        """The netstring of ``message``."""
        return b"%d:%b," % (len(message), message)
