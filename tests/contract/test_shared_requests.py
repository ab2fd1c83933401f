"""The contract: a ``get_request`` may return one and the same object again and again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.contract.kinds import TRANSPORTS, Client, Gate, Strategy
from tests.scenes import Heard

from everserve.combos import server_class
from everserve.events import Accepted, Failed, Finished, Opened
from everserve.handlers.base import BaseRequestHandler

UDP = next(transport for transport in TRANSPORTS if transport.name == "udp4")


class Device:
    """The one request: something that answers. What came is in the address, to tell them apart."""

    def __init__(self, socket: Any) -> None:
        self.socket = socket


@pytest.fixture
def make(strategy: Strategy) -> Callable[..., Any]:
    class OneDevice(server_class(strategy.name, "udp")):  # type: ignore[misc]
        device: Device | None = None

        def get_request(self) -> Any:
            (data, sock), peer = super().get_request()
            self.device = self.device or Device(sock)
            return self.device, (*peer, data)

    def make(handle: Callable[[Any], None], **hooks: Any) -> Any:
        kind = type("Server", (OneDevice,), hooks)
        return kind(("127.0.0.1", 0), type("Handler", (BaseRequestHandler,), {"handle": handle}))

    return make


def answer(handler: Any) -> None:
    *peer, data = handler.client_address
    handler.request.socket.sendto(data, tuple(peer))


def fail_or_answer(handler: Any) -> None:
    if handler.client_address[-1] == b"fail":
        raise ValueError("told to fail")
    answer(handler)


@pytest.mark.usefixtures("concurrent")
def test_at_the_same_time(
    make: Callable[..., Any], gate: Gate, heard: Heard, tmp_path: Path
) -> None:
    def handle(handler: Any) -> None:
        gate.hold()
        fail_or_answer(handler)

    server = make(handle, handle_error=lambda *_: None)
    server.subscribe(heard)
    with server.running(), Client(server, UDP, tmp_path, 1) as client:
        for word in (b"one", b"fail", b"two"):
            client.send(word)
        gate.wait_entered(3)
        assert len(server.connections) == 3
        gate.open(3)
        assert {client.receive(), client.receive()} == {b"one", b"two"}
        heard.wait_for(Finished, 2)
        heard.wait_for(Failed)
        server._everserve.life.notifier.wait_until(lambda: not server.connections)
    words = {event.connection: event.peer[-1] for event in heard.of(Accepted)}
    assert words == {1: b"one", 2: b"fail", 3: b"two"}
    for kind in (Opened, Finished, Failed):
        assert all(words[event.connection] == event.peer[-1] for event in heard.of(kind))
    assert {event.connection for event in heard.of(Finished)} == {1, 3}
    assert [event.connection for event in heard.of(Failed)] == [2]


def test_hooks_that_leave_it_alone(
    make: Callable[..., Any], heard: Heard, tmp_path: Path, strategy: Strategy
) -> None:
    def finish_request(self: Any, request: Device, client_address: Any) -> None:
        server_class(strategy.name, "udp").finish_request(self, request, client_address)
        request.socket.sendto(client_address[-1], client_address[:2])  # now it is done

    def leave_alone(self: Any, request: Device) -> None:
        pass

    server = make(
        lambda handler: None,
        finish_request=finish_request,
        shutdown_request=leave_alone,
        close_request=leave_alone,
    )
    server.subscribe(heard)
    with server.running(grace=0), Client(server, UDP, tmp_path, 1) as client:
        for number in range(5):
            client.send(b"%d" % number)
            assert client.receive() == b"%d" % number
            if number:
                heard.wait_for(Finished, number)
        assert len(server.connections) <= 1
