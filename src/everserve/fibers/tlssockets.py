"""`FiberTLSSocket`: TLS over a fiber's socket. `_tlssockets.pyx` has its hot path compiled."""

from everserve.fibers.hub import current
from everserve.sockets.tls import TLSSocket
from everserve.sockets.tls.wire import Wire

__all__ = ["FiberTLSSocket", "FiberWire"]


class FiberWire(Wire):
    """A `Wire` on a `FiberSocket`."""

    __slots__ = ()

    def give_way(self) -> None:
        """Let the other fibers run."""
        fiber = current()
        if fiber is not None:
            fiber.hub.yield_turn()


class FiberTLSSocket(TLSSocket):
    """A `TLSSocket` whose inner socket is a `FiberSocket`, and whose `write_lock` is a `Semaphore`."""

    __slots__ = ()

    _wire_class = FiberWire
