"""The servers: the standard library's API as a template method, its life cycle, its connections."""

import socket

from everserve.server.base import BaseServer
from everserve.server.connection import Connection, ConnectionState
from everserve.server.lifecycle import State
from everserve.server.stopping import StopReport
from everserve.server.tcp import TCPServer
from everserve.server.udp import UDPServer

__all__ = [
    "BaseServer",
    "Connection",
    "ConnectionState",
    "State",
    "StopReport",
    "TCPServer",
    "UDPServer",
]

if hasattr(socket, "AF_UNIX"):
    from everserve.server.unix import UnixDatagramServer as UnixDatagramServer
    from everserve.server.unix import UnixStreamServer as UnixStreamServer

    __all__ += ["UnixDatagramServer", "UnixStreamServer"]
