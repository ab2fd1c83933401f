"""Clients that occupy a connection: slow senders, and peers that do not read."""

from __future__ import annotations

import pytest
from tests.hostile.conftest import Besiege, Strategy

from everserve.admission import deadlines
from everserve.events import DeadlineMissed
from everserve.sockets.tls import TLS

DRIPS = 3
WORDS = b"x" * 20_000


def crowd_of(strategy: Strategy) -> int:
    return DRIPS if strategy.is_concurrent else 1


@pytest.mark.parametrize("limit", [{"request_timeout": 0.15}, {"min_receive_rate": 1_000_000}])
def test_a_client_that_drips_is_cut(
    besiege: Besiege,
    strategy: Strategy,
    scheme: str,
    limit: dict[str, float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(deadlines, "FIRST_GRACE", 0.15)
    siege = besiege(scheme=scheme, **limit)
    count = crowd_of(strategy)
    sent = siege.attack("drip", count=count, payload=WORDS)
    assert all(0 < each < len(WORDS) for each in sent)
    missed = siege.recorder.wait_for(DeadlineMissed, count)
    assert {event.deadline for event in missed} == set(limit)
    siege.wait_ends(count)


def test_a_client_that_drips_under_tls(besiege: Besiege, concurrent: Strategy, tls: TLS) -> None:
    siege = besiege(tls=tls, handshake_timeout=0.2)
    hello = siege.attacker.hello(ca=siege.tls["ca"])
    sent = siege.attack("drip", count=DRIPS, payload=bytes.fromhex(hello)[:-1])
    assert all(sent)
    assert {e.deadline for e in siege.recorder.wait_for(DeadlineMissed, DRIPS)} == {
        "handshake_timeout"
    }
    siege.wait_ends(DRIPS)
    assert siege.reasons() == {"handshake_timeout": DRIPS}


def test_a_client_that_falls_silent(besiege: Besiege, strategy: Strategy, scheme: str) -> None:
    siege = besiege(scheme=scheme, idle_timeout=0.5)
    count = crowd_of(strategy)
    siege.attack("hold", count=count, payload=b"hello\n")
    assert {e.deadline for e in siege.recorder.wait_for(DeadlineMissed, count)} == {"idle_timeout"}
    assert siege.attacker.receive(count=count) == [b"HELLO\n".hex()] * count


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
def test_a_client_that_never_reads(
    besiege: Besiege, concurrent: Strategy, tls: TLS, scheme: str, secure: bool
) -> None:
    siege = besiege(scheme=scheme, write_timeout=0.2, tls=tls if secure else None)
    how = "hold_secure" if secure else "hold"
    more = {"tls": siege.tls} if secure else {}
    siege.attack(how, count=DRIPS, payload=b"flood\n", **more)
    missed = siege.recorder.wait_for(DeadlineMissed, DRIPS)
    assert {event.deadline for event in missed} == {"write_timeout"}
    assert siege.serves()
    siege.wait_ends(DRIPS + 1)


def test_a_slow_reader_is_not_cut(besiege: Besiege, strategy: Strategy, scheme: str) -> None:
    """As long as the peer reads something, ``write_timeout`` is kept."""
    siege = besiege(scheme=scheme, write_timeout=1.0)
    siege.attack("hold", count=1, payload=b"flood\n", end=True)
    assert siege.attacker.sip(pause=0.002) == 16 << 20
    assert not siege.recorder.of(DeadlineMissed)
