"""The client's TLS connection, as a proxy reports it: the vector ``SSL`` of the PROXY protocol.

``proxyheader`` checks it in each header, and returns it as ``header.ssl``.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from everserve.errors import ProxyHeaderError
from everserve.wire.tlvs import TLV, TLVType, check, first, join, split, text

__all__ = ["SSLClient", "SSLInfo"]

_FIXED = 5  # bytes before the vectors: one of client, four of verify


class SSLClient(enum.IntFlag):
    """What the client used (section 2.2.6)."""

    SSL = 0x01
    CERT_CONN = 0x02
    CERT_SESS = 0x04


@dataclass(frozen=True, slots=True)
class SSLInfo:
    """The TLS connection between the client and the proxy: the value of ``SSL`` (section 2.2.6).

    ``verify`` is 0 if the client's certificate was verified. Some senders write 0 also without a
    certificate: use ``verified``. Texts are ``None`` if the proxy did not send them. Raises
    ``ProxyHeaderError`` for a text that is not in its encoding.
    """

    client: SSLClient = SSLClient.SSL
    verify: int = 1
    tlvs: tuple[TLV, ...] = ()

    def __post_init__(self) -> None:
        if not (0 <= self.client <= 0xFF and 0 <= self.verify <= 0xFFFFFFFF):
            raise ProxyHeaderError(
                f"client {self.client:d} ends at 255, verify {self.verify} at 2**32 - 1"
            )
        check(self.tlvs)

    @classmethod
    def decode(cls, value: bytes) -> SSLInfo:
        """Read the value of an ``SSL`` vector. Raises ``ProxyHeaderError``."""
        if len(value) < _FIXED:
            raise ProxyHeaderError(f"an SSL TLV has at least {_FIXED} bytes, not {len(value)}")
        client, verify = SSLClient(value[0]), int.from_bytes(value[1:_FIXED], "big")
        return cls(client, verify, split(value[_FIXED:]))

    def encode(self) -> bytes:
        """The value of an ``SSL`` vector."""
        return bytes([self.client]) + self.verify.to_bytes(4, "big") + join(self.tlvs)

    @property
    def secure(self) -> bool:
        """Whether the client connected over TLS."""
        return SSLClient.SSL in self.client

    @property
    def has_certificate(self) -> bool:
        """Whether the client sent a certificate, on this connection or earlier in its session."""
        return bool(self.client & (SSLClient.CERT_CONN | SSLClient.CERT_SESS))

    @property
    def verified(self) -> bool:
        """Whether the client sent a certificate and the proxy verified it."""
        return self.secure and self.has_certificate and self.verify == 0

    @property
    def version(self) -> str | None:
        """The version of TLS: ``"TLSv1.3"``."""
        return text(self.tlvs, TLVType.SSL_VERSION)

    @property
    def common_name(self) -> str | None:
        """The Common Name of the client's certificate."""
        return text(self.tlvs, TLVType.SSL_CN)

    @property
    def cipher(self) -> str | None:
        """The cipher: ``"ECDHE-RSA-AES128-GCM-SHA256"``."""
        return text(self.tlvs, TLVType.SSL_CIPHER)

    @property
    def signature_algorithm(self) -> str | None:
        """The algorithm of the signature on the proxy's certificate: ``"RSA-SHA256"``."""
        return text(self.tlvs, TLVType.SSL_SIG_ALG)

    @property
    def key_algorithm(self) -> str | None:
        """The algorithm of the key of the proxy's certificate: ``"RSA2048"``."""
        return text(self.tlvs, TLVType.SSL_KEY_ALG)

    @property
    def group(self) -> str | None:
        """The key exchange: ``"secp256r1"``."""
        return text(self.tlvs, TLVType.SSL_GROUP)

    @property
    def signature_scheme(self) -> str | None:
        """The algorithm of the proxy's signature in the handshake: ``"rsa_pss_rsae_sha256"``."""
        return text(self.tlvs, TLVType.SSL_SIG_SCHEME)

    @property
    def client_certificate(self) -> bytes | None:
        """The client's certificate, X.509 in DER."""
        return first(self.tlvs, TLVType.SSL_CLIENT_CERT)
