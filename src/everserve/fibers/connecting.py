"""`create_connection`: a client socket whose name look-up and connect park the fiber.

It stands beside the sockets, for handlers that are clients of other servers.
"""

import socket
from typing import Any, Final

from everserve.errors import FiberTimeout
from everserve.fibers import engines
from everserve.fibers.offloading import offload

__all__ = ["create_connection"]

_DEFAULT: Final = object()


def create_connection(
    address: tuple[str, int],
    timeout: Any = _DEFAULT,
    source_address: tuple[str, int] | None = None,
    *,
    all_errors: bool = False,
) -> engines.FiberSocket:
    """Connect to (host, port), as `socket.create_connection` does, without holding the loop.

    `timeout` (seconds; None: for ever; default: that of new sockets) applies to each address that
    is tried, and stays set on the socket. Raises the last OSError, or with `all_errors` a group of
    all of them.
    """
    errors: list[OSError] = []
    for family, kind, proto, _name, target in _look_up(*address):
        try:
            return _connect(family, kind, proto, target, timeout, source_address)
        except FiberTimeout:
            raise  # of a `Timeout` block around this
        except OSError as error:
            errors.append(error)
    if all_errors:
        raise ExceptionGroup("create_connection failed", errors)
    raise errors[-1] if errors else OSError("getaddrinfo returns an empty list")


def _look_up(host: str, port: int) -> list[Any]:
    try:
        return socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM, 0, socket.AI_NUMERICHOST)
    except socket.gaierror:
        return offload(socket.getaddrinfo, host, port, 0, socket.SOCK_STREAM)


def _connect(
    family: int, kind: int, proto: int, target: Any, timeout: Any, source: Any
) -> engines.FiberSocket:
    sock = engines.FiberSocket(family, kind, proto)
    try:
        if timeout is not _DEFAULT:
            sock.settimeout(timeout)
        if source is not None:
            sock.bind(source)
        sock.connect(target)
    except BaseException:
        sock.close()
        raise
    return sock
