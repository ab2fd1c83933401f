"""A header of the PROXY protocol as a value: the ends of the connection, and its TLVs.

``proxyv1`` and ``proxyv2`` decode it from bytes and encode it; ``admission`` reads it.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, Self

from everserve.errors import ProxyHeaderError
from everserve.wire.endpoints import Address, Transport, pack, transport_of, unpack
from everserve.wire.sslinfo import SSLInfo
from everserve.wire.tlvs import TLV, TLVType, check, first, text

__all__ = ["Command", "ProxyHeader", "Version"]

Version = Literal[1, 2]


class Command(enum.Enum):
    """Whose connection it is. The values are those of version 2 (section 2.2)."""

    LOCAL = 0
    PROXY = 1


@dataclass(frozen=True, slots=True)
class ProxyHeader:
    """One header. ``source`` is the client, ``destination`` what it connected to.

    Both are ``None`` if the connection is the proxy's own (``command`` is ``LOCAL``: a health check) or
    if the proxy does not know them (``transport`` is ``UNSPEC``, in version 1 ``UNKNOWN``): use the
    ends of the real connection then. ``tlvs`` are all vectors in order, padding and checksum included;
    version 1 has none.

    ``build`` makes one from addresses, and checks them; the constructor takes addresses unchanged.
    Both raise ``ProxyHeaderError`` for values that a header cannot hold.
    """

    version: Version
    command: Command = Command.PROXY
    transport: Transport = Transport.UNSPEC
    source: Address | None = None
    destination: Address | None = None
    tlvs: tuple[TLV, ...] = ()

    def __post_init__(self) -> None:
        if self.version == 1:
            self._check_version_1()
        elif self.version != 2:
            raise ProxyHeaderError(f"there is no version {self.version!r}: there are 1 and 2")
        if self.command is Command.LOCAL:
            self._check_local()
        self._check_addresses()
        self._check_tlvs()

    def _check_version_1(self) -> None:
        known = (Transport.UNSPEC, Transport.TCP4, Transport.TCP6)
        if self.command is Command.LOCAL or self.tlvs or self.transport not in known:
            raise ProxyHeaderError(
                "version 1 has no command LOCAL, no TLVs, and no transports but TCP4, TCP6 and"
                f" UNKNOWN: {self.command.name}, {self.transport.name} and {len(self.tlvs)} TLVs"
                " need version 2"
            )

    def _check_local(self) -> None:
        if self.transport is not Transport.UNSPEC or self.tlvs:
            raise ProxyHeaderError(
                "a LOCAL header has no addresses and no TLVs: its receiver ignores them"
            )

    def _check_addresses(self) -> None:
        wanted = self.transport is not Transport.UNSPEC
        if any((end is not None) is not wanted for end in (self.source, self.destination)):
            raise ProxyHeaderError(
                f"{self.transport.name} has {'both' if wanted else 'no'} addresses, not"
                f" {self.source!r} and {self.destination!r}"
            )

    def _check_tlvs(self) -> None:
        check(self.tlvs)
        for kind, value in self.tlvs:
            if kind == TLVType.SSL:
                SSLInfo.decode(value)

    @classmethod
    def build(
        cls,
        source: Address | None = None,
        destination: Address | None = None,
        *,
        version: Version = 2,
        local: bool = False,
        datagram: bool = False,
        tlvs: Iterable[TLV] = (),
    ) -> Self:
        """The header of a connection between two addresses. Their shapes determine the transport.

        With ``local`` it is the proxy's own connection; without addresses, one of an unknown kind.
        An IPv6 address may be given as ``(host, port)``. A receiver decodes an equal header, apart
        from the vectors that ``encode`` adds. Raises ``ProxyHeaderError``.
        """
        transport = transport_of(source, destination, datagram)
        if transport is not Transport.UNSPEC:
            source, destination = unpack(transport, pack(transport, source, destination))
        command = Command.LOCAL if local else Command.PROXY
        return cls(version, command, transport, source, destination, tuple(tlvs))

    @property
    def has_addresses(self) -> bool:
        """Whether ``source`` and ``destination`` stand for the real connection's ends."""
        return self.source is not None

    def tlv(self, kind: int) -> bytes | None:
        """The value of the first vector of a type; ``None`` if there is none."""
        return first(self.tlvs, kind)

    @property
    def alpn(self) -> bytes | None:
        """The application's protocol, as negotiated: ``b"h2"`` (section 2.2.1)."""
        return self.tlv(TLVType.ALPN)

    @property
    def authority(self) -> str | None:
        """The host name that the client requested, with TLS its SNI (section 2.2.2)."""
        return text(self.tlvs, TLVType.AUTHORITY)

    @property
    def has_checksum(self) -> bool:
        """Whether the header has a CRC32C: decoding verifies it (section 2.2.3)."""
        return self.tlv(TLVType.CRC32C) is not None

    @property
    def unique_id(self) -> bytes | None:
        """The proxy's name for the connection, at most 128 bytes (section 2.2.5)."""
        return self.tlv(TLVType.UNIQUE_ID)

    @property
    def ssl(self) -> SSLInfo | None:
        """The client's TLS connection to the proxy (section 2.2.6)."""
        value = self.tlv(TLVType.SSL)
        return None if value is None else SSLInfo.decode(value)

    @property
    def namespace(self) -> str | None:
        """The name of the proxy's network namespace (section 2.2.7)."""
        return text(self.tlvs, TLVType.NETNS)
