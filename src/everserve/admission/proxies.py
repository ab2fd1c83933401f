"""Which peers are believed as proxies: the accept loop asks it, and the step that reads the header."""

from __future__ import annotations

import os
import socket
from typing import Any

from everserve.admission.access import Networks, host_of
from everserve.admission.peer import credentials_of
from everserve.sockets.genuine import is_socket

__all__ = ["is_trusted_proxy"]

_UNIX = getattr(socket, "AF_UNIX", -1)


def is_trusted_proxy(request: Any, address: Any, networks: Networks) -> bool:
    """True if the peer that sent ``request`` from ``address`` may send a PROXY header.

    An internet peer must be in ``networks``. Over a Unix socket the permission bits of its path say
    who may connect; an abstract name has none, so its peer must have the user id of this process, or
    root's.
    """
    host = host_of(address)
    if host is not None:
        return host in networks
    sock = request[1] if isinstance(request, tuple) else request
    if not is_socket(sock) or sock.family != _UNIX:
        return False
    name = sock.getsockname()
    if name and isinstance(name, str):
        return True
    credentials = credentials_of(sock)
    return credentials is not None and credentials.uid in (0, os.geteuid())
