"""The inbox alone: what it receives, decodes, hands on and keeps. Both engines."""

from __future__ import annotations

import importlib
import socket
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from tests.engines import loaded

from everserve.concurrency.parking import ThreadParking
from everserve.errors import FrameError
from everserve.wire.codec import Codec
from everserve.wire.lengths import Lengths
from everserve.wire.lines import Lines


class Handler:
    """Takes lines; ``answers`` are the results of ``on_bad_message``."""

    pipeline_depth = 2

    def __init__(self, codec: Any) -> None:
        self.codec = codec
        self.errors: list[str] = []

    def on_bad_message(self, error: FrameError) -> Any:
        self.errors.append(str(error))
        return b"bad"


class Scene:
    """An inbox and its peer; ``handled`` are the messages, ``sent`` what the peer gets."""

    def __init__(self, rooms: Any, codec: Any, parking: Any = None) -> None:
        ours, self.peer = socket.socketpair()
        self.ours = ours
        self.handler = Handler(codec)
        self.inbox = rooms.Inbox(ours, None, parking)
        self.replies = rooms.Replies(codec, rooms.Outbox(ours, None))
        self.handled: list[Any] = []

    def handle(self, message: Any) -> Any:
        self.handled.append(message)
        return message

    def serve(self) -> Any:
        return self.inbox.serve(self.handler, self.replies, self.handle)

    def sent(self) -> bytes:
        return self.peer.recv(1000)

    def close(self) -> None:
        self.ours.close()
        self.peer.close()


@pytest.fixture(params=["python", "native"])
def rooms(request: pytest.FixtureRequest) -> Any:
    loaded(request.param)
    mark = "_" if request.param == "native" else ""
    found = [
        (name, getattr(importlib.import_module(f"everserve.messages.{mark}{name.lower()}"), name))
        for name in ("Inbox", "Replies", "Outbox")
    ]
    return SimpleNamespace(**dict(found), codec=codec_of(mark))


def codec_of(mark: str) -> Any:
    if not mark:
        return SimpleNamespace(Lines=Lines, Lengths=Lengths)
    return SimpleNamespace(
        Lines=importlib.import_module("everserve.wire._lines").Lines,
        Lengths=importlib.import_module("everserve.wire._lengths").Lengths,
    )


@pytest.fixture
def scene(rooms: Any) -> Iterator[Scene]:
    scene = Scene(rooms, rooms.codec.Lines(9), ThreadParking(print))
    yield scene
    scene.close()


def test_nothing_is_there(scene: Scene) -> None:
    assert scene.serve() is None
    assert scene.inbox.unread() == (None, 0)


def test_a_timeout_of_the_socket_is_not_waited_for(scene: Scene) -> None:
    scene.ours.settimeout(3600)
    assert scene.serve() is None
    scene.peer.sendall(b"a\n")
    assert scene.serve() is True
    assert scene.handled == [b"a"]


def test_messages_are_handled_in_order_and_their_replies_sent(scene: Scene) -> None:
    scene.peer.sendall(b"a\nb\nc\n")
    assert scene.serve() is True
    assert scene.handled == [b"a", b"b", b"c"]
    assert scene.sent() == b"a\nb\nc\n"


def test_a_part_of_a_message_is_kept(scene: Scene) -> None:
    scene.peer.sendall(b"a\nbc")
    assert scene.serve() is True
    assert scene.inbox.unread() == (b"bc", 1)
    scene.peer.sendall(b"d\n")
    assert scene.serve() is True
    assert scene.handled == [b"a", b"bcd"]


def test_the_rest_may_come_from_another_inbox(scene: Scene) -> None:
    scene.inbox.take_unread(b"ab", 1)
    scene.peer.sendall(b"c\n")
    assert scene.serve() is True
    assert scene.handled == [b"abc"]


def test_the_end_of_the_stream(scene: Scene) -> None:
    scene.peer.sendall(b"a\n")
    scene.peer.shutdown(socket.SHUT_WR)
    assert scene.serve() is False
    assert (scene.handled, scene.handler.errors) == ([b"a"], [])


def test_the_end_inside_a_message(scene: Scene) -> None:
    scene.peer.sendall(b"ab")
    scene.peer.shutdown(socket.SHUT_WR)
    assert scene.serve() is False
    assert scene.handler.errors == ["the stream ended inside a message"]
    assert scene.sent() == b"bad\n"


def test_a_line_that_is_too_long_ends_it(scene: Scene) -> None:
    scene.peer.sendall(b"a\n" + b"x" * 10)
    assert scene.serve() is False
    assert scene.handled == [b"a"]
    assert len(scene.handler.errors) == 1


def test_after_a_stop_the_rest_is_kept(scene: Scene) -> None:
    def stop(message: bytes) -> bytes:
        scene.replies.stopped = True
        return scene.handle(message)

    scene.peer.sendall(b"a\nb\nc\n")
    assert scene.inbox.serve(scene.handler, scene.replies, stop) is False
    assert scene.handled == [b"a"]
    assert scene.inbox.unread()[0] in (b"b\nc\n", b"c\n")


def test_without_a_parking_it_waits(rooms: Any) -> None:
    scene = Scene(rooms, rooms.codec.Lengths(2))
    scene.peer.sendall(b"\0\1a\0\2bc")
    scene.peer.shutdown(socket.SHUT_WR)
    assert scene.serve() is False
    assert scene.handled == [b"a", b"bc"]
    assert scene.sent() == b"\0\1a\0\2bc"
    scene.close()


class Numbers(Codec):
    """A codec of the program: each byte is a digit; what is none is passed over."""

    def decode(self, data: bytes, start: int, /) -> tuple[int, int] | None:
        if start == len(data):
            return None
        if not 48 <= data[start] < 58:
            error = FrameError("no digit")
            error.resumes_at = start + 1
            raise error
        return data[start] - 48, start + 1

    def encode(self, message: Any, /) -> bytes:
        return b"?" if message == b"bad" else b"%d" % message


def test_a_codec_of_the_program_may_go_on_after_an_error(rooms: Any) -> None:
    scene = Scene(rooms, Numbers(), ThreadParking(print))
    scene.peer.sendall(b"12x3")
    assert scene.serve() is True
    assert scene.handled == [1, 2, 3]
    assert (scene.handler.errors, scene.sent()) == (["no digit"], b"12?3")
    scene.close()
