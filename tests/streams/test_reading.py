"""The reading half: it reads what io.BufferedReader reads, for any pieces in which the bytes arrive."""

from __future__ import annotations

import gc
import io
import pickle
import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from everserve.errors import FiberTimeout, LineTooLong
from everserve.fibers.timeouts import Timeout

TEXT = b"first line\nsecond\n\nlast without end"

READS = st.one_of(
    st.tuples(st.just("read"), st.integers(-1, 30)),
    st.tuples(st.just("readline"), st.integers(-1, 30)),
    st.tuples(st.just("readinto"), st.integers(0, 30)),
    st.tuples(st.just("next"), st.just(0)),
)


def apply(file: Any, name: str, size: int) -> Any:
    if name == "next":
        return next(file, b"")
    if name == "readinto":
        target = bytearray(size)
        return file.readinto(target), bytes(target)
    return getattr(file, name)(size)


def swap(kind: str, text: bytes) -> bytes:
    return text.swapcase() if kind == "methods" else text


def send_in_pieces(peer: socket.socket, pieces: list[bytes]) -> None:
    for piece in pieces:
        peer.sendall(piece)
    peer.shutdown(socket.SHUT_WR)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    pieces=st.lists(
        st.lists(st.sampled_from([b"a", b"bc", b"\n", b"\0", b"defghij"]), max_size=8).map(
            b"".join
        ),
        max_size=8,
    ),
    reads=st.lists(READS, max_size=12),
)
def test_any_split_reads_as_io_does(
    parts: Any, pieces: list[bytes], reads: list[tuple[str, int]]
) -> None:
    reference = io.BufferedReader(io.BytesIO(b"".join(pieces)))  # type: ignore[arg-type]
    left, peer = socket.socketpair()
    ours = parts.FiberSocket.adopt(left)
    hub = parts.Hub()
    results: list[Any] = []

    def reads_all() -> None:
        reader, writer = parts.streams.open_stream(ours)
        with reader, writer:
            results.extend(apply(reader, *read) for read in reads)
            results.append(reader.read())

    with ours, peer:
        fiber = hub.spawn(reads_all)
        for piece in pieces:
            hub.turn(0)
            peer.sendall(piece)
        peer.shutdown(socket.SHUT_WR)
        assert fiber.join(20)
    hub.close()
    assert results == [apply(reference, *read) for read in reads] + [reference.read()]


def test_lines(ends: Any) -> None:
    send_in_pieces(ends.peer, [swap(ends.kind, TEXT)])
    reader, writer = ends.open(ends.ours)
    with reader, writer:
        assert list(reader) == TEXT.splitlines(keepends=True)
        assert reader.readline() == b""


def test_readlines_stops_at_the_hint(ends: Any) -> None:
    send_in_pieces(ends.peer, [swap(ends.kind, TEXT)])
    reader, writer = ends.open(ends.ours)
    with reader, writer:
        reference = io.BufferedReader(io.BytesIO(TEXT))  # type: ignore[arg-type]
        for hint in (10, 11, None):
            assert reader.readlines(hint) == reference.readlines(hint)


def test_peek_and_read1_take_what_is_there(ends: Any) -> None:
    ends.peer.sendall(swap(ends.kind, b"abcdef"))
    reader, writer = ends.open(ends.ours)
    target = bytearray(2)
    with reader, writer:
        assert reader.peek() == b"abcdef"
        assert reader.peek(1)[:1] == b"a"
        assert reader.read1(2) == b"ab"
        assert reader.read1(0) == b""
        assert reader.readinto1(target) == 2
        assert target == b"cd"
        assert reader.read1() == b"ef"
        ends.peer.shutdown(socket.SHUT_WR)
        assert reader.peek() == b""
        assert reader.read1() == b""
        assert reader.readinto1(target) == 0


def test_large_reads(ends: Any) -> None:
    payload = bytes(range(65, 91)) * 40_000
    thread = threading.Thread(target=send_in_pieces, args=(ends.peer, [swap(ends.kind, payload)]))
    thread.start()
    reader, writer = ends.open(ends.ours)
    with reader, writer:
        assert reader.read(10) == payload[:10]
        assert reader.read(500_000) == payload[10:500_010]
        target = bytearray(100_000)
        assert reader.readinto(target) == 100_000
        assert target == payload[500_010:600_010]
        assert reader.read() == payload[600_010:]
        assert reader.read(200_000) == b""
    thread.join()


def test_long_lines(ends: Any) -> None:
    line = b"x" * 300_000 + b"\n"
    thread = threading.Thread(target=send_in_pieces, args=(ends.peer, [swap(ends.kind, line * 2)]))
    thread.start()
    reader, writer = ends.open(ends.ours)
    with reader, writer:
        assert reader.readline(100) == b"x" * 100
        assert reader.readline(200_000) == b"x" * 200_000
        assert reader.readline() == line[200_100:]
        assert next(reader) == line
        assert next(reader, None) is None
    thread.join()


def test_a_line_beyond_the_limit_raises(ends: Any) -> None:
    ends.peer.sendall(swap(ends.kind, b"12345678\n123456789\n"))
    reader, writer = ends.open(ends.ours, max_line=9)
    with reader, writer:
        assert reader.max_line == 9
        assert next(reader) == b"12345678\n"
        with pytest.raises(LineTooLong, match="more than 9 bytes"):
            next(reader)
        with pytest.raises(ValueError, match="max_line"):
            reader.readline()
        assert reader.readline(100) == b"123456789\n"
        ends.peer.sendall(b"0" * 50_000)
        with pytest.raises(LineTooLong):
            reader.readlines()
        reader.max_line = None
        ends.peer.sendall(b"\n")
        assert len(reader.readline()) == 50_001


def test_it_is_a_binary_file(ends: Any) -> None:
    reader, writer = ends.open(ends.ours)
    assert isinstance(reader, io.BufferedIOBase)
    assert reader.readable()
    assert not reader.writable()
    assert not reader.seekable()
    assert not reader.isatty()
    assert reader.fileno() == ends.ours.fileno() == reader.name
    assert reader.mode == "rb"
    assert reader.flush() is None
    for call in (reader.tell, lambda: reader.seek(0), reader.truncate, reader.detach):
        with pytest.raises(io.UnsupportedOperation):
            call()
    with pytest.raises(io.UnsupportedOperation):
        reader.write(b"x")
    with pytest.raises(TypeError):
        pickle.dumps(reader)
    with pytest.raises(ValueError, match="read length"):
        reader.read(-2)
    writer.close()
    reader.close()
    reader.close()
    assert reader.closed
    for use in (
        reader.read,
        reader.readline,
        reader.read1,
        reader.peek,
        reader.readable,
        reader.fileno,
        reader.__enter__,
        lambda: next(reader),
        lambda: reader.readinto(bytearray(1)),
    ):
        with pytest.raises(ValueError, match="closed"):
            use()
    assert ends.ours.fileno() >= 0


def test_text_and_pickles_over_it(ends: Any) -> None:
    message = {"NUMBER": [1, 2, 3]}
    if ends.kind == "methods":
        pytest.skip("its methods swap the case")
    send_in_pieces(ends.peer, [pickle.dumps(message), "héllo\nwörld\n".encode()])
    reader, writer = ends.open(ends.ours)
    assert pickle.load(reader) == message
    with io.TextIOWrapper(reader, encoding="utf-8") as text, writer:
        assert list(text) == ["héllo\n", "wörld\n"]
    assert reader.closed


def test_a_closed_socket_stays_open_until_its_files_close(ends: Any) -> None:
    reader, writer = ends.open(ends.ours)
    ends.ours.close()
    ends.peer.sendall(swap(ends.kind, b"late\n"))
    assert reader.readline() == b"late\n"
    reader.close()
    assert ends.ours.fileno() >= 0
    writer.write(swap(ends.kind, b"x"))
    writer.close()
    assert ends.ours.fileno() == -1


def test_a_file_that_is_not_closed_releases_the_socket(ends: Any) -> None:
    reader, writer = ends.open(ends.ours)
    ends.ours.close()
    del reader, writer
    gc.collect()
    assert ends.ours.fileno() == -1


def test_a_timeout_makes_the_reader_unusable(ends: Any) -> None:
    ends.ours.settimeout(0.01)
    reader, writer = ends.open(ends.ours)
    with reader, writer:
        with pytest.raises(TimeoutError):
            reader.readline()
        with pytest.raises(OSError, match="timed out object"):
            reader.readline()


def test_a_socket_that_never_waits_gives_what_there_is(ends: Any) -> None:
    ends.ours.setblocking(False)
    reader, writer = ends.open(ends.ours)
    with reader, writer:
        assert reader.read(10) is None
        assert reader.read() is None
        assert reader.readinto(bytearray(5)) is None


def test_a_reset_is_raised(ends: Any) -> None:
    reader, writer = ends.open(ends.ours)
    with reader, writer:
        ends.peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0" + bytes(4))
        ends.peer.close()
        with pytest.raises(ConnectionResetError):
            reader.read()


@pytest.mark.parametrize("own_methods", [False, True])
def test_a_timeout_block_leaves_the_stream_usable(
    fiber_ends: Any, parts: Any, hub: Any, own_methods: bool
) -> None:
    """Over a FiberSocket, and over a socket that has one inside, as TLS has."""

    class Wrapper(socket.socket):
        def recv_into(self, *arguments: Any) -> int:
            count: int = fiber_ends.ours.recv_into(*arguments)
            return count

    lines: list[bytes] = []

    def handler() -> None:
        reader, writer = fiber_ends.open(wrapper if own_methods else fiber_ends.ours)
        with reader, writer:
            with pytest.raises(FiberTimeout), Timeout(0.001):
                reader.readline()
            fiber_ends.peer.sendall(b"line\n")
            lines.append(reader.readline())

    with Wrapper() as wrapper:
        assert hub.spawn(handler).join(20)
    assert lines == [b"line\n"]


WAYS: dict[str, Callable[[Any], object]] = {
    "iteration": next,
    "readline": lambda reader: reader.readline(),
    "read": lambda reader: reader.read(1),
    "read1": lambda reader: reader.read1(1),
    "readinto": lambda reader: reader.readinto(bytearray(1)),
    "readinto1": lambda reader: reader.readinto1(bytearray(1)),
}


@pytest.mark.parametrize("how", WAYS)
def test_what_is_buffered_does_not_let_a_fiber_hold_the_loop(
    fiber_ends: Any, hub: Any, how: str
) -> None:
    """While a fiber reads one segment of many short lines, the others run too."""
    lines = 10_000
    fiber_ends.peer.sendall(b"\n" * lines)
    done: list[int] = []

    def handler() -> None:
        reader, writer = fiber_ends.open(fiber_ends.ours, coalesce=True)
        with reader, writer:
            assert reader.peek()
            hub.spawn(lambda: done.append(count))
            for count in range(lines):  # noqa: B007 (the other fiber uses it)
                WAYS[how](reader)
                if done:
                    return

    assert hub.spawn(handler).join(20)
    assert done[0] < lines - 1


def test_lines_that_come_byte_by_byte(fiber_ends: Any, hub: Any) -> None:
    lines: list[bytes] = []

    def handler() -> None:
        reader, writer = fiber_ends.open(fiber_ends.ours)
        with reader, writer:
            lines.extend(reader)

    fiber = hub.spawn(handler)
    for byte in b"a drip\nand another\n":
        hub.turn(0)
        fiber_ends.peer.sendall(bytes([byte]))
    fiber_ends.peer.shutdown(socket.SHUT_WR)
    assert fiber.join(20)
    assert lines == [b"a drip\n", b"and another\n"]


def test_closing_while_a_fiber_reads_ends_the_read(fiber_ends: Any, hub: Any) -> None:
    seen: list[str] = []
    reader, writer = fiber_ends.open(fiber_ends.ours)

    def handler() -> None:
        try:
            reader.readline()
        except (OSError, ValueError) as error:
            seen.append(type(error).__name__)

    fiber = hub.spawn(handler)
    hub.turn(0)
    hub.turn(0)
    fiber_ends.ours.close()
    reader.close()
    writer.close()
    assert fiber.join(20)
    assert len(seen) == 1
