"""``sockets.tls.sockets``: how a connection ends, from either side, and what that may cost."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import threading
from typing import Any

import pytest
from tests.certificates import Certificates
from tests.clients import LIMIT, Background, read_all
from tests.sockets.tls.peers import Pair, fill, peers, plain_peers, receive

from everserve.sockets.tls import TLS

MEBIBYTE = 1 << 20


def test_the_peer_says_goodbye(pair: Pair) -> None:
    server, client = pair
    saying = Background(client.unwrap)
    assert server.recv(10) == b""
    assert server.recv_into(bytearray(10)) == 0
    assert not server.truncated
    server.close_notify()
    saying.result()
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


def test_close_says_goodbye(pair: Pair) -> None:
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


def test_closing_the_inner_is_enough(pair: Pair) -> None:
    server, client = pair
    client.suppress_ragged_eofs = False
    server.inner.close()
    with pytest.raises(ssl.SSLEOFError):
        client.recv(1)
    with pytest.raises(OSError, match="Bad file descriptor"):
        server.recv(1)
    assert not server.close_notify(LIMIT)
    server.close()


@pytest.mark.parametrize("suppress", [True, False])
def test_a_truncated_stream_is_told(tls: TLS, context: ssl.SSLContext, suppress: bool) -> None:
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


def test_close_notify_has_a_bound_when_nobody_answers(pair: Pair) -> None:
    server, client = pair
    assert not server.close_notify(0.01, wait=True)
    assert client.recv(1) == b""
    assert server.gettimeout() == LIMIT


def test_close_notify_has_a_bound_when_nobody_reads(pair: Pair) -> None:
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


def test_close_notify_has_a_bound_when_the_peer_talks_on(one: Pair) -> None:
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


def test_shutdown_has_a_bound_when_nobody_reads(one: Pair) -> None:
    server, _client = one
    fill(server.inner)
    server.settimeout(0.01)
    server.shutdown(socket.SHUT_WR)
    server.shutdown(socket.SHUT_RDWR)


def test_close_notify_before_the_handshake_says_nothing(tls: TLS) -> None:
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


def test_clear_bytes_behind_the_goodbye_are_surplus(tls: TLS, context: ssl.SSLContext) -> None:
    with plain_peers() as (plain, raw):
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        other = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
        server = tls.wrap(plain)
        shaking = Background(server.do_handshake)
        while True:
            try:
                other.do_handshake()
                break
            except ssl.SSLWantReadError:
                raw.sendall(outgoing.read())
                incoming.write(raw.recv(65_536))
        raw.sendall(outgoing.read())
        shaking.result()
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


def test_unwrap_is_not_for_a_peer_that_talks_on(one: Pair) -> None:
    server, client = one
    client.sendall(b"more")
    with pytest.raises(ssl.SSLError, match="application data after close notify"):
        server.unwrap()
    assert server.recv(10) == b"more"


def test_unwrap_tells_of_a_peer_that_has_gone(one: Pair) -> None:
    server, client = one
    client.shutdown(socket.SHUT_RDWR)
    with pytest.raises(ssl.SSLEOFError):
        server.unwrap()
    assert server.truncated


def test_detach_says_nothing(one: Pair) -> None:
    server, client = one
    client.suppress_ragged_eofs = False
    fd = server.detach()
    assert server.fileno() == server.inner.fileno() == -1
    with pytest.raises(OSError, match="Bad file descriptor"):
        server.recv(1)
    server.close()
    os.close(fd)
    with pytest.raises(ssl.SSLEOFError):
        client.recv(1)


def test_a_child_that_inherits_it_says_nothing(one: Pair) -> None:
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


def test_what_is_in_the_way_of_its_turn(tls: TLS, certificates: Certificates) -> None:
    """A lock of the caller's keeps writers apart."""
    turn: Any = threading.Lock()
    with peers(tls, certificates.client_context(), turn=turn) as (server, client):
        turn.acquire()
        sending = Background(server.sendall, b"x")
        with pytest.raises(AssertionError, match="still running"):
            sending.result(0.05)
        turn.release()
        sending.result()
        assert client.recv(1) == b"x"
