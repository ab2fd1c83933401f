"""Which networks may connect: the accept loop checks it before any byte is read."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable
from typing import Any, Self, TypeAlias

from everserve.errors import OptionError

__all__ = ["AccessRules", "Networks", "host_of"]

_MAPPED = bytes(10) + b"\xff\xff"  # IPv4 in IPv6 (RFC 4291, 2.5.5.2), as a dual-stack socket has it


def host_of(address: Any) -> bytes | None:
    """The packed IP address of a ``client_address``: 4 or 16 bytes; ``None`` if it has none."""
    if not isinstance(address, tuple) or not address or not isinstance(address[0], str):
        return None
    host = address[0]
    try:
        if ":" not in host:
            return socket.inet_pton(socket.AF_INET, host)
        packed = socket.inet_pton(socket.AF_INET6, host.partition("%")[0])
    except OSError:
        return None
    return packed[12:] if packed.startswith(_MAPPED) else packed


_Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network


def _unmapped(network: _Network) -> _Network:
    """The IPv4 network that a mapped IPv6 network stands for: ``host_of`` unmaps addresses too."""
    if network.version == 6 and network.prefixlen >= 96:
        packed = network.network_address.packed
        if packed.startswith(_MAPPED):
            return ipaddress.IPv4Network((packed[12:], network.prefixlen - 96))
    return network


class Networks:
    """A set of networks. A membership test is one look-up for each prefix length in the set."""

    def __init__(self, networks: Iterable[str | _Network] = ()) -> None:
        """``networks``: texts such as ``10.0.0.0/8``, ``::1``, or of ``ipaddress``.

        Raises ``OptionError``.
        """
        self.texts = tuple(map(str, networks))
        self._prefixes: dict[tuple[int, int], set[int]] = {}
        for text in self.texts:
            try:
                network = _unmapped(ipaddress.ip_network(text.strip()))
            except ValueError as error:
                raise OptionError(
                    f"not a network: {text!r} ({error}); write 10.0.0.0/8 or ::1"
                ) from None
            size = network.max_prefixlen
            shift = size - network.prefixlen
            prefixes = self._prefixes.setdefault((size // 8, shift), set())
            prefixes.add(int(network.network_address) >> shift)

    @classmethod
    def of(cls, value: Networks | str | Iterable[str | _Network]) -> Networks:
        """``value`` unchanged, or made from texts; a single text is a comma-separated list."""
        if isinstance(value, Networks):
            return value
        return cls(value.split(",") if isinstance(value, str) else value)

    def __bool__(self) -> bool:
        return bool(self._prefixes)

    def __contains__(self, host: object) -> bool:
        """True if ``host``, a packed address, is in one of the networks."""
        if not isinstance(host, bytes):
            return False
        number = int.from_bytes(host)
        for (size, shift), prefixes in self._prefixes.items():
            if size == len(host) and number >> shift in prefixes:
                return True
        return False


class AccessRules:
    """Networks that may connect, and networks that may not. ``deny`` takes precedence.

    Without ``allow`` (``None``), every peer that is not denied may connect; an empty one allows no
    peer. A peer without an IP address is in no network: where there is a rule, it may not connect.
    Immutable: assign a new one to ``server.access``; it applies from the next connection on.
    """

    def __init__(
        self,
        *,
        allow: Networks | str | Iterable[str | _Network] | None = None,
        deny: Networks | str | Iterable[str | _Network] = (),
    ) -> None:
        """Each as ``Networks.of`` takes it. Raises ``OptionError``."""
        self._allow = None if allow is None else Networks.of(allow)
        self._deny = Networks.of(deny)

    @classmethod
    def parse(cls, value: Any) -> Self | AccessRules:
        """Read ``"allow 10.0.0.0/8, deny 10.1.0.0/16"``. Raises ``OptionError``."""
        if isinstance(value, AccessRules):
            return value
        networks: dict[str, list[str]] = {}
        for item in str(value).split(","):
            verb, _, network = item.strip().partition(" ")
            if verb not in ("allow", "deny") or not network:
                raise OptionError(f"access = {item.strip()!r}: write 'allow 10.0.0.0/8, deny ::/0'")
            networks.setdefault(verb, []).append(network)
        return cls(**networks)

    def permits(self, address: Any) -> bool:
        """True if the peer with that ``client_address`` may connect."""
        allow, deny = self._allow, self._deny
        host = host_of(address)
        if host is None:
            return allow is None and not deny
        if host in deny:
            return False
        return allow is None or host in allow

    def __repr__(self) -> str:
        rules = [] if self._allow is None else [f"allow {text}" for text in self._allow.texts]
        if self._allow is not None and not self._allow:
            rules.append("allow no peer")
        rules += [f"deny {text}" for text in self._deny.texts]
        return f"<AccessRules {', '.join(rules) or 'every peer'}>"
