"""Whether a connection has ended: a probe that reads nothing and never waits.

Two callers use it: ``cancelled``, for a handler that computes, and the attribution of errors to the
peer or to the handler.
"""

from __future__ import annotations

import select
import socket

from everserve.sockets.tcpinfo import CLOSE, CLOSE_WAIT, ESTABLISHED, state_of

__all__ = ["is_hung_up"]


def is_hung_up(sock: socket.socket) -> bool | None:
    """True after a reset, after a close by both sides, and for a closed ``sock``. ``None`` if the
    system does not say.

    False for a peer that has only ended its own direction, as with ``shutdown``: it still reads.
    """
    if sock.fileno() == -1:
        return True
    state = state_of(sock)
    if state in (ESTABLISHED, CLOSE_WAIT):  # a third of the cost of poll(2), and usually enough
        return False
    return state == CLOSE or _is_polled_as_hung_up(sock)


def _is_polled_as_hung_up(sock: socket.socket) -> bool | None:
    if not hasattr(select, "poll"):
        return None
    poll = select.poll()
    try:
        poll.register(sock.fileno(), 0)  # hang-ups and errors are always reported
        return bool(poll.poll(0))
    except ValueError:  # another thread has closed it meanwhile
        return True
    except OSError:  # the system is out of memory: poll(2)
        return None
