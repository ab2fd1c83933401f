"""`FiberTLSSocket`: TLS over a fiber's socket. `_tlssockets.pyx` has its hot path compiled."""

from everserve.fibers.scheduler import running_hub
from everserve.sockets.tls import TLSSocket
from everserve.sockets.tls.wire import Wire

__all__ = ["FiberTLSSocket", "FiberWire"]


class FiberWire(Wire):
    """A `Wire` on a `FiberSocket`."""

    __slots__ = ()

    def give_way(self) -> None:
        """Let the other fibers run."""
        hub = running_hub()
        if hub is not None:
            hub.yield_turn()


class FiberTLSSocket(TLSSocket):
    """A `TLSSocket` whose inner socket is a `FiberSocket`, and whose `write_lock` is a `Semaphore`."""

    __slots__ = ()

    _wire_class = FiberWire
