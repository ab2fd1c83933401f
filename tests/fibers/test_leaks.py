"""Nothing is left behind: descriptors, fibers, greenlets and objects are counted."""

from __future__ import annotations

import gc
import os
import socket
from typing import Any

import greenlet

CONNECTIONS = 300


def census() -> tuple[int, int, int]:
    gc.collect()
    objects = gc.get_objects()
    bodies = sum(isinstance(found, greenlet.greenlet) for found in objects)
    return len(os.listdir("/proc/self/fd")), bodies, len(objects)


def serve_some(hub: Any, parts: Any, count: int) -> None:
    """Connections that end well, that are reset, and that are killed while they wait."""

    def handler(sock: Any) -> None:
        with sock:
            while data := sock.recv(100):
                sock.sendall(data)

    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        listener.setblocking(False)
        for number in range(count):
            with socket.create_connection(listener.getsockname()) as client:
                accepted: list[Any] = []
                while not accepted:
                    accepted = parts.accept_many(listener.fileno())
                fiber = hub.spawn(handler, accepted[0][0])
                client.sendall(b"x")
                while not fiber.dead and not fiber.parked:
                    hub.turn(1)
                if number % 3 == 1:
                    fiber.kill()
                elif number % 3 == 2:
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0" + bytes(4))
            accepted.clear()
            assert fiber.join(10)


def test_connections_leave_nothing(parts: Any) -> None:
    hub = parts.Hub(on_error=lambda _fiber, error: None)
    serve_some(hub, parts, CONNECTIONS // 3)
    before = census()
    serve_some(hub, parts, CONNECTIONS)
    after = census()
    hub.close()
    assert after[0] == before[0]
    assert after[1] == before[1]
    assert after[2] - before[2] < CONNECTIONS / 10


def test_a_closed_hub_leaves_nothing(parts: Any) -> None:
    def once() -> None:
        hub = parts.Hub()
        for _ in range(20):
            hub.spawn(hub.park)
        hub.turn(0)
        hub.close()

    once()
    before = census()
    for _ in range(20):
        once()
    after = census()
    assert after[0] == before[0]
    assert after[1] == before[1]
    assert after[2] - before[2] < 20
