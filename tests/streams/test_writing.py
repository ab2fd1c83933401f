"""The writing half: unbuffered, buffered, or coalescing until the fiber waits."""

from __future__ import annotations

import contextlib
import io
import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest
from tests.clients import Background

from everserve.errors import FiberTimeout
from everserve.fibers.exits import FiberExit
from everserve.fibers.offloading import offload
from everserve.fibers.sync import Event, Queue, sleep
from everserve.fibers.timeouts import Timeout


def nothing_has_come(peer: socket.socket) -> bool:
    peer.setblocking(False)
    try:
        return not peer.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return True
    finally:
        peer.settimeout(20)


def receive(peer: socket.socket, size: int) -> bytes:
    got = b""
    while len(got) < size:
        data = peer.recv(size - len(got))
        assert data, got
        got += data
    return got


def swap(kind: str, text: bytes) -> bytes:
    return text.swapcase() if kind == "methods" else text


def write_until_it_fails(writer: Any, size: int) -> None:
    while True:
        writer.write(b"x" * size)


def test_unbuffered_writes_are_sent_at_once(ends: Any) -> None:
    reader, writer = ends.open(ends.ours)
    with reader, writer:
        assert writer.write(b"abc") == 3
        assert receive(ends.peer, 3) == swap(ends.kind, b"abc")
        assert writer.write(memoryview(bytearray(b"de"))) == 2
        assert writer.write(b"") == 0
        writer.writelines([b"f", b"g"])
        assert receive(ends.peer, 4) == swap(ends.kind, b"defg")
        with pytest.raises(TypeError):
            writer.write("text")


def test_buffered_writes_are_sent_when_flushed_or_full(ends: Any) -> None:
    reader, writer = ends.open(ends.ours, wbufsize=10)
    with reader:
        writer.write(b"12345")
        assert writer.buffered == 5
        assert nothing_has_come(ends.peer)
        writer.write(b"678901")
        assert receive(ends.peer, 5) == b"12345"
        writer.flush()
        assert receive(ends.peer, 6) == b"678901"
        writer.write(b"more than ten bytes")
        assert receive(ends.peer, 19) == swap(ends.kind, b"more than ten bytes")
        writer.write(b"end")
        writer.close()
        assert receive(ends.peer, 3) == swap(ends.kind, b"end")


def test_coalesced_writes_are_sent_before_a_read(ends: Any) -> None:
    if ends.kind == "fiber":
        pytest.skip("outside of a fiber nothing is buffered")
    reader, writer = ends.open(ends.ours, coalesce=True)
    with reader, writer:
        writer.write(b"a")
        writer.write(b"b")
        assert nothing_has_come(ends.peer)
        ends.peer.sendall(b"\n")
        assert reader.readline() == b"\n"
        assert receive(ends.peer, 2) == swap(ends.kind, b"ab")
        writer.write(b"c")
        writer.flush()
        assert receive(ends.peer, 1) == swap(ends.kind, b"c")


def test_coalesced_writes_are_sent_at_64_kib_and_in_order(ends: Any) -> None:
    reader, writer = ends.open(ends.ours, coalesce=True)
    got: list[bytes] = []
    total = 3_000_000
    thread = threading.Thread(target=lambda: got.append(receive(ends.peer, total)))
    thread.start()
    sent = bytearray()
    number = 0
    with reader, writer:
        while len(sent) < total:
            piece = (b"%d," % number) * (1 if number % 50 else 12_000)
            piece = piece[: total - len(sent)]
            writer.write(piece)
            sent += piece
            number += 1
            assert writer.buffered <= 65536
    thread.join()
    assert got == [sent]


WAITS: dict[str, Callable[[Any], object]] = {
    "sleep": lambda _ours: sleep(0.001),
    "yield": lambda _ours: sleep(0),
    "event": lambda _ours: Event().wait(0.001),
    "offload": lambda _ours: offload(int),
    "recv": lambda ours: ours.recv(1),
    "recvfrom": lambda ours: ours.recvfrom(1),
    "end": lambda _ours: None,
}


@pytest.mark.parametrize("how", WAITS)
def test_nothing_stays_buffered_while_the_fiber_waits(fiber_ends: Any, hub: Any, how: str) -> None:
    ours, peer = fiber_ends.ours, fiber_ends.peer
    streams: list[Any] = []

    def handler() -> None:
        streams.extend(fiber_ends.open(ours, coalesce=True))
        streams[1].write(b"held")
        streams[1].write(b" back")
        assert nothing_has_come(peer)
        WAITS[how](ours)

    fiber = hub.spawn(handler)
    hub.turn(0)
    assert receive(peer, 9) == b"held back"
    peer.sendall(b"x")
    assert fiber.join(20)
    for half in streams:
        half.close()


def test_what_a_thread_writes_beside_the_fibers_is_sent_at_once(fiber_ends: Any, hub: Any) -> None:
    def handler() -> None:
        reader, writer = fiber_ends.open(fiber_ends.ours, coalesce=True)
        with reader, writer:
            offload(writer.write, b"thread,")
            assert receive(fiber_ends.peer, 7) == b"thread,"
            writer.write(b"fiber")
            sleep(0)
            assert receive(fiber_ends.peer, 5) == b"fiber"

    assert hub.spawn(handler).join(20)


def test_a_thread_may_write_as_a_fiber_begins_to_send(
    parts: Any, hub: Any, fiber_ends: Any
) -> None:
    class Interrupted(parts.FiberSocket):  # type: ignore[misc, name-defined]
        def sendall(self, data: Any, flags: int = 0) -> None:
            if not threads:
                threads.append(Background(writer.write, b"thread,"))
                threads[0].result()
            super().sendall(data, flags)

    threads: list[Background] = []
    sock = Interrupted(fileno=fiber_ends.ours.detach())
    reader, writer = fiber_ends.open(sock, coalesce=True)

    def handler() -> None:
        writer.write(b"fiber,")
        writer.flush()

    fiber = hub.spawn(handler)
    assert fiber.join(20)
    assert receive(fiber_ends.peer, 13) == b"fiber,thread,"
    for half in (reader, writer, sock):
        half.close()


@pytest.mark.parametrize("error", [FiberExit, SystemExit, LookupError])
def test_the_last_bytes_of_a_fiber_are_sent_for_every_end(
    fiber_ends: Any, parts: Any, error: type[BaseException]
) -> None:
    peer = fiber_ends.peer
    hub = parts.Hub(on_error=lambda _fiber, _error: None)
    reader, writer = fiber_ends.open(fiber_ends.ours, coalesce=True)

    def member() -> None:
        try:
            sleep(60)
        finally:
            writer.write(b"gone")

    def another() -> None:
        writer.write(b"more")
        sleep(0)

    with reader, writer:
        fiber = hub.spawn(member)
        hub.turn(0)
        fiber.kill(error)
        assert fiber.join(20)
        assert receive(peer, 4) == b"gone"
        assert hub.spawn(another).join(20)
        assert receive(peer, 4) == b"more"
    hub.close()


def test_raw_sends_keep_the_order(fiber_ends: Any, hub: Any) -> None:
    ours, peer = fiber_ends.ours, fiber_ends.peer

    def handler() -> None:
        reader, writer = fiber_ends.open(ours, coalesce=True)
        with reader, writer:
            writer.write(b"1")
            ours.sendall(b"2")
            writer.write(b"3")
            ours.send(b"4")
            writer.write(b"5")
            ours.sendmsg([b"6"])
            writer.write(b"7")
            ours.shutdown(socket.SHUT_WR)

    assert hub.spawn(handler).join(20)
    assert receive(peer, 7) == b"1234567"
    assert peer.recv(1) == b""


def test_nothing_stays_buffered_while_the_fiber_waits_for_a_queue(
    fiber_ends: Any, hub: Any
) -> None:
    items: Queue[bytes] = Queue()
    reader, writer = fiber_ends.open(fiber_ends.ours, coalesce=True)

    def writes() -> None:
        while item := items.get():
            writer.write(item)

    def other() -> None:
        writer.write(b"from another ")
        items.put(b"fiber")
        sleep(0.001)

    fiber = hub.spawn(writes)
    hub.spawn(other)
    hub.turn(0)
    hub.turn(1)
    assert receive(fiber_ends.peer, 18) == b"from another fiber"
    items.put(b"")
    assert fiber.join(20)
    reader.close()
    writer.close()


def test_a_peer_that_does_not_read_parks_the_writer(fiber_ends: Any, hub: Any) -> None:
    reader, writer = fiber_ends.open(fiber_ends.ours, coalesce=True)
    written = 0

    def floods() -> None:
        nonlocal written
        while True:
            written += writer.write(b"x" * 1000)

    fiber = hub.spawn(floods)
    while not fiber.parked:
        hub.turn(0)
    for _ in range(10):
        hub.turn(0)
    before = written
    hub.turn(0)
    assert written == before
    assert writer.buffered <= 65536
    fiber.kill()
    assert fiber.join(20)
    fiber_ends.ours.shutdown(socket.SHUT_RDWR)
    reader.close()
    with pytest.raises(OSError, match=r"."):
        write_until_it_fails(writer, 70_000)
    writer.close()


def test_two_fibers_that_write_do_not_mix_their_pieces(fiber_ends: Any, hub: Any) -> None:
    reader, writer = fiber_ends.open(fiber_ends.ours, coalesce=True)
    pieces = 300
    size = 9_000

    def writes(letter: bytes) -> None:
        for _ in range(pieces):
            writer.write(letter * (size - 1) + b"\n")

    fibers = [hub.spawn(writes, letter) for letter in (b"a", b"b", b"c")]
    lines: list[bytes] = []
    thread = threading.Thread(
        target=lambda: lines.extend(
            receive(fiber_ends.peer, pieces * size * 3).splitlines(keepends=True)
        )
    )
    thread.start()
    for fiber in fibers:
        assert fiber.join(30)
    thread.join()
    assert len(lines) == pieces * 3
    assert set(lines) == {c * (size - 1) + b"\n" for c in (b"a", b"b", b"c")}
    reader.close()
    writer.close()


def test_threads_share_a_buffered_writer(ends: Any) -> None:
    if ends.kind == "fiber":
        pytest.skip("fibers have their own test")
    reader, writer = ends.open(ends.ours, coalesce=True)
    got: list[bytes] = []
    receiver = threading.Thread(target=lambda: got.append(receive(ends.peer, 4 * 500 * 400)))
    receiver.start()

    def writes(letter: bytes) -> None:
        for _ in range(500):
            writer.write(letter * 399 + b"\n")
            writer.flush()

    threads = [
        threading.Thread(target=writes, args=(letter,)) for letter in (b"1", b"2", b"3", b"4")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    receiver.join()
    assert {len(line) for line in got[0].splitlines()} == {399}
    reader.close()
    writer.close()


def test_an_error_of_sending_is_raised_by_the_next_write(fiber_ends: Any, hub: Any) -> None:
    ours, peer = fiber_ends.ours, fiber_ends.peer
    seen: list[str] = []

    def handler() -> None:
        reader, writer = fiber_ends.open(ours, coalesce=True)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0" + bytes(4))
        peer.close()
        writer.write(b"x")
        sleep(0.001)
        try:
            writer.write(b"y")
            writer.flush()
        except OSError as error:
            seen.append(type(error).__name__)
        reader.close()
        writer.close()

    assert hub.spawn(handler).join(20)
    assert len(seen) == 1


def test_a_timeout_block_ends_the_wait_that_begins_with_sending(fiber_ends: Any, hub: Any) -> None:
    """A wait first sends the buffered bytes; if the peer reads nothing, it waits for that."""
    fill_up(fiber_ends.ours)
    raised: list[object] = []

    def handler() -> None:
        reader, writer = fiber_ends.open(fiber_ends.ours, coalesce=True)
        for wait in (lambda: sleep(60), reader.readline):
            block = Timeout(0.02)
            try:
                with block:
                    writer.write(b"x" * 60_000)
                    wait()
            except FiberTimeout as error:
                raised.append(error.timeout is block)
            with pytest.raises(FiberTimeout):
                writer.write(b"after a gap")
        reader.close()
        writer.close()

    assert hub.spawn(handler).join(20)
    assert raised == [True, True]


def fill_up(sock: Any) -> None:
    """Fill the kernel's buffers for `sock`, of a size that does not grow meanwhile (tcp(7))."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
    sock.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            sock.send(b"x" * 4096)
    sock.setblocking(True)


def test_closing_raises_once_and_releases_the_socket(ends: Any) -> None:
    reader, writer = ends.open(ends.ours, coalesce=True)
    writer.write(b"x")
    ends.ours.shutdown(socket.SHUT_RDWR)
    if writer.buffered:
        with pytest.raises(OSError, match=r"."):
            writer.close()
    writer.close()
    reader.close()
    ends.ours.close()
    assert ends.ours.fileno() == -1


def test_a_write_has_the_timeout_of_the_socket(ends: Any) -> None:
    ends.ours.settimeout(0.05)
    reader, writer = ends.open(ends.ours, coalesce=True)
    with pytest.raises(TimeoutError):
        write_until_it_fails(writer, 100_000)
    with pytest.raises(TimeoutError):
        write_until_it_fails(writer, 1000)
    reader.close()
    ends.ours.shutdown(socket.SHUT_RDWR)
    ends.peer.close()
    writer.close()


def test_it_is_a_binary_file(ends: Any) -> None:
    reader, writer = ends.open(ends.ours)
    assert isinstance(writer, io.BufferedIOBase)
    assert writer.writable()
    assert not writer.readable()
    assert writer.mode == "wb"
    assert writer.fileno() == ends.ours.fileno()
    for call in (writer.read, writer.readline):
        with pytest.raises(io.UnsupportedOperation):
            call()
    with io.TextIOWrapper(writer, encoding="ascii", write_through=True) as text:
        text.write("text")
        text.flush()
        assert receive(ends.peer, 4) == swap(ends.kind, b"text")
    assert writer.closed
    for use in (writer.flush, writer.writable, writer.fileno):
        with pytest.raises(ValueError, match="closed"):
            use()
    reader.close()
    assert ends.ours.fileno() >= 0


def test_messages_are_not_sent_together(parts: Any, hub: Any) -> None:
    accepted, peer = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def writes() -> None:
        for message in (b"one", b"two"):
            writer.write(message)

    with parts.FiberSocket.adopt(accepted) as ours, peer:
        reader, writer = parts.streams.open_stream(ours, coalesce=True)
        assert hub.spawn(writes).join(20)
        assert (peer.recv(100), peer.recv(100)) == (b"one", b"two")
        reader.close()
        writer.close()
