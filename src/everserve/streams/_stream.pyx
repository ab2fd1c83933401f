# cython: binding=False
"""The compiled stream: a `Reader` and a `Writer` over one socket.

It stands between a socket and the `rfile` and `wfile` of a handler; `stream.py` is its reference.
"""
from everserve.streams._reader cimport Reader
from everserve.streams._writer cimport Writer


def open_stream(sock, *, Py_ssize_t wbufsize=0, bint coalesce=False, max_line=None):
    """Open both halves over a connected socket: (reader, writer).

    `wbufsize` as in `socketserver`: 0 sends each write at once, more is the size of the buffer,
    less takes 8192. `coalesce` holds writes back until the fiber waits, or the thread reads.
    `max_line` (bytes; None: any) bounds a line. The socket stays the caller's: both halves keep its
    descriptor open until they are closed, as the files of `socket.makefile` do.
    """
    cdef Reader reader = Reader(sock, max_line)
    cdef Writer writer = Writer(sock, 8192 if wbufsize < 0 else wbufsize, coalesce)
    if coalesce:
        reader.writer = writer
    return reader, writer
