"""The servers: the standard library's API, and behind it the plain objects that do the work."""

import socket

from everserve.lifecycle.stages import ConnectionState
from everserve.lifecycle.state import ServerState
from everserve.server.base import BaseServer
from everserve.server.group import ServerGroup
from everserve.server.stop import StopReport
from everserve.server.tcp import TCPServer
from everserve.server.udp import UDPServer

__all__ = [
    "BaseServer",
    "ConnectionState",
    "ServerGroup",
    "ServerState",
    "StopReport",
    "TCPServer",
    "UDPServer",
]

if hasattr(socket, "AF_UNIX"):
    from everserve.server.unix import UnixDatagramServer as UnixDatagramServer
    from everserve.server.unix import UnixStreamServer as UnixStreamServer

    __all__ += ["UnixDatagramServer", "UnixStreamServer"]
