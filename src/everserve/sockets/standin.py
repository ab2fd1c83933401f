"""A listener that a forked child gives up, without taking it away from the program.

The strategy of forks has it done in each child. While a child held the listener, a parent that was
killed would leave a port that accepts connections for no one.
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress

__all__ = ["give_up"]


def give_up(sock: socket.socket) -> None:
    """Close the descriptor of a listener, and put a fresh socket of the same kind in its place.

    ``sock`` stays an open socket with the same ``fileno()``, and its ``getsockname()`` is that of the
    listener. It accepts nothing. Where the system has no descriptor left, ``sock`` is closed.
    """
    try:
        name = sock.getsockname()
        with socket.socket(sock.family, sock.type, sock.proto) as fresh:
            os.dup2(fresh.fileno(), sock.fileno(), inheritable=False)
    except OSError:
        sock.close()
        return
    own = type(sock)
    standing_in = {"__slots__": (), "getsockname": lambda self: name, "__module__": own.__module__}
    with suppress(TypeError):  # a class whose objects cannot change it: the name alone is lost
        sock.__class__ = type(own.__name__, (own,), standing_in)
