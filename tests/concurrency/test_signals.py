"""What a signal handler raises while a request runs on the main thread leaves `serve_forever`."""

from __future__ import annotations

import signal
import socket
import sys
from functools import partial
from typing import Any

import pytest
from tests.clients import Background

import everserve
from everserve.combos import server_class


class Custom(Exception):
    """What a program may raise in its handler."""


def leave(*_arguments: Any) -> None:
    sys.exit(0)


def raise_custom(*_arguments: Any) -> None:
    raise Custom


class Interrupted(everserve.StreamRequestHandler):
    """A request that is busy when the signal comes."""

    def handle(self) -> None:
        if self.rfile.readline() == b"signal\n":
            signal.raise_signal(signal.SIGUSR1)
        self.rfile.readline()


def clients(address: Any) -> None:
    with socket.create_connection(address, 20) as idle, socket.create_connection(address, 20) as c:
        c.sendall(b"signal\n")
        assert not c.recv(1)  # its connection has ended, and after it the other one
        assert not idle.recv(1)


@pytest.mark.parametrize(("handler", "kind"), [(leave, SystemExit), (raise_custom, Custom)])
def test_it_ends_the_server_and_not_the_fiber(handler: Any, kind: type[BaseException]) -> None:
    before = signal.signal(signal.SIGUSR1, handler)
    try:
        with everserve.FiberTCPServer(("127.0.0.1", 0), Interrupted) as server:
            client = Background(clients, server.server_address)
            with pytest.raises(kind):
                server.serve_forever()
            client.result()
    finally:
        signal.signal(signal.SIGUSR1, before)


@pytest.mark.parametrize(("handler", "kind"), [(leave, SystemExit), (raise_custom, Custom)])
def test_it_ends_a_serial_server(handler: Any, kind: type[BaseException]) -> None:
    before = signal.signal(signal.SIGUSR1, handler)
    try:
        with everserve.TCPServer(("127.0.0.1", 0), Interrupted) as server:
            with socket.create_connection(server.server_address, 20) as client:
                client.sendall(b"signal\n")
                with pytest.raises(kind):
                    server.serve_forever()
                assert not client.recv(1)
    finally:
        signal.signal(signal.SIGUSR1, before)


class Answers(everserve.LineRequestHandler):
    """A message handler that is busy when the signal comes: its connection was parked before."""

    def handle_message(self, message: bytes) -> bytes:
        if message == b"signal":
            signal.raise_signal(signal.SIGUSR1)
        return message


class Number(int):
    """The number of a signal, with an attribute that raises it, and no code in Python."""

    hello = "hello"
    signal = property(signal.raise_signal)


class InCompiledCode(everserve.JSONRequestHandler):
    """A message raises the signal where nothing that runs, down to the fiber, need be Python."""

    handle_message: Any = staticmethod(partial(getattr, Number(signal.SIGUSR1)))


def talk(address: Any, *messages: bytes) -> None:
    with socket.create_connection(address, 20) as client:
        for message in messages[:-1]:
            client.sendall(message)
            assert client.recv(100) == message
        client.sendall(messages[-1])
        assert not client.recv(1)


@pytest.mark.parametrize("word", ["serial", "fibers"])
@pytest.mark.parametrize(("handler", "kind"), [(leave, SystemExit), (raise_custom, Custom)])
@pytest.mark.parametrize(
    ("answers", "messages"),
    [
        (Answers, [b"hello\n", b"signal\n"]),
        (InCompiledCode, [b'"hello"\n', b'"signal"\n']),
        (InCompiledCode, [b'"signal"\n']),
    ],
)
def test_it_ends_the_server_of_a_message_handler(
    handler: Any, kind: type[BaseException], word: str, answers: Any, messages: list[bytes]
) -> None:
    before = signal.signal(signal.SIGUSR1, handler)
    try:
        with server_class(word, "tcp")(("127.0.0.1", 0), answers) as server:
            client = Background(talk, server.server_address, *messages)
            with pytest.raises(kind):
                server.serve_forever()
            client.result()
    finally:
        signal.signal(signal.SIGUSR1, before)


def raise_timeout(*_arguments: Any) -> None:
    raise TimeoutError  # as many programs do for SIGALRM


@pytest.mark.parametrize(
    ("handler", "kind"), [(raise_timeout, TimeoutError), (raise_custom, Custom)]
)
def test_it_leaves_an_accept_of_the_program(handler: Any, kind: type[BaseException]) -> None:
    class Own(everserve.ThreadingTCPServer):
        def get_request(self) -> Any:
            signal.raise_signal(signal.SIGUSR1)
            return super().get_request()

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        with (
            Own(("127.0.0.1", 0), Interrupted) as server,
            socket.create_connection(server.server_address, 20),
            pytest.raises(kind),
        ):
            server.serve_forever()
    finally:
        signal.signal(signal.SIGUSR1, before)
