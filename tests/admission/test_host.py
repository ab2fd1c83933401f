"""``admission.host``: the operations of a server of everserve for its handlers."""

from __future__ import annotations

import socketserver
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest

import everserve
from everserve.admission.host import Host, host_of_server


def test_each_server_has_one() -> None:
    with everserve.TCPServer(("127.0.0.1", 0), everserve.BaseRequestHandler) as server:
        host = host_of_server(server)
        assert isinstance(host, Host)
        assert host_of_server(server) is host
        assert host.is_draining() is False
        assert host.connection_of("request") is None


def test_a_server_of_the_standard_library_under_a_mix_in_has_one() -> None:
    kind = type("Server", (everserve.ThreadingMixIn, socketserver.TCPServer), {})
    with kind(("127.0.0.1", 0), everserve.BaseRequestHandler) as server:
        assert host_of_server(server) is not None


@pytest.mark.parametrize(
    "server",
    [None, "server", object(), SimpleNamespace(_everserve=1), mock.Mock(), mock.MagicMock()],
)
def test_others_have_none(server: Any) -> None:
    assert host_of_server(server) is None


def test_its_base_does_nothing() -> None:
    host = Host()
    for ask in (
        lambda: host.connection_of(None),
        host.is_draining,
        host.coalesces_writes,
        host.max_line,
        lambda: host.start_tls(None, None, None),
    ):
        with pytest.raises(NotImplementedError):
            ask()
