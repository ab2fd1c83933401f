"""``admission.renewal``: renewed certificates are found; broken ones are logged once."""

from __future__ import annotations

import logging

import pytest

from everserve.admission.renewal import CertificateWatch
from everserve.errors import TLSConfigError


class Files:
    """Certificates that a test changes."""

    def __init__(self) -> None:
        self.new = False
        self.broken = False
        self.loads = 0

    def changed(self) -> bool:
        return self.new

    def reload(self) -> None:
        self.loads += 1
        self.new = False
        if self.broken:
            raise TLSConfigError("server.pem: no certificate in it")


@pytest.fixture
def files() -> Files:
    return Files()


def test_nothing_new(files: Files) -> None:
    assert CertificateWatch(files, 5.0).due(100.0) == 105.0
    assert files.loads == 0


def test_a_renewed_certificate(files: Files, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "everserve")
    watch = CertificateWatch(files, 5.0)
    files.new = True
    assert watch.due(100.0) == 105.0
    assert watch.due(105.0) == 110.0
    assert files.loads == 1
    assert caplog.messages == ["certificates renewed"]


def test_a_broken_one_is_logged_once(files: Files, caplog: pytest.LogCaptureFixture) -> None:
    watch = CertificateWatch(files, 5.0)
    files.new = files.broken = True
    assert watch.due(100.0) == 105.0
    assert watch.due(105.0) == 110.0
    assert caplog.messages == [
        "renewed certificates are not usable, the old ones stay: server.pem: no certificate in it"
    ]
