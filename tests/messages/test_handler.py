"""Message handlers outside of an everserve server, and the mistakes that are found when one is made."""

from __future__ import annotations

import socket
import socketserver
from typing import Any

import pytest
from tests.clients import ask, serving

import everserve
from everserve.errors import FrameError, HandlerError
from everserve.messages import FrameRequestHandler, LineRequestHandler, MessageRequestHandler


class Upper(LineRequestHandler[Any, Any]):
    def handle_message(self, message: bytes) -> bytes:
        return message.upper()


def test_under_a_server_of_the_standard_library() -> None:
    with serving(socketserver.ThreadingTCPServer(("127.0.0.1", 0), Upper), 0.01) as address:
        assert ask(address, b"a\nb\n") == b"A\nB\n"


def test_under_a_mix_in_on_a_server_of_the_standard_library() -> None:
    class Server(everserve.FiberMixIn, socketserver.TCPServer):
        pass

    with Server(("127.0.0.1", 0), Upper) as server, server.running() as address:
        assert ask(address, b"a\nb\n") == b"A\nB\n"


def test_on_a_socket_alone() -> None:
    ours, peer = socket.socketpair()
    with ours, peer:
        peer.sendall(b"a\nb\n")
        peer.shutdown(socket.SHUT_WR)
        handler = Upper(ours, "peer", None)
        assert peer.recv(100) == b"A\nB\n"
        assert not handler.push(b"late")
        handler.disconnect()
        handler.key = b"a"
        assert handler.key is None


def test_only_a_connection_of_our_servers_has_a_key() -> None:
    class Keyed(Upper):
        def on_connect(self) -> None:
            with pytest.raises(TypeError):
                self.key = b"a"

    ours, peer = socket.socketpair()
    with ours, peer:
        peer.sendall(b"a\n")
        peer.shutdown(socket.SHUT_WR)
        Keyed(ours, "peer", None)
        assert peer.recv(100) == b"A\n"


def test_one_request_without_a_loop() -> None:
    for concurrency in ("serial", "fibers", "pool", "threads"):
        with everserve.make_server(Upper, "tcp://127.0.0.1:0", concurrency=concurrency) as server:
            with socket.create_connection(server.server_address, 20) as client:
                client.sendall(b"a\n")
                client.shutdown(socket.SHUT_WR)
                server.handle_request()
                assert client.makefile("rb").read() == b"A\n"


def test_a_frame_of_more_than_a_read() -> None:
    class Echo(FrameRequestHandler[Any, Any]):
        def handle_message(self, message: bytes) -> bytes:
            return message

    frame = Echo.codec.encode(bytes(range(256)) * 12_000)
    with everserve.make_server(Echo, "tcp://127.0.0.1:0") as server, server.running() as address:
        assert ask(address, frame + Echo.codec.encode(b"next")) == frame + b"\0\0\0\4next"


def test_an_error_of_a_reply_is_an_error_of_the_handler() -> None:
    events: list[Any] = []

    class Text(LineRequestHandler[Any, Any]):
        def handle_message(self, message: bytes) -> str:
            return "text"

    with everserve.make_server(Text, "tcp://127.0.0.1:0") as server:
        server.subscribe(events.append)
        with server.running() as address:
            assert ask(address, b"a\n") == b""
    (failed,) = [event for event in events if isinstance(event, everserve.events.Failed)]
    assert isinstance(failed.error, TypeError)
    assert not failed.peer_gone


class NoMethod(LineRequestHandler[Any, Any]):
    pass


class NoCodec(MessageRequestHandler[Any, Any]):
    def handle_message(self, message: Any) -> None: ...


class Async(LineRequestHandler[Any, Any]):
    async def handle_message(self, message: Any) -> None: ...  # type: ignore[override]


@pytest.mark.parametrize(
    ("handler", "fault"),
    [
        (NoMethod, r"NoMethod has no handle_message\(\): define it"),
        (NoCodec, r"NoCodec.codec = None: give a codec"),
        (Async, r"Async.handle_message is 'async def'"),
    ],
)
def test_mistakes(handler: Any, fault: str) -> None:
    with pytest.raises(HandlerError, match=fault):
        everserve.make_server(handler, "tcp://127.0.0.1:0")


def test_a_generator_is_a_handler() -> None:
    class Several(LineRequestHandler[Any, Any]):
        def handle_message(self, message: bytes) -> Any:
            yield message
            yield message

        def on_bad_message(self, error: FrameError) -> bytes:
            return b"bad"

    with everserve.make_server(Several, "tcp://127.0.0.1:0") as server, server.running() as at:
        assert ask(at, b"a\nb") == b"a\na\nbad\n"
