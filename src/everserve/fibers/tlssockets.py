"""`FiberTLSSocket`: TLS over a fiber's socket. `_tlssockets.pyx` has its hot path compiled."""

from everserve.sockets.tlssocket import TLSSocket

__all__ = ["FiberTLSSocket"]


class FiberTLSSocket(TLSSocket):
    """A `TLSSocket` on a `FiberSocket`, whose writers take turns by a `Semaphore`."""

    __slots__ = ()
