"""Streams: the `rfile` and `wfile` of a handler, whatever its socket waits on.

Compiled where the engine is; `EVERSERVE_ENGINE` chooses both together.
"""

from typing import TYPE_CHECKING

from everserve.errors import LineTooLong as LineTooLong
from everserve.fibers.engine import engine

if TYPE_CHECKING or engine == "python":
    from everserve.streams.reader import Reader as Reader
    from everserve.streams.stream import open_stream as open_stream
    from everserve.streams.writer import Writer as Writer
else:
    from everserve.streams._reader import Reader as Reader
    from everserve.streams._stream import open_stream as open_stream
    from everserve.streams._writer import Writer as Writer
