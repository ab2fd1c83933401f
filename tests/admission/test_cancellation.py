"""``admission.cancellation``: whether a handler should go on."""

from __future__ import annotations

import select
import socket
from collections.abc import Iterator
from time import monotonic
from types import SimpleNamespace
from typing import Any

import pytest
from tests.clients import reset

from everserve.admission.cancellation import CancelReason, reason_to_stop
from everserve.sockets import tcpinfo

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def ends() -> Iterator[Pair]:
    """A TCP connection: the server's end, the client's end."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
    with client, server:
        yield server, client


def wait_for_end(server: socket.socket) -> None:
    server.settimeout(20)
    try:
        server.recv(1)
    except ConnectionResetError:
        pass


def test_go_on(ends: Pair) -> None:
    assert reason_to_stop(False, None, ends[0]) is None
    assert reason_to_stop(False, None, (b"data", ends[0])) is None


def test_the_server_drains(ends: Pair) -> None:
    reason = reason_to_stop(True, None, ends[0])
    assert reason is CancelReason.DRAINING
    assert reason
    assert str(reason.value) == "the server stops"


@pytest.mark.parametrize(
    ("connection", "reason"),
    [
        ({"missed": "idle_timeout", "deadlines": None}, CancelReason.DEADLINE),
        ({"missed": None, "deadlines": None}, None),
        ({"missed": None, "deadlines": SimpleNamespace(ends=None)}, None),
        (
            {"missed": None, "deadlines": SimpleNamespace(ends=monotonic() - 1)},
            CancelReason.DEADLINE,
        ),
        ({"missed": None, "deadlines": SimpleNamespace(ends=monotonic() + 3600)}, None),
    ],
)
def test_a_deadline(ends: Pair, connection: dict[str, Any], reason: CancelReason | None) -> None:
    assert reason_to_stop(False, SimpleNamespace(**connection), ends[0]) is reason


def test_the_peer_has_reset(ends: Pair) -> None:
    server, client = ends
    reset(client)
    wait_for_end(server)
    assert reason_to_stop(False, None, server) is CancelReason.PEER_GONE


def test_the_peer_has_ended_its_half_and_still_reads(ends: Pair) -> None:
    server, client = ends
    client.shutdown(socket.SHUT_WR)
    wait_for_end(server)
    assert reason_to_stop(False, None, server) is None


def test_the_connection_was_cut(ends: Pair) -> None:
    server, _ = ends
    server.shutdown(socket.SHUT_RDWR)
    assert reason_to_stop(False, None, server) is CancelReason.PEER_GONE


def test_the_connection_is_closed(ends: Pair) -> None:
    server, _ = ends
    server.close()
    assert reason_to_stop(False, None, server) is CancelReason.PEER_GONE


def test_the_first_reason_counts(ends: Pair) -> None:
    server, _ = ends
    server.close()
    late = SimpleNamespace(missed="idle_timeout", deadlines=None)
    assert reason_to_stop(True, late, server) is CancelReason.DRAINING
    assert reason_to_stop(False, late, server) is CancelReason.DEADLINE


def test_without_poll_there_is_no_reason(ends: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    server, client = ends
    reset(client)
    wait_for_end(server)
    monkeypatch.delattr(select, "poll")
    monkeypatch.setattr(tcpinfo, "_TCP_INFO", None)
    assert reason_to_stop(False, None, server) is None
