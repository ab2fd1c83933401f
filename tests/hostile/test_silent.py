"""Clients that connect and send nothing, too little, or only the end of the connection."""

from __future__ import annotations

from typing import Any

import pytest
from tests.hostile.conftest import Besiege, Strategy

from everserve.events import Failed, Finished, Refused
from everserve.sockets.tls import TLS


def test_silent_tls_clients_delay_no_other_connection(
    besiege: Besiege, concurrent: Strategy, tls: TLS, scheme: str
) -> None:
    siege = besiege(tls=tls, scheme=scheme, handshake_timeout=600)
    siege.attack("hold", count=concurrent.crowd)
    assert siege.serves()
    assert len(siege.server.connections) >= concurrent.crowd


def test_a_stop_does_not_wait_for_silent_clients(
    besiege: Besiege, concurrent: Strategy, tls: TLS
) -> None:
    siege = besiege(tls=tls, handshake_timeout=600)
    siege.attack("hold", count=concurrent.crowd)
    siege.wait_accepted(concurrent.crowd)
    report = siege.server.stop(0)
    assert len(report.cut) == concurrent.crowd
    assert report.unfinished == ()
    assert siege.adds_up()


@pytest.mark.parametrize("payload", ["half a hello", "no TLS at all"])
def test_a_handshake_has_a_time_limit(
    besiege: Besiege, strategy: Strategy, tls: TLS, scheme: str, payload: str, certificates: Any
) -> None:
    limit = 0.1 if payload == "half a hello" else 30.0
    siege = besiege(tls=tls, scheme=scheme, handshake_timeout=limit)
    hello = bytes.fromhex(siege.attacker.hello(ca=certificates.authority))
    payloads = {"half a hello": hello[:100], "no TLS at all": b"GET / HTTP/1.1\r\n\r\n"}
    count = strategy.crowd if strategy.is_concurrent else 1
    siege.attack("hold", count=count, payload=payloads[payload])
    siege.recorder.wait_for(Refused, count)
    reason = "handshake" if payload == "no TLS at all" else "handshake_timeout"
    assert siege.reasons() == {reason: count}
    siege.attacker.receive(count=count)


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
def test_a_scan_of_ports(
    besiege: Besiege, strategy: Strategy, tls: TLS, scheme: str, secure: bool
) -> None:
    siege = besiege(tls=tls if secure else None, scheme=scheme)
    each = strategy.crowd // 3
    for how in ("close", "reset", "end"):
        assert siege.attack("scan", count=each, how=how) == each
    siege.wait_ends(3 * each)
    assert siege.reasons() == ({"handshake": 3 * each} if secure else {})


def test_clients_that_half_close_at_once(besiege: Besiege, strategy: Strategy, scheme: str) -> None:
    siege = besiege(scheme=scheme)
    siege.attack("hold", count=strategy.crowd, end=True)
    assert siege.attacker.receive(count=strategy.crowd) == [""] * strategy.crowd
    siege.wait_ends(strategy.crowd)
    assert len(siege.recorder.of(Finished)) == strategy.crowd, siege.recorder.of(Failed)[:3]
