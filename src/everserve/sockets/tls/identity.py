"""Who is at the other end of a TLS connection, and what the handshake negotiated.

Made when a handler asks for it, not with each handshake, as reading a certificate costs time.
"""

import datetime
import ssl
from dataclasses import dataclass, field
from typing import Any, Self

__all__ = ["TLSIdentity"]


@dataclass(frozen=True, slots=True)
class TLSIdentity:
    """What TLS knows of a connection. The certificate is always that of the peer.

    Without a verified certificate of the peer (a server that asks for none, or an optional one that
    was not sent), `subject`, `issuer` and `alt_names` are empty, `serial`, `not_before` and
    `not_after` are None.
    """

    version: str | None
    """"TLSv1.3" or "TLSv1.2"; None before the handshake."""

    cipher: str | None
    """The suite's name, as OpenSSL spells it."""

    alpn: str | None = None
    """The protocol that was negotiated (RFC 7301); None without one."""

    sni: str | None = None
    """The host name that the client asked for (RFC 6066, section 3), in lower case, A-labels."""

    subject: tuple[tuple[str, str], ...] = ()
    """(attribute, value) in the order of the certificate, as ("commonName", "alice")."""

    issuer: tuple[tuple[str, str], ...] = ()

    alt_names: tuple[tuple[str, Any], ...] = ()
    """(kind, name), as ("DNS", "a.example.org"), ("IP Address", "::1"), ("email", ...), ("URI", ...).

    A "DirName" has nested tuples for its name (RFC 5280, section 4.2.1.6).
    """

    serial: str | None = None
    """Hexadecimal, upper case."""

    not_before: datetime.datetime | None = None
    not_after: datetime.datetime | None = None
    """In UTC."""

    der: bytes | None = field(default=None, repr=False)
    """The certificate as it was sent, in DER, verified or not."""

    @property
    def common_name(self) -> str | None:
        """The last commonName of the subject, which is the most specific."""
        names = [value for key, value in self.subject if key == "commonName"]
        return names[-1] if names else None

    @property
    def verified(self) -> bool:
        """Whether the peer sent a certificate that a trusted authority had signed."""
        return self.serial is not None

    @classmethod
    def of(cls, tls: ssl.SSLObject, sni: str | None) -> Self:
        """Read what was negotiated from `tls`; `sni` is what the client asked for."""
        cipher = tls.cipher()
        return cls(
            version=tls.version(),
            cipher=cipher and cipher[0],
            alpn=tls.selected_alpn_protocol(),
            sni=sni,
            der=tls.getpeercert(binary_form=True),
            **_facts(tls.getpeercert()),
        )


def _facts(certificate: dict[str, Any] | None) -> dict[str, Any]:
    if not certificate:
        return {}
    return {
        "subject": _flat(certificate.get("subject", ())),
        "issuer": _flat(certificate.get("issuer", ())),
        "alt_names": tuple(certificate.get("subjectAltName", ())),
        "serial": certificate["serialNumber"],
        "not_before": _moment(certificate["notBefore"]),
        "not_after": _moment(certificate["notAfter"]),
    }


def _flat(name: tuple[tuple[tuple[str, str], ...], ...]) -> tuple[tuple[str, str], ...]:
    return tuple(pair for relative in name for pair in relative)


def _moment(text: str) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(ssl.cert_time_to_seconds(text), datetime.UTC)
