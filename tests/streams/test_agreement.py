"""One table for both engines: streams in cases in which the engines once differed, or might."""

from __future__ import annotations

import contextlib
import gc
import importlib
import io
import queue
import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest
from tests.engines import loaded

from everserve.errors import LineTooLong

NOTHING = memoryview(bytearray(8))[::2]  # not in one piece


def outcome(call: Callable[[], object]) -> object:
    """What `call` returns, or the type of what it raises."""
    try:
        return call()
    except Exception as error:
        return type(error)


def receive(peer: socket.socket, size: int) -> bytes:
    got = b""
    while len(got) < size:
        data = peer.recv(size - len(got))
        assert data, got
        got += data
    return got


def filled_pair(parts: Any, data: bytes) -> tuple[Any, socket.socket]:
    """A FiberSocket that has all of `data` to read, and its peer."""
    left, peer = socket.socketpair()
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    peer.settimeout(20)
    peer.sendall(data)
    return parts.FiberSocket.adopt(left), peer


# --- names ---------------------------------------------------------------------------------------


def public(of: object) -> set[str]:
    return {name for name in dir(of) if not name.startswith("_")}


@pytest.mark.parametrize("half", ["Reader", "Writer"])
def test_a_half_has_the_names_of_a_binary_file(half: str) -> None:
    loaded("native")
    compiled = getattr(importlib.import_module(f"everserve.streams._{half.lower()}"), half)
    reference = getattr(importlib.import_module(f"everserve.streams.{half.lower()}"), half)
    assert public(io.BufferedIOBase) <= public(compiled)
    assert public(compiled) <= public(reference) | {"max_line", "sock"}  # there in the instance


@pytest.mark.parametrize("prefix", ["_", ""], ids=["native", "python"])
@pytest.mark.parametrize("half", ["Reader", "Writer"])
def test_a_half_whose_constructor_has_failed_ends_in_silence(
    half: str, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded("native" if prefix else "python")
    kind = getattr(importlib.import_module(f"everserve.streams.{prefix}{half.lower()}"), half)
    said: list[Any] = []
    monkeypatch.setattr("sys.unraisablehook", said.append)
    with contextlib.suppress(TypeError):
        kind.__new__(kind)
    with pytest.raises(TypeError):
        kind()
    gc.collect()
    assert said == []


WRONG_DIRECTION: dict[str, Callable[[Any, Any], object]] = {
    "read": lambda _reader, writer: writer.read(1),
    "read1": lambda _reader, writer: writer.read1(1),
    "readinto": lambda _reader, writer: writer.readinto(bytearray(1)),
    "readinto1": lambda _reader, writer: writer.readinto1(bytearray(1)),
    "readline": lambda _reader, writer: writer.readline(),
    "readlines": lambda _reader, writer: writer.readlines(),
    "iteration": lambda _reader, writer: list(writer),
    "write": lambda reader, _writer: reader.write(b"x"),
    "writelines": lambda reader, _writer: reader.writelines([b"x"]),
}


@pytest.mark.parametrize("how", WRONG_DIRECTION)
def test_the_wrong_direction(ends: Any, how: str) -> None:
    reader, writer = ends.open(ends.ours)
    with reader, writer:
        assert outcome(lambda: WRONG_DIRECTION[how](reader, writer)) is io.UnsupportedOperation


# --- arguments -----------------------------------------------------------------------------------

ARGUMENTS: dict[str, tuple[Callable[[Any, Any], object], object]] = {
    "read of nothing": (lambda reader, _writer: reader.read(0), b""),
    "read of less than nothing": (lambda reader, _writer: reader.read(-2), ValueError),
    "readline of nothing": (lambda reader, _writer: reader.readline(0), b""),
    "read1 of nothing": (lambda reader, _writer: reader.read1(0), b""),
    "readinto of nothing": (lambda reader, _writer: reader.readinto(bytearray(0)), 0),
    "readinto1 of nothing": (lambda reader, _writer: reader.readinto1(bytearray(0)), 0),
    "readinto of constants": (lambda reader, _writer: reader.readinto(b"abc"), TypeError),
    "readinto1 of constants": (lambda reader, _writer: reader.readinto1(b"abc"), TypeError),
    "readinto of pieces": (lambda reader, _writer: reader.readinto(NOTHING), TypeError),
    "readinto of text": (lambda reader, _writer: reader.readinto("abc"), TypeError),
    "write of nothing": (lambda _reader, writer: writer.write(b""), 0),
    "write of text": (lambda _reader, writer: writer.write("abc"), TypeError),
    "write of pieces": (lambda _reader, writer: writer.write(NOTHING), BufferError),
    "write of a view": (lambda _reader, writer: writer.write(memoryview(b"abc")), 3),
}


@pytest.mark.parametrize("wbufsize", [0, 100])
@pytest.mark.parametrize("how", ARGUMENTS)
def test_arguments(ends: Any, how: str, wbufsize: int) -> None:
    call, expected = ARGUMENTS[how]
    reader, writer = ends.open(ends.ours, wbufsize=wbufsize)
    with reader, writer:
        if how == "write of pieces" and not wbufsize and ends.kind == "methods":
            pytest.skip("the socket's own method decides")
        assert outcome(lambda: call(reader, writer)) == expected


def test_read1_gives_all_that_is_there(parts: Any, hub: Any) -> None:
    """Also if a refused line has left more bytes than one read returns."""
    ours, peer = filled_pair(parts, b"x" * 150_000)
    got: list[int] = []

    def handler() -> None:
        reader, writer = parts.streams.open_stream(ours, max_line=70_000)
        with reader, writer:
            with pytest.raises(LineTooLong):
                reader.readline()
            there = len(reader.peek())
            assert there > 65536
            got.append(there - len(reader.read1()))

    with ours, peer:
        assert hub.spawn(handler).join(20)
    assert got == [0]


WOULD_BLOCK: dict[str, tuple[Callable[[Any], object], object]] = {
    "read": (lambda reader: reader.read(), None),
    "read of a size": (lambda reader: reader.read(10), None),
    "read of a large size": (lambda reader: reader.read(100_000), None),
    "read1": (lambda reader: reader.read1(), b""),
    "readline": (lambda reader: reader.readline(), b""),
    "readinto": (lambda reader: reader.readinto(bytearray(5)), None),
    "readinto1": (lambda reader: reader.readinto1(bytearray(5)), None),
    "peek": (lambda reader: reader.peek(), b""),
}


@pytest.mark.parametrize("how", WOULD_BLOCK)
def test_a_read_that_would_block(ends: Any, how: str) -> None:
    call, expected = WOULD_BLOCK[how]
    ends.ours.setblocking(False)
    reader, writer = ends.open(ends.ours)
    with reader, writer:
        assert outcome(lambda: call(reader)) == expected


# --- the buffer of the writer --------------------------------------------------------------------


FILLS: dict[str, tuple[list[int], int, int]] = {  # sizes written; sent; buffered
    "less than the buffer": ([300, 300], 0, 600),
    "exactly the buffer": ([500, 500], 0, 1000),
    "more than the buffer": ([900, 200], 900, 200),
    "small pieces": ([1] * 1001, 1000, 1),
    "a piece of the buffer's size": ([1000], 1000, 0),
    "a large piece after a small one": ([10, 5000], 5010, 0),
}


@pytest.mark.parametrize("how", FILLS)
def test_when_a_buffer_is_sent(ends: Any, how: str) -> None:
    sizes, gone, left = FILLS[how]
    reader, writer = ends.open(ends.ours, wbufsize=1000)
    with reader, writer:
        for size in sizes:
            assert writer.write(b"x" * size) == size
        assert writer.buffered == left
        assert len(receive(ends.peer, gone)) == gone == sum(sizes) - left


@pytest.mark.parametrize("coalesce", [False, True])
@pytest.mark.parametrize("timeout", [None, 20, 0])
def test_a_writer_that_is_not_closed_sends_without_waiting(
    ends: Any, hub: Any, coalesce: bool, timeout: float | None
) -> None:
    """A socket with its own methods does not allow that: then nothing is sent."""
    ends.ours.settimeout(timeout)

    def forget() -> None:
        reader, writer = ends.open(ends.ours, wbufsize=0 if coalesce else 1000, coalesce=coalesce)
        writer.write(b"kept")
        del reader, writer

    forget()
    gc.collect()
    assert ends.ours.fileno() >= 0
    ends.ours.shutdown(socket.SHUT_WR)
    assert ends.peer.recv(100) == (b"" if ends.kind == "methods" else b"kept")


def test_a_writer_that_is_not_closed_does_not_wait(ends: Any) -> None:
    ends.ours.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            ends.ours.send(b"x" * 4096)
    ends.ours.setblocking(True)
    _reader, writer = ends.open(ends.ours, wbufsize=1000)
    writer.write(b"lost")
    del _reader, writer
    gc.collect()


def test_nothing_follows_a_failed_send(ends: Any) -> None:
    """Bytes before and after a gap would form another message."""
    reader, writer = ends.open(ends.ours, wbufsize=1000)
    ends.ours.settimeout(0.001)
    large = b"x" * (8 << 20)
    with pytest.raises(TimeoutError):
        writer.write(large)
    ends.ours.settimeout(20)
    with reader:
        writer.close()


# --- the reader ----------------------------------------------------------------------------------

READS: dict[str, Callable[[Any], object]] = {
    "in place": lambda reader: reader.read(100_000),
    "line": lambda reader: reader.readline(),
    "readinto": lambda reader: reader.readinto(bytearray(100_000)),
    "in pieces": lambda reader: [reader.read(1000) for _ in range(100)],
}


@pytest.mark.parametrize("how", READS)
def test_a_fiber_that_does_not_wait_sends_nothing(parts: Any, hub: Any, how: str) -> None:
    ours, peer = filled_pair(parts, b"x" * 99_999 + b"\n")
    kept: list[bool] = []

    def handler() -> None:
        reader, writer = parts.streams.open_stream(ours, coalesce=True)
        with reader, writer:
            writer.write(b"answer")
            switches = hub.switches
            READS[how](reader)
            kept.append(writer.buffered == 6 or hub.switches != switches)  # its time slice was over

    with ours, peer:
        assert hub.spawn(handler).join(20)
        assert kept == [True]
        assert peer.recv(100) == b"answer"


@pytest.mark.parametrize("found", [b"", b"data\n"])
def test_closing_during_a_read(parts: Any, found: bytes) -> None:
    class Closing(socket.socket):
        def recv_into(self, buffer: Any, *_rest: Any) -> int:
            reader.close()
            with memoryview(buffer) as view:
                view[: len(found)] = found
            return len(found)

    with Closing() as sock:
        reader, writer = parts.streams.open_stream(sock)
        with writer, pytest.raises(ValueError, match="closed"):
            reader.readline()


def test_one_thread_reads_at_a_time(ends: Any) -> None:
    if ends.kind != "plain":
        pytest.skip("only a plain socket waits in the kernel with the buffer of the reader")
    reader, writer = ends.open(ends.ours)
    results: queue.SimpleQueue[object] = queue.SimpleQueue()

    def read() -> None:
        results.put(outcome(reader.readline))

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    assert results.get(timeout=20) is RuntimeError
    ends.peer.sendall(b"line\n")
    assert results.get(timeout=20) == b"line\n"
    for thread in threads:
        thread.join(20)
    with reader, writer:
        pass
