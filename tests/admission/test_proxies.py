"""``admission.proxies``: who may send a PROXY header."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from everserve.admission import proxies
from everserve.admission.access import Networks
from everserve.admission.peer import Credentials
from everserve.admission.proxies import is_trusted_proxy

TRUSTED = Networks(["192.0.2.0/24"])
linux = pytest.mark.skipif(sys.platform != "linux", reason="abstract names are Linux's")


def accepted_on(name: Any) -> Any:
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
        listener.bind(name)
        listener.listen()
        client.connect(listener.getsockname())
        request, _ = listener.accept()
        return request


@pytest.mark.parametrize(
    ("address", "trusted"),
    [
        (("192.0.2.7", 1), True),
        (("198.51.100.1", 1), False),
        (("a.example", 1), False),
        ("", False),
    ],
)
def test_over_the_internet_by_network(address: Any, trusted: bool) -> None:
    with socket.socket() as request:
        assert is_trusted_proxy(request, address, TRUSTED) is trusted


def test_over_a_unix_path_by_its_permission_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proxies, "credentials_of", lambda sock: Credentials(1, 12345, 12345))
    with accepted_on(str(tmp_path / "s")) as request:
        assert is_trusted_proxy(request, "", TRUSTED)
        assert is_trusted_proxy((b"data", request), "", TRUSTED)


@linux
@pytest.mark.parametrize(
    ("uid", "trusted"), [(os.geteuid(), True), (0, True), (12345, False), (None, False)]
)
def test_over_an_abstract_name_by_user_id(
    uid: int | None, trusted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = None if uid is None else Credentials(1, uid, 1)
    monkeypatch.setattr(proxies, "credentials_of", lambda sock: found)
    with accepted_on("") as request:
        assert is_trusted_proxy(request, "", TRUSTED) is trusted


def test_what_is_no_socket_is_not_believed() -> None:
    assert not is_trusted_proxy(object(), "", TRUSTED)
