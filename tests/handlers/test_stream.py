"""``handlers.stream``: a connection as two files."""

from __future__ import annotations

import io
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import MagicMock, create_autospec

import pytest
from tests.clients import LIMIT, Background, connect, reset

from everserve.fibers.engines import FiberSocket
from everserve.handlers.stream import StreamRequestHandler

Pair = tuple[socket.socket, socket.socket]


@contextmanager
def connected(family: str) -> Iterator[Pair]:
    if family == "Unix":
        ours, peers = socket.socketpair()
    else:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            peers = connect(listener.getsockname())
            ours, _ = listener.accept()
    with ours, peers:
        peers.settimeout(LIMIT)
        yield ours, peers


@pytest.fixture(params=["TCP", "Unix"])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    with connected(request.param) as pair:
        yield pair


class Open(StreamRequestHandler):
    """Stays open until the test ends."""

    finishing = False

    def finish(self) -> None:
        if self.finishing:
            super().finish()

    def end(self) -> None:
        self.finishing = True
        self.finish()


def test_the_defaults() -> None:
    assert (StreamRequestHandler.rbufsize, StreamRequestHandler.wbufsize) == (-1, 0)
    assert StreamRequestHandler.timeout is None
    assert StreamRequestHandler.disable_nagle_algorithm is False


def test_reading_and_writing(pair: Pair) -> None:
    class Upper(StreamRequestHandler):
        def handle(self) -> None:
            for line in self.rfile:
                self.wfile.write(line.upper())

    ours, peers = pair
    peers.sendall(b"one\ntwo\n")
    peers.shutdown(socket.SHUT_WR)
    Upper(ours, "peer", None)
    ours.close()
    assert peers.makefile("rb").readlines() == [b"ONE\n", b"TWO\n"]


def test_the_connection_is_the_request(pair: Pair) -> None:
    handler = Open(pair[0], "peer", None)
    assert handler.connection is handler.request is pair[0]
    assert handler.wfile.fileno() == pair[0].fileno()
    handler.end()


def test_the_timeout(pair: Pair) -> None:
    class Impatient(Open):
        timeout = 0.001

    handler = Impatient(pair[0], "peer", None)
    assert pair[0].gettimeout() == 0.001
    with pytest.raises(TimeoutError):
        handler.rfile.read(1)
    handler.end()


def test_without_a_timeout_the_sockets_own_stays(pair: Pair) -> None:
    pair[0].settimeout(3)
    handler = Open(pair[0], "peer", None)
    assert pair[0].gettimeout() == 3
    handler.end()


@pytest.mark.parametrize("on", [True, False])
def test_the_nagle_algorithm(on: bool) -> None:
    class Prompt(Open):
        disable_nagle_algorithm = on

    with connected("TCP") as (ours, _):
        handler = Prompt(ours, "peer", None)
        assert bool(ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)) is on
        handler.end()


@pytest.mark.parametrize("rbufsize", [-1, 100, 0])
def test_the_read_buffer(pair: Pair, rbufsize: int) -> None:
    ours, peers = pair
    handler = type("Handler", (Open,), {"rbufsize": rbufsize})(ours, "peer", None)
    peers.sendall(b"one\ntwo\n")
    assert handler.rfile.readline() == b"one\n"
    if rbufsize == 0:  # nothing is read ahead: the rest is still in the socket
        assert ours.recv(100) == b"two\n"
    else:
        assert handler.rfile.readline() == b"two\n"
    handler.end()
    assert handler.rfile.closed


def test_the_write_buffer_is_sent_at_the_end(pair: Pair) -> None:
    class Buffered(Open):
        wbufsize = 1000

        def handle(self) -> None:
            self.wfile.write(b"later")

    ours, peers = pair
    handler = Buffered(ours, "peer", None)
    peers.setblocking(False)
    with pytest.raises(BlockingIOError):
        peers.recv(100)
    peers.settimeout(LIMIT)
    handler.end()
    assert peers.recv(100) == b"later"
    assert handler.wfile.closed


def test_without_a_write_buffer_a_write_is_sent_whole_at_once(pair: Pair) -> None:
    ours, peers = pair
    handler = Open(ours, "peer", None)
    whole = bytes(range(256)) * 20_000
    received = Background(peers.makefile("rb").read, len(whole))
    assert handler.wfile.write(whole) == len(whole)
    assert received.result() == whole
    assert handler.wfile.writable()
    assert isinstance(handler.wfile, io.BufferedIOBase)
    handler.end()


@pytest.mark.parametrize("data", [b"abcd", bytearray(b"abcd"), memoryview(b"abcd").cast("H")])
def test_a_write_counts_bytes(pair: Pair, data: Any) -> None:
    handler = Open(pair[0], "peer", None)
    assert handler.wfile.write(data) == 4
    assert pair[1].recv(100) == b"abcd"
    handler.end()


def test_text_is_refused(pair: Pair) -> None:
    handler = Open(pair[0], "peer", None)
    with pytest.raises(TypeError):
        handler.wfile.write("text")
    handler.end()


def test_a_peer_that_disconnects_before_the_last_bytes(pair: Pair) -> None:
    class LastWord(StreamRequestHandler):
        wbufsize = 1000

        def handle(self) -> None:
            reset(peers)
            self.wfile.write(b"last")
            try:
                self.connection.sendall(b"x" * 10)
            except OSError:
                pass

    ours, peers = pair
    LastWord(ours, "peer", None)


@pytest.mark.parametrize("wbufsize", [0, 1000])
def test_a_handler_may_close_its_files(pair: Pair, wbufsize: int) -> None:
    class Closing(StreamRequestHandler):
        def handle(self) -> None:
            self.wfile.write(b"all")
            self.wfile.close()
            self.rfile.close()

    Closing.wbufsize = wbufsize
    Closing(pair[0], "peer", None)
    assert pair[1].recv(100) == b"all"


@pytest.mark.parametrize(
    "pretend",
    [
        lambda: MagicMock(spec=socket.socket),
        lambda: create_autospec(socket.socket, instance=True),
        lambda: MagicMock(spec=FiberSocket),
    ],
)
def test_what_only_claims_to_be_a_socket_is_used_through_its_methods(pretend: Any) -> None:
    class Echo(StreamRequestHandler):
        def handle(self) -> None:
            for line in self.rfile:
                self.wfile.write(line)

    request = pretend()
    request.makefile.return_value = io.BytesIO(b"one\n")
    Echo(request, "peer", None)
    request.makefile.assert_called_once_with("rb", -1)
    request.sendall.assert_called_once_with(b"one\n")


def test_a_subclass_of_socket_makes_its_own_files(pair: Pair) -> None:
    class Shouting(socket.socket):
        def makefile(self, *arguments: Any, **keywords: Any) -> Any:
            return io.BytesIO(super().makefile(*arguments, **keywords).read().upper())

    class Reading(StreamRequestHandler):
        def handle(self) -> None:
            lines.extend(self.rfile)

    lines: list[bytes] = []
    pair[1].sendall(b"one\n")
    pair[1].shutdown(socket.SHUT_WR)
    with Shouting(fileno=socket.dup(pair[0].fileno())) as request:
        Reading(request, "peer", None)
    assert lines == [b"ONE\n"]


@pytest.mark.parametrize("coalesce", [False, True])
def test_a_write_after_the_handler_is_the_sockets_affair(pair: Pair, coalesce: bool) -> None:
    class Short(StreamRequestHandler):
        coalesce_writes = coalesce

    handler = Short(pair[0], "peer", None)
    assert handler.wfile.closed
    handler.wfile.write(b"late")
    assert pair[1].recv(100) == b"late"
    pair[0].close()
    with pytest.raises(OSError, match="descriptor"):  # broadcasts catch it
        handler.wfile.write(b"too late")


def test_a_buffered_write_after_the_handler_is_an_error_at_once(pair: Pair) -> None:
    class Short(StreamRequestHandler):
        wbufsize = 100

    with pytest.raises(ValueError, match="closed"):
        Short(pair[0], "peer", None).wfile.write(b"late")
