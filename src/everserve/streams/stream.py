"""The stream: a `Reader` and a `Writer` over one socket. The reference, in Python.

It stands between a socket and the `rfile` and `wfile` of a handler; `_stream.pyx` is the same,
compiled.
"""

from typing import Any, Final

from everserve.streams.reader import Reader
from everserve.streams.writer import Writer

__all__ = ["open_stream"]

DEFAULT_SIZE: Final = 8192


def open_stream(
    sock: Any, *, wbufsize: int = 0, coalesce: bool = False, max_line: int | None = None
) -> tuple[Reader, Writer]:
    """Open both halves over a connected socket: (reader, writer).

    `wbufsize` is that of `socketserver`: 0 sends each write at once, a positive number is the size
    of the buffer in bytes, a negative one means 8192. `coalesce` buffers writes until the fiber
    waits, or the thread reads. `max_line` (bytes; None: any number) bounds a line. The caller still
    owns the socket; its descriptor stays open until both halves are closed, as with the files of
    `socket.makefile`.
    """
    reader = Reader(sock, max_line)
    writer = Writer(sock, DEFAULT_SIZE if wbufsize < 0 else wbufsize, coalesce)
    if coalesce:
        reader._writer = writer
    return reader, writer
