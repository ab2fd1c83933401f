"""``sockets.tls.closing``: how a connection ends, from either side, and what that may cost."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import threading
from collections.abc import Iterator
from time import monotonic
from typing import Any

import pytest
from tests.certificates import Certificates
from tests.clients import LIMIT, Background, read_all
from tests.sockets.tls.peers import KINDS, Pair, fill, peers, plain_peers, receive

from everserve.sockets.tls import TLS
from everserve.sockets.tls.closing import await_close_notify, end_tls, send_close_notify
from everserve.sockets.tls.handshake import do_handshake
from everserve.sockets.tls.wire import Wire

MEBIBYTE = 1 << 20


# --- the functions, of a wire alone ------------------------------------------------------------


@pytest.fixture
def wire(parts: Any, tls: TLS, context: ssl.SSLContext) -> Iterator[tuple[Wire, ssl.SSLSocket]]:
    """A server's wire after the handshake, and the client."""
    with plain_peers() as (plain, raw):
        wire = Wire(plain, parts.Records(tls.context, True, None, None))
        handshake = Background(context.wrap_socket, raw, server_hostname="localhost")
        do_handshake(wire, None)
        with handshake.result() as client:
            client.suppress_ragged_eofs = False
            yield wire, client


Ends = tuple[Wire, ssl.SSLSocket]


def test_close_notify_is_sent_once(wire: Ends) -> None:
    ours, client = wire
    send_close_notify(ours)
    assert ours.records.close_notify_sent
    send_close_notify(ours, last=True)
    ours.inner.shutdown(socket.SHUT_WR)
    assert client.recv(1) == b""


@pytest.mark.parametrize("timeout", [0.0, 0.01])
def test_close_notify_waits_for_the_lock_within_its_limit(wire: Ends, timeout: float) -> None:
    ours, _client = wire
    with ours.lock:
        send_close_notify(ours, timeout)
    assert not ours.records.close_notify_sent


@pytest.mark.parametrize("timeout", [0.0, 0.01])
def test_close_notify_waits_for_room_within_its_limit(wire: Ends, timeout: float) -> None:
    ours, _client = wire
    fill(ours.inner)
    ours.inner.settimeout(LIMIT)
    send_close_notify(ours, timeout)
    assert ours.records.close_notify_sent
    assert ours.unsent
    assert ours.inner.gettimeout() == LIMIT


def test_data_before_the_peers_close_notify_is_dropped(wire: Ends) -> None:
    ours, client = wire
    send_close_notify(ours)
    client.sendall(bytes(100_000))
    ending = Background(client.unwrap)
    await_close_notify(ours, monotonic() + LIMIT)
    ending.result()
    assert ours.records.close_notify_received
    assert not ours.truncated
    assert ours.inner.gettimeout() == LIMIT


def test_the_peers_close_notify_is_awaited_within_a_limit(wire: Ends) -> None:
    ours, client = wire
    await_close_notify(ours, monotonic() + 0.01)
    assert not ours.records.close_notify_received
    client.shutdown(socket.SHUT_RDWR)
    for _ in range(2):
        await_close_notify(ours, monotonic() + LIMIT)
        assert ours.truncated


def test_the_end_of_tls_needs_both_sides(wire: Ends) -> None:
    ours, client = wire
    ending = Background(client.unwrap)
    end_tls(ours)
    assert ours.records.close_notify_received
    ending.result()


def test_the_end_of_tls_fails_when_the_stream_was_truncated(wire: Ends) -> None:
    ours, client = wire
    client.shutdown(socket.SHUT_RDWR)
    assert ours.receive() == b""
    with pytest.raises(ssl.SSLEOFError):
        end_tls(ours)


# --- the socket ----------------------------------------------------------------------------------


def test_the_peer_sends_close_notify(pair: Pair) -> None:
    server, client = pair
    ending = Background(client.unwrap)
    assert server.recv(10) == b""
    assert server.recv_into(bytearray(10)) == 0
    assert not server.truncated
    server.close_notify()
    ending.result()
    assert server.recv(10) == b""


def test_a_half_close_leaves_the_other_half(pair: Pair) -> None:
    server, client = pair
    server.sendall(b"that was all")
    server.shutdown(socket.SHUT_WR)
    assert read_all(client) == b"that was all"
    with pytest.raises(BrokenPipeError):
        server.sendall(b"more")
    with pytest.raises(BrokenPipeError):
        server.send(b"more")
    data = os.urandom(100_000)
    writing = Background(client.sendall, data)
    assert receive(server, len(data)) == data
    writing.result()
    client.unwrap()
    assert server.recv(1) == b""
    assert not server.truncated
    assert server.recv(1) == b""


def test_a_half_close_keeps_what_has_come(pair: Pair) -> None:
    """What was received, but not yet read, when the half is closed."""
    server, client = pair
    for _ in range(3):
        client.sendall(b"0123456789")
    assert receive(server, 1) == b"0"
    server.shutdown(socket.SHUT_WR)
    buffer = bytearray(2)
    assert server.recv_into(buffer) == 2
    assert buffer == b"12"
    assert receive(server, 27) == b"3456789" + b"0123456789" * 2
    client.unwrap()
    assert server.recv(1) == b""


def test_close_sends_close_notify(pair: Pair) -> None:
    server, client = pair
    client.suppress_ragged_eofs = False
    server.sendall(b"bye")
    with server:
        pass
    assert read_all(client) == b"bye"
    assert server.inner.fileno() == -1
    for use in (lambda: server.recv(1), lambda: server.send(b"x"), lambda: server.sendall(b"x")):
        with pytest.raises(OSError, match="Bad file descriptor"):
            use()
    server.close()


def test_truncation_is_seen_whatever_the_contexts_say(
    certificates: Certificates, context: ssl.SSLContext
) -> None:
    """Debian's Python 3.11.2 sets the option in every context."""
    own = TLS(*certificates.server)
    for one in (own.context, context):
        one.options |= ssl.OP_IGNORE_UNEXPECTED_EOF
    for kind in sorted(KINDS):
        with peers(own, context, kind=kind) as (server, client):
            server.suppress_ragged_eofs = False
            client.shutdown(socket.SHUT_RDWR)
            with pytest.raises(ssl.SSLEOFError):
                server.recv(1)
            assert server.truncated


def test_closing_the_inner_is_enough(pair: Pair) -> None:
    server, client = pair
    client.suppress_ragged_eofs = False
    server.inner.close()
    with pytest.raises(ssl.SSLError, match="EOF"):
        client.recv(1)
    with pytest.raises(OSError, match="Bad file descriptor"):
        server.recv(1)
    assert not server.close_notify(LIMIT)
    server.close()


@pytest.mark.parametrize("suppress", [True, False])
def test_a_truncated_stream_is_reported(tls: TLS, context: ssl.SSLContext, suppress: bool) -> None:
    with peers(tls, context, suppress_ragged_eofs=suppress) as (server, client):
        client.sendall(b"half a mess")
        client.shutdown(socket.SHUT_RDWR)  # of the plain socket below: no close_notify
        assert receive(server, 11) == b"half a mess"
        assert not server.truncated
        for _ in range(2):
            if suppress:
                assert server.recv(10) == b""
                assert server.recv_into(bytearray(10)) == 0
            else:
                with pytest.raises(ssl.SSLEOFError):
                    server.recv(10)
            assert server.truncated
        assert not server.close_notify(LIMIT, wait=True)


def test_a_record_cut_in_the_middle_is_truncation(one: Pair) -> None:
    server, client = one
    raw = socket.socket(fileno=client.detach())
    with raw:
        raw.sendall(b"\x17\x03\x03\x40\x00half")
        raw.shutdown(socket.SHUT_WR)
        assert server.recv(10) == b""
        assert server.truncated


def test_close_notify_waits_for_the_peers(pair: Pair) -> None:
    server, client = pair
    closing = Background(server.close_notify, LIMIT, wait=True)
    assert client.recv(1) == b""
    client.sendall(bytes(100_000))  # dropped
    client.unwrap()
    assert closing.result()
    assert server.close_notify(LIMIT, wait=True)
    assert server.gettimeout() == LIMIT


def test_close_notify_has_a_bound_when_the_peer_does_not_answer(pair: Pair) -> None:
    server, client = pair
    assert not server.close_notify(0.01, wait=True)
    assert client.recv(1) == b""
    assert server.gettimeout() == LIMIT


def test_close_notify_has_a_bound_when_the_peer_does_not_read(pair: Pair) -> None:
    server, _client = pair
    fill(server.inner)
    server.settimeout(None)
    assert not server.close_notify()
    assert not server.close_notify(0.01, wait=True)
    assert server.gettimeout() is None


def test_close_notify_has_a_bound_while_another_thread_sends(one: Pair) -> None:
    server, _client = one
    server.settimeout(None)
    sending = Background(server.sendall, bytes(64 * MEBIBYTE))
    with pytest.raises(AssertionError, match="still running"):
        sending.result(0.05)
    assert not server.close_notify(0.01)
    server.close_notify()
    server.inner.shutdown(socket.SHUT_RDWR)
    with pytest.raises(OSError, match=r"pipe|reset"):
        sending.result()


def test_close_notify_has_a_bound_when_the_peer_sends_on(one: Pair) -> None:
    server, client = one
    done = threading.Event()

    def flood() -> None:
        with contextlib.suppress(OSError):
            while not done.is_set():
                client.sendall(bytes(65_536))

    flooding = Background(flood)
    assert not server.close_notify(0.05, wait=True)
    done.set()
    server.inner.close()
    flooding.result()


def test_shutdown_has_a_bound_when_the_peer_does_not_read(one: Pair) -> None:
    server, _client = one
    fill(server.inner)
    server.settimeout(0.01)
    server.shutdown(socket.SHUT_WR)
    server.shutdown(socket.SHUT_RDWR)


def test_close_notify_before_the_handshake_sends_nothing(tls: TLS) -> None:
    with plain_peers() as (plain, raw):
        server = tls.wrap(plain)
        assert not server.close_notify(LIMIT, wait=True)
        server.close()
        assert raw.recv(10) == b""


def test_unwrap_goes_on_in_clear(pair: Pair) -> None:
    server, client = pair
    ending = Background(client.unwrap)
    assert server.recv(1) == b""
    assert server.unwrap() is server.inner
    plain = ending.result()
    assert server.surplus() == b""
    server.inner.sendall(b"clear")
    assert plain.recv(10) == b"clear"
    with pytest.raises(ValueError, match="No SSL wrapper"):
        server.unwrap()


def test_clear_bytes_behind_close_notify_are_surplus(tls: TLS, context: ssl.SSLContext) -> None:
    with plain_peers() as (plain, raw):
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        other = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
        server = tls.wrap(plain)
        handshake = Background(server.do_handshake)
        while True:
            try:
                other.do_handshake()
                break
            except ssl.SSLWantReadError:
                raw.sendall(outgoing.read())
                incoming.write(raw.recv(65_536))
        raw.sendall(outgoing.read())
        handshake.result()
        with pytest.raises(ssl.SSLWantReadError):
            other.unwrap()
        raw.sendall(outgoing.read() + b"in clear")
        assert server.recv(1) == b""
        server.unwrap()
        rest = server.surplus()
        while len(rest) < 8:
            rest += server.inner.recv(8)
        assert rest == b"in clear"
        assert server.surplus() == b""


def test_unwrap_fails_while_the_peer_sends_data(one: Pair) -> None:
    server, client = one
    client.sendall(b"more")
    with pytest.raises(ssl.SSLError, match="application data after close notify"):
        server.unwrap()
    assert server.recv(10) == b"more"


def test_unwrap_fails_when_the_peer_has_gone(one: Pair) -> None:
    server, client = one
    client.shutdown(socket.SHUT_RDWR)
    with pytest.raises(ssl.SSLEOFError):
        server.unwrap()
    assert server.truncated


def test_detach_sends_nothing(one: Pair) -> None:
    server, client = one
    client.suppress_ragged_eofs = False
    fd = server.detach()
    assert server.fileno() == server.inner.fileno() == -1
    with pytest.raises(OSError, match="Bad file descriptor"):
        server.recv(1)
    server.close()
    os.close(fd)
    with pytest.raises(ssl.SSLError, match="EOF"):
        client.recv(1)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_child_that_inherits_it_sends_nothing(one: Pair) -> None:
    server, client = one
    pid = os.fork()
    if pid == 0:
        server.close()
        os._exit(0)
    os.waitpid(pid, 0)
    server.sendall(b"still here")
    assert client.recv(100) == b"still here"


def test_it_needs_no_close_of_its_own(tls: TLS, context: ssl.SSLContext) -> None:
    with plain_peers() as (plain, raw):
        tls.wrap(plain)
        Background(raw.close).result()
        assert plain.fileno() >= 0


def test_a_write_lock_of_the_callers(tls: TLS, certificates: Certificates) -> None:
    """It keeps writers apart."""
    write_lock: Any = threading.Lock()
    with peers(tls, certificates.client_context(), write_lock=write_lock) as (server, client):
        write_lock.acquire()
        sending = Background(server.sendall, b"x")
        with pytest.raises(AssertionError, match="still running"):
            sending.result(0.05)
        write_lock.release()
        sending.result()
        assert client.recv(1) == b"x"
