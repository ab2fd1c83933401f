"""`lend`: give a child process a connection to read from or write to, as its standard input or output.

It stands beside the sockets: what the engine does with a socket never depends on its mode, but a child
expects one that blocks.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from everserve.fibers.sockets import FiberSocket
from everserve.sockets.tls import TLSSocket

__all__ = ["lend"]


@contextmanager
def lend(sock: Any) -> Iterator[Any]:
    """Make the descriptor of `sock` block for the time of the block, which gets `sock`.

    What a handler has written to its `wfile` before is sent first. Run the child in a thread, so that
    other fibers go on: `fibers.offload(lambda: subprocess.run(command, stdout=lent))`. Works in every
    strategy.

    *Ownership*: stays with the caller. Errors: ValueError for a TLS socket, as a child would read and
    write what is not encrypted.
    """
    if issubclass(type(sock), TLSSocket):
        raise ValueError("a child process cannot use a TLS connection: copy its output instead")
    inner = getattr(sock, "inner", sock)
    if issubclass(type(inner), FiberSocket):
        inner._flush_buffered()
    descriptor = sock.fileno()
    before = os.get_blocking(descriptor)
    os.set_blocking(descriptor, True)
    try:
        yield sock
    finally:
        if sock.fileno() == descriptor:
            with suppress(OSError):
                os.set_blocking(descriptor, before)
