# cython: binding=False
"""The compiled stream: a `Reader` and a `Writer` over one socket.

It stands between a socket and the `rfile` and `wfile` of a handler; `stream.py` is its reference.
"""
from everserve.streams._reader cimport Reader
from everserve.streams._writer cimport Writer


def open_stream(sock, *, Py_ssize_t wbufsize=0, bint coalesce=False, max_line=None):
    """Open both halves over a connected socket: (reader, writer).

    `wbufsize` is that of `socketserver`: 0 sends each write at once, a positive number is the size
    of the buffer in bytes, a negative one means 8192. `coalesce` buffers writes until the fiber
    waits, or the thread reads. `max_line` (bytes; None: any number) bounds a line. The caller still
    owns the socket; its descriptor stays open until both halves are closed, as with the files of
    `socket.makefile`.
    """
    cdef Reader reader = Reader(sock, max_line)
    cdef Writer writer = Writer(sock, 8192 if wbufsize < 0 else wbufsize, coalesce)
    if coalesce:
        reader.writer = writer
    return reader, writer
