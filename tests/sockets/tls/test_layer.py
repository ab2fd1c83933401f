"""``sockets.layer`` and ``sockets.tls.facts``: what `socket.socket` and `ssl.SSLSocket` do besides data."""

from __future__ import annotations

import socket
import ssl

import pytest
from tests.sockets.tls.peers import Pair

from everserve.sockets.tls import TLSSocket

MEBIBYTE = 1 << 20


def test_it_is_a_socket_of_the_inner_descriptor(pair: Pair) -> None:
    server, _client = pair
    inner = server.inner
    assert isinstance(server, socket.socket)
    assert server.fileno() == inner.fileno()
    assert (server.family, server.type, server.proto) == (inner.family, inner.type, inner.proto)
    assert server.getsockname() == inner.getsockname()
    assert server.getpeername() == inner.getpeername()
    assert server.get_inheritable() == inner.get_inheritable() is False
    server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 0)
    assert inner.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 0
    assert server.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 0
    server.set_inheritable(True)
    assert inner.get_inheritable()
    assert "TLSSocket" in repr(server)


def test_time_is_the_inner_sockets(one: Pair) -> None:
    server, _client = one
    server.settimeout(3.5)
    assert server.inner.gettimeout() == server.gettimeout() == server.timeout == 3.5
    assert server.getblocking()
    server.setblocking(False)
    assert server.inner.gettimeout() == 0.0
    assert not server.getblocking()


def test_what_was_agreed_on(pair: Pair, context: ssl.SSLContext) -> None:
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


def test_no_method_of_socket_passes_it_by() -> None:
    built_on_these = {"makefile", "close", "_decref_socketios"}
    layers = [layer for layer in TLSSocket.__mro__ if layer.__module__.startswith("everserve")]
    own = {name for layer in layers for name in vars(layer)}
    missing = {name for name in dir(socket.socket) if not name.startswith("_")} - own
    assert missing - built_on_these - {"ioctl", "share"} == set()


def test_what_would_pass_it_by_is_refused_as_by_ssl(one: Pair) -> None:
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


def test_what_makes_no_sense_on_a_connection_is_the_kernels_answer(one: Pair) -> None:
    server, _client = one
    with pytest.raises(OSError, match="Invalid argument"):
        server.bind(("127.0.0.1", 0))
    with pytest.raises(OSError, match="Invalid argument"):
        server.listen()
    server.settimeout(None)
    with pytest.raises(OSError, match="Invalid argument"):
        server.accept()
    with pytest.raises(OSError, match="already connected"):
        server.connect(server.getpeername())
    assert server.connect_ex(server.getpeername()) != 0
