"""Addresses as text, ``tcp://127.0.0.1:9999``, and as an ``Address``.

``serve`` and the command line accept them; a server reports its own address in this form.
"""

from __future__ import annotations

import ipaddress
import os
import re
import socket
from dataclasses import dataclass, replace
from typing import Any, Self

from everserve.errors import AddressError

__all__ = ["FORMS", "Address", "is_group"]

FORMS = (
    "tcp://127.0.0.1:9999, tcp://[::1]:9999, tcp://*:9999 (all interfaces), tls://*:9999, "
    "udp://127.0.0.1:9999, udp://239.1.2.3:9999?interface=eth0, unix:/path, unix:@name, "
    "unixgram:/path, fd://3, systemd:name"
)
"""The forms of an address, for messages and help texts."""

_INTERNET = ("tcp", "tls", "udp")
_UNIX = ("unix", "unixgram")
_NAME = r"[!-9;-~]{1,255}"
"""What systemd.socket(5) lets ``FileDescriptorName=`` be, less the space: ASCII without a colon."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen. ``Address.parse`` reads one from text, and ``str`` writes it as text.

    ``scheme`` is ``tcp``, ``tls``, ``udp``, ``unix``, ``unixgram``, ``fd`` or ``systemd``; ``host`` is
    ``""`` for all interfaces; ``path`` begins with a NUL for an abstract name. If ``host`` is a
    multicast group, ``interface`` is the one to join it on; ``""``: the system chooses. ``name`` is the
    one that the service manager has given to sockets (``FileDescriptorName=``).
    """

    scheme: str
    host: str = ""
    port: int = 0
    path: str = ""
    descriptor: int = -1
    interface: str = ""
    name: str = ""

    @classmethod
    def parse(cls, text: str | Address) -> Address:
        """Read an address. Raises ``AddressError``, whose message shows the accepted forms."""
        if isinstance(text, Address):
            return text
        if not isinstance(text, str):
            raise AddressError(_not_a_text(text))
        found = _read(text)
        if isinstance(found, Address):
            return found
        meant = _suggest(text)
        hint = f"; did you mean {meant!r}?" if meant else f"; write for example {FORMS}"
        raise AddressError(f"cannot read the address {text!r}: {found}{hint}")

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
    def is_group(self) -> bool:
        """True for a multicast group."""
        return self.scheme == "udp" and is_group(self.host)

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
        if self.scheme == "systemd":
            return f"systemd:{self.name}"
        if self.is_unix:
            return f"{self.scheme}:{self.path.replace(chr(0), '@', 1)}"
        host = f"[{self.host}]" if ":" in self.host else self.host or "*"
        query = f"?interface={self.interface}" if self.interface else ""
        return f"{self.scheme}://{host}:{self.port}{query}"


def _with_zone(host: str, port: int, flow: int = 0, scope: int = 0) -> str:
    """An address as text, with the name of its interface where it is valid on that alone (RFC 4007)."""
    if not scope:
        return host
    try:
        zone = socket.if_indextoname(scope)
    except OSError:  # the interface is gone
        zone = str(scope)
    return f"{host}%{zone}"


def _read(text: str) -> Address | str:
    """The address, or why it cannot be read."""
    scheme, colon, rest = text.strip().partition(":")
    if "\0" in text:
        return "it contains a NUL"
    if colon and scheme == "udp" and rest.startswith("//") and "?" in rest:
        return _read_group(*rest[2:].split("?", 1))
    if colon and scheme in _INTERNET and rest.startswith("//"):
        return _read_location(scheme, rest[2:])
    if colon and scheme in _UNIX and rest.lstrip("/@"):
        path = rest.removeprefix("//")
        return Address(scheme, path=f"\0{path[1:]}" if path.startswith("@") else path)
    if scheme == "fd" and re.fullmatch(r"//[0-9]{1,9}", rest):
        return Address("fd", descriptor=int(rest[2:]))
    if scheme == "systemd" and re.fullmatch(_NAME, rest):
        return Address("systemd", name=rest)
    return "it has none of the known forms"


def _read_group(location: str, query: str) -> Address | str:
    """The address of a multicast group, with the interface to join it on."""
    found = _read_location("udp", location)
    name, _, interface = query.partition("=")
    if isinstance(found, str):
        return found
    if name != "interface" or not re.fullmatch(r"[^\s/?&=#%]+", interface):
        return "after '?' comes the interface of a multicast group, interface=NAME"
    if not found.is_group:
        return f"{found.host or '*'} is no multicast group: only a group is joined on an interface"
    if ":" in found.host and "%" not in found.host:
        return replace(found, host=f"{found.host}%{interface}", interface=interface)
    return replace(found, interface=interface)


def is_group(host: str) -> bool:
    """True for the address of a multicast group, with or without a zone."""
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_multicast
    except ValueError:
        return False


def _read_location(scheme: str, location: str) -> Address | str:
    host, colon, port = location.rpartition(":")
    if not colon or not (port.isascii() and port.isdigit()):
        return "it has no port"
    port = port.lstrip("0") or "0"
    if len(port) > 5 or int(port) > 65535:
        return "a port is at most 65535"
    if host == "*":
        return Address(scheme, port=int(port))
    if host.startswith("[") and host.endswith("]"):
        address, _, zone = host[1:-1].partition("%")
        try:
            ipaddress.IPv6Address(address)
        except ValueError as error:
            return str(error)
        return Address(scheme, host=f"{address}%{zone}" if zone else address, port=int(port))
    if ":" in host:
        return "an IPv6 address is written in brackets"
    if not host or any(sign.isspace() or sign in "/@?#[]" for sign in host):
        return "it has no host ('*' is all interfaces)"
    return Address(scheme, host=host, port=int(port))


def _suggest(text: str) -> str | None:
    """The address that was probably meant: what others write, in the form of this module."""
    text = text.strip().rstrip("/")
    scheme, separator, rest = text.partition("://")
    if not separator:
        scheme, separator, rest = text.partition(":")
    if separator and scheme.lower() in ("http", "https", "ws", "wss", *_INTERNET):
        scheme = {"http": "tcp", "ws": "tcp", "https": "tls", "wss": "tls"}.get(
            scheme.lower(), scheme.lower()
        )
        return _complete(scheme, rest.lstrip("/"))
    if text.startswith(("/", "./", "../", "@")):
        return f"unix:{text}" if isinstance(_read(f"unix:{text}"), Address) else None
    return _complete("tcp", f"127.0.0.1:{text}" if text.isdigit() else text)


def _complete(scheme: str, location: str) -> str | None:
    """An address with all interfaces for a host that is missing, and IPv6 in brackets."""
    location = location.partition("/")[0]
    host, _, port = location.rpartition(":")
    for spelled in (location, f"*{location}", f"[{host.strip('[]')}]:{port}"):
        if isinstance(_read_location(scheme, spelled), Address):
            return f"{scheme}://{spelled}"
    return None


def _not_a_text(value: object) -> str:
    """The message for what is no text, with the text to write where that is clear."""
    wanted = f"an address is a text, for example {FORMS}"
    if isinstance(value, tuple) and len(value) >= 2 and isinstance(value[0], str):
        location = f"[{value[0]}]" if ":" in value[0] else value[0] or "*"
        wanted = f"write 'tcp://{location}:{value[1]}'"
    elif isinstance(value, list | tuple | set | frozenset):
        wanted = "give each address as an argument of its own"
    elif isinstance(value, os.PathLike):
        wanted = f"write 'unix:{os.fspath(value)}'"
    elif type(value) is int:
        wanted = f"write 'tcp://127.0.0.1:{value}'"
    elif callable(value):
        wanted = "the handler comes first, then the addresses, as texts"
    return f"{value!r} is no address: {wanted}"
