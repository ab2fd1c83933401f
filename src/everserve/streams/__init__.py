"""Streams: the `rfile` and `wfile` of a handler, for sockets of threads and of fibers.

They are compiled if the engine of the fibers is.
"""

from typing import TYPE_CHECKING

from everserve.errors import LineTooLong as LineTooLong
from everserve.fibers.engines import engine

if TYPE_CHECKING or engine == "python":
    from everserve.streams.reader import Reader as Reader
    from everserve.streams.stream import open_stream as open_stream
    from everserve.streams.writer import Writer as Writer
else:
    from everserve.streams._reader import Reader as Reader
    from everserve.streams._stream import open_stream as open_stream
    from everserve.streams._writer import Writer as Writer
