"""``sockets.tls.sockets``: a socket whose bytes travel encrypted, to one of the standard library's."""

from __future__ import annotations

import io
import os
import select
import socket
import ssl
import tempfile

import pytest
from tests.clients import LIMIT, Background
from tests.sockets.tls.peers import Pair, plain_peers, receive

from everserve.sockets.tls import TLS, TLSSocket

MEBIBYTE = 1 << 20


def test_what_was_negotiated(pair: Pair, context: ssl.SSLContext) -> None:
    server, client = pair
    assert server.version() == client.version()
    assert (
        server.version()
        == {"TLSv1_2": "TLSv1.2", "TLSv1_3": "TLSv1.3"}[context.maximum_version.name]
    )
    assert server.cipher() == client.cipher()
    assert server.shared_ciphers()
    assert server.compression() is None
    assert server.selected_alpn_protocol() is None
    assert server.session_reused is False
    assert server.session is not None
    assert isinstance(server.context, ssl.SSLContext)
    assert server.server_side
    assert server.server_hostname == "localhost"
    assert server.get_channel_binding() == client.get_channel_binding()
    assert server.getpeercert() is None


def test_no_method_of_socket_bypasses_it() -> None:
    built_on_these = {"makefile", "close", "_decref_socketios"}
    layers = [layer for layer in TLSSocket.__mro__ if layer.__module__.startswith("everserve")]
    own = {name for layer in layers for name in vars(layer)}
    missing = {name for name in dir(socket.socket) if not name.startswith("_")} - own
    assert missing - built_on_these - {"ioctl", "share"} == set()


def test_it_has_every_public_name_of_ssls_socket() -> None:
    theirs = {name for name in dir(ssl.SSLSocket) if not name.startswith("_")}
    assert theirs - set(dir(TLSSocket)) == set()


def test_the_names_that_only_ssls_socket_has(one: Pair) -> None:
    server, client = one
    client.sendall(b"hello")
    assert server.read(2) == b"he"
    buffer = bytearray(10)
    assert server.read(10, buffer) == 3
    assert server.write(bytes(buffer[:3])) == 3
    assert client.recv(10) == b"llo"
    assert server.selected_npn_protocol() is None
    for name in ("get_verified_chain", "get_unverified_chain", "group"):  # of later Pythons
        if hasattr(ssl.SSLSocket, name):
            getattr(server, name)()


def test_what_would_bypass_it_is_refused_as_by_ssl(one: Pair) -> None:
    server, client = one
    for sock in (server, client):
        with pytest.raises(ValueError, match="sendto not allowed"):
            sock.sendto(b"x", ("127.0.0.1", 1))
        with pytest.raises(ValueError, match="recvfrom not allowed"):
            sock.recvfrom(1)
        with pytest.raises(ValueError, match="recvfrom_into not allowed"):
            sock.recvfrom_into(bytearray(1))
        for call in (
            lambda sock=sock: sock.recvmsg(1),
            lambda sock=sock: sock.recvmsg_into([bytearray(1)]),
            lambda sock=sock: sock.sendmsg([b"x"]),
            sock.dup,
        ):
            with pytest.raises(NotImplementedError):
                call()
        for call in (
            lambda sock=sock: sock.recv(1, socket.MSG_PEEK),
            lambda sock=sock: sock.recv_into(bytearray(1), 1, socket.MSG_PEEK),
            lambda sock=sock: sock.send(b"x", socket.MSG_OOB),
            lambda sock=sock: sock.sendall(b"x", socket.MSG_OOB),
        ):
            with pytest.raises(ValueError, match="non-zero flags"):
                call()
    with pytest.raises(NotImplementedError):
        server.sendmsg_afalg([b"x"], op=1)


def test_all_ways_of_sending_and_receiving(pair: Pair) -> None:
    server, client = pair
    server.sendall(b"one")
    assert server.send(memoryview(b"two")) == 3
    server.sendall(bytearray(b"three"))
    server.sendall(memoryview(b"abcdefgh").cast("I"))
    assert receive(client, 19) == b"onetwothreeabcdefgh"
    client.sendall(b"abcdefghijklmnop")
    buffer = bytearray(4)
    assert server.recv(1) == b"a"
    assert server.recv_into(buffer) == 4
    assert buffer == b"bcde"
    assert server.recv_into(buffer, 2) == 2
    assert buffer == b"fgde"
    assert server.recv_into(memoryview(buffer)[2:], 0) == 2
    assert buffer == b"fghi"
    assert server.recv() == b"jklmnop"


def test_sizes_of_nothing_and_less(pair: Pair) -> None:
    server, client = pair
    server.sendall(b"")
    assert server.send(b"") == 0
    assert server.recv(0) == b""
    assert server.recv_into(bytearray()) == 0
    with pytest.raises(ValueError, match="negative buffersize"):
        server.recv(-1)
    with pytest.raises(ValueError, match="negative buffersize"):
        server.recv_into(bytearray(1), -1)
    server.sendall(b"x")
    assert client.recv(10) == b"x"


SIZES = [1, 16_383, 16_384, 16_385, 65_537, 3 * MEBIBYTE]


@pytest.mark.parametrize("size", SIZES)
def test_much_one_way_and_then_the_other(pair: Pair, size: int) -> None:
    server, client = pair
    data = os.urandom(size)
    sending = Background(client.sendall, data)
    assert receive(server, size) == data
    sending.result()
    sending = Background(server.sendall, data)
    assert receive(client, size) == data
    sending.result()


@pytest.mark.parametrize("size", SIZES)
def test_much_both_ways_at_once(duplex: tuple[TLSSocket, TLSSocket], size: int) -> None:
    server, client = duplex
    there, back = os.urandom(size), os.urandom(size)
    sending = [Background(client.sendall, there), Background(server.sendall, back)]
    receiving = Background(receive, client, size)
    assert receive(server, size) == there
    assert receiving.result() == back
    for task in sending:
        task.result()


def test_a_reader_and_writers_in_threads(duplex: tuple[TLSSocket, TLSSocket]) -> None:
    server, client = duplex
    lines = [b"%d" % writer * 999 + b"\n" for writer in range(4)]

    def write(line: bytes) -> None:
        for _ in range(50):
            server.sendall(line)

    writers = [Background(write, line) for line in lines]
    echo = Background(receive, server, MEBIBYTE)
    client_writes = Background(client.sendall, bytes(MEBIBYTE))
    with client.makefile("rb") as stream:
        got = [stream.readline() for _ in range(200)]
    assert sorted(got) == sorted(lines * 50)
    for task in (*writers, client_writes):
        task.result()
    assert echo.result() == bytes(MEBIBYTE)


def test_many_small_messages_in_one_segment(pair: Pair) -> None:
    server, client = pair
    for number in range(100):
        client.sendall(b"%03d" % number)
    assert [receive(server, 3) for _ in range(100)] == [b"%03d" % number for number in range(100)]


def test_sendfile(pair: Pair) -> None:
    server, client = pair
    data = os.urandom(200_000)
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.seek(0)
        sending = Background(server.sendfile, file)
        assert receive(client, len(data)) == data
        assert sending.result() == len(data)
        assert file.tell() == len(data)
        assert server.sendfile(file, 100, 50) == 50
        assert file.tell() == 150
        assert receive(client, 50) == data[100:150]
        with pytest.raises(ValueError, match="count must be"):
            server.sendfile(file, 0, -1)
        server.setblocking(False)
        with pytest.raises(ValueError, match="non-blocking"):
            server.sendfile(file)
    assert server.sendfile.__doc__


def test_pending_counts_what_select_cannot_see(pair: Pair) -> None:
    server, client = pair
    assert server.pending() == 0
    client.sendall(b"first")
    client.sendall(b"second")
    assert select.select([server], [], [], LIMIT)[0]
    assert receive(server, 1) == b"f"
    got = b"f"
    while len(got) < 11:
        while server.pending():
            got += server.recv(server.pending())
        if len(got) < 11:
            assert select.select([server], [], [], LIMIT)[0]
            got += server.recv(1)
    assert got == b"firstsecond"
    assert server.pending() == 0


def test_no_record_waits_for_an_acknowledgement(tls: TLS) -> None:
    left, right = socket.socketpair()
    with left, right, socket.socket() as sock:
        assert not sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert tls.wrap(sock).getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        tls.wrap(left)  # which has no such option


def test_ciphertext_that_was_read_before(tls: TLS, context: ssl.SSLContext) -> None:
    with plain_peers() as (plain, raw):
        handshake = Background(context.wrap_socket, raw, server_hostname="localhost")
        initial = plain.recv(100)
        server = tls.wrap(plain, initial=initial)
        server.do_handshake()
        with handshake.result() as client:
            client.sendall(b"hello")
            assert server.recv(100) == b"hello"


def test_the_first_use_does_the_handshake(tls: TLS, context: ssl.SSLContext) -> None:
    for use in (lambda server: server.recv(5), lambda server: server.sendall(b"hello")):
        with plain_peers() as (plain, raw):
            handshake = Background(context.wrap_socket, raw, server_hostname="localhost")
            server = tls.wrap(plain)
            using = Background(use, server)
            with handshake.result() as client:
                client.sendall(b"hello")
                using.result()
                assert server.version()
                server.do_handshake()  # nothing more


def test_both_ends_may_be_ours(tls: TLS, context: ssl.SSLContext) -> None:
    with plain_peers() as (plain, raw):
        server = tls.wrap(plain)
        client = TLSSocket(raw, context, server_side=False, server_hostname="localhost")
        handshake = Background(server.do_handshake)
        client.do_handshake()
        handshake.result()
        assert client.server_hostname == "localhost"
        assert not client.server_side
        assert client.getpeercert()["subjectAltName"]
        client.sendall(b"ping")
        assert server.recv(100) == b"ping"
        server.sendall(b"pong")
        assert client.recv(100) == b"pong"
        closing = Background(client.close_notify, LIMIT, wait=True)
        assert server.recv(1) == b""
        assert server.close_notify()
        assert closing.result()


def test_a_client_of_ours_checks_the_name(tls: TLS, context: ssl.SSLContext) -> None:
    with plain_peers() as (plain, raw):
        handshake = Background(tls.wrap(plain).do_handshake)
        client = TLSSocket(raw, context, server_side=False, server_hostname="other.example")
        with pytest.raises(ssl.SSLCertVerificationError):
            client.do_handshake()
        with pytest.raises(ssl.SSLError, match=r"(?i)alert"):
            handshake.result()


# --- makefile ----------------------------------------------------------------------------------


def test_makefile(pair: Pair) -> None:
    server, client = pair
    with server.makefile("rwb") as stream, client.makefile("rwb", buffering=0) as other:
        assert isinstance(stream, io.BufferedRWPair)
        other.write(b"a line\nand more")
        assert stream.readline() == b"a line\n"
        assert stream.read1(100) == b"and more"
        stream.write(b"answer\n")
        stream.flush()
        assert other.readline() == b"answer\n"
    with server.makefile("r", encoding="utf-8") as text:
        client.sendall("zeile ü\n".encode())
        assert text.readline() == "zeile ü\n"


def test_the_socket_lives_until_its_files_are_closed(pair: Pair) -> None:
    server, client = pair
    stream = server.makefile("rb")
    server.close()
    client.sendall(b"late\n")
    assert stream.readline() == b"late\n"
    assert server.fileno() >= 0
    stream.close()
    assert server.fileno() == server.inner.fileno() == -1
