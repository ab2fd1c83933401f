"""`Ready`: awaited, it gives its bytes at once. The reference.

The reader of tasks returns one for each line that is there; `_ready.pyx` is the same, compiled.
"""

from collections.abc import Generator
from typing import Any, Final

__all__ = ["NOTHING", "Ready"]


class Ready:
    """An awaitable that waits for nothing. `NOTHING` gives None."""

    __slots__ = ("_line",)

    def __init__(self, line: bytes | None) -> None:
        self._line = line

    def __await__(self) -> Generator[Any, None, bytes | None]:
        yield from ()
        return self._line


NOTHING: Final = Ready(None)
