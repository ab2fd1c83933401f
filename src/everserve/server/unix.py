"""``UnixStreamServer`` and ``UnixDatagramServer``: the same over Unix sockets, with their files."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

from everserve.errors import OptionError
from everserve.reading import attribute_of
from everserve.server.hooks import default_hook
from everserve.server.tcp import TCPServer
from everserve.server.udp import UDPServer
from everserve.sockets.datagrams import receive
from everserve.sockets.listening import SocketFile, is_filesystem_path, naming
from everserve.sockets.receiving import pass_credentials

__all__ = ["UnixDatagramServer", "UnixStreamServer"]

if TYPE_CHECKING:
    _Base = TCPServer
else:
    _Base = object


class _OnSocketFile(_Base):
    """Binds to a path, or to an abstract name (a leading NUL, Linux), and cleans up behind itself.

    ``socket_mode`` sets the permission bits of the file (``0o660``); ``None`` leaves them to the umask.
    With an abstract name, which has no file, it raises ``OptionError``.
    A stale file is replaced when the server binds; its own file goes when the server closes.
    """

    socket_mode: int | None = None

    def server_bind(self) -> None:
        """Bind the socket to the path ``server_address``."""
        address = self.server_address
        value = attribute_of(self, "socket_mode")
        mode = value if type(value) is int else None
        if is_filesystem_path(address):
            file = SocketFile.bind(self.socket, address, mode=mode)
            self._everserve.conductor.socket_file = file
        elif mode is not None:
            raise OptionError(
                f"socket_mode = {mode:#o}: an abstract name has no file and so no mode, every process"
                " may connect; bind to a path"
            )
        else:
            with naming(address):
                self.socket.bind(address)
        self.server_address = self.socket.getsockname()


class UnixStreamServer(_OnSocketFile, TCPServer):
    """A ``TCPServer`` over a Unix stream socket; the address is a path, or an abstract name."""

    address_family = socket.AF_UNIX


class UnixDatagramServer(_OnSocketFile, UDPServer):
    """A ``UDPServer`` over a Unix datagram socket; the address is a path, or an abstract name.

    Each datagram brings the process that sent it: ``self.peer.credentials`` of a handler (Linux).
    """

    address_family = socket.AF_UNIX

    def server_bind(self) -> None:
        """Bind the socket to the path ``server_address``."""
        pass_credentials(self.socket)  # first: none may come without them
        super().server_bind()

    def server_activate(self) -> None:
        """Have the socket, which may have been inherited, receive as the options say."""
        pass_credentials(self.socket)
        super().server_activate()

    @default_hook
    def get_request(self) -> tuple[Any, Any]:
        """Receive a datagram: ``((data, socket), client_address)``."""
        wait = not self._everserve.life.serving_here()
        return receive(self.socket, self.max_packet_size, wait=wait, credentials=True)
