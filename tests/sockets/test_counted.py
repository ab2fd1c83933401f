"""``sockets.counted`` and ``sockets.tcpinfo``: the traffic of a connection."""

from __future__ import annotations

import array
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.clients import LIMIT, Background, read_all

from everserve.sockets import tcpinfo
from everserve.sockets.counted import PIECE, CountedSocket
from everserve.sockets.tcpinfo import Traffic, traffic_of


class Clock:
    time = 1000.0

    def __call__(self) -> float:
        return self.time


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ends(clock: Clock) -> Iterator[tuple[CountedSocket, socket.socket]]:
    """A counted end, and the other end."""
    inner, other = socket.socketpair()
    other.settimeout(LIMIT)
    with CountedSocket(inner, clock) as counted, other:
        yield counted, other


Ends = tuple[CountedSocket, socket.socket]


def test_nothing_has_moved(ends: Ends, clock: Clock) -> None:
    counted, _ = ends
    assert counted.traffic() == Traffic(0.0, 0, 0, False)
    clock.time += 5
    assert counted.traffic() == Traffic(5.0, 0, 0, False)


def test_a_duplicate_is_one_of_the_socket_below(ends: Ends) -> None:
    counted, other = ends
    with counted.dup() as duplicate:
        duplicate.sendall(b"abc")
        assert other.recv(3) == b"abc"
        assert counted.traffic() == Traffic(0.0, 0, 0, False)


def test_all_ways_to_receive(ends: Ends, clock: Clock) -> None:
    counted, other = ends
    clock.time += 5
    for number, receive in enumerate(
        (
            lambda: counted.recv(3),
            lambda: counted.recv_into(bytearray(3)),
            lambda: counted.recv_into(bytearray(10), 3),
            lambda: counted.recvfrom(3),
            lambda: counted.recvmsg(3),
            lambda: counted.recvmsg_into([bytearray(3)]),
        ),
        1,
    ):
        other.sendall(b"abc")
        receive()
        assert counted.traffic() == Traffic(0.0, 3 * number, 0, False)


def test_the_end_of_a_stream_is_not_counted(ends: Ends, clock: Clock) -> None:
    counted, other = ends
    other.shutdown(socket.SHUT_WR)
    clock.time += 5
    assert counted.recv(100) == b""
    assert counted.traffic() == Traffic(5.0, 0, 0, False)


def test_all_ways_to_send(ends: Ends, clock: Clock, tmp_path: Path) -> None:
    counted, other = ends
    clock.time += 5
    path = tmp_path / "file"
    path.write_bytes(b"file")
    assert counted.send(b"abc") == 3
    counted.sendall(memoryview(array.array("H", [1, 2])))
    assert counted.sendmsg([b"ab", b"c"]) == 3
    with path.open("rb") as file:
        assert counted.sendfile(file) == 4
    assert counted.traffic() == Traffic(0.0, 0, 14, False)
    assert len(other.recv(100)) == 14


def test_a_send_in_progress_is_waiting_and_shows_its_progress(ends: Ends) -> None:
    counted, other = ends
    much = bytes(50 * PIECE)
    sending = Background(counted.sendall, much)
    seen = set()
    got = 0
    while got < len(much):
        got += len(other.recv(PIECE))
        seen.add(counted.traffic().delivered)
    sending.result()
    assert len(seen) > 1
    assert counted.traffic().delivered == len(much)
    assert not counted.traffic().waiting


def test_a_peer_that_does_not_read(ends: Ends) -> None:
    counted, other = ends
    sending = Background(counted.sendall, bytes(100 * PIECE))
    while not counted.traffic().waiting or sending_goes_on(counted):
        pass
    counted.shutdown(socket.SHUT_RDWR)
    with pytest.raises(BrokenPipeError):
        sending.result()
    assert not counted.traffic().waiting
    read_all(other)


def sending_goes_on(counted: CountedSocket) -> bool:
    before = counted.traffic().delivered
    return counted.traffic().delivered != before or before < PIECE


def test_a_time_limit_holds(ends: Ends) -> None:
    counted, _ = ends
    counted.settimeout(0.02)
    with pytest.raises(TimeoutError):
        counted.sendall(bytes(100 * PIECE))
    with pytest.raises(TimeoutError):
        counted.recv(1)
    counted.setblocking(False)
    with pytest.raises(BlockingIOError):
        counted.recv(1)


def test_a_time_limit_is_for_the_whole(ends: Ends, clock: Clock) -> None:
    counted, _ = ends
    counted.settimeout(5.0)
    send = counted.inner.send

    class Slow(socket.socket):
        def send(self, *arguments: object) -> int:  # type: ignore[override]
            clock.time += 3
            return send(*arguments)  # type: ignore[arg-type]

    with Slow() as slow, CountedSocket(slow, clock) as late:
        late.settimeout(5.0)
        with pytest.raises(TimeoutError):
            late.sendall(bytes(4 * PIECE))


def test_files_over_it(ends: Ends) -> None:
    counted, other = ends
    with counted.makefile("rwb", 0) as file:
        other.sendall(b"line\n")
        assert file.readline() == b"line\n"
        file.write(b"answer\n")
    assert other.recv(100) == b"answer\n"
    assert counted.traffic()[1:] == (5, 7, False)


def test_closing_it_closes_the_inner_socket(ends: Ends) -> None:
    counted, other = ends
    counted.close()
    assert counted.fileno() == counted.inner.fileno() == -1
    assert other.recv(1) == b""


# --- the kernel's counters --------------------------------------------------------------------------


def test_the_kernel_reports_only_tcp() -> None:
    one, other = socket.socketpair()
    with one, other:
        assert traffic_of(one) is None
    assert traffic_of(one) is None


@pytest.mark.skipif(not hasattr(socket, "TCP_INFO"), reason="TCP_INFO is Linux's")
def test_tcp() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
    with client, server:
        before = traffic_of(server)
        assert before is not None
        assert (before.received, before.delivered, before.waiting) == (0, 0, False)
        client.sendall(b"hello")
        assert server.recv(100) == b"hello"
        server.sendall(b"hi")
        assert client.recv(100) == b"hi"
        after = traffic_of(server)
        assert after is not None
        assert after.received == 5
        assert 0 <= after.quiet < LIMIT
    assert traffic_of(server) is None


def test_a_system_without_counters(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as sock:
        monkeypatch.setattr(tcpinfo, "_TCP_INFO", None)
        assert traffic_of(sock) is None


def test_an_older_kernel_reports_less(monkeypatch: pytest.MonkeyPatch) -> None:
    class Old(socket.socket):
        def getsockopt(self, *arguments: int) -> bytes:  # type: ignore[override]
            return bytes(104)

    with Old() as sock:
        assert traffic_of(sock) is None
