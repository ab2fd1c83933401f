"""``sockets.tls.sockets`` against peers that are broken, silent, or do not speak TLS."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Iterator

import pytest
from tests.certificates import Certificates
from tests.clients import LIMIT, Background, reset
from tests.sockets.tls.peers import handshake_with, peers, plain_peers

from everserve.sockets.tls import TLS


@pytest.fixture(autouse=True)
def a_good_client_connects_afterwards(tls: TLS, certificates: Certificates) -> Iterator[None]:
    yield
    assert handshake_with(tls, certificates.client_context())


def receive_rest(raw: socket.socket) -> bytes:
    """All that the server sends, until the connection ends or is reset."""
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while part := raw.recv(65_536):
            received += part
    return received


@pytest.mark.parametrize(
    ("first", "reason"),
    [
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "HTTP_REQUEST"),
        (b"\x16\x03\x01\x00\x05hello", None),
        (b"\xff" * 1000, None),
        (b"\0" * 1000, None),
        (b"SSH-2.0-OpenSSH_9.6\r\n", None),
        (b"\x80\x2e\x01\x03\x01" + b"\0" * 50, None),
        (b"\x15\x03\x01\x00\x02\x02\x28", None),
        (b"\x17\x03\x03\x40\x01" + b"x" * 0x4001, None),
    ],
    ids=["http", "handshake", "ones", "zeros", "ssh", "ssl2", "alert", "data"],
)
def test_no_client_hello(tls: TLS, first: bytes, reason: str | None) -> None:
    with plain_peers() as (plain, raw):
        raw.sendall(first)
        server = tls.wrap(plain)
        with pytest.raises(ssl.SSLError) as caught:
            server.do_handshake()
        if reason is not None:
            assert caught.value.reason == reason
        plain.close()
        assert receive_rest(raw)[:1] in (b"", b"\x15")  # nothing, or an alert


def test_the_alert_comes_before_the_error(tls: TLS) -> None:
    with plain_peers() as (plain, raw):
        raw.sendall(b"\x16\x03\x01\x00\x05hello")
        with pytest.raises(ssl.SSLError):
            tls.wrap(plain).do_handshake()
        assert raw.recv(100)[:1] == b"\x15"


def test_a_silent_client_meets_the_limit_of_time(tls: TLS) -> None:
    with plain_peers() as (plain, _raw):
        plain.settimeout(0.01)
        server = tls.wrap(plain)
        with pytest.raises(TimeoutError):
            server.do_handshake()
        assert server.gettimeout() == 0.01


def test_the_limit_is_for_the_whole_handshake(tls: TLS, context: ssl.SSLContext) -> None:
    """One byte again and again does not keep a handshake alive."""
    with plain_peers() as (plain, raw):
        hello = client_hello(context)
        dripping = Background(drip, raw, hello[:-1])
        plain.settimeout(0.1)
        with pytest.raises(TimeoutError):
            tls.wrap(plain).do_handshake()
        plain.close()
        dripping.result()


def client_hello(context: ssl.SSLContext) -> bytes:
    outgoing = ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost").do_handshake()
    return outgoing.read()


def drip(raw: socket.socket, data: bytes) -> None:
    """One byte each 10 ms, until the other end has had enough."""
    raw.settimeout(0.01)
    with contextlib.suppress(ConnectionError):
        for byte in data:
            raw.sendall(bytes([byte]))
            try:
                if not raw.recv(1):
                    return
            except TimeoutError:
                pass


def test_a_hello_in_single_bytes(tls: TLS, context: ssl.SSLContext) -> None:
    with plain_peers() as (plain, raw):
        handshake = Background(tls.wrap(plain).do_handshake)
        client = ClientHandshake(raw, context)
        for byte in client.next_flight():
            raw.sendall(bytes([byte]))
        client.receive()
        while not client.done:
            raw.sendall(client.next_flight())
            if not client.done:
                client.receive()
        handshake.result()


# --- resets --------------------------------------------------------------------------------------


class ClientHandshake:
    """A client's handshake by hand, a flight at a time."""

    def __init__(self, raw: socket.socket, context: ssl.SSLContext) -> None:
        self.raw = raw
        self.done = False
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname="localhost")

    def next_flight(self) -> bytes:
        """What this side has to send now."""
        try:
            self._tls.do_handshake()
            self.done = True
        except ssl.SSLWantReadError:
            pass
        return self._outgoing.read()

    def receive(self) -> None:
        """Receive a flight of the server's, or a part of it."""
        self._incoming.write(self.raw.recv(65_536))


def go_away(raw: socket.socket, context: ssl.SSLContext, step: int) -> bool:
    """Do the handshake up to `step`, then reset the connection; False when it was done before that.

    Each flight counts three: before it, in its middle, behind it.
    """
    client = ClientHandshake(raw, context)
    at = 0
    while True:
        flight = client.next_flight()
        for part in (b"", flight[: len(flight) // 2], flight[len(flight) // 2 :]):
            raw.sendall(part)
            if at == step:
                reset(raw)
                return True
            at += 1
        if client.done:
            reset(raw)
            return False
        client.receive()


@pytest.mark.parametrize("step", range(6))
def test_a_reset_at_every_step_of_the_handshake(
    tls: TLS, context: ssl.SSLContext, step: int
) -> None:
    with plain_peers() as (plain, raw):
        server = tls.wrap(plain)
        going = Background(go_away, raw, context, step)
        with contextlib.suppress(ConnectionError, ssl.SSLEOFError):
            server.do_handshake()
            assert server.recv(100) == b""
        assert going.result()


@pytest.mark.parametrize("step", range(6))
def test_an_end_at_every_step_of_the_handshake(
    tls: TLS, context: ssl.SSLContext, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(go_away.__globals__, "reset", lambda raw: raw.shutdown(socket.SHUT_WR))
    with plain_peers() as (plain, raw):
        server = tls.wrap(plain)
        going = Background(go_away, raw, context, step)
        failure: ssl.SSLError | None = None
        try:
            server.do_handshake()
            assert server.recv(100) == b""
        except ssl.SSLError as error:
            failure = error
        assert server.truncated
        assert failure is None or isinstance(failure, ssl.SSLEOFError)
        assert going.result()


def test_a_reset_after_the_handshake(tls: TLS, context: ssl.SSLContext) -> None:
    with peers(tls, context) as (server, client):
        reset(client)
        with pytest.raises(ConnectionResetError):
            server.recv(1)
        with pytest.raises(OSError, match=r"pipe|reset"):
            server.sendall(b"x")
        server.close()


# --- after the handshake -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "garbage", [b"\x17\x03\x03\x00\x20" + b"j" * 32, b"garbage without a record"]
)
def test_garbage_on_an_open_connection(tls: TLS, context: ssl.SSLContext, garbage: bytes) -> None:
    with peers(tls, context) as (server, client):
        with socket.socket(fileno=client.detach()) as raw:
            raw.sendall(garbage)
            with pytest.raises(ssl.SSLError):
                server.recv(1)
            with pytest.raises(ssl.SSLError, match="broken before"):
                server.recv(1)
            with pytest.raises(BrokenPipeError):
                server.sendall(b"x")
            assert not server.close_notify(LIMIT, wait=True)
            server.close()
            assert receive_rest(raw)[-31:] != b"", "an alert, in a record of its own"


@pytest.mark.parametrize("name", [b"\xff\xfe", b"a\x01b", b"x" * 255])
def test_a_name_that_is_none(
    tls: TLS, context: ssl.SSLContext, name: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    hello = client_hello(context)
    at = hello.index(b"localhost")
    forged = hello.replace(b"localhost", (name * 9)[:9])
    assert forged[at : at + 1] == name[:1]
    with plain_peers() as (plain, raw):
        raw.sendall(forged)
        raw.shutdown(socket.SHUT_WR)
        with pytest.raises(ssl.SSLError):
            tls.wrap(plain).do_handshake()
        assert raw.recv(100)[:1] in (b"\x15", b"\x16")
    assert capfd.readouterr().err == ""
