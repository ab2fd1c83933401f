"""Addresses as text, ``tcp://127.0.0.1:9999``, and as an ``Address``.

``serve`` and the command line accept them; a server reports its own address in this form.
"""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass
from typing import Any, Self

from everserve.errors import AddressError

__all__ = ["FORMS", "Address"]

FORMS = (
    "tcp://127.0.0.1:9999, tcp://[::1]:9999, tcp://*:9999 (all interfaces), tls://*:9999, "
    "udp://127.0.0.1:9999, unix:/path, unix:@name, unixgram:/path, fd://3"
)
"""The forms of an address, for messages and help texts."""

_INTERNET = ("tcp", "tls", "udp")
_UNIX = ("unix", "unixgram")


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen. ``Address.parse`` reads one from text, and ``str`` writes it as text.

    ``scheme`` is ``tcp``, ``tls``, ``udp``, ``unix``, ``unixgram`` or ``fd``; ``host`` is ``""`` for
    all interfaces; ``path`` begins with a NUL for an abstract name.
    """

    scheme: str
    host: str = ""
    port: int = 0
    path: str = ""
    descriptor: int = -1

    @classmethod
    def parse(cls, text: str | Address) -> Address:
        """Read an address. Raises ``AddressError``, whose message shows the accepted forms."""
        if isinstance(text, Address):
            return text
        scheme, colon, rest = text.strip().partition(":")
        if colon and scheme in _INTERNET and rest.startswith("//"):
            host, port = _split_port(text, rest[2:])
            return cls(scheme, host=_read_host(text, host), port=port)
        if colon and scheme in _UNIX and rest.lstrip("/@"):
            path = rest.removeprefix("//")
            return cls(scheme, path=f"\0{path[1:]}" if path.startswith("@") else path)
        if scheme == "fd" and rest.startswith("//") and rest[2:].isascii() and rest[2:].isdigit():
            return cls("fd", descriptor=int(rest[2:]))
        raise _unreadable(text, "it has none of the known forms")

    @classmethod
    def of(cls, sock: socket.socket) -> Self:
        """The address to which ``sock`` is bound."""
        name: Any = sock.getsockname()
        stream = sock.type != socket.SOCK_DGRAM
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            everywhere = name[0] in ("0.0.0.0", "::")
            host = "" if everywhere else _with_zone(*name)
            return cls("tcp" if stream else "udp", host=host, port=name[1])
        if isinstance(name, bytes):
            name = name.decode(errors="surrogateescape")
        return cls("unix" if stream else "unixgram", path=str(name))

    @property
    def is_unix(self) -> bool:
        """True for a Unix socket."""
        return self.scheme in _UNIX

    @property
    def server_address(self) -> tuple[str, int] | str:
        """The address as ``server_address`` of the standard library's servers."""
        return self.path if self.is_unix else (self.host, self.port)

    def __str__(self) -> str:
        if self.scheme == "fd":
            return f"fd://{self.descriptor}"
        if self.is_unix:
            return f"{self.scheme}:{self.path.replace(chr(0), '@', 1)}"
        host = f"[{self.host}]" if ":" in self.host else self.host or "*"
        return f"{self.scheme}://{host}:{self.port}"


def _with_zone(host: str, port: int, flow: int = 0, scope: int = 0) -> str:
    """An address as text, with the name of its interface where it is valid on that alone (RFC 4007)."""
    if not scope:
        return host
    try:
        zone = socket.if_indextoname(scope)
    except OSError:  # the interface is gone
        zone = str(scope)
    return f"{host}%{zone}"


def _split_port(text: str, location: str) -> tuple[str, int]:
    host, colon, port = location.rpartition(":")
    if not colon or not (port.isascii() and port.isdigit()):
        raise _unreadable(text, "it has no port")
    if int(port) > 65535:
        raise _unreadable(text, "a port is at most 65535")
    return host, int(port)


def _read_host(text: str, host: str) -> str:
    if host == "*":
        return ""
    if host.startswith("[") and host.endswith("]"):
        address, _, zone = host[1:-1].partition("%")
        try:
            ipaddress.IPv6Address(address)
        except ValueError as error:
            raise _unreadable(text, str(error)) from None
        return f"{address}%{zone}" if zone else address
    if ":" in host:
        raise _unreadable(text, "an IPv6 address is written in brackets")
    if not host or any(sign.isspace() or sign in "/@?#[]" for sign in host):
        raise _unreadable(text, "it has no host ('*' is all interfaces)")
    return host


def _unreadable(text: str, reason: str) -> AddressError:
    return AddressError(f"cannot read the address {text!r}: {reason}; write for example {FORMS}")
