"""Certificates that have expired, or are not valid yet, are told when they are loaded."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.certificates import Certificates

from everserve.sockets.tls import TLS
from everserve.sockets.tls.validity import _time, validity_fault

DAYS = timedelta(days=1)


def test_a_valid_certificate_and_an_expired_one(certificates: Certificates) -> None:
    now = datetime.now(UTC)
    path = str(certificates.server.cert)
    assert validity_fault(path) is None
    assert validity_fault(path, now + 2 * DAYS) == (
        f"{path}: the certificate expired on {now + DAYS:%Y-%m-%d}: peers refuse it, renew it"
    )
    fault = validity_fault(path, now - 30000 * DAYS)
    assert fault is not None
    assert fault.endswith("UTC: check the clock")


def test_a_file_that_cannot_be_read(certificates: Certificates, tmp_path: Path) -> None:
    broken = tmp_path / "broken.pem"
    assert validity_fault(str(broken)) is None
    pem = certificates.server.cert.read_text()
    for text in ("", "nonsense", pem.replace("MII", "AAA"), pem[:300] + pem[600:]):
        broken.write_text(text)
        validity_fault(str(broken), datetime(9999, 1, 1, tzinfo=UTC))
    assert validity_fault(str(tmp_path)) is None


@pytest.mark.parametrize(
    ("tag", "text", "year"),
    [
        (0x17, "491231235959Z", 2049),
        (0x17, "500101000000Z", 1950),
        (0x17, "681231235959Z", 1968),
        (0x17, "991231235959Z", 1999),
        (0x18, "20500101000000Z", 2050),
    ],
)
def test_the_years_of_a_time(tag: int, text: str, year: int) -> None:
    """RFC 5280, 4.1.2.5.1."""
    assert _time(text.encode(), tag, 0, len(text)).year == year


def test_an_expired_certificate_is_logged_at_each_load(
    certificates: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    cert, key = certificates.expired
    tls = TLS(cert, key, sni={"one.example.org": tuple(certificates.expired)})
    tls.reload()
    TLS(*certificates.server)
    records = [(record.levelno, record.getMessage()) for record in caplog.records]
    fault = validity_fault(str(cert))
    assert records == [(logging.WARNING, fault)] * 2
