"""Nothing is left behind: descriptors, fibers, greenlets and objects are counted."""

from __future__ import annotations

import gc
import os
import socket
from typing import Any

import greenlet

from everserve.streams import open_stream

CONNECTIONS = 300


def census() -> tuple[int, int, int]:
    gc.collect()
    objects = gc.get_objects()
    greenlets = sum(isinstance(found, greenlet.greenlet) for found in objects)
    return len(os.listdir("/proc/self/fd")), greenlets, len(objects)


def serve_some(hub: Any, parts: Any, count: int) -> None:
    """Connections that end normally, that are reset, and whose fibers are killed."""

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


def test_a_connection_leaves_no_cycles(parts: Any) -> None:
    """A busy server would keep what only the garbage collector can free."""
    hub = parts.Hub(on_error=lambda _fiber, error: None)
    serve_some(hub, parts, 12)
    gc.collect()
    gc.disable()
    try:
        serve_some(hub, parts, 12)
        pass_much_through(hub, parts)
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        ours = [found for found in gc.garbage if is_of_the_engine(found)]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
        hub.close()
    assert not ours


def is_of_the_engine(found: Any) -> bool:
    kind = type(found)
    return isinstance(found, greenlet.greenlet | socket.socket) or kind.__module__.startswith(
        "everserve"
    )


def pass_much_through(hub: Any, parts: Any) -> None:
    """Full reads, long sends, and a stream: each may leave something on the socket."""
    accepted, peer = connected(parts)

    def handler(sock: Any) -> None:
        with sock:
            for _ in range(4):
                sock.sendall(sock.recv(65536))
            reader, writer = open_stream(sock, coalesce=True)
            writer.write(reader.readline())
            hub.park(0.001)
            writer.close()
            reader.close()

    fiber = hub.spawn(handler, accepted)
    del accepted
    with peer:
        peer.sendall(bytes(262144))
        peer.sendall(b"\n")
        assert fiber.join(10)


def connected(parts: Any) -> tuple[Any, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        peer = socket.create_connection(listener.getsockname())
        accepted, _address = listener.accept()
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    return parts.FiberSocket.adopt(accepted), peer
