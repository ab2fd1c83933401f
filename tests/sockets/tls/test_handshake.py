"""``sockets.tls.handshake``: a function of a wire, and of the name in the client's first message."""

from __future__ import annotations

import select
import socket
import ssl
from collections.abc import Iterator
from typing import Any

import pytest
from tests.certificates import Certificates
from tests.clients import LIMIT, Background
from tests.sockets.tls.peers import plain_peers

from everserve.sockets.tls import TLS
from everserve.sockets.tls.handshake import do_handshake
from everserve.sockets.tls.hello import HelloReader
from everserve.sockets.tls.wire import Wire

Ends = tuple[Wire, socket.socket]


@pytest.fixture
def ends(parts: Any, tls: TLS) -> Iterator[Ends]:
    """The server's wire, with the records of each engine, and the client's plain socket."""
    with plain_peers() as (plain, raw):
        yield Wire(plain, parts.Records(tls.context, True, None, None)), raw


def connect(raw: socket.socket, context: ssl.SSLContext) -> Background:
    return Background(context.wrap_socket, raw, server_hostname="localhost")


def test_a_server(ends: Ends, context: ssl.SSLContext) -> None:
    wire, raw = ends
    hello = HelloReader()
    client = connect(raw, context)
    do_handshake(wire, hello)
    assert hello.name == "localhost"
    assert wire.inner.gettimeout() == LIMIT
    with client.result() as sock:
        assert sock.version() == wire.records.tls.version() is not None
        sock.sendall(b"hello")
        assert wire.records.read(wire.receive(), 100) == b"hello"


def test_a_client(parts: Any, tls: TLS, context: ssl.SSLContext) -> None:
    with plain_peers() as (plain, raw):
        server = Background(tls.wrap(plain).do_handshake)
        wire = Wire(raw, parts.Records(context, False, "localhost", None))
        do_handshake(wire, None)
        server.result()
        assert wire.records.tls.getpeercert()


def test_it_goes_on_where_a_non_blocking_socket_stopped(
    ends: Ends, context: ssl.SSLContext
) -> None:
    wire, raw = ends
    hello = HelloReader()
    wire.inner.setblocking(False)
    with pytest.raises(ssl.SSLWantReadError):
        do_handshake(wire, hello)
    client = connect(raw, context)
    while True:
        assert select.select([wire.inner], [], [], LIMIT)[0]
        try:
            do_handshake(wire, hello)
            break
        except ssl.SSLWantReadError:
            pass
    assert hello.name == "localhost"
    client.result().close()


def test_block_waits_on_a_non_blocking_socket(ends: Ends, context: ssl.SSLContext) -> None:
    wire, raw = ends
    wire.inner.setblocking(False)
    client = connect(raw, context)
    do_handshake(wire, HelloReader(), block=True)
    assert wire.inner.gettimeout() == 0.0
    client.result().close()


def test_ciphertext_that_was_read_before(parts: Any, tls: TLS, context: ssl.SSLContext) -> None:
    with plain_peers() as (plain, raw):
        client = connect(raw, context)
        records = parts.Records(tls.context, True, None, None)
        do_handshake(Wire(plain, records, initial=plain.recv(7)), HelloReader())
        client.result().close()


def test_the_time_limit_is_for_the_whole(ends: Ends) -> None:
    wire, raw = ends
    raw.sendall(b"\x16")
    wire.inner.settimeout(0.01)
    with pytest.raises(TimeoutError):
        do_handshake(wire, HelloReader())
    assert wire.inner.gettimeout() == 0.01


def test_a_client_that_goes_away(ends: Ends) -> None:
    wire, raw = ends
    raw.close()
    with pytest.raises(ssl.SSLEOFError, match="the peer went away in the handshake"):
        do_handshake(wire, HelloReader())
    assert wire.truncated


def test_the_alert_leaves_before_the_error_is_raised(ends: Ends) -> None:
    wire, raw = ends
    raw.sendall(b"\x16\x03\x01\x00\x05hello")
    with pytest.raises(ssl.SSLError):
        do_handshake(wire, HelloReader())
    assert raw.recv(100)[:1] == b"\x15"


def test_a_name_that_is_not_ascii(ends: Ends, context: ssl.SSLContext) -> None:
    wire, raw = ends
    outgoing = ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost").do_handshake()
    raw.sendall(outgoing.read().replace(b"localhost", b"local\xffost"))
    hello = HelloReader()
    with pytest.raises(ssl.SSLError, match="host name that is not ASCII"):
        do_handshake(wire, hello)
    assert hello.name is None
    assert raw.recv(100) == b"\x15\x03\x03\x00\x02\x02\x70", "unrecognized_name, in clear"


@pytest.mark.parametrize("second", ["one.example.org", "two.example.org"])
@pytest.mark.parametrize("first", ["one.example.org", "two.example.org"])
def test_the_name_and_the_certificate_agree_after_a_retry(
    certificates: Certificates, first: str, second: str
) -> None:
    """A client may not ask for another name: OpenSSL 3.0 would follow it, and OpenSSL 3.6 would not."""
    tls = TLS(*certificates.server, sni={"one.example.org": certificates.named})
    default = tls.context
    default.set_ecdh_curve("prime256v1")  # not what clients offer first: they must try again
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = certificates.client_context().wrap_bio(incoming, outgoing, server_hostname=first)
    with plain_peers() as (plain, raw):
        server = tls.wrap(plain)
        handshake = Background(server.do_handshake)
        advance(client)
        raw.sendall(outgoing.read())
        incoming.write(raw.recv(65_536))
        advance(client)
        raw.sendall(outgoing.read().replace(first.encode(), second.encode()))
        raw.settimeout(LIMIT)
        if first == second:
            assert len(raw.recv(65_536)) > 500  # the certificate
        else:
            assert raw.recv(65_536).endswith(b"\x02\x2f"), "illegal_parameter, in clear"
        raw.close()
        with pytest.raises(OSError):
            handshake.result()
        assert server.server_hostname == first
        assert (server.context is default) == (first == "two.example.org")


def advance(client: ssl.SSLObject) -> None:
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
