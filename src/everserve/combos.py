"""The ready-made servers: a strategy and a transport each."""

from __future__ import annotations

import os
import socket

from everserve.concurrency.pool import ThreadPoolMixIn
from everserve.concurrency.threads import ThreadingMixIn
from everserve.server.tcp import TCPServer
from everserve.server.udp import UDPServer

__all__ = [
    "ThreadPoolTCPServer",
    "ThreadPoolUDPServer",
    "ThreadingTCPServer",
    "ThreadingUDPServer",
]

_HAS_FORK = hasattr(os, "fork")


class ThreadingTCPServer(ThreadingMixIn, TCPServer):
    """A ``TCPServer`` with a thread for each connection."""


class ThreadingUDPServer(ThreadingMixIn, UDPServer):
    """A ``UDPServer`` with a thread for each datagram."""


class ThreadPoolTCPServer(ThreadPoolMixIn, TCPServer):
    """A ``TCPServer`` with a bounded number of threads."""


class ThreadPoolUDPServer(ThreadPoolMixIn, UDPServer):
    """A ``UDPServer`` with a bounded number of threads."""


if _HAS_FORK:
    from everserve.concurrency.forks import ForkingMixIn

    class ForkingTCPServer(ForkingMixIn, TCPServer):
        """A ``TCPServer`` with a process for each connection."""

    class ForkingUDPServer(ForkingMixIn, UDPServer):
        """A ``UDPServer`` with a process for each datagram."""

    __all__ += ["ForkingTCPServer", "ForkingUDPServer"]

if hasattr(socket, "AF_UNIX"):
    from everserve.server.unix import UnixDatagramServer, UnixStreamServer

    class ThreadingUnixStreamServer(ThreadingMixIn, UnixStreamServer):
        """A ``UnixStreamServer`` with a thread for each connection."""

    class ThreadingUnixDatagramServer(ThreadingMixIn, UnixDatagramServer):
        """A ``UnixDatagramServer`` with a thread for each datagram."""

    class ThreadPoolUnixStreamServer(ThreadPoolMixIn, UnixStreamServer):
        """A ``UnixStreamServer`` with a bounded number of threads."""

    class ThreadPoolUnixDatagramServer(ThreadPoolMixIn, UnixDatagramServer):
        """A ``UnixDatagramServer`` with a bounded number of threads."""

    __all__ += [
        "ThreadPoolUnixDatagramServer",
        "ThreadPoolUnixStreamServer",
        "ThreadingUnixDatagramServer",
        "ThreadingUnixStreamServer",
    ]

    if _HAS_FORK:

        class ForkingUnixStreamServer(ForkingMixIn, UnixStreamServer):
            """A ``UnixStreamServer`` with a process for each connection."""

        class ForkingUnixDatagramServer(ForkingMixIn, UnixDatagramServer):
            """A ``UnixDatagramServer`` with a process for each datagram."""

        __all__ += ["ForkingUnixDatagramServer", "ForkingUnixStreamServer"]
