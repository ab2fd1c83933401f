"""When the certificates of a PEM file are valid: `TLS` warns of one that is not, at each load.

`ssl` gives that of a peer's certificate only, so the times are read from DER (RFC 5280, 4.1).
"""

import re
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime

__all__ = ["validity_fault"]

_PEM = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_VERSION = 0xA0
_FORMATS = {0x17: "%y%m%d%H%M%SZ", 0x18: "%Y%m%d%H%M%SZ"}
"""Of the tags UTCTime and GeneralizedTime."""


def validity_fault(path: str, now: datetime | None = None) -> str | None:
    """One line if a certificate in the file has expired, or is not valid yet.

    `None` too for a file that cannot be read: `ssl` reports that better.
    """
    now = datetime.now(UTC) if now is None else now
    try:
        with open(path, encoding="latin-1") as file:
            times = [_validity(ssl.PEM_cert_to_DER_cert(pem)) for pem in _PEM.findall(file.read())]
    except (OSError, ValueError, IndexError, KeyError):
        return None
    for begin, end in times:
        if end < now:
            return f"{path}: the certificate expired on {end:%Y-%m-%d}: peers refuse it, renew it"
        if begin > now:
            return (
                f"{path}: the certificate is valid from {begin:%Y-%m-%d %H:%M} UTC: check the clock"
            )
    return None


def _validity(der: bytes) -> tuple[datetime, datetime]:
    _, start, _ = _element(der, 0)
    _, start, end = _element(der, start)
    fields = [field for field in _elements(der, start, end) if field[0] != _VERSION]
    _, start, end = fields[3]  # after the serial number, the algorithm and the issuer
    begin, until = (_time(der, *element) for element in _elements(der, start, end))
    return begin, until


def _elements(der: bytes, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    while start < end:
        tag, content, start = _element(der, start)
        yield tag, content, start


def _element(der: bytes, at: int) -> tuple[int, int, int]:
    """The tag of an element, and where its content begins and ends."""
    tag, length, at = der[at], der[at + 1], at + 2
    if length & 0x80:
        size = length & 0x7F
        length, at = int.from_bytes(der[at : at + size], "big"), at + size
    return tag, at, at + length


def _time(der: bytes, tag: int, start: int, end: int) -> datetime:
    time = datetime.strptime(der[start:end].decode("ascii"), _FORMATS[tag]).replace(tzinfo=UTC)
    if tag == 0x17 and time.year >= 2050:  # strptime takes 50 to 68 for this century
        time = time.replace(year=time.year - 100)
    return time
