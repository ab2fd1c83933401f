"""`FiberTLSSocket`: TLS over a fiber's socket. `_tlssockets.pyx` has its hot path compiled."""

from everserve.sockets.tls import TLSSocket

__all__ = ["FiberTLSSocket"]


class FiberTLSSocket(TLSSocket):
    """A `TLSSocket` whose inner socket is a `FiberSocket`, and whose `write_lock` is a `Semaphore`."""

    __slots__ = ()
