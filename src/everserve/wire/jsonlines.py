"""JSON lines: a JSON value a line, in UTF-8. See https://jsonlines.org."""

from __future__ import annotations

import json
from typing import Any, NoReturn

from everserve.errors import FrameError
from everserve.wire.codec import Codec
from everserve.wire.lines import MAX_LINE, Lines

__all__ = ["JSONLines"]


class JSONLines(Codec):
    """Messages as JSON, one a line: whatever ``json.loads`` returns.

    ``max_length`` (bytes, default 64 KiB) bounds a line. A line that is no JSON raises a ``FrameError``
    after which the next line is read: its ``resumes_at`` is set.
    """

    ending = b"\n"

    def __init__(self, max_length: int = MAX_LINE) -> None:
        self._lines = Lines(max_length)

    @property
    def max_length(self) -> int:
        """The bytes that a line may have."""
        return self._lines.max_length

    def decode(self, data: bytes, start: int, /) -> tuple[Any, int] | None:
        """The value of the line that begins at ``start``, and the place after the line."""
        found = self._lines.decode(data, start)
        if found is None:
            return None
        line, end = found
        try:
            return json.loads(line.decode(), parse_constant=_refuse_constant), end
        except (ValueError, RecursionError) as error:  # nested too deeply
            raise FrameError(f"a line is no JSON: {error}", resumes_at=end) from None

    def encode(self, message: Any, /) -> bytes:
        """The value as one line. Raises ``TypeError`` or ``ValueError`` for what JSON cannot say."""
        return json.dumps(message, separators=(",", ":"), allow_nan=False).encode() + b"\n"


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not in JSON")
