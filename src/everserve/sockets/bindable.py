"""Whether an address could be bound, as far as that can be said without binding it.

``everserve check`` asks. The errors are those of ``listening``, so they are explained the same way.
"""

from __future__ import annotations

import errno
import os
import socket

from everserve.addresses import Address
from everserve.sockets.listening import check_path, family_for, has_ipv6, resolved

__all__ = ["check_bindable"]

_DISCARD = 9
"""A port to look up a route for; nothing is sent."""


def check_bindable(address: Address) -> None:
    """Raise the ``OSError`` that a bind would: no such host, folder, interface, permission.

    An address in use is no error: a server that is to be replaced may listen there.
    """
    if address.is_unix:
        check_path(address.path)
    else:
        _check_host(address)
        _check_port(address)


def _check_host(address: Address) -> None:
    family = family_for((address.host, address.port), dual_stack=True)
    if family == socket.AF_INET6 and not has_ipv6():
        _refuse(errno.EAFNOSUPPORT, address)
    if not address.host:
        return
    where = resolved(family, (address.host, address.port))
    # The route to an address of this machine begins at the address itself.
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect((where[0], _DISCARD, *where[2:]))
            found = sock.getsockname()[0] == where[0]
        except OSError:
            found = False
    if not found:
        _refuse(errno.EADDRNOTAVAIL, address)


def _check_port(address: Address) -> None:
    if 0 < address.port < _first_free_port() and not _may_bind_low_ports():
        _refuse(errno.EACCES, address)


def _first_free_port() -> int:
    try:
        with open("/proc/sys/net/ipv4/ip_unprivileged_port_start") as file:
            return int(file.read())
    except OSError:
        return 1024


def _may_bind_low_ports() -> bool:
    """True for root, and with CAP_NET_BIND_SERVICE, number 10 of capabilities(7)."""
    try:
        with open("/proc/self/status") as file:
            (line,) = (line for line in file if line.startswith("CapEff:"))
    except (OSError, ValueError):
        return os.geteuid() == 0
    return bool(int(line.split()[1], 16) >> 10 & 1)


def _refuse(number: int, address: Address) -> None:
    host = f"[{address.host}]" if ":" in address.host else address.host or "*"
    raise OSError(number, os.strerror(number), f"{host}:{address.port}")
