"""``sockets.tls.sockets``: ciphertext that comes in pieces, and leaves when the kernel has room."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import ssl
import threading
from itertools import chain, repeat
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.clients import LIMIT, Background, read_all
from tests.sockets.tls.peers import (
    MemorySocket,
    Pair,
    fill,
    over_memory,
    peers,
    plain_peers,
    receive,
)

from everserve.sockets.tls import TLS, TLSSocket

MEBIBYTE = 1 << 20

Ends = tuple[TLSSocket, MemorySocket]


def test_non_blocking_as_ssl_does_it(tls: TLS, context: ssl.SSLContext) -> None:
    with plain_peers() as (plain, raw):
        server = tls.wrap(plain)
        server.setblocking(False)
        with pytest.raises(ssl.SSLWantReadError):
            server.do_handshake()
        handshake = Background(context.wrap_socket, raw, server_hostname="localhost")
        handshake_step_by_step(server)
        with handshake.result() as client:
            with pytest.raises(ssl.SSLWantReadError):
                server.recv(10)
            with pytest.raises(ssl.SSLWantReadError):
                server.recv_into(bytearray(10))
            data = os.urandom(64 * MEBIBYTE)
            sent = send_until_full(server, data)
            reading = Background(receive, client, len(data))
            send_step_by_step(server, data[sent:])
            assert reading.result() == data


def handshake_step_by_step(server: TLSSocket) -> None:
    while True:
        try:
            server.do_handshake()
            return
        except ssl.SSLWantReadError:
            assert select.select([server], [], [], LIMIT)[0]
        except ssl.SSLWantWriteError:
            assert select.select([], [server], [], LIMIT)[1]


def send_step_by_step(server: TLSSocket, data: bytes) -> None:
    left = memoryview(data)
    while left:
        try:
            left = left[server.send(left) :]
        except ssl.SSLWantWriteError:
            assert select.select([], [server], [], LIMIT)[1]


def send_until_full(server: TLSSocket, data: bytes) -> int:
    """Send until the kernel takes no more; how much it took."""
    left = memoryview(data)
    with contextlib.suppress(ssl.SSLWantWriteError):
        while left:
            left = left[server.send(left) :]
    assert left
    return len(data) - len(left)


def send_until(server: TLSSocket, end: type[OSError]) -> int:
    """Send 10,000 bytes again and again, until `end` is raised; how many went before."""
    sent = 0
    try:
        while True:
            sent += server.send(bytes(10_000))
    except end:
        return sent


def test_a_repeated_send_needs_the_same_data(one: Pair) -> None:
    server, client = one
    server.setblocking(False)
    sent = send_until(server, ssl.SSLWantWriteError)
    reading = Background(receive, client, sent + 10_000)
    server.settimeout(LIMIT)
    with pytest.raises(ssl.SSLError, match="bad write retry"):
        server.send(b"short")
    assert server.send(bytes(10_000)) == 10_000
    assert reading.result() == bytes(sent + 10_000)


def test_a_send_that_timed_out_can_go_on(one: Pair) -> None:
    server, client = one
    server.settimeout(0.01)
    sent = send_until(server, TimeoutError)
    reading = Background(read_all, client)
    server.settimeout(LIMIT)
    assert server.send(bytes(10_000)) == 10_000
    server.shutdown(socket.SHUT_WR)
    assert reading.result() == bytes(sent + 10_000)


def test_a_timed_out_sendall_tears_no_record(one: Pair) -> None:
    server, client = one
    server.settimeout(0.01)
    with pytest.raises(TimeoutError):
        server.sendall(bytes(64 * MEBIBYTE))
    reading = Background(read_all, client)
    server.settimeout(LIMIT)
    server.sendall(b"the end")
    server.shutdown(socket.SHUT_WR)
    got = reading.result()
    assert len(got) < 64 * MEBIBYTE
    assert got.strip(b"\0") == b"the end"


def test_recv_times_out(pair: Pair) -> None:
    server, client = pair
    server.settimeout(0.01)
    with pytest.raises(TimeoutError):
        server.recv(1)
    client.sendall(b"x")
    server.settimeout(LIMIT)
    assert server.recv(1) == b"x"


@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(
    st.lists(st.integers(1, 40_000), max_size=6),
    st.lists(st.integers(1, 40_000), max_size=12),
    st.integers(1, 70_000),
)
def test_any_cut_of_the_ciphertext_gives_the_same(
    tls: TLS, context: ssl.SSLContext, sizes: list[int], cuts: list[int], asked: int
) -> None:
    server, there = over_memory(tls, context)
    messages = [os.urandom(size) for size in sizes]
    there.send_messages(messages, cuts)
    assert read_in_pieces(server, asked) == b"".join(messages)
    assert server.truncated


@pytest.fixture
def ends(tls: TLS, context: ssl.SSLContext) -> Ends:
    """A server after the handshake, and what it stands on."""
    return over_memory(tls, context)


RECORDS = [b"one", b"two", bytes(16_384), b"the last"]


def test_all_records_received_come_at_once(ends: Ends) -> None:
    server, there = ends
    there.send_messages(RECORDS, [])
    assert server.recv(5) == b"onetw"
    assert server.recv(65_536) == b"".join(RECORDS)[5:]
    there.send_messages(RECORDS, [])
    buffer = bytearray(65_536)
    count = server.recv_into(buffer)
    assert buffer[:count] == b"".join(RECORDS)


@pytest.mark.parametrize("size", [3, 16_384, 65_536])
def test_the_end_comes_behind_the_data(ends: Ends, size: int) -> None:
    server, there = ends
    there.send_pieces(there.encrypt(RECORDS, end=True))
    got = b""
    while part := server.recv(size):
        got += part
    assert got == b"".join(RECORDS)
    assert not server.truncated
    assert server.recv(size) == b""


GARBAGE = b"\x17\x03\x03\x00\x20" + b"j" * 32


@pytest.mark.parametrize("garbage", [GARBAGE, b"garbage without a record"])
def test_what_breaks_tls_is_raised_behind_the_data(ends: Ends, garbage: bytes) -> None:
    server, there = ends
    there.send_pieces(there.encrypt(RECORDS) + garbage)
    assert server.recv(65_536) == b"".join(RECORDS)
    with pytest.raises(BrokenPipeError):
        server.sendall(b"x")
    with pytest.raises(ssl.SSLError, match=r"(?i)record|version"):
        server.recv(65_536)
    with pytest.raises(ssl.SSLError, match="broken before"):
        server.recv(65_536)


def test_pending_counts_the_data_before_what_breaks_tls(ends: Ends) -> None:
    server, there = ends
    there.send_pieces(there.encrypt([b"good", b"more"]) + GARBAGE)
    assert server.recv(1) == b"g"
    assert server.pending() == 7
    assert server.recv(100) == b"oodmore"
    assert server.pending() == 0
    with pytest.raises(ssl.SSLError, match=r"(?i)record"):
        server.recv(1)


def test_unwrap_raises_what_breaks_tls(ends: Ends) -> None:
    server, there = ends
    there.send_pieces(GARBAGE)
    with pytest.raises(ssl.SSLError, match=r"(?i)record"):
        server.unwrap()


def test_the_alert_leaves_before_the_error_is_raised(one: Pair) -> None:
    server, client = one
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)  # to send both in one segment
    client.sendall(b"good")
    os.write(client.fileno(), GARBAGE)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 0)
    assert server.recv(1) == b"g"
    assert server.pending() == 3
    with pytest.raises(ssl.SSLError, match=r"(?i)alert"):
        client.recv(1)
    assert server.recv(100) == b"ood"
    with pytest.raises(ssl.SSLError, match=r"(?i)record"):
        server.recv(1)


SMALL_PIECES = 1000  # a stream that is read byte by byte to its end takes a minute under coverage


def read_in_pieces(server: TLSSocket, size: int) -> bytes:
    """By `recv` and `recv_into` alternately, until the end of the stream."""
    got = bytearray()
    for asked in chain([size] * SMALL_PIECES, repeat(65_536)):
        part, buffer = server.recv(asked), bytearray(asked)
        count = server.recv_into(buffer)
        got += part + buffer[:count]
        if not part and not count:
            break
    return bytes(got)


def test_a_record_that_drips_meets_the_time_limit(tls: TLS, context: ssl.SSLContext) -> None:
    """Although each wait is short: the time of a whole record is limited, too."""
    server, there = over_memory(tls, context)
    there.send_messages([bytes(16_000)], [1] * 15_000)
    there.timeout = 1e-9
    with pytest.raises(TimeoutError):
        server.recv(1)
    there.timeout = None
    assert len(server.recv(16_000)) == 16_000, "nothing of it was lost"


def test_a_full_kernel_keeps_sendall_waiting_or_not(one: Pair) -> None:
    server, _client = one
    fill(server.inner)
    server.settimeout(0.0)
    with pytest.raises(ssl.SSLWantWriteError):
        server.sendall(b"x")
    with pytest.raises(ssl.SSLWantWriteError):
        server.sendall(b"y")


def test_an_alert_does_not_wait_for_a_writer(tls: TLS, context: ssl.SSLContext) -> None:
    """The reader that meets garbage leaves the alert to the writer that has the lock."""
    write_lock: Any = threading.Lock()
    with peers(tls, context, write_lock=write_lock) as (server, client):
        with socket.socket(fileno=client.detach()) as raw, write_lock:
            raw.sendall(b"garbage without a record")
            with pytest.raises(ssl.SSLError):
                server.recv(1)
