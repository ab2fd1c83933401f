"""What a handler, or another thread, does to a connection in use ends its calls in an error.

A call on a descriptor that was detached or closed never waits for it, in clear and over TLS.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
from tests.certificates import Certificates
from tests.clients import Background

from everserve.sockets.tls import TLS


class Connection(NamedTuple):
    """The socket under test with its stream, and the other end."""

    ours: Any
    reader: Any
    writer: Any
    peer: socket.socket


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


def secured(parts: Any, certificates: Certificates, inner: Any, peer: Any) -> tuple[Any, Any]:
    """Both ends after their handshake."""
    tls = TLS(*certificates.server)
    kind = {"records": parts.Records, "kind": parts.FiberTLSSocket}
    ours = tls.wrap(inner, write_lock=parts.Semaphore(1), **kind)
    context = certificates.client_context()
    client = Background(context.wrap_socket, peer, server_hostname="localhost")
    ours.do_handshake()
    return ours, client.result()


@pytest.fixture(params=["clear", "TLS"])
def connection(
    request: pytest.FixtureRequest, parts: Any, certificates: Certificates
) -> Iterator[Connection]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        peer = socket.create_connection(listener.getsockname(), timeout=20)
        accepted, _address = listener.accept()
    ours = parts.FiberSocket.adopt(accepted)
    if request.param == "TLS":
        ours, peer = secured(parts, certificates, ours, peer)
    reader, writer = parts.streams.open_stream(ours, coalesce=True)
    yield Connection(ours, reader, writer, peer)
    for file in (reader, writer):
        with contextlib.suppress(OSError):
            file.close()
    ours.close()
    peer.close()


READS: dict[str, Callable[[Connection], object]] = {
    "recv": lambda it: it.ours.recv(10),
    "recv_into": lambda it: it.ours.recv_into(bytearray(10)),
    "read": lambda it: it.reader.read(),
    "read(10)": lambda it: it.reader.read(10),
    "read(100000)": lambda it: it.reader.read(100_000),
    "read1": lambda it: it.reader.read1(),
    "peek": lambda it: it.reader.peek(),
    "readinto": lambda it: it.reader.readinto(bytearray(10)),
    "readline": lambda it: it.reader.readline(),
    "next": lambda it: next(it.reader),
}
WRITES: dict[str, Callable[[Connection], object]] = {
    "send": lambda it: it.ours.send(b"x"),
    "sendall": lambda it: it.ours.sendall(b"x"),
    "write": lambda it: (it.writer.write(b"x"), it.writer.flush()),
    "long write": lambda it: (it.writer.write(b"x" * 100_000), it.writer.flush()),
}
LONG_WRITES: dict[str, Callable[[Connection], object]] = {
    "sendall": lambda it: it.ours.sendall(bytes(1 << 24)),
    "write": lambda it: it.writer.write(bytes(1 << 24)),
}
LOSSES: dict[str, Callable[[Connection], object]] = {
    "detach": lambda it: os.close(it.ours.detach()),
    "close": lambda it: it.ours._real_close(),
}
MODES: dict[str, Callable[[Connection], object]] = {
    "settimeout(0)": lambda it: it.ours.settimeout(0),
    "setblocking(False)": lambda it: it.ours.setblocking(False),
}


def refused(call: Callable[[Connection], object], connection: Connection) -> Callable[[], None]:
    """Call, and expect that the descriptor is gone; also when it is called again."""

    def check() -> None:
        for _attempt in range(2):
            with pytest.raises(OSError) as raised:
                call(connection)
            assert raised.value.errno == errno.EBADF

    return check


def lose_when_idle(hub: Any, lose: Callable[[Connection], object], connection: Connection) -> None:
    """From a thread, while the hub waits in the kernel."""
    while not hub.idle:
        time.sleep(0)
    lose(connection)


@pytest.mark.parametrize("where", ["fiber", "thread"])
@pytest.mark.parametrize("lost", LOSSES)
@pytest.mark.parametrize("name", READS | WRITES)
def test_a_call_after_the_descriptor_is_lost(
    hub: Any, connection: Connection, name: str, lost: str, where: str
) -> None:
    LOSSES[lost](connection)
    check = refused((READS | WRITES)[name], connection)
    if where == "thread":
        Background(check).result()
    else:
        assert hub.spawn(check).join(10)


@pytest.mark.parametrize("by", ["fiber", "thread"])
@pytest.mark.parametrize("lost", LOSSES)
@pytest.mark.parametrize("name", READS | {f"long {name}": w for name, w in LONG_WRITES.items()})
def test_a_call_that_waits_while_the_descriptor_is_lost(
    hub: Any, connection: Connection, name: str, lost: str, by: str
) -> None:
    call = READS.get(name) or LONG_WRITES[name.removeprefix("long ")]
    waiting = hub.spawn(refused(call, connection))
    for _turn in range(50):  # a long write fills the buffers of the kernel first
        hub.turn(0)
    assert waiting.parked
    late: list[bool] = []
    hub.call_at(time.monotonic() + 10, lambda: late.append(True))
    if by == "fiber":
        hub.spawn(LOSSES[lost], connection)
        assert waiting.join(10)
    else:
        thread = Background(lose_when_idle, hub, LOSSES[lost], connection)
        assert waiting.join(20)
        thread.result()
    assert not late  # it was woken, not found by chance when the hub woke for another reason


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", READS)
def test_a_read_on_a_socket_made_non_blocking_does_not_wait(
    hub: Any, connection: Connection, name: str, mode: str
) -> None:
    MODES[mode](connection)
    ended: list[object] = []

    def read() -> None:
        try:
            ended.append(READS[name](connection))
        except (OSError, StopIteration) as error:
            ended.append(error)

    assert hub.spawn(read).join(10)
    assert ended


def test_a_duplicate_goes_on_where_the_socket_was_closed(parts: Any, hub: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        peer = socket.create_connection(listener.getsockname(), timeout=20)
        ours = parts.FiberSocket.adopt(listener.accept()[0])
    got: list[bytes] = []

    def use() -> None:
        with ours.dup() as duplicate:
            waiting = hub.spawn(lambda: got.append(duplicate.recv(10)))
            hub.yield_turn()
            ours.close()
            with pytest.raises(OSError, match="Bad file"):
                ours.recv(10)
            peer.sendall(b"x")
            assert waiting.join(10)

    assert hub.spawn(use).join(10)
    assert got == [b"x"]
    peer.close()
