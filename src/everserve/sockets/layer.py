"""A `socket.socket` on top of another one: all but the transfer of bytes is passed to the inner socket.

`TLSSocket` and `CountedSocket` build on it. The layer has no own descriptor, so it cannot leak one or
close it twice: the inner socket remains the owner.
"""

import socket
from typing import TYPE_CHECKING, Any, NoReturn

from everserve.sockets.genuine import RealSocket

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

__all__ = ["Layer"]


class Layer(RealSocket):
    """Passes the methods of a socket on to `inner`, which must live as long as the layer is used.

    A subclass defines `recv`, `recv_into`, `send`, `sendall` and `shutdown`. The time limit is that of
    `inner`: `settimeout` has the same effect on both.
    """

    __slots__ = ("_inner",)

    _inner: socket.socket

    def __init__(self, inner: socket.socket) -> None:
        # socket.socket.__init__ would open a descriptor.
        self._inner = inner
        self._io_refs = 0
        self._closed = False

    # --- ownership -----------------------------------------------------------------------------

    @property
    def inner(self) -> socket.socket:
        """The socket below, which owns the descriptor."""
        return self._inner

    def fileno(self) -> int:
        return self._inner.fileno()

    @property
    def family(self) -> socket.AddressFamily:
        return self._inner.family

    @property
    def type(self) -> socket.SocketKind:
        return self._inner.type

    @property
    def proto(self) -> int:
        return self._inner.proto

    def _real_close(self) -> None:
        self._inner.close()

    def detach(self) -> int:
        """Give up the descriptor, and return it."""
        self._closed = True
        return self._inner.detach()

    def dup(self) -> NoReturn:
        """Refused: two objects cannot share one state of the stream."""
        raise NotImplementedError(f"Can't dup() {type(self).__name__} instances")

    def get_inheritable(self) -> bool:
        return self._inner.get_inheritable()

    def set_inheritable(self, inheritable: bool) -> None:
        self._inner.set_inheritable(inheritable)

    # --- time ----------------------------------------------------------------------------------

    def settimeout(self, value: float | None, /) -> None:
        self._inner.settimeout(value)

    def gettimeout(self) -> float | None:
        return self._inner.gettimeout()

    @property
    def timeout(self) -> float | None:
        return self._inner.gettimeout()

    def setblocking(self, flag: bool, /) -> None:
        self._inner.setblocking(flag)

    def getblocking(self) -> bool:
        return self._inner.getblocking()

    # --- addresses and options -----------------------------------------------------------------

    def getpeername(self) -> Any:
        return self._inner.getpeername()

    def getsockname(self) -> Any:
        return self._inner.getsockname()

    def getsockopt(self, *arguments: int) -> Any:
        return self._inner.getsockopt(*arguments)

    def setsockopt(self, *arguments: Any) -> None:
        self._inner.setsockopt(*arguments)

    # --- calls without meaning on a connection: the kernel refuses them ----------------------------

    def bind(self, address: Any, /) -> None:
        self._inner.bind(address)

    def listen(self, backlog: int = 0, /) -> None:
        self._inner.listen(backlog)

    def accept(self) -> tuple[socket.socket, Any]:
        return self._inner.accept()

    def connect(self, address: Any, /) -> None:
        self._inner.connect(address)

    def connect_ex(self, address: Any, /) -> int:
        return self._inner.connect_ex(address)

    # --- calls that would bypass the layer: refused, with the errors of ssl.SSLSocket ---------------

    def sendto(self, data: "ReadableBuffer", *_rest: Any) -> NoReturn:
        raise self._has_no("sendto")

    def recvfrom(self, bufsize: int, flags: int = 0, /) -> NoReturn:
        raise self._has_no("recvfrom")

    def recvfrom_into(self, *_arguments: Any) -> NoReturn:
        raise self._has_no("recvfrom_into")

    def sendmsg(self, *_arguments: Any) -> NoReturn:
        raise NotImplementedError(str(self._has_no("sendmsg")))

    def sendmsg_afalg(self, *_arguments: Any, **_options: Any) -> NoReturn:
        raise NotImplementedError(str(self._has_no("sendmsg_afalg")))

    def recvmsg(self, *_arguments: Any) -> NoReturn:
        raise NotImplementedError(str(self._has_no("recvmsg")))

    def recvmsg_into(self, *_arguments: Any) -> NoReturn:
        raise NotImplementedError(str(self._has_no("recvmsg_into")))

    def _has_no(self, method: str) -> ValueError:
        return ValueError(f"{method} not allowed on instances of {type(self)}")
