"""More connections than a limit admits, for each limit and each policy."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import Any

import pytest
from tests.clients import LIMIT
from tests.hostile.conftest import Besiege, Siege, Strategy

import everserve
from everserve.admission import control
from everserve.events import Accepted, DeadlineMissed, Opened, Refused, Shed
from everserve.sockets.tls import TLS

INSIDE = 3
FLOOD = 20


def fill(siege: Siege, count: int = INSIDE) -> None:
    """Open ``count`` connections, and get an answer on each."""
    for _ in range(count):
        siege.attack("hold", count=1, payload=b"hello\n")
        assert siege.attacker.listen(count=1, size=6) == [b"HELLO\n".hex()]


def wait_until_quiet(siege: Siege) -> None:
    """Wait until the kernel's clock, with ticks of 4 ms, separates the next bytes from the last."""
    pause = threading.Event()
    while any(connection.traffic().quiet < 0.02 for connection in siege.server.connections):
        pause.wait(0.005)


def empty(siege: Siege, ends: int) -> None:
    siege.attacker.release()
    siege.wait_ends(ends)


@pytest.mark.parametrize("policy", ["refuse", "reset"])
def test_above_max_connections(
    besiege: Besiege, concurrent: Strategy, scheme: str, policy: str
) -> None:
    siege = besiege(
        scheme=scheme, max_connections=INSIDE, overload=policy, overload_message=b"full\r\n"
    )
    fill(siege)
    replies = {siege.attack("exchange", payload=b"", end=False) for _ in range(FLOOD)}
    if policy == "refuse":
        assert replies == {b"full\r\n".hex()}
    else:
        assert replies == {""}
    assert siege.reasons() == {"max_connections": FLOOD}
    empty(siege, FLOOD + INSIDE)


def test_waiting_connections_are_admitted_later(
    besiege: Besiege, concurrent: Strategy, scheme: str
) -> None:
    siege = besiege(scheme=scheme, max_connections=INSIDE)
    fill(siege)
    siege.attack("hold", count=FLOOD, payload=b"hello\n")
    assert len(siege.server.connections) == len(siege.recorder.of(Accepted)) == INSIDE
    empty(siege, INSIDE + FLOOD)
    assert not siege.reasons()


def test_shed_idle(besiege: Besiege, concurrent: Strategy, scheme: str) -> None:
    """An idle connection is cut: not the first, which has sent bytes meanwhile."""
    if concurrent.name == "forks" and scheme == "unix":
        pytest.skip("neither the kernel nor the parent counts what moves there")
    siege = besiege(scheme=scheme, max_connections=INSIDE, overload="shed-idle")
    fill(siege)
    wait_until_quiet(siege)
    siege.attacker.send_again(payload=b"again\n")
    assert siege.attacker.listen(count=1, size=6) == [b"AGAIN\n".hex()]
    assert siege.serves()
    (shed,) = siege.recorder.of(Shed)
    assert shed.connection > 1  # which of the others depends on the threads
    empty(siege, INSIDE + 1)
    assert not siege.reasons()


def test_shed_idle_cannot_be_used_by_one_address_against_others(
    besiege: Besiege, concurrent: Strategy
) -> None:
    """The others make room for its first connection alone; for the next, its own do."""
    siege = besiege(max_connections=INSIDE, overload="shed-idle")
    address = siege.address
    good = [
        socket.create_connection(address, LIMIT, (f"127.0.0.{2 + n}", 0)) for n in range(INSIDE)
    ]
    for client in good:
        client.sendall(b"good\n")
        assert client.recv(5) == b"GOOD\n"
    bad = []
    for number in range(FLOOD):
        bad.append(socket.create_connection(address, LIMIT, ("127.0.0.66", 0)))
        bad[-1].sendall(b"bad\n")
        assert bad[-1].recv(4) == b"BAD\n"
        siege.recorder.wait_for(Shed, number + 1)
    victims = {event.peer[0] for event in siege.recorder.of(Shed)[1:]}
    assert victims == {"127.0.0.66"}
    for client in (*good, *bad):
        with suppress(OSError):
            client.shutdown(socket.SHUT_RDWR)  # a forked child may have a copy
        client.close()
    siege.wait_ends(INSIDE + FLOOD)


@pytest.mark.parametrize("policy", ["reset", "shed-idle", "wait"])
def test_half_open_handshakes_shut_no_one_out(
    besiege: Besiege,
    concurrent: Strategy,
    tls: TLS,
    policy: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(control, "LONGEST_AWAITED", 0.0)  # where others wait
    siege = besiege(tls=tls, max_handshakes=INSIDE, overload=policy, handshake_timeout=600)
    siege.attack("hold", count=INSIDE + FLOOD)
    assert siege.serves()
    assert siege.server._everserve.control.handshakes <= INSIDE
    empty(siege, INSIDE + FLOOD + 1)
    assert set(siege.reasons()) <= {"max_handshakes", "handshake"}


def test_a_custom_policy(besiege: Besiege, concurrent: Strategy) -> None:
    asked = []

    def decide(server: Any, request: Any, client_address: Any, reason: str) -> bool:
        asked.append((client_address[0], reason))
        return len(asked) > 2

    siege = besiege(max_connections=1, overload=decide)
    fill(siege, 1)
    for _ in range(2):
        assert siege.attack("exchange", payload=b"hello\n") == ""
    assert siege.serves()
    assert asked == [("127.0.0.1", "max_connections")] * 3
    assert siege.reasons() == {"max_connections": 2}
    empty(siege, 4)


def test_above_max_connections_per_peer(
    besiege: Besiege, concurrent: Strategy, scheme: str
) -> None:
    siege = besiege(scheme=scheme, max_connections_per_peer=INSIDE)
    fill(siege)
    if scheme == "unix":  # has no distinct peers
        fill(siege, 2 * INSIDE)
        empty(siege, 3 * INSIDE)
        return
    siege.attack("scan", count=FLOOD, how="end")
    siege.recorder.wait_for(Refused, FLOOD)
    assert siege.reasons() == {"max_connections_per_peer": FLOOD}
    empty(siege, INSIDE + FLOOD)
    assert len(siege.server._everserve.control.peers) == 0


def test_above_accept_rate(besiege: Besiege, strategy: Strategy, scheme: str) -> None:
    siege = besiege(scheme=scheme, accept_rate=0.001, accept_burst=2, overload="refuse")
    siege.attack("scan", count=FLOOD, how="end")
    siege.recorder.wait_for(Refused, FLOOD - 2)
    assert siege.reasons() == {"accept_rate": FLOOD - 2}
    siege.wait_ends(FLOOD)
    siege.server.accept_rate = None


def test_accept_rate_delays(besiege: Besiege, strategy: Strategy) -> None:
    siege = besiege(accept_rate=0.001, accept_burst=2)
    siege.attack("hold", count=4, end=True)
    siege.wait_ends(2)
    assert len(siege.recorder.of(Accepted)) == 2
    siege.server.accept_rate = None
    siege.server._everserve.life.wake()  # else it checks again at the time of the next admission
    siege.wait_ends(4)
    assert not siege.reasons()


@pytest.mark.parametrize("policy", ["refuse", "wait"])
def test_above_max_handshakes(
    besiege: Besiege,
    concurrent: Strategy,
    tls: TLS,
    policy: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(control, "LONGEST_AWAITED", LIMIT)
    siege = besiege(tls=tls, max_handshakes=INSIDE, overload=policy, handshake_timeout=600)
    siege.attack("hold", count=INSIDE + FLOOD)
    if policy == "refuse":
        siege.recorder.wait_for(Refused, FLOOD)
        assert siege.reasons() == {"max_handshakes": FLOOD}
    else:
        siege.wait_accepted(INSIDE)
    assert siege.server._everserve.life.notifier.wait_until(
        lambda: len(siege.server.connections) == INSIDE
    )
    assert siege.server._everserve.control.handshakes == INSIDE
    empty(siege, INSIDE + FLOOD)
    assert len(siege.recorder.of(Accepted)) == INSIDE + FLOOD


def test_a_handshake_that_is_over_makes_room(
    besiege: Besiege, concurrent: Strategy, tls: TLS
) -> None:
    """The limit counts the handshakes, not the connections."""
    siege = besiege(tls=tls, max_handshakes=1)
    siege.attacker.hold_secure(siege.address, count=INSIDE, payload=b"hello\n", tls=siege.tls)
    siege.recorder.wait_for(Accepted, INSIDE)
    assert siege.attacker.listen(count=INSIDE, size=6) == [b"HELLO\n".hex()] * INSIDE
    empty(siege, INSIDE)
    assert not siege.reasons()


def test_access_changed_on_a_running_server(besiege: Besiege, strategy: Strategy) -> None:
    siege = besiege(access=everserve.AccessRules(deny=["127.0.0.0/8"]))
    siege.attack("scan", count=FLOOD, how="end", payload=b"hello\n")
    siege.recorder.wait_for(Refused, FLOOD)
    assert siege.reasons() == {"access": FLOOD}
    assert not siege.recorder.of(Opened)
    siege.server.access = everserve.AccessRules(allow=["127.0.0.1"])
    assert siege.serves()
    siege.server.access = everserve.AccessRules(allow=["10.0.0.0/8"])
    assert "error" in siege.ask() or siege.ask() == {"answer": ""}
    siege.recorder.wait_for(Refused, FLOOD + 1)
    siege.server.access = None


def test_verify_request_still_works(besiege: Besiege, strategy: Strategy) -> None:
    siege = besiege(access=everserve.AccessRules(allow=["127.0.0.0/8"]))
    siege.server.verify_request = lambda *_: False
    siege.attack("scan", count=FLOOD, how="end")
    siege.recorder.wait_for(Refused, FLOOD)
    assert siege.reasons() == {"verify_request": FLOOD}
    assert not siege.recorder.of(DeadlineMissed)
    del siege.server.verify_request
