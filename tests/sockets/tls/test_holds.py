"""How long a peer can make TLS hold a thread, counted in uses of OpenSSL, by each engine."""

from __future__ import annotations

import ssl
from itertools import pairwise
from typing import Any

import pytest
from tests.certificates import Certificates
from tests.clients import LIMIT, Background
from tests.sockets.tls.peers import MemorySocket, connection
from tests.sockets.tls.test_records import ALL, Peer, handshake

from everserve.fibers.sync import Event
from everserve.sockets.tls import TLS
from everserve.sockets.tls.records import _DATALESS_EFFORT, DATALESS, HOLD

MANY = 1000
LEAST = HOLD // _DATALESS_EFFORT
"""Records without data that one call takes."""


class Counted:
    """A context whose connections count their uses of OpenSSL, each of which is one record."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        self.uses = 0

    def wrap_bio(self, *arguments: Any) -> Any:
        tls: Any = self._context.wrap_bio(*arguments)
        tls._sslobj = _CountedObject(tls._sslobj, self)
        return tls


class _CountedObject:
    def __init__(self, sslobj: Any, counted: Counted) -> None:
        self._sslobj, self._counted = sslobj, counted

    def read(self, *arguments: Any) -> Any:
        self._counted.uses += 1
        return self._sslobj.read(*arguments)

    def do_handshake(self) -> Any:
        self._counted.uses += 1
        return self._sslobj.do_handshake()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sslobj, name)


def sends_tickets(certificates: Certificates, count: int) -> ssl.SSLContext:
    """A server's context that sends as many records without data after the handshake."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificates.server)
    context.num_tickets = count
    return context


@pytest.fixture
def counted(certificates: Certificates) -> Counted:
    return Counted(certificates.client_context())


def receiver_of_tickets(
    parts: Any, counted: Counted, certificates: Certificates, count: int
) -> tuple[Any, Peer, bytes]:
    """Records whose peer has that many records without data to send, which come with these bytes."""
    ours = parts.Records(counted, False, "localhost", None)
    peer = Peer(sends_tickets(certificates, count), True)
    tickets = b""
    done = False
    ours.do_handshake()
    while not done:
        peer.feed(ours.take_output())
        done = peer.do_handshake()
        if done:
            tickets = peer.take_output()
        else:
            ours.feed(peer.take_output())
            ours.do_handshake()
    counted.uses = 0
    return ours, peer, tickets


def read_through(ours: Any, counted: Counted, ciphertext: bytes) -> tuple[bytes | None, int]:
    """What is read in the end, and the most uses of OpenSSL in one call."""
    found, most = ours.read(ciphertext, ALL), counted.uses
    while ours.paused and found is None:
        before = counted.uses
        found = ours.read(b"", ALL)
        most = max(most, counted.uses - before)
    return found, most


def test_records_without_data_are_taken_a_few_at_a_time(
    parts: Any, counted: Counted, certificates: Certificates
) -> None:
    ours, peer, tickets = receiver_of_tickets(parts, counted, certificates, DATALESS)
    found, most = read_through(ours, counted, tickets)
    assert found is None
    assert most == LEAST
    assert ours.read(peer.encrypt(b"data"), ALL) == b"data"  # as many are allowed


def test_too_many_records_without_data_end_the_connection(
    parts: Any, counted: Counted, certificates: Certificates
) -> None:
    ours, _peer, tickets = receiver_of_tickets(parts, counted, certificates, DATALESS + 1)
    with pytest.raises(ssl.SSLError, match="without data"):
        read_through(ours, counted, tickets)
    assert ours.broken


def test_data_begins_a_new_row(parts: Any, counted: Counted, certificates: Certificates) -> None:
    ours, peer, tickets = receiver_of_tickets(parts, counted, certificates, DATALESS)
    for _ in range(3):
        assert read_through(ours, counted, tickets + peer.encrypt(b"data"))[0] == b"data"
        tickets = b""


@pytest.mark.parametrize("size", [1, ALL])
def test_small_records_are_taken_some_at_a_time(
    parts: Any, tls: TLS, certificates: Certificates, size: int
) -> None:
    counted = Counted(tls.context)
    ours, peer = (
        parts.Records(counted, True, None, None),
        Peer(certificates.client_context(), False),
    )
    handshake(peer, ours)
    counted.uses = 0
    found, most = ours.read(peer.encrypt(*[b"x"] * MANY), size), counted.uses
    while len(found) < MANY:
        before = counted.uses
        found += ours.read(b"", size)
        most = max(most, counted.uses - before)
    assert found == b"x" * MANY
    assert most <= HOLD


def test_not_all_is_decrypted_for_close_notify(
    parts: Any, tls: TLS, certificates: Certificates
) -> None:
    counted = Counted(tls.context)
    ours, peer = (
        parts.Records(counted, True, None, None),
        Peer(certificates.client_context(), False),
    )
    handshake(peer, ours)
    counted.uses = 0
    ours.feed(peer.encrypt(*[b"x"] * MANY))
    ours.write_close_notify()
    assert counted.uses <= HOLD + 1
    assert ours.close_notify_sent
    found = b""
    while len(found) < MANY:
        found += ours.read(b"", ALL)
    assert found == b"x" * MANY


def test_a_handshake_in_many_records(parts: Any, tls: TLS, certificates: Certificates) -> None:
    """What a client may send in the middle of a handshake is taken a few records at a time too."""
    counted = Counted(tls.context)
    ours, peer = (
        parts.Records(counted, True, None, None),
        Peer(certificates.client_context(), False),
    )
    peer.do_handshake()
    hello = peer.take_output()[5:]
    for byte in hello:
        ours.feed(b"\x16\x03\x01\x00\x01" + bytes([byte]))
    assert not ours.do_handshake()
    most = counted.uses
    assert ours.paused
    while ours.paused:
        before = counted.uses
        ours.do_handshake()
        most = max(most, counted.uses - before)
    assert most == LEAST
    assert ours.has_output  # the server's flight


@pytest.fixture(params=["recv", "pending", "close_notify"])
def use(request: pytest.FixtureRequest) -> str:
    """What a fiber does while its peer sends small records."""
    return str(request.param)


def test_the_other_fibers_run_meanwhile(
    parts: Any, tls: TLS, certificates: Certificates, use: str
) -> None:
    """A fiber that is fed small records gives way after each piece of work."""
    counted = Counted(tls.context)
    plain, raw = connection()
    server = parts.FiberTLSSocket(
        parts.FiberSocket.adopt(plain),
        counted,
        write_lock=parts.Semaphore(1),
        records=parts.Records,
    )
    client = MemorySocket(certificates.client_context())
    hub = parts.Hub()
    fed = Event()
    turns: list[int] = []

    def feed() -> None:
        client.advance_handshake()
        raw.sendall(client.recv(0))
        while not client._client.version() or client._pieces:
            client.send(raw.recv(65_536))
            raw.sendall(client.recv(0))
        raw.sendall(client.encrypt([b"x"] * MANY, end=True))
        fed.set()

    def work() -> None:
        server.do_handshake()
        fed.wait()
        turns.append(counted.uses)
        if use == "close_notify":
            server.close_notify(LIMIT, wait=True)
        while use != "close_notify" and server.recv(65_536):
            if use == "pending":
                server.pending()

    def watch(worker: Any) -> None:
        fed.wait()
        while not worker.dead:
            turns.append(counted.uses)
            hub.yield_turn()
        turns.append(counted.uses)

    feeding = Background(feed)
    worker = hub.spawn(work)
    watcher = hub.spawn(watch, worker)
    hub.await_end(watcher, LIMIT)
    hub.close()
    feeding.result()
    server.close()
    raw.close()
    assert counted.uses > MANY
    assert max(b - a for a, b in pairwise(turns)) <= 64 * HOLD
