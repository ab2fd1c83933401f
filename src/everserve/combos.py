"""The ready-made servers: a strategy and a transport each."""

from __future__ import annotations

import os
import socket
import sys

from everserve.errors import AddressError, OptionError
from everserve.mixins import (
    AsyncMixIn,
    DatagramSessionMixIn,
    FiberMixIn,
    ThreadingMixIn,
    ThreadPoolMixIn,
)
from everserve.server.tcp import TCPServer
from everserve.server.udp import UDPServer

__all__ = [
    "AsyncTCPServer",
    "AsyncUDPServer",
    "FiberSessionUDPServer",
    "FiberTCPServer",
    "FiberUDPServer",
    "ThreadPoolSessionUDPServer",
    "ThreadPoolTCPServer",
    "ThreadPoolUDPServer",
    "ThreadingSessionUDPServer",
    "ThreadingTCPServer",
    "ThreadingUDPServer",
]

_HAS_FORK = hasattr(os, "fork")


class AsyncTCPServer(AsyncMixIn, TCPServer):
    """A ``TCPServer`` with a task of asyncio for each connection."""


class AsyncUDPServer(AsyncMixIn, UDPServer):
    """A ``UDPServer`` with a task of asyncio for each datagram."""


class FiberTCPServer(FiberMixIn, TCPServer):
    """A ``TCPServer`` with a fiber for each connection."""


class FiberUDPServer(FiberMixIn, UDPServer):
    """A ``UDPServer`` with a fiber for each datagram."""


class ThreadingTCPServer(ThreadingMixIn, TCPServer):
    """A ``TCPServer`` with a thread for each connection."""


class ThreadingUDPServer(ThreadingMixIn, UDPServer):
    """A ``UDPServer`` with a thread for each datagram."""


class ThreadPoolTCPServer(ThreadPoolMixIn, TCPServer):
    """A ``TCPServer`` with a bounded number of threads."""


class ThreadPoolUDPServer(ThreadPoolMixIn, UDPServer):
    """A ``UDPServer`` with a bounded number of threads."""


class FiberSessionUDPServer(DatagramSessionMixIn, FiberMixIn, UDPServer):
    """A ``UDPServer`` with a fiber for each peer."""


class ThreadingSessionUDPServer(DatagramSessionMixIn, ThreadingMixIn, UDPServer):
    """A ``UDPServer`` with a thread for each peer."""


class ThreadPoolSessionUDPServer(DatagramSessionMixIn, ThreadPoolMixIn, UDPServer):
    """A ``UDPServer`` with one of a bounded number of threads for each peer."""


if _HAS_FORK:
    from everserve.mixins import ForkingMixIn

    class ForkingTCPServer(ForkingMixIn, TCPServer):
        """A ``TCPServer`` with a process for each connection."""

    class ForkingUDPServer(ForkingMixIn, UDPServer):
        """A ``UDPServer`` with a process for each datagram."""

    __all__ += ["ForkingTCPServer", "ForkingUDPServer"]

if hasattr(socket, "AF_UNIX"):
    from everserve.server.unix import UnixDatagramServer, UnixStreamServer

    class AsyncUnixStreamServer(AsyncMixIn, UnixStreamServer):
        """A ``UnixStreamServer`` with a task of asyncio for each connection."""

    class AsyncUnixDatagramServer(AsyncMixIn, UnixDatagramServer):
        """A ``UnixDatagramServer`` with a task of asyncio for each datagram."""

    class FiberUnixStreamServer(FiberMixIn, UnixStreamServer):
        """A ``UnixStreamServer`` with a fiber for each connection."""

    class FiberUnixDatagramServer(FiberMixIn, UnixDatagramServer):
        """A ``UnixDatagramServer`` with a fiber for each datagram."""

    class ThreadingUnixStreamServer(ThreadingMixIn, UnixStreamServer):
        """A ``UnixStreamServer`` with a thread for each connection."""

    class ThreadingUnixDatagramServer(ThreadingMixIn, UnixDatagramServer):
        """A ``UnixDatagramServer`` with a thread for each datagram."""

    class ThreadPoolUnixStreamServer(ThreadPoolMixIn, UnixStreamServer):
        """A ``UnixStreamServer`` with a bounded number of threads."""

    class ThreadPoolUnixDatagramServer(ThreadPoolMixIn, UnixDatagramServer):
        """A ``UnixDatagramServer`` with a bounded number of threads."""

    class FiberSessionUnixDatagramServer(DatagramSessionMixIn, FiberMixIn, UnixDatagramServer):
        """A ``UnixDatagramServer`` with a fiber for each peer."""

    class ThreadingSessionUnixDatagramServer(
        DatagramSessionMixIn, ThreadingMixIn, UnixDatagramServer
    ):
        """A ``UnixDatagramServer`` with a thread for each peer."""

    class ThreadPoolSessionUnixDatagramServer(
        DatagramSessionMixIn, ThreadPoolMixIn, UnixDatagramServer
    ):
        """A ``UnixDatagramServer`` with one of a bounded number of threads for each peer."""

    __all__ += [
        "AsyncUnixDatagramServer",
        "AsyncUnixStreamServer",
        "FiberSessionUnixDatagramServer",
        "FiberUnixDatagramServer",
        "FiberUnixStreamServer",
        "ThreadPoolSessionUnixDatagramServer",
        "ThreadPoolUnixDatagramServer",
        "ThreadPoolUnixStreamServer",
        "ThreadingSessionUnixDatagramServer",
        "ThreadingUnixDatagramServer",
        "ThreadingUnixStreamServer",
    ]

    if _HAS_FORK:

        class ForkingUnixStreamServer(ForkingMixIn, UnixStreamServer):
            """A ``UnixStreamServer`` with a process for each connection."""

        class ForkingUnixDatagramServer(ForkingMixIn, UnixDatagramServer):
            """A ``UnixDatagramServer`` with a process for each datagram."""

        __all__ += ["ForkingUnixDatagramServer", "ForkingUnixStreamServer"]


def _classes() -> dict[str, dict[str, type[TCPServer]]]:
    classes: dict[str, dict[str, type[TCPServer]]] = {
        "fibers": {"tcp": FiberTCPServer, "udp": FiberUDPServer},
        "serial": {"tcp": TCPServer, "udp": UDPServer},
        "threads": {"tcp": ThreadingTCPServer, "udp": ThreadingUDPServer},
        "pool": {"tcp": ThreadPoolTCPServer, "udp": ThreadPoolUDPServer},
        "asyncio": {"tcp": AsyncTCPServer, "udp": AsyncUDPServer},
    }
    if _HAS_FORK:
        classes["forks"] = {"tcp": ForkingTCPServer, "udp": ForkingUDPServer}
    if hasattr(socket, "AF_UNIX"):
        classes["fibers"] |= {"unix": FiberUnixStreamServer, "unixgram": FiberUnixDatagramServer}
        classes["asyncio"] |= {"unix": AsyncUnixStreamServer, "unixgram": AsyncUnixDatagramServer}
        classes["serial"] |= {"unix": UnixStreamServer, "unixgram": UnixDatagramServer}
        classes["threads"] |= {
            "unix": ThreadingUnixStreamServer,
            "unixgram": ThreadingUnixDatagramServer,
        }
        classes["pool"] |= {
            "unix": ThreadPoolUnixStreamServer,
            "unixgram": ThreadPoolUnixDatagramServer,
        }
        if _HAS_FORK:
            classes["forks"] |= {
                "unix": ForkingUnixStreamServer,
                "unixgram": ForkingUnixDatagramServer,
            }
    return classes


def _session_classes() -> dict[str, dict[str, type[TCPServer]]]:
    classes: dict[str, dict[str, type[TCPServer]]] = {
        "fibers": {"udp": FiberSessionUDPServer},
        "threads": {"udp": ThreadingSessionUDPServer},
        "pool": {"udp": ThreadPoolSessionUDPServer},
    }
    if hasattr(socket, "AF_UNIX"):
        classes["fibers"]["unixgram"] = FiberSessionUnixDatagramServer
        classes["threads"]["unixgram"] = ThreadingSessionUnixDatagramServer
        classes["pool"]["unixgram"] = ThreadPoolSessionUnixDatagramServer
    return classes


_CLASSES = _classes()
_SESSION_CLASSES = _session_classes()

CONCURRENCY = tuple(_CLASSES)
"""The names of the strategies."""


def server_class(concurrency: str, transport: str, *, sessions: bool = False) -> type[TCPServer]:
    """The ready-made class for a strategy and the scheme of an address; ``sessions``: one with them.

    Raises ``OptionError`` for an unknown strategy, ``AddressError`` for a transport that this system
    lacks.
    """
    if concurrency not in CONCURRENCY:
        raise OptionError(f"concurrency = {concurrency!r}: there are {', '.join(CONCURRENCY)}")
    if sessions and concurrency not in _SESSION_CLASSES:
        raise OptionError(
            f"concurrency = {concurrency!r}: sessions need one of {', '.join(_SESSION_CLASSES)}"
        )
    classes = _SESSION_CLASSES if sessions else _CLASSES
    found = classes[concurrency].get("tcp" if transport == "tls" else transport)
    if found is None:
        raise AddressError(f"{transport}: is not available on this system ({sys.platform})")
    return found
