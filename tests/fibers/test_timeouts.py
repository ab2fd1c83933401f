"""`Timeout` in a plain thread, as in the handlers of serial, threaded and forked servers."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.clients import Background

from everserve.errors import FiberTimeout
from everserve.fibers import threadwaits
from everserve.fibers.locks import Lock
from everserve.fibers.sync import Event, Queue, Semaphore, sleep
from everserve.fibers.timeouts import Timeout
from everserve.sockets.counted import CountedSocket
from everserve.streams import open_stream

LIMIT = 20.0


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """The socket that this thread serves, and its peer."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        peer = socket.create_connection(listener.getsockname())
        request, _ = listener.accept()
    with request, peer:
        threadwaits.serve(request)
        yield request, peer
    threadwaits.serve(None)


def waits() -> dict[str, Callable[[], object]]:
    taken = Lock()
    taken.acquire()
    return {
        "sleep": lambda: sleep(60),
        "event": Event().wait,
        "queue": Queue[int]().get,
        "semaphore": Semaphore(0).acquire,
        "lock": taken.acquire,
    }


@pytest.mark.parametrize("name", list(waits()))
def test_it_ends_every_wait_of_a_thread(name: str, parts: Any) -> None:
    block = Timeout(0.001)
    with pytest.raises(FiberTimeout) as caught, block:
        waits()[name]()
    assert caught.value.timeout is block
    assert block.expired
    assert not threadwaits.here.limits


def test_nested_blocks_of_a_thread_end_each_by_its_own_time() -> None:
    with pytest.raises(FiberTimeout) as caught, Timeout(0.001) as outer, Timeout(60) as inner:
        sleep(60)
    assert caught.value.timeout is outer
    assert not inner.expired
    with Timeout(60):
        with pytest.raises(FiberTimeout), Timeout(0.001):
            sleep(60)
        sleep(0.001)  # the rest of the outer block has its own time
    with Timeout(None), Timeout(60):
        sleep(0)


def test_it_is_raised_once_so_that_the_block_can_clean_up() -> None:
    with Timeout(0.001) as block:
        with pytest.raises(FiberTimeout):
            sleep(60)
        assert not Event().wait(0.001)
    assert block.expired


Ends = tuple[socket.socket, socket.socket]


def test_it_ends_a_read_of_the_request_and_loses_nothing(ends: Ends, parts: Any) -> None:
    request, peer = ends
    rfile, wfile = open_stream(request, coalesce=False)
    peer.sendall(b"hel")
    with pytest.raises(FiberTimeout), Timeout(0.02):
        rfile.readline()
    peer.sendall(b"lo\n")
    with Timeout(LIMIT):
        assert rfile.readline() == b"hello\n"
    assert type(request) is socket.socket
    rfile.close()
    wfile.close()


def test_a_peer_that_sends_byte_by_byte_does_not_prolong_it(ends: Ends) -> None:
    request, peer = ends
    rfile, wfile = open_stream(request, coalesce=False)
    began = time.monotonic()

    def trickle() -> None:
        while time.monotonic() < began + LIMIT:
            try:
                peer.sendall(b"x")
            except OSError:
                return
            time.sleep(0.001)

    sender = Background(trickle)
    with pytest.raises(FiberTimeout), Timeout(0.05):
        rfile.readline()
    rfile.close()
    wfile.close()
    request.close()
    sender.result()


def test_it_ends_a_write_of_the_request(ends: Ends) -> None:
    request, _peer = ends
    rfile, wfile = open_stream(request, coalesce=False)
    much = b"x" * (64 << 20)  # more than the kernel keeps for a peer that does not read
    with pytest.raises(FiberTimeout), Timeout(0.02):
        wfile.write(much)
    rfile.close()
    with pytest.raises(FiberTimeout), Timeout(0.02):
        request.sendall(much)
    assert request.gettimeout() is None
    wfile.close()


def test_the_methods_of_the_request_keep_their_own_time_limit(ends: Ends) -> None:
    request, peer = ends
    request.settimeout(0.001)
    with Timeout(LIMIT), pytest.raises(TimeoutError) as caught:
        request.recv(1)
    assert not isinstance(caught.value, FiberTimeout)
    request.settimeout(0.0)
    with Timeout(LIMIT), pytest.raises(BlockingIOError):
        request.recv(1)
    request.settimeout(LIMIT)
    peer.sendall(b"ab")
    with Timeout(LIMIT):
        assert request.recv(1) == b"a"
        assert request.recv_into(bytearray(1)) == 1
        assert 0 < (request.gettimeout() or 0) <= LIMIT
    request.close()
    with Timeout(LIMIT), pytest.raises(OSError):
        request.recv(1)


def test_another_thread_that_uses_the_request_is_not_limited(ends: Ends) -> None:
    request, peer = ends
    with Timeout(0.001):
        reader = Background(request.recv, 10)
        with pytest.raises(FiberTimeout):
            sleep(60)
        sender = Background(request.sendall, b"there")
        sender.result()
    peer.sendall(b"hello")
    assert reader.result() == b"hello"


def test_it_reaches_the_socket_below_a_layer(ends: Ends) -> None:
    request, _peer = ends
    layer = CountedSocket(request)
    threadwaits.serve(layer)
    with pytest.raises(FiberTimeout), Timeout(0.001):
        layer.recv(1)
    assert type(request) is socket.socket


def test_it_ends_the_wait_of_a_fibers_socket_in_a_thread(parts: Any) -> None:
    ours, peer = socket.socketpair()
    with parts.FiberSocket.adopt(ours) as adopted, peer:
        with pytest.raises(FiberTimeout), Timeout(0.001):
            adopted.recv(1)
        adopted.settimeout(0.001)
        with Timeout(LIMIT), pytest.raises(TimeoutError, match="timed out"):
            adopted.recv(1)
